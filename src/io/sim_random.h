/* The pseudo-random numbers of a simulation: SplitMix64 (Steele, Lea, Flood 2014). */
#ifndef WEIR_IO_SIM_RANDOM_H
#define WEIR_IO_SIM_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

struct sim_random {
    uint64_t state;
};

static inline uint64_t sim_random_bits(struct sim_random *random)
{
    uint64_t value = random->state += 0x9e3779b97f4a7c15u;
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9u;
    value = (value ^ value >> 27) * 0x94d049bb133111ebu;
    return value ^ value >> 31;
}

/* A number below `below`, which must not be 0. */
static inline uint64_t sim_random_below(struct sim_random *random, uint64_t below)
{
    uint64_t bits = sim_random_bits(random);
    return below <= UINT32_MAX ? (bits >> 32) * below >> 32 : bits % below;
}

static inline bool sim_random_chance(struct sim_random *random, uint32_t per_million)
{
    return per_million > 0 && sim_random_below(random, 1000000) < per_million;
}

#endif
