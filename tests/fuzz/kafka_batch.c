/*
 * Record batches: the input as a run of batches, as what a Produce request brings, as bare records,
 * and as a Snappy block.
 */

#include <stdint.h>
#include <stdlib.h>

#include "codec/kafka_batch.h"
#include "codec/snappy.h"

enum { BARE_RECORDS = 1000, SNAPPY_BYTES_MAX = 1 << 20 };

static void check(bool truth)
{
    if (!truth)
        abort();
}

static void inside(struct slice part, struct slice whole)
{
    check(!part.data ||
          (part.data >= whole.data && part.data + part.len <= whole.data + whole.len));
}

static void records_walk(const struct kafka_batch *batch, struct slice plain)
{
    struct kafka_records records;
    kafka_records_init(&records, batch, plain);
    struct kafka_record record;
    while (kafka_records_next(&records, &record)) {
        inside(record.key, plain);
        inside(record.value, plain);
        struct kafka_headers headers;
        kafka_headers_init(&headers, &record);
        struct kafka_record_header header;
        while (kafka_headers_next(&headers, &header)) {
            inside(header.key, plain);
            inside(header.value, plain);
        }
    }
}

static void accepted_check(struct slice bytes)
{
    struct kafka_batch batch;
    if (kafka_batch_accept(bytes, 13, &batch) != KAFKA_ERROR_NONE)
        return;
    uint8_t *copy = malloc(bytes.len);
    check(copy);
    memcpy(copy, bytes.data, bytes.len);
    kafka_batch_place(copy, 1234567, 8);
    kafka_batch_stamp(copy, bytes.len, 99);
    struct kafka_batch again;
    check(kafka_batch_accept(slice_make(copy, bytes.len), 13, &again) == KAFKA_ERROR_NONE);
    check(again.base_offset == 1234567 && again.leader_epoch == 8);
    check(again.records_count == batch.records_count && again.max_timestamp_ms == 99);
    free(copy);
}

static void snappy_read(struct slice block)
{
    uint32_t len;
    if (!snappy_length(block, &len) || len > SNAPPY_BYTES_MAX)
        return;
    uint8_t *plain = malloc(len ? len : 1);
    check(plain);
    if (snappy_decompress(block, plain, len))
        check(len / 32 <= block.len);
    free(plain);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice input = slice_make(data, size);
    struct reader reader = reader_over(input);
    struct kafka_batch batch;
    while (kafka_batch_next(&reader, &batch)) {
        inside(batch.bytes, input);
        records_walk(&batch, batch.records);
    }
    accepted_check(input);
    batch = (struct kafka_batch){.records_count = BARE_RECORDS};
    records_walk(&batch, input);
    snappy_read(input);
    return 0;
}
