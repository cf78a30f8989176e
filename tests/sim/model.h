/* What must be true of the broker, kept beside it: each message that was published, what was said
 * about it, and where it has been seen. Outcomes that a crash cut off stay unknown.
 *
 * A message may go to several queues: each of them has its copy. A copy is published, settled,
 * moved to the queue of dead letters (0) and drained; a batch is appended to a partition. */
#ifndef WEIR_SIM_MODEL_H
#define WEIR_SIM_MODEL_H

#include "world.h"

enum {
    MODEL_QUEUES = 8,
    MODEL_TOPICS = 3,
    MODEL_TOPIC_PARTITIONS = 2,
    MODEL_PARTITIONS = MODEL_TOPICS * MODEL_TOPIC_PARTITIONS,
    MODEL_MESSAGES_MAX = 1 << 13,
    MODEL_BATCHES_MAX = 1 << 12,
    MODEL_OFFSETS_MAX = 1 << 13, /* of a partition */
    MODEL_COPIES_MAX = 3,        /* of one message */
};

/* The queues, by what is done to them. */
enum {
    QUEUE_DEAD,     /* takes the dead letters of the others */
    QUEUE_LIMITED,  /* dead letters; perhaps a limit of deliveries */
    QUEUE_FADING,   /* dead letters; a time to live */
    QUEUE_EXPIRING, /* a time to live, and then gone */
    QUEUE_PURGED,   /* purged once in a while; messages with an expiry of their own */
    QUEUE_ROUTED,   /* takes the records of topic TOPIC_ROUTED, too */
    QUEUE_DELETED,  /* deleted and declared again */
    QUEUE_UNUSED,   /* expires when it is not used */
};

enum {
    TOPIC_PLAIN,
    TOPIC_ROUTED,
    TOPIC_RETAINED, /* little is kept of it */
};

struct copy {
    uint64_t object; /* id of the queue that it was published to */
    uint8_t queue;
    bool settle_sent;    /* settled, or taken without acknowledgement */
    bool settle_safe;    /* and a later confirm of the same cell proves that durable */
    bool may_be_lost;    /* purged, deleted with its queue, ... */
    uint8_t seen;        /* deliveries in the final drain */
    uint8_t seen_in;     /* the queue of the last of them */
    int64_t expiry_ms;   /* wall clock, INT64_MAX: never */
    uint32_t born;       /* the life in which it was published */
    uint32_t life;       /* when it was delivered last, 0: never */
    uint64_t offset;     /* there and then */
    uint16_t count;      /* earlier deliveries, as it said then */
    uint16_t count_safe; /* returned so often in its own queue, proved durable */
};

struct message {
    uint16_t publisher;
    uint32_t session; /* the publisher's connections are numbered */
    bool persistent;
    bool routed;     /* a record of a topic that goes to a queue: may come twice */
    bool confirmed;  /* the broker said that it is safe */
    uint8_t awaited; /* confirms that are still to come */
    bool refused;
    uint8_t copy_count;
    struct copy copies[MODEL_COPIES_MAX];
};

struct batch {
    uint16_t producer;
    uint8_t partition;
    bool acked;
    int64_t offset; /* where the broker said it is, -1 unknown */
    int64_t time_ms;
    uint32_t bytes;   /* as an entry */
    uint32_t message; /* a routed one: number of its record's message + 1 */
    uint32_t seen;
};

struct model_queue {
    const char *name;
    uint64_t id;                                /* 0: not there */
    bool dead_letters;                          /* to queue 0 */
    int64_t ttl_ms, expires_ms, delivery_limit; /* -1: none */
    bool lossy;     /* in this life somebody takes from it without acknowledging */
    bool uncertain; /* a purge or deletion is under way: what is in it may be lost */
};

struct model_partition {
    uint64_t id;
    uint64_t trim_safe; /* records below it were deleted, and that was acknowledged */
    uint64_t trim_sent;
    uint64_t first_seen; /* the first offset at the last look of this life */
    uint32_t first_life;
    uint32_t known[MODEL_OFFSETS_MAX]; /* number + 1 of the batch once seen at an offset */
    uint32_t known_end;
};

struct model {
    struct world *world;
    struct message messages[MODEL_MESSAGES_MAX];
    uint32_t message_count;
    struct batch batches[MODEL_BATCHES_MAX];
    uint32_t batch_count;
    struct model_queue queues[MODEL_QUEUES];
    struct model_partition partitions[MODEL_PARTITIONS];
    int64_t retention_ms, retention_bytes; /* of TOPIC_RETAINED */
    bool no_acks;                          /* consumers may do without acknowledgements */
};

/* One model serves one seed after the other. */
struct model *model_create(void);
void model_destroy(struct model *model);
void model_begin(struct model *model, struct world *world);

/* Body of message number n (of at most MODEL_BODY_MAX bytes), and back: UINT32_MAX when it is not
 * one. */
enum { MODEL_BODY_MAX = 640 };
size_t model_body(uint32_t n, uint8_t out[MODEL_BODY_MAX]);
uint32_t model_identify(struct slice body);

/* A message of its own number for these queues; NULL when there are enough. */
struct message *model_publish(struct model *model, uint16_t publisher, const uint8_t *queues,
                              uint32_t count, uint32_t *number);
struct batch *model_append(struct model *model, uint16_t producer, uint32_t partition,
                           uint32_t *number);

/* Number n was delivered by queue `queue`, whose id is `object`; checks that it may be and gives
 * its copy. NULL: it may not. */
struct copy *model_delivered(struct model *model, uint32_t queue, const struct delivery *delivery,
                             uint32_t n);
/* The same, in the final drain of the queue, in the order of delivery. */
void model_drained(struct model *model, uint32_t queue, const struct delivery *delivery, uint32_t n,
                   uint32_t *last_by_publisher);
/* The drain of a queue begins again. */
void model_forget_drained(struct model *model, uint32_t queue);
/* All that is in the queue may be gone, and what comes too, until it is certain again. */
void model_uncertain(struct model *model, uint32_t queue);
/* In this life a consumer takes from the queue without acknowledging. */
void model_lossy(struct model *model, uint32_t queue);
/* How many messages the queue may hold at the most, before anything is drained. */
uint64_t model_most(const struct model *model, uint32_t queue);

/* The partition has this batch at that offset; `first` is its first offset. */
void model_saw_batch(struct model *model, uint32_t partition, uint64_t offset, uint32_t n);
/* It said that its first offset is that; records below `trimmed` were deleted before it was asked.
 */
void model_saw_first(struct model *model, uint32_t partition, uint64_t first, uint64_t trimmed);

/* Everything was drained and read: is anything missing? */
void model_check_messages(struct model *model);
void model_check_batches(struct model *model);

#endif
