/* From a topic to where its bindings lead: each message of an appended entry is put into the queues
 * and topics that match its key, as an AMQP message. Queues of this cell get it at once, others by
 * a publish that nobody waits for. */
#include "core/partition.h"

#include "codec/entry.h"
#include "codec/kafka_inflate.h"
#include "codec/message.h"
#include "core/route.h"

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
        .persistent = true,
        .expiry_ms = expiry_ms,
        .targets = targets,
        .target_count = count,
        .pieces = {entry},
    };
    cell->config.out->publish(cell->config.ctx, number, &publish);
}

static void route_view(struct routing *routing, const struct message_view *view)
{
    struct cell *cell = routing->partition->cell;
    struct slice key = message_record_key(view);
    if (key.len > 255)
        key.len = 0;
    struct slice entry = message_entry(view, routing->topic->name, key, &routing->message);
    if (entry.data == NULL)
        return;
    struct route_message message = {.key = key};
    route_reset(&cell->route);
    route_from_topic(cell->catalog, routing->topic, &message, &cell->route);
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

void partition_route(struct partition *partition, uint64_t base)
{
    struct cell *cell = partition->cell;
    struct entry entry;
    struct routing routing = {
        .partition = partition,
        .topic = catalog_topic_by_id(cell->catalog, partition->topic),
        .serial = base,
    };
    if (routing.topic == NULL || !routing.topic->has_bindings ||
        stream_peek(&partition->stream, base, &entry) != STREAM_HIT)
        return;
    arena_init(&routing.batch, ROUTE_ARENA_BYTES, ROUTE_ARENA_LIMIT);
    arena_init(&routing.message, ROUTE_ARENA_BYTES, ROUTE_ARENA_LIMIT);
    struct message_view view;
    if (entry_head_get(entry.data).form == ENTRY_KAFKA)
        route_batch(&routing, slice_make(entry.data.data + ENTRY_HEAD_BYTES,
                                         entry.data.len - ENTRY_HEAD_BYTES));
    else if (message_of_entry(entry.data, &view))
        route_view(&routing, &view);
    arena_done(&routing.message);
    arena_done(&routing.batch);
}
