/* A reference-counted block of bytes. It belongs to the shard (thread) that made it: references are
 * counted without atomics, so another shard may read the bytes while it holds a reference that was
 * taken for it, and gives that reference up by a message to `home`, never by buf_unref itself. */
#ifndef WEIR_BASE_BUF_H
#define WEIR_BASE_BUF_H

#include <stddef.h>
#include <stdint.h>

struct buf {
    uint32_t refs;
    uint32_t home; /* number of the shard that made it */
    size_t capacity;
    uint64_t *account; /* bytes held are counted here while the buf lives; may be NULL */
    uint8_t *data;     /* of the same allocation */
};

#define BUF_ALIGN 512u /* of the data of an aligned buf: a sector of a disk */

/* A buf of `capacity` bytes with one reference, or NULL when memory is exhausted. `account` (may
 * be NULL) grows by capacity now and shrinks by it when the last reference goes. */
struct buf *buf_create(size_t capacity, uint32_t home, uint64_t *account);
struct buf *buf_create_aligned(size_t capacity, uint32_t home, uint64_t *account);

static inline struct buf *buf_ref(struct buf *buf)
{
    buf->refs++;
    return buf;
}

/* Gives up one reference; frees at zero. NULL is allowed. */
void buf_unref(struct buf *buf);

#endif
