/* tx: publishes and acknowledgements wait for the commit, which hands them on one by one (it is a
 * batch, no more, as in RabbitMQ) and answers when every message is safe. */
#include "face/amqp/amqp.h"

#include "gen/amqp_send.h"

#include <stdlib.h>

struct tx_message {
    struct list link;
    struct message_in in; /* slices into bytes */
    size_t len;
    uint8_t bytes[];
};

struct tx_settle {
    struct list link;
    uint32_t method;
    uint64_t tag;
    bool multiple;
    enum command_type type;
};

struct tx {
    struct list messages, settles;
    struct pending *commit; /* commit-ok is due */
    bool refused;
};

void tx_empty(struct channel *channel)
{
    struct tx *tx = channel->transaction;
    if (!tx)
        return;
    list_each(node, &tx->messages)
    {
        struct tx_message *message = list_entry(node, struct tx_message, link);
        room_give(channel->amqp, sizeof *message + message->len);
        list_remove(node);
        free(message);
    }
    list_each(node, &tx->settles)
    {
        list_remove(node);
        room_give(channel->amqp, sizeof(struct tx_settle));
        free(list_entry(node, struct tx_settle, link));
    }
}

void tx_free(struct channel *channel)
{
    if (!channel->transaction)
        return;
    tx_empty(channel);
    if (channel->transaction->commit && channel->amqp->stage != STAGE_DONE)
        pending_remove(channel->amqp, channel->transaction->commit);
    free(channel->transaction);
    channel->transaction = NULL;
}

static struct slice keep(uint8_t **at, struct slice bytes)
{
    struct slice kept = slice_make(*at, bytes.len);
    if (bytes.len)
        memcpy(*at, bytes.data, bytes.len);
    *at += bytes.len;
    return kept;
}

void tx_publish(struct channel *channel, const struct message_in *in)
{
    struct amqp *self = channel->amqp;
    size_t len = in->exchange.len + in->routing_key.len + in->list.len + in->body.len;
    struct tx_message *message = NULL;
    if (room_take(self, sizeof *message + len)) {
        message = malloc(sizeof *message + len);
        if (!message)
            room_give(self, sizeof *message + len);
    }
    if (!message) {
        connection_error(self, 506, AMQP_BASIC_PUBLISH, "too much memory for unfinished messages");
        return;
    }
    uint8_t *at = message->bytes;
    message->len = len;
    message->in = *in;
    message->in.memory = NULL;
    message->in.exchange = keep(&at, in->exchange);
    message->in.routing_key = keep(&at, in->routing_key);
    message->in.list = keep(&at, in->list);
    message->in.body = keep(&at, in->body);
    room_arrived(self, len);
    connection_timer_set(self);
    list_insert(&channel->transaction->messages, &message->link);
}

void tx_ack(struct channel *channel, uint32_t method, uint64_t tag, bool multiple,
            enum command_type type)
{
    if (!(multiple && tag == 0) && leases_find(&channel->leases, tag) < 0) {
        channel_error(channel, 406, method, "unknown delivery tag %llu", (unsigned long long)tag);
        return;
    }
    struct tx_settle *settle = NULL;
    if (room_take(channel->amqp, sizeof *settle)) {
        settle = malloc(sizeof *settle);
        if (!settle)
            room_give(channel->amqp, sizeof *settle);
    }
    if (!settle) {
        connection_error(channel->amqp, 506, method, "too much memory for a transaction");
        return;
    }
    settle->method = method;
    settle->tag = tag;
    settle->multiple = multiple;
    settle->type = type;
    list_insert(&channel->transaction->settles, &settle->link);
}

void tx_refused(struct channel *channel)
{
    channel->transaction->refused = true;
}

void tx_confirmed(struct channel *channel)
{
    struct tx *tx = channel->transaction;
    struct amqp *self = channel->amqp;
    if (!tx->commit)
        return;
    pending_remove(self, tx->commit);
    tx->commit = NULL;
    if (tx->refused)
        channel_error(channel, 406, AMQP_TX_COMMIT, "partial tx completion");
    else
        amqp_tx_commit_ok_send(self->conn, channel->number, &(struct amqp_tx_commit_ok){0});
    if (self->pending_count == 0)
        input_resume(self);
}

static void never(struct channel *channel, struct pending *pending, const struct event *event)
{
    (void)channel;
    (void)pending;
    (void)event;
}

static bool messages_publish(struct channel *channel)
{
    struct tx *tx = channel->transaction;
    while (!list_empty(&tx->messages)) {
        struct tx_message *message = list_entry(tx->messages.next, struct tx_message, link);
        list_remove(&message->link);
        room_give(channel->amqp, sizeof *message + message->len);
        uint64_t seq = confirm_begin(channel);
        if (seq == 0)
            connection_error(channel->amqp, 506, AMQP_TX_COMMIT, "out of memory");
        bool published = seq != 0 && publish_now(channel, &message->in, seq);
        free(message);
        if (!published)
            return false; /* an error has closed the channel, and with it the transaction */
    }
    return true;
}

static bool settles_apply(struct channel *channel)
{
    struct tx *tx = channel->transaction;
    while (!list_empty(&tx->settles)) {
        struct tx_settle *settle = list_entry(tx->settles.next, struct tx_settle, link);
        list_remove(&settle->link);
        room_give(channel->amqp, sizeof *settle);
        bool applied =
            ack_apply(channel, settle->method, settle->tag, settle->multiple, settle->type);
        free(settle);
        if (!applied)
            return false;
    }
    return true;
}

static void commit(struct channel *channel)
{
    struct tx *tx = channel->transaction;
    tx->refused = false;
    if (!messages_publish(channel) || !settles_apply(channel))
        return;
    tx->commit = pending_add(channel->amqp, channel, AMQP_TX_COMMIT, never);
    if (tx->commit && channel->confirms.count == 0)
        tx_confirmed(channel);
}

static void begin(struct channel *channel)
{
    if (channel->confirm) {
        channel_error(channel, 406, AMQP_TX_SELECT, "cannot switch from confirm to tx mode");
        return;
    }
    if (!channel->tx) {
        channel->transaction = calloc(1, sizeof *channel->transaction);
        if (!channel->transaction) {
            connection_error(channel->amqp, 506, AMQP_TX_SELECT, "out of memory");
            return;
        }
        list_init(&channel->transaction->messages);
        list_init(&channel->transaction->settles);
        channel->tx = true;
    }
    amqp_tx_select_ok_send(channel->amqp->conn, channel->number, &(struct amqp_tx_select_ok){0});
}

void tx_method(struct channel *channel, uint32_t method, struct slice arguments)
{
    if (arguments.len != 0) {
        arguments_error(channel->amqp, method);
    } else if (method == AMQP_TX_SELECT) {
        begin(channel);
    } else if (!channel->tx) {
        channel_error(channel, 406, method, "channel is not transactional");
    } else if (method == AMQP_TX_COMMIT) {
        commit(channel);
    } else {
        tx_empty(channel);
        amqp_tx_rollback_ok_send(channel->amqp->conn, channel->number,
                                 &(struct amqp_tx_rollback_ok){0});
    }
}
