/* Kafka's rules for idempotent producers. */
#include "core/producer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

static struct producer_batch batch_of(int64_t id, int16_t epoch, int32_t sequence, uint32_t count)
{
    return (struct producer_batch){
        .producer_id = id, .epoch = epoch, .sequence = sequence, .count = count};
}

static enum err check(const struct producers *producers, struct producer_batch batch,
                      uint64_t *base)
{
    uint64_t ignored;
    return producers_check(producers, &batch, base != NULL ? base : &ignored);
}

/* The batch is taken and appended at `base`. */
static void take(struct producers *producers, struct producer_batch batch, uint64_t base)
{
    assert_int_equal(check(producers, batch, NULL), ERR_NONE);
    batch.base = base;
    assert_int_equal(producers_note(producers, &batch, 1000), ERR_NONE);
}

static void batches_follow_each_other(void **state)
{
    (void)state;
    struct producers producers = {0};
    take(&producers, batch_of(1, 0, 0, 10), 0);
    take(&producers, batch_of(1, 0, 10, 1), 10);
    take(&producers, batch_of(1, 0, 11, 5), 11);
    take(&producers, batch_of(2, 0, 0, 5), 16); /* another one has a sequence of its own */
    assert_int_equal(check(&producers, batch_of(1, 0, 17, 1), NULL), ERR_OUT_OF_ORDER);
    take(&producers, batch_of(1, 0, 16, 1), 21);
    producers_done(&producers);
}

static void a_retry_gets_the_offset_of_the_first_time(void **state)
{
    (void)state;
    struct producers producers = {0};
    for (int i = 0; i < 7; i++)
        take(&producers, batch_of(1, 0, i * 10, 10), 100 + (uint64_t)i * 10);
    for (int i = 2; i < 7; i++) { /* the last five */
        uint64_t base = 0;
        assert_int_equal(check(&producers, batch_of(1, 0, i * 10, 10), &base), ERR_DUPLICATE);
        assert_int_equal(base, 100 + i * 10);
    }
    for (int i = 0; i < 2; i++) /* too long ago to say */
        assert_int_equal(check(&producers, batch_of(1, 0, i * 10, 10), NULL), ERR_OUT_OF_ORDER);
    producers_done(&producers);
}

/* Its first batch was refused, one behind it accepted: were the first one a duplicate when it comes
 * again, the producer would take it for safe. */
static void what_came_before_the_first_accepted_is_no_duplicate(void **state)
{
    (void)state;
    struct producers producers = {0};
    take(&producers, batch_of(1, 0, 5, 5), 0);
    assert_int_equal(check(&producers, batch_of(1, 0, 0, 5), NULL), ERR_OUT_OF_ORDER);
    producers_done(&producers);
}

static void an_unknown_producer_may_begin_anywhere(void **state)
{
    (void)state;
    struct producers producers = {0};
    take(&producers, batch_of(7, 3, 4711, 2), 0);
    take(&producers, batch_of(7, 3, 4713, 2), 2);
    producers_done(&producers);
}

static void an_older_epoch_is_fenced_and_a_newer_one_begins_at_0(void **state)
{
    (void)state;
    struct producers producers = {0};
    take(&producers, batch_of(1, 5, 0, 3), 0);
    assert_int_equal(check(&producers, batch_of(1, 4, 3, 1), NULL), ERR_FENCED);
    assert_int_equal(check(&producers, batch_of(1, 6, 3, 1), NULL), ERR_OUT_OF_ORDER);
    take(&producers, batch_of(1, 6, 0, 1), 3);
    /* What was seen in the epoch before is no duplicate in this one. */
    assert_int_equal(check(&producers, batch_of(1, 6, 0, 3), NULL), ERR_OUT_OF_ORDER);
    assert_int_equal(check(&producers, batch_of(1, 5, 0, 3), NULL), ERR_FENCED);
    take(&producers, batch_of(1, 6, 1, 1), 4);
    producers_done(&producers);
}

static void sequences_wrap_behind_the_largest(void **state)
{
    (void)state;
    struct producers producers = {0};
    take(&producers, batch_of(1, 0, INT32_MAX - 1, 2), 0);
    take(&producers, batch_of(1, 0, 0, 1), 2);
    take(&producers, batch_of(1, 0, 1, 2), 3);
    uint64_t base = 0;
    assert_int_equal(check(&producers, batch_of(1, 0, INT32_MAX - 1, 2), &base), ERR_DUPLICATE);
    assert_int_equal(base, 0);
    /* Long ago, on the far side of the wrap. */
    assert_int_equal(check(&producers, batch_of(1, 0, INT32_MAX - 100, 2), NULL), ERR_OUT_OF_ORDER);
    assert_int_equal(check(&producers, batch_of(1, 0, 4, 1), NULL), ERR_OUT_OF_ORDER);
    /* A batch that itself wraps. */
    struct producers other = {0};
    take(&other, batch_of(1, 0, INT32_MAX - 2, 10), 0);
    take(&other, batch_of(1, 0, 7, 1), 10);
    producers_done(&other);
    producers_done(&producers);
}

static void idle_producers_are_forgotten(void **state)
{
    (void)state;
    struct producers producers = {0};
    for (int64_t id = 0; id < 1000; id++) {
        struct producer_batch batch = batch_of(id, 0, 0, 1);
        assert_int_equal(producers_note(&producers, &batch, id), ERR_NONE);
    }
    producers_expire(&producers, 900);
    assert_int_equal(producers.table.count, 100);
    assert_int_equal(check(&producers, batch_of(899, 0, 55, 1), NULL), ERR_NONE);
    assert_int_equal(check(&producers, batch_of(900, 0, 55, 1), NULL), ERR_OUT_OF_ORDER);
    producers_expire(&producers, INT64_MAX);
    assert_int_equal(producers.table.count, 0);
    producers_done(&producers);
}

static void the_stored_form_holds_everything(void **state)
{
    (void)state;
    static uint8_t bytes[1 << 16];
    struct producers producers = {0}, restored = {0};
    for (int64_t id = 0; id < 50; id++) {
        for (int i = 0; i <= id % 7; i++)
            take(&producers, batch_of(id * 1000, (int16_t)id, i * 3, 3), (uint64_t)(id * 50 + i));
    }
    size_t size = producers_size(&producers);
    assert_true(size <= sizeof bytes);
    struct writer writer = writer_over(bytes, size);
    producers_encode(&producers, &writer);
    assert_false(writer.failed);
    size_t len = (size_t)(writer.at - bytes);
    struct reader reader = reader_over(slice_make(bytes, len));
    assert_int_equal(producers_restore(&restored, &reader), ERR_NONE);
    assert_int_equal(reader_left(&reader), 0);
    assert_int_equal(restored.table.count, 50);
    for (int64_t id = 0; id < 50; id++) {
        for (int i = 0; i < 9; i++) {
            struct producer_batch batch = batch_of(id * 1000, (int16_t)id, i * 3, 3);
            uint64_t base = 1, found = 1;
            assert_int_equal(producers_check(&restored, &batch, &found),
                             producers_check(&producers, &batch, &base));
            assert_int_equal(found, base);
        }
    }
    producers_done(&restored);
    for (size_t cut = 0; cut < len; cut += 13) {
        struct producers partial = {0};
        reader = reader_over(slice_make(bytes, cut));
        assert_int_equal(producers_restore(&partial, &reader), ERR_CORRUPT);
        producers_done(&partial);
    }
    producers_done(&producers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_follow_each_other),
        cmocka_unit_test(a_retry_gets_the_offset_of_the_first_time),
        cmocka_unit_test(what_came_before_the_first_accepted_is_no_duplicate),
        cmocka_unit_test(an_unknown_producer_may_begin_anywhere),
        cmocka_unit_test(an_older_epoch_is_fenced_and_a_newer_one_begins_at_0),
        cmocka_unit_test(sequences_wrap_behind_the_largest),
        cmocka_unit_test(idle_producers_are_forgotten),
        cmocka_unit_test(the_stored_form_holds_everything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
