/* Arguments compare by value and survive their stored form. */
#include "core/catalog_rig.h"

#include "base/arena.h"
#include "core/args.h"

static const struct arg SAMPLE[] = {
    {.name = {(const uint8_t *)"v", 1}, .kind = ARG_VOID, .wire_type = 'V'},
    {.name = {(const uint8_t *)"n", 1}, .kind = ARG_INT, .wire_type = 'l', .number = -5},
    {.name = {(const uint8_t *)"", 0},
     .kind = ARG_TEXT,
     .wire_type = 'S',
     .text = {(const uint8_t *)"text", 4}},
    {.name = {(const uint8_t *)"f", 1},
     .kind = ARG_OTHER,
     .wire_type = 'F',
     .text = {(const uint8_t *)"", 0}},
};

static size_t encode(uint8_t *bytes, size_t room)
{
    struct args args = {SAMPLE, 4};
    struct writer writer = writer_over(bytes, room);
    args_encode(&writer, args);
    assert_false(writer.failed);
    assert_int_equal((size_t)(writer.at - bytes), args_size(args));
    return args_size(args);
}

static void the_stored_form_gives_the_same_back(void **state)
{
    (void)state;
    uint8_t bytes[256];
    size_t size = encode(bytes, sizeof bytes);
    struct arena arena;
    arena_init(&arena, 1024, 4096);
    struct reader reader = reader_over(slice_make(bytes, size));
    struct args out;
    assert_true(args_decode(&reader, &arena, &out));
    assert_int_equal(reader_left(&reader), 0);
    assert_true(args_same(out, (struct args){SAMPLE, 4}));
    assert_int_equal(out.items[1].wire_type, 'l');
    arena_done(&arena);
}

static void cut_and_inflated_forms_are_refused(void **state)
{
    (void)state;
    uint8_t bytes[256];
    size_t size = encode(bytes, sizeof bytes);
    struct arena arena;
    arena_init(&arena, 1024, 4096);
    for (size_t len = 0; len < size; len++) {
        struct reader reader = reader_over(slice_make(bytes, len));
        struct args out;
        assert_false(args_decode(&reader, &arena, &out));
        reader = reader_over(slice_make(bytes, len));
        uint32_t count;
        assert_false(args_skip(&reader, &count));
    }
    memset(bytes, 0xff, 4); /* a count that memory could not hold */
    struct reader reader = reader_over(slice_make(bytes, size));
    struct args out;
    assert_false(args_decode(&reader, &arena, &out));
    arena_done(&arena);
}

static void a_copy_stands_alone(void **state)
{
    (void)state;
    char text[] = "text";
    struct arg item = {.name = slice_of("n"), .kind = ARG_TEXT, .text = slice_of(text)};
    struct arg *copy = args_copy((struct args){&item, 1});
    assert_non_null(copy);
    text[0] = 'n';
    assert_true(slice_equal(copy->text, slice_of("text")));
    assert_true(slice_equal(copy->name, slice_of("n")));
    free(copy);
    free(args_copy((struct args){0}));
}

static void values_are_equal_by_kind(void **state)
{
    (void)state;
    struct arg a = rig_int("n", 1), b = rig_int("n", 1);
    b.wire_type = 'b';
    assert_true(arg_equal(&a, &b));
    b.number = 2;
    assert_false(arg_equal(&a, &b));
    struct arg text = rig_text("n", "1"), bytes = text;
    bytes.kind = ARG_BYTES;
    assert_false(arg_equal(&a, &text));
    assert_false(arg_equal(&text, &bytes));
    assert_non_null(args_find((struct args){SAMPLE, 4}, "f"));
    assert_null(args_find((struct args){SAMPLE, 4}, "missing"));
}

/* One argument of each kind, and one that differs from it in its value. */
static void arguments_differ_by_kind_and_by_value(void **state)
{
    (void)state;
    static const struct arg pairs[][2] = {
        {{.kind = ARG_VOID}, {.kind = ARG_INT}},
        {{.kind = ARG_BOOL, .number = 1}, {.kind = ARG_BOOL}},
        {{.kind = ARG_INT, .number = 1}, {.kind = ARG_INT, .number = 2}},
        {{.kind = ARG_TIME, .number = 1}, {.kind = ARG_TIME, .number = 2}},
        {{.kind = ARG_DOUBLE, .number = 1}, {.kind = ARG_DOUBLE, .number = 2}},
        {{.kind = ARG_TEXT, .text = {(const uint8_t *)"a", 1}},
         {.kind = ARG_TEXT, .text = {(const uint8_t *)"b", 1}}},
        {{.kind = ARG_BYTES, .text = {(const uint8_t *)"a", 1}},
         {.kind = ARG_BYTES, .text = {(const uint8_t *)"ab", 2}}},
        {{.kind = ARG_OTHER, .wire_type = 'F', .text = {(const uint8_t *)"a", 1}},
         {.kind = ARG_OTHER, .wire_type = 'A', .text = {(const uint8_t *)"a", 1}}},
        {{.kind = ARG_OTHER, .wire_type = 'F', .text = {(const uint8_t *)"a", 1}},
         {.kind = ARG_OTHER, .wire_type = 'F', .text = {(const uint8_t *)"b", 1}}},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        assert_true(args_same((struct args){&pairs[i][0], 1}, (struct args){&pairs[i][0], 1}));
        assert_false(args_same((struct args){&pairs[i][0], 1}, (struct args){&pairs[i][1], 1}));
        assert_false(args_same((struct args){pairs[i], 2}, (struct args){&pairs[i][0], 1}));
    }
    struct arg named = {.name = slice_of("a"), .kind = ARG_INT}, other = named;
    other.name = slice_of("b");
    assert_false(args_same((struct args){&named, 1}, (struct args){&other, 1}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_stored_form_gives_the_same_back),
        cmocka_unit_test(cut_and_inflated_forms_are_refused),
        cmocka_unit_test(a_copy_stands_alone),
        cmocka_unit_test(values_are_equal_by_kind),
        cmocka_unit_test(arguments_differ_by_kind_and_by_value),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
