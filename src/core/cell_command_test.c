/* Commands about what is not there, or that is not what they think: each that waits for an answer
 * gets one. */
#include "core/cell_steps.h"

/* The error it is answered with; ERR_AGAIN: not at all. */
static enum err told(struct rig *rig, struct command command)
{
    command.asker = (struct asker){.conn = 4, .channel = 1, .tag = ++rig->tag};
    rig_tell(rig, command);
    rig_run(rig, 50);
    list_each(node, &rig->events)
    {
        const struct event *event = &list_entry(node, struct rig_event, link)->event;
        if (event->asker.tag == command.asker.tag)
            return event->err;
    }
    return ERR_AGAIN;
}

static void what_is_not_there_is_said_to_be_absent(void **state)
{
    (void)state;
    static const struct {
        enum command_type type;
        enum err err;
    } cases[] = {
        {COMMAND_SUBSCRIBE, ERR_NOT_FOUND},    {COMMAND_CANCEL, ERR_NONE},
        {COMMAND_GET, ERR_NOT_FOUND},          {COMMAND_PURGE, ERR_NOT_FOUND},
        {COMMAND_DELETE_QUEUE, ERR_NOT_FOUND}, {COMMAND_QUEUE_STATUS, ERR_NOT_FOUND},
        {COMMAND_APPEND, ERR_NOT_FOUND},       {COMMAND_READ, ERR_NOT_FOUND},
        {COMMAND_OFFSETS, ERR_NOT_FOUND},      {COMMAND_TRIM, ERR_NOT_FOUND},
        {COMMAND_WINDOW, ERR_AGAIN}, /* these have no answer */
        {COMMAND_SETTLE, ERR_AGAIN},           {COMMAND_RETURN, ERR_AGAIN},
        {COMMAND_REJECT, ERR_AGAIN},           {COMMAND_READ_STOP, ERR_AGAIN},
    };
    struct rig *rig = rig_begin(1);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(told(rig, (struct command){.type = cases[i].type, .object = 77}),
                         cases[i].err);
    struct command silent = {.type = COMMAND_APPEND, .object = 77, .append.silent = true};
    assert_int_equal(told(rig, silent), ERR_AGAIN);
    rig_end(rig);
}

static void a_queue_is_spared_while_it_is_used_or_holds_something(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = rig_plain_queue(rig, "q");
    struct command unused = {
        .type = COMMAND_DELETE_QUEUE, .object = q, .remove.flags = DELETE_IF_UNUSED};
    struct command empty = unused;
    empty.remove.flags = DELETE_IF_EMPTY;
    rig_publish(rig, q, "x");
    assert_int_equal(told(rig, empty), ERR_NOT_EMPTY);
    rig_subscribe(rig, q, 5, 1, 0, 0);
    assert_int_equal(told(rig, unused), ERR_IN_USE);
    rig_settle(rig, q, 5, 0, 0);
    rig_conn_gone(rig, 5);
    empty.remove.flags |= DELETE_IF_UNUSED;
    assert_int_equal(told(rig, empty), ERR_NONE);
    assert_false(rig_has_queue(rig, q));
    rig_end(rig);
}

static void confirms_of_channels_and_connections_are_apart(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = rig_plain_queue(rig, "q");
    static const struct asker askers[] = {{.conn = 3, .channel = 1},
                                          {.conn = 3, .channel = 2},
                                          {.conn = 4, .channel = 2},
                                          {.conn = 3, .channel = 1},
                                          {.conn = 3, .channel = 1}};
    static const uint64_t seqs[] = {1, 2, 3, 7, 8};
    uint8_t bytes[64] = {0};
    for (int persistent = 0; persistent < 2; persistent++) {
        entry_head_put(bytes, &(struct entry_head){.form = ENTRY_AMQP,
                                                   .flags = persistent ? ENTRY_PERSISTENT : 0});
        rig_times(rig);
        for (int i = 0; i < 5; i++) {
            struct cell_publish publish = {.asker = askers[i],
                                           .seq = seqs[i],
                                           .persistent = persistent,
                                           .targets = &q,
                                           .target_count = 1,
                                           .pieces = {slice_make(bytes, sizeof bytes)}};
            cell_publish(rig->cell[0], &publish);
        }
        struct cell_publish mute = {
            .targets = &q, .target_count = 1, .pieces = {slice_make(bytes, sizeof bytes)}};
        mute.asker = askers[0]; /* wants no confirm */
        cell_publish(rig->cell[0], &mute);
        sim_wake(rig->sim, 0);
        rig_run(rig, 50);
        uint64_t confirmed = 0, events = 0;
        list_each(node, &rig->events)
        {
            const struct event *event = &list_entry(node, struct rig_event, link)->event;
            if (event->type != EVENT_PUBLISHED)
                continue;
            events++;
            confirmed += event->last_seq - event->first_seq + 1;
            assert_int_equal(event->err, ERR_NONE);
            for (int i = 0; i < 5; i++) {
                if (seqs[i] >= event->first_seq && seqs[i] <= event->last_seq)
                    assert_true(event->asker.conn == askers[i].conn &&
                                event->asker.channel == askers[i].channel);
            }
        }
        assert_int_equal(confirmed, 5);
        assert_int_equal(events, 4); /* the last two are one */
        rig_forget(rig);
    }
    assert_int_equal(rig_ready(rig, q, NULL), 12);
    rig_end(rig);
}

static void a_read_is_stopped_by_its_own_tag_and_connection(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t p = rig_topic(rig, "t", (struct args){0});
    struct rig_read wait = {.min_bytes = 1, .wait_ms = 500};
    uint64_t first = rig_read_start(rig, p, 8, wait), second = rig_read_start(rig, p, 9, wait);
    struct command stop = {.type = COMMAND_READ_STOP, .object = p};
    stop.asker = (struct asker){.conn = 9, .tag = first}; /* of another connection */
    rig_tell(rig, stop);
    stop.asker = (struct asker){.conn = 8, .tag = second}; /* with another tag */
    rig_tell(rig, stop);
    rig_run(rig, 10);
    assert_null(rig_next(rig, EVENT_READ, 8));
    rig_run(rig, 1000);
    assert_non_null(rig_next(rig, EVENT_READ, 8));
    assert_non_null(rig_next(rig, EVENT_READ, 9));
    rig_end(rig);
}

static void the_newest_message_is_found_once_there_is_one(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t p = rig_topic(rig, "t", (struct args){0});
    struct command newest = {
        .type = COMMAND_OFFSETS, .object = p, .offsets.query = OFFSET_MAX_TIME};
    assert_true(rig_ask(rig, newest).value == UINT64_MAX);
    static const int64_t times[] = {5000, 9000, 7000};
    for (int i = 0; i < 3; i++)
        rig_produce(rig, p, (struct rig_batch){.producer_id = -1, .time_ms = times[i]});
    assert_int_equal(rig_ask(rig, newest).value, 1);
    struct command trim = {.type = COMMAND_TRIM, .object = p, .offsets.offset = 2};
    assert_int_equal(rig_ask(rig, trim).value, 2);
    assert_int_equal(rig_ask(rig, newest).value, 2); /* of those that are left */
    trim.offsets.offset = UINT64_MAX;
    assert_int_equal(rig_ask(rig, trim).value, 3);
    assert_true(rig_ask(rig, newest).value == UINT64_MAX);
    rig_end(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_not_there_is_said_to_be_absent),
        cmocka_unit_test(a_queue_is_spared_while_it_is_used_or_holds_something),
        cmocka_unit_test(confirms_of_channels_and_connections_are_apart),
        cmocka_unit_test(a_read_is_stopped_by_its_own_tag_and_connection),
        cmocka_unit_test(the_newest_message_is_found_once_there_is_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
