/* What the process wrote below one folder and has not synced: the contents of files and the changes
 * of names, each with what it takes to undo it. Writes go straight to the real files, so that every
 * reader, a mapping included, sees them; a power cut takes back what was not synced and brings some
 * of it again. Callers hold one lock around everything here. */
#ifndef CRASH_UNSYNCED_H
#define CRASH_UNSYNCED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

/* The calls that the shim stands before. */
struct real_calls {
    int (*open)(const char *, int, ...);
    int (*close)(int);
    ssize_t (*read)(int, void *, size_t);
    ssize_t (*pread)(int, void *, size_t, off_t);
    ssize_t (*write)(int, const void *, size_t);
    ssize_t (*writev)(int, const struct iovec *, int);
    ssize_t (*pwrite)(int, const void *, size_t, off_t);
    ssize_t (*pwritev)(int, const struct iovec *, int, off_t);
    int (*fdatasync)(int);
    int (*fsync)(int);
    int (*ftruncate)(int, off_t);
    int (*fallocate)(int, int, off_t, off_t);
    int (*posix_fallocate)(int, off_t, off_t);
    int (*remove)(const char *);
    int (*unlink)(const char *);
    int (*rename)(const char *, const char *);
    int (*link)(const char *, const char *);
    int (*mkdir)(const char *, mode_t);
};

extern struct real_calls real;

_Noreturn void shim_die(const char *why);
uint64_t shim_now_ms(void);
uint64_t dice_roll(uint64_t *dice);

struct tally {
    unsigned long lost, kept, torn; /* writes */
    unsigned long names_lost, names_kept;
};

/* ---- Contents ---- */

struct unsynced;
struct change;

/* That of an open file, made when there is none; it stands for the file, not for the descriptor. */
struct unsynced *unsynced_of(int fd, const char *path);

/* Around the real write, truncation (len 0) or reservation of room (len 0). */
struct change *change_begin(struct unsynced *file, off_t offset, size_t len);
void change_end(struct unsynced *file, struct change *change, const struct iovec *parts,
                size_t written, bool durable);

/* The number of the last change; what is up to it becomes durable. */
uint64_t unsynced_mark(void);
void unsynced_settle(struct unsynced *file, uint64_t mark);
void unsynced_settle_before(uint64_t ms);

/* A failed fdatasync: what was not safe by then never will be, whatever a later one says. */
void unsynced_doom(struct unsynced *file);
/* A write that failed: what it did of the change never will be safe. Other threads' writes, which
 * their fdatasync is still to come for, are none of its business. */
void unsynced_doom_last(struct unsynced *file);

/* Takes everything back; then brings some of it again. */
void unsynced_undo(void);
void unsynced_redo(uint64_t *dice, struct tally *tally);
void unsynced_forget_removed(void (*gone)(const struct unsynced *file));
unsigned long unsynced_count(void);

/* ---- Names ---- */

/* Below it names are watched; attic, in the same file system, keeps what may have to come back. */
void names_init(const char *root, const char *attic);
bool names_watched(const char *path);

void name_made(const char *path);
int name_remove(const char *path, int (*remove)(const char *));
int name_move(const char *from, const char *to);

void names_settle(const char *folder);
void names_settle_before(uint64_t ms);

void names_undo(void);
void names_redo(uint64_t *dice, struct tally *tally);
unsigned long names_count(void);

#endif
