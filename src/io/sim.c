/* The world's clock and its queue of events, a heap ordered by time. Nothing depends on addresses
 * or on the real clock. */
#include "io/sim_memory.h"
#include "io/sim_world.h"

#include <assert.h>
#include <stdlib.h>

static const int64_t WALL_START_MS = 1700000000000;

enum { WAKE_US_MAX = 30, NET_US_MAX = 100 };

static bool earlier(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->number < b->number;
}

static void event_push(struct sim *sim, struct sim_event event)
{
    if (sim->events_count == sim->events_capacity) {
        sim->events_capacity = sim->events_capacity ? sim->events_capacity * 2 : 64;
        sim->events = sim_resize(sim->events, sim->events_capacity, sizeof *sim->events);
        assert(sim->events != NULL);
    }
    size_t at = sim->events_count++;
    for (; at > 0 && earlier(&event, &sim->events[(at - 1) / 2]); at = (at - 1) / 2)
        sim->events[at] = sim->events[(at - 1) / 2];
    sim->events[at] = event;
}

static struct sim_event event_pop(struct sim *sim)
{
    struct sim_event first = sim->events[0];
    struct sim_event last = sim->events[--sim->events_count];
    size_t at = 0;
    for (;;) {
        size_t child = at * 2 + 1;
        if (child >= sim->events_count)
            break;
        if (child + 1 < sim->events_count && earlier(&sim->events[child + 1], &sim->events[child]))
            child++;
        if (!earlier(&sim->events[child], &last))
            break;
        sim->events[at] = sim->events[child];
        at = child;
    }
    if (sim->events_count > 0)
        sim->events[at] = last;
    return first;
}

void sim_schedule(struct sim *sim, struct sim_machine *machine, int64_t delay_us,
                  void (*run)(void *ctx), void *ctx)
{
    event_push(sim, (struct sim_event){
                        .at_us = sim->now_us + delay_us,
                        .number = sim->events_number++,
                        .run = run,
                        .ctx = ctx,
                        .machine = machine,
                        .epoch = machine ? machine->epoch : 0,
                    });
}

int64_t sim_delay(struct sim *sim, uint32_t max_us)
{
    return 1 + (int64_t)sim_random_below(&sim->random, max_us);
}

void sim_digest_mix(struct sim *sim, uint64_t value)
{
    struct sim_random mixer = {.state = sim->digest ^ value};
    sim->digest = sim_random_bits(&mixer);
}

static void clocks_tell(struct sim *sim)
{
    for (uint32_t i = 0; i < sim->config.machines * sim->config.shards; i++) {
        struct sim_shard *shard = &sim->shards[i];
        if (shard->net.clock != NULL && sim_shard_lives(shard))
            shard->net.clock(shard->net.clock_ctx, sim_now_ms(sim), sim_wall_ms(sim));
    }
}

bool sim_step(struct sim *sim)
{
    if (sim->events_count == 0)
        return false;
    struct sim_event event = event_pop(sim);
    if (sim->now_us < event.at_us) /* else it is late: the machine slept */
        sim->now_us = event.at_us;
    clocks_tell(sim);
    const struct sim_machine *machine = event.machine;
    if (machine == NULL || (machine->epoch == event.epoch && machine->state == MACHINE_UP)) {
        sim_digest_mix(sim, (uint64_t)event.at_us);
        sim_digest_mix(sim, event.number);
        event.run(event.ctx);
    }
    return true;
}

int64_t sim_next_us(const struct sim *sim)
{
    return sim->events_count > 0 ? sim->events[0].at_us : INT64_MAX;
}

void sim_run_until(struct sim *sim, int64_t now_us)
{
    while (sim->events_count > 0 && sim->events[0].at_us <= now_us)
        sim_step(sim);
    if (sim->now_us < now_us)
        sim->now_us = now_us;
}

int64_t sim_now_us(const struct sim *sim)
{
    return sim->now_us;
}

int64_t sim_now_ms(const struct sim *sim)
{
    return sim->now_us / 1000;
}

int64_t sim_wall_ms(const struct sim *sim)
{
    return WALL_START_MS + sim->wall_offset_ms + sim->now_us / 1000;
}

void sim_wall_jump(struct sim *sim, int64_t ms)
{
    sim->wall_offset_ms += ms;
}

void sim_sleep(struct sim *sim, int64_t us)
{
    sim->now_us += us;
}

uint64_t sim_random(struct sim *sim, uint64_t below)
{
    assert(below > 0);
    return sim_random_below(&sim->random, below);
}

bool sim_chance(struct sim *sim, uint32_t per_million)
{
    return sim_random_chance(&sim->random, per_million);
}

uint64_t sim_digest(const struct sim *sim)
{
    return sim->digest;
}

void sim_after(struct sim *sim, int64_t delay_us, void (*run)(void *ctx), void *ctx)
{
    sim_schedule(sim, NULL, delay_us, run, ctx);
}

/* Shards */

static void timer_run(void *ctx)
{
    struct sim_shard *shard = ctx;
    if (shard->timer_us <= shard->sim->now_us)
        shard->timer_us = INT64_MAX;
    sim_shard_turn(shard);
}

static void wake_run(void *ctx)
{
    struct sim_shard *shard = ctx;
    shard->woken = false;
    sim_shard_turn(shard);
}

void sim_shard_turn(struct sim_shard *shard)
{
    if (!sim_shard_lives(shard) || shard->turn == NULL)
        return;
    struct sim *sim = shard->sim;
    int64_t due_ms = shard->turn(shard->turn_ctx);
    if (!sim_shard_lives(shard))
        return; /* it hung in this turn: nothing leaves it any more */
    sim_net_flush(shard);
    if (due_ms == INT64_MAX)
        return;
    int64_t due_us = due_ms <= sim_now_ms(sim) ? sim->now_us + 1 : due_ms * 1000;
    if (due_us >= shard->timer_us)
        return; /* the turn that is scheduled will ask again */
    shard->timer_us = due_us;
    sim_schedule(sim, shard->machine, due_us - sim->now_us, timer_run, shard);
}

void sim_shard_start(struct sim *sim, uint32_t number, int64_t (*turn)(void *ctx), void *ctx)
{
    struct sim_shard *shard = &sim->shards[number];
    assert(sim_shard_lives(shard));
    shard->turn = turn;
    shard->turn_ctx = ctx;
    shard->timer_us = INT64_MAX;
    shard->woken = false;
    sim_wake(sim, number);
}

void sim_wake(struct sim *sim, uint32_t number)
{
    struct sim_shard *shard = &sim->shards[number];
    if (shard->woken || !sim_shard_lives(shard))
        return;
    shard->woken = true;
    sim_schedule(sim, shard->machine, sim_delay(sim, WAKE_US_MAX), wake_run, shard);
}

struct disk *sim_disk(struct sim *sim, uint32_t shard)
{
    return &sim->shards[shard].disk;
}

struct net *sim_net(struct sim *sim, uint32_t shard)
{
    return &sim->shards[shard].net;
}

/* Crashes */

void sim_crash(struct sim *sim, uint32_t number, enum sim_crash kind)
{
    struct sim_machine *machine = &sim->machines[number];
    assert(machine->state != MACHINE_DOWN);
    machine->state = MACHINE_DOWN;
    machine->epoch++;
    for (uint32_t i = 0; i < sim->config.shards; i++) {
        struct sim_shard *shard = &sim->shards[number * sim->config.shards + i];
        shard->turn = NULL;
        shard->net.clock = NULL;
    }
    sim_disk_crash(machine, kind);
    sim_net_crash(machine);
}

void sim_restart(struct sim *sim, uint32_t number)
{
    struct sim_machine *machine = &sim->machines[number];
    assert(machine->state == MACHINE_DOWN);
    sim_net_restart(machine);
    machine->hang_at = 0;
    machine->state = MACHINE_UP;
}

void sim_hang_after(struct sim *sim, uint32_t machine, uint64_t disk_calls)
{
    struct sim_machine *it = &sim->machines[machine];
    it->hang_at = disk_calls == 0 ? 0 : it->disk_calls + disk_calls;
}

bool sim_hung(const struct sim *sim, uint32_t machine)
{
    return sim->machines[machine].state == MACHINE_HUNG;
}

uint64_t sim_disk_calls(const struct sim *sim, uint32_t machine)
{
    return sim->machines[machine].disk_calls;
}

void sim_disk_limit(struct sim *sim, uint32_t machine, uint64_t bytes)
{
    sim->machines[machine].disk_limit = bytes;
}

uint64_t sim_disk_used(const struct sim *sim, uint32_t machine)
{
    return sim->machines[machine].disk_used;
}

void sim_disk_errors(struct sim *sim, uint32_t machine, uint32_t per_million)
{
    sim->machines[machine].disk_error_rate = per_million;
}

void sim_disk_slow(struct sim *sim, uint32_t machine, uint32_t times)
{
    sim->machines[machine].disk_slow = times == 0 ? 1 : times;
}

void sim_net_trouble(struct sim *sim, uint32_t net_us_max, uint32_t reset_rate)
{
    sim->config.net_us_max = net_us_max == 0 ? NET_US_MAX : net_us_max;
    sim->config.net_reset_rate = reset_rate;
}

/* The world */

static void or_default(uint32_t *value, uint32_t other)
{
    if (*value == 0)
        *value = other;
}

static bool machine_init(struct sim *sim, struct sim_machine *machine)
{
    machine->sim = sim;
    machine->disk_limit = sim->config.disk_capacity;
    machine->disk_error_rate = sim->config.disk_error_rate;
    machine->disk_slow = 1;
    list_init(&machine->requests);
    list_init(&machine->files);
    return sim_disk_init(machine);
}

static void shard_init(struct sim *sim, struct sim_shard *shard, struct sim_machine *machine)
{
    shard->disk.ops = &SIM_DISK_OPS;
    shard->net.ops = &SIM_NET_OPS;
    shard->sim = sim;
    shard->machine = machine;
    shard->timer_us = INT64_MAX;
    list_init(&shard->listeners);
    list_init(&shard->dirty);
}

struct sim *sim_create(uint64_t seed, const struct sim_config *config)
{
    struct sim *sim = sim_make(sizeof *sim);
    if (sim == NULL)
        return NULL;
    sim->config = *config;
    or_default(&sim->config.machines, 1);
    or_default(&sim->config.shards, 1);
    or_default(&sim->config.disk_us_max, 100);
    or_default(&sim->config.sync_us_max, 300);
    or_default(&sim->config.net_us_max, NET_US_MAX);
    or_default(&sim->config.net_window, 64 << 10);
    sim->random.state = seed;
    sim->digest = seed;
    sim->next_port = 40000;
    list_init(&sim->links);
    uint32_t machines = sim->config.machines, shards = sim->config.shards;
    sim->machines = sim_make(machines * sizeof *sim->machines);
    sim->shards = sim_make((size_t)machines * shards * sizeof *sim->shards);
    bool good = sim->machines != NULL && sim->shards != NULL && inq_pool_init(&sim->in, NULL);
    for (uint32_t i = 0; good && i < machines; i++)
        good = machine_init(sim, &sim->machines[i]);
    for (uint32_t i = 0; good && i < machines * shards; i++)
        shard_init(sim, &sim->shards[i], &sim->machines[i / shards]);
    if (!good) {
        sim_destroy(sim);
        return NULL;
    }
    return sim;
}

void sim_destroy(struct sim *sim)
{
    sim_net_done(sim);
    for (uint32_t i = 0; sim->machines != NULL && i < sim->config.machines; i++)
        sim_disk_done(&sim->machines[i]);
    inq_pool_done(&sim->in);
    outq_pool_done(&sim->out);
    free(sim->events);
    free(sim->machines);
    free(sim->shards);
    free(sim);
}
