/*
 * One AMQP 0-9-1 connection with one channel, as the load generator uses it. Two libraries stand
 * behind it: rabbitmq-c, which is what programs use and what both brokers are compared with, and a
 * raw one that batches its writes, for filling and for finding a broker's own ceiling.
 *
 * A link belongs to one thread. Anything unexpected from the broker ends the program with its
 * words; only the calls that wait return without a result, when their time is up.
 */
#ifndef BENCH_AMQP_LINK_H
#define BENCH_AMQP_LINK_H

#include "load.h"

struct amqp_link;

struct amqp_address {
    const char *host;
    int port;
    const char *user, *password, *vhost;
};

struct amqp_delivery {
    uint64_t tag;
    const void *body; /* valid until the next call on the link */
    size_t size;
};

/* How long a call may wait: not at all and only in what is already read, or so many nanoseconds. */
enum { AMQP_BUFFERED = -1 };

struct amqp_library {
    const char *name;
    struct amqp_link *(*open)(const struct amqp_address *address);
    void (*close)(struct amqp_link *link);
    void (*confirm_select)(struct amqp_link *link);
    void (*publish)(struct amqp_link *link, const char *queue, const void *body, size_t size,
                    bool persistent);
    void (*flush)(struct amqp_link *link);
    /* True: the broker confirmed `tag`, and all before it when `multiple`. A nack is fatal. */
    bool (*confirm_next)(struct amqp_link *link, int64_t wait_ns, uint64_t *tag, bool *multiple);
    /* `prefetch` 0: automatic acknowledgement. `stream`: reads from the first offset. */
    void (*consume)(struct amqp_link *link, const char *queue, uint16_t prefetch, bool stream);
    bool (*deliver_next)(struct amqp_link *link, int64_t wait_ns, struct amqp_delivery *delivery);
    void (*ack)(struct amqp_link *link, uint64_t tag, bool multiple);
};

extern const struct amqp_library amqp_rabbitmq_c;
extern const struct amqp_library amqp_raw;

/* Definitions go over raw links. `wait` false: sent without asking for an answer. */
void raw_queue_declare(struct amqp_link *link, const char *queue, const char *type, bool wait);
void raw_queue_delete(struct amqp_link *link, const char *queue, bool wait);

/* Messages ready in the queue, by a passive declare; also waits for everything sent before. */
uint64_t raw_queue_depth(struct amqp_link *link, const char *queue);

/* Like open, but NULL when the broker does not answer yet. */
struct amqp_link *raw_try_open(const struct amqp_address *address);

#endif
