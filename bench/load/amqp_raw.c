/*
 * struct amqp_link straight on a socket: what is published gathers in a buffer and leaves in one
 * write, what arrives is read in large pieces and parsed in place. It costs a tenth of a client
 * library's CPU, so the broker is what is measured.
 *
 * It trusts its peer's lengths only as far as its own buffers go, and knows just the methods below.
 */
#include "amqp_link.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    OUTPUT_BYTES = 256 * 1024,
    OUTPUT_FLUSH_BYTES = 64 * 1024,
    INPUT_BYTES = 1024 * 1024,
    FRAME_BYTES_MAX = 128 * 1024,
    FRAME_OVERHEAD = 8,
    ANSWER_WAIT_S = 600,
};

enum { FRAME_METHOD = 1, FRAME_HEADER = 2, FRAME_BODY = 3, FRAME_HEARTBEAT = 8 };

#define METHOD(class, number) ((uint32_t)(class) << 16 | (number))

enum {
    CONNECTION_START = METHOD(10, 10),
    CONNECTION_START_OK = METHOD(10, 11),
    CONNECTION_TUNE = METHOD(10, 30),
    CONNECTION_TUNE_OK = METHOD(10, 31),
    CONNECTION_OPEN = METHOD(10, 40),
    CONNECTION_OPEN_OK = METHOD(10, 41),
    CONNECTION_CLOSE = METHOD(10, 50),
    CONNECTION_CLOSE_OK = METHOD(10, 51),
    CHANNEL_OPEN = METHOD(20, 10),
    CHANNEL_OPEN_OK = METHOD(20, 11),
    CHANNEL_CLOSE = METHOD(20, 40),
    QUEUE_DECLARE = METHOD(50, 10),
    QUEUE_DECLARE_OK = METHOD(50, 11),
    QUEUE_DELETE = METHOD(50, 40),
    QUEUE_DELETE_OK = METHOD(50, 41),
    BASIC_QOS = METHOD(60, 10),
    BASIC_QOS_OK = METHOD(60, 11),
    BASIC_CONSUME = METHOD(60, 20),
    BASIC_CONSUME_OK = METHOD(60, 21),
    BASIC_PUBLISH = METHOD(60, 40),
    BASIC_DELIVER = METHOD(60, 60),
    BASIC_ACK = METHOD(60, 80),
    CONFIRM_SELECT = METHOD(85, 10),
    CONFIRM_SELECT_OK = METHOD(85, 11),
};

struct amqp_link {
    int socket;
    size_t frame_body_max;
    uint8_t *output;
    size_t output_size, output_frame; /* where the open frame begins */
    uint8_t *input;
    size_t input_begin, input_end;
    uint8_t *assembled; /* a body of several frames */
    size_t assembled_max;
};

struct frame {
    uint8_t type;
    uint32_t method; /* of a method frame */
    const uint8_t *payload;
    size_t size;
};

static uint64_t integer_read(const uint8_t *at, size_t width)
{
    uint64_t value = 0;

    for (size_t i = 0; i < width; i++)
        value = value << 8 | at[i];
    return value;
}

static void put(struct amqp_link *link, uint64_t value, int width)
{
    for (int shift = (width - 1) * 8; shift >= 0; shift -= 8)
        link->output[link->output_size++] = (uint8_t)(value >> shift);
}

static void put_bytes(struct amqp_link *link, const void *bytes, size_t size)
{
    memcpy(link->output + link->output_size, bytes, size);
    link->output_size += size;
}

static void put_short_string(struct amqp_link *link, const char *text)
{
    size_t size = strlen(text);

    if (size > 255)
        fail("name longer than 255 bytes");
    put(link, size, 1);
    put_bytes(link, text, size);
}

static void link_flush(struct amqp_link *link)
{
    size_t sent = 0;

    while (sent < link->output_size) {
        ssize_t count =
            send(link->socket, link->output + sent, link->output_size - sent, MSG_NOSIGNAL);

        if (count < 0 && errno != EINTR)
            fail("write: %s", strerror(errno));
        sent += count < 0 ? 0 : (size_t)count;
    }
    link->output_size = 0;
}

static void frame_begin(struct amqp_link *link, int type, int channel)
{
    if (link->output_size > OUTPUT_FLUSH_BYTES)
        link_flush(link);
    link->output_frame = link->output_size;
    put(link, (uint64_t)type, 1);
    put(link, (uint64_t)channel, 2);
    put(link, 0, 4);
}

static void method_begin(struct amqp_link *link, uint32_t method)
{
    frame_begin(link, FRAME_METHOD, method >> 16 == 10 ? 0 : 1);
    put(link, method, 4);
}

static void frame_end(struct amqp_link *link)
{
    uint32_t size = htobe32((uint32_t)(link->output_size - link->output_frame - 7));

    memcpy(link->output + link->output_frame + 3, &size, sizeof size);
    put(link, 0xCE, 1);
}

/* Reads more; false when the time is up. */
static bool input_read(struct amqp_link *link, int64_t wait_ns)
{
    struct pollfd poll = {.fd = link->socket, .events = POLLIN};
    struct timespec wait = {.tv_sec = wait_ns / SECOND_NS, .tv_nsec = wait_ns % SECOND_NS};
    ssize_t count;

    if (wait_ns < 0)
        return false;
    if (link->input_begin == link->input_end) {
        link->input_begin = link->input_end = 0;
    } else if (link->input_begin > INPUT_BYTES / 2) {
        memmove(link->input, link->input + link->input_begin, link->input_end - link->input_begin);
        link->input_end -= link->input_begin;
        link->input_begin = 0;
    }
    count = recv(link->socket, link->input + link->input_end, INPUT_BYTES - link->input_end,
                 MSG_DONTWAIT);
    if (count < 0 && errno == EAGAIN) {
        if (!wait_ns || ppoll(&poll, 1, &wait, NULL) < 1)
            return false;
        count = recv(link->socket, link->input + link->input_end, INPUT_BYTES - link->input_end, 0);
    }
    if (count <= 0)
        fail("read: %s", count ? strerror(errno) : "closed by the broker");
    link->input_end += (size_t)count;
    return true;
}

static void frame_refuse(const struct frame *frame)
{
    size_t text;

    if (frame->type != FRAME_METHOD)
        fail("unexpected frame of type %u", frame->type);
    if ((frame->method == CONNECTION_CLOSE || frame->method == CHANNEL_CLOSE) && frame->size > 3) {
        text = frame->payload[2] < frame->size - 3 ? frame->payload[2] : frame->size - 3;
        fail("%s closed: %u %.*s", frame->method == CHANNEL_CLOSE ? "channel" : "connection",
             (unsigned)integer_read(frame->payload, 2), (int)text, frame->payload + 3);
    }
    fail("unexpected method %u.%u", frame->method >> 16, frame->method & 0xffff);
}

/* The next whole frame but heartbeats. It stays valid until more is read. */
static bool frame_next(struct amqp_link *link, int64_t wait_ns, struct frame *frame)
{
    for (;;) {
        const uint8_t *at = link->input + link->input_begin;
        size_t have = link->input_end - link->input_begin;
        size_t size = have >= 7 ? (size_t)integer_read(at + 3, 4) : 0;

        if (size > FRAME_BYTES_MAX)
            fail("frame of %zu bytes", size);
        if (have < 7 || have < size + FRAME_OVERHEAD) {
            if (!input_read(link, wait_ns))
                return false;
            continue;
        }
        if (at[size + 7] != 0xCE)
            fail("frame without its end mark");
        link->input_begin += size + FRAME_OVERHEAD;
        if (at[0] == FRAME_HEARTBEAT)
            continue;
        *frame = (struct frame){.type = at[0], .payload = at + 7, .size = size};
        if (frame->type == FRAME_METHOD) {
            if (size < 4)
                fail("method frame of %zu bytes", size);
            frame->method = (uint32_t)integer_read(at + 7, 4);
            frame->payload += 4;
            frame->size -= 4;
        }
        return true;
    }
}

static struct frame answer_wait(struct amqp_link *link, uint32_t method)
{
    struct frame frame;

    link_flush(link);
    if (!frame_next(link, (int64_t)ANSWER_WAIT_S * SECOND_NS, &frame))
        fail("no answer in %d s", ANSWER_WAIT_S);
    if (frame.type != FRAME_METHOD || frame.method != method)
        frame_refuse(&frame);
    return frame;
}

static void connection_start(struct amqp_link *link, const struct amqp_address *address)
{
    size_t user = strlen(address->user), password = strlen(address->password);
    struct frame frame;
    size_t frame_max;

    put_bytes(link, "AMQP\0\0\x09\x01", 8);
    (void)answer_wait(link, CONNECTION_START);
    method_begin(link, CONNECTION_START_OK);
    put(link, 0, 4);
    put_short_string(link, "PLAIN");
    put(link, user + password + 2, 4);
    put(link, 0, 1);
    put_bytes(link, address->user, user);
    put(link, 0, 1);
    put_bytes(link, address->password, password);
    put_short_string(link, "en_US");
    frame_end(link);

    frame = answer_wait(link, CONNECTION_TUNE);
    if (frame.size < 8)
        fail("short connection.tune");
    frame_max = (size_t)integer_read(frame.payload + 2, 4);
    if (!frame_max || frame_max > FRAME_BYTES_MAX)
        frame_max = FRAME_BYTES_MAX;
    link->frame_body_max = frame_max - FRAME_OVERHEAD;
    method_begin(link, CONNECTION_TUNE_OK);
    put(link, integer_read(frame.payload, 2), 2);
    put(link, frame_max, 4);
    put(link, 0, 2);
    frame_end(link);

    method_begin(link, CONNECTION_OPEN);
    put_short_string(link, address->vhost);
    put_short_string(link, "");
    put(link, 0, 1);
    frame_end(link);
    (void)answer_wait(link, CONNECTION_OPEN_OK);
    method_begin(link, CHANNEL_OPEN);
    put_short_string(link, "");
    frame_end(link);
    (void)answer_wait(link, CHANNEL_OPEN_OK);
}

static int socket_connect(const struct amqp_address *address)
{
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons((uint16_t)address->port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

    if (fd < 0 || inet_pton(AF_INET, address->host, &name.sin_addr) != 1)
        fail("bad host %s", address->host);
    if (connect(fd, (struct sockaddr *)&name, sizeof name)) {
        close(fd);
        return -1;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

struct amqp_link *raw_try_open(const struct amqp_address *address)
{
    int fd = socket_connect(address);
    struct amqp_link *link;

    if (fd < 0)
        return NULL;
    link = calloc(1, sizeof *link);
    if (!link)
        fail("out of memory");
    link->socket = fd;
    link->output = malloc(OUTPUT_BYTES);
    link->input = malloc(INPUT_BYTES);
    if (!link->output || !link->input)
        fail("out of memory");
    connection_start(link, address);
    return link;
}

static struct amqp_link *link_open(const struct amqp_address *address)
{
    struct amqp_link *link = raw_try_open(address);

    if (!link)
        fail("cannot connect to %s:%d", address->host, address->port);
    return link;
}

static void link_close(struct amqp_link *link)
{
    struct frame frame;

    method_begin(link, CONNECTION_CLOSE);
    put(link, 200, 2);
    put_short_string(link, "");
    put(link, 0, 4);
    frame_end(link);
    link_flush(link);
    while (frame_next(link, (int64_t)5 * SECOND_NS, &frame))
        if (frame.type == FRAME_METHOD && frame.method == CONNECTION_CLOSE_OK)
            break;
    close(link->socket);
    free(link->output);
    free(link->input);
    free(link->assembled);
    free(link);
}

static void link_confirm_select(struct amqp_link *link)
{
    method_begin(link, CONFIRM_SELECT);
    put(link, 0, 1);
    frame_end(link);
    (void)answer_wait(link, CONFIRM_SELECT_OK);
}

static void link_publish(struct amqp_link *link, const char *queue, const void *body, size_t size,
                         bool persistent)
{
    method_begin(link, BASIC_PUBLISH);
    put(link, 0, 2);
    put_short_string(link, "");
    put_short_string(link, queue);
    put(link, 0, 1);
    frame_end(link);

    frame_begin(link, FRAME_HEADER, 1);
    put(link, 60, 2);
    put(link, 0, 2);
    put(link, size, 8);
    put(link, 0x1000, 2);
    put(link, persistent ? 2 : 1, 1);
    frame_end(link);

    for (size_t sent = 0; sent < size;) {
        size_t part = size - sent < link->frame_body_max ? size - sent : link->frame_body_max;

        frame_begin(link, FRAME_BODY, 1);
        put_bytes(link, (const uint8_t *)body + sent, part);
        frame_end(link);
        sent += part;
    }
}

static bool link_confirm_next(struct amqp_link *link, int64_t wait_ns, uint64_t *tag,
                              bool *multiple)
{
    struct frame frame;

    if (!frame_next(link, wait_ns, &frame))
        return false;
    if (frame.type != FRAME_METHOD || frame.method != BASIC_ACK || frame.size < 9)
        frame_refuse(&frame);
    *tag = integer_read(frame.payload, 8);
    *multiple = frame.payload[8] & 1;
    return true;
}

static void link_consume(struct amqp_link *link, const char *queue, uint16_t prefetch, bool stream)
{
    if (prefetch) {
        method_begin(link, BASIC_QOS);
        put(link, 0, 4);
        put(link, prefetch, 2);
        put(link, 0, 1);
        frame_end(link);
        (void)answer_wait(link, BASIC_QOS_OK);
    }
    method_begin(link, BASIC_CONSUME);
    put(link, 0, 2);
    put_short_string(link, queue);
    put_short_string(link, "");
    put(link, prefetch ? 0 : 2, 1);
    put(link, stream ? 1 + 15 + 1 + 4 + 5 : 0, 4);
    if (stream) {
        put_short_string(link, "x-stream-offset");
        put(link, 'S', 1);
        put(link, 5, 4);
        put_bytes(link, "first", 5);
    }
    frame_end(link);
    (void)answer_wait(link, BASIC_CONSUME_OK);
}

/* The body of several frames is put together aside; that of one is used where it lies. */
static void body_assemble(struct amqp_link *link, size_t size)
{
    struct frame frame;

    if (size > link->assembled_max) {
        free(link->assembled);
        link->assembled = malloc(size);
        link->assembled_max = size;
        if (!link->assembled)
            fail("out of memory");
    }
    for (size_t got = 0; got < size; got += frame.size) {
        if (!frame_next(link, (int64_t)30 * SECOND_NS, &frame))
            fail("a delivery stopped half way");
        if (frame.type != FRAME_BODY || frame.size > size - got)
            frame_refuse(&frame);
        memcpy(link->assembled + got, frame.payload, frame.size);
    }
}

static bool link_deliver_next(struct amqp_link *link, int64_t wait_ns,
                              struct amqp_delivery *delivery)
{
    const int64_t rest_wait_ns = (int64_t)30 * SECOND_NS;
    struct frame frame;
    size_t tag_size;

    if (!frame_next(link, wait_ns, &frame))
        return false;
    if (frame.type != FRAME_METHOD || frame.method != BASIC_DELIVER || frame.size < 10)
        frame_refuse(&frame);
    tag_size = 1u + frame.payload[0];
    if (frame.size < tag_size + 9)
        fail("short basic.deliver");
    delivery->tag = integer_read(frame.payload + tag_size, 8);

    if (!frame_next(link, rest_wait_ns, &frame))
        fail("a delivery stopped half way");
    if (frame.type != FRAME_HEADER || frame.size < 14)
        frame_refuse(&frame);
    delivery->size = (size_t)integer_read(frame.payload + 4, 8);
    delivery->body = NULL;
    if (!delivery->size)
        return true;
    if (delivery->size > link->frame_body_max) {
        body_assemble(link, delivery->size);
        delivery->body = link->assembled;
        return true;
    }
    if (!frame_next(link, rest_wait_ns, &frame))
        fail("a delivery stopped half way");
    if (frame.type != FRAME_BODY || frame.size != delivery->size)
        frame_refuse(&frame);
    delivery->body = frame.payload;
    return true;
}

static void link_ack(struct amqp_link *link, uint64_t tag, bool multiple)
{
    method_begin(link, BASIC_ACK);
    put(link, tag, 8);
    put(link, multiple, 1);
    frame_end(link);
    link_flush(link);
}

void raw_queue_declare(struct amqp_link *link, const char *queue, const char *type, bool wait)
{
    size_t size = type ? strlen(type) : 0;

    method_begin(link, QUEUE_DECLARE);
    put(link, 0, 2);
    put_short_string(link, queue);
    put(link, wait ? 2 : 2 | 16, 1);
    put(link, type ? 1 + 12 + 1 + 4 + size : 0, 4);
    if (type) {
        put_short_string(link, "x-queue-type");
        put(link, 'S', 1);
        put(link, size, 4);
        put_bytes(link, type, size);
    }
    frame_end(link);
    if (wait)
        (void)answer_wait(link, QUEUE_DECLARE_OK);
}

void raw_queue_delete(struct amqp_link *link, const char *queue, bool wait)
{
    method_begin(link, QUEUE_DELETE);
    put(link, 0, 2);
    put_short_string(link, queue);
    put(link, wait ? 0 : 4, 1);
    frame_end(link);
    if (wait)
        (void)answer_wait(link, QUEUE_DELETE_OK);
}

uint64_t raw_queue_depth(struct amqp_link *link, const char *queue)
{
    struct frame frame;
    size_t name_size;

    method_begin(link, QUEUE_DECLARE);
    put(link, 0, 2);
    put_short_string(link, queue);
    put(link, 1, 1);
    put(link, 0, 4);
    frame_end(link);
    frame = answer_wait(link, QUEUE_DECLARE_OK);
    name_size = frame.size ? 1u + frame.payload[0] : 0;
    if (frame.size < name_size + 8)
        fail("short queue.declare-ok");
    return integer_read(frame.payload + name_size, 4);
}

const struct amqp_library amqp_raw = {
    .name = "raw",
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
