/* exchange.declare, delete, bind, unbind: requests to the catalog, whose words go to the client. */
#include "face/amqp/amqp.h"

#include "gen/amqp_send.h"

static void exchange_done(struct channel *channel, struct pending *pending,
                          const struct event *event)
{
    struct conn *conn = channel->amqp->conn;
    uint16_t number = channel->number;
    if (event->err) {
        channel_event_error(channel, pending->method, event);
        return;
    }
    if (pending->no_wait)
        return;
    switch (pending->method) {
    case AMQP_EXCHANGE_DECLARE:
        amqp_exchange_declare_ok_send(conn, number, &(struct amqp_exchange_declare_ok){0});
        break;
    case AMQP_EXCHANGE_DELETE:
        amqp_exchange_delete_ok_send(conn, number, &(struct amqp_exchange_delete_ok){0});
        break;
    case AMQP_EXCHANGE_BIND:
        amqp_exchange_bind_ok_send(conn, number, &(struct amqp_exchange_bind_ok){0});
        break;
    default:
        amqp_exchange_unbind_ok_send(conn, number, &(struct amqp_exchange_unbind_ok){0});
    }
}

static void request_send(struct channel *channel, uint32_t method, bool no_wait,
                         struct parts *parts, bool failed)
{
    struct pending *pending = NULL;
    if (failed)
        arguments_error(channel->amqp, method);
    else
        pending = pending_add(channel->amqp, channel, method, exchange_done);
    if (!pending) {
        parts_destroy(parts);
        return;
    }
    pending->no_wait = no_wait;
    definition_send(channel->amqp, parts, pending);
}

static void no_exchange(struct channel *channel, uint32_t method, struct slice name)
{
    struct slice vhost = vhost_name(channel->amqp);
    channel_error(channel, 404, method, "no exchange '%.*s' in vhost '%.*s'", (int)name.len,
                  (const char *)name.data, (int)vhost.len, (const char *)vhost.data);
}

static void declare_passive(struct channel *channel, const struct amqp_exchange_declare *m)
{
    struct amqp *self = channel->amqp;
    const struct catalog *catalog = conn_catalog(self->conn);
    if (m->exchange.len == 0)
        channel_error(channel, 403, AMQP_EXCHANGE_DECLARE,
                      "operation not permitted on the default exchange");
    else if (!catalog_exchange(catalog, self->namespace_id, m->exchange) &&
             !catalog_topic(catalog, self->namespace_id, m->exchange))
        no_exchange(channel, AMQP_EXCHANGE_DECLARE, m->exchange);
    else if (!m->no_wait)
        amqp_exchange_declare_ok_send(self->conn, channel->number,
                                      &(struct amqp_exchange_declare_ok){0});
}

static void declare(struct channel *channel, const struct amqp_exchange_declare *m)
{
    enum exchange_type type;
    if (m->passive) {
        declare_passive(channel, m);
        return;
    }
    if (!exchange_type_parse(m->type, &type)) {
        channel_error(channel, 406, AMQP_EXCHANGE_DECLARE, "unknown exchange type '%.*s'",
                      (int)m->type.len, (const char *)m->type.data);
        return;
    }
    struct parts *parts;
    struct catalog_request *request =
        catalog_request_new(channel, AMQP_EXCHANGE_DECLARE, CATALOG_DECLARE_EXCHANGE, &parts);
    if (!request)
        return;
    bool failed = false;
    request->name = parts_slice(parts, m->exchange, &failed);
    request->args = parts_args(parts, m->arguments, &failed);
    request->type = type;
    request->durable = m->durable;
    request->auto_delete = m->auto_delete;
    request->internal = m->internal;
    request_send(channel, AMQP_EXCHANGE_DECLARE, m->no_wait, parts, failed);
}

static void delete (struct channel *channel, const struct amqp_exchange_delete *m)
{
    struct parts *parts;
    struct catalog_request *request =
        catalog_request_new(channel, AMQP_EXCHANGE_DELETE, CATALOG_DELETE_EXCHANGE, &parts);
    if (!request)
        return;
    bool failed = false;
    request->name = parts_slice(parts, m->exchange, &failed);
    request->if_unused = m->if_unused;
    request_send(channel, AMQP_EXCHANGE_DELETE, m->no_wait, parts, failed);
}

/* bind and unbind have the same arguments. */
static void bind(struct channel *channel, uint32_t method, const struct amqp_exchange_bind *m)
{
    struct parts *parts;
    enum catalog_op op = method == AMQP_EXCHANGE_BIND ? CATALOG_BIND : CATALOG_UNBIND;
    struct catalog_request *request = catalog_request_new(channel, method, op, &parts);
    if (!request)
        return;
    bool failed = false;
    request->name = parts_slice(parts, m->source, &failed);
    request->target_kind = TARGET_EXCHANGE;
    request->target = parts_slice(parts, m->destination, &failed);
    request->key = parts_slice(parts, m->routing_key, &failed);
    request->args = parts_args(parts, m->arguments, &failed);
    request_send(channel, method, m->no_wait, parts, failed);
}

void exchange_method(struct channel *channel, uint32_t method, struct slice arguments)
{
    struct amqp_exchange_declare d;
    struct amqp_exchange_delete r;
    struct amqp_exchange_bind b;
    struct amqp_exchange_unbind u;
    bool read = false;
    switch (method) {
    case AMQP_EXCHANGE_DECLARE:
        if ((read = amqp_exchange_declare_read(arguments, &d)))
            declare(channel, &d);
        break;
    case AMQP_EXCHANGE_DELETE:
        if ((read = amqp_exchange_delete_read(arguments, &r)))
            delete (channel, &r);
        break;
    case AMQP_EXCHANGE_BIND:
        if ((read = amqp_exchange_bind_read(arguments, &b)))
            bind(channel, method, &b);
        break;
    case AMQP_EXCHANGE_UNBIND:
        if ((read = amqp_exchange_unbind_read(arguments, &u))) {
            b = (struct amqp_exchange_bind){u.destination, u.source, u.routing_key, u.no_wait,
                                            u.arguments};
            bind(channel, method, &b);
        }
        break;
    default:
        return;
    }
    if (!read)
        arguments_error(channel->amqp, method);
}
