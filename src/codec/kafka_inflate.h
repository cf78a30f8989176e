#ifndef WEIR_CODEC_KAFKA_INFLATE_H
#define WEIR_CODEC_KAFKA_INFLATE_H

/*
 * Decompresses the records of a batch, which is needed only where a record leaves by another
 * protocol or where each one must be looked at.
 */

#include "codec/kafka_batch.h"

/*
 * The plain records: those of the batch itself when it is not compressed, otherwise bytes from the
 * arena. False when they are malformed, would be more than bytes_max, or the arena is full.
 */
__attribute__((warn_unused_result)) bool kafka_inflate(const struct kafka_batch *batch,
                                                       size_t bytes_max, struct arena *arena,
                                                       struct slice *out);

#endif
