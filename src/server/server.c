/* Start: lock the data folder; every shard's thread opens its cells; shard 0 feeds the catalog to
 * all; then all listen, shard 0 first (it picks the ports); `ready`. The main thread only waits for
 * signals and moves everybody from one phase to the next. End: each shard closes its connections,
 * checkpoints its cells and returns. */
#include "server/server.h"

#include "base/log.h"
#include "io/loop.h"
#include "server/crew.h"
#include "server/data.h"
#include "server/process.h"
#include "shard/shard.h"
#include "store/state.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum {
    FILES_KEPT = 256, /* descriptors that are not connections */
    LINGER_MS = 2000,
    STOP_MS = 5, /* how often a stopping shard looks whether it may end */
    LARGE_BYTES = 1 << 20,
    KEEP_BYTES = 8 << 10, /* record batches from this size on stay in the journal's file */
};

enum phase {
    PHASE_OPEN,  /* shards open their cells */
    PHASE_FEED,  /* shard 0 hands the catalog around */
    PHASE_FIRST, /* shard 0 listens */
    PHASE_ALL,   /* the others listen */
    PHASE_RUN,
    PHASE_STOP,
};

struct server;

/* What the server knows of a shard; its thread's alone until the end. */
struct worker {
    struct server *server;
    uint32_t number;
    struct loop *loop;
    struct shard *shard;
    bool fed, listening, told_ready;
    bool held;           /* its last turn left something for the next one */
    int64_t deadline_ms; /* of its next turn, if nothing happens before */
    int64_t stop_by_ms;  /* 0: not stopping yet */
    enum err err;
};

struct server {
    const struct config *config;
    struct process process;
    struct broker broker;
    struct crew *crew;
    struct worker workers[SHARDS_MAX];
    uint16_t ports[CONFIG_LISTEN_MAX];
    _Atomic int phase;
    pthread_mutex_t mutex; /* guards the counts */
    pthread_cond_t changed;
    uint32_t opened, ready, listening, ended;
};

static const struct face *const faces[CONFIG_FACE_COUNT] = {
    [CONFIG_FACE_AMQP] = &face_amqp,
    [CONFIG_FACE_KAFKA] = &face_kafka,
    [CONFIG_FACE_HTTP] = &face_http,
};

static void count_up(struct server *server, uint32_t *count)
{
    pthread_mutex_lock(&server->mutex);
    (*count)++;
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->mutex);
}

static void fail(struct worker *worker, enum err err)
{
    worker->err = err;
    atomic_store(&worker->server->broker.failed, true);
    pthread_mutex_lock(&worker->server->mutex);
    pthread_cond_broadcast(&worker->server->changed);
    pthread_mutex_unlock(&worker->server->mutex);
}

static enum err listen_all(struct worker *worker)
{
    struct server *server = worker->server;
    const struct config *config = server->config;
    for (uint32_t i = 0; i < config->listen_count; i++) {
        const struct config_listen *listen = &config->listen[i];
        uint16_t port = worker->number == 0 ? listen->port : server->ports[i];
        enum err err = shard_listen(worker->shard, faces[listen->face], listen->host, port, &port);
        if (err != ERR_NONE) {
            log_event(server->broker.log, LOG_ERROR, "cannot listen",
                      (const struct log_field[]){log_text("face", faces[listen->face]->name),
                                                 log_text("host", listen->host),
                                                 log_uint("port", listen->port),
                                                 log_text("error", err_text(err)), log_end()});
            return err;
        }
        if (worker->number == 0) /* before the others look */
            server->ports[i] = port;
    }
    return ERR_NONE;
}

/* What the phase asks of this shard. Returns whether that left it something to do at once. */
static bool follow_phase(struct worker *worker, enum phase phase)
{
    struct server *server = worker->server;
    if (phase >= PHASE_FEED && !worker->fed && (worker->number > 0 || phase == PHASE_FEED)) {
        if (worker->number == 0 && !shard_ready(worker->shard))
            shard_feed(worker->shard);
        worker->fed = true;
        return true;
    }
    if (!worker->listening && phase >= (worker->number == 0 ? PHASE_FIRST : PHASE_ALL) &&
        phase < PHASE_STOP) {
        worker->listening = true;
        enum err err = listen_all(worker);
        if (err != ERR_NONE)
            fail(worker, err);
        else
            count_up(server, &server->listening);
    }
    return false;
}

/* Returns whether the shard has come to its end. */
static bool follow_stop(struct worker *worker)
{
    int64_t now_ms = loop_now_ms(worker->loop);
    shard_stop(worker->shard);
    if (worker->stop_by_ms == 0)
        worker->stop_by_ms = now_ms + LINGER_MS;
    bool lingers = loop_lingering(worker->loop) > 0 && now_ms < worker->stop_by_ms;
    if (shard_stopped(worker->shard, &worker->err) && !lingers)
        return true;
    return atomic_load(&worker->server->broker.failed);
}

static void worker_turn(void *ctx, uint32_t number, bool hold, struct crew_turn *turn)
{
    struct server *server = ctx;
    struct worker *worker = &server->workers[number];
    struct loop *loop = worker->loop;
    enum phase phase = (enum phase)atomic_load(&server->phase);
    *turn = (struct crew_turn){.busy = follow_phase(worker, phase)};
    if (phase == PHASE_STOP && follow_stop(worker)) {
        turn->ended = true;
        count_up(server, &server->ended);
        return;
    }
    int events = loop_turn(loop);
    int64_t now_ms = loop_now_ms(loop);
    turn->deadline_ms = worker->deadline_ms;
    bool due = turn->busy || worker->held || phase == PHASE_STOP || now_ms >= worker->deadline_ms;
    if (events == 0 && !due)
        return; /* the thread was woken for another shard */
    uint64_t before = shard_work(worker->shard);
    shard_time(worker->shard, now_ms, loop_wall_ms(loop));
    worker->deadline_ms = shard_turn(worker->shard, now_ms, loop_wall_ms(loop), hold);
    worker->held = hold;
    loop_flush(loop);
    turn->units = shard_work(worker->shard) - before;
    turn->busy = turn->busy || worker->deadline_ms <= now_ms;
    turn->deadline_ms = worker->deadline_ms;
    if (phase == PHASE_STOP && turn->deadline_ms > now_ms + STOP_MS)
        turn->deadline_ms = now_ms + STOP_MS;
    if (!worker->told_ready && shard_ready(worker->shard)) {
        worker->told_ready = true;
        count_up(server, &server->ready);
    }
}

static bool worker_open(void *ctx, uint32_t number)
{
    struct server *server = ctx;
    struct worker *worker = &server->workers[number];
    uint64_t seed = 0;
    struct loop_config config = {
        .shard = number,
        .gather_max = server->broker.memory_limit / server->broker.shard_count / 2,
    };
    enum err err = loop_create(&config, &worker->loop);
    if (err == ERR_NONE && getrandom(&seed, sizeof seed, 0) != sizeof seed)
        err = ERR_IO;
    if (err == ERR_NONE)
        err = shard_create(&server->broker, number, loop_net(worker->loop), loop_disk(worker->loop),
                           loop_now_ms(worker->loop), loop_wall_ms(worker->loop), seed,
                           &worker->shard);
    if (err != ERR_NONE) {
        fail(worker, err);
        return false;
    }
    count_up(server, &server->opened);
    return true;
}

static struct loop *worker_loop(void *ctx, uint32_t number)
{
    struct server *server = ctx;
    return server->workers[number].loop;
}

static void wake(void *ctx, uint32_t shard)
{
    struct server *server = ctx;
    if (server->workers[shard].loop != NULL)
        loop_wake(server->workers[shard].loop);
}

static void set_phase(struct server *server, enum phase phase)
{
    atomic_store(&server->phase, (int)phase);
    for (uint32_t i = 0; i < server->broker.shard_count; i++)
        wake(server, i);
}

/* Waits until *count reaches all shards; false when something failed. */
static bool wait_for(struct server *server, const uint32_t *count, uint32_t all)
{
    pthread_mutex_lock(&server->mutex);
    while (*count < all && !atomic_load(&server->broker.failed))
        pthread_cond_wait(&server->changed, &server->mutex);
    pthread_mutex_unlock(&server->mutex);
    return !atomic_load(&server->broker.failed);
}

static void print_start(const struct server *server)
{
    const struct config *config = server->config;
    printf("weir version=%s shards=%u cells=%u durability=%s data=%s\n", WEIR_VERSION,
           server->broker.shard_count, server->broker.cell_count,
           config->durability == CONFIG_DURABILITY_SYNC ? "sync" : "os", config->data);
    printf("access user=guest password=guest from=loopback\n");
    for (uint32_t i = 0; i < config->listen_count; i++) {
        const char *host = config->listen[i].host;
        const char *form =
            strchr(host, ':') ? "listen face=%s addr=[%s]:%u\n" : "listen face=%s addr=%s:%u\n";
        printf(form, faces[config->listen[i].face]->name, host, server->ports[i]);
    }
    printf("change weir serve --listen FACE=HOST:PORT --data DIR (weir serve --help)\n");
    printf("ready\n");
    fflush(stdout);
}

static bool start(struct server *server)
{
    uint32_t shards = server->broker.shard_count;
    for (uint32_t i = 0; i < shards; i++) {
        server->workers[i].server = server;
        server->workers[i].number = i;
    }
    const struct crew_config crew = {
        .shards = shards,
        .rest_ns = (int64_t)server->config->gather_us * 1000,
        .ctx = server,
        .open = worker_open,
        .turn = worker_turn,
        .loop = worker_loop,
    };
    enum err err = crew_start(&crew, &server->crew);
    if (err != ERR_NONE) {
        fail(&server->workers[0], err);
        return false;
    }
    if (!wait_for(server, &server->opened, shards))
        return false;
    set_phase(server, PHASE_FEED);
    if (!wait_for(server, &server->ready, shards))
        return false;
    set_phase(server, PHASE_FIRST);
    if (!wait_for(server, &server->listening, 1))
        return false;
    set_phase(server, PHASE_ALL);
    return wait_for(server, &server->listening, shards);
}

/* Until a signal asks to stop, or storage has failed. */
static void wait_for_end(struct server *server, const sigset_t *signals)
{
    struct timespec period = {.tv_nsec = 200 * 1000 * 1000};
    while (!atomic_load(&server->broker.failed)) {
        if (sigtimedwait(signals, NULL, &period) >= 0) {
            log_event(server->broker.log, LOG_INFO, "stopping", NULL);
            return;
        }
        process_watch(&server->process);
    }
}

static uint32_t count_cpus(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 1;
    int count = CPU_COUNT(&set);
    return count < 1 ? 1 : (uint32_t)count;
}

/* As many descriptors as the operator allows; returns the limit. */
static uint64_t raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return 1024;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return 1024;
    return limit.rlim_cur;
}

static void fill_broker(struct server *server, const struct data_folder *data,
                        const struct log *log, const char *name)
{
    const struct config *config = server->config;
    struct broker *broker = &server->broker;
    uint32_t shards = config->shards == 0 ? count_cpus() : config->shards;
    if (shards > data->cells)
        shards = data->cells;
    uint64_t files = raise_file_limit();
    uint64_t connections = config->max_connections != 0 ? config->max_connections
                           : files > FILES_KEPT * 2     ? files - FILES_KEPT
                                                        : FILES_KEPT;
    broker->faces = (struct face_config){
        .frame_max = config->frame_max,
        .heartbeat_s = config->heartbeat_s,
        .channel_max = (uint16_t)config->channel_max,
        .max_message_bytes = config->max_message_bytes,
        .max_batch_bytes = config->kafka_max_batch_bytes,
        .idle_s = config->kafka_idle_s,
        .max_request_bytes = 100 << 20,
        .default_partitions = config->default_partitions,
        .auto_create_topics = config->auto_create_topics,
        .cluster_name = name,
        .version = WEIR_VERSION,
    };
    memcpy(broker->faces.cluster_id, data->cluster_id, sizeof data->cluster_id);
    broker->log = log;
    broker->data = config->data;
    broker->shard_count = shards;
    broker->cell_count = data->cells;
    broker->sync = config->durability == CONFIG_DURABILITY_SYNC;
    broker->segment_bytes = (uint64_t)config->journal_limit_mib << 20;
    broker->keep_bytes = KEEP_BYTES;
    broker->memory_limit = (uint64_t)config->memory_limit_mib << 20;
    broker->connection_output_max = (uint64_t)config->connection_buffer_kib << 10;
    broker->connections_max = (uint32_t)(connections < UINT32_MAX ? connections : UINT32_MAX);
    broker->state = &state_lmdb;
    broker->wake = wake;
    broker->wake_ctx = server;
    process_init(&server->process, config->data);
    broker->observe = process_observe;
    broker->observe_ctx = &server->process;
}

/* After an orderly stop every connection is closed, every cell on disk. */
static void end(struct server *server)
{
    crew_join(server->crew);
    for (uint32_t i = 0; i < server->broker.shard_count; i++) {
        struct worker *worker = &server->workers[i];
        if (loop_lingering(worker->loop) > 0)
            continue; /* its output still refers to the shard's memory; the process ends anyway */
        shard_destroy(worker->shard);
        loop_destroy(worker->loop);
    }
    broker_done(&server->broker);
}

/* Whether everything came to rest. A full disk takes no checkpoint, but what was acknowledged
 * stands in the journal, from which the next start makes it up. */
static bool ended_well(const struct server *server)
{
    bool well = true;
    for (uint32_t i = 0; i < server->broker.shard_count; i++) {
        enum err err = server->workers[i].err;
        if (err == ERR_NONE)
            continue;
        bool full = err == ERR_DISK_FULL;
        log_event(server->broker.log, full ? LOG_WARN : LOG_ERROR, "stopped without a checkpoint",
                  (const struct log_field[]){log_uint("shard", i), log_text("error", err_text(err)),
                                             log_end()});
        well = well && full;
    }
    return well;
}

/* A shard that could not begin knows why; without one there was no memory. */
static void say_failed(const struct server *server)
{
    enum err err = ERR_NO_MEMORY;
    for (uint32_t i = 0; i < server->broker.shard_count; i++)
        err = server->workers[i].err != ERR_NONE ? server->workers[i].err : err;
    log_event(server->broker.log, LOG_ERROR, "the broker does not start",
              (const struct log_field[]){log_text("error", err_text(err)), log_end()});
}

/* Large buffers go back to the system when they are freed. Left alone, malloc learns from the first
 * one to keep its like, and a few large messages cost their memory for ever. */
static void tune_memory(void)
{
    (void)mallopt(M_MMAP_THRESHOLD, LARGE_BYTES);
}

int server_run(const struct config *config)
{
    tune_memory();
    struct log log = {
        .level = (enum log_level)config->log_level, .clock = log_clock_system, .sink = log_stderr};
    struct data_folder data;
    char problem[512] = "", host[64] = "localhost", name[80];
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);
    (void)gethostname(host, sizeof host - 1);
    snprintf(name, sizeof name, "weir@%s", host);
    enum err err = data_folder_open(config->data, config->cells, false, &data, problem);
    if (err != ERR_NONE) {
        fprintf(stderr, "weir: %s\n", problem);
        return 1;
    }
    struct server *server = calloc(1, sizeof *server);
    if (server == NULL) {
        fprintf(stderr, "weir: %s\n", err_text(ERR_NO_MEMORY));
        data_folder_close(&data);
        return 1;
    }
    server->config = config;
    pthread_mutex_init(&server->mutex, NULL);
    pthread_cond_init(&server->changed, NULL);
    fill_broker(server, &data, &log, name);
    bool failed = broker_init(&server->broker) != ERR_NONE || !start(server);
    if (failed)
        say_failed(server);
    if (!failed) {
        atomic_store(&server->phase, (int)PHASE_RUN);
        crew_fold(server->crew);
        print_start(server);
        malloc_trim(0); /* recovery took more than what it left */
        wait_for_end(server, &signals);
    }
    set_phase(server, PHASE_STOP);
    if (failed || !wait_for(server, &server->ended, server->broker.shard_count)) {
        /* Nothing more may reach the disk, and threads may be anywhere: memory is not taken apart.
         */
        fflush(NULL);
        _exit(1);
    }
    end(server);
    failed = !ended_well(server) || failed;
    if (!failed)
        log_event(&log, LOG_INFO, "stopped", NULL);
    data_folder_close(&data);
    pthread_cond_destroy(&server->changed);
    pthread_mutex_destroy(&server->mutex);
    free(server);
    return failed ? 1 : 0;
}
