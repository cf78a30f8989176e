/* The steps that nearly every rabbitmq-c test takes; kit.h says what each does. */
#include "kit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define WAIT_S 10

const char *kit_name(const char *word)
{
    static char names[1024][64];
    static unsigned count;
    char *name = names[count];
    struct timespec now;

    assert_in_range(count, 0, 1023);
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(name, sizeof(names[0]), "%s-%d-%ld-%u", word, (int)getpid(), now.tv_nsec, count++);
    return name;
}

amqp_bytes_t kit_bytes(const char *text)
{
    return amqp_cstring_bytes(text);
}

int kit_equal(amqp_bytes_t bytes, const char *text)
{
    return bytes.len == strlen(text) && memcmp(bytes.bytes, text, bytes.len) == 0;
}

amqp_connection_state_t kit_connect(void)
{
    const char *address = getenv("WEIR_COMPAT_AMQP");
    char host[128];
    const char *colon;
    amqp_connection_state_t peer;
    amqp_socket_t *socket;

    assert_non_null(address);
    colon = strrchr(address, ':');
    assert_non_null(colon);
    snprintf(host, sizeof(host), "%.*s", (int)(colon - address), address);
    peer = amqp_new_connection();
    assert_non_null(peer);
    socket = amqp_tcp_socket_new(peer);
    assert_non_null(socket);
    assert_int_equal(amqp_socket_open(socket, host, (int)strtol(colon + 1, NULL, 10)),
                     AMQP_STATUS_OK);
    return peer;
}

amqp_connection_state_t kit_open(int frame_max, int heartbeat_s)
{
    amqp_connection_state_t peer = kit_connect();
    struct timeval wait = {.tv_sec = WAIT_S};
    amqp_table_entry_t ability = {.key = kit_bytes("consumer_cancel_notify"),
                                  .value = {.kind = AMQP_FIELD_KIND_BOOLEAN, .value.boolean = 1}};
    amqp_table_entry_t entry = {.key = kit_bytes("capabilities"),
                                .value = {.kind = AMQP_FIELD_KIND_TABLE,
                                          .value.table = {.num_entries = 1, .entries = &ability}}};
    amqp_table_t properties = {.num_entries = 1, .entries = &entry};
    amqp_rpc_reply_t reply =
        amqp_login_with_properties(peer, "/", 0, frame_max, heartbeat_s, &properties,
                                   AMQP_SASL_METHOD_PLAIN, "guest", "guest");

    kit_reply_ok(reply, __FILE__, __LINE__);
    amqp_set_rpc_timeout(peer, &wait);
    amqp_channel_open(peer, 1);
    kit_ok(peer);
    return peer;
}

void kit_close(amqp_connection_state_t peer)
{
    kit_reply_ok(amqp_connection_close(peer, AMQP_REPLY_SUCCESS), __FILE__, __LINE__);
    assert_int_equal(amqp_destroy_connection(peer), AMQP_STATUS_OK);
}

int kit_setup(void **state)
{
    *state = kit_open(131072, 0);
    return 0;
}

int kit_teardown(void **state)
{
    kit_close(*state);
    return 0;
}

void kit_reply_ok(amqp_rpc_reply_t reply, const char *file, int line)
{
    if (reply.reply_type == AMQP_RESPONSE_SERVER_EXCEPTION) {
        if (reply.reply.id == AMQP_CHANNEL_CLOSE_METHOD) {
            amqp_channel_close_t *close = reply.reply.decoded;
            print_error("channel closed: %d %.*s\n", close->reply_code, (int)close->reply_text.len,
                        (char *)close->reply_text.bytes);
        } else if (reply.reply.id == AMQP_CONNECTION_CLOSE_METHOD) {
            amqp_connection_close_t *close = reply.reply.decoded;
            print_error("connection closed: %d %.*s\n", close->reply_code,
                        (int)close->reply_text.len, (char *)close->reply_text.bytes);
        }
    } else if (reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION) {
        print_error("library: %s\n", amqp_error_string2(reply.library_error));
    }
    _assert_int_equal(reply.reply_type, AMQP_RESPONSE_NORMAL, file, line);
}

static void closed_check(int code, amqp_bytes_t text, int wanted, const char *wanted_text,
                         const char *file, int line)
{
    if (!kit_equal(text, wanted_text)) {
        print_error("received: %d %.*s\nwanted:   %d %s\n", code, (int)text.len, (char *)text.bytes,
                    wanted, wanted_text);
    }
    _assert_int_equal(code, wanted, file, line);
    _assert_true(kit_equal(text, wanted_text), "the reply text", file, line);
}

void kit_reply_refused(amqp_connection_state_t peer, amqp_rpc_reply_t reply, int code,
                       const char *text, const char *file, int line)
{
    _assert_int_equal(reply.reply_type, AMQP_RESPONSE_SERVER_EXCEPTION, file, line);
    if (reply.reply.id == AMQP_CHANNEL_CLOSE_METHOD) {
        amqp_channel_close_t *close = reply.reply.decoded;
        amqp_channel_close_ok_t ok = {0};

        closed_check(close->reply_code, close->reply_text, code, text, file, line);
        assert_int_equal(amqp_send_method(peer, 1, AMQP_CHANNEL_CLOSE_OK_METHOD, &ok),
                         AMQP_STATUS_OK);
        amqp_channel_open(peer, 1);
        kit_ok(peer);
    } else {
        amqp_connection_close_t *close = reply.reply.decoded;

        _assert_int_equal(reply.reply.id, AMQP_CONNECTION_CLOSE_METHOD, file, line);
        closed_check(close->reply_code, close->reply_text, code, text, file, line);
    }
}

amqp_method_t kit_method(amqp_connection_state_t peer, amqp_method_number_t id)
{
    amqp_frame_t frame;
    struct timeval wait = {.tv_sec = WAIT_S};

    amqp_maybe_release_buffers(peer);
    assert_int_equal(amqp_simple_wait_frame_noblock(peer, &frame, &wait), AMQP_STATUS_OK);
    assert_int_equal(frame.frame_type, AMQP_FRAME_METHOD);
    if (frame.payload.method.id != id) {
        print_error("received %s\n", amqp_method_name(frame.payload.method.id));
    }
    assert_int_equal(frame.payload.method.id, id);
    return frame.payload.method;
}

const char *kit_queue(amqp_connection_state_t peer, amqp_table_t arguments)
{
    const char *name = kit_name("c");

    amqp_queue_declare(peer, 1, kit_bytes(name), 0, 0, 1, 0, arguments);
    kit_ok(peer);
    return name;
}

void kit_publish(amqp_connection_state_t peer, const char *exchange, const char *key,
                 const char *body)
{
    assert_int_equal(amqp_basic_publish(peer, 1, kit_bytes(exchange), kit_bytes(key), 0, 0, NULL,
                                        kit_bytes(body)),
                     AMQP_STATUS_OK);
}

void kit_consume(amqp_connection_state_t peer, const char *queue, const char *tag, int no_ack)
{
    amqp_basic_consume(peer, 1, kit_bytes(queue), kit_bytes(tag), 0, no_ack, 0, amqp_empty_table);
    kit_ok(peer);
}

uint64_t kit_delivered(amqp_connection_state_t peer, const char *body, int redelivered)
{
    amqp_envelope_t envelope;
    struct timeval wait = {.tv_sec = WAIT_S};
    uint64_t tag;

    amqp_maybe_release_buffers(peer);
    kit_reply_ok(amqp_consume_message(peer, &envelope, &wait, 0), __FILE__, __LINE__);
    if (!kit_equal(envelope.message.body, body)) {
        print_error("delivered %.*s, wanted %s\n", (int)envelope.message.body.len,
                    (char *)envelope.message.body.bytes, body);
    }
    assert_true(kit_equal(envelope.message.body, body));
    assert_int_equal(envelope.redelivered, redelivered);
    tag = envelope.delivery_tag;
    amqp_destroy_envelope(&envelope);
    return tag;
}

void kit_quiet(amqp_connection_state_t peer, int ms)
{
    amqp_frame_t frame;
    struct timeval wait = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};

    amqp_maybe_release_buffers(peer);
    assert_int_equal(amqp_simple_wait_frame_noblock(peer, &frame, &wait), AMQP_STATUS_TIMEOUT);
}

/* Repeats a get until there is a message. */
static amqp_rpc_reply_t get_waited(amqp_connection_state_t peer, const char *queue, int no_ack)
{
    amqp_rpc_reply_t reply;
    int tries = 0;

    do {
        if (tries++ > 0) {
            usleep(5000);
        }
        amqp_maybe_release_buffers(peer);
        reply = amqp_basic_get(peer, 1, kit_bytes(queue), no_ack);
        kit_reply_ok(reply, __FILE__, __LINE__);
    } while (reply.reply.id == AMQP_BASIC_GET_EMPTY_METHOD && tries < 1000);
    assert_int_equal(reply.reply.id, AMQP_BASIC_GET_OK_METHOD);
    return reply;
}

uint64_t kit_get(amqp_connection_state_t peer, const char *queue, const char *body, int no_ack)
{
    amqp_rpc_reply_t reply = get_waited(peer, queue, no_ack);
    uint64_t tag = ((amqp_basic_get_ok_t *)reply.reply.decoded)->delivery_tag;
    amqp_message_t message;

    kit_reply_ok(amqp_read_message(peer, 1, &message, 0), __FILE__, __LINE__);
    if (!kit_equal(message.body, body)) {
        print_error("got %.*s, wanted %s\n", (int)message.body.len, (char *)message.body.bytes,
                    body);
    }
    assert_true(kit_equal(message.body, body));
    amqp_destroy_message(&message);
    return tag;
}

void kit_get_message(amqp_connection_state_t peer, const char *queue, amqp_message_t *message)
{
    get_waited(peer, queue, 1);
    kit_reply_ok(amqp_read_message(peer, 1, message, 0), __FILE__, __LINE__);
}

void kit_empty(amqp_connection_state_t peer, const char *queue)
{
    amqp_rpc_reply_t reply = amqp_basic_get(peer, 1, kit_bytes(queue), 1);

    kit_reply_ok(reply, __FILE__, __LINE__);
    assert_int_equal(reply.reply.id, AMQP_BASIC_GET_EMPTY_METHOD);
}

amqp_table_entry_t kit_entry_text(const char *key, const char *value)
{
    return (amqp_table_entry_t){
        .key = kit_bytes(key),
        .value = {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = kit_bytes(value)}};
}

amqp_table_entry_t kit_entry_int(const char *key, int32_t value)
{
    return (amqp_table_entry_t){.key = kit_bytes(key),
                                .value = {.kind = AMQP_FIELD_KIND_I32, .value.i32 = value}};
}

const amqp_field_value_t *kit_field(const amqp_table_t *table, const char *key)
{
    for (int i = 0; i < table->num_entries; i++) {
        if (kit_equal(table->entries[i].key, key)) {
            return &table->entries[i].value;
        }
    }
    return NULL;
}
