/* A queue's life: its limits, what expires, purging and deletion, what a restart keeps. */
#include "core/cell_steps.h"

/* ---- Limits ---- */

static void over_its_length_a_queue_drops_its_head(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = rig_queue(rig, "q", rig_args(rig_int("x-max-length", 3)));
    rig_publish_run(rig, q, 0, 9);
    rig_run(rig, 5);
    assert_int_equal(rig_ready(rig, q, NULL), 3);
    rig_subscribe(rig, q, 5, 1, 2, 0);
    rig_got(rig, 5, "7");
    rig_got(rig, 5, "8");
    rig_publish_run(rig, q, 10, 12); /* those that are leased do not count */
    rig_run(rig, 5);
    rig_conn_gone(rig, 5);
    rig_run(rig, 5);
    rig_subscribe(rig, q, 6, 1, 0, 0);
    rig_got(rig, 6, "10");
    rig_got(rig, 6, "11");
    rig_got(rig, 6, "12");
    rig_end(rig);
}

static void over_its_bytes_it_drops_no_more_than_it_must(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = rig_queue(rig, "q", rig_args(rig_int("x-max-length-bytes", 20)));
    for (int i = 0; i < 10; i++)
        rig_publish(rig, q,
                    (const char *[]){"aaaaa", "bbbbb", "ccccc", "ddddd", "eeeee", "fffff", "ggggg",
                                     "hhhhh", "iiiii", "jjjjj"}[i]);
    rig_run(rig, 5);
    assert_int_equal(rig_ready(rig, q, NULL), 4);
    rig_publish(rig, q, "kkkkkkkk");
    rig_run(rig, 5);
    rig_subscribe(rig, q, 5, 1, 0, 0);
    rig_got(rig, 5, "iiiii");
    rig_got(rig, 5, "jjjjj");
    rig_got(rig, 5, "kkkkkkkk");
    rig_publish(rig, q, "what a consumer takes at once meets no limit");
    rig_run(rig, 5);
    rig_got(rig, 5, "what a consumer takes at once meets no limit");
    uint64_t other = rig_queue(rig, "other", rig_args(rig_int("x-max-length-bytes", 20)));
    rig_publish(rig, other, "aaaaa");
    rig_publish(rig, other, "larger than the limit by itself");
    rig_run(rig, 5);
    assert_int_equal(rig_ready(rig, other, NULL), 0);
    rig_end(rig);
}

static void or_it_rejects_what_is_published(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = rig_queue(
        rig, "q", rig_args(rig_int("x-max-length", 2), rig_text("x-overflow", "reject-publish")));
    uint64_t seqs[4];
    for (int i = 0; i < 4; i++)
        seqs[i] = rig_publish_to(rig, &q, 1, (struct rig_message){.text = "x", .conn = 3});
    rig_run(rig, 50);
    for (int i = 0; i < 4; i++)
        assert_int_equal(rig_confirmed(rig, 3, seqs[i]), i < 2 ? ERR_NONE : ERR_REJECTED);
    assert_int_equal(rig_ready(rig, q, NULL), 2);
    rig_get(rig, q, 5, true, "x");
    uint64_t seq = rig_publish_to(rig, &q, 1, (struct rig_message){.text = "x", .conn = 3});
    rig_run(rig, 50);
    assert_int_equal(rig_confirmed(rig, 3, seq), ERR_NONE);
    rig_end(rig);
}

/* ---- Time ---- */

static void messages_expire_by_the_queues_time(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = rig_queue(rig, "q", rig_args(rig_int("x-message-ttl", 100)));
    rig_publish_run(rig, q, 0, 0);
    rig_run(rig, 60);
    rig_publish_run(rig, q, 1, 1);
    rig_run(rig, 60);
    assert_int_equal(rig_ready(rig, q, NULL), 1);
    rig_run(rig, 60);
    assert_int_equal(rig_ready(rig, q, NULL), 0);
    rig_run(rig, 50);
    rig_restart(rig, SIM_POWER_CUT);
    assert_int_equal(rig_ready(rig, q, NULL), 0);
    rig_end(rig);
}

static void messages_expire_by_their_own_time_at_the_head(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = rig_plain_queue(rig, "q");
    rig_publish_to(rig, &q, 1, (struct rig_message){.text = "0", .expiry_ms = 500});
    rig_publish_to(rig, &q, 1, (struct rig_message){.text = "1", .expiry_ms = 100});
    rig_publish(rig, q, "2");
    rig_run(rig, 300);
    assert_int_equal(rig_ready(rig, q, NULL), 3); /* 1 waits behind 0 */
    rig_restart(rig, SIM_POWER_CUT);
    rig_run(rig, 300);
    assert_int_equal(rig_ready(rig, q, NULL), 1);
    rig_get(rig, q, 5, true, "2");
    rig_end(rig);
}

static void an_expired_message_behind_the_head_is_not_delivered(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = rig_plain_queue(rig, "q");
    rig_publish(rig, q, "0");
    rig_publish_to(rig, &q, 1, (struct rig_message){.text = "1", .expiry_ms = 100});
    rig_publish(rig, q, "2");
    rig_run(rig, 300);
    rig_subscribe(rig, q, 5, 1, 0, 0);
    rig_got(rig, 5, "0");
    rig_got(rig, 5, "2");
    rig_end(rig);
}

static void a_message_lives_to_the_end_of_its_time(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = rig_queue(rig, "q", rig_args(rig_int("x-message-ttl", 100)));
    uint64_t own = rig_plain_queue(rig, "own");
    rig_publish(rig, q, "0");
    rig_publish(rig, own, "1");
    rig_publish_to(rig, &own, 1, (struct rig_message){.text = "2", .expiry_ms = 100});
    rig_run(rig, 99);
    rig_publish(rig, q, "3"); /* which makes the queue look at its head */
    sim_run_until(rig->sim, sim_now_us(rig->sim) + 300);
    assert_int_equal(rig_ready(rig, q, NULL), 2);
    rig_subscribe(rig, own, 5, 1, 0, 0);
    rig_got(rig, 5, "1");
    rig_got(rig, 5, "2");
    rig_run(rig, 1);
    assert_int_equal(rig_ready(rig, q, NULL), 1);
    rig_end(rig);
}

static void with_no_time_at_all_a_message_goes_to_who_waits_or_nowhere(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = rig_queue(rig, "q", rig_args(rig_int("x-message-ttl", 0)));
    rig_publish(rig, q, "0");
    rig_run(rig, 5);
    assert_int_equal(rig_ready(rig, q, NULL), 0);
    rig_subscribe(rig, q, 5, 1, 2, 0);
    rig_publish_run(rig, q, 1, 3);
    rig_run(rig, 5);
    rig_got(rig, 5, "1");
    rig_got(rig, 5, "2");
    rig_settle(rig, q, 5, 0, UINT64_MAX);
    rig_got_nothing(rig, 5);
    assert_int_equal(rig_ready(rig, q, NULL), 0);
    rig_end(rig);
}

static void an_unused_queue_expires(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = rig_queue(rig, "q", rig_args(rig_int("x-expires", 200)));
    uint64_t used = rig_queue(rig, "used", rig_args(rig_int("x-expires", 200)));
    rig_publish_run(rig, q, 0, 3); /* publishing is no use */
    rig_subscribe(rig, used, 5, 1, 0, 0);
    rig_run(rig, 150);
    rig_get(rig, q, 5, true, "0");
    rig_run(rig, 150);
    assert_true(rig_has_queue(rig, q));
    rig_run(rig, 200);
    assert_false(rig_has_queue(rig, q));
    assert_true(rig_has_queue(rig, used));
    rig_conn_gone(rig, 5);
    rig_run(rig, 300);
    assert_false(rig_has_queue(rig, used));
    rig_restart(rig, SIM_POWER_CUT);
    assert_null(catalog_queue(rig->catalog, 0, slice_of("q")));
    rig_end(rig);
}

/* ---- Purge and delete ---- */

static void a_purge_leaves_what_is_leased(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = rig_plain_queue(rig, "q");
    rig_publish_run(rig, q, 0, 9);
    rig_subscribe(rig, q, 5, 1, 4, 0);
    rig_settle(rig, q, 5, 1, 1); /* and 4 is leased */
    struct command cancel = {.type = COMMAND_CANCEL,
                             .asker = {.conn = 5, .channel = 1},
                             .object = q,
                             .subscribe.consumer = 1};
    rig_ask(rig, cancel);
    rig_resolve(rig, COMMAND_RETURN, q, 5, 2, 2);
    struct event event = rig_ask(rig, (struct command){.type = COMMAND_PURGE, .object = q});
    assert_int_equal(event.value, 6);
    assert_int_equal(rig_ready(rig, q, NULL), 0);
    char owed[200];
    rig_owed(rig, q, owed, sizeof owed);
    assert_string_equal(owed, "durable bytes 3: 0*0 3*0 4*0");
    rig_publish_run(rig, q, 10, 10);
    rig_conn_gone(rig, 5);
    rig_run(rig, 50);
    rig_restart(rig, SIM_POWER_CUT);
    rig_owed(rig, q, owed, sizeof owed);
    assert_string_equal(owed, "durable bytes 5: 0*1 3*1 4*1 10*0");
    rig_subscribe(rig, q, 6, 1, 0, 0);
    for (int i = 0; i < 4; i++)
        rig_got(rig, 6, (const char *[]){"0", "3", "4", "10"}[i]);
    rig_end(rig);
}

static void deletion_has_its_conditions(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(2);
    uint64_t q = rig_plain_queue(rig, "q");
    rig_publish_run(rig, q, 0, 1);
    rig_subscribe(rig, q, 5, 1, 1, 0);
    struct command remove = {.type = COMMAND_DELETE_QUEUE, .object = q};
    remove.remove.flags = DELETE_IF_UNUSED;
    assert_int_equal(rig_ask(rig, remove).err, ERR_IN_USE);
    remove.remove.flags = DELETE_IF_EMPTY;
    assert_int_equal(rig_ask(rig, remove).err, ERR_NOT_EMPTY);
    remove.remove.flags = 0;
    struct event event = rig_ask(rig, remove);
    assert_int_equal(event.err, ERR_NONE);
    assert_int_equal(event.value, 1);
    assert_non_null(rig_next(rig, EVENT_CANCELLED, 5));
    assert_false(rig_has_queue(rig, q));
    assert_int_equal(rig_ask(rig, remove).err, ERR_NOT_FOUND);
    rig_settle(rig, q, 5, 0, 0); /* of a queue that is gone: nothing */
    rig_restart(rig, SIM_POWER_CUT);
    assert_false(rig_has_queue(rig, q));
    assert_null(catalog_queue(rig->catalog, 0, slice_of("q")));
    rig_end(rig);
}

static void an_auto_delete_queue_goes_before_its_last_cancel_is_answered(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(2);
    uint64_t q = rig_request(rig, (struct catalog_request){.op = CATALOG_DECLARE_QUEUE,
                                                           .name = slice_of("q"),
                                                           .durable = true,
                                                           .auto_delete = true});
    rig_run(rig, 100);
    assert_true(rig_has_queue(rig, q)); /* it never had a consumer */
    rig_subscribe(rig, q, 5, 1, 0, 0);
    rig_subscribe(rig, q, 5, 2, 0, 0);
    struct command cancel = {.type = COMMAND_CANCEL,
                             .asker = {.conn = 5, .channel = 1},
                             .object = q,
                             .subscribe.consumer = 1};
    assert_int_equal(rig_ask(rig, cancel).err, ERR_NONE);
    assert_true(rig_has_queue(rig, q));
    cancel.subscribe.consumer = 2;
    assert_int_equal(rig_ask(rig, cancel).err, ERR_NONE);
    assert_false(rig_has_queue(rig, q));
    rig_end(rig);
}

static void what_is_published_to_a_queue_about_to_go_is_kept_until_it_goes(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(2);
    uint64_t q = rig_request(rig, (struct catalog_request){.op = CATALOG_DECLARE_QUEUE,
                                                           .name = slice_of("q"),
                                                           .durable = true,
                                                           .auto_delete = true});
    rig_subscribe(rig, q, 5, 1, 0, 0);
    rig_times(rig);
    cell_command(rig_cell(rig, q), &(struct command){.type = COMMAND_CONN_GONE, .asker.conn = 5});
    /* The deletion is on its way to the cell of the catalog, which stops first. */
    uint64_t seq = rig_publish_to(rig, &q, 1, (struct rig_message){.text = "0", .conn = 3});
    list_each(node, &rig->mail)
    {
        struct rig_mail *mail = list_entry(node, struct rig_mail, link);
        assert_int_equal(mail->type, RIG_COMMAND);
        list_remove(node);
        parts_destroy(mail->command.parts);
        free(mail);
    }
    rig_run(rig, 50);
    assert_int_equal(rig_confirmed(rig, 3, seq), ERR_NONE);
    rig_restart(rig, SIM_POWER_CUT);
    rig_get(rig, q, 6, true, "0");
    rig_end(rig);
}

static void exclusive_queues_go_with_their_connection(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(2);
    uint64_t ids[150];
    for (int i = 0; i < 150; i++) {
        char name[16];
        snprintf(name, sizeof name, "q%d", i);
        ids[i] = rig_request(rig, (struct catalog_request){.op = CATALOG_DECLARE_QUEUE,
                                                           .name = slice_of(name),
                                                           .owner = 5,
                                                           .exclusive = true});
        rig_publish_run(rig, ids[i], 0, 0);
    }
    rig_conn_gone(rig, 5);
    rig_run(rig, 10);
    for (int i = 0; i < 150; i++)
        assert_false(rig_has_queue(rig, ids[i]));
    rig_end(rig);
}

/* ---- What is not found ---- */

static void a_message_that_is_not_found_is_looked_for_once_more_and_reported(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = rig_plain_queue(rig, "q");
    rig_publish_run(rig, q, 0, 3);
    struct queue *queue = map_get(&rig->cell[0]->queues, q);
    stream_forget(&queue->ledger.stream, 0);
    stream_forget(&queue->ledger.stream, 2);
    rig_subscribe(rig, q, 5, 1, 0, 0);
    rig_got(rig, 5, "1");
    rig_got(rig, 5, "3");
    assert_int_equal(rig_ready(rig, q, NULL), 0);
    assert_int_equal(queue->ledger.count, 4);
    assert_int_equal(rig->unreadable, 0);
    rig_run(rig, 9000);
    assert_int_equal(queue->ledger.count, 4);
    rig_run(rig, 2000);
    assert_int_equal(rig->unreadable, 2);
    assert_int_equal(queue->ledger.count, 2);
    assert_int_equal(rig_ready(rig, q, NULL), 0);
    assert_int_equal(cell_deadline(rig->cell[0]) > sim_now_ms(rig->sim) + 100, true);
    rig_end(rig);
}

/* ---- Transient messages ---- */

static void transient_messages_are_lost_at_restart_and_leave_no_trace(void **state)
{
    (void)state;
    for (int checkpoint = 0; checkpoint < 2; checkpoint++) {
        struct rig *rig = rig_begin(1);
        uint64_t q = rig_plain_queue(rig, "q");
        for (int i = 0; i < 12; i++) {
            char text[16];
            snprintf(text, sizeof text, "%d", i);
            rig_publish_to(rig, &q, 1,
                           (struct rig_message){.text = text, .transient = i % 3 == 1 || i >= 10});
        }
        rig_subscribe(rig, q, 5, 1, 6, 0);
        rig_settle(rig, q, 5, 0, 1);
        rig_resolve(rig, COMMAND_RETURN, q, 5, 3, 4);
        rig_conn_gone(rig, 5);
        rig_run(rig, 50);
        assert_int_equal(rig_ready(rig, q, NULL), 10);
        if (checkpoint) {
            rig_stop(rig);
            rig_open(rig);
        } else {
            rig_restart(rig, SIM_POWER_CUT);
        }
        assert_int_equal(rig_ready(rig, q, NULL), 6);
        rig_publish_run(rig, q, 100, 101); /* may take the offsets of lost ones */
        rig_run(rig, 50);
        rig_restart(rig, SIM_POWER_CUT);
        rig_subscribe(rig, q, 6, 1, 0, 0);
        const char *left[] = {"2", "3", "5", "6", "8", "9", "100", "101"};
        for (size_t i = 0; i < sizeof left / sizeof *left; i++)
            rig_got(rig, 6, left[i]);
        rig_got_nothing(rig, 6);
        rig_end(rig);
    }
}

static void a_transient_queue_keeps_nothing(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = rig_request(
        rig, (struct catalog_request){.op = CATALOG_DECLARE_QUEUE, .name = slice_of("q")});
    uint64_t seq = rig_publish_to(rig, &q, 1, (struct rig_message){.text = "0", .conn = 3});
    rig_run(rig, 2);
    assert_int_equal(rig_confirmed(rig, 3, seq), ERR_NONE);
    rig_publish_run(rig, q, 1, 3);
    rig_get(rig, q, 5, false, "0");
    rig_get(rig, q, 5, true, "1");
    rig_conn_gone(rig, 5);
    assert_int_equal(rig_get(rig, q, 5, true, "0")->count, 1);
    rig_stop(rig);
    rig_open(rig);
    assert_null(catalog_queue(rig->catalog, 0, slice_of("q")));
    assert_int_equal(rig->cell[0]->queues.count, 0);
    rig_end(rig);
}

/* What is settled while the disk is full stays settled, though nothing could be written. */
static void a_full_disk_forgets_no_settle(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = rig_plain_queue(rig, "q");
    rig_subscribe(rig, q, 5, 1, 0, 0);
    sim_disk_limit(rig->sim, 0, 1 << 20);
    uint64_t seq = 0;
    for (int i = 0; i < 500 && rig_confirmed(rig, 3, seq) != ERR_DISK_FULL; i++) {
        for (int n = 0; n < 20; n++)
            seq = rig_publish_to(rig, &q, 1,
                                 (struct rig_message){.text = "x", .conn = 3, .padding = 150});
        rig_run(rig, 2);
    }
    assert_int_equal(rig_confirmed(rig, 3, seq), ERR_DISK_FULL);
    uint64_t owed =
                 rig_cell(rig, q)->stats.messages_ready + rig_cell(rig, q)->stats.messages_leased,
             settled = 0;
    /* Each in a record of its own, until the journal has no room for them either. */
    for (uint64_t offset = 0; offset + 2 < owed; offset += 2, settled++)
        rig_settle(rig, q, 5, offset, offset);
    assert_int_equal(rig->cell[0]->failure, ERR_NONE);
    rig_conn_gone(rig, 5);
    rig_run(rig, 5);
    assert_int_equal(rig_ready(rig, q, NULL), owed - settled);
    sim_disk_limit(rig->sim, 0, 0);
    rig_run(rig, 5000);
    rig_stop(rig);
    rig_open(rig);
    assert_int_equal(rig_ready(rig, q, NULL), owed - settled);
    rig_end(rig);
}

/* Its deletion finds no room in the journal: meanwhile it serves who comes, and later it goes. */
static void an_unused_queue_outlives_a_full_disk_and_not_for_ever(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t big = rig_plain_queue(rig, "big");
    uint64_t q = rig_queue(rig, "q", rig_args(rig_int("x-expires", 5000)));
    rig_publish_run(rig, q, 0, 1);
    rig_run(rig, 50);
    sim_disk_limit(rig->sim, 0, 1 << 20);
    uint64_t seq = 0;
    for (int i = 0; i < 500 && rig_confirmed(rig, 3, seq) != ERR_DISK_FULL; i++) {
        for (int n = 0; n < 20; n++)
            seq = rig_publish_to(rig, &big, 1,
                                 (struct rig_message){.text = "x", .conn = 3, .padding = 150});
        rig_run(rig, 2);
    }
    assert_int_equal(rig_confirmed(rig, 3, seq), ERR_DISK_FULL);
    rig_run(rig, 8000);
    assert_non_null(catalog_queue(rig->catalog, 0, slice_of("q")));
    uint64_t turns = rig->cell[0]->turn;
    rig_run(rig, 3000);
    assert_in_range(rig->cell[0]->turn - turns, 1, 500);
    rig_subscribe(rig, q, 5, 1, 0, 0);
    rig_run(rig, 3000);
    assert_int_equal(rig_got(rig, 5, "0")->offset, 0);
    rig_conn_gone(rig, 5);
    sim_disk_limit(rig->sim, 0, 0);
    rig_run(rig, 20000);
    assert_null(catalog_queue(rig->catalog, 0, slice_of("q")));
    rig_end(rig);
}

static void messages_are_written_soon_though_nobody_waits(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = rig_plain_queue(rig, "q");
    rig_publish_run(rig, q, 0, 2);
    rig_run(rig, 50);
    rig_restart(rig, SIM_POWER_CUT);
    assert_int_equal(rig_ready(rig, q, NULL), 3);
    rig_end(rig);
}

/* It would be gone in memory and come back after the start, which has nothing to say why. */
static void what_is_settled_during_a_stop_is_not(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = rig_plain_queue(rig, "q");
    rig_publish_run(rig, q, 0, 2);
    rig_subscribe(rig, q, 5, 1, 0, 0);
    char before[300], after[300];
    rig_settle(rig, q, 5, 0, 0);
    rig_run(rig, 50);
    rig->stopped = 0;
    cell_stop(rig->cell[0], rig_stopped, rig);
    rig_settle(rig, q, 5, 1, 1);
    rig_run(rig, 1000);
    assert_int_equal(rig->stopped, 1);
    rig_owed(rig, q, before, sizeof before);
    rig_crash(rig, SIM_POWER_CUT);
    rig_open(rig);
    rig_owed(rig, q, after, sizeof after);
    assert_string_equal(before, after);
    assert_int_equal(rig_ready(rig, q, NULL), 2);
    rig_end(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_settled_during_a_stop_is_not),
        cmocka_unit_test(over_its_length_a_queue_drops_its_head),
        cmocka_unit_test(over_its_bytes_it_drops_no_more_than_it_must),
        cmocka_unit_test(or_it_rejects_what_is_published),
        cmocka_unit_test(messages_expire_by_the_queues_time),
        cmocka_unit_test(messages_expire_by_their_own_time_at_the_head),
        cmocka_unit_test(an_expired_message_behind_the_head_is_not_delivered),
        cmocka_unit_test(a_message_lives_to_the_end_of_its_time),
        cmocka_unit_test(with_no_time_at_all_a_message_goes_to_who_waits_or_nowhere),
        cmocka_unit_test(an_unused_queue_expires),
        cmocka_unit_test(an_unused_queue_outlives_a_full_disk_and_not_for_ever),
        cmocka_unit_test(a_purge_leaves_what_is_leased),
        cmocka_unit_test(deletion_has_its_conditions),
        cmocka_unit_test(an_auto_delete_queue_goes_before_its_last_cancel_is_answered),
        cmocka_unit_test(what_is_published_to_a_queue_about_to_go_is_kept_until_it_goes),
        cmocka_unit_test(exclusive_queues_go_with_their_connection),
        cmocka_unit_test(a_message_that_is_not_found_is_looked_for_once_more_and_reported),
        cmocka_unit_test(transient_messages_are_lost_at_restart_and_leave_no_trace),
        cmocka_unit_test(a_transient_queue_keeps_nothing),
        cmocka_unit_test(a_full_disk_forgets_no_settle),
        cmocka_unit_test(messages_are_written_soon_though_nobody_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
