/* A connection's socket: struct net_conn as net_epoll.c has it. For net_epoll.c and sock.c only. */
#ifndef WEIR_IO_SOCK_H
#define WEIR_IO_SOCK_H

#include "base/list.h"
#include "io/gather.h"
#include "io/inq.h"
#include "io/net_epoll.h"
#include "io/outq.h"

#include <sys/uio.h>

enum { WRITE_PARTS = 1024 }; /* IOV_MAX */

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

struct sock {
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

static inline struct net_epoll *net_of(const struct sock *sock)
{
    return (struct net_epoll *)sock->base.net;
}

/* Has it read on, or told that its output drained, in this turn's net_epoll_work. */
void sock_work(struct sock *sock);

/* An event of epoll: watch.ready. */
void sock_ready(struct watch *watch, uint32_t events);

/* Reads and shows what the turn's budget allows. */
void sock_read(struct sock *sock);

/* Whether it may be read now. */
bool sock_reads(const struct sock *sock);

/* Sends what is queued, as far as the kernel takes it. */
void sock_write(struct sock *sock);

/* A lingering connection: throws away what the peer sent, until it closes. */
void sock_drain(struct sock *sock);

/* The connection broke. */
void sock_fail(struct sock *sock, enum err err);

/* The end: closes the descriptor; the memory is freed after the turn. */
void sock_kill(struct sock *sock);

/* Operations of struct net_ops. */
void sock_copy(struct net_conn *base, const void *data, size_t len);
uint8_t *sock_reserve(struct net_conn *base, size_t len);
void sock_commit(struct net_conn *base, size_t len);
void sock_share(struct net_conn *base, struct buf *buf, const uint8_t *data, size_t len);
void sock_close(struct net_conn *base, bool flush);
void sock_pause(struct net_conn *base, bool paused);
void sock_want(struct net_conn *base, size_t bytes);

#endif
