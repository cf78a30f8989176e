/* A record's way: decided elsewhere, encoded into the journal's memory and applied here; at a
 * start, decoded and applied again by the same function. Nothing else changes durable state. */
#include "core/cell_state.h"

#include "codec/entry.h"
#include "codec/kafka_batch.h"
#include "core/group.h"
#include "core/partition.h"
#include "core/queue.h"

#include <assert.h>
#include <string.h>

enum {
    LEADER_EPOCH = 0,  /* one node: its leader never changes */
    RANGES_PIECE = 28, /* of one SETTLE or RETURN: fits into 512 bytes */
};

/* The partition, made when its definition has not come yet. */
static enum err partition_for(struct cell *cell, uint64_t id, struct partition **out)
{
    *out = map_get(&cell->partitions, id);
    if (*out == NULL && cell->replaying && (*out = partition_create(cell, id)) == NULL)
        return ERR_NO_MEMORY;
    return ERR_NONE;
}

static enum err append_to_partition(struct cell *cell, const struct record *record, uint32_t i,
                                    uint64_t entry_pos, uint64_t pos)
{
    struct partition *partition;
    enum err err = partition_for(cell, record->targets[i].object, &partition);
    if (err != ERR_NONE || partition == NULL)
        return err;
    cell_touch(cell, &partition->tracked);
    return partition_append(partition, record, record->targets[i].base,
                            record->type == RECORD_BATCH ? record->count : 1, entry_pos, pos);
}

static enum err append_to_queue(struct cell *cell, const struct record *record, uint32_t i,
                                uint64_t entry_pos, uint64_t pos)
{
    uint64_t id = record->targets[i].object, base = record->targets[i].base;
    struct queue *queue = map_get(&cell->queues, id);
    if (queue == NULL && !cell->replaying)
        return ERR_NONE;
    if (queue == NULL && (queue = queue_create(cell, id)) == NULL)
        return ERR_NO_MEMORY;
    cell_touch(cell, &queue->tracked);
    if (!cell->replaying || pos >= queue->ledger.reflects)
        return ledger_append(&queue->ledger, base, entry_pos, record->bytes);
    if (ledger_is_settled(&queue->ledger, base))
        return ERR_NONE;
    return stream_add(&queue->ledger.stream, base, 1, entry_pos, (uint32_t)record->bytes.len);
}

static enum err apply_append(struct cell *cell, const struct record *record, uint64_t entry_pos,
                             uint64_t pos)
{
    enum err err = ERR_NONE;
    for (uint32_t i = 0; i < record->target_count && err == ERR_NONE; i++)
        err = i < record->partition_count ? append_to_partition(cell, record, i, entry_pos, pos)
                                          : append_to_queue(cell, record, i, entry_pos, pos);
    return err;
}

static enum err apply_ranges(struct cell *cell, const struct record *record, uint64_t pos)
{
    struct queue *queue = map_get(&cell->queues, record->object);
    if (queue == NULL || pos < queue->ledger.reflects)
        return ERR_NONE;
    cell_touch(cell, &queue->tracked);
    for (uint32_t i = 0; i < record->range_count; i++) {
        struct offset_range range = record_range(record, i);
        enum err err = ERR_NONE;
        if (record->type == RECORD_SETTLE) {
            uint64_t bytes = i == 0 ? record->body_bytes : 0;
            err = ledger_settle(&queue->ledger, range.first, range.last, bytes, bytes);
        } else {
            for (uint64_t at = range.first;
                 at <= range.last && at < queue->ledger.stream.next && err == ERR_NONE; at++)
                err = ledger_return(&queue->ledger, at);
        }
        if (err != ERR_NONE)
            return err;
    }
    return ERR_NONE;
}

static enum err apply_move(struct cell *cell, const struct record *record, uint64_t entry_pos,
                           uint64_t pos)
{
    enum err err = apply_append(cell, record, entry_pos, pos);
    struct queue *queue = map_get(&cell->queues, record->object);
    if (err != ERR_NONE || queue == NULL || pos < queue->ledger.reflects)
        return err;
    cell_touch(cell, &queue->tracked);
    return ledger_settle(&queue->ledger, record->offset, record->offset, record->body_bytes,
                         record->body_bytes);
}

enum err cell_apply_drop(struct cell *cell, uint64_t id)
{
    struct queue *queue = map_get(&cell->queues, id);
    struct partition *partition = map_get(&cell->partitions, id);
    if (queue != NULL)
        queue_destroy(queue, true, false);
    if (partition != NULL)
        partition_destroy(partition, true);
    return ERR_NONE;
}

/* The only function that changes durable state, at run time and at replay. */
static enum err apply(struct cell *cell, const struct record *record, uint64_t entry_pos,
                      uint64_t pos)
{
    switch (record->type) {
    case RECORD_APPEND:
        return apply_append(cell, record, entry_pos, pos);
    case RECORD_BATCH:
        return append_to_partition(cell, record, 0, entry_pos, pos);
    case RECORD_SETTLE:
    case RECORD_RETURN:
        return apply_ranges(cell, record, pos);
    case RECORD_MOVE:
        return apply_move(cell, record, entry_pos, pos);
    case RECORD_TRIM: {
        struct partition *partition = map_get(&cell->partitions, record->object);
        if (partition == NULL)
            return ERR_NONE;
        cell_touch(cell, &partition->tracked);
        return partition_trim(partition, record->offset);
    }
    case RECORD_DROP:
        return cell_apply_drop(cell, record->object);
    case RECORD_CATALOG:
        return definitions_apply(cell, record);
    case RECORD_GROUP:
        return groups_apply(cell->groups, record, pos);
    case RECORD_PRODUCER_IDS:
        if (record->object > cell->producer_ids_end)
            cell->producer_ids_end = record->object;
        cell_touch(cell, &cell->producer_ids);
        return ERR_NONE;
    case RECORD_NOTHING:
        return ERR_NONE;
    }
    return ERR_CORRUPT;
}

enum err cell_replay(void *ctx, uint64_t pos, struct slice encoded)
{
    struct cell *cell = ctx;
    struct record record = {.type = RECORD_APPEND};
    enum err err = record_decode(encoded, &record);
    if (err != ERR_NONE)
        return err;
    return apply(cell, &record, pos + encoded.len - record.bytes.len, pos);
}

/* ---- Journaling ---- */

enum err cell_fail(struct cell *cell, enum err err)
{
    bool live = cell->failure == ERR_NONE || cell->failure == ERR_STOPPED;
    if (live && err != ERR_NONE && err != ERR_DISK_FULL && err != ERR_STOPPED) {
        cell->failure = err;
        cell->config.out->failed(cell->config.ctx, err);
    }
    return err;
}

bool cell_refusal(enum err err)
{
    return err == ERR_DISK_FULL || err == ERR_NO_MEMORY || err == ERR_TOO_LARGE ||
           err == ERR_STOPPED;
}

/* Room for a record; NULL with *err set: refused for now, or the cell has failed. */
static uint8_t *reserve(struct cell *cell, bool durable, size_t size, uint64_t *pos, enum err *err)
{
    uint8_t *memory = store_reserve(cell->store, durable, size, pos, err);
    if (memory == NULL && !cell_refusal(*err))
        cell_fail(cell, *err);
    if (memory != NULL && durable)
        cell->wants_lazy_flush = true;
    return memory;
}

/* It is in the journal already: what it says must become true. */
static enum err apply_now(struct cell *cell, const struct record *record, uint64_t entry_pos,
                          uint64_t pos)
{
    enum err err = apply(cell, record, entry_pos, pos);
    return err == ERR_NONE ? err : cell_fail(cell, err);
}

enum err cell_append(struct cell *cell, struct record *record, bool durable,
                     const struct slice *pieces, uint32_t piece_count)
{
    if (cell->failure != ERR_NONE)
        return cell->failure;
    size_t head = record_head_size(record), size = head;
    for (uint32_t i = 0; i < piece_count; i++)
        size += pieces[i].len;
    uint64_t pos;
    enum err err = ERR_NONE;
    uint8_t *memory = reserve(cell, durable, size, &pos, &err);
    if (memory == NULL)
        return err;
    uint8_t *at = record_put_head(memory, record);
    record->bytes = slice_make(at, size - head);
    for (uint32_t i = 0; i < piece_count; i++) {
        if (pieces[i].len > 0)
            memcpy(at, pieces[i].data, pieces[i].len);
        at += pieces[i].len;
    }
    if (record->type == RECORD_BATCH) /* the batch carries its place */
        kafka_batch_place(memory + head + ENTRY_HEAD_BYTES, (int64_t)record->targets[0].base,
                          LEADER_EPOCH);
    store_commit(cell->store, size);
    return apply_now(cell, record, pos + head, pos);
}

static enum err append_some_ranges(struct cell *cell, struct record *record,
                                   const struct offset_range *ranges, uint32_t count)
{
    record->range_count = count;
    size_t head = record_head_size(record), size = head + (size_t)count * 16;
    uint64_t pos;
    enum err err = ERR_NONE;
    uint8_t *memory = reserve(cell, true, size, &pos, &err);
    if (memory == NULL)
        return err;
    uint8_t *at = record_put_head(memory, record);
    for (uint32_t i = 0; i < count; i++)
        record_put_range(at, i, ranges[i]);
    record->ranges = slice_make(at, size - head);
    store_commit(cell->store, size);
    return apply_now(cell, record, pos + head, pos);
}

enum err cell_append_ranges(struct cell *cell, struct record *record,
                            const struct offset_range *ranges, uint32_t count, uint32_t *done)
{
    enum err err = cell->failure;
    *done = 0;
    while (*done < count && err == ERR_NONE) {
        uint32_t some = count - *done < RANGES_PIECE ? count - *done : RANGES_PIECE;
        err = append_some_ranges(cell, record, ranges + *done, some);
        if (err == ERR_NONE)
            *done += some;
        record->body_bytes = 0;
    }
    return err;
}
