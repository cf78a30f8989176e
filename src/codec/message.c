/* See message.h: taking AMQP entries apart, and building them. The Kafka side is in
 * message_record.c, dead letters are in message_death.c. */
#include "codec/message.h"

#include "codec/amqp_wire.h"

bool message_split(struct slice entry, struct message_parts *out)
{
    if (entry.len < ENTRY_HEAD_BYTES || entry.data[16] != ENTRY_AMQP)
        return false;
    struct reader reader = {.at = entry.data + ENTRY_HEAD_BYTES, .end = entry.data + entry.len};
    out->exchange = amqp_shortstr(&reader);
    out->routing_key = amqp_shortstr(&reader);
    out->list = amqp_longstr(&reader);
    out->body = reader_slice(&reader, reader_left(&reader));
    return !reader.failed;
}

bool message_of_entry(struct slice entry, struct message_view *out)
{
    struct message_parts parts;
    if (!message_split(entry, &parts))
        return false;
    struct entry_head head = entry_head_get(entry);
    *out = (struct message_view){
        .form = ENTRY_AMQP,
        .arrival_ms = head.timestamp_ms,
        .expiry_ms = head.expiry_ms,
        .exchange = parts.exchange,
        .routing_key = parts.routing_key,
        .list = parts.list,
        .body = parts.body,
    };
    if (!amqp_properties_read(parts.list, &out->properties))
        return false;
    if (out->properties.flags & AMQP_HEADERS)
        out->headers = out->properties.headers;
    else
        out->headers = slice_make("", 0);
    return true;
}

uint8_t message_priority(struct slice entry)
{
    struct message_parts parts;
    if (!message_split(entry, &parts) || parts.list.len < 2 ||
        !(be16_get(parts.list.data) & AMQP_PRIORITY))
        return 0;
    struct amqp_properties properties;
    return amqp_properties_read(parts.list, &properties) ? properties.priority : 0;
}

struct slice message_entry(const struct message_view *view, struct slice exchange,
                           struct slice routing_key, struct arena *arena)
{
    struct slice list = message_list(view, arena);
    if (slice_is_null(list))
        return list;
    size_t size =
        ENTRY_HEAD_BYTES + 1 + exchange.len + 1 + routing_key.len + 4 + list.len + view->body.len;
    uint8_t *entry = arena_alloc(arena, size);
    if (!entry)
        return (struct slice){0};
    bool persistent = view->form == ENTRY_KAFKA || (view->properties.flags & AMQP_DELIVERY_MODE &&
                                                    view->properties.delivery_mode == 2);
    entry_head_put(entry, &(struct entry_head){.timestamp_ms = view->arrival_ms,
                                               .expiry_ms = view->expiry_ms,
                                               .form = ENTRY_AMQP,
                                               .flags = persistent ? ENTRY_PERSISTENT : 0});
    uint8_t *at = amqp_shortstr_put(entry + ENTRY_HEAD_BYTES, exchange);
    at = amqp_shortstr_put(at, routing_key);
    at = amqp_longstr_put(at, list);
    if (view->body.len)
        memcpy(at, view->body.data, view->body.len);
    return slice_make(entry, size);
}

/* The table inside a property list; empty when there is none. */
static struct slice list_headers(struct slice list)
{
    struct amqp_properties properties;
    if (list.len < 2 || !(be16_get(list.data) & AMQP_HEADERS) ||
        !amqp_properties_read(list, &properties))
        return slice_make("", 0);
    return properties.headers;
}

bool message_keys(struct slice list, const char *name, struct slice *keys, uint32_t room,
                  uint32_t *count)
{
    struct amqp_field field, item;
    if (!amqp_table_find(list_headers(list), name, &field))
        return true;
    if (field.type != 'A')
        return false;
    struct reader array = reader_over(field.bytes);
    while (amqp_value_next(&array, &item)) {
        if (item.type != 'S')
            return false;
        if (*count < room && item.bytes.len <= AMQP_SHORTSTR_MAX)
            keys[(*count)++] = item.bytes;
    }
    return !array.failed;
}

struct slice message_list_without(struct slice list, const char *header, struct arena *arena)
{
    struct amqp_properties properties;
    if (!amqp_properties_read(list, &properties) || !(properties.flags & AMQP_HEADERS))
        return list;
    uint8_t *table = arena_alloc(arena, properties.headers.len);
    if (!table)
        return (struct slice){0};
    struct writer writer = writer_over(table, properties.headers.len);
    struct reader reader = reader_over(properties.headers);
    struct amqp_field field;
    for (const uint8_t *from = reader.at; amqp_field_next(&reader, &field); from = reader.at)
        if (!amqp_field_is(&field, header))
            writer_bytes(&writer, from, (size_t)(reader.at - from));
    properties.headers = slice_make(table, (size_t)(writer.at - table));
    size_t size = amqp_properties_size(&properties);
    uint8_t *out = arena_alloc(arena, size);
    if (!out)
        return (struct slice){0};
    amqp_properties_write(out, &properties);
    return slice_make(out, size);
}

struct slice message_key_of_parts(struct slice exchange, struct slice routing_key,
                                  struct slice list)
{
    struct amqp_field field;
    struct slice headers = list_headers(list);
    if (headers.len && amqp_table_find(headers, "x-kafka-key", &field) &&
        (field.type == 'S' || field.type == 'x'))
        return field.bytes;
    if (exchange.len == 0 || routing_key.len == 0)
        return (struct slice){0};
    return routing_key;
}

struct slice message_record_key(const struct message_view *view)
{
    if (view->form == ENTRY_KAFKA)
        return view->record_key;
    return message_key_of_parts(view->exchange, view->routing_key, view->list);
}
