/* Extents with damage in them. What is no block any more is taken out of the index first, then out
 * of the file: a block of nothing, to which no row points, takes its place, so that all others stay
 * where they are. Header and end mark are written anew. Last, the index counts again what it points
 * to. */
#include "store/repair_inside.h"

#include "base/endian.h"
#include "store/extent.h"
#include "store/format.h"
#include "store/path.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NO_STREAM UINT64_MAX

struct region {
    uint64_t from, to;
};

/* One extent file while it is looked through. */
struct inspection {
    struct repair *repair;
    struct index_extent info;
    char name[40];
    struct disk_file *file; /* NULL: missing */
    bool edges_damaged;     /* header or end mark */
    struct region *regions; /* without a sound block */
    uint32_t count, room;
    uint64_t blocks;
    uint8_t *buffer;
    size_t buffer_room;
    struct state_batch batch;
};

static bool room_for(struct inspection *inspection, size_t bytes)
{
    if (inspection->buffer_room >= bytes)
        return true;
    uint8_t *buffer = realloc(inspection->buffer, bytes);
    if (buffer == NULL)
        return false;
    inspection->buffer = buffer;
    inspection->buffer_room = bytes;
    return true;
}

/* ---- Looking ---- */

static enum err edges_look(struct inspection *inspection)
{
    uint64_t number = inspection->info.number, blocks, end = inspection->info.bytes;
    struct extent_header header;
    size_t got = 0;
    enum err err =
        disk_read_sync(inspection->file, inspection->buffer, EXTENT_HEADER_BYTES, 0, &got);
    if (err != ERR_NONE)
        return err;
    bool sound = got == EXTENT_HEADER_BYTES && extent_header_get(inspection->buffer, &header) &&
                 header.number == number && header.cell == inspection->repair->config->cell;
    end -= EXTENT_END_BYTES;
    err = disk_read_sync(inspection->file, inspection->buffer, EXTENT_END_BYTES, end, &got);
    sound = sound && got == EXTENT_END_BYTES &&
            extent_end_get(inspection->buffer, number, end, &blocks);
    inspection->edges_damaged = !sound;
    return err;
}

/* The block at the byte. *bytes = 0: there is none. */
static enum err block_look(struct inspection *inspection, uint64_t offset, uint64_t end,
                           uint64_t *bytes)
{
    struct extent_block block;
    size_t got = 0;
    *bytes = 0;
    enum err err =
        disk_read_sync(inspection->file, inspection->buffer, BLOCK_HEADER_BYTES, offset, &got);
    if (err != ERR_NONE || got < BLOCK_HEADER_BYTES ||
        !extent_block_peek(inspection->buffer, end - offset, &block) ||
        block.extent != inspection->info.number || block.offset != offset)
        return err;
    size_t all = extent_block_bytes(block.body);
    if (!room_for(inspection, all))
        return ERR_NO_MEMORY;
    err = disk_read_sync(inspection->file, inspection->buffer, all, offset, &got);
    if (err == ERR_NONE && extent_block_check(inspection->buffer, got, &block))
        *bytes = all;
    return err;
}

static enum err region_add(struct inspection *inspection, uint64_t from, uint64_t to)
{
    if (inspection->count > 0 && inspection->regions[inspection->count - 1].to == from) {
        inspection->regions[inspection->count - 1].to = to;
        return ERR_NONE;
    }
    if (inspection->count == inspection->room) {
        uint32_t room = inspection->room == 0 ? 16 : inspection->room * 2;
        struct region *regions = realloc(inspection->regions, room * sizeof *regions);
        if (regions == NULL)
            return ERR_NO_MEMORY;
        inspection->regions = regions;
        inspection->room = room;
    }
    inspection->regions[inspection->count++] = (struct region){.from = from, .to = to};
    return ERR_NONE;
}

static enum err blocks_look(struct inspection *inspection)
{
    uint64_t end = inspection->info.bytes - EXTENT_END_BYTES;
    enum err err = ERR_NONE;
    for (uint64_t offset = EXTENT_HEADER_BYTES; offset < end && err == ERR_NONE;) {
        uint64_t bytes;
        err = block_look(inspection, offset, end, &bytes);
        if (err == ERR_NONE && bytes == 0)
            err = region_add(inspection, offset, offset + 8);
        inspection->blocks += bytes > 0;
        offset += bytes > 0 ? bytes : 8;
    }
    inspection->blocks += inspection->count; /* what will take their places */
    return err;
}

/* ---- Taking out ---- */

/* A kept entry stands alone: its row has its checksum. */
static enum err kept_look(struct inspection *inspection, const struct index_row *row, bool *lost)
{
    size_t got = 0;
    if (!room_for(inspection, row->body))
        return ERR_NO_MEMORY;
    enum err err =
        disk_read_sync(inspection->file, inspection->buffer, row->body, row->offset, &got);
    *lost = got < row->body || crc32c(0, inspection->buffer, row->body) != row->crc;
    return err;
}

static bool block_is_lost(const struct inspection *inspection, const struct index_row *row)
{
    for (uint32_t i = 0; i < inspection->count; i++) {
        const struct region *region = &inspection->regions[i];
        if (row->offset < region->to && row->offset + extent_block_bytes(row->body) > region->from)
            return true;
    }
    return false;
}

static enum err row_look(void *ctx, struct slice key, struct slice value)
{
    struct inspection *inspection = ctx;
    const struct repair_config *config = inspection->repair->config;
    struct index_row row;
    bool lost = inspection->file == NULL;
    enum err err = ERR_NONE;
    if (!index_row_get(key, value, &row) || row.extent != inspection->info.number)
        return ERR_NONE;
    if (!lost && row.kept)
        err = kept_look(inspection, &row, &lost);
    else if (!lost)
        lost = block_is_lost(inspection, &row);
    if (err != ERR_NONE || !lost)
        return err;
    repair_step(inspection->repair,
                "%s: the block at byte %" PRIu64 " (stream %" PRIu64 ", offsets %" PRIu64
                " to %" PRIu64 ") is taken out",
                inspection->name, row.offset, row.stream, row.base, row.end - 1);
    config->events->block_lost(config->ctx, &row);
    state_batch_delete(&inspection->batch, key);
    return inspection->batch.failed ? ERR_NO_MEMORY : ERR_NONE;
}

/* A block with one entry that nobody looks for. */
static enum err region_fill(struct inspection *inspection, struct disk_file *file,
                            const struct region *region)
{
    uint64_t bytes = region->to - region->from;
    if (bytes < BLOCK_HEADER_BYTES + ENTRY_HEADER_BYTES + 8 || bytes > EXTENT_BLOCK_MAX) {
        repair_step(inspection->repair, "%s: no block of nothing fits at byte %" PRIu64,
                    inspection->name, region->from);
        return ERR_CORRUPT;
    }
    if (!room_for(inspection, bytes))
        return ERR_NO_MEMORY;
    uint32_t body = (uint32_t)(bytes - BLOCK_HEADER_BYTES);
    struct extent_block block = {.stream = NO_STREAM,
                                 .end = 1,
                                 .extent = inspection->info.number,
                                 .offset = region->from,
                                 .count = 1,
                                 .body = body};
    memset(inspection->buffer, 0, bytes);
    uint8_t *entry = inspection->buffer + BLOCK_HEADER_BYTES;
    le32_put(entry + 4, 1);
    le32_put(entry + 8, body - ENTRY_HEADER_BYTES);
    extent_block_put(inspection->buffer, &block);
    return disk_write_sync(file, inspection->buffer, bytes, region->from);
}

static enum err file_rewrite(struct inspection *inspection)
{
    struct repair *repair = inspection->repair;
    struct disk_file *file;
    repair_step(repair, "%s: is written anew, without what is damaged in it (%u places)",
                inspection->name, inspection->count + inspection->edges_damaged);
    enum err err = repair_copy(repair, inspection->name, "extent-repair", &file);
    if (err != ERR_NONE)
        return err;
    for (uint32_t i = 0; i < inspection->count && err == ERR_NONE; i++)
        err = region_fill(inspection, file, &inspection->regions[i]);
    struct extent_header header = {.cell = repair->config->cell, .number = inspection->info.number};
    extent_header_put(inspection->buffer, &header);
    if (err == ERR_NONE)
        err = disk_write_sync(file, inspection->buffer, EXTENT_HEADER_BYTES, 0);
    uint64_t end = inspection->info.bytes - EXTENT_END_BYTES;
    extent_end_put(inspection->buffer, header.number, end, inspection->blocks);
    if (err == ERR_NONE)
        err = disk_write_sync(file, inspection->buffer, EXTENT_END_BYTES, end);
    if (err != ERR_NONE) {
        disk_close(file);
        return err;
    }
    return repair_replace(repair, "extent-repair", file, inspection->name);
}

/* A file that stayed a journal's has neither edges nor blocks. */
static bool is_kept(const struct inspection *inspection)
{
    return inspection->info.bytes < EXTENT_HEADER_BYTES + EXTENT_END_BYTES;
}

static enum err file_look(struct inspection *inspection)
{
    struct repair *repair = inspection->repair;
    char path[REPAIR_PATH_BYTES];
    repair_path(repair, inspection->name, path);
    if (!room_for(inspection, EXTENT_HEADER_BYTES + EXTENT_END_BYTES))
        return ERR_NO_MEMORY;
    enum err err = disk_open(repair->config->disk, path, false, &inspection->file);
    if (err == ERR_NOT_FOUND) {
        struct index_key key;
        repair_step(repair, "%s: is missing", inspection->name);
        index_extent_key(inspection->info.number, &key);
        state_batch_delete(&inspection->batch, index_key_slice(&key));
        return inspection->batch.failed ? ERR_NO_MEMORY : ERR_NONE;
    }
    if (err == ERR_NONE && !is_kept(inspection))
        err = edges_look(inspection);
    if (err == ERR_NONE && !is_kept(inspection))
        err = blocks_look(inspection);
    return err;
}

static enum err file_inspect(struct inspection *inspection)
{
    struct repair *repair = inspection->repair;
    enum err err = file_look(inspection);
    bool whole = inspection->file != NULL && !is_kept(inspection);
    if (err != ERR_NONE || (whole && inspection->count == 0 && !inspection->edges_damaged))
        return err;
    err = repair_each(repair, 'E', row_look, inspection);
    bool lost = inspection->batch.used > 0;
    if (err == ERR_NONE && lost && inspection->file != NULL && !repair->config->dry)
        err = repair_aside(repair, inspection->name);
    if (err == ERR_NONE && lost)
        err = repair_commit(repair, &inspection->batch);
    return err == ERR_NONE && whole && !repair->config->dry ? file_rewrite(inspection) : err;
}

static enum err extent_inspect(struct repair *repair, const struct index_extent *info)
{
    struct inspection inspection = {.repair = repair, .info = *info};
    snprintf(inspection.name, sizeof inspection.name, "extent-%016" PRIx64, info->number);
    enum err err = file_inspect(&inspection);
    if (inspection.file != NULL)
        disk_close(inspection.file);
    state_batch_done(&inspection.batch);
    free(inspection.regions);
    free(inspection.buffer);
    return err;
}

/* ---- Counting ---- */

struct counting {
    struct repair *repair;
    struct index_extent *said, *found; /* by number */
    uint64_t count, room;
    struct state_batch batch;
};

static struct index_extent *counted_find(struct counting *counting, uint64_t number)
{
    for (uint64_t low = 0, high = counting->count; low < high;) {
        uint64_t middle = low + (high - low) / 2;
        if (counting->said[middle].number == number)
            return &counting->found[middle];
        if (counting->said[middle].number < number)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static enum err row_strange(struct repair *repair)
{
    repair_step(repair, "state: a row whose checksum is right makes no sense");
    return ERR_CORRUPT;
}

static enum err extent_note(void *ctx, struct slice key, struct slice value)
{
    struct counting *counting = ctx;
    struct index_extent info;
    if (!index_extent_get(key, value, &info))
        return row_strange(counting->repair);
    if (counting->count == counting->room) {
        uint64_t room = counting->room == 0 ? 64 : counting->room * 2;
        struct index_extent *said = realloc(counting->said, room * sizeof *said);
        if (said == NULL)
            return ERR_NO_MEMORY;
        counting->said = said;
        counting->room = room;
    }
    counting->said[counting->count++] = info;
    return ERR_NONE;
}

static enum err row_count(void *ctx, struct slice key, struct slice value)
{
    struct counting *counting = ctx;
    const struct repair_config *config = counting->repair->config;
    struct index_row row;
    if (!index_row_get(key, value, &row))
        return row_strange(counting->repair);
    struct index_extent *found = counted_find(counting, row.extent);
    if (found == NULL) { /* the row of its extent is lost */
        config->events->block_lost(config->ctx, &row);
        state_batch_delete(&counting->batch, key);
        return counting->batch.failed ? ERR_NO_MEMORY : ERR_NONE;
    }
    found->blocks++;
    found->live += index_row_bytes(&row);
    return ERR_NONE;
}

static enum err rows_count(struct counting *counting)
{
    counting->found = calloc(counting->count + 1, sizeof *counting->found);
    if (counting->found == NULL)
        return ERR_NO_MEMORY;
    enum err err = repair_each(counting->repair, 'E', row_count, counting);
    bool changed = counting->batch.used > 0;
    for (uint64_t i = 0; i < counting->count; i++) {
        struct index_extent *said = &counting->said[i], *found = &counting->found[i];
        if (said->blocks == found->blocks && said->live == found->live)
            continue;
        said->blocks = found->blocks;
        said->live = found->live;
        index_extent_put(&counting->batch, said);
        changed = true;
    }
    return err == ERR_NONE && changed ? repair_commit(counting->repair, &counting->batch) : err;
}

enum err repair_extents(struct repair *repair)
{
    struct counting counting = {.repair = repair};
    enum err err = repair_each(repair, 'X', extent_note, &counting);
    for (uint64_t i = 0; i < counting.count && err == ERR_NONE; i++)
        err = extent_inspect(repair, &counting.said[i]);
    if (repair->config->dry) {
        free(counting.said);
        return err;
    }
    counting.count = 0; /* one that is missing is known no more */
    if (err == ERR_NONE)
        err = repair_each(repair, 'X', extent_note, &counting);
    if (err == ERR_NONE)
        err = rows_count(&counting);
    state_batch_done(&counting.batch);
    free(counting.said);
    free(counting.found);
    return err;
}
