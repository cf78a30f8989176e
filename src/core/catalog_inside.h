/* What the files of the catalog share. For catalog*.c and route.c only.
 *
 * A definition is one allocation: struct object, then what it points to. It is found by name in a
 * table of its kind and by id in one map for all; a topic stands there under its partitions' ids
 * too. A queue is reached through the default exchange by its name, so only real bindings cost
 * memory: an edge each, on the list of its source and on that of its target. */
#ifndef WEIR_CORE_CATALOG_INSIDE_H
#define WEIR_CORE_CATALOG_INSIDE_H

#include "base/list.h"
#include "base/map.h"
#include "core/catalog.h"
#include "core/catalog_change.h"
#include "core/catalog_table.h"
#include "core/topic_trie.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

struct object {
    uint8_t kind; /* enum target_kind */
    bool fixed;   /* a predefined exchange */
    uint32_t name_hash;
    union { /* all begin with id and namespace_id */
        struct exchange exchange;
        struct queue_def queue;
        struct topic topic;
    };
};

struct edge {
    struct binding binding;
    struct object *to;
    struct list by_source, by_target;
    struct list by_key; /* ring of the edges of the source with the same key (direct, topic) */
    uint32_t hash;      /* of the whole binding */
    uint32_t key_hash;
};

/* What leads from an exchange or topic. */
struct source {
    struct list edges;
    uint32_t count;
    enum exchange_type type;
    struct table keys;       /* direct: one edge of each ring */
    struct topic_trie *trie; /* topic */
};

/* What leads to an object. */
struct sink {
    struct list edges;
    uint32_t count;
};

struct namespace
{
    uint32_t id;
    uint32_t objects; /* definitions in it, predefined ones apart */
    struct slice name;
};

struct owned {
    uint64_t *ids;
    uint32_t count, capacity;
};

struct catalog {
    uint64_t generation;
    uint64_t next_id;
    struct namespace *namespaces;
    uint32_t namespace_count, namespace_capacity;
    struct table exchanges, queues, topics; /* by name */
    struct table uuids;                     /* topics */
    struct map objects;                     /* by id, topics also by the ids of their partitions */
    struct table edges;                     /* by everything that they are */
    struct map sources, sinks;              /* by id */
    struct map owners;                      /* struct owned, by connection */
};

static inline uint64_t object_id(const struct object *object)
{
    return object->exchange.id;
}

static inline uint32_t name_hash(uint32_t ns, struct slice name)
{
    return table_hash(XXH3_64bits_withSeed(name.data, name.len, ns));
}

static inline struct slice object_name(const struct object *object)
{
    switch ((enum target_kind)object->kind) {
    case TARGET_EXCHANGE:
        return object->exchange.name;
    case TARGET_QUEUE:
        return object->queue.name;
    case TARGET_TOPIC:
        return object->topic.name;
    }
    return (struct slice){0};
}

static inline bool object_durable(const struct object *object)
{
    switch ((enum target_kind)object->kind) {
    case TARGET_EXCHANGE:
        return object->exchange.durable;
    case TARGET_QUEUE:
        return object->queue.durable;
    case TARGET_TOPIC:
        return true;
    }
    return false;
}

static inline struct object *object_find(const struct catalog *catalog, enum target_kind kind,
                                         uint32_t ns, struct slice name)
{
    const struct table *table = kind == TARGET_EXCHANGE ? &catalog->exchanges
                                : kind == TARGET_QUEUE  ? &catalog->queues
                                                        : &catalog->topics;
    uint32_t hash = name_hash(ns, name), at = hash;
    for (struct object *object; (object = table_next(table, hash, &at)) != NULL;) {
        if (object->exchange.namespace_id == ns && slice_equal(object_name(object), name))
            return object;
    }
    return NULL;
}

/* The object with that very id and kind. */
static inline struct object *object_get(const struct catalog *catalog, enum target_kind kind,
                                        uint64_t id)
{
    struct object *object = map_get(&catalog->objects, id);
    return object != NULL && object->kind == kind && object_id(object) == id ? object : NULL;
}

struct namespace *namespace_get(const struct catalog *catalog, uint32_t id);

/* Ids of the exchanges that every namespace has. */
enum { FIXED_EXCHANGES = 6 };
uint64_t fixed_exchange_id(uint32_t ns, uint32_t i);

/* ---- catalog_object.c: making, adding, removing definitions ---- */

/* The definition that an ADD change describes, not yet in the catalog. NULL: no memory. */
struct object *object_create(const struct change *change);
/* A topic like `old` with more partitions (GROW) or other arguments (CONFIGURE). */
struct object *topic_remake(const struct object *old, const struct change *change);
/* What was added before under that name or id goes. */
enum err object_add(struct catalog *catalog, struct object *object);
/* Takes it out, with all its edges, and leaves it to the caller to free. */
void object_take(struct catalog *catalog, struct object *object);
/* Puts one version of a topic in the place of another; frees nothing. */
enum err topic_replace(struct catalog *catalog, struct object *old, struct object *topic);

/* ---- catalog_edge.c: bindings ---- */

struct edge *edge_find(const struct catalog *catalog, const struct binding *binding);
enum err edge_add(struct catalog *catalog, const struct change *change, struct object *from,
                  struct object *to);
void edge_remove(struct catalog *catalog, struct edge *edge);
/* All edges of an object that goes. */
void edges_remove(struct catalog *catalog, uint64_t id);
/* The object moved to another place in memory. */
void edges_follow(struct catalog *catalog, struct object *object);
/* The ring of a direct exchange's edges with that key, as its first edge. NULL: none. */
struct edge *source_by_key(const struct source *source, struct slice key);
/* What a topic's binding by that key means in its trie. */
struct slice source_pattern(const struct object *from, struct slice key);

/* ---- catalog_options.c: arguments ---- */

/* What the arguments come to; wrong ones count as not given. */
void topic_options_read(struct args args, struct topic_options *out);
/* NULL, or what is wrong, into text: for queues in RabbitMQ's words behind "invalid arg '%s' for
 * queue ...: ", *name being the argument; for topics the whole text. */
enum { FAULT_BYTES = 512 };
bool queue_args_check(struct args args, const char **name, char text[FAULT_BYTES]);
bool topic_configs_check(struct args args, char text[FAULT_BYTES]);
/* Known arguments: those that a declare is compared by; NULL at the end. */
extern const char *const queue_args_compared[];
/* "longstr", "signedint", ... for the type's letter in a field table. */
const char *arg_type_name(const struct arg *arg);
/* The value as RabbitMQ prints it. */
void arg_print(const struct arg *arg, char *text, size_t room);

#endif
