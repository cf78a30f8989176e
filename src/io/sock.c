/* Sockets are watched edge-triggered for reading, writing and the peer's end, registered once, so a
 * connection costs no epoll_ctl after that. What a turn cannot finish (its read budget is spent,
 * its reader was paused) stays marked in the connection and goes on the work list. */
#include "io/sock.h"

#include <assert.h>
#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    READ_BUDGET = INQ_BLOCK_BYTES, /* bytes per connection and turn */
    WRITE_BUDGET = 1 << 20,        /* the same, for output */
    DRAIN_BYTES = 1 << 20,         /* thrown away per call when lingering */
    DRAIN_CALLS = 64,
};

void sock_work(struct sock *sock)
{
    if (list_empty(&sock->work))
        list_insert(&net_of(sock)->work, &sock->work);
}

void sock_kill(struct sock *sock)
{
    struct net_epoll *net = net_of(sock);
    if (sock->state == LINGERING)
        net->lingering_count--;
    sock->state = DEAD;
    close(sock->fd);
    outq_clear(&sock->out, &net->out);
    inq_keep(&sock->in, &net->in, NULL, 0);
    gather_give(&net->gathers, &sock->gather);
    list_remove(&sock->work);
    list_remove(&sock->dirty);
    list_remove(&sock->all);
    list_insert(&net->dead, &sock->all);
}

void sock_close(struct net_conn *base, bool flush)
{
    struct sock *sock = (struct sock *)base;
    struct net_epoll *net = net_of(sock);
    if (sock->state == CLOSING && !flush)
        sock->flush = false;
    if (sock->state != OPEN)
        return;
    sock->state = CLOSING;
    sock->flush = flush;
    if (!flush)
        outq_clear(&sock->out, &net->out);
    sock->base.pending = sock->out.bytes;
    list_remove(&sock->work);
    list_insert(&net->closing, &sock->work);
}

void sock_fail(struct sock *sock, enum err err)
{
    if (sock->state == LINGERING) {
        sock_kill(sock);
        return;
    }
    if (sock->state == OPEN)
        sock->err = err;
    sock_close(&sock->base, false);
}

/* Reading */

static void sock_show(struct sock *sock, const uint8_t *data, size_t len)
{
    struct net_epoll *net = net_of(sock);
    if (len < sock->in.want) {
        sock->show = false;
        if (!inq_keep(&sock->in, &net->in, data, len))
            sock_fail(sock, ERR_NO_MEMORY);
        return;
    }
    sock->in.want = 0;
    size_t used = sock->handler->received(sock->base.user, data, len);
    assert(used <= len);
    if (sock->state != OPEN)
        return;
    if (used > 0)
        gather_give(&net->gathers, &sock->gather); /* the item is complete */
    sock->show = sock->paused && used < len;
    enum err err = inq_rest(&sock->in, &net->in, data + used, len - used, sock->paused);
    if (err)
        sock_fail(sock, err);
}

/* Receives once. Returns how many bytes of the turn's budget it used, 0 when nothing came. */
static size_t sock_receive(struct sock *sock)
{
    struct net_epoll *net = net_of(sock);
    size_t room;
    if (sock->in.want > GATHER_FREE_BYTES &&
        !gather_take(&net->gathers, &sock->gather, sock->in.want, net->now_ms))
        return 0;
    uint8_t *place = inq_place(&sock->in, &net->in, &room);
    if (place == NULL) {
        sock_fail(sock, ERR_NO_MEMORY);
        return 0;
    }
    ssize_t got = recv(sock->fd, place, room, 0);
    if (got < 0) {
        if (errno == EAGAIN)
            sock->readable = false;
        else if (errno != EINTR)
            sock_fail(sock, ERR_IO);
        return 0;
    }
    if (got == 0) {
        sock->ended = true;
        sock->readable = false;
        sock_close(&sock->base, true);
        return 0;
    }
    if ((size_t)got < room && !sock->peer_done)
        sock->readable = false; /* took all there was; the next bytes are a new edge */
    if (sock->gather.holds)
        gather_arrived(&sock->gather, (size_t)got, net->now_ms);
    uint8_t *data;
    size_t len = inq_arrived(&sock->in, place, (size_t)got, &data);
    sock_show(sock, data, len);
    return (size_t)got;
}

bool sock_reads(const struct sock *sock)
{
    return sock->state == OPEN && !sock->paused && !sock->gather.waits;
}

void sock_read(struct sock *sock)
{
    if (sock_reads(sock) && sock->show)
        sock_show(sock, sock->in.kept, sock->in.len);
    size_t budget = READ_BUDGET;
    while (sock_reads(sock) && sock->readable && budget > 0) {
        size_t used = sock_receive(sock);
        budget -= used < budget ? used : budget;
        if (used == 0)
            break;
    }
    if (sock_reads(sock) && sock->readable)
        sock_work(sock);
}

void sock_drain(struct sock *sock)
{
    for (int i = 0; i < DRAIN_CALLS; i++) {
        ssize_t got = recv(sock->fd, NULL, DRAIN_BYTES, MSG_TRUNC);
        if (got > 0 || (got < 0 && errno == EINTR))
            continue;
        if (got < 0 && errno == EAGAIN) {
            sock->readable = false;
            return;
        }
        sock->ended = true;
        if (got < 0 || sock->shut)
            sock_kill(sock);
        return;
    }
    sock_kill(sock); /* it talks faster than we can throw away and does not listen */
}

void sock_pause(struct net_conn *base, bool paused)
{
    struct sock *sock = (struct sock *)base;
    if (sock->state != OPEN || sock->paused == paused)
        return;
    sock->paused = paused;
    if (!paused && (sock->readable || sock->show))
        sock_work(sock);
}

void sock_want(struct net_conn *base, size_t bytes)
{
    ((struct sock *)base)->in.want = bytes;
}

/* Writing */

static void dirty_add(struct sock *sock)
{
    if (!sock->full && list_empty(&sock->dirty))
        list_insert(&net_of(sock)->dirty, &sock->dirty);
    sock->base.pending = sock->out.bytes;
}

void sock_copy(struct net_conn *base, const void *data, size_t len)
{
    struct sock *sock = (struct sock *)base;
    if (sock->state != OPEN)
        return;
    if (!outq_copy(&sock->out, &net_of(sock)->out, data, len))
        sock_fail(sock, ERR_NO_MEMORY);
    dirty_add(sock);
}

uint8_t *sock_reserve(struct net_conn *base, size_t len)
{
    struct sock *sock = (struct sock *)base;
    if (sock->state != OPEN)
        return NULL;
    uint8_t *space = outq_reserve(&sock->out, &net_of(sock)->out, len);
    if (space == NULL)
        sock_fail(sock, ERR_NO_MEMORY);
    return space;
}

void sock_commit(struct net_conn *base, size_t len)
{
    struct sock *sock = (struct sock *)base;
    outq_commit(&sock->out, len);
    dirty_add(sock);
}

void sock_share(struct net_conn *base, struct buf *buf, const uint8_t *data, size_t len)
{
    struct sock *sock = (struct sock *)base;
    struct net_epoll *net = net_of(sock);
    net->out.release = net->base.release;
    net->out.release_ctx = net->base.release_ctx;
    if (!outq_share(&sock->out, &net->out, buf, data, sock->state == OPEN ? len : 0))
        sock_fail(sock, ERR_NO_MEMORY);
    if (sock->state == OPEN)
        dirty_add(sock);
}

/* Sends what is queued. Returns false when the connection broke. */
static bool sock_send(struct sock *sock)
{
    struct net_epoll *net = net_of(sock);
    size_t sent = 0;
    while (sock->out.bytes > 0 && sent < WRITE_BUDGET) {
        size_t bytes;
        struct msghdr message = {.msg_iov = net->parts};
        message.msg_iovlen = (size_t)outq_gather(&sock->out, net->parts, WRITE_PARTS, &bytes);
        ssize_t got = sendmsg(sock->fd, &message, MSG_NOSIGNAL);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno != EAGAIN)
            return false;
        size_t taken = got < 0 ? 0 : (size_t)got;
        outq_consume(&sock->out, &net->out, taken);
        sent += taken;
        if (taken < bytes) {
            sock->full = true; /* until EPOLLOUT */
            break;
        }
    }
    return true;
}

void sock_write(struct sock *sock)
{
    size_t before = sock->base.pending;
    if (!sock_send(sock)) {
        sock_fail(sock, ERR_IO);
        return;
    }
    sock->base.pending = sock->out.bytes;
    size_t mark = sock->base.low_mark;
    if (sock->state == OPEN && mark > 0 && before > mark && sock->base.pending <= mark) {
        sock->drained = true;
        sock_work(sock);
    }
    if (sock->out.bytes > 0) {
        dirty_add(sock);
    } else if (sock->state == LINGERING && !sock->shut) {
        sock->shut = true;
        if (sock->ended || shutdown(sock->fd, SHUT_WR) != 0)
            sock_kill(sock);
    }
}

/* Events */

void sock_ready(struct watch *watch, uint32_t events)
{
    struct sock *sock = list_entry(watch, struct sock, watch);
    if (sock->state == DEAD)
        return;
    if (events & EPOLLOUT && sock->full) {
        sock->full = false;
        if (sock->out.bytes > 0)
            dirty_add(sock);
    }
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        sock->peer_done = true;
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        sock->readable = true;
    if (sock->state == LINGERING)
        sock_drain(sock);
    else if ((sock->paused || sock->gather.waits) && events & (EPOLLHUP | EPOLLERR))
        sock_fail(sock, ERR_IO);
    else
        sock_read(sock);
}
