/*
 * Formats an event into a buffer on the stack and hands it to the sink as one line. A line that
 * grows too long is cut and says so with three dots; nothing else can fail.
 */
#include "base/log.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static const char CUT[] = "...\n";

static const char *const LEVEL_NAMES[LOG_LEVEL_COUNT] = {
    [LOG_ERROR] = "error",
    [LOG_WARN] = "warn",
    [LOG_INFO] = "info",
    [LOG_DEBUG] = "debug",
};

/* A line as it grows; once it is cut, nothing more is added. */
struct line {
    char text[LOG_LINE_BYTES_MAX];
    size_t len;
    bool cut;
};

static void put(struct line *line, const char *text, size_t len)
{
    /* Room for the cut mark is always kept, and the newline is not longer than it. */
    if (line->cut || len > sizeof(line->text) - line->len - (sizeof(CUT) - 1)) {
        line->cut = true;
        return;
    }
    memcpy(line->text + line->len, text, len);
    line->len += len;
}

static void put_text(struct line *line, const char *text)
{
    put(line, text, strlen(text));
}

static bool is_plain(uint8_t c)
{
    return c > ' ' && c < 0x7f && c != '"' && c != '=' && c != '\\';
}

static void put_escaped(struct line *line, uint8_t c)
{
    char hex[5];

    if (c == '"' || c == '\\') {
        put(line, (const char[]){'\\', (char)c}, 2);
    } else if (c == '\n') {
        put(line, "\\n", 2);
    } else if (c < ' ' || c >= 0x7f) {
        snprintf(hex, sizeof(hex), "\\x%02x", c);
        put(line, hex, 4);
    } else {
        put(line, (const char *)&c, 1);
    }
}

static void put_value(struct line *line, struct slice value)
{
    bool plain = value.len > 0;

    for (size_t i = 0; plain && i < value.len; i++)
        plain = is_plain(value.data[i]);
    if (plain) {
        put(line, (const char *)value.data, value.len);
        if (!line->cut)
            return;
        /* Too long to fit whole: what fits is worth more than nothing. */
        line->cut = false;
        for (size_t i = 0; !line->cut; i++)
            put(line, (const char *)value.data + i, 1);
        return;
    }
    put(line, "\"", 1);
    for (size_t i = 0; i < value.len && !line->cut; i++)
        put_escaped(line, value.data[i]);
    put(line, "\"", 1);
}

static void put_time(struct line *line, int64_t ms)
{
    time_t seconds = (time_t)(ms / 1000);
    struct tm tm;
    char text[64];

    if (ms < 0 || gmtime_r(&seconds, &tm) == NULL) {
        put_text(line, "time=unknown");
        return;
    }
    strftime(text, sizeof(text), "time=%Y-%m-%dT%H:%M:%S", &tm);
    put_text(line, text);
    snprintf(text, sizeof(text), ".%03dZ", (int)(ms % 1000));
    put_text(line, text);
}

static void put_field(struct line *line, const struct log_field *field)
{
    char number[24];

    put(line, " ", 1);
    put_text(line, field->key);
    put(line, "=", 1);
    switch (field->kind) {
    case LOG_BYTES:
        put_value(line, field->bytes);
        break;
    case LOG_UNSIGNED:
        snprintf(number, sizeof(number), "%" PRIu64, field->u);
        put_text(line, number);
        break;
    case LOG_SIGNED:
        snprintf(number, sizeof(number), "%" PRId64, field->i);
        put_text(line, number);
        break;
    case LOG_END:
        break;
    }
}

void log_event(const struct log *log, enum log_level level, const char *event,
               const struct log_field *fields)
{
    struct line line;

    assert(level < LOG_LEVEL_COUNT);
    if (!log_wants(log, level))
        return;

    line.len = 0;
    line.cut = false;
    put_time(&line, log->clock(log->context));
    put_text(&line, " level=");
    put_text(&line, LEVEL_NAMES[level]);
    put_text(&line, " event=");
    put_value(&line, slice_of(event));
    for (; fields != NULL && fields->kind != LOG_END; fields++)
        put_field(&line, fields);

    if (line.cut) {
        memcpy(line.text + line.len, CUT, sizeof(CUT) - 1);
        line.len += sizeof(CUT) - 1;
    } else {
        line.text[line.len++] = '\n';
    }
    log->sink(log->context, slice_make(line.text, line.len));
}

int64_t log_clock_system(void *context)
{
    struct timespec now;

    (void)context;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void log_stderr(void *context, struct slice line)
{
    (void)context;
    /* A log that cannot be written has nowhere to say so. */
    if (write(STDERR_FILENO, line.data, line.len) < 0)
        return;
}

enum err log_level_parse(const char *text, enum log_level *level)
{
    for (int i = 0; i < LOG_LEVEL_COUNT; i++) {
        if (strcmp(text, LEVEL_NAMES[i]) == 0) {
            *level = (enum log_level)i;
            return ERR_NONE;
        }
    }
    return ERR_INVALID;
}

const char *log_level_name(enum log_level level)
{
    assert(level < LOG_LEVEL_COUNT);
    return LEVEL_NAMES[level];
}
