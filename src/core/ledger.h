/* A queue's durable half: which of its stream's messages are still owed to somebody. It is a range
 * (from the stream's first offset to its next) and its exceptions: what was settled out of order,
 * and how often a message was delivered and returned. A backlog therefore costs nothing per
 * message.
 *
 * Only apply calls what changes it (at run time and at replay alike). Messages that stand in the
 * volatile log count while the broker runs and are left out of the stored form: after a restart
 * they are settled. */
#ifndef WEIR_CORE_LEDGER_H
#define WEIR_CORE_LEDGER_H

#include "base/map.h"
#include "base/ranges.h"
#include "base/slice.h"
#include "codec/reader.h"
#include "codec/writer.h"
#include "gen/err.h"
#include "store/store.h"

struct ledger {
    struct stream stream;  /* its id is the queue's; first = the oldest unsettled message */
    struct ranges settled; /* above stream.first */
    struct ranges
        fleeting;       /* messages in the volatile log, settled or not; below first: forgotten */
    struct map returns; /* offset -> how often it was returned (as a uintptr_t) */
    uint64_t count;     /* unsettled messages */
    uint64_t bytes;     /* of their bodies */
    uint64_t durable_bytes; /* the part of bytes that is in the journal or extents */
    uint64_t reflects;      /* restored: records before this position are in it already */
    bool expires;           /* some message may have an expiry of its own */
};

void ledger_init(struct ledger *ledger, struct store *store, uint64_t id);
/* drop: its messages are gone for good. */
void ledger_done(struct ledger *ledger, bool drop);

/* A message was appended as stream.next (at replay: possibly behind a gap of lost volatile ones).
 */
enum err ledger_append(struct ledger *ledger, uint64_t offset, uint64_t pos, struct slice entry);
/* Settles what is unsettled in first..last. body_bytes is taken off in any case, of which
 * durable_bytes in the journal or extents: with the first of several ranges, for all of them. */
enum err ledger_settle(struct ledger *ledger, uint64_t first, uint64_t last, uint64_t body_bytes,
                       uint64_t durable_bytes);
/* The message was delivered and came back: one more delivery. */
enum err ledger_return(struct ledger *ledger, uint64_t offset);

bool ledger_is_settled(const struct ledger *ledger, uint64_t offset);
bool ledger_is_fleeting(const struct ledger *ledger, uint64_t offset);
/* Is all of first..last fleeting, so that settling it needs no record? */
bool ledger_all_fleeting(const struct ledger *ledger, uint64_t first, uint64_t last);
/* Earlier deliveries that came back. */
uint32_t ledger_returns(const struct ledger *ledger, uint64_t offset);

/* Stored form. */
size_t ledger_size(const struct ledger *ledger);
void ledger_encode(const struct ledger *ledger, struct writer *writer, uint64_t reflects);
/* Into an initialized, empty ledger. */
enum err ledger_restore(struct ledger *ledger, struct slice stored);
/* Without a ledger: tells which offsets a stored form says are owed no more. False: malformed. */
bool ledger_stored_settled(struct slice stored,
                           void (*settled)(void *ctx, uint64_t first, uint64_t last), void *ctx);

#endif
