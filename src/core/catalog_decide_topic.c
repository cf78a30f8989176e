/* Requests about topics. One that an AMQP client declares has the argument x-queue-type and is
 * refused in RabbitMQ's words; one that Kafka creates has not, and is refused in Kafka's. */
#include "core/catalog_decision.h"

#include <stdlib.h>
#include <string.h>

/* ---- Topics ---- */

static enum err check_topic_name(struct decision *decision, struct slice name)
{
    if (name.len == 0)
        return decision_refuse(decision, ERR_INVALID_NAME,
                               "Topic name is invalid: the empty string is not allowed");
    if (slice_equal(name, slice_of(".")) || slice_equal(name, slice_of("..")))
        return decision_refuse(decision, ERR_INVALID_NAME,
                               "Topic name is invalid: '%.*s' is not allowed", (int)name.len,
                               (const char *)name.data);
    if (name.len > 249)
        return decision_refuse(
            decision, ERR_INVALID_NAME,
            "Topic name is invalid: the length of '%.*s' is longer than the max allowed "
            "length 249",
            (int)name.len, (const char *)name.data);
    for (size_t i = 0; i < name.len; i++) {
        uint8_t c = name.data[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!letter && !(c >= '0' && c <= '9') && c != '.' && c != '_' && c != '-')
            return decision_refuse(
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
    return decision_refuse(decision, ERR_INVALID_CONFIG, "%s", text);
}

static enum err check_partitions(struct decision *decision, uint32_t partitions)
{
    if (partitions == 0 || partitions > INT32_MAX)
        return decision_refuse(decision, ERR_INVALID_PARTITIONS,
                               "Number of partitions was set to an invalid non-positive value.");
    if (partitions > CATALOG_PARTITIONS_MAX)
        return decision_refuse(decision, ERR_INVALID_PARTITIONS,
                               "Number of partitions must not be larger than %d.",
                               CATALOG_PARTITIONS_MAX);
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
        return decision_refuse(decision, ERR_INVALID, "invalid property '%s' for %s", wrong,
                               decision->subject);
    if (name_begins_amq(request->name))
        return decision_refuse_reserved(decision, "queue");
    return decision_check_queue_args(decision);
}

static enum err declare_stream_again(struct decision *decision, const struct topic *topic)
{
    decision->out->id = topic->id;
    decision->out->existed = true;
    if (args_find(topic->args, "x-queue-type") == NULL)
        return ERR_NONE; /* Kafka made it: there is nothing of AMQP's to compare */
    for (const char *const *name = queue_args_compared; *name != NULL; name++) {
        enum err err = decision_compare(decision, *name, topic->args);
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
        return type != NULL
                   ? decision_compare(decision, "x-queue-type", has->args)
                   : decision_refuse_type(decision, "the value 'stream' of type 'longstr'", "none");
    }
    if (queue)
        return decision_refuse(decision, ERR_EXISTS, "A queue named '%.*s' already exists.",
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

enum err decide_create_topic(struct decision *decision)
{
    const struct catalog_request *request = decision->request;
    const struct catalog *catalog = decision->catalog;
    bool stream = args_find(request->args, "x-queue-type") != NULL;
    decision_subject(decision, "queue", request->name);
    const struct topic *topic = catalog_topic(catalog, request->namespace_id, request->name);
    if (topic != NULL && stream)
        return declare_stream_again(decision, topic);
    if (topic != NULL) {
        decision->out->id = topic->id;
        decision->out->existed = true;
        return decision_refuse(decision, ERR_EXISTS, "Topic '%.*s' already exists.",
                               (int)request->name.len, (const char *)request->name.data);
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
    err = decision_emit(decision, &change, true);
    free(ids);
    return err;
}

static enum err refuse_no_topic(struct decision *decision)
{
    return decision_refuse(decision, ERR_NOT_FOUND,
                           "This server does not host this topic-partition.");
}

enum err decide_delete_topic(struct decision *decision)
{
    const struct catalog_request *request = decision->request;
    const struct topic *topic =
        catalog_topic(decision->catalog, request->namespace_id, request->name);
    if (topic == NULL)
        return refuse_no_topic(decision);
    decision->out->id = topic->id;
    struct change change = {.type = CHANGE_REMOVE_TOPIC, .id = topic->id};
    enum err err = decision_emit(decision, &change, true);
    return err != ERR_NONE ? err : decision_cascade(decision, topic->id, NULL);
}

enum err decide_grow_topic(struct decision *decision)
{
    const struct catalog_request *request = decision->request;
    const struct topic *topic =
        catalog_topic(decision->catalog, request->namespace_id, request->name);
    if (topic == NULL)
        return refuse_no_topic(decision);
    decision->out->id = topic->id;
    uint32_t has = topic->partition_count;
    if (request->partitions == has)
        return decision_refuse(decision, ERR_INVALID_PARTITIONS,
                               "Topic already has %u partition(s).", has);
    enum err err = check_partitions(decision, request->partitions);
    if (err != ERR_NONE)
        return err;
    if (request->partitions < has)
        return decision_refuse(
            decision, ERR_INVALID_PARTITIONS,
            "The topic %.*s currently has %u partition(s); %u would not be an increase.",
            (int)request->name.len, (const char *)request->name.data, has, request->partitions);
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
    err = decision_emit(decision, &change, true);
    free(ids);
    return err;
}

enum err decide_configure_topic(struct decision *decision)
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
    return decision_emit(decision, &change, true);
}
