/* Reference-counted blocks: one allocation each, freed with the last reference. */
#include "base/buf.h"

#include "base/huge.h"

#include <assert.h>
#include <stdlib.h>

static struct buf *buf_init(void *memory, size_t head, size_t capacity, uint32_t home,
                            uint64_t *account)
{
    struct buf *buf = memory;
    if (buf == NULL)
        return NULL;
    huge_wish(memory, head + capacity);
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

/* Not by aligned_alloc: glibc's asks for more than it then keeps, so that a block freed between two
 * others is too small for the next one. */
struct buf *buf_create_aligned(size_t capacity, uint32_t home, uint64_t *account)
{
    size_t most = sizeof(struct buf) + BUF_ALIGN - 1;
    if (capacity > SIZE_MAX - most)
        return NULL;
    uint8_t *memory = malloc(most + capacity);
    uintptr_t first = (uintptr_t)memory + most;
    return buf_init(memory, most - first % BUF_ALIGN, capacity, home, account);
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
