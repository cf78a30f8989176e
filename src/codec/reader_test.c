/* Reader and writer together: what one writes the other reads. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "codec/reader.h"
#include "codec/writer.h"

static void fixed_widths_are_big_endian(void **state)
{
    (void)state;
    uint8_t bytes[15];
    struct writer writer = writer_over(bytes, sizeof bytes);
    writer_u8(&writer, 0x01);
    writer_u16(&writer, 0x0203);
    writer_u32(&writer, 0x04050607);
    writer_u64(&writer, 0x08090a0b0c0d0e0f);
    assert_false(writer.failed);
    for (uint8_t i = 0; i < sizeof bytes; i++)
        assert_int_equal(bytes[i], i + 1);
    struct reader reader = reader_over(slice_make(bytes, sizeof bytes));
    assert_int_equal(reader_u8(&reader), 0x01);
    assert_int_equal(reader_u16(&reader), 0x0203);
    assert_int_equal(reader_u32(&reader), 0x04050607);
    assert_int_equal(reader_u64(&reader), 0x08090a0b0c0d0e0f);
    assert_false(reader.failed);
    assert_int_equal(reader_left(&reader), 0);
}

static void a_read_past_the_end_fails_for_good(void **state)
{
    (void)state;
    const uint8_t bytes[] = {1, 2, 3};
    struct reader reader = reader_over(slice_make(bytes, sizeof bytes));
    assert_int_equal(reader_u32(&reader), 0);
    assert_true(reader.failed);
    assert_int_equal(reader_u8(&reader), 0);
    assert_true(slice_is_null(reader_slice(&reader, 1)));
    assert_true(reader.failed);
    reader = reader_over(slice_make(bytes, sizeof bytes));
    assert_null(reader_take(&reader, SIZE_MAX));
    assert_true(reader.failed);
}

static void an_empty_slice_is_not_null(void **state)
{
    (void)state;
    struct reader reader = reader_over((struct slice){0});
    struct slice empty = reader_slice(&reader, 0);
    assert_false(reader.failed);
    assert_non_null(empty.data);
    assert_int_equal(empty.len, 0);
}

static void a_write_past_the_end_fails_for_good(void **state)
{
    (void)state;
    uint8_t bytes[4] = {0, 0, 0, 9};
    struct writer writer = writer_over(bytes, 3);
    writer_u32(&writer, 7);
    assert_true(writer.failed);
    writer_u8(&writer, 7);
    assert_int_equal(bytes[0], 0);
    assert_int_equal(bytes[3], 9);
}

static const int64_t numbers[] = {
    0,    1,         -1,        63,        -64,       64,           -65,       8191,     -8192,
    8192, INT32_MAX, INT32_MIN, 1LL << 34, 1LL << 62, -(1LL << 62), INT64_MAX, INT64_MIN};

static void varints_survive_at_their_stated_size(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        uint8_t bytes[10];
        struct writer writer = writer_over(bytes, sizeof bytes);
        writer_varlong(&writer, numbers[i]);
        size_t len = (size_t)(writer.at - bytes);
        assert_int_equal(len, varlong_size(numbers[i]));
        struct reader reader = reader_over(slice_make(bytes, len));
        assert_true(reader_varlong(&reader) == numbers[i]);
        assert_false(reader.failed);
        assert_int_equal(reader_left(&reader), 0);
        reader = reader_over(slice_make(bytes, len));
        bool fits = numbers[i] >= INT32_MIN && numbers[i] <= INT32_MAX;
        assert_true(reader_varint(&reader) == (fits ? numbers[i] : 0));
        assert_int_equal(reader.failed, !fits);
        for (size_t cut = 0; cut < len; cut++) {
            reader = reader_over(slice_make(bytes, cut));
            (void)reader_varlong(&reader);
            assert_true(reader.failed);
        }
    }
}

static void a_varint_that_is_too_long_fails(void **state)
{
    (void)state;
    const uint8_t ones[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1};
    struct reader reader = reader_over(slice_make(ones, sizeof ones));
    (void)reader_uvarlong(&reader);
    assert_true(reader.failed);
    reader = reader_over(slice_make(ones, sizeof ones));
    (void)reader_uvarint(&reader);
    assert_true(reader.failed);
    const uint8_t largest[] = {0xff, 0xff, 0xff, 0xff, 0x0f};
    reader = reader_over(slice_make(largest, sizeof largest));
    assert_int_equal(reader_uvarint(&reader), UINT32_MAX);
    const uint8_t larger[] = {0xff, 0xff, 0xff, 0xff, 0x1f};
    reader = reader_over(slice_make(larger, sizeof larger));
    (void)reader_uvarint(&reader);
    assert_true(reader.failed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fixed_widths_are_big_endian),
        cmocka_unit_test(a_read_past_the_end_fails_for_good),
        cmocka_unit_test(an_empty_slice_is_not_null),
        cmocka_unit_test(a_write_past_the_end_fails_for_good),
        cmocka_unit_test(varints_survive_at_their_stated_size),
        cmocka_unit_test(a_varint_that_is_too_long_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
