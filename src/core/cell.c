/* The cell's spine: it opens and replays, journals and applies records, keeps timers and tracked
 * objects, and runs a turn's work. What the commands mean stands in queue*.c, partition*.c,
 * group.c and definitions.c. */
#include "core/cell.h"

#include "codec/entry.h"
#include "codec/kafka_batch.h"
#include "core/cell_state.h"
#include "core/group.h"
#include "core/partition.h"
#include "core/queue.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    LEADER_EPOCH = 0, /* one node: its leader never changes */
    RETENTION_LOOK_MS = 30 * 1000,
    RETENTION_PIECE = 256, /* partitions looked at in one turn */
    RANGES_PIECE = 28,     /* of one SETTLE or RETURN: fits into 512 bytes */
};

/* ---- Applying ---- */

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

static enum err apply_drop(struct cell *cell, uint64_t id)
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
        return apply_drop(cell, record->object);
    case RECORD_CATALOG:
        return definitions_apply(cell, record);
    case RECORD_GROUP:
        return groups_apply(cell->groups, record, pos);
    case RECORD_PRODUCER_IDS:
        if (record->object > cell->producer_ids_end)
            cell->producer_ids_end = record->object;
        cell_touch(cell, &cell->producer_ids);
        return ERR_NONE;
    }
    return ERR_CORRUPT;
}

static enum err replay(void *ctx, uint64_t pos, struct slice encoded)
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

/* ---- Store callbacks ---- */

static enum err restore(void *ctx, uint8_t kind, uint64_t id, struct slice value)
{
    struct cell *cell = ctx;
    switch (kind) {
    case OBJECT_QUEUE: {
        struct queue *queue = queue_create(cell, id);
        return queue == NULL ? ERR_NO_MEMORY : ledger_restore(&queue->ledger, value);
    }
    case OBJECT_PARTITION: {
        struct partition *partition = partition_create(cell, id);
        return partition == NULL ? ERR_NO_MEMORY : partition_restore(partition, value);
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

static void forget_tracked(struct list *from)
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
    forget_tracked(&cell->handed);
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

static const struct store_handler store_events = {
    .restore = restore,
    .replay = replay,
    .next_changed = next_changed,
    .changes_lost = changes_lost,
    .entry_live = entry_live,
    .committed = committed,
    .failed = failed,
};

/* ---- Life ---- */

enum err cell_open(const struct cell_config *config, int64_t wall_ms, struct cell **out)
{
    struct cell *cell = calloc(1, sizeof *cell);
    if (cell == NULL)
        return ERR_NO_MEMORY;
    cell->config = *config;
    cell->catalog = config->catalog;
    cell->wall_ms = wall_ms;
    cell->catalog_seq = cell->catalog_saved = 1; /* number 0 is the catalog as a whole */
    cell->snapshot.base = cell->snapshot.first = 1;
    list_init(&cell->busy);
    list_init(&cell->parked);
    list_init(&cell->readings);
    list_init(&cell->orphans);
    list_init(&cell->gathered);
    list_init(&cell->waking);
    list_init(&cell->uncommitted);
    list_init(&cell->changed);
    list_init(&cell->handed);
    list_init(&cell->catalog_unsaved);
    list_init(&cell->producer_ids.link);
    cell->producer_ids.kind = OBJECT_PRODUCER_IDS;
    cell->groups = groups_create(cell);
    enum err err = cell->groups == NULL ? ERR_NO_MEMORY : ERR_NONE;
    if (err == ERR_NONE && config->number == 0 && (cell->master = catalog_create()) == NULL)
        err = ERR_NO_MEMORY;
    cell->replaying = true;
    if (err == ERR_NONE)
        err = store_open(&config->store, &store_events, cell, &cell->store);
    cell->replaying = false;
    cell->next_producer_id = cell->producer_ids_end;
    if (err != ERR_NONE) {
        cell_destroy(cell);
        return err;
    }
    *out = cell;
    return ERR_NONE;
}

static void destroy_objects(struct cell *cell)
{
    while (cell->queues.count > 0) {
        uint32_t at = 0;
        for (struct map_slot *slot; (slot = map_next(&cell->queues, &at)) != NULL; at--)
            queue_destroy(slot->value, false, true);
    }
    while (cell->partitions.count > 0) {
        uint32_t at = 0;
        for (struct map_slot *slot; (slot = map_next(&cell->partitions, &at)) != NULL; at--)
            partition_destroy(slot->value, false);
    }
}

static void free_all(struct map *map)
{
    uint32_t at = 0;
    for (struct map_slot *slot; (slot = map_next(map, &at)) != NULL;)
        free(slot->value);
    map_done(map);
}

void cell_destroy(struct cell *cell)
{
    destroy_objects(cell);
    queue_drop_moves(cell);
    map_done(&cell->queues);
    map_done(&cell->partitions);
    uint32_t at = 0;
    for (struct map_slot *slot; (slot = map_next(&cell->conns, &at)) != NULL;)
        map_done(&((struct attached *)slot->value)->consumers);
    free_all(&cell->conns);
    free_all(&cell->deletions);
    if (cell->groups != NULL)
        groups_destroy(cell->groups); /* it takes its timers off */
    heap_done(&cell->timers);
    route_done(&cell->route);
    cell_drop_pending(cell);
    forget_tracked(&cell->handed);
    forget_tracked(&cell->gathered);
    forget_tracked(&cell->changed);
    definitions_done(cell);
    if (cell->master != NULL)
        catalog_destroy(cell->master);
    if (cell->store != NULL)
        store_destroy(cell->store);
    list_each(node, &cell->orphans) /* their loads will never end */
    {
        list_remove(node);
        free(list_entry(node, struct orphan, link));
    }
    free(cell->object_bytes);
    free(cell);
}

void cell_stop(struct cell *cell, void (*done)(void *ctx, enum err err), void *ctx)
{
    /* What still comes in (a dead letter of another cell, say) would miss the last checkpoint. */
    if (cell->failure == ERR_NONE)
        cell->failure = ERR_STOPPED;
    store_stop(cell->store, done, ctx);
}

enum err cell_dump_catalog(struct cell *cell, enum err (*each)(void *ctx, struct slice change),
                           void *ctx)
{
    return catalog_dump(cell->master, false, each, ctx);
}

void cell_queue_added(struct cell *cell, const struct queue_def *def)
{
    struct queue *queue = map_get(&cell->queues, def->id);
    if (queue == NULL && (queue = queue_create(cell, def->id)) == NULL) {
        cell_fail(cell, ERR_NO_MEMORY);
        return;
    }
    queue_define(queue, def);
}

/* Journals that a durable object is gone; apply destroys it. */
static void drop(struct cell *cell, uint64_t id, bool durable)
{
    struct record record = {.type = RECORD_DROP, .object = id};
    if (durable) {
        cell->wants_lazy_flush = true;
        if (cell_append(cell, &record, true, NULL, 0) == ERR_NONE)
            return;
    }
    enum err err = apply_drop(cell, id);
    (void)err;
}

void cell_queue_removed(struct cell *cell, const struct queue_def *def)
{
    if (map_get(&cell->queues, def->id) != NULL)
        drop(cell, def->id, def->durable && !def->exclusive);
}

void cell_partition_added(struct cell *cell, const struct topic *topic, uint32_t index)
{
    uint64_t id = topic->partitions[index];
    struct partition *partition = map_get(&cell->partitions, id);
    if (partition == NULL && (partition = partition_create(cell, id)) == NULL) {
        cell_fail(cell, ERR_NO_MEMORY);
        return;
    }
    partition_define(partition, topic);
}

void cell_partition_removed(struct cell *cell, uint64_t id)
{
    if (map_get(&cell->partitions, id) != NULL)
        drop(cell, id, true);
}

void cell_ready(struct cell *cell)
{
    uint32_t at = 0;
    for (struct map_slot *slot; (slot = map_next(&cell->queues, &at)) != NULL;) {
        if (!((struct queue *)slot->value)->defined) {
            drop(cell, slot->key, true);
            at--; /* another may stand in its slot now */
        }
    }
    at = 0;
    for (struct map_slot *slot; (slot = map_next(&cell->partitions, &at)) != NULL;) {
        if (!((struct partition *)slot->value)->defined) {
            drop(cell, slot->key, true);
            at--;
        }
    }
}

/* ---- Timers and tracked objects ---- */

void cell_timer(struct cell *cell, struct timer *timer, int64_t at_ms)
{
    if (!heap_set(&cell->timers, &timer->node, at_ms))
        cell_fail(cell, ERR_NO_MEMORY);
}

void cell_timer_off(struct cell *cell, struct timer *timer)
{
    heap_remove(&cell->timers, &timer->node);
}

void cell_touch(struct cell *cell, struct tracked *tracked)
{
    if (tracked->place == TRACKED_CHANGED || tracked->place == TRACKED_GATHERED)
        return;
    list_remove(&tracked->link);
    list_insert(&cell->changed, &tracked->link);
    tracked->place = TRACKED_CHANGED;
}

void cell_untrack(struct cell *cell, struct tracked *tracked)
{
    list_remove(&tracked->link);
    tracked->place = TRACKED_IDLE;
    struct tracked *tombstone = calloc(1, sizeof *tombstone);
    if (tombstone == NULL) {
        cell_fail(cell, ERR_NO_MEMORY);
        return;
    }
    *tombstone = (struct tracked){
        .kind = tracked->kind, .id = tracked->id, .dropped = true, .place = TRACKED_CHANGED};
    list_insert(&cell->changed, &tombstone->link);
}

struct attached *cell_attached(struct cell *cell, uint64_t conn, bool create)
{
    struct attached *attached = map_get(&cell->conns, conn);
    if (attached != NULL || !create)
        return attached;
    attached = calloc(1, sizeof *attached);
    if (attached == NULL)
        return NULL;
    attached->conn = conn;
    list_init(&attached->subscriptions);
    if (!map_put(&cell->conns, conn, attached)) {
        free(attached);
        return NULL;
    }
    return attached;
}

/* ---- A turn ---- */

void cell_turn(struct cell *cell, int64_t now_ms, int64_t wall_ms)
{
    cell->now_ms = now_ms;
    cell->wall_ms = wall_ms;
}

/* Looks at some partitions a turn, at all of them every RETENTION_LOOK_MS. */
static void retain_some(struct cell *cell)
{
    if (cell->now_ms < cell->retention_due_ms)
        return;
    struct map_slot *slot = NULL;
    for (int i = 0; i < RETENTION_PIECE; i++) {
        slot = map_next(&cell->partitions, &cell->retention_at);
        if (slot == NULL)
            break;
        partition_retain(slot->value);
    }
    if (slot == NULL) {
        cell->retention_at = 0;
        cell->retention_due_ms = cell->now_ms + RETENTION_LOOK_MS;
    }
}

bool cell_work(struct cell *cell)
{
    for (struct heap_node *top;
         (top = heap_top(&cell->timers)) != NULL && top->due <= cell->now_ms;) {
        struct timer *timer = list_entry(top, struct timer, node);
        heap_remove(&cell->timers, top);
        timer->fire(cell, timer);
    }
    struct list busy;
    list_init(&busy);
    while (!list_empty(&cell->busy)) {
        struct list *node = cell->busy.next;
        list_remove(node);
        list_insert(&busy, node);
    }
    while (!list_empty(&busy)) {
        struct list *node = busy.next;
        list_remove(node);
        queue_work(list_entry(node, struct queue, busy_link));
    }
    while (!list_empty(&cell->waking)) {
        struct list *node = cell->waking.next;
        list_remove(node);
        partition_work(list_entry(node, struct partition, wake_link));
    }
    cell_flush_confirms(cell);
    if (cell->wants_flush)
        store_flush(cell->store, false);
    else if (cell->wants_lazy_flush)
        store_flush(cell->store, true);
    cell->wants_flush = cell->wants_lazy_flush = false;
    cell->turn++;
    store_tick(cell->store, cell->now_ms);
    retain_some(cell);
    /* The store may have ended loads in its tick. */
    return (!list_empty(&cell->busy) || !list_empty(&cell->waking)) && cell->failure == ERR_NONE;
}

int64_t cell_deadline(const struct cell *cell)
{
    const struct heap_node *top = heap_top(&cell->timers);
    int64_t due = top == NULL ? INT64_MAX : top->due;
    int64_t store = store_deadline(cell->store, cell->now_ms);
    if (store < due)
        due = store;
    if (cell->partitions.count > 0 && cell->retention_due_ms < due)
        due = cell->retention_due_ms;
    return due;
}

uint64_t cell_unflushed(const struct cell *cell)
{
    return store_unflushed(cell->store);
}

void cell_stats(const struct cell *cell, struct cell_stats *out)
{
    *out = cell->stats;
    out->queues = cell->queues.count;
    out->partitions = cell->partitions.count;
    out->messages_ready = out->messages_leased = 0;
    uint32_t at = 0;
    for (struct map_slot *slot; (slot = map_next(&cell->queues, &at)) != NULL;) {
        const struct queue *queue = slot->value;
        out->messages_ready += queue_ready(queue);
        out->messages_leased += queue->leases.count;
    }
    store_stats(cell->store, &out->store);
}
