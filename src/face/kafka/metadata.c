/* Metadata: the broker, and topics with their partitions. A topic that is asked for and is not
 * there is made first when client and configuration allow it, so that the answer already holds it.
 */
#include "face/kafka/kafka.h"

/* Bits of read, write, create, delete, alter, describe, describe and alter configs. */
enum {
    TOPIC_OPERATIONS = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11,
    CLUSTER_OPERATIONS = 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12,
};

struct metadata {
    const struct kafka_metadata_request *in;
    int16_t *errors; /* of making the topic, by place in the request */
};

static bool wants_all(const struct request *request, const struct kafka_metadata_request *in)
{
    return in->topics_count < 0 || (request->version == 0 && in->topics_count == 0);
}

static bool topic_make(struct request *request, uint32_t index, struct slice name)
{
    struct catalog_command command;
    if (!catalog_begin(&command, CATALOG_CREATE_TOPIC, name))
        return false;
    const struct metadata *state = request->state;
    struct conn *conn = request->kafka->conn;
    request_limit(request, TIMEOUT_MS_DEFAULT);
    state->errors[index] = KAFKA_ERROR_LEADER_NOT_AVAILABLE; /* if time is over */
    command.catalog->partitions = conn_config(conn)->default_partitions;
    be64_put(command.catalog->uuid, conn_random(conn));
    be64_put(command.catalog->uuid + 8, conn_random(conn));
    catalog_send(request, index, &command);
    return true;
}

static void start(struct request *request, const void *message)
{
    const struct kafka_metadata_request *in = message;
    struct metadata *state = request_alloc(request, 1, sizeof *state);
    request->state = state;
    if (state == NULL) {
        request_fail(request, "no memory");
        return;
    }
    state->in = in;
    if (wants_all(request, in))
        return;
    state->errors = request_alloc(request, (size_t)in->topics_count, sizeof *state->errors);
    bool ok = state->errors != NULL;
    bool make =
        in->allow_auto_topic_creation && conn_config(request->kafka->conn)->auto_create_topics;
    for (int32_t i = 0; ok && make && i < in->topics_count; i++) {
        struct slice name = in->topics[i].name;
        bool by_name = name.len && uuid_is_zero(&in->topics[i].topic_id);
        if (by_name && topic_name_valid(name) && topic_named(request, name) == NULL)
            ok = topic_make(request, (uint32_t)i, name);
    }
    if (!ok)
        request_fail(request, "no memory");
}

static void answer(struct request *request, uint32_t index, const struct event *event)
{
    struct metadata *state = request->state;
    state->errors[index] =
        event->err == ERR_EXISTS ? KAFKA_ERROR_NONE : (int16_t)err_kafka(event->err);
}

/* ---- The response ---- */

static bool partitions_fill(struct request *request, const struct topic *topic,
                            struct kafka_metadata_response_topic *row, int32_t *node)
{
    size_t count = topic->partition_count;
    row->partitions = arena_array(&request->arena, count, sizeof *row->partitions);
    if (row->partitions == NULL)
        return false;
    for (size_t i = 0; i < count; i++) {
        struct kafka_metadata_response_partition *partition = &row->partitions[i];
        *partition = kafka_metadata_response_partition_default;
        partition->partition_index = (int32_t)i;
        partition->leader_id = NODE_ID;
        partition->leader_epoch = LEADER_EPOCH;
        partition->replica_nodes = partition->isr_nodes = node;
        partition->replica_nodes_count = partition->isr_nodes_count = 1;
    }
    row->partitions_count = (int32_t)count;
    return true;
}

static bool topic_fill(struct request *request, const struct topic *topic,
                       struct kafka_metadata_response_topic *row, int32_t *node)
{
    const struct metadata *state = request->state;
    *row = kafka_metadata_response_topic_default;
    row->name = topic->name;
    row->topic_id = topic_uuid(topic);
    row->topic_authorized_operations =
        state->in->include_topic_authorized_operations ? TOPIC_OPERATIONS : NO_OPERATIONS;
    return request_copy(request, &row->name) && partitions_fill(request, topic, row, node);
}

static bool asked_fill(struct request *request, int32_t index,
                       struct kafka_metadata_response_topic *row, int32_t *node)
{
    const struct metadata *state = request->state;
    const struct kafka_metadata_request_topic *asked = &state->in->topics[index];
    bool by_id = !uuid_is_zero(&asked->topic_id);
    const struct topic *topic =
        by_id ? topic_identified(request, &asked->topic_id) : topic_named(request, asked->name);
    if (topic)
        return topic_fill(request, topic, row, node);
    *row = kafka_metadata_response_topic_default;
    row->name = asked->name;
    row->topic_id = asked->topic_id;
    if (by_id)
        row->error_code = KAFKA_ERROR_UNKNOWN_TOPIC_ID;
    else if (!topic_name_valid(asked->name))
        row->error_code = KAFKA_ERROR_INVALID_TOPIC_EXCEPTION;
    else if (state->errors[index])
        row->error_code = state->errors[index];
    else
        row->error_code = KAFKA_ERROR_UNKNOWN_TOPIC_OR_PARTITION;
    if (row->name.data == NULL && request->version < 12)
        row->name = slice_of("");
    return true;
}

struct walk {
    struct request *request;
    struct kafka_metadata_response_topic *rows;
    size_t count, room;
    int32_t *node;
    bool failed;
};

static bool topic_count(void *context, const struct topic *topic)
{
    (void)topic;
    ((struct walk *)context)->room++;
    return true;
}

static bool topic_add(void *context, const struct topic *topic)
{
    struct walk *walk = context;
    if (!topic_fill(walk->request, topic, &walk->rows[walk->count], walk->node)) {
        walk->failed = true;
        return false;
    }
    walk->count++;
    return true;
}

static bool all_fill(struct request *request, struct kafka_metadata_response *out, int32_t *node)
{
    struct walk walk = {.request = request, .node = node};
    const struct catalog *catalog = conn_catalog(request->kafka->conn);
    catalog_each_topic(catalog, 0, topic_count, &walk);
    walk.rows = arena_array(&request->arena, walk.room, sizeof *walk.rows);
    if (walk.rows == NULL)
        return false;
    catalog_each_topic(catalog, 0, topic_add, &walk);
    out->topics = walk.rows;
    out->topics_count = (int32_t)walk.count;
    return !walk.failed;
}

static bool some_fill(struct request *request, struct kafka_metadata_response *out, int32_t *node)
{
    const struct metadata *state = request->state;
    int32_t count = state->in->topics_count;
    out->topics = arena_array(&request->arena, (size_t)count, sizeof *out->topics);
    if (out->topics == NULL)
        return false;
    for (int32_t i = 0; i < count; i++)
        if (!asked_fill(request, i, &out->topics[i], node))
            return false;
    out->topics_count = count;
    return true;
}

static bool response_fill(struct request *request, struct kafka_metadata_response *out)
{
    const struct metadata *state = request->state;
    struct kafka_metadata_response_broker *broker = request_alloc(request, 1, sizeof *broker);
    int32_t *node = request_alloc(request, 1, sizeof *node);
    if (broker == NULL || node == NULL)
        return false;
    *node = NODE_ID;
    uint16_t port;
    *broker = kafka_metadata_response_broker_default;
    broker->node_id = NODE_ID;
    broker->host = slice_of(conn_local(request->kafka->conn, &port));
    broker->port = port;
    out->brokers = broker;
    out->brokers_count = 1;
    out->cluster_id = cluster_id(request);
    out->controller_id = NODE_ID;
    if (state->in->include_cluster_authorized_operations)
        out->cluster_authorized_operations = CLUSTER_OPERATIONS;
    return wants_all(request, state->in) ? all_fill(request, out, node)
                                         : some_fill(request, out, node);
}

static void finish(struct request *request)
{
    struct kafka_metadata_response *out = request_alloc(request, 1, sizeof *out);
    if (out == NULL) {
        request_fail(request, "no memory");
        return;
    }
    *out = kafka_metadata_response_default;
    if (!response_fill(request, out)) {
        request_fail(request, "no memory");
        return;
    }
    request_respond(request, out);
}

const struct handler metadata_handler = {
    .key = KAFKA_METADATA, .start = start, .answer = answer, .finish = finish};
