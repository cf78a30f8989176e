/* Hostile extent blocks and state-store rows. The first byte says what the input is; its lowest
 * bit, that the checksum is made right, so that the fuzzer gets past it. What is accepted must be
 * walkable and must come out of the writer as the same entries. */
#include "store/disk_double.h"
#include "store/extent.h"
#include "store/format.h"
#include "store/index.h"

#include "base/endian.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Writes the block's entries and compares what is written. */
static void entries_rewrite(const uint8_t *data, const struct extent_block *block)
{
    struct double_disk *disk = double_create(1);
    struct extent_writer writer = {
        .disk = &disk->disk, .path = "c/extent", .header = {.number = 1}};
    uint32_t at = 0;
    for (uint32_t i = 0; i < block->count; i++) {
        struct extent_entry entry;
        extent_entry_get(data, block, &at, &entry);
        if (entry.base + entry.count > block->end ||
            entry.data.data + entry.data.len > data + BLOCK_HEADER_BYTES + block->body)
            abort();
        if (extent_writer_add(&writer, block->stream, &entry, UINT64_MAX, 0) != ERR_NONE)
            abort();
    }
    if (at != block->body || extent_writer_finish(&writer) != ERR_NONE)
        abort();
    uint64_t count = 0;
    struct double_inode *inode = ((struct double_file *)(void *)writer.file)->inode;
    for (uint64_t i = 0; i < writer.row_count; i++) {
        struct extent_block written;
        uint64_t offset = writer.rows[i].block.offset;
        if (!extent_block_check(inode->data + offset, inode->size - offset, &written) ||
            written.stream != block->stream)
            abort();
        count += written.count;
    }
    if (count != block->count)
        abort();
    extent_writer_done(&writer);
    double_destroy(disk);
}

static void block_try(uint8_t *data, size_t size, bool mend)
{
    if (mend && size >= BLOCK_HEADER_BYTES) {
        uint32_t body = le32_get(data + 52);
        le32_put(data, UINT32_C(0x4b4c4257));
        if (extent_block_bytes(body) <= size)
            le32_put(data + 4, crc32c(0, data + 8, extent_block_bytes(body) - 8));
    }
    struct extent_block block;
    if (extent_block_check(data, size, &block))
        entries_rewrite(data, &block);
}

static void row_try(uint8_t *data, size_t size, bool mend)
{
    size_t key_len = size > 40 ? 17 : size / 2 < 10 ? size / 2 : 10;
    struct slice key = {.data = data, .len = key_len};
    struct slice value = {.data = data + key_len, .len = size - key_len};
    if (mend && value.len >= 4)
        le32_put(data + size - 4, crc32c(crc32c(0, key.data, key.len), value.data, value.len - 4));
    struct index_meta meta;
    struct index_row row;
    struct index_extent extent;
    uint8_t kind;
    uint64_t id;
    struct slice object;
    if (index_meta_get(key, value, &meta) + index_row_get(key, value, &row) +
            index_extent_get(key, value, &extent) +
            index_object_get(key, value, &kind, &id, &object) >
        1)
        return; /* a key of one byte may pass for no table; nothing else is asked of them */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > (1u << 20))
        return 0;
    uint8_t flags = data[0];
    uint8_t *copy = malloc(size); /* exactly as large, so that reading beyond is seen */
    if (copy == NULL)
        return 0;
    memcpy(copy, data + 1, size - 1);
    struct extent_header header;
    uint64_t blocks;
    if ((flags & 2) != 0)
        row_try(copy, size - 1, flags & 1);
    else
        block_try(copy, size - 1, flags & 1);
    if (size - 1 >= EXTENT_HEADER_BYTES) {
        (void)extent_header_get(copy, &header);
        (void)extent_end_get(copy, 1, 1, &blocks);
    }
    free(copy);
    return 0;
}
