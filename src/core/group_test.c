/* Consumer groups: generations, static members, timeouts. */
#include "core/group_rig.h"

/* ---- Generations ---- */

static void members_that_come_together_share_one_generation(void **state)
{
    (void)state;
    struct rig *rig = rig_create();
    uint64_t a = rig_send(rig, rig_join(rig, ""));
    rig_wait(rig, 40);
    uint64_t b = rig_send(rig, rig_join(rig, ""));
    assert_null(rig_answer(rig, a));
    rig_wait(rig, 200);
    const struct group_answer *first = rig_expect(rig, a, ERR_NONE);
    const struct group_answer *second = rig_expect(rig, b, ERR_NONE);
    assert_int_equal(first->generation, 1);
    assert_int_equal(second->generation, 1);
    assert_true(slice_equal(first->leader, first->member));
    assert_true(slice_equal(second->leader, first->member));
    assert_int_equal(first->member_count, 2);
    assert_int_equal(second->member_count, 0);
    assert_text(first->protocol, "range");
    assert_text(first->protocol_type, "consumer");
    assert_text(first->members[1].metadata, "m");
    assert_true(first->member.len == strlen("client-") + 36);
    assert_string_equal(rig_state_of(rig), "CompletingRebalance");

    uint64_t waiting = rig_send(rig, rig_member(GROUP_SYNC, rig_c(second->member), 1));
    assert_null(rig_answer(rig, waiting));
    struct group_assignment assignments[] = {{first->member, slice_of("A")},
                                             {second->member, slice_of("B")}};
    struct group_request sync = rig_member(GROUP_SYNC, rig_c(first->member), 1);
    sync.assignments = assignments;
    sync.assignment_count = 2;
    assert_text(rig_ask(rig, sync, ERR_NONE)->assignment, "A");
    assert_text(rig_expect(rig, waiting, ERR_NONE)->assignment, "B");
    assert_string_equal(rig_state_of(rig), "Stable");
    rig_heartbeat(rig, rig_c(first->member), 1, ERR_NONE);
    rig_heartbeat(rig, rig_c(first->member), 2, ERR_ILLEGAL_GENERATION);
    rig_heartbeat(rig, "stranger", 1, ERR_UNKNOWN_MEMBER);
    rig_destroy(rig);
}

static void a_newcomer_makes_the_others_join_again(void **state)
{
    (void)state;
    struct rig *rig = rig_create();
    int32_t generation;
    const char *old = rig_settle_one(rig, &generation);
    uint64_t joining = rig_send(rig, rig_join(rig, ""));
    rig_heartbeat(rig, old, generation, ERR_REBALANCING);
    rig_ask(rig, rig_member(GROUP_SYNC, old, generation), ERR_REBALANCING);
    assert_null(rig_answer(rig, joining));
    uint64_t again = rig_send(rig, rig_join(rig, old));
    assert_int_equal(rig_expect(rig, again, ERR_NONE)->generation, generation + 1);
    assert_int_equal(rig_expect(rig, again, ERR_NONE)->member_count, 2);
    assert_int_equal(rig_expect(rig, joining, ERR_NONE)->generation, generation + 1);
    rig_destroy(rig);
}

static void who_does_not_join_again_in_time_is_out(void **state)
{
    (void)state;
    struct rig *rig = rig_create();
    int32_t generation;
    const char *old = rig_settle_one(rig, &generation);
    uint64_t joining = rig_send(rig, rig_join(rig, ""));
    for (int i = 0; i < 10; i++) {
        assert_null(rig_answer(rig, joining));
        rig_heartbeat(rig, old, generation, ERR_REBALANCING);
        rig_wait(rig, 6000);
    }
    const struct group_answer *joined = rig_expect(rig, joining, ERR_NONE);
    assert_int_equal(joined->member_count, 1);
    assert_true(slice_equal(joined->leader, joined->member));
    rig_heartbeat(rig, old, generation, ERR_UNKNOWN_MEMBER);
    rig_destroy(rig);
}

static void a_silent_member_is_out_after_its_session(void **state)
{
    (void)state;
    struct rig *rig = rig_create();
    int32_t generation;
    const char *member = rig_settle_one(rig, &generation);
    rig_wait(rig, 9000);
    rig_heartbeat(rig, member, generation, ERR_NONE);
    rig_wait(rig, 9999);
    assert_string_equal(rig_state_of(rig), "Stable");
    rig_wait(rig, 1);
    assert_string_equal(rig_state_of(rig), "Empty");
    rig_heartbeat(rig, member, generation, ERR_UNKNOWN_MEMBER);
    rig_destroy(rig);
}

static void who_does_not_synchronize_in_time_is_out(void **state)
{
    (void)state;
    struct rig *rig = rig_create();
    uint64_t a = rig_send(rig, rig_join(rig, ""));
    uint64_t b = rig_send(rig, rig_join(rig, ""));
    rig_wait(rig, 400);
    const char *leader = rig_c(rig_expect(rig, a, ERR_NONE)->member);
    const char *other = rig_c(rig_expect(rig, b, ERR_NONE)->member);
    rig_ask(rig, rig_member(GROUP_SYNC, leader, 1), ERR_NONE);
    for (int i = 0; i < 10; i++) {
        rig_heartbeat(rig, leader, 1, ERR_NONE);
        rig_heartbeat(rig, other, 1, ERR_NONE);
        rig_wait(rig, 6000);
    }
    rig_heartbeat(rig, other, 1, ERR_UNKNOWN_MEMBER);
    rig_heartbeat(rig, leader, 1, ERR_REBALANCING);
    rig_destroy(rig);
}

static void joining_again_with_the_same_changes_nothing_for_followers(void **state)
{
    (void)state;
    struct rig *rig = rig_create();
    uint64_t a = rig_send(rig, rig_join(rig, ""));
    uint64_t b = rig_send(rig, rig_join(rig, ""));
    rig_wait(rig, 400);
    const char *leader = rig_c(rig_expect(rig, a, ERR_NONE)->member);
    const char *follower = rig_c(rig_expect(rig, b, ERR_NONE)->member);
    /* The answer was lost: while the leader assigns it is said again, to the leader with members.
     */
    assert_int_equal(rig_ask(rig, rig_join(rig, leader), ERR_NONE)->member_count, 2);
    rig_ask(rig, rig_member(GROUP_SYNC, leader, 1), ERR_NONE);
    assert_int_equal(rig_ask(rig, rig_join(rig, follower), ERR_NONE)->generation, 1);
    rig_heartbeat(rig, leader, 1, ERR_NONE);
    /* A leader that joins wants a rebalance. */
    uint64_t again = rig_send(rig, rig_join(rig, leader));
    assert_null(rig_answer(rig, again));
    rig_heartbeat(rig, follower, 1, ERR_REBALANCING);
    rig_send(rig, rig_join(rig, follower));
    assert_int_equal(rig_expect(rig, again, ERR_NONE)->generation, 2);
    /* So does one that brings something else. */
    static const struct group_protocol other[] = {
        {{(const uint8_t *)"range", 5}, {(const uint8_t *)"n", 1}}};
    rig_ask(rig, rig_member(GROUP_SYNC, leader, 2), ERR_NONE);
    struct group_request changed = rig_join(rig, follower);
    changed.protocols = other;
    again = rig_send(rig, changed);
    assert_null(rig_answer(rig, again));
    rig_heartbeat(rig, leader, 2, ERR_REBALANCING);
    rig_destroy(rig);
}

static void synchronizing_ends_when_somebody_joins(void **state)
{
    (void)state;
    struct rig *rig = rig_create();
    uint64_t a = rig_send(rig, rig_join(rig, ""));
    uint64_t b = rig_send(rig, rig_join(rig, ""));
    rig_wait(rig, 400);
    const char *follower = rig_c(rig_expect(rig, b, ERR_NONE)->member);
    uint64_t waiting = rig_send(rig, rig_member(GROUP_SYNC, follower, 1));
    rig_send(rig, rig_join(rig, ""));
    rig_expect(rig, waiting, ERR_REBALANCING);
    assert_int_equal(rig_expect(rig, a, ERR_NONE)->generation, 1);
    rig_destroy(rig);
}

static void most_preferred_protocol_wins(void **state)
{
    (void)state;
#define NAMED(text)                                                                                \
    {                                                                                              \
        {(const uint8_t *)(text), sizeof(text) - 1},                                               \
        {                                                                                          \
            (const uint8_t *)"", 0                                                                 \
        }                                                                                          \
    }
    static const struct group_protocol one[] = {NAMED("x"), NAMED("range"), NAMED("rr")};
    static const struct group_protocol two[] = {NAMED("rr"), NAMED("range")};
    struct rig *rig = rig_create();
    uint64_t tags[3];
    for (int i = 0; i < 3; i++) {
        struct group_request request = rig_join(rig, "");
        request.protocols = i == 0 ? one : two;
        request.protocol_count = i == 0 ? 3 : 2;
        tags[i] = rig_send(rig, request);
    }
    struct group_request odd = rig_join(rig, "");
    odd.protocols = one; /* x alone is not known to all */
    rig_ask(rig, odd, ERR_INCONSISTENT_PROTOCOL);
    odd = rig_join(rig, "");
    odd.protocol_type = slice_of("connect");
    rig_ask(rig, odd, ERR_INCONSISTENT_PROTOCOL);
    rig_wait(rig, 400);
    assert_text(rig_expect(rig, tags[0], ERR_NONE)->protocol, "rr");
    struct group_request sync =
        rig_member(GROUP_SYNC, rig_c(rig_expect(rig, tags[1], ERR_NONE)->member), 1);
    sync.protocol_name = slice_of("range");
    rig_ask(rig, sync, ERR_INCONSISTENT_PROTOCOL);
    rig_destroy(rig);
}

static void a_member_may_have_to_come_back_with_its_id(void **state)
{
    (void)state;
    struct rig *rig = rig_create();
    struct group_request request = rig_join(rig, "");
    request.require_member_id = true;
    const char *id = rig_c(rig_ask(rig, request, ERR_MEMBER_ID_REQUIRED)->member);
    assert_true(strlen(id) > 36);
    request.member = slice_of(id);
    uint64_t tag = rig_send(rig, request);
    rig_wait(rig, 400);
    assert_text(rig_expect(rig, tag, ERR_NONE)->member, id);
    request.member = slice_of("never-given");
    rig_ask(rig, request, ERR_UNKNOWN_MEMBER);
    request.member = slice_of("");
    const char *lost = rig_c(rig_ask(rig, request, ERR_MEMBER_ID_REQUIRED)->member);
    rig_wait(rig, 10001);
    request.member = slice_of(lost);
    rig_ask(rig, request, ERR_UNKNOWN_MEMBER);
    rig_destroy(rig);
}

static void a_rebalance_waits_for_ids_that_were_given_out(void **state)
{
    (void)state;
    struct rig *rig = rig_create();
    int32_t generation;
    const char *old = rig_settle_one(rig, &generation);
    struct group_request request = rig_join(rig, "");
    request.require_member_id = true;
    const char *id = rig_c(rig_ask(rig, request, ERR_MEMBER_ID_REQUIRED)->member);
    rig_heartbeat(rig, old, generation, ERR_NONE); /* not yet a member */
    uint64_t again = rig_send(rig, rig_join(rig, old));
    assert_null(rig_answer(rig, again));
    request.member = slice_of(id);
    rig_send(rig, request);
    assert_int_equal(rig_expect(rig, again, ERR_NONE)->member_count, 2);
    rig_destroy(rig);
}

static void requests_are_checked(void **state)
{
    (void)state;
    struct rig *rig = rig_create();
    struct group_request request = rig_join(rig, "");
    request.session_timeout_ms = 5999;
    rig_ask(rig, request, ERR_INVALID_SESSION_TIMEOUT);
    request.session_timeout_ms = 1800001;
    rig_ask(rig, request, ERR_INVALID_SESSION_TIMEOUT);
    request = rig_join(rig, "");
    request.group = slice_of("");
    rig_ask(rig, request, ERR_INVALID_GROUP_ID);
    request = rig_join(rig, "");
    request.protocol_count = 0;
    rig_ask(rig, request, ERR_INCONSISTENT_PROTOCOL);
    rig_ask(rig, rig_join(rig, "somebody"), ERR_UNKNOWN_MEMBER);
    rig_heartbeat(rig, "somebody", 1, ERR_UNKNOWN_MEMBER);
    rig_destroy(rig);
}

static void a_group_has_a_limited_number_of_members(void **state)
{
    (void)state;
    struct rig *rig = rig_create();
    for (int i = 0; i < 1000; i++)
        rig_send(rig, rig_join(rig, ""));
    rig_ask(rig, rig_join(rig, ""), ERR_GROUP_FULL);
    rig_wait(rig, 400);
    assert_int_equal(rig_expect(rig, 1, ERR_NONE)->member_count, 1000);
    rig_destroy(rig);
}

/* ---- Leaving ---- */

static void leaving_makes_the_others_share_anew(void **state)
{
    (void)state;
    struct rig *rig = rig_create();
    uint64_t a = rig_send(rig, rig_join(rig, ""));
    uint64_t b = rig_send(rig, rig_join(rig, ""));
    rig_wait(rig, 400);
    const char *leader = rig_c(rig_expect(rig, a, ERR_NONE)->member);
    const char *other = rig_c(rig_expect(rig, b, ERR_NONE)->member);
    rig_ask(rig, rig_member(GROUP_SYNC, leader, 1), ERR_NONE);
    struct group_leaver leavers[] = {{.member = slice_of(leader)}, {.member = slice_of("none")}};
    struct group_request leave = rig_member(GROUP_LEAVE, "", -1);
    leave.leavers = leavers;
    leave.leaver_count = 2;
    const struct group_answer *left = rig_ask(rig, leave, ERR_NONE);
    assert_int_equal(left->leavers[0].err, ERR_NONE);
    assert_int_equal(left->leavers[1].err, ERR_UNKNOWN_MEMBER);
    rig_heartbeat(rig, other, 1, ERR_REBALANCING);
    const struct group_answer *joined = rig_ask(rig, rig_join(rig, other), ERR_NONE);
    assert_int_equal(joined->generation, 2);
    assert_text(joined->leader, other);
    leavers[0].member = slice_of(other);
    leave.leaver_count = 1;
    rig_ask(rig, leave, ERR_NONE);
    assert_string_equal(rig_state_of(rig), "Empty");
    leave.group = slice_of("nowhere");
    assert_int_equal(rig_ask(rig, leave, ERR_NONE)->leavers[0].err, ERR_UNKNOWN_MEMBER);
    rig_destroy(rig);
}

/* ---- Static members ---- */

static struct group_request static_join(struct rig *rig, const char *member, const char *instance)
{
    struct group_request request = rig_join(rig, member);
    request.instance = slice_of(instance);
    return request;
}

static void a_static_member_comes_back_to_its_place(void **state)
{
    (void)state;
    struct rig *rig = rig_create();
    uint64_t a = rig_send(rig, static_join(rig, "", "one"));
    uint64_t b = rig_send(rig, static_join(rig, "", "two"));
    rig_wait(rig, 400);
    const char *one = rig_c(rig_expect(rig, a, ERR_NONE)->member);
    const char *two = rig_c(rig_expect(rig, b, ERR_NONE)->member);
    struct group_assignment assignments[] = {{slice_of(one), slice_of("A")},
                                             {slice_of(two), slice_of("B")}};
    struct group_request sync = rig_member(GROUP_SYNC, one, 1);
    sync.assignments = assignments;
    sync.assignment_count = 2;
    rig_ask(rig, sync, ERR_NONE);
    rig_ask(rig, rig_member(GROUP_SYNC, two, 1), ERR_NONE);

    const struct group_answer *back = rig_ask(rig, static_join(rig, "", "two"), ERR_NONE);
    assert_int_equal(back->generation, 1);
    const char *renamed = rig_c(back->member);
    assert_string_not_equal(renamed, two);
    struct group_request mine = rig_member(GROUP_SYNC, renamed, 1);
    mine.instance = slice_of("two");
    assert_text(rig_ask(rig, mine, ERR_NONE)->assignment, "B");
    rig_heartbeat(rig, one, 1, ERR_NONE);
    struct group_request late = rig_member(GROUP_HEARTBEAT, two, 1);
    late.instance = slice_of("two");
    rig_ask(rig, late, ERR_FENCED_INSTANCE);
    late.instance = slice_of("three");
    rig_ask(rig, late, ERR_UNKNOWN_MEMBER);

    /* The leader, too; it is not told that it leads, or it learns that nothing is to be assigned.
     */
    back = rig_ask(rig, static_join(rig, "", "one"), ERR_NONE);
    assert_text(back->leader, one);
    assert_int_equal(back->member_count, 0);
    struct group_request knowing = static_join(rig, "", "one");
    knowing.may_skip_assignment = true;
    back = rig_ask(rig, knowing, ERR_NONE);
    assert_true(back->skip_assignment);
    assert_true(slice_equal(back->leader, back->member));
    assert_int_equal(back->member_count, 2);

    /* An administrator removes one by its instance id alone. */
    struct group_leaver leaver = {.member = slice_of(""), .instance = slice_of("two")};
    struct group_request leave = rig_member(GROUP_LEAVE, "", -1);
    leave.leavers = &leaver;
    leave.leaver_count = 1;
    assert_int_equal(rig_ask(rig, leave, ERR_NONE)->leavers[0].err, ERR_NONE);
    rig_destroy(rig);
}

static void a_waiting_static_member_is_fenced_by_its_successor(void **state)
{
    (void)state;
    struct rig *rig = rig_create();
    uint64_t first = rig_send(rig, static_join(rig, "", "one"));
    uint64_t second = rig_send(rig, static_join(rig, "", "one"));
    rig_expect(rig, first, ERR_FENCED_INSTANCE);
    rig_wait(rig, 400);
    assert_int_equal(rig_expect(rig, second, ERR_NONE)->member_count, 1);
    rig_destroy(rig);
}

static void a_static_member_may_be_away_over_a_rebalance(void **state)
{
    (void)state;
    struct rig *rig = rig_create();
    struct group_request request = static_join(rig, "", "one");
    request.session_timeout_ms = 600000;
    uint64_t a = rig_send(rig, request);
    rig_wait(rig, 400);
    rig_ask(rig, rig_member(GROUP_SYNC, rig_c(rig_expect(rig, a, ERR_NONE)->member), 1), ERR_NONE);
    uint64_t b = rig_send(rig, rig_join(rig, ""));
    rig_wait(rig, 60001);
    const struct group_answer *joined = rig_expect(rig, b, ERR_NONE);
    assert_int_equal(joined->member_count, 2);
    assert_true(slice_equal(joined->leader, joined->member));
    rig_destroy(rig);
}

/* ---- Looking ---- */

static void groups_are_described_and_listed(void **state)
{
    (void)state;
    struct rig *rig = rig_create();
    int32_t generation;
    rig_settle_one(rig, &generation);
    const struct group_description *group =
        rig_ask(rig, rig_member(GROUP_DESCRIBE, "", -1), ERR_NONE)->groups;
    assert_text(group->name, "g");
    assert_text(group->state, "Stable");
    assert_text(group->protocol, "range");
    assert_int_equal(group->member_count, 1);
    assert_text(group->members[0].client_id, "client");
    assert_text(group->members[0].client_host, "/1.2.3.4");
    assert_text(group->members[0].assignment, "all");
    struct group_offset offset = {.topic = slice_of("t"), .offset = 1};
    struct group_request other = rig_member(GROUP_COMMIT, "", -1);
    other.offsets = &offset;
    other.offset_count = 1;
    other.group = slice_of("h");
    rig_ask(rig, other, ERR_NONE);
    const struct group_answer *list = rig_ask(rig, rig_member(GROUP_LIST, "", -1), ERR_NONE);
    assert_int_equal(list->group_count, 2);
    rig_destroy(rig);
}

static void abandoned_groups_are_forgotten_in_the_end(void **state)
{
    (void)state;
    struct rig *rig = rig_create();
    char name[20];
    for (int i = 0; i < 3000; i++) {
        snprintf(name, sizeof name, "g%d", i);
        struct group_request request = rig_join(rig, "");
        request.group = slice_of(name);
        request.protocol_count = 0; /* refused, but the group was made */
        rig_ask(rig, request, ERR_INCONSISTENT_PROTOCOL);
    }
    const struct group_answer *list = rig_ask(rig, rig_member(GROUP_LIST, "", -1), ERR_NONE);
    assert_true(list->group_count <= 1000);
    rig_destroy(rig);
}

/* Whatever members do, every request is answered in the end, and at most once. */
static void every_request_is_answered_once(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct rig *rig = rig_create();
        uint64_t random = seed * UINT64_C(0x9E3779B97F4A7C15);
        char ids[6][256] = {{0}};
        int32_t generations[6] = {0};
        for (int step = 0; step < 300; step++) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            uint32_t who = (uint32_t)(random >> 20) % 6, what = (uint32_t)(random >> 40) % 8;
            static const char *const instances[] = {NULL, NULL, NULL, NULL, "i", "j"};
            struct group_request request = rig_member(GROUP_HEARTBEAT, ids[who], generations[who]);
            struct group_leaver leaver = {.member = slice_of(ids[who])};
            if (what < 3) {
                request = rig_join(rig, ids[who]);
                request.require_member_id = random >> 50 & 1;
            } else if (what < 5) {
                request.op = GROUP_SYNC;
            } else if (what == 5) {
                request.op = GROUP_LEAVE;
                request.leavers = &leaver;
                request.leaver_count = 1;
            }
            request.instance = rig_text(instances[who]);
            uint32_t before = rig->answer_count;
            rig_send(rig, request);
            if (what == 7)
                rig_wait(rig, (int64_t)(random >> 33) % 9000);
            for (uint32_t i = before; i < rig->answer_count; i++) {
                const struct event *event = &rig->answers[i];
                const struct group_answer *answer = event->parts->root;
                if (answer->op == GROUP_JOIN && event->asker.tag == rig->tag &&
                    answer->member.len > 0) {
                    snprintf(ids[who], sizeof ids[who], "%s", rig_c(answer->member));
                    if (event->err == ERR_NONE)
                        generations[who] = answer->generation;
                } else if (event->asker.tag == rig->tag && event->err == ERR_UNKNOWN_MEMBER) {
                    ids[who][0] = 0;
                }
            }
        }
        rig_wait(rig, 3000000);
        assert_int_equal(rig->answer_count, rig->tag);
        for (uint64_t tag = 1; tag <= rig->tag; tag++)
            assert_non_null(rig_answer(rig, tag));
        assert_string_equal(rig_state_of(rig), "Empty");
        rig_destroy(rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members_that_come_together_share_one_generation),
        cmocka_unit_test(a_newcomer_makes_the_others_join_again),
        cmocka_unit_test(who_does_not_join_again_in_time_is_out),
        cmocka_unit_test(a_silent_member_is_out_after_its_session),
        cmocka_unit_test(who_does_not_synchronize_in_time_is_out),
        cmocka_unit_test(joining_again_with_the_same_changes_nothing_for_followers),
        cmocka_unit_test(synchronizing_ends_when_somebody_joins),
        cmocka_unit_test(most_preferred_protocol_wins),
        cmocka_unit_test(a_member_may_have_to_come_back_with_its_id),
        cmocka_unit_test(a_rebalance_waits_for_ids_that_were_given_out),
        cmocka_unit_test(requests_are_checked),
        cmocka_unit_test(a_group_has_a_limited_number_of_members),
        cmocka_unit_test(leaving_makes_the_others_share_anew),
        cmocka_unit_test(a_static_member_comes_back_to_its_place),
        cmocka_unit_test(a_waiting_static_member_is_fenced_by_its_successor),
        cmocka_unit_test(a_static_member_may_be_away_over_a_rebalance),
        cmocka_unit_test(groups_are_described_and_listed),
        cmocka_unit_test(abandoned_groups_are_forgotten_in_the_end),
        cmocka_unit_test(every_request_is_answered_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
