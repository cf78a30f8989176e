/* Verifying a cell offline. The state store is read first (what extents there are, how many rows
 * point into each), then each extent block by block, asking the index for each block, so that
 * memory is bounded by the number of extents; then the journal's frames from the checkpoint on. */
#include "store/verify.h"

#include "store/damage.h"
#include "store/format.h"
#include "store/index.h"
#include "store/path.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WINDOW_BYTES (1024u * 1024)

struct known_extent {
    struct index_extent info;
    uint64_t rows, row_bytes; /* that point into it */
    bool seen;                /* the file is there */
};

struct numbers {
    uint64_t *data;
    uint64_t count, room;
};

struct verify {
    struct disk *disk;
    const struct state_backend *backend;
    struct state_reader *reader;
    const char *path;
    uint32_t cell;
    struct verify_report *report;
    struct index_meta meta;
    struct known_extent *extents;
    uint64_t extent_count, extent_room;
    struct index_row last_row;
    bool any_row;
    bool meta_seen;
    uint64_t rows;      /* of the other tables */
    bool state_damaged; /* it cannot be relied on: what it points to is not looked at */
    struct numbers journals;
    struct disk_file *kept; /* the kept file looked at last, NULL: it is missing */
    uint64_t kept_number;   /* 0: none yet */
    enum err err;
    uint8_t *buffer;
    size_t buffer_room;
};

#define TEXT_BYTES 4600

__attribute__((format(printf, 3, 0))) static void text_put(const struct verify *verify, char *text,
                                                           const char *format, va_list list)
{
    int used = snprintf(text, TEXT_BYTES, "%s/", verify->path);
    vsnprintf(text + used, TEXT_BYTES - (size_t)used, format, list);
}

__attribute__((format(printf, 2, 3))) static void damage(struct verify *verify, const char *format,
                                                         ...)
{
    char text[TEXT_BYTES];
    va_list list;
    va_start(list, format);
    text_put(verify, text, format, list);
    va_end(list);
    verify->report->damaged++;
    verify->report->damage(verify->report->ctx, text);
}

__attribute__((format(printf, 2, 3))) static void doubt(struct verify *verify, const char *format,
                                                        ...)
{
    char text[TEXT_BYTES];
    va_list list;
    va_start(list, format);
    text_put(verify, text, format, list);
    va_end(list);
    verify->report->doubt(verify->report->ctx, text);
}

static bool buffer_reserve(struct verify *verify, size_t bytes)
{
    if (verify->buffer_room >= bytes)
        return true;
    uint8_t *buffer = realloc(verify->buffer, bytes);
    if (buffer == NULL)
        return false;
    verify->buffer = buffer;
    verify->buffer_room = bytes;
    return true;
}

/* ---- The state store ---- */

static struct known_extent *extent_known(struct verify *verify, uint64_t number)
{
    uint64_t low = 0, high = verify->extent_count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (verify->extents[middle].info.number == number)
            return &verify->extents[middle];
        if (verify->extents[middle].info.number < number)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static enum err extent_note(void *ctx, struct slice key, struct slice value)
{
    struct verify *verify = ctx;
    verify->rows++;
    struct index_extent info;
    if (!index_extent_get(key, value, &info)) {
        damage(verify, "state: damaged row of an extent");
        return ERR_NONE;
    }
    if (verify->extent_count == verify->extent_room) {
        uint64_t room = verify->extent_room == 0 ? 64 : verify->extent_room * 2;
        struct known_extent *extents = realloc(verify->extents, room * sizeof *extents);
        if (extents == NULL)
            return ERR_NO_MEMORY;
        verify->extents = extents;
        verify->extent_room = room;
    }
    verify->extents[verify->extent_count++] = (struct known_extent){.info = info};
    return ERR_NONE;
}

/* An entry that stayed in a journal file: no headers stand around it. */
static enum err kept_verify(struct verify *verify, const struct index_row *row)
{
    size_t got = 0;
    if (verify->kept_number != row->extent) {
        char path[4200];
        if (verify->kept != NULL)
            disk_close(verify->kept);
        verify->kept = NULL;
        verify->kept_number = row->extent;
        path_numbered(path, sizeof path, verify->path, "extent", row->extent);
        enum err err = disk_open(verify->disk, path, false, &verify->kept);
        if (err != ERR_NONE && err != ERR_NOT_FOUND)
            return err;
    }
    if (verify->kept == NULL)
        return ERR_NONE; /* said of the file */
    if (!buffer_reserve(verify, row->body))
        return ERR_NO_MEMORY;
    enum err err = disk_read_sync(verify->kept, verify->buffer, row->body, row->offset, &got);
    if (err == ERR_NONE && (got < row->body || crc32c(0, verify->buffer, row->body) != row->crc))
        damage(verify,
               "extent-%016" PRIx64 ": damaged entry at byte %" PRIu64 " (stream %" PRIu64
               ", offset %" PRIu64 ")",
               row->extent, row->offset, row->stream, row->base);
    return err;
}

static enum err row_note(void *ctx, struct slice key, struct slice value)
{
    struct verify *verify = ctx;
    verify->rows++;
    struct verify_report *report = verify->report;
    struct index_row row;
    if (!index_row_get(key, value, &row)) {
        damage(verify, "state: damaged row of a block");
        return ERR_NONE;
    }
    const struct index_row *last = &verify->last_row;
    bool same = verify->any_row && last->stream == row.stream;
    if (same && row.base < last->end)
        damage(verify, "state: blocks of stream %" PRIu64 " overlap at offset %" PRIu64, row.stream,
               row.base);
    report->streams += !same;
    report->blocks++;
    report->entries += row.count;
    report->entry_bytes += row.bytes;
    struct known_extent *extent = extent_known(verify, row.extent);
    if (extent == NULL) {
        damage(verify, "state: block %" PRIu64 " of stream %" PRIu64 " is in no known extent",
               row.base, row.stream);
    } else {
        extent->rows++;
        extent->row_bytes += index_row_bytes(&row);
        if (row.kept != (extent->info.bytes == 0))
            damage(verify,
                   "state: block %" PRIu64 " of stream %" PRIu64 " is in another kind of file",
                   row.base, row.stream);
    }
    verify->last_row = row;
    verify->any_row = true;
    return row.kept ? kept_verify(verify, &row) : ERR_NONE;
}

static enum err object_note(void *ctx, struct slice key, struct slice value)
{
    struct verify *verify = ctx;
    verify->rows++;
    uint8_t kind;
    uint64_t id;
    struct slice object;
    if (index_object_get(key, value, &kind, &id, &object))
        verify->report->objects[kind]++;
    else
        damage(verify, "state: damaged row of an object");
    return ERR_NONE;
}

static enum err table_each(struct verify *verify, char table,
                           enum err (*each)(void *ctx, struct slice key, struct slice value))
{
    uint8_t from = (uint8_t)table, to = (uint8_t)(table + 1);
    return verify->backend->each(verify->reader, (struct slice){.data = &from, .len = 1},
                                 (struct slice){.data = &to, .len = 1}, each, verify);
}

static enum err meta_note(void *ctx, struct slice key, struct slice value)
{
    struct verify *verify = ctx;
    verify->meta_seen = true;
    if (!index_meta_get(key, value, &verify->meta) || verify->meta.cell != verify->cell)
        damage(verify, "state: damaged meta row, or of another cell or version");
    return ERR_NONE;
}

static void state_damaged(void *ctx, uint64_t offset, const char *what)
{
    struct verify *verify = ctx;
    verify->state_damaged = true;
    damage(verify, "state: %s at byte %" PRIu64, what, offset);
}

/* *state stays NULL when there is none, or none that could be used: then only the files themselves
 * can be looked at. */
static enum err state_open(struct verify *verify, struct state **state)
{
    char path[4200];
    snprintf(path, sizeof path, "%s/state", verify->path);
    struct state_check check = {
        .all = true, .row_sound = index_row_sound, .damage = state_damaged, .ctx = verify};
    enum err err = verify->backend->check(verify->backend, path, &check);
    if (err != ERR_NONE || verify->state_damaged)
        return err;
    err = verify->backend->open(verify->backend, path, false, state);
    if (err == ERR_NOT_FOUND)
        return ERR_NONE;
    if (err == ERR_CORRUPT) {
        damage(verify, "state: not a state store, at byte 0");
        return ERR_NONE;
    }
    return err == ERR_NONE ? verify->backend->reader_open(*state, &verify->reader) : err;
}

static enum err state_verify(struct verify *verify, struct state **state)
{
    verify->meta = (struct index_meta){.cell = verify->cell, .index = 1};
    enum err err = state_open(verify, state);
    if (err != ERR_NONE || *state == NULL)
        return err;
    err = table_each(verify, 'M', meta_note);
    if (err == ERR_NONE)
        err = table_each(verify, 'X', extent_note);
    if (err == ERR_NONE)
        err = table_each(verify, 'E', row_note);
    if (err == ERR_NONE)
        err = table_each(verify, 'O', object_note);
    if (err == ERR_NONE && !verify->meta_seen && verify->rows > 0)
        damage(verify, "state: the meta row is missing");
    for (uint64_t i = 0; err == ERR_NONE && i < verify->extent_count; i++) {
        const struct known_extent *extent = &verify->extents[i];
        if (extent->rows != extent->info.blocks || extent->row_bytes != extent->info.live)
            damage(verify,
                   "state: extent %" PRIu64 " counts %" PRIu64 " blocks, %" PRIu64
                   " rows point to it",
                   extent->info.number, extent->info.blocks, extent->rows);
    }
    return err;
}

/* ---- Extents ---- */

/* Does the index point to the block? */
static enum err block_indexed(struct verify *verify, const struct extent_block *block, bool *out)
{
    struct index_row row;
    enum err err =
        index_row_find(verify->backend, verify->reader, block->stream, block->base, &row);
    *out = err == ERR_NONE && row.base == block->base && row.extent == block->extent &&
           row.offset == block->offset && row.end == block->end && row.body == block->body;
    return err == ERR_NOT_FOUND || err == ERR_CORRUPT ? ERR_NONE : err;
}

/* Reads the block at offset. *sound: it is one, whole and in its place. */
static enum err block_read(struct verify *verify, struct disk_file *file, uint64_t number,
                           uint64_t offset, uint64_t end, struct extent_block *block, bool *sound)
{
    size_t got = 0;
    *sound = false;
    if (end - offset < BLOCK_HEADER_BYTES)
        return ERR_NONE;
    enum err err = disk_read_sync(file, verify->buffer, BLOCK_HEADER_BYTES, offset, &got);
    if (err != ERR_NONE || got < BLOCK_HEADER_BYTES ||
        !extent_block_peek(verify->buffer, end - offset, block) || block->extent != number ||
        block->offset != offset)
        return err;
    size_t bytes = extent_block_bytes(block->body);
    if (!buffer_reserve(verify, bytes))
        return ERR_NO_MEMORY;
    err = disk_read_sync(file, verify->buffer, bytes, offset, &got);
    *sound = err == ERR_NONE && got == bytes && extent_block_check(verify->buffer, bytes, block);
    return err;
}

static enum err extent_blocks_verify(struct verify *verify, struct disk_file *file,
                                     struct known_extent *extent)
{
    uint64_t number = extent->info.number, found = 0, blocks = 0, bad = 0, marked = 0;
    uint64_t offset = EXTENT_HEADER_BYTES, end = extent->info.bytes - EXTENT_END_BYTES;
    size_t got = 0;
    while (offset < end) {
        struct extent_block block;
        bool sound, indexed;
        enum err err = block_read(verify, file, number, offset, end, &block, &sound);
        if (err == ERR_NONE && sound)
            err = block_indexed(verify, &block, &indexed);
        if (err != ERR_NONE)
            return err;
        if (!sound) { /* on to the next thing that is a block */
            if (bad == 0)
                damage(verify, "extent-%016" PRIx64 ": damaged block at byte %" PRIu64, number,
                       offset);
            bad = 1;
            offset += 8;
            continue;
        }
        bad = 0;
        blocks++;
        found += indexed;
        verify->report->dead_blocks += !indexed;
        offset += extent_block_bytes(block.body);
    }
    enum err err = disk_read_sync(file, verify->buffer, EXTENT_END_BYTES, end, &got);
    if (err == ERR_NONE &&
        (got < EXTENT_END_BYTES || !extent_end_get(verify->buffer, number, end, &marked)))
        damage(verify, "extent-%016" PRIx64 ": damaged end mark at byte %" PRIu64, number, end);
    if (found != extent->rows)
        damage(verify, "extent-%016" PRIx64 ": %" PRIu64 " rows of the index point to no block",
               number, extent->rows - found);
    return err;
}

static enum err extent_verify(struct verify *verify, struct known_extent *extent)
{
    uint64_t number = extent->info.number;
    bool kept = extent->info.bytes == 0;
    char path[4200];
    struct disk_file *file;
    struct extent_header header;
    size_t got = 0;
    path_numbered(path, sizeof path, verify->path, "extent", number);
    verify->report->extents++;
    verify->report->extent_bytes += kept ? extent->info.live : extent->info.bytes;
    enum err err = disk_open(verify->disk, path, false, &file);
    if (err == ERR_NOT_FOUND) {
        damage(verify, "extent-%016" PRIx64 ": missing", number);
        return ERR_NONE;
    }
    if (err != ERR_NONE)
        return err;
    if (!kept)
        err = disk_read_sync(file, verify->buffer, EXTENT_HEADER_BYTES, 0, &got);
    if (err == ERR_NONE && !kept &&
        (got < EXTENT_HEADER_BYTES || !extent_header_get(verify->buffer, &header) ||
         header.number != number || header.cell != verify->cell))
        damage(verify, "extent-%016" PRIx64 ": damaged header at byte 0", number);
    if (err == ERR_NONE && !kept && extent->info.bytes >= EXTENT_HEADER_BYTES + EXTENT_END_BYTES)
        err = extent_blocks_verify(verify, file, extent);
    disk_close(file);
    return err;
}

/* ---- The journal ---- */

struct journal_walk {
    uint64_t at, index;
    uint32_t chain;
};

/* Walks the frames of one file from walk->at on, until none follows. */
static enum err frames_verify(struct verify *verify, struct disk_file *file, uint64_t start,
                              uint64_t end, struct journal_walk *walk)
{
    while (walk->at + FRAME_HEADER_BYTES <= end) {
        struct frame frame;
        size_t got = 0;
        uint64_t offset = JOURNAL_HEADER_BYTES + (walk->at - start);
        enum err err = disk_read_sync(file, verify->buffer, FRAME_HEADER_BYTES, offset, &got);
        if (err != ERR_NONE || got < FRAME_HEADER_BYTES ||
            !frame_peek(verify->buffer, end - walk->at, &frame) || frame.position != walk->at ||
            frame.index != walk->index || frame.chain != walk->chain)
            return err;
        size_t bytes = frame_bytes(frame.body);
        if (!buffer_reserve(verify, bytes))
            return ERR_NO_MEMORY;
        err = disk_read_sync(file, verify->buffer, bytes, offset, &got);
        if (err != ERR_NONE || !frame_check(verify->buffer, got, &frame))
            return err;
        uint32_t at = 0, len;
        const uint8_t *record;
        while (frame_next(verify->buffer, &frame, &at, &record, &len)) {
            verify->report->records++;
            verify->report->record_bytes += len;
        }
        verify->report->frames++;
        walk->at += bytes;
        walk->index++;
        walk->chain = frame.crc;
    }
    return ERR_NONE;
}

static enum err journal_open(struct verify *verify, uint64_t start, struct disk_file **file,
                             uint64_t *end)
{
    char path[4200];
    struct journal_header header;
    size_t got = 0;
    uint64_t bytes = 0;
    path_numbered(path, sizeof path, verify->path, "journal", start);
    enum err err = disk_open(verify->disk, path, false, file);
    if (err != ERR_NONE)
        return err;
    err = disk_size(*file, &bytes);
    if (err == ERR_NONE)
        err = disk_read_sync(*file, verify->buffer, JOURNAL_HEADER_BYTES, 0, &got);
    if (err != ERR_NONE) {
        disk_close(*file);
        return err;
    }
    if (got < JOURNAL_HEADER_BYTES || !journal_header_get(verify->buffer, &header) ||
        header.start != start || header.cell != verify->cell)
        damage(verify, "journal-%016" PRIx64 ": damaged header at byte 0", start);
    *end = start + (bytes > JOURNAL_HEADER_BYTES ? bytes - JOURNAL_HEADER_BYTES : 0);
    return ERR_NONE;
}

/* Does what stands where the journal ends look like the frame that would follow? Most of its header
 * is enough. */
static enum err end_look(struct verify *verify, uint64_t i, const struct journal_walk *walk)
{
    struct disk_file *file;
    uint64_t start = verify->journals.data[i], end = 0;
    enum err err = journal_open(verify, start, &file, &end);
    if (err != ERR_NONE)
        return err;
    uint64_t offset = JOURNAL_HEADER_BYTES + (walk->at > start ? walk->at - start : 0);
    size_t got = 0;
    err = disk_read_sync(file, verify->buffer, FRAME_HEADER_BYTES, offset, &got);
    disk_close(file);
    if (err == ERR_NONE && got == FRAME_HEADER_BYTES &&
        frame_resembles(verify->buffer, walk->at, walk->index, walk->chain))
        doubt(verify,
              "journal-%016" PRIx64 ": the last write, at byte %" PRIu64
              ", is not whole: a torn write that nobody was told of, or damage; a start ignores it",
              start, offset);
    return err;
}

/* Nothing follows at walk->at: is anything behind it, from file i on, that proves damage? */
static enum err end_verify(struct verify *verify, uint64_t i, const struct journal_walk *walk)
{
    uint64_t home = i;
    for (; i < verify->journals.count; i++) {
        struct disk_file *file;
        uint64_t start = verify->journals.data[i], end = 0, found = 0;
        enum err err = journal_open(verify, start, &file, &end);
        if (err != ERR_NONE)
            return err;
        uint64_t from = start > walk->at ? start : walk->at + FRAME_ALIGN;
        err = damage_proof(file, start, end, from, walk->at, &found);
        disk_close(file);
        if (err != ERR_NONE)
            return err;
        if (found != 0) {
            uint64_t first = verify->journals.data[home];
            damage(verify,
                   "journal-%016" PRIx64 ": damaged frame at byte %" PRIu64
                   ", valid ones behind it (position %" PRIu64 ")",
                   first, JOURNAL_HEADER_BYTES + (walk->at > first ? walk->at - first : 0), found);
            return ERR_NONE;
        }
    }
    return end_look(verify, home, walk);
}

static enum err journal_verify(struct verify *verify)
{
    struct verify_report *report = verify->report;
    const struct index_meta *meta = &verify->meta;
    struct journal_walk walk = {.at = meta->position, .index = meta->index, .chain = meta->chain};
    uint64_t last = 0;
    bool any = false;
    for (uint64_t i = 0; i < verify->journals.count; i++) {
        struct disk_file *file;
        uint64_t start = verify->journals.data[i], end = 0;
        if (i + 1 < verify->journals.count && verify->journals.data[i + 1] <= meta->position)
            continue; /* the next start removes it */
        enum err err = journal_open(verify, start, &file, &end);
        if (err != ERR_NONE)
            return err;
        report->journal_files++;
        struct journal_walk next = walk;
        next.at = start > walk.at ? start : walk.at;
        uint64_t begin = next.at;
        err = frames_verify(verify, file, start, end, &next);
        disk_close(file);
        if (err != ERR_NONE)
            return err;
        if (next.at == begin && any)
            break; /* it does not continue the journal */
        if (next.at > begin || start <= walk.at)
            walk = next;
        last = i;
        any = true;
    }
    report->position += meta->position;
    report->end += walk.at;
    if (walk.at < meta->least_end)
        damage(verify,
               "the journal ends at position %" PRIu64 ", changes up to %" PRIu64
               " had been stored",
               walk.at, meta->least_end);
    return any ? end_verify(verify, last, &walk) : ERR_NONE;
}

/* ---- All of it ---- */

static bool number_add(struct numbers *numbers, uint64_t number)
{
    if (numbers->count == numbers->room) {
        uint64_t room = numbers->room == 0 ? 64 : numbers->room * 2;
        uint64_t *data = realloc(numbers->data, room * sizeof *data);
        if (data == NULL)
            return false;
        numbers->data = data;
        numbers->room = room;
    }
    numbers->data[numbers->count++] = number;
    return true;
}

/* Names come sorted, and sixteen hexadecimal digits sort as their numbers. */
static void file_note(void *ctx, const char *name)
{
    struct verify *verify = ctx;
    uint64_t number;
    if (path_number(name, "journal", &number)) {
        if (!number_add(&verify->journals, number))
            verify->err = ERR_NO_MEMORY;
    } else if (path_number(name, "extent", &number)) {
        verify->report->strays += !verify->state_damaged && extent_known(verify, number) == NULL;
    }
}

enum err verify_cell(struct disk *disk, const struct state_backend *backend, const char *path,
                     uint32_t cell, struct verify_report *report)
{
    struct verify verify = {
        .disk = disk, .backend = backend, .path = path, .cell = cell, .report = report};
    struct state *state = NULL;
    enum err err = buffer_reserve(&verify, WINDOW_BYTES) ? ERR_NONE : ERR_NO_MEMORY;
    if (err == ERR_NONE)
        err = state_verify(&verify, &state);
    if (err == ERR_NONE) {
        err = disk_list(disk, path, file_note, &verify);
        err = err == ERR_NOT_FOUND ? ERR_NONE : err;
    }
    if (err == ERR_NONE)
        err = verify.err;
    for (uint64_t i = 0; err == ERR_NONE && i < verify.extent_count; i++)
        err = extent_verify(&verify, &verify.extents[i]);
    if (err == ERR_NONE && !verify.state_damaged)
        err = journal_verify(&verify);
    if (verify.kept != NULL)
        disk_close(verify.kept);
    if (verify.reader != NULL)
        backend->reader_close(verify.reader);
    if (state != NULL)
        backend->close(state);
    free(verify.extents);
    free(verify.journals.data);
    free(verify.buffer);
    return err;
}
