/* What a run of many seeds did, counted, so that it can be seen (and demanded) that everything the
 * simulation is for happens in it. */
#ifndef WEIR_SIM_TOTALS_H
#define WEIR_SIM_TOTALS_H

#include <stdint.h>

/* X(field, words in the report) */
#define TOTALS(X)                                                                                  \
    X(seeds, "seeds")                                                                              \
    X(wrong, "wrong")                                                                              \
    X(lives, "lives")                                                                              \
    X(kills, "kills")                                                                              \
    X(cuts, "power cuts")                                                                          \
    X(hangs, "crashes at a disk call")                                                             \
    X(stops, "orderly stops")                                                                      \
    X(failures, "ends by a failure")                                                               \
    X(published, "published")                                                                      \
    X(confirmed, "confirmed")                                                                      \
    X(refused, "refused")                                                                          \
    X(delivered, "delivered")                                                                      \
    X(settled, "settled")                                                                          \
    X(returned, "returned")                                                                        \
    X(rejected, "rejected")                                                                        \
    X(got, "got")                                                                                  \
    X(buried, "found among dead letters")                                                          \
    X(expired, "expired")                                                                          \
    X(purged, "purges")                                                                            \
    X(deleted, "queues deleted")                                                                   \
    X(vanished, "queues expired")                                                                  \
    X(routed, "topic to queue")                                                                    \
    X(appended, "appended")                                                                        \
    X(acked, "acknowledged")                                                                       \
    X(retried, "retried")                                                                          \
    X(read, "read")                                                                                \
    X(trimmed, "trims")                                                                            \
    X(retained, "batches beyond retention")                                                        \
    X(joined, "joins")                                                                             \
    X(synced, "assignments")                                                                       \
    X(heartbeats, "heartbeats")                                                                    \
    X(rebalances, "rebalances")                                                                    \
    X(committed, "offsets committed")                                                              \
    X(fetched, "offsets fetched")                                                                  \
    X(checkpoints, "checkpoints")                                                                  \
    X(extents, "extents")                                                                          \
    X(rewrites, "rewritten extents")                                                               \
    X(compared, "states compared")                                                                 \
    X(resharded, "with other shards")                                                              \
    X(errors, "lives with disk errors")                                                            \
    X(full, "full disks")                                                                          \
    X(slow, "slow disks")                                                                          \
    X(resets, "lives with resets")                                                                 \
    X(jumps, "clock jumps")                                                                        \
    X(sleeps, "pauses")                                                                            \
    X(unallocated, "failed allocations")

struct totals {
#define X(field, words) uint64_t field;
    TOTALS(X)
#undef X
};

#endif
