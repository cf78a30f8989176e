/* A bit turned anywhere in LMDB's file is told of by its pages, or changes nothing; and whatever it
 * is, all rows are read out of the file, each as it was. */
#include "store/salvage.h"

#include "base/endian.h"
#include "base/folder_rig.h"
#include "store/index.h"
#include "store/pages.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { ROWS = 260, LARGE = 6000, PRIME_STEP = 61 };

struct file {
    char folder[FOLDER_BYTES], path[PATH_MAX];
    uint8_t *data;
    size_t len;
};

static uint8_t filler[LARGE];

static void batch_fill(struct state_batch *batch, uint64_t round)
{
    index_meta_put(batch, &(struct index_meta){.position = 4096 * round, .index = round});
    for (uint64_t i = 0; i < ROWS; i++) {
        struct index_row row = {.stream = i / 8, .base = i, .end = i + 1, .body = 100, .count = 1};
        if (i % round == 0)
            index_row_put(batch, &row);
    }
    for (uint64_t id = 1; id < 40; id++)
        index_object_put(batch, 1, id, (struct slice){.data = filler, .len = 20 + id});
    index_object_put(batch, 4, 7, (struct slice){.data = filler, .len = LARGE});
}

/* Three transactions, so that there are free pages and rows of before in them. */
static void file_make(struct file *file)
{
    struct state *state;
    folder_make("salvage", file->folder);
    snprintf(file->path, sizeof file->path, "%s/state", file->folder);
    for (size_t i = 0; i < sizeof filler; i++)
        filler[i] = (uint8_t)(i * 31);
    assert_int_equal(state_lmdb.open(&state_lmdb, file->path, true, &state), ERR_NONE);
    for (uint64_t round = 1; round <= 3; round++) {
        struct state_batch batch = {0};
        batch_fill(&batch, round);
        assert_int_equal(state_lmdb.commit(state, &batch), ERR_NONE);
        state_batch_done(&batch);
    }
    state_lmdb.close(state);
    int fd = open(file->path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    file->len = (size_t)lseek(fd, 0, SEEK_END);
    file->data = malloc(file->len);
    assert_non_null(file->data);
    assert_int_equal(pread(fd, file->data, file->len, 0), (ssize_t)file->len);
    close(fd);
}

static void file_write(const struct file *file, size_t at, uint8_t byte)
{
    int fd = open(file->path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
    close(fd);
}

static void file_done(struct file *file)
{
    folder_remove(file->folder);
    free(file->data);
}

/* The rows of one reading: the first of each key counts. */
struct found {
    uint64_t rows, sum, lost;
    uint8_t seen[65536 / 8];
};

static uint32_t row_hash(struct slice key, struct slice value)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < key.len; i++)
        hash = (hash ^ key.data[i]) * 16777619u;
    for (size_t i = 0; i < value.len; i++)
        hash = (hash ^ value.data[i]) * 16777619u;
    return hash;
}

static enum err row_note(void *ctx, struct slice key, struct slice value, bool stray)
{
    struct found *found = ctx;
    (void)stray; /* they come last */
    uint32_t slot = row_hash(key, (struct slice){0}) & 0xffff;
    if ((found->seen[slot / 8] & 1u << slot % 8) != 0)
        return ERR_NONE;
    found->seen[slot / 8] |= (uint8_t)(1u << slot % 8);
    found->rows++;
    found->sum += row_hash(key, value);
    return ERR_NONE;
}

static void lost_note(void *ctx, uint64_t offset, struct slice key)
{
    (void)offset, (void)key;
    ((struct found *)ctx)->lost++;
}

static void rows_read(const struct file *file, struct found *found)
{
    memset(found, 0, sizeof *found);
    struct salvage salvage = {.row = row_note, .lost = lost_note, .ctx = found};
    assert_int_equal(salvage_rows(file->path, &salvage), ERR_NONE);
}

static void damage_count(void *ctx, uint64_t offset, const char *what)
{
    (void)offset, (void)what;
    ++*(int *)ctx;
}

static int damage_find(const struct file *file)
{
    int count = 0;
    struct state_check check = {
        .all = true, .row_sound = index_row_sound, .damage = damage_count, .ctx = &count};
    assert_int_equal(pages_check(file->path, &check), ERR_NONE);
    return count;
}

static void a_sound_file_is_found_sound(void **state)
{
    (void)state;
    struct file file;
    struct found found;
    file_make(&file);
    assert_int_equal(damage_find(&file), 0);
    rows_read(&file, &found);
    assert_int_equal(found.rows, 1 + ROWS + 39 + 1);
    assert_int_equal(found.lost, 0);
    file_done(&file);
}

static void one_turned_bit_takes_no_row(void **state)
{
    (void)state;
    struct file file;
    struct found right, found;
    uint64_t told = 0;
    file_make(&file);
    rows_read(&file, &right);
    for (size_t at = 0; at < file.len; at += PRIME_STEP) {
        file_write(&file, at, file.data[at] ^ (uint8_t)(1u << at / PRIME_STEP % 8));
        rows_read(&file, &found);
        if (found.sum != right.sum || found.rows != right.rows || found.lost != 0)
            fail_msg("byte %zu: %d rows instead of %d, %d lost", at, (int)found.rows,
                     (int)right.rows, (int)found.lost);
        told += damage_find(&file) > 0;
        file_write(&file, at, file.data[at]);
    }
    assert_true(told > 100);
    file_done(&file);
}

/* ---- More than a bit ---- */

enum { PAGE = 4096, NODE_HEADER = 8 };

/* Calls `change` with each leaf that holds the key, and where its entry begins; then writes the
 * file anew. */
static void entries_change(const struct file *file, const uint8_t key[10],
                           void (*change)(uint8_t *page, size_t at))
{
    uint8_t *data = malloc(file->len);
    int found = 0;
    assert_non_null(data);
    memcpy(data, file->data, file->len);
    for (size_t at = PAGE; at + 10 < file->len; at++) {
        uint8_t *page = data + at / PAGE * PAGE;
        if (memcmp(file->data + at, key, 10) != 0 || page_flags_of(page) != PAGE_LEAF)
            continue;
        change(page, at % PAGE - NODE_HEADER);
        found++;
    }
    assert_true(found > 0);
    int fd = open(file->path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, data, file->len, 0), (ssize_t)file->len);
    close(fd);
    free(data);
}

static const uint8_t small_key[10] = {'O', 1, [9] = 30}, large_key[10] = {'O', 4, [9] = 7};

static void entry_clear(uint8_t *page, size_t at)
{
    memset(page + at, 0, 72);
}

static void entry_fill(uint8_t *page, size_t at)
{
    memset(page + at, 0xff, 20);
}

static void len_cut(uint8_t *page, size_t at)
{
    page[at] = 2;
    page[at + 1] = page[at + 2] = 0;
}

static void len_stretch(uint8_t *page, size_t at)
{
    page[at] ^= 3;
    page[at + 2] = 9;
}

static void number_turn(uint8_t *page, size_t at)
{
    memset(page + at + NODE_HEADER + 10, 0x77, 8);
}

/* Says another value: its last bytes, with the checksum, are none. */
static void len_turn(uint8_t *page, size_t at)
{
    page[at] ^= 24;
}

static void a_row_that_is_gone_takes_no_other_with_it(void **state)
{
    (void)state;
    const struct {
        const uint8_t *key;
        void (*change)(uint8_t *page, size_t at);
    } changes[] = {{small_key, entry_clear}, {small_key, entry_fill},  {large_key, len_cut},
                   {large_key, len_stretch}, {large_key, number_turn}, {large_key, len_turn},
                   {large_key, entry_fill}};
    struct file file;
    struct found right, found;
    file_make(&file);
    rows_read(&file, &right);
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        entries_change(&file, changes[i].key, changes[i].change);
        assert_true(damage_find(&file) > 0);
        rows_read(&file, &found);
        if (found.rows != right.rows - 1 || found.lost != 1)
            fail_msg("change %d: %d rows of %d, %d lost", (int)i, (int)found.rows, (int)right.rows,
                     (int)found.lost);
    }
    file_done(&file);
}

static void upper_odd(uint8_t *page, size_t at)
{
    (void)at;
    page[14] ^= 1;
}

static void upper_outside(uint8_t *page, size_t at)
{
    (void)at;
    page[15] = 0xee;
}

static void upper_low(uint8_t *page, size_t at)
{
    (void)at;
    page[14] = PAGE_HEADER_BYTES;
    page[15] = 0;
}

static void lower_outside(uint8_t *page, size_t at)
{
    (void)at;
    page[13] = 0xff;
}

static void a_page_that_says_wrong_where_its_rows_begin_loses_none(void **state)
{
    (void)state;
    void (*const changes[])(uint8_t * page, size_t at) = {upper_odd, upper_outside, upper_low,
                                                          lower_outside};
    struct file file;
    struct found right, found;
    file_make(&file);
    rows_read(&file, &right);
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        entries_change(&file, small_key, changes[i]);
        assert_true(damage_find(&file) > 0);
        rows_read(&file, &found);
        if (found.rows != right.rows || found.sum != right.sum)
            fail_msg("change %d: %d rows of %d", (int)i, (int)found.rows, (int)right.rows);
    }
    file_done(&file);
}

/* ---- Failures ---- */

/* What happens at a certain row. */
struct accident {
    uint64_t rows, at;
    enum err err;           /* is returned */
    int closed, instead;    /* >= 0: the file is exchanged for one that cannot be read */
    const struct file *cut; /* is cut off behind its first pages */
};

static enum err accident_row(void *ctx, struct slice key, struct slice value, bool stray)
{
    struct accident *accident = ctx;
    (void)key, (void)value, (void)stray;
    if (++accident->rows != accident->at)
        return ERR_NONE;
    if (accident->closed >= 0)
        assert_int_equal(dup2(accident->instead, accident->closed), accident->closed);
    if (accident->cut != NULL)
        assert_int_equal(truncate(accident->cut->path, 2 * PAGE), 0);
    return accident->err;
}

static void accident_lost(void *ctx, uint64_t offset, struct slice key)
{
    (void)ctx, (void)offset, (void)key;
}

static enum err accident_read(const struct file *file, struct accident *accident)
{
    struct salvage salvage = {.row = accident_row, .lost = accident_lost, .ctx = accident};
    return salvage_rows(file->path, &salvage);
}

static void what_the_caller_says_of_a_row_ends_the_reading(void **state)
{
    (void)state;
    struct file file;
    file_make(&file);
    entries_change(&file, small_key, entry_fill); /* so that entries are searched for, too */
    for (uint64_t at = 1; at < ROWS + 40; at += 9) {
        struct accident accident = {.at = at, .err = ERR_DISK_FULL, .closed = -1};
        assert_int_equal(accident_read(&file, &accident), ERR_DISK_FULL);
        assert_int_equal(accident.rows, at);
    }
    file_done(&file);
}

static void a_file_that_cannot_be_read_on_is_said(void **state)
{
    (void)state;
    struct file file;
    file_make(&file);
    uint64_t failed = 0, ended = 0;
    int instead = open("/dev/null", O_WRONLY | O_CLOEXEC);
    assert_true(instead >= 0);
    for (uint64_t at = 1; at <= ROWS + 41; at += 4) {
        int next = dup(instead); /* the number that the file will have */
        close(next);
        struct accident accident = {.at = at, .closed = next, .instead = instead};
        enum err err = accident_read(&file, &accident);
        if (err == ERR_NONE)
            assert_int_equal(accident.rows, ROWS + 41); /* that was in the last page */
        else
            assert_int_equal(err, ERR_IO);
        failed += err == ERR_IO;
        ended += err == ERR_NONE;
    }
    assert_true(failed > 50 && ended > 0);
    close(instead);
    file_done(&file);
}

static void a_file_that_ends_early_gives_what_is_left(void **state)
{
    (void)state;
    struct file file;
    struct found found;
    file_make(&file);
    struct accident accident = {.at = 1, .closed = -1, .cut = &file};
    assert_int_equal(accident_read(&file, &accident), ERR_NONE);
    assert_in_range(accident.rows, 1, ROWS);
    rows_read(&file, &found);
    assert_int_equal(found.rows, 0);
    assert_int_equal(truncate(file.path, 10), 0);
    assert_int_equal(accident_read(&file, &accident), ERR_CORRUPT);
    assert_int_equal(unlink(file.path), 0);
    assert_int_equal(accident_read(&file, &accident), ERR_NOT_FOUND);
    file_done(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sound_file_is_found_sound),
        cmocka_unit_test(one_turned_bit_takes_no_row),
        cmocka_unit_test(a_row_that_is_gone_takes_no_other_with_it),
        cmocka_unit_test(a_page_that_says_wrong_where_its_rows_begin_loses_none),
        cmocka_unit_test(what_the_caller_says_of_a_row_ends_the_reading),
        cmocka_unit_test(a_file_that_cannot_be_read_on_is_said),
        cmocka_unit_test(a_file_that_ends_early_gives_what_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
