/* Requests: each is checked against the catalog, in RabbitMQ's order and words where AMQP clients
 * ask and in Kafka's where Kafka clients do, and becomes the changes that carry it out. A topic
 * that an AMQP client declares has the argument x-queue-type; one that Kafka creates has not. */
#include "core/catalog_inside.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct decision {
    const struct catalog *catalog;
    const struct catalog_request *request;
    struct catalog_changes *out;
    struct catalog_problem *problem;
    char subject[560]; /* "queue 'q' in vhost '/'" */
};

/* ---- Words ---- */

static enum err refuse(struct decision *decision, enum err err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static enum err refuse(struct decision *decision, enum err err, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(decision->problem->text, sizeof decision->problem->text, format, args);
    va_end(args);
    return err;
}

static const char *name_subject(struct decision *decision, const char *kind, struct slice name)
{
    struct slice vhost = catalog_namespace_name(decision->catalog, decision->request->namespace_id);
    snprintf(decision->subject, sizeof decision->subject, "%s '%.*s' in vhost '%.*s'", kind,
             (int)name.len, (const char *)name.data, (int)vhost.len, (const char *)vhost.data);
    return decision->subject;
}

static enum err refuse_missing(struct decision *decision, const char *kind, struct slice name)
{
    return refuse(decision, ERR_NOT_FOUND, "no %s", name_subject(decision, kind, name));
}

static enum err refuse_bool(struct decision *decision, const char *field, bool received)
{
    return refuse(decision, ERR_NOT_EQUIVALENT,
                  "inequivalent arg '%s' for %s: received '%s' but current is '%s'", field,
                  decision->subject, received ? "true" : "false", received ? "false" : "true");
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

static enum err compare_arg(struct decision *decision, const char *name, struct args current)
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
    return refuse(decision, ERR_NOT_EQUIVALENT,
                  "inequivalent arg '%s' for %s: received %s but current is %s", name,
                  decision->subject, left, right);
}

static bool begins_amq(struct slice name)
{
    return name.len >= 4 && memcmp(name.data, "amq.", 4) == 0;
}

static enum err emit(struct decision *decision, const struct change *change, bool durable)
{
    decision->out->durable = decision->out->durable || durable;
    return change_encode(decision->out, change);
}

static uint8_t request_flags(const struct catalog_request *request)
{
    return (uint8_t)((request->durable ? CHANGE_DURABLE : 0) |
                     (request->auto_delete ? CHANGE_AUTO_DELETE : 0) |
                     (request->exclusive ? CHANGE_EXCLUSIVE : 0) |
                     (request->internal ? CHANGE_INTERNAL : 0));
}

/* ---- What goes with what is removed ---- */

/* Exchanges that a removal leaves without bindings and that are auto-delete, transitively. */
struct removal {
    uint64_t *ids; /* found so far; those before `done` were looked at */
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
    return lost < source->count || removal_add(removal, id);
}

/* Emits the removal of auto-delete exchanges that lose their last binding when `first` goes (an
 * object, or, with `edge`, that one edge). */
static enum err cascade(struct decision *decision, uint64_t first, const struct edge *edge)
{
    const struct catalog *catalog = decision->catalog;
    struct removal removal = {0};
    enum err err = ERR_NONE;
    bool room = edge ? lose_edge(&removal, catalog, edge) : removal_add(&removal, first);
    for (uint32_t i = 0; room && err == ERR_NONE && i < removal.count; i++) {
        uint64_t id = removal.ids[i];
        if (id != first) {
            const struct object *exchange = object_get(catalog, TARGET_EXCHANGE, id);
            struct change change = {.type = CHANGE_REMOVE_EXCHANGE, .id = id};
            err = emit(decision, &change, exchange->exchange.durable);
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

/* ---- Exchanges ---- */

static enum err compare_exchange(struct decision *decision, const struct exchange *exchange)
{
    const struct catalog_request *request = decision->request;
    name_subject(decision, "exchange", request->name);
    if (request->type != exchange->type)
        return refuse(decision, ERR_NOT_EQUIVALENT,
                      "inequivalent arg 'type' for %s: received '%s' but current is '%s'",
                      decision->subject, exchange_type_name(request->type),
                      exchange_type_name(exchange->type));
    if (request->durable != exchange->durable)
        return refuse_bool(decision, "durable", request->durable);
    if (request->auto_delete != exchange->auto_delete)
        return refuse_bool(decision, "auto_delete", request->auto_delete);
    if (request->internal != exchange->internal)
        return refuse_bool(decision, "internal", request->internal);
    return compare_arg(decision, "alternate-exchange", exchange->args);
}

/* An argument that names an exchange. */
static enum err check_exchange_arg(struct decision *decision, const char *name)
{
    const struct arg *arg = args_find(decision->request->args, name);
    if (arg == NULL || arg->kind == ARG_TEXT)
        return ERR_NONE;
    return refuse(decision, ERR_INVALID, "invalid type '%s' for arg '%s' in %s", arg_type_name(arg),
                  name, decision->subject);
}

static enum err declare_exchange(struct decision *decision)
{
    const struct catalog_request *request = decision->request;
    const struct catalog *catalog = decision->catalog;
    if (request->name.len == 0)
        return refuse(decision, ERR_REFUSED, "operation not permitted on the default exchange");
    const struct exchange *exchange =
        catalog_exchange(catalog, request->namespace_id, request->name);
    if (exchange != NULL) {
        decision->out->id = exchange->id;
        decision->out->existed = true;
        return compare_exchange(decision, exchange);
    }
    if (begins_amq(request->name))
        return refuse(decision, ERR_REFUSED,
                      "exchange name '%.*s' contains reserved prefix 'amq.*'",
                      (int)request->name.len, (const char *)request->name.data);
    name_subject(decision, "exchange", request->name);
    enum err err = check_exchange_arg(decision, "alternate-exchange");
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
    return emit(decision, &change, request->durable);
}

static enum err delete_exchange(struct decision *decision)
{
    const struct catalog_request *request = decision->request;
    const struct catalog *catalog = decision->catalog;
    if (request->name.len == 0)
        return refuse(decision, ERR_REFUSED, "operation not permitted on the default exchange");
    const struct object *object =
        object_find(catalog, TARGET_EXCHANGE, request->namespace_id, request->name);
    if (begins_amq(request->name))
        return refuse(decision, ERR_REFUSED, "deletion of system %s not allowed",
                      name_subject(decision, "exchange", request->name));
    if (object == NULL)
        return ERR_NONE;
    decision->out->id = object_id(object);
    if (request->if_unused && map_get(&catalog->sources, object_id(object)) != NULL)
        return refuse(decision, ERR_IN_USE, "%s in use",
                      name_subject(decision, "exchange", request->name));
    struct change change = {.type = CHANGE_REMOVE_EXCHANGE, .id = object_id(object)};
    enum err err = emit(decision, &change, object->exchange.durable);
    return err != ERR_NONE ? err : cascade(decision, object_id(object), NULL);
}

/* ---- Queues ---- */

static enum err refuse_locked(struct decision *decision)
{
    return refuse(decision, ERR_LOCKED,
                  "cannot obtain exclusive access to locked %s. It could be originally declared on "
                  "another connection or the exclusive property value does not match that of the "
                  "original declaration.",
                  decision->subject);
}

static enum err compare_queue(struct decision *decision, const struct queue_def *queue)
{
    const struct catalog_request *request = decision->request;
    if (queue->owner != (request->exclusive ? request->owner : 0))
        return refuse_locked(decision);
    bool durable = request->durable && !request->exclusive;
    if (durable != queue->durable)
        return refuse_bool(decision, "durable", durable);
    if (request->auto_delete != queue->auto_delete)
        return refuse_bool(decision, "auto_delete", request->auto_delete);
    for (const char *const *name = queue_args_compared; *name != NULL; name++) {
        enum err err = compare_arg(decision, *name, queue->args);
        if (err != ERR_NONE)
            return err;
    }
    return ERR_NONE;
}

static enum err check_queue_args(struct decision *decision)
{
    enum err err = check_exchange_arg(decision, "x-dead-letter-exchange");
    if (err != ERR_NONE)
        return err;
    const char *name;
    char text[FAULT_BYTES];
    if (queue_args_check(decision->request->args, &name, text))
        return ERR_NONE;
    return refuse(decision, ERR_INVALID, "invalid arg '%s' for %s: %.200s", name, decision->subject,
                  text);
}

/* The name belongs to the other kind of queue. */
static enum err refuse_type(struct decision *decision, const char *received, const char *current)
{
    return refuse(decision, ERR_NOT_EQUIVALENT,
                  "inequivalent arg 'x-queue-type' for %s: received %s but current is %s",
                  decision->subject, received, current);
}

static enum err declare_queue(struct decision *decision)
{
    const struct catalog_request *request = decision->request;
    const struct catalog *catalog = decision->catalog;
    name_subject(decision, "queue", request->name);
    enum err err = check_queue_args(decision);
    if (err != ERR_NONE)
        return err;
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
        return type != NULL ? refuse_type(decision, quoted, "'stream'")
                            : refuse_type(decision, "none", "the value 'stream' of type 'longstr'");
    }
    /* Names that the broker gave are reserved, too, but for itself. */
    bool given = request->name.len >= 8 && memcmp(request->name.data, "amq.gen-", 8) == 0;
    if (begins_amq(request->name) && !given)
        return refuse(decision, ERR_REFUSED, "queue name '%.*s' contains reserved prefix 'amq.*'",
                      (int)request->name.len, (const char *)request->name.data);
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
    return emit(decision, &change, durable);
}

/* Exclusive queues are for their connection; `owner` 0 is the broker itself. */
static bool may_touch(const struct catalog_request *request, const struct queue_def *queue)
{
    return queue->owner == 0 || request->owner == 0 || queue->owner == request->owner;
}

static enum err delete_queue(struct decision *decision)
{
    const struct catalog_request *request = decision->request;
    const struct queue_def *queue =
        catalog_queue(decision->catalog, request->namespace_id, request->name);
    if (queue == NULL || (request->id != 0 && queue->id != request->id))
        return ERR_NONE;
    decision->out->id = queue->id;
    name_subject(decision, "queue", request->name);
    if (!may_touch(request, queue))
        return refuse_locked(decision);
    struct change change = {.type = CHANGE_REMOVE_QUEUE, .id = queue->id};
    enum err err = emit(decision, &change, queue->durable);
    return err != ERR_NONE ? err : cascade(decision, queue->id, NULL);
}

/* ---- Topics ---- */

static enum err check_topic_name(struct decision *decision, struct slice name)
{
    if (name.len == 0)
        return refuse(decision, ERR_INVALID_NAME,
                      "Topic name is invalid: the empty string is not allowed");
    if (slice_equal(name, slice_of(".")) || slice_equal(name, slice_of("..")))
        return refuse(decision, ERR_INVALID_NAME, "Topic name is invalid: '%.*s' is not allowed",
                      (int)name.len, (const char *)name.data);
    if (name.len > 249)
        return refuse(
            decision, ERR_INVALID_NAME,
            "Topic name is invalid: the length of '%.300s' is longer than the max allowed "
            "length 249",
            (const char *)name.data);
    for (size_t i = 0; i < name.len; i++) {
        uint8_t c = name.data[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!letter && !(c >= '0' && c <= '9') && c != '.' && c != '_' && c != '-')
            return refuse(
                decision, ERR_INVALID_NAME,
                "Topic name is invalid: '%.*s' contains one or more characters other than "
                "ASCII alphanumerics, '.', '_' and '-'",
                (int)name.len, (const char *)name.data);
    }
    return ERR_NONE;
}

static enum err check_configs(struct decision *decision)
{
    char text[FAULT_BYTES];
    if (topic_configs_check(decision->request->args, text))
        return ERR_NONE;
    return refuse(decision, ERR_INVALID_CONFIG, "%s", text);
}

static enum err check_partitions(struct decision *decision, uint32_t partitions)
{
    if (partitions == 0 || partitions > INT32_MAX)
        return refuse(decision, ERR_INVALID_PARTITIONS,
                      "Number of partitions was set to an invalid non-positive value.");
    if (partitions > CATALOG_PARTITIONS_MAX)
        return refuse(decision, ERR_INVALID_PARTITIONS,
                      "Number of partitions must not be larger than %d.", CATALOG_PARTITIONS_MAX);
    return ERR_NONE;
}

/* As a stream queue, by AMQP. */
static enum err check_stream(struct decision *decision)
{
    const struct catalog_request *request = decision->request;
    const char *wrong = !request->durable      ? "non-durable"
                        : request->exclusive   ? "exclusive-owner"
                        : request->auto_delete ? "auto-delete"
                                               : NULL;
    if (wrong != NULL)
        return refuse(decision, ERR_INVALID, "invalid property '%s' for %s", wrong,
                      decision->subject);
    if (begins_amq(request->name))
        return refuse(decision, ERR_REFUSED, "queue name '%.*s' contains reserved prefix 'amq.*'",
                      (int)request->name.len, (const char *)request->name.data);
    return check_queue_args(decision);
}

static enum err declare_stream_again(struct decision *decision, const struct topic *topic)
{
    decision->out->id = topic->id;
    decision->out->existed = true;
    if (args_find(topic->args, "x-queue-type") == NULL)
        return ERR_NONE; /* Kafka made it: there is nothing of AMQP's to compare */
    for (const char *const *name = queue_args_compared; *name != NULL; name++) {
        enum err err = compare_arg(decision, *name, topic->args);
        if (err != ERR_NONE)
            return err;
    }
    return ERR_NONE;
}

static enum err check_topic(struct decision *decision, bool stream)
{
    const struct catalog_request *request = decision->request;
    bool queue = catalog_queue(decision->catalog, request->namespace_id, request->name) != NULL;
    enum err err = stream ? check_stream(decision) : check_topic_name(decision, request->name);
    if (err != ERR_NONE)
        return err;
    if (queue && stream) {
        const struct queue_def *has =
            catalog_queue(decision->catalog, request->namespace_id, request->name);
        const struct arg *type = args_find(has->args, "x-queue-type");
        return type != NULL ? compare_arg(decision, "x-queue-type", has->args)
                            : refuse_type(decision, "the value 'stream' of type 'longstr'", "none");
    }
    if (queue)
        return refuse(decision, ERR_EXISTS, "A queue named '%.*s' already exists.",
                      (int)request->name.len, (const char *)request->name.data);
    if (!stream && (err = check_configs(decision)) != ERR_NONE)
        return err;
    return check_partitions(decision, request->partitions);
}

/* Consecutive ids from next_id + 1 on, malloc'd. */
static uint64_t *new_ids(uint64_t first, uint32_t count)
{
    uint64_t *ids = malloc(count * sizeof *ids);
    for (uint32_t i = 0; ids != NULL && i < count; i++)
        ids[i] = first + i;
    return ids;
}

static enum err create_topic(struct decision *decision)
{
    const struct catalog_request *request = decision->request;
    const struct catalog *catalog = decision->catalog;
    bool stream = args_find(request->args, "x-queue-type") != NULL;
    name_subject(decision, "queue", request->name);
    const struct topic *topic = catalog_topic(catalog, request->namespace_id, request->name);
    if (topic != NULL && stream)
        return declare_stream_again(decision, topic);
    if (topic != NULL) {
        decision->out->id = topic->id;
        decision->out->existed = true;
        return refuse(decision, ERR_EXISTS, "Topic '%.*s' already exists.", (int)request->name.len,
                      (const char *)request->name.data);
    }
    enum err err = check_topic(decision, stream);
    if (err != ERR_NONE)
        return err;
    uint64_t *ids = new_ids(catalog->next_id + 1, request->partitions);
    if (ids == NULL)
        return ERR_NO_MEMORY;
    struct change change = {
        .type = CHANGE_ADD_TOPIC,
        .id = catalog->next_id,
        .namespace_id = request->namespace_id,
        .partitions = ids,
        .partition_count = request->partitions,
        .name = request->name,
        .args = request->args,
    };
    memcpy(change.uuid, request->uuid, sizeof change.uuid);
    decision->out->id = change.id;
    err = emit(decision, &change, true);
    free(ids);
    return err;
}

static enum err refuse_no_topic(struct decision *decision)
{
    return refuse(decision, ERR_NOT_FOUND, "This server does not host this topic-partition.");
}

static enum err delete_topic(struct decision *decision)
{
    const struct catalog_request *request = decision->request;
    const struct topic *topic =
        catalog_topic(decision->catalog, request->namespace_id, request->name);
    if (topic == NULL)
        return refuse_no_topic(decision);
    decision->out->id = topic->id;
    struct change change = {.type = CHANGE_REMOVE_TOPIC, .id = topic->id};
    enum err err = emit(decision, &change, true);
    return err != ERR_NONE ? err : cascade(decision, topic->id, NULL);
}

static enum err grow_topic(struct decision *decision)
{
    const struct catalog_request *request = decision->request;
    const struct topic *topic =
        catalog_topic(decision->catalog, request->namespace_id, request->name);
    if (topic == NULL)
        return refuse_no_topic(decision);
    decision->out->id = topic->id;
    uint32_t has = topic->partition_count;
    if (request->partitions == has)
        return refuse(decision, ERR_INVALID_PARTITIONS, "Topic already has %u partition(s).", has);
    enum err err = check_partitions(decision, request->partitions);
    if (err != ERR_NONE)
        return err;
    if (request->partitions < has)
        return refuse(decision, ERR_INVALID_PARTITIONS,
                      "The topic %.*s currently has %u partition(s); %u would not be an increase.",
                      (int)request->name.len, (const char *)request->name.data, has,
                      request->partitions);
    uint64_t *ids = new_ids(decision->catalog->next_id, request->partitions - has);
    if (ids == NULL)
        return ERR_NO_MEMORY;
    struct change change = {
        .type = CHANGE_GROW_TOPIC,
        .id = topic->id,
        .first_index = has,
        .partitions = ids,
        .partition_count = request->partitions - has,
    };
    err = emit(decision, &change, true);
    free(ids);
    return err;
}

static enum err configure_topic(struct decision *decision)
{
    const struct catalog_request *request = decision->request;
    const struct topic *topic =
        catalog_topic(decision->catalog, request->namespace_id, request->name);
    if (topic == NULL)
        return refuse_no_topic(decision);
    decision->out->id = topic->id;
    enum err err = check_configs(decision);
    if (err != ERR_NONE)
        return err;
    struct change change = {.type = CHANGE_CONFIGURE_TOPIC, .id = topic->id, .args = request->args};
    return emit(decision, &change, true);
}

/* ---- Bindings ---- */

/* A queue's name may be that of a topic. */
static const struct object *find_end(const struct decision *decision, enum target_kind kind,
                                     struct slice name)
{
    uint32_t ns = decision->request->namespace_id;
    const struct object *object = object_find(decision->catalog, kind, ns, name);
    if (object == NULL && kind == TARGET_QUEUE)
        object = object_find(decision->catalog, TARGET_TOPIC, ns, name);
    return object;
}

/* The exchange of that name or, there being none, the topic. */
static const struct object *find_source(const struct decision *decision)
{
    const struct catalog_request *request = decision->request;
    const struct object *object = find_end(decision, TARGET_EXCHANGE, request->name);
    return object != NULL ? object : find_end(decision, TARGET_TOPIC, request->name);
}

static enum err check_headers(struct decision *decision)
{
    const struct arg *match = args_find(decision->request->args, "x-match");
    if (match == NULL)
        return ERR_NONE;
    char value[200];
    arg_print(match, value, sizeof value);
    if (match->kind != ARG_TEXT)
        return refuse(decision, ERR_INVALID,
                      "Invalid x-match field type %s (value %s); expected longstr",
                      arg_type_name(match), value);
    static const char *const modes[] = {"all", "any", "all-with-x", "any-with-x"};
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        if (slice_equal(match->text, slice_of(modes[i])))
            return ERR_NONE;
    }
    return refuse(
        decision, ERR_INVALID,
        "Invalid x-match field value <<\"%s\">>; expected all, any, all-with-x, or any-with-x",
        value);
}

static struct binding binding_of(const struct decision *decision, const struct object *from,
                                 const struct object *to)
{
    return (struct binding){
        .source_kind = from->kind,
        .target_kind = to->kind,
        .source = object_id(from),
        .target = object_id(to),
        .key = decision->request->key,
        .args = decision->request->args,
    };
}

static enum err emit_binding(struct decision *decision, enum change_type type,
                             const struct object *from, const struct object *to)
{
    struct change change = {
        .type = type,
        .id = object_id(from),
        .source_kind = from->kind,
        .target_kind = to->kind,
        .target = object_id(to),
        .name = decision->request->key,
        .args = decision->request->args,
    };
    return emit(decision, &change, object_durable(from) && object_durable(to));
}

static bool touches_default(const struct catalog_request *request)
{
    return request->name.len == 0 ||
           (request->target_kind == TARGET_EXCHANGE && request->target.len == 0);
}

static enum err bind(struct decision *decision)
{
    const struct catalog_request *request = decision->request;
    if (touches_default(request))
        return refuse(decision, ERR_REFUSED, "operation not permitted on the default exchange");
    const struct object *from = find_source(decision);
    if (from == NULL)
        return refuse_missing(decision, "exchange", request->name);
    const struct object *to = find_end(decision, request->target_kind, request->target);
    const char *kind = request->target_kind == TARGET_EXCHANGE ? "exchange" : "queue";
    if (to == NULL)
        return refuse_missing(decision, kind, request->target);
    name_subject(decision, kind, request->target);
    if (to->kind == TARGET_QUEUE && !may_touch(request, &to->queue))
        return refuse_locked(decision);
    if (from->kind == TARGET_EXCHANGE && from->exchange.type == EXCHANGE_HEADERS) {
        enum err err = check_headers(decision);
        if (err != ERR_NONE)
            return err;
    }
    struct binding binding = binding_of(decision, from, to);
    decision->out->id = object_id(from);
    if (edge_find(decision->catalog, &binding) != NULL) {
        decision->out->existed = true;
        return ERR_NONE;
    }
    return emit_binding(decision, CHANGE_BIND, from, to);
}

static enum err unbind(struct decision *decision)
{
    const struct catalog_request *request = decision->request;
    if (touches_default(request))
        return refuse(decision, ERR_REFUSED, "operation not permitted on the default exchange");
    const struct object *from = find_source(decision);
    const struct object *to = find_end(decision, request->target_kind, request->target);
    if (from == NULL || to == NULL)
        return ERR_NONE;
    if (to->kind == TARGET_QUEUE && !may_touch(request, &to->queue)) {
        name_subject(decision, "queue", request->target);
        return refuse_locked(decision);
    }
    struct binding binding = binding_of(decision, from, to);
    const struct edge *edge = edge_find(decision->catalog, &binding);
    if (edge == NULL)
        return ERR_NONE;
    enum err err = emit_binding(decision, CHANGE_UNBIND, from, to);
    return err != ERR_NONE ? err : cascade(decision, 0, edge);
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
        return refuse(decision, ERR_INVALID, "no more ids for vhosts");
    struct change change = {.type = CHANGE_ADD_NAMESPACE,
                            .id = decision->catalog->next_id,
                            .name = decision->request->name};
    decision->out->id = change.id;
    return emit(decision, &change, true);
}

static enum err delete_namespace(struct decision *decision)
{
    struct slice name = decision->request->name;
    uint32_t id;
    if (!catalog_namespace(decision->catalog, name, &id))
        return refuse(decision, ERR_NOT_FOUND, "vhost %.*s not found", (int)name.len,
                      (const char *)name.data);
    decision->out->id = id;
    if (id == 0)
        return refuse(decision, ERR_REFUSED, "the default vhost cannot be deleted");
    if (namespace_get(decision->catalog, id)->objects > 0)
        return refuse(decision, ERR_NOT_EMPTY, "vhost '%.*s' is not empty", (int)name.len,
                      (const char *)name.data);
    struct change change = {.type = CHANGE_REMOVE_NAMESPACE, .id = id};
    return emit(decision, &change, true);
}

/* ---- */

static enum err check_sizes(struct decision *decision)
{
    const struct catalog_request *request = decision->request;
    if (request->name.len > CATALOG_NAME_BYTES_MAX && request->op >= CATALOG_CREATE_TOPIC &&
        request->op <= CATALOG_CONFIGURE_TOPIC)
        return refuse(
            decision, ERR_INVALID_NAME,
            "Topic name is invalid: its length is longer than the max allowed length 249");
    if (request->name.len > CATALOG_NAME_BYTES_MAX || request->key.len > CATALOG_NAME_BYTES_MAX ||
        request->target.len > CATALOG_NAME_BYTES_MAX)
        return refuse(decision, ERR_INVALID, "names and keys have at most 255 bytes");
    for (uint32_t i = 0; i < request->args.count; i++) {
        if (request->args.items[i].name.len > UINT16_MAX)
            return refuse(decision, ERR_INVALID, "the name of an argument is too long");
    }
    if (args_size(request->args) > CATALOG_ARGS_BYTES_MAX)
        return refuse(decision, ERR_TOO_LARGE, "the arguments are too large");
    if (namespace_get(decision->catalog, request->namespace_id) == NULL)
        return refuse(decision, ERR_NOT_FOUND, "no such vhost");
    return ERR_NONE;
}

static enum err decide(struct decision *decision)
{
    switch (decision->request->op) {
    case CATALOG_DECLARE_EXCHANGE:
        return declare_exchange(decision);
    case CATALOG_DELETE_EXCHANGE:
        return delete_exchange(decision);
    case CATALOG_BIND:
        return bind(decision);
    case CATALOG_UNBIND:
        return unbind(decision);
    case CATALOG_DECLARE_QUEUE:
        return declare_queue(decision);
    case CATALOG_DELETE_QUEUE:
        return delete_queue(decision);
    case CATALOG_CREATE_TOPIC:
        return create_topic(decision);
    case CATALOG_DELETE_TOPIC:
        return delete_topic(decision);
    case CATALOG_GROW_TOPIC:
        return grow_topic(decision);
    case CATALOG_CONFIGURE_TOPIC:
        return configure_topic(decision);
    case CATALOG_CREATE_NAMESPACE:
        return create_namespace(decision);
    case CATALOG_DELETE_NAMESPACE:
        return delete_namespace(decision);
    }
    return refuse(decision, ERR_INVALID, "unknown request");
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
