/* A request is a job in a queue; a helper thread takes it, performs it with plain blocking calls
 * and pushes it on the stack of finished ones; the loop's thread takes the whole stack at once and
 * calls done(). A hand-over to a sleeping helper and back costs about as much as half an fdatasync,
 * so a write that may be done `now` is put aside first, and the loop, when it is about to sleep
 * anyway, performs it itself. A failed write is never tried again: what the page cache holds after
 * that is anybody's guess. Whole sectors that are to be synced go past the page cache (O_DIRECT).
 */
#include "io/disk_real.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

enum {
    PARTS_MAX = 64,
    ZERO_BYTES = 1 << 20, /* written at once by allocate */
    INLINE_RETRY = 64,    /* of so many deferred writes one is tried inline though they were slow */
};

enum kind { WRITE, READ, RUN };

struct real_file {
    struct disk_file base;
    int fd;
    int direct; /* the same file, past the page cache; -1: no */
};

/* Lives in disk_op.internal. */
struct job {
    struct disk_op *next; /* in the queue, then on the stack of finished ones */
    union {
        struct real_file *file;
        void (*run)(struct disk_op *op);
    };
    uint64_t offset;
    union {
        struct iovec one; /* count == 1 */
        struct iovec *parts;
    };
    uint16_t count;
    uint8_t kind;
    bool sync;
};

_Static_assert(sizeof(struct job) <= sizeof(((struct disk_op *)0)->internal), "job fits");

struct disk_real {
    struct disk base;
    void (*wake)(void *ctx);
    void *wake_ctx;

    /* The loop's thread only. */
    struct disk_op *deferred;
    uint32_t under_way; /* given to helpers and not yet delivered */
    int64_t inline_ns;  /* average time of the writes that were executed inline */
    uint32_t inline_skipped;

    _Atomic(struct disk_op *) finished;

    pthread_mutex_t lock; /* what follows */
    pthread_cond_t work;
    struct disk_op *first, *last; /* jobs waiting */
    uint32_t threads, idle;
    bool stop;
    pthread_t thread[DISK_THREADS_MAX];
};

static struct job *job_of(struct disk_op *op)
{
    return (struct job *)(void *)op->internal;
}

static struct disk_real *real_of(struct disk *disk)
{
    return (struct disk_real *)disk;
}

static int fd_of(const struct disk_file *file)
{
    return ((const struct real_file *)file)->fd;
}

static enum err error_of(int error)
{
    switch (error) {
    case ENOSPC:
    case EDQUOT:
        return ERR_DISK_FULL;
    case ENOENT:
        return ERR_NOT_FOUND;
    case ENOMEM:
        return ERR_NO_MEMORY;
    default:
        return ERR_IO;
    }
}

/* Blocking calls */

/* So many bytes of the parts are done: the index of the first one that is not. */
static int parts_advance(struct iovec *parts, int count, size_t bytes)
{
    int first = 0;
    while (first < count && bytes >= parts[first].iov_len)
        bytes -= parts[first++].iov_len;
    if (first < count) {
        parts[first].iov_base = (char *)parts[first].iov_base + bytes;
        parts[first].iov_len -= bytes;
    }
    return first;
}

static enum err parts_write(int fd, struct iovec *parts, int count, uint64_t offset)
{
    while (count > 0) {
        ssize_t got = pwritev(fd, parts, count, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_of(errno);
        if (got == 0 && parts[0].iov_len > 0)
            return ERR_IO;
        offset += (uint64_t)got;
        int done = parts_advance(parts, count, (size_t)got);
        parts += done;
        count -= done;
    }
    return ERR_NONE;
}

static enum err bytes_read(int fd, void *into, size_t len, uint64_t offset, size_t *got_out)
{
    size_t sum = 0;
    while (sum < len) {
        ssize_t got = pread(fd, (char *)into + sum, len - sum, (off_t)(offset + sum));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_of(errno);
        if (got == 0)
            break;
        sum += (size_t)got;
    }
    *got_out = sum;
    return ERR_NONE;
}

static enum err data_sync(int fd)
{
    while (fdatasync(fd) != 0) {
        if (errno != EINTR)
            return error_of(errno);
    }
    return ERR_NONE;
}

static bool in_sectors(const struct iovec *parts, int count, uint64_t offset)
{
    uint64_t bits = offset;
    for (int i = 0; i < count; i++)
        bits |= (uintptr_t)parts[i].iov_base | parts[i].iov_len;
    return bits % DISK_SECTOR == 0;
}

/* A file system that cannot do it says so only when it is tried. */
static enum err sectors_write(struct real_file *file, struct iovec *parts, int count,
                              uint64_t offset)
{
    ssize_t got = -1;
    if (in_sectors(parts, count, offset)) {
        do {
            got = pwritev(file->direct, parts, count, (off_t)offset);
        } while (got < 0 && errno == EINTR);
        if (got < 0 && errno != EINVAL)
            return error_of(errno);
    }
    if (got <= 0)
        return parts_write(file->fd, parts, count, offset);
    int first = parts_advance(parts, count, (size_t)got); /* short: the rest as any other */
    return parts_write(file->fd, parts + first, count - first, offset + (uint64_t)got);
}

static void job_execute(struct disk_op *op)
{
    struct job *job = job_of(op);
    if (job->kind == RUN) {
        job->run(op);
        return;
    }
    struct iovec *parts = job->count == 1 ? &job->one : job->parts;
    if (job->kind == READ) {
        size_t got = 0;
        op->err = bytes_read(job->file->fd, parts->iov_base, parts->iov_len, job->offset, &got);
        op->bytes = got;
        return;
    }
    uint64_t bytes = 0;
    for (int i = 0; i < job->count; i++)
        bytes += parts[i].iov_len;
    if (job->sync && job->file->direct >= 0)
        op->err = sectors_write(job->file, parts, job->count, job->offset);
    else
        op->err = parts_write(job->file->fd, parts, job->count, job->offset);
    if (op->err == ERR_NONE && job->sync)
        op->err = data_sync(job->file->direct >= 0 ? job->file->direct : job->file->fd);
    op->bytes = op->err == ERR_NONE ? bytes : 0;
    if (job->count > 1)
        free(parts);
}

/* Helpers */

static void job_finish(struct disk_real *disk, struct disk_op *op, bool wake)
{
    struct disk_op *top = atomic_load_explicit(&disk->finished, memory_order_relaxed);
    do {
        job_of(op)->next = top;
    } while (!atomic_compare_exchange_weak_explicit(&disk->finished, &top, op, memory_order_release,
                                                    memory_order_relaxed));
    if (wake && top == NULL && disk->wake != NULL)
        disk->wake(disk->wake_ctx);
}

static void *helper_main(void *ctx)
{
    struct disk_real *disk = ctx;
    pthread_mutex_lock(&disk->lock);
    for (;;) {
        while (disk->first == NULL && !disk->stop) {
            disk->idle++;
            pthread_cond_wait(&disk->work, &disk->lock);
            disk->idle--;
        }
        struct disk_op *op = disk->first;
        if (op == NULL)
            break;
        disk->first = job_of(op)->next;
        pthread_mutex_unlock(&disk->lock);
        job_execute(op);
        job_finish(disk, op, true);
        pthread_mutex_lock(&disk->lock);
    }
    pthread_mutex_unlock(&disk->lock);
    return NULL;
}

/* A helper takes no signals: they are for the process's first thread. Called with the lock held. */
static void helper_start(struct disk_real *disk)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (pthread_create(&disk->thread[disk->threads], NULL, helper_main, disk) == 0)
        disk->threads++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void job_give(struct disk_real *disk, struct disk_op *op)
{
    job_of(op)->next = NULL;
    disk->under_way++;
    pthread_mutex_lock(&disk->lock);
    if (disk->first == NULL)
        disk->first = op;
    else
        job_of(disk->last)->next = op;
    disk->last = op;
    bool idle = disk->idle > 0;
    if (!idle && disk->threads < DISK_THREADS_MAX)
        helper_start(disk);
    bool nobody = disk->threads == 0;
    if (nobody)
        disk->first = NULL;
    pthread_mutex_unlock(&disk->lock);
    if (nobody) { /* no thread could be started */
        job_execute(op);
        job_finish(disk, op, true);
    } else if (idle) {
        pthread_cond_signal(&disk->work);
    }
}

/* Requests */

static void file_write(struct disk_file *file, const struct iovec *parts, int count,
                       uint64_t offset, bool sync, bool now, struct disk_op *op)
{
    assert(count > 0 && count <= PARTS_MAX);
    struct disk_real *disk = real_of(file->disk);
    struct job *job = job_of(op);
    *job = (struct job){
        .file = (struct real_file *)file,
        .offset = offset,
        .count = (uint16_t)count,
        .kind = WRITE,
        .sync = sync,
    };
    if (count == 1) {
        job->one = parts[0];
    } else {
        size_t size = (size_t)count * sizeof *parts;
        job->parts = malloc(size);
        if (job->parts == NULL) {
            op->err = ERR_NO_MEMORY;
            op->bytes = 0;
            disk->under_way++;
            job_finish(disk, op, true);
            return;
        }
        memcpy(job->parts, parts, size);
    }
    if (now) {
        job->next = disk->deferred;
        disk->deferred = op;
    } else {
        job_give(disk, op);
    }
}

static void file_read(struct disk_file *file, void *into, size_t len, uint64_t offset,
                      struct disk_op *op)
{
    *job_of(op) = (struct job){
        .file = (struct real_file *)file,
        .offset = offset,
        .one = {.iov_base = into, .iov_len = len},
        .count = 1,
        .kind = READ,
    };
    job_give(real_of(file->disk), op);
}

static void disk_run_job(struct disk *disk, void (*run)(struct disk_op *op), struct disk_op *op)
{
    *job_of(op) = (struct job){.run = run, .kind = RUN};
    job_give(real_of(disk), op);
}

bool disk_real_deferred(const struct disk_real *disk)
{
    return disk->deferred != NULL;
}

static int64_t clock_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static bool inline_pays(struct disk_real *disk, int64_t longest_ns)
{
    if (disk->under_way > 0 || longest_ns == 0)
        return false;
    if (disk->inline_ns <= longest_ns)
        return true;
    return ++disk->inline_skipped % INLINE_RETRY == 0;
}

static void job_inline(struct disk_real *disk, struct disk_op *op)
{
    int64_t start = clock_ns();
    job_execute(op);
    disk->inline_ns += (clock_ns() - start - disk->inline_ns) / 8;
    disk->under_way++;
    job_finish(disk, op, false);
}

bool disk_real_start(struct disk_real *disk, int64_t longest_ns)
{
    struct disk_op *op = disk->deferred;
    disk->deferred = NULL;
    if (op == NULL)
        return false;
    bool here = inline_pays(disk, longest_ns);
    struct disk_op *mine = here ? op : NULL;
    if (here)
        op = job_of(op)->next;
    while (op != NULL) {
        struct disk_op *next = job_of(op)->next;
        job_give(disk, op);
        op = next;
    }
    if (here)
        job_inline(disk, mine);
    return here;
}

bool disk_real_ready(const struct disk_real *disk)
{
    return atomic_load_explicit(&disk->finished, memory_order_relaxed) != NULL;
}

int disk_real_deliver(struct disk_real *disk)
{
    if (!disk_real_ready(disk))
        return 0;
    struct disk_op *op = atomic_exchange_explicit(&disk->finished, NULL, memory_order_acquire);
    struct disk_op *oldest = NULL;
    while (op != NULL) {
        struct disk_op *next = job_of(op)->next;
        job_of(op)->next = oldest;
        oldest = op;
        op = next;
    }
    int count = 0;
    for (; oldest != NULL; count++) {
        op = oldest;
        oldest = job_of(op)->next; /* before done(), which may submit the op again */
        disk->under_way--;
        op->done(op);
    }
    return count;
}

/* The blocking forms */

static enum err file_open(struct disk *disk, const char *path, bool create, struct disk_file **out)
{
    struct real_file *file = malloc(sizeof *file);
    if (file == NULL)
        return ERR_NO_MEMORY;
    file->base.disk = disk;
    file->direct = -1;
    file->fd = open(path, O_RDWR | O_CLOEXEC | (create ? O_CREAT : 0), 0640);
    if (file->fd < 0) {
        enum err err = error_of(errno);
        free(file);
        return err;
    }
    *out = &file->base;
    return ERR_NONE;
}

static void file_close(struct disk_file *file)
{
    close(fd_of(file)); /* nothing is lost by its failure: what matters was synced */
    if (((struct real_file *)file)->direct >= 0)
        close(((struct real_file *)file)->direct);
    free(file);
}

static void file_bypass(struct disk_file *file, const char *path)
{
    struct real_file *real = (struct real_file *)file;
    if (real->direct < 0)
        real->direct = open(path, O_WRONLY | O_DIRECT | O_CLOEXEC);
}

static enum err write_sync(struct disk_file *file, const void *data, size_t len, uint64_t offset)
{
    struct iovec part = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};
    return parts_write(fd_of(file), &part, 1, offset);
}

static enum err read_sync(struct disk_file *file, void *into, size_t len, uint64_t offset,
                          size_t *got)
{
    return bytes_read(fd_of(file), into, len, offset, got);
}

static enum err sync_sync(struct disk_file *file)
{
    return data_sync(fd_of(file));
}

static enum err file_size(struct disk_file *file, uint64_t *bytes)
{
    struct stat info;
    if (fstat(fd_of(file), &info) != 0)
        return error_of(errno);
    *bytes = (uint64_t)info.st_size;
    return ERR_NONE;
}

static enum err zeroes_write(struct real_file *file, uint64_t from, uint64_t to)
{
    void *zeroes = aligned_alloc(DISK_SECTOR, ZERO_BYTES);
    enum err err = ERR_NONE;
    if (zeroes == NULL)
        return ERR_NO_MEMORY;
    memset(zeroes, 0, ZERO_BYTES);
    while (from < to && err == ERR_NONE) {
        struct iovec part = {.iov_base = zeroes, .iov_len = ZERO_BYTES};
        if (to - from < part.iov_len)
            part.iov_len = (size_t)(to - from);
        uint64_t end = from + part.iov_len;
        err = file->direct >= 0 ? sectors_write(file, &part, 1, from)
                                : parts_write(file->fd, &part, 1, from);
        from = end;
    }
    free(zeroes);
    return err;
}

static enum err file_allocate(struct disk_file *file, uint64_t bytes, bool written)
{
    uint64_t size = 0;
    enum err err = file_size(file, &size);
    if (err || size >= bytes)
        return err;
    /* In one piece, and a full disk is told before anything is written. */
    int error = posix_fallocate(fd_of(file), (off_t)size, (off_t)(bytes - size));
    if (error != 0 && error != EOPNOTSUPP && error != EINVAL && error != EINTR)
        return error_of(error);
    if (error == 0 && !written)
        return ERR_NONE;
    err = zeroes_write((struct real_file *)file, size, bytes);
    if (err)
        return err;
    /* What else was being written to the file may have been what there was no room for, and the
     * next sync would not say so again: no full disk, but one that failed. */
    return sync_sync(file) == ERR_NONE ? ERR_NONE : ERR_IO;
}

static enum err make_folder(struct disk *disk, const char *path)
{
    (void)disk;
    char *copy = strdup(path);
    if (copy == NULL)
        return ERR_NO_MEMORY;
    enum err err = ERR_NONE;
    for (char *end = copy + 1; err == ERR_NONE; end++) {
        if (*end != '/' && *end != '\0')
            continue;
        char was = *end;
        *end = '\0';
        if (mkdir(copy, 0750) != 0 && errno != EEXIST)
            err = error_of(errno);
        *end = was;
        if (was == '\0')
            break;
    }
    struct stat info;
    if (err == ERR_NONE && (stat(copy, &info) != 0 || !S_ISDIR(info.st_mode)))
        err = ERR_EXISTS;
    free(copy);
    return err;
}

static enum err path_rename(struct disk *disk, const char *from, const char *to)
{
    (void)disk;
    return rename(from, to) == 0 ? ERR_NONE : error_of(errno);
}

static enum err path_link(struct disk *disk, const char *path, const char *name)
{
    (void)disk;
    if (link(path, name) == 0)
        return ERR_NONE;
    switch (errno) {
    case EEXIST:
        return ERR_EXISTS;
    case EPERM:
    case EMLINK:
    case ENOSYS:
    case EOPNOTSUPP:
        return ERR_UNSUPPORTED;
    default:
        return error_of(errno);
    }
}

static void file_punch(struct disk_file *file, uint64_t offset, uint64_t len)
{
    int how = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    (void)!fallocate(fd_of(file), how, (off_t)offset, (off_t)len);
}

static enum err path_remove(struct disk *disk, const char *path)
{
    (void)disk;
    return remove(path) == 0 ? ERR_NONE : error_of(errno);
}

static enum err sync_folder(struct disk *disk, const char *path)
{
    (void)disk;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return error_of(errno);
    enum err err = fsync(fd) == 0 ? ERR_NONE : error_of(errno);
    close(fd);
    return err;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static enum err folder_list(struct disk *disk, const char *path,
                            void (*each)(void *ctx, const char *name), void *ctx)
{
    (void)disk;
    struct dirent **names;
    int count = scandir(path, &names, NULL, by_name);
    if (count < 0)
        return error_of(errno);
    for (int i = 0; i < count; i++) {
        if (strcmp(names[i]->d_name, ".") != 0 && strcmp(names[i]->d_name, "..") != 0)
            each(ctx, names[i]->d_name);
        free(names[i]);
    }
    free(names);
    return ERR_NONE;
}

static enum err free_space(struct disk *disk, const char *path, uint64_t *bytes)
{
    (void)disk;
    struct statvfs info;
    if (statvfs(path, &info) != 0)
        return error_of(errno);
    *bytes = (uint64_t)info.f_bavail * info.f_frsize;
    return ERR_NONE;
}

static const struct disk_ops OPS = {
    .open = file_open,
    .close = file_close,
    .write = file_write,
    .read = file_read,
    .run = disk_run_job,
    .write_sync = write_sync,
    .read_sync = read_sync,
    .sync_sync = sync_sync,
    .bypass = file_bypass,
    .allocate = file_allocate,
    .size = file_size,
    .make_folder = make_folder,
    .rename = path_rename,
    .link = path_link,
    .punch = file_punch,
    .remove = path_remove,
    .sync_folder = sync_folder,
    .list = folder_list,
    .free_space = free_space,
};

enum err disk_real_create(void (*wake)(void *ctx), void *ctx, struct disk_real **out)
{
    struct disk_real *disk = calloc(1, sizeof *disk);
    if (disk == NULL)
        return ERR_NO_MEMORY;
    disk->base.ops = &OPS;
    disk->wake = wake;
    disk->wake_ctx = ctx;
    pthread_mutex_init(&disk->lock, NULL);
    pthread_cond_init(&disk->work, NULL);
    *out = disk;
    return ERR_NONE;
}

void disk_real_destroy(struct disk_real *disk)
{
    (void)disk_real_start(disk, 0);
    pthread_mutex_lock(&disk->lock);
    disk->stop = true;
    pthread_cond_broadcast(&disk->work);
    pthread_mutex_unlock(&disk->lock);
    for (uint32_t i = 0; i < disk->threads; i++)
        pthread_join(disk->thread[i], NULL);
    pthread_cond_destroy(&disk->work);
    pthread_mutex_destroy(&disk->lock);
    free(disk);
}

struct disk *disk_real_disk(struct disk_real *disk)
{
    return &disk->base;
}
