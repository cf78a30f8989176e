/* A bit turned in an extent or in the journal: the repair tells what is lost, before it changes
 * anything; then nothing is damaged, and nothing but that is gone. */
#include "store/repair_rig.h"

static struct rig *cell_create(struct world **out)
{
    struct rig *rig = world_create(out, 1);
    rig->segment_bytes = 64 * 1024;
    repair_fill(rig, 5);
    return rig;
}

/* Turns a bit, repairs, and holds what is left against what was there. False: nobody minds the bit.
 */
static bool flip(const struct rig *whole, const char *part, uint64_t at)
{
    struct world *world;
    struct rig *rig = repair_copy_of(whole, &world);
    struct told dry, told;
    struct verify_report before = repair_verify(rig);
    assert_int_equal(before.damaged, 0);
    struct double_inode *inode = repair_file(rig, part);
    assert_non_null(inode);
    bool inside = at < inode->size;
    if (inside)
        inode->data[at] ^= 4;
    bool damaged = inside && repair_verify(rig).damaged > 0;
    assert_int_equal(repair_run(rig, true, &dry), ERR_NONE);
    assert_int_equal(repair_verify(rig).damaged > 0, damaged);
    assert_int_equal(repair_run(rig, false, &told), ERR_NONE);
    assert_int_equal(told.entries, dry.entries);
    assert_int_equal(told.frames, dry.frames);
    assert_int_equal(told.steps > 0, damaged);
    struct verify_report after = repair_verify(rig);
    assert_int_equal(after.damaged, 0);
    assert_int_equal(after.entries + told.entries, before.entries);
    if (damaged) {                                     /* not what may be a torn write */
        assert_int_equal(after.frames, before.frames); /* some of nothing among them */
        assert_int_equal(after.records + 9 * told.frames, before.records);
    }
    assert_int_equal(repair_run(rig, false, &told), ERR_NONE);
    assert_int_equal(told.steps, 0); /* and nothing is left to be done */
    world_destroy(world);
    return damaged;
}

static void a_damaged_extent_loses_its_block_alone(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = cell_create(&world);
    uint64_t damaged = 0;
    for (uint64_t at = 0; at < 20000; at += 97)
        damaged += flip(rig, "extent-", at);
    assert_true(damaged > 20);
    world_destroy(world);
}

static void a_damaged_frame_is_lost_alone(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = cell_create(&world);
    uint64_t damaged = 0;
    for (uint64_t at = 0; at < JOURNAL_HEADER_BYTES; at += 601)
        assert_true(flip(rig, "journal-0", at));
    for (uint64_t at = JOURNAL_HEADER_BYTES; at < 40000; at += 127)
        damaged += flip(rig, "journal-0", at);
    assert_true(damaged > 20);
    world_destroy(world);
}

static void an_extent_that_is_gone_takes_nothing_else_with_it(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = cell_create(&world);
    struct told told;
    assert_int_equal(disk_remove(&rig->disk->disk, RIG_PATH "/extent-0000000000000001"), ERR_NONE);
    assert_int_equal(repair_run(rig, false, &told), ERR_NONE);
    assert_int_equal(told.entries, 50);
    assert_int_equal(repair_verify(rig).damaged, 0);
    assert_int_equal(repair_verify(rig).entries, 50);
    world_destroy(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_damaged_extent_loses_its_block_alone),
        cmocka_unit_test(a_damaged_frame_is_lost_alone),
        cmocka_unit_test(an_extent_that_is_gone_takes_nothing_else_with_it),
    };
    repair_memory_keep();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
