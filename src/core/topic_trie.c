/* See topic_trie.h. All nodes stand in one hash table, by parent and word. Matching keeps the set
 * of nodes that the words so far lead to; a node is entered at most once per word, which its mark
 * tells. A node for # stays in the set with every word, and is entered without one. */
#include "core/topic_trie.h"

#include "core/catalog_table.h"

#include <assert.h>
#include <stdlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

struct node {
    struct node *parent;
    struct node *star, *hash; /* the children for * and # */
    struct list entries;
    uint64_t mark; /* the last set that it is in */
    uint32_t table_hash;
    uint32_t children;
    bool many; /* it is a # */
    uint8_t word_len;
    uint8_t word[];
};

struct topic_trie {
    struct node *root;
    struct table nodes; /* all but the root and those for * and # */
    uint32_t count;
    uint64_t mark;
    struct node **set, **next; /* room for every node, so that matching needs no memory */
    uint32_t room;
};

struct words {
    struct slice rest;
    bool more;
};

/* The empty text has no words; "." has two empty ones. */
static struct words words_of(struct slice text)
{
    return (struct words){text, text.len > 0};
}

static bool word_next(struct words *words, struct slice *out)
{
    if (!words->more)
        return false;
    const uint8_t *dot =
        words->rest.len > 0 ? memchr(words->rest.data, '.', words->rest.len) : NULL;
    words->more = dot != NULL;
    size_t len = dot ? (size_t)(dot - words->rest.data) : words->rest.len;
    *out = slice_make(words->rest.data, len);
    if (dot != NULL)
        words->rest = slice_make(dot + 1, words->rest.len - len - 1);
    return true;
}

static bool is_sign(struct slice word, char sign)
{
    return word.len == 1 && word.data[0] == (uint8_t)sign;
}

static uint32_t child_hash(const struct node *parent, uint64_t word_hash)
{
    uint64_t place = (uint64_t)(uintptr_t)parent;
    return table_hash((word_hash ^ place) * UINT64_C(0x9E3779B97F4A7C15));
}

static struct node *find_child(const struct topic_trie *trie, const struct node *parent,
                               struct slice word, uint64_t word_hash)
{
    uint32_t hash = child_hash(parent, word_hash);
    uint32_t at = hash;
    for (struct node *node; (node = table_next(&trie->nodes, hash, &at)) != NULL;) {
        if (node->parent == parent && slice_equal(slice_make(node->word, node->word_len), word))
            return node;
    }
    return NULL;
}

static struct node *node_create(struct node *parent, struct slice word)
{
    struct node *node = malloc(sizeof *node + word.len);
    if (node == NULL)
        return NULL;
    *node = (struct node){.parent = parent, .word_len = (uint8_t)word.len};
    if (word.len > 0)
        memcpy(node->word, word.data, word.len);
    list_init(&node->entries);
    return node;
}

struct topic_trie *topic_trie_create(void)
{
    struct topic_trie *trie = calloc(1, sizeof *trie);
    if (trie == NULL)
        return NULL;
    trie->root = node_create(NULL, slice_make("", 0));
    trie->count = 1;
    trie->set = malloc(2 * sizeof *trie->set);
    trie->room = 1;
    if (trie->root == NULL || trie->set == NULL) {
        topic_trie_destroy(trie);
        return NULL;
    }
    trie->next = trie->set + trie->room;
    return trie;
}

/* * and # are on no table: they are reached from their parents. */
static void free_signs(struct node *node)
{
    while (node != NULL) {
        struct node *star = node->star, *hash = node->hash;
        if (star != NULL) {
            node->star = NULL;
            node = star;
        } else if (hash != NULL) {
            node->hash = NULL;
            node = hash;
        } else {
            struct node *parent = node->parent;
            bool sign = node->word_len == 0 && node->table_hash == 0 && parent != NULL;
            if (!sign)
                return;
            free(node);
            node = parent;
        }
    }
}

void topic_trie_destroy(struct topic_trie *trie)
{
    uint32_t at = 0;
    for (struct node *node; (node = table_walk(&trie->nodes, &at)) != NULL;)
        free_signs(node);
    free_signs(trie->root);
    at = 0;
    for (struct node *node; (node = table_walk(&trie->nodes, &at)) != NULL;)
        free(node);
    table_done(&trie->nodes);
    free(trie->root);
    free(trie->set);
    free(trie);
}

static bool make_room(struct topic_trie *trie)
{
    if (trie->count < trie->room)
        return true;
    uint32_t room = trie->room * 2;
    struct node **set = malloc((size_t)room * 2 * sizeof *set);
    if (set == NULL)
        return false;
    free(trie->set);
    trie->set = set;
    trie->next = set + room;
    trie->room = room;
    return true;
}

/* The child for a pattern's word, made when there is none. NULL: no memory. */
static struct node *enter(struct topic_trie *trie, struct node *parent, struct slice word)
{
    bool star = is_sign(word, '*'), many = is_sign(word, '#');
    uint64_t word_hash = XXH3_64bits(word.data, word.len);
    struct node **sign = star ? &parent->star : many ? &parent->hash : NULL;
    struct node *node = sign ? *sign : find_child(trie, parent, word, word_hash);
    if (node != NULL)
        return node;
    if (!make_room(trie) || (sign == NULL && !table_reserve(&trie->nodes)))
        return NULL;
    node = node_create(parent, sign ? slice_make("", 0) : word);
    if (node == NULL)
        return NULL;
    node->many = many;
    if (sign != NULL) {
        *sign = node;
    } else {
        node->table_hash = child_hash(parent, word_hash);
        table_put(&trie->nodes, node->table_hash, node);
    }
    parent->children++;
    trie->count++;
    return node;
}

/* Takes away the node and its parents as far as nothing needs them. */
static void prune(struct topic_trie *trie, struct node *node)
{
    while (node->parent != NULL && node->children == 0 && list_empty(&node->entries)) {
        struct node *parent = node->parent;
        if (parent->star == node)
            parent->star = NULL;
        else if (parent->hash == node)
            parent->hash = NULL;
        else
            table_take(&trie->nodes, node->table_hash, node);
        parent->children--;
        trie->count--;
        free(node);
        node = parent;
    }
}

bool topic_trie_add(struct topic_trie *trie, struct slice pattern, struct list *entry)
{
    assert(pattern.len <= UINT8_MAX);
    struct words words = words_of(pattern);
    struct node *node = trie->root;
    for (struct slice word; word_next(&words, &word);) {
        if (node->many && is_sign(word, '#'))
            continue; /* #.# says no more than # */
        struct node *child = enter(trie, node, word);
        if (child == NULL) {
            prune(trie, node);
            return false;
        }
        node = child;
    }
    list_insert(&node->entries, entry);
    return true;
}

void topic_trie_remove(struct topic_trie *trie, struct slice pattern, struct list *entry)
{
    struct words words = words_of(pattern);
    struct node *node = trie->root;
    for (struct slice word; word_next(&words, &word);) {
        if (is_sign(word, '*'))
            node = node->star;
        else if (is_sign(word, '#'))
            node = node->many ? node : node->hash;
        else
            node = find_child(trie, node, word, XXH3_64bits(word.data, word.len));
        assert(node != NULL);
    }
    list_remove(entry);
    prune(trie, node);
}

/* Into the set, with what is entered without a word. */
static void gather(struct topic_trie *trie, struct node **set, uint32_t *count, struct node *node)
{
    for (; node != NULL && node->mark != trie->mark; node = node->hash) {
        node->mark = trie->mark;
        set[(*count)++] = node;
    }
}

void topic_trie_match(struct topic_trie *trie, struct slice key,
                      void (*each)(void *ctx, const struct list *entries), void *ctx)
{
    uint32_t count = 0;
    trie->mark++;
    gather(trie, trie->set, &count, trie->root);
    struct words words = words_of(key);
    for (struct slice word; count > 0 && word_next(&words, &word);) {
        uint64_t word_hash = XXH3_64bits(word.data, word.len);
        uint32_t next_count = 0;
        trie->mark++;
        for (uint32_t i = 0; i < count; i++) {
            struct node *node = trie->set[i];
            if (node->many)
                gather(trie, trie->next, &next_count, node);
            gather(trie, trie->next, &next_count, node->star);
            if (trie->nodes.count > 0)
                gather(trie, trie->next, &next_count, find_child(trie, node, word, word_hash));
        }
        struct node **swap = trie->set;
        trie->set = trie->next;
        trie->next = swap;
        count = next_count;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (!list_empty(&trie->set[i]->entries))
            each(ctx, &trie->set[i]->entries);
    }
    if (trie->next < trie->set) { /* the allocation begins with `set` */
        struct node **swap = trie->set;
        trie->set = trie->next;
        trie->next = swap;
    }
}

uint32_t topic_trie_nodes(const struct topic_trie *trie)
{
    return trie->count;
}
