/*
 * AMQP 0-9-1 load generator: publishers and consumers as threads, each on a connection of its own.
 *
 * `run` declares queues afresh, starts the consumers, publishes for -t seconds (or -n messages) and
 * ends when all that was published has been delivered. Without -r publishers go as fast as they are
 * let, so latency is queueing; with -r they are open loop: the stamp in a message is the moment it
 * was due, so a stall of the broker is charged to every message that it delayed. Samples of the
 * first second are left out when paced.
 *
 * Publisher i and consumer i use queue i % K.
 */
#include "amqp_link.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    WINDOW_MAX = 1 << 16,
    WORKERS_MAX = PRODUCERS_MAX,
    STALL_S = 60,
    BODY_BYTES_MAX = 64 * 1024 * 1024,
};

static const char usage[] =
    "usage: amqp_bench [options]\n"
    "  -m MODE     run | fill (publish only) | drain (consume only) | declare | delete | depth | "
    "idle | probe\n"
    "  -L LIBRARY  rabbitmq-c (default) | raw (own batching connection)\n"
    "  -h -p -U -W host, port, user, password        -q PREFIX of queue names: PREFIX.0 ...\n"
    "  -y TYPE     x-queue-type                      -b PID,... processes whose CPU is measured\n"
    "  -P -C -K    publishers, consumers, queues     -s body bytes\n"
    "  -n -t       at most so many messages, seconds (declare, delete, idle: how many)\n"
    "  -r RATE     paced, all publishers together    -d persistent messages\n"
    "  -w WINDOW   publisher confirms, so many in flight (0: none)\n"
    "  -a COUNT    prefetch, acknowledged by half of it at once (0: automatic)   -e ack every "
    "COUNT\n";

struct options {
    const char *mode, *prefix, *type, *brokers;
    struct amqp_address address;
    const struct amqp_library *library;
    int publishers, consumers, queues;
    size_t size;
    uint64_t messages;
    double seconds, rate;
    bool persistent;
    uint32_t window, prefetch, ack_every;
};

struct bench {
    const struct options *options;
    pthread_barrier_t start; /* all connections are up */
    uint64_t start_ns;       /* set before the second pass of the barrier */
    _Atomic uint64_t sent, received, sent_last_ns, received_last_ns;
    _Atomic int publishing;
    _Atomic bool stop;
};

struct worker {
    struct bench *bench;
    int number;
    uint64_t count, cpu_ns;
    struct histogram *latency, *confirm;
    struct order order;
};

/* Publishes not yet confirmed: a ring by delivery tag. */
struct window {
    uint64_t *due_ns;
    bool *confirmed;
    uint64_t first, next, open;
};

static void queue_name(const struct options *options, uint64_t number, char name[200])
{
    snprintf(name, 200, "%s.%llu", options->prefix, (unsigned long long)number);
}

static void last_raise(_Atomic uint64_t *last_ns, uint64_t now_ns)
{
    uint64_t seen = atomic_load(last_ns);

    while (now_ns > seen && !atomic_compare_exchange_weak(last_ns, &seen, now_ns))
        ;
}

static void window_init(struct window *window)
{
    window->due_ns = calloc(WINDOW_MAX, sizeof *window->due_ns);
    window->confirmed = calloc(WINDOW_MAX, sizeof *window->confirmed);
    if (!window->due_ns || !window->confirmed)
        fail("out of memory");
    window->first = window->next = 1;
    window->open = 0;
}

static void window_add(struct window *window, uint64_t due_ns)
{
    window->due_ns[window->next % WINDOW_MAX] = due_ns;
    window->next++;
    window->open++;
}

static void window_confirm(struct window *window, uint64_t tag, bool multiple,
                           struct histogram *latency)
{
    uint64_t now_ns = clock_ns();

    if (!tag && multiple)
        tag = window->next - 1;
    if (tag < window->first || tag >= window->next)
        fail("confirm of %llu, which is not outstanding", (unsigned long long)tag);
    for (uint64_t i = multiple ? window->first : tag; i <= tag; i++) {
        if (window->confirmed[i % WINDOW_MAX])
            continue;
        window->confirmed[i % WINDOW_MAX] = true;
        window->open--;
        histogram_add(latency, now_ns - window->due_ns[i % WINDOW_MAX]);
    }
    while (window->first < window->next && window->confirmed[window->first % WINDOW_MAX])
        window->confirmed[window->first++ % WINDOW_MAX] = false;
}

/* Takes the confirms that come within the time, and all that came with the first. */
static bool confirms_take(struct worker *worker, struct amqp_link *link, struct window *window,
                          int64_t wait_ns)
{
    const struct amqp_library *library = worker->bench->options->library;
    uint64_t tag;
    bool multiple, any = false;

    while (window->open && library->confirm_next(link, wait_ns, &tag, &multiple)) {
        window_confirm(window, tag, multiple, worker->confirm);
        wait_ns = AMQP_BUFFERED;
        any = true;
    }
    return any;
}

static void pace(struct worker *worker, struct amqp_link *link, struct window *window,
                 uint64_t due_ns)
{
    uint64_t now_ns = clock_ns();

    if (now_ns >= due_ns)
        return;
    worker->bench->options->library->flush(link);
    while (window->open && now_ns + 3000 < due_ns) {
        (void)confirms_take(worker, link, window, (int64_t)(due_ns - now_ns));
        now_ns = clock_ns();
    }
    clock_sleep_until(due_ns);
}

static void publish_all(struct worker *worker, struct amqp_link *link, struct window *window)
{
    const struct options *options = worker->bench->options;
    const struct amqp_library *library = options->library;
    uint64_t limit = options->messages / (uint64_t)options->publishers;
    double interval_ns = options->rate > 0 ? 1e9 * options->publishers / options->rate : 0;
    uint64_t begin_ns =
        worker->bench->start_ns + (uint64_t)(interval_ns * worker->number / options->publishers);
    uint64_t end_ns = worker->bench->start_ns + (uint64_t)(options->seconds * 1e9);
    struct stamp stamp = {.producer = (uint32_t)worker->number};
    char *body = malloc(options->size), queue[200];

    if (!body)
        fail("out of memory");
    memset(body, 'x', options->size);
    queue_name(options, (uint64_t)(worker->number % options->queues), queue);
    while (stamp.sequence < limit) {
        if (interval_ns > 0) {
            stamp.sent_ns = begin_ns + (uint64_t)((double)stamp.sequence * interval_ns);
            if (stamp.sent_ns > end_ns)
                break;
            pace(worker, link, window, stamp.sent_ns);
        } else {
            stamp.sent_ns = clock_ns();
            if (stamp.sent_ns > end_ns)
                break;
        }
        memcpy(body, &stamp, sizeof stamp);
        library->publish(link, queue, body, options->size, options->persistent);
        stamp.sequence++;
        if (!options->window)
            continue;
        window_add(window, stamp.sent_ns);
        if (window->open >= options->window) {
            library->flush(link);
            if (!confirms_take(worker, link, window, (int64_t)STALL_S * SECOND_NS))
                fail("no confirm in %d s", STALL_S);
        } else if (stamp.sequence % 16 == 0) {
            (void)confirms_take(worker, link, window, 0);
        }
    }
    library->flush(link);
    while (window->open)
        if (!confirms_take(worker, link, window, (int64_t)STALL_S * SECOND_NS))
            fail("%llu messages not confirmed", (unsigned long long)window->open);
    worker->count = stamp.sequence;
    free(body);
}

static void *publisher_main(void *argument)
{
    struct worker *worker = argument;
    struct bench *bench = worker->bench;
    const struct amqp_library *library = bench->options->library;
    struct amqp_link *link = library->open(&bench->options->address);
    struct window window;
    uint64_t cpu_ns;

    clock_fine();
    window_init(&window);
    if (bench->options->window)
        library->confirm_select(link);
    pthread_barrier_wait(&bench->start);
    pthread_barrier_wait(&bench->start);
    cpu_ns = cpu_thread_ns();
    clock_sleep_until(bench->start_ns);
    publish_all(worker, link, &window);
    worker->cpu_ns = cpu_thread_ns() - cpu_ns;
    last_raise(&bench->sent_last_ns, clock_ns());
    atomic_fetch_add(&bench->sent, worker->count);
    atomic_fetch_sub(&bench->publishing, 1);
    /* A closed connection could be noticed before its last unconfirmed messages; stay until the
     * end. */
    while (!atomic_load(&bench->stop))
        usleep(2000);
    library->close(link);
    free(window.due_ns);
    free(window.confirmed);
    return NULL;
}

static void consume_all(struct worker *worker, struct amqp_link *link)
{
    struct bench *bench = worker->bench;
    const struct options *options = bench->options;
    uint64_t every = options->ack_every      ? options->ack_every
                     : options->prefetch > 1 ? options->prefetch / 2
                                             : 1;
    uint64_t unacked = 0, skip_ns = options->rate > 0 ? (uint64_t)SECOND_NS : 0;
    struct amqp_delivery delivery = {0};

    while (!atomic_load_explicit(&bench->stop, memory_order_relaxed)) {
        struct stamp stamp;
        uint64_t now_ns;

        if (!options->library->deliver_next(link, SECOND_NS / 10, &delivery)) {
            if (unacked)
                options->library->ack(link, delivery.tag, true);
            unacked = 0;
            continue;
        }
        now_ns = clock_ns();
        stamp = order_check(&worker->order, delivery.body, delivery.size);
        if (stamp.sent_ns >= bench->start_ns + skip_ns && now_ns > stamp.sent_ns)
            histogram_add(worker->latency, now_ns - stamp.sent_ns);
        worker->count++;
        atomic_fetch_add_explicit(&bench->received, 1, memory_order_relaxed);
        atomic_store_explicit(&bench->received_last_ns, now_ns, memory_order_relaxed);
        if (options->prefetch && ++unacked >= every) {
            options->library->ack(link, delivery.tag, true);
            unacked = 0;
        }
    }
    if (unacked)
        options->library->ack(link, delivery.tag, true);
}

static void *consumer_main(void *argument)
{
    struct worker *worker = argument;
    struct bench *bench = worker->bench;
    const struct options *options = bench->options;
    struct amqp_link *link = options->library->open(&options->address);
    char queue[200];
    uint64_t cpu_ns;

    clock_fine();
    queue_name(options, (uint64_t)(worker->number % options->queues), queue);
    pthread_barrier_wait(&bench->start);
    if (!strcmp(options->mode, "drain"))
        pthread_barrier_wait(&bench->start);
    options->library->consume(link, queue, (uint16_t)options->prefetch,
                              options->type && !strcmp(options->type, "stream"));
    if (strcmp(options->mode, "drain") != 0)
        pthread_barrier_wait(&bench->start);
    cpu_ns = cpu_thread_ns();
    consume_all(worker, link);
    worker->cpu_ns = cpu_thread_ns() - cpu_ns;
    options->library->close(link);
    return NULL;
}

/* Returns when everything sent was received, or nothing moved for STALL_S. */
static void bench_wait(struct bench *bench)
{
    const struct options *options = bench->options;
    uint64_t seen = 0, seen_ns = clock_ns();
    uint64_t end_ns = bench->start_ns + (uint64_t)(options->seconds * 1e9);

    for (;;) {
        uint64_t received = atomic_load(&bench->received), now_ns = clock_ns();
        bool published = !atomic_load(&bench->publishing);

        if (options->publishers && published && !options->consumers)
            return;
        if (options->publishers && published && received >= atomic_load(&bench->sent))
            return;
        if (!options->publishers && (received >= options->messages || now_ns > end_ns))
            return;
        if (received != seen || !published) {
            seen = received;
            seen_ns = now_ns;
        }
        if (now_ns - seen_ns > (uint64_t)STALL_S * SECOND_NS)
            return;
        usleep(1000);
    }
}

static void result_print(const struct bench *bench, const struct meter *meter,
                         const struct worker *publishers, const struct worker *consumers)
{
    const struct options *options = bench->options;
    uint64_t sent = bench->sent, received = bench->received, gaps = 0, errors = 0;
    double publish_s = (double)(bench->sent_last_ns - bench->start_ns) / 1e9;
    double consume_s = (double)(bench->received_last_ns - bench->start_ns) / 1e9;
    uint64_t publisher_cpu_ns = 0, consumer_cpu_ns = 0, publisher_max_ns = 0, consumer_max_ns = 0;
    struct histogram *latency = histogram_create(), *confirm = histogram_create();

    for (int i = 0; i < options->publishers; i++) {
        histogram_merge(confirm, publishers[i].confirm);
        publisher_cpu_ns += publishers[i].cpu_ns;
        if (publishers[i].cpu_ns > publisher_max_ns)
            publisher_max_ns = publishers[i].cpu_ns;
    }
    for (int i = 0; i < options->consumers; i++) {
        histogram_merge(latency, consumers[i].latency);
        consumer_cpu_ns += consumers[i].cpu_ns;
        gaps += consumers[i].order.gaps;
        errors += consumers[i].order.errors;
        if (consumers[i].cpu_ns > consumer_max_ns)
            consumer_max_ns = consumers[i].cpu_ns;
    }
    printf("{\"tool\":\"amqp\",\"library\":\"%s\",\"mode\":\"%s\",\"size\":%zu,\"sent\":%llu,"
           "\"received\":%llu,\"lost\":%lld,\"order_errors\":%llu,\"gaps\":%llu,",
           options->library->name, options->mode, options->size, (unsigned long long)sent,
           (unsigned long long)received,
           options->publishers && options->consumers ? (long long)(sent - received) : 0,
           (unsigned long long)errors, (unsigned long long)gaps);
    if (options->publishers)
        printf("\"publish_rate\":%.0f,\"publisher_cpu_us\":%.3f,\"publisher_busy\":%.2f,",
               (double)sent / publish_s, (double)publisher_cpu_ns / 1e3 / (double)(sent + !sent),
               (double)publisher_max_ns / 1e9 / publish_s);
    if (options->consumers)
        printf("\"consumer_cpu_us\":%.3f,\"consumer_busy\":%.2f,",
               (double)consumer_cpu_ns / 1e3 / (double)(received + !received),
               (double)consumer_max_ns / 1e9 / consume_s);
    printf("\"rate\":%.0f,\"seconds\":%.3f,",
           options->consumers ? (double)received / consume_s : (double)sent / publish_s,
           options->consumers ? consume_s : publish_s);
    meter_print(meter, stdout, sent > received ? sent : received);
    printf(",");
    histogram_print(latency, stdout, "latency_us");
    printf(",");
    histogram_print(confirm, stdout, "confirm_us");
    printf("}\n");
    free(latency);
    free(confirm);
}

static void queues_prepare(const struct options *options, bool afresh)
{
    struct amqp_link *link = amqp_raw.open(&options->address);
    char queue[200];

    for (int i = 0; i < options->queues; i++) {
        queue_name(options, (uint64_t)i, queue);
        if (afresh)
            raw_queue_delete(link, queue, true);
        raw_queue_declare(link, queue, options->type, true);
    }
    amqp_raw.close(link);
}

static int bench_main(struct options *options)
{
    bool fill = !strcmp(options->mode, "fill"), drain = !strcmp(options->mode, "drain");
    struct bench bench = {.options = options};
    struct worker *publishers, *consumers;
    pthread_t threads[2 * WORKERS_MAX];
    struct meter meter;
    int count = 0;

    if (fill)
        options->consumers = 0;
    if (drain)
        options->publishers = 0;
    queues_prepare(options, !fill && !drain);
    publishers = calloc((size_t)options->publishers + 1, sizeof *publishers);
    consumers = calloc((size_t)options->consumers + 1, sizeof *consumers);
    if (!publishers || !consumers)
        fail("out of memory");
    atomic_store(&bench.publishing, options->publishers);
    pthread_barrier_init(&bench.start, NULL,
                         (unsigned)(options->publishers + options->consumers + 1));
    for (int i = 0; i < options->consumers; i++) {
        consumers[i] = (struct worker){.bench = &bench, .number = i, .latency = histogram_create()};
        pthread_create(&threads[count++], NULL, consumer_main, &consumers[i]);
    }
    for (int i = 0; i < options->publishers; i++) {
        publishers[i] =
            (struct worker){.bench = &bench, .number = i, .confirm = histogram_create()};
        pthread_create(&threads[count++], NULL, publisher_main, &publishers[i]);
    }
    pthread_barrier_wait(&bench.start);
    meter_init(&meter, options->brokers);
    bench.start_ns = clock_ns() + (drain ? 0 : SECOND_NS / 10);
    if (drain)
        meter_begin(&meter);
    pthread_barrier_wait(&bench.start);
    if (!drain) {
        clock_sleep_until(bench.start_ns);
        meter_begin(&meter);
    }
    bench_wait(&bench);
    meter_end(&meter);
    atomic_store(&bench.stop, true);
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    result_print(&bench, &meter, publishers, consumers);
    return options->publishers && options->consumers && bench.received != bench.sent ? 2 : 0;
}

static void result_print_count(const struct options *options, uint64_t count, uint64_t begin_ns)
{
    double seconds = (double)(clock_ns() - begin_ns) / 1e9;

    printf("{\"tool\":\"amqp\",\"mode\":\"%s\",\"count\":%llu,\"seconds\":%.3f,\"rate\":%.0f}\n",
           options->mode, (unsigned long long)count, seconds, (double)count / seconds);
    fflush(stdout);
}

/* Pipelines definitions without answers and asks once in a while whether all arrived. */
static int define_main(const struct options *options)
{
    struct amqp_link *link = amqp_raw.open(&options->address);
    bool declare = !strcmp(options->mode, "declare");
    uint64_t begin_ns = clock_ns(), i;
    char queue[200];

    for (i = 0; i < options->messages; i++) {
        bool wait = i % 1000 == 999 || i + 1 == options->messages;

        queue_name(options, i, queue);
        if (declare)
            raw_queue_declare(link, queue, options->type, wait);
        else
            raw_queue_delete(link, queue, wait);
        if (wait && (double)(clock_ns() - begin_ns) > options->seconds * 1e9) {
            i++;
            break;
        }
    }
    result_print_count(options, i, begin_ns);
    amqp_raw.close(link);
    return 0;
}

/* Holds -n connections open for -t seconds. */
static int idle_main(const struct options *options)
{
    uint64_t begin_ns = clock_ns();

    for (uint64_t i = 0; i < options->messages; i++)
        (void)amqp_raw.open(&options->address);
    result_print_count(options, options->messages, begin_ns);
    usleep((useconds_t)(options->seconds * 1e6));
    return 0;
}

/* Milliseconds until the broker has confirmed one persistent message. */
static int probe_main(const struct options *options)
{
    uint64_t begin_ns = clock_ns(), tag;
    struct amqp_link *link;
    char queue[200], body[100] = "probe";
    bool multiple;

    while (!(link = raw_try_open(&options->address))) {
        if ((double)(clock_ns() - begin_ns) > options->seconds * 1e9)
            fail("nothing answers on port %d", options->address.port);
        usleep(1000);
    }
    queue_name(options, 0, queue);
    raw_queue_declare(link, queue, options->type, true);
    amqp_raw.confirm_select(link);
    amqp_raw.publish(link, queue, body, sizeof body, true);
    amqp_raw.flush(link);
    if (!amqp_raw.confirm_next(link, (int64_t)STALL_S * SECOND_NS, &tag, &multiple))
        fail("no confirm");
    printf("{\"tool\":\"amqp\",\"mode\":\"probe\",\"ms\":%.2f}\n",
           (double)(clock_ns() - begin_ns) / 1e6);
    raw_queue_delete(link, queue, true);
    amqp_raw.close(link);
    return 0;
}

static int depth_main(const struct options *options)
{
    struct amqp_link *link = amqp_raw.open(&options->address);
    uint64_t begin_ns = clock_ns(), total = 0;
    char queue[200];

    for (int i = 0; i < options->queues; i++) {
        queue_name(options, (uint64_t)i, queue);
        total += raw_queue_depth(link, queue);
    }
    result_print_count(options, total, begin_ns);
    amqp_raw.close(link);
    return 0;
}

static void library_choose(struct options *options, const char *name)
{
    if (!strcmp(name, amqp_rabbitmq_c.name))
        options->library = &amqp_rabbitmq_c;
    else if (!strcmp(name, amqp_raw.name))
        options->library = &amqp_raw;
    else
        fail("no library %s\n%s", name, usage);
}

static void options_parse(struct options *options, int count, char **arguments)
{
    int option;

    while ((option = getopt(count, arguments, "m:L:h:p:U:W:q:y:b:P:C:K:s:n:t:r:dw:a:e:")) != -1) {
        switch (option) {
        case 'm':
            options->mode = optarg;
            break;
        case 'L':
            library_choose(options, optarg);
            break;
        case 'h':
            options->address.host = optarg;
            break;
        case 'p':
            options->address.port = (int)option_count("-p", optarg, 1, 65535);
            break;
        case 'U':
            options->address.user = optarg;
            break;
        case 'W':
            options->address.password = optarg;
            break;
        case 'q':
            options->prefix = optarg;
            break;
        case 'y':
            options->type = optarg;
            break;
        case 'b':
            options->brokers = optarg;
            break;
        case 'P':
            options->publishers = (int)option_count("-P", optarg, 1, WORKERS_MAX);
            break;
        case 'C':
            options->consumers = (int)option_count("-C", optarg, 0, WORKERS_MAX);
            break;
        case 'K':
            options->queues = (int)option_count("-K", optarg, 1, 1000000);
            break;
        case 's':
            options->size = option_count("-s", optarg, sizeof(struct stamp), BODY_BYTES_MAX);
            break;
        case 'n':
            options->messages = option_count("-n", optarg, 1, UINT64_MAX);
            break;
        case 't':
            options->seconds = option_number("-t", optarg, 0.001, 1e6);
            break;
        case 'r':
            options->rate = option_number("-r", optarg, 0, 1e9);
            break;
        case 'd':
            options->persistent = true;
            break;
        case 'w':
            options->window = (uint32_t)option_count("-w", optarg, 0, WINDOW_MAX - 1);
            break;
        case 'a':
            options->prefetch = (uint32_t)option_count("-a", optarg, 0, UINT16_MAX);
            break;
        case 'e':
            options->ack_every = (uint32_t)option_count("-e", optarg, 1, UINT16_MAX);
            break;
        default:
            fail("%s", usage);
        }
    }
    if (optind != count)
        fail("%s", usage);
}

int main(int count, char **arguments)
{
    struct options options = {
        .mode = "run",
        .prefix = "bench",
        .address = {"127.0.0.1", 5672, "guest", "guest", "/"},
        .library = &amqp_rabbitmq_c,
        .publishers = 1,
        .consumers = 1,
        .queues = 1,
        .size = 100,
        .messages = UINT64_MAX,
        .seconds = 5,
    };
    static const struct {
        const char *name;
        int (*main)(const struct options *options);
    } modes[] = {{"declare", define_main},
                 {"delete", define_main},
                 {"idle", idle_main},
                 {"probe", probe_main},
                 {"depth", depth_main}};

    options_parse(&options, count, arguments);
    if (!strcmp(options.mode, "run") || !strcmp(options.mode, "fill") ||
        !strcmp(options.mode, "drain"))
        return bench_main(&options);
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        if (!strcmp(options.mode, modes[i].name))
            return modes[i].main(&options);
    fail("no mode %s\n%s", options.mode, usage);
}
