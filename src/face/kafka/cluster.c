/* The cluster as clients see it: one node, which leads and coordinates everything. Its address is
 * the one that the client came to. */
#include "face/kafka/kafka.h"

enum {
    KEY_TYPE_GROUP = 0,
    KEY_TYPE_TRANSACTION = 1,
    ENDPOINT_BROKERS = 1,
    /* Bits of create, alter, describe, cluster action, describe and alter configs, idempotent
     * write: what may be done with the cluster. */
    CLUSTER_OPERATIONS = 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12,
};

struct slice cluster_id(struct request *request)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const uint8_t *id = conn_config(request->kafka->conn)->cluster_id;
    uint8_t *text = arena_alloc(&request->arena, CLUSTER_ID_CHARS);
    if (text == NULL)
        return (struct slice){0};
    uint32_t bits = 0;
    int held = 0;
    size_t at = 0;
    for (int i = 0; i < 16; i++) {
        bits = bits << 8 | id[i];
        for (held += 8; held >= 6; held -= 6)
            text[at++] = (uint8_t)alphabet[bits >> (held - 6) & 63];
    }
    text[at++] = (uint8_t)alphabet[bits << (6 - held) & 63];
    return slice_make(text, at);
}

static void describe_start(struct request *request, const void *message)
{
    const struct kafka_describe_cluster_request *in = message;
    struct kafka_describe_cluster_response *out = request_alloc(request, 1, sizeof *out);
    struct kafka_describe_cluster_response_broker *broker =
        request_alloc(request, 1, sizeof *broker);
    if (out == NULL || broker == NULL) {
        request_fail(request, "no memory");
        return;
    }
    *out = kafka_describe_cluster_response_default;
    out->endpoint_type = request->version >= 1 ? in->endpoint_type : ENDPOINT_BROKERS;
    out->cluster_id = cluster_id(request);
    if (out->endpoint_type != ENDPOINT_BROKERS) {
        out->error_code = KAFKA_ERROR_MISMATCHED_ENDPOINT_TYPE;
        out->error_message = slice_of("The request was sent to an endpoint of the wrong type.");
        request_respond(request, out);
        return;
    }
    uint16_t port;
    *broker = kafka_describe_cluster_response_broker_default;
    broker->broker_id = NODE_ID;
    broker->host = slice_of(conn_local(request->kafka->conn, &port));
    broker->port = port;
    out->controller_id = NODE_ID;
    out->brokers = broker;
    out->brokers_count = 1;
    out->cluster_authorized_operations =
        in->include_cluster_authorized_operations ? CLUSTER_OPERATIONS : NO_OPERATIONS;
    request_respond(request, out);
}

const struct handler describe_cluster_handler = {.key = KAFKA_DESCRIBE_CLUSTER,
                                                 .start = describe_start};

static void coordinator_fill(struct request *request, int8_t key_type, struct slice key,
                             struct kafka_find_coordinator_response_coordinator *out)
{
    *out = kafka_find_coordinator_response_coordinator_default;
    out->key = key;
    if (key_type != KEY_TYPE_GROUP && key_type != KEY_TYPE_TRANSACTION) {
        out->error_code = KAFKA_ERROR_INVALID_REQUEST;
        out->node_id = -1;
        out->port = -1;
        return;
    }
    uint16_t port;
    out->node_id = NODE_ID;
    out->host = slice_of(conn_local(request->kafka->conn, &port));
    out->port = port;
}

static void coordinator_start(struct request *request, const void *message)
{
    const struct kafka_find_coordinator_request *in = message;
    bool many = request->version >= 4;
    size_t count = many ? (size_t)in->coordinator_keys_count : 1;
    struct kafka_find_coordinator_response *out = request_alloc(request, 1, sizeof *out);
    struct kafka_find_coordinator_response_coordinator *coordinators =
        request_alloc(request, count, sizeof *coordinators);
    if (out == NULL || coordinators == NULL) {
        request_fail(request, "no memory");
        return;
    }
    *out = kafka_find_coordinator_response_default;
    for (size_t i = 0; i < count; i++)
        coordinator_fill(request, in->key_type, many ? in->coordinator_keys[i] : in->key,
                         &coordinators[i]);
    if (many) {
        out->coordinators = coordinators;
        out->coordinators_count = (int32_t)count;
    } else {
        out->error_code = coordinators->error_code;
        out->node_id = coordinators->node_id;
        out->host = coordinators->host;
        out->port = coordinators->port;
    }
    request_respond(request, out);
}

const struct handler find_coordinator_handler = {.key = KAFKA_FIND_COORDINATOR,
                                                 .start = coordinator_start};
