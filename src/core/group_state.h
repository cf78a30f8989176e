/* What the files of consumer groups share. For group*.c only.
 *
 *   group.c          the groups of a cell: requests, what is stored of them
 *   group_join.c     the life of a generation: joining, synchronizing, leaving
 *   group_member.c   members and what they bring
 *   group_offsets.c  committed offsets
 *   group_reply.c    answers */
#ifndef WEIR_CORE_GROUP_STATE_H
#define WEIR_CORE_GROUP_STATE_H

#include "core/catalog_table.h"
#include "core/cell_state.h"
#include "core/group.h"

enum {
    GROUP_MEMBERS_MAX = 1000, /* pending ones included */
    GROUP_PROTOCOLS_MAX = 32, /* of a member */
    GROUP_NAME_BYTES_MAX = 1024,
    GROUP_CLIENT_BYTES_MAX = 255, /* of a client's id and host, which are cut */
    GROUP_BYTES_MAX = 24 << 20, /* all metadata and assignments of a group: what one answer holds */
    GROUP_SESSION_MS_MIN = 6000,
    GROUP_SESSION_MS_MAX = 1800000,
    /* The first member of an empty group waits a moment for others, longer while more come. */
    GROUP_INITIAL_DELAY_MS = 50,
    GROUP_INITIAL_DELAY_MS_MAX = 300,
    GROUP_OFFSETS_MAX = 1 << 20, /* committed partitions of a group */
    GROUP_OFFSET_METADATA_BYTES_MAX = 4096,
    GROUP_RECORD_BYTES = 64 * 1024, /* a commit of more is several records */
    GROUP_IDLE_MAX = 1000,          /* groups without members and offsets that are remembered */
};

enum group_state {
    GROUP_EMPTY,
    GROUP_PREPARING,  /* members are joining */
    GROUP_COMPLETING, /* the generation is made; the leader has not yet assigned */
    GROUP_STABLE,
};

enum member_wait { WAIT_NOTHING, WAIT_JOIN, WAIT_SYNC };

struct member {
    struct list link; /* in the order of joining */
    struct group *group;
    struct timer session;
    uint32_t hash;                                     /* of the id */
    struct slice id, instance, client_id, client_host; /* owned */
    struct group_protocol *protocols;                  /* owned, one block */
    uint32_t protocol_count;
    struct slice assignment; /* owned */
    size_t bytes;            /* protocols and assignment */
    int32_t session_timeout_ms, rebalance_timeout_ms;
    enum member_wait waits; /* for an answer, to: */
    struct asker asker;
    bool unsynced; /* of this generation's members: has not asked for its assignment */
};

/* An id that was given out and has not come back. */
struct pending_member {
    struct list link;
    struct group *group;
    struct timer timer;
    struct slice id; /* stands behind */
};

struct committed {
    uint32_t partition;
    int32_t leader_epoch;
    int64_t offset;
    int64_t time_ms;
    struct slice metadata; /* owned */
};

struct offsets_topic {
    uint32_t hash;
    uint32_t count, capacity;
    struct committed *items; /* by partition */
    struct slice name;       /* stands behind */
};

struct offsets {
    struct table topics;
    uint32_t count;
};

struct group {
    struct tracked tracked; /* id = group_object(name) */
    uint64_t reflects;      /* what is stored of it reflects the journal up to here */
    struct groups *groups;
    struct slice name; /* stands behind */
    bool gone;         /* deleted; remembered for its stored form only */
    struct list idle;  /* on groups->idle when there is nothing to remember */

    enum group_state state;
    int32_t generation;
    struct slice protocol_type, protocol; /* owned */
    struct member *leader;
    struct list members;
    struct table by_id;
    uint32_t member_count, waiting_join;
    struct list pending;
    uint32_t pending_count;
    size_t bytes;
    struct timer phase; /* PREPARING: the join ends; COMPLETING: the time to synchronize ends */
    bool initial, grew; /* the delay of an empty group's first members; more came meanwhile */
    int64_t initial_end_ms;

    struct offsets offsets;
};

struct groups {
    struct cell *cell;
    struct map by_id;
    struct list idle;
    uint32_t idle_count;
};

/* ---- group.c ---- */

/* Finds out whether there is anything left to remember of the group; may free others. */
void group_settle(struct group *group);

/* ---- group_join.c ---- */

void group_join(struct groups *groups, const struct command *command);
void group_sync(struct group *group, const struct command *command);
void group_heartbeat(struct group *group, const struct command *command);
void group_leave(struct group *group, const struct command *command);
/* NULL group: unknown. The member that the request names, checked as every request of a member is.
 */
enum err group_member_check(const struct group *group, const struct group_request *request,
                            struct member **out);
/* Heard of: the session begins anew. */
void group_member_alive(struct member *member);
/* Frees all members without a word. */
void group_abandon_members(struct group *group);

/* ---- group_member.c ---- */

struct slice slice_copy(struct slice slice); /* malloc'd; data NULL: no memory, or it was null */
struct member *member_find(const struct group *group, struct slice id);
struct member *member_by_instance(const struct group *group, struct slice instance);
/* A member of the group, not waiting. NULL: no memory. */
struct member *member_create(struct group *group, const struct group_request *request,
                             struct slice id);
void member_destroy(struct member *member);
/* Takes over what a JOIN brings. */
enum err member_update(struct member *member, const struct group_request *request);
enum err member_rename(struct member *member, struct slice id);
enum err member_assign(struct member *member, struct slice assignment);
bool member_brings_same(const struct member *member, const struct group_request *request);
const struct group_protocol *member_protocol(const struct member *member, struct slice name);
/* What the request's protocols add up to, within the limits? */
enum err member_check(const struct group *group, const struct member *member,
                      const struct group_request *request);
/* A member id from the request's random numbers, malloc'd. */
struct slice member_id_make(const struct group_request *request);
bool group_supports(const struct group *group, const struct group_request *request);
/* The protocol that most members prefer among those that all know. */
struct slice group_choose_protocol(const struct group *group);
/* Does any member consume the topic? */
bool group_subscribes(const struct group *group, struct slice topic);

/* ---- group_offsets.c ---- */

const struct committed *offsets_find(const struct offsets *offsets, struct slice topic,
                                     uint32_t partition);
enum err offsets_set(struct offsets *offsets, const struct group_offset *offset, int64_t time_ms);
void offsets_remove(struct offsets *offsets, struct slice topic, uint32_t partition);
void offsets_done(struct offsets *offsets);
size_t offsets_size(const struct offsets *offsets);
void offsets_encode(const struct offsets *offsets, struct writer *writer);
enum err offsets_decode(struct offsets *offsets, struct reader *reader);

/* ---- group_reply.c ---- */

/* An answer being made; it is sent in any case. */
struct reply {
    struct event event;
    struct group_answer *answer; /* NULL once memory is exhausted */
};

void reply_init(struct reply *reply, const struct asker *asker, enum group_op op, enum err err);
/* Zeroed; NULL when memory is exhausted. */
void *reply_array(struct reply *reply, size_t count, size_t size);
/* A copy that the answer owns; null stays null. */
struct slice reply_copy(struct reply *reply, struct slice slice);
void reply_send(struct cell *cell, struct reply *reply, bool durable);
/* The answer that says no more than err. */
void reply_plain(struct cell *cell, const struct command *command, enum err err);
/* To a JOIN: the generation as it is; `everyone`: with the list of all members. */
void reply_join(struct group *group, const struct asker *asker, const struct member *member,
                struct slice leader, bool everyone, bool skip_assignment);
void reply_join_error(struct cell *cell, const struct asker *asker, struct slice member,
                      enum err err);
void reply_sync(struct group *group, const struct asker *asker, const struct member *member);
void reply_describe(struct group *group, const struct command *command);
void reply_list(struct groups *groups, const struct command *command);
void reply_offsets(const struct group *group, struct cell *cell, const struct command *command);

#endif
