/* No memory, once. Preloaded into the broker, it counts what is asked of malloc and its kin and of
 * mmap, and lets one request fail, or some in a row.
 *
 *     LD_PRELOAD=nomem.so NOMEM_AT=N NOMEM_COUNT=N weir serve ...
 *     LD_PRELOAD=nomem.so NOMEM_SITE=HEX NOMEM_AT=N ...   the N-th request from that place
 *     LD_PRELOAD=nomem.so NOMEM_TRACE=PATH ...            a line for each: number, place, call,
 * bytes
 *
 * A place is made of the innermost functions of the program that led to the request, so that it is
 * the same in the next run. Requests from other places are not counted while one is named. Syncs do
 * nothing: nothing happens to the machine, and a busy one's disk takes its time. */
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FRAMES = 12, FRAMES_OURS = 4 };

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

static struct {
    pthread_mutex_t lock;
    bool active;
    uintptr_t base, end; /* of the program */
    unsigned long number, at, count;
    uint64_t site; /* 0: any */
    int trace;
} nomem = {.lock = PTHREAD_MUTEX_INITIALIZER, .trace = -1};

static __thread bool inside __attribute__((tls_model("initial-exec")));

static int program_find(struct dl_phdr_info *info, size_t size, void *ctx)
{
    (void)size;
    (void)ctx;
    nomem.base = info->dlpi_addr;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        uintptr_t end = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr + info->dlpi_phdr[i].p_memsz;
        if (info->dlpi_phdr[i].p_type == PT_LOAD && end > nomem.end)
            nomem.end = end;
    }
    return 1; /* the first one is the program */
}

static unsigned long number_of(const char *name, int base, unsigned long otherwise)
{
    const char *text = getenv(name);
    return text != NULL ? strtoul(text, NULL, base) : otherwise;
}

__attribute__((constructor)) static void nomem_start(void)
{
    const char *trace = getenv("NOMEM_TRACE");
    if (trace == NULL && getenv("NOMEM_AT") == NULL)
        return;
    void *frames[2];
    inside = true;
    (void)backtrace(frames, 2); /* loads what it needs */
    dl_iterate_phdr(program_find, NULL);
    nomem.at = number_of("NOMEM_AT", 10, 0);
    nomem.count = number_of("NOMEM_COUNT", 10, 1);
    nomem.site = number_of("NOMEM_SITE", 16, 0);
    if (trace != NULL)
        nomem.trace = open(trace, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    inside = false;
    nomem.active = true;
}

/* Also says the addresses, for whoever wants to look them up. */
static uint64_t site_of(char *text, size_t room)
{
    void *frames[FRAMES];
    int count = backtrace(frames, FRAMES), ours = 0;
    uint64_t site = 1469598103934665603u;
    size_t len = 0;
    for (int i = 0; i < count && ours < FRAMES_OURS; i++) {
        uintptr_t at = (uintptr_t)frames[i];
        if (at < nomem.base || at >= nomem.end)
            continue;
        site = (site ^ (at - nomem.base)) * 1099511628211u;
        len += (size_t)snprintf(text + len, room - len, " 0x%lx", (unsigned long)(at - nomem.base));
        ours++;
    }
    return ours > 0 ? site : 1;
}

static bool fails_inside(const char *call, size_t size)
{
    char where[128] = "", line[256];
    uint64_t site = nomem.site != 0 || nomem.trace >= 0 ? site_of(where, sizeof where) : 0;
    pthread_mutex_lock(&nomem.lock);
    bool counts = nomem.site == 0 || nomem.site == site;
    unsigned long number = nomem.number += counts;
    pthread_mutex_unlock(&nomem.lock);
    bool fails = counts && nomem.at > 0 && number >= nomem.at && number < nomem.at + nomem.count;
    int len = snprintf(line, sizeof line, "%lu %lx %s %zu%s\n", number, (unsigned long)site, call,
                       size, where);
    if (nomem.trace >= 0)
        (void)!write(nomem.trace, line, (size_t)len);
    if (fails && nomem.site == 0)
        (void)site_of(where, sizeof where);
    if (fails)
        dprintf(2, "nomem: request %lu, %s of %zu bytes, at%s\n", number, call, size, where);
    return fails;
}

static bool fails(const char *call, size_t size)
{
    if (!nomem.active || inside)
        return false;
    int error = errno;
    inside = true;
    bool result = fails_inside(call, size);
    inside = false;
    errno = result ? ENOMEM : error;
    return result;
}

#define EXPORT __attribute__((visibility("default")))

EXPORT void *malloc(size_t size)
{
    return fails("malloc", size) ? NULL : __libc_malloc(size);
}

EXPORT void *calloc(size_t count, size_t size)
{
    return fails("calloc", count * size) ? NULL : __libc_calloc(count, size);
}

EXPORT void *realloc(void *old, size_t size)
{
    return fails("realloc", size) ? NULL : __libc_realloc(old, size);
}

EXPORT void *aligned_alloc(size_t alignment, size_t size)
{
    return fails("aligned_alloc", size) ? NULL : __libc_memalign(alignment, size);
}

EXPORT int posix_memalign(void **out, size_t alignment, size_t size)
{
    void *memory = fails("posix_memalign", size) ? NULL : __libc_memalign(alignment, size);
    if (memory == NULL)
        return ENOMEM;
    *out = memory;
    return 0;
}

EXPORT int fdatasync(int fd)
{
    (void)fd;
    return 0;
}

EXPORT int fsync(int fd)
{
    (void)fd;
    return 0;
}

EXPORT void *mmap(void *at, size_t len, int protection, int flags, int fd, off_t offset)
{
    if (fails("mmap", len))
        return MAP_FAILED;
    return (void *)syscall(SYS_mmap, at, len, protection, flags, fd, offset);
}

EXPORT void *mmap64(void *at, size_t len, int protection, int flags, int fd, off_t offset)
{
    return mmap(at, len, protection, flags, fd, offset);
}
