/* Metadata, topics, configurations and passwords. */
#include "face/kafka/test_client.h"

/* ---- Metadata ---- */

static void metadata_makes_a_topic_that_is_asked_for(void **state)
{
    struct conn *conn = *state;
    const struct kafka_metadata_response_topic *topic = metadata_one(conn, "new", true);
    assert_int_equal(topic->error_code, 0);
    assert_int_equal(topic->partitions_count, 1);
    assert_int_equal(topic->partitions[0].leader_id, NODE_ID);
    assert_false(uuid_is_zero(&topic->topic_id));
}

static void metadata_makes_no_topic_against_the_clients_will(void **state)
{
    const struct kafka_metadata_response_topic *topic = metadata_one(*state, "new", false);
    assert_int_equal(topic->error_code, KAFKA_ERROR_UNKNOWN_TOPIC_OR_PARTITION);
    assert_true(slice_is(topic->name, "new"));
}

static void metadata_makes_no_topic_when_told_so(void **state)
{
    struct conn *conn = *state;
    conn->config.auto_create_topics = false;
    assert_int_equal(metadata_one(conn, "new", true)->error_code,
                     KAFKA_ERROR_UNKNOWN_TOPIC_OR_PARTITION);
}

static void metadata_refuses_a_bad_name(void **state)
{
    assert_int_equal(metadata_one(*state, "bad/name", true)->error_code,
                     KAFKA_ERROR_INVALID_TOPIC_EXCEPTION);
}

static void metadata_version_0_gives_all_topics_for_none(void **state)
{
    struct conn *conn = *state;
    topic_create(conn, "one", 1);
    topic_create(conn, "two", 3);
    struct kafka_metadata_request in = kafka_metadata_request_default;
    const struct kafka_metadata_response *out = call(conn, KAFKA_METADATA, 0, &in);
    assert_int_equal(out->topics_count, 2);
    out = call(conn, KAFKA_METADATA, 1, &in);
    assert_int_equal(out->topics_count, 0);
}

/* ---- Administration ---- */

static int16_t create_code(struct conn *conn, const char *name, int32_t partitions,
                           int16_t replicas, const char *config, const char *value)
{
    struct kafka_create_topics_request_config row = kafka_create_topics_request_config_default;
    struct kafka_create_topics_request_topic topic = kafka_create_topics_request_topic_default;
    struct kafka_create_topics_request in = kafka_create_topics_request_default;
    topic.name = slice_of(name);
    topic.num_partitions = partitions;
    topic.replication_factor = replicas;
    if (config) {
        row.name = slice_of(config);
        row.value = slice_of(value);
        topic.configs = &row;
        topic.configs_count = 1;
    }
    in.topics = &topic;
    in.topics_count = 1;
    const struct kafka_create_topics_response *out = call(conn, KAFKA_CREATE_TOPICS, 7, &in);
    assert_int_equal(slice_is_null(out->topics[0].error_message), out->topics[0].error_code == 0);
    return out->topics[0].error_code;
}

static void topics_are_created_or_refused_as_kafka_does(void **state)
{
    struct conn *conn = *state;
    assert_int_equal(create_code(conn, "a.b", -1, -1, NULL, NULL), 0);
    assert_int_equal(create_code(conn, "a.b", 1, 1, NULL, NULL), KAFKA_ERROR_TOPIC_ALREADY_EXISTS);
    assert_int_equal(create_code(conn, "a_b", 1, 1, NULL, NULL),
                     KAFKA_ERROR_INVALID_TOPIC_EXCEPTION);
    assert_int_equal(create_code(conn, "bad name", 1, 1, NULL, NULL),
                     KAFKA_ERROR_INVALID_TOPIC_EXCEPTION);
    assert_int_equal(create_code(conn, "x", 0, 1, NULL, NULL), KAFKA_ERROR_INVALID_PARTITIONS);
    assert_int_equal(create_code(conn, "x", 1, 2, NULL, NULL),
                     KAFKA_ERROR_INVALID_REPLICATION_FACTOR);
    assert_int_equal(create_code(conn, "x", 1, 1, "no.such", "1"), KAFKA_ERROR_INVALID_CONFIG);
    assert_int_equal(create_code(conn, "x", 1, 1, "retention.ms", "soon"),
                     KAFKA_ERROR_INVALID_CONFIG);
    assert_int_equal(create_code(conn, "x", 1, 1, "cleanup.policy", "compact,burn"),
                     KAFKA_ERROR_INVALID_CONFIG);
    assert_int_equal(create_code(conn, "x", 1, 1, "retention.ms", " 3600000 "), 0);
}

static void configurations_are_described_with_their_source(void **state)
{
    struct conn *conn = *state;
    assert_int_equal(create_code(conn, "t", 1, 1, "retention.ms", "3600000"), 0);
    struct slice keys[] = {slice_of("retention.ms"), slice_of("cleanup.policy")};
    struct kafka_describe_configs_request_resource resource =
        kafka_describe_configs_request_resource_default;
    struct kafka_describe_configs_request in = kafka_describe_configs_request_default;
    resource.resource_type = 2;
    resource.resource_name = slice_of("t");
    resource.configuration_keys = keys;
    resource.configuration_keys_count = 2;
    in.resources = &resource;
    in.resources_count = 1;
    in.include_synonyms = true;
    const struct kafka_describe_configs_response *out = call(conn, KAFKA_DESCRIBE_CONFIGS, 4, &in);
    const struct kafka_describe_configs_response_result *result = &out->results[0];
    assert_int_equal(result->configs_count, 2);
    assert_true(slice_is(result->configs[0].value, "delete"));
    assert_int_equal(result->configs[0].config_source, 5);
    assert_true(slice_is(result->configs[1].value, "3600000"));
    assert_int_equal(result->configs[1].config_source, 1);
    assert_int_equal(result->configs[1].synonyms_count, 2);
}

static void a_password_is_asked_for_only_when_the_client_wants_to_give_one(void **state)
{
    struct conn *conn = *state;
    struct kafka_sasl_handshake_request handshake = {.mechanism = slice_of("PLAIN")};
    const struct kafka_sasl_handshake_response *shaken =
        call(conn, KAFKA_SASL_HANDSHAKE, 1, &handshake);
    assert_int_equal(shaken->error_code, 0);
    struct kafka_sasl_authenticate_request token = {.auth_bytes = slice_make("\0guest\0guest", 12)};
    const struct kafka_sasl_authenticate_response *out =
        call(conn, KAFKA_SASL_AUTHENTICATE, 2, &token);
    assert_int_equal(out->error_code, 0);
    assert_string_equal(conn->user, "guest");
    call(conn, KAFKA_SASL_HANDSHAKE, 0, &handshake);
    fake_input(conn, "\0\0\0\14\0guest\0wrong", 16);
    assert_true(conn->closed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(metadata_makes_a_topic_that_is_asked_for, setup, teardown),
        cmocka_unit_test_setup_teardown(metadata_makes_no_topic_against_the_clients_will, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(metadata_makes_no_topic_when_told_so, setup, teardown),
        cmocka_unit_test_setup_teardown(metadata_refuses_a_bad_name, setup, teardown),
        cmocka_unit_test_setup_teardown(metadata_version_0_gives_all_topics_for_none, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(topics_are_created_or_refused_as_kafka_does, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(configurations_are_described_with_their_source, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            a_password_is_asked_for_only_when_the_client_wants_to_give_one, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
