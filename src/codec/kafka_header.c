/*
 * Requests have header version 2 (with tags) when their message is flexible, otherwise 1. Responses
 * have 1 (with tags) or 0; that of ApiVersions is always 0, because the client does not know yet
 * what the broker speaks.
 */

#include "codec/kafka_header.h"

#include "gen/kafka_api.h"

static bool is_flexible(int16_t key, int16_t version)
{
    const struct kafka_api *api = kafka_api_find(key);
    return api && version >= api->flexible_since;
}

static bool response_has_tags(int16_t key, int16_t version)
{
    return key != KAFKA_API_VERSIONS && is_flexible(key, version);
}

bool kafka_request_header_decode(struct reader *reader, struct kafka_request_header *out)
{
    struct kafka_request_header header;
    header.api_key = reader_i16(reader);
    header.api_version = reader_i16(reader);
    header.correlation_id = reader_i32(reader);
    int16_t length = reader_i16(reader);
    if (length < -1)
        reader_fail(reader);
    header.client_id = length < 0 ? (struct slice){0} : reader_slice(reader, (size_t)length);
    if (is_flexible(header.api_key, header.api_version))
        kafka_tags_skip(reader);
    if (reader->failed)
        return false;
    *out = header;
    return true;
}

void kafka_request_header_encode(struct writer *writer, const struct kafka_request_header *in)
{
    writer_i16(writer, in->api_key);
    writer_i16(writer, in->api_version);
    writer_i32(writer, in->correlation_id);
    if (in->client_id.len > INT16_MAX)
        writer_fail(writer);
    writer_i16(writer, in->client_id.data ? (int16_t)in->client_id.len : -1);
    writer_slice(writer, in->client_id);
    if (is_flexible(in->api_key, in->api_version))
        writer_u8(writer, 0);
}

size_t kafka_response_header_size(int16_t api_key, int16_t api_version)
{
    return response_has_tags(api_key, api_version) ? 5 : 4;
}

void kafka_response_header_encode(struct writer *writer, int16_t api_key, int16_t api_version,
                                  int32_t correlation_id)
{
    writer_i32(writer, correlation_id);
    if (response_has_tags(api_key, api_version))
        writer_u8(writer, 0);
}

bool kafka_response_header_decode(struct reader *reader, int16_t api_key, int16_t api_version,
                                  int32_t *correlation_id)
{
    int32_t id = reader_i32(reader);
    if (response_has_tags(api_key, api_version))
        kafka_tags_skip(reader);
    if (reader->failed)
        return false;
    *correlation_id = id;
    return true;
}
