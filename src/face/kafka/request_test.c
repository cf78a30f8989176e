/* Framing, versions, order, and the life of requests. */
#include "face/kafka/test_client.h"

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
    topic_create(conn, "empty", 1);
    topic_create(conn, "full", 1);
    const char *values[] = {"a"};
    produce_values(conn, "full", 5, values, 1);
    struct fetch_call fetch;
    fetch_fill(&fetch, "empty", 1, 0);
    send_request(conn, KAFKA_FETCH, 12, 1, &fetch.in);
    fetch_fill(&fetch, "full", 1, 0);
    send_request(conn, KAFKA_FETCH, 12, 2, &fetch.in);
    assert_int_equal(conn->read_count, 1);
    assert_int_equal(responses(conn), 0);
    fake_time(conn, 500);
    receive(conn, KAFKA_FETCH, 12, 1);
    receive(conn, KAFKA_FETCH, 12, 2);
}

static void a_waiting_fetch_gives_way_to_urgent_requests_behind_it(void **state)
{
    struct conn *conn = *state;
    topic_create(conn, "t", 1);
    struct fetch_call fetch;
    fetch_fill(&fetch, "t", 1, 0);
    send_request(conn, KAFKA_FETCH, 12, 1, &fetch.in);
    send_request(conn, KAFKA_FETCH, 12, 2, &fetch.in);
    struct kafka_metadata_request metadata = kafka_metadata_request_default;
    metadata.topics_count = -1;
    send_request(conn, KAFKA_METADATA, 9, 3, &metadata);
    assert_int_equal(responses(conn), 0);
    struct kafka_heartbeat_request heartbeat = kafka_heartbeat_request_default;
    heartbeat.group_id = slice_of("g");
    send_request(conn, KAFKA_HEARTBEAT, 4, 4, &heartbeat);
    receive(conn, KAFKA_FETCH, 12, 1);
    receive(conn, KAFKA_FETCH, 12, 2);
    receive(conn, KAFKA_METADATA, 9, 3);
    receive(conn, KAFKA_HEARTBEAT, 4, 4);
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

/* ---- Time limits ---- */

static void silence_ends_a_connection_but_waiting_is_none(void **state)
{
    struct conn *conn = *state;
    conn->config.idle_s = 600;
    conn->face->timer(conn->self, conn->now_ms);
    fake_time(conn, 599 * 1000);
    struct kafka_metadata_request metadata = kafka_metadata_request_default;
    send_request(conn, KAFKA_METADATA, 9, 1, &metadata);
    fake_time(conn, 599 * 1000);
    assert_false(conn->closed);
    conn->unread = true; /* it speaks, but is not listened to */
    fake_time(conn, 601 * 1000);
    assert_false(conn->closed);
    conn->unread = false;
    fake_time(conn, 599 * 1000);
    assert_false(conn->closed);
    fake_time(conn, 1000);
    assert_true(conn->closed);
}

static void a_fetch_that_waits_is_no_silence(void **state)
{
    struct conn *conn = *state;
    topic_create(conn, "t", 1);
    conn->config.idle_s = 1;
    conn->face->timer(conn->self, conn->now_ms);
    struct fetch_call fetch;
    fetch_fill(&fetch, "t", 1, 0);
    fetch.in.max_wait_ms = 5000;
    send_request(conn, KAFKA_FETCH, 12, 1, &fetch.in);
    for (int i = 0; i < 4; i++)
        fake_time(conn, 1000);
    assert_int_equal(responses(conn), 0);
    assert_false(conn->closed);
    fake_time(conn, 1000);
    assert_int_equal(responses(conn), 1);
    fake_time(conn, 1000);
    assert_true(conn->closed);
}

static void administration_is_answered_in_its_time(void **state)
{
    struct conn *conn = *state;
    topic_create(conn, "t", 1);
    conn->stuck = FAKE_ALL;

    struct kafka_create_topics_request_topic made = kafka_create_topics_request_topic_default;
    struct kafka_create_topics_request create = kafka_create_topics_request_default;
    made.name = slice_of("new");
    made.num_partitions = made.replication_factor = 1;
    create.topics = &made;
    create.topics_count = 1;
    create.timeout_ms = 2000;
    send_request(conn, KAFKA_CREATE_TOPICS, 7, 1, &create);

    struct kafka_create_partitions_request_topic grown =
        kafka_create_partitions_request_topic_default;
    struct kafka_create_partitions_request grow = kafka_create_partitions_request_default;
    grown.name = slice_of("t");
    grown.count = 3;
    grown.assignments_count = -1;
    grow.topics = &grown;
    grow.topics_count = 1;
    grow.timeout_ms = 2000;
    send_request(conn, KAFKA_CREATE_PARTITIONS, 3, 2, &grow);

    struct kafka_delete_records_request_partition trimmed =
        kafka_delete_records_request_partition_default;
    struct kafka_delete_records_request_topic trims = kafka_delete_records_request_topic_default;
    struct kafka_delete_records_request trim = kafka_delete_records_request_default;
    trims.name = slice_of("t");
    trims.partitions = &trimmed;
    trims.partitions_count = 1;
    trim.topics = &trims;
    trim.topics_count = 1;
    trim.timeout_ms = 2000;
    send_request(conn, KAFKA_DELETE_RECORDS, 2, 3, &trim);

    struct kafka_delete_topics_request_topic deleted = kafka_delete_topics_request_topic_default;
    struct kafka_delete_topics_request delete = kafka_delete_topics_request_default;
    deleted.name = slice_of("t");
    delete.topics = &deleted;
    delete.topics_count = 1;
    delete.timeout_ms = 2000;
    send_request(conn, KAFKA_DELETE_TOPICS, 6, 4, &delete);

    fake_time(conn, 1999);
    assert_int_equal(responses(conn), 0);
    fake_time(conn, 1);
    const struct kafka_create_topics_response *create_out =
        receive(conn, KAFKA_CREATE_TOPICS, 7, 1);
    assert_int_equal(create_out->topics[0].error_code, KAFKA_ERROR_REQUEST_TIMED_OUT);
    const struct kafka_create_partitions_response *grow_out =
        receive(conn, KAFKA_CREATE_PARTITIONS, 3, 2);
    assert_int_equal(grow_out->results[0].error_code, KAFKA_ERROR_REQUEST_TIMED_OUT);
    const struct kafka_delete_records_response *trim_out =
        receive(conn, KAFKA_DELETE_RECORDS, 2, 3);
    assert_int_equal(trim_out->topics[0].partitions[0].error_code, KAFKA_ERROR_REQUEST_TIMED_OUT);
    const struct kafka_delete_topics_response *delete_out =
        receive(conn, KAFKA_DELETE_TOPICS, 6, 4);
    assert_int_equal(delete_out->results[0].error_code, KAFKA_ERROR_REQUEST_TIMED_OUT);
    fake_unstick(conn);
    assert_int_equal(responses(conn), 0);
}

static void offset_commit_send(struct conn *conn, int32_t id)
{
    struct kafka_offset_commit_request_partition partition =
        kafka_offset_commit_request_partition_default;
    struct kafka_offset_commit_request_topic topic = kafka_offset_commit_request_topic_default;
    struct kafka_offset_commit_request in = kafka_offset_commit_request_default;
    in.group_id = slice_of("g");
    topic.name = slice_of("t");
    topic.partitions = &partition;
    topic.partitions_count = 1;
    in.topics = &topic;
    in.topics_count = 1;
    send_request(conn, KAFKA_OFFSET_COMMIT, 8, id, &in);
}

static int16_t offset_commit_code(struct conn *conn, int32_t id)
{
    const struct kafka_offset_commit_response *out = receive(conn, KAFKA_OFFSET_COMMIT, 8, id);
    return out->topics[0].partitions[0].error_code;
}

static void what_the_protocol_gives_no_time_for_is_answered_after_a_while(void **state)
{
    struct conn *conn = *state;
    topic_create(conn, "t", 1);
    conn->stuck = FAKE_ALL;
    offset_commit_send(conn, 1);
    struct kafka_init_producer_id_request id = kafka_init_producer_id_request_default;
    send_request(conn, KAFKA_INIT_PRODUCER_ID, 4, 2, &id);
    struct slice name = slice_of("g");
    struct kafka_delete_groups_request delete = kafka_delete_groups_request_default;
    delete.groups_names = &name;
    delete.groups_names_count = 1;
    send_request(conn, KAFKA_DELETE_GROUPS, 2, 3, &delete);
    struct kafka_alter_configs_request_resource resource =
        kafka_alter_configs_request_resource_default;
    struct kafka_alter_configs_request alter = kafka_alter_configs_request_default;
    resource.resource_type = 2;
    resource.resource_name = slice_of("t");
    alter.resources = &resource;
    alter.resources_count = 1;
    send_request(conn, KAFKA_ALTER_CONFIGS, 2, 4, &alter);
    struct kafka_metadata_request_topic asked = kafka_metadata_request_topic_default;
    struct kafka_metadata_request metadata = kafka_metadata_request_default;
    asked.name = slice_of("new"); /* the topic comes, its answer does not */
    metadata.topics = &asked;
    metadata.topics_count = 1;
    send_request(conn, KAFKA_METADATA, 9, 5, &metadata);

    fake_time(conn, TIMEOUT_MS_DEFAULT - 1);
    assert_int_equal(responses(conn), 0);
    fake_time(conn, 1);
    assert_int_equal(offset_commit_code(conn, 1), KAFKA_ERROR_COORDINATOR_NOT_AVAILABLE);
    const struct kafka_init_producer_id_response *id_out =
        receive(conn, KAFKA_INIT_PRODUCER_ID, 4, 2);
    assert_int_equal(id_out->error_code, KAFKA_ERROR_COORDINATOR_LOAD_IN_PROGRESS);
    const struct kafka_delete_groups_response *delete_out =
        receive(conn, KAFKA_DELETE_GROUPS, 2, 3);
    assert_int_equal(delete_out->results[0].error_code, KAFKA_ERROR_COORDINATOR_NOT_AVAILABLE);
    const struct kafka_alter_configs_response *alter_out = receive(conn, KAFKA_ALTER_CONFIGS, 2, 4);
    assert_int_equal(alter_out->results[0].error_code, KAFKA_ERROR_REQUEST_TIMED_OUT);
    const struct kafka_metadata_response *metadata_out = receive(conn, KAFKA_METADATA, 9, 5);
    assert_int_equal(metadata_out->topics[0].error_code, KAFKA_ERROR_NONE);
    fake_unstick(conn);
    assert_int_equal(responses(conn), 0);
    offset_commit_send(conn, 6);
    assert_int_equal(offset_commit_code(conn, 6), KAFKA_ERROR_NONE);
}

static void group_disk_full(struct conn *conn, const struct group_request *request,
                            struct event *event)
{
    (void)conn;
    (void)request;
    event->err = ERR_DISK_FULL;
}

static void a_commit_on_a_full_disk_is_refused_in_words_that_clients_retry(void **state)
{
    struct conn *conn = *state;
    topic_create(conn, "t", 1);
    conn->group = group_disk_full;
    offset_commit_send(conn, 1);
    assert_int_equal(offset_commit_code(conn, 1), KAFKA_ERROR_COORDINATOR_NOT_AVAILABLE);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(versions_of_the_future_are_answered_in_version_0, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(produce_is_offered_from_version_0, setup, teardown),
        cmocka_unit_test_setup_teardown(a_client_must_say_its_name_in_plain_letters, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(garbage_ends_the_connection, setup, teardown),
        cmocka_unit_test_setup_teardown(an_unknown_request_ends_the_connection, setup, teardown),
        cmocka_unit_test_setup_teardown(a_version_that_is_not_served_ends_the_connection, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_request_may_come_byte_by_byte, setup, teardown),
        cmocka_unit_test_setup_teardown(responses_leave_in_the_order_of_the_requests, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_waiting_fetch_gives_way_to_urgent_requests_behind_it,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(several_produces_may_be_under_way, setup, teardown),
        cmocka_unit_test_setup_teardown(too_many_requests_wait_their_turn, setup, teardown),
        cmocka_unit_test_setup_teardown(a_slow_reader_is_not_served_more, setup, teardown),
        cmocka_unit_test_setup_teardown(silence_ends_a_connection_but_waiting_is_none, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_fetch_that_waits_is_no_silence, setup, teardown),
        cmocka_unit_test_setup_teardown(administration_is_answered_in_its_time, setup, teardown),
        cmocka_unit_test_setup_teardown(
            what_the_protocol_gives_no_time_for_is_answered_after_a_while, setup, teardown),
        cmocka_unit_test_setup_teardown(
            a_commit_on_a_full_disk_is_refused_in_words_that_clients_retry, setup, teardown),
        cmocka_unit_test_setup_teardown(a_connection_may_go_while_requests_are_under_way, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
