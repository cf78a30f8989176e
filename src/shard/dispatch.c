/* Who gets what: commands go to the cell that owns their object, events to the connection or cell
 * that asked. On the same shard it is a call, otherwise a message. From inside a cell (depth > 0)
 * everything but events to this shard's connections is posted, so that no cell is entered twice;
 * and what a cell answers while a face is asking it is posted too, so that no face is entered
 * twice. Nothing overtakes what was posted: a delivery must not come before the consumer's answer,
 * nor a connection's end before what it asked last. */
#include "shard/state.h"

#include <stdlib.h>

uint32_t dispatch_cell_of(const struct broker *broker, const struct command *command)
{
    if (command->type == COMMAND_CATALOG || command->type == COMMAND_PRODUCER_ID)
        return 0;
    return cell_of(command->object, broker->cell_count);
}

static void enter(struct shard *shard, struct cell *cell)
{
    shard->work++;
    if (shard->depth++ == 0)
        cell_turn(cell, shard->now_ms, shard->wall_ms);
}

void dispatch_local_command(struct shard *shard, uint32_t number, const struct command *command)
{
    struct cell *cell = shard->cells[number];
    enter(shard, cell);
    cell_command(cell, command);
    shard->depth--;
}

void dispatch_local_publish(struct shard *shard, uint32_t number,
                            const struct cell_publish *publish)
{
    struct cell *cell = shard->cells[number];
    enter(shard, cell);
    cell_publish(cell, publish);
    shard->depth--;
}

static bool is_posted(const struct shard *shard, uint32_t cell)
{
    return shard->cells[cell] == NULL || shard->depth > 0 || shard->own_calls > 0;
}

void dispatch_command(struct shard *shard, uint32_t cell, const struct command *command)
{
    if (is_posted(shard, cell)) {
        shard->work++;
        mail_command(shard, cell, command);
        return;
    }
    shard->asking = true;
    dispatch_local_command(shard, cell, command);
    shard->asking = false;
}

void dispatch_publish(struct shard *shard, uint32_t cell, const struct cell_publish *publish)
{
    if (is_posted(shard, cell)) {
        shard->work++;
        mail_publish(shard, cell, publish);
        return;
    }
    shard->asking = true;
    dispatch_local_publish(shard, cell, publish);
    shard->asking = false;
}

static void drop_event(struct shard *shard, const struct event *event)
{
    for (uint32_t i = 0; event->type == EVENT_READ && i < event->read.count; i++)
        conn_release_buf(shard, event->read.entries[i].buf);
}

void dispatch_local_event(struct shard *shard, const struct event *event)
{
    if ((event->asker.conn & CELL_ASKER) != 0) {
        struct cell *cell = shard->cells[event->asker.conn & ~CELL_ASKER];
        enter(shard, cell);
        cell_event(cell, event);
        shard->depth--;
        return;
    }
    shard->work++;
    struct conn *conn = conn_find(shard, event->asker.conn);
    if (conn == NULL || conn->closing)
        drop_event(shard, event);
    else
        conn->face->event(conn->self, event);
}

/* ---- Effects of a cell ---- */

static void out_event(void *ctx, const struct event *event)
{
    struct shard *shard = ctx;
    bool to_cell = (event->asker.conn & CELL_ASKER) != 0;
    uint32_t to = to_cell
                      ? shard_of_cell(shard->broker, (uint32_t)(event->asker.conn & ~CELL_ASKER))
                      : (uint32_t)(event->asker.conn >> CONN_SHARD_SHIFT);
    if (to == shard->number && !to_cell && !shard->asking && shard->own_events == 0) {
        dispatch_local_event(shard, event);
        parts_destroy(event->parts);
        return;
    }
    mail_event(shard, to, event); /* the parts go along */
}

static void out_command(void *ctx, const struct command *command)
{
    struct shard *shard = ctx;
    mail_command(shard, dispatch_cell_of(shard->broker, command), command);
}

static void out_publish(void *ctx, uint32_t cell, const struct cell_publish *publish)
{
    mail_publish(ctx, cell, publish);
}

static void out_change(void *ctx, struct slice changes, const struct event *answer)
{
    changes_broadcast(ctx, changes, answer);
}

static void out_failed(void *ctx, enum err err)
{
    struct shard *shard = ctx;
    const struct log *log = shard->broker->log;
    uint64_t bit = UINT64_C(1) << shard->number;
    if (err == ERR_DISK_FULL) {
        if (shard->full_cells++ == 0)
            atomic_fetch_or(&shard->broker->blocked, bit);
        log_event(log, LOG_WARN, "disk full, publishers wait", NULL);
    } else if (err == ERR_NONE) {
        if (shard->full_cells > 0 && --shard->full_cells == 0)
            atomic_fetch_and(&shard->broker->blocked, ~bit);
        log_event(log, LOG_INFO, "disk has room again", NULL);
    } else {
        log_event(log, LOG_ERROR, "storage failed, the broker stops",
                  (const struct log_field[]){log_text("error", err_text(err)), log_end()});
        atomic_store(&shard->broker->failed, true);
    }
}

static void out_unreadable(void *ctx, uint64_t object, uint64_t offset, enum err err)
{
    struct shard *shard = ctx;
    log_event(shard->broker->log, LOG_ERROR, "stored message cannot be read",
              (const struct log_field[]){log_uint("object", object), log_uint("offset", offset),
                                         log_text("error", err_text(err)), log_end()});
}

const struct cell_out dispatch_cell_out = {
    .event = out_event,
    .command = out_command,
    .publish = out_publish,
    .change = out_change,
    .failed = out_failed,
    .unreadable = out_unreadable,
};
