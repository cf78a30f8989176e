/* For tests: memory that runs out at a chosen moment. Every unit test program is linked with
 * tests/memory_double.c, through which malloc and its like of Weir's own code goes;
 * what libraries allocate for themselves does not. Counts belong to the thread that sets them. */
#ifndef WEIR_BASE_MEMORY_DOUBLE_H
#define WEIR_BASE_MEMORY_DOUBLE_H

#include <stddef.h>
#include <stdint.h>

/* The n-th allocation of this thread from now on fails, and `more` after it. 0: none does. */
void memory_fail_at(uint64_t n, uint64_t more);

/* How many allocations there were since memory_fail_at, and how many were refused since the last
 * that told one to fail. */
uint64_t memory_count(void);
uint64_t memory_refused(void);

/* Not there in programs that are no unit tests (fuzzers share some of their equipment). */
__attribute__((weak)) void memory_paused(int more);

/* What a test's own equipment allocates in between neither counts nor fails. Calls may nest. */
static inline void memory_pause(void)
{
    if (memory_paused != NULL)
        memory_paused(1);
}

static inline void memory_resume(void)
{
    if (memory_paused != NULL)
        memory_paused(-1);
}

#endif
