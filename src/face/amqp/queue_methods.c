/* queue.declare, bind, unbind, purge, delete. A name that is a topic's is a stream queue: it is
 * declared with x-queue-type=stream, bound to, counted and deleted by the same methods. */
#include "face/amqp/amqp.h"

#include "codec/amqp_field.h"
#include "gen/amqp_send.h"

/* ---- declare ---- */

static void declare_ok(struct channel *channel, const struct pending *pending, uint64_t messages,
                       uint64_t consumers)
{
    if (pending->no_wait)
        return;
    struct amqp_queue_declare_ok m = {
        .queue = slice_make(pending->name, pending->name_len),
        .message_count = messages > UINT32_MAX ? UINT32_MAX : (uint32_t)messages,
        .consumer_count = consumers > UINT32_MAX ? UINT32_MAX : (uint32_t)consumers,
    };
    amqp_queue_declare_ok_send(channel->amqp->conn, channel->number, &m);
}

static void pending_name(struct pending *pending, struct slice name)
{
    pending->name_len = (uint8_t)name.len;
    if (name.len)
        memcpy(pending->name, name.data, name.len);
}

static void counted(struct channel *channel, struct pending *pending, const struct event *event)
{
    if (event->err)
        channel_no_queue(channel, pending->method, slice_make(pending->name, pending->name_len));
    else
        declare_ok(channel, pending, event->value, event->value2);
}

/* declare-ok says how many messages and consumers there are. */
static void count(struct channel *channel, uint32_t method, uint64_t queue, struct slice name)
{
    struct pending *pending = pending_add(channel->amqp, channel, method, counted);
    if (!pending)
        return;
    pending_name(pending, name);
    struct command command = {.type = COMMAND_QUEUE_STATUS, .object = queue};
    command_send(channel->amqp, &command, channel->number, pending->tag);
}

static const struct topic *topic_named(struct channel *channel, struct slice name)
{
    struct amqp *self = channel->amqp;
    return catalog_topic(conn_catalog(self->conn), self->namespace_id, name);
}

/* A topic's count is the sum of its partitions', end minus beginning, asked for one by one: the
 * sum so far stands in pending->consumer. */
static void topic_counted(struct channel *channel, struct pending *pending,
                          const struct event *event)
{
    if (event->err)
        channel_no_queue(channel, AMQP_QUEUE_DECLARE, slice_make(pending->name, pending->name_len));
    else
        declare_ok(channel, pending, pending->consumer, 0);
}

static struct command topic_question(const struct topic *topic, uint32_t step)
{
    return (struct command){.type = COMMAND_OFFSETS,
                            .object = topic->partitions[step / 2],
                            .offsets = {.query = step % 2 == 0 ? OFFSET_EARLIEST : OFFSET_LATEST}};
}

static bool topic_count_more(struct channel *channel, struct pending *pending,
                             const struct event *event)
{
    const struct topic *topic = topic_named(channel, slice_make(pending->name, pending->name_len));
    if (event->err || !topic)
        return false;
    bool is_end = pending->step++ % 2 == 1;
    pending->consumer += is_end ? event->value : -event->value;
    if (pending->step / 2 >= topic->partition_count)
        return false;
    struct command command = topic_question(topic, pending->step);
    pending_again(channel, pending, &command);
    return true;
}

static void topic_count(struct channel *channel, const struct topic *topic, struct slice name)
{
    struct pending *pending =
        pending_add(channel->amqp, channel, AMQP_QUEUE_DECLARE, topic_counted);
    if (!pending)
        return;
    pending_name(pending, name);
    pending->more = topic_count_more;
    struct command command = topic_question(topic, 0);
    command_send(channel->amqp, &command, channel->number, pending->tag);
}

static void declared(struct channel *channel, struct pending *pending, const struct event *event)
{
    if (event->err)
        channel_event_error(channel, pending->method, event);
    else
        declare_ok(channel, pending, 0, 0);
}

/* It was there before: it may hold messages. */
static bool declared_again(struct channel *channel, struct pending *pending,
                           const struct event *event)
{
    struct amqp *self = channel->amqp;
    if (event->err || pending->no_wait || !event->value2)
        return false;
    const struct queue_def *queue = catalog_queue(conn_catalog(self->conn), self->namespace_id,
                                                  slice_make(pending->name, pending->name_len));
    if (!queue)
        return false;
    pending->more = NULL;
    pending->done = counted;
    struct command command = {.type = COMMAND_QUEUE_STATUS, .object = queue->id};
    pending_again(channel, pending, &command);
    return true;
}

static void last_queue_set(struct channel *channel, struct slice name)
{
    channel->last_queue_len = (uint8_t)name.len;
    if (name.len)
        memcpy(channel->last_queue, name.data, name.len);
}

static void declare_passive(struct channel *channel, const struct amqp_queue_declare *m)
{
    struct slice name;
    if (!channel_queue_name(channel, AMQP_QUEUE_DECLARE, m->queue, &name))
        return;
    const struct topic *topic = topic_named(channel, name);
    if (topic) {
        last_queue_set(channel, name);
        if (!m->no_wait)
            topic_count(channel, topic, name);
        return;
    }
    /* Whoever is to answer may ask whether the asker is still there. */
    if (direct_reply_is_name(name) &&
        catalog_queue(conn_catalog(channel->amqp->conn), channel->amqp->namespace_id, name)) {
        struct amqp_queue_declare_ok ok = {.queue = name, .consumer_count = 1};
        if (!m->no_wait)
            amqp_queue_declare_ok_send(channel->amqp->conn, channel->number, &ok);
        return;
    }
    const struct queue_def *queue = channel_queue(channel, AMQP_QUEUE_DECLARE, name);
    if (!queue)
        return;
    last_queue_set(channel, name);
    if (!m->no_wait)
        count(channel, AMQP_QUEUE_DECLARE, queue->id, name);
}

/* "amq.gen-" and 22 characters: 128 random bits. */
static struct slice name_make(struct amqp *self, char *room)
{
    memcpy(room, "amq.gen-", 8);
    random_letters(self, room + 8, 22);
    return slice_make(room, 30);
}

/* Without the line ends that RabbitMQ takes out, too. */
static struct slice name_clean(struct slice name, char *room)
{
    size_t len = 0;
    for (size_t i = 0; i < name.len; i++)
        if (name.data[i] != '\r' && name.data[i] != '\n')
            room[len++] = (char)name.data[i];
    return slice_make(room, len);
}

static bool declares_stream(struct slice arguments)
{
    struct amqp_field type;
    return amqp_table_find(arguments, "x-queue-type", &type) && type.type == 'S' &&
           slice_equal(type.bytes, slice_of("stream"));
}

/* A topic declared again is fine as long as it is declared as a stream. */
static bool topic_again(struct channel *channel, const struct amqp_queue_declare *m,
                        struct slice name)
{
    const struct topic *topic = topic_named(channel, name);
    if (!topic)
        return false;
    last_queue_set(channel, name);
    if (!declares_stream(m->arguments)) {
        struct slice vhost = vhost_name(channel->amqp);
        channel_error(channel, 406, AMQP_QUEUE_DECLARE,
                      "inequivalent arg 'x-queue-type' for queue '%.*s' in vhost '%.*s': received "
                      "none but current is the value 'stream' of type 'longstr'",
                      (int)name.len, (const char *)name.data, (int)vhost.len,
                      (const char *)vhost.data);
    } else if (!m->no_wait) {
        topic_count(channel, topic, name);
    }
    return true;
}

static bool stream_allowed(struct channel *channel, const struct amqp_queue_declare *m,
                           struct slice name)
{
    const char *property = !m->durable      ? "non-durable"
                           : m->exclusive   ? "exclusive"
                           : m->auto_delete ? "auto-delete"
                                            : NULL;
    if (!property)
        return true;
    struct slice vhost = vhost_name(channel->amqp);
    channel_error(channel, 406, AMQP_QUEUE_DECLARE,
                  "invalid property '%s' for queue '%.*s' in vhost '%.*s'", property, (int)name.len,
                  (const char *)name.data, (int)vhost.len, (const char *)vhost.data);
    return false;
}

/* Names that the server makes are not for clients to give; declaring such a queue again is fine. */
static bool name_is_reserved(struct channel *channel, const struct amqp_queue_declare *m,
                             struct slice name)
{
    struct amqp *self = channel->amqp;
    if (m->queue.len == 0 || name.len < 4 || memcmp(name.data, "amq.", 4) != 0 ||
        catalog_queue(conn_catalog(self->conn), self->namespace_id, name))
        return false;
    channel_error(channel, 403, AMQP_QUEUE_DECLARE,
                  "queue name '%.*s' contains reserved prefix 'amq.*'", (int)name.len,
                  (const char *)name.data);
    return true;
}

static void declare(struct channel *channel, const struct amqp_queue_declare *m)
{
    struct amqp *self = channel->amqp;
    char room[AMQP_SHORTSTR_MAX];
    if (m->passive) {
        declare_passive(channel, m);
        return;
    }
    struct slice name = m->queue.len ? name_clean(m->queue, room) : name_make(self, room);
    if (topic_again(channel, m, name))
        return;
    if (name_is_reserved(channel, m, name))
        return;
    bool stream = declares_stream(m->arguments);
    if (stream && !stream_allowed(channel, m, name))
        return;
    struct parts *parts;
    struct catalog_request *request = catalog_request_new(
        channel, AMQP_QUEUE_DECLARE, stream ? CATALOG_CREATE_TOPIC : CATALOG_DECLARE_QUEUE, &parts);
    if (!request)
        return;
    bool failed = false;
    request->name = parts_slice(parts, name, &failed);
    request->args = parts_args(parts, m->arguments, &failed);
    request->durable = m->durable;
    request->auto_delete = m->auto_delete;
    request->exclusive = m->exclusive;
    request->partitions = 1;
    be64_put(request->uuid, conn_random(self->conn));
    be64_put(request->uuid + 8, conn_random(self->conn));
    struct pending *pending = NULL;
    if (failed)
        arguments_error(self, AMQP_QUEUE_DECLARE);
    else
        pending = pending_add(self, channel, AMQP_QUEUE_DECLARE, declared);
    if (!pending) {
        parts_destroy(parts);
        return;
    }
    pending->more = declared_again;
    pending->no_wait = m->no_wait;
    pending_name(pending, name);
    last_queue_set(channel, name);
    definition_send(self, parts, pending);
}

/* ---- bind, unbind ---- */

static void bound(struct channel *channel, struct pending *pending, const struct event *event)
{
    struct conn *conn = channel->amqp->conn;
    if (event->err)
        channel_event_error(channel, pending->method, event);
    else if (pending->method == AMQP_QUEUE_UNBIND)
        amqp_queue_unbind_ok_send(conn, channel->number, &(struct amqp_queue_unbind_ok){0});
    else if (!pending->no_wait)
        amqp_queue_bind_ok_send(conn, channel->number, &(struct amqp_queue_bind_ok){0});
}

static void bind(struct channel *channel, uint32_t method, const struct amqp_queue_bind *m)
{
    struct amqp *self = channel->amqp;
    struct slice name, key = m->routing_key;
    if (!channel_queue_name(channel, method, m->queue, &name))
        return;
    if (m->queue.len == 0 &&
        key.len == 0) /* section 3.1.9: the last queue's name is the key, too */
        key = name;
    struct parts *parts;
    enum catalog_op op = method == AMQP_QUEUE_BIND ? CATALOG_BIND : CATALOG_UNBIND;
    struct catalog_request *request = catalog_request_new(channel, method, op, &parts);
    if (!request)
        return;
    bool failed = false;
    request->name = parts_slice(parts, m->exchange, &failed);
    request->target_kind = topic_named(channel, name) ? TARGET_TOPIC : TARGET_QUEUE;
    request->target = parts_slice(parts, name, &failed);
    request->key = parts_slice(parts, key, &failed);
    request->args = parts_args(parts, m->arguments, &failed);
    struct pending *pending = NULL;
    if (failed)
        arguments_error(self, method);
    else
        pending = pending_add(self, channel, method, bound);
    if (!pending) {
        parts_destroy(parts);
        return;
    }
    pending->no_wait = m->no_wait;
    definition_send(self, parts, pending);
}

/* ---- purge, delete ---- */

static uint32_t messages_of(const struct event *event)
{
    return event->value > UINT32_MAX ? UINT32_MAX : (uint32_t)event->value;
}

static void purged(struct channel *channel, struct pending *pending, const struct event *event)
{
    if (event->err)
        channel_no_queue(channel, pending->method, slice_make(pending->name, pending->name_len));
    else if (!pending->no_wait)
        amqp_queue_purge_ok_send(
            channel->amqp->conn, channel->number,
            &(struct amqp_queue_purge_ok){.message_count = messages_of(event)});
}

static void purge(struct channel *channel, const struct amqp_queue_purge *m)
{
    struct amqp *self = channel->amqp;
    struct slice name;
    if (!channel_queue_name(channel, AMQP_QUEUE_PURGE, m->queue, &name))
        return;
    if (topic_named(channel, name)) {
        channel_error(channel, 540, AMQP_QUEUE_PURGE, "queue '%.*s' is a stream: cannot be purged",
                      (int)name.len, (const char *)name.data);
        return;
    }
    const struct queue_def *queue = channel_queue(channel, AMQP_QUEUE_PURGE, name);
    struct pending *pending = queue ? pending_add(self, channel, AMQP_QUEUE_PURGE, purged) : NULL;
    if (!pending)
        return;
    pending->no_wait = m->no_wait;
    pending_name(pending, name);
    struct command command = {.type = COMMAND_PURGE, .object = queue->id};
    command_send(self, &command, channel->number, pending->tag);
}

static void deleted(struct channel *channel, struct pending *pending, const struct event *event)
{
    struct slice vhost = vhost_name(channel->amqp);
    const char *state = event->err == ERR_IN_USE ? "in use" : "not empty";
    bool gone = !event->err || event->err == ERR_NOT_FOUND;
    if (event->err == ERR_IN_USE || event->err == ERR_NOT_EMPTY)
        channel_error(channel, 406, pending->method, "queue '%.*s' in vhost '%.*s' %s",
                      (int)pending->name_len, pending->name, (int)vhost.len,
                      (const char *)vhost.data, state);
    else if (!gone)
        channel_event_error(channel, pending->method, event);
    else if (!pending->no_wait)
        amqp_queue_delete_ok_send(
            channel->amqp->conn, channel->number,
            &(struct amqp_queue_delete_ok){.message_count = event->err ? 0 : messages_of(event)});
}

/* How many messages went with it nobody counts. */
static void topic_deleted(struct channel *channel, struct pending *pending,
                          const struct event *event)
{
    struct event counted = *event;
    counted.value = 0;
    deleted(channel, pending, &counted);
}

static void delete_topic(struct channel *channel, struct slice name, bool no_wait)
{
    struct parts *parts;
    struct catalog_request *request =
        catalog_request_new(channel, AMQP_QUEUE_DELETE, CATALOG_DELETE_TOPIC, &parts);
    if (!request)
        return;
    bool failed = false;
    request->name = parts_slice(parts, name, &failed);
    struct pending *pending =
        failed ? NULL : pending_add(channel->amqp, channel, AMQP_QUEUE_DELETE, topic_deleted);
    if (!pending) {
        parts_destroy(parts);
        return;
    }
    pending->no_wait = no_wait;
    pending_name(pending, name);
    definition_send(channel->amqp, parts, pending);
}

static void delete (struct channel *channel, const struct amqp_queue_delete *m)
{
    struct amqp *self = channel->amqp;
    struct slice name;
    if (!channel_queue_name(channel, AMQP_QUEUE_DELETE, m->queue, &name))
        return;
    if (topic_named(channel, name)) {
        delete_topic(channel, name, m->no_wait);
        return;
    }
    /* A queue that is not there is as deleted as it can be. */
    if (!catalog_queue(conn_catalog(self->conn), self->namespace_id, name)) {
        if (!m->no_wait)
            amqp_queue_delete_ok_send(self->conn, channel->number,
                                      &(struct amqp_queue_delete_ok){0});
        return;
    }
    const struct queue_def *queue = channel_queue(channel, AMQP_QUEUE_DELETE, name);
    struct pending *pending = queue ? pending_add(self, channel, AMQP_QUEUE_DELETE, deleted) : NULL;
    if (!pending)
        return;
    pending->no_wait = m->no_wait;
    pending_name(pending, name);
    uint8_t flags =
        (uint8_t)((m->if_unused ? DELETE_IF_UNUSED : 0) | (m->if_empty ? DELETE_IF_EMPTY : 0));
    struct command command = {
        .type = COMMAND_DELETE_QUEUE, .object = queue->id, .remove = {.flags = flags}};
    command_send(self, &command, channel->number, pending->tag);
}

/* ---- What may go on at the same time ---- */

/* Is all that is under way the declaration or deletion of a queue, and of none with this name? */
static bool others_only(const struct amqp *self, struct slice name)
{
    list_each(node, &self->pending)
    {
        const struct pending *pending = list_entry(node, struct pending, link);
        if ((pending->method != AMQP_QUEUE_DECLARE && pending->method != AMQP_QUEUE_DELETE) ||
            slice_equal(slice_make(pending->name, pending->name_len), name))
            return false;
    }
    return true;
}

static bool declare_may_pass(struct channel *channel, const struct amqp_queue_declare *m)
{
    char room[AMQP_SHORTSTR_MAX];
    struct slice name = name_clean(m->queue, room);
    bool reserved = name.len >= 4 && memcmp(name.data, "amq.", 4) == 0;
    return !m->passive && name.len > 0 && !reserved && !declares_stream(m->arguments) &&
           !topic_named(channel, name) && others_only(channel->amqp, name);
}

static bool delete_may_pass(struct channel *channel, struct slice name)
{
    const struct amqp *self = channel->amqp;
    const struct queue_def *queue =
        catalog_queue(conn_catalog(self->conn), self->namespace_id, name);
    return name.len > 0 && queue && (!queue->exclusive || queue->owner == conn_id(self->conn)) &&
           !topic_named(channel, name) && others_only(self, name);
}

bool queue_method_may_pass(struct amqp *self, uint16_t number, uint32_t method,
                           struct slice arguments)
{
    struct channel *channel = channel_get(self, number);
    struct amqp_queue_declare d;
    struct amqp_queue_delete r;
    if (!channel || channel->state != CHANNEL_OPEN)
        return false;
    if (method == AMQP_QUEUE_DECLARE)
        return amqp_queue_declare_read(arguments, &d) && declare_may_pass(channel, &d);
    return method == AMQP_QUEUE_DELETE && amqp_queue_delete_read(arguments, &r) &&
           delete_may_pass(channel, r.queue);
}

void queue_method(struct channel *channel, uint32_t method, struct slice arguments)
{
    struct amqp_queue_declare d;
    struct amqp_queue_bind b;
    struct amqp_queue_unbind u;
    struct amqp_queue_purge p;
    struct amqp_queue_delete r;
    bool read = false;
    switch (method) {
    case AMQP_QUEUE_DECLARE:
        if ((read = amqp_queue_declare_read(arguments, &d)))
            declare(channel, &d);
        break;
    case AMQP_QUEUE_BIND:
        if ((read = amqp_queue_bind_read(arguments, &b)))
            bind(channel, method, &b);
        break;
    case AMQP_QUEUE_UNBIND:
        if ((read = amqp_queue_unbind_read(arguments, &u))) {
            b = (struct amqp_queue_bind){u.queue, u.exchange, u.routing_key, false, u.arguments};
            bind(channel, method, &b);
        }
        break;
    case AMQP_QUEUE_PURGE:
        if ((read = amqp_queue_purge_read(arguments, &p)))
            purge(channel, &p);
        break;
    case AMQP_QUEUE_DELETE:
        if ((read = amqp_queue_delete_read(arguments, &r)))
            delete (channel, &r);
        break;
    default:
        return;
    }
    if (!read)
        arguments_error(channel->amqp, method);
}
