/* One cell's storage: a journal, extents, a state store, and the index that finds an entry of a
 * stream in them. Called by the cell that owns it, on its shard's thread; it calls back through
 * store_handler, on that thread, from loop turns (never from inside a call made to it, except
 * where said).
 *
 * Life of an entry: store_reserve gives room in the journal's memory, the cell encodes the record
 * that holds the entry there, store_commit ends it, stream_add tells where the entry stands.
 * store_flush starts one write + fdatasync of everything gathered; `committed` follows. A later
 * checkpoint copies entries that are still live into an extent and frees the journal file.
 *
 * Two logs with one address space: the journal (durable) and the volatile log (transient messages
 * and everything of non-durable streams: it has no frames, is never synced, goes to an unsynced
 * spill file only when memory is short, and is gone after a restart). Positions in the volatile
 * log have STORE_VOLATILE set. A position is a byte address that only grows. */
#ifndef WEIR_STORE_STORE_H
#define WEIR_STORE_STORE_H

#include "base/buf.h"
#include "base/list.h"
#include "base/slice.h"
#include "gen/err.h"

#include <stdbool.h>
#include <stdint.h>

struct disk;
struct state_backend; /* store/state.h: LMDB, or memory in simulation */
struct store;

#define STORE_VOLATILE (UINT64_C(1) << 63)

struct store_config {
    const char *path; /* the cell's folder; made at the first durable append, not before */
    struct disk *disk;
    const struct state_backend *state;
    uint32_t cell;
    uint32_t shard;         /* home of the bufs made here */
    bool sync;              /* durability: fdatasync before committed(), or page cache only */
    uint64_t keep_bytes;    /* entries of logs from this size on are not copied by checkpoints; in
                               all lives of a folder the same, or at least KEEP_BYTES_FREE */
    uint64_t segment_bytes; /* a journal file's size; a sealed one is checkpointed and freed */
    uint64_t memory_limit;  /* bytes of log blocks, loaded extents and rows kept in memory, about;
                               rows of volatile entries may be more */
    uint64_t checkpoint_ms; /* checkpoint at least this often when something changed */
    uint64_t *memory_bytes; /* account for bufs and rows; may be NULL */
    char *problem;          /* store_open says here, in words with file and byte offset, what it */
    size_t problem_bytes;   /* failed on; room for STORE_PROBLEM_BYTES; may be NULL */
};

#define STORE_PROBLEM_BYTES 320
#define KEEP_BYTES_FREE     4096

/* A durable object as the checkpoint stores it (a ledger, a partition, a group, a definition). */
struct store_object {
    uint8_t kind;
    uint64_t id;
    struct slice value; /* empty with data == NULL: delete it */
};

struct store_handler {
    /* During store_open only. First restore for every stored object, then replay for every record
     * behind the checkpoint, in order. An error stops the opening. */
    enum err (*restore)(void *ctx, uint8_t kind, uint64_t id, struct slice value);
    enum err (*replay)(void *ctx, uint64_t pos, struct slice record);
    /* Checkpoint: hands out the next object changed since it was last handed out, serialized now;
     * false when there is none. kind 0: it could not be serialized for want of memory, so this
     * checkpoint must fail. The slice is valid until the next call. Its state may reflect
     * records up to the journal's end: the store commits it only when those are durable. */
    bool (*next_changed)(void *ctx, struct store_object *out);
    /* The checkpoint failed: everything handed out since it began counts as changed again. */
    void (*changes_lost)(void *ctx);
    /* Is any message of the entry still needed? Asked for each entry before it is copied. */
    bool (*entry_live)(void *ctx, uint64_t stream, uint64_t base, uint32_t count);
    /* Every durable record that begins before `end` is safe. */
    void (*committed)(void *ctx, uint64_t end);
    /* A write or fdatasync failed: the store accepts and commits nothing any more (ERR_IO), or,
     * with ERR_DISK_FULL, refuses reservations until space returned (then again with ERR_NONE). */
    void (*failed)(void *ctx, enum err err);
};

/* Recovers what is on disk (torn tail cut, rot refused with ERR_CORRUPT and a message in
 * config->problem) and is then ready for appends. An absent folder is an empty cell. *out is set
 * before restore and replay are called, for their stream_init; it is NULL again after a failure,
 * when only stream_done(stream, false) is left to be done with the streams made meanwhile. */
enum err store_open(const struct store_config *config, const struct store_handler *handler,
                    void *ctx, struct store **out);

/* Begins an orderly stop: flushes, checkpoints everything (so that the next start replays nothing),
 * then calls done, from a loop turn. On a full disk it may do without the checkpoint:
 * ERR_DISK_FULL, and everything that was committed stands in the journal. After done no request
 * begins any more, whatever is called: the store is only to be destroyed. */
void store_stop(struct store *store, void (*done)(void *ctx, enum err err), void *ctx);
/* No request of the store is under way. (A store that failed may still have some.) */
bool store_idle(const struct store *store);
/* Frees memory. Requests still under way must have completed (store_stop waits for them, see
 * store_idle), or never complete (a simulated crash). */
void store_destroy(struct store *store);

/* len contiguous bytes for one record, at position *pos. NULL with *err set when memory is
 * exhausted, the disk is full or the store has failed. Only one reservation at a time. */
uint8_t *store_reserve(struct store *store, bool durable, size_t len, uint64_t *pos, enum err *err);
/* Ends the reservation; `len` may be less than reserved, not 0. */
void store_commit(struct store *store, size_t len);
/* Gives the reservation back. */
void store_cancel(struct store *store);

/* Starts a flush of what was gathered, if none is under way (then one follows it by itself).
 * `lazy`: nobody waits for it, so it may take up to 10 ms to begin (settles). */
void store_flush(struct store *store, bool lazy);
/* To be called once in a while (each turn with now): lazy flushes, checkpoints by time, eviction.
 */
void store_tick(struct store *store, int64_t now_ms);
/* When store_tick has something to do at the latest (monotonic ms), INT64_MAX = nothing. */
int64_t store_deadline(const struct store *store, int64_t now_ms);
/* End of the durable records that are safe, and of those appended. */
uint64_t store_committed(const struct store *store);
uint64_t store_end(const struct store *store);
/* Bytes appended and not yet written: producers are slowed above a limit. */
uint64_t store_unflushed(const struct store *store);

/* ---- Streams: which entries exist and where they stand ---- */

/* One appended entry: messages base .. base+count-1. */
struct stream_row {
    uint64_t base;
    uint64_t pos; /* of the entry's first byte (not of the record's) */
    uint32_t len;
    uint32_t count;
};

/* Embedded in its owner, which reads id, first and next and leaves the rest alone. Rows stand in
 * order of base; offsets below next that no row covers are in extents, or gone. An id is never used
 * for a second stream. */
struct stream {
    struct store *store;
    uint64_t id;
    uint64_t first;          /* offsets below it are gone */
    uint64_t next;           /* the next entry's base */
    struct stream_row *rows; /* ring of capacity `slots` (power of two) */
    uint32_t slots, head, used;
    uint32_t dead;       /* rows forgotten out of order that still stand in the ring */
    uint32_t transient;  /* rows of volatile entries */
    uint8_t idle;        /* sweeps that found the ring empty */
    bool is_log;         /* entries leave from the front only; set by its owner */
    uint64_t bytes;      /* sum of the rows' len, dead ones left out */
    uint64_t stored_end; /* extents hold nothing at or above it; 0: nothing at all */
    uint64_t copied_end; /* the same, once the checkpoint under way has succeeded */
    struct list indexed; /* on the store's list of streams that have a ring */
    struct list trimmed; /* on the store's list of those trimmed since the last checkpoint */
    struct stream_block *loaded; /* the extent block last read */
};

void stream_init(struct stream *stream, struct store *store, uint64_t id, uint64_t first,
                 uint64_t next);
/* Frees the index; what is stored for it goes at the next checkpoint if `drop`. */
void stream_done(struct stream *stream, bool drop);

/* An entry was appended at base = stream->next. Its first 8 bytes must be its timestamp
 * (big-endian int64, ms since 1970): retention and searches by time read it there. */
/* During replay base may be below next (the owner was restored at a later position): then the row
 * is kept when base is behind the last row, and left out when the entry lies below first. */
enum err stream_add(struct stream *stream, uint64_t base, uint32_t count, uint64_t pos,
                    uint32_t len);
/* The entry is needed no more although earlier ones are (settled out of order). */
void stream_forget(struct stream *stream, uint64_t base);
/* The same for all entries that begin in first..last, at a cost that depends on how many stand in
 * the index in memory; meant for long runs. */
void stream_forget_range(struct stream *stream, uint64_t first, uint64_t last);
/* Everything below first is needed no more. */
void stream_trim(struct stream *stream, uint64_t first);

struct entry {
    uint64_t base;
    uint32_t count;
    bool is_volatile;
    struct slice data; /* the entry's bytes */
    struct buf
        *buf; /* they stand in it: reference it to keep them; else valid until the next call */
};

enum stream_found {
    /* *out is the entry that holds the offset, or the first one behind it when it is gone. One
     * that was forgotten may still be found after it went to an extent, and after a restart. */
    STREAM_HIT,
    STREAM_MISS, /* it is on disk: use stream_load, then peek again */
    STREAM_END,  /* nothing at or behind the offset */
};

enum stream_found stream_peek(struct stream *stream, uint64_t offset, struct entry *out);

/* Loads the entry at offset (and neighbours) into memory; done() comes from a loop turn. The op
 * must stay alive until then; err: ERR_IO, ERR_CORRUPT (checksum), ERR_NO_MEMORY, ERR_NONE. */
struct stream_load {
    void (*done)(struct stream_load *load, enum err err);
    void *internal[4];
};
void stream_load(struct stream *stream, uint64_t offset, struct stream_load *load);

/* Retention: the smallest offset that may stay first so that at most max_bytes (UINT64_MAX: no
 * limit) of entries remain and none is older than min_ms; never beyond stream->next. Synchronous,
 * reads the index only (granularity: an extent block). */
uint64_t stream_retain_from(struct stream *stream, uint64_t max_bytes, int64_t min_ms);
/* About how many bytes of entries it holds. */
uint64_t stream_bytes(struct stream *stream);
/* Base of an entry at or before the first entry whose timestamp is >= ms (scan forward from it). */
uint64_t stream_seek_time(struct stream *stream, int64_t ms);

struct store_stats {
    uint64_t journal_bytes, extent_bytes, memory_bytes, spilled_bytes;
    uint64_t flushes, flushed_bytes, checkpoints, extents;
};
void store_stats(const struct store *store, struct store_stats *out);

#endif
