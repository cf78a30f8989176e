/* Text that grows as it is written. Who writes does not look at memory: a text that failed takes
 * nothing more, and says so at the end. */
#include "face/http/http.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { CAPACITY_MIN = 4096, FORMAT_BYTES_MAX = 4096 };

static void put(struct text *text, const char *data, size_t len)
{
    if (text->failed || len == 0)
        return;
    if (text->capacity - text->len < len) {
        size_t capacity = text->capacity == 0 ? CAPACITY_MIN : text->capacity * 2;
        while (capacity - text->len < len)
            capacity *= 2;
        char *more = realloc(text->data, capacity);
        if (more == NULL) {
            text->failed = true;
            return;
        }
        text->data = more;
        text->capacity = capacity;
    }
    memcpy(text->data + text->len, data, len);
    text->len += len;
}

void text_put(struct text *text, const char *words)
{
    put(text, words, strlen(words));
}

void text_format(struct text *text, const char *format, ...)
{
    char line[FORMAT_BYTES_MAX];
    va_list arguments;
    va_start(arguments, format);
    int len = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (len < 0 || (size_t)len >= sizeof line)
        text->failed = true;
    else
        put(text, line, (size_t)len);
}

void text_put_label(struct text *text, const char *value)
{
    for (; *value != '\0'; value++) {
        if (*value == '\n')
            text_put(text, "\\n");
        else if (*value == '\\' || *value == '"')
            put(text, (const char[]){'\\', *value}, 2);
        else
            put(text, value, 1);
    }
}

void text_put_html(struct text *text, const char *value)
{
    for (; *value != '\0'; value++) {
        switch (*value) {
        case '<':
            text_put(text, "&lt;");
            break;
        case '>':
            text_put(text, "&gt;");
            break;
        case '&':
            text_put(text, "&amp;");
            break;
        case '"':
            text_put(text, "&quot;");
            break;
        default:
            put(text, value, 1);
        }
    }
}

void text_done(struct text *text)
{
    free(text->data);
    *text = (struct text){0};
}
