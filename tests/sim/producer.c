/* An idempotent producer: keeps up to five batches per partition under way and sends them again,
 * with their sequences, when the answer was lost or is late, until each is acknowledged. */
#include "clients_inside.h"

#include "codec/entry.h"
#include "codec/kafka_batch.h"

#include <string.h>

enum { BATCH_BYTES = KAFKA_BATCH_HEADER_BYTES + MODEL_BODY_MAX + 256, NUMBER_AT = 27 };

static uint32_t record_count(const struct model *model, uint32_t n)
{
    return model->batches[n].message > 0 ? 1 : 1 + n % 3;
}

/* The batch as it is sent: its number stands in the base timestamp. */
static struct slice make_batch(const struct model *model, uint32_t n, uint8_t bytes[BATCH_BYTES])
{
    struct kafka_batch_builder builder;
    const struct batch *batch = &model->batches[n];
    uint8_t body[MODEL_BODY_MAX];
    size_t len = model_body(batch->message > 0 ? batch->message - 1 : n, body);
    kafka_batch_begin(&builder, bytes, BATCH_BYTES);
    bool fits = kafka_batch_add(&builder, n, slice_make("k", 1), slice_make(body, len), NULL, 0);
    for (uint32_t i = 1; i < record_count(model, n) && fits; i++)
        fits = kafka_batch_add(&builder, n, slice_make("k", 1), slice_make("more", 4), NULL, 0);
    return fits ? kafka_batch_end(&builder) : (struct slice){0};
}

uint32_t producer_identify(const struct model *model, struct slice entry)
{
    uint8_t bytes[BATCH_BYTES];
    if (entry.len < ENTRY_HEAD_BYTES + KAFKA_BATCH_HEADER_BYTES)
        return UINT32_MAX;
    const uint8_t *data = entry.data + ENTRY_HEAD_BYTES;
    size_t len = entry.len - ENTRY_HEAD_BYTES;
    uint64_t n = be64_get(data + NUMBER_AT);
    if (n >= model->batch_count)
        return UINT32_MAX;
    struct slice made = make_batch(model, (uint32_t)n, bytes);
    size_t prefix = KAFKA_BATCH_PREFIX_BYTES + 4; /* base offset, length, leader's epoch */
    bool same = made.len == len && memcmp(made.data + prefix, data + prefix, len - prefix) == 0;
    return same ? (uint32_t)n : UINT32_MAX;
}

static void send_batch(struct producer *self, uint32_t partition, struct in_window *item)
{
    const struct model *model = self->clients->model;
    uint8_t bytes[BATCH_BYTES];
    struct command command = {
        .type = COMMAND_APPEND,
        .asker = {.tag = ((uint64_t)item->n << 8) | partition},
        .object = model->partitions[partition].id,
        .data = make_batch(model, item->n, bytes),
    };
    command.append.producer_id = self->number;
    command.append.base_sequence = item->sequence;
    command.append.count = record_count(model, item->n);
    command.append.max_time_ms = model->batches[item->n].time_ms;
    command.append.wait_commit = true;
    self->clients->world->totals->retried += item->sent;
    item->sent = true;
    world_tell(self->probe.world, "%s appends batch %u to partition %u, sequence %d",
               self->probe.name, item->n, partition, item->sequence);
    conn_command(self->probe.conn, &command);
}

static void send_window(struct producer *self, uint32_t partition)
{
    for (uint32_t i = 0; i < self->window_count[partition]; i++) {
        struct in_window *item = &self->window[partition][i];
        if (!self->clients->model->batches[item->n].acked)
            send_batch(self, partition, item);
    }
}

static void opened(struct probe *probe)
{
    struct producer *self = (struct producer *)probe;
    for (uint32_t partition = 0; partition < MODEL_PARTITIONS; partition++)
        send_window(self, partition);
}

/* Its record goes to a queue, too, and is a message there. */
static bool make_message(struct producer *self, struct batch *batch)
{
    uint8_t queue = QUEUE_ROUTED;
    uint32_t number;
    struct message *message =
        model_publish(self->clients->model, (uint16_t)(PUBLISHERS + CONSUMERS + self->number),
                      &queue, 1, &number);
    if (message == NULL)
        return false;
    message->persistent = message->routed = true;
    batch->message = number + 1;
    return true;
}

static void append(struct producer *self, uint32_t partition)
{
    struct model *model = self->clients->model;
    uint32_t i = self->window_count[partition], n;
    struct batch *batch = model_append(model, self->number, partition, &n);
    if (batch == NULL)
        return;
    bool routed = partition / MODEL_TOPIC_PARTITIONS == TOPIC_ROUTED;
    if (routed && !make_message(self, batch)) {
        model->batch_count--;
        return;
    }
    uint8_t bytes[BATCH_BYTES];
    batch->bytes = (uint32_t)(ENTRY_HEAD_BYTES + make_batch(model, n, bytes).len);
    self->window[partition][i] =
        (struct in_window){.n = n, .sequence = self->next_sequence[partition]};
    self->next_sequence[partition] += (int32_t)record_count(model, n);
    self->window_count[partition]++;
    self->clients->world->totals->appended++;
    send_batch(self, partition, &self->window[partition][i]);
}

static void act(struct probe *probe)
{
    struct producer *self = (struct producer *)probe;
    struct world *world = probe->world;
    uint32_t partition = world_random(world, MODEL_PARTITIONS);
    uint32_t count = self->window_count[partition];
    bool unsent = false;
    for (uint32_t i = 0; i < count; i++)
        unsent = unsent || !self->window[partition][i].sent;
    if (!self->clients->working) {
        for (partition = 0; partition < MODEL_PARTITIONS; partition++)
            send_window(self, partition);
    } else if (unsent || (count > 0 && world_random(world, 6) == 0)) {
        send_window(self, partition);
    } else {
        /* The broker takes any sequence for the first: more only once that is there. */
        uint32_t window = self->known[partition] ? PRODUCER_WINDOW : 1;
        for (; count < window && world_random(world, 3) != 0; count++)
            append(self, partition);
    }
}

static struct in_window *find(struct producer *self, uint32_t partition, uint32_t n)
{
    for (uint32_t i = 0; i < self->window_count[partition]; i++) {
        if (self->window[partition][i].n == n)
            return &self->window[partition][i];
    }
    return NULL;
}

/* Those at the window's start leave it; what lies behind one that is open waits for it. */
static void move_window(struct producer *self, uint32_t partition)
{
    const struct model *model = self->clients->model;
    struct in_window *window = self->window[partition];
    uint32_t *count = &self->window_count[partition], left = 0;
    while (left < *count && model->batches[window[left].n].acked)
        left++;
    *count -= left;
    memmove(window, window + left, *count * sizeof *window);
}

static void refused(struct producer *self, uint32_t partition, uint32_t n, struct in_window *item,
                    enum err err)
{
    struct world *world = self->probe.world;
    const struct model *model = self->clients->model;
    if (item == NULL && (err == ERR_DUPLICATE || err == ERR_OUT_OF_ORDER))
        return; /* an old one, sent again */
    if (item != NULL && item != self->window[partition] && err == ERR_OUT_OF_ORDER)
        item->sent = false; /* one before it was refused */
    else if (world_excuses(world, err)) {
        if (item != NULL)
            item->sent = false;
    } else {
        world_wrong(world, "batch %u of producer %u for partition %u at %lld: %s", n, self->number,
                    partition, (long long)model->batches[n].offset, err_text(err));
    }
}

static void event(struct probe *probe, const struct event *event)
{
    struct producer *self = (struct producer *)probe;
    struct model *model = self->clients->model;
    struct world *world = probe->world;
    if (event->type != EVENT_ANSWER)
        return;
    uint32_t n = (uint32_t)(event->asker.tag >> 8), partition = event->asker.tag & 0xff;
    struct batch *batch = &model->batches[n];
    struct in_window *item = batch->acked ? NULL : find(self, partition, n);
    world_tell(world, "%s: batch %u: %s, offset %lld", probe->name, n,
               event->err == ERR_NONE ? "acknowledged" : err_text(event->err),
               (long long)event->value);
    if (event->err != ERR_NONE) {
        refused(self, partition, n, item, event->err);
        return;
    }
    if (batch->acked && batch->offset != (int64_t)event->value)
        world_wrong(world, "batch %u was at offset %lld and is now at %llu", n,
                    (long long)batch->offset, (unsigned long long)event->value);
    batch->offset = (int64_t)event->value;
    if (batch->acked)
        return;
    batch->acked = true;
    self->known[partition] = true;
    world->totals->acked++;
    if (batch->message > 0) {
        model->messages[batch->message - 1].confirmed = true;
        world->totals->routed++;
    }
    move_window(self, partition);
}

bool producer_is_done(const struct producer *producer)
{
    for (uint32_t partition = 0; partition < MODEL_PARTITIONS; partition++) {
        if (producer->window_count[partition] > 0)
            return false;
    }
    return true;
}

static void nothing(struct probe *probe)
{
    (void)probe;
}

void producer_init(struct producer *producer, uint16_t number)
{
    static const char *const names[PRODUCERS] = {"producer 0", "producer 1"};
    producer->number = number;
    producer->probe.name = names[number];
    producer->probe.opened = opened;
    producer->probe.act = act;
    producer->probe.event = event;
    producer->probe.lost = nothing;
}
