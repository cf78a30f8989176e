/* How much memory large items may take that are still arriving, over all connections of a loop. A
 * connection asks for a share as large as its item before it gathers it; while the shares are all
 * out it waits, in order of asking, and is not read. An item that is larger than all shares
 * together gets its share when there is no other. So that nobody holds a share for ever, the
 * connection of a holder whose item comes too slowly is ended while others wait. One thread at a
 * time. */
#ifndef WEIR_IO_GATHER_H
#define WEIR_IO_GATHER_H

#include "base/list.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    GATHER_FREE_BYTES = 64 << 10,     /* items up to this size need no share */
    GATHER_PATIENCE_MS = 2000,        /* for a holder from whom nothing comes */
    GATHER_SLOWEST_BYTES_PER_MS = 64, /* whoever sends at least that fast may go on */
};

struct gather_pool {
    size_t limit, used; /* bytes; limit 0: none */
    struct list holders, waiting;
};

/* One connection's share; zero is none. */
struct gather {
    struct list link; /* on holders or waiting */
    size_t bytes;     /* the share, or what is waited for */
    int64_t due_ms;   /* until when the holder may keep others waiting */
    bool holds, waits;
};

void gather_pool_init(struct gather_pool *pool, size_t limit);

/* Asks for a share of that many bytes, more than before or less. False: it waits. */
bool gather_take(struct gather_pool *pool, struct gather *gather, size_t bytes, int64_t now_ms);

/* Gives the share back, or stops waiting. */
void gather_give(struct gather_pool *pool, struct gather *gather);

/* The next one that waited and has its share now; NULL: none. */
struct gather *gather_next(struct gather_pool *pool, int64_t now_ms);

/* So many bytes of a holder's item came. */
void gather_arrived(struct gather *gather, size_t bytes, int64_t now_ms);

#endif
