/*
 * A block is its decompressed length and a sequence of elements, told apart by the low two bits of
 * their first byte: a literal, or a copy of what was decompressed before, with an offset of 11, 16
 * or 32 bits. A copy may overlap what it makes, which repeats a pattern.
 */

#include "codec/snappy.h"

#include "codec/reader.h"

enum { RATIO_MAX = 32 }; /* a copy makes at most 64 bytes of 3 */

bool snappy_length(struct slice block, uint32_t *out)
{
    struct reader reader = reader_over(block);
    uint32_t len = reader_uvarint(&reader);
    if (reader.failed || len / RATIO_MAX > block.len)
        return false;
    *out = len;
    return true;
}

static uint32_t little_endian(struct reader *reader, uint32_t bytes)
{
    uint32_t value = 0;
    for (uint32_t i = 0; i < bytes; i++)
        value |= (uint32_t)reader_u8(reader) << (8 * i);
    return value;
}

static bool literal(struct reader *reader, uint8_t tag, uint8_t **at, const uint8_t *end)
{
    size_t len = tag >> 2;
    if (len >= 60)
        len = little_endian(reader, (uint32_t)len - 59);
    len++;
    const uint8_t *bytes = reader_take(reader, len);
    if (!bytes || len > (size_t)(end - *at))
        return false;
    memcpy(*at, bytes, len);
    *at += len;
    return true;
}

static bool copy(struct reader *reader, uint8_t tag, const uint8_t *begin, uint8_t **at,
                 const uint8_t *end)
{
    size_t len = (tag >> 2) + 1u, offset;
    if ((tag & 3) == 1) {
        len = ((tag >> 2) & 7) + 4u;
        offset = (uint32_t)(tag >> 5) << 8 | reader_u8(reader);
    } else {
        offset = little_endian(reader, (tag & 3) == 2 ? 2 : 4);
    }
    if (reader->failed || offset == 0 || offset > (size_t)(*at - begin) ||
        len > (size_t)(end - *at))
        return false;
    for (const uint8_t *from = *at - offset; len > 0; len--)
        *(*at)++ = *from++;
    return true;
}

bool snappy_decompress(struct slice block, uint8_t *out, uint32_t len)
{
    struct reader reader = reader_over(block);
    if (reader_uvarint(&reader) != len)
        return false;
    uint8_t *at = out;
    const uint8_t *end = out + len;
    while (reader_left(&reader) > 0) {
        uint8_t tag = reader_u8(&reader);
        if (!((tag & 3) == 0 ? literal(&reader, tag, &at, end) : copy(&reader, tag, out, &at, end)))
            return false;
    }
    return at == end && !reader.failed;
}
