/* Every definition: namespaces, exchanges, queues, topics, bindings. The catalog is a fold over
 * changes. Cell 0 owns it: catalog_decide checks a request against it and writes the changes that
 * carry the request out; catalog_apply makes a change true. Every shard holds a copy, fed with the
 * same changes in the same order, so looking something up never leaves the shard. Definitions of
 * non-durable objects are changes too; only their owner does not journal them.
 *
 * A definition's pointer is valid until the next catalog_apply; ids are for ever. */
#ifndef WEIR_CORE_CATALOG_H
#define WEIR_CORE_CATALOG_H

#include "base/arena.h"
#include "base/slice.h"
#include "core/args.h"
#include "gen/err.h"

#include <stdbool.h>
#include <stdint.h>

struct catalog;

enum exchange_type {
    EXCHANGE_DIRECT,
    EXCHANGE_FANOUT,
    EXCHANGE_TOPIC,
    EXCHANGE_HEADERS,
    EXCHANGE_TYPES,
};

/* "direct", "fanout", "topic", "headers". */
const char *exchange_type_name(enum exchange_type type);
/* false when there is no such type. */
bool exchange_type_parse(struct slice name, enum exchange_type *out);

/* What a binding leads from or to, and what a message is routed to. */
enum target_kind {
    TARGET_EXCHANGE,
    TARGET_QUEUE,
    TARGET_TOPIC, /* as a source: a topic whose records are routed on as they are appended */
};

struct exchange {
    uint64_t id;
    uint32_t namespace_id;
    enum exchange_type type;
    bool durable, auto_delete, internal;
    struct slice name;
    struct slice alternate; /* name of the alternate exchange, empty = none */
    struct args args;
};

enum queue_overflow {
    OVERFLOW_DROP_HEAD,
    OVERFLOW_REJECT_PUBLISH,
    OVERFLOW_REJECT_PUBLISH_DLX,
};

/* What a queue's arguments come to; -1 = not set. */
struct queue_options {
    int64_t message_ttl_ms;
    int64_t expires_ms;
    int64_t max_length;
    int64_t max_length_bytes;
    enum queue_overflow overflow;
    int32_t max_priority;
    int64_t delivery_limit; /* x-delivery-limit */
    bool single_active_consumer;
    bool dead_letters; /* x-dead-letter-exchange was given, possibly as "" */
};

struct queue_def {
    uint64_t id; /* also names its cell (id % cells) and its stream */
    uint32_t namespace_id;
    bool durable, auto_delete, exclusive;
    uint64_t owner; /* connection of an exclusive queue, else 0 */
    struct slice name;
    struct args args;
};

struct topic_options {
    int64_t retention_ms;    /* -1 = for ever */
    int64_t retention_bytes; /* per partition; -1 = no limit */
    int64_t max_message_bytes;
    int64_t segment_bytes, segment_ms;
    bool log_append_time;
    bool compact, remove; /* cleanup.policy */
};

struct topic {
    uint64_t id;
    uint32_t namespace_id;
    uint8_t uuid[16];
    struct slice name;
    struct args args; /* as given: Kafka configs (text) or AMQP arguments */
    struct topic_options options;
    uint32_t partition_count;
    const uint64_t *partitions; /* their ids, which name their cell and stream */
    bool has_bindings;          /* something is bound to it as a source */
};

struct binding {
    enum target_kind source_kind, target_kind;
    uint64_t source, target;
    struct slice key;
    struct args args;
};

/* ---- Looking up ---- */

/* Namespace 0 is "/" and always there. */
bool catalog_namespace(const struct catalog *catalog, struct slice name, uint32_t *id);
struct slice catalog_namespace_name(const struct catalog *catalog, uint32_t id);
const struct exchange *catalog_exchange(const struct catalog *catalog, uint32_t ns,
                                        struct slice name);
const struct queue_def *catalog_queue(const struct catalog *catalog, uint32_t ns,
                                      struct slice name);
const struct topic *catalog_topic(const struct catalog *catalog, uint32_t ns, struct slice name);
const struct exchange *catalog_exchange_by_id(const struct catalog *catalog, uint64_t id);
const struct queue_def *catalog_queue_by_id(const struct catalog *catalog, uint64_t id);
const struct topic *catalog_topic_by_id(const struct catalog *catalog, uint64_t id);
const struct topic *catalog_topic_by_uuid(const struct catalog *catalog, const uint8_t uuid[16]);
/* The topic that the partition id belongs to, and its index there. */
const struct topic *catalog_partition(const struct catalog *catalog, uint64_t id, uint32_t *index);
/* Walks all of a namespace in unspecified but stable order; return false from each to stop. */
void catalog_each_topic(const struct catalog *catalog, uint32_t ns,
                        bool (*each)(void *ctx, const struct topic *topic), void *ctx);
void catalog_each_queue(const struct catalog *catalog, uint32_t ns,
                        bool (*each)(void *ctx, const struct queue_def *queue), void *ctx);
/* What the queue's arguments come to; read from them anew, for every shard has all definitions and
 * each queue lives in one. */
void catalog_queue_options(const struct queue_def *queue, struct queue_options *out);
/* Where its dead letters go; false: nowhere. *key, data == NULL: by the message's own keys. */
bool catalog_queue_dead_letters(const struct queue_def *queue, struct slice *exchange,
                                struct slice *key);
/* Grows by one with every change: whoever caches a look-up compares it. */
uint64_t catalog_generation(const struct catalog *catalog);

/* ---- Changing (cell 0) ---- */

enum catalog_op {
    CATALOG_DECLARE_EXCHANGE = 1,
    CATALOG_DELETE_EXCHANGE,
    CATALOG_BIND,
    CATALOG_UNBIND,
    CATALOG_DECLARE_QUEUE,
    CATALOG_DELETE_QUEUE,
    CATALOG_CREATE_TOPIC,
    CATALOG_DELETE_TOPIC,
    CATALOG_GROW_TOPIC,      /* partitions = the new total */
    CATALOG_CONFIGURE_TOPIC, /* args replace the old ones */
    CATALOG_CREATE_NAMESPACE,
    CATALOG_DELETE_NAMESPACE,
};

struct catalog_request {
    enum catalog_op op;
    uint32_t namespace_id;
    /* Of the exchange, queue, topic or namespace; of a binding: the source, an exchange or, where
     * there is none of that name, a topic. */
    struct slice name;
    struct args args;
    /* declare */
    enum exchange_type type;
    bool durable, auto_delete, exclusive, internal;
    bool if_unused;     /* delete exchange */
    bool validate_only; /* decide, change nothing */
    uint64_t owner;     /* connection that asks: exclusive queues are checked against it */
    uint64_t id;        /* delete queue by the queue's own cell: only this very one; else 0 */
    /* bind, unbind: from `name` to target by key; a queue's name may be that of a topic */
    enum target_kind target_kind;
    struct slice target;
    struct slice key;
    /* topics; with the argument x-queue-type it is a stream queue, with AMQP's rules, else Kafka's
     */
    uint32_t partitions;
    uint8_t uuid[16]; /* random, chosen by who asks */
};

/* Why a request was refused, in the words that RabbitMQ uses after "PRECONDITION_FAILED - " and
 * its like: clients match on them. */
struct catalog_problem {
    char text[768];
};

/* Changes encoded one after the other; a journal record holds one. */
struct catalog_changes {
    uint8_t *data; /* grows; the caller frees it */
    size_t len, capacity;
    uint32_t count;
    bool durable; /* false: do not journal */
    uint64_t id;  /* of the object declared or found */
    bool existed; /* a declare met an equivalent one: nothing to change */
};

struct catalog *catalog_create(void);
void catalog_destroy(struct catalog *catalog);

/* Checks the request and writes the changes that carry it out (none when it holds already). Makes
 * the predefined exchanges undeletable; deletes auto-delete exchanges with their last binding.
 * Errors: NOT_FOUND, NOT_EQUIVALENT, LOCKED, REFUSED (reserved names, default exchange), IN_USE,
 * EXISTS (topics), INVALID_NAME, INVALID_PARTITIONS, INVALID_CONFIG, INVALID (argument values),
 * NO_MEMORY. */
enum err catalog_decide(const struct catalog *catalog, const struct catalog_request *request,
                        struct catalog_changes *out, struct catalog_problem *problem);

/* What catalog_apply tells its owner; definitions are valid during the call. */
struct catalog_listener {
    void (*queue_added)(void *ctx, const struct queue_def *queue);
    void (*queue_removed)(void *ctx, const struct queue_def *queue);
    /* Also after growing (first_new > 0) and after a change of options (first_new == count). */
    void (*topic_added)(void *ctx, const struct topic *topic, uint32_t first_new);
    void (*topic_removed)(void *ctx, const struct topic *topic);
};

/* Makes the first change in `changes` true; *used = its length. Errors: CORRUPT, NO_MEMORY. */
enum err catalog_apply(struct catalog *catalog, struct slice changes, size_t *used,
                       const struct catalog_listener *listener, void *ctx);

/* Writes the whole catalog (durable part only, or all) as changes, one call of `each` per change,
 * in an order in which they can be applied: the checkpoint, and the feeding of a shard's copy. */
enum err catalog_dump(const struct catalog *catalog, bool durable_only,
                      enum err (*each)(void *ctx, struct slice change), void *ctx);

/* Definitions owned by the connection (exclusive queues): their ids, at most `room`; returns how
 * many there are. */
uint32_t catalog_owned(const struct catalog *catalog, uint64_t owner, uint64_t *ids, uint32_t room);

#endif
