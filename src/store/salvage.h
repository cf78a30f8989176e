/* The rows of a damaged state store: all that can still be read of its LMDB file, whatever became
 * of the pages that lead to them. Nothing is written. */
#ifndef WEIR_STORE_SALVAGE_H
#define WEIR_STORE_SALVAGE_H

#include "base/slice.h"
#include "gen/err.h"

#include <stdbool.h>
#include <stdint.h>

struct salvage {
    /* A row whose checksum is right. `stray`: found beside the tree, so only good when no other row
     * has its key. */
    enum err (*row)(void *ctx, struct slice key, struct slice value, bool stray);
    /* A row that cannot be read; key as far as it can be. */
    void (*lost)(void *ctx, uint64_t offset, struct slice key);
    void *ctx;
    uint64_t rows, mended; /* read; of these, after a bit was turned back */
};

/* ERR_NOT_FOUND, ERR_IO, ERR_NO_MEMORY, what row returned; ERR_CORRUPT when not even the size of
 * its pages can be told. */
enum err salvage_rows(const char *path, struct salvage *salvage)
    __attribute__((warn_unused_result));

#endif
