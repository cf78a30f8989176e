/* From a topic to where its bindings lead: each message of an appended entry is published to the
 * queues and topics that match its key, as an AMQP message. The producer's answer waits until every
 * copy is safe, and a batch that is sent again after a crash is routed again: a copy may come
 * twice, but none of what was acknowledged is missing. */
#include "core/partition.h"

#include "codec/entry.h"
#include "codec/kafka_inflate.h"
#include "codec/message.h"
#include "core/route.h"

#include <stdlib.h>
#include <string.h>

enum {
    ROUTE_ARENA_BYTES = 64 << 10,
    ROUTE_ARENA_LIMIT = 256 << 20,
    ROUTE_INFLATED_MAX = 128 << 20,
};

struct routing {
    struct partition *partition;
    const struct topic *topic;
    struct arena batch;   /* the inflated batch */
    struct arena message; /* one message at a time */
    uint64_t serial;
};

static void hand_to_cell(struct routing *routing, uint32_t number, const uint64_t *targets,
                         uint32_t count, struct slice entry, int64_t expiry_ms)
{
    struct cell *cell = routing->partition->cell;
    struct cell_publish publish = {
        .asker = {.conn = CELL_ASKER | cell->config.number},
        .seq = cell->routing.seq,
        .persistent = true,
        .expiry_ms = expiry_ms,
        .targets = targets,
        .target_count = count,
        .pieces = {entry},
    };
    cell->routing.sent++;
    cell->config.out->publish(cell->config.ctx, number, &publish);
}

static void route_view(struct routing *routing, const struct message_view *view)
{
    struct cell *cell = routing->partition->cell;
    struct slice key = view->routing_key;
    if (view->form == ENTRY_KAFKA && !slice_equal(key, view->record_key))
        key = slice_make("", 0); /* it has no key, or none that is text */
    struct slice entry = message_entry(view, routing->topic->name, key, &routing->message);
    if (entry.data == NULL)
        return;
    struct route_message message = {.key = key};
    route_reset(&cell->route);
    route_from_topic(cell->catalog, routing->topic, &message, &cell->route);
    cell->routing.no_memory = cell->routing.no_memory || cell->route.no_memory;
    uint32_t cells = cell->config.cells;
    for (uint32_t number = 0; number < cells; number++) {
        uint64_t theirs[RECORD_TARGETS_MAX];
        uint32_t count = 0;
        for (uint32_t i = 0; i < cell->route.count && count < RECORD_TARGETS_MAX; i++) {
            const struct route_target *target = &cell->route.items[i];
            uint64_t id =
                target->kind == TARGET_QUEUE
                    ? target->queue->id
                    : target->topic->partitions[routing->serial % target->topic->partition_count];
            if (cell_of(id, cells) == number)
                theirs[count++] = id;
        }
        if (count > 0)
            hand_to_cell(routing, number, theirs, count, entry, view->expiry_ms);
    }
    routing->serial++;
}

static void route_batch(struct routing *routing, struct slice bytes)
{
    struct reader reader = reader_over(bytes);
    struct kafka_batch batch;
    struct slice plain;
    if (!kafka_batch_next(&reader, &batch) ||
        !kafka_inflate(&batch, ROUTE_INFLATED_MAX, &routing->batch, &plain))
        return;
    struct kafka_records records;
    struct kafka_record record;
    kafka_records_init(&records, &batch, plain);
    while (kafka_records_next(&records, &record)) {
        struct message_view view;
        if (message_of_record(&record, routing->topic->name, &view))
            route_view(routing, &view);
        arena_reset(&routing->message);
    }
}

static void end(struct routing *routing)
{
    struct cell *cell = routing->partition->cell;
    bool no_memory = routing->batch.no_memory || routing->message.no_memory;
    cell->routing.no_memory = cell->routing.no_memory || no_memory;
    arena_done(&routing->message);
    arena_done(&routing->batch);
}

void partition_route(struct partition *partition, uint64_t base, struct slice entry)
{
    struct cell *cell = partition->cell;
    struct routing routing = {
        .partition = partition,
        .topic = catalog_topic_by_id(cell->catalog, partition->topic),
        .serial = base,
    };
    if (routing.topic == NULL || !routing.topic->has_bindings)
        return;
    arena_init(&routing.batch, ROUTE_ARENA_BYTES, ROUTE_ARENA_LIMIT);
    arena_init(&routing.message, ROUTE_ARENA_BYTES, ROUTE_ARENA_LIMIT);
    struct message_view view;
    if (entry_head_get(entry).form == ENTRY_KAFKA)
        route_batch(&routing,
                    slice_make(entry.data + ENTRY_HEAD_BYTES, entry.len - ENTRY_HEAD_BYTES));
    else if (message_of_entry(entry, &view))
        route_view(&routing, &view);
    end(&routing);
}

void partition_route_batch(struct partition *partition, uint64_t base, struct slice batch)
{
    struct routing routing = {
        .partition = partition,
        .topic = catalog_topic_by_id(partition->cell->catalog, partition->topic),
        .serial = base,
    };
    if (routing.topic == NULL || !routing.topic->has_bindings)
        return;
    arena_init(&routing.batch, ROUTE_ARENA_BYTES, ROUTE_ARENA_LIMIT);
    arena_init(&routing.message, ROUTE_ARENA_BYTES, ROUTE_ARENA_LIMIT);
    route_batch(&routing, batch);
    end(&routing);
}

/* ---- Answers that wait for the copies ---- */

struct routed {
    struct event event;
    uint32_t awaited;
};

void routing_begin(struct cell *cell)
{
    cell->routing.seq = ++cell->next_tag;
    cell->routing.sent = 0;
    cell->routing.no_memory = false;
}

bool routing_end(struct cell *cell, const struct event *event)
{
    uint64_t seq = cell->routing.seq;
    uint32_t sent = cell->routing.sent;
    cell->routing.seq = 0;
    cell->routing.sent = 0;
    if (cell->routing.no_memory) { /* the producer sends it again */
        struct event refused = *event;
        refused.err = ERR_NO_MEMORY;
        cell_answer(cell, &refused, false);
        return true;
    }
    if (sent == 0)
        return false;
    struct routed *routed = malloc(sizeof *routed);
    if (routed == NULL || !map_put(&cell->routed, seq, routed)) {
        free(routed);
        struct event unsure = *event;
        unsure.err = ERR_NO_MEMORY; /* the producer asks again */
        cell_answer(cell, &unsure, false);
        return true;
    }
    *routed = (struct routed){.event = *event, .awaited = sent};
    return true;
}

bool routing_confirmed(struct cell *cell, uint64_t seq, enum err err)
{
    struct routed *routed = map_get(&cell->routed, seq);
    if (routed == NULL)
        return false;
    /* A queue that is full or gone takes no copy: that is its way. One that could not take it for
     * the moment has the producer send it again, when the others have answered. A cell that failed
     * takes the broker with it, and the answer. */
    if (cell_refusal(err))
        routed->event.err = err;
    else if (err != ERR_NONE && err != ERR_REJECTED && err != ERR_NOT_FOUND)
        return true;
    if (--routed->awaited > 0)
        return true;
    map_take(&cell->routed, seq);
    cell_answer(cell, &routed->event, true);
    free(routed);
    return true;
}
