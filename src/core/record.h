/* Records: the facts a cell's journal is made of. A record is decided once, encoded into the
 * journal's memory and applied; replay decodes it and applies it again, through the same function.
 * Offsets, sizes and times in it are already chosen.
 *
 * Encoding (big-endian): u8 type, u8 targets, u16, u32, then by type
 *
 *   type          u16         u32     then
 *   APPEND        partitions  0       targets x {u64 object, u64 base}, entry
 *   BATCH         epoch       count   u64 object, u64 base, i64 producer, i32 sequence, i64 time
 *                                     (wall clock, ms), entry
 *   SETTLE        0           count   u64 queue, u64 body bytes, count x {u64 first, u64 last}
 *   RETURN        0           count   u64 queue, u64 0, count x {u64 first, u64 last}
 *   MOVE          partitions  0       u64 queue, u64 offset, u64 body bytes, targets x {u64 object,
 *                                     u64 base}, entry
 *   TRIM          0           0       u64 partition, u64 first
 *   DROP          0           0       u64 object
 *   CATALOG       0           0       the changes of one request (core/catalog_change.h)
 *   GROUP         0           0       bytes of core/group.c
 *   PRODUCER_IDS  0           0       u64 next free id
 *   NOTHING       0           0       bytes that mean nothing: a repair puts it where damage was
 *
 * APPEND puts one message into several streams, MOVE too, and settles it in the queue that it comes
 * from. So many of their targets, the first ones, are partitions, the others queues. */
#ifndef WEIR_CORE_RECORD_H
#define WEIR_CORE_RECORD_H

#include "base/slice.h"
#include "core/command.h"
#include "gen/err.h"

#include <stdbool.h>
#include <stdint.h>

enum record_type {
    RECORD_APPEND = 1,
    RECORD_BATCH,
    RECORD_SETTLE,
    RECORD_RETURN,
    RECORD_MOVE,
    RECORD_TRIM,
    RECORD_DROP,
    RECORD_CATALOG,
    RECORD_GROUP,
    RECORD_PRODUCER_IDS,
    RECORD_NOTHING,
};

enum { RECORD_TARGETS_MAX = 64 };

struct record_target {
    uint64_t object, base;
};

struct record {
    enum record_type type;
    /* APPEND, MOVE */
    uint32_t target_count, partition_count;
    struct record_target targets[RECORD_TARGETS_MAX]; /* BATCH uses the first */
    /* SETTLE, RETURN, MOVE, TRIM, DROP: the object; PRODUCER_IDS: the id */
    uint64_t object;
    uint64_t offset; /* MOVE: settled; TRIM: new first */
    uint64_t body_bytes;
    uint32_t range_count;
    struct slice ranges; /* range_count x {u64 first, u64 last}, big-endian, when decoded */
    /* BATCH */
    uint32_t count;
    int64_t producer_id;
    int16_t producer_epoch;
    int32_t sequence;
    int64_t time_ms;
    /* APPEND, BATCH, MOVE: the entry; CATALOG, GROUP: the bytes */
    struct slice bytes;
};

/* Adds a target to an APPEND or MOVE that has room for it: partitions stand first. */
void record_add_queue(struct record *record, uint64_t id, uint64_t base);
void record_add_partition(struct record *record, uint64_t id, uint64_t base);
/* Size of the fixed part: what record_put writes before ranges or bytes. */
size_t record_head_size(const struct record *record);
/* Writes the fixed part; returns where ranges or bytes go. */
uint8_t *record_put_head(uint8_t *at, const struct record *record);
/* Puts range i at its place behind the head. */
void record_put_range(uint8_t *ranges, uint32_t i, struct offset_range range);
struct offset_range record_range(const struct record *record, uint32_t i);
/* Slices borrow from `encoded`. ERR_CORRUPT when malformed. */
enum err record_decode(struct slice encoded, struct record *out);

#endif
