/* Room for what is not complete: who waits for it, who is refused it, and who has to give it up. */
#include "face/amqp/test_client.h"

enum { BODY_BYTES = 100000 };

static int setup(void **state)
{
    struct conn *conn = connected(131072);
    channel_opened(conn, 1);
    channel_opened(conn, 2);
    declared(conn, 1, "q");
    conn->gather_max = BODY_BYTES * 3 / 2;
    *state = conn;
    return 0;
}

static int teardown(void **state)
{
    fake_close(*state);
    return 0;
}

/* basic.publish and a header that announces the body. */
static void begin(struct conn *conn, uint16_t channel)
{
    uint8_t frame[64], head[AMQP_CONTENT_HEAD_BYTES + 2] = {0, 60};
    SEND(conn, channel, amqp_basic_publish, .routing_key = slice_of("q"));
    be64_put(head + 4, BODY_BYTES);
    uint8_t *at = amqp_frame_head_put(frame, AMQP_FRAME_HEADER, channel, sizeof head);
    memcpy(at, head, sizeof head);
    at[sizeof head] = AMQP_FRAME_END;
    put(conn, frame, sizeof head + AMQP_FRAME_OVERHEAD_BYTES);
}

static void body(struct conn *conn, uint16_t channel, size_t len)
{
    uint8_t *frame = calloc(1, len + AMQP_FRAME_OVERHEAD_BYTES);
    assert_non_null(frame);
    uint8_t *at = amqp_frame_head_put(frame, AMQP_FRAME_BODY, channel, len);
    at[len] = AMQP_FRAME_END;
    put(conn, frame, len + AMQP_FRAME_OVERHEAD_BYTES);
    free(frame);
}

static void wait_ms(struct conn *conn, int64_t ms)
{
    for (int64_t at = 0; at < ms; at += 10) {
        fake_time(conn, 10);
        fake_run(conn);
    }
}

/* ---- Tests ---- */

static void a_body_takes_room_from_its_header_to_its_end(void **state)
{
    struct conn *conn = *state;
    begin(conn, 1);
    assert_true(conn->gathered >= BODY_BYTES);
    body(conn, 1, BODY_BYTES);
    assert_int_equal(conn->gathered, 0);
    assert_int_equal(conn->queues[0].count, 1);
}

static void a_body_waits_while_others_have_all_the_room(void **state)
{
    struct conn *conn = *state;
    size_t others = conn->gather_max;
    conn->gathered = others;
    begin(conn, 1);
    body(conn, 1, BODY_BYTES);
    wait_ms(conn, 60000);
    assert_true(conn->held);
    assert_int_equal(conn->queue_count > 0 ? conn->queues[0].count : 0, 0);
    conn->gathered -= others;
    wait_ms(conn, 20);
    assert_false(conn->held);
    assert_int_equal(conn->queues[0].count, 1);
    assert_int_equal(conn->gathered, 0);
}

static void whoever_sends_nothing_gives_up_its_room_when_others_wait(void **state)
{
    struct conn *conn = *state;
    begin(conn, 1);
    wait_ms(conn, 4000);
    expect_silence(conn);
    conn->gather_refused = true;
    wait_ms(conn, 1000);
    expect_connection_close(conn, 506);
    assert_int_equal(conn->gathered, 0);
}

static void whoever_goes_on_sending_keeps_its_room(void **state)
{
    struct conn *conn = *state;
    begin(conn, 1);
    conn->gather_refused = true;
    for (int i = 0; i < 50; i++) {
        body(conn, 1, BODY_BYTES / 50);
        wait_ms(conn, 20);
    }
    assert_int_equal(conn->queues[0].count, 1);
}

static void a_connection_that_waits_for_itself_is_ended(void **state)
{
    struct conn *conn = *state;
    begin(conn, 1);
    begin(conn, 2);
    assert_true(conn->held);
    wait_ms(conn, 3000);
    expect_connection_close(conn, 506);
    assert_int_equal(conn->gathered, 0);
}

static void a_channel_that_closes_gives_its_room_back(void **state)
{
    struct conn *conn = *state;
    begin(conn, 1);
    publish(conn, 2, "nowhere", "q", "x");
    expect_channel_close(conn, 2, 404, "NOT_FOUND - no exchange 'nowhere' in vhost '/'");
    assert_true(conn->gathered > 0);
    begin(conn, 2); /* dropped: the channel is closed */
    assert_false(conn->held);
}

static void a_transaction_beyond_the_room_is_refused(void **state)
{
    struct conn *conn = *state;
    SEND(conn, 1, amqp_tx_select, 0);
    expect(conn, 1, AMQP_TX_SELECT_OK);
    for (int i = 0; i < 100; i++)
        publish(conn, 1, "", "q", "small");
    assert_true(conn->gathered > 500);
    SEND(conn, 1, amqp_tx_rollback, 0);
    expect(conn, 1, AMQP_TX_ROLLBACK_OK);
    assert_int_equal(conn->gathered, 0);
    for (int i = 0; i < 4000 && conn->output_len == 0; i++)
        publish(conn, 1, "", "q", "small");
    expect_connection_close(conn, 506);
}

static void acknowledgements_of_a_transaction_are_bounded(void **state)
{
    struct conn *conn = *state;
    SEND(conn, 1, amqp_tx_select, 0);
    expect(conn, 1, AMQP_TX_SELECT_OK);
    for (int i = 0; i < 10000 && conn->output_len == 0; i++)
        SEND(conn, 1, amqp_basic_ack, .delivery_tag = 0, .multiple = true);
    expect_connection_close(conn, 506);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_body_takes_room_from_its_header_to_its_end),
        TEST(a_body_waits_while_others_have_all_the_room),
        TEST(whoever_sends_nothing_gives_up_its_room_when_others_wait),
        TEST(whoever_goes_on_sending_keeps_its_room),
        TEST(a_connection_that_waits_for_itself_is_ended),
        TEST(a_channel_that_closes_gives_its_room_back),
        TEST(a_transaction_beyond_the_room_is_refused),
        TEST(acknowledgements_of_a_transaction_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
