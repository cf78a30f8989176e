/* Sockets are watched edge-triggered for reading, writing and the peer's end, registered once, so a
 * connection costs no epoll_ctl after that. What a turn cannot finish (its read budget is spent,
 * its reader was paused) stays marked in the connection and goes on the work list.
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

#include "base/list.h"
#include "io/gather.h"
#include "io/inq.h"
#include "io/net_address.h"
#include "io/outq.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

enum {
    READ_BUDGET = INQ_BLOCK_BYTES, /* bytes per connection and turn */
    WRITE_BUDGET = 1 << 20,        /* the same, for output */
    DRAIN_BYTES = 1 << 20,         /* thrown away per call when lingering */
    DRAIN_CALLS = 64,
    WRITE_PARTS = 1024,   /* IOV_MAX */
    ACCEPT_BUDGET = 64,   /* connections per listener and turn */
    ACCEPT_PAUSE_MS = 50, /* when descriptors or memory have run out */
    LINGER_MS = 5000,
};

enum state { OPEN, CLOSING, LINGERING, DEAD };

struct net_epoll {
    struct net base;
    int epoll_fd;
    bool join_listeners;
    struct inq_pool in;
    struct outq_pool out;
    struct gather_pool gathers;
    int64_t now_ms; /* of this turn */
    uint32_t lingering_count;
    struct list conns;     /* all but dead ones, by `all` */
    struct list work;      /* by `work`: to be read on or told that output drained */
    struct list closing;   /* by `work`: owner to be told */
    struct list lingering; /* by `work`, earliest deadline first */
    struct list dead;      /* by `all`: to be freed */
    struct list dirty;     /* by `dirty`: output to be sent */
    struct list listeners;
    struct list listeners_dead;
    struct iovec parts[WRITE_PARTS];
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

struct conn {
    struct net_conn base;
    struct watch watch;
    const struct net_handler *handler;
    int fd;
    enum err err;
    enum state state;
    bool readable : 1;  /* the kernel may have bytes for us */
    bool peer_done : 1; /* epoll reported that the peer will send no more */
    bool ended : 1;     /* and all that it sent was received */
    bool paused : 1;
    bool show : 1;    /* kept bytes are to be shown without waiting for more */
    bool full : 1;    /* the kernel takes no more output for now */
    bool drained : 1; /* owner to be told */
    bool flush : 1;   /* closing: send the rest first */
    bool shut : 1;    /* our side is shut down */
    struct inq in;
    struct outq out;
    struct gather gather; /* its share while a large item arrives */
    struct list all, work, dirty;
    int64_t linger_until_ms;
};

static struct net_epoll *net_of(const struct conn *conn)
{
    return (struct net_epoll *)conn->base.net;
}

/* Moves all nodes of `from` to the list `into`, which is made empty first. */
static void list_take(struct list *into, struct list *from)
{
    list_init(into);
    list_insert(from, into);
    list_remove(from);
}

static void work_add(struct conn *conn)
{
    if (list_empty(&conn->work))
        list_insert(&net_of(conn)->work, &conn->work);
}

static void conn_kill(struct conn *conn)
{
    struct net_epoll *net = net_of(conn);
    if (conn->state == LINGERING)
        net->lingering_count--;
    conn->state = DEAD;
    close(conn->fd);
    outq_clear(&conn->out, &net->out);
    inq_keep(&conn->in, &net->in, NULL, 0);
    gather_give(&net->gathers, &conn->gather);
    list_remove(&conn->work);
    list_remove(&conn->dirty);
    list_remove(&conn->all);
    list_insert(&net->dead, &conn->all);
}

static void conn_close(struct net_conn *base, bool flush)
{
    struct conn *conn = (struct conn *)base;
    struct net_epoll *net = net_of(conn);
    if (conn->state == CLOSING && !flush)
        conn->flush = false;
    if (conn->state != OPEN)
        return;
    conn->state = CLOSING;
    conn->flush = flush;
    if (!flush)
        outq_clear(&conn->out, &net->out);
    conn->base.pending = conn->out.bytes;
    list_remove(&conn->work);
    list_insert(&net->closing, &conn->work);
}

/* The connection broke. */
static void conn_fail(struct conn *conn, enum err err)
{
    if (conn->state == LINGERING) {
        conn_kill(conn);
        return;
    }
    if (conn->state == OPEN)
        conn->err = err;
    conn_close(&conn->base, false);
}

/* Reading */

static void conn_show(struct conn *conn, const uint8_t *data, size_t len)
{
    struct net_epoll *net = net_of(conn);
    if (len < conn->in.want) {
        conn->show = false;
        if (!inq_keep(&conn->in, &net->in, data, len))
            conn_fail(conn, ERR_NO_MEMORY);
        return;
    }
    conn->in.want = 0;
    size_t used = conn->handler->received(conn->base.user, data, len);
    assert(used <= len);
    if (conn->state != OPEN)
        return;
    if (used > 0)
        gather_give(&net->gathers, &conn->gather); /* the item is complete */
    conn->show = conn->paused && used < len;
    enum err err = inq_rest(&conn->in, &net->in, data + used, len - used, conn->paused);
    if (err)
        conn_fail(conn, err);
}

/* Receives once. Returns how many bytes of the turn's budget it used, 0 when nothing came. */
static size_t conn_receive(struct conn *conn)
{
    struct net_epoll *net = net_of(conn);
    size_t room;
    if (conn->in.want > GATHER_FREE_BYTES &&
        !gather_take(&net->gathers, &conn->gather, conn->in.want, net->now_ms))
        return 0;
    uint8_t *place = inq_place(&conn->in, &net->in, &room);
    if (place == NULL) {
        conn_fail(conn, ERR_NO_MEMORY);
        return 0;
    }
    ssize_t got = recv(conn->fd, place, room, 0);
    if (got < 0) {
        if (errno == EAGAIN)
            conn->readable = false;
        else if (errno != EINTR)
            conn_fail(conn, ERR_IO);
        return 0;
    }
    if (got == 0) {
        conn->ended = true;
        conn->readable = false;
        conn_close(&conn->base, true);
        return 0;
    }
    if ((size_t)got < room && !conn->peer_done)
        conn->readable = false; /* took all there was; the next bytes are a new edge */
    if (conn->gather.holds)
        gather_arrived(&conn->gather, (size_t)got, net->now_ms);
    uint8_t *data;
    size_t len = inq_arrived(&conn->in, place, (size_t)got, &data);
    conn_show(conn, data, len);
    return (size_t)got;
}

static bool conn_reads(const struct conn *conn)
{
    return conn->state == OPEN && !conn->paused && !conn->gather.waits;
}

static void conn_read(struct conn *conn)
{
    if (conn_reads(conn) && conn->show)
        conn_show(conn, conn->in.kept, conn->in.len);
    size_t budget = READ_BUDGET;
    while (conn_reads(conn) && conn->readable && budget > 0) {
        size_t used = conn_receive(conn);
        budget -= used < budget ? used : budget;
        if (used == 0)
            break;
    }
    if (conn_reads(conn) && conn->readable)
        work_add(conn);
}

/* A lingering connection: throws away what the peer sent, until it closes. */
static void conn_drain(struct conn *conn)
{
    for (int i = 0; i < DRAIN_CALLS; i++) {
        ssize_t got = recv(conn->fd, NULL, DRAIN_BYTES, MSG_TRUNC);
        if (got > 0 || (got < 0 && errno == EINTR))
            continue;
        if (got < 0 && errno == EAGAIN) {
            conn->readable = false;
            return;
        }
        conn->ended = true;
        if (got < 0 || conn->shut)
            conn_kill(conn);
        return;
    }
    conn_kill(conn); /* it talks faster than we can throw away and does not listen */
}

static void pause_set(struct net_conn *base, bool paused)
{
    struct conn *conn = (struct conn *)base;
    if (conn->state != OPEN || conn->paused == paused)
        return;
    conn->paused = paused;
    if (!paused && (conn->readable || conn->show))
        work_add(conn);
}

static void want_set(struct net_conn *base, size_t bytes)
{
    ((struct conn *)base)->in.want = bytes;
}

/* Writing */

static void dirty_add(struct conn *conn)
{
    if (!conn->full && list_empty(&conn->dirty))
        list_insert(&net_of(conn)->dirty, &conn->dirty);
    conn->base.pending = conn->out.bytes;
}

static void conn_copy(struct net_conn *base, const void *data, size_t len)
{
    struct conn *conn = (struct conn *)base;
    if (conn->state != OPEN)
        return;
    if (!outq_copy(&conn->out, &net_of(conn)->out, data, len))
        conn_fail(conn, ERR_NO_MEMORY);
    dirty_add(conn);
}

static uint8_t *conn_reserve(struct net_conn *base, size_t len)
{
    struct conn *conn = (struct conn *)base;
    if (conn->state != OPEN)
        return NULL;
    uint8_t *space = outq_reserve(&conn->out, &net_of(conn)->out, len);
    if (space == NULL)
        conn_fail(conn, ERR_NO_MEMORY);
    return space;
}

static void conn_commit(struct net_conn *base, size_t len)
{
    struct conn *conn = (struct conn *)base;
    outq_commit(&conn->out, len);
    dirty_add(conn);
}

static void conn_share(struct net_conn *base, struct buf *buf, const uint8_t *data, size_t len)
{
    struct conn *conn = (struct conn *)base;
    struct net_epoll *net = net_of(conn);
    net->out.release = net->base.release;
    net->out.release_ctx = net->base.release_ctx;
    if (!outq_share(&conn->out, &net->out, buf, data, conn->state == OPEN ? len : 0))
        conn_fail(conn, ERR_NO_MEMORY);
    if (conn->state == OPEN)
        dirty_add(conn);
}

/* Sends what is queued. Returns false when the connection broke. */
static bool conn_send(struct conn *conn)
{
    struct net_epoll *net = net_of(conn);
    size_t sent = 0;
    while (conn->out.bytes > 0 && sent < WRITE_BUDGET) {
        size_t bytes;
        struct msghdr message = {.msg_iov = net->parts};
        message.msg_iovlen = (size_t)outq_gather(&conn->out, net->parts, WRITE_PARTS, &bytes);
        ssize_t got = sendmsg(conn->fd, &message, MSG_NOSIGNAL);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno != EAGAIN)
            return false;
        size_t taken = got < 0 ? 0 : (size_t)got;
        outq_consume(&conn->out, &net->out, taken);
        sent += taken;
        if (taken < bytes) {
            conn->full = true; /* until EPOLLOUT */
            break;
        }
    }
    return true;
}

static void conn_write(struct conn *conn)
{
    size_t before = conn->base.pending;
    if (!conn_send(conn)) {
        conn_fail(conn, ERR_IO);
        return;
    }
    conn->base.pending = conn->out.bytes;
    size_t mark = conn->base.low_mark;
    if (conn->state == OPEN && mark > 0 && before > mark && conn->base.pending <= mark) {
        conn->drained = true;
        work_add(conn);
    }
    if (conn->out.bytes > 0) {
        dirty_add(conn);
    } else if (conn->state == LINGERING && !conn->shut) {
        conn->shut = true;
        if (conn->ended || shutdown(conn->fd, SHUT_WR) != 0)
            conn_kill(conn);
    }
}

void net_epoll_flush(struct net_epoll *net)
{
    struct list now;
    list_take(&now, &net->dirty);
    while (!list_empty(&now)) {
        struct conn *conn = list_entry(now.next, struct conn, dirty);
        list_remove(&conn->dirty);
        conn_write(conn);
    }
}

/* Events */

static void conn_ready(struct watch *watch, uint32_t events)
{
    struct conn *conn = list_entry(watch, struct conn, watch);
    if (conn->state == DEAD)
        return;
    if (events & EPOLLOUT && conn->full) {
        conn->full = false;
        if (conn->out.bytes > 0)
            dirty_add(conn);
    }
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        conn->peer_done = true;
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        conn->readable = true;
    if (conn->state == LINGERING)
        conn_drain(conn);
    else if ((conn->paused || conn->gather.waits) && events & (EPOLLHUP | EPOLLERR))
        conn_fail(conn, ERR_IO);
    else
        conn_read(conn);
}

static void conn_accept(struct net_listener *listener, int fd, const struct sockaddr_storage *peer)
{
    struct net_epoll *net = listener->net;
    struct conn *conn = calloc(1, sizeof *conn);
    if (conn == NULL) {
        close(fd);
        return;
    }
    conn->base.net = &net->base;
    conn->watch.ready = conn_ready;
    conn->handler = listener->handler;
    conn->fd = fd;
    list_init(&conn->work);
    list_init(&conn->dirty);
    list_init(&conn->all);
    list_insert(&net->conns, &conn->all);
    struct sockaddr_storage local = {0};
    socklen_t size = sizeof local;
    (void)getsockname(fd, (struct sockaddr *)&local, &size);
    net_address_show(peer, &conn->base.peer);
    net_address_show(&local, &conn->base.local);
    if (conn->base.peer.loopback && !listener->loopback)
        net_address_tune(fd, true);
    struct epoll_event event = {
        .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
        .data.ptr = &conn->watch,
    };
    if (epoll_ctl(net->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        conn_kill(conn);
        return;
    }
    conn->base.user = listener->handler->accepted(listener->user, &conn->base);
    if (conn->base.user == NULL)
        conn_kill(conn);
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
            conn_accept(listener, fd, &peer);
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

bool net_epoll_busy(const struct net_epoll *net)
{
    return !list_empty(&net->work) || !list_empty(&net->closing) || !list_empty(&net->dirty);
}

uint32_t net_epoll_lingering(const struct net_epoll *net)
{
    return net->lingering_count;
}

/* Whose item comes too slowly while others wait is sent away; not whom we do not read. */
static int64_t holder_due(const struct conn *conn)
{
    return conn->paused ? INT64_MAX : conn->gather.due_ms;
}

static int64_t gathers_due(const struct net_epoll *net)
{
    int64_t due = INT64_MAX;
    if (list_empty(&net->gathers.waiting))
        return due;
    list_each(node, &net->gathers.holders)
    {
        int64_t one = holder_due(list_entry(node, struct conn, gather.link));
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
            struct conn *conn = list_entry(node, struct conn, gather.link);
            if (conn->state == OPEN && holder_due(conn) <= net->now_ms)
                conn_fail(conn, ERR_IO);
        }
    }
    for (struct gather *gather; (gather = gather_next(&net->gathers, net->now_ms)) != NULL;)
        work_add(list_entry(gather, struct conn, gather));
}

int64_t net_epoll_deadline_ms(const struct net_epoll *net)
{
    int64_t due = INT64_MAX;
    if (!list_empty(&net->lingering))
        due = list_entry(net->lingering.next, struct conn, work)->linger_until_ms;
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
static void conn_finish(struct conn *conn)
{
    struct net_epoll *net = net_of(conn);
    list_remove(&conn->work);
    inq_keep(&conn->in, &net->in, NULL, 0);
    gather_give(&net->gathers, &conn->gather);
    conn->handler->closed(conn->base.user, conn->err);
    conn->base.user = NULL;
    if (!conn->flush) {
        conn_kill(conn);
        return;
    }
    conn->state = LINGERING;
    conn->linger_until_ms = net->now_ms + LINGER_MS;
    net->lingering_count++;
    list_insert(&net->lingering, &conn->work);
    if (conn->out.bytes == 0)
        conn_write(conn);
    if (conn->state == LINGERING && conn->readable)
        conn_drain(conn);
}

static void timers_run(struct net_epoll *net)
{
    list_each(node, &net->lingering)
    {
        struct conn *conn = list_entry(node, struct conn, work);
        if (conn->linger_until_ms > net->now_ms)
            break;
        conn_kill(conn);
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
        free(list_entry(node, struct conn, all));
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
        struct conn *conn = list_entry(now.next, struct conn, work);
        list_remove(&conn->work);
        if (conn->drained) {
            conn->drained = false;
            conn->handler->drained(conn->base.user);
        }
        if (conn_reads(conn))
            conn_read(conn);
    }
    for (; !list_empty(&net->closing); done++)
        conn_finish(list_entry(net->closing.next, struct conn, work));
    timers_run(net);
    gathers_run(net);
    dead_free(net);
    return done;
}

static const struct net_ops OPS = {
    .listen = listener_open,
    .listener_close = listener_close,
    .copy = conn_copy,
    .reserve = conn_reserve,
    .commit = conn_commit,
    .share = conn_share,
    .close = conn_close,
    .pause = pause_set,
    .want = want_set,
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
        struct conn *conn = list_entry(node, struct conn, all);
        conn_close(&conn->base, false);
    }
    while (!list_empty(&net->closing)) {
        struct conn *conn = list_entry(net->closing.next, struct conn, work);
        conn->flush = false;
        conn_finish(conn);
    }
    while (!list_empty(&net->conns))
        conn_kill(list_entry(net->conns.next, struct conn, all));
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
