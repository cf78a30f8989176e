/* What tests of checkpoints share: a rig with a state store, and the steps of a life. */
#ifndef WEIR_STORE_CHECKPOINT_RIG_H
#define WEIR_STORE_CHECKPOINT_RIG_H

#include "store/rig.h"
#include "store/state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

struct world {
    struct rig rig;
    struct state_memory *memory;
};

static inline struct rig *world_create(struct world **out, uint64_t seed)
{
    struct world *world = calloc(1, sizeof *world);
    assert_non_null(world);
    rig_init(&world->rig, seed);
    world->memory = state_memory_create();
    world->rig.state = state_memory_backend(world->memory);
    *out = world;
    return &world->rig;
}

static inline void world_destroy(struct world *world)
{
    rig_done(&world->rig);
    state_memory_destroy(world->memory);
    free(world);
}

static inline void append(struct rig *rig, int count)
{
    for (int i = 0; i < count; i++)
        assert_int_equal(rig_append(rig), ERR_NONE);
}

static inline void flush(struct rig *rig)
{
    store_flush(rig->store, false);
    rig_settle(rig);
}

static inline void checkpoint(struct rig *rig)
{
    struct store_stats before, after;
    flush(rig);
    store_stats(rig->store, &before);
    rig_tick(rig, 1);
    rig_tick(rig, (int64_t)rig->checkpoint_ms + 1);
    rig_settle(rig);
    store_stats(rig->store, &after);
    assert_int_equal(after.checkpoints, before.checkpoints + 1);
}

static inline void reopen(struct rig *rig, enum double_crash crash)
{
    rig_close(rig);
    double_reboot(rig->disk, crash);
    enum err err = rig_open(rig);
    if (err != ERR_NONE)
        print_message("%s\n", rig->problem);
    assert_int_equal(err, ERR_NONE);
}

static inline uint64_t files_named(struct rig *rig, const char *part)
{
    uint64_t count = 0;
    for (int i = 0; i < DOUBLE_NAMES; i++)
        count += rig->disk->now[i].inode != NULL && strstr(rig->disk->now[i].path, part) != NULL;
    return count;
}

#endif
