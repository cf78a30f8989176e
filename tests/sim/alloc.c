/* The state is global because malloc has no argument to carry it. */
#include "alloc.h"

#include <stddef.h>
#include <string.h>

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *memory, size_t bytes);
void *__real_aligned_alloc(size_t alignment, size_t bytes);
void *__real_reallocarray(void *memory, size_t count, size_t bytes);
void __real_free(void *memory);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *memory, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);
void *__wrap_reallocarray(void *memory, size_t count, size_t bytes);
char *__wrap_strdup(const char *text);
char *__wrap_strndup(const char *text, size_t len);
void __wrap_free(void *memory);

static struct {
    bool armed, at_work;
    uint32_t held;
    uint64_t before, failures, failed;
    uint64_t live;
} state;

uint64_t alloc_live(void)
{
    return state.live;
}

void alloc_fail_after(uint64_t allocations, uint64_t failures)
{
    state.armed = true;
    state.before = allocations;
    state.failures = failures;
    state.failed = 0;
}

void alloc_fail_never(void)
{
    state.armed = false;
}

uint64_t alloc_failed(void)
{
    return state.failed;
}

void alloc_broker_begin(void)
{
    state.at_work = true;
}

void alloc_broker_end(void)
{
    state.at_work = false;
}

void alloc_hold(void)
{
    state.held++;
}

void alloc_release(void)
{
    state.held--;
}

static bool fails(void)
{
    if (!state.armed || !state.at_work || state.held > 0)
        return false;
    if (state.before > 0) {
        state.before--;
        return false;
    }
    if (state.failures == 0)
        return false;
    state.failures--;
    state.failed++;
    return true;
}

static void *made(void *memory)
{
    state.live += memory != NULL;
    return memory;
}

void *__wrap_malloc(size_t bytes)
{
    return fails() ? NULL : made(__real_malloc(bytes));
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    return fails() ? NULL : made(__real_calloc(count, bytes));
}

void *__wrap_realloc(void *memory, size_t bytes)
{
    if (fails())
        return NULL;
    void *to = __real_realloc(memory, bytes);
    state.live += memory == NULL && to != NULL;
    return to;
}

void *__wrap_aligned_alloc(size_t alignment, size_t bytes)
{
    return fails() ? NULL : made(__real_aligned_alloc(alignment, bytes));
}

/* The simulated world's: they do not fail. */
void *__wrap_reallocarray(void *memory, size_t count, size_t bytes)
{
    void *to = __real_reallocarray(memory, count, bytes);
    state.live += memory == NULL && to != NULL;
    return to;
}

char *__wrap_strndup(const char *text, size_t len)
{
    len = strnlen(text, len);
    char *copy = made(__real_malloc(len + 1));
    if (copy == NULL)
        return NULL;
    memcpy(copy, text, len);
    copy[len] = '\0';
    return copy;
}

char *__wrap_strdup(const char *text)
{
    return __wrap_strndup(text, strlen(text));
}

void __wrap_free(void *memory)
{
    state.live -= memory != NULL;
    __real_free(memory);
}
