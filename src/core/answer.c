/* Apply on append, answer on commit: what tells the outside "it is safe" waits in a ring, in
 * journal order, with the end of the journal as it was when the answer was made, and goes out when
 * the store has committed that far. Confirms of one channel that follow each other within a turn
 * are one event. */
#include "core/cell_state.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct pending {
    uint64_t end; /* goes out when the journal is safe up to here */
    uint64_t turn;
    struct event event;
    bool is_change;
    uint8_t
        *changes; /* of the catalog, owned; of an answer that only keeps their order its words */
    size_t changes_len;
};

static struct pending *pending_at(const struct cell *cell, uint32_t i)
{
    return &cell->pending[(cell->pending_head + i) & (cell->pending_capacity - 1)];
}

static bool grow(struct cell *cell)
{
    uint32_t capacity = cell->pending_capacity == 0 ? 64 : cell->pending_capacity * 2;
    struct pending *pending = malloc(capacity * sizeof *pending);
    if (pending == NULL)
        return false;
    for (uint32_t i = 0; i < cell->pending_count; i++)
        pending[i] = *pending_at(cell, i);
    free(cell->pending);
    cell->pending = pending;
    cell->pending_capacity = capacity;
    cell->pending_head = 0;
    return true;
}

/* NULL when memory is exhausted: then the asker is told that nothing is promised. */
static struct pending *push(struct cell *cell)
{
    if (cell->pending_count == cell->pending_capacity && !grow(cell))
        return NULL;
    struct pending *pending = pending_at(cell, cell->pending_count++);
    *pending = (struct pending){.end = store_end(cell->store), .turn = cell->turn};
    cell->wants_flush = true;
    return pending;
}

static void send(struct cell *cell, const struct event *event)
{
    cell->config.out->event(cell->config.ctx, event);
}

static bool is_safe(const struct cell *cell)
{
    return cell->pending_count == 0 && store_committed(cell->store) >= store_end(cell->store);
}

void cell_answer(struct cell *cell, const struct event *event, bool durable)
{
    if (!durable || is_safe(cell) || event->err != ERR_NONE) {
        send(cell, event);
        return;
    }
    struct pending *pending = push(cell);
    if (pending == NULL) {
        parts_destroy(event->parts);
        send(cell,
             &(struct event){.type = event->type, .err = ERR_NO_MEMORY, .asker = event->asker});
        return;
    }
    pending->event = *event;
    pending->event.detail = (struct slice){0}; /* words belong to errors, which never wait */
}

static bool same_asker(const struct asker *a, const struct asker *b)
{
    return a->conn == b->conn && a->channel == b->channel;
}

void cell_flush_confirms(struct cell *cell)
{
    if (!cell->confirmed.any)
        return;
    cell->confirmed.any = false;
    struct event event = {
        .type = EVENT_PUBLISHED,
        .asker = cell->confirmed.asker,
        .first_seq = cell->confirmed.first_seq,
        .last_seq = cell->confirmed.last_seq,
    };
    send(cell, &event);
}

void cell_confirm(struct cell *cell, const struct asker *asker, uint64_t seq, enum err err,
                  bool durable)
{
    if (seq == 0 || asker->conn == 0)
        return;
    struct event event = {
        .type = EVENT_PUBLISHED, .err = err, .asker = *asker, .first_seq = seq, .last_seq = seq};
    if (err != ERR_NONE) {
        send(cell, &event);
        return;
    }
    if (!durable) {
        if (cell->confirmed.any && cell->confirmed.last_seq + 1 == seq &&
            same_asker(&cell->confirmed.asker, asker)) {
            cell->confirmed.last_seq = seq;
            return;
        }
        cell_flush_confirms(cell);
        cell->confirmed.asker = *asker;
        cell->confirmed.first_seq = cell->confirmed.last_seq = seq;
        cell->confirmed.any = true;
        return;
    }
    if (cell->pending_count > 0) {
        struct pending *last = pending_at(cell, cell->pending_count - 1);
        if (last->turn == cell->turn && !last->is_change && last->event.type == EVENT_PUBLISHED &&
            last->event.last_seq + 1 == seq && same_asker(&last->event.asker, asker)) {
            last->event.last_seq = seq;
            last->end = store_end(cell->store);
            return;
        }
    }
    struct pending *pending = push(cell);
    if (pending != NULL) {
        pending->event = event;
        return;
    }
    event.err = ERR_NO_MEMORY;
    send(cell, &event);
}

void cell_reply(struct cell *cell, const struct command *command, enum err err, const char *detail)
{
    struct event event = {.type = EVENT_ANSWER, .err = err, .asker = command->asker};
    if (detail != NULL)
        event.detail = slice_of(detail);
    if (command->asker.conn != 0)
        cell_answer(cell, &event, false);
}

void cell_reply_value(struct cell *cell, const struct command *command, uint64_t value,
                      uint64_t value2)
{
    struct event event = {.type = EVENT_ANSWER, .asker = command->asker};
    event.value = value;
    event.value2 = value2;
    if (command->asker.conn != 0)
        cell_answer(cell, &event, false);
}

static void broadcast(struct cell *cell, uint8_t *changes, size_t len, const struct event *answer)
{
    cell->config.out->change(cell->config.ctx, slice_make(changes, len), answer);
    free(changes);
}

void cell_change(struct cell *cell, uint8_t *changes, size_t len, const struct event *answer,
                 bool durable)
{
    /* Later changes build on earlier ones: none overtakes one that still waits. */
    bool waits = false;
    for (uint32_t i = cell->pending_count; !waits && i-- > 0;)
        waits = pending_at(cell, i)->is_change;
    if ((!durable && !waits) || is_safe(cell)) {
        broadcast(cell, changes, len, answer);
        return;
    }
    struct pending *pending = push(cell);
    if (pending == NULL) { /* nobody would ever hear of changes that are made */
        free(changes);
        cell_fail(cell, ERR_NO_MEMORY);
        return;
    }
    pending->event = *answer;
    pending->event.detail = (struct slice){0};
    pending->is_change = true;
    pending->changes = changes;
    pending->changes_len = len;
    if (answer->detail.len == 0)
        return;
    assert(changes == NULL);
    pending->changes = malloc(answer->detail.len);
    if (pending->changes == NULL) /* then without words */
        return;
    memcpy(pending->changes, answer->detail.data, answer->detail.len);
    pending->event.detail = slice_make(pending->changes, answer->detail.len);
}

void cell_committed(struct cell *cell, uint64_t end)
{
    while (cell->pending_count > 0) {
        struct pending pending = *pending_at(cell, 0);
        if (pending.end > end)
            break;
        cell->pending_head = (cell->pending_head + 1) & (cell->pending_capacity - 1);
        cell->pending_count--;
        if (pending.is_change)
            broadcast(cell, pending.changes, pending.changes_len, &pending.event);
        else
            send(cell, &pending.event);
    }
}

void cell_drop_pending(struct cell *cell)
{
    for (uint32_t i = 0; i < cell->pending_count; i++) {
        struct pending *pending = pending_at(cell, i);
        parts_destroy(pending->event.parts);
        free(pending->changes);
    }
    free(cell->pending);
    cell->pending = NULL;
    cell->pending_count = cell->pending_capacity = cell->pending_head = 0;
}

void cell_unreadable(struct cell *cell, const struct stream *stream, uint64_t offset, enum err err)
{
    if (cell->config.out->unreadable != NULL)
        cell->config.out->unreadable(cell->config.ctx, stream->id, offset, err);
}
