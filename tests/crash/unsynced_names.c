/* Names: made, removed and moved ones of which no fsync of their folder has told the disk. What a
 * removal or a move takes away keeps a name in the attic until that is safe. */
#include "unsynced.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum name_kind { MADE, REMOVED, MOVED };

struct name_change {
    struct name_change *next, *prev;
    enum name_kind kind;
    uint64_t at_ms;
    char *from, *to; /* to: of a move */
    char *attic;     /* where the removed or replaced file is; where a made one goes */
    bool replaced;   /* a move took another file's name */
};

static struct {
    char *root, *attic;
    struct name_change *first, *last;
    unsigned long number;
} names;

static char *text_copy(const char *text)
{
    char *copy = strdup(text);
    if (copy == NULL)
        shim_die("no memory");
    size_t len = strlen(copy);
    while (len > 1 && copy[len - 1] == '/')
        copy[--len] = '\0';
    return copy;
}

void names_init(const char *root, const char *attic)
{
    names.root = text_copy(root);
    names.attic = text_copy(attic);
    if (real.mkdir(attic, 0700) != 0 && errno != EEXIST)
        shim_die("the attic cannot be made");
}

bool names_watched(const char *path)
{
    size_t len = strlen(names.root);
    return strncmp(path, names.root, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

static struct name_change *name_add(enum name_kind kind, const char *from, const char *to)
{
    struct name_change *change = calloc(1, sizeof *change);
    char attic[4096];
    snprintf(attic, sizeof attic, "%s/%d-%lu", names.attic, (int)getpid(), names.number++);
    if (change == NULL)
        shim_die("no memory");
    *change = (struct name_change){.kind = kind,
                                   .at_ms = shim_now_ms(),
                                   .from = text_copy(from),
                                   .to = to != NULL ? text_copy(to) : NULL,
                                   .attic = text_copy(attic),
                                   .prev = names.last};
    if (names.last != NULL)
        names.last->next = change;
    else
        names.first = change;
    names.last = change;
    return change;
}

static void name_drop(struct name_change *change)
{
    if (change->prev != NULL)
        change->prev->next = change->next;
    else
        names.first = change->next;
    if (change->next != NULL)
        change->next->prev = change->prev;
    else
        names.last = change->prev;
    free(change->from);
    free(change->to);
    free(change->attic);
    free(change);
}

void name_made(const char *path)
{
    name_add(MADE, path, NULL);
}

/* A folder goes at once: nobody relies on its coming back. */
int name_remove(const char *path, int (*remove)(const char *))
{
    struct stat info;
    if (lstat(path, &info) != 0 || S_ISDIR(info.st_mode))
        return remove(path);
    struct name_change *change = name_add(REMOVED, path, NULL);
    int result = real.rename(path, change->attic);
    if (result != 0)
        name_drop(change);
    return result;
}

int name_move(const char *from, const char *to)
{
    struct name_change *change = name_add(MOVED, from, to);
    change->replaced = real.link(to, change->attic) == 0;
    int result = real.rename(from, to);
    if (result != 0) {
        int error = errno;
        if (change->replaced)
            real.unlink(change->attic);
        name_drop(change);
        errno = error;
    }
    return result;
}

static bool is_in(const char *path, const char *folder)
{
    const char *slash = path != NULL ? strrchr(path, '/') : NULL;
    return slash != NULL && (size_t)(slash - path) == strlen(folder) &&
           strncmp(path, folder, strlen(folder)) == 0;
}

static void name_settle(struct name_change *change)
{
    if (change->kind == REMOVED || change->replaced)
        real.unlink(change->attic);
    name_drop(change);
}

void names_settle(const char *folder)
{
    char *path = text_copy(folder);
    for (struct name_change *change = names.first, *next; change != NULL; change = next) {
        next = change->next;
        if (is_in(change->from, path) || is_in(change->to, path))
            name_settle(change);
    }
    free(path);
}

void names_settle_before(uint64_t ms)
{
    while (names.first != NULL && names.first->at_ms <= ms)
        name_settle(names.first);
}

unsigned long names_count(void)
{
    unsigned long count = 0;
    for (struct name_change *change = names.first; change != NULL; change = change->next)
        count++;
    return count;
}

/* ---- The cut ---- */

/* What is not there (its folder went, or an earlier change did not come back) is left. */
static void try_move(const char *from, const char *to)
{
    if (real.rename(from, to) != 0 && errno != ENOENT && errno != ENOTDIR)
        shim_die("a name cannot be moved");
}

void names_undo(void)
{
    for (struct name_change *change = names.last; change != NULL; change = change->prev) {
        if (change->kind == MADE)
            try_move(change->from, change->attic);
        else if (change->kind == REMOVED)
            try_move(change->attic, change->from);
        else
            try_move(change->to, change->from);
        if (change->kind == MOVED && change->replaced)
            try_move(change->attic, change->to);
    }
}

static void name_redo(const struct name_change *change)
{
    if (change->kind == MADE)
        try_move(change->attic, change->from);
    else if (change->kind == REMOVED)
        real.unlink(change->from);
    else
        try_move(change->from, change->to);
}

/* The first ones, as a journaling file system has it, or any. */
void names_redo(uint64_t *dice, struct tally *tally)
{
    bool ordered = dice_roll(dice) % 2 == 0;
    uint64_t left = dice_roll(dice) % (names_count() + 1);
    for (struct name_change *change = names.first; change != NULL; change = change->next) {
        bool kept = ordered ? left > 0 : dice_roll(dice) % 2 == 0;
        left -= left > 0;
        tally->names_kept += kept;
        tally->names_lost += !kept;
        if (kept)
            name_redo(change);
    }
}
