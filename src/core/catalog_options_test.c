/* Arguments of queues and topics, one by one: what is taken, and the words that refuse the rest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/catalog_inside.h"

#include <stdio.h>
#include <string.h>

static struct arg number_arg(const char *name, int64_t number)
{
    return (struct arg){
        .name = slice_of(name), .kind = ARG_INT, .wire_type = 'l', .number = number};
}

static struct arg text_arg(const char *name, const char *text)
{
    return (struct arg){
        .name = slice_of(name), .kind = ARG_TEXT, .wire_type = 'S', .text = slice_of(text)};
}

/* "" when the argument is taken. */
static const char *queue_says(struct arg arg)
{
    static char text[FAULT_BYTES];
    const char *name = NULL;
    text[0] = '\0';
    if (queue_args_check((struct args){&arg, 1}, &name, text))
        return "";
    assert_true(slice_equal(arg.name, slice_of(name)));
    return text;
}

static void numbers_of_queues_have_their_bounds(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int64_t number;
        const char *says;
    } cases[] = {
        {"x-message-ttl", 0, ""},
        {"x-message-ttl", UINT32_MAX, ""},
        {"x-message-ttl", (int64_t)UINT32_MAX + 1, "{value_too_big,4294967296}"},
        {"x-message-ttl", -1, "{value_negative,-1}"},
        {"x-expires", 0, "{value_zero,0}"},
        {"x-expires", 1, ""},
        {"x-expires", -5, "{value_negative,-5}"},
        {"x-expires", INT64_MAX, "{value_too_big,9223372036854775807}"},
        {"x-max-length", 0, ""},
        {"x-max-length", -1, "{value_negative,-1}"},
        {"x-max-length-bytes", INT64_MIN, "{value_negative,-9223372036854775808}"},
        {"x-max-priority", 255, ""},
        {"x-max-priority", 256, "{max_value_exceeded,256}"},
        {"x-max-priority", -1, "{value_negative,-1}"},
        {"x-delivery-limit", -1, ""},
        {"x-delivery-limit", -2, "{value_negative,-2}"},
        {"x-queue-version", 2, ""},
        {"x-unknown", -7, ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(queue_says(number_arg(cases[i].name, cases[i].number)), cases[i].says);
}

static void texts_of_queues_are_among_those_known(void **state)
{
    (void)state;
    static const struct {
        const char *name, *text, *says;
    } cases[] = {
        {"x-overflow", "drop-head", ""},
        {"x-overflow", "reject-publish", ""},
        {"x-overflow", "reject-publish-dlx", ""},
        {"x-overflow", "drop-tail", "invalid_overflow"},
        {"x-queue-mode", "default", ""},
        {"x-queue-mode", "lazy", ""},
        {"x-queue-mode", "eager", "invalid_queue_mode"},
        {"x-queue-type", "classic", ""},
        {"x-queue-type", "quorum", ""},
        {"x-queue-type", "stream", ""},
        {"x-queue-type", "heap", "\"unsupported queue type 'heap'\""},
        {"x-dead-letter-strategy", "at-most-once", ""},
        {"x-dead-letter-strategy", "at-least-once", ""},
        {"x-dead-letter-strategy", "never", "invalid_dlx_strategy"},
        {"x-dead-letter-exchange", "any", ""},
        {"x-dead-letter-routing-key", "k", "routing_key_but_no_dlx_defined"},
        {"x-queue-leader-locator", "client-local", ""},
        {"x-max-age", "7D", ""},
        {"x-max-age", "30s", ""},
        {"x-max-age", "5m", ""},
        {"x-max-age", "1h", ""},
        {"x-max-age", "2M", ""},
        {"x-max-age", "1Y", ""},
        {"x-max-age", "0D", "invalid_max_age"},
        {"x-max-age", "D", "invalid_max_age"},
        {"x-max-age", "7", "invalid_max_age"},
        {"x-max-age", "7W", "invalid_max_age"},
        {"x-max-age", "x7D", "invalid_max_age"},
        {"x-max-age", "-7D", "invalid_max_age"},
        {"x-max-age", "99999999999Y", "invalid_max_age"},
        {"x-max-age", "1234567890123D", "invalid_max_age"},
        {"x-message-ttl", "5", "\"expected integer, got longstr\""},
        {"x-expires", "5", "\"expected integer, got longstr\""},
        {"x-max-priority", "5", "\"expected integer, got longstr\""},
        {"x-delivery-limit", "5", "\"expected integer, got longstr\""},
        {"x-single-active-consumer", "true", "{unacceptable_type,longstr}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(queue_says(text_arg(cases[i].name, cases[i].text)), cases[i].says);
    struct arg both[] = {text_arg("x-dead-letter-routing-key", "k"),
                         text_arg("x-dead-letter-exchange", "e")};
    const char *name;
    char text[FAULT_BYTES];
    assert_true(queue_args_check((struct args){both, 2}, &name, text));
}

/* The types are named as RabbitMQ names them, whatever an argument wants. */
static void what_is_of_the_wrong_type_is_told_which(void **state)
{
    (void)state;
    static const struct {
        uint8_t wire;
        enum arg_kind kind;
        const char *name;
    } types[] = {
        {'S', ARG_TEXT, "longstr"},
        {'I', ARG_INT, "signedint"},
        {'i', ARG_INT, "unsignedint"},
        {'l', ARG_INT, "long"},
        {'L', ARG_INT, "long"},
        {'s', ARG_INT, "short"},
        {'u', ARG_INT, "unsignedshort"},
        {'b', ARG_INT, "byte"},
        {'B', ARG_INT, "unsignedbyte"},
        {'t', ARG_BOOL, "bool"},
        {'T', ARG_TIME, "timestamp"},
        {'d', ARG_DOUBLE, "double"},
        {'f', ARG_DOUBLE, "float"},
        {'D', ARG_OTHER, "decimal"},
        {'F', ARG_OTHER, "table"},
        {'A', ARG_OTHER, "array"},
        {'x', ARG_BYTES, "binary"},
        {'V', ARG_VOID, "void"},
        {0, ARG_INT, "long"},
        {0, ARG_BOOL, "bool"},
        {0, ARG_TEXT, "longstr"},
    };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        char says[100];
        struct arg arg = {.kind = types[i].kind, .wire_type = types[i].wire, .number = 1};
        snprintf(says, sizeof says, "{unacceptable_type,%s}", types[i].name);
        const char *wants[] = {"x-dead-letter-exchange",
                               "x-overflow",
                               "x-queue-mode",
                               "x-queue-type",
                               "x-max-age",
                               "x-dead-letter-strategy",
                               "x-dead-letter-routing-key"};
        for (size_t k = 0; types[i].kind != ARG_TEXT && k < sizeof wants / sizeof *wants; k++) {
            arg.name = slice_of(wants[k]);
            assert_string_equal(queue_says(arg), says);
        }
        arg.name = slice_of("x-single-active-consumer");
        assert_string_equal(queue_says(arg), types[i].kind == ARG_BOOL ? "" : says);
        snprintf(says, sizeof says, "\"expected integer, got %s\"", types[i].name);
        arg.name = slice_of("x-max-length");
        assert_string_equal(queue_says(arg), types[i].kind == ARG_INT ? "" : says);
    }
}

static const char *printed(struct arg arg)
{
    static char text[64];
    arg_print(&arg, text, sizeof text);
    return text;
}

static void arguments_are_printed_as_they_are(void **state)
{
    (void)state;
    double half = 0.5;
    struct arg real = {.kind = ARG_DOUBLE, .wire_type = 'd'};
    memcpy(&real.number, &half, sizeof half);
    assert_string_equal(printed((struct arg){.kind = ARG_VOID}), "undefined");
    assert_string_equal(printed((struct arg){.kind = ARG_BOOL, .number = 1}), "true");
    assert_string_equal(printed((struct arg){.kind = ARG_BOOL}), "false");
    assert_string_equal(printed(number_arg("n", -3)), "-3");
    assert_string_equal(printed((struct arg){.kind = ARG_TIME, .number = 99}), "99");
    assert_string_equal(printed(real), "0.5");
    assert_string_equal(printed(text_arg("n", "words")), "words");
    assert_string_equal(printed((struct arg){.kind = ARG_OTHER, .wire_type = 'D'}), "decimal");
    assert_string_equal(printed((struct arg){.kind = ARG_OTHER, .wire_type = 'F'}), "[...]");
    char longer[200];
    memset(longer, 'a', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    assert_int_equal(strlen(printed(text_arg("n", longer))), 63);
}

/* "" when the topic may be configured so. */
static const char *topic_says(const char *name, const char *value)
{
    static char text[FAULT_BYTES];
    struct arg arg = text_arg(name, value);
    return topic_configs_check((struct args){&arg, 1}, text) ? "" : text;
}

static void configurations_of_topics_are_as_kafka_has_them(void **state)
{
    (void)state;
    static const struct {
        const char *name, *value, *wrong; /* NULL: it is taken */
    } cases[] = {
        {"retention.ms", "-1", NULL},
        {"retention.ms", " 12 ", NULL},
        {"retention.ms", "+5", NULL},
        {"retention.ms", "-9223372036854775808", "Value must be at least -1"},
        {"retention.ms", "-9223372036854775809", "Not a number of type LONG"},
        {"retention.ms", "9223372036854775807", NULL},
        {"retention.ms", "9223372036854775808", "Not a number of type LONG"},
        {"retention.ms", "", "Not a number of type LONG"},
        {"retention.ms", "-", "Not a number of type LONG"},
        {"retention.ms", "1x", "Not a number of type LONG"},
        {"retention.ms", "x", "Not a number of type LONG"},
        {"retention.ms", "0000000000000000000000000000000000000001", "Not a number of type LONG"},
        {"segment.bytes", "13", "Value must be at least 14"},
        {"segment.bytes", "2147483647", NULL},
        {"segment.bytes", "2147483648", "Not a number of type INT"},
        {"compression.zstd.level", "-2147483648", NULL},
        {"compression.zstd.level", "-2147483649", "Not a number of type INT"},
        {"min.cleanable.dirty.ratio", "0.5", NULL},
        {"min.cleanable.dirty.ratio", "1.5", "Value must be no more than 1"},
        {"min.cleanable.dirty.ratio", "-0.1", "Value must be at least 0"},
        {"min.cleanable.dirty.ratio", "half", "Not a number of type DOUBLE"},
        {"min.cleanable.dirty.ratio", "", "Not a number of type DOUBLE"},
        {"preallocate", "true", NULL},
        {"preallocate", "FALSE", NULL},
        {"preallocate", "yes", "Expected value to be either true or false"},
        {"cleanup.policy", "compact", NULL},
        {"cleanup.policy", "compact, delete", NULL},
        {"cleanup.policy", " delete ,compact", NULL},
        {"cleanup.policy", "", NULL},
        {"cleanup.policy", "compact,shred", "String must be one of: compact, delete"},
        {"message.timestamp.type", "LogAppendTime", NULL},
        {"message.timestamp.type", "Log", "String must be one of: CreateTime, LogAppendTime"},
        {"message.format.version", "anything", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char says[FAULT_BYTES] = "";
        if (cases[i].wrong != NULL)
            snprintf(says, sizeof says, "Invalid value %s for configuration %s: %s", cases[i].value,
                     cases[i].name, cases[i].wrong);
        assert_string_equal(topic_says(cases[i].name, cases[i].value), says);
    }
    assert_string_equal(topic_says("no.such", "1"), "Unknown topic config name: no.such");
    char text[FAULT_BYTES];
    struct arg none = {.name = slice_of("retention.ms"), .kind = ARG_VOID};
    assert_false(topic_configs_check((struct args){&none, 1}, text));
    assert_string_equal(text, "Null value not supported for topic configs: retention.ms");
}

static void a_stream_is_a_topic_that_keeps_what_its_arguments_say(void **state)
{
    (void)state;
    struct topic_options options;
    struct arg stream[] = {text_arg("x-queue-type", "stream"), text_arg("x-max-age", "2h"),
                           number_arg("x-max-length-bytes", 5000),
                           number_arg("x-stream-max-segment-size-bytes", 777)};
    topic_options_read((struct args){stream, 4}, &options);
    assert_int_equal(options.retention_ms, 2 * 3600000);
    assert_int_equal(options.retention_bytes, 5000);
    assert_int_equal(options.segment_bytes, 777);
    topic_options_read((struct args){stream, 1}, &options);
    assert_int_equal(options.retention_ms, -1);
    assert_int_equal(options.retention_bytes, -1);
    struct arg odd[] = {text_arg("x-queue-type", "stream"), number_arg("x-max-age", 7),
                        text_arg("x-max-length-bytes", "many"),
                        number_arg("x-stream-max-segment-size-bytes", 0)};
    topic_options_read((struct args){odd, 4}, &options);
    assert_int_equal(options.retention_ms, -1);
    assert_int_equal(options.retention_bytes, -1);
    struct arg topic[] = {
        text_arg("retention.ms", "77"),       text_arg("retention.bytes", "88"),
        text_arg("max.message.bytes", "99"),  text_arg("segment.bytes", "111"),
        text_arg("segment.ms", "222"),        text_arg("message.timestamp.type", "LogAppendTime"),
        text_arg("cleanup.policy", "compact")};
    topic_options_read((struct args){topic, 7}, &options);
    assert_int_equal(options.retention_ms, 77);
    assert_int_equal(options.retention_bytes, 88);
    assert_int_equal(options.max_message_bytes, 99);
    assert_int_equal(options.segment_bytes, 111);
    assert_int_equal(options.segment_ms, 222);
    assert_true(options.log_append_time);
    assert_true(options.compact);
    assert_false(options.remove);
    topic[5] = text_arg("message.timestamp.type", "CreateTime");
    topic[6] = text_arg("cleanup.policy", "compact,delete");
    topic[0] = number_arg("retention.ms", 5); /* not as Kafka sends it */
    topic_options_read((struct args){topic, 7}, &options);
    assert_false(options.log_append_time);
    assert_true(options.compact);
    assert_true(options.remove);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_of_queues_have_their_bounds),
        cmocka_unit_test(texts_of_queues_are_among_those_known),
        cmocka_unit_test(what_is_of_the_wrong_type_is_told_which),
        cmocka_unit_test(arguments_are_printed_as_they_are),
        cmocka_unit_test(configurations_of_topics_are_as_kafka_has_them),
        cmocka_unit_test(a_stream_is_a_topic_that_keeps_what_its_arguments_say),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
