/* Records come back as they were encoded, and cut short they are corrupt, not read beyond. */
#include "core/record.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "codec/entry.h"

/* Encodes into exactly as much memory as it takes. */
static struct slice encode(const struct record *record, const struct offset_range *ranges,
                           struct slice bytes)
{
    size_t head = record_head_size(record);
    size_t len = head + record->range_count * sizeof *ranges + bytes.len;
    uint8_t *memory = malloc(len);
    uint8_t *at = record_put_head(memory, record);
    assert_ptr_equal(at, memory + head);
    for (uint32_t i = 0; i < record->range_count; i++)
        record_put_range(at, i, ranges[i]);
    if (bytes.len > 0)
        memcpy(at + record->range_count * sizeof *ranges, bytes.data, bytes.len);
    return slice_make(memory, len);
}

/* Every shorter form, at the end of its own memory, so that reading on is seen. */
static void check_cuts(struct slice encoded, size_t least)
{
    for (size_t len = 0; len < encoded.len; len++) {
        uint8_t *copy = malloc(len > 0 ? len : 1);
        memcpy(copy, encoded.data, len);
        struct record out = {.type = RECORD_APPEND};
        enum err err = record_decode(slice_make(copy, len), &out);
        assert_int_equal(err, len < least ? ERR_CORRUPT : ERR_NONE);
        free(copy);
    }
}

static struct slice entry_bytes(void)
{
    static uint8_t entry[ENTRY_HEAD_BYTES + 9];
    entry_head_put(entry, &(struct entry_head){.timestamp_ms = 5, .form = ENTRY_AMQP});
    return slice_make(entry, sizeof entry);
}

static void messages_come_back(void **state)
{
    (void)state;
    for (int type = RECORD_APPEND; type <= RECORD_MOVE; type += RECORD_MOVE - RECORD_APPEND) {
        for (uint32_t count = 1; count <= RECORD_TARGETS_MAX; count += 21) {
            struct record record = {.object = 99, .offset = 7, .body_bytes = 3};
            record.type = (enum record_type)type;
            for (uint64_t i = 0; i < count; i++) {
                if (i % 3 == 1)
                    record_add_partition(&record, 1000 + i, i);
                else
                    record_add_queue(&record, i, INT64_MAX - i);
            }
            struct slice encoded = encode(&record, NULL, entry_bytes());
            struct record out = {.type = RECORD_DROP};
            assert_int_equal(record_decode(encoded, &out), ERR_NONE);
            assert_int_equal(out.type, type);
            assert_int_equal(out.target_count, count);
            assert_int_equal(out.partition_count, (count + 1) / 3);
            for (uint32_t i = 0; i < count; i++) {
                assert_int_equal(out.targets[i].object >= 1000, i < out.partition_count);
                assert_int_equal(out.targets[i].object, record.targets[i].object);
                assert_int_equal(out.targets[i].base, record.targets[i].base);
            }
            if (type == RECORD_MOVE) {
                assert_int_equal(out.object, 99);
                assert_int_equal(out.offset, 7);
                assert_int_equal(out.body_bytes, 3);
            }
            assert_true(slice_equal(out.bytes, entry_bytes()));
            check_cuts(encoded, record_head_size(&record) + ENTRY_HEAD_BYTES);
            free((void *)(uintptr_t)encoded.data);
        }
    }
}

static void batches_come_back(void **state)
{
    (void)state;
    struct record record = {
        .type = RECORD_BATCH,
        .targets = {{11, 12}},
        .count = 500,
        .producer_id = INT64_MAX,
        .producer_epoch = -3,
        .sequence = INT32_MAX,
        .time_ms = 1700000000123,
    };
    struct slice encoded = encode(&record, NULL, entry_bytes());
    struct record out = {.type = RECORD_APPEND};
    assert_int_equal(record_decode(encoded, &out), ERR_NONE);
    assert_int_equal(out.type, RECORD_BATCH);
    assert_int_equal(out.targets[0].object, 11);
    assert_int_equal(out.targets[0].base, 12);
    assert_int_equal(out.count, 500);
    assert_int_equal(out.producer_id, INT64_MAX);
    assert_int_equal(out.producer_epoch, -3);
    assert_int_equal(out.sequence, INT32_MAX);
    assert_int_equal(out.time_ms, 1700000000123);
    assert_true(slice_equal(out.bytes, entry_bytes()));
    check_cuts(encoded, record_head_size(&record) + ENTRY_HEAD_BYTES);
    free((void *)(uintptr_t)encoded.data);
}

static void ranges_come_back(void **state)
{
    (void)state;
    struct offset_range ranges[] = {{0, 0}, {5, 9}, {UINT64_MAX, UINT64_MAX}};
    for (int type = RECORD_SETTLE; type <= RECORD_RETURN; type++) {
        struct record record = {
            .type = (enum record_type)type, .object = 3, .body_bytes = 70, .range_count = 3};
        struct slice encoded = encode(&record, ranges, (struct slice){0});
        struct record out = {.type = RECORD_APPEND};
        assert_int_equal(record_decode(encoded, &out), ERR_NONE);
        assert_int_equal(out.type, type);
        assert_int_equal(out.object, 3);
        assert_int_equal(out.body_bytes, 70);
        assert_int_equal(out.range_count, 3);
        for (uint32_t i = 0; i < 3; i++) {
            assert_int_equal(record_range(&out, i).first, ranges[i].first);
            assert_int_equal(record_range(&out, i).last, ranges[i].last);
        }
        check_cuts(encoded, encoded.len);
        free((void *)(uintptr_t)encoded.data);
    }
}

static void the_small_ones_come_back(void **state)
{
    (void)state;
    struct slice bytes = slice_of("anything");
    const struct record records[] = {
        {.type = RECORD_TRIM, .object = 5, .offset = 77},
        {.type = RECORD_DROP, .object = 6},
        {.type = RECORD_PRODUCER_IDS, .object = 2000},
        {.type = RECORD_NOTHING},
        {.type = RECORD_CATALOG},
        {.type = RECORD_GROUP},
    };
    for (size_t i = 0; i < sizeof records / sizeof *records; i++) {
        bool holds = records[i].type == RECORD_CATALOG || records[i].type == RECORD_GROUP;
        struct slice encoded = encode(&records[i], NULL, holds ? bytes : (struct slice){0});
        struct record out = {.type = RECORD_APPEND};
        assert_int_equal(record_decode(encoded, &out), ERR_NONE);
        assert_int_equal(out.type, records[i].type);
        if (holds)
            assert_true(slice_equal(out.bytes, bytes));
        else
            assert_int_equal(out.object, records[i].object);
        if (out.type == RECORD_TRIM)
            assert_int_equal(out.offset, 77);
        check_cuts(encoded, record_head_size(&records[i]));
        free((void *)(uintptr_t)encoded.data);
    }
}

/* The record with one byte changed. */
static enum err decode_with(struct slice encoded, size_t at, uint8_t value)
{
    uint8_t *copy = malloc(encoded.len);
    memcpy(copy, encoded.data, encoded.len);
    copy[at] = value;
    struct record out = {.type = RECORD_APPEND};
    enum err err = record_decode(slice_make(copy, encoded.len), &out);
    free(copy);
    return err;
}

static void what_no_record_says_is_corrupt(void **state)
{
    (void)state;
    struct record record = {.type = RECORD_APPEND};
    record_add_queue(&record, 1, 2);
    struct slice encoded = encode(&record, NULL, entry_bytes());
    assert_int_equal(decode_with(encoded, 0, RECORD_APPEND), ERR_NONE);
    assert_int_equal(decode_with(encoded, 0, 0), ERR_CORRUPT);    /* no such type */
    assert_int_equal(decode_with(encoded, 0, 200), ERR_CORRUPT);  /* nor this one */
    assert_int_equal(decode_with(encoded, 1, 65), ERR_CORRUPT);   /* too many targets */
    assert_int_equal(decode_with(encoded, 3, 2), ERR_CORRUPT);    /* more partitions than targets */
    assert_int_equal(decode_with(encoded, 16, 128), ERR_CORRUPT); /* an offset out of bounds */
    free((void *)(uintptr_t)encoded.data);
    record = (struct record){.type = RECORD_BATCH, .targets = {{1, 2}}, .count = 1};
    encoded = encode(&record, NULL, entry_bytes());
    assert_int_equal(decode_with(encoded, 7, 1), ERR_NONE);
    assert_int_equal(decode_with(encoded, 7, 0), ERR_CORRUPT); /* an empty batch */
    free((void *)(uintptr_t)encoded.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_come_back),
        cmocka_unit_test(batches_come_back),
        cmocka_unit_test(ranges_come_back),
        cmocka_unit_test(the_small_ones_come_back),
        cmocka_unit_test(what_no_record_says_is_corrupt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
