/* Files that nobody needs any more are removed by a job, for freeing a large file's blocks takes
 * the file system milliseconds. What a crash leaves behind, the next start finds and removes. */
#include "store/inside.h"

#include <stdlib.h>

/* On a helper. */
static void remover_run(struct disk_op *op)
{
    struct remover *remover = list_entry(op, struct remover, op);
    struct store *store = list_entry(remover, struct store, remover);
    op->err = ERR_NONE;
    for (uint32_t i = 0; i < remover->taken && op->err == ERR_NONE; i++) {
        char path[PATH_BYTES];
        struct removal *removal = &remover->taking[i];
        store_path(store, removal->kind, removal->number, path);
        if (removal->span_count > 0)
            keep_holes(store, path, removal->spans, removal->span_count);
        free(removal->spans);
        removal->spans = NULL;
        op->err = disk_remove(store->config.disk, path);
        if (op->err == ERR_NOT_FOUND || op->err == ERR_DISK_FULL)
            op->err = ERR_NONE; /* the next start tries again */
    }
}

static void remover_start(struct store *store);

static void remover_done(struct disk_op *op)
{
    struct remover *remover = list_entry(op, struct remover, op);
    struct store *store = list_entry(remover, struct store, remover);
    remover->busy = false;
    if (op->err != ERR_NONE)
        store_fail(store, op->err);
    else
        remover_start(store);
    if (store->checkpoint.stopping)
        checkpoint_advance(store);
}

static void remover_start(struct store *store)
{
    struct remover *remover = &store->remover;
    if (remover->busy || remover->count == 0)
        return;
    struct removal *queue = remover->queue;
    uint32_t room = remover->room;
    remover->queue = remover->taking;
    remover->room = remover->taking_room;
    remover->taking = queue;
    remover->taking_room = room;
    remover->taken = remover->count;
    remover->count = 0;
    remover->busy = true;
    remover->op.done = remover_done;
    disk_run(store->config.disk, remover_run, &remover->op);
}

static void removal_add(struct store *store, const struct removal *removal)
{
    struct remover *remover = &store->remover;
    if (remover->count == remover->room) {
        uint32_t room = remover->room == 0 ? 16 : remover->room * 2;
        struct removal *queue = realloc(remover->queue, room * sizeof *queue);
        if (queue == NULL) {
            free(removal->spans);
            return; /* the next start does it */
        }
        remover->queue = queue;
        remover->room = room;
    }
    remover->queue[remover->count++] = *removal;
    remover_start(store);
}

void remover_add(struct store *store, const char *kind, uint64_t number)
{
    removal_add(store, &(struct removal){.kind = kind, .number = number});
}

void remover_leave(struct store *store, struct segment *segment)
{
    struct removal removal = {.kind = "journal", .number = segment->start};
    if (segment->extent != 0 && !segment->recovered) {
        removal.spans = segment->spans;
        removal.span_count = segment->span_count;
        segment->spans = NULL;
        segment->span_count = segment->span_room = 0;
    }
    removal_add(store, &removal);
}

static void spans_free(struct removal *removals, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        free(removals[i].spans);
}

void remover_free(struct store *store)
{
    spans_free(store->remover.queue, store->remover.count);
    spans_free(store->remover.taking, store->remover.taken);
    free(store->remover.queue);
    free(store->remover.taking);
}
