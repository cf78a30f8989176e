/* Cells over their whole life: checkpoints while work goes on, what memory does not hold, equal
 * state after a restart, storage that fails. */
#include "core/cell_steps.h"

static uint64_t checkpoints(struct rig *rig, uint32_t cell)
{
    struct store_stats stats;
    store_stats(rig->cell[cell]->store, &stats);
    return stats.checkpoints;
}

/* ---- Equal state ---- */

enum { QUEUES = 5, TOPICS = 2, CONNS = 4 };

struct load {
    struct rig *rig;
    uint64_t queues[QUEUES], topics[TOPICS];
    int32_t sequences[TOPICS];
    uint64_t random;
};

static uint64_t next_random(struct load *load, uint64_t below)
{
    load->random ^= load->random << 13;
    load->random ^= load->random >> 7;
    load->random ^= load->random << 17;
    return load->random % below;
}

static void declare_all(struct load *load)
{
    struct rig *rig = load->rig;
    load->queues[0] = rig_plain_queue(rig, "q0");
    load->queues[1] = rig_plain_queue(rig, "q1");
    load->queues[2] = rig_queue(rig, "q2",
                                rig_args(rig_text("x-dead-letter-exchange", ""),
                                         rig_text("x-dead-letter-routing-key", "q0"),
                                         rig_int("x-max-length", 30)));
    load->queues[3] = rig_queue(rig, "q3",
                                rig_args(rig_text("x-dead-letter-exchange", ""),
                                         rig_text("x-dead-letter-routing-key", "q1"),
                                         rig_int("x-message-ttl", 400)));
    load->queues[4] = rig_queue(rig, "q4", rig_args(rig_int("x-delivery-limit", 1)));
    for (int i = 0; i < TOPICS; i++) {
        load->topics[i] = rig_topic(rig, i == 0 ? "t0" : "t1", (struct args){0});
        load->sequences[i] = 0;
    }
}

static void publish_some(struct load *load)
{
    uint64_t queue = load->queues[next_random(load, QUEUES)];
    for (uint64_t n = next_random(load, 8); n > 0; n--)
        rig_publish_to(load->rig, &queue, 1,
                       (struct rig_message){.text = "text",
                                            .transient = next_random(load, 4) == 0,
                                            .conn = 3,
                                            .padding = next_random(load, 600)});
}

/* Leases of one connection are resolved, some of them. */
static void resolve_some(struct load *load)
{
    struct rig *rig = load->rig;
    uint64_t conn = 10 + next_random(load, CONNS);
    for (uint64_t n = next_random(load, 6); n > 0; n--) {
        struct rig_event *event = rig_next(rig, EVENT_DELIVER, conn);
        if (event == NULL)
            return;
        uint64_t dice = next_random(load, 10), offset = event->event.deliver.offset;
        struct offset_range range = {offset, offset};
        rig_tell(rig, (struct command){.type = dice < 6   ? COMMAND_SETTLE
                                               : dice < 8 ? COMMAND_RETURN
                                                          : COMMAND_REJECT,
                                       .asker = {.conn = conn, .channel = 1},
                                       .object = event->event.deliver.queue,
                                       .data = slice_make(&range, sizeof range)});
    }
}

static void produce_some(struct load *load)
{
    uint64_t i = next_random(load, TOPICS);
    uint8_t memory[8192];
    struct rig_batch batch = {.producer_id = 5,
                              .sequence = load->sequences[i],
                              .count = 1 + (int)next_random(load, 3),
                              .value_bytes = next_random(load, 900)};
    struct command command =
        rig_append_command(load->rig, load->topics[i], batch, memory, sizeof memory);
    load->sequences[i] += batch.count;
    rig_tell(load->rig, command);
}

static void work_some(struct load *load, int steps)
{
    struct rig *rig = load->rig;
    for (int step = 0; step < steps; step++) {
        uint64_t dice = next_random(load, 100), conn = 10 + next_random(load, CONNS);
        uint64_t queue = load->queues[next_random(load, QUEUES)];
        if (dice < 40)
            publish_some(load);
        else if (dice < 65)
            resolve_some(load);
        else if (dice < 80)
            produce_some(load);
        else if (dice < 88)
            rig_tell(rig, (struct command){
                              .type = COMMAND_SUBSCRIBE,
                              .asker = {.conn = conn, .channel = 1},
                              .object = queue,
                              .subscribe = {.consumer = 1000 + (uint64_t)step,
                                            .prefetch = 1 + (uint32_t)next_random(load, 20)}});
        else if (dice < 91)
            rig_conn_gone(rig, conn);
        else if (dice < 92)
            rig_tell(rig,
                     (struct command){.type = COMMAND_PURGE, .asker.conn = 3, .object = queue});
        else if (dice < 94)
            rig_tell(rig, (struct command){.type = COMMAND_GET,
                                           .asker = {.conn = conn, .channel = 1},
                                           .object = queue,
                                           .get.no_ack = dice == 92});
        else if (dice < 95)
            rig_tell(rig, (struct command){.type = COMMAND_TRIM,
                                           .asker.conn = 3,
                                           .object = load->topics[0],
                                           .offsets.offset = next_random(load, 20)});
        else
            rig_run(rig, (int64_t)next_random(load, 20));
        sim_run_until(rig->sim, sim_now_us(rig->sim) + (int64_t)next_random(load, 300));
    }
}

static void describe(struct load *load, char *out, size_t room)
{
    struct rig *rig = load->rig;
    for (int i = 0; i < QUEUES; i++) {
        size_t used = strlen(out);
        snprintf(out + used, room - used, "\nqueue %d ", i);
        used = strlen(out);
        rig_owed(rig, load->queues[i], out + used, room - used);
    }
    for (int i = 0; i < TOPICS; i++) {
        const struct partition *partition =
            map_get(&rig_cell(rig, load->topics[i])->partitions, load->topics[i]);
        uint8_t producers[256];
        struct writer writer = writer_over(producers, sizeof producers);
        producers_encode(&partition->producers, &writer);
        assert_false(writer.failed);
        size_t used = strlen(out);
        used += (size_t)snprintf(out + used, room - used, "\ntopic %d %llu..%llu ", i,
                                 (unsigned long long)partition->stream.first,
                                 (unsigned long long)partition->stream.next);
        for (const uint8_t *at = producers; at < writer.at; at++)
            used += (size_t)snprintf(out + used, room - used, "%02x", *at);
    }
}

/* Every message that is owed can be had, in order. */
static void drain(struct load *load)
{
    struct rig *rig = load->rig;
    for (int i = 0; i < QUEUES; i++) {
        struct queue *queue = map_get(&rig_cell(rig, load->queues[i])->queues, load->queues[i]);
        uint64_t count = queue_ready(queue), got = 0, last = 0;
        uint64_t conn = 100 + (uint64_t)i;
        if (i == 3)
            continue; /* expires meanwhile */
        rig_subscribe(rig, load->queues[i], conn, 1, 0, 0);
        rig_run(rig, 200);
        for (struct rig_event *event; (event = rig_next(rig, EVENT_DELIVER, conn)) != NULL; got++) {
            assert_true(got == 0 || event->event.deliver.offset > last);
            assert_string_equal(event->text, "text");
            last = event->event.deliver.offset;
        }
        assert_int_equal(got, count);
        rig_conn_gone(rig, conn);
    }
    for (int i = 0; i < TOPICS; i++) {
        const struct partition *partition =
            map_get(&rig_cell(rig, load->topics[i])->partitions, load->topics[i]);
        uint64_t at = partition->stream.first;
        while (at < partition->stream.next) {
            const struct rig_event *read =
                rig_read(rig, load->topics[i], (struct rig_read){.offset = at, .max_bytes = 20000});
            assert_int_equal(read->event.err, ERR_NONE);
            assert_true(read->event.read.count > 0);
            for (uint32_t n = 0; n < read->event.read.count && n < RIG_ENTRIES; n++) {
                assert_true(read->entries[n].base <= at);
                assert_true(read->entries[n].base + read->entries[n].count > at);
                at = read->entries[n].base + read->entries[n].count;
            }
        }
        assert_int_equal(at, partition->stream.next);
    }
}

static void a_restart_comes_to_the_same_state(void **state)
{
    (void)state;
    uint64_t taken = 0;
    for (uint64_t seed = 130; seed <= 155; seed++) {
        struct rig *rig = malloc(sizeof *rig);
        rig_init(rig, seed, 1 + (uint32_t)(seed % 3));
        rig->segment_bytes = UINT64_C(8192) << (seed % 6);
        rig->memory_limit = seed % 4 == 0 ? 64 << 20 : 600 << 10;
        rig->checkpoint_ms = seed % 2 == 0 ? 40 : 600 * 1000;
        rig_open(rig);
        struct load load = {.rig = rig, .random = seed * 7919};
        declare_all(&load);
        for (int life = 0; life < 3; life++) {
            work_some(&load, 250);
            for (uint64_t conn = 10; conn < 10 + CONNS; conn++)
                rig_conn_gone(rig, conn);
            rig_run(rig, 600); /* expiry and dead letters come to rest */
            static char before[1 << 18], after[1 << 18];
            before[0] = after[0] = '\0';
            describe(&load, before, sizeof before);
            for (uint32_t i = 0; i < rig->cells; i++)
                taken += checkpoints(rig, i);
            if (seed % 5 == 0) {
                rig_stop(rig);
                rig_open(rig);
            } else {
                rig_restart(rig, seed % 2 == 0 ? SIM_KILL : SIM_POWER_CUT);
            }
            describe(&load, after, sizeof after);
            size_t same = 0;
            while (before[same] != '\0' && before[same] == after[same])
                same++;
            if (before[same] != after[same])
                print_message("seed %llu, life %d, was: %.60s\nis: %.60s\n",
                              (unsigned long long)seed, life, before + same, after + same);
            assert_int_equal(before[same], after[same]);
        }
        drain(&load);
        rig_end(rig);
    }
    assert_true(taken > 100);
}

/* ---- Checkpoints ---- */

static void a_checkpoint_before_the_definitions_come_drops_nothing(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = rig_plain_queue(rig, "q"), p = rig_topic(rig, "t", (struct args){0});
    rig_publish_run(rig, q, 0, 9);
    rig_produce(rig, p, (struct rig_batch){.producer_id = -1});
    rig_run(rig, 50);
    rig_crash(rig, SIM_POWER_CUT);
    rig->checkpoint_ms = 1;
    assert_int_equal(rig_open_cells(rig), ERR_NONE);
    rig_run(rig, 200);
    assert_true(checkpoints(rig, 0) > 0);
    rig_feed(rig);
    rig_restart(rig, SIM_POWER_CUT);
    rig_subscribe(rig, q, 5, 1, 0, 0);
    rig_run(rig, 50);
    for (int i = 0; i < 10; i++)
        assert_non_null(rig_next(rig, EVENT_DELIVER, 5));
    assert_int_equal(rig_read(rig, p, (struct rig_read){0})->event.read.count, 1);
    rig_end(rig);
}

static void a_checkpoint_ends_though_everything_keeps_changing(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    enum { MANY = 4500 }; /* more than go into one transaction */
    uint64_t *ids = malloc(MANY * sizeof *ids);
    for (int i = 0; i < MANY; i++) {
        char name[16];
        snprintf(name, sizeof name, "q%d", i);
        ids[i] = rig_plain_queue(rig, name);
    }
    rig_run(rig, 100);
    rig_crash(rig, SIM_KILL);
    rig->checkpoint_ms = 1;
    rig_open(rig);
    for (int round = 0; round < 120 && checkpoints(rig, 0) == 0; round++) {
        for (int i = 0; i < MANY; i++)
            rig_publish(rig, ids[i], "x");
        sim_run_until(rig->sim, sim_now_us(rig->sim) + 150);
    }
    assert_true(checkpoints(rig, 0) > 0);
    free(ids);
    rig_end(rig);
}

static void an_object_that_goes_during_a_checkpoint_stays_away(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct rig *rig = malloc(sizeof *rig);
        rig_init(rig, seed, 1);
        rig->checkpoint_ms = 5;
        rig_open(rig);
        uint64_t ids[30];
        for (int i = 0; i < 30; i++) {
            char name[16];
            snprintf(name, sizeof name, "q%d", i);
            ids[i] = rig_plain_queue(rig, name);
            rig_publish_run(rig, ids[i], 0, 2);
        }
        for (int i = 0; i < 30; i += 2) {
            rig_ask(rig, (struct command){.type = COMMAND_DELETE_QUEUE, .object = ids[i]});
            rig_publish_run(rig, ids[i + 1], 3, 3);
            sim_run_until(rig->sim, sim_now_us(rig->sim) + (int64_t)sim_random(rig->sim, 2000));
        }
        rig_run(rig, 20);
        rig_restart(rig, SIM_POWER_CUT);
        for (int i = 0; i < 30; i++) {
            assert_int_equal(rig_has_queue(rig, ids[i]), i % 2 == 1);
            if (i % 2 == 1)
                assert_int_equal(rig_ready(rig, ids[i], NULL), 4);
        }
        rig_end(rig);
    }
}

static void transient_queues_leave_nothing_on_the_disk(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    rig_run(rig, 50);
    struct store_stats before, after;
    store_stats(rig->cell[0]->store, &before);
    for (int i = 0; i < 300; i++) {
        char name[16];
        snprintf(name, sizeof name, "q%d", i);
        uint64_t q = rig_request(rig, (struct catalog_request){.op = CATALOG_DECLARE_QUEUE,
                                                               .name = slice_of(name),
                                                               .owner = 5,
                                                               .exclusive = true});
        rig_publish_run(rig, q, 0, 1);
    }
    rig_conn_gone(rig, 5);
    rig_run(rig, 50);
    store_stats(rig->cell[0]->store, &after);
    assert_int_equal(before.flushed_bytes, after.flushed_bytes);
    assert_int_equal(rig->cell[0]->queues.count, 0);
    rig_end(rig);
}

/* ---- What memory does not hold ---- */

/* A backlog much larger than memory. */
static uint64_t big_backlog(struct rig *rig, int count)
{
    uint64_t q = rig_plain_queue(rig, "q");
    for (int i = 0; i < count; i++) {
        char text[16];
        snprintf(text, sizeof text, "%d", i);
        rig_publish_to(rig, &q, 1, (struct rig_message){.text = text, .padding = 4000});
        if (i % 16 == 0)
            rig_run(rig, 3);
    }
    rig_run(rig, 100);
    return q;
}

static struct rig *begin_small(void)
{
    struct rig *rig = malloc(sizeof *rig);
    rig_init(rig, 1, 1);
    rig->memory_limit = 600 << 10;
    rig_open(rig);
    return rig;
}

static void a_backlog_is_read_back_and_drained_in_order(void **state)
{
    (void)state;
    struct rig *rig = begin_small();
    uint64_t q = big_backlog(rig, 1000);
    rig_restart(rig, SIM_POWER_CUT);
    rig_subscribe(rig, q, 5, 1, 10, 0);
    for (uint64_t i = 0; i < 1000; i++) {
        struct rig_event *event = NULL;
        for (int n = 0; n < 50 && (event = rig_next(rig, EVENT_DELIVER, 5)) == NULL; n++)
            rig_run(rig, 1);
        assert_non_null(event);
        assert_int_equal(event->event.deliver.offset, i);
        assert_int_equal(strtol(event->text, NULL, 10), i);
        rig_settle(rig, q, 5, i, i);
    }
    rig_got_nothing(rig, 5);
    rig_end(rig);
}

static void start_get(struct rig *rig, uint64_t q, uint64_t conn)
{
    rig_tell(rig, (struct command){.type = COMMAND_GET,
                                   .asker = {.conn = conn, .channel = 1, .tag = 1},
                                   .object = q});
}

static void a_get_waits_for_the_disk(void **state)
{
    (void)state;
    struct rig *rig = begin_small();
    uint64_t q = big_backlog(rig, 400);
    rig_restart(rig, SIM_POWER_CUT);
    rig_run(rig, 20);
    start_get(rig, q, 5);
    start_get(rig, q, 6);
    rig_got_nothing(rig, 5);
    /* One of them goes before its message comes: the message is for the next. */
    rig_times(rig);
    cell_command(rig->cell[0], &(struct command){.type = COMMAND_CONN_GONE, .asker.conn = 5});
    rig_run(rig, 20);
    rig_got(rig, 6, "0");
    rig_got_nothing(rig, 5);
    assert_int_equal(rig_ready(rig, q, NULL), 399);
    rig_end(rig);
}

static void a_get_is_answered_when_its_queue_goes(void **state)
{
    (void)state;
    struct rig *rig = begin_small();
    uint64_t q = big_backlog(rig, 400);
    rig_restart(rig, SIM_POWER_CUT);
    rig_run(rig, 20);
    start_get(rig, q, 5);
    const struct queue_def *def = catalog_queue_by_id(rig->catalog, q);
    cell_queue_removed(rig->cell[0], def);
    struct rig_event *event = rig_next(rig, EVENT_ANSWER, 5);
    assert_non_null(event);
    assert_int_equal(event->event.err, ERR_NOT_FOUND);
    rig_run(rig, 20); /* the load ends */
    assert_true(list_empty(&rig->cell[0]->orphans));
    rig_end(rig);
}

static void loads_under_way_are_freed_with_the_cell(void **state)
{
    (void)state;
    struct rig *rig = begin_small();
    uint64_t q = big_backlog(rig, 400);
    uint64_t p = rig_topic(rig, "t", (struct args){0});
    for (int i = 0; i < 300; i++)
        rig_produce(rig, p, (struct rig_batch){.producer_id = -1, .value_bytes = 4000});
    rig_restart(rig, SIM_POWER_CUT);
    rig_run(rig, 20);
    start_get(rig, q, 5);
    rig_read_start(rig, p, 6, (struct rig_read){0});
    rig_crash(rig, SIM_KILL); /* leaks are seen by the sanitizer */
    rig_open(rig);
    rig_run(rig, 20);
    start_get(rig, q, 5);
    rig_read_start(rig, p, 6, (struct rig_read){0});
    rig_times(rig);
    for (uint64_t conn = 5; conn <= 6; conn++)
        cell_command(rig->cell[0],
                     &(struct command){.type = COMMAND_CONN_GONE, .asker.conn = conn});
    rig_run(rig, 20);
    assert_null(rig_next(rig, EVENT_READ, 6));
    assert_int_equal(rig_ready(rig, q, NULL), 400);
    rig_end(rig);
}

static void a_read_waits_for_the_disk_and_is_answered_though_the_topic_goes(void **state)
{
    (void)state;
    struct rig *rig = begin_small();
    uint64_t p = rig_topic(rig, "t", (struct args){0});
    for (int i = 0; i < 400; i++)
        rig_produce(rig, p, (struct rig_batch){.producer_id = -1, .value_bytes = 4000});
    rig_restart(rig, SIM_POWER_CUT);
    rig_run(rig, 20);
    rig_read_start(rig, p, 5, (struct rig_read){0});
    assert_null(rig_next(rig, EVENT_READ, 5));
    rig_run(rig, 50);
    assert_true(rig_next(rig, EVENT_READ, 5)->event.read.count > 100);
    rig_read_start(rig, p, 6, (struct rig_read){.offset = 250});
    bool waits = rig_next(rig, EVENT_READ, 6) == NULL;
    cell_partition_removed(rig->cell[0], p);
    struct rig_event *event = rig_next(rig, EVENT_READ, 6);
    if (waits) {
        assert_non_null(event);
        assert_int_equal(event->event.err, ERR_NOT_FOUND);
    }
    rig_run(rig, 50);
    assert_null(rig_next(rig, EVENT_READ, 6));
    rig_end(rig);
}

/* ---- Answers ---- */

static uint32_t count_events(struct rig *rig, enum event_type type)
{
    uint32_t count = 0;
    list_each(node, &rig->events) count +=
        list_entry(node, struct rig_event, link)->event.type == type;
    return count;
}

static void confirms_of_one_turn_are_one_event(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = rig_plain_queue(rig, "q");
    rig_run(rig, 50);
    for (int transient = 0; transient < 2; transient++) {
        rig_forget(rig);
        uint64_t first = rig->seq + 1;
        for (int i = 0; i < 100; i++)
            rig_publish_to(rig, &q, 1,
                           (struct rig_message){.text = "x", .conn = 3, .transient = transient});
        rig_run(rig, 50);
        assert_int_equal(count_events(rig, EVENT_PUBLISHED), 1);
        assert_int_equal(rig_confirmed(rig, 3, first), ERR_NONE);
        assert_int_equal(rig_confirmed(rig, 3, first + 99), ERR_NONE);
    }
    rig_end(rig);
}

/* Publishes again from inside every confirm. */
static void publish_again(struct rig *rig, const struct event *event)
{
    if (event->type == EVENT_PUBLISHED && rig->seq < 200)
        rig_publish_to(rig, rig->hook_ctx, 1, (struct rig_message){.text = "x", .conn = 3});
}

static void a_command_from_inside_a_commit_does_no_harm(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = rig_plain_queue(rig, "q");
    rig->hook_ctx = &q;
    rig->hook = publish_again;
    rig_publish_to(rig, &q, 1, (struct rig_message){.text = "x", .conn = 3});
    for (int i = 0; i < 100; i++)
        rig_run(rig, 10);
    rig->hook = NULL;
    assert_int_equal(rig->seq, 200);
    for (uint64_t seq = 1; seq <= 200; seq++)
        assert_int_equal(rig_confirmed(rig, 3, seq), ERR_NONE);
    assert_int_equal(rig_ready(rig, q, NULL), 200);
    rig_end(rig);
}

/* ---- Storage that fails ---- */

static void a_failing_disk_ends_the_cell_and_nothing_is_confirmed_after(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct rig *rig = malloc(sizeof *rig);
        rig_init(rig, seed, 1);
        rig_open(rig);
        uint64_t q = rig_plain_queue(rig, "q");
        rig_publish_to(rig, &q, 1, (struct rig_message){.text = "safe", .conn = 3});
        rig_run(rig, 50);
        assert_int_equal(rig_confirmed(rig, 3, rig->seq), ERR_NONE);
        sim_disk_errors(rig->sim, 0, 1000000);
        uint64_t first = rig->seq + 1;
        for (int i = 0; i < 10; i++) {
            rig_publish_to(rig, &q, 1, (struct rig_message){.text = "x", .conn = 3});
            rig_run(rig, 20);
        }
        assert_int_equal(rig->failed, ERR_IO);
        for (uint64_t seq = first; seq <= rig->seq; seq++)
            assert_int_not_equal(rig_confirmed(rig, 3, seq), ERR_NONE);
        rig_get(rig, q, 5, false, "safe");
        rig_settle(rig, q, 5, 0, 0);
        struct event event = rig_ask(rig, (struct command){.type = COMMAND_PRODUCER_ID});
        assert_int_not_equal(event.err, ERR_NONE);
        sim_disk_errors(rig->sim, 0, 0);
        rig_restart(rig, SIM_POWER_CUT);
        assert_true(rig_ready(rig, q, NULL) >= 1);
        rig_get(rig, q, 5, true, "safe");
        rig_end(rig);
    }
}

static void find_segment(void *ctx, const char *name)
{
    char *found = ctx;
    if (strncmp(name, "journal-", 8) == 0 && found[0] == '\0')
        snprintf(found, 64, "cell-0/%s", name);
}

static void a_cell_that_cannot_be_opened_is_taken_down_cleanly(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    uint64_t q = rig_plain_queue(rig, "q");
    uint64_t p = rig_topic(rig, "t", (struct args){0});
    for (int round = 0; round < 20; round++) {
        rig_publish_run(rig, q, 0, 9);
        rig_produce(rig, p, (struct rig_batch){.producer_id = 1, .sequence = round});
        rig_run(rig, 20);
    }
    rig_crash(rig, SIM_KILL);
    /* Rot in the middle, behind records that are replayed already. */
    char path[64] = "";
    struct disk *disk = sim_disk(rig->sim, 0);
    assert_int_equal(disk_list(disk, "cell-0", find_segment, path), ERR_NONE);
    struct disk_file *file;
    assert_int_equal(disk_open(disk, path, false, &file), ERR_NONE);
    uint8_t byte;
    size_t got;
    uint64_t at = 12000;
    assert_int_equal(disk_read_sync(file, &byte, 1, at, &got), ERR_NONE);
    byte ^= 0x40;
    assert_int_equal(disk_write_sync(file, &byte, 1, at), ERR_NONE);
    assert_int_equal(rig_open_cells(rig), ERR_CORRUPT);
    assert_null(rig->cell[0]);
    catalog_destroy(rig->catalog);
    rig->catalog = NULL;
    byte ^= 0x40;
    assert_int_equal(disk_write_sync(file, &byte, 1, at), ERR_NONE);
    disk_close(file);
    rig_open(rig);
    assert_int_equal(rig_ready(rig, q, NULL), 200);
    rig_end(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_restart_comes_to_the_same_state),
        cmocka_unit_test(a_checkpoint_before_the_definitions_come_drops_nothing),
        cmocka_unit_test(a_checkpoint_ends_though_everything_keeps_changing),
        cmocka_unit_test(an_object_that_goes_during_a_checkpoint_stays_away),
        cmocka_unit_test(transient_queues_leave_nothing_on_the_disk),
        cmocka_unit_test(a_backlog_is_read_back_and_drained_in_order),
        cmocka_unit_test(a_get_waits_for_the_disk),
        cmocka_unit_test(a_get_is_answered_when_its_queue_goes),
        cmocka_unit_test(loads_under_way_are_freed_with_the_cell),
        cmocka_unit_test(a_read_waits_for_the_disk_and_is_answered_though_the_topic_goes),
        cmocka_unit_test(confirms_of_one_turn_are_one_event),
        cmocka_unit_test(a_command_from_inside_a_commit_does_no_harm),
        cmocka_unit_test(a_failing_disk_ends_the_cell_and_nothing_is_confirmed_after),
        cmocka_unit_test(a_cell_that_cannot_be_opened_is_taken_down_cleanly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
