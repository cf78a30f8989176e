/*
 * Against batches that Apache Kafka's own client wrote (tests/tools/KafkaBatches.java).
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "codec/kafka_batch.h"

static const struct {
    const char *compression;
    const char *name;
    size_t len;
    const uint8_t *bytes;
} originals[] = {
#include "gen/kafka_batches.inc"
};

enum { RECORDS = 20, PRODUCE_NEWEST = 13, BATCH_BYTES_MAX = 4096 };

static struct slice uncompressed(void)
{
    for (size_t i = 0; i < sizeof originals / sizeof originals[0]; i++)
        if (strcmp(originals[i].compression, "none") == 0)
            return slice_make(originals[i].bytes, originals[i].len);
    fail();
    return (struct slice){0};
}

/* What the i-th record of the originals holds; the texts live in memory of the caller. */
struct content {
    char key[16], value[128], header[16];
    struct kafka_record_header headers[3];
    size_t headers_count;
    int64_t timestamp_ms;
};

static void content_make(int i, struct content *out)
{
    *out = (struct content){.headers_count = (size_t)i % 4};
    snprintf(out->key, sizeof out->key, "key-%d", i);
    snprintf(out->header, sizeof out->header, "x%d", i);
    size_t len = 0;
    for (int n = 0; n < i % 4 * 20; n++)
        len += (size_t)snprintf(out->value + len, sizeof out->value - len, "%d", i);
    static const char *const names[] = {"h0", "h1", "h2"};
    for (size_t h = 0; h < out->headers_count; h++) {
        out->headers[h].key = slice_of(names[h]);
        out->headers[h].value = h == 1 ? (struct slice){0} : slice_of(out->header);
    }
    out->timestamp_ms = 1700000000000 + i * 7 * (i % 2 == 0 ? 1 : -1);
}

static struct slice content_key(int i, const struct content *content)
{
    return i % 3 == 0 ? (struct slice){0} : slice_of(content->key);
}

static struct slice content_value(int i, const struct content *content)
{
    return i % 5 == 4 ? (struct slice){0} : slice_of(content->value);
}

static void assert_same(struct slice a, struct slice b)
{
    assert_int_equal(slice_is_null(a), slice_is_null(b));
    assert_true(slice_equal(a, b));
}

/* A copy of the uncompressed original, of exactly its size. */
struct copy {
    uint8_t *bytes;
    size_t len;
};

static struct copy copy_make(void)
{
    struct slice original = uncompressed();
    struct copy copy = {.bytes = malloc(original.len), .len = original.len};
    assert_non_null(copy.bytes);
    memcpy(copy.bytes, original.data, original.len);
    return copy;
}

/* Sets a field of the header and makes the CRC right again (which also sets the flag for append
 * time: that is of no consequence for what is accepted). */
static void copy_set(struct copy *copy, size_t at, const void *bytes, size_t len)
{
    memcpy(copy->bytes + at, bytes, len);
    kafka_batch_stamp(copy->bytes, copy->len, 1);
}

static enum kafka_error copy_accept(const struct copy *copy)
{
    struct kafka_batch batch;
    return kafka_batch_accept(slice_make(copy->bytes, copy->len), PRODUCE_NEWEST, &batch);
}

static void batches_of_every_compression_are_accepted(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof originals / sizeof originals[0]; i++) {
        struct slice bytes = slice_make(originals[i].bytes, originals[i].len);
        struct kafka_batch batch;
        assert_int_equal(kafka_batch_accept(bytes, PRODUCE_NEWEST, &batch), KAFKA_ERROR_NONE);
        assert_int_equal(batch.last_offset_delta, batch.records_count - 1);
        assert_int_equal(batch.producer_id, -1);
        bool zstd = strcmp(originals[i].compression, "zstd") == 0;
        assert_int_equal(kafka_batch_accept(bytes, 6, &batch),
                         zstd ? KAFKA_ERROR_UNSUPPORTED_COMPRESSION_TYPE : KAFKA_ERROR_NONE);
    }
}

static void records_and_headers_are_read(void **state)
{
    (void)state;
    struct kafka_batch batch;
    assert_int_equal(kafka_batch_accept(uncompressed(), PRODUCE_NEWEST, &batch), KAFKA_ERROR_NONE);
    struct kafka_records records;
    kafka_records_init(&records, &batch, batch.records);
    struct kafka_record record;
    int i = 0;
    for (; kafka_records_next(&records, &record); i++) {
        struct content content;
        content_make(i, &content);
        assert_int_equal(record.offset, i);
        assert_int_equal(record.timestamp_ms, content.timestamp_ms);
        assert_same(record.key, content_key(i, &content));
        assert_same(record.value, content_value(i, &content));
        assert_int_equal(record.headers_count, content.headers_count);
        struct kafka_headers headers;
        kafka_headers_init(&headers, &record);
        struct kafka_record_header header;
        size_t h = 0;
        for (; kafka_headers_next(&headers, &header); h++) {
            assert_same(header.key, content.headers[h].key);
            assert_same(header.value, content.headers[h].value);
        }
        assert_false(headers.reader.failed);
        assert_int_equal(h, content.headers_count);
    }
    assert_false(records.reader.failed);
    assert_int_equal(i, RECORDS);
}

static void a_built_batch_equals_the_original(void **state)
{
    (void)state;
    uint8_t memory[BATCH_BYTES_MAX];
    struct kafka_batch_builder builder;
    kafka_batch_begin(&builder, memory, sizeof memory);
    size_t bound = KAFKA_BATCH_HEADER_BYTES;
    for (int i = 0; i < RECORDS; i++) {
        struct content content;
        content_make(i, &content);
        struct slice key = content_key(i, &content), value = content_value(i, &content);
        bound += kafka_record_bytes_max(key, value, content.headers, content.headers_count);
        assert_true(kafka_batch_add(&builder, content.timestamp_ms, key, value, content.headers,
                                    content.headers_count));
    }
    struct slice built = kafka_batch_end(&builder);
    struct slice original = uncompressed();
    assert_int_equal(built.len, original.len);
    assert_memory_equal(built.data, original.data, original.len);
    assert_true(bound >= built.len);
}

static void a_record_that_does_not_fit_leaves_the_batch_as_it_was(void **state)
{
    (void)state;
    uint8_t memory[KAFKA_BATCH_HEADER_BYTES + 20];
    struct kafka_batch_builder builder;
    kafka_batch_begin(&builder, memory, sizeof memory);
    struct slice none = {0};
    assert_true(kafka_batch_add(&builder, 5, none, slice_of("0123"), NULL, 0));
    assert_false(kafka_batch_add(&builder, 5, none, slice_of("0123"), NULL, 0));
    assert_true(kafka_batch_add(&builder, 4, none, slice_of("0"), NULL, 0));
    struct slice built = kafka_batch_end(&builder);
    struct kafka_batch batch;
    assert_int_equal(kafka_batch_accept(built, PRODUCE_NEWEST, &batch), KAFKA_ERROR_NONE);
    assert_int_equal(batch.records_count, 2);
    assert_int_equal(batch.max_timestamp_ms, 5);
}

static void placing_a_batch_keeps_its_crc(void **state)
{
    (void)state;
    struct copy copy = copy_make();
    kafka_batch_place(copy.bytes, 0x123456789a, 77);
    struct kafka_batch batch;
    assert_int_equal(kafka_batch_accept(slice_make(copy.bytes, copy.len), PRODUCE_NEWEST, &batch),
                     KAFKA_ERROR_NONE);
    assert_int_equal(batch.base_offset, 0x123456789a);
    assert_int_equal(batch.leader_epoch, 77);
    struct kafka_records records;
    kafka_records_init(&records, &batch, batch.records);
    struct kafka_record record;
    assert_true(kafka_records_next(&records, &record));
    assert_true(kafka_records_next(&records, &record));
    assert_int_equal(record.offset, 0x123456789b);
    free(copy.bytes);
}

static void a_stamped_batch_gives_all_records_one_time(void **state)
{
    (void)state;
    struct copy copy = copy_make();
    kafka_batch_stamp(copy.bytes, copy.len, 1800000000000);
    struct kafka_batch batch;
    assert_int_equal(kafka_batch_accept(slice_make(copy.bytes, copy.len), PRODUCE_NEWEST, &batch),
                     KAFKA_ERROR_NONE);
    struct kafka_records records;
    kafka_records_init(&records, &batch, batch.records);
    struct kafka_record record;
    int count = 0;
    for (; kafka_records_next(&records, &record); count++)
        assert_int_equal(record.timestamp_ms, 1800000000000);
    assert_int_equal(count, RECORDS);
    free(copy.bytes);
}

static void a_flipped_bit_is_refused(void **state)
{
    (void)state;
    struct copy copy = copy_make();
    for (size_t at = 8; at < copy.len; at++) {
        if (at >= 12 && at < 16) /* the leader epoch is the broker's to set */
            continue;
        copy.bytes[at] ^= 0x10;
        assert_int_not_equal(copy_accept(&copy), KAFKA_ERROR_NONE);
        copy.bytes[at] ^= 0x10;
    }
    assert_int_equal(copy_accept(&copy), KAFKA_ERROR_NONE);
    free(copy.bytes);
}

static void a_cut_batch_is_refused(void **state)
{
    (void)state;
    struct copy copy = copy_make();
    struct kafka_batch batch;
    for (size_t len = 0; len < copy.len; len++) {
        uint8_t *part = malloc(len ? len : 1);
        assert_non_null(part);
        memcpy(part, copy.bytes, len);
        assert_int_equal(kafka_batch_accept(slice_make(part, len), PRODUCE_NEWEST, &batch),
                         len ? KAFKA_ERROR_CORRUPT_MESSAGE : KAFKA_ERROR_INVALID_RECORD);
        free(part);
    }
    assert_int_equal(kafka_batch_accept((struct slice){0}, PRODUCE_NEWEST, &batch),
                     KAFKA_ERROR_INVALID_RECORD);
    free(copy.bytes);
}

static void two_batches_at_once_are_refused_but_can_be_walked(void **state)
{
    (void)state;
    struct copy copy = copy_make();
    uint8_t *two = malloc(2 * copy.len);
    assert_non_null(two);
    memcpy(two, copy.bytes, copy.len);
    memcpy(two + copy.len, copy.bytes, copy.len);
    struct slice both = slice_make(two, 2 * copy.len);
    struct kafka_batch batch;
    assert_int_equal(kafka_batch_accept(both, PRODUCE_NEWEST, &batch), KAFKA_ERROR_INVALID_RECORD);
    struct reader reader = reader_over(both);
    assert_true(kafka_batch_next(&reader, &batch));
    assert_true(kafka_batch_next(&reader, &batch));
    assert_ptr_equal(batch.bytes.data, two + copy.len);
    assert_false(kafka_batch_next(&reader, &batch));
    assert_false(reader.failed);
    free(two);
    free(copy.bytes);
}

static void what_a_client_may_not_send_is_refused(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        uint8_t bytes[18];
        size_t len;
        enum kafka_error error;
    } cases[] = {
        {21, {0, 0}, 2, KAFKA_ERROR_NONE},
        {21, {0, 5}, 2, KAFKA_ERROR_UNSUPPORTED_COMPRESSION_TYPE},
        {21, {0, 7}, 2, KAFKA_ERROR_UNSUPPORTED_COMPRESSION_TYPE},
        {21, {0, 0x20}, 2, KAFKA_ERROR_INVALID_RECORD},     /* control */
        {21, {0, 0x10}, 2, KAFKA_ERROR_INVALID_RECORD},     /* transaction of nobody */
        {23, {0, 0, 0, 20}, 4, KAFKA_ERROR_INVALID_RECORD}, /* last offset delta */
        {57, {0, 0, 0, 21}, 4, KAFKA_ERROR_INVALID_RECORD}, /* count */
        {57, {0, 0, 0, 0}, 4, KAFKA_ERROR_INVALID_RECORD},  /* count */
        {57, {0xff, 0xff, 0xff, 0xff}, 4, KAFKA_ERROR_INVALID_RECORD},
        /* producer id, epoch, sequence */
        {43, {0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0, 0, 0, 3}, 14, KAFKA_ERROR_NONE},
        {43,
         {0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0xff, 0xff, 0xff, 0xff},
         14,
         KAFKA_ERROR_INVALID_RECORD},
        {43, {0, 0, 0, 0, 0, 0, 0, 9, 0xff, 0xff, 0, 0, 0, 3}, 14, KAFKA_ERROR_INVALID_RECORD},
        {43, {0x80, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0, 0, 0, 3}, 14, KAFKA_ERROR_INVALID_RECORD},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct copy copy = copy_make();
        copy_set(&copy, cases[i].at, cases[i].bytes, cases[i].len);
        assert_int_equal(copy_accept(&copy), cases[i].error);
        free(copy.bytes);
    }
    struct copy old = copy_make();
    old.bytes[16] = 1; /* magic; its place is the same in all formats */
    assert_int_equal(copy_accept(&old), KAFKA_ERROR_CORRUPT_MESSAGE);
    free(old.bytes);
}

static void records_that_are_cut_or_too_many_fail(void **state)
{
    (void)state;
    struct kafka_batch batch;
    assert_int_equal(kafka_batch_accept(uncompressed(), PRODUCE_NEWEST, &batch), KAFKA_ERROR_NONE);
    struct kafka_record record;
    struct kafka_records records;
    for (size_t len = 0; len < batch.records.len; len++) {
        uint8_t *part = malloc(len ? len : 1);
        assert_non_null(part);
        memcpy(part, batch.records.data, len);
        kafka_records_init(&records, &batch, slice_make(part, len));
        int count = 0;
        while (kafka_records_next(&records, &record))
            count++;
        assert_true(records.reader.failed);
        assert_true(count < RECORDS);
        free(part);
    }
    batch.records_count--;
    kafka_records_init(&records, &batch, batch.records);
    while (kafka_records_next(&records, &record))
        ;
    assert_true(records.reader.failed);
}

static void malformed_records_fail(void **state)
{
    (void)state;
    static const struct {
        uint8_t bytes[12];
        size_t len;
    } cases[] = {
        {{0x01}, 1},                                  /* length -1 */
        {{0x00}, 1},                                  /* length 0: no fields */
        {{0x0c, 0, 0, 0, 0x03, 0x01, 0x00}, 7},       /* key of length -2 */
        {{0x0c, 0, 0, 0, 0x01, 0x01, 0x01}, 7},       /* -1 headers */
        {{0x0c, 0, 0, 0, 0x01, 0x01, 0x02}, 7},       /* a header that is not there */
        {{0x0e, 0, 0, 0, 0x01, 0x01, 0x00, 0x00}, 8}, /* a byte too much */
        {{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 6},    /* a length that never ends */
    };
    struct kafka_batch batch = {.records_count = 1};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct kafka_records records;
        kafka_records_init(&records, &batch, slice_make(cases[i].bytes, cases[i].len));
        struct kafka_record record;
        assert_false(kafka_records_next(&records, &record));
        assert_true(records.reader.failed);
    }
    struct kafka_record record = {.headers_count = 1, .headers = slice_of("\x01\x01")};
    struct kafka_headers headers; /* a header's name may not be null */
    kafka_headers_init(&headers, &record);
    struct kafka_record_header header;
    assert_false(kafka_headers_next(&headers, &header));
    assert_true(headers.reader.failed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_of_every_compression_are_accepted),
        cmocka_unit_test(records_and_headers_are_read),
        cmocka_unit_test(a_built_batch_equals_the_original),
        cmocka_unit_test(a_record_that_does_not_fit_leaves_the_batch_as_it_was),
        cmocka_unit_test(placing_a_batch_keeps_its_crc),
        cmocka_unit_test(a_stamped_batch_gives_all_records_one_time),
        cmocka_unit_test(a_flipped_bit_is_refused),
        cmocka_unit_test(a_cut_batch_is_refused),
        cmocka_unit_test(two_batches_at_once_are_refused_but_can_be_walked),
        cmocka_unit_test(what_a_client_may_not_send_is_refused),
        cmocka_unit_test(records_that_are_cut_or_too_many_fail),
        cmocka_unit_test(malformed_records_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
