/* Checkpoints: entries move to extents while work goes on, restarts replay only what follows,
 * trimmed extents go, crashes and failures at any call lose nothing. */
#include "store/checkpoint_rig.h"
#include "store/verify.h"

static void what_lives_moves_to_an_extent_and_is_not_replayed(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = world_create(&world, 1);
    assert_int_equal(rig_open(rig), ERR_NONE);
    append(rig, 3000);
    checkpoint(rig);
    for (int i = 0; i < RIG_STREAMS; i++)
        assert_int_equal(rig->streams[i].stream.used, 0);
    assert_int_equal(files_named(rig, "extent-"), 1);
    assert_true(rig_verify(rig) > 0);
    reopen(rig, DOUBLE_DROP);
    assert_int_equal(rig->replayed, 0);
    assert_int_equal(rig_count(rig), 3000);
    assert_true(rig_verify(rig) > 0);
    append(rig, 100);
    flush(rig);
    reopen(rig, DOUBLE_DROP);
    assert_int_equal(rig->replayed, 3100);
    assert_true(rig_verify(rig) > 0);
    world_destroy(world);
}

static void what_was_consumed_before_is_never_copied(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = world_create(&world, 1);
    assert_int_equal(rig_open(rig), ERR_NONE);
    append(rig, 3000);
    for (uint64_t i = 0; i < RIG_STREAMS; i++)
        assert_int_equal(rig_trim(rig, i, rig->streams[i].stream.next), ERR_NONE);
    checkpoint(rig);
    assert_int_equal(files_named(rig, "extent-"), 0);
    reopen(rig, DOUBLE_DROP);
    assert_int_equal(rig_count(rig), 3000);
    assert_int_equal(rig->replayed, 0);
    world_destroy(world);
}

static void an_extent_goes_when_its_streams_are_trimmed_or_dropped(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = world_create(&world, 1);
    assert_int_equal(rig_open(rig), ERR_NONE);
    append(rig, 3000);
    checkpoint(rig);
    for (uint64_t i = 0; i < RIG_STREAMS - 1; i++)
        assert_int_equal(rig_trim(rig, i, 750), ERR_NONE);
    checkpoint(rig);
    assert_int_equal(files_named(rig, "extent-"), 1);
    stream_done(&rig->streams[3].stream, true);
    stream_init(&rig->streams[3].stream, rig->store, 50, 750, 750);
    append(rig, 1);
    checkpoint(rig);
    assert_int_equal(files_named(rig, "extent-"), 1); /* the new one */
    assert_int_equal(rig->store->extents.count, 1);
    assert_int_equal(rig->store->extents.files[0]->info.number, 2);
    world_destroy(world);
}

static void full_files_bring_checkpoints_and_are_used_again(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = world_create(&world, 1);
    rig->size = 2000;
    assert_int_equal(rig_open(rig), ERR_NONE);
    for (int i = 0; i < 400; i++) {
        append(rig, 40);
        flush(rig);
        rig_tick(rig, 1);
        rig_settle(rig);
        uint64_t first = rig->appended / RIG_STREAMS;
        first = first > 500 ? first - 500 : 0;
        for (uint64_t j = 0; j < RIG_STREAMS; j++)
            assert_int_equal(rig_trim(rig, j, first), ERR_NONE);
    }
    struct store_stats stats;
    store_stats(rig->store, &stats);
    assert_true(stats.checkpoints >= 10);
    assert_true(files_named(rig, "journal-") <= 4);
    assert_true(stats.extent_bytes < 16u << 20);
    flush(rig);
    assert_true(rig_verify(rig) >= 0);
    reopen(rig, DOUBLE_DROP);
    assert_int_equal(rig_count(rig), 16000);
    assert_true(rig_verify(rig) >= 0);
    world_destroy(world);
}

static void an_index_that_fills_memory_brings_a_checkpoint(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = world_create(&world, 1);
    rig->segment_bytes = 64u << 20;
    rig->memory_limit = 1u << 20;
    assert_int_equal(rig_open(rig), ERR_NONE);
    int enough = (int)(rig->memory_limit / 2 / sizeof(struct stream_row)) + 1;
    append(rig, enough - 1);
    flush(rig);
    rig_tick(rig, 1);
    rig_tick(rig, 2000);
    assert_int_equal(rig->store->stats.checkpoints, 0);
    append(rig, 1);
    flush(rig);
    assert_int_equal(rig->store->row_bytes, (size_t)enough * sizeof(struct stream_row));
    rig_tick(rig, 1);
    rig_settle(rig);
    assert_int_equal(rig->store->stats.checkpoints, 1);
    assert_int_equal(rig->store->row_bytes, 0);
    assert_int_equal(rig_count(rig), enough);
    world_destroy(world);
}

static void an_orderly_stop_leaves_no_journal(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = world_create(&world, 1);
    assert_int_equal(rig_open(rig), ERR_NONE);
    append(rig, 1000);
    assert_int_equal(rig_stop(rig), ERR_NONE);
    assert_int_equal(files_named(rig, "journal-"), 0);
    double_reboot(rig->disk, DOUBLE_DROP);
    assert_int_equal(rig_open(rig), ERR_NONE);
    assert_int_equal(rig_count(rig), 1000);
    assert_int_equal(rig->replayed, 0);
    assert_true(rig_verify(rig) > 0);
    assert_int_equal(rig_stop(rig), ERR_NONE); /* nothing happened */
    assert_int_equal(rig_open(rig), ERR_NONE);
    rig->appended = 1000;
    append(rig, 1000);
    flush(rig);
    reopen(rig, DOUBLE_DROP);
    assert_int_equal(rig_count(rig), 2000);
    assert_true(rig_verify(rig) > 0);
    world_destroy(world);
}

static void old_journal_files_that_a_crash_left_do_no_harm(void **state)
{
    (void)state;
    for (int torn = 0; torn < 2; torn++) {
        struct world *world;
        struct rig *rig = world_create(&world, 1);
        rig->size = 2000;
        assert_int_equal(rig_open(rig), ERR_NONE);
        append(rig, 200);
        flush(rig);
        struct double_name *name =
            double_find(rig->disk->now, RIG_PATH "/journal-0000000000000000");
        struct double_inode *old = name->inode;
        append(rig, 4000);
        flush(rig);
        checkpoint(rig);
        double_put(rig->disk->now, RIG_PATH "/journal-0000000000000000", old);
        int64_t count = rig_count(rig);
        rig_close(rig);
        for (int i = 0; torn && i < DOUBLE_NAMES; i++) { /* and the newest files are gone */
            name = &rig->disk->now[i];
            if (name->inode != NULL && strstr(name->path, "journal-") != NULL && name->inode != old)
                name->inode = NULL;
        }
        assert_int_equal(rig_open(rig), ERR_NONE);
        assert_int_equal(rig_count(rig), count);
        rig->appended = (uint64_t)count;
        append(rig, 100);
        flush(rig);
        rig_close(rig);
        assert_int_equal(rig_open(rig), ERR_NONE);
        assert_int_equal(rig_count(rig), count + 100);
        assert_true(rig_verify(rig) >= 0);
        world_destroy(world);
    }
}

static void damage_print(void *ctx, const char *text)
{
    (void)ctx;
    print_message("%s\n", text);
}

static void many_objects_go_in_several_transactions(void **state)
{
    (void)state;
    uint8_t *bulk = calloc(1, RIG_BULK_BYTES);
    bool partly = false;
    assert_non_null(bulk);
    for (uint64_t turns = 1;; turns++) { /* a crash after so many requests of the checkpoint */
        struct world *world;
        struct rig *rig = world_create(&world, 1);
        rig->bulk = bulk;
        assert_int_equal(rig_open(rig), ERR_NONE);
        append(rig, 400);
        checkpoint(rig);
        assert_int_equal(rig_trim(rig, 0, 100), ERR_NONE);
        assert_int_equal(rig_trim(rig, 1, 100), ERR_NONE);
        append(rig, 40);
        flush(rig);
        rig->bulk_changed = 20;
        rig_tick(rig, (int64_t)rig->checkpoint_ms + 1);
        bool more = true;
        for (uint64_t i = 0; i < turns && more; i++)
            more = double_turn(rig->disk);
        rig->committed = rig->appended;
        reopen(rig, DOUBLE_DROP);
        assert_int_equal(rig_count(rig), 440);
        assert_true(rig_verify(rig) >= 0);
        struct verify_report report = {.damage = damage_print};
        assert_int_equal(verify_cell(&rig->disk->disk, rig->state, RIG_PATH, 7, &report), ERR_NONE);
        assert_int_equal(report.damaged, 0);
        uint64_t restored = rig->bulk_restored;
        partly |= restored > 0 && restored < 20;
        rig->appended = rig->committed = 440;
        append(rig, 40);
        checkpoint(rig);
        assert_true(rig_verify(rig) >= 0);
        assert_int_equal(rig->store->extents.files[0]->info.blocks, 2); /* of streams 2 and 3 */
        world_destroy(world);
        if (!more) {
            assert_int_equal(restored, 20);
            assert_true(partly);
            break;
        }
    }
    free(bulk);
}

static void a_journal_that_lost_what_objects_reflect_is_refused(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = world_create(&world, 1);
    assert_int_equal(rig_open(rig), ERR_NONE);
    append(rig, 100);
    flush(rig);
    uint64_t mark = store_end(rig->store);
    rig_tick(rig, 1);
    rig_tick(rig, (int64_t)rig->checkpoint_ms + 1); /* it begins here */
    append(rig, 100);
    rig_settle(rig);
    assert_int_equal(rig->store->stats.checkpoints, 1);
    assert_true(rig->store->extents.meta.least_end > mark);
    rig_close(rig);
    struct double_name *name = double_find(rig->disk->now, RIG_PATH "/journal-0000000000000000");
    assert_int_equal(rig_open(rig), ERR_NONE);
    assert_int_equal(rig_count(rig), 200);
    rig_close(rig);
    memset(name->inode->data + JOURNAL_HEADER_BYTES + mark, 0, 40000);
    assert_int_equal(rig_open(rig), ERR_CORRUPT);
    assert_non_null(strstr(rig->problem, "had been stored"));
    world_destroy(world);
}

static void an_unused_store_stops_without_touching_the_disk(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = world_create(&world, 1);
    assert_int_equal(rig_open(rig), ERR_NONE);
    assert_int_equal(rig_stop(rig), ERR_NONE);
    assert_int_equal(rig->disk->calls, 0);
    world_destroy(world);
}

static void damage_in_an_extent_is_noticed(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = world_create(&world, 1);
    assert_int_equal(rig_open(rig), ERR_NONE);
    append(rig, 40);
    checkpoint(rig);
    struct double_name *name = double_find(rig->disk->now, RIG_PATH "/extent-0000000000000001");
    assert_non_null(name);
    uint64_t noticed = 0;
    for (uint64_t at = EXTENT_HEADER_BYTES; at < name->inode->size - EXTENT_END_BYTES; at++) {
        reopen(rig, DOUBLE_KEEP);
        name->inode->data[at] ^= 0x20;
        int loads = 0;
        for (uint64_t i = 0; i < RIG_STREAMS; i++) {
            struct entry entry;
            enum err err;
            enum stream_found found =
                rig_read(rig, &rig->streams[i].stream, 0, &entry, &loads, &err);
            if (found == STREAM_HIT)
                assert_true(rig_matches(rig, entry.data, i));
            noticed += found == STREAM_MISS && err == ERR_CORRUPT;
        }
        name->inode->data[at] ^= 0x20;
    }
    assert_int_equal(noticed, name->inode->size - EXTENT_END_BYTES - EXTENT_HEADER_BYTES);
    world_destroy(world);
}

static void a_full_disk_delays_the_checkpoint(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = world_create(&world, 1);
    rig->size = 2000;
    rig->segment_bytes = 64u << 20;
    assert_int_equal(rig_open(rig), ERR_NONE);
    append(rig, 1000);
    flush(rig);
    rig->disk->capacity = double_used(rig->disk) + 300000;
    rig_tick(rig, 1);
    rig_tick(rig, (int64_t)rig->checkpoint_ms + 1);
    rig_settle(rig);
    struct store_stats stats;
    store_stats(rig->store, &stats);
    assert_int_equal(stats.checkpoints, 0);
    assert_int_equal(rig->failed, ERR_NONE);
    assert_int_equal(files_named(rig, "extent-"), 0);
    rig->disk->capacity = 0;
    rig_tick(rig, 2000);
    rig_tick(rig, 1);
    rig_settle(rig);
    store_stats(rig->store, &stats);
    assert_int_equal(stats.checkpoints, 1);
    assert_true(rig_verify(rig) > 0);
    reopen(rig, DOUBLE_DROP);
    assert_int_equal(rig_count(rig), 1000);
    assert_true(rig_verify(rig) > 0);
    world_destroy(world);
}

static void the_last_of_a_disk_is_kept_for_what_frees_it(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = world_create(&world, 1);
    rig->size = 4000;
    rig->disk->capacity = 12u << 20;
    assert_int_equal(rig_open(rig), ERR_NONE);
    enum err err = ERR_NONE;
    for (int i = 0; i < 20000 && err == ERR_NONE; i++) {
        err = rig_append(rig);
        if (i % 16 == 0) {
            flush(rig);
            rig_tick(rig, 10);
            rig_settle(rig);
        }
    }
    assert_int_equal(err, ERR_DISK_FULL);
    assert_int_equal(rig->failed, ERR_DISK_FULL);
    flush(rig);
    assert_int_equal(rig->committed, rig->appended);
    for (uint64_t i = 0; i < RIG_STREAMS; i++) /* consumers go on */
        assert_int_equal(rig_trim(rig, i, rig->streams[i].stream.next), ERR_NONE);
    flush(rig);
    for (int i = 0; i < 100; i++) { /* checkpoints have room, and make more */
        rig_tick(rig, (int64_t)rig->checkpoint_ms / 20);
        rig_settle(rig);
    }
    assert_int_equal(rig->failed, ERR_NONE);
    append(rig, 10);
    flush(rig);
    assert_int_equal(rig->committed, rig->appended);
    reopen(rig, DOUBLE_DROP);
    assert_int_equal(rig_count(rig), (int64_t)rig->appended);
    assert_true(rig_verify(rig) >= 0);
    world_destroy(world);
}

static void memory_that_is_only_kept_ready_goes_after_a_while(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = world_create(&world, 1);
    rig->size = 4000;
    assert_int_equal(rig_open(rig), ERR_NONE);
    append(rig, 1000);
    flush(rig);
    for (uint64_t i = 0; i < RIG_STREAMS; i++)
        assert_int_equal(rig_trim(rig, i, rig->streams[i].stream.next), ERR_NONE);
    flush(rig);
    for (int i = 0; i < 5; i++)
        rig_tick(rig, SWEEP_MS);
    assert_int_equal(rig->store->memory, 0);
    assert_int_equal(rig->store->pooled, 0);
    append(rig, 10);
    flush(rig);
    reopen(rig, DOUBLE_DROP);
    assert_int_equal(rig_count(rig), 1010);
    assert_true(rig_verify(rig) >= 0);
    world_destroy(world);
}

static void a_mostly_dead_extent_is_rewritten(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = world_create(&world, 1);
    rig->size = 2000;
    assert_int_equal(rig_open(rig), ERR_NONE);
    append(rig, 4000);
    checkpoint(rig);
    for (uint64_t i = 0; i < RIG_STREAMS; i++) /* an eighth of one stream stays */
        assert_int_equal(rig_trim(rig, i, i == 2 ? 875 : 1000), ERR_NONE);
    checkpoint(rig);
    append(rig, 4);
    checkpoint(rig);
    append(rig, 4);
    checkpoint(rig);
    struct store_stats stats;
    store_stats(rig->store, &stats);
    assert_true(stats.extent_bytes < 400000);
    assert_null(double_find(rig->disk->now, RIG_PATH "/extent-0000000000000001"));
    assert_true(rig_verify(rig) > 0);
    reopen(rig, DOUBLE_DROP);
    assert_int_equal(rig->streams[2].stream.first, 875);
    assert_true(rig_verify(rig) > 0);
    world_destroy(world);
}

static void many_small_extents_become_one(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = world_create(&world, 1);
    assert_int_equal(rig_open(rig), ERR_NONE);
    for (int i = 0; i < 60; i++) {
        append(rig, 10);
        checkpoint(rig);
        assert_true(files_named(rig, "extent-") <= 10);
    }
    assert_true(rig_verify(rig) > 0);
    reopen(rig, DOUBLE_DROP);
    assert_int_equal(rig_count(rig), 600);
    assert_true(rig_verify(rig) > 0);
    world_destroy(world);
}

/* Appends, trims, checkpoints, reads, in an order that the random numbers say. */
static void work(struct rig *rig, uint64_t *random, int rounds)
{
    for (int round = 0; round < rounds && !rig->disk->dead && rig->failed == ERR_NONE; round++) {
        *random = *random * 6364136223846793005u + 1442695040888963407u;
        uint64_t dice = *random >> 33;
        for (uint64_t i = 0; i < dice % 30; i++) {
            if (rig_append(rig) != ERR_NONE)
                return;
        }
        uint64_t which = dice / 32 % RIG_STREAMS;
        struct stream *stream = &rig->streams[which].stream;
        if (dice / 128 % 3 == 0 && stream->next > stream->first) {
            uint64_t first = stream->first + 1 + dice / 512 % (stream->next - stream->first);
            if (rig_trim(rig, which, first) != ERR_NONE)
                return;
        }
        store_flush(rig->store, dice / 7 % 4 == 0);
        for (uint64_t i = dice / 11 % 6; i > 0; i--)
            double_turn(rig->disk);
        struct entry entry;
        int loads = 0;
        enum err err = ERR_NONE;
        if (dice / 13 % 4 == 0 && stream_peek(stream, stream->first, &entry) == STREAM_HIT)
            assert_true(rig_matches(rig, entry.data, entry.base * RIG_STREAMS + which));
        (void)loads;
        (void)err;
        rig_tick(rig, (int64_t)(dice / 17 % 8));
    }
    rig_settle(rig);
}

static void recovered(struct rig *rig, enum double_crash crash)
{
    uint64_t promised = rig->committed, appended = rig->appended;
    reopen(rig, crash);
    int64_t count = rig_count(rig);
    assert_true(count >= (int64_t)promised && count <= (int64_t)appended);
    for (int i = 0; i < RIG_STREAMS; i++)
        assert_true(rig->streams[i].stream.first >= rig->promised_first[i]);
    assert_true(rig_verify(rig) >= 0);
    rig->appended = rig->committed = (uint64_t)count;
}

static void nothing_confirmed_is_lost_in_a_crash_at_any_call(void **state)
{
    (void)state;
    static const enum double_crash kinds[] = {DOUBLE_DROP, DOUBLE_KEEP, DOUBLE_TEAR, DOUBLE_TEAR};
    for (uint64_t seed = 0; seed < 4; seed++) {
        bool crashed = true;
        for (uint64_t at = 1 + seed; crashed; at += 1 + seed) { /* all of them with the first */
            struct world *world;
            struct rig *rig = world_create(&world, seed * 1000 + at);
            rig->disk->shuffle = seed % 2 == 1;
            rig->size = 1500;
            rig->keep_bytes = at % 3 == 0 ? 0 : 700;
            rig->segment_bytes = 300 * 1024;
            rig->checkpoint_ms = 100;
            rig->memory_limit = 600 * 1024;
            rig->sync = seed != 3; /* what durability os promises when the machine survives ... */
            enum double_crash crash = rig->sync ? kinds[seed] : DOUBLE_KEEP;
            uint64_t random = seed + 17;
            assert_int_equal(rig_open(rig), ERR_NONE);
            rig->disk->crash_at = at;
            work(rig, &random, 50);
            crashed = rig->disk->dead;
            recovered(rig, crash);
            rig->disk->crash_at = rig->disk->calls + 1 + at % 29;
            work(rig, &random, 20);
            recovered(rig, crash);
            if (!rig->sync) { /* ... and when not, it starts all the same, with a prefix */
                work(rig, &random, 30);
                uint64_t appended = rig->appended;
                reopen(rig, DOUBLE_TEAR);
                assert_in_range(rig_count(rig), 0, appended);
                rig->appended = rig->committed = (uint64_t)rig_count(rig);
                memset(rig->promised_first, 0, sizeof rig->promised_first);
                assert_true(rig_verify(rig) >= 0);
            }
            work(rig, &random, 30);
            assert_int_equal(rig_stop(rig), ERR_NONE);
            assert_int_equal(rig_open(rig), ERR_NONE);
            recovered(rig, crash);
            world_destroy(world);
        }
    }
}

static void a_failing_call_fails_loudly_or_is_made_up_for(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        bool failed = true;
        for (uint64_t at = 1; failed; at++) {
            struct world *world;
            struct rig *rig = world_create(&world, at);
            rig->size = 1500;
            rig->segment_bytes = 300 * 1024;
            rig->checkpoint_ms = 100;
            uint64_t random = 99;
            assert_int_equal(rig_open(rig), ERR_NONE);
            rig->disk->fail_at = at;
            rig->disk->fail_err = kind == 0 ? ERR_IO : ERR_DISK_FULL;
            work(rig, &random, 80);
            failed = rig->disk->calls >= at;
            if (failed && kind == 0)
                assert_int_equal(rig->failed, ERR_IO);
            for (int i = 0; i < 4; i++) {
                rig_tick(rig, 2000);
                rig_settle(rig);
            }
            if (kind == 1)
                assert_int_equal(rig->failed, ERR_NONE);
            recovered(rig, DOUBLE_DROP);
            world_destroy(world);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_lives_moves_to_an_extent_and_is_not_replayed),
        cmocka_unit_test(what_was_consumed_before_is_never_copied),
        cmocka_unit_test(an_extent_goes_when_its_streams_are_trimmed_or_dropped),
        cmocka_unit_test(full_files_bring_checkpoints_and_are_used_again),
        cmocka_unit_test(an_index_that_fills_memory_brings_a_checkpoint),
        cmocka_unit_test(an_orderly_stop_leaves_no_journal),
        cmocka_unit_test(old_journal_files_that_a_crash_left_do_no_harm),
        cmocka_unit_test(many_objects_go_in_several_transactions),
        cmocka_unit_test(a_journal_that_lost_what_objects_reflect_is_refused),
        cmocka_unit_test(an_unused_store_stops_without_touching_the_disk),
        cmocka_unit_test(damage_in_an_extent_is_noticed),
        cmocka_unit_test(a_full_disk_delays_the_checkpoint),
        cmocka_unit_test(the_last_of_a_disk_is_kept_for_what_frees_it),
        cmocka_unit_test(memory_that_is_only_kept_ready_goes_after_a_while),
        cmocka_unit_test(a_mostly_dead_extent_is_rewritten),
        cmocka_unit_test(many_small_extents_become_one),
        cmocka_unit_test(nothing_confirmed_is_lost_in_a_crash_at_any_call),
        cmocka_unit_test(a_failing_call_fails_loudly_or_is_made_up_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
