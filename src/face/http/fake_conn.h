/* A connection for tests and fuzzers of the HTTP face: the conn_ functions that it uses, on plain
 * memory. To be included by one source file of a program. */
#ifndef WEIR_FACE_HTTP_FAKE_CONN_H
#define WEIR_FACE_HTTP_FAKE_CONN_H

#include "face/face.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct conn {
    void *self;
    struct face_config config;
    uint64_t metrics[METRIC_COUNT];
    enum err health;
    uint8_t *output; /* ends with a NUL that is not counted */
    size_t output_len, pending;
    uint8_t *input; /* not yet used by the face */
    size_t input_len;
    bool held, closed, flushed;
    int64_t now_ms, timer_ms;
};

void conn_copy(struct conn *conn, const void *data, size_t len)
{
    assert(!conn->closed);
    conn->output = realloc(conn->output, conn->output_len + len + 1);
    assert(conn->output);
    if (len > 0)
        memcpy(conn->output + conn->output_len, data, len);
    conn->output_len += len;
    conn->output[conn->output_len] = '\0';
    conn->pending += len;
}

size_t conn_output_pending(const struct conn *conn)
{
    return conn->pending;
}

void conn_close(struct conn *conn, bool flush)
{
    conn->closed = true;
    conn->flushed = flush;
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
    return conn->now_ms + INT64_C(784111777000);
}

const struct face_config *conn_config(const struct conn *conn)
{
    return &conn->config;
}

void conn_count(struct conn *conn, enum metric metric, int64_t n)
{
    conn->metrics[metric] += (uint64_t)n;
}

void conn_metrics(struct conn *conn, uint64_t out[METRIC_COUNT])
{
    memcpy(out, conn->metrics, sizeof conn->metrics);
}

enum err conn_health(const struct conn *conn)
{
    return conn->health;
}

/* ---- For the tests ---- */

static inline struct conn *fake_open(void)
{
    struct conn *conn = calloc(1, sizeof *conn);
    assert(conn);
    conn->config = (struct face_config){.cluster_name = "weir@\"te<st\"", .version = "1.2.3"};
    conn->timer_ms = INT64_MAX;
    conn->self = face_http.open(conn);
    assert(conn->self);
    return conn;
}

static inline void fake_run(struct conn *conn)
{
    while (!conn->held && !conn->closed && conn->input_len > 0) {
        size_t used = face_http.input(conn->self, conn->input, conn->input_len);
        assert(used <= conn->input_len);
        memmove(conn->input, conn->input + used, conn->input_len - used);
        conn->input_len -= used;
        if (used == 0)
            break;
    }
}

static inline void fake_input(struct conn *conn, const void *data, size_t len)
{
    conn->input = realloc(conn->input, conn->input_len + len + 1);
    assert(conn->input);
    if (len > 0)
        memcpy(conn->input + conn->input_len, data, len);
    conn->input_len += len;
    fake_run(conn);
}

/* The client took all output. */
static inline void fake_drain(struct conn *conn)
{
    conn->pending = 0;
    if (!conn->closed)
        face_http.drained(conn->self);
    fake_run(conn);
}

static inline void fake_time(struct conn *conn, int64_t ms)
{
    conn->now_ms += ms;
    if (conn->now_ms < conn->timer_ms || conn->closed)
        return;
    conn->timer_ms = INT64_MAX;
    face_http.timer(conn->self, conn->now_ms);
}

static inline void fake_close(struct conn *conn)
{
    face_http.close(conn->self, ERR_NONE);
    free(conn->output);
    free(conn->input);
    free(conn);
}

#endif
