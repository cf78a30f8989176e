/* Reference-counted blocks: one allocation each, freed with the last reference. */
#include "base/buf.h"

#include <assert.h>
#include <stdlib.h>

static struct buf *buf_init(void *memory, size_t head, size_t capacity, uint32_t home,
                            uint64_t *account)
{
    struct buf *buf = memory;
    if (buf == NULL)
        return NULL;
    *buf = (struct buf){.refs = 1,
                        .home = home,
                        .capacity = capacity,
                        .account = account,
                        .data = (uint8_t *)memory + head};
    if (account != NULL)
        *account += capacity;
    return buf;
}

struct buf *buf_create(size_t capacity, uint32_t home, uint64_t *account)
{
    size_t head = sizeof(struct buf);
    if (capacity > SIZE_MAX - head)
        return NULL;
    return buf_init(malloc(head + capacity), head, capacity, home, account);
}

struct buf *buf_create_aligned(size_t capacity, uint32_t home, uint64_t *account)
{
    if (capacity > SIZE_MAX - 2 * BUF_ALIGN)
        return NULL;
    size_t size = (BUF_ALIGN + capacity + BUF_ALIGN - 1) / BUF_ALIGN * BUF_ALIGN;
    return buf_init(aligned_alloc(BUF_ALIGN, size), BUF_ALIGN, capacity, home, account);
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
