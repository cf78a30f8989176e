/* A cell: the unit of ownership. It holds queues, partitions and groups, decides commands, journals
 * and applies records, and hands out effects through cell_out. No thread, socket, file or clock:
 * the shard (or a simulation) calls it, tells it the time and performs the effects.
 *
 * One turn: cell_turn with the time, then any number of commands and publishes, then cell_work,
 * which delivers, flushes the journal and runs what is due. Effects may be handed out at any of
 * these calls and when the store reports a commit; they must not call back into the cell. */
#ifndef WEIR_CORE_CELL_H
#define WEIR_CORE_CELL_H

#include "core/catalog.h"
#include "core/command.h"
#include "store/store.h"

#include <assert.h>

struct cell;

/* asker.conn of a command that another cell sent: answers go to that cell (cell_event). */
#define CELL_ASKER (UINT64_C(1) << 63)

/* One message for queues and partitions of one cell. */
struct cell_publish {
    struct asker asker;
    uint64_t seq; /* 0: no EVENT_PUBLISHED */
    bool persistent;
    int64_t expiry_ms;
    const uint64_t *targets; /* queue and partition ids */
    uint32_t target_count;   /* > 0 */
    struct slice pieces[3];  /* the entry */
    uint8_t **body;          /* as struct publish has it; not the cell's to take */
};

struct cell_out {
    /* To the connection asker.conn, or the cell named there. Takes over event->parts. */
    void (*event)(void *ctx, const struct event *event);
    /* To the cell that the command's type and object name (may be this one). */
    void (*command)(void *ctx, const struct command *command);
    void (*publish)(void *ctx, uint32_t cell, const struct cell_publish *publish);
    /* Cell 0: changes that are safe now and must reach every shard's catalog, in this order; then
     * the answer is sent (asker.conn 0: none). */
    void (*change)(void *ctx, struct slice changes, const struct event *answer);
    /* The cell's storage failed: it refuses everything from now on. */
    void (*failed)(void *ctx, enum err err);
    /* A message of a queue or partition is damaged or could not be read: that one stands still
     * there rather than lose or invent anything. May be NULL. */
    void (*unreadable)(void *ctx, uint64_t object, uint64_t offset, enum err err);
};

struct cell_config {
    uint32_t number, cells;
    uint64_t volatile_backlog_max; /* unused bytes limit of volatile messages, 0 = none */
    const struct cell_out *out;
    void *ctx;
    const struct catalog *catalog; /* the shard's copy */
    struct store_config store;
};

/* Opens the cell's storage and replays it. Queues and partitions wait for their definitions. */
enum err cell_open(const struct cell_config *config, int64_t wall_ms, struct cell **out);
void cell_destroy(struct cell *cell);
/* Orderly stop: everything is on disk when done is called. */
void cell_stop(struct cell *cell, void (*done)(void *ctx, enum err err), void *ctx);

/* The cell that an object's id names. */
static inline uint32_t cell_of(uint64_t object, uint32_t cells)
{
    assert(cells > 0);
    return (uint32_t)(object % cells);
}

/* Cell 0: all definitions, to feed the shards' catalogs at start. */
enum err cell_dump_catalog(struct cell *cell, enum err (*each)(void *ctx, struct slice change),
                           void *ctx);
/* The shard's catalog learned of an object of this cell, or lost it. */
void cell_queue_added(struct cell *cell, const struct queue_def *queue);
void cell_queue_removed(struct cell *cell, const struct queue_def *queue);
void cell_partition_added(struct cell *cell, const struct topic *topic, uint32_t index);
void cell_partition_removed(struct cell *cell, uint64_t id);
/* The whole catalog was fed: what has no definition is dropped. */
void cell_ready(struct cell *cell);

void cell_turn(struct cell *cell, int64_t now_ms, int64_t wall_ms);
/* Takes over command->parts. */
void cell_command(struct cell *cell, const struct command *command);
void cell_publish(struct cell *cell, const struct cell_publish *publish);
/* An event for this cell as the asker. */
void cell_event(struct cell *cell, const struct event *event);
/* Returns true when there is more to do at once. hold: what is to be written to the journal may
 * wait for the next cell_work, which comes soon. */
bool cell_work(struct cell *cell, bool hold);
/* When cell_work must be called at the latest, monotonic ms; INT64_MAX = no need. */
int64_t cell_deadline(const struct cell *cell);
/* Journal bytes not yet written: above a limit the shard takes no more input. */
uint64_t cell_unflushed(const struct cell *cell);

struct cell_stats {
    uint64_t published, delivered, settled, returned, dead_lettered, expired;
    uint64_t queues, partitions, messages_ready, messages_leased;
    struct store_stats store;
};
/* Looks at every queue: for who watches, not for every turn. */
void cell_stats(const struct cell *cell, struct cell_stats *out);

#endif
