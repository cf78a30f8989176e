/* A thread's shards are known to itself alone. Shards change hands through the inbox of the thread
 * that gets them, which its mutex guards; the giver never touches them again. */
#include "server/crew.h"

#include "io/loop.h"
#include "io/pace.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum {
    WINDOW_NS = 20000000, /* over which a thread's CPU time is measured */
    /* Shares of a CPU, in thousandths. */
    SPLIT_SHARE = 800, /* above it a thread gives half of its shards away */
    JOIN_SHARE = 400,  /* below it, together, two threads become one */
    SPLIT_WINDOWS = 3,
    JOIN_WINDOWS = 25,
    ROUNDS_MAX = 4, /* of turns without a wait between them */
};

struct seat {
    uint32_t shard;
    struct loop *loop;
    struct crew_turn turn; /* the last one */
    uint64_t units;        /* in this window */
};

struct thread {
    struct crew *crew;
    uint32_t number;
    pthread_t id;
    struct seat seats[CREW_MAX]; /* of the shards it runs */
    uint32_t count;
    struct pace pace;
    bool flushed; /* the last wait was for the disk; what it wrote is still to be answered */
    bool folded;

    int64_t window_ns, window_cpu_ns; /* clocks when it began */
    uint32_t busy_windows, idle_windows;
    _Atomic int share; /* of a CPU, in the last window; -1: runs nothing */

    int wake_fd; /* an eventfd: there is something in the inbox */
    _Atomic bool called;
    pthread_mutex_t mutex; /* what follows */
    pthread_cond_t changed;
    struct seat inbox[CREW_MAX];
    uint32_t inbox_count;
};

struct crew {
    struct crew_config config;
    uint32_t threads;      /* started; the starter only */
    _Atomic uint32_t left; /* shards that have not ended */
    _Atomic bool fold;
    struct thread thread[CREW_MAX];
};

static int64_t clock_ns(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* Handing over */

static void call(struct thread *thread)
{
    uint64_t one = 1;
    (void)!write(thread->wake_fd, &one, sizeof one); /* fails when it is readable anyway */
    atomic_store_explicit(&thread->called, true, memory_order_release);
}

/* Gives seats [from, count) away. */
static void give(struct thread *thread, uint32_t from, struct thread *to)
{
    pthread_mutex_lock(&to->mutex);
    for (uint32_t i = from; i < thread->count; i++)
        to->inbox[to->inbox_count++] = thread->seats[i];
    pthread_cond_signal(&to->changed);
    pthread_mutex_unlock(&to->mutex);
    thread->count = from;
    call(to);
}

static void take(struct thread *thread)
{
    uint64_t number;
    (void)!read(thread->wake_fd, &number, sizeof number);
    pthread_mutex_lock(&thread->mutex);
    atomic_store_explicit(&thread->called, false, memory_order_relaxed);
    for (uint32_t i = 0; i < thread->inbox_count; i++)
        thread->seats[thread->count++] = thread->inbox[i];
    thread->inbox_count = 0;
    pthread_mutex_unlock(&thread->mutex);
}

/* Without shards: until it gets some. False when none are left for anybody. */
static bool park(struct thread *thread)
{
    atomic_store(&thread->share, -1);
    pthread_mutex_lock(&thread->mutex);
    while (thread->inbox_count == 0 && atomic_load(&thread->crew->left) > 0)
        pthread_cond_wait(&thread->changed, &thread->mutex);
    bool some = thread->inbox_count > 0;
    pthread_mutex_unlock(&thread->mutex);
    thread->busy_windows = thread->idle_windows = 0;
    thread->window_ns = 0;
    atomic_store(&thread->share, 0);
    if (some)
        take(thread);
    return some;
}

/* How many threads for the load */

static int by_units(const void *a, const void *b)
{
    uint64_t left = ((const struct seat *)a)->units, right = ((const struct seat *)b)->units;
    return left < right ? 1 : left > right ? -1 : 0;
}

/* Keeps the busiest shard, and gives away every other one of the rest. */
static void split(struct thread *thread)
{
    struct crew *crew = thread->crew;
    for (uint32_t i = 0; i < crew->config.shards; i++) {
        int parked = -1;
        if (!atomic_compare_exchange_strong(&crew->thread[i].share, &parked, 0))
            continue;
        struct seat seats[CREW_MAX];
        uint32_t kept = (thread->count + 1) / 2;
        qsort(thread->seats, thread->count, sizeof *seats, by_units);
        for (uint32_t k = 0; k < thread->count; k++)
            seats[k % 2 == 0 ? k / 2 : kept + k / 2] = thread->seats[k];
        for (uint32_t k = 0; k < thread->count; k++)
            thread->seats[k] = seats[k];
        give(thread, kept, &crew->thread[i]);
        return;
    }
}

static void join(struct thread *thread, int share)
{
    struct crew *crew = thread->crew;
    for (uint32_t i = 0; i < thread->number; i++) {
        int other = atomic_load(&crew->thread[i].share);
        if (other >= 0 && other + share < JOIN_SHARE) {
            give(thread, 0, &crew->thread[i]);
            return;
        }
    }
}

static void balance(struct thread *thread, int64_t now_ns)
{
    int64_t wall = now_ns - thread->window_ns;
    if (wall < WINDOW_NS)
        return;
    const struct crew_config *config = &thread->crew->config;
    int64_t cpu =
        config->cpu_ns == NULL ? clock_ns(CLOCK_THREAD_CPUTIME_ID) : config->cpu_ns(config->ctx);
    int share = (int)((cpu - thread->window_cpu_ns) * 1000 / wall);
    bool first = thread->window_ns == 0;
    thread->window_ns = now_ns;
    thread->window_cpu_ns = cpu;
    if (first)
        share = 0;
    atomic_store(&thread->share, share);
    thread->busy_windows = share > SPLIT_SHARE ? thread->busy_windows + 1 : 0;
    thread->idle_windows = share < JOIN_SHARE ? thread->idle_windows + 1 : 0;
    if (thread->busy_windows >= SPLIT_WINDOWS && thread->count > 1) {
        thread->busy_windows = 0;
        split(thread);
    } else if (thread->idle_windows >= JOIN_WINDOWS) {
        thread->idle_windows = 0;
        join(thread, share);
    }
    for (uint32_t i = 0; i < thread->count; i++)
        thread->seats[i].units = 0;
}

/* Turns */

static void ended(struct crew *crew)
{
    if (atomic_fetch_sub(&crew->left, 1) > 1)
        return;
    for (uint32_t i = 0; i < crew->config.shards; i++) {
        pthread_mutex_lock(&crew->thread[i].mutex);
        pthread_cond_signal(&crew->thread[i].changed);
        pthread_mutex_unlock(&crew->thread[i].mutex);
    }
}

static void seat_turn(struct thread *thread, struct seat *seat, bool hold)
{
    struct crew *crew = thread->crew;
    uint64_t before = seat->turn.units;
    crew->config.turn(crew->config.ctx, seat->shard, hold, &seat->turn);
    seat->units += seat->turn.units;
    seat->turn.units += before;
}

/* Turns of all shards, then of those that the others have woken: a message may have to visit three
 * of them before it is out of the house. */
static void seats_turn(struct thread *thread, bool hold)
{
    for (uint32_t i = 0; i < thread->count; i++) {
        thread->seats[i].turn.units = 0;
        seat_turn(thread, &thread->seats[i], hold);
    }
    bool woken = true;
    for (int round = 0; round < ROUNDS_MAX && woken; round++) {
        woken = false;
        for (uint32_t i = 0; i < thread->count; i++) {
            struct seat *seat = &thread->seats[i];
            if (seat->turn.ended || !loop_woken(seat->loop))
                continue;
            seat_turn(thread, seat, hold);
            woken = true;
        }
    }
    for (uint32_t i = thread->count; i-- > 0;) {
        if (!thread->seats[i].turn.ended)
            continue;
        thread->seats[i] = thread->seats[--thread->count];
        ended(thread->crew);
    }
}

/* All there is to do now, and then the wait for more. */
static void thread_turn(struct thread *thread)
{
    struct loop *loops[CREW_MAX];
    int64_t deadline_ms = INT64_MAX;
    uint64_t units = 0;
    bool busy = false;
    bool hold = thread->flushed && pace_left(&thread->pace, clock_ns(CLOCK_MONOTONIC)) > 0;
    seats_turn(thread, hold);
    for (uint32_t i = 0; i < thread->count; i++) {
        const struct seat *seat = &thread->seats[i];
        loops[i] = seat->loop;
        units += seat->turn.units;
        busy = busy || seat->turn.busy;
        if (seat->turn.deadline_ms < deadline_ms)
            deadline_ms = seat->turn.deadline_ms;
    }
    int64_t now_ns = clock_ns(CLOCK_MONOTONIC);
    int64_t rest_ns = pace_rest(&thread->pace, units, now_ns);
    thread->flushed = false;
    if (!busy && thread->count > 0 && !(hold && rest_ns <= 0)) {
        thread->flushed = loops_wait(loops, thread->count, deadline_ms, rest_ns, thread->wake_fd);
        now_ns = clock_ns(CLOCK_MONOTONIC);
        if (!thread->flushed)
            thread->pace.woke_ns = now_ns;
    }
    if (thread->folded)
        balance(thread, now_ns);
}

static void *thread_main(void *arg)
{
    struct thread *thread = arg;
    struct crew *crew = thread->crew;
    (void)prctl(PR_SET_TIMERSLACK, 1);
    if (crew->config.open(crew->config.ctx, thread->number)) {
        thread->seats[0].shard = thread->number;
        thread->seats[0].loop = crew->config.loop(crew->config.ctx, thread->number);
        thread->count = 1;
    } else {
        ended(crew);
    }
    for (;;) {
        if (atomic_load_explicit(&thread->called, memory_order_acquire))
            take(thread);
        if (!thread->folded && atomic_load_explicit(&crew->fold, memory_order_acquire)) {
            thread->folded = true;
            if (thread->number > 0 && thread->count > 0)
                give(thread, 0, &crew->thread[0]);
        }
        if (thread->count > 0)
            thread_turn(thread);
        else if (!park(thread))
            return NULL;
    }
}

static bool thread_prepare(struct crew *crew, uint32_t number)
{
    struct thread *thread = &crew->thread[number];
    thread->crew = crew;
    thread->number = number;
    thread->pace.turn_ns = crew->config.rest_ns;
    thread->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (thread->wake_fd < 0)
        return false;
    pthread_mutex_init(&thread->mutex, NULL);
    pthread_cond_init(&thread->changed, NULL);
    return true;
}

enum err crew_start(const struct crew_config *config, struct crew **out)
{
    struct crew *crew = calloc(1, sizeof *crew);
    if (crew == NULL)
        return ERR_NO_MEMORY;
    crew->config = *config;
    crew->left = config->shards;
    *out = crew;
    for (uint32_t i = 0; i < config->shards; i++) {
        if (!thread_prepare(crew, i))
            return ERR_NO_MEMORY;
    }
    for (; crew->threads < config->shards; crew->threads++) {
        struct thread *thread = &crew->thread[crew->threads];
        if (pthread_create(&thread->id, NULL, thread_main, thread) != 0)
            return ERR_NO_MEMORY;
    }
    return ERR_NONE;
}

void crew_fold(struct crew *crew)
{
    atomic_store_explicit(&crew->fold, true, memory_order_release);
    for (uint32_t i = 0; i < crew->threads; i++)
        call(&crew->thread[i]);
}

void crew_join(struct crew *crew)
{
    for (uint32_t i = 0; i < crew->threads; i++)
        pthread_join(crew->thread[i].id, NULL);
    for (uint32_t i = 0; i < crew->threads; i++) {
        close(crew->thread[i].wake_fd);
        pthread_cond_destroy(&crew->thread[i].changed);
        pthread_mutex_destroy(&crew->thread[i].mutex);
    }
    free(crew);
}
