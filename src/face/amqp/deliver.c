/* Messages on their way to a client: basic.deliver, get-ok and return are a method, a header frame
 * and body frames. A small message is encoded in one go into the output; a large body is shared
 * from the block it stands in. A channel with a global prefetch takes no more than that out of what
 * the cells send: the surplus is parked, as a copy, until acknowledgements make room. */
#include "face/amqp/amqp.h"

#include "codec/amqp_wire.h"
#include "codec/entry.h"
#include "codec/message.h"
#include "gen/amqp_send.h"

#include <stdlib.h>

enum {
    RESERVE_BYTES_MAX = 64 << 10,
    OUTPUT_LOW_BYTES = 256 << 10, /* below this much unsent output a window is reported at once */
    WINDOW_STEP_BYTES = DELIVERY_WINDOW_BYTES / 8,
};

/* A delivery above the global prefetch. */
struct parked {
    struct list link; /* on channel->parked */
    uint64_t consumer, queue, offset;
    bool redelivered;
    size_t len;
    uint8_t entry[];
};

/* ---- Content ---- */

static uint8_t *header_put(uint8_t *at, uint16_t number, struct slice list, size_t body_len)
{
    at = amqp_frame_head_put(at, AMQP_FRAME_HEADER, number, AMQP_CONTENT_HEAD_BYTES + list.len);
    be32_put(at, (AMQP_BASIC_DELIVER >> 16) << 16); /* class, weight 0 */
    be64_put(at + 4, body_len);
    memcpy(at + AMQP_CONTENT_HEAD_BYTES, list.data, list.len);
    at += AMQP_CONTENT_HEAD_BYTES + list.len;
    *at++ = AMQP_FRAME_END;
    return at;
}

static uint8_t *body_put(uint8_t *at, uint16_t number, struct slice body, size_t piece_max)
{
    for (size_t sent = 0; sent < body.len;) {
        size_t piece = body.len - sent < piece_max ? body.len - sent : piece_max;
        at = amqp_frame_head_put(at, AMQP_FRAME_BODY, number, piece);
        memcpy(at, body.data + sent, piece);
        at += piece;
        *at++ = AMQP_FRAME_END;
        sent += piece;
    }
    return at;
}

static size_t content_size(const struct amqp *self, struct slice list, struct slice body)
{
    size_t piece_max = self->frame_max - AMQP_FRAME_OVERHEAD_BYTES;
    size_t frames = (body.len + piece_max - 1) / piece_max;
    return AMQP_FRAME_OVERHEAD_BYTES + AMQP_CONTENT_HEAD_BYTES + list.len + body.len +
           frames * AMQP_FRAME_OVERHEAD_BYTES;
}

/* The long way: the body shared, or copied when there is nothing to share. */
static void body_send(struct channel *channel, struct slice body, struct buf *buf)
{
    struct amqp *self = channel->amqp;
    size_t piece_max = self->frame_max - AMQP_FRAME_OVERHEAD_BYTES;
    static const uint8_t end = AMQP_FRAME_END;
    for (size_t sent = 0; sent < body.len;) {
        size_t piece = body.len - sent < piece_max ? body.len - sent : piece_max;
        uint8_t head[AMQP_FRAME_HEAD_BYTES];
        (void)amqp_frame_head_put(head, AMQP_FRAME_BODY, channel->number, piece);
        conn_copy(self->conn, head, sizeof head);
        if (buf && piece >= SHARE_BYTES_MIN)
            conn_share(self->conn, buf, slice_make(body.data + sent, piece));
        else
            conn_copy(self->conn, body.data + sent, piece);
        conn_copy(self->conn, &end, 1);
        sent += piece;
    }
}

static void header_send(struct channel *channel, struct slice list, size_t body_len)
{
    uint8_t head[AMQP_FRAME_HEAD_BYTES + AMQP_CONTENT_HEAD_BYTES];
    static const uint8_t end = AMQP_FRAME_END;
    uint8_t *at = amqp_frame_head_put(head, AMQP_FRAME_HEADER, channel->number,
                                      AMQP_CONTENT_HEAD_BYTES + list.len);
    be32_put(at, (AMQP_BASIC_DELIVER >> 16) << 16);
    be64_put(at + 4, body_len);
    conn_copy(channel->amqp->conn, head, sizeof head);
    conn_copy(channel->amqp->conn, list.data, list.len);
    conn_copy(channel->amqp->conn, &end, 1);
}

static bool is_small(const struct amqp *self, size_t extra, struct slice list, struct slice body)
{
    return body.len < SHARE_BYTES_MIN &&
           extra + content_size(self, list, body) <= RESERVE_BYTES_MAX;
}

void content_send(struct channel *channel, struct slice list, struct slice body, struct buf *buf)
{
    struct amqp *self = channel->amqp;
    self->wrote = true;
    if (!is_small(self, 0, list, body)) {
        header_send(channel, list, body.len);
        body_send(channel, body, buf);
        return;
    }
    uint8_t *begin = conn_reserve(self->conn, content_size(self, list, body));
    if (!begin)
        return;
    uint8_t *at = header_put(begin, channel->number, list, body.len);
    at = body_put(at, channel->number, body, self->frame_max - AMQP_FRAME_OVERHEAD_BYTES);
    conn_commit(self->conn, (size_t)(at - begin));
}

void deliver_send(struct consumer *consumer, uint64_t tag, bool redelivered, struct slice exchange,
                  struct slice routing_key, struct slice list, struct slice body, struct buf *buf)
{
    struct channel *channel = consumer->channel;
    struct amqp *self = channel->amqp;
    struct amqp_basic_deliver m = {
        .consumer_tag = consumer_tag(consumer),
        .delivery_tag = tag,
        .redelivered = redelivered,
        .exchange = exchange,
        .routing_key = routing_key,
    };
    conn_count(self->conn,
               consumer->no_ack ? METRIC_MESSAGES_DELIVERED_AMQP_CONSUME_AUTO_ACK
                                : METRIC_MESSAGES_DELIVERED_AMQP_CONSUME_MANUAL_ACK,
               1);
    if (redelivered)
        conn_count(self->conn, METRIC_MESSAGES_REDELIVERED_AMQP, 1);
    size_t method_size = amqp_basic_deliver_frame_size(&m);
    if (!is_small(self, method_size, list, body)) {
        amqp_basic_deliver_send(self->conn, channel->number, &m);
        content_send(channel, list, body, buf);
        return;
    }
    self->wrote = true;
    uint8_t *begin = conn_reserve(self->conn, method_size + content_size(self, list, body));
    if (!begin)
        return;
    uint8_t *at = begin + amqp_basic_deliver_frame(begin, channel->number, &m);
    at = header_put(at, channel->number, list, body.len);
    at = body_put(at, channel->number, body, self->frame_max - AMQP_FRAME_OVERHEAD_BYTES);
    conn_commit(self->conn, (size_t)(at - begin));
}

/* ---- Windows: the cells send no more than a window ahead of what left for the client ---- */

static void window_report(struct consumer *consumer)
{
    struct amqp *self = consumer->channel->amqp;
    struct command command = {
        .type = COMMAND_WINDOW,
        .asker = {.channel = consumer->channel->number},
        .object = consumer->queue,
        .window = {.consumer = consumer->id, .bytes = consumer->unreported},
    };
    consumer->unreported = 0;
    list_remove(&consumer->due);
    conn_command(self->conn, &command);
}

static void window_used(struct consumer *consumer, size_t bytes)
{
    struct amqp *self = consumer->channel->amqp;
    consumer->unreported += (uint32_t)bytes;
    if (consumer->unreported < WINDOW_STEP_BYTES || !list_empty(&consumer->due))
        return;
    if (conn_output_pending(self->conn) <= OUTPUT_LOW_BYTES) {
        window_report(consumer);
        return;
    }
    list_insert(&self->unreported, &consumer->due);
    connection_timer_set(self);
}

void window_drained(struct amqp *self)
{
    if (conn_output_pending(self->conn) > OUTPUT_LOW_BYTES)
        return;
    while (!list_empty(&self->unreported)) {
        struct consumer *consumer = list_entry(self->unreported.next, struct consumer, due);
        if (!consumer->stream) {
            window_report(consumer);
            continue;
        }
        list_remove(&consumer->due);
        stream_drained(consumer);
        if (conn_output_pending(self->conn) > OUTPUT_LOW_BYTES)
            break;
    }
}

/* ---- Deliveries ---- */

/* Undecodable entries cannot come out of the broker; one that does is settled and not shown. */
static bool lease_keep(struct channel *channel, uint64_t consumer, uint64_t queue, uint64_t offset,
                       uint64_t *tag)
{
    *tag = channel->next_tag;
    struct lease lease = {.tag = *tag, .queue = queue, .consumer = consumer, .offset = offset};
    if (!leases_add(&channel->leases, &lease)) {
        connection_error(channel->amqp, 506, AMQP_BASIC_DELIVER, "out of memory");
        return false;
    }
    channel->next_tag++;
    return true;
}

static bool park(struct channel *channel, const struct delivery *delivery)
{
    struct parked *parked = malloc(sizeof *parked + delivery->entry.len);
    if (!parked) {
        connection_error(channel->amqp, 506, AMQP_BASIC_DELIVER, "out of memory");
        return false;
    }
    parked->consumer = delivery->consumer;
    parked->queue = delivery->queue;
    parked->offset = delivery->offset;
    parked->redelivered = delivery->count > 0;
    parked->len = delivery->entry.len;
    memcpy(parked->entry, delivery->entry.data, delivery->entry.len);
    list_insert(&channel->parked, &parked->link);
    return true;
}

static bool has_room(const struct channel *channel)
{
    return channel->prefetch_global == 0 || channel->leases.live < channel->prefetch_global;
}

static void deliver_one(struct consumer *consumer, uint64_t queue, uint64_t offset,
                        bool redelivered, struct slice entry, struct buf *buf)
{
    struct channel *channel = consumer->channel;
    struct message_parts parts;
    uint64_t tag = channel->next_tag;
    if (!message_split(entry, &parts)) {
        settle_add(channel->amqp, COMMAND_SETTLE, channel->number, queue, offset, false);
        settle_flush(channel->amqp);
        return;
    }
    if (consumer->no_ack)
        channel->next_tag++;
    else if (!lease_keep(channel, consumer->id, queue, offset, &tag))
        return;
    deliver_send(consumer, tag, redelivered, parts.exchange, parts.routing_key, parts.list,
                 parts.body, buf);
    window_used(consumer, entry.len);
}

static void get_ok(struct amqp *self, const struct event *event)
{
    const struct delivery *delivery = &event->deliver;
    struct pending *pending = pending_find(self, event->asker.tag);
    if (!pending)
        return;
    struct channel *channel = channel_get(self, pending->channel);
    bool wanted =
        channel && channel->incarnation == pending->incarnation && channel->state == CHANNEL_OPEN;
    bool no_ack = pending->no_wait; /* what a get keeps there */
    pending_remove(self, pending);
    struct message_parts parts;
    if (wanted && message_split(delivery->entry, &parts)) {
        uint64_t tag = channel->next_tag;
        if (no_ack)
            channel->next_tag++;
        else if (!lease_keep(channel, 0, delivery->queue, delivery->offset, &tag))
            return;
        struct amqp_basic_get_ok m = {
            .delivery_tag = tag,
            .redelivered = delivery->count > 0,
            .exchange = parts.exchange,
            .routing_key = parts.routing_key,
            .message_count = delivery->ready,
        };
        conn_count(self->conn,
                   no_ack ? METRIC_MESSAGES_DELIVERED_AMQP_GET_AUTO_ACK
                          : METRIC_MESSAGES_DELIVERED_AMQP_GET_MANUAL_ACK,
                   1);
        if (m.redelivered)
            conn_count(self->conn, METRIC_MESSAGES_REDELIVERED_AMQP, 1);
        amqp_basic_get_ok_send(self->conn, channel->number, &m);
        content_send(channel, parts.list, parts.body, delivery->buf);
    }
    if (self->pending_count == 0)
        input_resume(self);
}

void deliver_event(struct amqp *self, const struct event *event)
{
    const struct delivery *delivery = &event->deliver;
    if (delivery->consumer == 0) {
        get_ok(self, event);
        return;
    }
    struct consumer *consumer = consumer_by_id(self, delivery->consumer);
    if (!consumer || consumer->channel->state != CHANNEL_OPEN)
        return; /* the channel is going, and gives back what it was leased */
    struct channel *channel = consumer->channel;
    if (consumer->no_ack || (has_room(channel) && list_empty(&channel->parked)))
        deliver_one(consumer, delivery->queue, delivery->offset, delivery->count > 0,
                    delivery->entry, delivery->buf);
    else
        (void)park(channel, delivery);
}

void deliver_parked(struct channel *channel)
{
    while (!list_empty(&channel->parked) && has_room(channel) && channel->state == CHANNEL_OPEN) {
        struct parked *parked = list_entry(channel->parked.next, struct parked, link);
        list_remove(&parked->link);
        struct consumer *consumer = consumer_by_id(channel->amqp, parked->consumer);
        if (consumer)
            deliver_one(consumer, parked->queue, parked->offset, parked->redelivered,
                        slice_make(parked->entry, parked->len), NULL);
        free(parked);
    }
}

void parked_return(struct channel *channel, uint64_t consumer)
{
    list_each(node, &channel->parked)
    {
        struct parked *parked = list_entry(node, struct parked, link);
        if (consumer != 0 && parked->consumer != consumer)
            continue;
        if (channel->amqp->stage < STAGE_CLOSING)
            settle_add(channel->amqp, COMMAND_RETURN, channel->number, parked->queue,
                       parked->offset, true);
        list_remove(&parked->link);
        free(parked);
    }
}
