/* A little cell for the store's tests: numbered records, each holding one entry of one of a few
 * streams; it remembers what was confirmed and checks what is replayed. Durable streams only store
 * their `first` as an object. */
#ifndef WEIR_STORE_RIG_H
#define WEIR_STORE_RIG_H

#include "base/endian.h"
#include "store/disk_double.h"
#include "store/inside.h"
#include "store/store.h"

#define RIG_STREAMS 4
#define RIG_PATH    "data/cells/007"

struct rig_stream {
    struct stream stream;
    uint64_t position; /* the journal position that first and next reflect */
    bool changed;
};

#define RIG_BULK_BYTES (1u << 20)

struct rig_trimming {
    uint64_t end, stream, first;
};

struct rig {
    struct double_disk *disk;
    struct store *store;
    struct rig_stream streams[RIG_STREAMS];
    uint64_t appended;                  /* records made, numbered from 0 */
    uint64_t replayed;                  /* the next number that replay expects */
    uint64_t committed;                 /* records confirmed */
    uint64_t ends[65536];               /* store_end after record i (mod) */
    struct rig_trimming trimming[4096]; /* trims on their way (mod) */
    uint64_t trims, trims_done;
    uint64_t promised_first[RIG_STREAMS];
    enum err failed;
    char problem[STORE_PROBLEM_BYTES];
    int64_t now_ms;
    bool stopped;
    enum err stop_err;
    uint64_t memory_limit, segment_bytes, checkpoint_ms;
    uint64_t keep_bytes; /* > 0: the streams are logs */
    const struct state_backend *state;
    bool sync;
    size_t size; /* of entries, about */
    uint8_t object[32];
    const uint8_t *bulk; /* RIG_BULK_BYTES, of each large object */
    uint64_t bulk_changed, bulk_restored;
};

static inline size_t rig_len(const struct rig *rig, uint64_t number)
{
    return 16 + (size_t)(number * 7919 % (rig->size == 0 ? 200 : rig->size));
}

static inline void rig_fill(const struct rig *rig, uint8_t *out, uint64_t number)
{
    size_t len = rig_len(rig, number);
    be64_put(out, 1000 + number); /* timestamp */
    le64_put(out + 8, number);
    for (size_t i = 16; i < len; i++)
        out[i] = (uint8_t)(number + i * 31);
}

static inline bool rig_matches(const struct rig *rig, struct slice data, uint64_t number)
{
    size_t len = rig_len(rig, number);
    if (data.len != len || be64_get(data.data) != 1000 + number ||
        le64_get(data.data + 8) != number)
        return false;
    for (size_t i = 16; i < len; i++) {
        if (data.data[i] != (uint8_t)(number + i * 31))
            return false;
    }
    return true;
}

static inline void rig_streams_ready(struct rig *rig)
{
    for (uint64_t i = 0; i < RIG_STREAMS; i++) {
        if (rig->streams[i].stream.store == NULL)
            stream_init(&rig->streams[i].stream, rig->store, i + 1, 0, 0);
        rig->streams[i].stream.is_log = rig->keep_bytes > 0;
    }
}

/* Record `number` is entry number / RIG_STREAMS of stream number % RIG_STREAMS. */
static inline struct rig_stream *rig_stream_of(struct rig *rig, uint64_t number)
{
    return &rig->streams[number % RIG_STREAMS];
}

static inline enum err rig_replay(void *ctx, uint64_t pos, struct slice record)
{
    struct rig *rig = ctx;
    rig_streams_ready(rig);
    if (record.len == 17 && record.data[16] == 't') { /* trim: stream, first */
        struct rig_stream *owner = &rig->streams[be64_get(record.data) % RIG_STREAMS];
        if (pos >= owner->position)
            stream_trim(&owner->stream, be64_get(record.data + 8));
        return ERR_NONE;
    }
    if (record.len < 16)
        return ERR_CORRUPT;
    uint64_t number = le64_get(record.data + 8);
    if (!rig_matches(rig, record, number) ||
        number / RIG_STREAMS > rig_stream_of(rig, number)->stream.next ||
        (rig->state == NULL && number != rig->replayed))
        return ERR_CORRUPT;
    rig->replayed = number + 1;
    return stream_add(&rig_stream_of(rig, number)->stream, number / RIG_STREAMS, 1, pos,
                      (uint32_t)record.len);
}

static inline enum err rig_restore(void *ctx, uint8_t kind, uint64_t id, struct slice value)
{
    struct rig *rig = ctx;
    if (kind == 2) {
        rig->bulk_restored++;
        return ERR_NONE;
    }
    if (kind != 1 || id >= RIG_STREAMS || value.len != 24)
        return ERR_CORRUPT;
    struct rig_stream *owner = &rig->streams[id];
    stream_init(&owner->stream, rig->store, id + 1, le64_get(value.data), le64_get(value.data + 8));
    owner->position = le64_get(value.data + 16);
    return ERR_NONE;
}

static inline bool rig_next_changed(void *ctx, struct store_object *out)
{
    struct rig *rig = ctx;
    if (rig->bulk_changed > 0) { /* large objects, so that one transaction does not hold them all */
        *out = (struct store_object){.kind = 2,
                                     .id = --rig->bulk_changed,
                                     .value = {.data = rig->bulk, .len = RIG_BULK_BYTES}};
        return true;
    }
    for (uint64_t i = 0; i < RIG_STREAMS; i++) {
        struct rig_stream *owner = &rig->streams[i];
        if (!owner->changed)
            continue;
        owner->changed = false;
        le64_put(rig->object, owner->stream.first);
        le64_put(rig->object + 8, owner->stream.next);
        le64_put(rig->object + 16, store_end(rig->store));
        *out = (struct store_object){.kind = 1, .id = i, .value = {.data = rig->object, .len = 24}};
        return true;
    }
    return false;
}

static inline void rig_changes_lost(void *ctx)
{
    struct rig *rig = ctx;
    for (int i = 0; i < RIG_STREAMS; i++)
        rig->streams[i].changed = true;
}

static inline bool rig_entry_live(void *ctx, uint64_t stream, uint64_t base, uint32_t count)
{
    struct rig *rig = ctx;
    return base + count > rig->streams[stream - 1].stream.first;
}

static inline void rig_committed(void *ctx, uint64_t end)
{
    struct rig *rig = ctx;
    while (rig->committed < rig->appended && rig->ends[rig->committed % 65536] <= end)
        rig->committed++;
    for (; rig->trims_done < rig->trims; rig->trims_done++) {
        const struct rig_trimming *trim = &rig->trimming[rig->trims_done % 4096];
        if (trim->end > end)
            break;
        rig->promised_first[trim->stream] = trim->first;
    }
}

static inline void rig_failed(void *ctx, enum err err)
{
    ((struct rig *)ctx)->failed = err;
}

static const struct store_handler rig_handler = {
    .restore = rig_restore,
    .replay = rig_replay,
    .next_changed = rig_next_changed,
    .changes_lost = rig_changes_lost,
    .entry_live = rig_entry_live,
    .committed = rig_committed,
    .failed = rig_failed,
};

static inline void rig_init(struct rig *rig, uint64_t seed)
{
    memset(rig, 0, sizeof *rig);
    rig->disk = double_create(seed);
    rig->memory_limit = 64u << 20;
    rig->segment_bytes = 1u << 20;
    rig->sync = true;
    rig->checkpoint_ms = 60000;
}

/* Opens the store on what is on the disk. */
static inline enum err rig_open(struct rig *rig)
{
    struct store_config config = {.path = RIG_PATH,
                                  .disk = &rig->disk->disk,
                                  .state = rig->state,
                                  .cell = 7,
                                  .sync = rig->sync,
                                  .segment_bytes = rig->segment_bytes,
                                  .keep_bytes = rig->keep_bytes,
                                  .memory_limit = rig->memory_limit,
                                  .checkpoint_ms = rig->checkpoint_ms,
                                  .problem = rig->problem,
                                  .problem_bytes = sizeof rig->problem};
    rig->failed = ERR_NONE;
    rig->replayed = 0;
    rig->trims = rig->trims_done = 0;
    rig->bulk_restored = 0;
    rig->store = NULL;
    for (uint64_t i = 0; i < RIG_STREAMS; i++) {
        rig->streams[i] = (struct rig_stream){0};
    }
    enum err err = store_open(&config, &rig_handler, rig, &rig->store);
    if (err == ERR_NONE)
        rig_streams_ready(rig);
    return err;
}

static inline void rig_close(struct rig *rig)
{
    if (rig->store == NULL)
        return;
    for (int i = 0; i < RIG_STREAMS; i++)
        stream_done(&rig->streams[i].stream, false);
    store_destroy(rig->store);
    rig->store = NULL;
}

static inline void rig_done(struct rig *rig)
{
    rig_close(rig);
    double_destroy(rig->disk);
}

/* Runs the disk until it is idle. */
static inline void rig_settle(struct rig *rig)
{
    while (double_turn(rig->disk))
        continue;
}

static inline void rig_tick(struct rig *rig, int64_t ms)
{
    rig->now_ms += ms;
    store_tick(rig->store, rig->now_ms);
}

/* Appends the next record. */
static inline enum err rig_append(struct rig *rig)
{
    uint64_t pos, number = rig->appended;
    enum err err = ERR_NONE;
    size_t len = rig_len(rig, number);
    uint8_t *at = store_reserve(rig->store, true, len, &pos, &err);
    if (at == NULL)
        return err;
    rig_fill(rig, at, number);
    store_commit(rig->store, len);
    struct rig_stream *owner = rig_stream_of(rig, number);
    owner->changed = true;
    rig->ends[number % 65536] = store_end(rig->store);
    rig->appended++;
    return stream_add(&owner->stream, number / RIG_STREAMS, 1, pos, (uint32_t)len);
}

/* Makes a cell with two extents and a journal of several frames behind the checkpoint. */
static inline enum err rig_make_cell(struct rig *rig)
{
    enum err err = rig_open(rig);
    for (int i = 0; i < 150 && err == ERR_NONE; i++) {
        err = rig_append(rig);
        if (i % 10 == 9) {
            store_flush(rig->store, false);
            rig_settle(rig);
        }
        if (i == 49 || i == 99) {
            rig_tick(rig, 1);
            rig_tick(rig, (int64_t)rig->checkpoint_ms + 1);
            rig_settle(rig);
        }
    }
    rig_close(rig);
    return err;
}

/* Trims a stream, durably. */
static inline enum err rig_trim(struct rig *rig, uint64_t stream, uint64_t first)
{
    uint64_t pos;
    enum err err = ERR_NONE;
    uint8_t *at = store_reserve(rig->store, true, 17, &pos, &err);
    if (at == NULL)
        return err;
    be64_put(at, stream);
    be64_put(at + 8, first);
    at[16] = 't';
    store_commit(rig->store, 17);
    rig->streams[stream].changed = true;
    rig->trimming[rig->trims++ % 4096] =
        (struct rig_trimming){.end = store_end(rig->store), .stream = stream, .first = first};
    stream_trim(&rig->streams[stream].stream, first);
    return ERR_NONE;
}

struct rig_waiter {
    struct stream_load load;
    int done;
    enum err err;
};

static inline void rig_waiter_done(struct stream_load *load, enum err err)
{
    struct rig_waiter *waiter = list_entry(load, struct rig_waiter, load);
    waiter->done++;
    waiter->err = err;
}

/* Peeks, loading what is missing. Adds to *loads. */
static inline enum stream_found rig_read(struct rig *rig, struct stream *stream, uint64_t offset,
                                         struct entry *entry, int *loads, enum err *err)
{
    enum stream_found found;
    *err = ERR_NONE;
    while ((found = stream_peek(stream, offset, entry)) == STREAM_MISS && *err == ERR_NONE) {
        struct rig_waiter waiter = {.load.done = rig_waiter_done};
        stream_load(stream, offset, &waiter.load);
        assert(waiter.done == 0); /* never from inside the call */
        while (waiter.done == 0 && double_turn(rig->disk))
            continue;
        assert(waiter.done == 1);
        *err = waiter.err;
        *loads += 1;
    }
    return found;
}

/* Is everything from first to next there, and is it what was appended? Returns the number of loads
 * or -1. */
static inline int rig_verify(struct rig *rig)
{
    int loads = 0;
    for (uint64_t i = 0; i < RIG_STREAMS; i++) {
        struct stream *stream = &rig->streams[i].stream;
        for (uint64_t offset = stream->first; offset < stream->next; offset++) {
            struct entry entry;
            enum err err;
            if (rig_read(rig, stream, offset, &entry, &loads, &err) != STREAM_HIT ||
                entry.base != offset || !rig_matches(rig, entry.data, offset * RIG_STREAMS + i))
                return -1;
        }
        struct entry entry;
        if (stream_peek(stream, stream->next, &entry) != STREAM_END)
            return -1;
    }
    return loads;
}

/* How many records the streams say there were; -1 when they disagree. */
static inline int64_t rig_count(struct rig *rig)
{
    uint64_t count = 0;
    for (uint64_t i = 0; i < RIG_STREAMS; i++) {
        uint64_t next = rig->streams[i].stream.next;
        uint64_t least = next == 0 ? 0 : (next - 1) * RIG_STREAMS + i + 1;
        count = least > count ? least : count;
    }
    for (uint64_t i = 0; i < RIG_STREAMS; i++) {
        if (rig->streams[i].stream.next != (count + RIG_STREAMS - 1 - i) / RIG_STREAMS)
            return -1;
    }
    return (int64_t)count;
}

static inline void rig_stopped(void *ctx, enum err err)
{
    struct rig *rig = ctx;
    rig->stopped = true;
    rig->stop_err = err;
}

/* An orderly stop. */
static inline enum err rig_stop(struct rig *rig)
{
    rig->stopped = false;
    store_stop(rig->store, rig_stopped, rig);
    for (int i = 0; i < 100 && !rig->stopped; i++) {
        rig_settle(rig);
        if (!rig->stopped)
            rig_tick(rig, 1);
    }
    assert(rig->stopped);
    rig_close(rig);
    return rig->stop_err;
}

#endif
