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

/* ---- What is not a turned bit ---- */

static struct state *state_of(const struct rig *rig)
{
    struct state *opened;
    assert_int_equal(rig->state->open(rig->state, RIG_PATH "/state", true, &opened), ERR_NONE);
    return opened;
}

static void batch_commit(const struct rig *rig, struct state_batch *batch)
{
    assert_int_equal(rig->state->commit(state_of(rig), batch), ERR_NONE);
    state_batch_done(batch);
}

static struct index_meta meta_of(const struct rig *rig)
{
    struct state_reader *reader;
    struct state_found found;
    struct index_key key;
    struct index_meta meta;
    index_meta_key(&key);
    assert_int_equal(rig->state->reader_open(state_of(rig), &reader), ERR_NONE);
    assert_int_equal(rig->state->seek(reader, index_key_slice(&key), STATE_AT_OR_AFTER, &found),
                     ERR_NONE);
    rig->state->reader_close(reader);
    assert_true(index_meta_get(index_key_slice(&key),
                               (struct slice){.data = found.value, .len = found.value_len}, &meta));
    return meta;
}

static void meta_set(const struct rig *rig, struct index_meta meta)
{
    struct state_batch batch = {0};
    index_meta_put(&batch, &meta);
    batch_commit(rig, &batch);
}

static void row_delete(const struct rig *rig, struct index_key key)
{
    struct state_batch batch = {0};
    state_batch_delete(&batch, index_key_slice(&key));
    batch_commit(rig, &batch);
}

static void cannot_repair(struct world *world, const char *why)
{
    struct told told;
    uint64_t before = repair_sum(&world->rig);
    assert_int_equal(repair_run(&world->rig, true, &told), ERR_CORRUPT);
    assert_int_equal(repair_run(&world->rig, false, &told), ERR_CORRUPT);
    if (strstr(told.last, why) == NULL)
        fail_msg("'%s' is said instead of '%s'", told.last, why);
    assert_true(repair_sum(&world->rig) == before);
    world_destroy(world);
}

static void nothing_to_repair(struct world *world)
{
    struct told told;
    assert_int_equal(repair_run(&world->rig, false, &told), ERR_NONE);
    assert_int_equal(told.steps, 0);
    world_destroy(world);
}

static void a_folder_without_a_checkpoint_is_left_alone(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = world_create(&world, 1);
    nothing_to_repair(world); /* there is none */
    rig = world_create(&world, 1);
    (void)state_of(rig); /* no row */
    nothing_to_repair(world);
    rig = world_create(&world, 1);
    assert_int_equal(rig_open(rig), ERR_NONE);
    append(rig, 10);
    flush(rig);
    rig_close(rig);
    nothing_to_repair(world);
}

static void a_cell_whose_meta_row_is_no_more_is_left_as_it_is(void **state)
{
    (void)state;
    struct world *world;
    struct index_key key;
    struct index_meta meta;
    index_meta_key(&key);
    row_delete(cell_create(&world), key);
    cannot_repair(world, "cannot be repaired without it");

    meta = meta_of(cell_create(&world));
    meta.cell = REPAIR_CELL + 1;
    meta_set(&world->rig, meta);
    cannot_repair(world, "cannot be repaired without it");

    struct state_batch batch = {0};
    struct rig *rig = cell_create(&world);
    state_batch_put(&batch, index_key_slice(&key), slice_of("rubbish"));
    batch_commit(rig, &batch);
    cannot_repair(world, "cannot be repaired without it");

    rig = world_create(&world, 1); /* an extent, and nothing else */
    index_extent_put(&batch, &(struct index_extent){.number = 1, .bytes = 100});
    batch_commit(rig, &batch);
    cannot_repair(world, "cannot be repaired without it");
}

static void a_row_of_an_unknown_kind_is_told(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = cell_create(&world);
    struct state_batch batch = {0};
    struct index_key key;
    index_extent_key(9, &key);
    state_batch_put(&batch, index_key_slice(&key), slice_of("rubbish"));
    batch_commit(rig, &batch);
    cannot_repair(world, "makes no sense");

    struct told told;
    rig = cell_create(&world);
    index_row_key(9, 9, &key);
    state_batch_put(&batch, index_key_slice(&key), slice_of("rubbish"));
    batch_commit(rig, &batch);
    assert_int_equal(repair_run(rig, false, &told), ERR_CORRUPT);
    assert_non_null(strstr(told.last, "makes no sense"));
    world_destroy(world);
}

static void rows_into_an_extent_that_no_row_names_are_taken_out(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = cell_create(&world);
    struct index_key key;
    struct told told;
    index_extent_key(2, &key);
    row_delete(rig, key);
    assert_int_equal(repair_run(rig, false, &told), ERR_NONE);
    assert_int_equal(told.entries, 50);
    assert_int_equal(repair_verify(rig).damaged, 0);
    assert_int_equal(repair_verify(rig).entries, 50);
    world_destroy(world);
}

static void what_the_index_counts_is_counted_again(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = cell_create(&world);
    struct told told;
    uint64_t right = repair_sum(rig);
    struct state_batch batch = {0};
    uint64_t bytes = repair_file(rig, "extent-0000000000000001")->size;
    index_extent_put(&batch,
                     &(struct index_extent){.number = 1, .bytes = bytes, .live = 1, .blocks = 4});
    batch_commit(rig, &batch);
    assert_true(repair_sum(rig) != right);
    assert_int_equal(repair_run(rig, false, &told), ERR_NONE);
    assert_true(repair_sum(rig) == right);
    world_destroy(world);
}

static void a_header_of_another_file_is_written_anew(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = cell_create(&world);
    struct told told;
    uint64_t right = repair_sum(rig);
    const struct journal_header journals[] = {{.cell = REPAIR_CELL, .start = 4096},
                                              {.cell = REPAIR_CELL + 1}};
    const struct extent_header extents[] = {{.cell = REPAIR_CELL, .number = 2},
                                            {.cell = REPAIR_CELL + 1, .number = 1}};
    for (int i = 0; i < 2; i++) {
        struct world *copied;
        struct rig *copy = repair_copy_of(rig, &copied);
        journal_header_put(repair_file(copy, "journal-0")->data, &journals[i]);
        extent_header_put(repair_file(copy, "extent-0000000000000001")->data, &extents[i]);
        assert_int_equal(repair_run(copy, false, &told), ERR_NONE);
        assert_int_equal(told.steps, 2);
        assert_int_equal(told.entries + told.frames, 0);
        assert_int_equal(disk_remove(&copy->disk->disk, REPAIR_ASIDE "/journal-0000000000000000"),
                         ERR_NONE);
        assert_int_equal(disk_remove(&copy->disk->disk, REPAIR_ASIDE "/extent-0000000000000001"),
                         ERR_NONE);
        assert_true(repair_sum(copy) == right);
        world_destroy(copied);
    }
    world_destroy(world);
}

/* ---- Journals that cannot be, or need not be ---- */

/* A journal of two files behind the checkpoint; *turn: number of the first frame in the second. */
static struct rig *long_create(struct world **out, struct frame_place *frames, int *turn)
{
    struct rig *rig = world_create(out, 1);
    rig->segment_bytes = 64 * 1024;
    rig->size = 3000;
    repair_fill(rig, 12);
    int count = repair_frames(rig, meta_of(rig).position, frames);
    for (*turn = 1; *turn < count && frames[*turn].inode == frames[0].inode;)
        ++*turn;
    assert_true(*turn < count - 1);
    return rig;
}

static void journal_remove(const struct rig *rig, uint64_t start)
{
    char path[64];
    path_numbered(path, sizeof path, RIG_PATH, "journal", start);
    assert_int_equal(disk_remove(&rig->disk->disk, path), ERR_NONE);
}

static uint64_t start_of(const struct frame_place *frame)
{
    return frame->position - (frame->at - JOURNAL_HEADER_BYTES);
}

static void a_journal_file_that_is_missing_cannot_be_made_up(void **state)
{
    (void)state;
    struct world *world;
    struct frame_place frames[REPAIR_FRAMES];
    int turn;
    struct rig *rig = long_create(&world, frames, &turn);
    journal_remove(rig, start_of(&frames[0]));
    cannot_repair(world, "is missing");

    rig = cell_create(&world);
    struct index_meta meta = meta_of(rig);
    meta.least_end = repair_verify(rig).end;
    meta_set(rig, meta);
    journal_remove(rig, 0);
    cannot_repair(world, "last file is missing");
}

static void frames_that_do_not_fit_are_left_alone(void **state)
{
    (void)state;
    const int64_t moves[] = {1000, -1}; /* more than there is room for; as many as there were */
    for (size_t i = 0; i < 2; i++) {
        struct world *world;
        struct rig *rig = cell_create(&world);
        struct frame_place frames[REPAIR_FRAMES];
        struct frame frame;
        assert_int_equal(repair_frames(rig, meta_of(rig).position, frames), 5);
        inode_flip(frames[0].inode, frames[0].at + FRAME_HEADER_BYTES);
        for (int f = 1; f < 5; f++) {
            uint8_t *data = frames[f].inode->data + frames[f].at;
            assert_true(frame_check(data, frames[f].bytes, &frame));
            frame.index += (uint64_t)moves[i];
            frame_seal(data, &frame);
        }
        cannot_repair(world, "do not fit");
    }
}

static void what_stands_before_the_checkpoint_is_not_looked_at(void **state)
{
    (void)state;
    struct world *world;
    struct frame_place frames[REPAIR_FRAMES];
    int turn;
    struct rig *rig = long_create(&world, frames, &turn);
    struct frame frame;
    assert_true(
        frame_check(frames[turn].inode->data + frames[turn].at, frames[turn].bytes, &frame));
    struct index_meta meta = meta_of(rig);
    meta.position = frames[turn].position;
    meta.index = frame.index;
    meta.chain = frame.chain;
    meta_set(rig, meta);
    memset(frames[0].inode->data, 0, frames[0].inode->size);
    nothing_to_repair(world);
}

static void a_journal_file_that_was_cut_short_gets_a_header(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = cell_create(&world);
    struct told told;
    struct double_inode *inode = repair_file(rig, "journal-0");
    inode->size = inode->safe_size = JOURNAL_HEADER_BYTES / 2;
    assert_int_equal(repair_run(rig, false, &told), ERR_NONE);
    assert_non_null(strstr(told.last, "gets a new header"));
    assert_int_equal(repair_file(rig, "journal-0")->size, JOURNAL_HEADER_BYTES);
    world_destroy(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_damaged_extent_loses_its_block_alone),
        cmocka_unit_test(a_damaged_frame_is_lost_alone),
        cmocka_unit_test(an_extent_that_is_gone_takes_nothing_else_with_it),
        cmocka_unit_test(a_folder_without_a_checkpoint_is_left_alone),
        cmocka_unit_test(a_cell_whose_meta_row_is_no_more_is_left_as_it_is),
        cmocka_unit_test(a_row_of_an_unknown_kind_is_told),
        cmocka_unit_test(rows_into_an_extent_that_no_row_names_are_taken_out),
        cmocka_unit_test(what_the_index_counts_is_counted_again),
        cmocka_unit_test(a_header_of_another_file_is_written_anew),
        cmocka_unit_test(a_journal_file_that_is_missing_cannot_be_made_up),
        cmocka_unit_test(frames_that_do_not_fit_are_left_alone),
        cmocka_unit_test(what_stands_before_the_checkpoint_is_not_looked_at),
        cmocka_unit_test(a_journal_file_that_was_cut_short_gets_a_header),
    };
    repair_memory_keep();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
