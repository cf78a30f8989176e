/* See catalog_table.h. */
#include "core/catalog_table.h"

#include <assert.h>
#include <stdlib.h>

static void insert(struct table *table, uint32_t hash, void *value)
{
    uint32_t mask = table->capacity - 1, i = hash & mask;
    while (table->hashes[i] != 0)
        i = (i + 1) & mask;
    table->hashes[i] = hash;
    table->values[i] = value;
}

bool table_reserve(struct table *table)
{
    if (table->count + 1 <= table->capacity - table->capacity / 4)
        return true;
    struct table grown = {.capacity = table->capacity == 0 ? 8 : table->capacity * 2};
    if (grown.capacity == 0)
        return false;
    grown.values = calloc(grown.capacity, sizeof(void *) + sizeof(uint32_t));
    if (grown.values == NULL)
        return false;
    grown.hashes = (uint32_t *)(void *)(grown.values + grown.capacity);
    for (uint32_t i = 0; i < table->capacity; i++) {
        if (table->hashes[i] != 0)
            insert(&grown, table->hashes[i], table->values[i]);
    }
    grown.count = table->count;
    free(table->values);
    *table = grown;
    return true;
}

void table_put(struct table *table, uint32_t hash, void *value)
{
    assert(hash != 0 && table->count < table->capacity);
    insert(table, hash, value);
    table->count++;
}

static uint32_t slot_of(const struct table *table, uint32_t hash, const void *value)
{
    uint32_t mask = table->capacity - 1;
    for (uint32_t i = hash & mask;; i = (i + 1) & mask) {
        assert(table->hashes[i] != 0);
        if (table->values[i] == value)
            return i;
    }
}

void table_take(struct table *table, uint32_t hash, const void *value)
{
    uint32_t mask = table->capacity - 1, hole = slot_of(table, hash, value);
    for (uint32_t i = (hole + 1) & mask; table->hashes[i] != 0; i = (i + 1) & mask) {
        /* Move it back only if its home is not behind the hole on the way to i. */
        if (((i - table->hashes[i]) & mask) >= ((i - hole) & mask)) {
            table->hashes[hole] = table->hashes[i];
            table->values[hole] = table->values[i];
            hole = i;
        }
    }
    table->hashes[hole] = 0;
    table->count--;
}

void table_swap(struct table *table, uint32_t hash, const void *value, void *other)
{
    table->values[slot_of(table, hash, value)] = other;
}

void *table_walk(const struct table *table, uint32_t *at)
{
    while (*at < table->capacity) {
        uint32_t i = (*at)++;
        if (table->hashes[i] != 0)
            return table->values[i];
    }
    return NULL;
}

void table_done(struct table *table)
{
    free(table->values);
    *table = (struct table){0};
}
