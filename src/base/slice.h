#ifndef WEIR_BASE_SLICE_H
#define WEIR_BASE_SLICE_H

/*
 * A slice borrows bytes that somebody else owns; whoever hands one out says for how long it holds.
 * Where a protocol tells null from empty, data == NULL is null and an empty slice has data != NULL.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct slice {
    const uint8_t *data;
    size_t len;
};

static inline struct slice slice_make(const void *data, size_t len)
{
    return (struct slice){.data = data, .len = len};
}

/* The bytes of a C string, without its end mark. */
static inline struct slice slice_of(const char *text)
{
    return (struct slice){.data = (const uint8_t *)text, .len = strlen(text)};
}

static inline bool slice_is_null(struct slice slice)
{
    return slice.data == NULL;
}

/* Same bytes; null equals empty. */
static inline bool slice_equal(struct slice a, struct slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

#endif
