/* The journal with damage in it. What cannot be read between two frames that can is one or more
 * frames, as many as their indexes say. Frames that hold nothing take their places, and the last of
 * them gets the checksum that the next frame's chain names: its clock, which nobody reads back, is
 * chosen so. Then everything behind the damage follows as it stands, and one file is all that
 * changes. */
#include "store/repair_inside.h"

#include "base/endian.h"
#include "store/damage.h"
#include "store/format.h"
#include "store/path.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_BYTES  40
#define CLOCK_AT    40u         /* byte of a frame's header where its clock stands */
#define LEAST_BYTES FRAME_ALIGN /* of a frame */
#define LOST_MAX    (UINT64_C(1) << 30)

struct files {
    uint64_t *starts;
    uint64_t count, room;
    enum err err;
};

/* Where the journal has come to. */
struct walk {
    struct repair *repair;
    struct files files;
    uint64_t file; /* index of the one that holds it */
    uint64_t at, index;
    uint32_t chain;
};

struct opened {
    char name[NAME_BYTES];
    struct disk_file *file;
    uint64_t start, end; /* positions it has room for */
};

/* ---- Files ---- */

/* Names come sorted, and sixteen hexadecimal digits sort as their numbers. */
static void file_note(void *ctx, const char *name)
{
    struct files *files = ctx;
    uint64_t start;
    if (files->err != ERR_NONE || !path_number(name, "journal", &start))
        return;
    if (files->count == files->room) {
        uint64_t room = files->room == 0 ? 16 : files->room * 2;
        uint64_t *starts = realloc(files->starts, room * sizeof *starts);
        if (starts == NULL) {
            files->err = ERR_NO_MEMORY;
            return;
        }
        files->starts = starts;
        files->room = room;
    }
    files->starts[files->count++] = start;
}

static enum err file_open(const struct walk *walk, uint64_t i, struct opened *out)
{
    char path[REPAIR_PATH_BYTES];
    uint64_t bytes = 0;
    out->start = walk->files.starts[i];
    snprintf(out->name, sizeof out->name, "journal-%016" PRIx64, out->start);
    repair_path(walk->repair, out->name, path);
    enum err err = disk_open(walk->repair->config->disk, path, false, &out->file);
    if (err != ERR_NONE)
        return err;
    err = disk_size(out->file, &bytes);
    out->end = out->start + (bytes > JOURNAL_HEADER_BYTES ? bytes - JOURNAL_HEADER_BYTES : 0);
    if (err != ERR_NONE)
        disk_close(out->file);
    return err;
}

static uint64_t offset_of(const struct opened *opened, uint64_t position)
{
    return JOURNAL_HEADER_BYTES + (position - opened->start);
}

static enum err header_repair(const struct walk *walk, uint64_t i)
{
    struct repair *repair = walk->repair;
    struct opened opened;
    struct journal_header header;
    uint8_t data[JOURNAL_HEADER_BYTES];
    size_t got = 0;
    enum err err = file_open(walk, i, &opened);
    if (err != ERR_NONE)
        return err;
    err = disk_read_sync(opened.file, data, sizeof data, 0, &got);
    disk_close(opened.file);
    if (err != ERR_NONE || (got == sizeof data && journal_header_get(data, &header) &&
                            header.start == opened.start && header.cell == repair->config->cell))
        return err;
    repair_step(repair, "%s: gets a new header", opened.name);
    if (repair->config->dry)
        return ERR_NONE;
    err = repair_copy(repair, opened.name, "journal-repair", &opened.file);
    if (err != ERR_NONE)
        return err;
    header = (struct journal_header){.cell = repair->config->cell, .start = opened.start};
    journal_header_put(data, &header);
    err = disk_write_sync(opened.file, data, sizeof data, 0);
    if (err != ERR_NONE) {
        disk_close(opened.file);
        return err;
    }
    return repair_replace(repair, "journal-repair", opened.file, opened.name);
}

/* ---- Walking ---- */

/* The whole frame at a position, if there is a valid one; *data is the caller's to free. */
static enum err frame_read(const struct opened *opened, uint64_t position, struct frame *frame,
                           uint8_t **data, bool *valid)
{
    uint8_t header[FRAME_HEADER_BYTES];
    size_t got = 0;
    *data = NULL;
    *valid = false;
    if (position < opened->start || position + FRAME_HEADER_BYTES > opened->end)
        return ERR_NONE;
    enum err err =
        disk_read_sync(opened->file, header, sizeof header, offset_of(opened, position), &got);
    if (err != ERR_NONE || got < sizeof header ||
        !frame_peek(header, opened->end - position, frame) || frame->position != position)
        return err;
    size_t bytes = frame_bytes(frame->body);
    *data = malloc(bytes);
    if (*data == NULL)
        return ERR_NO_MEMORY;
    err = disk_read_sync(opened->file, *data, bytes, offset_of(opened, position), &got);
    *valid = err == ERR_NONE && frame_check(*data, got, frame);
    return err;
}

static void records_tell(const struct walk *walk, const uint8_t *data, const struct frame *frame)
{
    const struct repair_config *config = walk->repair->config;
    const uint8_t *record;
    uint32_t at = 0, len;
    while (frame_next(data, frame, &at, &record, &len))
        config->events->record(config->ctx, (struct slice){.data = record, .len = len});
}

/* Goes on to where no frame follows in the file. */
static enum err frames_walk(struct walk *walk, const struct opened *opened)
{
    for (;;) {
        struct frame frame;
        uint8_t *data;
        bool valid;
        enum err err = frame_read(opened, walk->at, &frame, &data, &valid);
        bool follows =
            err == ERR_NONE && valid && frame.index == walk->index && frame.chain == walk->chain;
        if (follows)
            records_tell(walk, data, &frame);
        free(data);
        if (!follows)
            return err;
        walk->at += frame_bytes(frame.body);
        walk->index++;
        walk->chain = frame.crc;
    }
}

/* Through the files, until no frame follows anywhere. */
static enum err files_walk(struct walk *walk)
{
    for (uint64_t i = walk->file; i < walk->files.count; i++) {
        struct opened opened;
        enum err err = file_open(walk, i, &opened);
        if (err != ERR_NONE)
            return err;
        struct walk next = *walk;
        next.file = i;
        next.at = opened.start > walk->at ? opened.start : walk->at;
        uint64_t begin = next.at;
        err = frames_walk(&next, &opened);
        disk_close(opened.file);
        if (err != ERR_NONE)
            return err;
        if (next.at == begin && opened.start > walk->at)
            break; /* it does not continue the journal */
        *walk = next;
    }
    return ERR_NONE;
}

/* The next frame behind the walk's end that proves the journal goes on: *file and *next. Without
 * one *next is left as it is. */
static enum err next_find(const struct walk *walk, uint64_t *file, uint64_t *next)
{
    for (uint64_t i = walk->file; i < walk->files.count; i++) {
        struct opened opened;
        uint64_t proof = 0, found = 0;
        enum err err = file_open(walk, i, &opened);
        if (err != ERR_NONE)
            return err;
        uint64_t from = opened.start > walk->at ? opened.start : walk->at + FRAME_ALIGN;
        err = damage_proof(opened.file, opened.start, opened.end, from, walk->at, &proof);
        if (err == ERR_NONE && proof != 0)
            err = damage_next(opened.file, opened.start, opened.end, from, walk->index, &found);
        disk_close(opened.file);
        if (err != ERR_NONE)
            return err;
        if (found != 0) {
            *file = i;
            *next = found;
            return ERR_NONE;
        }
    }
    return ERR_NONE;
}

/* ---- Filling ---- */

/* Chooses the frame's clock so that its checksum is `wanted`. A checksum is linear: each bit of the
 * clock changes it by the same bits, whatever the others are. */
static void checksum_choose(uint8_t *at, struct frame *frame, uint32_t wanted)
{
    uint32_t pivots[32], clocks[32], clock = 0;
    bool used[32] = {false};
    frame->time_ms = 0;
    uint32_t base = frame_seal(at, frame);
    for (unsigned i = 0; i < 32; i++) {
        uint32_t mask = UINT32_C(1) << i;
        frame->time_ms = mask;
        uint32_t change = frame_seal(at, frame) ^ base;
        for (int bit = 31; bit >= 0 && change != 0; bit--) {
            if ((change & UINT32_C(1) << bit) == 0)
                continue;
            if (!used[bit]) {
                used[bit] = true;
                pivots[bit] = change;
                clocks[bit] = mask;
                break;
            }
            change ^= pivots[bit];
            mask ^= clocks[bit];
        }
    }
    uint32_t left = base ^ wanted;
    for (int bit = 31; bit >= 0; bit--) {
        if ((left & UINT32_C(1) << bit) == 0)
            continue;
        assert(used[bit]); /* 32 bits next to each other reach every checksum */
        left ^= pivots[bit];
        clock ^= clocks[bit];
    }
    frame->time_ms = clock;
    frame_seal(at, frame);
}

/* `count` frames that hold nothing, in `bytes` bytes, to follow the walk. `last`, if not 0, is the
 * checksum of the last one. NULL: no memory, or no room for so many. */
static uint8_t *nothing_make(struct walk *walk, uint64_t count, uint64_t bytes, uint32_t last)
{
    const struct slice nothing = walk->repair->config->nothing;
    if (count == 0 || count > bytes / LEAST_BYTES || bytes > LOST_MAX)
        return NULL;
    uint8_t *data = calloc(1, bytes);
    if (data == NULL)
        return NULL;
    uint8_t *at = data;
    for (uint64_t i = 0; i < count; i++) {
        bool end = i + 1 == count;
        uint64_t size = end ? bytes - (uint64_t)(at - data) : LEAST_BYTES;
        struct frame frame = {.body = (uint32_t)(size - FRAME_HEADER_BYTES),
                              .chain = walk->chain,
                              .position = walk->at,
                              .index = walk->index,
                              .durable = walk->at,
                              .records = 1};
        uint8_t *record = at + FRAME_HEADER_BYTES;
        le32_put(record, frame.body - RECORD_HEADER_BYTES);
        memcpy(record + RECORD_HEADER_BYTES, nothing.data, nothing.len);
        if (end && last != 0)
            checksum_choose(at, &frame, last);
        else
            frame_seal(at, &frame);
        walk->at += size;
        walk->index++;
        walk->chain = le32_get(at + 4);
        at += size;
    }
    return data;
}

/* Tells what stands there, and puts frames of nothing over it. */
static enum err region_fill(struct walk *walk, uint64_t count, uint64_t to, uint32_t last)
{
    struct repair *repair = walk->repair;
    const struct repair_config *config = repair->config;
    struct opened opened;
    uint64_t from = walk->at, bytes = to - from;
    size_t got = 0;
    enum err err = file_open(walk, walk->file, &opened);
    if (err != ERR_NONE)
        return err;
    uint8_t *old = bytes <= LOST_MAX ? malloc(bytes) : NULL, *data = NULL;
    uint64_t offset = offset_of(&opened, from);
    err = old == NULL ? ERR_NO_MEMORY : disk_read_sync(opened.file, old, bytes, offset, &got);
    disk_close(opened.file);
    if (err == ERR_NONE) {
        repair_step(repair,
                    "%s: %" PRIu64 " damaged frames at byte %" PRIu64 " to %" PRIu64
                    " are taken out",
                    opened.name, count, offset, offset + bytes - 1);
        config->events->frames_lost(config->ctx, count, old, got);
        data = nothing_make(walk, count, bytes, last);
        err = data == NULL ? ERR_NO_MEMORY : ERR_NONE;
    }
    bool write = err == ERR_NONE && !config->dry;
    if (write)
        err = repair_copy(repair, opened.name, "journal-repair", &opened.file);
    if (write && err == ERR_NONE) {
        err = disk_write_sync(opened.file, data, bytes, offset);
        if (err == ERR_NONE)
            err = repair_replace(repair, "journal-repair", opened.file, opened.name);
        else
            disk_close(opened.file);
    }
    free(old);
    free(data);
    return err;
}

/* Puts right what stands between the walk's end and the frame found. */
static enum err damage_repair(struct walk *walk, uint64_t file, uint64_t next)
{
    struct opened opened;
    struct frame frame;
    uint8_t *data;
    bool valid;
    enum err err = file_open(walk, file, &opened);
    if (err != ERR_NONE)
        return err;
    err = frame_read(&opened, next, &frame, &data, &valid);
    disk_close(opened.file);
    free(data);
    if (err != ERR_NONE || !valid)
        return err == ERR_NONE ? ERR_CORRUPT : err;
    uint64_t count = frame.index - walk->index, start = walk->files.starts[file], to = next;
    if (file != walk->file && next > start) { /* the first ones of that file */
        walk->file = file;
        walk->at = start;
    } else if (file != walk->file) { /* the last ones of the one before */
        to = walk->at + count * LEAST_BYTES;
    }
    if (walk->files.starts[walk->file] > walk->at) {
        repair_step(walk->repair, "the journal file that holds position %" PRIu64 " is missing",
                    walk->at);
        return ERR_CORRUPT;
    }
    if (count == 0 || to - walk->at < count * LEAST_BYTES) {
        repair_step(walk->repair, "frames at position %" PRIu64 " and %" PRIu64 " do not fit",
                    walk->at, next);
        return ERR_CORRUPT;
    }
    return region_fill(walk, count, to, frame.chain);
}

/* No frame follows, but objects hold changes from further on: the last write was damaged. */
static enum err end_repair(struct walk *walk, uint64_t least_end)
{
    uint64_t bytes = least_end - walk->at;
    bytes = (bytes + FRAME_ALIGN - 1) & ~(uint64_t)(FRAME_ALIGN - 1);
    if (walk->files.count == 0 || walk->files.starts[walk->file] > walk->at) {
        repair_step(walk->repair, "the journal's last file is missing");
        return ERR_CORRUPT;
    }
    return region_fill(walk, 1, walk->at + bytes, 0);
}

static enum err walk_repair(struct walk *walk)
{
    const struct index_meta *meta = &walk->repair->meta;
    while (walk->file + 1 < walk->files.count &&
           walk->files.starts[walk->file + 1] <= meta->position)
        walk->file++; /* the next start removes those before */
    enum err err = ERR_NONE;
    for (uint64_t i = walk->file; i < walk->files.count && err == ERR_NONE; i++)
        err = header_repair(walk, i);
    while (err == ERR_NONE && walk->files.count > 0) {
        uint64_t file = 0, next = 0;
        err = files_walk(walk);
        if (err == ERR_NONE)
            err = next_find(walk, &file, &next);
        if (err != ERR_NONE || next == 0)
            break;
        err = damage_repair(walk, file, next);
    }
    if (err == ERR_NONE && walk->at < meta->least_end)
        err = end_repair(walk, meta->least_end);
    return err;
}

enum err repair_journal(struct repair *repair)
{
    const struct index_meta *meta = &repair->meta;
    struct walk walk = {
        .repair = repair, .at = meta->position, .index = meta->index, .chain = meta->chain};
    assert(repair->config->nothing.len <= LEAST_BYTES - FRAME_HEADER_BYTES - RECORD_HEADER_BYTES);
    enum err err = disk_list(repair->config->disk, repair->config->path, file_note, &walk.files);
    err = err == ERR_NOT_FOUND ? ERR_NONE : err;
    if (err == ERR_NONE)
        err = walk.files.err;
    if (err == ERR_NONE)
        err = walk_repair(&walk);
    free(walk.files.starts);
    return err;
}
