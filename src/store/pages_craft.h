/* For tests: a little file as LMDB writes it, made page by page, so that a test can have it say
 * anything. As it begins: two meta pages, of which the first is in force; a leaf with two rows, the
 * second of which stands on a page of its own; the free list, with one free page. */
#ifndef WEIR_STORE_PAGES_CRAFT_H
#define WEIR_STORE_PAGES_CRAFT_H

#include "base/endian.h"
#include "store/pages.h"

#include <string.h>

enum {
    CRAFT_BYTES = 512, /* of a page */
    CRAFT_PAGES = 8,   /* at most */
    CRAFT_ROWS = 2,    /* pages */
    CRAFT_FREE_LIST = 3,
    CRAFT_LARGE = 4,
    CRAFT_SPARE = 5, /* free */
    CRAFT_BIG = 1,   /* flag of an entry: the value is on pages of its own */
    CRAFT_LARGE_LEN = 400,
    CRAFT_NODE_BYTES = 8,
};

struct craft {
    uint8_t page[CRAFT_PAGES][CRAFT_BYTES];
    size_t count;
};

/* Fields of a meta page. */
static inline uint8_t *craft_free_tree(struct craft *craft, int meta)
{
    return craft->page[meta] + PAGE_HEADER_BYTES + 24;
}

static inline uint8_t *craft_rows_tree(struct craft *craft, int meta)
{
    return craft_free_tree(craft, meta) + 48;
}

static inline void craft_last(struct craft *craft, int meta, uint64_t last)
{
    le64_put(craft_free_tree(craft, meta) + 96, last);
}

static inline void craft_txn(struct craft *craft, int meta, uint64_t txn)
{
    le64_put(craft_free_tree(craft, meta) + 104, txn);
}

/* A tree of that many pages and entries; flags stay. */
static inline void craft_tree(uint8_t *tree, unsigned depth, const struct page_tree *has)
{
    le16_put(tree + 6, (uint16_t)depth);
    le64_put(tree + 8, has->branches);
    le64_put(tree + 16, has->leaves);
    le64_put(tree + 24, has->overflows);
    le64_put(tree + 32, has->entries);
    le64_put(tree + 40, has->root);
}

static inline void craft_meta(struct craft *craft, int meta)
{
    uint8_t *page = craft->page[meta];
    memset(page, 0, CRAFT_BYTES);
    le64_put(page, (uint64_t)meta);
    le16_put(page + 10, PAGE_META_FLAG);
    le32_put(page + PAGE_HEADER_BYTES, 0xBEEFC0DE);
    le32_put(page + PAGE_HEADER_BYTES + 4, 1);
    le32_put(craft_free_tree(craft, meta), CRAFT_BYTES);
    le16_put(craft_free_tree(craft, meta) + 4, 0x4008);
    craft_tree(craft_free_tree(craft, meta), 0, &(struct page_tree){.root = UINT64_MAX});
    craft_tree(craft_rows_tree(craft, meta), 0, &(struct page_tree){.root = UINT64_MAX});
    craft_last(craft, meta, PAGES_META - 1);
}

/* An empty page of a tree. */
static inline void craft_page(struct craft *craft, size_t number, enum page_flags flags)
{
    uint8_t *page = craft->page[number];
    memset(page, 0, CRAFT_BYTES);
    le64_put(page, number);
    le16_put(page + 10, (uint16_t)flags);
    le16_put(page + 12, PAGE_HEADER_BYTES);
    le16_put(page + 14, CRAFT_BYTES);
}

/* Adds an entry behind the others: `len` and `flags` as its header says them. */
static inline void craft_node(struct craft *craft, size_t number, struct slice key, size_t len,
                              unsigned flags, struct slice value)
{
    uint8_t *page = craft->page[number];
    size_t lower = le16_get(page + 12), upper = le16_get(page + 14);
    upper -= (CRAFT_NODE_BYTES + key.len + value.len + 1) & ~(size_t)1;
    le16_put(page + lower, (uint16_t)upper);
    le16_put(page + 12, (uint16_t)(lower + 2));
    le16_put(page + 14, (uint16_t)upper);
    le32_put(page + upper, (uint32_t)len);
    le16_put(page + upper + 4, (uint16_t)flags);
    le16_put(page + upper + 6, (uint16_t)key.len);
    memcpy(page + upper + CRAFT_NODE_BYTES, key.data, key.len);
    if (value.len > 0)
        memcpy(page + upper + CRAFT_NODE_BYTES + key.len, value.data, value.len);
}

static inline void craft_row(struct craft *craft, size_t number, const char *key, const char *value)
{
    craft_node(craft, number, slice_of(key), strlen(value), 0, slice_of(value));
}

/* An entry whose value is on pages from that one on. */
static inline void craft_big(struct craft *craft, size_t number, struct slice key, uint64_t page)
{
    uint8_t at[8];
    le64_put(at, page);
    craft_node(craft, number, key, CRAFT_LARGE_LEN, CRAFT_BIG, slice_make(at, sizeof at));
}

static inline void craft_child(struct craft *craft, size_t number, const char *key, size_t child)
{
    craft_node(craft, number, slice_of(key), child, 0, (struct slice){0});
}

/* The free list says of a transaction that it freed one page. */
static inline void craft_freed(struct craft *craft, uint64_t txn, uint64_t page)
{
    uint8_t key[8], value[16];
    le64_put(key, txn);
    le64_put(value, 1);
    le64_put(value + 8, page);
    craft_node(craft, CRAFT_FREE_LIST, slice_make(key, sizeof key), sizeof value, 0,
               slice_make(value, sizeof value));
}

static inline void craft_init(struct craft *craft)
{
    *craft = (struct craft){.count = 6};
    craft_meta(craft, 0);
    craft_meta(craft, 1);
    craft_txn(craft, 0, 2);
    craft_txn(craft, 1, 1);
    craft_last(craft, 0, CRAFT_SPARE);
    craft_tree(craft_rows_tree(craft, 0), 1,
               &(struct page_tree){.leaves = 1, .overflows = 1, .entries = 2, .root = CRAFT_ROWS});
    craft_tree(craft_free_tree(craft, 0), 1,
               &(struct page_tree){.leaves = 1, .entries = 1, .root = CRAFT_FREE_LIST});
    craft_page(craft, CRAFT_ROWS, PAGE_LEAF);
    craft_row(craft, CRAFT_ROWS, "a", "small");
    craft_big(craft, CRAFT_ROWS, slice_of("b"), CRAFT_LARGE);
    craft_page(craft, CRAFT_FREE_LIST, PAGE_LEAF);
    craft_freed(craft, 2, CRAFT_SPARE);
    craft_page(craft, CRAFT_LARGE, PAGE_OVERFLOW);
    le32_put(craft->page[CRAFT_LARGE] + 12, 1); /* page */
}

#endif
