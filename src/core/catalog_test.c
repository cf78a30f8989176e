/* Requests become changes, changes make definitions, and a dump of them makes the same again. */
#include "core/catalog_rig.h"

static const char EXCLUSIVE_TEXT[] =
    "cannot obtain exclusive access to locked queue 'q' in vhost '/'. It could be originally "
    "declared "
    "on another connection or the exclusive property value does not match that of the original "
    "declaration.";

/* ---- Queues ---- */

static void a_queue_is_declared_once(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig);
    uint64_t id = rig_do(&rig, rig_queue("q"));
    assert_int_equal(id, 1);
    assert_false(rig.changes.existed);
    assert_true(rig.changes.durable);
    assert_int_equal(rig_do(&rig, rig_queue("q")), id);
    assert_true(rig.changes.existed);
    assert_int_equal(rig.changes.count, 0);
    const struct queue_def *queue = catalog_queue(rig.copy, 0, slice_of("q"));
    assert_non_null(queue);
    assert_true(queue->durable);
    struct queue_options options;
    catalog_queue_options(queue, &options);
    assert_int_equal(options.message_ttl_ms, -1);
    assert_false(options.dead_letters);
    assert_ptr_equal(catalog_queue_by_id(rig.copy, id), queue);
    assert_null(catalog_queue(rig.copy, 0, slice_of("other")));
    assert_null(catalog_topic_by_id(rig.copy, id));
    rig_done(&rig);
}

static void arguments_become_options(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig);
    rig_do(&rig, rig_with(rig_queue("q"), rig_int("x-message-ttl", 10), rig_int("x-expires", 20),
                          rig_int("x-max-length", 30), rig_int("x-max-length-bytes", 40),
                          rig_int("x-max-priority", 5), rig_int("x-delivery-limit", 6),
                          rig_text("x-overflow", "reject-publish"),
                          rig_bool("x-single-active-consumer", true),
                          rig_text("x-dead-letter-exchange", ""),
                          rig_text("x-dead-letter-routing-key", "dead")));
    const struct queue_def *queue = catalog_queue(rig.copy, 0, slice_of("q"));
    struct queue_options options;
    catalog_queue_options(queue, &options);
    assert_int_equal(options.message_ttl_ms, 10);
    assert_int_equal(options.expires_ms, 20);
    assert_int_equal(options.max_length, 30);
    assert_int_equal(options.max_length_bytes, 40);
    assert_int_equal(options.max_priority, 5);
    assert_int_equal(options.delivery_limit, 6);
    assert_int_equal(options.overflow, OVERFLOW_REJECT_PUBLISH);
    assert_true(options.single_active_consumer);
    assert_true(options.dead_letters);
    struct slice exchange, key;
    assert_true(catalog_queue_dead_letters(queue, &exchange, &key));
    assert_int_equal(exchange.len, 0);
    assert_true(slice_equal(key, slice_of("dead")));
    rig_done(&rig);
}

static void another_declaration_must_be_equivalent(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig);
    rig_do(&rig, rig_with(rig_queue("q"), rig_int("x-message-ttl", 10), rig_int("unknown", 1)));
    struct catalog_request request = rig_queue("q");
    rig_refused(&rig, request, ERR_NOT_EQUIVALENT,
                "inequivalent arg 'x-message-ttl' for queue 'q' in vhost '/': received none but "
                "current is the value '10' of type 'signedint'");
    struct arg ttl = rig_int("x-message-ttl", 10);
    ttl.wire_type = 'l'; /* integers of any width are one class */
    request.args = (struct args){&ttl, 1};
    rig_do(&rig, request);
    rig_refused(&rig, rig_with(rig_queue("q"), rig_int("x-message-ttl", 20)), ERR_NOT_EQUIVALENT,
                "inequivalent arg 'x-message-ttl' for queue 'q' in vhost '/': received '20' but "
                "current is '10'");
    rig_refused(
        &rig,
        rig_with(rig_queue("q"), rig_int("x-message-ttl", 10), rig_text("x-overflow", "drop-head")),
        ERR_NOT_EQUIVALENT,
        "inequivalent arg 'x-overflow' for queue 'q' in vhost '/': received the value "
        "'drop-head' of type 'longstr' but current is none");
    request.durable = false;
    rig_refused(
        &rig, request, ERR_NOT_EQUIVALENT,
        "inequivalent arg 'durable' for queue 'q' in vhost '/': received 'false' but current "
        "is 'true'");
    request.durable = request.auto_delete = true;
    rig_refused(&rig, request, ERR_NOT_EQUIVALENT,
                "inequivalent arg 'auto_delete' for queue 'q' in vhost '/': received 'true' but "
                "current is 'false'");
    rig_do(&rig, rig_queue("c"));
    rig_do(&rig, rig_with(rig_queue("c"), rig_text("x-queue-type", "classic")));
    rig_refused(&rig, rig_with(rig_queue("c"), rig_text("x-queue-type", "quorum")),
                ERR_NOT_EQUIVALENT,
                "inequivalent arg 'x-queue-type' for queue 'c' in vhost '/': received the value "
                "'quorum' of type 'longstr' but current is none");
    rig_done(&rig);
}

static void wrong_arguments_are_refused(void **state)
{
    (void)state;
    static const char *const WORDS[] = {"{value_negative,-1}",
                                        "{value_too_big,4294967296}",
                                        "\"expected integer, got longstr\"",
                                        "{value_zero,0}",
                                        "{max_value_exceeded,256}",
                                        "invalid_overflow",
                                        "{unacceptable_type,signedint}",
                                        "routing_key_but_no_dlx_defined",
                                        "\"unsupported queue type 'odd'\""};
    const struct arg args[] = {
        rig_int("x-message-ttl", -1),           rig_int("x-message-ttl", INT64_C(4294967296)),
        rig_text("x-message-ttl", "10"),        rig_int("x-expires", 0),
        rig_int("x-max-priority", 256),         rig_text("x-overflow", "odd"),
        rig_int("x-single-active-consumer", 1), rig_text("x-dead-letter-routing-key", "k"),
        rig_text("x-queue-type", "odd")};
    struct rig rig;
    rig_init(&rig);
    for (size_t i = 0; i < sizeof args / sizeof *args; i++) {
        char text[300];
        snprintf(text, sizeof text, "invalid arg '%.*s' for queue 'q' in vhost '/': %s",
                 (int)args[i].name.len, (const char *)args[i].name.data, WORDS[i]);
        rig_refused(&rig, rig_with_args(rig_queue("q"), &args[i], 1), ERR_INVALID, text);
    }
    rig_refused(
        &rig, rig_with(rig_queue("q"), rig_int("x-dead-letter-exchange", 1)), ERR_INVALID,
        "invalid type 'signedint' for arg 'x-dead-letter-exchange' in queue 'q' in vhost '/'");
    assert_null(catalog_queue(rig.catalog, 0, slice_of("q")));
    rig_done(&rig);
}

static void exclusive_queues_belong_to_their_connection(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig);
    struct catalog_request mine = rig_queue("q");
    mine.exclusive = true;
    uint64_t id = rig_do(&rig, mine);
    assert_false(rig.changes.durable);
    assert_false(catalog_queue(rig.copy, 0, slice_of("q"))->durable);
    rig_do(&rig, mine);
    struct catalog_request other = mine;
    other.owner = 8;
    other.auto_delete = true; /* the lock is looked at first */
    rig_refused(&rig, other, ERR_LOCKED, EXCLUSIVE_TEXT);
    rig_refused(&rig, rig_queue("q"), ERR_LOCKED, EXCLUSIVE_TEXT);
    struct catalog_request delete = rig_op(CATALOG_DELETE_QUEUE, "q");
    delete.owner = 8;
    rig_refused(&rig, delete, ERR_LOCKED, EXCLUSIVE_TEXT);
    struct catalog_request bind = rig_bind("amq.fanout", TARGET_QUEUE, "q", "");
    bind.owner = 8;
    rig_refused(&rig, bind, ERR_LOCKED, EXCLUSIVE_TEXT);
    uint64_t ids[4];
    assert_int_equal(catalog_owned(rig.catalog, 8, ids, 4), 0);
    assert_int_equal(catalog_owned(rig.catalog, 7, ids, 4), 1);
    assert_int_equal(ids[0], id);
    rig_do(&rig, rig_op(CATALOG_DELETE_QUEUE, "q"));
    assert_int_equal(catalog_owned(rig.catalog, 7, ids, 4), 0);
    rig_done(&rig);
}

static void a_connection_may_own_many_queues(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig);
    for (uint32_t i = 0; i < 100; i++) {
        char name[20];
        snprintf(name, sizeof name, "amq.gen-%u", i);
        struct catalog_request request = rig_queue(name);
        request.exclusive = true;
        rig_do(&rig, request);
    }
    uint64_t ids[8];
    uint32_t left = 100;
    while (catalog_owned(rig.catalog, 7, ids, 8) > 0) {
        assert_int_equal(catalog_owned(rig.copy, 7, NULL, 0), left--);
        const struct queue_def *queue = catalog_queue_by_id(rig.catalog, ids[0]);
        struct catalog_request request = {
            .op = CATALOG_DELETE_QUEUE, .name = queue->name, .owner = 7};
        rig_do(&rig, request);
    }
    assert_int_equal(left, 0);
    rig_done(&rig);
}

static void reserved_names_are_refused(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig);
    rig_refused(&rig, rig_queue("amq.q"), ERR_REFUSED,
                "queue name 'amq.q' contains reserved prefix 'amq.*'");
    rig_refused(&rig, rig_exchange("amq.x", EXCHANGE_TOPIC), ERR_REFUSED,
                "exchange name 'amq.x' contains reserved prefix 'amq.*'");
    rig_refused(&rig, rig_exchange("", EXCHANGE_DIRECT), ERR_REFUSED,
                "operation not permitted on the default exchange");
    rig_refused(&rig, rig_op(CATALOG_DELETE_EXCHANGE, ""), ERR_REFUSED,
                "operation not permitted on the default exchange");
    rig_refused(&rig, rig_op(CATALOG_DELETE_EXCHANGE, "amq.topic"), ERR_REFUSED,
                "deletion of system exchange 'amq.topic' in vhost '/' not allowed");
    rig_refused(&rig, rig_bind("", TARGET_QUEUE, "q", "k"), ERR_REFUSED,
                "operation not permitted on the default exchange");
    rig_do(&rig, rig_exchange("amq.topic", EXCHANGE_TOPIC));
    assert_true(rig.changes.existed);
    rig_done(&rig);
}

static void a_deletion_may_name_the_very_queue(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig);
    uint64_t id = rig_do(&rig, rig_queue("q"));
    struct catalog_request request = rig_op(CATALOG_DELETE_QUEUE, "q");
    request.id = id + 1;
    rig_do(&rig, request);
    assert_int_equal(rig.changes.count, 0);
    assert_non_null(catalog_queue(rig.catalog, 0, slice_of("q")));
    request.id = id;
    rig_do(&rig, request);
    assert_null(catalog_queue(rig.copy, 0, slice_of("q")));
    rig_do(&rig, request); /* it is gone: fine */
    assert_true(rig_do(&rig, rig_queue("q")) > id);
    rig_done(&rig);
}

/* ---- Exchanges and bindings ---- */

static void exchanges_must_be_equivalent(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig);
    rig_do(&rig,
           rig_with(rig_exchange("x", EXCHANGE_DIRECT), rig_text("alternate-exchange", "ae")));
    assert_true(
        slice_equal(catalog_exchange(rig.copy, 0, slice_of("x"))->alternate, slice_of("ae")));
    rig_refused(
        &rig, rig_exchange("x", EXCHANGE_TOPIC), ERR_NOT_EQUIVALENT,
        "inequivalent arg 'type' for exchange 'x' in vhost '/': received 'topic' but current "
        "is 'direct'");
    rig_refused(
        &rig, rig_exchange("x", EXCHANGE_DIRECT), ERR_NOT_EQUIVALENT,
        "inequivalent arg 'alternate-exchange' for exchange 'x' in vhost '/': received none "
        "but current is the value 'ae' of type 'longstr'");
    struct catalog_request request = rig_exchange("x", EXCHANGE_DIRECT);
    request.internal = true;
    rig_refused(&rig, request, ERR_NOT_EQUIVALENT,
                "inequivalent arg 'internal' for exchange 'x' in vhost '/': received 'true' but "
                "current is 'false'");
    rig_done(&rig);
}

static void bindings_need_both_ends(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig);
    rig_do(&rig, rig_queue("q"));
    rig_refused(&rig, rig_bind("x", TARGET_QUEUE, "q", "k"), ERR_NOT_FOUND,
                "no exchange 'x' in vhost '/'");
    rig_refused(&rig, rig_bind("amq.direct", TARGET_QUEUE, "p", "k"), ERR_NOT_FOUND,
                "no queue 'p' in vhost '/'");
    rig_refused(&rig, rig_bind("amq.direct", TARGET_EXCHANGE, "y", "k"), ERR_NOT_FOUND,
                "no exchange 'y' in vhost '/'");
    struct catalog_request unbind = rig_bind("x", TARGET_QUEUE, "p", "k");
    unbind.op = CATALOG_UNBIND;
    rig_do(&rig, unbind);
    rig_do(&rig, rig_bind("amq.direct", TARGET_QUEUE, "q", "k"));
    assert_true(rig.changes.durable);
    assert_int_equal(rig.changes.count, 1);
    rig_do(&rig, rig_bind("amq.direct", TARGET_QUEUE, "q", "k"));
    assert_int_equal(rig.changes.count, 0);
    rig_refused(
        &rig, rig_with(rig_bind("amq.headers", TARGET_QUEUE, "q", ""), rig_text("x-match", "one")),
        ERR_INVALID,
        "Invalid x-match field value <<\"one\">>; expected all, any, all-with-x, or "
        "any-with-x");
    rig_done(&rig);
}

static void an_exchange_in_use_may_be_spared(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig);
    rig_do(&rig, rig_queue("q"));
    rig_do(&rig, rig_exchange("x", EXCHANGE_DIRECT));
    rig_do(&rig, rig_bind("x", TARGET_QUEUE, "q", "k"));
    struct catalog_request delete = rig_op(CATALOG_DELETE_EXCHANGE, "x");
    delete.if_unused = true;
    rig_refused(&rig, delete, ERR_IN_USE, "exchange 'x' in vhost '/' in use");
    delete.if_unused = false;
    rig_do(&rig, delete);
    assert_null(catalog_exchange(rig.copy, 0, slice_of("x")));
    rig_do(&rig, delete);
    assert_true(rig_same(rig.catalog, rig.copy, false));
    rig_done(&rig);
}

static void auto_delete_exchanges_go_with_their_last_binding(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig);
    rig_do(&rig, rig_queue("q"));
    static const char *const names[] = {"a", "b", "c"};
    for (int i = 0; i < 3; i++) {
        struct catalog_request request = rig_exchange(names[i], EXCHANGE_FANOUT);
        request.auto_delete = true;
        rig_do(&rig, request);
    }
    rig_do(&rig, rig_bind("a", TARGET_EXCHANGE, "b", ""));
    rig_do(&rig, rig_bind("b", TARGET_QUEUE, "q", "1"));
    rig_do(&rig, rig_bind("b", TARGET_QUEUE, "q", "2"));
    rig_do(&rig, rig_bind("c", TARGET_QUEUE, "q", ""));
    rig_do(&rig, rig_bind("c", TARGET_EXCHANGE, "amq.fanout", ""));
    struct catalog_request unbind = rig_bind("b", TARGET_QUEUE, "q", "1");
    unbind.op = CATALOG_UNBIND;
    rig_do(&rig, unbind);
    assert_int_equal(rig.changes.count, 1);
    rig_do(&rig, rig_op(CATALOG_DELETE_QUEUE, "q"));
    assert_int_equal(rig.changes.count, 3); /* q, then b, then a */
    assert_null(catalog_exchange(rig.copy, 0, slice_of("a")));
    assert_null(catalog_exchange(rig.copy, 0, slice_of("b")));
    assert_non_null(catalog_exchange(rig.copy, 0, slice_of("c")));
    unbind = rig_bind("c", TARGET_EXCHANGE, "amq.fanout", "");
    unbind.op = CATALOG_UNBIND;
    rig_do(&rig, unbind);
    assert_null(catalog_exchange(rig.copy, 0, slice_of("c")));
    assert_true(rig_same(rig.catalog, rig.copy, false));
    rig_done(&rig);
}

/* ---- Topics ---- */

static void a_topic_has_partitions_with_ids(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig);
    struct catalog_request request = rig_topic("t", 3);
    uint64_t id = rig_do(&rig, request);
    const struct topic *topic = catalog_topic(rig.copy, 0, slice_of("t"));
    assert_int_equal(topic->id, id);
    assert_int_equal(topic->partition_count, 3);
    assert_ptr_equal(catalog_topic_by_uuid(rig.copy, request.uuid), topic);
    uint64_t queue = rig_do(&rig, rig_queue("between"));
    struct catalog_request grow = rig_op(CATALOG_GROW_TOPIC, "t");
    grow.partitions = 5;
    rig_do(&rig, grow);
    topic = catalog_topic(rig.copy, 0, slice_of("t"));
    assert_int_equal(topic->partition_count, 5);
    for (uint32_t i = 0; i < 5; i++) {
        uint32_t index = 99;
        assert_int_equal(topic->partitions[i], i < 3 ? id + 1 + i : queue + 1 + i - 3);
        assert_ptr_equal(catalog_partition(rig.copy, topic->partitions[i], &index), topic);
        assert_int_equal(index, i);
    }
    uint32_t index;
    assert_null(catalog_partition(rig.copy, queue, &index));
    assert_null(catalog_partition(rig.copy, id, &index));
    assert_ptr_equal(catalog_topic_by_uuid(rig.copy, request.uuid), topic);
    grow.partitions = 4;
    rig_refused(&rig, grow, ERR_INVALID_PARTITIONS,
                "The topic t currently has 5 partition(s); 4 would not be an increase.");
    grow.partitions = 5;
    rig_refused(&rig, grow, ERR_INVALID_PARTITIONS, "Topic already has 5 partition(s).");
    rig_do(&rig, rig_op(CATALOG_DELETE_TOPIC, "t"));
    assert_null(catalog_topic_by_uuid(rig.copy, request.uuid));
    assert_null(catalog_partition(rig.copy, id + 1, &index));
    rig_done(&rig);
}

static void topics_are_refused_in_kafkas_words(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig);
    rig_do(&rig, rig_topic("t", 1));
    rig_do(&rig, rig_queue("q"));
    rig_refused(&rig, rig_topic("t", 1), ERR_EXISTS, "Topic 't' already exists.");
    rig_refused(&rig, rig_topic("q", 1), ERR_EXISTS, "A queue named 'q' already exists.");
    rig_refused(&rig, rig_topic("", 1), ERR_INVALID_NAME,
                "Topic name is invalid: the empty string is not allowed");
    rig_refused(&rig, rig_topic("..", 1), ERR_INVALID_NAME,
                "Topic name is invalid: '..' is not allowed");
    rig_refused(&rig, rig_topic("a/b", 1), ERR_INVALID_NAME,
                "Topic name is invalid: 'a/b' contains one or more characters other than ASCII "
                "alphanumerics, '.', '_' and '-'");
    rig_refused(&rig, rig_topic("n", 0), ERR_INVALID_PARTITIONS,
                "Number of partitions was set to an invalid non-positive value.");
    rig_refused(&rig, rig_topic("n", 1 << 30), ERR_INVALID_PARTITIONS,
                "Number of partitions must not be larger than 100000.");
    char name[251] = {0}, text[400];
    memset(name, 'a', 250);
    snprintf(text, sizeof text,
             "Topic name is invalid: the length of '%s' is longer than the max allowed length 249",
             name);
    rig_refused(&rig, rig_topic(name, 1), ERR_INVALID_NAME, text);
    rig_refused(&rig, rig_op(CATALOG_DELETE_TOPIC, "n"), ERR_NOT_FOUND,
                "This server does not host this topic-partition.");
    rig_done(&rig);
}

static void topic_configs_are_checked(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig);
    rig_refused(&rig, rig_with(rig_topic("t", 1), rig_text("odd", "1")), ERR_INVALID_CONFIG,
                "Unknown topic config name: odd");
    rig_refused(&rig, rig_with(rig_topic("t", 1), rig_text("retention.ms", "soon")),
                ERR_INVALID_CONFIG,
                "Invalid value soon for configuration retention.ms: Not a number of type LONG");
    rig_refused(&rig, rig_with(rig_topic("t", 1), rig_text("retention.ms", "9223372036854775808")),
                ERR_INVALID_CONFIG,
                "Invalid value 9223372036854775808 for configuration retention.ms: Not a number of "
                "type LONG");
    rig_refused(&rig, rig_with(rig_topic("t", 1), rig_text("retention.bytes", "-2")),
                ERR_INVALID_CONFIG,
                "Invalid value -2 for configuration retention.bytes: Value must be at least -1");
    rig_refused(
        &rig, rig_with(rig_topic("t", 1), rig_text("cleanup.policy", "delete,shred")),
        ERR_INVALID_CONFIG,
        "Invalid value delete,shred for configuration cleanup.policy: String must be one of: "
        "compact, delete");
    rig_refused(&rig,
                rig_with(rig_topic("t", 1),
                         (struct arg){.name = slice_of("retention.ms"), .kind = ARG_VOID}),
                ERR_INVALID_CONFIG, "Null value not supported for topic configs: retention.ms");
    rig_do(&rig, rig_with(rig_topic("t", 1), rig_text("retention.ms", "-1"),
                          rig_text("cleanup.policy", "compact"), rig_text("segment.bytes", "1000"),
                          rig_text("message.timestamp.type", "LogAppendTime")));
    const struct topic_options *options = &catalog_topic(rig.copy, 0, slice_of("t"))->options;
    assert_int_equal(options->retention_ms, -1);
    assert_int_equal(options->segment_bytes, 1000);
    assert_int_equal(options->max_message_bytes, 1048588);
    assert_true(options->compact && !options->remove && options->log_append_time);
    rig_do(&rig,
           rig_with(rig_op(CATALOG_CONFIGURE_TOPIC, "t"), rig_text("max.message.bytes", "5")));
    options = &catalog_topic(rig.copy, 0, slice_of("t"))->options;
    assert_int_equal(options->retention_ms, INT64_C(604800000));
    assert_int_equal(options->max_message_bytes, 5);
    rig_done(&rig);
}

static void a_stream_queue_is_a_topic(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig);
    struct catalog_request stream =
        rig_with(rig_topic("s", 1), rig_text("x-queue-type", "stream"), rig_text("x-max-age", "2h"),
                 rig_int("x-max-length-bytes", 500));
    uint64_t id = rig_do(&rig, stream);
    const struct topic_options *options = &catalog_topic(rig.copy, 0, slice_of("s"))->options;
    assert_int_equal(options->retention_ms, 7200000);
    assert_int_equal(options->retention_bytes, 500);
    assert_int_equal(rig_do(&rig, stream), id);
    assert_true(rig.changes.existed);
    rig_refused(
        &rig, rig_with(rig_topic("s", 1), rig_text("x-queue-type", "stream")), ERR_NOT_EQUIVALENT,
        "inequivalent arg 'x-max-length-bytes' for queue 's' in vhost '/': received none but "
        "current is the value '500' of type 'signedint'");
    rig_refused(&rig, rig_queue("s"), ERR_NOT_EQUIVALENT,
                "inequivalent arg 'x-queue-type' for queue 's' in vhost '/': received none but "
                "current is the value 'stream' of type 'longstr'");
    rig_do(&rig, rig_queue("q"));
    rig_refused(&rig, rig_with(rig_topic("q", 1), rig_text("x-queue-type", "stream")),
                ERR_NOT_EQUIVALENT,
                "inequivalent arg 'x-queue-type' for queue 'q' in vhost '/': received the value "
                "'stream' of type 'longstr' but current is none");
    rig_do(&rig, rig_topic("k", 2));
    rig_do(&rig, rig_with(rig_topic("k", 1), rig_text("x-queue-type", "stream")));
    assert_true(rig.changes.existed);
    struct catalog_request transient =
        rig_with(rig_topic("n", 1), rig_text("x-queue-type", "stream"));
    transient.durable = false;
    rig_refused(&rig, transient, ERR_INVALID,
                "invalid property 'non-durable' for queue 'n' in vhost '/'");
    rig_done(&rig);
}

/* ---- Namespaces ---- */

static void namespaces_are_apart(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig);
    uint32_t id = (uint32_t)rig_do(&rig, rig_op(CATALOG_CREATE_NAMESPACE, "tests"));
    assert_true(id > 0);
    rig_do(&rig, rig_op(CATALOG_CREATE_NAMESPACE, "tests"));
    assert_true(rig.changes.existed);
    uint32_t found = 99;
    assert_true(catalog_namespace(rig.copy, slice_of("tests"), &found));
    assert_int_equal(found, id);
    assert_true(slice_equal(catalog_namespace_name(rig.copy, id), slice_of("tests")));
    assert_non_null(catalog_exchange(rig.copy, id, slice_of("amq.direct")));
    struct catalog_request queue = rig_queue("q");
    queue.namespace_id = id;
    rig_do(&rig, queue);
    assert_null(catalog_queue(rig.copy, 0, slice_of("q")));
    queue.durable = false;
    rig_refused(&rig, queue, ERR_NOT_EQUIVALENT,
                "inequivalent arg 'durable' for queue 'q' in vhost 'tests': received 'false' but "
                "current is 'true'");
    rig_refused(&rig, rig_op(CATALOG_DELETE_NAMESPACE, "tests"), ERR_NOT_EMPTY,
                "vhost 'tests' is not empty");
    queue.op = CATALOG_DELETE_QUEUE;
    rig_do(&rig, queue);
    rig_do(&rig, rig_op(CATALOG_DELETE_NAMESPACE, "tests"));
    assert_false(catalog_namespace(rig.copy, slice_of("tests"), &found));
    assert_null(catalog_exchange(rig.copy, id, slice_of("amq.direct")));
    queue.op = CATALOG_DECLARE_QUEUE;
    rig_refused(&rig, queue, ERR_NOT_FOUND, "no such vhost");
    rig_done(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_queue_is_declared_once),
        cmocka_unit_test(arguments_become_options),
        cmocka_unit_test(another_declaration_must_be_equivalent),
        cmocka_unit_test(wrong_arguments_are_refused),
        cmocka_unit_test(exclusive_queues_belong_to_their_connection),
        cmocka_unit_test(a_connection_may_own_many_queues),
        cmocka_unit_test(reserved_names_are_refused),
        cmocka_unit_test(a_deletion_may_name_the_very_queue),
        cmocka_unit_test(exchanges_must_be_equivalent),
        cmocka_unit_test(bindings_need_both_ends),
        cmocka_unit_test(an_exchange_in_use_may_be_spared),
        cmocka_unit_test(auto_delete_exchanges_go_with_their_last_binding),
        cmocka_unit_test(a_topic_has_partitions_with_ids),
        cmocka_unit_test(topics_are_refused_in_kafkas_words),
        cmocka_unit_test(topic_configs_are_checked),
        cmocka_unit_test(a_stream_queue_is_a_topic),
        cmocka_unit_test(namespaces_are_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
