/* A shard counts in a plain array of its own, in passing. What cells and store have counted is
 * added when a tenth of a second has gone by since the last time, and what differs from what was
 * shown is stored where all threads can read it, without order: every figure is true by itself. A
 * shard that rests is not woken for it, but for one last time after it did something. */
#include "shard/state.h"

#include <string.h>

enum { SHOW_MS = 100 };

static void add_cell(uint64_t *metrics, const struct cell *cell)
{
    struct cell_stats stats;
    cell_stats(cell, &stats);
    metrics[METRIC_CELL_MESSAGES_PUBLISHED] += stats.published;
    metrics[METRIC_CELL_MESSAGES_DELIVERED] += stats.delivered;
    metrics[METRIC_CELL_MESSAGES_SETTLED] += stats.settled;
    metrics[METRIC_CELL_MESSAGES_RETURNED] += stats.returned;
    metrics[METRIC_CELL_MESSAGES_DEAD_LETTERED] += stats.dead_lettered;
    metrics[METRIC_CELL_MESSAGES_EXPIRED] += stats.expired;
    metrics[METRIC_QUEUE_MESSAGES_READY] += stats.messages_ready;
    metrics[METRIC_QUEUE_MESSAGES_LEASED] += stats.messages_leased;
    metrics[METRIC_QUEUES] += stats.queues;
    metrics[METRIC_PARTITIONS] += stats.partitions;
    metrics[METRIC_STORE_JOURNAL_BYTES] += stats.store.journal_bytes;
    metrics[METRIC_STORE_EXTENTS] += stats.store.extents;
    metrics[METRIC_STORE_EXTENT_BYTES] += stats.store.extent_bytes;
    metrics[METRIC_STORE_SPILLED_BYTES] += stats.store.spilled_bytes;
    metrics[METRIC_STORE_MEMORY_BYTES] += stats.store.memory_bytes;
    metrics[METRIC_STORE_FLUSHES] += stats.store.flushes;
    metrics[METRIC_STORE_FLUSHED_BYTES] += stats.store.flushed_bytes;
    metrics[METRIC_STORE_CHECKPOINTS] += stats.store.checkpoints;
}

static void show(struct shard *shard)
{
    struct broker *broker = shard->broker;
    uint64_t now[METRIC_COUNT];
    memcpy(now, shard->metrics, sizeof now);
    for (uint32_t i = 0; i < broker->cell_count; i++) {
        if (shard->cells[i] != NULL)
            add_cell(now, shard->cells[i]);
    }
    now[METRIC_MESSAGE_MEMORY_BYTES] = shard->memory_bytes;
    for (uint32_t i = 0; i < METRIC_COUNT; i++) {
        if (now[i] == shard->shown[i])
            continue;
        shard->shown[i] = now[i];
        atomic_store_explicit(&broker->metrics[shard->number][i], now[i], memory_order_relaxed);
    }
    shard->shown_ms = shard->now_ms;
}

int64_t metrics_turn(struct shard *shard, int64_t deadline)
{
    int64_t due_ms = shard->shown_ms + SHOW_MS;
    if (shard->now_ms < due_ms)
        return due_ms < deadline ? due_ms : deadline;
    show(shard);
    return deadline;
}

void broker_metrics(struct broker *broker, uint64_t out[METRIC_COUNT])
{
    memset(out, 0, METRIC_COUNT * sizeof *out);
    for (uint32_t shard = 0; shard < broker->shard_count; shard++) {
        for (uint32_t i = 0; i < METRIC_COUNT; i++)
            out[i] += atomic_load_explicit(&broker->metrics[shard][i], memory_order_relaxed);
    }
    out[METRIC_SHARDS] = broker->shard_count;
    out[METRIC_CELLS] = broker->cell_count;
    out[METRIC_CONNECTIONS_MAX] = broker->connections_max;
    out[METRIC_MESSAGE_MEMORY_LIMIT_BYTES] = broker->memory_limit;
    out[METRIC_PUBLISHERS_PAUSED_MEMORY] =
        atomic_load_explicit(&broker->pressed, memory_order_relaxed) != 0;
    out[METRIC_PUBLISHERS_PAUSED_DISK] =
        atomic_load_explicit(&broker->blocked, memory_order_relaxed) != 0;
    if (broker->observe != NULL)
        broker->observe(broker->observe_ctx, out);
}

/* ---- What faces count and see ---- */

void conn_count(struct conn *conn, enum metric metric, int64_t n)
{
    metrics_add(conn->shard, metric, (uint64_t)n);
}

void conn_metrics(struct conn *conn, uint64_t out[METRIC_COUNT])
{
    show(conn->shard);
    broker_metrics(conn->shard->broker, out);
}

enum err conn_health(const struct conn *conn)
{
    const struct broker *broker = conn->shard->broker;
    if (atomic_load_explicit(&broker->failed, memory_order_relaxed))
        return ERR_IO;
    bool full = atomic_load_explicit(&broker->blocked, memory_order_relaxed) != 0;
    return full ? ERR_DISK_FULL : ERR_NONE;
}
