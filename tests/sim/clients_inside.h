/* What the files of the clients share. For tests/sim only.
 *
 *   publisher.c      messages into queues, and their confirms
 *   consumer.c       deliveries and what becomes of them
 *   producer.c       batches into topics, idempotent
 *   reader.c         topics by offset
 *   member.c         a consumer group
 *   offsets.c        what a group has committed
 *   administrator.c  definitions, purges, deletions, trims
 *   clients.c        all of them together, and the final drain */
#ifndef WEIR_SIM_CLIENTS_INSIDE_H
#define WEIR_SIM_CLIENTS_INSIDE_H

#include "clients.h"
#include "core/group.h"

enum {
    PUBLISHERS = 3,
    CONSUMERS = 3,
    PRODUCERS = 2,
    MEMBERS = 2,
    PUBLISHER_NUMBERS = PUBLISHERS + CONSUMERS + PRODUCERS, /* whose messages are in order */
    OUTSTANDING_MAX = 30,
    LEASES_MAX = 64,
    RESOLVED_MAX = 256,
    PRODUCER_WINDOW = 5, /* as many batches as the broker remembers of a producer */
    COMMITS_MAX = 1 << 10,
    MEMBER_ID_MAX = 100,
};

struct publisher {
    struct probe probe; /* first member */
    struct clients *clients;
    uint16_t number;
    uint64_t seq;                          /* of this connection */
    uint32_t session;                      /* which that is */
    uint32_t outstanding[OUTSTANDING_MAX]; /* message numbers */
    uint64_t outstanding_seq[OUTSTANDING_MAX];
    uint32_t count;
};

struct held {
    uint32_t n;
    uint64_t offset;
    uint16_t count;
};

/* A message that was settled or returned, until a marker proves it durable. */
struct resolved {
    uint32_t n;
    bool settled;
    uint16_t count;
};

struct consumer {
    struct publisher publisher; /* first member: publishes markers */
    uint32_t queue;
    uint64_t object;
    bool subscribed, draining, no_ack, gets;
    struct held held[LEASES_MAX];
    uint32_t held_count;
    /* Resolved since the marker that is under way, or the one before it. */
    struct resolved resolved[RESOLVED_MAX];
    uint32_t resolved_count, marked_count;
    uint32_t marker;  /* message number + 1 */
    uint64_t drained; /* in this drain */
    uint64_t drained_last;
    uint32_t last_by_publisher[PUBLISHER_NUMBERS];
};

struct in_window {
    uint32_t n;
    int32_t sequence;
    bool sent;
};

struct producer {
    struct probe probe;
    struct clients *clients;
    uint16_t number;
    int32_t next_sequence[MODEL_PARTITIONS];
    struct in_window window[MODEL_PARTITIONS][PRODUCER_WINDOW];
    uint32_t window_count[MODEL_PARTITIONS];
    bool known[MODEL_PARTITIONS]; /* a batch of it was acknowledged there */
};

struct reader_place {
    uint64_t at;
    uint64_t trimmed; /* records below it were deleted when the read began */
    uint32_t turn;    /* of seeking: what was asked before it is not heard any more */
    bool reading;
    bool at_end;
    uint32_t last_n[PRODUCERS];
};

struct reader_probe {
    struct probe probe;
    struct clients *clients;
    struct reader_place places[MODEL_PARTITIONS];
    bool checking;
};

enum commit_state { COMMIT_UNKNOWN, COMMIT_ACKED };

/* The offsets committed for one partition of one group: each is its own place in the list, so that
 * no value comes twice. */
struct commits {
    uint8_t states[COMMITS_MAX];
    int64_t sent;  /* values below it were sent */
    int64_t least; /* what is fetched may not be older, unless its outcome is unknown */
};

struct member_probe {
    struct probe probe;
    struct clients *clients;
    uint32_t number;
    char id[MEMBER_ID_MAX];
    int32_t generation;
    bool joining, syncing, stable;
    bool owns[MODEL_TOPIC_PARTITIONS];
    int64_t committing[MODEL_TOPIC_PARTITIONS]; /* -1: none under way */
};

struct administrator {
    struct probe probe;
    struct clients *clients;
    uint64_t done;  /* bits of the definitions that stand */
    uint64_t asked; /* ... that were asked for */
    bool preparing;
    uint64_t busy; /* tag of what is under way, 0: nothing */
    uint64_t trim; /* the offset that it trims to */
    int64_t committing;
    uint64_t producer_ids; /* the highest id that was given out */
};

struct clients {
    struct world *world;
    struct model *model;
    struct publisher publishers[PUBLISHERS];
    struct consumer consumers[CONSUMERS];
    struct producer producers[PRODUCERS];
    struct reader_probe reader;
    struct member_probe members[MEMBERS];
    struct administrator administrator;
    struct commits group_commits[MODEL_TOPIC_PARTITIONS]; /* of the members' group */
    struct commits lone_commits;                          /* of the administrator's */
    int32_t generation; /* the highest that a member has heard of in this life */
    bool working;
};

/* ---- publisher.c ---- */
void publisher_init(struct publisher *publisher, uint16_t number);
/* Publishes a message into a queue; returns its number, or UINT32_MAX. */
uint32_t publisher_publish(struct publisher *self, uint32_t queue, bool persistent);
void publisher_confirmed(struct publisher *self, const struct event *event);
void publisher_reset(struct publisher *self);
/* A message's head: where it is published to, and when. Returns its length. */
size_t publisher_head(uint8_t *head, const char *queue, int64_t wall_ms, int64_t expiry_ms,
                      bool persistent);

/* ---- consumer.c ---- */
void consumer_init(struct consumer *consumer, uint16_t number);
/* Settles everything that a drain has delivered. */
void consumer_settle_all(struct consumer *self);

/* ---- producer.c ---- */
void producer_init(struct producer *producer, uint16_t number);
bool producer_is_done(const struct producer *producer);
/* The number of the batch that the entry holds, as it was sent; UINT32_MAX: none. */
uint32_t producer_identify(const struct model *model, struct slice entry);

/* ---- reader.c ---- */
void reader_init(struct reader_probe *reader);
/* Reads everything from the start on; nothing of it was seen yet. */
void reader_check(struct reader_probe *reader);
bool reader_is_done(const struct reader_probe *reader);

/* ---- member.c ---- */
void member_init(struct member_probe *member, uint32_t number);
/* Asks for the offset that the group has committed for a partition. */
void member_fetch(struct member_probe *self, uint32_t partition);

/* ---- offsets.c ---- */
void commits_begin(struct commits *commits);
/* The next value to commit; -1: there were enough. */
int64_t commits_send(struct commits *commits);
void commits_acked(struct commits *commits, int64_t value);
void commits_check(struct world *world, const struct commits *commits, const char *whose,
                   int64_t value);
/* Requests about offsets, as a group's command. */
void offsets_ask(struct probe *probe, uint64_t tag, enum group_op op, const char *group,
                 const char *member, int32_t generation, uint32_t partition, int64_t value);

/* ---- administrator.c ---- */
void administrator_init(struct administrator *administrator);
void administrator_choose(struct administrator *administrator);
bool administrator_is_done(const struct administrator *administrator);
void administrator_fetch(struct administrator *self);

#endif
