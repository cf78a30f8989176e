/* Contents. A change keeps the bytes it replaced and those it brought; a file's changes stand in
 * their order. Undoing goes from the newest to the oldest. When one becomes durable before older
 * ones of its file (written through O_DSYNC, or older ones are doomed), those take over its bytes
 * where they overlap: the cache has one page, and that page was written. */
#include "unsynced.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SECTOR = 512, FILES_MAX = 65536 };

struct change {
    struct change *next, *prev;
    uint64_t number, at_ms;
    off_t offset, old_size, new_size;
    size_t len;
    bool doomed;
    uint8_t *old, *bytes; /* len each; of a truncation: what was cut off, and nothing */
};

struct unsynced {
    dev_t dev;
    ino_t ino;
    int fd; /* our own, open as long as this lives, so that the number is not used again */
    struct change *first, *last;
};

static struct {
    struct unsynced *files[FILES_MAX];
    size_t count;
    uint64_t number;
} all;

static off_t size_of(const struct unsynced *file)
{
    struct stat info;
    if (fstat(file->fd, &info) != 0)
        shim_die("a file has no size");
    return info.st_size;
}

struct unsynced *unsynced_of(int fd, const char *path)
{
    struct stat info;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode))
        return NULL;
    for (size_t i = 0; i < all.count; i++) {
        if (all.files[i]->ino == info.st_ino && all.files[i]->dev == info.st_dev)
            return all.files[i];
    }
    struct unsynced *file = calloc(1, sizeof *file);
    if (file == NULL || all.count == FILES_MAX)
        shim_die("too many files");
    *file = (struct unsynced){
        .dev = info.st_dev, .ino = info.st_ino, .fd = real.open(path, O_RDWR | O_CLOEXEC)};
    if (file->fd < 0)
        shim_die("a file cannot be opened twice");
    return all.files[all.count++] = file;
}

/* ---- Keeping ---- */

static uint8_t *bytes_make(size_t len)
{
    uint8_t *bytes = calloc(1, len > 0 ? len : 1);
    if (bytes == NULL)
        shim_die("no memory");
    return bytes;
}

static void bytes_get(int fd, uint8_t *into, size_t len, off_t offset)
{
    while (len > 0) {
        ssize_t got = real.pread(fd, into, len, offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            shim_die("the real disk cannot be read");
        if (got == 0)
            return; /* the end of the file */
        into += got;
        len -= (size_t)got;
        offset += got;
    }
}

static void bytes_put(int fd, const uint8_t *bytes, size_t len, off_t offset)
{
    while (len > 0) {
        ssize_t got = real.pwrite(fd, bytes, len, offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            shim_die("the real disk failed");
        bytes += got;
        len -= (size_t)got;
        offset += got;
    }
}

static void size_put(int fd, off_t size)
{
    if (real.ftruncate(fd, size) != 0)
        shim_die("the real disk failed");
}

struct change *change_begin(struct unsynced *file, off_t offset, size_t len)
{
    struct change *change = calloc(1, sizeof *change);
    if (change == NULL)
        shim_die("no memory");
    *change = (struct change){
        .at_ms = shim_now_ms(), .offset = offset, .len = len, .old_size = size_of(file)};
    if (len == 0 && offset < change->old_size) { /* a truncation */
        change->len = (size_t)(change->old_size - offset);
    }
    change->old = bytes_make(change->len);
    bytes_get(file->fd, change->old, change->len, offset);
    return change;
}

static void change_free(struct change *change)
{
    free(change->old);
    free(change->bytes);
    free(change);
}

static void change_unlink(struct unsynced *file, struct change *change)
{
    if (change->prev != NULL)
        change->prev->next = change->next;
    else
        file->first = change->next;
    if (change->next != NULL)
        change->next->prev = change->prev;
    else
        file->last = change->prev;
}

/* Those before it in the list lose what it overwrote. */
static void change_settle(struct unsynced *file, struct change *change)
{
    off_t end = change->offset + (off_t)change->len;
    for (struct change *old = change->prev; old != NULL; old = old->prev) {
        off_t from = change->offset > old->offset ? change->offset : old->offset;
        off_t to = old->offset + (off_t)old->len;
        to = to < end ? to : end;
        if (change->bytes != NULL && from < to) {
            size_t len = (size_t)(to - from);
            memcpy(old->old + (from - old->offset), change->bytes + (from - change->offset), len);
            if (old->bytes != NULL)
                memcpy(old->bytes + (from - old->offset), change->bytes + (from - change->offset),
                       len);
        }
        if (old->old_size < change->new_size)
            old->old_size = change->new_size;
    }
    change_unlink(file, change);
    change_free(change);
}

void change_end(struct unsynced *file, struct change *change, const struct iovec *parts,
                size_t written, bool durable)
{
    change->new_size = size_of(file);
    if (written == 0 && change->new_size == change->old_size) {
        change_free(change);
        return;
    }
    if (written > 0) {
        change->len = written;
        change->bytes = bytes_make(written);
        for (size_t at = 0; at < written; parts++) {
            size_t len = parts->iov_len < written - at ? parts->iov_len : written - at;
            memcpy(change->bytes + at, parts->iov_base, len);
            at += len;
        }
    }
    change->number = ++all.number;
    change->prev = file->last;
    if (file->last != NULL)
        file->last->next = change;
    else
        file->first = change;
    file->last = change;
    if (durable)
        change_settle(file, change);
}

/* ---- Safe ---- */

uint64_t unsynced_mark(void)
{
    return all.number;
}

void unsynced_settle(struct unsynced *file, uint64_t mark)
{
    for (struct change *change = file->first, *next; change != NULL; change = next) {
        next = change->next;
        if (change->number <= mark && !change->doomed)
            change_settle(file, change);
    }
}

void unsynced_settle_before(uint64_t ms)
{
    for (size_t i = 0; i < all.count; i++) {
        struct unsynced *file = all.files[i];
        while (file->first != NULL && file->first->at_ms <= ms)
            change_settle(file, file->first);
    }
}

void unsynced_doom(struct unsynced *file)
{
    for (struct change *change = file->first; change != NULL; change = change->next)
        change->doomed = true;
}

void unsynced_doom_last(struct unsynced *file)
{
    file->last->doomed = true;
}

unsigned long unsynced_count(void)
{
    unsigned long count = 0;
    for (size_t i = 0; i < all.count; i++) {
        for (struct change *change = all.files[i]->first; change != NULL; change = change->next)
            count++;
    }
    return count;
}

/* A file that lost its last name takes along what is kept of it. */
void unsynced_forget_removed(void (*gone)(const struct unsynced *file))
{
    for (size_t i = 0; i < all.count;) {
        struct unsynced *file = all.files[i];
        struct stat info;
        if (fstat(file->fd, &info) != 0 || info.st_nlink > 0) {
            i++;
            continue;
        }
        gone(file);
        while (file->first != NULL) {
            struct change *change = file->first;
            change_unlink(file, change);
            change_free(change);
        }
        real.close(file->fd);
        free(file);
        all.files[i] = all.files[--all.count];
    }
}

/* ---- The cut ---- */

static void change_undo(const struct unsynced *file, const struct change *change)
{
    if (change->new_size != change->old_size)
        size_put(file->fd, change->old_size);
    if (change->offset >= change->old_size)
        return;
    size_t len = (size_t)(change->old_size - change->offset);
    bytes_put(file->fd, change->old, len < change->len ? len : change->len, change->offset);
}

void unsynced_undo(void)
{
    for (size_t i = 0; i < all.count; i++) {
        for (struct change *change = all.files[i]->last; change != NULL; change = change->prev)
            change_undo(all.files[i], change);
    }
}

/* Each write is lost, kept or kept in part; sectors are those of the disk. */
static void change_redo(const struct unsynced *file, const struct change *change, uint64_t *dice,
                        struct tally *tally)
{
    uint64_t kind = change->doomed ? 0 : dice_roll(dice) % 3;
    off_t end = change->offset + (off_t)change->len;
    if (change->bytes == NULL) {
        if (kind != 0)
            size_put(file->fd, change->new_size);
        return;
    }
    tally->lost += kind == 0;
    tally->kept += kind == 1;
    tally->torn += kind == 2;
    for (off_t at = change->offset; at < end;) {
        off_t next = (at / SECTOR + 1) * SECTOR;
        next = next < end ? next : end;
        if (kind == 1 || (kind == 2 && dice_roll(dice) % 2 == 0))
            bytes_put(file->fd, change->bytes + (at - change->offset), (size_t)(next - at), at);
        at = next;
    }
}

void unsynced_redo(uint64_t *dice, struct tally *tally)
{
    for (size_t i = 0; i < all.count; i++) {
        for (struct change *change = all.files[i]->first; change != NULL; change = change->next)
            change_redo(all.files[i], change, dice, tally);
    }
}
