/* The HTTP face under arbitrary input. The first byte chooses: bit 0, the client never reads; bits
 * 1 to 3, in how small pieces it arrives; bit 4, the rest are fields of one request. What comes out
 * must be whole responses, and as many bytes as their heads say. */
#include "face/http/fake_conn.h"

#include <stdio.h>

enum { INPUT_BYTES_MAX = 1 << 15 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A response is taken off the front; its body may be left out (HEAD), so bodies are told from heads
 * by how they begin: no page begins as a response does. */
static void responses_check(const char *text, size_t len)
{
    static const char begin[] = "HTTP/1.1 ", field[] = "\r\nContent-Length: ";
    while (len > 0) {
        assert(len > 40 && memcmp(text, begin, sizeof begin - 1) == 0);
        const char *end = strstr(text, "\r\n\r\n"), *length = strstr(text, field);
        assert(end && length && length < end);
        size_t body = strtoul(length + sizeof field - 1, NULL, 10);
        size_t head = (size_t)(end - text) + 4;
        text += head;
        len -= head;
        if (len == 0 || (len >= sizeof begin - 1 && memcmp(text, begin, sizeof begin - 1) == 0))
            continue;
        assert(body <= len);
        text += body;
        len -= body;
    }
}

static void feed(struct conn *conn, const uint8_t *data, size_t size, size_t piece, bool reads)
{
    for (size_t at = 0; at < size && !conn->closed; at += piece) {
        fake_input(conn, data + at, size - at < piece ? size - at : piece);
        if (reads)
            fake_drain(conn);
        assert(conn->output_len < (INPUT_BYTES_MAX / 16) * (64 << 10));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char line[] = "GET /healthz HTTP/1.1\r\nHost: x\r\n";
    if (size == 0 || size > INPUT_BYTES_MAX)
        return 0;
    uint8_t choice = data[0];
    size_t piece = choice >> 1 & 7 ? (size_t)1 << ((choice >> 1 & 7) - 1) : size;
    struct conn *conn = fake_open();
    if (choice & 16)
        feed(conn, (const uint8_t *)line, sizeof line - 1, piece, true);
    feed(conn, data + 1, size - 1, piece, (choice & 1) == 0);
    for (int i = 0; i < 8 && !conn->closed; i++)
        fake_time(conn, 10 * 1000);
    assert(conn->closed);
    if (conn->output_len > 0)
        responses_check((const char *)conn->output, conn->output_len);
    fake_close(conn);
    return 0;
}
