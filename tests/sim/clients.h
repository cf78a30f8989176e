/* The clients of the simulated broker: publishers with confirms, consumers that settle, return and
 * reject, idempotent producers, a reader, members of a group, and one that declares, purges,
 * deletes and trims. They tell the model what they do and check what they see. */
#ifndef WEIR_SIM_CLIENTS_H
#define WEIR_SIM_CLIENTS_H

#include "model.h"

struct clients;

/* They serve one seed after the other. */
struct clients *clients_create(void);
void clients_destroy(struct clients *clients);
void clients_begin(struct clients *clients, struct world *world, struct model *model);

/* Declares everything, as at the start of every life; false when that did not succeed. */
bool clients_prepare(struct clients *clients);
/* So many turns of work. */
void clients_work(struct clients *clients, uint32_t acts);
/* Retries what is open, drains every queue, reads every topic, compares. Ends with everything
 * settled and nobody connected. */
void clients_drain(struct clients *clients);

#endif
