/* The threads that run the shards: as many as the load needs, at most one a shard.
 *
 * Every shard is opened on a thread of its own. From crew_fold on one thread runs them all, and the
 * others are parked; a thread that gets too busy hands half of its shards to a parked one, and one
 * with little to do hands all of its own to another. For falling asleep and waking a thread costs
 * as much as some twenty messages, so that little work spread over all CPUs is mostly that. */
#ifndef WEIR_SERVER_CREW_H
#define WEIR_SERVER_CREW_H

#include "gen/err.h"

#include <stdbool.h>
#include <stdint.h>

enum { CREW_MAX = 64 };

struct crew;
struct loop;

/* What one turn of a shard left. */
struct crew_turn {
    int64_t deadline_ms; /* the next one's, monotonic; INT64_MAX = none */
    bool busy;           /* the next one is due at once */
    bool ended;          /* there is no next one */
    uint64_t units;      /* pieces of work that it did */
};

struct crew_config {
    uint32_t shards; /* at most CREW_MAX */
    int64_t rest_ns; /* io/pace.h: turn_ns */
    void *ctx;
    /* On the shard's first thread. False: it has failed, and gets no turn. */
    bool (*open)(void *ctx, uint32_t shard);
    /* hold: another turn comes soon, which is to write what this one leaves for the journal. */
    void (*turn)(void *ctx, uint32_t shard, bool hold, struct crew_turn *turn);
    /* Of an opened shard. */
    struct loop *(*loop)(void *ctx, uint32_t shard);
    /* CPU time of the calling thread; NULL: the system's. For tests. */
    int64_t (*cpu_ns)(void *ctx);
};

/* Starts the threads. ERR_NO_MEMORY: not all of them could be; those that were run on. */
enum err crew_start(const struct crew_config *config, struct crew **out)
    __attribute__((warn_unused_result));

/* Lets one thread run all shards while that is enough. Any thread; once. */
void crew_fold(struct crew *crew);

/* Waits until every shard's last turn has ended, and frees the crew. */
void crew_join(struct crew *crew);

#endif
