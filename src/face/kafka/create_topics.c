/* CreateTopics: names, numbers, assignments and configurations are checked as Kafka checks them;
 * what passes becomes one catalog command for each topic. */
#include "face/kafka/topic_config.h"

#include <stdlib.h>

enum {
    DEFAULT_NUMBER = -1, /* of partitions and of replicas: the broker's */
    PARTITIONS_MAX = 100000,
    COLLISION_NAME_BYTES_MAX = 249,
};

static void refuse(struct kafka_create_topics_response_topic *out, int16_t code,
                   struct slice message)
{
    out->error_code = code;
    out->error_message = message;
}

/* Is there a topic whose name differs only by dots for underscores, or the other way round? Metrics
 * of Kafka's tools would mix them up. */
static const struct topic *topic_colliding(struct request *request, struct slice name)
{
    uint8_t other[COLLISION_NAME_BYTES_MAX];
    static const char separators[] = {'.', '_'};
    for (int i = 0; i < 2; i++) {
        bool differs = false;
        for (size_t k = 0; k < name.len; k++) {
            bool separates = name.data[k] == '.' || name.data[k] == '_';
            other[k] = separates ? (uint8_t)separators[i] : name.data[k];
            differs |= other[k] != name.data[k];
        }
        const struct topic *topic =
            differs ? topic_named(request, slice_make(other, name.len)) : NULL;
        if (topic)
            return topic;
    }
    return NULL;
}

static bool name_check(struct request *request, struct slice name,
                       struct kafka_create_topics_response_topic *out)
{
    if (!topic_name_valid(name)) {
        refuse(out, KAFKA_ERROR_INVALID_TOPIC_EXCEPTION,
               slice_of("Topic name is invalid: it must have 1 to 249 characters, each of them an "
                        "ASCII alphanumeric, '.', '_' or '-', and must not be '.' or '..'"));
        return false;
    }
    if (topic_named(request, name)) {
        refuse(out, KAFKA_ERROR_TOPIC_ALREADY_EXISTS,
               request_text(request, "Topic '%.*s' already exists.", (int)name.len,
                            (const char *)name.data));
        return false;
    }
    const struct topic *other = topic_colliding(request, name);
    if (other == NULL)
        return true;
    refuse(out, KAFKA_ERROR_INVALID_TOPIC_EXCEPTION,
           request_text(request, "Topic '%.*s' collides with existing topic: %.*s", (int)name.len,
                        (const char *)name.data, (int)other->name.len,
                        (const char *)other->name.data));
    return false;
}

static int by_partition(const void *a, const void *b)
{
    int32_t left =
        (*(const struct kafka_create_topics_request_assignment *const *)a)->partition_index;
    int32_t right =
        (*(const struct kafka_create_topics_request_assignment *const *)b)->partition_index;
    return (left > right) - (left < right);
}

/* Partitions 0, 1, 2, ... in any order, each on the one broker. False: no memory. */
static bool assignments_check(struct request *request,
                              const struct kafka_create_topics_request_topic *in,
                              struct kafka_create_topics_response_topic *out)
{
    size_t count = (size_t)in->assignments_count;
    const struct kafka_create_topics_request_assignment **sorted =
        arena_array(&request->arena, count, sizeof(void *));
    if (sorted == NULL)
        return false;
    if (in->num_partitions != DEFAULT_NUMBER || in->replication_factor != DEFAULT_NUMBER) {
        refuse(out, KAFKA_ERROR_INVALID_REQUEST,
               slice_of(in->num_partitions != DEFAULT_NUMBER
                            ? "A manual partition assignment was specified, but numPartitions was "
                              "not set to -1."
                            : "A manual partition assignment was specified, but replication factor "
                              "was not set to -1."));
        return true;
    }
    for (size_t i = 0; i < count; i++)
        sorted[i] = &in->assignments[i];
    qsort(sorted, count, sizeof *sorted, by_partition);
    for (size_t i = 0; i < count; i++) {
        if (sorted[i]->partition_index != (int32_t)i)
            refuse(out, KAFKA_ERROR_INVALID_REPLICA_ASSIGNMENT,
                   slice_of("partitions should be a consecutive 0-based integer sequence"));
        else if (sorted[i]->broker_ids_count != 1 || sorted[i]->broker_ids[0] != NODE_ID)
            refuse(out, KAFKA_ERROR_INVALID_REPLICA_ASSIGNMENT,
                   slice_of("Each partition must be assigned to broker 1"));
    }
    return true;
}

static void numbers_check(struct request *request,
                          const struct kafka_create_topics_request_topic *in,
                          struct kafka_create_topics_response_topic *out)
{
    if (in->replication_factor < DEFAULT_NUMBER || in->replication_factor == 0)
        refuse(
            out, KAFKA_ERROR_INVALID_REPLICATION_FACTOR,
            slice_of("Replication factor must be larger than 0, or -1 to use the default value."));
    else if (in->num_partitions < DEFAULT_NUMBER || in->num_partitions == 0)
        refuse(out, KAFKA_ERROR_INVALID_PARTITIONS,
               slice_of(
                   "Number of partitions must be larger than 0, or -1 to use the default value."));
    else if (in->replication_factor > 1)
        refuse(out, KAFKA_ERROR_INVALID_REPLICATION_FACTOR,
               request_text(request,
                            "Unable to replicate the partition %d time(s): The target replication "
                            "factor of %d cannot be reached because only 1 broker(s) are "
                            "registered.",
                            in->replication_factor, in->replication_factor));
    else if (in->num_partitions > PARTITIONS_MAX)
        refuse(out, KAFKA_ERROR_INVALID_PARTITIONS,
               request_text(request, "Number of partitions must be at most %d.", PARTITIONS_MAX));
}

/* The configurations as the catalog's arguments, of each name the last; a bad one is noted in
 * `out`. False: no memory. */
static bool configs_fill(struct request *request,
                         const struct kafka_create_topics_request_topic *in,
                         struct catalog_command *command,
                         struct kafka_create_topics_response_topic *out)
{
    struct arg *args = arena_array(&command->parts->arena, TOPIC_CONFIGS, sizeof *args);
    uint32_t count = 0;
    if (args == NULL)
        return false;
    for (int32_t i = 0; i < in->configs_count; i++) {
        struct arg arg = {.name = in->configs[i].name, .kind = ARG_TEXT};
        struct slice problem;
        arg.text = in->configs[i].value;
        if (!topic_config_check(request, arg.name, &arg.text, &problem)) {
            refuse(out, KAFKA_ERROR_INVALID_CONFIG, problem);
            return true;
        }
        uint32_t at = 0;
        while (at < count && !slice_equal(args[at].name, arg.name))
            at++;
        if (!catalog_copy(command, &arg.name) || !catalog_copy(command, &arg.text))
            return false;
        args[at] = arg;
        count += at == count;
    }
    command->catalog->args = (struct args){args, count};
    return true;
}

struct create {
    struct kafka_create_topics_response response;
    const struct kafka_create_topics_request *in;
};

static int by_name(const void *a, const void *b)
{
    struct slice left = (*(struct kafka_create_topics_response_topic *const *)a)->name;
    struct slice right = (*(struct kafka_create_topics_response_topic *const *)b)->name;
    size_t len = left.len < right.len ? left.len : right.len;
    int order = len ? memcmp(left.data, right.data, len) : 0;
    return order ? order : (left.len > right.len) - (left.len < right.len);
}

/* A name that is there twice is refused in both places. False: no memory. */
static bool repeated_refuse(struct request *request)
{
    struct create *create = request->state;
    size_t count = (size_t)create->response.topics_count;
    struct kafka_create_topics_response_topic **sorted =
        arena_array(&request->arena, count, sizeof(void *));
    if (sorted == NULL)
        return false;
    for (size_t i = 0; i < count; i++)
        sorted[i] = &create->response.topics[i];
    qsort(sorted, count, sizeof *sorted, by_name);
    for (size_t i = 0; i + 1 < count; i++) {
        if (!slice_equal(sorted[i]->name, sorted[i + 1]->name))
            continue;
        refuse(sorted[i], KAFKA_ERROR_INVALID_REQUEST, slice_of("Duplicate topic name."));
        refuse(sorted[i + 1], KAFKA_ERROR_INVALID_REQUEST, slice_of("Duplicate topic name."));
    }
    return true;
}

static bool topic_send(struct request *request, uint32_t index,
                       const struct kafka_create_topics_request_topic *in, uint32_t partitions,
                       struct kafka_create_topics_response_topic *out)
{
    const struct create *create = request->state;
    struct conn *conn = request->kafka->conn;
    struct catalog_command command;
    if (!catalog_begin(&command, CATALOG_CREATE_TOPIC, in->name))
        return false;
    bool ok = configs_fill(request, in, &command, out);
    if (!ok || out->error_code != KAFKA_ERROR_NONE) {
        parts_destroy(command.parts);
        return ok;
    }
    command.catalog->partitions = partitions;
    command.catalog->validate_only = create->in->validate_only;
    be64_put(command.catalog->uuid, conn_random(conn));
    be64_put(command.catalog->uuid + 8, conn_random(conn));
    out->num_partitions = (int32_t)partitions;
    out->error_code = KAFKA_ERROR_REQUEST_TIMED_OUT; /* if it will be */
    catalog_send(request, index, &command);
    return true;
}

/* False: no memory. */
static bool topic_create(struct request *request, int32_t index)
{
    const struct create *create = request->state;
    const struct kafka_create_topics_request_topic *in = &create->in->topics[index];
    struct kafka_create_topics_response_topic *out = &create->response.topics[index];
    if (out->error_code != KAFKA_ERROR_NONE || !name_check(request, in->name, out))
        return true;
    uint32_t partitions = in->num_partitions == DEFAULT_NUMBER
                              ? conn_config(request->kafka->conn)->default_partitions
                              : (uint32_t)in->num_partitions;
    if (in->assignments_count > 0) {
        partitions = (uint32_t)in->assignments_count;
        if (!assignments_check(request, in, out))
            return false;
    } else {
        numbers_check(request, in, out);
    }
    if (out->error_code != KAFKA_ERROR_NONE)
        return true;
    return topic_send(request, (uint32_t)index, in, partitions, out);
}

static void start(struct request *request, const void *message)
{
    const struct kafka_create_topics_request *in = message;
    struct create *create = request_alloc(request, 1, sizeof *create);
    struct kafka_create_topics_response_topic *topics =
        request_alloc(request, (size_t)in->topics_count, sizeof *topics);
    request->state = create;
    if (create == NULL || topics == NULL) {
        request_fail(request, "no memory");
        return;
    }
    request_limit(request, in->timeout_ms);
    create->in = in;
    create->response = kafka_create_topics_response_default;
    create->response.topics = topics;
    create->response.topics_count = in->topics_count;
    for (int32_t i = 0; i < in->topics_count; i++) {
        topics[i] = kafka_create_topics_response_topic_default;
        topics[i].name = in->topics[i].name;
    }
    bool ok = repeated_refuse(request);
    for (int32_t i = 0; ok && i < in->topics_count; i++)
        ok = topic_create(request, i);
    if (!ok)
        request_fail(request, "no memory");
}

/* All configurations of the topic that was made. */
static bool configs_describe(struct request *request, const struct topic *topic,
                             struct kafka_create_topics_response_topic *out)
{
    out->configs = request_alloc(request, TOPIC_CONFIGS, sizeof *out->configs);
    if (out->configs == NULL)
        return false;
    out->configs_count = TOPIC_CONFIGS;
    for (int i = 0; i < TOPIC_CONFIGS; i++) {
        bool own;
        out->configs[i] = kafka_create_topics_response_config_default;
        out->configs[i].name = slice_of(topic_configs[i].name);
        out->configs[i].value = topic_config_value(request, topic, &topic_configs[i], &own);
        out->configs[i].config_source = own ? SOURCE_TOPIC : SOURCE_DEFAULT;
    }
    return true;
}

static void answer(struct request *request, uint32_t index, const struct event *event)
{
    const struct create *create = request->state;
    struct kafka_create_topics_response_topic *out = &create->response.topics[index];
    out->error_code = err_kafka(event->err);
    if (event->err != ERR_NONE) {
        out->num_partitions = -1;
        out->error_message = event->detail;
        if (!request_copy(request, &out->error_message))
            out->error_message = (struct slice){0};
        return;
    }
    out->replication_factor = 1;
    const struct topic *topic = topic_named(request, out->name);
    if (topic)
        out->topic_id = topic_uuid(topic);
    if (request->version >= 5 && !configs_describe(request, topic, out))
        request_fail(request, "no memory");
}

static void finish(struct request *request)
{
    struct create *create = request->state;
    request_respond(request, &create->response);
}

const struct handler create_topics_handler = {
    .key = KAFKA_CREATE_TOPICS, .start = start, .answer = answer, .finish = finish};
