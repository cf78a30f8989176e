/* What the files of the Kafka face share: a connection and the requests that it has in flight. For
 * src/face/kafka only.
 *
 * Life of a request: kafka_input cuts a frame off -> request_take decodes it in the request's arena
 * and calls the API's `start`, which sends commands (request_command) -> each answer comes to
 * `answer` -> when none is awaited any more, `finish` sets the response (request_respond) ->
 * requests_send encodes it once everything before it has left. Requests run at the same time, their
 * responses leave strictly in the order in which the requests came.
 *
 * What waits for the disk has a time limit (request_limit): then `finish` comes before the last
 * answer, and what is not answered says what `start` put there before it asked. Answers that come
 * later find their request finished, or gone, and are dropped.
 *
 * Answers may come from inside of request_command. What `answer` needs stands ready before. */
#ifndef WEIR_FACE_KAFKA_KAFKA_H
#define WEIR_FACE_KAFKA_KAFKA_H

#include "base/arena.h"
#include "core/group.h"
#include "face/face.h"
#include "gen/kafka_api.h"
#include "gen/kafka_error.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    REQUESTS_MAX = 64, /* in flight on one connection; a power of two */
    REQUEST_ARENA_BYTES = 2048,
    REQUEST_ARENA_BYTES_MAX = 64 << 20,
    SMALL_REQUEST_BYTES_MAX = 16 << 20, /* of any API but Produce */
    TIMEOUT_MS_MIN = 100, /* a sync is no replica that lags: even a client in a hurry waits */
    TIMEOUT_MS_DEFAULT =
        5000, /* where the protocol names none; Kafka's offsets.commit.timeout.ms */
    OUTPUT_BYTES_MAX = 4 << 20, /* above it no further request is taken */
    NODE_ID = 1,
    LEADER_EPOCH = 0,
    GROUP_PARTS_BYTES_MAX = 32 << 20,
    NO_OPERATIONS = INT32_MIN, /* authorized operations that nobody asked for */
};

struct request;

/* How an API is served. */
struct handler {
    int16_t key;
    bool urgent; /* earlier requests that only wait for something to come are cut short for it */
    /* The message's slices borrow from the connection's input: what is kept must be copied.
     * Otherwise everything lives as long as the request. */
    bool borrows;
    void (*start)(struct request *request, const void *message);
    /* The answer to the command of that index; EVENT_ANSWER or EVENT_READ. */
    void (*answer)(struct request *request, uint32_t index, const struct event *event);
    /* Everything was answered; must call request_respond, request_silent or request_fail. NULL:
     * start did. */
    void (*finish)(struct request *request);
    /* The payload that the response leaves out, at its turn. NULL: none does. */
    void (*payload)(struct request *request, const void *payload);
    /* An urgent request waits behind it: whatever it waits for, it should not any longer. NULL: it
     * does not wait for longer than it must. */
    void (*hurry)(struct request *request);
    /* The response has left, or never will: gives up what is not in the arena. NULL: nothing. */
    void (*done)(struct request *request);
};

enum request_stage {
    REQUEST_RUNNING,
    REQUEST_READY,
    REQUEST_SILENT, /* has no response */
};

struct request {
    struct kafka *kafka;
    const struct handler *handler; /* NULL: a bare SASL token */
    const struct kafka_api *api;
    int16_t version; /* of the response too */
    int32_t correlation_id;
    uint32_t sequence;
    uint32_t waiting;    /* answers that must come before finish */
    int64_t deadline_ms; /* ... or this time; INT64_MAX: none */
    enum request_stage stage;
    bool closes;            /* the connection ends behind it */
    struct slice client_id; /* in the arena; may be null */
    void *state;            /* the API's own */
    const void *response;   /* READY */
    size_t payload_bytes;   /* left out of the response's own bytes */
    uint32_t payload_count; /* at most as many pieces */
    struct arena arena;
    struct request *next_spare;
};

enum sasl_stage {
    SASL_NONE,
    SASL_PLAIN, /* handshake v1: SaslAuthenticate is due */
    SASL_RAW,   /* handshake v0: the next frame is a bare token */
};

struct kafka {
    struct conn *conn;
    uint32_t next_sequence, oldest;         /* requests oldest .. next_sequence - 1 are in flight */
    struct request *requests[REQUESTS_MAX]; /* by sequence % REQUESTS_MAX */
    struct request *spare;
    uint32_t spare_count;
    uint32_t hurriable; /* requests in flight that can be hurried */
    uint32_t late;      /* answers to come that nobody waits for */
    int64_t timer_ms;   /* the connection's timer; INT64_MAX: not set */
    int64_t active_ms;  /* when something came in or went out last */
    enum sasl_stage sasl;
    bool held, closing, sending;
};

/* ---- request.c ---- */

/* Sends a command whose answer comes to handler->answer with that index. */
void request_command(struct request *request, uint32_t index, struct command *command);
/* A command that has no answer of its own (READ_STOP); names the one of that index. */
void request_tell(struct request *request, uint32_t index, struct command *command);
/* From now on the request waits for so long at the most. Its `finish` must take a state in which
 * any of the answers is missing. */
void request_limit(struct request *request, int32_t timeout_ms);
/* The response, in the arena. Sent at its turn. */
void request_respond(struct request *request, const void *response);
void request_silent(struct request *request);
/* The request cannot be served (no memory, or not what a client may send): closes the connection.
 */
void request_fail(struct request *request, const char *why);
/* One frame without its length. */
void request_take(struct kafka *kafka, struct slice frame);
/* Where an event belongs. */
void request_event(struct kafka *kafka, const struct event *event);
/* The timer rings at that time, or before it for something else. */
void request_timer_set(struct kafka *kafka, int64_t at_ms);
/* Finishes the requests whose time is over. */
void requests_expire(struct kafka *kafka, int64_t now_ms);
/* Sends every response whose turn has come. */
void requests_send(struct kafka *kafka);
/* No more requests are taken: closes the connection, which is to happen once. */
void requests_end(struct kafka *kafka, bool flush);
/* The connection is gone. */
void requests_drop(struct kafka *kafka);
/* Takes or refuses further input as in-flight requests and output say. */
void requests_throttle(struct kafka *kafka);
/* Which metric counts requests of that API. */
enum metric request_metric(int16_t key);

/* Zeroed memory from the request's arena. After NULL call request_fail and return. */
void *request_alloc(struct request *request, size_t count, size_t size);
/* A copy in the arena; null stays null. False: no memory. */
bool request_copy(struct request *request, struct slice *slice);
/* The formatted text, in the arena; null when there is no memory. */
struct slice request_text(struct request *request, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* ---- What the handlers share (shared.c) ---- */

extern const struct handler *const kafka_handlers[KAFKA_APIS_COUNT];

/* By id where the version has ids, else by name. NULL: *error says that it is unknown. */
const struct topic *topic_named(const struct request *request, struct slice name);
const struct topic *topic_identified(const struct request *request, const struct kafka_uuid *id);
/* The partition's id; false when there is no such partition. */
bool topic_partition_id(const struct topic *topic, int32_t index, uint64_t *id);
struct kafka_uuid topic_uuid(const struct topic *topic);
/* May a topic be called that? */
bool topic_name_valid(struct slice name);
bool uuid_is_zero(const struct kafka_uuid *id);
/* NONE, or why a client that thinks it is in that epoch (-1: does not say) is refused. */
int16_t epoch_check(int32_t current_leader_epoch);
bool slice_is(struct slice slice, const char *text);

/* What a group's coordinator says: one whose disk is full is as good as away, and clients know what
 * to do then. */
int16_t coordinator_code(enum err err);

/* A group's command, with the request's parts in an arena that goes along. */
struct group_command {
    struct parts *parts;
    struct group_request *group;
};
/* False: no memory; nothing to free. */
bool group_begin(struct group_command *command, enum group_op op, struct slice group);
/* A copy in the command's arena. False: no memory; call group_abandon. */
bool group_copy(struct group_command *command, struct slice *slice);
void *group_array(struct group_command *command, uint32_t count, size_t size);
void group_send(struct request *request, uint32_t index, struct group_command *command);
void group_abandon(struct group_command *command);
/* The answer's parts, NULL when it carries none. */
const struct group_answer *group_answer_of(const struct event *event);

/* A catalog command in the same way. */
struct catalog_command {
    struct parts *parts;
    struct catalog_request *catalog;
};
bool catalog_begin(struct catalog_command *command, enum catalog_op op, struct slice name);
bool catalog_copy(struct catalog_command *command, struct slice *slice);
void catalog_send(struct request *request, uint32_t index, struct catalog_command *command);

/* ---- Handlers, one file for each group of APIs ---- */
extern const struct handler api_versions_handler;
extern const struct handler metadata_handler;
extern const struct handler produce_handler;
extern const struct handler fetch_handler;
extern const struct handler list_offsets_handler;
extern const struct handler offset_for_leader_epoch_handler;
extern const struct handler find_coordinator_handler;
extern const struct handler describe_cluster_handler;
extern const struct handler init_producer_id_handler;
extern const struct handler sasl_handshake_handler;
extern const struct handler sasl_authenticate_handler;
extern const struct handler create_topics_handler;
extern const struct handler delete_topics_handler;
extern const struct handler create_partitions_handler;
extern const struct handler delete_records_handler;
extern const struct handler describe_configs_handler;
extern const struct handler alter_configs_handler;
extern const struct handler incremental_alter_configs_handler;
extern const struct handler join_group_handler;
extern const struct handler sync_group_handler;
extern const struct handler heartbeat_handler;
extern const struct handler leave_group_handler;
extern const struct handler describe_groups_handler;
extern const struct handler list_groups_handler;
extern const struct handler delete_groups_handler;
extern const struct handler offset_commit_handler;
extern const struct handler offset_fetch_handler;
extern const struct handler offset_delete_handler;

/* sasl.c: a bare token (SaslHandshake v0). */
void sasl_token(struct request *request, struct slice token);

/* cluster.c: the cluster's name as Kafka prints uuids. */
enum { CLUSTER_ID_CHARS = 22 };
struct slice cluster_id(struct request *request);

#endif
