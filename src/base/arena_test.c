/* An arena hands out apart and aligned memory, up to its limit. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/arena.h"
#include "base/memory_double.h"

static void memory_is_aligned_and_apart(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 256, 1 << 16);
    uint8_t *last = NULL;
    size_t last_size = 0;
    for (size_t size = 0; size < 100; size++) {
        uint8_t *memory = arena_alloc(&arena, size);
        assert_non_null(memory);
        assert_int_equal((uintptr_t)memory % _Alignof(max_align_t), 0);
        assert_true(!last || memory >= last + last_size || memory + size <= last);
        memset(memory, 0xaa, size);
        last = memory;
        last_size = size;
    }
    arena_done(&arena);
}

static void the_limit_holds(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 256, 1024);
    assert_null(arena_alloc(&arena, 1025));
    assert_null(arena_alloc(&arena, SIZE_MAX));
    assert_non_null(arena_alloc(&arena, 512));
    assert_non_null(arena_alloc(&arena, 512));
    assert_null(arena_alloc(&arena, 16));
    assert_true(arena.held_bytes <= 1024);
    arena_reset(&arena);
    assert_non_null(arena_alloc(&arena, 16));
    arena_done(&arena);
}

static void a_product_that_overflows_is_refused(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 256, SIZE_MAX);
    assert_null(arena_array(&arena, SIZE_MAX / 2, 3));
    assert_non_null(arena_array(&arena, 3, 5));
    arena_done(&arena);
}

static void reset_keeps_the_first_chunk_only(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 256, 1 << 16);
    void *first = arena_alloc(&arena, 100);
    assert_non_null(first);
    for (int i = 0; i < 100; i++)
        assert_non_null(arena_alloc(&arena, 100));
    assert_true(arena.held_bytes > 256);
    arena_reset(&arena);
    assert_int_equal(arena.held_bytes, 256);
    assert_ptr_equal(arena_alloc(&arena, 100), first);
    arena_done(&arena);
    assert_int_equal(arena.held_bytes, 0);
    assert_non_null(arena_alloc(&arena, 100));
    arena_done(&arena);
}

static void no_memory_is_told_from_the_limit(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 256, 1 << 16);
    assert_null(arena_alloc(&arena, 1 << 17));
    assert_false(arena.no_memory);
    memory_fail_at(1, 0);
    void *refused = arena_alloc(&arena, 100);
    memory_fail_at(0, 0);
    assert_null(refused);
    assert_true(arena.no_memory);
    arena_done(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_aligned_and_apart),
        cmocka_unit_test(the_limit_holds),
        cmocka_unit_test(a_product_that_overflows_is_refused),
        cmocka_unit_test(no_memory_is_told_from_the_limit),
        cmocka_unit_test(reset_keeps_the_first_chunk_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
