/* What the broker was asked for and has not answered. An answer is matched by its tag; one for a
 * channel that was closed meanwhile is dropped. When the last is in, input goes on. */
#include "face/amqp/amqp.h"

#include "core/args_table.h"

#include <stdlib.h>

enum { REQUEST_BYTES_MAX = 1 << 20 };

struct pending *pending_add(struct amqp *self, struct channel *channel, uint32_t method,
                            void (*done)(struct channel *, struct pending *, const struct event *))
{
    struct pending *pending = calloc(1, sizeof *pending);
    if (!pending) {
        connection_error(self, 506, method, "out of memory");
        return NULL;
    }
    pending->tag = ++self->next_tag;
    pending->method = method;
    pending->done = done;
    pending->answers = 1;
    if (channel) {
        pending->channel = channel->number;
        pending->incarnation = channel->incarnation;
    }
    list_insert(&self->pending, &pending->link);
    self->pending_count++;
    return pending;
}

struct pending *pending_find(struct amqp *self, uint64_t tag)
{
    list_each(node, &self->pending)
    {
        struct pending *pending = list_entry(node, struct pending, link);
        if (pending->tag == tag)
            return pending;
    }
    return NULL;
}

void pending_remove(struct amqp *self, struct pending *pending)
{
    list_remove(&pending->link);
    self->pending_count--;
    free(pending);
}

void pending_answer(struct amqp *self, const struct event *event)
{
    struct pending *pending = pending_find(self, event->asker.tag);
    if (!pending || --pending->answers > 0)
        return;
    /* Off the list first: done() may ask for more, or end the connection. */
    list_remove(&pending->link);
    self->pending_count--;
    struct channel *channel = pending->channel ? channel_get(self, pending->channel) : NULL;
    bool wanted = pending->channel == 0 ||
                  (channel && channel->incarnation == pending->incarnation &&
                   (channel->state == CHANNEL_OPEN || pending->method == AMQP_CHANNEL_CLOSE));
    if (wanted && self->stage != STAGE_CLOSING)
        pending->done(channel, pending, event);
    free(pending);
    arena_reset(&self->scratch);
    if (self->stage == STAGE_LEAVING) {
        self->leaving--;
        connection_leave_step(self);
    } else if (self->pending_count == 0) {
        input_resume(self);
    }
}

void command_send(struct amqp *self, struct command *command, uint16_t channel, uint64_t tag)
{
    settle_flush(self);
    command->asker.channel = channel;
    command->asker.tag = tag;
    conn_command(self->conn, command);
}

void definition_send(struct amqp *self, struct parts *parts, struct pending *pending)
{
    pending->catalog = true;
    struct command command = {.type = COMMAND_CATALOG, .parts = parts};
    command_send(self, &command, pending->channel, pending->tag);
}

struct catalog_request *catalog_request_new(struct channel *channel, uint32_t method,
                                            enum catalog_op op, struct parts **parts)
{
    struct amqp *self = channel->amqp;
    *parts = parts_create(REQUEST_BYTES_MAX);
    struct catalog_request *request =
        *parts ? arena_alloc(&(*parts)->arena, sizeof *request) : NULL;
    if (!request) {
        parts_destroy(*parts);
        connection_error(self, 506, method, "out of memory");
        return NULL;
    }
    *request = (struct catalog_request){
        .op = op,
        .namespace_id = self->namespace_id,
        .owner = conn_id(self->conn),
    };
    (*parts)->root = request;
    return request;
}

struct slice parts_slice(struct parts *parts, struct slice text, bool *failed)
{
    uint8_t *copy = arena_alloc(&parts->arena, text.len);
    if (!copy) {
        *failed = true;
        return (struct slice){0};
    }
    if (text.len)
        memcpy(copy, text.data, text.len);
    return slice_make(copy, text.len);
}

struct args parts_args(struct parts *parts, struct slice table, bool *failed)
{
    struct args args = {0};
    struct slice copy = parts_slice(parts, table, failed);
    if (!*failed && (!amqp_table_valid(copy) || !args_from_table(copy, &parts->arena, &args)))
        *failed = true;
    return args;
}
