/* What must be true of the broker, kept beside it: each message that was published, what was said
 * about it, and where it has been seen. Outcomes that a crash cut off stay unknown. */
#ifndef WEIR_SIM_MODEL_H
#define WEIR_SIM_MODEL_H

#include "world.h"

enum { MODEL_QUEUES = 4, MODEL_PARTITIONS = 2, MODEL_MESSAGES_MAX = 1 << 14 };

struct message {
    uint16_t publisher;
    uint8_t queue;
    bool persistent;
    bool confirmed; /* the broker said that it is safe */
    bool refused;
    bool settle_sent; /* a consumer settled, rejected or took it without acknowledgement */
    bool settle_safe; /* and a later confirm of the same cell proves that durable */
    bool may_be_lost; /* transient, or expired, or purged */
    uint32_t seen;    /* deliveries in the final drain */
    uint8_t seen_in;  /* the queue of the last of them */
};

struct batch {
    uint16_t producer;
    uint8_t partition;
    bool acked;
    int64_t offset; /* where the broker said it is, -1 unknown */
    uint32_t seen;
};

struct model {
    struct world *world;
    struct message messages[MODEL_MESSAGES_MAX];
    uint32_t message_count;
    struct batch batches[MODEL_MESSAGES_MAX];
    uint32_t batch_count;
    uint64_t queues[MODEL_QUEUES];         /* ids */
    uint64_t partitions[MODEL_PARTITIONS]; /* ids */
    bool dead_letters[MODEL_QUEUES];       /* rejected messages go to queue 0 */
    bool crashed_unsynced;
    /* Counts for the report. */
    uint64_t published, confirmed, delivered, settled, appended, acked;
};

struct model *model_create(struct world *world);
void model_destroy(struct model *model);

/* Body of message number n, and back: UINT32_MAX when it is not one that was published. */
enum { MODEL_BODY_MAX = 600 };
size_t model_body(uint32_t n, uint8_t out[MODEL_BODY_MAX]);
uint32_t model_identify(struct slice body);

/* A message was seen in the final drain of a queue (in order of delivery). */
void model_drained(struct model *model, uint32_t queue, uint32_t n, uint32_t *last_by_publisher);
/* The drain of a queue, or the reading of the topic, begins again. */
void model_forget_drained(struct model *model, uint32_t queue);
void model_forget_seen(struct model *model);
/* Everything was drained: is anything missing? */
void model_check_messages(struct model *model);
void model_check_batches(struct model *model);

#endif
