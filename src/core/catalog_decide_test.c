/* The bounds of what may be asked for: names, keys, arguments, partitions; and what goes along with
 * what is deleted, when memory runs out meanwhile. */
#include "base/memory_double.h"
#include "core/catalog_inside.h"
#include "core/catalog_rig.h"

/* Refused with that error, in some words; nothing has changed. */
static void refused(struct rig *rig, struct catalog_request request, enum err err)
{
    uint64_t next = rig->catalog->next_id;
    assert_int_equal(rig_try(rig, &request), err);
    assert_true(strlen(rig->problem.text) > 5);
    assert_int_equal(rig->catalog->next_id, next);
    assert_int_equal(rig->changes.count, 0);
}

static void names_and_arguments_have_their_bounds(void **state)
{
    (void)state;
    static uint8_t large[200000];
    memset(large, 'a', sizeof large);
    struct slice longest = slice_make(large, 255), longer = slice_make(large, 256);
    struct rig rig;
    rig_init(&rig);
    struct catalog_request request = rig_queue("");
    request.name = longer;
    refused(&rig, request, ERR_INVALID);
    request.name = longest;
    rig_do(&rig, request);
    request = rig_topic("", 1);
    request.name = longer;
    refused(&rig, request, ERR_INVALID_NAME);
    request.op = CATALOG_CREATE_NAMESPACE;
    refused(&rig, request, ERR_INVALID);
    rig_do(&rig, rig_queue("q"));
    request = rig_bind("amq.topic", TARGET_QUEUE, "q", "");
    request.key = longer;
    refused(&rig, request, ERR_INVALID);
    request.key = longest;
    rig_do(&rig, request);
    request.target = longer;
    refused(&rig, request, ERR_INVALID);
    struct arg arg = {.name = slice_make(large, 70000), .kind = ARG_INT, .wire_type = 'I'};
    refused(&rig, rig_with_args(rig_queue("r"), &arg, 1), ERR_INVALID);
    arg = (struct arg){.name = slice_of("x"),
                       .kind = ARG_TEXT,
                       .wire_type = 'S',
                       .text = slice_make(large, sizeof large)};
    refused(&rig, rig_with_args(rig_queue("r"), &arg, 1), ERR_TOO_LARGE);
    refused(&rig, rig_op((enum catalog_op)99, "r"), ERR_INVALID);
    rig_done(&rig);
}

static void topics_have_names_and_sizes_that_kafka_allows(void **state)
{
    (void)state;
    static const char *const wrong[] = {".", "..", "a{", "a[", "a:", "a/", "a ", "a\x7f", "a@"};
    static const char *const right[] = {"...", "A-Z_a.z", "09", "_", "-"};
    struct rig rig;
    rig_init(&rig);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        refused(&rig, rig_topic(wrong[i], 1), ERR_INVALID_NAME);
    for (size_t i = 0; i < sizeof right / sizeof right[0]; i++)
        rig_do(&rig, rig_topic(right[i], 1));
    refused(&rig, rig_topic("n", (uint32_t)INT32_MAX + 1), ERR_INVALID_PARTITIONS);
    refused(&rig, rig_op(CATALOG_GROW_TOPIC, "09"), ERR_INVALID_PARTITIONS);
    refused(&rig, rig_op(CATALOG_GROW_TOPIC, "n"), ERR_NOT_FOUND);
    refused(&rig, rig_op(CATALOG_CONFIGURE_TOPIC, "n"), ERR_NOT_FOUND);
    refused(&rig, rig_with(rig_op(CATALOG_CONFIGURE_TOPIC, "09"), rig_text("odd", "1")),
            ERR_INVALID_CONFIG);
    rig_done(&rig);
}

static void streams_have_properties_that_rabbitmq_allows(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig);
    struct arg type = rig_text("x-queue-type", "stream");
    struct catalog_request stream = rig_with_args(rig_topic("s", 1), &type, 1), other = stream;
    other.exclusive = true;
    rig_refused(&rig, other, ERR_INVALID,
                "invalid property 'exclusive-owner' for queue 's' in vhost '/'");
    other = stream;
    other.auto_delete = true;
    rig_refused(&rig, other, ERR_INVALID,
                "invalid property 'auto-delete' for queue 's' in vhost '/'");
    other = stream;
    other.durable = false;
    rig_refused(&rig, other, ERR_INVALID,
                "invalid property 'non-durable' for queue 's' in vhost '/'");
    other = stream;
    other.name = slice_of("amq.s");
    refused(&rig, other, ERR_REFUSED);
    rig_do(&rig, rig_with(rig_queue("s"), rig_text("x-queue-type", "classic")));
    refused(&rig, stream, ERR_NOT_EQUIVALENT);
    rig_done(&rig);
}

static void namespaces_have_their_bounds(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig);
    rig_refused(&rig, rig_op(CATALOG_DELETE_NAMESPACE, "none"), ERR_NOT_FOUND,
                "vhost none not found");
    rig_refused(&rig, rig_op(CATALOG_DELETE_NAMESPACE, "/"), ERR_REFUSED,
                "the default vhost cannot be deleted");
    struct catalog_request request = rig_queue("q");
    request.namespace_id = 77;
    rig_refused(&rig, request, ERR_NOT_FOUND, "no such vhost");
    rig.catalog->next_id = (uint64_t)UINT32_MAX + 1;
    rig_refused(&rig, rig_op(CATALOG_CREATE_NAMESPACE, "v"), ERR_INVALID, "no more ids for vhosts");
    rig_done(&rig);
}

enum { CHAIN = 12 };

/* Exchanges that go with their last binding, each bound to the next, the last to a queue. */
static void chain(struct rig *rig)
{
    char name[16], next[16];
    rig_do(rig, rig_queue("q"));
    for (int i = 0; i < CHAIN; i++) {
        snprintf(name, sizeof name, "x%d", i);
        struct catalog_request request = rig_exchange(name, EXCHANGE_FANOUT);
        request.auto_delete = true;
        rig_do(rig, request);
    }
    for (int i = 0; i < CHAIN; i++) {
        snprintf(name, sizeof name, "x%d", i);
        snprintf(next, sizeof next, "x%d", i + 1);
        rig_do(rig, i + 1 < CHAIN ? rig_bind(name, TARGET_EXCHANGE, next, "")
                                  : rig_bind(name, TARGET_QUEUE, "q", ""));
    }
}

static void all_that_depends_on_a_queue_goes_with_it_or_nothing_does(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig);
    chain(&rig);
    struct catalog_request request = rig_op(CATALOG_DELETE_QUEUE, "q");
    enum err err = ERR_NO_MEMORY;
    uint64_t n = 1;
    for (; err != ERR_NONE; n++) {
        assert_non_null(catalog_exchange(rig.catalog, 0, slice_of("x0")));
        assert_non_null(catalog_queue(rig.catalog, 0, slice_of("q")));
        free(rig.changes.data);
        rig.changes = (struct catalog_changes){0};
        memory_fail_at(n, 0);
        err = catalog_decide(rig.catalog, &request, &rig.changes, &rig.problem);
        memory_fail_at(0, 0);
        assert_true(err == ERR_NONE || err == ERR_NO_MEMORY);
        assert_int_equal(rig.changes.count, err == ERR_NONE ? CHAIN + 1 : 0);
    }
    assert_true(n > 4);
    rig_apply(rig.catalog, &rig.changes);
    assert_null(catalog_queue(rig.catalog, 0, slice_of("q")));
    assert_null(catalog_exchange(rig.catalog, 0, slice_of("x0")));
    rig_done(&rig);
}

static void a_topic_is_made_grown_and_deleted_or_memory_is_short(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig);
    struct catalog_request grow = rig_op(CATALOG_GROW_TOPIC, "t");
    grow.partitions = 400;
    static const uint32_t partitions[] = {300, 400, 400, 0};
    struct catalog_request requests[] = {rig_topic("t", 300), grow,
                                         rig_op(CATALOG_CONFIGURE_TOPIC, "t"),
                                         rig_op(CATALOG_DELETE_TOPIC, "t")};
    for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++) {
        enum err err = ERR_NO_MEMORY;
        for (uint64_t n = 1; err != ERR_NONE; n++) {
            free(rig.changes.data);
            rig.changes = (struct catalog_changes){0};
            memory_fail_at(n, 0);
            err = catalog_decide(rig.catalog, &requests[i], &rig.changes, &rig.problem);
            memory_fail_at(0, 0);
            assert_true(err == ERR_NONE || err == ERR_NO_MEMORY);
        }
        rig_apply(rig.catalog, &rig.changes);
        const struct topic *topic = catalog_topic(rig.catalog, 0, slice_of("t"));
        assert_int_equal(topic == NULL ? 0 : topic->partition_count, partitions[i]);
    }
    rig_done(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_arguments_have_their_bounds),
        cmocka_unit_test(topics_have_names_and_sizes_that_kafka_allows),
        cmocka_unit_test(streams_have_properties_that_rabbitmq_allows),
        cmocka_unit_test(namespaces_have_their_bounds),
        cmocka_unit_test(all_that_depends_on_a_queue_goes_with_it_or_nothing_does),
        cmocka_unit_test(a_topic_is_made_grown_and_deleted_or_memory_is_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
