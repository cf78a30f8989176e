/* Commands and publishes as they reach a cell: who they are for, and what is answered when that one
 * is not there. */
#include "base/endian.h"
#include "codec/entry.h"
#include "core/cell_state.h"
#include "core/group.h"
#include "core/partition.h"
#include "core/queue.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { PRODUCER_ID_BLOCK = 1000 };

static void produce_id(struct cell *cell, const struct command *command)
{
    if (cell->next_producer_id >= cell->producer_ids_end) {
        struct record record = {.type = RECORD_PRODUCER_IDS,
                                .object = cell->next_producer_id + PRODUCER_ID_BLOCK};
        enum err err = cell_append(cell, &record, true, NULL, 0);
        if (err != ERR_NONE) {
            cell_reply(cell, command, err, NULL);
            return;
        }
    }
    struct event event = {.type = EVENT_ANSWER, .asker = command->asker};
    event.value = cell->next_producer_id++;
    cell_answer(cell, &event, true);
}

static void delete_queue(struct cell *cell, struct queue *queue, const struct command *command)
{
    if ((command->remove.flags & DELETE_IF_UNUSED) != 0 && queue->consumers > 0) {
        cell_reply(cell, command, ERR_IN_USE, NULL);
        return;
    }
    if ((command->remove.flags & DELETE_IF_EMPTY) != 0 && queue_ready(queue) > 0) {
        cell_reply(cell, command, ERR_NOT_EMPTY, NULL);
        return;
    }
    const struct queue_def *def = catalog_queue_by_id(cell->catalog, command->object);
    struct deletion *deletion = def ? malloc(sizeof *deletion) : NULL;
    uint64_t tag = cell->next_tag + 1;
    if (deletion == NULL || !map_put(&cell->deletions, tag, deletion)) {
        free(deletion);
        cell_reply(cell, command, def ? ERR_NO_MEMORY : ERR_NOT_FOUND, NULL);
        return;
    }
    cell->next_tag = tag;
    *deletion = (struct deletion){.asker = command->asker, .value = queue_ready(queue)};
    if (!definitions_ask_delete(cell, def->namespace_id, def->name, def->id, command->asker.conn,
                                tag)) {
        free(map_take(&cell->deletions, tag));
        cell_reply(cell, command, ERR_NO_MEMORY, NULL);
    }
}

static void queue_command(struct cell *cell, const struct command *command)
{
    struct queue *queue = map_get(&cell->queues, command->object);
    if (queue == NULL || !queue->defined) {
        if (command->type != COMMAND_SETTLE && command->type != COMMAND_RETURN &&
            command->type != COMMAND_REJECT && command->type != COMMAND_WINDOW)
            cell_reply(cell, command, command->type == COMMAND_CANCEL ? ERR_NONE : ERR_NOT_FOUND,
                       NULL);
        return;
    }
    switch (command->type) {
    case COMMAND_SUBSCRIBE:
        queue_subscribe(queue, command);
        break;
    case COMMAND_CANCEL:
        queue_cancel(queue, command);
        break;
    case COMMAND_WINDOW:
        queue_window(queue, command);
        break;
    case COMMAND_GET:
        queue_get(queue, command);
        break;
    case COMMAND_PURGE:
        queue_purge(queue, command);
        break;
    case COMMAND_DELETE_QUEUE:
        delete_queue(cell, queue, command);
        break;
    case COMMAND_QUEUE_STATUS:
        queue->used_ms = cell->now_ms;
        cell_reply_value(cell, command, queue_ready(queue), queue->consumers);
        break;
    default:
        queue_resolve(queue, command);
        break;
    }
}

static void refuse_partition(struct cell *cell, const struct command *command, enum err err)
{
    if (command->type == COMMAND_READ_STOP ||
        (command->type == COMMAND_APPEND && command->append.silent))
        return;
    if (command->type != COMMAND_READ) {
        cell_reply(cell, command, err, NULL);
        return;
    }
    struct event event = {.type = EVENT_READ, .err = err, .asker = command->asker};
    cell->config.out->event(cell->config.ctx, &event);
}

static void partition_command(struct cell *cell, const struct command *command)
{
    struct partition *partition = map_get(&cell->partitions, command->object);
    if (partition == NULL || !partition->defined) {
        refuse_partition(cell, command, ERR_NOT_FOUND);
        return;
    }
    switch (command->type) {
    case COMMAND_APPEND:
        partition_produce(partition, command);
        break;
    case COMMAND_READ:
        partition_read(partition, command);
        break;
    case COMMAND_READ_STOP:
        partition_read_stop(partition, command);
        break;
    case COMMAND_OFFSETS:
        partition_offsets(partition, command);
        break;
    default:
        partition_delete_records(partition, command);
        break;
    }
}

static void conn_gone(struct cell *cell, const struct command *command)
{
    bool whole = command->type == COMMAND_CONN_GONE;
    uint64_t conn = command->asker.conn;
    queue_conn_gone(cell, conn, whole ? -1 : command->asker.channel);
    if (whole) {
        partitions_conn_gone(cell, conn);
        if (cell->master != NULL) {
            definitions_conn_gone(cell, command);
            return;
        }
    }
    cell_reply(cell, command, ERR_NONE, NULL);
}

void cell_command(struct cell *cell, const struct command *command)
{
    switch (command->type) {
    case COMMAND_CATALOG:
        definitions_command(cell, command);
        break;
    case COMMAND_PRODUCER_ID:
        produce_id(cell, command);
        break;
    case COMMAND_PUBLISH:
        assert(!"a publish goes through cell_publish");
        break;
    case COMMAND_SUBSCRIBE:
    case COMMAND_CANCEL:
    case COMMAND_WINDOW:
    case COMMAND_GET:
    case COMMAND_SETTLE:
    case COMMAND_RETURN:
    case COMMAND_REJECT:
    case COMMAND_PURGE:
    case COMMAND_DELETE_QUEUE:
    case COMMAND_QUEUE_STATUS:
        queue_command(cell, command);
        break;
    case COMMAND_APPEND:
    case COMMAND_READ:
    case COMMAND_READ_STOP:
    case COMMAND_OFFSETS:
    case COMMAND_TRIM:
        partition_command(cell, command);
        break;
    case COMMAND_GROUP:
        groups_command(cell->groups, command);
        return; /* it took over the parts */
    case COMMAND_CONN_GONE:
    case COMMAND_CHANNEL_GONE:
        conn_gone(cell, command);
        break;
    }
    parts_destroy(command->parts);
}

void cell_event(struct cell *cell, const struct event *event)
{
    if (event->type == EVENT_PUBLISHED) {
        for (uint64_t seq = event->first_seq; seq <= event->last_seq; seq++) {
            if (!routing_confirmed(cell, seq, event->err))
                queue_moved(cell, seq, event->err);
        }
        return;
    }
    struct deletion *deletion = map_take(&cell->deletions, event->asker.tag);
    if (event->type != EVENT_ANSWER || deletion == NULL)
        return;
    struct event answer = *event;
    answer.asker = deletion->asker;
    answer.value = deletion->value;
    answer.parts = NULL;
    if (deletion->cancel) {
        answer.err = ERR_NONE;
        answer.detail = (struct slice){0};
    }
    cell_answer(cell, &answer, false);
    free(deletion);
}

/* ---- Publishing ---- */

/* Appends to targets of one kind of durability; queues hear of their new message. */
static enum err append_to(struct cell *cell, const struct cell_publish *publish,
                          struct record *record, bool durable)
{
    if (record->target_count == 0)
        return ERR_NONE;
    enum err err = cell_append(cell, record, durable, publish->pieces, 3);
    if (err != ERR_NONE)
        return err;
    for (uint32_t i = 0; i < record->target_count; i++) {
        uint64_t id = record->targets[i].object;
        struct queue *queue = i >= record->partition_count ? map_get(&cell->queues, id) : NULL;
        if (queue != NULL)
            queue_appended(queue, publish->expiry_ms);
        struct partition *partition =
            i < record->partition_count ? map_get(&cell->partitions, id) : NULL;
        if (partition != NULL)
            partition_route(partition, record->targets[i].base, record->bytes);
    }
    return ERR_NONE;
}

static enum err publish_some(struct cell *cell, const struct cell_publish *publish,
                             const uint64_t *targets, uint32_t count, bool *waits)
{
    struct record durable, fleeting;
    durable.type = fleeting.type = RECORD_APPEND;
    durable.target_count = fleeting.target_count = 0;
    durable.partition_count = fleeting.partition_count = 0;
    durable.producer_id = fleeting.producer_id = -1;
    enum err refused = ERR_NONE;
    for (uint32_t i = 0; i < count; i++) {
        struct queue *queue = map_get(&cell->queues, targets[i]);
        if (queue == NULL) {
            struct partition *partition = map_get(&cell->partitions, targets[i]);
            if (partition != NULL)
                record_add_partition(&durable, targets[i], partition->stream.next);
            continue;
        }
        enum err err = queue_admits(queue);
        if (err != ERR_NONE) {
            refused = err;
            queue_bury_refused(queue, publish->pieces);
            continue;
        }
        record_add_queue(queue->durable && publish->persistent ? &durable : &fleeting, targets[i],
                         queue->ledger.stream.next);
    }
    *waits = *waits || durable.target_count > 0;
    enum err err = append_to(cell, publish, &durable, true);
    if (err == ERR_NONE)
        err = append_to(cell, publish, &fleeting, false);
    return err == ERR_NONE ? refused : err;
}

void cell_publish(struct cell *cell, const struct cell_publish *publish)
{
    bool waits = false;
    enum err err = ERR_NONE;
    if (publish->seq != 0)
        routing_begin(cell);
    for (uint32_t at = 0; at < publish->target_count; at += RECORD_TARGETS_MAX) {
        uint32_t count = publish->target_count - at;
        if (count > RECORD_TARGETS_MAX)
            count = RECORD_TARGETS_MAX;
        enum err some = publish_some(cell, publish, publish->targets + at, count, &waits);
        if (some != ERR_NONE)
            err = some;
    }
    cell->stats.published++;
    if (publish->seq == 0)
        return;
    if (waits)
        cell->wants_flush = true;
    struct event event = {.type = EVENT_PUBLISHED, .err = err, .asker = publish->asker};
    event.first_seq = event.last_seq = publish->seq;
    if (!routing_end(cell, &event))
        cell_confirm(cell, &publish->asker, publish->seq, err, waits);
}
