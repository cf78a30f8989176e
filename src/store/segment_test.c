/* Journal files and a full disk: whatever the store is at, a stop comes to an end, nothing
 * confirmed is lost, and what can be given back makes room for the journal. */
#include "store/checkpoint_rig.h"

static struct rig *begin(struct world **out, uint64_t seed)
{
    struct rig *rig = world_create(out, seed);
    rig->size = 2000;
    return rig;
}

static bool file_stands(struct rig *rig, const char *part)
{
    for (int i = 0; i < DOUBLE_NAMES; i++) {
        if (rig->disk->now[i].inode != NULL && strstr(rig->disk->now[i].path, part) != NULL)
            return true;
    }
    return false;
}

/* So much more than the files hold now. */
static void room_left(struct rig *rig, uint64_t bytes)
{
    rig->disk->capacity = double_used(rig->disk) + bytes;
}

/* Appends until the journal's file has no blocks for it, and that many more. */
static void append_beyond_the_file(struct rig *rig, int count)
{
    const struct journal *journal = &rig->store->journal;
    while (journal->end <= journal->current->allocated)
        append(rig, 1);
    append(rig, count);
    store_flush(rig->store, false);
}

/* A new start, with room. What was confirmed must be there. */
static void recovered(struct rig *rig, enum double_crash crash)
{
    uint64_t promised = rig->committed, appended = rig->appended;
    rig_close(rig);
    double_reboot(rig->disk, crash);
    rig->disk->capacity = 0;
    enum err err = rig_open(rig);
    if (err != ERR_NONE)
        print_message("%s\n", rig->problem);
    assert_int_equal(err, ERR_NONE);
    assert_in_range(rig_count(rig), promised, appended);
    assert_true(rig_verify(rig) >= 0);
    rig->appended = rig->committed = (uint64_t)rig_count(rig);
    append(rig, 100);
    flush(rig);
    assert_int_equal(rig->committed, rig->appended);
}

static void checkpoint_begin(struct rig *rig)
{
    rig_tick(rig, 1);
    rig_tick(rig, (int64_t)rig->checkpoint_ms + 1);
    assert_int_not_equal(rig->store->checkpoint.phase, CHECKPOINT_IDLE);
}

/* The disk has room for the extent that a checkpoint is about to complete, or for what was appended
 * meanwhile, not for both. */
static void checkpoint_and_journal_want_the_same_room(struct rig *rig)
{
    rig->segment_bytes = 64u << 20;
    assert_int_equal(rig_open(rig), ERR_NONE);
    append(rig, 3000);
    flush(rig);
    checkpoint_begin(rig);
    while (rig->store->checkpoint.phase != CHECKPOINT_FINISH)
        assert_true(double_turn(rig->disk));
    append_beyond_the_file(rig, 1500);
    room_left(rig, 1200000);
    rig_settle(rig);
    assert_true(rig->committed < rig->appended);
}

static void a_stop_ends_though_its_checkpoint_would_wait_for_a_journal_without_room(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = begin(&world, 1);
    checkpoint_and_journal_want_the_same_room(rig);
    rig->disk->capacity = 1; /* others take what the checkpoint gives back */
    assert_int_equal(rig_stop(rig), ERR_DISK_FULL);
    assert_false(file_stands(rig, "extent-"));
    recovered(rig, DOUBLE_DROP);
    world_destroy(world);
}

static void after_the_stop_no_request_begins(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = begin(&world, 1);
    checkpoint_and_journal_want_the_same_room(rig);
    rig->disk->capacity = 1;
    store_stop(rig->store, rig_stopped, rig);
    for (int i = 0; i < 100 && !rig->stopped; i++) {
        rig_settle(rig);
        rig_tick(rig, 1);
    }
    assert_true(rig->stopped);
    rig->disk->capacity = 0; /* others may still be stopping for a while */
    for (int i = 0; i < 5; i++) {
        rig_tick(rig, (int64_t)rig->checkpoint_ms);
        store_flush(rig->store, false);
        assert_true(store_idle(rig->store));
    }
    assert_int_equal(store_deadline(rig->store, rig->now_ms), INT64_MAX);
    recovered(rig, DOUBLE_DROP);
    world_destroy(world);
}

static void a_checkpoint_gives_its_room_to_a_journal_that_has_none(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = begin(&world, 1);
    checkpoint_and_journal_want_the_same_room(rig);
    for (int i = 0; i < 5; i++) {
        rig_tick(rig, PROBE_MS / 2);
        rig_settle(rig);
    }
    assert_int_equal(rig->committed, rig->appended);
    recovered(rig, DOUBLE_DROP);
    world_destroy(world);
}

static void a_journal_without_room_for_a_step_takes_what_it_needs(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = begin(&world, 1);
    rig->segment_bytes = 64u << 20;
    assert_int_equal(rig_open(rig), ERR_NONE);
    append(rig, 1000);
    flush(rig);
    room_left(rig, 300000);
    append_beyond_the_file(rig, 10);
    rig_settle(rig);
    rig_tick(rig, 1);
    rig_settle(rig);
    assert_int_equal(rig->committed, rig->appended);
    assert_int_equal(rig->failed, ERR_DISK_FULL);
    assert_int_equal(rig_trim(rig, 0, 1), ERR_NONE); /* settles still fit */
    flush(rig);
    assert_int_equal(store_committed(rig->store), store_end(rig->store));
    recovered(rig, DOUBLE_DROP);
    world_destroy(world);
}

static void a_spare_file_makes_room_for_the_journal(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = begin(&world, 1);
    rig->segment_bytes = 20u << 20;
    assert_int_equal(rig_open(rig), ERR_NONE);
    for (int i = 0; i < 1000 && !file_stands(rig, "journal-spare"); i++) {
        append(rig, 50);
        flush(rig);
        for (uint64_t j = 0; j < RIG_STREAMS; j++)
            assert_int_equal(rig_trim(rig, j, rig->streams[j].stream.next), ERR_NONE);
        rig_tick(rig, 1);
        rig_settle(rig);
    }
    assert_true(file_stands(rig, "journal-spare"));
    room_left(rig, 0);
    append_beyond_the_file(rig, 10);
    for (int i = 0; i < 3; i++) {
        rig_settle(rig);
        rig_tick(rig, PROBE_MS);
    }
    rig_settle(rig);
    assert_int_equal(rig->committed, rig->appended);
    assert_false(file_stands(rig, "journal-spare"));
    recovered(rig, DOUBLE_DROP);
    world_destroy(world);
}

/* Appends and trims until the disk has no room, and on. */
static void work(struct rig *rig, uint64_t random)
{
    for (int round = 0; round < 60; round++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        uint64_t dice = random >> 33;
        for (uint64_t i = 0; i < dice % 64 && rig_append(rig) == ERR_NONE; i++)
            continue;
        struct stream *stream = &rig->streams[dice % RIG_STREAMS].stream;
        if (dice / 64 % 3 == 0 && stream->next > stream->first)
            (void)!rig_trim(rig, dice % RIG_STREAMS, stream->first + 1);
        store_flush(rig->store, dice / 7 % 4 == 0);
        for (uint64_t i = dice / 11 % 6; i > 0; i--)
            double_turn(rig->disk);
        rig_tick(rig, (int64_t)(dice / 17 % 50));
    }
}

static void a_stop_ends_however_much_room_there_is(void **state)
{
    (void)state;
    bool stopped_well = false, stopped_full = false;
    for (uint64_t seed = 0; seed < 400; seed++) {
        struct world *world;
        struct rig *rig = begin(&world, seed);
        rig->disk->shuffle = seed % 2 == 1;
        rig->segment_bytes = 300 * 1024;
        rig->checkpoint_ms = 100;
        assert_int_equal(rig_open(rig), ERR_NONE);
        rig->disk->capacity = 700000 + seed * 7919;
        work(rig, seed);
        if (seed % 5 == 0)
            room_left(rig, 0);
        enum err err = rig_stop(rig);
        assert_true(err == ERR_NONE || err == ERR_DISK_FULL);
        stopped_well |= err == ERR_NONE;
        stopped_full |= err == ERR_DISK_FULL;
        recovered(rig, seed % 3 == 0 ? DOUBLE_KEEP : DOUBLE_DROP);
        world_destroy(world);
    }
    assert_true(stopped_well && stopped_full);
}

/* There is no memory for a record that would have opened a file. The next one may fit into the file
 * before it, or need more than that file was to hold. */
static void records_after_one_without_memory_stay_in_their_file(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = begin(&world, 1);
    rig->size = 900000;
    rig->segment_bytes = 512u << 10;
    rig->memory_limit = 16u << 20;
    assert_int_equal(rig_open(rig), ERR_NONE);
    const struct journal *journal = &rig->store->journal;
    uint32_t would_open = 0;
    append(rig, 1);
    for (int i = 0; i < 200; i++) {
        const struct block *block = rig->store->logs[true].open;
        uint64_t pos;
        enum err err = ERR_NONE;
        memory_fail_at(1, 0);
        uint8_t *at = store_reserve(rig->store, true, block->buf->capacity, &pos, &err);
        memory_fail_at(0, 0);
        assert_null(at);
        assert_int_equal(err, ERR_NO_MEMORY);
        would_open += journal->current->limit - journal->frame_start < block->buf->capacity;
        append(rig, 1);
        flush(rig);
    }
    assert_true(would_open > 10);
    recovered(rig, DOUBLE_DROP);
    world_destroy(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stop_ends_though_its_checkpoint_would_wait_for_a_journal_without_room),
        cmocka_unit_test(after_the_stop_no_request_begins),
        cmocka_unit_test(a_checkpoint_gives_its_room_to_a_journal_that_has_none),
        cmocka_unit_test(a_journal_without_room_for_a_step_takes_what_it_needs),
        cmocka_unit_test(a_spare_file_makes_room_for_the_journal),
        cmocka_unit_test(a_stop_ends_however_much_room_there_is),
        cmocka_unit_test(records_after_one_without_memory_stay_in_their_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
