/* How long a thread that has nothing left to do rests before it looks for more. A thread that is
 * woken for every message spends most of its time on falling asleep and waking up, and so does the
 * sender that wakes it: when messages come fast, it pays to take several at a time. */
#ifndef WEIR_IO_PACE_H
#define WEIR_IO_PACE_H

#include <stdint.h>

struct pace {
    int64_t turn_ns;    /* aimed at from one turn to the next; 0 = never rest */
    int64_t woke_ns;    /* when the last rest or wait ended */
    int64_t last_ns;    /* when pace_rest was last called */
    double units_per_s; /* lately */
};

/* To be called after a turn that did `units` pieces of work. Returns how long to rest (ns); 0 when
 * the turn itself took about that long, -1 when too little would gather. */
int64_t pace_rest(struct pace *pace, uint64_t units, int64_t now_ns);

/* The same as the rate stands, for a turn about to begin. */
int64_t pace_left(const struct pace *pace, int64_t now_ns);

#endif
