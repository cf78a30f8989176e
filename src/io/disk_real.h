/* The real backend of io/disk.h: files of the operating system and a few helper threads, started
 * when there is work and asleep when there is none. */
#ifndef WEIR_IO_DISK_REAL_H
#define WEIR_IO_DISK_REAL_H

#include "io/disk.h"

enum { DISK_THREADS_MAX = 4 };

struct disk_real;

/* wake(ctx) is called from a helper thread when disk_real_deliver has something to deliver; NULL
 * when only the blocking forms are used (offline tools). */
enum err disk_real_create(void (*wake)(void *ctx), void *ctx, struct disk_real **out)
    __attribute__((warn_unused_result));

/* Waits for the requests under way; their done() is not called. Every file must be closed before or
 * be closed later by nobody. */
void disk_real_destroy(struct disk_real *disk);

struct disk *disk_real_disk(struct disk_real *disk);

/* Whether a write was submitted with `now` and waits for disk_real_start. */
bool disk_real_deferred(const struct disk_real *disk);

/* Starts these writes: one of them is executed right here, unless others are under way or such a
 * write has lately taken more than `longest_ns` on average; the rest by the helpers. Returns
 * whether one was executed. */
bool disk_real_start(struct disk_real *disk, int64_t longest_ns);

/* Whether disk_real_deliver would call anything. Cheap. */
bool disk_real_ready(const struct disk_real *disk);

/* Calls done() of the requests that have ended. Returns how many. */
int disk_real_deliver(struct disk_real *disk);

#endif
