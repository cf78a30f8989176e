/* Does a message with these headers match the arguments of a headers exchange's binding? x-match
 * says how: all (the default), any, and, where names that begin with x- count too, all-with-x and
 * any-with-x. An argument without a value asks for the header's presence only. */
#ifndef WEIR_CORE_ROUTE_HEADERS_H
#define WEIR_CORE_ROUTE_HEADERS_H

#include "core/args.h"

bool headers_match(struct args binding, struct args headers);

#endif
