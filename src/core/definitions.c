/* Cell 0's part of the catalog: it decides requests against the master, journals the changes and
 * broadcasts them once they are safe. The state store holds the durable changes one by one, by
 * sequence number from 1; when they are many more than what they come to, a checkpoint stores the
 * catalog as a whole, as number 0, and deletes those that led to it. The form of number 0 is u64
 * sequence number (changes below it are in it), then changes. */
#include "core/cell_state.h"

#include "base/endian.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { SNAPSHOT_SPARE = 1000 }; /* so many changes more than needed are kept */

struct unsaved {
    struct list link;
    uint64_t seq;
    size_t len;
    uint8_t bytes[];
};

static bool remember(struct cell *cell, struct slice change)
{
    struct unsaved *unsaved = malloc(sizeof *unsaved + change.len);
    if (unsaved == NULL)
        return false;
    unsaved->seq = cell->catalog_seq++;
    unsaved->len = change.len;
    memcpy(unsaved->bytes, change.data, change.len);
    list_insert(&cell->catalog_unsaved, &unsaved->link);
    return true;
}

/* A record holds all changes of one request. */
enum err definitions_apply(struct cell *cell, const struct record *record)
{
    if (cell->master == NULL)
        return ERR_CORRUPT;
    struct slice rest = record->bytes;
    while (rest.len > 0) {
        size_t used = 0;
        enum err err = catalog_apply(cell->master, rest, &used, NULL, NULL);
        if (err != ERR_NONE)
            return err;
        assert(used > 0 && used <= rest.len);
        if (!remember(cell, slice_make(rest.data, used)))
            return ERR_NO_MEMORY;
        rest = slice_make(rest.data + used, rest.len - used);
    }
    return ERR_NONE;
}

/* Applies changes one after the other; *count = how many. */
static enum err apply_all(struct cell *cell, struct slice changes, uint64_t *count)
{
    for (; changes.len > 0; ++*count) {
        size_t used = 0;
        enum err err = catalog_apply(cell->master, changes, &used, NULL, NULL);
        if (err != ERR_NONE)
            return err;
        changes = slice_make(changes.data + used, changes.len - used);
    }
    return ERR_NONE;
}

enum err definitions_restore(struct cell *cell, uint64_t id, struct slice value)
{
    struct snapshot *snapshot = &cell->snapshot;
    uint64_t count = 0;
    if (cell->master == NULL || (id == 0 && value.len < 8))
        return ERR_CORRUPT;
    if (id == 0) {
        snapshot->base = snapshot->first = be64_get(value.data);
        cell->catalog_seq = cell->catalog_saved = snapshot->base;
        enum err err = apply_all(cell, slice_make(value.data + 8, value.len - 8), &count);
        snapshot->live = count;
        return err;
    }
    if (id < snapshot->first) /* also what a crash left of those deleted */
        snapshot->first = id;
    if (id < snapshot->base)
        return ERR_NONE;
    cell->catalog_seq = id + 1;
    cell->catalog_saved = id + 1;
    return apply_all(cell, value, &count);
}

static enum err carry_out(struct cell *cell, const struct catalog_changes *changes)
{
    struct slice rest = slice_make(changes->data, changes->len);
    if (changes->durable) {
        struct record record = {.type = RECORD_CATALOG};
        return cell_append(cell, &record, true, &rest, 1);
    }
    while (rest.len > 0) {
        size_t used = 0;
        enum err err = catalog_apply(cell->master, rest, &used, NULL, NULL);
        if (err != ERR_NONE)
            return err;
        rest = slice_make(rest.data + used, rest.len - used);
    }
    return ERR_NONE;
}

static void decide(struct cell *cell, const struct command *command,
                   const struct catalog_request *request)
{
    struct catalog_changes changes = {0};
    struct catalog_problem problem = {{0}};
    enum err err = catalog_decide(cell->master, request, &changes, &problem);
    struct event answer = {.type = EVENT_ANSWER, .err = err, .asker = command->asker};
    answer.value = changes.id;
    answer.value2 = changes.existed;
    answer.detail = slice_of(problem.text);
    if (err != ERR_NONE || request->validate_only || changes.len == 0) {
        free(changes.data);
        if (command->asker.conn == 0)
            return;
        /* In order behind the changes that it relies on: that something exists already, or does
         * not, is no more certain than they are. */
        cell_change(cell, NULL, 0, &answer, err == ERR_NONE);
        return;
    }
    err = carry_out(cell, &changes);
    if (err != ERR_NONE) {
        free(changes.data);
        cell_reply(cell, command, err, err_text(err));
        return;
    }
    answer.detail = (struct slice){0};
    cell_change(cell, changes.data, changes.len, &answer, changes.durable);
}

void definitions_command(struct cell *cell, const struct command *command)
{
    if (cell->failure != ERR_NONE) {
        cell_reply(cell, command, cell->failure, err_text(cell->failure));
        return;
    }
    assert(cell->master != NULL && command->parts != NULL);
    decide(cell, command, command->parts->root);
}

void definitions_conn_gone(struct cell *cell, const struct command *command)
{
    uint64_t ids[64];
    uint64_t conn = command->asker.conn;
    uint32_t before = UINT32_MAX;
    while (cell->failure == ERR_NONE) {
        uint32_t count = catalog_owned(cell->master, conn, ids, 64);
        if (count == 0 || count >= before) /* what cannot be deleted now stays */
            break;
        before = count;
        for (uint32_t i = 0; i < count && i < 64; i++) {
            const struct queue_def *def = catalog_queue_by_id(cell->master, ids[i]);
            struct catalog_request request = {
                .op = CATALOG_DELETE_QUEUE,
                .namespace_id = def->namespace_id,
                .name = def->name,
                .owner = conn,
            };
            struct command internal = {.type = COMMAND_CATALOG};
            decide(cell, &internal, &request);
        }
    }
}

bool definitions_ask_delete(struct cell *cell, uint32_t ns, struct slice name, uint64_t id,
                            uint64_t owner, uint64_t tag)
{
    struct parts *parts = parts_create(4096);
    struct catalog_request *request = parts ? arena_alloc(&parts->arena, sizeof *request) : NULL;
    uint8_t *copy = request ? arena_alloc(&parts->arena, name.len + 1) : NULL;
    if (copy == NULL) {
        parts_destroy(parts);
        return false;
    }
    memcpy(copy, name.data, name.len);
    *request = (struct catalog_request){
        .op = CATALOG_DELETE_QUEUE,
        .namespace_id = ns,
        .name = slice_make(copy, name.len),
        .id = id,
        .owner = owner,
    };
    parts->root = request;
    struct command command = {
        .type = COMMAND_CATALOG,
        .asker = {.conn = tag == 0 ? 0 : CELL_ASKER | cell->config.number, .tag = tag},
        .parts = parts,
    };
    cell->config.out->command(cell->config.ctx, &command);
    return true;
}

/* ---- Checkpoints ---- */

static enum err snapshot_add(void *ctx, struct slice change)
{
    struct snapshot *snapshot = ctx;
    if (snapshot->capacity - snapshot->len < change.len) {
        size_t capacity = (snapshot->len + change.len) * 2;
        uint8_t *bytes = realloc(snapshot->bytes, capacity);
        if (bytes == NULL)
            return ERR_NO_MEMORY;
        snapshot->bytes = bytes;
        snapshot->capacity = capacity;
    }
    memcpy(snapshot->bytes + snapshot->len, change.data, change.len);
    snapshot->len += change.len;
    snapshot->next_live++;
    return ERR_NONE;
}

static void snapshot_drop(struct snapshot *snapshot)
{
    free(snapshot->bytes);
    snapshot->bytes = NULL;
    snapshot->len = snapshot->capacity = 0;
    snapshot->next_base = snapshot->next_live = 0;
    snapshot->handed = false;
}

static bool snapshot_begin(struct cell *cell)
{
    struct snapshot *snapshot = &cell->snapshot;
    if (cell->catalog_seq - snapshot->first <= SNAPSHOT_SPARE + 2 * snapshot->live)
        return true;
    uint8_t base[8];
    be64_put(base, cell->catalog_seq);
    if (snapshot_add(snapshot, slice_make(base, sizeof base)) != ERR_NONE ||
        catalog_dump(cell->master, true, snapshot_add, snapshot) != ERR_NONE) {
        snapshot_drop(snapshot);
        return false;
    }
    snapshot->next_base = cell->catalog_seq;
    snapshot->drop_at = snapshot->first;
    cell->catalog_saved = cell->catalog_seq;
    return true;
}

bool definitions_checkpoint_begins(struct cell *cell)
{
    struct snapshot *snapshot = &cell->snapshot;
    if (cell->master == NULL)
        return true;
    list_each(node, &cell->catalog_unsaved)
    {
        struct unsaved *unsaved = list_entry(node, struct unsaved, link);
        if (unsaved->seq >= cell->catalog_saved)
            break;
        list_remove(&unsaved->link);
        free(unsaved);
    }
    if (snapshot->next_base != 0) { /* it is stored */
        snapshot->base = snapshot->first = snapshot->next_base;
        snapshot->live = snapshot->next_live;
        snapshot_drop(snapshot);
    }
    return snapshot_begin(cell);
}

static void hand_out(struct store_object *out, uint64_t id, struct slice value)
{
    *out = (struct store_object){.kind = OBJECT_CATALOG_CHANGE, .id = id, .value = value};
}

/* The whole catalog first, so that it is there when what it replaces goes. */
bool definitions_next_changed(struct cell *cell, struct store_object *out)
{
    struct snapshot *snapshot = &cell->snapshot;
    if (snapshot->bytes != NULL && !snapshot->handed) {
        snapshot->handed = true;
        hand_out(out, 0, slice_make(snapshot->bytes, snapshot->len));
        return true;
    }
    if (snapshot->next_base != 0 && snapshot->drop_at < snapshot->next_base) {
        hand_out(out, snapshot->drop_at++, (struct slice){0});
        return true;
    }
    list_each(node, &cell->catalog_unsaved)
    {
        struct unsaved *unsaved = list_entry(node, struct unsaved, link);
        if (unsaved->seq < cell->catalog_saved)
            continue;
        cell->catalog_saved = unsaved->seq + 1;
        hand_out(out, unsaved->seq, slice_make(unsaved->bytes, unsaved->len));
        return true;
    }
    return false;
}

void definitions_changes_lost(struct cell *cell)
{
    snapshot_drop(&cell->snapshot);
    if (!list_empty(&cell->catalog_unsaved))
        cell->catalog_saved = list_entry(cell->catalog_unsaved.next, struct unsaved, link)->seq;
}

void definitions_done(struct cell *cell)
{
    snapshot_drop(&cell->snapshot);
    list_each(node, &cell->catalog_unsaved)
    {
        list_remove(node);
        free(list_entry(node, struct unsaved, link));
    }
}
