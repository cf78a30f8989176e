/* One row for each configuration of a topic, and the checks that follow from it. */
#include "face/kafka/topic_config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define NO_MIN  INT64_MIN
#define LONGEST "9223372036854775807"

const struct topic_config topic_configs[TOPIC_CONFIGS] = {
    {"cleanup.policy", CONFIG_LIST, "delete", "log.cleanup.policy", NO_MIN, "compact, delete",
     "What becomes of old records: deleted when retention is over, or compacted to the newest of "
     "each key."},
    {"compression.gzip.level", CONFIG_INT, "-1", "compression.gzip.level", NO_MIN, NULL,
     "Without effect: batches are kept as the producer compressed them."},
    {"compression.lz4.level", CONFIG_INT, "9", "compression.lz4.level", NO_MIN, NULL,
     "Without effect: batches are kept as the producer compressed them."},
    {"compression.type", CONFIG_STRING, "producer", "compression.type", NO_MIN,
     "uncompressed, zstd, lz4, snappy, gzip, producer",
     "Without effect: batches are kept as the producer compressed them."},
    {"compression.zstd.level", CONFIG_INT, "3", "compression.zstd.level", NO_MIN, NULL,
     "Without effect: batches are kept as the producer compressed them."},
    {"delete.retention.ms", CONFIG_LONG, "86400000", "log.cleaner.delete.retention.ms", 0, NULL,
     "How long tombstones are kept in compacted topics."},
    {"file.delete.delay.ms", CONFIG_LONG, "60000", "log.segment.delete.delay.ms", 0, NULL,
     "Without effect."},
    {"flush.messages", CONFIG_LONG, LONGEST, "log.flush.interval.messages", 1, NULL,
     "Without effect: how durable an acknowledgement is, is a setting of the broker."},
    {"flush.ms", CONFIG_LONG, LONGEST, "log.flush.interval.ms", 0, NULL,
     "Without effect: how durable an acknowledgement is, is a setting of the broker."},
    {"follower.replication.throttled.replicas", CONFIG_LIST, "", NULL, NO_MIN, NULL,
     "Without effect on a single node."},
    {"index.interval.bytes", CONFIG_INT, "4096", "log.index.interval.bytes", 0, NULL,
     "Without effect."},
    {"leader.replication.throttled.replicas", CONFIG_LIST, "", NULL, NO_MIN, NULL,
     "Without effect on a single node."},
    {"local.retention.bytes", CONFIG_LONG, "-2", "log.local.retention.bytes", -2, NULL,
     "Without effect: there is one tier."},
    {"local.retention.ms", CONFIG_LONG, "-2", "log.local.retention.ms", -2, NULL,
     "Without effect: there is one tier."},
    {"max.compaction.lag.ms", CONFIG_LONG, LONGEST, "log.cleaner.max.compaction.lag.ms", 1, NULL,
     "Without effect."},
    {"max.message.bytes", CONFIG_INT, "1048588", "message.max.bytes", 0, NULL,
     "The largest record batch that is taken."},
    {"message.timestamp.after.max.ms", CONFIG_LONG, LONGEST, "log.message.timestamp.after.max.ms",
     0, NULL, "Without effect."},
    {"message.timestamp.before.max.ms", CONFIG_LONG, LONGEST, "log.message.timestamp.before.max.ms",
     0, NULL, "Without effect."},
    {"message.timestamp.type", CONFIG_STRING, "CreateTime", "log.message.timestamp.type", NO_MIN,
     "CreateTime, LogAppendTime",
     "Whether a record's time is the producer's or that of its arrival."},
    {"min.cleanable.dirty.ratio", CONFIG_DOUBLE, "0.5", "log.cleaner.min.cleanable.ratio", 0, NULL,
     "Without effect."},
    {"min.compaction.lag.ms", CONFIG_LONG, "0", "log.cleaner.min.compaction.lag.ms", 0, NULL,
     "Without effect."},
    {"min.insync.replicas", CONFIG_INT, "1", "min.insync.replicas", 1, NULL,
     "Without effect on a single node."},
    {"preallocate", CONFIG_BOOLEAN, "false", "log.preallocate", NO_MIN, NULL, "Without effect."},
    {"remote.log.copy.disable", CONFIG_BOOLEAN, "false", NULL, NO_MIN, NULL,
     "Without effect: there is one tier."},
    {"remote.storage.enable", CONFIG_BOOLEAN, "false", NULL, NO_MIN, NULL,
     "Without effect: there is one tier."},
    {"retention.bytes", CONFIG_LONG, "-1", "log.retention.bytes", -1, NULL,
     "How many bytes of each partition are kept; -1 is no limit."},
    {"retention.ms", CONFIG_LONG, "604800000", "log.retention.ms", -1, NULL,
     "How long records are kept; -1 is for ever."},
    {"segment.bytes", CONFIG_INT, "1073741824", "log.segment.bytes", 14, NULL, "Without effect."},
    {"segment.index.bytes", CONFIG_INT, "10485760", "log.index.size.max.bytes", 4, NULL,
     "Without effect."},
    {"segment.jitter.ms", CONFIG_LONG, "0", "log.roll.jitter.ms", 0, NULL, "Without effect."},
    {"segment.ms", CONFIG_LONG, "604800000", "log.roll.ms", 1, NULL, "Without effect."},
    {"unclean.leader.election.enable", CONFIG_BOOLEAN, "false", "unclean.leader.election.enable",
     NO_MIN, NULL, "Without effect on a single node."},
};

const struct topic_config *topic_config_find(struct slice name)
{
    for (int i = 0; i < TOPIC_CONFIGS; i++)
        if (slice_is(name, topic_configs[i].name))
            return &topic_configs[i];
    return NULL;
}

static bool is_blank(uint8_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static struct slice trim(struct slice text)
{
    while (text.len && is_blank(text.data[0])) {
        text.data++;
        text.len--;
    }
    while (text.len && is_blank(text.data[text.len - 1]))
        text.len--;
    return text;
}

static bool number_parse(struct slice text, int64_t *out)
{
    bool negative = text.len && text.data[0] == '-';
    size_t at = text.len && (negative || text.data[0] == '+') ? 1 : 0;
    if (at == text.len)
        return false;
    uint64_t limit = (uint64_t)INT64_MAX + negative, value = 0;
    for (; at < text.len; at++) {
        unsigned digit = text.data[at] - (unsigned)'0';
        if (digit > 9 || value > (limit - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *out = negative ? (int64_t)(0 - value) : (int64_t)value;
    return true;
}

static bool double_parse(struct slice text, double *out)
{
    char copy[64], *end;
    if (text.len == 0 || text.len >= sizeof copy)
        return false;
    memcpy(copy, text.data, text.len);
    copy[text.len] = '\0';
    *out = strtod(copy, &end);
    return *end == '\0';
}

/* Is it one of those between ", "? */
static bool is_choice(struct slice text, const char *choices)
{
    for (const char *at = choices; *at;) {
        size_t len = strcspn(at, ",");
        if (slice_equal(text, slice_make(at, len)))
            return true;
        at += len;
        at += strspn(at, ", ");
    }
    return false;
}

static bool list_valid(struct slice list, const char *choices)
{
    const uint8_t *at = list.data, *end = list.data + list.len;
    while (at <= end && list.len) {
        const uint8_t *comma = memchr(at, ',', (size_t)(end - at));
        const uint8_t *stop = comma ? comma : end;
        if (!is_choice(trim(slice_make(at, (size_t)(stop - at))), choices))
            return false;
        at = stop + 1;
    }
    return true;
}

/* NULL: it is fine. */
static const char *value_problem(const struct topic_config *config, struct slice value, char *text,
                                 size_t text_bytes)
{
    int64_t number = 0;
    double fraction = 0;
    switch (config->type) {
    case CONFIG_BOOLEAN:
        return slice_is(value, "true") || slice_is(value, "false")
                   ? NULL
                   : "Expected value to be either true or false";
    case CONFIG_INT:
    case CONFIG_SHORT:
        if (!number_parse(value, &number) || number < INT32_MIN || number > INT32_MAX)
            return "Not a number of type INT";
        break;
    case CONFIG_LONG:
        if (!number_parse(value, &number))
            return "Not a number of type LONG";
        break;
    case CONFIG_DOUBLE:
        if (!double_parse(value, &fraction))
            return "Not a number of type DOUBLE";
        return fraction >= 0 && fraction <= 1 ? NULL : "Value must be between 0 and 1";
    case CONFIG_STRING:
        snprintf(text, text_bytes, "String must be one of: %s", config->choices);
        return is_choice(value, config->choices) ? NULL : text;
    case CONFIG_LIST:
        if (config->choices == NULL)
            return NULL;
        snprintf(text, text_bytes, "String must be one of: %s", config->choices);
        return list_valid(value, config->choices) ? NULL : text;
    }
    snprintf(text, text_bytes, "Value must be at least %" PRId64, config->min);
    return number < config->min ? text : NULL;
}

enum { SHOWN_BYTES_MAX = 200 };

/* For "%.*s": what comes from outside is not repeated at any length. */
static int shown(struct slice text)
{
    return (int)(text.len < SHOWN_BYTES_MAX ? text.len : SHOWN_BYTES_MAX);
}

bool topic_config_check(struct request *request, struct slice name, struct slice *value,
                        struct slice *problem)
{
    const struct topic_config *config = topic_config_find(name);
    if (config == NULL) {
        *problem = request_text(request, "Unknown topic config name: %.*s", shown(name),
                                (const char *)name.data);
        return false;
    }
    if (value->data == NULL) {
        *problem =
            request_text(request, "Null value not supported for topic configs: %s", config->name);
        return false;
    }
    char text[128];
    struct slice trimmed = trim(*value);
    const char *why = value_problem(config, trimmed, text, sizeof text);
    if (why == NULL) {
        *value = trimmed;
        return true;
    }
    *problem = request_text(request, "Invalid value %.*s for configuration %s: %s", shown(*value),
                            (const char *)value->data, config->name, why);
    return false;
}

/* What a topic has by other means than Kafka's configurations. */
static bool option_value(struct request *request, const struct topic *topic,
                         const struct topic_config *config, struct slice *out)
{
    int64_t value;
    if (strcmp(config->name, "retention.ms") == 0)
        value = topic->options.retention_ms;
    else if (strcmp(config->name, "retention.bytes") == 0)
        value = topic->options.retention_bytes;
    else
        return false;
    struct slice text = request_text(request, "%" PRId64, value);
    if (slice_is(text, config->value))
        return false;
    *out = text;
    return true;
}

struct slice topic_config_value(struct request *request, const struct topic *topic,
                                const struct topic_config *config, bool *own)
{
    struct slice value = slice_of(config->value);
    const struct arg *arg = topic ? args_find(topic->args, config->name) : NULL;
    *own = true;
    if (arg && arg->kind == ARG_TEXT) {
        value = arg->text;
        return request_copy(request, &value) ? value : slice_of("");
    }
    if (topic && option_value(request, topic, config, &value))
        return value;
    *own = false;
    if (strcmp(config->name, "max.message.bytes") == 0)
        return request_text(request, "%" PRIu32,
                            conn_config(request->kafka->conn)->max_batch_bytes);
    return value;
}
