/* For tests of offline tools: a disk and a state store before which stands a count. The n-th of all
 * calls to either of them fails and does nothing. What stands behind is any disk and any backend.
 */
#ifndef WEIR_STORE_REPAIR_FAULT_H
#define WEIR_STORE_REPAIR_FAULT_H

#include "base/list.h"
#include "base/memory_double.h"
#include "io/disk.h"
#include "store/state.h"

#include <assert.h>
#include <stdlib.h>

struct fault {
    struct disk disk;
    struct state_backend backend;
    struct disk *disk_behind;
    const struct state_backend *backend_behind;
    uint64_t calls;   /* so far */
    uint64_t fail_at; /* that call fails; 0: none does */
    enum err err;     /* so */
    bool full;        /* the next commit needs more room first */
    int open;         /* files, state stores and readers */
};

struct fault_file {
    struct disk_file file;
    struct disk_file *behind;
};

struct state {
    struct fault *fault;
    struct state *behind;
};

struct state_reader {
    struct fault *fault;
    struct state_reader *behind;
};

static inline bool fault_hits(struct fault *self)
{
    return ++self->calls == self->fail_at;
}

static inline struct fault *fault_of(struct disk *disk)
{
    return list_entry(disk, struct fault, disk);
}

static inline struct disk_file *fault_behind(struct disk_file *file)
{
    return ((struct fault_file *)(void *)file)->behind;
}

static inline void *fault_memory(size_t bytes)
{
    memory_pause();
    void *memory = calloc(1, bytes);
    memory_resume();
    assert(memory != NULL);
    return memory;
}

/* ---- The disk ---- */

static inline enum err fault_open(struct disk *disk, const char *path, bool create,
                                  struct disk_file **out)
{
    struct fault *self = fault_of(disk);
    struct disk_file *behind;
    if (fault_hits(self))
        return self->err;
    memory_pause();
    enum err err = disk_open(self->disk_behind, path, create, &behind);
    memory_resume();
    if (err != ERR_NONE)
        return err;
    struct fault_file *file = fault_memory(sizeof *file);
    file->file.disk = disk;
    file->behind = behind;
    self->open++;
    *out = &file->file;
    return ERR_NONE;
}

static inline void fault_close(struct disk_file *file)
{
    fault_of(file->disk)->open--;
    disk_close(fault_behind(file));
    free(file);
}

static inline enum err fault_write(struct disk_file *file, const void *data, size_t len,
                                   uint64_t offset)
{
    struct fault *self = fault_of(file->disk);
    return fault_hits(self) ? self->err : disk_write_sync(fault_behind(file), data, len, offset);
}

static inline enum err fault_read(struct disk_file *file, void *into, size_t len, uint64_t offset,
                                  size_t *got)
{
    struct fault *self = fault_of(file->disk);
    *got = 0;
    return fault_hits(self) ? self->err
                            : disk_read_sync(fault_behind(file), into, len, offset, got);
}

static inline enum err fault_sync(struct disk_file *file)
{
    struct fault *self = fault_of(file->disk);
    return fault_hits(self) ? self->err : disk_sync(fault_behind(file));
}

static inline enum err fault_size(struct disk_file *file, uint64_t *bytes)
{
    struct fault *self = fault_of(file->disk);
    return fault_hits(self) ? self->err : disk_size(fault_behind(file), bytes);
}

static inline enum err fault_make_folder(struct disk *disk, const char *path)
{
    struct fault *self = fault_of(disk);
    return fault_hits(self) ? self->err : disk_make_folder(self->disk_behind, path);
}

static inline enum err fault_rename(struct disk *disk, const char *from, const char *to)
{
    struct fault *self = fault_of(disk);
    return fault_hits(self) ? self->err : disk_rename(self->disk_behind, from, to);
}

static inline enum err fault_remove(struct disk *disk, const char *path)
{
    struct fault *self = fault_of(disk);
    return fault_hits(self) ? self->err : disk_remove(self->disk_behind, path);
}

static inline enum err fault_sync_folder(struct disk *disk, const char *path)
{
    struct fault *self = fault_of(disk);
    return fault_hits(self) ? self->err : disk_sync_folder(self->disk_behind, path);
}

static inline enum err fault_list(struct disk *disk, const char *path,
                                  void (*each)(void *ctx, const char *name), void *ctx)
{
    struct fault *self = fault_of(disk);
    return fault_hits(self) ? self->err : disk_list(self->disk_behind, path, each, ctx);
}

static const struct disk_ops fault_disk_ops = {
    .open = fault_open,
    .close = fault_close,
    .write_sync = fault_write,
    .read_sync = fault_read,
    .sync_sync = fault_sync,
    .size = fault_size,
    .make_folder = fault_make_folder,
    .rename = fault_rename,
    .remove = fault_remove,
    .sync_folder = fault_sync_folder,
    .list = fault_list,
};

/* ---- The state store ---- */

static inline struct fault *fault_from(const struct state_backend *backend)
{
    return list_entry((struct state_backend *)(uintptr_t)backend, struct fault, backend);
}

static inline enum err fault_check(const struct state_backend *backend, const char *path,
                                   const struct state_check *check)
{
    struct fault *self = fault_from(backend);
    return fault_hits(self) ? self->err
                            : self->backend_behind->check(self->backend_behind, path, check);
}

static inline enum err fault_state_open(const struct state_backend *backend, const char *path,
                                        bool create, struct state **out)
{
    struct fault *self = fault_from(backend);
    struct state *behind;
    if (fault_hits(self))
        return self->err;
    enum err err = self->backend_behind->open(self->backend_behind, path, create, &behind);
    if (err != ERR_NONE)
        return err;
    *out = fault_memory(sizeof **out);
    **out = (struct state){.fault = self, .behind = behind};
    self->open++;
    return ERR_NONE;
}

static inline void fault_state_close(struct state *state)
{
    state->fault->open--;
    state->fault->backend_behind->close(state->behind);
    free(state);
}

static inline enum err fault_reader_open(struct state *state, struct state_reader **out)
{
    struct fault *self = state->fault;
    struct state_reader *behind;
    if (fault_hits(self))
        return self->err;
    enum err err = self->backend_behind->reader_open(state->behind, &behind);
    if (err != ERR_NONE)
        return err;
    *out = fault_memory(sizeof **out);
    **out = (struct state_reader){.fault = self, .behind = behind};
    self->open++;
    return ERR_NONE;
}

static inline void fault_reader_close(struct state_reader *reader)
{
    reader->fault->open--;
    reader->fault->backend_behind->reader_close(reader->behind);
    free(reader);
}

static inline enum err fault_seek(struct state_reader *reader, struct slice key,
                                  enum state_seek where, struct state_found *out)
{
    struct fault *self = reader->fault;
    return fault_hits(self) ? self->err
                            : self->backend_behind->seek(reader->behind, key, where, out);
}

static inline enum err fault_each(struct state_reader *reader, struct slice from, struct slice to,
                                  enum err (*each)(void *ctx, struct slice key, struct slice value),
                                  void *ctx)
{
    struct fault *self = reader->fault;
    return fault_hits(self) ? self->err
                            : self->backend_behind->each(reader->behind, from, to, each, ctx);
}

static inline enum err fault_commit(struct state *state, const struct state_batch *batch)
{
    struct fault *self = state->fault;
    bool full = self->full;
    if (fault_hits(self))
        return self->err;
    self->full = false;
    return full ? ERR_AGAIN : self->backend_behind->commit(state->behind, batch);
}

static inline enum err fault_grow(struct state *state)
{
    struct fault *self = state->fault;
    return fault_hits(self) ? self->err : self->backend_behind->grow(state->behind);
}

static inline void fault_init(struct fault *self, struct disk *disk,
                              const struct state_backend *backend)
{
    *self = (struct fault){.disk.ops = &fault_disk_ops,
                           .backend = {.check = fault_check,
                                       .open = fault_state_open,
                                       .close = fault_state_close,
                                       .reader_open = fault_reader_open,
                                       .reader_close = fault_reader_close,
                                       .seek = fault_seek,
                                       .each = fault_each,
                                       .commit = fault_commit,
                                       .grow = fault_grow},
                           .disk_behind = disk,
                           .backend_behind = backend,
                           .err = ERR_IO};
}

#endif
