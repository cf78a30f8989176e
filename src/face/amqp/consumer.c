/* basic.qos, consume, cancel, get. A consumer is known to the broker by a number that is unique on
 * the connection: the slot it stands in and the generation of that slot. */
#include "face/amqp/amqp.h"

#include "codec/amqp_field.h"
#include "gen/amqp_send.h"

#include <stdlib.h>

enum { SLOTS_MIN = 8, TAG_LETTERS = 22 };

/* ---- By number and tag ---- */

static uint64_t slot_of(uint64_t id)
{
    return (id & UINT32_MAX) - 1;
}

struct consumer *consumer_by_id(struct amqp *self, uint64_t id)
{
    uint64_t slot = slot_of(id);
    struct consumer *consumer = slot < self->consumer_slots ? self->consumers[slot] : NULL;
    return consumer && consumer->id == id ? consumer : NULL;
}

struct consumer *consumer_by_tag(struct channel *channel, struct slice tag)
{
    list_each(node, &channel->consumers)
    {
        struct consumer *consumer = list_entry(node, struct consumer, link);
        if (slice_equal(consumer_tag(consumer), tag))
            return consumer;
    }
    return NULL;
}

static bool slot_take(struct amqp *self, uint32_t *out)
{
    for (uint32_t i = 0; i < self->consumer_slots; i++) {
        if (!self->consumers[i]) {
            *out = i;
            return true;
        }
    }
    uint32_t slots = self->consumer_slots ? self->consumer_slots * 2 : SLOTS_MIN;
    struct consumer **consumers = realloc(self->consumers, slots * sizeof *consumers);
    if (!consumers)
        return false;
    memset(consumers + self->consumer_slots, 0,
           (slots - self->consumer_slots) * sizeof(struct consumer *));
    *out = self->consumer_slots;
    self->consumers = consumers;
    self->consumer_slots = slots;
    return true;
}

static struct consumer *consumer_create(struct channel *channel, struct slice tag)
{
    struct amqp *self = channel->amqp;
    struct consumer *consumer = calloc(1, sizeof *consumer);
    uint32_t slot;
    if (!consumer || !slot_take(self, &slot)) {
        free(consumer);
        connection_error(self, 506, AMQP_BASIC_CONSUME, "out of memory");
        return NULL;
    }
    consumer->channel = channel;
    consumer->id = (uint64_t)++self->consumer_generation << 32 | (slot + 1);
    consumer->tag_len = (uint8_t)tag.len;
    memcpy(consumer->tag, tag.data, tag.len);
    list_init(&consumer->due);
    list_insert(&channel->consumers, &consumer->link);
    self->consumers[slot] = consumer;
    channel->touched = true;
    conn_count(self->conn, METRIC_AMQP_CONSUMERS, 1);
    return consumer;
}

void consumer_free(struct consumer *consumer)
{
    struct amqp *self = consumer->channel->amqp;
    if (consumer->stream)
        stream_free(consumer);
    direct_reply_cancelled(consumer->channel, consumer->id);
    self->consumers[slot_of(consumer->id)] = NULL;
    conn_count(self->conn, METRIC_AMQP_CONSUMERS, -1);
    list_remove(&consumer->link);
    list_remove(&consumer->due);
    free(consumer);
}

void consumer_cancelled(struct amqp *self, uint64_t id)
{
    struct consumer *consumer = consumer_by_id(self, id);
    if (!consumer)
        return;
    struct channel *channel = consumer->channel;
    if (self->can_cancel && channel->state == CHANNEL_OPEN) {
        struct amqp_basic_cancel m = {.consumer_tag = consumer_tag(consumer), .no_wait = true};
        amqp_basic_cancel_send(self->conn, channel->number, &m);
    }
    parked_return(channel, id);
    consumer_free(consumer);
}

/* ---- consume ---- */

static void consumed(struct channel *channel, struct pending *pending, const struct event *event)
{
    struct consumer *consumer = consumer_by_id(channel->amqp, pending->consumer);
    struct slice vhost = vhost_name(channel->amqp);
    struct slice name = slice_make(pending->name, pending->name_len);
    if (event->err) {
        if (consumer)
            consumer_free(consumer);
        if (event->err == ERR_NOT_FOUND)
            channel_no_queue(channel, pending->method, name);
        else if (event->err == ERR_EXCLUSIVE_USE)
            channel_error(channel, 403, pending->method,
                          "queue '%.*s' in vhost '%.*s' in exclusive use", (int)name.len,
                          (const char *)name.data, (int)vhost.len, (const char *)vhost.data);
        else
            channel_event_error(channel, pending->method, event);
        return;
    }
    if (!consumer)
        return;
    consumer->started = true;
    if (!pending->no_wait)
        amqp_basic_consume_ok_send(
            channel->amqp->conn, channel->number,
            &(struct amqp_basic_consume_ok){.consumer_tag = consumer_tag(consumer)});
}

static struct slice tag_make(struct amqp *self, char *room)
{
    memcpy(room, "amq.ctag-", 9);
    random_letters(self, room + 9, TAG_LETTERS);
    return slice_make(room, 9 + TAG_LETTERS);
}

static bool priority_read(struct channel *channel, struct slice arguments, int32_t *out)
{
    struct amqp_field priority;
    *out = 0;
    if (!amqp_table_find(arguments, "x-priority", &priority))
        return true;
    if (!amqp_type_is_integer(priority.type) || priority.number < INT32_MIN ||
        priority.number > INT32_MAX) {
        channel_error(channel, 406, AMQP_BASIC_CONSUME,
                      "invalid arg 'x-priority': an integer is expected");
        return false;
    }
    *out = (int32_t)priority.number;
    return true;
}

static uint32_t prefetch_of(const struct channel *channel)
{
    uint32_t own = channel->prefetch, all = channel->prefetch_global;
    return all && (own == 0 || all < own) ? all : own;
}

uint64_t consume_subscribe(struct channel *channel, const struct amqp_basic_consume *m,
                           const struct queue_def *queue, struct slice tag, int32_t priority)
{
    struct amqp *self = channel->amqp;
    struct consumer *consumer = consumer_create(channel, tag);
    struct pending *pending =
        consumer ? pending_add(self, channel, AMQP_BASIC_CONSUME, consumed) : NULL;
    if (!pending)
        return 0;
    uint64_t id = consumer->id;
    consumer->queue = queue->id;
    consumer->no_ack = m->no_ack;
    pending->consumer = consumer->id;
    pending->no_wait = m->no_wait;
    pending->name_len = (uint8_t)queue->name.len;
    memcpy(pending->name, queue->name.data, queue->name.len);
    struct command command = {
        .type = COMMAND_SUBSCRIBE,
        .object = queue->id,
        .subscribe =
            {
                .consumer = consumer->id,
                .prefetch = m->no_ack ? 0 : prefetch_of(channel),
                .window = DELIVERY_WINDOW_BYTES,
                .priority = priority,
                .flags = (uint8_t)((m->no_ack ? SUBSCRIBE_NO_ACK : 0) |
                                   (m->exclusive ? SUBSCRIBE_EXCLUSIVE : 0)),
            },
    };
    command_send(self, &command, channel->number, pending->tag);
    return id;
}

static void consume(struct channel *channel, const struct amqp_basic_consume *m)
{
    struct amqp *self = channel->amqp;
    char room[255];
    struct slice name;
    int32_t priority;
    if (!amqp_table_valid(m->arguments)) {
        arguments_error(self, AMQP_BASIC_CONSUME);
        return;
    }
    if (!channel_queue_name(channel, AMQP_BASIC_CONSUME, m->queue, &name))
        return;
    struct slice tag = m->consumer_tag.len ? m->consumer_tag : tag_make(self, room);
    if (consumer_by_tag(channel, tag)) {
        channel_error(channel, 530, AMQP_BASIC_CONSUME, "attempt to reuse consumer tag '%.*s'",
                      (int)tag.len, (const char *)tag.data);
        return;
    }
    if (direct_reply_is_alias(name)) {
        direct_reply_consume(channel, m, tag);
        return;
    }
    const struct topic *topic = catalog_topic(conn_catalog(self->conn), self->namespace_id, name);
    if (topic) {
        struct consumer *consumer = consumer_create(channel, tag);
        uint64_t id = consumer ? consumer->id : 0;
        if (consumer && !stream_consume(channel, m, topic, consumer) && consumer_by_id(self, id))
            consumer_free(consumer);
        return;
    }
    const struct queue_def *queue = channel_queue(channel, AMQP_BASIC_CONSUME, name);
    if (queue && priority_read(channel, m->arguments, &priority))
        (void)consume_subscribe(channel, m, queue, tag, priority);
}

/* ---- cancel ---- */

static void cancelled(struct channel *channel, struct pending *pending, const struct event *event)
{
    (void)event;
    struct consumer *consumer = consumer_by_id(channel->amqp, pending->consumer);
    if (consumer) {
        parked_return(channel, consumer->id);
        settle_flush(channel->amqp);
        consumer_free(consumer);
    }
    struct amqp_basic_cancel_ok m = {.consumer_tag = slice_make(pending->name, pending->name_len)};
    if (!pending->no_wait)
        amqp_basic_cancel_ok_send(channel->amqp->conn, channel->number, &m);
}

static void cancel(struct channel *channel, const struct amqp_basic_cancel *m)
{
    struct amqp *self = channel->amqp;
    struct consumer *consumer = consumer_by_tag(channel, m->consumer_tag);
    if (consumer && consumer->stream) {
        consumer_free(consumer);
        consumer = NULL;
    }
    if (!consumer) {
        struct amqp_basic_cancel_ok ok = {.consumer_tag = m->consumer_tag};
        if (!m->no_wait)
            amqp_basic_cancel_ok_send(self->conn, channel->number, &ok);
        return;
    }
    struct pending *pending = pending_add(self, channel, AMQP_BASIC_CANCEL, cancelled);
    if (!pending)
        return;
    pending->consumer = consumer->id;
    pending->no_wait = m->no_wait;
    pending->name_len = (uint8_t)m->consumer_tag.len;
    memcpy(pending->name, m->consumer_tag.data, m->consumer_tag.len);
    struct command command = {
        .type = COMMAND_CANCEL, .object = consumer->queue, .subscribe = {.consumer = consumer->id}};
    command_send(self, &command, channel->number, pending->tag);
}

/* ---- get, qos ---- */

static void got_none(struct channel *channel, struct pending *pending, const struct event *event)
{
    if (event->err != ERR_NOT_FOUND) {
        channel_event_error(channel, pending->method, event);
        return;
    }
    conn_count(channel->amqp->conn, METRIC_AMQP_GETS_EMPTY, 1);
    amqp_basic_get_empty_send(channel->amqp->conn, channel->number,
                              &(struct amqp_basic_get_empty){0});
}

static void get(struct channel *channel, const struct amqp_basic_get *m)
{
    struct amqp *self = channel->amqp;
    struct slice name;
    if (!channel_queue_name(channel, AMQP_BASIC_GET, m->queue, &name))
        return;
    if (catalog_topic(conn_catalog(self->conn), self->namespace_id, name)) {
        channel_error(channel, 540, AMQP_BASIC_GET, "basic.get is not supported by streams: '%.*s'",
                      (int)name.len, (const char *)name.data);
        return;
    }
    const struct queue_def *queue = channel_queue(channel, AMQP_BASIC_GET, name);
    struct pending *pending = queue ? pending_add(self, channel, AMQP_BASIC_GET, got_none) : NULL;
    if (!pending)
        return;
    pending->no_wait = m->no_ack;
    channel->touched |= !m->no_ack;
    struct command command = {
        .type = COMMAND_GET, .object = queue->id, .get = {.no_ack = m->no_ack}};
    command_send(self, &command, channel->number, pending->tag);
}

static void qos(struct channel *channel, const struct amqp_basic_qos *m)
{
    if (m->prefetch_size != 0) {
        channel_error(channel, 540, AMQP_BASIC_QOS, "prefetch_size!=0 (%u)", m->prefetch_size);
        return;
    }
    if (m->global) {
        channel->prefetch_global = m->prefetch_count;
        deliver_parked(channel);
    } else {
        channel->prefetch = m->prefetch_count;
    }
    amqp_basic_qos_ok_send(channel->amqp->conn, channel->number, &(struct amqp_basic_qos_ok){0});
}

void consume_method(struct channel *channel, uint32_t method, struct slice arguments)
{
    struct amqp_basic_consume c;
    struct amqp_basic_cancel x;
    struct amqp_basic_get g;
    struct amqp_basic_qos q;
    bool read = true;
    switch (method) {
    case AMQP_BASIC_CONSUME:
        if ((read = amqp_basic_consume_read(arguments, &c)))
            consume(channel, &c);
        break;
    case AMQP_BASIC_CANCEL:
        if ((read = amqp_basic_cancel_read(arguments, &x)))
            cancel(channel, &x);
        break;
    case AMQP_BASIC_GET:
        if ((read = amqp_basic_get_read(arguments, &g)))
            get(channel, &g);
        break;
    case AMQP_BASIC_QOS:
        if ((read = amqp_basic_qos_read(arguments, &q)))
            qos(channel, &q);
        break;
    default: /* cancel-ok: clients answer our basic.cancel although it asks for none */
        break;
    }
    if (!read)
        arguments_error(channel->amqp, method);
}
