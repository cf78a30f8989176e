/* Requests: each is checked against the catalog, in RabbitMQ's order and words where AMQP clients
 * ask and in Kafka's where Kafka clients do, and becomes the changes that carry it out. A topic
 * that an AMQP client declares has the argument x-queue-type; one that Kafka creates has not. */
#include "core/catalog_decision.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Words ---- */

enum err decision_refuse(struct decision *decision, enum err err, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(decision->problem->text, sizeof decision->problem->text, format, args);
    va_end(args);
    return err;
}

const char *decision_subject(struct decision *decision, const char *kind, struct slice name)
{
    struct slice vhost = catalog_namespace_name(decision->catalog, decision->request->namespace_id);
    snprintf(decision->subject, sizeof decision->subject, "%s '%.*s' in vhost '%.*s'", kind,
             (int)name.len, (const char *)name.data, (int)vhost.len, (const char *)vhost.data);
    return decision->subject;
}

enum err decision_refuse_missing(struct decision *decision, const char *kind, struct slice name)
{
    return decision_refuse(decision, ERR_NOT_FOUND, "no %s",
                           decision_subject(decision, kind, name));
}

enum err decision_refuse_bool(struct decision *decision, const char *field, bool received)
{
    return decision_refuse(decision, ERR_NOT_EQUIVALENT,
                           "inequivalent arg '%s' for %s: received '%s' but current is '%s'", field,
                           decision->subject, received ? "true" : "false",
                           received ? "false" : "true");
}

/* "none" or "the value '10' of type 'signedint'"; the bare value where both are there. */
static void describe(const struct arg *arg, bool bare, char text[160])
{
    char value[100];
    if (arg == NULL) {
        snprintf(text, 160, "none");
        return;
    }
    arg_print(arg, value, sizeof value);
    if (bare)
        snprintf(text, 160, "'%s'", value);
    else
        snprintf(text, 160, "the value '%s' of type '%s'", value, arg_type_name(arg));
}

enum err decision_compare(struct decision *decision, const char *name, struct args current)
{
    const struct arg *received = args_find(decision->request->args, name);
    const struct arg *has = args_find(current, name);
    if (received == has || (received != NULL && has != NULL && arg_equal(received, has)))
        return ERR_NONE;
    /* A classic queue need not say that it is one. */
    const struct arg *only = received == NULL ? has : has == NULL ? received : NULL;
    if (only != NULL && strcmp(name, "x-queue-type") == 0 && only->kind == ARG_TEXT &&
        slice_equal(only->text, slice_of("classic")))
        return ERR_NONE;
    char left[160], right[160];
    bool both = received != NULL && has != NULL;
    describe(received, both, left);
    describe(has, both, right);
    return decision_refuse(decision, ERR_NOT_EQUIVALENT,
                           "inequivalent arg '%s' for %s: received %s but current is %s", name,
                           decision->subject, left, right);
}

bool name_begins_amq(struct slice name)
{
    return name.len >= 4 && memcmp(name.data, "amq.", 4) == 0;
}

enum err decision_refuse_locked(struct decision *decision)
{
    return decision_refuse(
        decision, ERR_LOCKED,
        "cannot obtain exclusive access to locked %s. It could be originally declared on "
        "another connection or the exclusive property value does not match that of the "
        "original declaration.",
        decision->subject);
}

enum err decision_refuse_type(struct decision *decision, const char *received, const char *current)
{
    return decision_refuse(decision, ERR_NOT_EQUIVALENT,
                           "inequivalent arg 'x-queue-type' for %s: received %s but current is %s",
                           decision->subject, received, current);
}

enum err decision_refuse_default(struct decision *decision)
{
    return decision_refuse(decision, ERR_REFUSED,
                           "operation not permitted on the default exchange");
}

enum err decision_refuse_reserved(struct decision *decision, const char *kind)
{
    struct slice name = decision->request->name;
    return decision_refuse(decision, ERR_REFUSED, "%s name '%.*s' contains reserved prefix 'amq.*'",
                           kind, (int)name.len, (const char *)name.data);
}

/* ---- Checks ---- */

bool request_may_touch(const struct catalog_request *request, const struct queue_def *queue)
{
    return queue->owner == 0 || request->owner == 0 || queue->owner == request->owner;
}

/* An argument that names an exchange. */
enum err decision_check_exchange_arg(struct decision *decision, const char *name)
{
    const struct arg *arg = args_find(decision->request->args, name);
    if (arg == NULL || arg->kind == ARG_TEXT)
        return ERR_NONE;
    return decision_refuse(decision, ERR_INVALID, "invalid type '%s' for arg '%s' in %s",
                           arg_type_name(arg), name, decision->subject);
}

enum err decision_check_queue_args(struct decision *decision)
{
    enum err err = decision_check_exchange_arg(decision, "x-dead-letter-exchange");
    if (err != ERR_NONE)
        return err;
    const char *name;
    char text[FAULT_BYTES];
    if (queue_args_check(decision->request->args, &name, text))
        return ERR_NONE;
    return decision_refuse(decision, ERR_INVALID, "invalid arg '%s' for %s: %.200s", name,
                           decision->subject, text);
}

enum err decision_emit(struct decision *decision, const struct change *change, bool durable)
{
    decision->out->durable = decision->out->durable || durable;
    return change_encode(decision->out, change);
}

/* ---- What goes with what is removed ---- */

/* Exchanges that a removal leaves without bindings and that are auto-delete, transitively. */
struct removal {
    uint64_t first; /* what the request removes; 0: a binding */
    uint64_t *ids;  /* found so far; those before `done` were looked at */
    uint32_t count, capacity;
    struct map lost; /* bindings lost by each source, as a count in the pointer */
};

static bool removal_add(struct removal *removal, uint64_t id)
{
    if (removal->count == removal->capacity) {
        uint32_t capacity = removal->capacity == 0 ? 8 : removal->capacity * 2;
        uint64_t *ids = realloc(removal->ids, capacity * sizeof *ids);
        if (ids == NULL)
            return false;
        removal->ids = ids;
        removal->capacity = capacity;
    }
    removal->ids[removal->count++] = id;
    return true;
}

static bool lose_edge(struct removal *removal, const struct catalog *catalog,
                      const struct edge *edge)
{
    const struct object *from =
        object_get(catalog, edge->binding.source_kind, edge->binding.source);
    if (from == NULL || from->kind != TARGET_EXCHANGE || !from->exchange.auto_delete)
        return true;
    uint64_t id = object_id(from);
    uintptr_t lost = (uintptr_t)map_get(&removal->lost, id) + 1;
    if (!map_put(&removal->lost, id, (void *)lost))
        return false;
    const struct source *source = map_get(&catalog->sources, id);
    assert(source != NULL); /* it has this edge */
    return lost != source->count || id == removal->first || removal_add(removal, id);
}

enum err decision_cascade(struct decision *decision, uint64_t first, const struct edge *edge)
{
    const struct catalog *catalog = decision->catalog;
    struct removal removal = {.first = first};
    enum err err = ERR_NONE;
    bool room = edge ? lose_edge(&removal, catalog, edge) : removal_add(&removal, first);
    for (uint32_t i = 0; room && err == ERR_NONE && i < removal.count; i++) {
        uint64_t id = removal.ids[i];
        if (id != first) {
            const struct object *exchange = object_get(catalog, TARGET_EXCHANGE, id);
            struct change change = {.type = CHANGE_REMOVE_EXCHANGE, .id = id};
            err = decision_emit(decision, &change, exchange->exchange.durable);
        }
        struct sink *sink = map_get(&catalog->sinks, id);
        if (sink == NULL)
            continue;
        list_each(node, &sink->edges) room =
            room && lose_edge(&removal, catalog, list_entry(node, struct edge, by_target));
    }
    free(removal.ids);
    map_done(&removal.lost);
    return room ? err : ERR_NO_MEMORY;
}

/* ---- Namespaces ---- */

static enum err create_namespace(struct decision *decision)
{
    uint32_t id;
    if (catalog_namespace(decision->catalog, decision->request->name, &id)) {
        decision->out->id = id;
        decision->out->existed = true;
        return ERR_NONE;
    }
    if (decision->catalog->next_id > UINT32_MAX)
        return decision_refuse(decision, ERR_INVALID, "no more ids for vhosts");
    struct change change = {.type = CHANGE_ADD_NAMESPACE,
                            .id = decision->catalog->next_id,
                            .name = decision->request->name};
    decision->out->id = change.id;
    return decision_emit(decision, &change, true);
}

static enum err delete_namespace(struct decision *decision)
{
    struct slice name = decision->request->name;
    uint32_t id;
    if (!catalog_namespace(decision->catalog, name, &id))
        return decision_refuse(decision, ERR_NOT_FOUND, "vhost %.*s not found", (int)name.len,
                               (const char *)name.data);
    decision->out->id = id;
    if (id == 0)
        return decision_refuse(decision, ERR_REFUSED, "the default vhost cannot be deleted");
    if (namespace_get(decision->catalog, id)->objects > 0)
        return decision_refuse(decision, ERR_NOT_EMPTY, "vhost '%.*s' is not empty", (int)name.len,
                               (const char *)name.data);
    struct change change = {.type = CHANGE_REMOVE_NAMESPACE, .id = id};
    return decision_emit(decision, &change, true);
}

/* ---- */

static enum err check_sizes(struct decision *decision)
{
    const struct catalog_request *request = decision->request;
    if (request->name.len > CATALOG_NAME_BYTES_MAX && request->op >= CATALOG_CREATE_TOPIC &&
        request->op <= CATALOG_CONFIGURE_TOPIC)
        return decision_refuse(
            decision, ERR_INVALID_NAME,
            "Topic name is invalid: its length is longer than the max allowed length 249");
    if (request->name.len > CATALOG_NAME_BYTES_MAX || request->key.len > CATALOG_NAME_BYTES_MAX ||
        request->target.len > CATALOG_NAME_BYTES_MAX)
        return decision_refuse(decision, ERR_INVALID, "names and keys have at most 255 bytes");
    for (uint32_t i = 0; i < request->args.count; i++) {
        if (request->args.items[i].name.len > UINT16_MAX)
            return decision_refuse(decision, ERR_INVALID, "the name of an argument is too long");
    }
    if (args_size(request->args) > CATALOG_ARGS_BYTES_MAX)
        return decision_refuse(decision, ERR_TOO_LARGE, "the arguments are too large");
    if (namespace_get(decision->catalog, request->namespace_id) == NULL)
        return decision_refuse(decision, ERR_NOT_FOUND, "no such vhost");
    return ERR_NONE;
}

static enum err decide(struct decision *decision)
{
    switch (decision->request->op) {
    case CATALOG_DECLARE_EXCHANGE:
        return decide_declare_exchange(decision);
    case CATALOG_DELETE_EXCHANGE:
        return decide_delete_exchange(decision);
    case CATALOG_BIND:
        return decide_bind(decision);
    case CATALOG_UNBIND:
        return decide_unbind(decision);
    case CATALOG_DECLARE_QUEUE:
        return decide_declare_queue(decision);
    case CATALOG_DELETE_QUEUE:
        return decide_delete_queue(decision);
    case CATALOG_CREATE_TOPIC:
        return decide_create_topic(decision);
    case CATALOG_DELETE_TOPIC:
        return decide_delete_topic(decision);
    case CATALOG_GROW_TOPIC:
        return decide_grow_topic(decision);
    case CATALOG_CONFIGURE_TOPIC:
        return decide_configure_topic(decision);
    case CATALOG_CREATE_NAMESPACE:
        return create_namespace(decision);
    case CATALOG_DELETE_NAMESPACE:
        return delete_namespace(decision);
    }
    return decision_refuse(decision, ERR_INVALID, "unknown request");
}

enum err catalog_decide(const struct catalog *catalog, const struct catalog_request *request,
                        struct catalog_changes *out, struct catalog_problem *problem)
{
    struct decision decision = {catalog, request, out, problem, {0}};
    problem->text[0] = 0;
    out->len = 0;
    out->count = 0;
    out->id = 0;
    out->durable = false;
    out->existed = false;
    enum err err = check_sizes(&decision);
    if (err == ERR_NONE)
        err = decide(&decision);
    if (err != ERR_NONE || request->validate_only) {
        out->len = 0;
        out->count = 0;
    }
    if (err != ERR_NONE && problem->text[0] == 0)
        snprintf(problem->text, sizeof problem->text, "%s", err_text(err));
    return err;
}
