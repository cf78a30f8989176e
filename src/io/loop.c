/* One epoll instance for the sockets and an eventfd. Another thread that has put a message for us
 * somewhere calls loop_wake, which costs one atomic exchange while we are awake and one write to
 * the eventfd when we sleep (`state`). Before it sleeps the loop performs a journal write that was
 * submitted with `now`, or polls for a while if events have lately come in shorter intervals than
 * config.spin_us: sleeping and being woken costs about 35 us of latency. */
#include "io/loop.h"

#include "io/disk_real.h"
#include "io/net_epoll.h"

#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum {
    EVENTS_MAX = 256,
    WAKE_NS = 30000, /* what being woken adds to an interval that was slept through */
    GAP_SPINS = 4,   /* an interval counts as this many spins at most */
};

enum state {
    AWAKE,
    POKED,    /* somebody called loop_wake since the last turn */
    SLEEPING, /* the eventfd must be written to wake us */
};

struct loop {
    struct net_epoll *net;
    struct disk_real *disk;
    int epoll_fd, wake_fd;
    int64_t spin_ns;
    int64_t gap_ns; /* average interval between having nothing to do and the next event */
    int64_t now_ms, wall_ms;
    struct watch wake_watch;
    struct epoll_event events[EVENTS_MAX];
    _Alignas(64) atomic_int state; /* other threads write it */
};

static int64_t clock_ns(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static void clocks_read(struct loop *loop)
{
    loop->now_ms = clock_ns(CLOCK_MONOTONIC) / 1000000;
    loop->wall_ms = clock_ns(CLOCK_REALTIME) / 1000000;
}

/* The eventfd is edge-triggered and never read: each write is a new edge. */
static void wake_ready(struct watch *watch, uint32_t events)
{
    (void)watch;
    (void)events;
}

void loop_wake(struct loop *loop)
{
    if (atomic_exchange_explicit(&loop->state, POKED, memory_order_acq_rel) != SLEEPING)
        return;
    uint64_t one = 1;
    ssize_t got;
    do {
        got = write(loop->wake_fd, &one, sizeof one);
    } while (got < 0 && errno == EINTR);
}

static void disk_wake(void *ctx)
{
    loop_wake(ctx);
}

static bool poked(const struct loop *loop)
{
    return atomic_load_explicit(&loop->state, memory_order_relaxed) == POKED;
}

static int events_poll(struct loop *loop, int timeout_ms)
{
    int count = epoll_wait(loop->epoll_fd, loop->events, EVENTS_MAX, timeout_ms);
    return count < 0 ? 0 : count;
}

/* Polls without sleeping while that is likely to be shorter than being woken. */
static int events_spin(struct loop *loop, int64_t start_ns, int64_t limit_ns)
{
    do {
        int count = events_poll(loop, 0);
        if (count > 0 || poked(loop))
            return count;
    } while (clock_ns(CLOCK_MONOTONIC) - start_ns < limit_ns);
    return 0;
}

static void gap_learn(struct loop *loop, int64_t gap_ns)
{
    int64_t most = loop->spin_ns * GAP_SPINS;
    if (gap_ns > most)
        gap_ns = most;
    if (gap_ns < 0)
        gap_ns = 0;
    loop->gap_ns += (gap_ns - loop->gap_ns) / 8;
}

static int events_wait(struct loop *loop, int timeout_ms)
{
    if (timeout_ms <= 0 || poked(loop))
        return events_poll(loop, 0);
    int64_t start = clock_ns(CLOCK_MONOTONIC);
    if (loop->spin_ns > 0 && loop->gap_ns <= loop->spin_ns) {
        int64_t limit = loop->spin_ns;
        if (limit > (int64_t)timeout_ms * 1000000)
            limit = (int64_t)timeout_ms * 1000000;
        int count = events_spin(loop, start, limit);
        if (count > 0 || poked(loop)) {
            gap_learn(loop, clock_ns(CLOCK_MONOTONIC) - start);
            return count;
        }
    }
    int awake = AWAKE;
    if (!atomic_compare_exchange_strong_explicit(&loop->state, &awake, SLEEPING,
                                                 memory_order_acq_rel, memory_order_acquire))
        return events_poll(loop, 0);
    int count = events_poll(loop, timeout_ms);
    int sleeping = SLEEPING;
    atomic_compare_exchange_strong_explicit(&loop->state, &sleeping, AWAKE, memory_order_acq_rel,
                                            memory_order_acquire);
    if (loop->spin_ns > 0)
        gap_learn(loop, clock_ns(CLOCK_MONOTONIC) - start - WAKE_NS);
    return count;
}

static int timeout_ms(const struct loop *loop, int64_t deadline_ms)
{
    int64_t own = net_epoll_deadline_ms(loop->net);
    if (own < deadline_ms)
        deadline_ms = own;
    if (deadline_ms == INT64_MAX)
        return INT_MAX;
    int64_t left = deadline_ms - clock_ns(CLOCK_MONOTONIC) / 1000000;
    if (left <= 0)
        return 0;
    return left > INT_MAX ? INT_MAX : (int)left;
}

int loop_turn(struct loop *loop, int64_t deadline_ms, bool busy)
{
    net_epoll_flush(loop->net);
    bool work = busy || net_epoll_busy(loop->net) || disk_real_ready(loop->disk);
    int count = 0;
    if (disk_real_deferred(loop->disk)) {
        count = events_poll(loop, 0);
        disk_real_start(loop->disk, count == 0 && !work && !poked(loop));
        work = work || disk_real_ready(loop->disk);
    }
    if (count == 0)
        count = events_wait(loop, work ? 0 : timeout_ms(loop, deadline_ms));
    clocks_read(loop);
    net_epoll_clock(loop->net, loop->now_ms, loop->wall_ms);
    int done = disk_real_deliver(loop->disk);
    for (int i = 0; i < count; i++) {
        struct watch *watch = loop->events[i].data.ptr;
        watch->ready(watch, loop->events[i].events);
    }
    done += net_epoll_work(loop->net);
    net_epoll_flush(loop->net);
    if (atomic_exchange_explicit(&loop->state, AWAKE, memory_order_acq_rel) == POKED)
        done++;
    return count + done;
}

void loop_flush(struct loop *loop)
{
    net_epoll_flush(loop->net);
}

uint32_t loop_lingering(const struct loop *loop)
{
    return net_epoll_lingering(loop->net);
}

struct net *loop_net(struct loop *loop)
{
    return net_epoll_net(loop->net);
}

struct disk *loop_disk(struct loop *loop)
{
    return disk_real_disk(loop->disk);
}

int64_t loop_now_ms(const struct loop *loop)
{
    return loop->now_ms;
}

int64_t loop_wall_ms(const struct loop *loop)
{
    return loop->wall_ms;
}

static enum err loop_open(struct loop *loop, const struct loop_config *config)
{
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->epoll_fd < 0 || loop->wake_fd < 0)
        return ERR_IO;
    loop->wake_watch.ready = wake_ready;
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.ptr = &loop->wake_watch};
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->wake_fd, &event) != 0)
        return ERR_IO;
    enum err err = disk_real_create(disk_wake, loop, &loop->disk);
    if (err)
        return err;
    struct net_epoll_config net = {
        .epoll_fd = loop->epoll_fd,
        .join_listeners = config->shard > 0,
        .net_bytes = config->net_bytes,
        .gather_max = config->gather_max,
    };
    return net_epoll_create(&net, &loop->net);
}

enum err loop_create(const struct loop_config *config, struct loop **out)
{
    struct loop *loop = aligned_alloc(64, (sizeof *loop + 63) / 64 * 64);
    if (loop == NULL)
        return ERR_NO_MEMORY;
    *loop = (struct loop){
        .epoll_fd = -1,
        .wake_fd = -1,
        .spin_ns = (int64_t)config->spin_us * 1000,
    };
    atomic_init(&loop->state, AWAKE);
    clocks_read(loop);
    enum err err = loop_open(loop, config);
    if (err) {
        loop_destroy(loop);
        return err;
    }
    *out = loop;
    return ERR_NONE;
}

void loop_destroy(struct loop *loop)
{
    if (loop->net != NULL)
        net_epoll_destroy(loop->net);
    if (loop->disk != NULL)
        disk_real_destroy(loop->disk);
    if (loop->wake_fd >= 0)
        close(loop->wake_fd);
    if (loop->epoll_fd >= 0)
        close(loop->epoll_fd);
    free(loop);
}
