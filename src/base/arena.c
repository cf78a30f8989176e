/*
 * Chunks form a list in order of allocation; the last one is being filled. A request that does not
 * fit gets a new chunk, of its own size when that is larger than usual.
 */

#include "base/arena.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>

enum { ALIGNMENT = _Alignof(max_align_t) };

struct arena_chunk {
    struct arena_chunk *next;
    size_t size; /* of the data */
    _Alignas(ALIGNMENT) uint8_t data[];
};

void arena_init(struct arena *arena, size_t chunk_bytes, size_t limit_bytes)
{
    assert(chunk_bytes > 0 && chunk_bytes <= limit_bytes);
    *arena = (struct arena){.chunk_bytes = chunk_bytes, .limit_bytes = limit_bytes};
}

static void chunks_free(struct arena_chunk *chunk)
{
    while (chunk) {
        struct arena_chunk *next = chunk->next;
        free(chunk);
        chunk = next;
    }
}

void arena_done(struct arena *arena)
{
    chunks_free(arena->first);
    arena_init(arena, arena->chunk_bytes, arena->limit_bytes);
}

void arena_reset(struct arena *arena)
{
    struct arena_chunk *first = arena->first;
    if (!first)
        return;
    chunks_free(first->next);
    first->next = NULL;
    arena->last = first;
    arena->at = first->data;
    arena->end = first->data + first->size;
    arena->held_bytes = first->size;
}

static bool chunk_add(struct arena *arena, size_t size)
{
    if (size < arena->chunk_bytes)
        size = arena->chunk_bytes;
    if (size > arena->limit_bytes - arena->held_bytes)
        return false;
    struct arena_chunk *chunk = malloc(sizeof *chunk + size);
    if (!chunk) {
        arena->no_memory = true;
        return false;
    }
    chunk->next = NULL;
    chunk->size = size;
    if (arena->last)
        arena->last->next = chunk;
    else
        arena->first = chunk;
    arena->last = chunk;
    arena->at = chunk->data;
    arena->end = chunk->data + size;
    arena->held_bytes += size;
    return true;
}

void *arena_alloc(struct arena *arena, size_t size)
{
    if (size > arena->limit_bytes)
        return NULL;
    size = (size + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
    if ((!arena->at || size > (size_t)(arena->end - arena->at)) && !chunk_add(arena, size))
        return NULL;
    void *memory = arena->at;
    arena->at += size;
    return memory;
}

void *arena_array(struct arena *arena, size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes))
        return NULL;
    return arena_alloc(arena, bytes);
}
