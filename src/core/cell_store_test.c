/* A cell and its storage when something is short: objects that go leave nothing behind, whatever
 * becomes of the checkpoint that is to say so; and memory that runs out at any moment costs at most
 * what was not confirmed. */
#include "base/memory_double.h"
#include "core/cell_steps.h"
#include "core/group.h"

/* ---- A state store whose commits may be refused ---- */

struct fragile {
    struct state_backend backend; /* first member */
    const struct state_backend *real;
    struct state *state; /* of the cell that opened it last */
    uint32_t refuse;     /* so many commits to come */
};

static struct fragile fragile;

static enum err fragile_open(const struct state_backend *self, const char *path, bool create,
                             struct state **out)
{
    (void)self;
    enum err err = fragile.real->open(fragile.real, path, create, out);
    if (err == ERR_NONE)
        fragile.state = *out;
    return err;
}

static enum err fragile_commit(struct state *state, const struct state_batch *batch)
{
    if (fragile.refuse > 0) {
        fragile.refuse--;
        return ERR_DISK_FULL;
    }
    memory_pause();
    enum err err = fragile.real->commit(state, batch);
    memory_resume();
    return err;
}

static void fragile_init(struct rig *rig)
{
    fragile = (struct fragile){.real = state_memory_backend(rig->states)};
    fragile.backend = *fragile.real;
    fragile.backend.open = fragile_open;
    fragile.backend.commit = fragile_commit;
    rig->state = &fragile.backend;
}

static enum err count_row(void *ctx, struct slice key, struct slice value)
{
    (void)value;
    uint64_t *counts = ctx;
    counts[key.data[1]]++;
    return ERR_NONE;
}

/* How many objects of that kind are stored. */
static uint64_t stored(uint8_t kind)
{
    uint64_t counts[256] = {0};
    struct state_reader *reader;
    uint8_t from = 'O', to = 'P';
    assert_int_equal(fragile.real->reader_open(fragile.state, &reader), ERR_NONE);
    assert_int_equal(
        fragile.real->each(reader, slice_make(&from, 1), slice_make(&to, 1), count_row, counts),
        ERR_NONE);
    fragile.real->reader_close(reader);
    return counts[kind];
}

static void delete_topic(struct rig *rig, const char *name)
{
    rig_request(rig, (struct catalog_request){.op = CATALOG_DELETE_TOPIC, .name = slice_of(name)});
}

static void delete_queue(struct rig *rig, uint64_t queue)
{
    assert_int_equal(
        rig_ask(rig, (struct command){.type = COMMAND_DELETE_QUEUE, .object = queue}).err,
        ERR_NONE);
}

static void what_is_deleted_leaves_nothing_even_when_a_checkpoint_fails(void **state)
{
    (void)state;
    for (uint32_t refuse = 0; refuse < 4; refuse++) {
        struct rig rig;
        rig_init(&rig, 1, 1);
        rig.checkpoint_ms = 1000;
        fragile_init(&rig);
        rig_open(&rig);
        uint64_t q = rig_plain_queue(&rig, "q"), kept = rig_plain_queue(&rig, "kept");
        uint64_t p = rig_topic(&rig, "t", (struct args){0});
        rig_publish_run(&rig, q, 0, 20);
        rig_publish(&rig, kept, "k");
        rig_produce(&rig, p, (struct rig_batch){.producer_id = -1});
        rig_run(&rig, 3000);
        assert_int_equal(stored(OBJECT_QUEUE), 2);
        assert_int_equal(stored(OBJECT_PARTITION), 1);
        fragile.refuse = refuse;
        delete_queue(&rig, q);
        delete_topic(&rig, "t");
        rig_run(&rig, 60000);
        assert_int_equal(fragile.refuse, 0);
        assert_int_equal(stored(OBJECT_QUEUE), 1);
        assert_int_equal(stored(OBJECT_PARTITION), 0);
        rig_restart(&rig, SIM_POWER_CUT);
        assert_false(rig_has_queue(&rig, q));
        assert_int_equal(rig_ready(&rig, kept, NULL), 1);
        rig_done(&rig);
    }
}

/* ---- Memory that runs out ---- */

enum { STORY_SEQS = 32 };

/* What a client did, and what it was promised. */
struct story {
    struct rig rig;
    uint64_t q, dlq, safe, copy, p; /* q's dead letters go to dlq, what p gets to copy */
    uint64_t last_setup_tag;
    uint64_t seqs[STORY_SEQS]; /* of what was published to safe, and to q */
    uint32_t seq_count;
    size_t padding; /* of what is published */
    struct {
        uint64_t tag;
        int count;
    } batches[8];
    uint32_t batch_count;
    int32_t sequence;
};

static void story_init(struct story *story, uint32_t cells)
{
    struct rig *rig = &story->rig;
    *story = (struct story){0};
    rig_init(rig, 1, cells);
    rig->checkpoint_ms = 2000;
    fragile_init(rig);
    rig_open(rig);
    story->dlq = rig_plain_queue(rig, "dlq");
    story->safe = rig_plain_queue(rig, "safe");
    story->q = rig_queue(rig, "q",
                         rig_args(rig_text("x-dead-letter-exchange", ""),
                                  rig_text("x-dead-letter-routing-key", "dlq"),
                                  rig_int("x-max-length", 6)));
    story->p = rig_topic(rig, "t", (struct args){0});
    story->copy = rig_plain_queue(rig, "copy");
    rig_bind(rig, "t", TARGET_QUEUE, "copy", "");
    story->last_setup_tag = rig->tag;
}

/* Sends a command that is answered sooner or later. */
static void ask(struct rig *rig, struct command command)
{
    command.asker.conn = command.asker.conn == 0 ? 1 : command.asker.conn;
    command.asker.channel = 1;
    command.asker.tag = ++rig->tag;
    bool first = command.type == COMMAND_CATALOG || command.type == COMMAND_PRODUCER_ID;
    rig_times(rig);
    cell_command(first ? rig->cell[0] : rig_cell(rig, command.object), &command);
    rig_run(rig, 5);
}

static void define(struct rig *rig, struct catalog_request request)
{
    memory_pause();
    struct parts *parts = parts_create(4096);
    struct catalog_request *root = arena_alloc(&parts->arena, sizeof *root);
    memory_resume();
    *root = request;
    root->durable = true;
    parts->root = root;
    ask(rig, (struct command){.type = COMMAND_CATALOG, .parts = parts});
}

static void story_publish(struct story *story, uint64_t queue, struct rig_message message)
{
    message.text = "m";
    message.conn = 3;
    message.padding = story->padding;
    assert_true(story->seq_count < STORY_SEQS);
    story->seqs[story->seq_count++] = rig_publish_to(&story->rig, &queue, 1, message);
}

static void story_produce(struct story *story, struct rig_batch batch)
{
    static uint8_t memory[1 << 16];
    batch.producer_id = 70;
    batch.sequence = story->sequence;
    story->sequence += batch.count;
    struct command command =
        rig_append_command(&story->rig, story->p, batch, memory, sizeof memory);
    story->rig.tag--; /* ask gives it */
    ask(&story->rig, command);
    story->batches[story->batch_count].tag = story->rig.tag;
    story->batches[story->batch_count++].count = batch.count;
}

static void story_definitions(struct rig *rig)
{
    define(rig, (struct catalog_request){.op = CATALOG_DECLARE_QUEUE, .name = slice_of("more")});
    define(rig,
           (struct catalog_request){
               .op = CATALOG_CREATE_TOPIC, .name = slice_of("wide"), .partitions = 3, .uuid = {1}});
    define(rig, (struct catalog_request){
                    .op = CATALOG_GROW_TOPIC, .name = slice_of("wide"), .partitions = 5});
    define(rig, (struct catalog_request){.op = CATALOG_BIND,
                                         .name = slice_of("wide"),
                                         .target_kind = TARGET_QUEUE,
                                         .target = slice_of("copy"),
                                         .key = slice_of("k")});
    define(rig, (struct catalog_request){.op = CATALOG_DELETE_TOPIC, .name = slice_of("wide")});
    ask(rig, (struct command){.type = COMMAND_PRODUCER_ID});
}

/* What is published to q is rejected, pushed out or stays: it is in q or in dlq. */
static void story_messages(struct story *story)
{
    struct rig *rig = &story->rig;
    for (int i = 0; i < 3; i++)
        story_publish(story, story->safe, (struct rig_message){.transient = i == 2});
    for (int i = 0; i < 9; i++) /* more than it holds */
        story_publish(story, story->q, (struct rig_message){0});
    rig_run(rig, 5);
    ask(rig, (struct command){.type = COMMAND_SUBSCRIBE,
                              .asker.conn = 5,
                              .object = story->q,
                              .subscribe = {.consumer = 1, .prefetch = 4}});
    rig_resolve(rig, COMMAND_REJECT, story->q, 5, 3, 4);
    rig_resolve(rig, COMMAND_RETURN, story->q, 5, 5, 5);
    ask(rig, (struct command){.type = COMMAND_GET, .asker.conn = 6, .object = story->q});
    ask(rig, (struct command){.type = COMMAND_QUEUE_STATUS, .object = story->q});
    ask(rig,
        (struct command){
            .type = COMMAND_CANCEL, .asker.conn = 5, .object = story->q, .subscribe.consumer = 1});
    for (uint64_t conn = 5; conn <= 6; conn++)
        rig_conn_gone(rig, conn);
}

static void story_batches(struct story *story)
{
    struct rig *rig = &story->rig;
    for (int i = 0; i < 3; i++)
        story_produce(story, (struct rig_batch){.value_bytes = 10, .count = 2});
    ask(rig, (struct command){.type = COMMAND_READ,
                              .object = story->p,
                              .read = {.max_bytes = 1 << 20, .min_bytes = 1}});
    ask(rig, (struct command){.type = COMMAND_READ, /* waits for the next batch */
                              .object = story->p,
                              .read = {.offset = 6,
                                       .max_bytes = 1 << 20,
                                       .min_bytes = 1,
                                       .deadline_ms = sim_now_ms(rig->sim) + 1000}});
    story_produce(story, (struct rig_batch){.value_bytes = 10, .count = 1});
    ask(rig, (struct command){.type = COMMAND_OFFSETS,
                              .object = story->p,
                              .offsets = {.query = OFFSET_AT_TIME, .time_ms = 1}});
}

/* How the asker was answered; ERR_AGAIN: not at all. */
static enum err told(struct rig *rig, uint64_t tag)
{
    list_each(node, &rig->events)
    {
        const struct event *event = &list_entry(node, struct rig_event, link)->event;
        if (event->asker.tag == tag && event->type != EVENT_PUBLISHED)
            return event->err;
    }
    return ERR_AGAIN;
}

static uint64_t ready(struct story *story, uint64_t queue)
{
    return rig_ready(&story->rig, queue, NULL);
}

static bool story_told(struct story *story, uint64_t from, uint64_t to)
{
    for (uint64_t i = from; i < to; i++) {
        if (rig_confirmed(&story->rig, 3, story->seqs[i]) == ERR_AGAIN)
            return false;
    }
    return true;
}

/* Everything was answered, if no cell has failed; what was promised is there after a power cut. */
static void story_check(struct story *story, uint64_t n)
{
    struct rig *rig = &story->rig;
    uint64_t safe = 0, dying = 0, copied = 0;
    for (uint64_t tag = story->last_setup_tag + 1; tag <= rig->tag; tag++) {
        enum err err = told(rig, tag);
        if (err == ERR_AGAIN && rig->failed == ERR_NONE)
            fail_msg("round %llu: request %llu was not answered", (unsigned long long)n,
                     (unsigned long long)(tag - story->last_setup_tag));
    }
    if (rig->failed == ERR_NONE)
        assert_true(story_told(story, 0, story->seq_count));
    for (uint32_t i = 0; i < story->seq_count; i++) {
        bool promised = rig_confirmed(rig, 3, story->seqs[i]) == ERR_NONE;
        safe += promised && i < 2;
        dying += promised && i >= 3;
    }
    for (uint32_t i = 0; i < story->batch_count; i++) {
        if (told(rig, story->batches[i].tag) == ERR_NONE)
            copied += (uint64_t)story->batches[i].count;
    }
    rig_restart(rig, SIM_POWER_CUT);
    rig_run(rig, 5000); /* what was on its way comes */
    assert_in_range(ready(story, story->safe), safe, 2);
    assert_true(ready(story, story->q) + ready(story, story->dlq) >= dying);
    assert_true(ready(story, story->copy) >= copied);
}

/* With a checkpoint in the middle, and with one at the end. */
static void story_tell(struct story *story)
{
    story_definitions(&story->rig);
    story_messages(story);
    rig_run(&story->rig, 3000);
    story_batches(story);
    define(&story->rig,
           (struct catalog_request){.op = CATALOG_DELETE_QUEUE, .name = slice_of("more")});
    rig_run(&story->rig, 3000);
}

static void memory_may_run_out_at_any_moment(void **state)
{
    (void)state;
    for (uint32_t cells = 1; cells <= 2; cells++) {
        bool reached = true;
        for (uint64_t n = 1; reached; n++) {
            struct story *story = malloc(sizeof *story);
            story_init(story, cells);
            memory_fail_at(n, n % 2);
            story_tell(story);
            reached = memory_refused() > 0;
            memory_fail_at(0, 0);
            rig_run(&story->rig, 5000);
            story_check(story, n);
            rig_done(&story->rig);
            free(story);
        }
    }
}

/* ---- Disks that are full, or fail ---- */

static void a_disk_may_be_full_at_any_moment(void **state)
{
    (void)state;
    for (uint32_t cells = 1; cells <= 2; cells++) {
        uint32_t held_up = 0;
        for (uint64_t more = 0; more < 12; more++) {
            struct story *story = malloc(sizeof *story);
            struct rig *rig = &story->rig;
            story_init(story, cells);
            rig_run(rig, 3000);
            sim_disk_limit(rig->sim, 0, sim_disk_used(rig->sim, 0) + more * 160000);
            story->padding = 100000;
            story_tell(story);
            for (uint32_t i = 0; i < story->seq_count; i++) /* refused, or made to wait */
                held_up += rig_confirmed(rig, 3, story->seqs[i]) != ERR_NONE;
            sim_disk_limit(rig->sim, 0, 0);
            rig_run(rig, 5000);
            assert_int_equal(rig->failed, ERR_NONE);
            story_check(story, more);
            rig_done(rig);
            free(story);
        }
        assert_true(held_up > 10);
    }
}

static void a_disk_may_fail_at_any_moment(void **state)
{
    (void)state;
    uint32_t failed = 0;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct story *story = malloc(sizeof *story);
        struct rig *rig = &story->rig;
        story_init(story, 1 + (uint32_t)(seed % 2));
        for (uint64_t i = 0; i < seed; i++)
            (void)sim_random(rig->sim, 2);
        sim_disk_errors(rig->sim, 0, 20000);
        story_tell(story);
        sim_disk_errors(rig->sim, 0, 0);
        rig_run(rig, 5000);
        failed += rig->failed != ERR_NONE;
        for (uint32_t i = 0; i < rig->cells; i++) /* nobody waits for what will not be done */
            assert_true(store_deadline(rig->cell[i]->store, sim_now_ms(rig->sim)) >
                        sim_now_ms(rig->sim));
        story_check(story, seed);
        rig_done(rig);
        free(story);
    }
    assert_in_range(failed, 5, 29);
}

static void a_start_without_memory_is_refused_and_the_next_finds_everything(void **state)
{
    (void)state;
    struct story *story = malloc(sizeof *story);
    struct rig *rig = &story->rig;
    story_init(story, 2);
    rig->checkpoint_ms = 1000;
    story_tell(story);
    for (int i = 0; i < 3; i++) { /* behind the checkpoint */
        story_publish(story, story->q, (struct rig_message){0});
        story_produce(story, (struct rig_batch){.value_bytes = 10, .count = 2});
    }
    rig_publish_to(rig, &story->copy, 1, (struct rig_message){.text = "m"});
    rig_run(rig, 50);
    uint64_t q = ready(story, story->q), dlq = ready(story, story->dlq);
    uint64_t copy = ready(story, story->copy);
    enum err err = ERR_NO_MEMORY;
    uint64_t n = 1;
    for (; err != ERR_NONE; n++) {
        rig_crash(rig, SIM_POWER_CUT);
        memory_fail_at(n, 0);
        err = rig_open_cells(rig);
        bool reached = memory_refused() > 0;
        memory_fail_at(0, 0);
        assert_int_equal(err, reached ? ERR_NO_MEMORY : ERR_NONE);
    }
    assert_true(n > 50);
    rig_feed(rig);
    rig_run(rig, 5000);
    assert_int_equal(ready(story, story->q) + ready(story, story->dlq), q + dlq);
    assert_int_equal(ready(story, story->copy), copy);
    assert_int_equal(ready(story, story->safe), 2);
    rig_done(rig);
    free(story);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_deleted_leaves_nothing_even_when_a_checkpoint_fails),
        cmocka_unit_test(memory_may_run_out_at_any_moment),
        cmocka_unit_test(a_disk_may_be_full_at_any_moment),
        cmocka_unit_test(a_disk_may_fail_at_any_moment),
        cmocka_unit_test(a_start_without_memory_is_refused_and_the_next_finds_everything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
