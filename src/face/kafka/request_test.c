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
        cmocka_unit_test_setup_teardown(a_connection_may_go_while_requests_are_under_way, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
