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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_deleted_leaves_nothing_even_when_a_checkpoint_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
