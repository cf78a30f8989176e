/* struct amqp_link on rabbitmq-c: blocking socket, one publish at a time, as programs use it. */
#include "amqp_link.h"

#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_tcp_socket.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>

struct amqp_link {
    amqp_connection_state_t connection;
    amqp_envelope_t envelope;
    bool has_envelope;
};

static void fail_reply(amqp_rpc_reply_t reply, const char *what)
{
    if (reply.reply_type == AMQP_RESPONSE_NORMAL)
        return;
    if (reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION)
        fail("%s: %s", what, amqp_error_string2(reply.library_error));
    if (reply.reply_type == AMQP_RESPONSE_SERVER_EXCEPTION &&
        reply.reply.id == AMQP_CHANNEL_CLOSE_METHOD) {
        amqp_channel_close_t *close = reply.reply.decoded;

        fail("%s: channel closed: %d %.*s", what, close->reply_code, (int)close->reply_text.len,
             (char *)close->reply_text.bytes);
    }
    if (reply.reply_type == AMQP_RESPONSE_SERVER_EXCEPTION &&
        reply.reply.id == AMQP_CONNECTION_CLOSE_METHOD) {
        amqp_connection_close_t *close = reply.reply.decoded;

        fail("%s: connection closed: %d %.*s", what, close->reply_code, (int)close->reply_text.len,
             (char *)close->reply_text.bytes);
    }
    fail("%s: unexpected answer", what);
}

static struct amqp_link *link_open(const struct amqp_address *address)
{
    struct amqp_link *link = calloc(1, sizeof *link);
    amqp_socket_t *socket;
    int one = 1;

    if (!link)
        fail("out of memory");
    link->connection = amqp_new_connection();
    socket = amqp_tcp_socket_new(link->connection);
    if (!socket || amqp_socket_open(socket, address->host, address->port))
        fail("cannot connect to %s:%d", address->host, address->port);
    fail_reply(amqp_login(link->connection, address->vhost, 0, 131072, 0, AMQP_SASL_METHOD_PLAIN,
                          address->user, address->password),
               "login");
    amqp_channel_open(link->connection, 1);
    fail_reply(amqp_get_rpc_reply(link->connection), "channel.open");
    (void)setsockopt(amqp_get_sockfd(link->connection), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return link;
}

static void link_close(struct amqp_link *link)
{
    if (link->has_envelope)
        amqp_destroy_envelope(&link->envelope);
    amqp_connection_close(link->connection, AMQP_REPLY_SUCCESS);
    amqp_destroy_connection(link->connection);
    free(link);
}

static void link_confirm_select(struct amqp_link *link)
{
    amqp_confirm_select(link->connection, 1);
    fail_reply(amqp_get_rpc_reply(link->connection), "confirm.select");
}

static void link_publish(struct amqp_link *link, const char *queue, const void *body, size_t size,
                         bool persistent)
{
    amqp_basic_properties_t properties = {._flags = AMQP_BASIC_DELIVERY_MODE_FLAG,
                                          .delivery_mode = persistent ? 2 : 1};
    amqp_bytes_t bytes = {.len = size, .bytes = (void *)body};
    int status = amqp_basic_publish(link->connection, 1, amqp_empty_bytes,
                                    amqp_cstring_bytes(queue), 0, 0, &properties, bytes);

    if (status)
        fail("publish: %s", amqp_error_string2(status));
}

static void link_flush(struct amqp_link *link)
{
    (void)link;
}

/* Waits on the socket by ppoll, since the library's own timeout is no finer than a millisecond. */
static bool frame_next(struct amqp_link *link, int64_t wait_ns, amqp_frame_t *frame)
{
    struct timeval none = {0, 0};
    int status;

    amqp_maybe_release_buffers(link->connection);
    if (!amqp_data_in_buffer(link->connection) && !amqp_frames_enqueued(link->connection)) {
        struct pollfd poll = {.fd = amqp_get_sockfd(link->connection), .events = POLLIN};
        struct timespec wait = {.tv_sec = wait_ns / SECOND_NS, .tv_nsec = wait_ns % SECOND_NS};

        if (wait_ns < 0 || ppoll(&poll, 1, &wait, NULL) < 1)
            return false;
    }
    status = amqp_simple_wait_frame_noblock(link->connection, frame, &none);
    if (status == AMQP_STATUS_TIMEOUT)
        return false;
    if (status)
        fail("wait: %s", amqp_error_string2(status));
    return true;
}

static void fail_method(const amqp_frame_t *frame)
{
    if (frame->frame_type != AMQP_FRAME_METHOD)
        fail("unexpected frame of type %d", frame->frame_type);
    if (frame->payload.method.id == AMQP_CHANNEL_CLOSE_METHOD) {
        amqp_channel_close_t *close = frame->payload.method.decoded;

        fail("channel closed: %d %.*s", close->reply_code, (int)close->reply_text.len,
             (char *)close->reply_text.bytes);
    }
    fail("unexpected method %08x", frame->payload.method.id);
}

static bool link_confirm_next(struct amqp_link *link, int64_t wait_ns, uint64_t *tag,
                              bool *multiple)
{
    amqp_basic_ack_t *ack;
    amqp_frame_t frame;

    if (!frame_next(link, wait_ns, &frame))
        return false;
    if (frame.frame_type != AMQP_FRAME_METHOD || frame.payload.method.id != AMQP_BASIC_ACK_METHOD)
        fail_method(&frame);
    ack = frame.payload.method.decoded;
    *tag = ack->delivery_tag;
    *multiple = ack->multiple;
    return true;
}

static void link_consume(struct amqp_link *link, const char *queue, uint16_t prefetch, bool stream)
{
    amqp_table_entry_t entry = {
        .key = amqp_cstring_bytes("x-stream-offset"),
        .value = {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = amqp_cstring_bytes("first")}};
    amqp_table_t arguments = {.num_entries = stream ? 1 : 0, .entries = &entry};

    if (prefetch) {
        amqp_basic_qos(link->connection, 1, 0, prefetch, 0);
        fail_reply(amqp_get_rpc_reply(link->connection), "basic.qos");
    }
    amqp_basic_consume(link->connection, 1, amqp_cstring_bytes(queue), amqp_empty_bytes, 0,
                       !prefetch, 0, arguments);
    fail_reply(amqp_get_rpc_reply(link->connection), "basic.consume");
}

static bool link_deliver_next(struct amqp_link *link, int64_t wait_ns,
                              struct amqp_delivery *delivery)
{
    struct timeval wait = {.tv_sec = wait_ns / SECOND_NS, .tv_usec = wait_ns % SECOND_NS / 1000};
    amqp_rpc_reply_t reply;

    if (wait_ns < 0) {
        if (!amqp_data_in_buffer(link->connection) && !amqp_frames_enqueued(link->connection))
            return false;
        wait = (struct timeval){.tv_sec = 30};
    }
    if (link->has_envelope)
        amqp_destroy_envelope(&link->envelope);
    link->has_envelope = false;
    amqp_maybe_release_buffers(link->connection);
    reply = amqp_consume_message(link->connection, &link->envelope, &wait, 0);
    if (reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION) {
        amqp_frame_t frame;

        if (reply.library_error == AMQP_STATUS_TIMEOUT)
            return false;
        if (reply.library_error == AMQP_STATUS_UNEXPECTED_STATE && frame_next(link, 0, &frame))
            fail_method(&frame);
    }
    fail_reply(reply, "consume");
    link->has_envelope = true;
    delivery->tag = link->envelope.delivery_tag;
    delivery->body = link->envelope.message.body.bytes;
    delivery->size = link->envelope.message.body.len;
    return true;
}

static void link_ack(struct amqp_link *link, uint64_t tag, bool multiple)
{
    int status = amqp_basic_ack(link->connection, 1, tag, multiple);

    if (status)
        fail("ack: %s", amqp_error_string2(status));
}

const struct amqp_library amqp_rabbitmq_c = {
    .name = "rabbitmq-c",
    .open = link_open,
    .close = link_close,
    .confirm_select = link_confirm_select,
    .publish = link_publish,
    .flush = link_flush,
    .confirm_next = link_confirm_next,
    .consume = link_consume,
    .deliver_next = link_deliver_next,
    .ack = link_ack,
};
