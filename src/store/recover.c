/* Start-up: reads the journal's frames from the checkpoint's position on and hands their records to
 * replay, building the blocks and, through the owner's stream_add, the index, as if the records had
 * just been appended.
 *
 * The journal ends where the next frame is missing, damaged, or does not follow the one before it
 * (position, index, chain). What stands there then is either a torn write, never confirmed to
 * anybody, and is cut; or rot. They are told apart by what stands behind: a valid frame says up to
 * where everything had been synced when it was written, and if that lies behind the damage, the
 * damaged frame had been safe once. Then the cell refuses to open. Remains of a torn write can stay
 * in the file, because no later frame's chain leads to them. */
#include "store/damage.h"
#include "store/inside.h"
#include "store/path.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILES_MAX 65536u

struct recovery {
    struct store *store;
    uint64_t *starts; /* of the journal files, sorted */
    uint32_t files, room;
    bool fresh, spare, spill; /* journal-new, journal-spare, spill stand there */
    enum err err;
    uint64_t at; /* the next frame's position */
    uint64_t index;
    uint32_t chain;
};

static void file_note(void *ctx, const char *name)
{
    struct recovery *recovery = ctx;
    recovery->fresh |= strcmp(name, "journal-new") == 0;
    recovery->spare |= strcmp(name, "journal-spare") == 0;
    recovery->spill |= strcmp(name, "spill") == 0;
    uint64_t start;
    if (!path_number(name, "journal", &start) || recovery->err != ERR_NONE)
        return;
    if (recovery->files == recovery->room) {
        uint32_t room = recovery->room == 0 ? 16 : recovery->room * 2;
        uint64_t *starts =
            room > FILES_MAX ? NULL : realloc(recovery->starts, room * sizeof *starts);
        if (starts == NULL) {
            recovery->err = ERR_NO_MEMORY;
            return;
        }
        recovery->starts = starts;
        recovery->room = room;
    }
    recovery->starts[recovery->files++] = start;
}

static int start_compare(const void *a, const void *b)
{
    uint64_t left, right;
    memcpy(&left, a, sizeof left);
    memcpy(&right, b, sizeof right);
    return (left > right) - (left < right);
}

/* Offset in the file of a position. */
static uint64_t offset_of(const struct segment *segment, uint64_t position)
{
    return JOURNAL_HEADER_BYTES + (position - segment->start);
}

static enum err segment_open(struct recovery *recovery, uint32_t file, struct segment **out)
{
    struct store *store = recovery->store;
    uint64_t start = recovery->starts[file];
    char path[PATH_BYTES];
    store_path(store, "journal", start, path);
    struct segment *segment = segment_create(store, start, start + store->config.segment_bytes);
    if (segment == NULL)
        return ERR_NO_MEMORY;
    segment->once = segment->recovered = true;
    uint64_t bytes = 0;
    size_t got = 0;
    uint8_t header[JOURNAL_HEADER_BYTES];
    struct journal_header found;
    enum err err = disk_open(store->config.disk, path, false, &segment->file);
    if (err == ERR_NONE && store->config.sync)
        disk_bypass(segment->file, path);
    if (err == ERR_NONE)
        err = disk_size(segment->file, &bytes);
    if (err == ERR_NONE)
        err = disk_read_sync(segment->file, header, sizeof header, 0, &got);
    if (err != ERR_NONE) {
        store_explain(store, "%s: cannot be read", path);
        return err;
    }
    if (got < sizeof header || !journal_header_get(header, &found) || found.start != start ||
        found.cell != store->config.cell) {
        store_explain(store, "%s: damaged header at byte 0", path);
        return ERR_CORRUPT;
    }
    segment->allocated = start + (bytes - JOURNAL_HEADER_BYTES);
    if (segment->limit < segment->allocated)
        segment->limit = segment->allocated;
    if (file + 1 < recovery->files)
        segment->limit = recovery->starts[file + 1];
    if (segment->allocated > segment->limit)
        segment->allocated = segment->limit;
    *out = segment;
    return ERR_NONE;
}

static bool frame_follows(const struct recovery *recovery, const struct frame *frame)
{
    return frame->position == recovery->at && frame->index == recovery->index &&
           frame->chain == recovery->chain;
}

static enum err frame_replay(struct recovery *recovery, const struct block *block,
                             const struct frame *frame)
{
    struct store *store = recovery->store;
    const uint8_t *data = block_at(block, frame->position), *record;
    uint32_t at = 0, len, records = 0;
    while (frame_next(data, frame, &at, &record, &len)) {
        uint64_t pos = frame->position + (uint64_t)(record - data);
        struct slice slice = {.data = record, .len = len};
        enum err err = store->handler->replay(store->ctx, pos, slice);
        if (err != ERR_NONE) {
            store_explain(store, "record at journal position %" PRIu64 " cannot be applied", pos);
            return err;
        }
        records++;
    }
    if (at == UINT32_MAX || records != frame->records) {
        store_explain(store, "frame at journal position %" PRIu64 " holds impossible records",
                      frame->position);
        return ERR_CORRUPT;
    }
    return ERR_NONE;
}

/* Fills the block from the file, with at least one whole frame if one is there. */
static enum err block_fill(struct recovery *recovery, struct segment *segment, size_t capacity,
                           struct block **out, size_t *got)
{
    struct store *store = recovery->store;
    struct block *block;
    enum err err = block_open(store, true, recovery->at, capacity, &block);
    if (err != ERR_NONE)
        return err;
    block->segment = segment;
    *out = block;
    uint64_t room = segment->allocated - recovery->at;
    err = disk_read_sync(segment->file, block->buf->data, room < capacity ? room : capacity,
                         offset_of(segment, recovery->at), got);
    if (err != ERR_NONE)
        store_explain(store,
                      "journal file of position %" PRIu64 ": cannot be read at byte %" PRIu64,
                      segment->start, offset_of(segment, recovery->at));
    return err;
}

/* Replays the frames that follow in one segment, a block at a time, until none does. */
static enum err segment_replay(struct recovery *recovery, struct segment *segment)
{
    struct store *store = recovery->store;
    size_t capacity = BLOCK_BYTES;
    while (recovery->at + FRAME_HEADER_BYTES <= segment->allocated) {
        struct block *block = NULL;
        size_t got = 0;
        enum err err = block_fill(recovery, segment, capacity, &block, &got);
        if (block == NULL)
            return err;
        capacity = BLOCK_BYTES;
        uint64_t begin = recovery->at, filled = begin + got;
        struct frame frame;
        while (err == ERR_NONE && recovery->at + FRAME_HEADER_BYTES <= filled &&
               frame_check(block_at(block, recovery->at), filled - recovery->at, &frame) &&
               frame_follows(recovery, &frame)) {
            block->end = block->closed = block->written = recovery->at + frame_bytes(frame.body);
            err = frame_replay(recovery, block, &frame);
            recovery->at = block->end;
            recovery->index = frame.index + 1;
            recovery->chain = frame.crc;
        }
        bool larger = err == ERR_NONE && recovery->at == begin && got == BLOCK_BYTES &&
                      frame_peek(block->buf->data, segment->allocated - begin, &frame) &&
                      frame_follows(recovery, &frame) && frame_bytes(frame.body) > got;
        bool end = recovery->at == begin;
        block_seal(store, block);
        block_evict(store);
        if (larger)
            capacity = frame_bytes(frame.body);
        else if (err != ERR_NONE || end)
            return err;
    }
    return ERR_NONE;
}

static void segment_forget(struct segment *segment)
{
    list_remove(&segment->link);
    if (segment->file != NULL)
        disk_close(segment->file);
    free(segment);
}

/* Nothing follows at recovery->at, which lies in `last` (NULL: in a file that is gone). Is that the
 * end, or damage? Searches what stands behind it there, and the files from `file` on. */
static enum err end_judge(struct recovery *recovery, struct segment *last, uint32_t file)
{
    struct store *store = recovery->store;
    uint64_t bad = recovery->at, found = 0;
    enum err err = ERR_NONE;
    if (last != NULL)
        err =
            damage_proof(last->file, last->start, last->allocated, bad + FRAME_ALIGN, bad, &found);
    for (; err == ERR_NONE && found == 0 && file < recovery->files; file++) {
        struct segment *segment;
        err = segment_open(recovery, file, &segment);
        if (err != ERR_NONE)
            return err;
        err = damage_proof(segment->file, segment->start, segment->allocated, segment->start, bad,
                           &found);
        segment_forget(segment);
    }
    if (err != ERR_NONE || found == 0)
        return err;
    if (last != NULL) {
        char path[PATH_BYTES];
        store_path(store, "journal", last->start, path);
        store_explain(store,
                      "%s: damaged frame at byte %" PRIu64
                      ", but valid ones behind it (journal position %" PRIu64 ")",
                      path, offset_of(last, bad), found);
    } else {
        store_explain(store, "%s: the journal file that holds position %" PRIu64 " is missing",
                      store->path, bad);
    }
    return ERR_CORRUPT;
}

/* Does the file's first frame continue the journal? */
static enum err file_follows(struct recovery *recovery, uint32_t file, bool *out)
{
    struct segment *segment;
    *out = false;
    enum err err = segment_open(recovery, file, &segment);
    if (err != ERR_NONE)
        return err;
    uint8_t header[FRAME_HEADER_BYTES];
    size_t got = 0;
    err = disk_read_sync(segment->file, header, sizeof header, JOURNAL_HEADER_BYTES, &got);
    struct frame frame;
    if (err == ERR_NONE && got == sizeof header &&
        frame_peek(header, segment->allocated - segment->start, &frame) &&
        frame.position == segment->start && frame.index == recovery->index &&
        frame.chain == recovery->chain) {
        size_t bytes = frame_bytes(frame.body);
        uint8_t *data = malloc(bytes);
        if (data == NULL)
            err = ERR_NO_MEMORY;
        else
            err = disk_read_sync(segment->file, data, bytes, JOURNAL_HEADER_BYTES, &got);
        *out = err == ERR_NONE && frame_check(data, got, &frame);
        free(data);
    }
    segment_forget(segment);
    return err;
}

static enum err files_remove(struct recovery *recovery, uint32_t from, uint32_t to)
{
    struct store *store = recovery->store;
    char path[PATH_BYTES];
    enum err err = ERR_NONE;
    for (uint32_t i = from; i < to && err == ERR_NONE; i++) {
        store_path(store, "journal", recovery->starts[i], path);
        err = disk_remove(store->config.disk, path);
    }
    return err;
}

/* Replays from recovery->at. *last = the file the journal ends in. */
static enum err files_replay(struct recovery *recovery, uint32_t file, uint32_t *last)
{
    struct journal *journal = &recovery->store->journal;
    for (;; file++) {
        struct segment *segment;
        enum err err = segment_open(recovery, file, &segment);
        if (err != ERR_NONE)
            return err;
        journal->current = segment;
        if (recovery->at < segment->start)
            recovery->at = segment->start;
        err = segment_replay(recovery, segment);
        if (err == ERR_NONE)
            err = disk_sync(segment->file);
        bool follows = false;
        if (err == ERR_NONE && file + 1 < recovery->files)
            err = file_follows(recovery, file + 1, &follows);
        *last = file;
        if (err == ERR_NONE && !follows)
            err = end_judge(recovery, segment, file + 1);
        if (err != ERR_NONE || !follows)
            return err;
        segment->end = recovery->at;
    }
}

/* The file that holds recovery->at; when there is none, the first one behind it; else
 * recovery->files. A checkpoint at the very end of a file frees that file, and a crash may leave
 * older ones. */
static enum err file_find(struct recovery *recovery, uint32_t *out)
{
    uint32_t first = 0;
    while (first + 1 < recovery->files && recovery->starts[first + 1] <= recovery->at)
        first++;
    if (recovery->files > 0 && recovery->starts[first] <= recovery->at) {
        struct segment *segment;
        enum err err = segment_open(recovery, first, &segment);
        if (err != ERR_NONE)
            return err;
        first += segment->allocated < recovery->at;
        segment_forget(segment);
    }
    *out = first;
    return ERR_NONE;
}

static enum err files_recover(struct recovery *recovery)
{
    uint32_t first = 0;
    enum err found = file_find(recovery, &first);
    if (found != ERR_NONE)
        return found;
    if (first == recovery->files)
        return files_remove(recovery, 0, recovery->files);
    if (recovery->starts[first] > recovery->at) {
        bool follows = false;
        enum err err = file_follows(recovery, first, &follows);
        if (err == ERR_NONE && !follows)
            err = end_judge(recovery, NULL, first);
        if (err != ERR_NONE || !follows)
            return err != ERR_NONE ? err : files_remove(recovery, 0, recovery->files);
    }
    uint32_t last = first;
    enum err err = files_replay(recovery, first, &last);
    if (err == ERR_NONE)
        err = files_remove(recovery, 0, first);
    if (err == ERR_NONE)
        err = files_remove(recovery, last + 1, recovery->files);
    return err;
}

static enum err leftover_remove(struct store *store, const char *name)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", store->path, name);
    return disk_remove(store->config.disk, path);
}

enum err recover_journal(struct store *store, uint64_t position, uint64_t index, uint32_t chain,
                         uint64_t least_end)
{
    struct recovery recovery = {.store = store, .at = position, .index = index, .chain = chain};
    struct disk *disk = store->config.disk;
    enum err err = disk_list(disk, store->path, file_note, &recovery);
    if (err == ERR_NOT_FOUND)
        err = ERR_NONE;
    if (err == ERR_NONE)
        err = recovery.err;
    if (recovery.files > 0)
        qsort(recovery.starts, recovery.files, sizeof *recovery.starts, start_compare);
    if (err == ERR_NONE)
        err = files_recover(&recovery);
    if (err == ERR_NONE && recovery.at < least_end) {
        store_explain(store,
                      "%s: the journal ends at position %" PRIu64 ", but changes up to %" PRIu64
                      " had been stored",
                      store->path, recovery.at, least_end);
        err = ERR_CORRUPT;
    }
    if (err == ERR_NONE && recovery.fresh)
        err = leftover_remove(store, "journal-new");
    if (err == ERR_NONE && recovery.spill)
        err = leftover_remove(store, "spill");
    if (err == ERR_NONE && recovery.files > 0)
        err = disk_sync_folder(disk, store->path);
    free(recovery.starts);
    if (err != ERR_NONE)
        return err;
    struct journal *journal = &store->journal;
    journal->spares = recovery.spare;
    journal->end = journal->written = journal->synced = journal->committed = recovery.at;
    journal->frame_start = recovery.at;
    journal->at = recovery.at + FRAME_HEADER_BYTES;
    journal->index = recovery.index;
    journal->chain = recovery.chain;
    journal->sealed_index = recovery.index;
    journal->mark = (struct journal_mark){
        .position = recovery.at, .index = recovery.index, .chain = recovery.chain};
    return ERR_NONE;
}
