/* Messages across protocols, and dead letters. */
#include "codec/message.h"

#include "codec/amqp_wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { NOW = 1709208000 };

struct made {
    struct arena arena;
    struct slice entry;
};

static int setup(void **state)
{
    struct made *made = test_malloc(sizeof *made);
    arena_init(&made->arena, 4096, 1 << 20);
    *state = made;
    return 0;
}

static int teardown(void **state)
{
    struct made *made = *state;
    arena_done(&made->arena);
    test_free(made);
    return 0;
}

/* headers: the inside of a table, or len 0 */
static struct slice entry_make(struct arena *arena, const char *exchange, const char *key,
                               struct amqp_properties properties, struct slice headers)
{
    if (headers.len) {
        properties.flags |= AMQP_HEADERS;
        properties.headers = headers;
    }
    size_t size = amqp_properties_size(&properties);
    uint8_t *list = arena_alloc(arena, size);
    amqp_properties_write(list, &properties);
    struct message_view view = {.form = ENTRY_AMQP,
                                .arrival_ms = NOW * INT64_C(1000),
                                .expiry_ms = properties.flags & AMQP_EXPIRATION ? 99 : 0,
                                .list = slice_make(list, size),
                                .properties = properties,
                                .body = slice_of("body")};
    return message_entry(&view, slice_of(exchange), slice_of(key), arena);
}

static struct slice table_of(struct arena *arena, const struct amqp_field *fields, size_t count)
{
    uint8_t *table = arena_alloc(arena, 1024);
    struct writer writer = writer_over(table, 1024);
    for (size_t i = 0; i < count; i++)
        amqp_field_write(&writer, &fields[i]);
    return slice_make(table, (size_t)(writer.at - table));
}

static struct slice keys_of(struct arena *arena, const char *first, const char *second)
{
    uint8_t *array = arena_alloc(arena, 128);
    struct writer writer = writer_over(array, 128);
    struct amqp_field item = {.type = 'S', .bytes = slice_of(first)};
    amqp_value_write(&writer, &item);
    item.bytes = slice_of(second);
    amqp_value_write(&writer, &item);
    return slice_make(array, (size_t)(writer.at - array));
}

static void assert_text(struct slice table, const char *name, const char *text)
{
    struct amqp_field field;
    assert_true(amqp_table_find(table, name, &field));
    assert_int_equal(field.type, 'S');
    assert_true(slice_equal(field.bytes, slice_of(text)));
}

static void assert_none(struct slice table, const char *name)
{
    struct amqp_field field;
    assert_false(amqp_table_find(table, name, &field));
}

static struct message_view view_of(struct slice entry)
{
    struct message_view view;
    assert_true(message_of_entry(entry, &view));
    return view;
}

static struct slice death_at(const struct message_view *view, unsigned index)
{
    struct amqp_field deaths, item = {0};
    assert_true(amqp_table_find(view->headers, "x-death", &deaths));
    assert_int_equal(deaths.type, 'A');
    struct reader reader = reader_over(deaths.bytes);
    for (unsigned i = 0; i <= index; i++)
        assert_true(amqp_value_next(&reader, &item));
    assert_int_equal(item.type, 'F');
    return item.bytes;
}

static unsigned deaths_count(const struct message_view *view)
{
    struct amqp_field deaths, item;
    unsigned count = 0;
    assert_true(amqp_table_find(view->headers, "x-death", &deaths));
    struct reader reader = reader_over(deaths.bytes);
    while (amqp_value_next(&reader, &item))
        count++;
    return count;
}

static void assert_count(struct slice death, int64_t count)
{
    struct amqp_field field;
    assert_true(amqp_table_find(death, "count", &field));
    assert_int_equal(field.type, 'l');
    assert_true(field.number == count);
}

static void a_view_shows_what_the_entry_holds(void **state)
{
    struct made *made = *state;
    struct amqp_properties properties = {.flags = AMQP_PRIORITY | AMQP_CONTENT_TYPE,
                                         .priority = 5,
                                         .content_type = slice_of("text/plain")};
    const struct amqp_field fields[] = {amqp_text("who", slice_of("me")), amqp_long("n", 3)};
    struct slice entry =
        entry_make(&made->arena, "logs", "a.b", properties, table_of(&made->arena, fields, 2));
    struct message_view view = view_of(entry);
    assert_true(slice_equal(view.exchange, slice_of("logs")));
    assert_true(slice_equal(view.routing_key, slice_of("a.b")));
    assert_true(slice_equal(view.body, slice_of("body")));
    assert_text(view.headers, "who", "me");
    assert_int_equal(message_priority(entry), 5);
    for (size_t len = 0; len < entry.len - 4; len++)
        assert_false(message_of_entry(slice_make(entry.data, len), &view));
}

static void a_record_of_a_routed_message_has_its_key_headers_and_properties(void **state)
{
    struct made *made = *state;
    struct amqp_properties properties = {.flags = AMQP_CORRELATION_ID | AMQP_PRIORITY |
                                                  AMQP_TIMESTAMP | AMQP_EXPIRATION,
                                         .correlation_id = slice_of("c-1"),
                                         .priority = 7,
                                         .timestamp = 1700000000,
                                         .expiration = slice_of("5000")};
    const struct amqp_field fields[] = {
        amqp_text("text", slice_of("x")),
        amqp_long("number", -12),
        amqp_bool("flag", true),
        {.name = slice_of("list"), .type = 'A', .bytes = keys_of(&made->arena, "a\"", "b")}};
    struct slice entry =
        entry_make(&made->arena, "orders", "eu.new", properties, table_of(&made->arena, fields, 4));
    struct message_view view = view_of(entry);
    struct message_record record;
    assert_true(message_to_record(&view, &made->arena, &record));
    assert_true(slice_equal(record.key, slice_of("eu.new")));
    assert_true(slice_equal(record.value, slice_of("body")));
    assert_true(record.timestamp_ms == INT64_C(1700000000000));
    static const char *const want[][2] = {{"correlation-id", "c-1"},
                                          {"expiration", "5000"},
                                          {"priority", "7"},
                                          {"text", "x"},
                                          {"number", "-12"},
                                          {"flag", "true"},
                                          {"list", "[\"a\\\"\",\"b\"]"}};
    assert_int_equal(record.headers_count, 7);
    for (int i = 0; i < 7; i++) {
        assert_true(slice_equal(record.headers[i].key, slice_of(want[i][0])));
        assert_true(slice_equal(record.headers[i].value, slice_of(want[i][1])));
    }
}

static void a_message_sent_to_the_topic_by_name_has_no_key_unless_it_says_so(void **state)
{
    struct made *made = *state;
    struct amqp_properties none = {0};
    struct message_view view =
        view_of(entry_make(&made->arena, "", "topic", none, slice_make("", 0)));
    assert_true(slice_is_null(message_record_key(&view)));
    const struct amqp_field field = amqp_text("x-kafka-key", slice_of("k"));
    view = view_of(entry_make(&made->arena, "", "topic", none, table_of(&made->arena, &field, 1)));
    assert_true(slice_equal(message_record_key(&view), slice_of("k")));
}

static struct kafka_record record_of(struct arena *arena, struct slice key,
                                     const struct kafka_record_header *headers, size_t count)
{
    uint8_t *memory = arena_alloc(arena, 4096);
    struct kafka_batch_builder builder;
    kafka_batch_begin(&builder, memory, 4096);
    assert_true(
        kafka_batch_add(&builder, NOW * INT64_C(1000) + 5, key, slice_of("value"), headers, count));
    struct slice bytes = kafka_batch_end(&builder);
    struct reader reader = reader_over(bytes);
    struct kafka_batch batch;
    assert_true(kafka_batch_next(&reader, &batch));
    struct kafka_records records;
    struct kafka_record record;
    kafka_records_init(&records, &batch, batch.records);
    assert_true(kafka_records_next(&records, &record));
    return record;
}

static void a_record_becomes_an_amqp_message_with_its_headers_and_properties(void **state)
{
    struct made *made = *state;
    const struct kafka_record_header headers[] = {
        {slice_of("content-type"), slice_of("application/json")},
        {slice_of("priority"), slice_of("9")},
        {slice_of("trace"), slice_of("abc")},
        {slice_of("raw"), slice_make("\xff\xfe", 2)},
        {slice_of("nothing"), {0}},
    };
    struct kafka_record record = record_of(&made->arena, slice_of("key-1"), headers, 5);
    struct message_view view;
    assert_true(message_of_record(&record, slice_of("topic"), &view));
    assert_true(slice_equal(view.routing_key, slice_of("key-1")));
    struct slice list = message_list(&view, &made->arena);
    struct amqp_properties properties;
    assert_true(amqp_properties_read(list, &properties));
    assert_true(slice_equal(properties.content_type, slice_of("application/json")));
    assert_int_equal(properties.priority, 9);
    assert_int_equal(properties.delivery_mode, 2);
    assert_true(properties.timestamp == NOW);
    assert_true(amqp_table_valid(properties.headers));
    assert_text(properties.headers, "trace", "abc");
    assert_none(properties.headers, "content-type");
    struct amqp_field field;
    assert_true(amqp_table_find(properties.headers, "raw", &field) && field.type == 'x');
    assert_true(amqp_table_find(properties.headers, "nothing", &field) && field.type == 'V');
    struct slice entry = message_entry(&view, slice_of("topic"), view.routing_key, &made->arena);
    struct message_view again = view_of(entry);
    assert_true(slice_equal(message_record_key(&again), slice_of("key-1")));
}

static void a_binary_key_travels_in_a_header(void **state)
{
    struct made *made = *state;
    struct kafka_record record = record_of(&made->arena, slice_make("\xff\0", 2), NULL, 0);
    struct message_view view;
    assert_true(message_of_record(&record, slice_of("topic"), &view));
    assert_true(slice_equal(view.routing_key, slice_of("topic")));
    struct slice entry = message_entry(&view, slice_of("x"), view.routing_key, &made->arena);
    struct message_view again = view_of(entry);
    assert_true(slice_equal(message_record_key(&again), slice_make("\xff\0", 2)));
}

static void the_first_death_is_told_in_full(void **state)
{
    struct made *made = *state;
    struct amqp_properties properties = {.flags = AMQP_EXPIRATION, .expiration = slice_of("60")};
    struct amqp_field cc = {
        .name = slice_of("CC"), .type = 'A', .bytes = keys_of(&made->arena, "cc1", "cc2")};
    struct slice entry =
        entry_make(&made->arena, "x", "k", properties, table_of(&made->arena, &cc, 1));
    struct slice dead = message_dead_letter(entry, DEATH_EXPIRED, slice_of("q"), slice_of("dlx"),
                                            (struct slice){0}, NOW * INT64_C(1000), &made->arena);
    struct message_view view = view_of(dead);
    assert_true(slice_equal(view.exchange, slice_of("dlx")));
    assert_true(slice_equal(view.routing_key, slice_of("k")));
    assert_true(slice_equal(view.body, slice_of("body")));
    assert_false(view.properties.flags & AMQP_EXPIRATION);
    assert_true(view.expiry_ms == 0);
    assert_true(amqp_table_valid(view.headers));
    assert_text(view.headers, "x-first-death-reason", "expired");
    assert_text(view.headers, "x-first-death-queue", "q");
    assert_text(view.headers, "x-first-death-exchange", "x");
    assert_text(view.headers, "x-last-death-queue", "q");
    struct slice death = death_at(&view, 0);
    assert_count(death, 1);
    assert_text(death, "reason", "expired");
    assert_text(death, "queue", "q");
    assert_text(death, "exchange", "x");
    assert_text(death, "original-expiration", "60");
    struct amqp_field field;
    assert_true(amqp_table_find(death, "time", &field) && field.type == 'T' && field.number == NOW);
    assert_true(amqp_table_find(death, "routing-keys", &field) && field.type == 'A');
    static const char *const keys[] = {"k", "cc1", "cc2"};
    struct reader reader = reader_over(field.bytes);
    for (int i = 0; i < 3; i++) {
        assert_true(amqp_value_next(&reader, &field));
        assert_true(slice_equal(field.bytes, slice_of(keys[i])));
    }
    assert_false(amqp_value_next(&reader, &field));
}

static struct slice die(struct made *made, struct slice entry, enum message_death reason,
                        const char *queue)
{
    return message_dead_letter(entry, reason, slice_of(queue), slice_of("dlx"), slice_of("dead"),
                               (NOW + 100) * INT64_C(1000), &made->arena);
}

static void deaths_are_counted_by_queue_and_reason_latest_first(void **state)
{
    struct made *made = *state;
    struct amqp_properties none = {0};
    struct slice entry = entry_make(&made->arena, "x", "k", none, slice_make("", 0));
    entry = die(made, entry, DEATH_REJECTED, "a");
    entry = die(made, entry, DEATH_EXPIRED, "b");
    entry = die(made, entry, DEATH_REJECTED, "a");
    struct message_view view = view_of(entry);
    assert_int_equal(deaths_count(&view), 2);
    assert_text(death_at(&view, 0), "queue", "a");
    assert_count(death_at(&view, 0), 2);
    assert_text(death_at(&view, 0), "exchange", "x");
    assert_text(death_at(&view, 1), "queue", "b");
    assert_count(death_at(&view, 1), 1);
    assert_text(death_at(&view, 1), "exchange", "dlx");
    assert_text(view.headers, "x-first-death-queue", "a");
    assert_text(view.headers, "x-last-death-queue", "a");
    assert_true(slice_equal(view.routing_key, slice_of("dead")));
}

static void a_new_routing_key_takes_the_cc_header_off(void **state)
{
    struct made *made = *state;
    struct amqp_properties none = {0};
    struct amqp_field cc = {
        .name = slice_of("CC"), .type = 'A', .bytes = keys_of(&made->arena, "1", "2")};
    struct slice entry = entry_make(&made->arena, "x", "k", none, table_of(&made->arena, &cc, 1));
    struct message_view view = view_of(die(made, entry, DEATH_MAXLEN, "q"));
    assert_none(view.headers, "CC");
}

static void what_a_publisher_wrote_into_x_death_does_not_count(void **state)
{
    struct made *made = *state;
    struct amqp_properties none = {0};
    struct amqp_field fake = {
        .name = slice_of("x-death"), .type = 'A', .bytes = keys_of(&made->arena, "1", "2")};
    struct slice entry = entry_make(&made->arena, "x", "k", none, table_of(&made->arena, &fake, 1));
    struct message_view view = view_of(die(made, entry, DEATH_EXPIRED, "q"));
    assert_int_equal(deaths_count(&view), 1);
    assert_count(death_at(&view, 0), 1);
}

static void a_cycle_is_one_only_if_nobody_rejected(void **state)
{
    struct made *made = *state;
    struct amqp_properties none = {0};
    struct slice fresh = entry_make(&made->arena, "x", "k", none, slice_make("", 0));
    assert_false(message_death_cycle(fresh, slice_of("a")));
    struct slice once = die(made, fresh, DEATH_EXPIRED, "a");
    assert_true(message_death_cycle(once, slice_of("a")));
    assert_false(message_death_cycle(once, slice_of("b")));
    struct slice twice = die(made, once, DEATH_REJECTED, "b");
    assert_false(message_death_cycle(twice, slice_of("a")));
    struct slice thrice = die(made, twice, DEATH_EXPIRED, "a");
    assert_true(message_death_cycle(thrice, slice_of("a")));
}

static void a_header_can_be_taken_out(void **state)
{
    struct made *made = *state;
    struct amqp_properties properties = {.flags = AMQP_PRIORITY, .priority = 3};
    struct amqp_field fields[] = {
        amqp_text("a", slice_of("1")),
        {.name = slice_of("BCC"), .type = 'A', .bytes = keys_of(&made->arena, "x", "y")},
        amqp_text("b", slice_of("2"))};
    struct message_view view =
        view_of(entry_make(&made->arena, "x", "k", properties, table_of(&made->arena, fields, 3)));
    struct slice keys[4];
    uint32_t count = 0;
    assert_true(message_keys(view.list, "BCC", keys, 4, &count));
    assert_int_equal(count, 2);
    struct slice list = message_list_without(view.list, "BCC", &made->arena);
    struct amqp_properties out;
    assert_true(amqp_properties_read(list, &out));
    assert_int_equal(out.priority, 3);
    assert_text(out.headers, "a", "1");
    assert_text(out.headers, "b", "2");
    assert_none(out.headers, "BCC");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_view_shows_what_the_entry_holds),
        TEST(a_record_of_a_routed_message_has_its_key_headers_and_properties),
        TEST(a_message_sent_to_the_topic_by_name_has_no_key_unless_it_says_so),
        TEST(a_record_becomes_an_amqp_message_with_its_headers_and_properties),
        TEST(a_binary_key_travels_in_a_header),
        TEST(the_first_death_is_told_in_full),
        TEST(deaths_are_counted_by_queue_and_reason_latest_first),
        TEST(a_new_routing_key_takes_the_cc_header_off),
        TEST(what_a_publisher_wrote_into_x_death_does_not_count),
        TEST(a_cycle_is_one_only_if_nobody_rejected),
        TEST(a_header_can_be_taken_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
