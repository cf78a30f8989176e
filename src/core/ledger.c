/* Settling in order moves stream.first; settling out of order adds to `settled` until the messages
 * before it are settled too. The stored form is
 *
 *   u8 version (1), u8 flags (1: some message may expire by itself), u64 reflects, u64 first,
 *   u64 next, u64 durable bytes,
 *   u32 n, n x {u64 first, u64 last}   settled or fleeting, above first
 *   u32 n, n x {u64 offset, u32 returns}
 */
#include "core/ledger.h"

#include "codec/entry.h"

#include <assert.h>

enum { LEDGER_VERSION = 1, LEDGER_EXPIRES = 1 };

/* Longer runs are forgotten without looking at each offset. */
enum { FORGET_EACH_MAX = 64 };

void ledger_init(struct ledger *ledger, struct store *store, uint64_t id)
{
    *ledger = (struct ledger){0};
    stream_init(&ledger->stream, store, id, 0, 0);
}

void ledger_done(struct ledger *ledger, bool drop)
{
    stream_done(&ledger->stream, drop);
    ranges_done(&ledger->settled);
    ranges_done(&ledger->fleeting);
    map_done(&ledger->returns);
}

enum err ledger_append(struct ledger *ledger, uint64_t offset, uint64_t pos, struct slice entry)
{
    bool fleeting = (pos & STORE_VOLATILE) != 0;
    if (fleeting && !ranges_add(&ledger->fleeting, offset, offset))
        return ERR_NO_MEMORY;
    uint64_t gap_from = ledger->stream.next;
    if (offset > gap_from) {
        /* Only at replay: volatile messages stood here. */
        if (gap_from == ledger->stream.first)
            stream_trim(&ledger->stream, offset);
        else if (!ranges_add(&ledger->settled, gap_from, offset - 1))
            return ERR_NO_MEMORY;
    }
    enum err err = stream_add(&ledger->stream, offset, 1, pos, (uint32_t)entry.len);
    if (err != ERR_NONE)
        return err;
    uint32_t body = entry_body_bytes(entry);
    ledger->expires = ledger->expires || entry_head_get(entry).expiry_ms != 0;
    ledger->count++;
    ledger->bytes += body;
    if (!fleeting)
        ledger->durable_bytes += body;
    return ERR_NONE;
}

static void advance_first(struct ledger *ledger, uint64_t first)
{
    const struct range *next = ranges_at(&ledger->settled, first);
    if (next != NULL && next->first <= first)
        first = next->last + 1;
    stream_trim(&ledger->stream, first);
    ranges_cut(&ledger->settled, first);
    if (ranges_count(&ledger->fleeting) > 0)
        ranges_cut(&ledger->fleeting, first);
}

static void forget_returns(struct ledger *ledger, uint64_t first, uint64_t last)
{
    if (last - first < ledger->returns.count) {
        for (uint64_t offset = first; offset <= last; offset++)
            map_take(&ledger->returns, offset);
        return;
    }
    uint32_t at = 0;
    for (struct map_slot *slot; (slot = map_next(&ledger->returns, &at)) != NULL;) {
        if (slot->key >= first && slot->key <= last)
            map_walk_take(&ledger->returns, &at);
    }
}

static void forget_entries(struct ledger *ledger, uint64_t first, uint64_t last)
{
    if (last - first >= FORGET_EACH_MAX) {
        stream_forget_range(&ledger->stream, first, last);
        return;
    }
    for (uint64_t offset = first; offset <= last; offset++)
        stream_forget(&ledger->stream, offset);
}

static uint64_t unsettled_in(const struct ledger *ledger, uint64_t first, uint64_t last)
{
    uint64_t count = last - first + 1;
    for (uint64_t at = first; at <= last;) {
        const struct range *range = ranges_at(&ledger->settled, at);
        if (range == NULL || range->first > last)
            break;
        uint64_t from = range->first > at ? range->first : at;
        uint64_t to = range->last < last ? range->last : last;
        count -= to - from + 1;
        if (to == UINT64_MAX)
            break;
        at = to + 1;
    }
    return count;
}

static void settle_bytes(struct ledger *ledger, uint64_t bytes, uint64_t durable_bytes)
{
    ledger->bytes -= bytes < ledger->bytes ? bytes : ledger->bytes;
    ledger->durable_bytes -=
        durable_bytes < ledger->durable_bytes ? durable_bytes : ledger->durable_bytes;
}

enum err ledger_settle(struct ledger *ledger, uint64_t first, uint64_t last, uint64_t body_bytes,
                       uint64_t durable_bytes)
{
    /* First: the bytes are those of other ranges, too, and at replay this one may be gone. */
    settle_bytes(ledger, body_bytes, durable_bytes);
    if (first < ledger->stream.first)
        first = ledger->stream.first;
    if (last >= ledger->stream.next) {
        if (ledger->stream.next == 0)
            return ERR_NONE;
        last = ledger->stream.next - 1;
    }
    if (first > last)
        return ERR_NONE;
    uint64_t settled = unsettled_in(ledger, first, last);
    if (first == ledger->stream.first) {
        advance_first(ledger, last + 1);
    } else {
        if (!ranges_add(&ledger->settled, first, last))
            return ERR_NO_MEMORY;
        forget_entries(ledger, first, last);
    }
    if (ledger->returns.count > 0)
        forget_returns(ledger, first, last);
    ledger->count -= settled;
    if (ledger->count == 0)
        ledger->expires = false;
    return ERR_NONE;
}

enum err ledger_return(struct ledger *ledger, uint64_t offset)
{
    if (ledger_is_settled(ledger, offset) || offset >= ledger->stream.next)
        return ERR_NONE;
    uintptr_t count = (uintptr_t)map_get(&ledger->returns, offset) + 1;
    if (count > UINT32_MAX)
        return ERR_NONE;
    return map_put(&ledger->returns, offset, (void *)count) ? ERR_NONE : ERR_NO_MEMORY;
}

bool ledger_is_settled(const struct ledger *ledger, uint64_t offset)
{
    return offset < ledger->stream.first || ranges_has(&ledger->settled, offset);
}

bool ledger_is_fleeting(const struct ledger *ledger, uint64_t offset)
{
    return ranges_count(&ledger->fleeting) > 0 && ranges_has(&ledger->fleeting, offset);
}

uint32_t ledger_returns(const struct ledger *ledger, uint64_t offset)
{
    return (uint32_t)(uintptr_t)map_get(&ledger->returns, offset);
}

bool ledger_all_fleeting(const struct ledger *ledger, uint64_t first, uint64_t last)
{
    const struct range *range = ranges_at(&ledger->fleeting, first);
    return range != NULL && range->first <= first && range->last >= last;
}

/* What the stored form calls settled: with the fleeting ones, that a restart loses. A walk over
 * both sets as one. */
struct lost_walk {
    uint32_t settled, fleeting;
};

static bool lost_next(const struct ledger *ledger, struct lost_walk *walk, struct range *out)
{
    bool any = false;
    for (;;) {
        const struct range *settled = walk->settled < ranges_count(&ledger->settled)
                                          ? ranges_item(&ledger->settled, walk->settled)
                                          : NULL;
        const struct range *fleeting = walk->fleeting < ranges_count(&ledger->fleeting)
                                           ? ranges_item(&ledger->fleeting, walk->fleeting)
                                           : NULL;
        bool take_settled =
            settled != NULL && (fleeting == NULL || settled->first <= fleeting->first);
        const struct range *lowest = take_settled ? settled : fleeting;
        if (lowest == NULL || (any && lowest->first > out->last + 1))
            return any;
        if (!any)
            *out = *lowest;
        else if (lowest->last > out->last)
            out->last = lowest->last;
        any = true;
        if (take_settled)
            walk->settled++;
        else
            walk->fleeting++;
    }
}

static bool is_lost(const struct ledger *ledger, uint64_t offset)
{
    return ledger_is_settled(ledger, offset) || ledger_is_fleeting(ledger, offset);
}

size_t ledger_size(const struct ledger *ledger)
{
    size_t ranges = (size_t)ranges_count(&ledger->settled) + ranges_count(&ledger->fleeting);
    return 2 + 4 * 8 + 4 + ranges * 16 + 4 + (size_t)ledger->returns.count * 12;
}

void ledger_encode(const struct ledger *ledger, struct writer *writer, uint64_t reflects)
{
    writer_u8(writer, LEDGER_VERSION);
    writer_u8(writer, ledger->expires ? LEDGER_EXPIRES : 0);
    writer_u64(writer, reflects);
    writer_u64(writer, ledger->stream.first);
    writer_u64(writer, ledger->stream.next);
    writer_u64(writer, ledger->durable_bytes);
    uint32_t count = 0;
    struct range range;
    for (struct lost_walk walk = {0}; lost_next(ledger, &walk, &range);)
        count++;
    writer_u32(writer, count);
    for (struct lost_walk walk = {0}; lost_next(ledger, &walk, &range);) {
        writer_u64(writer, range.first);
        writer_u64(writer, range.last);
    }
    count = 0;
    uint32_t at = 0;
    for (struct map_slot *slot; (slot = map_next(&ledger->returns, &at)) != NULL;)
        count += !is_lost(ledger, slot->key);
    writer_u32(writer, count);
    at = 0;
    for (struct map_slot *slot; (slot = map_next(&ledger->returns, &at)) != NULL;) {
        if (is_lost(ledger, slot->key))
            continue;
        writer_u64(writer, slot->key);
        writer_u32(writer, (uint32_t)(uintptr_t)slot->value);
    }
}

enum err ledger_restore(struct ledger *ledger, struct slice stored)
{
    struct reader reader = reader_over(stored);
    if (reader_u8(&reader) != LEDGER_VERSION)
        return ERR_CORRUPT;
    ledger->expires = (reader_u8(&reader) & LEDGER_EXPIRES) != 0;
    ledger->reflects = reader_u64(&reader);
    ledger->stream.first = reader_u64(&reader);
    ledger->stream.next = reader_u64(&reader);
    ledger->durable_bytes = ledger->bytes = reader_u64(&reader);
    if (ledger->stream.first > ledger->stream.next || ledger->stream.next > INT64_MAX)
        return ERR_CORRUPT;
    ledger->count = ledger->stream.next - ledger->stream.first;
    for (uint32_t n = reader_u32(&reader); n > 0 && !reader.failed; n--) {
        uint64_t first = reader_u64(&reader), last = reader_u64(&reader);
        if (reader.failed || first > last || first < ledger->stream.first ||
            last >= ledger->stream.next || last - first >= ledger->count)
            return ERR_CORRUPT;
        if (!ranges_add(&ledger->settled, first, last))
            return ERR_NO_MEMORY;
        ledger->count -= last - first + 1;
    }
    for (uint32_t n = reader_u32(&reader); n > 0 && !reader.failed; n--) {
        uint64_t offset = reader_u64(&reader);
        uintptr_t count = reader_u32(&reader);
        if (reader.failed)
            break;
        if (ledger_is_settled(ledger, offset) || offset >= ledger->stream.next)
            return ERR_CORRUPT;
        if (count > 0 && !map_put(&ledger->returns, offset, (void *)count))
            return ERR_NO_MEMORY;
    }
    if (reader.failed || reader_left(&reader) > 0)
        return ERR_CORRUPT;
    if (ranges_has(&ledger->settled, ledger->stream.first))
        advance_first(ledger, ledger->stream.first);
    return ERR_NONE;
}

bool ledger_stored_settled(struct slice stored,
                           void (*settled)(void *ctx, uint64_t first, uint64_t last), void *ctx)
{
    struct reader reader = reader_over(stored);
    if (reader_u8(&reader) != LEDGER_VERSION)
        return false;
    reader_u8(&reader);
    reader_u64(&reader);
    uint64_t first = reader_u64(&reader);
    reader_take(&reader, 16);
    if (!reader.failed && first > 0)
        settled(ctx, 0, first - 1);
    for (uint32_t n = reader_u32(&reader); n > 0 && !reader.failed; n--) {
        uint64_t from = reader_u64(&reader), to = reader_u64(&reader);
        if (!reader.failed && from <= to)
            settled(ctx, from, to);
    }
    return !reader.failed;
}
