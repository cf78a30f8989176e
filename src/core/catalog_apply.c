/* Making changes true. The same change may come again behind a state that holds it already (see
 * catalog_change.h), so each one only brings about what it says. */
#include "core/catalog_inside.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    enum exchange_type type;
} fixed_exchanges[FIXED_EXCHANGES] = {
    {"", EXCHANGE_DIRECT},
    {"amq.direct", EXCHANGE_DIRECT},
    {"amq.fanout", EXCHANGE_FANOUT},
    {"amq.topic", EXCHANGE_TOPIC},
    {"amq.headers", EXCHANGE_HEADERS},
    {"amq.match", EXCHANGE_HEADERS},
};

struct apply {
    struct catalog *catalog;
    const struct change *change;
    const struct catalog_listener *listener; /* may be NULL */
    void *ctx;
};

static void skip_id(struct catalog *catalog, uint64_t id)
{
    if (id >= catalog->next_id && id < UINT64_C(1) << 62)
        catalog->next_id = id + 1;
}

/* ---- Namespaces ---- */

static enum err add_fixed(struct catalog *catalog, uint32_t ns)
{
    for (uint32_t i = 0; i < FIXED_EXCHANGES; i++) {
        struct change change = {
            .type = CHANGE_ADD_EXCHANGE,
            .id = fixed_exchange_id(ns, i),
            .namespace_id = ns,
            .flags = CHANGE_DURABLE,
            .exchange_type = fixed_exchanges[i].type,
            .name = slice_of(fixed_exchanges[i].name),
        };
        struct object *object = object_create(&change);
        if (object == NULL)
            return ERR_NO_MEMORY;
        object->fixed = true;
        enum err err = object_add(catalog, object);
        if (err != ERR_NONE) {
            free(object);
            return err;
        }
    }
    return ERR_NONE;
}

static enum err add_namespace(struct catalog *catalog, const struct change *change)
{
    uint32_t id = (uint32_t)change->id, other;
    if (namespace_get(catalog, id) != NULL || catalog_namespace(catalog, change->name, &other))
        return ERR_NONE;
    if (catalog->namespace_count == catalog->namespace_capacity) {
        uint32_t capacity = catalog->namespace_capacity == 0 ? 2 : catalog->namespace_capacity * 2;
        struct namespace *all = realloc(catalog->namespaces, capacity * sizeof *all);
        if (all == NULL)
            return ERR_NO_MEMORY;
        catalog->namespaces = all;
        catalog->namespace_capacity = capacity;
    }
    uint8_t *name = malloc(change->name.len + 1);
    if (name == NULL)
        return ERR_NO_MEMORY;
    if (change->name.len > 0)
        memcpy(name, change->name.data, change->name.len);
    catalog->namespaces[catalog->namespace_count++] =
        (struct namespace){.id = id, .name = slice_make(name, change->name.len)};
    if (id != 0)
        skip_id(catalog, id);
    return add_fixed(catalog, id);
}

static void remove_namespace(struct catalog *catalog, uint64_t id)
{
    struct namespace *ns =
        id != 0 && id <= UINT32_MAX ? namespace_get(catalog, (uint32_t)id) : NULL;
    if (ns == NULL || ns->objects > 0)
        return;
    for (uint32_t i = 0; i < FIXED_EXCHANGES; i++) {
        struct object *object = object_get(catalog, TARGET_EXCHANGE, fixed_exchange_id(ns->id, i));
        if (object != NULL) {
            object_take(catalog, object);
            free(object);
        }
    }
    free((void *)(uintptr_t)ns->name.data);
    *ns = catalog->namespaces[--catalog->namespace_count];
}

/* ---- Definitions ---- */

static enum target_kind kind_of(enum change_type type)
{
    switch (type) {
    case CHANGE_ADD_EXCHANGE:
    case CHANGE_REMOVE_EXCHANGE:
        return TARGET_EXCHANGE;
    case CHANGE_ADD_QUEUE:
    case CHANGE_REMOVE_QUEUE:
        return TARGET_QUEUE;
    default:
        return TARGET_TOPIC;
    }
}

static void tell_added(const struct apply *apply, const struct object *object, uint32_t first_new)
{
    const struct catalog_listener *listener = apply->listener;
    if (listener == NULL)
        return;
    if (object->kind == TARGET_QUEUE && listener->queue_added != NULL)
        listener->queue_added(apply->ctx, &object->queue);
    if (object->kind == TARGET_TOPIC && listener->topic_added != NULL)
        listener->topic_added(apply->ctx, &object->topic, first_new);
}

static void remove_object(const struct apply *apply, struct object *object)
{
    const struct catalog_listener *listener = apply->listener;
    object_take(apply->catalog, object);
    if (listener != NULL && object->kind == TARGET_QUEUE && listener->queue_removed != NULL)
        listener->queue_removed(apply->ctx, &object->queue);
    if (listener != NULL && object->kind == TARGET_TOPIC && listener->topic_removed != NULL)
        listener->topic_removed(apply->ctx, &object->topic);
    free(object);
}

/* Do the ids that come with the change belong to something else? */
static bool ids_taken(const struct apply *apply, const uint64_t *partitions, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (partitions[i] >= UINT64_C(1) << 62 ||
            map_get(&apply->catalog->objects, partitions[i]) != NULL)
            return true;
    }
    return false;
}

static enum err add_object(const struct apply *apply)
{
    struct catalog *catalog = apply->catalog;
    const struct change *change = apply->change;
    enum target_kind kind = kind_of(change->type);
    if (change->id >= UINT64_C(1) << 62)
        return ERR_CORRUPT;
    skip_id(catalog, change->id);
    if (namespace_get(catalog, change->namespace_id) == NULL ||
        object_get(catalog, kind, change->id) != NULL)
        return ERR_NONE;
    if (map_get(&catalog->objects, change->id) != NULL)
        return ERR_CORRUPT;
    struct object *object = object_create(change);
    if (object == NULL)
        return ERR_NO_MEMORY;
    if (kind == TARGET_TOPIC) {
        const struct topic *topic = &object->topic;
        if (ids_taken(apply, topic->partitions, topic->partition_count)) {
            free(object);
            return ERR_CORRUPT;
        }
        skip_id(catalog, topic->partitions[topic->partition_count - 1]);
    }
    /* A later one of that name, which this replay comes to again. */
    struct object *same = object_find(catalog, kind, change->namespace_id, change->name);
    if (same != NULL && same->fixed) {
        free(object);
        return ERR_CORRUPT;
    }
    if (same != NULL)
        remove_object(apply, same);
    enum err err = object_add(catalog, object);
    if (err != ERR_NONE) {
        free(object);
        return err;
    }
    tell_added(apply, object, 0);
    return ERR_NONE;
}

static enum err change_topic(const struct apply *apply)
{
    struct catalog *catalog = apply->catalog;
    const struct change *change = apply->change;
    struct object *old = object_get(catalog, TARGET_TOPIC, change->id);
    if (old == NULL)
        return ERR_NONE;
    uint32_t had = old->topic.partition_count;
    bool grow = change->type == CHANGE_GROW_TOPIC;
    if (grow && change->first_index < had)
        return ERR_NONE; /* it has grown already */
    if (grow && change->first_index > had)
        return ERR_CORRUPT;
    struct object *topic = topic_remake(old, change);
    if (topic == NULL)
        return ERR_NO_MEMORY;
    const uint64_t *ids = topic->topic.partitions;
    uint32_t count = topic->topic.partition_count;
    if (grow && (ids_taken(apply, ids + had, count - had) || ids[had] < ids[had - 1])) {
        free(topic);
        return ERR_CORRUPT;
    }
    skip_id(catalog, ids[count - 1]);
    enum err err = topic_replace(catalog, old, topic);
    free(err == ERR_NONE ? old : topic);
    if (err == ERR_NONE)
        tell_added(apply, topic, had);
    return err;
}

/* ---- Bindings ---- */

static enum err bind(const struct apply *apply)
{
    const struct change *change = apply->change;
    struct object *from = object_get(apply->catalog, change->source_kind, change->id);
    struct object *to = object_get(apply->catalog, change->target_kind, change->target);
    if (from == NULL || to == NULL)
        return ERR_NONE;
    return edge_add(apply->catalog, change, from, to);
}

static enum err unbind(const struct apply *apply)
{
    const struct change *change = apply->change;
    struct arg *items = calloc((size_t)change->args_count + 1, sizeof *items);
    if (items == NULL)
        return ERR_NO_MEMORY;
    args_read(change->args_bytes, items);
    struct binding binding = {
        .source_kind = change->source_kind,
        .target_kind = change->target_kind,
        .source = change->id,
        .target = change->target,
        .key = change->name,
        .args = {items, change->args_count},
    };
    struct edge *edge = edge_find(apply->catalog, &binding);
    if (edge != NULL)
        edge_remove(apply->catalog, edge);
    free(items);
    return ERR_NONE;
}

static enum err carry_out(const struct apply *apply)
{
    const struct change *change = apply->change;
    switch (change->type) {
    case CHANGE_NEXT_ID:
        if (change->id > 0)
            skip_id(apply->catalog, change->id - 1);
        return ERR_NONE;
    case CHANGE_ADD_NAMESPACE:
        return add_namespace(apply->catalog, change);
    case CHANGE_REMOVE_NAMESPACE:
        remove_namespace(apply->catalog, change->id);
        return ERR_NONE;
    case CHANGE_ADD_EXCHANGE:
    case CHANGE_ADD_QUEUE:
    case CHANGE_ADD_TOPIC:
        return add_object(apply);
    case CHANGE_REMOVE_EXCHANGE:
    case CHANGE_REMOVE_QUEUE:
    case CHANGE_REMOVE_TOPIC: {
        struct object *object = object_get(apply->catalog, kind_of(change->type), change->id);
        if (object != NULL && !object->fixed)
            remove_object(apply, object);
        return ERR_NONE;
    }
    case CHANGE_GROW_TOPIC:
    case CHANGE_CONFIGURE_TOPIC:
        return change_topic(apply);
    case CHANGE_BIND:
        return bind(apply);
    case CHANGE_UNBIND:
        return unbind(apply);
    }
    return ERR_CORRUPT;
}

enum err catalog_apply(struct catalog *catalog, struct slice changes, size_t *used,
                       const struct catalog_listener *listener, void *ctx)
{
    struct change change;
    size_t length;
    enum err err = change_decode(changes, &change, &length);
    if (err != ERR_NONE)
        return err;
    struct apply apply = {catalog, &change, listener, ctx};
    catalog->generation++;
    err = carry_out(&apply);
    if (err == ERR_NONE)
        *used = length;
    return err;
}
