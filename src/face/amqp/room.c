/* Room for messages that a connection has begun and not ended: bodies that arrive in pieces, and
 * what a transaction gathers. All connections share it (conn_gather). Where there is none left, a
 * body waits in front of its header and its connection is not read; a transaction is refused. So
 * that nobody keeps the others waiting for ever, a connection that holds room and from which hardly
 * anything comes is ended while somebody waits, which may be itself. */
#include "face/amqp/amqp.h"

#include "codec/amqp_wire.h"
#include "gen/amqp_method.h"

enum {
    ROOM_PATIENCE_MS = 2000,        /* for a holder from whom nothing comes */
    ROOM_SLOWEST_BYTES_PER_MS = 64, /* whoever sends at least that fast may go on */
    ROOM_POLL_MS = 10,              /* how often who waits asks again */
    ROOM_LOOK_MS = 500,             /* how often a holder is looked at */
};

bool room_take(struct amqp *self, size_t bytes)
{
    if (!conn_gather(self->conn, bytes))
        return false;
    if (self->room_bytes == 0) {
        self->room_due_ms = conn_now_ms(self->conn) + ROOM_PATIENCE_MS;
        self->room_look_ms = conn_now_ms(self->conn) + ROOM_LOOK_MS;
    }
    self->room_bytes += bytes;
    return true;
}

void room_give(struct amqp *self, size_t bytes)
{
    self->room_bytes -= bytes;
    conn_ungather(self->conn, bytes);
}

void room_arrived(struct amqp *self, size_t bytes)
{
    int64_t latest = conn_now_ms(self->conn) + ROOM_PATIENCE_MS;
    self->room_due_ms += (int64_t)(bytes / ROOM_SLOWEST_BYTES_PER_MS) + 1;
    if (self->room_due_ms > latest)
        self->room_due_ms = latest;
}

bool room_for_body(struct amqp *self, uint8_t type, uint16_t number, struct slice payload)
{
    self->room_waits = false;
    if (type != AMQP_FRAME_HEADER || self->stage != STAGE_RUNNING)
        return true;
    struct channel *channel = channel_get(self, number);
    if (!channel || channel->state != CHANNEL_OPEN || !publish_awaits_header(channel) ||
        payload.len < AMQP_CONTENT_HEAD_BYTES + 2)
        return true;
    uint64_t body = be64_get(payload.data + 4);
    if (body > conn_config(self->conn)->max_message_bytes)
        return true; /* is refused for that */
    size_t bytes = (size_t)body + payload.len - AMQP_CONTENT_HEAD_BYTES;
    if (room_take(self, bytes)) {
        publish_room_set(channel, bytes);
        connection_timer_set(self);
        return true;
    }
    self->room_waits = true;
    self->room_look_ms = conn_now_ms(self->conn) + ROOM_POLL_MS;
    connection_timer_set(self);
    return false;
}

int64_t room_next_ms(const struct amqp *self)
{
    return self->room_waits || self->room_bytes > 0 ? self->room_look_ms : INT64_MAX;
}

void room_timer(struct amqp *self, int64_t now_ms)
{
    if (self->stage != STAGE_RUNNING || now_ms < room_next_ms(self))
        return;
    self->room_look_ms = now_ms + ROOM_LOOK_MS;
    if (conn_unread(self->conn) && !self->room_waits)
        self->room_due_ms = now_ms + ROOM_PATIENCE_MS; /* it could not go on */
    if (self->room_bytes > 0 && now_ms > self->room_due_ms && conn_gather_wanted(self->conn)) {
        connection_error(self, 506, AMQP_BASIC_PUBLISH,
                         "unfinished messages come too slowly while others wait for their memory");
        for (uint32_t i = 0; i < self->channel_slots; i++)
            if (self->channels[i])
                publish_abandon(self->channels[i]);
        return;
    }
    if (self->room_waits)
        input_resume(self);
}
