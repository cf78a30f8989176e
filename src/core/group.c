/* The groups of a cell: finding them, checking requests, and what is stored: committed offsets. A
 * commit is a record; so are the deletion of offsets and of a group. What a checkpoint stores of a
 * group are its offsets, and nothing when there are none.
 *
 * Records: u8 kind, u16+name of the group, then
 *   COMMIT  i64 time, u32 count, count x {u16+topic, u32 partition, i64 offset, i32 epoch,
 * u16+metadata} FORGET  u32 count, count x {u16+topic, u32 partition} DELETE  nothing Stored: u64
 * position that it reflects, u16+name, offsets (group_offsets.c). */
#include "core/catalog_change.h"
#include "core/group_state.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

enum { GROUP_RECORD_COMMIT = 1, GROUP_RECORD_FORGET, GROUP_RECORD_DELETE };

uint64_t group_object(struct slice name)
{
    uint64_t hash = XXH3_64bits(name.data, name.len);
    return hash != 0 ? hash : 1;
}

/* ---- Life ---- */

struct groups *groups_create(struct cell *cell)
{
    struct groups *groups = calloc(1, sizeof *groups);
    if (groups == NULL)
        return NULL;
    groups->cell = cell;
    list_init(&groups->idle);
    return groups;
}

static void group_free(struct group *group)
{
    group_abandon_members(group);
    list_remove(&group->tracked.link);
    if (!list_empty(&group->idle))
        group->groups->idle_count--;
    list_remove(&group->idle);
    offsets_done(&group->offsets);
    table_done(&group->by_id);
    free((void *)(uintptr_t)group->protocol_type.data);
    free((void *)(uintptr_t)group->protocol.data);
    free(group);
}

void groups_destroy(struct groups *groups)
{
    uint32_t at = 0;
    for (struct map_slot *slot; (slot = map_next(&groups->by_id, &at)) != NULL;)
        group_free(slot->value);
    map_done(&groups->by_id);
    free(groups);
}

/* NULL: there is none. */
static struct group *find(const struct groups *groups, struct slice name)
{
    struct group *group = map_get(&groups->by_id, group_object(name));
    return group != NULL && !group->gone && slice_equal(group->name, name) ? group : NULL;
}

/* ERR_INVALID_GROUP_ID: another group has that very hash. */
static enum err enter(struct groups *groups, struct slice name, struct group **out)
{
    uint64_t id = group_object(name);
    struct group *group = map_get(&groups->by_id, id);
    if (group != NULL && !slice_equal(group->name, name))
        return ERR_INVALID_GROUP_ID;
    if (group == NULL) {
        group = calloc(1, sizeof *group + name.len);
        if (group == NULL || !map_put(&groups->by_id, id, group)) {
            free(group);
            return ERR_NO_MEMORY;
        }
        if (name.len > 0)
            memcpy(group + 1, name.data, name.len);
        group->name = slice_make(group + 1, name.len);
        group->groups = groups;
        group->tracked.kind = OBJECT_GROUP;
        group->tracked.id = id;
        list_init(&group->tracked.link);
        list_init(&group->idle);
        list_init(&group->members);
        list_init(&group->pending);
    }
    group->gone = false;
    *out = group;
    return ERR_NONE;
}

/* Forgets the groups that were left alone longest; a stored form must be deleted first. */
static void evict(struct groups *groups, const struct group *spared)
{
    list_each(node, &groups->idle)
    {
        struct group *group = list_entry(node, struct group, idle);
        if (groups->idle_count <= GROUP_IDLE_MAX)
            return;
        if (group == spared || !list_empty(&group->tracked.link))
            continue;
        map_take(&groups->by_id, group->tracked.id);
        group_free(group);
    }
}

void group_settle(struct group *group)
{
    struct groups *groups = group->groups;
    bool idle =
        group->state == GROUP_EMPTY && group->pending_count == 0 && group->offsets.count == 0;
    if (idle == !list_empty(&group->idle))
        return;
    if (!idle) {
        list_remove(&group->idle);
        groups->idle_count--;
        return;
    }
    list_insert(&groups->idle, &group->idle);
    groups->idle_count++;
    evict(groups, group);
}

/* ---- Stored ---- */

static struct slice read_text(struct reader *reader)
{
    return reader_slice(reader, reader_u16(reader));
}

static enum err apply_commit(struct group *group, struct reader *reader)
{
    int64_t time_ms = reader_i64(reader);
    for (uint32_t count = reader_u32(reader); count > 0 && !reader->failed; count--) {
        struct group_offset offset = {.topic = read_text(reader)};
        offset.partition = reader_u32(reader);
        offset.offset = reader_i64(reader);
        offset.leader_epoch = reader_i32(reader);
        offset.metadata = read_text(reader);
        if (reader->failed)
            break;
        enum err err = offsets_set(&group->offsets, &offset, time_ms);
        if (err != ERR_NONE)
            return err;
    }
    return reader->failed ? ERR_CORRUPT : ERR_NONE;
}

static enum err apply_forget(struct group *group, struct reader *reader)
{
    for (uint32_t count = reader_u32(reader); count > 0 && !reader->failed; count--) {
        struct slice topic = read_text(reader);
        uint32_t partition = reader_u32(reader);
        if (!reader->failed)
            offsets_remove(&group->offsets, topic, partition);
    }
    return reader->failed ? ERR_CORRUPT : ERR_NONE;
}

static enum err apply_delete(struct group *group)
{
    offsets_done(&group->offsets);
    group->gone = true;
    group->generation = 0;
    return ERR_NONE;
}

enum err groups_apply(struct groups *groups, const struct record *record, uint64_t pos)
{
    struct reader reader = reader_over(record->bytes);
    uint8_t kind = reader_u8(&reader);
    struct slice name = read_text(&reader);
    if (reader.failed || name.len > GROUP_NAME_BYTES_MAX)
        return ERR_CORRUPT;
    struct group *group;
    enum err err = enter(groups, name, &group);
    if (err != ERR_NONE)
        return err == ERR_NO_MEMORY ? err : ERR_CORRUPT;
    if (pos < group->reflects)
        return ERR_NONE;
    cell_touch(groups->cell, &group->tracked);
    if (kind == GROUP_RECORD_COMMIT)
        err = apply_commit(group, &reader);
    else if (kind == GROUP_RECORD_FORGET)
        err = apply_forget(group, &reader);
    else if (kind == GROUP_RECORD_DELETE)
        err = apply_delete(group);
    else
        err = ERR_CORRUPT;
    if (err == ERR_NONE)
        group_settle(group);
    return err;
}

enum err groups_restore(struct groups *groups, uint64_t id, struct slice value)
{
    struct reader reader = reader_over(value);
    uint64_t reflects = reader_u64(&reader);
    struct slice name = read_text(&reader);
    if (reader.failed || name.len > GROUP_NAME_BYTES_MAX || group_object(name) != id)
        return ERR_CORRUPT;
    struct group *group;
    enum err err = enter(groups, name, &group);
    if (err != ERR_NONE)
        return err;
    group->reflects = reflects;
    err = offsets_decode(&group->offsets, &reader);
    if (err == ERR_NONE && reader_left(&reader) > 0)
        err = ERR_CORRUPT;
    return err;
}

bool groups_encode(struct groups *groups, struct tracked *tracked, struct slice *value,
                   uint64_t reflects)
{
    const struct group *group = list_entry(tracked, struct group, tracked);
    if (group->offsets.count == 0) {
        *value = (struct slice){0}; /* nothing to store */
        return true;
    }
    size_t size = 8 + 2 + group->name.len + offsets_size(&group->offsets);
    uint8_t *bytes = cell_object_space(groups->cell, size);
    if (bytes == NULL)
        return false;
    struct writer writer = writer_over(bytes, size);
    writer_u64(&writer, reflects);
    writer_u16(&writer, (uint16_t)group->name.len);
    writer_slice(&writer, group->name);
    offsets_encode(&group->offsets, &writer);
    assert(!writer.failed && writer.at == writer.end);
    *value = slice_make(bytes, size);
    return true;
}

/* ---- Records ---- */

/* A record being made: head, then items, of which `count` is filled in at the end. */
struct draft {
    struct group *group;
    uint8_t kind;
    uint8_t *bytes;
    size_t capacity;
    struct writer writer;
    uint8_t *count_at;
    uint32_t count;
};

static void draft_begin(struct draft *draft)
{
    draft->writer = writer_over(draft->bytes, draft->capacity);
    writer_u8(&draft->writer, draft->kind);
    writer_u16(&draft->writer, (uint16_t)draft->group->name.len);
    writer_slice(&draft->writer, draft->group->name);
    if (draft->kind == GROUP_RECORD_COMMIT)
        writer_i64(&draft->writer, draft->group->groups->cell->wall_ms);
    draft->count_at = draft->kind == GROUP_RECORD_DELETE ? NULL : writer_reserve(&draft->writer, 4);
    draft->count = 0;
}

static bool draft_init(struct draft *draft, struct group *group, uint8_t kind)
{
    *draft = (struct draft){.group = group, .kind = kind, .capacity = GROUP_RECORD_BYTES};
    draft->bytes = malloc(draft->capacity);
    if (draft->bytes == NULL)
        return false;
    draft_begin(draft);
    return true;
}

static enum err draft_append(struct draft *draft)
{
    if (draft->count_at != NULL)
        be32_put(draft->count_at, draft->count);
    struct record record = {.type = RECORD_GROUP};
    struct slice piece = slice_make(draft->bytes, (size_t)(draft->writer.at - draft->bytes));
    return cell_append(draft->group->groups->cell, &record, true, &piece, 1);
}

static enum err draft_add(struct draft *draft, const struct group_offset *offset)
{
    size_t need = 2 + offset->topic.len + 4 + 8 + 4 + 2 + offset->metadata.len;
    if (writer_left(&draft->writer) < need) {
        enum err err = draft_append(draft);
        if (err != ERR_NONE)
            return err;
        draft_begin(draft);
    }
    writer_u16(&draft->writer, (uint16_t)offset->topic.len);
    writer_slice(&draft->writer, offset->topic);
    writer_u32(&draft->writer, offset->partition);
    if (draft->kind == GROUP_RECORD_COMMIT) {
        writer_i64(&draft->writer, offset->offset);
        writer_i32(&draft->writer, offset->leader_epoch);
        writer_u16(&draft->writer, (uint16_t)offset->metadata.len);
        writer_slice(&draft->writer, offset->metadata);
    }
    assert(!draft->writer.failed);
    draft->count++;
    return ERR_NONE;
}

/* ---- COMMIT, FORGET, DELETE ---- */

static enum err commit_check(struct group *group, const struct group_request *request)
{
    bool outside =
        request->generation < 0 && request->member.len == 0 && request->instance.data == NULL;
    if (outside)
        return group == NULL || group->member_count == 0 ? ERR_NONE : ERR_UNKNOWN_MEMBER;
    struct member *member = NULL;
    enum err err = group_member_check(group, request, &member);
    if (err != ERR_NONE)
        return err;
    if (request->generation != group->generation)
        return ERR_ILLEGAL_GENERATION;
    if (group->state == GROUP_COMPLETING)
        return ERR_REBALANCING;
    group_member_alive(member);
    return ERR_NONE;
}

static enum err offset_check(const struct group *group, const struct group_offset *offset)
{
    if (offset->topic.len > CATALOG_NAME_BYTES_MAX)
        return ERR_INVALID;
    if (offset->metadata.len > GROUP_OFFSET_METADATA_BYTES_MAX)
        return ERR_TOO_LARGE;
    return group->offsets.count >= GROUP_OFFSETS_MAX ? ERR_TOO_LARGE : ERR_NONE;
}

/* Journals those of the request's offsets that pass; the rest is answered one by one. */
static enum err journal_offsets(struct group *group, const struct command *command, uint8_t kind,
                                enum err (*check)(const struct group *,
                                                  const struct group_offset *),
                                struct reply *reply)
{
    const struct group_request *request = command->parts->root;
    struct group_offset *out = reply_array(reply, request->offset_count, sizeof *out);
    struct draft draft;
    if (out == NULL || !draft_init(&draft, group, kind))
        return ERR_NO_MEMORY;
    enum err err = ERR_NONE;
    for (uint32_t i = 0; i < request->offset_count && err == ERR_NONE; i++) {
        const struct group_offset *offset = &request->offsets[i];
        out[i].partition = offset->partition;
        out[i].err = check(group, offset);
        if (out[i].err == ERR_NONE)
            err = draft_add(&draft, offset);
        out[i].topic = reply_copy(reply, offset->topic);
        if (reply->answer == NULL)
            err = ERR_NO_MEMORY;
    }
    if (err == ERR_NONE && draft.count > 0)
        err = draft_append(&draft);
    free(draft.bytes);
    if (err == ERR_NONE) {
        reply->answer->offsets = out;
        reply->answer->offset_count = request->offset_count;
    }
    return err;
}

static void answer_journaled(struct groups *groups, const struct command *command, enum err err,
                             struct reply *reply)
{
    if (err != ERR_NONE) {
        parts_destroy(reply->event.parts);
        reply_plain(groups->cell, command, err);
    } else {
        reply_send(groups->cell, reply, true);
    }
}

static void commit(struct groups *groups, const struct command *command)
{
    const struct group_request *request = command->parts->root;
    struct group *group = find(groups, request->group);
    enum err err = commit_check(group, request);
    if (err == ERR_NONE && group == NULL)
        err = enter(groups, request->group, &group);
    if (err != ERR_NONE) {
        reply_plain(groups->cell, command, err);
        return;
    }
    struct reply reply;
    reply_init(&reply, &command->asker, GROUP_COMMIT, ERR_NONE);
    err = journal_offsets(group, command, GROUP_RECORD_COMMIT, offset_check, &reply);
    answer_journaled(groups, command, err, &reply);
    group_settle(group);
}

static enum err forget_check(const struct group *group, const struct group_offset *offset)
{
    if (offset->topic.len > CATALOG_NAME_BYTES_MAX)
        return ERR_INVALID;
    return group_subscribes(group, offset->topic) ? ERR_SUBSCRIBED : ERR_NONE;
}

static void forget(struct groups *groups, const struct command *command)
{
    const struct group_request *request = command->parts->root;
    struct group *group = find(groups, request->group);
    bool others = group != NULL && group->member_count > 0 &&
                  !slice_equal(group->protocol_type, slice_of("consumer"));
    if (group == NULL || others) {
        reply_plain(groups->cell, command,
                    group == NULL ? ERR_GROUP_NOT_FOUND : ERR_GROUP_NOT_EMPTY);
        return;
    }
    struct reply reply;
    reply_init(&reply, &command->asker, GROUP_FORGET, ERR_NONE);
    enum err err = journal_offsets(group, command, GROUP_RECORD_FORGET, forget_check, &reply);
    answer_journaled(groups, command, err, &reply);
}

static void delete_group(struct groups *groups, const struct command *command)
{
    const struct group_request *request = command->parts->root;
    struct group *group = find(groups, request->group);
    if (group == NULL || group->state != GROUP_EMPTY || group->pending_count > 0) {
        reply_plain(groups->cell, command,
                    group == NULL ? ERR_GROUP_NOT_FOUND : ERR_GROUP_NOT_EMPTY);
        return;
    }
    struct draft draft;
    enum err err = ERR_NO_MEMORY;
    if (draft_init(&draft, group, GROUP_RECORD_DELETE)) {
        err = draft_append(&draft);
        free(draft.bytes);
    }
    struct reply reply;
    reply_init(&reply, &command->asker, GROUP_DELETE, err);
    reply_send(groups->cell, &reply, true);
}

/* ---- Requests ---- */

static enum err join_check(const struct group_request *request)
{
    if (request->session_timeout_ms < GROUP_SESSION_MS_MIN ||
        request->session_timeout_ms > GROUP_SESSION_MS_MAX)
        return ERR_INVALID_SESSION_TIMEOUT;
    if (request->protocol_count > GROUP_PROTOCOLS_MAX ||
        request->protocol_type.len > GROUP_NAME_BYTES_MAX)
        return ERR_INCONSISTENT_PROTOCOL;
    return ERR_NONE;
}

static enum err check(const struct group_request *request)
{
    bool member_op = request->op <= GROUP_LEAVE;
    if (request->group.len > GROUP_NAME_BYTES_MAX || (member_op && request->group.len == 0))
        return ERR_INVALID_GROUP_ID;
    if (request->instance.len > GROUP_NAME_BYTES_MAX)
        return ERR_INVALID;
    return request->op == GROUP_JOIN ? join_check(request) : ERR_NONE;
}

/* The first JOIN makes the group. */
static void join(struct groups *groups, const struct command *command)
{
    const struct group_request *request = command->parts->root;
    struct group *group = find(groups, request->group);
    enum err err = ERR_NONE;
    if (group == NULL)
        err = request->member.len > 0 ? ERR_UNKNOWN_MEMBER : enter(groups, request->group, &group);
    if (err != ERR_NONE) {
        reply_join_error(groups->cell, &command->asker, request->member, err);
        return;
    }
    group_join(groups, command);
    group_settle(group);
}

/* LEAVE of a group that is not there: every member is unknown, and that is no error of the whole.
 */
static void leave_nothing(struct groups *groups, const struct command *command)
{
    const struct group_request *request = command->parts->root;
    struct reply reply;
    reply_init(&reply, &command->asker, GROUP_LEAVE, ERR_NONE);
    struct group_leaver *leavers = reply_array(&reply, request->leaver_count, sizeof *leavers);
    for (uint32_t i = 0; i < request->leaver_count && leavers != NULL; i++)
        leavers[i].err = ERR_UNKNOWN_MEMBER;
    if (leavers != NULL) {
        reply.answer->leavers = leavers;
        reply.answer->leaver_count = request->leaver_count;
    }
    reply_send(groups->cell, &reply, false);
}

static void member_request(struct groups *groups, const struct command *command)
{
    const struct group_request *request = command->parts->root;
    struct group *group = find(groups, request->group);
    if (group == NULL && request->op == GROUP_LEAVE) {
        leave_nothing(groups, command);
    } else if (group == NULL) {
        reply_plain(groups->cell, command, ERR_UNKNOWN_MEMBER);
    } else {
        if (request->op == GROUP_SYNC)
            group_sync(group, command);
        else if (request->op == GROUP_HEARTBEAT)
            group_heartbeat(group, command);
        else
            group_leave(group, command);
        group_settle(group);
    }
}

static void dispatch(struct groups *groups, const struct command *command)
{
    const struct group_request *request = command->parts->root;
    struct group *group;
    switch (request->op) {
    case GROUP_JOIN:
        join(groups, command);
        return;
    case GROUP_SYNC:
    case GROUP_HEARTBEAT:
    case GROUP_LEAVE:
        member_request(groups, command);
        return;
    case GROUP_COMMIT:
        commit(groups, command);
        return;
    case GROUP_OFFSETS:
        reply_offsets(find(groups, request->group), groups->cell, command);
        return;
    case GROUP_DESCRIBE:
        group = find(groups, request->group);
        if (group == NULL)
            reply_plain(groups->cell, command, ERR_GROUP_NOT_FOUND);
        else
            reply_describe(group, command);
        return;
    case GROUP_LIST:
        reply_list(groups, command);
        return;
    case GROUP_DELETE:
        delete_group(groups, command);
        return;
    case GROUP_FORGET:
        forget(groups, command);
        return;
    }
    reply_plain(groups->cell, command, ERR_INVALID);
}

void groups_command(struct groups *groups, const struct command *command)
{
    assert(command->parts != NULL);
    const struct group_request *request = command->parts->root;
    enum err err = groups->cell->failure != ERR_NONE ? groups->cell->failure : check(request);
    if (err == ERR_NONE)
        dispatch(groups, command);
    else if (request->op == GROUP_JOIN)
        reply_join_error(groups->cell, &command->asker, request->member, err);
    else
        reply_plain(groups->cell, command, err);
    parts_destroy(command->parts);
}
