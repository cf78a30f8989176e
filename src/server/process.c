/* The process looks at itself through the kernel. Most of it takes microseconds and is done when
 * somebody asks; descriptors are counted one by one, which with many connections takes
 * milliseconds: the main thread does that now and then. What the kernel does not tell is shown as
 * 0. */
#include "server/process.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

enum { COUNT_MS = 10 * 1000, FIRST_COUNT_MS = 1000 };

static int64_t clock_ms(void)
{
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static uint64_t count_fds(void)
{
    DIR *folder = opendir("/proc/self/fd");
    if (folder == NULL)
        return 0;
    uint64_t count = 0;
    while (readdir(folder) != NULL)
        count++;
    (void)closedir(folder);
    return count > 3 ? count - 3 : 0; /* ".", ".." and the folder's own */
}

void process_init(struct process *process, const char *data)
{
    process->data = data;
    process->started_ms = clock_ms();
    process->counted_ms = process->started_ms - COUNT_MS + FIRST_COUNT_MS;
    atomic_init(&process->open_fds, count_fds());
}

void process_watch(struct process *process)
{
    int64_t now_ms = clock_ms();
    if (now_ms - process->counted_ms < COUNT_MS)
        return;
    process->counted_ms = now_ms;
    atomic_store_explicit(&process->open_fds, count_fds(), memory_order_relaxed);
}

static uint64_t resident_bytes(void)
{
    unsigned long long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file == NULL)
        return 0;
    if (fscanf(file, "%*u %llu", &pages) != 1)
        pages = 0;
    (void)fclose(file);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t timeval_ms(struct timeval time)
{
    return (uint64_t)time.tv_sec * 1000 + (uint64_t)time.tv_usec / 1000;
}

void process_observe(void *context, uint64_t metrics[METRIC_COUNT])
{
    const struct process *process = context;
    struct rusage usage;
    struct rlimit limit;
    struct statvfs disk;
    metrics[METRIC_UPTIME_SECONDS] = (uint64_t)(clock_ms() - process->started_ms);
    metrics[METRIC_PROCESS_RESIDENT_MEMORY_BYTES] = resident_bytes();
    metrics[METRIC_PROCESS_OPEN_FDS] =
        atomic_load_explicit(&process->open_fds, memory_order_relaxed);
    if (getrusage(RUSAGE_SELF, &usage) == 0)
        metrics[METRIC_PROCESS_CPU_SECONDS] =
            timeval_ms(usage.ru_utime) + timeval_ms(usage.ru_stime);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        metrics[METRIC_PROCESS_MAX_FDS] = limit.rlim_cur;
    if (statvfs(process->data, &disk) == 0)
        metrics[METRIC_DISK_FREE_BYTES] = (uint64_t)disk.f_bavail * disk.f_frsize;
}
