#ifndef WEIR_CODEC_KAFKA_HEADER_H
#define WEIR_CODEC_KAFKA_HEADER_H

/*
 * The headers in front of every Kafka request and response, behind the frame's four bytes of
 * length.
 */

#include "codec/kafka_schema.h"

struct kafka_request_header {
    int16_t api_key;
    int16_t api_version;
    int32_t correlation_id;
    struct slice client_id; /* borrowed from the request; may be null */
};

/*
 * False when the bytes are no header. An API key or version that is not in the table is no failure:
 * the answer to ApiVersions in a version of the future, and every refusal, need the header.
 */
__attribute__((warn_unused_result)) bool
kafka_request_header_decode(struct reader *reader, struct kafka_request_header *out);

/* For tests and clients. */
void kafka_request_header_encode(struct writer *writer, const struct kafka_request_header *in);

enum { KAFKA_RESPONSE_HEADER_BYTES_MAX = 5 };

/* The exact size of the header of a response to that key and version. */
size_t kafka_response_header_size(int16_t api_key, int16_t api_version);

void kafka_response_header_encode(struct writer *writer, int16_t api_key, int16_t api_version,
                                  int32_t correlation_id);

/* For tests and clients, which know from the request what is being answered. */
__attribute__((warn_unused_result)) bool kafka_response_header_decode(struct reader *reader,
                                                                      int16_t api_key,
                                                                      int16_t api_version,
                                                                      int32_t *correlation_id);

#endif
