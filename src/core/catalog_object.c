/* Definitions: how they are made from changes, put into the catalog and taken out. */
#include "core/catalog_inside.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* ---- Making ---- */

/* What stands behind struct object in its allocation. */
struct layout {
    uint32_t partitions, args;
    size_t bytes;
};

/* Of struct object only what its kind fills is there: a queue is half a topic's size. */
static struct object *allocate(enum target_kind kind, const struct layout *layout,
                               uint64_t **partitions, struct arg **args, uint8_t **bytes)
{
    static const size_t sizes[] = {
        [TARGET_EXCHANGE] = offsetof(struct object, exchange) + sizeof(struct exchange),
        [TARGET_QUEUE] = offsetof(struct object, queue) + sizeof(struct queue_def),
        [TARGET_TOPIC] = offsetof(struct object, topic) + sizeof(struct topic),
    };
    struct object *object = calloc(1, sizes[kind] + layout->partitions * sizeof(uint64_t) +
                                          layout->args * sizeof(struct arg) + layout->bytes);
    if (object == NULL)
        return NULL;
    object->kind = (uint8_t)kind;
    *partitions = (uint64_t *)(void *)((uint8_t *)object + sizes[kind]);
    *args = (struct arg *)(*partitions + layout->partitions);
    *bytes = (uint8_t *)(*args + layout->args);
    return object;
}

static struct slice put_bytes(uint8_t **at, struct slice bytes)
{
    struct slice copy = slice_make(*at, bytes.len);
    if (bytes.len > 0)
        memcpy(*at, bytes.data, bytes.len);
    *at += bytes.len;
    return copy;
}

static void fill_exchange(struct exchange *exchange, const struct change *change)
{
    exchange->id = change->id;
    exchange->namespace_id = change->namespace_id;
    exchange->type = change->exchange_type;
    exchange->durable = change->flags & CHANGE_DURABLE;
    exchange->auto_delete = change->flags & CHANGE_AUTO_DELETE;
    exchange->internal = change->flags & CHANGE_INTERNAL;
    const struct arg *alternate = args_find(exchange->args, "alternate-exchange");
    if (alternate != NULL && alternate->kind == ARG_TEXT)
        exchange->alternate = alternate->text;
}

static void fill_queue(struct queue_def *queue, const struct change *change)
{
    queue->id = change->id;
    queue->namespace_id = change->namespace_id;
    queue->durable = change->flags & CHANGE_DURABLE;
    queue->auto_delete = change->flags & CHANGE_AUTO_DELETE;
    queue->exclusive = change->flags & CHANGE_EXCLUSIVE;
    queue->owner = change->owner;
}

static void fill_topic(struct topic *topic, const struct change *change, uint64_t *partitions)
{
    topic->id = change->id;
    topic->namespace_id = change->namespace_id;
    memcpy(topic->uuid, change->uuid, sizeof topic->uuid);
    topic->partition_count = change->partition_count;
    topic->partitions = partitions;
    change_partitions(change, partitions);
    topic_options_read(topic->args, &topic->options);
}

struct object *object_create(const struct change *change)
{
    struct layout layout = {change->partition_count, change->args_count,
                            change->name.len + change->args_bytes.len};
    uint64_t *partitions;
    struct arg *items;
    uint8_t *at;
    enum target_kind kind = change->type == CHANGE_ADD_EXCHANGE ? TARGET_EXCHANGE
                            : change->type == CHANGE_ADD_QUEUE  ? TARGET_QUEUE
                                                                : TARGET_TOPIC;
    struct object *object = allocate(kind, &layout, &partitions, &items, &at);
    if (object == NULL)
        return NULL;
    struct slice name = put_bytes(&at, change->name);
    if (change->args_count > 0)
        args_read(put_bytes(&at, change->args_bytes), items);
    struct args args = {items, change->args_count};
    object->name_hash = name_hash(change->namespace_id, name);
    if (kind == TARGET_EXCHANGE) {
        object->exchange.name = name;
        object->exchange.args = args;
        fill_exchange(&object->exchange, change);
    } else if (kind == TARGET_QUEUE) {
        object->queue.name = name;
        object->queue.args = args;
        fill_queue(&object->queue, change);
    } else {
        assert(change->type == CHANGE_ADD_TOPIC);
        object->topic.name = name;
        object->topic.args = args;
        fill_topic(&object->topic, change, partitions);
    }
    return object;
}

/* Arguments as they stand in an object already, copied item by item. */
static struct args put_args(uint8_t **at, struct arg *items, struct args args)
{
    for (uint32_t i = 0; i < args.count; i++) {
        items[i] = args.items[i];
        items[i].name = put_bytes(at, args.items[i].name);
        items[i].text = put_bytes(at, args.items[i].text);
    }
    return (struct args){items, args.count};
}

struct object *topic_remake(const struct object *old, const struct change *change)
{
    const struct topic *was = &old->topic;
    bool configure = change->type == CHANGE_CONFIGURE_TOPIC;
    uint32_t count =
        configure ? was->partition_count : change->first_index + change->partition_count;
    assert(count >= was->partition_count);
    size_t args_bytes = configure ? change->args_bytes.len : args_size(was->args);
    struct layout layout = {count, configure ? change->args_count : was->args.count,
                            was->name.len + args_bytes};
    uint64_t *partitions;
    struct arg *items;
    uint8_t *at;
    struct object *object = allocate(TARGET_TOPIC, &layout, &partitions, &items, &at);
    if (object == NULL)
        return NULL;
    object->fixed = old->fixed;
    object->name_hash = old->name_hash;
    object->topic = old->topic;
    struct topic *topic = &object->topic;
    topic->name = put_bytes(&at, was->name);
    topic->partitions = partitions;
    topic->partition_count = count;
    memcpy(partitions, was->partitions, was->partition_count * sizeof *partitions);
    if (configure) {
        if (change->args_count > 0)
            args_read(put_bytes(&at, change->args_bytes), items);
        topic->args = (struct args){items, change->args_count};
    } else {
        topic->args = put_args(&at, items, was->args);
        change_partitions(change, partitions + change->first_index);
    }
    topic_options_read(topic->args, &topic->options);
    return object;
}

/* ---- In the catalog ---- */

static struct table *names_of(struct catalog *catalog, const struct object *object)
{
    switch ((enum target_kind)object->kind) {
    case TARGET_EXCHANGE:
        return &catalog->exchanges;
    case TARGET_QUEUE:
        return &catalog->queues;
    case TARGET_TOPIC:
        return &catalog->topics;
    }
    return NULL;
}

static uint32_t uuid_hash(const uint8_t uuid[16])
{
    return table_hash(XXH3_64bits(uuid, 16));
}

const struct topic *catalog_topic_by_uuid(const struct catalog *catalog, const uint8_t uuid[16])
{
    uint32_t hash = uuid_hash(uuid), at = hash;
    for (struct object *object; (object = table_next(&catalog->uuids, hash, &at)) != NULL;) {
        if (memcmp(object->topic.uuid, uuid, 16) == 0)
            return &object->topic;
    }
    return NULL;
}

static bool own(struct catalog *catalog, const struct queue_def *queue)
{
    struct owned *owned = map_get(&catalog->owners, queue->owner);
    if (owned == NULL) {
        owned = calloc(1, sizeof *owned);
        if (owned == NULL || !map_put(&catalog->owners, queue->owner, owned)) {
            free(owned);
            return false;
        }
    }
    if (owned->count == owned->capacity) {
        uint32_t capacity = owned->capacity == 0 ? 2 : owned->capacity * 2;
        uint64_t *ids = realloc(owned->ids, capacity * sizeof *ids);
        if (ids == NULL)
            return false;
        owned->ids = ids;
        owned->capacity = capacity;
    }
    owned->ids[owned->count++] = queue->id;
    return true;
}

static void disown(struct catalog *catalog, const struct queue_def *queue)
{
    struct owned *owned = map_get(&catalog->owners, queue->owner);
    if (owned == NULL)
        return;
    for (uint32_t i = 0; i < owned->count; i++) {
        if (owned->ids[i] == queue->id) {
            owned->ids[i] = owned->ids[--owned->count];
            break;
        }
    }
    if (owned->count == 0) {
        map_take(&catalog->owners, queue->owner);
        free(owned->ids);
        free(owned);
    }
}

uint32_t catalog_owned(const struct catalog *catalog, uint64_t owner, uint64_t *ids, uint32_t room)
{
    const struct owned *owned = map_get(&catalog->owners, owner);
    if (owned == NULL)
        return 0;
    for (uint32_t i = 0; i < owned->count && i < room; i++)
        ids[i] = owned->ids[i];
    return owned->count;
}

static void take_ids(struct catalog *catalog, const struct object *object)
{
    map_take(&catalog->objects, object_id(object));
    for (uint32_t i = 0; object->kind == TARGET_TOPIC && i < object->topic.partition_count; i++)
        map_take(&catalog->objects, object->topic.partitions[i]);
}

static bool put_ids(struct catalog *catalog, struct object *object)
{
    if (!map_put(&catalog->objects, object_id(object), object))
        return false;
    for (uint32_t i = 0; object->kind == TARGET_TOPIC && i < object->topic.partition_count; i++) {
        if (!map_put(&catalog->objects, object->topic.partitions[i], object))
            return false;
    }
    return true;
}

enum err object_add(struct catalog *catalog, struct object *object)
{
    struct table *names = names_of(catalog, object);
    bool owned = object->kind == TARGET_QUEUE && object->queue.owner != 0;
    if (!table_reserve(names) ||
        (object->kind == TARGET_TOPIC && !table_reserve(&catalog->uuids)) ||
        (owned && !own(catalog, &object->queue)))
        return ERR_NO_MEMORY;
    if (!put_ids(catalog, object)) {
        take_ids(catalog, object);
        if (owned)
            disown(catalog, &object->queue);
        return ERR_NO_MEMORY;
    }
    table_put(names, object->name_hash, object);
    if (object->kind == TARGET_TOPIC)
        table_put(&catalog->uuids, uuid_hash(object->topic.uuid), object);
    struct namespace *ns = namespace_get(catalog, object->exchange.namespace_id);
    if (ns != NULL && !object->fixed)
        ns->objects++;
    return ERR_NONE;
}

void object_take(struct catalog *catalog, struct object *object)
{
    edges_remove(catalog, object_id(object));
    table_take(names_of(catalog, object), object->name_hash, object);
    if (object->kind == TARGET_TOPIC)
        table_take(&catalog->uuids, uuid_hash(object->topic.uuid), object);
    if (object->kind == TARGET_QUEUE && object->queue.owner != 0)
        disown(catalog, &object->queue);
    take_ids(catalog, object);
    struct namespace *ns = namespace_get(catalog, object->exchange.namespace_id);
    if (ns != NULL && !object->fixed)
        ns->objects--;
}

enum err topic_replace(struct catalog *catalog, struct object *old, struct object *topic)
{
    if (!put_ids(catalog, topic)) {
        take_ids(catalog, topic);
        bool back = put_ids(catalog, old);
        assert(back); /* there was room for them */
        return ERR_NO_MEMORY;
    }
    table_swap(&catalog->topics, old->name_hash, old, topic);
    table_swap(&catalog->uuids, uuid_hash(old->topic.uuid), old, topic);
    edges_follow(catalog, topic);
    return ERR_NONE;
}
