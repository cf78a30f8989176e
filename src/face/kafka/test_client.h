/* A Kafka client for the tests of the face: encodes requests, decodes responses, and the few calls
 * that most tests begin with. To be included by one source file of a program. */
#ifndef WEIR_FACE_KAFKA_TEST_CLIENT_H
#define WEIR_FACE_KAFKA_TEST_CLIENT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "codec/kafka_header.h"
#include "face/kafka/fake_conn.h"

enum { BATCH_BYTES_MAX = 4096 };

static struct arena arena; /* of what a test decodes */

static inline int setup(void **state)
{
    arena_init(&arena, 4096, 16 << 20);
    *state = fake_open(&face_kafka);
    return 0;
}

static inline int teardown(void **state)
{
    fake_close(*state);
    arena_done(&arena);
    return 0;
}

static inline const struct kafka_api *api_of(int16_t key)
{
    const struct kafka_api *api = kafka_api_find(key);
    assert_non_null(api);
    return api;
}

static inline void send_request(struct conn *conn, int16_t key, int16_t version, int32_t id,
                                const void *message)
{
    const struct kafka_message *schema = &api_of(key)->request;
    struct kafka_request_header header = {key, version, id, slice_of("test")};
    size_t room = 64 + kafka_message_size(schema, version, message);
    uint8_t *bytes = malloc(room);
    struct writer writer = writer_over(bytes, room);
    writer_u32(&writer, 0);
    kafka_request_header_encode(&writer, &header);
    kafka_message_encode(&writer, schema, version, message);
    assert_false(writer.failed);
    size_t len = (size_t)(writer.at - bytes);
    be32_put(bytes, (uint32_t)len - 4);
    fake_input(conn, bytes, len);
    free(bytes);
}

/* How many whole responses have come. */
static inline int responses(const struct conn *conn)
{
    int count = 0;
    for (size_t at = 0; at < conn->output_len; at += 4 + (size_t)be32_get(conn->output + at))
        count++;
    return count;
}

/* Takes the next response off the output and decodes it; it must be that one. */
static inline void *receive(struct conn *conn, int16_t key, int16_t version, int32_t id)
{
    assert_true(conn->output_len >= 8);
    size_t len = be32_get(conn->output);
    assert_true(conn->output_len >= len + 4);
    uint8_t *copy = arena_alloc(&arena, len);
    memcpy(copy, conn->output + 4, len);
    conn->output_len -= len + 4;
    memmove(conn->output, conn->output + 4 + len, conn->output_len);
    const struct kafka_message *schema = &api_of(key)->response;
    struct reader reader = reader_over(slice_make(copy, len));
    int32_t got;
    void *out = arena_alloc(&arena, schema->schema->size);
    assert_true(kafka_response_header_decode(&reader, key, version, &got));
    assert_int_equal(got, id);
    assert_true(kafka_message_decode(&reader, schema, version, &arena, out));
    assert_int_equal(reader_left(&reader), 0);
    return out;
}

static inline void *call(struct conn *conn, int16_t key, int16_t version, const void *message)
{
    send_request(conn, key, version, 7, message);
    return receive(conn, key, version, 7);
}

static inline void topic_create(struct conn *conn, const char *name, int32_t partitions)
{
    struct kafka_create_topics_request_topic topic = kafka_create_topics_request_topic_default;
    struct kafka_create_topics_request in = kafka_create_topics_request_default;
    topic.name = slice_of(name);
    topic.num_partitions = partitions;
    topic.replication_factor = 1;
    in.topics = &topic;
    in.topics_count = 1;
    const struct kafka_create_topics_response *out = call(conn, KAFKA_CREATE_TOPICS, 7, &in);
    assert_int_equal(out->topics[0].error_code, 0);
}

static inline struct slice batch_make(uint8_t *memory, int64_t first_ms, const char *const *values,
                                      int count)
{
    struct kafka_batch_builder builder;
    kafka_batch_begin(&builder, memory, BATCH_BYTES_MAX);
    for (int i = 0; i < count; i++)
        assert_true(kafka_batch_add(&builder, first_ms + i, (struct slice){0}, slice_of(values[i]),
                                    NULL, 0));
    return kafka_batch_end(&builder);
}

struct produce_call {
    struct kafka_produce_request in;
    struct kafka_produce_request_topic topic;
    struct kafka_produce_request_partition partition;
};

static inline void produce_fill(struct produce_call *produce, const char *topic, int32_t partition,
                                int16_t acks, struct slice batch)
{
    produce->in = kafka_produce_request_default;
    produce->topic = kafka_produce_request_topic_default;
    produce->partition = kafka_produce_request_partition_default;
    produce->in.acks = acks;
    produce->in.topics = &produce->topic;
    produce->in.topics_count = 1;
    produce->topic.name = slice_of(topic);
    produce->topic.partitions = &produce->partition;
    produce->topic.partitions_count = 1;
    produce->partition.partition_index = partition;
    produce->partition.records = batch;
}

static inline const struct kafka_produce_response_partition *
produce_one(struct conn *conn, const char *topic, int32_t partition, struct slice batch)
{
    struct produce_call produce;
    produce_fill(&produce, topic, partition, -1, batch);
    const struct kafka_produce_response *out = call(conn, KAFKA_PRODUCE, 9, &produce.in);
    assert_int_equal(out->topics_count, 1);
    return &out->topics[0].partitions[0];
}

static inline int64_t produce_values(struct conn *conn, const char *topic, int64_t first_ms,
                                     const char *const *values, int count)
{
    uint8_t memory[BATCH_BYTES_MAX];
    const struct kafka_produce_response_partition *out =
        produce_one(conn, topic, 0, batch_make(memory, first_ms, values, count));
    assert_int_equal(out->error_code, 0);
    return out->base_offset;
}

/* The batch comes by another connection. */
static inline void others_append(struct conn *conn, const char *topic, int32_t index,
                                 struct slice batch)
{
    struct command command = {.type = COMMAND_APPEND, .data = batch};
    command.append.count = 1;
    command.append.silent = true;
    assert_true(topic_partition_id(catalog_topic(conn->catalog, 0, slice_of(topic)), index,
                                   &command.object));
    conn_command(conn, &command);
    fake_run(conn);
}

struct fetch_call {
    struct kafka_fetch_request in;
    struct kafka_fetch_request_topic topic;
    struct kafka_fetch_request_partition partitions[2];
};

static inline void fetch_fill(struct fetch_call *fetch, const char *topic, int32_t partitions,
                              int64_t offset)
{
    fetch->in = kafka_fetch_request_default;
    fetch->topic = kafka_fetch_request_topic_default;
    fetch->in.max_wait_ms = 500;
    fetch->in.min_bytes = 1;
    fetch->in.topics = &fetch->topic;
    fetch->in.topics_count = 1;
    fetch->topic.name = slice_of(topic);
    fetch->topic.partitions = fetch->partitions;
    fetch->topic.partitions_count = partitions;
    for (int32_t i = 0; i < partitions; i++) {
        fetch->partitions[i] = kafka_fetch_request_partition_default;
        fetch->partitions[i].partition_index = i;
        fetch->partitions[i].fetch_offset = offset;
        fetch->partitions[i].partition_max_bytes = 1 << 20;
    }
}

/* The records of a run of batches: their offsets and values, checked one by one. */
static inline void records_expect(struct slice bytes, int64_t offset, const char *const *values,
                                  int count)
{
    struct reader reader = reader_over(bytes);
    struct kafka_batch batch;
    int at = 0;
    while (kafka_batch_next(&reader, &batch)) {
        assert_true(kafka_batch_intact(&batch));
        struct kafka_records records;
        struct kafka_record record;
        kafka_records_init(&records, &batch, batch.records);
        for (; kafka_records_next(&records, &record); at++) {
            assert_true(at < count);
            assert_int_equal(record.offset, offset + at);
            assert_true(slice_is(record.value, values[at]));
        }
        assert_false(records.reader.failed);
    }
    assert_false(reader.failed);
    assert_int_equal(at, count);
}

static inline const struct kafka_metadata_response_topic *
metadata_one(struct conn *conn, const char *name, bool create)
{
    struct kafka_metadata_request_topic topic = kafka_metadata_request_topic_default;
    struct kafka_metadata_request in = kafka_metadata_request_default;
    topic.name = slice_of(name);
    in.topics = &topic;
    in.topics_count = 1;
    in.allow_auto_topic_creation = create;
    const struct kafka_metadata_response *out = call(conn, KAFKA_METADATA, 12, &in);
    assert_int_equal(out->brokers_count, 1);
    assert_int_equal(out->brokers[0].port, 9092);
    assert_int_equal(out->cluster_id.len, CLUSTER_ID_CHARS);
    assert_int_equal(out->topics_count, 1);
    return &out->topics[0];
}

#endif
