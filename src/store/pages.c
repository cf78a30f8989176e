/* Pages of an LMDB file: what they say, and whether all of it fits together. A page of a tree names
 * its own number; its entries fill the end of the page without a gap, in order of their keys,
 * between the keys that its parent names; every page up to the last one is used once or is free,
 * and the trees have as many pages and entries as the meta page says. The file may end before the
 * last page: what a transaction takes and gives back LMDB never writes. What is left unchecked
 * nobody reads. */
#include "store/pages.h"

#include "base/endian.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Pages that may be missing at the end. LMDB keeps track of 2^17 in a transaction, where a large
 * value counts once. As all of them must be free, this only bounds what a false number costs. */
#define UNWRITTEN_MAX (1u << 20)

#define NODE_HEADER_BYTES 8u
#define NODE_BIG          1u
#define META_MAGIC        0xBEEFC0DEu
#define META_VERSION      1u
#define META_BYTES        136u /* of a meta page that are in use, behind its header */
#define TREE_BYTES        48u
#define PAGE_BYTES_MIN    512u
#define PAGE_BYTES_MAX    65536u
#define FREE_TREE_FLAGS                                                                            \
    0x4008u /* its keys are integers; the file was made by itself, in no folder */
#define DEPTH_MAX     32u
#define NO_PAGE       UINT64_MAX
#define KEY_BYTES_MAX 511u

static uint16_t le16_at(const uint8_t *at)
{
    return (uint16_t)(at[0] | at[1] << 8);
}

/* ---- Opening ---- */

static struct page_tree tree_get(const uint8_t *at)
{
    return (struct page_tree){.flags = le16_at(at + 4),
                              .depth = le16_at(at + 6),
                              .branches = le64_get(at + 8),
                              .leaves = le64_get(at + 16),
                              .overflows = le64_get(at + 24),
                              .entries = le64_get(at + 32),
                              .root = le64_get(at + 40)};
}

static void meta_get(const uint8_t *page, uint64_t number, struct page_meta *out)
{
    const uint8_t *at = page + PAGE_HEADER_BYTES;
    out->sound = le64_get(page) == number && page_flags_of(page) == PAGE_META_FLAG &&
                 le32_get(at) == META_MAGIC && le32_get(at + 4) == META_VERSION;
    out->page_bytes = le32_get(at + 24);
    out->free = tree_get(at + 24);
    out->rows = tree_get(at + 24 + TREE_BYTES);
    out->last = le64_get(at + 24 + 2 * TREE_BYTES);
    out->txn = le64_get(at + 32 + 2 * TREE_BYTES);
}

static bool read_at(int fd, uint64_t offset, size_t len, uint8_t *into, size_t *got)
{
    *got = 0;
    while (*got < len) {
        ssize_t n = pread(fd, into + *got, len - *got, (off_t)(offset + *got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        if (n == 0)
            break;
        *got += (size_t)n;
    }
    return true;
}

/* Both meta pages name the size, and the second one stands where that says. */
static enum err metas_read(struct pages *pages)
{
    uint8_t page[PAGE_HEADER_BYTES + META_BYTES];
    size_t got = 0;
    for (uint32_t bytes = PAGE_BYTES_MIN; bytes <= PAGE_BYTES_MAX; bytes *= 2) {
        if (!read_at(pages->fd, 0, sizeof page, page, &got))
            return ERR_IO;
        if (got < sizeof page)
            return ERR_CORRUPT;
        meta_get(page, 0, &pages->metas[0]);
        if (!read_at(pages->fd, bytes, sizeof page, page, &got))
            return ERR_IO;
        if (got < sizeof page)
            return ERR_CORRUPT;
        meta_get(page, 1, &pages->metas[1]);
        uint32_t first = pages->metas[0].page_bytes, second = pages->metas[1].page_bytes;
        int alike = (page_flags_of(page) == PAGE_META_FLAG) +
                    (le32_get(page + PAGE_HEADER_BYTES) == META_MAGIC) +
                    (le32_get(page + PAGE_HEADER_BYTES + 4) == META_VERSION);
        if ((first == bytes || second == bytes) && alike >= 2) {
            pages->page_bytes = bytes;
            return ERR_NONE;
        }
    }
    return ERR_CORRUPT;
}

enum err pages_open(const char *path, struct pages *out)
{
    struct pages pages = {.fd = open(path, O_RDONLY | O_CLOEXEC)};
    if (pages.fd < 0)
        return errno == ENOENT ? ERR_NOT_FOUND : ERR_IO;
    struct stat status;
    enum err err = fstat(pages.fd, &status) == 0 ? metas_read(&pages) : ERR_IO;
    if (err != ERR_NONE) {
        close(pages.fd);
        return err;
    }
    pages.count = (uint64_t)status.st_size / pages.page_bytes;
    (void)posix_fadvise(pages.fd, 0, 0, POSIX_FADV_WILLNEED);
    *out = pages;
    return ERR_NONE;
}

void pages_close(struct pages *pages)
{
    close(pages->fd);
}

enum err pages_read(const struct pages *pages, uint64_t number, uint64_t n, uint8_t *into)
{
    size_t got = 0;
    if (number >= pages->count || n > pages->count - number)
        return ERR_CORRUPT;
    if (!read_at(pages->fd, number * pages->page_bytes, n * pages->page_bytes, into, &got))
        return ERR_IO;
    return got == n * pages->page_bytes ? ERR_NONE : ERR_CORRUPT;
}

/* ---- Entries ---- */

bool page_node_get(const uint8_t *page, size_t page_bytes, size_t at, bool branch,
                   struct page_node *out)
{
    if (at % 2 != 0 || at < PAGE_HEADER_BYTES || at + NODE_HEADER_BYTES > page_bytes)
        return false;
    const uint8_t *node = page + at;
    uint16_t flags = le16_at(node + 4);
    size_t key_len = le16_at(node + 6), len = le32_get(node);
    size_t room = page_bytes - at - NODE_HEADER_BYTES;
    *out = (struct page_node){.big = !branch && flags == NODE_BIG};
    size_t inside = branch ? 0 : out->big ? sizeof out->page : len;
    if (key_len > KEY_BYTES_MAX || (!branch && (flags & ~NODE_BIG) != 0) || key_len > room ||
        inside > room - key_len)
        return false;
    out->key = (struct slice){.data = node + NODE_HEADER_BYTES, .len = key_len};
    const uint8_t *data = out->key.data + key_len;
    if (branch) {
        out->page = len | (uint64_t)flags << 32;
    } else if (out->big) {
        out->page = le64_get(data);
        out->big_len = len;
    } else {
        out->value = (struct slice){.data = data, .len = len};
    }
    out->bytes = (NODE_HEADER_BYTES + key_len + inside + 1) & ~(size_t)1;
    return at + out->bytes <= page_bytes;
}

uint64_t page_overflows(uint32_t page_bytes, size_t len)
{
    return (PAGE_HEADER_BYTES - 1 + (uint64_t)len) / page_bytes + 1;
}

/* ---- Walking one tree ---- */

struct keys {
    struct slice first, end; /* at or behind first, before end; data NULL: anything */
};

struct tree_walk {
    const struct pages *pages;
    struct page_walk *walk;
    const struct page_tree *tree;
    bool free; /* it is the free list */
    struct page_tree found;
    uint8_t *buffers; /* a page for each level */
    uint8_t *value;
    size_t value_room;
    enum err err;
    bool damaged;
};

static void damage(struct tree_walk *tree, uint64_t offset, const char *what)
{
    tree->damaged = true;
    if (tree->walk->damage != NULL)
        tree->walk->damage(tree->walk->ctx, offset, what);
}

static int key_compare(const struct tree_walk *tree, struct slice a, struct slice b)
{
    if (tree->free && a.len == sizeof(uint64_t) && b.len == sizeof(uint64_t)) {
        uint64_t left = le64_get(a.data), right = le64_get(b.data);
        return (left > right) - (left < right);
    }
    size_t shared = a.len < b.len ? a.len : b.len;
    int order = shared == 0 ? 0 : memcmp(a.data, b.data, shared);
    return order != 0 ? order : (a.len > b.len) - (a.len < b.len);
}

/* Takes `n` pages for a tree or as free ones: each can be taken once. */
static bool pages_take(struct page_walk *walk, uint64_t number, uint64_t n, enum page_mark mark)
{
    if (number < PAGES_META || number > walk->last || n > walk->last - number + 1)
        return false;
    for (uint64_t i = 0; i < n; i++) {
        if (walk->marks[number + i] != PAGE_UNKNOWN)
            return false;
    }
    memset(walk->marks + number, (int)mark, n);
    return true;
}

static enum err overflow_read(struct tree_walk *tree, const struct page_node *node, bool *sound)
{
    const struct pages *pages = tree->pages;
    uint64_t least = page_overflows(pages->page_bytes, node->big_len);
    uint8_t header[PAGE_HEADER_BYTES];
    size_t got = 0;
    *sound = false;
    if (node->page >= pages->count)
        return ERR_NONE;
    if (!read_at(pages->fd, node->page * pages->page_bytes, sizeof header, header, &got))
        return ERR_IO;
    uint64_t n = le32_get(header + 12);
    if (got < sizeof header || le64_get(header) != node->page ||
        page_flags_of(header) != PAGE_OVERFLOW || n < least || n > pages->count ||
        !pages_take(tree->walk, node->page, n, PAGE_USED))
        return ERR_NONE;
    size_t bytes = least * pages->page_bytes;
    if (tree->value_room < bytes) {
        uint8_t *value = realloc(tree->value, bytes);
        if (value == NULL)
            return ERR_NO_MEMORY;
        tree->value = value;
        tree->value_room = bytes;
    }
    tree->found.overflows += n;
    enum err err = pages_read(pages, node->page, least, tree->value);
    *sound = err == ERR_NONE;
    return err == ERR_CORRUPT ? ERR_NONE : err;
}

/* A transaction and the pages that it freed. */
static bool free_pages_take(struct tree_walk *tree, struct slice key, struct slice value)
{
    uint64_t words = value.len / sizeof(uint64_t), count;
    if (key.len != sizeof(uint64_t) || value.len % sizeof(uint64_t) != 0 || words == 0)
        return false;
    count = le64_get(value.data);
    if (count > words - 1)
        return false;
    tree->walk->freed_before = tree->walk->freed_by;
    tree->walk->freed_by = le64_get(key.data);
    tree->walk->freed_count++;
    bool sound = true;
    for (uint64_t i = 1; i <= count; i++) {
        uint64_t number = le64_get(value.data + i * sizeof(uint64_t));
        if (pages_take(tree->walk, number, 1, PAGE_FREE))
            continue;
        sound = false;
        if (number <= tree->walk->last && tree->walk->marks[number] >= PAGE_ROWS)
            tree->walk->marks[number] = PAGE_DOUBLE;
    }
    return sound;
}

static void leaf_node(struct tree_walk *tree, const struct page_node *node, uint64_t offset)
{
    struct slice value = node->value;
    bool sound = true;
    if (node->big) {
        tree->err = overflow_read(tree, node, &sound);
        value = (struct slice){.data = tree->value + PAGE_HEADER_BYTES, .len = node->big_len};
    }
    if (tree->err != ERR_NONE)
        return;
    tree->found.entries++;
    if (!sound && !tree->free)
        tree->walk->marks[offset / tree->pages->page_bytes] = PAGE_DAMAGED;
    if (!sound)
        damage(tree,
               node->page < tree->pages->count ? node->page * tree->pages->page_bytes : offset,
               "damaged overflow page");
    else if (tree->free && !free_pages_take(tree, node->key, value))
        damage(tree, offset, "damaged entry of the free list");
    else if (!tree->free && tree->walk->row != NULL)
        tree->err = tree->walk->row(tree->walk->ctx, node->key, value, offset);
}

/* Do the entries fill the page's end exactly, and do their keys ascend between those given? */
static bool page_sound(const struct tree_walk *tree, const uint8_t *page, uint64_t number,
                       const struct keys *keys)
{
    size_t page_bytes = tree->pages->page_bytes;
    size_t lower = le16_at(page + 12), upper = le16_at(page + 14), filled = 0;
    bool branch = page_flags_of(page) == PAGE_BRANCH;
    if (le64_get(page) != number || (!branch && page_flags_of(page) != PAGE_LEAF) ||
        lower <= PAGE_HEADER_BYTES || lower % 2 != 0 || upper < lower || upper > page_bytes)
        return false;
    uint8_t taken[PAGE_BYTES_MAX / 16] = {0}; /* a bit for each two bytes */
    struct slice last = keys->first;
    for (size_t i = 0; i < (lower - PAGE_HEADER_BYTES) / 2; i++) {
        struct page_node node;
        size_t at = le16_at(page + PAGE_HEADER_BYTES + 2 * i);
        if (at < upper || !page_node_get(page, page_bytes, at, branch, &node))
            return false;
        for (size_t unit = at / 2; unit < (at + node.bytes) / 2; unit++) {
            if ((taken[unit / 8] & 1u << unit % 8) != 0)
                return false;
            taken[unit / 8] |= (uint8_t)(1u << unit % 8);
        }
        filled += node.bytes;
        if (branch && i == 0)
            continue; /* its key is never looked at */
        int order = last.data == NULL ? -1 : key_compare(tree, last, node.key);
        if (order > 0 || (order == 0 && (branch || i > 0)))
            return false;
        if (keys->end.data != NULL && key_compare(tree, node.key, keys->end) >= 0)
            return false;
        last = node.key;
    }
    return filled == page_bytes - upper;
}

/* Visits the page and what is below it; in a frame of its own for each level, at most DEPTH_MAX. */
static void page_visit(struct tree_walk *tree, uint64_t number, unsigned depth, struct keys keys)
{
    const struct pages *pages = tree->pages;
    uint64_t offset = number * pages->page_bytes;
    uint8_t *page = tree->buffers + (size_t)depth * pages->page_bytes;
    if (!pages_take(tree->walk, number, 1, PAGE_USED)) {
        damage(tree, number < pages->count ? offset : 0, "page used twice, or out of range");
        return;
    }
    enum err err = pages_read(pages, number, 1, page);
    if (err != ERR_NONE && err != ERR_CORRUPT) {
        tree->err = err;
        return;
    }
    bool leaf_due = depth + 1 == tree->tree->depth;
    if (err == ERR_CORRUPT || !page_sound(tree, page, number, &keys) ||
        (page_flags_of(page) == PAGE_LEAF) != leaf_due) {
        if (!tree->free)
            tree->walk->marks[number] = PAGE_DAMAGED;
        damage(tree, offset, "damaged page");
        return;
    }
    if (leaf_due && !tree->free)
        tree->walk->marks[number] = PAGE_ROWS;
    bool branch = page_flags_of(page) == PAGE_BRANCH;
    tree->found.branches += branch;
    tree->found.leaves += !branch;
    size_t count = (le16_at(page + 12) - PAGE_HEADER_BYTES) / 2;
    for (size_t i = 0; i < count && tree->err == ERR_NONE; i++) {
        struct page_node node, next;
        size_t at = le16_at(page + PAGE_HEADER_BYTES + 2 * i);
        if (!page_node_get(page, pages->page_bytes, at, branch, &node))
            continue;
        if (!branch) {
            leaf_node(tree, &node, offset + at);
            continue;
        }
        struct keys below = {.first = i == 0 ? keys.first : node.key, .end = keys.end};
        if (i + 1 < count &&
            page_node_get(page, pages->page_bytes, le16_at(page + PAGE_HEADER_BYTES + 2 * (i + 1)),
                          true, &next))
            below.end = next.key;
        page_visit(tree, node.page, depth + 1, below);
    }
}

static enum err tree_visit(const struct pages *pages, const struct page_tree *root, bool free_list,
                           struct page_walk *walk, uint64_t meta_offset)
{
    struct tree_walk tree = {.pages = pages, .walk = walk, .tree = root, .free = free_list};
    if (root->root == NO_PAGE && root->depth == 0 && root->entries == 0)
        return ERR_NONE;
    if (root->depth == 0 || root->depth > DEPTH_MAX ||
        root->flags != (free_list ? FREE_TREE_FLAGS : 0)) {
        damage(&tree, meta_offset, "damaged meta page");
    } else {
        tree.buffers = malloc((size_t)root->depth * pages->page_bytes);
        if (tree.buffers == NULL)
            return ERR_NO_MEMORY;
        page_visit(&tree, root->root, 0, (struct keys){0});
        const struct page_tree *found = &tree.found;
        if (tree.err == ERR_NONE && !tree.damaged &&
            (found->branches != root->branches || found->leaves != root->leaves ||
             found->overflows != root->overflows || found->entries != root->entries))
            damage(&tree, meta_offset, "pages or entries other than the meta page counts");
    }
    *(free_list ? &walk->free_damaged : &walk->rows_damaged) = tree.damaged;
    free(tree.buffers);
    free(tree.value);
    return tree.err;
}

/* False: there is no memory for the marks. */
static bool walk_begin(const struct pages *pages, const struct page_meta *meta,
                       struct page_walk *walk)
{
    bool possible = meta->last < pages->count + UNWRITTEN_MAX;
    walk->last = possible ? meta->last : pages->count - 1;
    walk->marks = calloc(walk->last + 1, 1);
    return walk->marks != NULL;
}

/* May the file end where it does? A page behind its end was never written, so it must be free. */
static bool end_is_sound(const struct pages *pages, const struct page_meta *meta,
                         const struct page_walk *walk)
{
    if (walk->rows_damaged || walk->free_damaged)
        return true; /* what is free is not known, and damage is told of */
    for (uint64_t number = pages->count; number <= walk->last; number++) {
        if (walk->marks[number] != PAGE_FREE)
            return false;
    }
    return walk->last == meta->last;
}

enum err pages_walk(const struct pages *pages, const struct page_meta *meta, struct page_walk *walk)
{
    uint64_t offset = (uint64_t)(meta - pages->metas) * pages->page_bytes;
    if (!walk_begin(pages, meta, walk))
        return ERR_NO_MEMORY;
    enum err err = tree_visit(pages, &meta->rows, false, walk, offset);
    if (err == ERR_NONE)
        err = tree_visit(pages, &meta->free, true, walk, offset);
    for (uint64_t number = PAGES_META; number <= walk->last; number++)
        walk->unknown += walk->marks[number] == PAGE_UNKNOWN;
    if (err == ERR_NONE && !end_is_sound(pages, meta, walk)) {
        if (walk->damage != NULL)
            walk->damage(walk->ctx, offset, "the file is shorter than the meta page says");
        walk->free_damaged = true;
    }
    return err;
}

void page_walk_done(struct page_walk *walk)
{
    free(walk->marks);
    walk->marks = NULL;
}

/* ---- All of it ---- */

/* The transaction that a meta page's own free list tells of: each one but the first frees pages,
 * and keeps what the one before it freed. 0: it does not tell; *odd: it looks whole and should. */
static enum err freed_by(const struct pages *pages, const struct page_meta *meta, bool *odd,
                         uint64_t *out)
{
    struct page_walk walk = {0};
    if (!walk_begin(pages, meta, &walk))
        return ERR_NO_MEMORY;
    enum err err = tree_visit(pages, &meta->free, true, &walk, 0);
    uint64_t count = walk.freed_count, last = walk.freed_by;
    bool tells = count == 1 ? last == 2 : count > 1 && last == walk.freed_before + 1;
    bool first = count == 0 && !walk.free_damaged;
    *odd = !walk.free_damaged && !tells && (count > 0 || meta->txn > 1);
    *out = first && meta->txn > 1 ? 1 : tells && !walk.free_damaged ? last : 0;
    page_walk_done(&walk);
    return err;
}

enum err pages_newest(const struct pages *pages, unsigned *newest, bool doubted[PAGES_META])
{
    uint64_t txns[PAGES_META];
    for (unsigned i = 0; i < PAGES_META; i++) {
        bool odd = false;
        uint64_t freed = 0, said = pages->metas[i].txn;
        enum err err = freed_by(pages, &pages->metas[i], &odd, &freed);
        if (err != ERR_NONE)
            return err;
        txns[i] = freed != 0 ? freed : said;
        /* Both are made with 0, and then written in turn. */
        doubted[i] = odd || (said != 0 && said % PAGES_META != i) || (freed != 0 && freed != said);
    }
    *newest = txns[1] > txns[0];
    uint64_t high = txns[*newest], low = txns[!*newest];
    if (high != 0 && high != low + 1)
        doubted[!*newest] = true;
    return ERR_NONE;
}

static void check_damage(void *ctx, uint64_t offset, const char *what)
{
    const struct state_check *check = ctx;
    check->damage(check->ctx, offset, what);
}

static enum err check_row(void *ctx, struct slice key, struct slice value, uint64_t offset)
{
    const struct state_check *check = ctx;
    if (!check->row_sound(key, value))
        check->damage(check->ctx, offset, "damaged row");
    return ERR_NONE;
}

static enum err check_trees(const struct pages *pages, const struct state_check *check)
{
    unsigned newest = 0;
    bool doubted[PAGES_META] = {false};
    enum err err = pages_newest(pages, &newest, doubted);
    for (unsigned i = 0; i < PAGES_META && err == ERR_NONE; i++) {
        if (!pages->metas[i].sound || pages->metas[i].page_bytes != pages->page_bytes || doubted[i])
            check->damage(check->ctx, (uint64_t)i * pages->page_bytes, "damaged meta page");
    }
    if (err != ERR_NONE)
        return err;
    struct page_walk walk = {.damage = check_damage, .ctx = (void *)(uintptr_t)check};
    walk.row = check->row_sound != NULL ? check_row : NULL;
    err = pages_walk(pages, &pages->metas[newest], &walk);
    if (err == ERR_NONE && check->all && walk.unknown > 0 && !walk.rows_damaged &&
        !walk.free_damaged)
        check->damage(check->ctx, (uint64_t)newest * pages->page_bytes,
                      "pages neither used nor free");
    page_walk_done(&walk);
    return err;
}

enum err pages_check(const char *path, const struct state_check *check)
{
    struct pages pages;
    enum err err = pages_open(path, &pages);
    if (err == ERR_CORRUPT) {
        check->damage(check->ctx, 0, "not a state store");
        return ERR_NONE;
    }
    if (err != ERR_NONE)
        return err;
    err = check_trees(&pages, check);
    pages_close(&pages);
    return err;
}
