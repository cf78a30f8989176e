/* Verifies one cell's folder that no broker uses: every checksum of the journal behind the
 * checkpoint, of the extents and of the state store, and that the index and the extents agree.
 * Reads only; blocking; for offline tools. */
#ifndef WEIR_STORE_VERIFY_H
#define WEIR_STORE_VERIFY_H

#include "io/disk.h"
#include "store/state.h"

#include <stdint.h>

struct verify_report {
    uint64_t damaged;                               /* places, each told to `damage` */
    uint64_t objects[256];                          /* by kind */
    uint64_t streams, blocks, entries, entry_bytes; /* in extents, as the index says */
    uint64_t extents, extent_bytes, dead_blocks;
    uint64_t journal_files, frames, records, record_bytes; /* behind the checkpoint */
    uint64_t position, end;                                /* of the checkpoint, of the journal */
    uint64_t strays; /* files a crash left; the next start removes them */
    /* One place, in words with file and byte offset. */
    void (*damage)(void *ctx, const char *text);
    /* What may be damage or not: a last write that is not whole. */
    void (*doubt)(void *ctx, const char *text);
    void *ctx;
};

/* Adds to the report. An error means that verifying itself was not possible (reading, memory). */
enum err verify_cell(struct disk *disk, const struct state_backend *backend, const char *path,
                     uint32_t cell, struct verify_report *report)
    __attribute__((warn_unused_result));

#endif
