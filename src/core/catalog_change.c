/* See catalog_change.h. */
#include "core/catalog_change.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { HEAD_BYTES = 1 + 4, FIELDS_BYTES_MAX = 128, RUN_BYTES = 12 };

/* ---- Encoding ---- */

static uint32_t count_runs(const struct change *change)
{
    uint32_t runs = 0;
    for (uint32_t i = 0; i < change->partition_count; i++)
        runs += i == 0 || change->partitions[i] != change->partitions[i - 1] + 1;
    return runs;
}

static void put_runs(struct writer *writer, const struct change *change)
{
    writer_u32(writer, count_runs(change));
    for (uint32_t i = 0; i < change->partition_count;) {
        uint32_t end = i + 1;
        while (end < change->partition_count &&
               change->partitions[end] == change->partitions[end - 1] + 1)
            end++;
        writer_u64(writer, change->partitions[i]);
        writer_u32(writer, end - i);
        i = end;
    }
}

static void put_name(struct writer *writer, struct slice name)
{
    assert(name.len <= UINT16_MAX);
    writer_u16(writer, (uint16_t)name.len);
    writer_slice(writer, name);
}

static void put_fields(struct writer *writer, const struct change *change)
{
    writer_u64(writer, change->id);
    switch (change->type) {
    case CHANGE_NEXT_ID:
    case CHANGE_REMOVE_NAMESPACE:
    case CHANGE_REMOVE_EXCHANGE:
    case CHANGE_REMOVE_QUEUE:
    case CHANGE_REMOVE_TOPIC:
        return;
    case CHANGE_ADD_NAMESPACE:
        put_name(writer, change->name);
        return;
    case CHANGE_ADD_EXCHANGE:
        writer_u32(writer, change->namespace_id);
        writer_u8(writer, change->flags);
        writer_u8(writer, (uint8_t)change->exchange_type);
        put_name(writer, change->name);
        break;
    case CHANGE_ADD_QUEUE:
        writer_u32(writer, change->namespace_id);
        writer_u8(writer, change->flags);
        writer_u64(writer, change->owner);
        put_name(writer, change->name);
        break;
    case CHANGE_ADD_TOPIC:
        writer_u32(writer, change->namespace_id);
        writer_bytes(writer, change->uuid, sizeof change->uuid);
        put_runs(writer, change);
        put_name(writer, change->name);
        break;
    case CHANGE_GROW_TOPIC:
        writer_u32(writer, change->first_index);
        put_runs(writer, change);
        return;
    case CHANGE_CONFIGURE_TOPIC:
        break;
    case CHANGE_BIND:
    case CHANGE_UNBIND:
        writer_u8(writer, (uint8_t)change->source_kind);
        writer_u8(writer, (uint8_t)change->target_kind);
        writer_u64(writer, change->target);
        put_name(writer, change->name);
        break;
    }
    args_encode(writer, change->args);
}

enum err change_encode(struct catalog_changes *out, const struct change *change)
{
    size_t need = HEAD_BYTES + FIELDS_BYTES_MAX + change->name.len + args_size(change->args) +
                  (size_t)count_runs(change) * RUN_BYTES;
    if (out->capacity - out->len < need) {
        size_t capacity = out->len + need + out->capacity;
        uint8_t *data = realloc(out->data, capacity);
        if (data == NULL)
            return ERR_NO_MEMORY;
        out->data = data;
        out->capacity = capacity;
    }
    struct writer writer = writer_over(out->data + out->len, out->capacity - out->len);
    writer_u8(&writer, (uint8_t)change->type);
    uint8_t *length = writer_reserve(&writer, 4);
    put_fields(&writer, change);
    assert(!writer.failed);
    be32_put(length, (uint32_t)(writer.at - length - 4));
    out->len = (size_t)(writer.at - out->data);
    out->count++;
    return ERR_NONE;
}

/* ---- Decoding ---- */

static void get_runs(struct reader *reader, struct change *change)
{
    uint32_t runs = reader_u32(reader);
    if (runs > CATALOG_PARTITIONS_MAX) {
        reader_fail(reader);
        return;
    }
    change->runs = reader_slice(reader, (size_t)runs * RUN_BYTES);
    struct reader inside = reader_over(change->runs);
    uint64_t total = 0, end = 0;
    for (uint32_t i = 0; i < runs && !reader->failed; i++) {
        uint64_t first = reader_u64(&inside);
        uint32_t count = reader_u32(&inside);
        total += count;
        if (count == 0 || first < end || first > UINT64_MAX - count ||
            total > CATALOG_PARTITIONS_MAX)
            reader_fail(reader);
        end = first + count;
    }
    change->partition_count = (uint32_t)total;
    if (total == 0)
        reader_fail(reader);
}

static struct slice get_name(struct reader *reader)
{
    uint16_t len = reader_u16(reader);
    if (len > CATALOG_NAME_BYTES_MAX)
        reader_fail(reader);
    return reader_slice(reader, len);
}

static uint8_t get_at_most(struct reader *reader, uint8_t limit)
{
    uint8_t value = reader_u8(reader);
    if (value > limit)
        reader_fail(reader);
    return value;
}

static void get_args(struct reader *reader, struct change *change)
{
    const uint8_t *start = reader->at;
    if (args_skip(reader, &change->args_count))
        change->args_bytes = slice_make(start, (size_t)(reader->at - start));
}

static void get_fields(struct reader *reader, struct change *change)
{
    change->id = reader_u64(reader);
    switch (change->type) {
    case CHANGE_NEXT_ID:
    case CHANGE_REMOVE_NAMESPACE:
    case CHANGE_REMOVE_EXCHANGE:
    case CHANGE_REMOVE_QUEUE:
    case CHANGE_REMOVE_TOPIC:
        return;
    case CHANGE_ADD_NAMESPACE:
        if (change->id > UINT32_MAX)
            reader_fail(reader);
        change->name = get_name(reader);
        return;
    case CHANGE_ADD_EXCHANGE:
        change->namespace_id = reader_u32(reader);
        change->flags = reader_u8(reader);
        change->exchange_type = get_at_most(reader, EXCHANGE_TYPES - 1);
        change->name = get_name(reader);
        break;
    case CHANGE_ADD_QUEUE:
        change->namespace_id = reader_u32(reader);
        change->flags = reader_u8(reader);
        change->owner = reader_u64(reader);
        change->name = get_name(reader);
        break;
    case CHANGE_ADD_TOPIC: {
        change->namespace_id = reader_u32(reader);
        struct slice uuid = reader_slice(reader, sizeof change->uuid);
        if (uuid.data != NULL)
            memcpy(change->uuid, uuid.data, sizeof change->uuid);
        get_runs(reader, change);
        change->name = get_name(reader);
        break;
    }
    case CHANGE_GROW_TOPIC:
        change->first_index = reader_u32(reader);
        get_runs(reader, change);
        if (change->first_index > CATALOG_PARTITIONS_MAX - change->partition_count)
            reader_fail(reader);
        return;
    case CHANGE_CONFIGURE_TOPIC:
        break;
    case CHANGE_BIND:
    case CHANGE_UNBIND:
        change->source_kind = get_at_most(reader, TARGET_TOPIC);
        change->target_kind = get_at_most(reader, TARGET_TOPIC);
        change->target = reader_u64(reader);
        change->name = get_name(reader);
        if (change->source_kind == TARGET_QUEUE)
            reader_fail(reader);
        break;
    }
    get_args(reader, change);
}

enum err change_decode(struct slice encoded, struct change *out, size_t *used)
{
    struct reader reader = reader_over(encoded);
    uint8_t type = reader_u8(&reader);
    uint32_t length = reader_u32(&reader);
    struct slice fields = reader_slice(&reader, length);
    if (reader.failed || type < CHANGE_NEXT_ID || type > CHANGE_UNBIND)
        return ERR_CORRUPT;
    struct reader inside = reader_over(fields);
    struct change change = {.type = type};
    get_fields(&inside, &change);
    if (inside.failed || reader_left(&inside) > 0)
        return ERR_CORRUPT;
    *out = change;
    *used = HEAD_BYTES + fields.len;
    return ERR_NONE;
}

void change_partitions(const struct change *change, uint64_t *ids)
{
    struct reader reader = reader_over(change->runs);
    while (reader_left(&reader) > 0) {
        uint64_t first = reader_u64(&reader);
        uint32_t count = reader_u32(&reader);
        for (uint32_t i = 0; i < count; i++)
            *ids++ = first + i;
    }
}
