/* What becomes of leases: settled (done with), returned (ready again in their old place) or
 * rejected (dead-lettered or dropped). Also purging, which settles everything that is ready. */
#include "core/queue.h"

#include "base/endian.h"

#include <stdlib.h>
#include <string.h>

/* Offsets of a resolved command, gathered into ranges; the first few need no memory. */
struct gathered {
    struct offset_range *ranges; /* `first`, or on the heap */
    uint32_t count, capacity;
    uint64_t bytes, durable_bytes;
    bool no_memory;
    struct offset_range first[16];
};

static void gathered_init(struct gathered *gathered)
{
    gathered->ranges = gathered->first;
    gathered->capacity = sizeof gathered->first / sizeof gathered->first[0];
    gathered->count = 0;
    gathered->bytes = gathered->durable_bytes = 0;
    gathered->no_memory = false;
}

static void gathered_done(struct gathered *gathered)
{
    if (gathered->ranges != gathered->first)
        free(gathered->ranges);
}

static bool gathered_grow(struct gathered *gathered)
{
    bool first = gathered->ranges == gathered->first;
    uint32_t capacity = gathered->capacity * 2;
    struct offset_range *ranges =
        realloc(first ? NULL : gathered->ranges, capacity * sizeof *ranges);
    if (ranges == NULL)
        return false;
    if (first)
        memcpy(ranges, gathered->first, sizeof gathered->first);
    gathered->ranges = ranges;
    gathered->capacity = capacity;
    return true;
}

static void gather(struct gathered *gathered, uint64_t offset)
{
    if (gathered->count > 0 && gathered->ranges[gathered->count - 1].last + 1 == offset) {
        gathered->ranges[gathered->count - 1].last = offset;
        return;
    }
    if (gathered->count == gathered->capacity && !gathered_grow(gathered)) {
        gathered->no_memory = true;
        return;
    }
    gathered->ranges[gathered->count++] = (struct offset_range){offset, offset};
}

/* Marks leases as returned: journaled for those in the journal, so that counts survive. */
static void count_returns(struct queue *queue, const struct gathered *gathered)
{
    struct gathered durable;
    gathered_init(&durable);
    for (uint32_t i = 0; i < gathered->count; i++) {
        for (uint64_t at = gathered->ranges[i].first; at <= gathered->ranges[i].last; at++) {
            if (queue->durable && !ledger_is_fleeting(&queue->ledger, at))
                gather(&durable, at);
            else if (ledger_return(&queue->ledger, at) != ERR_NONE)
                break; /* out of memory: the count is lost, the message is not */
        }
    }
    struct record record = {.type = RECORD_RETURN, .object = queue->ledger.stream.id};
    uint32_t done = 0;
    enum err err = cell_append_ranges(queue->cell, &record, durable.ranges, durable.count, &done);
    for (uint32_t i = done; err != ERR_NONE && i < durable.count; i++) {
        /* Counted in memory at least; a broken store has said so itself. */
        for (uint64_t at = durable.ranges[i].first; at <= durable.ranges[i].last; at++) {
            if (ledger_return(&queue->ledger, at) != ERR_NONE)
                break;
        }
    }
    gathered_done(&durable);
}

static bool beyond_limit(const struct queue *queue, uint64_t offset)
{
    return queue->options.delivery_limit >= 0 &&
           ledger_returns(&queue->ledger, offset) > (uint64_t)queue->options.delivery_limit;
}

/* The lease ends; its message is ready again in its old place, or dead-lettered when it came back
 * too often. Its subscription stays. */
static void make_ready(struct queue *queue, struct lease *lease)
{
    uint64_t offset = lease->offset;
    uint32_t body_bytes = lease->body_bytes;
    queue_unlease(queue, lease);
    queue->cell->stats.returned++;
    if (beyond_limit(queue, offset))
        queue_bury(queue, offset, DEATH_DELIVERY_LIMIT, body_bytes);
    else if (!ranges_add(&queue->returned, offset, offset))
        cell_fail(queue->cell, ERR_NO_MEMORY);
}

/* The leases that the command is about, as far as they are the asker's. */
static void find_leases(struct queue *queue, const struct command *command,
                        struct gathered *gathered)
{
    const struct stream *stream = &queue->ledger.stream;
    size_t count = command->data.len / sizeof(struct offset_range);
    for (size_t i = 0; i < count; i++) {
        struct offset_range range;
        memcpy(&range, command->data.data + i * sizeof range, sizeof range);
        uint64_t at = range.first < stream->first ? stream->first : range.first;
        for (; at <= range.last && at < stream->next && !gathered->no_memory; at++) {
            const struct lease *lease = map_get(&queue->leases, at);
            if (lease == NULL || lease->subscription->conn != command->asker.conn ||
                lease->subscription->channel != command->asker.channel)
                continue;
            gather(gathered, at);
            if (gathered->no_memory)
                break;
            gathered->bytes += lease->body_bytes;
            gathered->durable_bytes += lease->fleeting ? 0 : lease->body_bytes;
        }
    }
}

static void resolve_one(struct queue *queue, struct lease *lease, enum command_type type)
{
    struct subscription *subscription = lease->subscription;
    uint64_t offset = lease->offset;
    uint32_t body_bytes = lease->body_bytes;
    if (type == COMMAND_RETURN)
        make_ready(queue, lease);
    else
        queue_unlease(queue, lease);
    if (type == COMMAND_REJECT)
        queue_bury(queue, offset, DEATH_REJECTED, body_bytes);
    subscription_release(subscription);
}

/* As many as there is memory for; those are leased no more, so that the rest can follow. */
static bool resolve_some(struct queue *queue, const struct command *command)
{
    struct gathered gathered;
    gathered_init(&gathered);
    find_leases(queue, command, &gathered);
    if (command->type == COMMAND_RETURN && !command->settle.undelivered)
        count_returns(queue, &gathered);
    for (uint32_t i = 0; i < gathered.count; i++) {
        for (uint64_t at = gathered.ranges[i].first; at <= gathered.ranges[i].last; at++) {
            struct lease *lease = map_get(&queue->leases, at);
            if (lease != NULL) /* named twice */
                resolve_one(queue, lease, command->type);
        }
    }
    if (command->type == COMMAND_SETTLE && gathered.count > 0)
        queue_settle(queue, gathered.ranges, gathered.count, gathered.bytes,
                     gathered.durable_bytes);
    gathered_done(&gathered);
    return gathered.no_memory;
}

void queue_resolve(struct queue *queue, const struct command *command)
{
    bool more;
    do {
        more = resolve_some(queue, command);
    } while (more);
    queue_wake(queue);
}

void queue_give_back(struct queue *queue, struct subscription *subscription)
{
    struct gathered gathered;
    gathered_init(&gathered);
    list_each(node, &subscription->leases)
        gather(&gathered, list_entry(node, struct lease, link)->offset);
    count_returns(queue, &gathered);
    gathered_done(&gathered);
    list_each(node, &subscription->leases) make_ready(queue, list_entry(node, struct lease, link));
    queue_wake(queue);
}

void queue_purge(struct queue *queue, const struct command *command)
{
    uint64_t purged = queue_ready(queue);
    queue_seek_missing(queue); /* it goes, too */
    struct gathered gathered;
    gathered_init(&gathered);
    uint64_t offset;
    while (ranges_count(&queue->returned) > 0) {
        offset = ranges_item(&queue->returned, 0)->first;
        gather(&gathered, offset);
        queue_take(queue, offset);
    }
    struct offset_range rest = {queue->cursor, queue->ledger.stream.next - 1};
    bool has_rest = queue->ledger.stream.next > queue->cursor;
    queue->cursor = queue->ledger.stream.next;
    /* Bodies are not read for their sizes: what stays leased or moving is what stays in bytes. */
    uint64_t kept = 0, kept_durable = 0;
    uint32_t at = 0;
    for (struct map_slot *slot; (slot = map_next(&queue->leases, &at)) != NULL;) {
        const struct lease *lease = slot->value;
        kept += lease->body_bytes;
        kept_durable += lease->fleeting ? 0 : lease->body_bytes;
    }
    queue_moving_bytes(queue, &kept, &kept_durable);
    if (has_rest) {
        gather(&gathered, rest.first);
        if (!gathered.no_memory)
            gathered.ranges[gathered.count - 1].last = rest.last;
    }
    const struct ledger *ledger = &queue->ledger;
    if (gathered.no_memory)
        cell_fail(queue->cell, ERR_NO_MEMORY);
    else if (gathered.count > 0)
        queue_settle(
            queue, gathered.ranges, gathered.count, ledger->bytes > kept ? ledger->bytes - kept : 0,
            ledger->durable_bytes > kept_durable ? ledger->durable_bytes - kept_durable : 0);
    gathered_done(&gathered);
    queue_count(queue);
    queue->used_ms = queue->cell->now_ms;
    struct event event = {.type = EVENT_ANSWER, .asker = command->asker};
    event.value = purged;
    cell_answer(queue->cell, &event, queue->durable);
}
