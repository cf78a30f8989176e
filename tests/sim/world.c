/* Start and end of the simulated broker, and the probe face. A process runs one world at a time:
 * the face finds it through one static pointer. */
#include "world.h"

#include "alloc.h"
#include "inspect.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct world *the_world;

/* ---- The probe face: the first byte on a connection says which probe it is ---- */

struct probe_conn {
    struct conn *conn;
    struct probe *probe;
};

static void *probe_open(struct conn *conn)
{
    struct probe_conn *self = calloc(1, sizeof *self);
    if (self != NULL)
        self->conn = conn;
    return self;
}

static void probe_bind(struct probe_conn *self, uint8_t index)
{
    struct probe *probe = the_world->probes[index];
    if (probe->conn != NULL) /* the broker has not noticed yet that its last one is gone */
        probe->lost(probe);
    self->probe = probe;
    probe->conn = self->conn;
    probe->opened(probe);
}

static size_t probe_input(void *user, const uint8_t *data, size_t len)
{
    struct probe_conn *self = user;
    for (size_t i = 0; i < len; i++) {
        if (self->probe == NULL)
            probe_bind(self, data[i]);
        else if (self->probe->conn == self->conn)
            self->probe->act(self->probe);
        else if (self->probe->conn == NULL) /* an older one came behind it, and went */
            conn_close(self->conn, false);
    }
    return len;
}

static void release_entries(struct conn *conn, const struct event *event)
{
    for (uint32_t i = 0; event->type == EVENT_READ && i < event->read.count; i++)
        conn_release(conn, event->read.entries[i].buf);
}

static void probe_event(void *user, const struct event *event)
{
    struct probe_conn *self = user;
    bool heard = !sim_hung(the_world->sim, 0) && /* else it is a turn's rest that nobody hears of */
                 self->probe != NULL && self->probe->conn == self->conn;
    if (heard)
        self->probe->event(self->probe, event);
    release_entries(self->conn, event);
}

static void probe_close(void *user, enum err err)
{
    struct probe_conn *self = user;
    (void)err;
    if (self->probe != NULL && self->probe->conn == self->conn) {
        self->probe->lost(self->probe);
        self->probe->conn = NULL;
    }
    free(self);
}

static void probe_nothing(void *user)
{
    (void)user;
}

static void probe_timer(void *user, int64_t now_ms)
{
    (void)user;
    (void)now_ms;
}

static const struct face face_probe = {
    .name = "probe",
    .default_port = WORLD_PORT,
    .open = probe_open,
    .input = probe_input,
    .event = probe_event,
    .drained = probe_nothing,
    .timer = probe_timer,
    .close = probe_close,
};

/* ---- Clients ---- */

static void client_received(void *user, const uint8_t *data, size_t len)
{
    (void)user;
    (void)data;
    (void)len;
}

static void client_closed(void *user)
{
    struct probe *probe = user;
    probe->socket = NULL;
}

static const struct sim_client_handler client_handler = {
    .received = client_received,
    .closed = client_closed,
};

void world_poke(struct probe *probe)
{
    struct world *world = probe->world;
    if (!world->up)
        return;
    if (probe->socket == NULL)
        probe->socket = sim_connect(world->sim, 0, WORLD_PORT, &client_handler, probe);
    if (probe->socket != NULL)
        sim_client_send(probe->socket, &probe->index, 1);
}

void world_hang_up(struct probe *probe, bool reset)
{
    if (probe->socket != NULL)
        sim_client_close(probe->socket, reset);
    probe->socket = NULL;
    probe->leaves = false;
}

void world_add(struct world *world, struct probe *probe)
{
    probe->world = world;
    probe->index = (uint8_t)world->probe_count;
    world->probes[world->probe_count++] = probe;
}

/* Mostly the next one acts at once; sometimes all rest, so that timers come to their turn. */
static int64_t pause_us(struct world *world)
{
    uint32_t dice = world_random(world, 2048);
    if (dice == 0)
        return 1000 * (int64_t)world_random(world, 60000);
    if (dice < 40)
        return 1000 * (int64_t)world_random(world, 300);
    return 20 + world_random(world, 400);
}

static void act_run(void *ctx)
{
    struct world *world = ctx;
    struct probe *wanted[WORLD_PROBES_MAX];
    uint32_t count = 0;
    world->act_waits = false;
    for (uint32_t i = 0; i < world->probe_count; i++) {
        if (world->probes[i]->wanted)
            wanted[count++] = world->probes[i];
    }
    if (world->acts == 0 || count == 0)
        return;
    world->acts--;
    struct probe *probe = wanted[world_random(world, count)];
    if (probe->leaves || world_random(world, 48) == 0)
        world_hang_up(probe, world_random(world, 2) == 0);
    else
        world_poke(probe);
    world->act_waits = true;
    sim_after(world->sim, pause_us(world), act_run, world);
}

/* ---- The broker ---- */

static int64_t turn(void *ctx)
{
    struct sim *sim = the_world->sim;
    bool hold = sim_random(sim, 4) == 0;
    int64_t deadline = shard_turn(ctx, sim_now_ms(sim), sim_wall_ms(sim), hold);
    return hold && deadline > sim_now_ms(sim) + 1 ? sim_now_ms(sim) + 1 : deadline;
}

static void wake(void *ctx, uint32_t shard)
{
    struct world *world = ctx;
    sim_wake(world->sim, shard);
}

static int64_t log_clock(void *ctx)
{
    struct world *world = ctx;
    return sim_wall_ms(world->sim);
}

static void log_sink(void *ctx, struct slice line)
{
    const struct world *world = ctx;
    if (world->verbose)
        fwrite(line.data, 1, line.len, stdout);
}

/* What a disk does to the state store's file as a whole: a commit happens or it does not. */
static enum err state_commit(struct state *state, const struct state_batch *batch)
{
    struct world *world = the_world;
    if (sim_hung(world->sim, 0) || (world->faults.disk_errors && world_random(world, 8) == 0))
        return ERR_IO;
    if (world->faults.disk_full && world_random(world, 2) == 0)
        return ERR_DISK_FULL;
    alloc_hold();
    enum err err = state_memory_backend(world->state)->commit(state, batch);
    alloc_release();
    return err;
}

static enum err state_open(const struct state_backend *self, const char *path, bool create,
                           struct state **out)
{
    const struct state_backend *memory = state_memory_backend(the_world->state);
    (void)self;
    return memory->open(memory, path, create, out);
}

struct world *world_create(uint64_t seed, bool lie_about_sync, bool verbose, struct totals *totals)
{
    struct world *world = calloc(1, sizeof *world);
    struct sim_config config = {.shards = WORLD_SHARDS_MAX, .lie_about_sync = lie_about_sync};
    if (world == NULL)
        abort();
    world->sim = sim_create(seed, &config);
    world->keep_bytes = UINT64_C(1) << sim_random(world->sim, 12);
    world->state = state_memory_create();
    if (world->sim == NULL || world->state == NULL)
        abort();
    world->backend = *state_memory_backend(world->state);
    world->backend.open = state_open;
    world->backend.commit = state_commit;
    world->verbose = verbose;
    world->totals = totals;
    world->sync = true;
    world->log =
        (struct log){.level = LOG_INFO, .clock = log_clock, .sink = log_sink, .context = world};
    the_world = world;
    return world;
}

static void destroy_shards(struct world *world)
{
    world->mail_lost = world->mail_lost || inspect_mail(world);
    for (uint32_t i = 0; i < world->shards; i++) {
        if (world->broker.shards[i] != NULL)
            shard_destroy(world->broker.shards[i]);
        world->broker.shards[i] = NULL;
    }
    broker_done(&world->broker);
    for (uint32_t i = 0; i < world->probe_count; i++)
        world->probes[i]->conn = NULL;
}

void world_destroy(struct world *world)
{
    if (world->up)
        world_crash(world, SIM_KILL);
    sim_destroy(world->sim);
    state_memory_destroy(world->state);
    free(world);
    the_world = NULL;
}

static bool create_shards(struct world *world)
{
    struct broker *broker = &world->broker;
    for (uint32_t i = 0; i < world->shards; i++) {
        alloc_broker_begin();
        enum err err = shard_create(broker, i, sim_net(world->sim, i), sim_disk(world->sim, i),
                                    sim_now_ms(world->sim), sim_wall_ms(world->sim),
                                    sim_random(world->sim, UINT64_MAX), &broker->shards[i]);
        alloc_broker_end();
        if (err == ERR_NONE)
            continue;
        world_tell(world, "shard %u does not open: %s", i, err_text(err));
        if (!sim_hung(world->sim, 0) && !world_excuses(world, err))
            world_wrong(world, "shard %u does not open: %s", i, err_text(err));
        return false;
    }
    return true;
}

bool world_recover(struct world *world, uint32_t shards)
{
    struct broker *broker = &world->broker;
    world->shards = shards;
    world->life++;
    uint64_t memory = UINT64_C(4) << (20 + sim_random(world->sim, 4));
    *broker = (struct broker){
        .faces = {.max_message_bytes = 1 << 20, .cluster_name = "sim", .version = "sim"},
        .log = &world->log,
        .data = "/data",
        .shard_count = shards,
        .cell_count = WORLD_CELLS,
        .sync = world->sync,
        .keep_bytes = world->keep_bytes,
        .segment_bytes = UINT64_C(4) << (10 + sim_random(world->sim, 6)),
        .memory_limit = memory,
        .connections_max = 100,
        .state = &world->backend,
        .wake = wake,
        .wake_ctx = world,
    };
    if (broker_init(broker) != ERR_NONE)
        abort();
    world_tell(world, "---- start with %u shards, segments of %llu KiB", shards,
               (unsigned long long)(broker->segment_bytes >> 10));
    world->up = create_shards(world);
    if (!world->up) {
        sim_crash(world->sim, 0, world->faults.disk_errors ? SIM_POWER_CUT : SIM_KILL);
        destroy_shards(world);
        sim_restart(world->sim, 0);
    }
    return world->up;
}

static bool all_ready(const struct world *world)
{
    for (uint32_t i = 0; i < world->shards; i++) {
        if (!shard_ready(world->broker.shards[i]))
            return false;
    }
    return true;
}

static bool step(struct world *world)
{
    alloc_broker_begin();
    bool more = sim_step(world->sim);
    alloc_broker_end();
    if (sim_wall_ms(world->sim) > world->wall_max_ms)
        world->wall_max_ms = sim_wall_ms(world->sim);
    return more;
}

static bool may_fail(const struct world *world)
{
    return world->faults.disk_errors || world->faults.memory;
}

bool world_ended(const struct world *world)
{
    return world->wrong != NULL || sim_hung(world->sim, 0) || atomic_load(&world->broker.failed);
}

/* Is it at its end, and is that as it should be? */
static bool ended(struct world *world)
{
    if (!world_ended(world))
        return false;
    if (!sim_hung(world->sim, 0) && !may_fail(world))
        world_wrong(world, "the broker failed");
    return true;
}

bool world_begin(struct world *world)
{
    for (uint32_t i = 0; i < world->shards; i++)
        sim_shard_start(world->sim, i, turn, world->broker.shards[i]);
    shard_feed(world->broker.shards[0]);
    int64_t limit = sim_now_ms(world->sim) + 60000;
    while (!all_ready(world) && !ended(world) && sim_now_ms(world->sim) < limit && step(world))
        ;
    if (!all_ready(world)) {
        if (!world_ended(world) && !may_fail(world))
            world_wrong(world, "the broker does not get ready");
        return false;
    }
    for (uint32_t i = 0; i < world->shards; i++) {
        uint16_t port;
        if (shard_listen(world->broker.shards[i], &face_probe, "127.0.0.1", WORLD_PORT, &port) !=
            ERR_NONE) {
            if (!world_ended(world))
                world_wrong(world, "shard %u cannot listen", i);
            return false;
        }
    }
    return true;
}

void world_crash(struct world *world, enum sim_crash kind)
{
    world_tell(world, "---- %s", kind == SIM_KILL ? "the process ends" : "power cut");
    sim_crash(world->sim, 0, kind);
    destroy_shards(world);
    world->up = false;
    world->acts = 0;
    sim_restart(world->sim, 0);
}

bool world_stop(struct world *world)
{
    enum err err;
    int64_t limit = sim_now_ms(world->sim) + 120000;
    world->acts = 0;
    world_tell(world, "---- orderly stop");
    for (;;) {
        bool stopped = true;
        for (uint32_t i = 0; i < world->shards; i++) {
            shard_stop(world->broker.shards[i]);
            stopped = shard_stopped(world->broker.shards[i], &err) && stopped;
        }
        if (stopped)
            return true;
        if (world_ended(world))
            return false;
        if (sim_now_ms(world->sim) > limit) {
            if (!may_fail(world))
                world_wrong(world, "the broker does not stop");
            return false;
        }
        world_run(world, 1);
    }
}

void world_run(struct world *world, int64_t ms)
{
    int64_t end_us = (sim_now_ms(world->sim) + ms) * 1000;
    while (!ended(world) && sim_next_us(world->sim) <= end_us)
        step(world);
    if (!world_ended(world))
        sim_run_until(world->sim, end_us);
}

void world_act(struct world *world, uint32_t acts)
{
    world->acts = acts;
    if (!world->act_waits)
        sim_after(world->sim, 1, act_run, world);
    world->act_waits = true;
    while (world->acts > 0 && !ended(world) && step(world))
        ;
    world->acts = 0;
}

bool world_excuses(const struct world *world, enum err err)
{
    return (err == ERR_NO_MEMORY && world->faults.memory) ||
           (err == ERR_DISK_FULL && world->faults.disk_full) ||
           (err == ERR_IO && (world->faults.disk_errors || world->faults.memory));
}

void world_wrong(struct world *world, const char *format, ...)
{
    world->doubts++;
    if (world->wrong != NULL || world->doubtful)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(world->wrong_text, sizeof world->wrong_text, format, args);
    va_end(args);
    world->wrong = world->wrong_text;
    world_tell(world, "WRONG: %s", world->wrong);
}

void world_tell(const struct world *world, const char *format, ...)
{
    if (!world->verbose)
        return;
    va_list args;
    va_start(args, format);
    printf("%12.3f ms  ", (double)sim_now_us(world->sim) / 1000);
    vprintf(format, args);
    putchar('\n');
    va_end(args);
}
