#ifndef WEIR_CODEC_READER_H
#define WEIR_CODEC_READER_H

/*
 * Reads wire primitives from a bounded range of bytes, which it borrows. A read past the end gives
 * zero (a null slice), consumes what is left and sets `failed`, which stays set: decode a whole
 * message first and look at `failed` once.
 */

#include "base/endian.h"
#include "base/slice.h"

struct reader {
    const uint8_t *at, *end;
    bool failed;
};

/* The null slice is read as an empty one. */
static inline struct reader reader_over(struct slice slice)
{
    const uint8_t *at = slice.data ? slice.data : (const uint8_t *)"";
    return (struct reader){.at = at, .end = at + slice.len};
}

static inline size_t reader_left(const struct reader *reader)
{
    return (size_t)(reader->end - reader->at);
}

static inline void reader_fail(struct reader *reader)
{
    reader->failed = true;
    reader->at = reader->end;
}

/* The next len bytes, or NULL when there are fewer. */
static inline const uint8_t *reader_take(struct reader *reader, size_t len)
{
    if (__builtin_expect(len > reader_left(reader), 0)) {
        reader_fail(reader);
        return NULL;
    }
    const uint8_t *at = reader->at;
    reader->at += len;
    return at;
}

/* The next len bytes; the null slice when there are fewer. */
static inline struct slice reader_slice(struct reader *reader, size_t len)
{
    const uint8_t *at = reader_take(reader, len);
    return (struct slice){.data = at, .len = at ? len : 0};
}

static inline uint8_t reader_u8(struct reader *reader)
{
    const uint8_t *at = reader_take(reader, 1);
    return at ? *at : 0;
}

static inline uint16_t reader_u16(struct reader *reader)
{
    const uint8_t *at = reader_take(reader, 2);
    return at ? be16_get(at) : 0;
}

static inline uint32_t reader_u32(struct reader *reader)
{
    const uint8_t *at = reader_take(reader, 4);
    return at ? be32_get(at) : 0;
}

static inline uint64_t reader_u64(struct reader *reader)
{
    const uint8_t *at = reader_take(reader, 8);
    return at ? be64_get(at) : 0;
}

static inline int8_t reader_i8(struct reader *reader)
{
    return (int8_t)reader_u8(reader);
}

static inline int16_t reader_i16(struct reader *reader)
{
    return (int16_t)reader_u16(reader);
}

static inline int32_t reader_i32(struct reader *reader)
{
    return (int32_t)reader_u32(reader);
}

static inline int64_t reader_i64(struct reader *reader)
{
    return (int64_t)reader_u64(reader);
}

/* Seven bits a byte, least significant first; longer than bits_max allows fails. */
static inline uint64_t reader_uvarint_of(struct reader *reader, unsigned bits_max)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < bits_max; shift += 7) {
        if (__builtin_expect(reader->at == reader->end, 0))
            break;
        uint64_t byte = *reader->at++;
        if (shift + 7 > bits_max && byte >> (bits_max - shift))
            break;
        value |= (byte & 0x7f) << shift;
        if (byte < 0x80)
            return value;
    }
    reader_fail(reader);
    return 0;
}

static inline uint32_t reader_uvarint(struct reader *reader)
{
    return (uint32_t)reader_uvarint_of(reader, 32);
}

static inline uint64_t reader_uvarlong(struct reader *reader)
{
    return reader_uvarint_of(reader, 64);
}

/* Zigzag: 0, -1, 1, -2, ... are 0, 1, 2, 3, ... */
static inline int32_t reader_varint(struct reader *reader)
{
    uint32_t value = reader_uvarint(reader);
    return (int32_t)(value >> 1) ^ -(int32_t)(value & 1);
}

static inline int64_t reader_varlong(struct reader *reader)
{
    uint64_t value = reader_uvarlong(reader);
    return (int64_t)(value >> 1) ^ -(int64_t)(value & 1);
}

#endif
