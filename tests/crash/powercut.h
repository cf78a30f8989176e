/* What the shim's calls (powercut_calls.c) share with its switch (powercut.c): the settings, what
 * descriptors stand for, and the fate of each call. */
#ifndef CRASH_POWERCUT_H
#define CRASH_POWERCUT_H

#include "unsynced.h"

#include <pthread.h>

enum { FDS_MAX = 65536 };

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

struct cut {
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
};

extern struct cut cut;

/* Constructors of other libraries may call before ours. */
void real_find_all(void);

/* NULL: not one of ours. */
struct handle *handle_of(int fd);

/* With the lock held. For FAIL and HALF_FAIL errno is what it fails with. */
enum fate fate_of(int kind, const char *call, const char *path);
_Noreturn void power_off(enum cut_kind kind, uint64_t dice);

/* Calls that succeed or fail as a whole: the first, with the lock held, returns true when the call
 * is to be done; the second gives the lock back, or never returns. */
bool whole_call(const char *call, const char *path, bool *cuts);
int whole_end(int result, bool cuts);

/* A process that ends in order leaves the disk its time; one whose disk failed does not. */
void powercut_end(void);

#endif
