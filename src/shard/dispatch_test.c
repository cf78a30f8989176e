/* What a shard's connections ask of its own cells arrives in the order in which it was asked, also
 * when some of it was asked from inside a cell and had to be posted. */
#include "shard/shard_rig.h"

#include "codec/entry.h"
#include "core/queue.h"

#include <stdio.h>
#include <string.h>

enum { OWN_CELL = 0, CONN = 7 };

/* A transient queue of a cell of shard 0, which needs no disk. */
static struct queue *queue_make(struct rig *rig)
{
    struct shard *shard = rig->broker.shards[0];
    for (int i = 0; i < 2 * RIG_CELLS; i++) {
        char name[8];
        snprintf(name, sizeof name, "q%d", i);
        struct parts *parts = parts_create(4096);
        struct catalog_request *request = arena_alloc(&parts->arena, sizeof *request);
        *request = (struct catalog_request){.op = CATALOG_DECLARE_QUEUE, .name = slice_of(name)};
        parts->root = request;
        struct command command = {.type = COMMAND_CATALOG, .parts = parts};
        dispatch_command(shard, 0, &command);
        for (int64_t ms = 0; ms < 4; ms++)
            (void)rig_turn(rig, (uint32_t)ms % 2, RIG_START_MS + 10);
        const struct queue_def *def = catalog_queue(shard->catalog, 0, slice_of(name));
        assert_non_null(def);
        if (cell_of(def->id, RIG_CELLS) == OWN_CELL)
            return map_get(&shard->cells[OWN_CELL]->queues, def->id);
    }
    fail_msg("no queue of that cell");
    return NULL;
}

/* As a face does when an event of another cell reaches it. */
static void ask(struct rig *rig, bool inside, struct command *command)
{
    struct shard *shard = rig->broker.shards[0];
    shard->depth += inside;
    dispatch_command(shard, OWN_CELL, command);
    shard->depth -= inside;
}

static void the_end_of_a_connection_does_not_overtake_what_it_asked(void **state)
{
    struct rig *rig = *state;
    struct queue *queue = queue_make(rig);
    struct command subscribe = {.type = COMMAND_SUBSCRIBE,
                                .asker = {.conn = CONN, .channel = 1},
                                .object = queue->ledger.stream.id,
                                .subscribe = {.consumer = 1}};
    struct command gone = {.type = COMMAND_CONN_GONE, .asker = {.conn = CONN}};
    ask(rig, true, &subscribe);
    ask(rig, false, &gone);
    (void)rig_turn(rig, 0, RIG_START_MS + 11);
    (void)rig_turn(rig, 0, RIG_START_MS + 12);
    assert_int_equal(queue->consumers, 0);
    ask(rig, false, &subscribe); /* nothing is on its way any more: it is there at once */
    assert_int_equal(queue->consumers, 1);
}

static void publish(struct rig *rig, bool inside, uint64_t queue, const char *text)
{
    struct shard *shard = rig->broker.shards[0];
    uint8_t head[ENTRY_HEAD_BYTES + 2] = {0};
    entry_head_put(head, &(struct entry_head){.timestamp_ms = 1, .form = ENTRY_AMQP});
    struct cell_publish message = {.targets = &queue,
                                   .target_count = 1,
                                   .pieces = {slice_make(head, sizeof head), {0}, slice_of(text)}};
    shard->depth += inside;
    dispatch_publish(shard, OWN_CELL, &message);
    shard->depth -= inside;
}

static void a_message_does_not_overtake_one_before_it(void **state)
{
    struct rig *rig = *state;
    struct queue *queue = queue_make(rig);
    publish(rig, true, queue->ledger.stream.id, "1");
    publish(rig, false, queue->ledger.stream.id, "2");
    (void)rig_turn(rig, 0, RIG_START_MS + 11);
    for (uint64_t offset = 0; offset < 2; offset++) {
        struct entry entry;
        assert_int_equal(stream_peek(&queue->ledger.stream, offset, &entry), STREAM_HIT);
        assert_int_equal(entry.data.data[entry.data.len - 1], '1' + offset);
    }
}

/* A definition found no memory: the queue whose it is looks like one without. */
static void what_has_no_definition_stays_when_they_did_not_all_come(void **state)
{
    struct rig *rig = *state;
    struct shard *shard = rig->broker.shards[0];
    struct cell *cell = shard->cells[OWN_CELL];
    const uint64_t id = 100 * RIG_CELLS + OWN_CELL;
    assert_non_null(queue_create(cell, id));
    for (int failed = 1; failed >= 0; failed--) {
        atomic_store(&rig->broker.failed, failed != 0);
        mail_change(shard, 0, 0, (struct slice){0}, true);
        (void)rig_turn(rig, 0, RIG_START_MS + 11);
        assert_int_equal(map_get(&cell->queues, id) != NULL, failed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_end_of_a_connection_does_not_overtake_what_it_asked,
                                        rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(what_has_no_definition_stays_when_they_did_not_all_come,
                                        rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(a_message_does_not_overtake_one_before_it, rig_setup,
                                        rig_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
