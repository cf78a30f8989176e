/* A publisher: bursts of messages to queues, by name or through an exchange that copies them to
 * three, each with a number that its confirm names. */
#include "clients_inside.h"

#include "base/endian.h"
#include "codec/entry.h"

#include <stdio.h>
#include <string.h>

static const uint8_t FANOUT[MODEL_COPIES_MAX] = {QUEUE_LIMITED, QUEUE_PURGED, QUEUE_ROUTED};

size_t publisher_head(uint8_t *head, const char *queue, int64_t wall_ms, int64_t expiry_ms,
                      bool persistent)
{
    entry_head_put(head, &(struct entry_head){.timestamp_ms = wall_ms,
                                              .expiry_ms = expiry_ms,
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

/* One message of this number; returns how many cells it went to. */
static uint32_t send_message(struct publisher *self, uint32_t n, const struct queue_def *def,
                             bool persistent)
{
    struct model *model = self->clients->model;
    struct conn *conn = self->probe.conn;
    const struct message *message = &model->messages[n];
    const struct copy *copy = &message->copies[0];
    bool expires = copy->queue == QUEUE_PURGED && copy->expiry_ms != INT64_MAX;
    int64_t expiry_ms = expires ? copy->expiry_ms : 0;
    const char *key = model->queues[copy->queue].name;
    uint8_t head[64], body[MODEL_BODY_MAX];
    struct route_message route = {.key = slice_of(key)};
    struct publish request = {
        .channel = 1,
        .seq = ++self->seq,
        .persistent = persistent,
        .expiry_ms = expiry_ms,
        .message = &route,
    };
    request.pieces[0] =
        slice_make(head, publisher_head(head, key, conn_wall_ms(conn), expiry_ms, persistent));
    request.pieces[1] = slice_make(body, model_body(n, body));
    if (def != NULL)
        return conn_publish_queue(conn, &request, def);
    request.exchange = catalog_exchange(conn_catalog(conn), 0, slice_of("x"));
    return conn_publish(conn, &request);
}

static void publish(struct publisher *self, const uint8_t *queues, uint32_t count, bool persistent,
                    const struct queue_def *def, uint32_t *n)
{
    struct model *model = self->clients->model;
    struct world *world = self->probe.world;
    struct message *message =
        self->count < OUTSTANDING_MAX ? model_publish(model, self->number, queues, count, n) : NULL;
    if (message == NULL)
        return;
    message->persistent = persistent;
    message->session = self->session;
    if (def != NULL)
        message->copies[0].object = def->id;
    if (def != NULL && queues[0] == QUEUE_PURGED && world_random(world, 4) == 0)
        message->copies[0].expiry_ms = sim_wall_ms(world->sim) + 1 + world_random(world, 100);
    uint32_t cells = send_message(self, *n, def, persistent);
    message->awaited = (uint8_t)cells;
    self->outstanding[self->count] = *n;
    self->outstanding_seq[self->count++] = self->seq;
    world->totals->published++;
    world_tell(world, "%s publishes %u to %s%s", self->probe.name, *n,
               def ? model->queues[queues[0]].name : "x", persistent ? "" : ", transient");
}

uint32_t publisher_publish(struct publisher *self, uint32_t queue, bool persistent)
{
    struct model *model = self->clients->model;
    const struct catalog *catalog = conn_catalog(self->probe.conn);
    const struct queue_def *def = catalog_queue(catalog, 0, slice_of(model->queues[queue].name));
    uint32_t n = UINT32_MAX;
    uint8_t target = (uint8_t)queue;
    if (def != NULL)
        publish(self, &target, 1, persistent, def, &n);
    else if (queue != QUEUE_DELETED && queue != QUEUE_UNUSED)
        world_wrong(model->world, "queue %s is gone", model->queues[queue].name);
    return n;
}

void publisher_confirmed(struct publisher *self, const struct event *event)
{
    struct world *world = self->probe.world;
    if (event->err != ERR_NONE && event->err != ERR_NOT_FOUND && !world_excuses(world, event->err))
        world_wrong(world, "%s: a message is refused: %s", self->probe.name, err_text(event->err));
    for (uint32_t i = 0; i < self->count;) {
        if (self->outstanding_seq[i] < event->first_seq ||
            self->outstanding_seq[i] > event->last_seq) {
            i++;
            continue;
        }
        struct message *message = &self->clients->model->messages[self->outstanding[i]];
        message->refused = message->refused || event->err != ERR_NONE;
        world_tell(world, "%s: %u is %s", self->probe.name, self->outstanding[i],
                   event->err == ERR_NONE ? "confirmed" : err_text(event->err));
        if (message->awaited > 0 && --message->awaited > 0) {
            i++;
            continue;
        }
        message->confirmed = !message->refused;
        world->totals->confirmed += message->confirmed;
        world->totals->refused += message->refused;
        self->count--;
        self->outstanding[i] = self->outstanding[self->count];
        self->outstanding_seq[i] = self->outstanding_seq[self->count];
    }
}

static void act(struct probe *probe)
{
    struct publisher *self = (struct publisher *)probe;
    struct world *world = probe->world;
    if (!self->clients->working)
        return;
    for (uint32_t burst = world_random(world, 6); burst > 0; burst--) {
        bool persistent = world_random(world, 6) != 0;
        uint32_t n;
        if (world_random(world, 8) == 0)
            publish(self, FANOUT, MODEL_COPIES_MAX, persistent, NULL, &n);
        else
            publisher_publish(self, world_random(world, MODEL_QUEUES), persistent);
    }
}

static void event(struct probe *probe, const struct event *event)
{
    if (event->type == EVENT_PUBLISHED)
        publisher_confirmed((struct publisher *)probe, event);
}

void publisher_reset(struct publisher *self)
{
    self->count = 0;
    self->seq = 0;
    self->session++;
}

static void reset(struct probe *probe)
{
    publisher_reset((struct publisher *)probe);
}

void publisher_init(struct publisher *publisher, uint16_t number)
{
    static const char *const names[PUBLISHERS] = {"publisher 0", "publisher 1", "publisher 2"};
    publisher->number = number;
    publisher->probe.name = names[number];
    publisher->probe.opened = reset;
    publisher->probe.act = act;
    publisher->probe.event = event;
    publisher->probe.lost = reset;
}
