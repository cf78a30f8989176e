/* What becomes of a message in a queue: deliveries and what settles them, prefetch, cancels,
 * purges, dead letters. */
#include "kit.h"
#include "tests.h"

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

static void expired_messages_are_dead_lettered(void **state)
{
    amqp_connection_state_t peer = *state;
    const char *dead = kit_queue(peer, amqp_empty_table);
    amqp_table_entry_t entries[] = {kit_entry_text("x-dead-letter-exchange", ""),
                                    kit_entry_text("x-dead-letter-routing-key", dead),
                                    kit_entry_int("x-message-ttl", 50)};
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

int consuming_tests(int *count)
{
    const struct CMUnitTest tests[] = {
        kit_with_peer(acks_nacks_and_rejects_settle),
        kit_with_peer(prefetch_holds_deliveries_back),
        kit_with_peer(recover_delivers_again),
        kit_with_peer(deleting_a_queue_cancels_its_consumer),
        kit_with_peer(purge_and_delete_answer_counts),
        kit_with_peer(expired_messages_are_dead_lettered),
    };

    *count += (int)(sizeof(tests) / sizeof(tests[0]));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
