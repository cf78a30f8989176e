/* Two ways to receive. Usually: the few kept bytes (the torn start of an item) are copied in front
 * of the shared block and the kernel continues behind them. When much is kept, or much is wanted,
 * the kept buffer itself is grown and received into, so that a long item is not copied again and
 * again. It may be eight times as large as what has arrived (memory that nothing was written to
 * costs nothing yet), so an announced length alone allocates little. */
#include "io/inq.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEPT_STEP = 64,              /* capacities are multiples */
    GROWTH = 8,                  /* largest capacity per byte that has arrived */
    GROWTH_LEAST = 64 << 10,     /* least capacity of a buffer that is received into */
    ROOM_LEAST = 16 << 10,       /* less than this is grown, unless it completes the item */
    SPARE_BYTES_MIN = 128 << 10, /* what is worth to be kept for the next one */
    SPARE_BYTES_MAX = 2 << 20,
};

bool inq_pool_init(struct inq_pool *pool, uint64_t *account)
{
    *pool = (struct inq_pool){.account = account};
    pool->block = malloc(INQ_HEAD_BYTES + INQ_BLOCK_BYTES);
    return pool->block != NULL;
}

void inq_pool_done(struct inq_pool *pool)
{
    free(pool->block);
    free(pool->spare);
    *pool = (struct inq_pool){0};
}

static void kept_free(struct inq *queue, struct inq_pool *pool)
{
    if (queue->kept == NULL)
        return;
    if (pool->account != NULL)
        *pool->account -= queue->capacity;
    if (pool->spare == NULL && queue->capacity >= SPARE_BYTES_MIN &&
        queue->capacity <= SPARE_BYTES_MAX) {
        pool->spare = queue->kept;
        pool->spare_capacity = queue->capacity;
    } else {
        free(queue->kept);
    }
    queue->kept = NULL;
    queue->capacity = 0;
}

/* Replaces the kept buffer by one of at least `capacity` bytes that holds data[0..len). */
static bool kept_move(struct inq *queue, struct inq_pool *pool, size_t capacity,
                      const uint8_t *data, size_t len)
{
    assert(len <= capacity);
    uint8_t *kept;
    if (pool->spare != NULL && capacity >= SPARE_BYTES_MIN && capacity <= pool->spare_capacity) {
        kept = pool->spare;
        capacity = pool->spare_capacity;
        pool->spare = NULL;
    } else {
        capacity = (capacity + KEPT_STEP - 1) / KEPT_STEP * KEPT_STEP;
        kept = malloc(capacity);
        if (kept == NULL)
            return false;
    }
    memcpy(kept, data, len);
    kept_free(queue, pool);
    queue->kept = kept;
    queue->capacity = capacity;
    queue->len = len;
    if (pool->account != NULL)
        *pool->account += capacity;
    return true;
}

/* Whether the next bytes go to the shared block, behind a copy of the kept ones. */
static bool block_serves(size_t len, size_t want)
{
    return len == 0 || (len <= INQ_HEAD_BYTES && want <= INQ_BLOCK_BYTES / 2);
}

/* How large a buffer may be that holds len bytes of an item of `want`. */
static size_t growth(size_t len, size_t want)
{
    size_t most = len < GROWTH_LEAST / GROWTH ? GROWTH_LEAST : len * GROWTH;
    size_t capacity = want > len + 1 ? want : len + GROWTH_LEAST;
    return capacity < most ? capacity : most;
}

uint8_t *inq_place(struct inq *queue, struct inq_pool *pool, size_t *room)
{
    if (block_serves(queue->len, queue->want)) {
        *room = INQ_BLOCK_BYTES;
        return pool->block + INQ_HEAD_BYTES;
    }
    size_t capacity = growth(queue->len, queue->want);
    if (queue->capacity < capacity && queue->capacity - queue->len < ROOM_LEAST &&
        !kept_move(queue, pool, capacity, queue->kept, queue->len))
        return NULL;
    *room = queue->capacity - queue->len;
    return queue->kept + queue->len;
}

size_t inq_arrived(struct inq *queue, uint8_t *place, size_t bytes, uint8_t **data)
{
    if (queue->kept != NULL && place == queue->kept + queue->len) {
        queue->len += bytes;
        *data = queue->kept;
        return queue->len;
    }
    *data = place - queue->len;
    if (queue->len > 0)
        memcpy(*data, queue->kept, queue->len);
    return queue->len + bytes;
}

enum err inq_rest(struct inq *queue, struct inq_pool *pool, const uint8_t *data, size_t left,
                  bool paused)
{
    if (!paused && queue->want <= left) {
        if (left > INQ_KEEP_MAX)
            return ERR_TOO_LARGE;
        queue->want = left + 1;
    }
    return inq_keep(queue, pool, data, left) ? ERR_NONE : ERR_NO_MEMORY;
}

bool inq_keep(struct inq *queue, struct inq_pool *pool, const uint8_t *data, size_t left)
{
    if (left == 0) {
        queue->len = 0;
        kept_free(queue, pool);
        return true;
    }
    if (data == queue->kept && left == queue->len)
        return true;
    if (left > queue->capacity || left < queue->capacity / 4) {
        size_t capacity = block_serves(left, queue->want) ? left : growth(left, queue->want);
        return kept_move(queue, pool, capacity, data, left);
    }
    memmove(queue->kept, data, left);
    queue->len = left;
    return true;
}
