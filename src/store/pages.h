/* LMDB's file, read without LMDB. LMDB trusts what it maps: one flipped bit in a page can hide
 * rows, bring an older tree back, or send it outside the map. So what its trees consist of is
 * checked page by page before LMDB sees the file, and read here when it has to be repaired. The
 * layout is that of LMDB 0.9 on 64-bit little-endian machines. Blocking; nothing is written. */
#ifndef WEIR_STORE_PAGES_H
#define WEIR_STORE_PAGES_H

#include "base/slice.h"
#include "gen/err.h"
#include "store/state.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGES_META        2u /* pages 0 and 1 */
#define PAGE_HEADER_BYTES 16u

enum page_flags {
    PAGE_BRANCH = 1,
    PAGE_LEAF = 2,
    PAGE_OVERFLOW = 4,
    PAGE_META_FLAG = 8,
};

struct page_tree {
    uint16_t flags, depth;
    uint64_t branches, leaves, overflows, entries, root;
};

/* A meta page as it stands. */
struct page_meta {
    bool sound;          /* number, magic, version, flags */
    uint32_t page_bytes; /* as it says */
    struct page_tree free, rows;
    uint64_t last; /* page */
    uint64_t txn;
};

struct pages {
    int fd;
    uint32_t page_bytes;
    uint64_t count; /* whole pages in the file */
    struct page_meta metas[PAGES_META];
};

/* ERR_NOT_FOUND, ERR_IO, ERR_CORRUPT: not even the size of a page can be told. */
enum err pages_open(const char *path, struct pages *out) __attribute__((warn_unused_result));
void pages_close(struct pages *pages);
/* `n` pages from `number` on. ERR_CORRUPT when the file ends before. */
enum err pages_read(const struct pages *pages, uint64_t number, uint64_t n, uint8_t *into)
    __attribute__((warn_unused_result));

static inline uint16_t page_flags_of(const uint8_t *page)
{
    return (uint16_t)(page[10] | page[11] << 8);
}

/* What a branch or leaf page says of its entry at byte `at`. */
struct page_node {
    size_t bytes;     /* that it takes, an even number */
    struct slice key; /* in the page */
    struct slice value;
    bool big;       /* the value stands in overflow pages ... */
    uint64_t page;  /* ... from this one on; of a branch: the child */
    size_t big_len; /* so long */
};
bool page_node_get(const uint8_t *page, size_t page_bytes, size_t at, bool branch,
                   struct page_node *out);
/* Overflow pages that a value of that length takes. */
uint64_t page_overflows(uint32_t page_bytes, size_t len);

/* ---- Walking ---- */

enum page_mark {
    PAGE_UNKNOWN, /* in no tree and not free */
    PAGE_USED,
    PAGE_FREE,
    PAGE_ROWS,    /* used: a leaf of the rows' tree */
    PAGE_DAMAGED, /* the rows' tree leads to it, and it is none of its pages, or not as it was */
    PAGE_DOUBLE,  /* the rows' tree leads to it, and it is free */
};

/* What a walk over both trees of one meta page finds. */
struct page_walk {
    /* Something is wrong at a byte of the file. */
    void (*damage)(void *ctx, uint64_t offset, const char *what);
    /* A row of a sound page; may be NULL. */
    enum err (*row)(void *ctx, struct slice key, struct slice value, uint64_t offset);
    void *ctx;
    /* For each page up to the last one, an enum page_mark; of page_walk_done. */
    uint8_t *marks;
    uint64_t last;
    bool rows_damaged; /* the tree of rows is not whole */
    bool free_damaged; /* the other one is not */
    uint64_t unknown;  /* pages that are neither used nor free: lost space */
    /* The last two transactions that the free list knows of, and how many entries it has. */
    uint64_t freed_by, freed_before, freed_count;
};

/* The meta page that is in force: what it says of its transaction is held against the free list of
 * its tree, which every transaction adds to. *doubted: it says something else. */
enum err pages_newest(const struct pages *pages, unsigned *newest, bool doubted[PAGES_META])
    __attribute__((warn_unused_result));
/* Goes on behind what is damaged. */
enum err pages_walk(const struct pages *pages, const struct page_meta *meta, struct page_walk *walk)
    __attribute__((warn_unused_result));
void page_walk_done(struct page_walk *walk);

/* All of it: both meta pages, and the trees of the one in force. Nothing is told of a file that
 * LMDB can use as it was meant. */
enum err pages_check(const char *path, const struct state_check *check)
    __attribute__((warn_unused_result));

#endif
