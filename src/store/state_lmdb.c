/* The state store on LMDB: one file and its lock file, one unnamed database. It is made under
 * another name and renamed when it is safe, for LMDB refuses a file whose first pages a power cut
 * has torn. Reading a key costs a renewed read transaction, which is given back at once so that no
 * page stays pinned. The map is reserved address space, not memory. */
#include "store/state.h"

#include "store/pages.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAP_BYTES  (UINT64_C(16) << 30)
#define FILE_MODE  0640
#define LOCK_BYTES 8192 /* of its lock file, for as many readers as it allows by default */

struct state {
    MDB_env *env;
    MDB_dbi dbi;
    size_t map_bytes;
};

struct state_reader {
    struct state *state;
    MDB_txn *txn;
    MDB_cursor *cursor;
};

static enum err err_of(int code)
{
    switch (code) {
    case 0:
        return ERR_NONE;
    case MDB_NOTFOUND:
    case ENOENT:
        return ERR_NOT_FOUND;
    case MDB_MAP_FULL:
        return ERR_AGAIN;
    case ENOSPC:
    case EDQUOT:
        return ERR_DISK_FULL;
    case ENOMEM:
        return ERR_NO_MEMORY;
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
        return ERR_CORRUPT;
    default:
        return ERR_IO;
    }
}

static MDB_val val_of(struct slice slice)
{
    return (MDB_val){.mv_size = slice.len, .mv_data = (void *)(uintptr_t)slice.data};
}

static struct slice slice_from(const MDB_val *val)
{
    return (struct slice){.data = val->mv_data, .len = val->mv_size};
}

static enum err dbi_open(struct state *state)
{
    MDB_txn *txn;
    int code = mdb_txn_begin(state->env, NULL, MDB_RDONLY, &txn);
    if (code != 0)
        return err_of(code);
    code = mdb_dbi_open(txn, NULL, 0, &state->dbi);
    if (code != 0) {
        mdb_txn_abort(txn);
        return err_of(code);
    }
    return err_of(mdb_txn_commit(txn));
}

/* LMDB makes its lock file sparse and maps it: on a full disk the first access would be a SIGBUS.
 */
static int lock_reserve(const char *path)
{
    char lock[4096];
    if (snprintf(lock, sizeof lock, "%s-lock", path) >= (int)sizeof lock)
        return ENAMETOOLONG;
    int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, FILE_MODE);
    if (fd < 0)
        return errno;
    int code = posix_fallocate(fd, 0, LOCK_BYTES);
    close(fd);
    return code;
}

/* What a crash has left under the other name is of no use. The caller syncs the folder. */
static int file_make(const char *path)
{
    char fresh[4096];
    if (snprintf(fresh, sizeof fresh, "%s-new", path) >= (int)sizeof fresh)
        return ENAMETOOLONG;
    if (unlink(fresh) != 0 && errno != ENOENT)
        return errno;
    MDB_env *env;
    int code = mdb_env_create(&env);
    if (code != 0)
        return code;
    code = mdb_env_open(env, fresh, MDB_NOSUBDIR | MDB_NOLOCK, FILE_MODE);
    if (code == 0)
        code = mdb_env_sync(env, 1);
    mdb_env_close(env);
    if (code == 0 && rename(fresh, path) != 0)
        code = errno;
    return code;
}

static enum err lmdb_open(const struct state_backend *self, const char *path, bool create,
                          struct state **out)
{
    (void)self;
    if (access(path, F_OK) != 0) {
        enum err absent = errno == ENOENT ? ERR_NOT_FOUND : ERR_IO;
        if (absent == ERR_NOT_FOUND && create)
            absent = err_of(file_make(path));
        if (absent != ERR_NONE)
            return absent;
    }
    struct state *state = calloc(1, sizeof *state);
    if (state == NULL)
        return ERR_NO_MEMORY;
    state->map_bytes = MAP_BYTES;
    int code = mdb_env_create(&state->env);
    if (code == 0)
        code = mdb_env_set_mapsize(state->env, state->map_bytes);
    if (code == 0)
        code = lock_reserve(path);
    if (code == 0)
        code = mdb_env_open(state->env, path, MDB_NOSUBDIR | MDB_NOTLS | MDB_NORDAHEAD, FILE_MODE);
    enum err err = err_of(code);
    if (err == ERR_NONE)
        err = dbi_open(state);
    if (err != ERR_NONE) {
        if (state->env != NULL)
            mdb_env_close(state->env);
        free(state);
        return err == ERR_NOT_FOUND ? ERR_IO : err;
    }
    *out = state;
    return ERR_NONE;
}

static enum err lmdb_check(const struct state_backend *self, const char *path,
                           const struct state_check *check)
{
    (void)self;
    enum err err = pages_check(path, check);
    return err == ERR_NOT_FOUND ? ERR_NONE : err;
}

static void lmdb_close(struct state *state)
{
    mdb_env_close(state->env);
    free(state);
}

static enum err lmdb_reader_open(struct state *state, struct state_reader **out)
{
    struct state_reader *reader = calloc(1, sizeof *reader);
    if (reader == NULL)
        return ERR_NO_MEMORY;
    reader->state = state;
    int code = mdb_txn_begin(state->env, NULL, MDB_RDONLY, &reader->txn);
    if (code == 0)
        code = mdb_cursor_open(reader->txn, state->dbi, &reader->cursor);
    if (code != 0) {
        if (reader->txn != NULL)
            mdb_txn_abort(reader->txn);
        free(reader);
        return err_of(code);
    }
    mdb_txn_reset(reader->txn);
    *out = reader;
    return ERR_NONE;
}

static void lmdb_reader_close(struct state_reader *reader)
{
    mdb_cursor_close(reader->cursor);
    mdb_txn_abort(reader->txn);
    free(reader);
}

static int reader_begin(struct state_reader *reader)
{
    int code = mdb_txn_renew(reader->txn);
    if (code != 0)
        return code;
    code = mdb_cursor_renew(reader->txn, reader->cursor);
    if (code != 0)
        mdb_txn_reset(reader->txn);
    return code;
}

static enum err lmdb_seek(struct state_reader *reader, struct slice key, enum state_seek where,
                          struct state_found *out)
{
    int code = reader_begin(reader);
    if (code != 0)
        return err_of(code);
    MDB_val found = val_of(key), value;
    code = mdb_cursor_get(reader->cursor, &found, &value, MDB_SET_RANGE);
    if (where == STATE_AT_OR_BEFORE) {
        if (code == MDB_NOTFOUND)
            code = mdb_cursor_get(reader->cursor, &found, &value, MDB_LAST);
        else if (code == 0 && !slice_equal(slice_from(&found), key))
            code = mdb_cursor_get(reader->cursor, &found, &value, MDB_PREV);
    }
    enum err err = err_of(code);
    if (err == ERR_NONE && found.mv_size > STATE_KEY_MAX)
        err = ERR_CORRUPT;
    if (err == ERR_NONE) {
        out->key_len = found.mv_size;
        out->value_len = value.mv_size < STATE_VALUE_MAX ? value.mv_size : STATE_VALUE_MAX;
        memcpy(out->key, found.mv_data, out->key_len);
        memcpy(out->value, value.mv_data, out->value_len);
    }
    mdb_txn_reset(reader->txn);
    return err;
}

static int key_compare(const MDB_val *a, struct slice b)
{
    size_t shared = a->mv_size < b.len ? a->mv_size : b.len;
    int order = shared == 0 ? 0 : memcmp(a->mv_data, b.data, shared);
    return order != 0 ? order : (a->mv_size > b.len) - (a->mv_size < b.len);
}

/* In a transaction of its own: `each` may seek with the same reader. */
static enum err lmdb_each(struct state_reader *reader, struct slice from, struct slice to,
                          enum err (*each)(void *ctx, struct slice key, struct slice value),
                          void *ctx)
{
    MDB_txn *txn;
    MDB_cursor *cursor;
    int code = mdb_txn_begin(reader->state->env, NULL, MDB_RDONLY, &txn);
    if (code != 0)
        return err_of(code);
    code = mdb_cursor_open(txn, reader->state->dbi, &cursor);
    if (code != 0) {
        mdb_txn_abort(txn);
        return err_of(code);
    }
    MDB_val key = val_of(from), value;
    enum err err = ERR_NONE;
    code = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
    while (code == 0 && err == ERR_NONE && key_compare(&key, to) < 0) {
        err = each(ctx, slice_from(&key), slice_from(&value));
        if (err == ERR_NONE)
            code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
    }
    mdb_cursor_close(cursor);
    mdb_txn_abort(txn);
    if (err == ERR_NONE && code != 0 && code != MDB_NOTFOUND)
        err = err_of(code);
    return err;
}

static int batch_apply(struct state *state, MDB_txn *txn, const struct state_batch *batch)
{
    size_t at = 0;
    struct slice key, value;
    while (state_batch_next(batch, &at, &key, &value)) {
        MDB_val raw_key = val_of(key), raw_value = val_of(value);
        int code = value.data != NULL ? mdb_put(txn, state->dbi, &raw_key, &raw_value, 0)
                                      : mdb_del(txn, state->dbi, &raw_key, NULL);
        if (code != 0 && !(code == MDB_NOTFOUND && value.data == NULL))
            return code;
    }
    return 0;
}

static enum err lmdb_commit(struct state *state, const struct state_batch *batch)
{
    if (batch->failed)
        return ERR_NO_MEMORY;
    MDB_txn *txn;
    int code = mdb_txn_begin(state->env, NULL, 0, &txn);
    if (code != 0)
        return err_of(code);
    code = batch_apply(state, txn, batch);
    if (code != 0) {
        mdb_txn_abort(txn);
        return err_of(code);
    }
    return err_of(mdb_txn_commit(txn));
}

static enum err lmdb_grow(struct state *state)
{
    enum err err = err_of(mdb_env_set_mapsize(state->env, state->map_bytes * 2));
    if (err == ERR_NONE)
        state->map_bytes *= 2;
    return err;
}

const struct state_backend state_lmdb = {
    .open = lmdb_open,
    .check = lmdb_check,
    .close = lmdb_close,
    .reader_open = lmdb_reader_open,
    .reader_close = lmdb_reader_close,
    .seek = lmdb_seek,
    .each = lmdb_each,
    .commit = lmdb_commit,
    .grow = lmdb_grow,
};
