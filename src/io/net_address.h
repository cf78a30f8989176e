/* Addresses of sockets, and what is set on a socket once. Real backend only. */
#ifndef WEIR_IO_NET_ADDRESS_H
#define WEIR_IO_NET_ADDRESS_H

#include "io/net.h"

#include <sys/socket.h>

/* Numeric form; an IPv4 address inside an IPv6 one is shown as IPv4. */
void net_address_show(const struct sockaddr_storage *address, struct net_addr *out);

/* A listening non-blocking socket on host and port. With `join` it shares an address with sockets
 * of this process that listen there already; without, nobody else may (ERR_IN_USE), but later ones
 * may join it. ERR_NOT_FOUND: no such host or address here. */
enum err net_address_listen(const char *host, uint16_t port, bool join, int *fd_out,
                            struct net_addr *local_out) __attribute__((warn_unused_result));

/* Small answers leave at once; between two ends of one machine a congestion control that does not
 * pace is used where the system has one (BBR costs 4-5 times the bandwidth there). */
void net_address_tune(int fd, bool loopback);

#endif
