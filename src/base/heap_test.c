/* A heap of timers against a search through all of them. */
#include "base/heap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { NODES = 100 };

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void check(const struct heap *heap, const struct heap_node *nodes)
{
    uint32_t in = 0;
    int64_t least = INT64_MAX;
    for (int i = 0; i < NODES; i++) {
        if (nodes[i].place == 0)
            continue;
        in++;
        assert_ptr_equal(heap->nodes[nodes[i].place - 1], &nodes[i]);
        least = nodes[i].due < least ? nodes[i].due : least;
    }
    assert_int_equal(heap->count, in);
    if (in == 0)
        assert_null(heap_top(heap));
    else
        assert_int_equal(heap_top(heap)->due, least);
}

static void the_top_is_due_first_whatever_moves(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        uint64_t random = seed * 31337;
        struct heap heap = {0};
        struct heap_node nodes[NODES] = {0};
        for (int step = 0; step < 2000; step++) {
            struct heap_node *node = &nodes[next_random(&random) % NODES];
            if (next_random(&random) % 3 == 0)
                heap_remove(&heap, node);
            else
                assert_true(heap_set(&heap, node, (int64_t)(next_random(&random) % 50) - 25));
            check(&heap, nodes);
        }
        heap_done(&heap);
    }
}

static void nodes_come_out_in_order(void **state)
{
    (void)state;
    uint64_t random = 4711;
    struct heap heap = {0};
    struct heap_node nodes[NODES] = {0};
    for (int i = 0; i < NODES; i++)
        assert_true(heap_set(&heap, &nodes[i], (int64_t)(next_random(&random) >> 1)));
    int64_t last = INT64_MIN;
    for (struct heap_node *top; (top = heap_top(&heap)) != NULL;) {
        assert_true(top->due >= last);
        last = top->due;
        heap_remove(&heap, top);
        assert_int_equal(top->place, 0);
    }
    heap_remove(&heap, &nodes[0]); /* harmless */
    heap_done(&heap);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_top_is_due_first_whatever_moves),
        cmocka_unit_test(nodes_come_out_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
