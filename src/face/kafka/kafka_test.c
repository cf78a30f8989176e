/* The Kafka face, driven by encoded requests through a connection of plain memory (fake_conn.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "codec/kafka_header.h"
#include "face/kafka/fake_conn.h"

enum { BATCH_BYTES_MAX = 4096 };

static struct arena arena; /* of what a test decodes */

static int setup(void **state)
{
    arena_init(&arena, 4096, 16 << 20);
    *state = fake_open(&face_kafka);
    return 0;
}

static int teardown(void **state)
{
    fake_close(*state);
    arena_done(&arena);
    return 0;
}

/* ---- A client ---- */

static const struct kafka_api *api_of(int16_t key)
{
    const struct kafka_api *api = kafka_api_find(key);
    assert_non_null(api);
    return api;
}

static void send_request(struct conn *conn, int16_t key, int16_t version, int32_t id,
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
static int responses(const struct conn *conn)
{
    int count = 0;
    for (size_t at = 0; at < conn->output_len; at += 4 + (size_t)be32_get(conn->output + at))
        count++;
    return count;
}

/* Takes the next response off the output and decodes it; it must be that one. */
static void *receive(struct conn *conn, int16_t key, int16_t version, int32_t id)
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

static void *call(struct conn *conn, int16_t key, int16_t version, const void *message)
{
    send_request(conn, key, version, 7, message);
    return receive(conn, key, version, 7);
}

static void topic_create(struct conn *conn, const char *name, int32_t partitions)
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

static struct slice batch_make(uint8_t *memory, int64_t first_ms, const char *const *values,
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

static void produce_fill(struct produce_call *produce, const char *topic, int32_t partition,
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

static const struct kafka_produce_response_partition *
produce_one(struct conn *conn, const char *topic, int32_t partition, struct slice batch)
{
    struct produce_call produce;
    produce_fill(&produce, topic, partition, -1, batch);
    const struct kafka_produce_response *out = call(conn, KAFKA_PRODUCE, 9, &produce.in);
    assert_int_equal(out->topics_count, 1);
    return &out->topics[0].partitions[0];
}

static int64_t produce_values(struct conn *conn, const char *topic, int64_t first_ms,
                              const char *const *values, int count)
{
    uint8_t memory[BATCH_BYTES_MAX];
    const struct kafka_produce_response_partition *out =
        produce_one(conn, topic, 0, batch_make(memory, first_ms, values, count));
    assert_int_equal(out->error_code, 0);
    return out->base_offset;
}

struct fetch_call {
    struct kafka_fetch_request in;
    struct kafka_fetch_request_topic topic;
    struct kafka_fetch_request_partition partitions[2];
};

static void fetch_fill(struct fetch_call *fetch, const char *topic, int32_t partitions,
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
static void records_expect(struct slice bytes, int64_t offset, const char *const *values, int count)
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

/* ---- Framing and versions ---- */

static void versions_of_the_future_are_answered_in_version_0(void **state)
{
    struct conn *conn = *state;
    const uint8_t request[] = {0, 0, 0, 17,  0,   18,  0,   99, 0,   0,  0,
                               5, 0, 4, 't', 'e', 's', 't', 0,  'x', 'y'};
    fake_input(conn, request, sizeof request);
    const struct kafka_api_versions_response *out = receive(conn, KAFKA_API_VERSIONS, 0, 5);
    assert_int_equal(out->error_code, KAFKA_ERROR_UNSUPPORTED_VERSION);
    assert_int_equal(out->api_versions_count, 1);
    assert_int_equal(out->api_versions[0].api_key, KAFKA_API_VERSIONS);
    assert_int_equal(out->api_versions[0].max_version, 4);
    assert_false(conn->closed);
}

static void produce_is_offered_from_version_0(void **state)
{
    struct kafka_api_versions_request in = kafka_api_versions_request_default;
    in.client_software_name = slice_of("a-client");
    in.client_software_version = slice_of("1.0");
    const struct kafka_api_versions_response *out = call(*state, KAFKA_API_VERSIONS, 4, &in);
    assert_int_equal(out->error_code, 0);
    assert_int_equal(out->api_versions_count, KAFKA_APIS_COUNT);
    assert_int_equal(out->api_versions[0].api_key, KAFKA_PRODUCE);
    assert_int_equal(out->api_versions[0].min_version, 0);
    assert_int_equal(out->api_versions[0].max_version, 13);
}

static void a_client_must_say_its_name_in_plain_letters(void **state)
{
    struct kafka_api_versions_request in = kafka_api_versions_request_default;
    in.client_software_name = slice_of("-bad");
    in.client_software_version = slice_of("1.0");
    const struct kafka_api_versions_response *out = call(*state, KAFKA_API_VERSIONS, 3, &in);
    assert_int_equal(out->error_code, KAFKA_ERROR_INVALID_REQUEST);
}

static void garbage_ends_the_connection(void **state)
{
    struct conn *conn = *state;
    fake_input(conn, "GET / HTTP/1.1\r\n\r\n", 18);
    assert_true(conn->closed);
    assert_int_equal(conn->output_len, 0);
}

static void an_unknown_request_ends_the_connection(void **state)
{
    struct conn *conn = *state;
    const uint8_t request[] = {0, 0, 0, 10, 3, 231, 0, 0, 0, 0, 0, 5, 255, 255};
    fake_input(conn, request, sizeof request);
    assert_true(conn->closed);
}

static void a_version_that_is_not_served_ends_the_connection(void **state)
{
    struct conn *conn = *state;
    const uint8_t request[] = {0, 0, 0, 10, 0, 0, 0, 2, 0, 0, 0, 5, 255, 255};
    fake_input(conn, request, sizeof request);
    assert_true(conn->closed);
}

static void a_request_may_come_byte_by_byte(void **state)
{
    struct conn *conn = *state;
    const uint8_t request[] = {0, 0, 0, 14, 0, 18, 0, 0, 0, 0, 0, 5, 0, 4, 't', 'e', 's', 't'};
    for (size_t i = 0; i < sizeof request; i++) {
        assert_int_equal(conn->output_len, 0);
        fake_input(conn, request + i, 1);
    }
    receive(conn, KAFKA_API_VERSIONS, 0, 5);
}

/* ---- Order ---- */

static void responses_leave_in_the_order_of_the_requests(void **state)
{
    struct conn *conn = *state;
    topic_create(conn, "t", 1);
    struct fetch_call fetch;
    fetch_fill(&fetch, "t", 1, 0);
    send_request(conn, KAFKA_FETCH, 12, 1, &fetch.in);
    struct kafka_metadata_request metadata = kafka_metadata_request_default;
    metadata.topics_count = -1;
    send_request(conn, KAFKA_METADATA, 9, 2, &metadata);
    assert_int_equal(responses(conn), 0);
    fake_time(conn, 500);
    assert_int_equal(responses(conn), 2);
    receive(conn, KAFKA_FETCH, 12, 1);
    receive(conn, KAFKA_METADATA, 9, 2);
}

static void several_produces_may_be_under_way(void **state)
{
    struct conn *conn = *state;
    topic_create(conn, "t", 1);
    const char *values[] = {"a", "b"};
    uint8_t memory[BATCH_BYTES_MAX];
    struct produce_call produce;
    produce_fill(&produce, "t", 0, -1, batch_make(memory, 5, values, 2));
    for (int32_t i = 0; i < 10; i++)
        send_request(conn, KAFKA_PRODUCE, 9, i, &produce.in);
    for (int32_t i = 0; i < 10; i++) {
        const struct kafka_produce_response *out = receive(conn, KAFKA_PRODUCE, 9, i);
        assert_int_equal(out->topics[0].partitions[0].base_offset, 2 * i);
    }
}

static void too_many_requests_wait_their_turn(void **state)
{
    struct conn *conn = *state;
    topic_create(conn, "t", 1);
    struct fetch_call fetch;
    fetch_fill(&fetch, "t", 1, 0);
    for (int32_t i = 0; i < REQUESTS_MAX + 5; i++)
        send_request(conn, KAFKA_FETCH, 12, i, &fetch.in);
    assert_true(conn->held);
    assert_int_equal(responses(conn), 0);
    fake_time(conn, 500);
    fake_time(conn, 500);
    assert_false(conn->held);
    assert_int_equal(responses(conn), REQUESTS_MAX + 5);
}

static void a_slow_reader_is_not_served_more(void **state)
{
    struct conn *conn = *state;
    struct kafka_metadata_request metadata = kafka_metadata_request_default;
    conn->pending = OUTPUT_BYTES_MAX + 1;
    send_request(conn, KAFKA_METADATA, 9, 1, &metadata);
    assert_true(conn->held);
    send_request(conn, KAFKA_METADATA, 9, 2, &metadata);
    assert_int_equal(responses(conn), 1);
    conn->pending = 0;
    conn->face->drained(conn->self);
    fake_run(conn);
    assert_int_equal(responses(conn), 2);
}

static void a_connection_may_go_while_requests_are_under_way(void **state)
{
    struct conn *conn = *state;
    topic_create(conn, "t", 1);
    struct fetch_call fetch;
    fetch_fill(&fetch, "t", 1, 0);
    send_request(conn, KAFKA_FETCH, 12, 1, &fetch.in);
    assert_int_equal(conn->read_count, 1);
    /* teardown closes it */
}

/* ---- Metadata ---- */

static const struct kafka_metadata_response_topic *metadata_one(struct conn *conn, const char *name,
                                                                bool create)
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

static void metadata_makes_a_topic_that_is_asked_for(void **state)
{
    struct conn *conn = *state;
    const struct kafka_metadata_response_topic *topic = metadata_one(conn, "new", true);
    assert_int_equal(topic->error_code, 0);
    assert_int_equal(topic->partitions_count, 1);
    assert_int_equal(topic->partitions[0].leader_id, NODE_ID);
    assert_false(uuid_is_zero(&topic->topic_id));
}

static void metadata_makes_no_topic_against_the_clients_will(void **state)
{
    const struct kafka_metadata_response_topic *topic = metadata_one(*state, "new", false);
    assert_int_equal(topic->error_code, KAFKA_ERROR_UNKNOWN_TOPIC_OR_PARTITION);
    assert_true(slice_is(topic->name, "new"));
}

static void metadata_makes_no_topic_when_told_so(void **state)
{
    struct conn *conn = *state;
    conn->config.auto_create_topics = false;
    assert_int_equal(metadata_one(conn, "new", true)->error_code,
                     KAFKA_ERROR_UNKNOWN_TOPIC_OR_PARTITION);
}

static void metadata_refuses_a_bad_name(void **state)
{
    assert_int_equal(metadata_one(*state, "bad/name", true)->error_code,
                     KAFKA_ERROR_INVALID_TOPIC_EXCEPTION);
}

static void metadata_version_0_gives_all_topics_for_none(void **state)
{
    struct conn *conn = *state;
    topic_create(conn, "one", 1);
    topic_create(conn, "two", 3);
    struct kafka_metadata_request in = kafka_metadata_request_default;
    const struct kafka_metadata_response *out = call(conn, KAFKA_METADATA, 0, &in);
    assert_int_equal(out->topics_count, 2);
    out = call(conn, KAFKA_METADATA, 1, &in);
    assert_int_equal(out->topics_count, 0);
}

/* ---- Produce and Fetch ---- */

static void what_is_produced_is_fetched(void **state)
{
    struct conn *conn = *state;
    topic_create(conn, "t", 1);
    const char *values[] = {"a", "b", "c", "d"};
    assert_int_equal(produce_values(conn, "t", 5, values, 2), 0);
    assert_int_equal(produce_values(conn, "t", 5, values + 2, 2), 2);
    for (int16_t version = 4; version <= 12; version++) {
        struct fetch_call fetch;
        fetch_fill(&fetch, "t", 1, 1); /* the batch that holds offset 1 comes whole */
        const struct kafka_fetch_response *out = call(conn, KAFKA_FETCH, version, &fetch.in);
        const struct kafka_fetch_response_partition *partition = &out->topics[0].partitions[0];
        assert_int_equal(partition->error_code, 0);
        assert_int_equal(partition->high_watermark, 4);
        assert_int_equal(partition->last_stable_offset, 4);
        records_expect(partition->records, 0, values, 4);
    }
}

static void answers_may_come_at_once(void **state)
{
    struct conn *conn = *state;
    conn->at_once = true;
    what_is_produced_is_fetched(state);
}

static void topics_may_be_named_by_id(void **state)
{
    struct conn *conn = *state;
    topic_create(conn, "t", 1);
    const char *values[] = {"a"};
    uint8_t memory[BATCH_BYTES_MAX];
    struct produce_call produce;
    produce_fill(&produce, "", 0, 1, batch_make(memory, 5, values, 1));
    produce.topic.topic_id = metadata_one(conn, "t", false)->topic_id;
    const struct kafka_produce_response *produced = call(conn, KAFKA_PRODUCE, 13, &produce.in);
    assert_int_equal(produced->topics[0].partitions[0].error_code, 0);
    struct fetch_call fetch;
    fetch_fill(&fetch, "", 1, 0);
    fetch.topic.topic_id = produce.topic.topic_id;
    const struct kafka_fetch_response *fetched = call(conn, KAFKA_FETCH, 17, &fetch.in);
    records_expect(fetched->topics[0].partitions[0].records, 0, values, 1);
    produce.topic.topic_id.bytes[3] ^= 1;
    produced = call(conn, KAFKA_PRODUCE, 13, &produce.in);
    assert_int_equal(produced->topics[0].partitions[0].error_code, KAFKA_ERROR_UNKNOWN_TOPIC_ID);
}

static void an_unacknowledged_produce_has_no_response(void **state)
{
    struct conn *conn = *state;
    topic_create(conn, "t", 1);
    const char *values[] = {"a"};
    uint8_t memory[BATCH_BYTES_MAX];
    struct produce_call produce;
    produce_fill(&produce, "t", 0, 0, batch_make(memory, 5, values, 1));
    send_request(conn, KAFKA_PRODUCE, 9, 1, &produce.in);
    assert_int_equal(conn->output_len, 0);
    assert_int_equal(produce_values(conn, "t", 5, values, 1), 1);
}

static void a_failed_unacknowledged_produce_ends_the_connection(void **state)
{
    struct conn *conn = *state;
    const char *values[] = {"a"};
    uint8_t memory[BATCH_BYTES_MAX];
    struct produce_call produce;
    produce_fill(&produce, "absent", 0, 0, batch_make(memory, 5, values, 1));
    send_request(conn, KAFKA_PRODUCE, 9, 1, &produce.in);
    assert_int_equal(conn->output_len, 0);
    assert_true(conn->closed);
}

static void produce_refuses_what_may_not_be_stored(void **state)
{
    struct conn *conn = *state;
    topic_create(conn, "t", 1);
    const char *values[] = {"a"};
    uint8_t memory[BATCH_BYTES_MAX];
    struct slice batch = batch_make(memory, 5, values, 1);
    assert_int_equal(produce_one(conn, "absent", 0, batch)->error_code,
                     KAFKA_ERROR_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(produce_one(conn, "t", 1, batch)->error_code,
                     KAFKA_ERROR_UNKNOWN_TOPIC_OR_PARTITION);
    conn->config.max_batch_bytes = (uint32_t)batch.len - 1;
    assert_int_equal(produce_one(conn, "t", 0, batch)->error_code, KAFKA_ERROR_MESSAGE_TOO_LARGE);
    conn->config.max_batch_bytes++;
    assert_int_equal(produce_one(conn, "t", 0, batch)->error_code, 0);
    memory[batch.len - 1] ^= 1;
    assert_int_equal(produce_one(conn, "t", 0, batch)->error_code, KAFKA_ERROR_CORRUPT_MESSAGE);
    struct produce_call produce;
    produce_fill(&produce, "t", 0, 2, batch);
    const struct kafka_produce_response *out = call(conn, KAFKA_PRODUCE, 3, &produce.in);
    assert_int_equal(out->topics[0].partitions[0].error_code, KAFKA_ERROR_INVALID_REQUIRED_ACKS);
    conn->append_err = ERR_OUT_OF_ORDER;
    memory[batch.len - 1] ^= 1;
    assert_int_equal(produce_one(conn, "t", 0, batch)->error_code,
                     KAFKA_ERROR_OUT_OF_ORDER_SEQUENCE_NUMBER);
}

static void a_waiting_fetch_is_answered_when_records_come(void **state)
{
    struct conn *conn = *state;
    topic_create(conn, "t", 2);
    struct fetch_call fetch;
    fetch_fill(&fetch, "t", 2, 0);
    send_request(conn, KAFKA_FETCH, 12, 1, &fetch.in);
    assert_int_equal(responses(conn), 0);
    const char *values[] = {"a"};
    uint8_t memory[BATCH_BYTES_MAX];
    struct produce_call produce;
    produce_fill(&produce, "t", 1, -1, batch_make(memory, 5, values, 1));
    send_request(conn, KAFKA_PRODUCE, 9, 2, &produce.in);
    assert_int_equal(responses(conn), 2);
    const struct kafka_fetch_response *out = receive(conn, KAFKA_FETCH, 12, 1);
    assert_int_equal(out->topics[0].partitions[0].records.len, 0);
    records_expect(out->topics[0].partitions[1].records, 0, values, 1);
    assert_int_equal(conn->stops, 1);
    assert_int_equal(conn->read_count, 0);
}

static void a_fetch_waits_for_min_bytes_of_all_partitions_together(void **state)
{
    struct conn *conn = *state;
    topic_create(conn, "t", 2);
    const char *values[] = {"a"};
    uint8_t memory[BATCH_BYTES_MAX];
    struct slice batch = batch_make(memory, 5, values, 1);
    struct fetch_call fetch;
    fetch_fill(&fetch, "t", 2, 0);
    fetch.in.min_bytes = (int32_t)(3 * batch.len + 1);
    send_request(conn, KAFKA_FETCH, 12, 1, &fetch.in);
    struct produce_call produce;
    int32_t partitions[] = {0, 0, 1, 0};
    for (int32_t i = 0; i < 4; i++) {
        assert_int_equal(responses(conn), 0);
        produce_fill(&produce, "t", partitions[i], -1, batch);
        send_request(conn, KAFKA_PRODUCE, 9, 2 + i, &produce.in);
    }
    const struct kafka_fetch_response *out = receive(conn, KAFKA_FETCH, 12, 1);
    const char *three[] = {"a", "a", "a"};
    records_expect(out->topics[0].partitions[0].records, 0, three, 3);
    records_expect(out->topics[0].partitions[1].records, 0, values, 1);
}

static void a_fetch_error_is_answered_at_once(void **state)
{
    struct conn *conn = *state;
    topic_create(conn, "t", 1);
    struct fetch_call fetch;
    fetch_fill(&fetch, "t", 2, 0); /* partition 1 is not there, partition 0 is empty */
    const struct kafka_fetch_response *out = call(conn, KAFKA_FETCH, 12, &fetch.in);
    assert_int_equal(out->topics[0].partitions[0].error_code, 0);
    assert_int_equal(out->topics[0].partitions[1].error_code,
                     KAFKA_ERROR_UNKNOWN_TOPIC_OR_PARTITION);
    fetch_fill(&fetch, "t", 1, 5);
    out = call(conn, KAFKA_FETCH, 12, &fetch.in);
    assert_int_equal(out->topics[0].partitions[0].error_code, KAFKA_ERROR_OFFSET_OUT_OF_RANGE);
    fetch_fill(&fetch, "t", 1, 0);
    fetch.partitions[0].current_leader_epoch = 1;
    out = call(conn, KAFKA_FETCH, 12, &fetch.in);
    assert_int_equal(out->topics[0].partitions[0].error_code, KAFKA_ERROR_UNKNOWN_LEADER_EPOCH);
}

static void the_first_batch_comes_whatever_its_size(void **state)
{
    struct conn *conn = *state;
    topic_create(conn, "t", 1);
    const char *values[] = {"a", "b"};
    produce_values(conn, "t", 5, values, 1);
    produce_values(conn, "t", 5, values + 1, 1);
    struct fetch_call fetch;
    fetch_fill(&fetch, "t", 1, 0);
    fetch.in.max_bytes = 10;
    const struct kafka_fetch_response *out = call(conn, KAFKA_FETCH, 12, &fetch.in);
    records_expect(out->topics[0].partitions[0].records, 0, values, 1);
}

static void amqp_messages_are_fetched_as_one_batch(void **state)
{
    struct conn *conn = *state;
    topic_create(conn, "t", 1);
    const char *values[] = {"k1", "k2", "a", "m1", "m2"};
    uint64_t id;
    assert_true(topic_partition_id(catalog_topic(conn->catalog, 0, slice_of("t")), 0, &id));
    struct fake_partition *partition = fake_partition(conn, id);
    produce_values(conn, "t", 5, values, 2);
    for (int i = 2; i < 5; i++) {
        uint8_t entry[64] = {0};
        size_t at = ENTRY_HEAD_BYTES;
        entry_head_put(entry, &(struct entry_head){.timestamp_ms = 1000 + i, .form = ENTRY_AMQP});
        entry[at++] = 0; /* default exchange */
        entry[at++] = 1;
        entry[at++] = 't';
        be32_put(entry + at, 2); /* property flags alone */
        at += 6;
        memcpy(entry + at, values[i], strlen(values[i]));
        fake_append(partition, slice_make(entry, at + strlen(values[i])), 1);
    }
    struct fetch_call fetch;
    fetch_fill(&fetch, "t", 1, 0);
    const struct kafka_fetch_response *out = call(conn, KAFKA_FETCH, 12, &fetch.in);
    records_expect(out->topics[0].partitions[0].records, 0, values, 5);
    struct reader reader = reader_over(out->topics[0].partitions[0].records);
    struct kafka_batch batch;
    assert_true(kafka_batch_next(&reader, &batch));
    assert_true(kafka_batch_next(&reader, &batch));
    assert_int_equal(batch.base_offset, 2);
    assert_int_equal(batch.records_count, 3);
    assert_int_equal(batch.max_timestamp_ms, 1004);
}

static void a_topic_with_append_time_stamps_its_batches(void **state)
{
    struct conn *conn = *state;
    topic_create(conn, "t", 1);
    struct kafka_incremental_alter_configs_request_config config =
        kafka_incremental_alter_configs_request_config_default;
    struct kafka_incremental_alter_configs_request_resource resource =
        kafka_incremental_alter_configs_request_resource_default;
    struct kafka_incremental_alter_configs_request in =
        kafka_incremental_alter_configs_request_default;
    config.name = slice_of("message.timestamp.type");
    config.value = slice_of("LogAppendTime");
    resource.resource_type = 2;
    resource.resource_name = slice_of("t");
    resource.configs = &config;
    resource.configs_count = 1;
    in.resources = &resource;
    in.resources_count = 1;
    const struct kafka_incremental_alter_configs_response *out =
        call(conn, KAFKA_INCREMENTAL_ALTER_CONFIGS, 1, &in);
    assert_int_equal(out->results[0].error_code, 0);
    const char *values[] = {"a"};
    produce_values(conn, "t", 5, values, 1);
    struct fetch_call fetch;
    fetch_fill(&fetch, "t", 1, 0);
    const struct kafka_fetch_response *fetched = call(conn, KAFKA_FETCH, 12, &fetch.in);
    struct reader reader = reader_over(fetched->topics[0].partitions[0].records);
    struct kafka_batch batch;
    assert_true(kafka_batch_next(&reader, &batch));
    assert_true(kafka_batch_intact(&batch));
    assert_int_equal(batch.max_timestamp_ms, conn_wall_ms(conn));
    assert_true(batch.attributes & KAFKA_BATCH_LOG_APPEND_TIME);
}

/* ---- ListOffsets ---- */

static const struct kafka_list_offsets_response_partition *
offset_find(struct conn *conn, const char *topic, int64_t timestamp)
{
    struct kafka_list_offsets_request_partition partition =
        kafka_list_offsets_request_partition_default;
    struct kafka_list_offsets_request_topic asked = kafka_list_offsets_request_topic_default;
    struct kafka_list_offsets_request in = kafka_list_offsets_request_default;
    partition.timestamp = timestamp;
    asked.name = slice_of(topic);
    asked.partitions = &partition;
    asked.partitions_count = 1;
    in.topics = &asked;
    in.topics_count = 1;
    const struct kafka_list_offsets_response *out = call(conn, KAFKA_LIST_OFFSETS, 9, &in);
    return &out->topics[0].partitions[0];
}

static void offsets_are_found_by_time(void **state)
{
    struct conn *conn = *state;
    topic_create(conn, "t", 1);
    const char *values[] = {"a", "b", "c"};
    produce_values(conn, "t", 1000, values, 3); /* 1000, 1001, 1002 */
    produce_values(conn, "t", 2000, values, 3); /* 2000, 2001, 2002 */
    produce_values(conn, "t", 1500, values, 1);
    struct {
        int64_t wanted, offset, timestamp;
    } cases[] = {{-2, 0, -1},     {-1, 7, -1},     {-3, 5, 2002},   {-4, 0, -1},
                 {0, 0, 1000},    {1000, 0, 1000}, {1001, 1, 1001}, {1003, 3, 2000},
                 {2002, 5, 2002}, {2003, -1, -1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct kafka_list_offsets_response_partition *found =
            offset_find(conn, "t", cases[i].wanted);
        assert_int_equal(found->error_code, 0);
        assert_int_equal(found->offset, cases[i].offset);
        assert_int_equal(found->timestamp, cases[i].timestamp);
    }
    assert_int_equal(offset_find(conn, "absent", -1)->error_code,
                     KAFKA_ERROR_UNKNOWN_TOPIC_OR_PARTITION);
}

/* ---- Groups ---- */

static void join_says(struct conn *conn, const struct group_request *request, struct event *event)
{
    (void)conn;
    struct group_answer *answer = event->parts->root;
    assert_int_equal(request->op, GROUP_JOIN);
    assert_true(slice_is(request->group, "g"));
    assert_true(slice_is(request->client_id, "test"));
    assert_true(slice_is(request->client_host, "/127.0.0.1"));
    assert_int_equal(request->protocol_count, 2);
    assert_true(slice_is(request->protocols[1].name, "range"));
    assert_true(slice_is(request->protocols[1].metadata, "two"));
    answer->member = slice_of("member-1");
    if (request->require_member_id && request->member.len == 0) {
        event->err = ERR_MEMBER_ID_REQUIRED;
        return;
    }
    struct group_member *member = arena_alloc(&event->parts->arena, sizeof *member);
    *member = (struct group_member){.id = slice_of("member-1"), .metadata = slice_of("two")};
    answer->generation = 3;
    answer->protocol_type = slice_of("consumer");
    answer->protocol = slice_of("range");
    answer->leader = slice_of("member-1");
    answer->members = member;
    answer->member_count = 1;
}

static void a_member_joins_in_every_version(void **state)
{
    struct conn *conn = *state;
    conn->group = join_says;
    for (int16_t version = 0; version <= 9; version++) {
        struct kafka_join_group_request_protocol protocols[2];
        struct kafka_join_group_request in = kafka_join_group_request_default;
        protocols[0].name = slice_of("sticky");
        protocols[0].metadata = slice_of("one");
        protocols[1].name = slice_of("range");
        protocols[1].metadata = slice_of("two");
        in.group_id = slice_of("g");
        in.protocol_type = slice_of("consumer");
        in.session_timeout_ms = 10000;
        in.protocols = protocols;
        in.protocols_count = 2;
        const struct kafka_join_group_response *out = call(conn, KAFKA_JOIN_GROUP, version, &in);
        assert_true(slice_is(out->member_id, "member-1"));
        if (version >= 4) {
            assert_int_equal(out->error_code, KAFKA_ERROR_MEMBER_ID_REQUIRED);
            in.member_id = out->member_id;
            out = call(conn, KAFKA_JOIN_GROUP, version, &in);
        }
        assert_int_equal(out->error_code, 0);
        assert_int_equal(out->generation_id, 3);
        assert_true(slice_is(out->protocol_name, "range"));
        assert_int_equal(out->members_count, 1);
        assert_true(slice_is(out->members[0].metadata, "two"));
    }
}

static void offsets_say(struct conn *conn, const struct group_request *request, struct event *event)
{
    (void)conn;
    struct group_answer *answer = event->parts->root;
    uint32_t count = request->all ? 2 : request->offset_count;
    struct group_offset *offsets = arena_array(&event->parts->arena, count, sizeof *offsets);
    for (uint32_t i = 0; i < count; i++) {
        offsets[i] = request->all ? (struct group_offset){.topic = slice_of("t"), .partition = i}
                                  : request->offsets[i];
        offsets[i].offset = offsets[i].partition == 0 ? 42 : -1;
        offsets[i].leader_epoch = -1;
        offsets[i].err = ERR_NONE;
    }
    answer->offsets = offsets;
    answer->offset_count = count;
}

static void committed_offsets_are_fetched_in_every_version(void **state)
{
    struct conn *conn = *state;
    topic_create(conn, "t", 2);
    conn->group = offsets_say;
    struct kafka_uuid id = metadata_one(conn, "t", false)->topic_id;
    int32_t partitions[] = {1, 0};
    for (int16_t version = 1; version <= 10; version++) {
        struct kafka_offset_fetch_request in = kafka_offset_fetch_request_default;
        struct kafka_offset_fetch_request_topic topic = kafka_offset_fetch_request_topic_default;
        struct kafka_offset_fetch_request_group_topic group_topic =
            kafka_offset_fetch_request_group_topic_default;
        struct kafka_offset_fetch_request_group group = kafka_offset_fetch_request_group_default;
        topic.name = group_topic.name = slice_of("t");
        group_topic.topic_id = id;
        topic.partition_indexes = group_topic.partition_indexes = partitions;
        topic.partition_indexes_count = group_topic.partition_indexes_count = 2;
        group.group_id = in.group_id = slice_of("g");
        group.topics = &group_topic;
        in.topics = &topic;
        in.groups = &group;
        group.topics_count = in.topics_count = in.groups_count = 1;
        const struct kafka_offset_fetch_response *out =
            call(conn, KAFKA_OFFSET_FETCH, version, &in);
        if (version < 8) {
            assert_int_equal(out->topics[0].partitions[0].committed_offset, -1);
            assert_int_equal(out->topics[0].partitions[1].committed_offset, 42);
        } else {
            assert_true(slice_is(out->groups[0].group_id, "g"));
            assert_int_equal(out->groups[0].topics[0].partitions[0].committed_offset, -1);
            assert_int_equal(out->groups[0].topics[0].partitions[1].committed_offset, 42);
        }
        if (version < 2)
            continue;
        group.topics_count = in.topics_count = -1;
        out = call(conn, KAFKA_OFFSET_FETCH, version, &in);
        if (version < 8)
            assert_int_equal(out->topics[0].partitions[0].committed_offset, 42);
        else
            assert_int_equal(out->groups[0].topics[0].partitions[0].committed_offset, 42);
    }
}

static void commit_says(struct conn *conn, const struct group_request *request, struct event *event)
{
    (void)conn;
    (void)event;
    assert_int_equal(request->op, GROUP_COMMIT);
    assert_int_equal(request->offset_count, 1);
    assert_true(slice_is(request->offsets[0].topic, "t"));
    assert_int_equal(request->offsets[0].offset, 9);
    assert_true(slice_is(request->member, "m"));
    assert_int_equal(request->generation, 4);
}

static void only_offsets_of_partitions_that_are_there_are_committed(void **state)
{
    struct conn *conn = *state;
    topic_create(conn, "t", 1);
    conn->group = commit_says;
    struct kafka_offset_commit_request_partition partitions[2];
    struct kafka_offset_commit_request_topic topic = kafka_offset_commit_request_topic_default;
    struct kafka_offset_commit_request in = kafka_offset_commit_request_default;
    for (int i = 0; i < 2; i++) {
        partitions[i] = kafka_offset_commit_request_partition_default;
        partitions[i].partition_index = 1 - i;
        partitions[i].committed_offset = 9;
    }
    topic.name = slice_of("t");
    topic.partitions = partitions;
    topic.partitions_count = 2;
    in.group_id = slice_of("g");
    in.member_id = slice_of("m");
    in.generation_id_or_member_epoch = 4;
    in.topics = &topic;
    in.topics_count = 1;
    const struct kafka_offset_commit_response *out = call(conn, KAFKA_OFFSET_COMMIT, 8, &in);
    assert_int_equal(out->topics[0].partitions[0].error_code,
                     KAFKA_ERROR_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(out->topics[0].partitions[1].error_code, 0);
}

static void list_says(struct conn *conn, const struct group_request *request, struct event *event)
{
    (void)conn;
    assert_int_equal(request->op, GROUP_LIST);
    struct group_answer *answer = event->parts->root;
    struct group_description *groups = arena_array(&event->parts->arena, 2, sizeof *groups);
    groups[0] = (struct group_description){.name = slice_of("a"), .state = slice_of("Stable")};
    groups[1] = (struct group_description){.name = slice_of("b"), .state = slice_of("Empty")};
    answer->groups = groups;
    answer->group_count = 2;
}

static void groups_of_all_cells_are_listed_by_state(void **state)
{
    struct conn *conn = *state;
    conn->group = list_says;
    struct slice filter = slice_of("empty");
    struct kafka_list_groups_request in = kafka_list_groups_request_default;
    const struct kafka_list_groups_response *out = call(conn, KAFKA_LIST_GROUPS, 5, &in);
    assert_int_equal(out->groups_count, 2 * FAKE_CELLS);
    in.states_filter = &filter;
    in.states_filter_count = 1;
    out = call(conn, KAFKA_LIST_GROUPS, 5, &in);
    assert_int_equal(out->groups_count, FAKE_CELLS);
    assert_true(slice_is(out->groups[0].group_id, "b"));
    assert_true(slice_is(out->groups[0].group_type, "classic"));
}

/* ---- Administration ---- */

static int16_t create_code(struct conn *conn, const char *name, int32_t partitions,
                           int16_t replicas, const char *config, const char *value)
{
    struct kafka_create_topics_request_config row = kafka_create_topics_request_config_default;
    struct kafka_create_topics_request_topic topic = kafka_create_topics_request_topic_default;
    struct kafka_create_topics_request in = kafka_create_topics_request_default;
    topic.name = slice_of(name);
    topic.num_partitions = partitions;
    topic.replication_factor = replicas;
    if (config) {
        row.name = slice_of(config);
        row.value = slice_of(value);
        topic.configs = &row;
        topic.configs_count = 1;
    }
    in.topics = &topic;
    in.topics_count = 1;
    const struct kafka_create_topics_response *out = call(conn, KAFKA_CREATE_TOPICS, 7, &in);
    assert_int_equal(slice_is_null(out->topics[0].error_message), out->topics[0].error_code == 0);
    return out->topics[0].error_code;
}

static void topics_are_created_or_refused_as_kafka_does(void **state)
{
    struct conn *conn = *state;
    assert_int_equal(create_code(conn, "a.b", -1, -1, NULL, NULL), 0);
    assert_int_equal(create_code(conn, "a.b", 1, 1, NULL, NULL), KAFKA_ERROR_TOPIC_ALREADY_EXISTS);
    assert_int_equal(create_code(conn, "a_b", 1, 1, NULL, NULL),
                     KAFKA_ERROR_INVALID_TOPIC_EXCEPTION);
    assert_int_equal(create_code(conn, "bad name", 1, 1, NULL, NULL),
                     KAFKA_ERROR_INVALID_TOPIC_EXCEPTION);
    assert_int_equal(create_code(conn, "x", 0, 1, NULL, NULL), KAFKA_ERROR_INVALID_PARTITIONS);
    assert_int_equal(create_code(conn, "x", 1, 2, NULL, NULL),
                     KAFKA_ERROR_INVALID_REPLICATION_FACTOR);
    assert_int_equal(create_code(conn, "x", 1, 1, "no.such", "1"), KAFKA_ERROR_INVALID_CONFIG);
    assert_int_equal(create_code(conn, "x", 1, 1, "retention.ms", "soon"),
                     KAFKA_ERROR_INVALID_CONFIG);
    assert_int_equal(create_code(conn, "x", 1, 1, "cleanup.policy", "compact,burn"),
                     KAFKA_ERROR_INVALID_CONFIG);
    assert_int_equal(create_code(conn, "x", 1, 1, "retention.ms", " 3600000 "), 0);
}

static void configurations_are_described_with_their_source(void **state)
{
    struct conn *conn = *state;
    assert_int_equal(create_code(conn, "t", 1, 1, "retention.ms", "3600000"), 0);
    struct slice keys[] = {slice_of("retention.ms"), slice_of("cleanup.policy")};
    struct kafka_describe_configs_request_resource resource =
        kafka_describe_configs_request_resource_default;
    struct kafka_describe_configs_request in = kafka_describe_configs_request_default;
    resource.resource_type = 2;
    resource.resource_name = slice_of("t");
    resource.configuration_keys = keys;
    resource.configuration_keys_count = 2;
    in.resources = &resource;
    in.resources_count = 1;
    in.include_synonyms = true;
    const struct kafka_describe_configs_response *out = call(conn, KAFKA_DESCRIBE_CONFIGS, 4, &in);
    const struct kafka_describe_configs_response_result *result = &out->results[0];
    assert_int_equal(result->configs_count, 2);
    assert_true(slice_is(result->configs[0].value, "delete"));
    assert_int_equal(result->configs[0].config_source, 5);
    assert_true(slice_is(result->configs[1].value, "3600000"));
    assert_int_equal(result->configs[1].config_source, 1);
    assert_int_equal(result->configs[1].synonyms_count, 2);
}

static void a_password_is_asked_for_only_when_the_client_wants_to_give_one(void **state)
{
    struct conn *conn = *state;
    struct kafka_sasl_handshake_request handshake = {.mechanism = slice_of("PLAIN")};
    const struct kafka_sasl_handshake_response *shaken =
        call(conn, KAFKA_SASL_HANDSHAKE, 1, &handshake);
    assert_int_equal(shaken->error_code, 0);
    struct kafka_sasl_authenticate_request token = {.auth_bytes = slice_make("\0guest\0guest", 12)};
    const struct kafka_sasl_authenticate_response *out =
        call(conn, KAFKA_SASL_AUTHENTICATE, 2, &token);
    assert_int_equal(out->error_code, 0);
    assert_string_equal(conn->user, "guest");
    call(conn, KAFKA_SASL_HANDSHAKE, 0, &handshake);
    fake_input(conn, "\0\0\0\14\0guest\0wrong", 16);
    assert_true(conn->closed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        TEST(versions_of_the_future_are_answered_in_version_0),
        TEST(produce_is_offered_from_version_0),
        TEST(a_client_must_say_its_name_in_plain_letters),
        TEST(garbage_ends_the_connection),
        TEST(an_unknown_request_ends_the_connection),
        TEST(a_version_that_is_not_served_ends_the_connection),
        TEST(a_request_may_come_byte_by_byte),
        TEST(responses_leave_in_the_order_of_the_requests),
        TEST(several_produces_may_be_under_way),
        TEST(too_many_requests_wait_their_turn),
        TEST(a_slow_reader_is_not_served_more),
        TEST(a_connection_may_go_while_requests_are_under_way),
        TEST(metadata_makes_a_topic_that_is_asked_for),
        TEST(metadata_makes_no_topic_against_the_clients_will),
        TEST(metadata_makes_no_topic_when_told_so),
        TEST(metadata_refuses_a_bad_name),
        TEST(metadata_version_0_gives_all_topics_for_none),
        TEST(what_is_produced_is_fetched),
        TEST(answers_may_come_at_once),
        TEST(topics_may_be_named_by_id),
        TEST(an_unacknowledged_produce_has_no_response),
        TEST(a_failed_unacknowledged_produce_ends_the_connection),
        TEST(produce_refuses_what_may_not_be_stored),
        TEST(a_waiting_fetch_is_answered_when_records_come),
        TEST(a_fetch_waits_for_min_bytes_of_all_partitions_together),
        TEST(a_fetch_error_is_answered_at_once),
        TEST(the_first_batch_comes_whatever_its_size),
        TEST(amqp_messages_are_fetched_as_one_batch),
        TEST(a_topic_with_append_time_stamps_its_batches),
        TEST(offsets_are_found_by_time),
        TEST(a_member_joins_in_every_version),
        TEST(committed_offsets_are_fetched_in_every_version),
        TEST(only_offsets_of_partitions_that_are_there_are_committed),
        TEST(groups_of_all_cells_are_listed_by_state),
        TEST(topics_are_created_or_refused_as_kafka_does),
        TEST(configurations_are_described_with_their_source),
        TEST(a_password_is_asked_for_only_when_the_client_wants_to_give_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
