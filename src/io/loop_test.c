/* The real loop with real sockets on a free port of the loopback, clients in the same thread. */
#include "base/list.h"
#include "io/loop.h"

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { TURNS_MAX = 2000, GATHER_MAX = 600000 };

/* A server that keeps what it got and answers as the test says. */
struct server {
    struct loop *loop;
    uint64_t net_bytes;
    uint16_t port;
    struct net_listener *listener;
    struct net_conn *conn; /* the last one */
    bool echo, refuse;
    size_t item; /* uses whole items of this many bytes only */
    bool wants;  /* and says so */
    bool pause;  /* pauses in received */
    int accepted, calls, drained, closed;
    size_t received, shown;
    enum err err;
};

static void *server_accepted(void *user, struct net_conn *conn)
{
    struct server *server = user;
    server->accepted++;
    server->conn = conn;
    return server->refuse ? NULL : server;
}

static size_t server_received(void *user, const uint8_t *data, size_t len)
{
    struct server *server = user;
    server->calls++;
    server->shown = len;
    if (server->pause) {
        net_conn_pause(server->conn, true);
        return 0;
    }
    size_t used = server->item > 0 ? len / server->item * server->item : len;
    if (server->wants && used < len)
        net_conn_want(server->conn, server->item);
    server->received += used;
    if (server->echo)
        net_conn_copy(server->conn, data, used);
    return used;
}

static void server_drained(void *user)
{
    ((struct server *)user)->drained++;
}

static void server_closed(void *user, enum err err)
{
    struct server *server = user;
    server->closed++;
    server->err = err;
    server->conn = NULL;
}

static const struct net_handler HANDLER = {
    .accepted = server_accepted,
    .received = server_received,
    .drained = server_drained,
    .closed = server_closed,
};

static int server_setup(void **state)
{
    struct server *server = calloc(1, sizeof *server);
    assert_non_null(server);
    server->echo = true;
    struct loop_config config = {.net_bytes = &server->net_bytes, .gather_max = GATHER_MAX};
    assert_int_equal(loop_create(&config, &server->loop), ERR_NONE);
    assert_int_equal(net_listen(loop_net(server->loop), "127.0.0.1", 0, &HANDLER, server,
                                &server->listener, &server->port),
                     ERR_NONE);
    *state = server;
    return 0;
}

static int server_teardown(void **state)
{
    struct server *server = *state;
    loop_destroy(server->loop);
    assert_int_equal(server->net_bytes, 0);
    free(server);
    return 0;
}

static int turn_until(struct loop *loop, int64_t deadline_ms)
{
    (void)loops_wait(&loop, 1, deadline_ms, -1, -1);
    return loop_turn(loop);
}

static void turn(struct server *server)
{
    turn_until(server->loop, loop_now_ms(server->loop) + 2);
}

static int client_open(struct server *server)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(server->port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    int before = server->accepted;
    for (int i = 0; i < TURNS_MAX && server->accepted == before; i++)
        turn(server);
    assert_int_equal(server->accepted, before + 1);
    return fd;
}

/* Sends `len` bytes of a known pattern and reads as many back, with turns between. */
static void client_exchange(struct server *server, int fd, size_t len)
{
    size_t sent = 0, got = 0;
    uint8_t block[65536];
    for (int i = 0; i < TURNS_MAX * 10 && got < len; i++) {
        for (size_t at = 0; at < sizeof block; at++)
            block[at] = (uint8_t)((sent + at) * 7 >> 3);
        size_t part = len - sent < sizeof block ? len - sent : sizeof block;
        ssize_t count = part == 0 ? 0 : send(fd, block, part, MSG_DONTWAIT);
        sent += count > 0 ? (size_t)count : 0;
        loop_turn(server->loop);
        while ((count = recv(fd, block, sizeof block, MSG_DONTWAIT)) > 0) {
            for (ssize_t at = 0; at < count; at++, got++)
                assert_int_equal(block[at], (uint8_t)(got * 7 >> 3));
        }
    }
    assert_int_equal(got, len);
}

/* Turns until the server saw the connection's end. */
static void wait_closed(struct server *server, int count)
{
    for (int i = 0; i < TURNS_MAX && server->closed < count; i++)
        turn(server);
    assert_int_equal(server->closed, count);
}

static void bytes_come_back_in_order(void **state)
{
    struct server *server = *state;
    int fd = client_open(server);
    assert_true(server->conn->peer.loopback);
    assert_string_equal(server->conn->local.host, "127.0.0.1");
    assert_int_equal(server->conn->local.port, server->port);
    client_exchange(server, fd, 10);
    client_exchange(server, fd, 4 << 20);
    assert_int_equal(server->net_bytes, 0);
    close(fd);
    wait_closed(server, 1);
    assert_int_equal(server->err, ERR_NONE);
}

static void items_arrive_whole_whatever_their_length(void **state)
{
    struct server *server = *state;
    static const size_t ITEMS[] = {7, 1000, 40000, 100000, 300000, 1000000};
    for (size_t i = 0; i < sizeof ITEMS / sizeof ITEMS[0]; i++) {
        server->item = ITEMS[i];
        for (int wants = ITEMS[i] > NET_KEEP_MAX; wants < 2; wants++) {
            server->wants = wants;
            int fd = client_open(server);
            client_exchange(server, fd, ITEMS[i] * (ITEMS[i] < 100000 ? 20 : 3));
            assert_int_equal(server->net_bytes, 0);
            close(fd);
            wait_closed(server, server->accepted);
        }
    }
}

static void a_reader_that_makes_no_progress_is_closed(void **state)
{
    struct server *server = *state;
    server->item = 10 << 20;
    int fd = client_open(server);
    uint8_t block[4096] = {0};
    for (int i = 0; i < TURNS_MAX && server->closed == 0; i++) {
        (void)!send(fd, block, sizeof block, MSG_DONTWAIT | MSG_NOSIGNAL);
        loop_turn(server->loop);
    }
    assert_int_equal(server->err, ERR_TOO_LARGE);
    close(fd);
}

static void an_announced_size_allocates_only_what_came(void **state)
{
    struct server *server = *state;
    server->item = 1 << 30;
    server->wants = true;
    int fd = client_open(server);
    uint8_t block[1000] = {0};
    assert_int_equal(send(fd, block, sizeof block, 0), sizeof block);
    for (int i = 0; i < TURNS_MAX && server->calls == 0; i++)
        turn(server);
    assert_in_range(server->net_bytes, 1000, 128 << 10);
    close(fd);
    wait_closed(server, 1);
}

static void send_whole(struct server *server, int fd, size_t len)
{
    static const uint8_t block[65536];
    for (int i = 0; i < TURNS_MAX && len > 0; i++) {
        ssize_t count = send(fd, block, len < sizeof block ? len : sizeof block, MSG_DONTWAIT);
        len -= count > 0 ? (size_t)count : 0;
        loop_turn(server->loop);
    }
    assert_int_equal(len, 0);
}

static void turns(struct server *server, int count)
{
    for (int i = 0; i < count; i++)
        loop_turn(server->loop);
}

static void large_items_wait_for_each_other(void **state)
{
    struct server *server = *state;
    server->item = 400000;
    server->wants = true;
    server->echo = false;
    int first = client_open(server);
    send_whole(server, first, 200000);
    int second = client_open(server);
    send_whole(server, second, 1000);
    turns(server, 20);
    int third = client_open(server);
    send_whole(server, third, 1000);
    turns(server, 20);
    uint64_t held = server->net_bytes;
    send_whole(server, third, 60000); /* into the kernel's buffers, and no further */
    turns(server, 20);
    assert_int_equal(server->net_bytes, held);
    assert_int_equal(server->received, 0);
    close(second); /* who waits may go */
    send_whole(server, first, 200000);
    assert_int_equal(server->received, 400000);
    send_whole(server, third, 339000);
    turns(server, 20);
    assert_int_equal(server->received, 800000);
    close(first);
    close(third);
    wait_closed(server, 3);
}

static void a_paused_connection_is_shown_the_same_bytes_again(void **state)
{
    struct server *server = *state;
    server->pause = true;
    int fd = client_open(server);
    assert_int_equal(send(fd, "hello", 5, 0), 5);
    for (int i = 0; i < TURNS_MAX && server->calls == 0; i++)
        turn(server);
    assert_int_equal(send(fd, "more", 4, 0), 4);
    for (int i = 0; i < 5; i++)
        loop_turn(server->loop);
    assert_int_equal(server->calls, 1);
    server->pause = false;
    net_conn_pause(server->conn, false);
    for (int i = 0; i < TURNS_MAX && server->received < 9; i++)
        turn(server);
    assert_int_equal(server->received, 9);
    close(fd);
    wait_closed(server, 1);
}

static void the_last_words_arrive_though_the_client_talks_on(void **state)
{
    struct server *server = *state;
    server->pause = true; /* so that there are unread bytes */
    int fd = client_open(server);
    uint8_t block[50000] = {0};
    assert_int_equal(send(fd, block, sizeof block, 0), sizeof block);
    for (int i = 0; i < TURNS_MAX && server->calls == 0; i++)
        turn(server);
    net_conn_copy(server->conn, block, 3000);
    net_conn_close(server->conn, true);
    wait_closed(server, 1);
    assert_int_equal(server->err, ERR_NONE);
    assert_int_equal(send(fd, block, sizeof block, MSG_DONTWAIT), sizeof block);
    loop_turn(server->loop);
    size_t got = 0;
    ssize_t count;
    while ((count = recv(fd, block, sizeof block, 0)) > 0)
        got += (size_t)count;
    assert_int_equal(count, 0);
    assert_int_equal(got, 3000);
    assert_int_equal(loop_lingering(server->loop), 1);
    close(fd);
    for (int i = 0; i < TURNS_MAX && loop_lingering(server->loop) > 0; i++)
        turn(server);
    assert_int_equal(loop_lingering(server->loop), 0);
}

static void a_half_closed_client_still_gets_its_answer(void **state)
{
    struct server *server = *state;
    int fd = client_open(server);
    uint8_t block[1000] = {1};
    assert_int_equal(send(fd, block, sizeof block, 0), sizeof block);
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    wait_closed(server, 1);
    assert_int_equal(recv(fd, block, sizeof block, MSG_WAITALL), sizeof block);
    assert_int_equal(recv(fd, block, 1, 0), 0);
    close(fd);
}

static void a_reset_is_reported(void **state)
{
    struct server *server = *state;
    int fd = client_open(server);
    struct linger reset = {.l_onoff = 1};
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset), 0);
    close(fd);
    wait_closed(server, 1);
    assert_int_equal(server->err, ERR_IO);
}

static void a_refused_client_is_closed_without_events(void **state)
{
    struct server *server = *state;
    server->refuse = true;
    int fd = client_open(server);
    uint8_t byte;
    assert_int_equal(recv(fd, &byte, 1, 0), 0);
    assert_int_equal(server->closed, 0);
    close(fd);
}

static void drained_is_told_once_when_output_falls_to_the_mark(void **state)
{
    struct server *server = *state;
    int fd = client_open(server);
    uint8_t *block = calloc(1, 16 << 20);
    assert_non_null(block);
    server->conn->low_mark = 1 << 20;
    net_conn_copy(server->conn, block, 16 << 20);
    for (int i = 0; i < 20; i++)
        loop_turn(server->loop);
    assert_int_equal(server->drained, 0);
    assert_in_range(server->conn->pending, 1 << 20, 16 << 20);
    size_t got = 0;
    while (got < 16 << 20) {
        ssize_t count = recv(fd, block, 1 << 20, MSG_DONTWAIT);
        if (count > 0)
            got += (size_t)count;
        loop_turn(server->loop);
    }
    loop_turn(server->loop);
    assert_int_equal(server->drained, 1);
    assert_int_equal(server->conn->pending, 0);
    free(block);
    close(fd);
    wait_closed(server, 1);
}

static void shared_bytes_are_sent_and_released(void **state)
{
    struct server *server = *state;
    int fd = client_open(server);
    uint64_t held = 0;
    struct buf *buf = buf_create(100000, 0, &held);
    assert_non_null(buf);
    memset(buf->data, 'x', 100000);
    net_conn_copy(server->conn, "head", 4);
    net_conn_share(server->conn, buf, buf->data, 100000);
    assert_int_equal(server->conn->pending, 100004);
    size_t got = 0;
    uint8_t block[4096];
    for (int i = 0; i < TURNS_MAX && got < 100004; i++) {
        loop_turn(server->loop);
        ssize_t count = recv(fd, block, sizeof block, MSG_DONTWAIT);
        if (count > 0)
            got += (size_t)count;
    }
    assert_int_equal(held, 0);
    close(fd);
    wait_closed(server, 1);
}

static void an_address_is_taken_once_unless_by_another_shard(void **state)
{
    struct server *server = *state;
    struct net_listener *listener;
    uint16_t port;
    assert_int_equal(net_listen(loop_net(server->loop), "127.0.0.1", server->port, &HANDLER, server,
                                &listener, &port),
                     ERR_IN_USE);
    struct loop *other;
    struct loop_config config = {.shard = 1};
    assert_int_equal(loop_create(&config, &other), ERR_NONE);
    assert_int_equal(
        net_listen(loop_net(other), "127.0.0.1", server->port, &HANDLER, server, &listener, &port),
        ERR_NONE);
    assert_int_equal(port, server->port);
    net_listener_close(loop_net(other), listener);
    loop_destroy(other);
    assert_int_equal(net_listen(loop_net(server->loop), "no.such.host.invalid", 0, &HANDLER, server,
                                &listener, &port),
                     ERR_NOT_FOUND);
}

static void a_lack_of_descriptors_is_waited_out_without_spinning(void **state)
{
    struct server *server = *state;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct rlimit before, none = {0};
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none.rlim_max = before.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(server->port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int connected = connect(fd, (struct sockaddr *)&address, sizeof address);
    turn_until(server->loop, INT64_MAX);
    int events = turn_until(server->loop, loop_now_ms(server->loop) + 2);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(connected, 0);
    assert_int_equal(events, 0);
    assert_int_equal(server->accepted, 0);
    for (int i = 0; i < TURNS_MAX && server->accepted == 0; i++)
        turn_until(server->loop, INT64_MAX);
    assert_int_equal(server->accepted, 1);
    close(fd);
    wait_closed(server, 1);
}

static void *waker(void *ctx)
{
    loop_wake(ctx);
    return NULL;
}

static void a_wake_ends_a_turn_without_a_deadline(void **state)
{
    struct server *server = *state;
    for (int i = 0; i < 50; i++) {
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, waker, server->loop), 0);
        assert_true(turn_until(server->loop, INT64_MAX) > 0);
        pthread_join(thread, NULL);
        loop_turn(server->loop);
    }
}

static void a_turn_returns_at_its_deadline(void **state)
{
    struct server *server = *state;
    loop_turn(server->loop);
    int64_t start = loop_now_ms(server->loop);
    assert_int_equal(turn_until(server->loop, start + 3), 0);
    assert_in_range(loop_now_ms(server->loop), start + 3, start + 1000);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, server_setup, server_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bytes_come_back_in_order),
        TEST(items_arrive_whole_whatever_their_length),
        TEST(a_reader_that_makes_no_progress_is_closed),
        TEST(an_announced_size_allocates_only_what_came),
        TEST(large_items_wait_for_each_other),
        TEST(a_paused_connection_is_shown_the_same_bytes_again),
        TEST(the_last_words_arrive_though_the_client_talks_on),
        TEST(a_half_closed_client_still_gets_its_answer),
        TEST(a_reset_is_reported),
        TEST(a_refused_client_is_closed_without_events),
        TEST(drained_is_told_once_when_output_falls_to_the_mark),
        TEST(shared_bytes_are_sent_and_released),
        TEST(an_address_is_taken_once_unless_by_another_shard),
        TEST(a_lack_of_descriptors_is_waited_out_without_spinning),
        TEST(a_wake_ends_a_turn_without_a_deadline),
        TEST(a_turn_returns_at_its_deadline),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
