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
#include "totals.h"

#include <stdbool.h>
#include <stdint.h>

enum { WORLD_SHARDS_MAX = 3, WORLD_CELLS = 4, WORLD_PORT = 1883, WORLD_PROBES_MAX = 16 };

struct world;

/* A client as the probe face sees it. */
struct probe {
    struct world *world;
    struct conn *conn; /* NULL while not connected */
    struct sim_client *socket;
    const char *name;
    uint8_t index;
    bool wanted; /* takes part in world_act */
    bool leaves; /* its next turn is to hang up */
    /* The connection is up: subscribe. */
    void (*opened)(struct probe *probe);
    /* A turn. */
    void (*act)(struct probe *probe);
    void (*event)(struct probe *probe, const struct event *event);
    /* The connection is gone. */
    void (*lost)(struct probe *probe);
};

/* What is wrong with the machine on purpose, and so excuses the broker. */
struct world_faults {
    bool disk_errors, disk_full, memory; /* they may end it, and refuse what is asked */
    bool resets;
};

struct world {
    struct sim *sim;
    struct state_memory *state;
    struct state_backend backend; /* that of `state`, with faults of its own */
    struct broker broker;
    struct log log;
    struct totals *totals;
    struct world_faults faults;
    uint32_t shards;
    uint64_t keep_bytes; /* of all lives: see struct store_config */
    bool up, verbose;
    bool sync;           /* durability: fdatasync, or page cache only */
    uint32_t life;       /* number of starts */
    uint32_t acts;       /* turns of clients that are still to be taken */
    bool mail_lost;      /* a crash has left memory of messages between shards */
    bool act_waits;      /* the next turn is scheduled */
    int64_t wall_max_ms; /* the latest that the wall clock has said */
    struct probe *probes[WORLD_PROBES_MAX];
    uint32_t probe_count;
    bool doubtful; /* what is wrong now may come right: it only counts as a doubt */
    uint32_t doubts;
    const char *wrong; /* the first thing found wrong, NULL = nothing */
    char wrong_text[512];
};

struct world *world_create(uint64_t seed, bool lie_about_sync, bool verbose, struct totals *totals);
void world_destroy(struct world *world);
/* Makes the shards, which recover what is on the disk; false when that fails: then it is down. */
bool world_recover(struct world *world, uint32_t shards);
/* The recovered broker goes to work; false when it does not get ready: it is still up then. */
bool world_begin(struct world *world);
void world_crash(struct world *world, enum sim_crash kind);
/* An orderly stop; false when it does not end. The shards are still there: world_crash. */
bool world_stop(struct world *world);
/* Lets simulated time pass; stops early when something is wrong or the broker is at its end. */
void world_run(struct world *world, int64_t ms);
/* Lets that many turns of clients pass, each a random one of those wanted. */
void world_act(struct world *world, uint32_t acts);
/* Hung or failed: nothing more is to be expected of it. */
bool world_ended(const struct world *world);

void world_add(struct world *world, struct probe *probe);
/* A turn for this one, at once; connects first when it is not connected. */
void world_poke(struct probe *probe);
/* Breaks its connection, or closes it. */
void world_hang_up(struct probe *probe, bool reset);
/* Is that refusal excused by a fault? */
bool world_excuses(const struct world *world, enum err err);

/* Records the first thing that is wrong. */
void world_wrong(struct world *world, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* A line of the timeline, shown with --verbose. */
void world_tell(const struct world *world, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static inline uint32_t world_random(struct world *world, uint32_t below)
{
    return (uint32_t)sim_random(world->sim, below);
}

#endif
