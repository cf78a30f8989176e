/* When figures become known, and that nobody is woken for them. Shards of a simulated machine,
 * whose turns the test calls itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "io/sim.h"
#include "shard/state.h"
#include "store/state.h"

#include <stdlib.h>

enum { SHARDS = 2, START_MS = 1000 };

struct rig {
    struct sim *sim;
    struct state_memory *state;
    struct log log;
    struct broker broker;
    struct conn conns[SHARDS]; /* what a face sees of each shard */
};

static int64_t log_clock(void *ctx)
{
    (void)ctx;
    return 0;
}

static void log_sink(void *ctx, struct slice line)
{
    (void)ctx;
    (void)line;
}

static void wake(void *ctx, uint32_t shard)
{
    (void)ctx;
    (void)shard;
}

static int64_t turn(struct rig *rig, uint32_t shard, int64_t now_ms)
{
    return shard_turn(rig->broker.shards[shard], now_ms, now_ms, false);
}

static int setup(void **state)
{
    struct rig *rig = calloc(1, sizeof *rig);
    assert_non_null(rig);
    const struct sim_config config = {.shards = SHARDS};
    rig->sim = sim_create(1, &config);
    rig->state = state_memory_create();
    assert_non_null(rig->sim);
    assert_non_null(rig->state);
    rig->log = (struct log){.level = LOG_ERROR, .clock = log_clock, .sink = log_sink};
    rig->broker.faces.cluster_name = "test";
    rig->broker.log = &rig->log;
    rig->broker.data = "/data";
    rig->broker.shard_count = SHARDS;
    rig->broker.cell_count = 4;
    rig->broker.segment_bytes = 1 << 20;
    rig->broker.memory_limit = 16 << 20;
    rig->broker.connections_max = 10;
    rig->broker.state = state_memory_backend(rig->state);
    rig->broker.wake = wake;
    assert_int_equal(broker_init(&rig->broker), ERR_NONE);
    for (uint32_t i = 0; i < SHARDS; i++) {
        struct shard *shard;
        assert_int_equal(shard_create(&rig->broker, i, sim_net(rig->sim, i), sim_disk(rig->sim, i),
                                      START_MS, START_MS, i + 1, &shard),
                         ERR_NONE);
        rig->conns[i].shard = shard;
    }
    shard_feed(rig->broker.shards[0]);
    for (int64_t ms = START_MS; ms < START_MS + 5; ms++) {
        for (uint32_t i = 0; i < SHARDS; i++)
            (void)turn(rig, i, ms);
    }
    assert_true(shard_ready(rig->broker.shards[0]) && shard_ready(rig->broker.shards[1]));
    *state = rig;
    return 0;
}

static int teardown(void **state)
{
    struct rig *rig = *state;
    sim_crash(rig->sim, 0, SIM_KILL);
    for (uint32_t i = 0; i < SHARDS; i++)
        shard_destroy(rig->broker.shards[i]);
    broker_done(&rig->broker);
    sim_destroy(rig->sim);
    state_memory_destroy(rig->state);
    free(rig);
    return 0;
}

static uint64_t shown(struct rig *rig, enum metric metric)
{
    uint64_t metrics[METRIC_COUNT];
    broker_metrics(&rig->broker, metrics);
    return metrics[metric];
}

static void what_is_counted_is_known_a_tenth_of_a_second_later(void **state)
{
    struct rig *rig = *state;
    (void)turn(rig, 0, START_MS + 100);
    conn_count(&rig->conns[0], METRIC_MESSAGES_RECEIVED_AMQP, 5);
    (void)turn(rig, 0, START_MS + 101);
    (void)turn(rig, 0, START_MS + 199);
    assert_int_equal(shown(rig, METRIC_MESSAGES_RECEIVED_AMQP), 0);
    (void)turn(rig, 0, START_MS + 200);
    assert_int_equal(shown(rig, METRIC_MESSAGES_RECEIVED_AMQP), 5);
}

static void a_shard_is_called_once_more_after_it_did_something_and_then_rests(void **state)
{
    struct rig *rig = *state;
    int64_t rest = turn(rig, 0, START_MS + 100);
    assert_true(rest >= START_MS + 1000);
    conn_count(&rig->conns[0], METRIC_MESSAGES_RECEIVED_AMQP, 5);
    assert_int_equal(turn(rig, 0, START_MS + 130), START_MS + 200);
    assert_int_equal(turn(rig, 0, START_MS + 200), rest);
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
    (void)turn(rig, 0, START_MS + 100);
    (void)turn(rig, 1, START_MS + 100);
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
    assert_int_equal(shown(rig, METRIC_SHARDS), SHARDS);
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

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

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
