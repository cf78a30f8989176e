/*
 * The header's layout: base offset 8, length 4, leader epoch 4, magic 1, CRC 4, attributes 2, last
 * offset delta 4, base timestamp 8, max timestamp 8, producer id 8, producer epoch 2, base sequence
 * 4, count of records 4. A record: length, attributes 1, then timestamp and offset as differences
 * from the batch's, key, value and headers, each behind a length; all numbers are zigzag varints.
 */

#include "codec/kafka_batch.h"

#include <assert.h>
#include <isa-l/crc.h>
#include <limits.h>

enum {
    LENGTH_AT = 8,
    LEADER_EPOCH_AT = 12,
    MAGIC_AT = 16,
    CRC_AT = 17,
    ATTRIBUTES_AT = 21, /* the CRC starts here */
    LAST_OFFSET_DELTA_AT = 23,
    BASE_TIMESTAMP_AT = 27,
    MAX_TIMESTAMP_AT = 35,
    PRODUCER_ID_AT = 43,
    PRODUCER_EPOCH_AT = 51,
    BASE_SEQUENCE_AT = 53,
    RECORDS_COUNT_AT = 57,
    MAGIC = 2,
    ZSTD_SINCE = 7, /* version of Produce */
};

static uint32_t crc_of(struct slice batch)
{
    assert(batch.len >= KAFKA_BATCH_HEADER_BYTES && batch.len <= INT_MAX);
    /* crc32_iscsi only reads, but its parameter is not const. */
    uint8_t *from = (uint8_t *)(uintptr_t)(batch.data + ATTRIBUTES_AT);
    return ~crc32_iscsi(from, (int)(batch.len - ATTRIBUTES_AT), ~0u);
}

bool kafka_batch_next(struct reader *reader, struct kafka_batch *out)
{
    size_t left = reader_left(reader);
    if (left == 0)
        return false;
    const uint8_t *at = reader->at;
    size_t len = left < KAFKA_BATCH_HEADER_BYTES ? SIZE_MAX : be32_get(at + LENGTH_AT);
    if (len > INT32_MAX - KAFKA_BATCH_PREFIX_BYTES ||
        len < KAFKA_BATCH_HEADER_BYTES - KAFKA_BATCH_PREFIX_BYTES ||
        len > left - KAFKA_BATCH_PREFIX_BYTES || at[MAGIC_AT] != MAGIC) {
        reader_fail(reader);
        return false;
    }
    len += KAFKA_BATCH_PREFIX_BYTES;
    *out = (struct kafka_batch){
        .bytes = reader_slice(reader, len),
        .records = slice_make(at + KAFKA_BATCH_HEADER_BYTES, len - KAFKA_BATCH_HEADER_BYTES),
        .base_offset = (int64_t)be64_get(at),
        .leader_epoch = (int32_t)be32_get(at + LEADER_EPOCH_AT),
        .crc = be32_get(at + CRC_AT),
        .attributes = (int16_t)be16_get(at + ATTRIBUTES_AT),
        .last_offset_delta = (int32_t)be32_get(at + LAST_OFFSET_DELTA_AT),
        .base_timestamp_ms = (int64_t)be64_get(at + BASE_TIMESTAMP_AT),
        .max_timestamp_ms = (int64_t)be64_get(at + MAX_TIMESTAMP_AT),
        .producer_id = (int64_t)be64_get(at + PRODUCER_ID_AT),
        .producer_epoch = (int16_t)be16_get(at + PRODUCER_EPOCH_AT),
        .base_sequence = (int32_t)be32_get(at + BASE_SEQUENCE_AT),
        .records_count = (int32_t)be32_get(at + RECORDS_COUNT_AT),
    };
    return true;
}

bool kafka_batch_intact(const struct kafka_batch *batch)
{
    return crc_of(batch->bytes) == batch->crc;
}

enum kafka_error kafka_batch_accept(struct slice records, int16_t produce_version,
                                    struct kafka_batch *out)
{
    struct reader reader = reader_over(records);
    struct kafka_batch batch;
    if (!kafka_batch_next(&reader, &batch))
        return reader.failed ? KAFKA_ERROR_CORRUPT_MESSAGE : KAFKA_ERROR_INVALID_RECORD;
    if (reader_left(&reader) > 0)
        return KAFKA_ERROR_INVALID_RECORD;
    if (!kafka_batch_intact(&batch))
        return KAFKA_ERROR_CORRUPT_MESSAGE;
    int compression = batch.attributes & KAFKA_COMPRESSION_MASK;
    if (compression > KAFKA_COMPRESSION_ZSTD ||
        (compression == KAFKA_COMPRESSION_ZSTD && produce_version < ZSTD_SINCE))
        return KAFKA_ERROR_UNSUPPORTED_COMPRESSION_TYPE;
    if (batch.records_count <= 0 || batch.last_offset_delta != batch.records_count - 1 ||
        batch.attributes & KAFKA_BATCH_CONTROL)
        return KAFKA_ERROR_INVALID_RECORD;
    if (batch.producer_id < -1 ||
        (batch.producer_id >= 0 && (batch.base_sequence < 0 || batch.producer_epoch < 0)) ||
        (batch.producer_id == -1 && batch.attributes & KAFKA_BATCH_TRANSACTIONAL))
        return KAFKA_ERROR_INVALID_RECORD;
    *out = batch;
    return KAFKA_ERROR_NONE;
}

void kafka_batch_place(uint8_t *batch, int64_t base_offset, int32_t leader_epoch)
{
    be64_put(batch, (uint64_t)base_offset);
    be32_put(batch + LEADER_EPOCH_AT, (uint32_t)leader_epoch);
}

void kafka_batch_stamp(uint8_t *batch, size_t len, int64_t timestamp_ms)
{
    uint16_t attributes = be16_get(batch + ATTRIBUTES_AT);
    be16_put(batch + ATTRIBUTES_AT, attributes | KAFKA_BATCH_LOG_APPEND_TIME);
    be64_put(batch + MAX_TIMESTAMP_AT, (uint64_t)timestamp_ms);
    be32_put(batch + CRC_AT, crc_of(slice_make(batch, len)));
}

/* Differences come from outside: their sums wrap instead of overflowing. */
static int64_t add_wrapping(int64_t base, int64_t difference)
{
    return (int64_t)((uint64_t)base + (uint64_t)difference);
}

void kafka_records_init(struct kafka_records *records, const struct kafka_batch *batch,
                        struct slice plain)
{
    bool append_time = batch->attributes & KAFKA_BATCH_LOG_APPEND_TIME;
    *records = (struct kafka_records){
        .reader = reader_over(plain),
        .left = batch->records_count,
        .append_time = append_time,
        .base_offset = batch->base_offset,
        .timestamp_ms = append_time ? batch->max_timestamp_ms : batch->base_timestamp_ms,
    };
}

/* A length and that many bytes; -1 is null. */
static struct slice slice_read(struct reader *reader)
{
    int32_t len = reader_varint(reader);
    if (len == -1)
        return (struct slice){0};
    if (len < 0) {
        reader_fail(reader);
        return (struct slice){0};
    }
    return reader_slice(reader, (size_t)len);
}

bool kafka_records_next(struct kafka_records *records, struct kafka_record *out)
{
    struct reader *all = &records->reader;
    if (records->left <= 0) {
        if (reader_left(all) > 0)
            reader_fail(all);
        return false;
    }
    int32_t len = reader_varint(all);
    if (len < 0)
        reader_fail(all);
    struct reader reader = reader_over(reader_slice(all, len > 0 ? (size_t)len : 0));
    reader_u8(&reader); /* attributes, of which none is in use */
    int64_t timestamp_delta = reader_varlong(&reader);
    int64_t offset_delta = reader_varint(&reader);
    struct kafka_record record = {
        .offset = add_wrapping(records->base_offset, offset_delta),
        .timestamp_ms = records->append_time ? records->timestamp_ms
                                             : add_wrapping(records->timestamp_ms, timestamp_delta),
    };
    record.key = slice_read(&reader);
    record.value = slice_read(&reader);
    record.headers_count = reader_varint(&reader);
    record.headers = slice_make(reader.at, reader_left(&reader));
    if (record.headers_count < 0 || (size_t)record.headers_count > record.headers.len / 2 ||
        (record.headers_count == 0 && record.headers.len > 0) || reader.failed)
        reader_fail(all);
    if (all->failed)
        return false;
    records->left--;
    *out = record;
    return true;
}

void kafka_headers_init(struct kafka_headers *headers, const struct kafka_record *record)
{
    *headers = (struct kafka_headers){
        .reader = reader_over(record->headers),
        .left = record->headers_count,
    };
}

bool kafka_headers_next(struct kafka_headers *headers, struct kafka_record_header *out)
{
    struct reader *reader = &headers->reader;
    if (headers->left <= 0) {
        if (reader_left(reader) > 0)
            reader_fail(reader);
        return false;
    }
    struct slice key = slice_read(reader);
    struct slice value = slice_read(reader);
    if (!key.data)
        reader_fail(reader);
    if (reader->failed)
        return false;
    headers->left--;
    *out = (struct kafka_record_header){.key = key, .value = value};
    return true;
}

static size_t slice_size(struct slice slice)
{
    return slice.data ? varlong_size((int64_t)slice.len) + slice.len : 1;
}

static void slice_write(struct writer *writer, struct slice slice)
{
    writer_varlong(writer, slice.data ? (int64_t)slice.len : -1);
    writer_slice(writer, slice);
}

/* The size of key, value and headers. */
static size_t content_size(struct slice key, struct slice value,
                           const struct kafka_record_header *headers, size_t headers_count)
{
    size_t size = slice_size(key) + slice_size(value) + varlong_size((int64_t)headers_count);
    for (size_t i = 0; i < headers_count; i++)
        size += slice_size(headers[i].key) + slice_size(headers[i].value);
    return size;
}

size_t kafka_record_bytes_max(struct slice key, struct slice value,
                              const struct kafka_record_header *headers, size_t headers_count)
{
    enum { LENGTH = 5, ATTRIBUTES = 1, TIMESTAMP = 10, OFFSET = 5 };
    return LENGTH + ATTRIBUTES + TIMESTAMP + OFFSET +
           content_size(key, value, headers, headers_count);
}

void kafka_batch_begin(struct kafka_batch_builder *builder, void *memory, size_t size)
{
    assert(size >= KAFKA_BATCH_HEADER_BYTES);
    if (size > INT32_MAX)
        size = INT32_MAX;
    *builder = (struct kafka_batch_builder){.writer = writer_over(memory, size), .batch = memory};
    builder->writer.at += KAFKA_BATCH_HEADER_BYTES;
}

bool kafka_batch_add(struct kafka_batch_builder *builder, int64_t timestamp_ms, struct slice key,
                     struct slice value, const struct kafka_record_header *headers,
                     size_t headers_count)
{
    bool first = builder->records_count == 0;
    int64_t timestamp_delta = first ? 0 : timestamp_ms - builder->base_timestamp_ms;
    int32_t offset_delta = builder->records_count;
    size_t size = 1 + varlong_size(timestamp_delta) + varlong_size(offset_delta) +
                  content_size(key, value, headers, headers_count);
    if (size > INT32_MAX || varlong_size((int64_t)size) + size > writer_left(&builder->writer))
        return false;
    struct writer *writer = &builder->writer;
    writer_varlong(writer, (int64_t)size);
    writer_u8(writer, 0);
    writer_varlong(writer, timestamp_delta);
    writer_varlong(writer, offset_delta);
    slice_write(writer, key);
    slice_write(writer, value);
    writer_varlong(writer, (int64_t)headers_count);
    for (size_t i = 0; i < headers_count; i++) {
        slice_write(writer, headers[i].key);
        slice_write(writer, headers[i].value);
    }
    assert(!writer->failed);
    if (first)
        builder->base_timestamp_ms = timestamp_ms;
    if (first || timestamp_ms > builder->max_timestamp_ms)
        builder->max_timestamp_ms = timestamp_ms;
    builder->records_count++;
    return true;
}

struct slice kafka_batch_end(struct kafka_batch_builder *builder)
{
    assert(builder->records_count > 0);
    size_t len = (size_t)(builder->writer.at - builder->batch);
    uint8_t *at = builder->batch;
    kafka_batch_place(at, 0, -1);
    be32_put(at + LENGTH_AT, (uint32_t)(len - KAFKA_BATCH_PREFIX_BYTES));
    at[MAGIC_AT] = MAGIC;
    be16_put(at + ATTRIBUTES_AT, KAFKA_COMPRESSION_NONE);
    be32_put(at + LAST_OFFSET_DELTA_AT, (uint32_t)builder->records_count - 1);
    be64_put(at + BASE_TIMESTAMP_AT, (uint64_t)builder->base_timestamp_ms);
    be64_put(at + MAX_TIMESTAMP_AT, (uint64_t)builder->max_timestamp_ms);
    be64_put(at + PRODUCER_ID_AT, UINT64_MAX); /* none: id, epoch and sequence are -1 */
    be16_put(at + PRODUCER_EPOCH_AT, UINT16_MAX);
    be32_put(at + BASE_SEQUENCE_AT, UINT32_MAX);
    be32_put(at + RECORDS_COUNT_AT, (uint32_t)builder->records_count);
    struct slice batch = slice_make(at, len);
    be32_put(at + CRC_AT, crc_of(batch));
    return batch;
}
