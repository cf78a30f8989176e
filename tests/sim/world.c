/* Start and end of the simulated broker, and the probe face. A process runs one world at a time:
 * the face finds it through one static pointer. */
#include "world.h"

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

static size_t probe_input(void *user, const uint8_t *data, size_t len)
{
    struct probe_conn *self = user;
    for (size_t i = 0; i < len; i++) {
        if (self->probe == NULL) {
            self->probe = the_world->probes[data[i]];
            self->probe->conn = self->conn;
            self->probe->opened(self->probe);
        } else {
            self->probe->act(self->probe);
        }
    }
    return len;
}

static void probe_event(void *user, const struct event *event)
{
    struct probe_conn *self = user;
    if (!sim_hung(the_world->sim,
                  0)) /* else it is a turn's rest that no client hears of any more */
        self->probe->event(self->probe, event);
}

static void probe_close(void *user, enum err err)
{
    struct probe_conn *self = user;
    (void)err;
    if (self->probe != NULL && self->probe->conn == self->conn) {
        self->probe->conn = NULL;
        self->probe->lost(self->probe);
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

static void tick(void *ctx);

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

static void tick(void *ctx)
{
    struct probe *probe = ctx;
    struct world *world = probe->world;
    if (world->up && probe->wanted) {
        uint8_t index = 0;
        while (world->probes[index] != probe)
            index++;
        if (probe->socket == NULL) {
            probe->socket = sim_connect(world->sim, 0, WORLD_PORT, &client_handler, probe);
            if (probe->socket != NULL)
                sim_client_send(probe->socket, &index, 1);
        } else {
            sim_client_send(probe->socket, &index, 1);
        }
    }
    int64_t pause_us = 200 + (int64_t)sim_random(world->sim, 3000);
    sim_after(world->sim, pause_us, tick, probe);
}

void world_add(struct world *world, struct probe *probe)
{
    probe->world = world;
    world->probes[world->probe_count++] = probe;
    sim_after(world->sim, 1, tick, probe);
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
    struct world *world = ctx;
    if (world->verbose)
        fwrite(line.data, 1, line.len, stderr);
}

struct world *world_create(uint64_t seed, bool lie_about_sync, bool verbose)
{
    struct world *world = calloc(1, sizeof *world);
    struct sim_config config = {
        .shards = WORLD_SHARDS_MAX,
        .net_reset_rate = seed % 3 == 0 ? 200 : 0,
        .lie_about_sync = lie_about_sync,
    };
    if (world == NULL)
        abort();
    world->sim = sim_create(seed, &config);
    world->state = state_memory_create();
    if (world->sim == NULL || world->state == NULL)
        abort();
    world->verbose = verbose;
    world->log =
        (struct log){.level = LOG_INFO, .clock = log_clock, .sink = log_sink, .context = world};
    the_world = world;
    return world;
}

static void destroy_shards(struct world *world)
{
    for (uint32_t i = 0; i < world->shards; i++) {
        if (world->broker.shards[i] != NULL)
            shard_destroy(world->broker.shards[i]);
        world->broker.shards[i] = NULL;
    }
    broker_done(&world->broker);
    memset(&world->broker, 0, sizeof world->broker);
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

static bool all_ready(const struct world *world)
{
    for (uint32_t i = 0; i < world->shards; i++) {
        if (!shard_ready(world->broker.shards[i]))
            return false;
    }
    return true;
}

static bool create_shards(struct world *world)
{
    struct broker *broker = &world->broker;
    for (uint32_t i = 0; i < world->shards; i++) {
        enum err err = shard_create(broker, i, sim_net(world->sim, i), sim_disk(world->sim, i),
                                    sim_now_ms(world->sim), sim_wall_ms(world->sim),
                                    sim_random(world->sim, UINT64_MAX), &broker->shards[i]);
        if (err != ERR_NONE) {
            if (!sim_hung(world->sim, 0))
                world_wrong(world, "shard %u does not open: %s", i, err_text(err));
            return false;
        }
    }
    return true;
}

bool world_start(struct world *world, uint32_t shards)
{
    struct broker *broker = &world->broker;
    world->shards = shards;
    *broker = (struct broker){
        .faces = {.max_message_bytes = 1 << 20, .cluster_name = "sim", .version = "sim"},
        .log = &world->log,
        .data = "/data",
        .shard_count = shards,
        .cell_count = WORLD_CELLS,
        .sync = true,
        .segment_bytes = UINT64_C(16) << (10 + sim_random(world->sim, 5)),
        .memory_limit = UINT64_C(8) << (20 + sim_random(world->sim, 4)),
        .connections_max = 100,
        .state = state_memory_backend(world->state),
        .wake = wake,
        .wake_ctx = world,
    };
    if (broker_init(broker) != ERR_NONE)
        abort();
    if (!create_shards(world)) {
        sim_crash(world->sim, 0, SIM_KILL);
        destroy_shards(world);
        sim_restart(world->sim, 0);
        return false;
    }
    for (uint32_t i = 0; i < shards; i++)
        sim_shard_start(world->sim, i, turn, broker->shards[i]);
    shard_feed(broker->shards[0]);
    world->up = true;
    int64_t limit = sim_now_ms(world->sim) + 60000;
    while (!all_ready(world) && !sim_hung(world->sim, 0) && sim_now_ms(world->sim) < limit &&
           sim_step(world->sim))
        ;
    if (!all_ready(world)) {
        if (!sim_hung(world->sim, 0))
            world_wrong(world, "the broker does not get ready");
        return false;
    }
    uint16_t port;
    for (uint32_t i = 0; i < shards; i++) {
        if (shard_listen(broker->shards[i], &face_probe, "127.0.0.1", WORLD_PORT, &port) !=
            ERR_NONE) {
            if (!sim_hung(world->sim, 0))
                world_wrong(world, "shard %u cannot listen", i);
            return false;
        }
    }
    return true;
}

void world_crash(struct world *world, enum sim_crash kind)
{
    sim_crash(world->sim, 0, kind);
    destroy_shards(world);
    world->up = false;
    sim_restart(world->sim, 0);
}

bool world_stop(struct world *world)
{
    enum err err;
    int64_t limit = sim_now_ms(world->sim) + 120000;
    for (;;) {
        bool stopped = true;
        for (uint32_t i = 0; i < world->shards; i++) {
            shard_stop(world->broker.shards[i]);
            stopped = shard_stopped(world->broker.shards[i], &err) && stopped;
        }
        if (stopped)
            break;
        if (sim_hung(world->sim, 0))
            return false;
        if (sim_now_ms(world->sim) > limit) {
            world_wrong(world, "the broker does not stop");
            return false;
        }
        sim_run_until(world->sim, sim_now_us(world->sim) + 1000);
    }
    world_crash(world, SIM_POWER_CUT); /* after an orderly stop nothing is at stake */
    return true;
}

void world_run(struct world *world, int64_t ms)
{
    int64_t end_ms = sim_now_ms(world->sim) + ms;
    while (sim_now_ms(world->sim) < end_ms && world->wrong == NULL && !sim_hung(world->sim, 0)) {
        if (!sim_step(world->sim))
            break;
        if (atomic_load(&world->broker.failed) && !sim_hung(world->sim, 0))
            world_wrong(world, "the broker failed");
    }
}

void world_wrong(struct world *world, const char *format, ...)
{
    if (world->wrong != NULL)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(world->wrong_text, sizeof world->wrong_text, format, args);
    va_end(args);
    world->wrong = world->wrong_text;
}
