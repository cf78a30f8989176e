/* From a face's publish or command to the cells it concerns: routing is a look-up in the shard's
 * own catalog; the targets are handed over cell by cell. */
#include "codec/message.h"
#include "shard/state.h"

#include <stdlib.h>
#include <string.h>

enum { TARGETS_INLINE = 64 };

/* Kafka's murmur2, so that a key finds the partition that Kafka's own producers choose for it. */
static uint32_t murmur2(struct slice key)
{
    const uint32_t m = 0x5bd1e995;
    uint32_t h = 0x9747b28c ^ (uint32_t)key.len;
    size_t i = 0;
    for (; i + 4 <= key.len; i += 4) {
        uint32_t k = (uint32_t)key.data[i] | (uint32_t)key.data[i + 1] << 8 |
                     (uint32_t)key.data[i + 2] << 16 | (uint32_t)key.data[i + 3] << 24;
        k *= m;
        k ^= k >> 24;
        k *= m;
        h = h * m ^ k;
    }
    size_t rest = key.len - i;
    if (rest >= 3)
        h ^= (uint32_t)key.data[i + 2] << 16;
    if (rest >= 2)
        h ^= (uint32_t)key.data[i + 1] << 8;
    if (rest >= 1) {
        h ^= key.data[i];
        h *= m;
    }
    h ^= h >> 13;
    h *= m;
    return h ^ (h >> 15);
}

static uint64_t choose_partition(struct shard *shard, const struct topic *topic,
                                 const struct publish *publish)
{
    struct slice list = publish->pieces[1];
    struct slice exchange = publish->exchange ? publish->exchange->name : (struct slice){0};
    struct slice key = message_key_of_parts(exchange, publish->message->key, list);
    uint32_t number = key.data == NULL ? shard->round_robin++ : murmur2(key) & INT32_MAX;
    return topic->partitions[number % topic->partition_count];
}

static void fill(struct conn *conn, const struct publish *publish, struct cell_publish *out)
{
    *out = (struct cell_publish){
        .asker = {.conn = conn->id, .channel = publish->channel},
        .seq = publish->seq,
        .persistent = publish->persistent,
        .expiry_ms = publish->expiry_ms,
        .pieces = {publish->pieces[0], publish->pieces[1], publish->pieces[2]},
        .body = publish->body,
    };
}

uint32_t conn_publish_queue(struct conn *conn, const struct publish *publish,
                            const struct queue_def *queue)
{
    struct cell_publish out;
    fill(conn, publish, &out);
    out.targets = &queue->id;
    out.target_count = 1;
    uint32_t cell = cell_of(queue->id, conn->shard->broker->cell_count);
    conn->publishes = true;
    conn->cells |= UINT64_C(1) << cell;
    metrics_add(conn->shard, METRIC_MESSAGES_ROUTED, 1);
    dispatch_publish(conn->shard, cell, &out);
    return 1;
}

/* Hands the routed targets over, cell by cell; returns how many cells. */
static uint32_t hand_out(struct conn *conn, const struct cell_publish *out, const uint64_t *ids,
                         uint32_t count)
{
    struct shard *shard = conn->shard;
    uint32_t cells = shard->broker->cell_count;
    uint64_t stack[TARGETS_INLINE];
    uint64_t *theirs = count <= TARGETS_INLINE ? stack : malloc(count * sizeof *theirs);
    if (theirs == NULL) {
        conn_close(conn, false);
        return 0;
    }
    uint64_t seen = 0;
    for (uint32_t i = 0; i < count; i++)
        seen |= UINT64_C(1) << cell_of(ids[i], cells);
    conn->cells |= seen;
    uint32_t told = 0;
    for (uint64_t left = seen; left != 0; left &= left - 1, told++) {
        uint32_t cell = (uint32_t)__builtin_ctzll(left), n = 0;
        for (uint32_t i = 0; i < count; i++) {
            if (cell_of(ids[i], cells) == cell)
                theirs[n++] = ids[i];
        }
        struct cell_publish part = *out;
        part.targets = theirs;
        part.target_count = n;
        part.body = (left & (left - 1)) == 0 ? out->body : NULL; /* the last may take it */
        dispatch_publish(shard, cell, &part);
    }
    if (theirs != stack)
        free(theirs);
    return told;
}

uint32_t conn_publish(struct conn *conn, const struct publish *publish)
{
    struct shard *shard = conn->shard;
    struct route_targets *targets = &shard->targets;
    conn->publishes = true;
    route_reset(targets);
    route_from_exchange(shard->catalog, publish->exchange, publish->message, targets);
    if (targets->no_memory) {
        conn_close(conn, false);
        return 0;
    }
    if (targets->count == 0)
        return 0;
    if (targets->count == 1 && targets->items[0].kind == TARGET_QUEUE)
        return conn_publish_queue(conn, publish, targets->items[0].queue);
    uint64_t stack[TARGETS_INLINE];
    uint64_t *ids = targets->count <= TARGETS_INLINE ? stack : malloc(targets->count * sizeof *ids);
    if (ids == NULL) {
        conn_close(conn, false);
        return 0;
    }
    for (uint32_t i = 0; i < targets->count; i++) {
        const struct route_target *target = &targets->items[i];
        ids[i] = target->kind == TARGET_TOPIC ? choose_partition(shard, target->topic, publish)
                                              : target->queue->id;
    }
    struct cell_publish out;
    fill(conn, publish, &out);
    metrics_add(shard, METRIC_MESSAGES_ROUTED, targets->count);
    uint32_t told = hand_out(conn, &out, ids, targets->count);
    if (ids != stack)
        free(ids);
    return told;
}

static void everywhere(struct conn *conn, struct command *command)
{
    struct shard *shard = conn->shard;
    for (uint32_t cell = 0; cell < shard->broker->cell_count; cell++) {
        if ((conn->cells & (UINT64_C(1) << cell)) != 0) {
            dispatch_command(shard, cell, command);
        } else if (command->type == COMMAND_CHANNEL_GONE || command->type == COMMAND_CONN_GONE) {
            /* It never heard of the connection: its answer can be given here. */
            struct event event = {.type = EVENT_ANSWER, .asker = command->asker};
            mail_event(shard, shard->number, &event);
        }
    }
}

void conn_command(struct conn *conn, const struct command *command)
{
    struct shard *shard = conn->shard;
    struct command copy = *command;
    copy.asker.conn = conn->id;
    metrics_add(shard, METRIC_COMMANDS, 1);
    if (copy.type == COMMAND_CHANNEL_GONE || copy.type == COMMAND_CONN_GONE) {
        everywhere(conn, &copy);
        return;
    }
    if (copy.type == COMMAND_APPEND)
        conn->publishes = true;
    uint32_t cell = dispatch_cell_of(shard->broker, &copy);
    conn->cells |= UINT64_C(1) << cell;
    dispatch_command(shard, cell, &copy);
}

uint32_t conn_cells(const struct conn *conn)
{
    return conn->shard->broker->cell_count;
}
