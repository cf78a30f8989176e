/* The shard's end of a simulated connection: what it received and sends goes through the same
 * queues as in the real backend, so that what it sees is cut and kept by the same rules. */
#include "io/sim_link.h"
#include "io/sim_memory.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { GATHER_PARTS = 64 };

struct net_listener {
    struct sim_shard *shard;
    const struct net_handler *handler;
    void *user;
    uint16_t port;
    uint32_t epoch;
    struct list link;
};

static struct sim_link *link_of(struct net_conn *conn)
{
    return (struct sim_link *)conn;
}

/* Whether the shard's end can be told something. */
static bool server_lives(const struct sim_link *link)
{
    return link->shard != NULL && link->state != SERVER_GONE && sim_shard_lives(link->shard);
}

static void server_gone(struct sim_link *link)
{
    link->state = SERVER_GONE;
    list_remove(&link->dirty);
    outq_clear(&link->out, &link->sim->out);
    sim_pipe_clear(&link->to_server);
    sim_client_end(link);
    sim_link_unref(link);
}

static bool link_send(struct sim_link *link, size_t window);

/* Calls closed(), once, from an event of its own. */
static void server_close_run(void *ctx)
{
    struct sim_link *link = ctx;
    if (server_lives(link)) {
        struct sim_shard *shard = link->shard;
        link->handler->closed(link->conn.user, link->err);
        if (link->flush)
            while (link->out.bytes > 0 && link_send(link, SIZE_MAX))
                continue;
        server_gone(link);
        sim_shard_turn(shard);
    }
    sim_link_unref(link);
}

static void server_close(struct net_conn *conn, bool flush)
{
    struct sim_link *link = link_of(conn);
    if (link->state == SERVER_CLOSING && !flush)
        link->flush = false;
    if (link->state != SERVER_OPEN || !sim_shard_lives(link->shard))
        return;
    link->state = SERVER_CLOSING;
    link->flush = flush;
    if (!flush) {
        outq_clear(&link->out, &link->sim->out);
        conn->pending = 0;
    }
    sim_link_event(link, link->sim->now_us + 1, server_close_run);
}

static void server_fail(struct sim_link *link, enum err err)
{
    if (link->state == SERVER_OPEN)
        link->err = err;
    server_close(&link->conn, false);
}

void sim_link_break(struct sim_link *link)
{
    if (link->broken)
        return;
    link->broken = true;
    sim_pipe_clear(&link->to_server);
    sim_pipe_clear(&link->to_client);
    if (server_lives(link))
        server_fail(link, ERR_IO);
    sim_client_end(link);
}

/* To the server */

static void server_show(struct sim_link *link, const uint8_t *data, size_t len)
{
    if (len < link->in.want) {
        link->show = false;
        if (!inq_keep(&link->in, &link->sim->in, data, len))
            server_fail(link, ERR_NO_MEMORY);
        return;
    }
    link->in.want = 0;
    size_t used = link->handler->received(link->conn.user, data, len);
    assert(used <= len);
    if (link->state != SERVER_OPEN || !sim_shard_lives(link->shard))
        return;
    link->show = link->paused && used < len;
    enum err err = inq_rest(&link->in, &link->sim->in, data + used, len - used, link->paused);
    if (err)
        server_fail(link, err);
}

static bool server_reads(const struct sim_link *link)
{
    return server_lives(link) && link->state == SERVER_OPEN && !link->paused;
}

/* Takes the first packet off, shows its bytes (all of them, or first some and then the rest). */
static void server_take(struct sim_link *link)
{
    struct sim_packet *packet = sim_pipe_take(&link->to_server);
    size_t done = 0;
    while (done < packet->len && server_lives(link) && link->state == SERVER_OPEN) {
        size_t room;
        uint8_t *place = inq_place(&link->in, &link->sim->in, &room);
        if (place == NULL) {
            server_fail(link, ERR_NO_MEMORY);
            break;
        }
        size_t part = packet->len - done < room ? packet->len - done : room;
        memcpy(place, packet->data + done, part);
        done += part;
        uint8_t *data;
        size_t len = inq_arrived(&link->in, place, part, &data);
        if (link->paused) { /* it was in the middle of a packet */
            link->show = true;
            if (!inq_keep(&link->in, &link->sim->in, data, len))
                server_fail(link, ERR_NO_MEMORY);
        } else {
            server_show(link, data, len);
        }
    }
    free(packet);
}

void sim_server_packet_run(void *ctx)
{
    struct sim_link *link = ctx;
    if (!link->broken && link->to_server.first != NULL && server_lives(link) &&
        link->state == SERVER_OPEN) {
        if (sim_random_chance(&link->sim->random, link->sim->config.net_reset_rate)) {
            sim_link_break(link);
        } else if (link->paused || link->waiting) {
            link->waiting = true;
        } else {
            server_take(link);
            sim_shard_turn(link->shard);
        }
    }
    sim_link_unref(link);
}

/* After a pause: what is kept, then what has arrived meanwhile. */
static void server_resume_run(void *ctx)
{
    struct sim_link *link = ctx;
    bool told = server_reads(link) && (link->show || link->waiting);
    if (server_reads(link) && link->show)
        server_show(link, link->in.kept, link->in.len);
    if (server_reads(link) && link->waiting) {
        while (server_reads(link) && link->to_server.first != NULL)
            server_take(link);
        link->waiting = link->to_server.first != NULL;
    }
    if (server_reads(link) && link->ended && !link->waiting)
        server_close(&link->conn, true);
    if (told && server_lives(link))
        sim_shard_turn(link->shard);
    sim_link_unref(link);
}

void sim_server_end_run(void *ctx)
{
    struct sim_link *link = ctx;
    if (server_lives(link) && link->state == SERVER_OPEN) {
        if (link->paused || link->waiting)
            link->ended = true; /* it reads on first */
        else
            server_close(&link->conn, true);
    }
    sim_link_unref(link);
}

static void server_pause(struct net_conn *conn, bool paused)
{
    struct sim_link *link = link_of(conn);
    if (link->state != SERVER_OPEN || link->paused == paused)
        return;
    link->paused = paused;
    if (!paused && (link->show || link->waiting || link->ended))
        sim_link_event(link, link->sim->now_us + 1, server_resume_run);
}

static void server_want(struct net_conn *conn, size_t bytes)
{
    link_of(conn)->in.want = bytes;
}

/* To the client */

static void server_drained_run(void *ctx)
{
    struct sim_link *link = ctx;
    if (server_lives(link) && link->state == SERVER_OPEN) {
        link->handler->drained(link->conn.user);
        sim_shard_turn(link->shard);
    }
    sim_link_unref(link);
}

static void output_changed(struct sim_link *link, size_t before)
{
    size_t mark = link->conn.low_mark;
    link->conn.pending = link->out.bytes;
    if (link->state == SERVER_OPEN && mark > 0 && before > mark && link->conn.pending <= mark)
        sim_link_event(link, link->sim->now_us + 1, server_drained_run);
}

/* Sends a packet, if the window has room for one. */
static bool link_send(struct sim_link *link, size_t window)
{
    struct sim *sim = link->sim;
    struct sim_pipe *pipe = &link->to_client;
    if (pipe->bytes >= window || link->broken || link->client_handler == NULL)
        return false;
    struct iovec parts[GATHER_PARTS];
    size_t bytes;
    int count = outq_gather(&link->out, parts, GATHER_PARTS, &bytes);
    size_t room = window - pipe->bytes;
    size_t len = sim_packet_len(sim, bytes < room ? bytes : room);
    struct sim_packet *packet = sim_packet_make(len);
    size_t at = 0;
    for (int i = 0; i < count && at < len; i++) {
        size_t part = parts[i].iov_len < len - at ? parts[i].iov_len : len - at;
        memcpy(packet->data + at, parts[i].iov_base, part);
        at += part;
    }
    outq_consume(&link->out, &sim->out, len);
    sim_packet_send(link, pipe, packet, sim_client_packet_run);
    return true;
}

static void output_send(struct sim_link *link)
{
    size_t before = link->conn.pending;
    while (link->out.bytes > 0 && link_send(link, link->sim->config.net_window))
        continue;
    output_changed(link, before);
}

void sim_server_room(struct sim_link *link)
{
    if (server_lives(link) && link->out.bytes > 0)
        output_send(link);
}

void sim_net_flush(struct sim_shard *shard)
{
    while (!list_empty(&shard->dirty)) {
        struct sim_link *link = list_entry(shard->dirty.next, struct sim_link, dirty);
        list_remove(&link->dirty);
        output_send(link);
    }
}

static bool server_sends(const struct sim_link *link)
{
    return link->state == SERVER_OPEN && sim_shard_lives(link->shard);
}

static void dirty_add(struct sim_link *link)
{
    if (list_empty(&link->dirty))
        list_insert(&link->shard->dirty, &link->dirty);
    link->conn.pending = link->out.bytes;
}

static void server_copy(struct net_conn *conn, const void *data, size_t len)
{
    struct sim_link *link = link_of(conn);
    if (!server_sends(link))
        return;
    if (!outq_copy(&link->out, &link->sim->out, data, len))
        server_fail(link, ERR_NO_MEMORY);
    dirty_add(link);
}

static uint8_t *server_reserve(struct net_conn *conn, size_t len)
{
    struct sim_link *link = link_of(conn);
    if (!server_sends(link))
        return NULL;
    uint8_t *space = outq_reserve(&link->out, &link->sim->out, len);
    if (space == NULL)
        server_fail(link, ERR_NO_MEMORY);
    return space;
}

static void server_commit(struct net_conn *conn, size_t len)
{
    struct sim_link *link = link_of(conn);
    outq_commit(&link->out, len);
    dirty_add(link);
}

static void server_share(struct net_conn *conn, struct buf *buf, const uint8_t *data, size_t len)
{
    struct sim_link *link = link_of(conn);
    /* The world has one pool, but every shard releases its bufs in its own way: copy. */
    server_copy(conn, data, len);
    if (link->conn.net->release != NULL)
        link->conn.net->release(link->conn.net->release_ctx, buf);
    else
        buf_unref(buf);
}

/* Listening and connecting */

static struct sim_shard *shard_of(struct net *net)
{
    return (struct sim_shard *)(void *)((char *)net - offsetof(struct sim_shard, net));
}

static struct net_listener *listener_find(const struct sim_shard *shard, uint16_t port)
{
    list_each(node, &shard->listeners)
    {
        struct net_listener *listener = list_entry(node, struct net_listener, link);
        if (listener->port == port && listener->epoch == shard->machine->epoch)
            return listener;
    }
    return NULL;
}

static enum err server_listen(struct net *net, const char *host, uint16_t port,
                              const struct net_handler *handler, void *user,
                              struct net_listener **out, uint16_t *port_out)
{
    (void)host;
    struct sim_shard *shard = shard_of(net);
    if (!sim_shard_lives(shard))
        return ERR_IO;
    if (port == 0)
        port = shard->sim->next_port++;
    if (listener_find(shard, port) != NULL)
        return ERR_IN_USE;
    struct net_listener *listener = sim_make(sizeof *listener);
    if (listener == NULL)
        return ERR_NO_MEMORY;
    *listener = (struct net_listener){
        .shard = shard,
        .handler = handler,
        .user = user,
        .port = port,
        .epoch = shard->machine->epoch,
    };
    list_init(&listener->link);
    list_insert(&shard->listeners, &listener->link);
    *out = listener;
    *port_out = port;
    return ERR_NONE;
}

static void listener_close(struct net_listener *listener)
{
    list_remove(&listener->link);
    free(listener);
}

/* One of the machine's listeners on the port, at random. */
static struct net_listener *listener_choose(struct sim_machine *machine, uint16_t port)
{
    struct sim *sim = machine->sim;
    uint32_t shards = sim->config.shards;
    struct sim_shard *first = &sim->shards[(size_t)(machine - sim->machines) * shards];
    uint32_t start = (uint32_t)sim_random_below(&sim->random, shards);
    for (uint32_t i = 0; i < shards; i++) {
        struct net_listener *listener = listener_find(first + (start + i) % shards, port);
        if (listener != NULL)
            return listener;
    }
    return NULL;
}

void sim_server_accept_run(void *ctx)
{
    struct sim_link *link = ctx;
    struct net_listener *listener = NULL;
    if (link->machine->state == MACHINE_UP && !link->broken)
        listener = listener_choose(link->machine, link->port);
    if (listener == NULL) {
        link->broken = true;
        link->state = SERVER_GONE;
        sim_link_unref(link); /* the server's end */
        sim_client_end(link);
    } else {
        link->shard = listener->shard;
        link->handler = listener->handler;
        link->conn.net = &link->shard->net;
        link->state = SERVER_OPEN;
        link->conn.user = listener->handler->accepted(listener->user, &link->conn);
        if (link->conn.user == NULL)
            server_gone(link);
        sim_shard_turn(link->shard);
    }
    sim_link_unref(link);
}

/* Crashes */

void sim_net_crash(struct sim_machine *machine)
{
    list_each(node, &machine->sim->links)
    {
        struct sim_link *link = list_entry(node, struct sim_link, all);
        if (link->machine != machine || link->shard == NULL || link->state == SERVER_GONE)
            continue;
        list_remove(&link->dirty);
        sim_client_end(link);
    }
}

void sim_net_restart(struct sim_machine *machine)
{
    struct sim *sim = machine->sim;
    list_each(node, &sim->links)
    {
        struct sim_link *link = list_entry(node, struct sim_link, all);
        if (link->machine == machine && link->shard != NULL && link->state != SERVER_GONE)
            server_gone(link);
    }
    for (uint32_t i = 0; i < sim->config.shards; i++) {
        struct sim_shard *shard =
            &sim->shards[(size_t)(machine - sim->machines) * sim->config.shards + i];
        list_each(listener_node, &shard->listeners)
        {
            listener_close(list_entry(listener_node, struct net_listener, link));
        }
    }
}

void sim_net_done(struct sim *sim)
{
    if (sim->links.next == NULL)
        return;
    list_each(node, &sim->links)
    {
        sim_link_free(list_entry(node, struct sim_link, all));
    }
    for (uint32_t i = 0; sim->shards != NULL && i < sim->config.machines * sim->config.shards;
         i++) {
        if (sim->shards[i].sim == NULL)
            continue;
        list_each(listener_node, &sim->shards[i].listeners)
        {
            listener_close(list_entry(listener_node, struct net_listener, link));
        }
    }
}

const struct net_ops SIM_NET_OPS = {
    .listen = server_listen,
    .listener_close = listener_close,
    .copy = server_copy,
    .reserve = server_reserve,
    .commit = server_commit,
    .share = server_share,
    .close = server_close,
    .pause = server_pause,
    .want = server_want,
};
