/* Listeners, the turn, and the end of connections.
 *
 * Life of a connection: OPEN; CLOSING once net_conn_close was called or it broke (nothing reaches
 * its owner any more but closed(), from net_epoll_work); then, if output is to be flushed,
 * LINGERING: the rest is sent, our side shut down, and what the peer still sends is thrown away
 * until it closes or LINGER_MS are over, since closing a socket with unread bytes would reset the
 * connection and may destroy our last words. Then it is DEAD: the descriptor is closed, and the
 * memory freed after the last event of the turn.
 *
 * Large items take their turns to arrive (io/gather.h): a connection that waits for its share is
 * not read. */
#include "io/net_epoll.h"

#include "io/net_address.h"
#include "io/sock.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

enum {
    ACCEPT_BUDGET = 64,   /* connections per listener and turn */
    ACCEPT_PAUSE_MS = 50, /* when descriptors or memory have run out */
    LINGER_MS = 5000,
};

struct net_listener {
    struct watch watch;
    struct net_epoll *net;
    const struct net_handler *handler;
    void *user;
    struct list link;
    int fd;
    bool loopback;
    int64_t paused_until_ms; /* 0: accepting */
};

/* Moves all nodes of `from` to the list `into`, which is made empty first. */
static void list_take(struct list *into, struct list *from)
{
    list_init(into);
    list_insert(from, into);
    list_remove(from);
}

static void sock_accept(struct net_listener *listener, int fd, const struct sockaddr_storage *peer)
{
    struct net_epoll *net = listener->net;
    struct sock *sock = calloc(1, sizeof *sock);
    if (sock == NULL) {
        close(fd);
        return;
    }
    sock->base.net = &net->base;
    sock->watch.ready = sock_ready;
    sock->handler = listener->handler;
    sock->fd = fd;
    list_init(&sock->work);
    list_init(&sock->dirty);
    list_init(&sock->all);
    list_insert(&net->conns, &sock->all);
    struct sockaddr_storage local = {0};
    socklen_t size = sizeof local;
    (void)getsockname(fd, (struct sockaddr *)&local, &size);
    net_address_show(peer, &sock->base.peer);
    net_address_show(&local, &sock->base.local);
    if (sock->base.peer.loopback && !listener->loopback)
        net_address_tune(fd, true);
    struct epoll_event event = {
        .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
        .data.ptr = &sock->watch,
    };
    if (epoll_ctl(net->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        sock_kill(sock);
        return;
    }
    sock->base.user = listener->handler->accepted(listener->user, &sock->base);
    if (sock->base.user == NULL)
        sock_kill(sock);
}

static void listener_arm(struct net_listener *listener, bool on)
{
    struct epoll_event event = {.events = on ? EPOLLIN : 0, .data.ptr = &listener->watch};
    (void)epoll_ctl(listener->net->epoll_fd, EPOLL_CTL_MOD, listener->fd, &event);
}

static void listener_ready(struct watch *watch, uint32_t events)
{
    (void)events;
    struct net_listener *listener = (struct net_listener *)watch;
    for (int i = 0; i < ACCEPT_BUDGET && listener->fd >= 0; i++) {
        struct sockaddr_storage peer = {0};
        socklen_t size = sizeof peer;
        int fd =
            accept4(listener->fd, (struct sockaddr *)&peer, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            sock_accept(listener, fd, &peer);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            listener->paused_until_ms = listener->net->now_ms + ACCEPT_PAUSE_MS;
            listener_arm(listener, false);
            return;
        } else if (errno == EAGAIN) {
            return;
        } /* else that one connection is gone already */
    }
}

static enum err listener_open(struct net *base, const char *host, uint16_t port,
                              const struct net_handler *handler, void *user,
                              struct net_listener **out, uint16_t *port_out)
{
    struct net_epoll *net = (struct net_epoll *)base;
    struct net_listener *listener = calloc(1, sizeof *listener);
    if (listener == NULL)
        return ERR_NO_MEMORY;
    struct net_addr local;
    enum err err = net_address_listen(host, port, net->join_listeners, &listener->fd, &local);
    if (err) {
        free(listener);
        return err;
    }
    listener->watch.ready = listener_ready;
    listener->net = net;
    listener->handler = handler;
    listener->user = user;
    listener->loopback = local.loopback;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &listener->watch};
    if (epoll_ctl(net->epoll_fd, EPOLL_CTL_ADD, listener->fd, &event) != 0) {
        close(listener->fd);
        free(listener);
        return ERR_IO;
    }
    list_init(&listener->link);
    list_insert(&net->listeners, &listener->link);
    *out = listener;
    *port_out = local.port;
    return ERR_NONE;
}

static void listener_close(struct net_listener *listener)
{
    close(listener->fd);
    listener->fd = -1;
    list_remove(&listener->link);
    list_insert(&listener->net->listeners_dead, &listener->link);
}

/* The turn */

void net_epoll_flush(struct net_epoll *net)
{
    struct list now;
    list_take(&now, &net->dirty);
    while (!list_empty(&now)) {
        struct sock *sock = list_entry(now.next, struct sock, dirty);
        list_remove(&sock->dirty);
        sock_write(sock);
    }
}

bool net_epoll_busy(const struct net_epoll *net)
{
    return !list_empty(&net->work) || !list_empty(&net->closing) || !list_empty(&net->dirty);
}

uint32_t net_epoll_lingering(const struct net_epoll *net)
{
    return net->lingering_count;
}

/* Whose item comes too slowly while others wait is sent away; not whom we do not read. */
static int64_t holder_due(const struct sock *sock)
{
    return sock->paused ? INT64_MAX : sock->gather.due_ms;
}

static int64_t gathers_due(const struct net_epoll *net)
{
    int64_t due = INT64_MAX;
    if (list_empty(&net->gathers.waiting))
        return due;
    list_each(node, &net->gathers.holders)
    {
        int64_t one = holder_due(list_entry(node, struct sock, gather.link));
        if (one < due)
            due = one;
    }
    return due;
}

static void gathers_run(struct net_epoll *net)
{
    if (gathers_due(net) <= net->now_ms) {
        list_each(node, &net->gathers.holders)
        {
            struct sock *sock = list_entry(node, struct sock, gather.link);
            if (sock->state == OPEN && holder_due(sock) <= net->now_ms)
                sock_fail(sock, ERR_IO);
        }
    }
    for (struct gather *gather; (gather = gather_next(&net->gathers, net->now_ms)) != NULL;)
        sock_work(list_entry(gather, struct sock, gather));
}

int64_t net_epoll_deadline_ms(const struct net_epoll *net)
{
    int64_t due = INT64_MAX;
    if (!list_empty(&net->lingering))
        due = list_entry(net->lingering.next, struct sock, work)->linger_until_ms;
    list_each(node, &net->listeners)
    {
        int64_t until = list_entry(node, struct net_listener, link)->paused_until_ms;
        if (until > 0 && until < due)
            due = until;
    }
    int64_t slow = gathers_due(net);
    return slow < due ? slow : due;
}

/* Tells the owner that the connection is gone, and lets it linger if output is to be flushed. */
static void sock_finish(struct sock *sock)
{
    struct net_epoll *net = net_of(sock);
    list_remove(&sock->work);
    inq_keep(&sock->in, &net->in, NULL, 0);
    gather_give(&net->gathers, &sock->gather);
    sock->handler->closed(sock->base.user, sock->err);
    sock->base.user = NULL;
    if (!sock->flush) {
        sock_kill(sock);
        return;
    }
    sock->state = LINGERING;
    sock->linger_until_ms = net->now_ms + LINGER_MS;
    net->lingering_count++;
    list_insert(&net->lingering, &sock->work);
    if (sock->out.bytes == 0)
        sock_write(sock);
    if (sock->state == LINGERING && sock->readable)
        sock_drain(sock);
}

static void timers_run(struct net_epoll *net)
{
    list_each(node, &net->lingering)
    {
        struct sock *sock = list_entry(node, struct sock, work);
        if (sock->linger_until_ms > net->now_ms)
            break;
        sock_kill(sock);
    }
    list_each(listener_node, &net->listeners)
    {
        struct net_listener *listener = list_entry(listener_node, struct net_listener, link);
        if (listener->paused_until_ms > 0 && listener->paused_until_ms <= net->now_ms) {
            listener->paused_until_ms = 0;
            listener_arm(listener, true);
        }
    }
}

static void dead_free(struct net_epoll *net)
{
    list_each(node, &net->dead)
    {
        free(list_entry(node, struct sock, all));
    }
    list_init(&net->dead);
    list_each(listener_node, &net->listeners_dead)
    {
        free(list_entry(listener_node, struct net_listener, link));
    }
    list_init(&net->listeners_dead);
}

void net_epoll_clock(struct net_epoll *net, int64_t now_ms, int64_t wall_ms)
{
    net->now_ms = now_ms;
    if (net->base.clock != NULL)
        net->base.clock(net->base.clock_ctx, now_ms, wall_ms);
}

int net_epoll_work(struct net_epoll *net)
{
    int done = 0;
    struct list now;
    list_take(&now, &net->work);
    for (; !list_empty(&now); done++) {
        struct sock *sock = list_entry(now.next, struct sock, work);
        list_remove(&sock->work);
        if (sock->drained) {
            sock->drained = false;
            sock->handler->drained(sock->base.user);
        }
        if (sock_reads(sock))
            sock_read(sock);
    }
    for (; !list_empty(&net->closing); done++)
        sock_finish(list_entry(net->closing.next, struct sock, work));
    timers_run(net);
    gathers_run(net);
    dead_free(net);
    return done;
}

static const struct net_ops OPS = {
    .listen = listener_open,
    .listener_close = listener_close,
    .copy = sock_copy,
    .reserve = sock_reserve,
    .commit = sock_commit,
    .share = sock_share,
    .close = sock_close,
    .pause = sock_pause,
    .want = sock_want,
};

enum err net_epoll_create(const struct net_epoll_config *config, struct net_epoll **out)
{
    struct net_epoll *net = calloc(1, sizeof *net);
    if (net == NULL)
        return ERR_NO_MEMORY;
    if (!inq_pool_init(&net->in, config->net_bytes)) {
        free(net);
        return ERR_NO_MEMORY;
    }
    net->base.ops = &OPS;
    net->epoll_fd = config->epoll_fd;
    net->join_listeners = config->join_listeners;
    net->out.account = config->net_bytes;
    gather_pool_init(&net->gathers, config->gather_max);
    struct list *lists[] = {&net->conns, &net->work,      &net->closing, &net->lingering,
                            &net->dead,  &net->listeners, &net->dirty,   &net->listeners_dead};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
        list_init(lists[i]);
    *out = net;
    return ERR_NONE;
}

void net_epoll_destroy(struct net_epoll *net)
{
    list_each(node, &net->conns)
    {
        struct sock *sock = list_entry(node, struct sock, all);
        sock_close(&sock->base, false);
    }
    while (!list_empty(&net->closing)) {
        struct sock *sock = list_entry(net->closing.next, struct sock, work);
        sock->flush = false;
        sock_finish(sock);
    }
    while (!list_empty(&net->conns))
        sock_kill(list_entry(net->conns.next, struct sock, all));
    list_each(listener_node, &net->listeners)
    {
        listener_close(list_entry(listener_node, struct net_listener, link));
    }
    dead_free(net);
    inq_pool_done(&net->in);
    outq_pool_done(&net->out);
    free(net);
}

struct net *net_epoll_net(struct net_epoll *net)
{
    return &net->base;
}
