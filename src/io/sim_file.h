/* The content of one simulated file: what programs read, and what a power cut would leave of it.
 * Pages of 4 KiB made when first written; absent ones are zeroes. */
#ifndef WEIR_IO_SIM_FILE_H
#define WEIR_IO_SIM_FILE_H

#include "io/sim_random.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SIM_SECTOR_BYTES = 512, SIM_PAGE_BYTES = 4096 };

struct sim_page;

struct sim_file {
    struct sim_page ***pages; /* two levels: page n is pages[n / 64][n % 64] */
    size_t chunks;
    struct sim_page *dirty; /* pages with bytes that are not synced */
    struct sim_page *lost;  /* pages that a failed sync has taken for clean */
    uint64_t size, size_synced;
    uint64_t last_sector; /* number of the sector written last */
};

void sim_file_done(struct sim_file *file);

/* False when memory is exhausted. */
bool sim_file_write(struct sim_file *file, const void *data, size_t len, uint64_t offset);

/* Bytes that stand between offset and the end, at most len. */
size_t sim_file_read(const struct sim_file *file, void *into, size_t len, uint64_t offset);

/* Makes it at least `size` long, with zeroes. */
void sim_file_grow(struct sim_file *file, uint64_t size);

/* All that was written survives from now on. */
void sim_file_sync(struct sim_file *file);

/* A sync that fails: what was written before it is still read, but no later sync saves it, unless
 * it is written again. */
void sim_file_sync_fail(struct sim_file *file);

/* A power cut: keeps, drops or tears what was not synced, and calls the result synced. */
void sim_file_cut(struct sim_file *file, struct sim_random *random);

#endif
