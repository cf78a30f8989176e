/* The checkpoint's state, shared by checkpoint.c (its course), copy.c (entries into a new extent),
 * rewrite.c (what is left of old extents into the same one) and commit.c (one transaction of the
 * state store). Each has at most one job on a helper thread; while it runs, what the job was given
 * (its struct and the extent writer) is the helper's. */
#ifndef WEIR_STORE_CHECKPOINT_H
#define WEIR_STORE_CHECKPOINT_H

#include "base/list.h"
#include "io/disk.h"
#include "store/extent.h"
#include "store/index.h"
#include "store/state.h"

#include <stdbool.h>
#include <stdint.h>

#define COPY_ENTRIES 4096u
#define COPY_BYTES   (1024u * 1024)

struct store;
struct stream;
struct extent_file;
struct segment;
struct block;

enum checkpoint_phase {
    CHECKPOINT_IDLE,
    CHECKPOINT_COPY,    /* live entries before the mark go into a new extent */
    CHECKPOINT_REWRITE, /* and those of extents that are mostly dead */
    CHECKPOINT_FINISH,  /* the extent is completed and synced */
    CHECKPOINT_OBJECTS, /* changed objects are gathered */
    CHECKPOINT_WAIT,    /* until the journal is safe up to where they reach */
    CHECKPOINT_COMMIT,  /* the transaction; back to OBJECTS when more are left */
    CHECKPOINT_LEAVE,   /* rows before the mark leave the index, files go */
};

/* An entry on its way into the extent. */
struct copy_entry {
    uint64_t stream, base, pos;
    uint32_t count, len;
    uint32_t source; /* of copy.sources, when data is NULL */
    const uint8_t *data;
    uint64_t extent, offset; /* where it stays; extent 0: it is copied */
    uint64_t sum;            /* when it comes from an extent; else UINT64_MAX */
    int64_t peak_ms;
};

/* A block that is not in memory. */
struct copy_source {
    struct block *block;
    struct segment *segment;
    struct disk_file *file;
    uint64_t start, bytes, file_offset;
    bool sound; /* its frames were checked since the checkpoint began */
};

struct copy {
    struct disk_op op;
    struct copy_entry *entries; /* COPY_ENTRIES of them */
    uint32_t count;
    uint64_t bytes;
    struct copy_source *sources;
    uint32_t source_count, source_room;
    struct buf **held; /* blocks that entries point into */
    uint32_t held_count, held_room;
    uint8_t *scratch; /* the source read last */
    size_t scratch_room;
    uint8_t *entry; /* one entry read alone */
    size_t entry_room;
    bool busy, finish;
};

/* A block that was in an old extent and whose live entries were copied. */
struct replaced {
    uint64_t stream, base, extent, bytes;
};

struct rewrite {
    struct disk_op op;
    struct extent_file *extent; /* being read; NULL: none */
    struct disk_file *file;
    uint64_t offset, end;
    uint8_t *data;
    size_t room, got, want;
    struct replaced *replaced;
    uint64_t count, replaced_room;
    uint64_t budget;     /* bytes that may still be rewritten in this checkpoint */
    uint64_t skip_below; /* victims below it were done */
    bool busy, ready;
};

/* Everything of the stream below first goes; UINT64_MAX: the stream was dropped. */
struct trim {
    uint64_t stream, first;
};

/* A row of the table of extents, while the transaction is built. */
struct commit_extent {
    struct index_extent info;
    bool changed;
};

/* Streams dropped since the trims were gathered last. */
struct drops {
    uint64_t *streams;
    uint64_t count, room;
};

/* An entry that stayed in the journal's file and is needed no more. */
struct kept_hole {
    uint64_t extent, offset, len;
};

struct commit {
    struct disk_op op;
    struct store *store;
    struct state_batch batch; /* objects; the job adds the rest */
    struct index_meta meta;
    struct commit_extent *extents; /* a copy of the table, changed by the job */
    uint32_t extent_count;
    struct kept_hole *holes;
    uint64_t hole_count, hole_room;
    struct segment *unsynced[64]; /* files whose fdatasync is due (durability os) */
    uint32_t unsynced_count;
    struct state *state;         /* opened by the job when it was NULL */
    struct state_reader *reader; /* the job's */
    bool last;                   /* the transaction that moves the position */
    bool built;                  /* the batch is complete: only the commit is to be done again */
    bool busy;
};

struct checkpoint {
    enum checkpoint_phase phase;
    uint64_t position, index; /* the mark: a frame's begin */
    uint32_t chain;
    struct list *at;       /* the next stream of store.indexed */
    struct stream *stream; /* the one being copied, and from which offset on */
    uint64_t base;
    uint64_t end;         /* objects reflect changes up to here */
    uint64_t next_extent; /* number of the next one */
    bool named;           /* journal files became extents since it began */
    struct extent_writer writer;
    struct copy copy;
    struct rewrite rewrite;
    struct commit commit;
    struct trim *trims;
    uint64_t trim_count, trim_room;
    struct drops drops;
    bool handed_out; /* objects were taken since it began */
    bool more;       /* objects are left */
    int64_t last_ms, retry_at;
    uint32_t failures; /* one after the other */
    bool started;      /* last_ms is set */
    bool stopping;
    void (*stop_done)(void *ctx, enum err err);
    void *stop_ctx;
    enum err stop_err;
};

/* checkpoint.c */
/* Does the next piece, if none is under way. The store may be gone when it returns. */
void checkpoint_advance(struct store *store);
void checkpoint_failed(struct store *store, enum err err);
void checkpoint_done_all(struct store *store); /* frees memory */

/* copy.c: true when a job was started, false when nothing is left to be copied. */
bool copy_piece(struct store *store);
void copy_finish(struct store *store); /* completes the extent */
void copy_job_start(struct store *store);
void copy_clear(struct copy *copy);
void copy_done_all(struct store *store);

/* rewrite.c */
void rewrite_begin(struct store *store);
bool rewrite_piece(struct store *store);
void rewrite_done_all(struct store *store);

/* commit.c */
void commit_start(struct store *store);
void commit_done_all(struct store *store);

#endif
