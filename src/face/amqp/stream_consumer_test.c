/* Topics consumed over AMQP, and replies that find their way back. */
#include "face/amqp/test_client.h"

#include "codec/entry.h"
#include "codec/kafka_batch.h"

static void stream_declared(struct conn *conn, const char *name)
{
    static const uint8_t arguments[] = "\14x-queue-typeS\0\0\0\6stream";
    SEND(conn, 1, amqp_queue_declare, .queue = slice_of(name), .durable = true,
         .arguments = slice_make(arguments, sizeof arguments - 1));
    expect(conn, 1, AMQP_QUEUE_DECLARE_OK);
}

static int setup(void **state)
{
    struct conn *conn = connected(131072);
    channel_opened(conn, 1);
    stream_declared(conn, "s");
    *state = conn;
    return 0;
}

static int teardown(void **state)
{
    fake_close(*state);
    return 0;
}

static void prefetch(struct conn *conn, uint16_t count)
{
    SEND(conn, 1, amqp_basic_qos, .prefetch_count = count);
    expect(conn, 1, AMQP_BASIC_QOS_OK);
}

static void stream_consumed(struct conn *conn, struct amqp_field start)
{
    uint8_t table[64];
    struct writer writer = writer_over(table, sizeof table);
    amqp_field_write(&writer, &start);
    SEND(conn, 1, amqp_basic_consume, .queue = slice_of("s"), .consumer_tag = slice_of("tag"),
         .arguments = slice_make(table, (size_t)(writer.at - table)));
    expect(conn, 1, AMQP_BASIC_CONSUME_OK);
}

/* The next delivery: its body must be that; its tag is returned, its offset must be that. */
static uint64_t at_offset(struct conn *conn, const char *body, int64_t offset)
{
    struct amqp_basic_deliver m;
    struct amqp_properties properties;
    struct amqp_field field;
    EXPECT(conn, 1, amqp_basic_deliver, AMQP_BASIC_DELIVER, &m);
    uint64_t tag = m.delivery_tag;
    assert_true(slice_equal(expect_content(conn, 1, &properties), slice_of(body)));
    assert_true(amqp_table_find(properties.headers, "x-stream-offset", &field));
    assert_true(field.number == offset);
    return tag;
}

/* Appends a record batch of values "r0", "r1", ... with keys "k". */
static void records_appended(struct conn *conn, int count)
{
    static const char *const values[] = {"r0", "r1", "r2", "r3", "r4", "r5"};
    enum { ROOM = 4096 };
    uint8_t memory[ROOM];
    struct kafka_batch_builder builder;
    kafka_batch_begin(&builder, memory, ROOM);
    for (int i = 0; i < count; i++)
        assert_true(
            kafka_batch_add(&builder, 1000 + i, slice_of("k"), slice_of(values[i]), NULL, 0));
    struct slice batch = kafka_batch_end(&builder);
    struct buf *buf = buf_create(ENTRY_HEAD_BYTES + batch.len, 0, NULL);
    assert_non_null(buf);
    entry_head_put(buf->data, &(struct entry_head){.timestamp_ms = 1000, .form = ENTRY_KAFKA});
    memcpy(buf->data + ENTRY_HEAD_BYTES, batch.data, batch.len);
    const struct topic *topic = catalog_topic(conn->catalog, 0, slice_of("s"));
    assert_non_null(topic);
    fake_partition_add(conn, topic->partitions[0], buf, (uint32_t)count);
    fake_run(conn);
}

static void a_stream_is_read_from_its_beginning_and_stays(void **state)
{
    struct conn *conn = *state;
    publish(conn, 1, "", "s", "a");
    publish(conn, 1, "", "s", "b");
    prefetch(conn, 10);
    stream_consumed(conn, amqp_text("x-stream-offset", slice_of("first")));
    at_offset(conn, "a", 0);
    assert_int_equal(at_offset(conn, "b", 1), 2);
    SEND(conn, 1, amqp_basic_ack, .delivery_tag = 2, .multiple = true);
    publish(conn, 1, "", "s", "c");
    at_offset(conn, "c", 2);
    SEND(conn, 1, amqp_basic_cancel, .consumer_tag = slice_of("tag"));
    expect(conn, 1, AMQP_BASIC_CANCEL_OK);
    stream_consumed(conn, amqp_text("x-stream-offset", slice_of("first")));
    at_offset(conn, "a", 0);
}

static void it_begins_where_it_is_told_to(void **state)
{
    struct conn *conn = *state;
    publish(conn, 1, "", "s", "a");
    publish(conn, 1, "", "s", "b");
    publish(conn, 1, "", "s", "c");
    prefetch(conn, 1);
    stream_consumed(conn, amqp_long("x-stream-offset", 1));
    at_offset(conn, "b", 1);
    SEND(conn, 1, amqp_basic_cancel, .consumer_tag = slice_of("tag"));
    expect(conn, 1, AMQP_BASIC_CANCEL_OK);
    stream_consumed(conn, amqp_text("x-stream-offset", slice_of("last")));
    at_offset(conn, "c", 2);
    SEND(conn, 1, amqp_basic_cancel, .consumer_tag = slice_of("tag"));
    expect(conn, 1, AMQP_BASIC_CANCEL_OK);
    stream_consumed(conn, amqp_text("x-stream-offset", slice_of("next")));
    expect_silence(conn);
    publish(conn, 1, "", "s", "d");
    at_offset(conn, "d", 3);
}

static void acknowledging_gives_credit_in_the_middle_of_a_batch(void **state)
{
    struct conn *conn = *state;
    records_appended(conn, 5);
    prefetch(conn, 2);
    stream_consumed(conn, amqp_text("x-stream-offset", slice_of("first")));
    at_offset(conn, "r0", 0);
    uint64_t tag = at_offset(conn, "r1", 1);
    expect_silence(conn);
    SEND(conn, 1, amqp_basic_ack, .delivery_tag = tag, .multiple = true);
    at_offset(conn, "r2", 2);
    tag = at_offset(conn, "r3", 3);
    expect_silence(conn);
    SEND(conn, 1, amqp_basic_ack, .delivery_tag = 0, .multiple = true);
    at_offset(conn, "r4", 4);
    records_appended(conn, 1);
    at_offset(conn, "r0", 5);
}

static void a_batch_is_entered_at_the_offset_asked_for(void **state)
{
    struct conn *conn = *state;
    records_appended(conn, 6);
    prefetch(conn, 10);
    stream_consumed(conn, amqp_long("x-stream-offset", 4));
    at_offset(conn, "r4", 4);
    at_offset(conn, "r5", 5);
    expect_silence(conn);
}

static void a_stream_wants_acknowledgements_and_a_prefetch(void **state)
{
    struct conn *conn = *state;
    SEND(conn, 1, amqp_basic_consume, .queue = slice_of("s"));
    expect_channel_close(
        conn, 1, 406,
        "PRECONDITION_FAILED - consumer prefetch count is not set for stream queue "
        "'s' in vhost '/'");
    SEND(conn, 1, amqp_channel_close_ok, 0);
    channel_opened(conn, 1);
    SEND(conn, 1, amqp_basic_consume, .queue = slice_of("s"), .no_ack = true);
    expect_connection_close(conn, 540);
}

static void a_reply_comes_back_to_the_channel_that_asked(void **state)
{
    struct conn *conn = *state;
    declared(conn, 1, "requests");
    SEND(conn, 1, amqp_basic_consume, .queue = slice_of("amq.rabbitmq.reply-to"),
         .consumer_tag = slice_of("tag"), .no_ack = true);
    expect(conn, 1, AMQP_BASIC_CONSUME_OK);
    struct amqp_properties properties = {.flags = AMQP_REPLY_TO,
                                         .reply_to = slice_of("amq.rabbitmq.reply-to")};
    publish_with(conn, 1, "requests", &properties, false);
    SEND(conn, 1, amqp_basic_get, .queue = slice_of("requests"), .no_ack = true);
    expect(conn, 1, AMQP_BASIC_GET_OK);
    expect_content(conn, 1, &properties);
    assert_memory_equal(properties.reply_to.data, "amq.rabbitmq.reply-to.", 22);
    char address[64] = {0};
    memcpy(address, properties.reply_to.data, properties.reply_to.len);
    publish(conn, 1, "", address, "answer");
    delivered(conn, 1, "answer");
}

static void asking_without_a_consumer_of_replies_is_refused(void **state)
{
    struct conn *conn = *state;
    struct amqp_properties properties = {.flags = AMQP_REPLY_TO,
                                         .reply_to = slice_of("amq.rabbitmq.reply-to")};
    publish_with(conn, 1, "s", &properties, false);
    expect_channel_close(conn, 1, 406, "PRECONDITION_FAILED - fast reply consumer does not exist");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_stream_is_read_from_its_beginning_and_stays),
        TEST(it_begins_where_it_is_told_to),
        TEST(acknowledging_gives_credit_in_the_middle_of_a_batch),
        TEST(a_batch_is_entered_at_the_offset_asked_for),
        TEST(a_stream_wants_acknowledgements_and_a_prefetch),
        TEST(a_reply_comes_back_to_the_channel_that_asked),
        TEST(asking_without_a_consumer_of_replies_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
