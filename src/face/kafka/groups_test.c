/* Consumer groups: what the core is asked and what clients are told. */
#include "face/kafka/test_client.h"

static void join_says(struct conn *conn, const struct group_request *request, struct event *event)
{
    (void)conn;
    struct group_answer *answer = event->parts->root;
    assert_int_equal(request->op, GROUP_JOIN);
    assert_true(slice_is(request->group, "g"));
    assert_true(slice_is(request->client_id, "test"));
    assert_true(slice_is(request->client_host, "/127.0.0.1"));
    assert_int_equal(request->protocol_count, 2);
    assert_true(slice_is(request->protocols[1].name, "range"));
    assert_true(slice_is(request->protocols[1].metadata, "two"));
    answer->member = slice_of("member-1");
    if (request->require_member_id && request->member.len == 0) {
        event->err = ERR_MEMBER_ID_REQUIRED;
        return;
    }
    struct group_member *member = arena_alloc(&event->parts->arena, sizeof *member);
    *member = (struct group_member){.id = slice_of("member-1"), .metadata = slice_of("two")};
    answer->generation = 3;
    answer->protocol_type = slice_of("consumer");
    answer->protocol = slice_of("range");
    answer->leader = slice_of("member-1");
    answer->members = member;
    answer->member_count = 1;
}

static void a_member_joins_in_every_version(void **state)
{
    struct conn *conn = *state;
    conn->group = join_says;
    for (int16_t version = 0; version <= 9; version++) {
        struct kafka_join_group_request_protocol protocols[2];
        struct kafka_join_group_request in = kafka_join_group_request_default;
        protocols[0].name = slice_of("sticky");
        protocols[0].metadata = slice_of("one");
        protocols[1].name = slice_of("range");
        protocols[1].metadata = slice_of("two");
        in.group_id = slice_of("g");
        in.protocol_type = slice_of("consumer");
        in.session_timeout_ms = 10000;
        in.protocols = protocols;
        in.protocols_count = 2;
        const struct kafka_join_group_response *out = call(conn, KAFKA_JOIN_GROUP, version, &in);
        assert_true(slice_is(out->member_id, "member-1"));
        if (version >= 4) {
            assert_int_equal(out->error_code, KAFKA_ERROR_MEMBER_ID_REQUIRED);
            in.member_id = out->member_id;
            out = call(conn, KAFKA_JOIN_GROUP, version, &in);
        }
        assert_int_equal(out->error_code, 0);
        assert_int_equal(out->generation_id, 3);
        assert_true(slice_is(out->protocol_name, "range"));
        assert_int_equal(out->members_count, 1);
        assert_true(slice_is(out->members[0].metadata, "two"));
    }
}

static void offsets_say(struct conn *conn, const struct group_request *request, struct event *event)
{
    (void)conn;
    struct group_answer *answer = event->parts->root;
    uint32_t count = request->all ? 2 : request->offset_count;
    struct group_offset *offsets = arena_array(&event->parts->arena, count, sizeof *offsets);
    for (uint32_t i = 0; i < count; i++) {
        offsets[i] = request->all ? (struct group_offset){.topic = slice_of("t"), .partition = i}
                                  : request->offsets[i];
        offsets[i].offset = offsets[i].partition == 0 ? 42 : -1;
        offsets[i].leader_epoch = -1;
        offsets[i].err = ERR_NONE;
    }
    answer->offsets = offsets;
    answer->offset_count = count;
}

static void committed_offsets_are_fetched_in_every_version(void **state)
{
    struct conn *conn = *state;
    topic_create(conn, "t", 2);
    conn->group = offsets_say;
    struct kafka_uuid id = metadata_one(conn, "t", false)->topic_id;
    int32_t partitions[] = {1, 0};
    for (int16_t version = 1; version <= 10; version++) {
        struct kafka_offset_fetch_request in = kafka_offset_fetch_request_default;
        struct kafka_offset_fetch_request_topic topic = kafka_offset_fetch_request_topic_default;
        struct kafka_offset_fetch_request_group_topic group_topic =
            kafka_offset_fetch_request_group_topic_default;
        struct kafka_offset_fetch_request_group group = kafka_offset_fetch_request_group_default;
        topic.name = group_topic.name = slice_of("t");
        group_topic.topic_id = id;
        topic.partition_indexes = group_topic.partition_indexes = partitions;
        topic.partition_indexes_count = group_topic.partition_indexes_count = 2;
        group.group_id = in.group_id = slice_of("g");
        group.topics = &group_topic;
        in.topics = &topic;
        in.groups = &group;
        group.topics_count = in.topics_count = in.groups_count = 1;
        const struct kafka_offset_fetch_response *out =
            call(conn, KAFKA_OFFSET_FETCH, version, &in);
        if (version < 8) {
            assert_int_equal(out->topics[0].partitions[0].committed_offset, -1);
            assert_int_equal(out->topics[0].partitions[1].committed_offset, 42);
        } else {
            assert_true(slice_is(out->groups[0].group_id, "g"));
            assert_int_equal(out->groups[0].topics[0].partitions[0].committed_offset, -1);
            assert_int_equal(out->groups[0].topics[0].partitions[1].committed_offset, 42);
        }
        if (version < 2)
            continue;
        group.topics_count = in.topics_count = -1;
        out = call(conn, KAFKA_OFFSET_FETCH, version, &in);
        if (version < 8)
            assert_int_equal(out->topics[0].partitions[0].committed_offset, 42);
        else
            assert_int_equal(out->groups[0].topics[0].partitions[0].committed_offset, 42);
    }
}

static void commit_says(struct conn *conn, const struct group_request *request, struct event *event)
{
    (void)conn;
    (void)event;
    assert_int_equal(request->op, GROUP_COMMIT);
    assert_int_equal(request->offset_count, 1);
    assert_true(slice_is(request->offsets[0].topic, "t"));
    assert_int_equal(request->offsets[0].offset, 9);
    assert_true(slice_is(request->member, "m"));
    assert_int_equal(request->generation, 4);
}

static void only_offsets_of_partitions_that_are_there_are_committed(void **state)
{
    struct conn *conn = *state;
    topic_create(conn, "t", 1);
    conn->group = commit_says;
    struct kafka_offset_commit_request_partition partitions[2];
    struct kafka_offset_commit_request_topic topic = kafka_offset_commit_request_topic_default;
    struct kafka_offset_commit_request in = kafka_offset_commit_request_default;
    for (int i = 0; i < 2; i++) {
        partitions[i] = kafka_offset_commit_request_partition_default;
        partitions[i].partition_index = 1 - i;
        partitions[i].committed_offset = 9;
    }
    topic.name = slice_of("t");
    topic.partitions = partitions;
    topic.partitions_count = 2;
    in.group_id = slice_of("g");
    in.member_id = slice_of("m");
    in.generation_id_or_member_epoch = 4;
    in.topics = &topic;
    in.topics_count = 1;
    const struct kafka_offset_commit_response *out = call(conn, KAFKA_OFFSET_COMMIT, 8, &in);
    assert_int_equal(out->topics[0].partitions[0].error_code,
                     KAFKA_ERROR_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(out->topics[0].partitions[1].error_code, 0);
}

static void list_says(struct conn *conn, const struct group_request *request, struct event *event)
{
    (void)conn;
    assert_int_equal(request->op, GROUP_LIST);
    struct group_answer *answer = event->parts->root;
    struct group_description *groups = arena_array(&event->parts->arena, 2, sizeof *groups);
    groups[0] = (struct group_description){.name = slice_of("a"), .state = slice_of("Stable")};
    groups[1] = (struct group_description){.name = slice_of("b"), .state = slice_of("Empty")};
    answer->groups = groups;
    answer->group_count = 2;
}

static void groups_of_all_cells_are_listed_by_state(void **state)
{
    struct conn *conn = *state;
    conn->group = list_says;
    struct slice filter = slice_of("empty");
    struct kafka_list_groups_request in = kafka_list_groups_request_default;
    const struct kafka_list_groups_response *out = call(conn, KAFKA_LIST_GROUPS, 5, &in);
    assert_int_equal(out->groups_count, 2 * FAKE_CELLS);
    in.states_filter = &filter;
    in.states_filter_count = 1;
    out = call(conn, KAFKA_LIST_GROUPS, 5, &in);
    assert_int_equal(out->groups_count, FAKE_CELLS);
    assert_true(slice_is(out->groups[0].group_id, "b"));
    assert_true(slice_is(out->groups[0].group_type, "classic"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_member_joins_in_every_version, setup, teardown),
        cmocka_unit_test_setup_teardown(committed_offsets_are_fetched_in_every_version, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(only_offsets_of_partitions_that_are_there_are_committed,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(groups_of_all_cells_are_listed_by_state, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
