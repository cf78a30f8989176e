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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sound_file_is_found_sound),
        cmocka_unit_test(one_turned_bit_takes_no_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
