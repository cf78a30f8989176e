/* A partition's reading side: a read gathers entries from its offset on, loading what is on disk,
 * up to its size; while there is less than its minimum it waits for commits until its deadline.
 * Every read gets exactly one EVENT_READ. */
#include "core/partition.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { READ_ENTRIES_MAX = 4096 };

struct reading {
    struct orphan orphan;        /* first member */
    struct list link;            /* on partition->readers */
    struct list cell_link;       /* on cell->readings */
    struct partition *partition; /* NULL: it went away while a load was under way */
    struct asker asker;
    uint64_t offset; /* next to look at */
    uint32_t max_bytes, min_bytes, bytes;
    int64_t deadline_ms;
    bool loading, stopped;
    struct entry *entries;
    uint32_t count, capacity;
    struct stream_load load;
};

static void wake(struct partition *partition)
{
    if (list_empty(&partition->wake_link))
        list_insert(&partition->cell->waking, &partition->wake_link);
}

static void reading_free(struct reading *reading)
{
    for (uint32_t i = 0; i < reading->count; i++)
        buf_unref(reading->entries[i].buf);
    free(reading->entries);
    list_remove(&reading->orphan.link);
    free(reading);
}

/* Its load may still be under way: then that frees the rest. */
static void reading_leave(struct reading *reading)
{
    struct cell *cell = reading->partition->cell;
    for (uint32_t i = 0; i < reading->count; i++)
        buf_unref(reading->entries[i].buf);
    free(reading->entries);
    reading->entries = NULL;
    reading->count = 0;
    list_remove(&reading->link);
    list_remove(&reading->cell_link);
    reading->partition = NULL;
    if (reading->loading)
        list_insert(&cell->orphans, &reading->orphan.link);
    else
        reading_free(reading);
}

/* The receiver takes over the references of the entries. */
static void finish(struct reading *reading, enum err err)
{
    struct partition *partition = reading->partition;
    struct event event = {.type = EVENT_READ, .err = err, .asker = reading->asker};
    event.read.entries = reading->entries;
    event.read.count = reading->count;
    event.read.first_offset = partition->stream.first;
    event.read.end_offset = partition->committed;
    struct entry *entries = reading->entries;
    partition->cell->stats.delivered += reading->count;
    reading->entries = NULL;
    reading->count = 0;
    reading_leave(reading);
    partition->cell->config.out->event(partition->cell->config.ctx, &event);
    free(entries);
}

static void loaded(struct stream_load *load, enum err err)
{
    struct reading *reading = list_entry(load, struct reading, load);
    reading->loading = false;
    if (reading->partition == NULL) {
        reading_free(reading);
        return;
    }
    if (err == ERR_NONE) {
        wake(reading->partition);
        return;
    }
    if (err != ERR_NO_MEMORY)
        cell_unreadable(reading->partition->cell, &reading->partition->stream, reading->offset,
                        err);
    finish(reading, reading->count > 0 ? ERR_NONE : err);
}

static bool add(struct reading *reading, const struct entry *entry)
{
    if (reading->count == reading->capacity) {
        uint32_t capacity = reading->capacity == 0 ? 8 : reading->capacity * 2;
        struct entry *entries = realloc(reading->entries, capacity * sizeof *entries);
        if (entries == NULL)
            return false;
        reading->entries = entries;
        reading->capacity = capacity;
    }
    assert(entry->buf != NULL);
    buf_ref(entry->buf);
    reading->entries[reading->count++] = *entry;
    reading->bytes += (uint32_t)entry->data.len;
    reading->offset = entry->base + entry->count;
    return true;
}

/* Gathers what is there. Returns true when the read was answered (and is gone). */
static bool serve(struct reading *reading)
{
    struct partition *partition = reading->partition;
    int64_t now_ms = partition->cell->now_ms;
    if (reading->loading)
        return false;
    if (reading->count == 0 &&
        (reading->offset < partition->stream.first || reading->offset > partition->committed)) {
        finish(reading, ERR_OUT_OF_RANGE);
        return true;
    }
    bool full = false;
    while (!full && reading->offset < partition->committed && reading->count < READ_ENTRIES_MAX) {
        struct entry entry;
        enum stream_found found = stream_peek(&partition->stream, reading->offset, &entry);
        if (found == STREAM_END)
            break;
        if (found == STREAM_MISS) {
            reading->loading = true;
            reading->load.done = loaded;
            stream_load(&partition->stream, reading->offset, &reading->load);
            return false;
        }
        if (entry.base >= partition->committed)
            break;
        full = reading->count > 0 && reading->bytes + entry.data.len > reading->max_bytes;
        if (!full && !add(reading, &entry))
            full = true;
    }
    full = full || reading->count == READ_ENTRIES_MAX;
    if (!full && !reading->stopped && reading->bytes < reading->min_bytes &&
        reading->bytes < reading->max_bytes && now_ms < reading->deadline_ms)
        return false;
    finish(reading, ERR_NONE);
    return true;
}

static void set_timer(struct partition *partition)
{
    int64_t due = INT64_MAX;
    list_each(node, &partition->readers)
    {
        const struct reading *reading = list_entry(node, struct reading, link);
        if (!reading->loading && reading->deadline_ms < due)
            due = reading->deadline_ms;
    }
    if (due == INT64_MAX)
        cell_timer_off(partition->cell, &partition->timer);
    else
        cell_timer(partition->cell, &partition->timer, due);
}

void partition_work(struct partition *partition)
{
    list_each(node, &partition->readers) serve(list_entry(node, struct reading, link));
    set_timer(partition);
}

void partition_read(struct partition *partition, const struct command *command)
{
    struct reading *reading = calloc(1, sizeof *reading);
    if (reading == NULL) {
        struct event event = {.type = EVENT_READ, .err = ERR_NO_MEMORY, .asker = command->asker};
        partition->cell->config.out->event(partition->cell->config.ctx, &event);
        return;
    }
    reading->partition = partition;
    reading->asker = command->asker;
    reading->offset = command->read.offset;
    reading->max_bytes = command->read.max_bytes;
    reading->min_bytes = command->read.min_bytes;
    reading->deadline_ms = command->read.deadline_ms;
    list_init(&reading->orphan.link);
    list_insert(&partition->readers, &reading->link);
    list_insert(&partition->cell->readings, &reading->cell_link);
    if (!serve(reading))
        set_timer(partition);
}

void partition_read_stop(struct partition *partition, const struct command *command)
{
    list_each(node, &partition->readers)
    {
        struct reading *reading = list_entry(node, struct reading, link);
        if (reading->asker.conn != command->asker.conn || reading->asker.tag != command->asker.tag)
            continue;
        reading->stopped = true;
        wake(partition);
        return;
    }
}

void partitions_conn_gone(struct cell *cell, uint64_t conn)
{
    list_each(node, &cell->readings)
    {
        struct reading *reading = list_entry(node, struct reading, cell_link);
        if (reading->asker.conn == conn)
            reading_leave(reading);
    }
}

void partition_destroy(struct partition *partition, bool drop)
{
    struct cell *cell = partition->cell;
    list_each(node, &partition->readers)
    {
        struct reading *reading = list_entry(node, struct reading, link);
        if (drop)
            finish(reading, ERR_NOT_FOUND);
        else
            reading_leave(reading);
    }
    cell_timer_off(cell, &partition->timer);
    list_remove(&partition->wake_link);
    list_remove(&partition->uncommitted_link);
    map_take(&cell->partitions, partition->stream.id);
    if (drop)
        cell_untrack(cell, &partition->tracked);
    else
        list_remove(&partition->tracked.link);
    stream_done(&partition->stream, drop);
    producers_done(&partition->producers);
    free(partition->uncommitted);
    free(partition);
}

void partition_offsets(struct partition *partition, const struct command *command)
{
    struct event event = {.type = EVENT_ANSWER, .asker = command->asker};
    event.value = UINT64_MAX;
    event.value2 = UINT64_MAX;
    switch (command->offsets.query) {
    case OFFSET_EARLIEST:
        event.value = partition->stream.first;
        break;
    case OFFSET_LATEST:
        event.value = partition->committed;
        break;
    case OFFSET_AT_TIME:
        event.value = stream_seek_time(&partition->stream, command->offsets.time_ms);
        if (event.value >= partition->committed)
            event.value = UINT64_MAX;
        break;
    case OFFSET_MAX_TIME:
        if (partition->committed > partition->stream.first)
            event.value = partition->newest_at >= partition->stream.first &&
                                  partition->newest_at < partition->committed
                              ? partition->newest_at
                              : partition->committed - 1;
        break;
    }
    cell_answer(partition->cell, &event, false);
}
