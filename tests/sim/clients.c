/* Each client is a probe with a small state of its own; one at a time acts, at random. */
#include "clients.h"

#include "base/endian.h"
#include "codec/entry.h"
#include "codec/kafka_batch.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PUBLISHERS = 3,
    CONSUMERS = 3,
    PRODUCERS = 2,
    OUTSTANDING_MAX = 30,
    LEASES_MAX = 64,
    PRODUCER_WINDOW = 5,
    OFFSETS_MAX = 1 << 13,
};

struct publisher {
    struct probe probe; /* first member */
    struct clients *clients;
    uint16_t number;
    uint64_t seq;                          /* of this connection */
    uint32_t outstanding[OUTSTANDING_MAX]; /* message numbers */
    uint64_t outstanding_seq[OUTSTANDING_MAX];
    uint32_t count;
};

struct held {
    uint32_t n;
    uint64_t offset;
};

struct consumer {
    struct publisher publisher; /* first member: publishes markers */
    uint32_t queue;
    bool subscribed, draining, no_ack;
    struct held held[LEASES_MAX];
    uint32_t held_count;
    /* Settled since the marker that is under way, or the one before it. */
    uint32_t settled[256], settled_count, marked_count;
    uint32_t marker; /* message number + 1 */
    uint64_t drained;
    uint32_t last_by_publisher[16];
};

struct producer {
    struct probe probe;
    struct clients *clients;
    uint16_t number;
    int32_t next_sequence[MODEL_PARTITIONS];
    struct {
        uint32_t n;
        int32_t sequence;
    } window[MODEL_PARTITIONS][PRODUCER_WINDOW];
    uint32_t window_count[MODEL_PARTITIONS];
    /* Reading */
    uint64_t read_at[MODEL_PARTITIONS];
    bool reading, checking;
    uint32_t at_end; /* partitions read to their end */
    uint32_t last_n[MODEL_PARTITIONS][16];
};

struct administrator {
    struct probe probe;
    struct clients *clients;
    uint32_t asked, answered;
};

struct clients {
    struct world *world;
    struct model *model;
    struct publisher publishers[PUBLISHERS];
    struct consumer consumers[CONSUMERS];
    struct producer producers[PRODUCERS];
    struct administrator administrator;
    uint32_t known[MODEL_PARTITIONS][OFFSETS_MAX]; /* n + 1 of the batch once seen at an offset */
    bool working;
};

/* ---- Publishing ---- */

static size_t make_entry(uint32_t n, bool persistent, const char *queue, uint8_t *head)
{
    entry_head_put(head, &(struct entry_head){.timestamp_ms = n,
                                              .form = ENTRY_AMQP,
                                              .flags = persistent ? ENTRY_PERSISTENT : 0});
    uint8_t *at = head + ENTRY_HEAD_BYTES;
    size_t key = strlen(queue);
    *at++ = 0; /* exchange "" */
    *at++ = (uint8_t)key;
    memcpy(at, queue, key);
    at += key;
    be32_put(at, 2);
    at += 4;
    be16_put(at, 0); /* no properties */
    return (size_t)(at + 2 - head);
}

/* Publishes a message into a queue; returns its number, or UINT32_MAX. */
static uint32_t publish(struct publisher *self, uint32_t queue, bool persistent)
{
    struct model *model = self->clients->model;
    struct conn *conn = self->probe.conn;
    if (model->message_count == MODEL_MESSAGES_MAX || self->count == OUTSTANDING_MAX)
        return UINT32_MAX;
    const struct queue_def *def = catalog_queue_by_id(conn_catalog(conn), model->queues[queue]);
    if (def == NULL) {
        world_wrong(model->world, "queue %u is gone", queue);
        return UINT32_MAX;
    }
    uint32_t n = model->message_count++;
    model->messages[n] = (struct message){
        .publisher = self->number, .queue = (uint8_t)queue, .persistent = persistent};
    char name[8];
    snprintf(name, sizeof name, "q%u", queue);
    uint8_t head[64], body[MODEL_BODY_MAX];
    struct route_message message = {.key = slice_of(name)};
    struct publish request = {
        .channel = 1,
        .seq = ++self->seq,
        .persistent = persistent,
        .message = &message,
    };
    request.pieces[0] = slice_make(head, make_entry(n, persistent, name, head));
    request.pieces[1] = slice_make(body, model_body(n, body));
    self->outstanding[self->count] = n;
    self->outstanding_seq[self->count++] = self->seq;
    model->published++;
    conn_publish_queue(conn, &request, def);
    return n;
}

static void confirmed(struct publisher *self, const struct event *event)
{
    struct model *model = self->clients->model;
    for (uint32_t i = 0; i < self->count;) {
        if (self->outstanding_seq[i] < event->first_seq ||
            self->outstanding_seq[i] > event->last_seq) {
            i++;
            continue;
        }
        struct message *message = &model->messages[self->outstanding[i]];
        if (event->err == ERR_NONE) {
            message->confirmed = true;
            model->confirmed++;
        } else {
            message->refused = true;
        }
        self->count--;
        self->outstanding[i] = self->outstanding[self->count];
        self->outstanding_seq[i] = self->outstanding_seq[self->count];
    }
}

static void publisher_act(struct probe *probe)
{
    struct publisher *self = (struct publisher *)probe;
    struct world *world = probe->world;
    if (!self->clients->working)
        return;
    uint64_t burst = sim_random(world->sim, 6);
    for (uint64_t i = 0; i < burst; i++)
        publish(self, (uint32_t)sim_random(world->sim, MODEL_QUEUES),
                sim_random(world->sim, 4) != 0);
}

static void publisher_event(struct probe *probe, const struct event *event)
{
    if (event->type == EVENT_PUBLISHED)
        confirmed((struct publisher *)probe, event);
}

static void publisher_reset(struct probe *probe)
{
    struct publisher *self = (struct publisher *)probe;
    self->count = 0;
    self->seq = 0;
}

/* ---- Consuming ---- */

static void consumer_opened(struct probe *probe)
{
    struct consumer *self = (struct consumer *)probe;
    struct world *world = probe->world;
    publisher_reset(probe);
    if (self->draining) {
        /* Cut off in the middle: what it had is delivered again. */
        model_forget_drained(self->publisher.clients->model, self->queue);
        self->drained++; /* all of it comes again: the drain is not over */
        memset(self->last_by_publisher, 0, sizeof self->last_by_publisher);
    }
    self->held_count = 0;
    self->settled_count = self->marked_count = self->marker = 0;
    self->no_ack = !self->draining && sim_random(world->sim, 8) == 0;
    struct command command = {
        .type = COMMAND_SUBSCRIBE,
        .asker = {.channel = 1, .tag = 1},
        .object = self->publisher.clients->model->queues[self->queue],
    };
    command.subscribe.consumer = 7;
    command.subscribe.prefetch = self->draining ? 0 : 1 + (uint32_t)sim_random(world->sim, 20);
    command.subscribe.flags = self->no_ack ? SUBSCRIBE_NO_ACK : 0;
    conn_command(probe->conn, &command);
    self->subscribed = true;
}

/* What was on its way to a consumer that does not acknowledge is gone with its connection. */
static void lose_unacknowledged(const struct consumer *self)
{
    struct model *model = self->publisher.clients->model;
    for (uint32_t n = 0; n < model->message_count; n++) {
        struct message *message = &model->messages[n];
        if (message->queue == self->queue ||
            (self->queue == 0 && model->dead_letters[message->queue]))
            message->may_be_lost = true;
    }
}

static void consumer_lost(struct probe *probe)
{
    publisher_reset(probe);
    if (((struct consumer *)probe)->no_ack)
        lose_unacknowledged((struct consumer *)probe);
    ((struct consumer *)probe)->subscribed = false;
}

static void resolve(struct consumer *self, enum command_type type)
{
    struct model *model = self->publisher.clients->model;
    struct world *world = model->world;
    if (self->held_count == 0)
        return;
    uint32_t i = (uint32_t)sim_random(world->sim, self->held_count);
    struct held held = self->held[i];
    self->held[i] = self->held[--self->held_count];
    struct offset_range range = {held.offset, held.offset};
    struct message *message = &model->messages[held.n];
    if (type == COMMAND_SETTLE || (type == COMMAND_REJECT && !model->dead_letters[self->queue])) {
        message->settle_sent = true;
        model->settled++;
        if (message->queue == self->queue && message->persistent && self->settled_count < 256)
            self->settled[self->settled_count++] = held.n;
    }
    struct command command = {
        .type = type,
        .asker = {.channel = 1},
        .object = model->queues[self->queue],
        .data = slice_make(&range, sizeof range),
    };
    conn_command(self->publisher.probe.conn, &command);
}

static void consumer_act(struct probe *probe)
{
    struct consumer *self = (struct consumer *)probe;
    struct world *world = probe->world;
    if (!self->publisher.clients->working || self->draining)
        return;
    for (uint64_t i = sim_random(world->sim, 8); i > 0; i--) {
        uint64_t dice = sim_random(world->sim, 10);
        resolve(self, dice < 6 ? COMMAND_SETTLE : dice < 8 ? COMMAND_RETURN : COMMAND_REJECT);
    }
    if (self->marker == 0 && self->settled_count > 0 && sim_random(world->sim, 4) == 0) {
        uint32_t n = publish(&self->publisher, self->queue, true);
        if (n != UINT32_MAX) {
            self->marker = n + 1;
            self->marked_count = self->settled_count;
        }
    }
}

static void marker_confirmed(struct consumer *self)
{
    struct model *model = self->publisher.clients->model;
    if (self->marker == 0 || !model->messages[self->marker - 1].confirmed)
        return;
    for (uint32_t i = 0; i < self->marked_count; i++)
        model->messages[self->settled[i]].settle_safe = true;
    self->settled_count -= self->marked_count;
    memmove(self->settled, self->settled + self->marked_count,
            self->settled_count * sizeof *self->settled);
    self->marked_count = self->marker = 0;
}

static void delivered(struct consumer *self, const struct delivery *delivery)
{
    struct model *model = self->publisher.clients->model;
    struct world *world = model->world;
    struct slice entry = delivery->entry;
    uint32_t body = entry_body_bytes(entry);
    uint32_t n = model_identify(slice_make(entry.data + entry.len - body, body));
    model->delivered++;
    if (self->draining) {
        self->drained++;
        model_drained(model, self->queue, n, self->last_by_publisher);
        return;
    }
    if (n >= model->message_count) {
        world_wrong(world, "queue %u delivered bytes that nobody published", self->queue);
        return;
    }
    struct message *message = &model->messages[n];
    if (message->settle_safe && message->queue == self->queue)
        world_wrong(world, "message %u was settled for good and is delivered again", n);
    if (self->no_ack) {
        message->settle_sent = true;
        return;
    }
    if (self->held_count == LEASES_MAX)
        world_wrong(world, "more leases than the prefetch allows");
    else
        self->held[self->held_count++] = (struct held){n, delivery->offset};
}

static void consumer_event(struct probe *probe, const struct event *event)
{
    struct consumer *self = (struct consumer *)probe;
    if (event->type == EVENT_PUBLISHED) {
        confirmed(&self->publisher, event);
        marker_confirmed(self);
    } else if (event->type == EVENT_DELIVER) {
        delivered(self, &event->deliver);
    } else if (event->type == EVENT_ANSWER && event->err != ERR_NONE) {
        world_wrong(probe->world, "subscribing to queue %u: %s", self->queue, err_text(event->err));
    }
}

/* ---- Topics ---- */

static void send_batch(struct producer *self, uint32_t partition, uint32_t i)
{
    uint8_t batch[KAFKA_BATCH_HEADER_BYTES + MODEL_BODY_MAX] = {0};
    uint32_t n = self->window[partition][i].n;
    size_t len = KAFKA_BATCH_HEADER_BYTES + model_body(n, batch + KAFKA_BATCH_HEADER_BYTES);
    struct command command = {
        .type = COMMAND_APPEND,
        .asker = {.tag = ((uint64_t)n << 8) | partition},
        .object = self->clients->model->partitions[partition],
        .data = slice_make(batch, len),
    };
    command.append.producer_id = self->number;
    command.append.base_sequence = self->window[partition][i].sequence;
    command.append.count = 1 + n % 3;
    command.append.max_time_ms = n;
    command.append.wait_commit = true;
    conn_command(self->probe.conn, &command);
}

static void read_more(struct producer *self, uint32_t partition)
{
    struct command command = {
        .type = COMMAND_READ,
        .asker = {.tag = (UINT64_C(1) << 48) | partition},
        .object = self->clients->model->partitions[partition],
    };
    command.read.offset = self->read_at[partition];
    command.read.max_bytes = 4096;
    command.read.min_bytes = self->checking ? 0 : 1;
    command.read.deadline_ms = conn_now_ms(self->probe.conn) + 20;
    conn_command(self->probe.conn, &command);
}

static void producer_opened(struct probe *probe)
{
    struct producer *self = (struct producer *)probe;
    if (self->checking) {
        self->at_end = 0;
        model_forget_seen(self->clients->model);
    }
    for (uint32_t partition = 0; partition < MODEL_PARTITIONS; partition++) {
        for (uint32_t i = 0; i < self->window_count[partition]; i++)
            send_batch(self, partition, i);
        self->read_at[partition] = 0;
        memset(self->last_n[partition], 0, sizeof self->last_n[partition]);
        read_more(self, partition);
    }
}

static void producer_act(struct probe *probe)
{
    struct producer *self = (struct producer *)probe;
    struct model *model = self->clients->model;
    struct world *world = probe->world;
    if (!self->clients->working || self->checking)
        return;
    uint32_t partition = (uint32_t)sim_random(world->sim, MODEL_PARTITIONS);
    uint32_t i = self->window_count[partition];
    if (i == PRODUCER_WINDOW || model->batch_count == MODEL_MESSAGES_MAX)
        return;
    uint32_t n = model->batch_count++;
    model->batches[n] =
        (struct batch){.producer = self->number, .partition = (uint8_t)partition, .offset = -1};
    self->window[partition][i].n = n;
    self->window[partition][i].sequence = self->next_sequence[partition];
    self->next_sequence[partition] += (int32_t)(1 + n % 3);
    self->window_count[partition]++;
    model->appended++;
    send_batch(self, partition, i);
}

static void batch_answered(struct producer *self, const struct event *event)
{
    struct model *model = self->clients->model;
    uint32_t n = (uint32_t)(event->asker.tag >> 8), partition = event->asker.tag & 0xff;
    if (event->err != ERR_NONE) {
        world_wrong(model->world, "batch %u of producer %u: %s", n, self->number,
                    err_text(event->err));
        return;
    }
    struct batch *batch = &model->batches[n];
    if (batch->acked && batch->offset != (int64_t)event->value)
        world_wrong(model->world, "batch %u was at offset %lld and is now at %llu", n,
                    (long long)batch->offset, (unsigned long long)event->value);
    batch->acked = true;
    batch->offset = (int64_t)event->value;
    model->acked++;
    for (uint32_t i = 0; i < self->window_count[partition]; i++) {
        if (self->window[partition][i].n != n)
            continue;
        self->window_count[partition]--;
        memmove(&self->window[partition][i], &self->window[partition][i + 1],
                (self->window_count[partition] - i) * sizeof self->window[partition][0]);
        break;
    }
}

static void saw_entry(struct producer *self, uint32_t partition, const struct entry *entry)
{
    struct model *model = self->clients->model;
    struct world *world = model->world;
    size_t skip = ENTRY_HEAD_BYTES + KAFKA_BATCH_HEADER_BYTES;
    uint32_t n = entry->data.len > skip
                     ? model_identify(slice_make(entry->data.data + skip, entry->data.len - skip))
                     : UINT32_MAX;
    if (n >= model->batch_count || entry->base >= OFFSETS_MAX) {
        world_wrong(world, "partition %u has something at %llu that nobody appended", partition,
                    (unsigned long long)entry->base);
        return;
    }
    uint32_t *known = &self->clients->known[partition][entry->base];
    if (*known != 0 && *known != n + 1)
        world_wrong(world, "offset %llu of partition %u was batch %u and is now %u",
                    (unsigned long long)entry->base, partition, *known - 1, n);
    *known = n + 1;
    struct batch *batch = &model->batches[n];
    if (batch->acked && batch->offset != (int64_t)entry->base)
        world_wrong(world, "batch %u was acknowledged at %lld and stands at %llu", n,
                    (long long)batch->offset, (unsigned long long)entry->base);
    uint32_t *last = &self->last_n[partition][batch->producer];
    if (*last > n + 1)
        world_wrong(world, "partition %u: batch %u of producer %u stands behind %u", partition, n,
                    batch->producer, *last - 1);
    *last = n + 1;
    if (self->checking)
        batch->seen++;
}

static void read_answered(struct producer *self, const struct event *event)
{
    uint32_t partition = event->asker.tag & 0xff;
    struct world *world = self->probe.world;
    if (event->err != ERR_NONE)
        world_wrong(world, "reading partition %u at %llu: %s", partition,
                    (unsigned long long)self->read_at[partition], err_text(event->err));
    for (uint32_t i = 0; i < event->read.count; i++) {
        const struct entry *entry = &event->read.entries[i];
        saw_entry(self, partition, entry);
        self->read_at[partition] = entry->base + entry->count;
        conn_release(self->probe.conn, entry->buf);
    }
    if (self->checking && event->read.count == 0) {
        self->at_end++;
        return;
    }
    read_more(self, partition);
}

static void producer_event(struct probe *probe, const struct event *event)
{
    struct producer *self = (struct producer *)probe;
    if (event->type == EVENT_READ)
        read_answered(self, event);
    else if (event->type == EVENT_ANSWER)
        batch_answered(self, event);
}

static void nothing(struct probe *probe)
{
    (void)probe;
}

/* ---- Definitions ---- */

static void ask(struct administrator *self, uint64_t tag, const struct catalog_request *request)
{
    struct parts *parts = parts_create(1 << 16);
    struct catalog_request *copy = arena_alloc(&parts->arena, sizeof *copy);
    uint8_t *name = arena_alloc(&parts->arena, request->name.len);
    memcpy(name, request->name.data, request->name.len);
    *copy = *request; /* args are static */
    copy->name = slice_make(name, request->name.len);
    parts->root = copy;
    struct command command = {.type = COMMAND_CATALOG, .asker = {.tag = tag}, .parts = parts};
    self->asked++;
    conn_command(self->probe.conn, &command);
}

static const struct arg dead_letter_args[2] = {
    {.name = {(const uint8_t *)"x-dead-letter-exchange", 22},
     .kind = ARG_TEXT,
     .wire_type = 'S',
     .text = {(const uint8_t *)"", 0}},
    {.name = {(const uint8_t *)"x-dead-letter-routing-key", 25},
     .kind = ARG_TEXT,
     .wire_type = 'S',
     .text = {(const uint8_t *)"q0", 2}},
};

static void administrator_opened(struct probe *probe)
{
    struct administrator *self = (struct administrator *)probe;
    struct model *model = self->clients->model;
    self->asked = self->answered = 0;
    for (uint32_t i = 0; i < MODEL_QUEUES; i++) {
        char name[8];
        snprintf(name, sizeof name, "q%u", i);
        struct catalog_request request = {
            .op = CATALOG_DECLARE_QUEUE, .name = slice_of(name), .durable = true};
        model->dead_letters[i] = i == 1 || i == 2;
        if (model->dead_letters[i])
            request.args = (struct args){dead_letter_args, 2};
        ask(self, i, &request);
    }
    struct catalog_request request = {
        .op = CATALOG_CREATE_TOPIC,
        .name = slice_of("t"),
        .durable = true,
        .partitions = MODEL_PARTITIONS,
        .uuid = {1},
    };
    ask(self, MODEL_QUEUES, &request);
}

static void administrator_event(struct probe *probe, const struct event *event)
{
    struct administrator *self = (struct administrator *)probe;
    struct model *model = self->clients->model;
    uint64_t i = event->asker.tag;
    if (event->err != ERR_NONE && !(i == MODEL_QUEUES && event->err == ERR_EXISTS)) {
        world_wrong(probe->world, "declaring %llu: %s %.*s", (unsigned long long)i,
                    err_text(event->err), (int)event->detail.len, (const char *)event->detail.data);
        return;
    }
    self->answered++;
    if (i < MODEL_QUEUES) {
        if (model->queues[i] != 0 && model->queues[i] != event->value)
            world_wrong(probe->world, "queue %llu was lost", (unsigned long long)i);
        model->queues[i] = event->value;
        return;
    }
    const struct topic *topic = catalog_topic(conn_catalog(probe->conn), 0, slice_of("t"));
    for (uint32_t p = 0; topic != NULL && p < MODEL_PARTITIONS; p++) {
        if (model->partitions[p] != 0 && model->partitions[p] != topic->partitions[p])
            world_wrong(probe->world, "the topic was lost");
        model->partitions[p] = topic->partitions[p];
    }
}

/* ---- All of them ---- */

static void init_probe(struct clients *clients, struct probe *probe, void (*opened)(struct probe *),
                       void (*act)(struct probe *),
                       void (*event)(struct probe *, const struct event *),
                       void (*lost)(struct probe *))
{
    probe->opened = opened;
    probe->act = act;
    probe->event = event;
    probe->lost = lost;
    world_add(clients->world, probe);
}

struct clients *clients_create(struct world *world, struct model *model)
{
    struct clients *clients = calloc(1, sizeof *clients);
    if (clients == NULL)
        abort();
    clients->world = world;
    clients->model = model;
    for (uint16_t i = 0; i < PUBLISHERS; i++) {
        clients->publishers[i].clients = clients;
        clients->publishers[i].number = i;
        init_probe(clients, &clients->publishers[i].probe, publisher_reset, publisher_act,
                   publisher_event, publisher_reset);
    }
    for (uint16_t i = 0; i < CONSUMERS; i++) {
        clients->consumers[i].publisher.clients = clients;
        clients->consumers[i].publisher.number = (uint16_t)(PUBLISHERS + i);
        clients->consumers[i].queue = i;
        init_probe(clients, &clients->consumers[i].publisher.probe, consumer_opened, consumer_act,
                   consumer_event, consumer_lost);
    }
    for (uint16_t i = 0; i < PRODUCERS; i++) {
        clients->producers[i].clients = clients;
        clients->producers[i].number = i;
        init_probe(clients, &clients->producers[i].probe, producer_opened, producer_act,
                   producer_event, nothing);
    }
    clients->administrator.clients = clients;
    init_probe(clients, &clients->administrator.probe, administrator_opened, nothing,
               administrator_event, nothing);
    return clients;
}

void clients_destroy(struct clients *clients)
{
    free(clients);
}

bool clients_prepare(struct clients *clients)
{
    struct administrator *self = &clients->administrator;
    struct world *world = clients->world;
    self->asked = self->answered = 0;
    self->probe.wanted = true;
    for (int i = 0; i < 2000 && world->wrong == NULL && !sim_hung(world->sim, 0); i++) {
        world_run(world, 1);
        if (self->asked > 0 && self->answered == self->asked)
            return true;
    }
    if (!sim_hung(world->sim, 0))
        world_wrong(world, "declarations are not answered");
    return false;
}

void clients_work(struct clients *clients, bool on)
{
    clients->working = on;
    for (int i = 0; i < PUBLISHERS; i++)
        clients->publishers[i].probe.wanted = on;
    for (int i = 0; i < CONSUMERS; i++)
        clients->consumers[i].publisher.probe.wanted = on;
    for (int i = 0; i < PRODUCERS; i++)
        clients->producers[i].probe.wanted = on;
}

static uint64_t drained_so_far(const struct clients *clients)
{
    uint64_t sum = 0;
    for (int i = 0; i < CONSUMERS; i++)
        sum += clients->consumers[i].drained;
    return sum;
}

static void cut_off(struct consumer *consumer)
{
    if (consumer->publisher.probe.socket != NULL)
        sim_client_close(consumer->publisher.probe.socket, true);
    consumer->publisher.probe.socket = NULL;
}

static void drain_queue(struct clients *clients, struct consumer *consumer, uint32_t queue)
{
    struct world *world = clients->world;
    consumer->queue = queue;
    consumer->draining = true;
    memset(consumer->last_by_publisher, 0, sizeof consumer->last_by_publisher);
    consumer->publisher.probe.wanted = true;
    uint64_t before;
    do {
        before = drained_so_far(clients);
        world_run(world, 100);
    } while ((drained_so_far(clients) != before || !consumer->subscribed) && world->wrong == NULL);
    consumer->publisher.probe.wanted = false;
}

static bool all_acknowledged(const struct clients *clients)
{
    for (int i = 0; i < PRODUCERS; i++) {
        for (int partition = 0; partition < MODEL_PARTITIONS; partition++) {
            if (clients->producers[i].window_count[partition] > 0)
                return false;
        }
    }
    return true;
}

/* What was cut off is sent again, then one producer connects anew to read everything. */
static void read_topic(struct clients *clients)
{
    struct world *world = clients->world;
    for (int i = 0; i < PRODUCERS; i++)
        clients->producers[i].probe.wanted = true;
    for (int i = 0; i < 5000 && !all_acknowledged(clients) && world->wrong == NULL; i++)
        world_run(world, 1);
    struct producer *reader = &clients->producers[0];
    reader->checking = true;
    reader->at_end = 0;
    if (reader->probe.socket != NULL)
        sim_client_close(reader->probe.socket, true);
    reader->probe.socket = NULL;
    for (int i = 0; i < 5000 && reader->at_end < MODEL_PARTITIONS && world->wrong == NULL; i++)
        world_run(world, 1);
    if (reader->at_end < MODEL_PARTITIONS)
        world_wrong(world, "the topic cannot be read to its end");
}

void clients_drain(struct clients *clients)
{
    struct model *model = clients->model;
    struct world *world = clients->world;
    clients->working = false;
    /* Connections of before the crash may have been on their way: none of them takes messages. */
    for (int i = 0; i < CONSUMERS; i++)
        cut_off(&clients->consumers[i]);
    world_run(world, 20);
    for (uint32_t queue = 0; queue < MODEL_QUEUES && world->wrong == NULL; queue++) {
        struct consumer *consumer = &clients->consumers[queue % CONSUMERS];
        if (queue >= CONSUMERS) {
            cut_off(consumer);
            world_run(world, 20);
        }
        drain_queue(clients, consumer, queue);
    }
    model_check_messages(model);
    read_topic(clients);
    model_check_batches(model);
}
