/* A shard's life and its turn: mail, timers, the cells' work, pressure, mail again. */
#include "shard/shard.h"

#include "shard/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    RING_BYTES = 1 << 20,
    UNFLUSHED_HIGH = 16 << 20, /* bytes of a cell's journal that wait to be written */
    DELAYED_HIGH = 4 << 20,
    CHECKPOINT_MS = 10 * 60 * 1000,
    PRESSED_MS = 2,  /* how often a shard under pressure looks whether it has fallen */
    SHORT_MS = 1000, /* no memory for so long is worth a word */
    STALLED_MS = 100,
};

enum err broker_init(struct broker *broker)
{
    for (uint32_t from = 0; from < broker->shard_count; from++) {
        for (uint32_t to = 0; to < broker->shard_count; to++) {
            broker->rings[from][to] = ring_create(RING_BYTES);
            if (broker->rings[from][to] == NULL)
                return ERR_NO_MEMORY;
        }
    }
    return ERR_NONE;
}

void broker_done(struct broker *broker)
{
    for (uint32_t from = 0; from < broker->shard_count; from++) {
        for (uint32_t to = 0; to < broker->shard_count; to++) {
            if (broker->rings[from][to] != NULL)
                ring_destroy(broker->rings[from][to]);
        }
    }
}

static void release(void *ctx, struct buf *buf)
{
    conn_release_buf(ctx, buf);
}

static void clock_told(void *ctx, int64_t now_ms, int64_t wall_ms)
{
    shard_time(ctx, now_ms, wall_ms);
}

static enum err open_cells(struct shard *shard)
{
    struct broker *broker = shard->broker;
    for (uint32_t number = 0; number < broker->cell_count; number++) {
        if (shard_of_cell(broker, number) != shard->number)
            continue;
        char path[4200], problem[STORE_PROBLEM_BYTES] = "";
        snprintf(path, sizeof path, "%s/cells/%03u", broker->data, number);
        struct cell_config config = {
            .number = number,
            .cells = broker->cell_count,
            .out = &dispatch_cell_out,
            .ctx = shard,
            .catalog = shard->catalog,
            .store =
                {
                    .path = path,
                    .disk = shard->disk,
                    .state = broker->state,
                    .cell = number,
                    .shard = shard->number,
                    .sync = broker->sync,
                    .segment_bytes = broker->segment_bytes,
                    .keep_bytes = broker->keep_bytes,
                    .memory_limit = broker->memory_limit / broker->cell_count,
                    .checkpoint_ms = CHECKPOINT_MS,
                    .memory_bytes = &shard->memory_bytes,
                    .problem = problem,
                    .problem_bytes = sizeof problem,
                },
        };
        enum err err = cell_open(&config, shard->wall_ms, &shard->cells[number]);
        if (err != ERR_NONE) {
            log_event(broker->log, LOG_ERROR, "cell does not open",
                      (const struct log_field[]){log_uint("cell", number),
                                                 log_text("error", err_text(err)),
                                                 log_text("problem", problem), log_end()});
            if (err == ERR_CORRUPT)
                log_event(broker->log, LOG_ERROR,
                          "weir check says what is lost, weir check --repair keeps the rest",
                          (const struct log_field[]){log_text("data", broker->data), log_end()});
            return err;
        }
        shard->own_cells++;
    }
    return ERR_NONE;
}

enum err shard_create(struct broker *broker, uint32_t number, struct net *net, struct disk *disk,
                      int64_t now_ms, int64_t wall_ms, uint64_t seed, struct shard **out)
{
    struct shard *shard = calloc(1, sizeof *shard);
    if (shard == NULL)
        return ERR_NO_MEMORY;
    shard->broker = broker;
    shard->number = number;
    shard->net = net;
    shard->disk = disk;
    shard->now_ms = now_ms;
    shard->wall_ms = wall_ms;
    shard->random[0] = seed | 1;
    shard->random[1] = seed ^ UINT64_C(0x9E3779B97F4A7C15);
    shard->conn_generation = seed & 0x7fffffff;
    shard->shown_ms = now_ms;
    net->release = release;
    net->release_ctx = shard;
    net->clock = clock_told;
    net->clock_ctx = shard;
    list_init(&shard->stalled);
    list_init(&shard->broadcasts);
    for (uint32_t i = 0; i < SHARDS_MAX; i++)
        list_init(&shard->delayed[i]);
    shard->catalog = catalog_create();
    enum err err = shard->catalog == NULL ? ERR_NO_MEMORY : open_cells(shard);
    if (err != ERR_NONE) {
        shard_destroy(shard);
        return err;
    }
    broker->shards[number] = shard;
    *out = shard;
    return ERR_NONE;
}

/* After a simulated crash connections are still there; nobody is told. */
static void free_conns(struct shard *shard)
{
    for (uint32_t i = 0; i < shard->conn_slots; i++) {
        struct conn *conn = shard->conns[i];
        if (conn == NULL)
            continue;
        conn->closing = true;
        conn->face->close(conn->self, ERR_IO);
        free(conn);
    }
}

void shard_destroy(struct shard *shard)
{
    free_conns(shard);
    for (uint32_t i = 0; i < CELLS_MAX; i++) {
        if (shard->cells[i] != NULL)
            cell_destroy(shard->cells[i]);
    }
    mail_drop(shard);
    changes_drop(shard);
    if (shard->catalog != NULL)
        catalog_destroy(shard->catalog);
    map_done(&shard->foreign);
    heap_done(&shard->timers);
    route_done(&shard->targets);
    free(shard->conns);
    free(shard->free_slots);
    free(shard);
}

void shard_fail(struct shard *shard, const char *why)
{
    if (!atomic_exchange(&shard->broker->failed, true))
        log_event(shard->broker->log, LOG_ERROR, "a shard failed, the broker stops",
                  (const struct log_field[]){log_uint("shard", shard->number),
                                             log_text("error", why), log_end()});
}

static enum err feed_one(void *ctx, struct slice change)
{
    struct shard *shard = ctx;
    for (uint32_t to = 0; to < shard->broker->shard_count; to++)
        mail_change(shard, to, 0, change, false);
    return ERR_NONE;
}

void shard_feed(struct shard *shard)
{
    enum err err = cell_dump_catalog(shard->cells[0], feed_one, shard);
    if (err != ERR_NONE)
        shard_fail(shard, err_text(err));
    for (uint32_t to = 0; to < shard->broker->shard_count; to++)
        mail_change(shard, to, 0, (struct slice){0}, true);
    mail_flush(shard);
}

bool shard_ready(const struct shard *shard)
{
    return shard->ready;
}

enum err shard_listen(struct shard *shard, const struct face *face, const char *host, uint16_t port,
                      uint16_t *port_out)
{
    if (shard->listener_count == sizeof shard->listeners / sizeof *shard->listeners)
        return ERR_TOO_LARGE;
    struct shard_listener *listener = &shard->listeners[shard->listener_count];
    listener->shard = shard;
    listener->face = face;
    enum err err =
        net_listen(shard->net, host, port, &conn_handler, listener, &listener->net, port_out);
    if (err == ERR_NONE)
        shard->listener_count++;
    return err;
}

/* Consumers have to take something before publishers can go on: who can be told is told. */
static void watch_memory(struct shard *shard, bool full)
{
    struct broker *broker = shard->broker;
    uint64_t bit = UINT64_C(1) << shard->number;
    bool is_short = full && shard->now_ms - shard->pressed_ms >= SHORT_MS;
    if (is_short == shard->is_short || (shard->is_short && shard->pressed))
        return;
    shard->is_short = is_short;
    if (is_short)
        atomic_fetch_or(&broker->short_of_memory, bit);
    else
        atomic_fetch_and(&broker->short_of_memory, ~bit);
    log_event(broker->log, is_short ? LOG_WARN : LOG_INFO,
              is_short ? "memory full, publishers wait" : "memory has room again",
              (const struct log_field[]){log_uint("shard", shard->number),
                                         log_uint("memory_bytes", shard->memory_bytes),
                                         log_uint("limit_bytes", broker->memory_limit), log_end()});
}

static void watch_pressure(struct shard *shard)
{
    struct broker *broker = shard->broker;
    uint64_t unflushed = 0;
    for (uint32_t i = 0; i < broker->cell_count; i++) {
        uint64_t bytes = shard->cells[i] != NULL ? cell_unflushed(shard->cells[i]) : 0;
        if (bytes > unflushed)
            unflushed = bytes;
    }
    uint64_t memory_high = broker->memory_limit / broker->shard_count * 2;
    uint64_t mail_bytes = atomic_load(&broker->mail_bytes[shard->number]);
    uint64_t memory = shard->memory_bytes + atomic_load(&broker->gathered) / broker->shard_count;
    bool high = unflushed > UNFLUSHED_HIGH || shard->delayed_bytes > DELAYED_HIGH ||
                mail_bytes > memory_high / 2 || memory > memory_high;
    bool low = unflushed < UNFLUSHED_HIGH / 2 && shard->delayed_bytes < DELAYED_HIGH / 2 &&
               mail_bytes <= memory_high / 4 && memory < memory_high - memory_high / 8;
    uint64_t bit = UINT64_C(1) << shard->number;
    if (!shard->pressed && high) {
        shard->pressed = true;
        shard->pressed_ms = shard->now_ms;
        atomic_fetch_or(&broker->pressed, bit);
    } else if (shard->pressed && low) {
        shard->pressed = false;
        if ((atomic_fetch_and(&broker->pressed, ~bit) & ~bit) == 0) {
            for (uint32_t i = 0; i < broker->shard_count; i++) {
                if (i != shard->number)
                    broker->wake(broker->wake_ctx, i);
            }
        }
    }
    watch_memory(shard, shard->pressed && memory > memory_high - memory_high / 8);
    conn_resume_stalled(shard);
}

void shard_time(struct shard *shard, int64_t now_ms, int64_t wall_ms)
{
    shard->now_ms = now_ms;
    shard->wall_ms = wall_ms;
}

int64_t shard_turn(struct shard *shard, int64_t now_ms, int64_t wall_ms, bool hold)
{
    shard_time(shard, now_ms, wall_ms);
    conn_run_timers(shard);
    bool more = mail_work(shard);
    int64_t deadline = INT64_MAX;
    for (uint32_t i = 0; i < shard->broker->cell_count; i++) {
        struct cell *cell = shard->cells[i];
        if (cell == NULL)
            continue;
        shard->depth++;
        cell_turn(cell, now_ms, wall_ms);
        more = cell_work(cell, hold) || more;
        shard->depth--;
        int64_t due = cell_deadline(cell);
        if (due < deadline)
            deadline = due;
    }
    watch_pressure(shard);
    mail_flush(shard);
    deadline = metrics_turn(shard, deadline);
    const struct heap_node *top = heap_top(&shard->timers);
    if (top != NULL && top->due < deadline)
        deadline = top->due;
    size_t len;
    bool own_mail = ring_peek(shard->broker->rings[shard->number][shard->number], &len) != NULL;
    if (more || own_mail || shard->posted != 0)
        return now_ms;
    /* Pressure on other shards, and what they have taken of our mail, falls without a word. */
    if (shard->pressed && deadline > now_ms + PRESSED_MS)
        deadline = now_ms + PRESSED_MS;
    if (!list_empty(&shard->stalled) && deadline > now_ms + STALLED_MS)
        deadline = now_ms + STALLED_MS;
    return deadline;
}

uint64_t shard_work(const struct shard *shard)
{
    return shard->work;
}

static void cell_stopped(void *ctx, enum err err)
{
    struct shard *shard = ctx;
    shard->cells_stopped++;
    if (err != ERR_NONE)
        shard->stop_err = err;
}

void shard_stop(struct shard *shard)
{
    if (!shard->stopping) {
        shard->stopping = true;
        for (uint32_t i = 0; i < shard->listener_count; i++)
            net_listener_close(shard->net, shard->listeners[i].net);
        shard->listener_count = 0;
        for (uint32_t i = 0; i < shard->conn_slots; i++) {
            struct conn *conn = shard->conns[i];
            if (conn == NULL || conn->closing)
                continue;
            if (conn->face->stop != NULL)
                conn->face->stop(conn->self);
            conn_close(conn, true);
        }
    }
    if (!shard->cells_stopping && shard->conn_count == 0) {
        shard->cells_stopping = true;
        for (uint32_t i = 0; i < shard->broker->cell_count; i++) {
            if (shard->cells[i] != NULL)
                cell_stop(shard->cells[i], cell_stopped, shard);
        }
    }
}

bool shard_stopped(const struct shard *shard, enum err *err)
{
    *err = shard->stop_err;
    return shard->cells_stopping && shard->cells_stopped == shard->own_cells;
}

void shard_stats(const struct shard *shard, struct shard_stats *out)
{
    *out = (struct shard_stats){
        .connections = shard->conn_count,
        .memory_bytes = shard->memory_bytes,
        .net_bytes = shard->net_bytes,
    };
}
