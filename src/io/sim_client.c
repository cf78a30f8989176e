/* The client's end of a simulated connection, which a test drives. */
#include "io/sim_link.h"
#include "io/sim_memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct sim_client {
    struct sim_link link; /* is nothing but the link, seen from the other end */
};

static void client_gone(struct sim_link *link)
{
    link->client_handler = NULL;
    sim_pipe_clear(&link->to_client);
    sim_link_unref(link);
}

static void client_end_run(void *ctx)
{
    struct sim_link *link = ctx;
    if (link->client_handler != NULL) {
        link->client_handler->closed(link->client_user);
        if (link->client_handler != NULL)
            client_gone(link);
    }
    sim_link_unref(link);
}

void sim_client_end(struct sim_link *link)
{
    if (link->to_client.ending)
        return;
    link->to_client.ending = true;
    int64_t at = link->sim->now_us + sim_delay(link->sim, link->sim->config.net_us_max);
    if (at <= link->to_client.last_at_us)
        at = link->to_client.last_at_us + 1;
    link->to_client.last_at_us = at;
    sim_link_event(link, at, client_end_run);
}

static void client_take(struct sim_link *link)
{
    struct sim_packet *packet = sim_pipe_take(&link->to_client);
    if (link->client_handler != NULL)
        link->client_handler->received(link->client_user, packet->data, packet->len);
    free(packet);
    sim_server_room(link);
}

void sim_client_packet_run(void *ctx)
{
    struct sim_link *link = ctx;
    if (!link->broken && !link->client_paused && link->to_client.first != NULL) {
        if (sim_random_chance(&link->sim->random, link->sim->config.net_reset_rate))
            sim_link_break(link);
        else
            client_take(link);
    }
    sim_link_unref(link);
}

static void address_set(struct net_addr *address, uint16_t port)
{
    snprintf(address->host, sizeof address->host, "127.0.0.1");
    address->port = port;
    address->loopback = true;
}

struct sim_client *sim_connect(struct sim *sim, uint32_t machine, uint16_t port,
                               const struct sim_client_handler *handler, void *user)
{
    struct sim_link *link = sim_make(sizeof(struct sim_client));
    if (link == NULL)
        return NULL;
    link->sim = sim;
    link->machine = &sim->machines[machine];
    link->client_handler = handler;
    link->client_user = user;
    link->port = port;
    link->refs = 2;
    address_set(&link->conn.peer, sim->next_port++);
    address_set(&link->conn.local, port);
    list_init(&link->dirty);
    list_init(&link->all);
    list_insert(&sim->links, &link->all);
    int64_t at = sim->now_us + sim_delay(sim, sim->config.net_us_max);
    link->to_server.last_at_us = at;
    sim_link_event(link, at, sim_server_accept_run);
    return (struct sim_client *)link;
}

void sim_client_send(struct sim_client *client, const void *data, size_t len)
{
    struct sim_link *link = &client->link;
    if (link->broken || link->to_client.ending)
        return;
    for (size_t at = 0; at < len;) {
        size_t part = sim_packet_len(link->sim, len - at);
        struct sim_packet *packet = sim_packet_make(part);
        memcpy(packet->data, (const uint8_t *)data + at, part);
        sim_packet_send(link, &link->to_server, packet, sim_server_packet_run);
        at += part;
    }
}

static void client_resume_run(void *ctx)
{
    struct sim_link *link = ctx;
    while (!link->broken && !link->client_paused && link->to_client.first != NULL)
        client_take(link);
    sim_link_unref(link);
}

void sim_client_pause(struct sim_client *client, bool paused)
{
    struct sim_link *link = &client->link;
    link->client_paused = paused;
    if (!paused && link->to_client.first != NULL)
        sim_link_event(link, link->sim->now_us + 1, client_resume_run);
}

void sim_client_close(struct sim_client *client, bool reset)
{
    struct sim_link *link = &client->link;
    link->to_client.ending = true;
    if (reset)
        sim_link_break(link);
    else
        sim_link_event(link,
                       link->to_server.last_at_us > link->sim->now_us ? link->to_server.last_at_us
                                                                      : link->sim->now_us + 1,
                       sim_server_end_run);
    client_gone(link);
}
