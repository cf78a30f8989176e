/* Stand-ins. */
#include "store/inside.h"
void stored_init(struct stream *stream)
{
    (void)stream;
}
void stored_done(struct stream *stream, bool drop)
{
    (void)stream;
    (void)drop;
}
void stored_forget(struct stream *stream, uint64_t base)
{
    (void)stream;
    (void)base;
}
enum stream_found stored_peek(struct stream *stream, uint64_t offset, uint64_t below,
                              struct entry *out)
{
    (void)stream;
    (void)offset;
    (void)below;
    (void)out;
    return STREAM_END;
}
bool stored_load(struct stream *stream, uint64_t offset, uint64_t below, struct stream_load *load)
{
    (void)stream;
    (void)offset;
    (void)below;
    (void)load;
    return false;
}
void checkpoint_tick(struct store *store)
{
    (void)store;
}
void checkpoint_stream_leaves(struct stream *stream)
{
    (void)stream;
}
static void nothing(struct disk_op *op)
{
    op->err = ERR_NONE;
}
struct stopper {
    struct disk_op op;
    void (*done)(void *, enum err);
    void *ctx;
};
static void stopped(struct disk_op *op)
{
    struct stopper *s = list_entry(op, struct stopper, op);
    s->done(s->ctx, ERR_NONE);
    __builtin_free(s);
}
void store_stop(struct store *store, void (*done)(void *ctx, enum err err), void *ctx)
{
    journal_flush(store);
    struct stopper *s = __builtin_calloc(1, sizeof *s);
    s->op.done = stopped;
    s->done = done;
    s->ctx = ctx;
    disk_run(store->config.disk, nothing, &s->op);
}
uint64_t stream_bytes(struct stream *stream)
{
    return stream->bytes;
}
uint64_t stream_retain_from(struct stream *stream, uint64_t max_bytes, int64_t min_ms)
{
    (void)max_bytes;
    (void)min_ms;
    return stream->first;
}
uint64_t stream_seek_time(struct stream *stream, int64_t ms)
{
    (void)ms;
    return stream->first;
}
