/* Consumer groups of one cell: membership with generations (lost at a restart without harm: members
 * join again) and committed offsets (durable). The rules are those of Kafka's classic group
 * protocol. A group lives in the cell that group_object of its name gives.
 *
 * COMMAND_GROUP carries a struct group_request as parts->root; the answer (EVENT_ANSWER, at once or
 * when a rebalance completes) carries a struct group_answer, which is missing only when memory is
 * exhausted. */
#ifndef WEIR_CORE_GROUP_H
#define WEIR_CORE_GROUP_H

#include "core/command.h"
#include "gen/err.h"

#include <stdbool.h>
#include <stdint.h>

enum group_op {
    GROUP_JOIN,
    GROUP_SYNC,
    GROUP_HEARTBEAT,
    GROUP_LEAVE,
    GROUP_COMMIT,
    GROUP_OFFSETS, /* fetch committed offsets */
    GROUP_DESCRIBE,
    GROUP_LIST, /* all groups of the cell command.object % cells */
    GROUP_DELETE,
    GROUP_FORGET, /* delete committed offsets of some partitions */
};

struct group_protocol {
    struct slice name, metadata;
};

struct group_assignment {
    struct slice member, bytes;
};

/* A partition's committed offset; also names a partition where only that is meant. */
struct group_offset {
    struct slice topic;
    uint32_t partition;
    int64_t offset; /* -1 = none */
    int32_t leader_epoch;
    struct slice metadata;
    enum err err; /* answers */
};

struct group_leaver {
    struct slice member, instance; /* instance.data NULL = none */
    enum err err;                  /* answers */
};

struct group_request {
    enum group_op op;
    struct slice group;
    struct slice member;   /* empty = none yet */
    struct slice instance; /* static member; data NULL = none */
    struct slice client_id, client_host;
    int32_t generation; /* -1 with an empty member: a commit from outside the protocol */
    /* JOIN */
    struct slice protocol_type;
    const struct group_protocol *protocols;
    uint32_t protocol_count;
    int32_t session_timeout_ms, rebalance_timeout_ms;
    bool require_member_id;   /* the client joins again with the id it is given (JoinGroup v4+) */
    bool may_skip_assignment; /* the client knows skip_assignment (JoinGroup v9+) */
    uint64_t random[2];       /* for a new member's id */
    /* SYNC */
    struct slice protocol_name; /* data NULL = not said */
    const struct group_assignment *assignments;
    uint32_t assignment_count;
    /* LEAVE */
    const struct group_leaver *leavers;
    uint32_t leaver_count;
    /* COMMIT, OFFSETS (offset_count 0 with all = every partition), FORGET */
    const struct group_offset *offsets;
    uint32_t offset_count;
    bool all;
};

struct group_member {
    struct slice id, instance, client_id, client_host, metadata, assignment;
};

struct group_description {
    struct slice name, state, protocol_type, protocol; /* state as Kafka names it: "Stable", ... */
    const struct group_member *members;
    uint32_t member_count;
};

struct group_answer {
    enum group_op op;
    int32_t generation;
    struct slice protocol_type, protocol, leader, member;
    bool skip_assignment;
    const struct group_member *members; /* JOIN, to the leader: id, instance, metadata */
    uint32_t member_count;
    struct slice assignment; /* SYNC */
    const struct group_offset *offsets;
    uint32_t offset_count;
    const struct group_leaver *leavers;
    uint32_t leaver_count;
    const struct group_description *groups; /* DESCRIBE: one; LIST: all */
    uint32_t group_count;
};

/* The object id of a group: hash of its name, never 0. */
uint64_t group_object(struct slice name);

/* ---- For the cell ---- */
struct cell;
struct record;
struct store_object;
struct groups;

struct groups *groups_create(struct cell *cell);
void groups_destroy(struct groups *groups);
/* Takes over command->parts. */
void groups_command(struct groups *groups, const struct command *command);
enum err groups_apply(struct groups *groups, const struct record *record, uint64_t pos);
enum err groups_restore(struct groups *groups, uint64_t id, struct slice value);
/* Serializes a group that the checkpoint asks for (a tracked object of kind OBJECT_GROUP). */
struct tracked;
bool groups_encode(struct groups *groups, struct tracked *tracked, struct slice *value,
                   uint64_t reflects);

#endif
