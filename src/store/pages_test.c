/* LMDB's file with one bit flipped, anywhere: every row is still found, or damage is told; nothing
 * falls over what a page says. */
#include "store/pages.h"

#include "base/endian.h"
#include "base/folder_rig.h"
#include "base/memory_double.h"

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

enum { ROWS = 4000, LARGE = 5, PAGE = 4096, HEAD = 96, LAST_AT = 136, TXN_AT = 144 };

struct place {
    char folder[FOLDER_BYTES], path[PATH_MAX], copy[PATH_MAX];
    uint8_t *bytes;
    size_t len;
};

static struct slice key_of(uint8_t *out, uint64_t number)
{
    out[0] = 'K';
    be64_put(out + 1, number);
    return (struct slice){.data = out, .len = 9};
}

/* Some transactions, so that there are branches, values on pages of their own and free pages. */
static void fill(const char *path)
{
    static uint8_t large[3 * PAGE];
    struct state *state;
    uint8_t key[16];
    assert_int_equal(state_lmdb.open(&state_lmdb, path, true, &state), ERR_NONE);
    for (uint64_t round = 0; round < 4; round++) {
        struct state_batch batch = {0};
        for (uint64_t i = round; i < ROWS; i += 1 + round)
            state_batch_put(&batch, key_of(key, i), (struct slice){.data = large, .len = 60});
        for (uint64_t i = 0; i < LARGE; i++)
            state_batch_put(&batch, key_of(key, 10000 + i),
                            (struct slice){.data = large, .len = sizeof large - round * 999});
        for (uint64_t i = 5; i < ROWS && round == 3; i += 7)
            state_batch_delete(&batch, key_of(key, i));
        assert_int_equal(state_lmdb.commit(state, &batch), ERR_NONE);
        state_batch_done(&batch);
    }
    state_lmdb.close(state);
}

/* A transaction that takes pages for a large value, at the end of the file as there is no such gap,
 * and gives them back. */
static void pages_take_and_give_back(const char *path)
{
    static uint8_t large[200 * PAGE];
    struct state *state;
    uint8_t key[16];
    struct state_batch batch = {0};
    state_batch_put(&batch, key_of(key, 20000), (struct slice){.data = large, .len = sizeof large});
    state_batch_delete(&batch, key_of(key, 20000));
    assert_int_equal(state_lmdb.open(&state_lmdb, path, false, &state), ERR_NONE);
    assert_int_equal(state_lmdb.commit(state, &batch), ERR_NONE);
    state_lmdb.close(state);
    state_batch_done(&batch);
}

static void bytes_write(const char *path, const uint8_t *bytes, size_t len)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, len, file), len);
    fclose(file);
}

static void place_make(struct place *place)
{
    folder_make("pages", place->folder);
    snprintf(place->path, sizeof place->path, "%s/state", place->folder);
    snprintf(place->copy, sizeof place->copy, "%s/copy", place->folder);
    fill(place->path);
    FILE *file = fopen(place->path, "r");
    assert_non_null(file);
    fseek(file, 0, SEEK_END);
    place->len = (size_t)ftell(file);
    rewind(file);
    place->bytes = malloc(place->len);
    assert_non_null(place->bytes);
    assert_int_equal(fread(place->bytes, 1, place->len, file), place->len);
    fclose(file);
}

static void place_done(struct place *place)
{
    folder_remove(place->folder);
    free(place->bytes);
}

struct found {
    uint64_t rows, damage;
};

static void damage_count(void *ctx, uint64_t offset, const char *what)
{
    (void)offset, (void)what;
    ((struct found *)ctx)->damage++;
}

static enum err row_count(void *ctx, struct slice key, struct slice value, uint64_t offset)
{
    (void)key, (void)value, (void)offset;
    ((struct found *)ctx)->rows++;
    return ERR_NONE;
}

/* The rows of the tree in force, as they are found by walking over its pages. */
static enum err look(const char *path, struct found *found)
{
    *found = (struct found){0};
    struct pages pages;
    enum err err = pages_open(path, &pages);
    if (err != ERR_NONE)
        return err;
    unsigned newest = 0;
    bool doubted[PAGES_META] = {false, false};
    err = pages_newest(&pages, &newest, doubted);
    found->damage += doubted[0] + doubted[1];
    if (err == ERR_NONE) {
        struct page_walk walk = {.damage = damage_count, .row = row_count, .ctx = found};
        err = pages_walk(&pages, &pages.metas[newest], &walk);
        found->damage += walk.rows_damaged + walk.free_damaged;
        page_walk_done(&walk);
    }
    pages_close(&pages);
    return err;
}

static void check_damage(void *ctx, uint64_t offset, const char *what)
{
    damage_count(ctx, offset, what);
}

/* How often pages_check has something to say; a failure counts as a word. */
static uint64_t told(const char *path)
{
    struct found found = {0};
    struct state_check check = {.damage = check_damage, .ctx = &found};
    return pages_check(path, &check) != ERR_NONE ? found.damage + 1 : found.damage;
}

static void a_sound_file_is_read_and_nothing_is_told(void **state)
{
    (void)state;
    struct place place;
    place_make(&place);
    struct found found;
    assert_int_equal(look(place.path, &found), ERR_NONE);
    uint64_t deleted = 0;
    for (uint64_t i = 5; i < ROWS; i += 7)
        deleted++;
    assert_int_equal(found.rows, ROWS + LARGE - deleted);
    assert_int_equal(found.damage, 0);
    assert_int_equal(told(place.path), 0);
    assert_true(told("pages_test_that_is_not_there") > 0);
    place_done(&place);
}

static void a_flipped_bit_hides_no_row_in_silence(void **state)
{
    (void)state;
    struct place place;
    place_make(&place);
    struct found sound, found;
    assert_int_equal(look(place.path, &sound), ERR_NONE);
    uint64_t random = 1, noticed = 0;
    bytes_write(place.copy, place.bytes, place.len);
    int fd = open(place.copy, O_WRONLY);
    assert_true(fd >= 0);
    for (int i = 0; i < 2500; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        uint64_t dice = random >> 20;
        size_t at = dice % place.len; /* mostly in the heads of pages, that lead to others */
        if (i % 4 != 0)
            at = at / PAGE * PAGE + dice / 7919 % HEAD;
        uint8_t bit = (uint8_t)(1u << (dice % 8));
        uint8_t was = place.bytes[at], is = was ^ bit;
        assert_int_equal(pwrite(fd, &is, 1, (off_t)at), 1);
        enum err err = look(place.copy, &found);
        bool says = err != ERR_NONE || found.damage > 0;
        if (!says && found.rows != sound.rows)
            fail_msg("bit %u of byte %zu hides %lld rows", bit, at,
                     (long long)(sound.rows - found.rows));
        if (says)
            assert_true(told(place.copy) > 0);
        noticed += says;
        assert_int_equal(pwrite(fd, &was, 1, (off_t)at), 1);
    }
    close(fd);
    assert_in_range(noticed, 100, 2499);
    place_done(&place);
}

static void a_file_that_is_cut_or_short_of_memory_is_refused(void **state)
{
    (void)state;
    struct place place;
    place_make(&place);
    struct found whole;
    bytes_write(place.copy, place.bytes, place.len);
    assert_int_equal(look(place.copy, &whole), ERR_NONE);
    for (size_t len = 0; len < place.len; len += len < 3 * PAGE ? 511 : 7 * PAGE) {
        bytes_write(place.copy, place.bytes, len);
        struct found cut; /* free pages at the end may be missing, rows may not */
        if (look(place.copy, &cut) != ERR_NONE || cut.damage > 0)
            assert_true(told(place.copy) > 0);
        else
            assert_int_equal(cut.rows, whole.rows);
    }
    struct found found;
    enum err err = ERR_NO_MEMORY;
    for (uint64_t n = 1; err != ERR_NONE; n++) {
        memory_fail_at(n, 0);
        err = look(place.path, &found);
        memory_fail_at(0, 0);
        assert_true(err == ERR_NONE || err == ERR_NO_MEMORY);
    }
    place_done(&place);
}

/* The number of the newest meta page of a file of which little is asked. */
static unsigned newest_of(const char *path, struct pages *pages, bool doubted[PAGES_META])
{
    unsigned newest = 0;
    assert_int_equal(pages_open(path, pages), ERR_NONE);
    assert_int_equal(pages_newest(pages, &newest, doubted), ERR_NONE);
    pages_close(pages);
    return newest;
}

static void
a_file_that_lost_a_page_in_use_is_damaged_and_one_that_lost_free_ones_is_not(void **state)
{
    (void)state;
    struct place place;
    place_make(&place);
    struct pages pages;
    bool doubted[PAGES_META];
    unsigned newest = newest_of(place.path, &pages, doubted);
    struct page_walk walk = {0};
    assert_int_equal(pages_open(place.path, &pages), ERR_NONE);
    assert_int_equal(pages_walk(&pages, &pages.metas[newest], &walk), ERR_NONE);
    pages_close(&pages);
    uint64_t used = walk.last;
    while (walk.marks[used] == PAGE_FREE)
        used--;
    page_walk_done(&walk);
    assert_in_range(used, PAGES_META, pages.count - 1);
    bytes_write(place.copy, place.bytes, (used + 1) * PAGE);
    assert_int_equal(told(place.copy), 0);
    bytes_write(place.copy, place.bytes, (used + 1) * PAGE - 1);
    assert_true(told(place.copy) > 0);
    bytes_write(place.copy, place.bytes, used * PAGE);
    assert_true(told(place.copy) > 0);
    place_done(&place);
}

static void byte_turn(const char *path, size_t at, uint8_t bits)
{
    uint8_t byte;
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
    byte ^= bits;
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
    close(fd);
}

static void free_pages_at_the_end_that_were_never_written_are_no_damage(void **state)
{
    (void)state;
    struct place place;
    place_make(&place);
    struct found before, after;
    assert_int_equal(look(place.path, &before), ERR_NONE);
    pages_take_and_give_back(place.path);
    struct pages pages;
    bool doubted[PAGES_META];
    unsigned newest = newest_of(place.path, &pages, doubted);
    assert_true(pages.metas[newest].last >= pages.count + 100);
    assert_int_equal(look(place.path, &after), ERR_NONE);
    assert_int_equal(after.rows, before.rows);
    assert_int_equal(after.damage, 0);
    assert_int_equal(told(place.path), 0);
    for (unsigned bit = 0; bit < 8; bit++) { /* another transaction: it is still known for newest */
        byte_turn(place.path, newest * PAGE + TXN_AT, (uint8_t)(1u << bit));
        assert_int_equal(newest_of(place.path, &pages, doubted), newest);
        assert_true(doubted[newest]);
        byte_turn(place.path, newest * PAGE + TXN_AT, (uint8_t)(1u << bit));
    }
    for (unsigned bit = 0; bit < 8; bit++) { /* another end: one page is named too many, or few */
        byte_turn(place.path, newest * PAGE + LAST_AT, (uint8_t)(1u << bit));
        assert_int_equal(look(place.path, &after), ERR_NONE);
        assert_true(after.damage > 0);
        byte_turn(place.path, newest * PAGE + LAST_AT, (uint8_t)(1u << bit));
    }
    assert_int_equal(told(place.path), 0);
    place_done(&place);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sound_file_is_read_and_nothing_is_told),
        cmocka_unit_test(a_flipped_bit_hides_no_row_in_silence),
        cmocka_unit_test(a_file_that_is_cut_or_short_of_memory_is_refused),
        cmocka_unit_test(
            a_file_that_lost_a_page_in_use_is_damaged_and_one_that_lost_free_ones_is_not),
        cmocka_unit_test(free_pages_at_the_end_that_were_never_written_are_no_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
