/* A set of ranges against a bitmap. */
#include "base/ranges.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

enum { NUMBERS = 300 };

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Number n of the bitmap is base + n of the set. */
static void check(const struct ranges *ranges, const bool *bits, uint64_t base)
{
    uint64_t sum = 0;
    for (uint64_t n = 0; n < NUMBERS; n++) {
        assert_int_equal(ranges_has(ranges, base + n), bits[n]);
        sum += bits[n];
        uint64_t next = n;
        while (next < NUMBERS && !bits[next])
            next++;
        const struct range *at = ranges_at(ranges, base + n);
        if (next == NUMBERS)
            assert_null(at);
        else
            assert_true(at->last >= base + next && (at->first == base + next || next == n));
    }
    assert_int_equal(ranges_sum(ranges), sum);
    for (uint32_t i = 0; i < ranges_count(ranges); i++) {
        const struct range *range = ranges_item(ranges, i);
        assert_true(range->first <= range->last);
        if (i > 0) /* sorted, apart and not touching */
            assert_true(ranges_item(ranges, i - 1)->last + 1 < range->first);
    }
}

static void it_holds_what_a_bitmap_holds(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        uint64_t random = seed * 104729;
        uint64_t base = seed % 3 == 0 ? 0 : seed % 3 == 1 ? UINT64_MAX - (NUMBERS - 1) : 1 << 20;
        bool bits[NUMBERS] = {false};
        struct ranges ranges = {0};
        for (int step = 0; step < 400; step++) {
            uint64_t first = next_random(&random) % NUMBERS;
            uint64_t most = next_random(&random) % 4 == 0 ? 60 : 4;
            uint64_t last = first + next_random(&random) % most;
            last = last < NUMBERS ? last : NUMBERS - 1;
            uint64_t what = next_random(&random) % 100;
            if (what < 60) {
                assert_true(ranges_add(&ranges, base + first, base + last));
                memset(bits + first, true, last - first + 1);
            } else if (what < 97) {
                assert_true(ranges_remove(&ranges, base + first, base + last));
                memset(bits + first, false, last - first + 1);
            } else {
                ranges_cut(&ranges, base + first / 4);
                memset(bits, false, first / 4);
            }
            if (step % 10 == 0)
                check(&ranges, bits, base);
        }
        check(&ranges, bits, base);
        ranges_done(&ranges);
    }
}

static void a_queue_of_numbers_takes_constant_room(void **state)
{
    (void)state;
    struct ranges ranges = {0};
    for (uint64_t n = 0; n < 100000; n++) {
        assert_true(ranges_add(&ranges, 2 * n, 2 * n));
        if (n >= 10)
            assert_true(ranges_remove(&ranges, 2 * (n - 10), 2 * (n - 10)));
    }
    assert_int_equal(ranges_count(&ranges), 10);
    assert_true(ranges.capacity <= 64);
    ranges_done(&ranges);
}

static void the_whole_span_of_numbers_fits(void **state)
{
    (void)state;
    struct ranges ranges = {0};
    assert_true(ranges_add(&ranges, 0, UINT64_MAX));
    assert_int_equal(ranges_count(&ranges), 1);
    assert_true(ranges_remove(&ranges, 5, 5));
    assert_int_equal(ranges_count(&ranges), 2);
    assert_true(ranges_add(&ranges, 0, UINT64_MAX));
    assert_int_equal(ranges_count(&ranges), 1);
    assert_true(ranges_remove(&ranges, 0, UINT64_MAX));
    assert_int_equal(ranges_count(&ranges), 0);
    ranges_done(&ranges);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_holds_what_a_bitmap_holds),
        cmocka_unit_test(a_queue_of_numbers_takes_constant_room),
        cmocka_unit_test(the_whole_span_of_numbers_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
