/* Headers of requests and responses, in the versions that the message calls for. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "codec/kafka_header.h"
#include "gen/kafka_api.h"

static void request_headers_survive(void **state)
{
    (void)state;
    static const struct kafka_request_header headers[] = {
        {KAFKA_FETCH, 11, 7, {NULL, 0}},
        {KAFKA_FETCH, 12, -7, {(const uint8_t *)"", 0}},
        {KAFKA_API_VERSIONS, 4, 1, {(const uint8_t *)"me", 2}},
        {999, 1, 2, {NULL, 0}},
    };
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        uint8_t bytes[64];
        struct writer writer = writer_over(bytes, sizeof bytes);
        kafka_request_header_encode(&writer, &headers[i]);
        size_t len = (size_t)(writer.at - bytes);
        struct reader reader = reader_over(slice_make(bytes, len));
        struct kafka_request_header header;
        assert_true(kafka_request_header_decode(&reader, &header));
        assert_int_equal(reader_left(&reader), 0);
        assert_int_equal(header.api_key, headers[i].api_key);
        assert_int_equal(header.api_version, headers[i].api_version);
        assert_int_equal(header.correlation_id, headers[i].correlation_id);
        assert_int_equal(header.client_id.data == NULL, headers[i].client_id.data == NULL);
        assert_true(slice_equal(header.client_id, headers[i].client_id));
        for (size_t cut = 0; cut < len; cut++) {
            reader = reader_over(slice_make(bytes, cut));
            assert_false(kafka_request_header_decode(&reader, &header));
        }
    }
}

static void a_version_of_the_future_still_has_a_readable_header(void **state)
{
    (void)state;
    const uint8_t bytes[] = {0, 18, 0, 99, 0, 0, 0, 5, 0, 1, 'c', 0};
    struct reader reader = reader_over(slice_make(bytes, sizeof bytes));
    struct kafka_request_header header;
    assert_true(kafka_request_header_decode(&reader, &header));
    assert_int_equal(header.api_version, 99);
    assert_int_equal(header.correlation_id, 5);
}

static void a_client_id_of_negative_length_is_refused(void **state)
{
    (void)state;
    const uint8_t bytes[] = {0, 1, 0, 4, 0, 0, 0, 5, 0xff, 0xfe};
    struct reader reader = reader_over(slice_make(bytes, sizeof bytes));
    struct kafka_request_header header;
    assert_false(kafka_request_header_decode(&reader, &header));
}

static void response_headers_have_tags_when_flexible_but_for_api_versions(void **state)
{
    (void)state;
    static const struct {
        int16_t key, version;
        size_t size;
    } cases[] = {{KAFKA_FETCH, 11, 4},         {KAFKA_FETCH, 12, 5},
                 {KAFKA_METADATA, 8, 4},       {KAFKA_METADATA, 9, 5},
                 {KAFKA_API_VERSIONS, 0, 4},   {KAFKA_API_VERSIONS, 4, 4},
                 {KAFKA_SASL_HANDSHAKE, 1, 4}, {KAFKA_OFFSET_DELETE, 0, 4}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t bytes[KAFKA_RESPONSE_HEADER_BYTES_MAX];
        struct writer writer = writer_over(bytes, sizeof bytes);
        kafka_response_header_encode(&writer, cases[i].key, cases[i].version, 0x01020304);
        assert_int_equal(writer.at - bytes, cases[i].size);
        assert_int_equal(kafka_response_header_size(cases[i].key, cases[i].version), cases[i].size);
        struct reader reader = reader_over(slice_make(bytes, cases[i].size));
        int32_t id;
        assert_true(kafka_response_header_decode(&reader, cases[i].key, cases[i].version, &id));
        assert_int_equal(id, 0x01020304);
        assert_int_equal(reader_left(&reader), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(request_headers_survive),
        cmocka_unit_test(a_version_of_the_future_still_has_a_readable_header),
        cmocka_unit_test(a_client_id_of_negative_length_is_refused),
        cmocka_unit_test(response_headers_have_tags_when_flexible_but_for_api_versions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
