/* What the broker was asked for and has not answered. An answer is matched by its tag; one for a
 * channel that was closed meanwhile is dropped. Several may be under way, asked of different cells:
 * the client hears the answers in the order in which it asked. When the last is in, input goes on.
 */
#include "face/amqp/amqp.h"

#include "core/args_table.h"

#include <stdlib.h>
#include <string.h>

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

void pending_again(struct channel *channel, struct pending *pending, struct command *command)
{
    pending->answers = 1;
    pending->catalog = false;
    command_send(channel->amqp, command, channel->number, pending->tag);
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

static void pending_free(struct pending *pending)
{
    free(pending->detail);
    free(pending);
}

void pending_remove(struct amqp *self, struct pending *pending)
{
    list_remove(&pending->link);
    self->pending_count--;
    pending_free(pending);
}

/* Is there still somebody to hear of it? *out: the channel, NULL for the connection's own. */
static bool wanted(struct amqp *self, const struct pending *pending, struct channel **out)
{
    struct channel *channel = pending->channel ? channel_get(self, pending->channel) : NULL;
    *out = channel;
    if (self->stage == STAGE_CLOSING)
        return false;
    return pending->channel == 0 ||
           (channel && channel->incarnation == pending->incarnation &&
            (channel->state == CHANNEL_OPEN || pending->method == AMQP_CHANNEL_CLOSE));
}

/* Its turn has not come. */
static void answer_keep(struct pending *pending, const struct event *event)
{
    pending->answered = true;
    pending->err = event->err;
    pending->value = event->value;
    pending->value2 = event->value2;
    if (event->detail.len == 0 || (pending->detail = malloc(event->detail.len + 1)) == NULL)
        return;
    memcpy(pending->detail, event->detail.data, event->detail.len);
    pending->detail[event->detail.len] = 0;
}

static void answer_take(struct amqp *self, struct pending *pending, const struct event *event)
{
    /* Off the list first: done() may ask for more, or end the connection. */
    list_remove(&pending->link);
    self->pending_count--;
    struct channel *channel;
    if (wanted(self, pending, &channel))
        pending->done(channel, pending, event);
    pending_free(pending);
    arena_reset(&self->scratch);
    if (self->stage == STAGE_LEAVING) {
        self->leaving--;
        connection_leave_step(self);
    }
}

/* Takes the answer of the oldest one, if it is there already. */
static bool answer_next(struct amqp *self)
{
    if (list_empty(&self->pending) || self->stage == STAGE_DONE)
        return false;
    struct pending *pending = list_entry(self->pending.next, struct pending, link);
    if (!pending->answered)
        return false;
    struct event event = {.type = EVENT_ANSWER, .err = pending->err};
    event.value = pending->value;
    event.value2 = pending->value2;
    event.detail = slice_of(pending->detail ? pending->detail : "");
    answer_take(self, pending, &event);
    return true;
}

void pending_answer(struct amqp *self, const struct event *event)
{
    struct pending *pending = pending_find(self, event->asker.tag);
    struct channel *channel;
    if (!pending || --pending->answers > 0)
        return;
    if (pending->more && wanted(self, pending, &channel) && pending->more(channel, pending, event))
        return;
    if (self->pending.next != &pending->link) {
        answer_keep(pending, event);
        return;
    }
    answer_take(self, pending, event);
    while (answer_next(self))
        continue;
    if (self->pending_count == 0)
        input_resume(self);
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
