/* The broker as a process: its data folder, one thread per shard, listeners, and an orderly end. */
#ifndef WEIR_SERVER_SERVER_H
#define WEIR_SERVER_SERVER_H

#include "server/config.h"

/* Runs until SIGTERM or SIGINT, or until storage fails. Prints what listens where on standard
 * output, then the line `ready`. Returns the process's exit status: 0 after an orderly end. */
int server_run(const struct config *config);

#endif
