/* Stream connections of one shard, completion-shaped. Backends: real (epoll) and sim. All calls
 * and all events are on the shard's thread. Received bytes stand in a block that the backend owns
 * and that is valid during the call only; what is sent is either copied (small) or referenced
 * (struct buf). Output is gathered and leaves with one writev per connection and loop turn. */
#ifndef WEIR_IO_NET_H
#define WEIR_IO_NET_H

#include "base/buf.h"
#include "base/slice.h"
#include "gen/err.h"

#include <stdbool.h>
#include <stdint.h>

struct net;
struct net_conn;
struct net_listener;

/* Numeric host and port, for logs, permission (loopback or not) and Kafka's advertised address. */
struct net_addr {
    char host[46];
    uint16_t port;
    bool loopback;
};

/* What the owner of a connection is told. `user` is what net_conn_set_user set. */
struct net_handler {
    /* A new connection came in on a listener; returns its user pointer, NULL to refuse it. */
    void *(*accepted)(void *listener_user, struct net_conn *conn);
    /* Bytes came. Returns how many of the first bytes were used; the rest is kept by net and shown
     * again, with more behind it, at the next call. To see more than 64 KiB at once say so with
     * net_conn_want. During the call the connection may be closed. */
    size_t (*received)(void *user, const uint8_t *data, size_t len);
    /* Output drained: net_conn_pending() fell below the mark set by net_conn_mark. */
    void (*drained)(void *user);
    /* The last event: the connection is gone (by peer, error or net_conn_close). Must free user.
     * err: ERR_NONE for an orderly end. */
    void (*closed)(void *user, enum err err);
};

struct net_ops {
    enum err (*listen)(struct net *net, const char *host, uint16_t port, const struct net_handler *handler,
                       void *user, struct net_listener **out, uint16_t *port_out);
    void (*listener_close)(struct net_listener *listener);
    void (*copy)(struct net_conn *conn, const void *data, size_t len);
    uint8_t *(*reserve)(struct net_conn *conn, size_t len);
    void (*commit)(struct net_conn *conn, size_t len);
    void (*share)(struct net_conn *conn, struct buf *buf, const uint8_t *data, size_t len);
    void (*close)(struct net_conn *conn, bool flush);
    void (*pause)(struct net_conn *conn, bool paused);
    void (*want)(struct net_conn *conn, size_t bytes);
    void (*resume)(struct net_conn *conn);
};

struct net {
    const struct net_ops *ops;
    /* How a referenced buf is given up (it may belong to another shard). */
    void (*release)(void *ctx, struct buf *buf);
    void *release_ctx;
};

/* Backends embed it as their first member. */
struct net_conn {
    struct net *net;
    void *user;
    struct net_addr peer, local;
    size_t pending;  /* bytes of output not yet taken by the kernel */
    size_t low_mark; /* drained is called when pending falls to it from above; 0 = never */
};

/* Listens with SO_REUSEPORT when several shards listen on one address; port 0 picks one. */
static inline enum err net_listen(struct net *net, const char *host, uint16_t port,
                                  const struct net_handler *handler, void *user,
                                  struct net_listener **out, uint16_t *port_out)
{
    return net->ops->listen(net, host, port, handler, user, out, port_out);
}

static inline void net_listener_close(struct net *net, struct net_listener *listener)
{
    net->ops->listener_close(listener);
}

/* Queues a copy of the bytes for output. */
static inline void net_conn_copy(struct net_conn *conn, const void *data, size_t len)
{
    conn->net->ops->copy(conn, data, len);
}

/* At least len (<= 64 KiB) bytes of output space to encode into; net_conn_commit says how many were used.
 * Nothing else may be called on this connection between the two. NULL when memory is exhausted: the
 * connection is then closed. */
static inline uint8_t *net_conn_reserve(struct net_conn *conn, size_t len)
{
    return conn->net->ops->reserve(conn, len);
}

static inline void net_conn_commit(struct net_conn *conn, size_t len)
{
    conn->net->ops->commit(conn, len);
}

/* Queues bytes inside buf for output without a copy; takes over one reference to buf. */
static inline void net_conn_share(struct net_conn *conn, struct buf *buf, const uint8_t *data, size_t len)
{
    conn->net->ops->share(conn, buf, data, len);
}

/* Ends the connection; with `flush` after queued output was sent (bounded in time), otherwise at
 * once. closed() is called later, from the loop; no other event is. */
static inline void net_conn_close(struct net_conn *conn, bool flush)
{
    conn->net->ops->close(conn, flush);
}

/* Stops or continues reading. Bytes kept from an earlier call are shown again on continuing. */
static inline void net_conn_pause(struct net_conn *conn, bool paused)
{
    conn->net->ops->pause(conn, paused);
}

/* received() makes no progress below this many bytes: buffer at least that much before the next
 * call (memory grows as bytes really arrive, not at once). Reset to 1 by each call of received. */
static inline void net_conn_want(struct net_conn *conn, size_t bytes)
{
    conn->net->ops->want(conn, bytes);
}

#endif
