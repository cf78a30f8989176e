/* Records in and out: Produce, Fetch, ListOffsets. */
#include "face/kafka/test_client.h"

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
    others_append(conn, "t", 1, batch_make(memory, 5, values, 1));
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
    int32_t partitions[] = {0, 0, 1, 0};
    for (int32_t i = 0; i < 4; i++) {
        assert_int_equal(responses(conn), 0);
        others_append(conn, "t", partitions[i], batch);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_produced_is_fetched, setup, teardown),
        cmocka_unit_test_setup_teardown(answers_may_come_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(topics_may_be_named_by_id, setup, teardown),
        cmocka_unit_test_setup_teardown(an_unacknowledged_produce_has_no_response, setup, teardown),
        cmocka_unit_test_setup_teardown(a_failed_unacknowledged_produce_ends_the_connection, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(produce_refuses_what_may_not_be_stored, setup, teardown),
        cmocka_unit_test_setup_teardown(a_waiting_fetch_is_answered_when_records_come, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_fetch_waits_for_min_bytes_of_all_partitions_together,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(a_fetch_error_is_answered_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(the_first_batch_comes_whatever_its_size, setup, teardown),
        cmocka_unit_test_setup_teardown(amqp_messages_are_fetched_as_one_batch, setup, teardown),
        cmocka_unit_test_setup_teardown(a_topic_with_append_time_stamps_its_batches, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(offsets_are_found_by_time, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
