/* Produce when the broker is slow: time that is over, answers that come later. */
#include "face/kafka/test_client.h"

static uint64_t partition_id(struct conn *conn, const char *topic, int32_t index)
{
    uint64_t id = 0;
    assert_true(topic_partition_id(catalog_topic(conn->catalog, 0, slice_of(topic)), index, &id));
    return id;
}

static void produce_send(struct conn *conn, int32_t id, int16_t acks, int32_t timeout_ms)
{
    const char *values[] = {"a", "b"};
    uint8_t memory[BATCH_BYTES_MAX];
    struct produce_call produce;
    produce_fill(&produce, "t", 0, acks, batch_make(memory, 5, values, 2));
    produce.in.timeout_ms = timeout_ms;
    send_request(conn, KAFKA_PRODUCE, 9, id, &produce.in);
}

static void outcome_expect(struct conn *conn, int32_t id, int16_t code, int64_t offset)
{
    const struct kafka_produce_response *out = receive(conn, KAFKA_PRODUCE, 9, id);
    assert_int_equal(out->topics[0].partitions[0].error_code, code);
    assert_int_equal(out->topics[0].partitions[0].base_offset, offset);
}

static void who_wants_an_answer_gets_it_when_it_is_safe(void **state)
{
    struct conn *conn = *state;
    topic_create(conn, "t", 1);
    for (int16_t acks = -1; acks <= 1; acks++) {
        produce_send(conn, 1, acks, 3000);
        fake_time(conn, 1);
        assert_int_equal(conn->waits, acks != 0);
        if (acks != 0)
            outcome_expect(conn, 1, 0, acks == -1 ? 0 : 4);
    }
}

static void one_whose_time_is_over_is_told_so_and_the_late_answer_is_dropped(void **state)
{
    struct conn *conn = *state;
    topic_create(conn, "t", 1);
    for (int16_t acks = -1; acks <= 1; acks += 2) {
        conn->stuck = partition_id(conn, "t", 0);
        produce_send(conn, 1, acks, 3000);
        fake_time(conn, 2999);
        assert_int_equal(responses(conn), 0);
        fake_time(conn, 1);
        outcome_expect(conn, 1, KAFKA_ERROR_REQUEST_TIMED_OUT, -1);
        fake_unstick(conn);
        assert_int_equal(responses(conn), 0);
    }
    produce_send(conn, 2, -1, 3000);
    outcome_expect(conn, 2, 0, 4);
}

static void only_the_partitions_that_are_not_done_are_timed_out(void **state)
{
    struct conn *conn = *state;
    topic_create(conn, "t", 3);
    const char *values[] = {"a"};
    uint8_t memory[BATCH_BYTES_MAX];
    struct kafka_produce_request_partition partitions[4];
    struct produce_call produce;
    produce_fill(&produce, "t", 0, -1, batch_make(memory, 5, values, 1));
    for (int32_t i = 0; i < 4; i++) {
        partitions[i] = produce.partition;
        partitions[i].partition_index = i; /* the last one is not there */
    }
    produce.topic.partitions = partitions;
    produce.topic.partitions_count = 4;
    produce.in.timeout_ms = 1000;
    conn->stuck = partition_id(conn, "t", 1);
    send_request(conn, KAFKA_PRODUCE, 9, 1, &produce.in);
    assert_int_equal(responses(conn), 0);
    fake_time(conn, 1000);
    const struct kafka_produce_response *out = receive(conn, KAFKA_PRODUCE, 9, 1);
    static const int16_t codes[] = {0, KAFKA_ERROR_REQUEST_TIMED_OUT, 0,
                                    KAFKA_ERROR_UNKNOWN_TOPIC_OR_PARTITION};
    for (int32_t i = 0; i < 4; i++) {
        assert_int_equal(out->topics[0].partitions[i].error_code, codes[i]);
        assert_int_equal(out->topics[0].partitions[i].base_offset, codes[i] == 0 ? 0 : -1);
    }
    fake_unstick(conn);
    assert_int_equal(responses(conn), 0);
}

static void responses_stay_in_order_when_a_later_one_is_timed_out_first(void **state)
{
    struct conn *conn = *state;
    topic_create(conn, "t", 1);
    conn->stuck = partition_id(conn, "t", 0);
    produce_send(conn, 1, -1, 5000);
    produce_send(conn, 2, -1, 1000);
    produce_send(conn, 3, -1, 9000);
    fake_time(conn, 1000);
    assert_int_equal(responses(conn), 0);
    fake_time(conn, 4000);
    outcome_expect(conn, 1, KAFKA_ERROR_REQUEST_TIMED_OUT, -1);
    outcome_expect(conn, 2, KAFKA_ERROR_REQUEST_TIMED_OUT, -1);
    assert_int_equal(responses(conn), 0);
    fake_unstick(conn);
    outcome_expect(conn, 3, 0, 4);
}

static void late_answers_find_no_other_request(void **state)
{
    struct conn *conn = *state;
    topic_create(conn, "t", 1);
    conn->stuck = partition_id(conn, "t", 0);
    produce_send(conn, 0, -1, 1000);
    fake_time(conn, 1000);
    outcome_expect(conn, 0, KAFKA_ERROR_REQUEST_TIMED_OUT, -1);
    for (int32_t i = 1; i <= REQUESTS_MAX; i++) /* the last one stands in its place */
        produce_send(conn, i, -1, 5000);
    struct event late = conn->late[0];
    fake_push(&conn->events, &conn->event_count, &conn->event_capacity, &late);
    memmove(conn->late, conn->late + 1, --conn->late_count * sizeof late);
    fake_run(conn);
    assert_int_equal(responses(conn), 0);
    fake_unstick(conn);
    for (int32_t i = 1; i <= REQUESTS_MAX; i++)
        outcome_expect(conn, i, 0, 2 * i);
}

static void a_moment_is_given_to_those_that_give_none(void **state)
{
    struct conn *conn = *state;
    topic_create(conn, "t", 1);
    conn->stuck = partition_id(conn, "t", 0);
    produce_send(conn, 1, -1, 0);
    produce_send(conn, 2, -1, -1);
    fake_time(conn, TIMEOUT_MS_MIN - 1);
    fake_unstick(conn);
    outcome_expect(conn, 1, 0, 0);
    outcome_expect(conn, 2, 0, 2);
}

static void the_connection_may_go_before_late_answers_come(void **state)
{
    struct conn *conn = *state;
    topic_create(conn, "t", 1);
    conn->stuck = partition_id(conn, "t", 0);
    produce_send(conn, 1, -1, 1000);
    produce_send(conn, 2, -1, 5000);
    fake_time(conn, 1000);
    outcome_expect(conn, 1, KAFKA_ERROR_REQUEST_TIMED_OUT, -1);
    /* teardown closes it */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(who_wants_an_answer_gets_it_when_it_is_safe, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            one_whose_time_is_over_is_told_so_and_the_late_answer_is_dropped, setup, teardown),
        cmocka_unit_test_setup_teardown(only_the_partitions_that_are_not_done_are_timed_out, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(responses_stay_in_order_when_a_later_one_is_timed_out_first,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(late_answers_find_no_other_request, setup, teardown),
        cmocka_unit_test_setup_teardown(a_moment_is_given_to_those_that_give_none, setup, teardown),
        cmocka_unit_test_setup_teardown(the_connection_may_go_before_late_answers_come, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
