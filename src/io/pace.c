/* The rate of work is averaged over the last millisecond or so; a rest is worth its latency when it
 * is likely to gather a few pieces. */
#include "io/pace.h"

enum {
    MEMORY_NS = 1000000, /* over how long the rate is averaged */
    GATHER_MIN = 4,      /* pieces of work that a rest must be expected to gather */
};

int64_t pace_rest(struct pace *pace, uint64_t units, int64_t now_ns)
{
    double elapsed = (double)(now_ns > pace->last_ns ? now_ns - pace->last_ns : 1);
    double weight = elapsed / (elapsed + MEMORY_NS);
    pace->units_per_s += ((double)units * 1e9 / elapsed - pace->units_per_s) * weight;
    pace->last_ns = now_ns;
    return pace_left(pace, now_ns);
}

int64_t pace_left(const struct pace *pace, int64_t now_ns)
{
    if (pace->units_per_s * (double)pace->turn_ns < GATHER_MIN * 1e9)
        return -1;
    int64_t left = pace->turn_ns - (now_ns - pace->woke_ns);
    return left < pace->turn_ns / 4 ? 0 : left;
}
