/* Arguments of queues and topics: which values are allowed, in the words of the broker whose
 * arguments they are, and what they come to. */
#include "core/catalog_inside.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const int64_t EXPIRY_MS_MAX = UINT32_MAX; /* as RabbitMQ's timers have it */

/* ---- Printing ---- */

const char *arg_type_name(const struct arg *arg)
{
    switch (arg->wire_type) {
    case 'S':
        return "longstr";
    case 'I':
        return "signedint";
    case 'i':
        return "unsignedint";
    case 'l':
    case 'L':
        return "long";
    case 's':
        return "short";
    case 'u':
        return "unsignedshort";
    case 'b':
        return "byte";
    case 'B':
        return "unsignedbyte";
    case 't':
        return "bool";
    case 'T':
        return "timestamp";
    case 'd':
        return "double";
    case 'f':
        return "float";
    case 'D':
        return "decimal";
    case 'F':
        return "table";
    case 'A':
        return "array";
    case 'x':
        return "binary";
    case 'V':
        return "void";
    default:
        return arg->kind == ARG_INT ? "long" : arg->kind == ARG_BOOL ? "bool" : "longstr";
    }
}

void arg_print(const struct arg *arg, char *text, size_t room)
{
    double number;
    switch (arg->kind) {
    case ARG_VOID:
        snprintf(text, room, "undefined");
        return;
    case ARG_BOOL:
        snprintf(text, room, "%s", arg->number != 0 ? "true" : "false");
        return;
    case ARG_INT:
    case ARG_TIME:
        snprintf(text, room, "%" PRId64, arg->number);
        return;
    case ARG_DOUBLE:
        memcpy(&number, &arg->number, sizeof number);
        snprintf(text, room, "%.17g", number);
        return;
    case ARG_TEXT:
    case ARG_BYTES:
        snprintf(text, room, "%.*s", (int)(arg->text.len < room ? arg->text.len : room),
                 (const char *)arg->text.data);
        return;
    case ARG_OTHER:
        snprintf(text, room, "%s", arg->wire_type == 'D' ? "decimal" : "[...]");
        return;
    }
}

/* ---- Queues ---- */

static bool is_text(const struct arg *arg, const char *text)
{
    return arg->kind == ARG_TEXT && slice_equal(arg->text, slice_of(text));
}

static bool fault_type(const struct arg *arg, char *text)
{
    snprintf(text, FAULT_BYTES, "{unacceptable_type,%s}", arg_type_name(arg));
    return false;
}

static bool fault_value(const char *what, const struct arg *arg, char *text)
{
    snprintf(text, FAULT_BYTES, "{%s,%" PRId64 "}", what, arg->number);
    return false;
}

static bool fault(const char *what, char *text)
{
    snprintf(text, FAULT_BYTES, "%s", what);
    return false;
}

static bool check_int(const struct arg *arg, char *text)
{
    if (arg->kind == ARG_INT)
        return true;
    snprintf(text, FAULT_BYTES, "\"expected integer, got %s\"", arg_type_name(arg));
    return false;
}

static bool check_count(struct args args, const struct arg *arg, char *text)
{
    (void)args;
    if (!check_int(arg, text))
        return false;
    return arg->number >= 0 ? true : fault_value("value_negative", arg, text);
}

static bool check_ttl(struct args args, const struct arg *arg, char *text)
{
    if (!check_count(args, arg, text))
        return false;
    return arg->number <= EXPIRY_MS_MAX ? true : fault_value("value_too_big", arg, text);
}

static bool check_expires(struct args args, const struct arg *arg, char *text)
{
    if (!check_int(arg, text))
        return false;
    return arg->number == 0 ? fault_value("value_zero", arg, text) : check_ttl(args, arg, text);
}

static bool check_priority(struct args args, const struct arg *arg, char *text)
{
    if (!check_count(args, arg, text))
        return false;
    return arg->number <= 255 ? true : fault_value("max_value_exceeded", arg, text);
}

static bool check_limit(struct args args, const struct arg *arg, char *text)
{
    (void)args;
    if (!check_int(arg, text))
        return false;
    return arg->number >= -1 ? true : fault_value("value_negative", arg, text);
}

static bool check_text(struct args args, const struct arg *arg, char *text)
{
    (void)args;
    return arg->kind == ARG_TEXT ? true : fault_type(arg, text);
}

static bool check_bool(struct args args, const struct arg *arg, char *text)
{
    (void)args;
    return arg->kind == ARG_BOOL ? true : fault_type(arg, text);
}

static bool check_dead_letter_key(struct args args, const struct arg *arg, char *text)
{
    if (arg->kind != ARG_TEXT)
        return fault_type(arg, text);
    return args_find(args, "x-dead-letter-exchange") != NULL
               ? true
               : fault("routing_key_but_no_dlx_defined", text);
}

static bool check_strategy(struct args args, const struct arg *arg, char *text)
{
    if (!check_text(args, arg, text))
        return false;
    bool known = is_text(arg, "at-most-once") || is_text(arg, "at-least-once");
    return known ? true : fault("invalid_dlx_strategy", text);
}

static bool check_overflow(struct args args, const struct arg *arg, char *text)
{
    if (!check_text(args, arg, text))
        return false;
    bool known = is_text(arg, "drop-head") || is_text(arg, "reject-publish") ||
                 is_text(arg, "reject-publish-dlx");
    return known ? true : fault("invalid_overflow", text);
}

static bool check_mode(struct args args, const struct arg *arg, char *text)
{
    if (!check_text(args, arg, text))
        return false;
    bool known = is_text(arg, "default") || is_text(arg, "lazy");
    return known ? true : fault("invalid_queue_mode", text);
}

static bool check_type(struct args args, const struct arg *arg, char *text)
{
    if (!check_text(args, arg, text))
        return false;
    if (is_text(arg, "classic") || is_text(arg, "quorum") || is_text(arg, "stream"))
        return true;
    char value[200];
    arg_print(arg, value, sizeof value);
    snprintf(text, FAULT_BYTES, "\"unsupported queue type '%s'\"", value);
    return false;
}

/* "7D" and its like, in milliseconds; -1 when it is none. */
static int64_t parse_age(struct slice age)
{
    if (age.len < 2 || age.len > 12)
        return -1;
    int64_t number = 0;
    for (size_t i = 0; i + 1 < age.len; i++) {
        if (age.data[i] < '0' || age.data[i] > '9')
            return -1;
        number = number * 10 + (age.data[i] - '0');
    }
    static const struct {
        char unit;
        int64_t ms;
    } units[] = {
        {'s', 1000},
        {'m', 60000},
        {'h', 3600000},
        {'D', 86400000},
        {'M', 30 * INT64_C(86400000)},
        {'Y', 365 * INT64_C(86400000)},
    };
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (age.data[age.len - 1] == (uint8_t)units[i].unit)
            return number > 0 && number <= INT64_MAX / units[i].ms ? number * units[i].ms : -1;
    }
    return -1;
}

static bool check_age(struct args args, const struct arg *arg, char *text)
{
    if (!check_text(args, arg, text))
        return false;
    return parse_age(arg->text) > 0 ? true : fault("invalid_max_age", text);
}

static const struct {
    const char *name;
    bool (*check)(struct args args, const struct arg *arg, char *text);
} queue_args[] = {
    {"x-queue-type", check_type},
    {"x-expires", check_expires},
    {"x-message-ttl", check_ttl},
    {"x-dead-letter-exchange", check_text},
    {"x-dead-letter-routing-key", check_dead_letter_key},
    {"x-dead-letter-strategy", check_strategy},
    {"x-max-length", check_count},
    {"x-max-length-bytes", check_count},
    {"x-max-in-memory-length", check_count},
    {"x-max-in-memory-bytes", check_count},
    {"x-max-priority", check_priority},
    {"x-overflow", check_overflow},
    {"x-queue-mode", check_mode},
    {"x-queue-version", check_count},
    {"x-single-active-consumer", check_bool},
    {"x-delivery-limit", check_limit},
    {"x-quorum-initial-group-size", check_count},
    {"x-quorum-target-group-size", check_count},
    {"x-queue-leader-locator", check_text},
    {"x-max-age", check_age},
    {"x-stream-max-segment-size-bytes", check_count},
    {"x-stream-filter-size-bytes", check_count},
    {"x-initial-cluster-size", check_count},
};

const char *const queue_args_compared[] = {
    "x-expires",
    "x-message-ttl",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-overflow",
    "x-queue-mode",
    "x-queue-version",
    "x-single-active-consumer",
    "x-delivery-limit",
    "x-queue-type",
    "x-max-age",
    "x-stream-max-segment-size-bytes",
    NULL,
};

bool queue_args_check(struct args args, const char **name, char text[FAULT_BYTES])
{
    for (size_t i = 0; i < sizeof queue_args / sizeof *queue_args; i++) {
        const struct arg *arg = args_find(args, queue_args[i].name);
        if (arg != NULL && !queue_args[i].check(args, arg, text)) {
            *name = queue_args[i].name;
            return false;
        }
    }
    return true;
}

static int64_t number_of(struct args args, const char *name, int64_t least, int64_t most)
{
    const struct arg *arg = args_find(args, name);
    bool set = arg != NULL && arg->kind == ARG_INT && arg->number >= least && arg->number <= most;
    return set ? arg->number : -1;
}

static enum queue_overflow overflow_of(struct args args)
{
    const struct arg *arg = args_find(args, "x-overflow");
    if (arg != NULL && is_text(arg, "reject-publish"))
        return OVERFLOW_REJECT_PUBLISH;
    if (arg != NULL && is_text(arg, "reject-publish-dlx"))
        return OVERFLOW_REJECT_PUBLISH_DLX;
    return OVERFLOW_DROP_HEAD;
}

void catalog_queue_options(const struct queue_def *queue, struct queue_options *out)
{
    struct args args = queue->args;
    *out = (struct queue_options){
        .message_ttl_ms = -1,
        .expires_ms = -1,
        .max_length = -1,
        .max_length_bytes = -1,
        .max_priority = -1,
        .delivery_limit = -1,
    };
    if (args.count == 0)
        return;
    out->message_ttl_ms = number_of(args, "x-message-ttl", 0, EXPIRY_MS_MAX);
    out->expires_ms = number_of(args, "x-expires", 1, EXPIRY_MS_MAX);
    out->max_length = number_of(args, "x-max-length", 0, INT64_MAX);
    out->max_length_bytes = number_of(args, "x-max-length-bytes", 0, INT64_MAX);
    out->max_priority = (int32_t)number_of(args, "x-max-priority", 0, 255);
    out->delivery_limit = number_of(args, "x-delivery-limit", 0, INT64_MAX);
    out->overflow = overflow_of(args);
    const struct arg *single = args_find(args, "x-single-active-consumer");
    out->single_active_consumer = single != NULL && single->kind == ARG_BOOL && single->number != 0;
    struct slice exchange, key;
    out->dead_letters = catalog_queue_dead_letters(queue, &exchange, &key);
}

bool catalog_queue_dead_letters(const struct queue_def *queue, struct slice *exchange,
                                struct slice *key)
{
    const struct arg *given = args_find(queue->args, "x-dead-letter-exchange");
    if (given == NULL || given->kind != ARG_TEXT)
        return false;
    *exchange = given->text;
    const struct arg *by = args_find(queue->args, "x-dead-letter-routing-key");
    *key = by != NULL && by->kind == ARG_TEXT ? by->text : (struct slice){0};
    return true;
}

/* ---- Topics ---- */

enum config_kind {
    CONFIG_LONG,
    CONFIG_INT,
    CONFIG_DOUBLE,
    CONFIG_BOOL,
    CONFIG_WORD,  /* one of words */
    CONFIG_WORDS, /* some of words, separated by commas */
    CONFIG_TEXT,
};

struct config {
    const char *name;
    enum config_kind kind;
    int64_t least;
    const char *words; /* as Kafka lists them */
};

static const struct config topic_configs[] = {
    {"cleanup.policy", CONFIG_WORDS, 0, "compact, delete"},
    {"compression.gzip.level", CONFIG_INT, -1, NULL},
    {"compression.lz4.level", CONFIG_INT, 1, NULL},
    {"compression.type", CONFIG_WORD, 0, "uncompressed, zstd, lz4, snappy, gzip, producer"},
    {"compression.zstd.level", CONFIG_INT, INT32_MIN, NULL},
    {"delete.retention.ms", CONFIG_LONG, 0, NULL},
    {"file.delete.delay.ms", CONFIG_LONG, 0, NULL},
    {"flush.messages", CONFIG_LONG, 1, NULL},
    {"flush.ms", CONFIG_LONG, 0, NULL},
    {"follower.replication.throttled.replicas", CONFIG_TEXT, 0, NULL},
    {"index.interval.bytes", CONFIG_INT, 0, NULL},
    {"leader.replication.throttled.replicas", CONFIG_TEXT, 0, NULL},
    {"local.retention.bytes", CONFIG_LONG, -2, NULL},
    {"local.retention.ms", CONFIG_LONG, -2, NULL},
    {"max.compaction.lag.ms", CONFIG_LONG, 1, NULL},
    {"max.message.bytes", CONFIG_INT, 0, NULL},
    {"message.downconversion.enable", CONFIG_BOOL, 0, NULL},
    {"message.format.version", CONFIG_TEXT, 0, NULL},
    {"message.timestamp.after.max.ms", CONFIG_LONG, 0, NULL},
    {"message.timestamp.before.max.ms", CONFIG_LONG, 0, NULL},
    {"message.timestamp.difference.max.ms", CONFIG_LONG, 0, NULL},
    {"message.timestamp.type", CONFIG_WORD, 0, "CreateTime, LogAppendTime"},
    {"min.cleanable.dirty.ratio", CONFIG_DOUBLE, 0, NULL},
    {"min.compaction.lag.ms", CONFIG_LONG, 0, NULL},
    {"min.insync.replicas", CONFIG_INT, 1, NULL},
    {"preallocate", CONFIG_BOOL, 0, NULL},
    {"remote.log.copy.disable", CONFIG_BOOL, 0, NULL},
    {"remote.log.delete.on.disable", CONFIG_BOOL, 0, NULL},
    {"remote.storage.enable", CONFIG_BOOL, 0, NULL},
    {"retention.bytes", CONFIG_LONG, -1, NULL},
    {"retention.ms", CONFIG_LONG, -1, NULL},
    {"segment.bytes", CONFIG_INT, 14, NULL},
    {"segment.index.bytes", CONFIG_INT, 4, NULL},
    {"segment.jitter.ms", CONFIG_LONG, 0, NULL},
    {"segment.ms", CONFIG_LONG, 1, NULL},
    {"unclean.leader.election.enable", CONFIG_BOOL, 0, NULL},
};

/* The text with its blanks cut off, as a C string; false when it is too long for any number. */
static bool number_text(struct slice text, char out[40])
{
    while (text.len > 0 && text.data[0] == ' ')
        text = slice_make(text.data + 1, text.len - 1);
    while (text.len > 0 && text.data[text.len - 1] == ' ')
        text.len--;
    if (text.len == 0 || text.len >= 40 || memchr(text.data, 0, text.len) != NULL)
        return false;
    memcpy(out, text.data, text.len);
    out[text.len] = 0;
    return true;
}

static bool parse_long(struct slice text, int64_t *out)
{
    char number[40];
    if (!number_text(text, number))
        return false;
    bool negative = number[0] == '-';
    const char *at = number + (negative || number[0] == '+');
    uint64_t value = 0, most = (uint64_t)INT64_MAX + negative;
    if (*at == 0)
        return false;
    for (; *at != 0; at++) {
        if (*at < '0' || *at > '9')
            return false;
        uint64_t digit = (uint64_t)(*at - '0');
        if (value > (most - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *out = negative ? (int64_t)(0 - value) : (int64_t)value;
    return true;
}

/* Is the text one of the words of the list? */
static bool is_listed(struct slice text, const char *words)
{
    for (const char *at = words; *at != 0;) {
        size_t len = strcspn(at, ",");
        if (slice_equal(text, slice_make(at, len)))
            return true;
        at += len;
        at += strspn(at, ", ");
    }
    return false;
}

static bool are_listed(struct slice text, const char *words)
{
    while (text.len > 0) {
        const uint8_t *comma = memchr(text.data, ',', text.len);
        size_t len = comma ? (size_t)(comma - text.data) : text.len;
        struct slice word = slice_make(text.data, len);
        while (word.len > 0 && word.data[0] == ' ')
            word = slice_make(word.data + 1, word.len - 1);
        while (word.len > 0 && word.data[word.len - 1] == ' ')
            word.len--;
        if (!is_listed(word, words))
            return false;
        text = slice_make(text.data + len + (comma != NULL), text.len - len - (comma != NULL));
    }
    return true;
}

/* NULL when the value fits, else what is wrong with it. */
static const char *config_fault(const struct config *config, struct slice value, char text[200])
{
    int64_t number;
    char digits[40], *end;
    double ratio;
    switch (config->kind) {
    case CONFIG_TEXT:
        return NULL;
    case CONFIG_LONG:
    case CONFIG_INT:
        if (!parse_long(value, &number) ||
            (config->kind == CONFIG_INT && (number > INT32_MAX || number < INT32_MIN))) {
            snprintf(text, 200, "Not a number of type %s",
                     config->kind == CONFIG_INT ? "INT" : "LONG");
            return text;
        }
        snprintf(text, 200, "Value must be at least %" PRId64, config->least);
        return number < config->least ? text : NULL;
    case CONFIG_DOUBLE:
        if (!number_text(value, digits) || (ratio = strtod(digits, &end), *end != 0))
            return "Not a number of type DOUBLE";
        return ratio < 0   ? "Value must be at least 0"
               : ratio > 1 ? "Value must be no more than 1"
                           : NULL;
    case CONFIG_BOOL:
        return is_listed(value, "true, false, TRUE, FALSE, True, False")
                   ? NULL
                   : "Expected value to be either true or false";
    case CONFIG_WORD:
    case CONFIG_WORDS:
        snprintf(text, 200, "String must be one of: %s", config->words);
        return (config->kind == CONFIG_WORD ? is_listed(value, config->words)
                                            : are_listed(value, config->words))
                   ? NULL
                   : text;
    }
    return NULL;
}

static bool check_config(const struct arg *arg, char text[FAULT_BYTES])
{
    const struct config *config = NULL;
    for (size_t i = 0; i < sizeof topic_configs / sizeof *topic_configs; i++) {
        if (slice_equal(arg->name, slice_of(topic_configs[i].name)))
            config = &topic_configs[i];
    }
    if (config == NULL) {
        snprintf(text, FAULT_BYTES, "Unknown topic config name: %.*s",
                 (int)(arg->name.len < 250 ? arg->name.len : 250), (const char *)arg->name.data);
        return false;
    }
    if (arg->kind != ARG_TEXT) {
        snprintf(text, FAULT_BYTES, "Null value not supported for topic configs: %s", config->name);
        return false;
    }
    char reason[200];
    const char *wrong = config_fault(config, arg->text, reason);
    if (wrong == NULL)
        return true;
    snprintf(text, FAULT_BYTES, "Invalid value %.*s for configuration %s: %s",
             (int)(arg->text.len < 150 ? arg->text.len : 150), (const char *)arg->text.data,
             config->name, wrong);
    return false;
}

bool topic_configs_check(struct args args, char text[FAULT_BYTES])
{
    for (uint32_t i = 0; i < args.count; i++) {
        if (!check_config(&args.items[i], text))
            return false;
    }
    return true;
}

static void read_long(struct args args, const char *name, int64_t *out)
{
    const struct arg *arg = args_find(args, name);
    int64_t number;
    if (arg != NULL && arg->kind == ARG_TEXT && parse_long(arg->text, &number))
        *out = number;
}

/* An AMQP stream: kept for ever unless it says otherwise. */
static void stream_options_read(struct args args, struct topic_options *out)
{
    out->retention_ms = -1;
    out->max_message_bytes = INT32_MAX;
    const struct arg *age = args_find(args, "x-max-age");
    if (age != NULL && age->kind == ARG_TEXT)
        out->retention_ms = parse_age(age->text);
    out->retention_bytes = number_of(args, "x-max-length-bytes", 0, INT64_MAX);
    int64_t segment = number_of(args, "x-stream-max-segment-size-bytes", 1, INT64_MAX);
    if (segment > 0)
        out->segment_bytes = segment;
}

void topic_options_read(struct args args, struct topic_options *out)
{
    static const int64_t week_ms = INT64_C(7) * 86400000;
    *out = (struct topic_options){
        .retention_ms = week_ms,
        .retention_bytes = -1,
        .max_message_bytes = 1048588,
        .segment_bytes = INT64_C(1) << 30,
        .segment_ms = week_ms,
        .remove = true,
    };
    if (args.count == 0)
        return;
    if (args_find(args, "x-queue-type") != NULL) {
        stream_options_read(args, out);
        return;
    }
    read_long(args, "retention.ms", &out->retention_ms);
    read_long(args, "retention.bytes", &out->retention_bytes);
    read_long(args, "max.message.bytes", &out->max_message_bytes);
    read_long(args, "segment.bytes", &out->segment_bytes);
    read_long(args, "segment.ms", &out->segment_ms);
    const struct arg *time = args_find(args, "message.timestamp.type");
    out->log_append_time = time != NULL && is_text(time, "LogAppendTime");
    const struct arg *policy = args_find(args, "cleanup.policy");
    if (policy != NULL && policy->kind == ARG_TEXT) {
        out->compact = memmem(policy->text.data, policy->text.len, "compact", 7) != NULL;
        out->remove = memmem(policy->text.data, policy->text.len, "delete", 6) != NULL;
    }
}
