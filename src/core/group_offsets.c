/* Committed offsets of a group: by topic, then by partition in order. */
#include "core/group_state.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

enum { COMMITTED_BYTES = 4 + 4 + 8 + 8 + 2 };

static uint32_t topic_hash(struct slice topic)
{
    return table_hash(XXH3_64bits(topic.data, topic.len));
}

static struct offsets_topic *topic_find(const struct offsets *offsets, struct slice name)
{
    uint32_t hash = topic_hash(name), at = hash;
    for (struct offsets_topic *topic; (topic = table_next(&offsets->topics, hash, &at)) != NULL;) {
        if (slice_equal(topic->name, name))
            return topic;
    }
    return NULL;
}

static struct offsets_topic *topic_enter(struct offsets *offsets, struct slice name)
{
    struct offsets_topic *topic = topic_find(offsets, name);
    if (topic != NULL)
        return topic;
    topic = calloc(1, sizeof *topic + name.len);
    if (topic == NULL || !table_reserve(&offsets->topics)) {
        free(topic);
        return NULL;
    }
    if (name.len > 0)
        memcpy(topic + 1, name.data, name.len);
    topic->name = slice_make(topic + 1, name.len);
    topic->hash = topic_hash(name);
    table_put(&offsets->topics, topic->hash, topic);
    return topic;
}

static void topic_leave(struct offsets *offsets, struct offsets_topic *topic)
{
    if (topic->count > 0)
        return;
    table_take(&offsets->topics, topic->hash, topic);
    free(topic->items);
    free(topic);
}

/* Its place, or where it belongs. */
static uint32_t place_of(const struct offsets_topic *topic, uint32_t partition)
{
    uint32_t low = 0, high = topic->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (topic->items[middle].partition < partition)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool is_at(const struct offsets_topic *topic, uint32_t place, uint32_t partition)
{
    return place < topic->count && topic->items[place].partition == partition;
}

const struct committed *offsets_find(const struct offsets *offsets, struct slice topic_name,
                                     uint32_t partition)
{
    const struct offsets_topic *topic = topic_find(offsets, topic_name);
    if (topic == NULL)
        return NULL;
    uint32_t place = place_of(topic, partition);
    return is_at(topic, place, partition) ? &topic->items[place] : NULL;
}

static bool make_room(struct offsets_topic *topic)
{
    if (topic->count < topic->capacity)
        return true;
    uint32_t capacity = topic->capacity == 0 ? 1 : topic->capacity * 2;
    struct committed *items = realloc(topic->items, capacity * sizeof *items);
    if (items == NULL)
        return false;
    topic->items = items;
    topic->capacity = capacity;
    return true;
}

enum err offsets_set(struct offsets *offsets, const struct group_offset *offset, int64_t time_ms)
{
    struct slice metadata = {0};
    if (offset->metadata.len > 0 && (metadata = slice_copy(offset->metadata)).data == NULL)
        return ERR_NO_MEMORY;
    struct offsets_topic *topic = topic_enter(offsets, offset->topic);
    if (topic == NULL || !make_room(topic)) {
        if (topic != NULL)
            topic_leave(offsets, topic);
        free((void *)(uintptr_t)metadata.data);
        return ERR_NO_MEMORY;
    }
    uint32_t place = place_of(topic, offset->partition);
    struct committed *at = &topic->items[place];
    if (is_at(topic, place, offset->partition)) {
        free((void *)(uintptr_t)at->metadata.data);
    } else {
        memmove(at + 1, at, (topic->count - place) * sizeof *at);
        topic->count++;
        offsets->count++;
    }
    *at = (struct committed){
        .partition = offset->partition,
        .leader_epoch = offset->leader_epoch,
        .offset = offset->offset,
        .time_ms = time_ms,
        .metadata = metadata,
    };
    return ERR_NONE;
}

void offsets_remove(struct offsets *offsets, struct slice topic_name, uint32_t partition)
{
    struct offsets_topic *topic = topic_find(offsets, topic_name);
    if (topic == NULL)
        return;
    uint32_t place = place_of(topic, partition);
    if (!is_at(topic, place, partition))
        return;
    struct committed *at = &topic->items[place];
    free((void *)(uintptr_t)at->metadata.data);
    memmove(at, at + 1, (topic->count - place - 1) * sizeof *at);
    topic->count--;
    offsets->count--;
    topic_leave(offsets, topic);
}

void offsets_done(struct offsets *offsets)
{
    uint32_t at = 0;
    for (struct offsets_topic *topic; (topic = table_walk(&offsets->topics, &at)) != NULL;) {
        for (uint32_t i = 0; i < topic->count; i++)
            free((void *)(uintptr_t)topic->items[i].metadata.data);
        free(topic->items);
        free(topic);
    }
    table_done(&offsets->topics);
    *offsets = (struct offsets){0};
}

/* ---- Stored form: u32 topics, each u16+name, u32 count, count x {u32 partition, i32 epoch,
 * i64 offset, i64 time, u16+metadata} ---- */

size_t offsets_size(const struct offsets *offsets)
{
    size_t size = 4;
    uint32_t at = 0;
    for (const struct offsets_topic *topic; (topic = table_walk(&offsets->topics, &at)) != NULL;) {
        size += 2 + topic->name.len + 4 + (size_t)topic->count * COMMITTED_BYTES;
        for (uint32_t i = 0; i < topic->count; i++)
            size += topic->items[i].metadata.len;
    }
    return size;
}

void offsets_encode(const struct offsets *offsets, struct writer *writer)
{
    writer_u32(writer, offsets->topics.count);
    uint32_t at = 0;
    for (const struct offsets_topic *topic; (topic = table_walk(&offsets->topics, &at)) != NULL;) {
        writer_u16(writer, (uint16_t)topic->name.len);
        writer_slice(writer, topic->name);
        writer_u32(writer, topic->count);
        for (uint32_t i = 0; i < topic->count; i++) {
            const struct committed *item = &topic->items[i];
            writer_u32(writer, item->partition);
            writer_i32(writer, item->leader_epoch);
            writer_i64(writer, item->offset);
            writer_i64(writer, item->time_ms);
            writer_u16(writer, (uint16_t)item->metadata.len);
            writer_slice(writer, item->metadata);
        }
    }
}

enum err offsets_decode(struct offsets *offsets, struct reader *reader)
{
    uint32_t topics = reader_u32(reader);
    for (; topics > 0 && !reader->failed; topics--) {
        struct group_offset offset = {.topic = reader_slice(reader, reader_u16(reader))};
        uint32_t count = reader_u32(reader);
        for (; count > 0 && !reader->failed; count--) {
            offset.partition = reader_u32(reader);
            offset.leader_epoch = reader_i32(reader);
            offset.offset = reader_i64(reader);
            int64_t time_ms = reader_i64(reader);
            offset.metadata = reader_slice(reader, reader_u16(reader));
            if (reader->failed)
                break;
            enum err err = offsets_set(offsets, &offset, time_ms);
            if (err != ERR_NONE)
                return err;
        }
    }
    return reader->failed ? ERR_CORRUPT : ERR_NONE;
}
