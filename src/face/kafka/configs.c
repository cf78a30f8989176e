/* DescribeConfigs, AlterConfigs and IncrementalAlterConfigs. Topics have configurations of their
 * own; the broker's are shown, and are changed where it is started. A change replaces all arguments
 * of the topic, so an incremental one begins with those that the topic has. */
#include "face/kafka/topic_config.h"

#include <inttypes.h>

enum resource_type {
    RESOURCE_TOPIC = 2,
    RESOURCE_BROKER = 4,
};

enum config_operation {
    OPERATION_SET,
    OPERATION_DELETE,
    OPERATION_APPEND,
    OPERATION_SUBTRACT,
};

static void state_respond(struct request *request)
{
    request_respond(request, request->state);
}

/* ---- DescribeConfigs ---- */

static bool is_wanted(const struct kafka_describe_configs_request_resource *asked, const char *name)
{
    if (asked->configuration_keys_count < 0)
        return true;
    for (int32_t i = 0; i < asked->configuration_keys_count; i++)
        if (slice_is(asked->configuration_keys[i], name))
            return true;
    return false;
}

static bool synonyms_fill(struct request *request, const struct topic_config *config,
                          struct slice own, struct kafka_describe_configs_response_config *row)
{
    row->synonyms = request_alloc(request, 2, sizeof *row->synonyms);
    if (row->synonyms == NULL)
        return false;
    if (own.data)
        row->synonyms[row->synonyms_count++] = (struct kafka_describe_configs_response_synonym){
            .name = row->name, .value = own, .source = SOURCE_TOPIC};
    if (config->broker_name) {
        bool is_own;
        row->synonyms[row->synonyms_count++] = (struct kafka_describe_configs_response_synonym){
            .name = slice_of(config->broker_name),
            .value = topic_config_value(request, NULL, config, &is_own),
            .source = SOURCE_DEFAULT,
        };
    }
    return true;
}

static bool topic_describe(struct request *request, const struct kafka_describe_configs_request *in,
                           const struct kafka_describe_configs_request_resource *asked,
                           struct kafka_describe_configs_response_result *out)
{
    const struct topic *topic = topic_named(request, asked->resource_name);
    if (topic == NULL) {
        bool valid = topic_name_valid(asked->resource_name);
        out->error_code =
            valid ? KAFKA_ERROR_UNKNOWN_TOPIC_OR_PARTITION : KAFKA_ERROR_INVALID_TOPIC_EXCEPTION;
        return true;
    }
    out->configs = request_alloc(request, TOPIC_CONFIGS, sizeof *out->configs);
    if (out->configs == NULL)
        return false;
    for (int i = 0; i < TOPIC_CONFIGS; i++) {
        const struct topic_config *config = &topic_configs[i];
        if (!is_wanted(asked, config->name))
            continue;
        struct kafka_describe_configs_response_config *row = &out->configs[out->configs_count++];
        bool own;
        *row = kafka_describe_configs_response_config_default;
        row->name = slice_of(config->name);
        row->value = topic_config_value(request, topic, config, &own);
        row->config_source = own ? SOURCE_TOPIC : SOURCE_DEFAULT;
        row->config_type = (int8_t)config->type;
        if (in->include_documentation)
            row->documentation = slice_of(config->about);
        if (in->include_synonyms &&
            !synonyms_fill(request, config, own ? row->value : (struct slice){0}, row))
            return false;
    }
    return true;
}

struct broker_config {
    const char *name;
    enum config_type type;
    const char *value; /* NULL: broker_value knows */
};

static const struct broker_config broker_configs[] = {
    {"advertised.listeners", CONFIG_STRING, NULL},
    {"auto.create.topics.enable", CONFIG_BOOLEAN, NULL},
    {"broker.id", CONFIG_INT, "1"},
    {"compression.type", CONFIG_STRING, "producer"},
    {"default.replication.factor", CONFIG_INT, "1"},
    {"delete.topic.enable", CONFIG_BOOLEAN, "true"},
    {"group.initial.rebalance.delay.ms", CONFIG_INT, "0"},
    {"group.max.session.timeout.ms", CONFIG_INT, "1800000"},
    {"group.min.session.timeout.ms", CONFIG_INT, "6000"},
    {"listeners", CONFIG_STRING, NULL},
    {"log.cleanup.policy", CONFIG_LIST, "delete"},
    {"log.message.timestamp.type", CONFIG_STRING, "CreateTime"},
    {"log.retention.bytes", CONFIG_LONG, "-1"},
    {"log.retention.hours", CONFIG_INT, "168"},
    {"log.retention.ms", CONFIG_LONG, "604800000"},
    {"log.segment.bytes", CONFIG_INT, "1073741824"},
    {"message.max.bytes", CONFIG_INT, NULL},
    {"min.insync.replicas", CONFIG_INT, "1"},
    {"node.id", CONFIG_INT, "1"},
    {"num.partitions", CONFIG_INT, NULL},
    {"offset.metadata.max.bytes", CONFIG_INT, "4096"},
    {"socket.request.max.bytes", CONFIG_INT, NULL},
};

static struct slice broker_value(struct request *request, const struct broker_config *config)
{
    struct conn *conn = request->kafka->conn;
    const struct face_config *face = conn_config(conn);
    if (config->value)
        return slice_of(config->value);
    if (strcmp(config->name, "auto.create.topics.enable") == 0)
        return slice_of(face->auto_create_topics ? "true" : "false");
    if (strcmp(config->name, "message.max.bytes") == 0)
        return request_text(request, "%" PRIu32, face->max_batch_bytes);
    if (strcmp(config->name, "num.partitions") == 0)
        return request_text(request, "%" PRIu32, face->default_partitions);
    if (strcmp(config->name, "socket.request.max.bytes") == 0)
        return request_text(request, "%" PRIu32, face->max_request_bytes);
    uint16_t port;
    const char *host = conn_local(conn, &port);
    return request_text(request, "PLAINTEXT://%s:%u", host, port);
}

static bool broker_describe(struct request *request,
                            const struct kafka_describe_configs_request_resource *asked,
                            struct kafka_describe_configs_response_result *out)
{
    enum { COUNT = sizeof broker_configs / sizeof *broker_configs };
    if (asked->resource_name.len && !slice_is(asked->resource_name, "1")) {
        out->error_code = KAFKA_ERROR_INVALID_REQUEST;
        out->error_message = slice_of("Unexpected broker id, expected 1 or empty string");
        return true;
    }
    out->configs = request_alloc(request, COUNT, sizeof *out->configs);
    if (out->configs == NULL)
        return false;
    if (asked->resource_name.len == 0) /* what was set for all brokers at run time: nothing */
        return true;
    for (int i = 0; i < COUNT; i++) {
        if (!is_wanted(asked, broker_configs[i].name))
            continue;
        struct kafka_describe_configs_response_config *row = &out->configs[out->configs_count++];
        *row = kafka_describe_configs_response_config_default;
        row->name = slice_of(broker_configs[i].name);
        row->value = broker_value(request, &broker_configs[i]);
        row->config_source = broker_configs[i].value ? SOURCE_DEFAULT : SOURCE_STATIC_BROKER;
        row->config_type = (int8_t)broker_configs[i].type;
        row->read_only = true;
    }
    return true;
}

static void describe_start(struct request *request, const void *message)
{
    const struct kafka_describe_configs_request *in = message;
    struct kafka_describe_configs_response *out = request_alloc(request, 1, sizeof *out);
    size_t count = (size_t)in->resources_count;
    if (out)
        *out = kafka_describe_configs_response_default;
    if (out == NULL ||
        (out->results = request_alloc(request, count, sizeof *out->results)) == NULL) {
        request_fail(request, "no memory");
        return;
    }
    out->results_count = in->resources_count;
    bool ok = true;
    for (size_t i = 0; ok && i < count; i++) {
        const struct kafka_describe_configs_request_resource *asked = &in->resources[i];
        struct kafka_describe_configs_response_result *result = &out->results[i];
        *result = kafka_describe_configs_response_result_default;
        result->resource_type = asked->resource_type;
        result->resource_name = asked->resource_name;
        if (asked->resource_type == RESOURCE_TOPIC) {
            ok = topic_describe(request, in, asked, result);
        } else if (asked->resource_type == RESOURCE_BROKER) {
            ok = broker_describe(request, asked, result);
        } else {
            result->error_code = KAFKA_ERROR_INVALID_REQUEST;
            result->error_message =
                request_text(request, "Unsupported resource type: %d", asked->resource_type);
        }
    }
    if (ok)
        request_respond(request, out);
    else
        request_fail(request, "no memory");
}

const struct handler describe_configs_handler = {.key = KAFKA_DESCRIBE_CONFIGS,
                                                 .start = describe_start};

/* ---- Changing ---- */

/* A topic's arguments as they shall be. */
struct change {
    struct request *request;
    struct catalog_command command;
    const struct topic *topic;
    struct arg *args;
    uint32_t count;
    int16_t code;
    struct slice problem;
};

static void change_refuse(struct change *change, int16_t code, struct slice problem)
{
    change->code = code;
    change->problem = problem;
}

/* Begins with the topic's arguments: all of them, or only those that are not Kafka's. `room` more
 * can be set. False: no memory. */
static bool change_begin(struct change *change, struct request *request, const struct topic *topic,
                         bool keep, size_t room)
{
    *change = (struct change){.request = request, .topic = topic};
    if (!catalog_begin(&change->command, CATALOG_CONFIGURE_TOPIC, topic->name))
        return false;
    change->args =
        arena_array(&change->command.parts->arena, topic->args.count + room, sizeof *change->args);
    if (change->args == NULL)
        return false;
    for (uint32_t i = 0; i < topic->args.count; i++) {
        struct arg arg = topic->args.items[i];
        if (!keep && topic_config_find(arg.name))
            continue;
        if (!catalog_copy(&change->command, &arg.name) ||
            !catalog_copy(&change->command, &arg.text))
            return false;
        change->args[change->count++] = arg;
    }
    return true;
}

static struct arg *change_find(struct change *change, struct slice name)
{
    for (uint32_t i = 0; i < change->count; i++)
        if (slice_equal(change->args[i].name, name))
            return &change->args[i];
    return NULL;
}

static void change_remove(struct change *change, struct slice name)
{
    struct arg *arg = change_find(change, name);
    if (arg)
        *arg = change->args[--change->count];
}

/* False: no memory. A value that may not be is noted in the change. */
static bool change_set(struct change *change, struct slice name, struct slice value)
{
    struct slice problem;
    if (!topic_config_check(change->request, name, &value, &problem)) {
        change_refuse(change, KAFKA_ERROR_INVALID_CONFIG, problem);
        return true;
    }
    struct arg arg = {.name = name, .kind = ARG_TEXT, .text = value};
    if (!catalog_copy(&change->command, &arg.name) || !catalog_copy(&change->command, &arg.text))
        return false;
    struct arg *old = change_find(change, name);
    if (old)
        *old = arg;
    else
        change->args[change->count++] = arg;
    return true;
}

static bool list_has(struct slice list, struct slice item)
{
    const uint8_t *at = list.data, *end = list.data + list.len;
    while (list.len && at <= end) {
        const uint8_t *comma = memchr(at, ',', (size_t)(end - at));
        const uint8_t *stop = comma ? comma : end;
        if (slice_equal(slice_make(at, (size_t)(stop - at)), item))
            return true;
        at = stop + 1;
    }
    return false;
}

/* Those of `from` that are in `other`, or those that are not, behind what `text` holds. */
static size_t list_pick(struct slice from, struct slice other, bool wanted, uint8_t *text,
                        size_t len)
{
    const uint8_t *at = from.data, *end = from.data + from.len;
    while (from.len && at <= end) {
        const uint8_t *comma = memchr(at, ',', (size_t)(end - at));
        const uint8_t *stop = comma ? comma : end;
        struct slice item = slice_make(at, (size_t)(stop - at));
        if (list_has(other, item) == wanted) {
            if (len)
                text[len++] = ',';
            memcpy(text + len, item.data, item.len);
            len += item.len;
        }
        at = stop + 1;
    }
    return len;
}

/* Adds items to a list, or takes them out. */
static bool change_list(struct change *change, struct slice name, struct slice value, bool append)
{
    const struct topic_config *config = topic_config_find(name);
    if (config == NULL || config->type != CONFIG_LIST || value.data == NULL) {
        change_refuse(change, KAFKA_ERROR_INVALID_CONFIG,
                      slice_of("Only lists can be appended to or subtracted from"));
        return true;
    }
    const struct arg *arg = change_find(change, name);
    struct slice old = arg ? arg->text : slice_of(config->value);
    uint8_t *text = arena_alloc(&change->request->arena, old.len + value.len + 2);
    if (text == NULL)
        return false;
    size_t len = list_pick(old, append ? slice_of("") : value, false, text, 0);
    if (append)
        len = list_pick(value, old, false, text, len);
    return change_set(change, name, slice_make(text, len));
}

static bool change_apply(struct change *change,
                         const struct kafka_incremental_alter_configs_request_config *config)
{
    switch (config->config_operation) {
    case OPERATION_SET:
        return change_set(change, config->name, config->value);
    case OPERATION_DELETE:
        if (topic_config_find(config->name) == NULL)
            change_refuse(change, KAFKA_ERROR_INVALID_CONFIG,
                          slice_of("Unknown topic config name"));
        else
            change_remove(change, config->name);
        return true;
    case OPERATION_APPEND:
    case OPERATION_SUBTRACT:
        return change_list(change, config->name, config->value,
                           config->config_operation == OPERATION_APPEND);
    default:
        change_refuse(change, KAFKA_ERROR_INVALID_REQUEST, slice_of("Unknown operation"));
        return true;
    }
}

/* Until it is answered. */
static int16_t change_code(const struct change *change)
{
    return change->code != KAFKA_ERROR_NONE ? change->code : KAFKA_ERROR_REQUEST_TIMED_OUT;
}

static void change_end(struct change *change, uint32_t index, bool validate_only)
{
    if (change->code != KAFKA_ERROR_NONE) {
        parts_destroy(change->command.parts);
        return;
    }
    change->command.catalog->args = (struct args){change->args, change->count};
    change->command.catalog->validate_only = validate_only;
    catalog_send(change->request, index, &change->command);
}

/* What may be changed at all: NONE for a topic that is there. */
static int16_t resource_check(struct request *request, int8_t type, struct slice name,
                              const struct topic **topic, struct slice *problem)
{
    if (type == RESOURCE_BROKER) {
        *problem = slice_of("The broker's configuration is given when it is started");
        return KAFKA_ERROR_INVALID_CONFIG;
    }
    if (type != RESOURCE_TOPIC) {
        *problem = request_text(request, "Unsupported resource type: %d", type);
        return KAFKA_ERROR_INVALID_REQUEST;
    }
    *topic = topic_named(request, name);
    if (*topic)
        return KAFKA_ERROR_NONE;
    return topic_name_valid(name) ? KAFKA_ERROR_UNKNOWN_TOPIC_OR_PARTITION
                                  : KAFKA_ERROR_INVALID_TOPIC_EXCEPTION;
}

static void alter_one(struct request *request, uint32_t index,
                      const struct kafka_alter_configs_request_resource *in, bool validate_only,
                      struct kafka_alter_configs_response_result *out)
{
    const struct topic *topic;
    *out = kafka_alter_configs_response_result_default;
    out->resource_type = in->resource_type;
    out->resource_name = in->resource_name;
    out->error_code =
        resource_check(request, in->resource_type, in->resource_name, &topic, &out->error_message);
    if (out->error_code != KAFKA_ERROR_NONE)
        return;
    struct change change;
    bool ok = change_begin(&change, request, topic, false, (size_t)in->configs_count);
    for (int32_t i = 0; ok && i < in->configs_count && change.code == KAFKA_ERROR_NONE; i++)
        ok = change_set(&change, in->configs[i].name, in->configs[i].value);
    if (!ok) {
        parts_destroy(change.command.parts);
        request_fail(request, "no memory");
        return;
    }
    out->error_code = change_code(&change);
    out->error_message = change.problem;
    change_end(&change, index, validate_only);
}

static void alter_start(struct request *request, const void *message)
{
    const struct kafka_alter_configs_request *in = message;
    struct kafka_alter_configs_response *out = request_alloc(request, 1, sizeof *out);
    size_t count = (size_t)in->resources_count;
    request->state = out;
    request_limit(request, TIMEOUT_MS_DEFAULT);
    if (out)
        *out = kafka_alter_configs_response_default;
    if (out == NULL ||
        (out->results = request_alloc(request, count, sizeof *out->results)) == NULL) {
        request_fail(request, "no memory");
        return;
    }
    out->results_count = in->resources_count;
    for (size_t i = 0; i < count && request->stage == REQUEST_RUNNING; i++)
        alter_one(request, (uint32_t)i, &in->resources[i], in->validate_only, &out->results[i]);
}

/* What the catalog says, for both kinds of change. */
static int16_t change_answer(struct request *request, const struct event *event,
                             struct slice *message)
{
    if (event->err != ERR_NONE && event->detail.len) {
        *message = event->detail;
        if (!request_copy(request, message))
            *message = (struct slice){0};
    }
    return err_kafka(event->err);
}

static void alter_answer(struct request *request, uint32_t index, const struct event *event)
{
    struct kafka_alter_configs_response *out = request->state;
    struct kafka_alter_configs_response_result *result = &out->results[index];
    result->error_code = change_answer(request, event, &result->error_message);
}

const struct handler alter_configs_handler = {.key = KAFKA_ALTER_CONFIGS,
                                              .start = alter_start,
                                              .answer = alter_answer,
                                              .finish = state_respond};

static void increment_one(struct request *request, uint32_t index,
                          const struct kafka_incremental_alter_configs_request_resource *in,
                          bool validate_only,
                          struct kafka_incremental_alter_configs_response_result *out)
{
    const struct topic *topic;
    *out = kafka_incremental_alter_configs_response_result_default;
    out->resource_type = in->resource_type;
    out->resource_name = in->resource_name;
    out->error_code =
        resource_check(request, in->resource_type, in->resource_name, &topic, &out->error_message);
    if (out->error_code != KAFKA_ERROR_NONE)
        return;
    struct change change;
    bool ok = change_begin(&change, request, topic, true, (size_t)in->configs_count);
    for (int32_t i = 0; ok && i < in->configs_count && change.code == KAFKA_ERROR_NONE; i++)
        ok = change_apply(&change, &in->configs[i]);
    if (!ok) {
        parts_destroy(change.command.parts);
        request_fail(request, "no memory");
        return;
    }
    out->error_code = change_code(&change);
    out->error_message = change.problem;
    change_end(&change, index, validate_only);
}

static void increment_start(struct request *request, const void *message)
{
    const struct kafka_incremental_alter_configs_request *in = message;
    struct kafka_incremental_alter_configs_response *out = request_alloc(request, 1, sizeof *out);
    size_t count = (size_t)in->resources_count;
    request->state = out;
    request_limit(request, TIMEOUT_MS_DEFAULT);
    if (out)
        *out = kafka_incremental_alter_configs_response_default;
    if (out == NULL ||
        (out->results = request_alloc(request, count, sizeof *out->results)) == NULL) {
        request_fail(request, "no memory");
        return;
    }
    out->results_count = in->resources_count;
    for (size_t i = 0; i < count && request->stage == REQUEST_RUNNING; i++)
        increment_one(request, (uint32_t)i, &in->resources[i], in->validate_only, &out->results[i]);
}

static void increment_answer(struct request *request, uint32_t index, const struct event *event)
{
    struct kafka_incremental_alter_configs_response *out = request->state;
    struct kafka_incremental_alter_configs_response_result *result = &out->results[index];
    result->error_code = change_answer(request, event, &result->error_message);
}

const struct handler incremental_alter_configs_handler = {
    .key = KAFKA_INCREMENTAL_ALTER_CONFIGS,
    .start = increment_start,
    .answer = increment_answer,
    .finish = state_respond,
};
