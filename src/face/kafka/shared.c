/* What the handlers share: the table of them, topics and partitions by name or id, and commands
 * whose request travels in an arena of its own. */
#include "face/kafka/kafka.h"

const struct handler *const kafka_handlers[KAFKA_APIS_COUNT] = {
    [KAFKA_PRODUCE_INDEX] = &produce_handler,
    [KAFKA_FETCH_INDEX] = &fetch_handler,
    [KAFKA_LIST_OFFSETS_INDEX] = &list_offsets_handler,
    [KAFKA_METADATA_INDEX] = &metadata_handler,
    [KAFKA_OFFSET_COMMIT_INDEX] = &offset_commit_handler,
    [KAFKA_OFFSET_FETCH_INDEX] = &offset_fetch_handler,
    [KAFKA_FIND_COORDINATOR_INDEX] = &find_coordinator_handler,
    [KAFKA_JOIN_GROUP_INDEX] = &join_group_handler,
    [KAFKA_HEARTBEAT_INDEX] = &heartbeat_handler,
    [KAFKA_LEAVE_GROUP_INDEX] = &leave_group_handler,
    [KAFKA_SYNC_GROUP_INDEX] = &sync_group_handler,
    [KAFKA_DESCRIBE_GROUPS_INDEX] = &describe_groups_handler,
    [KAFKA_LIST_GROUPS_INDEX] = &list_groups_handler,
    [KAFKA_SASL_HANDSHAKE_INDEX] = &sasl_handshake_handler,
    [KAFKA_API_VERSIONS_INDEX] = &api_versions_handler,
    [KAFKA_CREATE_TOPICS_INDEX] = &create_topics_handler,
    [KAFKA_DELETE_TOPICS_INDEX] = &delete_topics_handler,
    [KAFKA_DELETE_RECORDS_INDEX] = &delete_records_handler,
    [KAFKA_INIT_PRODUCER_ID_INDEX] = &init_producer_id_handler,
    [KAFKA_OFFSET_FOR_LEADER_EPOCH_INDEX] = &offset_for_leader_epoch_handler,
    [KAFKA_DESCRIBE_CONFIGS_INDEX] = &describe_configs_handler,
    [KAFKA_ALTER_CONFIGS_INDEX] = &alter_configs_handler,
    [KAFKA_SASL_AUTHENTICATE_INDEX] = &sasl_authenticate_handler,
    [KAFKA_CREATE_PARTITIONS_INDEX] = &create_partitions_handler,
    [KAFKA_DELETE_GROUPS_INDEX] = &delete_groups_handler,
    [KAFKA_INCREMENTAL_ALTER_CONFIGS_INDEX] = &incremental_alter_configs_handler,
    [KAFKA_OFFSET_DELETE_INDEX] = &offset_delete_handler,
    [KAFKA_DESCRIBE_CLUSTER_INDEX] = &describe_cluster_handler,
};

enum metric request_metric(int16_t key)
{
    switch (key) {
    case KAFKA_PRODUCE:
        return METRIC_KAFKA_REQUESTS_PRODUCE;
    case KAFKA_FETCH:
        return METRIC_KAFKA_REQUESTS_FETCH;
    case KAFKA_LIST_OFFSETS:
    case KAFKA_OFFSET_FOR_LEADER_EPOCH:
        return METRIC_KAFKA_REQUESTS_OFFSETS;
    case KAFKA_METADATA:
    case KAFKA_FIND_COORDINATOR:
    case KAFKA_DESCRIBE_CLUSTER:
        return METRIC_KAFKA_REQUESTS_METADATA;
    case KAFKA_JOIN_GROUP:
    case KAFKA_SYNC_GROUP:
    case KAFKA_HEARTBEAT:
    case KAFKA_LEAVE_GROUP:
    case KAFKA_OFFSET_COMMIT:
    case KAFKA_OFFSET_FETCH:
        return METRIC_KAFKA_REQUESTS_GROUPS;
    case KAFKA_API_VERSIONS:
    case KAFKA_SASL_HANDSHAKE:
    case KAFKA_SASL_AUTHENTICATE:
    case KAFKA_INIT_PRODUCER_ID:
        return METRIC_KAFKA_REQUESTS_SESSION;
    default: /* what changes or describes topics, configurations and groups */
        return METRIC_KAFKA_REQUESTS_ADMIN;
    }
}

enum { NAMESPACE = 0, TOPIC_NAME_BYTES_MAX = 249 };

const struct topic *topic_named(const struct request *request, struct slice name)
{
    return catalog_topic(conn_catalog(request->kafka->conn), NAMESPACE, name);
}

const struct topic *topic_identified(const struct request *request, const struct kafka_uuid *id)
{
    if (uuid_is_zero(id))
        return NULL;
    const struct topic *topic =
        catalog_topic_by_uuid(conn_catalog(request->kafka->conn), id->bytes);
    return topic && topic->namespace_id == NAMESPACE ? topic : NULL;
}

bool topic_partition_id(const struct topic *topic, int32_t index, uint64_t *id)
{
    if (topic == NULL || index < 0 || (uint32_t)index >= topic->partition_count)
        return false;
    *id = topic->partitions[index];
    return true;
}

struct kafka_uuid topic_uuid(const struct topic *topic)
{
    struct kafka_uuid uuid;
    memcpy(uuid.bytes, topic->uuid, sizeof uuid.bytes);
    return uuid;
}

bool topic_name_valid(struct slice name)
{
    if (name.len == 0 || name.len > TOPIC_NAME_BYTES_MAX || slice_is(name, ".") ||
        slice_is(name, ".."))
        return false;
    for (size_t i = 0; i < name.len; i++) {
        uint8_t c = name.data[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     c == '.' || c == '_' || c == '-';
        if (!plain)
            return false;
    }
    return true;
}

bool uuid_is_zero(const struct kafka_uuid *id)
{
    static const struct kafka_uuid zero;
    return memcmp(id, &zero, sizeof zero) == 0;
}

int16_t epoch_check(int32_t current_leader_epoch)
{
    if (current_leader_epoch > LEADER_EPOCH)
        return KAFKA_ERROR_UNKNOWN_LEADER_EPOCH;
    if (current_leader_epoch < LEADER_EPOCH && current_leader_epoch != -1)
        return KAFKA_ERROR_FENCED_LEADER_EPOCH;
    return KAFKA_ERROR_NONE;
}

int16_t coordinator_code(enum err err)
{
    return err == ERR_DISK_FULL || err == ERR_IO ? KAFKA_ERROR_COORDINATOR_NOT_AVAILABLE
                                                 : err_kafka(err);
}

bool slice_is(struct slice slice, const char *text)
{
    return slice_equal(slice, slice_of(text));
}

/* ---- Commands with parts ---- */

bool group_begin(struct group_command *command, enum group_op op, struct slice group)
{
    command->parts = parts_create(GROUP_PARTS_BYTES_MAX);
    if (command->parts == NULL)
        return false;
    command->group = arena_alloc(&command->parts->arena, sizeof *command->group);
    if (command->group == NULL) {
        group_abandon(command);
        return false;
    }
    *command->group = (struct group_request){.op = op, .group = group, .generation = -1};
    command->parts->root = command->group;
    if (!group_copy(command, &command->group->group)) {
        group_abandon(command);
        return false;
    }
    return true;
}

static bool parts_copy(struct parts *parts, struct slice *slice)
{
    if (slice->data == NULL)
        return true;
    uint8_t *copy = arena_alloc(&parts->arena, slice->len);
    if (copy == NULL)
        return false;
    if (slice->len)
        memcpy(copy, slice->data, slice->len);
    slice->data = copy;
    return true;
}

bool group_copy(struct group_command *command, struct slice *slice)
{
    return parts_copy(command->parts, slice);
}

void *group_array(struct group_command *command, uint32_t count, size_t size)
{
    void *memory = arena_array(&command->parts->arena, count, size);
    if (memory)
        memset(memory, 0, count * size);
    return memory;
}

void group_abandon(struct group_command *command)
{
    parts_destroy(command->parts);
    command->parts = NULL;
}

void group_send(struct request *request, uint32_t index, struct group_command *command)
{
    struct command out = {
        .type = COMMAND_GROUP,
        .object = group_object(command->group->group),
        .parts = command->parts,
    };
    request_command(request, index, &out);
}

const struct group_answer *group_answer_of(const struct event *event)
{
    return event->parts ? event->parts->root : NULL;
}

bool catalog_begin(struct catalog_command *command, enum catalog_op op, struct slice name)
{
    command->parts = parts_create(GROUP_PARTS_BYTES_MAX);
    if (command->parts == NULL)
        return false;
    command->catalog = arena_alloc(&command->parts->arena, sizeof *command->catalog);
    if (command->catalog == NULL || !parts_copy(command->parts, &name)) {
        parts_destroy(command->parts);
        command->parts = NULL;
        return false;
    }
    *command->catalog = (struct catalog_request){
        .op = op, .namespace_id = NAMESPACE, .name = name, .durable = true};
    command->parts->root = command->catalog;
    return true;
}

bool catalog_copy(struct catalog_command *command, struct slice *slice)
{
    return parts_copy(command->parts, slice);
}

void catalog_send(struct request *request, uint32_t index, struct catalog_command *command)
{
    struct command out = {.type = COMMAND_CATALOG, .parts = command->parts};
    request_command(request, index, &out);
}
