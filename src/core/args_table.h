/* AMQP field tables as arguments: what a declare or a binding brings, and a message's headers for
 * headers exchanges. */
#ifndef WEIR_CORE_ARGS_TABLE_H
#define WEIR_CORE_ARGS_TABLE_H

#include "base/arena.h"
#include "codec/amqp_field.h"
#include "core/args.h"

/* Of a table's inside; slices borrow from it, items come from the arena. false: malformed, or no
 * memory. */
bool args_from_table(struct slice table, struct arena *arena, struct args *out);

#endif
