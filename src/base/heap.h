/* Intrusive binary min-heap of timers: the node due first is on top. A node knows its place, so it
 * is moved or taken out in O(log n). */
#ifndef WEIR_BASE_HEAP_H
#define WEIR_BASE_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct heap_node {
    int64_t due;
    uint32_t place; /* 1-based; 0 = in no heap */
};

struct heap {
    struct heap_node **nodes;
    uint32_t count, capacity;
};

/* Puts node in, or moves it, to be due then. false when memory is exhausted. */
bool heap_set(struct heap *heap, struct heap_node *node, int64_t due)
    __attribute__((warn_unused_result));
/* Harmless when node is in no heap. */
void heap_remove(struct heap *heap, struct heap_node *node);
/* NULL when empty. */
static inline struct heap_node *heap_top(const struct heap *heap)
{
    return heap->count == 0 ? NULL : heap->nodes[0];
}
void heap_done(struct heap *heap);

#endif
