/* Mistakes are answered with the code and the text that RabbitMQ has for them. */
#include "kit.h"
#include "tests.h"

#include <stdio.h>

static void errors_name_code_and_text(void **state)
{
    amqp_connection_state_t peer = *state;
    const char *queue = kit_queue(peer, amqp_empty_table);
    const char *missing = kit_name("missing");
    amqp_table_entry_t ttl = kit_entry_int("x-message-ttl", 10);
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

int errors_tests(int *count)
{
    const struct CMUnitTest tests[] = {
        kit_with_peer(errors_name_code_and_text),
        kit_with_peer(an_exclusive_queue_is_locked_for_others),
        cmocka_unit_test(a_consumer_tag_used_twice_ends_the_connection),
    };

    *count += (int)(sizeof(tests) / sizeof(tests[0]));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
