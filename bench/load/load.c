/* Clock, meters, histogram, order checker: see load.h. */
#include "load.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

void fail(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    fflush(stdout);
    _exit(1);
}

static uint64_t clock_read(clockid_t clock)
{
    struct timespec now;

    if (clock_gettime(clock, &now))
        return 0;
    return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

uint64_t clock_ns(void)
{
    return clock_read(CLOCK_MONOTONIC);
}

void clock_sleep_until(uint64_t until_ns)
{
    struct timespec until = {.tv_sec = (time_t)(until_ns / SECOND_NS),
                             .tv_nsec = (long)(until_ns % SECOND_NS)};

    if (until_ns > clock_ns() + 2000)
        (void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}

void clock_fine(void)
{
    (void)prctl(PR_SET_TIMERSLACK, 1000, 0, 0, 0);
}

uint64_t cpu_process_ns(void)
{
    return clock_read(CLOCK_PROCESS_CPUTIME_ID);
}

uint64_t cpu_thread_ns(void)
{
    return clock_read(CLOCK_THREAD_CPUTIME_ID);
}

uint64_t cpu_busiest_thread_ns(void)
{
    DIR *threads = opendir("/proc/self/task");
    uint64_t busiest = 0;
    struct dirent *entry;

    if (!threads)
        return 0;
    while ((entry = readdir(threads))) {
        char path[300];
        unsigned long long ran_ns;
        FILE *file;

        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "/proc/self/task/%s/schedstat", entry->d_name);
        file = fopen(path, "r");
        if (!file)
            continue;
        if (fscanf(file, "%llu", &ran_ns) == 1 && ran_ns > busiest)
            busiest = ran_ns;
        fclose(file);
    }
    closedir(threads);
    return busiest;
}

/* All CPU time of the machine but idle, iowait and stolen. */
static uint64_t cpu_machine_ns(void)
{
    unsigned long long user, nice, system, idle, wait, hard, soft;
    long ticks = sysconf(_SC_CLK_TCK);
    FILE *file = fopen("/proc/stat", "r");
    int fields;

    if (!file)
        return 0;
    fields = fscanf(file, "cpu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system, &idle,
                    &wait, &hard, &soft);
    fclose(file);
    if (fields != 7 || ticks <= 0)
        return 0;
    return (user + nice + system + hard + soft) * (uint64_t)(SECOND_NS / ticks);
}

void meter_init(struct meter *meter, const char *list)
{
    memset(meter, 0, sizeof *meter);
    while (list && *list) {
        char *end;
        long process = strtol(list, &end, 10);

        if (end == list || process <= 0 || meter->process_count == METER_PROCESSES_MAX)
            fail("bad process list: %s", list);
        meter->processes[meter->process_count++] = (pid_t)process;
        list = *end == ',' ? end + 1 : end;
    }
}

static uint64_t meter_broker_ns(const struct meter *meter)
{
    uint64_t total = 0;

    for (int i = 0; i < meter->process_count; i++) {
        clockid_t clock;

        if (clock_getcpuclockid(meter->processes[i], &clock))
            fail("process %d of the broker is gone", (int)meter->processes[i]);
        total += clock_read(clock);
    }
    return total;
}

void meter_begin(struct meter *meter)
{
    meter->machine_begin_ns = cpu_machine_ns();
    meter->broker_begin_ns = meter_broker_ns(meter);
    meter->client_begin_ns = cpu_process_ns();
    meter->begin_ns = clock_ns();
}

void meter_end(struct meter *meter)
{
    meter->elapsed_ns = clock_ns() - meter->begin_ns;
    meter->client_ns = cpu_process_ns() - meter->client_begin_ns;
    meter->broker_ns = meter_broker_ns(meter) - meter->broker_begin_ns;
    meter->machine_ns = cpu_machine_ns() - meter->machine_begin_ns;
}

void meter_print(const struct meter *meter, FILE *out, uint64_t messages)
{
    double count = messages ? (double)messages : 1.0;
    double elapsed = meter->elapsed_ns ? (double)meter->elapsed_ns : 1.0;
    double others = (double)meter->machine_ns - (double)meter->broker_ns - (double)meter->client_ns;

    if (meter->process_count)
        fprintf(out, "\"broker_cpu_us\":%.4f,\"broker_cores\":%.3f,",
                (double)meter->broker_ns / 1e3 / count, (double)meter->broker_ns / elapsed);
    fprintf(out, "\"client_cpu_us\":%.4f,\"client_cores\":%.3f,\"others_cores\":%.2f",
            (double)meter->client_ns / 1e3 / count, (double)meter->client_ns / elapsed,
            meter->process_count ? fmax(others, 0) / elapsed : 0.0);
}

struct histogram *histogram_create(void)
{
    struct histogram *histogram = calloc(1, sizeof *histogram);

    if (!histogram)
        fail("out of memory");
    return histogram;
}

static size_t histogram_slot(uint64_t value)
{
    int top;

    if (value < 64)
        return (size_t)value;
    top = 63 - __builtin_clzll(value);
    return (size_t)(top - 5) * 64 + ((value >> (top - 6)) & 63);
}

static uint64_t histogram_value(size_t slot)
{
    if (slot < 64)
        return slot;
    return (uint64_t)(64 + slot % 64) << (slot / 64 - 1);
}

void histogram_add(struct histogram *histogram, uint64_t value_ns)
{
    histogram->counts[histogram_slot(value_ns)]++;
    histogram->total++;
    histogram->sum_ns += (double)value_ns;
    if (value_ns > histogram->max_ns)
        histogram->max_ns = value_ns;
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
    for (size_t i = 0; i < HISTOGRAM_SLOTS; i++)
        into->counts[i] += from->counts[i];
    into->total += from->total;
    into->sum_ns += from->sum_ns;
    if (from->max_ns > into->max_ns)
        into->max_ns = from->max_ns;
}

double histogram_quantile_us(const struct histogram *histogram, double quantile)
{
    uint64_t target = (uint64_t)(quantile * (double)histogram->total), seen = 0;

    if (!histogram->total)
        return 0;
    for (size_t i = 0; i < HISTOGRAM_SLOTS; i++) {
        seen += histogram->counts[i];
        if (seen > target)
            return (double)histogram_value(i) / 1e3;
    }
    return (double)histogram->max_ns / 1e3;
}

void histogram_print(const struct histogram *histogram, FILE *out, const char *name)
{
    fprintf(out,
            "\"%s\":{\"n\":%llu,\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"p999\":%.1f,"
            "\"max\":%.1f,\"mean\":%.1f}",
            name, (unsigned long long)histogram->total, histogram_quantile_us(histogram, 0.5),
            histogram_quantile_us(histogram, 0.9), histogram_quantile_us(histogram, 0.99),
            histogram_quantile_us(histogram, 0.999), (double)histogram->max_ns / 1e3,
            histogram->total ? histogram->sum_ns / (double)histogram->total / 1e3 : 0.0);
}

struct stamp order_check(struct order *order, const void *body, size_t size)
{
    struct stamp stamp = {0};

    if (size < sizeof stamp) {
        order->errors++;
        return stamp;
    }
    memcpy(&stamp, body, sizeof stamp);
    if (stamp.producer >= PRODUCERS_MAX || stamp.sequence < order->next[stamp.producer]) {
        order->errors++;
        return stamp;
    }
    order->gaps += stamp.sequence - order->next[stamp.producer];
    order->next[stamp.producer] = stamp.sequence + 1;
    return stamp;
}

uint64_t option_count(const char *name, const char *text, uint64_t min, uint64_t max)
{
    char *end;
    unsigned long long value;

    errno = 0;
    value = strtoull(text, &end, 10);
    if (errno || end == text || *end || text[0] == '-' || value < min || value > max)
        fail("%s: %s is not a whole number from %llu to %llu", name, text, (unsigned long long)min,
             (unsigned long long)max);
    return value;
}

double option_number(const char *name, const char *text, double min, double max)
{
    char *end;
    double value = strtod(text, &end);

    if (end == text || *end || !(value >= min) || value > max)
        fail("%s: %s is not a number from %g to %g", name, text, min, max);
    return value;
}
