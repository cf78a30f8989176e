#ifndef WEIR_CODEC_KAFKA_SCHEMA_H
#define WEIR_CODEC_KAFKA_SCHEMA_H

/*
 * Decodes and encodes Kafka messages by tables. The tables and the C structs that they describe are
 * generated from spec/kafka ("gen/kafka_api.h"), which also wraps these functions by type; faces
 * use the wrappers.
 *
 * In the structs: an array NAME is a pointer and an int32_t NAME_count, where -1 is null. Strings,
 * bytes and records are slices that borrow from the decoded bytes; data == NULL is null. A field
 * that the version at hand does not have is left at its default by decoding and is not looked at
 * by encoding. To build a message start from its generated default (`struct kafka_X x =
 * kafka_X_default;`): zero is not the default of every field.
 */

#include "base/arena.h"
#include "codec/reader.h"
#include "codec/writer.h"

struct kafka_uuid {
    uint8_t bytes[16];
};

enum kafka_type {
    KAFKA_TYPE_BOOL,
    KAFKA_TYPE_INT8,
    KAFKA_TYPE_INT16,
    KAFKA_TYPE_INT32,
    KAFKA_TYPE_INT64,
    KAFKA_TYPE_UUID,
    KAFKA_TYPE_STRING,
    KAFKA_TYPE_BYTES,
    KAFKA_TYPE_RECORDS, /* bytes that writer_payload may leave out */
    KAFKA_TYPE_STRUCT,
};

struct kafka_schema;

/* A field of a struct: present in versions since..until, nullable from null_since on. */
struct kafka_field {
    const struct kafka_schema *schema; /* of KAFKA_TYPE_STRUCT */
    uint16_t offset;
    uint16_t count_offset; /* of an array's count */
    uint8_t type;
    bool array;
    int8_t since, until;
    int8_t null_since; /* INT8_MAX: never */
    uint8_t tag;       /* of the fields behind fields_count */
};

/* A struct: fields in the order of the wire, then the tagged ones in the order of their tags. */
struct kafka_schema {
    const struct kafka_field *fields;
    const void *defaults;    /* an object with every field at its default */
    uint16_t size;           /* of the C struct */
    uint16_t wire_bytes_min; /* the least that one takes, over all versions */
    uint8_t fields_count;
    uint8_t tagged_count;
};

/* A request or a response. */
struct kafka_message {
    const struct kafka_schema *schema;
    int16_t version_min, version_max;
    int16_t flexible_since; /* INT16_MAX: never */
};

/*
 * Fills `out` from the reader. Arrays come from the arena. False when the bytes are not a valid
 * message of this version, the version is not in the table, or the arena is full; `out` is then
 * half filled and of no use. Bytes behind the message stay in the reader.
 */
__attribute__((warn_unused_result)) bool kafka_message_decode(struct reader *reader,
                                                              const struct kafka_message *message,
                                                              int16_t version, struct arena *arena,
                                                              void *out);

/* The exact number of bytes of the encoded message, left-out payloads included. */
size_t kafka_message_size(const struct kafka_message *message, int16_t version, const void *in);

/* Null where the version has no null, and a version that is not in the table, are our mistakes:
 * null is written as empty, the version trips an assert. Look at writer->failed afterwards. */
void kafka_message_encode(struct writer *writer, const struct kafka_message *message,
                          int16_t version, const void *in);

/* A tagged-field section that is read past. */
void kafka_tags_skip(struct reader *reader);

#endif
