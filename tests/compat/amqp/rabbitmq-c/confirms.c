/* What a publisher hears: confirms, refusals, transactions. */
#include "kit.h"
#include "tests.h"

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
    amqp_table_entry_t entries[] = {kit_entry_int("x-max-length", 1),
                                    kit_entry_text("x-overflow", "reject-publish")};
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

int confirms_tests(int *count)
{
    const struct CMUnitTest tests[] = {
        kit_with_peer(every_publish_is_confirmed_once),
        kit_with_peer(a_full_queue_that_rejects_nacks),
        kit_with_peer(a_transaction_commits_and_rolls_back),
    };

    *count += (int)(sizeof(tests) / sizeof(tests[0]));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
