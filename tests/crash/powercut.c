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
 * The calls themselves are in powercut_calls.c. Everything is under one lock, which the cut takes
 * and never gives back. What goes through a mapping (LMDB's lock file) is not modelled. */
#include "powercut.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LATE_MS = 40 };

struct real_calls real;

struct cut cut = {.lock = PTHREAD_MUTEX_INITIALIZER, .fail_kind = -1, .trace = -1};

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
void real_find_all(void)
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

_Noreturn void power_off(enum cut_kind kind, uint64_t dice)
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
__attribute__((destructor)) void powercut_end(void)
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
enum fate fate_of(int kind, const char *call, const char *path)
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

struct handle *handle_of(int fd)
{
    real_find_all();
    return cut.active && fd >= 0 && fd < FDS_MAX ? cut.of_fd[fd] : NULL;
}

/* Names of paths: calls that succeed or fail as a whole. Returns true when it is to be done. */
bool whole_call(const char *call, const char *path, bool *cuts)
{
    enum fate fate = fate_of(CHANGE, call, path);
    *cuts = fate == CUT;
    return fate == GO || fate == CUT || fate == SHORT;
}

int whole_end(int result, bool cuts)
{
    int error = errno;
    if (cuts)
        power_off(cut.kind, cut.dice);
    pthread_mutex_unlock(&cut.lock);
    errno = error;
    return result;
}
