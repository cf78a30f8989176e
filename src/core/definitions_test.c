/* The catalog in the journal and the state store: what piles up is written anew, and no crash loses
 * a definition. */
#include "core/cell_steps.h"

/* Sends a request without waiting for what comes of it; a definition has so many bytes. */
static void request(struct rig *rig, enum catalog_op op, const char *kind, int number, size_t bytes)
{
    static uint8_t note[100 * 1024];
    const struct arg arg = {
        .name = slice_of("note"), .kind = ARG_BYTES, .text = slice_make(note, bytes)};
    char name[32];
    snprintf(name, sizeof name, "%s-%d", kind, number);
    struct parts *parts = parts_create(1024);
    struct catalog_request *root = arena_alloc(&parts->arena, sizeof *root);
    *root = (struct catalog_request){
        .op = op, .name = slice_of(name), .durable = true, .args = {&arg, bytes > 0}};
    parts->root = root;
    rig_times(rig);
    cell_command(rig->cell[0], &(struct command){.type = COMMAND_CATALOG, .parts = parts});
}

static enum err count_definition(void *ctx, struct slice key, struct slice value)
{
    (void)value;
    *(int *)ctx += key.data[1] == OBJECT_CATALOG_CHANGE;
    return ERR_NONE;
}

/* Objects in the state store that the catalog consists of. */
static int stored_definitions(struct rig *rig)
{
    const struct state_backend *backend = state_memory_backend(rig->states);
    struct state *store;
    struct state_reader *reader;
    int count = 0;
    assert_int_equal(backend->open(backend, "cell-0/state", false, &store), ERR_NONE);
    assert_int_equal(backend->reader_open(store, &reader), ERR_NONE);
    assert_int_equal(backend->each(reader, slice_of("O"), slice_of("P"), count_definition, &count),
                     ERR_NONE);
    backend->reader_close(reader);
    backend->close(store);
    return count;
}

enum { LASTING = 150, PASSING = 600 };

/* Changes much more than the catalog comes to; that does not fit into one transaction when a
 * definition is large. */
static void lasting_and_passing(struct rig *rig, size_t bytes)
{
    for (int i = 0; i < LASTING; i++)
        request(rig, CATALOG_DECLARE_QUEUE, "lasting", i, bytes);
    rig_run(rig, 50);
    rig_stop(rig);
    rig_open(rig);
    for (int i = 0; i < PASSING; i++) {
        request(rig, CATALOG_DECLARE_QUEUE, "passing", i, 0);
        request(rig, CATALOG_DELETE_QUEUE, "passing", i, 0);
    }
    rig_run(rig, 50);
}

static void check_lasting(struct rig *rig)
{
    for (int i = 0; i < LASTING; i++) {
        char name[32];
        snprintf(name, sizeof name, "lasting-%d", i);
        assert_non_null(catalog_queue(rig->catalog, 0, slice_of(name)));
    }
    assert_null(catalog_queue(rig->catalog, 0, slice_of("passing-7")));
    assert_int_equal(rig->cell[0]->queues.count, LASTING);
}

static void definitions_that_come_and_go_do_not_pile_up(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    for (int round = 0; round < 3; round++) {
        lasting_and_passing(rig, 0);
        rig_stop(rig);
        assert_true(stored_definitions(rig) < LASTING + 1100);
        rig_open(rig);
        check_lasting(rig);
    }
    rig_end(rig);
}

static void definitions_survive_a_crash_at_any_time_of_a_checkpoint(void **state)
{
    (void)state;
    int stopped = 0;
    for (uint64_t seed = 1; seed <= 15; seed++) {
        struct rig *rig = malloc(sizeof *rig);
        rig_init(rig, seed, 1);
        rig_open(rig);
        lasting_and_passing(rig, 80 * 1024);
        rig->stopped = 0;
        cell_stop(rig->cell[0], rig_stopped, rig);
        sim_run_until(rig->sim, sim_now_us(rig->sim) + 80 * (int64_t)seed);
        stopped += rig->stopped > 0;
        rig_restart(rig, seed % 2 == 0 ? SIM_KILL : SIM_POWER_CUT);
        check_lasting(rig);
        /* And again, after that. */
        rig_stop(rig);
        rig_open(rig);
        check_lasting(rig);
        rig_end(rig);
    }
    assert_true(stopped > 0 && stopped < 13); /* some before its end, some behind */
}

/* A topic is made by one that goes away before it hears of it; whoever asks next is told that it is
 * there, when that is certain. */
static void that_something_is_there_is_said_when_it_is_safe(void **state)
{
    (void)state;
    struct rig *rig = rig_begin(1);
    for (uint64_t conn = 1; conn <= 2; conn++) {
        struct parts *parts = parts_create(1024);
        struct catalog_request *root = arena_alloc(&parts->arena, sizeof *root);
        *root = (struct catalog_request){
            .op = CATALOG_CREATE_TOPIC, .name = slice_of("t"), .partitions = 1, .durable = true};
        parts->root = root;
        rig_times(rig);
        cell_command(
            rig->cell[0],
            &(struct command){.type = COMMAND_CATALOG, .asker = {.conn = conn}, .parts = parts});
    }
    assert_null(rig_next(rig, EVENT_ANSWER, 1));
    assert_null(rig_next(rig, EVENT_ANSWER, 2));
    rig_run(rig, 50);
    assert_int_equal(rig_next(rig, EVENT_ANSWER, 1)->event.err, ERR_NONE);
    const struct rig_event *second = rig_next(rig, EVENT_ANSWER, 2);
    assert_int_equal(second->event.err, ERR_EXISTS);
    assert_string_equal(second->text, "Topic 't' already exists.");
    rig_end(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(that_something_is_there_is_said_when_it_is_safe),
        cmocka_unit_test(definitions_that_come_and_go_do_not_pile_up),
        cmocka_unit_test(definitions_survive_a_crash_at_any_time_of_a_checkpoint),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
