/* Encoding and decoding of records; the table is in the header. */
#include "core/record.h"

#include "base/endian.h"
#include "codec/entry.h"
#include "codec/reader.h"

#include <assert.h>

enum { COMMON_BYTES = 8, TARGET_BYTES = 16, RANGE_BYTES = 16 };

void record_add_queue(struct record *record, uint64_t id, uint64_t base)
{
    assert(record->target_count < RECORD_TARGETS_MAX);
    record->targets[record->target_count++] = (struct record_target){id, base};
}

void record_add_partition(struct record *record, uint64_t id, uint64_t base)
{
    assert(record->target_count < RECORD_TARGETS_MAX);
    record->targets[record->target_count++] = record->targets[record->partition_count];
    record->targets[record->partition_count++] = (struct record_target){id, base};
}

size_t record_head_size(const struct record *record)
{
    switch (record->type) {
    case RECORD_APPEND:
        return COMMON_BYTES + (size_t)record->target_count * TARGET_BYTES;
    case RECORD_BATCH:
        return COMMON_BYTES + TARGET_BYTES + 8 + 4 + 8;
    case RECORD_SETTLE:
    case RECORD_RETURN:
        return COMMON_BYTES + 16;
    case RECORD_MOVE:
        return COMMON_BYTES + 24 + (size_t)record->target_count * TARGET_BYTES;
    case RECORD_TRIM:
        return COMMON_BYTES + 16;
    case RECORD_DROP:
    case RECORD_PRODUCER_IDS:
        return COMMON_BYTES + 8;
    case RECORD_CATALOG:
    case RECORD_GROUP:
    case RECORD_NOTHING:
        return COMMON_BYTES;
    }
    assert(!"unknown record type");
    return 0;
}

static uint8_t *put_u64(uint8_t *at, uint64_t value)
{
    be64_put(at, value);
    return at + 8;
}

static uint8_t *put_targets(uint8_t *at, const struct record *record, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        at = put_u64(at, record->targets[i].object);
        at = put_u64(at, record->targets[i].base);
    }
    return at;
}

uint8_t *record_put_head(uint8_t *at, const struct record *record)
{
    assert(record->target_count <= RECORD_TARGETS_MAX);
    bool has_ranges = record->type == RECORD_SETTLE || record->type == RECORD_RETURN;
    bool has_partitions = record->type == RECORD_APPEND || record->type == RECORD_MOVE;
    at[0] = (uint8_t)record->type;
    at[1] = (uint8_t)record->target_count;
    assert(record->partition_count <= record->target_count || !has_partitions);
    be16_put(at + 2, has_partitions                 ? (uint16_t)record->partition_count
                     : record->type == RECORD_BATCH ? (uint16_t)record->producer_epoch
                                                    : 0);
    be32_put(at + 4, has_ranges                     ? record->range_count
                     : record->type == RECORD_BATCH ? record->count
                                                    : 0);
    at += COMMON_BYTES;
    switch (record->type) {
    case RECORD_APPEND:
        return put_targets(at, record, record->target_count);
    case RECORD_BATCH:
        at = put_targets(at, record, 1);
        at = put_u64(at, (uint64_t)record->producer_id);
        be32_put(at, (uint32_t)record->sequence);
        return put_u64(at + 4, (uint64_t)record->time_ms);
    case RECORD_SETTLE:
    case RECORD_RETURN:
        at = put_u64(at, record->object);
        return put_u64(at, record->body_bytes);
    case RECORD_MOVE:
        at = put_u64(at, record->object);
        at = put_u64(at, record->offset);
        at = put_u64(at, record->body_bytes);
        return put_targets(at, record, record->target_count);
    case RECORD_TRIM:
        at = put_u64(at, record->object);
        return put_u64(at, record->offset);
    case RECORD_DROP:
    case RECORD_PRODUCER_IDS:
        return put_u64(at, record->object);
    case RECORD_CATALOG:
    case RECORD_GROUP:
    case RECORD_NOTHING:
        return at;
    }
    return at;
}

void record_put_range(uint8_t *ranges, uint32_t i, struct offset_range range)
{
    be64_put(ranges + (size_t)i * RANGE_BYTES, range.first);
    be64_put(ranges + (size_t)i * RANGE_BYTES + 8, range.last);
}

struct offset_range record_range(const struct record *record, uint32_t i)
{
    assert(i < record->range_count);
    const uint8_t *at = record->ranges.data + (size_t)i * RANGE_BYTES;
    return (struct offset_range){be64_get(at), be64_get(at + 8)};
}

/* Offsets stay far from the end of their range, so that sums of them do not wrap. */
static bool get_targets(struct reader *reader, struct record *out, uint32_t count)
{
    uint64_t bases = 0;
    for (uint32_t i = 0; i < count; i++) {
        out->targets[i].object = reader_u64(reader);
        out->targets[i].base = reader_u64(reader);
        bases |= out->targets[i].base;
    }
    return bases <= INT64_MAX;
}

enum err record_decode(struct slice encoded, struct record *out)
{
    struct reader reader = reader_over(encoded);
    out->type = reader_u8(&reader);
    out->target_count = reader_u8(&reader);
    uint16_t small = reader_u16(&reader);
    out->producer_epoch = (int16_t)small;
    out->partition_count = small;
    out->range_count = out->count = reader_u32(&reader);
    if (out->target_count > RECORD_TARGETS_MAX)
        return ERR_CORRUPT;
    bool holds_entry = false, sound = true;
    switch (out->type) {
    case RECORD_APPEND:
        sound = get_targets(&reader, out, out->target_count) &&
                out->partition_count <= out->target_count;
        holds_entry = true;
        break;
    case RECORD_BATCH:
        sound = get_targets(&reader, out, 1) && out->count > 0 && out->count <= INT32_MAX;
        out->producer_id = reader_i64(&reader);
        out->sequence = reader_i32(&reader);
        out->time_ms = reader_i64(&reader);
        holds_entry = true;
        break;
    case RECORD_SETTLE:
    case RECORD_RETURN:
        out->object = reader_u64(&reader);
        out->body_bytes = reader_u64(&reader);
        if (reader_left(&reader) / RANGE_BYTES < out->range_count)
            return ERR_CORRUPT;
        out->ranges = reader_slice(&reader, (size_t)out->range_count * RANGE_BYTES);
        break;
    case RECORD_MOVE:
        out->object = reader_u64(&reader);
        out->offset = reader_u64(&reader);
        out->body_bytes = reader_u64(&reader);
        sound = get_targets(&reader, out, out->target_count) && out->target_count > 0 &&
                out->partition_count <= out->target_count;
        holds_entry = true;
        break;
    case RECORD_TRIM:
        out->object = reader_u64(&reader);
        out->offset = reader_u64(&reader);
        break;
    case RECORD_DROP:
    case RECORD_PRODUCER_IDS:
        out->object = reader_u64(&reader);
        break;
    case RECORD_CATALOG:
    case RECORD_GROUP:
    case RECORD_NOTHING:
        break;
    default:
        return ERR_CORRUPT;
    }
    out->bytes = reader_slice(&reader, reader_left(&reader));
    if (reader.failed || !sound || (holds_entry && out->bytes.len < ENTRY_HEAD_BYTES))
        return ERR_CORRUPT;
    return ERR_NONE;
}
