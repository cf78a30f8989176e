/* The event loop of one shard: waits for sockets, the next timer, disk completions and wake-ups
 * from other threads, and runs what is due. All calls but loop_wake on the shard's thread; the loop
 * may be created on another one before. For simulation io/sim.h stands in its place. */
#ifndef WEIR_IO_LOOP_H
#define WEIR_IO_LOOP_H

#include "io/disk.h"
#include "io/net.h"

#include <stdint.h>

struct loop;

struct loop_config {
    uint32_t shard; /* number; shard 0 takes a listening address for itself, others may join it */
    uint32_t
        spin_us; /* longest polling before it sleeps, done when events come that often; 0 = never */
    uint64_t *net_bytes; /* bytes held by connection buffers are counted here; may be NULL */
    /* Most bytes that large items may take while they arrive, all connections together; 0 = no
     * limit. Beyond it connections wait their turn, and one whose item comes too slowly is closed
     * (io/gather.h). */
    size_t gather_max;
};

enum err loop_create(const struct loop_config *config, struct loop **out)
    __attribute__((warn_unused_result));

/* Drops every connection (closed() is called), then waits for disk requests under way; done() is
 * not called any more. */
void loop_destroy(struct loop *loop);

struct net *loop_net(struct loop *loop);
struct disk *loop_disk(struct loop *loop);

/* One turn: waits until `deadline_ms` (monotonic; INT64_MAX = no timer) at the longest or, when
 * busy is true, not at all; delivers events; then flushes gathered output (one writev per
 * connection). Returns how many events it saw, so that the caller knows whether the loop is busy.
 */
int loop_turn(struct loop *loop, int64_t deadline_ms, bool busy);

/* Flushes gathered output now (the shard calls it at the end of its own work in a turn). */
void loop_flush(struct loop *loop);

/* From any thread: makes this or the next loop_turn return without sleeping. Call it after what it
 * is about was made visible (a release store); one atomic exchange when the loop is awake. */
void loop_wake(struct loop *loop);

/* Connections that are closed for their owner but still send their last output. A server that stops
 * turns the loop until there are none. */
uint32_t loop_lingering(const struct loop *loop);

/* Clocks, read once a turn: milliseconds, monotonic; and milliseconds since 1970, UTC. */
int64_t loop_now_ms(const struct loop *loop);
int64_t loop_wall_ms(const struct loop *loop);

#endif
