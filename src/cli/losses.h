/* What a repair found lost, gathered over all cells and told by name: messages by queue or
 * partition, and whatever else stood in what was damaged. */
#ifndef WEIR_CLI_LOSSES_H
#define WEIR_CLI_LOSSES_H

#include "base/map.h"
#include "base/ranges.h"
#include "core/catalog.h"
#include "store/repair.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Words that were said, each a line. */
struct lines {
    char **data;
    uint32_t count, room;
};

struct losses {
    struct map streams;  /* struct stream_loss, by id */
    struct lines others; /* of what is no message */
    struct lines steps;
    uint64_t frames, unread_bytes; /* of the journal, and what of them makes no sense */
    struct catalog *catalog;
    uint64_t catalog_base; /* changes below it are part of number 0 */
    uint8_t *changes;      /* of the journal: they follow the stored ones */
    size_t changes_len, changes_room;
    bool no_memory;
};

extern const struct repair_events losses_events; /* their ctx is the struct losses */

/* false: no memory. */
bool losses_init(struct losses *losses);
void losses_done(struct losses *losses);
/* Writes a line for each thing lost; to several files if need be. */
void losses_print(const struct losses *losses, FILE *to);

#endif
