/* Looking at groups and deleting them: DescribeGroups, ListGroups, DeleteGroups. Each group is
 * asked in its own cell; for a list every cell is asked. */
#include "face/kafka/kafka.h"

#include <strings.h>

enum {
    NOT_FOUND_SINCE = 6, /* before, DescribeGroups shows an absent group as a dead one */
    FILTERS_MAX = 64,    /* there are not as many states and types */
    /* Bits of read, delete, describe. */
    GROUP_OPERATIONS = 1 << 3 | 1 << 6 | 1 << 8,
};

static void state_respond(struct request *request)
{
    request_respond(request, request->state);
}

static struct slice text_or_empty(struct slice text)
{
    return text.data ? text : slice_of("");
}

/* ---- DescribeGroups ---- */

static void describe_start(struct request *request, const void *message)
{
    const struct kafka_describe_groups_request *in = message;
    struct kafka_describe_groups_response *out = request_alloc(request, 1, sizeof *out);
    request->state = out;
    if (out)
        *out = kafka_describe_groups_response_default;
    size_t count = (size_t)in->groups_count;
    if (out == NULL || (out->groups = request_alloc(request, count, sizeof *out->groups)) == NULL) {
        request_fail(request, "no memory");
        return;
    }
    out->groups_count = in->groups_count;
    for (size_t i = 0; i < count; i++) {
        out->groups[i] = kafka_describe_groups_response_group_default;
        out->groups[i].group_id = in->groups[i];
        out->groups[i].authorized_operations =
            in->include_authorized_operations ? GROUP_OPERATIONS : NO_OPERATIONS;
    }
    for (size_t i = 0; i < count && request->stage == REQUEST_RUNNING; i++) {
        struct group_command command;
        if (group_begin(&command, GROUP_DESCRIBE, in->groups[i]))
            group_send(request, (uint32_t)i, &command);
        else
            request_fail(request, "no memory");
    }
}

static bool member_describe(struct request *request, const struct group_member *member,
                            struct kafka_describe_groups_response_member *out)
{
    *out = kafka_describe_groups_response_member_default;
    out->member_id = member->id;
    out->group_instance_id = member->instance;
    out->client_id = text_or_empty(member->client_id);
    out->client_host = text_or_empty(member->client_host);
    out->member_metadata = text_or_empty(member->metadata);
    out->member_assignment = text_or_empty(member->assignment);
    return request_copy(request, &out->member_id) &&
           request_copy(request, &out->group_instance_id) &&
           request_copy(request, &out->client_id) && request_copy(request, &out->client_host) &&
           request_copy(request, &out->member_metadata) &&
           request_copy(request, &out->member_assignment);
}

static bool group_describe(struct request *request, const struct group_description *group,
                           struct kafka_describe_groups_response_group *out)
{
    out->group_state = text_or_empty(group->state);
    out->protocol_type = text_or_empty(group->protocol_type);
    out->protocol_data = text_or_empty(group->protocol);
    out->members = request_alloc(request, group->member_count, sizeof *out->members);
    if (out->members == NULL || !request_copy(request, &out->group_state) ||
        !request_copy(request, &out->protocol_type) || !request_copy(request, &out->protocol_data))
        return false;
    for (uint32_t i = 0; i < group->member_count; i++)
        if (!member_describe(request, &group->members[i], &out->members[i]))
            return false;
    out->members_count = (int32_t)group->member_count;
    return true;
}

static void describe_answer(struct request *request, uint32_t index, const struct event *event)
{
    struct kafka_describe_groups_response *all = request->state;
    struct kafka_describe_groups_response_group *out = &all->groups[index];
    const struct group_answer *answer = group_answer_of(event);
    bool absent = event->err == ERR_GROUP_NOT_FOUND ||
                  (event->err == ERR_NONE && (answer == NULL || answer->group_count == 0));
    if (absent) {
        out->group_state = slice_of("Dead");
        if (request->version >= NOT_FOUND_SINCE) {
            out->error_code = KAFKA_ERROR_GROUP_ID_NOT_FOUND;
            out->error_message =
                request_text(request, "Group %.*s not found.", (int)out->group_id.len,
                             (const char *)out->group_id.data);
        }
    } else if (event->err != ERR_NONE) {
        out->error_code = err_kafka(event->err);
    } else if (!group_describe(request, &answer->groups[0], out)) {
        request_fail(request, "no memory");
    }
}

const struct handler describe_groups_handler = {.key = KAFKA_DESCRIBE_GROUPS,
                                                .start = describe_start,
                                                .answer = describe_answer,
                                                .finish = state_respond};

/* ---- ListGroups ---- */

struct group_list {
    struct kafka_list_groups_response response;
    const struct kafka_list_groups_request *in;
    uint32_t room;
};

static bool is_among(struct slice text, const struct slice *filter, int32_t count)
{
    if (count <= 0)
        return true;
    for (int32_t i = 0; i < count && i < FILTERS_MAX; i++)
        if (filter[i].len == text.len &&
            strncasecmp((const char *)filter[i].data, (const char *)text.data, text.len) == 0)
            return true;
    return false;
}

static void list_start(struct request *request, const void *message)
{
    struct group_list *list = request_alloc(request, 1, sizeof *list);
    request->state = list;
    if (list == NULL) {
        request_fail(request, "no memory");
        return;
    }
    list->in = message;
    list->response = kafka_list_groups_response_default;
    uint32_t cells = conn_cells(request->kafka->conn);
    for (uint32_t i = 0; i < cells && request->stage == REQUEST_RUNNING; i++) {
        struct group_command command;
        if (!group_begin(&command, GROUP_LIST, slice_of(""))) {
            request_fail(request, "no memory");
            return;
        }
        struct command out = {.type = COMMAND_GROUP, .object = i, .parts = command.parts};
        request_command(request, i, &out);
    }
}

static bool list_add(struct request *request, const struct group_description *group)
{
    struct group_list *list = request->state;
    struct slice type = slice_of("classic");
    if (!is_among(group->state, list->in->states_filter, list->in->states_filter_count) ||
        !is_among(type, list->in->types_filter, list->in->types_filter_count))
        return true;
    struct kafka_list_groups_response *out = &list->response;
    if ((uint32_t)out->groups_count == list->room) {
        uint32_t room = list->room ? list->room * 2 : 16;
        struct kafka_list_groups_response_group *groups =
            arena_array(&request->arena, room, sizeof *groups);
        if (groups == NULL)
            return false;
        if (list->room)
            memcpy(groups, out->groups, list->room * sizeof *groups);
        out->groups = groups;
        list->room = room;
    }
    struct kafka_list_groups_response_group *row = &out->groups[out->groups_count++];
    *row = kafka_list_groups_response_group_default;
    row->group_id = group->name;
    row->protocol_type = text_or_empty(group->protocol_type);
    row->group_state = text_or_empty(group->state);
    row->group_type = type;
    return request_copy(request, &row->group_id) && request_copy(request, &row->protocol_type) &&
           request_copy(request, &row->group_state);
}

static void list_answer(struct request *request, uint32_t index, const struct event *event)
{
    (void)index;
    struct group_list *list = request->state;
    const struct group_answer *answer = group_answer_of(event);
    if (event->err != ERR_NONE) {
        list->response.error_code = err_kafka(event->err);
        return;
    }
    for (uint32_t i = 0; answer && i < answer->group_count; i++)
        if (!list_add(request, &answer->groups[i])) {
            request_fail(request, "no memory");
            return;
        }
}

static void list_finish(struct request *request)
{
    struct group_list *list = request->state;
    request_respond(request, &list->response);
}

const struct handler list_groups_handler = {
    .key = KAFKA_LIST_GROUPS, .start = list_start, .answer = list_answer, .finish = list_finish};

/* ---- DeleteGroups ---- */

static void delete_start(struct request *request, const void *message)
{
    const struct kafka_delete_groups_request *in = message;
    struct kafka_delete_groups_response *out = request_alloc(request, 1, sizeof *out);
    request->state = out;
    if (out)
        *out = kafka_delete_groups_response_default;
    size_t count = (size_t)in->groups_names_count;
    if (out == NULL ||
        (out->results = request_alloc(request, count, sizeof *out->results)) == NULL) {
        request_fail(request, "no memory");
        return;
    }
    request_limit(request, TIMEOUT_MS_DEFAULT);
    out->results_count = in->groups_names_count;
    for (size_t i = 0; i < count; i++) {
        out->results[i] = kafka_delete_groups_response_result_default;
        out->results[i].group_id = in->groups_names[i];
    }
    for (size_t i = 0; i < count && request->stage == REQUEST_RUNNING; i++) {
        struct group_command command;
        if (!group_begin(&command, GROUP_DELETE, in->groups_names[i])) {
            request_fail(request, "no memory");
            return;
        }
        out->results[i].error_code = KAFKA_ERROR_COORDINATOR_NOT_AVAILABLE; /* if time is over */
        group_send(request, (uint32_t)i, &command);
    }
}

static void delete_answer(struct request *request, uint32_t index, const struct event *event)
{
    struct kafka_delete_groups_response *out = request->state;
    out->results[index].error_code = coordinator_code(event->err);
}

const struct handler delete_groups_handler = {.key = KAFKA_DELETE_GROUPS,
                                              .start = delete_start,
                                              .answer = delete_answer,
                                              .finish = state_respond};
