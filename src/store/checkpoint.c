/* A checkpoint's course. It begins at a mark, the journal's end at that moment, when a journal file
 * has become full, some time has passed, or the store is to stop; then, in small pieces between
 * which work goes on:
 *
 *   COPY     live entries before the mark are written, stream by stream, into a new extent
 *   REWRITE  live entries of mostly dead extents follow them
 *   FINISH   the extent is completed and synced
 *   OBJECTS  the core hands out what changed; a large number goes in several transactions
 *   WAIT     until the journal is safe up to what those objects may reflect
 *   COMMIT   one transaction: objects, extent index, journal position
 *   LEAVE    rows before the mark leave the index; journal files and dead extents are freed
 *
 * When a step fails for want of room or memory, the half-made extent is removed, the core counts
 * what it handed out as changed again, and another attempt follows after a while. So it is when the
 * journal has no room to write what it accepted: the checkpoint would wait for it in WAIT, and the
 * journal perhaps for the room that the half-made extent takes. A failing disk fails the store. A
 * crash at any point leaves the previous checkpoint in force. */
#include "store/checkpoint.h"

#include "store/inside.h"

#include <assert.h>
#include <stdlib.h>

#define OBJECTS_PIECE   2000
#define OBJECTS_BYTES   (8u * 1024 * 1024) /* in one transaction, about */
#define LEAVE_PIECE     2000
#define RETRY_MS        1000
#define RETRY_DOUBLINGS 4
#define DRAINED_BYTES   (UINT64_C(128) << 20) /* of extents: then a checkpoint frees them */

static bool trim_add(struct checkpoint *checkpoint, uint64_t stream, uint64_t first)
{
    if (checkpoint->trim_count == checkpoint->trim_room) {
        uint64_t room = checkpoint->trim_room == 0 ? 64 : checkpoint->trim_room * 2;
        struct trim *trims = realloc(checkpoint->trims, room * sizeof *trims);
        if (trims == NULL)
            return false;
        checkpoint->trims = trims;
        checkpoint->trim_room = room;
    }
    checkpoint->trims[checkpoint->trim_count++] = (struct trim){.stream = stream, .first = first};
    return true;
}

/* A stream whose id is never used again is gone. The job owns the list while it runs. */
void checkpoint_drop(struct store *store, uint64_t stream)
{
    struct checkpoint *checkpoint = &store->checkpoint;
    struct drops *drops = &checkpoint->drops;
    if (drops->count == drops->room) {
        uint64_t room = drops->room == 0 ? 64 : drops->room * 2;
        uint64_t *streams = realloc(drops->streams, room * sizeof *streams);
        if (streams == NULL) { /* its blocks would never go: rather stop than leak silently */
            store_fail(store, ERR_NO_MEMORY);
            return;
        }
        drops->streams = streams;
        drops->room = room;
    }
    drops->streams[drops->count++] = stream;
}

/* The stream's ring goes. */
void checkpoint_stream_leaves(struct stream *stream)
{
    struct checkpoint *checkpoint = &stream->store->checkpoint;
    if (checkpoint->at == &stream->indexed)
        checkpoint->at = stream->indexed.next;
    if (checkpoint->stream == stream)
        checkpoint->stream = NULL;
    if (stream->copied_end > stream->stored_end)
        stream->stored_end = stream->copied_end;
}

/* It has just asked for room and there was none. */
static bool journal_stuck(const struct store *store)
{
    return journal_starves(store) && store->now_ms < store->journal.probe_at;
}

/* ---- Phases ---- */

static void begin(struct store *store)
{
    struct checkpoint *checkpoint = &store->checkpoint;
    const struct journal_mark *mark = &store->journal.mark;
    checkpoint->position = mark->position;
    checkpoint->index = mark->index;
    checkpoint->chain = mark->chain;
    checkpoint->at = store->indexed.next;
    checkpoint->stream = NULL;
    checkpoint->handed_out = false;
    checkpoint->more = true;
    checkpoint->phase = CHECKPOINT_COPY;
    checkpoint->last_ms = store->now_ms;
    store->extents.drained_bytes = 0;
    checkpoint->commit.built = checkpoint->commit.last = false;
    struct extent_writer *writer = &checkpoint->writer;
    *writer = (struct extent_writer){.disk = store->config.disk};
    checkpoint->next_extent = store->extents.meta.next_extent;
    checkpoint->named = false;
    writer->header =
        (struct extent_header){.cell = store->config.cell, .number = checkpoint->next_extent++};
    store_path(store, "extent", writer->header.number, writer->path);
    rewrite_begin(store);
}

void checkpoint_failed(struct store *store, enum err err)
{
    struct checkpoint *checkpoint = &store->checkpoint;
    if (checkpoint->writer.file != NULL) {
        char path[PATH_BYTES];
        store_path(store, "extent", checkpoint->writer.header.number, path);
        enum err gone = disk_remove(store->config.disk, path);
        if (gone == ERR_IO && (err == ERR_DISK_FULL || err == ERR_NO_MEMORY))
            err = gone;
    }
    extent_writer_done(&checkpoint->writer);
    keep_undo(store);
    rewrite_begin(store);
    copy_clear(&checkpoint->copy);
    state_batch_done(&checkpoint->commit.batch);
    if (checkpoint->handed_out)
        store->handler->changes_lost(store->ctx);
    checkpoint->phase = CHECKPOINT_IDLE;
    checkpoint->retry_at = store->now_ms + (RETRY_MS << checkpoint->failures);
    checkpoint->failures += checkpoint->failures < RETRY_DOUBLINGS;
    checkpoint->last_ms = checkpoint->retry_at - (int64_t)store->config.checkpoint_ms;
    checkpoint->stop_err = err;
    if (err != ERR_DISK_FULL && err != ERR_NO_MEMORY)
        store_fail(store, err);
}

/* Trims and drops as they are now: objects handed out so far reflect no others. */
static bool trims_gather(struct store *store)
{
    struct checkpoint *checkpoint = &store->checkpoint;
    while (!list_empty(&store->trimmed)) {
        struct stream *stream = list_entry(store->trimmed.next, struct stream, trimmed);
        if (!trim_add(checkpoint, stream->id, stream->first))
            return false;
        list_remove(&stream->trimmed);
    }
    struct drops *drops = &checkpoint->drops;
    while (drops->count > 0) {
        if (!trim_add(checkpoint, drops->streams[drops->count - 1], UINT64_MAX))
            return false;
        drops->count--;
    }
    return true;
}

static void objects_piece(struct store *store)
{
    struct checkpoint *checkpoint = &store->checkpoint;
    struct commit *commit = &checkpoint->commit;
    struct store_object object;
    checkpoint->handed_out = true;
    for (int i = 0; i < OBJECTS_PIECE && commit->batch.used < OBJECTS_BYTES; i++) {
        checkpoint->more = store->handler->next_changed(store->ctx, &object);
        if (!checkpoint->more)
            break;
        if (object.kind == 0) {
            checkpoint_failed(store, ERR_NO_MEMORY);
            return;
        }
        index_object_put(&commit->batch, object.kind, object.id, object.value);
    }
    if (checkpoint->more && commit->batch.used < OBJECTS_BYTES)
        return;
    commit->last = !checkpoint->more;
    if (commit->batch.failed || !trims_gather(store)) {
        checkpoint_failed(store, ERR_NO_MEMORY);
        return;
    }
    checkpoint->end = store_end(store);
    checkpoint->phase = CHECKPOINT_WAIT;
    store_flush(store, false);
}

static void leave_piece(struct store *store)
{
    struct checkpoint *checkpoint = &store->checkpoint;
    for (int i = 0; i < LEAVE_PIECE; i++) {
        if (checkpoint->at == &store->indexed) {
            segment_free_below(store, checkpoint->position);
            extents_sweep(store);
            checkpoint->phase = CHECKPOINT_IDLE;
            return;
        }
        struct stream *stream = list_entry(checkpoint->at, struct stream, indexed);
        checkpoint->at = checkpoint->at->next;
        if (stream->copied_end > stream->stored_end)
            stream->stored_end = stream->copied_end;
        stream_rows_leave(stream, checkpoint->position);
    }
}

static bool due(const struct store *store)
{
    const struct checkpoint *checkpoint = &store->checkpoint;
    uint64_t position = store->journal.mark.position;
    if (store->config.state == NULL || store->failed != ERR_NONE ||
        store->now_ms < checkpoint->retry_at || position == store->extents.meta.position)
        return false;
    const struct segment *oldest = list_entry(store->journal.segments.next, struct segment, link);
    if (journal_starves(store)) /* it could not end */
        return false;
    return checkpoint->stopping ||
           (!list_empty(&store->journal.segments) && oldest->end <= position) ||
           store->extents.drained_bytes >= DRAINED_BYTES ||
           (store->durable_rows * sizeof(struct stream_row) >= store->config.memory_limit / 2 &&
            store->now_ms - checkpoint->last_ms >= RETRY_MS) ||
           (store->journal.full && store->now_ms - checkpoint->last_ms >= RETRY_MS) ||
           store->now_ms - checkpoint->last_ms >= (int64_t)store->config.checkpoint_ms;
}

/* ---- Stopping ---- */

/* Requests under way hold parts of the store. */
bool store_idle(const struct store *store)
{
    return !store->journal.writing && !store->journal.job.busy && !store->checkpoint.copy.busy &&
           !store->checkpoint.rewrite.busy && !store->checkpoint.commit.busy &&
           !store->remover.busy && store->spill.writing == 0 && store->loading == 0 &&
           list_empty(&store->extents.runs) && !store->kick_busy;
}

static void stop_finish(struct store *store, enum err err)
{
    struct checkpoint *checkpoint = &store->checkpoint;
    void (*done)(void *ctx, enum err err) = checkpoint->stop_done;
    checkpoint->stopping = false;
    store->stopped = true;
    done(checkpoint->stop_ctx, err);
}

/* Everything is in the state store and in extents: the next start has nothing to scan. */
static void journal_clear(struct store *store)
{
    const struct index_meta *meta = &store->extents.meta;
    if (store->config.state == NULL || store->journal.end != meta->position ||
        meta->least_end != meta->position || list_empty(&store->journal.segments))
        return;
    segment_remove_all(store);
}

static void stop_advance(struct store *store)
{
    struct checkpoint *checkpoint = &store->checkpoint;
    struct journal *journal = &store->journal;
    if (store->failed != ERR_NONE) {
        if (store_idle(store))
            stop_finish(store, store->failed);
    } else if (journal->written != journal->end) {
        if (journal_stuck(store) && store_idle(store)) /* what is confirmed is written */
            stop_finish(store, ERR_DISK_FULL);
        else
            store_flush(store, false);
    } else if (!store_idle(store)) {
        return;
    } else if (checkpoint->stop_err != ERR_NONE) {
        stop_finish(store, checkpoint->stop_err); /* the journal holds everything all the same */
    } else if (!due(store)) {
        journal_clear(store);
        if (store->remover.busy)
            return;
        stop_finish(store, store->failed);
    } else {
        begin(store);
        store_kick(store);
    }
}

void store_stop(struct store *store, void (*done)(void *ctx, enum err err), void *ctx)
{
    struct checkpoint *checkpoint = &store->checkpoint;
    checkpoint->stopping = true;
    checkpoint->stop_done = done;
    checkpoint->stop_ctx = ctx;
    checkpoint->stop_err = ERR_NONE;
    checkpoint->retry_at = 0;
    store_flush(store, false);
    store_kick(store);
}

/* ---- The course ---- */

static void phase_advance(struct store *store)
{
    struct checkpoint *checkpoint = &store->checkpoint;
    if (store->failed != ERR_NONE || checkpoint->copy.busy || checkpoint->rewrite.busy ||
        checkpoint->commit.busy)
        return;
    if (checkpoint->phase > CHECKPOINT_IDLE && checkpoint->phase < CHECKPOINT_COMMIT &&
        journal_stuck(store)) {
        checkpoint_failed(store, ERR_DISK_FULL);
        store->journal.probe_at = store->now_ms; /* there may be room now */
        return;
    }
    switch (checkpoint->phase) {
    case CHECKPOINT_IDLE:
        break;
    case CHECKPOINT_COPY:
        if (!copy_piece(store))
            checkpoint->phase = CHECKPOINT_REWRITE;
        break;
    case CHECKPOINT_REWRITE:
        if (!rewrite_piece(store))
            checkpoint->phase = CHECKPOINT_FINISH;
        break;
    case CHECKPOINT_FINISH:
        copy_finish(store);
        break;
    case CHECKPOINT_OBJECTS:
        objects_piece(store);
        break;
    case CHECKPOINT_WAIT:
        if (store->journal.committed < checkpoint->end)
            break;
        checkpoint->phase = CHECKPOINT_COMMIT;
        commit_start(store);
        break;
    case CHECKPOINT_COMMIT:
        break;
    case CHECKPOINT_LEAVE:
        leave_piece(store);
        break;
    }
}

/* One piece, and another turn of the loop for the next one if no job brings it. The store may be
 * gone when this returns: stopping ends here. */
void checkpoint_advance(struct store *store)
{
    struct checkpoint *checkpoint = &store->checkpoint;
    phase_advance(store);
    bool waits = checkpoint->copy.busy || checkpoint->rewrite.busy || checkpoint->commit.busy ||
                 (checkpoint->phase == CHECKPOINT_WAIT && !journal_stuck(store));
    if (checkpoint->phase != CHECKPOINT_IDLE && store->failed == ERR_NONE) {
        if (!waits || store->journal.committed >= checkpoint->end)
            store_kick(store);
    } else if (checkpoint->stopping) {
        stop_advance(store);
    }
}

void checkpoint_tick(struct store *store)
{
    struct checkpoint *checkpoint = &store->checkpoint;
    if (!checkpoint->started) {
        checkpoint->started = true;
        checkpoint->last_ms = store->now_ms;
    }
    if (checkpoint->stopping) {
        checkpoint_advance(store);
    } else if (checkpoint->phase == CHECKPOINT_IDLE && due(store)) {
        begin(store);
        store_kick(store);
    }
}

void checkpoint_done_all(struct store *store)
{
    struct checkpoint *checkpoint = &store->checkpoint;
    extent_writer_done(&checkpoint->writer);
    copy_done_all(store);
    rewrite_done_all(store);
    commit_done_all(store);
    free(checkpoint->trims);
    free(checkpoint->drops.streams);
}
