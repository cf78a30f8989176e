/* The catalog is what its changes make it: however they are fed, again after a crash, from a dump,
 * or damaged. */
#include "core/catalog_rig.h"

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static uint32_t pick(uint64_t *state, uint32_t count)
{
    return (uint32_t)(next_random(state) >> 20) % count;
}

static const char *const NAMES[] = {"a", "b",         "c",          "d",
                                    "e", "amq.topic", "amq.direct", "amq.headers"};
static const char *const KEYS[] = {"", "k", "k.l", "*.l", "#", "k.#"};

static struct catalog_request random_bind(uint64_t *state, enum catalog_op op)
{
    static const struct arg args[] = {
        {.name = {(const uint8_t *)"h", 1}, .kind = ARG_INT, .wire_type = 'I', .number = 1},
        {.name = {(const uint8_t *)"g", 1}, .kind = ARG_VOID, .wire_type = 'V'}};
    struct catalog_request request =
        rig_bind(NAMES[pick(state, 8)], pick(state, 3) == 0 ? TARGET_EXCHANGE : TARGET_QUEUE,
                 NAMES[pick(state, 5)], KEYS[pick(state, 6)]);
    request.op = op;
    request.args = (struct args){args, pick(state, 3)};
    return request;
}

static struct catalog_request random_request(uint64_t *state)
{
    const char *name = NAMES[pick(state, 5)];
    struct catalog_request request = rig_op(CATALOG_DELETE_QUEUE, name);
    switch (pick(state, 16)) {
    case 0:
    case 1:
    case 2:
        request = rig_exchange(name, (enum exchange_type)pick(state, EXCHANGE_TYPES));
        request.auto_delete = pick(state, 2);
        request.durable = pick(state, 3) > 0;
        return request;
    case 3:
    case 4:
    case 5:
        request = rig_queue(name);
        request.exclusive = pick(state, 4) == 0;
        request.durable = pick(state, 3) > 0;
        return request;
    case 6:
        return rig_topic(name, 1 + pick(state, 3));
    case 7:
        request = rig_op(CATALOG_GROW_TOPIC, name);
        request.partitions = 1 + pick(state, 6);
        return request;
    case 8:
        return rig_op(CATALOG_CONFIGURE_TOPIC, name);
    case 9:
        return rig_op(CATALOG_DELETE_TOPIC, name);
    case 10:
        return rig_op(CATALOG_DELETE_EXCHANGE, name);
    case 11:
        return random_bind(state, CATALOG_UNBIND);
    case 12:
        return request;
    default:
        return random_bind(state, CATALOG_BIND);
    }
}

static void feed(struct catalog *catalog, const uint8_t *from, const uint8_t *to)
{
    while (from < to) {
        size_t used = 0;
        assert_int_equal(
            catalog_apply(catalog, slice_make(from, (size_t)(to - from)), &used, NULL, NULL),
            ERR_NONE);
        from += used;
    }
}

struct journal {
    uint8_t *bytes;
    size_t len, ends[512];
    uint32_t count;
};

static void journal_add(struct journal *journal, const struct catalog_changes *changes)
{
    journal->bytes = realloc(journal->bytes, journal->len + changes->len);
    memcpy(journal->bytes + journal->len, changes->data, changes->len);
    journal->len += changes->len;
    journal->ends[journal->count++] = journal->len;
}

/* What a restart comes to, from the durable state as it was after `stored` requests and a replay
 * that begins with `from`. */
static struct catalog *restart(const struct journal *journal, uint32_t stored, uint32_t from)
{
    struct catalog *before = catalog_create();
    feed(before, journal->bytes, journal->bytes + (stored ? journal->ends[stored - 1] : 0));
    struct catalog *catalog = rig_rebuild(before, true);
    catalog_destroy(before);
    feed(catalog, journal->bytes + (from ? journal->ends[from - 1] : 0),
         journal->bytes + journal->len);
    return catalog;
}

static void drop_first(struct rig_dump *dump)
{
    free(dump->changes[0]);
    dump->count--;
    dump->changes[0] = dump->changes[dump->count];
    dump->lengths[0] = dump->lengths[dump->count];
}

static void copies_dumps_and_replays_come_to_the_same(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        uint64_t random = seed * UINT64_C(0x9E3779B97F4A7C15);
        struct rig rig;
        rig_init(&rig);
        struct journal journal = {0};
        for (int i = 0; i < 150; i++) {
            struct catalog_request request = random_request(&random);
            if (rig_try(&rig, &request) == ERR_NONE && rig.changes.durable)
                journal_add(&journal, &rig.changes);
        }
        assert_true(rig_same(rig.catalog, rig.copy, false));
        struct catalog *rebuilt = rig_rebuild(rig.catalog, false);
        assert_true(rig_same(rig.catalog, rebuilt, false));
        catalog_destroy(rebuilt);
        for (int i = 0; i < 5; i++) {
            uint32_t stored = pick(&random, journal.count + 1), from = pick(&random, stored + 1);
            struct catalog *restarted = restart(&journal, stored, from);
            struct catalog *durable = rig_rebuild(rig.catalog, true);
            struct rig_dump *a = rig_dump(restarted, true), *b = rig_dump(durable, true);
            /* Ids may lag behind: those of objects that were not durable are free again. */
            drop_first(a);
            drop_first(b);
            assert_true(rig_dump_equal(a, b));
            rig_dump_done(a);
            rig_dump_done(b);
            catalog_destroy(restarted);
            catalog_destroy(durable);
        }
        free(journal.bytes);
        rig_done(&rig);
    }
}

static void generation_and_ids_only_grow(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig);
    uint64_t last = 0, generation = catalog_generation(rig.catalog);
    for (int i = 0; i < 50; i++) {
        uint64_t id = rig_do(&rig, rig_queue("q"));
        assert_true(id > last);
        assert_int_equal(catalog_generation(rig.catalog), ++generation);
        last = id;
        rig_do(&rig, rig_op(CATALOG_DELETE_QUEUE, "q"));
        assert_int_equal(catalog_generation(rig.catalog), ++generation);
        struct catalog *rebuilt = rig_rebuild(rig.catalog, true);
        struct catalog_request request = rig_queue("q");
        assert_int_equal(catalog_decide(rebuilt, &request, &rig.changes, &rig.problem), ERR_NONE);
        assert_true(rig.changes.id > last);
        catalog_destroy(rebuilt);
    }
    rig_done(&rig);
}

static void validating_changes_nothing(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig);
    struct catalog_request request = rig_topic("t", 3);
    request.validate_only = true;
    rig_do(&rig, request);
    assert_int_equal(rig.changes.len, 0);
    assert_null(catalog_topic(rig.catalog, 0, slice_of("t")));
    request.partitions = 0;
    assert_int_equal(rig_try(&rig, &request), ERR_INVALID_PARTITIONS);
    rig_done(&rig);
}

/* ---- Listeners ---- */

struct heard {
    char text[400];
};

static void hear(void *ctx, const char *what, struct slice name, uint32_t number)
{
    struct heard *heard = ctx;
    size_t len = strlen(heard->text);
    snprintf(heard->text + len, sizeof heard->text - len, "%s %.*s %u;", what, (int)name.len,
             (const char *)name.data, number);
}

static void hear_queue_added(void *ctx, const struct queue_def *queue)
{
    hear(ctx, "+queue", queue->name, 0);
}

static void hear_queue_removed(void *ctx, const struct queue_def *queue)
{
    hear(ctx, "-queue", queue->name, 0);
}

static void hear_topic_added(void *ctx, const struct topic *topic, uint32_t first_new)
{
    hear(ctx, "+topic", topic->name, first_new);
}

static void hear_topic_removed(void *ctx, const struct topic *topic)
{
    hear(ctx, "-topic", topic->name, topic->partition_count);
}

static void the_listener_hears_of_queues_and_topics(void **state)
{
    (void)state;
    static const struct catalog_listener listener = {hear_queue_added, hear_queue_removed,
                                                     hear_topic_added, hear_topic_removed};
    struct catalog *catalog = catalog_create();
    struct heard heard = {{0}};
    struct catalog_changes changes = {0};
    struct catalog_problem problem;
    struct catalog_request grow = rig_op(CATALOG_GROW_TOPIC, "t");
    grow.partitions = 5;
    struct catalog_request requests[] = {
        rig_queue("q"),
        rig_topic("t", 2),
        grow,
        rig_op(CATALOG_CONFIGURE_TOPIC, "t"),
        rig_op(CATALOG_DELETE_TOPIC, "t"),
        rig_op(CATALOG_DELETE_QUEUE, "q"),
    };
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
        assert_int_equal(catalog_decide(catalog, &requests[i], &changes, &problem), ERR_NONE);
        size_t used;
        assert_int_equal(
            catalog_apply(catalog, slice_make(changes.data, changes.len), &used, &listener, &heard),
            ERR_NONE);
    }
    assert_string_equal(heard.text,
                        "+queue q 0;+topic t 0;+topic t 2;+topic t 5;-topic t 5;-queue q 0;");
    free(changes.data);
    catalog_destroy(catalog);
}

/* ---- Damage ---- */

static struct rig_dump *rich_dump(struct rig *rig)
{
    rig_init(rig);
    rig_do(rig, rig_op(CATALOG_CREATE_NAMESPACE, "ns"));
    rig_do(rig, rig_with(rig_exchange("x", EXCHANGE_TOPIC), rig_text("alternate-exchange", "y")));
    rig_do(rig, rig_with(rig_queue("q"), rig_int("x-message-ttl", 5),
                         rig_text("x-overflow", "drop-head")));
    rig_do(rig, rig_with(rig_topic("t", 3), rig_text("retention.ms", "5")));
    rig_do(rig, rig_with(rig_bind("x", TARGET_QUEUE, "q", "a.*"), rig_int("h", 1)));
    rig_do(rig, rig_bind("t", TARGET_QUEUE, "q", ""));
    return rig_dump(rig->catalog, false);
}

static void truncated_changes_are_corrupt(void **state)
{
    (void)state;
    struct rig rig;
    struct rig_dump *dump = rich_dump(&rig);
    for (uint32_t i = 0; i < dump->count; i++) {
        struct catalog *catalog = catalog_create();
        for (size_t len = 0; len < dump->lengths[i]; len++) {
            uint8_t *part = malloc(len + 1); /* so that reading beyond it shows */
            memcpy(part, dump->changes[i], len);
            size_t used = 77;
            assert_int_equal(catalog_apply(catalog, slice_make(part, len), &used, NULL, NULL),
                             ERR_CORRUPT);
            assert_int_equal(used, 77);
            free(part);
        }
        catalog_destroy(catalog);
    }
    rig_dump_done(dump);
    rig_done(&rig);
}

static void damaged_changes_never_break_the_catalog(void **state)
{
    (void)state;
    struct rig rig;
    struct rig_dump *dump = rich_dump(&rig);
    uint64_t random = 99;
    for (int round = 0; round < 3000; round++) {
        struct catalog *catalog = round % 2 ? catalog_create() : rig_rebuild(rig.catalog, false);
        for (int i = 0; i < 6; i++) {
            uint32_t at = pick(&random, dump->count);
            uint8_t *bytes = malloc(dump->lengths[at]);
            memcpy(bytes, dump->changes[at], dump->lengths[at]);
            for (uint32_t hits = pick(&random, 3); hits > 0; hits--)
                bytes[pick(&random, (uint32_t)dump->lengths[at])] = (uint8_t)next_random(&random);
            size_t used;
            enum err err =
                catalog_apply(catalog, slice_make(bytes, dump->lengths[at]), &used, NULL, NULL);
            assert_true(err == ERR_NONE || err == ERR_CORRUPT);
            free(bytes);
        }
        struct catalog *rebuilt = rig_rebuild(catalog, false);
        assert_true(rig_same(catalog, rebuilt, false));
        catalog_destroy(rebuilt);
        catalog_destroy(catalog);
    }
    rig_dump_done(dump);
    rig_done(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copies_dumps_and_replays_come_to_the_same),
        cmocka_unit_test(generation_and_ids_only_grow),
        cmocka_unit_test(validating_changes_nothing),
        cmocka_unit_test(the_listener_hears_of_queues_and_topics),
        cmocka_unit_test(truncated_changes_are_corrupt),
        cmocka_unit_test(damaged_changes_never_break_the_catalog),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
