/* Publisher confirms that come in another order than the messages: what the publisher is told. */
#include "face/amqp/test_client.h"

enum { MESSAGES = 4 };

/* A publisher of messages that nobody confirmed yet. */
static int setup(void **state)
{
    struct conn *conn = connected(131072);
    channel_opened(conn, 1);
    declared(conn, 1, "q");
    SEND(conn, 1, amqp_confirm_select, 0);
    expect(conn, 1, AMQP_CONFIRM_SELECT_OK);
    conn->publish_unanswered = true;
    for (int i = 0; i < MESSAGES; i++)
        publish(conn, 1, "", "q", "m");
    expect_silence(conn);
    *state = conn;
    return 0;
}

static int teardown(void **state)
{
    fake_close(*state);
    return 0;
}

/* The broker confirms messages, counted from one. */
static void confirmed(struct conn *conn, uint64_t first, uint64_t last, enum err err)
{
    struct event event = {.type = EVENT_PUBLISHED, .err = err, .asker = {.channel = 1}};
    uint64_t base = conn->publish_seq - MESSAGES;
    event.first_seq = base + first;
    event.last_seq = base + last;
    conn->face->event(conn->self, &event);
}

static void expect_ack(struct conn *conn, uint64_t tag, bool multiple)
{
    struct amqp_basic_ack ack;
    EXPECT(conn, 1, amqp_basic_ack, AMQP_BASIC_ACK, &ack);
    assert_int_equal(ack.delivery_tag, tag);
    assert_int_equal(ack.multiple, multiple);
}

static void expect_nack(struct conn *conn, uint64_t tag)
{
    struct amqp_basic_nack nack;
    EXPECT(conn, 1, amqp_basic_nack, AMQP_BASIC_NACK, &nack);
    assert_int_equal(nack.delivery_tag, tag);
    assert_false(nack.multiple);
}

static void what_is_confirmed_at_once_is_one_ack(void **state)
{
    struct conn *conn = *state;
    confirmed(conn, 1, 4, ERR_NONE);
    expect_ack(conn, 4, true);
    expect_silence(conn);
}

static void what_overtakes_is_acknowledged_by_itself(void **state)
{
    struct conn *conn = *state;
    confirmed(conn, 2, 3, ERR_NONE);
    expect_ack(conn, 2, false);
    expect_ack(conn, 3, false);
    expect_silence(conn);
}

static void one_before_some_that_overtook_it_is_acknowledged_by_its_own_tag(void **state)
{
    struct conn *conn = *state;
    confirmed(conn, 2, 2, ERR_NONE);
    expect_ack(conn, 2, false);
    confirmed(conn, 3, 3, ERR_NONE);
    expect_ack(conn, 3, false);
    confirmed(conn, 1, 1, ERR_NONE);
    expect_ack(conn, 1, false);
    expect_silence(conn);
    confirmed(conn, 4, 4, ERR_NONE);
    expect_ack(conn, 4, false);
    expect_silence(conn);
}

static void an_ack_of_many_ends_before_those_that_overtook(void **state)
{
    struct conn *conn = *state;
    confirmed(conn, 3, 3, ERR_NONE);
    expect_ack(conn, 3, false);
    confirmed(conn, 1, 2, ERR_NONE);
    expect_ack(conn, 2, true);
    expect_silence(conn);
}

static void an_ack_of_many_goes_past_those_that_overtook(void **state)
{
    struct conn *conn = *state;
    confirmed(conn, 2, 2, ERR_NONE);
    expect_ack(conn, 2, false);
    confirmed(conn, 1, 4, ERR_NONE);
    expect_ack(conn, 4, true);
    expect_silence(conn);
}

static void a_refusal_that_overtook_is_not_acknowledged_later(void **state)
{
    struct conn *conn = *state;
    confirmed(conn, 2, 2, ERR_REJECTED);
    expect_nack(conn, 2);
    confirmed(conn, 1, 1, ERR_NONE);
    expect_ack(conn, 1, false);
    expect_silence(conn);
    confirmed(conn, 3, 3, ERR_REJECTED);
    expect_nack(conn, 3);
    confirmed(conn, 4, 4, ERR_NONE);
    expect_ack(conn, 4, false);
    expect_silence(conn);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_confirmed_at_once_is_one_ack),
        TEST(what_overtakes_is_acknowledged_by_itself),
        TEST(one_before_some_that_overtook_it_is_acknowledged_by_its_own_tag),
        TEST(an_ack_of_many_ends_before_those_that_overtook),
        TEST(an_ack_of_many_goes_past_those_that_overtook),
        TEST(a_refusal_that_overtook_is_not_acknowledged_later),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
