/* A cell's state store: an ordered map from keys to values, changed only by batches that take
 * effect as a whole or not at all, and durable when commit returns. The checkpoint is the only
 * writer. Two backends: LMDB (one file per cell), and memory, for simulation, where what was
 * committed survives a simulated crash.
 *
 * Threads: commit and grow are called by one thread at a time; each reader belongs to one thread,
 * and readers may read while a commit is under way (they see what was committed before). */
#ifndef WEIR_STORE_STATE_H
#define WEIR_STORE_STATE_H

#include "base/slice.h"
#include "gen/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STATE_KEY_MAX   32u
#define STATE_VALUE_MAX 256u /* of values that seek returns; those of state_each have no limit */

struct state;
struct state_reader;

/* Puts and deletes, in order. A failed addition (memory) makes the batch fail as a whole. */
struct state_batch {
    uint8_t *data;
    size_t used, room;
    bool failed;
};

void state_batch_put(struct state_batch *batch, struct slice key, struct slice value);
/* The value is the two parts together. */
void state_batch_put_parts(struct state_batch *batch, struct slice key, struct slice first,
                           struct slice second);
void state_batch_delete(struct state_batch *batch, struct slice key); /* fine when it is absent */
void state_batch_done(struct state_batch *batch);
/* *at starts at 0; false at the end. value->data == NULL: a deletion. */
bool state_batch_next(const struct state_batch *batch, size_t *at, struct slice *key,
                      struct slice *value);

enum state_seek {
    STATE_AT_OR_AFTER,  /* the first key >= the given one */
    STATE_AT_OR_BEFORE, /* the last key <= it */
};

/* What a seek found; holds until the next one with the same struct. */
struct state_found {
    uint8_t key[STATE_KEY_MAX];
    uint8_t value[STATE_VALUE_MAX];
    size_t key_len, value_len;
};

/* What looking for damage asks and tells. */
struct state_check {
    bool all; /* also what only costs room */
    /* Is the row as it was written? NULL: rows are not asked about. */
    bool (*row_sound)(struct slice key, struct slice value);
    void (*damage)(void *ctx, uint64_t offset, const char *what); /* a byte of the file */
    void *ctx;
};

struct state_backend {
    /* path names one file (and, beside it, whatever the backend needs). ERR_NOT_FOUND when it is
     * absent and create is false; ERR_CORRUPT when it is not a state store. */
    enum err (*open)(const struct state_backend *self, const char *path, bool create,
                     struct state **out);
    /* Looks for damage that using the store would not notice, or not survive; before it is opened.
     * ERR_NONE also when it is absent, and when there is damage. */
    enum err (*check)(const struct state_backend *self, const char *path,
                      const struct state_check *check);
    void (*close)(struct state *state); /* after its readers */
    enum err (*reader_open)(struct state *state, struct state_reader **out);
    void (*reader_close)(struct state_reader *reader);
    /* ERR_NOT_FOUND when there is none. A value longer than STATE_VALUE_MAX is cut. */
    enum err (*seek)(struct state_reader *reader, struct slice key, enum state_seek where,
                     struct state_found *out);
    /* Every pair with from <= key < to, in order, until each returns an error. It may seek with
     * the same reader. */
    enum err (*each)(struct state_reader *reader, struct slice from, struct slice to,
                     enum err (*each)(void *ctx, struct slice key, struct slice value), void *ctx);
    /* ERR_AGAIN: the map is full: call grow, then commit again. ERR_DISK_FULL, ERR_IO: nothing
     * was changed. */
    enum err (*commit)(struct state *state, const struct state_batch *batch);
    enum err (*grow)(struct state *state); /* no reader or commit at work meanwhile */
};

/* LMDB. */
extern const struct state_backend state_lmdb;

/* Memory: a world of named state stores that outlives the stores that use it. */
struct state_memory;
struct state_memory *state_memory_create(void);
void state_memory_destroy(struct state_memory *world);
const struct state_backend *state_memory_backend(struct state_memory *world);

#endif
