/* What the files of a repair share. */
#ifndef WEIR_STORE_REPAIR_INSIDE_H
#define WEIR_STORE_REPAIR_INSIDE_H

#include "store/repair.h"

#include <stdbool.h>
#include <stdint.h>

#define REPAIR_PATH_BYTES 4200

struct repair {
    const struct repair_config *config;
    const struct state_backend *backend; /* of what `state` is */
    struct state_memory *memory;         /* holds it, when nothing may be written */
    struct state *state;                 /* NULL: there is none */
    struct state_reader *reader;
    struct index_meta meta;
};

/* repair.c */
__attribute__((format(printf, 2, 3))) void repair_step(struct repair *repair, const char *format,
                                                       ...);
void repair_path(const struct repair *repair, const char *name, char out[REPAIR_PATH_BYTES]);
/* Copies a file of the cell aside, unless it is there already. */
enum err repair_aside(struct repair *repair, const char *name);
/* Makes `name` a copy of the file `from`, to be changed and then to replace it. */
enum err repair_copy(struct repair *repair, const char *from, const char *name,
                     struct disk_file **out);
/* The copy takes the place of the file: aside with that, sync, rename. Closes `file`. */
enum err repair_replace(struct repair *repair, const char *copy, struct disk_file *file,
                        const char *name);

/* repair_state.c */
/* Opens it, made anew when it was damaged, and reads where the journal begins. */
enum err repair_state(struct repair *repair);
/* Every row of one table. */
enum err repair_each(struct repair *repair, char table,
                     enum err (*each)(void *ctx, struct slice key, struct slice value), void *ctx);
/* Commits, after the state store was copied aside; or forgets the batch, when dry. */
enum err repair_commit(struct repair *repair, struct state_batch *batch);

/* repair_extent.c */
enum err repair_extents(struct repair *repair);

/* repair_journal.c */
enum err repair_journal(struct repair *repair);

#endif
