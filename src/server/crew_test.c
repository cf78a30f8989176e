/* Shards that do nothing but note which thread runs them, under a load that is only claimed. */
#include "server/crew.h"

#include "io/loop.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum { SHARDS = 4, WAIT_MS = 20000 };

struct rig {
    struct crew *crew;
    struct loop *loops[SHARDS];
    _Atomic(pthread_t) thread[SHARDS]; /* that ran the shard last */
    _Atomic uint32_t turns[SHARDS];
    _Atomic uint32_t running[SHARDS]; /* turns at this moment */
    _Atomic bool overlapped, loaded, stop;
};

static int64_t wall_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static bool open_shard(void *ctx, uint32_t shard)
{
    struct rig *rig = ctx;
    const struct loop_config config = {.shard = shard};
    return loop_create(&config, &rig->loops[shard]) == ERR_NONE;
}

static void turn_shard(void *ctx, uint32_t shard, bool hold, struct crew_turn *turn)
{
    (void)hold;
    struct rig *rig = ctx;
    if (atomic_fetch_add(&rig->running[shard], 1) != 0)
        rig->overlapped = true;
    loop_turn(rig->loops[shard]);
    rig->thread[shard] = pthread_self();
    rig->turns[shard]++;
    *turn = (struct crew_turn){
        .deadline_ms = loop_now_ms(rig->loops[shard]) + 5, .ended = rig->stop, .units = 1};
    atomic_fetch_sub(&rig->running[shard], 1);
}

static struct loop *loop_of(void *ctx, uint32_t shard)
{
    return ((struct rig *)ctx)->loops[shard];
}

/* All of a CPU, or none. */
static int64_t claimed_ns(void *ctx)
{
    return ((struct rig *)ctx)->loaded ? wall_ns() : 0;
}

static uint32_t threads_in_use(struct rig *rig)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < SHARDS; i++) {
        bool seen = false;
        for (uint32_t k = 0; k < i; k++)
            seen = seen || pthread_equal(rig->thread[k], rig->thread[i]);
        count += !seen;
    }
    return count;
}

static bool comes_to(struct rig *rig, uint32_t threads)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    for (int64_t end = wall_ns() + WAIT_MS * INT64_C(1000000); wall_ns() < end;) {
        if (threads_in_use(rig) == threads)
            return true;
        nanosleep(&pause, NULL);
    }
    return false;
}

/* Up to where every shard runs, on a thread of its own. */
static int setup(void **state)
{
    static struct rig rig;
    memset(&rig, 0, sizeof rig);
    const struct crew_config config = {
        .shards = SHARDS,
        .rest_ns = 50000,
        .ctx = &rig,
        .open = open_shard,
        .turn = turn_shard,
        .loop = loop_of,
        .cpu_ns = claimed_ns,
    };
    assert_int_equal(crew_start(&config, &rig.crew), ERR_NONE);
    *state = &rig;
    return comes_to(&rig, SHARDS) ? 0 : -1;
}

static int teardown(void **state)
{
    struct rig *rig = *state;
    rig->stop = true;
    crew_join(rig->crew);
    for (int i = 0; i < SHARDS; i++)
        loop_destroy(rig->loops[i]);
    assert_false(rig->overlapped);
    return 0;
}

static void a_folded_crew_needs_one_thread(void **state)
{
    struct rig *rig = *state;
    crew_fold(rig->crew);
    assert_true(comes_to(rig, 1));
    for (uint32_t i = 0; i < SHARDS; i++) {
        uint32_t before = rig->turns[i];
        loop_wake(rig->loops[i]);
        for (int64_t end = wall_ns() + WAIT_MS * INT64_C(1000000);
             rig->turns[i] == before && wall_ns() < end;)
            ;
        assert_int_not_equal(rig->turns[i], before);
    }
}

static void threads_come_with_the_load_and_go_with_it(void **state)
{
    struct rig *rig = *state;
    crew_fold(rig->crew);
    assert_true(comes_to(rig, 1));
    rig->loaded = true;
    assert_true(comes_to(rig, SHARDS));
    rig->loaded = false;
    assert_true(comes_to(rig, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_folded_crew_needs_one_thread, setup, teardown),
        cmocka_unit_test_setup_teardown(threads_come_with_the_load_and_go_with_it, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
