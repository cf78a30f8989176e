/* The catalog as it is looked at: namespaces, definitions by name and by id, and the whole of it as
 * changes. How it changes: catalog_decide.c makes changes, catalog_apply.c carries them out. */
#include "core/catalog_inside.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static const char *const type_names[EXCHANGE_TYPES] = {
    [EXCHANGE_DIRECT] = "direct",
    [EXCHANGE_FANOUT] = "fanout",
    [EXCHANGE_TOPIC] = "topic",
    [EXCHANGE_HEADERS] = "headers",
};

const char *exchange_type_name(enum exchange_type type)
{
    return type_names[type];
}

bool exchange_type_parse(struct slice name, enum exchange_type *out)
{
    for (unsigned type = 0; type < EXCHANGE_TYPES; type++) {
        if (slice_equal(name, slice_of(type_names[type]))) {
            *out = (enum exchange_type)type;
            return true;
        }
    }
    return false;
}

/* ---- Life ---- */

static void free_table(struct table *table)
{
    uint32_t at = 0;
    for (void *value; (value = table_walk(table, &at)) != NULL;)
        free(value);
    table_done(table);
}

static void free_map(struct map *map)
{
    uint32_t at = 0;
    for (struct map_slot *slot; (slot = map_next(map, &at)) != NULL;)
        free(slot->value);
    map_done(map);
}

struct catalog *catalog_create(void)
{
    struct catalog *catalog = calloc(1, sizeof *catalog);
    if (catalog == NULL)
        return NULL;
    catalog->next_id = 1;
    struct catalog_changes changes = {0};
    struct change root = {.type = CHANGE_ADD_NAMESPACE, .name = slice_of("/")};
    size_t used;
    enum err err = change_encode(&changes, &root);
    if (err == ERR_NONE)
        err = catalog_apply(catalog, slice_make(changes.data, changes.len), &used, NULL, NULL);
    free(changes.data);
    catalog->generation = 0;
    if (err != ERR_NONE) {
        catalog_destroy(catalog);
        return NULL;
    }
    return catalog;
}

static void free_sources(struct catalog *catalog)
{
    uint32_t at = 0;
    for (struct map_slot *slot; (slot = map_next(&catalog->sources, &at)) != NULL;) {
        struct source *source = slot->value;
        table_done(&source->keys);
        if (source->trie != NULL)
            topic_trie_destroy(source->trie);
    }
    free_map(&catalog->sources);
}

void catalog_destroy(struct catalog *catalog)
{
    if (catalog == NULL)
        return;
    free_sources(catalog);
    free_map(&catalog->sinks);
    uint32_t at = 0;
    for (struct map_slot *slot; (slot = map_next(&catalog->owners, &at)) != NULL;)
        free(((struct owned *)slot->value)->ids);
    free_map(&catalog->owners);
    free_table(&catalog->edges);
    free_table(&catalog->exchanges);
    free_table(&catalog->queues);
    free_table(&catalog->topics);
    table_done(&catalog->uuids);
    map_done(&catalog->objects);
    for (uint32_t i = 0; i < catalog->namespace_count; i++)
        free((void *)(uintptr_t)catalog->namespaces[i].name.data);
    free(catalog->namespaces);
    free(catalog);
}

/* ---- Namespaces ---- */

struct namespace *namespace_get(const struct catalog *catalog, uint32_t id)
{
    for (uint32_t i = 0; i < catalog->namespace_count; i++) {
        if (catalog->namespaces[i].id == id)
            return &catalog->namespaces[i];
    }
    return NULL;
}

bool catalog_namespace(const struct catalog *catalog, struct slice name, uint32_t *id)
{
    for (uint32_t i = 0; i < catalog->namespace_count; i++) {
        if (slice_equal(catalog->namespaces[i].name, name)) {
            *id = catalog->namespaces[i].id;
            return true;
        }
    }
    return false;
}

struct slice catalog_namespace_name(const struct catalog *catalog, uint32_t id)
{
    const struct namespace *ns = namespace_get(catalog, id);
    return ns != NULL ? ns->name : slice_of("");
}

uint64_t fixed_exchange_id(uint32_t ns, uint32_t i)
{
    return UINT64_C(1) << 62 | (uint64_t)ns << 8 | i;
}

/* ---- Definitions ---- */

const struct exchange *catalog_exchange(const struct catalog *catalog, uint32_t ns,
                                        struct slice name)
{
    const struct object *object = object_find(catalog, TARGET_EXCHANGE, ns, name);
    return object != NULL ? &object->exchange : NULL;
}

const struct queue_def *catalog_queue(const struct catalog *catalog, uint32_t ns, struct slice name)
{
    const struct object *object = object_find(catalog, TARGET_QUEUE, ns, name);
    return object != NULL ? &object->queue : NULL;
}

const struct topic *catalog_topic(const struct catalog *catalog, uint32_t ns, struct slice name)
{
    const struct object *object = object_find(catalog, TARGET_TOPIC, ns, name);
    return object != NULL ? &object->topic : NULL;
}

const struct exchange *catalog_exchange_by_id(const struct catalog *catalog, uint64_t id)
{
    const struct object *object = object_get(catalog, TARGET_EXCHANGE, id);
    return object != NULL ? &object->exchange : NULL;
}

const struct queue_def *catalog_queue_by_id(const struct catalog *catalog, uint64_t id)
{
    const struct object *object = object_get(catalog, TARGET_QUEUE, id);
    return object != NULL ? &object->queue : NULL;
}

const struct topic *catalog_topic_by_id(const struct catalog *catalog, uint64_t id)
{
    const struct object *object = object_get(catalog, TARGET_TOPIC, id);
    return object != NULL ? &object->topic : NULL;
}

const struct topic *catalog_partition(const struct catalog *catalog, uint64_t id, uint32_t *index)
{
    const struct object *object = map_get(&catalog->objects, id);
    if (object == NULL || object->kind != TARGET_TOPIC)
        return NULL;
    /* Ids grow with the index. */
    const struct topic *topic = &object->topic;
    uint32_t low = 0, high = topic->partition_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (topic->partitions[middle] < id)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == topic->partition_count || topic->partitions[low] != id)
        return NULL;
    *index = low;
    return topic;
}

void catalog_each_topic(const struct catalog *catalog, uint32_t ns,
                        bool (*each)(void *ctx, const struct topic *topic), void *ctx)
{
    uint32_t at = 0;
    for (const struct object *object; (object = table_walk(&catalog->topics, &at)) != NULL;) {
        if (object->topic.namespace_id == ns && !each(ctx, &object->topic))
            return;
    }
}

void catalog_each_queue(const struct catalog *catalog, uint32_t ns,
                        bool (*each)(void *ctx, const struct queue_def *queue), void *ctx)
{
    uint32_t at = 0;
    for (const struct object *object; (object = table_walk(&catalog->queues, &at)) != NULL;) {
        if (object->queue.namespace_id == ns && !each(ctx, &object->queue))
            return;
    }
}

uint64_t catalog_generation(const struct catalog *catalog)
{
    return catalog->generation;
}

/* ---- All of it ---- */

struct dump {
    const struct catalog *catalog;
    bool durable_only;
    enum err (*each)(void *ctx, struct slice change);
    void *ctx;
    struct catalog_changes bytes; /* the change at hand */
};

static enum err dump_change(struct dump *dump, const struct change *change)
{
    dump->bytes.len = 0;
    enum err err = change_encode(&dump->bytes, change);
    if (err != ERR_NONE)
        return err;
    return dump->each(dump->ctx, slice_make(dump->bytes.data, dump->bytes.len));
}

static struct change change_of(const struct object *object)
{
    struct change change = {.id = object_id(object),
                            .namespace_id = object->exchange.namespace_id,
                            .name = object_name(object),
                            .flags = object_durable(object) ? CHANGE_DURABLE : 0};
    if (object->kind == TARGET_EXCHANGE) {
        change.type = CHANGE_ADD_EXCHANGE;
        change.exchange_type = object->exchange.type;
        change.flags |= (uint8_t)((object->exchange.auto_delete ? CHANGE_AUTO_DELETE : 0) |
                                  (object->exchange.internal ? CHANGE_INTERNAL : 0));
        change.args = object->exchange.args;
    } else if (object->kind == TARGET_QUEUE) {
        change.type = CHANGE_ADD_QUEUE;
        change.owner = object->queue.owner;
        change.flags |= (uint8_t)((object->queue.auto_delete ? CHANGE_AUTO_DELETE : 0) |
                                  (object->queue.exclusive ? CHANGE_EXCLUSIVE : 0));
        change.args = object->queue.args;
    } else {
        change.type = CHANGE_ADD_TOPIC;
        memcpy(change.uuid, object->topic.uuid, sizeof change.uuid);
        change.partitions = object->topic.partitions;
        change.partition_count = object->topic.partition_count;
        change.args = object->topic.args;
    }
    return change;
}

static enum err dump_objects(struct dump *dump, const struct table *table)
{
    uint32_t at = 0;
    for (const struct object *object; (object = table_walk(table, &at)) != NULL;) {
        if (object->fixed || (dump->durable_only && !object_durable(object)))
            continue;
        struct change change = change_of(object);
        enum err err = dump_change(dump, &change);
        if (err != ERR_NONE)
            return err;
    }
    return ERR_NONE;
}

static enum err dump_edges(struct dump *dump)
{
    uint32_t at = 0;
    for (const struct edge *edge; (edge = table_walk(&dump->catalog->edges, &at)) != NULL;) {
        const struct binding *binding = &edge->binding;
        const struct object *from =
            object_get(dump->catalog, binding->source_kind, binding->source);
        assert(from != NULL);
        if (dump->durable_only && !(object_durable(from) && object_durable(edge->to)))
            continue;
        struct change change = {
            .type = CHANGE_BIND,
            .id = binding->source,
            .source_kind = binding->source_kind,
            .target_kind = binding->target_kind,
            .target = binding->target,
            .name = binding->key,
            .args = binding->args,
        };
        enum err err = dump_change(dump, &change);
        if (err != ERR_NONE)
            return err;
    }
    return ERR_NONE;
}

enum err catalog_dump(const struct catalog *catalog, bool durable_only,
                      enum err (*each)(void *ctx, struct slice change), void *ctx)
{
    struct dump dump = {catalog, durable_only, each, ctx, {0}};
    struct change next_id = {.type = CHANGE_NEXT_ID, .id = catalog->next_id};
    enum err err = dump_change(&dump, &next_id);
    for (uint32_t i = 0; err == ERR_NONE && i < catalog->namespace_count; i++) {
        struct change change = {.type = CHANGE_ADD_NAMESPACE,
                                .id = catalog->namespaces[i].id,
                                .name = catalog->namespaces[i].name};
        if (change.id != 0)
            err = dump_change(&dump, &change);
    }
    if (err == ERR_NONE)
        err = dump_objects(&dump, &catalog->exchanges);
    if (err == ERR_NONE)
        err = dump_objects(&dump, &catalog->queues);
    if (err == ERR_NONE)
        err = dump_objects(&dump, &catalog->topics);
    if (err == ERR_NONE)
        err = dump_edges(&dump);
    free(dump.bytes.data);
    return err;
}
