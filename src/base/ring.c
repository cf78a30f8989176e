/* Positions count bytes since the beginning and never wrap; position & mask is the place. A record
 * is a 4-byte length, 4 bytes of nothing, and its bytes, rounded up to 8. One that does not fit
 * before the end of the memory leaves a skip mark and starts over at the front. The producer also
 * starts over early when the consumer has caught up, so that a ring with little traffic lives in a
 * few pages, which stay in the cache. */
#include "base/ring.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

enum {
    CACHE_LINE = 64,
    HEADER_BYTES = 8,
    CAPACITY_MIN = 4096,
    FRONT_BYTES = 32 << 10, /* beyond this place the producer looks whether it can start over */
};

static const uint32_t SKIP = UINT32_MAX;

struct ring {
    uint8_t *data;
    size_t capacity;

    /* Producer's own. */
    _Alignas(CACHE_LINE) size_t head; /* end of the committed records */
    size_t reserved;                  /* size of the one being written; 0: none */
    size_t tail_seen;
    size_t head_shown;

    _Alignas(CACHE_LINE) atomic_size_t head_shared;

    /* Consumer's own. */
    _Alignas(CACHE_LINE) size_t tail; /* start of the oldest record that is not consumed */
    size_t peeked;                    /* size of that one, once looked at; 0: not */
    size_t head_seen;
    size_t tail_shown;

    _Alignas(CACHE_LINE) atomic_size_t tail_shared;
};

struct ring *ring_create(size_t capacity)
{
    assert(capacity >= CAPACITY_MIN && (capacity & (capacity - 1)) == 0);
    struct ring *ring = aligned_alloc(CACHE_LINE, sizeof *ring);
    if (ring == NULL)
        return NULL;
    *ring = (struct ring){.capacity = capacity, .data = malloc(capacity)};
    if (ring->data == NULL) {
        free(ring);
        return NULL;
    }
    atomic_init(&ring->head_shared, 0);
    atomic_init(&ring->tail_shared, 0);
    return ring;
}

void ring_destroy(struct ring *ring)
{
    if (ring == NULL)
        return;
    free(ring->data);
    free(ring);
}

size_t ring_record_max(const struct ring *ring)
{
    return ring->capacity / 2 - HEADER_BYTES;
}

static uint8_t *place(const struct ring *ring, size_t position)
{
    return ring->data + (position & (ring->capacity - 1));
}

static uint32_t *length_at(const struct ring *ring, size_t position)
{
    return (uint32_t *)(void *)place(ring, position);
}

static size_t to_end(const struct ring *ring, size_t position)
{
    return ring->capacity - (position & (ring->capacity - 1));
}

static size_t record_size(size_t len)
{
    return HEADER_BYTES + ((len + 7) & ~(size_t)7);
}

static bool room_for(struct ring *ring, size_t size)
{
    if (ring->head + size - ring->tail_seen <= ring->capacity)
        return true;
    ring->tail_seen = atomic_load_explicit(&ring->tail_shared, memory_order_acquire);
    return ring->head + size - ring->tail_seen <= ring->capacity;
}

/* At the start of a batch, far from the front: is all before it consumed? */
static bool starts_over(struct ring *ring)
{
    if (ring->head != ring->head_shown || ring->capacity - to_end(ring, ring->head) < FRONT_BYTES)
        return false;
    ring->tail_seen = atomic_load_explicit(&ring->tail_shared, memory_order_acquire);
    return ring->tail_seen == ring->head;
}

void *ring_reserve(struct ring *ring, size_t len)
{
    size_t size = record_size(len);
    assert(len <= ring_record_max(ring));
    size_t rest = to_end(ring, ring->head);
    if (size > rest || starts_over(ring)) {
        if (!room_for(ring, rest + size))
            return NULL;
        *length_at(ring, ring->head) = SKIP;
        ring->head += rest;
    } else if (!room_for(ring, size)) {
        return NULL;
    }
    *length_at(ring, ring->head) = (uint32_t)len;
    ring->reserved = size;
    return place(ring, ring->head) + HEADER_BYTES;
}

void ring_commit(struct ring *ring)
{
    assert(ring->reserved > 0);
    ring->head += ring->reserved;
    ring->reserved = 0;
}

bool ring_publish(struct ring *ring)
{
    if (ring->head == ring->head_shown)
        return false;
    ring->head_shown = ring->head;
    atomic_store_explicit(&ring->head_shared, ring->head, memory_order_release);
    return true;
}

static void tail_show(struct ring *ring)
{
    if (ring->tail_shown == ring->tail)
        return;
    ring->tail_shown = ring->tail;
    atomic_store_explicit(&ring->tail_shared, ring->tail, memory_order_release);
}

const void *ring_peek(struct ring *ring, size_t *len)
{
    for (;;) {
        if (ring->tail == ring->head_seen) {
            tail_show(ring);
            ring->head_seen = atomic_load_explicit(&ring->head_shared, memory_order_acquire);
            if (ring->tail == ring->head_seen)
                return NULL;
        }
        uint32_t length = *length_at(ring, ring->tail);
        if (length != SKIP) {
            ring->peeked = record_size(length);
            *len = length;
            return place(ring, ring->tail) + HEADER_BYTES;
        }
        ring->tail += to_end(ring, ring->tail);
    }
}

void ring_consume(struct ring *ring)
{
    assert(ring->peeked > 0);
    ring->tail += ring->peeked;
    ring->peeked = 0;
    if (ring->tail - ring->tail_shown > ring->capacity / 4)
        tail_show(ring);
}
