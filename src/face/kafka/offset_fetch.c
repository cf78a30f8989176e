/* OffsetFetch: a group's committed offsets, of the partitions that are named or of all. Up to
 * version 7 it is about one group, from 8 on about any number of them; both are built in the form
 * of the later one. */
#include "face/kafka/kafka.h"

enum {
    GROUPS_SINCE = 8,
    IDS_SINCE = 10,
    GROUP_ERROR_SINCE = 2,
};

struct offset_fetch {
    const struct kafka_offset_fetch_request *in;
    struct kafka_offset_fetch_request_group *asked;
    struct kafka_offset_fetch_response_group *groups;
    uint32_t count;
};

/* The request of an old version in the form of the later ones. */
static bool asked_unify(struct request *request)
{
    struct offset_fetch *state = request->state;
    const struct kafka_offset_fetch_request *in = state->in;
    if (request->version >= GROUPS_SINCE) {
        state->asked = in->groups;
        state->count = (uint32_t)in->groups_count;
        return true;
    }
    struct kafka_offset_fetch_request_group *group = request_alloc(request, 1, sizeof *group);
    if (group == NULL)
        return false;
    *group = kafka_offset_fetch_request_group_default;
    group->group_id = in->group_id;
    group->topics_count = in->topics_count;
    if (in->topics_count >= 0) {
        group->topics = request_alloc(request, (size_t)in->topics_count, sizeof *group->topics);
        if (group->topics == NULL)
            return false;
    }
    for (int32_t i = 0; i < in->topics_count; i++) {
        group->topics[i] = kafka_offset_fetch_request_group_topic_default;
        group->topics[i].name = in->topics[i].name;
        group->topics[i].partition_indexes = in->topics[i].partition_indexes;
        group->topics[i].partition_indexes_count = in->topics[i].partition_indexes_count;
    }
    state->asked = group;
    state->count = 1;
    return true;
}

/* The response's topic with its partitions, as yet without offsets; asks for them. */
static bool topic_ask(struct request *request, struct group_command *command,
                      struct group_offset *offsets,
                      const struct kafka_offset_fetch_request_group_topic *in,
                      struct kafka_offset_fetch_response_group_topic *out)
{
    *out = kafka_offset_fetch_response_group_topic_default;
    out->name = in->name;
    out->topic_id = in->topic_id;
    out->partitions_count = in->partition_indexes_count;
    out->partitions =
        request_alloc(request, (size_t)in->partition_indexes_count, sizeof *out->partitions);
    if (out->partitions == NULL)
        return false;
    struct slice name = in->name;
    int16_t code = KAFKA_ERROR_NONE;
    if (request->version >= IDS_SINCE) {
        const struct topic *topic = topic_identified(request, &in->topic_id);
        code = topic ? KAFKA_ERROR_NONE : KAFKA_ERROR_UNKNOWN_TOPIC_ID;
        name = topic ? topic->name : slice_of("");
    }
    if (!group_copy(command, &name))
        return false;
    for (int32_t i = 0; i < in->partition_indexes_count; i++) {
        struct kafka_offset_fetch_response_group_partition *partition = &out->partitions[i];
        *partition = kafka_offset_fetch_response_group_partition_default;
        partition->partition_index = in->partition_indexes[i];
        partition->committed_offset = -1;
        partition->metadata = slice_of("");
        partition->error_code = code;
        offsets[i].topic = name;
        offsets[i].partition = (uint32_t)in->partition_indexes[i];
    }
    return true;
}

static bool group_fill(struct request *request, uint32_t index, struct group_command *command)
{
    struct offset_fetch *state = request->state;
    const struct kafka_offset_fetch_request_group *in = &state->asked[index];
    struct kafka_offset_fetch_response_group *out = &state->groups[index];
    if (in->topics_count < 0) {
        command->group->all = true;
        return true;
    }
    uint32_t count = 0;
    for (int32_t i = 0; i < in->topics_count; i++)
        count += (uint32_t)in->topics[i].partition_indexes_count;
    struct group_offset *offsets = group_array(command, count, sizeof *offsets);
    out->topics = request_alloc(request, (size_t)in->topics_count, sizeof *out->topics);
    if (offsets == NULL || out->topics == NULL)
        return false;
    out->topics_count = in->topics_count;
    command->group->offsets = offsets;
    command->group->offset_count = count;
    for (int32_t i = 0; i < in->topics_count; i++) {
        if (!topic_ask(request, command, offsets, &in->topics[i], &out->topics[i]))
            return false;
        offsets += in->topics[i].partition_indexes_count;
    }
    return true;
}

static bool group_ask(struct request *request, uint32_t index)
{
    struct offset_fetch *state = request->state;
    struct group_command command;
    if (!group_begin(&command, GROUP_OFFSETS, state->asked[index].group_id))
        return false;
    if (!group_fill(request, index, &command)) {
        group_abandon(&command);
        return false;
    }
    group_send(request, index, &command);
    return true;
}

static void start(struct request *request, const void *message)
{
    struct offset_fetch *state = request_alloc(request, 1, sizeof *state);
    request->state = state;
    if (state)
        state->in = message;
    if (state == NULL || !asked_unify(request) ||
        (state->groups = request_alloc(request, state->count, sizeof *state->groups)) == NULL) {
        request_fail(request, "no memory");
        return;
    }
    for (uint32_t i = 0; i < state->count; i++) {
        state->groups[i] = kafka_offset_fetch_response_group_default;
        state->groups[i].group_id = state->asked[i].group_id;
    }
    for (uint32_t i = 0; i < state->count && request->stage == REQUEST_RUNNING; i++)
        if (!group_ask(request, i))
            request_fail(request, "no memory");
}

/* ---- Answers ---- */

static bool partition_set(struct request *request, const struct group_offset *offset,
                          struct kafka_offset_fetch_response_group_partition *out)
{
    if (out->error_code == KAFKA_ERROR_NONE)
        out->error_code = err_kafka(offset->err);
    /* Other negative offsets are what a client stored: some mean the start or the end by them. */
    if (out->error_code != KAFKA_ERROR_NONE || offset->offset == -1)
        return true;
    out->committed_offset = offset->offset;
    out->committed_leader_epoch = offset->leader_epoch;
    out->metadata = offset->metadata.data ? offset->metadata : slice_of("");
    return request_copy(request, &out->metadata);
}

static bool named_set(struct request *request, const struct group_answer *answer,
                      struct kafka_offset_fetch_response_group *out)
{
    uint32_t at = 0;
    for (int32_t i = 0; i < out->topics_count; i++)
        for (int32_t k = 0; k < out->topics[i].partitions_count; k++, at++)
            if (at < answer->offset_count &&
                !partition_set(request, &answer->offsets[at], &out->topics[i].partitions[k]))
                return false;
    return true;
}

/* The topic's row, a fresh one for a topic that is met first. NULL: it is gone, or no memory. */
static struct kafka_offset_fetch_response_group_topic *
topic_row(struct request *request, struct kafka_offset_fetch_response_group *out, struct slice name)
{
    for (int32_t i = out->topics_count; i-- > 0;)
        if (slice_equal(out->topics[i].name, name))
            return &out->topics[i];
    struct kafka_offset_fetch_response_group_topic *row = &out->topics[out->topics_count];
    *row = kafka_offset_fetch_response_group_topic_default;
    row->name = name;
    const struct topic *topic = topic_named(request, name);
    if (topic)
        row->topic_id = topic_uuid(topic);
    if ((topic == NULL && request->version >= IDS_SINCE) || !request_copy(request, &row->name))
        return NULL;
    out->topics_count++;
    return row;
}

static bool all_set(struct request *request, const struct group_answer *answer,
                    struct kafka_offset_fetch_response_group *out)
{
    uint32_t count = answer->offset_count;
    out->topics = request_alloc(request, count, sizeof *out->topics);
    struct kafka_offset_fetch_response_group_topic **rows =
        request_alloc(request, count, sizeof *rows);
    struct kafka_offset_fetch_response_group_partition *partitions =
        request_alloc(request, count, sizeof *partitions);
    if (out->topics == NULL || rows == NULL || partitions == NULL)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        rows[i] = topic_row(request, out, answer->offsets[i].topic);
        if (rows[i])
            rows[i]->partitions_count++;
    }
    for (int32_t i = 0; i < out->topics_count; i++) {
        out->topics[i].partitions = partitions;
        partitions += out->topics[i].partitions_count;
        out->topics[i].partitions_count = 0;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (rows[i] == NULL)
            continue;
        struct kafka_offset_fetch_response_group_partition *partition =
            &rows[i]->partitions[rows[i]->partitions_count++];
        *partition = kafka_offset_fetch_response_group_partition_default;
        partition->partition_index = (int32_t)answer->offsets[i].partition;
        partition->committed_offset = -1;
        partition->metadata = slice_of("");
        if (!partition_set(request, &answer->offsets[i], partition))
            return false;
    }
    return true;
}

static void answer(struct request *request, uint32_t index, const struct event *event)
{
    struct offset_fetch *state = request->state;
    struct kafka_offset_fetch_response_group *out = &state->groups[index];
    const struct group_answer *answer = group_answer_of(event);
    /* A group that is not there has committed nothing. */
    if (event->err != ERR_NONE && event->err != ERR_GROUP_NOT_FOUND) {
        out->error_code = err_kafka(event->err);
        return;
    }
    if (answer == NULL || event->err != ERR_NONE)
        return;
    bool all = state->asked[index].topics_count < 0;
    if (!(all ? all_set(request, answer, out) : named_set(request, answer, out)))
        request_fail(request, "no memory");
}

/* ---- The response ---- */

static bool single_fill(struct request *request, struct kafka_offset_fetch_response *out)
{
    struct offset_fetch *state = request->state;
    const struct kafka_offset_fetch_response_group *group = &state->groups[0];
    out->error_code = group->error_code;
    out->topics = request_alloc(request, (size_t)group->topics_count, sizeof *out->topics);
    if (out->topics == NULL)
        return false;
    out->topics_count = group->topics_count;
    for (int32_t i = 0; i < group->topics_count; i++) {
        const struct kafka_offset_fetch_response_group_topic *from = &group->topics[i];
        struct kafka_offset_fetch_response_topic *topic = &out->topics[i];
        *topic = kafka_offset_fetch_response_topic_default;
        topic->name = from->name;
        topic->partitions_count = from->partitions_count;
        topic->partitions =
            request_alloc(request, (size_t)from->partitions_count, sizeof *topic->partitions);
        if (topic->partitions == NULL)
            return false;
        for (int32_t k = 0; k < from->partitions_count; k++) {
            struct kafka_offset_fetch_response_partition *partition = &topic->partitions[k];
            *partition = kafka_offset_fetch_response_partition_default;
            partition->partition_index = from->partitions[k].partition_index;
            partition->committed_offset = from->partitions[k].committed_offset;
            partition->committed_leader_epoch = from->partitions[k].committed_leader_epoch;
            partition->metadata = from->partitions[k].metadata;
            partition->error_code = from->partitions[k].error_code;
            if (request->version < GROUP_ERROR_SINCE && group->error_code != KAFKA_ERROR_NONE)
                partition->error_code = group->error_code;
        }
    }
    return true;
}

static void finish(struct request *request)
{
    struct offset_fetch *state = request->state;
    struct kafka_offset_fetch_response *out = request_alloc(request, 1, sizeof *out);
    if (out)
        *out = kafka_offset_fetch_response_default;
    if (out && request->version >= GROUPS_SINCE) {
        out->groups = state->groups;
        out->groups_count = (int32_t)state->count;
    } else if (out == NULL || !single_fill(request, out)) {
        request_fail(request, "no memory");
        return;
    }
    request_respond(request, out);
}

const struct handler offset_fetch_handler = {
    .key = KAFKA_OFFSET_FETCH, .urgent = true, .start = start, .answer = answer, .finish = finish};
