/* AMQP on the wire: field tables, and the methods and properties that are generated beside them. */
#include "codec/amqp_field.h"
#include "codec/amqp_wire.h"
#include "gen/amqp_method.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void a_method_decodes_to_what_was_encoded(void **state)
{
    (void)state;
    uint8_t frame[512];
    struct amqp_basic_deliver in = {
        .consumer_tag = slice_of("tag"),
        .delivery_tag = UINT64_C(0x1122334455667788),
        .redelivered = true,
        .exchange = slice_of("logs"),
        .routing_key = slice_of("a.b"),
    };
    size_t size = amqp_basic_deliver_frame(frame, 7, &in);
    assert_int_equal(size, amqp_basic_deliver_frame_size(&in));
    assert_int_equal(frame[0], AMQP_FRAME_METHOD);
    assert_int_equal(be16_get(frame + 1), 7);
    assert_int_equal(be32_get(frame + 3), size - AMQP_FRAME_OVERHEAD_BYTES);
    assert_int_equal(be32_get(frame + 7), AMQP_BASIC_DELIVER);
    assert_int_equal(frame[size - 1], AMQP_FRAME_END);
    struct amqp_basic_deliver out;
    assert_true(amqp_basic_deliver_read(slice_make(frame + 11, size - 12), &out));
    assert_true(slice_equal(out.consumer_tag, in.consumer_tag));
    assert_true(out.delivery_tag == in.delivery_tag && out.redelivered);
    assert_true(slice_equal(out.exchange, in.exchange));
    assert_true(slice_equal(out.routing_key, in.routing_key));
}

static void bits_share_an_octet_in_their_order(void **state)
{
    (void)state;
    uint8_t frame[64];
    struct amqp_queue_declare in = {.queue = slice_of("q"),
                                    .durable = true,
                                    .auto_delete = true,
                                    .arguments = slice_make("", 0)};
    size_t size = amqp_queue_declare_frame(frame, 1, &in);
    assert_int_equal(frame[15], 2 | 8); /* passive, durable, exclusive, auto-delete, no-wait */
    struct amqp_queue_declare out;
    assert_true(amqp_queue_declare_read(slice_make(frame + 11, size - 12), &out));
    assert_true(out.durable && out.auto_delete && !out.passive && !out.exclusive && !out.no_wait);
}

static void arguments_that_end_early_or_late_do_not_decode(void **state)
{
    (void)state;
    uint8_t frame[64];
    struct amqp_queue_bind in = {slice_of("q"), slice_of("x"), slice_of("k"), false,
                                 slice_make("", 0)};
    size_t size = amqp_queue_bind_frame(frame, 1, &in) - 12;
    struct amqp_queue_bind out;
    assert_true(amqp_queue_bind_read(slice_make(frame + 11, size), &out));
    for (size_t len = 0; len < size; len++)
        assert_false(amqp_queue_bind_read(slice_make(frame + 11, len), &out));
    assert_false(amqp_queue_bind_read(slice_make(frame + 11, size + 1), &out));
}

static void properties_keep_what_is_set_and_nothing_else(void **state)
{
    (void)state;
    struct amqp_properties in = {
        .flags = AMQP_CONTENT_TYPE | AMQP_DELIVERY_MODE | AMQP_PRIORITY | AMQP_TIMESTAMP |
                 AMQP_CLUSTER_ID,
        .content_type = slice_of("text/plain"),
        .delivery_mode = 2,
        .priority = 9,
        .timestamp = 1709208000,
        .cluster_id = slice_of("c"),
        .reply_to = slice_of("not sent"),
    };
    uint8_t list[64];
    size_t size = amqp_properties_size(&in);
    assert_int_equal(size, 2 + 11 + 1 + 1 + 8 + 2);
    amqp_properties_write(list, &in);
    struct amqp_properties out = {0};
    assert_true(amqp_properties_read(slice_make(list, size), &out));
    assert_int_equal(out.flags, in.flags);
    assert_true(slice_equal(out.content_type, in.content_type));
    assert_int_equal(out.priority, 9);
    assert_true(out.timestamp == 1709208000);
    assert_true(out.reply_to.data == NULL);
    for (size_t len = 0; len < size; len++)
        assert_false(amqp_properties_read(slice_make(list, len), &out));
    list[1] |= 1; /* more flags follow: nobody sends that */
    assert_false(amqp_properties_read(slice_make(list, size), &out));
}

static void every_type_of_field_survives(void **state)
{
    (void)state;
    const struct amqp_field in[] = {
        amqp_bool("t", true),
        {.name = slice_of("b"), .type = 'b', .number = -7},
        {.name = slice_of("B"), .type = 'B', .number = 200},
        {.name = slice_of("s"), .type = 's', .number = -300},
        {.name = slice_of("u"), .type = 'u', .number = 60000},
        {.name = slice_of("I"), .type = 'I', .number = -70000},
        {.name = slice_of("i"), .type = 'i', .number = INT64_C(4000000000)},
        amqp_long("l", -1),
        {.name = slice_of("T"), .type = 'T', .number = 1709208000},
        {.name = slice_of("f"), .type = 'f', .number = INT64_C(0x3FF8000000000000)}, /* 1.5 */
        {.name = slice_of("d"), .type = 'd', .number = INT64_C(0x400921FB54442D18)},
        {.name = slice_of("D"), .type = 'D', .bytes = slice_make("\2\0\0\0\7", 5)},
        amqp_text("S", slice_of("text")),
        {.name = slice_of("x"), .type = 'x', .bytes = slice_make("\0\1", 2)},
        {.name = slice_of("V"), .type = 'V'},
    };
    enum { COUNT = sizeof in / sizeof in[0] };
    uint8_t table[512];
    struct writer writer = writer_over(table, sizeof table);
    for (int i = 0; i < COUNT; i++)
        amqp_field_write(&writer, &in[i]);
    assert_false(writer.failed);
    struct slice inside = slice_make(table, (size_t)(writer.at - table));
    assert_true(amqp_table_valid(inside));
    struct reader reader = reader_over(inside);
    struct amqp_field out;
    for (int i = 0; i < COUNT; i++) {
        assert_true(amqp_field_next(&reader, &out));
        assert_true(slice_equal(out.name, in[i].name));
        assert_int_equal(out.type, in[i].type);
        assert_true(out.number == in[i].number);
        assert_true(slice_equal(out.bytes, in[i].bytes));
    }
    assert_false(amqp_field_next(&reader, &out));
    assert_false(reader.failed);
}

static void a_table_cut_anywhere_is_invalid(void **state)
{
    (void)state;
    uint8_t table[128];
    struct writer writer = writer_over(table, sizeof table);
    writer_bytes(&writer, "\1aF", 3);
    uint8_t *outer = amqp_inside_begin(&writer);
    writer_bytes(&writer, "\1bA", 3);
    uint8_t *inner = amqp_inside_begin(&writer);
    struct amqp_field item = {.type = 'I', .number = 5};
    amqp_value_write(&writer, &item);
    amqp_inside_end(&writer, inner);
    amqp_inside_end(&writer, outer);
    size_t size = (size_t)(writer.at - table);
    assert_true(amqp_table_valid(slice_make(table, size)));
    for (size_t len = 1; len < size; len++)
        assert_false(amqp_table_valid(slice_make(table, len)));
    assert_false(amqp_table_valid(slice_make("\1aU\0\0\0\0", 7)));
}

static void nesting_is_bounded(void **state)
{
    (void)state;
    uint8_t table[4096];
    struct writer writer = writer_over(table, sizeof table);
    uint8_t *ends[100];
    for (int i = 0; i < 100; i++) {
        writer_bytes(&writer, "\1aF", 3);
        ends[i] = amqp_inside_begin(&writer);
    }
    for (int i = 100; i-- > 0;)
        amqp_inside_end(&writer, ends[i]);
    assert_false(amqp_table_valid(slice_make(table, (size_t)(writer.at - table))));
}

static void names_and_codes_are_those_of_the_specification(void **state)
{
    (void)state;
    assert_string_equal(amqp_method_name(AMQP_QUEUE_DECLARE), "queue.declare");
    assert_string_equal(amqp_method_name(AMQP_BASIC_RECOVER_ASYNC), "basic.recover-async");
    assert_null(amqp_method_name(60 << 16 | 999));
    assert_true(amqp_method_from_client(AMQP_BASIC_PUBLISH));
    assert_false(amqp_method_from_client(AMQP_BASIC_DELIVER));
    assert_string_equal(amqp_reply_name(406), "PRECONDITION_FAILED");
    assert_null(amqp_reply_name(999));
    assert_true(amqp_reply_is_hard(530));
    assert_false(amqp_reply_is_hard(404));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_method_decodes_to_what_was_encoded),
        cmocka_unit_test(bits_share_an_octet_in_their_order),
        cmocka_unit_test(arguments_that_end_early_or_late_do_not_decode),
        cmocka_unit_test(properties_keep_what_is_set_and_nothing_else),
        cmocka_unit_test(every_type_of_field_survives),
        cmocka_unit_test(a_table_cut_anywhere_is_invalid),
        cmocka_unit_test(nesting_is_bounded),
        cmocka_unit_test(names_and_codes_are_those_of_the_specification),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
