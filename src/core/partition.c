/* A partition's life and its writing side. An append is checked against the producer's sequence,
 * journaled and applied; it becomes visible, and is answered, when the journal is safe that far.
 * The stored form is u8 version (1), u64 reflects, u64 first, u64 next, i64 newest timestamp, u64
 * base of the entry that has it, producers (core/producer.c). */
#include "core/partition.h"

#include "base/endian.h"
#include "codec/entry.h"
#include "codec/kafka_batch.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    PARTITION_VERSION = 1,
    RETENTION_PERIOD_MS = 30 * 1000,
    PRODUCER_EXPIRY_MS = 24 * 3600 * 1000,
};

static void timer_fired(struct cell *cell, struct timer *timer)
{
    struct partition *partition = list_entry(timer, struct partition, timer);
    if (list_empty(&partition->wake_link))
        list_insert(&cell->waking, &partition->wake_link);
}

struct partition *partition_create(struct cell *cell, uint64_t id)
{
    struct partition *partition = calloc(1, sizeof *partition);
    if (partition == NULL)
        return NULL;
    if (!map_put(&cell->partitions, id, partition)) {
        free(partition);
        return NULL;
    }
    partition->cell = cell;
    stream_init(&partition->stream, cell->store, id, 0, 0);
    partition->stream.is_log = true;
    list_init(&partition->tracked.link);
    partition->tracked.kind = OBJECT_PARTITION;
    partition->tracked.id = id;
    list_init(&partition->wake_link);
    list_init(&partition->uncommitted_link);
    list_init(&partition->readers);
    partition->timer.fire = timer_fired;
    partition->newest_ms = INT64_MIN;
    partition->retention_ms = partition->retention_bytes = -1;
    return partition;
}

void partition_define(struct partition *partition, const struct topic *topic)
{
    if (!partition->defined)
        partition->committed = partition->stream.next;
    partition->defined = true;
    partition->topic = topic->id;
    partition->log_append_time = topic->options.log_append_time;
    partition->retention_ms = topic->options.remove ? topic->options.retention_ms : -1;
    partition->retention_bytes = topic->options.remove ? topic->options.retention_bytes : -1;
}

static enum err note_uncommitted(struct partition *partition)
{
    uint64_t end = store_end(partition->cell->store);
    if (partition->uncommitted_count > 0) {
        uint32_t mask = partition->uncommitted_capacity - 1;
        struct uncommitted *last =
            &partition
                 ->uncommitted[(partition->uncommitted_head + partition->uncommitted_count - 1) &
                               mask];
        if (last->end == end) {
            last->next = partition->stream.next;
            return ERR_NONE;
        }
    }
    if (partition->uncommitted_count == partition->uncommitted_capacity) {
        uint32_t capacity =
            partition->uncommitted_capacity == 0 ? 8 : partition->uncommitted_capacity * 2;
        struct uncommitted *ring = malloc(capacity * sizeof *ring);
        if (ring == NULL)
            return ERR_NO_MEMORY;
        for (uint32_t i = 0; i < partition->uncommitted_count; i++)
            ring[i] = partition->uncommitted[(partition->uncommitted_head + i) &
                                             (partition->uncommitted_capacity - 1)];
        free(partition->uncommitted);
        partition->uncommitted = ring;
        partition->uncommitted_head = 0;
        partition->uncommitted_capacity = capacity;
    }
    uint32_t slot = (partition->uncommitted_head + partition->uncommitted_count++) &
                    (partition->uncommitted_capacity - 1);
    partition->uncommitted[slot] = (struct uncommitted){end, partition->stream.next};
    if (list_empty(&partition->uncommitted_link))
        list_insert(&partition->cell->uncommitted, &partition->uncommitted_link);
    partition->cell->wants_flush = true;
    return ERR_NONE;
}

void partition_committed(struct partition *partition, uint64_t end)
{
    bool moved = false;
    while (partition->uncommitted_count > 0) {
        struct uncommitted *oldest = &partition->uncommitted[partition->uncommitted_head];
        if (oldest->end > end)
            break;
        partition->committed = oldest->next;
        partition->uncommitted_head =
            (partition->uncommitted_head + 1) & (partition->uncommitted_capacity - 1);
        partition->uncommitted_count--;
        moved = true;
    }
    if (partition->uncommitted_count == 0)
        list_remove(&partition->uncommitted_link);
    if (moved && !list_empty(&partition->readers) && list_empty(&partition->wake_link))
        list_insert(&partition->cell->waking, &partition->wake_link);
}

enum err partition_append(struct partition *partition, const struct record *record, uint64_t base,
                          uint32_t count, uint64_t entry_pos, uint64_t record_pos)
{
    bool replay = partition->cell->replaying;
    enum err err =
        stream_add(&partition->stream, base, count, entry_pos, (uint32_t)record->bytes.len);
    if (err != ERR_NONE)
        return err;
    int64_t ms = entry_head_get(record->bytes).timestamp_ms;
    if (ms > partition->newest_ms) {
        partition->newest_ms = ms;
        partition->newest_at = base;
    }
    if (!replay)
        err = note_uncommitted(partition);
    if (err == ERR_NONE && record->type == RECORD_BATCH && record->producer_id >= 0 &&
        (!replay || record_pos >= partition->reflects)) {
        struct producer_batch batch = {
            .producer_id = record->producer_id,
            .epoch = record->producer_epoch,
            .sequence = record->sequence,
            .count = count,
            .base = base,
        };
        err = producers_note(&partition->producers, &batch, record->time_ms);
    }
    return err;
}

enum err partition_trim(struct partition *partition, uint64_t first)
{
    if (first > partition->stream.next)
        first = partition->stream.next;
    if (first > partition->stream.first)
        stream_trim(&partition->stream, first);
    return ERR_NONE;
}

/* Routes the batch on, which the answer waits for. A batch that was there already is routed once
 * more: a crash may have come between the two. */
static void route_and_answer(struct partition *partition, const struct command *command,
                             uint64_t base, int64_t append_ms, bool wait)
{
    struct cell *cell = partition->cell;
    bool answers = !command->append.silent;
    if (answers && wait)
        routing_begin(cell);
    partition_route_batch(partition, base, command->data);
    if (!answers)
        return;
    struct event event = {.type = EVENT_ANSWER, .asker = command->asker};
    event.value = base;
    event.value2 = (uint64_t)append_ms;
    if (!wait || !routing_end(cell, &event))
        cell_answer(cell, &event, wait);
}

static void refuse(struct partition *partition, const struct command *command, enum err err)
{
    if (!command->append.silent)
        cell_reply(partition->cell, command, err, NULL);
}

void partition_produce(struct partition *partition, const struct command *command)
{
    struct cell *cell = partition->cell;
    struct record record = {
        .type = RECORD_BATCH,
        .targets = {{partition->stream.id, partition->stream.next}},
        .count = command->append.count,
        .producer_id = command->append.producer_id,
        .producer_epoch = command->append.producer_epoch,
        .sequence = command->append.base_sequence,
        .time_ms = cell->wall_ms,
    };
    if (command->data.len < KAFKA_BATCH_HEADER_BYTES || record.count == 0) {
        refuse(partition, command, ERR_INVALID);
        return;
    }
    if (record.producer_id >= 0) {
        struct producer_batch batch = {
            .producer_id = record.producer_id,
            .epoch = record.producer_epoch,
            .sequence = record.sequence,
            .count = record.count,
        };
        uint64_t base = 0;
        enum err err = producers_check(&partition->producers, &batch, &base);
        if (err == ERR_DUPLICATE) {
            route_and_answer(partition, command, base, -1, command->append.wait_commit);
            return;
        }
        if (err != ERR_NONE) {
            refuse(partition, command, err);
            return;
        }
    }
    uint8_t head[ENTRY_HEAD_BYTES];
    entry_head_put(head,
                   &(struct entry_head){
                       .timestamp_ms =
                           partition->log_append_time ? cell->wall_ms : command->append.max_time_ms,
                       .form = ENTRY_KAFKA,
                       .flags = ENTRY_PERSISTENT,
                   });
    struct slice pieces[2] = {slice_make(head, sizeof head), command->data};
    uint64_t base = partition->stream.next;
    enum err err = cell_append(cell, &record, true, pieces, 2);
    if (err != ERR_NONE) {
        refuse(partition, command, err);
        return;
    }
    cell->stats.published += command->append.count;
    route_and_answer(partition, command, base, partition->log_append_time ? cell->wall_ms : -1,
                     command->append.wait_commit);
}

void partition_delete_records(struct partition *partition, const struct command *command)
{
    uint64_t first = command->offsets.offset;
    if (first == UINT64_MAX)
        first = partition->committed;
    if (first > partition->committed) {
        cell_reply(partition->cell, command, ERR_OUT_OF_RANGE, NULL);
        return;
    }
    struct record record = {.type = RECORD_TRIM, .object = partition->stream.id, .offset = first};
    enum err err = first <= partition->stream.first
                       ? ERR_NONE
                       : cell_append(partition->cell, &record, true, NULL, 0);
    struct event event = {.type = EVENT_ANSWER, .err = err, .asker = command->asker};
    event.value = partition->stream.first;
    cell_answer(partition->cell, &event, true);
}

void partition_retain(struct partition *partition)
{
    struct cell *cell = partition->cell;
    if (cell->now_ms - partition->retained_ms < RETENTION_PERIOD_MS)
        return;
    partition->retained_ms = cell->now_ms;
    producers_expire(&partition->producers, cell->wall_ms - PRODUCER_EXPIRY_MS);
    if (partition->retention_ms < 0 && partition->retention_bytes < 0)
        return;
    uint64_t max_bytes =
        partition->retention_bytes < 0 ? UINT64_MAX : (uint64_t)partition->retention_bytes;
    int64_t min_ms =
        partition->retention_ms < 0 ? INT64_MIN : cell->wall_ms - partition->retention_ms;
    uint64_t first = stream_retain_from(&partition->stream, max_bytes, min_ms);
    if (first > partition->committed)
        first = partition->committed;
    if (first <= partition->stream.first)
        return;
    struct record record = {.type = RECORD_TRIM, .object = partition->stream.id, .offset = first};
    enum err err = cell_append(cell, &record, true, NULL, 0);
    (void)err; /* tried again at the next look */
}

size_t partition_size(const struct partition *partition)
{
    return 1 + 5 * 8 + producers_size(&partition->producers);
}

void partition_encode(const struct partition *partition, struct writer *writer, uint64_t reflects)
{
    writer_u8(writer, PARTITION_VERSION);
    writer_u64(writer, reflects);
    writer_u64(writer, partition->stream.first);
    writer_u64(writer, partition->stream.next);
    writer_u64(writer, (uint64_t)partition->newest_ms);
    writer_u64(writer, partition->newest_at);
    producers_encode(&partition->producers, writer);
}

enum err partition_restore(struct partition *partition, struct slice stored)
{
    struct reader reader = reader_over(stored);
    if (reader_u8(&reader) != PARTITION_VERSION)
        return ERR_CORRUPT;
    partition->reflects = reader_u64(&reader);
    partition->stream.first = reader_u64(&reader);
    partition->stream.next = reader_u64(&reader);
    partition->newest_ms = reader_i64(&reader);
    partition->newest_at = reader_u64(&reader);
    if (partition->stream.first > partition->stream.next)
        return ERR_CORRUPT;
    return producers_restore(&partition->producers, &reader);
}

uint64_t partition_stored_first(struct slice stored)
{
    struct reader reader = reader_over(stored);
    if (reader_u8(&reader) != PARTITION_VERSION)
        return 0;
    reader_u64(&reader);
    uint64_t first = reader_u64(&reader);
    return reader.failed ? 0 : first;
}
