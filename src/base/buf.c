/* Reference-counted blocks: one allocation each, freed with the last reference. */
#include "base/buf.h"

#include <assert.h>
#include <stdlib.h>

struct buf *buf_create(size_t capacity, uint32_t home, uint64_t *account)
{
    if (capacity > SIZE_MAX - sizeof(struct buf))
        return NULL;
    struct buf *buf = malloc(sizeof *buf + capacity);
    if (buf == NULL)
        return NULL;
    buf->refs = 1;
    buf->home = home;
    buf->capacity = capacity;
    buf->account = account;
    if (account != NULL)
        *account += capacity;
    return buf;
}

void buf_unref(struct buf *buf)
{
    if (buf == NULL)
        return;
    assert(buf->refs > 0);
    if (--buf->refs > 0)
        return;
    if (buf->account != NULL)
        *buf->account -= buf->capacity;
    free(buf);
}
