/* A queue of records of any length from one thread to one other, without locks: how shards talk.
 *
 * The producer reserves space, writes the record in place and commits it; ring_publish shows all
 * committed records to the consumer at once. The consumer reads records in place, in order. Records
 * are contiguous and 8-byte aligned. Each side touches the other's cache line only when it has run
 * out of what it knew. Waking the consumer is the caller's matter. */
#ifndef WEIR_BASE_RING_H
#define WEIR_BASE_RING_H

#include <stdbool.h>
#include <stddef.h>

enum { RING_BYTES_DEFAULT = 1 << 20 };

struct ring;

/* Capacity is a power of two, at least 4096. NULL when memory is exhausted. Pages that no record
 * has stood in take no memory. */
struct ring *ring_create(size_t capacity) __attribute__((warn_unused_result));

/* Neither side may be using it. */
void ring_destroy(struct ring *ring);

/* The longest record: whatever is in the ring, it fits once that was consumed. */
size_t ring_record_max(const struct ring *ring);

/* Producer. Space for a record of len (<= ring_record_max) bytes, NULL when the ring is full.
 * Calling it again without ring_commit gives the first space up. */
void *ring_reserve(struct ring *ring, size_t len) __attribute__((warn_unused_result));

/* Producer. The reserved record is complete. */
void ring_commit(struct ring *ring);

/* Producer. Shows committed records to the consumer. Whether there were any: then wake it. */
bool ring_publish(struct ring *ring);

/* Consumer. The oldest record, or NULL when there is none. The same one until ring_consume. */
const void *ring_peek(struct ring *ring, size_t *len);

/* Consumer. Done with the record that ring_peek gave. Its space is free for the producer at the
 * latest when ring_peek has returned NULL. */
void ring_consume(struct ring *ring);

#endif
