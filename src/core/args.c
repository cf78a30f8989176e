/* See args.h. */
#include "core/args.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { ARG_BYTES_LEAST = 2 + 1 + 1 + 8 + 4 };

const struct arg *args_find_slice(struct args args, struct slice name)
{
    for (uint32_t i = 0; i < args.count; i++) {
        if (slice_equal(args.items[i].name, name))
            return &args.items[i];
    }
    return NULL;
}

const struct arg *args_find(struct args args, const char *name)
{
    return args_find_slice(args, slice_of(name));
}

bool arg_equal(const struct arg *a, const struct arg *b)
{
    if (a->kind != b->kind)
        return false;
    switch (a->kind) {
    case ARG_VOID:
        return true;
    case ARG_BOOL:
        return (a->number != 0) == (b->number != 0);
    case ARG_INT:
    case ARG_TIME:
    case ARG_DOUBLE:
        return a->number == b->number;
    case ARG_TEXT:
    case ARG_BYTES:
        return slice_equal(a->text, b->text);
    case ARG_OTHER:
        return a->wire_type == b->wire_type && slice_equal(a->text, b->text);
    }
    return false;
}

size_t args_size(struct args args)
{
    size_t size = 4;
    for (uint32_t i = 0; i < args.count; i++)
        size += ARG_BYTES_LEAST + args.items[i].name.len + args.items[i].text.len;
    return size;
}

void args_encode(struct writer *writer, struct args args)
{
    writer_u32(writer, args.count);
    for (uint32_t i = 0; i < args.count; i++) {
        const struct arg *arg = &args.items[i];
        if (arg->name.len > UINT16_MAX || arg->text.len > UINT32_MAX) {
            writer_fail(writer);
            return;
        }
        writer_u16(writer, (uint16_t)arg->name.len);
        writer_slice(writer, arg->name);
        writer_u8(writer, (uint8_t)arg->kind);
        writer_u8(writer, arg->wire_type);
        writer_i64(writer, arg->number);
        writer_u32(writer, (uint32_t)arg->text.len);
        writer_slice(writer, arg->text);
    }
}

/* How many there are; 0 and a failed reader when the bytes cannot hold as many. */
static uint32_t read_count(struct reader *reader)
{
    uint32_t count = reader_u32(reader);
    if (count > reader_left(reader) / ARG_BYTES_LEAST) {
        reader_fail(reader);
        return 0;
    }
    return count;
}

static void read_arg(struct reader *reader, struct arg *out)
{
    out->name = reader_slice(reader, reader_u16(reader));
    uint8_t kind = reader_u8(reader);
    if (kind > ARG_OTHER)
        reader_fail(reader);
    out->kind = kind;
    out->wire_type = reader_u8(reader);
    out->number = reader_i64(reader);
    out->text = reader_slice(reader, reader_u32(reader));
}

bool args_skip(struct reader *reader, uint32_t *count)
{
    *count = read_count(reader);
    struct arg ignored;
    for (uint32_t i = 0; i < *count && !reader->failed; i++)
        read_arg(reader, &ignored);
    return !reader->failed;
}

void args_read(struct slice encoded, struct arg *items)
{
    struct reader reader = reader_over(encoded);
    uint32_t count = read_count(&reader);
    for (uint32_t i = 0; i < count; i++)
        read_arg(&reader, &items[i]);
    assert(!reader.failed);
}

bool args_decode(struct reader *reader, struct arena *arena, struct args *out)
{
    uint32_t count = read_count(reader);
    if (reader->failed)
        return false;
    struct arg *items = arena_array(arena, count, sizeof *items);
    if (items == NULL)
        return false;
    for (uint32_t i = 0; i < count; i++)
        read_arg(reader, &items[i]);
    if (reader->failed)
        return false;
    *out = (struct args){items, count};
    return true;
}

static struct slice copy_slice(uint8_t **at, struct slice slice)
{
    struct slice copy = slice_make(*at, slice.len);
    if (slice.len > 0)
        memcpy(*at, slice.data, slice.len);
    *at += slice.len;
    return copy;
}

struct arg *args_copy(struct args args)
{
    size_t bytes = 1; /* so that it is never empty */
    for (uint32_t i = 0; i < args.count; i++)
        bytes += args.items[i].name.len + args.items[i].text.len;
    struct arg *items = malloc(args.count * sizeof *items + bytes);
    if (items == NULL)
        return NULL;
    uint8_t *at = (uint8_t *)(items + args.count);
    for (uint32_t i = 0; i < args.count; i++) {
        items[i] = args.items[i];
        items[i].name = copy_slice(&at, args.items[i].name);
        items[i].text = copy_slice(&at, args.items[i].text);
    }
    return items;
}

bool args_same(struct args a, struct args b)
{
    if (a.count != b.count)
        return false;
    for (uint32_t i = 0; i < a.count; i++) {
        const struct arg *other = args_find_slice(b, a.items[i].name);
        if (other == NULL || !arg_equal(&a.items[i], other))
            return false;
    }
    return true;
}
