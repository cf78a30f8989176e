/* The data folder as a whole: its lock, so that one broker uses it at a time, and what was decided
 * when it was made (the file `weir`, text, one `name = value` a line). */
#ifndef WEIR_SERVER_DATA_H
#define WEIR_SERVER_DATA_H

#include "gen/err.h"

#include <stdbool.h>
#include <stdint.h>

struct data_folder {
    int lock; /* file descriptor that holds the lock */
    uint32_t cells;
    uint8_t cluster_id[16];
    bool
        damaged; /* the file is, and was understood all the same: data_folder_write puts it right */
};

/* Makes the folder when it is absent (with that many cells), locks it and reads what it is.
 * `repair`: tries to make sense of a damaged file, too. On failure `problem` says why in words. */
enum err data_folder_open(const char *path, uint32_t cells, bool repair, struct data_folder *out,
                          char problem[512]) __attribute__((warn_unused_result));
/* Writes the file `weir` anew. */
enum err data_folder_write(const char *path, struct data_folder *data, char problem[512])
    __attribute__((warn_unused_result));
void data_folder_close(struct data_folder *data);

#endif
