/*
 * Options from flags, environment and file: which wins, what is refused and in which words.
 */
#include "server/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

typedef const char *const words[];

struct fixture {
    struct config config;
    struct config_problem problem;
    char path[64]; /* of a configuration file; "" until file_write */
};

static int fixture_make(void **state)
{
    *state = calloc(1, sizeof(struct fixture));
    return *state == NULL;
}

static int fixture_drop(void **state)
{
    struct fixture *f = *state;

    if (f->path[0] != '\0')
        unlink(f->path);
    free(f);
    return 0;
}

static void file_write(struct fixture *f, const char *text)
{
    int fd;

    strncpy(f->path, "weir-config-XXXXXX.conf", sizeof(f->path) - 1);
    fd = mkstemps(f->path, 5);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static void loads(struct fixture *f, const char *const *flags, const char *const *environment)
{
    if (config_load(&f->config, flags, environment, &f->problem) != ERR_NONE)
        fail_msg("%s", f->problem.text);
}

static void refuses(struct fixture *f, const char *const *flags, const char *const *environment,
                    const char *complaint)
{
    memset(&f->problem, 0, sizeof(f->problem));
    assert_int_not_equal(config_load(&f->config, flags, environment, &f->problem), ERR_NONE);
    assert_string_equal(f->problem.text, complaint);
}

static void refuses_text(struct fixture *f, const char *text, const char *complaint)
{
    config_init(&f->config);
    memset(&f->problem, 0, sizeof(f->problem));
    assert_int_not_equal(config_read(&f->config, "weir.conf", slice_of(text), &f->problem),
                         ERR_NONE);
    assert_string_equal(f->problem.text, complaint);
}

static void nothing_said_means_the_defaults(void **state)
{
    struct fixture *f = *state;

    loads(f, (words){NULL}, (words){NULL});
    assert_string_equal(f->config.data, "./weir-data");
    assert_int_equal(f->config.shards, 0);
    assert_int_equal(f->config.cells, 8);
    assert_int_equal(f->config.durability, CONFIG_DURABILITY_SYNC);
    assert_int_equal(f->config.log_level, CONFIG_LOG_LEVEL_INFO);
    assert_true(f->config.auto_create_topics);
    assert_int_equal(f->config.kafka_max_batch_bytes, 1048588);
    assert_int_equal(f->config.listen_count, CONFIG_FACE_COUNT);
    assert_int_equal(f->config.listen[0].face, CONFIG_FACE_AMQP);
    assert_string_equal(f->config.listen[0].host, "127.0.0.1");
    assert_int_equal(f->config.listen[0].port, 5672);
    assert_int_equal(f->config.listen[1].face, CONFIG_FACE_KAFKA);
    assert_int_equal(f->config.listen[1].port, 9092);
    assert_int_equal(f->config.source[OPTION_SHARDS], CONFIG_DEFAULT);
}

static void flags_take_a_value_as_the_next_word_or_behind_an_equals_sign(void **state)
{
    struct fixture *f = *state;

    loads(f,
          (words){"--shards", "3", "--durability=os", "--data", "/srv/a=b", "--log-level=debug",
                  "--auto-create-topics", "false", NULL},
          (words){NULL});
    assert_int_equal(f->config.shards, 3);
    assert_int_equal(f->config.durability, CONFIG_DURABILITY_OS);
    assert_string_equal(f->config.data, "/srv/a=b");
    assert_int_equal(f->config.log_level, CONFIG_LOG_LEVEL_DEBUG);
    assert_false(f->config.auto_create_topics);
    assert_int_equal(f->config.source[OPTION_SHARDS], CONFIG_FLAG);
}

static void listen_given_once_or_more_is_the_only_one(void **state)
{
    struct fixture *f = *state;

    loads(f, (words){"--listen", "kafka=[::1]:0", "--listen", "kafka=localhost:19092", NULL},
          (words){"WEIR_LISTEN=amqp=127.0.0.1:1", NULL});
    assert_int_equal(f->config.listen_count, 2);
    assert_int_equal(f->config.listen[0].face, CONFIG_FACE_KAFKA);
    assert_string_equal(f->config.listen[0].host, "::1");
    assert_int_equal(f->config.listen[0].port, 0);
    assert_string_equal(f->config.listen[1].host, "localhost");
    assert_int_equal(f->config.listen[1].port, 19092);

    loads(f, (words){NULL}, (words){"WEIR_LISTEN=amqp=0.0.0.0:1,kafka=[::]:2", NULL});
    assert_int_equal(f->config.listen_count, 2);
    assert_string_equal(f->config.listen[0].host, "0.0.0.0");
    assert_string_equal(f->config.listen[1].host, "::");
}

static void a_flag_goes_before_the_environment_and_that_before_the_file(void **state)
{
    struct fixture *f = *state;

    file_write(f, "shards = 1\ncells = 11\nheartbeat-s = 21\n");
    loads(f, (words){"--config", f->path, "--shards=3", NULL},
          (words){"WEIR_SHARDS=2", "WEIR_CELLS=12", NULL});
    assert_int_equal(f->config.shards, 3);
    assert_int_equal(f->config.cells, 12);
    assert_int_equal(f->config.heartbeat_s, 21);
    assert_int_equal(f->config.frame_max, 131072);
    assert_int_equal(f->config.source[OPTION_CELLS], CONFIG_ENVIRONMENT);
    assert_int_equal(f->config.source[OPTION_HEARTBEAT_S], CONFIG_FILE);
}

static void the_environment_may_name_the_file(void **state)
{
    struct fixture *f = *state;
    char variable[80];

    file_write(f, "cells = 11\n");
    snprintf(variable, sizeof(variable), "WEIR_CONFIG=%s", f->path);
    loads(f, (words){NULL}, (words){variable, NULL});
    assert_int_equal(f->config.cells, 11);
}

static void a_file_has_comments_blanks_quotes_and_foreign_line_ends(void **state)
{
    struct fixture *f = *state;

    file_write(f, "# where\r\n\r\n  data=\"/srv/two words \"  \r\n\tlisten = amqp=127.0.0.1:1\n"
                  "listen = kafka=127.0.0.1:2\nlog-level = warn");
    loads(f, (words){"--config", f->path, NULL}, (words){NULL});
    assert_string_equal(f->config.data, "/srv/two words ");
    assert_int_equal(f->config.listen_count, 2);
    assert_int_equal(f->config.listen[1].port, 2);
    assert_int_equal(f->config.log_level, CONFIG_LOG_LEVEL_WARN);
}

static void an_unknown_name_suggests_the_nearest(void **state)
{
    struct fixture *f = *state;

    refuses(f, (words){"--shrads", "3", NULL}, (words){NULL},
            "--shrads: there is no such option; did you mean --shards?");
    refuses(f, (words){"--durabilty=os", NULL}, (words){NULL},
            "--durabilty: there is no such option; did you mean --durability?");
    refuses(f, (words){"--frobnicate=os", NULL}, (words){NULL},
            "--frobnicate: there is no such option");
    refuses(f, (words){NULL}, (words){"WEIR_SHARD=3", NULL},
            "WEIR_SHARD: there is no such option; did you mean WEIR_SHARDS?");
    refuses_text(f, "\ncels = 3\n",
                 "weir.conf:2: cels: there is no such option; did you mean cells?");
    refuses_text(f, "a-very-long-name-that-no-option-has-or-will-ever-have-in-this-program = 3\n",
                 "weir.conf:1: a-very-long-name-that-no-option-has-or-will-ever-have-in-this-"
                 "program: there is no such option");
}

static void variables_of_others_are_left_alone(void **state)
{
    struct fixture *f = *state;

    loads(f, (words){NULL},
          (words){"WEIR_PORT=tcp://10.0.0.1:5672", "WEIR_SERVICE_HOST=10.0.0.1", "WEIR_BIN=x",
                  "WEIR_TMP=x", "WEIR_BUILD=x", "WEIR_KIND_BUILD=x", "WEIR_WRAP=x",
                  "WEIR_COMPAT_AMQP=x", "WEIR_TEST_CACHE=x", "WEIR_=x", "WEIR", "PATH=x", NULL});
}

static void a_bad_value_says_what_would_be_good(void **state)
{
    struct fixture *f = *state;

    refuses(f, (words){"--shards", "-1", NULL}, (words){NULL},
            "--shards: '-1' is not a whole number from 0 to 256");
    refuses(f, (words){"--shards", "", NULL}, (words){NULL},
            "--shards: '' is not a whole number from 0 to 256");
    refuses(f, (words){"--shards", "257", NULL}, (words){NULL},
            "--shards: '257' is not a whole number from 0 to 256");
    refuses(f, (words){"--shards", "18446744073709551617", NULL}, (words){NULL},
            "--shards: '18446744073709551617' is not a whole number from 0 to 256");
    refuses(f, (words){NULL}, (words){"WEIR_DURABILITY=maybe", NULL},
            "WEIR_DURABILITY: 'maybe' is none of sync, os");
    refuses_text(f, "auto-create-topics = yes",
                 "weir.conf:1: auto-create-topics: 'yes' is neither true nor false");
    refuses_text(f, "config = x", "weir.conf:1: config: makes no sense in a file");
    refuses_text(f, "[server]", "weir.conf:1: '[server]' is not NAME = VALUE");
    refuses_text(f, "data =", "weir.conf:1: data: must not be empty");
    refuses(f, (words){"--data", NULL}, (words){NULL}, "--data: needs a value");
    refuses(f, (words){"data", NULL}, (words){NULL}, "'data' is not an option (--NAME)");
}

static void a_bad_address_is_refused(void **state)
{
    static const char *const BAD[] = {
        "amqp=",     "amqp=:1",    "amqp=1",     "amqp=a:",   "amqp=a:65536", "amqp=::1:5",
        "amqp=[]:5", "amqp=a b:5", "amqp=a,b:5", "amqp=a]:5", "amqp=a:-1",    "amqp=[a:5",
    };
    struct fixture *f = *state;
    char complaint[256];

    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++) {
        snprintf(complaint, sizeof(complaint),
                 "--listen: '%s' is not HOST:PORT (an IPv6 address in brackets)", BAD[i] + 5);
        refuses(f, (words){"--listen", BAD[i], NULL}, (words){NULL}, complaint);
    }
    refuses_text(f, "listen = amqp=x\nshards = 4",
                 "weir.conf:1: listen: 'x' is not HOST:PORT (an IPv6 address in brackets)");
    refuses(f, (words){"--listen", "127.0.0.1:5672", NULL}, (words){NULL},
            "--listen: '127.0.0.1:5672' is not FACE=HOST:PORT");
    refuses(f, (words){"--listen", "amqps=127.0.0.1:5671", NULL}, (words){NULL},
            "--listen: 'amqps' is no face; there are amqp, kafka, http");
}

static void there_is_a_limit_to_addresses(void **state)
{
    const char *flags[2 * (CONFIG_LISTEN_MAX + 1) + 1] = {NULL};
    struct fixture *f = *state;

    for (int i = 0; i <= CONFIG_LISTEN_MAX; i++) {
        flags[2 * i] = "--listen";
        flags[2 * i + 1] = "amqp=127.0.0.1:0";
    }
    refuses(f, flags, (words){NULL}, "--listen: there are more than 16");
}

static void a_weaker_source_is_checked_even_when_it_does_not_count(void **state)
{
    struct fixture *f = *state;

    refuses(f, (words){"--shards=3", NULL}, (words){"WEIR_SHARDS=many", NULL},
            "WEIR_SHARDS: 'many' is not a whole number from 0 to 256");
}

static void a_file_that_is_not_there_is_an_error(void **state)
{
    struct fixture *f = *state;

    refuses(f, (words){"--config", "no/such.conf", NULL}, (words){NULL},
            "no/such.conf: No such file or directory");
}

static void no_text_of_a_file_does_harm(void **state)
{
    struct fixture *f = *state;
    char *text = malloc(3 * CONFIG_TEXT_BYTES);
    size_t len = 3 * CONFIG_TEXT_BYTES;
    uint32_t seed = 1;

    assert_non_null(text);
    memset(text, 'x', len);
    memcpy(text, "data = ", 7);
    config_init(&f->config);
    assert_int_not_equal(config_read(&f->config, "f", slice_make(text, len), &f->problem),
                         ERR_NONE);
    assert_string_equal(f->problem.text, "f:1: data: is longer than 4095 bytes");
    for (int round = 0; round < 2000; round++) {
        static const char LETTERS[] = "data=shrlitenamqpkf:1.[]\"# \n\r\t\0\xff-";
        len = 1 + (size_t)round % 300;
        for (size_t i = 0; i < len; i++) {
            seed = seed * 1664525 + 1013904223;
            text[i] = LETTERS[(seed >> 16) % sizeof(LETTERS)];
        }
        config_init(&f->config);
        if (config_read(&f->config, "f", slice_make(text, len), &f->problem))
            assert_memory_equal(f->problem.text, "f:", 2);
    }
    free(text);
}

static void the_help_names_every_option(void **state)
{
    char flag[80];

    (void)state;
    for (int id = 0; id < OPTION_COUNT; id++) {
        snprintf(flag, sizeof(flag), "\n  --%s ", OPTIONS[id].name);
        assert_non_null(strstr(OPTIONS_HELP, flag));
    }
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, fixture_make, fixture_drop)
    const struct CMUnitTest tests[] = {
        CASE(nothing_said_means_the_defaults),
        CASE(flags_take_a_value_as_the_next_word_or_behind_an_equals_sign),
        CASE(listen_given_once_or_more_is_the_only_one),
        CASE(a_flag_goes_before_the_environment_and_that_before_the_file),
        CASE(the_environment_may_name_the_file),
        CASE(a_file_has_comments_blanks_quotes_and_foreign_line_ends),
        CASE(an_unknown_name_suggests_the_nearest),
        CASE(variables_of_others_are_left_alone),
        CASE(a_bad_value_says_what_would_be_good),
        CASE(a_bad_address_is_refused),
        CASE(there_is_a_limit_to_addresses),
        CASE(a_weaker_source_is_checked_even_when_it_does_not_count),
        CASE(a_file_that_is_not_there_is_an_error),
        CASE(no_text_of_a_file_does_harm),
        CASE(the_help_names_every_option),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
