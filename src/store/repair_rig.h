/* What tests of repairs share: a cell's folder to be damaged, what a repair tells, and what a
 * folder holds as one number, so that two repairs can be held against each other. */
#ifndef WEIR_STORE_REPAIR_RIG_H
#define WEIR_STORE_REPAIR_RIG_H

#include "store/repair.h"

#include "store/checkpoint_rig.h"
#include "store/path.h"
#include "store/verify.h"

#include <malloc.h>

#define REPAIR_CELL  7u
#define REPAIR_ASIDE "aside"

/* Memory that is given back to the system and taken again is most of the time of thousands of small
 * folders. */
static inline void repair_memory_keep(void)
{
    (void)mallopt(M_MMAP_THRESHOLD, 64 << 20);
    (void)mallopt(M_TRIM_THRESHOLD, 256 << 20);
}

struct told {
    uint64_t steps, rows, entries, frames, records, objects;
    char last[256]; /* step */
};

static inline void told_step(void *ctx, const char *text)
{
    struct told *told = ctx;
    told->steps++;
    snprintf(told->last, sizeof told->last, "%s", text);
}

static inline void told_row(void *ctx, struct slice key)
{
    (void)key;
    ((struct told *)ctx)->rows++;
}

static inline void told_block(void *ctx, const struct index_row *row)
{
    ((struct told *)ctx)->entries += row->count;
}

static inline void told_frames(void *ctx, uint64_t frames, const uint8_t *data, size_t len)
{
    (void)len; /* shorter when the file ends there */
    assert_non_null(data);
    ((struct told *)ctx)->frames += frames;
}

static inline void told_record(void *ctx, struct slice record)
{
    ((struct told *)ctx)->records += record.len > 0;
}

static inline void told_object(void *ctx, uint8_t kind, uint64_t id, struct slice value)
{
    (void)kind, (void)id, (void)value;
    ((struct told *)ctx)->objects++;
}

static const struct repair_events told_events = {
    .step = told_step,
    .row_lost = told_row,
    .block_lost = told_block,
    .frames_lost = told_frames,
    .record = told_record,
    .object = told_object,
};

static inline struct repair_config repair_config_of(const struct rig *rig, struct told *told)
{
    static const uint8_t nothing[8] = {11};
    *told = (struct told){0};
    return (struct repair_config){.disk = &rig->disk->disk,
                                  .backend = rig->state,
                                  .path = RIG_PATH,
                                  .aside = REPAIR_ASIDE,
                                  .cell = REPAIR_CELL,
                                  .nothing = {.data = nothing, .len = sizeof nothing},
                                  .events = &told_events,
                                  .ctx = told};
}

static inline enum err repair_run(const struct rig *rig, bool dry, struct told *told)
{
    struct repair_config config = repair_config_of(rig, told);
    config.dry = dry;
    return repair_cell(&config);
}

static inline void verify_ignore(void *ctx, const char *text)
{
    (void)ctx, (void)text;
}

static inline struct verify_report repair_verify(const struct rig *rig)
{
    struct verify_report report = {.damage = verify_ignore, .doubt = verify_ignore};
    assert_int_equal(verify_cell(&rig->disk->disk, rig->state, RIG_PATH, REPAIR_CELL, &report),
                     ERR_NONE);
    return report;
}

/* Extents of two checkpoints, and a journal of some frames behind the last one; all of it safe. */
static inline void repair_fill(struct rig *rig, int frames)
{
    assert_int_equal(rig_open(rig), ERR_NONE);
    for (int i = 0; i < 10 + frames; i++) {
        if (i == 5 || i == 10)
            checkpoint(rig);
        append(rig, 10);
        flush(rig);
    }
    rig_close(rig);
    double_reboot(rig->disk, DOUBLE_KEEP);
}

static inline enum err repair_row_copy(void *ctx, struct slice key, struct slice value)
{
    state_batch_put(ctx, key, value);
    return ERR_NONE;
}

/* A world with the same files and rows. */
static inline struct rig *repair_copy_of(const struct rig *from, struct world **out)
{
    static const uint8_t first = 0, last = 0xff;
    struct rig *rig = world_create(out, 1);
    struct disk *disk = &rig->disk->disk;
    for (int i = 0; i < DOUBLE_NAMES; i++) {
        const struct double_name *name = &from->disk->now[i], *same = from->disk->now;
        struct disk_file *file;
        if (name->inode == NULL)
            continue;
        while (same->inode != name->inode)
            same++;
        if (same != name) { /* a second name */
            assert_int_equal(disk_link(disk, same->path, name->path), ERR_NONE);
            continue;
        }
        assert_int_equal(disk_open(disk, name->path, true, &file), ERR_NONE);
        assert_int_equal(disk_write_sync(file, name->inode->data, name->inode->size, 0), ERR_NONE);
        disk_close(file);
    }
    for (struct double_inode *inode = rig->disk->inodes; inode != NULL; inode = inode->next)
        inode_sync(inode);
    double_changes_save(rig->disk, rig->disk->change_count);
    struct state *opened;
    struct state_reader *reader;
    struct state_batch batch = {0};
    if (from->state->open(from->state, RIG_PATH "/state", false, &opened) != ERR_NONE)
        return rig;
    assert_int_equal(from->state->reader_open(opened, &reader), ERR_NONE);
    assert_int_equal(from->state->each(reader, (struct slice){.data = &first, .len = 1},
                                       (struct slice){.data = &last, .len = 1}, repair_row_copy,
                                       &batch),
                     ERR_NONE);
    from->state->reader_close(reader);
    assert_int_equal(rig->state->open(rig->state, RIG_PATH "/state", true, &opened), ERR_NONE);
    assert_int_equal(rig->state->commit(opened, &batch), ERR_NONE);
    state_batch_done(&batch);
    return rig;
}

/* Frames that stand in the journal's files, in their order. */
struct frame_place {
    struct double_inode *inode;
    uint64_t at; /* byte in it */
    uint64_t position, bytes;
};

#define REPAIR_FRAMES 64

static inline int repair_frames(const struct rig *rig, uint64_t from, struct frame_place *out)
{
    int count = 0;
    for (int i = 0; i < DOUBLE_NAMES; i++) {
        const struct double_name *name = &rig->disk->now[i];
        uint64_t start;
        if (name->inode == NULL || strncmp(name->path, RIG_PATH "/", sizeof RIG_PATH) != 0 ||
            !path_number(name->path + sizeof RIG_PATH, "journal", &start))
            continue;
        for (uint64_t at = JOURNAL_HEADER_BYTES; at < name->inode->size; at += FRAME_ALIGN) {
            struct frame frame;
            uint64_t position = start + at - JOURNAL_HEADER_BYTES;
            if (position < from ||
                !frame_check(name->inode->data + at, name->inode->size - at, &frame) ||
                frame.position != position)
                continue;
            assert_true(count < REPAIR_FRAMES);
            int place = count++;
            for (; place > 0 && out[place - 1].position > position; place--)
                out[place] = out[place - 1];
            out[place] = (struct frame_place){.inode = name->inode,
                                              .at = at,
                                              .position = position,
                                              .bytes = frame_bytes(frame.body)};
        }
    }
    return count;
}

/* The file of the cell whose name has that part. */
static inline struct double_inode *repair_file(const struct rig *rig, const char *part)
{
    for (int i = 0; i < DOUBLE_NAMES; i++) {
        struct double_name *name = &rig->disk->now[i];
        if (name->inode != NULL && strncmp(name->path, RIG_PATH, strlen(RIG_PATH)) == 0 &&
            strstr(name->path, part) != NULL)
            return name->inode;
    }
    return NULL;
}

/* Turns a bit, on the disk itself. */
static inline void inode_flip(struct double_inode *inode, uint64_t at)
{
    assert_non_null(inode);
    assert_true(at < inode->safe_size);
    inode->data[at] ^= 4;
    inode->safe[at] ^= 4;
}

static inline void repair_flip(const struct rig *rig, const char *part, uint64_t at)
{
    inode_flip(repair_file(rig, part), at);
}

/* No CRC: what ends with its own has always the same. */
static inline uint64_t repair_hash(uint64_t seed, const uint8_t *data, size_t len)
{
    uint64_t lanes[4] = {seed, seed + 1, seed + 2, seed + 3};
    for (; len >= sizeof lanes; len -= sizeof lanes, data += sizeof lanes) {
        for (size_t i = 0; i < 4; i++) {
            lanes[i] = (lanes[i] ^ le64_get(data + 8 * i)) * UINT64_C(0x9e3779b97f4a7c15);
            lanes[i] ^= lanes[i] >> 29;
        }
    }
    for (size_t i = 0; i < len; i++)
        lanes[i % 4] = (lanes[i % 4] ^ data[i]) * UINT64_C(0x100000001b3);
    return (lanes[0] * 3 + lanes[1]) * 5 + lanes[2] * 7 + (lanes[3] ^ lanes[3] >> 32);
}

static inline enum err repair_row_sum(void *ctx, struct slice key, struct slice value)
{
    *(uint64_t *)ctx += repair_hash(repair_hash(key.len, key.data, key.len), value.data, value.len);
    return ERR_NONE;
}

/* Every file by name and bytes, with the originals that lie aside, and every row. */
static inline uint64_t repair_sum(const struct rig *rig)
{
    static const uint8_t from = 0, to = 0xff;
    struct state *opened;
    struct state_reader *reader;
    uint64_t sum = 0;
    for (int i = 0; i < DOUBLE_NAMES; i++) {
        const struct double_name *name = &rig->disk->now[i];
        if (name->inode == NULL)
            continue;
        uint64_t path = repair_hash(0, (const uint8_t *)name->path, strlen(name->path));
        sum += repair_hash(path + name->inode->size, name->inode->data, name->inode->size);
    }
    if (rig->state->open(rig->state, RIG_PATH "/state", false, &opened) != ERR_NONE)
        return sum;
    assert_int_equal(rig->state->reader_open(opened, &reader), ERR_NONE);
    assert_int_equal(rig->state->each(reader, (struct slice){.data = &from, .len = 1},
                                      (struct slice){.data = &to, .len = 1}, repair_row_sum, &sum),
                     ERR_NONE);
    rig->state->reader_close(reader);
    return sum;
}

#endif
