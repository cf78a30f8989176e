/* A client for tests of the AMQP face: sends frames to a fake connection and takes apart what comes
 * back. To be included by one source file of a program. */
#ifndef WEIR_FACE_AMQP_TEST_CLIENT_H
#define WEIR_FACE_AMQP_TEST_CLIENT_H

#include "codec/amqp_field.h"
#include "codec/amqp_wire.h"
#include "face/amqp/fake_conn.h"
#include "gen/amqp_method.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static inline void put(struct conn *conn, const uint8_t *frame, size_t size)
{
    fake_input(conn, frame, size);
}

/* Encodes and sends: SEND(conn, channel, amqp_queue_declare, .queue = ...). */
#define SEND(conn, channel, name, ...)                                                             \
    do {                                                                                           \
        const struct name sent_ = {__VA_ARGS__};                                                   \
        uint8_t frame_[1024];                                                                      \
        put(conn, frame_, name##_frame(frame_, channel, &sent_));                                  \
    } while (0)

/* The next frame of the output that is not a heartbeat. */
static inline struct slice frame_next(struct conn *conn, uint8_t *type, uint16_t *channel)
{
    static uint8_t taken[1 << 18];
    for (;;) {
        assert_true(conn->output_len >= AMQP_FRAME_OVERHEAD_BYTES);
        size_t size = be32_get(conn->output + 3), whole = size + AMQP_FRAME_OVERHEAD_BYTES;
        assert_true(conn->output_len >= whole && whole <= sizeof taken);
        memcpy(taken, conn->output, whole);
        memmove(conn->output, conn->output + whole, conn->output_len - whole);
        conn->output_len -= whole;
        assert_int_equal(taken[whole - 1], AMQP_FRAME_END);
        *type = taken[0];
        *channel = be16_get(taken + 1);
        if (*type != AMQP_FRAME_HEARTBEAT)
            return slice_make(taken + AMQP_FRAME_HEAD_BYTES, size);
    }
}

static inline struct slice expect(struct conn *conn, uint16_t channel, uint32_t method)
{
    uint8_t type;
    uint16_t number;
    struct slice payload = frame_next(conn, &type, &number);
    assert_int_equal(type, AMQP_FRAME_METHOD);
    const char *got = amqp_method_name(be32_get(payload.data));
    assert_non_null(got);
    assert_string_equal(got, amqp_method_name(method));
    assert_int_equal(number, channel);
    return slice_make(payload.data + 4, payload.len - 4);
}

#define EXPECT(conn, channel, name, id, out)                                                       \
    do {                                                                                           \
        assert_true(name##_read(expect(conn, channel, id), out));                                  \
    } while (0)

static inline void expect_silence(struct conn *conn)
{
    assert_int_equal(conn->output_len, 0);
}

static inline void expect_channel_close(struct conn *conn, uint16_t channel, uint16_t code,
                                        const char *text)
{
    struct amqp_channel_close m;
    EXPECT(conn, channel, amqp_channel_close, AMQP_CHANNEL_CLOSE, &m);
    char got[256];
    (void)snprintf(got, sizeof got, "%.*s", (int)m.reply_text.len, (const char *)m.reply_text.data);
    assert_string_equal(got, text);
    assert_int_equal(m.reply_code, code);
}

static inline void expect_connection_close(struct conn *conn, uint16_t code)
{
    struct amqp_connection_close m;
    EXPECT(conn, 0, amqp_connection_close, AMQP_CONNECTION_CLOSE, &m);
    assert_int_equal(m.reply_code, code);
}

/* Header and body; returns the body. */
static inline struct slice expect_content(struct conn *conn, uint16_t channel,
                                          struct amqp_properties *out)
{
    static uint8_t body[1 << 18];
    static uint8_t list[1 << 16];
    uint8_t type;
    uint16_t number;
    struct slice payload = frame_next(conn, &type, &number);
    assert_int_equal(type, AMQP_FRAME_HEADER);
    assert_int_equal(number, channel);
    assert_int_equal(be16_get(payload.data), 60);
    size_t body_size = (size_t)be64_get(payload.data + 4), len = 0;
    size_t list_len = payload.len - AMQP_CONTENT_HEAD_BYTES;
    memcpy(list, payload.data + AMQP_CONTENT_HEAD_BYTES, list_len);
    assert_true(amqp_properties_read(slice_make(list, list_len), out));
    while (len < body_size) {
        payload = frame_next(conn, &type, &number);
        assert_int_equal(type, AMQP_FRAME_BODY);
        memcpy(body + len, payload.data, payload.len);
        len += payload.len;
    }
    return slice_make(body, len);
}

static inline size_t content_frames(uint8_t *at, uint16_t channel,
                                    const struct amqp_properties *properties, struct slice body,
                                    size_t piece_max)
{
    uint8_t *begin = at;
    size_t list = amqp_properties_size(properties);
    at = amqp_frame_head_put(at, AMQP_FRAME_HEADER, channel, AMQP_CONTENT_HEAD_BYTES + list);
    be32_put(at, 60 << 16);
    be64_put(at + 4, body.len);
    amqp_properties_write(at + AMQP_CONTENT_HEAD_BYTES, properties);
    at += AMQP_CONTENT_HEAD_BYTES + list;
    *at++ = AMQP_FRAME_END;
    for (size_t sent = 0; sent < body.len;) {
        size_t piece = body.len - sent < piece_max ? body.len - sent : piece_max;
        at = amqp_frame_head_put(at, AMQP_FRAME_BODY, channel, piece);
        memcpy(at, body.data + sent, piece);
        at += piece;
        *at++ = AMQP_FRAME_END;
        sent += piece;
    }
    return (size_t)(at - begin);
}

static inline size_t publish_frames(uint8_t *at, uint16_t channel, const char *exchange,
                                    const char *key, const char *body)
{
    struct amqp_basic_publish m = {.exchange = slice_of(exchange), .routing_key = slice_of(key)};
    struct amqp_properties none = {0};
    size_t size = amqp_basic_publish_frame(at, channel, &m);
    return size + content_frames(at + size, channel, &none, slice_of(body), 4096);
}

static inline void publish(struct conn *conn, uint16_t channel, const char *exchange,
                           const char *key, const char *body)
{
    uint8_t frames[2048];
    put(conn, frames, publish_frames(frames, channel, exchange, key, body));
}

static inline void publish_with(struct conn *conn, uint16_t channel, const char *key,
                                const struct amqp_properties *properties, bool mandatory)
{
    uint8_t frames[2048];
    struct amqp_basic_publish m = {
        .exchange = slice_of(""), .routing_key = slice_of(key), .mandatory = mandatory};
    size_t size = amqp_basic_publish_frame(frames, channel, &m);
    size += content_frames(frames + size, channel, properties, slice_of("m"), 4096);
    put(conn, frames, size);
}

static inline struct conn *connected(uint32_t frame_max)
{
    struct conn *conn = fake_open(&face_amqp);
    put(conn, (const uint8_t *)"AMQP\0\0\11\1", 8);
    struct amqp_connection_start start;
    EXPECT(conn, 0, amqp_connection_start, AMQP_CONNECTION_START, &start);
    uint8_t properties[256];
    struct writer writer = writer_over(properties, sizeof properties);
    writer_bytes(&writer, "\14capabilitiesF", 14);
    uint8_t *inside = amqp_inside_begin(&writer);
    const struct amqp_field fields[] = {amqp_bool("consumer_cancel_notify", true),
                                        amqp_bool("connection.blocked", true),
                                        amqp_bool("authentication_failure_close", true)};
    for (int i = 0; i < 3; i++)
        amqp_field_write(&writer, &fields[i]);
    amqp_inside_end(&writer, inside);
    SEND(conn, 0, amqp_connection_start_ok,
         .client_properties = slice_make(properties, (size_t)(writer.at - properties)),
         .mechanism = slice_of("PLAIN"), .response = slice_make("\0guest\0guest", 12),
         .locale = slice_of("en_US"));
    struct amqp_connection_tune tune;
    EXPECT(conn, 0, amqp_connection_tune, AMQP_CONNECTION_TUNE, &tune);
    SEND(conn, 0, amqp_connection_tune_ok, .channel_max = tune.channel_max, .frame_max = frame_max,
         .heartbeat = 10);
    SEND(conn, 0, amqp_connection_open, .virtual_host = slice_of("/"));
    struct amqp_connection_open_ok ok;
    EXPECT(conn, 0, amqp_connection_open_ok, AMQP_CONNECTION_OPEN_OK, &ok);
    return conn;
}

static inline void channel_opened(struct conn *conn, uint16_t channel)
{
    struct amqp_channel_open_ok ok;
    SEND(conn, channel, amqp_channel_open, 0);
    EXPECT(conn, channel, amqp_channel_open_ok, AMQP_CHANNEL_OPEN_OK, &ok);
}

static inline void declared(struct conn *conn, uint16_t channel, const char *queue)
{
    struct amqp_queue_declare_ok ok;
    SEND(conn, channel, amqp_queue_declare, .queue = slice_of(queue));
    EXPECT(conn, channel, amqp_queue_declare_ok, AMQP_QUEUE_DECLARE_OK, &ok);
}

static inline void consumed(struct conn *conn, uint16_t channel, const char *queue, bool no_ack)
{
    struct amqp_basic_consume_ok ok;
    SEND(conn, channel, amqp_basic_consume, .queue = slice_of(queue),
         .consumer_tag = slice_of("tag"), .no_ack = no_ack);
    EXPECT(conn, channel, amqp_basic_consume_ok, AMQP_BASIC_CONSUME_OK, &ok);
    assert_true(slice_equal(ok.consumer_tag, slice_of("tag")));
}

/* The next delivery's tag; its body must be that. */
static inline uint64_t delivered(struct conn *conn, uint16_t channel, const char *body)
{
    struct amqp_basic_deliver m;
    struct amqp_properties properties;
    EXPECT(conn, channel, amqp_basic_deliver, AMQP_BASIC_DELIVER, &m);
    uint64_t tag = m.delivery_tag;
    assert_true(slice_equal(expect_content(conn, channel, &properties), slice_of(body)));
    return tag;
}

#endif
