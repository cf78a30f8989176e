/* Arenas that travel with commands and events. */
#include "core/command.h"

#include <stdlib.h>

enum { PARTS_CHUNK_BYTES = 1024 };

struct parts *parts_create(size_t limit_bytes)
{
    struct parts *parts = calloc(1, sizeof *parts);
    if (parts == NULL)
        return NULL;
    if (limit_bytes < PARTS_CHUNK_BYTES)
        limit_bytes = PARTS_CHUNK_BYTES;
    arena_init(&parts->arena, PARTS_CHUNK_BYTES, limit_bytes);
    return parts;
}

void parts_destroy(struct parts *parts)
{
    if (parts == NULL)
        return;
    arena_done(&parts->arena);
    free(parts);
}
