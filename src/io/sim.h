/* A simulated world for tests: machines with a disk and a network, each running one or more shards,
 * all on one thread, driven event by event from a seed. Time is simulated and jumps from event to
 * event. The same seed and the same program give the same run, byte for byte.
 *
 *     sim_create; for each shard: sim_disk, sim_net, sim_shard_start; clients: sim_connect
 *     while (sim_step(sim)) check invariants, perhaps sim_crash, destroy and restart the shards
 *
 * A shard number here counts over all machines: shard s runs on machine s / config.shards.
 *
 * What the disk may do, seeded: requests end after random delays and in any order; bytes that no
 * completed fdatasync covers are, at a power cut, kept or dropped sector by sector (512 bytes), the
 * sector written last perhaps torn, and a file's growth perhaps undone; names made, renamed or
 * removed and not followed by disk_sync_folder perhaps undone (folders themselves are durable at
 * once); writes and syncs fail with ERR_IO (after a failed sync later ones claim success and do
 * nothing); writes that grow files fail when the disk is full, some bytes written. What the network
 * may do: delay, cut bytes anywhere, break connections. Order is kept. */
#ifndef WEIR_IO_SIM_H
#define WEIR_IO_SIM_H

#include "io/disk.h"
#include "io/net.h"

#include <stdbool.h>
#include <stdint.h>

struct sim;
struct sim_client;

/* Delays in simulated microseconds. Rates in events per million. All zero is a valid world: one
 * machine, one shard, no faults. */
struct sim_config {
    uint32_t machines;                             /* 0 is 1 */
    uint32_t shards;                               /* per machine; 0 is 1 */
    uint32_t disk_us_max, sync_us_max, net_us_max; /* 0: 100, 300, 100 */
    uint32_t disk_error_rate; /* of writes, syncs and reads; also of names' operations */
    uint32_t net_reset_rate;  /* of packets */
    uint32_t net_window;      /* bytes under way per direction; 0: 64 KiB */
    uint64_t disk_capacity;   /* bytes; 0: no limit */
    bool lie_about_sync;      /* fdatasync and disk_sync_folder do nothing and claim success */
};

struct sim *sim_create(uint64_t seed, const struct sim_config *config)
    __attribute__((warn_unused_result));

/* Shards must have been destroyed; clients are forgotten without a call. */
void sim_destroy(struct sim *sim);

/* Runs the next event; false when nothing is left to happen. */
bool sim_step(struct sim *sim);

/* When the next event happens; INT64_MAX when nothing is left to happen. */
int64_t sim_next_us(const struct sim *sim);

/* Runs events up to and including that time, and moves the clock there. */
void sim_run_until(struct sim *sim, int64_t now_us);

int64_t sim_now_us(const struct sim *sim);
int64_t sim_now_ms(const struct sim *sim);  /* what a shard is given as monotonic time */
int64_t sim_wall_ms(const struct sim *sim); /* and as time since 1970 */

/* Sets the wall clock forward, or back when ms < 0. */
void sim_wall_jump(struct sim *sim, int64_t ms);

/* The whole world stands still for that time and does not know it: what was due meanwhile happens
 * late. */
void sim_sleep(struct sim *sim, int64_t us);

/* The world's source of randomness, also for the test itself: a number below `below` (> 0). */
uint64_t sim_random(struct sim *sim, uint64_t below);
bool sim_chance(struct sim *sim, uint32_t per_million);

/* Changes with everything that happened so far: equal in equal runs. */
uint64_t sim_digest(const struct sim *sim);

/* Calls run(ctx) after that time. */
void sim_after(struct sim *sim, int64_t delay_us, void (*run)(void *ctx), void *ctx);

/* Shards */

struct disk *sim_disk(struct sim *sim, uint32_t shard);
struct net *sim_net(struct sim *sim, uint32_t shard);

/* turn(ctx) is called after every event that concerned the shard, as the owner of a loop does its
 * own work after loop_turn; it returns the time (ms, monotonic) at which it wants to be called
 * without an event, INT64_MAX for never; a time that has come means at once. The first call comes
 * by itself. Output is sent after it. Call it again after a restart. */
void sim_shard_start(struct sim *sim, uint32_t shard, int64_t (*turn)(void *ctx), void *ctx);

/* Stands in for loop_wake: turn is called soon. */
void sim_wake(struct sim *sim, uint32_t shard);

/* Crashes */

enum sim_crash {
    SIM_KILL,      /* the process ends; what it had written stays in the page cache */
    SIM_POWER_CUT, /* the machine stops: unsynced bytes and names are at stake */
};

/* From now on nothing of this machine's shards is called, and what their objects still call does
 * nothing and fails with ERR_IO; so they can be destroyed. Connections break for their clients. */
void sim_crash(struct sim *sim, uint32_t machine, enum sim_crash kind);

/* The machine takes part again, with what its disk kept. Files, listeners and connections of before
 * are gone and must not be touched any more. */
void sim_restart(struct sim *sim, uint32_t machine);

/* After that many more disk calls of the machine (parts of requests and blocking forms alike) the
 * machine hangs, perhaps in the middle of a job: calls fail, nothing completes, nothing is sent or
 * received any more. The test notices with sim_hung and then calls sim_crash. 0: never. */
void sim_hang_after(struct sim *sim, uint32_t machine, uint64_t disk_calls);
bool sim_hung(const struct sim *sim, uint32_t machine);

/* Disk calls of the machine so far, to choose the points of sim_hang_after from. */
uint64_t sim_disk_calls(const struct sim *sim, uint32_t machine);

/* Changes the size of the machine's disk. 0: no limit. */
void sim_disk_limit(struct sim *sim, uint32_t machine, uint64_t bytes);

/* Bytes that its files take. */
uint64_t sim_disk_used(const struct sim *sim, uint32_t machine);

/* Changes the rate of disk errors of the machine. */
void sim_disk_errors(struct sim *sim, uint32_t machine, uint32_t per_million);

/* From now on its disk's requests take so many times as long. 0 and 1: as configured. */
void sim_disk_slow(struct sim *sim, uint32_t machine, uint32_t times);

/* Changes how long packets travel (0: as by default) and how often a connection breaks. */
void sim_net_trouble(struct sim *sim, uint32_t net_us_max, uint32_t reset_rate);

/* Clients: the other end of a connection. Calls of the handler come from sim_step. After closed, or
 * sim_client_close, the client is gone. */

struct sim_client_handler {
    void (*received)(void *user, const uint8_t *data, size_t len);
    void (*closed)(void *user);
};

/* Connects to one of the machine's listeners on that port, whose shard is chosen at random. When
 * there is none closed is called. Bytes may be sent at once. NULL when memory is exhausted. */
struct sim_client *sim_connect(struct sim *sim, uint32_t machine, uint16_t port,
                               const struct sim_client_handler *handler, void *user);
void sim_client_send(struct sim_client *client, const void *data, size_t len);

/* Stops reading, so that the server's output backs up; or goes on. */
void sim_client_pause(struct sim_client *client, bool paused);

/* After what was sent has arrived; `reset`: at once, and perhaps nothing of it has. */
void sim_client_close(struct sim_client *client, bool reset);

#endif
