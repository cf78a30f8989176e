/* The state store in memory, for simulation and tests: per path a sorted array of pairs. A commit
 * is one step of the one thread that simulates, so it is atomic and survives a simulated crash. */
#include "store/state.h"

#include <assert.h>
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

static void pair_change(struct state *state, struct slice key, struct slice value)
{
    size_t i = pair_find(state, key);
    bool there = i < state->used && key_compare(pair_key(state->pairs[i]), key) == 0;
    if (value.data == NULL) {
        if (there) {
            free(state->pairs[i]);
            state->used--;
            memmove(state->pairs + i, state->pairs + i + 1,
                    (state->used - i) * sizeof *state->pairs);
        }
        return;
    }
    struct pair *pair = malloc(sizeof *pair + key.len + value.len);
    assert(pair != NULL);
    pair->key_len = key.len;
    pair->value_len = value.len;
    memcpy(pair->data, key.data, key.len);
    memcpy(pair->data + key.len, value.data, value.len);
    if (there) {
        free(state->pairs[i]);
    } else {
        if (state->used == state->room) {
            state->room = state->room == 0 ? 64 : state->room * 2;
            struct pair **pairs = realloc(state->pairs, state->room * sizeof *pairs);
            assert(pairs != NULL);
            state->pairs = pairs;
        }
        memmove(state->pairs + i + 1, state->pairs + i, (state->used - i) * sizeof *state->pairs);
        state->used++;
    }
    state->pairs[i] = pair;
}

static enum err memory_commit(struct state *state, const struct state_batch *batch)
{
    if (batch->failed)
        return ERR_NO_MEMORY;
    size_t at = 0;
    struct slice key, value;
    while (state_batch_next(batch, &at, &key, &value))
        pair_change(state, key, value);
    return ERR_NONE;
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
