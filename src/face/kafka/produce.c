/* Produce: each partition's batch is checked here (shape, CRC, size) and handed on as it is; the
 * cell decides its offset and answers when it is safe, or the client is told that its time is over:
 * the batch may still become safe then, and is known again when the producer is idempotent and
 * sends it once more. The batch is not copied here, except that one of a topic with LogAppendTime
 * must be stamped, and not unpacked, except that each record of a compacted topic needs a key. */
#include "face/kafka/kafka.h"

#include "codec/kafka_inflate.h"

#include <stdlib.h>

enum {
    ACKS_NONE = 0,
    ACKS_LEADER = 1,
    ACKS_ALL = -1,
    IDS_SINCE = 13,
    INFLATED_BYTES_MAX = 64 << 20,
    INFLATE_CHUNK_BYTES = 64 << 10,
};

struct produce {
    struct kafka_produce_response response;
    struct kafka_produce_response_partition *partitions; /* of all topics, one after the other */
    uint32_t partition_count;
    int16_t acks;
};

static void partition_refuse(struct kafka_produce_response_partition *partition, int16_t code,
                             const char *why)
{
    partition->error_code = code;
    if (why)
        partition->error_message = slice_of(why);
}

/* Has every record a key? Also false when the records cannot be read. */
static bool records_have_keys(const struct kafka_batch *batch)
{
    struct arena arena;
    arena_init(&arena, INFLATE_CHUNK_BYTES, 2 * INFLATED_BYTES_MAX);
    struct slice plain;
    bool ok = kafka_inflate(batch, INFLATED_BYTES_MAX, &arena, &plain);
    if (ok) {
        struct kafka_records records;
        struct kafka_record record;
        kafka_records_init(&records, batch, plain);
        while (ok && kafka_records_next(&records, &record))
            ok = record.key.data != NULL;
        ok = ok && !records.reader.failed;
    }
    arena_done(&arena);
    return ok;
}

/* Why the batch may not be appended to the topic; NONE: it may. */
static int16_t batch_check(const struct request *request, const struct topic *topic,
                           struct slice records, struct kafka_batch *batch, const char **why)
{
    int64_t max_bytes = args_find(topic->args, "max.message.bytes")
                            ? topic->options.max_message_bytes
                            : conn_config(request->kafka->conn)->max_batch_bytes;
    if ((int64_t)records.len > max_bytes) {
        *why = "The request included a message larger than the max message size the server will "
               "accept.";
        return KAFKA_ERROR_MESSAGE_TOO_LARGE;
    }
    int16_t code = (int16_t)kafka_batch_accept(records, request->version, batch);
    if (code != KAFKA_ERROR_NONE)
        return code;
    if (batch->attributes & KAFKA_BATCH_TRANSACTIONAL) {
        *why = "Transactions are not supported.";
        return KAFKA_ERROR_INVALID_TXN_STATE;
    }
    if (topic->options.compact && !records_have_keys(batch)) {
        *why = "One or more records have been rejected: compacted topics cannot accept messages "
               "without a key.";
        return KAFKA_ERROR_INVALID_RECORD;
    }
    return KAFKA_ERROR_NONE;
}

static void batch_send(struct request *request, uint32_t index, uint64_t partition,
                       const struct kafka_batch *batch, struct slice data, int64_t max_time_ms)
{
    struct produce *produce = request->state;
    struct command command = {.type = COMMAND_APPEND, .object = partition, .data = data};
    command.append.producer_id = batch->producer_id;
    command.append.producer_epoch = batch->producer_epoch;
    command.append.base_sequence = batch->base_sequence;
    command.append.count = (uint32_t)batch->records_count;
    command.append.max_time_ms = max_time_ms;
    command.append.wait_commit = produce->acks != ACKS_NONE;
    command.append.silent = produce->acks == ACKS_NONE;
    if (command.append.silent) {
        request_tell(request, index, &command);
    } else {
        produce->partitions[index].error_code = KAFKA_ERROR_REQUEST_TIMED_OUT; /* if it will be */
        request_command(request, index, &command);
    }
    conn_count(request->kafka->conn, METRIC_MESSAGES_RECEIVED_KAFKA, batch->records_count);
}

/* False: no memory. */
static bool batch_send_stamped(struct request *request, uint32_t index, uint64_t partition,
                               const struct kafka_batch *batch)
{
    struct produce *produce = request->state;
    uint8_t *copy = malloc(batch->bytes.len);
    if (copy == NULL)
        return false;
    int64_t now_ms = conn_wall_ms(request->kafka->conn);
    memcpy(copy, batch->bytes.data, batch->bytes.len);
    kafka_batch_stamp(copy, batch->bytes.len, now_ms);
    produce->partitions[index].log_append_time_ms = now_ms;
    batch_send(request, index, partition, batch, slice_make(copy, batch->bytes.len), now_ms);
    free(copy);
    return true;
}

static void partition_produce(struct request *request, uint32_t index, const struct topic *topic,
                              struct slice records)
{
    struct produce *produce = request->state;
    struct kafka_produce_response_partition *partition = &produce->partitions[index];
    uint64_t id;
    if (!topic_partition_id(topic, partition->partition_index, &id)) {
        int16_t code = topic == NULL && request->version >= IDS_SINCE
                           ? KAFKA_ERROR_UNKNOWN_TOPIC_ID
                           : KAFKA_ERROR_UNKNOWN_TOPIC_OR_PARTITION;
        partition_refuse(partition, code, NULL);
        return;
    }
    struct kafka_batch batch;
    const char *why = NULL;
    int16_t code = batch_check(request, topic, records, &batch, &why);
    if (code != KAFKA_ERROR_NONE)
        partition_refuse(partition, code, why);
    else if (!topic->options.log_append_time)
        batch_send(request, index, id, &batch, batch.bytes, batch.max_timestamp_ms);
    else if (!batch_send_stamped(request, index, id, &batch))
        partition_refuse(partition, KAFKA_ERROR_UNKNOWN_SERVER_ERROR, NULL);
}

/* The response's topics and partitions, as yet without outcomes. False: no memory. */
static bool response_lay_out(struct request *request, const struct kafka_produce_request *in)
{
    struct produce *produce = request_alloc(request, 1, sizeof *produce);
    request->state = produce;
    size_t count = 0;
    for (int32_t i = 0; i < in->topics_count; i++)
        count += (size_t)in->topics[i].partitions_count;
    struct kafka_produce_response_topic *topics =
        arena_array(&request->arena, (size_t)in->topics_count, sizeof *topics);
    struct kafka_produce_response_partition *partitions =
        arena_array(&request->arena, count, sizeof *partitions);
    if (produce == NULL || topics == NULL || partitions == NULL)
        return false;
    produce->acks = in->acks;
    produce->partitions = partitions;
    produce->partition_count = (uint32_t)count;
    produce->response = kafka_produce_response_default;
    produce->response.topics = topics;
    produce->response.topics_count = in->topics_count;
    for (int32_t i = 0; i < in->topics_count; i++) {
        const struct kafka_produce_request_topic *asked = &in->topics[i];
        topics[i] = kafka_produce_response_topic_default;
        topics[i].name = asked->name;
        topics[i].topic_id = asked->topic_id;
        topics[i].partitions = partitions;
        topics[i].partitions_count = asked->partitions_count;
        if (!request_copy(request, &topics[i].name))
            return false;
        for (int32_t k = 0; k < asked->partitions_count; k++) {
            *partitions = kafka_produce_response_partition_default;
            partitions++->partition_index = asked->partitions[k].partition_index;
        }
    }
    return true;
}

static void start(struct request *request, const void *message)
{
    const struct kafka_produce_request *in = message;
    if (!response_lay_out(request, in)) {
        request_fail(request, "no memory");
        return;
    }
    struct produce *produce = request->state;
    if (in->acks != ACKS_NONE)
        request_limit(request, in->timeout_ms);
    bool acks_valid = in->acks == ACKS_NONE || in->acks == ACKS_LEADER || in->acks == ACKS_ALL;
    uint32_t index = 0;
    for (int32_t i = 0; i < in->topics_count; i++) {
        const struct kafka_produce_request_topic *asked = &in->topics[i];
        const struct topic *topic = request->version >= IDS_SINCE
                                        ? topic_identified(request, &asked->topic_id)
                                        : topic_named(request, asked->name);
        for (int32_t k = 0; k < asked->partitions_count; k++, index++) {
            if (acks_valid)
                partition_produce(request, index, topic, asked->partitions[k].records);
            else
                partition_refuse(&produce->partitions[index], KAFKA_ERROR_INVALID_REQUIRED_ACKS,
                                 NULL);
        }
    }
}

static void answer(struct request *request, uint32_t index, const struct event *event)
{
    struct produce *produce = request->state;
    struct kafka_produce_response_partition *partition = &produce->partitions[index];
    partition->error_code = err_kafka(event->err);
    partition->base_offset = (int64_t)event->value;
}

static void finish(struct request *request)
{
    struct produce *produce = request->state;
    uint32_t refused = 0;
    for (uint32_t i = 0; i < produce->partition_count; i++) {
        struct kafka_produce_response_partition *partition = &produce->partitions[i];
        if (partition->error_code == KAFKA_ERROR_NONE)
            continue;
        refused++;
        partition->base_offset = -1;
        partition->log_append_time_ms = -1;
    }
    conn_count(request->kafka->conn, METRIC_KAFKA_ERRORS_PRODUCE, refused);
    if (produce->acks != ACKS_NONE) {
        request_respond(request, &produce->response);
        return;
    }
    request_silent(request);
    /* Nobody would learn of the error: ending the connection makes the client look again. */
    if (refused) {
        conn_log(request->kafka->conn, "info",
                 "event=\"connection ended\" reason=\"an unacknowledged Produce failed\"");
        request->closes = true;
    }
}

const struct handler produce_handler = {.key = KAFKA_PRODUCE,
                                        .urgent = true,
                                        .borrows = true,
                                        .start = start,
                                        .answer = answer,
                                        .finish = finish};
