/* Sorted array of ranges with a movable front. Searches are binary; the ends are tried first. */
#include "base/ranges.h"

#include <stdlib.h>
#include <string.h>

static struct range *items_of(const struct ranges *ranges)
{
    return ranges->items + ranges->head;
}

/* Index of the first range whose last is >= number; count when there is none. */
static uint32_t find(const struct ranges *ranges, uint64_t number)
{
    const struct range *items = items_of(ranges);
    uint32_t low = 0, high = ranges->count;
    if (high > 0 && items[high - 1].last < number)
        return high;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (items[middle].last < number)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool room_for_one(struct ranges *ranges)
{
    if (ranges->head + ranges->count < ranges->capacity)
        return true;
    if (ranges->head > ranges->capacity / 2) {
        memmove(ranges->items, items_of(ranges), ranges->count * sizeof *ranges->items);
        ranges->head = 0;
        return true;
    }
    uint32_t capacity = ranges->capacity == 0 ? 4 : ranges->capacity * 2;
    struct range *items = realloc(ranges->items, capacity * sizeof *items);
    if (items == NULL)
        return false;
    ranges->items = items;
    ranges->capacity = capacity;
    return true;
}

static bool insert_at(struct ranges *ranges, uint32_t i, struct range range)
{
    if (!room_for_one(ranges))
        return false;
    struct range *items = items_of(ranges);
    memmove(items + i + 1, items + i, (ranges->count - i) * sizeof *items);
    items[i] = range;
    ranges->count++;
    return true;
}

static void remove_items(struct ranges *ranges, uint32_t i, uint32_t n)
{
    struct range *items = items_of(ranges);
    if (i == 0) {
        ranges->head += n;
    } else {
        memmove(items + i, items + i + n, (ranges->count - i - n) * sizeof *items);
    }
    ranges->count -= n;
    if (ranges->count == 0)
        ranges->head = 0;
}

bool ranges_add(struct ranges *ranges, uint64_t first, uint64_t last)
{
    /* The first range that touches or follows first - 1. */
    uint32_t i = find(ranges, first == 0 ? 0 : first - 1);
    struct range *items = items_of(ranges);
    uint64_t beyond = last == UINT64_MAX ? last : last + 1;
    if (i == ranges->count || items[i].first > beyond)
        return insert_at(ranges, i, (struct range){first, last});
    if (items[i].first > first)
        items[i].first = first;
    uint32_t j = i;
    while (j + 1 < ranges->count && items[j + 1].first <= beyond)
        j++;
    if (items[j].last > last)
        last = items[j].last;
    if (items[i].last < last)
        items[i].last = last;
    if (j > i)
        remove_items(ranges, i + 1, j - i);
    return true;
}

bool ranges_remove(struct ranges *ranges, uint64_t first, uint64_t last)
{
    uint32_t i = find(ranges, first);
    if (i == ranges->count || items_of(ranges)[i].first > last)
        return true;
    struct range *at = &items_of(ranges)[i];
    if (at->first < first && at->last > last) {
        struct range behind = {last + 1, at->last};
        if (!insert_at(ranges, i + 1, behind))
            return false;
        items_of(ranges)[i].last = first - 1;
        return true;
    }
    if (at->first < first) {
        at->last = first - 1;
        i++;
    }
    uint32_t n = 0;
    while (i + n < ranges->count && items_of(ranges)[i + n].last <= last)
        n++;
    if (n > 0)
        remove_items(ranges, i, n);
    if (i < ranges->count && items_of(ranges)[i].first <= last)
        items_of(ranges)[i].first = last + 1;
    return true;
}

bool ranges_has(const struct ranges *ranges, uint64_t number)
{
    const struct range *at = ranges_at(ranges, number);
    return at != NULL && at->first <= number;
}

const struct range *ranges_at(const struct ranges *ranges, uint64_t number)
{
    uint32_t i = find(ranges, number);
    return i == ranges->count ? NULL : &items_of(ranges)[i];
}

void ranges_cut(struct ranges *ranges, uint64_t from)
{
    uint32_t i = find(ranges, from);
    if (i > 0)
        remove_items(ranges, 0, i);
    if (ranges->count > 0 && items_of(ranges)->first < from)
        items_of(ranges)->first = from;
}

uint64_t ranges_sum(const struct ranges *ranges)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < ranges->count; i++)
        sum += items_of(ranges)[i].last - items_of(ranges)[i].first + 1;
    return sum;
}

void ranges_done(struct ranges *ranges)
{
    free(ranges->items);
    *ranges = (struct ranges){0};
}
