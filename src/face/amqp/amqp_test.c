/* The AMQP face, driven by frames through a connection of plain memory (fake_conn.h). */
#include "face/amqp/test_client.h"

static int setup(void **state)
{
    struct conn *conn = connected(131072);
    channel_opened(conn, 1);
    declared(conn, 1, "q");
    *state = conn;
    return 0;
}

static int teardown(void **state)
{
    fake_close(*state);
    return 0;
}

/* ---- Tests ---- */

static void a_wrong_protocol_header_is_answered_with_the_right_one(void **state)
{
    (void)state;
    struct conn *conn = fake_open(&face_amqp);
    put(conn, (const uint8_t *)"GET / HT", 8);
    assert_int_equal(conn->output_len, 8);
    assert_memory_equal(conn->output, "AMQP\0\0\11\1", 8);
    assert_true(conn->closed);
    fake_close(conn);
}

static void a_wrong_password_is_refused_with_403(void **state)
{
    (void)state;
    struct conn *conn = fake_open(&face_amqp);
    put(conn, (const uint8_t *)"AMQP\0\0\11\1", 8);
    expect(conn, 0, AMQP_CONNECTION_START);
    uint8_t properties[] = "\14capabilitiesF\0\0\0\37\34authentication_failure_closet\1";
    SEND(conn, 0, amqp_connection_start_ok,
         .client_properties = slice_make(properties, sizeof properties - 1),
         .mechanism = slice_of("PLAIN"), .response = slice_make("\0guest\0wrong", 12),
         .locale = slice_of("en_US"));
    expect_connection_close(conn, 403);
    fake_close(conn);
}

static void a_message_goes_through_a_queue(void **state)
{
    struct conn *conn = *state;
    consumed(conn, 1, "q", true);
    publish(conn, 1, "", "q", "hello");
    assert_int_equal(delivered(conn, 1, "hello"), 1);
    publish(conn, 1, "", "q", "");
    assert_int_equal(delivered(conn, 1, ""), 2);
}

static void bytes_may_come_one_by_one(void **state)
{
    struct conn *conn = *state;
    consumed(conn, 1, "q", true);
    uint8_t frames[2048];
    size_t size = publish_frames(frames, 1, "", "q", "slowly");
    for (size_t i = 0; i < size; i++)
        put(conn, frames + i, 1);
    assert_int_equal(delivered(conn, 1, "slowly"), 1);
}

static void frames_of_two_channels_may_be_mixed(void **state)
{
    struct conn *conn = *state;
    channel_opened(conn, 2);
    consumed(conn, 1, "q", true);
    uint8_t one[2048], two[2048];
    size_t size = publish_frames(one, 1, "", "q", "one");
    size_t method = be32_get(one + 3) + AMQP_FRAME_OVERHEAD_BYTES;
    size_t size_two = publish_frames(two, 2, "", "q", "two");
    memmove(one + method + size_two, one + method, size - method);
    memcpy(one + method, two, size_two);
    put(conn, one, size + size_two);
    delivered(conn, 1, "two");
    delivered(conn, 1, "one");
}

static void a_large_body_comes_and_goes_in_pieces_of_the_frame_size(void **state)
{
    (void)state;
    struct conn *conn = connected(4096);
    channel_opened(conn, 1);
    declared(conn, 1, "q");
    consumed(conn, 1, "q", true);
    enum { BODY = 100000 };
    uint8_t *body = test_malloc(BODY), *frames = test_malloc(BODY * 2);
    for (int i = 0; i < BODY; i++)
        body[i] = (uint8_t)(i * 7);
    struct amqp_basic_publish m = {.exchange = slice_of(""), .routing_key = slice_of("q")};
    struct amqp_properties none = {0};
    size_t size = amqp_basic_publish_frame(frames, 1, &m);
    size += content_frames(frames + size, 1, &none, slice_make(body, BODY), 4088);
    for (size_t at = 0; at < size; at += 1000)
        put(conn, frames + at, size - at < 1000 ? size - at : 1000);
    struct amqp_basic_deliver got;
    EXPECT(conn, 1, amqp_basic_deliver, AMQP_BASIC_DELIVER, &got);
    struct amqp_properties properties;
    assert_true(slice_equal(expect_content(conn, 1, &properties), slice_make(body, BODY)));
    test_free(body);
    test_free(frames);
    fake_close(conn);
}

static void a_body_larger_than_the_limit_is_refused_before_it_comes(void **state)
{
    struct conn *conn = *state;
    uint8_t frames[256];
    struct amqp_basic_publish m = {.exchange = slice_of(""), .routing_key = slice_of("q")};
    size_t size = amqp_basic_publish_frame(frames, 1, &m);
    uint8_t *at = amqp_frame_head_put(frames + size, AMQP_FRAME_HEADER, 1, 14);
    memset(at, 0, 14);
    be16_put(at, 60);
    be64_put(at + 4, 2000000);
    at[14] = AMQP_FRAME_END;
    put(conn, frames, size + 22);
    expect_channel_close(conn, 1, 406,
                         "PRECONDITION_FAILED - message size 2000000 is larger than configured max "
                         "size 1048576");
}

static void acknowledgements_of_one_input_are_one_command(void **state)
{
    struct conn *conn = *state;
    consumed(conn, 1, "q", false);
    for (int i = 0; i < 100; i++) {
        publish(conn, 1, "", "q", "m");
        delivered(conn, 1, "m");
    }
    uint8_t frames[100 * 32];
    size_t size = 0;
    for (uint64_t tag = 1; tag <= 100; tag++) {
        struct amqp_basic_ack m = {.delivery_tag = tag};
        size += amqp_basic_ack_frame(frames + size, 1, &m);
    }
    put(conn, frames, size);
    assert_int_equal(conn->settle_commands, 1);
    for (int i = 0; i < 100; i++)
        assert_true(conn->queues[0].messages[i].gone);
}

static void multiple_acknowledges_up_to_the_tag_and_returns_keep_their_place(void **state)
{
    struct conn *conn = *state;
    consumed(conn, 1, "q", false);
    for (int i = 0; i < 5; i++) {
        char body[2] = {(char)('a' + i), 0};
        publish(conn, 1, "", "q", body);
        delivered(conn, 1, body);
    }
    SEND(conn, 1, amqp_basic_ack, .delivery_tag = 3, .multiple = true);
    SEND(conn, 1, amqp_basic_nack, .delivery_tag = 0, .multiple = true, .requeue = true);
    assert_int_equal(delivered(conn, 1, "d"), 6);
    assert_int_equal(delivered(conn, 1, "e"), 7);
    expect_silence(conn);
    SEND(conn, 1, amqp_basic_reject, .delivery_tag = 6, .requeue = false);
    assert_true(conn->queues[0].messages[3].gone);
}

static void an_unknown_or_repeated_tag_closes_the_channel(void **state)
{
    struct conn *conn = *state;
    consumed(conn, 1, "q", false);
    publish(conn, 1, "", "q", "m");
    delivered(conn, 1, "m");
    SEND(conn, 1, amqp_basic_ack, .delivery_tag = 1);
    SEND(conn, 1, amqp_basic_ack, .delivery_tag = 1);
    expect_channel_close(conn, 1, 406, "PRECONDITION_FAILED - unknown delivery tag 1");
}

static void get_answers_with_the_message_or_that_there_is_none(void **state)
{
    struct conn *conn = *state;
    struct amqp_properties properties;
    publish(conn, 1, "", "q", "m");
    SEND(conn, 1, amqp_basic_get, .queue = slice_of("q"));
    struct amqp_basic_get_ok ok;
    EXPECT(conn, 1, amqp_basic_get_ok, AMQP_BASIC_GET_OK, &ok);
    assert_int_equal(ok.delivery_tag, 1);
    assert_int_equal(ok.message_count, 0);
    assert_true(slice_equal(ok.routing_key, slice_of("q")));
    expect_content(conn, 1, &properties);
    SEND(conn, 1, amqp_basic_get, .queue = slice_of("q"));
    expect(conn, 1, AMQP_BASIC_GET_EMPTY);
    SEND(conn, 1, amqp_basic_ack, .delivery_tag = 1);
    assert_true(conn->queues[0].messages[0].gone);
}

static void confirms_count_from_one_and_a_refusal_is_a_nack(void **state)
{
    struct conn *conn = *state;
    SEND(conn, 1, amqp_confirm_select, 0);
    expect(conn, 1, AMQP_CONFIRM_SELECT_OK);
    struct amqp_basic_ack ack;
    publish(conn, 1, "", "q", "m");
    EXPECT(conn, 1, amqp_basic_ack, AMQP_BASIC_ACK, &ack);
    assert_int_equal(ack.delivery_tag, 1);
    conn->publish_err = ERR_REJECTED;
    publish(conn, 1, "", "q", "m");
    struct amqp_basic_nack nack;
    EXPECT(conn, 1, amqp_basic_nack, AMQP_BASIC_NACK, &nack);
    assert_int_equal(nack.delivery_tag, 2);
    conn->publish_err = ERR_NONE;
    publish(conn, 1, "", "nobody", "m");
    EXPECT(conn, 1, amqp_basic_ack, AMQP_BASIC_ACK, &ack);
    assert_int_equal(ack.delivery_tag, 3);
}

static void an_answer_meant_for_an_earlier_channel_confirms_nothing(void **state)
{
    struct conn *conn = *state;
    channel_opened(conn, 2);
    SEND(conn, 2, amqp_confirm_select, 0);
    expect(conn, 2, AMQP_CONFIRM_SELECT_OK);
    publish(conn, 2, "", "q", "m");
    expect(conn, 2, AMQP_BASIC_ACK);
    SEND(conn, 2, amqp_channel_close, .reply_text = slice_of(""));
    expect(conn, 2, AMQP_CHANNEL_CLOSE_OK);
    channel_opened(conn, 2);
    SEND(conn, 2, amqp_confirm_select, 0);
    expect(conn, 2, AMQP_CONFIRM_SELECT_OK);
    struct event stale = {.type = EVENT_PUBLISHED, .asker = {.channel = 2}};
    stale.first_seq = stale.last_seq = 1;
    conn->face->event(conn->self, &stale);
    expect_silence(conn);
}

static void an_unroutable_mandatory_message_is_returned_before_its_ack(void **state)
{
    struct conn *conn = *state;
    SEND(conn, 1, amqp_confirm_select, 0);
    expect(conn, 1, AMQP_CONFIRM_SELECT_OK);
    struct amqp_properties properties = {.flags = AMQP_MESSAGE_ID, .message_id = slice_of("7")};
    publish_with(conn, 1, "nobody", &properties, true);
    struct amqp_basic_return m;
    EXPECT(conn, 1, amqp_basic_return, AMQP_BASIC_RETURN, &m);
    assert_int_equal(m.reply_code, 312);
    assert_true(slice_equal(m.reply_text, slice_of("NO_ROUTE")));
    struct amqp_properties got;
    expect_content(conn, 1, &got);
    assert_true(slice_equal(got.message_id, slice_of("7")));
    expect(conn, 1, AMQP_BASIC_ACK);
}

static void what_the_user_id_claims_must_be_the_user(void **state)
{
    struct conn *conn = *state;
    struct amqp_properties properties = {.flags = AMQP_USER_ID, .user_id = slice_of("me")};
    publish_with(conn, 1, "q", &properties, false);
    expect_channel_close(
        conn, 1, 406,
        "PRECONDITION_FAILED - user_id property set to 'me' but authenticated user "
        "was 'guest'");
}

static void malformed_headers_never_reach_a_consumer(void **state)
{
    struct conn *conn = *state;
    struct amqp_properties properties = {.flags = AMQP_HEADERS, .headers = slice_of("\3abcU")};
    publish_with(conn, 1, "q", &properties, false);
    expect_connection_close(conn, 502);
}

static void a_global_prefetch_parks_what_is_above_it(void **state)
{
    struct conn *conn = *state;
    declared(conn, 1, "r");
    SEND(conn, 1, amqp_basic_qos, .prefetch_count = 2, .global = true);
    expect(conn, 1, AMQP_BASIC_QOS_OK);
    consumed(conn, 1, "q", false);
    SEND(conn, 1, amqp_basic_consume, .queue = slice_of("r"), .consumer_tag = slice_of("tag2"));
    expect(conn, 1, AMQP_BASIC_CONSUME_OK);
    publish(conn, 1, "", "q", "1");
    publish(conn, 1, "", "r", "2");
    publish(conn, 1, "", "q", "3");
    publish(conn, 1, "", "r", "4");
    delivered(conn, 1, "1");
    delivered(conn, 1, "2");
    expect_silence(conn);
    SEND(conn, 1, amqp_basic_ack, .delivery_tag = 1);
    delivered(conn, 1, "3");
    expect_silence(conn);
    SEND(conn, 1, amqp_channel_close, .reply_text = slice_of(""));
    expect(conn, 1, AMQP_CHANNEL_CLOSE_OK);
    assert_int_equal(conn->queues[1].messages[1].count, 0); /* "4" was never shown */
}

static void closing_a_channel_gives_its_messages_back(void **state)
{
    struct conn *conn = *state;
    channel_opened(conn, 2);
    consumed(conn, 2, "q", false);
    publish(conn, 1, "", "q", "m");
    delivered(conn, 2, "m");
    SEND(conn, 2, amqp_channel_close, .reply_text = slice_of(""));
    expect(conn, 2, AMQP_CHANNEL_CLOSE_OK);
    assert_false(conn->queues[0].messages[0].leased);
    consumed(conn, 1, "q", false);
    struct amqp_basic_deliver m;
    EXPECT(conn, 1, amqp_basic_deliver, AMQP_BASIC_DELIVER, &m);
    assert_true(m.redelivered);
}

static void deleting_a_queue_tells_its_consumers(void **state)
{
    struct conn *conn = *state;
    consumed(conn, 1, "q", false);
    SEND(conn, 1, amqp_queue_delete, .queue = slice_of("q"));
    struct amqp_basic_cancel m;
    EXPECT(conn, 1, amqp_basic_cancel, AMQP_BASIC_CANCEL, &m);
    assert_true(slice_equal(m.consumer_tag, slice_of("tag")));
    expect(conn, 1, AMQP_QUEUE_DELETE_OK);
}

static void cancelling_is_answered_and_unknown_tags_too(void **state)
{
    struct conn *conn = *state;
    consumed(conn, 1, "q", false);
    SEND(conn, 1, amqp_basic_cancel, .consumer_tag = slice_of("tag"));
    expect(conn, 1, AMQP_BASIC_CANCEL_OK);
    publish(conn, 1, "", "q", "m");
    expect_silence(conn);
    SEND(conn, 1, amqp_basic_cancel, .consumer_tag = slice_of("nobody"));
    expect(conn, 1, AMQP_BASIC_CANCEL_OK);
}

static void a_missing_queue_closes_the_channel_and_the_number_can_be_used_again(void **state)
{
    struct conn *conn = *state;
    SEND(conn, 1, amqp_queue_declare, .queue = slice_of("none"), .passive = true);
    expect_channel_close(conn, 1, 404, "NOT_FOUND - no queue 'none' in vhost '/'");
    publish(conn, 1, "", "q", "dropped");
    SEND(conn, 1, amqp_queue_declare, .queue = slice_of("q"));
    expect_silence(conn);
    SEND(conn, 1, amqp_channel_close_ok, 0);
    channel_opened(conn, 1);
    struct amqp_queue_declare_ok ok;
    SEND(conn, 1, amqp_queue_declare, .queue = slice_of("q"), .passive = true);
    EXPECT(conn, 1, amqp_queue_declare_ok, AMQP_QUEUE_DECLARE_OK, &ok);
    assert_int_equal(ok.message_count, 0);
}

static void a_queue_declared_again_tells_how_much_it_holds(void **state)
{
    struct conn *conn = *state;
    publish(conn, 1, "", "q", "m");
    SEND(conn, 1, amqp_queue_declare, .queue = slice_of("q"));
    struct amqp_queue_declare_ok ok;
    EXPECT(conn, 1, amqp_queue_declare_ok, AMQP_QUEUE_DECLARE_OK, &ok);
    assert_int_equal(ok.message_count, 1);
}

static void the_server_makes_names_that_differ(void **state)
{
    struct conn *conn = *state;
    char first[64] = {0};
    for (int i = 0; i < 2; i++) {
        SEND(conn, 1, amqp_queue_declare, .exclusive = true);
        struct amqp_queue_declare_ok ok;
        EXPECT(conn, 1, amqp_queue_declare_ok, AMQP_QUEUE_DECLARE_OK, &ok);
        assert_int_equal(ok.queue.len, 30);
        assert_memory_equal(ok.queue.data, "amq.gen-", 8);
        assert_memory_not_equal(first, ok.queue.data, 30);
        memcpy(first, ok.queue.data, 30);
    }
}

static void declarations_without_waiting_may_follow_each_other(void **state)
{
    struct conn *conn = *state;
    uint8_t frames[4096];
    size_t size = 0;
    for (int i = 0; i < 20; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "n%d", i);
        struct amqp_queue_declare d = {.queue = slice_of(name), .no_wait = true};
        size += amqp_queue_declare_frame(frames + size, 1, &d);
        struct amqp_queue_bind b = {.queue = slice_of(name),
                                    .exchange = slice_of("amq.fanout"),
                                    .routing_key = slice_of(""),
                                    .no_wait = true};
        size += amqp_queue_bind_frame(frames + size, 1, &b);
    }
    size += publish_frames(frames + size, 1, "amq.fanout", "", "to all");
    put(conn, frames, size);
    expect_silence(conn);
    for (uint32_t i = 0; i < 20; i++)
        assert_int_equal(conn->queues[i].count, 1);
}

static void a_transaction_takes_effect_at_its_commit(void **state)
{
    struct conn *conn = *state;
    SEND(conn, 1, amqp_tx_select, 0);
    expect(conn, 1, AMQP_TX_SELECT_OK);
    publish(conn, 1, "", "q", "a");
    SEND(conn, 1, amqp_tx_rollback, 0);
    expect(conn, 1, AMQP_TX_ROLLBACK_OK);
    publish(conn, 1, "", "q", "b");
    assert_int_equal(conn->queue_count, 0);
    SEND(conn, 1, amqp_tx_commit, 0);
    expect(conn, 1, AMQP_TX_COMMIT_OK);
    assert_int_equal(conn->queues[0].count, 1);
    conn->publish_err = ERR_REJECTED;
    publish(conn, 1, "", "q", "c");
    SEND(conn, 1, amqp_tx_commit, 0);
    expect_channel_close(conn, 1, 406, "PRECONDITION_FAILED - partial tx completion");
}

static void heartbeats_are_sent_and_missed_ones_end_the_connection(void **state)
{
    struct conn *conn = *state;
    fake_time(conn, 5001);
    assert_int_equal(conn->output_len, 8);
    assert_int_equal(conn->output[0], AMQP_FRAME_HEARTBEAT);
    for (int i = 0; i < 4 && !conn->closed; i++)
        fake_time(conn, 5001);
    assert_true(conn->closed);
}

static void publishers_are_told_when_the_broker_blocks_them(void **state)
{
    struct conn *conn = *state;
    publish(conn, 1, "", "q", "m");
    conn->blocked = true;
    fake_time(conn, 1000);
    struct slice reason = expect(conn, 0, AMQP_CONNECTION_BLOCKED);
    assert_true(slice_equal(reason, slice_of("\x0blow on disk")));
    conn->blocked = false;
    fake_time(conn, 1000);
    expect(conn, 0, AMQP_CONNECTION_UNBLOCKED);
}

static void closing_takes_exclusive_queues_along_before_it_is_answered(void **state)
{
    struct conn *conn = *state;
    SEND(conn, 1, amqp_queue_declare, .queue = slice_of("mine"), .exclusive = true);
    expect(conn, 1, AMQP_QUEUE_DECLARE_OK);
    SEND(conn, 0, amqp_connection_close, .reply_code = 200, .reply_text = slice_of("bye"));
    expect(conn, 0, AMQP_CONNECTION_CLOSE_OK);
    assert_true(conn->closed);
    assert_null(catalog_queue(conn->catalog, 0, slice_of("mine")));
}

static void after_an_error_nothing_but_close_ok_is_taken(void **state)
{
    struct conn *conn = *state;
    put(conn, (const uint8_t *)"\115\0\1\0\0\0\0\316", 8);
    expect_connection_close(conn, 501);
    SEND(conn, 1, amqp_queue_declare, .queue = slice_of("late"));
    expect_silence(conn);
    SEND(conn, 0, amqp_connection_close_ok, 0);
    assert_true(conn->closed);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wrong_protocol_header_is_answered_with_the_right_one),
        cmocka_unit_test(a_wrong_password_is_refused_with_403),
        TEST(a_message_goes_through_a_queue),
        TEST(bytes_may_come_one_by_one),
        TEST(frames_of_two_channels_may_be_mixed),
        cmocka_unit_test(a_large_body_comes_and_goes_in_pieces_of_the_frame_size),
        TEST(a_body_larger_than_the_limit_is_refused_before_it_comes),
        TEST(acknowledgements_of_one_input_are_one_command),
        TEST(multiple_acknowledges_up_to_the_tag_and_returns_keep_their_place),
        TEST(an_unknown_or_repeated_tag_closes_the_channel),
        TEST(get_answers_with_the_message_or_that_there_is_none),
        TEST(confirms_count_from_one_and_a_refusal_is_a_nack),
        TEST(an_answer_meant_for_an_earlier_channel_confirms_nothing),
        TEST(an_unroutable_mandatory_message_is_returned_before_its_ack),
        TEST(what_the_user_id_claims_must_be_the_user),
        TEST(malformed_headers_never_reach_a_consumer),
        TEST(a_global_prefetch_parks_what_is_above_it),
        TEST(closing_a_channel_gives_its_messages_back),
        TEST(deleting_a_queue_tells_its_consumers),
        TEST(cancelling_is_answered_and_unknown_tags_too),
        TEST(a_missing_queue_closes_the_channel_and_the_number_can_be_used_again),
        TEST(a_queue_declared_again_tells_how_much_it_holds),
        TEST(the_server_makes_names_that_differ),
        TEST(declarations_without_waiting_may_follow_each_other),
        TEST(a_transaction_takes_effect_at_its_commit),
        TEST(heartbeats_are_sent_and_missed_ones_end_the_connection),
        TEST(publishers_are_told_when_the_broker_blocks_them),
        TEST(closing_takes_exclusive_queues_along_before_it_is_answered),
        TEST(after_an_error_nothing_but_close_ok_is_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
