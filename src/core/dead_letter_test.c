/* Dead letters: within a cell by one record, to other cells by a publish that is confirmed first.
 */
#include "core/cell_steps.h"

/* A queue whose dead letters go to the default exchange with that key: into the queue so named. */
static uint64_t dying_queue(struct rig *rig, const char *name, const char *to, const char *more,
                            int64_t value)
{
    return rig_queue(rig, name,
                     rig_args(rig_text("x-dead-letter-exchange", ""),
                              rig_text("x-dead-letter-routing-key", to), rig_int(more, value)));
}

static void reject(struct rig *rig, uint64_t q, uint64_t conn, uint64_t offset)
{
    rig_resolve(rig, COMMAND_REJECT, q, conn, offset, offset);
}

/* Declares queues until one of another cell than q's is made; the others stay unused. */
static uint64_t queue_elsewhere(struct rig *rig, uint64_t q, char *name, size_t room)
{
    for (int i = 0; i < 20; i++) {
        snprintf(name, room, "elsewhere-%d", i);
        uint64_t id = rig_plain_queue(rig, name);
        if (cell_of(id, rig->cells) != cell_of(q, rig->cells))
            return id;
    }
    fail_msg("all in one cell");
    return 0;
}

static void rejected_messages_move_within_a_cell(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t dlq = rig_plain_queue(rig, "dlq");
    uint64_t q = dying_queue(rig, "q", "dlq", "x-max-length", 100);
    rig_publish_run(rig, q, 0, 2);
    rig_subscribe(rig, q, 5, 1, 0, 0);
    reject(rig, q, 5, 1);
    rig_settle(rig, q, 5, 0, 0);
    rig_run(rig, 50);
    assert_int_equal(rig_ready(rig, dlq, NULL), 1);
    rig_restart(rig, SIM_POWER_CUT);
    char owed[200];
    rig_owed(rig, q, owed, sizeof owed);
    assert_string_equal(owed, "durable bytes 1: 2*0");
    rig_get(rig, dlq, 6, true, "1");
    rig_get(rig, dlq, 6, true, NULL);
    rig_end(rig);
}

static void a_crash_at_any_time_keeps_a_moving_message_exactly_once(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct rig rig;
        rig_init(&rig, seed, 1);
        rig_open(&rig);
        uint64_t dlq = rig_plain_queue(&rig, "dlq");
        uint64_t q = dying_queue(&rig, "q", "dlq", "x-max-length", 100);
        rig_publish_run(&rig, q, 0, 4);
        rig_run(&rig, 50);
        rig_subscribe(&rig, q, 5, 1, 0, 0);
        for (uint64_t i = 0; i < 5; i++) {
            struct offset_range range = {i, i};
            rig_tell(&rig, (struct command){.type = COMMAND_REJECT,
                                            .asker = {.conn = 5, .channel = 1},
                                            .object = q,
                                            .data = slice_make(&range, sizeof range)});
            sim_wake(rig.sim, 0);
            sim_run_until(rig.sim, sim_now_us(rig.sim) + (int64_t)sim_random(rig.sim, 4000));
        }
        rig_restart(&rig, SIM_POWER_CUT);
        assert_int_equal(rig_ready(&rig, q, NULL) + rig_ready(&rig, dlq, NULL), 5);
        rig_done(&rig);
    }
}

static void messages_move_to_another_cell(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(3);
    char name[32];
    uint64_t first = rig_plain_queue(rig, "first");
    uint64_t dlq = queue_elsewhere(rig, first, name, sizeof name);
    uint64_t q = 0;
    for (int i = 0; q == 0 || cell_of(q, 3) == cell_of(dlq, 3); i++) {
        char text[16];
        snprintf(text, sizeof text, "q%d", i);
        q = dying_queue(rig, text, name, "x-max-length", 3);
    }
    rig_publish_run(rig, q, 0, 9);
    rig_run(rig, 50);
    assert_int_equal(rig_ready(rig, q, NULL), 3);
    assert_int_equal(rig_ready(rig, dlq, NULL), 7);
    struct queue *queue = map_get(&rig_cell(rig, q)->queues, q);
    assert_int_equal(queue->moving, 0);
    assert_int_equal(queue->ledger.count, 3);
    rig_restart(rig, SIM_POWER_CUT);
    assert_int_equal(rig_ready(rig, q, NULL), 3);
    for (int i = 0; i < 7; i++)
        rig_get(rig, dlq, 6, true, (const char *[]){"0", "1", "2", "3", "4", "5", "6"}[i]);
    rig_end(rig);
}

static void a_crash_before_the_other_cell_confirms_loses_nothing(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct rig rig;
        rig_init(&rig, seed, 2);
        rig_open(&rig);
        uint64_t ids[2] = {0, 0};
        ids[0] = rig_plain_queue(&rig, "dlq");
        for (int i = 0; ids[1] == 0 || cell_of(ids[1], 2) == cell_of(ids[0], 2); i++) {
            char text[16];
            snprintf(text, sizeof text, "q%d", i);
            ids[1] = dying_queue(&rig, text, "dlq", "x-message-ttl", 20);
        }
        for (int i = 0; i < 5; i++)
            rig_publish_to(&rig, &ids[1], 1, (struct rig_message){.text = "x", .conn = 3});
        rig_run(&rig, 10);
        assert_int_equal(rig_confirmed(&rig, 3, rig.seq), ERR_NONE);
        sim_run_until(rig.sim, sim_now_us(rig.sim) + 9000 + (int64_t)sim_random(rig.sim, 4000));
        rig_restart(&rig, SIM_POWER_CUT);
        rig_run(&rig, 100);
        assert_true(rig_ready(&rig, ids[0], NULL) >= 5);
        assert_true(rig_ready(&rig, ids[0], NULL) <= 10);
        assert_int_equal(rig_ready(&rig, ids[1], NULL), 0);
        rig_done(&rig);
    }
}

static void a_purge_or_deletion_meanwhile_does_no_harm(void **state)
{
    (void)state;
    for (int how = 0; how < 3; how++) {
        struct rig *rig = rig_begin(2);
        uint64_t dlq = rig_plain_queue(rig, "dlq"), q = 0;
        for (int i = 0; q == 0 || cell_of(q, 2) == cell_of(dlq, 2); i++) {
            char text[16];
            snprintf(text, sizeof text, "q%d", i);
            q = dying_queue(rig, text, "dlq", "x-max-length", 100);
        }
        rig_publish_run(rig, q, 0, 3);
        rig_subscribe(rig, q, 5, 1, 2, 0);
        struct offset_range range = {0, 1};
        rig_tell(rig, (struct command){.type = COMMAND_REJECT,
                                       .asker = {.conn = 5, .channel = 1},
                                       .object = q,
                                       .data = slice_make(&range, sizeof range)});
        cell_work(rig_cell(rig, q), false); /* the letters are on their way now */
        struct command command = {.type = how == 0 ? COMMAND_PURGE : COMMAND_DELETE_QUEUE,
                                  .object = q};
        if (how < 2) {
            rig_conn_gone(rig, 5);
            assert_int_equal(rig_ask(rig, command).err, ERR_NONE);
        } else { /* the target goes */
            command.object = dlq;
            assert_int_equal(rig_ask(rig, command).err, ERR_NONE);
        }
        rig_run(rig, 50);
        if (how == 0) {
            struct queue *queue = map_get(&rig_cell(rig, q)->queues, q);
            assert_int_equal(queue->ledger.count, 0);
            assert_int_equal(queue->ledger.bytes, 0);
            assert_int_equal(queue->unready_bytes, 0);
            rig_publish_run(rig, q, 4, 4);
            rig_run(rig, 5);
            assert_int_equal(queue->ledger.bytes, 1);
        }
        if (how < 2)
            assert_int_equal(rig_ready(rig, dlq, NULL), 2);
        rig_end(rig);
    }
}

static void letters_reach_topics_of_the_same_and_of_other_cells(void **state)
{
    (void)state;
    for (uint32_t cells = 1; cells <= 3; cells += 2) {
        struct rig *rig = rig_begin(cells);
        uint64_t partition = rig_topic(rig, "topic", (struct args){0});
        rig_request(rig, (struct catalog_request){.op = CATALOG_DECLARE_EXCHANGE,
                                                  .name = slice_of("dlx"),
                                                  .type = EXCHANGE_FANOUT,
                                                  .durable = true});
        rig_bind(rig, "dlx", TARGET_TOPIC, "topic", "");
        uint64_t q = rig_queue(
            rig, "q",
            rig_args(rig_text("x-dead-letter-exchange", "dlx"), rig_int("x-max-length", 0)));
        rig_publish_run(rig, q, 0, 2);
        rig_run(rig, 100);
        assert_int_equal(rig_read(rig, partition, (struct rig_read){0})->event.read.count, 3);
        rig_restart(rig, SIM_POWER_CUT);
        assert_int_equal(rig_ready(rig, q, NULL), 0);
        assert_int_equal(rig_read(rig, partition, (struct rig_read){0})->event.read.count, 3);
        rig_end(rig);
    }
}

static void a_letter_goes_to_more_queues_than_a_record_names(void **state)
{
    (void)state;
    for (uint32_t cells = 1; cells <= 2; cells++) {
        struct rig *rig = rig_begin(cells);
        rig_request(rig, (struct catalog_request){.op = CATALOG_DECLARE_EXCHANGE,
                                                  .name = slice_of("dlx"),
                                                  .type = EXCHANGE_FANOUT,
                                                  .durable = true});
        uint64_t ids[200];
        for (int i = 0; i < 200; i++) {
            char name[16];
            snprintf(name, sizeof name, "to-%d", i);
            ids[i] = rig_plain_queue(rig, name);
            rig_bind(rig, "dlx", TARGET_QUEUE, name, "");
        }
        uint64_t q = rig_queue(
            rig, "q",
            rig_args(rig_text("x-dead-letter-exchange", "dlx"), rig_int("x-max-length", 0)));
        rig_publish_run(rig, q, 0, 0);
        rig_run(rig, 100);
        rig_restart(rig, SIM_POWER_CUT);
        for (int i = 0; i < 200; i++)
            assert_int_equal(rig_ready(rig, ids[i], NULL), 1);
        assert_int_equal(rig_ready(rig, q, NULL), 0);
        rig_end(rig);
    }
}

static void transient_letters_leave_a_durable_queue(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t dlq = rig_plain_queue(rig, "dlq");
    uint64_t q = dying_queue(rig, "q", "dlq", "x-max-length", 1);
    for (int i = 0; i < 4; i++)
        rig_publish_to(rig, &q, 1, (struct rig_message){.text = "x", .transient = i % 2 == 0});
    rig_run(rig, 50);
    assert_int_equal(rig_ready(rig, q, NULL), 1);
    assert_int_equal(rig_ready(rig, dlq, NULL), 3);
    rig_restart(rig, SIM_POWER_CUT);
    assert_int_equal(rig_ready(rig, q, NULL), 1);
    assert_int_equal(rig_ready(rig, dlq, NULL), 1);
    rig_end(rig);
}

static void a_message_that_came_back_too_often_dies(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t dlq = rig_plain_queue(rig, "dlq");
    uint64_t q = dying_queue(rig, "q", "dlq", "x-delivery-limit", 2);
    rig_publish_run(rig, q, 0, 0);
    rig_subscribe(rig, q, 5, 1, 0, 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(rig_got(rig, 5, "0")->count, i);
        rig_resolve(rig, COMMAND_RETURN, q, 5, 0, 0);
    }
    rig_got_nothing(rig, 5);
    rig_get(rig, dlq, 6, true, "0");
    rig_end(rig);
}

static void letters_without_a_place_to_go_are_dropped(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = dying_queue(rig, "q", "nowhere", "x-max-length", 1);
    uint64_t p = rig_queue(
        rig, "p",
        rig_args(rig_text("x-dead-letter-exchange", "no exchange"), rig_int("x-max-length", 1)));
    rig_publish_run(rig, q, 0, 4);
    rig_publish_run(rig, p, 0, 4);
    rig_run(rig, 50);
    assert_int_equal(rig_ready(rig, q, NULL), 1);
    assert_int_equal(rig_ready(rig, p, NULL), 1);
    struct queue *queue = map_get(&rig->cell[0]->queues, q);
    assert_int_equal(queue->ledger.count, 1);
    rig_end(rig);
}

static void what_a_full_queue_refuses_is_dead_lettered_when_that_is_asked(void **state)
{
    (void)state;
    for (uint32_t cells = 1; cells <= 2; cells++) {
        struct rig *rig = rig_begin(cells);
        uint64_t dlq = rig_plain_queue(rig, "dlq");
        uint64_t q = rig_queue(rig, "q",
                               rig_args(rig_int("x-max-length", 2),
                                        rig_text("x-overflow", "reject-publish-dlx"),
                                        rig_text("x-dead-letter-exchange", ""),
                                        rig_text("x-dead-letter-routing-key", "dlq")));
        uint64_t seqs[5];
        static const char *const texts[] = {"0", "1", "2", "3", "4"};
        for (int i = 0; i < 5; i++)
            seqs[i] = rig_publish_to(rig, &q, 1, (struct rig_message){.text = texts[i], .conn = 3});
        rig_run(rig, 100);
        for (int i = 0; i < 5; i++)
            assert_int_equal(rig_confirmed(rig, 3, seqs[i]), i < 2 ? ERR_NONE : ERR_REJECTED);
        assert_int_equal(rig_ready(rig, q, NULL), 2);
        for (int i = 2; i < 5; i++)
            rig_get(rig, dlq, 5, true, texts[i]);
        rig_get(rig, dlq, 5, true, NULL);
        rig_end(rig);
    }
}

static void a_queue_may_be_its_own_dead_letter_queue(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = dying_queue(rig, "q", "q", "x-max-length", 100);
    rig_publish_run(rig, q, 0, 1);
    rig_subscribe(rig, q, 5, 1, 1, 0);
    rig_got(rig, 5, "0");
    reject(rig, q, 5, 0); /* a reject may go round */
    rig_got(rig, 5, "1");
    rig_run(rig, 50);
    rig_restart(rig, SIM_POWER_CUT);
    rig_subscribe(rig, q, 5, 1, 0, 0);
    rig_got(rig, 5, "1");
    rig_got(rig, 5, "0");
    rig_got_nothing(rig, 5);
    rig_end(rig);
}

/* The target's own cell refuses for want of room on the disk. */
static void a_full_disk_delays_letters_and_loses_none(void **state)
{
    (void)state;
    for (uint32_t cells = 1; cells <= 2; cells++) {
        struct rig *rig = rig_begin(cells);
        uint64_t dlq = rig_plain_queue(rig, "dlq"), q = 0;
        for (int i = 0; q == 0 || (cells > 1 && cell_of(q, 2) == cell_of(dlq, 2)); i++) {
            char text[16];
            snprintf(text, sizeof text, "q%d", i);
            q = dying_queue(rig, text, "dlq", "x-max-length", 100000);
        }
        rig_subscribe(rig, q, 5, 1, 0, 0);
        sim_disk_limit(rig->sim, 0, 1 << 20);
        /* Until nothing more is taken. */
        uint64_t confirmed = 0, seq = 0;
        for (int i = 0; i < 3000; i++) {
            seq = rig_publish_to(rig, &q, 1,
                                 (struct rig_message){.text = "x", .conn = 3, .padding = 4000});
            rig_run(rig, 2);
            enum err err = rig_confirmed(rig, 3, seq);
            if (err == ERR_DISK_FULL)
                break;
            confirmed += err == ERR_NONE;
        }
        assert_int_equal(rig_confirmed(rig, 3, seq), ERR_DISK_FULL);
        assert_true(confirmed > 50);
        assert_int_equal(rig->cell[0]->failure, ERR_NONE);
        rig_resolve(rig, COMMAND_REJECT, q, 5, 0, 4);
        rig_settle(rig, q, 5, 5, 9); /* consumers go on */
        rig_run(rig, 3000);
        for (uint32_t i = 0; i < cells; i++)
            assert_int_equal(rig->cell[i]->failure, ERR_NONE);
        struct queue *queue = map_get(&rig_cell(rig, q)->queues, q);
        assert_true(queue->ledger.count >= confirmed - 10);
        sim_disk_limit(rig->sim, 0, 0);
        rig_run(rig, 10000);
        assert_int_equal(rig_ready(rig, dlq, NULL), 5);
        assert_int_equal(queue->moving, 0);
        rig_conn_gone(rig, 5);
        rig_run(rig, 100);
        uint64_t owed = queue->ledger.count;
        assert_true(owed >= confirmed - 10);
        rig_restart(rig, SIM_POWER_CUT);
        assert_int_equal(rig_ready(rig, dlq, NULL), 5);
        assert_true(rig_ready(rig, q, NULL) >= owed);
        rig_end(rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rejected_messages_move_within_a_cell),
        cmocka_unit_test(a_crash_at_any_time_keeps_a_moving_message_exactly_once),
        cmocka_unit_test(messages_move_to_another_cell),
        cmocka_unit_test(a_crash_before_the_other_cell_confirms_loses_nothing),
        cmocka_unit_test(a_purge_or_deletion_meanwhile_does_no_harm),
        cmocka_unit_test(letters_reach_topics_of_the_same_and_of_other_cells),
        cmocka_unit_test(a_letter_goes_to_more_queues_than_a_record_names),
        cmocka_unit_test(transient_letters_leave_a_durable_queue),
        cmocka_unit_test(a_message_that_came_back_too_often_dies),
        cmocka_unit_test(letters_without_a_place_to_go_are_dropped),
        cmocka_unit_test(what_a_full_queue_refuses_is_dead_lettered_when_that_is_asked),
        cmocka_unit_test(a_queue_may_be_its_own_dead_letter_queue),
        cmocka_unit_test(a_full_disk_delays_letters_and_loses_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
