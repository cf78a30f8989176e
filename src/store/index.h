/* What a cell's state store holds, as keys and values: one meta row, a row per extent block, a row
 * per extent file, and the core's objects. Keys sort as their fields (big-endian); every value ends
 * in a CRC32C over key and value, because the state store's own pages have none. docs/formats.md
 * has the bytes. Decoders return false for what is not exactly right. */
#ifndef WEIR_STORE_INDEX_H
#define WEIR_STORE_INDEX_H

#include "store/extent.h"
#include "store/state.h"

#include <stdbool.h>
#include <stdint.h>

#define INDEX_VERSION 2u /* 1: without kept entries */

struct index_key {
    uint8_t data[STATE_KEY_MAX];
    size_t len;
};

static inline struct slice index_key_slice(const struct index_key *key)
{
    return (struct slice){.data = key->data, .len = key->len};
}

struct index_meta {
    uint32_t cell;
    uint32_t chain;       /* of the journal's frame that ends at position */
    uint64_t position;    /* replay begins here */
    uint64_t index;       /* of the frame that begins there */
    uint64_t least_end;   /* objects hold changes up to here: the journal must reach it */
    uint64_t next_extent; /* number of the next extent file */
};

/* A block of a stream and where it is: in an extent that a checkpoint wrote, or, a single entry's
 * bytes and nothing around them, in a journal file that became one. */
struct index_row {
    uint64_t stream, base, end; /* offsets base .. end-1, maybe with gaps */
    uint64_t extent, offset;
    uint32_t body, count;
    uint64_t bytes; /* of entries */
    uint64_t sum;   /* of bytes of the stream's rows before it; only differences mean something */
    int64_t max_ms, peak_ms; /* newest timestamp in it; in it or any row before it */
    bool kept;               /* the latter; then crc is that of the bytes */
    uint32_t crc;
};

/* Bytes of the file that the row needs. */
static inline uint64_t index_row_bytes(const struct index_row *row)
{
    return row->kept ? row->body : extent_block_bytes(row->body);
}

struct index_extent {
    uint64_t number;
    uint64_t bytes;  /* of the file; 0: of a journal file that was kept */
    uint64_t live;   /* bytes of blocks that rows point to */
    uint64_t blocks; /* how many those are; at 0 the file can go */
};

void index_meta_key(struct index_key *out);
void index_row_key(uint64_t stream, uint64_t base, struct index_key *out);
void index_extent_key(uint64_t number, struct index_key *out);
void index_object_key(uint8_t kind, uint64_t id, struct index_key *out);

void index_meta_put(struct state_batch *batch, const struct index_meta *meta);
void index_row_put(struct state_batch *batch, const struct index_row *row);
void index_extent_put(struct state_batch *batch, const struct index_extent *extent);
/* value.data == NULL: deletes it. */
void index_object_put(struct state_batch *batch, uint8_t kind, uint64_t id, struct slice value);

bool index_meta_get(struct slice key, struct slice value, struct index_meta *out);
bool index_row_get(struct slice key, struct slice value, struct index_row *out);
bool index_extent_get(struct slice key, struct slice value, struct index_extent *out);
bool index_object_get(struct slice key, struct slice value, uint8_t *kind, uint64_t *id,
                      struct slice *out);

/* Is it a row of one of the tables, with the checksum that it was written with? */
bool index_row_sound(struct slice key, struct slice value);

/* Which table a key belongs to: 'M', 'E', 'X' or 'O'. */
static inline uint8_t index_table(struct slice key)
{
    return key.len > 0 ? key.data[0] : 0;
}

/* First the row that holds the offset, else the first one behind it. ERR_NOT_FOUND, ERR_CORRUPT. */
enum err index_row_find(const struct state_backend *backend, struct state_reader *reader,
                        uint64_t stream, uint64_t offset, struct index_row *out);
/* The stream's last row. */
enum err index_row_last(const struct state_backend *backend, struct state_reader *reader,
                        uint64_t stream, struct index_row *out);
/* The first row whose base is at or behind the given one. */
enum err index_row_from(const struct state_backend *backend, struct state_reader *reader,
                        uint64_t stream, uint64_t base, struct index_row *out);

#endif
