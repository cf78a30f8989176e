/* Membership of consumer groups: JoinGroup, SyncGroup, Heartbeat and LeaveGroup become a group's
 * command each, whose answer may wait for the other members (core/group.h). */
#include "face/kafka/kafka.h"

enum {
    MEMBER_ID_REQUIRED_SINCE = 4,
    LEAVE_MANY_SINCE = 3,
    NULL_PROTOCOL_SINCE = 7,
};

/* Ends a request for whose parts there is no memory. */
static void no_memory(struct request *request, struct group_command *command)
{
    group_abandon(command);
    request_fail(request, "no memory");
}

/* What a client gets where a version knows no null. */
static struct slice text_or_empty(struct slice text)
{
    return text.data ? text : slice_of("");
}

/* ---- JoinGroup ---- */

static bool join_fill(struct request *request, const struct kafka_join_group_request *in,
                      struct group_command *command)
{
    struct conn *conn = request->kafka->conn;
    struct group_request *group = command->group;
    uint16_t port;
    struct slice host = request_text(request, "/%s", conn_peer(conn, &port));
    group->member = in->member_id;
    group->instance = in->group_instance_id;
    group->client_id = text_or_empty(request->client_id);
    group->client_host = text_or_empty(host);
    group->protocol_type = in->protocol_type;
    group->session_timeout_ms = in->session_timeout_ms;
    group->rebalance_timeout_ms =
        request->version >= 1 ? in->rebalance_timeout_ms : in->session_timeout_ms;
    group->require_member_id =
        request->version >= MEMBER_ID_REQUIRED_SINCE && in->group_instance_id.data == NULL;
    group->random[0] = conn_random(conn);
    group->random[1] = conn_random(conn);
    uint32_t count = (uint32_t)in->protocols_count;
    struct group_protocol *protocols = group_array(command, count, sizeof *protocols);
    if (protocols == NULL || !group_copy(command, &group->member) ||
        !group_copy(command, &group->instance) || !group_copy(command, &group->client_id) ||
        !group_copy(command, &group->client_host) || !group_copy(command, &group->protocol_type))
        return false;
    group->protocols = protocols;
    group->protocol_count = count;
    for (uint32_t i = 0; i < count; i++) {
        protocols[i].name = in->protocols[i].name;
        protocols[i].metadata = in->protocols[i].metadata;
        if (!group_copy(command, &protocols[i].name) ||
            !group_copy(command, &protocols[i].metadata))
            return false;
    }
    return true;
}

static void join_start(struct request *request, const void *message)
{
    const struct kafka_join_group_request *in = message;
    struct kafka_join_group_response *out = request_alloc(request, 1, sizeof *out);
    struct group_command command;
    request->state = out;
    if (out == NULL || !group_begin(&command, GROUP_JOIN, in->group_id)) {
        request_fail(request, "no memory");
        return;
    }
    *out = kafka_join_group_response_default;
    out->member_id = in->member_id;
    out->generation_id = -1;
    if (request->version < NULL_PROTOCOL_SINCE)
        out->protocol_name = slice_of("");
    if (!join_fill(request, in, &command))
        no_memory(request, &command);
    else
        group_send(request, 0, &command);
}

static bool join_members(struct request *request, const struct group_answer *answer,
                         struct kafka_join_group_response *out)
{
    out->members = request_alloc(request, answer->member_count, sizeof *out->members);
    if (out->members == NULL)
        return false;
    for (uint32_t i = 0; i < answer->member_count; i++) {
        struct kafka_join_group_response_member *member = &out->members[i];
        *member = kafka_join_group_response_member_default;
        member->member_id = answer->members[i].id;
        member->group_instance_id = answer->members[i].instance;
        member->metadata = text_or_empty(answer->members[i].metadata);
        if (!request_copy(request, &member->member_id) ||
            !request_copy(request, &member->group_instance_id) ||
            !request_copy(request, &member->metadata))
            return false;
    }
    out->members_count = (int32_t)answer->member_count;
    return true;
}

static void join_answer(struct request *request, uint32_t index, const struct event *event)
{
    (void)index;
    struct kafka_join_group_response *out = request->state;
    const struct group_answer *answer = group_answer_of(event);
    out->error_code = err_kafka(event->err);
    if (answer == NULL)
        return;
    bool ok = true;
    if (answer->member.len) {
        out->member_id = answer->member;
        ok = request_copy(request, &out->member_id);
    }
    if (event->err == ERR_NONE) {
        out->generation_id = answer->generation;
        out->protocol_type = answer->protocol_type;
        out->protocol_name = text_or_empty(answer->protocol);
        out->leader = text_or_empty(answer->leader);
        out->skip_assignment = answer->skip_assignment;
        ok = ok && request_copy(request, &out->protocol_type) &&
             request_copy(request, &out->protocol_name) && request_copy(request, &out->leader) &&
             join_members(request, answer, out);
    }
    if (!ok)
        request_fail(request, "no memory");
}

static void state_respond(struct request *request)
{
    request_respond(request, request->state);
}

const struct handler join_group_handler = {.key = KAFKA_JOIN_GROUP,
                                           .urgent = true,
                                           .start = join_start,
                                           .answer = join_answer,
                                           .finish = state_respond};

/* ---- SyncGroup ---- */

static bool sync_fill(const struct kafka_sync_group_request *in, struct group_command *command)
{
    struct group_request *group = command->group;
    group->member = in->member_id;
    group->instance = in->group_instance_id;
    group->generation = in->generation_id;
    group->protocol_type = in->protocol_type;
    group->protocol_name = in->protocol_name;
    uint32_t count = (uint32_t)in->assignments_count;
    struct group_assignment *assignments = group_array(command, count, sizeof *assignments);
    if (assignments == NULL || !group_copy(command, &group->member) ||
        !group_copy(command, &group->instance) || !group_copy(command, &group->protocol_type) ||
        !group_copy(command, &group->protocol_name))
        return false;
    group->assignments = assignments;
    group->assignment_count = count;
    for (uint32_t i = 0; i < count; i++) {
        assignments[i].member = in->assignments[i].member_id;
        assignments[i].bytes = in->assignments[i].assignment;
        if (!group_copy(command, &assignments[i].member) ||
            !group_copy(command, &assignments[i].bytes))
            return false;
    }
    return true;
}

static void sync_start(struct request *request, const void *message)
{
    const struct kafka_sync_group_request *in = message;
    struct kafka_sync_group_response *out = request_alloc(request, 1, sizeof *out);
    struct group_command command;
    request->state = out;
    if (out == NULL || !group_begin(&command, GROUP_SYNC, in->group_id)) {
        request_fail(request, "no memory");
        return;
    }
    *out = kafka_sync_group_response_default;
    out->assignment = slice_of("");
    if (!sync_fill(in, &command))
        no_memory(request, &command);
    else
        group_send(request, 0, &command);
}

static void sync_answer(struct request *request, uint32_t index, const struct event *event)
{
    (void)index;
    struct kafka_sync_group_response *out = request->state;
    const struct group_answer *answer = group_answer_of(event);
    out->error_code = err_kafka(event->err);
    if (answer == NULL || event->err != ERR_NONE)
        return;
    out->protocol_type = answer->protocol_type;
    out->protocol_name = answer->protocol;
    out->assignment = text_or_empty(answer->assignment);
    if (!request_copy(request, &out->protocol_type) ||
        !request_copy(request, &out->protocol_name) || !request_copy(request, &out->assignment))
        request_fail(request, "no memory");
}

const struct handler sync_group_handler = {.key = KAFKA_SYNC_GROUP,
                                           .urgent = true,
                                           .start = sync_start,
                                           .answer = sync_answer,
                                           .finish = state_respond};

/* ---- Heartbeat ---- */

static void heartbeat_start(struct request *request, const void *message)
{
    const struct kafka_heartbeat_request *in = message;
    struct kafka_heartbeat_response *out = request_alloc(request, 1, sizeof *out);
    struct group_command command;
    request->state = out;
    if (out == NULL || !group_begin(&command, GROUP_HEARTBEAT, in->group_id)) {
        request_fail(request, "no memory");
        return;
    }
    *out = kafka_heartbeat_response_default;
    command.group->member = in->member_id;
    command.group->instance = in->group_instance_id;
    command.group->generation = in->generation_id;
    if (!group_copy(&command, &command.group->member) ||
        !group_copy(&command, &command.group->instance))
        no_memory(request, &command);
    else
        group_send(request, 0, &command);
}

static void heartbeat_answer(struct request *request, uint32_t index, const struct event *event)
{
    (void)index;
    struct kafka_heartbeat_response *out = request->state;
    out->error_code = err_kafka(event->err);
}

const struct handler heartbeat_handler = {.key = KAFKA_HEARTBEAT,
                                          .urgent = true,
                                          .start = heartbeat_start,
                                          .answer = heartbeat_answer,
                                          .finish = state_respond};

/* ---- LeaveGroup ---- */

static bool leave_fill(struct request *request, const struct kafka_leave_group_request *in,
                       struct group_command *command, struct kafka_leave_group_response *out)
{
    bool many = request->version >= LEAVE_MANY_SINCE;
    uint32_t count = many ? (uint32_t)in->members_count : 1;
    struct group_leaver *leavers = group_array(command, count, sizeof *leavers);
    if (leavers == NULL)
        return false;
    if (many) {
        out->members = request_alloc(request, count, sizeof *out->members);
        if (out->members == NULL)
            return false;
        out->members_count = in->members_count;
    }
    for (uint32_t i = 0; i < count; i++) {
        leavers[i].member = many ? in->members[i].member_id : in->member_id;
        if (many) {
            leavers[i].instance = in->members[i].group_instance_id;
            out->members[i] = kafka_leave_group_response_member_default;
            out->members[i].member_id = in->members[i].member_id;
            out->members[i].group_instance_id = in->members[i].group_instance_id;
        }
        if (!group_copy(command, &leavers[i].member) || !group_copy(command, &leavers[i].instance))
            return false;
    }
    command->group->leavers = leavers;
    command->group->leaver_count = count;
    return true;
}

static void leave_start(struct request *request, const void *message)
{
    const struct kafka_leave_group_request *in = message;
    struct kafka_leave_group_response *out = request_alloc(request, 1, sizeof *out);
    struct group_command command;
    request->state = out;
    if (out == NULL || !group_begin(&command, GROUP_LEAVE, in->group_id)) {
        request_fail(request, "no memory");
        return;
    }
    *out = kafka_leave_group_response_default;
    if (!leave_fill(request, in, &command, out))
        no_memory(request, &command);
    else
        group_send(request, 0, &command);
}

static void leave_answer(struct request *request, uint32_t index, const struct event *event)
{
    (void)index;
    struct kafka_leave_group_response *out = request->state;
    const struct group_answer *answer = group_answer_of(event);
    out->error_code = err_kafka(event->err);
    if (answer == NULL)
        return;
    if (request->version < LEAVE_MANY_SINCE) {
        if (event->err == ERR_NONE && answer->leaver_count == 1)
            out->error_code = err_kafka(answer->leavers[0].err);
        return;
    }
    for (uint32_t i = 0; i < answer->leaver_count && i < (uint32_t)out->members_count; i++)
        out->members[i].error_code = err_kafka(answer->leavers[i].err);
}

const struct handler leave_group_handler = {.key = KAFKA_LEAVE_GROUP,
                                            .urgent = true,
                                            .start = leave_start,
                                            .answer = leave_answer,
                                            .finish = state_respond};
