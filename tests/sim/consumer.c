/* A consumer: subscribes to a queue, or gets from it, and settles, returns or rejects what it has,
 * at random. A message that it publishes behind that into the same queue, once confirmed, proves
 * that the queue's cell has it all on disk (a marker). */
#include "clients_inside.h"

#include "codec/entry.h"

#include <stdio.h>
#include <string.h>

static struct model *model_of(const struct consumer *self)
{
    return self->publisher.clients->model;
}

static struct world *world_of(const struct consumer *self)
{
    return self->publisher.probe.world;
}

static const char *name_of(const struct consumer *self)
{
    return self->publisher.probe.name;
}

static void begin_drain(struct consumer *self)
{
    model_forget_drained(model_of(self), self->queue);
    self->drained = 0; /* cut off in the middle: what it had comes again */
    memset(self->last_by_publisher, 0, sizeof self->last_by_publisher);
}

static void subscribe(struct consumer *self)
{
    struct command command = {
        .type = COMMAND_SUBSCRIBE,
        .asker = {.channel = 1, .tag = 1},
        .object = self->object,
    };
    command.subscribe.consumer = 7;
    command.subscribe.prefetch = self->draining ? 0 : 1 + world_random(world_of(self), 20);
    command.subscribe.flags = self->no_ack ? SUBSCRIBE_NO_ACK : 0;
    world_tell(world_of(self), "%s subscribes to %s%s", name_of(self),
               model_of(self)->queues[self->queue].name, self->no_ack ? ", no ack" : "");
    conn_command(self->publisher.probe.conn, &command);
}

static void opened(struct probe *probe)
{
    struct consumer *self = (struct consumer *)probe;
    struct world *world = probe->world;
    publisher_reset(&self->publisher);
    self->held_count = self->resolved_count = self->marked_count = self->marker = 0;
    self->subscribed = self->no_ack = self->gets = false;
    self->object = 0;
    if (self->draining) {
        begin_drain(self);
    } else {
        self->queue = world_random(world, MODEL_QUEUES);
        self->no_ack = model_of(self)->no_acks && world_random(world, 4) == 0;
        self->gets = !self->no_ack && world_random(world, 6) == 0;
    }
    const struct queue_def *def = catalog_queue(conn_catalog(probe->conn), 0,
                                                slice_of(model_of(self)->queues[self->queue].name));
    if (def == NULL) {
        probe->leaves = true;
        return;
    }
    self->object = def->id;
    if (self->no_ack)
        model_lossy(model_of(self), self->queue);
    if (!self->gets)
        subscribe(self);
}

static void lost(struct probe *probe)
{
    struct consumer *self = (struct consumer *)probe;
    publisher_reset(&self->publisher);
    self->subscribed = self->no_ack = false;
    world_tell(probe->world, "%s is cut off", probe->name);
}

/* ---- Resolving ---- */

static void command_range(struct consumer *self, enum command_type type, uint64_t first,
                          uint64_t last)
{
    struct offset_range range = {first, last};
    struct command command = {
        .type = type,
        .asker = {.channel = 1},
        .object = self->object,
        .data = slice_make(&range, sizeof range),
    };
    conn_command(self->publisher.probe.conn, &command);
}

static void note_resolved(struct consumer *self, const struct copy *copy, const struct held *held,
                          bool settled)
{
    /* Without room or memory a settle is not journaled, and the message may come again. */
    const struct world_faults *faults = &world_of(self)->faults;
    bool durable = !faults->memory && !faults->disk_full && copy->queue == self->queue &&
                   model_of(self)->messages[held->n].persistent &&
                   !model_of(self)->messages[held->n].routed;
    if (durable && self->resolved_count < RESOLVED_MAX)
        self->resolved[self->resolved_count++] =
            (struct resolved){.n = held->n, .settled = settled, .count = held->count};
}

static struct copy *copy_of(struct consumer *self, uint32_t n)
{
    struct model *model = model_of(self);
    struct message *message = &model->messages[n];
    for (uint32_t i = 0; i < message->copy_count; i++) {
        if (message->copies[i].queue == self->queue ||
            (self->queue == QUEUE_DEAD && model->queues[message->copies[i].queue].dead_letters))
            return &message->copies[i];
    }
    return NULL;
}

static void resolve(struct consumer *self)
{
    struct world *world = world_of(self);
    struct totals *totals = world->totals;
    if (self->held_count == 0)
        return;
    uint32_t i = world_random(world, self->held_count), dice = world_random(world, 10);
    struct held held = self->held[i];
    self->held[i] = self->held[--self->held_count];
    struct copy *copy = copy_of(self, held.n);
    enum command_type type = dice < 5 ? COMMAND_SETTLE : dice < 8 ? COMMAND_RETURN : COMMAND_REJECT;
    bool dead_letters = model_of(self)->queues[self->queue].dead_letters;
    bool settles = type == COMMAND_SETTLE || (type == COMMAND_REJECT && !dead_letters);
    if (settles) {
        copy->settle_sent = true;
        note_resolved(self, copy, &held, true);
    } else if (type == COMMAND_RETURN) {
        note_resolved(self, copy, &held, false);
    }
    totals->settled += type == COMMAND_SETTLE;
    totals->returned += type == COMMAND_RETURN;
    totals->rejected += type == COMMAND_REJECT;
    world_tell(world, "%s %s %u", name_of(self),
               type == COMMAND_SETTLE   ? "settles"
               : type == COMMAND_RETURN ? "returns"
                                        : "rejects",
               held.n);
    command_range(self, type, held.offset, held.offset);
}

void consumer_settle_all(struct consumer *self)
{
    if (self->drained > 0)
        command_range(self, COMMAND_SETTLE, 0, self->drained_last);
}

static void act(struct probe *probe)
{
    struct consumer *self = (struct consumer *)probe;
    struct world *world = probe->world;
    if (!self->publisher.clients->working || self->draining)
        return;
    if (self->gets && self->object != 0 && self->held_count < LEASES_MAX / 2) {
        struct command command = {
            .type = COMMAND_GET, .asker = {.channel = 1, .tag = 2}, .object = self->object};
        conn_command(probe->conn, &command);
    }
    for (uint32_t i = world_random(world, 8); i > 0; i--)
        resolve(self);
    if (self->marker == 0 && self->resolved_count > 0 && world_random(world, 3) == 0) {
        uint32_t n = publisher_publish(&self->publisher, self->queue, true);
        if (n != UINT32_MAX && model_of(self)->messages[n].copies[0].object == self->object) {
            self->marker = n + 1;
            self->marked_count = self->resolved_count;
        }
    }
}

static void marker_confirmed(struct consumer *self)
{
    const struct model *model = model_of(self);
    if (self->marker == 0 || !model->messages[self->marker - 1].confirmed)
        return;
    for (uint32_t i = 0; i < self->marked_count; i++) {
        const struct resolved *resolved = &self->resolved[i];
        struct copy *copy = copy_of(self, resolved->n);
        bool vague = resolved->count == 1 && copy->born < world_of(self)->life;
        uint16_t count = (uint16_t)(resolved->count + !vague);
        if (resolved->settled)
            copy->settle_safe = true;
        else if (copy->count_safe < count)
            copy->count_safe = count;
    }
    self->resolved_count -= self->marked_count;
    memmove(self->resolved, self->resolved + self->marked_count,
            self->resolved_count * sizeof *self->resolved);
    self->marked_count = self->marker = 0;
}

/* ---- Deliveries ---- */

static void delivered(struct consumer *self, const struct delivery *delivery)
{
    struct world *world = world_of(self);
    struct slice entry = delivery->entry;
    uint32_t body = entry_body_bytes(entry);
    uint32_t n = model_identify(slice_make(entry.data + entry.len - body, body));
    world->totals->delivered++;
    world->totals->got += delivery->consumer == 0;
    world_tell(world, "%s gets %u at %llu, count %u", name_of(self), n,
               (unsigned long long)delivery->offset, delivery->count);
    if (self->draining) {
        self->drained++;
        self->drained_last = delivery->offset;
        model_drained(model_of(self), self->queue, delivery, n, self->last_by_publisher);
        return;
    }
    struct copy *copy = model_delivered(model_of(self), self->queue, delivery, n);
    if (copy == NULL)
        return;
    world->totals->buried += copy->queue != self->queue;
    if (self->no_ack)
        copy->settle_sent = true;
    else if (self->held_count == LEASES_MAX)
        world_wrong(world, "%s: more leases than the prefetch allows", name_of(self));
    else
        self->held[self->held_count++] = (struct held){n, delivery->offset, delivery->count};
}

static void answered(struct consumer *self, const struct event *event)
{
    struct world *world = world_of(self);
    bool gone = event->err == ERR_NOT_FOUND;
    if (event->asker.tag == 2 && gone)
        return; /* nothing to get */
    if (event->err == ERR_NONE) {
        self->subscribed = true;
        return;
    }
    self->publisher.probe.leaves = true;
    if (!gone && !world_excuses(world, event->err))
        world_wrong(world, "%s: subscribing to %s: %s", name_of(self),
                    model_of(self)->queues[self->queue].name, err_text(event->err));
}

static void event(struct probe *probe, const struct event *event)
{
    struct consumer *self = (struct consumer *)probe;
    if (event->type == EVENT_PUBLISHED) {
        publisher_confirmed(&self->publisher, event);
        marker_confirmed(self);
    } else if (event->type == EVENT_DELIVER) {
        delivered(self, &event->deliver);
    } else if (event->type == EVENT_CANCELLED) {
        probe->leaves = true;
    } else if (event->type == EVENT_ANSWER) {
        answered(self, event);
    }
}

void consumer_init(struct consumer *consumer, uint16_t number)
{
    static const char *const names[CONSUMERS] = {"consumer 0", "consumer 1", "consumer 2"};
    consumer->publisher.number = (uint16_t)(PUBLISHERS + number);
    struct probe *probe = &consumer->publisher.probe;
    probe->name = names[number];
    probe->opened = opened;
    probe->act = act;
    probe->event = event;
    probe->lost = lost;
}
