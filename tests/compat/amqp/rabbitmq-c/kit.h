/* What the rabbitmq-c tests share: a connection to the broker that WEIR_COMPAT_AMQP names, replies
 * turned into codes and texts, and the steps that nearly every test takes. A step that fails fails
 * the test at the caller's line. */
#ifndef WEIR_COMPAT_KIT_H
#define WEIR_COMPAT_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <amqp.h>
#include <amqp_tcp_socket.h>

/* A name that nobody else uses; the text is valid until the program ends. */
const char *kit_name(const char *word);
amqp_bytes_t kit_bytes(const char *text);
int kit_equal(amqp_bytes_t bytes, const char *text);

/* A socket that is connected but not logged in. */
amqp_connection_state_t kit_connect(void);
/* Logged in as guest, with channel 1 open. */
amqp_connection_state_t kit_open(int frame_max, int heartbeat_s);
void kit_close(amqp_connection_state_t peer);
/* A test whose state is such a connection. */
#define kit_with_peer(test) cmocka_unit_test_setup_teardown(test, kit_setup, kit_teardown)
int kit_setup(void **state);
int kit_teardown(void **state);

/* The reply must be normal. */
#define kit_ok(peer) kit_reply_ok(amqp_get_rpc_reply(peer), __FILE__, __LINE__)
void kit_reply_ok(amqp_rpc_reply_t reply, const char *file, int line);
/* The reply must be a channel.close (or connection.close) with this code and text; a closed channel
 * is answered and opened again. */
#define kit_refused(peer, code, text)                                                              \
    kit_reply_refused(peer, amqp_get_rpc_reply(peer), code, text, __FILE__, __LINE__)
void kit_reply_refused(amqp_connection_state_t peer, amqp_rpc_reply_t reply, int code,
                       const char *text, const char *file, int line);
/* Waits for a method of this kind on channel 1; others fail the test. */
amqp_method_t kit_method(amqp_connection_state_t peer, amqp_method_number_t id);

/* Declares an exclusive queue under a new name. */
const char *kit_queue(amqp_connection_state_t peer, amqp_table_t arguments);
void kit_publish(amqp_connection_state_t peer, const char *exchange, const char *key,
                 const char *body);
void kit_consume(amqp_connection_state_t peer, const char *queue, const char *tag, int no_ack);
/* The next delivery, whose body must be this; returns its tag. */
uint64_t kit_delivered(amqp_connection_state_t peer, const char *body, int redelivered);
/* Nothing is delivered for so long. */
void kit_quiet(amqp_connection_state_t peer, int ms);
/* Gets a message with this body, waited for; returns its tag. */
uint64_t kit_get(amqp_connection_state_t peer, const char *queue, const char *body, int no_ack);
/* Gets a message, waited for; destroy it with amqp_destroy_message(). */
void kit_get_message(amqp_connection_state_t peer, const char *queue, amqp_message_t *message);
void kit_empty(amqp_connection_state_t peer, const char *queue);
/* Entries of a table of arguments or headers. */
amqp_table_entry_t kit_entry_text(const char *key, const char *value);
amqp_table_entry_t kit_entry_int(const char *key, int32_t value);
/* The entry of a table, or NULL. */
const amqp_field_value_t *kit_field(const amqp_table_t *table, const char *key);

#endif
