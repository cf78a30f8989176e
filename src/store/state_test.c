/* Both backends of the state store keep the same promises. */
#include "store/state.h"

#include "base/endian.h"
#include "base/folder_rig.h"
#include "base/memory_double.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct slice key_of(uint8_t *out, uint64_t number)
{
    out[0] = 'K';
    be64_put(out + 1, number);
    return (struct slice){.data = out, .len = 9};
}

struct counting {
    const struct state_backend *backend;
    struct state_reader *reader;
    uint64_t sum;
};

static enum err count_each(void *ctx, struct slice key, struct slice value)
{
    struct counting *counting = ctx;
    struct state_found found; /* with the same reader */
    enum err err = counting->backend->seek(counting->reader, key, STATE_AT_OR_AFTER, &found);
    counting->sum += be64_get(found.key + 1) + value.len;
    return err;
}

static void promises(const struct state_backend *backend, const char *path)
{
    struct state *state;
    struct state_reader *reader;
    struct state_found found;
    struct state_batch batch = {0};
    uint8_t key[16], other[16];
    assert_int_equal(backend->open(backend, path, false, &state), ERR_NOT_FOUND);
    assert_int_equal(backend->open(backend, path, true, &state), ERR_NONE);
    assert_int_equal(backend->reader_open(state, &reader), ERR_NONE);
    assert_int_equal(backend->seek(reader, key_of(key, 5), STATE_AT_OR_AFTER, &found),
                     ERR_NOT_FOUND);
    assert_int_equal(backend->seek(reader, key_of(key, 5), STATE_AT_OR_BEFORE, &found),
                     ERR_NOT_FOUND);
    for (uint64_t i = 10; i < 2000; i += 10)
        state_batch_put(&batch, key_of(key, i), slice_of("value"));
    state_batch_put(&batch, key_of(key, 30), slice_of("other value"));
    state_batch_delete(&batch, key_of(key, 40));
    state_batch_delete(&batch, key_of(key, 41));
    assert_int_equal(backend->commit(state, &batch), ERR_NONE);
    state_batch_done(&batch);
    assert_int_equal(backend->seek(reader, key_of(key, 31), STATE_AT_OR_AFTER, &found), ERR_NONE);
    assert_int_equal(be64_get(found.key + 1), 50);
    assert_int_equal(backend->seek(reader, key_of(key, 45), STATE_AT_OR_BEFORE, &found), ERR_NONE);
    assert_int_equal(be64_get(found.key + 1), 30);
    assert_int_equal(found.value_len, 11);
    assert_int_equal(backend->seek(reader, key_of(key, 9999), STATE_AT_OR_BEFORE, &found),
                     ERR_NONE);
    assert_int_equal(be64_get(found.key + 1), 1990);
    assert_int_equal(backend->seek(reader, key_of(key, 9), STATE_AT_OR_BEFORE, &found),
                     ERR_NOT_FOUND);
    struct counting counting = {.backend = backend, .reader = reader};
    assert_int_equal(
        backend->each(reader, key_of(key, 20), key_of(other, 60), count_each, &counting), ERR_NONE);
    assert_int_equal(counting.sum, 20 + 30 + 50 + 5 + 11 + 5);
    backend->reader_close(reader);
    backend->close(state);
    assert_int_equal(backend->open(backend, path, false, &state), ERR_NONE);
    assert_int_equal(backend->reader_open(state, &reader), ERR_NONE);
    assert_int_equal(backend->seek(reader, key_of(key, 31), STATE_AT_OR_AFTER, &found), ERR_NONE);
    assert_int_equal(be64_get(found.key + 1), 50);
    assert_int_equal(backend->grow(state), ERR_NONE);
    assert_int_equal(backend->seek(reader, key_of(key, 51), STATE_AT_OR_AFTER, &found), ERR_NONE);
    backend->reader_close(reader);
    backend->close(state);
}

static void memory_keeps_its_promises(void **state)
{
    (void)state;
    struct state_memory *world = state_memory_create();
    promises(state_memory_backend(world), "here");
    promises(state_memory_backend(world), "there");
    state_memory_destroy(world);
}

static enum err pair_count(void *ctx, struct slice key, struct slice value)
{
    (void)key, (void)value;
    ++*(int *)ctx;
    return ERR_NONE;
}

static void memory_that_runs_out_leaves_a_batch_without_effect(void **state)
{
    (void)state;
    struct state_memory *world = state_memory_create();
    const struct state_backend *backend = state_memory_backend(world);
    struct state *opened;
    struct state_reader *reader;
    struct state_batch first = {0}, batch = {0};
    uint8_t key[16], other[16];
    assert_int_equal(backend->open(backend, "here", true, &opened), ERR_NONE);
    assert_int_equal(backend->reader_open(opened, &reader), ERR_NONE);
    state_batch_put(&first, key_of(key, 1), slice_of("value"));
    assert_int_equal(backend->commit(opened, &first), ERR_NONE);
    state_batch_delete(&batch, key_of(key, 1));
    for (uint64_t i = 2; i < 100; i++)
        state_batch_put(&batch, key_of(key, i), slice_of("value"));
    uint64_t n = 1;
    for (bool refused = true; refused; n += refused) {
        int count = 0;
        memory_fail_at(n, 0);
        enum err err = backend->commit(opened, &batch);
        refused = memory_refused() > 0;
        memory_fail_at(0, 0);
        assert_int_equal(err, refused ? ERR_NO_MEMORY : ERR_NONE);
        assert_int_equal(
            backend->each(reader, key_of(key, 0), key_of(other, 1000), pair_count, &count),
            ERR_NONE);
        assert_int_equal(count, refused ? 1 : 98);
    }
    assert_true(n > 98);
    state_batch_done(&first);
    state_batch_done(&batch);
    backend->reader_close(reader);
    state_memory_destroy(world);
}

static void rubbish_write(const char *path)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    for (int i = 0; i < 10000; i++)
        fputs("rubbish", file);
    fclose(file);
}

static void lmdb_keeps_its_promises(void **state)
{
    (void)state;
    char folder[FOLDER_BYTES], path[PATH_MAX], fresh[PATH_MAX + 8];
    folder_make("state", folder);
    snprintf(path, sizeof path, "%s/state", folder);
    snprintf(fresh, sizeof fresh, "%s-new", path);
    rubbish_write(fresh); /* as a power cut leaves one that was being made */
    promises(&state_lmdb, path);
    assert_int_equal(access(fresh, F_OK), -1);
    rubbish_write(path);
    struct state *opened;
    assert_int_equal(state_lmdb.open(&state_lmdb, path, false, &opened), ERR_CORRUPT);
    folder_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_keeps_its_promises),
        cmocka_unit_test(memory_that_runs_out_leaves_a_batch_without_effect),
        cmocka_unit_test(lmdb_keeps_its_promises),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
