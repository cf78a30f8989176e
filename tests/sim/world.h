/* A broker of one to three shards in one thread, on simulated clock, disk and network. It can be
 * crashed at any disk call or at any time, and started again with another number of shards. Clients
 * speak to it through a face of their own (probe), whose bytes mean nothing: a byte is a turn for
 * the client to issue commands, exactly as a protocol's face would. */
#ifndef WEIR_SIM_WORLD_H
#define WEIR_SIM_WORLD_H

#include "face/face.h"
#include "io/sim.h"
#include "shard/shard.h"
#include "store/state.h"

#include <stdbool.h>
#include <stdint.h>

enum { WORLD_SHARDS_MAX = 3, WORLD_CELLS = 4, WORLD_PORT = 1883 };

struct world;

/* A client as the probe face sees it. */
struct probe {
    struct world *world;
    struct conn *conn; /* NULL while not connected */
    struct sim_client *socket;
    bool wanted; /* reconnects when the broker is up */
    /* The connection is up: subscribe. */
    void (*opened)(struct probe *probe);
    /* A turn. */
    void (*act)(struct probe *probe);
    void (*event)(struct probe *probe, const struct event *event);
    void (*lost)(struct probe *probe);
};

struct world {
    struct sim *sim;
    struct state_memory *state;
    struct broker broker;
    struct log log;
    uint32_t shards;
    bool up, verbose, lie_about_sync;
    struct probe *probes[16];
    uint32_t probe_count;
    const char *wrong; /* the first thing found wrong, NULL = nothing */
    char wrong_text[512];
};

struct world *world_create(uint64_t seed, bool lie_about_sync, bool verbose);
void world_destroy(struct world *world);
/* Starts the broker and waits until it is ready; false when it does not come up. */
bool world_start(struct world *world, uint32_t shards);
void world_crash(struct world *world, enum sim_crash kind);
/* An orderly stop; false when it does not end. */
bool world_stop(struct world *world);
/* Lets simulated time pass; stops early when something is wrong or the machine hangs. */
void world_run(struct world *world, int64_t ms);
void world_add(struct world *world, struct probe *probe);
/* Records the first thing that is wrong. */
void world_wrong(struct world *world, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
