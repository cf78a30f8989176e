/* A look into the broker's cells, past all protocols: what a test may know and a client cannot. */
#ifndef WEIR_SIM_INSPECT_H
#define WEIR_SIM_INSPECT_H

#include "world.h"

struct inspect_queue {
    uint64_t count; /* unsettled messages */
    uint64_t leased, moving;
    uint64_t bytes, durable_bytes;
};

/* False: there is no such queue. */
bool inspect_queue(const struct world *world, uint64_t id, struct inspect_queue *out);

/* A number that stands for everything that a restart must bring back: definitions, which messages
 * of which queue are unsettled and how often they were returned, partitions' first and next
 * offsets, committed offsets. The same whatever the number of shards. `steady`: without the queues
 * out of which messages go by themselves, or into which they then come, and without returns: these
 * things may still happen in one cell while another has stopped. */
uint64_t inspect_hash(const struct world *world, bool steady);

/* Whatever is leased, subscribed or waited for is so by a connection that is there; ledgers agree
 * with what is leased and returned. */
void inspect_owners(struct world *world);

/* Nobody is connected and everything is settled: nothing may be left of it in memory. */
void inspect_idle(struct world *world);

/* Mail or buffers are under way between shards: a crash now takes their memory with it. */
bool inspect_mail(const struct world *world);

/* Adds what the cells have counted in this life to the world's totals. */
void inspect_count(struct world *world);

#endif
