/* A queue's life: it is made when its definition arrives or its stored ledger is found, takes
 * messages within its limits, lets them expire, and goes when its definition goes. Which message is
 * next: those given back, in their old order, then those never delivered. */
#include "core/queue.h"

#include "codec/entry.h"

#include <assert.h>
#include <stdlib.h>

enum {
    TIDY_ROUND = 512,       /* messages that expire or are pushed out per turn */
    MISSING_MS = 10 * 1000, /* what is not found is looked for once more then */
    DYING_MS = 1000,        /* a deletion that was refused is asked for again */
    AGAIN_MS = 1000,        /* a read that failed, or memory that was short */
};

static void timer_fired(struct cell *cell, struct timer *timer)
{
    (void)cell;
    struct queue *queue = list_entry(timer, struct queue, timer);
    queue_wake(queue);
}

struct queue *queue_create(struct cell *cell, uint64_t id)
{
    struct queue *queue = calloc(1, sizeof *queue);
    if (queue == NULL)
        return NULL;
    if (!map_put(&cell->queues, id, queue)) {
        free(queue);
        return NULL;
    }
    queue->cell = cell;
    queue->durable = true; /* until its definition says otherwise: what is stored must be kept */
    list_init(&queue->orphan.link);
    ledger_init(&queue->ledger, cell->store, id);
    list_init(&queue->tracked.link);
    queue->tracked.kind = OBJECT_QUEUE;
    queue->tracked.id = id;
    list_init(&queue->busy_link);
    list_init(&queue->subscriptions);
    list_init(&queue->waiting);
    list_init(&queue->moves);
    list_init(&queue->gets);
    queue->timer.fire = timer_fired;
    queue->options.message_ttl_ms = queue->options.expires_ms = -1;
    queue->options.max_length = queue->options.max_length_bytes = -1;
    queue->options.delivery_limit = -1;
    queue->used_ms = cell->now_ms;
    return queue;
}

void queue_define(struct queue *queue, const struct queue_def *def)
{
    bool again = queue->defined;
    queue->defined = true;
    queue->durable = def->durable && !def->exclusive;
    queue->exclusive = def->exclusive;
    queue->auto_delete = def->auto_delete;
    queue->owner = def->owner;
    queue->namespace_id = def->namespace_id;
    catalog_queue_options(def, &queue->options);
    if (!again) {
        queue->cursor = queue->ledger.stream.first;
        queue->recovered = queue->aged = queue->ledger.stream.next;
        queue->used_ms = queue->cell->now_ms;
    }
    if (queue->options.message_ttl_ms >= 0 || queue->ledger.expires)
        queue->has_expiry = true;
    queue_set_timer(queue);
    if (queue->ledger.count > 0)
        queue_wake(queue);
}

static void end_subscription(struct queue *queue, struct subscription *subscription, bool quiet)
{
    struct cell *cell = queue->cell;
    if (subscription->active && !quiet) {
        struct event event = {
            .type = EVENT_CANCELLED,
            .asker = {.conn = subscription->conn, .channel = subscription->channel}};
        event.cancelled.consumer = subscription->consumer;
        cell_answer(cell, &event, false);
    }
    list_each(node, &subscription->leases)
    {
        struct lease *lease = list_entry(node, struct lease, link);
        map_take(&queue->leases, lease->offset);
        list_remove(node);
        leases_account(queue->cell, -UINT64_C(1));
        free(lease);
    }
    subscription_free(subscription);
}

static void end_subscriptions(struct queue *queue, bool quiet)
{
    struct cell *cell = queue->cell;
    uint32_t at = 0;
    for (struct map_slot *slot; (slot = map_next(&cell->conns, &at)) != NULL;) {
        struct attached *attached = slot->value;
        list_each(node, &attached->subscriptions)
        {
            struct subscription *subscription = list_entry(node, struct subscription, conn_link);
            if (subscription->queue == queue)
                end_subscription(queue, subscription, quiet);
        }
    }
}

void queue_destroy(struct queue *queue, bool drop, bool quiet)
{
    struct cell *cell = queue->cell;
    if (queue->consumers > 0 || queue->leases.count > 0)
        end_subscriptions(queue, quiet);
    list_each(node, &queue->moves)
    {
        list_remove(node);
        free(list_entry(node, struct move, link));
    }
    queue_end_gets(queue, ERR_NOT_FOUND, quiet);
    uint32_t at = 0;
    for (struct map_slot *slot; (slot = map_next(&cell->moves, &at)) != NULL;) {
        struct move *move = slot->value;
        if (move->queue == queue)
            move->queue = NULL; /* queue_moved frees it */
    }
    cell->stats.messages_ready -= queue->counted_ready;
    cell->stats.messages_leased -= queue->counted_leased;
    cell_timer_off(cell, &queue->timer);
    list_remove(&queue->busy_link);
    map_take(&cell->queues, queue->ledger.stream.id);
    if (drop)
        cell_untrack(cell, &queue->tracked);
    else
        list_remove(&queue->tracked.link);
    ledger_done(&queue->ledger, drop);
    ranges_done(&queue->returned);
    ranges_done(&queue->missing);
    ranges_done(&queue->doubted);
    map_done(&queue->leases);
    if (queue->loading) { /* the load's end frees the rest */
        queue->cell = NULL;
        list_insert(&cell->orphans, &queue->orphan.link);
        return;
    }
    free(queue);
}

uint64_t queue_ready(const struct queue *queue)
{
    uint64_t unready = (uint64_t)queue->leases.count + queue->moving + ranges_sum(&queue->missing);
    return queue->ledger.count > unready ? queue->ledger.count - unready : 0;
}

void queue_count(struct queue *queue)
{
    struct cell_stats *stats = &queue->cell->stats;
    uint64_t ready = queue_ready(queue), leased = queue->leases.count;
    stats->messages_ready += ready - queue->counted_ready;
    stats->messages_leased += leased - queue->counted_leased;
    queue->counted_ready = ready;
    queue->counted_leased = leased;
}

static bool is_full(const struct queue *queue, uint64_t more)
{
    const struct queue_options *options = &queue->options;
    if (options->max_length >= 0 && queue_ready(queue) + more > (uint64_t)options->max_length)
        return true;
    uint64_t bytes =
        queue->ledger.bytes > queue->unready_bytes ? queue->ledger.bytes - queue->unready_bytes : 0;
    return options->max_length_bytes >= 0 && bytes + more > (uint64_t)options->max_length_bytes;
}

enum err queue_admits(const struct queue *queue)
{
    if (queue->options.max_length < 0 && queue->options.max_length_bytes < 0)
        return ERR_NONE;
    if (queue->options.overflow == OVERFLOW_DROP_HEAD || !is_full(queue, 1))
        return ERR_NONE;
    return ERR_REJECTED;
}

/* Over its length, a queue that drops its head does so in queue_work: the head may have to be read.
 */
void queue_appended(struct queue *queue, int64_t expiry_ms)
{
    if (expiry_ms != 0 || queue->options.message_ttl_ms >= 0) {
        queue->has_expiry = true;
        if (queue_ready(queue) == 1)
            queue_wake(queue);
    }
    queue_wake(queue);
}

void queue_wake(struct queue *queue)
{
    if (list_empty(&queue->busy_link))
        list_insert(&queue->cell->busy, &queue->busy_link);
}

bool queue_next(struct queue *queue, uint64_t *offset)
{
    if (ranges_count(&queue->returned) > 0) {
        *offset = ranges_item(&queue->returned, 0)->first;
        return true;
    }
    struct ledger *ledger = &queue->ledger;
    if (queue->cursor < ledger->stream.first)
        queue->cursor = ledger->stream.first;
    if (ranges_count(&ledger->settled) > 0) {
        const struct range *range = ranges_at(&ledger->settled, queue->cursor);
        if (range != NULL && range->first <= queue->cursor)
            queue->cursor = range->last + 1;
    }
    *offset = queue->cursor;
    return queue->cursor < ledger->stream.next;
}

void queue_take(struct queue *queue, uint64_t offset)
{
    if (offset >= queue->cursor) {
        queue->cursor = offset + 1;
    } else {
        /* The lowest of the returned: taking it out splits nothing. */
        bool taken = ranges_remove(&queue->returned, offset, offset);
        assert(taken);
    }
}

static void loaded(struct stream_load *load, enum err err)
{
    struct queue *queue = list_entry(load, struct queue, load);
    if (queue->cell == NULL) {
        list_remove(&queue->orphan.link);
        free(queue);
        return;
    }
    queue->loading = false;
    if (err == ERR_NONE || err == ERR_NO_MEMORY) {
        queue_wake(queue);
        return;
    }
    cell_unreadable(queue->cell, &queue->ledger.stream, queue->cursor, err);
    if (err == ERR_CORRUPT) { /* it stays so; a disk may come round */
        queue_unreadable(queue, err);
        return;
    }
    queue_end_gets(queue, err, false);
    queue_try_again(queue);
    queue_set_timer(queue);
}

void queue_try_again(struct queue *queue)
{
    queue->again_ms = queue->cell->now_ms + AGAIN_MS;
}

enum stream_found queue_peek(struct queue *queue, uint64_t offset, struct entry *out)
{
    if (queue->loading)
        return STREAM_MISS;
    enum stream_found found = stream_peek(&queue->ledger.stream, offset, out);
    if (found == STREAM_MISS && queue->cell->now_ms < queue->again_ms)
        return STREAM_MISS;
    if (found == STREAM_MISS) {
        queue->loading = true;
        queue->load.done = loaded;
        stream_load(&queue->ledger.stream, offset, &queue->load);
        return STREAM_MISS;
    }
    if (found == STREAM_HIT && out->base != offset)
        return STREAM_END; /* this very message is gone */
    return found;
}

void queue_skip(struct queue *queue, uint64_t offset)
{
    struct cell *cell = queue->cell;
    queue_take(queue, offset);
    if (!ranges_has(&queue->doubted, offset)) {
        if (!ranges_add(&queue->doubted, offset, offset) ||
            !ranges_add(&queue->missing, offset, offset))
            cell_fail(cell, ERR_NO_MEMORY);
        queue->missing_ms = cell->now_ms + MISSING_MS;
        queue_wake(queue); /* which sets the timer */
        return;
    }
    struct offset_range range = {offset, offset};
    cell_unreadable(cell, &queue->ledger.stream, offset, ERR_NOT_FOUND);
    queue_settle(queue, &range, 1, 0, 0);
    if (!ranges_remove(&queue->doubted, offset, offset))
        cell_fail(cell, ERR_NO_MEMORY);
}

void queue_seek_missing(struct queue *queue)
{
    for (uint32_t i = 0; i < ranges_count(&queue->missing); i++) {
        const struct range *range = ranges_item(&queue->missing, i);
        if (!ranges_add(&queue->returned, range->first, range->last))
            cell_fail(queue->cell, ERR_NO_MEMORY);
    }
    ranges_done(&queue->missing);
    queue_wake(queue);
}

int64_t queue_expiry(const struct queue *queue, struct slice entry)
{
    struct entry_head head = entry_head_get(entry);
    int64_t expiry = head.expiry_ms == 0 ? INT64_MAX : head.expiry_ms;
    int64_t ttl = queue->options.message_ttl_ms;
    if (ttl >= 0 && head.timestamp_ms < INT64_MAX - ttl && head.timestamp_ms + ttl < expiry)
        expiry = head.timestamp_ms + ttl;
    return expiry;
}

/* Buries what has expired at the head, and says when the next look is due (wall clock). */
static int64_t expire_head(struct queue *queue)
{
    struct cell *cell = queue->cell;
    uint64_t offset;
    for (int i = 0; i < TIDY_ROUND; i++) {
        if (!queue_next(queue, &offset))
            return INT64_MAX;
        struct entry entry;
        enum stream_found found = queue_peek(queue, offset, &entry);
        if (found == STREAM_MISS)
            return INT64_MAX; /* its completion wakes the queue */
        if (found == STREAM_END) {
            queue_skip(queue, offset);
            continue;
        }
        int64_t expiry = queue_expiry(queue, entry.data);
        if (expiry > cell->wall_ms)
            return expiry;
        queue_take(queue, offset);
        cell->stats.expired++;
        queue_bury(queue, offset, DEATH_EXPIRED, entry_body_bytes(entry.data));
    }
    return cell->wall_ms;
}

static int64_t unused_until(const struct queue *queue)
{
    if (queue->options.expires_ms < 0 || queue->consumers > 0)
        return INT64_MAX;
    return queue->used_ms + queue->options.expires_ms;
}

static void set_timer(struct queue *queue, int64_t message_wall_ms)
{
    struct cell *cell = queue->cell;
    int64_t due = unused_until(queue);
    if (queue->dying || due <= cell->now_ms)
        due = queue->asked_ms + DYING_MS;
    if (message_wall_ms != INT64_MAX) {
        int64_t at = cell->now_ms + (message_wall_ms - cell->wall_ms);
        if (at < due)
            due = at;
    }
    if (!list_empty(&queue->moves) && queue->retry_ms > cell->now_ms && queue->retry_ms < due)
        due = queue->retry_ms;
    if (ranges_count(&queue->missing) > 0 && queue->missing_ms < due)
        due = queue->missing_ms;
    if (queue->again_ms > cell->now_ms && queue->again_ms < due)
        due = queue->again_ms;
    if (due == INT64_MAX)
        cell_timer_off(cell, &queue->timer);
    else
        cell_timer(cell, &queue->timer, due);
}

void queue_set_timer(struct queue *queue)
{
    if (!queue->has_expiry)
        set_timer(queue, INT64_MAX);
    else
        queue_wake(queue);
}

/* Asks for its deletion when nobody uses it any more. Nobody answers: it goes, or there was no room
 * to say so, and it is asked for again, if it is unused still. */
static void expire_itself(struct queue *queue)
{
    struct cell *cell = queue->cell;
    if (queue->dying && cell->now_ms < queue->asked_ms + DYING_MS)
        return;
    bool left = queue->auto_delete && queue->had_consumer && queue->consumers == 0;
    bool unused = left ? queue->dying : unused_until(queue) <= cell->now_ms;
    const struct queue_def *def =
        unused ? catalog_queue_by_id(cell->catalog, queue->ledger.stream.id) : NULL;
    if (queue->dying && def == NULL)
        queue_wake(queue); /* it lives on, and delivers */
    queue->dying = def != NULL && definitions_ask_delete(cell, def->namespace_id, def->name,
                                                         def->id, def->owner, 0);
    queue->asked_ms = cell->now_ms;
}

/* What must go because of age or length; called before every delivery round. */
void queue_tidy(struct queue *queue)
{
    struct cell *cell = queue->cell;
    uint64_t offset;
    if (ranges_count(&queue->missing) > 0 && cell->now_ms >= queue->missing_ms)
        queue_seek_missing(queue);
    int left = TIDY_ROUND;
    for (; left > 0 && queue->options.overflow == OVERFLOW_DROP_HEAD && is_full(queue, 0) &&
           queue_next(queue, &offset);
         left--) {
        struct entry entry;
        enum stream_found found = queue_peek(queue, offset, &entry);
        if (found == STREAM_MISS)
            break;
        if (found == STREAM_END) {
            queue_skip(queue, offset);
            continue;
        }
        queue_take(queue, offset);
        queue_bury(queue, offset, DEATH_MAXLEN, entry_body_bytes(entry.data));
    }
    if (left == 0)
        queue_wake(queue);
    int64_t next = queue->has_expiry ? expire_head(queue) : INT64_MAX;
    if (queue->has_expiry && queue->ledger.count == 0 && queue->options.message_ttl_ms < 0)
        queue->has_expiry = false;
    expire_itself(queue);
    set_timer(queue, next);
}

/* What only memory knows of is settled outside of records. */
static void settle_in_memory(struct queue *queue, const struct offset_range *ranges, uint32_t count,
                             uint64_t bytes, uint64_t durable_bytes)
{
    for (uint32_t i = 0; i < count; i++) {
        enum err err = ledger_settle(&queue->ledger, ranges[i].first, ranges[i].last,
                                     i == 0 ? bytes : 0, i == 0 ? durable_bytes : 0);
        if (err != ERR_NONE)
            cell_fail(queue->cell, err);
    }
}

void queue_settle(struct queue *queue, const struct offset_range *ranges, uint32_t count,
                  uint64_t bytes, uint64_t durable_bytes)
{
    bool durable = false;
    for (uint32_t i = 0; i < count; i++) {
        queue->cell->stats.settled += ranges[i].last - ranges[i].first + 1;
        durable =
            durable || (queue->durable &&
                        !ledger_all_fleeting(&queue->ledger, ranges[i].first, ranges[i].last));
    }
    if (!durable) {
        settle_in_memory(queue, ranges, count, bytes, durable_bytes);
        return;
    }
    if (queue->cell->failure == ERR_STOPPED) /* no checkpoint is to come that would say it */
        return;
    struct record record = {
        .type = RECORD_SETTLE, .object = queue->ledger.stream.id, .body_bytes = durable_bytes};
    uint64_t fleeting_bytes = bytes - durable_bytes;
    queue->ledger.bytes -=
        fleeting_bytes < queue->ledger.bytes ? fleeting_bytes : queue->ledger.bytes;
    uint32_t done;
    enum err err = cell_append_ranges(queue->cell, &record, ranges, count, &done);
    if (err == ERR_NONE || !cell_refusal(err))
        return;
    /* No room to say so (the disk is full): it is settled all the same, so that consumers go on.
     * The next checkpoint says it; only a crash before that would deliver again. */
    uint64_t left = done == 0 ? durable_bytes : 0;
    settle_in_memory(queue, ranges + done, count - done, left, left);
    cell_touch(queue->cell, &queue->tracked);
}
