/* The life of a generation. A group is EMPTY; the first JOIN makes it PREPARING; when all members
 * have joined, or their time is over, a generation is made: every JOIN is answered, the leader's
 * with the list of members, and the group is COMPLETING; the leader's SYNC brings everybody's
 * assignment, every SYNC is answered, and it is STABLE, until somebody comes, goes, changes what it
 * brings, or is not heard of for its session's time: then it is PREPARING again, which members
 * learn by their heartbeats.
 *
 * None of it is durable. A static member (one with an instance id) keeps its place over a restart
 * of its client: whoever comes last with the id has it, the one before is fenced. */
#include "core/group_state.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static struct cell *cell_of_group(const struct group *group)
{
    return group->groups->cell;
}

static void prepare(struct group *group);
static void try_complete(struct group *group);

/* ---- Sessions ---- */

/* After members went: the others share anew. */
static void rebalance_or_complete(struct group *group)
{
    if (group->state == GROUP_STABLE || group->state == GROUP_COMPLETING)
        prepare(group);
    else
        try_complete(group);
}

/* Takes back the answer that a member waits for. */
static void end_wait(struct member *member, enum err err)
{
    struct group *group = member->group;
    struct cell *cell = cell_of_group(group);
    enum member_wait waits = member->waits;
    member->waits = WAIT_NOTHING;
    if (waits == WAIT_JOIN) {
        group->waiting_join--;
        reply_join_error(cell, &member->asker, member->id, err);
    } else if (waits == WAIT_SYNC) {
        struct reply reply;
        reply_init(&reply, &member->asker, GROUP_SYNC, err);
        reply_send(cell, &reply, false);
    }
}

static void remove_member(struct member *member, enum err err)
{
    struct group *group = member->group;
    bool leads = group->leader == member;
    end_wait(member, err);
    member_destroy(member);
    if (leads && !list_empty(&group->members))
        group->leader = list_entry(group->members.next, struct member, link);
}

static void session_over(struct cell *cell, struct timer *timer)
{
    struct member *member = list_entry(timer, struct member, session);
    struct group *group = member->group;
    (void)cell;
    if (member->waits != WAIT_NOTHING) { /* for the others, not for us */
        group_member_alive(member);
        return;
    }
    remove_member(member, ERR_UNKNOWN_MEMBER);
    rebalance_or_complete(group);
    group_settle(group);
}

void group_member_alive(struct member *member)
{
    struct cell *cell = cell_of_group(member->group);
    member->session.fire = session_over;
    cell_timer(cell, &member->session, cell->now_ms + member->session_timeout_ms);
}

static void forget_pending(struct pending_member *pending)
{
    cell_timer_off(cell_of_group(pending->group), &pending->timer);
    list_remove(&pending->link);
    pending->group->pending_count--;
    free(pending);
}

static void pending_over(struct cell *cell, struct timer *timer)
{
    struct pending_member *pending = list_entry(timer, struct pending_member, timer);
    struct group *group = pending->group;
    (void)cell;
    forget_pending(pending);
    try_complete(group);
    group_settle(group);
}

static struct pending_member *find_pending(const struct group *group, struct slice id)
{
    list_each(node, &group->pending)
    {
        struct pending_member *pending = list_entry(node, struct pending_member, link);
        if (slice_equal(pending->id, id))
            return pending;
    }
    return NULL;
}

static bool add_pending(struct group *group, struct slice id, int32_t session_timeout_ms)
{
    struct cell *cell = cell_of_group(group);
    struct pending_member *pending = calloc(1, sizeof *pending + id.len);
    if (pending == NULL)
        return false;
    memcpy(pending + 1, id.data, id.len);
    pending->id = slice_make(pending + 1, id.len);
    pending->group = group;
    pending->timer.fire = pending_over;
    list_insert(&group->pending, &pending->link);
    group->pending_count++;
    cell_timer(cell, &pending->timer, cell->now_ms + session_timeout_ms);
    return true;
}

void group_abandon_members(struct group *group)
{
    struct cell *cell = cell_of_group(group);
    cell_timer_off(cell, &group->phase);
    list_each(node, &group->members) member_destroy(list_entry(node, struct member, link));
    list_each(node, &group->pending) forget_pending(list_entry(node, struct pending_member, link));
}

/* ---- Phases ---- */

static int64_t rebalance_ms(const struct group *group)
{
    int64_t longest = 0;
    list_each(node, &group->members)
    {
        const struct member *member = list_entry(node, struct member, link);
        if (member->rebalance_timeout_ms > longest)
            longest = member->rebalance_timeout_ms;
    }
    return longest;
}

static void set_slice(struct slice *slot, struct slice value)
{
    free((void *)(uintptr_t)slot->data);
    *slot = value;
}

static void become_empty(struct group *group)
{
    assert(group->member_count == 0);
    group->state = GROUP_EMPTY;
    group->generation++;
    group->leader = NULL;
    set_slice(&group->protocol, (struct slice){0});
}

/* The leader is one of those who joined. */
static void elect(struct group *group)
{
    if (group->leader != NULL && group->leader->waits == WAIT_JOIN)
        return;
    list_each(node, &group->members)
    {
        struct member *member = list_entry(node, struct member, link);
        if (member->waits == WAIT_JOIN) {
            group->leader = member;
            return;
        }
    }
}

static void phase_over(struct cell *cell, struct timer *timer);

static void start_phase(struct group *group, int64_t after_ms)
{
    struct cell *cell = cell_of_group(group);
    group->phase.fire = phase_over;
    cell_timer(cell, &group->phase, cell->now_ms + after_ms);
}

static void make_generation(struct group *group)
{
    struct slice protocol = slice_copy(group_choose_protocol(group));
    if (protocol.data == NULL) {
        start_phase(group, GROUP_INITIAL_DELAY_MS); /* no memory: a little later, perhaps */
        return;
    }
    set_slice(&group->protocol, protocol);
    group->generation = group->generation == INT32_MAX ? 1 : group->generation + 1;
    group->state = GROUP_COMPLETING;
    list_each(node, &group->members)
    {
        struct member *member = list_entry(node, struct member, link);
        member->unsynced = true;
        if (member->waits != WAIT_JOIN)
            continue; /* a static one that is away */
        member->waits = WAIT_NOTHING;
        reply_join(group, &member->asker, member, group->leader->id, member == group->leader,
                   false);
        group_member_alive(member);
    }
    group->waiting_join = 0;
    start_phase(group, rebalance_ms(group));
}

static void complete_join(struct group *group)
{
    struct cell *cell = cell_of_group(group);
    group->initial = false;
    cell_timer_off(cell, &group->phase);
    list_each(node, &group->members)
    {
        struct member *member = list_entry(node, struct member, link);
        if (member->waits != WAIT_JOIN && member->instance.data == NULL)
            remove_member(member, ERR_UNKNOWN_MEMBER);
    }
    elect(group);
    if (group->member_count == 0)
        become_empty(group);
    else if (group->waiting_join == 0)
        start_phase(group, rebalance_ms(group)); /* only static ones, and all away */
    else
        make_generation(group);
}

static void try_complete(struct group *group)
{
    if (group->state == GROUP_PREPARING && !group->initial &&
        group->waiting_join == group->member_count && group->pending_count == 0)
        complete_join(group);
}

/* Those who did not ask for their assignment in time are gone. */
static void sync_over(struct group *group)
{
    bool any = false;
    list_each(node, &group->members)
    {
        struct member *member = list_entry(node, struct member, link);
        if (member->unsynced) {
            remove_member(member, ERR_UNKNOWN_MEMBER);
            any = true;
        }
    }
    if (any)
        rebalance_or_complete(group);
}

static void phase_over(struct cell *cell, struct timer *timer)
{
    struct group *group = list_entry(timer, struct group, phase);
    if (group->state == GROUP_PREPARING) {
        bool more = group->grew || group->pending_count > 0;
        group->grew = false;
        if (group->initial && more && cell->now_ms < group->initial_end_ms)
            start_phase(group, GROUP_INITIAL_DELAY_MS);
        else
            complete_join(group);
    } else {
        sync_over(group);
    }
    group_settle(group);
}

static void prepare(struct group *group)
{
    struct cell *cell = cell_of_group(group);
    if (group->state == GROUP_COMPLETING) {
        list_each(node, &group->members)
        {
            struct member *member = list_entry(node, struct member, link);
            if (member->waits == WAIT_SYNC)
                end_wait(member, ERR_REBALANCING);
        }
    }
    list_each(node, &group->members) list_entry(node, struct member, link)->unsynced = false;
    group->initial = group->state == GROUP_EMPTY;
    group->grew = false;
    group->initial_end_ms = cell->now_ms + GROUP_INITIAL_DELAY_MS_MAX;
    group->state = GROUP_PREPARING;
    start_phase(group, group->initial ? GROUP_INITIAL_DELAY_MS : rebalance_ms(group));
    try_complete(group);
}

/* ---- JOIN ---- */

static void wait_join(struct member *member, const struct asker *asker)
{
    if (member->waits != WAIT_NOTHING)
        end_wait(member, ERR_REBALANCING); /* it asks again: the older request is not waited for */
    member->waits = WAIT_JOIN;
    member->asker = *asker;
    member->group->waiting_join++;
    group_member_alive(member);
}

static void join_and_rebalance(struct member *member, const struct asker *asker)
{
    struct group *group = member->group;
    wait_join(member, asker);
    group->grew = true;
    if (group->state == GROUP_PREPARING)
        try_complete(group);
    else
        prepare(group);
}

static enum err add_member(struct group *group, const struct command *command, struct slice id)
{
    const struct group_request *request = command->parts->root;
    struct slice type = {0};
    if (group->member_count == 0 && (type = slice_copy(request->protocol_type)).data == NULL)
        return ERR_NO_MEMORY;
    struct member *member = member_create(group, request, id);
    if (member == NULL) {
        free((void *)(uintptr_t)type.data);
        return ERR_NO_MEMORY;
    }
    if (type.data != NULL)
        set_slice(&group->protocol_type, type);
    if (group->leader == NULL)
        group->leader = member;
    join_and_rebalance(member, &command->asker);
    return ERR_NONE;
}

static void answer_current(struct member *member, const struct asker *asker)
{
    struct group *group = member->group;
    reply_join(group, asker, member, group->leader->id, member == group->leader, false);
    group_member_alive(member);
}

/* A static member's client came back without its member id. */
static enum err replace_static(struct member *member, const struct command *command,
                               struct slice id)
{
    struct group *group = member->group;
    const struct group_request *request = command->parts->root;
    enum err err = member_check(group, member, request);
    if (err != ERR_NONE)
        return err;
    end_wait(member, ERR_FENCED_INSTANCE);
    struct slice leader = slice_copy(group->leader->id); /* by its id so far */
    if (leader.data == NULL || member_rename(member, id) != ERR_NONE ||
        member_update(member, request) != ERR_NONE) {
        free((void *)(uintptr_t)leader.data);
        return ERR_NO_MEMORY;
    }
    bool same = slice_equal(group_choose_protocol(group), group->protocol);
    if (group->state == GROUP_STABLE && same) {
        bool skip = request->may_skip_assignment && member == group->leader;
        reply_join(group, &command->asker, member,
                   request->may_skip_assignment ? group->leader->id : leader, skip, skip);
        group_member_alive(member);
    } else {
        join_and_rebalance(member, &command->asker);
    }
    free((void *)(uintptr_t)leader.data);
    return ERR_NONE;
}

/* Without a member id. */
static enum err join_new(struct group *group, const struct command *command)
{
    const struct group_request *request = command->parts->root;
    struct member *known = member_by_instance(group, request->instance);
    enum err err = known != NULL ? ERR_NONE : member_check(group, NULL, request);
    if (err != ERR_NONE)
        return err;
    struct slice id = member_id_make(request);
    if (id.data == NULL)
        return ERR_NO_MEMORY;
    if (known != NULL) {
        err = replace_static(known, command, id);
    } else if (!request->require_member_id || request->instance.data != NULL) {
        err = add_member(group, command, id);
    } else if (!add_pending(group, id, request->session_timeout_ms)) {
        err = ERR_NO_MEMORY;
    } else {
        reply_join_error(cell_of_group(group), &command->asker, id, ERR_MEMBER_ID_REQUIRED);
    }
    free((void *)(uintptr_t)id.data);
    return err;
}

static enum err join_again(struct member *member, const struct command *command)
{
    struct group *group = member->group;
    const struct group_request *request = command->parts->root;
    bool same = member_brings_same(member, request);
    bool generation_stands = group->state == GROUP_COMPLETING ||
                             (group->state == GROUP_STABLE && member != group->leader);
    if (same && generation_stands) {
        answer_current(member, &command->asker);
        return ERR_NONE;
    }
    enum err err = member_check(group, member, request);
    if (err == ERR_NONE)
        err = member_update(member, request);
    if (err == ERR_NONE)
        join_and_rebalance(member, &command->asker);
    return err;
}

static enum err join_known(struct group *group, const struct command *command)
{
    const struct group_request *request = command->parts->root;
    struct pending_member *pending = find_pending(group, request->member);
    if (pending != NULL) {
        forget_pending(pending); /* its place is taken by the member */
        enum err err = member_check(group, NULL, request);
        return err != ERR_NONE ? err : add_member(group, command, request->member);
    }
    struct member *member;
    enum err err = group_member_check(group, request, &member);
    return err != ERR_NONE ? err : join_again(member, command);
}

void group_join(struct groups *groups, const struct command *command)
{
    const struct group_request *request = command->parts->root;
    struct group *group = map_get(&groups->by_id, group_object(request->group));
    assert(group != NULL);
    enum err err = ERR_NONE;
    if (!group_supports(group, request))
        err = ERR_INCONSISTENT_PROTOCOL;
    else if (request->member.len == 0)
        err = join_new(group, command);
    else
        err = join_known(group, command);
    if (err != ERR_NONE)
        reply_join_error(groups->cell, &command->asker,
                         err == ERR_GROUP_FULL ? slice_of("") : request->member, err);
}

/* ---- Requests of members ---- */

enum err group_member_check(const struct group *group, const struct group_request *request,
                            struct member **out)
{
    struct member *member = group != NULL ? member_find(group, request->member) : NULL;
    if (group != NULL && request->instance.data != NULL) {
        const struct member *holder = member_by_instance(group, request->instance);
        if (holder == NULL)
            return ERR_UNKNOWN_MEMBER;
        if (holder != member)
            return ERR_FENCED_INSTANCE;
    }
    if (member == NULL)
        return ERR_UNKNOWN_MEMBER;
    *out = member;
    return ERR_NONE;
}

static enum err sync_check(const struct group *group, const struct group_request *request,
                           struct member **out)
{
    enum err err = group_member_check(group, request, out);
    if (err != ERR_NONE)
        return err;
    if (request->generation != group->generation)
        return ERR_ILLEGAL_GENERATION;
    bool type = request->protocol_type.data == NULL ||
                slice_equal(request->protocol_type, group->protocol_type);
    bool protocol =
        request->protocol_name.data == NULL || slice_equal(request->protocol_name, group->protocol);
    if (!type || !protocol)
        return ERR_INCONSISTENT_PROTOCOL;
    return group->state == GROUP_PREPARING ? ERR_REBALANCING : ERR_NONE;
}

static enum err assign(struct group *group, const struct group_request *request)
{
    size_t bytes = 0;
    for (uint32_t i = 0; i < request->assignment_count; i++)
        bytes += request->assignments[i].bytes.len;
    if (bytes > GROUP_BYTES_MAX)
        return ERR_TOO_LARGE;
    enum err err = ERR_NONE;
    list_each(node, &group->members)
    {
        if (err == ERR_NONE)
            err = member_assign(list_entry(node, struct member, link), (struct slice){0});
    }
    for (uint32_t i = 0; i < request->assignment_count && err == ERR_NONE; i++) {
        struct member *member = member_find(group, request->assignments[i].member);
        if (member != NULL)
            err = member_assign(member, request->assignments[i].bytes);
    }
    return err;
}

static void become_stable(struct group *group)
{
    group->state = GROUP_STABLE;
    list_each(node, &group->members)
    {
        struct member *member = list_entry(node, struct member, link);
        if (member->waits != WAIT_SYNC)
            continue;
        member->waits = WAIT_NOTHING;
        reply_sync(group, &member->asker, member);
        group_member_alive(member);
    }
}

void group_sync(struct group *group, const struct command *command)
{
    const struct group_request *request = command->parts->root;
    struct member *member = NULL;
    enum err err = sync_check(group, request, &member);
    if (err == ERR_NONE && group->state == GROUP_COMPLETING && member == group->leader)
        err = assign(group, request);
    if (err != ERR_NONE) {
        reply_plain(cell_of_group(group), command, err);
        return;
    }
    member->unsynced = false;
    if (group->state == GROUP_STABLE) {
        reply_sync(group, &command->asker, member);
        group_member_alive(member);
        return;
    }
    end_wait(member, ERR_REBALANCING); /* of an older request */
    member->waits = WAIT_SYNC;
    member->asker = command->asker;
    if (member == group->leader)
        become_stable(group);
}

void group_heartbeat(struct group *group, const struct command *command)
{
    const struct group_request *request = command->parts->root;
    struct member *member = NULL;
    enum err err = group_member_check(group, request, &member);
    if (err == ERR_NONE && request->generation != group->generation)
        err = ERR_ILLEGAL_GENERATION;
    if (err == ERR_NONE) {
        group_member_alive(member);
        if (group->state == GROUP_PREPARING)
            err = ERR_REBALANCING;
    }
    reply_plain(cell_of_group(group), command, err);
}

/* ---- LEAVE ---- */

static enum err leave_one(struct group *group, const struct group_leaver *leaver, bool *any)
{
    struct pending_member *pending =
        leaver->member.len > 0 ? find_pending(group, leaver->member) : NULL;
    if (pending != NULL) {
        forget_pending(pending);
        *any = true;
        return ERR_NONE;
    }
    struct member *member = NULL;
    if (leaver->member.len == 0 && leaver->instance.data != NULL) {
        member = member_by_instance(group, leaver->instance); /* an administrator's way */
        if (member == NULL)
            return ERR_UNKNOWN_MEMBER;
    } else {
        struct group_request check = {.member = leaver->member, .instance = leaver->instance};
        enum err err = group_member_check(group, &check, &member);
        if (err != ERR_NONE)
            return err;
    }
    remove_member(member, ERR_UNKNOWN_MEMBER);
    *any = true;
    return ERR_NONE;
}

void group_leave(struct group *group, const struct command *command)
{
    const struct group_request *request = command->parts->root;
    struct reply reply;
    reply_init(&reply, &command->asker, GROUP_LEAVE, ERR_NONE);
    struct group_leaver *leavers = reply_array(&reply, request->leaver_count, sizeof *leavers);
    bool any = false;
    for (uint32_t i = 0; i < request->leaver_count; i++) {
        const struct group_leaver *leaver = &request->leavers[i];
        enum err err = leave_one(group, leaver, &any);
        struct slice member = reply_copy(&reply, leaver->member);
        struct slice instance = reply_copy(&reply, leaver->instance);
        if (reply.answer != NULL)
            leavers[i] = (struct group_leaver){member, instance, err};
    }
    if (any)
        rebalance_or_complete(group);
    if (reply.answer != NULL) {
        reply.answer->leavers = leavers;
        reply.answer->leaver_count = request->leaver_count;
    }
    reply_send(cell_of_group(group), &reply, false);
}
