/* Cell 0's part of the catalog: it decides requests against the master, journals the changes and
 * broadcasts them once they are safe. The state store holds the durable changes one by one, by
 * sequence number; when many of them have been overtaken, a checkpoint stores the catalog anew. */
#include "core/cell_state.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { REWRITE_ABOVE = 1000 }; /* stored changes that are not worth writing the catalog anew */

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

enum err definitions_restore(struct cell *cell, uint64_t id, struct slice value)
{
    if (cell->master == NULL)
        return ERR_CORRUPT;
    if (cell->catalog_seq == 0)
        cell->catalog_first = cell->catalog_drop = id;
    cell->catalog_seq = id + 1;
    size_t used = 0;
    return catalog_apply(cell->master, value, &used, NULL, NULL);
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
        /* In order behind the changes that it relies on. */
        if (err == ERR_NONE)
            cell_change(cell, NULL, 0, &answer, true);
        else
            cell_answer(cell, &answer, false);
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

/* Checkpoint: changes that were overtaken are deleted, new ones stored, one object each. */
bool definitions_next_changed(struct cell *cell, struct store_object *out)
{
    if (cell->catalog_dropped < cell->catalog_drop) {
        *out = (struct store_object){.kind = OBJECT_CATALOG_CHANGE, .id = cell->catalog_dropped++};
        return true;
    }
    if (list_empty(&cell->catalog_unsaved))
        return false;
    struct unsaved *unsaved = list_entry(cell->catalog_unsaved.next, struct unsaved, link);
    list_remove(&unsaved->link);
    list_insert(&cell->catalog_handed, &unsaved->link);
    *out = (struct store_object){
        .kind = OBJECT_CATALOG_CHANGE,
        .id = unsaved->seq,
        .value = slice_make(unsaved->bytes, unsaved->len),
    };
    return true;
}

void definitions_changes_lost(struct cell *cell)
{
    cell->catalog_dropped = cell->catalog_first;
    while (!list_empty(&cell->catalog_handed)) {
        struct list *newest = cell->catalog_handed.prev;
        list_remove(newest);
        list_insert(cell->catalog_unsaved.next, newest);
    }
}

static void forget(struct list *changes)
{
    list_each(node, changes)
    {
        list_remove(node);
        free(list_entry(node, struct unsaved, link));
    }
}

static enum err remember_one(void *ctx, struct slice change)
{
    struct cell *cell = ctx;
    cell->catalog_live++;
    return remember(cell, change) ? ERR_NONE : ERR_NO_MEMORY;
}

/* Replaces everything stored by what the catalog comes to now. */
static void write_anew(struct cell *cell)
{
    forget(&cell->catalog_unsaved);
    cell->catalog_drop = cell->catalog_seq;
    cell->catalog_live = 0;
    if (catalog_dump(cell->master, true, remember_one, cell) != ERR_NONE)
        cell_fail(cell, ERR_NO_MEMORY);
}

void definitions_checkpoint_begins(struct cell *cell)
{
    forget(&cell->catalog_handed); /* the checkpoint before is complete */
    cell->catalog_first = cell->catalog_dropped = cell->catalog_drop;
    uint64_t stored = cell->catalog_seq - cell->catalog_first;
    if (cell->master != NULL && stored > 2 * cell->catalog_live + REWRITE_ABOVE)
        write_anew(cell);
}

void definitions_done(struct cell *cell)
{
    forget(&cell->catalog_unsaved);
    forget(&cell->catalog_handed);
}
