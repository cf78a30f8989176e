/* What the files of the HTTP face share: a request's head, text that grows, and the pages. It
 * serves whoever watches the broker (a Prometheus server, a prober, a browser), without JavaScript
 * and without a word to the cells: every answer is given at once. For src/face/http only.
 *
 * Life of a request: http_input looks for the end of its head (http_head_scan), reads it
 * (http_head_read), has the page written (page_answer) and sends it. A body is left unread. */
#ifndef WEIR_FACE_HTTP_HTTP_H
#define WEIR_FACE_HTTP_HTTP_H

#include "base/slice.h"
#include "face/face.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    HTTP_HEAD_BYTES_MAX = 8 << 10,
    HTTP_FIELDS_MAX = 100,
    HTTP_BODY_BYTES_MAX = 64 << 10, /* thrown away; a request with more is refused */
};

/* ---- head.c: strictly as RFC 9112 has it ---- */

enum http_method { HTTP_GET, HTTP_HEAD, HTTP_OTHER };

struct http_request {
    enum http_method method;
    struct slice path; /* as sent, without what follows a '?' */
    uint8_t minor;     /* of HTTP/1.x: 0 or 1 */
    bool keep_alive;   /* the client wants the connection to stay */
    bool expects;      /* a word from us before it sends the body */
    uint64_t body_bytes;
};

enum http_scan {
    HTTP_SCAN_MORE, /* all that is there may belong to a head */
    HTTP_SCAN_END,  /* the head is there */
    HTTP_SCAN_BAD,  /* it will never be one */
};

/* Looks for the end of the head from *seen on (0 at first), which becomes the number of bytes
 * looked at: for END the head's length. */
enum http_scan http_head_scan(const uint8_t *data, size_t len, size_t *seen);

/* Reads a head that was scanned to its END. Returns 0, or the status to refuse it with: 400, 411,
 * 413, 431 or 505; then `out` tells nothing. Slices borrow from the head. */
uint16_t http_head_read(struct slice head, struct http_request *out);

/* ---- text.c ---- */

/* Text on the heap. Once memory is exhausted it stays as it is, and `failed`. */
struct text {
    char *data;
    size_t len, capacity;
    bool failed;
};

void text_put(struct text *text, const char *words);
/* At most 4096 bytes a call. */
void text_format(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* What stands between the quotes of a label. */
void text_put_label(struct text *text, const char *value);
void text_put_html(struct text *text, const char *value);
void text_done(struct text *text);

/* ---- pages.c, exposition.c ---- */

struct page {
    uint16_t status;
    const char *type;   /* Content-Type */
    const char *fields; /* further header fields, each with its line's end, or empty */
    struct text body;
};

/* Fills in a page whose body is empty; that is for the caller to free. */
void page_answer(struct conn *conn, const struct http_request *request, struct page *page);
/* The page of a refusal or of nothing in particular: the status in words. */
void page_status(uint16_t status, struct page *page);
/* "Not Found" */
const char *http_reason(uint16_t status);

/* All figures in Prometheus' text format. */
void exposition_put(struct text *text, const uint64_t metrics[METRIC_COUNT],
                    const struct face_config *config);
/* The figure as it is shown: divided. */
void exposition_put_value(struct text *text, const struct metric_family *family,
                          const struct metric_series *series, const uint64_t metrics[METRIC_COUNT]);

#endif
