/* A bit turned in an extent or in the journal: the repair tells what is lost, before it changes
 * anything; then nothing is damaged, and nothing but that is gone. */
#include "store/repair.h"

#include "store/rig.h"
#include "store/verify.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define CELL 7u

struct told {
    uint64_t steps, rows, entries, frames, records, objects;
};

static void step_note(void *ctx, const char *text)
{
    (void)text;
    ((struct told *)ctx)->steps++;
}

static void row_note(void *ctx, struct slice key)
{
    (void)key;
    ((struct told *)ctx)->rows++;
}

static void block_note(void *ctx, const struct index_row *row)
{
    ((struct told *)ctx)->entries += row->count;
}

static void frames_note(void *ctx, uint64_t frames, const uint8_t *data, size_t len)
{
    assert_non_null(data);
    assert_true(len >= frames * FRAME_HEADER_BYTES);
    ((struct told *)ctx)->frames += frames;
}

static void record_note(void *ctx, struct slice record)
{
    ((struct told *)ctx)->records += record.len > 0;
}

static void object_note(void *ctx, uint8_t kind, uint64_t id, struct slice value)
{
    (void)kind, (void)id, (void)value;
    ((struct told *)ctx)->objects++;
}

static const struct repair_events events = {
    .step = step_note,
    .row_lost = row_note,
    .block_lost = block_note,
    .frames_lost = frames_note,
    .record = record_note,
    .object = object_note,
};

static void repair(struct rig *rig, bool dry, struct told *told)
{
    static const uint8_t nothing[8] = {11};
    struct repair_config config = {.disk = &rig->disk->disk,
                                   .backend = rig->state,
                                   .path = RIG_PATH,
                                   .aside = "aside",
                                   .cell = CELL,
                                   .dry = dry,
                                   .nothing = {.data = nothing, .len = sizeof nothing},
                                   .events = &events,
                                   .ctx = told};
    *told = (struct told){0};
    assert_int_equal(repair_cell(&config), ERR_NONE);
}

static void text_ignore(void *ctx, const char *text)
{
    (void)ctx, (void)text;
}

static struct verify_report verify(struct rig *rig)
{
    struct verify_report report = {.damage = text_ignore, .doubt = text_ignore};
    assert_int_equal(verify_cell(&rig->disk->disk, rig->state, RIG_PATH, CELL, &report), ERR_NONE);
    return report;
}

static void fill(struct rig *rig, struct state_memory *memory)
{
    rig_init(rig, 1);
    rig->state = state_memory_backend(memory);
    assert_int_equal(rig_make_cell(rig), ERR_NONE);
}

static struct double_inode *file_find(struct rig *rig, const char *part)
{
    for (int i = 0; i < DOUBLE_NAMES; i++) {
        struct double_name *name = &rig->disk->now[i];
        if (name->inode != NULL && strncmp(name->path, RIG_PATH, strlen(RIG_PATH)) == 0 &&
            strstr(name->path, part) != NULL)
            return name->inode;
    }
    return NULL;
}

/* Turns a bit, repairs, and holds what is left against what was there. False: nobody minds the bit.
 */
static bool flip(const char *part, uint64_t at)
{
    struct state_memory *memory = state_memory_create();
    struct rig rig;
    struct told dry, told;
    fill(&rig, memory);
    struct verify_report before = verify(&rig);
    assert_int_equal(before.damaged, 0);
    struct double_inode *inode = file_find(&rig, part);
    assert_non_null(inode);
    bool inside = at < inode->size;
    if (inside)
        inode->data[at] ^= 4;
    bool damaged = inside && verify(&rig).damaged > 0;
    repair(&rig, true, &dry);
    assert_int_equal(verify(&rig).damaged > 0, damaged);
    repair(&rig, false, &told);
    assert_int_equal(told.entries, dry.entries);
    assert_int_equal(told.frames, dry.frames);
    assert_int_equal(told.steps > 0, damaged);
    struct verify_report after = verify(&rig);
    assert_int_equal(after.damaged, 0);
    assert_int_equal(after.entries + told.entries, before.entries);
    if (damaged) {                                     /* not what may be a torn write */
        assert_int_equal(after.frames, before.frames); /* some of nothing among them */
        assert_int_equal(after.records + 9 * told.frames, before.records);
    }
    repair(&rig, false, &told);
    assert_int_equal(told.steps, 0); /* and nothing is left to be done */
    rig_done(&rig);
    state_memory_destroy(memory);
    return damaged;
}

static void a_damaged_extent_loses_its_block_alone(void **state)
{
    (void)state;
    uint64_t damaged = 0;
    for (uint64_t at = 0; at < 20000; at += 97)
        damaged += flip("extent-", at);
    assert_true(damaged > 20);
}

static void a_damaged_frame_is_lost_alone(void **state)
{
    (void)state;
    uint64_t damaged = 0;
    for (uint64_t at = 0; at < JOURNAL_HEADER_BYTES; at += 601)
        assert_true(flip("journal-0", at));
    for (uint64_t at = JOURNAL_HEADER_BYTES; at < 40000; at += 127)
        damaged += flip("journal-0", at);
    assert_true(damaged > 20);
}

static void an_extent_that_is_gone_takes_nothing_else_with_it(void **state)
{
    (void)state;
    struct state_memory *memory = state_memory_create();
    struct rig rig;
    struct told told;
    fill(&rig, memory);
    assert_int_equal(disk_remove(&rig.disk->disk, RIG_PATH "/extent-0000000000000001"), ERR_NONE);
    repair(&rig, false, &told);
    assert_int_equal(told.entries, 50);
    assert_int_equal(verify(&rig).damaged, 0);
    assert_int_equal(verify(&rig).entries, 50);
    rig_done(&rig);
    state_memory_destroy(memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_damaged_extent_loses_its_block_alone),
        cmocka_unit_test(a_damaged_frame_is_lost_alone),
        cmocka_unit_test(an_extent_that_is_gone_takes_nothing_else_with_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
