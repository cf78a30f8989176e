/* What the broker's process takes of the machine: memory, processor, descriptors, disk. */
#ifndef WEIR_SERVER_PROCESS_H
#define WEIR_SERVER_PROCESS_H

#include "gen/metrics.h"

#include <stdatomic.h>
#include <stdint.h>

struct process {
    const char *data; /* the data folder; borrowed */
    int64_t started_ms, counted_ms;
    _Atomic uint64_t open_fds;
};

void process_init(struct process *process, const char *data);
/* The main thread, every now and then: what is too slow to find out when somebody asks. */
void process_watch(struct process *process);
/* Sets the metrics of the process. `process` is a struct process; any thread. */
void process_observe(void *process, uint64_t metrics[METRIC_COUNT]);

#endif
