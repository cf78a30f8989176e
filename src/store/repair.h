/* Repairs one cell's folder that no broker uses: what is damaged is taken out or put right, so that
 * the cell opens and everything else in it is there. What verify_cell finds is repaired; what it
 * finds nothing in is left alone. Each file is copied aside before it is changed, and replaced as a
 * whole, by a rename; so a repair can be cut off at any point and begun again. Blocking; for
 * offline tools. */
#ifndef WEIR_STORE_REPAIR_H
#define WEIR_STORE_REPAIR_H

#include "base/slice.h"
#include "io/disk.h"
#include "store/index.h"
#include "store/state.h"

#include <stdbool.h>
#include <stdint.h>

/* What is lost and what is done, told before it is. */
struct repair_events {
    /* In words: a file and what becomes of it. */
    void (*step)(void *ctx, const char *text);
    /* A row of the state store; its key as far as it can be read, which may be no key at all. */
    void (*row_lost)(void *ctx, struct slice key);
    /* A block of a stream in an extent. */
    void (*block_lost)(void *ctx, const struct index_row *row);
    /* Frames of the journal, and what stands in their place: damaged, not to be relied on. */
    void (*frames_lost)(void *ctx, uint64_t frames, const uint8_t *data, size_t len);
    /* What is there, so that what is lost can be named: each record of the journal, then each
     * stored object. */
    void (*record)(void *ctx, struct slice record);
    void (*object)(void *ctx, uint8_t kind, uint64_t id, struct slice value);
};

struct repair_config {
    struct disk *disk;
    const struct state_backend *backend;
    const char *path;  /* the cell's folder */
    const char *aside; /* where originals are copied to; made when there is one */
    uint32_t cell;
    bool dry;             /* change nothing, tell only what would be done and what is lost */
    struct slice nothing; /* a record without effect; bytes behind it are without effect, too */
    const struct repair_events *events;
    void *ctx;
};

/* ERR_CORRUPT: something is wrong that it cannot repair, which was told as a step. */
enum err repair_cell(const struct repair_config *config) __attribute__((warn_unused_result));

#endif
