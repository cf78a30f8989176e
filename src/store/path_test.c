/* Names of files and their numbers. */
#include "store/path.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void a_number_is_read_as_it_was_written(void **state)
{
    (void)state;
    static const uint64_t numbers[] = {0, 1, 0xa0f9, 0x123456789abcdef0, UINT64_MAX};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        char path[64];
        uint64_t number = 7;
        path_numbered(path, sizeof path, "f", "extent", numbers[i]);
        assert_true(path_number(path + 2, "extent", &number));
        assert_int_equal(number, numbers[i]);
    }
}

static void what_is_no_such_name_is_refused(void **state)
{
    (void)state;
    static const char *const names[] = {
        "",
        "extent",
        "extent-",
        "extent-000000000000001",   /* too short */
        "extent-00000000000000001", /* too long */
        "extent_0000000000000001",
        "journal-0000000000000001",
        "extent-000000000000000A", /* lower case only */
        "extent-000000000000000g",
        "extent-000000000000000/",
        "extent-000000000000000:",
        "extent-000000000000000`",
        "extent-000000000000-001",
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        uint64_t number = 7;
        assert_false(path_number(names[i], "extent", &number));
        assert_int_equal(number, 7);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_number_is_read_as_it_was_written),
        cmocka_unit_test(what_is_no_such_name_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
