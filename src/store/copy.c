/* The checkpoint's copying: walks the streams that have rows, a piece at a time on the shard's
 * thread (asking the core which entries are live), and has a job write each piece into the new
 * extent. An entry whose block left memory is read from the journal file by the job, which checks
 * the block's frames once, so that damage is never copied under a fresh checksum. Large entries
 * stay where they are (keep.c): of them only the checksum is made. */
#include "store/checkpoint.h"

#include "store/inside.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define COPY_STREAMS 2048 /* looked at in one piece */

static bool array_room(void **array, uint32_t *room, uint32_t used, size_t size)
{
    if (used < *room)
        return true;
    uint32_t grown = *room == 0 ? 64 : *room * 2;
    void *data = realloc(*array, grown * size);
    if (data == NULL)
        return false;
    *array = data;
    *room = grown;
    return true;
}

/* ---- Gathering, on the shard's thread ---- */

static bool source_add(struct store *store, struct block *block, uint32_t *out)
{
    struct copy *copy = &store->checkpoint.copy;
    for (uint32_t i = copy->source_count; i > 0 && i + 8 > copy->source_count; i--) {
        if (copy->sources[i - 1].block == block) {
            *out = i - 1;
            return true;
        }
    }
    if (!array_room((void **)&copy->sources, &copy->source_room, copy->source_count,
                    sizeof *copy->sources))
        return false;
    struct segment *segment = block->segment;
    segment->refs++;
    *out = copy->source_count++;
    copy->sources[*out] =
        (struct copy_source){.block = block,
                             .segment = segment,
                             .file = segment->file,
                             .start = block->start,
                             .bytes = block->end - block->start,
                             .file_offset = JOURNAL_HEADER_BYTES + (block->start - segment->start),
                             .sound = block->sound_for == store->checkpoint.position};
    return true;
}

static bool buf_hold(struct copy *copy, struct buf *buf)
{
    if (copy->held_count > 0 && copy->held[copy->held_count - 1] == buf)
        return true;
    if (!array_room((void **)&copy->held, &copy->held_room, copy->held_count, sizeof *copy->held))
        return false;
    copy->held[copy->held_count++] = buf_ref(buf);
    return true;
}

static bool row_add(struct store *store, const struct stream *stream, const struct stream_row *row)
{
    struct copy *copy = &store->checkpoint.copy;
    struct block_log *log = &store->logs[true];
    struct block *block = block_find(log, &log->copy_hint, row->pos);
    assert(block != NULL);
    struct copy_entry entry = {.stream = stream->id,
                               .base = row->base,
                               .pos = row->pos,
                               .count = row->count,
                               .len = row->len,
                               .sum = UINT64_MAX,
                               .peak_ms = INT64_MIN};
    if (stream->is_log)
        (void)keep_entry(store, block->segment, &entry);
    bool added;
    if (block->buf != NULL) {
        entry.data = block_at(block, row->pos);
        added = buf_hold(copy, block->buf);
    } else {
        added = source_add(store, block, &entry.source);
    }
    if (added) {
        copy->entries[copy->count++] = entry;
        copy->bytes += row->len;
    }
    return added;
}

/* Copies what is left of one stream, as far as the piece has room. True when it is done. */
static bool stream_copy(struct store *store, struct stream *stream, bool *failed)
{
    struct checkpoint *checkpoint = &store->checkpoint;
    struct copy *copy = &checkpoint->copy;
    uint32_t asked = 0;
    for (uint32_t i = stream_row_find(stream, checkpoint->base); i < stream->used; i++) {
        const struct stream_row *row = stream_row_at(stream, i);
        if (row->pos >= STORE_VOLATILE) /* dead ones too */
            continue;
        if (row->pos >= checkpoint->position)
            return true;
        if (copy->count == COPY_ENTRIES || copy->bytes >= COPY_BYTES || asked == COPY_ENTRIES) {
            checkpoint->base = row->base;
            return false;
        }
        asked++;
        if (!store->handler->entry_live(store->ctx, stream->id, row->base, row->count))
            continue;
        if (!row_add(store, stream, row)) {
            *failed = true;
            return false;
        }
        stream->copied_end = row->base + row->count;
    }
    return true;
}

static enum err piece_gather(struct store *store)
{
    struct checkpoint *checkpoint = &store->checkpoint;
    struct copy *copy = &checkpoint->copy;
    if (copy->entries == NULL)
        copy->entries = malloc(COPY_ENTRIES * sizeof *copy->entries);
    if (copy->entries == NULL)
        return ERR_NO_MEMORY;
    for (int i = 0; i < COPY_STREAMS; i++) {
        if (checkpoint->stream == NULL) {
            if (checkpoint->at == &store->indexed)
                break;
            checkpoint->stream = list_entry(checkpoint->at, struct stream, indexed);
            checkpoint->at = checkpoint->at->next;
            checkpoint->base = 0;
        }
        bool failed = false;
        if (!stream_copy(store, checkpoint->stream, &failed))
            return failed ? ERR_NO_MEMORY : ERR_NONE;
        checkpoint->stream = NULL;
    }
    return ERR_NONE;
}

/* ---- The job, on a helper ---- */

static bool room_for(uint8_t **data, size_t *room, size_t bytes)
{
    if (*room >= bytes)
        return true;
    free(*data);
    *data = malloc(bytes);
    *room = *data == NULL ? 0 : bytes;
    return *data != NULL;
}

static bool frames_sound(const uint8_t *data, const struct copy_source *source)
{
    for (uint64_t at = 0; at < source->bytes;) {
        struct frame frame;
        if (!frame_check(data + at, source->bytes - at, &frame) ||
            frame.position != source->start + at)
            return false;
        at += frame_bytes(frame.body);
    }
    return true;
}

/* The bytes of an entry that is not in memory. *current = the source that scratch holds. */
static enum err entry_read(struct copy *copy, const struct copy_entry *entry,
                           const struct copy_source **current, const uint8_t **out)
{
    struct copy_source *source = &copy->sources[entry->source];
    uint64_t within = entry->pos - source->start;
    size_t got = 0;
    if (*current == source) {
        *out = copy->scratch + within;
        return ERR_NONE;
    }
    if (source->sound) {
        if (!room_for(&copy->entry, &copy->entry_room, entry->len))
            return ERR_NO_MEMORY;
        *out = copy->entry;
        enum err err = disk_read_sync(source->file, copy->entry, entry->len,
                                      source->file_offset + within, &got);
        return err == ERR_NONE && got < entry->len ? ERR_CORRUPT : err;
    }
    *current = NULL;
    if (!room_for(&copy->scratch, &copy->scratch_room, source->bytes))
        return ERR_NO_MEMORY;
    enum err err =
        disk_read_sync(source->file, copy->scratch, source->bytes, source->file_offset, &got);
    if (err == ERR_NONE && (got < source->bytes || !frames_sound(copy->scratch, source)))
        err = ERR_CORRUPT;
    if (err != ERR_NONE)
        return err;
    source->sound = true;
    *current = source;
    *out = copy->scratch + within;
    return ERR_NONE;
}

static enum err entries_write(struct copy *copy, struct extent_writer *writer)
{
    const struct copy_source *current = NULL;
    enum err err = ERR_NONE;
    for (uint32_t i = 0; i < copy->count && err == ERR_NONE; i++) {
        const struct copy_entry *entry = &copy->entries[i];
        const uint8_t *data = entry->data;
        if (data == NULL)
            err = entry_read(copy, entry, &current, &data);
        struct extent_entry out = {
            .base = entry->base, .count = entry->count, .data = {.data = data, .len = entry->len}};
        if (err == ERR_NONE && entry->extent != 0)
            err = extent_writer_keep(writer, entry->stream, &out, entry->extent, entry->offset);
        else if (err == ERR_NONE)
            err = extent_writer_add(writer, entry->stream, &out, entry->sum, entry->peak_ms);
    }
    return err;
}

static void copy_run(struct disk_op *op)
{
    struct copy *copy = list_entry(op, struct copy, op);
    struct checkpoint *checkpoint = list_entry(copy, struct checkpoint, copy);
    struct store *store = list_entry(checkpoint, struct store, checkpoint);
    struct extent_writer *writer = &checkpoint->writer;
    op->err = entries_write(copy, writer);
    if (op->err == ERR_NONE && copy->finish) {
        op->err = extent_writer_finish(writer);
        if (op->err == ERR_NONE && (writer->file != NULL || checkpoint->named))
            op->err = disk_sync_folder(store->config.disk, store->path);
    }
}

/* ---- Back on the shard's thread ---- */

static void piece_release(struct store *store)
{
    struct copy *copy = &store->checkpoint.copy;
    for (uint32_t i = 0; i < copy->held_count; i++)
        buf_recycle(store, copy->held[i]);
    for (uint32_t i = 0; i < copy->source_count; i++) {
        struct copy_source *source = &copy->sources[i];
        struct block *block = block_find(&store->logs[true], &store->logs[true].copy_hint,
                                         source->start); /* it may be gone by now */
        if (block == source->block && source->sound)
            block->sound_for = store->checkpoint.position;
        segment_unref(store, source->segment);
    }
    copy_clear(copy);
}

static void copy_done(struct disk_op *op)
{
    struct copy *copy = list_entry(op, struct copy, op);
    struct checkpoint *checkpoint = list_entry(copy, struct checkpoint, copy);
    struct store *store = list_entry(checkpoint, struct store, checkpoint);
    copy->busy = false;
    piece_release(store);
    if (op->err != ERR_NONE)
        checkpoint_failed(store, op->err);
    else if (copy->finish)
        checkpoint->phase = CHECKPOINT_OBJECTS;
    copy->finish = false;
    checkpoint_advance(store);
}

void copy_clear(struct copy *copy)
{
    copy->held_count = copy->source_count = copy->count = 0;
    copy->bytes = 0;
}

void copy_job_start(struct store *store)
{
    struct copy *copy = &store->checkpoint.copy;
    copy->busy = true;
    copy->op.done = copy_done;
    disk_run(store->config.disk, copy_run, &copy->op);
}

bool copy_piece(struct store *store)
{
    struct checkpoint *checkpoint = &store->checkpoint;
    enum err err = piece_gather(store);
    if (err != ERR_NONE) {
        piece_release(store);
        checkpoint_failed(store, err);
        return true;
    }
    if (checkpoint->copy.count > 0) {
        copy_job_start(store);
        return true;
    }
    return checkpoint->stream != NULL || checkpoint->at != &store->indexed;
}

void copy_finish(struct store *store)
{
    store->checkpoint.copy.finish = true;
    copy_job_start(store);
}

void copy_done_all(struct store *store)
{
    struct copy *copy = &store->checkpoint.copy;
    for (uint32_t i = 0; i < copy->held_count; i++)
        buf_unref(copy->held[i]);
    free(copy->entries);
    free(copy->sources);
    free(copy->held);
    free(copy->scratch);
    free(copy->entry);
}
