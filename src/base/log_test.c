/*
 * Log lines, caught by a sink, with a clock that stands still.
 */
#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

struct caught {
    char text[2 * LOG_LINE_BYTES_MAX];
    size_t len;
    int lines;
    int64_t now_ms;
};

static int64_t caught_clock(void *context)
{
    return ((struct caught *)context)->now_ms;
}

static void caught_sink(void *context, struct slice line)
{
    struct caught *caught = context;

    assert_true(line.len <= LOG_LINE_BYTES_MAX);
    memcpy(caught->text, line.data, line.len);
    caught->text[line.len] = '\0';
    caught->len = line.len;
    caught->lines++;
}

static struct log log_to(struct caught *caught, enum log_level level)
{
    *caught = (struct caught){.now_ms = INT64_C(1795215600123)};
    return (struct log){
        .level = level, .clock = caught_clock, .sink = caught_sink, .context = caught};
}

static void an_event_is_one_line_of_keys_and_values(void **state)
{
    struct caught caught;
    struct log log = log_to(&caught, LOG_INFO);

    (void)state;
    log_event(&log, LOG_INFO, "listen",
              (const struct log_field[]){log_text("face", "amqp"), log_text("addr", "[::1]:5672"),
                                         log_uint("max", UINT64_MAX), log_int("left", -3),
                                         log_end()});
    assert_string_equal(caught.text,
                        "time=2026-11-20T23:00:00.123Z level=info event=listen "
                        "face=amqp addr=[::1]:5672 max=18446744073709551615 left=-3\n");
}

static void a_level_includes_those_before_it(void **state)
{
    struct caught caught;
    struct log log = log_to(&caught, LOG_WARN);

    (void)state;
    log_event(&log, LOG_ERROR, "a", NULL);
    log_event(&log, LOG_WARN, "b", NULL);
    assert_int_equal(caught.lines, 2);
    log_event(&log, LOG_INFO, "c", NULL);
    log_event(&log, LOG_DEBUG, "d", NULL);
    assert_int_equal(caught.lines, 2);
}

static void values_that_are_not_plain_are_quoted_and_escaped(void **state)
{
    struct caught caught;
    struct log log = log_to(&caught, LOG_INFO);

    (void)state;
    log_event(&log, LOG_ERROR, "journal failed",
              (const struct log_field[]){
                  log_text("a", ""), log_text("b", "two words"), log_text("c", "q\"b\\n\nx=1"),
                  log_slice("d", slice_make("\x00\x1b\xff", 3)), log_text("e", NULL), log_end()});
    assert_string_equal(caught.text,
                        "time=2026-11-20T23:00:00.123Z level=error event=\"journal failed\" a=\"\" "
                        "b=\"two words\" c=\"q\\\"b\\\\n\\nx=1\" d=\"\\x00\\x1b\\xff\" e=\"\"\n");
}

static void a_value_cannot_forge_a_line(void **state)
{
    struct caught caught;
    struct log log = log_to(&caught, LOG_INFO);

    (void)state;
    log_event(
        &log, LOG_INFO, "login",
        (const struct log_field[]){log_text("user", "x\ntime=0 level=info event=y"), log_end()});
    assert_ptr_equal(strchr(caught.text, '\n'), caught.text + caught.len - 1);
}

static void a_line_that_is_too_long_is_cut_with_dots(void **state)
{
    static const char FILL[] = {'a', '\n', '"'};
    struct caught caught;
    struct log log = log_to(&caught, LOG_INFO);
    uint8_t big[3 * LOG_LINE_BYTES_MAX];

    (void)state;
    for (size_t kind = 0; kind < sizeof(FILL); kind++) {
        memset(big, FILL[kind], sizeof(big));
        for (size_t len = LOG_LINE_BYTES_MAX / 4; len <= sizeof(big); len++) {
            log_event(&log, LOG_INFO, "x",
                      (const struct log_field[]){log_slice("v", slice_make(big, len)),
                                                 log_uint("after", 7), log_end()});
            bool whole = strstr(caught.text, " after=7\n") != NULL;
            bool cut = strcmp(caught.text + caught.len - 4, "...\n") == 0;
            assert_true(whole != cut);
            assert_int_equal(strlen(caught.text), caught.len);
            assert_true(whole || caught.len >= LOG_LINE_BYTES_MAX - 16);
        }
    }
}

static void a_time_before_1970_does_not_stop_a_line(void **state)
{
    struct caught caught;
    struct log log = log_to(&caught, LOG_INFO);

    (void)state;
    caught.now_ms = -1;
    log_event(&log, LOG_INFO, "x", NULL);
    assert_string_equal(caught.text, "time=unknown level=info event=x\n");
}

static void level_names_are_read_back(void **state)
{
    enum log_level level = LOG_DEBUG;

    (void)state;
    for (int i = 0; i < LOG_LEVEL_COUNT; i++) {
        assert_int_equal(log_level_parse(log_level_name((enum log_level)i), &level), ERR_NONE);
        assert_int_equal(level, i);
    }
    level = LOG_WARN;
    assert_int_equal(log_level_parse("loud", &level), ERR_INVALID);
    assert_int_equal(level, LOG_WARN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_event_is_one_line_of_keys_and_values),
        cmocka_unit_test(a_level_includes_those_before_it),
        cmocka_unit_test(values_that_are_not_plain_are_quoted_and_escaped),
        cmocka_unit_test(a_value_cannot_forge_a_line),
        cmocka_unit_test(a_line_that_is_too_long_is_cut_with_dots),
        cmocka_unit_test(a_time_before_1970_does_not_stop_a_line),
        cmocka_unit_test(level_names_are_read_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
