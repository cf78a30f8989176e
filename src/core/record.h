/* Records: the facts a cell's journal is made of. A record is decided once, encoded into the
 * journal's memory and applied; replay decodes it and applies it again, through the same function.
 * Offsets, sizes and times in it are already chosen.
 *
 * Encoding (big-endian), after u8 type, u8 n:
 *   APPEND        u16 0, u32 0, n x {u64 object, u64 base}, entry      one message to n streams
 *   BATCH         i16 epoch, u32 count, u64 object, u64 base, i64 producer, i32 sequence, entry
 *   SETTLE        u16 0, u32 count, u64 queue, u64 body bytes, count x {u64 first, u64 last}
 *   RETURN        u16 0, u32 count, u64 queue, u64 0, count x {u64 first, u64 last}
 *   MOVE          u16 0, u32 0, u64 queue, u64 offset, u64 body bytes, n x {u64 object, u64 base},
 * entry TRIM          u16 0, u32 0, u64 partition, u64 first DROP          u16 0, u32 0, u64 object
 *   CATALOG       u16 0, u32 0, one change (core/catalog.h)
 *   GROUP         u16 0, u32 0, bytes of core/group.c
 *   PRODUCER_IDS  u16 0, u32 0, u64 next free id */
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
};

enum { RECORD_TARGETS_MAX = 64 };

struct record_target {
    uint64_t object, base;
};

struct record {
    enum record_type type;
    /* APPEND, MOVE */
    uint32_t target_count;
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
    /* APPEND, BATCH, MOVE: the entry; CATALOG, GROUP: the bytes */
    struct slice bytes;
};

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
