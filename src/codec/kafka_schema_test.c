/*
 * Every API in every version, against bytes that Apache Kafka's own client wrote.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "gen/kafka_api.h"

struct vector {
    int16_t key;
    bool request;
    int16_t version;
    const char *hex;
};

static const struct vector vectors[] = {
#include "gen/kafka_vectors.inc"
};

enum { VECTORS_COUNT = sizeof vectors / sizeof vectors[0] };

union any_message {
    max_align_t align;
    uint8_t bytes[512];
};

static const struct kafka_message *message_of(const struct vector *vector)
{
    const struct kafka_api *api = kafka_api_find(vector->key);
    assert_non_null(api);
    const struct kafka_message *message = vector->request ? &api->request : &api->response;
    assert_true(message->schema->size <= sizeof(union any_message));
    return message;
}

/* An allocation of exactly the size, so that the sanitizer sees a read behind it. */
static uint8_t *vector_bytes(const struct vector *vector, size_t *len)
{
    *len = strlen(vector->hex) / 2;
    uint8_t *bytes = malloc(*len + 1);
    assert_non_null(bytes);
    for (size_t i = 0; i < *len; i++) {
        char digits[3] = {vector->hex[2 * i], vector->hex[2 * i + 1]};
        bytes[i] = (uint8_t)strtoul(digits, NULL, 16);
    }
    uint8_t *exact = malloc(*len ? *len : 1);
    assert_non_null(exact);
    memcpy(exact, bytes, *len);
    free(bytes);
    return exact;
}

static bool decode(const struct vector *vector, const uint8_t *bytes, size_t len,
                   struct arena *arena, union any_message *out, size_t *left)
{
    struct reader reader = reader_over(slice_make(bytes, len));
    bool ok = kafka_message_decode(&reader, message_of(vector), vector->version, arena, out);
    *left = reader_left(&reader);
    return ok;
}

static void every_message_survives_decode_and_encode(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 4096, 1 << 20);
    for (int i = 0; i < VECTORS_COUNT; i++) {
        const struct vector *vector = &vectors[i];
        const struct kafka_message *message = message_of(vector);
        size_t len, left;
        uint8_t *bytes = vector_bytes(vector, &len);
        union any_message any;
        if (!decode(vector, bytes, len, &arena, &any, &left) || left)
            fail_msg("%d of version %d: cannot be decoded", vector->key, vector->version);
        uint8_t again[2048];
        struct writer writer = writer_over(again, sizeof again);
        kafka_message_encode(&writer, message, vector->version, &any);
        assert_false(writer.failed);
        assert_int_equal(writer.at - again, len);
        assert_memory_equal(again, bytes, len);
        assert_int_equal(kafka_message_size(message, vector->version, &any), len);
        arena_reset(&arena);
        free(bytes);
    }
    arena_done(&arena);
}

static void a_cut_message_fails_at_every_byte(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 4096, 1 << 20);
    for (int i = 0; i < VECTORS_COUNT; i++) {
        size_t len, left;
        uint8_t *bytes = vector_bytes(&vectors[i], &len);
        for (size_t cut = 0; cut < len; cut++) {
            uint8_t *part = malloc(cut ? cut : 1);
            assert_non_null(part);
            memcpy(part, bytes, cut);
            union any_message any;
            assert_false(decode(&vectors[i], part, cut, &arena, &any, &left));
            arena_reset(&arena);
            free(part);
        }
        free(bytes);
    }
    arena_done(&arena);
}

static void too_little_room_fails_and_stays_inside(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 4096, 1 << 20);
    for (int i = 0; i < VECTORS_COUNT; i++) {
        size_t len, left;
        uint8_t *bytes = vector_bytes(&vectors[i], &len);
        union any_message any;
        assert_true(decode(&vectors[i], bytes, len, &arena, &any, &left));
        for (size_t room = 0; room < len; room++) {
            uint8_t *again = malloc(room ? room : 1);
            assert_non_null(again);
            struct writer writer = writer_over(again, room);
            kafka_message_encode(&writer, message_of(&vectors[i]), vectors[i].version, &any);
            assert_true(writer.failed);
            free(again);
        }
        arena_reset(&arena);
        free(bytes);
    }
    arena_done(&arena);
}

static void a_version_outside_the_table_is_refused(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 4096, 4096);
    struct reader reader = {0};
    struct kafka_fetch_request fetch;
    assert_false(kafka_decode_fetch_request(&reader, 3, &arena, &fetch));
    assert_false(kafka_decode_fetch_request(&reader, 18, &arena, &fetch));
    assert_false(kafka_decode_fetch_request(&reader, -1, &arena, &fetch));
}

static void keys_that_are_not_in_the_table_are_not_found(void **state)
{
    (void)state;
    assert_null(kafka_api_find(-1));
    assert_null(kafka_api_find(4));
    assert_null(kafka_api_find(61));
    assert_null(kafka_api_find(INT16_MAX));
    for (int i = 0; i < KAFKA_APIS_COUNT; i++)
        assert_ptr_equal(kafka_api_find(kafka_apis[i].key), &kafka_apis[i]);
}

static void hostile_counts_cost_no_memory(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 4096, 8192);
    struct kafka_metadata_request metadata;
    const uint8_t more_than_left[] = {0x7f, 0xff, 0xff, 0xff, 0, 1, 'a'};
    struct reader reader = reader_over(slice_make(more_than_left, sizeof more_than_left));
    assert_false(kafka_decode_metadata_request(&reader, 1, &arena, &metadata));
    assert_int_equal(arena.held_bytes, 0);

    static uint8_t within_the_bytes[20000] = {0, 0, 0x20, 0}; /* 8192 empty names */
    reader = reader_over(slice_make(within_the_bytes, sizeof within_the_bytes));
    assert_false(kafka_decode_metadata_request(&reader, 1, &arena, &metadata));
    assert_true(arena.held_bytes <= 8192);
    arena_done(&arena);
}

static void null_is_refused_where_the_version_has_none(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 4096, 4096);
    const uint8_t null_array[] = {0xff, 0xff, 0xff, 0xff, 1, 0, 0};
    struct kafka_metadata_request metadata;
    struct reader reader = reader_over(slice_make(null_array, sizeof null_array));
    assert_false(kafka_decode_metadata_request(&reader, 0, &arena, &metadata));
    reader = reader_over(slice_make(null_array, sizeof null_array));
    assert_true(kafka_decode_metadata_request(&reader, 1, &arena, &metadata));
    assert_int_equal(metadata.topics_count, -1);
    assert_true(metadata.allow_auto_topic_creation);
    arena_done(&arena);
}

static void unknown_tags_are_read_past_and_bad_ones_refused(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 4096, 4096);
    struct kafka_api_versions_request request;
    static const struct {
        uint8_t bytes[12];
        size_t len;
        bool ok;
    } cases[] = {
        {{2, 'a', 2, 'b', 0}, 5, true},
        {{2, 'a', 2, 'b', 1, 9, 2, 'x', 'y'}, 9, true},
        {{2, 'a', 2, 'b', 2, 3, 0, 9, 1, 'y'}, 10, true},
        {{2, 'a', 2, 'b', 2, 9, 0, 9, 1, 'y'}, 10, false}, /* twice */
        {{2, 'a', 2, 'b', 2, 9, 0, 3, 1, 'y'}, 10, false}, /* not in order */
        {{2, 'a', 2, 'b', 1, 9, 5, 'x', 'y'}, 9, false},   /* longer than the message */
        {{2, 'a', 2, 'b', 0xff, 0xff, 0xff, 0xff, 0x0f}, 9, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct reader reader = reader_over(slice_make(cases[i].bytes, cases[i].len));
        assert_int_equal(kafka_decode_api_versions_request(&reader, 3, &arena, &request),
                         cases[i].ok);
    }
    arena_done(&arena);
}

static void a_tagged_value_must_fill_its_length(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 4096, 4096);
    struct kafka_api_versions_response response;
    /* error, no keys, throttle time, one tag: 1 = finalized_features_epoch */
    uint8_t bytes[] = {0, 0, 1, 0, 0, 0, 0, 1, 1, 8, 0, 0, 0, 0, 0, 0, 0, 7, 0};
    struct reader reader = reader_over(slice_make(bytes, sizeof bytes - 1));
    assert_true(kafka_decode_api_versions_response(&reader, 3, &arena, &response));
    assert_int_equal(response.finalized_features_epoch, 7);
    bytes[9] = 9;
    reader = reader_over(slice_make(bytes, sizeof bytes));
    assert_false(kafka_decode_api_versions_response(&reader, 3, &arena, &response));
    bytes[9] = 7;
    reader = reader_over(slice_make(bytes, sizeof bytes - 2));
    assert_false(kafka_decode_api_versions_response(&reader, 3, &arena, &response));
    arena_done(&arena);
}

static void a_default_response_has_no_tags(void **state)
{
    (void)state;
    struct kafka_fetch_response_partition partition = kafka_fetch_response_partition_default;
    struct kafka_fetch_response_topic topic = {.partitions = &partition, .partitions_count = 1};
    struct kafka_fetch_response response = kafka_fetch_response_default;
    response.topics = &topic;
    response.topics_count = 1;
    uint8_t bytes[256];
    struct writer writer = writer_over(bytes, sizeof bytes);
    kafka_encode_fetch_response(&writer, 17, &response);
    assert_false(writer.failed);
    assert_int_equal(writer.at - bytes, kafka_size_fetch_response(17, &response));
    /* throttle, error, session, 1 topic, id, 1 partition: index, error, three offsets, aborted,
     * replica, records, and no tags three times */
    assert_int_equal(writer.at - bytes, 4 + 2 + 4 + 1 + 16 + 1 + 4 + 2 + 24 + 1 + 4 + 1 + 3);
    assert_int_equal(partition.diverging_epoch.end_offset, -1);
}

static void fields_are_where_kafka_puts_them(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 4096, 4096);
    /* Produce 7: no transaction, acks -1, 30 s, topic "t", partition 5, four bytes of records */
    const uint8_t produce_bytes[] = {0xff, 0xff, 0xff, 0xff, 0, 0,   0x75, 0x30, 0,  0, 0,
                                     1,    0,    1,    't',  0, 0,   0,    1,    0,  0, 0,
                                     5,    0,    0,    0,    4, 'a', 'b',  'c',  'd'};
    struct reader reader = reader_over(slice_make(produce_bytes, sizeof produce_bytes));
    struct kafka_produce_request produce;
    assert_true(kafka_decode_produce_request(&reader, 7, &arena, &produce));
    assert_null(produce.transactional_id.data);
    assert_int_equal(produce.acks, -1);
    assert_int_equal(produce.timeout_ms, 30000);
    assert_int_equal(produce.topics_count, 1);
    assert_true(slice_equal(produce.topics[0].name, slice_of("t")));
    assert_int_equal(produce.topics[0].partitions[0].partition_index, 5);
    struct slice records = produce.topics[0].partitions[0].records;
    assert_ptr_equal(records.data, produce_bytes + sizeof produce_bytes - 4); /* borrowed */
    assert_int_equal(records.len, 4);
    arena_done(&arena);
}

struct cuts {
    uint8_t out[256];
    size_t len;
    const uint8_t *done; /* of the writer's memory */
};

static void cut_here(void *context, const uint8_t *at, struct slice payload)
{
    struct cuts *cuts = context;
    size_t before = (size_t)(at - cuts->done);
    memcpy(cuts->out + cuts->len, cuts->done, before);
    memcpy(cuts->out + cuts->len + before, payload.data, payload.len);
    cuts->len += before + payload.len;
    cuts->done = at;
}

static void records_can_be_left_out_and_sent_in_place(void **state)
{
    (void)state;
    struct kafka_fetch_response_partition partitions[3];
    for (int i = 0; i < 3; i++) {
        partitions[i] = kafka_fetch_response_partition_default;
        partitions[i].partition_index = i;
        partitions[i].records = slice_of(i == 1 ? "" : "some records");
    }
    struct kafka_fetch_response_topic topic = {
        .name = slice_of("t"), .partitions = partitions, .partitions_count = 3};
    struct kafka_fetch_response response = kafka_fetch_response_default;
    response.topics = &topic;
    response.topics_count = 1;
    for (int16_t version = 4; version <= 17; version++) {
        uint8_t whole[256], pieces[256];
        struct writer writer = writer_over(whole, sizeof whole);
        kafka_encode_fetch_response(&writer, version, &response);
        size_t size = (size_t)(writer.at - whole);

        struct cuts cuts = {.done = pieces};
        writer = writer_over(pieces, sizeof pieces);
        writer.leave_out = cut_here;
        writer.context = &cuts;
        kafka_encode_fetch_response(&writer, version, &response);
        assert_false(writer.failed);
        cut_here(&cuts, writer.at, (struct slice){.data = whole});
        assert_int_equal(cuts.len, size);
        assert_memory_equal(cuts.out, whole, size);
        assert_int_equal(writer.at - pieces, size - 2 * strlen("some records"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_survives_decode_and_encode),
        cmocka_unit_test(a_cut_message_fails_at_every_byte),
        cmocka_unit_test(too_little_room_fails_and_stays_inside),
        cmocka_unit_test(a_version_outside_the_table_is_refused),
        cmocka_unit_test(keys_that_are_not_in_the_table_are_not_found),
        cmocka_unit_test(hostile_counts_cost_no_memory),
        cmocka_unit_test(null_is_refused_where_the_version_has_none),
        cmocka_unit_test(unknown_tags_are_read_past_and_bad_ones_refused),
        cmocka_unit_test(a_tagged_value_must_fill_its_length),
        cmocka_unit_test(a_default_response_has_no_tags),
        cmocka_unit_test(fields_are_where_kafka_puts_them),
        cmocka_unit_test(records_can_be_left_out_and_sent_in_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
