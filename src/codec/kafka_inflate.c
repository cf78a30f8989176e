/*
 * gzip (by ISA-L), LZ4 frames and Zstandard (by their libraries) are read as streams into a buffer
 * that doubles up to the caller's limit, since only the data says how large it gets; several
 * members or frames may follow each other. Snappy comes as one bare block, or in xerial's framing,
 * which Java clients write: a magic of 8 bytes, two versions, and blocks behind their lengths.
 */

#include "codec/kafka_inflate.h"

#include "codec/snappy.h"
#include <isa-l/igzip_lib.h>
#include <lz4frame.h>
#include <stdlib.h>
#include <zstd.h>

enum { START_BYTES = 4096, START_RATIO = 4 };

/* Where the plain bytes go. */
struct sink {
    uint8_t *data;
    size_t len, capacity, bytes_max;
    struct arena *arena;
};

/* Makes room for at least one byte, or for `wanted` when that is not zero. */
static bool sink_grow(struct sink *sink, size_t wanted)
{
    size_t capacity = wanted ? sink->len + wanted : sink->capacity * 2;
    if (capacity > sink->bytes_max)
        capacity = sink->bytes_max;
    if (capacity <= sink->len || capacity - sink->len < wanted)
        return false;
    uint8_t *data = arena_alloc(sink->arena, capacity);
    if (!data)
        return false;
    if (sink->len)
        memcpy(data, sink->data, sink->len);
    sink->data = data;
    sink->capacity = capacity;
    return true;
}

static size_t sink_left(const struct sink *sink)
{
    return sink->capacity - sink->len;
}

static bool gzip_inflate(struct slice in, struct sink *sink)
{
    struct inflate_state *state = malloc(sizeof *state); /* 85 kB: too much for the stack */
    if (!state)
        return false;
    isal_inflate_init(state);
    state->crc_flag = ISAL_GZIP;
    state->next_in = (uint8_t *)(uintptr_t)in.data; /* only read */
    state->avail_in = (uint32_t)in.len;
    bool ok = false;
    for (;;) {
        uint32_t room = (uint32_t)sink_left(sink);
        state->next_out = sink->data + sink->len;
        state->avail_out = room;
        if (isal_inflate(state) != ISAL_DECOMP_OK)
            break;
        sink->len += room - state->avail_out;
        if (state->block_state == ISAL_BLOCK_FINISH) {
            ok = state->avail_in == 0;
            if (ok)
                break;
            isal_inflate_reset(state); /* keeps the input: the next member */
            state->crc_flag = ISAL_GZIP;
        } else if (state->avail_out > 0 || !sink_grow(sink, 0)) {
            break; /* cut short, or too large */
        }
    }
    free(state);
    return ok;
}

static bool lz4_inflate(struct slice in, struct sink *sink)
{
    LZ4F_dctx *context;
    if (LZ4F_isError(LZ4F_createDecompressionContext(&context, LZ4F_VERSION)))
        return false;
    bool ok = false;
    for (;;) {
        size_t room = sink_left(sink), taken = in.len;
        size_t hint =
            LZ4F_decompress(context, sink->data + sink->len, &room, in.data, &taken, NULL);
        if (LZ4F_isError(hint))
            break;
        sink->len += room;
        in = slice_make(in.data + taken, in.len - taken);
        if (hint == 0 && in.len == 0) {
            ok = true;
            break;
        }
        if (sink_left(sink) == 0 ? !sink_grow(sink, 0) : taken == 0 && room == 0)
            break;
    }
    LZ4F_freeDecompressionContext(context);
    return ok;
}

static bool zstd_inflate(struct slice in, struct sink *sink)
{
    ZSTD_DCtx *context = ZSTD_createDCtx();
    if (!context)
        return false;
    ZSTD_inBuffer input = {.src = in.data, .size = in.len};
    bool ok = false;
    for (;;) {
        ZSTD_outBuffer output = {.dst = sink->data, .size = sink->capacity, .pos = sink->len};
        size_t before = input.pos;
        size_t hint = ZSTD_decompressStream(context, &output, &input);
        if (ZSTD_isError(hint))
            break;
        bool moved = input.pos > before || output.pos > sink->len;
        sink->len = output.pos;
        if (hint == 0 && input.pos == input.size) {
            ok = true;
            break;
        }
        if (sink_left(sink) == 0 ? !sink_grow(sink, 0) : !moved)
            break;
    }
    ZSTD_freeDCtx(context);
    return ok;
}

static bool snappy_block_inflate(struct slice block, struct sink *sink)
{
    uint32_t len;
    if (!snappy_length(block, &len))
        return false;
    if (len > sink_left(sink) && !sink_grow(sink, len))
        return false;
    if (!snappy_decompress(block, sink->data + sink->len, len))
        return false;
    sink->len += len;
    return true;
}

static bool snappy_inflate(struct slice in, struct sink *sink)
{
    static const uint8_t xerial[8] = {0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0};
    if (in.len < sizeof xerial || memcmp(in.data, xerial, sizeof xerial) != 0)
        return snappy_block_inflate(in, sink);
    struct reader reader = reader_over(in);
    reader_take(&reader, sizeof xerial + 4 + 4);
    while (reader_left(&reader) > 0) {
        struct slice block = reader_slice(&reader, reader_u32(&reader));
        if (reader.failed || !snappy_block_inflate(block, sink))
            return false;
    }
    return !reader.failed;
}

bool kafka_inflate(const struct kafka_batch *batch, size_t bytes_max, struct arena *arena,
                   struct slice *out)
{
    struct slice in = batch->records;
    int compression = batch->attributes & KAFKA_COMPRESSION_MASK;
    if (compression == KAFKA_COMPRESSION_NONE) {
        if (in.len > bytes_max)
            return false;
        *out = in;
        return true;
    }
    if (bytes_max > INT32_MAX)
        bytes_max = INT32_MAX;
    struct sink sink = {.bytes_max = bytes_max, .arena = arena};
    size_t start = in.len < bytes_max / START_RATIO ? in.len * START_RATIO : bytes_max;
    if (start < START_BYTES && bytes_max >= START_BYTES)
        start = START_BYTES;
    if (start == 0 || !sink_grow(&sink, start))
        return false;
    bool ok = false;
    switch (compression) {
    case KAFKA_COMPRESSION_GZIP:
        ok = gzip_inflate(in, &sink);
        break;
    case KAFKA_COMPRESSION_SNAPPY:
        ok = snappy_inflate(in, &sink);
        break;
    case KAFKA_COMPRESSION_LZ4:
        ok = lz4_inflate(in, &sink);
        break;
    case KAFKA_COMPRESSION_ZSTD:
        ok = zstd_inflate(in, &sink);
        break;
    }
    if (ok)
        *out = slice_make(sink.data, sink.len);
    return ok;
}
