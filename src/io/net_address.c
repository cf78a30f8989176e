/* Socket addresses and options. */
#include "io/net_address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { BACKLOG = 4096 };

void net_address_show(const struct sockaddr_storage *address, struct net_addr *out)
{
    *out = (struct net_addr){0};
    if (address->ss_family == AF_INET) {
        const struct sockaddr_in *in4 = (const struct sockaddr_in *)(const void *)address;
        inet_ntop(AF_INET, &in4->sin_addr, out->host, sizeof out->host);
        out->port = ntohs(in4->sin_port);
        out->loopback = ntohl(in4->sin_addr.s_addr) >> 24 == 127;
    } else if (address->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)address;
        const uint8_t *bytes = in6->sin6_addr.s6_addr;
        out->port = ntohs(in6->sin6_port);
        if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
            inet_ntop(AF_INET, bytes + 12, out->host, sizeof out->host);
            out->loopback = bytes[12] == 127;
        } else {
            inet_ntop(AF_INET6, bytes, out->host, sizeof out->host);
            out->loopback = IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
        }
    }
}

void net_address_tune(int fd, bool loopback)
{
    int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (loopback && setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5) != 0)
        (void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
}

/* A peer that vanished without a word is noticed after two minutes, whatever the protocol does. */
static void keepalive_set(int fd)
{
    int on = 1, idle_s = 60, interval_s = 15, count = 4;
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
}

static enum err bind_error(int error)
{
    switch (error) {
    case EADDRINUSE:
        return ERR_IN_USE;
    case EACCES:
        return ERR_REFUSED;
    case EADDRNOTAVAIL:
        return ERR_NOT_FOUND;
    default:
        return ERR_IO;
    }
}

static enum err socket_listen(int fd, const struct addrinfo *info, bool join,
                              struct net_addr *local)
{
    int on = 1, off = 0;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0)
        return ERR_IO;
    if (info->ai_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (join && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) != 0)
        return ERR_IO;
    if (bind(fd, info->ai_addr, info->ai_addrlen) != 0)
        return bind_error(errno);
    /* Set after binding: nobody had the address, and the next ones may share it. */
    if (!join && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) != 0)
        return ERR_IO;
    struct sockaddr_storage bound;
    socklen_t size = sizeof bound;
    if (getsockname(fd, (struct sockaddr *)&bound, &size) != 0)
        return ERR_IO;
    net_address_show(&bound, local);
    net_address_tune(fd, local->loopback); /* accepted sockets inherit this and the next */
    keepalive_set(fd);
    return listen(fd, BACKLOG) == 0 ? ERR_NONE : bind_error(errno);
}

enum err net_address_listen(const char *host, uint16_t port, bool join, int *fd_out,
                            struct net_addr *local_out)
{
    char service[8];
    snprintf(service, sizeof service, "%u", (unsigned)port);
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC,
        .ai_socktype = SOCK_STREAM,
        .ai_flags = AI_PASSIVE | AI_NUMERICSERV,
    };
    struct addrinfo *found = NULL;
    if (getaddrinfo(host[0] == '\0' ? NULL : host, service, &hints, &found) != 0 || found == NULL)
        return ERR_NOT_FOUND;
    enum err err = ERR_NOT_FOUND;
    for (struct addrinfo *info = found; info != NULL; info = info->ai_next) {
        int fd = socket(info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
        if (fd < 0) {
            err = ERR_IO;
            continue;
        }
        struct net_addr local;
        err = socket_listen(fd, info, join, &local);
        if (err == ERR_NONE) {
            *fd_out = fd;
            *local_out = local;
            break;
        }
        close(fd);
    }
    freeaddrinfo(found);
    return err;
}
