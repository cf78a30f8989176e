/* A connection for tests and fuzzers of the AMQP face: the conn_ functions on plain memory, with a
 * broker behind them (fake_broker.h). Events wait until fake_run. To be included by one source
 * file of a program. */
#ifndef WEIR_FACE_AMQP_FAKE_CONN_H
#define WEIR_FACE_AMQP_FAKE_CONN_H

#include "face/amqp/fake_broker.h"

/* ---- Output and control ---- */

uint8_t *conn_reserve(struct conn *conn, size_t len)
{
    if (conn->output_capacity - conn->output_len < len) {
        conn->output_capacity = (conn->output_len + len) * 2;
        conn->output = realloc(conn->output, conn->output_capacity);
        assert(conn->output);
    }
    return conn->output + conn->output_len;
}

void conn_commit(struct conn *conn, size_t len)
{
    conn->output_len += len;
}

void conn_copy(struct conn *conn, const void *data, size_t len)
{
    if (len)
        memcpy(conn_reserve(conn, len), data, len);
    conn->output_len += len;
}

void conn_share(struct conn *conn, struct buf *buf, struct slice data)
{
    assert(data.data >= buf->data && data.data + data.len <= buf->data + buf->capacity);
    conn_copy(conn, data.data, data.len);
}

size_t conn_output_pending(const struct conn *conn)
{
    (void)conn;
    return 0;
}

void conn_release(struct conn *conn, struct buf *buf)
{
    (void)conn;
    buf_unref(buf);
}

void conn_close(struct conn *conn, bool flush)
{
    (void)flush;
    conn->closed = true;
}

void conn_want(struct conn *conn, size_t bytes)
{
    (void)conn;
    assert(bytes > 0);
}

void conn_hold(struct conn *conn)
{
    conn->held = true;
}

void conn_resume(struct conn *conn)
{
    conn->held = false;
}

void conn_timer(struct conn *conn, int64_t at_ms)
{
    conn->timer_ms = at_ms;
}

int64_t conn_now_ms(const struct conn *conn)
{
    return conn->now_ms;
}

int64_t conn_wall_ms(const struct conn *conn)
{
    return conn->now_ms + INT64_C(1700000000000);
}

uint64_t conn_random(struct conn *conn)
{
    return conn->random = conn->random * UINT64_C(6364136223846793005) + 1442695040888963407;
}

uint64_t conn_id(const struct conn *conn)
{
    (void)conn;
    return FAKE_CONN_ID;
}

const struct face_config *conn_config(const struct conn *conn)
{
    return &conn->config;
}

const struct catalog *conn_catalog(const struct conn *conn)
{
    return conn->catalog;
}

void conn_log(struct conn *conn, const char *level, const char *format, ...)
{
    (void)conn;
    (void)level;
    (void)format;
}

void conn_count(struct conn *conn, enum metric metric, int64_t n)
{
    (void)conn;
    (void)metric;
    (void)n;
}

enum err conn_login(struct conn *conn, struct slice user, struct slice password)
{
    if (!slice_equal(user, slice_of("guest")) || !slice_equal(password, slice_of("guest")))
        return ERR_REFUSED;
    memcpy(conn->user, "guest", 6);
    return ERR_NONE;
}

struct slice conn_user(const struct conn *conn)
{
    return slice_of(conn->user);
}

const char *conn_blocked(const struct conn *conn)
{
    return conn->blocked ? "disk" : NULL;
}

bool conn_unread(const struct conn *conn)
{
    (void)conn;
    return false;
}

bool conn_gather(struct conn *conn, size_t bytes)
{
    conn->gather_refused = conn->gathered > 0 && conn->gathered + bytes > conn->gather_max;
    if (!conn->gather_refused)
        conn->gathered += bytes;
    return !conn->gather_refused;
}

void conn_ungather(struct conn *conn, size_t bytes)
{
    assert(bytes <= conn->gathered);
    conn->gathered -= bytes;
}

bool conn_gather_wanted(const struct conn *conn)
{
    return conn->gather_refused;
}

uint32_t conn_cells(const struct conn *conn)
{
    (void)conn;
    return 2;
}

/* ---- For the tests ---- */

static inline struct conn *fake_open(const struct face *face)
{
    struct conn *conn = calloc(1, sizeof *conn);
    assert(conn);
    conn->face = face;
    conn->config = (struct face_config){.frame_max = 131072,
                                        .heartbeat_s = 60,
                                        .channel_max = 2047,
                                        .max_message_bytes = 1 << 20,
                                        .cluster_name = "weir@test",
                                        .version = "0"};
    conn->gather_max = 4 << 20;
    conn->catalog = catalog_create();
    assert(conn->catalog);
    conn->self = face->open(conn);
    assert(conn->self);
    return conn;
}

static inline void fake_event_give(struct conn *conn, struct fake_event event)
{
    event.event.detail = slice_of(event.detail);
    if (!conn->closed)
        conn->face->event(conn->self, &event.event);
    for (uint32_t e = 0;
         conn->closed && event.event.type == EVENT_READ && e < event.event.read.count; e++)
        buf_unref(event.entries[e].buf);
    free(event.entries);
    buf_unref(event.buf);
}

static inline void fake_events(struct conn *conn)
{
    for (uint32_t i = 0; i < conn->event_count; i++) /* more may come meanwhile */
        fake_event_give(conn, conn->events[i]);
    conn->event_count = 0;
}

/* Shows the face what it has not used, and what came of it, until nothing moves. */
static inline void fake_run(struct conn *conn)
{
    for (bool moved = true; moved;) {
        moved = false;
        if (!conn->held && !conn->closed && conn->input_len > 0) {
            size_t used = conn->face->input(conn->self, conn->input, conn->input_len);
            assert(used <= conn->input_len);
            memmove(conn->input, conn->input + used, conn->input_len - used);
            conn->input_len -= used;
            moved = used > 0;
        }
        for (uint32_t i = 0; i < conn->queue_count; i++)
            fake_pump(conn, &conn->queues[i]);
        if (conn->event_count > 0 && !conn->events_held) {
            fake_events(conn);
            moved = true;
        }
    }
}

static inline void fake_input(struct conn *conn, const void *data, size_t len)
{
    conn->input = realloc(conn->input, conn->input_len + len + 1);
    assert(conn->input);
    memcpy(conn->input + conn->input_len, data, len);
    conn->input_len += len;
    fake_run(conn);
}

/* The event at that place comes before the others; then what follows from it. */
static inline void fake_event_next(struct conn *conn, uint32_t index)
{
    assert(index < conn->event_count);
    struct fake_event event = conn->events[index];
    conn->event_count--;
    for (uint32_t i = index; i < conn->event_count; i++)
        conn->events[i] = conn->events[i + 1];
    fake_event_give(conn, event);
    fake_run(conn);
}

static inline void fake_time(struct conn *conn, int64_t ms)
{
    conn->now_ms += ms;
    if (conn->now_ms >= conn->timer_ms && !conn->closed)
        conn->face->timer(conn->self, conn->now_ms);
}

static inline void fake_close(struct conn *conn)
{
    conn->closed = true;
    conn->face->close(conn->self, ERR_NONE);
    assert(conn->gathered == 0);
    fake_events(conn);
    for (uint32_t i = 0; i < conn->queue_count; i++)
        fake_queue_empty(&conn->queues[i]);
    for (uint32_t i = 0; i < conn->partition_count; i++)
        for (uint32_t e = 0; e < conn->partitions[i].count; e++)
            buf_unref(conn->partitions[i].entries[e].buf);
    route_done(&conn->targets);
    catalog_destroy(conn->catalog);
    free(conn->events);
    free(conn->output);
    free(conn->input);
    free(conn);
}

#endif
