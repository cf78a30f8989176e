/* AMQP tables as arguments: every type has its kind, and what is malformed is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/memory_double.h"
#include "core/args_table.h"

#include <string.h>

static const struct {
    uint8_t type;
    enum arg_kind kind;
    uint8_t len; /* of the value, zeroes that mean nothing long */
} types[] = {
    {'V', ARG_VOID, 0},  {'t', ARG_BOOL, 1},   {'T', ARG_TIME, 8},   {'S', ARG_TEXT, 4},
    {'x', ARG_BYTES, 4}, {'f', ARG_DOUBLE, 4}, {'d', ARG_DOUBLE, 8}, {'F', ARG_OTHER, 4},
    {'A', ARG_OTHER, 4}, {'D', ARG_OTHER, 5},  {'b', ARG_INT, 1},    {'B', ARG_INT, 1},
    {'s', ARG_INT, 2},   {'u', ARG_INT, 2},    {'I', ARG_INT, 4},    {'i', ARG_INT, 4},
    {'l', ARG_INT, 8},
};

enum { TYPES = sizeof types / sizeof *types };

/* A table of one field of each type, named by its type; returns its length. */
static size_t table_make(uint8_t *out)
{
    uint8_t *at = out;
    for (size_t i = 0; i < TYPES; i++) {
        *at++ = 1;
        *at++ = types[i].type;
        *at++ = types[i].type;
        memset(at, 0, types[i].len);
        at += types[i].len;
    }
    return (size_t)(at - out);
}

static void every_type_has_its_kind(void **state)
{
    (void)state;
    uint8_t table[256];
    size_t len = table_make(table);
    struct arena arena;
    arena_init(&arena, 4096, 1 << 16);
    struct args args;
    assert_true(args_from_table(slice_make(table, len), &arena, &args));
    assert_int_equal(args.count, TYPES);
    for (uint32_t i = 0; i < TYPES; i++) {
        assert_int_equal(args.items[i].kind, types[i].kind);
        assert_int_equal(args.items[i].wire_type, types[i].type);
        assert_int_equal(args.items[i].name.data[0], types[i].type);
    }
    assert_true(args_from_table((struct slice){0}, &arena, &args));
    assert_int_equal(args.count, 0);
    arena_done(&arena);
}

static void a_table_that_is_cut_is_refused(void **state)
{
    (void)state;
    uint8_t table[256];
    size_t len = table_make(table), sound = 0;
    struct arena arena;
    arena_init(&arena, 4096, 1 << 16);
    struct args args;
    for (size_t cut = 0; cut <= len; cut++)
        sound += args_from_table(slice_make(table, cut), &arena, &args);
    assert_int_equal(sound, TYPES + 1); /* only between two fields */
    table[1 + 1] = 'Q';
    assert_false(args_from_table(slice_make(table, len), &arena, &args));
    arena_done(&arena);
}

static void without_memory_there_are_none(void **state)
{
    (void)state;
    uint8_t table[256];
    size_t len = table_make(table);
    struct arena arena;
    arena_init(&arena, 64, 1 << 16);
    struct args args;
    memory_fail_at(1, 0);
    assert_false(args_from_table(slice_make(table, len), &arena, &args));
    memory_fail_at(0, 0);
    assert_true(args_from_table(slice_make(table, len), &arena, &args));
    arena_done(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_has_its_kind),
        cmocka_unit_test(a_table_that_is_cut_is_refused),
        cmocka_unit_test(without_memory_there_are_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
