/* What must be there after the broker was restarted, or killed. */
#include "kit.h"
#include "tests.h"

#include <stdio.h>
#include <stdlib.h>

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

int restart_tests(int *count)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(persistent_messages_survive_a_restart),
        cmocka_unit_test(persistent_messages_survive_a_crash),
    };

    *count += (int)(sizeof(tests) / sizeof(tests[0]));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
