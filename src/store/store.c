/* A cell's storage as a whole: opening, stopping, the clock, and the two logs behind one pair of
 * calls. Records of the journal are written by journal.c; those of the volatile log just stand in
 * its blocks. */
#include "store/store.h"

#include "store/inside.h"
#include "store/path.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void store_explain(struct store *store, const char *format, ...)
{
    if (store->config.problem == NULL || store->config.problem_bytes == 0)
        return;
    va_list list;
    va_start(list, format);
    vsnprintf(store->config.problem, store->config.problem_bytes, format, list);
    va_end(list);
}

void store_path(const struct store *store, const char *kind, uint64_t number, char *out)
{
    path_numbered(out, PATH_BYTES, store->path, kind, number);
}

void store_fail(struct store *store, enum err err)
{
    if (store->failed != ERR_NONE)
        return;
    store->failed = err;
    store->handler->failed(store->ctx, err);
}

static void kick_run(struct disk_op *op)
{
    op->err = ERR_NONE;
}

static void kick_done(struct disk_op *op)
{
    struct store *store = list_entry(op, struct store, kick);
    store->kick_busy = false;
    load_tick(store);
    checkpoint_advance(store);
}

void store_kick(struct store *store)
{
    if (store->kick_busy)
        return;
    store->kick_busy = true;
    store->kick.done = kick_done;
    disk_run(store->config.disk, kick_run, &store->kick);
}

static uint64_t logs_end(const struct store *store)
{
    return store->journal.end + (store->transient_end & ~STORE_VOLATILE);
}

int64_t store_deadline(const struct store *store, int64_t now_ms)
{
    const struct journal *journal = &store->journal;
    int64_t deadline = INT64_MAX;
    bool failed = store->failed != ERR_NONE && !store->checkpoint.stopping;
    if (store->stopped || failed) /* what is due would never be done */
        return deadline;
    if (journal->lazy_at != 0)
        deadline = journal->lazy_at;
    if ((journal->grow_full || journal->write_full) && journal->probe_at < deadline)
        deadline = journal->probe_at;
    if (store->config.state != NULL && journal->mark.position != store->extents.meta.position) {
        int64_t period = (int64_t)store->config.checkpoint_ms;
        int64_t at = store->checkpoint.last_ms + (journal->full ? PROBE_MS : period);
        at = at > store->checkpoint.retry_at ? at : store->checkpoint.retry_at;
        deadline = at < deadline ? at : deadline;
    }
    if (store->swept_end != logs_end(store) || journal->space_low)
        deadline =
            store->swept_ms + SWEEP_IDLE_MS < deadline ? store->swept_ms + SWEEP_IDLE_MS : deadline;
    if (!list_empty(&store->indexed) && store->swept_ms + SWEEP_IDLE_MS < deadline)
        deadline = store->swept_ms + SWEEP_IDLE_MS;
    (void)now_ms;
    return deadline;
}

enum err store_open(const struct store_config *config, const struct store_handler *handler,
                    void *ctx, struct store **out)
{
    if (config->problem != NULL && config->problem_bytes > 0)
        config->problem[0] = '\0';
    if (strlen(config->path) > PATH_BYTES - 64)
        return ERR_INVALID;
    struct store *store = calloc(1, sizeof *store);
    if (store == NULL)
        return ERR_NO_MEMORY;
    store->config = *config;
    store->handler = handler;
    store->ctx = ctx;
    list_init(&store->recent);
    list_init(&store->indexed);
    list_init(&store->trimmed);
    list_init(&store->done_loads);
    list_init(&store->failed_loads);
    list_init(&store->damaged_loads);
    list_init(&store->unread_loads);
    list_init(&store->extents.open);
    list_init(&store->extents.cached);
    list_init(&store->extents.runs);
    store->sweep = &store->indexed;
    store->transient_end = STORE_VOLATILE;
    journal_init(store);
    store->path = strdup(config->path);
    store->opening = true;
    *out = store;
    enum err err = store->path == NULL ? ERR_NO_MEMORY : extents_open(store);
    const struct index_meta *meta = &store->extents.meta;
    if (err == ERR_NONE)
        err = recover_journal(store, meta->position, meta->index, meta->chain, meta->least_end);
    store->opening = false;
    if (err != ERR_NONE) {
        *out = NULL;
        store_destroy(store);
        return err;
    }
    return ERR_NONE;
}

/* Owners may still call stream_done(stream, false) afterwards. */
static void streams_forget(struct store *store)
{
    list_each(node, &store->indexed)
    {
        stream_rows_free(list_entry(node, struct stream, indexed));
    }
    list_each(trim, &store->trimmed)
    {
        list_remove(trim);
    }
}

void store_destroy(struct store *store)
{
    streams_forget(store);
    checkpoint_done_all(store);
    remover_free(store);
    extents_close(store);
    block_log_done(store, &store->logs[false]);
    block_log_done(store, &store->logs[true]);
    journal_done(store);
    spill_done(store);
    while (store->pooled > 0)
        buf_unref(store->pool[--store->pooled]);
    free(store->path);
    free(store);
}

static uint8_t *transient_reserve(struct store *store, size_t len, uint64_t *pos, enum err *err)
{
    struct block_log *log = &store->logs[false];
    struct block *block = log->open;
    if (block == NULL || block->start + block->buf->capacity - block->end < len) {
        if (spill_refuses(store)) {
            *err = ERR_DISK_FULL;
            return NULL;
        }
        if (block != NULL) {
            block_seal(store, block);
            block_evict(store);
        }
        *err = block_open(store, false, store->transient_end, len < BLOCK_BYTES ? BLOCK_BYTES : len,
                          &block);
        if (*err != ERR_NONE)
            return NULL;
    }
    *pos = block->end;
    return block_at(block, *pos);
}

uint8_t *store_reserve(struct store *store, bool durable, size_t len, uint64_t *pos, enum err *err)
{
    assert(!store->reserved && len > 0);
    uint8_t *data =
        durable ? journal_reserve(store, len, pos, err) : transient_reserve(store, len, pos, err);
    store->reserved = data != NULL ? len : 0;
    store->reserved_durable = durable;
    return data;
}

void store_commit(struct store *store, size_t len)
{
    assert(len > 0 && len <= store->reserved);
    store->reserved = 0;
    if (store->reserved_durable) {
        journal_commit(store, len);
    } else {
        store->logs[false].open->end += len;
        store->transient_end = store->logs[false].open->end;
    }
}

void store_cancel(struct store *store)
{
    store->reserved = 0;
}

void store_tick(struct store *store, int64_t now_ms)
{
    store->now_ms = now_ms;
    if (store->stopped)
        return;
    journal_tick(store);
    if (now_ms - store->swept_ms >= SWEEP_MS) {
        store->swept_ms = now_ms;
        stream_sweep(store);
        store->evict_due = true;
        segment_space(store);
        if (store->swept_end == logs_end(store))
            block_idle(store);
        store->swept_end = logs_end(store);
    }
    if (store->evict_due) {
        store->evict_due = false;
        block_evict(store);
    }
    load_tick(store);
    checkpoint_tick(store);
}

void store_stats(const struct store *store, struct store_stats *out)
{
    *out = store->stats;
    out->memory_bytes = store->memory + store->row_bytes;
    out->spilled_bytes = store->spill.bytes;
    out->journal_bytes = 0;
    for (struct list *node = store->journal.segments.next; node != &store->journal.segments;
         node = node->next) {
        const struct segment *segment = list_entry(node, struct segment, link);
        out->journal_bytes += segment->allocated - segment->start;
    }
    out->extents = store->extents.count;
    out->extent_bytes = 0;
    for (uint32_t i = 0; i < store->extents.count; i++)
        out->extent_bytes += extent_file_bytes(store->extents.files[i]);
}
