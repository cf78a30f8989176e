#ifndef WEIR_CODEC_SNAPPY_H
#define WEIR_CODEC_SNAPPY_H

/* Reads the Snappy block format (google/snappy, format_description.txt). */

#include "base/slice.h"

/* The length that the block says it has when decompressed; false when it says nothing sensible. */
__attribute__((warn_unused_result)) bool snappy_length(struct slice block, uint32_t *out);

/* Decompresses into exactly len bytes, len being snappy_length's. False when the block is bad. */
__attribute__((warn_unused_result)) bool snappy_decompress(struct slice block, uint8_t *out,
                                                           uint32_t len);

#endif
