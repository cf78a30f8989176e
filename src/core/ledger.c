/* Settling in order moves stream.first; settling out of order adds to `settled` until the messages
 * before it are settled too. The stored form is
 *
 *   u8 version (1), u64 reflects, u64 first, u64 next, u64 durable bytes,
 *   u32 n, n x {u64 first, u64 last}   settled or fleeting, above first
 *   u32 n, n x {u64 offset, u32 returns}
 */
#include "core/ledger.h"

#include "codec/entry.h"

#include <assert.h>

enum { LEDGER_VERSION = 1 };

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

enum err ledger_settle(struct ledger *ledger, uint64_t first, uint64_t last, uint64_t body_bytes,
                       uint64_t durable_bytes)
{
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
        for (uint64_t offset = first; offset <= last; offset++)
            stream_forget(&ledger->stream, offset);
    }
    if (ledger->returns.count > 0) {
        for (uint64_t offset = first; offset <= last; offset++)
            map_take(&ledger->returns, offset);
    }
    ledger->count -= settled;
    ledger->bytes -= body_bytes < ledger->bytes ? body_bytes : ledger->bytes;
    ledger->durable_bytes -=
        durable_bytes < ledger->durable_bytes ? durable_bytes : ledger->durable_bytes;
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

/* What the stored form calls settled: with the fleeting ones, that a restart loses. */
static bool stored_settled(const struct ledger *ledger, struct ranges *out)
{
    for (uint32_t i = 0; i < ranges_count(&ledger->settled); i++) {
        const struct range *range = ranges_item(&ledger->settled, i);
        if (!ranges_add(out, range->first, range->last))
            return false;
    }
    for (uint32_t i = 0; i < ranges_count(&ledger->fleeting); i++) {
        const struct range *range = ranges_item(&ledger->fleeting, i);
        if (!ranges_add(out, range->first, range->last))
            return false;
    }
    ranges_cut(out, ledger->stream.first);
    return true;
}

size_t ledger_size(const struct ledger *ledger)
{
    size_t ranges = (size_t)ranges_count(&ledger->settled) + ranges_count(&ledger->fleeting);
    return 1 + 4 * 8 + 4 + ranges * 16 + 4 + (size_t)ledger->returns.count * 12;
}

void ledger_encode(const struct ledger *ledger, struct writer *writer, uint64_t reflects)
{
    struct ranges settled = {0};
    if (!stored_settled(ledger, &settled)) {
        ranges_done(&settled);
        writer->failed = true;
        return;
    }
    writer_u8(writer, LEDGER_VERSION);
    writer_u64(writer, reflects);
    writer_u64(writer, ledger->stream.first);
    writer_u64(writer, ledger->stream.next);
    writer_u64(writer, ledger->durable_bytes);
    writer_u32(writer, ranges_count(&settled));
    for (uint32_t i = 0; i < ranges_count(&settled); i++) {
        writer_u64(writer, ranges_item(&settled, i)->first);
        writer_u64(writer, ranges_item(&settled, i)->last);
    }
    writer_u32(writer, ledger->returns.count);
    uint32_t at = 0;
    for (struct map_slot *slot; (slot = map_next(&ledger->returns, &at)) != NULL;) {
        writer_u64(writer, slot->key);
        writer_u32(writer, (uint32_t)(uintptr_t)slot->value);
    }
    ranges_done(&settled);
}

enum err ledger_restore(struct ledger *ledger, struct slice stored)
{
    struct reader reader = reader_over(stored);
    if (reader_u8(&reader) != LEDGER_VERSION)
        return ERR_CORRUPT;
    ledger->reflects = reader_u64(&reader);
    ledger->stream.first = reader_u64(&reader);
    ledger->stream.next = reader_u64(&reader);
    ledger->durable_bytes = ledger->bytes = reader_u64(&reader);
    if (ledger->stream.first > ledger->stream.next)
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
        if (count > 0 && !reader.failed && !map_put(&ledger->returns, offset, (void *)count))
            return ERR_NO_MEMORY;
    }
    if (reader.failed)
        return ERR_CORRUPT;
    if (ranges_has(&ledger->settled, ledger->stream.first))
        advance_first(ledger, ledger->stream.first);
    return ERR_NONE;
}
