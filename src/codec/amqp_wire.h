/* The smallest pieces of AMQP 0-9-1 on the wire: short and long strings and frames (sections 4.2.3
 * and 4.2.5 of the specification). Writers here write into memory that the caller measured. */
#ifndef WEIR_CODEC_AMQP_WIRE_H
#define WEIR_CODEC_AMQP_WIRE_H

#include "base/endian.h"
#include "base/slice.h"
#include "codec/reader.h"

enum amqp_frame_type {
    AMQP_FRAME_METHOD = 1,
    AMQP_FRAME_HEADER = 2,
    AMQP_FRAME_BODY = 3,
    AMQP_FRAME_HEARTBEAT = 8,
};

enum {
    AMQP_FRAME_HEAD_BYTES = 7, /* type, channel, size */
    AMQP_FRAME_OVERHEAD_BYTES = 8,
    AMQP_FRAME_END = 0xCE,
    AMQP_CONTENT_HEAD_BYTES = 12, /* class, weight, body size: the properties follow */
    AMQP_SHORTSTR_MAX = 255,
};

static inline struct slice amqp_shortstr(struct reader *reader)
{
    return reader_slice(reader, reader_u8(reader));
}

static inline struct slice amqp_longstr(struct reader *reader)
{
    return reader_slice(reader, reader_u32(reader));
}

/* Writes text of at most 255 bytes; returns the place behind it. */
static inline uint8_t *amqp_shortstr_put(uint8_t *at, struct slice text)
{
    *at++ = (uint8_t)text.len;
    if (text.len)
        memcpy(at, text.data, text.len);
    return at + text.len;
}

static inline uint8_t *amqp_longstr_put(uint8_t *at, struct slice text)
{
    be32_put(at, (uint32_t)text.len);
    if (text.len)
        memcpy(at + 4, text.data, text.len);
    return at + 4 + text.len;
}

static inline uint8_t *amqp_frame_head_put(uint8_t *at, enum amqp_frame_type type, uint16_t channel,
                                           size_t payload)
{
    at[0] = (uint8_t)type;
    be16_put(at + 1, channel);
    be32_put(at + 3, (uint32_t)payload);
    return at + AMQP_FRAME_HEAD_BYTES;
}

/* Begins a method frame whose size amqp_frame_end fills in. */
static inline uint8_t *amqp_frame_begin(uint8_t *at, uint16_t channel, uint32_t method)
{
    at = amqp_frame_head_put(at, AMQP_FRAME_METHOD, channel, 0);
    be32_put(at, method);
    return at + 4;
}

static inline size_t amqp_frame_end(uint8_t *begin, uint8_t *at)
{
    be32_put(begin + 3, (uint32_t)(at - begin) - AMQP_FRAME_HEAD_BYTES);
    *at++ = AMQP_FRAME_END;
    return (size_t)(at - begin);
}

#endif
