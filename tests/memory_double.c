/* What the linker puts in place of malloc and its like in unit test programs: see
 * base/memory_double.h. */
#include "base/memory_double.h"

#include <stdbool.h>
#include <stddef.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *memory, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *memory, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);

static _Thread_local uint64_t seen, refused, fails_from, fails_to;
static _Thread_local int paused;

void memory_fail_at(uint64_t n, uint64_t more)
{
    seen = 0;
    refused = n == 0 ? refused : 0;
    fails_from = n;
    fails_to = n == 0 ? 0 : n + more;
}

uint64_t memory_count(void)
{
    return seen;
}

uint64_t memory_refused(void)
{
    return refused;
}

void memory_paused(int more)
{
    paused += more;
}

static bool fails(void)
{
    if (paused > 0)
        return false;
    seen++;
    bool refuses = seen >= fails_from && seen <= fails_to;
    refused += refuses;
    return refuses;
}

void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *memory, size_t size)
{
    return fails() ? NULL : __real_realloc(memory, size);
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return fails() ? NULL : __real_aligned_alloc(alignment, size);
}
