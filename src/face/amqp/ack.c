/* basic.ack, nack, reject, recover: tags become offsets, and offsets that follow each other one
 * range of a command. Commands are gathered over an input and sent at its end, or before anything
 * else that must come after them. */
#include "face/amqp/amqp.h"

#include "gen/amqp_send.h"

#include <stdlib.h>

static void batch_send(struct amqp *self, struct settle_batch *batch)
{
    if (batch->count == 0)
        return;
    struct command command = {
        .type = batch->type,
        .asker = {.channel = batch->channel},
        .object = batch->queue,
        .settle = {.undelivered = batch->undelivered},
        .data = slice_make(batch->ranges, batch->count * sizeof batch->ranges[0]),
    };
    conn_command(self->conn, &command);
    batch->count = 0;
}

void settle_flush(struct amqp *self)
{
    for (int i = 0; self->settles && i < SETTLE_BATCHES; i++)
        batch_send(self, &self->settles[i]);
}

/* The batch that the lease belongs to: one that is for its like, else an empty one. */
static struct settle_batch *batch_for(struct amqp *self, enum command_type type, uint16_t channel,
                                      uint64_t queue, bool undelivered)
{
    struct settle_batch *empty = NULL;
    for (int i = 0; i < SETTLE_BATCHES; i++) {
        struct settle_batch *batch = &self->settles[i];
        if (batch->count == 0)
            empty = empty ? empty : batch;
        else if (batch->queue == queue && batch->type == type && batch->channel == channel &&
                 batch->undelivered == undelivered)
            return batch;
    }
    if (!empty) {
        empty = &self->settles[queue % SETTLE_BATCHES];
        batch_send(self, empty);
    }
    empty->type = type;
    empty->channel = channel;
    empty->queue = queue;
    empty->undelivered = undelivered;
    return empty;
}

void settle_add(struct amqp *self, enum command_type type, uint16_t channel, uint64_t queue,
                uint64_t offset, bool undelivered)
{
    if (!self->settles)
        self->settles = calloc(SETTLE_BATCHES, sizeof *self->settles);
    if (!self->settles) {
        connection_error(self, 506, AMQP_BASIC_ACK, "out of memory");
        return;
    }
    struct settle_batch *batch = batch_for(self, type, channel, queue, undelivered);
    if (batch->count > 0 && batch->ranges[batch->count - 1].last + 1 == offset) {
        batch->ranges[batch->count - 1].last = offset;
        return;
    }
    if (batch->count == SETTLE_RANGES)
        batch_send(self, batch);
    batch->ranges[batch->count++] = (struct offset_range){offset, offset};
}

static void resolve(struct channel *channel, uint32_t index, enum command_type type)
{
    struct amqp *self = channel->amqp;
    struct lease lease = *leases_at(&channel->leases, index);
    leases_done(&channel->leases, index);
    if (type == COMMAND_SETTLE)
        conn_count(self->conn, METRIC_MESSAGES_ACKNOWLEDGED_AMQP, 1);
    if (lease.tag & LEASE_STREAM) {
        struct consumer *consumer = consumer_by_id(self, lease.consumer);
        if (consumer)
            stream_credit(consumer, 1);
    } else {
        settle_add(self, type, channel->number, lease.queue, lease.offset, false);
    }
}

bool ack_apply(struct channel *channel, uint32_t method, uint64_t tag, bool multiple,
               enum command_type type)
{
    struct leases *leases = &channel->leases;
    if (multiple && tag == 0) {
        /* What acknowledging lets in behind is not meant. */
        for (uint32_t i = 0, count = leases->count; i < count; i++)
            if (!(leases_at(leases, i)->tag & LEASE_DONE))
                resolve(channel, i, type);
    } else {
        int64_t found = leases_find(leases, tag);
        if (found < 0) {
            channel_error(channel, 406, method, "unknown delivery tag %llu",
                          (unsigned long long)tag);
            return false;
        }
        for (uint32_t i = multiple ? 0 : (uint32_t)found; i <= (uint32_t)found; i++)
            if (!(leases_at(leases, i)->tag & LEASE_DONE))
                resolve(channel, i, type);
    }
    leases_trim(leases);
    deliver_parked(channel);
    return true;
}

static void acknowledge(struct channel *channel, uint32_t method, uint64_t tag, bool multiple,
                        enum command_type type)
{
    if (channel->tx)
        tx_ack(channel, method, tag, multiple, type);
    else
        (void)ack_apply(channel, method, tag, multiple, type);
}

static void recover(struct channel *channel, uint32_t method, bool requeue)
{
    if (!requeue) {
        channel_error(channel, 540, method, "requeue=false");
        return;
    }
    if (!ack_apply(channel, method, 0, true, COMMAND_RETURN))
        return;
    settle_flush(channel->amqp);
    if (method == AMQP_BASIC_RECOVER)
        amqp_basic_recover_ok_send(channel->amqp->conn, channel->number,
                                   &(struct amqp_basic_recover_ok){0});
}

void ack_method(struct channel *channel, uint32_t method, struct slice arguments)
{
    struct amqp_basic_ack a;
    struct amqp_basic_nack n;
    struct amqp_basic_reject r;
    struct amqp_basic_recover c;
    bool read = false;
    switch (method) {
    case AMQP_BASIC_ACK:
        if ((read = amqp_basic_ack_read(arguments, &a)))
            acknowledge(channel, method, a.delivery_tag, a.multiple, COMMAND_SETTLE);
        break;
    case AMQP_BASIC_NACK:
        if ((read = amqp_basic_nack_read(arguments, &n)))
            acknowledge(channel, method, n.delivery_tag, n.multiple,
                        n.requeue ? COMMAND_RETURN : COMMAND_REJECT);
        break;
    case AMQP_BASIC_REJECT:
        if ((read = amqp_basic_reject_read(arguments, &r)))
            acknowledge(channel, method, r.delivery_tag, false,
                        r.requeue ? COMMAND_RETURN : COMMAND_REJECT);
        break;
    default: /* recover and recover-async have the same arguments */
        if ((read = amqp_basic_recover_read(arguments, &c)))
            recover(channel, method, c.requeue);
    }
    if (!read)
        arguments_error(channel->amqp, method);
}
