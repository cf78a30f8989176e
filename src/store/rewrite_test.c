/* Checkpoints that find no memory: nothing is lost, one that finds some later does all that was to
 * be done, and only what comes behind the commit stops the store. */
#include "store/checkpoint_rig.h"

#include <malloc.h>

struct scene {
    uint64_t memory_limit; /* less than what is appended: blocks are read from the journal */
    uint64_t keep_bytes;
    size_t size;
    bool trims; /* so that extents are rewritten */
};

static struct rig *scene_create(const struct scene *scene, struct world **out)
{
    struct rig *rig = world_create(out, 1);
    rig->segment_bytes = 64 * 1024;
    rig->size = scene->size;
    rig->keep_bytes = scene->keep_bytes;
    if (scene->memory_limit > 0)
        rig->memory_limit = scene->memory_limit;
    assert_int_equal(rig_open(rig), ERR_NONE);
    for (int i = 0; i < 12; i++) {
        append(rig, 25);
        flush(rig);
        if (i == 5)
            checkpoint(rig);
    }
    for (uint64_t i = 0; scene->trims && i < RIG_STREAMS; i++)
        assert_int_equal(rig_trim(rig, i, i == 0 ? 5 : 40), ERR_NONE);
    if (scene->trims)
        checkpoint(rig);
    append(rig, 25);
    flush(rig);
    return rig;
}

/* With the n-th request for memory failing. False: the checkpoint came to its end before. */
static bool memory_fails(const struct scene *scene, uint64_t n, int *stops)
{
    struct world *world;
    struct rig *rig = scene_create(scene, &world);
    uint64_t before = rig->store->stats.checkpoints;
    rig_tick(rig, 1);
    memory_fail_at(n, 0);
    rig_tick(rig, (int64_t)rig->checkpoint_ms + 1);
    rig_settle(rig);
    bool reached = memory_refused() > 0;
    memory_fail_at(0, 0);
    if (rig->failed == ERR_NONE) {
        rig_tick(rig, 120000); /* it is tried again */
        rig_settle(rig);
        assert_true(rig->store->stats.checkpoints > before);
        assert_true(rig_verify(rig) >= 0);
    } else { /* it is committed, and the store could not follow */
        assert_int_equal(rig->failed, ERR_NO_MEMORY);
        *stops += 1;
    }
    reopen(rig, DOUBLE_DROP);
    assert_int_equal(rig_count(rig), 325);
    assert_true(rig_verify(rig) >= 0);
    world_destroy(world);
    return reached;
}

static void a_checkpoint_that_finds_no_memory_is_made_later(void **state)
{
    (void)state;
    const struct scene scenes[] = {
        {.size = 200},
        {.size = 3000, .memory_limit = 64 << 10},
        {.size = 1500, .keep_bytes = 700},
        {.size = 200, .trims = true},
    };
    for (size_t i = 0; i < sizeof scenes / sizeof scenes[0]; i++) {
        uint64_t n = 1;
        int stops = 0;
        while (memory_fails(&scenes[i], n, &stops))
            n++;
        assert_true(n > 5);
        if (stops > 3)
            fail_msg("%d of %d stop the store", stops, (int)n - 1);
    }
}

/* Of an extent that is to be rewritten a bit is turned at `at`. */
static void victim_damage(const struct scene *scene, uint64_t at, bool cut)
{
    struct world *world;
    struct rig *rig = scene_create(scene, &world);
    struct double_name *name = double_find(rig->disk->now, RIG_PATH "/extent-0000000000000001");
    assert_non_null(name);
    if (cut)
        name->inode->size = at;
    else
        name->inode->data[at] ^= 4;
    checkpoint(rig);
    assert_int_equal(rig->failed, ERR_NONE);
    uint64_t behind = 40; /* the first extent has none so far on */
    for (uint64_t i = 0; i < RIG_STREAMS; i++) {
        int loads = 0;
        enum err err;
        struct entry entry;
        assert_int_equal(rig_read(rig, &rig->streams[i].stream, behind, &entry, &loads, &err),
                         STREAM_HIT);
        assert_true(rig_matches(rig, entry.data, behind * RIG_STREAMS + i));
    }
    world_destroy(world);
}

static void a_damaged_extent_is_left_as_it_is(void **state)
{
    (void)state;
    const struct scene scene = {.size = 200, .trims = true};
    struct world *world;
    struct rig *rig = scene_create(&scene, &world);
    uint64_t size = double_find(rig->disk->now, RIG_PATH "/extent-0000000000000001")->inode->size;
    checkpoint(rig);
    assert_null(double_find(rig->disk->now, RIG_PATH "/extent-0000000000000001"));
    world_destroy(world);
    for (uint64_t at = EXTENT_HEADER_BYTES; at < size; at += 331) {
        victim_damage(&scene, at, false);
        victim_damage(&scene, at, true);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_checkpoint_that_finds_no_memory_is_made_later),
        cmocka_unit_test(a_damaged_extent_is_left_as_it_is),
    };
    (void)mallopt(M_MMAP_THRESHOLD, 64 << 20); /* most of the time went into getting it anew */
    (void)mallopt(M_TRIM_THRESHOLD, 256 << 20);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
