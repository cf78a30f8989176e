/* The checkpoint's transaction: one batch with the objects gathered, the rows that trims and drops
 * made void (an object may reflect them, and replay then passes over them), the extents' counts,
 * and in the last one also the blocks of the new extent, those that rewriting made void, and the
 * journal position from which the next start replays. The batch is built and committed by a job;
 * readers of the state store go on meanwhile and see the state before it. */
#include "store/checkpoint.h"

#include "store/inside.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- The job, on a helper ---- */

static int trim_compare(const void *a, const void *b)
{
    const struct trim *left = a, *right = b;
    if (left->stream != right->stream)
        return left->stream < right->stream ? -1 : 1;
    return (left->first < right->first) - (left->first > right->first); /* the largest first */
}

static int replaced_compare(const void *a, const void *b)
{
    const struct replaced *left = a, *right = b;
    if (left->stream != right->stream)
        return left->stream < right->stream ? -1 : 1;
    return (left->base > right->base) - (left->base < right->base);
}

/* Offsets of the stream below what this returns are gone. */
static uint64_t trimmed_below(const struct checkpoint *checkpoint, uint64_t stream)
{
    uint64_t low = 0, high = checkpoint->trim_count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (checkpoint->trims[middle].stream < stream)
            low = middle + 1;
        else
            high = middle;
    }
    return low < checkpoint->trim_count && checkpoint->trims[low].stream == stream
               ? checkpoint->trims[low].first
               : 0;
}

static bool was_replaced(const struct rewrite *rewrite, uint64_t stream, uint64_t base)
{
    struct replaced key = {.stream = stream, .base = base};
    return rewrite->count > 0 &&
           bsearch(&key, rewrite->replaced, rewrite->count, sizeof key, replaced_compare) != NULL;
}

static struct commit_extent *extent_info(struct commit *commit, uint64_t number)
{
    for (uint32_t low = 0, high = commit->extent_count; low < high;) {
        uint32_t middle = low + (high - low) / 2;
        struct commit_extent *extent = &commit->extents[middle];
        if (extent->info.number == number)
            return extent;
        if (extent->info.number < number)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

/* A hole that finds no memory is left: the file goes with its last entry. */
static void hole_add(struct commit *commit, const struct index_row *row)
{
    if (commit->hole_count == commit->hole_room) {
        uint64_t room = commit->hole_room == 0 ? 64 : commit->hole_room * 2;
        struct kept_hole *holes = realloc(commit->holes, room * sizeof *holes);
        if (holes == NULL)
            return;
        commit->holes = holes;
        commit->hole_room = room;
    }
    commit->holes[commit->hole_count++] =
        (struct kept_hole){.extent = row->extent, .offset = row->offset, .len = row->body};
}

static void row_void(struct commit *commit, uint64_t stream, uint64_t base, uint64_t extent,
                     uint64_t bytes)
{
    struct index_key key;
    index_row_key(stream, base, &key);
    state_batch_delete(&commit->batch, index_key_slice(&key));
    struct commit_extent *found = extent_info(commit, extent);
    if (found == NULL)
        return;
    struct index_extent *info = &found->info;
    info->blocks -= info->blocks > 0;
    info->live -= info->live < bytes ? info->live : bytes;
    found->changed = true;
}

static enum err trims_void(struct store *store)
{
    struct checkpoint *checkpoint = &store->checkpoint;
    struct commit *commit = &checkpoint->commit;
    for (uint64_t i = 0; i < checkpoint->trim_count; i++) {
        const struct trim *trim = &checkpoint->trims[i];
        if (i > 0 && trim[-1].stream == trim->stream)
            continue;
        struct index_row row = {.end = 0};
        enum err err;
        for (;;) {
            err = index_row_from(store->config.state, commit->reader, trim->stream, row.end, &row);
            if (err != ERR_NONE || row.end > trim->first)
                break;
            if (!commit->last || !was_replaced(&checkpoint->rewrite, row.stream, row.base))
                row_void(commit, row.stream, row.base, row.extent, index_row_bytes(&row));
            if (row.kept)
                hole_add(commit, &row);
        }
        if (err != ERR_NONE && err != ERR_NOT_FOUND)
            return err;
    }
    return ERR_NONE;
}

/* What the stream's rows in the state store add up to. */
static enum err sums_find(struct store *store, uint64_t stream, uint64_t *sum, int64_t *peak_ms)
{
    struct index_row row;
    *sum = 0;
    *peak_ms = INT64_MIN;
    enum err err =
        index_row_last(store->config.state, store->checkpoint.commit.reader, stream, &row);
    if (err == ERR_NONE) {
        *sum = row.sum + row.bytes;
        *peak_ms = row.peak_ms;
    }
    return err == ERR_NOT_FOUND ? ERR_NONE : err;
}

/* The extents that this checkpoint made, for which the table has room. */
static void extents_new(struct store *store)
{
    const struct checkpoint *checkpoint = &store->checkpoint;
    const struct extent_writer *writer = &checkpoint->writer;
    struct commit *commit = &store->checkpoint.commit;
    for (uint64_t number = store->extents.meta.next_extent; number < checkpoint->next_extent;
         number++) {
        bool written = number == writer->header.number;
        if (written && writer->file == NULL)
            continue;
        commit->extents[commit->extent_count++] = (struct commit_extent){
            .info = {.number = number, .bytes = written ? writer->offset : 0}, .changed = true};
    }
}

static void row_count(struct commit *commit, const struct index_row *row)
{
    struct commit_extent *extent = extent_info(commit, row->extent);
    assert(extent != NULL);
    extent->info.blocks++;
    extent->info.live += index_row_bytes(row);
    extent->changed = true;
}

static enum err rows_add(struct store *store)
{
    struct checkpoint *checkpoint = &store->checkpoint;
    struct commit *commit = &checkpoint->commit;
    struct extent_writer *writer = &checkpoint->writer;
    uint64_t stream = 0, sum = 0;
    int64_t peak_ms = INT64_MIN;
    bool any = false;
    extents_new(store);
    for (uint64_t i = 0; i < writer->row_count; i++) {
        const struct extent_row *written = &writer->rows[i];
        const struct extent_block *block = &written->block;
        struct index_row row = {.stream = block->stream,
                                .base = block->base,
                                .end = block->end,
                                .extent = block->extent,
                                .offset = block->offset,
                                .body = block->body,
                                .count = block->count,
                                .bytes = written->bytes,
                                .sum = written->sum,
                                .max_ms = block->max_ms,
                                .peak_ms = written->peak_ms,
                                .kept = written->kept,
                                .crc = written->crc};
        if (written->sum == UINT64_MAX) {
            if (!any || stream != block->stream) {
                enum err err = sums_find(store, block->stream, &sum, &peak_ms);
                if (err != ERR_NONE)
                    return err;
            }
            any = true;
            stream = block->stream;
            row.sum = sum;
            sum += written->bytes;
            peak_ms = block->max_ms > peak_ms ? block->max_ms : peak_ms;
            row.peak_ms = peak_ms;
        } else if (block->max_ms > row.peak_ms) {
            row.peak_ms = block->max_ms;
        }
        if (row.end <= trimmed_below(checkpoint, row.stream))
            continue;
        index_row_put(&commit->batch, &row);
        row_count(commit, &row);
    }
    return ERR_NONE;
}

static void extents_put(struct commit *commit)
{
    for (uint32_t i = 0; i < commit->extent_count; i++) {
        const struct index_extent *info = &commit->extents[i].info;
        struct index_key key;
        if (!commit->extents[i].changed)
            continue;
        index_extent_key(info->number, &key);
        if (info->blocks == 0)
            state_batch_delete(&commit->batch, index_key_slice(&key));
        else
            index_extent_put(&commit->batch, info);
    }
}

/* Blocks whose live entries were copied; those that a transaction before this one removed, for
 * they were trimmed since, are left out. */
static enum err replaced_void(struct store *store)
{
    struct commit *commit = &store->checkpoint.commit;
    struct rewrite *rewrite = &store->checkpoint.rewrite;
    if (rewrite->count > 1)
        qsort(rewrite->replaced, rewrite->count, sizeof *rewrite->replaced, replaced_compare);
    for (uint64_t i = 0; i < rewrite->count; i++) {
        const struct replaced *old = &rewrite->replaced[i];
        struct index_row row;
        enum err err =
            index_row_from(store->config.state, commit->reader, old->stream, old->base, &row);
        if (err == ERR_NONE && row.base == old->base && row.extent == old->extent)
            row_void(commit, old->stream, old->base, old->extent, old->bytes);
        else if (err != ERR_NONE && err != ERR_NOT_FOUND)
            return err;
    }
    return ERR_NONE;
}

static enum err batch_build(struct store *store)
{
    struct checkpoint *checkpoint = &store->checkpoint;
    struct commit *commit = &checkpoint->commit;
    commit->hole_count = 0;
    if (checkpoint->trim_count > 1)
        qsort(checkpoint->trims, checkpoint->trim_count, sizeof *checkpoint->trims, trim_compare);
    enum err err = commit->last ? replaced_void(store) : ERR_NONE;
    if (err == ERR_NONE)
        err = trims_void(store);
    if (err == ERR_NONE && commit->last)
        err = rows_add(store);
    extents_put(commit);
    if (err == ERR_NONE)
        index_meta_put(&commit->batch, &commit->meta);
    return err;
}

static enum err state_ready(struct store *store)
{
    struct commit *commit = &store->checkpoint.commit;
    const struct state_backend *backend = store->config.state;
    enum err err = ERR_NONE;
    if (commit->state == NULL) {
        char path[PATH_BYTES];
        snprintf(path, sizeof path, "%s/state", store->path);
        err = backend->open(backend, path, true, &commit->state);
        if (err == ERR_NONE)
            err = disk_sync_folder(store->config.disk, store->path);
    }
    if (err == ERR_NONE && commit->reader == NULL)
        err = backend->reader_open(commit->state, &commit->reader);
    return err;
}

/* A file that goes altogether needs no holes. */
static void holes_punch(struct store *store)
{
    struct commit *commit = &store->checkpoint.commit;
    uint64_t count = 0;
    for (uint64_t i = 0; i < commit->hole_count; i++) {
        const struct commit_extent *extent = extent_info(commit, commit->holes[i].extent);
        if (extent != NULL && extent->info.blocks > 0)
            commit->holes[count++] = commit->holes[i];
    }
    commit->hole_count = 0;
    keep_punch(store, commit->holes, count);
}

static void commit_run(struct disk_op *op)
{
    struct commit *commit = list_entry(op, struct commit, op);
    struct store *store = commit->store;
    op->err = ERR_NONE;
    for (uint32_t i = 0; i < commit->unsynced_count && op->err == ERR_NONE; i++)
        op->err = disk_sync(commit->unsynced[i]->file);
    if (op->err == ERR_NONE)
        op->err = state_ready(store);
    if (op->err == ERR_NONE && !commit->built) {
        op->err = batch_build(store);
        commit->built = op->err == ERR_NONE;
    }
    if (op->err == ERR_NONE)
        op->err = store->config.state->commit(commit->state, &commit->batch);
    if (op->err == ERR_NONE)
        holes_punch(store);
}

/* ---- On the shard's thread ---- */

/* The table follows what was committed. */
static enum err table_update(struct store *store)
{
    struct commit *commit = &store->checkpoint.commit;
    struct extents *extents = &store->extents;
    enum err err = ERR_NONE;
    for (uint32_t i = 0; i < commit->extent_count && err == ERR_NONE; i++) {
        const struct index_extent *info = &commit->extents[i].info;
        struct extent_file *extent = extents_find(extents, info->number);
        if (extent != NULL)
            extent->info = *info;
        else
            err = extents_add(extents, info);
    }
    return err;
}

static void unsynced_release(struct store *store)
{
    struct commit *commit = &store->checkpoint.commit;
    for (uint32_t i = 0; i < commit->unsynced_count; i++)
        segment_unref(store, commit->unsynced[i]);
    commit->unsynced_count = 0;
}

static void committed_last(struct store *store)
{
    struct checkpoint *checkpoint = &store->checkpoint;
    checkpoint->trim_count = 0;
    checkpoint->failures = 0;
    checkpoint->phase = CHECKPOINT_LEAVE;
    checkpoint->at = store->indexed.next;
    extent_writer_done(&checkpoint->writer);
    store->stats.checkpoints++;
}

static void commit_done(struct disk_op *op)
{
    struct commit *commit = list_entry(op, struct commit, op);
    struct store *store = commit->store;
    struct checkpoint *checkpoint = &store->checkpoint;
    struct extents *extents = &store->extents;
    const struct state_backend *backend = store->config.state;
    enum err err = op->err;
    commit->busy = false;
    unsynced_release(store);
    extents->state = commit->state;
    if (err == ERR_AGAIN) { /* no reader is at work: they are on this thread */
        err = backend->grow(commit->state);
        if (err == ERR_NONE) {
            commit_start(store);
            return;
        }
    }
    state_batch_done(&commit->batch);
    commit->built = false;
    if (err != ERR_NONE) {
        checkpoint_failed(store, err);
    } else {
        extents->meta = commit->meta;
        if (extents->reader == NULL)
            err = backend->reader_open(extents->state, &extents->reader);
        if (err == ERR_NONE)
            err = table_update(store);
        if (err != ERR_NONE) { /* it is committed, but this store cannot follow */
            store_fail(store, err);
            return;
        }
        if (store->journal.synced < checkpoint->end)
            store->journal.synced = checkpoint->end;
        checkpoint->phase = CHECKPOINT_OBJECTS;
        if (commit->last)
            committed_last(store);
    }
    checkpoint_advance(store);
}

/* With durability os: the files whose bytes the transaction depends on. */
static bool unsynced_gather(struct store *store)
{
    struct commit *commit = &store->checkpoint.commit;
    struct journal *journal = &store->journal;
    if (store->config.sync)
        return true;
    list_each(node, &journal->segments)
    {
        struct segment *segment = list_entry(node, struct segment, link);
        if (segment->file == NULL || segment->end <= journal->synced ||
            segment->start >= journal->written)
            continue;
        if (commit->unsynced_count == sizeof commit->unsynced / sizeof commit->unsynced[0])
            return false;
        segment->refs++;
        commit->unsynced[commit->unsynced_count++] = segment;
    }
    return true;
}

static bool extents_snapshot(struct store *store)
{
    struct commit *commit = &store->checkpoint.commit;
    struct extents *extents = &store->extents;
    free(commit->extents);
    uint64_t made = store->checkpoint.next_extent - extents->meta.next_extent;
    commit->extents = malloc((extents->count + made + 1) * sizeof *commit->extents);
    if (commit->extents == NULL)
        return false;
    for (uint32_t i = 0; i < extents->count; i++)
        commit->extents[i] = (struct commit_extent){.info = extents->files[i]->info};
    commit->extent_count = extents->count;
    return true;
}

void commit_start(struct store *store)
{
    struct checkpoint *checkpoint = &store->checkpoint;
    struct commit *commit = &checkpoint->commit;
    if (!commit->built && (!unsynced_gather(store) || !extents_snapshot(store))) {
        unsynced_release(store);
        checkpoint_failed(store, ERR_NO_MEMORY);
        return;
    }
    commit->store = store;
    commit->state = store->extents.state != NULL ? store->extents.state : commit->state;
    commit->meta = store->extents.meta;
    if (commit->meta.least_end < checkpoint->end)
        commit->meta.least_end = checkpoint->end;
    if (commit->last) {
        commit->meta.chain = checkpoint->chain;
        commit->meta.position = checkpoint->position;
        commit->meta.index = checkpoint->index;
        if (checkpoint->writer.file != NULL || checkpoint->named)
            commit->meta.next_extent = checkpoint->next_extent;
    }
    commit->busy = true;
    commit->op.done = commit_done;
    disk_run(store->config.disk, commit_run, &commit->op);
}

void commit_done_all(struct store *store)
{
    struct commit *commit = &store->checkpoint.commit;
    if (commit->reader != NULL)
        store->config.state->reader_close(commit->reader);
    if (store->extents.state == NULL) /* opened by a commit that never came back */
        store->extents.state = commit->state;
    state_batch_done(&commit->batch);
    free(commit->extents);
    free(commit->holes);
}
