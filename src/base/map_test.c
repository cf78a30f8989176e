/* A map against a plain array of pairs, with runs of deletions and keys that collide. */
#include "base/map.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

enum { KEYS = 512 };

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Slot n of the model holds key_of(n): neighbours, strides as ids of one cell have, and wild ones.
 */
static uint64_t key_of(uint32_t n, int kind)
{
    if (kind == 0)
        return n;
    if (kind == 1)
        return (uint64_t)n * 16 + 3;
    uint64_t state = n + UINT64_C(0x9E3779B97F4A7C15);
    next_random(&state);
    return next_random(&state);
}

struct model {
    struct map map;
    void *values[KEYS];
    uint32_t count;
    int kind;
};

static void check_all(struct model *model)
{
    assert_int_equal(model->map.count, model->count);
    for (uint32_t n = 0; n < KEYS; n++)
        assert_ptr_equal(map_get(&model->map, key_of(n, model->kind)), model->values[n]);
    uint32_t at = 0, seen = 0;
    for (struct map_slot *slot; (slot = map_next(&model->map, &at)) != NULL; seen++)
        assert_ptr_equal(map_get(&model->map, slot->key), slot->value);
    assert_int_equal(seen, model->count);
}

static void put(struct model *model, uint32_t n, void *value)
{
    assert_true(map_put(&model->map, key_of(n, model->kind), value));
    model->count += model->values[n] == NULL;
    model->values[n] = value;
}

static void take(struct model *model, uint32_t n)
{
    assert_ptr_equal(map_take(&model->map, key_of(n, model->kind)), model->values[n]);
    model->count -= model->values[n] != NULL;
    model->values[n] = NULL;
}

static void it_holds_what_a_plain_table_holds(void **state)
{
    (void)state;
    static char marks[4096];
    for (uint64_t seed = 1; seed <= 30; seed++) {
        uint64_t random = seed * 7919;
        struct model model = {.kind = (int)(seed % 3)};
        for (int step = 0; step < 3000; step++) {
            uint32_t n = (uint32_t)(next_random(&random) % KEYS);
            if (next_random(&random) % 100 < 55)
                put(&model, n, &marks[next_random(&random) % sizeof marks]);
            else
                take(&model, n);
            if (next_random(&random) % 200 == 0) { /* a run of neighbours goes */
                for (uint32_t i = 0; i < 60; i++)
                    take(&model, (n + i) % KEYS);
            }
            if (step % 250 == 0)
                check_all(&model);
        }
        check_all(&model);
        for (uint32_t n = 0; n < KEYS; n++)
            take(&model, n);
        check_all(&model);
        map_done(&model.map);
    }
}

static void what_is_taken_out_on_a_walk_is_met_once(void **state)
{
    (void)state;
    static char mark;
    for (int kind = 0; kind < 3; kind++) {
        struct model model = {.kind = kind};
        for (uint32_t n = 0; n < KEYS; n++)
            put(&model, n, &mark);
        uint32_t at = 0, met = 0;
        for (struct map_slot *slot; (slot = map_next(&model.map, &at)) != NULL;) {
            met++;
            if (slot->key % 2 == 0)
                map_walk_take(&model.map, &at);
        }
        assert_true(met >= KEYS);
        for (uint32_t n = 0; n < KEYS; n++) {
            uint64_t key = key_of(n, kind);
            assert_ptr_equal(map_get(&model.map, key), key % 2 == 0 ? NULL : &mark);
        }
        map_done(&model.map);
    }
}

static void an_empty_map_holds_nothing(void **state)
{
    (void)state;
    struct map map = {0};
    uint32_t at = 0;
    assert_null(map_get(&map, 0));
    assert_null(map_take(&map, 7));
    assert_null(map_next(&map, &at));
    map_done(&map);
}

static void putting_a_key_again_replaces_its_value(void **state)
{
    (void)state;
    struct map map = {0};
    char a, b;
    assert_true(map_put(&map, UINT64_MAX, &a));
    assert_true(map_put(&map, UINT64_MAX, &b));
    assert_int_equal(map.count, 1);
    assert_ptr_equal(map_get(&map, UINT64_MAX), &b);
    map_done(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_holds_what_a_plain_table_holds),
        cmocka_unit_test(what_is_taken_out_on_a_walk_is_met_once),
        cmocka_unit_test(an_empty_map_holds_nothing),
        cmocka_unit_test(putting_a_key_again_replaces_its_value),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
