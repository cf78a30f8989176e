/* Entries that stand in extents: finding the block by the index in the state store, the entry in
 * the block, and reading blocks that are not in memory, several neighbours at a time. Whoever reads
 * on finds the next run on its way when it comes to the middle of the present one. */
#include "store/stored.h"

#include "store/inside.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define TABLE_SLOTS    512u
#define RUN_BLOCKS_MAX 64u
#define RUN_BYTES      (512u * 1024)
#define RUN_GAP_BYTES  4096u /* read over between kept entries, of headers and the like */

/* Neighbouring blocks of one stream in one file, being read. */
struct run {
    struct disk_op op;
    struct list link; /* extents.runs */
    struct store *store;
    struct extent_file *extent;
    struct buf *buf;
    struct list waiters;
    uint64_t offset, bytes;
    uint32_t count;
    struct index_row rows[RUN_BLOCKS_MAX];
};

static enum err row_find(const struct stream *stream, uint64_t offset, struct index_row *out)
{
    struct store *store = stream->store;
    if (store->extents.reader == NULL)
        return ERR_NOT_FOUND;
    return index_row_find(store->config.state, store->extents.reader, stream->id, offset, out);
}

void stored_init(struct stream *stream)
{
    struct store *store = stream->store;
    struct index_row row;
    if (store->extents.count == 0)
        return;
    enum err err = index_row_last(store->config.state, store->extents.reader, stream->id, &row);
    if (err == ERR_NONE)
        stream->stored_end = row.end;
    else if (err != ERR_NOT_FOUND)
        stream->stored_end = UINT64_MAX; /* reading it will say what is wrong */
}

/* ---- Blocks in memory ---- */

static struct stream_block **slot_of(struct extents *extents, uint64_t extent, uint64_t offset)
{
    uint64_t mixed = (extent * 0x9e3779b97f4a7c15u) ^ ((offset >> 3) * 0xc2b2ae3d27d4eb4fu);
    return &extents->table[(mixed >> 40) % TABLE_SLOTS];
}

static struct stream_block *cached_find(struct extents *extents, uint64_t extent, uint64_t offset)
{
    if (extents->table == NULL)
        return NULL;
    struct stream_block *block = *slot_of(extents, extent, offset);
    while (block != NULL && (block->head.extent != extent || block->head.offset != offset))
        block = block->chain;
    return block;
}

static void cached_drop(struct store *store, struct stream_block *block)
{
    struct extents *extents = &store->extents;
    struct stream_block **slot = slot_of(extents, block->head.extent, block->head.offset);
    while (*slot != block)
        slot = &(*slot)->chain;
    *slot = block->chain;
    list_remove(&block->cached);
    store->memory -= block->bytes;
    extents->cached_bytes -= block->bytes;
    if (block->owner != NULL)
        block->owner->loaded = NULL;
    buf_unref(block->buf);
    free(block);
}

bool stored_evict(struct store *store)
{
    if (list_empty(&store->extents.cached))
        return false;
    cached_drop(store, list_entry(store->extents.cached.next, struct stream_block, cached));
    return true;
}

/* Block i of the run. What was read over before it counts as its own. */
static struct stream_block *cached_add(struct run *run, uint32_t i, const struct extent_block *head)
{
    struct store *store = run->store;
    struct extents *extents = &store->extents;
    const struct index_row *row = &run->rows[i], *before = i > 0 ? row - 1 : NULL;
    uint64_t from = before != NULL ? before->offset + index_row_bytes(before) : run->offset;
    if (extents->table == NULL)
        extents->table = calloc(TABLE_SLOTS, sizeof(struct stream_block *));
    struct stream_block *block =
        extents->table == NULL ? NULL : malloc(sizeof *block + head->count * sizeof block->at[0]);
    if (block == NULL)
        return NULL;
    *block = (struct stream_block){.head = *head,
                                   .kept = row->kept,
                                   .bytes = row->offset + index_row_bytes(row) - from,
                                   .buf = buf_ref(run->buf),
                                   .data = run->buf->data + (row->offset - run->offset)};
    uint32_t at = 0;
    for (uint32_t j = 0; j < head->count && !row->kept; j++) {
        struct extent_entry entry;
        block->at[j] = at;
        extent_entry_get(block->data, head, &at, &entry);
    }
    struct stream_block **slot = slot_of(extents, head->extent, head->offset);
    block->chain = *slot;
    *slot = block;
    list_insert(&extents->cached, &block->cached);
    store->memory += block->bytes;
    extents->cached_bytes += block->bytes;
    return block;
}

/* ---- Reading ---- */

/* Is what was read the row's block, whole and sound? */
static bool block_take(const uint8_t *data, uint64_t got, const struct index_row *row,
                       struct extent_block *head)
{
    if (row->kept) {
        *head = (struct extent_block){.stream = row->stream,
                                      .base = row->base,
                                      .end = row->end,
                                      .extent = row->extent,
                                      .offset = row->offset,
                                      .count = 1,
                                      .body = row->body,
                                      .max_ms = row->max_ms};
        return row->body <= got && crc32c(0, data, row->body) == row->crc;
    }
    return extent_block_check(data, got, head) && head->stream == row->stream &&
           head->base == row->base && head->end == row->end && head->extent == row->extent &&
           head->offset == row->offset && head->body == row->body;
}

/* Does the index still say so? What was trimmed since may be a hole by now. */
static bool row_stands(struct store *store, const struct index_row *row)
{
    struct index_row now;
    enum err err =
        index_row_find(store->config.state, store->extents.reader, row->stream, row->base, &now);
    return err == ERR_CORRUPT || (err == ERR_NONE && now.extent == row->extent &&
                                  now.offset == row->offset && now.base == row->base);
}

/* Puts the blocks that are sound into memory. Fails when the first one is not. */
static enum err run_take(struct run *run, uint64_t got)
{
    struct store *store = run->store;
    struct stream_block *block = NULL, *middle = NULL;
    enum err err = ERR_NONE;
    uint64_t end = run->rows[run->count - 1].end;
    for (uint32_t i = 0; i < run->count && err == ERR_NONE; i++) {
        const struct index_row *row = &run->rows[i];
        uint64_t at = row->offset - run->offset;
        struct extent_block head;
        if (cached_find(&store->extents, row->extent, row->offset) != NULL)
            continue;
        if (at >= got || !block_take(run->buf->data + at, got - at, row, &head)) {
            err = i == 0 && row_stands(store, row) ? ERR_CORRUPT : ERR_NONE;
            break;
        }
        block = cached_add(run, i, &head);
        if (block == NULL)
            err = i == 0 ? ERR_NO_MEMORY : ERR_NONE;
        else
            block->run_end = end;
        if (middle == NULL && i >= run->count / 2)
            middle = block;
    }
    if (middle != NULL)
        middle->ahead = true;
    return err;
}

static void run_done(struct disk_op *op)
{
    struct run *run = list_entry(op, struct run, op);
    struct store *store = run->store;
    enum err err = op->err == ERR_NONE ? run_take(run, op->bytes) : op->err;
    struct list waiters;
    list_init(&waiters);
    while (!list_empty(&run->waiters)) {
        struct list *node = run->waiters.next;
        list_remove(node);
        list_insert(&waiters, node);
    }
    list_remove(&run->link);
    buf_unref(run->buf);
    extents_unref(store, run->extent);
    free(run);
    load_finish(&waiters, err);
    store->evict_due = true; /* once those who waited have looked at them */
}

void stored_drop_runs(struct store *store)
{
    list_each(node, &store->extents.runs)
    {
        struct run *run = list_entry(node, struct run, link);
        list_remove(node);
        buf_unref(run->buf);
        free(run);
    }
}

static struct run *run_find(struct store *store, const struct index_row *row)
{
    list_each(node, &store->extents.runs)
    {
        struct run *run = list_entry(node, struct run, link);
        if (run->extent->info.number == row->extent && row->offset >= run->offset &&
            row->offset < run->offset + run->bytes)
            return run;
    }
    return NULL;
}

/* Starts to read the row's block and those of the same stream that follow it in the file. ERR_AGAIN
 * when a commit has just made its rows visible and the table of extents does not know of it yet. */
static enum err run_start(struct store *store, const struct index_row *row, struct run **out)
{
    struct extents *extents = &store->extents;
    struct extent_file *extent = extents_find(extents, row->extent);
    if (extent == NULL)
        return store->checkpoint.commit.busy ? ERR_AGAIN : ERR_CORRUPT;
    enum err err = extents_file(store, extent);
    if (err != ERR_NONE)
        return err;
    struct run *run = calloc(1, sizeof *run);
    if (run == NULL)
        return ERR_NO_MEMORY;
    run->offset = row->offset;
    run->rows[run->count++] = *row;
    run->bytes = index_row_bytes(row);
    struct index_row next;
    while (run->count < RUN_BLOCKS_MAX && run->bytes < RUN_BYTES &&
           index_row_from(store->config.state, extents->reader, row->stream,
                          run->rows[run->count - 1].end, &next) == ERR_NONE &&
           next.extent == row->extent && next.offset >= run->offset + run->bytes &&
           next.offset - (run->offset + run->bytes) <= (row->kept ? RUN_GAP_BYTES : 0) &&
           next.offset + index_row_bytes(&next) - run->offset <= RUN_BYTES) {
        run->rows[run->count++] = next;
        run->bytes = next.offset + index_row_bytes(&next) - run->offset;
    }
    run->buf = buf_create(run->bytes, store->config.shard, store->config.memory_bytes);
    if (run->buf == NULL) {
        free(run);
        return ERR_NO_MEMORY;
    }
    run->store = store;
    run->extent = extent;
    run->op.done = run_done;
    extent->refs++;
    list_init(&run->waiters);
    list_insert(&extents->runs, &run->link);
    disk_read(extent->file, run->buf->data, run->bytes, run->offset, &run->op);
    *out = run;
    return ERR_NONE;
}

static void run_ahead(struct stream *stream, struct stream_block *block)
{
    struct store *store = stream->store;
    struct index_row row;
    struct run *run;
    block->ahead = false;
    if (block->run_end >= stream->stored_end ||
        row_find(stream, block->run_end, &row) != ERR_NONE ||
        cached_find(&store->extents, row.extent, row.offset) != NULL ||
        run_find(store, &row) != NULL)
        return;
    if (run_start(store, &row, &run) != ERR_NONE)
        return; /* whoever needs it will hear of it */
}

bool stored_load(struct stream *stream, uint64_t offset, uint64_t below, struct stream_load *load)
{
    struct store *store = stream->store;
    struct index_row row;
    if (offset < stream->first)
        offset = stream->first;
    if (offset >= stream->stored_end)
        return false;
    enum err err = row_find(stream, offset, &row);
    if (err == ERR_NOT_FOUND || (err == ERR_NONE && row.base >= below))
        return false;
    struct run *run = NULL;
    bool cached = err == ERR_NONE && cached_find(&store->extents, row.extent, row.offset) != NULL;
    if (err == ERR_NONE && !cached)
        run = run_find(store, &row);
    if (err == ERR_NONE && !cached && run == NULL)
        err = run_start(store, &row, &run);
    if (cached || err == ERR_AGAIN) {
        load_wait(&store->done_loads, load);
        store_kick(store);
        return true;
    }
    if (err == ERR_NONE)
        load_wait(&run->waiters, load);
    else
        load_wait(err == ERR_NO_MEMORY ? &store->failed_loads
                  : err == ERR_CORRUPT ? &store->damaged_loads
                                       : &store->unread_loads,
                  load);
    if (err != ERR_NONE)
        store_kick(store);
    return true;
}

/* ---- Finding ---- */

static void entry_get(const struct stream_block *block, uint32_t i, struct extent_entry *out)
{
    const struct extent_block *head = &block->head;
    if (block->kept) {
        *out = (struct extent_entry){.base = head->base,
                                     .count = (uint32_t)(head->end - head->base),
                                     .data = {.data = block->data, .len = head->body}};
        return;
    }
    uint32_t at = block->at[i];
    extent_entry_get(block->data, &block->head, &at, out);
}

/* The first entry that ends behind the offset; there is one. */
static void entry_find(struct stream_block *block, uint64_t offset, struct extent_entry *out)
{
    uint32_t low = 0, high = block->head.count;
    for (uint32_t i = block->hint; i < block->hint + 2 && i < high; i++) { /* as when draining */
        struct extent_entry entry;
        entry_get(block, i, &entry);
        if (entry.base <= offset && offset < entry.base + entry.count) {
            block->hint = i;
            *out = entry;
            return;
        }
    }
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        entry_get(block, middle, out);
        if (out->base + out->count <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    assert(low < block->head.count);
    entry_get(block, low, out);
    block->hint = low;
}

static void loaded_set(struct stream *stream, struct stream_block *block)
{
    struct store *store = stream->store;
    struct stream_block *old = stream->loaded;
    if (old != NULL) {
        old->owner = NULL;
        if (old->head.end <= stream->first) { /* drained */
            store->extents.drained_bytes += extent_block_bytes(old->head.body);
            cached_drop(store, old);
        }
    }
    stream->loaded = block;
    block->owner = stream;
    list_remove(&block->cached);
    list_insert(&store->extents.cached, &block->cached);
    if (block->ahead)
        run_ahead(stream, block);
}

enum stream_found stored_peek(struct stream *stream, uint64_t offset, uint64_t below,
                              struct entry *out)
{
    struct stream_block *block = stream->loaded;
    if (block == NULL || offset < block->head.base || offset >= block->head.end) {
        struct index_row row;
        enum err err = row_find(stream, offset, &row);
        if (err == ERR_NOT_FOUND || (err == ERR_NONE && row.base >= below))
            return STREAM_END;
        block =
            err == ERR_NONE ? cached_find(&stream->store->extents, row.extent, row.offset) : NULL;
        if (block == NULL)
            return STREAM_MISS;
        loaded_set(stream, block);
    }
    struct extent_entry entry;
    entry_find(block, offset, &entry);
    if (entry.base >= below)
        return STREAM_END;
    *out = (struct entry){
        .base = entry.base, .count = entry.count, .data = entry.data, .buf = block->buf};
    return STREAM_HIT;
}

/* An entry in an extent was settled out of order: the extent may be worth rewriting. */
void stored_forget(struct stream *stream, uint64_t base)
{
    struct stream_block *block = stream->loaded;
    if (block == NULL || base < block->head.base || base >= block->head.end)
        return; /* not worth a read: the block goes when the stream is trimmed behind it */
    struct extent_file *extent = extents_find(&stream->store->extents, block->head.extent);
    struct extent_entry entry;
    entry_find(block, base, &entry);
    if (extent != NULL && entry.base == base)
        extent->forgotten += entry.data.len;
}

void stored_done(struct stream *stream, bool drop)
{
    struct store *store = stream->store;
    if (stream->loaded != NULL)
        cached_drop(store, stream->loaded);
    if (drop && (stream->stored_end > 0 || stream->copied_end > 0))
        checkpoint_drop(store, stream->id);
}
