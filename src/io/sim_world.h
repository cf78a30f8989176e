/* What the parts of the simulation share: the world, its machines and shards. Only for io/sim*.c.
 */
#ifndef WEIR_IO_SIM_WORLD_H
#define WEIR_IO_SIM_WORLD_H

#include "base/list.h"
#include "io/inq.h"
#include "io/outq.h"
#include "io/sim.h"
#include "io/sim_random.h"

enum machine_state { MACHINE_UP, MACHINE_HUNG, MACHINE_DOWN };

struct sim_event {
    int64_t at_us;
    uint64_t number; /* events of one time happen in the order in which they were scheduled */
    void (*run)(void *ctx);
    void *ctx;
    struct sim_machine *machine; /* NULL: happens whatever becomes of the machines */
    uint32_t epoch;              /* of the machine, when it was scheduled */
};

struct sim_shard {
    struct disk disk; /* stays first: struct disk of this shard */
    struct net net;
    struct sim *sim;
    struct sim_machine *machine;
    int64_t (*turn)(void *ctx);
    void *turn_ctx;
    int64_t timer_us; /* when the next turn without an event is scheduled; INT64_MAX: not */
    bool woken;
    struct list listeners;
    struct list dirty; /* connections with output for after the turn */
};

struct sim_names; /* of the disk */

struct sim_machine {
    struct sim *sim;
    enum machine_state state;
    uint32_t epoch; /* counts crashes */
    struct sim_names *names;
    struct list requests, files; /* of the disk: under way, open */
    uint64_t disk_used, disk_limit;
    uint64_t disk_calls, hang_at;
    uint32_t disk_error_rate;
    uint32_t disk_slow; /* requests take so many times as long */
};

struct sim {
    struct sim_config config;
    struct sim_random random;
    int64_t now_us, wall_offset_ms;
    uint64_t digest;
    struct sim_event *events; /* a heap */
    size_t events_count, events_capacity;
    uint64_t events_number;
    struct sim_machine *machines;
    struct sim_shard *shards;
    struct inq_pool in;
    struct outq_pool out;
    struct list links; /* connections */
    uint16_t next_port;
};

/* Schedules run(ctx). With a machine it is forgotten when that hangs or crashes before. */
void sim_schedule(struct sim *sim, struct sim_machine *machine, int64_t delay_us,
                  void (*run)(void *ctx), void *ctx);

/* A delay of 1 to max_us. */
int64_t sim_delay(struct sim *sim, uint32_t max_us);

void sim_digest_mix(struct sim *sim, uint64_t value);

/* Lets the shard do its own work after an event, and sends its output. */
void sim_shard_turn(struct sim_shard *shard);

static inline bool sim_shard_lives(const struct sim_shard *shard)
{
    return shard->machine->state == MACHINE_UP;
}

/* io/sim_disk.c */
extern const struct disk_ops SIM_DISK_OPS;
bool sim_disk_init(struct sim_machine *machine);
void sim_disk_done(struct sim_machine *machine);
void sim_disk_crash(struct sim_machine *machine, enum sim_crash kind);

/* io/sim_net.c */
extern const struct net_ops SIM_NET_OPS;
void sim_net_flush(struct sim_shard *shard);
void sim_net_crash(struct sim_machine *machine);
void sim_net_restart(struct sim_machine *machine);
void sim_net_done(struct sim *sim);

#endif
