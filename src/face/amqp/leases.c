/* The ring of unacknowledged deliveries of a channel, in order of tags. Acknowledging in order
 * takes from the front; out of order leaves marks that go when the front reaches them. */
#include "face/amqp/amqp.h"

#include <stdlib.h>

enum { CAPACITY_MIN = 16 };

static bool grow(struct leases *leases)
{
    uint32_t capacity = leases->capacity ? leases->capacity * 2 : CAPACITY_MIN;
    if (capacity < leases->capacity)
        return false;
    struct lease *items = malloc(capacity * sizeof *items);
    if (!items)
        return false;
    for (uint32_t i = 0; i < leases->count; i++)
        items[i] = *leases_at(leases, i);
    free(leases->items);
    leases->items = items;
    leases->capacity = capacity;
    leases->head = 0;
    return true;
}

bool leases_add(struct leases *leases, const struct lease *lease)
{
    if (leases->count == leases->capacity && !grow(leases))
        return false;
    *leases_at(leases, leases->count) = *lease;
    leases->count++;
    leases->live++;
    return true;
}

static uint64_t tag_at(const struct leases *leases, uint32_t index)
{
    return leases_at(leases, index)->tag & LEASE_TAG;
}

int64_t leases_find(const struct leases *leases, uint64_t tag)
{
    if (leases->count == 0)
        return -1;
    uint64_t first = tag_at(leases, 0);
    if (tag < first)
        return -1;
    /* Tags mostly follow each other; deliveries without acknowledgement leave gaps. */
    uint32_t low = 0, high = leases->count;
    uint64_t guess = tag - first;
    if (guess < high && tag_at(leases, (uint32_t)guess) == tag) {
        low = (uint32_t)guess;
    } else {
        while (high - low > 1) {
            uint32_t middle = low + (high - low) / 2;
            if (tag_at(leases, middle) <= tag)
                low = middle;
            else
                high = middle;
        }
    }
    const struct lease *lease = leases_at(leases, low);
    bool found = (lease->tag & LEASE_TAG) == tag && !(lease->tag & LEASE_DONE);
    return found ? (int64_t)low : -1;
}

void leases_done(struct leases *leases, uint32_t index)
{
    leases_at(leases, index)->tag |= LEASE_DONE;
    leases->live--;
}

void leases_trim(struct leases *leases)
{
    while (leases->count > 0 && leases_at(leases, 0)->tag & LEASE_DONE) {
        leases->head = (leases->head + 1) & (leases->capacity - 1);
        leases->count--;
    }
}

void leases_clear(struct leases *leases)
{
    free(leases->items);
    *leases = (struct leases){0};
}
