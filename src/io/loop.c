/* One epoll instance for the sockets and an eventfd. Another thread that has put a message for us
 * somewhere calls loop_wake, which costs one atomic exchange while we are awake and one write to
 * the eventfd when we sleep (`state`). A thread that runs several loops waits with poll for their
 * epoll instances. */
#include "io/loop.h"

#include "io/disk_real.h"
#include "io/net_epoll.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum {
    EVENTS_MAX = 256,
    /* A flush that on average takes longer is left to a helper thread: when there is nothing else
     * to do, and in place of a rest. */
    QUIET_FLUSH_NS = 2000000,
    REST_FLUSH_NS = 500000,
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

bool loop_woken(const struct loop *loop)
{
    return atomic_load_explicit(&loop->state, memory_order_relaxed) == POKED;
}

static void disk_wake(void *ctx)
{
    loop_wake(ctx);
}

int loop_turn(struct loop *loop)
{
    (void)disk_real_start(loop->disk, 0); /* there was no wait that could have done it */
    int count = epoll_wait(loop->epoll_fd, loop->events, EVENTS_MAX, 0);
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
    return done + (count > 0 ? count : 0);
}

/* Waiting */

static bool busy(const struct loop *loop)
{
    return net_epoll_busy(loop->net) || disk_real_ready(loop->disk);
}

static int timeout_ms(struct loop *const *loops, uint32_t count, int64_t deadline_ms)
{
    for (uint32_t i = 0; i < count; i++) {
        int64_t own = net_epoll_deadline_ms(loops[i]->net);
        if (own < deadline_ms)
            deadline_ms = own;
    }
    if (deadline_ms == INT64_MAX)
        return -1;
    int64_t left = deadline_ms - clock_ns(CLOCK_MONOTONIC) / 1000000;
    if (left <= 0)
        return 0;
    return left > INT_MAX ? INT_MAX : (int)left;
}

static bool events_poll(struct loop *const *loops, uint32_t count, int wake_fd, int timeout_ms)
{
    struct pollfd fds[LOOPS_MAX + 1];
    for (uint32_t i = 0; i < count; i++)
        fds[i] = (struct pollfd){.fd = loops[i]->epoll_fd, .events = POLLIN};
    fds[count] = (struct pollfd){.fd = wake_fd, .events = POLLIN};
    return poll(fds, count + 1, timeout_ms) > 0;
}

static void sleep_over(struct loop *loop)
{
    int sleeping = SLEEPING;
    atomic_compare_exchange_strong_explicit(&loop->state, &sleeping, AWAKE, memory_order_acq_rel,
                                            memory_order_acquire);
}

static void events_wait(struct loop *const *loops, uint32_t count, int wake_fd, int timeout_ms)
{
    uint32_t asleep = 0;
    for (int awake = AWAKE; asleep < count; asleep++, awake = AWAKE) {
        if (!atomic_compare_exchange_strong_explicit(&loops[asleep]->state, &awake, SLEEPING,
                                                     memory_order_acq_rel, memory_order_acquire))
            break; /* it was poked */
    }
    if (asleep == count)
        (void)events_poll(loops, count, wake_fd, timeout_ms);
    while (asleep > 0)
        sleep_over(loops[--asleep]);
}

/* Starts the writes that wait, the last loop's in place if it lasts no longer than `longest_ns`.
 * Returns whether that happened. */
static bool writes_start(struct loop *const *loops, uint32_t count, int64_t longest_ns)
{
    uint32_t last = count;
    for (uint32_t i = 0; i < count; i++) {
        if (!disk_real_deferred(loops[i]->disk))
            continue;
        if (last < count)
            disk_real_start(loops[last]->disk, 0);
        last = i;
    }
    return last < count && disk_real_start(loops[last]->disk, longest_ns);
}

bool loops_wait(struct loop *const *loops, uint32_t count, int64_t deadline_ms, int64_t rest_ns,
                int wake_fd)
{
    assert(count <= LOOPS_MAX);
    bool deferred = false, called = false;
    for (uint32_t i = 0; i < count; i++) {
        if (net_epoll_busy(loops[i]->net))
            return false;
        called = called || busy(loops[i]) || loop_woken(loops[i]);
        deferred = deferred || disk_real_deferred(loops[i]->disk);
    }
    if (rest_ns >= 0) {
        if (deferred && writes_start(loops, count, REST_FLUSH_NS))
            return true;
        struct timespec time = {.tv_nsec = rest_ns};
        if (rest_ns > 0)
            (void)nanosleep(&time, NULL);
        return false;
    }
    if (called)
        return false;
    if (deferred) {
        bool quiet = !events_poll(loops, count, wake_fd, 0);
        if (writes_start(loops, count, quiet ? QUIET_FLUSH_NS : 0))
            return true;
        if (!quiet)
            return false;
    }
    events_wait(loops, count, wake_fd, timeout_ms(loops, count, deadline_ms));
    return false;
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
