/* The part of the streams that stands in extents: the table of extent files, and the blocks read
 * from them that are in memory. Shared by the files of src/store only. */
#ifndef WEIR_STORE_STORED_H
#define WEIR_STORE_STORED_H

#include "base/buf.h"
#include "base/list.h"
#include "store/extent.h"
#include "store/index.h"
#include "store/state.h"

struct store;
struct stream;

struct extent_file {
    struct index_extent info;
    uint64_t forgotten;     /* bytes of entries in it that were settled out of order */
    struct disk_file *file; /* NULL while nobody reads it */
    struct list open;       /* extents.open, the longest unused first */
    uint32_t refs;          /* reads under way */
    bool removed;
};

/* About how much of the disk it takes. */
static inline uint64_t extent_file_bytes(const struct extent_file *extent)
{
    return extent->info.bytes > 0 ? extent->info.bytes : extent->info.live;
}

struct extents {
    struct state *state;         /* NULL before the first checkpoint */
    struct state_reader *reader; /* the shard's own */
    struct index_meta meta;      /* as committed last */
    struct extent_file **files;  /* in order of number */
    uint32_t count, room;
    struct list open;
    uint32_t open_count;
    struct list cached;          /* blocks in memory, the longest unused first */
    struct stream_block **table; /* the same by (extent, offset) */
    uint64_t cached_bytes;
    uint64_t drained_bytes; /* of blocks read and trimmed since the last checkpoint */
    struct list runs;       /* reads under way */
};

/* A block in memory. */
struct stream_block {
    struct list cached;
    struct stream_block *chain; /* in its slot of the table */
    struct extent_block head;
    bool kept;       /* data is one entry's, without headers */
    uint64_t bytes;  /* of the buf, that count as its own */
    struct buf *buf; /* of the read that brought it; shared with its neighbours */
    const uint8_t *data;
    struct stream *owner; /* its `loaded` points here */
    uint64_t run_end;     /* where the read that brought it ended */
    bool ahead;           /* whoever comes here will want what follows the run */
    uint32_t hint;        /* entry shown last */
    uint32_t at[];        /* where the entries begin in the body */
};

enum err extents_open(struct store *store); /* what the state store knows; restores objects */
void extents_close(struct store *store);
struct extent_file *extents_find(struct extents *extents, uint64_t number);
enum err extents_add(struct extents *extents, const struct index_extent *info);
enum err extents_file(struct store *store, struct extent_file *extent); /* opens it */
void extents_unref(struct store *store, struct extent_file *extent);
void extents_sweep(struct store *store); /* removes files that no row points to */

/* Drops the block from memory that was unused for longest; false when there is none. */
bool stored_evict(struct store *store);
/* Frees reads under way, which will never complete. */
void stored_drop_runs(struct store *store);

#endif
