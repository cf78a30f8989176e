/* Extent files: byte layout, checks, and the writer that builds one front to back. */
#include "store/extent.h"

#include "base/endian.h"
#include "store/format.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_MAGIC UINT32_C(0x4b4c4257) /* "WBLK" */
#define END_MAGIC   UINT32_C(0x444e4557) /* "WEND" */
#define WRITE_BYTES (1024u * 1024)

static const uint8_t extent_magic[8] = {'W', 'E', 'I', 'R', 'E', 'X', 'T', 'N'};

void extent_header_put(uint8_t *out, const struct extent_header *header)
{
    memset(out, 0, EXTENT_HEADER_BYTES);
    memcpy(out, extent_magic, sizeof extent_magic);
    le32_put(out + 8, EXTENT_VERSION);
    le32_put(out + 12, header->cell);
    le64_put(out + 16, header->number);
    le32_put(out + EXTENT_HEADER_BYTES - 4, crc32c(0, out, EXTENT_HEADER_BYTES - 4));
}

bool extent_header_get(const uint8_t *data, struct extent_header *out)
{
    if (memcmp(data, extent_magic, sizeof extent_magic) != 0 ||
        le32_get(data + 8) != EXTENT_VERSION ||
        le32_get(data + EXTENT_HEADER_BYTES - 4) != crc32c(0, data, EXTENT_HEADER_BYTES - 4))
        return false;
    out->cell = le32_get(data + 12);
    out->number = le64_get(data + 16);
    return true;
}

void extent_end_put(uint8_t *out, uint64_t extent, uint64_t offset, uint64_t blocks)
{
    memset(out, 0, EXTENT_END_BYTES);
    le32_put(out, END_MAGIC);
    le64_put(out + 8, extent);
    le64_put(out + 16, offset);
    le64_put(out + 24, blocks);
    le32_put(out + 4, crc32c(0, out + 8, EXTENT_END_BYTES - 8));
}

bool extent_end_get(const uint8_t *data, uint64_t extent, uint64_t offset, uint64_t *blocks)
{
    if (le32_get(data) != END_MAGIC ||
        le32_get(data + 4) != crc32c(0, data + 8, EXTENT_END_BYTES - 8) ||
        le64_get(data + 8) != extent || le64_get(data + 16) != offset)
        return false;
    *blocks = le64_get(data + 24);
    return true;
}

void extent_block_put(uint8_t *at, const struct extent_block *block)
{
    le32_put(at, BLOCK_MAGIC);
    le64_put(at + 8, block->stream);
    le64_put(at + 16, block->base);
    le64_put(at + 24, block->end);
    le64_put(at + 32, block->extent);
    le64_put(at + 40, block->offset);
    le32_put(at + 48, block->count);
    le32_put(at + 52, block->body);
    le64_put(at + 56, (uint64_t)block->max_ms);
    le32_put(at + 4, crc32c(0, at + 8, extent_block_bytes(block->body) - 8));
}

bool extent_block_peek(const uint8_t *data, uint64_t room, struct extent_block *out)
{
    if (room < BLOCK_HEADER_BYTES || le32_get(data) != BLOCK_MAGIC)
        return false;
    uint32_t count = le32_get(data + 48), body = le32_get(data + 52);
    if (count == 0 || count > EXTENT_ENTRIES_MAX || body < count * ENTRY_HEADER_BYTES ||
        body > EXTENT_BLOCK_MAX || extent_block_bytes(body) > room)
        return false;
    out->stream = le64_get(data + 8);
    out->base = le64_get(data + 16);
    out->end = le64_get(data + 24);
    out->extent = le64_get(data + 32);
    out->offset = le64_get(data + 40);
    out->count = count;
    out->body = body;
    out->max_ms = (int64_t)le64_get(data + 56);
    return true;
}

/* Do the entries fill the body exactly, in order, inside the block's range? */
static bool entries_sound(const uint8_t *data, const struct extent_block *block)
{
    const uint8_t *body = data + BLOCK_HEADER_BYTES;
    uint32_t at = 0;
    uint64_t next = block->base;
    for (uint32_t i = 0; i < block->count; i++) {
        if (block->body - at < ENTRY_HEADER_BYTES)
            return false;
        uint64_t base = block->base + le32_get(body + at);
        uint32_t count = le32_get(body + at + 4), len = le32_get(body + at + 8);
        at += ENTRY_HEADER_BYTES;
        if (base < next || (i == 0 && base != block->base) || count == 0 || base >= block->end ||
            count > block->end - base || len < 8 || len > block->body - at)
            return false;
        next = base + count;
        at += len;
    }
    return at == block->body && next == block->end;
}

bool extent_block_check(const uint8_t *data, uint64_t room, struct extent_block *out)
{
    struct extent_block block;
    if (!extent_block_peek(data, room, &block) ||
        le32_get(data + 4) != crc32c(0, data + 8, extent_block_bytes(block.body) - 8) ||
        !entries_sound(data, &block))
        return false;
    *out = block;
    return true;
}

void extent_entry_get(const uint8_t *data, const struct extent_block *block, uint32_t *at,
                      struct extent_entry *out)
{
    const uint8_t *entry = data + BLOCK_HEADER_BYTES + *at;
    assert(*at < block->body);
    out->base = block->base + le32_get(entry);
    out->count = le32_get(entry + 4);
    out->data = (struct slice){.data = entry + ENTRY_HEADER_BYTES, .len = le32_get(entry + 8)};
    *at += ENTRY_HEADER_BYTES + (uint32_t)out->data.len;
}

/* ---- Writing ---- */

static enum err out_reserve(struct extent_writer *writer, size_t bytes)
{
    if (writer->room - writer->used >= bytes)
        return ERR_NONE;
    size_t room = writer->used + bytes;
    room =
        room < WRITE_BYTES + 2 * EXTENT_BLOCK_BYTES ? WRITE_BYTES + 2 * EXTENT_BLOCK_BYTES : room;
    uint8_t *out = realloc(writer->out, room);
    if (out == NULL)
        return ERR_NO_MEMORY;
    writer->out = out;
    writer->room = room;
    return ERR_NONE;
}

static enum err out_write(struct extent_writer *writer)
{
    enum err err = disk_write_sync(writer->file, writer->out, writer->used, writer->offset);
    writer->offset += writer->used;
    writer->used = 0;
    return err;
}

static enum err writer_begin(struct extent_writer *writer)
{
    enum err err = out_reserve(writer, EXTENT_HEADER_BYTES);
    if (err == ERR_NONE)
        err = disk_open(writer->disk, writer->path, true, &writer->file);
    if (err != ERR_NONE)
        return err;
    extent_header_put(writer->out, &writer->header);
    writer->used = EXTENT_HEADER_BYTES;
    writer->block_at = SIZE_MAX;
    return ERR_NONE;
}

static enum err rows_reserve(struct extent_writer *writer)
{
    if (writer->row_count == writer->row_room) {
        uint64_t room = writer->row_room == 0 ? 64 : writer->row_room * 2;
        struct extent_row *rows = realloc(writer->rows, room * sizeof *rows);
        if (rows == NULL)
            return ERR_NO_MEMORY;
        writer->rows = rows;
        writer->row_room = room;
    }
    return ERR_NONE;
}

static enum err block_finish(struct extent_writer *writer)
{
    if (writer->block_at == SIZE_MAX)
        return ERR_NONE;
    enum err err = rows_reserve(writer);
    if (err != ERR_NONE)
        return err;
    struct extent_block *block = &writer->block;
    size_t body = writer->used - writer->block_at - BLOCK_HEADER_BYTES;
    size_t padded = extent_block_bytes((uint32_t)body);
    memset(writer->out + writer->used, 0, padded - BLOCK_HEADER_BYTES - body);
    block->body = (uint32_t)body;
    block->offset = writer->offset + writer->block_at;
    block->extent = writer->header.number;
    extent_block_put(writer->out + writer->block_at, block);
    writer->used = writer->block_at + padded;
    writer->rows[writer->row_count++] = (struct extent_row){.block = *block,
                                                            .bytes = writer->block_entry_bytes,
                                                            .sum = writer->sum,
                                                            .peak_ms = writer->peak_ms};
    writer->block_at = SIZE_MAX;
    writer->block_count++;
    return writer->used >= WRITE_BYTES ? out_write(writer) : ERR_NONE;
}

/* Entries copied from different blocks go together only without a gap between them: what is missing
 * there may stand in a block of its own. */
static bool block_takes(const struct extent_writer *writer, uint64_t stream,
                        const struct extent_entry *entry, uint64_t sum)
{
    const struct extent_block *block = &writer->block;
    size_t body = writer->used - writer->block_at - BLOCK_HEADER_BYTES;
    return writer->block_at != SIZE_MAX && block->stream == stream && entry->base >= block->end &&
           entry->base - block->base <= UINT32_MAX && block->count < EXTENT_ENTRIES_MAX &&
           (sum == UINT64_MAX) == (writer->sum == UINT64_MAX) &&
           (sum == writer->source || entry->base == block->end) &&
           body + entry->data.len <= EXTENT_BLOCK_BYTES;
}

enum err extent_writer_add(struct extent_writer *writer, uint64_t stream,
                           const struct extent_entry *entry, uint64_t sum, int64_t peak_ms)
{
    assert(entry->data.len >= 8 && entry->data.len < EXTENT_BLOCK_MAX / 2);
    enum err err = writer->file == NULL ? writer_begin(writer) : ERR_NONE;
    if (err == ERR_NONE && !block_takes(writer, stream, entry, sum))
        err = block_finish(writer);
    if (err == ERR_NONE) /* padding included */
        err = out_reserve(writer, BLOCK_HEADER_BYTES + ENTRY_HEADER_BYTES + entry->data.len + 8);
    if (err != ERR_NONE)
        return err;
    struct extent_block *block = &writer->block;
    if (writer->block_at == SIZE_MAX) {
        writer->block_at = writer->used;
        writer->used += BLOCK_HEADER_BYTES;
        writer->block_entry_bytes = 0;
        writer->sum = sum;
        writer->peak_ms = peak_ms;
        *block = (struct extent_block){.stream = stream, .base = entry->base, .max_ms = INT64_MIN};
    }
    uint8_t *at = writer->out + writer->used;
    le32_put(at, (uint32_t)(entry->base - block->base));
    le32_put(at + 4, entry->count);
    le32_put(at + 8, (uint32_t)entry->data.len);
    memcpy(at + ENTRY_HEADER_BYTES, entry->data.data, entry->data.len);
    writer->used += ENTRY_HEADER_BYTES + entry->data.len;
    writer->block_entry_bytes += entry->data.len;
    writer->source = sum;
    block->count++;
    block->end = entry->base + entry->count;
    int64_t ms = (int64_t)be64_get(entry->data.data);
    block->max_ms = ms > block->max_ms ? ms : block->max_ms;
    writer->peak_ms = peak_ms > writer->peak_ms ? peak_ms : writer->peak_ms;
    return ERR_NONE;
}

enum err extent_writer_keep(struct extent_writer *writer, uint64_t stream,
                            const struct extent_entry *entry, uint64_t extent, uint64_t offset)
{
    enum err err = writer->file == NULL ? ERR_NONE : block_finish(writer);
    if (err == ERR_NONE)
        err = rows_reserve(writer);
    if (err != ERR_NONE)
        return err;
    struct extent_row *row = &writer->rows[writer->row_count++];
    *row = (struct extent_row){.block = {.stream = stream,
                                         .base = entry->base,
                                         .end = entry->base + entry->count,
                                         .extent = extent,
                                         .offset = offset,
                                         .count = 1,
                                         .body = (uint32_t)entry->data.len,
                                         .max_ms = (int64_t)be64_get(entry->data.data)},
                               .kept = true,
                               .crc = crc32c(0, entry->data.data, entry->data.len),
                               .bytes = entry->data.len,
                               .sum = UINT64_MAX,
                               .peak_ms = INT64_MIN};
    return ERR_NONE;
}

enum err extent_writer_finish(struct extent_writer *writer)
{
    if (writer->file == NULL)
        return ERR_NONE;
    enum err err = block_finish(writer);
    if (err == ERR_NONE)
        err = out_reserve(writer, EXTENT_END_BYTES);
    if (err != ERR_NONE)
        return err;
    extent_end_put(writer->out + writer->used, writer->header.number, writer->offset + writer->used,
                   writer->block_count);
    writer->used += EXTENT_END_BYTES;
    err = out_write(writer);
    return err == ERR_NONE ? disk_sync(writer->file) : err;
}

void extent_writer_done(struct extent_writer *writer)
{
    if (writer->file != NULL)
        disk_close(writer->file);
    free(writer->out);
    free(writer->rows);
    *writer = (struct extent_writer){0};
}
