/* A cell and its storage: what the store asks for at a start (objects, then records), for a
 * checkpoint (objects that changed, entries that live) and what it tells (committed, failed). */
#include "core/cell_state.h"

#include "base/endian.h"
#include "core/group.h"
#include "core/partition.h"
#include "core/queue.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static enum err restore(void *ctx, uint8_t kind, uint64_t id, struct slice value)
{
    struct cell *cell = ctx;
    switch (kind) {
    case OBJECT_QUEUE: {
        struct queue *queue = queue_create(cell, id);
        if (queue == NULL)
            return ERR_NO_MEMORY;
        queue->tracked.stored = true;
        return ledger_restore(&queue->ledger, value);
    }
    case OBJECT_PARTITION: {
        struct partition *partition = partition_create(cell, id);
        if (partition == NULL)
            return ERR_NO_MEMORY;
        partition->tracked.stored = true;
        return partition_restore(partition, value);
    }
    case OBJECT_GROUP:
        return groups_restore(cell->groups, id, value);
    case OBJECT_CATALOG_CHANGE:
        return definitions_restore(cell, id, value);
    case OBJECT_PRODUCER_IDS:
        if (value.len != 8)
            return ERR_CORRUPT;
        cell->producer_ids_end = be64_get(value.data);
        return ERR_NONE;
    default:
        return ERR_CORRUPT;
    }
}

uint8_t *cell_object_space(struct cell *cell, size_t size)
{
    if (size > cell->object_capacity) {
        uint8_t *bytes = realloc(cell->object_bytes, size);
        if (bytes == NULL)
            return NULL;
        cell->object_bytes = bytes;
        cell->object_capacity = size;
    }
    return cell->object_bytes;
}

static bool encode(struct cell *cell, struct tracked *tracked, struct slice *value)
{
    uint64_t reflects = store_end(cell->store);
    if (tracked->kind == OBJECT_GROUP)
        return groups_encode(cell->groups, tracked, value, reflects);
    const struct queue *queue =
        tracked->kind == OBJECT_QUEUE ? list_entry(tracked, struct queue, tracked) : NULL;
    const struct partition *partition =
        tracked->kind == OBJECT_PARTITION ? list_entry(tracked, struct partition, tracked) : NULL;
    size_t size = queue ? ledger_size(&queue->ledger) : partition ? partition_size(partition) : 8;
    uint8_t *bytes = cell_object_space(cell, size);
    if (bytes == NULL)
        return false;
    struct writer writer = writer_over(bytes, size);
    if (queue != NULL)
        ledger_encode(&queue->ledger, &writer, reflects);
    else if (partition != NULL)
        partition_encode(partition, &writer, reflects);
    else
        writer_u64(&writer, cell->producer_ids_end);
    *value = slice_make(bytes, (size_t)(writer.at - bytes));
    return !writer.failed;
}

/* All of one list go to the end of another. */
static void move_all(struct list *from, struct list *to, enum tracked_place place)
{
    list_each(node, from)
    {
        list_remove(node);
        list_insert(to, node);
        list_entry(node, struct tracked, link)->place = (uint8_t)place;
    }
}

void cell_forget_tracked(struct list *from)
{
    list_each(node, from)
    {
        struct tracked *tracked = list_entry(node, struct tracked, link);
        list_remove(node);
        tracked->place = TRACKED_IDLE;
        if (tracked->dropped)
            free(tracked);
    }
}

/* What has changed when the gathering begins is for this checkpoint; what changes later, for the
 * next: so it ends, however busy the cell is. */
static bool begin_gathering(struct cell *cell)
{
    cell->gathering = true;
    cell_forget_tracked(&cell->handed);
    move_all(&cell->changed, &cell->gathered, TRACKED_GATHERED);
    return definitions_checkpoint_begins(cell);
}

static bool is_stored(const struct tracked *tracked)
{
    if (tracked->dropped || tracked->kind != OBJECT_QUEUE)
        return true;
    return list_entry(tracked, struct queue, tracked)->durable;
}

static bool next_changed(void *ctx, struct store_object *out)
{
    struct cell *cell = ctx;
    if (!cell->gathering && !begin_gathering(cell)) {
        *out = (struct store_object){.kind = 0};
        return true;
    }
    if (definitions_next_changed(cell, out))
        return true;
    while (!list_empty(&cell->gathered)) {
        struct tracked *tracked = list_entry(cell->gathered.next, struct tracked, link);
        struct slice value = {0};
        bool stored = is_stored(tracked);
        if (stored && !tracked->dropped && !encode(cell, tracked, &value)) {
            *out = (struct store_object){.kind = 0};
            return true;
        }
        list_remove(&tracked->link);
        list_insert(&cell->handed, &tracked->link);
        tracked->place = TRACKED_HANDED;
        if (!stored)
            continue;
        tracked->stored = true;
        *out = (struct store_object){.kind = tracked->kind, .id = tracked->id, .value = value};
        return true;
    }
    cell->gathering = false;
    return false;
}

static void changes_lost(void *ctx)
{
    struct cell *cell = ctx;
    cell->gathering = false;
    definitions_changes_lost(cell);
    move_all(&cell->gathered, &cell->changed, TRACKED_CHANGED);
    move_all(&cell->handed, &cell->changed, TRACKED_CHANGED);
}

static bool entry_live(void *ctx, uint64_t stream, uint64_t base, uint32_t count)
{
    const struct cell *cell = ctx;
    const struct queue *queue = map_get(&cell->queues, stream);
    if (queue != NULL)
        return queue->durable && !ledger_is_settled(&queue->ledger, base);
    const struct partition *partition = map_get(&cell->partitions, stream);
    return partition != NULL && base + count > partition->stream.first;
}

static void committed(void *ctx, uint64_t end)
{
    struct cell *cell = ctx;
    list_each(node, &cell->uncommitted)
        partition_committed(list_entry(node, struct partition, uncommitted_link), end);
    cell_committed(cell, end);
}

static void failed(void *ctx, enum err err)
{
    struct cell *cell = ctx;
    if (err == ERR_DISK_FULL || err == ERR_NONE)
        cell->config.out->failed(cell->config.ctx, err);
    else
        cell_fail(cell, err);
}

const struct store_handler cell_store_events = {
    .restore = restore,
    .replay = cell_replay,
    .next_changed = next_changed,
    .changes_lost = changes_lost,
    .entry_live = entry_live,
    .committed = committed,
    .failed = failed,
};
