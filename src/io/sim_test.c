/* The simulated world: time, shards, network, crashes. */
#include "io/sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct sim *world(uint64_t seed)
{
    struct sim_config config = {0};
    struct sim *sim = sim_create(seed, &config);
    assert_non_null(sim);
    return sim;
}

static void run_all(struct sim *sim)
{
    for (int i = 0; i < 100000 && sim_step(sim); i++)
        continue;
    assert_false(sim_step(sim));
}

struct note {
    char *text;
    char letter;
};

static void note_run(void *ctx)
{
    struct note *note = ctx;
    size_t len = strlen(note->text);
    note->text[len] = note->letter;
    note->text[len + 1] = '\0';
}

static void events_happen_in_the_order_of_their_times(void **state)
{
    (void)state;
    struct sim *sim = world(1);
    char text[8] = "";
    struct note a = {text, 'a'}, b = {text, 'b'}, c = {text, 'c'}, d = {text, 'd'};
    sim_after(sim, 300, note_run, &c);
    sim_after(sim, 100, note_run, &a);
    sim_after(sim, 900, note_run, &d);
    sim_after(sim, 100, note_run, &b);
    assert_int_equal(sim_next_us(sim), 100);
    sim_run_until(sim, 500);
    assert_int_equal(sim_next_us(sim), 900);
    assert_string_equal(text, "abc");
    assert_int_equal(sim_now_us(sim), 500);
    run_all(sim);
    assert_string_equal(text, "abcd");
    assert_int_equal(sim_now_us(sim), 900);
    sim_destroy(sim);
}

struct ticker {
    struct sim *sim;
    int turns;
    int64_t at_ms;
};

static int64_t ticker_turn(void *ctx)
{
    struct ticker *ticker = ctx;
    ticker->turns++;
    ticker->at_ms = sim_now_ms(ticker->sim);
    return ticker->turns < 5 ? ticker->at_ms + 10 : INT64_MAX;
}

static void a_shard_is_called_when_its_timer_is_due_and_when_woken(void **state)
{
    (void)state;
    struct sim *sim = world(1);
    struct ticker ticker = {.sim = sim};
    sim_shard_start(sim, 0, ticker_turn, &ticker);
    run_all(sim);
    assert_int_equal(ticker.turns, 5);
    assert_int_equal(ticker.at_ms, 40);
    sim_wake(sim, 0);
    sim_wake(sim, 0);
    run_all(sim);
    assert_int_equal(ticker.turns, 6);
    sim_destroy(sim);
}

/* Network: a server that echoes, on each shard; a client that checks. */

struct server {
    struct net *net;
    struct net_conn *conn;
    struct net_listener *listener;
    int accepted, drained, closed;
    enum err err;
    size_t received, item;
    bool pause, silent;
    int64_t now_ms, accepted_ms; /* as it was told; of the last connection */
};

static void *server_accepted(void *user, struct net_conn *conn)
{
    struct server *server = user;
    server->accepted++;
    server->accepted_ms = server->now_ms;
    server->conn = conn;
    return server;
}

static size_t server_received(void *user, const uint8_t *data, size_t len)
{
    struct server *server = user;
    if (server->pause) {
        net_conn_pause(server->conn, true);
        return 0;
    }
    size_t used = server->item > 0 ? len / server->item * server->item : len;
    if (used < len)
        net_conn_want(server->conn, server->item);
    server->received += used;
    if (!server->silent)
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

static const struct net_handler SERVER = {
    .accepted = server_accepted,
    .received = server_received,
    .drained = server_drained,
    .closed = server_closed,
};

static void server_clock(void *ctx, int64_t now_ms, int64_t wall_ms)
{
    struct server *server = ctx;
    (void)wall_ms;
    server->now_ms = now_ms;
}

static int64_t idle_turn(void *ctx)
{
    (void)ctx;
    return INT64_MAX;
}

static void server_start(struct sim *sim, uint32_t shard, struct server *server)
{
    uint16_t port;
    server->net = sim_net(sim, shard);
    assert_int_equal(
        net_listen(server->net, "127.0.0.1", 5672, &SERVER, server, &server->listener, &port),
        ERR_NONE);
    server->net->clock = server_clock;
    server->net->clock_ctx = server;
    sim_shard_start(sim, shard, idle_turn, server);
}

struct client {
    struct sim_client *end;
    size_t got, wrong;
    int closed;
};

static void client_received(void *user, const uint8_t *data, size_t len)
{
    struct client *client = user;
    for (size_t i = 0; i < len; i++, client->got++)
        client->wrong += data[i] != (uint8_t)(client->got * 7 >> 3);
}

static void client_closed(void *user)
{
    ((struct client *)user)->closed++;
}

static const struct sim_client_handler CLIENT = {client_received, client_closed};

static void client_start(struct sim *sim, struct client *client)
{
    client->end = sim_connect(sim, 0, 5672, &CLIENT, client);
    assert_non_null(client->end);
}

static void client_send(struct client *client, size_t len)
{
    uint8_t *bytes = malloc(len);
    assert_non_null(bytes);
    for (size_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)(i * 7 >> 3);
    sim_client_send(client->end, bytes, len);
    free(bytes);
}

static uint64_t echo_digest(uint64_t seed, size_t len, size_t item)
{
    struct sim *sim = world(seed);
    struct server server = {.item = item};
    struct client client = {0};
    server_start(sim, 0, &server);
    client_start(sim, &client);
    client_send(&client, len);
    run_all(sim);
    assert_int_equal(client.got, len);
    assert_int_equal(client.wrong, 0);
    sim_client_close(client.end, false);
    run_all(sim);
    assert_int_equal(server.closed, 1);
    assert_int_equal(server.err, ERR_NONE);
    uint64_t digest = sim_digest(sim);
    sim_destroy(sim);
    return digest;
}

static void bytes_come_back_in_order_whatever_is_cut(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 100; seed++) {
        echo_digest(seed, 1000, 0);
        echo_digest(seed, 1000, 10);
        echo_digest(seed, 300000, 100000);
    }
}

static void equal_seeds_give_equal_runs(void **state)
{
    (void)state;
    assert_true(echo_digest(1, 5000, 0) == echo_digest(1, 5000, 0));
    assert_true(echo_digest(1, 5000, 0) != echo_digest(2, 5000, 0));
}

static void a_server_that_slept_knows_the_time_of_what_wakes_it(void **state)
{
    (void)state;
    struct sim *sim = world(1);
    struct server server = {0};
    struct client client = {0};
    server_start(sim, 0, &server);
    sim_run_until(sim, 60 * 1000000);
    int64_t before_ms = sim_now_ms(sim);
    client_start(sim, &client);
    run_all(sim);
    assert_int_equal(server.accepted, 1);
    assert_true(server.accepted_ms >= before_ms);
    sim_destroy(sim);
}

static void output_backs_up_behind_a_client_that_does_not_read(void **state)
{
    (void)state;
    struct sim *sim = world(4);
    struct server server = {0};
    struct client client = {0};
    server_start(sim, 0, &server);
    client_start(sim, &client);
    sim_client_pause(client.end, true);
    client_send(&client, 1000000);
    run_all(sim);
    assert_int_equal(server.received, 1000000);
    assert_int_equal(server.conn->pending, 1000000 - (64 << 10));
    server.conn->low_mark = 500000;
    sim_client_pause(client.end, false);
    run_all(sim);
    assert_int_equal(server.drained, 1);
    assert_int_equal(client.got, 1000000);
    assert_int_equal(client.wrong, 0);
    sim_destroy(sim);
}

static void a_paused_server_sees_everything_later(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct sim *sim = world(seed);
        struct server server = {.pause = true};
        struct client client = {0};
        server_start(sim, 0, &server);
        client_start(sim, &client);
        for (int i = 0; i < 5; i++)
            client_send(&client, 8);
        sim_client_close(client.end, false);
        run_all(sim);
        assert_int_equal(server.received, 0);
        assert_int_equal(server.closed, 0);
        server.pause = false;
        net_conn_pause(server.conn, false);
        run_all(sim);
        assert_int_equal(server.received, 40);
        assert_int_equal(server.closed, 1);
        sim_destroy(sim);
    }
}

static void a_server_that_closes_sends_its_last_words(void **state)
{
    (void)state;
    struct sim *sim = world(4);
    struct server server = {.silent = true};
    struct client client = {0};
    server_start(sim, 0, &server);
    client_start(sim, &client);
    run_all(sim);
    uint8_t *bytes = malloc(200000);
    assert_non_null(bytes);
    for (size_t i = 0; i < 200000; i++)
        bytes[i] = (uint8_t)(i * 7 >> 3);
    net_conn_copy(server.conn, bytes, 200000);
    net_conn_close(server.conn, true);
    net_conn_copy(server.conn, bytes, 100);
    assert_int_equal(server.closed, 0);
    run_all(sim);
    assert_int_equal(server.closed, 1);
    assert_int_equal(client.got, 200000);
    assert_int_equal(client.wrong, 0);
    assert_int_equal(client.closed, 1);
    free(bytes);
    sim_destroy(sim);
}

static void a_broken_connection_is_told_to_both(void **state)
{
    (void)state;
    struct sim_config config = {.net_reset_rate = 1000000};
    struct sim *sim = sim_create(1, &config);
    struct server server = {0};
    struct client client = {0};
    server_start(sim, 0, &server);
    client_start(sim, &client);
    client_send(&client, 10);
    run_all(sim);
    assert_int_equal(server.closed, 1);
    assert_int_equal(server.err, ERR_IO);
    assert_int_equal(client.closed, 1);
    sim_destroy(sim);
}

static void connections_spread_over_the_shards_of_a_machine(void **state)
{
    (void)state;
    struct sim_config config = {.machines = 2, .shards = 3};
    struct sim *sim = sim_create(1, &config);
    struct server servers[6] = {0};
    struct client clients[60] = {0};
    for (uint32_t i = 0; i < 6; i++)
        server_start(sim, i, &servers[i]);
    for (int i = 0; i < 60; i++)
        client_start(sim, &clients[i]);
    run_all(sim);
    for (int i = 0; i < 3; i++) {
        assert_in_range(servers[i].accepted, 5, 50);
        assert_int_equal(servers[i + 3].accepted, 0);
    }
    sim_destroy(sim);
}

static void a_crash_ends_connections_and_a_restart_takes_new_ones(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct sim *sim = world(seed);
        struct server before = {0}, after = {0};
        struct client client = {0}, refused = {0}, again = {0};
        server_start(sim, 0, &before);
        client_start(sim, &client);
        client_send(&client, 100);
        sim_run_until(sim, (int64_t)seed * 10);
        sim_crash(sim, 0, SIM_KILL);
        if (before.conn != NULL)
            net_conn_copy(before.conn, "dead", 4);
        client_start(sim, &refused);
        run_all(sim);
        assert_int_equal(client.closed, 1);
        assert_int_equal(refused.closed, 1);
        assert_int_equal(before.closed, 0);
        sim_restart(sim, 0);
        server_start(sim, 0, &after);
        client_start(sim, &again);
        client_send(&again, 100);
        run_all(sim);
        assert_int_equal(again.got, 100);
        assert_int_equal(before.closed, 0);
        sim_destroy(sim);
    }
}

static void the_wall_clock_jumps_and_time_goes_on(void **state)
{
    (void)state;
    struct sim *sim = world(1);
    int64_t wall_ms = sim_wall_ms(sim);
    sim_run_until(sim, 5000);
    sim_wall_jump(sim, 3600000);
    assert_int_equal(sim_wall_ms(sim), wall_ms + 5 + 3600000);
    sim_wall_jump(sim, -3600001);
    assert_int_equal(sim_wall_ms(sim), wall_ms + 4);
    assert_int_equal(sim_now_ms(sim), 5);
    sim_destroy(sim);
}

static void what_was_due_while_the_world_slept_happens_late(void **state)
{
    (void)state;
    struct sim *sim = world(1);
    char text[8] = "";
    struct note a = {text, 'a'}, b = {text, 'b'};
    sim_after(sim, 100, note_run, &a);
    sim_after(sim, 900, note_run, &b);
    sim_sleep(sim, 500);
    assert_string_equal(text, "");
    assert_true(sim_step(sim));
    assert_string_equal(text, "a");
    assert_int_equal(sim_now_us(sim), 500);
    run_all(sim);
    assert_string_equal(text, "ab");
    assert_int_equal(sim_now_us(sim), 900);
    sim_destroy(sim);
}

static void trouble_with_the_network_begins_and_ends(void **state)
{
    (void)state;
    struct sim *sim = world(1);
    struct server server = {0};
    struct client client = {0}, other = {0};
    server_start(sim, 0, &server);
    sim_net_trouble(sim, 0, 1000000);
    client_start(sim, &client);
    client_send(&client, 10);
    run_all(sim);
    assert_int_equal(client.closed, 1);
    sim_net_trouble(sim, 50000, 0);
    int64_t before_us = sim_now_us(sim);
    client_start(sim, &other);
    client_send(&other, 10);
    run_all(sim);
    assert_int_equal(other.got, 10);
    assert_true(sim_now_us(sim) > before_us + 1000);
    sim_destroy(sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_happen_in_the_order_of_their_times),
        cmocka_unit_test(a_shard_is_called_when_its_timer_is_due_and_when_woken),
        cmocka_unit_test(bytes_come_back_in_order_whatever_is_cut),
        cmocka_unit_test(equal_seeds_give_equal_runs),
        cmocka_unit_test(a_server_that_slept_knows_the_time_of_what_wakes_it),
        cmocka_unit_test(output_backs_up_behind_a_client_that_does_not_read),
        cmocka_unit_test(a_paused_server_sees_everything_later),
        cmocka_unit_test(a_server_that_closes_sends_its_last_words),
        cmocka_unit_test(the_wall_clock_jumps_and_time_goes_on),
        cmocka_unit_test(what_was_due_while_the_world_slept_happens_late),
        cmocka_unit_test(trouble_with_the_network_begins_and_ends),
        cmocka_unit_test(a_broken_connection_is_told_to_both),
        cmocka_unit_test(connections_spread_over_the_shards_of_a_machine),
        cmocka_unit_test(a_crash_ends_connections_and_a_restart_takes_new_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
