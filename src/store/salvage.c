/* Rows out of a damaged file. The trees are walked as far as they hold together. The leaves found
 * so, pages that are of no use as they stand, then pages that neither the trees nor the free list
 * know of (what a damaged page led to), and last those that both know of, are searched for rows: a
 * row has a checksum over its key and value, so it is known for one wherever it stands. A page's
 * entries fill its end without a gap; where sound ones leave one, a row stood there, and if turning
 * a single bit makes it fit the gap and its checksum, that was it. */
#include "store/salvage.h"

#include "base/endian.h"
#include "store/format.h"
#include "store/index.h"
#include "store/pages.h"

#include <stdlib.h>
#include <string.h>

#define NODE_HEADER_BYTES 8u
#define MENDED_MAX        (256u * 1024) /* of a value in overflow pages; larger ones are not tried */

struct search {
    const struct pages *pages;
    struct salvage *salvage;
    struct page_walk walk;
    uint8_t *value; /* of overflow pages */
    size_t value_room;
    bool stray;
    enum err err;
};

static size_t upper_of(const uint8_t *page)
{
    return (size_t)(page[14] | page[15] << 8);
}

/* ---- One row ---- */

static bool value_room(struct search *search, size_t bytes)
{
    if (search->value_room >= bytes)
        return true;
    uint8_t *value = realloc(search->value, bytes);
    if (value == NULL) {
        search->err = ERR_NO_MEMORY;
        return false;
    }
    search->value = value;
    search->value_room = bytes;
    return true;
}

/* The value, from its overflow pages if it stands there. */
static bool value_get(struct search *search, const struct page_node *node, struct slice *out)
{
    const struct pages *pages = search->pages;
    *out = node->value;
    if (!node->big)
        return true;
    uint64_t n = page_overflows(pages->page_bytes, node->big_len);
    if (node->page < PAGES_META || node->page >= pages->count || n > pages->count - node->page ||
        !value_room(search, n * pages->page_bytes))
        return false;
    enum err err = pages_read(pages, node->page, n, search->value);
    if (err == ERR_IO)
        search->err = err;
    *out = (struct slice){.data = search->value + PAGE_HEADER_BYTES, .len = node->big_len};
    return err == ERR_NONE;
}

static bool row_tell(struct search *search, struct slice key, struct slice value)
{
    if (!index_row_sound(key, value))
        return false;
    search->salvage->rows++;
    search->err = search->salvage->row(search->salvage->ctx, key, value, search->stray);
    return true;
}

/* Is there a row at the byte, and nothing wrong with it? Then it is told. */
static bool row_try(struct search *search, const uint8_t *page, size_t at, size_t *bytes)
{
    struct page_node node;
    struct slice value;
    if (!page_node_get(page, search->pages->page_bytes, at, false, &node) || node.key.len == 0)
        return false;
    *bytes = node.bytes;
    return value_get(search, &node, &value) && row_tell(search, node.key, value);
}

/* Turns each bit of `data` in turn until the entry at `at` is a row that fills the gap. */
static bool gap_mend(struct search *search, uint8_t *page, size_t at, size_t gap)
{
    for (size_t bit = 0; bit < 8 * gap && search->err == ERR_NONE; bit++) {
        struct page_node node;
        uint8_t *byte = page + at + bit / 8, turn = (uint8_t)(1u << bit % 8);
        struct slice value;
        *byte ^= turn;
        bool fits = page_node_get(page, search->pages->page_bytes, at, false, &node) &&
                    node.bytes == gap && node.key.len > 0 && value_get(search, &node, &value) &&
                    row_tell(search, node.key, value);
        *byte ^= turn;
        if (fits)
            return true;
    }
    return false;
}

/* The same for a value in overflow pages, whose entry is whole. */
static bool value_mend(struct search *search, const uint8_t *page, size_t at)
{
    struct page_node node;
    struct slice value;
    if (!page_node_get(page, search->pages->page_bytes, at, false, &node) || !node.big ||
        node.big_len < sizeof(uint32_t) || node.big_len > MENDED_MAX ||
        !value_get(search, &node, &value))
        return false;
    uint8_t *data = search->value + PAGE_HEADER_BYTES;
    size_t body = value.len - sizeof(uint32_t), bit;
    uint32_t stored = le32_get(data + body);
    uint32_t found = crc32c(crc32c(0, node.key.data, node.key.len), data, body);
    if (!crc32c_bit(stored ^ found, body, &bit))
        return false;
    data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    return row_tell(search, node.key, value);
}

/* ---- One page ---- */

static void gap_search(struct search *search, uint8_t *page, uint64_t number, size_t at, size_t gap)
{
    struct salvage *salvage = search->salvage;
    if (gap_mend(search, page, at, gap) || value_mend(search, page, at)) {
        salvage->mended++;
        return;
    }
    struct page_node node;
    struct slice key = {0};
    if (page_node_get(page, search->pages->page_bytes, at, false, &node))
        key = node.key;
    if (search->err == ERR_NONE && !search->stray)
        salvage->lost(salvage->ctx, number * search->pages->page_bytes + at, key);
}

/* How many bytes from `from` on are no sound rows, when entries begin there. Nothing is told. */
static size_t gaps_measure(struct search *search, const uint8_t *page, size_t from)
{
    size_t bytes = search->pages->page_bytes, gaps = 0;
    for (size_t at = from; at < bytes && search->err == ERR_NONE;) {
        struct page_node node;
        struct slice value;
        bool sound = page_node_get(page, bytes, at, false, &node) && node.key.len > 0 &&
                     value_get(search, &node, &value) && index_row_sound(node.key, value);
        gaps += sound ? 0 : 2;
        at += sound ? node.bytes : 2;
    }
    return gaps;
}

/* Where the page's entries begin: where its header says, or where the lowest of its pointers does;
 * whichever leaves less unexplained. */
static size_t entries_begin(struct search *search, const uint8_t *page)
{
    size_t bytes = search->pages->page_bytes, upper = upper_of(page);
    size_t lower = (size_t)(page[12] | page[13] << 8), lowest = bytes;
    for (size_t at = PAGE_HEADER_BYTES; at + 1 < lower && at + 1 < bytes; at += 2) {
        size_t pointer = (size_t)(page[at] | page[at + 1] << 8);
        if (pointer >= lower && pointer < lowest && pointer % 2 == 0)
            lowest = pointer;
    }
    if (upper == lowest)
        return upper;
    if (upper < PAGE_HEADER_BYTES || upper > bytes || upper % 2 != 0)
        return lowest;
    return gaps_measure(search, page, upper) <= gaps_measure(search, page, lowest) ? upper : lowest;
}

static void leaf_search(struct search *search, uint8_t *page, uint64_t number)
{
    size_t bytes = search->pages->page_bytes;
    size_t at = entries_begin(search, page), gap = at;
    while (at < bytes && search->err == ERR_NONE) {
        size_t row_bytes;
        if (!row_try(search, page, at, &row_bytes)) {
            at += 2;
            continue;
        }
        if (at > gap && search->err == ERR_NONE)
            gap_search(search, page, number, gap, at - gap);
        at += row_bytes;
        gap = at;
    }
    if (gap < bytes && search->err == ERR_NONE)
        gap_search(search, page, number, gap, bytes - gap);
}

static void page_search(struct search *search, uint64_t number, uint8_t *page)
{
    enum err err = pages_read(search->pages, number, 1, page);
    if (err != ERR_NONE) {
        search->err = err == ERR_CORRUPT ? ERR_NONE : err;
        return;
    }
    /* One bit of what says that it is a leaf may be what is wrong with it. */
    int wrong = __builtin_popcount(page_flags_of(page) ^ PAGE_LEAF) +
                __builtin_popcountll(le64_get(page) ^ number);
    if (wrong <= !search->stray)
        leaf_search(search, page, number);
}

/* ---- The file ---- */

static enum err pages_search(struct search *search, enum page_mark mark, bool stray)
{
    uint8_t *page = malloc(search->pages->page_bytes);
    if (page == NULL)
        return ERR_NO_MEMORY;
    search->stray = stray;
    for (uint64_t number = PAGES_META; number <= search->walk.last && search->err == ERR_NONE;
         number++) {
        if (search->walk.marks[number] == mark)
            page_search(search, number, page);
    }
    free(page);
    return search->err;
}

enum err salvage_rows(const char *path, struct salvage *salvage)
{
    struct pages pages;
    enum err err = pages_open(path, &pages);
    if (err != ERR_NONE)
        return err;
    unsigned newest = 0;
    bool doubted[PAGES_META];
    struct search search = {.pages = &pages, .salvage = salvage};
    err = pages_newest(&pages, &newest, doubted);
    if (err == ERR_NONE)
        err = pages_walk(&pages, &pages.metas[newest], &search.walk);
    if (err == ERR_NONE)
        err = pages_search(&search, PAGE_ROWS, false);
    if (err == ERR_NONE)
        err = pages_search(&search, PAGE_DAMAGED, false);
    if (err == ERR_NONE && search.walk.rows_damaged)
        err = pages_search(&search, PAGE_UNKNOWN, true);
    if (err == ERR_NONE)
        err = pages_search(&search, PAGE_DOUBLE, true);
    page_walk_done(&search.walk);
    free(search.value);
    pages_close(&pages);
    return err;
}
