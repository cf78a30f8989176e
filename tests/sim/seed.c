/* A seed: a few lives, each with its faults and ended by a crash at a random disk call, at a random
 * time, by a failure or by an orderly stop, then a last start without faults in which everything is
 * drained and judged. Some starts are recoveries only: killed at once and made again with another
 * number of shards, they must come to the same state. */
#include "seed.h"

#include "alloc.h"
#include "inspect.h"

#include <stdio.h>
#include <string.h>

enum { ONE_IN_LONG = 32, ACTS = 70, ACTS_LONG = 1500 };

struct seed {
    struct world *world;
    struct clients *clients;
    struct totals *totals;
    uint32_t acts_max;
    uint64_t stopped_hash; /* of the state at an orderly stop, 0: none */
};

static bool one_in(struct seed *seed, uint32_t n)
{
    return world_random(seed->world, n) == 0;
}

/* ---- Faults ---- */

static void trouble_disk(struct seed *seed)
{
    struct world *world = seed->world;
    struct sim *sim = world->sim;
    /* After a failed sync the page cache shows what the disk may not have, also to the next start:
     * a machine with such a disk is always switched off behind it. */
    if (world->sync && one_in(seed, 10)) {
        world->faults.disk_errors = true;
        sim_disk_errors(sim, 0, 1 + world_random(world, 20000));
        seed->totals->errors++;
        world_tell(world, "fault: disk errors");
    }
    if (one_in(seed, 8)) {
        uint32_t times = 2 + world_random(world, 100);
        sim_disk_slow(sim, 0, times);
        seed->totals->slow++;
        world_tell(world, "fault: the disk is %u times slower", times);
    }
}

static void trouble_net(struct seed *seed)
{
    struct world *world = seed->world;
    uint32_t resets = one_in(seed, 6) ? 1 + world_random(world, 30000) : 0;
    uint32_t delay_us = one_in(seed, 6) ? 1000 + world_random(world, 50000) : 0;
    sim_net_trouble(world->sim, delay_us, resets);
    world->faults.resets = resets > 0;
    seed->totals->resets += resets > 0;
    if (resets > 0 || delay_us > 0)
        world_tell(world, "fault: connections break, %u in a million packets, delays to %u us",
                   resets, delay_us);
}

static void trouble_memory(struct seed *seed)
{
    struct world *world = seed->world;
    if (!one_in(seed, 8))
        return;
    uint64_t after = world_random(world, 1u << (1 + world_random(world, 15)));
    uint64_t failures = 1 + world_random(world, 1u << world_random(world, 8));
    world->faults.memory = true;
    alloc_fail_after(after, failures);
    world_tell(world, "fault: after %llu allocations %llu fail", (unsigned long long)after,
               (unsigned long long)failures);
}

static void no_trouble(struct seed *seed)
{
    struct world *world = seed->world;
    seed->totals->unallocated += world->faults.memory ? alloc_failed() : 0;
    alloc_fail_never();
    sim_hang_after(world->sim, 0, 0);
    sim_disk_errors(world->sim, 0, 0);
    sim_disk_slow(world->sim, 0, 1);
    sim_disk_limit(world->sim, 0, 0);
    sim_net_trouble(world->sim, 0, 0);
    world->faults = (struct world_faults){0};
}

/* Something that befalls the machine in the middle of the work. */
static void befall(struct seed *seed)
{
    struct world *world = seed->world;
    struct sim *sim = world->sim;
    uint32_t dice = world_random(world, 24);
    if (dice == 0) {
        uint64_t room = world_random(world, 2) == 0 ? world_random(world, 1 << 20)
                                                    : world_random(world, 200 << 20);
        world->faults.disk_full = true;
        sim_disk_limit(sim, 0, sim_disk_used(sim, 0) + 1 + room);
        seed->totals->full++;
        world_tell(world, "fault: the disk has room for %llu bytes", (unsigned long long)room);
    } else if (dice == 1) {
        sim_disk_limit(sim, 0, 0); /* refusals of before may still be on their way */
        world_tell(world, "the disk has room");
    } else if (dice < 4) {
        int64_t ms = (int64_t)world_random(world, 1u << (1 + world_random(world, 19)));
        sim_wall_jump(sim, dice == 2 ? ms : -ms);
        seed->totals->jumps++;
        world_tell(world, "fault: the clock jumps by %lld ms", (long long)(dice == 2 ? ms : -ms));
    } else if (dice == 4) {
        int64_t us = (int64_t)world_random(world, 1u << (1 + world_random(world, 26)));
        sim_sleep(sim, us);
        seed->totals->sleeps++;
        world_tell(world, "fault: everything stood still for %lld us", (long long)us);
    }
}

/* ---- Lives ---- */

/* Recovers, and perhaps once more after a kill, with another number of shards: the same journals
 * must give the same state. */
static bool recover(struct seed *seed)
{
    struct world *world = seed->world;
    uint32_t shards = 1 + world_random(world, WORLD_SHARDS_MAX);
    if (!world_recover(world, shards))
        return false;
    uint64_t hash = inspect_hash(world, false);
    if (seed->stopped_hash != 0 && inspect_hash(world, true) != seed->stopped_hash)
        world_wrong(world, "the state after an orderly stop is not what it was before");
    seed->totals->compared += seed->stopped_hash != 0;
    seed->stopped_hash = 0;
    if (!one_in(seed, 3) || world_ended(world) || world->faults.disk_errors)
        return true;
    world_crash(world, SIM_KILL);
    uint32_t others = 1 + world_random(world, WORLD_SHARDS_MAX);
    if (!world_recover(world, others))
        return false;
    if (inspect_hash(world, false) != hash)
        world_wrong(world, "the same journals give another state the second time, with %u shards",
                    others);
    seed->totals->compared++;
    seed->totals->resharded += others != shards;
    return true;
}

static void work(struct seed *seed)
{
    struct world *world = seed->world;
    uint32_t acts = 5 + world_random(world, seed->acts_max);
    while (acts > 0 && !world_ended(world)) {
        uint32_t some = 1 + world_random(world, acts < 40 ? acts : 40);
        befall(seed);
        clients_work(seed->clients, some);
        acts -= some;
    }
}

/* How it ends, once it was at work or could not be. */
static void end(struct seed *seed, bool stop, bool cut)
{
    struct world *world = seed->world;
    struct totals *totals = seed->totals;
    if (world->wrong != NULL || !world->up)
        return;
    inspect_count(world);
    bool hung = sim_hung(world->sim, 0), ended = world_ended(world);
    totals->hangs += hung;
    totals->failures += ended && !hung;
    bool orderly = !ended && stop && world_stop(world);
    if (orderly && !world->faults.disk_errors && !world->faults.memory && !world->faults.disk_full)
        seed->stopped_hash = inspect_hash(world, true);
    totals->stops += orderly;
    totals->kills += !orderly && !cut;
    totals->cuts += !orderly && cut;
    if (world->wrong == NULL)
        world_crash(world, cut || (orderly && world->sync) ? SIM_POWER_CUT : SIM_KILL);
}

static void live(struct seed *seed)
{
    struct world *world = seed->world;
    uint32_t way = world_random(world, 4);
    seed->totals->lives++;
    trouble_disk(seed);
    trouble_net(seed);
    trouble_memory(seed);
    if (way == 0)
        sim_hang_after(world->sim, 0, 1 + world_random(world, 1u << world_random(world, 10)));
    if (recover(seed) && world->wrong == NULL && world_begin(world) &&
        clients_prepare(seed->clients))
        work(seed);
    bool cut = world->sync && (way == 2 || (way == 0 && one_in(seed, 2)));
    cut = cut || world->faults.disk_errors;
    end(seed, way == 1, cut);
    no_trouble(seed);
}

static void judge(struct seed *seed)
{
    struct world *world = seed->world;
    if (!recover(seed) || world->wrong != NULL || !world_begin(world) ||
        !clients_prepare(seed->clients))
        return;
    clients_drain(seed->clients);
    end(seed, one_in(seed, 4), false);
}

bool seed_run(uint64_t number, const struct seed_options *options, struct seed_rig *rig,
              struct totals *totals, char *wrong)
{
    uint64_t memory = alloc_live();
    struct world *world = world_create(number, options->lie, options->verbose, totals);
    struct seed seed = {.world = world, .clients = rig->clients, .totals = totals};
    model_begin(rig->model, world);
    clients_begin(rig->clients, world, rig->model);
    seed.acts_max = one_in(&seed, ONE_IN_LONG) ? ACTS_LONG : ACTS;
    world->sync = options->lie || !one_in(&seed, 12);
    for (uint32_t lives = 1 + world_random(world, 3); lives > 0 && world->wrong == NULL; lives--)
        live(&seed);
    if (world->wrong == NULL)
        judge(&seed);
    no_trouble(&seed);
    memcpy(wrong, world->wrong_text, sizeof world->wrong_text);
    bool good = world->wrong == NULL, mail_lost = world->mail_lost;
    world_destroy(world);
    if (good && !mail_lost && alloc_live() != memory) {
        snprintf(wrong, sizeof world->wrong_text, "%lld pieces of memory are left over",
                 (long long)(alloc_live() - memory));
        good = false;
    }
    totals->seeds++;
    totals->wrong += !good;
    return good;
}
