/* Large pieces of memory in huge pages: with small ones the kernel's work on 16 MiB, a fault for
 * each 4 KiB, takes longer than copying them does. */
#ifndef WEIR_BASE_HUGE_H
#define WEIR_BASE_HUGE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

enum { HUGE_LEAST_BYTES = 2 << 20, HUGE_SMALL_PAGE = 4096 };

/* Asks for huge pages for what malloc gave, before it is filled; a wish only. The whole mapping is
 * named, for one of two kinds could not be moved by realloc. */
static inline void huge_wish(void *memory, size_t bytes)
{
    if (memory == NULL || bytes < HUGE_LEAST_BYTES)
        return;
    uintptr_t first = (uintptr_t)memory & ~(uintptr_t)(HUGE_SMALL_PAGE - 1);
    uintptr_t end =
        ((uintptr_t)memory + bytes + HUGE_SMALL_PAGE - 1) & ~(uintptr_t)(HUGE_SMALL_PAGE - 1);
    (void)madvise((void *)first, end - first, MADV_HUGEPAGE);
}

#endif
