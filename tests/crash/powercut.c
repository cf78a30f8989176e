/* A power cut for a process that is only killed. Preloaded into the broker, it keeps what is
 * written to journal and extent files in memory and brings it to the real files at fdatasync or
 * fsync; reads see both. When a number comes through the FIFO, the process dies as a machine does
 * that loses its power: of each write that was not synced every sector of 512 bytes is on the disk
 * or is not, by that number's dice.
 *
 *     LD_PRELOAD=powercut.so POWERCUT_FIFO=PATH POWERCUT_MODE=honest|late|never weir serve ...
 *
 * honest  fdatasync does what it says, SLOW_MS later than it would: the longer it takes, the more
 * is unsynced when the power goes late    a disk that lies: fdatasync returns at once, what was
 * written reaches the disk in its order LATE_MS later; a cut loses the rest (in order, so that
 * nothing looks damaged) never fdatasync does nothing; a cut keeps some sectors as above
 *
 * Not modelled: names (create, rename, remove and growing happen at once) and the state store,
 * which LMDB reads through a mapping of the real file: its writes go through untouched.
 *
 * Everything is under one lock, which the cut takes and never gives back. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { SECTOR = 512, LATE_MS = 40, SLOW_MS = 3, FDS_MAX = 65536, INODES = 4096 };

enum mode { HONEST, LATE, NEVER };

struct change {
    struct change *next;
    uint64_t at_ms;
    off_t offset;
    size_t len;
    uint8_t bytes[];
};

/* What is written to one file and not synced, oldest first. */
struct shadow {
    dev_t dev;
    ino_t ino;
    int fd; /* our own, open as long as the shadow lives, so that the number is not used again */
    struct change *first, **last;
    off_t size;
};

static struct {
    pthread_mutex_t lock;
    enum mode mode;
    bool active;
    struct shadow *of_fd[FDS_MAX];
    struct shadow *shadows[INODES];
    size_t count;
} cut = {.lock = PTHREAD_MUTEX_INITIALIZER};

static struct {
    int (*open)(const char *, int, ...);
    int (*close)(int);
    ssize_t (*pread)(int, void *, size_t, off_t);
    ssize_t (*pwrite)(int, const void *, size_t, off_t);
    ssize_t (*pwritev)(int, const struct iovec *, int, off_t);
    int (*fdatasync)(int);
    int (*fsync)(int);
    int (*fstat)(int, struct stat *);
    int (*ftruncate)(int, off_t);
    int (*remove)(const char *);
    int (*unlink)(const char *);
    int (*rename)(const char *, const char *);
} real;

static void die(const char *why)
{
    fprintf(stderr, "powercut: %s\n", why);
    abort();
}

static void real_find(void *into, const char *name)
{
    void *symbol = dlsym(RTLD_NEXT, name);
    if (symbol == NULL)
        die(name);
    memcpy(into, &symbol, sizeof symbol);
}

/* Constructors of other libraries may call before ours. */
static void real_find_all(void)
{
    if (real.rename != NULL)
        return;
    real_find(&real.open, "open");
    real_find(&real.close, "close");
    real_find(&real.pread, "pread");
    real_find(&real.pwrite, "pwrite");
    real_find(&real.pwritev, "pwritev");
    real_find(&real.fdatasync, "fdatasync");
    real_find(&real.fsync, "fsync");
    real_find(&real.fstat, "fstat");
    real_find(&real.ftruncate, "ftruncate");
    real_find(&real.remove, "remove");
    real_find(&real.unlink, "unlink");
    real_find(&real.rename, "rename");
}

static uint64_t now_ms(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000 + (uint64_t)time.tv_nsec / 1000000;
}

/* ---- Shadows ---- */

static bool path_is_ours(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash != NULL ? slash + 1 : path;
    return strncmp(name, "journal", 7) == 0 || strncmp(name, "extent", 6) == 0;
}

static struct shadow *shadow_find(const struct stat *info)
{
    for (size_t i = 0; i < cut.count; i++) {
        if (cut.shadows[i]->ino == info->st_ino && cut.shadows[i]->dev == info->st_dev)
            return cut.shadows[i];
    }
    return NULL;
}

static void shadow_attach(int fd, const char *path)
{
    struct stat info;
    if (fd < 0 || fd >= FDS_MAX || !path_is_ours(path) || real.fstat(fd, &info) != 0)
        return;
    struct shadow *shadow = shadow_find(&info);
    if (shadow == NULL) {
        if (cut.count == INODES)
            die("too many files");
        shadow = calloc(1, sizeof *shadow);
        if (shadow == NULL)
            die("no memory");
        *shadow = (struct shadow){
            .dev = info.st_dev, .ino = info.st_ino, .fd = real.open(path, O_RDWR | O_CLOEXEC)};
        shadow->last = &shadow->first;
        cut.shadows[cut.count++] = shadow;
    }
    cut.of_fd[fd] = shadow;
}

static struct shadow *shadow_of(int fd)
{
    real_find_all();
    return cut.active && fd >= 0 && fd < FDS_MAX ? cut.of_fd[fd] : NULL;
}

static void change_drop_first(struct shadow *shadow)
{
    struct change *change = shadow->first;
    shadow->first = change->next;
    if (shadow->first == NULL)
        shadow->last = &shadow->first;
    free(change);
}

/* A file that lost its last name takes its shadow along. */
static void shadows_forget(void)
{
    for (size_t i = 0; i < cut.count;) {
        struct shadow *shadow = cut.shadows[i];
        struct stat info;
        if (real.fstat(shadow->fd, &info) != 0 || info.st_nlink > 0) {
            i++;
            continue;
        }
        for (int fd = 0; fd < FDS_MAX; fd++) {
            if (cut.of_fd[fd] == shadow)
                cut.of_fd[fd] = NULL;
        }
        while (shadow->first != NULL)
            change_drop_first(shadow);
        real.close(shadow->fd);
        free(shadow);
        cut.shadows[i] = cut.shadows[--cut.count];
    }
}

static void bytes_put(int fd, const uint8_t *bytes, size_t len, off_t offset)
{
    while (len > 0) {
        ssize_t got = real.pwrite(fd, bytes, len, offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            die("the real disk failed");
        bytes += got;
        len -= (size_t)got;
        offset += got;
    }
}

static void shadow_settle(struct shadow *shadow, uint64_t until_ms)
{
    while (shadow->first != NULL && shadow->first->at_ms <= until_ms) {
        bytes_put(shadow->fd, shadow->first->bytes, shadow->first->len, shadow->first->offset);
        change_drop_first(shadow);
    }
}

/* What a lying disk has brought to its medium by now. */
static void late_settle(void)
{
    uint64_t now = now_ms();
    for (size_t i = 0; i < cut.count && cut.mode == LATE; i++)
        shadow_settle(cut.shadows[i], now - LATE_MS);
}

static ssize_t shadow_write(struct shadow *shadow, const struct iovec *parts, int count,
                            off_t offset)
{
    size_t len = 0;
    for (int i = 0; i < count; i++)
        len += parts[i].iov_len;
    struct change *change = malloc(sizeof *change + len);
    if (change == NULL)
        die("no memory");
    *change = (struct change){.at_ms = now_ms(), .offset = offset, .len = len};
    size_t at = 0;
    for (int i = 0; i < count; i++) {
        memcpy(change->bytes + at, parts[i].iov_base, parts[i].iov_len);
        at += parts[i].iov_len;
    }
    *shadow->last = change;
    shadow->last = &change->next;
    if (offset + (off_t)len > shadow->size)
        shadow->size = offset + (off_t)len;
    return (ssize_t)len;
}

/* The size of the file as its writer sees it. */
static off_t shadow_size(const struct shadow *shadow)
{
    struct stat info;
    if (real.fstat(shadow->fd, &info) != 0)
        return shadow->size;
    return info.st_size > shadow->size ? info.st_size : shadow->size;
}

static ssize_t shadow_read(const struct shadow *shadow, uint8_t *into, size_t len, off_t offset)
{
    off_t size = shadow_size(shadow);
    if (offset >= size)
        return 0;
    if ((off_t)len > size - offset)
        len = (size_t)(size - offset);
    ssize_t got = real.pread(shadow->fd, into, len, offset);
    if (got < 0)
        return got;
    memset(into + got, 0, len - (size_t)got);
    off_t end = offset + (off_t)len;
    for (const struct change *change = shadow->first; change != NULL; change = change->next) {
        off_t from = change->offset > offset ? change->offset : offset;
        off_t to = change->offset + (off_t)change->len;
        to = to < end ? to : end;
        if (from < to)
            memcpy(into + (from - offset), change->bytes + (from - change->offset),
                   (size_t)(to - from));
    }
    return (ssize_t)len;
}

/* ---- The cut ---- */

static uint64_t dice_roll(uint64_t *dice)
{
    uint64_t value = *dice += 0x9e3779b97f4a7c15u;
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9u;
    value = (value ^ value >> 27) * 0x94d049bb133111ebu;
    return value ^ value >> 31;
}

struct tally {
    unsigned long lost, kept, torn; /* writes */
};

/* Each write is lost, kept or kept in part; sectors are those of the disk. */
static void change_tear(const struct shadow *shadow, const struct change *change, uint64_t *dice,
                        struct tally *tally)
{
    uint64_t kind = dice_roll(dice) % 3;
    off_t end = change->offset + (off_t)change->len;
    tally->lost += kind == 0;
    tally->kept += kind == 1;
    tally->torn += kind == 2;
    for (off_t at = change->offset; at < end;) {
        off_t next = (at / SECTOR + 1) * SECTOR;
        next = next < end ? next : end;
        if (kind == 1 || (kind == 2 && dice_roll(dice) % 2 == 0))
            bytes_put(shadow->fd, change->bytes + (at - change->offset), (size_t)(next - at), at);
        at = next;
    }
}

static void power_off(uint64_t dice)
{
    struct tally tally = {0};
    pthread_mutex_lock(&cut.lock);
    late_settle();
    for (size_t i = 0; i < cut.count; i++) {
        for (struct change *change = cut.shadows[i]->first; change != NULL; change = change->next) {
            if (cut.mode == LATE)
                tally.lost++;
            else
                change_tear(cut.shadows[i], change, &dice, &tally);
        }
    }
    fprintf(stderr, "powercut: unsynced writes lost=%lu kept=%lu torn=%lu\n", tally.lost,
            tally.kept, tally.torn);
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

static void *fifo_main(void *path)
{
    int fd = real.open(path, O_RDONLY | O_CLOEXEC);
    char text[32] = "";
    if (fd >= 0 && read(fd, text, sizeof text - 1) > 0)
        power_off(strtoull(text, NULL, 10));
    fprintf(stderr, "powercut: nobody at the switch\n");
    return NULL;
}

__attribute__((constructor)) static void powercut_start(void)
{
    real_find_all();
    char *path = getenv("POWERCUT_FIFO");
    const char *mode = getenv("POWERCUT_MODE");
    if (path == NULL || mode == NULL || strcmp(program_invocation_short_name, "setpriv") == 0)
        return;
    cut.mode = strcmp(mode, "late") == 0 ? LATE : strcmp(mode, "never") == 0 ? NEVER : HONEST;
    cut.active = true;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    if (pthread_create(&thread, NULL, fifo_main, path) != 0)
        die("no thread");
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* A process that ends in order leaves the disk its time. */
__attribute__((destructor)) static void powercut_end(void)
{
    if (!cut.active)
        return;
    pthread_mutex_lock(&cut.lock);
    for (size_t i = 0; i < cut.count; i++)
        shadow_settle(cut.shadows[i], UINT64_MAX);
    pthread_mutex_unlock(&cut.lock);
}

/* ---- What the broker calls ---- */

static int file_open(const char *path, int flags, mode_t mode)
{
    real_find_all();
    int fd = real.open(path, flags, mode);
    if (!cut.active)
        return fd;
    pthread_mutex_lock(&cut.lock);
    shadow_attach(fd, path);
    pthread_mutex_unlock(&cut.lock);
    return fd;
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

EXPORT int close(int fd)
{
    if (shadow_of(fd) != NULL) {
        pthread_mutex_lock(&cut.lock);
        cut.of_fd[fd] = NULL;
        pthread_mutex_unlock(&cut.lock);
    }
    return real.close(fd);
}

EXPORT ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    if (shadow_of(fd) == NULL)
        return real.pwritev(fd, parts, count, offset);
    pthread_mutex_lock(&cut.lock);
    ssize_t got = shadow_write(cut.of_fd[fd], parts, count, offset);
    late_settle();
    pthread_mutex_unlock(&cut.lock);
    return got;
}

EXPORT ssize_t pwrite(int fd, const void *bytes, size_t len, off_t offset)
{
    struct iovec part = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = len};
    if (shadow_of(fd) == NULL)
        return real.pwrite(fd, bytes, len, offset);
    return pwritev(fd, &part, 1, offset);
}

EXPORT ssize_t pread(int fd, void *into, size_t len, off_t offset)
{
    if (shadow_of(fd) == NULL)
        return real.pread(fd, into, len, offset);
    pthread_mutex_lock(&cut.lock);
    ssize_t got = shadow_read(cut.of_fd[fd], into, len, offset);
    pthread_mutex_unlock(&cut.lock);
    return got;
}

/* The real one comes too, for its time: it is in the time it takes that a cut finds most unsynced.
 */
static int data_sync(int fd, int (*sync)(int))
{
    if (shadow_of(fd) == NULL)
        return sync(fd);
    if (cut.mode != HONEST)
        return 0;
    usleep(SLOW_MS * 1000);
    int result = sync(fd);
    pthread_mutex_lock(&cut.lock);
    shadow_settle(cut.of_fd[fd], UINT64_MAX);
    pthread_mutex_unlock(&cut.lock);
    return result;
}

EXPORT int fdatasync(int fd)
{
    return data_sync(fd, real.fdatasync);
}

EXPORT int fsync(int fd)
{
    return data_sync(fd, real.fsync);
}

EXPORT int fstat(int fd, struct stat *info)
{
    struct shadow *shadow = shadow_of(fd);
    int result = real.fstat(fd, info);
    if (result != 0 || shadow == NULL)
        return result;
    pthread_mutex_lock(&cut.lock);
    info->st_size = shadow_size(cut.of_fd[fd]);
    pthread_mutex_unlock(&cut.lock);
    return 0;
}

EXPORT int ftruncate(int fd, off_t size)
{
    if (shadow_of(fd) == NULL)
        return real.ftruncate(fd, size);
    pthread_mutex_lock(&cut.lock);
    shadow_settle(cut.of_fd[fd], UINT64_MAX);
    cut.of_fd[fd]->size = size;
    int result = real.ftruncate(fd, size);
    pthread_mutex_unlock(&cut.lock);
    return result;
}

static int name_lost(int result)
{
    if (cut.active && result == 0) {
        pthread_mutex_lock(&cut.lock);
        shadows_forget();
        pthread_mutex_unlock(&cut.lock);
    }
    return result;
}

EXPORT int remove(const char *path)
{
    real_find_all();
    return name_lost(real.remove(path));
}

EXPORT int unlink(const char *path)
{
    real_find_all();
    return name_lost(real.unlink(path));
}

EXPORT int rename(const char *from, const char *to)
{
    real_find_all();
    return name_lost(real.rename(from, to));
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
        die("a read larger than its buffer");
    return pread(fd, into, len, offset);
}

EXPORT int fstat64(int fd, struct stat64 *info)
{
    return fstat(fd, (struct stat *)info);
}

EXPORT int ftruncate64(int fd, off_t size)
{
    return ftruncate(fd, size);
}
