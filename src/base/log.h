/*
 * One line an event, key=value:
 *
 *   time=2026-11-20T23:00:00.123Z level=info event=listen face=amqp addr=127.0.0.1:5672
 *
 * A value is quoted when it holds anything but plain characters, and whatever is not printable is
 * escaped, so that nothing a peer sends can forge a line. shard, server and cli log; libraries
 * return errors instead. A struct log is read-only once it is set up, so threads may share one when
 * its sink and clock allow it; log_stderr writes each line with a single write.
 */
#ifndef WEIR_BASE_LOG_H
#define WEIR_BASE_LOG_H

#include "base/slice.h"
#include "gen/err.h"

#include <stdint.h>

/* The least important level that is written; each level includes those before it. */
enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG, LOG_LEVEL_COUNT };

/* The longest line, newline included; a longer one ends in "...". Fits one atomic pipe write. */
#define LOG_LINE_BYTES_MAX 2048

struct log {
    enum log_level level;
    /* Milliseconds since 1970, UTC. */
    int64_t (*clock)(void *context);
    /* Takes one whole line, newline included; the bytes are borrowed for the call. */
    void (*sink)(void *context, struct slice line);
    void *context;
};

enum log_kind { LOG_END, LOG_BYTES, LOG_UNSIGNED, LOG_SIGNED };

struct log_field {
    const char *key; /* a plain word */
    enum log_kind kind;
    union {
        struct slice bytes;
        uint64_t u;
        int64_t i;
    };
};

/*
 * Writes one event, a few words of ours, with its fields up to log_end:
 *
 *   log_event(log, LOG_WARN, "connection refused", (const struct log_field[]){
 *       log_text("peer", peer), log_uint("connections", count), log_end()});
 *
 * fields may be NULL. Does nothing when the level is not written.
 */
void log_event(const struct log *log, enum log_level level, const char *event,
               const struct log_field *fields);

/* Is this level written? For fields that are costly to gather. */
static inline bool log_wants(const struct log *log, enum log_level level)
{
    return level <= log->level;
}

/* A clock and a sink for struct log: the system's time, and standard error. */
int64_t log_clock_system(void *context);
void log_stderr(void *context, struct slice line);

/* "error", "warn", "info", "debug"; ERR_INVALID otherwise. */
__attribute__((warn_unused_result)) enum err log_level_parse(const char *text,
                                                             enum log_level *level);
const char *log_level_name(enum log_level level);

static inline struct log_field log_slice(const char *key, struct slice value)
{
    return (struct log_field){.key = key, .kind = LOG_BYTES, .bytes = value};
}

/* NULL is written as an empty value. */
static inline struct log_field log_text(const char *key, const char *value)
{
    return log_slice(key, value ? slice_of(value) : slice_make("", 0));
}

static inline struct log_field log_uint(const char *key, uint64_t value)
{
    return (struct log_field){.key = key, .kind = LOG_UNSIGNED, .u = value};
}

static inline struct log_field log_int(const char *key, int64_t value)
{
    return (struct log_field){.key = key, .kind = LOG_SIGNED, .i = value};
}

static inline struct log_field log_end(void)
{
    return (struct log_field){.kind = LOG_END};
}

#endif
