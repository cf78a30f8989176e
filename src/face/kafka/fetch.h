/* What a Fetch response carries for one partition. For src/face/kafka only. */
#ifndef WEIR_FACE_KAFKA_FETCH_H
#define WEIR_FACE_KAFKA_FETCH_H

#include "face/kafka/kafka.h"

/* Bytes of the response that are not part of its own: inside a buf, or in the request's arena. */
struct fetch_piece {
    struct slice data;
    struct buf *buf; /* NULL: in the arena */
};

struct fetch_payload {
    const struct entry *entries;
    uint32_t count;
    size_t bytes;               /* that the entries make on the wire */
    struct fetch_piece *pieces; /* NULL: the entries are batches, sent as they are */
    uint32_t piece_count;
};

/* Sets bytes and pieces of a payload whose entries are not all Kafka batches: each run of messages
 * becomes a batch in the request's arena. False: no memory. */
bool fetch_convert(struct request *request, struct fetch_payload *payload);

#endif
