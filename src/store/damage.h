/* Telling damage from a torn write in a journal file. */
#ifndef WEIR_STORE_DAMAGE_H
#define WEIR_STORE_DAMAGE_H

#include "io/disk.h"

#include <stdint.h>

/* Searches the positions [from, end) of a journal file, whose first byte behind the header is
 * position `start`, for a valid frame that says that position `bad` and more had been synced when
 * it was written: then what stands at `bad` was once safe. *found is its position, or 0. Blocking.
 */
enum err damage_proof(struct disk_file *file, uint64_t start, uint64_t end, uint64_t from,
                      uint64_t bad, uint64_t *found) __attribute__((warn_unused_result));

/* The same for the first valid frame of an index of at least that much, whatever it says of damage.
 */
enum err damage_next(struct disk_file *file, uint64_t start, uint64_t end, uint64_t from,
                     uint64_t index, uint64_t *found) __attribute__((warn_unused_result));

#endif
