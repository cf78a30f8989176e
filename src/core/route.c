/* Routing: a worklist of exchanges, each looked at once. What is found goes into a set: compared
 * one by one while it is small, sorted at the end when it is large. An exchange's alternate stands
 * in for it when none of its own bindings matches, as in RabbitMQ. */
#include "core/route.h"
#include "core/catalog_inside.h"
#include "core/route_headers.h"

#include <stdlib.h>
#include <string.h>

/* Up to here the set is searched for every target that is added. */
enum { SEARCHED_MAX = 16 };

struct routing {
    const struct catalog *catalog;
    const struct route_message *message;
    struct route_targets *targets;
    const struct object *origin; /* a topic as the source: never its own target */
    uint32_t found;              /* bindings that matched at the exchange at hand */
    struct args headers;
    enum { HEADERS_UNREAD, HEADERS_READ, HEADERS_ABSENT } headers_state;
    bool doubles; /* the set may hold a target twice */
};

static bool grow(void **items, uint32_t *capacity, size_t size)
{
    uint32_t wanted = *capacity == 0 ? 8 : *capacity * 2;
    void *grown = realloc(*items, wanted * size);
    if (grown == NULL)
        return false;
    *items = grown;
    *capacity = wanted;
    return true;
}

static void add_target(struct routing *routing, const struct object *object)
{
    struct route_targets *targets = routing->targets;
    const void *definition = &object->exchange; /* where every kind's stands */
    if (object == routing->origin)
        return;
    if (targets->count <= SEARCHED_MAX) {
        for (uint32_t i = 0; i < targets->count; i++) {
            if (targets->items[i].queue == definition)
                return;
        }
    } else {
        routing->doubles = true;
    }
    if (targets->count == targets->capacity) {
        void *items = targets->items;
        bool room = grow(&items, &targets->capacity, sizeof *targets->items);
        targets->items = items;
        if (!room) {
            targets->no_memory = true;
            return;
        }
    }
    struct route_target *target = &targets->items[targets->count++];
    target->kind = object->kind;
    if (object->kind == TARGET_QUEUE)
        target->queue = &object->queue;
    else
        target->topic = &object->topic;
}

/* Puts the exchange on the worklist, unless it was there. */
static void visit(struct routing *routing, uint64_t id)
{
    struct route_targets *targets = routing->targets;
    for (uint32_t i = 0; i < targets->seen_count; i++) {
        if (targets->seen[i] == id)
            return;
    }
    if (targets->seen_count == targets->seen_capacity) {
        void *seen = targets->seen;
        bool room = grow(&seen, &targets->seen_capacity, sizeof *targets->seen);
        targets->seen = seen;
        if (!room) {
            targets->no_memory = true;
            return;
        }
    }
    targets->seen[targets->seen_count++] = id;
}

static void follow(struct routing *routing, const struct edge *edge)
{
    routing->found++;
    if (edge->to->kind == TARGET_EXCHANGE)
        visit(routing, object_id(edge->to));
    else
        add_target(routing, edge->to);
}

/* ---- By type ---- */

static uint32_t key_count(const struct routing *routing)
{
    return routing->message->more_count + 1;
}

static struct slice key_at(const struct routing *routing, uint32_t i)
{
    return i == 0 ? routing->message->key : routing->message->more_keys[i - 1];
}

static void route_default(struct routing *routing, uint32_t ns)
{
    for (uint32_t i = 0; i < key_count(routing); i++) {
        struct slice name = key_at(routing, i);
        const struct object *object = object_find(routing->catalog, TARGET_QUEUE, ns, name);
        if (object == NULL)
            object = object_find(routing->catalog, TARGET_TOPIC, ns, name);
        if (object != NULL) {
            routing->found++;
            add_target(routing, object);
        }
    }
}

static void route_direct(struct routing *routing, const struct source *source)
{
    for (uint32_t i = 0; i < key_count(routing); i++) {
        const struct edge *first = source_by_key(source, key_at(routing, i));
        if (first == NULL)
            continue;
        follow(routing, first);
        list_each(node, &first->by_key) follow(routing, list_entry(node, struct edge, by_key));
    }
}

static void follow_ring(void *ctx, const struct list *entries)
{
    list_each(node, entries) follow(ctx, list_entry(node, struct edge, by_key));
}

static void route_topic(struct routing *routing, const struct source *source)
{
    for (uint32_t i = 0; i < key_count(routing); i++)
        topic_trie_match(source->trie, key_at(routing, i), follow_ring, routing);
}

static const struct args *headers_of(struct routing *routing)
{
    if (routing->headers_state == HEADERS_UNREAD) {
        const struct route_message *message = routing->message;
        bool there = message->headers != NULL && message->headers(message->ctx, &routing->headers);
        routing->headers_state = there ? HEADERS_READ : HEADERS_ABSENT;
        if (!there)
            routing->headers = (struct args){0};
    }
    return &routing->headers;
}

static void route_all(struct routing *routing, const struct source *source, bool headers)
{
    list_each(node, &source->edges)
    {
        const struct edge *edge = list_entry(node, struct edge, by_source);
        if (!headers || headers_match(edge->binding.args, *headers_of(routing)))
            follow(routing, edge);
    }
}

static void route_source(struct routing *routing, const struct source *source)
{
    switch (source->type) {
    case EXCHANGE_DIRECT:
        route_direct(routing, source);
        break;
    case EXCHANGE_FANOUT:
        route_all(routing, source, false);
        break;
    case EXCHANGE_TOPIC:
        route_topic(routing, source);
        break;
    case EXCHANGE_HEADERS:
        route_all(routing, source, true);
        break;
    case EXCHANGE_TYPES:
        break;
    }
}

static void route_exchange(struct routing *routing, const struct exchange *exchange)
{
    routing->found = 0;
    if (exchange->name.len == 0) {
        route_default(routing, exchange->namespace_id);
    } else {
        const struct source *source = map_get(&routing->catalog->sources, exchange->id);
        if (source != NULL)
            route_source(routing, source);
    }
    if (routing->found == 0 && exchange->alternate.len > 0) {
        const struct exchange *alternate =
            catalog_exchange(routing->catalog, exchange->namespace_id, exchange->alternate);
        if (alternate != NULL)
            visit(routing, alternate->id);
    }
}

/* ---- The set ---- */

static int compare(const void *left, const void *right)
{
    const struct route_target *a = left, *b = right;
    uint64_t x = a->kind == TARGET_QUEUE ? a->queue->id : a->topic->id;
    uint64_t y = b->kind == TARGET_QUEUE ? b->queue->id : b->topic->id;
    return x < y ? -1 : x > y;
}

/* By id, so that it comes out the same in every run. */
static void remove_doubles(struct route_targets *targets)
{
    bool sorted = true;
    for (uint32_t i = 1; sorted && i < targets->count; i++)
        sorted = compare(&targets->items[i - 1], &targets->items[i]) < 0;
    if (sorted)
        return;
    qsort(targets->items, targets->count, sizeof *targets->items, compare);
    uint32_t kept = 1;
    for (uint32_t i = 1; i < targets->count; i++) {
        if (targets->items[i].queue != targets->items[kept - 1].queue)
            targets->items[kept++] = targets->items[i];
    }
    targets->count = kept;
}

static void route_seen(struct routing *routing, uint32_t from)
{
    struct route_targets *targets = routing->targets;
    for (uint32_t i = from; i < targets->seen_count; i++) {
        const struct exchange *exchange =
            catalog_exchange_by_id(routing->catalog, targets->seen[i]);
        if (exchange != NULL)
            route_exchange(routing, exchange);
    }
    if (routing->doubles)
        remove_doubles(targets);
}

void route_from_exchange(const struct catalog *catalog, const struct exchange *exchange,
                         const struct route_message *message, struct route_targets *targets)
{
    struct routing routing = {.catalog = catalog, .message = message, .targets = targets};
    targets->seen_count = 0;
    visit(&routing, exchange->id);
    route_exchange(&routing, exchange);
    route_seen(&routing, 1);
}

void route_from_topic(const struct catalog *catalog, const struct topic *topic,
                      const struct route_message *message, struct route_targets *targets)
{
    struct routing routing = {.catalog = catalog, .message = message, .targets = targets};
    targets->seen_count = 0;
    routing.origin = map_get(&catalog->objects, topic->id);
    const struct source *source = map_get(&catalog->sources, topic->id);
    if (source == NULL)
        return;
    route_source(&routing, source);
    route_seen(&routing, 0);
}

void route_reset(struct route_targets *targets)
{
    targets->count = 0;
    targets->seen_count = 0;
    targets->no_memory = false;
}

void route_done(struct route_targets *targets)
{
    free(targets->items);
    free(targets->seen);
    *targets = (struct route_targets){0};
}
