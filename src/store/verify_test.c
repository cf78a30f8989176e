/* Verifying offline finds every damage there is and none that is not. */
#include "store/verify.h"

#include "store/rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

struct found {
    struct verify_report report;
    char text[8][512];
    int count, doubts;
};

static void damage_note(void *ctx, const char *text)
{
    struct found *found = ctx;
    if (found->count < 8)
        snprintf(found->text[found->count++], sizeof found->text[0], "%s", text);
}

static void doubt_note(void *ctx, const char *text)
{
    struct found *found = ctx;
    (void)text;
    found->doubts++;
}

static uint64_t verify(struct rig *rig, struct found *found)
{
    memset(found, 0, sizeof *found);
    found->report.damage = damage_note;
    found->report.doubt = doubt_note;
    found->report.ctx = found;
    assert_int_equal(verify_cell(&rig->disk->disk, rig->state, RIG_PATH, 7, &found->report),
                     ERR_NONE);
    return found->report.damaged;
}

static struct state_memory *cell_make(struct rig *rig)
{
    struct state_memory *memory = state_memory_create();
    rig_init(rig, 1);
    rig->state = state_memory_backend(memory);
    assert_int_equal(rig_make_cell(rig), ERR_NONE);
    return memory;
}

static void a_sound_cell_is_found_sound_and_counted(void **state)
{
    (void)state;
    struct state_memory *memory = state_memory_create();
    struct rig rig;
    struct found found;
    rig_init(&rig, 1);
    rig.state = state_memory_backend(memory);
    assert_int_equal(verify(&rig, &found), 0); /* an absent folder, too */
    assert_int_equal(rig_make_cell(&rig), ERR_NONE);
    assert_int_equal(verify(&rig, &found), 0);
    assert_int_equal(found.report.extents, 2);
    assert_int_equal(found.report.streams, RIG_STREAMS);
    assert_int_equal(found.report.entries, 100);
    assert_int_equal(found.report.records, 50);
    assert_int_equal(found.report.frames, 5);
    assert_int_equal(found.report.objects[1], RIG_STREAMS);
    assert_true(found.report.end > found.report.position);
    rig_done(&rig);
    state_memory_destroy(memory);
}

static void every_flipped_bit_is_found_with_file_and_offset(void **state)
{
    (void)state;
    struct rig rig;
    struct found found;
    struct state_memory *memory = cell_make(&rig);
    assert_int_equal(verify(&rig, &found), 0);
    uint64_t files = 0, frames_end = 0, from = 0;
    for (int i = 0; i < DOUBLE_NAMES; i++) {
        struct double_name *name = &rig.disk->now[i];
        bool journal = name->inode != NULL && strstr(name->path, "journal-0") != NULL;
        if (!journal && (name->inode == NULL || strstr(name->path, "extent-") == NULL))
            continue;
        files++;
        uint64_t end = name->inode->size;
        if (journal) { /* behind the checkpoint, and the last frame could be a torn write */
            from = JOURNAL_HEADER_BYTES + found.report.position;
            frames_end = JOURNAL_HEADER_BYTES + found.report.end;
            end = frames_end - (frames_end - from) / 4;
        }
        uint64_t position = found.report.position, file_end = found.report.end;
        for (uint64_t at = 0; at < end; at += 13) {
            if (journal && at >= JOURNAL_HEADER_BYTES && at < from)
                at = from;
            name->inode->data[at] ^= 0x40;
            assert_true(verify(&rig, &found) > 0);
            assert_non_null(strstr(found.text[0], strrchr(name->path, '/') + 1));
            assert_non_null(strstr(found.text[0], "at byte"));
            name->inode->data[at] ^= 0x40;
        }
        found.report.position = position;
        found.report.end = file_end;
    }
    assert_int_equal(files, 3);
    assert_int_equal(verify(&rig, &found), 0);
    rig_done(&rig);
    state_memory_destroy(memory);
}

static void a_last_write_that_is_not_whole_is_told(void **state)
{
    (void)state;
    struct rig rig;
    struct found found;
    struct state_memory *memory = cell_make(&rig);
    assert_int_equal(verify(&rig, &found), 0);
    assert_int_equal(found.doubts, 0);
    uint64_t end = found.report.end;
    for (int i = 0; i < DOUBLE_NAMES; i++) {
        struct double_name *name = &rig.disk->now[i];
        if (name->inode == NULL || strstr(name->path, "journal-0") == NULL)
            continue;
        for (uint64_t back = 1; back < 200; back += 7) {
            uint8_t *byte = &name->inode->data[JOURNAL_HEADER_BYTES + end - back];
            *byte ^= 2;
            assert_int_equal(verify(&rig, &found), 0);
            assert_int_equal(found.doubts, 1);
            *byte ^= 2;
        }
    }
    rig_done(&rig);
    state_memory_destroy(memory);
}

static void what_index_and_extents_disagree_on_is_found(void **state)
{
    (void)state;
    struct rig rig;
    struct found found;
    struct state_memory *memory = cell_make(&rig);
    assert_int_equal(disk_remove(&rig.disk->disk, RIG_PATH "/extent-0000000000000002"), ERR_NONE);
    assert_true(verify(&rig, &found) > 0);
    assert_non_null(strstr(found.text[0], "extent-0000000000000002: missing"));
    rig_done(&rig);
    state_memory_destroy(memory);
}

static void damaged_rows_of_the_state_store_are_found(void **state)
{
    (void)state;
    static const char tables[] = {'M', 'E', 'X', 'O'};
    for (size_t i = 0; i < sizeof tables; i++) {
        struct state_memory *memory = state_memory_create();
        struct rig rig;
        struct found found;
        struct state *opened;
        struct state_reader *reader;
        struct state_found row;
        rig_init(&rig, 1);
        rig.state = state_memory_backend(memory);
        assert_int_equal(rig_make_cell(&rig), ERR_NONE);
        assert_int_equal(rig.state->open(rig.state, RIG_PATH "/state", false, &opened), ERR_NONE);
        assert_int_equal(rig.state->reader_open(opened, &reader), ERR_NONE);
        struct slice key = {.data = (const uint8_t *)&tables[i], .len = 1};
        assert_int_equal(rig.state->seek(reader, key, STATE_AT_OR_AFTER, &row), ERR_NONE);
        row.value[row.value_len / 2] ^= 8;
        struct state_batch batch = {0};
        state_batch_put(&batch, (struct slice){.data = row.key, .len = row.key_len},
                        (struct slice){.data = row.value, .len = row.value_len});
        assert_int_equal(rig.state->commit(opened, &batch), ERR_NONE);
        state_batch_done(&batch);
        rig.state->reader_close(reader);
        assert_true(verify(&rig, &found) > 0);
        assert_non_null(strstr(found.text[0], "state: damaged"));
        if (tables[i] != 'E') /* a row of a block is noticed when it is read */
            assert_int_equal(rig_open(&rig), ERR_CORRUPT);
        rig_done(&rig);
        state_memory_destroy(memory);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sound_cell_is_found_sound_and_counted),
        cmocka_unit_test(every_flipped_bit_is_found_with_file_and_offset),
        cmocka_unit_test(a_last_write_that_is_not_whole_is_told),
        cmocka_unit_test(what_index_and_extents_disagree_on_is_found),
        cmocka_unit_test(damaged_rows_of_the_state_store_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
