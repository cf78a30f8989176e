/* Reading blocks back that were dropped from memory: a journal block from its file, with the
 * checksums of its frames, a volatile one from the spill file. Whoever drains a log reads block
 * after block, so each read starts the next one too. Loads that need a block already on its way
 * wait for it together. */
#include "store/inside.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static struct list *load_node(struct stream_load *load)
{
    return (struct list *)(void *)load->internal;
}

static struct stream_load *load_of(struct list *node)
{
    return list_entry(node, struct stream_load, internal);
}

void load_wait(struct list *waiters, struct stream_load *load)
{
    list_insert(waiters, load_node(load));
}

void load_finish(struct list *waiters, enum err err)
{
    struct list local;
    list_init(&local);
    while (!list_empty(waiters)) { /* a callback may start another load */
        struct list *node = waiters->next;
        list_remove(node);
        list_insert(&local, node);
    }
    while (!list_empty(&local)) {
        struct list *node = local.next;
        list_remove(node);
        struct stream_load *load = load_of(node);
        load->done(load, err);
    }
}

/* Are the bytes what was written? */
static bool block_sound(const struct block *block, const uint8_t *data, uint64_t got)
{
    uint64_t bytes = block->end - block->start;
    if (got < bytes)
        return false;
    if (!block->durable)
        return crc32c(0, data, bytes) == block->spill_crc;
    for (uint64_t at = 0; at < bytes;) {
        struct frame frame;
        if (!frame_check(data + at, bytes - at, &frame) || frame.position != block->start + at)
            return false;
        at += frame_bytes(frame.body);
    }
    return true;
}

static void read_done(struct disk_op *op)
{
    struct block_load *load = list_entry(op, struct block_load, op);
    struct store *store = load->store;
    struct block *block = load->block;
    enum err err = op->err;
    if (err == ERR_NONE && !block_sound(block, load->buf->data, op->bytes))
        err = ERR_CORRUPT;
    block->load = NULL;
    store->loading--;
    if (err == ERR_NONE && block->live > 0) {
        block->buf = load->buf;
        block->reloaded = true;
        store->memory += load->buf->capacity;
    } else {
        buf_recycle(store, load->buf);
    }
    if (block->durable)
        segment_unref(store, load->segment);
    struct list waiters;
    list_init(&waiters);
    while (!list_empty(&load->waiters)) {
        struct list *node = load->waiters.next;
        list_remove(node);
        list_insert(&waiters, node);
    }
    free(load);
    block_release(store, block);
    load_finish(&waiters, err);
    store->evict_due = true; /* once those who waited have looked at it */
}

/* Starts to read the block. NULL when memory is exhausted. */
static struct block_load *read_start(struct store *store, struct block *block)
{
    struct block_load *load = calloc(1, sizeof *load);
    size_t bytes = block->end - block->start;
    size_t capacity = bytes < BLOCK_BYTES ? BLOCK_BYTES : bytes;
    struct buf *buf = load == NULL ? NULL : buf_take(store, capacity);
    if (buf == NULL) {
        free(load);
        return NULL;
    }
    load->store = store;
    load->block = block;
    load->buf = buf;
    load->op.done = read_done;
    list_init(&load->waiters);
    block->load = load;
    store->loading++;
    if (block->durable) {
        load->segment = block->segment;
        load->segment->refs++;
        uint64_t offset = JOURNAL_HEADER_BYTES + (block->start - block->segment->start);
        disk_read(block->segment->file, buf->data, bytes, offset, &load->op);
    } else {
        disk_read(store->spill.file, buf->data, bytes, block->spill_at, &load->op);
    }
    return load;
}

/* The reader has come to this block, which was read back: the next one will be wanted. */
void load_ahead(struct store *store, struct block *block)
{
    block->reloaded = false;
    struct block *next = block_after(&store->logs[block->durable], block);
    if (next != NULL && next->buf == NULL && next->live > 0 && next->load == NULL)
        (void)read_start(store, next);
}

void load_block(struct store *store, struct block *block, struct stream_load *load)
{
    if (block->buf != NULL) {
        load_wait(&store->done_loads, load);
        store_kick(store);
        return;
    }
    struct block_load *read = block->load;
    if (read == NULL)
        read = read_start(store, block);
    if (read == NULL) {
        load_wait(&store->failed_loads, load);
        store_kick(store);
        return;
    }
    load_wait(&read->waiters, load);
    load_ahead(store, block);
}

void stream_load(struct stream *stream, uint64_t offset, struct stream_load *load)
{
    struct store *store = stream->store;
    list_init(load_node(load));
    const struct stream_row *row = stream_row_for(stream, offset);
    if (stored_load(stream, offset, row != NULL ? row->base : UINT64_MAX, load))
        return;
    if (row == NULL) {
        load_wait(&store->done_loads, load);
        store_kick(store);
        return;
    }
    struct block_log *log = &store->logs[(row->pos & STORE_VOLATILE) == 0];
    struct block *block = block_find(log, &log->peek_hint, row->pos);
    assert(block != NULL);
    load_block(store, block, load);
}

void load_tick(struct store *store)
{
    if (!list_empty(&store->done_loads))
        load_finish(&store->done_loads, ERR_NONE);
    if (!list_empty(&store->failed_loads))
        load_finish(&store->failed_loads, ERR_NO_MEMORY);
    if (!list_empty(&store->damaged_loads))
        load_finish(&store->damaged_loads, ERR_CORRUPT);
    if (!list_empty(&store->unread_loads))
        load_finish(&store->unread_loads, ERR_IO);
}
