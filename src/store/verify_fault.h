/* For tests that verify offline: a disk and a state store whose n-th call fails, or whose n-th read
 * ends too early; all else goes to the doubles that they stand before. One test program has one. */
#ifndef WEIR_STORE_VERIFY_FAULT_H
#define WEIR_STORE_VERIFY_FAULT_H

#include "store/checkpoint_rig.h"

struct faulty {
    struct disk_ops ops;
    struct state_backend backend; /* found again from it */
    const struct state_backend *real;
    uint64_t calls, at;
    enum err err;
    bool shortens; /* that call reads half of it instead */
};

static struct faulty faulty;

static inline bool fails(void)
{
    return ++faulty.calls == faulty.at;
}

static inline enum err faulty_open(struct disk *disk, const char *path, bool create,
                                   struct disk_file **out)
{
    return fails() && !faulty.shortens ? faulty.err : double_ops.open(disk, path, create, out);
}

static inline enum err faulty_size(struct disk_file *file, uint64_t *bytes)
{
    return fails() && !faulty.shortens ? faulty.err : double_ops.size(file, bytes);
}

static inline enum err faulty_read(struct disk_file *file, void *into, size_t len, uint64_t offset,
                                   size_t *got)
{
    bool now = fails();
    *got = 0;
    if (now && !faulty.shortens)
        return faulty.err;
    return double_ops.read_sync(file, into, now ? len / 2 : len, offset, got);
}

static inline enum err faulty_list(struct disk *disk, const char *path,
                                   void (*each)(void *ctx, const char *name), void *ctx)
{
    return fails() && !faulty.shortens ? faulty.err : double_ops.list(disk, path, each, ctx);
}

static inline enum err faulty_check(const struct state_backend *self, const char *path,
                                    const struct state_check *check)
{
    (void)self, (void)path, (void)check;
    return fails() && !faulty.shortens ? faulty.err : ERR_NONE;
}

static inline enum err faulty_state_open(const struct state_backend *self, const char *path,
                                         bool create, struct state **out)
{
    (void)self;
    return fails() && !faulty.shortens ? faulty.err
                                       : faulty.real->open(faulty.real, path, create, out);
}

static inline enum err faulty_reader_open(struct state *state, struct state_reader **out)
{
    return fails() && !faulty.shortens ? faulty.err : faulty.real->reader_open(state, out);
}

static inline enum err faulty_seek(struct state_reader *reader, struct slice key,
                                   enum state_seek where, struct state_found *out)
{
    return fails() && !faulty.shortens ? faulty.err : faulty.real->seek(reader, key, where, out);
}

static inline enum err
faulty_each(struct state_reader *reader, struct slice from, struct slice to,
            enum err (*each)(void *ctx, struct slice key, struct slice value), void *ctx)
{
    return fails() && !faulty.shortens ? faulty.err
                                       : faulty.real->each(reader, from, to, each, ctx);
}

static inline void faulty_init(struct rig *rig)
{
    faulty = (struct faulty){.ops = double_ops, .backend = *rig->state, .real = rig->state};
    faulty.ops.open = faulty_open;
    faulty.ops.size = faulty_size;
    faulty.ops.read_sync = faulty_read;
    faulty.ops.list = faulty_list;
    faulty.backend.check = faulty_check;
    faulty.backend.open = faulty_state_open;
    faulty.backend.reader_open = faulty_reader_open;
    faulty.backend.seek = faulty_seek;
    faulty.backend.each = faulty_each;
    rig->disk->disk.ops = &faulty.ops;
}

#endif
