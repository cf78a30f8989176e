/* Where a stream's recent entries stand: a ring of rows in order of base, in memory only. Adding
 * appends, trimming pops the head, peeking guesses the row from the offset's distance to the first
 * one, which is right when entries hold one message each and none is missing, and searches
 * otherwise. A row forgotten out of order stays, dead, until it reaches an end of the ring or the
 * dead are the majority. An empty ring is freed after a while by a sweep, so that an idle stream
 * costs its embedded struct only. */
#include "store/inside.h"

#include "base/endian.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define ROW_DEAD    UINT64_MAX
#define SLOTS_FIRST 8u
#define SWEEP_STEPS 2000

struct stream_row *stream_row_at(const struct stream *stream, uint32_t i)
{
    return &stream->rows[(stream->head + i) & (stream->slots - 1)];
}

void stream_init(struct stream *stream, struct store *store, uint64_t id, uint64_t first,
                 uint64_t next)
{
    *stream = (struct stream){.store = store, .id = id, .first = first, .next = next};
    list_init(&stream->indexed);
    list_init(&stream->trimmed);
    stored_init(stream);
}

/* A large ring is not copied: realloc moves its pages. What stands before the head moves behind the
 * old end. */
static enum err ring_grow(struct stream *stream)
{
    uint32_t slots = stream->slots == 0 ? SLOTS_FIRST : stream->slots * 2;
    struct stream_row *rows = realloc(stream->rows, slots * sizeof(struct stream_row));
    if (rows == NULL)
        return ERR_NO_MEMORY;
    if (stream->head > 0) /* it is full: what wrapped around stands in [0, head) */
        memcpy(rows + stream->slots, rows, stream->head * sizeof *rows);
    stream->rows = rows;
    stream->slots = slots;
    return ERR_NONE;
}

static bool ring_shrink(struct stream *stream, uint32_t slots)
{
    struct stream_row *rows = malloc(slots * sizeof(struct stream_row));
    if (rows == NULL)
        return false;
    for (uint32_t i = 0; i < stream->used; i++)
        rows[i] = *stream_row_at(stream, i);
    free(stream->rows);
    stream->rows = rows;
    stream->slots = slots;
    stream->head = 0;
    return true;
}

/* The last rows are new, or gone, or some of those before them are. */
static void used_set(struct stream *stream, uint32_t used)
{
    struct store *store = stream->store;
    uint64_t more = ((uint64_t)used - stream->used) * sizeof(struct stream_row); /* modulo 2^64 */
    stream->used = used;
    store->row_bytes += more;
    if (store->config.memory_bytes != NULL)
        *store->config.memory_bytes += more;
}

static void head_pop(struct stream *stream)
{
    stream->head = (stream->head + 1) & (stream->slots - 1);
    used_set(stream, stream->used - 1);
}

void stream_rows_free(struct stream *stream)
{
    used_set(stream, 0);
    list_remove(&stream->indexed);
    free(stream->rows);
    stream->rows = NULL;
    stream->slots = stream->head = stream->dead = 0;
}

static void ring_free(struct stream *stream)
{
    struct store *store = stream->store;
    if (store->sweep == &stream->indexed)
        store->sweep = stream->indexed.next;
    checkpoint_stream_leaves(stream);
    stream_rows_free(stream);
}

/* The row's entry is needed no more: its block may go. */
static void row_drop(struct stream *stream, struct stream_row *row)
{
    if (row->pos == ROW_DEAD) {
        stream->dead--;
        return;
    }
    struct store *store = stream->store;
    bool durable = (row->pos & STORE_VOLATILE) == 0;
    struct block_log *log = &store->logs[durable];
    struct block *block = block_find(log, &log->trim_hint, row->pos);
    assert(block != NULL && block->live > 0);
    stream->bytes -= row->len;
    stream->transient -= !durable;
    store->durable_rows -= durable;
    if (--block->live == 0)
        block_release(store, block);
}

/* Dead rows at either end go. */
static void ends_strip(struct stream *stream)
{
    while (stream->used > 0 && stream_row_at(stream, 0)->pos == ROW_DEAD) {
        head_pop(stream);
        stream->dead--;
    }
    while (stream->used > 0 && stream_row_at(stream, stream->used - 1)->pos == ROW_DEAD) {
        used_set(stream, stream->used - 1);
        stream->dead--;
    }
}

static void dead_squeeze(struct stream *stream)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < stream->used; i++) {
        if (stream_row_at(stream, i)->pos != ROW_DEAD)
            *stream_row_at(stream, kept++) = *stream_row_at(stream, i);
    }
    used_set(stream, kept);
    stream->dead = 0;
}

void stream_done(struct stream *stream, bool drop)
{
    for (uint32_t i = 0; i < stream->used; i++)
        row_drop(stream, stream_row_at(stream, i));
    if (stream->slots > 0)
        ring_free(stream);
    stored_done(stream, drop);
    list_remove(&stream->trimmed);
}

enum err stream_add(struct stream *stream, uint64_t base, uint32_t count, uint64_t pos,
                    uint32_t len)
{
    struct store *store = stream->store;
    assert(count > 0 && len >= 8 && (store->opening || base >= stream->next));
    if (base < stream->next &&
        (base + count <= stream->first ||
         (stream->used > 0 && base <= stream_row_at(stream, stream->used - 1)->base)))
        return ERR_NONE;
    if (stream->used == stream->slots) {
        enum err err = ring_grow(stream);
        if (err != ERR_NONE)
            return err;
        if (list_empty(&stream->indexed))
            list_insert(&store->indexed, &stream->indexed);
    }
    bool durable = (pos & STORE_VOLATILE) == 0;
    struct block_log *log = &store->logs[durable];
    struct block *block = log->open;
    if (block == NULL || pos < block->start)
        block = block_find(log, &log->add_hint, pos);
    assert(block != NULL && pos + len <= block->end);
    block->live++;
    if (block->buf != NULL) {
        int64_t ms = (int64_t)be64_get(block_at(block, pos));
        block->max_ms = ms > block->max_ms ? ms : block->max_ms;
    }
    used_set(stream, stream->used + 1);
    *stream_row_at(stream, stream->used - 1) =
        (struct stream_row){.base = base, .pos = pos, .len = len, .count = count};
    stream->bytes += len;
    stream->transient += !durable;
    store->durable_rows += durable;
    stream->idle = 0;
    if (base + count > stream->next)
        stream->next = base + count;
    return ERR_NONE;
}

/* Index of the first row that ends behind the offset; used when there is none. */
uint32_t stream_row_find(const struct stream *stream, uint64_t offset)
{
    if (stream->used == 0)
        return 0;
    uint64_t first = stream_row_at(stream, 0)->base;
    if (offset <= first)
        return 0;
    uint64_t guess = offset - first;
    if (guess < stream->used && stream_row_at(stream, (uint32_t)guess)->base == offset)
        return (uint32_t)guess;
    uint32_t low = 0, high = stream->used;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct stream_row *row = stream_row_at(stream, middle);
        if (row->base + row->count <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void stream_forget(struct stream *stream, uint64_t base)
{
    uint32_t i = stream_row_find(stream, base);
    struct stream_row *row = i < stream->used ? stream_row_at(stream, i) : NULL;
    if (row == NULL || row->base != base) {
        if (base < stream->stored_end)
            stored_forget(stream, base);
        return;
    }
    if (row->pos == ROW_DEAD)
        return;
    row_drop(stream, row);
    row->pos = ROW_DEAD;
    stream->dead++;
    ends_strip(stream);
    if (stream->dead > 32 && stream->dead > stream->used / 2)
        dead_squeeze(stream);
}

void stream_forget_range(struct stream *stream, uint64_t first, uint64_t last)
{
    for (uint32_t i = stream_row_find(stream, first); i < stream->used; i++) {
        struct stream_row *row = stream_row_at(stream, i);
        if (row->base > last)
            break;
        if (row->base < first || row->pos == ROW_DEAD)
            continue;
        row_drop(stream, row);
        row->pos = ROW_DEAD;
        stream->dead++;
    }
    ends_strip(stream);
    if (stream->dead > 32 && stream->dead > stream->used / 2)
        dead_squeeze(stream);
}

void stream_trim(struct stream *stream, uint64_t first)
{
    if (first <= stream->first)
        return;
    if ((stream->first < stream->stored_end || stream->first < stream->copied_end) &&
        list_empty(&stream->trimmed))
        list_insert(&stream->store->trimmed, &stream->trimmed);
    stream->first = first;
    if (stream->next < first)
        stream->next = first;
    while (stream->used > 0) {
        struct stream_row *row = stream_row_at(stream, 0);
        if (row->base + row->count > first)
            break;
        row_drop(stream, row);
        head_pop(stream);
    }
    if (stream->dead > 0)
        ends_strip(stream);
}

static enum stream_found row_show(struct stream *stream, const struct stream_row *row,
                                  struct entry *out)
{
    bool durable = (row->pos & STORE_VOLATILE) == 0;
    struct block_log *log = &stream->store->logs[durable];
    struct block *block = block_find(log, &log->peek_hint, row->pos);
    assert(block != NULL);
    if (block->buf == NULL)
        return STREAM_MISS;
    if (block->reloaded)
        load_ahead(stream->store, block);
    *out = (struct entry){.base = row->base,
                          .count = row->count,
                          .is_volatile = !durable,
                          .data = {.data = block_at(block, row->pos), .len = row->len},
                          .buf = block->buf};
    return STREAM_HIT;
}

enum stream_found stream_peek(struct stream *stream, uint64_t offset, struct entry *out)
{
    if (offset < stream->first)
        offset = stream->first;
    uint32_t i = stream_row_find(stream, offset);
    while (i < stream->used && stream_row_at(stream, i)->pos == ROW_DEAD)
        i++;
    const struct stream_row *row = i < stream->used ? stream_row_at(stream, i) : NULL;
    if (offset < stream->stored_end) {
        uint64_t below = row != NULL ? row->base : UINT64_MAX;
        enum stream_found found = stored_peek(stream, offset, below, out);
        if (found != STREAM_END)
            return found;
    }
    return row != NULL ? row_show(stream, row, out) : STREAM_END;
}

/* The row that a load of this offset is about, or NULL. */
const struct stream_row *stream_row_for(const struct stream *stream, uint64_t offset)
{
    uint32_t i = stream_row_find(stream, offset < stream->first ? stream->first : offset);
    while (i < stream->used && stream_row_at(stream, i)->pos == ROW_DEAD)
        i++;
    return i < stream->used ? stream_row_at(stream, i) : NULL;
}

/* Durable rows that stand before the position leave: their entries are in an extent, or dead. */
void stream_rows_leave(struct stream *stream, uint64_t position)
{
    if (stream->transient > 0) {
        for (uint32_t i = 0; i < stream->used; i++) {
            struct stream_row *row = stream_row_at(stream, i);
            if (row->pos >= position) /* volatile, dead, or behind it */
                continue;
            row_drop(stream, row);
            row->pos = ROW_DEAD;
            stream->dead++;
        }
        ends_strip(stream);
        if (stream->dead > stream->used / 2)
            dead_squeeze(stream);
        return;
    }
    while (stream->used > 0) {
        struct stream_row *row = stream_row_at(stream, 0);
        if (row->pos != ROW_DEAD && row->pos >= position)
            break;
        row_drop(stream, row);
        head_pop(stream);
    }
}

/* Looks at some streams with a ring: frees rings that stayed empty, shrinks those mostly empty. */
void stream_sweep(struct store *store)
{
    struct list *node = store->sweep;
    for (int i = 0; i < SWEEP_STEPS; i++) {
        if (node == &store->indexed) {
            node = node->next;
            if (node == &store->indexed)
                break;
        }
        struct stream *stream = list_entry(node, struct stream, indexed);
        node = node->next;
        store->sweep = node;
        if (stream->used == 0 && stream->idle++ > 0)
            ring_free(stream);
        else if (stream->slots > 64 && stream->used < stream->slots / 4 &&
                 !ring_shrink(stream, stream->slots / 2))
            break;
    }
    store->sweep = node;
}
