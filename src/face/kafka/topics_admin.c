/* DeleteTopics, CreatePartitions and DeleteRecords. What Kafka refuses for the looks of the request
 * is refused here, in its words; the rest is the catalog's, or the partition's, to decide. */
#include "face/kafka/kafka.h"

static void state_respond(struct request *request)
{
    request_respond(request, request->state);
}

/* The catalog's words for an error, in the arena. */
static struct slice detail_of(struct request *request, const struct event *event)
{
    struct slice text = event->detail;
    if (event->err == ERR_NONE || text.len == 0 || !request_copy(request, &text))
        return (struct slice){0};
    return text;
}

/* ---- DeleteTopics ---- */

static bool delete_send(struct request *request, uint32_t index, const struct topic *topic,
                        struct kafka_delete_topics_response_result *result)
{
    result->name = topic->name;
    result->topic_id = topic_uuid(topic);
    struct catalog_command command;
    if (!request_copy(request, &result->name) ||
        !catalog_begin(&command, CATALOG_DELETE_TOPIC, result->name))
        return false;
    result->error_code = KAFKA_ERROR_REQUEST_TIMED_OUT; /* if it will be */
    catalog_send(request, index, &command);
    return true;
}

static bool delete_one(struct request *request, uint32_t index, struct slice name,
                       const struct kafka_uuid *id,
                       struct kafka_delete_topics_response_result *result)
{
    bool by_id = !uuid_is_zero(id);
    result->name = name;
    result->topic_id = *id;
    if (by_id == (name.data != NULL)) {
        result->error_code = KAFKA_ERROR_INVALID_REQUEST;
        result->error_message = slice_of(by_id ? "You may not specify both topic name and topic id."
                                               : "Neither topic name nor id were specified.");
        return true;
    }
    const struct topic *topic = by_id ? topic_identified(request, id) : topic_named(request, name);
    if (topic)
        return delete_send(request, index, topic, result);
    result->error_code =
        by_id ? KAFKA_ERROR_UNKNOWN_TOPIC_ID : KAFKA_ERROR_UNKNOWN_TOPIC_OR_PARTITION;
    result->error_message = slice_of(kafka_error_info(result->error_code)->text);
    return true;
}

static void delete_start(struct request *request, const void *message)
{
    static const struct kafka_uuid no_id;
    const struct kafka_delete_topics_request *in = message;
    bool with_ids = request->version >= 6;
    size_t count = (size_t)(with_ids ? in->topics_count : in->topic_names_count);
    struct kafka_delete_topics_response *out = request_alloc(request, 1, sizeof *out);
    request->state = out;
    request_limit(request, in->timeout_ms);
    if (out)
        *out = kafka_delete_topics_response_default;
    if (out == NULL ||
        (out->results = request_alloc(request, count, sizeof *out->results)) == NULL) {
        request_fail(request, "no memory");
        return;
    }
    for (size_t i = 0; i < count; i++)
        out->results[i] = kafka_delete_topics_response_result_default;
    out->results_count = (int32_t)count;
    bool ok = true;
    for (size_t i = 0; ok && i < count; i++)
        ok = delete_one(request, (uint32_t)i, with_ids ? in->topics[i].name : in->topic_names[i],
                        with_ids ? &in->topics[i].topic_id : &no_id, &out->results[i]);
    if (!ok)
        request_fail(request, "no memory");
}

static void delete_answer(struct request *request, uint32_t index, const struct event *event)
{
    struct kafka_delete_topics_response *out = request->state;
    out->results[index].error_code = err_kafka(event->err);
    out->results[index].error_message = detail_of(request, event);
}

const struct handler delete_topics_handler = {.key = KAFKA_DELETE_TOPICS,
                                              .start = delete_start,
                                              .answer = delete_answer,
                                              .finish = state_respond};

/* ---- CreatePartitions ---- */

static void grow_refuse(struct kafka_create_partitions_response_result *result, int16_t code,
                        struct slice message)
{
    result->error_code = code;
    result->error_message = message;
}

static bool grow_assignments_valid(const struct kafka_create_partitions_request_topic *in,
                                   int32_t added)
{
    if (in->assignments_count < 0)
        return true;
    if (in->assignments_count != added)
        return false;
    for (int32_t i = 0; i < in->assignments_count; i++)
        if (in->assignments[i].broker_ids_count != 1 || in->assignments[i].broker_ids[0] != NODE_ID)
            return false;
    return true;
}

static bool grow_one(struct request *request, uint32_t index,
                     const struct kafka_create_partitions_request_topic *in, bool validate_only,
                     struct kafka_create_partitions_response_result *result)
{
    const struct topic *topic = topic_named(request, in->name);
    result->name = in->name;
    if (topic == NULL) {
        grow_refuse(result, KAFKA_ERROR_UNKNOWN_TOPIC_OR_PARTITION,
                    slice_of(kafka_error_info(KAFKA_ERROR_UNKNOWN_TOPIC_OR_PARTITION)->text));
        return true;
    }
    int32_t count = (int32_t)topic->partition_count;
    if (in->count == count) {
        grow_refuse(result, KAFKA_ERROR_INVALID_PARTITIONS,
                    request_text(request, "Topic already has %d partition(s).", count));
        return true;
    }
    if (in->count < count) {
        grow_refuse(result, KAFKA_ERROR_INVALID_PARTITIONS,
                    request_text(request,
                                 "The topic %.*s currently has %d partition(s); %d would not be an "
                                 "increase.",
                                 (int)in->name.len, (const char *)in->name.data, count, in->count));
        return true;
    }
    if (!grow_assignments_valid(in, in->count - count)) {
        grow_refuse(result, KAFKA_ERROR_INVALID_REPLICA_ASSIGNMENT,
                    slice_of("Each new partition must be assigned to broker 1"));
        return true;
    }
    struct catalog_command command;
    if (!catalog_begin(&command, CATALOG_GROW_TOPIC, in->name))
        return false;
    command.catalog->partitions = (uint32_t)in->count;
    command.catalog->validate_only = validate_only;
    result->error_code = KAFKA_ERROR_REQUEST_TIMED_OUT;
    catalog_send(request, index, &command);
    return true;
}

static void grow_start(struct request *request, const void *message)
{
    const struct kafka_create_partitions_request *in = message;
    size_t count = (size_t)in->topics_count;
    struct kafka_create_partitions_response *out = request_alloc(request, 1, sizeof *out);
    request->state = out;
    request_limit(request, in->timeout_ms);
    if (out)
        *out = kafka_create_partitions_response_default;
    if (out == NULL ||
        (out->results = request_alloc(request, count, sizeof *out->results)) == NULL) {
        request_fail(request, "no memory");
        return;
    }
    for (size_t i = 0; i < count; i++)
        out->results[i] = kafka_create_partitions_response_result_default;
    out->results_count = in->topics_count;
    bool ok = true;
    for (size_t i = 0; ok && i < count; i++)
        ok = grow_one(request, (uint32_t)i, &in->topics[i], in->validate_only, &out->results[i]);
    if (!ok)
        request_fail(request, "no memory");
}

static void grow_answer(struct request *request, uint32_t index, const struct event *event)
{
    struct kafka_create_partitions_response *out = request->state;
    out->results[index].error_code = err_kafka(event->err);
    out->results[index].error_message = detail_of(request, event);
}

const struct handler create_partitions_handler = {.key = KAFKA_CREATE_PARTITIONS,
                                                  .start = grow_start,
                                                  .answer = grow_answer,
                                                  .finish = state_respond};

/* ---- DeleteRecords ---- */

enum { OFFSET_END = -1 };

struct trims {
    struct kafka_delete_records_response response;
    struct kafka_delete_records_response_partition *rows; /* of all topics, one after the other */
};

static void trim_one(struct request *request, uint32_t index, const struct topic *topic,
                     const struct kafka_delete_records_request_partition *in)
{
    struct trims *state = request->state;
    struct kafka_delete_records_response_partition *row = &state->rows[index];
    struct command command = {.type = COMMAND_TRIM};
    *row = kafka_delete_records_response_partition_default;
    row->partition_index = in->partition_index;
    row->low_watermark = -1;
    if (!topic_partition_id(topic, in->partition_index, &command.object)) {
        row->error_code = KAFKA_ERROR_UNKNOWN_TOPIC_OR_PARTITION;
    } else if (in->offset < OFFSET_END) {
        row->error_code = KAFKA_ERROR_OFFSET_OUT_OF_RANGE;
    } else if (topic->options.compact && !topic->options.remove) {
        row->error_code = KAFKA_ERROR_POLICY_VIOLATION;
    } else {
        command.offsets.offset = in->offset == OFFSET_END ? UINT64_MAX : (uint64_t)in->offset;
        row->error_code = KAFKA_ERROR_REQUEST_TIMED_OUT;
        request_command(request, index, &command);
    }
}

static void trim_start(struct request *request, const void *message)
{
    const struct kafka_delete_records_request *in = message;
    struct trims *state = request_alloc(request, 1, sizeof *state);
    request->state = state;
    size_t count = 0;
    for (int32_t i = 0; i < in->topics_count; i++)
        count += (size_t)in->topics[i].partitions_count;
    struct kafka_delete_records_response_topic *topics =
        request_alloc(request, (size_t)in->topics_count, sizeof *topics);
    struct kafka_delete_records_response_partition *rows =
        request_alloc(request, count, sizeof *rows);
    if (state == NULL || topics == NULL || rows == NULL) {
        request_fail(request, "no memory");
        return;
    }
    request_limit(request, in->timeout_ms);
    state->rows = rows;
    state->response = kafka_delete_records_response_default;
    state->response.topics = topics;
    state->response.topics_count = in->topics_count;
    uint32_t index = 0;
    for (int32_t i = 0; i < in->topics_count; i++) {
        const struct kafka_delete_records_request_topic *asked = &in->topics[i];
        const struct topic *topic = topic_named(request, asked->name);
        topics[i] = kafka_delete_records_response_topic_default;
        topics[i].name = asked->name;
        topics[i].partitions = &rows[index];
        topics[i].partitions_count = asked->partitions_count;
        for (int32_t k = 0; k < asked->partitions_count; k++)
            trim_one(request, index++, topic, &asked->partitions[k]);
    }
}

static void trim_answer(struct request *request, uint32_t index, const struct event *event)
{
    struct trims *state = request->state;
    struct kafka_delete_records_response_partition *row = &state->rows[index];
    row->error_code = err_kafka(event->err);
    if (event->err == ERR_NONE)
        row->low_watermark = (int64_t)event->value;
}

static void trim_finish(struct request *request)
{
    struct trims *state = request->state;
    request_respond(request, &state->response);
}

const struct handler delete_records_handler = {
    .key = KAFKA_DELETE_RECORDS, .start = trim_start, .answer = trim_answer, .finish = trim_finish};
