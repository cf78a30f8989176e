/* The course of a repair. The state store comes first, for it says what else there is: when its
 * file is damaged, its rows are read out of the pages and put into a new one. Then the extents that
 * it names, then the journal behind the checkpoint. */
#include "store/repair_inside.h"

#include "store/salvage.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COPY_BYTES  (1024u * 1024)
#define BATCH_BYTES (8u * 1024 * 1024)

/* ---- Files ---- */

void repair_step(struct repair *repair, const char *format, ...)
{
    char text[REPAIR_PATH_BYTES + 400];
    int used = snprintf(text, sizeof text, "%s/", repair->config->path);
    va_list list;
    va_start(list, format);
    vsnprintf(text + used, sizeof text - (size_t)used, format, list);
    va_end(list);
    repair->config->events->step(repair->config->ctx, text);
}

void repair_path(const struct repair *repair, const char *name, char out[REPAIR_PATH_BYTES])
{
    snprintf(out, REPAIR_PATH_BYTES, "%s/%s", repair->config->path, name);
}

static enum err file_copy(struct disk *disk, const char *from, const char *to,
                          struct disk_file **out)
{
    struct disk_file *source, *target = NULL;
    uint64_t offset = 0;
    size_t got = COPY_BYTES;
    uint8_t *buffer = malloc(COPY_BYTES);
    if (buffer == NULL)
        return ERR_NO_MEMORY;
    enum err err = disk_open(disk, from, false, &source);
    if (err != ERR_NONE) {
        free(buffer);
        return err;
    }
    err = disk_open(disk, to, true, &target);
    while (err == ERR_NONE && got == COPY_BYTES) {
        err = disk_read_sync(source, buffer, COPY_BYTES, offset, &got);
        if (err == ERR_NONE && got > 0)
            err = disk_write_sync(target, buffer, got, offset);
        offset += got;
    }
    disk_close(source);
    free(buffer);
    if (err == ERR_NONE)
        *out = target;
    else if (target != NULL)
        disk_close(target);
    return err;
}

enum err repair_aside(struct repair *repair, const char *name)
{
    const struct repair_config *config = repair->config;
    char from[REPAIR_PATH_BYTES], to[REPAIR_PATH_BYTES], half[REPAIR_PATH_BYTES + 8];
    struct disk_file *file;
    repair_path(repair, name, from);
    snprintf(to, sizeof to, "%s/%s", config->aside, name);
    snprintf(half, sizeof half, "%s.half", to);
    enum err err = disk_open(config->disk, to, false, &file);
    if (err == ERR_NONE)
        disk_close(file); /* what stands there is the original */
    if (err != ERR_NOT_FOUND)
        return err;
    err = disk_make_folder(config->disk, config->aside);
    if (err == ERR_NONE)
        err = file_copy(config->disk, from, half, &file);
    if (err != ERR_NONE)
        return err;
    err = disk_sync(file);
    disk_close(file);
    if (err == ERR_NONE)
        err = disk_rename(config->disk, half, to);
    return err == ERR_NONE ? disk_sync_folder(config->disk, config->aside) : err;
}

enum err repair_copy(struct repair *repair, const char *from, const char *name,
                     struct disk_file **out)
{
    char source[REPAIR_PATH_BYTES], target[REPAIR_PATH_BYTES];
    repair_path(repair, from, source);
    repair_path(repair, name, target);
    enum err err = disk_remove(repair->config->disk, target); /* of a repair that was cut off */
    if (err != ERR_NONE && err != ERR_NOT_FOUND)
        return err;
    return file_copy(repair->config->disk, source, target, out);
}

enum err repair_replace(struct repair *repair, const char *copy, struct disk_file *file,
                        const char *name)
{
    struct disk *disk = repair->config->disk;
    char from[REPAIR_PATH_BYTES], to[REPAIR_PATH_BYTES];
    repair_path(repair, copy, from);
    repair_path(repair, name, to);
    enum err err = disk_sync(file);
    disk_close(file);
    if (err == ERR_NONE)
        err = repair_aside(repair, name);
    if (err == ERR_NONE)
        err = disk_rename(disk, from, to);
    return err == ERR_NONE ? disk_sync_folder(disk, repair->config->path) : err;
}

/* ---- The state store ---- */

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
    uint64_t lost;
};

static enum err rebuild_flush(struct rebuild *rebuild)
{
    return rebuild->batch.used == 0
               ? ERR_NONE
               : batch_commit(rebuild->repair->backend, rebuild->state, &rebuild->batch);
}

static enum err row_keep(void *ctx, struct slice key, struct slice value, bool stray)
{
    struct rebuild *rebuild = ctx;
    enum err err = ERR_NONE;
    if (stray) {
        struct state_found found;
        err = rebuild_flush(rebuild);
        if (err == ERR_NONE)
            err = rebuild->repair->backend->seek(rebuild->reader, key, STATE_AT_OR_AFTER, &found);
        if (err == ERR_NONE &&
            slice_equal(key, (struct slice){.data = found.key, .len = found.key_len}))
            return ERR_NONE;
        if (err != ERR_NONE && err != ERR_NOT_FOUND)
            return err;
    }
    state_batch_put(&rebuild->batch, key, value);
    if (rebuild->batch.failed)
        return ERR_NO_MEMORY;
    return rebuild->batch.used < BATCH_BYTES ? ERR_NONE : rebuild_flush(rebuild);
}

static void row_lost(void *ctx, uint64_t offset, struct slice key)
{
    struct rebuild *rebuild = ctx;
    rebuild->lost++;
    rebuild->repair->rows_lost = true;
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

static enum err state_repair(struct repair *repair)
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

static enum err object_tell(void *ctx, struct slice key, struct slice value)
{
    const struct repair_config *config = ctx;
    uint8_t kind;
    uint64_t id;
    struct slice object;
    if (index_object_get(key, value, &kind, &id, &object))
        config->events->object(config->ctx, kind, id, object);
    return ERR_NONE;
}

enum err repair_cell(const struct repair_config *config)
{
    struct repair repair = {.config = config, .backend = config->backend};
    enum err err = state_repair(&repair);
    if (err == ERR_NONE)
        err = repair_extents(&repair);
    if (err == ERR_NONE)
        err = repair_journal(&repair);
    if (err == ERR_NONE)
        err = repair_each(&repair, 'O', object_tell, (void *)(uintptr_t)config);
    if (repair.reader != NULL)
        repair.backend->reader_close(repair.reader);
    if (repair.state != NULL)
        repair.backend->close(repair.state);
    if (repair.memory != NULL)
        state_memory_destroy(repair.memory);
    return err;
}
