#ifndef WEIR_BASE_ARENA_H
#define WEIR_BASE_ARENA_H

/*
 * Memory that is given back all at once: a bump allocator in chunks, for what lives as long as one
 * request or one turn. It never hands out more than its limit, so a hostile length cannot exhaust
 * memory. One thread at a time.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct arena_chunk;

struct arena {
    struct arena_chunk *first; /* kept by arena_reset */
    struct arena_chunk *last;
    uint8_t *at, *end;  /* free part of the last chunk */
    size_t chunk_bytes; /* least size of a chunk */
    size_t held_bytes;  /* sum of the sizes of all chunks */
    size_t limit_bytes; /* held_bytes never exceeds it */
    bool no_memory;     /* the system had none when a chunk was asked for */
};

/* Allocates nothing yet. The limit must be at least chunk_bytes. */
void arena_init(struct arena *arena, size_t chunk_bytes, size_t limit_bytes);

/* Gives back every chunk; the arena may be used again. */
void arena_done(struct arena *arena);

/* Makes all memory that was handed out free again, and keeps the first chunk for the next time. */
void arena_reset(struct arena *arena);

/*
 * Uninitialised memory, aligned for any type, valid until reset or done. NULL when the limit or the
 * machine's memory is reached. size 0 gives a pointer that is not NULL.
 */
__attribute__((malloc, warn_unused_result)) void *arena_alloc(struct arena *arena, size_t size);

/* The same for count elements of size bytes; NULL also when the product overflows. */
__attribute__((malloc, warn_unused_result)) void *arena_array(struct arena *arena, size_t count,
                                                              size_t size);

#endif
