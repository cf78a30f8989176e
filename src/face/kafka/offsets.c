/* A group's committed offsets: OffsetCommit and OffsetDelete. Partitions that are not there, and
 * what may not be stored, are answered here; the rest goes to the group in one command. */
#include "face/kafka/kafka.h"

enum {
    IDS_SINCE = 10,
    METADATA_BYTES_MAX = 4096, /* offset.metadata.max.bytes */
};

/* Which of the response's partitions the command's offsets are. */
struct asked_offsets {
    void *response;
    int16_t **codes; /* by place in the command */
    uint32_t count;
};

/* The command goes. */
static void codes_await(struct request *request, struct group_command *command)
{
    struct asked_offsets *asked = request->state;
    request_limit(request, TIMEOUT_MS_DEFAULT);
    for (uint32_t i = 0; i < asked->count; i++)
        *asked->codes[i] = KAFKA_ERROR_COORDINATOR_NOT_AVAILABLE; /* if time is over */
    group_send(request, 0, command);
}

static void codes_answer(struct request *request, uint32_t index, const struct event *event)
{
    (void)index;
    struct asked_offsets *asked = request->state;
    const struct group_answer *answer = group_answer_of(event);
    for (uint32_t i = 0; i < asked->count; i++) {
        enum err err = event->err;
        if (err == ERR_NONE && answer && i < answer->offset_count)
            err = answer->offsets[i].err;
        *asked->codes[i] = coordinator_code(err);
    }
}

/* ---- OffsetCommit ---- */

static int16_t commit_check(const struct request *request, const struct topic *topic,
                            const struct kafka_offset_commit_request_partition *partition)
{
    uint64_t id;
    if (topic == NULL && request->version >= IDS_SINCE)
        return KAFKA_ERROR_UNKNOWN_TOPIC_ID;
    if (!topic_partition_id(topic, partition->partition_index, &id))
        return KAFKA_ERROR_UNKNOWN_TOPIC_OR_PARTITION;
    if (partition->committed_metadata.len > METADATA_BYTES_MAX)
        return KAFKA_ERROR_OFFSET_METADATA_TOO_LARGE;
    return KAFKA_ERROR_NONE;
}

static bool commit_topic(struct request *request,
                         const struct kafka_offset_commit_request_topic *in,
                         struct group_command *command, struct group_offset *offsets,
                         struct kafka_offset_commit_response_topic *out)
{
    struct asked_offsets *asked = request->state;
    const struct topic *topic = request->version >= IDS_SINCE
                                    ? topic_identified(request, &in->topic_id)
                                    : topic_named(request, in->name);
    struct slice name = topic ? topic->name : in->name;
    *out = kafka_offset_commit_response_topic_default;
    out->name = in->name;
    out->topic_id = in->topic_id;
    out->partitions_count = in->partitions_count;
    out->partitions = request_alloc(request, (size_t)in->partitions_count, sizeof *out->partitions);
    if (out->partitions == NULL || !group_copy(command, &name))
        return false;
    for (int32_t i = 0; i < in->partitions_count; i++) {
        const struct kafka_offset_commit_request_partition *partition = &in->partitions[i];
        out->partitions[i] = kafka_offset_commit_response_partition_default;
        out->partitions[i].partition_index = partition->partition_index;
        out->partitions[i].error_code = commit_check(request, topic, partition);
        if (out->partitions[i].error_code != KAFKA_ERROR_NONE)
            continue;
        struct group_offset *offset = &offsets[asked->count];
        asked->codes[asked->count++] = &out->partitions[i].error_code;
        *offset = (struct group_offset){
            .topic = name,
            .partition = (uint32_t)partition->partition_index,
            .offset = partition->committed_offset,
            .leader_epoch = partition->committed_leader_epoch,
            .metadata = partition->committed_metadata,
        };
        if (!group_copy(command, &offset->metadata))
            return false;
    }
    return true;
}

static bool commit_fill(struct request *request, const struct kafka_offset_commit_request *in,
                        struct group_command *command, struct kafka_offset_commit_response *out)
{
    struct asked_offsets *asked = request->state;
    uint32_t count = 0;
    for (int32_t i = 0; i < in->topics_count; i++)
        count += (uint32_t)in->topics[i].partitions_count;
    struct group_offset *offsets = group_array(command, count, sizeof *offsets);
    asked->codes = request_alloc(request, count, sizeof *asked->codes);
    out->topics = request_alloc(request, (size_t)in->topics_count, sizeof *out->topics);
    if (offsets == NULL || asked->codes == NULL || out->topics == NULL)
        return false;
    out->topics_count = in->topics_count;
    for (int32_t i = 0; i < in->topics_count; i++)
        if (!commit_topic(request, &in->topics[i], command, offsets, &out->topics[i]))
            return false;
    struct group_request *group = command->group;
    group->offsets = offsets;
    group->offset_count = asked->count;
    group->member = in->member_id;
    group->instance = in->group_instance_id;
    group->generation = in->generation_id_or_member_epoch;
    return group_copy(command, &group->member) && group_copy(command, &group->instance);
}

static void commit_start(struct request *request, const void *message)
{
    const struct kafka_offset_commit_request *in = message;
    struct asked_offsets *asked = request_alloc(request, 1, sizeof *asked);
    struct kafka_offset_commit_response *out = request_alloc(request, 1, sizeof *out);
    struct group_command command;
    request->state = asked;
    if (asked == NULL || out == NULL || !group_begin(&command, GROUP_COMMIT, in->group_id)) {
        request_fail(request, "no memory");
        return;
    }
    *out = kafka_offset_commit_response_default;
    asked->response = out;
    if (!commit_fill(request, in, &command, out)) {
        group_abandon(&command);
        request_fail(request, "no memory");
    } else if (asked->count == 0 && in->topics_count > 0) {
        group_abandon(&command); /* nothing of it may be stored */
    } else {
        codes_await(request, &command);
    }
}

static void response_respond(struct request *request)
{
    struct asked_offsets *asked = request->state;
    request_respond(request, asked->response);
}

const struct handler offset_commit_handler = {.key = KAFKA_OFFSET_COMMIT,
                                              .urgent = true,
                                              .start = commit_start,
                                              .answer = codes_answer,
                                              .finish = response_respond};

/* ---- OffsetDelete ---- */

static bool delete_fill(struct request *request, const struct kafka_offset_delete_request *in,
                        struct group_command *command, struct kafka_offset_delete_response *out)
{
    struct asked_offsets *asked = request->state;
    uint32_t count = 0;
    for (int32_t i = 0; i < in->topics_count; i++)
        count += (uint32_t)in->topics[i].partitions_count;
    struct group_offset *offsets = group_array(command, count, sizeof *offsets);
    asked->codes = request_alloc(request, count, sizeof *asked->codes);
    out->topics = request_alloc(request, (size_t)in->topics_count, sizeof *out->topics);
    struct kafka_offset_delete_response_partition *rows =
        request_alloc(request, count, sizeof *rows);
    if (offsets == NULL || asked->codes == NULL || out->topics == NULL || rows == NULL)
        return false;
    out->topics_count = in->topics_count;
    for (int32_t i = 0; i < in->topics_count; i++) {
        const struct kafka_offset_delete_request_topic *topic = &in->topics[i];
        struct slice name = topic->name;
        if (!group_copy(command, &name))
            return false;
        out->topics[i] = kafka_offset_delete_response_topic_default;
        out->topics[i].name = topic->name;
        out->topics[i].partitions = rows;
        out->topics[i].partitions_count = topic->partitions_count;
        const struct topic *known = topic_named(request, topic->name);
        for (int32_t k = 0; k < topic->partitions_count; k++, rows++) {
            uint64_t id;
            *rows = kafka_offset_delete_response_partition_default;
            rows->partition_index = topic->partitions[k].partition_index;
            if (!topic_partition_id(known, rows->partition_index, &id)) {
                rows->error_code = KAFKA_ERROR_UNKNOWN_TOPIC_OR_PARTITION;
                continue;
            }
            offsets[asked->count].topic = name;
            offsets[asked->count].partition = (uint32_t)rows->partition_index;
            asked->codes[asked->count++] = &rows->error_code;
        }
    }
    command->group->offsets = offsets;
    command->group->offset_count = asked->count;
    return true;
}

static void delete_start(struct request *request, const void *message)
{
    const struct kafka_offset_delete_request *in = message;
    struct asked_offsets *asked = request_alloc(request, 1, sizeof *asked);
    struct kafka_offset_delete_response *out = request_alloc(request, 1, sizeof *out);
    struct group_command command;
    request->state = asked;
    if (asked == NULL || out == NULL || !group_begin(&command, GROUP_FORGET, in->group_id)) {
        request_fail(request, "no memory");
        return;
    }
    *out = kafka_offset_delete_response_default;
    asked->response = out;
    if (!delete_fill(request, in, &command, out)) {
        group_abandon(&command);
        request_fail(request, "no memory");
    } else {
        codes_await(request, &command);
    }
}

static void delete_answer(struct request *request, uint32_t index, const struct event *event)
{
    struct asked_offsets *asked = request->state;
    struct kafka_offset_delete_response *out = asked->response;
    if (event->err == ERR_NONE)
        codes_answer(request, index, event);
    else
        out->error_code = coordinator_code(event->err);
}

const struct handler offset_delete_handler = {.key = KAFKA_OFFSET_DELETE,
                                              .start = delete_start,
                                              .answer = delete_answer,
                                              .finish = response_respond};
