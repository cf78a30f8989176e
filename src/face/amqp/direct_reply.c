/* Direct reply-to: a client consumes the name amq.rabbitmq.reply-to and publishes requests with
 * that name as their reply-to, which is replaced by one that leads back to it. Behind that name
 * stands an exclusive queue of the connection, which goes with its consumer; so answers take the
 * ordinary way, whichever shard they come from. */
#include "face/amqp/amqp.h"

#include "gen/amqp_send.h"

#include <stdlib.h>

#define ALIAS "amq.rabbitmq.reply-to"
enum { LETTERS = 22, NAME_LEN = sizeof ALIAS + LETTERS };

struct direct_reply {
    uint64_t consumer; /* 0: being set up */
    char name[NAME_LEN];
};

bool direct_reply_is_alias(struct slice name)
{
    return slice_equal(name, slice_of(ALIAS));
}

bool direct_reply_is_name(struct slice name)
{
    return name.len == NAME_LEN && memcmp(name.data, ALIAS ".", sizeof ALIAS) == 0;
}

struct slice direct_reply_name(const struct channel *channel)
{
    const struct direct_reply *reply = channel->direct_reply;
    return reply ? slice_make(reply->name, NAME_LEN) : (struct slice){0};
}

void direct_reply_free(struct channel *channel)
{
    free(channel->direct_reply);
    channel->direct_reply = NULL;
}

void direct_reply_cancelled(struct channel *channel, uint64_t consumer)
{
    if (channel->direct_reply && channel->direct_reply->consumer == consumer)
        direct_reply_free(channel);
}

static void declared(struct channel *channel, struct pending *pending, const struct event *event)
{
    struct amqp *self = channel->amqp;
    struct slice tag = slice_make(pending->name, pending->name_len);
    if (event->err) {
        channel_event_error(channel, pending->method, event);
        return;
    }
    const struct queue_def *queue =
        catalog_queue(conn_catalog(self->conn), self->namespace_id, direct_reply_name(channel));
    struct amqp_basic_consume m = {
        .no_ack = true, .no_wait = pending->no_wait, .consumer_tag = tag};
    if (queue)
        channel->direct_reply->consumer = consume_subscribe(channel, &m, queue, tag, 0);
    else
        channel_no_queue(channel, pending->method, slice_of(ALIAS));
}

static void declare_send(struct channel *channel, const struct amqp_basic_consume *m,
                         struct slice tag)
{
    struct parts *parts;
    struct catalog_request *request =
        catalog_request_new(channel, AMQP_BASIC_CONSUME, CATALOG_DECLARE_QUEUE, &parts);
    if (!request)
        return;
    bool failed = false;
    request->name = parts_slice(parts, direct_reply_name(channel), &failed);
    request->exclusive = request->auto_delete = true;
    struct pending *pending =
        failed ? NULL : pending_add(channel->amqp, channel, AMQP_BASIC_CONSUME, declared);
    if (!pending) {
        parts_destroy(parts);
        return;
    }
    pending->no_wait = m->no_wait;
    pending->name_len = (uint8_t)tag.len;
    memcpy(pending->name, tag.data, tag.len);
    definition_send(channel->amqp, parts, pending);
}

void direct_reply_consume(struct channel *channel, const struct amqp_basic_consume *m,
                          struct slice tag)
{
    if (!m->no_ack) {
        channel_error(channel, 406, AMQP_BASIC_CONSUME, "reply consumer cannot acknowledge");
        return;
    }
    if (channel->direct_reply) {
        channel_error(channel, 406, AMQP_BASIC_CONSUME, "reply consumer already set");
        return;
    }
    struct direct_reply *reply = calloc(1, sizeof *reply);
    if (!reply) {
        connection_error(channel->amqp, 506, AMQP_BASIC_CONSUME, "out of memory");
        return;
    }
    memcpy(reply->name, ALIAS ".", sizeof ALIAS);
    random_letters(channel->amqp, reply->name + sizeof ALIAS, LETTERS);
    channel->direct_reply = reply;
    declare_send(channel, m, tag);
}
