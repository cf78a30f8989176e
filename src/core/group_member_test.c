/* Groups to which memory is refused at each moment in turn: what was acknowledged stays, nobody is
 * left without an answer for ever, and afterwards the group works as before. */
#include "base/memory_double.h"
#include "core/group_rig.h"

static const struct group_offset OFFSETS[] = {
    {.topic = {(const uint8_t *)"t", 1}, .partition = 3, .offset = 30, .leader_epoch = 1},
    {.topic = {(const uint8_t *)"u", 1},
     .partition = 1,
     .offset = 10,
     .metadata = {(const uint8_t *)"note", 4}},
};

static struct group_request commit_request(const char *member, int32_t generation)
{
    struct group_request request = rig_member(GROUP_COMMIT, member, generation);
    request.offsets = OFFSETS;
    request.offset_count = 2;
    return request;
}

/* The answer's error; ERR_AGAIN: there is none (yet). */
static enum err told(const struct rig *rig, uint64_t tag)
{
    const struct event *event = rig_answer(rig, tag);
    return event == NULL ? ERR_AGAIN : event->err;
}

static enum err try(struct rig *rig, struct group_request request)
{
    return told(rig, rig_send(rig, request));
}

/* A member that joins and syncs, if it can; its id. */
static bool enter(struct rig *rig, char id[256], int32_t *generation)
{
    uint64_t tag = rig_send(rig, rig_join(rig, ""));
    rig_wait(rig, 400);
    const struct event *event = rig_answer(rig, tag);
    if (event == NULL || event->err != ERR_NONE || event->parts == NULL)
        return false;
    const struct group_answer *joined = event->parts->root;
    snprintf(id, 256, "%s", rig_c(joined->member));
    *generation = joined->generation;
    struct group_assignment assignment = {slice_of(id), slice_of("all")};
    struct group_request sync = rig_member(GROUP_SYNC, id, *generation);
    sync.assignments = &assignment;
    sync.assignment_count = 1;
    return try(rig, sync) == ERR_NONE;
}

/* Everything a group is asked, once. Sets *safe when a commit was acknowledged. */
static void story(struct rig *rig, bool *safe)
{
    char first[256], second[256];
    int32_t generation;
    *safe = try(rig, commit_request("", -1)) == ERR_NONE;
    if (enter(rig, first, &generation)) {
        (void)try(rig, rig_member(GROUP_HEARTBEAT, first, generation));
        *safe = try(rig, commit_request(first, generation)) == ERR_NONE || *safe;
    }
    struct group_request fixed = rig_join(rig, "");
    fixed.instance = slice_of("instance");
    (void)rig_send(rig, fixed);
    (void)enter(rig, second, &generation);
    (void)try(rig, rig_member(GROUP_DESCRIBE, "", -1));
    (void)try(rig, rig_member(GROUP_LIST, "", -1));
    struct group_request offsets = rig_member(GROUP_OFFSETS, "", -1);
    offsets.all = true;
    (void)try(rig, offsets);
    struct group_leaver leavers[] = {{.member = slice_of(first)},
                                     {.member = {0}, .instance = slice_of("instance")}};
    struct group_request leave = rig_member(GROUP_LEAVE, "", -1);
    leave.leavers = leavers;
    leave.leaver_count = 2;
    (void)try(rig, leave);
    struct group_offset other = {.topic = slice_of("other"), .partition = 1};
    struct group_request forget = rig_member(GROUP_FORGET, "", -1);
    forget.offsets = &other;
    forget.offset_count = 1;
    (void)try(rig, forget);
}

/* What has no group, and the end of the one there is. */
static void epilogue(struct rig *rig)
{
    struct group_leaver nobody = {.member = slice_of("nobody")};
    struct group_request leave = rig_member(GROUP_LEAVE, "", -1);
    leave.group = slice_of("another");
    leave.leavers = &nobody;
    leave.leaver_count = 1;
    (void)try(rig, leave);
    rig_wait(rig, 100000);
    (void)try(rig, rig_member(GROUP_DELETE, "", -1));
}

static void memory_may_run_out_at_any_moment(void **state)
{
    (void)state;
    bool reached = true;
    for (uint64_t n = 1; reached; n++) {
        struct rig *rig = rig_create();
        bool safe = false;
        memory_fail_at(n, n % 2);
        story(rig, &safe);
        reached = memory_refused() > 0;
        memory_fail_at(0, 0);
        rig_wait(rig, 200000); /* whoever came half way is put out */
        for (uint64_t tag = 1; tag <= rig->tag; tag++)
            assert_int_not_equal(told(rig, tag), ERR_AGAIN);
        if (safe) {
            assert_int_equal(rig_offset(rig, "t", 3), 30);
            assert_int_equal(rig_offset(rig, "u", 1), 10);
        }
        int32_t generation;
        const char *member = rig_settle_one(rig, &generation);
        rig_ask(rig, commit_request(member, generation), ERR_NONE);
        assert_int_equal(rig_offset(rig, "t", 3), 30);
        rig_destroy(rig);
    }
}

static void stored_groups_are_read_or_memory_is_said_to_be_short(void **state)
{
    (void)state;
    struct rig *rig = rig_create();
    rig_ask(rig, commit_request("", -1), ERR_NONE);
    struct tracked *tracked = list_entry(rig->cell.changed.next, struct tracked, link);
    struct slice stored;
    assert_true(groups_encode(rig->cell.groups, tracked, &stored, 5));
    enum err err = ERR_NO_MEMORY;
    for (uint64_t n = 1; err != ERR_NONE; n++) {
        struct rig *fresh = rig_create();
        memory_fail_at(n, 0);
        err = groups_restore(fresh->cell.groups, group_object(slice_of("g")), stored);
        memory_fail_at(0, 0);
        assert_true(err == ERR_NONE || err == ERR_NO_MEMORY);
        if (err == ERR_NONE)
            assert_int_equal(rig_offset(fresh, "t", 3), 30);
        rig_destroy(fresh);
    }
    for (size_t cut = 0; cut < stored.len; cut++) { /* and what is cut is corrupt */
        struct rig *fresh = rig_create();
        assert_int_equal(groups_restore(fresh->cell.groups, group_object(slice_of("g")),
                                        slice_make(stored.data, cut)),
                         ERR_CORRUPT);
        rig_destroy(fresh);
    }
    rig_destroy(rig);
}

static void the_end_of_a_group_may_find_no_memory(void **state)
{
    (void)state;
    bool reached = true;
    for (uint64_t n = 1; reached; n++) {
        struct rig *rig = rig_create();
        rig_ask(rig, commit_request("", -1), ERR_NONE);
        memory_fail_at(n, n % 2);
        epilogue(rig);
        reached = memory_refused() > 0;
        memory_fail_at(0, 0);
        enum err err = told(rig, rig->tag);
        assert_true(err == ERR_NONE || err == ERR_NO_MEMORY);
        int64_t offset = rig_offset(rig, "t", 3); /* told of an error, it may be done or not */
        assert_true(offset == -1 || (offset == 30 && err != ERR_NONE));
        rig_destroy(rig);
    }
}

static enum err applied(struct slice bytes)
{
    struct rig *rig = rig_create();
    struct record record = {.type = RECORD_GROUP, .bytes = bytes};
    enum err err = groups_apply(rig->cell.groups, &record, 1);
    rig_destroy(rig);
    return err;
}

static void records_that_are_cut_or_senseless_are_corrupt(void **state)
{
    (void)state;
    struct rig *rig = rig_create();
    rig_ask(rig, commit_request("", -1), ERR_NONE);
    struct group_request forget = rig_member(GROUP_FORGET, "", -1);
    forget.offsets = OFFSETS;
    forget.offset_count = 2;
    rig_ask(rig, forget, ERR_NONE);
    rig_ask(rig, rig_member(GROUP_DELETE, "", -1), ERR_NONE);
    assert_int_equal(rig->record_count, 3);
    for (uint32_t i = 0; i < 3; i++) {
        struct rig_record *record = &rig->records[i];
        assert_int_equal(applied(slice_make(record->bytes, record->len)), ERR_NONE);
        for (size_t cut = 0; cut < record->len; cut++)
            assert_int_equal(applied(slice_make(record->bytes, cut)), ERR_CORRUPT);
        uint8_t kind = record->bytes[0];
        record->bytes[0] = 99;
        assert_int_equal(applied(slice_make(record->bytes, record->len)), ERR_CORRUPT);
        record->bytes[0] = kind;
        enum err err = ERR_NO_MEMORY;
        for (uint64_t n = 1; err != ERR_NONE; n++) {
            struct rig *fresh = rig_create();
            struct record again = {.type = RECORD_GROUP,
                                   .bytes = slice_make(record->bytes, record->len)};
            memory_fail_at(n, 0);
            err = groups_apply(fresh->cell.groups, &again, 1);
            memory_fail_at(0, 0);
            assert_true(err == ERR_NONE || err == ERR_NO_MEMORY);
            rig_destroy(fresh);
        }
    }
    rig_destroy(rig);
}

static void requests_have_their_bounds(void **state)
{
    (void)state;
    static uint8_t bytes[2000];
    memset(bytes, 'a', sizeof bytes);
    struct slice large = slice_make(bytes, sizeof bytes);
    struct rig *rig = rig_create();
    struct group_request request = rig_join(rig, "");
    request.group = large;
    assert_int_equal(try(rig, request), ERR_INVALID_GROUP_ID);
    request = rig_join(rig, "");
    request.group = slice_of("");
    assert_int_equal(try(rig, request), ERR_INVALID_GROUP_ID);
    request = rig_join(rig, "");
    request.instance = large;
    assert_int_equal(try(rig, request), ERR_INVALID);
    request = rig_join(rig, "");
    request.protocol_type = large;
    assert_int_equal(try(rig, request), ERR_INCONSISTENT_PROTOCOL);
    request = rig_join(rig, "");
    request.protocol_count = 1000;
    assert_int_equal(try(rig, request), ERR_INCONSISTENT_PROTOCOL);
    request = rig_join(rig, "");
    request.session_timeout_ms = 1;
    assert_int_equal(try(rig, request), ERR_INVALID_SESSION_TIMEOUT);
    request = rig_member((enum group_op)99, "", -1);
    assert_int_equal(try(rig, request), ERR_INVALID);
    request = commit_request("a member", -1);
    assert_int_not_equal(try(rig, request), ERR_NONE);
    request = commit_request("", -1);
    request.instance = slice_of("instance");
    assert_int_not_equal(try(rig, request), ERR_NONE);
    struct group_offset offset = {.topic = large, .partition = 1, .offset = 5};
    request = commit_request("", -1);
    request.offsets = &offset;
    request.offset_count = 1;
    const struct group_answer *answer = rig_ask(rig, request, ERR_NONE);
    assert_int_equal(answer->offsets[0].err, ERR_INVALID);
    rig_ask(rig, commit_request("", -1), ERR_NONE);
    request.op = GROUP_FORGET;
    answer = rig_ask(rig, request, ERR_NONE);
    assert_int_equal(answer->offsets[0].err, ERR_INVALID);
    rig->cell.failure = ERR_IO;
    assert_int_equal(try(rig, rig_join(rig, "")), ERR_IO);
    assert_int_equal(try(rig, commit_request("", -1)), ERR_IO);
    rig_destroy(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_may_run_out_at_any_moment),
        cmocka_unit_test(stored_groups_are_read_or_memory_is_said_to_be_short),
        cmocka_unit_test(the_end_of_a_group_may_find_no_memory),
        cmocka_unit_test(records_that_are_cut_or_senseless_are_corrupt),
        cmocka_unit_test(requests_have_their_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
