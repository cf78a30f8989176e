/* A catalog to which memory is refused at each moment in turn: what is asked is done or refused as
 * a whole, and asked again it is done. */
#include "base/memory_double.h"
#include "core/catalog_rig.h"
#include "core/route.h"

enum { REQUESTS_MAX = 64 };

struct story {
    struct catalog_request requests[REQUESTS_MAX];
    uint32_t count;
    struct arg queue_args[4], topic_args[2], header_args[3];
    char names[REQUESTS_MAX][16];
};

static void tell(struct story *story, struct catalog_request request)
{
    assert_true(story->count < REQUESTS_MAX);
    story->requests[story->count++] = request;
}

static const char *name_of(struct story *story, const char *stem, int number)
{
    char *name = story->names[story->count];
    snprintf(name, sizeof story->names[0], "%s%d", stem, number);
    return name;
}

static void declarations(struct story *story)
{
    struct catalog_request request;
    tell(story, rig_op(CATALOG_CREATE_NAMESPACE, "other"));
    tell(story, rig_exchange("direct", EXCHANGE_DIRECT));
    tell(story, rig_exchange("topic", EXCHANGE_TOPIC));
    tell(story, rig_exchange("fanout", EXCHANGE_FANOUT));
    tell(story, rig_exchange("headers", EXCHANGE_HEADERS));
    for (int i = 0; i < 6; i++) {
        request = rig_queue(name_of(story, "queue", i));
        if (i % 2 == 1)
            request.args = (struct args){story->queue_args, 4};
        tell(story, request);
    }
    request = rig_queue("mine");
    request.exclusive = true;
    tell(story, request);
    for (int i = 0; i < 3; i++) {
        request = rig_topic(name_of(story, "topic", i), 1 + (uint32_t)i * 5);
        if (i == 1)
            request.args = (struct args){story->topic_args, 2};
        tell(story, request);
    }
}

static void bindings(struct story *story)
{
    for (int i = 0; i < 6; i++) {
        const char *queue = name_of(story, "queue", i);
        tell(story, rig_bind("topic", TARGET_QUEUE, queue, i % 2 == 0 ? "a.*.c" : "a.#"));
        queue = name_of(story, "queue", i);
        tell(story, rig_bind("direct", TARGET_QUEUE, queue, "key"));
    }
    tell(story, rig_bind("fanout", TARGET_EXCHANGE, "direct", ""));
    tell(story, rig_bind("fanout", TARGET_TOPIC, "topic0", ""));
    struct catalog_request request = rig_bind("headers", TARGET_QUEUE, "queue1", "");
    request.args = (struct args){story->header_args, 3};
    tell(story, request);
}

static void changes(struct story *story)
{
    struct catalog_request request = rig_op(CATALOG_GROW_TOPIC, "topic2");
    request.partitions = 40;
    tell(story, request);
    request = rig_op(CATALOG_CONFIGURE_TOPIC, "topic1");
    request.args = (struct args){story->topic_args, 1};
    tell(story, request);
    request = rig_bind("topic", TARGET_QUEUE, "queue2", "a.*.c");
    request.op = CATALOG_UNBIND;
    tell(story, request);
    request = rig_bind("headers", TARGET_QUEUE, "queue1", "");
    request.args = (struct args){story->header_args, 3};
    request.op = CATALOG_UNBIND;
    tell(story, request);
    tell(story, rig_op(CATALOG_DELETE_QUEUE, "queue3"));
    tell(story, rig_op(CATALOG_DELETE_TOPIC, "topic1"));
    tell(story, rig_op(CATALOG_DELETE_EXCHANGE, "direct"));
    tell(story, rig_op(CATALOG_DELETE_NAMESPACE, "other"));
}

static struct story *story_create(void)
{
    struct story *story = calloc(1, sizeof *story);
    assert_non_null(story);
    story->queue_args[0] = rig_int("x-message-ttl", 5000);
    story->queue_args[1] = rig_text("x-dead-letter-exchange", "fanout");
    story->queue_args[2] = rig_text("x-dead-letter-routing-key", "dead");
    story->queue_args[3] = rig_bool("x-single-active-consumer", true);
    story->topic_args[0] = rig_text("retention.ms", "1000");
    story->topic_args[1] = rig_text("cleanup.policy", "compact");
    story->header_args[0] = rig_text("x-match", "any");
    story->header_args[1] = rig_int("size", 3);
    story->header_args[2] = rig_text("colour", "red");
    declarations(story);
    bindings(story);
    changes(story);
    return story;
}

/* The changes reach a catalog: all of them, or memory was exhausted. */
static enum err take(struct catalog *catalog, struct slice changes)
{
    while (changes.len > 0) {
        size_t used = 0;
        enum err err = catalog_apply(catalog, changes, &used, NULL, NULL);
        if (err != ERR_NONE)
            return err;
        changes = slice_make(changes.data + used, changes.len - used);
    }
    return ERR_NONE;
}

/* As cell 0 does it, but asked again after a refusal. ERR_NO_MEMORY: a change was decided and could
 * not be applied, after which a broker stops. */
static enum err ask(struct rig *rig, const struct catalog_request *request)
{
    enum err err = catalog_decide(rig->catalog, request, &rig->changes, &rig->problem);
    if (err == ERR_NO_MEMORY) {
        memory_fail_at(0, 0);
        err = catalog_decide(rig->catalog, request, &rig->changes, &rig->problem);
    }
    if (err != ERR_NONE)
        print_message("%s\n", rig->problem.text);
    assert_int_equal(err, ERR_NONE);
    struct slice changes = slice_make(rig->changes.data, rig->changes.len);
    err = take(rig->catalog, changes);
    return err == ERR_NONE ? take(rig->copy, changes) : err;
}

static struct catalog *told(const struct story *story)
{
    struct rig rig;
    rig_init(&rig);
    for (uint32_t i = 0; i < story->count; i++)
        rig_do(&rig, story->requests[i]);
    catalog_destroy(rig.copy);
    free(rig.changes.data);
    return rig.catalog;
}

static void memory_may_run_out_at_any_moment(void **state)
{
    (void)state;
    struct story *story = story_create();
    struct catalog *wanted = told(story);
    uint64_t stopped = 0, whole = 0;
    bool reached = true;
    for (uint64_t n = 1; reached; n++) {
        struct rig rig;
        rig_init(&rig);
        enum err err = ERR_NONE;
        memory_fail_at(n, 0);
        for (uint32_t i = 0; i < story->count && err == ERR_NONE; i++)
            err = ask(&rig, &story->requests[i]);
        reached = memory_refused() > 0;
        memory_fail_at(0, 0);
        assert_true(err == ERR_NONE || err == ERR_NO_MEMORY);
        stopped += err != ERR_NONE;
        if (err == ERR_NONE) {
            whole++;
            assert_true(rig_same(rig.catalog, wanted, false));
            assert_true(rig_same(rig.copy, wanted, false));
        }
        rig_done(&rig);
    }
    assert_true(whole > 10 && stopped > 10);
    catalog_destroy(wanted);
    free(story);
}

struct seen {
    uint32_t count, most;
};

static bool see_topic(void *ctx, const struct topic *topic)
{
    struct seen *seen = ctx;
    assert_int_equal(topic->namespace_id, 0);
    return ++seen->count < seen->most;
}

static bool see_queue(void *ctx, const struct queue_def *queue)
{
    struct seen *seen = ctx;
    assert_int_equal(queue->namespace_id, 0);
    return ++seen->count < seen->most;
}

static void a_walk_sees_each_once_and_stops_when_told(void **state)
{
    (void)state;
    struct story *story = story_create();
    story->count -= 8; /* before some go again */
    struct catalog *catalog = told(story);
    for (uint32_t most = 1; most < 20; most++) {
        struct seen topics = {.most = most}, queues = {.most = most};
        catalog_each_topic(catalog, 0, see_topic, &topics);
        catalog_each_queue(catalog, 0, see_queue, &queues);
        assert_int_equal(topics.count, most < 3 ? most : 3);
        assert_int_equal(queues.count, most < 7 ? most : 7);
    }
    struct seen none = {.most = 9};
    catalog_each_topic(catalog, 77, see_topic, &none);
    catalog_each_queue(catalog, 77, see_queue, &none);
    assert_int_equal(none.count, 0);
    catalog_destroy(catalog);
    free(story);
}

static void types_of_exchanges_have_names(void **state)
{
    (void)state;
    static const enum exchange_type types[] = {EXCHANGE_DIRECT, EXCHANGE_FANOUT, EXCHANGE_TOPIC,
                                               EXCHANGE_HEADERS};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        enum exchange_type type;
        assert_true(exchange_type_parse(slice_of(exchange_type_name(types[i])), &type));
        assert_int_equal(type, types[i]);
    }
    enum exchange_type type;
    assert_false(exchange_type_parse(slice_of("x-delayed-message"), &type));
}

struct gathered {
    struct catalog *into;
    enum err err;
};

static enum err gather(void *ctx, struct slice change)
{
    struct gathered *gathered = ctx;
    return gathered->err = take(gathered->into, change);
}

static void a_copy_is_made_or_refused(void **state)
{
    (void)state;
    struct story *story = story_create();
    struct catalog *catalog = told(story);
    enum err err = ERR_NO_MEMORY;
    for (uint64_t n = 1; err != ERR_NONE; n++) {
        memory_fail_at(n, 0);
        struct gathered gathered = {.into = catalog_create()};
        err =
            gathered.into == NULL ? ERR_NO_MEMORY : catalog_dump(catalog, false, gather, &gathered);
        memory_fail_at(0, 0);
        assert_true(err == ERR_NONE || err == ERR_NO_MEMORY);
        if (err == ERR_NONE)
            assert_true(rig_same(catalog, gathered.into, false));
        if (gathered.into != NULL)
            catalog_destroy(gathered.into);
    }
    catalog_destroy(catalog);
    free(story);
}

static bool headers_of(void *ctx, struct args *out)
{
    const struct story *story = ctx;
    *out = (struct args){story->header_args + 1, 2};
    return true;
}

static void a_message_is_routed_or_memory_is_said_to_be_short(void **state)
{
    (void)state;
    struct story *story = story_create();
    story->count -= 8; /* before what is bound goes again */
    struct catalog *catalog = told(story);
    static const char *exchanges[] = {"direct", "topic", "fanout", "headers"};
    for (size_t i = 0; i < 4; i++) {
        const struct exchange *exchange = catalog_exchange(catalog, 0, slice_of(exchanges[i]));
        struct route_message message = {
            .key = slice_of(i == 1 ? "a.b.c" : "key"), .headers = headers_of, .ctx = story};
        struct route_targets wanted = {0};
        route_from_exchange(catalog, exchange, &message, &wanted);
        assert_false(wanted.no_memory);
        assert_true(wanted.count > 0);
        bool short_of_it = true;
        for (uint64_t n = 1; short_of_it; n++) {
            struct route_targets targets = {0};
            memory_fail_at(n, 0);
            route_from_exchange(catalog, exchange, &message, &targets);
            memory_fail_at(0, 0);
            short_of_it = targets.no_memory;
            if (!short_of_it)
                assert_int_equal(targets.count, wanted.count);
            route_done(&targets);
        }
        route_done(&wanted);
    }
    catalog_destroy(catalog);
    free(story);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_may_run_out_at_any_moment),
        cmocka_unit_test(a_walk_sees_each_once_and_stops_when_told),
        cmocka_unit_test(types_of_exchanges_have_names),
        cmocka_unit_test(a_copy_is_made_or_refused),
        cmocka_unit_test(a_message_is_routed_or_memory_is_said_to_be_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
