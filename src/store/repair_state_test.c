/* A damaged state store that is made anew, on real files: every row that was not itself overwritten
 * is there again, and whatever fails on the way is said and costs nothing. */
#include "store/repair_fault.h"

#include "base/folder_rig.h"
#include "io/disk_real.h"
#include "store/pages.h"
#include "store/repair_rig.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PAGE = 4096, OBJECTS = 100, LARGE = 6000 };

struct place {
    char folder[FOLDER_BYTES], path[PATH_MAX], aside[PATH_MAX], file[PATH_MAX + 16];
    struct disk_real *disk;
    uint8_t *whole, *data; /* the file before the damage, and with it */
    size_t len;
};

static uint8_t *file_read(const char *path, size_t *len)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    *len = (size_t)lseek(fd, 0, SEEK_END);
    uint8_t *data = malloc(*len);
    assert_non_null(data);
    assert_int_equal(pread(fd, data, *len, 0), (ssize_t)*len);
    close(fd);
    return data;
}

/* Three transactions, so that there are free pages and rows of before in them. */
static void rows_make(const struct place *place)
{
    struct state *opened;
    uint8_t filler[LARGE];
    for (size_t i = 0; i < sizeof filler; i++)
        filler[i] = (uint8_t)(i * 31);
    assert_int_equal(state_lmdb.open(&state_lmdb, place->file, true, &opened), ERR_NONE);
    for (uint64_t round = 1; round <= 3; round++) {
        struct state_batch batch = {0};
        index_meta_put(&batch, &(struct index_meta){.cell = REPAIR_CELL, .index = round});
        for (uint64_t id = 0; id < OBJECTS; id++) {
            if (id % round == 0)
                index_object_put(&batch, 1, id, (struct slice){.data = filler, .len = 60 + id});
        }
        index_object_put(&batch, 4, 7, (struct slice){.data = filler + round, .len = LARGE - 3});
        assert_int_equal(state_lmdb.commit(opened, &batch), ERR_NONE);
        state_batch_done(&batch);
    }
    state_lmdb.close(opened);
}

static int place_setup(void **state)
{
    struct place *place = calloc(1, sizeof *place);
    assert_non_null(place);
    if (access("/dev/shm", W_OK) == 0) /* a sync costs nothing there */
        setenv("TMPDIR", "/dev/shm", true);
    folder_make("repair", place->folder);
    snprintf(place->path, sizeof place->path, "%s/cell", place->folder);
    snprintf(place->aside, sizeof place->aside, "%s/aside", place->folder);
    snprintf(place->file, sizeof place->file, "%s/state", place->path);
    assert_int_equal(mkdir(place->path, 0750), 0);
    assert_int_equal(disk_real_create(NULL, NULL, &place->disk), ERR_NONE);
    rows_make(place);
    place->whole = file_read(place->file, &place->len);
    place->data = file_read(place->file, &place->len);
    *state = place;
    return 0;
}

static int place_teardown(void **state)
{
    struct place *place = *state;
    disk_real_destroy(place->disk);
    folder_remove(place->folder);
    free(place->whole);
    free(place->data);
    free(place);
    return 0;
}

/* The damaged file, and nothing else. */
static void damaged_put(const struct place *place)
{
    folder_remove(place->path);
    if (access(place->aside, F_OK) == 0)
        folder_remove(place->aside);
    assert_int_equal(mkdir(place->path, 0750), 0);
    int fd = open(place->file, O_WRONLY | O_CREAT | O_CLOEXEC, 0640);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, place->data, place->len, 0), (ssize_t)place->len);
    close(fd);
}

static struct repair_config config_of(const struct place *place, struct told *told)
{
    static const struct rig none;
    static struct double_disk unused;
    struct rig rig = none;
    rig.disk = &unused;
    struct repair_config config = repair_config_of(&rig, told);
    config.disk = disk_real_disk(place->disk);
    config.backend = &state_lmdb;
    config.path = place->path;
    config.aside = place->aside;
    return config;
}

/* Every row, as one number. */
static uint64_t rows_sum(const struct place *place)
{
    static const uint8_t from = 0, to = 0xff;
    struct state *opened;
    struct state_reader *reader;
    uint64_t sum = 0;
    assert_int_equal(state_lmdb.open(&state_lmdb, place->file, false, &opened), ERR_NONE);
    assert_int_equal(state_lmdb.reader_open(opened, &reader), ERR_NONE);
    assert_int_equal(state_lmdb.each(reader, (struct slice){.data = &from, .len = 1},
                                     (struct slice){.data = &to, .len = 1}, repair_row_sum, &sum),
                     ERR_NONE);
    state_lmdb.reader_close(reader);
    state_lmdb.close(opened);
    return sum;
}

static void original_check(const struct place *place)
{
    char path[PATH_MAX + 16];
    size_t len;
    snprintf(path, sizeof path, "%s/state", place->aside);
    uint8_t *data = file_read(path, &len);
    assert_int_equal(len, place->len);
    assert_memory_equal(data, place->data, len);
    free(data);
}

/* ---- Damage ---- */

/* Changes bytes of the value of each copy of that object's row. */
static void row_damage(struct place *place, uint8_t id, size_t at, size_t len, uint8_t turned)
{
    const uint8_t key[10] = {'O', 1, [9] = id};
    for (size_t i = 0; i + sizeof key + at + len < place->len; i++) {
        if (memcmp(place->whole + i, key, sizeof key) != 0 ||
            page_flags_of(place->whole + i / PAGE * PAGE) != PAGE_LEAF)
            continue;
        for (size_t byte = 0; byte < len; byte++)
            place->data[i + sizeof key + at + byte] ^= turned;
    }
}

static void bit_turn(struct place *place)
{
    row_damage(place, 60, 10, 1, 16);
}

static void row_overwrite(struct place *place)
{
    row_damage(place, 66, 10, 30, 0x5b);
}

/* The page that leads to all others is no page any more. */
static void root_overwrite(struct place *place)
{
    for (size_t page = 2; page < place->len / PAGE; page++) {
        uint8_t *at = place->data + page * PAGE;
        if (le64_get(at) == page && page_flags_of(at) == PAGE_BRANCH)
            memset(at, 0xee, 64);
    }
}

static const struct {
    void (*damage)(struct place *place);
    uint64_t lost;
    bool whole; /* all rows come back */
} damages[] = {
    {bit_turn, .lost = 0, .whole = true},
    {row_overwrite, .lost = 1},
    {root_overwrite, .lost = 0, .whole = true},
};
#define DAMAGES (sizeof damages / sizeof damages[0])

static void damage_begin(struct place *place, size_t i)
{
    memcpy(place->data, place->whole, place->len);
    damages[i].damage(place);
    damaged_put(place);
}

static uint64_t undisturbed(const struct place *place, struct told *told)
{
    struct repair_config config = config_of(place, told);
    assert_int_equal(repair_cell(&config), ERR_NONE);
    return rows_sum(place);
}

static void all_rows_that_can_be_read_stand_in_the_one_made_anew(void **state)
{
    struct place *place = *state;
    struct told told, dry;
    uint64_t right = rows_sum(place);
    for (size_t i = 0; i < DAMAGES; i++) {
        damage_begin(place, i);
        struct repair_config config = config_of(place, &dry);
        config.dry = true;
        assert_int_equal(repair_cell(&config), ERR_NONE);
        if (dry.rows != damages[i].lost)
            fail_msg("damage %d: %d rows lost", (int)i, (int)dry.rows);
        uint64_t sum = undisturbed(place, &told);
        assert_int_equal(told.rows, damages[i].lost);
        assert_int_equal(told.objects, OBJECTS + 1 - damages[i].lost);
        assert_int_equal(dry.objects, told.objects);
        assert_int_equal(sum == right, damages[i].whole);
        original_check(place);
        assert_true(undisturbed(place, &told) == sum);
        assert_int_equal(told.steps, 0);
    }
}

/* ---- Faults ---- */

enum kind { CALLS, MEMORY, MEMORY_DRY };

/* With the n-th call or request for memory failing. False: the repair came to its end before. */
static bool fails(const struct place *place, enum kind kind, uint64_t n, uint64_t sum)
{
    struct told told;
    struct fault fault;
    bool memory = kind == MEMORY || kind == MEMORY_DRY;
    damaged_put(place);
    fault_init(&fault, disk_real_disk(place->disk), &state_lmdb);
    fault.fail_at = memory ? 0 : n;
    fault.full = true; /* the state store, once */
    struct repair_config config = config_of(place, &told);
    config.disk = &fault.disk;
    config.backend = &fault.backend;
    config.dry = kind == MEMORY_DRY;
    memory_fail_at(memory ? n : 0, 0);
    enum err err = repair_cell(&config);
    bool reached = memory ? memory_refused() > 0 : fault.calls >= n;
    memory_fail_at(0, 0);
    if (err != (!reached ? ERR_NONE : memory ? ERR_NO_MEMORY : ERR_IO))
        fail_msg("fault %d is said to be %d", (int)n, (int)err);
    assert_int_equal(fault.open, 0);
    assert_true(undisturbed(place, &told) == sum);
    original_check(place);
    return reached;
}

static void whatever_fails_is_said_and_costs_no_row(void **state)
{
    struct place *place = *state;
    struct told told;
    damage_begin(place, DAMAGES - 1);
    uint64_t sum = undisturbed(place, &told);
    for (enum kind kind = CALLS; kind <= MEMORY_DRY; kind++) {
        uint64_t n = 1;
        while (fails(place, kind, n, sum))
            n++;
        assert_true(n > 5);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_rows_that_can_be_read_stand_in_the_one_made_anew),
        cmocka_unit_test(whatever_fails_is_said_and_costs_no_row),
    };
    return cmocka_run_group_tests(tests, place_setup, place_teardown);
}
