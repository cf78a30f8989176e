/* The journal's files. Each covers the positions [start, limit) behind a header of 4 KiB and is
 * zeroed ahead of the writer in steps, by a job on a helper thread (without --durability sync, or
 * when writes are large, its blocks are only reserved); the file that follows is made before the
 * present one is full. A file that a checkpoint freed is kept and used again (unless
 * entries stay in it, see keep.c): its stale frames name positions below its new start and so are
 * never taken for valid ones.
 *
 * A file gets its final name only when its header is synced, so a crash leaves at worst a
 * `journal-new`, which the next start removes. When the disk has no room the journal is `full`: it
 * takes what was accepted already needs, if need be in place of the spare file or of a checkpoint's
 * unfinished extent, refuses what does not fit into the blocks that it has, and asks again once a
 * second. */
#include "store/inside.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define ROUND     4096u
#define FULL_ROOM (128u * 1024) /* what is taken ahead when there is none for a whole step */

static void path_in(const struct store *store, const char *name, char *out)
{
    snprintf(out, PATH_BYTES, "%s/%s", store->path, name);
}

/* The folder and the two above it (data/cells/000): new names in them must survive a crash. */
static enum err folder_make(struct store *store)
{
    struct disk *disk = store->config.disk;
    enum err err = disk_make_folder(disk, store->path);
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s", store->path);
    for (int up = 0; up < 3 && err == ERR_NONE; up++) {
        err = disk_sync_folder(disk, path);
        char *slash = NULL;
        for (char *at = path; *at != '\0'; at++)
            slash = *at == '/' ? at : slash;
        if (slash == NULL || slash == path)
            break;
        *slash = '\0';
    }
    return err;
}

/* On a helper. A full disk: the spare file goes for it, then as much as is needed will do. */
static enum err room_take(struct segment_job *job)
{
    struct store *store = job->store;
    bool written = job->zeroed;
    enum err err = disk_allocate(job->file, job->file_bytes, written);
    if (err == ERR_DISK_FULL && job->spare && !job->spare_used) {
        char spare[PATH_BYTES];
        path_in(store, "journal-spare", spare);
        enum err gone = disk_remove(store->config.disk, spare);
        if (gone != ERR_NONE && gone != ERR_NOT_FOUND)
            return gone;
        job->spare_used = true;
        err = disk_allocate(job->file, job->file_bytes, written);
    }
    uint64_t less = job->least_bytes + FULL_ROOM;
    if (err == ERR_DISK_FULL && less < job->file_bytes)
        err = disk_allocate(job->file, less, written);
    if (err == ERR_DISK_FULL && job->least_bytes < job->file_bytes)
        err = disk_allocate(job->file, job->least_bytes, written);
    return err == ERR_NONE ? disk_size(job->file, &job->got_bytes) : err;
}

/* On a helper. */
static enum err file_make(struct segment_job *job)
{
    struct store *store = job->store;
    struct disk *disk = store->config.disk;
    char fresh[PATH_BYTES], spare[PATH_BYTES], final[PATH_BYTES];
    path_in(store, "journal-new", fresh);
    path_in(store, "journal-spare", spare);
    store_path(store, "journal", job->segment->start, final);

    enum err err = folder_make(store);
    if (err == ERR_NONE && job->spare) {
        err = disk_rename(disk, spare, fresh);
        job->spare_used = err == ERR_NONE;
    }
    if (err == ERR_NONE)
        err = disk_open(disk, fresh, true, &job->file);
    if (err != ERR_NONE)
        return err;
    uint8_t header[JOURNAL_HEADER_BYTES];
    journal_header_put(
        header, &(struct journal_header){.cell = store->config.cell, .start = job->segment->start});
    if (store->config.sync)
        disk_bypass(job->file, fresh);
    err = room_take(job);
    if (err == ERR_NONE)
        err = disk_write_sync(job->file, header, sizeof header, 0);
    if (err == ERR_NONE)
        err = disk_sync(job->file);
    if (err == ERR_NONE)
        err = disk_rename(disk, fresh, final);
    if (err == ERR_NONE)
        err = disk_sync_folder(disk, store->path);
    if (err != ERR_NONE) {
        disk_close(job->file);
        job->file = NULL;
        enum err gone = err == ERR_DISK_FULL ? disk_remove(disk, fresh) : ERR_NOT_FOUND;
        if (gone == ERR_NOT_FOUND && err == ERR_DISK_FULL)
            gone = disk_remove(disk, final);
        (void)gone; /* the next attempt replaces it */
    }
    return err;
}

/* On a helper. */
static void job_run(struct disk_op *op)
{
    struct segment_job *job = list_entry(op, struct segment_job, op);
    op->err = job->file == NULL ? file_make(job) : room_take(job);
}

void segment_full(struct store *store, bool *flag, bool value)
{
    struct journal *journal = &store->journal;
    *flag = value;
    if (value) {
        journal->probe_at = store->now_ms + PROBE_MS;
        if (store->checkpoint.phase != CHECKPOINT_IDLE || store->checkpoint.stopping)
            store_kick(store); /* it may have room to give, or end without more of it */
    }
    bool full = journal->grow_full || journal->write_full || journal->space_low;
    if (journal->full == full)
        return;
    journal->full = full;
    store->handler->failed(store->ctx, full ? ERR_DISK_FULL : ERR_NONE);
}

static void job_done(struct disk_op *op)
{
    struct segment_job *job = list_entry(op, struct segment_job, op);
    struct store *store = job->store;
    struct segment *segment = job->segment;
    job->busy = false;
    store->journal.spares -= job->spare_used;
    if (op->err == ERR_NONE) {
        segment->file = job->file;
        segment->allocated = segment->start + job->got_bytes - JOURNAL_HEADER_BYTES;
        segment_full(store, &store->journal.grow_full, job->got_bytes < job->file_bytes);
        if (store->journal.grow_full && segment == store->journal.current &&
            store->journal.end > segment->allocated)
            store->journal.probe_at = store->now_ms; /* more was accepted meanwhile */
    } else if (op->err == ERR_DISK_FULL) {
        segment_full(store, &store->journal.grow_full, true);
    } else {
        store_fail(store, op->err);
        return;
    }
    segment_prepare(store);
    if (store->journal.wanted)
        journal_flush(store);
}

static uint64_t round_up(const struct segment *segment, uint64_t position)
{
    return segment->start + ((position - segment->start + ROUND - 1) & ~(uint64_t)(ROUND - 1));
}

/* How far a segment's file should reach: what is used, and a step ahead of it. The least that will
 * do on a full disk is what is used; half a file that nothing is in yet would help nobody. */
static uint64_t reach_wanted(const struct store *store, const struct segment *segment,
                             uint64_t *least_out)
{
    const struct journal *journal = &store->journal;
    uint64_t used = segment->start, ahead = SEGMENT_STEP_FIRST;
    if (segment->end != UINT64_MAX) {
        used = segment->end;
        ahead = 0;
    } else if (segment == journal->current) {
        used = journal->at;
        ahead = used - segment->start;
        ahead = ahead < SEGMENT_STEP_FIRST ? SEGMENT_STEP_FIRST : ahead;
        ahead = ahead > SEGMENT_STEP ? SEGMENT_STEP : ahead;
    } else {
        ahead = SEGMENT_STEP;
    }
    *least_out = round_up(segment, segment == journal->next ? used + ahead : used);
    uint64_t least = used + ahead / 2; /* no step before half of the last one is used */
    if (segment->file != NULL &&
        segment->allocated >= (least < segment->limit ? least : segment->limit))
        return segment->allocated;
    uint64_t reach = used + ahead < segment->limit ? used + ahead : segment->limit;
    return round_up(segment, reach);
}

/* Writing into blocks that are only reserved changes metadata, which an fdatasync must write too:
 * with large writes that is less than the zeroes. */
static bool zeroes_pay(const struct store *store)
{
    return store->config.sync && store->journal.flush_bytes < FLUSH_BULK_BYTES;
}

static bool job_start(struct store *store, struct segment *segment)
{
    uint64_t least, reach = reach_wanted(store, segment, &least);
    if (segment->file != NULL && segment->allocated >= reach)
        return false;
    struct segment_job *job = &store->journal.job;
    *job = (struct segment_job){.op.done = job_done,
                                .store = store,
                                .segment = segment,
                                .file = segment->file,
                                .file_bytes = JOURNAL_HEADER_BYTES + (reach - segment->start),
                                .least_bytes = JOURNAL_HEADER_BYTES + (least - segment->start),
                                .zeroed = zeroes_pay(store),
                                .spare = store->journal.spares > 0,
                                .busy = true};
    disk_run(store->config.disk, job_run, &job->op);
    return true;
}

/* The disk had no room: is there some now? */
void segment_probe(struct store *store)
{
    struct journal *journal = &store->journal;
    if (journal->write_full)
        journal_flush(store);
    segment_prepare(store);
    if (!journal->job.busy)
        segment_full(store, &journal->grow_full, false); /* no more is wanted */
}

/* A part of the disk is kept for what helps out of it: settles and checkpoints. Of a small disk an
 * eighth. */
void segment_space(struct store *store)
{
    struct journal *journal = &store->journal;
    uint64_t free_bytes = 0;
    if (store->failed != ERR_NONE || journal->current == NULL || journal->current->file == NULL ||
        (journal->space_end == journal->written && !journal->space_low) ||
        disk_free_space(store->config.disk, store->path, &free_bytes) != ERR_NONE)
        return;
    journal->space_end = journal->written;
    struct store_stats stats;
    store_stats(store, &stats);
    uint64_t share = free_bytes / 8 + (stats.journal_bytes + stats.extent_bytes) / 8;
    uint64_t reserve = share < SPACE_RESERVE ? share : SPACE_RESERVE;
    if (journal->space_low) /* a little more before it is let go */
        reserve += reserve / 4;
    segment_full(store, &journal->space_low, free_bytes < reserve);
}

void segment_prepare(struct store *store)
{
    struct journal *journal = &store->journal;
    if (journal->job.busy || store->failed != ERR_NONE || journal->current == NULL ||
        (journal->grow_full && store->now_ms < journal->probe_at))
        return;
    struct segment *current = journal->current;
    if (journal->next == NULL &&
        journal->at - current->start > (current->limit - current->start) / 2)
        journal->next = segment_create(store, current->limit, /* tried again when it fails */
                                       current->limit + store->config.segment_bytes);
    list_each(node, &journal->segments)
    {
        if (job_start(store, list_entry(node, struct segment, link)))
            return;
    }
}

struct segment *segment_create(struct store *store, uint64_t start, uint64_t limit)
{
    struct segment *segment = calloc(1, sizeof *segment);
    if (segment == NULL)
        return NULL;
    segment->start = start;
    segment->limit = limit;
    segment->end = UINT64_MAX;
    segment->allocated = start;
    list_insert(&store->journal.segments, &segment->link);
    return segment;
}

enum err segment_for(struct store *store, uint64_t start, uint64_t capacity, struct segment **out)
{
    struct journal *journal = &store->journal;
    struct segment *current = journal->current;
    if (current != NULL && current->limit - start >= capacity) {
        *out = current;
        return ERR_NONE;
    }
    if (journal->next == NULL) {
        uint64_t from = current != NULL ? current->limit : start;
        journal->next = segment_create(store, from, from + store->config.segment_bytes);
        if (journal->next == NULL)
            return ERR_NO_MEMORY;
    }
    struct segment *next = *out = journal->next;
    if (next->limit - next->start < capacity)
        next->limit = next->start + ((capacity + ROUND - 1) & ~(uint64_t)(ROUND - 1));
    return ERR_NONE;
}

void segment_enter(struct store *store, struct segment *segment, uint64_t end)
{
    struct journal *journal = &store->journal;
    if (segment == journal->current)
        return;
    assert(segment == journal->next);
    if (journal->current != NULL)
        journal->current->end = end;
    journal->current = segment;
    journal->next = NULL;
}

static void segment_free(struct segment *segment)
{
    list_remove(&segment->link);
    if (segment->file != NULL)
        disk_close(segment->file);
    free(segment->spans);
    free(segment);
}

void segment_unref(struct store *store, struct segment *segment)
{
    (void)store;
    assert(segment->refs > 0);
    if (--segment->refs == 0 && segment->removed)
        segment_free(segment);
}

/* Frees the files that end at or below position: keeps one to be used again, removes the others. */
void segment_free_below(struct store *store, uint64_t position)
{
    struct journal *journal = &store->journal;
    list_each(node, &journal->segments)
    {
        struct segment *segment = list_entry(node, struct segment, link);
        if (segment->end == UINT64_MAX || segment->end > position || segment->file == NULL ||
            (journal->job.busy && journal->job.segment == segment))
            break;
        if (journal->spares == 0 && segment->refs == 0 && !journal->job.busy && !segment->once) {
            char path[PATH_BYTES], spare[PATH_BYTES];
            store_path(store, "journal", segment->start, path);
            path_in(store, "journal-spare", spare);
            enum err err = disk_rename(store->config.disk, path, spare);
            if (err != ERR_NONE && err != ERR_DISK_FULL)
                store_fail(store, err);
            if (err != ERR_NONE)
                return; /* a full disk: after the next checkpoint, then */
            journal->spares++;
        } else {
            remover_leave(store, segment);
        }
        list_remove(&segment->link);
        segment->removed = true;
        segment->refs++;
        segment_unref(store, segment);
    }
}

void segment_remove_all(struct store *store)
{
    struct journal *journal = &store->journal;
    while (!list_empty(&journal->segments)) {
        struct segment *segment = list_entry(journal->segments.next, struct segment, link);
        if (segment->file != NULL)
            remover_leave(store, segment);
        segment->removed = true;
        list_remove(&segment->link);
        segment->refs++;
        segment_unref(store, segment);
    }
    journal->current = journal->next = NULL;
    if (journal->spares > 0) {
        char path[PATH_BYTES];
        path_in(store, "journal-spare", path);
        enum err err = disk_remove(store->config.disk, path);
        journal->spares = 0;
        if (err != ERR_NONE)
            store_fail(store, err);
    }
}

void segment_done_all(struct store *store)
{
    struct segment_job *job = &store->journal.job;
    list_each(node, &store->journal.segments)
    {
        segment_free(list_entry(node, struct segment, link));
    }
    (void)job;
}
