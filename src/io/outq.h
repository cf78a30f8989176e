/* The output queue of one connection: bytes that were copied in and bytes inside referenced bufs,
 * in order, gathered for one writev. An empty queue holds no memory. One thread at a time.
 *
 * Memory comes in chunks from a pool that all queues of a loop share. In a chunk copied bytes grow
 * from the front and segment descriptions from the back, until they meet. */
#ifndef WEIR_IO_OUTQ_H
#define WEIR_IO_OUTQ_H

#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

enum {
    OUTQ_RESERVE_MAX = 64 << 10,
    OUTQ_SHARE_MIN = 512, /* fewer bytes are copied: cheaper than a segment of their own */
};

struct outq_chunk;

/* Chunks that are not in use, up to a limit, and how bufs are given up. */
struct outq_pool {
    struct outq_chunk *idle;
    uint32_t idle_count;
    uint64_t *account; /* bytes of chunks in queues are counted here; may be NULL */
    void (*release)(void *ctx, struct buf *buf); /* NULL: buf_unref */
    void *release_ctx;
};

struct outq {
    struct outq_chunk *first, *last;
    size_t bytes; /* queued and not yet consumed */
};

void outq_pool_done(struct outq_pool *pool);

/* Appends a copy. False when memory is exhausted: some of the bytes may be queued. */
bool outq_copy(struct outq *queue, struct outq_pool *pool, const void *data, size_t len);

/* Space for len (1 to OUTQ_RESERVE_MAX) bytes, or NULL when memory is exhausted. outq_commit(used)
 * must be the next call on this queue. */
uint8_t *outq_reserve(struct outq *queue, struct outq_pool *pool, size_t len);
void outq_commit(struct outq *queue, size_t used);

/* Appends bytes inside buf and takes over one reference. False when memory is exhausted: the
 * reference is released even so. */
bool outq_share(struct outq *queue, struct outq_pool *pool, struct buf *buf, const uint8_t *data,
                size_t len);

/* Fills parts with the first queued bytes; returns how many parts, sums their lengths in *bytes. */
int outq_gather(const struct outq *queue, struct iovec *parts, int max, size_t *bytes);

/* Drops the first `bytes` (<= queue->bytes), which were sent. */
void outq_consume(struct outq *queue, struct outq_pool *pool, size_t bytes);

/* Drops everything. */
void outq_clear(struct outq *queue, struct outq_pool *pool);

#endif
