/* A repair in which anything fails: each call to the disk or the state store, each request for
 * memory, or the power at each change of the disk. What failed is said, nothing stays open, and a
 * second repair then does what the first one would have done, to the byte. */
#include "store/repair_fault.h"

#include "store/repair_rig.h"

/* ---- Damage ---- */

static void blocks_damage(struct rig *rig)
{
    uint64_t end = repair_file(rig, "extent-0000000000000001")->size;
    repair_flip(rig, "extent-0000000000000001", 9);
    repair_flip(rig, "extent-0000000000000001", EXTENT_HEADER_BYTES + 100);
    repair_flip(rig, "extent-0000000000000001", end - EXTENT_END_BYTES - 100);
    end = repair_file(rig, "extent-0000000000000002")->size;
    repair_flip(rig, "extent-0000000000000002", end - 1);
}

static void extent_remove(struct rig *rig)
{
    assert_int_equal(disk_remove(&rig->disk->disk, RIG_PATH "/extent-0000000000000001"), ERR_NONE);
    assert_int_equal(disk_sync_folder(&rig->disk->disk, RIG_PATH), ERR_NONE);
}

static void extent_cut(struct rig *rig)
{
    struct double_inode *inode = repair_file(rig, "extent-0000000000000002");
    inode->size = inode->safe_size = EXTENT_HEADER_BYTES + BLOCK_HEADER_BYTES / 2;
}

static void kept_damage(struct rig *rig)
{
    for (uint64_t at = JOURNAL_HEADER_BYTES + 200; at < 20000; at += 5000)
        repair_flip(rig, "extent-0000000000000002", at);
}

/* Each frame behind the checkpoint that has a bit in `which`. */
static void frames_damage(struct rig *rig, uint64_t which)
{
    struct frame_place frames[REPAIR_FRAMES];
    int count = repair_frames(rig, repair_verify(rig).position, frames);
    for (int i = 0; i < count; i++) {
        if ((which >> i & 1) != 0)
            inode_flip(frames[i].inode, frames[i].at + FRAME_HEADER_BYTES + 6);
    }
}

static void journal_damage(struct rig *rig)
{
    frames_damage(rig, 1u << 0 | 1u << 2 | 1u << 3);
    repair_flip(rig, "journal-0", 100);
}

/* Number of the first frame behind the checkpoint that stands in another file than the one before
 * it. */
static int file_turn(struct rig *rig)
{
    struct frame_place frames[REPAIR_FRAMES];
    int count = repair_frames(rig, repair_verify(rig).position, frames);
    for (int i = 1; i < count - 1; i++) {
        if (frames[i].inode != frames[i - 1].inode)
            return i;
    }
    fail_msg("one journal file");
    return 0;
}

static void last_of_file_damage(struct rig *rig)
{
    frames_damage(rig, UINT64_C(1) << (file_turn(rig) - 1));
}

static void first_of_file_damage(struct rig *rig)
{
    frames_damage(rig, UINT64_C(1) << file_turn(rig));
}

static void both_sides_damage(struct rig *rig)
{
    frames_damage(rig, UINT64_C(7) << (file_turn(rig) - 2));
}

static void meta_change(struct rig *rig, uint64_t least_end)
{
    struct state *opened;
    struct state_reader *reader;
    struct state_found found;
    struct state_batch batch = {0};
    struct index_key key;
    struct index_meta meta;
    index_meta_key(&key);
    assert_int_equal(rig->state->open(rig->state, RIG_PATH "/state", false, &opened), ERR_NONE);
    assert_int_equal(rig->state->reader_open(opened, &reader), ERR_NONE);
    assert_int_equal(rig->state->seek(reader, index_key_slice(&key), STATE_AT_OR_AFTER, &found),
                     ERR_NONE);
    assert_true(index_meta_get(index_key_slice(&key),
                               (struct slice){.data = found.value, .len = found.value_len}, &meta));
    meta.least_end = least_end;
    index_meta_put(&batch, &meta);
    assert_int_equal(rig->state->commit(opened, &batch), ERR_NONE);
    state_batch_done(&batch);
    rig->state->reader_close(reader);
}

/* Objects hold changes of what the last write should have brought. */
static void end_damage(struct rig *rig)
{
    struct frame_place frames[REPAIR_FRAMES];
    struct verify_report report = repair_verify(rig);
    int count = repair_frames(rig, report.position, frames);
    meta_change(rig, report.end);
    inode_flip(frames[count - 1].inode, frames[count - 1].at + 7);
}

struct damage {
    void (*damage)(struct rig *rig);
    const char *name;
    uint64_t entries, frames; /* lost */
    int filled;               /* frames behind the checkpoint */
    size_t size;              /* of entries */
    uint64_t keep_bytes;
    bool once; /* no faults: each of its steps is one of another damage */
};

static const struct damage damages[] = {
    {blocks_damage, "blocks and edges of extents", .entries = 25, .filled = 5},
    {extent_remove, "an extent that is gone", .entries = 50, .filled = 5},
    {extent_cut, "an extent that ends early", .entries = 50, .filled = 5},
    {kept_damage, "entries that stayed in a journal file", .entries = 3, .filled = 5, .size = 1500,
     .keep_bytes = 700},
    {journal_damage, "header and frames of the journal", .frames = 3, .filled = 5},
    {last_of_file_damage, "the last frame of a file", .frames = 1, .filled = 12, .size = 3000,
     .once = true},
    {first_of_file_damage, "the first frame of a file", .frames = 1, .filled = 12, .size = 3000,
     .once = true},
    {both_sides_damage, "frames on both sides of a turn", .frames = 3, .filled = 12, .size = 3000},
    {end_damage, "the last write", .frames = 1, .filled = 5},
};
#define DAMAGES (sizeof damages / sizeof damages[0])

static struct rig *damaged_create(const struct damage *damage, struct world **out)
{
    struct rig *rig = world_create(out, 1);
    rig->segment_bytes = 64 * 1024;
    rig->size = damage->size;
    rig->keep_bytes = damage->keep_bytes;
    repair_fill(rig, damage->filled);
    assert_int_equal(repair_verify(rig).damaged, 0);
    damage->damage(rig);
    assert_true(repair_verify(rig).damaged > 0);
    return rig;
}

/* Dry, and then not, by a repair that nothing disturbs; returns what is there after it. */
static uint64_t undisturbed(const struct rig *damaged, const struct damage *damage)
{
    struct world *world;
    struct rig *rig = repair_copy_of(damaged, &world);
    struct told dry, told;
    uint64_t before = repair_sum(rig);
    assert_int_equal(repair_run(rig, true, &dry), ERR_NONE);
    assert_true(repair_sum(rig) == before);
    assert_int_equal(repair_run(rig, false, &told), ERR_NONE);
    if (told.entries != damage->entries || told.frames != damage->frames)
        fail_msg("%s: %d entries and %d frames", damage->name, (int)told.entries, (int)told.frames);
    assert_int_equal(dry.entries, told.entries);
    assert_int_equal(dry.frames, told.frames);
    assert_true(told.steps > 0);
    assert_int_equal(repair_verify(rig).damaged, 0);
    uint64_t sum = repair_sum(rig);
    assert_int_equal(repair_run(rig, false, &told), ERR_NONE);
    assert_int_equal(told.steps, 0);
    assert_true(repair_sum(rig) == sum);
    world_destroy(world);
    return sum;
}

/* ---- Faults ---- */

struct trial {
    const struct damage *damage;
    const struct rig *damaged;
    uint64_t sum; /* of what an undisturbed repair leaves */
};

/* The second repair brings all that the first one would have. */
static void again(const struct trial *trial, const struct rig *rig, uint64_t n)
{
    struct told told;
    assert_int_equal(repair_run(rig, false, &told), ERR_NONE);
    if (repair_sum(rig) != trial->sum)
        fail_msg("%s: another outcome after fault %d", trial->damage->name, (int)n);
}

/* With the n-th call failing, or the n-th request for memory. False: the repair came to its end
 * before. */
static bool fails(const struct trial *trial, uint64_t n, bool memory)
{
    struct world *world;
    struct rig *rig = repair_copy_of(trial->damaged, &world);
    struct told told;
    struct fault fault;
    fault_init(&fault, &rig->disk->disk, rig->state);
    fault.fail_at = memory ? 0 : n;
    struct repair_config config = repair_config_of(rig, &told);
    config.disk = &fault.disk;
    config.backend = &fault.backend;
    memory_fail_at(memory ? n : 0, 0);
    enum err err = repair_cell(&config);
    bool reached = memory ? memory_refused() > 0 : fault.calls >= n;
    memory_fail_at(0, 0);
    if (err != (!reached ? ERR_NONE : memory ? ERR_NO_MEMORY : ERR_IO))
        fail_msg("%s: fault %d is said to be %d", trial->damage->name, (int)n, (int)err);
    assert_int_equal(fault.open, 0);
    if (reached)
        again(trial, rig, n);
    world_destroy(world);
    return reached;
}

static bool call_fails(const struct trial *trial, uint64_t n)
{
    return fails(trial, n, false);
}

static bool memory_fails(const struct trial *trial, uint64_t n)
{
    return fails(trial, n, true);
}

static bool power_fails(const struct trial *trial, uint64_t n)
{
    struct world *world;
    struct rig *rig = repair_copy_of(trial->damaged, &world);
    struct told told;
    rig->disk->crash_at = rig->disk->calls + n;
    enum err err = repair_run(rig, false, &told);
    bool reached = rig->disk->dead;
    if (!reached)
        assert_int_equal(err, ERR_NONE);
    double_reboot(rig->disk, n % 2 == 0 ? DOUBLE_DROP : DOUBLE_TEAR);
    again(trial, rig, n);
    world_destroy(world);
    return reached;
}

static void each_damage(bool (*fails_at)(const struct trial *trial, uint64_t n))
{
    for (const struct damage *damage = damages; damage < damages + DAMAGES; damage++) {
        struct world *world;
        struct trial trial = {.damage = damage, .damaged = damaged_create(damage, &world)};
        trial.sum = undisturbed(trial.damaged, damage);
        uint64_t n = 1;
        while (!damage->once && fails_at(&trial, n))
            n++;
        assert_true(n > 1 || damage->once || fails_at == power_fails); /* nothing may be written */
        world_destroy(world);
    }
}

static void each_call_that_fails_is_said_and_costs_nothing(void **state)
{
    (void)state;
    each_damage(call_fails);
}

static void memory_that_runs_out_is_said_and_costs_nothing(void **state)
{
    (void)state;
    each_damage(memory_fails);
}

static void a_repair_cut_off_by_the_power_is_begun_again(void **state)
{
    (void)state;
    each_damage(power_fails);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_call_that_fails_is_said_and_costs_nothing),
        cmocka_unit_test(memory_that_runs_out_is_said_and_costs_nothing),
        cmocka_unit_test(a_repair_cut_off_by_the_power_is_begun_again),
    };
    repair_memory_keep();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
