/* Hash table of pointers whose keys stand in what they point to: the caller gives the hash and
 * compares candidates. Twelve bytes a slot; open addressing, at most 3/4 full; deletion by shifting
 * back. For src/core only. */
#ifndef WEIR_CORE_CATALOG_TABLE_H
#define WEIR_CORE_CATALOG_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct table {
    void **values;
    uint32_t *hashes; /* 0 = free; stand behind the values */
    uint32_t capacity, count;
};

static inline uint32_t table_hash(uint64_t hash)
{
    uint32_t folded = (uint32_t)(hash ^ hash >> 32);
    return folded != 0 ? folded : 1;
}

/* The next value with that hash, NULL when there is none further. Begin with *at = hash. */
static inline void *table_next(const struct table *table, uint32_t hash, uint32_t *at)
{
    if (table->count == 0)
        return NULL;
    uint32_t mask = table->capacity - 1;
    for (uint32_t i = *at & mask;; i = (i + 1) & mask) {
        if (table->hashes[i] == hash) {
            *at = i + 1;
            return table->values[i];
        }
        if (table->hashes[i] == 0)
            return NULL;
    }
}

/* Room for one more, so that the next table_put succeeds. false when memory is exhausted. */
bool table_reserve(struct table *table) __attribute__((warn_unused_result));
/* Adds value; there must be room. */
void table_put(struct table *table, uint32_t hash, void *value);
/* Takes out that very value, or puts another with the same hash in its place. It must be in. */
void table_take(struct table *table, uint32_t hash, const void *value);
void table_swap(struct table *table, uint32_t hash, const void *value, void *other);
/* All values in an order that holds until the next change; NULL at the end. Begin with *at = 0. */
void *table_walk(const struct table *table, uint32_t *at);
void table_done(struct table *table);

#endif
