/* A set of 64-bit numbers kept as sorted, disjoint, non-touching ranges: small when the numbers
 * come in runs. Adding at the end and taking from the front are O(1) amortized. */
#ifndef WEIR_BASE_RANGES_H
#define WEIR_BASE_RANGES_H

#include <stdbool.h>
#include <stdint.h>

struct range {
    uint64_t first, last; /* both inside */
};

struct ranges {
    struct range *items; /* of which `head`.. are in use */
    uint32_t head, count, capacity;
};

/* false when memory is exhausted; the set is then as before. */
bool ranges_add(struct ranges *ranges, uint64_t first, uint64_t last)
    __attribute__((warn_unused_result));
/* Takes out what is in first..last. false when memory is exhausted (splitting a range needs some).
 */
bool ranges_remove(struct ranges *ranges, uint64_t first, uint64_t last)
    __attribute__((warn_unused_result));
bool ranges_has(const struct ranges *ranges, uint64_t number);
/* The range that holds number, or the first behind it, NULL when there is none. */
const struct range *ranges_at(const struct ranges *ranges, uint64_t number);
/* Forgets everything below `from`. */
void ranges_cut(struct ranges *ranges, uint64_t from);
/* How many numbers are in it. */
uint64_t ranges_sum(const struct ranges *ranges);
static inline uint32_t ranges_count(const struct ranges *ranges)
{
    return ranges->count;
}
static inline const struct range *ranges_item(const struct ranges *ranges, uint32_t i)
{
    return &ranges->items[ranges->head + i];
}
void ranges_done(struct ranges *ranges);

#endif
