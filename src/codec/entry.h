/* The form of one entry of a stream: a head that every protocol shares, then the message in the
 * form it came in. Property bytes are kept verbatim; only another protocol's face converts them.
 *
 *   offset size
 *        0    8  timestamp, ms since 1970: arrival, or the producer's (a batch: the largest)
 *        8    8  expiry, ms since 1970; 0 = none
 *       16    1  form (enum entry_form)
 *       17    1  flags (ENTRY_PERSISTENT, ...)
 *       18    2  zero
 *       20       the form's own part
 *
 * ENTRY_AMQP: u8 length + exchange, u8 length + routing key, u32 length + properties as in the
 * content header (property flags and list), body (the rest). One message.
 * ENTRY_KAFKA: one record batch, magic 2; its base offset is the entry's base. `count` messages.
 *
 * All numbers big-endian. */
#ifndef WEIR_CODEC_ENTRY_H
#define WEIR_CODEC_ENTRY_H

#include "base/endian.h"
#include "base/slice.h"

enum { ENTRY_HEAD_BYTES = 20 };

enum entry_form {
    ENTRY_AMQP = 1,
    ENTRY_KAFKA = 2,
};

enum {
    ENTRY_PERSISTENT = 1,
    ENTRY_DEATHS = 2, /* its x-death headers are ours, not the publisher's: they count */
};

struct entry_head {
    int64_t timestamp_ms;
    int64_t expiry_ms;
    uint8_t form;
    uint8_t flags;
};

static inline void entry_head_put(uint8_t *at, const struct entry_head *head)
{
    be64_put(at, (uint64_t)head->timestamp_ms);
    be64_put(at + 8, (uint64_t)head->expiry_ms);
    at[16] = head->form;
    at[17] = head->flags;
    at[18] = 0;
    at[19] = 0;
}

/* The entry must have at least ENTRY_HEAD_BYTES. */
static inline struct entry_head entry_head_get(struct slice entry)
{
    return (struct entry_head){
        .timestamp_ms = (int64_t)be64_get(entry.data),
        .expiry_ms = (int64_t)be64_get(entry.data + 8),
        .form = entry.data[16],
        .flags = entry.data[17],
    };
}

/* Size of an AMQP entry's body in bytes; of any other form, of all behind the head. 0 when
 * malformed. */
static inline uint32_t entry_body_bytes(struct slice entry)
{
    size_t at = ENTRY_HEAD_BYTES;
    if (entry.len < at)
        return 0;
    if (entry.data[16] != ENTRY_AMQP)
        return (uint32_t)(entry.len - at);
    for (int i = 0; i < 2; i++) {
        if (at >= entry.len)
            return 0;
        at += 1u + entry.data[at];
    }
    if (at + 4 > entry.len)
        return 0;
    at += 4u + (size_t)be32_get(entry.data + at);
    return at > entry.len ? 0 : (uint32_t)(entry.len - at);
}

#endif
