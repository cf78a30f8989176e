/* The event loop of one shard: sockets, disk completions and wake-ups from other threads. All calls
 * but loop_wake on the thread that runs the shard, which may be another one from turn to turn. For
 * simulation io/sim.h stands in its place. */
#ifndef WEIR_IO_LOOP_H
#define WEIR_IO_LOOP_H

#include "io/disk.h"
#include "io/net.h"

#include <stdint.h>

struct loop;

enum { LOOPS_MAX = 64 }; /* that one thread waits for */

struct loop_config {
    uint32_t shard; /* number; shard 0 takes a listening address for itself, others may join it */
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

/* One turn, which does not wait: delivers events and what the disk has done, then flushes gathered
 * output (one writev per connection). Returns how many events it saw. */
int loop_turn(struct loop *loop);

/* What a thread does between turns of the loops that it runs when none has anything left to do.
 *
 * With rest_ns < 0 it waits for the first event of any of them, for loop_wake, for `wake_fd` (-1 =
 * none) to become readable, or until `deadline_ms` (monotonic; INT64_MAX = no timer). Otherwise it
 * rests for that long whatever comes, so that a turn finds more to do: being woken costs some 20 us
 * of a CPU, here and at the sender, which is more than ten messages do.
 *
 * A journal write that waits to be started is performed here when there is nothing else to do or in
 * place of a rest. Returns whether that was all: it is to be answered now, and the rest is still
 * due. */
bool loops_wait(struct loop *const *loops, uint32_t count, int64_t deadline_ms, int64_t rest_ns,
                int wake_fd);

/* Flushes gathered output now (the shard calls it at the end of its own work in a turn). */
void loop_flush(struct loop *loop);

/* From any thread: makes this or the next loops_wait return without sleeping, unless it rests. Call
 * it after what it is about was made visible (a release store); one atomic exchange when the loop
 * is awake. */
void loop_wake(struct loop *loop);

/* Whether loop_wake was called since the last turn. */
bool loop_woken(const struct loop *loop);

/* Connections that are closed for their owner but still send their last output. A server that stops
 * turns the loop until there are none. */
uint32_t loop_lingering(const struct loop *loop);

/* Clocks, read once a turn: milliseconds, monotonic; and milliseconds since 1970, UTC. */
int64_t loop_now_ms(const struct loop *loop);
int64_t loop_wall_ms(const struct loop *loop);

#endif
