/* Bindings: an edge is found by all that it is, by its source (to route) and by its target (to go
 * with it). */
#include "core/catalog_inside.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static uint32_t hash_of(const struct binding *binding)
{
    uint64_t hash = XXH3_64bits_withSeed(binding->key.data, binding->key.len,
                                         map_hash(binding->source) ^ (binding->target << 1));
    /* The order of arguments does not matter. */
    for (uint32_t i = 0; i < binding->args.count; i++) {
        const struct arg *arg = &binding->args.items[i];
        hash += XXH3_64bits(arg->name.data, arg->name.len) ^
                XXH3_64bits_withSeed(arg->text.data, arg->text.len, (uint64_t)arg->number);
    }
    return table_hash(hash);
}

static bool edge_is(const struct binding *a, const struct binding *b)
{
    return a->source == b->source && a->target == b->target && slice_equal(a->key, b->key) &&
           args_same(a->args, b->args);
}

struct edge *edge_find(const struct catalog *catalog, const struct binding *binding)
{
    uint32_t hash = hash_of(binding), at = hash;
    for (struct edge *edge; (edge = table_next(&catalog->edges, hash, &at)) != NULL;) {
        if (edge_is(&edge->binding, binding))
            return edge;
    }
    return NULL;
}

struct slice source_pattern(const struct object *from, struct slice key)
{
    return from->kind == TARGET_TOPIC && key.len == 0 ? slice_of("#") : key;
}

static uint32_t key_hash(struct slice key)
{
    return table_hash(XXH3_64bits(key.data, key.len));
}

struct edge *source_by_key(const struct source *source, struct slice key)
{
    if (source->keys.count == 0)
        return NULL;
    uint32_t hash = key_hash(key), at = hash;
    for (struct edge *edge; (edge = table_next(&source->keys, hash, &at)) != NULL;) {
        if (slice_equal(edge->binding.key, key))
            return edge;
    }
    return NULL;
}

/* ---- Ends ---- */

static struct source *source_enter(struct catalog *catalog, const struct object *from)
{
    struct source *source = map_get(&catalog->sources, object_id(from));
    if (source != NULL)
        return source;
    source = calloc(1, sizeof *source);
    if (source == NULL)
        return NULL;
    list_init(&source->edges);
    source->type = from->kind == TARGET_TOPIC ? EXCHANGE_TOPIC : from->exchange.type;
    if (source->type == EXCHANGE_TOPIC)
        source->trie = topic_trie_create();
    if ((source->type == EXCHANGE_TOPIC && source->trie == NULL) ||
        !map_put(&catalog->sources, object_id(from), source)) {
        if (source->trie != NULL)
            topic_trie_destroy(source->trie);
        free(source);
        return NULL;
    }
    return source;
}

static struct sink *sink_enter(struct catalog *catalog, uint64_t id)
{
    struct sink *sink = map_get(&catalog->sinks, id);
    if (sink != NULL)
        return sink;
    sink = calloc(1, sizeof *sink);
    if (sink == NULL || !map_put(&catalog->sinks, id, sink)) {
        free(sink);
        return NULL;
    }
    list_init(&sink->edges);
    return sink;
}

/* Without edges they go. */
static void leave(struct catalog *catalog, uint64_t source_id, uint64_t target_id)
{
    struct source *source = map_get(&catalog->sources, source_id);
    if (source != NULL && source->count == 0) {
        map_take(&catalog->sources, source_id);
        table_done(&source->keys);
        if (source->trie != NULL)
            topic_trie_destroy(source->trie);
        free(source);
    }
    struct sink *sink = map_get(&catalog->sinks, target_id);
    if (sink != NULL && sink->count == 0) {
        map_take(&catalog->sinks, target_id);
        free(sink);
    }
}

static void mark_topic(struct catalog *catalog, uint64_t source_id)
{
    struct object *object = object_get(catalog, TARGET_TOPIC, source_id);
    if (object != NULL)
        object->topic.has_bindings = map_get(&catalog->sources, source_id) != NULL;
}

/* ---- Edges ---- */

static struct edge *edge_create(const struct change *change, struct object *to)
{
    size_t args_bytes = change->args_count * sizeof(struct arg);
    struct edge *edge =
        calloc(1, sizeof *edge + args_bytes + change->name.len + change->args_bytes.len);
    if (edge == NULL)
        return NULL;
    struct arg *items = (struct arg *)(edge + 1);
    uint8_t *key = (uint8_t *)(items + change->args_count);
    uint8_t *bytes = key + change->name.len;
    if (change->name.len > 0)
        memcpy(key, change->name.data, change->name.len);
    memcpy(bytes, change->args_bytes.data, change->args_bytes.len);
    args_read(slice_make(bytes, change->args_bytes.len), items);
    edge->binding = (struct binding){
        .source_kind = change->source_kind,
        .target_kind = change->target_kind,
        .source = change->id,
        .target = change->target,
        .key = slice_make(key, change->name.len),
        .args = {items, change->args_count},
    };
    edge->to = to;
    edge->hash = hash_of(&edge->binding);
    edge->key_hash = key_hash(edge->binding.key);
    list_init(&edge->by_source);
    list_init(&edge->by_target);
    list_init(&edge->by_key);
    return edge;
}

/* Into what the source finds it by. */
static bool index_key(struct source *source, const struct object *from, struct edge *edge)
{
    if (source->type == EXCHANGE_TOPIC)
        return topic_trie_add(source->trie, source_pattern(from, edge->binding.key), &edge->by_key);
    if (source->type != EXCHANGE_DIRECT)
        return true;
    struct edge *first = source_by_key(source, edge->binding.key);
    if (first != NULL) {
        list_insert(&first->by_key, &edge->by_key);
        return true;
    }
    if (!table_reserve(&source->keys))
        return false;
    table_put(&source->keys, edge->key_hash, edge);
    return true;
}

static void unindex_key(struct source *source, const struct object *from, struct edge *edge)
{
    if (source->type == EXCHANGE_TOPIC) {
        topic_trie_remove(source->trie, source_pattern(from, edge->binding.key), &edge->by_key);
        return;
    }
    if (source->type != EXCHANGE_DIRECT)
        return;
    bool first = source_by_key(source, edge->binding.key) == edge;
    if (first && list_empty(&edge->by_key))
        table_take(&source->keys, edge->key_hash, edge);
    else if (first)
        table_swap(&source->keys, edge->key_hash, edge,
                   list_entry(edge->by_key.next, struct edge, by_key));
    list_remove(&edge->by_key);
}

enum err edge_add(struct catalog *catalog, const struct change *change, struct object *from,
                  struct object *to)
{
    struct edge *edge = edge_create(change, to);
    if (edge == NULL)
        return ERR_NO_MEMORY;
    if (edge_find(catalog, &edge->binding) != NULL) {
        free(edge);
        return ERR_NONE;
    }
    struct source *source = source_enter(catalog, from);
    struct sink *sink = sink_enter(catalog, object_id(to));
    if (source == NULL || sink == NULL || !table_reserve(&catalog->edges) ||
        !index_key(source, from, edge)) {
        leave(catalog, object_id(from), object_id(to));
        free(edge);
        return ERR_NO_MEMORY;
    }
    list_insert(&source->edges, &edge->by_source);
    source->count++;
    list_insert(&sink->edges, &edge->by_target);
    sink->count++;
    table_put(&catalog->edges, edge->hash, edge);
    mark_topic(catalog, object_id(from));
    return ERR_NONE;
}

void edge_remove(struct catalog *catalog, struct edge *edge)
{
    uint64_t source_id = edge->binding.source, target_id = edge->binding.target;
    struct source *source = map_get(&catalog->sources, source_id);
    struct sink *sink = map_get(&catalog->sinks, target_id);
    const struct object *from = object_get(catalog, edge->binding.source_kind, source_id);
    assert(source != NULL && sink != NULL && from != NULL);
    unindex_key(source, from, edge);
    list_remove(&edge->by_source);
    source->count--;
    list_remove(&edge->by_target);
    sink->count--;
    table_take(&catalog->edges, edge->hash, edge);
    free(edge);
    leave(catalog, source_id, target_id);
    mark_topic(catalog, source_id);
}

void edges_remove(struct catalog *catalog, uint64_t id)
{
    for (struct source *source; (source = map_get(&catalog->sources, id)) != NULL;)
        edge_remove(catalog, list_entry(source->edges.next, struct edge, by_source));
    for (struct sink *sink; (sink = map_get(&catalog->sinks, id)) != NULL;)
        edge_remove(catalog, list_entry(sink->edges.next, struct edge, by_target));
}

void edges_follow(struct catalog *catalog, struct object *object)
{
    struct sink *sink = map_get(&catalog->sinks, object_id(object));
    if (sink == NULL)
        return;
    list_each(node, &sink->edges) list_entry(node, struct edge, by_target)->to = object;
}
