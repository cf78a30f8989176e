/* The state store on LMDB when LMDB, the disk or memory refuses: whatever call fails, what was
 * committed stays, what was refused is not there, and the next opening works. The calls stand in
 * this program before those of the library, which they call. */
#include "store/state.h"

#include "base/endian.h"
#include "base/folder_rig.h"
#include "base/memory_double.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- Calls that fail ---- */

static struct {
    uint64_t calls, at;
    int code;         /* of the call that fails */
    size_t map_bytes; /* > 0: of the next map, in place of what is asked for */
} lmdb;

static bool fails(void)
{
    return ++lmdb.calls == lmdb.at;
}

/* The library's own function of that name goes to *call, a pointer to a function. */
static void real_find(const char *name, void *call)
{
    void *found = dlsym(RTLD_NEXT, name);
    assert_non_null(found);
    memcpy(call, &found, sizeof found);
}

int mdb_env_create(MDB_env **env)
{
    int (*real)(MDB_env **);
    real_find("mdb_env_create", &real);
    return fails() ? lmdb.code : real(env);
}

int mdb_env_open(MDB_env *env, const char *path, unsigned int flags, mdb_mode_t mode)
{
    int (*real)(MDB_env *, const char *, unsigned int, mdb_mode_t);
    real_find("mdb_env_open", &real);
    return fails() ? lmdb.code : real(env, path, flags, mode);
}

int mdb_env_sync(MDB_env *env, int force)
{
    int (*real)(MDB_env *, int);
    real_find("mdb_env_sync", &real);
    return fails() ? lmdb.code : real(env, force);
}

int mdb_env_set_mapsize(MDB_env *env, size_t size)
{
    int (*real)(MDB_env *, size_t);
    real_find("mdb_env_set_mapsize", &real);
    size_t wanted = lmdb.map_bytes > 0 ? lmdb.map_bytes : size;
    lmdb.map_bytes = 0;
    return fails() ? lmdb.code : real(env, wanted);
}

int mdb_txn_begin(MDB_env *env, MDB_txn *parent, unsigned int flags, MDB_txn **txn)
{
    int (*real)(MDB_env *, MDB_txn *, unsigned int, MDB_txn **);
    real_find("mdb_txn_begin", &real);
    return fails() ? lmdb.code : real(env, parent, flags, txn);
}

int mdb_txn_commit(MDB_txn *txn)
{
    int (*real)(MDB_txn *);
    real_find("mdb_txn_commit", &real);
    if (!fails())
        return real(txn);
    mdb_txn_abort(txn); /* as it does itself */
    return lmdb.code;
}

int mdb_txn_renew(MDB_txn *txn)
{
    int (*real)(MDB_txn *);
    real_find("mdb_txn_renew", &real);
    return fails() ? lmdb.code : real(txn);
}

int mdb_dbi_open(MDB_txn *txn, const char *name, unsigned int flags, MDB_dbi *dbi)
{
    int (*real)(MDB_txn *, const char *, unsigned int, MDB_dbi *);
    real_find("mdb_dbi_open", &real);
    return fails() ? lmdb.code : real(txn, name, flags, dbi);
}

int mdb_cursor_open(MDB_txn *txn, MDB_dbi dbi, MDB_cursor **cursor)
{
    int (*real)(MDB_txn *, MDB_dbi, MDB_cursor **);
    real_find("mdb_cursor_open", &real);
    return fails() ? lmdb.code : real(txn, dbi, cursor);
}

int mdb_cursor_renew(MDB_txn *txn, MDB_cursor *cursor)
{
    int (*real)(MDB_txn *, MDB_cursor *);
    real_find("mdb_cursor_renew", &real);
    return fails() ? lmdb.code : real(txn, cursor);
}

int mdb_cursor_get(MDB_cursor *cursor, MDB_val *key, MDB_val *value, MDB_cursor_op op)
{
    int (*real)(MDB_cursor *, MDB_val *, MDB_val *, MDB_cursor_op);
    real_find("mdb_cursor_get", &real);
    return fails() ? lmdb.code : real(cursor, key, value, op);
}

int mdb_put(MDB_txn *txn, MDB_dbi dbi, MDB_val *key, MDB_val *value, unsigned int flags)
{
    int (*real)(MDB_txn *, MDB_dbi, MDB_val *, MDB_val *, unsigned int);
    real_find("mdb_put", &real);
    return fails() ? lmdb.code : real(txn, dbi, key, value, flags);
}

int mdb_del(MDB_txn *txn, MDB_dbi dbi, MDB_val *key, MDB_val *value)
{
    int (*real)(MDB_txn *, MDB_dbi, MDB_val *, MDB_val *);
    real_find("mdb_del", &real);
    return fails() ? lmdb.code : real(txn, dbi, key, value);
}

int posix_fallocate(int fd, off_t offset, off_t len)
{
    int (*real)(int, off_t, off_t);
    real_find("posix_fallocate", &real);
    return fails() ? lmdb.code : real(fd, offset, len);
}

int rename(const char *from, const char *to)
{
    int (*real)(const char *, const char *);
    real_find("rename", &real);
    if (!fails())
        return real(from, to);
    errno = lmdb.code;
    return -1;
}

static void fail_at(uint64_t n, int code)
{
    lmdb.calls = 0;
    lmdb.at = n;
    lmdb.code = code;
}

/* ---- A story ---- */

struct place {
    char folder[FOLDER_BYTES], path[PATH_MAX];
};

static void place_make(struct place *place)
{
    folder_make("state-lmdb", place->folder);
    snprintf(place->path, sizeof place->path, "%s/state", place->folder);
}

static struct slice key_of(uint8_t *out, uint64_t number)
{
    out[0] = 'K';
    be64_put(out + 1, number);
    return slice_make(out, 9);
}

/* Puts row `number` and deletes another, that is there in half of the cases. */
static enum err add(struct state *state, uint64_t number)
{
    struct state_batch batch = {0};
    uint8_t key[16];
    state_batch_put(&batch, key_of(key, number), slice_of("value"));
    state_batch_delete(&batch, key_of(key, number % 2 == 0 ? 1000 : 2000));
    enum err err = state_lmdb.commit(state, &batch);
    state_batch_done(&batch);
    return err;
}

static enum err row_count(void *ctx, struct slice key, struct slice value)
{
    (void)value;
    *(uint64_t *)ctx += UINT64_C(1) << (be64_get(key.data + 1) % 64);
    return ERR_NONE;
}

/* A bit for each row there is. */
static enum err rows(struct state_reader *reader, uint64_t *out)
{
    uint8_t from[16], to[16];
    *out = 0;
    return state_lmdb.each(reader, key_of(from, 0), key_of(to, 64), row_count, out);
}

/* Does what a store does; refusals are remembered, and nothing relies on what was refused. *kept:
 * the rows whose commit was confirmed. */
static enum err story(const char *path, uint64_t *kept)
{
    struct state *state;
    struct state_reader *reader;
    struct state_found found;
    uint8_t key[16];
    uint64_t seen = 0;
    enum err err = state_lmdb.open(&state_lmdb, path, true, &state), worst = err;
    if (err != ERR_NONE)
        return err;
    for (uint64_t i = 1; i <= 2; i++) {
        err = add(state, i);
        worst = err != ERR_NONE ? err : worst;
        *kept |= err == ERR_NONE ? UINT64_C(1) << i : 0;
    }
    err = state_lmdb.reader_open(state, &reader);
    worst = err != ERR_NONE ? err : worst;
    for (uint64_t at = 0; err == ERR_NONE && at <= 3; at++) {
        enum err after = state_lmdb.seek(reader, key_of(key, at), STATE_AT_OR_AFTER, &found);
        enum err before = state_lmdb.seek(reader, key_of(key, at), STATE_AT_OR_BEFORE, &found);
        worst = after != ERR_NONE && after != ERR_NOT_FOUND ? after : worst;
        worst = before != ERR_NONE && before != ERR_NOT_FOUND ? before : worst;
        if (before == ERR_NONE)
            assert_true(be64_get(found.key + 1) <= at);
    }
    if (err == ERR_NONE) {
        enum err each = rows(reader, &seen);
        worst = each != ERR_NONE ? each : worst;
        if (each == ERR_NONE)
            assert_int_equal(seen, *kept);
        state_lmdb.reader_close(reader);
    }
    err = state_lmdb.grow(state);
    worst = err != ERR_NONE ? err : worst;
    state_lmdb.close(state);
    return worst;
}

static uint64_t rows_stored(const char *path)
{
    struct state *state;
    struct state_reader *reader;
    uint64_t seen = 0;
    assert_int_equal(state_lmdb.open(&state_lmdb, path, true, &state), ERR_NONE);
    assert_int_equal(state_lmdb.reader_open(state, &reader), ERR_NONE);
    assert_int_equal(rows(reader, &seen), ERR_NONE);
    state_lmdb.reader_close(reader);
    state_lmdb.close(state);
    return seen;
}

static void whatever_call_fails_what_was_committed_stays(void **state)
{
    (void)state;
    bool reached = true;
    uint64_t n = 1;
    for (; reached; n++) {
        struct place place;
        uint64_t kept = 0;
        place_make(&place);
        fail_at(n, ENOSPC);
        enum err err = story(place.path, &kept);
        reached = lmdb.calls >= n;
        fail_at(0, 0);
        assert_int_equal(err, reached ? ERR_DISK_FULL : ERR_NONE);
        assert_int_equal(rows_stored(place.path), kept);
        folder_remove(place.folder);
    }
    assert_true(n > 30);
}

static void errors_are_told_apart(void **state)
{
    (void)state;
    static const struct {
        int code;
        enum err err;
    } codes[] = {
        {MDB_NOTFOUND, ERR_IO}, /* something else than the store itself */
        {ENOENT, ERR_IO},
        {MDB_MAP_FULL, ERR_AGAIN},
        {ENOSPC, ERR_DISK_FULL},
        {EDQUOT, ERR_DISK_FULL},
        {ENOMEM, ERR_NO_MEMORY},
        {MDB_CORRUPTED, ERR_CORRUPT},
        {MDB_PAGE_NOTFOUND, ERR_CORRUPT},
        {MDB_INVALID, ERR_CORRUPT},
        {MDB_VERSION_MISMATCH, ERR_CORRUPT},
        {EIO, ERR_IO},
        {MDB_READERS_FULL, ERR_IO},
    };
    struct place place;
    struct state *opened = NULL;
    place_make(&place);
    assert_int_equal(rows_stored(place.path), 0);
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        fail_at(4, codes[i].code); /* opening the environment */
        assert_int_equal(state_lmdb.open(&state_lmdb, place.path, false, &opened), codes[i].err);
        assert_null(opened);
    }
    fail_at(0, 0);
    folder_remove(place.folder);
}

static void memory_that_runs_out_is_said(void **state)
{
    (void)state;
    struct place place;
    struct state *opened = NULL;
    struct state_reader *reader = NULL;
    place_make(&place);
    memory_fail_at(1, 0);
    assert_int_equal(state_lmdb.open(&state_lmdb, place.path, true, &opened), ERR_NO_MEMORY);
    assert_int_equal(state_lmdb.open(&state_lmdb, place.path, true, &opened), ERR_NONE);
    memory_fail_at(1, 0);
    assert_int_equal(state_lmdb.reader_open(opened, &reader), ERR_NO_MEMORY);
    assert_null(reader);
    memory_fail_at(1, 0); /* for the batch */
    assert_int_equal(add(opened, 1), ERR_NO_MEMORY);
    memory_fail_at(0, 0);
    assert_int_equal(add(opened, 2), ERR_NONE);
    state_lmdb.close(opened);
    assert_int_equal(rows_stored(place.path), 1 << 2);
    folder_remove(place.folder);
}

/* ---- Real obstacles ---- */

static void full_maps_grow(void **state)
{
    (void)state;
    static const uint8_t large[4096];
    struct place place;
    struct state *opened;
    place_make(&place);
    assert_int_equal(rows_stored(place.path), 0);
    lmdb.map_bytes = 64 << 10;
    assert_int_equal(state_lmdb.open(&state_lmdb, place.path, false, &opened), ERR_NONE);
    struct state_batch batch = {0};
    uint8_t key[16];
    for (uint64_t i = 0; i < 32; i++)
        state_batch_put(&batch, key_of(key, i), slice_make(large, sizeof large));
    assert_int_equal(state_lmdb.commit(opened, &batch), ERR_AGAIN);
    assert_int_equal(state_lmdb.grow(opened), ERR_NONE);
    assert_int_equal(state_lmdb.commit(opened, &batch), ERR_NONE);
    state_batch_done(&batch);
    state_lmdb.close(opened);
    assert_int_equal(rows_stored(place.path), UINT32_MAX);
    folder_remove(place.folder);
}

static void a_file_that_cannot_grow_keeps_what_it_has(void **state)
{
    (void)state;
    static const uint8_t large[64 << 10];
    struct place place;
    struct state *opened;
    struct rlimit was, now;
    place_make(&place);
    assert_int_equal(state_lmdb.open(&state_lmdb, place.path, true, &opened), ERR_NONE);
    assert_int_equal(add(opened, 1), ERR_NONE);
    struct state_batch batch = {0};
    uint8_t key[16];
    state_batch_put(&batch, key_of(key, 5), slice_make(large, sizeof large));
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    now = was;
    now.rlim_cur = 32 << 10;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &now), 0);
    enum err err = state_lmdb.commit(opened, &batch);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
    signal(SIGXFSZ, handler);
    assert_int_equal(err, ERR_IO);
    assert_int_equal(add(opened, 2), ERR_NONE);
    assert_int_equal(state_lmdb.commit(opened, &batch), ERR_NONE);
    state_batch_done(&batch);
    state_lmdb.close(opened);
    assert_int_equal(rows_stored(place.path), 1 << 1 | 1 << 2 | 1 << 5);
    folder_remove(place.folder);
}

static void file_put(const char *path)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fclose(file);
}

/* The folder's path, made longer by what changes nothing, with a name at its end. */
static void path_long(const struct place *place, size_t len, char *out)
{
    size_t at = (size_t)snprintf(out, PATH_MAX, "%s/", place->folder);
    while (at + 2 + strlen("state") <= len)
        at += (size_t)snprintf(out + at, PATH_MAX - at, "./");
    if (at + strlen("state") < len)
        at += (size_t)snprintf(out + at, PATH_MAX - at, "/");
    snprintf(out + at, PATH_MAX - at, "state");
    assert_int_equal(strlen(out), len);
}

static enum err try(const char *path, bool create)
{
    struct state *opened = NULL;
    enum err err = state_lmdb.open(&state_lmdb, path, create, &opened);
    if (err == ERR_NONE)
        state_lmdb.close(opened);
    return err;
}

static void what_stands_in_its_way_is_an_error(void **state)
{
    (void)state;
    struct place place;
    char path[PATH_MAX + 16], inside[PATH_MAX + 32];
    place_make(&place);
    snprintf(path, sizeof path, "%s-new", place.path);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(try(place.path, true), ERR_IO); /* a folder where it is to be made */
    rmdir(path);
    path_long(&place, PATH_MAX - 3, path);
    assert_int_equal(try(path, true), ERR_IO); /* no room for the name of the file it is made in */
    assert_int_equal(try(place.path, true), ERR_NONE);
    assert_int_equal(try(path, true), ERR_IO); /* nor of the lock file */
    snprintf(inside, sizeof inside, "%s/state", place.path);
    assert_int_equal(try(inside, true), ERR_IO); /* a file where its folder should be */
    snprintf(path, sizeof path, "%s-lock", place.path);
    unlink(path);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(try(place.path, true), ERR_IO); /* a folder in place of its lock */
    rmdir(path);
    assert_int_equal(try(place.path, false), ERR_NONE);
    unlink(place.path);
    file_put(place.path);
    assert_int_not_equal(try(place.path, false), ERR_NOT_FOUND);
    unlink(place.path);
    assert_int_equal(mkdir(place.path, 0700), 0);
    assert_int_equal(try(place.path, true), ERR_IO); /* a folder in its own place */
    folder_remove(place.folder);
}

/* ---- Keys ---- */

static enum err stop(void *ctx, struct slice key, struct slice value)
{
    (void)key, (void)value;
    ++*(uint64_t *)ctx;
    return ERR_EXISTS;
}

/* By LMDB itself: a batch takes no such key. */
static void foreign_put(const char *path, const uint8_t *key, size_t len)
{
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    MDB_val name = {.mv_size = len, .mv_data = (void *)(uintptr_t)key};
    MDB_val value = {.mv_size = 1, .mv_data = (void *)(uintptr_t)key};
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_open(env, path, MDB_NOSUBDIR, 0600), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, NULL, 0, &dbi), 0);
    assert_int_equal(mdb_put(txn, dbi, &name, &value, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
}

static void keys_of_any_length_are_in_order_and_too_long_ones_corrupt(void **state)
{
    (void)state;
    static const uint8_t longest[STATE_KEY_MAX + 1] = {'L'};
    struct place place;
    struct state *opened;
    struct state_reader *reader;
    struct state_found found;
    uint64_t calls = 0;
    place_make(&place);
    assert_int_equal(state_lmdb.open(&state_lmdb, place.path, true, &opened), ERR_NONE);
    struct state_batch batch = {0};
    state_batch_put(&batch, slice_of("K"), slice_of("1"));
    state_batch_put(&batch, slice_of("KK"), slice_of("2"));
    assert_int_equal(state_lmdb.commit(opened, &batch), ERR_NONE);
    state_batch_put(&batch, slice_make(longest, sizeof longest), slice_of("3"));
    assert_int_equal(state_lmdb.commit(opened, &batch), ERR_NO_MEMORY);
    state_batch_done(&batch);
    state_lmdb.close(opened);
    foreign_put(place.path, longest, sizeof longest);
    assert_int_equal(state_lmdb.open(&state_lmdb, place.path, false, &opened), ERR_NONE);
    assert_int_equal(state_lmdb.reader_open(opened, &reader), ERR_NONE);
    assert_int_equal(state_lmdb.seek(reader, slice_of("L"), STATE_AT_OR_AFTER, &found),
                     ERR_CORRUPT);
    assert_int_equal(state_lmdb.each(reader, slice_of("K"), slice_of("KKK"), stop, &calls),
                     ERR_EXISTS);
    assert_int_equal(calls, 1);
    assert_int_equal(state_lmdb.each(reader, slice_of("KK"), slice_of("KK"), stop, &calls),
                     ERR_NONE);
    assert_int_equal(state_lmdb.each(reader, slice_of("K"), slice_of(""), stop, &calls), ERR_NONE);
    assert_int_equal(calls, 1);
    state_lmdb.reader_close(reader);
    state_lmdb.close(opened);
    folder_remove(place.folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whatever_call_fails_what_was_committed_stays),
        cmocka_unit_test(errors_are_told_apart),
        cmocka_unit_test(memory_that_runs_out_is_said),
        cmocka_unit_test(full_maps_grow),
        cmocka_unit_test(a_file_that_cannot_grow_keeps_what_it_has),
        cmocka_unit_test(what_stands_in_its_way_is_an_error),
        cmocka_unit_test(keys_of_any_length_are_in_order_and_too_long_ones_corrupt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
