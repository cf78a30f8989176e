/* A connection's own life: protocol header, login, tuning, opening, heartbeats, closing. What a
 * peer does wrong ends in connection_error: connection.close goes out, everything but close-ok is
 * dropped, and after a while the connection ends anyhow. */
#include "face/amqp/amqp.h"

#include "codec/amqp_field.h"
#include "gen/amqp_send.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    CLOSE_PATIENCE_MS = 5000,
    REFUSAL_DELAY_MS = 1000, /* slows down whoever guesses passwords */
    BLOCKED_POLL_MS = 500,
    WINDOW_POLL_MS = 100,
    OWNED_MAX = 64,
};

struct slice vhost_name(const struct amqp *self)
{
    return catalog_namespace_name(conn_catalog(self->conn), self->namespace_id);
}

void connection_end(struct amqp *self, bool flush)
{
    self->stage = STAGE_DONE;
    conn_close(self->conn, flush);
}

void connection_error(struct amqp *self, uint16_t code, uint32_t method, const char *format, ...)
{
    char text[256];
    int len = snprintf(text, sizeof text, "%s - ", amqp_reply_name(code));
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text + len, sizeof text - (size_t)len, format, arguments);
    va_end(arguments);
    if (self->stage >= STAGE_CLOSING)
        return;
    conn_count(self->conn, METRIC_AMQP_ERRORS_CONNECTION, 1);
    conn_log(self->conn, "warn", "event=\"amqp connection error\" code=%u text=\"%s\"", code, text);
    struct amqp_connection_close m = {
        .reply_code = code,
        .reply_text = slice_of(text),
        .class_id = (uint16_t)(method >> 16),
        .method_id = (uint16_t)method,
    };
    amqp_connection_close_send(self->conn, 0, &m);
    self->stage = STAGE_CLOSING;
    self->close_at_ms = conn_now_ms(self->conn) + CLOSE_PATIENCE_MS;
    self->told_blocked = false;
    input_resume(self);
    connection_timer_set(self);
}

void arguments_error(struct amqp *self, uint32_t method)
{
    connection_error(self, 501, method, "malformed arguments of %s", amqp_method_name(method));
}

/* ---- Opening ---- */

static void start_send(struct amqp *self)
{
    static const char *const capabilities[] = {
        "publisher_confirms",           "exchange_exchange_bindings", "basic.nack",
        "consumer_cancel_notify",       "connection.blocked",         "consumer_priorities",
        "authentication_failure_close", "per_consumer_qos",           "direct_reply_to",
    };
    const struct face_config *config = conn_config(self->conn);
    uint8_t table[1024];
    struct writer writer = writer_over(table, sizeof table);
    writer_u8(&writer, 12);
    writer_bytes(&writer, "capabilities", 12);
    writer_u8(&writer, 'F');
    uint8_t *inside = amqp_inside_begin(&writer);
    for (size_t i = 0; i < sizeof capabilities / sizeof capabilities[0]; i++) {
        struct amqp_field field = amqp_bool(capabilities[i], true);
        amqp_field_write(&writer, &field);
    }
    amqp_inside_end(&writer, inside);
    const struct amqp_field fields[] = {
        amqp_text("cluster_name", slice_of(config->cluster_name)),
        amqp_text("information", slice_of("Licensed under the Apache License 2.0")),
        amqp_text("platform", slice_of("C")),
        amqp_text("product", slice_of("Weir")),
        amqp_text("version", slice_of(config->version)),
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        amqp_field_write(&writer, &fields[i]);
    struct amqp_connection_start m = {
        .version_major = 0,
        .version_minor = 9,
        .server_properties = slice_make(table, (size_t)(writer.at - table)),
        .mechanisms = slice_of("PLAIN AMQPLAIN"),
        .locales = slice_of("en_US"),
    };
    amqp_connection_start_send(self->conn, 0, &m);
}

size_t connection_header(struct amqp *self, const uint8_t *data, size_t len)
{
    static const char ours[8] = {'A', 'M', 'Q', 'P', 0, 0, 9, 1};
    static const char older[8] = {'A', 'M', 'Q', 'P', 1, 1, 0, 9};
    size_t seen = len < sizeof ours ? len : sizeof ours;
    bool known = memcmp(data, ours, seen) == 0 || memcmp(data, older, seen) == 0;
    if (known && len < sizeof ours) {
        conn_want(self->conn, sizeof ours);
        return 0;
    }
    if (!known) {
        conn_copy(self->conn, ours, sizeof ours);
        connection_end(self, true);
        return len;
    }
    self->stage = STAGE_START_OK;
    start_send(self);
    return sizeof ours;
}

static bool capability(struct slice properties, const char *name)
{
    struct amqp_field capabilities, field;
    return amqp_table_find(properties, "capabilities", &capabilities) && capabilities.type == 'F' &&
           amqp_table_find(capabilities.bytes, name, &field) && field.type == 't' &&
           field.number != 0;
}

/* "\0user\0password" behind an authorization identity that is not looked at. */
static bool plain_parse(struct slice response, struct slice *user, struct slice *password)
{
    const uint8_t *end = response.data + response.len;
    const uint8_t *first = response.len ? memchr(response.data, 0, response.len) : NULL;
    const uint8_t *second = first ? memchr(first + 1, 0, (size_t)(end - first - 1)) : NULL;
    if (!second)
        return false;
    *user = slice_make(first + 1, (size_t)(second - first - 1));
    *password = slice_make(second + 1, (size_t)(end - second - 1));
    return true;
}

static bool amqplain_parse(struct slice response, struct slice *user, struct slice *password)
{
    struct amqp_field login, secret;
    if (!amqp_table_find(response, "LOGIN", &login) || login.type != 'S' ||
        !amqp_table_find(response, "PASSWORD", &secret) || secret.type != 'S')
        return false;
    *user = login.bytes;
    *password = secret.bytes;
    return true;
}

static void refuse_login(struct amqp *self, struct slice mechanism)
{
    if (self->can_auth_failure) {
        connection_error(self, 403, 0,
                         "Login was refused using authentication mechanism %.*s. For details see "
                         "the broker logfile.",
                         (int)mechanism.len, (const char *)mechanism.data);
        return;
    }
    self->stage = STAGE_CLOSING;
    self->close_at_ms = conn_now_ms(self->conn) + REFUSAL_DELAY_MS;
    connection_timer_set(self);
}

static void start_ok(struct amqp *self, struct slice arguments)
{
    struct amqp_connection_start_ok m;
    if (!amqp_connection_start_ok_read(arguments, &m)) {
        arguments_error(self, AMQP_CONNECTION_START_OK);
        return;
    }
    self->can_cancel = capability(m.client_properties, "consumer_cancel_notify");
    self->can_blocked = capability(m.client_properties, "connection.blocked");
    self->can_auth_failure = capability(m.client_properties, "authentication_failure_close");
    struct slice user, password;
    bool parsed;
    if (slice_equal(m.mechanism, slice_of("PLAIN"))) {
        parsed = plain_parse(m.response, &user, &password);
    } else if (slice_equal(m.mechanism, slice_of("AMQPLAIN"))) {
        parsed = amqplain_parse(m.response, &user, &password);
    } else {
        connection_error(self, 504, AMQP_CONNECTION_START_OK,
                         "unknown authentication mechanism '%.*s'", (int)m.mechanism.len,
                         (const char *)m.mechanism.data);
        return;
    }
    if (!parsed || conn_login(self->conn, user, password)) {
        refuse_login(self, m.mechanism);
        return;
    }
    const struct face_config *config = conn_config(self->conn);
    self->stage = STAGE_TUNE_OK;
    struct amqp_connection_tune tune = {
        .channel_max = config->channel_max,
        .frame_max = config->frame_max,
        .heartbeat = (uint16_t)config->heartbeat_s,
    };
    amqp_connection_tune_send(self->conn, 0, &tune);
}

/* 0 means no limit, which is higher than any. */
static bool within(struct amqp *self, const char *name, uint32_t value, uint32_t max)
{
    if (max == 0 || (value != 0 && value <= max))
        return true;
    connection_error(self, 530, AMQP_CONNECTION_TUNE_OK,
                     value == 0
                         ? "negotiated %s = %u (no limit) is higher than the maximum "
                           "allowed value (%u)"
                         : "negotiated %s = %u is higher than the maximum allowed value (%u)",
                     name, value, max);
    return false;
}

static void tune_ok(struct amqp *self, struct slice arguments)
{
    struct amqp_connection_tune_ok m;
    const struct face_config *config = conn_config(self->conn);
    if (!amqp_connection_tune_ok_read(arguments, &m)) {
        arguments_error(self, AMQP_CONNECTION_TUNE_OK);
        return;
    }
    if (!within(self, "channel_max", m.channel_max, config->channel_max) ||
        !within(self, "frame_max", m.frame_max, config->frame_max))
        return;
    enum { FRAME_MIN_SIZE = 4096 };
    if (m.frame_max < FRAME_MIN_SIZE) {
        connection_error(self, 530, AMQP_CONNECTION_TUNE_OK,
                         "negotiated frame_max = %u is lower than the minimum allowed value (%u)",
                         m.frame_max, FRAME_MIN_SIZE);
        return;
    }
    self->frame_max = m.frame_max;
    self->channel_max = m.channel_max;
    self->heartbeat_s = m.heartbeat;
    self->stage = STAGE_OPEN;
    if (m.heartbeat > 0)
        self->heartbeat_at_ms = conn_now_ms(self->conn) + m.heartbeat * INT64_C(500);
    connection_timer_set(self);
}

static void open_vhost(struct amqp *self, struct slice arguments)
{
    struct amqp_connection_open m;
    if (!amqp_connection_open_read(arguments, &m)) {
        arguments_error(self, AMQP_CONNECTION_OPEN);
        return;
    }
    if (!catalog_namespace(conn_catalog(self->conn), m.virtual_host, &self->namespace_id)) {
        connection_error(self, 530, AMQP_CONNECTION_OPEN, "vhost %.*s not found",
                         (int)m.virtual_host.len, (const char *)m.virtual_host.data);
        return;
    }
    self->stage = STAGE_RUNNING;
    self->close_at_ms = INT64_MAX;
    connection_timer_set(self);
    amqp_connection_open_ok_send(self->conn, 0, &(struct amqp_connection_open_ok){0});
}

/* ---- Leaving ---- */

void connection_leave_step(struct amqp *self)
{
    if (self->leaving > 0)
        return;
    amqp_connection_close_ok_send(self->conn, 0, &(struct amqp_connection_close_ok){0});
    connection_end(self, true);
}

static void left(struct channel *channel, struct pending *pending, const struct event *event)
{
    (void)channel;
    (void)pending;
    (void)event;
}

static void owned_queues_delete(struct amqp *self)
{
    uint64_t ids[OWNED_MAX];
    uint32_t count = catalog_owned(conn_catalog(self->conn), conn_id(self->conn), ids, OWNED_MAX);
    for (uint32_t i = 0; i < count && i < OWNED_MAX && self->stage == STAGE_LEAVING; i++) {
        struct pending *pending = pending_add(self, NULL, AMQP_CONNECTION_CLOSE, left);
        if (!pending)
            return;
        self->leaving++;
        struct command command = {.type = COMMAND_DELETE_QUEUE, .object = ids[i]};
        command_send(self, &command, 0, pending->tag);
    }
}

/* What the connection had in the broker goes before it is told that it is closed. */
static void leave(struct amqp *self)
{
    settle_flush(self);
    self->stage = STAGE_LEAVING;
    self->leaving = 1;
    for (uint32_t i = 0; i < self->channel_slots; i++) {
        struct channel *channel = self->channels[i];
        if (!channel)
            continue;
        if (channel->touched) {
            struct pending *pending = pending_add(self, NULL, AMQP_CONNECTION_CLOSE, left);
            if (!pending)
                return;
            pending->answers = conn_cells(self->conn);
            self->leaving++;
            parked_return(channel, 0);
            struct command command = {.type = COMMAND_CHANNEL_GONE};
            command_send(self, &command, channel->number, pending->tag);
        }
        channel_free(channel);
    }
    owned_queues_delete(self);
    if (self->stage != STAGE_LEAVING)
        return;
    self->leaving--;
    connection_leave_step(self);
}

void connection_method(struct amqp *self, uint32_t method, struct slice arguments)
{
    struct amqp_connection_close close;
    struct amqp_connection_update_secret secret;
    switch (method) {
    case AMQP_CONNECTION_START_OK:
        if (self->stage == STAGE_START_OK) {
            start_ok(self, arguments);
            return;
        }
        break;
    case AMQP_CONNECTION_TUNE_OK:
        if (self->stage == STAGE_TUNE_OK) {
            tune_ok(self, arguments);
            return;
        }
        break;
    case AMQP_CONNECTION_OPEN:
        if (self->stage == STAGE_OPEN) {
            open_vhost(self, arguments);
            return;
        }
        break;
    case AMQP_CONNECTION_CLOSE:
        if (!amqp_connection_close_read(arguments, &close))
            arguments_error(self, method);
        else
            leave(self);
        return;
    case AMQP_CONNECTION_CLOSE_OK:
        connection_end(self, true);
        return;
    case AMQP_CONNECTION_UPDATE_SECRET:
        if (!amqp_connection_update_secret_read(arguments, &secret))
            arguments_error(self, method);
        else
            amqp_connection_update_secret_ok_send(self->conn, 0,
                                                  &(struct amqp_connection_update_secret_ok){0});
        return;
    case AMQP_CONNECTION_BLOCKED:
    case AMQP_CONNECTION_UNBLOCKED:
        return;
    default:
        break;
    }
    connection_error(self, 503, method, "%s is not expected now", amqp_method_name(method));
}

/* ---- Time ---- */

void connection_timer_set(struct amqp *self)
{
    int64_t at =
        self->close_at_ms < self->heartbeat_at_ms ? self->close_at_ms : self->heartbeat_at_ms;
    int64_t now_ms = conn_now_ms(self->conn);
    int64_t room_ms = room_next_ms(self);
    if (room_ms < at)
        at = room_ms;
    if (self->published && self->can_blocked && now_ms + BLOCKED_POLL_MS < at)
        at = now_ms + BLOCKED_POLL_MS;
    /* Should output drain without a word: it never rose to the mark that drained() is about. */
    if (!list_empty(&self->unreported) && now_ms + WINDOW_POLL_MS < at)
        at = now_ms + WINDOW_POLL_MS;
    conn_timer(self->conn, at);
}

void connection_check_blocked(struct amqp *self)
{
    const char *what = conn_blocked(self->conn);
    if (self->stage != STAGE_RUNNING || (what != NULL) == self->told_blocked)
        return;
    self->told_blocked = what != NULL;
    if (what != NULL) {
        char reason[64];
        snprintf(reason, sizeof reason, "low on %s", what);
        amqp_connection_blocked_send(self->conn, 0,
                                     &(struct amqp_connection_blocked){.reason = slice_of(reason)});
    } else {
        amqp_connection_unblocked_send(self->conn, 0, &(struct amqp_connection_unblocked){0});
    }
    connection_timer_set(self);
}

/* Every half interval: a heartbeat out, unless something else went; two whole intervals without
 * input, while we were listening, end the connection. */
static void heartbeat(struct amqp *self, int64_t now_ms)
{
    static const uint8_t frame[8] = {AMQP_FRAME_HEARTBEAT, 0, 0, 0, 0, 0, 0, AMQP_FRAME_END};
    if (self->held || conn_blocked(self->conn) != NULL || conn_unread(self->conn))
        self->input_ms = now_ms;
    if (now_ms - self->input_ms > self->heartbeat_s * INT64_C(2000)) {
        conn_log(self->conn, "warn", "event=\"missed heartbeats from client\" timeout_s=%u",
                 self->heartbeat_s);
        connection_end(self, false);
        return;
    }
    if (!self->wrote)
        conn_copy(self->conn, frame, sizeof frame);
    self->wrote = false;
    self->heartbeat_at_ms = now_ms + self->heartbeat_s * INT64_C(500);
}

void connection_timer(struct amqp *self, int64_t now_ms)
{
    if (self->stage == STAGE_DONE)
        return;
    if (now_ms >= self->close_at_ms) {
        connection_end(self, true);
        return;
    }
    if (self->published && self->can_blocked)
        connection_check_blocked(self);
    room_timer(self, now_ms);
    if (self->stage == STAGE_RUNNING)
        window_drained(self);
    if (now_ms >= self->heartbeat_at_ms)
        heartbeat(self, now_ms);
    if (self->stage != STAGE_DONE)
        connection_timer_set(self);
}
