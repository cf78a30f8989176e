/*
 * Kafka messages: the first byte chooses the API, the second direction and version, the rest is the
 * message. What can be decoded must encode to its stated size and mean the same again.
 */

#include <stdint.h>
#include <stdlib.h>

#include "codec/kafka_header.h"
#include "gen/kafka_api.h"

union any_message {
    max_align_t align;
    uint8_t bytes[512];
};

enum { ARENA_BYTES = 8 << 20 };

static void check(bool truth)
{
    if (!truth)
        abort();
}

static uint8_t *encoded(const struct kafka_message *message, int16_t version,
                        const union any_message *any, size_t *size)
{
    *size = kafka_message_size(message, version, any);
    uint8_t *bytes = malloc(*size ? *size : 1);
    check(bytes);
    struct writer writer = writer_over(bytes, *size);
    kafka_message_encode(&writer, message, version, any);
    check(!writer.failed && writer_left(&writer) == 0);
    return bytes;
}

static void header_read(struct slice bytes)
{
    struct reader reader = reader_over(bytes);
    struct kafka_request_header header;
    if (kafka_request_header_decode(&reader, &header))
        check(header.client_id.len <= bytes.len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    header_read(slice_make(data, size));
    if (size < 2)
        return 0;
    const struct kafka_api *api = &kafka_apis[data[0] % KAFKA_APIS_COUNT];
    const struct kafka_message *message = data[1] & 1 ? &api->request : &api->response;
    int16_t version = data[1] >> 1;
    check(message->schema->size <= sizeof(union any_message));

    struct arena arena;
    arena_init(&arena, 4096, ARENA_BYTES);
    struct reader reader = reader_over(slice_make(data + 2, size - 2));
    union any_message first, second;
    if (kafka_message_decode(&reader, message, version, &arena, &first)) {
        size_t first_size, second_size;
        uint8_t *first_bytes = encoded(message, version, &first, &first_size);
        reader = reader_over(slice_make(first_bytes, first_size));
        check(kafka_message_decode(&reader, message, version, &arena, &second));
        check(reader_left(&reader) == 0);
        uint8_t *second_bytes = encoded(message, version, &second, &second_size);
        check(first_size == second_size && memcmp(first_bytes, second_bytes, first_size) == 0);
        free(first_bytes);
        free(second_bytes);
    }
    arena_done(&arena);
    return 0;
}
