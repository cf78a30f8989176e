/* Records through a ring, by one thread and by two. */
#include "base/ring.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void put(struct ring *ring, uint8_t value, size_t len)
{
    uint8_t *record = ring_reserve(ring, len);
    assert_non_null(record);
    assert_int_equal((uintptr_t)record % 8, 0);
    memset(record, value, len);
    ring_commit(ring);
}

static void take(struct ring *ring, uint8_t value, size_t len)
{
    size_t got;
    const uint8_t *record = ring_peek(ring, &got);
    assert_non_null(record);
    assert_int_equal(got, len);
    for (size_t i = 0; i < len; i++)
        assert_int_equal(record[i], value);
    ring_consume(ring);
}

static void records_are_seen_once_published_and_in_order(void **state)
{
    (void)state;
    struct ring *ring = ring_create(4096);
    size_t len;
    assert_false(ring_publish(ring));
    put(ring, 1, 5);
    put(ring, 2, 0);
    put(ring, 3, 100);
    assert_null(ring_peek(ring, &len));
    assert_true(ring_publish(ring));
    assert_false(ring_publish(ring));
    assert_ptr_equal(ring_peek(ring, &len), ring_peek(ring, &len));
    take(ring, 1, 5);
    take(ring, 2, 0);
    take(ring, 3, 100);
    assert_null(ring_peek(ring, &len));
    ring_destroy(ring);
}

static void a_full_ring_refuses_and_goes_on_after_a_consume(void **state)
{
    (void)state;
    struct ring *ring = ring_create(4096);
    size_t len;
    for (int i = 0; i < 4; i++)
        put(ring, (uint8_t)i, 1016);
    assert_null(ring_reserve(ring, 1));
    ring_publish(ring);
    take(ring, 0, 1016);
    assert_null(ring_reserve(ring, 1016)); /* space is given back in batches */
    for (int i = 1; i < 4; i++)
        take(ring, (uint8_t)i, 1016);
    assert_null(ring_peek(ring, &len));
    put(ring, 9, 1016);
    ring_publish(ring);
    take(ring, 9, 1016);
    ring_destroy(ring);
}

static void a_reservation_that_is_not_committed_leaves_nothing(void **state)
{
    (void)state;
    struct ring *ring = ring_create(4096);
    size_t len;
    assert_non_null(ring_reserve(ring, 500));
    put(ring, 7, 30);
    assert_non_null(ring_reserve(ring, 500));
    ring_publish(ring);
    take(ring, 7, 30);
    assert_null(ring_peek(ring, &len));
    ring_destroy(ring);
}

static void the_longest_record_fits_wherever_the_ring_stands(void **state)
{
    (void)state;
    struct ring *ring = ring_create(4096);
    size_t len;
    for (size_t step = 0; step < 600; step++) {
        put(ring, 1, step % 61);
        ring_publish(ring);
        take(ring, 1, step % 61);
        assert_null(ring_peek(ring, &len));
        put(ring, 2, ring_record_max(ring));
        ring_publish(ring);
        take(ring, 2, ring_record_max(ring));
        assert_null(ring_peek(ring, &len));
    }
    ring_destroy(ring);
}

static void a_ring_with_little_traffic_stays_in_its_front(void **state)
{
    (void)state;
    struct ring *ring = ring_create(RING_BYTES_DEFAULT);
    uint8_t *first = ring_reserve(ring, 1);
    size_t len;
    for (int i = 0; i < 10000; i++) {
        put(ring, 1, 1000);
        ring_publish(ring);
        uint8_t *place = (uint8_t *)(uintptr_t)ring_peek(ring, &len);
        assert_true(place >= first && place < first + (64 << 10));
        take(ring, 1, 1000);
        assert_null(ring_peek(ring, &len));
    }
    ring_destroy(ring);
}

enum { RECORDS = 100000 };

static size_t record_length(uint32_t number)
{
    return 4 + number * 2654435761u % 400;
}

static void *produce(void *ctx)
{
    struct ring *ring = ctx;
    for (uint32_t i = 0; i < RECORDS;) {
        size_t len = record_length(i);
        uint8_t *record = ring_reserve(ring, len);
        if (record == NULL) {
            ring_publish(ring);
            sched_yield();
            continue;
        }
        memset(record, (uint8_t)i, len);
        memcpy(record, &i, sizeof i);
        ring_commit(ring);
        if (i % 7 == 0)
            ring_publish(ring);
        i++;
    }
    ring_publish(ring);
    return NULL;
}

static void two_threads_pass_every_record_in_order(void **state)
{
    (void)state;
    struct ring *ring = ring_create(8192);
    pthread_t producer;
    assert_int_equal(pthread_create(&producer, NULL, produce, ring), 0);
    uint32_t wrong = 0;
    for (uint32_t i = 0; i < RECORDS;) {
        size_t len;
        const uint8_t *record = ring_peek(ring, &len);
        if (record == NULL) {
            sched_yield();
            continue;
        }
        uint32_t number;
        memcpy(&number, record, sizeof number);
        wrong += number != i || len != record_length(i);
        for (size_t at = sizeof number; at < len; at++)
            wrong += record[at] != (uint8_t)i;
        ring_consume(ring);
        i++;
    }
    pthread_join(producer, NULL);
    assert_int_equal(wrong, 0);
    size_t len;
    assert_null(ring_peek(ring, &len));
    ring_destroy(ring);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_are_seen_once_published_and_in_order),
        cmocka_unit_test(a_full_ring_refuses_and_goes_on_after_a_consume),
        cmocka_unit_test(a_reservation_that_is_not_committed_leaves_nothing),
        cmocka_unit_test(the_longest_record_fits_wherever_the_ring_stands),
        cmocka_unit_test(a_ring_with_little_traffic_stays_in_its_front),
        cmocka_unit_test(two_threads_pass_every_record_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
