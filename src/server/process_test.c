/* The process sees itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "server/process.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void what_the_kernel_knows_is_set_and_the_rest_left_alone(void **state)
{
    (void)state;
    struct process process;
    uint64_t metrics[METRIC_COUNT] = {[METRIC_QUEUES] = 7};
    process_init(&process, "/");
    process_observe(&process, metrics);
    assert_int_equal(metrics[METRIC_QUEUES], 7);
    assert_true(metrics[METRIC_PROCESS_MAX_FDS] > 3);
    assert_true(metrics[METRIC_DISK_FREE_BYTES] > 0);
    assert_in_range(metrics[METRIC_PROCESS_RESIDENT_MEMORY_BYTES], 1 << 18, UINT64_C(1) << 40);
}

static void memory_in_use_is_seen(void **state)
{
    (void)state;
    enum { SIZE = 32 << 20 };
    struct process process;
    uint64_t before[METRIC_COUNT] = {0}, after[METRIC_COUNT] = {0};
    process_init(&process, "/");
    process_observe(&process, before);
    volatile char *memory = malloc(SIZE);
    assert_non_null((void *)memory);
    for (size_t i = 0; i < SIZE; i += 512)
        memory[i] = 1;
    process_observe(&process, after);
    assert_in_range(after[METRIC_PROCESS_RESIDENT_MEMORY_BYTES] -
                        before[METRIC_PROCESS_RESIDENT_MEMORY_BYTES],
                    SIZE / 2, 2 * SIZE);
    free((void *)memory);
}

static void descriptors_are_counted(void **state)
{
    (void)state;
    struct process process;
    uint64_t metrics[METRIC_COUNT] = {0};
    process_init(&process, "/");
    process_observe(&process, metrics);
    uint64_t before = metrics[METRIC_PROCESS_OPEN_FDS];
    int fds[10];
    for (int i = 0; i < 10; i++)
        fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    process_watch(&process); /* too soon */
    process_observe(&process, metrics);
    assert_int_equal(metrics[METRIC_PROCESS_OPEN_FDS], before);
    process.counted_ms -= 10 * 1000;
    process_watch(&process);
    process_observe(&process, metrics);
    assert_int_equal(metrics[METRIC_PROCESS_OPEN_FDS], before + 10);
    for (int i = 0; i < 10; i++)
        (void)close(fds[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_kernel_knows_is_set_and_the_rest_left_alone),
        cmocka_unit_test(memory_in_use_is_seen),
        cmocka_unit_test(descriptors_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
