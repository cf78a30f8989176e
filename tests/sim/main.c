/* sim_broker [--seeds N] [--from SEED] [--jobs N] [--lie] [--verbose]
 *
 * Runs the simulated broker for each seed: a few lives, each ended by a crash at a random disk
 * call, at a random time, or by an orderly stop, then a last start in which everything is drained
 * and judged. A failing seed prints one line that replays it. With --lie fdatasync does nothing:
 * then acknowledged messages must be found missing, or the checkers are blind. Ends with "N passed,
 * N failed". */
#include "clients.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct totals {
    uint64_t seeds, failed, crashes, published, confirmed, delivered, settled, appended, acked;
};

struct options {
    uint64_t seeds, from;
    uint32_t jobs;
    bool lie, verbose;
};

/* One life of the broker: some work, then an end of one kind or another. */
static void live(struct world *world, struct clients *clients, struct totals *totals)
{
    struct sim *sim = world->sim;
    uint64_t end = sim_random(sim, 4);
    if (end == 0)
        sim_hang_after(sim, 0, 1 + sim_random(sim, 400));
    uint32_t shards = 1 + (uint32_t)sim_random(sim, WORLD_SHARDS_MAX);
    bool up = world_start(world, shards) && clients_prepare(clients);
    if (up) {
        clients_work(clients, true);
        world_run(world, 5 + (int64_t)sim_random(sim, 150));
        clients_work(clients, false);
    }
    sim_hang_after(sim, 0, 0);
    if (world->wrong != NULL || !world->up)
        return;
    totals->crashes++;
    if (sim_hung(sim, 0) || end != 1 || !world_stop(world))
        world_crash(world, end == 2 ? SIM_KILL : SIM_POWER_CUT);
}

static bool run_seed(uint64_t seed, const struct options *options, struct totals *totals)
{
    struct world *world = world_create(seed, options->lie, options->verbose);
    struct model *model = model_create(world);
    struct clients *clients = clients_create(world, model);
    for (uint64_t lives = 1 + sim_random(world->sim, 4); lives > 0 && world->wrong == NULL; lives--)
        live(world, clients, totals);
    if (world->wrong == NULL &&
        world_start(world, 1 + (uint32_t)sim_random(world->sim, WORLD_SHARDS_MAX)) &&
        clients_prepare(clients))
        clients_drain(clients);
    bool failed = world->wrong != NULL;
    if (failed && !options->lie)
        printf("seed %llu: %s\n    replay: sim_broker --from %llu --seeds 1 --verbose\n",
               (unsigned long long)seed, world->wrong, (unsigned long long)seed);
    totals->seeds++;
    totals->failed += failed;
    totals->published += model->published;
    totals->confirmed += model->confirmed;
    totals->delivered += model->delivered;
    totals->settled += model->settled;
    totals->appended += model->appended;
    totals->acked += model->acked;
    world_destroy(world);
    clients_destroy(clients);
    model_destroy(model);
    return !failed;
}

static void parse(int argc, char **argv, struct options *options)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--lie") == 0) {
            options->lie = true;
        } else if (strcmp(argv[i], "--verbose") == 0) {
            options->verbose = true;
        } else if (strcmp(argv[i], "--seeds") == 0) {
            options->seeds = strtoull(value, NULL, 10);
            i++;
        } else if (strcmp(argv[i], "--from") == 0) {
            options->from = strtoull(value, NULL, 10);
            i++;
        } else if (strcmp(argv[i], "--jobs") == 0) {
            options->jobs = (uint32_t)strtoul(value, NULL, 10);
            i++;
        } else {
            fprintf(stderr, "sim_broker: unknown option %s\n", argv[i]);
            exit(2);
        }
    }
}

static void work(const struct options *options, uint32_t job, struct totals *totals)
{
    for (uint64_t i = job; i < options->seeds; i += options->jobs) {
        if (!run_seed(options->from + i, options, totals) && !options->lie && totals->failed >= 3)
            break;
    }
}

/* Each job is a process of its own; a crash of one is a failure, not the end of the others. */
static uint32_t run_jobs(const struct options *options, struct totals *each)
{
    uint32_t died = 0;
    pid_t pids[64];
    for (uint32_t job = 0; job < options->jobs; job++) {
        pids[job] = fork();
        if (pids[job] == 0) {
            work(options, job, &each[job]);
            fflush(NULL);
            _exit(0);
        }
    }
    for (uint32_t job = 0; job < options->jobs; job++) {
        int status;
        waitpid(pids[job], &status, 0);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
            died++;
            printf("job %u died in the run of seed %llu\n", job,
                   (unsigned long long)(options->from + job + each[job].seeds * options->jobs));
        }
    }
    return died;
}

int main(int argc, char **argv)
{
    struct options options = {
        .seeds = 1000, .from = 1, .jobs = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN)};
    parse(argc, argv, &options);
    if (options.jobs < 1 || options.jobs > 64)
        options.jobs = 1;
    if (options.jobs > options.seeds)
        options.jobs = (uint32_t)options.seeds;
    struct totals *each = mmap(NULL, options.jobs * sizeof *each, PROT_READ | PROT_WRITE,
                               MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (each == MAP_FAILED || options.jobs == 0)
        return 2;
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    uint32_t died = 0;
    if (options.jobs == 1)
        work(&options, 0, &each[0]);
    else
        died = run_jobs(&options, each);
    clock_gettime(CLOCK_MONOTONIC, &end);
    struct totals sum = {0};
    for (uint32_t job = 0; job < options.jobs; job++) {
        for (size_t i = 0; i < sizeof sum / sizeof(uint64_t); i++)
            ((uint64_t *)&sum)[i] += ((uint64_t *)&each[job])[i];
    }
    double seconds =
        (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9;
    printf("%llu seeds, %.0f seeds/s, %llu crashes; published %llu, confirmed %llu, delivered "
           "%llu, settled %llu; "
           "appended %llu, acknowledged %llu\n",
           (unsigned long long)sum.seeds, (double)sum.seeds / seconds,
           (unsigned long long)sum.crashes, (unsigned long long)sum.published,
           (unsigned long long)sum.confirmed, (unsigned long long)sum.delivered,
           (unsigned long long)sum.settled, (unsigned long long)sum.appended,
           (unsigned long long)sum.acked);
    if (options.lie) {
        bool caught = sum.failed > 0 && died == 0;
        printf("with fdatasync sabotaged %llu of %llu seeds found out\n",
               (unsigned long long)sum.failed, (unsigned long long)sum.seeds);
        printf("%d passed, %d failed\n", caught, !caught);
        return caught ? 0 : 1;
    }
    uint64_t failed = sum.failed + died;
    printf("%llu passed, %llu failed\n", (unsigned long long)(sum.seeds - sum.failed),
           (unsigned long long)failed);
    return failed == 0 ? 0 : 1;
}
