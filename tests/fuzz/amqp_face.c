/* The AMQP face under arbitrary input. The first byte chooses: bit 0, the handshake is done
 * properly first; bit 1, the rest is cut into well-formed frames, so that fuzzing gets behind the
 * framing; bits 2 to 4, in how small pieces it arrives; bit 5, publishes are refused; bit 6, the
 * broker's answers wait, and after each frame one of them comes, in no order but that of one
 * channel's. The fake broker asserts that only leased messages are settled. */
#include "face/amqp/fake_conn.h"

#include "codec/amqp_wire.h"
#include "gen/amqp_method.h"

#include "pieces.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void handshake(struct conn *conn)
{
    uint8_t frame[256];
    fake_input(conn, "AMQP\0\0\11\1", 8);
    const struct amqp_connection_start_ok start = {
        .client_properties =
            slice_make("\14capabilitiesF\0\0\0\31\26consumer_cancel_notifyt\1", 44),
        .mechanism = slice_of("PLAIN"),
        .response = slice_make("\0guest\0guest", 12),
        .locale = slice_of("en_US"),
    };
    fake_input(conn, frame, amqp_connection_start_ok_frame(frame, 0, &start));
    const struct amqp_connection_tune_ok tune = {2047, 4096, 60};
    fake_input(conn, frame, amqp_connection_tune_ok_frame(frame, 0, &tune));
    const struct amqp_connection_open open = {.virtual_host = slice_of("/")};
    fake_input(conn, frame, amqp_connection_open_frame(frame, 0, &open));
    for (uint16_t channel = 1; channel < 3; channel++) {
        fake_input(conn, frame,
                   amqp_channel_open_frame(frame, channel, &(struct amqp_channel_open){0}));
        const struct amqp_queue_declare declare = {.queue = slice_of("q"),
                                                   .arguments = slice_make("", 0)};
        fake_input(conn, frame, amqp_queue_declare_frame(frame, channel, &declare));
    }
}

static void feed(struct conn *conn, const uint8_t *data, size_t size, size_t piece)
{
    for (size_t at = 0; at < size && !conn->closed; at += piece)
        fake_input(conn, data + at, size - at < piece ? size - at : piece);
}

/* One of the answers that wait, out of the first ones that are of different channels; or whatever
 * comes first. */
static void answer(struct conn *conn, uint32_t wish)
{
    uint32_t free = 0, seen = 0;
    while (free < conn->event_count && conn->events[free].event.type == EVENT_ANSWER) {
        uint32_t channel = UINT32_C(1) << (conn->events[free].event.asker.channel & 31);
        if (seen & channel)
            break;
        seen |= channel;
        free++;
    }
    if (conn->event_count > 0)
        fake_event_next(conn, free > 0 ? wish % free : 0);
}

/* {type, channel and what is answered, length, payload}... as frames. */
static void feed_frames(struct conn *conn, const uint8_t *data, size_t size, size_t piece)
{
    static const uint8_t types[4] = {AMQP_FRAME_METHOD, AMQP_FRAME_METHOD, AMQP_FRAME_HEADER,
                                     AMQP_FRAME_BODY};
    uint8_t frame[256 + AMQP_FRAME_OVERHEAD_BYTES];
    for (size_t at = 0; at + 2 <= size && !conn->closed;) {
        size_t len = data[at + 1];
        if (len > size - at - 2)
            len = size - at - 2;
        uint8_t *end = amqp_frame_head_put(frame, types[data[at] & 3], data[at] >> 2 & 3, len);
        memcpy(end, data + at + 2, len);
        end[len] = AMQP_FRAME_END;
        feed(conn, frame, len + AMQP_FRAME_OVERHEAD_BYTES, piece);
        uint32_t wish = data[at] >> 4;
        if (wish > 0)
            answer(conn, wish - 1);
        at += 2 + len;
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t size_max, unsigned seed)
{
    return pieces_mutate(data, size, size_max, seed, 2, 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > 1 << 16)
        return 0;
    uint8_t choice = data[0];
    size_t piece = choice >> 2 & 7 ? (size_t)1 << ((choice >> 2 & 7) - 1) : size;
    struct conn *conn = fake_open(&face_amqp);
    if (choice & 1)
        handshake(conn);
    if (choice & 32)
        conn->publish_err = ERR_REJECTED;
    conn->events_held = choice & 64;
    if (choice & 2)
        feed_frames(conn, data + 1, size - 1, piece);
    else
        feed(conn, data + 1, size - 1, piece);
    conn->events_held = false;
    fake_run(conn);
    for (int i = 0; i < 4; i++)
        fake_time(conn, 7000);
    fake_close(conn);
    return 0;
}
