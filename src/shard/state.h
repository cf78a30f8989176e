/* What the files of a shard share. For src/shard only. */
#ifndef WEIR_SHARD_STATE_H
#define WEIR_SHARD_STATE_H

#include "base/heap.h"
#include "base/list.h"
#include "base/map.h"
#include "core/cell.h"
#include "core/route.h"
#include "shard/shard.h"

struct conn {
    struct heap_node timer; /* first member */
    struct list link;       /* on shard->stalled while it waits for pressure to fall */
    struct shard *shard;
    const struct face *face;
    void *self; /* the face's state */
    struct net_conn *net;
    uint64_t *received_bytes, *sent_bytes; /* among shard->metrics */
    uint64_t id;
    uint64_t cells; /* bits of the cells that it sent commands to */
    bool held;      /* by the face: waits for an answer */
    bool publishes; /* slowed under pressure */
    bool stalled, closing;
    uint8_t user_len;
    uint8_t user[255];
};

/* A message that did not fit its ring yet. */
struct delayed {
    struct list link;
    size_t len;
    uint8_t bytes[];
};

/* A broadcast of catalog changes under way (shard 0). */
struct broadcast {
    struct list link;
    uint64_t number;
    uint32_t awaited; /* shards that have not applied it */
    bool has_answer;
    struct event answer;
    char detail[768];
};

struct shard {
    struct broker *broker;
    uint32_t number;
    struct net *net;
    struct disk *disk;
    int64_t now_ms, wall_ms;
    uint64_t random[2]; /* xorshift state */
    struct catalog *catalog;
    struct cell *cells[CELLS_MAX]; /* NULL: another shard's */
    uint32_t own_cells;
    uint32_t full_cells; /* whose disk is full */
    uint64_t memory_bytes, net_bytes;
    uint32_t depth; /* inside a cell: commands are posted, not run */
    bool asking;    /* inside a face's command: events are posted, not delivered */
    uint64_t work;  /* commands, publishes and events handled */
    /* Posted to this very shard: what comes later must not overtake them. */
    uint64_t own_events, own_calls; /* of its connections; commands and messages for its cells */

    struct conn **conns; /* by slot */
    uint32_t conn_slots, conn_count;
    uint32_t *free_slots;
    uint32_t free_count;
    uint64_t conn_generation;
    struct heap timers;
    struct list stalled;

    struct list delayed[SHARDS_MAX]; /* by receiver; struct delayed */
    uint64_t delayed_bytes;
    uint64_t posted;    /* bits of shards that got something this turn */
    struct map foreign; /* bufs of other shards: references held here */

    struct list broadcasts;
    uint64_t broadcast_number;
    bool ready, pressed;
    bool is_short;      /* of memory, for long */
    int64_t pressed_ms; /* since then */

    uint64_t metrics[METRIC_COUNT]; /* counted since the start */
    uint64_t shown[METRIC_COUNT];   /* ... and as broker->metrics has it */
    int64_t shown_ms;

    struct route_targets targets; /* scratch of publish */
    uint32_t round_robin;
    struct shard_listener {
        struct shard *shard;
        const struct face *face;
        struct net_listener *net;
    } listeners[16];
    uint32_t listener_count;
    bool stopping, cells_stopping;
    uint32_t cells_stopped;
    enum err stop_err;
};

/* Which shard runs a cell. */
static inline uint32_t shard_of_cell(const struct broker *broker, uint32_t cell)
{
    return cell % broker->shard_count;
}

enum { CONN_SHARD_SHIFT = 56, CONN_SLOT_BITS = 24 };

/* The broker ends rather than go on wrong; nothing is said to anybody after it. */
void shard_fail(struct shard *shard, const char *why);

/* ---- mail.c: between shards ---- */
void mail_command(struct shard *shard, uint32_t cell, const struct command *command);
void mail_publish(struct shard *shard, uint32_t cell, const struct cell_publish *publish);
void mail_event(struct shard *shard, uint32_t to, const struct event *event);
void mail_change(struct shard *shard, uint32_t to, uint64_t number, struct slice changes,
                 bool last);
void mail_change_done(struct shard *shard, uint64_t number);
void mail_release(struct shard *shard, struct buf *buf, uint32_t references);
/* Shows what was posted to the others and wakes them. */
void mail_flush(struct shard *shard);
/* Works off what came in; true when there may be more. */
bool mail_work(struct shard *shard);
void mail_drop(struct shard *shard);

/* ---- dispatch.c: commands to cells, events to connections ---- */
/* To the cell wherever it is. Takes over command->parts. */
void dispatch_command(struct shard *shard, uint32_t cell, const struct command *command);
void dispatch_publish(struct shard *shard, uint32_t cell, const struct cell_publish *publish);
/* On this very shard. */
void dispatch_local_command(struct shard *shard, uint32_t cell, const struct command *command);
void dispatch_local_publish(struct shard *shard, uint32_t cell, const struct cell_publish *publish);
/* To the asker, a connection or a cell, of this shard. */
void dispatch_local_event(struct shard *shard, const struct event *event);
uint32_t dispatch_cell_of(const struct broker *broker, const struct command *command);
extern const struct cell_out dispatch_cell_out;

/* ---- metrics.c ---- */
/* Makes known what was counted, at most every 100 ms. Returns when it wants to be called again:
 * once after the last change, then no more. */
int64_t metrics_turn(struct shard *shard, int64_t deadline);
static inline void metrics_add(struct shard *shard, enum metric metric, uint64_t n)
{
    shard->metrics[metric] += n;
}

/* ---- changes.c: the catalog's copies ---- */
void changes_broadcast(struct shard *shard, struct slice changes, const struct event *answer);
void changes_apply(struct shard *shard, struct slice changes);
void changes_done(struct shard *shard, uint64_t number);
void changes_drop(struct shard *shard);

/* ---- conn.c ---- */
extern const struct net_handler conn_handler;
struct conn *conn_find(struct shard *shard, uint64_t id);
void conn_run_timers(struct shard *shard);
void conn_release_buf(struct shard *shard, struct buf *buf);
/* References that another shard has taken for this one. */
void conn_adopt_buf(struct shard *shard, struct buf *buf);
void conn_resume_stalled(struct shard *shard);

#endif
