/*
 * Against batches that Apache Kafka's own client compressed (tests/tools/KafkaBatches.java).
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <lz4frame.h>
#include <stdio.h>
#include <stdlib.h>
#include <zstd.h>

#include "codec/kafka_inflate.h"

static const struct original {
    const char *compression;
    const char *name;
    size_t len;
    const uint8_t *bytes;
} originals[] = {
#include "gen/kafka_batches.inc"
};

enum { ORIGINALS_COUNT = sizeof originals / sizeof originals[0], PLAIN_BYTES_MAX = 1 << 20 };

static struct kafka_batch batch_of(const struct original *original)
{
    struct kafka_batch batch;
    assert_int_equal(kafka_batch_accept(slice_make(original->bytes, original->len), 13, &batch), 0);
    return batch;
}

/* How many bytes of values the records of an original have, and that they are what they must be. */
static size_t values_check(const struct kafka_batch *batch, struct slice plain, int value_step)
{
    struct kafka_records records;
    kafka_records_init(&records, batch, plain);
    struct kafka_record record;
    size_t total = 0;
    for (int i = 0; kafka_records_next(&records, &record); i++) {
        char digits[8];
        size_t digits_count = (size_t)snprintf(digits, sizeof digits, "%d", i);
        assert_int_equal(slice_is_null(record.value), i % 5 == 4);
        if (record.value.data)
            assert_int_equal(record.value.len, digits_count * (size_t)(i % 4 * value_step));
        for (size_t at = 0; at < record.value.len; at++)
            assert_int_equal(record.value.data[at], digits[at % digits_count]);
        total += record.value.len;
    }
    assert_false(records.reader.failed);
    assert_int_equal(records.left, 0);
    return total;
}

static void every_compression_gives_the_plain_records(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 4096, 4 * PLAIN_BYTES_MAX);
    for (int i = 0; i < ORIGINALS_COUNT; i++) {
        struct kafka_batch batch = batch_of(&originals[i]);
        bool large = strcmp(originals[i].name, "large") == 0;
        struct slice plain;
        assert_true(kafka_inflate(&batch, PLAIN_BYTES_MAX, &arena, &plain));
        size_t total = values_check(&batch, plain, large ? 2000 : 20);
        assert_true(total > (large ? 90000 : 400));
        arena_reset(&arena);
    }
    arena_done(&arena);
}

static void what_gets_larger_than_the_limit_is_refused(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 4096, 4 * PLAIN_BYTES_MAX);
    for (int i = 0; i < ORIGINALS_COUNT; i++) {
        struct kafka_batch batch = batch_of(&originals[i]);
        struct slice plain;
        assert_true(kafka_inflate(&batch, PLAIN_BYTES_MAX, &arena, &plain));
        size_t len = plain.len;
        assert_true(kafka_inflate(&batch, len, &arena, &plain));
        assert_int_equal(plain.len, len);
        assert_false(kafka_inflate(&batch, len - 1, &arena, &plain));
        assert_false(kafka_inflate(&batch, 0, &arena, &plain));
        arena_reset(&arena);
    }
    arena_done(&arena);
}

static void an_exhausted_arena_is_a_failure(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 4096, 8192);
    for (int i = 0; i < ORIGINALS_COUNT; i++) {
        struct kafka_batch batch = batch_of(&originals[i]);
        struct slice plain;
        if (strcmp(originals[i].name, "large") == 0)
            assert_false(kafka_inflate(&batch, PLAIN_BYTES_MAX, &arena, &plain));
        arena_reset(&arena);
    }
    arena_done(&arena);
}

static void cut_data_is_refused(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 4096, 4 * PLAIN_BYTES_MAX);
    for (int i = 0; i < ORIGINALS_COUNT; i++) {
        struct kafka_batch batch = batch_of(&originals[i]);
        struct slice whole = batch.records;
        if (strcmp(originals[i].compression, "none") == 0 || whole.len > 2000)
            continue;
        for (size_t len = 0; len < whole.len; len++) {
            uint8_t *part = malloc(len ? len : 1);
            assert_non_null(part);
            memcpy(part, whole.data, len);
            batch.records = slice_make(part, len);
            struct slice plain;
            if (kafka_inflate(&batch, PLAIN_BYTES_MAX, &arena, &plain)) {
                /* between two of xerial's blocks nothing tells that more should follow */
                assert_string_equal(originals[i].compression, "snappy");
                assert_true(plain.len == 0);
            }
            arena_reset(&arena);
            free(part);
        }
    }
    arena_done(&arena);
}

static void flipped_bits_do_no_harm(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 4096, 4 * PLAIN_BYTES_MAX);
    for (int i = 0; i < ORIGINALS_COUNT; i++) {
        struct kafka_batch batch = batch_of(&originals[i]);
        struct slice whole = batch.records;
        if (whole.len > 2000)
            continue;
        uint8_t *copy = malloc(whole.len);
        assert_non_null(copy);
        memcpy(copy, whole.data, whole.len);
        batch.records = slice_make(copy, whole.len);
        for (size_t bit = 0; bit < 8 * whole.len; bit += 3) {
            copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
            struct slice plain = {0};
            if (kafka_inflate(&batch, PLAIN_BYTES_MAX, &arena, &plain))
                assert_true(plain.len <= PLAIN_BYTES_MAX);
            arena_reset(&arena);
            copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
        free(copy);
    }
    arena_done(&arena);
}

/* Two copies of an original's compressed data behind each other. */
static void frames_behind_each_other_are_joined(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 4096, 4 * PLAIN_BYTES_MAX);
    for (int i = 0; i < ORIGINALS_COUNT; i++) {
        const char *compression = originals[i].compression;
        if (strcmp(compression, "none") == 0 || strcmp(compression, "snappy") == 0)
            continue;
        struct kafka_batch batch = batch_of(&originals[i]);
        struct slice one = batch.records, plain_one, plain_two;
        assert_true(kafka_inflate(&batch, PLAIN_BYTES_MAX, &arena, &plain_one));
        uint8_t *two = malloc(2 * one.len);
        assert_non_null(two);
        memcpy(two, one.data, one.len);
        memcpy(two + one.len, one.data, one.len);
        batch.records = slice_make(two, 2 * one.len);
        assert_true(kafka_inflate(&batch, PLAIN_BYTES_MAX, &arena, &plain_two));
        assert_int_equal(plain_two.len, 2 * plain_one.len);
        assert_memory_equal(plain_two.data + plain_one.len, plain_one.data, plain_one.len);
        arena_reset(&arena);
        free(two);
    }
    arena_done(&arena);
}

static bool inflate(int16_t attributes, struct slice in, size_t bytes_max, struct arena *arena,
                    struct slice *out)
{
    struct kafka_batch batch = {.attributes = attributes, .records = in};
    return kafka_inflate(&batch, bytes_max, arena, out);
}

static void a_bare_snappy_block_is_read(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 4096, 65536);
    /* 20 bytes: the literal "abc", then a copy of 17 bytes at offset 3 */
    const uint8_t block[] = {20, 2 << 2, 'a', 'b', 'c', 16 << 2 | 2, 3, 0};
    struct slice plain;
    assert_true(
        inflate(KAFKA_COMPRESSION_SNAPPY, slice_make(block, sizeof block), 4096, &arena, &plain));
    assert_true(slice_equal(plain, slice_of("abcabcabcabcabcabcab")));
    const uint8_t bad[][8] = {
        {20, 2 << 2, 'a', 'b', 'c', 16 << 2 | 2, 4, 0}, /* before the beginning */
        {20, 2 << 2, 'a', 'b', 'c', 16 << 2 | 2, 0, 0}, /* from nowhere */
        {20, 2 << 2, 'a', 'b', 'c', 17 << 2 | 2, 3, 0}, /* past the end */
        {21, 2 << 2, 'a', 'b', 'c', 16 << 2 | 2, 3, 0}, /* too short */
        {20, 63 << 2, 0xff, 0xff, 0xff, 0xff, 0, 0},    /* a literal of 4 GiB */
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(inflate(KAFKA_COMPRESSION_SNAPPY, slice_make(bad[i], sizeof bad[i]), 4096,
                             &arena, &plain));
    arena_done(&arena);
}

static void a_bomb_costs_no_more_than_the_limit(void **state)
{
    (void)state;
    enum { HUGE = 8 << 20, LIMIT = 1 << 16 };
    uint8_t *zeros = calloc(1, HUGE);
    size_t room = LZ4F_compressFrameBound(HUGE, NULL);
    uint8_t *packed = malloc(room);
    assert_true(zeros && packed);
    struct arena arena;
    arena_init(&arena, 4096, 4 * LIMIT);
    struct slice plain;
    size_t len = ZSTD_compress(packed, room, zeros, HUGE, 1);
    assert_false(inflate(KAFKA_COMPRESSION_ZSTD, slice_make(packed, len), LIMIT, &arena, &plain));
    arena_reset(&arena);
    len = LZ4F_compressFrame(packed, room, zeros, HUGE, NULL);
    assert_false(inflate(KAFKA_COMPRESSION_LZ4, slice_make(packed, len), LIMIT, &arena, &plain));
    assert_true(arena.held_bytes <= 4 * LIMIT);
    arena_done(&arena);
    free(packed);
    free(zeros);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_compression_gives_the_plain_records),
        cmocka_unit_test(what_gets_larger_than_the_limit_is_refused),
        cmocka_unit_test(an_exhausted_arena_is_a_failure),
        cmocka_unit_test(cut_data_is_refused),
        cmocka_unit_test(flipped_bits_do_no_harm),
        cmocka_unit_test(frames_behind_each_other_are_joined),
        cmocka_unit_test(a_bare_snappy_block_is_read),
        cmocka_unit_test(a_bomb_costs_no_more_than_the_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
