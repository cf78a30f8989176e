/* The broker behind the fake connection (fake_conn.h): the real catalog and routing, queues and
 * partitions that are lists. What it answers waits as events. To be included by fake_conn.h only.
 */
#ifndef WEIR_FACE_AMQP_FAKE_BROKER_H
#define WEIR_FACE_AMQP_FAKE_BROKER_H

#include "core/route.h"
#include "face/face.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    FAKE_QUEUES = 64,
    FAKE_SUBSCRIBERS = 16,
    FAKE_PARTITIONS = 8,
    FAKE_ENTRIES = 32,
    FAKE_CONN_ID = 77
};

struct fake_message {
    uint64_t offset;
    uint64_t consumer; /* who holds it */
    uint16_t channel;
    uint16_t count;
    bool leased, gone;
    struct buf *buf;
};

struct fake_subscriber {
    uint64_t consumer;
    uint16_t channel;
    uint32_t prefetch, leased, unreported, window;
    bool no_ack;
};

struct fake_queue {
    uint64_t id;
    struct fake_message *messages;
    uint32_t count, capacity;
    struct fake_subscriber subscribers[FAKE_SUBSCRIBERS];
    uint32_t subscriber_count;
};

/* One partition of a topic: entries of one or more messages each, and one read that waits. */
struct fake_partition {
    uint64_t id;
    struct entry entries[FAKE_ENTRIES];
    uint32_t count;
    uint64_t end;
    bool reading;
    struct asker reader;
    uint64_t read_offset;
};

struct fake_event {
    struct event event;
    struct buf *buf;
    struct entry *entries;
    char detail[768];
};

struct conn {
    const struct face *face;
    void *self;
    struct face_config config;
    struct catalog *catalog;
    struct fake_queue queues[FAKE_QUEUES];
    uint32_t queue_count;
    struct fake_partition partitions[FAKE_PARTITIONS];
    uint32_t partition_count;
    struct fake_event *events;
    uint32_t event_count, event_capacity;
    bool events_held; /* the test itself says when they come, and in which order */
    uint8_t *output;
    size_t output_len, output_capacity;
    uint8_t *input; /* not yet used by the face */
    size_t input_len;
    bool held, closed, blocked;
    size_t gathered, gather_max;
    bool gather_refused;
    enum err publish_err;    /* what publishes are answered with */
    bool publish_unanswered; /* the test itself says when they are confirmed */
    uint64_t publish_seq;    /* the last publish's */
    int64_t now_ms, timer_ms;
    uint64_t random;
    uint32_t commands; /* of all kinds */
    uint32_t settle_commands;
    struct route_targets targets;
    char user[64];
};

/* ---- Events ---- */

static struct fake_event *fake_event_add(struct conn *conn, const struct event *event)
{
    if (conn->event_count == conn->event_capacity) {
        conn->event_capacity = conn->event_capacity ? conn->event_capacity * 2 : 64;
        conn->events = realloc(conn->events, conn->event_capacity * sizeof *conn->events);
        assert(conn->events);
    }
    struct fake_event *added = &conn->events[conn->event_count++];
    added->event = *event;
    added->buf = NULL;
    added->entries = NULL;
    added->detail[0] = 0;
    return added;
}

static void fake_answer(struct conn *conn, const struct command *command, enum err err,
                        uint64_t value, uint64_t value2)
{
    struct event event = {.type = EVENT_ANSWER, .err = err, .asker = command->asker};
    event.value = value;
    event.value2 = value2;
    fake_event_add(conn, &event);
}

static struct fake_queue *fake_queue(struct conn *conn, uint64_t id)
{
    for (uint32_t i = 0; i < conn->queue_count; i++)
        if (conn->queues[i].id == id)
            return &conn->queues[i];
    if (!catalog_queue_by_id(conn->catalog, id) || conn->queue_count == FAKE_QUEUES)
        return NULL;
    struct fake_queue *queue = &conn->queues[conn->queue_count++];
    *queue = (struct fake_queue){.id = id};
    return queue;
}

static void fake_queue_empty(struct fake_queue *queue)
{
    for (uint32_t i = 0; i < queue->count; i++)
        buf_unref(queue->messages[i].buf);
    free(queue->messages);
    queue->messages = NULL;
    queue->count = queue->capacity = 0;
}

static uint32_t fake_ready(const struct fake_queue *queue)
{
    uint32_t ready = 0;
    for (uint32_t i = 0; i < queue->count; i++)
        ready += !queue->messages[i].leased && !queue->messages[i].gone;
    return ready;
}

static void fake_deliver(struct conn *conn, struct fake_queue *queue, struct fake_message *message,
                         const struct asker *asker, uint64_t consumer, bool no_ack)
{
    message->gone = no_ack;
    message->leased = !no_ack;
    message->consumer = consumer;
    message->channel = asker->channel;
    struct event event = {.type = EVENT_DELIVER, .asker = *asker};
    event.deliver = (struct delivery){
        .queue = queue->id,
        .consumer = consumer,
        .offset = message->offset,
        .ready = fake_ready(queue),
        .count = message->count,
        .entry = slice_make(message->buf->data, message->buf->capacity),
        .buf = message->buf,
    };
    fake_event_add(conn, &event)->buf = buf_ref(message->buf);
}

static struct fake_message *fake_first_ready(struct fake_queue *queue)
{
    for (uint32_t i = 0; i < queue->count; i++)
        if (!queue->messages[i].leased && !queue->messages[i].gone)
            return &queue->messages[i];
    return NULL;
}

static void fake_pump(struct conn *conn, struct fake_queue *queue)
{
    for (uint32_t s = 0; s < queue->subscriber_count; s++) {
        struct fake_subscriber *subscriber = &queue->subscribers[s];
        struct fake_message *message;
        while ((subscriber->prefetch == 0 || subscriber->leased < subscriber->prefetch) &&
               (subscriber->window == 0 || subscriber->unreported < subscriber->window) &&
               (message = fake_first_ready(queue)) != NULL) {
            struct asker asker = {.channel = subscriber->channel};
            subscriber->leased += !subscriber->no_ack;
            subscriber->unreported += (uint32_t)message->buf->capacity;
            fake_deliver(conn, queue, message, &asker, subscriber->consumer, subscriber->no_ack);
        }
    }
}

static struct fake_subscriber *fake_subscriber(struct fake_queue *queue, uint64_t consumer)
{
    for (uint32_t s = 0; s < queue->subscriber_count; s++)
        if (queue->subscribers[s].consumer == consumer)
            return &queue->subscribers[s];
    return NULL;
}

static void fake_resolve_one(struct fake_queue *queue, struct fake_message *message,
                             enum command_type type, bool undelivered)
{
    struct fake_subscriber *subscriber = fake_subscriber(queue, message->consumer);
    if (subscriber)
        subscriber->leased--;
    message->leased = false;
    message->gone = type != COMMAND_RETURN;
    message->count = (uint16_t)(message->count + (type == COMMAND_RETURN && !undelivered));
}

static void fake_resolve(struct fake_queue *queue, const struct command *command)
{
    for (size_t r = 0; r < command->data.len / sizeof(struct offset_range); r++) {
        struct offset_range range;
        memcpy(&range, command->data.data + r * sizeof range, sizeof range);
        assert(range.first <= range.last);
        for (uint32_t i = 0; i < queue->count; i++) {
            struct fake_message *message = &queue->messages[i];
            if (message->offset < range.first || message->offset > range.last)
                continue;
            assert(message->leased && message->channel == command->asker.channel);
            fake_resolve_one(queue, message, command->type, command->settle.undelivered);
        }
    }
}

static void fake_unsubscribe(struct fake_queue *queue, uint32_t index)
{
    queue->subscribers[index] = queue->subscribers[--queue->subscriber_count];
}

static void fake_channel_gone(struct conn *conn, const struct command *command)
{
    for (uint32_t q = 0; q < conn->queue_count; q++) {
        struct fake_queue *queue = &conn->queues[q];
        for (uint32_t s = queue->subscriber_count; s-- > 0;)
            if (queue->subscribers[s].channel == command->asker.channel)
                fake_unsubscribe(queue, s);
        for (uint32_t i = 0; i < queue->count; i++)
            if (queue->messages[i].leased && queue->messages[i].channel == command->asker.channel)
                fake_resolve_one(queue, &queue->messages[i], COMMAND_RETURN, false);
    }
    for (uint32_t i = 0; i < conn_cells(conn); i++)
        fake_answer(conn, command, ERR_NONE, 0, 0);
}

static void fake_apply(struct conn *conn, const struct catalog_changes *changes)
{
    static const struct catalog_listener nobody = {0};
    for (size_t at = 0, used; at < changes->len; at += used) {
        enum err err = catalog_apply(
            conn->catalog, slice_make(changes->data + at, changes->len - at), &used, &nobody, NULL);
        assert(!err);
    }
}

static void fake_catalog(struct conn *conn, const struct command *command,
                         const struct catalog_request *request)
{
    struct catalog_changes changes = {0};
    struct catalog_problem problem = {{0}};
    enum err err = catalog_decide(conn->catalog, request, &changes, &problem);
    if (!err)
        fake_apply(conn, &changes);
    struct event event = {.type = EVENT_ANSWER, .err = err, .asker = command->asker};
    event.value = changes.id;
    event.value2 = changes.existed;
    struct fake_event *added = fake_event_add(conn, &event);
    memcpy(added->detail, problem.text, sizeof added->detail);
    free(changes.data);
}

static void fake_delete(struct conn *conn, const struct command *command, struct fake_queue *queue)
{
    const struct queue_def *def = catalog_queue_by_id(conn->catalog, queue->id);
    uint32_t ready = fake_ready(queue);
    if (command->remove.flags & DELETE_IF_UNUSED && queue->subscriber_count > 0) {
        fake_answer(conn, command, ERR_IN_USE, 0, 0);
        return;
    }
    if (command->remove.flags & DELETE_IF_EMPTY && ready > 0) {
        fake_answer(conn, command, ERR_NOT_EMPTY, 0, 0);
        return;
    }
    for (uint32_t s = 0; s < queue->subscriber_count; s++) {
        struct event event = {.type = EVENT_CANCELLED};
        event.cancelled.consumer = queue->subscribers[s].consumer;
        fake_event_add(conn, &event);
    }
    struct catalog_request request = {.op = CATALOG_DELETE_QUEUE,
                                      .namespace_id = def->namespace_id,
                                      .name = def->name,
                                      .owner = def->owner};
    struct catalog_changes changes = {0};
    struct catalog_problem problem;
    if (!catalog_decide(conn->catalog, &request, &changes, &problem))
        fake_apply(conn, &changes);
    free(changes.data);
    fake_queue_empty(queue);
    queue->subscriber_count = 0;
    queue->id = UINT64_MAX;
    fake_answer(conn, command, ERR_NONE, ready, 0);
}

static void fake_subscribe(struct conn *conn, const struct command *command,
                           struct fake_queue *queue)
{
    if (queue->subscriber_count == FAKE_SUBSCRIBERS) {
        fake_answer(conn, command, ERR_EXCLUSIVE_USE, 0, 0);
        return;
    }
    queue->subscribers[queue->subscriber_count++] = (struct fake_subscriber){
        .consumer = command->subscribe.consumer,
        .channel = command->asker.channel,
        .prefetch = command->subscribe.prefetch,
        .window = command->subscribe.window,
        .no_ack = command->subscribe.flags & SUBSCRIBE_NO_ACK,
    };
    fake_answer(conn, command, ERR_NONE, 0, 0);
}

static void fake_queue_command(struct conn *conn, const struct command *command,
                               struct fake_queue *queue)
{
    struct fake_subscriber *subscriber;
    struct fake_message *message;
    switch (command->type) {
    case COMMAND_SUBSCRIBE:
        fake_subscribe(conn, command, queue);
        break;
    case COMMAND_CANCEL:
        subscriber = fake_subscriber(queue, command->subscribe.consumer);
        if (subscriber)
            fake_unsubscribe(queue, (uint32_t)(subscriber - queue->subscribers));
        fake_answer(conn, command, ERR_NONE, 0, 0);
        break;
    case COMMAND_WINDOW:
        subscriber = fake_subscriber(queue, command->window.consumer);
        if (subscriber)
            subscriber->unreported -= command->window.bytes;
        break;
    case COMMAND_GET:
        message = fake_first_ready(queue);
        if (message)
            fake_deliver(conn, queue, message, &command->asker, 0, command->get.no_ack);
        else
            fake_answer(conn, command, ERR_NOT_FOUND, 0, 0);
        break;
    case COMMAND_SETTLE:
    case COMMAND_RETURN:
    case COMMAND_REJECT:
        conn->settle_commands++;
        fake_resolve(queue, command);
        break;
    case COMMAND_PURGE:
        fake_answer(conn, command, ERR_NONE, fake_ready(queue), 0);
        for (uint32_t i = 0; i < queue->count; i++)
            queue->messages[i].gone |= !queue->messages[i].leased;
        break;
    case COMMAND_QUEUE_STATUS:
        fake_answer(conn, command, ERR_NONE, fake_ready(queue), queue->subscriber_count);
        break;
    case COMMAND_DELETE_QUEUE:
        fake_delete(conn, command, queue);
        return;
    default:
        break;
    }
}

/* ---- Topics ---- */

static struct fake_partition *fake_partition(struct conn *conn, uint64_t id)
{
    for (uint32_t i = 0; i < conn->partition_count; i++)
        if (conn->partitions[i].id == id)
            return &conn->partitions[i];
    uint32_t index;
    if (!catalog_partition(conn->catalog, id, &index) || conn->partition_count == FAKE_PARTITIONS)
        return NULL;
    struct fake_partition *partition = &conn->partitions[conn->partition_count++];
    *partition = (struct fake_partition){.id = id};
    return partition;
}

/* Answers the read that waits, if there is something behind its offset. */
static void fake_serve(struct conn *conn, struct fake_partition *partition)
{
    if (!partition->reading || partition->read_offset == partition->end)
        return;
    struct event event = {.type = EVENT_READ, .asker = partition->reader};
    struct entry *entries = calloc(FAKE_ENTRIES, sizeof *entries);
    assert(entries);
    event.read.end_offset = partition->end;
    if (partition->read_offset > partition->end)
        event.err = ERR_OUT_OF_RANGE;
    for (uint32_t i = 0; i < partition->count && !event.err; i++) {
        if (partition->entries[i].base + partition->entries[i].count <= partition->read_offset)
            continue;
        entries[event.read.count] = partition->entries[i];
        buf_ref(entries[event.read.count++].buf);
    }
    event.read.entries = entries;
    partition->reading = false;
    fake_event_add(conn, &event)->entries = entries;
}

/* Takes over buf, which holds one entry of `count` messages. */
static inline void fake_partition_add(struct conn *conn, uint64_t id, struct buf *buf,
                                      uint32_t count)
{
    struct fake_partition *partition = fake_partition(conn, id);
    if (!partition || partition->count == FAKE_ENTRIES) {
        buf_unref(buf);
        return;
    }
    partition->entries[partition->count++] =
        (struct entry){.base = partition->end,
                       .count = count,
                       .data = slice_make(buf->data, buf->capacity),
                       .buf = buf};
    partition->end += count;
    fake_serve(conn, partition);
}

static void fake_partition_command(struct conn *conn, const struct command *command)
{
    struct fake_partition *partition = fake_partition(conn, command->object);
    struct event gone = {.type = EVENT_READ, .err = ERR_NOT_FOUND, .asker = command->asker};
    switch (command->type) {
    case COMMAND_OFFSETS:
        fake_answer(conn, command, partition ? ERR_NONE : ERR_NOT_FOUND,
                    partition && command->offsets.query == OFFSET_LATEST ? partition->end : 0, 0);
        break;
    case COMMAND_READ:
        if (!partition) {
            fake_event_add(conn, &gone);
            break;
        }
        partition->reading = true;
        partition->reader = command->asker;
        partition->read_offset = command->read.offset;
        fake_serve(conn, partition);
        break;
    default: /* COMMAND_READ_STOP */
        if (partition && partition->reading && partition->reader.tag == command->asker.tag)
            partition->reading = false;
    }
}

void conn_command(struct conn *conn, const struct command *command)
{
    conn->commands++;
    switch (command->type) {
    case COMMAND_CATALOG:
        fake_catalog(conn, command, command->parts->root);
        parts_destroy(command->parts);
        return;
    case COMMAND_CHANNEL_GONE:
        fake_channel_gone(conn, command);
        return;
    case COMMAND_OFFSETS:
    case COMMAND_READ:
    case COMMAND_READ_STOP:
        fake_partition_command(conn, command);
        return;
    default:
        break;
    }
    struct fake_queue *queue = fake_queue(conn, command->object);
    if (queue)
        fake_queue_command(conn, command, queue);
    else if (command->asker.tag)
        fake_answer(conn, command, ERR_NOT_FOUND, 0, 0);
}

static struct buf *fake_entry(const struct publish *publish)
{
    size_t len = 0;
    for (int i = 0; i < 3; i++)
        len += publish->pieces[i].len;
    struct buf *buf = buf_create(len, 0, NULL);
    assert(buf);
    uint8_t *at = buf->data;
    for (int i = 0; i < 3; i++) {
        if (publish->pieces[i].len)
            memcpy(at, publish->pieces[i].data, publish->pieces[i].len);
        at += publish->pieces[i].len;
    }
    return buf;
}

static void fake_append(struct conn *conn, const struct publish *publish, uint64_t id)
{
    struct fake_queue *queue = fake_queue(conn, id);
    if (!queue || conn->publish_err)
        return;
    if (queue->count == queue->capacity) {
        queue->capacity = queue->capacity ? queue->capacity * 2 : 16;
        queue->messages = realloc(queue->messages, queue->capacity * sizeof *queue->messages);
        assert(queue->messages);
    }
    queue->messages[queue->count] =
        (struct fake_message){.offset = queue->count, .buf = fake_entry(publish)};
    queue->count++;
}

static void fake_published(struct conn *conn, const struct publish *publish)
{
    conn->publish_seq = publish->seq;
    if (publish->seq == 0 || conn->publish_unanswered)
        return;
    struct event event = {
        .type = EVENT_PUBLISHED, .err = conn->publish_err, .asker = {.channel = publish->channel}};
    event.first_seq = event.last_seq = publish->seq;
    fake_event_add(conn, &event);
}

uint32_t conn_publish_queue(struct conn *conn, const struct publish *publish,
                            const struct queue_def *queue)
{
    fake_append(conn, publish, queue->id);
    fake_published(conn, publish);
    return 1;
}

uint32_t conn_publish(struct conn *conn, const struct publish *publish)
{
    route_reset(&conn->targets);
    route_from_exchange(conn->catalog, publish->exchange, publish->message, &conn->targets);
    for (uint32_t i = 0; i < conn->targets.count; i++) {
        const struct route_target *target = &conn->targets.items[i];
        if (target->kind == TARGET_QUEUE)
            fake_append(conn, publish, target->queue->id);
        else
            fake_partition_add(conn, target->topic->partitions[0], fake_entry(publish), 1);
        fake_published(conn, publish);
    }
    return conn->targets.count;
}

#endif
