/* Large entries of logs: they stay in the journal's file, which becomes an extent, and what nobody
 * needs of it is given back. */
#include "store/checkpoint_rig.h"
#include "store/verify.h"

/* Entries of 16 to 1515 bytes, of which those from 700 on stay. */
static struct rig *log_create(struct world **out)
{
    struct rig *rig = world_create(out, 1);
    rig->size = 1500;
    rig->keep_bytes = 700;
    assert_int_equal(rig_open(rig), ERR_NONE);
    return rig;
}

static struct double_inode *inode_named(struct rig *rig, const char *part)
{
    for (int i = 0; i < DOUBLE_NAMES; i++) {
        if (rig->disk->now[i].inode != NULL && strstr(rig->disk->now[i].path, part) != NULL)
            return rig->disk->now[i].inode;
    }
    return NULL;
}

static uint64_t extents_kept(const struct rig *rig)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < rig->store->extents.count; i++)
        count += rig->store->extents.files[i]->info.bytes == 0;
    return count;
}

static void damage_count(void *ctx, const char *text)
{
    (void)text;
    ++*(uint64_t *)ctx;
}

static uint64_t damaged(struct rig *rig)
{
    uint64_t count = 0;
    struct verify_report report = {.damage = damage_count, .ctx = &count};
    rig_close(rig);
    assert_int_equal(verify_cell(&rig->disk->disk, rig->state, RIG_PATH, 7, &report), ERR_NONE);
    assert_int_equal(rig_open(rig), ERR_NONE);
    return count;
}

static void they_stay_where_they_are_and_the_others_are_copied(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = log_create(&world);
    append(rig, 1000);
    checkpoint(rig);
    assert_int_equal(rig->store->extents.count, 2);
    assert_int_equal(extents_kept(rig), 1);
    assert_ptr_equal(inode_named(rig, "journal-0"), inode_named(rig, "extent-0000000000000002"));
    uint64_t small = 0, large = 0;
    for (uint64_t i = 0; i < 1000; i++)
        *(rig_len(rig, i) < 700 ? &small : &large) += rig_len(rig, i);
    assert_int_equal(rig->store->extents.files[1]->info.live, large);
    assert_in_range(rig->store->extents.files[0]->info.live, small, small * 2);
    assert_true(rig_verify(rig) > 0);
    reopen(rig, DOUBLE_DROP);
    assert_int_equal(rig->replayed, 0);
    assert_int_equal(rig_count(rig), 1000);
    assert_true(rig_verify(rig) > 0);
    assert_int_equal(damaged(rig), 0);
    world_destroy(world);
}

static void the_journal_goes_on_in_the_file_and_leaves_it(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = log_create(&world);
    append(rig, 300);
    checkpoint(rig);
    append(rig, 300); /* behind what is kept, in the same file */
    checkpoint(rig);
    assert_int_equal(extents_kept(rig), 1);
    append(rig, 1500); /* into the next file */
    checkpoint(rig);
    rig_settle(rig);
    assert_int_equal(extents_kept(rig), 2);
    assert_null(inode_named(rig, "journal-0000000000000000"));
    assert_true(rig->disk->punched > 0); /* headers and small entries */
    assert_true(rig_verify(rig) > 0);
    reopen(rig, DOUBLE_DROP);
    assert_true(rig_verify(rig) > 0);
    assert_int_equal(damaged(rig), 0);
    world_destroy(world);
}

/* What was recovered is kept anew under another number; the file is never written again. */
static void a_file_from_before_a_restart_is_not_used_again(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = log_create(&world);
    append(rig, 300);
    checkpoint(rig);
    reopen(rig, DOUBLE_DROP);
    append(rig, 2000);
    checkpoint(rig);
    append(rig, 2000);
    checkpoint(rig);
    assert_int_equal(files_named(rig, "journal-spare"), 0);
    assert_true(rig_verify(rig) > 0);
    reopen(rig, DOUBLE_DROP);
    assert_int_equal(rig_count(rig), 4300);
    assert_true(rig_verify(rig) > 0);
    assert_int_equal(damaged(rig), 0);
    world_destroy(world);
}

static void trimmed_entries_are_holes_and_the_last_takes_the_file_along(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = world_create(&world, 1);
    rig->size = 30000; /* holes are whole pages */
    rig->keep_bytes = 8192;
    assert_int_equal(rig_open(rig), ERR_NONE);
    append(rig, 200);
    checkpoint(rig);
    uint64_t kept = extents_kept(rig), before = rig->disk->punched;
    assert_true(kept > 1);
    for (uint64_t i = 0; i < RIG_STREAMS; i++)
        assert_int_equal(rig_trim(rig, i, 10), ERR_NONE);
    checkpoint(rig);
    assert_int_equal(extents_kept(rig), kept);
    assert_true(rig->disk->punched - before > 40 * 8000);
    assert_true(rig_verify(rig) > 0);
    assert_int_equal(damaged(rig), 0);
    for (uint64_t i = 0; i < RIG_STREAMS; i++)
        assert_int_equal(rig_trim(rig, i, rig->streams[i].stream.next), ERR_NONE);
    checkpoint(rig);
    assert_int_equal(rig->store->extents.count, 0);
    assert_int_equal(files_named(rig, "extent-"), 0);
    append(rig, 50); /* the present file may be named again */
    checkpoint(rig);
    assert_true(extents_kept(rig) > 0);
    reopen(rig, DOUBLE_DROP);
    assert_true(rig_verify(rig) > 0);
    world_destroy(world);
}

static void a_failed_checkpoint_takes_the_name_back(void **state)
{
    (void)state;
    uint64_t failed = 0;
    for (uint64_t call = 1; call <= 12; call++) {
        struct world *world;
        struct rig *rig = log_create(&world);
        append(rig, 200);
        flush(rig);
        rig_tick(rig, 1);
        rig->disk->fail_at = rig->disk->calls + call;
        rig->disk->fail_err = ERR_DISK_FULL;
        rig_tick(rig, (int64_t)rig->checkpoint_ms + 1);
        rig_settle(rig);
        struct store_stats stats;
        store_stats(rig->store, &stats);
        failed += stats.checkpoints == 0;
        if (stats.checkpoints == 0)
            assert_int_equal(files_named(rig, "extent-"), 0);
        rig->disk->fail_at = 0;
        for (int i = 0; i < 4; i++) {
            rig_tick(rig, 60000);
            rig_settle(rig);
        }
        assert_true(rig_verify(rig) >= 0);
        append(rig, 100);
        checkpoint(rig);
        assert_true(extents_kept(rig) > 0);
        reopen(rig, DOUBLE_DROP);
        assert_true(rig_verify(rig) > 0);
        assert_int_equal(damaged(rig), 0);
        world_destroy(world);
    }
    assert_true(failed >= 3);
}

static void every_flipped_bit_in_them_is_found(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = log_create(&world);
    append(rig, 60);
    checkpoint(rig);
    struct double_inode *file = inode_named(rig, "extent-0000000000000002");
    assert_non_null(file);
    uint64_t found = 0, looked = 0;
    for (uint64_t at = JOURNAL_HEADER_BYTES; at < JOURNAL_HEADER_BYTES + 30000; at += 331) {
        file->data[at] ^= 0x40;
        bool bad = damaged(rig) > 0;
        looked++;
        found += bad;
        if (!bad) /* between them: of no use any more */
            assert_true(rig_verify(rig) > 0);
        else
            assert_int_equal(rig_verify(rig), -1);
        file->data[at] ^= 0x40;
    }
    assert_true(found > looked / 2);
    rig_close(rig);
    assert_int_equal(rig_open(rig), ERR_NONE);
    assert_true(rig_verify(rig) > 0);
    world_destroy(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(they_stay_where_they_are_and_the_others_are_copied),
        cmocka_unit_test(the_journal_goes_on_in_the_file_and_leaves_it),
        cmocka_unit_test(a_file_from_before_a_restart_is_not_used_again),
        cmocka_unit_test(trimmed_entries_are_holes_and_the_last_takes_the_file_along),
        cmocka_unit_test(a_failed_checkpoint_takes_the_name_back),
        cmocka_unit_test(every_flipped_bit_in_them_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
