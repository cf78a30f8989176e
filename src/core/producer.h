/* Idempotent producers of one partition: for each producer id its epoch and its last batches, so
 * that a retried batch is recognised and answered with the offset it got the first time. The rules
 * are Kafka's (five batches remembered; a new epoch starts at sequence 0). */
#ifndef WEIR_CORE_PRODUCER_H
#define WEIR_CORE_PRODUCER_H

#include "base/map.h"
#include "codec/reader.h"
#include "codec/writer.h"
#include "gen/err.h"

#include <stdbool.h>
#include <stdint.h>

enum { PRODUCER_BATCHES = 5 };

struct producers {
    struct map table; /* producer id + 1 -> struct producer */
};

struct producer_batch {
    int64_t producer_id;
    int16_t epoch;
    int32_t sequence; /* of the first message */
    uint32_t count;
    uint64_t base;
};

/* May this batch be appended? ERR_NONE: yes. ERR_DUPLICATE: it was already, *base is its offset.
 * ERR_OUT_OF_ORDER, ERR_FENCED otherwise. `base` of batch is not looked at. */
enum err producers_check(const struct producers *producers, const struct producer_batch *batch,
                         uint64_t *base);
/* The batch was appended. */
enum err producers_note(struct producers *producers, const struct producer_batch *batch,
                        int64_t time_ms);
/* Forgets producers whose last batch is older. */
void producers_expire(struct producers *producers, int64_t before_ms);
void producers_done(struct producers *producers);

size_t producers_size(const struct producers *producers);
void producers_encode(const struct producers *producers, struct writer *writer);
enum err producers_restore(struct producers *producers, struct reader *reader);

#endif
