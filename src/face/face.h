/* The contract between a protocol's face and the shard that runs it. A face turns bytes into
 * commands and events into bytes, and nothing else: it sees an opaque struct conn and has no
 * thread, socket or file. The shard implements the conn_ functions; fuzzers and tests implement
 * them with a few lines of their own. Everything happens on the connection's shard.
 *
 * An answer never comes from inside the call that asks: event() is called later, from the loop.
 *
 * Order: commands of one connection to one object arrive there in the order they were given.
 * Commands to different objects may overtake each other: a face that must not let later input
 * overtake an answer stops taking input (returns from `input` without using the bytes after
 * calling conn_hold) until the answer came. */
#ifndef WEIR_FACE_FACE_H
#define WEIR_FACE_FACE_H

#include "base/buf.h"
#include "base/slice.h"
#include "core/catalog.h"
#include "core/command.h"
#include "core/route.h"
#include "gen/err.h"
#include "gen/metrics.h"

#include <stdbool.h>
#include <stdint.h>

struct conn;

/* Limits and names that faces need, from the configuration. */
struct face_config {
    uint32_t frame_max, heartbeat_s; /* AMQP */
    uint16_t channel_max;
    uint32_t max_message_bytes; /* AMQP body */
    uint32_t max_batch_bytes;   /* Kafka batch */
    uint32_t max_request_bytes; /* Kafka request */
    uint32_t idle_s;            /* Kafka; 0: never too long */
    uint32_t default_partitions;
    bool auto_create_topics;
    const char *cluster_name; /* "weir@host" */
    uint8_t cluster_id[16];   /* random, fixed when the data folder was made */
    const char *version;
};

struct face {
    const char *name; /* "amqp": as in --listen and in logs */
    uint16_t default_port;
    /* On a full disk its publishers are not read (they are told to wait); otherwise each is
     * refused. */
    bool waits_when_full;
    enum metric_protocol protocol; /* whose metrics count its connections */
    /* A new connection; returns the face's own state for it, NULL when memory is exhausted. */
    void *(*open)(struct conn *conn);
    /* Bytes came; returns how many were used (see net_handler.received). conn_close may be called.
     */
    size_t (*input)(void *self, const uint8_t *data, size_t len);
    void (*event)(void *self, const struct event *event);
    /* Output fell below the mark after conn_output_pending was above it. */
    void (*drained)(void *self);
    /* The time asked for by conn_timer came. */
    void (*timer)(void *self, int64_t now_ms);
    /* The broker stops: say so to the client, if the protocol has a word for it. The shard closes
     * the connection behind it, flushed. May be NULL. */
    void (*stop)(void *self);
    /* The connection is gone: free self. The shard tells every cell afterwards (CONN_GONE). */
    void (*close)(void *self, enum err err);
};

/* ---- Bytes out (see io/net.h) ---- */
void conn_copy(struct conn *conn, const void *data, size_t len);
uint8_t *conn_reserve(struct conn *conn, size_t len);
void conn_commit(struct conn *conn, size_t len);
/* Takes its own reference to buf. */
void conn_share(struct conn *conn, struct buf *buf, struct slice data);
size_t conn_output_pending(const struct conn *conn);
/* Gives up a reference that an event handed over (EVENT_READ). */
void conn_release(struct conn *conn, struct buf *buf);

/* ---- Control ---- */
void conn_close(struct conn *conn, bool flush);
/* input() needs at least that many bytes to go on. */
void conn_want(struct conn *conn, size_t bytes);
/* Take no input until conn_resume: bytes not used are kept. */
void conn_hold(struct conn *conn);
void conn_resume(struct conn *conn);
/* Calls timer() at that monotonic time (ms); replaces the earlier wish; INT64_MAX = never. */
void conn_timer(struct conn *conn, int64_t at_ms);
int64_t conn_now_ms(const struct conn *conn);
int64_t conn_wall_ms(const struct conn *conn);
uint64_t conn_random(struct conn *conn);
uint64_t conn_id(const struct conn *conn);
/* Printable ends: "127.0.0.1", 5672. */
const char *conn_peer(const struct conn *conn, uint16_t *port);
const char *conn_local(const struct conn *conn, uint16_t *port);
bool conn_is_loopback(const struct conn *conn);
const struct face_config *conn_config(const struct conn *conn);
const struct catalog *conn_catalog(const struct conn *conn);
/* One log line: level is "info", "warn", "error" or "debug"; text = key=value pairs. */
void conn_log(struct conn *conn, const char *level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- Identity ---- */
/* Checks a password; ERR_REFUSED for any reason. From then on the connection acts as that user. */
enum err conn_login(struct conn *conn, struct slice user, struct slice password);
struct slice conn_user(const struct conn *conn);

/* ---- Commands ---- */
/* Fills in asker.conn, routes by type and object, copies data. Takes over command->parts. */
void conn_command(struct conn *conn, const struct command *command);
/* Routes and publishes. Returns how many cells it went to, each of which answers with
 * EVENT_PUBLISHED when seq > 0; 0 = no target. */
uint32_t conn_publish(struct conn *conn, const struct publish *publish);
/* The same past routing: straight to one queue (the default exchange), by definition. */
uint32_t conn_publish_queue(struct conn *conn, const struct publish *publish,
                            const struct queue_def *queue);
/* How many cells answer a COMMAND_CHANNEL_GONE. */
uint32_t conn_cells(const struct conn *conn);
/* What the broker is short of while publishers wait for it, NULL when they need not: faces with a
 * word for it say so. */
const char *conn_blocked(const struct conn *conn);
/* Memory for what a client has begun and not ended, `bytes` more of it; all connections share half
 * of the memory limit, or room for one message if that is more. False: so much is not left now.
 * Given back with conn_ungather, at the latest in close(). */
bool conn_gather(struct conn *conn, size_t bytes) __attribute__((warn_unused_result));
void conn_ungather(struct conn *conn, size_t bytes);
/* Somebody was refused it just now. */
bool conn_gather_wanted(const struct conn *conn);
/* True while the shard does not read this connection, for its own reasons: a peer that is not heard
 * of is not silent then. */
bool conn_unread(const struct conn *conn);

/* ---- Metrics (spec/metrics.toml) ---- */
/* Adds n to what the connection's shard has counted. A counter only grows; a gauge also falls. What
 * is known of connections as such (their number, bytes, logins) the shard counts itself. */
void conn_count(struct conn *conn, enum metric metric, int64_t n);
/* The figures of the whole broker. Those of other shards are up to 100 ms old. */
void conn_metrics(struct conn *conn, uint64_t out[METRIC_COUNT]);
/* ERR_NONE: all is well; ERR_DISK_FULL: publishers wait; ERR_IO: storage failed, the broker ends.
 */
enum err conn_health(const struct conn *conn);

extern const struct face face_amqp;
extern const struct face face_kafka;
extern const struct face face_http;

#endif
