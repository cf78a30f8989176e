/* Extents: immutable files that hold what a checkpoint found still needed, sorted by stream. A file
 * is a header, blocks, and an end mark; a block holds entries of one stream and is the unit that is
 * read and checked. docs/formats.md has the bytes. Writing is done by jobs on a helper thread,
 * parsing by anybody; nothing here touches the store. */
#ifndef WEIR_STORE_EXTENT_H
#define WEIR_STORE_EXTENT_H

#include "base/slice.h"
#include "io/disk.h"

#include <stdbool.h>
#include <stdint.h>

#define EXTENT_VERSION      1u
#define EXTENT_HEADER_BYTES 64u
#define EXTENT_END_BYTES    64u
#define BLOCK_HEADER_BYTES  64u
#define ENTRY_HEADER_BYTES  12u
#define EXTENT_BLOCK_BYTES                                                                         \
    (128u * 1024) /* of entries in a block, about; more for a large entry                          \
                   */
#define EXTENT_BLOCK_MAX   (UINT32_C(1) << 30)
#define EXTENT_ENTRIES_MAX 4096u

struct extent_header {
    uint32_t cell;
    uint64_t number;
};

/* Of one block: what its header says. */
struct extent_block {
    uint64_t stream;
    uint64_t base, end; /* offsets: of the first entry, and behind the last one */
    uint64_t extent; /* number of the file and offset in it, so that nothing misplaced is taken */
    uint64_t offset;
    uint32_t count; /* entries */
    uint32_t body;  /* bytes behind the header, without padding */
    int64_t max_ms; /* newest timestamp */
};

/* Bytes of a block in the file, header and padding included. */
static inline uint64_t extent_block_bytes(uint32_t body)
{
    return BLOCK_HEADER_BYTES + (((uint64_t)body + 7) & ~(uint64_t)7);
}

void extent_header_put(uint8_t *out, const struct extent_header *header);
bool extent_header_get(const uint8_t *data, struct extent_header *out);
void extent_end_put(uint8_t *out, uint64_t extent, uint64_t offset, uint64_t blocks);
bool extent_end_get(const uint8_t *data, uint64_t extent, uint64_t offset, uint64_t *blocks);

/* Writes the header of a block whose body and padding stand behind it, with the checksum over all.
 */
void extent_block_put(uint8_t *at, const struct extent_block *block);
/* The header alone is plausible. */
bool extent_block_peek(const uint8_t *data, uint64_t room, struct extent_block *out);
/* The whole block is there, its checksum is right and its entries are in order. */
bool extent_block_check(const uint8_t *data, uint64_t room, struct extent_block *out);

struct extent_entry {
    uint64_t base;
    uint32_t count;
    struct slice data;
};

/* The entry at `at` (0: the first); *at becomes the next one's. Of a block that was checked. */
void extent_entry_get(const uint8_t *data, const struct extent_block *block, uint32_t *at,
                      struct extent_entry *out);

/* ---- Writing ---- */

/* One written block, or an entry that stays elsewhere, as the index will know it. */
struct extent_row {
    struct extent_block block;
    bool kept;      /* the block is an entry's bytes alone */
    uint32_t crc;   /* of them */
    uint64_t bytes; /* of entries */
    uint64_t
        sum; /* bytes of the stream's entries before it, when it was rewritten; else UINT64_MAX */
    int64_t peak_ms;
};

/* Builds one file, front to back. Memory: the block being built and what gathered for one write. */
struct extent_writer {
    struct disk *disk;
    struct disk_file *file; /* NULL until the first write */
    char path[4096];
    struct extent_header header;
    uint64_t offset; /* in the file, of out[0] */
    uint8_t *out;
    size_t used, room;
    size_t block_at; /* of the open block in out; SIZE_MAX: none */
    struct extent_block block;
    uint64_t block_entry_bytes;
    uint64_t sum;
    uint64_t source; /* `sum` of the entry added last: of the block it comes from */
    int64_t peak_ms;
    struct extent_row *rows;
    uint64_t row_count, row_room;
    uint64_t block_count; /* rows of blocks of this file */
};

/* Entries of a stream come in order of base; streams one after the other (coming back to one is
 * allowed and starts another block). `sum` and peak_ms as in struct extent_row. */
enum err extent_writer_add(struct extent_writer *writer, uint64_t stream,
                           const struct extent_entry *entry, uint64_t sum, int64_t peak_ms);
/* The same of an entry that stays at `offset` of another extent. */
enum err extent_writer_keep(struct extent_writer *writer, uint64_t stream,
                            const struct extent_entry *entry, uint64_t extent, uint64_t offset);
/* Writes the rest and the end mark, syncs the file. Nothing is done when nothing was added. */
enum err extent_writer_finish(struct extent_writer *writer);
/* Frees memory and closes the file. */
void extent_writer_done(struct extent_writer *writer);

#endif
