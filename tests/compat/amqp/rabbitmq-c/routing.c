/* Exchanges: which queues a message comes to, and what becomes of one that no queue takes. */
#include "kit.h"
#include "tests.h"

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
    amqp_table_entry_t wanted[] = {kit_entry_text("x-match", "all"),
                                   kit_entry_text("colour", "red"), kit_entry_int("size", 5)};
    amqp_table_entry_t headers[] = {kit_entry_text("colour", "red"), kit_entry_int("size", 6)};
    amqp_basic_properties_t properties = {._flags = AMQP_BASIC_HEADERS_FLAG,
                                          .headers = {.num_entries = 2, .entries = headers}};
    amqp_table_t arguments = {.num_entries = 3, .entries = wanted};

    bind(peer, all, x, "", arguments);
    wanted[0] = kit_entry_text("x-match", "any");
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
    amqp_table_entry_t entry = kit_entry_text("alternate-exchange", alternate);
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

int routing_tests(int *count)
{
    const struct CMUnitTest tests[] = {
        kit_with_peer(direct_fanout_and_topic_exchanges_route),
        kit_with_peer(headers_exchanges_route),
        kit_with_peer(exchanges_feed_exchanges_and_alternates),
        kit_with_peer(a_mandatory_message_without_a_queue_comes_back),
    };

    *count += (int)(sizeof(tests) / sizeof(tests[0]));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
