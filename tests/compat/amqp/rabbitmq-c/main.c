/* rabbitmq-c (Debian's librabbitmq) against the broker: a sample of what the pika suite asks in
 * full. */
#include "kit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int opened(void **state)
{
    *state = kit_open(131072, 0);
    return 0;
}

static int closed(void **state)
{
    kit_close(*state);
    return 0;
}

static amqp_table_entry_t entry_text(const char *key, const char *value)
{
    return (amqp_table_entry_t){
        .key = kit_bytes(key),
        .value = {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = kit_bytes(value)}};
}

static amqp_table_entry_t entry_int(const char *key, int32_t value)
{
    return (amqp_table_entry_t){.key = kit_bytes(key),
                                .value = {.kind = AMQP_FIELD_KIND_I32, .value.i32 = value}};
}

/* Opening ------------------------------------------------------------------------------------- */

static void a_wrong_password_is_refused(void **state)
{
    amqp_connection_state_t peer = kit_connect();
    amqp_rpc_reply_t reply =
        amqp_login(peer, "/", 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, "guest", "wrong");

    (void)state;
    kit_reply_refused(peer, reply, 403,
                      "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. "
                      "For details see the broker logfile.",
                      __FILE__, __LINE__);
    amqp_destroy_connection(peer);
}

static void a_missing_vhost_is_refused(void **state)
{
    amqp_connection_state_t peer = kit_connect();
    amqp_rpc_reply_t reply =
        amqp_login(peer, "no-such-vhost", 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, "guest", "guest");

    (void)state;
    kit_reply_refused(peer, reply, 530, "NOT_ALLOWED - vhost no-such-vhost not found", __FILE__,
                      __LINE__);
    amqp_destroy_connection(peer);
}

static void a_small_frame_max_is_obeyed_both_ways(void **state)
{
    amqp_connection_state_t peer = kit_open(4096, 0);
    const char *queue = kit_queue(peer, amqp_empty_table);
    char *body = test_malloc(20001);

    (void)state;
    memset(body, 'b', 20000);
    body[20000] = '\0';
    kit_publish(peer, "", queue, body);
    kit_get(peer, queue, body, 1);
    assert_int_equal(amqp_get_frame_max(peer), 4096);
    test_free(body);
    kit_close(peer);
}

static void heartbeats_keep_an_idle_connection(void **state)
{
    amqp_connection_state_t peer = kit_open(131072, 1);

    (void)state;
    kit_quiet(peer, 4000);
    kit_queue(peer, amqp_empty_table);
    kit_close(peer);
}

/* Messages ------------------------------------------------------------------------------------ */

static void properties_and_headers_arrive(void **state)
{
    amqp_connection_state_t peer = *state;
    const char *queue = kit_queue(peer, amqp_empty_table);
    amqp_field_value_t items[2] = {{.kind = AMQP_FIELD_KIND_I64, .value.i64 = -5000000000},
                                   {.kind = AMQP_FIELD_KIND_BOOLEAN, .value.boolean = 1}};
    amqp_table_entry_t inner[1] = {entry_text("deep", "value")};
    amqp_table_entry_t entries[] = {
        entry_text("text", "words"),
        entry_int("int", -7),
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

/* Routing ------------------------------------------------------------------------------------- */

static const char *exchange(amqp_connection_state_t peer, const char *kind, amqp_table_t arguments)
{
    const char *name = kit_name(kind);

    amqp_exchange_declare(peer, 1, kit_bytes(name), kit_bytes(kind), 0, 0, 1, 0, arguments);
    kit_ok(peer);
    return name;
}

static void bind(amqp_connection_state_t peer, const char *queue, const char *source,
                 const char *key, amqp_table_t arguments)
{
    amqp_queue_bind(peer, 1, kit_bytes(queue), kit_bytes(source), kit_bytes(key), arguments);
    kit_ok(peer);
}

static void direct_fanout_and_topic_exchanges_route(void **state)
{
    static const struct {
        const char *kind, *pattern, *hit, *miss;
    } cases[] = {{"direct", "k", "k", "l"},
                 {"fanout", "", "any", NULL},
                 {"topic", "a.*.#", "a.b.c.d", "b.b"},
                 {"topic", "#.z", "z", "z.a"}};
    amqp_connection_state_t peer = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *x = exchange(peer, cases[i].kind, amqp_empty_table);
        const char *queue = kit_queue(peer, amqp_empty_table);

        bind(peer, queue, x, cases[i].pattern, amqp_empty_table);
        if (cases[i].miss != NULL) {
            kit_publish(peer, x, cases[i].miss, "miss");
        }
        kit_publish(peer, x, cases[i].hit, "hit");
        kit_get(peer, queue, "hit", 1);
        kit_empty(peer, queue);
    }
}

static void headers_exchanges_route(void **state)
{
    amqp_connection_state_t peer = *state;
    const char *x = exchange(peer, "headers", amqp_empty_table);
    const char *all = kit_queue(peer, amqp_empty_table);
    const char *any = kit_queue(peer, amqp_empty_table);
    amqp_table_entry_t wanted[] = {entry_text("x-match", "all"), entry_text("colour", "red"),
                                   entry_int("size", 5)};
    amqp_table_entry_t headers[] = {entry_text("colour", "red"), entry_int("size", 6)};
    amqp_basic_properties_t properties = {._flags = AMQP_BASIC_HEADERS_FLAG,
                                          .headers = {.num_entries = 2, .entries = headers}};
    amqp_table_t arguments = {.num_entries = 3, .entries = wanted};

    bind(peer, all, x, "", arguments);
    wanted[0] = entry_text("x-match", "any");
    bind(peer, any, x, "", arguments);
    assert_int_equal(amqp_basic_publish(peer, 1, kit_bytes(x), amqp_empty_bytes, 0, 0, &properties,
                                        kit_bytes("m")),
                     AMQP_STATUS_OK);
    kit_get(peer, any, "m", 1);
    kit_empty(peer, all);
}

static void exchanges_feed_exchanges_and_alternates(void **state)
{
    amqp_connection_state_t peer = *state;
    const char *alternate = exchange(peer, "fanout", amqp_empty_table);
    amqp_table_entry_t entry = entry_text("alternate-exchange", alternate);
    const char *source =
        exchange(peer, "direct", (amqp_table_t){.num_entries = 1, .entries = &entry});
    const char *target = exchange(peer, "fanout", amqp_empty_table);
    const char *through = kit_queue(peer, amqp_empty_table);
    const char *rest = kit_queue(peer, amqp_empty_table);

    amqp_exchange_bind(peer, 1, kit_bytes(target), kit_bytes(source), kit_bytes("go"),
                       amqp_empty_table);
    kit_ok(peer);
    bind(peer, through, target, "", amqp_empty_table);
    bind(peer, rest, alternate, "", amqp_empty_table);
    bind(peer, rest, source, "keeps the source alive", amqp_empty_table);
    kit_publish(peer, source, "go", "1");
    kit_publish(peer, source, "stay", "2");
    kit_get(peer, through, "1", 1);
    kit_get(peer, rest, "2", 1);
    amqp_exchange_unbind(peer, 1, kit_bytes(target), kit_bytes(source), kit_bytes("go"),
                         amqp_empty_table);
    kit_ok(peer);
    kit_publish(peer, source, "go", "3");
    kit_get(peer, rest, "3", 1);
    kit_empty(peer, through);
}

static void a_mandatory_message_without_a_queue_comes_back(void **state)
{
    amqp_connection_state_t peer = *state;
    const char *key = kit_name("nowhere");
    amqp_method_t method;
    amqp_basic_return_t *returned;
    amqp_message_t message;

    amqp_basic_publish(peer, 1, kit_bytes("amq.direct"), kit_bytes(key), 1, 0, NULL,
                       kit_bytes("back"));
    method = kit_method(peer, AMQP_BASIC_RETURN_METHOD);
    returned = method.decoded;
    assert_int_equal(returned->reply_code, 312);
    assert_true(kit_equal(returned->reply_text, "NO_ROUTE"));
    assert_true(kit_equal(returned->exchange, "amq.direct"));
    assert_true(kit_equal(returned->routing_key, key));
    kit_reply_ok(amqp_read_message(peer, 1, &message, 0), __FILE__, __LINE__);
    assert_true(kit_equal(message.body, "back"));
    amqp_destroy_message(&message);
}

/* Consuming and settling ---------------------------------------------------------------------- */

static void acks_nacks_and_rejects_settle(void **state)
{
    amqp_connection_state_t peer = *state;
    const char *queue = kit_queue(peer, amqp_empty_table);
    uint64_t tags[4];

    for (int i = 0; i < 4; i++) {
        kit_publish(peer, "", queue, (const char *[]){"ack", "requeue", "drop", "nack"}[i]);
    }
    kit_consume(peer, queue, "c", 0);
    tags[0] = kit_delivered(peer, "ack", 0);
    tags[1] = kit_delivered(peer, "requeue", 0);
    tags[2] = kit_delivered(peer, "drop", 0);
    tags[3] = kit_delivered(peer, "nack", 0);
    assert_int_equal(amqp_basic_ack(peer, 1, tags[0], 0), AMQP_STATUS_OK);
    assert_int_equal(amqp_basic_reject(peer, 1, tags[1], 1), AMQP_STATUS_OK);
    assert_int_equal(amqp_basic_reject(peer, 1, tags[2], 0), AMQP_STATUS_OK);
    kit_delivered(peer, "requeue", 1);
    assert_int_equal(amqp_basic_nack(peer, 1, tags[3], 0, 0), AMQP_STATUS_OK);
    amqp_basic_cancel(peer, 1, kit_bytes("c"));
    kit_ok(peer);
    kit_empty(peer, queue);
    amqp_channel_close(peer, 1, AMQP_REPLY_SUCCESS);
    amqp_channel_open(peer, 1);
    kit_ok(peer);
    kit_get(peer, queue, "requeue", 1);
    kit_empty(peer, queue);
}

static void prefetch_holds_deliveries_back(void **state)
{
    amqp_connection_state_t peer = *state;
    const char *queue = kit_queue(peer, amqp_empty_table);
    uint64_t tag;

    amqp_basic_qos(peer, 1, 0, 2, 0);
    kit_ok(peer);
    for (int i = 0; i < 4; i++) {
        kit_publish(peer, "", queue, (const char *[]){"0", "1", "2", "3"}[i]);
    }
    kit_consume(peer, queue, "c", 0);
    kit_delivered(peer, "0", 0);
    tag = kit_delivered(peer, "1", 0);
    kit_quiet(peer, 150);
    assert_int_equal(amqp_basic_ack(peer, 1, tag, 1), AMQP_STATUS_OK);
    kit_delivered(peer, "2", 0);
    kit_delivered(peer, "3", 0);
}

static void recover_delivers_again(void **state)
{
    amqp_connection_state_t peer = *state;
    const char *queue = kit_queue(peer, amqp_empty_table);

    kit_publish(peer, "", queue, "m");
    kit_get(peer, queue, "m", 0);
    amqp_basic_recover(peer, 1, 1);
    kit_ok(peer);
    kit_consume(peer, queue, "c", 0);
    kit_delivered(peer, "m", 1);
}

static void deleting_a_queue_cancels_its_consumer(void **state)
{
    amqp_connection_state_t peer = *state;
    const char *queue = kit_queue(peer, amqp_empty_table);
    amqp_method_t method;

    kit_consume(peer, queue, "watcher", 0);
    amqp_queue_delete(peer, 1, kit_bytes(queue), 0, 0);
    kit_ok(peer);
    method = kit_method(peer, AMQP_BASIC_CANCEL_METHOD);
    assert_true(kit_equal(((amqp_basic_cancel_t *)method.decoded)->consumer_tag, "watcher"));
}

static void purge_and_delete_answer_counts(void **state)
{
    amqp_connection_state_t peer = *state;
    const char *queue = kit_queue(peer, amqp_empty_table);

    for (int i = 0; i < 3; i++) {
        kit_publish(peer, "", queue, "m");
    }
    assert_int_equal(amqp_queue_purge(peer, 1, kit_bytes(queue))->message_count, 3);
    kit_publish(peer, "", queue, "m");
    kit_get(peer, queue, "m", 0);
    kit_publish(peer, "", queue, "n");
    amqp_basic_recover(peer, 1, 1);
    kit_ok(peer);
    assert_int_equal(amqp_queue_delete(peer, 1, kit_bytes(queue), 0, 0)->message_count, 2);
}

/* Confirms ------------------------------------------------------------------------------------ */

static void every_publish_is_confirmed_once(void **state)
{
    enum { COUNT = 2000 };
    amqp_connection_state_t peer = *state;
    const char *queue = kit_name("durable");
    amqp_basic_properties_t persistent = {._flags = AMQP_BASIC_DELIVERY_MODE_FLAG,
                                          .delivery_mode = 2};
    char confirmed[COUNT + 1] = {0};
    int count = 0;

    amqp_queue_declare(peer, 1, kit_bytes(queue), 0, 1, 0, 0, amqp_empty_table);
    kit_ok(peer);
    amqp_confirm_select(peer, 1);
    kit_ok(peer);
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(amqp_basic_publish(peer, 1, amqp_empty_bytes, kit_bytes(queue), 0, 0,
                                            &persistent, kit_bytes("m")),
                         AMQP_STATUS_OK);
    }
    while (count < COUNT) {
        amqp_method_t method = kit_method(peer, AMQP_BASIC_ACK_METHOD);
        amqp_basic_ack_t *ack = method.decoded;
        uint64_t first = ack->multiple ? 1 : ack->delivery_tag;

        assert_in_range(ack->delivery_tag, 1, COUNT);
        for (uint64_t tag = first; tag <= ack->delivery_tag; tag++) {
            assert_true(ack->multiple || !confirmed[tag]);
            count += !confirmed[tag];
            confirmed[tag] = 1;
        }
    }
    kit_quiet(peer, 100);
    assert_int_equal(amqp_queue_delete(peer, 1, kit_bytes(queue), 0, 0)->message_count, COUNT);
}

static void a_full_queue_that_rejects_nacks(void **state)
{
    amqp_connection_state_t peer = *state;
    amqp_table_entry_t entries[] = {entry_int("x-max-length", 1),
                                    entry_text("x-overflow", "reject-publish")};
    const char *queue = kit_queue(peer, (amqp_table_t){.num_entries = 2, .entries = entries});
    amqp_method_t method;

    amqp_confirm_select(peer, 1);
    kit_ok(peer);
    kit_publish(peer, "", queue, "fits");
    method = kit_method(peer, AMQP_BASIC_ACK_METHOD);
    assert_int_equal(((amqp_basic_ack_t *)method.decoded)->delivery_tag, 1);
    kit_publish(peer, "", queue, "does not");
    method = kit_method(peer, AMQP_BASIC_NACK_METHOD);
    assert_int_equal(((amqp_basic_nack_t *)method.decoded)->delivery_tag, 2);
}

static void a_transaction_commits_and_rolls_back(void **state)
{
    amqp_connection_state_t peer = *state;
    const char *queue = kit_queue(peer, amqp_empty_table);

    amqp_tx_select(peer, 1);
    kit_ok(peer);
    kit_publish(peer, "", queue, "rolled back");
    amqp_tx_rollback(peer, 1);
    kit_ok(peer);
    kit_publish(peer, "", queue, "committed");
    kit_empty(peer, queue);
    amqp_tx_commit(peer, 1);
    kit_ok(peer);
    kit_get(peer, queue, "committed", 1);
    kit_empty(peer, queue);
}

/* Dead letters -------------------------------------------------------------------------------- */

static void expired_messages_are_dead_lettered(void **state)
{
    amqp_connection_state_t peer = *state;
    const char *dead = kit_queue(peer, amqp_empty_table);
    amqp_table_entry_t entries[] = {entry_text("x-dead-letter-exchange", ""),
                                    entry_text("x-dead-letter-routing-key", dead),
                                    entry_int("x-message-ttl", 50)};
    const char *queue = kit_queue(peer, (amqp_table_t){.num_entries = 3, .entries = entries});
    amqp_message_t message;
    const amqp_field_value_t *deaths;
    const amqp_table_t *death;

    kit_publish(peer, "", queue, "m");
    kit_get_message(peer, dead, &message);
    assert_true(kit_equal(message.body, "m"));
    deaths = kit_field(&message.properties.headers, "x-death");
    assert_non_null(deaths);
    assert_int_equal(deaths->kind, AMQP_FIELD_KIND_ARRAY);
    assert_int_equal(deaths->value.array.num_entries, 1);
    assert_int_equal(deaths->value.array.entries[0].kind, AMQP_FIELD_KIND_TABLE);
    death = &deaths->value.array.entries[0].value.table;
    assert_int_equal(kit_field(death, "count")->kind, AMQP_FIELD_KIND_I64);
    assert_int_equal(kit_field(death, "count")->value.i64, 1);
    assert_int_equal(kit_field(death, "reason")->kind, AMQP_FIELD_KIND_UTF8);
    assert_true(kit_equal(kit_field(death, "reason")->value.bytes, "expired"));
    assert_true(kit_equal(kit_field(death, "queue")->value.bytes, queue));
    assert_int_equal(kit_field(death, "time")->kind, AMQP_FIELD_KIND_TIMESTAMP);
    assert_true(kit_equal(kit_field(death, "exchange")->value.bytes, ""));
    assert_int_equal(kit_field(death, "routing-keys")->kind, AMQP_FIELD_KIND_ARRAY);
    amqp_destroy_message(&message);
}

/* Errors -------------------------------------------------------------------------------------- */

static void errors_name_code_and_text(void **state)
{
    amqp_connection_state_t peer = *state;
    const char *queue = kit_queue(peer, amqp_empty_table);
    const char *missing = kit_name("missing");
    amqp_table_entry_t ttl = entry_int("x-message-ttl", 10);
    char text[400];

    snprintf(text, sizeof(text), "NOT_FOUND - no queue '%s' in vhost '/'", missing);
    amqp_queue_declare(peer, 1, kit_bytes(missing), 1, 0, 0, 0, amqp_empty_table);
    kit_refused(peer, 404, text);
    amqp_basic_consume(peer, 1, kit_bytes(missing), amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
    kit_refused(peer, 404, text);
    snprintf(text, sizeof(text), "NOT_FOUND - no exchange '%s' in vhost '/'", missing);
    amqp_queue_bind(peer, 1, kit_bytes(queue), kit_bytes(missing), kit_bytes("k"),
                    amqp_empty_table);
    kit_refused(peer, 404, text);
    snprintf(text, sizeof(text),
             "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue '%s' in vhost '/': "
             "received the value '10' of type 'signedint' but current is none",
             queue);
    amqp_queue_declare(peer, 1, kit_bytes(queue), 0, 0, 1, 0,
                       (amqp_table_t){.num_entries = 1, .entries = &ttl});
    kit_refused(peer, 406, text);
    amqp_basic_ack(peer, 1, 7, 0);
    amqp_basic_qos(peer, 1, 0, 1, 0);
    kit_refused(peer, 406, "PRECONDITION_FAILED - unknown delivery tag 7");
    amqp_exchange_delete(peer, 1, amqp_empty_bytes, 0);
    kit_refused(peer, 403, "ACCESS_REFUSED - operation not permitted on the default exchange");
}

static void an_exclusive_queue_is_locked_for_others(void **state)
{
    amqp_connection_state_t peer = *state;
    amqp_connection_state_t other = kit_open(131072, 0);
    const char *queue = kit_queue(peer, amqp_empty_table);
    char text[400];

    snprintf(text, sizeof(text),
             "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '%s' in vhost '/'. "
             "It could be originally declared on another connection or the exclusive property "
             "value does not match that of the original declaration.",
             queue);
    amqp_queue_declare(other, 1, kit_bytes(queue), 0, 0, 1, 0, amqp_empty_table);
    kit_refused(other, 405, text);
    kit_close(other);
}

static void a_consumer_tag_used_twice_ends_the_connection(void **state)
{
    amqp_connection_state_t peer = kit_open(131072, 0);
    const char *queue = kit_queue(peer, amqp_empty_table);

    (void)state;
    kit_consume(peer, queue, "same", 0);
    amqp_basic_consume(peer, 1, kit_bytes(queue), kit_bytes("same"), 0, 0, 0, amqp_empty_table);
    kit_refused(peer, 530, "NOT_ALLOWED - attempt to reuse consumer tag 'same'");
    amqp_destroy_connection(peer);
}

/* Restart ------------------------------------------------------------------------------------- */

static void persistent_messages_survive(const char *how)
{
    amqp_connection_state_t peer;
    const char *restart = getenv("WEIR_COMPAT_RESTART");
    const char *queue = kit_name("durable");
    amqp_basic_properties_t persistent = {._flags = AMQP_BASIC_DELIVERY_MODE_FLAG,
                                          .delivery_mode = 2};
    char command[1024];
    char body[16];

    if (restart == NULL) {
        skip();
    }
    peer = kit_open(131072, 0);
    amqp_queue_declare(peer, 1, kit_bytes(queue), 0, 1, 0, 0, amqp_empty_table);
    kit_ok(peer);
    amqp_confirm_select(peer, 1);
    kit_ok(peer);
    for (int i = 0; i < 50; i++) {
        snprintf(body, sizeof(body), "%d", i);
        amqp_basic_publish(peer, 1, amqp_empty_bytes, kit_bytes(queue), 0, 0, &persistent,
                           kit_bytes(body));
        kit_method(peer, AMQP_BASIC_ACK_METHOD);
    }
    snprintf(command, sizeof(command), "%s %s", restart, how);
    assert_int_equal(system(command), 0);
    amqp_destroy_connection(peer);

    peer = kit_open(131072, 0);
    for (int i = 0; i < 50; i++) {
        snprintf(body, sizeof(body), "%d", i);
        kit_get(peer, queue, body, 1);
    }
    kit_empty(peer, queue);
    amqp_queue_delete(peer, 1, kit_bytes(queue), 0, 0);
    kit_ok(peer);
    kit_close(peer);
}

static void persistent_messages_survive_a_restart(void **state)
{
    (void)state;
    persistent_messages_survive("term");
}

static void persistent_messages_survive_a_crash(void **state)
{
    (void)state;
    persistent_messages_survive("kill");
}

#define with_peer(test) cmocka_unit_test_setup_teardown(test, opened, closed)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wrong_password_is_refused),
        cmocka_unit_test(a_missing_vhost_is_refused),
        cmocka_unit_test(a_small_frame_max_is_obeyed_both_ways),
        cmocka_unit_test(heartbeats_keep_an_idle_connection),
        with_peer(properties_and_headers_arrive),
        with_peer(bodies_of_many_sizes_arrive),
        with_peer(a_body_over_the_limit_is_refused),
        with_peer(ten_thousand_messages_arrive_in_order),
        with_peer(direct_fanout_and_topic_exchanges_route),
        with_peer(headers_exchanges_route),
        with_peer(exchanges_feed_exchanges_and_alternates),
        with_peer(a_mandatory_message_without_a_queue_comes_back),
        with_peer(acks_nacks_and_rejects_settle),
        with_peer(prefetch_holds_deliveries_back),
        with_peer(recover_delivers_again),
        with_peer(deleting_a_queue_cancels_its_consumer),
        with_peer(purge_and_delete_answer_counts),
        with_peer(every_publish_is_confirmed_once),
        with_peer(a_full_queue_that_rejects_nacks),
        with_peer(a_transaction_commits_and_rolls_back),
        with_peer(expired_messages_are_dead_lettered),
        with_peer(errors_name_code_and_text),
        with_peer(an_exclusive_queue_is_locked_for_others),
        cmocka_unit_test(a_consumer_tag_used_twice_ends_the_connection),
        cmocka_unit_test(persistent_messages_survive_a_restart),
        cmocka_unit_test(persistent_messages_survive_a_crash),
    };

    const int total = (int)(sizeof(tests) / sizeof(tests[0]));
    const int skipped = getenv("WEIR_COMPAT_RESTART") == NULL ? 2 : 0;
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);

    printf("%d passed, %d failed, %d skipped\n", total - failed - skipped, failed, skipped);
    return failed != 0;
}
