/* Byte layouts of the cell's files. Each decoder checks magic, version, sizes and CRC32C before it
 * lets a caller see a field; the layouts themselves are described in docs/formats.md. */
#include "store/format.h"

#include "base/endian.h"

#include <assert.h>
#include <isa-l/crc.h>
#include <string.h>

#define FRAME_MAGIC       UINT32_C(0x4d524657) /* "WFRM" */
#define CRC32C_POLYNOMIAL UINT32_C(0x82f63b78)

static const uint8_t journal_magic[8] = {'W', 'E', 'I', 'R', 'J', 'R', 'N', 'L'};

/* ISA-L's function takes an int length, a pointer that is not const, and leaves both inversions to
 * its caller. */
uint32_t crc32c(uint32_t seed, const void *data, size_t len)
{
    const unsigned char *at = data;
    uint32_t crc = ~seed;
    while (len > 0) {
        int step = len < (1u << 30) ? (int)len : (1 << 30);
        crc = crc32_iscsi((unsigned char *)(uintptr_t)at, step, crc);
        at += step;
        len -= (size_t)step;
    }
    return ~crc;
}

bool crc32c_bit(uint32_t difference, size_t len, size_t *bit)
{
    if (difference != 0 && (difference & (difference - 1)) == 0) {
        *bit = 8 * len + (size_t)__builtin_ctz(difference);
        return true;
    }
    /* What a bit in the last byte changes, then in the one before it, ...: reflected, each step
     * multiplies by x. */
    uint32_t change = 1;
    for (size_t at = 8 * len; at > 0; at--) {
        change = change >> 1 ^ ((change & 1) != 0 ? CRC32C_POLYNOMIAL : 0);
        if (change == difference) {
            *bit = at - 1;
            return true;
        }
    }
    return false;
}

void journal_header_put(uint8_t *out, const struct journal_header *header)
{
    memset(out, 0, JOURNAL_HEADER_BYTES);
    memcpy(out, journal_magic, sizeof journal_magic);
    le32_put(out + 8, JOURNAL_VERSION);
    le32_put(out + 12, header->cell);
    le64_put(out + 16, header->start);
    le32_put(out + JOURNAL_HEADER_BYTES - 4, crc32c(0, out, JOURNAL_HEADER_BYTES - 4));
}

bool journal_header_get(const uint8_t *data, struct journal_header *out)
{
    if (memcmp(data, journal_magic, sizeof journal_magic) != 0 ||
        le32_get(data + 8) != JOURNAL_VERSION ||
        le32_get(data + JOURNAL_HEADER_BYTES - 4) != crc32c(0, data, JOURNAL_HEADER_BYTES - 4))
        return false;
    out->cell = le32_get(data + 12);
    out->start = le64_get(data + 16);
    return true;
}

void frame_put(uint8_t *at, const struct frame *frame)
{
    assert(frame->body > 0 && frame->body <= FRAME_BODY_MAX);
    le32_put(at, FRAME_MAGIC);
    le32_put(at + 4, 0);
    le32_put(at + 8, frame->body);
    le32_put(at + 12, frame->chain);
    le64_put(at + 16, frame->position);
    le64_put(at + 24, frame->term);
    le64_put(at + 32, frame->index);
    le64_put(at + 40, (uint64_t)frame->time_ms);
    le64_put(at + 48, frame->durable);
    le32_put(at + 56, frame->records);
    le32_put(at + 60, 0);
}

uint32_t frame_seal(uint8_t *at, const struct frame *frame)
{
    frame_put(at, frame);
    uint32_t crc = crc32c(0, at + 8, frame_bytes(frame->body) - 8);
    le32_put(at + 4, crc);
    return crc;
}

bool frame_begins(const uint8_t *data)
{
    return le32_get(data) == FRAME_MAGIC;
}

bool frame_resembles(const uint8_t *data, uint64_t position, uint64_t index, uint32_t chain)
{
    return (le32_get(data) == FRAME_MAGIC) + (le64_get(data + 16) == position) +
               (le64_get(data + 32) == index) + (le32_get(data + 12) == chain) >=
           3;
}

bool frame_peek(const uint8_t *data, uint64_t room, struct frame *out)
{
    if (room < FRAME_HEADER_BYTES || le32_get(data) != FRAME_MAGIC || le32_get(data + 60) != 0)
        return false;
    uint32_t body = le32_get(data + 8);
    if (body == 0 || body > FRAME_BODY_MAX || frame_bytes(body) > room)
        return false;
    out->crc = le32_get(data + 4);
    out->body = body;
    out->chain = le32_get(data + 12);
    out->position = le64_get(data + 16);
    out->term = le64_get(data + 24);
    out->index = le64_get(data + 32);
    out->time_ms = (int64_t)le64_get(data + 40);
    out->durable = le64_get(data + 48);
    out->records = le32_get(data + 56);
    return true;
}

bool frame_check(const uint8_t *data, uint64_t room, struct frame *out)
{
    struct frame frame;
    if (!frame_peek(data, room, &frame) ||
        frame.crc != crc32c(0, data + 8, frame_bytes(frame.body) - 8))
        return false;
    *out = frame;
    return true;
}

bool frame_next(const uint8_t *data, const struct frame *frame, uint32_t *at,
                const uint8_t **record, uint32_t *len)
{
    if (*at >= frame->body)
        return false;
    const uint8_t *body = data + FRAME_HEADER_BYTES;
    uint32_t room = frame->body - *at;
    uint32_t bytes = room < RECORD_HEADER_BYTES ? 0 : le32_get(body + *at);
    if (bytes == 0 || bytes > room - RECORD_HEADER_BYTES) {
        *at = UINT32_MAX;
        return false;
    }
    *record = body + *at + RECORD_HEADER_BYTES;
    *len = bytes;
    *at += RECORD_HEADER_BYTES + bytes;
    return true;
}
