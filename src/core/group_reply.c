/* Answers: each stands in an arena of its own, because it may travel to another shard. */
#include "core/group_state.h"

#include <stdlib.h>
#include <string.h>

enum { REPLY_BYTES_MAX = 64 << 20 };

static const char *const state_names[] = {
    [GROUP_EMPTY] = "Empty",
    [GROUP_PREPARING] = "PreparingRebalance",
    [GROUP_COMPLETING] = "CompletingRebalance",
    [GROUP_STABLE] = "Stable",
};

static void fail(struct reply *reply)
{
    parts_destroy(reply->event.parts);
    reply->event.parts = NULL;
    reply->event.err = ERR_NO_MEMORY;
    reply->answer = NULL;
}

void reply_init(struct reply *reply, const struct asker *asker, enum group_op op, enum err err)
{
    *reply = (struct reply){.event = {.type = EVENT_ANSWER, .err = err, .asker = *asker}};
    reply->event.parts = parts_create(REPLY_BYTES_MAX);
    if (reply->event.parts != NULL)
        reply->answer = arena_alloc(&reply->event.parts->arena, sizeof *reply->answer);
    if (reply->answer == NULL) {
        fail(reply);
        return;
    }
    *reply->answer = (struct group_answer){.op = op, .generation = -1};
    reply->event.parts->root = reply->answer;
}

void *reply_array(struct reply *reply, size_t count, size_t size)
{
    if (reply->answer == NULL)
        return NULL;
    void *memory = arena_array(&reply->event.parts->arena, count, size);
    if (memory == NULL)
        fail(reply);
    else
        memset(memory, 0, count * size);
    return memory;
}

struct slice reply_copy(struct reply *reply, struct slice slice)
{
    if (slice.data == NULL)
        return slice;
    uint8_t *copy = reply_array(reply, slice.len, 1);
    if (copy == NULL)
        return (struct slice){0};
    if (slice.len > 0)
        memcpy(copy, slice.data, slice.len);
    return slice_make(copy, slice.len);
}

void reply_send(struct cell *cell, struct reply *reply, bool durable)
{
    if (reply->event.err != ERR_NONE)
        reply->event.detail = slice_of(err_text(reply->event.err));
    if (reply->event.asker.conn == 0)
        parts_destroy(reply->event.parts);
    else
        cell_answer(cell, &reply->event, durable);
}

void reply_plain(struct cell *cell, const struct command *command, enum err err)
{
    const struct group_request *request = command->parts->root;
    struct reply reply;
    reply_init(&reply, &command->asker, request->op, err);
    reply_send(cell, &reply, false);
}

/* ---- Members ---- */

static void put_member(struct reply *reply, const struct group *group, const struct member *member,
                       struct group_member *out)
{
    out->id = reply_copy(reply, member->id);
    out->instance = reply_copy(reply, member->instance);
    const struct group_protocol *protocol = member_protocol(member, group->protocol);
    out->metadata = reply_copy(reply, protocol != NULL ? protocol->metadata : slice_of(""));
}

void reply_join(struct group *group, const struct asker *asker, const struct member *member,
                struct slice leader, bool everyone, bool skip_assignment)
{
    struct reply reply;
    reply_init(&reply, asker, GROUP_JOIN, ERR_NONE);
    struct slice type = reply_copy(&reply, group->protocol_type);
    struct slice protocol = reply_copy(&reply, group->protocol);
    struct slice leader_id = reply_copy(&reply, leader);
    struct slice id = reply_copy(&reply, member->id);
    uint32_t count = everyone ? group->member_count : 0, i = 0;
    struct group_member *members = reply_array(&reply, count, sizeof *members);
    list_each(node, &group->members)
    {
        if (i < count && reply.answer != NULL)
            put_member(&reply, group, list_entry(node, struct member, link), &members[i++]);
    }
    if (reply.answer != NULL) {
        struct group_answer *answer = reply.answer;
        answer->generation = group->generation;
        answer->protocol_type = type;
        answer->protocol = protocol;
        answer->leader = leader_id;
        answer->member = id;
        answer->skip_assignment = skip_assignment;
        answer->members = members;
        answer->member_count = count;
    }
    reply_send(group->groups->cell, &reply, false);
}

void reply_join_error(struct cell *cell, const struct asker *asker, struct slice member,
                      enum err err)
{
    struct reply reply;
    reply_init(&reply, asker, GROUP_JOIN, err);
    struct slice id = reply_copy(&reply, member);
    if (reply.answer != NULL)
        reply.answer->member = id;
    reply_send(cell, &reply, false);
}

void reply_sync(struct group *group, const struct asker *asker, const struct member *member)
{
    struct reply reply;
    reply_init(&reply, asker, GROUP_SYNC, ERR_NONE);
    struct slice type = reply_copy(&reply, group->protocol_type);
    struct slice protocol = reply_copy(&reply, group->protocol);
    struct slice assignment =
        reply_copy(&reply, member->assignment.data != NULL ? member->assignment : slice_of(""));
    if (reply.answer != NULL) {
        reply.answer->generation = group->generation;
        reply.answer->protocol_type = type;
        reply.answer->protocol = protocol;
        reply.answer->assignment = assignment;
    }
    reply_send(group->groups->cell, &reply, false);
}

/* ---- Looking at groups ---- */

static void put_description(struct reply *reply, const struct group *group,
                            struct group_description *out)
{
    out->name = reply_copy(reply, group->name);
    out->state = slice_of(state_names[group->state]);
    out->protocol_type = reply_copy(reply, group->protocol_type);
}

static void put_members(struct reply *reply, const struct group *group,
                        struct group_description *out)
{
    struct group_member *members = reply_array(reply, group->member_count, sizeof *members);
    uint32_t count = 0;
    bool stable = group->state == GROUP_STABLE;
    list_each(node, &group->members)
    {
        const struct member *member = list_entry(node, struct member, link);
        if (reply->answer == NULL)
            return;
        struct group_member *to = &members[count++];
        put_member(reply, group, member, to);
        to->client_id = reply_copy(reply, member->client_id);
        to->client_host = reply_copy(reply, member->client_host);
        if (stable)
            to->assignment = reply_copy(reply, member->assignment);
        else
            to->metadata = slice_of("");
    }
    out->members = members;
    out->member_count = count;
    if (stable)
        out->protocol = reply_copy(reply, group->protocol);
}

void reply_describe(struct group *group, const struct command *command)
{
    struct reply reply;
    reply_init(&reply, &command->asker, GROUP_DESCRIBE, ERR_NONE);
    struct group_description *out = reply_array(&reply, 1, sizeof *out);
    if (out != NULL) {
        put_description(&reply, group, out);
        put_members(&reply, group, out);
    }
    if (reply.answer != NULL) {
        reply.answer->groups = out;
        reply.answer->group_count = 1;
    }
    reply_send(group->groups->cell, &reply, false);
}

void reply_list(struct groups *groups, const struct command *command)
{
    struct reply reply;
    reply_init(&reply, &command->asker, GROUP_LIST, ERR_NONE);
    struct group_description *out = reply_array(&reply, groups->by_id.count, sizeof *out);
    uint32_t count = 0, at = 0;
    for (struct map_slot *slot;
         reply.answer != NULL && (slot = map_next(&groups->by_id, &at)) != NULL;) {
        const struct group *group = slot->value;
        if (!group->gone)
            put_description(&reply, group, &out[count++]);
    }
    if (reply.answer != NULL) {
        reply.answer->groups = out;
        reply.answer->group_count = count;
    }
    reply_send(groups->cell, &reply, false);
}

/* ---- Offsets ---- */

static void put_offset(struct reply *reply, struct slice topic, uint32_t partition,
                       const struct committed *committed, struct group_offset *out)
{
    *out = (struct group_offset){
        .topic = reply_copy(reply, topic),
        .partition = partition,
        .offset = committed != NULL ? committed->offset : -1,
        .leader_epoch = committed != NULL ? committed->leader_epoch : -1,
        .metadata = slice_of(""),
    };
    if (committed != NULL && committed->metadata.len > 0)
        out->metadata = reply_copy(reply, committed->metadata);
}

static void put_all(struct reply *reply, const struct offsets *offsets, struct group_offset *out)
{
    uint32_t at = 0, count = 0;
    for (const struct offsets_topic *topic; (topic = table_walk(&offsets->topics, &at)) != NULL;) {
        for (uint32_t i = 0; i < topic->count && reply->answer != NULL; i++) {
            const struct committed *committed = &topic->items[i];
            put_offset(reply, topic->name, committed->partition, committed, &out[count++]);
        }
    }
}

void reply_offsets(const struct group *group, struct cell *cell, const struct command *command)
{
    static const struct offsets none = {0};
    const struct group_request *request = command->parts->root;
    const struct offsets *offsets = group != NULL ? &group->offsets : &none;
    struct reply reply;
    reply_init(&reply, &command->asker, GROUP_OFFSETS, ERR_NONE);
    uint32_t count = request->all ? offsets->count : request->offset_count;
    struct group_offset *out = reply_array(&reply, count, sizeof *out);
    if (out != NULL && request->all)
        put_all(&reply, offsets, out);
    for (uint32_t i = 0; !request->all && reply.answer != NULL && i < count; i++) {
        const struct group_offset *asked = &request->offsets[i];
        put_offset(&reply, asked->topic, asked->partition,
                   offsets_find(offsets, asked->topic, asked->partition), &out[i]);
    }
    if (reply.answer != NULL) {
        reply.answer->offsets = out;
        reply.answer->offset_count = count;
    }
    reply_send(cell, &reply, false);
}
