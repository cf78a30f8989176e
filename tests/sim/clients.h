/* The workload: publishers with confirms, consumers that settle, return and reject, idempotent
 * producers and readers of a topic, an administrator. What they learn goes into the model. */
#ifndef WEIR_SIM_CLIENTS_H
#define WEIR_SIM_CLIENTS_H

#include "model.h"

struct clients;

struct clients *clients_create(struct world *world, struct model *model);
void clients_destroy(struct clients *clients);
/* Declares queues and topic (again) and waits for the answers; false when the broker went away. */
bool clients_prepare(struct clients *clients);
/* Everybody works, or nobody. */
void clients_work(struct clients *clients, bool on);
/* Takes everything out of every queue and reads every partition from its start, then judges. */
void clients_drain(struct clients *clients);

#endif
