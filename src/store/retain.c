/* Questions about a whole stream: how many bytes it holds, and from where on it satisfies a limit
 * of bytes or of age. Answered from the index alone: extent blocks by sums and running maxima that
 * their rows carry, recent entries one by one. Where a row cannot be read everything stays. */
#include "store/inside.h"

#include "base/endian.h"

static bool stored_any(const struct stream *stream)
{
    return stream->first < stream->stored_end && stream->store->extents.reader != NULL;
}

static enum err row_find(const struct stream *stream, uint64_t offset, struct index_row *out)
{
    struct store *store = stream->store;
    return index_row_find(store->config.state, store->extents.reader, stream->id, offset, out);
}

static enum err row_last(const struct stream *stream, struct index_row *out)
{
    struct store *store = stream->store;
    return index_row_last(store->config.state, store->extents.reader, stream->id, out);
}

static uint64_t sum_behind(const struct index_row *row)
{
    return row->sum + row->bytes;
}

static uint64_t stored_bytes(struct stream *stream)
{
    struct index_row first, last;
    if (!stored_any(stream) || row_find(stream, stream->first, &first) != ERR_NONE ||
        row_last(stream, &last) != ERR_NONE || sum_behind(&last) < first.sum)
        return 0;
    return sum_behind(&last) - first.sum;
}

uint64_t stream_bytes(struct stream *stream)
{
    return stream->bytes + stored_bytes(stream);
}

/* The base of the first row for which `after` holds; it holds for all that follow. When there is
 * none, the end of what is stored. */
static uint64_t row_search(struct stream *stream,
                           bool (*after)(const struct index_row *row, uint64_t limit),
                           uint64_t limit)
{
    struct index_row row;
    uint64_t low = stream->first, high = stream->stored_end;
    enum err err;
    while (low < high) { /* offsets below low lie in rows before it, high in it or behind */
        uint64_t middle = low + (high - low) / 2;
        err = row_find(stream, middle, &row);
        if (err != ERR_NONE && err != ERR_NOT_FOUND)
            return stream->first;
        if (err != ERR_NONE || after(&row, limit))
            high = middle;
        else
            low = row.end;
    }
    err = row_find(stream, low, &row);
    return err == ERR_NONE ? row.base : err == ERR_NOT_FOUND ? stream->stored_end : stream->first;
}

static bool ends_behind(const struct index_row *row, uint64_t sum)
{
    return row->sum >= sum;
}

static bool peaks_at(const struct index_row *row, uint64_t ms)
{
    return row->peak_ms >= (int64_t)ms;
}

/* The newest timestamp that the row may have: its own when it is in memory, else of its block. */
static int64_t row_ms(struct stream *stream, const struct stream_row *row)
{
    struct block_log *log = &stream->store->logs[(row->pos & STORE_VOLATILE) == 0];
    struct block *block = block_find(log, &log->peek_hint, row->pos);
    if (block == NULL)
        return INT64_MAX;
    return block->buf != NULL ? (int64_t)be64_get(block_at(block, row->pos)) : block->max_ms;
}

static uint64_t retain_bytes(struct stream *stream, uint64_t max_bytes)
{
    uint64_t kept = 0;
    for (uint32_t i = stream->used; i > 0; i--) {
        const struct stream_row *row = stream_row_at(stream, i - 1);
        if (row->pos == UINT64_MAX)
            continue;
        kept += row->len;
        if (kept > max_bytes)
            return row->base + row->count;
    }
    struct index_row last;
    if (!stored_any(stream) || row_last(stream, &last) != ERR_NONE)
        return stream->first;
    uint64_t left = max_bytes - kept, end = sum_behind(&last);
    return left >= end ? stream->first : row_search(stream, ends_behind, end - left);
}

/* The base of the first entry at or behind `from` that may be as new as ms. */
static uint64_t rows_search_ms(struct stream *stream, uint64_t from, int64_t ms)
{
    for (uint32_t i = stream_row_find(stream, from); i < stream->used; i++) {
        const struct stream_row *row = stream_row_at(stream, i);
        if (row->pos != UINT64_MAX && row_ms(stream, row) >= ms)
            return row->base;
    }
    return stream->next;
}

static uint64_t search_ms(struct stream *stream, int64_t ms)
{
    if (stored_any(stream)) {
        struct index_row last;
        enum err err = row_last(stream, &last);
        if (err != ERR_NONE && err != ERR_NOT_FOUND)
            return stream->first;
        if (err == ERR_NONE && last.peak_ms >= ms)
            return row_search(stream, peaks_at, (uint64_t)ms);
        return rows_search_ms(stream, stream->stored_end, ms);
    }
    return rows_search_ms(stream, stream->first, ms);
}

uint64_t stream_retain_from(struct stream *stream, uint64_t max_bytes, int64_t min_ms)
{
    uint64_t first = stream->first;
    if (max_bytes != UINT64_MAX) {
        uint64_t from = retain_bytes(stream, max_bytes);
        first = from > first ? from : first;
    }
    if (min_ms != INT64_MIN) {
        uint64_t from = search_ms(stream, min_ms);
        first = from > first ? from : first;
    }
    return first < stream->next ? first : stream->next;
}

uint64_t stream_seek_time(struct stream *stream, int64_t ms)
{
    uint64_t offset = search_ms(stream, ms);
    return offset > stream->first ? offset : stream->first;
}
