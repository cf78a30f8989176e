/* Where messages go, by every type of exchange and through exchanges bound to exchanges. */
#include "core/catalog_rig.h"

#include "core/route.h"
#include "core/route_headers.h"

/* Targets by name in order of their ids, joined: "q1 q2". */
static const char *names_of(struct route_targets *targets)
{
    static char text[512];
    uint64_t last = 0;
    text[0] = 0;
    for (uint32_t n = 0; n < targets->count; n++) {
        uint64_t best = UINT64_MAX;
        struct slice name = {0};
        for (uint32_t i = 0; i < targets->count; i++) {
            const struct route_target *target = &targets->items[i];
            uint64_t id = target->kind == TARGET_QUEUE ? target->queue->id : target->topic->id;
            if (id > last && id < best) {
                best = id;
                name = target->kind == TARGET_QUEUE ? target->queue->name : target->topic->name;
            }
        }
        size_t len = strlen(text);
        snprintf(text + len, sizeof text - len, "%s%.*s", len ? " " : "", (int)name.len,
                 (const char *)name.data);
        last = best;
    }
    return text;
}

static bool give_headers(void *ctx, struct args *out)
{
    if (ctx == NULL)
        return false;
    *out = *(const struct args *)ctx;
    return true;
}

static const char *routed(struct rig *rig, const char *exchange,
                          const struct route_message *message)
{
    static struct route_targets targets;
    route_reset(&targets);
    const struct exchange *from = catalog_exchange(rig->copy, 0, slice_of(exchange));
    assert_non_null(from);
    route_from_exchange(rig->copy, from, message, &targets);
    assert_false(targets.no_memory);
    const char *names = names_of(&targets);
    route_done(&targets);
    return names;
}

static const char *by_key(struct rig *rig, const char *exchange, const char *key)
{
    struct route_message message = {.key = slice_of(key)};
    return routed(rig, exchange, &message);
}

static void queues(struct rig *rig, const char *names)
{
    rig_init(rig);
    for (const char *name = names; *name; name++)
        rig_do(rig, rig_queue((const char[]){*name, 0}));
}

static void the_default_exchange_routes_by_name(void **state)
{
    (void)state;
    struct rig rig;
    queues(&rig, "ab");
    rig_do(&rig, rig_topic("t", 1));
    assert_string_equal(by_key(&rig, "", "a"), "a");
    assert_string_equal(by_key(&rig, "", "t"), "t");
    assert_string_equal(by_key(&rig, "", "none"), "");
    struct slice more[] = {slice_of("b"), slice_of("a"), slice_of("none")};
    struct route_message message = {.key = slice_of("a"), .more_keys = more, .more_count = 3};
    assert_string_equal(routed(&rig, "", &message), "a b");
    rig_done(&rig);
}

static void a_direct_exchange_routes_by_key(void **state)
{
    (void)state;
    struct rig rig;
    queues(&rig, "abc");
    rig_do(&rig, rig_bind("amq.direct", TARGET_QUEUE, "a", "k"));
    rig_do(&rig, rig_bind("amq.direct", TARGET_QUEUE, "b", "k"));
    rig_do(&rig, rig_bind("amq.direct", TARGET_QUEUE, "c", "l"));
    rig_do(&rig, rig_with(rig_bind("amq.direct", TARGET_QUEUE, "b", "k"), rig_int("n", 1)));
    assert_string_equal(by_key(&rig, "amq.direct", "k"), "a b");
    assert_string_equal(by_key(&rig, "amq.direct", "l"), "c");
    assert_string_equal(by_key(&rig, "amq.direct", "m"), "");
    struct catalog_request unbind = rig_bind("amq.direct", TARGET_QUEUE, "a", "k");
    unbind.op = CATALOG_UNBIND;
    rig_do(&rig, unbind);
    rig_do(&rig, rig_op(CATALOG_DELETE_QUEUE, "c"));
    assert_string_equal(by_key(&rig, "amq.direct", "k"), "b");
    assert_string_equal(by_key(&rig, "amq.direct", "l"), "");
    rig_done(&rig);
}

static void a_fanout_exchange_routes_to_each_queue_once(void **state)
{
    (void)state;
    struct rig rig;
    queues(&rig, "abc");
    rig_do(&rig, rig_bind("amq.fanout", TARGET_QUEUE, "a", "1"));
    rig_do(&rig, rig_bind("amq.fanout", TARGET_QUEUE, "a", "2"));
    rig_do(&rig, rig_bind("amq.fanout", TARGET_QUEUE, "c", ""));
    assert_string_equal(by_key(&rig, "amq.fanout", "any"), "a c");
    rig_done(&rig);
}

static void a_topic_exchange_routes_by_pattern(void **state)
{
    (void)state;
    struct rig rig;
    queues(&rig, "abc");
    rig_do(&rig, rig_bind("amq.topic", TARGET_QUEUE, "a", "*.error"));
    rig_do(&rig, rig_bind("amq.topic", TARGET_QUEUE, "a", "disk.#"));
    rig_do(&rig, rig_bind("amq.topic", TARGET_QUEUE, "b", "#"));
    assert_string_equal(by_key(&rig, "amq.topic", "disk.error"), "a b");
    assert_string_equal(by_key(&rig, "amq.topic", "net.info"), "b");
    rig_done(&rig);
}

static void a_headers_exchange_routes_by_headers(void **state)
{
    (void)state;
    struct rig rig;
    queues(&rig, "abcd");
    rig_do(&rig, rig_with(rig_bind("amq.headers", TARGET_QUEUE, "a", ""), rig_int("n", 1),
                          rig_text("s", "x")));
    rig_do(&rig, rig_with(rig_bind("amq.headers", TARGET_QUEUE, "b", ""),
                          rig_text("x-match", "any"), rig_int("n", 1), rig_text("s", "x")));
    rig_do(&rig, rig_bind("amq.headers", TARGET_QUEUE, "c", ""));
    rig_do(&rig,
           rig_with(rig_bind("amq.headers", TARGET_QUEUE, "d", ""), rig_text("x-match", "any")));
    const struct arg both[] = {rig_text("s", "x"), rig_int("n", 1)};
    struct args headers = {both, 2};
    struct route_message message = {.headers = give_headers, .ctx = &headers};
    assert_string_equal(routed(&rig, "amq.headers", &message), "a b c");
    headers.count = 1;
    assert_string_equal(routed(&rig, "amq.headers", &message), "b c");
    message.ctx = NULL;
    assert_string_equal(routed(&rig, "amq.headers", &message), "c");
    rig_done(&rig);
}

static void headers_match_in_four_ways(void **state)
{
    (void)state;
    const struct arg headers_items[] = {rig_int("n", 1), rig_text("x-s", "t")};
    struct args headers = {headers_items, 2};
    struct arg binding[] = {rig_text("x-match", "all"), rig_int("n", 1), rig_text("x-s", "other")};
    struct args args = {binding, 3};
    assert_true(headers_match(args, headers)); /* x- is not looked at */
    binding[0] = rig_text("x-match", "all-with-x");
    assert_false(headers_match(args, headers));
    binding[0] = rig_text("x-match", "any-with-x");
    assert_true(headers_match(args, headers));
    binding[1] = rig_int("n", 2);
    assert_false(headers_match(args, headers));
    binding[2] = rig_text("x-s", "t");
    assert_true(headers_match(args, headers));
    binding[0] = rig_text("x-match", "any");
    assert_false(headers_match(args, headers));
    binding[1] = (struct arg){.name = slice_of("n"), .kind = ARG_VOID}; /* presence */
    assert_true(headers_match(args, headers));
    binding[1] = rig_text("n", "1");
    assert_false(headers_match(args, headers));
}

static void exchanges_lead_to_exchanges_without_end(void **state)
{
    (void)state;
    struct rig rig;
    queues(&rig, "ab");
    rig_do(&rig, rig_exchange("x", EXCHANGE_DIRECT));
    rig_do(&rig, rig_exchange("y", EXCHANGE_FANOUT));
    rig_do(&rig, rig_bind("x", TARGET_EXCHANGE, "y", "k"));
    rig_do(&rig, rig_bind("y", TARGET_EXCHANGE, "x", ""));
    rig_do(&rig, rig_bind("x", TARGET_QUEUE, "a", "k"));
    rig_do(&rig, rig_bind("y", TARGET_QUEUE, "a", ""));
    rig_do(&rig, rig_bind("y", TARGET_QUEUE, "b", ""));
    assert_string_equal(by_key(&rig, "x", "k"), "a b");
    assert_string_equal(by_key(&rig, "y", "k"), "a b");
    assert_string_equal(by_key(&rig, "x", "none"), "");
    rig_done(&rig);
}

static void what_matches_nothing_goes_to_the_alternate(void **state)
{
    (void)state;
    struct rig rig;
    queues(&rig, "ab");
    rig_do(&rig, rig_with(rig_exchange("x", EXCHANGE_DIRECT), rig_text("alternate-exchange", "y")));
    rig_do(&rig, rig_with(rig_exchange("y", EXCHANGE_DIRECT), rig_text("alternate-exchange", "x")));
    rig_do(&rig, rig_bind("x", TARGET_QUEUE, "a", "k"));
    rig_do(&rig, rig_bind("y", TARGET_QUEUE, "b", "l"));
    assert_string_equal(by_key(&rig, "x", "k"), "a");
    assert_string_equal(by_key(&rig, "x", "l"), "b");
    assert_string_equal(by_key(&rig, "x", "m"), "");
    rig_do(&rig,
           rig_with(rig_exchange("z", EXCHANGE_FANOUT), rig_text("alternate-exchange", "none")));
    assert_string_equal(by_key(&rig, "z", "m"), "");
    rig_done(&rig);
}

static void a_topic_may_be_a_source(void **state)
{
    (void)state;
    struct rig rig;
    queues(&rig, "abc");
    rig_do(&rig, rig_topic("t", 1));
    assert_false(catalog_topic(rig.copy, 0, slice_of("t"))->has_bindings);
    rig_do(&rig, rig_bind("t", TARGET_QUEUE, "a", ""));
    rig_do(&rig, rig_bind("t", TARGET_QUEUE, "b", "k.*"));
    rig_do(&rig, rig_bind("t", TARGET_EXCHANGE, "amq.fanout", "k.l"));
    rig_do(&rig, rig_bind("amq.fanout", TARGET_QUEUE, "c", ""));
    rig_do(&rig, rig_bind("amq.fanout", TARGET_QUEUE, "t", "")); /* back again: left out */
    const struct topic *topic = catalog_topic(rig.copy, 0, slice_of("t"));
    assert_true(topic->has_bindings);
    struct route_targets targets = {0};
    struct route_message message = {.key = slice_of("k.l")};
    route_from_topic(rig.copy, topic, &message, &targets);
    assert_string_equal(names_of(&targets), "a b c");
    route_reset(&targets);
    message.key = slice_of("");
    route_from_topic(rig.copy, topic, &message, &targets);
    assert_string_equal(names_of(&targets), "a");
    route_done(&targets);
    rig_do(&rig, rig_op(CATALOG_DELETE_QUEUE, "a"));
    rig_do(&rig, rig_op(CATALOG_DELETE_QUEUE, "b"));
    assert_true(catalog_topic(rig.copy, 0, slice_of("t"))->has_bindings);
    struct catalog_request unbind = rig_bind("t", TARGET_EXCHANGE, "amq.fanout", "k.l");
    unbind.op = CATALOG_UNBIND;
    rig_do(&rig, unbind);
    assert_false(catalog_topic(rig.copy, 0, slice_of("t"))->has_bindings);
    rig_done(&rig);
}

static void a_target_that_grew_is_the_grown_one(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig);
    rig_do(&rig, rig_topic("t", 1));
    rig_do(&rig, rig_bind("amq.direct", TARGET_TOPIC, "t", "k"));
    struct catalog_request grow = rig_op(CATALOG_GROW_TOPIC, "t");
    grow.partitions = 4;
    rig_do(&rig, grow);
    struct route_targets targets = {0};
    struct route_message message = {.key = slice_of("k")};
    route_from_exchange(rig.copy, catalog_exchange(rig.copy, 0, slice_of("amq.direct")), &message,
                        &targets);
    assert_int_equal(targets.count, 1);
    assert_int_equal(targets.items[0].kind, TARGET_TOPIC);
    assert_int_equal(targets.items[0].topic->partition_count, 4);
    route_done(&targets);
    rig_done(&rig);
}

static void large_sets_have_each_target_once(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig);
    rig_do(&rig, rig_exchange("x", EXCHANGE_FANOUT));
    rig_do(&rig, rig_exchange("y", EXCHANGE_FANOUT));
    rig_do(&rig, rig_bind("x", TARGET_EXCHANGE, "y", ""));
    for (int i = 0; i < 200; i++) {
        char name[20];
        snprintf(name, sizeof name, "q%d", (i * 77) % 200);
        rig_do(&rig, rig_queue(name));
        rig_do(&rig, rig_bind("x", TARGET_QUEUE, name, ""));
        rig_do(&rig, rig_bind("y", TARGET_QUEUE, name, "a"));
        rig_do(&rig, rig_bind("y", TARGET_QUEUE, name, "b"));
    }
    struct route_targets targets = {0};
    struct route_message message = {.key = slice_of("")};
    for (int round = 0; round < 2; round++) {
        route_reset(&targets);
        route_from_exchange(rig.copy, catalog_exchange(rig.copy, 0, slice_of("x")), &message,
                            &targets);
        assert_int_equal(targets.count, 200);
        for (uint32_t i = 1; i < 200; i++)
            assert_true(targets.items[i].queue->id > targets.items[i - 1].queue->id);
    }
    route_done(&targets);
    rig_done(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_default_exchange_routes_by_name),
        cmocka_unit_test(a_direct_exchange_routes_by_key),
        cmocka_unit_test(a_fanout_exchange_routes_to_each_queue_once),
        cmocka_unit_test(a_topic_exchange_routes_by_pattern),
        cmocka_unit_test(a_headers_exchange_routes_by_headers),
        cmocka_unit_test(headers_match_in_four_ways),
        cmocka_unit_test(exchanges_lead_to_exchanges_without_end),
        cmocka_unit_test(what_matches_nothing_goes_to_the_alternate),
        cmocka_unit_test(a_topic_may_be_a_source),
        cmocka_unit_test(a_target_that_grew_is_the_grown_one),
        cmocka_unit_test(large_sets_have_each_target_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
