/* Frames of a connection: cut out of the input, checked, and given to whom they are for. A method
 * is held back while the broker still owes an answer, see frame_may_pass. Bodies in large frames
 * are taken as they arrive, so no more than the message itself is ever kept. */
#include "face/amqp/amqp.h"

#include "codec/amqp_wire.h"
#include "gen/amqp_send.h"

#include <stdlib.h>

enum { PARTIAL_BYTES_MIN = 32 << 10, SCRATCH_CHUNK_BYTES = 4096, SCRATCH_BYTES_MAX = 16 << 20 };

static void *amqp_open(struct conn *conn)
{
    struct amqp *self = calloc(1, sizeof *self);
    if (!self)
        return NULL;
    self->conn = conn;
    self->stage = STAGE_HEADER;
    self->frame_max = conn_config(conn)->frame_max;
    self->input_ms = conn_now_ms(conn);
    self->close_at_ms = self->input_ms + 10000; /* until the handshake is over */
    self->heartbeat_at_ms = INT64_MAX;
    list_init(&self->pending);
    list_init(&self->unreported);
    arena_init(&self->scratch, SCRATCH_CHUNK_BYTES, SCRATCH_BYTES_MAX);
    connection_timer_set(self);
    return self;
}

static void amqp_close(void *context, enum err err)
{
    struct amqp *self = context;
    (void)err;
    self->stage = STAGE_DONE;
    for (uint32_t i = 0; i < self->channel_slots; i++)
        if (self->channels[i])
            channel_free(self->channels[i]);
    while (!list_empty(&self->pending))
        pending_remove(self, list_entry(self->pending.next, struct pending, link));
    free(self->channels);
    free(self->consumers);
    free(self->settles);
    arena_done(&self->scratch);
    free(self);
}

/* ---- What must wait ---- */

static bool is_catalog_method(uint32_t method)
{
    switch (method) {
    case AMQP_EXCHANGE_DECLARE:
    case AMQP_EXCHANGE_DELETE:
    case AMQP_EXCHANGE_BIND:
    case AMQP_EXCHANGE_UNBIND:
    case AMQP_QUEUE_DECLARE:
    case AMQP_QUEUE_BIND:
    case AMQP_QUEUE_UNBIND:
        return true;
    default:
        return false;
    }
}

/* Passive declares look things up, so they wait for what was declared before. */
static bool is_passive(uint32_t method, struct slice arguments)
{
    struct amqp_queue_declare queue;
    struct amqp_exchange_declare exchange;
    if (method == AMQP_QUEUE_DECLARE)
        return !amqp_queue_declare_read(arguments, &queue) || queue.passive;
    if (method == AMQP_EXCHANGE_DECLARE)
        return !amqp_exchange_declare_read(arguments, &exchange) || exchange.passive;
    return false;
}

/* Answers are due: only catalog methods may follow, if all that is under way is of the catalog, and
 * what concerns queues that nothing under way is about. */
static bool frame_may_pass(struct amqp *self, uint8_t type, uint16_t number, struct slice payload)
{
    if (type == AMQP_FRAME_HEARTBEAT)
        return true;
    if (type != AMQP_FRAME_METHOD || payload.len < 4 ||
        self->pending_count >= CATALOG_IN_FLIGHT_MAX)
        return false;
    uint32_t method = be32_get(payload.data);
    struct slice arguments = slice_make(payload.data + 4, payload.len - 4);
    bool catalog = is_catalog_method(method) && !is_passive(method, arguments);
    list_each(node, &self->pending)
    {
        if (!list_entry(node, struct pending, link)->catalog)
            catalog = false;
    }
    return catalog || queue_method_may_pass(self, number, method, arguments);
}

static void hold(struct amqp *self)
{
    self->held = true;
    conn_hold(self->conn);
}

void input_resume(struct amqp *self)
{
    if (!self->held)
        return;
    self->held = false;
    self->input_ms = conn_now_ms(self->conn);
    conn_resume(self->conn);
}

/* ---- Dispatch ---- */

static void method_frame(struct amqp *self, uint16_t number, struct slice payload)
{
    if (payload.len < 4) {
        connection_error(self, 501, 0, "method frame of %zu bytes", payload.len);
        return;
    }
    uint32_t method = be32_get(payload.data);
    struct slice arguments = slice_make(payload.data + 4, payload.len - 4);
    const char *name = amqp_method_name(method);
    if (self->stage == STAGE_CLOSING) {
        if (number == 0 && method == AMQP_CONNECTION_CLOSE_OK)
            connection_end(self, true);
        else if (number == 0 && method == AMQP_CONNECTION_CLOSE)
            amqp_connection_close_ok_send(self->conn, 0, &(struct amqp_connection_close_ok){0});
        return;
    }
    if (!name) {
        connection_error(self, 503, method, "unknown method %u.%u", method >> 16, method & 0xffff);
    } else if (!amqp_method_from_client(method)) {
        connection_error(self, 503, method, "unimplemented method %s", name);
    } else if (number == 0) {
        if (method >> 16 == AMQP_CONNECTION_START >> 16)
            connection_method(self, method, arguments);
        else
            connection_error(self, 504, method, "expected 'connection.*' on channel 0");
    } else if (self->stage != STAGE_RUNNING) {
        connection_error(self, 503, method, "the connection is not open");
    } else {
        channel_method(self, number, method, arguments);
    }
}

static const char *content_problem(const struct channel *channel, uint8_t type)
{
    if (publish_awaits_header(channel))
        return type == AMQP_FRAME_HEADER ? NULL
                                         : "expected content header for class 60, got non content "
                                           "header frame instead";
    if (publish_awaits_body(channel))
        return type == AMQP_FRAME_BODY
                   ? NULL
                   : "expected content body, got non content body frame instead";
    return type == AMQP_FRAME_METHOD ? NULL : "expected method frame, got non method frame instead";
}

/* Is the frame one that the channel can take now? Raises the error otherwise. *out is NULL for what
 * is to be dropped, and for channel 0. */
static bool frame_expected(struct amqp *self, uint8_t type, uint16_t number, struct channel **out)
{
    *out = NULL;
    if (self->stage == STAGE_CLOSING)
        return true;
    if (number == 0) {
        if (type == AMQP_FRAME_METHOD)
            return true;
        connection_error(self, 505, 0, "content frame on channel 0");
        return false;
    }
    struct channel *channel = channel_get(self, number);
    if (!channel) {
        if (type == AMQP_FRAME_METHOD)
            return true; /* channel_method knows */
        connection_error(self, 504, 0, "expected 'channel.open'");
        return false;
    }
    *out = channel;
    if (channel->state == CHANNEL_CLOSING)
        return true;
    const char *problem = content_problem(channel, type);
    if (problem)
        connection_error(self, 505, 0, "%s", problem);
    return problem == NULL;
}

static void frame_take(struct amqp *self, uint8_t type, uint16_t number, struct slice payload)
{
    if (type == AMQP_FRAME_HEARTBEAT) {
        if (number != 0)
            connection_error(self, 505, 0, "heartbeat on channel %u", number);
        return;
    }
    struct channel *channel;
    if (!frame_expected(self, type, number, &channel))
        return;
    if (type == AMQP_FRAME_METHOD) {
        method_frame(self, number, payload);
        return;
    }
    if (!channel || channel->state == CHANNEL_CLOSING)
        return;
    if (type == AMQP_FRAME_HEADER)
        publish_header(channel, payload);
    else
        publish_body(channel, payload);
}

/* ---- Cutting ---- */

static bool head_valid(struct amqp *self, const uint8_t *head, uint32_t size)
{
    uint8_t type = head[0];
    if (type != AMQP_FRAME_METHOD && type != AMQP_FRAME_HEADER && type != AMQP_FRAME_BODY &&
        type != AMQP_FRAME_HEARTBEAT) {
        connection_error(self, 501, 0, "type %u, all octets = <<>>: {frame_too_large,%u,%u}", type,
                         size, self->frame_max - AMQP_FRAME_OVERHEAD_BYTES);
        return false;
    }
    /* Eight octets more are tolerated, as some clients do not count the frame's own. */
    if (size > self->frame_max) {
        connection_error(self, 501, 0, "type %u, all octets = <<>>: {frame_too_large,%u,%u}", type,
                         size, self->frame_max - AMQP_FRAME_OVERHEAD_BYTES);
        return false;
    }
    return true;
}

/* Goes on with a body frame that did not arrive whole. Returns bytes used. */
static size_t partial_go_on(struct amqp *self, const uint8_t *data, size_t len)
{
    size_t used = len < self->partial_left ? len : self->partial_left;
    if (used && self->partial->state == CHANNEL_OPEN)
        publish_body(self->partial, slice_make(data, used));
    self->partial_left -= (uint32_t)used;
    if (self->partial_left > 0 || used == len || self->stage != STAGE_RUNNING)
        return used;
    if (data[used] != AMQP_FRAME_END)
        connection_error(self, 501, 0, "bad frame end octet %u", data[used]);
    self->partial = NULL;
    return used + 1;
}

/* A large body frame of which only the beginning is here: true when its payload is taken as it
 * comes. */
static bool partial_begin(struct amqp *self, uint8_t type, uint16_t number, uint32_t size)
{
    if (type != AMQP_FRAME_BODY || size < PARTIAL_BYTES_MIN || self->stage != STAGE_RUNNING)
        return false;
    struct channel *channel = channel_get(self, number);
    if (!channel || channel->state != CHANNEL_OPEN || !publish_awaits_body(channel))
        return false;
    self->partial = channel;
    self->partial_left = size;
    return true;
}

/* Takes one frame, or the beginning of a large one. Returns bytes used, 0 when the rest has to
 * wait. */
static size_t step(struct amqp *self, const uint8_t *data, size_t len)
{
    if (self->partial)
        return partial_go_on(self, data, len);
    if (len < AMQP_FRAME_HEAD_BYTES) {
        conn_want(self->conn, AMQP_FRAME_OVERHEAD_BYTES);
        return 0;
    }
    uint8_t type = data[0];
    uint16_t number = be16_get(data + 1);
    uint32_t size = be32_get(data + 3);
    if (!head_valid(self, data, size))
        return len;
    size_t whole = (size_t)size + AMQP_FRAME_OVERHEAD_BYTES;
    if (len < whole && self->pending_count == 0 && partial_begin(self, type, number, size))
        return AMQP_FRAME_HEAD_BYTES;
    if (len < whole) {
        conn_want(self->conn, whole);
        return 0;
    }
    struct slice payload = slice_make(data + AMQP_FRAME_HEAD_BYTES, size);
    if (data[whole - 1] != AMQP_FRAME_END) {
        connection_error(self, 501, 0, "bad frame end octet %u", data[whole - 1]);
        return len;
    }
    if (self->pending_count > 0 && self->stage == STAGE_RUNNING &&
        !frame_may_pass(self, type, number, payload)) {
        hold(self);
        return 0;
    }
    if (!room_for_body(self, type, number, payload)) {
        hold(self);
        return 0;
    }
    frame_take(self, type, number, payload);
    return whole;
}

static size_t amqp_input(void *context, const uint8_t *data, size_t len)
{
    struct amqp *self = context;
    size_t used = 0;
    self->input_ms = conn_now_ms(self->conn);
    if (self->stage == STAGE_HEADER) {
        used = connection_header(self, data, len);
        if (used == 0)
            return 0;
    }
    while (used < len && self->stage != STAGE_DONE && self->stage != STAGE_LEAVING) {
        size_t want = 0, taken = 0;
        if (self->stage == STAGE_RUNNING && self->pending_count == 0 && !self->partial)
            taken = publish_fast(self, data + used, len - used, &want);
        if (taken == 0 && want > 0) {
            conn_want(self->conn, want);
            break;
        }
        if (taken == 0)
            taken = step(self, data + used, len - used);
        if (taken == 0)
            break;
        used += taken;
    }
    settle_flush(self);
    arena_reset(&self->scratch);
    return self->stage == STAGE_DONE || self->stage == STAGE_LEAVING ? len : used;
}

static void amqp_event(void *context, const struct event *event)
{
    struct amqp *self = context;
    if (event->type == EVENT_READ) {
        stream_event(self, event); /* holds references whatever the stage */
        return;
    }
    if (event->type == EVENT_ANSWER && self->stage != STAGE_DONE)
        pending_answer(self, event);
    if (self->stage != STAGE_RUNNING)
        return;
    switch (event->type) {
    case EVENT_DELIVER:
        deliver_event(self, event);
        break;
    case EVENT_PUBLISHED:
        confirm_event(self, event);
        break;
    case EVENT_CANCELLED:
        consumer_cancelled(self, event->cancelled.consumer);
        break;
    case EVENT_ANSWER:
    case EVENT_READ:
        break;
    }
}

static void amqp_drained(void *context)
{
    window_drained(context);
}

static void amqp_timer(void *context, int64_t now_ms)
{
    connection_timer(context, now_ms);
}

static void amqp_stop(void *context)
{
    struct amqp *self = context;
    if (self->stage == STAGE_RUNNING)
        connection_error(self, 320, 0, "broker forced connection closure with reason 'shutdown'");
}

const struct face face_amqp = {
    .name = "amqp",
    .waits_when_full = true,
    .default_port = 5672,
    .protocol = METRIC_PROTOCOL_AMQP,
    .open = amqp_open,
    .input = amqp_input,
    .event = amqp_event,
    .drained = amqp_drained,
    .timer = amqp_timer,
    .stop = amqp_stop,
    .close = amqp_close,
};
