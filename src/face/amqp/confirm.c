/* Publisher confirms. A message that went to n cells is confirmed by n EVENT_PUBLISHED; answers may
 * come before conn_publish returned, so a slot counts down from zero and is complete when it is
 * back at zero and known to be sent. What is done from the front on is acknowledged as one, the
 * rest by itself. In a transaction the same slots say when a commit is complete. */
#include "face/amqp/amqp.h"

#include "gen/amqp_send.h"

#include <stdlib.h>

enum { CAPACITY_MIN = 64 };

static struct confirm_slot *slot_at(const struct confirms *confirms, uint32_t index)
{
    return &confirms->slots[(confirms->head + index) & (confirms->capacity - 1)];
}

static bool grow(struct confirms *confirms)
{
    uint32_t capacity = confirms->capacity ? confirms->capacity * 2 : CAPACITY_MIN;
    if (capacity < confirms->capacity)
        return false;
    struct confirm_slot *slots = malloc(capacity * sizeof *slots);
    if (!slots)
        return false;
    for (uint32_t i = 0; i < confirms->count; i++)
        slots[i] = *slot_at(confirms, i);
    free(confirms->slots);
    confirms->slots = slots;
    confirms->capacity = capacity;
    confirms->head = 0;
    return true;
}

uint64_t confirm_first(const struct channel *channel)
{
    return ((uint64_t)channel->incarnation << CONFIRM_TAG_BITS) + 1;
}

void confirms_free(struct channel *channel)
{
    conn_count(channel->amqp->conn, METRIC_MESSAGES_UNCONFIRMED_AMQP,
               -(int64_t)channel->confirms.count);
    free(channel->confirms.slots);
    channel->confirms = (struct confirms){.base = confirm_first(channel)};
}

uint64_t confirm_begin(struct channel *channel)
{
    struct confirms *confirms = &channel->confirms;
    if (confirms->count == confirms->capacity && !grow(confirms))
        return 0;
    conn_count(channel->amqp->conn, METRIC_MESSAGES_UNCONFIRMED_AMQP, 1);
    *slot_at(confirms, confirms->count) = (struct confirm_slot){0};
    return confirms->base + confirms->count++;
}

static bool is_done(const struct confirm_slot *slot)
{
    return slot->sent && slot->left == 0;
}

/* Acknowledged or refused already, though the front has not reached it. */
enum { LEFT_TOLD = INT16_MIN };

static bool is_told(const struct confirm_slot *slot)
{
    return slot->left == LEFT_TOLD;
}

static void ack_send(struct channel *channel, uint64_t seq, bool multiple)
{
    struct amqp_basic_ack m = {.delivery_tag = seq & CONFIRM_TAG, .multiple = multiple};
    channel->amqp->wrote = true;
    amqp_basic_ack_send(channel->amqp->conn, channel->number, &m);
}

static void nack_send(struct channel *channel, uint64_t seq)
{
    struct amqp_basic_nack m = {.delivery_tag = seq & CONFIRM_TAG};
    channel->amqp->wrote = true;
    conn_count(channel->amqp->conn, METRIC_MESSAGES_REFUSED_AMQP, 1);
    amqp_basic_nack_send(channel->amqp->conn, channel->number, &m);
}

static void pop(struct channel *channel, uint32_t count)
{
    struct confirms *confirms = &channel->confirms;
    conn_count(channel->amqp->conn, METRIC_MESSAGES_UNCONFIRMED_AMQP, -(int64_t)count);
    confirms->head = (confirms->head + count) & (confirms->capacity - 1);
    confirms->count -= count;
    confirms->base += count;
}

/* How many at the front are acknowledged; *untold: how many of them nobody was told of, and *last:
 * the last one of those. */
static uint32_t front_run(const struct confirms *confirms, uint32_t *untold, uint32_t *last)
{
    uint32_t run = 0;
    *untold = 0;
    *last = 0;
    for (; run < confirms->count; run++) {
        const struct confirm_slot *slot = slot_at(confirms, run);
        if (is_told(slot))
            continue;
        if (!is_done(slot) || slot->refused)
            break;
        (*untold)++;
        *last = run;
    }
    return run;
}

/* Tells what is done at the front, runs of acknowledged ones at once. */
static void front_tell(struct channel *channel)
{
    struct confirms *confirms = &channel->confirms;
    for (;;) {
        uint32_t untold, last, run = front_run(confirms, &untold, &last);
        /* Never by a tag that was acknowledged already: clients take that for nonsense. */
        if (untold > 0)
            ack_send(channel, confirms->base + last, untold > 1);
        conn_count(channel->amqp->conn, METRIC_MESSAGES_CONFIRMED_AMQP, untold);
        pop(channel, run);
        if (confirms->count == 0 || !is_done(slot_at(confirms, 0)))
            return;
        nack_send(channel, confirms->base);
        pop(channel, 1);
    }
}

static void tell(struct channel *channel, uint64_t first, uint64_t last)
{
    struct confirms *confirms = &channel->confirms;
    if (channel->tx) {
        uint32_t refused = 0;
        while (confirms->count > 0 && is_done(slot_at(confirms, 0))) {
            refused += slot_at(confirms, 0)->refused;
            pop(channel, 1);
        }
        if (refused)
            tx_refused(channel);
        if (confirms->count == 0)
            tx_confirmed(channel);
        return;
    }
    if (confirms->count > 0 && is_done(slot_at(confirms, 0)))
        front_tell(channel);
    for (uint64_t seq = first < confirms->base ? confirms->base : first; seq <= last; seq++) {
        struct confirm_slot *slot = slot_at(confirms, (uint32_t)(seq - confirms->base));
        if (!is_done(slot))
            continue;
        if (slot->refused) {
            nack_send(channel, seq);
        } else {
            ack_send(channel, seq, false);
            conn_count(channel->amqp->conn, METRIC_MESSAGES_CONFIRMED_AMQP, 1);
        }
        slot->left = LEFT_TOLD;
    }
}

void confirm_sent(struct channel *channel, uint64_t seq, uint32_t cells)
{
    struct confirms *confirms = &channel->confirms;
    if (seq < confirms->base || seq - confirms->base >= confirms->count)
        return;
    struct confirm_slot *slot = slot_at(confirms, (uint32_t)(seq - confirms->base));
    slot->left = (int16_t)(slot->left + (int16_t)cells);
    slot->sent = true;
    if (is_done(slot))
        tell(channel, seq, seq);
}

void confirm_event(struct amqp *self, const struct event *event)
{
    struct channel *channel = channel_get(self, event->asker.channel);
    if (!channel || channel->state != CHANNEL_OPEN)
        return;
    struct confirms *confirms = &channel->confirms;
    uint64_t first = event->first_seq, last = event->last_seq;
    if (first < confirms->base || last < first || last - confirms->base >= confirms->count)
        return; /* of an earlier channel of that number */
    bool refused = event->err && event->err != ERR_NOT_FOUND; /* a deleted queue took it with it */
    for (uint64_t seq = first; seq <= last; seq++) {
        struct confirm_slot *slot = slot_at(confirms, (uint32_t)(seq - confirms->base));
        if (is_told(slot))
            continue;
        slot->left--;
        slot->refused |= refused;
    }
    tell(channel, first, last);
}

void confirm_method(struct channel *channel, uint32_t method, struct slice arguments)
{
    struct amqp_confirm_select m;
    if (method != AMQP_CONFIRM_SELECT || !amqp_confirm_select_read(arguments, &m)) {
        arguments_error(channel->amqp, method);
        return;
    }
    if (channel->tx) {
        channel_error(channel, 406, method, "cannot switch from tx to confirm mode");
        return;
    }
    channel->confirm = true;
    if (!m.no_wait)
        amqp_confirm_select_ok_send(channel->amqp->conn, channel->number,
                                    &(struct amqp_confirm_select_ok){0});
}
