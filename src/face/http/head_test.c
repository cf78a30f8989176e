/* Heads of requests: what is one, what is refused and how, and that pieces make no difference. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "face/http/http.h"

#include <stdio.h>

/* The status that a head is refused with; 0: it is taken. */
static uint16_t read_text(const char *text, struct http_request *out)
{
    size_t seen = 0, len = strlen(text);
    enum http_scan scan = http_head_scan((const uint8_t *)text, len, &seen);
    if (scan == HTTP_SCAN_BAD)
        return 400;
    assert_int_equal(scan, HTTP_SCAN_END);
    assert_int_equal(seen, len);
    return http_head_read(slice_make(text, seen), out);
}

static void refused(uint16_t status, const char *text)
{
    struct http_request request;
    uint16_t got = read_text(text, &request);
    if (got != status)
        fail_msg("%u instead of %u: %s", got, status, text);
}

static struct http_request taken(const char *text)
{
    struct http_request request;
    uint16_t got = read_text(text, &request);
    if (got != 0)
        fail_msg("refused with %u: %s", got, text);
    return request;
}

static void a_plain_request_is_read(void **state)
{
    (void)state;
    struct http_request r = taken("GET /metrics?a=b HTTP/1.1\r\nHost: x\r\nAccept:\t*/* \r\n\r\n");
    assert_int_equal(r.method, HTTP_GET);
    assert_true(slice_equal(r.path, slice_of("/metrics")));
    assert_int_equal(r.minor, 1);
    assert_true(r.keep_alive);
    assert_int_equal(r.body_bytes, 0);
    assert_int_equal(taken("HEAD / HTTP/1.1\r\nHost:\r\n\r\n").method, HTTP_HEAD);
    assert_int_equal(taken("DELETE / HTTP/1.1\r\nHost: x\r\n\r\n").method, HTTP_OTHER);
    assert_int_equal(taken("get / HTTP/1.1\r\nHost: x\r\n\r\n").method, HTTP_OTHER);
}

static void proxies_may_send_the_whole_address(void **state)
{
    (void)state;
    assert_true(slice_equal(taken("GET http://a:1/b?c HTTP/1.1\r\nHost: a:1\r\n\r\n").path,
                            slice_of("/b")));
    assert_true(
        slice_equal(taken("GET HTTP://a/ HTTP/1.1\r\nHost: a\r\n\r\n").path, slice_of("/")));
    refused(400, "GET http://a HTTP/1.1\r\nHost: a\r\n\r\n");
    refused(400, "GET http:///b HTTP/1.1\r\nHost: a\r\n\r\n");
    refused(400, "GET https://a/b HTTP/1.1\r\nHost: a\r\n\r\n");
    refused(400, "GET * HTTP/1.1\r\nHost: a\r\n\r\n");
    refused(400, "GET x HTTP/1.1\r\nHost: a\r\n\r\n");
}

static void the_connection_stays_as_the_client_wants(void **state)
{
    (void)state;
    assert_false(taken("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").keep_alive);
    assert_false(taken("GET / HTTP/1.1\r\nHost: x\r\nconnection: a , CLOSE\r\n\r\n").keep_alive);
    assert_false(taken("GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n"
                       "Connection: close\r\n\r\n")
                     .keep_alive);
    assert_true(taken("GET / HTTP/1.1\r\nHost: x\r\nConnection: closed\r\n\r\n").keep_alive);
    assert_true(taken("GET / HTTP/1.1\r\nHost: x\r\nConnection: ,\r\n\r\n").keep_alive);
    assert_false(taken("GET / HTTP/1.0\r\n\r\n").keep_alive);
    assert_true(taken("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keep_alive);
}

static void lines_that_are_none_are_refused(void **state)
{
    (void)state;
    refused(400, "GET / HTTP/1.1\nHost: x\r\n\r\n");
    refused(400, "GET / HTTP/1.1\r\nHost: x\n\n");
    refused(400, "GET / HTTP/1.1\r\nHost: \rx\r\n\r\n");
    refused(400, "GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n");
    refused(400, "GET / HTTP/1.1\r\n Host: x\r\n\r\n");
    refused(400, "GET / HTTP/1.1\r\nHost : x\r\n\r\n");
    refused(400, "GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n");
    refused(400, "GET / HTTP/1.1\r\nHost: x\r\n: no name\r\n\r\n");
    refused(400, "GET / HTTP/1.1\r\nHost: x\r\nA\x01: b\r\n\r\n");
    refused(400, "GET / HTTP/1.1\r\nHost: x\r\nA: b\x7f\r\n\r\n");
    refused(400, "\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n");
    refused(400, "GET  / HTTP/1.1\r\nHost: x\r\n\r\n");
    refused(400, "GET /  HTTP/1.1\r\nHost: x\r\n\r\n");
    refused(400, "GET / HTTP/1.1 \r\nHost: x\r\n\r\n");
    refused(400, "GET /\r\nHost: x\r\n\r\n");
    refused(400, "GET\r\nHost: x\r\n\r\n");
    refused(400, " GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    refused(400, "G(T / HTTP/1.1\r\nHost: x\r\n\r\n");
    refused(400, "GET /\xc3\xa4 HTTP/1.1\r\nHost: x\r\n\r\n");
    refused(400, "GET / http/1.1\r\nHost: x\r\n\r\n");
    refused(400, "GET / HTTP/1.\r\nHost: x\r\n\r\n");
    refused(400, "GET / HTTP/11.1\r\nHost: x\r\n\r\n");
}

static void other_versions_are_refused_as_such(void **state)
{
    (void)state;
    refused(505, "PRI * HTTP/2.0\r\n\r\n");
    refused(505, "GET / HTTP/0.9\r\n\r\n");
    assert_int_equal(taken("GET / HTTP/1.7\r\nHost: x\r\n\r\n").minor, 1);
}

static void there_is_one_host_unless_the_version_is_older(void **state)
{
    (void)state;
    refused(400, "GET / HTTP/1.1\r\n\r\n");
    refused(400, "GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n");
    refused(400, "GET / HTTP/1.0\r\nHost: x\r\nHost: x\r\n\r\n");
    (void)taken("GET / HTTP/1.0\r\n\r\n");
}

static void a_body_is_of_known_and_modest_length(void **state)
{
    (void)state;
    assert_int_equal(
        taken("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 065536\r\n\r\n").body_bytes, 65536);
    assert_int_equal(taken("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
                           "Content-Length: 5\r\n\r\n")
                         .body_bytes,
                     5);
    refused(413, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 65537\r\n\r\n");
    refused(413, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551617\r\n\r\n");
    refused(400, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n");
    refused(400, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 6\r\n\r\n");
    refused(400, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\n\r\n");
    refused(400, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n");
    refused(400, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\n");
    refused(400, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\n");
    refused(411, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    refused(400, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
                 "Content-Length: 5\r\n\r\n");
    refused(400, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_true(taken("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
                      "Expect: 100-continue\r\n\r\n")
                    .expects);
}

static void too_many_fields_are_refused(void **state)
{
    (void)state;
    char head[4096];
    for (int fields = HTTP_FIELDS_MAX; fields <= HTTP_FIELDS_MAX + 1; fields++) {
        size_t len = (size_t)snprintf(head, sizeof head, "GET / HTTP/1.1\r\nHost: x\r\n");
        for (int i = 1; i < fields; i++)
            len += (size_t)snprintf(head + len, sizeof head - len, "A: b\r\n");
        snprintf(head + len, sizeof head - len, "\r\n");
        refused(fields <= HTTP_FIELDS_MAX ? 0 : 431, head);
    }
}

static void the_end_is_found_however_it_arrives(void **state)
{
    (void)state;
    static const char head[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\nGET";
    const size_t end = sizeof head - 1 - 3;
    for (size_t first = 0; first < end; first++) {
        size_t seen = 0;
        assert_int_equal(http_head_scan((const uint8_t *)head, first, &seen), HTTP_SCAN_MORE);
        assert_int_equal(seen, first);
        assert_int_equal(http_head_scan((const uint8_t *)head, sizeof head - 1, &seen),
                         HTTP_SCAN_END);
        assert_int_equal(seen, end);
    }
}

static void what_is_no_head_is_seen_at_its_first_wrong_byte(void **state)
{
    (void)state;
    size_t seen = 0;
    assert_int_equal(http_head_scan((const uint8_t *)"AMQP\0\0\x09\1", 8, &seen), HTTP_SCAN_BAD);
    seen = 0;
    assert_int_equal(http_head_scan((const uint8_t *)"\x16\x03\x01", 3, &seen), HTTP_SCAN_BAD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plain_request_is_read),
        cmocka_unit_test(proxies_may_send_the_whole_address),
        cmocka_unit_test(the_connection_stays_as_the_client_wants),
        cmocka_unit_test(lines_that_are_none_are_refused),
        cmocka_unit_test(other_versions_are_refused_as_such),
        cmocka_unit_test(there_is_one_host_unless_the_version_is_older),
        cmocka_unit_test(a_body_is_of_known_and_modest_length),
        cmocka_unit_test(too_many_fields_are_refused),
        cmocka_unit_test(the_end_is_found_however_it_arrives),
        cmocka_unit_test(what_is_no_head_is_seen_at_its_first_wrong_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
