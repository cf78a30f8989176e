/* The state store of a cell that is repaired. When its file is damaged, its rows are read out of
 * the pages and put into a new one, which takes its place; a dry repair puts them into memory. */
#include "store/repair_inside.h"

#include "store/salvage.h"

#include <inttypes.h>

#define BATCH_BYTES  (8u * 1024 * 1024)
#define STRAYS_BYTES (64u * 1024)

enum err repair_each(struct repair *repair, char table,
                     enum err (*each)(void *ctx, struct slice key, struct slice value), void *ctx)
{
    uint8_t from = (uint8_t)table, to = (uint8_t)(table + 1);
    if (repair->state == NULL)
        return ERR_NONE;
    return repair->backend->each(repair->reader, (struct slice){.data = &from, .len = 1},
                                 (struct slice){.data = &to, .len = 1}, each, ctx);
}

static enum err batch_commit(const struct state_backend *backend, struct state *state,
                             struct state_batch *batch)
{
    enum err err = backend->commit(state, batch);
    while (err == ERR_AGAIN) {
        err = backend->grow(state);
        if (err == ERR_NONE)
            err = backend->commit(state, batch);
    }
    state_batch_done(batch);
    return err;
}

enum err repair_commit(struct repair *repair, struct state_batch *batch)
{
    enum err err = repair->config->dry ? ERR_NONE : repair_aside(repair, "state");
    if (repair->config->dry || (err != ERR_NONE && err != ERR_NOT_FOUND)) {
        state_batch_done(batch);
        return err;
    }
    return batch_commit(repair->backend, repair->state, batch);
}

/* The new state store while rows are read out of the old one. */
struct rebuild {
    struct repair *repair;
    struct state *state;
    struct state_reader *reader;
    struct state_batch batch;
    bool strays; /* now come those that stand beside the tree */
    uint64_t lost;
};

static enum err rebuild_flush(struct rebuild *rebuild)
{
    return rebuild->batch.used == 0
               ? ERR_NONE
               : batch_commit(rebuild->repair->backend, rebuild->state, &rebuild->batch);
}

static bool batch_has(const struct state_batch *batch, struct slice wanted)
{
    struct slice key, value;
    for (size_t at = 0; state_batch_next(batch, &at, &key, &value);) {
        if (slice_equal(key, wanted))
            return true;
    }
    return false;
}

/* Is there a row of the key already, committed or about to be? */
static enum err row_seek(struct rebuild *rebuild, struct slice key, bool *there)
{
    struct state_found found;
    *there = batch_has(&rebuild->batch, key);
    if (*there)
        return ERR_NONE;
    enum err err = rebuild->repair->backend->seek(rebuild->reader, key, STATE_AT_OR_AFTER, &found);
    *there = err == ERR_NONE &&
             slice_equal(key, (struct slice){.data = found.key, .len = found.key_len});
    return err == ERR_NOT_FOUND ? ERR_NONE : err;
}

/* Stray rows come last, and are searched for in their batch: that is kept short. */
static enum err row_keep(void *ctx, struct slice key, struct slice value, bool stray)
{
    struct rebuild *rebuild = ctx;
    enum err err = stray && !rebuild->strays ? rebuild_flush(rebuild) : ERR_NONE;
    bool there = false;
    rebuild->strays = stray;
    if (err == ERR_NONE && stray)
        err = row_seek(rebuild, key, &there);
    if (err != ERR_NONE || there)
        return err;
    state_batch_put(&rebuild->batch, key, value);
    if (rebuild->batch.failed)
        return ERR_NO_MEMORY;
    return rebuild->batch.used < (stray ? STRAYS_BYTES : BATCH_BYTES) ? ERR_NONE
                                                                      : rebuild_flush(rebuild);
}

static void row_lost(void *ctx, uint64_t offset, struct slice key)
{
    struct rebuild *rebuild = ctx;
    rebuild->lost++;
    repair_step(rebuild->repair, "state: the row at byte %" PRIu64 " cannot be read", offset);
    rebuild->repair->config->events->row_lost(rebuild->repair->config->ctx, key);
}

static enum err fresh_remove(struct repair *repair)
{
    static const char *const names[] = {"state-repair", "state-repair-lock", "state-repair-new",
                                        "state-repair-new-lock"};
    char path[REPAIR_PATH_BYTES];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        repair_path(repair, names[i], path);
        enum err err = disk_remove(repair->config->disk, path);
        if (err != ERR_NONE && err != ERR_NOT_FOUND)
            return err;
    }
    return ERR_NONE;
}

/* Reads the rows out of the old file into the new one. */
static enum err rows_move(struct repair *repair, const char *old, const char *fresh)
{
    const struct state_backend *backend = repair->backend;
    struct rebuild rebuild = {.repair = repair};
    enum err err = backend->open(backend, fresh, true, &rebuild.state);
    if (err != ERR_NONE)
        return err;
    err = backend->reader_open(rebuild.state, &rebuild.reader);
    struct salvage salvage = {.row = row_keep, .lost = row_lost, .ctx = &rebuild};
    if (err == ERR_NONE)
        err = salvage_rows(old, &salvage);
    if (err == ERR_NONE)
        err = rebuild_flush(&rebuild);
    state_batch_done(&rebuild.batch);
    if (rebuild.reader != NULL)
        backend->reader_close(rebuild.reader);
    backend->close(rebuild.state);
    if (err == ERR_NONE)
        repair_step(repair,
                    "state: %" PRIu64 " rows are kept, %" PRIu64
                    " of them with a bit turned back; %" PRIu64 " are lost",
                    salvage.rows, salvage.mended, rebuild.lost);
    return err;
}

static enum err state_rebuild(struct repair *repair)
{
    char old[REPAIR_PATH_BYTES], fresh[REPAIR_PATH_BYTES];
    struct disk_file *file;
    repair_path(repair, "state", old);
    repair_path(repair, "state-repair", fresh);
    repair_step(repair, "state: is damaged, and made anew of the rows that can be read");
    if (repair->config->dry) { /* it is rebuilt in memory */
        repair->memory = state_memory_create();
        if (repair->memory == NULL)
            return ERR_NO_MEMORY;
        repair->backend = state_memory_backend(repair->memory);
        return rows_move(repair, old, old);
    }
    enum err err = fresh_remove(repair);
    if (err == ERR_NONE)
        err = rows_move(repair, old, fresh);
    if (err == ERR_NONE)
        err = disk_open(repair->config->disk, fresh, false, &file);
    if (err == ERR_NONE)
        err = repair_replace(repair, "state-repair", file, "state");
    return err == ERR_NONE ? fresh_remove(repair) : err;
}

static void damage_note(void *ctx, uint64_t offset, const char *what)
{
    bool *damaged = ctx;
    (void)offset, (void)what;
    *damaged = true;
}

static enum err meta_note(void *ctx, struct slice key, struct slice value)
{
    struct repair *repair = ctx;
    return index_meta_get(key, value, &repair->meta) && repair->meta.cell == repair->config->cell
               ? ERR_NONE
               : ERR_CORRUPT;
}

/* Is there any row? With one, the meta row must be there, too. */
static enum err row_note(void *ctx, struct slice key, struct slice value)
{
    (void)key, (void)value;
    *(bool *)ctx = true;
    return ERR_NONE;
}

static enum err meta_read(struct repair *repair)
{
    bool any = false;
    repair->meta = (struct index_meta){.cell = UINT32_MAX, .index = 1, .next_extent = 1};
    enum err err = repair_each(repair, 'M', meta_note, repair);
    if (err == ERR_NONE && repair->meta.cell == UINT32_MAX) {
        err = repair_each(repair, 'X', row_note, &any);
        if (err == ERR_NONE)
            err = repair_each(repair, 'O', row_note, &any);
        if (err == ERR_NONE && any)
            err = ERR_CORRUPT;
        repair->meta.cell = repair->config->cell;
    }
    if (err == ERR_CORRUPT)
        repair_step(repair, "state: the row that says where the journal begins is lost, and this "
                            "cell cannot be repaired without it");
    return err;
}

enum err repair_state(struct repair *repair)
{
    const struct state_backend *backend = repair->config->backend;
    char path[REPAIR_PATH_BYTES];
    bool damaged = false;
    struct state_check check = {
        .all = true, .row_sound = index_row_sound, .damage = damage_note, .ctx = &damaged};
    repair_path(repair, "state", path);
    enum err err = backend->check(backend, path, &check);
    if (err == ERR_NONE && damaged)
        err = state_rebuild(repair);
    if (err == ERR_NONE)
        err = repair->backend->open(repair->backend, path, false, &repair->state);
    if (err == ERR_NOT_FOUND)
        err = ERR_NONE;
    if (err == ERR_NONE && repair->state != NULL)
        err = repair->backend->reader_open(repair->state, &repair->reader);
    return err == ERR_NONE ? meta_read(repair) : err;
}
