/* The receiving side of one connection: where the next bytes go, and the bytes that its reader has
 * not used yet. All connections of a loop receive into one block; only a connection whose reader
 * left something holds memory, as much as it left. A long item, wanted as a whole, gathers in a
 * buffer of its own, which grows as bytes really arrive. One thread at a time. */
#ifndef WEIR_IO_INQ_H
#define WEIR_IO_INQ_H

#include "gen/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    INQ_BLOCK_BYTES = 256 << 10,
    INQ_KEEP_MAX = 256 << 10,  /* most that is kept for a reader who did not want more */
    INQ_HEAD_BYTES = 32 << 10, /* kept bytes up to this many are moved in front of the block */
};

struct inq_pool {
    uint8_t *block; /* INQ_HEAD_BYTES + INQ_BLOCK_BYTES */
    uint8_t *spare; /* one large buffer that is not in use */
    size_t spare_capacity;
    uint64_t *account; /* bytes of kept buffers are counted here; may be NULL */
};

struct inq {
    uint8_t *kept;
    size_t len, capacity;
    size_t want; /* the reader is not called with less than this; 0 is 1 */
};

bool inq_pool_init(struct inq_pool *pool, uint64_t *account);
void inq_pool_done(struct inq_pool *pool);

/* Where to receive and how many bytes at most (> 0). NULL when memory is exhausted. */
uint8_t *inq_place(struct inq *queue, struct inq_pool *pool, size_t *room);

/* `bytes` were received at `place`. Gives the unused bytes and them, in one piece, in *data. */
size_t inq_arrived(struct inq *queue, uint8_t *place, size_t bytes, uint8_t **data);

/* After the reader was called (want was 0 then) and has not used the last `left` bytes: keeps them.
 * A reader that is not paused and said nothing wants one byte more; ERR_TOO_LARGE when that many
 * are kept without having been wanted, ERR_NO_MEMORY. */
enum err inq_rest(struct inq *queue, struct inq_pool *pool, const uint8_t *data, size_t left,
                  bool paused) __attribute__((warn_unused_result));

/* Keeps the last `left` bytes that the reader did not use (they may stand in the kept buffer
 * itself); 0 frees. False when memory is exhausted. */
bool inq_keep(struct inq *queue, struct inq_pool *pool, const uint8_t *data, size_t left);

#endif
