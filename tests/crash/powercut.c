/* Power cuts and failing disks for a process that is only killed. Preloaded into the broker, it
 * notes what is written below one folder and not synced, contents (unsynced.c) and names
 * (unsynced_names.c), in every file there, LMDB's too. At the cut the process dies as a machine
 * does that loses its power: of each write that was not synced every sector of 512 bytes is on the
 * disk or is not, and each name that no fsync of its folder covers is there or is not.
 *
 *     LD_PRELOAD=powercut.so POWERCUT_FIFO=PATH POWERCUT_MODE=MODE weir serve ...
 *
 * The folder is that of the FIFO; beside it is the attic, PATH.attic. A number that comes through
 * the FIFO is the dice of a cut.
 *
 * honest  fdatasync does what it says, SLOW_MS later than it would: the longer it takes, the more
 *         is unsynced when the power goes
 * late    a disk that lies: fdatasync returns at once, what was written reaches the disk in its
 * order LATE_MS later; a cut loses the rest (in order, so that nothing looks damaged) never
 * fdatasync does nothing; a cut keeps some sectors as above quick   fdatasync does what it says,
 * but without the real disk, which nothing happens to names   the same, but the fsync of a folder
 * does nothing
 *
 * Every call that changes something is counted, and every call that reads:
 *
 *     POWERCUT_AT=N        the N-th change is under way when the power goes
 *     POWERCUT_CUT=KIND    keep (all), drop (all that was not synced) or tear (the dice decide);
 * with `all`, PATH.keep and PATH.drop become copies of the folder `data` beside the FIFO, which is
 * torn itself POWERCUT_DICE=N POWERCUT_FAIL=change|read:N:COUNT:ERROR   the N-th and the next ones
 * fail: eio, enospc, eintr or short (half of it is done). After a failed fdatasync what was not
 * safe never will be. POWERCUT_TRACE=PATH  a line for each call: change or read, number, call, file
 *
 * Everything is under one lock, which the cut takes and never gives back. What goes through a
 * mapping (LMDB's lock file) is not modelled. */
#include "unsynced.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LATE_MS = 40, SLOW_MS = 3, FDS_MAX = 65536, PARTS_MAX = 1024, SECTOR = 512 };

enum mode { HONEST, LATE, NEVER, QUICK, NAMES };
enum cut_kind { CUT_TEAR, CUT_KEEP, CUT_DROP, CUT_ALL };
enum { CHANGE, READ, KINDS };

/* What becomes of a call. */
enum fate { GO, CUT, FAIL, HALF_FAIL, SHORT };

/* What a descriptor stands for. */
struct handle {
    struct unsynced *file; /* NULL: a folder, or a file whose bytes are not watched */
    char *path;
    bool durable; /* O_DSYNC */
};

struct real_calls real;

static struct {
    pthread_mutex_t lock;
    enum mode mode;
    bool active;
    struct handle *of_fd[FDS_MAX];
    char *fifo, *root;
    unsigned long calls[KINDS];
    unsigned long at, dice;
    enum cut_kind kind;
    int fail_kind, fail_error; /* an errno; 0: short */
    unsigned long fail_first, fail_count;
    int trace;
} cut = {.lock = PTHREAD_MUTEX_INITIALIZER, .fail_kind = -1, .trace = -1};

_Noreturn void shim_die(const char *why)
{
    fprintf(stderr, "powercut: %s (%s)\n", why, strerror(errno));
    abort();
}

static void real_find(void *into, const char *name)
{
    void *symbol = dlsym(RTLD_NEXT, name);
    if (symbol == NULL)
        shim_die(name);
    memcpy(into, &symbol, sizeof symbol);
}

/* Constructors of other libraries may call before ours. */
static void real_find_all(void)
{
    if (real.mkdir != NULL)
        return;
    real_find(&real.open, "open");
    real_find(&real.close, "close");
    real_find(&real.read, "read");
    real_find(&real.pread, "pread");
    real_find(&real.write, "write");
    real_find(&real.writev, "writev");
    real_find(&real.pwrite, "pwrite");
    real_find(&real.pwritev, "pwritev");
    real_find(&real.fdatasync, "fdatasync");
    real_find(&real.fsync, "fsync");
    real_find(&real.ftruncate, "ftruncate");
    real_find(&real.fallocate, "fallocate");
    real_find(&real.posix_fallocate, "posix_fallocate");
    real_find(&real.link, "link");
    real_find(&real.remove, "remove");
    real_find(&real.unlink, "unlink");
    real_find(&real.rename, "rename");
    real_find(&real.mkdir, "mkdir");
}

uint64_t shim_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

uint64_t dice_roll(uint64_t *dice)
{
    uint64_t value = *dice += 0x9e3779b97f4a7c15u;
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9u;
    value = (value ^ value >> 27) * 0x94d049bb133111ebu;
    return value ^ value >> 31;
}

/* ---- The cut ---- */

/* What a lying disk has brought to its medium by now. */
static void late_settle(void)
{
    if (cut.mode != LATE)
        return;
    uint64_t now = shim_now_ms();
    unsynced_settle_before(now - LATE_MS);
    names_settle_before(now - LATE_MS);
}

static void data_copy(const char *ending)
{
    char from[4096], to[4096];
    snprintf(from, sizeof from, "%s/data", cut.root);
    snprintf(to, sizeof to, "%s.%s", cut.fifo, ending);
    char *words[] = {"cp", "-a", "--sparse=never", from, to, NULL};
    char *environment[] = {"PATH=/usr/bin:/bin", NULL};
    struct stat info;
    if (stat(from, &info) != 0) { /* not even that is left */
        (void)real.mkdir(to, 0750);
        return;
    }
    pid_t pid;
    int status = 0;
    if (posix_spawnp(&pid, "cp", NULL, NULL, words, environment) != 0 ||
        waitpid(pid, &status, 0) != pid || status != 0)
        shim_die("the data folder cannot be copied");
}

/* The lock is held, for good. */
static void disk_cut(enum cut_kind kind, uint64_t dice)
{
    struct tally tally = {0};
    late_settle();
    if (kind == CUT_ALL)
        data_copy("keep");
    if (kind != CUT_KEEP) {
        unsynced_undo();
        names_undo();
    }
    if (kind == CUT_ALL)
        data_copy("drop");
    if (cut.mode == LATE || kind == CUT_DROP) {
        tally.lost = unsynced_count();
        tally.names_lost = names_count();
    } else if (kind == CUT_KEEP) {
        tally.kept = unsynced_count();
        tally.names_kept = names_count();
    } else {
        unsynced_redo(&dice, &tally);
        names_redo(&dice, &tally);
    }
    fprintf(stderr, "powercut: unsynced writes lost=%lu kept=%lu torn=%lu\n", tally.lost,
            tally.kept, tally.torn);
    fprintf(stderr, "powercut: unsynced names lost=%lu kept=%lu\n", tally.names_lost,
            tally.names_kept);
}

static _Noreturn void power_off(enum cut_kind kind, uint64_t dice)
{
    disk_cut(kind, dice);
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

static void *fifo_main(void *path)
{
    int fd = real.open(path, O_RDONLY | O_CLOEXEC);
    char text[32] = "";
    if (fd >= 0 && real.read(fd, text, sizeof text - 1) > 0) {
        pthread_mutex_lock(&cut.lock);
        power_off(cut.kind, strtoull(text, NULL, 10));
    }
    fprintf(stderr, "powercut: nobody at the switch\n");
    return NULL;
}

static unsigned long number_of(const char *name)
{
    const char *text = getenv(name);
    return text != NULL ? strtoul(text, NULL, 10) : 0;
}

static void failure_read(const char *text)
{
    char kind[16], error[16];
    if (sscanf(text, "%15[a-z]:%lu:%lu:%15[a-z]", kind, &cut.fail_first, &cut.fail_count, error) !=
        4)
        shim_die("POWERCUT_FAIL says nothing");
    cut.fail_kind = strcmp(kind, "read") == 0 ? READ : CHANGE;
    cut.fail_error = strcmp(error, "eio") == 0      ? EIO
                     : strcmp(error, "enospc") == 0 ? ENOSPC
                     : strcmp(error, "eintr") == 0  ? EINTR
                                                    : 0;
}

static void settings_read(const char *mode)
{
    const char *kind = getenv("POWERCUT_CUT"), *fail = getenv("POWERCUT_FAIL"),
               *trace = getenv("POWERCUT_TRACE");
    cut.mode = strcmp(mode, "late") == 0    ? LATE
               : strcmp(mode, "never") == 0 ? NEVER
               : strcmp(mode, "quick") == 0 ? QUICK
               : strcmp(mode, "names") == 0 ? NAMES
                                            : HONEST;
    cut.at = number_of("POWERCUT_AT");
    cut.dice = number_of("POWERCUT_DICE");
    if (kind != NULL)
        cut.kind = strcmp(kind, "keep") == 0   ? CUT_KEEP
                   : strcmp(kind, "drop") == 0 ? CUT_DROP
                   : strcmp(kind, "all") == 0  ? CUT_ALL
                                               : CUT_TEAR;
    if (fail != NULL)
        failure_read(fail);
    if (trace != NULL)
        cut.trace = real.open(trace, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
}

__attribute__((constructor)) static void powercut_start(void)
{
    real_find_all();
    const char *path = getenv("POWERCUT_FIFO"), *mode = getenv("POWERCUT_MODE");
    if (path == NULL || mode == NULL || strcmp(program_invocation_short_name, "setpriv") == 0)
        return;
    settings_read(mode);
    char attic[4096];
    snprintf(attic, sizeof attic, "%s.attic", path);
    cut.fifo = strdup(path);
    cut.root = strdup(path);
    if (cut.root == NULL || strrchr(cut.root, '/') == NULL)
        shim_die("POWERCUT_FIFO is no path");
    *strrchr(cut.root, '/') = '\0';
    names_init(cut.root, attic);
    cut.active = true;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    if (pthread_create(&thread, NULL, fifo_main, cut.fifo) != 0)
        shim_die("no thread");
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* A process that ends in order leaves the disk its time; one whose disk failed does not. */
__attribute__((destructor)) static void powercut_end(void)
{
    if (!cut.active || cut.fail_kind < 0)
        return;
    pthread_mutex_lock(&cut.lock); /* for good: threads that are left write nothing any more */
    disk_cut(cut.kind, cut.dice);
}

/* ---- What becomes of a call ---- */

static void trace_line(int kind, const char *call, const char *path, bool cuts)
{
    char line[512];
    const char *slash = strrchr(path, '/');
    int len =
        snprintf(line, sizeof line, "%s %lu %s %s\n", kind == CHANGE ? "change" : "read",
                 cut.calls[kind], call, slash != NULL && slash[1] != '\0' ? slash + 1 : "folder");
    if (cut.trace >= 0)
        (void)!real.write(cut.trace, line, (size_t)len);
    if (cuts)
        fprintf(stderr, "powercut: at %s", line);
}

/* The lock is held. For FAIL and HALF_FAIL errno is what it fails with. */
static enum fate fate_of(int kind, const char *call, const char *path)
{
    unsigned long number = ++cut.calls[kind];
    bool cuts = kind == CHANGE && number == cut.at;
    bool fails = kind == cut.fail_kind && number >= cut.fail_first &&
                 number < cut.fail_first + cut.fail_count;
    trace_line(kind, call, path, cuts || fails);
    late_settle();
    if (cuts)
        return CUT;
    if (!fails)
        return GO;
    errno = cut.fail_error;
    return cut.fail_error == 0 ? SHORT : cut.fail_error == EIO ? HALF_FAIL : FAIL;
}

static struct handle *handle_of(int fd)
{
    real_find_all();
    return cut.active && fd >= 0 && fd < FDS_MAX ? cut.of_fd[fd] : NULL;
}

/* Names of paths: calls that succeed or fail as a whole. Returns true when it is to be done. */
static bool whole_call(const char *call, const char *path, bool *cuts)
{
    enum fate fate = fate_of(CHANGE, call, path);
    *cuts = fate == CUT;
    return fate == GO || fate == CUT || fate == SHORT;
}

static int whole_end(int result, bool cuts)
{
    int error = errno;
    if (cuts)
        power_off(cut.kind, cut.dice);
    pthread_mutex_unlock(&cut.lock);
    errno = error;
    return result;
}

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
        if (fate == HALF_FAIL && handle->file != NULL)
            unsynced_doom(handle->file);
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
