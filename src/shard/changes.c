/* The catalog's copies. Shard 0, which runs cell 0, posts every change to all shards, itself
 * included, and sends the answer when each has applied it. Rings keep the order, so the broadcasts
 * complete in order too. */
#include "shard/state.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static void complete(struct shard *shard)
{
    while (!list_empty(&shard->broadcasts)) {
        struct broadcast *first = list_entry(shard->broadcasts.next, struct broadcast, link);
        if (first->awaited > 0)
            return;
        list_remove(&first->link);
        if (first->has_answer)
            dispatch_cell_out.event(shard, &first->answer);
        free(first);
    }
}

void changes_broadcast(struct shard *shard, struct slice changes, const struct event *answer)
{
    struct broadcast *broadcast = calloc(1, sizeof *broadcast);
    if (broadcast == NULL) {
        shard_fail(shard, "out of memory");
        return;
    }
    broadcast->number = ++shard->broadcast_number;
    broadcast->has_answer = answer->asker.conn != 0;
    broadcast->answer = *answer;
    size_t words = answer->detail.len < sizeof broadcast->detail ? answer->detail.len : 0;
    memcpy(broadcast->detail, answer->detail.data ? answer->detail.data : (const uint8_t *)"",
           words);
    broadcast->answer.detail = slice_make(broadcast->detail, words);
    list_insert(&shard->broadcasts, &broadcast->link);
    if (changes.len > 0) {
        broadcast->awaited = shard->broker->shard_count;
        for (uint32_t to = 0; to < shard->broker->shard_count; to++)
            mail_change(shard, to, broadcast->number, changes, false);
    } else {
        complete(shard);
    }
}

void changes_done(struct shard *shard, uint64_t number)
{
    list_each(node, &shard->broadcasts)
    {
        struct broadcast *broadcast = list_entry(node, struct broadcast, link);
        if (broadcast->number == number) {
            assert(broadcast->awaited > 0);
            broadcast->awaited--;
            break;
        }
    }
    complete(shard);
}

void changes_drop(struct shard *shard)
{
    list_each(node, &shard->broadcasts)
    {
        list_remove(node);
        free(list_entry(node, struct broadcast, link));
    }
}

static struct cell *own_cell(struct shard *shard, uint64_t object)
{
    return shard->cells[cell_of(object, shard->broker->cell_count)];
}

static void queue_added(void *ctx, const struct queue_def *queue)
{
    struct shard *shard = ctx;
    struct cell *cell = own_cell(shard, queue->id);
    if (cell == NULL)
        return;
    cell_queue_added(cell, queue);
    if (shard->ready) /* before, it is what was there at the start */
        metrics_add(shard, METRIC_QUEUES_CREATED, 1);
}

static void queue_removed(void *ctx, const struct queue_def *queue)
{
    struct shard *shard = ctx;
    struct cell *cell = own_cell(shard, queue->id);
    if (cell == NULL)
        return;
    cell_queue_removed(cell, queue);
    metrics_add(shard, METRIC_QUEUES_DELETED, 1);
}

static void topic_added(void *ctx, const struct topic *topic, uint32_t first_new)
{
    (void)first_new; /* options may have changed for all */
    for (uint32_t i = 0; i < topic->partition_count; i++) {
        struct cell *cell = own_cell(ctx, topic->partitions[i]);
        if (cell != NULL)
            cell_partition_added(cell, topic, i);
    }
}

static void topic_removed(void *ctx, const struct topic *topic)
{
    for (uint32_t i = 0; i < topic->partition_count; i++) {
        struct cell *cell = own_cell(ctx, topic->partitions[i]);
        if (cell != NULL)
            cell_partition_removed(cell, topic->partitions[i]);
    }
}

static const struct catalog_listener listener = {
    .queue_added = queue_added,
    .queue_removed = queue_removed,
    .topic_added = topic_added,
    .topic_removed = topic_removed,
};

void changes_apply(struct shard *shard, struct slice changes)
{
    shard->depth++; /* what cells answer meanwhile must not come back into them */
    for (uint32_t i = 0; i < shard->broker->cell_count; i++) {
        if (shard->cells[i] != NULL)
            cell_turn(shard->cells[i], shard->now_ms, shard->wall_ms);
    }
    while (changes.len > 0) {
        size_t used = 0;
        enum err err = catalog_apply(shard->catalog, changes, &used, &listener, shard);
        if (err != ERR_NONE) {
            log_event(shard->broker->log, LOG_ERROR, "catalog change failed, the broker stops",
                      (const struct log_field[]){log_text("error", err_text(err)), log_end()});
            atomic_store(&shard->broker->failed, true);
            break;
        }
        changes = slice_make(changes.data + used, changes.len - used);
    }
    shard->depth--;
}
