/* What the files of a cell share: its body and the few things every object of a cell can do
 * (journal a record, answer when it is safe, ask for a timer, be stored at the next checkpoint).
 * For src/core only. */
#ifndef WEIR_CORE_CELL_STATE_H
#define WEIR_CORE_CELL_STATE_H

#include "base/heap.h"
#include "base/list.h"
#include "base/map.h"
#include "core/cell.h"
#include "core/record.h"
#include "core/route.h"

/* Kinds of stored objects; on disk, never renumbered. */
enum object_kind {
    OBJECT_QUEUE = 1,
    OBJECT_PARTITION = 2,
    OBJECT_GROUP = 3,
    OBJECT_CATALOG_CHANGE = 4,
    OBJECT_PRODUCER_IDS = 5,
};

struct timer {
    struct heap_node node; /* first member */
    void (*fire)(struct cell *cell, struct timer *timer);
};

/* Where an object stands with the checkpoint, and on which list of the cell. */
enum tracked_place {
    TRACKED_IDLE,     /* on none: its stored form is up to date */
    TRACKED_CHANGED,  /* changed: for the next checkpoint */
    TRACKED_GATHERED, /* gathered: for the one under way, not handed out yet */
    TRACKED_HANDED,   /* handed: handed out, changed again if that one fails */
};

/* An object that the checkpoint stores. */
struct tracked {
    struct list link;
    uint8_t kind;
    uint8_t place; /* enum tracked_place */
    bool stored;   /* the state store may know of it */
    bool dropped;  /* a tombstone on the heap: the object is deleted */
    uint64_t id;
};

/* A connection that has subscriptions or leases here. */
struct attached {
    uint64_t conn;
    struct list subscriptions; /* active ones and those that only hold leases */
    struct map consumers;      /* those of them with a consumer's number, by it */
};

/* A deletion asked of cell 0 on behalf of somebody who waits for its answer. */
struct deletion {
    struct asker asker;
    uint64_t value;
    bool cancel; /* what waits is a cancel: it succeeds in any case */
};

/* Memory that a load under way still refers to although its owner is gone. First member of what is
 * freed with it. */
struct orphan {
    struct list link; /* on cell->orphans once it is one */
};

/* The catalog as a whole in the state store, in place of the changes that led to it. */
struct snapshot {
    uint64_t base;      /* the stored one holds all changes below it */
    uint64_t first;     /* no change below it is stored */
    uint64_t live;      /* changes that it consists of */
    uint64_t next_base; /* of the one being stored; 0: none */
    uint64_t next_live;
    uint64_t drop_at; /* changes from here to next_base are being deleted */
    uint8_t *bytes;   /* its stored form until it was handed out */
    size_t len, capacity;
    bool handed;
};

struct pending;
struct groups;

struct cell {
    struct cell_config config;
    struct store *store;
    const struct catalog *catalog;
    int64_t now_ms, wall_ms;
    enum err failure; /* sticky */
    bool replaying;

    struct map queues, partitions; /* by id */
    struct map conns;              /* struct attached, by connection id */
    uint64_t leases;               /* of all queues */
    struct groups *groups;
    struct list busy;        /* queues that may have something to deliver or move */
    struct list parked;      /* struct parked_get of all queues */
    struct list readings;    /* struct reading of all partitions */
    struct list orphans;     /* struct orphan */
    struct list waking;      /* partitions with readers to look at */
    struct list uncommitted; /* partitions with appends that are not safe yet */
    struct heap timers;

    struct list changed, gathered, handed; /* struct tracked */
    bool gathering;
    uint8_t *object_bytes; /* scratch of the checkpoint */
    size_t object_capacity;

    struct pending *pending; /* ring: answers that wait for a commit, in journal order */
    uint32_t pending_head, pending_count, pending_capacity;
    struct {
        struct asker asker;
        uint64_t first_seq, last_seq;
        bool any;
    } confirmed; /* confirms that wait for nothing, gathered over a turn */
    uint64_t turn;
    bool wants_flush, wants_lazy_flush;

    /* Cell 0 */
    struct catalog *master;
    struct list catalog_unsaved;         /* changes not yet in the state store */
    uint64_t catalog_seq, catalog_saved; /* of the next change; handed to a checkpoint below it */
    struct snapshot snapshot;
    uint64_t next_producer_id, producer_ids_end;
    struct tracked producer_ids;

    int64_t retention_due_ms;
    uint32_t retention_at; /* walk over partitions */
    struct map routed;     /* answers that wait for copies routed on, by sequence */
    struct {
        uint64_t seq; /* of the routing under way, 0 = nobody waits */
        uint32_t sent;
        bool no_memory; /* a copy is missing: there must be no answer */
    } routing;
    struct map deletions; /* queue deletions under way, by tag */
    struct map moves;     /* dead letters on their way to other cells, by sequence */
    uint64_t next_tag;
    struct route_targets route; /* scratch */
    struct cell_stats stats;
};

/* ---- Journal (core/apply.c) ---- */

/* store_handler.replay. */
enum err cell_replay(void *ctx, uint64_t pos, struct slice encoded);
/* The object is gone: what a DROP record comes to. */
enum err cell_apply_drop(struct cell *cell, uint64_t id);

/* Encodes record, followed by its pieces (entry or bytes), and applies it. `durable` names the log.
 * On success record->bytes is where the pieces stand in memory. */
enum err cell_append(struct cell *cell, struct record *record, bool durable,
                     const struct slice *pieces, uint32_t piece_count);
/* The same for SETTLE and RETURN: ranges instead of pieces. Always durable. In several short
 * records, which a disk that is nearly full still takes; *done = how many ranges went into them
 * (body_bytes goes into the first). */
enum err cell_append_ranges(struct cell *cell, struct record *record,
                            const struct offset_range *ranges, uint32_t count, uint32_t *done);
/* Something went wrong that the cell cannot go on from: it stops taking commands and says so, once.
 * A full disk passes, and is none. Returns err. */
enum err cell_fail(struct cell *cell, enum err err);
/* A refusal that may end by itself (no room, no memory), and no failure of the cell. */
bool cell_refusal(enum err err);

/* ---- Effects ---- */

/* Answers now, or, if durable, once everything journaled so far is safe. Takes over event->parts.
 */
void cell_answer(struct cell *cell, const struct event *event, bool durable);
/* An EVENT_PUBLISHED, now or after the commit. */
void cell_confirm(struct cell *cell, const struct asker *asker, uint64_t seq, enum err err,
                  bool durable);
/* The plain answer to a command: err and its words (may be NULL). */
void cell_reply(struct cell *cell, const struct command *command, enum err err, const char *detail);
void cell_reply_value(struct cell *cell, const struct command *command, uint64_t value,
                      uint64_t value2);
/* Catalog changes that are broadcast, then answered, once they are safe. Takes over the bytes. */
void cell_change(struct cell *cell, uint8_t *changes, size_t len, const struct event *answer,
                 bool durable);
/* Sends out what was committed before `end`. */
void cell_committed(struct cell *cell, uint64_t end);
void cell_flush_confirms(struct cell *cell);
void cell_drop_pending(struct cell *cell);

/* Reports a message that is damaged or could not be read. */
void cell_unreadable(struct cell *cell, const struct stream *stream, uint64_t offset, enum err err);

/* ---- Objects ---- */

/* What the store calls (core/cell_store.c). */
extern const struct store_handler cell_store_events;
/* Takes everything off one of the cell's lists; tombstones are freed. */
void cell_forget_tracked(struct list *from);

void cell_touch(struct cell *cell, struct tracked *tracked);
/* The object is gone for good: deletes its stored form at the next checkpoint. */
void cell_untrack(struct cell *cell, struct tracked *tracked);
/* Scratch of at least `size` bytes for encoding an object, NULL when memory is exhausted. */
uint8_t *cell_object_space(struct cell *cell, size_t size);
void cell_timer(struct cell *cell, struct timer *timer, int64_t at_ms);
void cell_timer_off(struct cell *cell, struct timer *timer);
/* The attached record of a connection; made when `create`. NULL: none, or no memory. */
struct attached *cell_attached(struct cell *cell, uint64_t conn, bool create);

/* ---- Catalog (core/definitions.c) ---- */
void definitions_command(struct cell *cell, const struct command *command);
void definitions_conn_gone(struct cell *cell, const struct command *command);
enum err definitions_apply(struct cell *cell, const struct record *record);
enum err definitions_restore(struct cell *cell, uint64_t id, struct slice value);
/* The next stored change for the checkpoint, as in store_handler.next_changed. */
bool definitions_next_changed(struct cell *cell, struct store_object *out);
void definitions_changes_lost(struct cell *cell);
/* A checkpoint begins, so the one before it is complete: forgets the changes that it stored, and
 * perhaps stores the catalog as a whole. false when memory is exhausted. */
bool definitions_checkpoint_begins(struct cell *cell);
void definitions_done(struct cell *cell);
/* Asks cell 0 to delete a queue, as that very connection (0: nobody). */
/* false when memory is exhausted. */
bool definitions_ask_delete(struct cell *cell, uint32_t ns, struct slice name, uint64_t id,
                            uint64_t owner, uint64_t tag) __attribute__((warn_unused_result));

#endif
