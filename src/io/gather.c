/* Two lists: who holds a share and who waits for one, both in order. Whoever comes while others
 * wait stands behind them, so a large item is not overtaken for ever by small ones. */
#include "io/gather.h"

#include <assert.h>

void gather_pool_init(struct gather_pool *pool, size_t limit)
{
    *pool = (struct gather_pool){.limit = limit};
    list_init(&pool->holders);
    list_init(&pool->waiting);
}

static bool fits(const struct gather_pool *pool, size_t bytes)
{
    return pool->limit == 0 || pool->used == 0 ||
           (bytes <= pool->limit && pool->used <= pool->limit - bytes);
}

static void hold(struct gather_pool *pool, struct gather *gather, size_t bytes, int64_t now_ms)
{
    gather->bytes = bytes;
    gather->due_ms = now_ms + GATHER_PATIENCE_MS;
    gather->holds = true;
    pool->used += bytes;
    list_insert(&pool->holders, &gather->link);
}

bool gather_take(struct gather_pool *pool, struct gather *gather, size_t bytes, int64_t now_ms)
{
    if (gather->waits)
        return false;
    if (gather->holds) {
        if (bytes <= gather->bytes)
            return true;
        gather_give(pool, gather);
    }
    if (list_empty(&pool->waiting) && fits(pool, bytes)) {
        hold(pool, gather, bytes, now_ms);
        return true;
    }
    gather->bytes = bytes;
    gather->waits = true;
    list_insert(&pool->waiting, &gather->link);
    return false;
}

void gather_give(struct gather_pool *pool, struct gather *gather)
{
    if (!gather->holds && !gather->waits)
        return;
    if (gather->holds) {
        assert(pool->used >= gather->bytes);
        pool->used -= gather->bytes;
    }
    list_remove(&gather->link);
    *gather = (struct gather){0};
}

struct gather *gather_next(struct gather_pool *pool, int64_t now_ms)
{
    if (list_empty(&pool->waiting))
        return NULL;
    struct gather *gather = list_entry(pool->waiting.next, struct gather, link);
    if (!fits(pool, gather->bytes))
        return NULL;
    list_remove(&gather->link);
    gather->waits = false;
    hold(pool, gather, gather->bytes, now_ms);
    return gather;
}

void gather_arrived(struct gather *gather, size_t bytes, int64_t now_ms)
{
    gather->due_ms += (int64_t)(bytes / GATHER_SLOWEST_BYTES_PER_MS);
    if (gather->due_ms > now_ms + GATHER_PATIENCE_MS)
        gather->due_ms = now_ms + GATHER_PATIENCE_MS;
}
