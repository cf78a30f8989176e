/* The simulated world's own memory. It does not come by malloc, calloc or realloc: a test that
 * makes the broker's allocations fail stands in for those, and the world is not what it tests.
 * free() gives it back. */
#ifndef WEIR_IO_SIM_MEMORY_H
#define WEIR_IO_SIM_MEMORY_H

#include <stdlib.h>
#include <string.h>

/* NULL when memory is exhausted. */
static inline void *sim_resize(void *memory, size_t count, size_t bytes)
{
    return reallocarray(memory, count, bytes);
}

/* The same, of zeroes. */
static inline void *sim_make(size_t bytes)
{
    void *memory = sim_resize(NULL, 1, bytes);
    return memory == NULL ? NULL : memset(memory, 0, bytes);
}

#endif
