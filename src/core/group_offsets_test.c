/* Committed offsets of consumer groups: who may commit, what the journal and a checkpoint hold. */
#include "core/group_rig.h"

static const struct group_offset OFFSETS[] = {
    {.topic = {(const uint8_t *)"t", 1}, .partition = 3, .offset = 30, .leader_epoch = 1},
    {.topic = {(const uint8_t *)"t", 1},
     .partition = 1,
     .offset = 10,
     .leader_epoch = -1,
     .metadata = {(const uint8_t *)"note", 4}},
    {.topic = {(const uint8_t *)"u", 1}, .partition = 0, .offset = 7},
};

static struct group_request commit_request(void)
{
    struct group_request request = rig_member(GROUP_COMMIT, "", -1);
    request.offsets = OFFSETS;
    request.offset_count = 3;
    return request;
}

static void committed_offsets_are_kept(void **state)
{
    (void)state;
    struct rig *rig = rig_create();
    assert_int_equal(rig_offset(rig, "t", 3), -1);
    const struct group_answer *done = rig_ask(rig, commit_request(), ERR_NONE);
    assert_int_equal(done->offset_count, 3);
    assert_int_equal(done->offsets[2].err, ERR_NONE);
    assert_true(rig->durable[rig->answer_count - 1]);
    assert_int_equal(rig->record_count, 1);
    assert_int_equal(rig_offset(rig, "t", 3), 30);
    assert_int_equal(rig_offset(rig, "t", 1), 10);
    assert_int_equal(rig_offset(rig, "t", 2), -1);
    struct group_request all = rig_member(GROUP_OFFSETS, "", -1);
    all.all = true;
    const struct group_answer *answer = rig_ask(rig, all, ERR_NONE);
    assert_int_equal(answer->offset_count, 3);
    for (uint32_t i = 0; i < 3; i++) {
        if (answer->offsets[i].partition == 1)
            assert_text(answer->offsets[i].metadata, "note");
    }
    struct group_offset large = OFFSETS[0];
    uint8_t metadata[4097] = {0};
    large.metadata = slice_make(metadata, sizeof metadata);
    large.offset = 99;
    struct group_request request = commit_request();
    request.offsets = &large;
    request.offset_count = 1;
    assert_int_equal(rig_ask(rig, request, ERR_NONE)->offsets[0].err, ERR_TOO_LARGE);
    assert_int_equal(rig_offset(rig, "t", 3), 30);
    rig->append_err = ERR_DISK_FULL;
    rig_ask(rig, commit_request(), ERR_DISK_FULL);
    rig_destroy(rig);
}

static void commits_are_for_members_of_the_generation(void **state)
{
    (void)state;
    struct rig *rig = rig_create();
    int32_t generation;
    const char *member = rig_settle_one(rig, &generation);
    rig_ask(rig, commit_request(), ERR_UNKNOWN_MEMBER); /* from outside, while there are members */
    struct group_request request = commit_request();
    request.member = slice_of(member);
    request.generation = generation + 1;
    rig_ask(rig, request, ERR_ILLEGAL_GENERATION);
    request.generation = generation - 1; /* it slept through a rebalance */
    rig_ask(rig, request, ERR_ILLEGAL_GENERATION);
    request.generation = generation;
    rig_ask(rig, request, ERR_NONE);
    uint64_t joining = rig_send(rig, rig_join(rig, ""));
    rig_ask(rig, request, ERR_NONE); /* before it joins again it says how far it came */
    uint64_t again = rig_send(rig, rig_join(rig, member));
    rig_expect(rig, joining, ERR_NONE);
    rig_expect(rig, again, ERR_NONE);
    request.generation = generation + 1;
    rig_ask(rig, request, ERR_REBALANCING); /* nothing is assigned yet */
    rig_destroy(rig);
}

/* The groups of `rig` as they are after a restart: what was stored, then the records behind it. */
static struct rig *restart(const struct rig *rig, struct slice stored, uint32_t from)
{
    struct rig *fresh = rig_create();
    if (stored.data != NULL)
        assert_int_equal(groups_restore(fresh->cell.groups, group_object(slice_of("g")), stored),
                         ERR_NONE);
    for (uint32_t i = from; i < rig->record_count; i++) {
        struct record record = {.type = RECORD_GROUP,
                                .bytes = slice_make(rig->records[i].bytes, rig->records[i].len)};
        assert_int_equal(groups_apply(fresh->cell.groups, &record, i + 1), ERR_NONE);
    }
    return fresh;
}

static struct slice stored_form(struct rig *rig, uint64_t reflects)
{
    struct slice value = {0};
    assert_false(list_empty(&rig->cell.changed));
    struct tracked *tracked = list_entry(rig->cell.changed.next, struct tracked, link);
    assert_int_equal(tracked->kind, OBJECT_GROUP);
    assert_int_equal(tracked->id, group_object(slice_of("g")));
    assert_true(groups_encode(rig->cell.groups, tracked, &value, reflects));
    return value;
}

static void offsets_survive_a_restart(void **state)
{
    (void)state;
    struct rig *rig = rig_create();
    int32_t generation;
    char member[256];
    snprintf(member, sizeof member, "%s", rig_settle_one(rig, &generation));
    struct group_request request = commit_request();
    request.member = slice_of(member);
    request.generation = generation;
    rig_ask(rig, request, ERR_NONE);
    struct slice value = stored_form(rig, 2);
    uint8_t *kept = malloc(value.len);
    memcpy(kept, value.data, value.len);
    value.data = kept;
    struct group_offset later = OFFSETS[0];
    later.offset = 31;
    request.offsets = &later;
    request.offset_count = 1;
    rig_ask(rig, request, ERR_NONE);

    struct rig *replayed = restart(rig, (struct slice){0}, 0);
    assert_int_equal(rig_offset(replayed, "t", 3), 31);
    assert_int_equal(rig_offset(replayed, "u", 0), 7);
    rig_destroy(replayed);
    replayed = restart(rig, value, 0); /* records that it reflects come again */
    assert_int_equal(rig_offset(replayed, "t", 3), 31);
    assert_int_equal(rig_offset(replayed, "t", 1), 10);
    /* The member is not known any more, and joins again. */
    rig_ask(replayed, request, ERR_UNKNOWN_MEMBER);
    rig_heartbeat(replayed, member, generation, ERR_UNKNOWN_MEMBER);
    rig_destroy(replayed);
    for (size_t len = 0; len < value.len; len++) {
        struct rig *cut = rig_create();
        assert_int_equal(groups_restore(cut->cell.groups, group_object(slice_of("g")),
                                        slice_make(value.data, len)),
                         ERR_CORRUPT);
        rig_destroy(cut);
    }
    free(kept);
    rig_destroy(rig);
}

static void damaged_records_are_corrupt(void **state)
{
    (void)state;
    struct rig *rig = rig_create();
    rig_ask(rig, commit_request(), ERR_NONE);
    for (size_t len = 0; len < rig->records[0].len; len++) {
        struct rig *cut = rig_create();
        struct record record = {.type = RECORD_GROUP,
                                .bytes = slice_make(rig->records[0].bytes, len)};
        assert_int_equal(groups_apply(cut->cell.groups, &record, 1), ERR_CORRUPT);
        rig_destroy(cut);
    }
    rig_destroy(rig);
}

static void large_commits_are_several_records(void **state)
{
    (void)state;
    struct rig *rig = rig_create();
    static uint8_t metadata[4096];
    struct group_offset *offsets = calloc(100, sizeof *offsets);
    for (uint32_t i = 0; i < 100; i++)
        offsets[i] = (struct group_offset){.topic = slice_of("t"),
                                           .partition = 99 - i,
                                           .offset = i,
                                           .metadata = slice_make(metadata, sizeof metadata)};
    struct group_request request = commit_request();
    request.offsets = offsets;
    request.offset_count = 100;
    rig_ask(rig, request, ERR_NONE);
    assert_true(rig->record_count > 5);
    for (uint32_t i = 0; i < 100; i++)
        assert_int_equal(rig_offset(rig, "t", 99 - i), i);
    free(offsets);
    rig_destroy(rig);
}

static void groups_are_deleted_when_empty(void **state)
{
    (void)state;
    struct rig *rig = rig_create();
    rig_ask(rig, rig_member(GROUP_DELETE, "", -1), ERR_GROUP_NOT_FOUND);
    int32_t generation;
    char member[256];
    snprintf(member, sizeof member, "%s", rig_settle_one(rig, &generation));
    struct group_request request = commit_request();
    request.member = slice_of(member);
    request.generation = generation;
    rig_ask(rig, request, ERR_NONE);
    rig_ask(rig, rig_member(GROUP_DELETE, "", -1), ERR_GROUP_NOT_EMPTY);
    rig_wait(rig, 20000);
    rig_ask(rig, rig_member(GROUP_DELETE, "", -1), ERR_NONE);
    assert_true(rig->durable[rig->answer_count - 1]);
    rig_ask(rig, rig_member(GROUP_DESCRIBE, "", -1), ERR_GROUP_NOT_FOUND);
    assert_int_equal(rig_offset(rig, "t", 3), -1);
    assert_null(stored_form(rig, 9).data);
    struct rig *replayed = restart(rig, (struct slice){0}, 0);
    rig_ask(replayed, rig_member(GROUP_DESCRIBE, "", -1), ERR_GROUP_NOT_FOUND);
    rig_destroy(replayed);
    rig_ask(rig, commit_request(), ERR_NONE); /* and begin anew */
    assert_int_equal(rig_offset(rig, "t", 3), 30);
    rig_destroy(rig);
}

static void who_has_no_offsets_forgets_none(void **state)
{
    (void)state;
    struct rig *rig = rig_create();
    struct group_request forget = commit_request();
    forget.op = GROUP_FORGET;
    rig_ask(rig, forget, ERR_GROUP_NOT_FOUND);
    rig_ask(rig, commit_request(), ERR_NONE);
    struct group_request join = rig_join(rig, "");
    join.protocol_type = slice_of("connect"); /* its members subscribe to nothing one could see */
    rig_send(rig, join);
    rig_wait(rig, 400);
    rig_ask(rig, forget, ERR_GROUP_NOT_EMPTY);
    assert_int_equal(rig_offset(rig, "t", 3), 30);
    rig_destroy(rig);
}

static void offsets_of_topics_that_nobody_consumes_may_go(void **state)
{
    (void)state;
    static const uint8_t metadata[] = {0, 1, 0, 0, 0, 2, 0, 1, 'x', 0, 1, 't'};
    static const struct group_protocol protocol = {{(const uint8_t *)"range", 5},
                                                   {metadata, sizeof metadata}};
    struct rig *rig = rig_create();
    rig_ask(rig, commit_request(), ERR_NONE);
    struct group_request request = rig_join(rig, "");
    request.protocols = &protocol;
    rig_send(rig, request);
    rig_wait(rig, 400);
    struct group_request forget = commit_request();
    forget.op = GROUP_FORGET;
    const struct group_answer *answer = rig_ask(rig, forget, ERR_NONE);
    assert_int_equal(answer->offsets[0].err, ERR_SUBSCRIBED);
    assert_int_equal(answer->offsets[2].err, ERR_NONE);
    assert_int_equal(rig_offset(rig, "t", 3), 30);
    assert_int_equal(rig_offset(rig, "u", 0), -1);
    rig_destroy(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(committed_offsets_are_kept),
        cmocka_unit_test(commits_are_for_members_of_the_generation),
        cmocka_unit_test(offsets_survive_a_restart),
        cmocka_unit_test(damaged_records_are_corrupt),
        cmocka_unit_test(large_commits_are_several_records),
        cmocka_unit_test(groups_are_deleted_when_empty),
        cmocka_unit_test(who_has_no_offsets_forgets_none),
        cmocka_unit_test(offsets_of_topics_that_nobody_consumes_may_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
