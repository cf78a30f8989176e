/* Turns at made-up times. */
#include "io/pace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { TURN_NS = 100000 };

/* Turns of `units` each, `apart_ns` from one to the next, woken at the beginning of each. */
static int64_t rest_after(struct pace *pace, int turns, uint64_t units, int64_t apart_ns)
{
    int64_t rest = 0;
    for (int i = 0; i < turns; i++) {
        pace->woke_ns = pace->last_ns + apart_ns - 1000;
        rest = pace_rest(pace, units, pace->woke_ns + 1000);
    }
    return rest;
}

static void few_messages_are_never_made_to_wait(void **state)
{
    (void)state;
    struct pace pace = {.turn_ns = TURN_NS};
    assert_int_equal(rest_after(&pace, 1000, 1, 1000000), -1);
    assert_int_equal(rest_after(&pace, 1000, 2, 60000), -1);
}

static void many_are_gathered_for_the_rest_of_a_turn(void **state)
{
    (void)state;
    struct pace pace = {.turn_ns = TURN_NS};
    assert_int_equal(rest_after(&pace, 1000, 1, 10000), TURN_NS - 1000);
    assert_int_equal(rest_after(&pace, 1000, 12, 120000), TURN_NS - 1000);
}

static void a_burst_after_silence_is_not_a_rate(void **state)
{
    (void)state;
    struct pace pace = {.turn_ns = TURN_NS};
    (void)rest_after(&pace, 10, 0, 1000000000);
    assert_int_equal(rest_after(&pace, 1, 20, 1000000000), -1);
}

static void a_turn_that_took_as_long_is_followed_by_the_next(void **state)
{
    (void)state;
    struct pace pace = {.turn_ns = TURN_NS};
    assert_true(rest_after(&pace, 1000, 10, 10000) > 0);
    pace.woke_ns = pace.last_ns;
    assert_int_equal(pace_rest(&pace, 100, pace.woke_ns + TURN_NS), 0);
}

static void a_pace_of_zero_never_rests(void **state)
{
    (void)state;
    struct pace pace = {0};
    assert_int_equal(rest_after(&pace, 1000, 1000, 1000), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(few_messages_are_never_made_to_wait),
        cmocka_unit_test(many_are_gathered_for_the_rest_of_a_turn),
        cmocka_unit_test(a_burst_after_silence_is_not_a_rate),
        cmocka_unit_test(a_turn_that_took_as_long_is_followed_by_the_next),
        cmocka_unit_test(a_pace_of_zero_never_rests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
