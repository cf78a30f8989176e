/* sim_broker [--seeds N] [--from SEED] [--jobs N] [--lie] [--all] [--verbose]
 *
 * Runs the simulated broker for each seed (tests/sim/seed.c). A failing seed prints one line that
 * replays it; --verbose then shows the timeline. With --lie fdatasync does nothing: then
 * acknowledged messages must be found missing, or the checkers are blind. With --all everything
 * that the simulation is for must have happened at least once. Ends with "N passed, N failed". */
#include "seed.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { JOBS_MAX = 64, FAILED_MAX = 3 };

struct options {
    uint64_t seeds, from;
    uint32_t jobs;
    bool all;
    struct seed_options seed;
};

/* What a job has in common with its parent. */
struct job {
    struct totals totals;
    uint64_t at; /* the seed under way */
};

static void parse(int argc, char **argv, struct options *options)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--lie") == 0) {
            options->seed.lie = true;
        } else if (strcmp(argv[i], "--verbose") == 0) {
            options->seed.verbose = true;
        } else if (strcmp(argv[i], "--all") == 0) {
            options->all = true;
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

static void report(const struct options *options, uint64_t seed, const char *wrong)
{
    if (options->seed.lie)
        return;
    printf("seed %llu: %s\n    replay: sim_broker --from %llu --seeds 1 --verbose\n",
           (unsigned long long)seed, wrong, (unsigned long long)seed);
    fflush(stdout);
}

static void work(const struct options *options, uint32_t number, struct job *job)
{
    /* Memory that one seed gives back is for the next, not for the system. */
    mallopt(M_MMAP_THRESHOLD, 256 << 20);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    mallopt(M_TOP_PAD, 16 << 20);
    struct seed_rig rig = {.model = model_create(), .clients = clients_create()};
    for (uint64_t i = number; i < options->seeds; i += options->jobs) {
        char wrong[512];
        job->at = options->from + i;
        bool good = seed_run(job->at, &options->seed, &rig, &job->totals, wrong);
        if (!good)
            report(options, job->at, wrong);
        if (!options->seed.lie && job->totals.wrong >= FAILED_MAX)
            break;
    }
    clients_destroy(rig.clients);
    model_destroy(rig.model);
}

/* Each job is a process of its own; a crash of one is a failure, not the end of the others. */
static uint32_t run_jobs(const struct options *options, struct job *each)
{
    uint32_t died = 0;
    pid_t pids[JOBS_MAX];
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
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
            continue;
        died++;
        report(options, each[job].at, "the program died");
    }
    return died;
}

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* What happened how often; returns how many kinds of things never did. */
static uint32_t show(const struct totals *totals, double seconds)
{
    uint32_t never = 0;
    const char *comma = "";
#define X(field, words)                                                                            \
    printf("%s%llu %s", comma, (unsigned long long)totals->field, words);                          \
    comma = ", ";                                                                                  \
    never += totals->field == 0 && strcmp(words, "wrong") != 0;
    TOTALS(X)
#undef X
    printf("\n%.0f seeds/s\n", (double)totals->seeds / seconds);
    return never;
}

static int conclude(const struct options *options, const struct totals *sum, uint32_t died,
                    uint32_t never)
{
    uint64_t good = sum->seeds - sum->wrong, failed = sum->wrong + died;
    if (options->seed.lie) {
        bool caught = sum->wrong > 0 && died == 0;
        printf("with fdatasync sabotaged %llu of %llu seeds found out\n",
               (unsigned long long)sum->wrong, (unsigned long long)sum->seeds);
        good = caught;
        failed = !caught;
    }
    if (options->all && never > 0) {
        printf("%u kinds of things never happened\n", never);
        failed++;
    }
    printf("%llu passed, %llu failed\n", (unsigned long long)good, (unsigned long long)failed);
    return failed == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    struct options options = {
        .seeds = 1000, .from = 1, .jobs = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN)};
    parse(argc, argv, &options);
    if (options.jobs < 1 || options.jobs > JOBS_MAX)
        options.jobs = 1;
    if (options.jobs > options.seeds)
        options.jobs = (uint32_t)options.seeds;
    if (options.jobs == 0)
        return 2;
    struct job *each = mmap(NULL, options.jobs * sizeof *each, PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (each == MAP_FAILED)
        return 2;
    double begin = now_s();
    uint32_t died = 0;
    if (options.jobs == 1)
        work(&options, 0, &each[0]);
    else
        died = run_jobs(&options, each);
    double seconds = now_s() - begin;
    struct totals sum = {0};
    for (uint32_t job = 0; job < options.jobs; job++) {
#define X(field, words) sum.field += each[job].totals.field;
        TOTALS(X)
#undef X
    }
    uint32_t never = show(&sum, seconds);
    return conclude(&options, &sum, died, never);
}
