/* Channels: opening, closing, and the errors that close them. After channel.close was sent all that
 * comes on the channel is dropped until close-ok. */
#include "face/amqp/amqp.h"

#include "gen/amqp_send.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { SLOTS_MIN = 4 };

struct channel *channel_get(struct amqp *self, uint16_t number)
{
    return number < self->channel_slots ? self->channels[number] : NULL;
}

static bool slots_grow(struct amqp *self, uint16_t number)
{
    uint32_t slots = self->channel_slots ? self->channel_slots : SLOTS_MIN;
    while (slots <= number)
        slots *= 2;
    if (slots == self->channel_slots)
        return true;
    struct channel **channels = realloc(self->channels, slots * sizeof *channels);
    if (!channels)
        return false;
    memset(channels + self->channel_slots, 0,
           (slots - self->channel_slots) * sizeof(struct channel *));
    self->channels = channels;
    self->channel_slots = slots;
    return true;
}

static void channel_open(struct amqp *self, uint16_t number)
{
    if (number > self->channel_max) {
        connection_error(self, 530, AMQP_CHANNEL_OPEN,
                         "number of channels opened (%u) has reached the negotiated channel_max "
                         "(%u)",
                         self->channel_max, self->channel_max);
        return;
    }
    struct channel *channel = slots_grow(self, number) ? calloc(1, sizeof *channel) : NULL;
    if (!channel) {
        connection_error(self, 506, AMQP_CHANNEL_OPEN, "out of memory");
        return;
    }
    channel->amqp = self;
    channel->number = number;
    channel->incarnation = (uint32_t)++self->next_tag;
    channel->next_tag = 1;
    channel->confirms.base = confirm_first(channel);
    list_init(&channel->consumers);
    list_init(&channel->parked);
    self->channels[number] = channel;
    conn_count(self->conn, METRIC_AMQP_CHANNELS, 1);
    conn_count(self->conn, METRIC_AMQP_CHANNELS_OPENED, 1);
    amqp_channel_open_ok_send(self->conn, number, &(struct amqp_channel_open_ok){0});
}

void channel_free(struct channel *channel)
{
    struct amqp *self = channel->amqp;
    while (!list_empty(&channel->consumers))
        consumer_free(list_entry(channel->consumers.next, struct consumer, link));
    parked_return(channel, 0);
    leases_clear(&channel->leases);
    confirms_free(channel);
    publish_forget(channel);
    route_cache_free(channel);
    tx_free(channel);
    direct_reply_free(channel);
    if (self->partial == channel)
        self->partial = NULL;
    self->channels[channel->number] = NULL;
    conn_count(self->conn, METRIC_AMQP_CHANNELS, -1);
    conn_count(self->conn, METRIC_AMQP_CHANNELS_CLOSED, 1);
    free(channel);
}

static void nothing(struct channel *channel, struct pending *pending, const struct event *event)
{
    (void)channel;
    (void)pending;
    (void)event;
}

void channel_gone(struct channel *channel, uint32_t method,
                  void (*done)(struct channel *, struct pending *, const struct event *))
{
    struct amqp *self = channel->amqp;
    if (!channel->touched) {
        if (done)
            done(channel, NULL, NULL);
        return;
    }
    parked_return(channel, 0);
    struct pending *pending = pending_add(self, channel, method, done ? done : nothing);
    if (!pending)
        return;
    pending->answers = conn_cells(self->conn);
    struct command command = {.type = COMMAND_CHANNEL_GONE};
    command_send(self, &command, channel->number, pending->tag);
}

/* The channel keeps its number until close-ok, and nothing else. */
static void channel_empty(struct channel *channel)
{
    channel->state = CHANNEL_CLOSING;
    channel_gone(channel, AMQP_CHANNEL_CLOSE, NULL);
    while (!list_empty(&channel->consumers))
        consumer_free(list_entry(channel->consumers.next, struct consumer, link));
    leases_clear(&channel->leases);
    confirms_free(channel);
    publish_forget(channel);
    tx_free(channel);
    direct_reply_free(channel);
}

static void close_send(struct channel *channel, uint16_t code, uint32_t method, const char *text)
{
    struct amqp *self = channel->amqp;
    if (amqp_reply_is_hard(code)) {
        connection_error(self, code, method, "%s", text);
        return;
    }
    if (channel->state != CHANNEL_OPEN || self->stage != STAGE_RUNNING)
        return;
    conn_count(self->conn, METRIC_AMQP_ERRORS_CHANNEL, 1);
    char reply[256];
    (void)snprintf(reply, sizeof reply, "%s - %s", amqp_reply_name(code), text);
    conn_log(self->conn, "warn", "event=\"amqp channel error\" channel=%u code=%u text=\"%s\"",
             channel->number, code, reply);
    struct amqp_channel_close m = {
        .reply_code = code,
        .reply_text = slice_of(reply),
        .class_id = (uint16_t)(method >> 16),
        .method_id = (uint16_t)method,
    };
    amqp_channel_close_send(self->conn, channel->number, &m);
    channel_empty(channel);
}

void channel_error(struct channel *channel, uint16_t code, uint32_t method, const char *format, ...)
{
    char text[768];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    close_send(channel, code, method, text);
}

void channel_event_error(struct channel *channel, uint32_t method, const struct event *event)
{
    char text[768];
    if (event->detail.len)
        (void)snprintf(text, sizeof text, "%.*s", (int)event->detail.len,
                       (const char *)event->detail.data);
    else
        (void)snprintf(text, sizeof text, "%s", err_text(event->err));
    uint16_t code = err_amqp(event->err);
    close_send(channel, amqp_reply_name(code) ? code : 541, method, text);
}

static void closed(struct channel *channel, struct pending *pending, const struct event *event)
{
    (void)pending;
    (void)event;
    struct amqp *self = channel->amqp;
    uint16_t number = channel->number;
    channel_free(channel);
    amqp_channel_close_ok_send(self->conn, number, &(struct amqp_channel_close_ok){0});
}

static void channel_close(struct amqp *self, uint16_t number, struct slice arguments)
{
    struct amqp_channel_close m;
    struct channel *channel = channel_get(self, number);
    if (!amqp_channel_close_read(arguments, &m)) {
        arguments_error(self, AMQP_CHANNEL_CLOSE);
        return;
    }
    if (!channel || channel->state == CHANNEL_CLOSING) {
        /* Both closed it at once, or it was never open: nothing is lost by agreeing. */
        amqp_channel_close_ok_send(self->conn, number, &(struct amqp_channel_close_ok){0});
        return;
    }
    settle_flush(self);
    channel_gone(channel, AMQP_CHANNEL_CLOSE, closed);
}

static void channel_flow(struct channel *channel, struct slice arguments)
{
    struct amqp_channel_flow m;
    if (!amqp_channel_flow_read(arguments, &m)) {
        arguments_error(channel->amqp, AMQP_CHANNEL_FLOW);
        return;
    }
    if (!m.active) {
        channel_error(channel, 540, AMQP_CHANNEL_FLOW, "active=false");
        return;
    }
    amqp_channel_flow_ok_send(channel->amqp->conn, channel->number,
                              &(struct amqp_channel_flow_ok){.active = true});
}

static void access_request(struct channel *channel, struct slice arguments)
{
    struct amqp_access_request m;
    if (!amqp_access_request_read(arguments, &m))
        arguments_error(channel->amqp, AMQP_ACCESS_REQUEST);
    else
        amqp_access_request_ok_send(channel->amqp->conn, channel->number,
                                    &(struct amqp_access_request_ok){.ticket = 1});
}

static void method_of_class(struct channel *channel, uint32_t method, struct slice arguments)
{
    switch (method >> 16) {
    case AMQP_ACCESS_REQUEST >> 16:
        access_request(channel, arguments);
        break;
    case AMQP_EXCHANGE_DECLARE >> 16:
        exchange_method(channel, method, arguments);
        break;
    case AMQP_QUEUE_DECLARE >> 16:
        queue_method(channel, method, arguments);
        break;
    case AMQP_TX_SELECT >> 16:
        tx_method(channel, method, arguments);
        break;
    case AMQP_CONFIRM_SELECT >> 16:
        confirm_method(channel, method, arguments);
        break;
    default:
        connection_error(channel->amqp, 503, method, "%s is not expected now",
                         amqp_method_name(method));
    }
}

static void basic_method(struct channel *channel, uint32_t method, struct slice arguments)
{
    switch (method) {
    case AMQP_BASIC_PUBLISH:
        publish_begin(channel, arguments);
        break;
    case AMQP_BASIC_ACK:
    case AMQP_BASIC_NACK:
    case AMQP_BASIC_REJECT:
    case AMQP_BASIC_RECOVER:
    case AMQP_BASIC_RECOVER_ASYNC:
        ack_method(channel, method, arguments);
        break;
    default:
        consume_method(channel, method, arguments);
    }
}

void channel_method(struct amqp *self, uint16_t number, uint32_t method, struct slice arguments)
{
    struct channel *channel = channel_get(self, number);
    switch (method) {
    case AMQP_CHANNEL_OPEN:
        if (!channel)
            channel_open(self, number);
        else if (channel->state == CHANNEL_OPEN)
            connection_error(self, 504, method, "second 'channel.open' seen");
        return;
    case AMQP_CHANNEL_CLOSE:
        channel_close(self, number, arguments);
        return;
    case AMQP_CHANNEL_CLOSE_OK:
        if (channel && channel->state == CHANNEL_CLOSING)
            channel_free(channel);
        return;
    default:
        break;
    }
    if (!channel) {
        connection_error(self, 504, method, "expected 'channel.open'");
        return;
    }
    if (channel->state == CHANNEL_CLOSING)
        return;
    if (method == AMQP_CHANNEL_FLOW)
        channel_flow(channel, arguments);
    else if (method >> 16 == AMQP_BASIC_ACK >> 16)
        basic_method(channel, method, arguments);
    else if (method != AMQP_CHANNEL_FLOW_OK)
        method_of_class(channel, method, arguments);
}

/* ---- Names ---- */

void random_letters(struct amqp *self, char *out, int count)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    uint64_t bits = 0;
    for (int i = 0; i < count; i++) {
        if (i % 10 == 0)
            bits = conn_random(self->conn);
        out[i] = letters[bits & 63];
        bits >>= 6;
    }
}

void channel_no_queue(struct channel *channel, uint32_t method, struct slice name)
{
    struct slice vhost = vhost_name(channel->amqp);
    channel_error(channel, 404, method, "no queue '%.*s' in vhost '%.*s'", (int)name.len,
                  (const char *)name.data, (int)vhost.len, (const char *)vhost.data);
}

bool channel_queue_name(struct channel *channel, uint32_t method, struct slice name,
                        struct slice *out)
{
    if (name.len == 0 && channel->last_queue_len == 0) {
        channel_error(channel, 404, method, "no previously declared queue");
        return false;
    }
    *out = name.len ? name : slice_make(channel->last_queue, channel->last_queue_len);
    return true;
}

const struct queue_def *channel_queue(struct channel *channel, uint32_t method, struct slice name)
{
    struct amqp *self = channel->amqp;
    const struct queue_def *queue =
        catalog_queue(conn_catalog(self->conn), self->namespace_id, name);
    if (!queue) {
        channel_no_queue(channel, method, name);
        return NULL;
    }
    if (queue->exclusive && queue->owner != conn_id(self->conn)) {
        struct slice vhost = vhost_name(self);
        channel_error(channel, 405, method,
                      "cannot obtain exclusive access to locked queue '%.*s' in vhost '%.*s'. It "
                      "could be originally declared on another connection or the exclusive "
                      "property value does not match that of the original declaration.",
                      (int)name.len, (const char *)name.data, (int)vhost.len,
                      (const char *)vhost.data);
        return NULL;
    }
    return queue;
}
