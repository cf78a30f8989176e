/* Partitions: appends in order and answered when safe, reads that wait, trims, retention, and
 * idempotent producers over restarts. */
#include "core/cell_steps.h"

static const struct rig_batch plain = {.producer_id = -1};

static void offsets_grow_by_the_messages_of_a_batch(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t p = rig_topic(rig, "t", (struct args){0});
    uint64_t next = 0;
    for (int i = 1; i < 6; i++) {
        struct event event = rig_produce(rig, p, (struct rig_batch){.producer_id = -1, .count = i});
        assert_int_equal(event.err, ERR_NONE);
        assert_int_equal(event.value, next);
        assert_int_equal(event.value2, UINT64_MAX);
        next += (uint64_t)i;
    }
    const struct rig_event *read = rig_read(rig, p, (struct rig_read){0});
    assert_int_equal(read->event.err, ERR_NONE);
    assert_int_equal(read->event.read.count, 5);
    assert_int_equal(read->event.read.end_offset, 15);
    uint64_t at = 0;
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(read->entries[i].base, at);
        assert_int_equal(read->entries[i].count, i + 1);
        at += i + 1;
    }
    rig_end(rig);
}

static void an_answer_waits_for_the_disk_unless_it_need_not(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t p = rig_topic(rig, "t", (struct args){0});
    rig_run(rig, 50);
    uint8_t memory[1024];
    struct rig_batch early = {.producer_id = -1, .early = true};
    struct command command = rig_append_command(rig, p, early, memory, sizeof memory);
    rig_tell(rig, command);
    struct rig_event *answer = rig_next(rig, EVENT_ANSWER, 1);
    assert_non_null(answer); /* at once */
    assert_int_equal(answer->event.value, 0);
    command = rig_append_command(rig, p, plain, memory, sizeof memory);
    rig_tell(rig, command);
    assert_null(rig_next(rig, EVENT_ANSWER, 1));
    /* Nor is it visible yet. */
    rig_read_start(rig, p, 9, (struct rig_read){0});
    assert_int_equal(rig_next(rig, EVENT_READ, 9)->event.read.count, 0);
    rig_run(rig, 20);
    assert_int_equal(rig_next(rig, EVENT_ANSWER, 1)->event.value, 1);
    command.append.silent = true;
    rig_tell(rig, command);
    rig_run(rig, 20);
    assert_null(rig_next(rig, EVENT_ANSWER, 1));
    assert_int_equal(rig_read(rig, p, (struct rig_read){0})->event.read.count, 3);
    rig_end(rig);
}

static void what_is_not_safe_yet_has_no_offset_and_cannot_be_deleted(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t p = rig_topic(rig, "t", (struct args){0});
    rig_produce(rig, p, plain);
    uint8_t memory[1024];
    rig_tell(rig, rig_append_command(rig, p, plain, memory, sizeof memory));
    struct command latest = {.type = COMMAND_OFFSETS, .object = p, .offsets.query = OFFSET_LATEST};
    assert_int_equal(rig_ask(rig, latest).value, 1);
    struct command trim = {.type = COMMAND_TRIM, .object = p, .offsets.offset = 2};
    assert_int_equal(rig_ask(rig, trim).err, ERR_OUT_OF_RANGE);
    rig_run(rig, 20);
    assert_int_equal(rig_ask(rig, latest).value, 2);
    assert_int_equal(rig_ask(rig, trim).err, ERR_NONE);
    rig_end(rig);
}

static void acknowledged_batches_survive_a_power_cut(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct rig rig;
        rig_init(&rig, seed, 1);
        rig_open(&rig);
        uint64_t p = rig_topic(&rig, "t", (struct args){0});
        uint64_t acknowledged = 0;
        for (int i = 0; i < 30; i++) {
            uint8_t memory[1024];
            struct command command =
                rig_append_command(&rig, p, (struct rig_batch){.producer_id = 7, .sequence = i},
                                   memory, sizeof memory);
            rig_tell(&rig, command);
            sim_wake(rig.sim, 0);
            sim_run_until(rig.sim, sim_now_us(rig.sim) + (int64_t)sim_random(rig.sim, 400));
            while (rig_next(&rig, EVENT_ANSWER, 1) != NULL)
                acknowledged++;
        }
        rig_restart(&rig, SIM_POWER_CUT);
        struct event end_offset = rig_ask(
            &rig,
            (struct command){.type = COMMAND_OFFSETS, .object = p, .offsets.query = OFFSET_LATEST});
        assert_true(end_offset.value >= acknowledged);
        /* The producer sends the last five again: no offset changes. */
        if (acknowledged > 0) {
            uint64_t i = acknowledged - 1;
            struct event again =
                rig_produce(&rig, p, (struct rig_batch){.producer_id = 7, .sequence = (int32_t)i});
            if (end_offset.value <= acknowledged + 4) { /* it is among them */
                assert_int_equal(again.err, ERR_NONE);
                assert_int_equal(again.value, i);
            }
        }
        rig_done(&rig);
    }
}

static void producers_are_known_after_a_restart(void **state)
{
    (void)state;
    for (int orderly = 0; orderly < 2; orderly++) {
        struct rig *rig = rig_begin(1);
        uint64_t p = rig_topic(rig, "t", (struct args){0});
        for (int i = 0; i < 3; i++)
            rig_produce(
                rig, p,
                (struct rig_batch){.producer_id = 7, .epoch = 2, .sequence = i, .time_ms = 1});
        if (orderly) {
            rig_stop(rig);
            rig_open(rig);
        } else {
            rig_restart(rig, SIM_POWER_CUT);
        }
        /* Old timestamps of the batches do not make their producer old. */
        rig_run(rig, 100 * 1000);
        struct event event =
            rig_produce(rig, p, (struct rig_batch){.producer_id = 7, .epoch = 2, .sequence = 1});
        assert_int_equal(event.err, ERR_NONE);
        assert_int_equal(event.value, 1);
        event =
            rig_produce(rig, p, (struct rig_batch){.producer_id = 7, .epoch = 2, .sequence = 4});
        assert_int_equal(event.err, ERR_OUT_OF_ORDER);
        event =
            rig_produce(rig, p, (struct rig_batch){.producer_id = 7, .epoch = 1, .sequence = 3});
        assert_int_equal(event.err, ERR_FENCED);
        event =
            rig_produce(rig, p, (struct rig_batch){.producer_id = 7, .epoch = 2, .sequence = 3});
        assert_int_equal(event.value, 3);
        /* A day of silence later it is forgotten. */
        rig_run(rig, 25 * 3600 * 1000);
        event =
            rig_produce(rig, p, (struct rig_batch){.producer_id = 7, .epoch = 2, .sequence = 99});
        assert_int_equal(event.err, ERR_NONE);
        rig_end(rig);
    }
}

static void producer_ids_are_given_once(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t last = 0;
    for (int life = 0; life < 4; life++) {
        for (int i = 0; i < 3; i++) {
            uint64_t id = rig_ask(rig, (struct command){.type = COMMAND_PRODUCER_ID}).value;
            assert_true(id > last || (life == 0 && i == 0));
            last = id;
        }
        if (life % 2 == 0) {
            rig_restart(rig, SIM_POWER_CUT);
        } else {
            rig_stop(rig);
            rig_open(rig);
        }
    }
    rig_end(rig);
}

static void what_is_no_batch_is_refused(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t p = rig_topic(rig, "t", (struct args){0});
    uint8_t memory[1024];
    struct command command = rig_append_command(rig, p, plain, memory, sizeof memory);
    command.data.len = 7;
    assert_int_equal(rig_ask(rig, command).err, ERR_INVALID);
    command = rig_append_command(rig, p, plain, memory, sizeof memory);
    command.append.count = 0;
    assert_int_equal(rig_ask(rig, command).err, ERR_INVALID);
    command.object = p + 1000;
    assert_int_equal(rig_ask(rig, command).err, ERR_NOT_FOUND);
    rig_end(rig);
}

/* ---- Reads ---- */

static void a_read_ends_at_its_size(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t p = rig_topic(rig, "t", (struct args){0});
    for (int i = 0; i < 5; i++)
        rig_produce(rig, p, (struct rig_batch){.producer_id = -1, .count = 2, .value_bytes = 400});
    size_t len = rig_read(rig, p, (struct rig_read){0})->entries[0].len;
    struct rig_read read = {.max_bytes = 1}; /* at least one entry */
    assert_int_equal(rig_read(rig, p, read)->event.read.count, 1);
    read.max_bytes = (uint32_t)(2 * len);
    assert_int_equal(rig_read(rig, p, read)->event.read.count, 2);
    read.max_bytes = (uint32_t)(3 * len - 1);
    assert_int_equal(rig_read(rig, p, read)->event.read.count, 2);
    read.offset = 3; /* within the second batch, which comes whole */
    assert_int_equal(rig_read(rig, p, read)->entries[0].base, 2);
    read.offset = 10;
    assert_int_equal(rig_read(rig, p, read)->event.read.count, 0);
    rig_end(rig);
}

static void a_read_waits_for_enough_until_its_deadline(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t p = rig_topic(rig, "t", (struct args){0});
    rig_produce(rig, p, plain);
    size_t len = rig_read(rig, p, (struct rig_read){0})->entries[0].len;
    struct rig_read read = {.min_bytes = (uint32_t)(2 * len), .wait_ms = 300};
    rig_read_start(rig, p, 5, read);
    rig_read_start(rig, p, 6, read);
    read.offset = 1;
    read.min_bytes = 1;
    rig_read_start(rig, p, 7, read);
    rig_run(rig, 100);
    for (uint64_t conn = 5; conn < 8; conn++)
        assert_null(rig_next(rig, EVENT_READ, conn));
    rig_produce(rig, p, plain);
    rig_run(rig, 5);
    assert_int_equal(rig_next(rig, EVENT_READ, 5)->event.read.count, 2);
    assert_int_equal(rig_next(rig, EVENT_READ, 6)->event.read.count, 2);
    assert_int_equal(rig_next(rig, EVENT_READ, 7)->event.read.count, 1);
    read = (struct rig_read){.offset = 1, .min_bytes = (uint32_t)(2 * len), .wait_ms = 300};
    rig_read_start(rig, p, 5, read);
    rig_run(rig, 290);
    assert_null(rig_next(rig, EVENT_READ, 5));
    rig_run(rig, 20);
    assert_int_equal(rig_next(rig, EVENT_READ, 5)->event.read.count, 1);
    rig_end(rig);
}

static void a_read_does_not_wait_with_as_many_entries_as_it_takes(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t p = rig_topic(rig, "t", (struct args){0});
    for (int i = 0; i < 5000; i++) {
        uint8_t memory[256];
        struct command command = rig_append_command(rig, p, plain, memory, sizeof memory);
        command.append.silent = true;
        rig_tell(rig, command);
    }
    rig_run(rig, 100);
    struct rig_read read = {.min_bytes = 8 << 20, .max_bytes = 8 << 20, .wait_ms = 60000};
    assert_int_equal(rig_read(rig, p, read)->event.read.count, 4096);
    rig_end(rig);
}

static void a_read_is_stopped_or_goes_with_its_connection(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t p = rig_topic(rig, "t", (struct args){0});
    struct rig_read read = {.min_bytes = 1, .wait_ms = 10000};
    uint64_t tag = rig_read_start(rig, p, 5, read);
    rig_read_start(rig, p, 6, read);
    rig_read_start(rig, p, 7, read);
    rig_tell(rig, (struct command){
                      .type = COMMAND_READ_STOP, .asker = {.conn = 5, .tag = tag}, .object = p});
    rig_run(rig, 5);
    assert_int_equal(rig_next(rig, EVENT_READ, 5)->event.read.count, 0);
    rig_conn_gone(rig, 6);
    rig_produce(rig, p, plain);
    rig_run(rig, 5);
    assert_null(rig_next(rig, EVENT_READ, 6));
    assert_int_equal(rig_next(rig, EVENT_READ, 7)->event.read.count, 1);
    rig_end(rig);
}

static void reads_out_of_range_say_so(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t p = rig_topic(rig, "t", (struct args){0});
    for (int i = 0; i < 6; i++)
        rig_produce(rig, p, plain);
    assert_int_equal(
        rig_ask(rig, (struct command){.type = COMMAND_TRIM, .object = p, .offsets.offset = 4})
            .value,
        4);
    assert_int_equal(rig_read(rig, p, (struct rig_read){.offset = 3})->event.err, ERR_OUT_OF_RANGE);
    assert_int_equal(rig_read(rig, p, (struct rig_read){.offset = 7})->event.err, ERR_OUT_OF_RANGE);
    const struct rig_event *event = rig_read(rig, p, (struct rig_read){.offset = 4});
    assert_int_equal(event->event.err, ERR_NONE);
    assert_int_equal(event->event.read.count, 2);
    assert_int_equal(event->event.read.first_offset, 4);
    rig_read_start(rig, p + 1000, 9, (struct rig_read){0});
    assert_int_equal(rig_next(rig, EVENT_READ, 9)->event.err, ERR_NOT_FOUND);
    rig_end(rig);
}

static void a_topic_that_goes_answers_its_readers(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(2);
    uint64_t p = rig_topic(rig, "t", (struct args){0});
    rig_produce(rig, p, plain);
    rig_read_start(rig, p, 5, (struct rig_read){.min_bytes = 1000, .wait_ms = 10000});
    rig_request(rig, (struct catalog_request){.op = CATALOG_DELETE_TOPIC, .name = slice_of("t")});
    rig_run(rig, 5);
    struct rig_event *event = rig_next(rig, EVENT_READ, 5);
    assert_non_null(event);
    assert_int_equal(event->event.err, ERR_NOT_FOUND);
    rig_restart(rig, SIM_POWER_CUT);
    for (uint32_t i = 0; i < 2; i++)
        assert_int_equal(rig->cell[i]->partitions.count, 0);
    /* One of the same name begins anew. */
    uint64_t other = rig_topic(rig, "t", (struct args){0});
    assert_int_not_equal(other, p);
    assert_int_equal(rig_produce(rig, other, plain).value, 0);
    rig_end(rig);
}

static uint64_t offset_of(struct rig *rig, uint64_t p, enum offset_query query, int64_t time_ms)
{
    return rig_ask(rig, (struct command){.type = COMMAND_OFFSETS,
                                         .object = p,
                                         .offsets = {.query = query, .time_ms = time_ms}})
        .value;
}

static void offsets_are_found_by_place_and_time(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t p = rig_topic(rig, "t", (struct args){0});
    assert_int_equal(offset_of(rig, p, OFFSET_EARLIEST, 0), 0);
    assert_int_equal(offset_of(rig, p, OFFSET_LATEST, 0), 0);
    assert_int_equal(offset_of(rig, p, OFFSET_AT_TIME, 0), UINT64_MAX);
    assert_int_equal(offset_of(rig, p, OFFSET_MAX_TIME, 0), UINT64_MAX);
    for (int i = 0; i < 5; i++)
        rig_produce(rig, p, (struct rig_batch){.producer_id = -1, .time_ms = 1000 + 100 * i});
    assert_int_equal(offset_of(rig, p, OFFSET_EARLIEST, 0), 0);
    assert_int_equal(offset_of(rig, p, OFFSET_LATEST, 0), 5);
    /* At or before the one that is meant: whoever asks goes on from there. */
    assert_true(offset_of(rig, p, OFFSET_AT_TIME, 1250) <= 3);
    assert_int_equal(offset_of(rig, p, OFFSET_AT_TIME, 0), 0);
    assert_int_equal(offset_of(rig, p, OFFSET_AT_TIME, 5000), UINT64_MAX);
    rig_end(rig);
}

/* ---- What goes ---- */

static void records_are_deleted_up_to_an_offset(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t p = rig_topic(rig, "t", (struct args){0});
    for (int i = 0; i < 5; i++)
        rig_produce(rig, p, (struct rig_batch){.producer_id = -1, .count = 2});
    struct command trim = {.type = COMMAND_TRIM, .object = p, .offsets.offset = 11};
    assert_int_equal(rig_ask(rig, trim).err, ERR_OUT_OF_RANGE);
    trim.offsets.offset = 5; /* within a batch, which stays for the rest of it */
    assert_int_equal(rig_ask(rig, trim).value, 5);
    trim.offsets.offset = 3;
    assert_int_equal(rig_ask(rig, trim).value, 5);
    rig_restart(rig, SIM_POWER_CUT);
    const struct rig_event *event = rig_read(rig, p, (struct rig_read){.offset = 5});
    assert_int_equal(event->event.read.first_offset, 5);
    assert_int_equal(event->entries[0].base, 4);
    trim.offsets.offset = UINT64_MAX; /* all */
    assert_int_equal(rig_ask(rig, trim).value, 10);
    assert_int_equal(rig_produce(rig, p, plain).value, 10);
    rig_end(rig);
}

static void retention_by_size_and_age_keeps_the_newest(void **state)
{
    (void)state;
    for (int by_age = 0; by_age < 2; by_age++) {
        struct rig *rig = rig_begin(1);
        uint64_t p = rig_topic(rig, "t",
                               rig_args(by_age ? rig_text("retention.ms", "60000")
                                               : rig_text("retention.bytes", "20000")));
        for (int i = 0; i < 40; i++) {
            rig_produce(rig, p, (struct rig_batch){.producer_id = -1, .value_bytes = 2000});
            rig_run(rig, 5000);
        }
        rig_run(rig, 31000);
        uint64_t first = offset_of(rig, p, OFFSET_EARLIEST, 0);
        assert_true(first >= 20 && first < 40);
        rig_restart(rig, SIM_POWER_CUT);
        assert_true(offset_of(rig, p, OFFSET_EARLIEST, 0) >= first);
        assert_true(offset_of(rig, p, OFFSET_EARLIEST, 0) < 40);
        assert_int_equal(offset_of(rig, p, OFFSET_LATEST, 0), 40);
        rig_end(rig);
    }
}

static void retention_comes_to_many_partitions(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    struct catalog_request request = {
        .op = CATALOG_CREATE_TOPIC,
        .name = slice_of("t"),
        .partitions = 700,
        .durable = true,
        .args = rig_args(rig_text("retention.bytes", "0")),
    };
    rig_request(rig, request);
    const struct topic *topic = catalog_topic(rig->catalog, 0, slice_of("t"));
    for (uint32_t i = 0; i < 700; i++)
        rig_produce(rig, topic->partitions[i], plain);
    rig_run(rig, 65000);
    for (uint32_t i = 0; i < 700; i++)
        assert_int_equal(offset_of(rig, topic->partitions[i], OFFSET_EARLIEST, 0), 1);
    rig_end(rig);
}

/* ---- Messages of queues' publishers ---- */

static void a_message_published_to_a_topic_survives_before_any_checkpoint(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t p = rig_topic(rig, "t", (struct args){0});
    uint64_t q = rig_plain_queue(rig, "q");
    uint64_t both[] = {q, p};
    for (int i = 0; i < 3; i++)
        rig_publish_to(rig, both, 2, (struct rig_message){.text = "x", .conn = 3});
    /* Transient for the queue; in a topic there is no such thing. */
    rig_publish_to(rig, both, 2, (struct rig_message){.text = "x", .conn = 3, .transient = true});
    rig_run(rig, 50);
    assert_int_equal(rig_confirmed(rig, 3, rig->seq), ERR_NONE);
    rig_restart(rig, SIM_POWER_CUT);
    assert_int_equal(offset_of(rig, p, OFFSET_LATEST, 0), 4);
    assert_int_equal(rig_read(rig, p, (struct rig_read){0})->event.read.count, 4);
    assert_int_equal(rig_ready(rig, q, NULL), 3);
    rig_end(rig);
}

static void a_topic_leads_on_to_queues(void **state)
{
    (void)state;
    for (uint32_t cells = 1; cells <= 3; cells += 2) {
        struct rig *rig = rig_begin(cells);
        uint64_t p = rig_topic(rig, "t", (struct args){0});
        uint64_t q = rig_plain_queue(rig, "q");
        rig_bind(rig, "t", TARGET_QUEUE, "q", "");
        rig_produce(rig, p, (struct rig_batch){.producer_id = -1, .count = 3});
        uint64_t targets[] = {p};
        rig_publish_to(rig, targets, 1, (struct rig_message){.text = "x"});
        rig_run(rig, 50);
        assert_int_equal(rig_ready(rig, q, NULL), 4);
        rig_end(rig);
    }
}

static void a_producer_is_answered_when_a_copy_found_no_memory(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(3);
    uint64_t p = rig_topic(rig, "t", (struct args){0});
    uint64_t q = rig_plain_queue(rig, "q");
    assert_int_not_equal(cell_of(p, 3), cell_of(q, 3));
    rig_bind(rig, "t", TARGET_QUEUE, "q", "");
    /* The copy does not fit behind it: a block of the journal is asked for. */
    rig_publish_to(rig, &q, 1, (struct rig_message){.text = "x", .padding = 256000});
    struct rig_batch batch = {.producer_id = 7, .value_bytes = 4096};
    for (uint64_t n = 1; n <= 2; n++) {
        rig->copy_memory = n;
        assert_int_equal(rig_produce(rig, p, batch).err, ERR_NO_MEMORY);
    }
    assert_int_equal(rig_produce(rig, p, batch).err, ERR_NONE);
    rig_run(rig, 50);
    assert_int_equal(rig_ready(rig, q, NULL), 2);
    rig_end(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(offsets_grow_by_the_messages_of_a_batch),
        cmocka_unit_test(an_answer_waits_for_the_disk_unless_it_need_not),
        cmocka_unit_test(what_is_not_safe_yet_has_no_offset_and_cannot_be_deleted),
        cmocka_unit_test(acknowledged_batches_survive_a_power_cut),
        cmocka_unit_test(producers_are_known_after_a_restart),
        cmocka_unit_test(producer_ids_are_given_once),
        cmocka_unit_test(what_is_no_batch_is_refused),
        cmocka_unit_test(a_read_ends_at_its_size),
        cmocka_unit_test(a_read_waits_for_enough_until_its_deadline),
        cmocka_unit_test(a_read_does_not_wait_with_as_many_entries_as_it_takes),
        cmocka_unit_test(a_read_is_stopped_or_goes_with_its_connection),
        cmocka_unit_test(reads_out_of_range_say_so),
        cmocka_unit_test(a_topic_that_goes_answers_its_readers),
        cmocka_unit_test(offsets_are_found_by_place_and_time),
        cmocka_unit_test(records_are_deleted_up_to_an_offset),
        cmocka_unit_test(retention_by_size_and_age_keeps_the_newest),
        cmocka_unit_test(retention_comes_to_many_partitions),
        cmocka_unit_test(a_message_published_to_a_topic_survives_before_any_checkpoint),
        cmocka_unit_test(a_topic_leads_on_to_queues),
        cmocka_unit_test(a_producer_is_answered_when_a_copy_found_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
