/* Packets, and the life of a link. */
#include "io/sim_link.h"
#include "io/sim_memory.h"

#include <assert.h>
#include <stdlib.h>

void sim_pipe_clear(struct sim_pipe *pipe)
{
    while (pipe->first != NULL) {
        struct sim_packet *packet = pipe->first;
        pipe->first = packet->next;
        free(packet);
    }
    pipe->last = NULL;
    pipe->bytes = 0;
}

void sim_link_free(struct sim_link *link)
{
    sim_pipe_clear(&link->to_server);
    sim_pipe_clear(&link->to_client);
    outq_clear(&link->out, &link->sim->out);
    inq_keep(&link->in, &link->sim->in, NULL, 0);
    list_remove(&link->dirty);
    list_remove(&link->all);
    free(link);
}

void sim_link_unref(struct sim_link *link)
{
    assert(link->refs > 0);
    if (--link->refs == 0)
        sim_link_free(link);
}

void sim_link_event(struct sim_link *link, int64_t at_us, void (*run)(void *ctx))
{
    link->refs++;
    sim_schedule(link->sim, NULL, at_us - link->sim->now_us, run, link);
}

struct sim_packet *sim_pipe_take(struct sim_pipe *pipe)
{
    struct sim_packet *packet = pipe->first;
    pipe->first = packet->next;
    if (packet->next == NULL)
        pipe->last = NULL;
    pipe->bytes -= packet->len;
    return packet;
}

void sim_packet_send(struct sim_link *link, struct sim_pipe *pipe, struct sim_packet *packet,
                     void (*run)(void *ctx))
{
    if (pipe->last != NULL)
        pipe->last->next = packet;
    else
        pipe->first = packet;
    pipe->last = packet;
    pipe->bytes += packet->len;
    int64_t at = link->sim->now_us + sim_delay(link->sim, link->sim->config.net_us_max);
    if (at < pipe->last_at_us)
        at = pipe->last_at_us;
    pipe->last_at_us = at;
    sim_digest_mix(link->sim, packet->len);
    for (size_t i = 0; i < packet->len; i += 64)
        sim_digest_mix(link->sim, packet->data[i]);
    sim_link_event(link, at, run);
}

struct sim_packet *sim_packet_make(size_t len)
{
    struct sim_packet *packet = sim_resize(NULL, 1, sizeof *packet + len);
    assert(packet != NULL);
    packet->next = NULL;
    packet->len = len;
    return packet;
}

size_t sim_packet_len(struct sim *sim, size_t len)
{
    if (len < 2 || sim_random_below(&sim->random, 4) > 0)
        return len;
    return 1 + (size_t)sim_random_below(&sim->random, len);
}
