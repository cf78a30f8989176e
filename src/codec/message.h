/* One message as every protocol can see it, whatever form it came in. A view borrows from the
 * entry or record it was made of and costs a parse, no copy; what another form needs is built in an
 * arena.
 *
 * AMQP and Kafka map onto each other like this:
 *
 * - Routing key and key. A message published to an exchange takes its routing key along as the
 *   record's key, unless it has a header x-kafka-key (text or bytes), which goes before it. A
 *   message addressed to the topic by name (default exchange) has no key. A record's key is the
 *   routing key when it is UTF-8 of at most 255 bytes, otherwise the header x-kafka-key (bytes).
 *
 * - Headers and headers. To Kafka: text and bytes as they are, numbers and booleans as text, nested
 *   tables and arrays as JSON. To AMQP: text when it is UTF-8, else bytes.
 *
 * - Properties and the headers named content-type, content-encoding, correlation-id, reply-to,
 *   message-id, type, user-id, app-id, priority and expiration.
 *
 * - Timestamp and timestamp (AMQP has whole seconds); without the property, time of arrival. */
#ifndef WEIR_CODEC_MESSAGE_H
#define WEIR_CODEC_MESSAGE_H

#include "base/arena.h"
#include "base/slice.h"
#include "codec/amqp_field.h"
#include "codec/entry.h"
#include "codec/kafka_batch.h"
#include "gen/amqp_method.h"

#include <stdbool.h>
#include <stdint.h>

struct message_view {
    enum entry_form form;
    int64_t arrival_ms;
    int64_t expiry_ms; /* 0 = none */
    struct slice exchange, routing_key;
    struct slice record_key; /* ENTRY_KAFKA: may be null */
    struct slice list;       /* ENTRY_AMQP: property flags and list, verbatim */
    struct slice headers;    /* ENTRY_AMQP: inside of the table; ENTRY_KAFKA: encoded headers */
    int32_t headers_count;   /* ENTRY_KAFKA */
    struct amqp_properties
        properties; /* a field counts when its flag is set; but for headers: above */
    struct slice body;
};

/* Of an entry of the form ENTRY_AMQP. False when it is malformed or of another form. */
bool message_of_entry(struct slice entry, struct message_view *out);
/* Of one record of a topic. False when its headers are malformed. */
bool message_of_record(const struct kafka_record *record, struct slice topic,
                       struct message_view *out);

/* Only the parts of an ENTRY_AMQP entry, without parsing its properties: the way to a consumer. */
struct message_parts {
    struct slice exchange, routing_key;
    struct slice list; /* property flags and list */
    struct slice body;
};
bool message_split(struct slice entry, struct message_parts *out);

/* A walk over the headers, in AMQP's types; names that stand for properties are left out. */
struct message_headers {
    enum entry_form form;
    struct reader table;
    struct kafka_headers records;
};
void message_headers_init(struct message_headers *headers, const struct message_view *view);
bool message_headers_next(struct message_headers *headers, struct amqp_field *out);

/* Priority of an ENTRY_AMQP entry, 0 when it has none. */
uint8_t message_priority(struct slice entry);

/* The key that the message has in a topic, as said above; null when none. */
struct slice message_record_key(const struct message_view *view);
/* The same of parts as a publisher sends them: decides the partition. */
struct slice message_key_of_parts(struct slice exchange, struct slice routing_key,
                                  struct slice list);

/* Property flags and list for AMQP consumers: verbatim, or made of a record's. Null: no memory. */
struct slice message_list(const struct message_view *view, struct arena *arena);

/* An ENTRY_AMQP entry of the message with another exchange and routing key (each at most 255
 * bytes): how a record of a topic gets into a queue. Null: no memory. */
struct slice message_entry(const struct message_view *view, struct slice exchange,
                           struct slice routing_key, struct arena *arena);

struct message_record {
    int64_t timestamp_ms;
    struct slice key, value; /* key may be null */
    const struct kafka_record_header *headers;
    size_t headers_count;
};
/* The record that Kafka consumers get of it. false: no memory. */
bool message_to_record(const struct message_view *view, struct arena *arena,
                       struct message_record *out);

/* Texts of the array in header `name` ("CC", "BCC") of an ENTRY_AMQP property list: further routing
 * keys, at most `room` of them. Returns false when the header is there and is not an array of
 * texts. */
bool message_keys(struct slice list, const char *name, struct slice *keys, uint32_t room,
                  uint32_t *count);

/* The property list without that header. Null: no memory. */
struct slice message_list_without(struct slice list, const char *header, struct arena *arena);

/* ---- Dead letters ---- */

enum message_death {
    DEATH_REJECTED,
    DEATH_EXPIRED,
    DEATH_MAXLEN,
    DEATH_DELIVERY_LIMIT,
};

/* "rejected", "expired", "maxlen", "delivery_limit". */
const char *message_death_name(enum message_death reason);

/* The entry that is published when `entry` (ENTRY_AMQP) dies in `queue`: its x-death,
 * x-first-death-* and x-last-death-* headers are brought up to date, its expiration is taken off,
 * it carries `exchange` (the dead-letter exchange) and `key`, or its own routing key when key.data
 * is NULL; in the other case its CC header goes. Null: malformed, or no memory. */
struct slice message_dead_letter(struct slice entry, enum message_death reason, struct slice queue,
                                 struct slice exchange, struct slice key, int64_t now_ms,
                                 struct arena *arena);

/* Would putting the dead letter into that queue close a cycle that no consumer's reject is part of?
 * Then it is dropped. */
bool message_death_cycle(struct slice entry, struct slice queue);

#endif
