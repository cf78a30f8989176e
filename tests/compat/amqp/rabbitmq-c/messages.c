/* What is sent arrives as it was: properties, headers, bodies of all sizes, order. */
#include "kit.h"
#include "tests.h"

#include <stdio.h>
#include <string.h>

static void properties_and_headers_arrive(void **state)
{
    amqp_connection_state_t peer = *state;
    const char *queue = kit_queue(peer, amqp_empty_table);
    amqp_field_value_t items[2] = {{.kind = AMQP_FIELD_KIND_I64, .value.i64 = -5000000000},
                                   {.kind = AMQP_FIELD_KIND_BOOLEAN, .value.boolean = 1}};
    amqp_table_entry_t inner[1] = {kit_entry_text("deep", "value")};
    amqp_table_entry_t entries[] = {
        kit_entry_text("text", "words"),
        kit_entry_int("int", -7),
        {.key = kit_bytes("byte"), .value = {.kind = AMQP_FIELD_KIND_I8, .value.i8 = -3}},
        {.key = kit_bytes("short"), .value = {.kind = AMQP_FIELD_KIND_I16, .value.i16 = -300}},
        {.key = kit_bytes("real"), .value = {.kind = AMQP_FIELD_KIND_F64, .value.f64 = 2.5}},
        {.key = kit_bytes("time"),
         .value = {.kind = AMQP_FIELD_KIND_TIMESTAMP, .value.u64 = 1709208000}},
        {.key = kit_bytes("price"),
         .value = {.kind = AMQP_FIELD_KIND_DECIMAL,
                   .value.decimal = {.decimals = 2, .value = 1234}}},
        {.key = kit_bytes("bytes"),
         .value = {.kind = AMQP_FIELD_KIND_BYTES,
                   .value.bytes = {.len = 3, .bytes = (void *)"\x00\xff\x01"}}},
        {.key = kit_bytes("none"), .value = {.kind = AMQP_FIELD_KIND_VOID}},
        {.key = kit_bytes("list"),
         .value = {.kind = AMQP_FIELD_KIND_ARRAY,
                   .value.array = {.num_entries = 2, .entries = items}}},
        {.key = kit_bytes("table"),
         .value = {.kind = AMQP_FIELD_KIND_TABLE,
                   .value.table = {.num_entries = 1, .entries = inner}}},
    };
    const int entry_count = (int)(sizeof(entries) / sizeof(entries[0]));
    amqp_basic_properties_t sent = {
        ._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_CONTENT_ENCODING_FLAG |
                  AMQP_BASIC_HEADERS_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG |
                  AMQP_BASIC_PRIORITY_FLAG | AMQP_BASIC_CORRELATION_ID_FLAG |
                  AMQP_BASIC_REPLY_TO_FLAG | AMQP_BASIC_EXPIRATION_FLAG |
                  AMQP_BASIC_MESSAGE_ID_FLAG | AMQP_BASIC_TIMESTAMP_FLAG | AMQP_BASIC_TYPE_FLAG |
                  AMQP_BASIC_USER_ID_FLAG | AMQP_BASIC_APP_ID_FLAG | AMQP_BASIC_CLUSTER_ID_FLAG,
        .content_type = kit_bytes("text/plain"),
        .content_encoding = kit_bytes("utf-8"),
        .headers = {.num_entries = entry_count, .entries = entries},
        .delivery_mode = 2,
        .priority = 9,
        .correlation_id = kit_bytes("corr"),
        .reply_to = kit_bytes("reply"),
        .expiration = kit_bytes("60000"),
        .message_id = kit_bytes("id"),
        .timestamp = 1709208000,
        .type = kit_bytes("type"),
        .user_id = kit_bytes("guest"),
        .app_id = kit_bytes("app"),
        .cluster_id = kit_bytes("cluster")};
    amqp_message_t message;
    amqp_basic_properties_t *got = &message.properties;

    assert_int_equal(amqp_basic_publish(peer, 1, amqp_empty_bytes, kit_bytes(queue), 0, 0, &sent,
                                        kit_bytes("body")),
                     AMQP_STATUS_OK);
    kit_get_message(peer, queue, &message);
    assert_true(kit_equal(message.body, "body"));
    assert_int_equal(got->_flags, sent._flags);
    assert_true(kit_equal(got->content_type, "text/plain"));
    assert_true(kit_equal(got->content_encoding, "utf-8"));
    assert_int_equal(got->delivery_mode, 2);
    assert_int_equal(got->priority, 9);
    assert_true(kit_equal(got->correlation_id, "corr"));
    assert_true(kit_equal(got->reply_to, "reply"));
    assert_true(kit_equal(got->expiration, "60000"));
    assert_true(kit_equal(got->message_id, "id"));
    assert_int_equal(got->timestamp, 1709208000);
    assert_true(kit_equal(got->type, "type"));
    assert_true(kit_equal(got->user_id, "guest"));
    assert_true(kit_equal(got->app_id, "app"));
    assert_true(kit_equal(got->cluster_id, "cluster"));

    assert_int_equal(got->headers.num_entries, entry_count);
    for (int i = 0; i < entry_count; i++) {
        const amqp_field_value_t *value = &got->headers.entries[i].value;

        assert_int_equal(got->headers.entries[i].key.len, entries[i].key.len);
        assert_memory_equal(got->headers.entries[i].key.bytes, entries[i].key.bytes,
                            entries[i].key.len);
        assert_int_equal(value->kind, entries[i].value.kind);
    }
    assert_int_equal(kit_field(&got->headers, "int")->value.i32, -7);
    assert_int_equal(kit_field(&got->headers, "byte")->value.i8, -3);
    assert_int_equal(kit_field(&got->headers, "short")->value.i16, -300);
    assert_true(kit_field(&got->headers, "real")->value.f64 == 2.5);
    assert_int_equal(kit_field(&got->headers, "time")->value.u64, 1709208000);
    assert_int_equal(kit_field(&got->headers, "price")->value.decimal.value, 1234);
    assert_memory_equal(kit_field(&got->headers, "bytes")->value.bytes.bytes, "\x00\xff\x01", 3);
    assert_true(kit_field(&got->headers, "list")->value.array.entries[0].value.i64 == -5000000000);
    assert_true(kit_equal(
        kit_field(&kit_field(&got->headers, "table")->value.table, "deep")->value.bytes, "value"));
    amqp_destroy_message(&message);
}

static void bodies_of_many_sizes_arrive(void **state)
{
    static const size_t sizes[] = {0, 1, 131063, 131064, 131065, 1 << 20, 15 << 20};
    amqp_connection_state_t peer = *state;
    const char *queue = kit_queue(peer, amqp_empty_table);
    uint8_t *bytes = test_malloc(15 << 20);

    for (size_t i = 0; i < 15 << 20; i++) {
        bytes[i] = (uint8_t)(i * 31 + i / 4099);
    }
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        amqp_message_t message;
        amqp_bytes_t body = {.len = sizes[i], .bytes = bytes};

        assert_int_equal(
            amqp_basic_publish(peer, 1, amqp_empty_bytes, kit_bytes(queue), 0, 0, NULL, body),
            AMQP_STATUS_OK);
        kit_get_message(peer, queue, &message);
        assert_int_equal(message.body.len, sizes[i]);
        assert_true(sizes[i] == 0 || memcmp(message.body.bytes, bytes, sizes[i]) == 0);
        amqp_destroy_message(&message);
        amqp_maybe_release_buffers(peer);
    }
    test_free(bytes);
}

static void a_body_over_the_limit_is_refused(void **state)
{
    amqp_connection_state_t peer = *state;
    const char *queue = kit_queue(peer, amqp_empty_table);
    amqp_bytes_t body = amqp_bytes_malloc((16 << 20) + 1);

    memset(body.bytes, 0, body.len);
    amqp_basic_publish(peer, 1, amqp_empty_bytes, kit_bytes(queue), 0, 0, NULL, body);
    amqp_bytes_free(body);
    amqp_basic_qos(peer, 1, 0, 1, 0);
    kit_refused(peer, 406,
                "PRECONDITION_FAILED - message size 16777217 is larger than configured max size "
                "16777216");
}

static void ten_thousand_messages_arrive_in_order(void **state)
{
    amqp_connection_state_t peer = *state;
    const char *queue = kit_queue(peer, amqp_empty_table);
    char body[16];

    for (int i = 0; i < 10000; i++) {
        snprintf(body, sizeof(body), "%d", i);
        kit_publish(peer, "", queue, body);
    }
    kit_consume(peer, queue, "c", 0);
    for (int i = 0; i < 10000; i++) {
        uint64_t tag;

        snprintf(body, sizeof(body), "%d", i);
        tag = kit_delivered(peer, body, 0);
        assert_int_equal(tag, i + 1);
        if (i % 100 == 99) {
            assert_int_equal(amqp_basic_ack(peer, 1, tag, 1), AMQP_STATUS_OK);
        }
    }
}

int messages_tests(int *count)
{
    const struct CMUnitTest tests[] = {
        kit_with_peer(properties_and_headers_arrive),
        kit_with_peer(bodies_of_many_sizes_arrive),
        kit_with_peer(a_body_over_the_limit_is_refused),
        kit_with_peer(ten_thousand_messages_arrive_in_order),
    };

    *count += (int)(sizeof(tests) / sizeof(tests[0]));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
