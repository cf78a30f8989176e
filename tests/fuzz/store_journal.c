/* Recovery over hostile journal files. The first byte says how much is made right, so that the
 * fuzzer gets past the checksums: bit 0: frames get valid headers and checksums (their sizes and
 * records stay the input's), bit 1: half of the input stands in a second file, bit 2: the last
 * frame is damaged again. Whatever opens must take appends and open again with them. */
#include "store/disk_double.h"
#include "store/format.h"
#include "store/store.h"

#include "base/endian.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { FRAMES_MAX = 64 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct owner {
    struct store *store;
    struct stream stream;
    bool ready;
    uint64_t records, bytes;
};

static void owner_ready(struct owner *owner)
{
    if (!owner->ready)
        stream_init(&owner->stream, owner->store, 1, 0, 0);
    owner->ready = true;
}

static enum err replay(void *ctx, uint64_t pos, struct slice record)
{
    struct owner *owner = ctx;
    owner_ready(owner);
    owner->records++;
    for (size_t i = 0; i < record.len; i++) /* all of it can be read */
        owner->bytes += record.data[i];
    if (record.len < 8)
        return ERR_NONE;
    return stream_add(&owner->stream, owner->stream.next, 1, pos, (uint32_t)record.len);
}

static bool next_changed(void *ctx, struct store_object *out)
{
    (void)ctx;
    (void)out;
    return false;
}

static void changes_lost(void *ctx)
{
    (void)ctx;
}

static bool entry_live(void *ctx, uint64_t stream, uint64_t base, uint32_t count)
{
    (void)ctx;
    (void)stream;
    (void)base;
    (void)count;
    return true;
}

static void committed(void *ctx, uint64_t end)
{
    (void)ctx;
    (void)end;
}

static void failed(void *ctx, enum err err)
{
    (void)ctx;
    (void)err;
    abort(); /* this disk never fails */
}

static const struct store_handler handler = {.replay = replay,
                                             .next_changed = next_changed,
                                             .changes_lost = changes_lost,
                                             .entry_live = entry_live,
                                             .committed = committed,
                                             .failed = failed};

struct journal_state {
    uint64_t index;
    uint32_t chain;
};

/* {length (two bytes), durable, records, body}... as sealed frames. Returns their bytes; *last is
 * where the last one begins. */
static size_t frames_put(uint8_t *out, uint64_t start, const uint8_t *data, size_t len,
                         struct journal_state *state, size_t *last)
{
    size_t to = 0;
    for (size_t at = 0, count = 0; at + 4 < len && count < FRAMES_MAX; count++) {
        size_t most = len - at - 4, body = 1 + le16_get(data + at) % most;
        struct frame frame = {.body = (uint32_t)body,
                              .chain = state->chain,
                              .position = start + to,
                              .term = 1,
                              .index = state->index++,
                              .durable = data[at + 2] % 2 == 0 ? start + to : 0,
                              .records = data[at + 3]};
        memcpy(out + to + FRAME_HEADER_BYTES, data + at + 4, body);
        state->chain = frame_seal(out + to, &frame);
        *last = to;
        to += frame_bytes(frame.body);
        at += 4 + body;
    }
    return to;
}

/* Returns the position behind it. */
static uint64_t file_put(struct double_disk *disk, uint64_t start, const uint8_t *data, size_t len,
                         uint8_t flags, struct journal_state *state)
{
    struct disk_file *file;
    char path[64];
    snprintf(path, sizeof path, "c/journal-%016llx", (unsigned long long)start);
    /* Frames are padded, so they take more than the input has. */
    size_t capacity =
        JOURNAL_HEADER_BYTES + len + 7 + FRAMES_MAX * (FRAME_HEADER_BYTES + FRAME_ALIGN);
    uint8_t *content = calloc(1, capacity);
    if (content == NULL || disk_open(&disk->disk, path, true, &file) != ERR_NONE)
        abort();
    journal_header_put(content, &(struct journal_header){.cell = 0, .start = start});
    uint8_t *body = content + JOURNAL_HEADER_BYTES;
    size_t room = (len + 7) & ~(size_t)7, last = 0;
    if (flags & 1)
        room = frames_put(body, start, data, len, state, &last);
    else
        memcpy(body, data, len);
    if ((flags & 4) != 0 && room > last + 40)
        body[last + 40] ^= 1;
    size_t bytes = JOURNAL_HEADER_BYTES + room;
    if (disk_write_sync(file, content, bytes, 0) != ERR_NONE || disk_sync(file) != ERR_NONE)
        abort();
    disk_close(file);
    free(content);
    return start + room;
}

static bool open_and_append(struct double_disk *disk, bool appends, uint64_t *records)
{
    struct owner owner = {0};
    char problem[STORE_PROBLEM_BYTES];
    struct store_config config = {.path = "c",
                                  .disk = &disk->disk,
                                  .sync = true,
                                  .segment_bytes = 1u << 20,
                                  .memory_limit = 1u << 20,
                                  .checkpoint_ms = 1000,
                                  .problem = problem,
                                  .problem_bytes = sizeof problem};
    enum err err = store_open(&config, &handler, &owner, &owner.store);
    *records = owner.records;
    if (err == ERR_NONE && !appends) {
        store_destroy(owner.store);
    } else if (err == ERR_NONE) {
        owner_ready(&owner);
        uint64_t pos;
        uint8_t *at = store_reserve(owner.store, true, 100, &pos, &err);
        if (at == NULL)
            abort();
        memset(at, 7, 100);
        store_commit(owner.store, 100);
        store_flush(owner.store, false);
        while (double_turn(disk))
            continue;
        if (store_committed(owner.store) != store_end(owner.store))
            abort();
        stream_done(&owner.stream, false);
        store_destroy(owner.store);
    } else if (owner.ready) {
        stream_done(&owner.stream, false);
    }
    return err == ERR_NONE;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    uint8_t flags = data[0];
    data++;
    size--;
    struct double_disk *disk = double_create(1);
    struct journal_state state = {.index = 1};
    size_t first = (flags & 2) != 0 ? size / 2 : size;
    uint64_t end = file_put(disk, 0, data, first, flags, &state);
    if ((flags & 2) != 0)
        (void)file_put(disk, (end + FRAME_ALIGN - 1) & ~(uint64_t)(FRAME_ALIGN - 1), data + first,
                       size - first, flags, &state);
    if (disk_sync_folder(&disk->disk, "c") != ERR_NONE)
        abort();
    uint64_t records, again;
    bool appends = (flags & 8) != 0;
    if (open_and_append(disk, appends, &records) && appends &&
        (!open_and_append(disk, appends, &again) || again != records + 1))
        abort();
    double_destroy(disk);
    return 0;
}
