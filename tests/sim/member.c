/* A member of a consumer group: joins, is assigned partitions by the leader, commits offsets for
 * those it owns, leaves, and joins again when it is told to. Nobody owns a partition twice in one
 * generation, and a generation that is over commits nothing. */
#include "clients_inside.h"

#include "alloc.h"
#include "base/endian.h"

#include <stdio.h>
#include <string.h>

enum {
    TAG_JOIN = 1,
    TAG_SYNC,
    TAG_HEARTBEAT,
    TAG_LEAVE,
    TAG_FETCH = 16,
    TAG_COMMIT = 32,
    TAG_LATE = 64
};
enum { ASSIGNMENT_BYTES = 4 + MODEL_TOPIC_PARTITIONS };

static const char GROUP[] = "members";

static struct parts *make_request(const struct member_probe *self, enum group_op op,
                                  struct group_request **out)
{
    alloc_hold();
    struct parts *parts = parts_create(1 << 16);
    struct group_request *request = arena_alloc(&parts->arena, sizeof *request);
    char *id = arena_alloc(&parts->arena, MEMBER_ID_MAX);
    alloc_release();
    memcpy(id, self->id, MEMBER_ID_MAX);
    *request = (struct group_request){.op = op,
                                      .group = slice_of(GROUP),
                                      .member = slice_of(id),
                                      .client_id = slice_of("sim"),
                                      .client_host = slice_of("sim"),
                                      .generation = self->generation};
    parts->root = request;
    *out = request;
    return parts;
}

/* The answer to what is asked now comes with the newest generation that anybody knew of then. */
static void ask(struct member_probe *self, uint64_t tag, struct parts *parts)
{
    struct command command = {
        .type = COMMAND_GROUP,
        .asker = {.tag = tag | (uint64_t)(uint32_t)self->clients->generation << 32},
        .object = group_object(slice_of(GROUP)),
        .parts = parts,
    };
    conn_command(self->probe.conn, &command);
}

static void join(struct member_probe *self)
{
    struct world *world = self->probe.world;
    struct group_request *request;
    struct parts *parts = make_request(self, GROUP_JOIN, &request);
    alloc_hold();
    struct group_protocol *protocol = arena_alloc(&parts->arena, sizeof *protocol);
    uint8_t *metadata = arena_alloc(&parts->arena, 1);
    alloc_release();
    *metadata = (uint8_t)self->number;
    *protocol = (struct group_protocol){slice_of("sim"), slice_make(metadata, 1)};
    request->protocol_type = slice_of("consumer");
    request->protocols = protocol;
    request->protocol_count = 1;
    request->session_timeout_ms = 6000;
    request->rebalance_timeout_ms = 2000;
    request->require_member_id = world_random(world, 2) == 0;
    request->random[0] = conn_random(self->probe.conn);
    request->random[1] = conn_random(self->probe.conn);
    self->joining = true;
    world->totals->joined++;
    world_tell(world, "%s joins as '%s'", self->probe.name, self->id);
    ask(self, TAG_JOIN, parts);
}

/* The leader says who owns what: each partition one of the members. */
static void plan(struct member_probe *self, const struct group_answer *answer, struct arena *arena,
                 struct group_request *request)
{
    struct group_assignment *assignments =
        arena_alloc(arena, answer->member_count * sizeof *assignments);
    uint8_t *bytes = arena_alloc(arena, answer->member_count * ASSIGNMENT_BYTES);
    memset(bytes, 0, answer->member_count * ASSIGNMENT_BYTES);
    for (uint32_t i = 0; i < answer->member_count; i++) {
        const struct group_member *member = &answer->members[i];
        uint8_t *id = arena_alloc(arena, member->id.len);
        memcpy(id, member->id.data, member->id.len);
        uint8_t *at = bytes + (size_t)i * ASSIGNMENT_BYTES;
        be32_put(at, (uint32_t)self->generation);
        assignments[i] = (struct group_assignment){slice_make(id, member->id.len),
                                                   slice_make(at, ASSIGNMENT_BYTES)};
    }
    for (uint32_t p = 0; p < MODEL_TOPIC_PARTITIONS; p++) {
        uint32_t i = world_random(self->probe.world, answer->member_count);
        bytes[(size_t)i * ASSIGNMENT_BYTES + 4 + p] = 1;
    }
    request->assignments = assignments;
    request->assignment_count = answer->member_count;
}

static void synchronize(struct member_probe *self, const struct group_answer *answer)
{
    struct group_request *request;
    struct parts *parts = make_request(self, GROUP_SYNC, &request);
    alloc_hold();
    if (answer->member_count > 0)
        plan(self, answer, &parts->arena, request);
    alloc_release();
    self->syncing = true;
    ask(self, TAG_SYNC, parts);
}

static void leave(struct member_probe *self)
{
    struct group_request *request;
    struct parts *parts = make_request(self, GROUP_LEAVE, &request);
    alloc_hold();
    struct group_leaver *leaver = arena_alloc(&parts->arena, sizeof *leaver);
    alloc_release();
    *leaver = (struct group_leaver){.member = request->member};
    request->leavers = leaver;
    request->leaver_count = 1;
    world_tell(self->probe.world, "%s leaves", self->probe.name);
    ask(self, TAG_LEAVE, parts);
    self->stable = false;
    self->id[0] = '\0';
}

static void commit(struct member_probe *self, uint32_t partition)
{
    struct commits *commits = &self->clients->group_commits[partition];
    if (!self->owns[partition] || self->committing[partition] >= 0)
        return;
    int64_t value = commits_send(commits);
    if (value < 0)
        return;
    self->committing[partition] = value;
    world_tell(self->probe.world, "%s commits offset %lld of partition %u, generation %d",
               self->probe.name, (long long)value, partition, self->generation);
    offsets_ask(&self->probe,
                (TAG_COMMIT + partition) | (uint64_t)(uint32_t)self->clients->generation << 32,
                GROUP_COMMIT, GROUP, self->id, self->generation, partition, value);
}

/* As one would that has missed a rebalance. */
static void commit_late(struct member_probe *self)
{
    int64_t value = commits_send(&self->clients->group_commits[0]);
    if (value >= 0)
        offsets_ask(&self->probe, TAG_LATE, GROUP_COMMIT, GROUP, self->id, self->generation - 1, 0,
                    value);
}

void member_fetch(struct member_probe *self, uint32_t partition)
{
    offsets_ask(&self->probe, TAG_FETCH + partition, GROUP_OFFSETS, GROUP, "", -1, partition, 0);
}

static void act(struct probe *probe)
{
    struct member_probe *self = (struct member_probe *)probe;
    struct world *world = probe->world;
    struct group_request *request;
    if (!self->clients->working)
        return;
    uint32_t dice = world_random(world, 16);
    if (!self->stable) {
        if ((!self->joining && !self->syncing) || dice == 0)
            join(self);
    } else if (dice == 0) {
        leave(self);
    } else if (dice < 6) {
        world->totals->heartbeats++;
        ask(self, TAG_HEARTBEAT, make_request(self, GROUP_HEARTBEAT, &request));
    } else if (dice == 6) {
        commit_late(self);
    } else if (dice < 13) {
        commit(self, dice % MODEL_TOPIC_PARTITIONS);
    } else {
        member_fetch(self, dice % MODEL_TOPIC_PARTITIONS);
    }
}

/* ---- Answers ---- */

static void joined(struct member_probe *self, const struct event *event)
{
    struct world *world = self->probe.world;
    const struct group_answer *answer = event->parts->root;
    self->joining = false;
    if (answer->member.len >= MEMBER_ID_MAX) {
        world_wrong(world, "%s: a member's id of %zu bytes", self->probe.name, answer->member.len);
        return;
    }
    memcpy(self->id, answer->member.data, answer->member.len);
    self->id[answer->member.len] = '\0';
    if (event->err != ERR_NONE)
        return;
    self->stable = false; /* what it owned was another generation's */
    self->generation = answer->generation;
    if (self->clients->generation < answer->generation)
        self->clients->generation = answer->generation;
    bool leads = slice_equal(answer->leader, answer->member);
    if (leads != (answer->member_count > 0))
        world_wrong(world, "%s: %s and is told of %u members", self->probe.name,
                    leads ? "leads" : "does not lead", answer->member_count);
    world_tell(world, "%s is in generation %d%s", self->probe.name, self->generation,
               leads ? " and leads" : "");
    synchronize(self, answer);
}

static void synced(struct member_probe *self, const struct group_answer *answer)
{
    struct world *world = self->probe.world;
    struct slice bytes = answer->assignment;
    self->syncing = false;
    if (bytes.len != ASSIGNMENT_BYTES || be32_get(bytes.data) != (uint32_t)self->generation) {
        world_wrong(world, "%s: an assignment that is not of generation %d", self->probe.name,
                    self->generation);
        return;
    }
    self->stable = true;
    world->totals->synced++;
    for (uint32_t p = 0; p < MODEL_TOPIC_PARTITIONS; p++) {
        self->owns[p] = bytes.data[4 + p] == 1;
        for (uint32_t i = 0; i < MEMBERS && self->owns[p]; i++) {
            const struct member_probe *other = &self->clients->members[i];
            if (other != self && other->stable && other->generation == self->generation &&
                other->owns[p])
                world_wrong(world, "generation %d: partition %u has two owners", self->generation,
                            p);
        }
    }
}

static void succeeded(struct member_probe *self, uint32_t tag, int32_t known,
                      const struct event *event)
{
    struct clients *clients = self->clients;
    struct world *world = self->probe.world;
    const struct group_answer *answer = event->parts->root;
    bool stands = tag == TAG_HEARTBEAT || tag >= TAG_COMMIT;
    if (stands && answer->op != GROUP_JOIN && self->generation < known && self->stable)
        world_wrong(world, "%s acts in generation %d although %d was there", self->probe.name,
                    self->generation, known);
    if (tag >= TAG_COMMIT) {
        uint32_t p = tag - TAG_COMMIT;
        if (self->committing[p] < 0)
            return;
        if (answer->offset_count != 1 || answer->offsets[0].err != ERR_NONE)
            world_wrong(world, "%s: a commit is neither done nor refused", self->probe.name);
        commits_acked(&clients->group_commits[p], self->committing[p]);
        self->committing[p] = -1;
        world->totals->committed++;
    } else if (tag >= TAG_FETCH) {
        uint32_t p = tag - TAG_FETCH;
        int64_t value = answer->offset_count == 1 ? answer->offsets[0].offset : -1;
        commits_check(world, &clients->group_commits[p], "the group", value);
        world->totals->fetched++;
    } else if (tag == TAG_JOIN) {
        joined(self, event);
    } else if (tag == TAG_SYNC && self->syncing) {
        synced(self, answer);
    }
}

static void failed(struct member_probe *self, uint32_t tag, const struct event *event)
{
    struct world *world = self->probe.world;
    enum err err = event->parts == NULL ? ERR_NO_MEMORY : event->err;
    world_tell(world, "%s is told: %s", self->probe.name, err_text(err));
    if (tag >= TAG_COMMIT)
        self->committing[tag - TAG_COMMIT] = -1;
    if (tag == TAG_LEAVE || (tag >= TAG_FETCH && tag < TAG_COMMIT && err == ERR_GROUP_NOT_FOUND))
        return;
    self->joining = self->joining && tag != TAG_JOIN;
    self->syncing = self->syncing && tag != TAG_SYNC;
    if (tag >= TAG_FETCH && world_excuses(world, err))
        return;
    self->stable = false;
    if (err == ERR_MEMBER_ID_REQUIRED) {
        joined(self, event);
    } else if (err == ERR_UNKNOWN_MEMBER) {
        self->id[0] = '\0';
    } else if (err == ERR_REBALANCING) {
        world->totals->rebalances++;
    } else if (err != ERR_ILLEGAL_GENERATION && !world_excuses(world, err)) {
        world_wrong(world, "%s: %s", self->probe.name, err_text(err));
    }
}

static void event(struct probe *probe, const struct event *event)
{
    struct member_probe *self = (struct member_probe *)probe;
    uint32_t tag = (uint32_t)event->asker.tag;
    int32_t known = (int32_t)(event->asker.tag >> 32);
    if (event->type != EVENT_ANSWER)
        return;
    if (tag == TAG_LATE) {
        if (event->err == ERR_NONE)
            world_wrong(probe->world, "%s: a generation that is over has committed", probe->name);
        return;
    }
    if (event->err != ERR_NONE || event->parts == NULL)
        failed(self, tag, event);
    else
        succeeded(self, tag, known, event);
}

static void lost(struct probe *probe)
{
    struct member_probe *self = (struct member_probe *)probe;
    self->joining = self->syncing = false;
    for (uint32_t p = 0; p < MODEL_TOPIC_PARTITIONS; p++)
        self->committing[p] = -1;
}

static void opened(struct probe *probe)
{
    lost(probe);
}

void member_init(struct member_probe *member, uint32_t number)
{
    static const char *const names[MEMBERS] = {"member 0", "member 1"};
    member->number = number;
    member->probe.name = names[number];
    member->probe.opened = opened;
    member->probe.act = act;
    member->probe.event = event;
    member->probe.lost = lost;
}
