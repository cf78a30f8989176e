/* For tests: shards of a simulated machine, whose turns the test calls itself. Nothing reaches the
 * disk meanwhile. */
#ifndef WEIR_SHARD_SHARD_RIG_H
#define WEIR_SHARD_SHARD_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "io/sim.h"
#include "shard/state.h"
#include "store/state.h"

#include <stdlib.h>

enum { RIG_SHARDS = 2, RIG_CELLS = 4, RIG_START_MS = 1000 };

struct rig {
    struct sim *sim;
    struct state_memory *state;
    struct log log;
    struct broker broker;
    struct conn conns[RIG_SHARDS]; /* what a face sees of each shard */
};

static inline int64_t rig_log_clock(void *ctx)
{
    (void)ctx;
    return 0;
}

static inline void rig_log_sink(void *ctx, struct slice line)
{
    (void)ctx;
    (void)line;
}

static inline void rig_wake(void *ctx, uint32_t shard)
{
    (void)ctx;
    (void)shard;
}

static inline int64_t rig_turn(struct rig *rig, uint32_t shard, int64_t now_ms)
{
    return shard_turn(rig->broker.shards[shard], now_ms, now_ms, false);
}

static inline int rig_setup(void **state)
{
    struct rig *rig = calloc(1, sizeof *rig);
    assert_non_null(rig);
    const struct sim_config config = {.shards = RIG_SHARDS};
    rig->sim = sim_create(1, &config);
    rig->state = state_memory_create();
    assert_non_null(rig->sim);
    assert_non_null(rig->state);
    rig->log = (struct log){.level = LOG_ERROR, .clock = rig_log_clock, .sink = rig_log_sink};
    rig->broker.faces.cluster_name = "test";
    rig->broker.log = &rig->log;
    rig->broker.data = "/data";
    rig->broker.shard_count = RIG_SHARDS;
    rig->broker.cell_count = RIG_CELLS;
    rig->broker.segment_bytes = 1 << 20;
    rig->broker.memory_limit = 16 << 20;
    rig->broker.connections_max = 10;
    rig->broker.state = state_memory_backend(rig->state);
    rig->broker.wake = rig_wake;
    assert_int_equal(broker_init(&rig->broker), ERR_NONE);
    for (uint32_t i = 0; i < RIG_SHARDS; i++) {
        struct shard *shard;
        assert_int_equal(shard_create(&rig->broker, i, sim_net(rig->sim, i), sim_disk(rig->sim, i),
                                      RIG_START_MS, RIG_START_MS, i + 1, &shard),
                         ERR_NONE);
        rig->conns[i].shard = shard;
    }
    shard_feed(rig->broker.shards[0]);
    for (int64_t ms = RIG_START_MS; ms < RIG_START_MS + 5; ms++) {
        for (uint32_t i = 0; i < RIG_SHARDS; i++)
            (void)rig_turn(rig, i, ms);
    }
    assert_true(shard_ready(rig->broker.shards[0]) && shard_ready(rig->broker.shards[1]));
    *state = rig;
    return 0;
}

static inline int rig_teardown(void **state)
{
    struct rig *rig = *state;
    sim_crash(rig->sim, 0, SIM_KILL);
    for (uint32_t i = 0; i < RIG_SHARDS; i++)
        shard_destroy(rig->broker.shards[i]);
    broker_done(&rig->broker);
    sim_destroy(rig->sim);
    state_memory_destroy(rig->state);
    free(rig);
    return 0;
}

#endif
