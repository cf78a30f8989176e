/* The layouts that docs/formats.md promises, byte by byte where it matters, and the checksum. */
#include "store/format.h"

#include "store/extent.h"
#include "store/index.h"

#include "base/endian.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void the_checksum_is_crc32c(void **state)
{
    (void)state;
    assert_int_equal(crc32c(0, "123456789", 9), UINT32_C(0xe3069283)); /* RFC 3720, B.4 */
    assert_int_equal(crc32c(crc32c(0, "1234", 4), "56789", 5), UINT32_C(0xe3069283));
    uint8_t zeroes[32] = {0};
    assert_int_equal(crc32c(0, zeroes, 32), UINT32_C(0x8a9136aa));
}

static void one_turned_bit_is_known_by_the_checksum(void **state)
{
    (void)state;
    uint8_t data[300];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 7);
    uint32_t right = crc32c(0, data, sizeof data);
    size_t found;
    for (size_t bit = 0; bit < 8 * sizeof data; bit++) {
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_true(crc32c_bit(right ^ crc32c(0, data, sizeof data), sizeof data, &found));
        assert_int_equal(found, bit);
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_true(crc32c_bit(UINT32_C(1) << 9, sizeof data, &found));
    assert_int_equal(found, 8 * sizeof data + 9);
    assert_false(crc32c_bit(0, sizeof data, &found));
    data[5] ^= 3;
    data[200] ^= 64;
    assert_false(crc32c_bit(right ^ crc32c(0, data, sizeof data), sizeof data, &found));
}

static void a_frame_holds_what_was_put_where_it_is_documented(void **state)
{
    (void)state;
    uint8_t data[FRAME_ALIGN] = {0};
    le32_put(data + FRAME_HEADER_BYTES, 5);
    memcpy(data + FRAME_HEADER_BYTES + 4, "hello", 5);
    struct frame in = {.body = 9,
                       .chain = 11,
                       .position = 0x1122334455667788,
                       .term = 1,
                       .index = 42,
                       .time_ms = -5,
                       .durable = 77,
                       .records = 1};
    struct frame out;
    in.crc = frame_seal(data, &in);
    assert_memory_equal(data, "WFRM", 4);
    assert_int_equal(le32_get(data + 4), crc32c(0, data + 8, sizeof data - 8));
    assert_int_equal(le32_get(data + 8), 9);
    assert_int_equal(le64_get(data + 16), 0x1122334455667788);
    assert_int_equal(le64_get(data + 48), 77);
    assert_true(frame_check(data, sizeof data, &out));
    assert_true(out.crc == in.crc && out.body == in.body && out.chain == in.chain &&
                out.position == in.position && out.term == in.term && out.index == in.index &&
                out.time_ms == in.time_ms && out.durable == in.durable &&
                out.records == in.records);
    uint32_t at = 0, len;
    const uint8_t *record;
    assert_true(frame_next(data, &out, &at, &record, &len));
    assert_int_equal(len, 5);
    assert_memory_equal(record, "hello", 5);
    assert_false(frame_next(data, &out, &at, &record, &len));
    assert_int_equal(at, 9);
    for (size_t bit = 0; bit < sizeof data * 8; bit++) {
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_false(frame_check(data, sizeof data, &out));
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t room = 0; room < sizeof data; room++)
        assert_false(frame_check(data, room, &out));
}

static void impossible_record_lengths_end_the_walk(void **state)
{
    (void)state;
    static const uint32_t lengths[] = {0, 13, UINT32_MAX, 1u << 31};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        uint8_t data[FRAME_HEADER_BYTES + 16] = {0};
        struct frame frame = {.body = 16};
        uint32_t at = 0, len;
        const uint8_t *record;
        le32_put(data + FRAME_HEADER_BYTES, lengths[i]);
        assert_false(frame_next(data, &frame, &at, &record, &len));
        assert_int_equal(at, UINT32_MAX);
    }
}

static void headers_of_files_refuse_every_flipped_bit(void **state)
{
    (void)state;
    uint8_t journal[JOURNAL_HEADER_BYTES], extent[EXTENT_HEADER_BYTES];
    struct journal_header journal_out;
    struct extent_header extent_out;
    journal_header_put(journal, &(struct journal_header){.cell = 3, .start = 1u << 20});
    assert_true(journal_header_get(journal, &journal_out));
    assert_int_equal(journal_out.cell, 3);
    assert_int_equal(journal_out.start, 1u << 20);
    for (size_t at = 0; at < sizeof journal; at++) {
        journal[at] ^= 1;
        assert_false(journal_header_get(journal, &journal_out));
        journal[at] ^= 1;
    }
    extent_header_put(extent, &(struct extent_header){.cell = 3, .number = 9});
    assert_true(extent_header_get(extent, &extent_out));
    assert_int_equal(extent_out.number, 9);
    for (size_t at = 0; at < sizeof extent; at++) {
        extent[at] ^= 1;
        assert_false(extent_header_get(extent, &extent_out));
        extent[at] ^= 1;
    }
}

static void rows_sort_by_stream_and_offset(void **state)
{
    (void)state;
    struct index_key a, b;
    index_row_key(1, 300, &a);
    index_row_key(1, UINT64_C(1) << 40, &b);
    assert_true(memcmp(a.data, b.data, a.len) < 0);
    index_row_key(2, 0, &a);
    assert_true(memcmp(b.data, a.data, a.len) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_checksum_is_crc32c),
        cmocka_unit_test(one_turned_bit_is_known_by_the_checksum),
        cmocka_unit_test(a_frame_holds_what_was_put_where_it_is_documented),
        cmocka_unit_test(impossible_record_lengths_end_the_walk),
        cmocka_unit_test(headers_of_files_refuse_every_flipped_bit),
        cmocka_unit_test(rows_sort_by_stream_and_offset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
