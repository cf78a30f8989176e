/*
 * Compressed records: the first byte chooses the compression, the rest is the data. Nothing may get
 * larger than the limit, whatever the data says.
 */

#include <stdint.h>
#include <stdlib.h>

#include "codec/kafka_inflate.h"

enum { PLAIN_BYTES_MAX = 1 << 18, ARENA_BYTES = 1 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct kafka_batch batch = {
        .attributes = (int16_t)(data[0] % (KAFKA_COMPRESSION_ZSTD + 1)),
        .records = slice_make(data + 1, size - 1),
        .records_count = 100,
    };
    struct arena arena;
    arena_init(&arena, 4096, ARENA_BYTES);
    struct slice plain;
    if (kafka_inflate(&batch, PLAIN_BYTES_MAX, &arena, &plain)) {
        if (plain.len > PLAIN_BYTES_MAX)
            abort();
        struct kafka_records records;
        kafka_records_init(&records, &batch, plain);
        struct kafka_record record;
        while (kafka_records_next(&records, &record))
            ;
    }
    arena_done(&arena);
    return 0;
}
