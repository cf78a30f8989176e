#ifndef WEIR_CODEC_KAFKA_BATCH_H
#define WEIR_CODEC_KAFKA_BATCH_H

/*
 * Record batches (magic 2), the form in which Kafka producers send records and in which they are
 * stored and served. A batch is a header of 61 bytes and its records, compressed or not. Its
 * CRC32C covers everything from the attributes on, so that the broker sets base offset and leader
 * epoch, which lie before, without touching it.
 */

#include "base/arena.h"
#include "base/slice.h"
#include "codec/reader.h"
#include "codec/writer.h"
#include "gen/kafka_error.h"

enum {
    KAFKA_BATCH_HEADER_BYTES = 61,
    KAFKA_BATCH_PREFIX_BYTES = 12, /* base offset and length: what `length` does not count */
};

enum kafka_compression {
    KAFKA_COMPRESSION_NONE,
    KAFKA_COMPRESSION_GZIP,
    KAFKA_COMPRESSION_SNAPPY,
    KAFKA_COMPRESSION_LZ4,
    KAFKA_COMPRESSION_ZSTD,
    KAFKA_COMPRESSION_MASK = 7,
};

enum kafka_batch_flag {
    KAFKA_BATCH_LOG_APPEND_TIME = 1 << 3, /* max_timestamp_ms is that of every record */
    KAFKA_BATCH_TRANSACTIONAL = 1 << 4,
    KAFKA_BATCH_CONTROL = 1 << 5,
    KAFKA_BATCH_DELETE_HORIZON = 1 << 6,
};

struct kafka_batch {
    struct slice bytes;   /* all of it */
    struct slice records; /* behind the header, maybe compressed */
    int64_t base_offset;
    int32_t leader_epoch;
    uint32_t crc;
    int16_t attributes; /* compression and flags */
    int32_t last_offset_delta;
    int64_t base_timestamp_ms;
    int64_t max_timestamp_ms;
    int64_t producer_id; /* -1: none */
    int16_t producer_epoch;
    int32_t base_sequence;
    int32_t records_count;
};

/*
 * The next batch of a run of batches, borrowed from it. False at the end of the run or, with
 * reader->failed set, when what follows is not a whole batch of magic 2. Checks no CRC.
 */
__attribute__((warn_unused_result)) bool kafka_batch_next(struct reader *reader,
                                                          struct kafka_batch *out);

/* Whether the CRC is right. */
bool kafka_batch_intact(const struct kafka_batch *batch);

/*
 * What a Produce request brings for one partition: exactly one batch that a client may send. The
 * error is what the response says; `out` is filled only when it is NONE. It does not look at the
 * records themselves.
 */
__attribute__((warn_unused_result)) enum kafka_error
kafka_batch_accept(struct slice records, int16_t produce_version, struct kafka_batch *out);

/* Sets, in the bytes of a batch, where it has been put. The CRC stays right. */
void kafka_batch_place(uint8_t *batch, int64_t base_offset, int32_t leader_epoch);

/* Gives every record of the batch (of len bytes) the time at which it was appended; sets the CRC.
 */
void kafka_batch_stamp(uint8_t *batch, size_t len, int64_t timestamp_ms);

struct kafka_record {
    int64_t offset;
    int64_t timestamp_ms;
    struct slice key;     /* may be null */
    struct slice value;   /* may be null */
    struct slice headers; /* encoded; see kafka_headers_next */
    int32_t headers_count;
};

/* A walk over the records of a batch. */
struct kafka_records {
    struct reader reader;
    int32_t left;
    bool append_time;
    int64_t base_offset;
    int64_t timestamp_ms; /* base, or that of all */
};

/* `plain` is batch->records, or what kafka_inflate makes of them; it must outlive the walk. */
void kafka_records_init(struct kafka_records *records, const struct kafka_batch *batch,
                        struct slice plain);

/* False after the last record and, with records->reader.failed set, when the bytes are malformed or
 * not exactly as many records as the batch says. Everything in `out` borrows from `plain`. */
__attribute__((warn_unused_result)) bool kafka_records_next(struct kafka_records *records,
                                                            struct kafka_record *out);

struct kafka_record_header {
    struct slice key;
    struct slice value; /* may be null */
};

struct kafka_headers {
    struct reader reader;
    int32_t left;
};

void kafka_headers_init(struct kafka_headers *headers, const struct kafka_record *record);

/* False after the last header and, with headers->reader.failed set, when malformed. */
__attribute__((warn_unused_result)) bool kafka_headers_next(struct kafka_headers *headers,
                                                            struct kafka_record_header *out);

/* Builds an uncompressed batch, without a producer id, in memory that the caller provides. */
struct kafka_batch_builder {
    struct writer writer;
    uint8_t *batch;
    int64_t base_timestamp_ms, max_timestamp_ms;
    int32_t records_count;
};

/* Memory that surely suffices for one record; that of a batch is the sum over its records plus
 * KAFKA_BATCH_HEADER_BYTES. */
size_t kafka_record_bytes_max(struct slice key, struct slice value,
                              const struct kafka_record_header *headers, size_t headers_count);

/* `size` is at least KAFKA_BATCH_HEADER_BYTES. */
void kafka_batch_begin(struct kafka_batch_builder *builder, void *memory, size_t size);

/* False, and nothing is added, when it does not fit. */
__attribute__((warn_unused_result)) bool kafka_batch_add(struct kafka_batch_builder *builder,
                                                         int64_t timestamp_ms, struct slice key,
                                                         struct slice value,
                                                         const struct kafka_record_header *headers,
                                                         size_t headers_count);

/* The finished batch at base offset 0, in the builder's memory. It must hold a record. */
struct slice kafka_batch_end(struct kafka_batch_builder *builder);

#endif
