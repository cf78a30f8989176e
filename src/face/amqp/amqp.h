/* What the files of the AMQP 0-9-1 face share: a connection, its channels, and what they wait for.
 * For src/face/amqp only.
 *
 * Life of a publish: amqp_input -> publish_fast (or publish_begin, publish_header, publish_body
 * when the frames come in pieces) -> publish_message -> conn_publish; EVENT_PUBLISHED ->
 * confirm_event. Life of a delivery: EVENT_DELIVER -> deliver_event -> leases_add; basic.ack ->
 * ack_method -> settle_add -> COMMAND_SETTLE at the end of the input.
 *
 * Whatever needs an answer of the broker is a struct pending. While one is under way the connection
 * takes no further input (only catalog methods may follow catalog methods), so a client sees its
 * methods take effect in order. */
#ifndef WEIR_FACE_AMQP_AMQP_H
#define WEIR_FACE_AMQP_AMQP_H

#include "base/arena.h"
#include "base/list.h"
#include "face/face.h"
#include "gen/amqp_method.h"

#include <stdbool.h>
#include <stdint.h>

enum stage {
    STAGE_HEADER,   /* the protocol header is due */
    STAGE_START_OK, /* then one after the other */
    STAGE_TUNE_OK,
    STAGE_OPEN,
    STAGE_RUNNING,
    STAGE_LEAVING, /* connection.close came: what it owned is going */
    STAGE_CLOSING, /* connection.close was sent: close-ok is due */
    STAGE_DONE,    /* nothing more is taken or sent */
};

enum {
    CATALOG_IN_FLIGHT_MAX = 256,
    SHARE_BYTES_MIN = 4096, /* bodies from this size on are sent without a copy */
    DELIVERY_WINDOW_BYTES = 1 << 20,
    SETTLE_RANGES = 32,
    SETTLE_BATCHES = 4,
};

/* Acknowledgements of one kind and queue, gathered over one input. */
struct settle_batch {
    enum command_type type;
    uint16_t channel;
    bool undelivered;
    uint32_t count;
    uint64_t queue;
    struct offset_range ranges[SETTLE_RANGES];
};

struct amqp {
    struct conn *conn;
    enum stage stage;
    uint32_t namespace_id;
    uint32_t frame_max;
    uint16_t channel_max;
    uint16_t heartbeat_s;
    bool can_cancel, can_blocked, can_auth_failure; /* capabilities of the client */
    bool told_blocked;
    bool published; /* something, ever: then it is told when the broker blocks publishers */
    bool held;
    bool wrote;                /* something was sent since the last heartbeat was due */
    int64_t input_ms;          /* when bytes came last */
    int64_t close_at_ms;       /* close then, whatever happens; INT64_MAX = no */
    int64_t heartbeat_at_ms;   /* the next look at heartbeats */
    struct channel **channels; /* by number; slot 0 unused */
    uint32_t channel_slots;
    struct consumer **consumers; /* by slot of their id */
    uint32_t consumer_slots, consumer_generation;
    uint32_t leaving; /* answers due before close-ok */
    struct list pending;
    uint32_t pending_count;
    uint64_t next_tag;
    struct list unreported;       /* consumers whose window waits for output to drain */
    struct settle_batch *settles; /* SETTLE_BATCHES of them, made when needed */
    struct channel *partial;      /* in the middle of a body frame of it */
    uint32_t partial_left;        /* bytes of that frame still to come */
    size_t room_bytes;            /* see room.c */
    int64_t room_due_ms;          /* until when it may keep others waiting for them */
    int64_t room_look_ms;         /* when room_timer looks at it */
    bool room_waits;              /* a header is held back until there is room for its body */
    struct arena scratch;         /* for the length of one method or event */
};

enum channel_state {
    CHANNEL_OPEN,
    CHANNEL_CLOSING, /* channel.close was sent: all is dropped until close-ok */
};

/* A message given out and not yet acknowledged. */
struct lease {
    uint64_t tag; /* with LEASE_DONE and LEASE_STREAM */
    uint64_t queue;
    uint64_t consumer; /* 0: of basic.get */
    uint64_t offset;
};
#define LEASE_DONE   (UINT64_C(1) << 63)
#define LEASE_STREAM (UINT64_C(1) << 62) /* of a topic: acknowledging gives credit, no more */
#define LEASE_TAG    (LEASE_STREAM - 1)

/* A ring in order of tags. */
struct leases {
    struct lease *items;
    uint32_t capacity, head, count, live;
};

/* Publisher confirms: slot i is of message base + i. */
struct confirm_slot {
    int16_t left; /* cells that have not answered */
    bool sent;    /* `left` is complete */
    bool refused;
};

/* Sequence numbers are the channel's incarnation and, below, the tag that the client counts: an
 * answer for an earlier channel of the same number is never taken for one of this. */
enum { CONFIRM_TAG_BITS = 40 };
#define CONFIRM_TAG ((UINT64_C(1) << CONFIRM_TAG_BITS) - 1)

struct confirms {
    struct confirm_slot *slots;
    uint32_t capacity, head, count;
    uint64_t base; /* sequence number of the oldest unconfirmed message */
};

struct channel {
    struct amqp *amqp;
    uint16_t number;
    enum channel_state state;
    uint32_t incarnation;
    bool confirm, tx;
    bool touched;             /* cells may know of it: consumers, leases */
    uint16_t prefetch;        /* of consumers to come */
    uint16_t prefetch_global; /* 0 = none */
    uint64_t next_tag;
    struct list consumers;
    struct leases leases;
    struct list parked; /* deliveries above the global prefetch */
    struct confirms confirms;
    struct route_cache *route;
    struct assembly *assembly;
    struct tx *transaction;
    struct direct_reply *direct_reply;
    uint8_t last_queue_len; /* the queue declared last */
    char last_queue[255];
};

struct consumer {
    struct list link; /* on channel->consumers */
    struct list due;  /* on amqp->unreported */
    struct channel *channel;
    uint64_t id;
    uint64_t queue;
    bool no_ack;
    bool started; /* consume-ok was sent */
    uint32_t unreported;
    struct stream_reader *stream; /* of a topic; else NULL */
    uint8_t tag_len;
    char tag[255];
};

/* Something the broker was asked for. */
struct pending {
    struct list link;
    uint64_t tag;
    uint32_t method;
    uint16_t channel; /* 0: the connection's own */
    uint32_t incarnation;
    bool catalog; /* the catalog answers: others like it may be under way at the same time */
    bool no_wait;
    uint32_t answers; /* events still due */
    bool answered;    /* with these, before its turn */
    enum err err;
    uint64_t value, value2;
    char *detail;
    uint64_t consumer; /* consume, cancel */
    uint32_t step;     /* of those that ask several times */
    /* Called for the last answer, unless NULL: asks for more in its place (pending_again) and
     * returns true, or leaves it at that. */
    bool (*more)(struct channel *channel, struct pending *pending, const struct event *event);
    /* Called for the last answer in its turn. `channel` is open (NULL for the connection's own);
     * neither is called when the channel was closed meanwhile. */
    void (*done)(struct channel *channel, struct pending *pending, const struct event *event);
    uint8_t name_len;
    char name[255]; /* the queue's or exchange's, for the answer */
};

/* ---- connection.c ---- */
struct slice vhost_name(const struct amqp *self);
/* Sends connection.close and drops all input from then on. */
void connection_error(struct amqp *self, uint16_t code, uint32_t method, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* Ends it without a word. */
void connection_end(struct amqp *self, bool flush);
void connection_method(struct amqp *self, uint32_t method, struct slice arguments);
/* The protocol header: bytes used. */
size_t connection_header(struct amqp *self, const uint8_t *data, size_t len);
void connection_leave_step(struct amqp *self);
void connection_timer(struct amqp *self, int64_t now_ms);
void connection_timer_set(struct amqp *self);
/* Tells the client when the broker wants publishers to pause, once. */
void connection_check_blocked(struct amqp *self);

/* ---- input.c ---- */
extern const struct face face_amqp;
void input_resume(struct amqp *self);

/* ---- pending.c ---- */
/* NULL (and the connection is ended) when memory is exhausted. channel may be NULL. */
struct pending *pending_add(struct amqp *self, struct channel *channel, uint32_t method,
                            void (*done)(struct channel *, struct pending *, const struct event *));
/* Asks for one more thing in the place of what was answered. */
void pending_again(struct channel *channel, struct pending *pending, struct command *command);
void pending_answer(struct amqp *self, const struct event *event);
struct pending *pending_find(struct amqp *self, uint64_t tag);
void pending_remove(struct amqp *self, struct pending *pending);
/* Sends the command as the channel's (0: the connection's), after the acknowledgements gathered. */
void command_send(struct amqp *self, struct command *command, uint16_t channel, uint64_t tag);
/* A catalog request whose slices stand in parts; answered by pending. Takes parts over. */
void definition_send(struct amqp *self, struct parts *parts, struct pending *pending);
/* A request in an arena of its own, as the connection's; NULL (and a 506 is raised) without memory.
 */
struct catalog_request *catalog_request_new(struct channel *channel, uint32_t method,
                                            enum catalog_op op, struct parts **parts);
/* Copies into the request's arena; *failed is set when memory is exhausted or the table is
 * malformed. */
struct slice parts_slice(struct parts *parts, struct slice text, bool *failed);
struct args parts_args(struct parts *parts, struct slice table, bool *failed);

/* ---- channel.c ---- */
struct channel *channel_get(struct amqp *self, uint16_t number);
void channel_method(struct amqp *self, uint16_t number, uint32_t method, struct slice arguments);
/* A channel error (or a connection error, when the code is hard). */
void channel_error(struct channel *channel, uint16_t code, uint32_t method, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* The error that an event brought. */
void channel_event_error(struct channel *channel, uint32_t method, const struct event *event);
/* Ends what the channel has in the broker; `done` follows when every cell knows (may be at once).
 */
void channel_gone(struct channel *channel, uint32_t method,
                  void (*done)(struct channel *, struct pending *, const struct event *));
void channel_free(struct channel *channel);
/* Random letters, for names that the server makes. */
void random_letters(struct amqp *self, char *out, int count);
/* No such queue, as text: the name, or that none was declared. */
void channel_no_queue(struct channel *channel, uint32_t method, struct slice name);
/* The queue's name, or that of the last one declared; raises 404 (false) when there is none. */
bool channel_queue_name(struct channel *channel, uint32_t method, struct slice name,
                        struct slice *out);
/* The queue, if it may be used from here; else raises the error and gives NULL. */
const struct queue_def *channel_queue(struct channel *channel, uint32_t method, struct slice name);

/* ---- one file each: methods of a channel; arguments are those of the wire ---- */
void exchange_method(struct channel *channel, uint32_t method, struct slice arguments);
void queue_method(struct channel *channel, uint32_t method, struct slice arguments);
/* Whether a queue.declare or queue.delete may begin while what is pending is not answered: that has
 * to be about other queues, and nothing may be to be said before the broker was asked. */
bool queue_method_may_pass(struct amqp *self, uint16_t channel, uint32_t method,
                           struct slice arguments);
void consume_method(struct channel *channel, uint32_t method, struct slice arguments);
void ack_method(struct channel *channel, uint32_t method, struct slice arguments);
void tx_method(struct channel *channel, uint32_t method, struct slice arguments);
void confirm_method(struct channel *channel, uint32_t method, struct slice arguments);
/* Raises 501 for arguments that do not decode. */
void arguments_error(struct amqp *self, uint32_t method);

/* ---- publish.c ---- */
struct message_in {
    struct slice exchange, routing_key;
    bool mandatory, immediate;
    struct slice list, body;
    uint8_t **memory; /* of the body, which who keeps it may take over; may be NULL */
};
/* A small message whose frames all stand in data, which begins with a basic.publish frame. Returns
 * bytes used; 0 when it is not such (use the slow way) or, with *want set, more is needed. */
size_t publish_fast(struct amqp *self, const uint8_t *data, size_t len, size_t *want);
void publish_begin(struct channel *channel, struct slice arguments);
void publish_header(struct channel *channel, struct slice payload);
/* Takes some bytes of the body; `frame_ends` with the last of a frame. */
void publish_body(struct channel *channel, struct slice bytes);
bool publish_awaits_header(const struct channel *channel);
bool publish_awaits_body(const struct channel *channel);
void publish_forget(struct channel *channel);
/* So much was taken for the body whose header comes now. */
void publish_room_set(struct channel *channel, size_t bytes);
/* Gives back all that the channel has begun; the connection is in error. */
void publish_abandon(struct channel *channel);

/* ---- Room for what is not complete (room.c) ---- */
/* False: there is none now. What is taken is given back with room_give. */
bool room_take(struct amqp *self, size_t bytes) __attribute__((warn_unused_result));
void room_give(struct amqp *self, size_t bytes);
/* Some of what is gathered came. */
void room_arrived(struct amqp *self, size_t bytes);
/* May the frame be taken? A header has to wait until there is room for its body. */
bool room_for_body(struct amqp *self, uint8_t type, uint16_t number, struct slice payload);
/* When room_timer is to be called, INT64_MAX: not at all. */
int64_t room_next_ms(const struct amqp *self);
void room_timer(struct amqp *self, int64_t now_ms);
/* Routes it, or keeps it for the transaction. */
void publish_message(struct channel *channel, const struct message_in *in);
/* The same past transactions; false when the channel was closed for it. */
bool publish_now(struct channel *channel, const struct message_in *in, uint64_t seq);
void route_cache_free(struct channel *channel);

/* ---- deliver.c ---- */
void deliver_event(struct amqp *self, const struct event *event);
/* Header and body frames of a message; buf may be NULL. */
void content_send(struct channel *channel, struct slice list, struct slice body, struct buf *buf);
/* Sends one message to a consumer. */
void deliver_send(struct consumer *consumer, uint64_t tag, bool redelivered, struct slice exchange,
                  struct slice routing_key, struct slice list, struct slice body, struct buf *buf);
/* Sends parked deliveries that the global prefetch allows again. */
void deliver_parked(struct channel *channel);
/* Gives parked deliveries of the consumer (0: all) back, as if they had never been taken. */
void parked_return(struct channel *channel, uint64_t consumer);
void window_drained(struct amqp *self);

/* ---- consumer.c ---- */
struct consumer *consumer_by_id(struct amqp *self, uint64_t id);
struct consumer *consumer_by_tag(struct channel *channel, struct slice tag);
void consumer_free(struct consumer *consumer);
void consumer_cancelled(struct amqp *self, uint64_t id);
static inline struct slice consumer_tag(const struct consumer *consumer)
{
    return slice_make(consumer->tag, consumer->tag_len);
}

/* The consumer's number; 0 when an error was raised. */
uint64_t consume_subscribe(struct channel *channel, const struct amqp_basic_consume *m,
                           const struct queue_def *queue, struct slice tag, int32_t priority);

/* ---- direct_reply.c ---- */
bool direct_reply_is_alias(struct slice name);
/* Is it a name that stands for a consumer of replies? */
bool direct_reply_is_name(struct slice name);
/* Of this channel's consumer; null when there is none. */
struct slice direct_reply_name(const struct channel *channel);
void direct_reply_consume(struct channel *channel, const struct amqp_basic_consume *m,
                          struct slice tag);
void direct_reply_cancelled(struct channel *channel, uint64_t consumer);
void direct_reply_free(struct channel *channel);

/* ---- leases.c ---- */
/* false: no memory. */
bool leases_add(struct leases *leases, const struct lease *lease);
/* Index of the tag among leases->count, or -1. */
int64_t leases_find(const struct leases *leases, uint64_t tag);
static inline struct lease *leases_at(const struct leases *leases, uint32_t index)
{
    return &leases->items[(leases->head + index) & (leases->capacity - 1)];
}
/* Marks it done and drops what is done from the front. */
void leases_done(struct leases *leases, uint32_t index);
void leases_trim(struct leases *leases);
void leases_clear(struct leases *leases);

/* ---- ack.c ---- */
void settle_add(struct amqp *self, enum command_type type, uint16_t channel, uint64_t queue,
                uint64_t offset, bool undelivered);
void settle_flush(struct amqp *self);
/* One ack, nack or reject, now; false when the tag is unknown (an error was raised). */
bool ack_apply(struct channel *channel, uint32_t method, uint64_t tag, bool multiple,
               enum command_type type);

/* ---- confirm.c ---- */
uint64_t confirm_first(const struct channel *channel);
/* Takes the next sequence number; 0 when memory is exhausted. */
uint64_t confirm_begin(struct channel *channel);
/* It went to that many cells. */
void confirm_sent(struct channel *channel, uint64_t seq, uint32_t cells);
void confirm_event(struct amqp *self, const struct event *event);
void confirms_free(struct channel *channel);

/* ---- tx.c ---- */
void tx_publish(struct channel *channel, const struct message_in *in);
void tx_ack(struct channel *channel, uint32_t method, uint64_t tag, bool multiple,
            enum command_type type);
/* All messages of a commit are safe, or refused. */
void tx_confirmed(struct channel *channel);
void tx_refused(struct channel *channel);
void tx_free(struct channel *channel);
/* Forgets what was gathered, if the channel has a transaction. */
void tx_empty(struct channel *channel);

/* ---- stream_consumer.c ---- */
/* Makes the (new) consumer one of the topic; false when an error was raised and it is to be freed.
 */
bool stream_consume(struct channel *channel, const struct amqp_basic_consume *m,
                    const struct topic *topic, struct consumer *consumer);
void stream_event(struct amqp *self, const struct event *event);
void stream_credit(struct consumer *consumer, uint32_t count);
/* Output that it waited for has left. */
void stream_drained(struct consumer *consumer);
void stream_free(struct consumer *consumer);

#endif
