/* The trie finds the patterns that a plain matcher finds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/topic_trie.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct entry {
    struct list link; /* first member */
    char pattern[64];
    bool in, found;
};

static void note(void *ctx, const struct list *entries)
{
    (void)ctx;
    list_each(node, entries)
    {
        struct entry *entry = list_entry(node, struct entry, link);
        assert_false(entry->found);
        entry->found = true;
    }
}

/* Words are split off both; words == NULL: none left. */
static const char *rest_of(const char *words)
{
    const char *dot = strchr(words, '.');
    return dot ? dot + 1 : NULL;
}

static bool same_word(const char *a, const char *b)
{
    size_t len = strcspn(a, ".");
    return len == strcspn(b, ".") && memcmp(a, b, len) == 0;
}

static bool plain_match(const char *pattern, const char *key)
{
    if (pattern == NULL)
        return key == NULL;
    if (same_word(pattern, "#"))
        return plain_match(rest_of(pattern), key) ||
               (key != NULL && plain_match(pattern, rest_of(key)));
    if (key == NULL || (!same_word(pattern, "*") && !same_word(pattern, key)))
        return false;
    return plain_match(rest_of(pattern), rest_of(key));
}

static bool plain(const char *pattern, const char *key)
{
    return plain_match(*pattern ? pattern : NULL, *key ? key : NULL);
}

static bool trie_matches(const char *pattern, const char *key)
{
    struct topic_trie *trie = topic_trie_create();
    struct entry entry = {.in = true};
    list_init(&entry.link);
    assert_true(topic_trie_add(trie, slice_of(pattern), &entry.link));
    topic_trie_match(trie, slice_of(key), note, NULL);
    topic_trie_remove(trie, slice_of(pattern), &entry.link);
    assert_int_equal(topic_trie_nodes(trie), 1);
    topic_trie_destroy(trie);
    return entry.found;
}

static void patterns_match_as_in_rabbitmq(void **state)
{
    (void)state;
    assert_true(trie_matches("a.b", "a.b"));
    assert_false(trie_matches("a.b", "a.b.c"));
    assert_true(trie_matches("*.orange.*", "quick.orange.rabbit"));
    assert_false(trie_matches("*.orange.*", "orange.rabbit"));
    assert_true(trie_matches("lazy.#", "lazy"));
    assert_true(trie_matches("lazy.#", "lazy.brown.fox"));
    assert_true(trie_matches("#", ""));
    assert_true(trie_matches("#.#", "a"));
    assert_false(trie_matches("*", ""));
    assert_true(trie_matches("", ""));
    assert_true(trie_matches("*.*", "."));
    assert_true(trie_matches("a..b", "a..b"));
    assert_true(trie_matches("#.a.#", "b.a"));
    assert_true(trie_matches("#.a", "a.a.a"));
    assert_false(trie_matches("#.a", "a.b"));
    assert_false(trie_matches("a*", "ab"));
    assert_true(trie_matches("*.#", "a"));
    assert_false(trie_matches("*.#", ""));
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state >> 16;
}

static void random_words(uint64_t *state, bool pattern, char *out)
{
    static const char *const words[] = {"a", "b", "", "cc", "*", "#"};
    uint64_t count = next_random(state) % 6;
    *out = 0;
    for (uint64_t i = 0; i < count; i++) {
        strncat(out, words[next_random(state) % (pattern ? 6 : 4)], 4);
        if (i + 1 < count)
            strncat(out, ".", 2);
    }
}

static void it_agrees_with_a_plain_matcher(void **state)
{
    (void)state;
    enum { ENTRIES = 120 };
    uint64_t random = 4711;
    for (int round = 0; round < 30; round++) {
        struct topic_trie *trie = topic_trie_create();
        struct entry *entries = calloc(ENTRIES, sizeof *entries);
        for (int step = 0; step < 400; step++) {
            struct entry *entry = &entries[next_random(&random) % ENTRIES];
            if (entry->in) {
                topic_trie_remove(trie, slice_of(entry->pattern), &entry->link);
            } else {
                random_words(&random, true, entry->pattern);
                list_init(&entry->link);
                assert_true(topic_trie_add(trie, slice_of(entry->pattern), &entry->link));
            }
            entry->in = !entry->in;
            char key[64];
            random_words(&random, false, key);
            topic_trie_match(trie, slice_of(key), note, NULL);
            for (int i = 0; i < ENTRIES; i++) {
                assert_int_equal(entries[i].found, entries[i].in && plain(entries[i].pattern, key));
                entries[i].found = false;
            }
        }
        if (round % 2 == 0) {
            for (int i = 0; i < ENTRIES; i++) {
                if (entries[i].in)
                    topic_trie_remove(trie, slice_of(entries[i].pattern), &entries[i].link);
            }
            assert_int_equal(topic_trie_nodes(trie), 1);
        }
        topic_trie_destroy(trie);
        free(entries);
    }
}

/* Tried one by one, the ways in which such patterns fit such keys are more than any machine counts.
 */
static void hostile_patterns_cost_no_more_than_nodes_times_words(void **state)
{
    (void)state;
    char pattern[256], key[256];
    for (int i = 0; i < 63; i++)
        memcpy(pattern + (size_t)i * 4, "#.a.", 4);
    memcpy(pattern + 252, "b", 2);
    for (int i = 0; i < 127; i++)
        memcpy(key + (size_t)i * 2, "a.", 2);
    memcpy(key + 254, "c", 2);
    assert_false(trie_matches(pattern, key));
    memcpy(key + 254, "b", 2);
    assert_true(trie_matches(pattern, key));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patterns_match_as_in_rabbitmq),
        cmocka_unit_test(it_agrees_with_a_plain_matcher),
        cmocka_unit_test(hostile_patterns_cost_no_more_than_nodes_times_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
