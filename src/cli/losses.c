/* Gathering and naming. A block of an extent says whose messages it held. What stood in a damaged
 * frame of the journal is read as far as it makes sense; it is not relied on for anything but these
 * words. What was settled meanwhile is no loss: the stored objects and the journal's other records
 * say so. Names come from the definitions, as far as these are there. */
#include "cli/losses.h"

#include "base/endian.h"
#include "codec/reader.h"
#include "core/catalog_change.h"
#include "core/cell_state.h"
#include "core/ledger.h"
#include "core/partition.h"
#include "store/format.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define RANGES_SHOWN 8u

struct stream_loss {
    uint64_t id;
    struct ranges offsets; /* of messages */
    struct ranges again;   /* of settles: these messages come again */
    bool state;            /* its stored object: what is settled, where it begins */
};

/* ---- Gathering ---- */

__attribute__((format(printf, 3, 4))) static void
line_add(struct losses *losses, struct lines *lines, const char *format, ...)
{
    char text[4600];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    if (lines->count == lines->room) {
        uint32_t room = lines->room == 0 ? 16 : lines->room * 2;
        char **data = realloc(lines->data, room * sizeof *data);
        if (data == NULL) {
            losses->no_memory = true;
            return;
        }
        lines->data = data;
        lines->room = room;
    }
    char *copy = strdup(text);
    if (copy == NULL)
        losses->no_memory = true;
    else
        lines->data[lines->count++] = copy;
}

/* A name as it can stand in a line: what a client chose may hold anything. */
static const char *plain(struct slice name, char out[256])
{
    size_t len = name.len < 255 ? name.len : 255;
    for (size_t i = 0; i < len; i++)
        out[i] = (char)(name.data[i] < ' ' || name.data[i] == 127 ? '?' : name.data[i]);
    out[len] = '\0';
    return out;
}

static struct stream_loss *stream_find(struct losses *losses, uint64_t id)
{
    struct stream_loss *stream = map_get(&losses->streams, id);
    if (stream != NULL)
        return stream;
    stream = calloc(1, sizeof *stream);
    if (stream == NULL || !map_put(&losses->streams, id, stream)) {
        free(stream);
        losses->no_memory = true;
        return NULL;
    }
    stream->id = id;
    return stream;
}

static void messages_lost(struct losses *losses, uint64_t id, uint64_t first, uint64_t last)
{
    struct stream_loss *stream = stream_find(losses, id);
    if (stream != NULL && !ranges_add(&stream->offsets, first, last))
        losses->no_memory = true;
}

static void step(void *ctx, const char *text)
{
    struct losses *losses = ctx;
    line_add(losses, &losses->steps, "%s", text);
}

static void row_lost(void *ctx, struct slice key)
{
    struct losses *losses = ctx;
    bool object = index_table(key) == 'O' && key.len == 10;
    uint8_t kind = object ? key.data[1] : 0;
    uint64_t id = object ? be64_get(key.data + 2) : 0;
    struct stream_loss *stream = NULL;
    if (kind == OBJECT_QUEUE || kind == OBJECT_PARTITION)
        stream = stream_find(losses, id);
    if (stream != NULL)
        stream->state = true;
    else if (kind == OBJECT_GROUP)
        line_add(losses, &losses->others, "the committed offsets of a group");
    else if (kind == OBJECT_CATALOG_CHANGE)
        line_add(losses, &losses->others, "a change of the definitions");
    else
        line_add(losses, &losses->others, "a row of the state store of which nothing can be read");
}

static void block_lost(void *ctx, const struct index_row *row)
{
    messages_lost(ctx, row->stream, row->base, row->end - 1);
}

/* ---- What stood in a damaged frame ---- */

static void settles_lost(struct losses *losses, const struct record *record)
{
    struct stream_loss *stream = stream_find(losses, record->object);
    for (uint32_t i = 0; stream != NULL && i < record->range_count; i++) {
        struct offset_range range = record_range(record, i);
        if (range.first > range.last)
            continue;
        if (!ranges_add(&stream->again, range.first, range.last))
            losses->no_memory = true;
    }
}

static void changes_lost(struct losses *losses, struct slice changes)
{
    while (changes.len > 0) {
        struct change change;
        char name[256];
        size_t used = 0;
        if (change_decode(changes, &change, &used) != ERR_NONE)
            return;
        line_add(losses, &losses->others, "a change of the definitions, of '%s'",
                 plain(change.name, name));
        changes = slice_make(changes.data + used, changes.len - used);
    }
}

static void record_lost(struct losses *losses, const struct record *record)
{
    struct reader reader = reader_over(record->bytes);
    switch (record->type) {
    case RECORD_MOVE:
    case RECORD_APPEND:
        for (uint32_t i = 0; i < record->target_count; i++)
            messages_lost(losses, record->targets[i].object, record->targets[i].base,
                          record->targets[i].base);
        break;
    case RECORD_BATCH:
        messages_lost(losses, record->targets[0].object, record->targets[0].base,
                      record->targets[0].base + record->count - 1);
        break;
    case RECORD_SETTLE:
        settles_lost(losses, record);
        break;
    case RECORD_CATALOG:
        changes_lost(losses, record->bytes);
        break;
    case RECORD_GROUP: {
        reader_u8(&reader);
        char name[256];
        struct slice group = reader_slice(&reader, reader_u16(&reader));
        line_add(losses, &losses->others, "a commit of offsets of the group '%s'",
                 plain(group, name));
        break;
    }
    case RECORD_RETURN:
    case RECORD_TRIM:
    case RECORD_DROP:
    case RECORD_PRODUCER_IDS:
    case RECORD_NOTHING:
        break;
    }
}

/* The records of one frame, as far as lengths and contents make sense. */
static void body_read(struct losses *losses, const uint8_t *body, size_t len)
{
    size_t at = 0;
    while (len - at >= RECORD_HEADER_BYTES) {
        struct record record;
        uint32_t bytes = le32_get(body + at);
        if (bytes == 0 || bytes > len - at - RECORD_HEADER_BYTES)
            break;
        if (record_decode(slice_make(body + at + RECORD_HEADER_BYTES, bytes), &record) == ERR_NONE)
            record_lost(losses, &record);
        else
            losses->unread_bytes += bytes;
        at += RECORD_HEADER_BYTES + bytes;
    }
    while (len > at && body[len - 1] == 0) /* padding */
        len--;
    losses->unread_bytes += len - at;
}

static void frames_lost(void *ctx, uint64_t frames, const uint8_t *data, size_t len)
{
    struct losses *losses = ctx;
    losses->frames += frames;
    size_t at = 0;
    for (uint64_t i = 0; i < frames && len - at > FRAME_HEADER_BYTES; i++) {
        uint64_t body = le32_get(data + at + 8), room = len - at - FRAME_HEADER_BYTES;
        if (i + 1 == frames || body > room) /* to the end, whatever its header says */
            body = room;
        body_read(losses, data + at + FRAME_HEADER_BYTES, body);
        at += frame_bytes((uint32_t)body) < len - at ? frame_bytes((uint32_t)body) : len - at;
    }
}

/* ---- What is there ---- */

static void settled_note(void *ctx, uint64_t first, uint64_t last)
{
    struct stream_loss *stream = ctx;
    if (!ranges_remove(&stream->offsets, first, last))
        return; /* then it stays named although it is no loss */
}

static void record_there(void *ctx, struct slice encoded)
{
    struct losses *losses = ctx;
    struct record record;
    if (record_decode(encoded, &record) != ERR_NONE)
        return;
    struct stream_loss *stream = map_get(&losses->streams, record.object);
    if (record.type == RECORD_SETTLE && stream != NULL) {
        for (uint32_t i = 0; i < record.range_count; i++) {
            struct offset_range range = record_range(&record, i);
            if (range.first <= range.last)
                settled_note(stream, range.first, range.last);
        }
    }
    if (record.type != RECORD_CATALOG)
        return;
    if (losses->changes_room - losses->changes_len < record.bytes.len) {
        size_t room = 2 * losses->changes_room + record.bytes.len;
        uint8_t *changes = realloc(losses->changes, room);
        if (changes == NULL) {
            losses->no_memory = true;
            return;
        }
        losses->changes = changes;
        losses->changes_room = room;
    }
    memcpy(losses->changes + losses->changes_len, record.bytes.data, record.bytes.len);
    losses->changes_len += record.bytes.len;
}

static void changes_apply(struct catalog *catalog, struct slice changes)
{
    while (changes.len > 0) {
        size_t used = 0;
        if (catalog_apply(catalog, changes, &used, NULL, NULL) != ERR_NONE || used == 0)
            return;
        changes = slice_make(changes.data + used, changes.len - used);
    }
}

static void object_there(void *ctx, uint8_t kind, uint64_t id, struct slice value)
{
    struct losses *losses = ctx;
    struct stream_loss *stream = map_get(&losses->streams, id);
    if (kind == OBJECT_QUEUE && stream != NULL) {
        (void)ledger_stored_settled(value, settled_note, stream);
    } else if (kind == OBJECT_PARTITION && stream != NULL) {
        ranges_cut(&stream->offsets, partition_stored_first(value));
    } else if (kind == OBJECT_CATALOG_CHANGE && id == 0 && value.len >= 8) {
        losses->catalog_base = be64_get(value.data);
        changes_apply(losses->catalog, slice_make(value.data + 8, value.len - 8));
    } else if (kind == OBJECT_CATALOG_CHANGE && id >= losses->catalog_base) {
        changes_apply(losses->catalog, value);
    }
}

const struct repair_events losses_events = {
    .step = step,
    .row_lost = row_lost,
    .block_lost = block_lost,
    .frames_lost = frames_lost,
    .record = record_there,
    .object = object_there,
};

/* ---- Telling ---- */

bool losses_init(struct losses *losses)
{
    *losses = (struct losses){.catalog = catalog_create()};
    return losses->catalog != NULL;
}

static void lines_done(struct lines *lines)
{
    for (uint32_t i = 0; i < lines->count; i++)
        free(lines->data[i]);
    free(lines->data);
}

void losses_done(struct losses *losses)
{
    uint32_t at = 0;
    for (struct map_slot *slot; (slot = map_next(&losses->streams, &at)) != NULL;) {
        struct stream_loss *stream = slot->value;
        ranges_done(&stream->offsets);
        ranges_done(&stream->again);
        free(stream);
    }
    map_done(&losses->streams);
    lines_done(&losses->others);
    lines_done(&losses->steps);
    free(losses->changes);
    catalog_destroy(losses->catalog);
}

static void name_put(const struct losses *losses, uint64_t id, char *out, size_t room)
{
    uint32_t index = 0;
    char text[256];
    const struct queue_def *queue = catalog_queue_by_id(losses->catalog, id);
    const struct topic *topic = catalog_partition(losses->catalog, id, &index);
    if (queue != NULL)
        snprintf(out, room, "queue '%s'", plain(queue->name, text));
    else if (topic != NULL)
        snprintf(out, room, "topic '%s' partition %" PRIu32, plain(topic->name, text), index);
    else
        snprintf(out, room, "object %" PRIu64 ", which has no definition", id);
}

static void ranges_print(const struct ranges *ranges, FILE *to)
{
    uint32_t count = ranges_count(ranges), shown = count < RANGES_SHOWN ? count : RANGES_SHOWN;
    for (uint32_t i = 0; i < shown; i++) {
        const struct range *range = ranges_item(ranges, i);
        fprintf(to, "%s%" PRIu64, i == 0 ? "" : ", ", range->first);
        if (range->last > range->first)
            fprintf(to, " to %" PRIu64, range->last);
    }
    if (count > shown)
        fprintf(to, " and %" PRIu32 " more ranges", count - shown);
    fputs("\n", to);
}

static void stream_print(const struct losses *losses, const struct stream_loss *stream, FILE *to)
{
    char name[400];
    name_put(losses, stream->id, name, sizeof name);
    uint64_t messages = ranges_sum(&stream->offsets), again = ranges_sum(&stream->again);
    if (messages > 0) {
        fprintf(to, "lost: %s: %" PRIu64 " message%s, at offsets ", name, messages,
                messages == 1 ? "" : "s");
        ranges_print(&stream->offsets, to);
    }
    if (again > 0) {
        fprintf(to, "lost: %s: that %" PRIu64 " settled once, which may come again: offsets ", name,
                again);
        ranges_print(&stream->again, to);
    }
    if (stream->state)
        fprintf(to, "lost: %s: what is stored of it, so all of its messages\n", name);
}

void losses_print(const struct losses *losses, FILE *to)
{
    changes_apply(losses->catalog, slice_make(losses->changes, losses->changes_len));
    uint32_t at = 0;
    for (struct map_slot *slot; (slot = map_next(&losses->streams, &at)) != NULL;)
        stream_print(losses, slot->value, to);
    for (uint32_t i = 0; i < losses->others.count; i++)
        fprintf(to, "lost: %s\n", losses->others.data[i]);
    if (losses->unread_bytes > 0)
        fprintf(to, "lost: %" PRIu64 " bytes of the journal's records that cannot be read\n",
                losses->unread_bytes);
    if (losses->no_memory)
        fputs("lost: more than there is memory to name\n", to);
}
