/* Routing: from an exchange and a key to the queues and topics that get the message. Reads the
 * shard's copy of the catalog only. */
#ifndef WEIR_CORE_ROUTE_H
#define WEIR_CORE_ROUTE_H

#include "core/catalog.h"

/* Headers are needed by headers exchanges only, so they are decoded on demand. */
struct route_message {
    struct slice key;
    /* Further keys (AMQP's CC and BCC): routed too, in the same set of targets. */
    const struct slice *more_keys;
    uint32_t more_count;
    /* Decodes the message's headers; false when there are none or they are malformed. May be NULL.
     */
    bool (*headers)(void *ctx, struct args *out);
    void *ctx;
};

struct route_target {
    enum target_kind kind; /* TARGET_QUEUE or TARGET_TOPIC */
    union {
        const struct queue_def *queue;
        const struct topic *topic;
    };
};

/* A set of targets, each once. Reused from message to message: zero it once, free with route_done.
 */
struct route_targets {
    struct route_target *items;
    uint32_t count, capacity;
    bool no_memory; /* the set is incomplete */
    uint64_t *seen; /* exchanges visited */
    uint32_t seen_count, seen_capacity;
};

/* Adds what the exchange leads to, exchange-to-exchange bindings included. An exchange none of
 * whose own bindings matches passes the message to its alternate. Cycles are visited once. */
void route_from_exchange(const struct catalog *catalog, const struct exchange *exchange,
                         const struct route_message *message, struct route_targets *targets);
/* The same from a topic as the source of bindings, which match as in a topic exchange; one with an
 * empty key matches always. The topic itself is never among the targets. */
void route_from_topic(const struct catalog *catalog, const struct topic *topic,
                      const struct route_message *message, struct route_targets *targets);
void route_reset(struct route_targets *targets);
void route_done(struct route_targets *targets);

#endif
