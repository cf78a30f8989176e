/* Delivering: consumers attach with credit, and each round hands the first ready messages to them
 * in turn. A message given to a consumer that acknowledges is leased to it; one given to a consumer
 * that does not is settled at once. */
#include "core/queue.h"

#include "codec/entry.h"

#include <assert.h>
#include <stdlib.h>

enum { DELIVER_ROUND = 512 }; /* messages per queue and turn, so that others get theirs */

static struct subscription *subscription_find(struct queue *queue, const struct asker *asker,
                                              uint64_t consumer)
{
    struct attached *attached = cell_attached(queue->cell, asker->conn, false);
    if (attached == NULL)
        return NULL;
    if (consumer != 0) {
        struct subscription *subscription = map_get(&attached->consumers, consumer);
        bool same = subscription != NULL && subscription->queue == queue &&
                    subscription->channel == asker->channel;
        return same ? subscription : NULL;
    }
    list_each(node, &attached->subscriptions)
    {
        struct subscription *subscription = list_entry(node, struct subscription, conn_link);
        if (subscription->queue == queue && subscription->channel == asker->channel &&
            subscription->consumer == 0)
            return subscription;
    }
    return NULL;
}

static struct subscription *subscription_create(struct queue *queue, const struct asker *asker,
                                                uint64_t consumer)
{
    struct attached *attached = cell_attached(queue->cell, asker->conn, true);
    struct subscription *subscription = attached ? calloc(1, sizeof *subscription) : NULL;
    if (subscription == NULL)
        return NULL;
    subscription->queue = queue;
    subscription->conn = asker->conn;
    subscription->channel = asker->channel;
    subscription->consumer = consumer;
    if (consumer != 0 && !map_put(&attached->consumers, consumer, subscription)) {
        free(subscription);
        return NULL;
    }
    list_init(&subscription->queue_link);
    list_init(&subscription->leases);
    list_insert(&attached->subscriptions, &subscription->conn_link);
    return subscription;
}

void subscription_free(struct subscription *subscription)
{
    struct attached *attached = cell_attached(subscription->queue->cell, subscription->conn, false);
    if (attached != NULL && map_get(&attached->consumers, subscription->consumer) == subscription)
        map_take(&attached->consumers, subscription->consumer);
    list_remove(&subscription->queue_link);
    list_remove(&subscription->conn_link);
    free(subscription);
}

/* Puts it behind all of its own priority and above, but never before a single active consumer. */
static void subscription_enqueue(struct queue *queue, struct subscription *subscription)
{
    struct list *at = queue->subscriptions.prev, *first = &queue->subscriptions;
    if (queue->options.single_active_consumer && !list_empty(&queue->subscriptions))
        first = queue->subscriptions.next;
    while (at != first &&
           list_entry(at, struct subscription, queue_link)->priority < subscription->priority)
        at = at->prev;
    list_insert(at->next, &subscription->queue_link);
}

static bool has_exclusive(const struct list *subscriptions)
{
    const struct list *first = subscriptions->next; /* it would be alone */
    return first != subscriptions && list_entry(first, struct subscription, queue_link)->exclusive;
}

void queue_subscribe(struct queue *queue, const struct command *command)
{
    struct cell *cell = queue->cell;
    bool exclusive = (command->subscribe.flags & SUBSCRIBE_EXCLUSIVE) != 0;
    if (has_exclusive(&queue->subscriptions) || has_exclusive(&queue->waiting) ||
        (exclusive && queue->consumers > 0)) {
        cell_reply(cell, command, ERR_EXCLUSIVE_USE, NULL);
        return;
    }
    struct subscription *subscription =
        subscription_create(queue, &command->asker, command->subscribe.consumer);
    if (subscription == NULL) {
        cell_reply(cell, command, ERR_NO_MEMORY, NULL);
        return;
    }
    subscription->active = true;
    subscription->exclusive = exclusive;
    subscription->no_ack = (command->subscribe.flags & SUBSCRIBE_NO_ACK) != 0;
    subscription->priority = command->subscribe.priority;
    subscription->prefetch = subscription->no_ack ? 0 : command->subscribe.prefetch;
    subscription->window = command->subscribe.window;
    subscription_enqueue(queue, subscription);
    queue->consumers++;
    queue->had_consumer = true;
    cell_reply_value(cell, command, queue_ready(queue), queue->consumers);
    queue_wake(queue);
}

void subscription_release(struct subscription *subscription)
{
    if (subscription->active || !list_empty(&subscription->leases))
        return;
    subscription_free(subscription);
}

static void deliveries_end(struct queue *queue, struct subscription *subscription)
{
    assert(subscription->active);
    subscription->active = subscription->waiting = false;
    list_remove(&subscription->queue_link);
    queue->consumers--;
    queue->used_ms = queue->cell->now_ms;
    queue_set_timer(queue);
}

void queue_unreadable(struct queue *queue, enum err err)
{
    struct list *lists[] = {&queue->subscriptions, &queue->waiting};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        list_each(node, lists[i])
        {
            struct subscription *subscription = list_entry(node, struct subscription, queue_link);
            struct event event = {
                .type = EVENT_CANCELLED,
                .asker = {.conn = subscription->conn, .channel = subscription->channel}};
            event.cancelled.consumer = subscription->consumer;
            deliveries_end(queue, subscription);
            cell_answer(queue->cell, &event, false);
            subscription_release(subscription);
        }
    }
    queue_end_gets(queue, err, false);
}

/* Ends deliveries to it. An auto-delete queue goes with its last consumer: then the answer to
 * `command` (may be NULL) waits for that, and true is returned. */
static bool deactivate(struct queue *queue, struct subscription *subscription,
                       const struct command *command)
{
    struct cell *cell = queue->cell;
    deliveries_end(queue, subscription);
    queue_wake(queue);
    if (queue->consumers > 0 || !queue->auto_delete || queue->dying)
        return false;
    const struct queue_def *def = catalog_queue_by_id(cell->catalog, queue->ledger.stream.id);
    if (def == NULL)
        return false;
    uint64_t tag = 0;
    if (command != NULL && command->asker.conn != 0) {
        struct deletion *deletion = malloc(sizeof *deletion);
        tag = cell->next_tag + 1;
        if (deletion != NULL && map_put(&cell->deletions, tag, deletion)) {
            cell->next_tag++;
            *deletion = (struct deletion){.asker = command->asker, .cancel = true};
        } else {
            free(deletion);
            tag = 0;
        }
    }
    queue->dying =
        definitions_ask_delete(cell, def->namespace_id, def->name, def->id, def->owner, tag);
    queue->asked_ms = cell->now_ms;
    if (!queue->dying)
        free(map_take(&cell->deletions, tag));
    return queue->dying && tag != 0;
}

void queue_cancel(struct queue *queue, const struct command *command)
{
    struct subscription *subscription =
        subscription_find(queue, &command->asker, command->subscribe.consumer);
    if (subscription == NULL || !subscription->active) {
        cell_reply(queue->cell, command, ERR_NONE, NULL);
        return;
    }
    if (!deactivate(queue, subscription, command))
        cell_reply(queue->cell, command, ERR_NONE, NULL);
    subscription_release(subscription);
}

static bool has_credit(const struct subscription *subscription)
{
    if (subscription->prefetch != 0 && subscription->leased >= subscription->prefetch)
        return false;
    return subscription->window == 0 || subscription->unreported < subscription->window;
}

/* It may have got credit: then it takes its turn behind the others. */
static void credit_changed(struct subscription *subscription)
{
    if (!subscription->waiting || !has_credit(subscription))
        return;
    subscription->waiting = false;
    list_remove(&subscription->queue_link);
    subscription_enqueue(subscription->queue, subscription);
}

/* The consumer whose turn it is; NULL when none has credit. */
static struct subscription *pick(struct queue *queue)
{
    list_each(node, &queue->subscriptions)
    {
        struct subscription *subscription = list_entry(node, struct subscription, queue_link);
        if (has_credit(subscription))
            return subscription;
        if (queue->options.single_active_consumer)
            return NULL;
        subscription->waiting = true;
        list_remove(node);
        list_insert(&queue->waiting, node);
    }
    return NULL;
}

void queue_window(struct queue *queue, const struct command *command)
{
    struct subscription *subscription =
        subscription_find(queue, &command->asker, command->window.consumer);
    if (subscription == NULL)
        return;
    uint32_t bytes = command->window.bytes;
    subscription->unreported -= bytes < subscription->unreported ? bytes : subscription->unreported;
    credit_changed(subscription);
    queue_wake(queue);
}

void leases_account(struct cell *cell, uint64_t more)
{
    cell->leases += more;
    if (cell->config.store.memory_bytes != NULL)
        *cell->config.store.memory_bytes += more * LEASE_BYTES;
}

/* NULL when memory is exhausted, or the part of it that may go into what is out with consumers. */
static struct lease *lease_create(struct queue *queue, struct subscription *subscription,
                                  uint64_t offset, struct slice entry)
{
    struct cell *cell = queue->cell;
    if ((cell->leases + 1) * LEASE_BYTES > cell->config.store.memory_limit / 2)
        return NULL;
    struct lease *lease = malloc(sizeof *lease);
    if (lease == NULL)
        return NULL;
    if (!map_put(&queue->leases, offset, lease)) {
        free(lease);
        return NULL;
    }
    lease->subscription = subscription;
    lease->offset = offset;
    lease->body_bytes = entry_body_bytes(entry);
    lease->fleeting = ledger_is_fleeting(&queue->ledger, offset);
    list_insert(&subscription->leases, &lease->link);
    subscription->leased++;
    leases_account(cell, 1);
    queue->unready_bytes += lease->body_bytes;
    return lease;
}

void queue_unlease(struct queue *queue, struct lease *lease)
{
    struct subscription *subscription = lease->subscription;
    map_take(&queue->leases, lease->offset);
    list_remove(&lease->link);
    subscription->leased--;
    leases_account(queue->cell, -UINT64_C(1));
    credit_changed(subscription);
    queue->unready_bytes -= lease->body_bytes;
    free(lease);
}

static void hand_over(struct queue *queue, const struct asker *asker, uint64_t consumer,
                      const struct entry *entry, uint64_t offset, uint64_t ready)
{
    uint32_t returns = ledger_returns(&queue->ledger, offset);
    if (returns == 0 && offset < queue->recovered)
        returns = 1;
    struct event event = {.type = EVENT_DELIVER, .asker = *asker};
    event.deliver = (struct delivery){
        .queue = queue->ledger.stream.id,
        .consumer = consumer,
        .offset = offset,
        .ready = ready > UINT32_MAX ? UINT32_MAX : (uint32_t)ready,
        .count = returns > UINT16_MAX ? UINT16_MAX : (uint16_t)returns,
        .entry = entry->data,
        .buf = entry->buf,
    };
    queue->cell->stats.delivered++;
    queue->cell->config.out->event(queue->cell->config.ctx, &event);
}

/* Messages of a round that were given out without a lease, as one run of offsets. */
struct settled_run {
    struct offset_range range;
    uint64_t bytes, durable_bytes;
    bool any;
};

static void end_run(struct queue *queue, struct settled_run *run)
{
    if (!run->any)
        return;
    run->any = false;
    queue_settle(queue, &run->range, 1, run->bytes, run->durable_bytes);
}

static void add_to_run(struct queue *queue, struct settled_run *run, uint64_t offset,
                       struct slice entry)
{
    uint32_t bytes = entry_body_bytes(entry); /* before the run's end may move it away */
    if (run->any && run->range.last + 1 != offset)
        end_run(queue, run);
    if (!run->any)
        *run = (struct settled_run){.range = {offset, offset}, .any = true};
    run->range.last = offset;
    run->bytes += bytes;
    if (!ledger_is_fleeting(&queue->ledger, offset))
        run->durable_bytes += bytes;
}

/* Is the entry past its time? Then it is buried. What came in this turn may still be delivered: a
 * time to live of 0 means now or never. */
static bool bury_if_expired(struct queue *queue, uint64_t offset, struct slice entry)
{
    if (!queue->has_expiry || offset >= queue->aged ||
        queue_expiry(queue, entry) > queue->cell->wall_ms)
        return false;
    queue_take(queue, offset);
    queue->cell->stats.expired++;
    queue_bury(queue, offset, DEATH_EXPIRED, entry_body_bytes(entry));
    return true;
}

static void deliver_round(struct queue *queue)
{
    struct settled_run run = {.any = false};
    uint64_t offset;
    int left = DELIVER_ROUND;
    for (; left > 0; left--) {
        struct subscription *subscription = pick(queue);
        if (subscription == NULL || !queue_next(queue, &offset))
            break;
        struct entry entry;
        enum stream_found found = queue_peek(queue, offset, &entry);
        if (found == STREAM_MISS)
            break;
        if (found == STREAM_END) {
            queue_skip(queue, offset);
            continue;
        }
        if (bury_if_expired(queue, offset, entry.data))
            continue;
        if (!subscription->no_ack &&
            lease_create(queue, subscription, offset, entry.data) == NULL) {
            queue_try_again(queue); /* queue_tidy sets the timer */
            break;
        }
        queue_take(queue, offset);
        if (subscription->window != 0)
            subscription->unreported += (uint32_t)entry.data.len;
        struct asker asker = {.conn = subscription->conn, .channel = subscription->channel};
        hand_over(queue, &asker, subscription->consumer, &entry, offset, 0);
        if (subscription->no_ack)
            add_to_run(queue, &run, offset, entry.data);
        if (queue->consumers > 1 && !queue->options.single_active_consumer) {
            list_remove(&subscription->queue_link);
            subscription_enqueue(queue, subscription);
        }
    }
    end_run(queue, &run);
    if (left == 0)
        queue_wake(queue);
}

struct parked_get {
    struct list link;      /* on queue->gets */
    struct list cell_link; /* on cell->parked */
    struct command command;
};

static void unpark(struct parked_get *parked)
{
    list_remove(&parked->link);
    list_remove(&parked->cell_link);
}

void queue_park_get(struct queue *queue, const struct command *command)
{
    struct parked_get *parked = malloc(sizeof *parked);
    if (parked == NULL) {
        cell_reply(queue->cell, command, ERR_NO_MEMORY, NULL);
        return;
    }
    parked->command = *command;
    list_insert(&queue->gets, &parked->link);
    list_insert(&queue->cell->parked, &parked->cell_link);
}

void queue_end_gets(struct queue *queue, enum err err, bool quiet)
{
    list_each(node, &queue->gets)
    {
        struct parked_get *parked = list_entry(node, struct parked_get, link);
        unpark(parked);
        if (!quiet)
            cell_reply(queue->cell, &parked->command, err, NULL);
        free(parked);
    }
}

/* Nobody waits for these any more. */
static void drop_gets(struct cell *cell, uint64_t conn, int32_t channel)
{
    list_each(node, &cell->parked)
    {
        struct parked_get *parked = list_entry(node, struct parked_get, cell_link);
        const struct asker *asker = &parked->command.asker;
        if (asker->conn != conn || (channel >= 0 && asker->channel != (uint16_t)channel))
            continue;
        unpark(parked);
        free(parked);
    }
}

/* Once each: those that still miss their message park again, behind `last`. */
static void retry_gets(struct queue *queue)
{
    struct list *last = queue->gets.prev;
    while (!list_empty(&queue->gets) && !queue->loading) {
        struct list *node = queue->gets.next;
        struct parked_get *parked = list_entry(node, struct parked_get, link);
        unpark(parked);
        queue_get(queue, &parked->command);
        free(parked);
        if (node == last)
            break;
    }
}

void queue_work(struct queue *queue)
{
    if (queue->cell->failure != ERR_NONE)
        return;
    queue_work_moves(queue);
    retry_gets(queue);
    /* Consumers first: what can be handed over at once does not count against the limits. */
    if (queue->consumers > 0 && !queue->dying)
        deliver_round(queue);
    queue->aged = queue->ledger.stream.next;
    queue_tidy(queue);
    queue_count(queue);
}

void queue_get(struct queue *queue, const struct command *command)
{
    struct cell *cell = queue->cell;
    queue->used_ms = cell->now_ms;
    queue_tidy(queue); /* what was published before this very command may have to go */
    uint64_t offset;
    struct entry entry;
    for (;;) {
        if (!queue_next(queue, &offset)) {
            cell_reply(cell, command, ERR_NOT_FOUND, NULL);
            return;
        }
        enum stream_found found = queue_peek(queue, offset, &entry);
        if (found == STREAM_MISS) {
            queue_park_get(queue, command);
            return;
        }
        if (found == STREAM_END)
            queue_skip(queue, offset);
        else if (!bury_if_expired(queue, offset, entry.data))
            break;
    }
    if (!command->get.no_ack) {
        struct subscription *holder = subscription_find(queue, &command->asker, 0);
        if (holder == NULL)
            holder = subscription_create(queue, &command->asker, 0);
        if (holder == NULL || lease_create(queue, holder, offset, entry.data) == NULL) {
            if (holder != NULL)
                subscription_release(holder);
            cell_reply(cell, command, ERR_NO_MEMORY, NULL);
            return;
        }
    }
    queue_take(queue, offset);
    struct settled_run run = {.any = false};
    uint64_t ready = queue_ready(queue);
    if (command->get.no_ack) {
        ready--; /* not leased, and settled only behind it */
        add_to_run(queue, &run, offset, entry.data);
    }
    hand_over(queue, &command->asker, 0, &entry, offset, ready);
    end_run(queue, &run);
    queue_count(queue);
}

void queue_conn_gone(struct cell *cell, uint64_t conn, int32_t channel)
{
    drop_gets(cell, conn, channel);
    struct attached *attached = cell_attached(cell, conn, false);
    if (attached == NULL)
        return;
    list_each(node, &attached->subscriptions)
    {
        struct subscription *subscription = list_entry(node, struct subscription, conn_link);
        if (channel >= 0 && subscription->channel != (uint16_t)channel)
            continue;
        struct queue *queue = subscription->queue;
        if (subscription->active)
            deactivate(queue, subscription, NULL);
        queue_give_back(queue, subscription);
        subscription_release(subscription);
    }
    if (list_empty(&attached->subscriptions)) {
        map_take(&cell->conns, conn);
        map_done(&attached->consumers);
        free(attached);
    }
}
