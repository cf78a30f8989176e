/* Consumers: leases settled, returned and rejected, credit, turns, GET. */
#include "core/cell_steps.h"

/* ---- Leases ---- */

static void a_message_is_delivered_settled_and_gone(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = rig_plain_queue(rig, "q");
    rig_publish_run(rig, q, 0, 2);
    rig_subscribe(rig, q, 5, 9, 0, 0);
    const struct delivery *delivery = rig_got(rig, 5, "0");
    assert_int_equal(delivery->queue, q);
    assert_int_equal(delivery->consumer, 9);
    assert_int_equal(delivery->count, 0);
    rig_got(rig, 5, "1");
    rig_got(rig, 5, "2");
    rig_got_nothing(rig, 5);
    rig_settle(rig, q, 5, 0, 1);
    rig_conn_gone(rig, 5);
    assert_int_equal(rig_ready(rig, q, NULL), 1);
    rig_subscribe(rig, q, 6, 9, 0, 0);
    assert_int_equal(rig_got(rig, 6, "2")->count, 1);
    rig_end(rig);
}

static void confirmed_messages_survive_a_power_cut_and_settled_ones_stay_away(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = rig_plain_queue(rig, "q");
    rig_publish_run(rig, q, 0, 9);
    rig_subscribe(rig, q, 5, 1, 0, 0);
    rig_settle(rig, q, 5, 0, 2);
    rig_settle(rig, q, 5, 5, 6);
    uint64_t seq = rig_publish_to(rig, &q, 1, (struct rig_message){.text = "10", .conn = 3});
    assert_int_equal(rig_confirmed(rig, 3, seq), ERR_AGAIN);
    rig_run(rig, 50);
    assert_int_equal(rig_confirmed(rig, 3, seq), ERR_NONE);
    char before[300], after[300];
    rig_owed(rig, q, before, sizeof before);
    rig_restart(rig, SIM_POWER_CUT);
    rig_owed(rig, q, after, sizeof after);
    assert_string_equal(before, after);
    rig_subscribe(rig, q, 6, 1, 0, 0);
    const char *left[] = {"3", "4", "7", "8", "9", "10"};
    for (int i = 0; i < 6; i++)
        rig_got(rig, 6, left[i]);
    rig_got_nothing(rig, 6);
    rig_end(rig);
}

static void returned_messages_keep_their_place_and_count(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = rig_plain_queue(rig, "q");
    rig_publish_run(rig, q, 0, 5);
    rig_subscribe(rig, q, 5, 1, 4, 0);
    for (int i = 0; i < 4; i++)
        rig_got(rig, 5, (const char *[]){"0", "1", "2", "3"}[i]);
    rig_resolve(rig, COMMAND_RETURN, q, 5, 1, 2); /* credit for two: these same two come again */
    assert_int_equal(rig_got(rig, 5, "1")->count, 1);
    assert_int_equal(rig_got(rig, 5, "2")->count, 1);
    rig_got_nothing(rig, 5);
    rig_resolve(rig, COMMAND_RETURN, q, 5, 2, 2);
    rig_got(rig, 5, "2");
    rig_conn_gone(rig, 5);
    rig_run(rig, 50);
    rig_restart(rig, SIM_POWER_CUT);
    rig_subscribe(rig, q, 6, 1, 0, 0);
    assert_int_equal(rig_got(rig, 6, "0")->count, 1);
    assert_int_equal(rig_got(rig, 6, "1")->count, 2);
    assert_int_equal(rig_got(rig, 6, "2")->count, 3);
    assert_int_equal(rig_got(rig, 6, "3")->count, 1);
    rig_got(rig, 6, "4");
    rig_got(rig, 6, "5");
    rig_end(rig);
}

static void what_the_client_never_saw_does_not_count(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = rig_plain_queue(rig, "q");
    rig_publish_run(rig, q, 0, 0);
    rig_subscribe(rig, q, 5, 1, 1, 0);
    rig_got(rig, 5, "0");
    struct offset_range range = {0, 0};
    rig_tell(rig, (struct command){.type = COMMAND_RETURN,
                                   .asker = {.conn = 5, .channel = 1},
                                   .object = q,
                                   .settle.undelivered = true,
                                   .data = slice_make(&range, sizeof range)});
    rig_run(rig, 1);
    assert_int_equal(rig_got(rig, 5, "0")->count, 0);
    rig_end(rig);
}

static void nobody_settles_the_leases_of_another(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = rig_plain_queue(rig, "q");
    rig_publish_run(rig, q, 0, 1);
    rig_subscribe(rig, q, 5, 1, 0, 0);
    rig_settle(rig, q, 6, 0, UINT64_MAX);
    rig_resolve(rig, COMMAND_RETURN, q, 6, 0, UINT64_MAX);
    rig_resolve(rig, COMMAND_REJECT, q, 6, 0, UINT64_MAX);
    rig_conn_gone(rig, 6);
    assert_int_equal(rig_ready(rig, q, NULL), 0);
    rig_conn_gone(rig, 5);
    assert_int_equal(rig_ready(rig, q, NULL), 2);
    rig_end(rig);
}

static void a_settle_of_everything_ends(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = rig_plain_queue(rig, "q");
    rig_publish_run(rig, q, 0, 9);
    rig_subscribe(rig, q, 5, 1, 0, 0);
    rig_settle(rig, q, 5, 0, UINT64_MAX);
    rig_conn_gone(rig, 5);
    assert_int_equal(rig_ready(rig, q, NULL), 0);
    rig_end(rig);
}

static void a_consumer_that_does_not_acknowledge_settles_by_receiving(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = rig_plain_queue(rig, "q");
    rig_publish_run(rig, q, 0, 4);
    rig_subscribe(rig, q, 5, 1, 2, SUBSCRIBE_NO_ACK); /* prefetch means nothing to it */
    for (int i = 0; i < 5; i++)
        rig_got(rig, 5, (const char *[]){"0", "1", "2", "3", "4"}[i]);
    rig_run(rig, 50);
    rig_restart(rig, SIM_POWER_CUT);
    assert_int_equal(rig_ready(rig, q, NULL), 0);
    rig_end(rig);
}

static void what_is_rejected_is_settled_before_the_next_command(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = rig_plain_queue(rig, "q");
    rig_publish_run(rig, q, 0, 0);
    rig_subscribe(rig, q, 5, 1, 0, 0);
    struct offset_range range = {0, 0};
    rig_tell(rig, (struct command){.type = COMMAND_REJECT,
                                   .asker = {.conn = 5, .channel = 1},
                                   .object = q,
                                   .data = slice_make(&range, sizeof range)});
    /* So a confirm of what is published now says that this is safe, too. */
    char owed[100];
    rig_owed(rig, q, owed, sizeof owed);
    assert_string_equal(owed, "durable bytes 0:");
    rig_end(rig);
}

static void a_cancelled_consumer_keeps_its_leases(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = rig_plain_queue(rig, "q");
    rig_publish_run(rig, q, 0, 1);
    rig_subscribe(rig, q, 5, 1, 1, 0);
    rig_got(rig, 5, "0");
    struct command cancel = {.type = COMMAND_CANCEL,
                             .asker = {.conn = 5, .channel = 1},
                             .object = q,
                             .subscribe.consumer = 1};
    assert_int_equal(rig_ask(rig, cancel).err, ERR_NONE);
    assert_int_equal(rig_ask(rig, cancel).err, ERR_NONE); /* once more is harmless */
    uint64_t consumers;
    assert_int_equal(rig_ready(rig, q, &consumers), 1);
    assert_int_equal(consumers, 0);
    rig_settle(rig, q, 5, 0, 0);
    rig_got_nothing(rig, 5);
    rig_conn_gone(rig, 5);
    assert_int_equal(rig_ready(rig, q, NULL), 1);
    rig_end(rig);
}

static void a_channel_that_goes_gives_back_its_own(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = rig_plain_queue(rig, "q");
    rig_publish_run(rig, q, 0, 1);
    for (uint16_t channel = 1; channel <= 2; channel++)
        assert_int_equal(
            rig_ask(rig, (struct command){.type = COMMAND_SUBSCRIBE,
                                          .asker = {.conn = 5, .channel = channel},
                                          .object = q,
                                          .subscribe = {.consumer = channel, .prefetch = 1}})
                .err,
            ERR_NONE);
    rig_run(rig, 1);
    rig_got(rig, 5, "0");
    rig_got(rig, 5, "1");
    struct event event = rig_ask(
        rig, (struct command){.type = COMMAND_CHANNEL_GONE, .asker = {.conn = 5, .channel = 1}});
    assert_int_equal(event.err, ERR_NONE);
    uint64_t consumers;
    assert_int_equal(rig_ready(rig, q, &consumers), 1);
    assert_int_equal(consumers, 1);
    rig_end(rig);
}

/* ---- Credit and turns ---- */

static void prefetch_bounds_what_is_leased(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = rig_plain_queue(rig, "q");
    rig_publish_run(rig, q, 0, 9);
    rig_subscribe(rig, q, 5, 1, 3, 0);
    for (int i = 0; i < 3; i++)
        assert_non_null(rig_next(rig, EVENT_DELIVER, 5));
    rig_got_nothing(rig, 5);
    rig_settle(rig, q, 5, 1, 2);
    rig_got(rig, 5, "3");
    rig_got(rig, 5, "4");
    rig_got_nothing(rig, 5);
    rig_end(rig);
}

static void the_window_bounds_what_was_not_sent_out(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = rig_plain_queue(rig, "q");
    rig_publish_run(rig, q, 0, 9);
    struct command subscribe = {.type = COMMAND_SUBSCRIBE,
                                .asker = {.conn = 5, .channel = 1},
                                .object = q,
                                .subscribe = {.consumer = 1, .window = 60}};
    assert_int_equal(rig_ask(rig, subscribe).err, ERR_NONE);
    rig_run(rig, 1);
    rig_got(rig, 5, "0"); /* of 32 bytes each */
    rig_got(rig, 5, "1");
    rig_got_nothing(rig, 5);
    struct command window = {.type = COMMAND_WINDOW,
                             .asker = {.conn = 5, .channel = 1},
                             .object = q,
                             .window = {.consumer = 1, .bytes = 20}};
    rig_tell(rig, window);
    rig_run(rig, 1);
    rig_got(rig, 5, "2");
    rig_got_nothing(rig, 5);
    window.window.bytes = UINT32_MAX;
    rig_tell(rig, window);
    rig_run(rig, 1);
    rig_got(rig, 5, "3");
    rig_got(rig, 5, "4");
    rig_got_nothing(rig, 5);
    rig_end(rig);
}

static void what_is_out_with_consumers_is_bounded_by_memory(void **state)
{
    (void)state;
    struct rig *rig = malloc(sizeof *rig);
    rig_init(rig, 1, 1);
    rig->memory_limit = 2000 * LEASE_BYTES;
    rig_open(rig);
    uint64_t q = rig_plain_queue(rig, "q");
    rig_publish_run(rig, q, 0, 1199);
    uint64_t account = rig->account;
    rig_subscribe(rig, q, 5, 1, 0, 0);
    assert_int_equal(rig_ready(rig, q, NULL), 200);
    assert_int_equal(rig->account, account + (uint64_t)1000 * LEASE_BYTES);
    rig_subscribe(rig, q, 6, 1, 0, 0);
    rig_run(rig, 1000);
    rig_got_nothing(rig, 6);
    rig_settle(rig, q, 5, 0, 149); /* what is settled makes room for others */
    rig_run(rig, 1000);
    assert_int_equal(rig_ready(rig, q, NULL), 50);
    rig_conn_gone(rig, 5);
    rig_conn_gone(rig, 6);
    assert_int_equal(rig_ready(rig, q, NULL), 1050);
    assert_int_equal(rig_cell(rig, q)->leases, 0);
    rig_end(rig);
}

static void consumers_take_turns(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = rig_plain_queue(rig, "q");
    for (uint64_t conn = 5; conn < 8; conn++)
        rig_subscribe(rig, q, conn, 1, conn == 6 ? 1 : 0, 0);
    rig_publish_run(rig, q, 0, 6);
    rig_run(rig, 1);
    /* 6 has credit for one. */
    const int expected[][4] = {{0, 3, 5, -1}, {1, -1}, {2, 4, 6, -1}};
    for (int c = 0; c < 3; c++) {
        for (int i = 0; expected[c][i] >= 0; i++) {
            char text[16];
            snprintf(text, sizeof text, "%d", expected[c][i]);
            rig_got(rig, 5 + (uint64_t)c, text);
        }
        rig_got_nothing(rig, 5 + (uint64_t)c);
    }
    rig_end(rig);
}

static void subscribe_with_priority(struct rig *rig, uint64_t q, uint64_t conn, int32_t priority,
                                    uint32_t prefetch)
{
    assert_int_equal(rig_ask(rig, (struct command){.type = COMMAND_SUBSCRIBE,
                                                   .asker = {.conn = conn, .channel = 1},
                                                   .object = q,
                                                   .subscribe = {.consumer = 1,
                                                                 .prefetch = prefetch,
                                                                 .priority = priority}})
                         .err,
                     ERR_NONE);
}

static void higher_priorities_come_first_while_they_have_credit(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = rig_plain_queue(rig, "q");
    subscribe_with_priority(rig, q, 5, 0, 0);
    subscribe_with_priority(rig, q, 6, 10, 2);
    subscribe_with_priority(rig, q, 7, 10, 1);
    rig_publish_run(rig, q, 0, 4);
    rig_run(rig, 1);
    rig_got(rig, 6, "0");
    rig_got(rig, 7, "1");
    rig_got(rig, 6, "2");
    rig_got(rig, 5, "3");
    rig_got(rig, 5, "4");
    rig_settle(rig, q, 7, 1, 1);
    rig_publish_run(rig, q, 5, 6);
    rig_run(rig, 1);
    rig_got(rig, 7, "5");
    rig_got(rig, 5, "6");
    rig_end(rig);
}

static void one_of_very_many_consumers_gets_credit(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = rig_plain_queue(rig, "q");
    enum { MANY = 3000 };
    for (uint64_t i = 0; i < MANY; i++) {
        struct command subscribe = {.type = COMMAND_SUBSCRIBE,
                                    .asker = {.conn = 5 + i % 3, .channel = 1},
                                    .object = q,
                                    .subscribe = {.consumer = 1 + i, .prefetch = 1}};
        rig_tell(rig, subscribe);
    }
    rig_publish_run(rig, q, 0, MANY - 1);
    rig_run(rig, 20);
    rig_forget(rig);
    rig_publish_run(rig, q, MANY, MANY + 20);
    rig_run(rig, 1);
    rig_got_nothing(rig, 6);
    for (uint64_t i = 1; i <= 20; i++) { /* the leases of connection 6 are 1, 4, ... */
        rig_settle(rig, q, 6, 1 + 3 * i, 1 + 3 * i);
        const struct delivery *delivery = &rig_next(rig, EVENT_DELIVER, 6)->event.deliver;
        assert_int_equal(delivery->offset, MANY + i - 1);
        assert_int_equal(delivery->consumer, 2 + 3 * i);
    }
    rig_conn_gone(rig, 6);
    rig_conn_gone(rig, 5);
    assert_int_equal(rig_ready(rig, q, NULL), 2001); /* all but what 7 holds */
    rig_end(rig);
}

static void an_exclusive_consumer_is_alone(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = rig_plain_queue(rig, "q");
    struct command subscribe = {.type = COMMAND_SUBSCRIBE,
                                .asker = {.conn = 5, .channel = 1},
                                .object = q,
                                .subscribe = {.consumer = 1}};
    struct command exclusive = subscribe;
    exclusive.asker.conn = 6;
    exclusive.subscribe.flags = SUBSCRIBE_EXCLUSIVE;
    assert_int_equal(rig_ask(rig, subscribe).err, ERR_NONE);
    assert_int_equal(rig_ask(rig, exclusive).err, ERR_EXCLUSIVE_USE);
    rig_conn_gone(rig, 5);
    assert_int_equal(rig_ask(rig, exclusive).err, ERR_NONE);
    assert_int_equal(rig_ask(rig, subscribe).err, ERR_EXCLUSIVE_USE);
    rig_conn_gone(rig, 6);
    assert_int_equal(rig_ask(rig, subscribe).err, ERR_NONE);
    rig_end(rig);
}

static void a_single_active_consumer_is_followed_when_it_goes(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = rig_queue(rig, "q", rig_args(rig_flag("x-single-active-consumer", true)));
    rig_subscribe(rig, q, 5, 1, 2, 0);
    subscribe_with_priority(rig, q, 6, 0, 0);
    subscribe_with_priority(rig, q, 7, 10, 0); /* does not take over from the active one */
    rig_publish_run(rig, q, 0, 5);
    rig_run(rig, 1);
    rig_got(rig, 5, "0");
    rig_got(rig, 5, "1");
    rig_got_nothing(rig, 5);
    rig_got_nothing(rig, 6);
    rig_got_nothing(rig, 7);
    rig_settle(rig, q, 5, 0, 0);
    rig_got(rig, 5, "2");
    rig_conn_gone(rig, 5);
    for (int i = 1; i <= 5; i++)
        rig_got(rig, 7, (const char *[]){"1", "2", "3", "4", "5"}[i - 1]);
    rig_got_nothing(rig, 6);
    rig_end(rig);
}

/* ---- GET ---- */

static void get_takes_one_message(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = rig_plain_queue(rig, "q");
    rig_get(rig, q, 5, false, NULL);
    rig_publish_run(rig, q, 0, 2);
    assert_int_equal(rig_get(rig, q, 5, false, "0")->ready, 2);
    assert_int_equal(rig_get(rig, q, 5, true, "1")->consumer, 0);
    assert_int_equal(rig_ready(rig, q, NULL), 1);
    rig_settle(rig, q, 5, 0, 0);
    rig_get(rig, q, 5, false, "2");
    rig_get(rig, q, 5, false, NULL);
    rig_conn_gone(rig, 5);
    assert_int_equal(rig_get(rig, q, 6, true, "2")->count, 1);
    rig_run(rig, 50);
    rig_restart(rig, SIM_POWER_CUT);
    assert_int_equal(rig_ready(rig, q, NULL), 0);
    rig_end(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_is_delivered_settled_and_gone),
        cmocka_unit_test(confirmed_messages_survive_a_power_cut_and_settled_ones_stay_away),
        cmocka_unit_test(returned_messages_keep_their_place_and_count),
        cmocka_unit_test(what_the_client_never_saw_does_not_count),
        cmocka_unit_test(nobody_settles_the_leases_of_another),
        cmocka_unit_test(a_settle_of_everything_ends),
        cmocka_unit_test(a_consumer_that_does_not_acknowledge_settles_by_receiving),
        cmocka_unit_test(what_is_rejected_is_settled_before_the_next_command),
        cmocka_unit_test(a_cancelled_consumer_keeps_its_leases),
        cmocka_unit_test(a_channel_that_goes_gives_back_its_own),
        cmocka_unit_test(prefetch_bounds_what_is_leased),
        cmocka_unit_test(the_window_bounds_what_was_not_sent_out),
        cmocka_unit_test(what_is_out_with_consumers_is_bounded_by_memory),
        cmocka_unit_test(consumers_take_turns),
        cmocka_unit_test(higher_priorities_come_first_while_they_have_credit),
        cmocka_unit_test(one_of_very_many_consumers_gets_credit),
        cmocka_unit_test(an_exclusive_consumer_is_alone),
        cmocka_unit_test(a_single_active_consumer_is_followed_when_it_goes),
        cmocka_unit_test(get_takes_one_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
