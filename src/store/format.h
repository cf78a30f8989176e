/* The bytes of a cell's files, as docs/formats.md describes them: encoding, decoding and checking
 * of headers, and nothing else. All integers are little-endian. Everything read here may be
 * damaged or hostile: the decoders return false for anything that is not exactly right. */
#ifndef WEIR_STORE_FORMAT_H
#define WEIR_STORE_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- Journal files: a header, then frames ---- */

#define JOURNAL_HEADER_BYTES 4096u
#define JOURNAL_VERSION      2u
#define FRAME_HEADER_BYTES   64u
#define FRAME_ALIGN          512u /* a sector: no write touches one that was synced */
#define FRAME_BODY_MAX       (UINT32_C(1) << 30)
#define RECORD_HEADER_BYTES  4u

struct journal_header {
    uint32_t cell;
    uint64_t start; /* position of the first byte behind the header */
};

void journal_header_put(uint8_t *out, const struct journal_header *header);
bool journal_header_get(const uint8_t *data, struct journal_header *out);

struct frame {
    uint32_t crc;
    uint32_t body;  /* bytes, without padding */
    uint32_t chain; /* crc of the frame before this one; 0 for the first frame of a cell */
    uint64_t position;
    uint64_t term;
    uint64_t index;
    int64_t time_ms;
    uint64_t durable; /* everything before this position had been synced when this was written */
    uint32_t records;
};

/* Bytes of a frame with that body, header and padding included. */
static inline uint64_t frame_bytes(uint32_t body)
{
    return (FRAME_HEADER_BYTES + (uint64_t)body + FRAME_ALIGN - 1) & ~(uint64_t)(FRAME_ALIGN - 1);
}

/* Writes the header, all but the checksum. */
void frame_put(uint8_t *at, const struct frame *frame);
/* Writes the header and the checksum over it and the body that stands behind it (padding zeroed by
 * the caller), and returns that. */
uint32_t frame_seal(uint8_t *at, const struct frame *frame);
/* Might a frame begin here? Four bytes are looked at. */
bool frame_begins(const uint8_t *data);
/* Most of the header is that of the frame which would follow there. */
bool frame_resembles(const uint8_t *data, uint64_t position, uint64_t index, uint32_t chain);
/* The header alone is plausible: magic, sizes. `room` = bytes there may be from `data` on. */
bool frame_peek(const uint8_t *data, uint64_t room, struct frame *out);
/* The whole frame is there and its checksum is right. */
bool frame_check(const uint8_t *data, uint64_t room, struct frame *out);

/* Walks a frame's records: *at starts at 0; false at the end (or where a length is impossible,
 * then *at is UINT32_MAX). */
bool frame_next(const uint8_t *data, const struct frame *frame, uint32_t *at,
                const uint8_t **record, uint32_t *len);

uint32_t crc32c(uint32_t seed, const void *data, size_t len);
/* Which one bit, turned, changes the checksum of `len` bytes, or the 4 bytes of the checksum that
 * stands behind them, by `difference`? *bit counts from the first byte. False: none does. */
bool crc32c_bit(uint32_t difference, size_t len, size_t *bit);

#endif
