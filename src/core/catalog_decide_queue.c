/* Requests about exchanges and queues, in RabbitMQ's order of checks and in its words. */
#include "core/catalog_decision.h"

#include <stdio.h>
#include <string.h>

static uint8_t request_flags(const struct catalog_request *request)
{
    return (uint8_t)((request->durable ? CHANGE_DURABLE : 0) |
                     (request->auto_delete ? CHANGE_AUTO_DELETE : 0) |
                     (request->exclusive ? CHANGE_EXCLUSIVE : 0) |
                     (request->internal ? CHANGE_INTERNAL : 0));
}

/* ---- Exchanges ---- */

static enum err compare_exchange(struct decision *decision, const struct exchange *exchange)
{
    const struct catalog_request *request = decision->request;
    decision_subject(decision, "exchange", request->name);
    if (request->type != exchange->type)
        return decision_refuse(decision, ERR_NOT_EQUIVALENT,
                               "inequivalent arg 'type' for %s: received '%s' but current is '%s'",
                               decision->subject, exchange_type_name(request->type),
                               exchange_type_name(exchange->type));
    if (request->durable != exchange->durable)
        return decision_refuse_bool(decision, "durable", request->durable);
    if (request->auto_delete != exchange->auto_delete)
        return decision_refuse_bool(decision, "auto_delete", request->auto_delete);
    if (request->internal != exchange->internal)
        return decision_refuse_bool(decision, "internal", request->internal);
    return decision_compare(decision, "alternate-exchange", exchange->args);
}

enum err decide_declare_exchange(struct decision *decision)
{
    const struct catalog_request *request = decision->request;
    const struct catalog *catalog = decision->catalog;
    if (request->name.len == 0)
        return decision_refuse_default(decision);
    const struct exchange *exchange =
        catalog_exchange(catalog, request->namespace_id, request->name);
    if (exchange != NULL) {
        decision->out->id = exchange->id;
        decision->out->existed = true;
        return compare_exchange(decision, exchange);
    }
    if (name_begins_amq(request->name))
        return decision_refuse_reserved(decision, "exchange");
    decision_subject(decision, "exchange", request->name);
    enum err err = decision_check_exchange_arg(decision, "alternate-exchange");
    if (err != ERR_NONE)
        return err;
    struct change change = {
        .type = CHANGE_ADD_EXCHANGE,
        .id = catalog->next_id,
        .namespace_id = request->namespace_id,
        .flags = request_flags(request),
        .exchange_type = request->type,
        .name = request->name,
        .args = request->args,
    };
    decision->out->id = change.id;
    return decision_emit(decision, &change, request->durable);
}

enum err decide_delete_exchange(struct decision *decision)
{
    const struct catalog_request *request = decision->request;
    const struct catalog *catalog = decision->catalog;
    if (request->name.len == 0)
        return decision_refuse_default(decision);
    const struct object *object =
        object_find(catalog, TARGET_EXCHANGE, request->namespace_id, request->name);
    if (name_begins_amq(request->name))
        return decision_refuse(decision, ERR_REFUSED, "deletion of system %s not allowed",
                               decision_subject(decision, "exchange", request->name));
    if (object == NULL)
        return ERR_NONE;
    decision->out->id = object_id(object);
    if (request->if_unused && map_get(&catalog->sources, object_id(object)) != NULL)
        return decision_refuse(decision, ERR_IN_USE, "%s in use",
                               decision_subject(decision, "exchange", request->name));
    struct change change = {.type = CHANGE_REMOVE_EXCHANGE, .id = object_id(object)};
    enum err err = decision_emit(decision, &change, object->exchange.durable);
    return err != ERR_NONE ? err : decision_cascade(decision, object_id(object), NULL);
}

/* ---- Queues ---- */

static enum err compare_queue(struct decision *decision, const struct queue_def *queue)
{
    const struct catalog_request *request = decision->request;
    if (queue->owner != (request->exclusive ? request->owner : 0))
        return decision_refuse_locked(decision);
    bool durable = request->durable && !request->exclusive;
    if (durable != queue->durable)
        return decision_refuse_bool(decision, "durable", durable);
    if (request->auto_delete != queue->auto_delete)
        return decision_refuse_bool(decision, "auto_delete", request->auto_delete);
    for (const char *const *name = queue_args_compared; *name != NULL; name++) {
        enum err err = decision_compare(decision, *name, queue->args);
        if (err != ERR_NONE)
            return err;
    }
    return ERR_NONE;
}

static bool name_begins(struct slice name, const char *prefix)
{
    size_t len = strlen(prefix);
    return name.len >= len && memcmp(name.data, prefix, len) == 0;
}

enum err decide_declare_queue(struct decision *decision)
{
    const struct catalog_request *request = decision->request;
    const struct catalog *catalog = decision->catalog;
    decision_subject(decision, "queue", request->name);
    const struct queue_def *queue = catalog_queue(catalog, request->namespace_id, request->name);
    if (queue != NULL) {
        decision->out->id = queue->id;
        decision->out->existed = true;
        return compare_queue(decision, queue);
    }
    if (catalog_topic(catalog, request->namespace_id, request->name) != NULL) {
        const struct arg *type = args_find(request->args, "x-queue-type");
        char value[100] = "none", quoted[104];
        if (type != NULL)
            arg_print(type, value, sizeof value);
        snprintf(quoted, sizeof quoted, "'%s'", value);
        return type != NULL
                   ? decision_refuse_type(decision, quoted, "'stream'")
                   : decision_refuse_type(decision, "none", "the value 'stream' of type 'longstr'");
    }
    enum err err = decision_check_queue_args(decision);
    if (err != ERR_NONE)
        return err;
    /* Names that the broker gave are reserved, too, but for itself. */
    bool given = name_begins(request->name, "amq.gen-") ||
                 name_begins(request->name, "amq.rabbitmq.reply-to.");
    if (name_begins_amq(request->name) && !given)
        return decision_refuse_reserved(decision, "queue");
    bool durable = request->durable && !request->exclusive;
    struct change change = {
        .type = CHANGE_ADD_QUEUE,
        .id = catalog->next_id,
        .namespace_id = request->namespace_id,
        .owner = request->exclusive ? request->owner : 0,
        .flags = (uint8_t)(request_flags(request) & ~(durable ? 0 : CHANGE_DURABLE)),
        .name = request->name,
        .args = request->args,
    };
    decision->out->id = change.id;
    return decision_emit(decision, &change, durable);
}

enum err decide_delete_queue(struct decision *decision)
{
    const struct catalog_request *request = decision->request;
    const struct queue_def *queue =
        catalog_queue(decision->catalog, request->namespace_id, request->name);
    if (queue == NULL || (request->id != 0 && queue->id != request->id))
        return ERR_NONE;
    decision->out->id = queue->id;
    decision_subject(decision, "queue", request->name);
    if (!request_may_touch(request, queue))
        return decision_refuse_locked(decision);
    struct change change = {.type = CHANGE_REMOVE_QUEUE, .id = queue->id};
    enum err err = decision_emit(decision, &change, queue->durable);
    return err != ERR_NONE ? err : decision_cascade(decision, queue->id, NULL);
}
