/* The patterns of a topic exchange: words between dots, where * stands for one word and # for any
 * number of them. One walk over a key's words finds all patterns that match it, in time bounded by
 * words x nodes however the patterns are made. Not to be shared between threads, even for matching:
 * nodes are marked meanwhile. */
#ifndef WEIR_CORE_TOPIC_TRIE_H
#define WEIR_CORE_TOPIC_TRIE_H

#include "base/list.h"
#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>

struct topic_trie;

/* NULL when memory is exhausted. */
struct topic_trie *topic_trie_create(void);
/* Forgets all nodes; the entries are the caller's. */
void topic_trie_destroy(struct topic_trie *trie);

/* Puts entry on the list of those with that pattern. false when memory is exhausted. */
bool topic_trie_add(struct topic_trie *trie, struct slice pattern, struct list *entry)
    __attribute__((warn_unused_result));
/* Takes an entry off again, with the nodes that only it needed. */
void topic_trie_remove(struct topic_trie *trie, struct slice pattern, struct list *entry);
/* Calls `each` once for every pattern that matches, with the list of its entries. */
void topic_trie_match(struct topic_trie *trie, struct slice key,
                      void (*each)(void *ctx, const struct list *entries), void *ctx);
uint32_t topic_trie_nodes(const struct topic_trie *trie);

#endif
