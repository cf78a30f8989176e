/* Makes the broker's allocations fail, and counts: malloc and its like of everything that is linked
 * into the program pass through here (the linker's --wrap). What clients, model and simulated world
 * allocate never fails: they hold the failures off. */
#ifndef WEIR_SIM_ALLOC_H
#define WEIR_SIM_ALLOC_H

#include <stdbool.h>
#include <stdint.h>

/* After that many more allocations of the broker so many fail, one after the other. */
void alloc_fail_after(uint64_t allocations, uint64_t failures);
void alloc_fail_never(void);
/* How many have failed since alloc_fail_after. */
uint64_t alloc_failed(void);

/* Pieces of memory that were given out and not given back. */
uint64_t alloc_live(void);

/* Between begin and end the broker is at work: only then do allocations count. */
void alloc_broker_begin(void);
void alloc_broker_end(void);

/* Between these nothing fails and nothing counts; they may be nested. */
void alloc_hold(void);
void alloc_release(void);

#endif
