/* Dead letters. A message that is rejected, expired or pushed out leaves its queue: without a
 * dead-letter exchange it is settled; with one it is read (it may be on disk), given its x-death
 * history, routed, and settled in the same record that appends it to the queues of this cell: the
 * move is atomic. Queues in other cells get it first, and it is settled here once they have
 * confirmed it: a crash in between delivers it twice, never not at all. */
#include "core/partition.h"
#include "core/queue.h"

#include "codec/entry.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    RETRY_MS = 1000,
    MOVE_ROUND = 256, /* moves per queue and turn */
    MOVE_ARENA_BYTES = 64 << 10,
    MOVE_ARENA_LIMIT = 192 << 20,
};

static void settle_one(struct queue *queue, uint64_t offset, uint32_t body_bytes)
{
    struct offset_range range = {offset, offset};
    bool fleeting = ledger_is_fleeting(&queue->ledger, offset);
    queue_settle(queue, &range, 1, body_bytes, fleeting ? 0 : body_bytes);
}

void queue_bury(struct queue *queue, uint64_t offset, enum message_death death, uint32_t body_bytes)
{
    if (!queue->options.dead_letters) { /* now: what the client sends next may rely on it */
        settle_one(queue, offset, body_bytes);
        return;
    }
    struct move *move = calloc(1, sizeof *move);
    if (move == NULL) {
        cell_fail(queue->cell, ERR_NO_MEMORY);
        return;
    }
    move->queue = queue;
    move->offset = offset;
    move->death = death;
    move->body_bytes = body_bytes;
    list_insert(&queue->moves, &move->link);
    queue->moving++;
    queue->unready_bytes += body_bytes;
    queue_wake(queue);
}

/* The message is neither ready nor on its way any more. */
static void moving_ends(struct queue *queue, const struct move *move)
{
    queue->moving--;
    queue->unready_bytes -= move->body_bytes;
}

static void move_free(struct move *move)
{
    free(move->targets);
    free(move->entry);
    free(move);
}

/* The queue, or the topic's partition that this number falls to. */
static uint64_t target_id(const struct route_target *target, uint64_t number)
{
    if (target->kind == TARGET_QUEUE)
        return target->queue->id;
    return target->topic->partitions[number % target->topic->partition_count];
}

/* Sorts routed targets: those of this cell into move->targets, others are sent the entry. */
static bool send_to_cells(struct queue *queue, struct move *move,
                          const struct route_targets *targets, struct slice entry)
{
    struct cell *cell = queue->cell;
    uint32_t cells = cell->config.cells;
    move->targets = calloc(targets->count, sizeof *move->targets);
    uint64_t *ids = calloc(targets->count, sizeof *ids);
    if (move->targets == NULL || ids == NULL) {
        free(ids);
        return false;
    }
    for (uint32_t i = 0; i < targets->count; i++)
        ids[i] = target_id(&targets->items[i], move->offset);
    for (uint32_t number = 0; number < cells; number++) {
        uint32_t count = 0;
        for (uint32_t i = 0; i < targets->count; i++) {
            if (cell_of(ids[i], cells) == number)
                move->targets[count++] = ids[i];
        }
        if (count == 0 || number == cell->config.number)
            continue;
        move->awaited++;
        struct cell_publish publish = {
            .asker = {.conn = CELL_ASKER | cell->config.number},
            .seq = move->seq,
            .persistent = (entry_head_get(entry).flags & ENTRY_PERSISTENT) != 0,
            .targets = move->targets,
            .target_count = count,
            .pieces = {entry},
        };
        cell->config.out->publish(cell->config.ctx, number, &publish);
    }
    move->target_count = 0;
    for (uint32_t i = 0; i < targets->count; i++) {
        if (cell_of(ids[i], cells) == cell->config.number)
            move->targets[move->target_count++] = ids[i];
    }
    free(ids);
    return true;
}

/* Tells the targets what came. */
static void announce(struct cell *cell, const struct record *record)
{
    for (uint32_t i = 0; i < record->target_count; i++) {
        uint64_t id = record->targets[i].object;
        struct queue *queue = i >= record->partition_count ? map_get(&cell->queues, id) : NULL;
        if (queue != NULL)
            queue_appended(queue, 0);
        struct partition *partition =
            i < record->partition_count ? map_get(&cell->partitions, id) : NULL;
        if (partition != NULL)
            partition_route(partition, record->targets[i].base, record->bytes);
    }
}

/* Appends the letter to some of this cell's targets; with the last of them the message is settled
 * in the same record, if both sides are durable: then *settled is set. */
static enum err append_some(struct queue *queue, const struct move *move, struct slice entry,
                            uint32_t at, bool *settled)
{
    struct cell *cell = queue->cell;
    bool persistent = (entry_head_get(entry).flags & ENTRY_PERSISTENT) != 0;
    bool leaves_disk = queue->durable && !ledger_is_fleeting(&queue->ledger, move->offset);
    struct record durable = {.type = RECORD_APPEND}, fleeting = {.type = RECORD_APPEND};
    uint32_t end = at + RECORD_TARGETS_MAX;
    for (; at < end && at < move->target_count; at++) {
        uint64_t id = move->targets[at];
        struct queue *target = map_get(&cell->queues, id);
        struct partition *partition = target == NULL ? map_get(&cell->partitions, id) : NULL;
        if (partition != NULL)
            record_add_partition(&durable, id, partition->stream.next);
        else if (target != NULL && queue_admits(target) == ERR_NONE)
            record_add_queue(target->durable && persistent ? &durable : &fleeting, id,
                             target->ledger.stream.next);
    }
    enum err err = ERR_NONE;
    if (durable.target_count > 0) {
        if (at == move->target_count && leaves_disk) {
            durable.type = RECORD_MOVE;
            durable.object = queue->ledger.stream.id;
            durable.offset = move->offset;
            durable.body_bytes = move->body_bytes;
        }
        err = cell_append(cell, &durable, true, &entry, 1);
        if (err != ERR_NONE)
            return err;
        *settled = durable.type == RECORD_MOVE;
        announce(cell, &durable);
    }
    if (fleeting.target_count > 0) {
        err = cell_append(cell, &fleeting, false, &entry, 1);
        if (err == ERR_NONE)
            announce(cell, &fleeting);
    }
    return *settled ? ERR_NONE : err;
}

/* The message leaves its queue: to the targets in this cell, after those in others. On an error it
 * is still there. */
static enum err finish(struct queue *queue, struct move *move, struct slice entry)
{
    bool settled = false;
    for (uint32_t at = 0; at < move->target_count; at += RECORD_TARGETS_MAX) {
        enum err err = append_some(queue, move, entry, at, &settled);
        if (err != ERR_NONE)
            return err;
    }
    queue->cell->stats.dead_lettered++;
    moving_ends(queue, move);
    if (!settled)
        settle_one(queue, move->offset, move->body_bytes);
    return ERR_NONE;
}

static void remove_cycles(struct route_targets *targets, struct slice entry)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < targets->count; i++) {
        const struct route_target *target = &targets->items[i];
        if (target->kind == TARGET_QUEUE && message_death_cycle(entry, target->queue->name))
            continue;
        targets->items[kept++] = *target;
    }
    targets->count = kept;
}

/* The dead letter and where it goes. Null: it goes nowhere. */
static struct slice compose(struct queue *queue, enum message_death death, struct slice entry,
                            struct arena *arena)
{
    struct cell *cell = queue->cell;
    const struct queue_def *def = catalog_queue_by_id(cell->catalog, queue->ledger.stream.id);
    route_reset(&cell->route);
    struct slice name, key;
    if (def == NULL || !catalog_queue_dead_letters(def, &name, &key))
        return (struct slice){0};
    const struct exchange *exchange = catalog_exchange(cell->catalog, def->namespace_id, name);
    if (exchange == NULL)
        return (struct slice){0};
    struct slice letter =
        message_dead_letter(entry, death, def->name, name, key, cell->wall_ms, arena);
    struct message_parts parts;
    if (letter.data == NULL || !message_split(letter, &parts))
        return (struct slice){0};
    struct slice more[16];
    uint32_t more_count = 0;
    if (!message_keys(parts.list, "CC", more, 16, &more_count))
        more_count = 0;
    struct route_message message = {
        .key = parts.routing_key, .more_keys = more, .more_count = more_count};
    route_from_exchange(cell->catalog, exchange, &message, &cell->route);
    remove_cycles(&cell->route, letter);
    return cell->route.count > 0 ? letter : (struct slice){0};
}

/* It could not be taken (a disk is full, say): it stays in its queue and is tried again. */
static void try_later(struct move *move)
{
    struct queue *queue = move->queue;
    free(move->targets);
    free(move->entry);
    move->targets = NULL;
    move->entry = NULL;
    move->failed = false;
    move->target_count = 0;
    list_insert(queue->moves.next, &move->link);
    queue->retry_ms = queue->cell->now_ms + RETRY_MS;
    queue_wake(queue); /* which sets the timer */
}

static void start(struct queue *queue, struct move *move, struct slice entry)
{
    struct cell *cell = queue->cell;
    struct arena arena;
    arena_init(&arena, MOVE_ARENA_BYTES, MOVE_ARENA_LIMIT);
    struct slice letter = compose(queue, move->death, entry, &arena);
    if (cell->route.no_memory || arena.no_memory) {
        try_later(move); /* it may well go somewhere */
        arena_done(&arena);
        return;
    }
    if (letter.data == NULL) {
        moving_ends(queue, move);
        settle_one(queue, move->offset, move->body_bytes);
        move_free(move);
        arena_done(&arena);
        return;
    }
    move->seq = ++cell->next_tag;
    move->entry = malloc(letter.len);
    if (move->entry == NULL || !send_to_cells(queue, move, &cell->route, letter)) {
        try_later(move);
    } else if (move->awaited > 0) {
        memcpy(move->entry, letter.data, letter.len);
        move->entry_len = letter.len;
        if (!map_put(&cell->moves, move->seq, move)) {
            move_free(move);
            cell_fail(cell, ERR_NO_MEMORY);
        }
    } else if (finish(queue, move, letter) == ERR_NONE) {
        move_free(move);
    } else {
        try_later(move);
    }
    arena_done(&arena);
}

void queue_bury_refused(struct queue *queue, const struct slice pieces[3])
{
    struct cell *cell = queue->cell;
    if (queue->options.overflow != OVERFLOW_REJECT_PUBLISH_DLX)
        return;
    struct arena arena;
    arena_init(&arena, MOVE_ARENA_BYTES, MOVE_ARENA_LIMIT);
    size_t len = pieces[0].len + pieces[1].len + pieces[2].len;
    uint8_t *entry = arena_alloc(&arena, len), *at = entry;
    for (int i = 0; entry != NULL && i < 3; i++) {
        if (pieces[i].len > 0)
            memcpy(at, pieces[i].data, pieces[i].len);
        at += pieces[i].len;
    }
    struct slice letter = {0};
    if (entry != NULL)
        letter = compose(queue, DEATH_MAXLEN, slice_make(entry, len), &arena);
    for (uint32_t i = 0; letter.data != NULL && i < cell->route.count; i++) {
        uint64_t id = target_id(&cell->route.items[i], cell->next_tag);
        struct cell_publish publish = {
            .persistent = (entry_head_get(letter).flags & ENTRY_PERSISTENT) != 0,
            .targets = &id,
            .target_count = 1,
            .pieces = {letter},
        };
        cell->config.out->publish(cell->config.ctx, cell_of(id, cell->config.cells), &publish);
    }
    arena_done(&arena);
}

void queue_work_moves(struct queue *queue)
{
    for (int i = 0; i < MOVE_ROUND && !list_empty(&queue->moves); i++) {
        if (queue->cell->now_ms < queue->retry_ms || queue->cell->failure != ERR_NONE)
            return;
        struct move *move = list_entry(queue->moves.next, struct move, link);
        struct entry entry;
        enum stream_found found = queue_peek(queue, move->offset, &entry);
        if (found == STREAM_MISS)
            return;
        list_remove(&move->link);
        if (found == STREAM_END && !move->doubted) {
            move->doubted = true;
            try_later(move);
            continue;
        }
        if (found == STREAM_END) {
            cell_unreadable(queue->cell, &queue->ledger.stream, move->offset, ERR_NOT_FOUND);
            moving_ends(queue, move);
            settle_one(queue, move->offset, move->body_bytes);
            move_free(move);
            continue;
        }
        /* The journal may move on while the letter is appended: hold on to the entry's bytes. */
        struct buf *held = entry.buf ? buf_ref(entry.buf) : NULL;
        start(queue, move, entry.data);
        buf_unref(held);
    }
    if (!list_empty(&queue->moves))
        queue_wake(queue);
}

void queue_moving_bytes(const struct queue *queue, uint64_t *bytes, uint64_t *durable_bytes)
{
    for (const struct list *node = queue->moves.next; node != &queue->moves; node = node->next) {
        const struct move *move = list_entry(node, struct move, link);
        *bytes += move->body_bytes;
        *durable_bytes += ledger_is_fleeting(&queue->ledger, move->offset) ? 0 : move->body_bytes;
    }
    uint32_t at = 0;
    for (struct map_slot *slot; (slot = map_next(&queue->cell->moves, &at)) != NULL;) {
        const struct move *move = slot->value;
        if (move->queue != queue)
            continue;
        *bytes += move->body_bytes;
        *durable_bytes += ledger_is_fleeting(&queue->ledger, move->offset) ? 0 : move->body_bytes;
    }
}

void queue_drop_moves(struct cell *cell)
{
    uint32_t at = 0;
    for (struct map_slot *slot; (slot = map_next(&cell->moves, &at)) != NULL;)
        move_free(slot->value);
    map_done(&cell->moves);
}

void queue_moved(struct cell *cell, uint64_t seq, enum err err)
{
    struct move *move = map_get(&cell->moves, seq);
    if (move == NULL)
        return;
    if (err != ERR_NONE && err != ERR_REJECTED && err != ERR_NOT_FOUND)
        move->failed = true;
    if (--move->awaited > 0)
        return;
    map_take(&cell->moves, seq);
    if (move->queue != NULL && move->failed) {
        try_later(move);
        return;
    }
    if (move->queue != NULL) {
        struct slice entry = slice_make(move->entry, move->entry_len);
        if (finish(move->queue, move, entry) != ERR_NONE) {
            try_later(move);
            return;
        }
    }
    move_free(move);
}
