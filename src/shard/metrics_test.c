/* When figures become known, and that nobody is woken for them. */
#include "shard/shard_rig.h"

static uint64_t shown(struct rig *rig, enum metric metric)
{
    uint64_t metrics[METRIC_COUNT];
    broker_metrics(&rig->broker, metrics);
    return metrics[metric];
}

static void what_is_counted_is_known_a_tenth_of_a_second_later(void **state)
{
    struct rig *rig = *state;
    (void)rig_turn(rig, 0, RIG_START_MS + 100);
    conn_count(&rig->conns[0], METRIC_MESSAGES_RECEIVED_AMQP, 5);
    (void)rig_turn(rig, 0, RIG_START_MS + 101);
    (void)rig_turn(rig, 0, RIG_START_MS + 199);
    assert_int_equal(shown(rig, METRIC_MESSAGES_RECEIVED_AMQP), 0);
    (void)rig_turn(rig, 0, RIG_START_MS + 200);
    assert_int_equal(shown(rig, METRIC_MESSAGES_RECEIVED_AMQP), 5);
}

static void a_shard_is_called_once_more_after_it_did_something_and_then_rests(void **state)
{
    struct rig *rig = *state;
    int64_t rest = rig_turn(rig, 0, RIG_START_MS + 100);
    assert_true(rest >= RIG_START_MS + 1000);
    conn_count(&rig->conns[0], METRIC_MESSAGES_RECEIVED_AMQP, 5);
    assert_int_equal(rig_turn(rig, 0, RIG_START_MS + 130), RIG_START_MS + 200);
    assert_int_equal(rig_turn(rig, 0, RIG_START_MS + 200), rest);
}

static void who_asks_sees_its_own_shard_as_it_is_now(void **state)
{
    struct rig *rig = *state;
    uint64_t metrics[METRIC_COUNT];
    conn_count(&rig->conns[0], METRIC_MESSAGES_RECEIVED_AMQP, 5);
    conn_count(&rig->conns[1], METRIC_MESSAGES_RECEIVED_AMQP, 7);
    conn_metrics(&rig->conns[0], metrics);
    assert_int_equal(metrics[METRIC_MESSAGES_RECEIVED_AMQP], 5);
    conn_metrics(&rig->conns[1], metrics);
    assert_int_equal(metrics[METRIC_MESSAGES_RECEIVED_AMQP], 12);
}

static void what_rose_on_one_shard_may_fall_on_another(void **state)
{
    struct rig *rig = *state;
    conn_count(&rig->conns[0], METRIC_AMQP_CHANNELS, 3);
    conn_count(&rig->conns[1], METRIC_AMQP_CHANNELS, -2);
    (void)rig_turn(rig, 0, RIG_START_MS + 100);
    (void)rig_turn(rig, 1, RIG_START_MS + 100);
    assert_int_equal(shown(rig, METRIC_AMQP_CHANNELS), 1);
}

static void observe(void *ctx, uint64_t metrics[METRIC_COUNT])
{
    (void)ctx;
    metrics[METRIC_DISK_FREE_BYTES] = 77;
}

static void what_belongs_to_no_shard_is_there_too(void **state)
{
    struct rig *rig = *state;
    rig->broker.observe = observe;
    assert_int_equal(shown(rig, METRIC_SHARDS), RIG_SHARDS);
    assert_int_equal(shown(rig, METRIC_CELLS), 4);
    assert_int_equal(shown(rig, METRIC_MESSAGE_MEMORY_LIMIT_BYTES), 16 << 20);
    assert_int_equal(shown(rig, METRIC_DISK_FREE_BYTES), 77);
    assert_int_equal(shown(rig, METRIC_PUBLISHERS_PAUSED_MEMORY), 0);
    assert_int_equal(shown(rig, METRIC_PUBLISHERS_PAUSED_DISK), 0);
    atomic_store(&rig->broker.pressed, 2);
    assert_int_equal(shown(rig, METRIC_PUBLISHERS_PAUSED_MEMORY), 1);
    atomic_store(&rig->broker.blocked, 1);
    assert_int_equal(shown(rig, METRIC_PUBLISHERS_PAUSED_DISK), 1);
}

static void health_names_what_is_wrong(void **state)
{
    struct rig *rig = *state;
    assert_int_equal(conn_health(&rig->conns[0]), ERR_NONE);
    atomic_store(&rig->broker.blocked, 2);
    assert_int_equal(conn_health(&rig->conns[0]), ERR_DISK_FULL);
    atomic_store(&rig->broker.failed, true);
    assert_int_equal(conn_health(&rig->conns[0]), ERR_IO);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_counted_is_known_a_tenth_of_a_second_later),
        TEST(a_shard_is_called_once_more_after_it_did_something_and_then_rests),
        TEST(who_asks_sees_its_own_shard_as_it_is_now),
        TEST(what_rose_on_one_shard_may_fall_on_another),
        TEST(what_belongs_to_no_shard_is_there_too),
        TEST(health_names_what_is_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
