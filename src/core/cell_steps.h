/* For tests: steps of a story about cells, on a rig: definitions, messages, leases, batches, reads.
 * Each takes the shortest way; consumers are on channel 1 of their connection. */
#ifndef WEIR_CORE_CELL_STEPS_H
#define WEIR_CORE_CELL_STEPS_H

#include "codec/kafka_batch.h"
#include "core/cell_rig.h"

/* ---- Definitions ---- */

static inline struct event rig_request_event(struct rig *rig, struct catalog_request request)
{
    memory_pause();
    struct parts *parts = parts_create(4096);
    struct catalog_request *root = arena_alloc(&parts->arena, sizeof *root);
    memory_resume();
    *root = request;
    parts->root = root;
    return rig_ask(rig, (struct command){
                            .type = COMMAND_CATALOG, .asker.conn = request.owner, .parts = parts});
}

/* It holds; returns the id that it is about. */
static inline uint64_t rig_request(struct rig *rig, struct catalog_request request)
{
    struct event event = rig_request_event(rig, request);
    assert_int_equal(event.err, ERR_NONE);
    return event.value;
}

#define rig_args(...)                                                                              \
    (struct args)                                                                                  \
    {                                                                                              \
        (const struct arg[]){__VA_ARGS__},                                                         \
            sizeof((const struct arg[]){__VA_ARGS__}) / sizeof(struct arg)                         \
    }

static inline struct arg rig_int(const char *name, int64_t number)
{
    return (struct arg){
        .name = slice_of(name), .kind = ARG_INT, .wire_type = 'I', .number = number};
}

static inline struct arg rig_text(const char *name, const char *text)
{
    return (struct arg){
        .name = slice_of(name), .kind = ARG_TEXT, .wire_type = 'S', .text = slice_of(text)};
}

static inline struct arg rig_flag(const char *name, bool value)
{
    return (struct arg){
        .name = slice_of(name), .kind = ARG_BOOL, .wire_type = 't', .number = value};
}

static inline uint64_t rig_queue(struct rig *rig, const char *name, struct args args)
{
    return rig_request(rig, (struct catalog_request){.op = CATALOG_DECLARE_QUEUE,
                                                     .name = slice_of(name),
                                                     .durable = true,
                                                     .args = args});
}

static inline uint64_t rig_plain_queue(struct rig *rig, const char *name)
{
    return rig_queue(rig, name, (struct args){0});
}

/* The id of the topic's first partition. */
static inline uint64_t rig_topic(struct rig *rig, const char *name, struct args args)
{
    struct catalog_request request = {.op = CATALOG_CREATE_TOPIC,
                                      .name = slice_of(name),
                                      .partitions = 1,
                                      .durable = true,
                                      .args = args};
    memcpy(request.uuid, name, strlen(name) < 16 ? strlen(name) : 16);
    rig_request(rig, request);
    return catalog_topic(rig->catalog, 0, slice_of(name))->partitions[0];
}

static inline void rig_bind(struct rig *rig, const char *source, enum target_kind kind,
                            const char *target, const char *key)
{
    rig_request(rig, (struct catalog_request){.op = CATALOG_BIND,
                                              .name = slice_of(source),
                                              .target_kind = kind,
                                              .target = slice_of(target),
                                              .key = slice_of(key)});
}

/* ---- Messages ---- */

struct rig_message {
    const char *text;
    bool transient;
    int64_t expiry_ms; /* from now; 0: none */
    uint64_t conn;     /* wants a confirm; 0: none */
    size_t padding;    /* zeroes behind the text */
};

/* Publishes to some objects of one cell; returns the sequence number of the confirm. */
static inline uint64_t rig_publish_to(struct rig *rig, const uint64_t *targets, uint32_t count,
                                      struct rig_message message)
{
    rig_times(rig);
    size_t text = strlen(message.text);
    size_t len = ENTRY_HEAD_BYTES + 2 + strlen("key") + 4 + 2 + text + message.padding;
    memory_pause();
    uint8_t *bytes = calloc(1, len);
    memory_resume();
    int64_t expiry_ms = message.expiry_ms == 0 ? 0 : sim_wall_ms(rig->sim) + message.expiry_ms;
    entry_head_put(bytes, &(struct entry_head){.timestamp_ms = sim_wall_ms(rig->sim),
                                               .expiry_ms = expiry_ms,
                                               .form = ENTRY_AMQP,
                                               .flags = message.transient ? 0 : ENTRY_PERSISTENT});
    uint8_t *at = bytes + ENTRY_HEAD_BYTES;
    *at++ = 0; /* exchange "" */
    *at++ = 3;
    memcpy(at, "key", 3);
    at += 3;
    be32_put(at, 2); /* no properties */
    at += 4 + 2;
    memcpy(at, message.text, text);
    struct cell_publish publish = {
        .persistent = !message.transient,
        .expiry_ms = expiry_ms,
        .targets = targets,
        .target_count = count,
        .pieces = {slice_make(bytes, 10), slice_make(bytes + 10, len - 10)}};
    if (message.conn != 0) {
        publish.asker = (struct asker){.conn = message.conn, .channel = 1};
        publish.seq = ++rig->seq;
    }
    cell_publish(rig_cell(rig, targets[0]), &publish);
    free(bytes);
    sim_wake(rig->sim, 0);
    return publish.seq;
}

static inline void rig_publish(struct rig *rig, uint64_t queue, const char *text)
{
    rig_publish_to(rig, &queue, 1, (struct rig_message){.text = text});
}

/* Publishes texts "0", "1", ... of that run. */
static inline void rig_publish_run(struct rig *rig, uint64_t queue, int first, int last)
{
    for (int i = first; i <= last; i++) {
        char text[16];
        snprintf(text, sizeof text, "%d", i);
        rig_publish(rig, queue, text);
    }
}

/* How the publish with that number was answered; ERR_AGAIN: not yet. */
static inline enum err rig_confirmed(struct rig *rig, uint64_t conn, uint64_t seq)
{
    list_each(node, &rig->events)
    {
        const struct event *event = &list_entry(node, struct rig_event, link)->event;
        if (event->type == EVENT_PUBLISHED && event->asker.conn == conn &&
            event->first_seq <= seq && seq <= event->last_seq)
            return event->err;
    }
    return ERR_AGAIN;
}

/* Channel 1 of the connection subscribes as that consumer. */
static inline void rig_subscribe(struct rig *rig, uint64_t queue, uint64_t conn, uint64_t consumer,
                                 uint32_t prefetch, uint8_t flags)
{
    struct event event = rig_ask(
        rig, (struct command){
                 .type = COMMAND_SUBSCRIBE,
                 .asker = {.conn = conn, .channel = 1},
                 .object = queue,
                 .subscribe = {.consumer = consumer, .prefetch = prefetch, .flags = flags}});
    assert_int_equal(event.err, ERR_NONE);
    rig_run(rig, 1);
}

/* SETTLE, RETURN or REJECT of a run of leases of channel 1. */
static inline void rig_resolve(struct rig *rig, enum command_type type, uint64_t queue,
                               uint64_t conn, uint64_t first, uint64_t last)
{
    struct offset_range range = {first, last};
    rig_tell(rig, (struct command){.type = type,
                                   .asker = {.conn = conn, .channel = 1},
                                   .object = queue,
                                   .data = slice_make(&range, sizeof range)});
    rig_run(rig, 1);
}

static inline void rig_settle(struct rig *rig, uint64_t queue, uint64_t conn, uint64_t first,
                              uint64_t last)
{
    rig_resolve(rig, COMMAND_SETTLE, queue, conn, first, last);
}

static inline void rig_conn_gone(struct rig *rig, uint64_t conn)
{
    rig_times(rig);
    for (uint32_t i = 0; i < rig->cells; i++) {
        struct command command = {.type = COMMAND_CONN_GONE, .asker.conn = conn, .object = i};
        cell_command(rig->cell[i], &command);
    }
    rig_run(rig, 1);
}

/* Ready messages; *consumers may be NULL. */
static inline uint64_t rig_ready(struct rig *rig, uint64_t queue, uint64_t *consumers)
{
    struct queue *at = map_get(&rig_cell(rig, queue)->queues, queue);
    assert_non_null(at);
    if (consumers != NULL)
        *consumers = at->consumers;
    return queue_ready(at);
}

static inline bool rig_has_queue(struct rig *rig, uint64_t queue)
{
    return map_get(&rig_cell(rig, queue)->queues, queue) != NULL;
}

/* GET by channel 1; NULL when the queue is empty. */
static inline const struct delivery *rig_get(struct rig *rig, uint64_t queue, uint64_t conn,
                                             bool no_ack, const char *text)
{
    rig_tell(rig, (struct command){.type = COMMAND_GET,
                                   .asker = {.conn = conn, .channel = 1, .tag = ++rig->tag},
                                   .object = queue,
                                   .get.no_ack = no_ack});
    rig_run(rig, 5);
    if (text != NULL)
        return rig_got(rig, conn, text);
    struct rig_event *event = rig_next(rig, EVENT_ANSWER, conn);
    assert_non_null(event);
    assert_int_equal(event->event.err, ERR_NOT_FOUND);
    return NULL;
}

/* ---- State ---- */

/* What a queue owes that a restart keeps: offsets and returns, as text. */
static inline void rig_owed(struct rig *rig, uint64_t id, char *out, size_t room)
{
    const struct queue *queue = map_get(&rig_cell(rig, id)->queues, id);
    assert_non_null(queue);
    const struct ledger *ledger = &queue->ledger;
    size_t used = (size_t)snprintf(
        out, room, "durable bytes %llu:", (unsigned long long)ledger->durable_bytes);
    for (uint64_t i = ledger->stream.first; i < ledger->stream.next; i++) {
        if (ledger_is_settled(ledger, i) || ledger_is_fleeting(ledger, i))
            continue;
        used += (size_t)snprintf(out + used, room - used, " %llu*%u", (unsigned long long)i,
                                 ledger_returns(ledger, i));
        assert_true(used < room);
    }
}

/* ---- Partitions ---- */

struct rig_batch {
    int64_t producer_id;
    int32_t sequence;
    int16_t epoch;
    int count;          /* records; 0 is 1 */
    size_t value_bytes; /* of each */
    bool early;         /* answered before the commit */
    int64_t time_ms;
};

static inline struct command rig_append_command(struct rig *rig, uint64_t partition,
                                                struct rig_batch batch, uint8_t *memory,
                                                size_t room)
{
    static const uint8_t value[4096];
    struct kafka_batch_builder builder;
    int64_t time_ms = batch.time_ms != 0 ? batch.time_ms : sim_wall_ms(rig->sim);
    kafka_batch_begin(&builder, memory, room);
    int count = batch.count == 0 ? 1 : batch.count;
    for (int i = 0; i < count; i++)
        assert_true(kafka_batch_add(&builder, time_ms, (struct slice){0},
                                    slice_make(value, batch.value_bytes), NULL, 0));
    return (struct command){.type = COMMAND_APPEND,
                            .asker = {.conn = 1, .tag = ++rig->tag},
                            .object = partition,
                            .append = {.producer_id = batch.producer_id,
                                       .producer_epoch = batch.epoch,
                                       .base_sequence = batch.sequence,
                                       .count = (uint32_t)count,
                                       .max_time_ms = time_ms,
                                       .wait_commit = !batch.early},
                            .data = kafka_batch_end(&builder)};
}

/* Appends a batch; returns its answer. */
static inline struct event rig_produce(struct rig *rig, uint64_t partition, struct rig_batch batch)
{
    static uint8_t memory[1 << 20];
    return rig_ask(rig, rig_append_command(rig, partition, batch, memory, sizeof memory));
}

struct rig_read {
    uint64_t offset;
    uint32_t min_bytes, max_bytes; /* 0: 1 MiB */
    int64_t wait_ms;
};

/* Starts a read of connection `conn`. */
static inline uint64_t rig_read_start(struct rig *rig, uint64_t partition, uint64_t conn,
                                      struct rig_read read)
{
    uint64_t tag = ++rig->tag;
    rig_tell(rig,
             (struct command){.type = COMMAND_READ,
                              .asker = {.conn = conn, .tag = tag},
                              .object = partition,
                              .read = {.offset = read.offset,
                                       .min_bytes = read.min_bytes,
                                       .max_bytes = read.max_bytes == 0 ? 1 << 20 : read.max_bytes,
                                       .deadline_ms = sim_now_ms(rig->sim) + read.wait_ms}});
    sim_wake(rig->sim, 0);
    return tag;
}

/* The answer of a read within a second. */
static inline const struct rig_event *rig_read(struct rig *rig, uint64_t partition,
                                               struct rig_read read)
{
    rig_read_start(rig, partition, 77, read);
    rig_run(rig, 1000);
    const struct rig_event *event = rig_next(rig, EVENT_READ, 77);
    assert_non_null(event);
    assert_null(rig_next(rig, EVENT_READ, 77));
    return event;
}

#endif
