/* The Kafka side of message.h: a record seen as a message, and a message turned into a record. */
#include "codec/message.h"

#include "codec/amqp_wire.h"

#include <stdio.h>
#include <stdlib.h>

/* Properties that Kafka carries as headers. */
static const struct {
    const char *name;
    uint16_t flag;
    size_t offset; /* of its slice; 0: a number */
} carried[] = {
    {"content-type", AMQP_CONTENT_TYPE, offsetof(struct amqp_properties, content_type)},
    {"content-encoding", AMQP_CONTENT_ENCODING, offsetof(struct amqp_properties, content_encoding)},
    {"correlation-id", AMQP_CORRELATION_ID, offsetof(struct amqp_properties, correlation_id)},
    {"reply-to", AMQP_REPLY_TO, offsetof(struct amqp_properties, reply_to)},
    {"message-id", AMQP_MESSAGE_ID, offsetof(struct amqp_properties, message_id)},
    {"type", AMQP_TYPE, offsetof(struct amqp_properties, type)},
    {"user-id", AMQP_USER_ID, offsetof(struct amqp_properties, user_id)},
    {"app-id", AMQP_APP_ID, offsetof(struct amqp_properties, app_id)},
    {"expiration", AMQP_EXPIRATION, offsetof(struct amqp_properties, expiration)},
    {"priority", AMQP_PRIORITY, 0},
};
enum { CARRIED = sizeof carried / sizeof carried[0], TEXT_MAX = 32, JSON_DEPTH_MAX = 16 };

static struct slice *property_slice(struct amqp_properties *properties, unsigned which)
{
    return (struct slice *)(void *)((char *)properties + carried[which].offset);
}

/* Length of the UTF-8 sequence at `at`, 0 when there is no right one. */
static size_t utf8_step(const uint8_t *at, const uint8_t *end)
{
    uint8_t first = at[0];
    if (first < 0x80)
        return 1;
    size_t len = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
    if (first < 0xC2 || first > 0xF4 || (size_t)(end - at) < len)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((at[i] & 0xC0) != 0x80)
            return 0;
    if ((first == 0xE0 && at[1] < 0xA0) || (first == 0xED && at[1] > 0x9F) ||
        (first == 0xF0 && at[1] < 0x90) || (first == 0xF4 && at[1] > 0x8F))
        return 0;
    return len;
}

static bool utf8_valid(struct slice text)
{
    const uint8_t *end = text.data + text.len;
    for (const uint8_t *at = text.data; at < end;) {
        size_t step = utf8_step(at, end);
        if (step == 0)
            return false;
        at += step;
    }
    return true;
}

static bool number_parse(struct slice text, unsigned max, unsigned *out)
{
    unsigned value = 0;
    if (text.len == 0 || text.len > 9)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return false;
        value = value * 10 + (unsigned)(text.data[i] - '0');
    }
    if (value > max)
        return false;
    *out = value;
    return true;
}

/* Which property the header stands for, if its value can be one; -1 when none. */
static int header_property(struct slice name, struct slice value)
{
    for (unsigned i = 0; i < CARRIED; i++) {
        if (!slice_equal(name, slice_of(carried[i].name)))
            continue;
        unsigned number;
        if (carried[i].flag == AMQP_PRIORITY)
            return number_parse(value, 255, &number) ? (int)i : -1;
        bool fits = value.data && value.len <= AMQP_SHORTSTR_MAX && utf8_valid(value);
        return fits ? (int)i : -1;
    }
    return -1;
}

static bool key_is_routing_key(struct slice key)
{
    return key.data && key.len <= AMQP_SHORTSTR_MAX && utf8_valid(key);
}

bool message_of_record(const struct kafka_record *record, struct slice topic,
                       struct message_view *out)
{
    *out = (struct message_view){
        .form = ENTRY_KAFKA,
        .arrival_ms = record->timestamp_ms,
        .exchange = slice_make("", 0),
        .routing_key = key_is_routing_key(record->key) ? record->key : topic,
        .record_key = record->key,
        .headers = record->headers,
        .headers_count = record->headers_count,
        .body = record->value.data ? record->value : slice_make("", 0),
    };
    out->properties.flags = AMQP_DELIVERY_MODE;
    out->properties.delivery_mode = 2;
    if (record->timestamp_ms >= 0) {
        out->properties.flags |= AMQP_TIMESTAMP;
        out->properties.timestamp = (uint64_t)record->timestamp_ms / 1000;
    }
    struct kafka_headers headers;
    struct kafka_record_header header;
    kafka_headers_init(&headers, record);
    while (kafka_headers_next(&headers, &header)) {
        int which = header_property(header.key, header.value);
        if (which < 0)
            continue;
        out->properties.flags |= carried[which].flag;
        unsigned number;
        if (carried[which].offset)
            *property_slice(&out->properties, (unsigned)which) = header.value;
        else if (number_parse(header.value, 255, &number))
            out->properties.priority = (uint8_t)number;
    }
    return !headers.reader.failed;
}

void message_headers_init(struct message_headers *headers, const struct message_view *view)
{
    headers->form = view->form;
    if (view->form == ENTRY_AMQP)
        headers->table = reader_over(view->headers);
    else
        kafka_headers_init(
            &headers->records,
            &(struct kafka_record){.headers = view->headers, .headers_count = view->headers_count});
}

bool message_headers_next(struct message_headers *headers, struct amqp_field *out)
{
    if (headers->form == ENTRY_AMQP)
        return amqp_field_next(&headers->table, out);
    struct kafka_record_header header;
    while (kafka_headers_next(&headers->records, &header)) {
        if (header.key.len > AMQP_SHORTSTR_MAX || header_property(header.key, header.value) >= 0)
            continue;
        *out = (struct amqp_field){.name = header.key, .type = 'V'};
        if (header.value.data) {
            out->type = utf8_valid(header.value) ? 'S' : 'x';
            out->bytes = header.value;
        }
        return true;
    }
    return false;
}

struct slice message_list(const struct message_view *view, struct arena *arena)
{
    if (view->form == ENTRY_AMQP)
        return view->list;
    bool keep_key = view->record_key.data && !key_is_routing_key(view->record_key);
    struct message_headers headers;
    struct amqp_field field;
    size_t size = keep_key ? 1 + 11 + 5 + view->record_key.len : 0;
    message_headers_init(&headers, view);
    while (message_headers_next(&headers, &field))
        size += 1 + field.name.len + 1 + 4 + field.bytes.len;

    struct amqp_properties properties = view->properties;
    if (size) {
        uint8_t *table = arena_alloc(arena, size);
        if (!table)
            return (struct slice){0};
        struct writer writer = writer_over(table, size);
        if (keep_key)
            amqp_field_write(&writer, &(struct amqp_field){.name = slice_of("x-kafka-key"),
                                                           .type = 'x',
                                                           .bytes = view->record_key});
        message_headers_init(&headers, view);
        while (message_headers_next(&headers, &field))
            amqp_field_write(&writer, &field);
        properties.flags |= AMQP_HEADERS;
        properties.headers = slice_make(table, (size_t)(writer.at - table));
    }
    size_t list_size = amqp_properties_size(&properties);
    uint8_t *list = arena_alloc(arena, list_size);
    if (!list)
        return (struct slice){0};
    amqp_properties_write(list, &properties);
    return slice_make(list, list_size);
}

/* ---- To a record ---- */

/* JSON of a nested value is at most this many times as long as its wire form. */
enum { JSON_GROWTH = 8 };

static void json_text(struct writer *writer, struct slice text)
{
    writer_u8(writer, '"');
    const uint8_t *end = text.data + text.len;
    for (const uint8_t *at = text.data; at < end;) {
        size_t step = utf8_step(at, end);
        char escaped[8];
        if (step == 0 || *at < 0x20) {
            int len = snprintf(escaped, sizeof escaped, "\\u%04x", *at);
            writer_bytes(writer, escaped, (size_t)len);
            at++;
            continue;
        }
        if (*at == '"' || *at == '\\')
            writer_u8(writer, '\\');
        writer_bytes(writer, at, step);
        at += step;
    }
    writer_u8(writer, '"');
}

static int64_t decimal_unscaled(struct slice bytes)
{
    return (int32_t)be32_get(bytes.data + 1);
}

/* Numbers and booleans as text. */
static size_t scalar_text(const struct amqp_field *field, char *out)
{
    int len = 0;
    if (field->type == 't') {
        len = snprintf(out, TEXT_MAX, "%s", field->number ? "true" : "false");
    } else if (field->type == 'd' || field->type == 'f') {
        double value;
        memcpy(&value, &field->number, sizeof value);
        len = snprintf(out, TEXT_MAX, "%.17g", value);
    } else if (field->type == 'D') {
        len = snprintf(out, TEXT_MAX, "%llde-%u", (long long)decimal_unscaled(field->bytes),
                       field->bytes.data[0]);
    } else {
        len = snprintf(out, TEXT_MAX, "%lld", (long long)field->number);
    }
    return (size_t)len;
}

static void json_value(struct writer *writer, const struct amqp_field *field, unsigned depth)
{
    char text[TEXT_MAX];
    struct amqp_field item;
    struct reader inside = reader_over(field->bytes);
    bool first = true;
    if (depth > JSON_DEPTH_MAX || field->type == 'V') {
        writer_bytes(writer, "null", 4);
        return;
    }
    switch (field->type) {
    case 'S':
    case 'x':
        json_text(writer, field->bytes);
        return;
    case 'A':
        writer_u8(writer, '[');
        while (amqp_value_next(&inside, &item)) {
            if (!first)
                writer_u8(writer, ',');
            first = false;
            json_value(writer, &item, depth + 1);
        }
        writer_u8(writer, ']');
        return;
    case 'F':
        writer_u8(writer, '{');
        while (amqp_field_next(&inside, &item)) {
            if (!first)
                writer_u8(writer, ',');
            first = false;
            json_text(writer, item.name);
            writer_u8(writer, ':');
            json_value(writer, &item, depth + 1);
        }
        writer_u8(writer, '}');
        return;
    default:
        writer_bytes(writer, text, scalar_text(field, text));
    }
}

/* false: no memory. */
static bool header_value(const struct amqp_field *field, struct arena *arena, struct slice *out)
{
    switch (field->type) {
    case 'S':
    case 'x':
        *out = field->bytes.data ? field->bytes : slice_make("", 0);
        return true;
    case 'V':
        *out = (struct slice){0};
        return true;
    default:
        break;
    }
    bool nested = field->type == 'A' || field->type == 'F';
    size_t room = nested ? field->bytes.len * JSON_GROWTH + 16 : TEXT_MAX;
    uint8_t *text = arena_alloc(arena, room);
    if (!text)
        return false;
    struct writer writer = writer_over(text, room);
    json_value(&writer, field, 0);
    *out = slice_make(text, (size_t)(writer.at - text));
    return !writer.failed;
}

static bool property_value(const struct amqp_properties *properties, unsigned which,
                           struct arena *arena, struct slice *out)
{
    if (carried[which].offset) {
        struct amqp_properties copy = *properties;
        *out = *property_slice(&copy, which);
        return true;
    }
    struct amqp_field priority = {.type = 'B', .number = properties->priority};
    return header_value(&priority, arena, out);
}

bool message_to_record(const struct message_view *view, struct arena *arena,
                       struct message_record *out)
{
    struct message_headers headers;
    struct amqp_field field;
    size_t count = 0;
    message_headers_init(&headers, view);
    while (message_headers_next(&headers, &field))
        count++;
    struct kafka_record_header *items = arena_array(arena, count + CARRIED, sizeof *items);
    if (!items)
        return false;

    count = 0;
    for (unsigned i = 0; i < CARRIED; i++) {
        if (!(view->properties.flags & carried[i].flag))
            continue;
        items[count].key = slice_of(carried[i].name);
        if (!property_value(&view->properties, i, arena, &items[count].value))
            return false;
        count++;
    }
    message_headers_init(&headers, view);
    while (message_headers_next(&headers, &field)) {
        if (view->form == ENTRY_AMQP && amqp_field_is(&field, "x-kafka-key") &&
            (field.type == 'S' || field.type == 'x'))
            continue;
        items[count].key = field.name;
        if (!header_value(&field, arena, &items[count].value))
            return false;
        count++;
    }
    bool timed = view->form == ENTRY_AMQP && view->properties.flags & AMQP_TIMESTAMP &&
                 view->properties.timestamp < INT64_MAX / 1000;
    *out = (struct message_record){
        .timestamp_ms = timed ? (int64_t)view->properties.timestamp * 1000 : view->arrival_ms,
        .key = message_record_key(view),
        .value = view->body,
        .headers = items,
        .headers_count = count,
    };
    return true;
}
