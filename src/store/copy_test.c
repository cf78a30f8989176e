/* What a checkpoint copies: entries that left memory come from the journal, never damaged ones, and
 * volatile ones between them keep their place. */
#include "store/checkpoint_rig.h"

/* One journal file of which most has left memory. */
static struct rig *beyond_memory(struct world **out)
{
    struct rig *rig = world_create(out, 1);
    rig->size = 3000;
    rig->memory_limit = 1u << 20;
    rig->segment_bytes = 64u << 20;
    assert_int_equal(rig_open(rig), ERR_NONE);
    for (int i = 0; i < 50; i++) {
        append(rig, 100);
        flush(rig);
    }
    return rig;
}

static void entries_that_left_memory_are_copied_from_the_journal(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = beyond_memory(&world);
    checkpoint(rig);
    assert_true(rig_verify(rig) > 0);
    rig_tick(rig, 0); /* what was read back stays until a turn ends */
    struct store_stats stats;
    store_stats(rig->store, &stats);
    assert_true(stats.memory_bytes <= 4u << 20);
    world_destroy(world);
}

static void damage_in_the_journal_is_not_copied(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = beyond_memory(&world);
    struct double_name *name = double_find(rig->disk->now, RIG_PATH "/journal-0000000000000000");
    name->inode->data[JOURNAL_HEADER_BYTES + 900000] ^= 4;
    rig_tick(rig, 1);
    rig_tick(rig, (int64_t)rig->checkpoint_ms + 1);
    rig_settle(rig);
    assert_int_equal(rig->failed, ERR_CORRUPT);
    world_destroy(world);
}

/* Adds entries first .. last - 1, every third one volatile. */
static void add_mixed(struct rig *rig, struct stream *stream, uint64_t first, uint64_t last)
{
    for (uint64_t i = first; i < last; i++) {
        uint64_t pos;
        enum err err;
        uint8_t *at = store_reserve(rig->store, i % 3 != 1, 100, &pos, &err);
        assert_non_null(at);
        memset(at, 0, 100);
        be64_put(at, i);
        store_commit(rig->store, 100);
        assert_int_equal(stream_add(stream, i, 1, pos, 100), ERR_NONE);
    }
}

static void volatile_entries_between_stored_ones_keep_their_place(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = world_create(&world, 1);
    assert_int_equal(rig_open(rig), ERR_NONE);
    struct stream *stream = &rig->streams[0].stream;
    add_mixed(rig, stream, 0, 300);
    flush(rig);
    rig->streams[0].changed = true;
    rig_tick(rig, 1);
    rig_tick(rig, (int64_t)rig->checkpoint_ms + 1); /* it begins here */
    add_mixed(rig, stream, 300, 420);
    rig_settle(rig);
    assert_int_equal(rig->store->stats.checkpoints, 1);
    assert_int_equal(stream->used - stream->dead, 100 + 120);
    for (uint64_t i = 0; i < 420; i++) {
        struct entry entry;
        int loads = 0;
        enum err err;
        assert_int_equal(rig_read(rig, stream, i, &entry, &loads, &err), STREAM_HIT);
        assert_int_equal(entry.base, i);
        assert_int_equal(be64_get(entry.data.data), i);
        assert_int_equal(entry.is_volatile, i % 3 == 1);
    }
    world_destroy(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entries_that_left_memory_are_copied_from_the_journal),
        cmocka_unit_test(damage_in_the_journal_is_not_copied),
        cmocka_unit_test(volatile_entries_between_stored_ones_keep_their_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
