/* Rows of the state store: what was put is found, and none is taken that is cut, of another kind,
 * or says impossible things under a sound checksum. */
#include "store/index.h"

#include "base/endian.h"
#include "store/format.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

struct pair {
    uint8_t key[32], value[128];
    size_t key_len, value_len;
};

/* The only pair of the batch. */
static struct pair pair_of(struct state_batch *batch)
{
    struct pair pair = {0};
    size_t at = 0;
    struct slice key, value;
    assert_true(state_batch_next(batch, &at, &key, &value));
    memcpy(pair.key, key.data, pair.key_len = key.len);
    memcpy(pair.value, value.data, pair.value_len = value.len);
    assert_false(state_batch_next(batch, &at, &key, &value));
    state_batch_done(batch);
    return pair;
}

static struct pair meta_pair(void)
{
    struct state_batch batch = {0};
    index_meta_put(&batch, &(struct index_meta){.cell = 7, .position = 99, .next_extent = 3});
    return pair_of(&batch);
}

static struct pair row_pair(void)
{
    struct state_batch batch = {0};
    index_row_put(&batch, &(struct index_row){.stream = 5,
                                              .base = 10,
                                              .end = 20,
                                              .extent = 2,
                                              .offset = 4096,
                                              .body = 500,
                                              .count = 10});
    return pair_of(&batch);
}

static struct pair extent_pair(void)
{
    struct state_batch batch = {0};
    index_extent_put(&batch, &(struct index_extent){.number = 2, .bytes = 9, .blocks = 1});
    return pair_of(&batch);
}

static struct pair object_pair(void)
{
    struct state_batch batch = {0};
    index_object_put(&batch, 4, 77, (struct slice){.data = (const uint8_t *)"value", .len = 5});
    return pair_of(&batch);
}

static bool meta_taken(struct slice key, struct slice value)
{
    struct index_meta meta;
    return index_meta_get(key, value, &meta) && meta.cell == 7 && meta.position == 99;
}

static bool row_taken(struct slice key, struct slice value)
{
    struct index_row row;
    return index_row_get(key, value, &row) && row.stream == 5 && row.base == 10 && row.end == 20;
}

static bool extent_taken(struct slice key, struct slice value)
{
    struct index_extent extent;
    return index_extent_get(key, value, &extent) && extent.number == 2;
}

static bool object_taken(struct slice key, struct slice value)
{
    uint8_t kind;
    uint64_t id;
    struct slice object;
    return index_object_get(key, value, &kind, &id, &object) && kind == 4 && id == 77 &&
           object.len == 5;
}

static const struct {
    struct pair (*make)(void);
    bool (*taken)(struct slice key, struct slice value);
} kinds[] = {{meta_pair, meta_taken},
             {row_pair, row_taken},
             {extent_pair, extent_taken},
             {object_pair, object_taken}};

enum { KINDS = sizeof kinds / sizeof *kinds };

static struct slice slice_over(const uint8_t *data, size_t len)
{
    return (struct slice){.data = data, .len = len};
}

/* Puts a checksum under a value that was changed. */
static void seal(struct pair *pair)
{
    size_t body = pair->value_len - 4;
    le32_put(pair->value + body, crc32c(crc32c(0, pair->key, pair->key_len), pair->value, body));
}

static void what_was_put_is_taken_and_nothing_else(void **state)
{
    (void)state;
    for (int i = 0; i < KINDS; i++) {
        struct pair pair = kinds[i].make();
        struct slice key = slice_over(pair.key, pair.key_len);
        struct slice value = slice_over(pair.value, pair.value_len);
        assert_true(kinds[i].taken(key, value));
        for (size_t at = 0; at < pair.value_len; at++) {
            pair.value[at] ^= 4;
            assert_false(kinds[i].taken(key, value));
            pair.value[at] ^= 4;
            assert_false(kinds[i].taken(key, slice_over(pair.value, at)));
        }
        for (size_t at = 0; at < pair.key_len; at++) {
            pair.key[at] ^= 4;
            assert_false(kinds[i].taken(key, value));
            pair.key[at] ^= 4;
        }
        for (int other = 0; other < KINDS; other++)
            assert_int_equal(kinds[other].taken(key, value), other == i);
    }
}

static void a_longer_or_shorter_one_is_refused_though_it_is_sound(void **state)
{
    (void)state;
    for (int i = 0; i < KINDS - 1; i++) { /* an object may be of any length */
        for (int more = -8; more <= 8; more += 16) {
            struct pair pair = kinds[i].make();
            pair.value_len = (size_t)((int)pair.value_len + more);
            seal(&pair);
            assert_false(kinds[i].taken(slice_over(pair.key, pair.key_len),
                                        slice_over(pair.value, pair.value_len)));
        }
        if (i == 0)
            continue;
        struct pair pair = kinds[i].make();
        pair.key_len++;
        seal(&pair);
        assert_false(kinds[i].taken(slice_over(pair.key, pair.key_len),
                                    slice_over(pair.value, pair.value_len)));
    }
    struct pair pair = object_pair();
    pair.key_len--;
    seal(&pair);
    assert_false(
        object_taken(slice_over(pair.key, pair.key_len), slice_over(pair.value, pair.value_len)));
}

static void impossible_rows_are_refused(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        uint32_t value;
    } lies[] = {{0, 10}, {0, 9}, {24, 0}, {24, EXTENT_BLOCK_MAX + 1}};
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        struct pair pair = row_pair();
        le32_put(pair.value + lies[i].at, lies[i].value);
        seal(&pair);
        struct index_row row;
        assert_false(index_row_get(slice_over(pair.key, pair.key_len),
                                   slice_over(pair.value, pair.value_len), &row));
    }
    struct pair pair = meta_pair();
    le32_put(pair.value, INDEX_VERSION + 1);
    seal(&pair);
    assert_false(
        meta_taken(slice_over(pair.key, pair.key_len), slice_over(pair.value, pair.value_len)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_put_is_taken_and_nothing_else),
        cmocka_unit_test(a_longer_or_shorter_one_is_refused_though_it_is_sound),
        cmocka_unit_test(impossible_rows_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
