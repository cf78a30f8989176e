/*
 * What every load generator shares: the clock, CPU meters, a latency histogram, the stamp that
 * messages carry, and number parsing.
 *
 * Times are CLOCK_MONOTONIC nanoseconds, so a stamp written by one process can be compared by
 * another on the same machine. A generator ends at the first error with one line on stderr and
 * status 1; its result is one line of JSON on stdout.
 */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>

enum {
    SECOND_NS = 1000000000,
    HISTOGRAM_SLOTS = 64 * 64,
    METER_PROCESSES_MAX = 32,
    PRODUCERS_MAX = 256,
};

_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

uint64_t clock_ns(void);

/* Returns at once when `until` is less than 2 us away. */
void clock_sleep_until(uint64_t until_ns);

/* Asks the kernel for 1 us timer slack instead of 50 us; each thread that paces calls it. */
void clock_fine(void);

/* CPU time of this process and of the calling thread. */
uint64_t cpu_process_ns(void);
uint64_t cpu_thread_ns(void);

/* CPU time of this process' busiest living thread: near the elapsed time, the client is the limit.
 */
uint64_t cpu_busiest_thread_ns(void);

/*
 * The CPU of other processes (a broker's whole tree) and of the whole machine between two moments.
 * The kernel's per-process clock is what /proc/PID/stat counts, without its 10 ms ticks.
 */
struct meter {
    pid_t processes[METER_PROCESSES_MAX];
    int process_count;
    uint64_t begin_ns, broker_begin_ns, client_begin_ns, machine_begin_ns;
    uint64_t elapsed_ns, broker_ns, client_ns, machine_ns;
};

/* `list` is "PID,PID,..."; empty or NULL measures no broker. */
void meter_init(struct meter *meter, const char *list);
void meter_begin(struct meter *meter);
void meter_end(struct meter *meter);

/* Prints `"broker_cpu_us":...,"client_cpu_us":...,"others_cores":...` for that many messages. */
void meter_print(const struct meter *meter, FILE *out, uint64_t messages);

/* Log-linear, 64 steps an octave: within 1.6 %. Values in nanoseconds. */
struct histogram {
    uint64_t counts[HISTOGRAM_SLOTS];
    uint64_t total, max_ns;
    double sum_ns;
};

struct histogram *histogram_create(void);
void histogram_add(struct histogram *histogram, uint64_t value_ns);
void histogram_merge(struct histogram *into, const struct histogram *from);
double histogram_quantile_us(const struct histogram *histogram, double quantile);

/* Prints `"NAME":{"n":...,"p50":...,...}` in microseconds. */
void histogram_print(const struct histogram *histogram, FILE *out, const char *name);

/* The first bytes of every message body. `sent_ns` 0: not a latency sample. */
struct stamp {
    uint64_t sent_ns;
    uint64_t sequence;
    uint32_t producer;
    uint32_t unused;
};

/* Watches that each producer's sequence only rises, as seen by one consumer. */
struct order {
    uint64_t next[PRODUCERS_MAX];
    uint64_t gaps, errors;
};

/* Body shorter than a stamp: counts as an error. Returns the stamp read. */
struct stamp order_check(struct order *order, const void *body, size_t size);

/* Parse an option's number within [min, max], or fail naming the option. */
uint64_t option_count(const char *name, const char *text, uint64_t min, uint64_t max);
double option_number(const char *name, const char *text, double min, double max);

#endif
