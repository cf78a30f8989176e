/* The state store in memory, for simulation and tests: per path a sorted array of pairs. A commit
 * is one step of the one thread that simulates, so it is atomic and survives a simulated crash. */
#include "store/state.h"

#include <stdlib.h>
#include <string.h>

struct pair {
    size_t key_len, value_len;
    uint8_t data[]; /* key, value */
};

struct state {
    struct state *next;
    char *path;
    struct pair **pairs;
    size_t used, room;
};

struct state_reader {
    struct state *state;
};

struct state_memory {
    struct state_backend backend; /* first: found again from it */
    struct state *states;
};

static int key_compare(struct slice a, struct slice b)
{
    size_t shared = a.len < b.len ? a.len : b.len;
    int order = shared == 0 ? 0 : memcmp(a.data, b.data, shared);
    return order != 0 ? order : (a.len > b.len) - (a.len < b.len);
}

static struct slice pair_key(const struct pair *pair)
{
    return (struct slice){.data = pair->data, .len = pair->key_len};
}

static struct slice pair_value(const struct pair *pair)
{
    return (struct slice){.data = pair->data + pair->key_len, .len = pair->value_len};
}

/* Index of the first pair with a key >= the given one. */
static size_t pair_find(const struct state *state, struct slice key)
{
    size_t low = 0, high = state->used;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (key_compare(pair_key(state->pairs[middle]), key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static enum err memory_check(const struct state_backend *self, const char *path,
                             const struct state_check *check)
{
    (void)self, (void)path, (void)check;
    return ERR_NONE;
}

static enum err memory_open(const struct state_backend *self, const char *path, bool create,
                            struct state **out)
{
    struct state_memory *world = (struct state_memory *)(void *)(uintptr_t)self;
    for (struct state *state = world->states; state != NULL; state = state->next) {
        if (strcmp(state->path, path) == 0) {
            *out = state;
            return ERR_NONE;
        }
    }
    if (!create)
        return ERR_NOT_FOUND;
    struct state *state = calloc(1, sizeof *state);
    if (state != NULL)
        state->path = strdup(path);
    if (state == NULL || state->path == NULL) {
        free(state);
        return ERR_NO_MEMORY;
    }
    state->next = world->states;
    world->states = state;
    *out = state;
    return ERR_NONE;
}

static void memory_close(struct state *state)
{
    (void)state; /* it belongs to the world */
}

static enum err memory_reader_open(struct state *state, struct state_reader **out)
{
    struct state_reader *reader = malloc(sizeof *reader);
    if (reader == NULL)
        return ERR_NO_MEMORY;
    reader->state = state;
    *out = reader;
    return ERR_NONE;
}

static void memory_reader_close(struct state_reader *reader)
{
    free(reader);
}

static enum err memory_seek(struct state_reader *reader, struct slice key, enum state_seek where,
                            struct state_found *out)
{
    const struct state *state = reader->state;
    size_t i = pair_find(state, key);
    if (where == STATE_AT_OR_BEFORE &&
        (i == state->used || key_compare(pair_key(state->pairs[i]), key) != 0)) {
        if (i == 0)
            return ERR_NOT_FOUND;
        i--;
    }
    if (i == state->used)
        return ERR_NOT_FOUND;
    struct slice found = pair_key(state->pairs[i]), value = pair_value(state->pairs[i]);
    out->key_len = found.len;
    out->value_len = value.len < STATE_VALUE_MAX ? value.len : STATE_VALUE_MAX;
    memcpy(out->key, found.data, out->key_len);
    memcpy(out->value, value.data, out->value_len);
    return ERR_NONE;
}

static enum err memory_each(struct state_reader *reader, struct slice from, struct slice to,
                            enum err (*each)(void *ctx, struct slice key, struct slice value),
                            void *ctx)
{
    const struct state *state = reader->state;
    for (size_t i = pair_find(state, from); i < state->used; i++) {
        struct slice key = pair_key(state->pairs[i]);
        if (key_compare(key, to) >= 0)
            break;
        enum err err = each(ctx, key, pair_value(state->pairs[i]));
        if (err != ERR_NONE)
            return err;
    }
    return ERR_NONE;
}

static struct pair *pair_make(struct slice key, struct slice value)
{
    struct pair *pair = malloc(sizeof *pair + key.len + value.len);
    if (pair == NULL)
        return NULL;
    pair->key_len = key.len;
    pair->value_len = value.len;
    memcpy(pair->data, key.data, key.len);
    memcpy(pair->data + key.len, value.data, value.len);
    return pair;
}

/* Takes the pair out, or puts `fresh` in its place. */
static void pair_change(struct state *state, struct slice key, struct pair *fresh)
{
    size_t i = pair_find(state, key);
    bool there = i < state->used && key_compare(pair_key(state->pairs[i]), key) == 0;
    if (there)
        free(state->pairs[i]);
    if (there && fresh == NULL) {
        state->used--;
        memmove(state->pairs + i, state->pairs + i + 1, (state->used - i) * sizeof *state->pairs);
    } else if (!there && fresh != NULL) {
        memmove(state->pairs + i + 1, state->pairs + i, (state->used - i) * sizeof *state->pairs);
        state->used++;
    }
    if (fresh != NULL)
        state->pairs[i] = fresh;
}

static bool pairs_reserve(struct state *state, size_t more)
{
    if (state->room - state->used >= more)
        return true;
    size_t room = state->room * 2 > state->used + more ? state->room * 2 : state->used + more;
    struct pair **pairs = realloc(state->pairs, room * sizeof *pairs);
    if (pairs == NULL)
        return false;
    state->pairs = pairs;
    state->room = room;
    return true;
}

/* All that needs memory is done first, so that a batch takes effect as a whole. */
static enum err memory_commit(struct state *state, const struct state_batch *batch)
{
    struct slice key, value;
    size_t count = 0, made = 0;
    for (size_t at = 0; state_batch_next(batch, &at, &key, &value);)
        count++;
    if (batch->failed || !pairs_reserve(state, count))
        return ERR_NO_MEMORY;
    struct pair **fresh = calloc(count + 1, sizeof *fresh);
    bool whole = fresh != NULL;
    for (size_t at = 0; whole && state_batch_next(batch, &at, &key, &value);) {
        if (value.data != NULL)
            fresh[made] = pair_make(key, value);
        whole = value.data == NULL || fresh[made] != NULL;
        made += whole;
    }
    size_t next = 0;
    for (size_t at = 0; whole && state_batch_next(batch, &at, &key, &value);)
        pair_change(state, key, fresh[next++]);
    for (; !whole && next < made; next++)
        free(fresh[next]);
    free(fresh);
    return whole ? ERR_NONE : ERR_NO_MEMORY;
}

static enum err memory_grow(struct state *state)
{
    (void)state;
    return ERR_NONE;
}

struct state_memory *state_memory_create(void)
{
    struct state_memory *world = calloc(1, sizeof *world);
    if (world == NULL)
        return NULL;
    world->backend = (struct state_backend){
        .open = memory_open,
        .check = memory_check,
        .close = memory_close,
        .reader_open = memory_reader_open,
        .reader_close = memory_reader_close,
        .seek = memory_seek,
        .each = memory_each,
        .commit = memory_commit,
        .grow = memory_grow,
    };
    return world;
}

void state_memory_destroy(struct state_memory *world)
{
    while (world->states != NULL) {
        struct state *state = world->states;
        world->states = state->next;
        for (size_t i = 0; i < state->used; i++)
            free(state->pairs[i]);
        free(state->pairs);
        free(state->path);
        free(state);
    }
    free(world);
}

const struct state_backend *state_memory_backend(struct state_memory *world)
{
    return &world->backend;
}
