/* The course of a repair. The state store comes first, for it says what else there is, then the
 * extents that it names, then the journal behind the checkpoint. Here stands also how a file is
 * replaced. */
#include "store/repair_inside.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define COPY_BYTES (1024u * 1024)

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

/* ---- All of it ---- */

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
    enum err err = repair_state(&repair);
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
