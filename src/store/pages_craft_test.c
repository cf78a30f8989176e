/* Files of LMDB's that say what LMDB would never write: each is told, in words, and none is
 * followed to where it leads. */
#include "store/pages_craft.h"

#include "base/folder_rig.h"
#include "base/memory_double.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

struct place {
    char folder[FOLDER_BYTES], path[PATH_MAX];
};

static void place_make(struct place *place)
{
    folder_make("pages-craft", place->folder);
    snprintf(place->path, sizeof place->path, "%s/state", place->folder);
}

static void craft_write(const struct craft *craft, const char *path)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(craft->page, CRAFT_BYTES, craft->count, file), craft->count);
    fclose(file);
}

struct told {
    char words[8][80];
    uint64_t offsets[8];
    int count;
};

static void damage_note(void *ctx, uint64_t offset, const char *what)
{
    struct told *told = ctx;
    if (told->count < 8) {
        snprintf(told->words[told->count], sizeof told->words[0], "%s", what);
        told->offsets[told->count++] = offset;
    }
}

static bool any_sound(struct slice key, struct slice value)
{
    return key.len > 0 && value.data != NULL;
}

static enum err check(const char *path, struct told *told)
{
    struct state_check check = {
        .all = true, .row_sound = any_sound, .damage = damage_note, .ctx = told};
    *told = (struct told){0};
    return pages_check(path, &check);
}

static bool says(const struct told *told, const char *words)
{
    for (int i = 0; i < told->count; i++) {
        if (strcmp(told->words[i], words) == 0)
            return true;
    }
    return false;
}

/* ---- Sound ones ---- */

static void what_is_sound_is_not_told(void **state)
{
    (void)state;
    struct place place;
    struct craft craft;
    struct told told;
    place_make(&place);
    craft_init(&craft);
    craft_write(&craft, place.path);
    assert_int_equal(check(place.path, &told), ERR_NONE);
    assert_int_equal(told.count, 0);
    craft_meta(&craft, 0); /* one that was just made */
    craft_meta(&craft, 1);
    craft.count = 2;
    craft_write(&craft, place.path);
    assert_int_equal(check(place.path, &told), ERR_NONE);
    assert_int_equal(told.count, 0);
    folder_remove(place.folder);
}

/* ---- Meta pages ---- */

static void magic_other(struct craft *craft)
{
    le32_put(craft->page[0] + PAGE_HEADER_BYTES, 1);
}

static void version_other(struct craft *craft)
{
    le32_put(craft->page[1] + PAGE_HEADER_BYTES + 4, 7);
}

static void page_bytes_other(struct craft *craft)
{
    le32_put(craft_free_tree(craft, 0), 4096);
}

static void page_bytes_impossible(struct craft *craft)
{
    le32_put(craft_free_tree(craft, 0), 1000);
    le32_put(craft_free_tree(craft, 1), 1000);
}

static void page_bytes_of_no_second_meta(struct craft *craft)
{
    le32_put(craft_free_tree(craft, 1), 4096);
    le32_put(craft->page[1] + PAGE_HEADER_BYTES, 1);
    le16_put(craft->page[1] + 10, PAGE_LEAF);
}

static void last_far_behind_the_file(struct craft *craft)
{
    craft_last(craft, 0, UINT64_C(1) << 40);
}

static void txn_of_the_other_page(struct craft *craft)
{
    craft_txn(craft, 0, 3);
}

static void txn_not_the_one_of_the_free_list(struct craft *craft)
{
    craft_txn(craft, 0, 4);
}

static void txns_far_apart(struct craft *craft)
{
    craft_txn(craft, 1, 7);
}

static void depth_without_root(struct craft *craft)
{
    craft_tree(craft_rows_tree(craft, 0), 1, &(struct page_tree){.root = UINT64_MAX});
}

static void entries_without_root(struct craft *craft)
{
    craft_tree(craft_rows_tree(craft, 0), 0, &(struct page_tree){.root = UINT64_MAX, .entries = 1});
}

static void depth_beyond_all(struct craft *craft)
{
    le16_put(craft_rows_tree(craft, 0) + 6, 33);
}

static void tree_of_another_kind(struct craft *craft)
{
    le16_put(craft_rows_tree(craft, 0) + 4, 4);
}

static void counts_other(struct craft *craft)
{
    craft_tree(craft_rows_tree(craft, 0), 1,
               &(struct page_tree){.leaves = 1, .overflows = 2, .entries = 2, .root = CRAFT_ROWS});
}

static void root_at_a_meta_page(struct craft *craft)
{
    le64_put(craft_rows_tree(craft, 0) + 40, 1);
}

/* ---- The rows' tree ---- */

static void leaf_where_a_branch_is_due(struct craft *craft)
{
    le16_put(craft_rows_tree(craft, 0) + 6, 2);
}

static void leaf_without_entries(struct craft *craft)
{
    craft_page(craft, CRAFT_ROWS, PAGE_LEAF);
}

static void keys_that_descend(struct craft *craft)
{
    craft_page(craft, CRAFT_ROWS, PAGE_LEAF);
    craft_row(craft, CRAFT_ROWS, "b", "1");
    craft_row(craft, CRAFT_ROWS, "a", "2");
}

static void entries_that_overlap(struct craft *craft)
{
    uint8_t *page = craft->page[CRAFT_ROWS];
    le16_put(page + PAGE_HEADER_BYTES + 2, le16_get(page + PAGE_HEADER_BYTES));
}

/* A branch in page 5, over the leaf and whatever else. */
static void branch_make(struct craft *craft)
{
    craft_tree(craft_rows_tree(craft, 0), 2,
               &(struct page_tree){
                   .branches = 1, .leaves = 1, .overflows = 1, .entries = 2, .root = CRAFT_SPARE});
    craft_page(craft, CRAFT_SPARE, PAGE_BRANCH);
    craft_child(craft, CRAFT_SPARE, "", CRAFT_ROWS);
    craft_page(craft, CRAFT_FREE_LIST, PAGE_LEAF);
    craft_freed(craft, 2, 6);
    craft_last(craft, 0, 6);
    craft->count = 7;
}

static void branch_with_a_key_twice(struct craft *craft)
{
    branch_make(craft);
    craft_child(craft, CRAFT_SPARE, "k", 6);
    craft_child(craft, CRAFT_SPARE, "k", 6);
}

static void branch_with_a_child_twice(struct craft *craft)
{
    branch_make(craft);
    craft_child(craft, CRAFT_SPARE, "k", CRAFT_ROWS);
}

static void child_outside_its_keys(struct craft *craft)
{
    branch_make(craft);
    craft_child(craft, CRAFT_SPARE, "b", 6); /* and the leaf has a row "b" */
}

static void large_value_on_another_kind_of_page(struct craft *craft)
{
    le16_put(craft->page[CRAFT_LARGE] + 10, PAGE_LEAF);
}

static void large_value_longer_than_the_file(struct craft *craft)
{
    le32_put(craft->page[CRAFT_LARGE] + 12, 3);
}

static void large_value_outside_the_file(struct craft *craft)
{
    craft_page(craft, CRAFT_ROWS, PAGE_LEAF);
    craft_big(craft, CRAFT_ROWS, slice_of("b"), 4000);
}

/* ---- The free list ---- */

static void free_list_make(struct craft *craft, size_t key_len, size_t value_len)
{
    static const uint8_t value[64] = {1};
    uint8_t key[8] = {3};
    craft_node(craft, CRAFT_FREE_LIST, slice_make(key, key_len), value_len, 0,
               slice_make(value, value_len));
    le64_put(craft_free_tree(craft, 0) + 32, 2); /* entries */
}

static void free_key_short(struct craft *craft)
{
    free_list_make(craft, 4, 16);
}

static void free_value_of_no_words(struct craft *craft)
{
    free_list_make(craft, 8, 0);
}

static void free_value_of_half_a_word(struct craft *craft)
{
    free_list_make(craft, 8, 12);
}

static void free_value_counts_too_many(struct craft *craft)
{
    free_list_make(craft, 8, 8);
}

static void free_page_of_the_rows(struct craft *craft)
{
    craft_page(craft, CRAFT_FREE_LIST, PAGE_LEAF);
    craft_freed(craft, 2, CRAFT_ROWS);
}

static void free_page_out_of_range(struct craft *craft)
{
    craft_page(craft, CRAFT_FREE_LIST, PAGE_LEAF);
    craft_freed(craft, 2, 4000);
}

static void free_value_on_pages_that_are_none(struct craft *craft)
{
    uint8_t key[8] = {2};
    craft_page(craft, CRAFT_FREE_LIST, PAGE_LEAF);
    craft_big(craft, CRAFT_FREE_LIST, slice_make(key, sizeof key), 4000);
}

static void free_list_with_a_gap(struct craft *craft)
{
    craft_freed(craft, 6, 6);
    le64_put(craft_free_tree(craft, 0) + 32, 2);
    craft_txn(craft, 0, 6);
    craft_last(craft, 0, 6);
    craft->count = 7;
}

static void a_page_that_nobody_has(struct craft *craft)
{
    craft_last(craft, 0, 6);
    craft->count = 7;
}

static const struct {
    void (*make)(struct craft *craft);
    const char *words;
} lies[] = {
    {magic_other, "damaged meta page"},
    {version_other, "damaged meta page"},
    {page_bytes_other, "damaged meta page"},
    {page_bytes_impossible, "not a state store"},
    {page_bytes_of_no_second_meta, "not a state store"},
    {last_far_behind_the_file, "the file is shorter than the meta page says"},
    {txn_of_the_other_page, "damaged meta page"},
    {txn_not_the_one_of_the_free_list, "damaged meta page"},
    {txns_far_apart, "damaged meta page"},
    {depth_without_root, "page used twice, or out of range"},
    {entries_without_root, "damaged meta page"},
    {depth_beyond_all, "damaged meta page"},
    {tree_of_another_kind, "damaged meta page"},
    {counts_other, "pages or entries other than the meta page counts"},
    {root_at_a_meta_page, "page used twice, or out of range"},
    {leaf_where_a_branch_is_due, "damaged page"},
    {leaf_without_entries, "damaged page"},
    {keys_that_descend, "damaged page"},
    {entries_that_overlap, "damaged page"},
    {branch_with_a_key_twice, "damaged page"},
    {branch_with_a_child_twice, "page used twice, or out of range"},
    {child_outside_its_keys, "damaged page"},
    {large_value_on_another_kind_of_page, "damaged overflow page"},
    {large_value_longer_than_the_file, "damaged overflow page"},
    {large_value_outside_the_file, "damaged overflow page"},
    {free_key_short, "damaged entry of the free list"},
    {free_value_of_no_words, "damaged entry of the free list"},
    {free_value_of_half_a_word, "damaged entry of the free list"},
    {free_value_counts_too_many, "damaged entry of the free list"},
    {free_page_of_the_rows, "damaged entry of the free list"},
    {free_page_out_of_range, "damaged entry of the free list"},
    {free_value_on_pages_that_are_none, "damaged overflow page"},
    {free_list_with_a_gap, "damaged meta page"},
    {a_page_that_nobody_has, "pages neither used nor free"},
};

static void every_lie_is_told(void **state)
{
    (void)state;
    struct place place;
    place_make(&place);
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        struct craft craft;
        struct told told;
        craft_init(&craft);
        lies[i].make(&craft);
        craft_write(&craft, place.path);
        assert_int_equal(check(place.path, &told), ERR_NONE);
        if (!says(&told, lies[i].words))
            fail_msg("%zu: '%s' was not said, but %d things like '%s'", i, lies[i].words,
                     told.count, told.words[0]);
        for (int k = 0; k < told.count; k++)
            assert_true(told.offsets[k] < craft.count * CRAFT_BYTES);
    }
    folder_remove(place.folder);
}

/* ---- What cannot be read ---- */

struct reading {
    struct pages pages;
    uint64_t rows, stop_at;
};

/* The file goes away after that many rows. */
static enum err row_count(void *ctx, struct slice key, struct slice value, uint64_t offset)
{
    struct reading *reading = ctx;
    (void)key, (void)value, (void)offset;
    if (++reading->rows == reading->stop_at) {
        close(reading->pages.fd);
        reading->pages.fd = -1;
    }
    return ERR_NONE;
}

static enum err walk(struct reading *reading)
{
    struct page_walk walk = {.row = row_count, .ctx = reading};
    enum err err = pages_walk(&reading->pages, &reading->pages.metas[0], &walk);
    page_walk_done(&walk);
    return err;
}

static void what_cannot_be_read_any_more_is_an_error(void **state)
{
    (void)state;
    struct place place;
    struct craft craft;
    struct reading reading = {0};
    unsigned newest;
    bool doubted[PAGES_META];
    place_make(&place);
    craft_init(&craft);
    craft_write(&craft, place.path);
    for (uint64_t stop_at = 0; stop_at <= 2; stop_at++) {
        reading = (struct reading){.stop_at = stop_at};
        assert_int_equal(pages_open(place.path, &reading.pages), ERR_NONE);
        assert_int_equal(walk(&reading), stop_at == 0 ? ERR_NONE : ERR_IO);
        assert_int_equal(pages_newest(&reading.pages, &newest, doubted),
                         stop_at == 0 ? ERR_NONE : ERR_IO);
        if (stop_at == 0)
            pages_close(&reading.pages);
    }
    char inside[PATH_MAX + 8];
    struct told told;
    snprintf(inside, sizeof inside, "%s/state", place.path);
    assert_int_equal(check(inside, &told), ERR_IO);       /* its folder is a file */
    assert_int_equal(check(place.folder, &told), ERR_IO); /* a folder cannot be read */
    folder_remove(place.folder);
}

static void what_is_cut_off_meanwhile_is_damage(void **state)
{
    (void)state;
    struct place place;
    struct craft craft;
    place_make(&place);
    craft_init(&craft);
    for (size_t len = CRAFT_LARGE * CRAFT_BYTES + 100; len >= PAGES_META * CRAFT_BYTES; len -= 50) {
        struct reading reading = {0};
        craft_write(&craft, place.path);
        assert_int_equal(pages_open(place.path, &reading.pages), ERR_NONE);
        assert_int_equal(truncate(place.path, (off_t)len), 0);
        struct page_walk walk = {.row = row_count, .ctx = &reading};
        assert_int_equal(pages_walk(&reading.pages, &reading.pages.metas[0], &walk), ERR_NONE);
        assert_true(walk.rows_damaged);
        page_walk_done(&walk);
        pages_close(&reading.pages);
    }
    folder_remove(place.folder);
}

static void memory_that_runs_out_is_an_error(void **state)
{
    (void)state;
    struct place place;
    struct craft craft;
    struct told told;
    place_make(&place);
    craft_init(&craft);
    craft_write(&craft, place.path);
    enum err err = ERR_NO_MEMORY;
    uint64_t n = 1;
    for (; err != ERR_NONE; n++) {
        memory_fail_at(n, 0);
        err = check(place.path, &told);
        memory_fail_at(0, 0);
        assert_true(err == ERR_NONE || err == ERR_NO_MEMORY);
        assert_int_equal(told.count, 0);
    }
    assert_true(n > 6);
    folder_remove(place.folder);
}

static void a_node_that_is_none_is_refused(void **state)
{
    (void)state;
    struct craft craft;
    struct page_node node;
    craft_init(&craft);
    const uint8_t *page = craft.page[CRAFT_ROWS];
    size_t at = le16_get(page + PAGE_HEADER_BYTES);
    assert_true(page_node_get(page, CRAFT_BYTES, at, false, &node));
    assert_int_equal(node.value.len, strlen("small"));
    assert_false(page_node_get(page, CRAFT_BYTES, at + 1, false, &node)); /* odd */
    assert_false(page_node_get(page, CRAFT_BYTES, PAGE_HEADER_BYTES - 2, false, &node));
    assert_false(page_node_get(page, CRAFT_BYTES, CRAFT_BYTES - 4, false, &node));
    le16_put(craft.page[CRAFT_ROWS] + at + 4, 2); /* flags */
    assert_false(page_node_get(page, CRAFT_BYTES, at, false, &node));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_sound_is_not_told),
        cmocka_unit_test(every_lie_is_told),
        cmocka_unit_test(what_cannot_be_read_any_more_is_an_error),
        cmocka_unit_test(what_is_cut_off_meanwhile_is_damage),
        cmocka_unit_test(memory_that_runs_out_is_an_error),
        cmocka_unit_test(a_node_that_is_none_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
