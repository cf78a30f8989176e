/* What the files of src/store share, and nobody else includes: the bodies of struct store and of
 * its parts. Everything here belongs to the shard's thread, except what a job running on a helper
 * is told to touch (struct segment_job, struct copy_job and the like say what that is). */
#ifndef WEIR_STORE_INSIDE_H
#define WEIR_STORE_INSIDE_H

#include "io/disk.h"
#include "store/checkpoint.h"
#include "store/format.h"
#include "store/store.h"
#include "store/stored.h"

#include <stdbool.h>
#include <stdint.h>

#define BLOCK_BYTES     (256u * 1024)
#define BLOCK_POOL_MAX  4u
#define FLUSH_PARTS_MAX 64
#define FLUSH_BYTES_MAX (4u * 1024 * 1024)
#define FLUSH_NOW_BYTES                                                                            \
    (16u * 1024) /* so little is written on the calling thread, if it is idle                      \
                  */
#define FLUSH_BULK_BYTES   (256u * 1024) /* such writes need no zeroed blocks */
#define LAZY_FLUSH_MS      10
#define SEGMENT_STEP_FIRST (512u * 1024)
#define SEGMENT_STEP       (8u * 1024 * 1024)
#define PATH_BYTES         4096
#define SWEEP_MS           100  /* how often empty rings and old blocks are looked for */
#define SWEEP_IDLE_MS      2000 /* and when nothing else calls for a turn */
#define SPACE_RESERVE      (32u * 1024 * 1024) /* of the disk, per cell, that producers do not get */
#define SPACE_LOOK_BYTES   (2u * 1024 * 1024)  /* written between two looks, at the most */
#define PROBE_MS           1000                /* how often a full disk is asked again */

struct store;
struct block;

/* ---- Journal files ---- */

struct segment {
    struct list link;       /* journal.segments, in order of start */
    uint64_t start;         /* position of the first byte behind the file's header */
    uint64_t limit;         /* the next segment starts here */
    uint64_t end;           /* behind the last frame, once sealed; else UINT64_MAX */
    uint64_t allocated;     /* positions below it have zeroed blocks in the file */
    struct disk_file *file; /* NULL until the file is made */
    uint32_t refs;          /* requests under way on it, and blocks that may be read back from it */
    bool removed;           /* close it when refs reaches 0 */
    bool once;              /* never to be used again: it has, or had, a second name */
    bool recovered;         /* it is from before the start: what is kept in it is not all known */
    bool nameless;          /* it could not be given one */
    uint64_t extent;        /* number of the extent that it is by its second name; 0: none */
    struct span *spans;     /* kept in it, by that name */
    uint32_t span_count, span_room;
};

/* Bytes of a file. */
struct span {
    uint64_t offset, len;
};

/* Makes or grows one journal file on a helper; one at a time. */
struct segment_job {
    struct disk_op op;
    struct store *store;
    struct segment *segment;
    struct disk_file *file; /* in: the file to grow, or NULL to make one; out: the file */
    uint64_t file_bytes;    /* size to reach */
    uint64_t least_bytes;   /* size that is needed now: when the disk has no room for more */
    uint64_t got_bytes;     /* size reached */
    bool zeroed;            /* the blocks are to be written, not only reserved */
    bool spare;             /* a spare file stands there */
    bool spare_used;        /* out: not any more */
    bool busy;
};

/* ---- Blocks: the memory that both logs are written in ---- */

struct block {
    uint64_t start;          /* position of its first byte */
    uint64_t end;            /* behind the last byte in use */
    uint64_t closed;         /* journal: behind the last closed frame */
    uint64_t written;        /* journal: what is in the file */
    struct buf *buf;         /* NULL when it was evicted or freed */
    uint32_t live;           /* rows that point into it */
    bool sealed;             /* nothing will be appended */
    bool reloaded;           /* it was read back: reading goes on here */
    bool durable;            /* journal or volatile log */
    bool in_file;            /* volatile: stands in the spill file at spill_at */
    int64_t max_ms;          /* newest timestamp of its entries */
    struct segment *segment; /* journal */
    uint64_t spill_at;
    uint32_t spill_crc;
    uint64_t sound_for; /* journal, not in memory: frames were checked for the checkpoint there */
    struct block_load *load; /* being read or spilled */
    struct list recent;      /* store.recent while it may be evicted */
};

/* A block being read back, or written to the spill file. */
struct block_load {
    struct disk_op op;
    struct store *store;
    struct block *block;
    struct buf *buf;         /* read into */
    struct segment *segment; /* read from */
    struct list waiters;     /* struct stream_load, by their first two words */
};

/* The spill file. */
struct spill {
    struct disk_file *file; /* NULL while no block is in it */
    uint32_t slots;         /* slots in the file, of BLOCK_BYTES */
    uint32_t *free;         /* those not in use */
    uint32_t free_used, free_room;
    uint32_t blocks; /* in it or on their way */
    uint32_t writing;
    uint64_t writing_bytes, bytes;
    int64_t blocked_until; /* the disk had no room */
};

/* One log's blocks in order of position. */
struct block_log {
    struct block **ring; /* capacity `slots`, a power of two */
    uint32_t slots, head, used;
    struct block *open;     /* the last one, while it takes records */
    struct block *add_hint; /* found last by pos, one memory per kind of caller */
    struct block *peek_hint;
    struct block *trim_hint;
    struct block *copy_hint;
};

/* ---- The journal ---- */

/* A place between two frames, and what the next one says. */
struct journal_mark {
    uint64_t position, index;
    uint32_t chain;
};

struct journal {
    struct list segments;
    struct segment *current; /* the one appended to; NULL before the first append */
    struct segment *next;    /* prepared to follow it */
    struct segment_job job;
    uint32_t spares;      /* files kept to be used again */
    uint64_t frame_start; /* header of the open frame, in blocks.open */
    uint64_t at;          /* where the next record goes */
    uint64_t end;         /* behind the last committed record or closed frame */
    uint64_t written;     /* behind the last frame written */
    uint64_t synced;      /* behind the last frame that a completed fdatasync covers */
    uint64_t committed;
    uint64_t term, index;     /* of the next frame */
    uint32_t chain;           /* crc of the last sealed frame */
    uint64_t sealed_index;    /* of the frame behind it */
    struct journal_mark mark; /* where the last completed write ended */
    uint32_t records;         /* in the open frame */
    int64_t lazy_at;          /* a lazy flush is due then; 0: none */
    bool writing, wanted;     /* a write is under way; another must follow */
    uint64_t flush_bytes;     /* of one write, on average lately */
    bool full;                /* the disk has no room ... */
    bool grow_full;           /* ... to make or grow a file */
    bool write_full;          /* ... or for a write, which is made again after a while */
    bool space_low;           /* ... or the rest of it is kept for settles and checkpoints */
    uint64_t space_end;       /* what was written when that was looked at last */
    int64_t probe_at;
    uint64_t write_to; /* end of the write under way */
    uint64_t write_start;
    struct segment *write_segment;
    struct disk_op op;
};

/* Files on their way out. */
struct removal {
    const char *kind;
    uint64_t number;
    struct span *spans; /* what is kept of it under another name; owned */
    uint32_t span_count;
};

struct remover {
    struct disk_op op;
    struct removal *queue, *taking; /* the next job's; the one's under way */
    uint32_t count, room, taken, taking_room;
    bool busy;
};

struct store {
    struct store_config config;
    const struct store_handler *handler;
    void *ctx;
    char *path;
    enum err failed;
    bool opening;   /* replay is under way */
    bool stopped;   /* only to be destroyed: no request begins any more */
    int64_t now_ms; /* of the last tick */
    struct journal journal;
    struct block_log logs[2]; /* [0] volatile, [1] journal */
    size_t reserved;          /* bytes of the open reservation, 0: none */
    bool reserved_durable;
    uint64_t transient_end; /* of the volatile log */
    int64_t swept_ms;
    uint64_t swept_end; /* of both logs together, then */
    struct buf *pool[BLOCK_POOL_MAX];
    uint32_t pooled;
    uint64_t memory;           /* bytes of blocks and of loaded extent blocks */
    uint64_t row_bytes;        /* of all streams' rows */
    uint64_t durable_rows;     /* those that a checkpoint takes out */
    bool evict_due;            /* something was read back since the last tick */
    struct list recent;        /* blocks that may be evicted, oldest first */
    struct list indexed;       /* streams that have a ring */
    struct list trimmed;       /* streams trimmed since the last checkpoint */
    struct list *sweep;        /* where the sweep for empty rings stands */
    struct list done_loads;    /* loads that found their block in memory */
    struct list failed_loads;  /* loads that found no memory */
    struct list damaged_loads; /* loads of what the index says wrong things about */
    struct list unread_loads;  /* loads for which the disk would not even open the file */
    uint32_t loading;          /* block reads under way */
    struct disk_op kick;       /* brings another turn of the loop */
    bool kick_busy;
    struct remover remover;
    struct extents extents;
    struct checkpoint checkpoint;
    struct spill spill;
    struct store_stats stats;
};

/* store.c */
void store_kick(struct store *store);
void store_fail(struct store *store, enum err err);
void store_path(const struct store *store, const char *kind, uint64_t number, char *out);
__attribute__((format(printf, 2, 3))) void store_explain(struct store *store, const char *format,
                                                         ...);

/* block.c: the logs' memory */
uint64_t block_limit(const struct store *store); /* what they may take beside the rows */
enum err block_open(struct store *store, bool durable, uint64_t start, size_t capacity,
                    struct block **out);
void block_seal(struct store *store, struct block *block);
void block_detach(struct store *store, struct block *block); /* its bytes leave memory */
struct block *block_after(struct block_log *log, const struct block *block);
uint32_t block_first_unwritten(const struct block_log *log, uint64_t written);
struct block *block_find(struct block_log *log, struct block **hint, uint64_t pos);
void block_release(struct store *store, struct block *block); /* live or written changed */
void block_evict(struct store *store);
void block_idle(struct store *store);
void block_log_done(struct store *store, struct block_log *log);
struct buf *buf_take(struct store *store, size_t capacity);
void buf_recycle(struct store *store, struct buf *buf);

static inline uint8_t *block_at(const struct block *block, uint64_t pos)
{
    return block->buf->data + (pos - block->start);
}

/* spill.c */
bool spill_refuses(const struct store *store);
void spill_done(struct store *store);
bool spill_start(struct store *store, struct block *block); /* false: no more just now */
void spill_free(struct store *store, struct block *block);

/* load.c: reading back what was dropped from memory */
void load_wait(struct list *waiters, struct stream_load *load);
void load_finish(struct list *waiters, enum err err);
void load_block(struct store *store, struct block *block, struct stream_load *load);
void load_ahead(struct store *store, struct block *block);
void load_tick(struct store *store);

/* stored.c: the part of a stream that stands in extents */
void stored_init(struct stream *stream);
void stored_done(struct stream *stream, bool drop);
void stored_forget(struct stream *stream, uint64_t base);
/* False: what is at the offset does not stand in an extent. */
bool stored_load(struct stream *stream, uint64_t offset, uint64_t below, struct stream_load *load);
enum stream_found stored_peek(struct stream *stream, uint64_t offset, uint64_t below,
                              struct entry *out);

/* checkpoint.c */
void checkpoint_tick(struct store *store);
void checkpoint_drop(struct store *store, uint64_t stream);
void checkpoint_stream_leaves(struct stream *stream);

/* keep.c: large entries, which stay in the journal's file */
/* False: it is to be copied. */
bool keep_entry(struct store *store, struct segment *segment, struct copy_entry *entry);
void keep_undo(struct store *store);
void keep_ends(struct store *store, uint64_t extent);
void keep_holes(struct store *store, const char *path, struct span *spans, uint32_t count);
void keep_punch(struct store *store, const struct kept_hole *holes, uint64_t count);

/* stream.c */
struct stream_row *stream_row_at(const struct stream *stream, uint32_t i);
uint32_t stream_row_find(const struct stream *stream, uint64_t offset);
const struct stream_row *stream_row_for(const struct stream *stream, uint64_t offset);
void stream_rows_free(struct stream *stream);
void stream_rows_leave(struct stream *stream, uint64_t position);
void stream_sweep(struct store *store);

/* journal.c */
void journal_init(struct store *store);
void journal_done(struct store *store);
uint8_t *journal_reserve(struct store *store, size_t len, uint64_t *pos, enum err *err);
void journal_commit(struct store *store, size_t len);
void journal_flush(struct store *store);
/* What was gathered cannot be written, for its file has no room and the disk has none. */
bool journal_starves(const struct store *store);
void journal_tick(struct store *store);

/* segment.c: the journal's files */
/* The file for a block of that capacity behind `start`: the current one or the next. */
enum err segment_for(struct store *store, uint64_t start, uint64_t capacity, struct segment **out);
/* It has its first block; the one before it ended at `end`. */
void segment_enter(struct store *store, struct segment *segment, uint64_t end);
struct segment *segment_create(struct store *store, uint64_t start, uint64_t limit);
void segment_prepare(struct store *store);
/* Sets the flag (grow_full, write_full), and `full` from both; tells the core when that changed. */
void segment_full(struct store *store, bool *flag, bool value);
void segment_probe(struct store *store);
void segment_space(struct store *store); /* looks whether the disk has room enough */
void segment_unref(struct store *store, struct segment *segment);
void segment_free_below(struct store *store, uint64_t position);
void segment_remove_all(struct store *store); /* an orderly stop: nothing in them is needed */
void segment_done_all(struct store *store);

/* remover.c */
void remover_add(struct store *store, const char *kind, uint64_t number);
void remover_leave(struct store *store, struct segment *segment); /* of it, what is kept stays */
void remover_free(struct store *store);

/* recover.c */
enum err recover_journal(struct store *store, uint64_t position, uint64_t index, uint32_t chain,
                         uint64_t least_end);

#endif
