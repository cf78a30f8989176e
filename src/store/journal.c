/* The journal: what is committed gathers in frames in memory; one write at a time takes all that
 * gathered, seals its frames (position, index, chain, checksum) and puts them into the file, with
 * an fdatasync when the store is durable; while it is under way the next ones gather. Then
 * `committed` moves. A frame lies in one block and a block in one file; positions jump from the end
 * of one file's last frame to the start of the next file. A failed write or fdatasync fails the
 * store. */
#include "store/inside.h"

#include "base/endian.h"

#include <assert.h>
#include <string.h>

/* Below this much room a full disk leaves the rest to short records (settles). */
#define FULL_ROOM_LONG  (256u * 1024)
#define FULL_ROOM_SHORT (16u * 1024)
#define SHORT_RECORD    512u

static struct block_log *journal_log(struct store *store)
{
    return &store->logs[true];
}

void journal_init(struct store *store)
{
    struct journal *journal = &store->journal;
    list_init(&journal->segments);
    journal->term = 1;
    journal->index = 1;
}

void journal_done(struct store *store)
{
    segment_done_all(store);
}

static bool frame_empty(const struct journal *journal)
{
    return journal->records == 0;
}

/* Ends the open frame, if it holds anything; the next one begins behind it. */
static void frame_close(struct store *store)
{
    struct journal *journal = &store->journal;
    struct block *block = journal_log(store)->open;
    if (block == NULL || frame_empty(journal))
        return;
    uint32_t body = (uint32_t)(journal->at - journal->frame_start - FRAME_HEADER_BYTES);
    uint64_t end = journal->frame_start + frame_bytes(body);
    memset(block_at(block, journal->at), 0, end - journal->at);
    struct frame frame = {.body = body,
                          .position = journal->frame_start,
                          .term = journal->term,
                          .index = journal->index++,
                          .time_ms = store->now_ms,
                          .records = journal->records};
    frame_put(block_at(block, journal->frame_start), &frame);
    block->closed = block->end = journal->end = end;
    journal->frame_start = end;
    journal->at = end + FRAME_HEADER_BYTES;
    journal->records = 0;
}

static uint64_t block_room(const struct block *block, uint64_t at)
{
    uint64_t end = block->start + block->buf->capacity;
    return at < end ? end - at : 0;
}

/* Opens a block with room for one record of len bytes at least. */
static enum err block_begin(struct store *store, size_t len)
{
    struct journal *journal = &store->journal;
    struct block_log *log = journal_log(store);
    frame_close(store);
    if (log->open != NULL)
        block_seal(store, log->open);
    size_t capacity = FRAME_HEADER_BYTES + RECORD_HEADER_BYTES + len + FRAME_ALIGN;
    capacity = capacity < BLOCK_BYTES ? BLOCK_BYTES : capacity;
    struct segment *segment;
    struct block *block;
    enum err err = segment_for(store, journal->frame_start, capacity, &segment);
    if (err != ERR_NONE)
        return err;
    uint64_t start = segment->start > journal->frame_start ? segment->start : journal->frame_start;
    err = block_open(store, true, start, capacity, &block);
    if (err != ERR_NONE)
        return err;
    block->segment = segment;
    segment_enter(store, segment, journal->frame_start);
    journal->frame_start = start;
    journal->at = start + FRAME_HEADER_BYTES;
    segment_prepare(store);
    if (store_unflushed(store) >= BLOCK_BYTES)
        journal_flush(store);
    return ERR_NONE;
}

/* On a full disk only what fits into the file's present blocks is taken. */
static bool full_refuses(const struct store *store, size_t len)
{
    const struct journal *journal = &store->journal;
    const struct segment *current = journal->current;
    if (journal->space_low && len > SHORT_RECORD)
        return true;
    if (!(journal->grow_full || journal->write_full) ||
        (current != NULL && current->allocated >= current->limit && journal->next != NULL &&
         journal->next->file != NULL))
        return false;
    uint64_t spare = len > SHORT_RECORD ? FULL_ROOM_LONG : FULL_ROOM_SHORT;
    return current == NULL || current->file == NULL ||
           journal->at + len + spare > current->allocated;
}

uint8_t *journal_reserve(struct store *store, size_t len, uint64_t *pos, enum err *err)
{
    struct journal *journal = &store->journal;
    if (store->failed != ERR_NONE || len == 0 || len > FRAME_BODY_MAX / 2) {
        *err = store->failed != ERR_NONE ? store->failed : ERR_TOO_LARGE;
        return NULL;
    }
    if (full_refuses(store, len)) {
        *err = ERR_DISK_FULL;
        return NULL;
    }
    struct block *block = journal_log(store)->open;
    if (block == NULL || block_room(block, journal->at) < RECORD_HEADER_BYTES + len + FRAME_ALIGN) {
        *err = block_begin(store, len);
        if (*err != ERR_NONE)
            return NULL;
        block = journal_log(store)->open;
    }
    *pos = journal->at + RECORD_HEADER_BYTES;
    return block_at(block, *pos);
}

void journal_commit(struct store *store, size_t len)
{
    struct journal *journal = &store->journal;
    struct block *block = journal_log(store)->open;
    le32_put(block_at(block, journal->at), (uint32_t)len);
    journal->at += RECORD_HEADER_BYTES + len;
    journal->records++;
    journal->end = block->end = journal->at;
}

/* ---- Flushing ---- */

/* Fills in what is known only now, and the checksums, of the frames in [from, to). */
static void frames_seal(struct store *store, struct block *block, uint64_t from, uint64_t to)
{
    struct journal *journal = &store->journal;
    while (from < to) {
        struct frame frame;
        bool found = frame_peek(block_at(block, from), to - from, &frame);
        assert(found && frame.position == from);
        frame.chain = journal->chain;
        frame.durable = journal->synced;
        journal->chain = frame_seal(block_at(block, from), &frame);
        journal->sealed_index = frame.index + 1;
        from += frame_bytes(frame.body);
    }
}

/* Gathers the frames that go into one file behind each other. Returns the number of parts. */
static int parts_gather(struct store *store, struct iovec *parts, uint64_t *bytes)
{
    struct journal *journal = &store->journal;
    struct block_log *log = journal_log(store);
    int count = 0;
    *bytes = 0;
    uint32_t i = block_first_unwritten(log, journal->written);
    for (; i < log->used && count < FLUSH_PARTS_MAX && *bytes < FLUSH_BYTES_MAX; i++) {
        struct block *block = log->ring[(log->head + i) & (log->slots - 1)];
        if (block->written == block->closed)
            continue;
        if (count == 0) {
            journal->write_segment = block->segment;
            journal->write_start = block->written;
        } else if (block->segment != journal->write_segment ||
                   block->written != journal->write_to) {
            break;
        }
        if (block->segment->file == NULL || block->closed > block->segment->allocated)
            break;
        frames_seal(store, block, block->written, block->closed);
        parts[count++] = (struct iovec){.iov_base = block_at(block, block->written),
                                        .iov_len = block->closed - block->written};
        *bytes += block->closed - block->written;
        journal->write_to = block->closed;
    }
    return count;
}

static void flush_start(struct store *store)
{
    struct journal *journal = &store->journal;
    if (journal->writing || store->failed != ERR_NONE || store->opening || store->stopped ||
        (journal->write_full && store->now_ms < journal->probe_at))
        return;
    frame_close(store);
    struct iovec parts[FLUSH_PARTS_MAX];
    uint64_t bytes;
    int count = parts_gather(store, parts, &bytes);
    if (count == 0) {
        segment_prepare(store); /* waits for its file, or there is nothing */
        return;
    }
    journal->writing = true;
    journal->wanted = journal->write_to < journal->end;
    journal->lazy_at = 0;
    journal->write_segment->refs++;
    store->stats.flushes++;
    store->stats.flushed_bytes += bytes;
    journal->flush_bytes += bytes / 8 - journal->flush_bytes / 8;
    uint64_t offset = JOURNAL_HEADER_BYTES + (journal->write_start - journal->write_segment->start);
    disk_write(journal->write_segment->file, parts, count, offset, store->config.sync,
               bytes <= FLUSH_NOW_BYTES, &journal->op);
}

static void blocks_mark_written(struct store *store, uint64_t from, uint64_t to)
{
    struct block_log *log = journal_log(store);
    while (from < to) {
        struct block *hint = NULL;
        struct block *block = block_find(log, &hint, from);
        assert(block != NULL);
        block->written = to < block->closed ? to : block->closed;
        from = block->written;
        block_release(store, block);
    }
}

static void flush_done(struct disk_op *op)
{
    struct journal *journal = list_entry(op, struct journal, op);
    struct store *store = list_entry(journal, struct store, journal);
    journal->writing = false;
    segment_unref(store, journal->write_segment);
    if (op->err == ERR_DISK_FULL) { /* all of it is written anew when there is room */
        journal->chain = journal->mark.chain;
        journal->sealed_index = journal->mark.index;
        journal->wanted = true;
        segment_full(store, &journal->write_full, true);
        return;
    }
    if (op->err != ERR_NONE) {
        store_fail(store, op->err);
        return;
    }
    segment_full(store, &journal->write_full, false);
    journal->written = journal->write_to;
    journal->mark = (struct journal_mark){
        .position = journal->written, .index = journal->sealed_index, .chain = journal->chain};
    if (store->config.sync)
        journal->synced = journal->written;
    blocks_mark_written(store, journal->write_start, journal->write_to);
    if (journal->written - journal->space_end >= SPACE_LOOK_BYTES)
        segment_space(store);
    journal->committed = journal->written;
    if (journal->wanted)
        flush_start(store);
    block_evict(store);
    store->handler->committed(store->ctx, journal->committed);
    if (store->checkpoint.phase == CHECKPOINT_WAIT || store->checkpoint.stopping)
        checkpoint_advance(store);
}

void journal_flush(struct store *store)
{
    struct journal *journal = &store->journal;
    journal->op.done = flush_done;
    if (journal->written == journal->end)
        return;
    journal->wanted = true;
    flush_start(store);
}

bool journal_starves(const struct store *store)
{
    const struct journal *journal = &store->journal;
    const struct block_log *log = &store->logs[true];
    if (!(journal->grow_full || journal->write_full) || journal->writing || journal->job.busy ||
        journal->written == journal->end)
        return false;
    if (journal->write_full)
        return true;
    uint32_t first = block_first_unwritten(log, journal->written);
    if (first == log->used) /* all of it is in the open frame */
        first--;
    const struct block *block = log->ring[(log->head + first) & (log->slots - 1)];
    return block->segment->file == NULL || block->end > block->segment->allocated;
}

void store_flush(struct store *store, bool lazy)
{
    struct journal *journal = &store->journal;
    if (!lazy)
        journal_flush(store);
    else if (journal->lazy_at == 0 && journal->written != journal->end)
        journal->lazy_at = store->now_ms + LAZY_FLUSH_MS;
}

void journal_tick(struct store *store)
{
    struct journal *journal = &store->journal;
    if (journal->lazy_at != 0 && store->now_ms >= journal->lazy_at) {
        journal->lazy_at = 0;
        journal_flush(store);
    }
    if ((journal->grow_full || journal->write_full) && store->now_ms >= journal->probe_at)
        segment_probe(store);
}

uint64_t store_committed(const struct store *store)
{
    return store->journal.committed;
}

uint64_t store_end(const struct store *store)
{
    return store->journal.end;
}

uint64_t store_unflushed(const struct store *store)
{
    return store->journal.end - store->journal.written;
}
