/* The table of a cell's extent files: loaded from the state store at start, kept in memory, with a
 * few files open for reading. A file goes when no row of the index points into it any more. */
#include "store/stored.h"

#include "store/inside.h"
#include "store/path.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OPEN_MAX 32u

/* Index of the first file with a number >= the given one. */
static uint32_t file_find(const struct extents *extents, uint64_t number)
{
    uint32_t low = 0, high = extents->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (extents->files[middle]->info.number < number)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct extent_file *extents_find(struct extents *extents, uint64_t number)
{
    uint32_t i = file_find(extents, number);
    return i < extents->count && extents->files[i]->info.number == number ? extents->files[i]
                                                                          : NULL;
}

enum err extents_add(struct extents *extents, const struct index_extent *info)
{
    if (extents->count == extents->room) {
        uint32_t room = extents->room == 0 ? 16 : extents->room * 2;
        struct extent_file **files = realloc(extents->files, room * sizeof *files);
        if (files == NULL)
            return ERR_NO_MEMORY;
        extents->files = files;
        extents->room = room;
    }
    struct extent_file *extent = calloc(1, sizeof *extent);
    if (extent == NULL)
        return ERR_NO_MEMORY;
    extent->info = *info;
    list_init(&extent->open);
    uint32_t i = file_find(extents, info->number);
    memmove(extents->files + i + 1, extents->files + i,
            (extents->count - i) * sizeof *extents->files);
    extents->files[i] = extent;
    extents->count++;
    return ERR_NONE;
}

static void file_close(struct extents *extents, struct extent_file *extent)
{
    if (extent->file == NULL)
        return;
    disk_close(extent->file);
    extent->file = NULL;
    list_remove(&extent->open);
    extents->open_count--;
}

enum err extents_file(struct store *store, struct extent_file *extent)
{
    struct extents *extents = &store->extents;
    if (extent->file == NULL) {
        list_each(node, &extents->open)
        {
            struct extent_file *old = list_entry(node, struct extent_file, open);
            if (extents->open_count < OPEN_MAX)
                break;
            if (old->refs == 0)
                file_close(extents, old);
        }
        char path[PATH_BYTES];
        store_path(store, "extent", extent->info.number, path);
        enum err err = disk_open(store->config.disk, path, false, &extent->file);
        if (err != ERR_NONE)
            return err == ERR_NOT_FOUND ? ERR_CORRUPT : err;
        extents->open_count++;
    }
    list_remove(&extent->open);
    list_insert(&extents->open, &extent->open);
    return ERR_NONE;
}

static void file_remove(struct store *store, uint32_t i)
{
    struct extents *extents = &store->extents;
    struct extent_file *extent = extents->files[i];
    extents->count--;
    memmove(extents->files + i, extents->files + i + 1,
            (extents->count - i) * sizeof *extents->files);
    remover_add(store, "extent", extent->info.number);
    keep_ends(store, extent->info.number);
    extent->removed = true;
    extent->refs++;
    extents_unref(store, extent);
}

void extents_unref(struct store *store, struct extent_file *extent)
{
    assert(extent->refs > 0);
    if (--extent->refs > 0 || !extent->removed)
        return;
    file_close(&store->extents, extent);
    free(extent);
}

void extents_sweep(struct store *store)
{
    struct extents *extents = &store->extents;
    for (uint32_t i = extents->count; i > 0; i--) {
        if (extents->files[i - 1]->info.blocks == 0)
            file_remove(store, i - 1);
    }
}

/* ---- Opening ---- */

static enum err extent_restore(void *ctx, struct slice key, struct slice value)
{
    struct store *store = ctx;
    struct index_extent info;
    if (!index_extent_get(key, value, &info)) {
        store_explain(store, "%s/state: damaged row of an extent", store->path);
        return ERR_CORRUPT;
    }
    return extents_add(&store->extents, &info);
}

static enum err object_restore(void *ctx, struct slice key, struct slice value)
{
    struct store *store = ctx;
    uint8_t kind;
    uint64_t id;
    struct slice object;
    if (!index_object_get(key, value, &kind, &id, &object)) {
        store_explain(store, "%s/state: damaged row of an object", store->path);
        return ERR_CORRUPT;
    }
    return store->handler->restore(store->ctx, kind, id, object);
}

static enum err table_each(struct store *store, char table,
                           enum err (*each)(void *ctx, struct slice key, struct slice value))
{
    uint8_t from = (uint8_t)table, to = (uint8_t)(table + 1);
    struct extents *extents = &store->extents;
    return store->config.state->each(extents->reader, (struct slice){.data = &from, .len = 1},
                                     (struct slice){.data = &to, .len = 1}, each, store);
}

static enum err meta_read(struct store *store)
{
    static const uint8_t any[1] = {0};
    struct extents *extents = &store->extents;
    struct index_key key;
    struct state_found found;
    index_meta_key(&key);
    enum err err = store->config.state->seek(extents->reader, index_key_slice(&key),
                                             STATE_AT_OR_BEFORE, &found);
    if (err == ERR_NOT_FOUND || (err == ERR_NONE && found.key[0] != 'M')) {
        /* With any row at all it was there once. */
        err = store->config.state->seek(extents->reader, (struct slice){.data = any, .len = 1},
                                        STATE_AT_OR_AFTER, &found);
        if (err == ERR_NONE) {
            store_explain(store, "%s/state: the meta row is missing", store->path);
            return ERR_CORRUPT;
        }
        return err;
    }
    struct slice name = {.data = found.key, .len = found.key_len};
    struct slice value = {.data = found.value, .len = found.value_len};
    if (err == ERR_NONE && (!index_meta_get(name, value, &extents->meta) ||
                            extents->meta.cell != store->config.cell)) {
        store_explain(store, "%s/state: damaged, or of another cell or version", store->path);
        return ERR_CORRUPT;
    }
    return err;
}

/* A crash can leave an extent that no commit came to know. */
struct strays {
    struct store *store;
    enum err err;
};

static void stray_note(void *ctx, const char *name)
{
    struct strays *strays = ctx;
    struct store *store = strays->store;
    uint64_t number;
    char path[PATH_BYTES];
    if (strays->err != ERR_NONE || !path_number(name, "extent", &number) ||
        extents_find(&store->extents, number) != NULL)
        return;
    store_path(store, "extent", number, path);
    strays->err = disk_remove(store->config.disk, path);
}

struct state_watch {
    struct store *store;
    bool damaged;
};

static void state_damaged(void *ctx, uint64_t offset, const char *what)
{
    struct state_watch *watch = ctx;
    struct store *store = watch->store;
    if (!watch->damaged) /* the first place will do */
        store_explain(store, "%s/state: %s at byte %" PRIu64, store->path, what, offset);
    watch->damaged = true;
}

/* A damaged state store is not even opened. */
static enum err state_check(struct store *store, const char *path)
{
    struct state_watch watch = {.store = store};
    struct state_check check = {
        .row_sound = index_row_sound, .damage = state_damaged, .ctx = &watch};
    enum err err = store->config.state->check(store->config.state, path, &check);
    return err == ERR_NONE && watch.damaged ? ERR_CORRUPT : err;
}

enum err extents_open(struct store *store)
{
    struct extents *extents = &store->extents;
    const struct state_backend *backend = store->config.state;
    extents->meta = (struct index_meta){.cell = store->config.cell, .index = 1, .next_extent = 1};
    if (backend == NULL)
        return ERR_NONE;
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/state", store->path);
    enum err err = state_check(store, path);
    if (err == ERR_NONE)
        err = backend->open(backend, path, false, &extents->state);
    if (err == ERR_NONE)
        err = backend->reader_open(extents->state, &extents->reader);
    if (err == ERR_NONE)
        err = meta_read(store);
    if (err == ERR_NONE)
        err = table_each(store, 'X', extent_restore);
    if (err == ERR_NONE)
        err = table_each(store, 'O', object_restore);
    if (err == ERR_NOT_FOUND) /* no checkpoint was ever committed */
        err = ERR_NONE;
    if (err == ERR_CORRUPT && store->config.problem != NULL && store->config.problem[0] == '\0')
        store_explain(store, "%s: not a state store", path);
    struct strays strays = {.store = store};
    if (err == ERR_NONE) {
        err = disk_list(store->config.disk, store->path, stray_note, &strays);
        err = err == ERR_NOT_FOUND ? ERR_NONE : err;
    }
    return err == ERR_NONE ? strays.err : err;
}

void extents_close(struct store *store)
{
    struct extents *extents = &store->extents;
    stored_drop_runs(store);
    while (stored_evict(store))
        continue;
    free(extents->table);
    for (uint32_t i = 0; i < extents->count; i++) {
        file_close(extents, extents->files[i]);
        free(extents->files[i]);
    }
    free(extents->files);
    if (extents->reader != NULL)
        store->config.state->reader_close(extents->reader);
    if (extents->state != NULL)
        store->config.state->close(extents->state);
}
