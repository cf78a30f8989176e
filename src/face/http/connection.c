/* The HTTP face: one connection, whose requests are answered one after the other, each before the
 * next is looked at. It stays for further requests unless the client or an error ends it; a client
 * that is slow to send a head, sends nothing, or does not read its answers is not waited for. */
#include "face/http/http.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
    REQUEST_MS = 10 * 1000, /* from a head's first byte to the body's last */
    IDLE_MS = 60 * 1000,    /* from a request to the next */
    OUTPUT_BYTES_MAX = 512 << 10,
};

struct http {
    struct conn *conn;
    size_t seen;        /* bytes of the head looked at */
    uint64_t body_left; /* to be thrown away */
    uint64_t requests;  /* whose heads were read */
    bool held;          /* until output has drained */
    bool ended;
    bool busy; /* in the middle of a request: the timer is for its end */
};

static void *http_open(struct conn *conn)
{
    struct http *self = calloc(1, sizeof *self);
    if (self == NULL)
        return NULL;
    self->conn = conn;
    conn_timer(conn, conn_now_ms(conn) + REQUEST_MS);
    return self;
}

static void http_close(void *context, enum err err)
{
    (void)err;
    free(context);
}

/* ---- Responses ---- */

/* "Sun, 06 Nov 1994 08:49:37 GMT" */
static void date_write(int64_t wall_ms, char out[32])
{
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm tm;
    if (gmtime_r(&seconds, &tm) == NULL)
        tm = (struct tm){.tm_mday = 1, .tm_year = 70, .tm_wday = 4};
    (void)snprintf(out, 32, "%.3s, %02u %.3s %04u %02u:%02u:%02u GMT", days + 3 * tm.tm_wday,
                   (unsigned)tm.tm_mday % 100, months + 3 * tm.tm_mon,
                   ((unsigned)tm.tm_year + 1900) % 10000, (unsigned)tm.tm_hour % 100,
                   (unsigned)tm.tm_min % 100, (unsigned)tm.tm_sec % 100);
}

static enum metric metric_of(uint16_t status)
{
    return status < 400   ? METRIC_HTTP_RESPONSES_2XX
           : status < 500 ? METRIC_HTTP_RESPONSES_4XX
                          : METRIC_HTTP_RESPONSES_5XX;
}

/* `request` is NULL when there was none that could be read. */
static void respond(struct http *self, const struct http_request *request, struct page *page)
{
    char date[32], head[1024];
    bool stays = request != NULL && request->keep_alive;
    bool in_old_words = stays && request->minor == 0;
    if (page->body.failed) {
        self->ended = true;
        conn_close(self->conn, false);
        return;
    }
    date_write(conn_wall_ms(self->conn), date);
    int len = snprintf(head, sizeof head,
                       "HTTP/1.1 %u %s\r\nDate: %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
                       "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n%s%s\r\n",
                       page->status, http_reason(page->status), date, page->type, page->body.len,
                       page->fields,
                       !stays         ? "Connection: close\r\n"
                       : in_old_words ? "Connection: keep-alive\r\n"
                                      : "");
    assert(len > 0 && (size_t)len < sizeof head);
    conn_copy(self->conn, head, (size_t)len);
    if (request == NULL || request->method != HTTP_HEAD)
        conn_copy(self->conn, page->body.data, page->body.len);
    conn_count(self->conn, metric_of(page->status), 1);
    if (!stays) {
        self->ended = true;
        conn_close(self->conn, true);
    }
}

static void refuse(struct http *self, uint16_t status)
{
    struct page page = {0};
    page_status(status, &page);
    respond(self, NULL, &page);
    text_done(&page.body);
}

static void answer(struct http *self, struct http_request *request)
{
    struct page page = {0};
    if (request->expects && request->body_bytes > 0)
        request->keep_alive = false; /* the body may come or not */
    self->body_left = request->body_bytes;
    page_answer(self->conn, request, &page);
    respond(self, request, &page);
    text_done(&page.body);
}

/* ---- Requests ---- */

/* Returns how many bytes were used; 0: more are needed, or the connection ended. */
static size_t request_take(struct http *self, const uint8_t *data, size_t len)
{
    if (self->seen == 0 && len >= 2 && memcmp(data, "\r\n", 2) == 0 && !self->busy) {
        self->busy = true; /* one empty line may come before a request, no more */
        return 2;
    }
    if (self->seen == 0 && len == 1 && data[0] == '\r' && !self->busy)
        return 0;
    self->busy = true;
    size_t max = len < HTTP_HEAD_BYTES_MAX ? len : HTTP_HEAD_BYTES_MAX;
    enum http_scan scan = http_head_scan(data, max, &self->seen);
    if (scan == HTTP_SCAN_BAD) {
        refuse(self, 400);
    } else if (scan == HTTP_SCAN_MORE && max == HTTP_HEAD_BYTES_MAX) {
        refuse(self, 431);
    } else if (scan == HTTP_SCAN_END) {
        size_t head = self->seen;
        struct http_request request;
        uint16_t status = http_head_read(slice_make(data, head), &request);
        self->seen = 0;
        self->requests++;
        if (status != 0)
            refuse(self, status);
        else
            answer(self, &request);
        self->busy = self->body_left > 0;
        return head;
    }
    return 0;
}

static size_t body_drop(struct http *self, size_t len)
{
    size_t dropped = len < self->body_left ? len : (size_t)self->body_left;
    self->body_left -= dropped;
    self->busy = self->body_left > 0;
    return dropped;
}

static size_t http_input(void *context, const uint8_t *data, size_t len)
{
    struct http *self = context;
    bool was_busy = self->busy;
    uint64_t before = self->requests;
    size_t used = 0;
    while (used < len && !self->ended && !self->held) {
        size_t taken = self->body_left > 0 ? body_drop(self, len - used)
                                           : request_take(self, data + used, len - used);
        if (taken == 0)
            break;
        used += taken;
        if (conn_output_pending(self->conn) > OUTPUT_BYTES_MAX && !self->ended) {
            self->held = true;
            conn_hold(self->conn);
        }
    }
    if (self->ended)
        return len;
    if (!self->busy || !was_busy || self->requests != before) /* drops do not prolong a request */
        conn_timer(self->conn, conn_now_ms(self->conn) + (self->busy ? REQUEST_MS : IDLE_MS));
    return used;
}

static void http_event(void *context, const struct event *event)
{
    (void)context; /* nothing is asked of cells */
    (void)event;
}

static void http_drained(void *context)
{
    struct http *self = context;
    if (!self->held)
        return;
    self->held = false;
    conn_resume(self->conn);
}

static void http_timer(void *context, int64_t now_ms)
{
    struct http *self = context;
    (void)now_ms;
    if (self->ended)
        return;
    if (self->busy && !self->held && self->body_left == 0) {
        refuse(self, 408);
        return;
    }
    self->ended = true;
    conn_close(self->conn, true);
}

const struct face face_http = {
    .name = "http",
    .default_port = 15672,
    .protocol = METRIC_PROTOCOL_HTTP,
    .open = http_open,
    .input = http_input,
    .event = http_event,
    .drained = http_drained,
    .timer = http_timer,
    .close = http_close,
};
