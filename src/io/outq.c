/* A chunk is one allocation: header, data, and at its end the segments, the first one last. A
 * segment is a run of bytes to be sent, inside the chunk or inside a buf. The last segment grows
 * while copied bytes follow each other, so a turn of small answers is one segment. */
#include "io/outq.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    CHUNK_BYTES = 16 << 10,
    CHUNK_BYTES_LARGE = OUTQ_RESERVE_MAX + (4 << 10),
    LARGE_FROM = 64 << 10, /* a queue this long grows by large chunks */
    IDLE_MAX = 16,         /* chunks (of the small size) that a pool keeps */
};

struct segment {
    const uint8_t *data;
    size_t len;
    struct buf *buf; /* NULL: copied bytes */
};

struct outq_chunk {
    struct outq_chunk *next;
    uint32_t capacity;
    uint32_t used;          /* data bytes from the front */
    uint32_t segments;      /* how many stand at the back */
    uint32_t segments_sent; /* of these */
    _Alignas(struct segment) uint8_t data[];
};

static struct segment *segment_at(const struct outq_chunk *chunk, uint32_t index)
{
    return (struct segment *)(void *)(chunk->data + chunk->capacity) - 1 - index;
}

static size_t chunk_room(const struct outq_chunk *chunk)
{
    return chunk->capacity - chunk->used - chunk->segments * sizeof(struct segment);
}

static struct outq_chunk *chunk_take(struct outq_pool *pool, size_t capacity)
{
    struct outq_chunk *chunk = pool->idle;
    if (capacity == CHUNK_BYTES && chunk != NULL) {
        pool->idle = chunk->next;
        pool->idle_count--;
    } else {
        chunk = malloc(sizeof *chunk + capacity);
        if (chunk == NULL)
            return NULL;
    }
    *chunk = (struct outq_chunk){.capacity = (uint32_t)capacity};
    if (pool->account != NULL)
        *pool->account += capacity;
    return chunk;
}

static void chunk_give(struct outq_pool *pool, struct outq_chunk *chunk)
{
    if (pool->account != NULL)
        *pool->account -= chunk->capacity;
    if (chunk->capacity != CHUNK_BYTES || pool->idle_count == IDLE_MAX) {
        free(chunk);
        return;
    }
    chunk->next = pool->idle;
    pool->idle = chunk;
    pool->idle_count++;
}

void outq_pool_done(struct outq_pool *pool)
{
    while (pool->idle != NULL) {
        struct outq_chunk *chunk = pool->idle;
        pool->idle = chunk->next;
        free(chunk);
    }
    pool->idle_count = 0;
}

/* Makes the last chunk one with room for `need` bytes. */
static bool room_make(struct outq *queue, struct outq_pool *pool, size_t need)
{
    if (queue->last != NULL && chunk_room(queue->last) >= need)
        return true;
    bool large = need > CHUNK_BYTES || queue->bytes >= LARGE_FROM;
    struct outq_chunk *chunk = chunk_take(pool, large ? CHUNK_BYTES_LARGE : CHUNK_BYTES);
    if (chunk == NULL)
        return false;
    if (queue->last != NULL)
        queue->last->next = chunk;
    else
        queue->first = chunk;
    queue->last = chunk;
    return true;
}

uint8_t *outq_reserve(struct outq *queue, struct outq_pool *pool, size_t len)
{
    assert(len > 0 && len <= OUTQ_RESERVE_MAX);
    if (!room_make(queue, pool, len + sizeof(struct segment)))
        return NULL;
    return queue->last->data + queue->last->used;
}

void outq_commit(struct outq *queue, size_t used)
{
    struct outq_chunk *chunk = queue->last;
    assert(chunk != NULL && used <= chunk_room(chunk));
    if (used == 0)
        return;
    const uint8_t *data = chunk->data + chunk->used;
    chunk->used += (uint32_t)used;
    queue->bytes += used;
    if (chunk->segments > chunk->segments_sent) {
        struct segment *last = segment_at(chunk, chunk->segments - 1);
        if (last->data + last->len == data) {
            last->len += used;
            return;
        }
    }
    assert(chunk_room(chunk) >= sizeof(struct segment));
    *segment_at(chunk, chunk->segments++) = (struct segment){.data = data, .len = used};
}

bool outq_copy(struct outq *queue, struct outq_pool *pool, const void *data, size_t len)
{
    const uint8_t *from = data;
    while (len > 0) {
        size_t most = queue->last == NULL ? 0 : chunk_room(queue->last);
        most = most <= sizeof(struct segment) ? 0 : most - sizeof(struct segment);
        if (most == 0)
            most = OUTQ_RESERVE_MAX;
        size_t part = len < most ? len : most;
        uint8_t *into = outq_reserve(queue, pool, part);
        if (into == NULL)
            return false;
        memcpy(into, from, part);
        outq_commit(queue, part);
        from += part;
        len -= part;
    }
    return true;
}

static void buf_release(struct outq_pool *pool, struct buf *buf)
{
    if (pool->release != NULL)
        pool->release(pool->release_ctx, buf);
    else
        buf_unref(buf);
}

bool outq_share(struct outq *queue, struct outq_pool *pool, struct buf *buf, const uint8_t *data,
                size_t len)
{
    if (len < OUTQ_SHARE_MIN || !room_make(queue, pool, sizeof(struct segment))) {
        bool fits = len < OUTQ_SHARE_MIN && outq_copy(queue, pool, data, len);
        buf_release(pool, buf);
        return fits;
    }
    struct outq_chunk *chunk = queue->last;
    *segment_at(chunk, chunk->segments++) = (struct segment){.data = data, .len = len, .buf = buf};
    queue->bytes += len;
    return true;
}

int outq_gather(const struct outq *queue, struct iovec *parts, int max, size_t *bytes)
{
    int count = 0;
    size_t sum = 0;
    for (const struct outq_chunk *chunk = queue->first; chunk != NULL; chunk = chunk->next) {
        for (uint32_t i = chunk->segments_sent; i < chunk->segments; i++) {
            if (count == max)
                goto out;
            const struct segment *segment = segment_at(chunk, i);
            parts[count].iov_base = (void *)(uintptr_t)segment->data;
            parts[count++].iov_len = segment->len;
            sum += segment->len;
        }
    }
out:
    *bytes = sum;
    return count;
}

/* Gives back the first chunk, all of which was sent. */
static void chunk_drop(struct outq *queue, struct outq_pool *pool)
{
    struct outq_chunk *chunk = queue->first;
    queue->first = chunk->next;
    if (queue->first == NULL)
        queue->last = NULL;
    chunk_give(pool, chunk);
}

void outq_consume(struct outq *queue, struct outq_pool *pool, size_t bytes)
{
    assert(bytes <= queue->bytes);
    queue->bytes -= bytes;
    while (queue->first != NULL) {
        struct outq_chunk *chunk = queue->first;
        while (chunk->segments_sent < chunk->segments) {
            struct segment *segment = segment_at(chunk, chunk->segments_sent);
            if (segment->len > bytes) {
                segment->data += bytes;
                segment->len -= bytes;
                return;
            }
            bytes -= segment->len;
            if (segment->buf != NULL)
                buf_release(pool, segment->buf);
            chunk->segments_sent++;
        }
        chunk_drop(queue, pool);
    }
}

void outq_clear(struct outq *queue, struct outq_pool *pool)
{
    outq_consume(queue, pool, queue->bytes);
}
