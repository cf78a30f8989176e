/* For tests: a folder of a test's own under the system's one for temporary files, so that a test
 * that fails leaves nothing behind in the folder it was started in. */
#ifndef WEIR_BASE_FOLDER_RIG_H
#define WEIR_BASE_FOLDER_RIG_H

#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { FOLDER_BYTES = PATH_MAX - 64 /* room for the names in it */, FOLDER_DEPTH_MAX = 16 };

/* Makes one whose name begins with weir-NAME; its path goes to `out`, of FOLDER_BYTES. */
static inline void folder_make(const char *name, char *out)
{
    const char *root = getenv("TMPDIR");
    int len = snprintf(out, FOLDER_BYTES, "%s/weir-%s-XXXXXX", root ? root : "/tmp", name);
    if (len < 0 || len >= FOLDER_BYTES || mkdtemp(out) == NULL) {
        perror(out);
        abort();
    }
}

static inline int folder_entry_remove(const char *path, const struct stat *status, int kind,
                                      struct FTW *place)
{
    (void)status, (void)kind, (void)place;
    return remove(path);
}

/* Removes it with all that is in it. */
static inline void folder_remove(const char *folder)
{
    if (nftw(folder, folder_entry_remove, FOLDER_DEPTH_MAX, FTW_DEPTH | FTW_PHYS) != 0) {
        perror(folder);
        abort();
    }
}

#endif
