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

enum {
    NET_RESERVE_MAX = 64 << 10, /* most that net_conn_reserve can be asked for */
    NET_KEEP_MAX = 256 << 10,   /* most that is kept for a reader who did not want more */
};

/* Numeric host and port, for logs, permission (loopback or not) and Kafka's advertised address. */
struct net_addr {
    char host[46];
    uint16_t port;
    bool loopback;
};

/* What the owner of a connection is told. `user` is what accepted returned (or what the owner has
 * put into conn->user since). */
struct net_handler {
    /* A new connection came in on a listener; returns its user pointer, NULL to refuse it. */
    void *(*accepted)(void *listener_user, struct net_conn *conn);
    /* Bytes came. Returns how many of the first bytes were used; the rest is kept by net and shown
     * again, with more behind it, at the next call. To see more than 64 KiB at once say so with
     * net_conn_want; when nothing is used and nothing is wanted the next call comes with one byte
     * more, and a connection that keeps more than NET_KEEP_MAX without wanting it is closed with
     * ERR_TOO_LARGE. During the call the connection may be closed or paused. */
    size_t (*received)(void *user, const uint8_t *data, size_t len);
    /* Output drained: conn->pending fell to conn->low_mark or below from above it. Called from
     * loop_turn only, never from inside an output call or a flush. */
    void (*drained)(void *user);
    /* The last event: the connection is gone (by peer, error or net_conn_close). Must free user and
     * forget conn. err: ERR_NONE for an orderly end, ERR_IO when the connection broke. */
    void (*closed)(void *user, enum err err);
};

struct net_ops {
    enum err (*listen)(struct net *net, const char *host, uint16_t port,
                       const struct net_handler *handler, void *user, struct net_listener **out,
                       uint16_t *port_out);
    void (*listener_close)(struct net_listener *listener);
    void (*copy)(struct net_conn *conn, const void *data, size_t len);
    uint8_t *(*reserve)(struct net_conn *conn, size_t len);
    void (*commit)(struct net_conn *conn, size_t len);
    void (*share)(struct net_conn *conn, struct buf *buf, const uint8_t *data, size_t len);
    void (*close)(struct net_conn *conn, bool flush);
    void (*pause)(struct net_conn *conn, bool paused);
    void (*want)(struct net_conn *conn, size_t bytes);
};

struct net {
    const struct net_ops *ops;
    /* How a referenced buf is given up (it may belong to another shard). */
    void (*release)(void *ctx, struct buf *buf);
    void *release_ctx;
    /* Told the time (monotonic, and since 1970) before the events of a turn, those of the disk
     * too: the last turn may be long ago. NULL: nobody asks. */
    void (*clock)(void *ctx, int64_t now_ms, int64_t wall_ms);
    void *clock_ctx;
};

/* Backends embed it as their first member. */
struct net_conn {
    struct net *net;
    void *user;
    struct net_addr peer, local;
    size_t pending;  /* bytes of output not yet taken by the kernel */
    size_t low_mark; /* drained is called when pending falls to it from above; 0 = never */
};

/* Listens on a numeric address or a name of the hosts file; port 0 picks one. ERR_IN_USE when
 * somebody else listens there. Several shards of one process may listen on one address: shard 0
 * first, the others then share its port. */
static inline enum err net_listen(struct net *net, const char *host, uint16_t port,
                                  const struct net_handler *handler, void *user,
                                  struct net_listener **out, uint16_t *port_out)
{
    return net->ops->listen(net, host, port, handler, user, out, port_out);
}

/* Stops listening; connections live on. */
static inline void net_listener_close(struct net *net, struct net_listener *listener)
{
    net->ops->listener_close(listener);
}

/* Queues a copy of the bytes for output. All output calls do nothing on a connection that is
 * closing. */
static inline void net_conn_copy(struct net_conn *conn, const void *data, size_t len)
{
    conn->net->ops->copy(conn, data, len);
}

/* At least len (<= NET_RESERVE_MAX) bytes of output space to encode into; net_conn_commit says how
 * many were used. Nothing else may be called on this connection between the two. NULL when the
 * connection is closing or memory is exhausted (then it is closed, and closed() comes later). */
static inline uint8_t *net_conn_reserve(struct net_conn *conn, size_t len)
{
    return conn->net->ops->reserve(conn, len);
}

static inline void net_conn_commit(struct net_conn *conn, size_t len)
{
    conn->net->ops->commit(conn, len);
}

/* Queues bytes inside buf for output without a copy; takes over one reference to buf. Few bytes are
 * copied all the same, which is cheaper, and the reference is given up at once. */
static inline void net_conn_share(struct net_conn *conn, struct buf *buf, const uint8_t *data,
                                  size_t len)
{
    conn->net->ops->share(conn, buf, data, len);
}

/* Ends the connection; with `flush` what is queued is still sent and the peer gets up to 5 s to
 * read it and to close its side, otherwise output is dropped. closed() is called from this or the
 * next loop_turn, before that flush has finished; no other event is. */
static inline void net_conn_close(struct net_conn *conn, bool flush)
{
    conn->net->ops->close(conn, flush);
}

/* Stops or continues reading. Bytes kept from an earlier call are shown again after continuing,
 * from the loop. A paused connection notices that its peer broke it off, not that it closed it. */
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
