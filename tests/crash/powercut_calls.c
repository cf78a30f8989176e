/* What the broker calls: each asks for its fate, notes what it changes, and does it. */
#include "powercut.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SLOW_MS = 3, PARTS_MAX = 1024, SECTOR = 512 };

/* ---- Opening and closing ---- */

static bool bytes_watched(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash != NULL ? slash + 1 : path;
    return strcmp(name, "lock") != 0 && strcmp(name, "state-lock") != 0 &&
           strcmp(name, "spill") != 0;
}

static void handle_make(int fd, const char *path, int flags)
{
    struct handle *handle = calloc(1, sizeof *handle);
    if (handle == NULL || fd >= FDS_MAX || (handle->path = strdup(path)) == NULL)
        shim_die("no memory for a file");
    handle->durable = (flags & O_DSYNC) != 0;
    if (bytes_watched(path))
        handle->file = unsynced_of(fd, path);
    cut.of_fd[fd] = handle;
}

static void handle_drop(int fd)
{
    free(cut.of_fd[fd]->path);
    free(cut.of_fd[fd]);
    cut.of_fd[fd] = NULL;
}

static int size_change(struct handle *handle, int fd, off_t size, bool room)
{
    struct change *change = NULL;
    struct stat info;
    if (handle->file != NULL && fstat(fd, &info) == 0)
        change = change_begin(handle->file, room ? info.st_size : size, 0);
    int result = room ? real.posix_fallocate(fd, 0, size) : real.ftruncate(fd, size);
    if (change != NULL)
        change_end(handle->file, change, NULL, 0, handle->durable);
    return result;
}

/* Making a file is a change; opening one is not. */
static int file_open(const char *path, int flags, mode_t mode)
{
    real_find_all();
    if (!cut.active || !names_watched(path))
        return real.open(path, flags, mode);
    pthread_mutex_lock(&cut.lock);
    bool makes = flags & O_CREAT && access(path, F_OK) != 0, cuts = false;
    int fd = -1;
    if (!makes || whole_call("create", path, &cuts))
        fd = real.open(path, flags & ~O_TRUNC, mode);
    if (fd >= 0) {
        if (makes)
            name_made(path);
        handle_make(fd, path, flags);
        if (flags & O_TRUNC && !makes)
            (void)size_change(cut.of_fd[fd], fd, 0, false);
    }
    return whole_end(fd, cuts);
}

#define EXPORT __attribute__((visibility("default")))

EXPORT int open(const char *path, int flags, ...)
{
    va_list words;
    va_start(words, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(words, mode_t) : 0;
    va_end(words);
    return file_open(path, flags, mode);
}

/* The broker's way out when it may not be taken apart. */
EXPORT _Noreturn void _exit(int code)
{
    powercut_end();
    syscall(SYS_exit_group, code);
    abort();
}

EXPORT int close(int fd)
{
    if (handle_of(fd) != NULL) {
        pthread_mutex_lock(&cut.lock);
        handle_drop(fd);
        pthread_mutex_unlock(&cut.lock);
    }
    return real.close(fd);
}

/* ---- Writing ---- */

static size_t parts_sum(const struct iovec *parts, int count)
{
    size_t sum = 0;
    for (int i = 0; i < count; i++)
        sum += parts[i].iov_len;
    return sum;
}

/* The first half, in whole sectors. */
static int parts_halve(const struct iovec *parts, int count, struct iovec *half)
{
    size_t left = parts_sum(parts, count) / 2 / SECTOR * SECTOR;
    int used = 0;
    for (; used < count && used < PARTS_MAX && left > 0; used++) {
        half[used] = parts[used];
        half[used].iov_len = left < parts[used].iov_len ? left : parts[used].iov_len;
        left -= half[used].iov_len;
    }
    return used;
}

/* offset -1: at the descriptor's position. unsafe: O_DSYNC does not help it. */
static ssize_t parts_write(struct handle *handle, int fd, const struct iovec *parts, int count,
                           off_t offset, bool unsafe)
{
    off_t at = offset < 0 ? lseek(fd, 0, SEEK_CUR) : offset;
    struct change *change = NULL;
    if (handle->file != NULL)
        change = change_begin(handle->file, at, parts_sum(parts, count));
    ssize_t got =
        offset < 0 ? real.writev(fd, parts, count) : real.pwritev(fd, parts, count, offset);
    if (change != NULL)
        change_end(handle->file, change, parts, got > 0 ? (size_t)got : 0,
                   handle->durable && !unsafe && cut.mode != NEVER && cut.mode != LATE);
    return got;
}

static ssize_t file_write(int fd, const char *call, const struct iovec *parts, int count,
                          off_t offset)
{
    pthread_mutex_lock(&cut.lock);
    struct handle *handle = cut.of_fd[fd];
    enum fate fate = fate_of(CHANGE, call, handle->path);
    int error = errno;
    ssize_t got = -1;
    if (fate == HALF_FAIL || (fate == SHORT && parts_sum(parts, count) >= (size_t)2 * SECTOR)) {
        struct iovec half[PARTS_MAX];
        bool fails = fate == HALF_FAIL;
        int used = parts_halve(parts, count, half);
        got = used > 0 ? parts_write(handle, fd, half, used, offset, fails) : 0;
        if (fails && got > 0 && handle->file != NULL)
            unsynced_doom_last(handle->file);
    } else if (fate != FAIL) {
        got = parts_write(handle, fd, parts, count, offset, fate == CUT);
        error = errno;
    }
    if (fate == CUT)
        power_off(cut.kind, cut.dice);
    pthread_mutex_unlock(&cut.lock);
    errno = error;
    return fate == HALF_FAIL ? -1 : got;
}

static struct iovec part_of(const void *bytes, size_t len)
{
    return (struct iovec){.iov_base = (void *)(uintptr_t)bytes, .iov_len = len};
}

EXPORT ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    if (handle_of(fd) == NULL)
        return real.pwritev(fd, parts, count, offset);
    return file_write(fd, "pwritev", parts, count, offset);
}

EXPORT ssize_t pwrite(int fd, const void *bytes, size_t len, off_t offset)
{
    if (handle_of(fd) == NULL)
        return real.pwrite(fd, bytes, len, offset);
    struct iovec part = part_of(bytes, len);
    return file_write(fd, "pwrite", &part, 1, offset);
}

EXPORT ssize_t writev(int fd, const struct iovec *parts, int count)
{
    if (handle_of(fd) == NULL)
        return real.writev(fd, parts, count);
    return file_write(fd, "writev", parts, count, -1);
}

EXPORT ssize_t write(int fd, const void *bytes, size_t len)
{
    if (handle_of(fd) == NULL)
        return real.write(fd, bytes, len);
    struct iovec part = part_of(bytes, len);
    return file_write(fd, "write", &part, 1, -1);
}

EXPORT int ftruncate(int fd, off_t size)
{
    if (handle_of(fd) == NULL)
        return real.ftruncate(fd, size);
    pthread_mutex_lock(&cut.lock);
    bool cuts;
    int result = -1;
    if (whole_call("ftruncate", cut.of_fd[fd]->path, &cuts))
        result = size_change(cut.of_fd[fd], fd, size, false);
    return whole_end(result, cuts);
}

EXPORT int posix_fallocate(int fd, off_t offset, off_t len)
{
    if (handle_of(fd) == NULL)
        return real.posix_fallocate(fd, offset, len);
    pthread_mutex_lock(&cut.lock);
    bool cuts;
    int result;
    if (whole_call("fallocate", cut.of_fd[fd]->path, &cuts))
        result = size_change(cut.of_fd[fd], fd, offset + len, true);
    else
        result = errno;
    return whole_end(result, cuts);
}

/* A hole is as many zeroes. */
static int hole_make(struct handle *handle, int fd, int mode, off_t offset, off_t len)
{
    struct change *change = NULL;
    struct iovec zeroes = {.iov_base = calloc(1, (size_t)len), .iov_len = (size_t)len};
    if (zeroes.iov_base == NULL)
        shim_die("no memory");
    if (handle->file != NULL)
        change = change_begin(handle->file, offset, (size_t)len);
    int result = real.fallocate(fd, mode, offset, len);
    if (change != NULL)
        change_end(handle->file, change, &zeroes, result == 0 ? (size_t)len : 0, handle->durable);
    free(zeroes.iov_base);
    return result;
}

EXPORT int fallocate(int fd, int mode, off_t offset, off_t len)
{
    if (handle_of(fd) == NULL)
        return real.fallocate(fd, mode, offset, len);
    if (mode != (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE))
        shim_die("this fallocate is not modelled");
    pthread_mutex_lock(&cut.lock);
    bool cuts;
    int result = -1;
    if (whole_call("punch", cut.of_fd[fd]->path, &cuts))
        result = hole_make(cut.of_fd[fd], fd, mode, offset, len);
    return whole_end(result, cuts);
}

/* ---- Syncing ---- */

static void handle_settle(struct handle *handle, uint64_t mark)
{
    if (cut.mode == LATE || cut.mode == NEVER)
        return;
    struct stat info;
    if (handle->file != NULL)
        unsynced_settle(handle->file, mark);
    else if (cut.mode != NAMES && stat(handle->path, &info) == 0 && S_ISDIR(info.st_mode))
        names_settle(handle->path);
}

static void handles_forget(const struct unsynced *file)
{
    for (int fd = 0; fd < FDS_MAX; fd++) {
        if (cut.of_fd[fd] != NULL && cut.of_fd[fd]->file == file)
            cut.of_fd[fd]->file = NULL;
    }
}

/* What was written before it began is safe when it ends. In honest mode the real one comes too, for
 * its time: it is in the time it takes that a cut finds most unsynced. */
static int data_sync(int fd, const char *call, int (*sync)(int))
{
    if (handle_of(fd) == NULL)
        return sync(fd);
    pthread_mutex_lock(&cut.lock);
    enum fate fate = fate_of(CHANGE, call, cut.of_fd[fd]->path);
    int error = errno;
    if (fate == CUT)
        power_off(cut.kind, cut.dice);
    if (fate == FAIL || fate == HALF_FAIL) {
        if (error != EINTR && cut.of_fd[fd]->file != NULL)
            unsynced_doom(cut.of_fd[fd]->file);
        pthread_mutex_unlock(&cut.lock);
        errno = error;
        return -1;
    }
    uint64_t mark = unsynced_mark();
    int result = 0;
    if (cut.mode == HONEST) {
        pthread_mutex_unlock(&cut.lock);
        usleep(SLOW_MS * 1000);
        result = sync(fd);
        pthread_mutex_lock(&cut.lock);
    }
    handle_settle(cut.of_fd[fd], mark);
    unsynced_forget_removed(handles_forget);
    pthread_mutex_unlock(&cut.lock);
    return result;
}

EXPORT int fdatasync(int fd)
{
    return data_sync(fd, "fdatasync", real.fdatasync);
}

EXPORT int fsync(int fd)
{
    return data_sync(fd, "fsync", real.fsync);
}

/* ---- Names ---- */

static int path_gone(const char *call, const char *path, int (*remove)(const char *))
{
    if (!cut.active || !names_watched(path))
        return remove(path);
    pthread_mutex_lock(&cut.lock);
    bool cuts;
    int result = -1;
    if (whole_call(call, path, &cuts))
        result = name_remove(path, remove);
    return whole_end(result, cuts);
}

EXPORT int remove(const char *path)
{
    real_find_all();
    return path_gone("remove", path, real.remove);
}

EXPORT int unlink(const char *path)
{
    real_find_all();
    return path_gone("unlink", path, real.unlink);
}

EXPORT int rename(const char *from, const char *to)
{
    real_find_all();
    if (!cut.active || !names_watched(to))
        return real.rename(from, to);
    pthread_mutex_lock(&cut.lock);
    bool cuts;
    int result = -1;
    if (whole_call("rename", to, &cuts))
        result = name_move(from, to);
    return whole_end(result, cuts);
}

EXPORT int link(const char *path, const char *name)
{
    real_find_all();
    if (!cut.active || !names_watched(name))
        return real.link(path, name);
    pthread_mutex_lock(&cut.lock);
    bool cuts;
    int result = -1;
    if (whole_call("link", name, &cuts))
        result = real.link(path, name);
    if (result == 0)
        name_made(name);
    return whole_end(result, cuts);
}

EXPORT int mkdir(const char *path, mode_t mode)
{
    real_find_all();
    struct stat info;
    if (!cut.active || !names_watched(path) || stat(path, &info) == 0)
        return real.mkdir(path, mode);
    pthread_mutex_lock(&cut.lock);
    bool cuts;
    int result = -1;
    if (whole_call("mkdir", path, &cuts))
        result = real.mkdir(path, mode);
    if (result == 0)
        name_made(path);
    return whole_end(result, cuts);
}

/* ---- Reading ---- */

/* How much of it; -1: it fails. */
static ssize_t read_len(int fd, const char *call, size_t len)
{
    pthread_mutex_lock(&cut.lock);
    enum fate fate = fate_of(READ, call, cut.of_fd[fd]->path);
    int error = errno;
    pthread_mutex_unlock(&cut.lock);
    errno = error;
    if (fate == SHORT)
        return (ssize_t)(len > 1 ? len / 2 : len);
    return fate == FAIL || fate == HALF_FAIL ? -1 : (ssize_t)len;
}

EXPORT ssize_t pread(int fd, void *into, size_t len, off_t offset)
{
    if (handle_of(fd) == NULL)
        return real.pread(fd, into, len, offset);
    ssize_t part = read_len(fd, "pread", len);
    return part < 0 ? -1 : real.pread(fd, into, (size_t)part, offset);
}

EXPORT ssize_t read(int fd, void *into, size_t len)
{
    if (handle_of(fd) == NULL)
        return real.read(fd, into, len);
    ssize_t part = read_len(fd, "read", len);
    return part < 0 ? -1 : real.read(fd, into, (size_t)part);
}

/* The same calls by the names that they have where off_t is asked to be 64 bits wide, which it is
 * here in any case, and as the compiler checks them. */

EXPORT int open64(const char *path, int flags, ...)
{
    va_list words;
    va_start(words, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(words, mode_t) : 0;
    va_end(words);
    return file_open(path, flags, mode);
}

int __open64_2(const char *path, int flags);
EXPORT int __open64_2(const char *path, int flags)
{
    return file_open(path, flags, 0);
}

EXPORT ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t offset)
{
    return pwritev(fd, parts, count, offset);
}

EXPORT ssize_t pwrite64(int fd, const void *bytes, size_t len, off_t offset)
{
    return pwrite(fd, bytes, len, offset);
}

EXPORT ssize_t pread64(int fd, void *into, size_t len, off_t offset)
{
    return pread(fd, into, len, offset);
}

ssize_t __pread64_chk(int fd, void *into, size_t len, off_t offset, size_t room);
EXPORT ssize_t __pread64_chk(int fd, void *into, size_t len, off_t offset, size_t room)
{
    if (len > room)
        shim_die("a read larger than its buffer");
    return pread(fd, into, len, offset);
}

EXPORT int ftruncate64(int fd, off_t size)
{
    return ftruncate(fd, size);
}

EXPORT int posix_fallocate64(int fd, off_t offset, off_t len)
{
    return posix_fallocate(fd, offset, len);
}

EXPORT int fallocate64(int fd, int mode, off_t offset, off_t len)
{
    return fallocate(fd, mode, offset, len);
}
