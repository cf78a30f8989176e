/* A queue: a ledger and what may be lost at any moment without losing a message: its consumers,
 * what is leased to them, what was given back, and what is about to be dead-lettered.
 * For src/core only. */
#ifndef WEIR_CORE_QUEUE_H
#define WEIR_CORE_QUEUE_H

#include "codec/message.h"
#include "core/cell_state.h"
#include "core/ledger.h"

/* A consumer. It outlives its cancellation while it holds leases. One with consumer = 0 stands for
 * the leases of a channel's COMMAND_GETs. */
struct subscription {
    struct list queue_link; /* on queue->subscriptions or queue->waiting while active */
    struct list conn_link;  /* on attached->subscriptions */
    struct list leases;     /* struct lease, oldest first */
    struct queue *queue;
    uint64_t conn, consumer;
    uint16_t channel;
    bool active, no_ack, exclusive;
    bool waiting; /* for credit: on queue->waiting */
    int32_t priority;
    uint32_t prefetch, leased;
    uint32_t window, unreported; /* bytes */
};

#define LEASE_BYTES 128 /* what one costs, its place in maps and in its connection included */

struct lease {
    struct list link;
    struct subscription *subscription;
    uint64_t offset;
    uint32_t body_bytes;
    bool fleeting;
};

/* A message on its way out of the queue to where dead letters go. */
struct move {
    struct list link; /* on queue->moves until handed to other cells */
    struct queue *queue;
    uint64_t offset;
    enum message_death death;
    uint32_t awaited; /* cells that have not confirmed yet */
    uint32_t body_bytes;
    bool failed;  /* one of them could not take it for now */
    bool doubted; /* the message was not found once */
    uint64_t seq;
    /* Targets in this cell, appended together with the settling. */
    uint32_t target_count;
    uint64_t *targets;
    uint8_t *entry; /* the new entry while other cells are awaited */
    size_t entry_len;
};

struct queue {
    struct orphan orphan; /* first member */
    struct ledger ledger;
    struct cell *cell;
    struct tracked tracked;
    struct list busy_link;
    struct timer timer; /* next expiry of a message, or of the queue */
    bool defined, durable, exclusive, auto_delete;
    bool dying, loading, had_consumer, has_expiry;
    uint32_t namespace_id;
    uint32_t consumers; /* active subscriptions */
    uint64_t owner;
    struct queue_options options;
    uint64_t cursor;        /* the next message never delivered (since the start) */
    uint64_t recovered;     /* below it: may have been delivered before the restart */
    struct ranges returned; /* ready again, all below cursor */
    struct ranges missing;  /* not found; looked for once more at missing_ms */
    struct ranges doubted;  /* those of missing, then and since */
    int64_t missing_ms;
    int64_t again_ms;          /* what could not be read or leased is tried again then */
    struct map leases;         /* by offset */
    struct list subscriptions; /* active, highest priority first, then by turn */
    struct list waiting;       /* active, without credit when last looked at */
    struct list moves;
    int64_t retry_ms;       /* moves wait until then */
    struct list gets;       /* struct parked_get: COMMAND_GETs that wait for a read */
    uint64_t aged;          /* below it: was there at the last turn's end, so it may expire */
    uint32_t moving;        /* on moves, and those handed to other cells */
    uint64_t unready_bytes; /* bodies of what is leased or moving, as far as known */
    int64_t used_ms;        /* last use, for x-expires */
    int64_t asked_ms;       /* dying: when its deletion was asked for */
    uint64_t counted_ready, counted_leased; /* its part of the cell's stats */
    struct stream_load load;
};

/* NULL when memory is exhausted. */
struct queue *queue_create(struct cell *cell, uint64_t id);
/* drop: its messages are gone for good. Subscriptions are told (EVENT_CANCELLED) unless quiet. */
void queue_destroy(struct queue *queue, bool drop, bool quiet);
void queue_define(struct queue *queue, const struct queue_def *def);

/* Messages that could be delivered now. */
uint64_t queue_ready(const struct queue *queue);
/* Brings its part of the cell's stats up to date. */
void queue_count(struct queue *queue);
/* May a message be taken in? ERR_REJECTED when it is full and rejects. */
enum err queue_admits(const struct queue *queue);
/* A message was appended at offset: keeps the limits, sets timers, has it delivered. */
void queue_appended(struct queue *queue, int64_t expiry_ms);
/* Something may be deliverable: look at it in this turn's cell_work. */
void queue_wake(struct queue *queue);
/* Delivers up to a bounded number of messages and moves dead letters. */
void queue_work(struct queue *queue);

void queue_subscribe(struct queue *queue, const struct command *command);
void queue_cancel(struct queue *queue, const struct command *command);
void queue_window(struct queue *queue, const struct command *command);
void queue_get(struct queue *queue, const struct command *command);
void queue_purge(struct queue *queue, const struct command *command);
/* SETTLE, RETURN, REJECT */
void queue_resolve(struct queue *queue, const struct command *command);
/* Ends subscriptions of a connection (channel < 0: all of it); leases go back. */
void queue_conn_gone(struct cell *cell, uint64_t conn, int32_t channel);

/* ---- between the queue's files ---- */
/* Lets go what must because of age, length or disuse. */
void queue_tidy(struct queue *queue);
/* Keeps a COMMAND_GET until the message that it wants was read. */
void queue_park_get(struct queue *queue, const struct command *command);
/* All leases of the subscription become ready again, as delivered once more. */
void queue_give_back(struct queue *queue, struct subscription *subscription);
/* The first ready message's offset; false when there is none. */
bool queue_next(struct queue *queue, uint64_t *offset);
/* Takes a ready offset (as queue_next gave it) out of the ready ones. */
void queue_take(struct queue *queue, uint64_t offset);
/* Looks the entry up: HIT, END (gone), or MISS: loading, queue_work is called again later. */
enum stream_found queue_peek(struct queue *queue, uint64_t offset, struct entry *out);
/* Settles ranges (journaled when any of them is durable). */
void queue_settle(struct queue *queue, const struct offset_range *ranges, uint32_t count,
                  uint64_t bytes, uint64_t durable_bytes);
/* The message was to be looked at next, but the store does not find it. It is passed over and
 * looked for once more after a while, then settled and reported. */
void queue_skip(struct queue *queue, uint64_t offset);
/* Makes what was missing ready again. */
void queue_seek_missing(struct queue *queue);
/* There are so many more, modulo 2^64. */
void leases_account(struct cell *cell, uint64_t more);
/* Frees the lease; its subscription may go with it. */
void queue_unlease(struct queue *queue, struct lease *lease);
/* Frees it when it is neither active nor holds leases. */
void subscription_release(struct subscription *subscription);
/* Frees it, which is on no list of leases. */
void subscription_free(struct subscription *subscription);
/* Dead-letters (or drops) a message that is neither ready nor leased any more: at once, if
 * without a letter. */
void queue_bury(struct queue *queue, uint64_t offset, enum message_death death,
                uint32_t body_bytes);
/* Dead-letters a message that a full queue did not take in (OVERFLOW_REJECT_PUBLISH_DLX). */
void queue_bury_refused(struct queue *queue, const struct slice pieces[3]);
void queue_work_moves(struct queue *queue);
/* When the message expires, INT64_MAX = never. */
int64_t queue_expiry(const struct queue *queue, struct slice entry);
void queue_set_timer(struct queue *queue);
/* Something could not be had just now: another attempt a little later, once the timer is set. */
void queue_try_again(struct queue *queue);
/* Parked GETs end with that error; quiet: nobody is told. */
void queue_end_gets(struct queue *queue, enum err err, bool quiet);
/* What comes next cannot be read, now: consumers are told that theirs have ended (what they hold
 * stays theirs), gets are refused. */
void queue_unreadable(struct queue *queue, enum err err);
/* Adds up what is on its way out of the queue. */
void queue_moving_bytes(const struct queue *queue, uint64_t *bytes, uint64_t *durable_bytes);
/* Frees moves that other cells have not answered, when the cell goes. */
void queue_drop_moves(struct cell *cell);
/* The answer of another cell to a dead letter. */
void queue_moved(struct cell *cell, uint64_t seq, enum err err);

#endif
