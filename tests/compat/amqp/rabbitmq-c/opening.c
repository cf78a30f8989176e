/* Logging in, and what is agreed on there. */
#include "kit.h"
#include "tests.h"

#include <string.h>

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

int opening_tests(int *count)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wrong_password_is_refused),
        cmocka_unit_test(a_missing_vhost_is_refused),
        cmocka_unit_test(a_small_frame_max_is_obeyed_both_ways),
        cmocka_unit_test(heartbeats_keep_an_idle_connection),
    };

    *count += (int)(sizeof(tests) / sizeof(tests[0]));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
