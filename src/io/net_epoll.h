/* The real backend of io/net.h: non-blocking sockets on an epoll instance that the loop owns.
 * Used by io/loop.c only, on the loop's thread. */
#ifndef WEIR_IO_NET_EPOLL_H
#define WEIR_IO_NET_EPOLL_H

#include "io/net.h"

/* What the loop calls when a descriptor that it watches is ready: epoll's data.ptr. */
struct watch {
    void (*ready)(struct watch *watch, uint32_t events);
};

struct net_epoll;

struct net_epoll_config {
    int epoll_fd;        /* stays the caller's */
    bool join_listeners; /* share addresses with loops of this process that listen there already */
    uint64_t *net_bytes; /* counts bytes held for connections; may be NULL */
    size_t gather_max;   /* see io/loop.h */
};

enum err net_epoll_create(const struct net_epoll_config *config, struct net_epoll **out)
    __attribute__((warn_unused_result));

/* Drops every connection, telling its owner, and every listener. */
void net_epoll_destroy(struct net_epoll *net);

struct net *net_epoll_net(struct net_epoll *net);

/* The time of the turn, before its events. */
void net_epoll_clock(struct net_epoll *net, int64_t now_ms, int64_t wall_ms);

/* What is due without an event of epoll: reading on, drained and closed calls, timers. Returns how
 * much it did. */
int net_epoll_work(struct net_epoll *net);

/* Whether net_epoll_work has something to do at once. */
bool net_epoll_busy(const struct net_epoll *net);

/* When its next timer is due; INT64_MAX: none. */
int64_t net_epoll_deadline_ms(const struct net_epoll *net);

/* Sends what was gathered. Calls no handler. */
void net_epoll_flush(struct net_epoll *net);

/* Connections that are closed for their owner but still send or wait for their peer's end. */
uint32_t net_epoll_lingering(const struct net_epoll *net);

#endif
