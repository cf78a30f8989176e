/* The event loop of one shard: waits for sockets, timers, disk completions and wake-ups from other
 * threads, and runs what is due. Real backend: epoll + timerfd-free timeouts + one eventfd. */
#ifndef WEIR_IO_LOOP_H
#define WEIR_IO_LOOP_H

#include "io/disk.h"
#include "io/net.h"

#include <stdint.h>

struct loop;

struct loop_config {
    uint32_t shard;       /* number for bufs made here */
    uint32_t spin_us;     /* a loop that was just busy polls this long before it sleeps */
    uint64_t *net_bytes;  /* bytes held by connection buffers are counted here; may be NULL */
};

enum err loop_create(const struct loop_config *config, struct loop **out);
void loop_destroy(struct loop *loop);

struct net *loop_net(struct loop *loop);
struct disk *loop_disk(struct loop *loop);

/* One turn: waits until `deadline_ms` (monotonic; INT64_MAX = no timer) at the longest or, when
 * busy is true, not at all; delivers events; then flushes gathered output (one writev per connection).
 * Returns how many events it saw, so that the caller knows whether the loop is busy. */
int loop_turn(struct loop *loop, int64_t deadline_ms, bool busy);

/* Flushes gathered output now (the shard calls it at the end of its own work in a turn). */
void loop_flush(struct loop *loop);

/* From any thread: makes a sleeping loop_turn return. Cheap when the loop is awake: a sleeping
 * loop says so in a flag first (the waker checks it with a full fence). */
void loop_wake(struct loop *loop);

/* Clocks, read once a turn: milliseconds, monotonic; and milliseconds since 1970, UTC. */
int64_t loop_now_ms(const struct loop *loop);
int64_t loop_wall_ms(const struct loop *loop);

#endif
