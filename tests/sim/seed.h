/* What happens in one seed. */
#ifndef WEIR_SIM_SEED_H
#define WEIR_SIM_SEED_H

#include "clients.h"

struct seed_options {
    bool lie; /* fdatasync does nothing */
    bool verbose;
};

/* What one seed leaves behind for the next, so that it need not be made again. */
struct seed_rig {
    struct model *model;
    struct clients *clients;
};

/* True when nothing was wrong; else `wrong`, of room for 512 bytes, says what. */
bool seed_run(uint64_t seed, const struct seed_options *options, struct seed_rig *rig,
              struct totals *totals, char *wrong);

#endif
