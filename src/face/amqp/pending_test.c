/* What a connection asks for before it was answered: what may go on at the same time, and in which
 * order the client hears of it when the broker answers in another. */
#include "face/amqp/test_client.h"

/* Queues a, b and c with one, two and three messages; from then on the test gives out the events.
 */
static int setup(void **state)
{
    static const char *const names[] = {"a", "b", "c"};
    struct conn *conn = connected(131072);
    channel_opened(conn, 1);
    for (int i = 0; i < 3; i++) {
        declared(conn, 1, names[i]);
        for (int n = 0; n <= i; n++)
            publish(conn, 1, "", names[i], "m");
    }
    conn->events_held = true;
    conn->commands = 0;
    *state = conn;
    return 0;
}

static int teardown(void **state)
{
    fake_close(*state);
    return 0;
}

static void delete_send(struct conn *conn, uint16_t channel, const char *queue, bool if_empty)
{
    SEND(conn, channel, amqp_queue_delete, .queue = slice_of(queue), .if_empty = if_empty);
}

static void declare_send(struct conn *conn, const char *queue)
{
    SEND(conn, 1, amqp_queue_declare, .queue = slice_of(queue));
}

static void expect_deleted(struct conn *conn, uint16_t channel, uint32_t messages)
{
    struct amqp_queue_delete_ok ok;
    EXPECT(conn, channel, amqp_queue_delete_ok, AMQP_QUEUE_DELETE_OK, &ok);
    assert_int_equal(ok.message_count, messages);
}

static void expect_declared(struct conn *conn, const char *queue, uint32_t messages)
{
    struct amqp_queue_declare_ok ok;
    EXPECT(conn, 1, amqp_queue_declare_ok, AMQP_QUEUE_DECLARE_OK, &ok);
    assert_true(slice_equal(ok.queue, slice_of(queue)));
    assert_int_equal(ok.message_count, messages);
}

static void deletions_of_several_queues_go_on_together_and_are_answered_in_order(void **state)
{
    struct conn *conn = *state;
    delete_send(conn, 1, "a", false);
    delete_send(conn, 1, "b", false);
    delete_send(conn, 1, "c", false);
    assert_int_equal(conn->commands, 3);
    fake_event_next(conn, 2);
    fake_event_next(conn, 1);
    expect_silence(conn);
    fake_event_next(conn, 0);
    expect_deleted(conn, 1, 1);
    expect_deleted(conn, 1, 2);
    expect_deleted(conn, 1, 3);
    expect_silence(conn);
}

static void a_queue_is_declared_anew_only_when_it_is_gone(void **state)
{
    struct conn *conn = *state;
    delete_send(conn, 1, "a", false);
    declare_send(conn, "a");
    delete_send(conn, 1, "a", false);
    assert_int_equal(conn->commands, 1);
    fake_event_next(conn, 0);
    expect_deleted(conn, 1, 1);
    assert_int_equal(conn->commands, 2);
    fake_event_next(conn, 0);
    expect_declared(conn, "a", 0);
    assert_int_equal(conn->commands, 3);
    fake_event_next(conn, 0);
    expect_deleted(conn, 1, 0);
}

static void another_queue_is_declared_meanwhile(void **state)
{
    struct conn *conn = *state;
    delete_send(conn, 1, "a", false);
    declare_send(conn, "new");
    delete_send(conn, 1, "b", false);
    assert_int_equal(conn->commands, 3);
    fake_event_next(conn, 1);
    expect_silence(conn);
    fake_event_next(conn, 0);
    expect_deleted(conn, 1, 1);
    expect_declared(conn, "new", 0);
    fake_event_next(conn, 0);
    expect_deleted(conn, 1, 2);
}

static void what_else_is_asked_waits_for_a_deletion(void **state)
{
    struct conn *conn = *state;
    delete_send(conn, 1, "a", false);
    SEND(conn, 1, amqp_queue_bind, .queue = slice_of("b"), .exchange = slice_of("amq.topic"));
    assert_int_equal(conn->commands, 1);
    fake_event_next(conn, 0);
    expect_deleted(conn, 1, 1);
    assert_int_equal(conn->commands, 2);
    delete_send(conn, 1, "b", false); /* and the other way round */
    assert_int_equal(conn->commands, 2);
    fake_event_next(conn, 0);
    expect(conn, 1, AMQP_QUEUE_BIND_OK);
    fake_event_next(conn, 0);
    expect_deleted(conn, 1, 2);
}

static void a_queue_that_is_not_there_is_answered_in_its_turn(void **state)
{
    struct conn *conn = *state;
    delete_send(conn, 1, "c", false);
    delete_send(conn, 1, "nobody", false);
    expect_silence(conn);
    fake_event_next(conn, 0);
    expect_deleted(conn, 1, 3);
    expect_deleted(conn, 1, 0);
}

static void queues_declared_again_are_answered_in_order(void **state)
{
    struct conn *conn = *state;
    declare_send(conn, "a");
    declare_send(conn, "new");
    declare_send(conn, "b");
    assert_int_equal(conn->commands, 3);
    for (int i = 0; i < 3; i++)
        fake_event_next(conn, 0);
    assert_int_equal(conn->commands, 5); /* how much a and b hold */
    expect_silence(conn);
    fake_event_next(conn, 1);
    expect_silence(conn);
    fake_event_next(conn, 0);
    expect_declared(conn, "a", 1);
    expect_declared(conn, "new", 0);
    expect_declared(conn, "b", 2);
}

static void an_error_comes_in_its_turn_and_ends_what_follows_on_the_channel(void **state)
{
    struct conn *conn = *state;
    conn->events_held = false;
    channel_opened(conn, 2);
    conn->events_held = true;
    delete_send(conn, 1, "a", false);
    delete_send(conn, 1, "b", true);
    delete_send(conn, 2, "c", false);
    SEND(conn, 1, amqp_queue_declare, .queue = slice_of("late"), .passive = true);
    fake_event_next(conn, 2);
    fake_event_next(conn, 1);
    expect_silence(conn);
    conn->events_held = false;
    fake_run(conn);
    expect_deleted(conn, 1, 1);
    expect_channel_close(conn, 1, 406, "PRECONDITION_FAILED - queue 'b' in vhost '/' not empty");
    expect_deleted(conn, 2, 3);
    expect_silence(conn);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(deletions_of_several_queues_go_on_together_and_are_answered_in_order),
        TEST(a_queue_is_declared_anew_only_when_it_is_gone),
        TEST(another_queue_is_declared_meanwhile),
        TEST(what_else_is_asked_waits_for_a_deletion),
        TEST(a_queue_that_is_not_there_is_answered_in_its_turn),
        TEST(queues_declared_again_are_answered_in_order),
        TEST(an_error_comes_in_its_turn_and_ends_what_follows_on_the_channel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
