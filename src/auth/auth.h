/* Who may come in. For now one user, guest with password guest, from loopback addresses only, as
 * RabbitMQ ships it. Shared by all shards, read-only once made. */
#ifndef WEIR_AUTH_AUTH_H
#define WEIR_AUTH_AUTH_H

#include "base/slice.h"
#include "gen/err.h"

#include <stdbool.h>

/* ERR_REFUSED whatever the reason: the peer learns nothing. Takes the same time for any password of
 * one length. */
enum err auth_check_password(struct slice user, struct slice password, bool from_loopback)
    __attribute__((warn_unused_result));

#endif
