/* The HTTP face as a client sees it, on a connection that is plain memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "face/http/fake_conn.h"
#include "face/http/http.h"

#include <stdio.h>

static int setup(void **state)
{
    *state = fake_open();
    return 0;
}

static int teardown(void **state)
{
    fake_close(*state);
    return 0;
}

static void send_text(struct conn *conn, const char *text)
{
    fake_input(conn, text, strlen(text));
}

static void forget_output(struct conn *conn)
{
    conn->output_len = 0;
}

static const char *output(const struct conn *conn)
{
    return conn->output_len > 0 ? (const char *)conn->output : "";
}

static void says(const struct conn *conn, const char *words)
{
    if (strstr(output(conn), words) == NULL)
        fail_msg("'%s' is not in: %s", words, output(conn));
}

static void says_not(const struct conn *conn, const char *words)
{
    if (strstr(output(conn), words) != NULL)
        fail_msg("'%s' is in: %s", words, output(conn));
}

static uint32_t count_of(const struct conn *conn, const char *words)
{
    uint32_t count = 0;
    for (const char *at = output(conn); (at = strstr(at, words)) != NULL; at++)
        count++;
    return count;
}

/* What the first response says its body's length is, and what follows its head. */
static size_t announced(const struct conn *conn, const char **body)
{
    const char *field = strstr(output(conn), "\r\nContent-Length: ");
    const char *end = strstr(output(conn), "\r\n\r\n");
    assert_non_null(field);
    assert_non_null(end);
    *body = end + 4;
    return (size_t)strtoul(field + 18, NULL, 10);
}

static void the_figures_are_shown_as_prometheus_text(void **state)
{
    struct conn *conn = *state;
    conn->metrics[METRIC_MESSAGES_RECEIVED_AMQP] = 41;
    conn->metrics[METRIC_MESSAGES_RECEIVED_KAFKA] = 2;
    conn->metrics[METRIC_PROCESS_CPU_SECONDS] = 1203;
    send_text(conn, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    says(conn, "HTTP/1.1 200 OK\r\n");
    says(conn, "\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
    says(conn, "\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n");
    says(conn, "# TYPE weir_messages_received_total counter\n");
    says(conn, "\nweir_messages_received_total{protocol=\"amqp\"} 41\n");
    says(conn, "\nweir_messages_received_total{protocol=\"kafka\"} 2\n");
    says(conn, "\nweir_process_cpu_seconds_total 1.203\n");
    const char *body;
    size_t len = announced(conn, &body);
    assert_int_equal(strlen(body), len);
    assert_false(conn->closed);
    assert_int_equal(conn->metrics[METRIC_HTTP_RESPONSES_2XX], 1);
}

static void the_figures_stand_there_under_rabbitmqs_names_too(void **state)
{
    struct conn *conn = *state;
    conn->metrics[METRIC_CONNECTIONS_AMQP] = 3;
    conn->metrics[METRIC_CONNECTIONS_KAFKA] = 4;
    conn->metrics[METRIC_CONNECTIONS_HTTP] = 1;
    conn->metrics[METRIC_MESSAGES_DELIVERED_AMQP_GET_AUTO_ACK] = 5;
    conn->metrics[METRIC_MESSAGES_DELIVERED_AMQP_CONSUME_MANUAL_ACK] = 6;
    send_text(conn, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    says(conn, "\nrabbitmq_connections 7\n");
    says(conn, "\nrabbitmq_process_open_tcp_sockets 8\n");
    says(conn, "\nrabbitmq_global_messages_delivered_total{protocol=\"amqp091\"} 11\n");
    says(conn, "\nrabbitmq_identity_info{rabbitmq_node=\"weir@\\\"te<st\\\"\",");
    says(conn, "\nrabbitmq_build_info{rabbitmq_version=\"1.2.3\",");
}

static void every_family_is_described_once(void **state)
{
    struct conn *conn = *state;
    send_text(conn, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    for (uint32_t i = 0; i < METRIC_FAMILY_COUNT; i++) {
        char line[256];
        snprintf(line, sizeof line, "# TYPE %s %s\n", METRIC_FAMILIES[i].name,
                 METRIC_FAMILIES[i].type);
        assert_int_equal(count_of(conn, line), 1);
    }
}

static void health_follows_the_broker(void **state)
{
    struct conn *conn = *state;
    send_text(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    says(conn, "HTTP/1.1 200 OK\r\n");
    says(conn, "\r\n\r\nok\n");
    forget_output(conn);
    conn->health = ERR_DISK_FULL;
    send_text(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    says(conn, "HTTP/1.1 503 Service Unavailable\r\n");
    says(conn, "no space left");
    assert_int_equal(conn->metrics[METRIC_HTTP_RESPONSES_5XX], 1);
    assert_false(conn->closed);
}

static void the_page_for_humans_shows_figures_and_is_escaped(void **state)
{
    struct conn *conn = *state;
    send_text(conn, "GET /?x HTTP/1.1\r\nHost: x\r\n\r\n");
    says(conn, "Content-Type: text/html; charset=utf-8\r\n");
    says(conn, "<h1>weir@&quot;te&lt;st&quot;</h1>");
    says(conn, "<a href=\"/metrics\">");
    says(conn, "weir_connections{protocol=&quot;amqp&quot;}");
    says_not(conn, "te<st");
    says_not(conn, "<script");
}

static void head_is_get_without_the_body(void **state)
{
    struct conn *conn = *state;
    send_text(conn, "HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    const char *body;
    assert_int_equal(announced(conn, &body), 3);
    assert_string_equal(body, "");
    assert_false(conn->closed);
}

static void what_is_not_there_is_said(void **state)
{
    struct conn *conn = *state;
    send_text(conn, "GET /metric HTTP/1.1\r\nHost: x\r\n\r\n");
    says(conn, "HTTP/1.1 404 Not Found\r\n");
    forget_output(conn);
    send_text(conn, "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nGET");
    says(conn, "HTTP/1.1 405 Method Not Allowed\r\n");
    says(conn, "\r\nAllow: GET, HEAD\r\n");
    forget_output(conn);
    send_text(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    says(conn, "HTTP/1.1 200 OK\r\n");
    assert_int_equal(conn->metrics[METRIC_HTTP_RESPONSES_4XX], 2);
}

static void pipelined_requests_are_answered_in_order_byte_by_byte_or_at_once(void **state)
{
    static const char three[] = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
                                "\r\nPUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n\r\n\r\n"
                                "GET /none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    struct conn *conn = *state;
    fake_input(conn, three, sizeof three - 1);
    struct conn *slow = fake_open();
    for (size_t i = 0; i < sizeof three - 1; i++)
        fake_input(slow, three + i, 1);
    assert_string_equal(output(conn), output(slow));
    assert_int_equal(count_of(conn, "HTTP/1.1 "), 3);
    assert_true(strstr(output(conn), " 200 ") < strstr(output(conn), " 405 "));
    assert_true(strstr(output(conn), " 405 ") < strstr(output(conn), " 404 "));
    assert_true(conn->closed && conn->flushed && slow->closed);
    fake_close(slow);
}

static void an_old_client_is_told_that_the_connection_stays(void **state)
{
    struct conn *conn = *state;
    send_text(conn, "GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    says(conn, "\r\nConnection: keep-alive\r\n");
    assert_false(conn->closed);
    send_text(conn, "GET /healthz HTTP/1.0\r\n\r\n");
    says(conn, "\r\nConnection: close\r\n");
    assert_true(conn->closed && conn->flushed);
}

static void a_refused_request_ends_the_connection(void **state)
{
    struct conn *conn = *state;
    send_text(conn, "GET / HTTP/1.1\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    says(conn, "HTTP/1.1 400 Bad Request\r\n");
    says(conn, "\r\nConnection: close\r\n");
    assert_int_equal(count_of(conn, "HTTP/1.1 "), 1);
    assert_true(conn->closed && conn->flushed);
}

static void a_second_empty_line_before_a_request_is_refused(void **state)
{
    struct conn *conn = *state;
    send_text(conn, "\r\n\r");
    says(conn, " 400 ");
}

static void a_head_has_room_for_so_much_and_no_more(void **state)
{
    struct conn *conn = *state;
    char head[HTTP_HEAD_BYTES_MAX + 1];
    static const char begin[] = "GET /healthz HTTP/1.1\r\nHost: x\r\nA: ";
    memset(head, 'a', sizeof head);
    memcpy(head, begin, sizeof begin - 1);
    memcpy(head + HTTP_HEAD_BYTES_MAX - 4, "\r\n\r\n", 4);
    fake_input(conn, head, HTTP_HEAD_BYTES_MAX);
    says(conn, " 200 ");
    forget_output(conn);
    memset(head + HTTP_HEAD_BYTES_MAX - 4, 'a', 5);
    fake_input(conn, head, sizeof head);
    says(conn, "HTTP/1.1 431 Request Header Fields Too Large\r\n");
    assert_true(conn->closed);
}

static void who_waits_for_a_word_before_its_body_gets_the_answer_and_the_end(void **state)
{
    struct conn *conn = *state;
    send_text(conn,
              "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    says(conn, " 405 ");
    assert_true(conn->closed);
}

static void a_client_that_does_not_read_is_not_answered_further(void **state)
{
    struct conn *conn = *state;
    for (int i = 0; i < 200; i++)
        send_text(conn, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_true(conn->held);
    assert_true(conn->output_len < 1 << 20);
    while (conn->held)
        fake_drain(conn);
    assert_int_equal(count_of(conn, "HTTP/1.1 200 OK"), 200);
    assert_int_equal(conn->input_len, 0);
}

static void a_head_must_be_there_in_time(void **state)
{
    struct conn *conn = *state;
    send_text(conn, "GET /healthz HTTP/1.1\r\n");
    for (int i = 0; i < 9; i++) {
        fake_time(conn, 1000);
        send_text(conn, "A: b\r\n");
    }
    assert_false(conn->closed);
    fake_time(conn, 1000);
    says(conn, "HTTP/1.1 408 Request Timeout\r\n");
    assert_true(conn->closed);
}

static void so_must_a_body(void **state)
{
    struct conn *conn = *state;
    send_text(conn, "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n");
    for (int i = 0; i < 10; i++) {
        assert_false(conn->closed);
        fake_time(conn, 1000);
        send_text(conn, "x");
    }
    assert_true(conn->closed);
    assert_int_equal(count_of(conn, "HTTP/1.1 "), 1);
}

static void a_connection_that_rests_is_closed_after_a_while(void **state)
{
    struct conn *conn = *state;
    send_text(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    fake_time(conn, 59000);
    assert_false(conn->closed);
    send_text(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    fake_time(conn, 59000);
    assert_false(conn->closed);
    fake_time(conn, 1000);
    assert_true(conn->closed);
    assert_int_equal(count_of(conn, "HTTP/1.1 "), 2);

    struct conn *silent = fake_open();
    fake_time(silent, 10000);
    assert_true(silent->closed);
    assert_int_equal(silent->output_len, 0);
    fake_close(silent);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_figures_are_shown_as_prometheus_text),
        TEST(the_figures_stand_there_under_rabbitmqs_names_too),
        TEST(every_family_is_described_once),
        TEST(health_follows_the_broker),
        TEST(the_page_for_humans_shows_figures_and_is_escaped),
        TEST(head_is_get_without_the_body),
        TEST(what_is_not_there_is_said),
        TEST(pipelined_requests_are_answered_in_order_byte_by_byte_or_at_once),
        TEST(an_old_client_is_told_that_the_connection_stays),
        TEST(a_refused_request_ends_the_connection),
        TEST(a_second_empty_line_before_a_request_is_refused),
        TEST(a_head_has_room_for_so_much_and_no_more),
        TEST(who_waits_for_a_word_before_its_body_gets_the_answer_and_the_end),
        TEST(a_client_that_does_not_read_is_not_answered_further),
        TEST(a_head_must_be_there_in_time),
        TEST(so_must_a_body),
        TEST(a_connection_that_rests_is_closed_after_a_while),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
