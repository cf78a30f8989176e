/* The memory of both logs: blocks of 256 KiB (or of one large record's size) in order of position.
 * A block is filled, sealed, written (journal) and then either freed, as soon as no row points into
 * it, or dropped from memory, oldest first, when the store is above its limit; block_load.c reads
 * it back. The struct of a dropped block stays until every block before it is gone too. */
#include "store/inside.h"

#include <assert.h>
#include <stdlib.h>

#define RING_FIRST 16u

static struct block *block_in(const struct block_log *log, uint32_t i)
{
    return log->ring[(log->head + i) & (log->slots - 1)];
}

static enum err ring_grow(struct block_log *log)
{
    uint32_t slots = log->slots == 0 ? RING_FIRST : log->slots * 2;
    struct block **ring = malloc(slots * sizeof(struct block *));
    if (ring == NULL)
        return ERR_NO_MEMORY;
    for (uint32_t i = 0; i < log->used; i++)
        ring[i] = block_in(log, i);
    free(log->ring);
    log->ring = ring;
    log->slots = slots;
    log->head = 0;
    return ERR_NONE;
}

struct buf *buf_take(struct store *store, size_t capacity)
{
    if (capacity == BLOCK_BYTES && store->pooled > 0)
        return store->pool[--store->pooled];
    return buf_create_aligned(capacity, store->config.shard, store->config.memory_bytes);
}

void buf_recycle(struct store *store, struct buf *buf)
{
    if (buf->refs == 1 && buf->capacity == BLOCK_BYTES && store->pooled < BLOCK_POOL_MAX)
        store->pool[store->pooled++] = buf;
    else
        buf_unref(buf);
}

/* Who holds a reference keeps the bytes; they leave our account. */
void block_detach(struct store *store, struct block *block)
{
    assert(block->buf != NULL);
    store->memory -= block->buf->capacity;
    buf_recycle(store, block->buf);
    block->buf = NULL;
    list_remove(&block->recent);
}

static enum err block_attach(struct store *store, struct block *block, size_t capacity)
{
    assert(block->buf == NULL);
    block->buf = buf_take(store, capacity);
    if (block->buf == NULL)
        return ERR_NO_MEMORY;
    store->memory += capacity;
    return ERR_NONE;
}

enum err block_open(struct store *store, bool durable, uint64_t start, size_t capacity,
                    struct block **out)
{
    struct block_log *log = &store->logs[durable];
    assert(log->open == NULL);
    if (log->used == log->slots) {
        enum err err = ring_grow(log);
        if (err != ERR_NONE)
            return err;
    }
    struct block *block = calloc(1, sizeof *block);
    if (block == NULL)
        return ERR_NO_MEMORY;
    enum err err = block_attach(store, block, capacity);
    if (err != ERR_NONE) {
        free(block);
        return err;
    }
    block->start = block->end = block->closed = block->written = start;
    block->durable = durable;
    block->max_ms = INT64_MIN;
    list_init(&block->recent);
    log->ring[(log->head + log->used++) & (log->slots - 1)] = block;
    log->open = block;
    *out = block;
    return ERR_NONE;
}

static void hints_forget(struct block_log *log, const struct block *block)
{
    if (log->add_hint == block)
        log->add_hint = NULL;
    if (log->peek_hint == block)
        log->peek_hint = NULL;
    if (log->trim_hint == block)
        log->trim_hint = NULL;
    if (log->copy_hint == block)
        log->copy_hint = NULL;
}

static bool block_written(const struct block *block)
{
    return block->sealed && (!block->durable || block->written == block->end);
}

static bool block_finished(const struct block *block)
{
    return block->live == 0 && block->load == NULL && block_written(block);
}

void block_release(struct store *store, struct block *block)
{
    if (!block_written(block))
        return;
    if (!block_finished(block)) {
        /* One that is on its way to the spill file is not to be evicted a second time. */
        if (block->buf != NULL && block->load == NULL && list_empty(&block->recent))
            list_insert(&store->recent, &block->recent);
        return;
    }
    if (block->buf != NULL)
        block_detach(store, block);
    if (block->in_file)
        spill_free(store, block);
    struct block_log *log = &store->logs[block->durable];
    while (log->used > 0 && block_finished(block_in(log, 0))) {
        struct block *first = block_in(log, 0);
        if (first->buf != NULL) /* never had an entry: nobody released it before */
            block_detach(store, first);
        hints_forget(log, first);
        free(first);
        log->head = (log->head + 1) & (log->slots - 1);
        log->used--;
    }
}

void block_seal(struct store *store, struct block *block)
{
    struct block_log *log = &store->logs[block->durable];
    assert(log->open == block);
    log->open = NULL;
    block->sealed = true;
    block_release(store, block);
}

struct block *block_find(struct block_log *log, struct block **hint, uint64_t pos)
{
    struct block *guess = *hint;
    if (guess != NULL && pos >= guess->start && pos < guess->end)
        return guess;
    uint32_t low = 0, high = log->used; /* the last block that starts at or before pos */
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (block_in(log, middle)->start <= pos)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0)
        return NULL;
    struct block *block = block_in(log, low - 1);
    if (pos >= block->end)
        return NULL;
    *hint = block;
    return block;
}

struct block *block_after(struct block_log *log, const struct block *block)
{
    uint32_t low = 0, high = log->used;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (block_in(log, middle)->start <= block->start)
            low = middle + 1;
        else
            high = middle;
    }
    return low < log->used ? block_in(log, low) : NULL;
}

/* Index of the first block that ends behind what is written. */
uint32_t block_first_unwritten(const struct block_log *log, uint64_t written)
{
    uint32_t low = 0, high = log->used;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (block_in(log, middle)->closed <= written)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

uint64_t block_limit(const struct store *store)
{
    uint64_t limit = store->config.memory_limit, least = limit / 4;
    return store->row_bytes < limit - least ? limit - store->row_bytes : least;
}

void block_evict(struct store *store)
{
    while (store->memory > block_limit(store)) {
        uint64_t share = block_limit(store) / 4; /* that read blocks may keep */
        if ((store->extents.cached_bytes > share || list_empty(&store->recent)) &&
            stored_evict(store))
            continue;
        if (list_empty(&store->recent))
            break;
        struct block *block = list_entry(store->recent.next, struct block, recent);
        if (block->durable || block->in_file)
            block_detach(store, block);
        else if (!spill_start(store, block))
            break; /* goes on when a write has completed */
    }
}

/* Nothing was appended for a while: memory that is only kept to be ready goes. */
void block_idle(struct store *store)
{
    for (int durable = 0; durable < 2; durable++) {
        struct block *open = store->logs[durable].open;
        if (open == NULL || open->live > 0 || store->reserved > 0 ||
            (durable && store->journal.written != store->journal.end))
            continue;
        open->end = durable ? open->closed : open->end;
        block_seal(store, open);
    }
    while (store->pooled > 0)
        buf_unref(store->pool[--store->pooled]);
}

void block_log_done(struct store *store, struct block_log *log)
{
    for (uint32_t i = 0; i < log->used; i++) {
        struct block *block = block_in(log, i);
        if (block->buf != NULL)
            block_detach(store, block);
        if (block->load != NULL)
            buf_unref(block->load->buf);
        free(block->load);
        free(block);
    }
    free(log->ring);
    *log = (struct block_log){0};
}
