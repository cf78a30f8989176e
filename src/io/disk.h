/* Files for one shard, completion-shaped: a request is submitted with a struct disk_op that the
 * caller embeds and keeps alive until done() is called, later, on the shard's own thread (from
 * loop_turn, never from inside the submit call). Two backends stand behind it: real (a few helper
 * threads that write, fdatasync and read) and sim (deterministic; drops and tears unsynced bytes
 * at a crash, injects EIO, ENOSPC and short writes).
 *
 * Requests on one file may complete in any order: who needs an order waits for the completion.
 * Opening, renaming, listing and deleting are synchronous: they are rare. */
#ifndef WEIR_IO_DISK_H
#define WEIR_IO_DISK_H

#include "base/slice.h"
#include "gen/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#define DISK_SECTOR 512u

struct disk;
struct disk_file;

struct disk_op {
    void (*done)(struct disk_op *op);
    enum err err;   /* outcome: ERR_NONE, ERR_IO, ERR_DISK_FULL */
    uint64_t bytes; /* read: bytes got (short only at the end of the file); write: bytes written */
    void *internal[8];
};

/* What a backend provides; use the functions below. */
struct disk_ops {
    enum err (*open)(struct disk *disk, const char *path, bool create, struct disk_file **out);
    void (*close)(struct disk_file *file);
    void (*write)(struct disk_file *file, const struct iovec *parts, int count, uint64_t offset,
                  bool sync, bool now, struct disk_op *op);
    void (*read)(struct disk_file *file, void *into, size_t len, uint64_t offset,
                 struct disk_op *op);
    void (*run)(struct disk *disk, void (*job)(struct disk_op *op), struct disk_op *op);
    enum err (*write_sync)(struct disk_file *file, const void *data, size_t len, uint64_t offset);
    enum err (*read_sync)(struct disk_file *file, void *into, size_t len, uint64_t offset,
                          size_t *got);
    enum err (*sync_sync)(struct disk_file *file);
    void (*bypass)(struct disk_file *file, const char *path);
    enum err (*allocate)(struct disk_file *file, uint64_t bytes, bool written);
    enum err (*size)(struct disk_file *file, uint64_t *bytes);
    enum err (*make_folder)(struct disk *disk, const char *path);
    enum err (*rename)(struct disk *disk, const char *from, const char *to);
    enum err (*link)(struct disk *disk, const char *path, const char *name);
    void (*punch)(struct disk_file *file, uint64_t offset, uint64_t len);
    enum err (*remove)(struct disk *disk, const char *path);
    enum err (*sync_folder)(struct disk *disk, const char *path);
    enum err (*list)(struct disk *disk, const char *path, void (*each)(void *ctx, const char *name),
                     void *ctx);
    enum err (*free_space)(struct disk *disk, const char *path, uint64_t *bytes);
};

struct disk {
    const struct disk_ops *ops;
};

struct disk_file {
    struct disk *disk;
};

/* Opens for reading and writing. ERR_NOT_FOUND when it is absent and create is false. A created
 * file survives a crash only after disk_sync_folder on its folder. */
static inline enum err disk_open(struct disk *disk, const char *path, bool create,
                                 struct disk_file **out)
{
    return disk->ops->open(disk, path, create, out);
}

/* No request may be under way on it. */
static inline void disk_close(struct disk_file *file)
{
    file->disk->ops->close(file);
}

/* Writes parts one after the other at offset (the array is copied, the bytes are not: they stay
 * as they are until done), then fdatasyncs when `sync`. A short write is continued; any failure is
 * final and reported once. count <= 64. `now` allows the backend to do it on the calling thread
 * when that has nothing better to do (done is still called later). */
static inline void disk_write(struct disk_file *file, const struct iovec *parts, int count,
                              uint64_t offset, bool sync, bool now, struct disk_op *op)
{
    file->disk->ops->write(file, parts, count, offset, sync, now, op);
}

static inline void disk_read(struct disk_file *file, void *into, size_t len, uint64_t offset,
                             struct disk_op *op)
{
    file->disk->ops->read(file, into, len, offset, op);
}

/* Runs job(op) on a helper thread, then done(op) on this one. The job may use the *_sync functions
 * below and memory that nobody else touches meanwhile. It sets op->err. */
static inline void disk_run(struct disk *disk, void (*job)(struct disk_op *op), struct disk_op *op)
{
    disk->ops->run(disk, job, op);
}

/* The blocking forms: start-up, offline tools, and jobs given to disk_run. */
static inline enum err disk_write_sync(struct disk_file *file, const void *data, size_t len,
                                       uint64_t offset)
{
    return file->disk->ops->write_sync(file, data, len, offset);
}

/* *got < len only at the end of the file. */
static inline enum err disk_read_sync(struct disk_file *file, void *into, size_t len,
                                      uint64_t offset, size_t *got)
{
    return file->disk->ops->read_sync(file, into, len, offset, got);
}

/* fdatasync. */
static inline enum err disk_sync(struct disk_file *file)
{
    return file->disk->ops->sync_sync(file);
}

/* What is written and synced in whole sectors (DISK_SECTOR bytes, in memory and file) goes past the
 * page cache from now on, where system and file allow it: half the latency and CPU time. `path` is
 * the file's name now. */
static inline void disk_bypass(struct disk_file *file, const char *path)
{
    file->disk->ops->bypass(file, path);
}

/* Makes the file `bytes` long with real blocks, which read as zeroes. When `written` the zeroes are
 * written out and synced, so that syncing what is written over them later changes no metadata. */
static inline enum err disk_allocate(struct disk_file *file, uint64_t bytes, bool written)
{
    return file->disk->ops->allocate(file, bytes, written);
}

static inline enum err disk_size(struct disk_file *file, uint64_t *bytes)
{
    return file->disk->ops->size(file, bytes);
}

/* Makes the folder and its missing parents; fine when it is there. */
static inline enum err disk_make_folder(struct disk *disk, const char *path)
{
    return disk->ops->make_folder(disk, path);
}

static inline enum err disk_rename(struct disk *disk, const char *from, const char *to)
{
    return disk->ops->rename(disk, from, to);
}

/* Gives a file a second name; it stays until both are removed. ERR_UNSUPPORTED where the file
 * system has none of that kind. */
static inline enum err disk_link(struct disk *disk, const char *path, const char *name)
{
    return disk->ops->link(disk, path, name);
}

/* The bytes are needed no more: their blocks are freed where the file system can do that, and read
 * as zeroes then. The file keeps its length. */
static inline void disk_punch(struct disk_file *file, uint64_t offset, uint64_t len)
{
    file->disk->ops->punch(file, offset, len);
}

static inline enum err disk_remove(struct disk *disk, const char *path)
{
    return disk->ops->remove(disk, path);
}

static inline enum err disk_sync_folder(struct disk *disk, const char *path)
{
    return disk->ops->sync_folder(disk, path);
}

/* Calls each for every name in the folder, in sorted order. */
static inline enum err disk_list(struct disk *disk, const char *path,
                                 void (*each)(void *ctx, const char *name), void *ctx)
{
    return disk->ops->list(disk, path, each, ctx);
}

static inline enum err disk_free_space(struct disk *disk, const char *path, uint64_t *bytes)
{
    return disk->ops->free_space(disk, path, bytes);
}

#endif
