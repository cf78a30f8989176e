/* A shard: one thread's worth of the broker. It runs its cells, owns its connections and their
 * faces, performs the effects of the cells and carries commands and events to other shards through
 * rings. It knows its network, disk and clock only through io's contracts, so several shards run in
 * one simulated thread as well as in threads of their own. */
#ifndef WEIR_SHARD_SHARD_H
#define WEIR_SHARD_SHARD_H

#include "base/log.h"
#include "base/ring.h"
#include "face/face.h"
#include "io/disk.h"
#include "io/net.h"
#include "store/store.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct shard;

enum { SHARDS_MAX = 64, CELLS_MAX = 64 };

/* What all shards of one broker share: fixed before the first one runs, but for the atomics. */
struct broker {
    struct face_config faces;
    const struct log *log;
    const char *data; /* the data folder */
    uint32_t shard_count, cell_count;
    bool sync;
    uint64_t segment_bytes, keep_bytes, memory_limit, connection_output_max;
    uint32_t connections_max;
    const struct state_backend *state;
    void (*wake)(void *ctx, uint32_t shard);
    void *wake_ctx;
    struct shard *shards[SHARDS_MAX];
    struct ring *rings[SHARDS_MAX][SHARDS_MAX]; /* [from][to] */
    /* Shards whose memory or unwritten journal is over its limit; their bits. Publishers pause. */
    _Atomic uint64_t pressed;
    /* Shards whose disk is full; shards that had no memory for a while. */
    _Atomic uint64_t blocked, short_of_memory;
    /* Bytes of payloads, by sender, that are on their way to another shard outside the rings. */
    _Atomic uint64_t mail_bytes[SHARDS_MAX];
    /* Bytes that faces gather of what is not complete, of all shards; and when some were refused.
     */
    _Atomic uint64_t gathered;
    _Atomic int64_t gather_refused_ms;
    _Atomic uint32_t connections; /* of all shards */
    _Atomic uint32_t opened;      /* shards whose cells are open */
    _Atomic bool failed;          /* a cell's storage failed */
    /* What each shard has counted, as it last made it known. */
    _Atomic uint64_t metrics[SHARDS_MAX][METRIC_COUNT];
    /* Adds what is known of the process as a whole; on any shard's thread. May be NULL. */
    void (*observe)(void *ctx, uint64_t metrics[METRIC_COUNT]);
    void *observe_ctx;
};

/* Rings and their like. ERR_NO_MEMORY. */
enum err broker_init(struct broker *broker) __attribute__((warn_unused_result));
void broker_done(struct broker *broker);

/* Opens the shard's cells and recovers them. */
enum err shard_create(struct broker *broker, uint32_t number, struct net *net, struct disk *disk,
                      int64_t now_ms, int64_t wall_ms, uint64_t seed, struct shard **out)
    __attribute__((warn_unused_result));
/* Connections that are left are forgotten without a word to their peers. */
void shard_destroy(struct shard *shard);

/* Shard 0, once every shard is open: feeds the catalog to all of them. A shard is ready when it has
 * it all. */
void shard_feed(struct shard *shard);
bool shard_ready(const struct shard *shard);

/* Takes connections for a face at the address; *port_out = the port. */
enum err shard_listen(struct shard *shard, const struct face *face, const char *host, uint16_t port,
                      uint16_t *port_out) __attribute__((warn_unused_result));

/* One turn of its own work, after net and disk events were delivered. Returns when it wants to be
 * called again at the latest (monotonic ms; now_ms or less: at once). Output is to be flushed after
 * it. hold: as for cell_work. */
int64_t shard_turn(struct shard *shard, int64_t now_ms, int64_t wall_ms, bool hold);
/* The time for events that net and disk are about to deliver. */
void shard_time(struct shard *shard, int64_t now_ms, int64_t wall_ms);

/* How many commands, messages and events it has handled so far. */
uint64_t shard_work(const struct shard *shard);

/* Stops taking work: closes listeners and connections, then stops its cells. */
void shard_stop(struct shard *shard);
/* All cells are stopped and on disk, or failed: *err says. */
bool shard_stopped(const struct shard *shard, enum err *err);

struct shard_stats {
    uint64_t connections, memory_bytes, net_bytes;
};
void shard_stats(const struct shard *shard, struct shard_stats *out);

/* The figures of all shards, as they last made them known, and of the process. Any thread. */
void broker_metrics(struct broker *broker, uint64_t out[METRIC_COUNT]);

#endif
