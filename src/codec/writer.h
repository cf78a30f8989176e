#ifndef WEIR_CODEC_WRITER_H
#define WEIR_CODEC_WRITER_H

/*
 * Writes wire primitives into memory that the caller provides. What does not fit is not written and
 * sets `failed`, which stays set: encode a whole message first and look at `failed` once.
 *
 * Large payloads need not be copied: with `leave_out` set, writer_payload tells that function where
 * in the memory the payload belongs and how long it is, and writes nothing. The caller then sends
 * the memory up to the first such place, the first payload, the memory up to the second place, and
 * so on (an iovec). The payload's `data` is passed on unread, so it may as well point to a chain of
 * pieces whose lengths sum up to `len`.
 */

#include "base/endian.h"
#include "base/slice.h"

struct writer {
    uint8_t *at, *end;
    bool failed;
    void (*leave_out)(void *context, const uint8_t *at, struct slice payload);
    void *context;
};

static inline struct writer writer_over(void *memory, size_t size)
{
    return (struct writer){.at = memory, .end = (uint8_t *)memory + size};
}

static inline size_t writer_left(const struct writer *writer)
{
    return (size_t)(writer->end - writer->at);
}

static inline void writer_fail(struct writer *writer)
{
    writer->failed = true;
    writer->at = writer->end;
}

/* Room for len bytes that the caller fills, now or later (lengths, checksums); NULL when full. */
static inline uint8_t *writer_reserve(struct writer *writer, size_t len)
{
    if (__builtin_expect(len > writer_left(writer), 0)) {
        writer_fail(writer);
        return NULL;
    }
    uint8_t *at = writer->at;
    writer->at += len;
    return at;
}

static inline void writer_u8(struct writer *writer, uint8_t value)
{
    uint8_t *at = writer_reserve(writer, 1);
    if (at)
        *at = value;
}

static inline void writer_u16(struct writer *writer, uint16_t value)
{
    uint8_t *at = writer_reserve(writer, 2);
    if (at)
        be16_put(at, value);
}

static inline void writer_u32(struct writer *writer, uint32_t value)
{
    uint8_t *at = writer_reserve(writer, 4);
    if (at)
        be32_put(at, value);
}

static inline void writer_u64(struct writer *writer, uint64_t value)
{
    uint8_t *at = writer_reserve(writer, 8);
    if (at)
        be64_put(at, value);
}

static inline void writer_i8(struct writer *writer, int8_t value)
{
    writer_u8(writer, (uint8_t)value);
}

static inline void writer_i16(struct writer *writer, int16_t value)
{
    writer_u16(writer, (uint16_t)value);
}

static inline void writer_i32(struct writer *writer, int32_t value)
{
    writer_u32(writer, (uint32_t)value);
}

static inline void writer_i64(struct writer *writer, int64_t value)
{
    writer_u64(writer, (uint64_t)value);
}

static inline void writer_bytes(struct writer *writer, const void *data, size_t len)
{
    uint8_t *at = writer_reserve(writer, len);
    if (at && len)
        memcpy(at, data, len);
}

static inline void writer_slice(struct writer *writer, struct slice slice)
{
    writer_bytes(writer, slice.data, slice.len);
}

/* The same, or left out. */
static inline void writer_payload(struct writer *writer, struct slice payload)
{
    if (!writer->leave_out)
        writer_slice(writer, payload);
    else if (payload.len && !writer->failed)
        writer->leave_out(writer->context, writer->at, payload);
}

static inline size_t uvarlong_size(uint64_t value)
{
    return (size_t)(64 - __builtin_clzll(value | 1) + 6) / 7;
}

static inline uint64_t zigzag(int64_t value)
{
    return ((uint64_t)value << 1) ^ (uint64_t)(value >> 63);
}

static inline size_t varlong_size(int64_t value)
{
    return uvarlong_size(zigzag(value));
}

/* Also for 32-bit values: the bytes are the same. */
static inline void writer_uvarlong(struct writer *writer, uint64_t value)
{
    uint8_t *at = writer_reserve(writer, uvarlong_size(value));
    if (!at)
        return;
    for (; value >= 0x80; value >>= 7)
        *at++ = (uint8_t)(value | 0x80);
    *at = (uint8_t)value;
}

/* Zigzag; also for 32-bit values. */
static inline void writer_varlong(struct writer *writer, int64_t value)
{
    writer_uvarlong(writer, zigzag(value));
}

#endif
