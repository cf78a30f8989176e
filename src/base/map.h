/* Hash map from a 64-bit key to a pointer: open addressing, linear probing, deletion by shifting
 * back (no tombstones). Holds nothing until the first insertion. Iteration order is unspecified;
 * what must be deterministic may not depend on it. */
#ifndef WEIR_BASE_MAP_H
#define WEIR_BASE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct map_slot {
    uint64_t key;
    void *value; /* NULL = free */
};

struct map {
    struct map_slot *slots;
    uint32_t capacity; /* 0 or a power of two */
    uint32_t count;
};

static inline uint64_t map_hash(uint64_t key)
{
    key ^= key >> 32;
    key *= UINT64_C(0x9E3779B97F4A7C15);
    return key ^ (key >> 29);
}

/* NULL when the key is absent. */
static inline void *map_get(const struct map *map, uint64_t key)
{
    if (map->count == 0)
        return NULL;
    uint32_t mask = map->capacity - 1;
    for (uint32_t i = (uint32_t)map_hash(key) & mask;; i = (i + 1) & mask) {
        if (map->slots[i].value == NULL)
            return NULL;
        if (map->slots[i].key == key)
            return map->slots[i].value;
    }
}

/* Sets key to value (not NULL). false when memory is exhausted; the map is then as before. */
bool map_put(struct map *map, uint64_t key, void *value) __attribute__((warn_unused_result));
/* Takes key out and returns its value, NULL when absent. */
void *map_take(struct map *map, uint64_t key);
/* The first used slot at or behind *at; advances *at past it; NULL at the end. Start with 0. The
 * map must not change meanwhile, but for map_walk_take. */
struct map_slot *map_next(const struct map *map, uint32_t *at);
/* On such a walk: takes out the slot that map_next gave last; the walk goes on and meets everything
 * that it has not met (what it has met and kept, perhaps again). */
static inline void map_walk_take(struct map *map, uint32_t *at)
{
    (*at)--;
    map_take(map, map->slots[*at].key);
}
void map_done(struct map *map);

#endif
