/* Shares of a pool of 100 bytes. */
#include "io/gather.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

struct rig {
    struct gather_pool pool;
    struct gather a, b, c;
};

static int setup(void **state)
{
    static struct rig rig;
    rig = (struct rig){0};
    gather_pool_init(&rig.pool, 100);
    *state = &rig;
    return 0;
}

static void shares_are_given_while_they_last(void **state)
{
    struct rig *rig = *state;
    assert_true(gather_take(&rig->pool, &rig->a, 60, 0));
    assert_true(gather_take(&rig->pool, &rig->b, 40, 0));
    assert_false(gather_take(&rig->pool, &rig->c, 1, 0));
    assert_false(gather_take(&rig->pool, &rig->c, 1, 0)); /* asking again is no harm */
    assert_int_equal(rig->pool.used, 100);
    assert_null(gather_next(&rig->pool, 0));
    gather_give(&rig->pool, &rig->b);
    assert_ptr_equal(gather_next(&rig->pool, 7), &rig->c);
    assert_true(rig->c.holds && !rig->c.waits);
    assert_int_equal(rig->c.due_ms, 7 + GATHER_PATIENCE_MS);
    assert_int_equal(rig->pool.used, 61);
}

static void a_share_may_grow_when_there_is_room(void **state)
{
    struct rig *rig = *state;
    assert_true(gather_take(&rig->pool, &rig->a, 50, 0));
    assert_true(gather_take(&rig->pool, &rig->a, 30, 0)); /* it keeps what it has */
    assert_int_equal(rig->pool.used, 50);
    assert_true(gather_take(&rig->pool, &rig->a, 90, 0));
    assert_int_equal(rig->pool.used, 90);
    gather_give(&rig->pool, &rig->a);
    gather_give(&rig->pool, &rig->a);
    assert_int_equal(rig->pool.used, 0);
}

static void what_exceeds_the_pool_is_served_alone(void **state)
{
    struct rig *rig = *state;
    assert_true(gather_take(&rig->pool, &rig->a, 10, 0));
    assert_false(gather_take(&rig->pool, &rig->b, SIZE_MAX, 0));
    assert_false(gather_take(&rig->pool, &rig->c, 10, 0)); /* does not overtake */
    gather_give(&rig->pool, &rig->a);
    assert_ptr_equal(gather_next(&rig->pool, 0), &rig->b);
    assert_null(gather_next(&rig->pool, 0));
    gather_give(&rig->pool, &rig->b);
    assert_ptr_equal(gather_next(&rig->pool, 0), &rig->c);
}

static void who_stops_waiting_is_forgotten(void **state)
{
    struct rig *rig = *state;
    assert_true(gather_take(&rig->pool, &rig->a, 100, 0));
    assert_false(gather_take(&rig->pool, &rig->b, 100, 0));
    gather_give(&rig->pool, &rig->b);
    gather_give(&rig->pool, &rig->a);
    assert_null(gather_next(&rig->pool, 0));
    assert_int_equal(rig->pool.used, 0);
}

static void without_a_limit_nobody_waits(void **state)
{
    struct rig *rig = *state;
    gather_pool_init(&rig->pool, 0);
    assert_true(gather_take(&rig->pool, &rig->a, 1 << 30, 0));
    assert_true(gather_take(&rig->pool, &rig->b, 1 << 30, 0));
}

static void patience_is_earned_by_sending(void **state)
{
    struct rig *rig = *state;
    assert_true(gather_take(&rig->pool, &rig->a, 100, 1000));
    assert_int_equal(rig->a.due_ms, 1000 + GATHER_PATIENCE_MS);
    gather_arrived(&rig->a, 1 << 30, 1000); /* not in advance */
    assert_int_equal(rig->a.due_ms, 1000 + GATHER_PATIENCE_MS);
    gather_arrived(&rig->a, 100 * GATHER_SLOWEST_BYTES_PER_MS, 2000);
    assert_int_equal(rig->a.due_ms, 1100 + GATHER_PATIENCE_MS);
    gather_arrived(&rig->a, 1, 2500); /* nor by a trickle */
    assert_int_equal(rig->a.due_ms, 1100 + GATHER_PATIENCE_MS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(shares_are_given_while_they_last, setup),
        cmocka_unit_test_setup(a_share_may_grow_when_there_is_room, setup),
        cmocka_unit_test_setup(what_exceeds_the_pool_is_served_alone, setup),
        cmocka_unit_test_setup(who_stops_waiting_is_forgotten, setup),
        cmocka_unit_test_setup(without_a_limit_nobody_waits, setup),
        cmocka_unit_test_setup(patience_is_earned_by_sending, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
