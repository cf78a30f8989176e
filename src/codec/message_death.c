/* Dead letters: the x-death family of headers, as RabbitMQ 4 keeps them.
 *
 *   x-death: array of tables, the latest death first, one per queue and reason:
 *     count (l), reason (S), queue (S), time (T, of the first), exchange (S), routing-keys (A of S,
 *     with CC, without BCC), original-expiration (S, when it had one)
 *   x-first-death-{reason,queue,exchange}: never changed once set
 *   x-last-death-{reason,queue,exchange}: of the latest
 *
 * Such headers count only in entries that bear ENTRY_DEATHS: what a publisher wrote into x-death is
 * replaced at the first death. */
#include "codec/message.h"

#include "codec/amqp_wire.h"

enum { KEYS_MAX = 64 };

const char *message_death_name(enum message_death reason)
{
    static const char *const names[] = {
        [DEATH_REJECTED] = "rejected",
        [DEATH_EXPIRED] = "expired",
        [DEATH_MAXLEN] = "maxlen",
        [DEATH_DELIVERY_LIMIT] = "delivery_limit",
    };
    return names[reason];
}

struct death {
    struct slice reason, queue;
};

static bool text_is(struct slice table, const char *name, struct slice text)
{
    struct amqp_field field;
    return amqp_table_find(table, name, &field) && field.type == 'S' &&
           slice_equal(field.bytes, text);
}

static bool same_death(struct slice table, const struct death *death)
{
    return text_is(table, "queue", death->queue) && text_is(table, "reason", death->reason);
}

/* An earlier death of the same kind, counted one up. */
static void death_again_write(struct writer *writer, struct slice table)
{
    struct reader reader = reader_over(table);
    struct amqp_field field;
    while (amqp_field_next(&reader, &field)) {
        if (amqp_field_is(&field, "count") && amqp_type_is_integer(field.type) &&
            field.number < INT64_MAX)
            field.number++;
        amqp_field_write(writer, &field);
    }
}

static void routing_keys_write(struct writer *writer, const struct message_view *view)
{
    struct slice keys[KEYS_MAX];
    uint32_t count = 0;
    if (!message_keys(view->list, "CC", keys, KEYS_MAX, &count))
        count = 0;
    writer_u8(writer, 12);
    writer_bytes(writer, "routing-keys", 12);
    writer_u8(writer, 'A');
    uint8_t *length = amqp_inside_begin(writer);
    struct amqp_field key = {.type = 'S', .bytes = view->routing_key};
    amqp_value_write(writer, &key);
    for (uint32_t i = 0; i < count; i++) {
        key.bytes = keys[i];
        amqp_value_write(writer, &key);
    }
    amqp_inside_end(writer, length);
}

static void death_first_write(struct writer *writer, const struct message_view *view,
                              const struct death *death, int64_t now_ms)
{
    struct amqp_field fields[] = {
        amqp_long("count", 1),
        amqp_text("reason", death->reason),
        amqp_text("queue", death->queue),
        {.name = slice_of("time"), .type = 'T', .number = now_ms / 1000},
        amqp_text("exchange", view->exchange),
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        amqp_field_write(writer, &fields[i]);
    routing_keys_write(writer, view);
    if (view->properties.flags & AMQP_EXPIRATION) {
        struct amqp_field field = amqp_text("original-expiration", view->properties.expiration);
        amqp_field_write(writer, &field);
    }
}

static void deaths_write(struct writer *writer, const struct message_view *view, struct slice old,
                         const struct death *death, int64_t now_ms)
{
    struct amqp_field item;
    writer_u8(writer, 7);
    writer_bytes(writer, "x-death", 7);
    writer_u8(writer, 'A');
    uint8_t *array = amqp_inside_begin(writer);

    writer_u8(writer, 'F');
    uint8_t *latest = amqp_inside_begin(writer);
    bool found = false;
    struct reader reader = reader_over(old);
    while (!found && amqp_value_next(&reader, &item)) {
        if (item.type == 'F' && same_death(item.bytes, death)) {
            death_again_write(writer, item.bytes);
            found = true;
        }
    }
    if (!found)
        death_first_write(writer, view, death, now_ms);
    amqp_inside_end(writer, latest);

    reader = reader_over(old);
    while (amqp_value_next(&reader, &item))
        if (item.type == 'F' && !same_death(item.bytes, death))
            amqp_value_write(writer, &item);
    amqp_inside_end(writer, array);
}

static void triple_write(struct writer *writer, const char *const names[3],
                         const struct message_view *view, const struct death *death)
{
    struct slice values[3] = {death->reason, death->queue, view->exchange};
    for (int i = 0; i < 3; i++) {
        struct amqp_field field = amqp_text(names[i], values[i]);
        amqp_field_write(writer, &field);
    }
}

static bool field_begins(const struct amqp_field *field, const char *prefix)
{
    size_t len = strlen(prefix);
    return field->name.len >= len && memcmp(field->name.data, prefix, len) == 0;
}

static void headers_write(struct writer *writer, const struct message_view *view, bool counted,
                          bool drop_cc, const struct death *death, int64_t now_ms)
{
    static const char *const first[3] = {"x-first-death-reason", "x-first-death-queue",
                                         "x-first-death-exchange"};
    static const char *const last[3] = {"x-last-death-reason", "x-last-death-queue",
                                        "x-last-death-exchange"};
    struct slice old = slice_make("", 0);
    struct reader reader = reader_over(view->headers);
    struct amqp_field field;
    while (amqp_field_next(&reader, &field)) {
        if (amqp_field_is(&field, "x-death")) {
            if (counted && field.type == 'A')
                old = field.bytes;
            continue;
        }
        if (field_begins(&field, "x-last-death-") ||
            (!counted && field_begins(&field, "x-first-death-")) || amqp_field_is(&field, "BCC") ||
            (drop_cc && amqp_field_is(&field, "CC")))
            continue;
        amqp_field_write(writer, &field);
    }
    if (!counted)
        triple_write(writer, first, view, death);
    triple_write(writer, last, view, death);
    deaths_write(writer, view, old, death, now_ms);
}

struct slice message_dead_letter(struct slice entry, enum message_death reason, struct slice queue,
                                 struct slice exchange, struct slice key, int64_t now_ms,
                                 struct arena *arena)
{
    const struct slice none = {0};
    struct message_view view;
    if (!message_of_entry(entry, &view) || queue.len > AMQP_SHORTSTR_MAX)
        return none;
    struct entry_head head = entry_head_get(entry);
    struct death death = {slice_of(message_death_name(reason)), queue};

    /* What is added: names and fixed parts below 600 bytes, the queue's name, the exchange and the
     * reason three times each, the keys (each was there already, so it counts once more), the
     * expiration. */
    size_t room = view.headers.len + view.list.len + 600 +
                  3 * (queue.len + view.exchange.len + death.reason.len) + view.routing_key.len;
    uint8_t *table = arena_alloc(arena, room);
    if (!table)
        return none;
    struct writer writer = writer_over(table, room);
    headers_write(&writer, &view, head.flags & ENTRY_DEATHS, key.data != NULL, &death, now_ms);
    if (writer.failed)
        return none;

    struct amqp_properties properties = view.properties;
    properties.flags |= AMQP_HEADERS;
    properties.flags &= (uint16_t)~AMQP_EXPIRATION;
    properties.headers = slice_make(table, (size_t)(writer.at - table));
    size_t list_size = amqp_properties_size(&properties);
    struct slice routing_key = key.data ? key : view.routing_key;
    size_t size =
        ENTRY_HEAD_BYTES + 1 + exchange.len + 1 + routing_key.len + 4 + list_size + view.body.len;
    uint8_t *out = arena_alloc(arena, size);
    if (!out)
        return none;
    head.expiry_ms = 0;
    head.flags |= ENTRY_DEATHS;
    entry_head_put(out, &head);
    uint8_t *at = amqp_shortstr_put(out + ENTRY_HEAD_BYTES, exchange);
    at = amqp_shortstr_put(at, routing_key);
    be32_put(at, (uint32_t)list_size);
    amqp_properties_write(at + 4, &properties);
    if (view.body.len)
        memcpy(at + 4 + list_size, view.body.data, view.body.len);
    return slice_make(out, size);
}

bool message_death_cycle(struct slice entry, struct slice queue)
{
    struct message_view view;
    struct amqp_field deaths, item;
    if (entry.len < ENTRY_HEAD_BYTES || !(entry_head_get(entry).flags & ENTRY_DEATHS) ||
        !message_of_entry(entry, &view) || !amqp_table_find(view.headers, "x-death", &deaths) ||
        deaths.type != 'A')
        return false;
    struct reader reader = reader_over(deaths.bytes);
    while (amqp_value_next(&reader, &item)) {
        if (item.type != 'F')
            continue;
        if (text_is(item.bytes, "reason", slice_of("rejected")))
            return false;
        if (text_is(item.bytes, "queue", queue))
            return true;
    }
    return false;
}
