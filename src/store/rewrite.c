/* Rewriting extents of which little is alive: the checkpoint that writes a new extent anyway takes
 * their live entries along, so that the old files can go. The same merges many small extents. A
 * block counts when the index still points to it; of its entries those that the core still needs.
 */
#include "store/checkpoint.h"

#include "store/inside.h"

#include <stdlib.h>

#define LIVE_PERCENT 30u
#define SMALL_BYTES  (4u * 1024 * 1024)
#define SMALL_FILES  8u
#define BUDGET_BYTES (64u * 1024 * 1024) /* per checkpoint */

static uint64_t live_bytes(const struct extent_file *extent)
{
    return extent->info.live > extent->forgotten ? extent->info.live - extent->forgotten : 0;
}

static bool is_small(const struct extent_file *extent)
{
    return extent->info.bytes > 0 && extent->info.bytes < SMALL_BYTES;
}

/* A journal file that was kept is none: its holes are given back one by one. */
static bool victim_is(const struct extent_file *extent, bool merge)
{
    return live_bytes(extent) * 100 < extent->info.bytes * LIVE_PERCENT ||
           (merge && is_small(extent));
}

/* The next extent to be rewritten, or NULL. */
static struct extent_file *victim_next(struct store *store)
{
    struct extents *extents = &store->extents;
    struct rewrite *rewrite = &store->checkpoint.rewrite;
    uint32_t small = 0;
    for (uint32_t i = 0; i < extents->count; i++)
        small += is_small(extents->files[i]);
    for (uint32_t i = 0; i < extents->count; i++) {
        struct extent_file *extent = extents->files[i];
        if (extent->info.number >= rewrite->skip_below && victim_is(extent, small > SMALL_FILES) &&
            extent->info.bytes <= rewrite->budget && extents_file(store, extent) == ERR_NONE)
            return extent;
    }
    return NULL;
}

/* ---- The job: reads the next piece of the victim ---- */

static void read_run(struct disk_op *op)
{
    struct rewrite *rewrite = list_entry(op, struct rewrite, op);
    if (rewrite->room < rewrite->want) {
        free(rewrite->data);
        rewrite->data = malloc(rewrite->want);
        rewrite->room = rewrite->data == NULL ? 0 : rewrite->want;
    }
    op->err = rewrite->data == NULL ? ERR_NO_MEMORY
                                    : disk_read_sync(rewrite->file, rewrite->data, rewrite->want,
                                                     rewrite->offset, &rewrite->got);
}

static void read_done(struct disk_op *op)
{
    struct rewrite *rewrite = list_entry(op, struct rewrite, op);
    struct checkpoint *checkpoint = list_entry(rewrite, struct checkpoint, rewrite);
    struct store *store = list_entry(checkpoint, struct store, checkpoint);
    rewrite->busy = false;
    rewrite->ready = true;
    if (op->err != ERR_NONE)
        checkpoint_failed(store, op->err);
    checkpoint_advance(store);
}

static void read_start(struct store *store)
{
    struct rewrite *rewrite = &store->checkpoint.rewrite;
    rewrite->got = 0;
    rewrite->busy = true;
    rewrite->ready = false;
    rewrite->op.done = read_done;
    disk_run(store->config.disk, read_run, &rewrite->op);
}

/* ---- On the shard's thread: which of it lives ---- */

static bool replaced_add(struct rewrite *rewrite, const struct index_row *row)
{
    if (rewrite->count == rewrite->replaced_room) {
        uint64_t room = rewrite->replaced_room == 0 ? 64 : rewrite->replaced_room * 2;
        struct replaced *replaced = realloc(rewrite->replaced, room * sizeof *replaced);
        if (replaced == NULL)
            return false;
        rewrite->replaced = replaced;
        rewrite->replaced_room = room;
    }
    rewrite->replaced[rewrite->count++] = (struct replaced){.stream = row->stream,
                                                            .base = row->base,
                                                            .extent = row->extent,
                                                            .bytes = extent_block_bytes(row->body)};
    return true;
}

/* Adds the block's live entries to the piece. */
static enum err block_take(struct store *store, const uint8_t *data,
                           const struct extent_block *block)
{
    struct checkpoint *checkpoint = &store->checkpoint;
    struct copy *copy = &checkpoint->copy;
    struct index_row row;
    enum err err = index_row_find(store->config.state, store->extents.reader, block->stream,
                                  block->base, &row);
    if (err == ERR_NOT_FOUND ||
        (err == ERR_NONE &&
         (row.base != block->base || row.extent != block->extent || row.offset != block->offset)))
        return ERR_NONE;
    if (err != ERR_NONE)
        return err;
    if (!replaced_add(&checkpoint->rewrite, &row))
        return ERR_NO_MEMORY;
    uint32_t at = 0;
    for (uint32_t i = 0; i < block->count; i++) {
        struct extent_entry entry;
        extent_entry_get(data, block, &at, &entry);
        if (!store->handler->entry_live(store->ctx, block->stream, entry.base, entry.count))
            continue;
        copy->entries[copy->count++] = (struct copy_entry){.stream = block->stream,
                                                           .base = entry.base,
                                                           .count = entry.count,
                                                           .len = (uint32_t)entry.data.len,
                                                           .data = entry.data.data,
                                                           .sum = row.sum,
                                                           .peak_ms = row.peak_ms};
    }
    return ERR_NONE;
}

static void victim_end(struct store *store)
{
    struct rewrite *rewrite = &store->checkpoint.rewrite;
    if (rewrite->extent == NULL)
        return;
    rewrite->skip_below = rewrite->extent->info.number + 1;
    extents_unref(store, rewrite->extent);
    rewrite->extent = NULL;
}

/* Leaves the extent as it is: readers and `weir check` will say so. What was taken from it before
 * stays valid, for its blocks were. */
static enum err victim_damaged(struct store *store)
{
    victim_end(store);
    return ERR_NONE;
}

/* Takes the blocks that were read, as many as fit into one piece. */
static enum err piece_take(struct store *store)
{
    struct checkpoint *checkpoint = &store->checkpoint;
    struct rewrite *rewrite = &checkpoint->rewrite;
    struct copy *copy = &checkpoint->copy;
    size_t at = 0;
    rewrite->ready = false;
    enum err err = ERR_NONE;
    while (err == ERR_NONE && rewrite->offset + at < rewrite->end) {
        struct extent_block block;
        const uint8_t *data = rewrite->data + at;
        uint64_t left = rewrite->end - rewrite->offset - at;
        if (at > 0 && rewrite->got - at < BLOCK_HEADER_BYTES)
            break;
        if (rewrite->got - at < BLOCK_HEADER_BYTES || !extent_block_peek(data, left, &block))
            return victim_damaged(store);
        if (extent_block_bytes(block.body) > rewrite->got - at) {
            if (at == 0 && rewrite->got < rewrite->want)
                return victim_damaged(store);
            if (at == 0)
                rewrite->want = extent_block_bytes(block.body);
            break;
        }
        if (copy->count + block.count > COPY_ENTRIES)
            break;
        if (!extent_block_check(data, left, &block))
            return victim_damaged(store);
        err = block_take(store, data, &block);
        at += extent_block_bytes(block.body);
        rewrite->want = COPY_BYTES;
    }
    rewrite->offset += at;
    return err;
}

static bool victim_begin(struct store *store)
{
    struct rewrite *rewrite = &store->checkpoint.rewrite;
    struct extent_file *extent = victim_next(store);
    if (extent == NULL || store->checkpoint.copy.entries == NULL)
        return false;
    extent->refs++;
    rewrite->extent = extent;
    rewrite->file = extent->file;
    rewrite->offset = EXTENT_HEADER_BYTES;
    rewrite->end = extent->info.bytes - EXTENT_END_BYTES;
    rewrite->budget -= extent->info.bytes;
    rewrite->want = COPY_BYTES;
    return true;
}

bool rewrite_piece(struct store *store)
{
    struct rewrite *rewrite = &store->checkpoint.rewrite;
    if (rewrite->ready) {
        enum err err = piece_take(store);
        if (err != ERR_NONE) {
            copy_clear(&store->checkpoint.copy);
            checkpoint_failed(store, err);
            return true;
        }
        if (store->checkpoint.copy.count > 0) {
            copy_job_start(store);
            return true;
        }
    }
    if (rewrite->extent != NULL && rewrite->offset >= rewrite->end)
        victim_end(store);
    if (rewrite->extent == NULL && !victim_begin(store))
        return false;
    read_start(store);
    return true;
}

void rewrite_begin(struct store *store)
{
    struct rewrite *rewrite = &store->checkpoint.rewrite;
    victim_end(store);
    rewrite->count = 0;
    rewrite->skip_below = 0;
    rewrite->budget = BUDGET_BYTES;
    rewrite->ready = false;
}

void rewrite_done_all(struct store *store)
{
    free(store->checkpoint.rewrite.data);
    free(store->checkpoint.rewrite.replaced);
}
