/* The cell's spine: it opens and stops, learns of definitions, keeps timers and tracked objects,
 * and runs a turn's work. What the commands mean stands in queue*.c, partition*.c, group.c and
 * definitions.c. */
#include "core/cell.h"

#include "core/cell_state.h"
#include "core/group.h"
#include "core/partition.h"
#include "core/queue.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    RETENTION_LOOK_MS = 30 * 1000,
    RETENTION_PIECE = 256, /* partitions looked at in one turn */
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
        err = store_open(&config->store, &cell_store_events, cell, &cell->store);
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
    free_all(&cell->routed);
    if (cell->groups != NULL)
        groups_destroy(cell->groups); /* it takes its timers off */
    heap_done(&cell->timers);
    route_done(&cell->route);
    cell_drop_pending(cell);
    cell_forget_tracked(&cell->handed);
    cell_forget_tracked(&cell->gathered);
    cell_forget_tracked(&cell->changed);
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
    enum err err = cell_apply_drop(cell, id);
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
    if (!tracked->stored)
        return;
    struct tracked *tombstone = calloc(1, sizeof *tombstone);
    if (tombstone == NULL) {
        cell_fail(cell, ERR_NO_MEMORY);
        return;
    }
    *tombstone = (struct tracked){.kind = tracked->kind,
                                  .id = tracked->id,
                                  .dropped = true,
                                  .place = TRACKED_CHANGED,
                                  .stored = true};
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

bool cell_work(struct cell *cell, bool hold)
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
    if (cell->wants_flush && !hold)
        store_flush(cell->store, false);
    else if (cell->wants_lazy_flush)
        store_flush(cell->store, true);
    cell->wants_flush = cell->wants_flush && hold;
    cell->wants_lazy_flush = false;
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
