/* The usual array heap; equal times keep no particular order among themselves, but a deterministic
 * one: it depends on the sequence of calls only. */
#include "base/heap.h"

#include <stdlib.h>

static void put(struct heap *heap, uint32_t i, struct heap_node *node)
{
    heap->nodes[i] = node;
    node->place = i + 1;
}

static void sift_up(struct heap *heap, uint32_t i)
{
    struct heap_node *node = heap->nodes[i];
    while (i > 0 && heap->nodes[(i - 1) / 2]->due > node->due) {
        put(heap, i, heap->nodes[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    put(heap, i, node);
}

static void sift_down(struct heap *heap, uint32_t i)
{
    struct heap_node *node = heap->nodes[i];
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= heap->count)
            break;
        if (child + 1 < heap->count && heap->nodes[child + 1]->due < heap->nodes[child]->due)
            child++;
        if (heap->nodes[child]->due >= node->due)
            break;
        put(heap, i, heap->nodes[child]);
        i = child;
    }
    put(heap, i, node);
}

bool heap_set(struct heap *heap, struct heap_node *node, int64_t due)
{
    if (node->place == 0) {
        if (heap->count == heap->capacity) {
            uint32_t capacity = heap->capacity == 0 ? 16 : heap->capacity * 2;
            struct heap_node **nodes = realloc(heap->nodes, capacity * sizeof(*nodes));
            if (nodes == NULL)
                return false;
            heap->nodes = nodes;
            heap->capacity = capacity;
        }
        put(heap, heap->count++, node);
    }
    node->due = due;
    uint32_t i = node->place - 1;
    sift_up(heap, i);
    sift_down(heap, node->place - 1);
    return true;
}

void heap_remove(struct heap *heap, struct heap_node *node)
{
    if (node->place == 0)
        return;
    uint32_t i = node->place - 1;
    node->place = 0;
    struct heap_node *last = heap->nodes[--heap->count];
    if (last == node)
        return;
    put(heap, i, last);
    sift_up(heap, i);
    sift_down(heap, last->place - 1);
}

void heap_done(struct heap *heap)
{
    free(heap->nodes);
    *heap = (struct heap){0};
}
