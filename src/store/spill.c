/* The spill file: where blocks of the volatile log go when memory is short. It is made of slots of
 * a block's size, is never synced, has no format of its own (nobody reads it but the store that
 * wrote it) and is removed when it is empty and at every start. A disk without room leaves the
 * blocks in memory; above twice the limit the volatile log then takes nothing more. */
#include "store/inside.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define SPILLS_MAX 8 /* writes under way */

static uint32_t slots_of(uint64_t bytes)
{
    return (uint32_t)((bytes + BLOCK_BYTES - 1) / BLOCK_BYTES);
}

static void slot_put(struct spill *spill, uint32_t slot)
{
    if (spill->free_used == spill->free_room) {
        uint32_t room = spill->free_room == 0 ? 64 : spill->free_room * 2;
        uint32_t *grown = realloc(spill->free, room * sizeof *grown);
        if (grown == NULL)
            return; /* the slot is not used again until the file goes */
        spill->free = grown;
        spill->free_room = room;
    }
    spill->free[spill->free_used++] = slot;
}

static uint32_t slot_take(struct spill *spill, uint32_t slots)
{
    if (slots == 1 && spill->free_used > 0)
        return spill->free[--spill->free_used];
    uint32_t slot = spill->slots;
    spill->slots += slots;
    return slot;
}

static enum err file_open(struct store *store)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/spill", store->path);
    enum err err = disk_make_folder(store->config.disk, store->path);
    if (err == ERR_NONE)
        err = disk_open(store->config.disk, path, true, &store->spill.file);
    return err;
}

static void file_close(struct store *store)
{
    struct spill *spill = &store->spill;
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/spill", store->path);
    disk_close(spill->file);
    spill->file = NULL;
    spill->slots = spill->free_used = 0;
    enum err err = disk_remove(store->config.disk, path);
    if (err != ERR_NONE && err != ERR_DISK_FULL)
        store_fail(store, err);
}

static void write_done(struct disk_op *op)
{
    struct block_load *load = list_entry(op, struct block_load, op);
    struct store *store = load->store;
    struct block *block = load->block;
    struct spill *spill = &store->spill;
    enum err err = op->err;
    block->load = NULL;
    spill->writing--;
    spill->writing_bytes -= block->buf->capacity;
    free(load);
    if (err == ERR_NONE) {
        block->in_file = true;
        spill->bytes += block->end - block->start;
        if (block->live > 0)
            block_detach(store, block);
    } else {
        spill->blocked_until = store->now_ms + PROBE_MS;
        for (uint32_t i = 0; i < slots_of(block->end - block->start); i++)
            slot_put(spill, (uint32_t)(block->spill_at / BLOCK_BYTES) + i);
        spill->blocks--;
    }
    block_release(store, block);
    if (err == ERR_IO)
        store_fail(store, err);
    block_evict(store);
}

bool spill_start(struct store *store, struct block *block)
{
    struct spill *spill = &store->spill;
    if (spill->writing == SPILLS_MAX || store->now_ms < spill->blocked_until ||
        store->memory - spill->writing_bytes <= block_limit(store))
        return false;
    struct block_load *load = calloc(1, sizeof *load);
    if (load == NULL)
        return false;
    if (spill->file == NULL && file_open(store) != ERR_NONE) {
        spill->blocked_until = store->now_ms + PROBE_MS;
        free(load);
        return false;
    }
    uint64_t bytes = block->end - block->start;
    block->spill_at = (uint64_t)slot_take(spill, slots_of(bytes)) * BLOCK_BYTES;
    block->spill_crc = crc32c(0, block->buf->data, bytes);
    load->store = store;
    load->block = block;
    load->op.done = write_done;
    list_init(&load->waiters);
    block->load = load;
    list_remove(&block->recent);
    spill->blocks++;
    spill->writing++;
    spill->writing_bytes += block->buf->capacity;
    struct iovec part = {.iov_base = block->buf->data, .iov_len = bytes};
    disk_write(spill->file, &part, 1, block->spill_at, false, false, &load->op);
    return true;
}

void spill_free(struct store *store, struct block *block)
{
    struct spill *spill = &store->spill;
    assert(block->in_file && spill->blocks > 0);
    block->in_file = false;
    spill->bytes -= block->end - block->start;
    for (uint32_t i = 0; i < slots_of(block->end - block->start); i++)
        slot_put(spill, (uint32_t)(block->spill_at / BLOCK_BYTES) + i);
    if (--spill->blocks == 0)
        file_close(store);
}

bool spill_refuses(const struct store *store)
{
    return store->memory > 2 * store->config.memory_limit &&
           store->now_ms < store->spill.blocked_until;
}

void spill_done(struct store *store)
{
    if (store->spill.file != NULL)
        disk_close(store->spill.file);
    free(store->spill.free);
}
