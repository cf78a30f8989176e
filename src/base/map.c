/* Open addressing at most 3/4 full. Taking a key out moves later members of its probe run back, so
 * look-ups stop at the first free slot. */
#include "base/map.h"

#include <assert.h>
#include <stdlib.h>

static void insert(struct map_slot *slots, uint32_t mask, uint64_t key, void *value)
{
    uint32_t i = (uint32_t)map_hash(key) & mask;
    while (slots[i].value != NULL)
        i = (i + 1) & mask;
    slots[i] = (struct map_slot){key, value};
}

static bool grow(struct map *map)
{
    uint32_t capacity = map->capacity == 0 ? 8 : map->capacity * 2;
    if (capacity == 0)
        return false;
    struct map_slot *slots = calloc(capacity, sizeof *slots);
    if (slots == NULL)
        return false;
    for (uint32_t i = 0; i < map->capacity; i++) {
        if (map->slots[i].value != NULL)
            insert(slots, capacity - 1, map->slots[i].key, map->slots[i].value);
    }
    free(map->slots);
    map->slots = slots;
    map->capacity = capacity;
    return true;
}

static struct map_slot *find(const struct map *map, uint64_t key)
{
    if (map->count == 0)
        return NULL;
    uint32_t mask = map->capacity - 1;
    for (uint32_t i = (uint32_t)map_hash(key) & mask;; i = (i + 1) & mask) {
        if (map->slots[i].value == NULL)
            return NULL;
        if (map->slots[i].key == key)
            return &map->slots[i];
    }
}

bool map_put(struct map *map, uint64_t key, void *value)
{
    assert(value != NULL);
    struct map_slot *slot = find(map, key);
    if (slot != NULL) {
        slot->value = value;
        return true;
    }
    if (map->count + 1 > map->capacity - map->capacity / 4 && !grow(map))
        return false;
    insert(map->slots, map->capacity - 1, key, value);
    map->count++;
    return true;
}

void *map_take(struct map *map, uint64_t key)
{
    struct map_slot *slot = find(map, key);
    if (slot == NULL)
        return NULL;
    void *value = slot->value;
    uint32_t mask = map->capacity - 1;
    uint32_t hole = (uint32_t)(slot - map->slots);
    for (uint32_t i = (hole + 1) & mask; map->slots[i].value != NULL; i = (i + 1) & mask) {
        uint32_t home = (uint32_t)map_hash(map->slots[i].key) & mask;
        /* Move it back only if its home is not behind the hole on the way to i. */
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            map->slots[hole] = map->slots[i];
            hole = i;
        }
    }
    map->slots[hole].value = NULL;
    map->count--;
    return value;
}

struct map_slot *map_next(const struct map *map, uint32_t *at)
{
    while (*at < map->capacity) {
        struct map_slot *slot = &map->slots[(*at)++];
        if (slot->value != NULL)
            return slot;
    }
    return NULL;
}

void map_done(struct map *map)
{
    free(map->slots);
    *map = (struct map){0};
}
