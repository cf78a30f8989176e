/* Verifying offline when a call fails, or when files, rows and each other's numbers disagree: what
 * could not be looked at is never called sound, and what is wrong is named. */
#include "store/verify_fault.h"

#include "store/index.h"
#include "store/verify.h"

/* ---- Verifying ---- */

enum { TEXTS = 48 };

struct found {
    struct verify_report report;
    char text[TEXTS][512];
    int count, doubts;
};

static void damage_note(void *ctx, const char *text)
{
    struct found *found = ctx;
    if (found->count < TEXTS)
        snprintf(found->text[found->count++], sizeof found->text[0], "%s", text);
}

static void doubt_note(void *ctx, const char *text)
{
    (void)text;
    ((struct found *)ctx)->doubts++;
}

static enum err verify(struct rig *rig, struct found *found)
{
    *found = (struct found){.report = {.damage = damage_note, .doubt = doubt_note}};
    found->report.ctx = found;
    faulty.calls = 0;
    return verify_cell(&rig->disk->disk, &faulty.backend, RIG_PATH, 7, &found->report);
}

static bool says(const struct found *found, const char *words)
{
    for (int i = 0; i < found->count; i++) {
        if (strstr(found->text[i], words) != NULL)
            return true;
    }
    return false;
}

/* Large entries stay in the journal's file, small ones go to an extent; some frames follow. */
static struct rig *cell_create(struct world **out)
{
    struct rig *rig = world_create(out, 1);
    rig->size = 1500;
    rig->keep_bytes = 700;
    assert_int_equal(rig_open(rig), ERR_NONE);
    append(rig, 30);
    checkpoint(rig);
    for (int i = 0; i < 3; i++) {
        append(rig, 4);
        flush(rig);
    }
    rig_close(rig);
    faulty_init(rig);
    struct found found;
    assert_int_equal(verify(rig, &found), ERR_NONE);
    assert_int_equal(found.report.damaged, 0);
    assert_int_equal(found.report.extents, 2);
    assert_int_equal(found.report.frames, 3);
    return rig;
}

static void a_call_that_fails_is_the_answer(void **state)
{
    (void)state;
    static const enum err errors[] = {ERR_IO, ERR_NO_MEMORY};
    struct world *world;
    struct rig *rig = cell_create(&world);
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        struct found found;
        faulty.err = errors[i];
        enum err err = faulty.err;
        uint64_t n = 1;
        for (; err != ERR_NONE; n++) {
            faulty.at = n;
            err = verify(rig, &found);
            assert_int_equal(err, faulty.calls >= n ? errors[i] : ERR_NONE);
        }
        assert_true(n > 20);
        assert_int_equal(found.report.damaged, 0);
    }
    world_destroy(world);
}

static void memory_that_runs_out_is_the_answer(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = cell_create(&world);
    struct found found;
    enum err err = ERR_NO_MEMORY;
    uint64_t n = 1;
    for (; err != ERR_NONE; n++) {
        memory_fail_at(n, 0);
        err = verify(rig, &found);
        bool reached = memory_refused() > 0;
        memory_fail_at(0, 0);
        assert_int_equal(err, reached ? ERR_NO_MEMORY : ERR_NONE);
    }
    assert_true(n > 4);
    assert_int_equal(found.report.damaged, 0);
    world_destroy(world);
}

static void a_file_that_ends_too_early_is_told(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = cell_create(&world);
    struct found found, sound;
    assert_int_equal(verify(rig, &sound), ERR_NONE);
    uint64_t told = 0;
    faulty.shortens = true;
    for (uint64_t n = 1; n == 1 || faulty.calls >= n - 1; n++) {
        faulty.at = n;
        assert_int_equal(verify(rig, &found), ERR_NONE);
        told += found.report.damaged > 0 || found.doubts > 0;
        if (found.report.damaged == 0 && found.doubts == 0) {
            assert_int_equal(found.report.records, sound.report.records);
            assert_int_equal(found.report.entries, sound.report.entries);
        }
    }
    assert_true(told > 15);
    world_destroy(world);
}

/* ---- What does not fit together ---- */

static void put(struct rig *rig, struct state_batch *batch)
{
    struct state *opened;
    assert_int_equal(faulty.real->open(faulty.real, RIG_PATH "/state", false, &opened), ERR_NONE);
    assert_int_equal(faulty.real->commit(opened, batch), ERR_NONE);
    state_batch_done(batch);
    (void)rig;
}

/* The first row of a table. */
static void first(char table, struct state_found *out)
{
    struct state *opened;
    struct state_reader *reader;
    struct slice key = {.data = (const uint8_t *)&table, .len = 1};
    assert_int_equal(faulty.real->open(faulty.real, RIG_PATH "/state", false, &opened), ERR_NONE);
    assert_int_equal(faulty.real->reader_open(opened, &reader), ERR_NONE);
    assert_int_equal(faulty.real->seek(reader, key, STATE_AT_OR_AFTER, out), ERR_NONE);
    faulty.real->reader_close(reader);
}

static struct slice key_in(const struct state_found *found)
{
    return slice_make(found->key, found->key_len);
}

static struct slice value_in(const struct state_found *found)
{
    return slice_make(found->value, found->value_len);
}

static struct index_meta meta_of(void)
{
    struct state_found found;
    struct index_meta meta;
    first('M', &found);
    assert_true(index_meta_get(key_in(&found), value_in(&found), &meta));
    return meta;
}

/* The first row of a block in an extent (kept false), or of a kept entry. */
static struct index_row row_of(bool kept)
{
    struct state *opened;
    struct state_reader *reader;
    struct index_row row = {0};
    assert_int_equal(faulty.real->open(faulty.real, RIG_PATH "/state", false, &opened), ERR_NONE);
    assert_int_equal(faulty.real->reader_open(opened, &reader), ERR_NONE);
    uint64_t at = 0;
    do {
        assert_int_equal(index_row_from(faulty.real, reader, 1, at, &row), ERR_NONE);
        at = row.base + 1;
    } while (row.kept != kept);
    faulty.real->reader_close(reader);
    return row;
}

static struct index_extent extent_of(void)
{
    struct state_found found;
    struct index_extent extent;
    first('X', &found);
    assert_true(index_extent_get(key_in(&found), value_in(&found), &extent));
    return extent;
}

static struct double_inode *inode_named(struct rig *rig, const char *part)
{
    for (int i = 0; i < DOUBLE_NAMES; i++) {
        if (rig->disk->now[i].inode != NULL && strstr(rig->disk->now[i].path, part) != NULL)
            return rig->disk->now[i].inode;
    }
    fail_msg("no file %s", part);
    return NULL;
}

static void meta_put(struct rig *rig, const struct index_meta *meta)
{
    struct state_batch batch = {0};
    index_meta_put(&batch, meta);
    put(rig, &batch);
}

static void row_put(struct rig *rig, const struct index_row *row)
{
    struct state_batch batch = {0};
    index_row_put(&batch, row);
    put(rig, &batch);
}

static void extent_put(struct rig *rig, const struct index_extent *extent)
{
    struct state_batch batch = {0};
    index_extent_put(&batch, extent);
    put(rig, &batch);
}

static void meta_of_another_cell(struct rig *rig)
{
    struct index_meta meta = meta_of();
    meta.cell = 8;
    meta_put(rig, &meta);
}

static void meta_missing(struct rig *rig)
{
    struct state_batch batch = {0};
    struct index_key key;
    index_meta_key(&key);
    state_batch_delete(&batch, index_key_slice(&key));
    put(rig, &batch);
}

static void journal_too_short(struct rig *rig)
{
    struct index_meta meta = meta_of();
    meta.least_end = 1 << 30;
    meta_put(rig, &meta);
}

static void blocks_overlap(struct rig *rig)
{
    struct index_row row = row_of(false);
    row.end += 3;
    row_put(rig, &row);
}

static void block_in_no_extent(struct rig *rig)
{
    struct index_row row = row_of(false);
    row.extent = 99;
    row_put(rig, &row);
}

static void block_said_to_be_kept(struct rig *rig)
{
    struct index_row row = row_of(true);
    row.kept = false;
    row_put(rig, &row);
}

static void block_elsewhere(struct rig *rig)
{
    struct index_row row = row_of(false);
    row.offset += 8;
    row_put(rig, &row);
}

static void block_longer(struct rig *rig)
{
    struct index_row row = row_of(false);
    row.body += 1;
    row_put(rig, &row);
}

static void entry_cut_off(struct rig *rig)
{
    struct index_row row = row_of(true);
    row.offset = 1 << 30;
    row_put(rig, &row);
}

static void live_bytes_other(struct rig *rig)
{
    struct index_extent extent = extent_of();
    extent.live += 8;
    extent_put(rig, &extent);
}

static void extent_too_small(struct rig *rig)
{
    struct index_extent extent = extent_of();
    extent.bytes = 8;
    extent_put(rig, &extent);
    inode_named(rig, "extent-0000000000000001")->size = 8;
}

static void extent_of_another_cell(struct rig *rig)
{
    extent_header_put(inode_named(rig, "extent-0000000000000001")->data,
                      &(struct extent_header){.cell = 8, .number = 1});
}

static void extent_of_another_number(struct rig *rig)
{
    extent_header_put(inode_named(rig, "extent-0000000000000001")->data,
                      &(struct extent_header){.cell = 7, .number = 2});
}

static void extent_not_to_its_end(struct rig *rig)
{
    inode_named(rig, "extent-0000000000000001")->size -= 8;
}

/* More than there is room for at first. */
static void many_extents(struct rig *rig)
{
    for (uint64_t i = 100; i < 170; i++)
        extent_put(rig, &(struct index_extent){.number = i, .bytes = 4096});
}

static void kept_file_missing(struct rig *rig)
{
    assert_int_equal(disk_remove(&rig->disk->disk, RIG_PATH "/extent-0000000000000002"), ERR_NONE);
}

static void journal_of_another_cell(struct rig *rig)
{
    journal_header_put(inode_named(rig, "journal-0")->data,
                       &(struct journal_header){.cell = 8, .start = 0});
}

static void journal_of_another_start(struct rig *rig)
{
    journal_header_put(inode_named(rig, "journal-0")->data,
                       &(struct journal_header){.cell = 7, .start = 512});
}

static void journal_cut(struct rig *rig)
{
    inode_named(rig, "journal-0")->size = 100;
}

static const struct {
    void (*make)(struct rig *rig);
    const char *words;
} mismatches[] = {
    {meta_of_another_cell, "state: damaged meta row, or of another cell"},
    {meta_missing, "state: the meta row is missing"},
    {journal_too_short, "had been stored"},
    {blocks_overlap, "overlap at offset"},
    {block_in_no_extent, "is in no known extent"},
    {block_said_to_be_kept, "is in another kind of file"},
    {block_elsewhere, "extent-0000000000000001: 1 rows of the index point to no block"},
    {block_longer, "extent-0000000000000001: 1 rows of the index point to no block"},
    {entry_cut_off, "extent-0000000000000002: damaged entry at byte"},
    {live_bytes_other, "state: extent 1 counts"},
    {extent_too_small, "extent-0000000000000001: damaged header"},
    {extent_of_another_cell, "extent-0000000000000001: damaged header"},
    {extent_of_another_number, "extent-0000000000000001: damaged header"},
    {extent_not_to_its_end, "extent-0000000000000001: damaged end mark"},
    {many_extents, "extent-0000000000000064: missing"},
    {kept_file_missing, "extent-0000000000000002: missing"},
    {journal_of_another_cell, "journal-0000000000000000: damaged header"},
    {journal_of_another_start, "journal-0000000000000000: damaged header"},
    {journal_cut, "journal-0000000000000000: damaged header"},
};

static void whatever_disagrees_is_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof mismatches / sizeof mismatches[0]; i++) {
        struct world *world;
        struct rig *rig = cell_create(&world);
        mismatches[i].make(rig);
        struct found found;
        assert_int_equal(verify(rig, &found), ERR_NONE);
        if (!says(&found, mismatches[i].words))
            fail_msg("'%s' was not said, but %d things like '%s'", mismatches[i].words, found.count,
                     found.text[0]);
        world_destroy(world);
    }
}

static void journals_that_the_next_start_removes_are_not_looked_at(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = cell_create(&world);
    for (int i = 0; i < 70; i++) {
        char path[DOUBLE_PATH];
        struct disk_file *file;
        snprintf(path, sizeof path, RIG_PATH "/journal-%016x", i + 1);
        assert_int_equal(disk_open(&rig->disk->disk, path, true, &file), ERR_NONE);
        disk_close(file);
    }
    struct found found;
    assert_int_equal(verify(rig, &found), ERR_NONE);
    assert_true(found.report.position > 70);
    assert_true(says(&found, "journal-0000000000000046: damaged header")); /* the last of them */
    for (int i = 1; i < 70; i++) {
        char name[40];
        snprintf(name, sizeof name, "journal-%016x", i);
        assert_false(says(&found, name));
    }
    enum err err = ERR_NO_MEMORY;
    for (uint64_t n = 1; err != ERR_NONE; n++) {
        memory_fail_at(n, 0);
        err = verify(rig, &found);
        memory_fail_at(0, 0);
        assert_true(err == ERR_NONE || err == ERR_NO_MEMORY);
    }
    world_destroy(world);
}

static void a_state_store_that_is_none_is_told_and_the_rest_is_looked_at(void **state)
{
    (void)state;
    struct world *world;
    struct rig *rig = cell_create(&world);
    struct found found;
    faulty.err = ERR_CORRUPT;
    faulty.at = 2; /* opening it */
    assert_int_equal(verify(rig, &found), ERR_NONE);
    assert_true(says(&found, "state: not a state store, at byte 0"));
    assert_int_equal(found.report.strays, 2); /* extents that nobody knows */
    world_destroy(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_that_fails_is_the_answer),
        cmocka_unit_test(memory_that_runs_out_is_the_answer),
        cmocka_unit_test(a_file_that_ends_too_early_is_told),
        cmocka_unit_test(whatever_disagrees_is_named),
        cmocka_unit_test(journals_that_the_next_start_removes_are_not_looked_at),
        cmocka_unit_test(a_state_store_that_is_none_is_told_and_the_rest_is_looked_at),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
