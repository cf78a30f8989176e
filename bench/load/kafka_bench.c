/*
 * Kafka load generator on librdkafka.
 *
 * `produce` sends as fast as the library takes messages (or paced by -r), counts acknowledgements
 * and ends when all have come. `consume` reads the topic from its first offset until -n messages.
 * `flow` is both at once, paced: the stamp in a message is the moment it was due, which gives
 * end-to-end and produce-to-acknowledgement latency. `mock` serves librdkafka's own mock cluster
 * from this process, to find the library's ceiling; it prints its address and waits. Its topics are
 * TOPIC-1 with one partition to TOPIC-N with N.
 *
 * Producer i is a client of its own on its own thread; consumer i reads the partitions p with
 * p % C == i, assigned, without a group.
 */
#include "load.h"

#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    CLIENTS_MAX = 64,
    PARTITIONS_MAX = 4096,
    SETTINGS_MAX = 64,
    BATCH = 1000,
    STALL_S = 30,
    SAMPLE_EVERY = 64,
};

static const char usage[] =
    "usage: kafka_bench [options]\n"
    "  -m MODE       produce | consume | flow (both, paced) | mock | create | delete\n"
    "  -B HOST:PORT  the broker                      -T TOPIC\n"
    "  -N COUNT      partitions                      -c KEY=VALUE topic setting (create)\n"
    "  -M COUNT      create, delete: so many topics, named TOPIC-0 ... (0: just TOPIC)\n"
    "  -P -C         producers, consumers            -s body bytes\n"
    "  -n -t         at most so many messages, seconds\n"
    "  -r RATE       paced, all producers together   -X KEY=VALUE any client setting\n"
    "  -b PID,...    processes whose CPU is measured\n";

struct options {
    const char *mode, *broker, *topic, *brokers;
    const char *client_settings[SETTINGS_MAX], *topic_settings[SETTINGS_MAX];
    int client_setting_count, topic_setting_count;
    int producers, consumers, partitions, topics;
    size_t size;
    uint64_t messages;
    double seconds, rate;
};

struct bench {
    const struct options *options;
    pthread_barrier_t start;
    uint64_t start_ns;
    _Atomic uint64_t acked, failed, received, acked_last_ns, received_last_ns;
    _Atomic uint64_t consume_first_ns;
    _Atomic int producing;
    _Atomic bool stop;
    struct meter meter;
};

struct worker {
    struct bench *bench;
    int number;
    uint64_t acked, failed, received;
    uint64_t acked_last_ns;
    struct histogram *latency, *confirm;
    struct order *orders; /* one for each partition */
};

static void setting_apply(rd_kafka_conf_t *settings, const char *pair)
{
    char error[512], name[256];
    const char *equals = strchr(pair, '=');

    if (!equals || (size_t)(equals - pair) >= sizeof name)
        fail("%s is not KEY=VALUE", pair);
    memcpy(name, pair, (size_t)(equals - pair));
    name[equals - pair] = 0;
    if (rd_kafka_conf_set(settings, name, equals + 1, error, sizeof error))
        fail("%s", error);
}

static void acknowledged(rd_kafka_t *client, const rd_kafka_message_t *message, void *opaque)
{
    struct worker *worker = opaque;

    (void)client;
    if (message->err) {
        if (!worker->failed++)
            fprintf(stderr, "produce: %s\n", rd_kafka_err2str(message->err));
        return;
    }
    worker->acked++;
    if (message->_private) {
        worker->acked_last_ns = clock_ns();
        histogram_add(worker->confirm,
                      worker->acked_last_ns - (uint64_t)(uintptr_t)message->_private);
    }
}

static rd_kafka_t *client_create(const struct options *options, rd_kafka_type_t type,
                                 struct worker *worker)
{
    rd_kafka_conf_t *settings = rd_kafka_conf_new();
    rd_kafka_t *client;
    char error[512];

    if (rd_kafka_conf_set(settings, "bootstrap.servers", options->broker, error, sizeof error))
        fail("%s", error);
    if (type == RD_KAFKA_CONSUMER)
        setting_apply(settings, "group.id=bench");
    setting_apply(settings, "log_level=3");
    for (int i = 0; i < options->client_setting_count; i++)
        setting_apply(settings, options->client_settings[i]);
    if (worker && type == RD_KAFKA_PRODUCER) {
        rd_kafka_conf_set_dr_msg_cb(settings, acknowledged);
        rd_kafka_conf_set_opaque(settings, worker);
    }
    client = rd_kafka_new(type, settings, error, sizeof error);
    if (!client)
        fail("%s", error);
    return client;
}

static rd_kafka_topic_t *topic_open(rd_kafka_t *client, const char *name)
{
    rd_kafka_topic_t *topic = rd_kafka_topic_new(client, name, NULL);

    if (!topic)
        fail("%s: %s", name, rd_kafka_err2str(rd_kafka_last_error()));
    return topic;
}

/* The topic's partitions must be known before the clock starts, or the first second is metadata. */
static void metadata_wait(rd_kafka_t *client, rd_kafka_topic_t *topic, int partitions)
{
    uint64_t end_ns = clock_ns() + (uint64_t)STALL_S * SECOND_NS;

    for (;;) {
        const struct rd_kafka_metadata *metadata;
        rd_kafka_resp_err_t error = rd_kafka_metadata(client, 0, topic, &metadata, 10000);
        bool known = false;

        if (!error) {
            known = metadata->topic_cnt == 1 && !metadata->topics[0].err &&
                    metadata->topics[0].partition_cnt >= partitions;
            for (int i = 0; known && i < metadata->topics[0].partition_cnt; i++)
                known = !metadata->topics[0].partitions[i].err;
            rd_kafka_metadata_destroy(metadata);
        }
        if (known)
            return;
        if (clock_ns() > end_ns)
            fail("topic is not there: %s", rd_kafka_err2str(error));
        usleep(20000);
    }
}

static uint64_t produce_all(struct worker *worker, rd_kafka_t *client, rd_kafka_topic_t *topic)
{
    struct bench *bench = worker->bench;
    const struct options *options = bench->options;
    uint64_t limit = options->messages / (uint64_t)options->producers;
    double interval_ns = options->rate > 0 ? 1e9 * options->producers / options->rate : 0;
    uint64_t begin_ns =
        bench->start_ns + (uint64_t)(interval_ns * worker->number / options->producers);
    uint64_t end_ns = bench->start_ns + (uint64_t)(options->seconds * 1e9);
    uint64_t skip_ns = begin_ns + (uint64_t)SECOND_NS;
    struct stamp stamp = {.producer = (uint32_t)worker->number};
    char *body = malloc(options->size);

    if (!body)
        fail("out of memory");
    memset(body, 'x', options->size);
    while (stamp.sequence < limit) {
        bool sample = interval_ns > 0 || stamp.sequence % SAMPLE_EVERY == 0;

        stamp.sent_ns = 0;
        if (interval_ns > 0) {
            stamp.sent_ns = begin_ns + (uint64_t)((double)stamp.sequence * interval_ns);
            while (clock_ns() + 2000 < stamp.sent_ns) {
                (void)rd_kafka_poll(client, 0);
                clock_sleep_until(stamp.sent_ns);
            }
        } else if (sample) {
            stamp.sent_ns = clock_ns();
        }
        if (stamp.sent_ns > end_ns)
            break;
        memcpy(body, &stamp, sizeof stamp);
        sample = sample && (interval_ns <= 0 || stamp.sent_ns > skip_ns);
        while (rd_kafka_produce(topic, RD_KAFKA_PARTITION_UA, RD_KAFKA_MSG_F_COPY, body,
                                options->size, NULL, 0,
                                sample ? (void *)(uintptr_t)stamp.sent_ns : NULL)) {
            if (rd_kafka_last_error() != RD_KAFKA_RESP_ERR__QUEUE_FULL)
                fail("produce: %s", rd_kafka_err2str(rd_kafka_last_error()));
            (void)rd_kafka_poll(client, 1);
        }
        if (++stamp.sequence % SAMPLE_EVERY == 0)
            (void)rd_kafka_poll(client, 0);
    }
    free(body);
    return stamp.sequence;
}

static void *producer_main(void *argument)
{
    struct worker *worker = argument;
    struct bench *bench = worker->bench;
    rd_kafka_t *client = client_create(bench->options, RD_KAFKA_PRODUCER, worker);
    rd_kafka_topic_t *topic = topic_open(client, bench->options->topic);
    uint64_t seen, sent;

    clock_fine();
    metadata_wait(client, topic, bench->options->partitions);
    pthread_barrier_wait(&bench->start);
    pthread_barrier_wait(&bench->start);
    clock_sleep_until(bench->start_ns);
    sent = produce_all(worker, client, topic);
    do {
        seen = worker->acked;
        (void)rd_kafka_flush(client, STALL_S * 1000);
    } while (worker->acked + worker->failed < sent && worker->acked != seen);
    worker->failed = sent - worker->acked;
    atomic_fetch_add(&bench->acked, worker->acked);
    atomic_fetch_add(&bench->failed, worker->failed);
    worker->acked_last_ns = clock_ns();
    atomic_fetch_sub(&bench->producing, 1);
    return NULL;
}

static void consumed(struct worker *worker, const rd_kafka_message_t *message, uint64_t now_ns)
{
    struct bench *bench = worker->bench;
    uint64_t skip_ns = bench->start_ns + (bench->options->rate > 0 ? (uint64_t)SECOND_NS : 0);
    struct stamp stamp;

    if (message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF)
        return;
    if (message->err)
        fail("consume: %s", rd_kafka_message_errstr(message));
    stamp = order_check(&worker->orders[message->partition % PARTITIONS_MAX], message->payload,
                        message->len);
    if (stamp.sent_ns > skip_ns && now_ns > stamp.sent_ns)
        histogram_add(worker->latency, now_ns - stamp.sent_ns);
    worker->received++;
}

static void *consumer_main(void *argument)
{
    struct worker *worker = argument;
    struct bench *bench = worker->bench;
    const struct options *options = bench->options;
    rd_kafka_t *client = client_create(options, RD_KAFKA_CONSUMER, NULL);
    rd_kafka_topic_t *topic = topic_open(client, options->topic);
    rd_kafka_queue_t *queue = rd_kafka_queue_new(client);
    rd_kafka_message_t *messages[BATCH];
    uint64_t now_ns, before;

    clock_fine();
    metadata_wait(client, topic, options->partitions);
    pthread_barrier_wait(&bench->start);
    for (int p = worker->number; p < options->partitions; p += options->consumers)
        if (rd_kafka_consume_start_queue(topic, p, RD_KAFKA_OFFSET_BEGINNING, queue))
            fail("consume: %s", rd_kafka_err2str(rd_kafka_last_error()));
    pthread_barrier_wait(&bench->start);
    while (!atomic_load(&bench->stop)) {
        /* What is there already; else wait for one message, which adds no delay of its own. */
        ssize_t count = rd_kafka_consume_batch_queue(queue, 0, messages, BATCH);

        if (count <= 0)
            count = rd_kafka_consume_batch_queue(queue, 10, messages, 1);
        now_ns = clock_ns();
        before = worker->received;
        for (ssize_t i = 0; i < count; i++) {
            consumed(worker, messages[i], now_ns);
            rd_kafka_message_destroy(messages[i]);
        }
        if (worker->received == before)
            continue;
        atomic_fetch_add(&bench->received, worker->received - before);
        atomic_store(&bench->received_last_ns, now_ns);
        if (!atomic_load(&bench->consume_first_ns))
            atomic_store(&bench->consume_first_ns, now_ns);
    }
    return NULL;
}

/* Waits for the end of the run; the CPU meter of pure consumers begins with their first messages.
 */
static void bench_wait(struct bench *bench)
{
    const struct options *options = bench->options;
    uint64_t seen = 0, seen_ns = clock_ns();
    uint64_t end_ns = bench->start_ns + (uint64_t)(options->seconds * 1e9);

    for (;;) {
        uint64_t received = atomic_load(&bench->received), now_ns = clock_ns();
        bool produced = !atomic_load(&bench->producing);

        if (options->producers && produced &&
            (!options->consumers || received >= atomic_load(&bench->acked)))
            return;
        if (!options->producers && (received >= options->messages || now_ns > end_ns))
            return;
        if (received != seen || !produced) {
            seen = received;
            seen_ns = now_ns;
        }
        if (now_ns - seen_ns > (uint64_t)STALL_S * SECOND_NS)
            return;
        usleep(500);
    }
}

static void result_print(const struct bench *bench, const struct worker *producers,
                         const struct worker *consumers, uint64_t busiest_ns)
{
    const struct options *options = bench->options;
    struct histogram *latency = histogram_create(), *confirm = histogram_create();
    uint64_t acked = bench->acked, received = bench->received, errors = 0, last_ns = 0;
    uint64_t messages = acked > received ? acked : received;
    double seconds;

    for (int i = 0; i < options->producers; i++) {
        histogram_merge(confirm, producers[i].confirm);
        if (producers[i].acked_last_ns > last_ns)
            last_ns = producers[i].acked_last_ns;
    }
    for (int i = 0; i < options->consumers; i++) {
        histogram_merge(latency, consumers[i].latency);
        for (int p = 0; p < options->partitions; p++)
            errors += consumers[i].orders[p].errors;
    }
    if (!options->producers)
        last_ns = bench->received_last_ns;
    seconds = (double)(last_ns - bench->start_ns) / 1e9;
    printf("{\"tool\":\"kafka\",\"library\":\"librdkafka %s\",\"mode\":\"%s\",\"size\":%zu,"
           "\"acked\":%llu,\"failed\":%llu,\"received\":%llu,\"lost\":%lld,\"order_errors\":%llu,"
           "\"rate\":%.0f,\"mb_per_s\":%.1f,\"seconds\":%.3f,\"busiest_thread\":%.2f,",
           rd_kafka_version_str(), options->mode, options->size, (unsigned long long)acked,
           (unsigned long long)bench->failed, (unsigned long long)received,
           options->producers && options->consumers ? (long long)(acked - received) : 0,
           (unsigned long long)errors, (double)messages / seconds,
           (double)messages / seconds * (double)options->size / 1e6, seconds,
           (double)busiest_ns / 1e9 / seconds);
    if (!options->producers)
        printf("\"first_ms\":%.1f,", (double)(bench->consume_first_ns - bench->start_ns) / 1e6);
    meter_print(&bench->meter, stdout, messages);
    printf(",");
    histogram_print(latency, stdout, "latency_us");
    printf(",");
    histogram_print(confirm, stdout, "confirm_us");
    printf("}\n");
    fflush(stdout);
}

static int bench_main(struct options *options)
{
    struct bench bench = {.options = options};
    pthread_t threads[2 * CLIENTS_MAX];
    struct worker *producers, *consumers;
    uint64_t busiest_ns;
    int count = 0;

    if (!strcmp(options->mode, "produce"))
        options->consumers = 0;
    if (!strcmp(options->mode, "consume"))
        options->producers = 0;
    producers = calloc((size_t)options->producers + 1, sizeof *producers);
    consumers = calloc((size_t)options->consumers + 1, sizeof *consumers);
    if (!producers || !consumers)
        fail("out of memory");
    atomic_store(&bench.producing, options->producers);
    pthread_barrier_init(&bench.start, NULL,
                         (unsigned)(options->producers + options->consumers + 1));
    for (int i = 0; i < options->consumers; i++) {
        consumers[i] = (struct worker){
            .bench = &bench,
            .number = i,
            .latency = histogram_create(),
            .orders = calloc((size_t)options->partitions, sizeof(struct order)),
        };
        if (!consumers[i].orders)
            fail("out of memory");
        pthread_create(&threads[count++], NULL, consumer_main, &consumers[i]);
    }
    for (int i = 0; i < options->producers; i++) {
        producers[i] = (struct worker){.bench = &bench, .number = i, .confirm = histogram_create()};
        pthread_create(&threads[count++], NULL, producer_main, &producers[i]);
    }
    pthread_barrier_wait(&bench.start);
    meter_init(&bench.meter, options->brokers);
    bench.start_ns = clock_ns() + (options->producers ? SECOND_NS / 10 : 0);
    if (!options->producers)
        meter_begin(&bench.meter);
    pthread_barrier_wait(&bench.start);
    if (options->producers) {
        clock_sleep_until(bench.start_ns);
        meter_begin(&bench.meter);
    }
    bench_wait(&bench);
    meter_end(&bench.meter);
    busiest_ns = cpu_busiest_thread_ns();
    result_print(&bench, producers, consumers, busiest_ns);
    /* Clients are not closed: what they would still do is not part of any measurement. */
    _exit(bench.failed || (options->producers && options->consumers && bench.received < bench.acked)
              ? 2
              : 0);
}

static int mock_main(const struct options *options)
{
    rd_kafka_conf_t *settings = rd_kafka_conf_new();
    rd_kafka_mock_cluster_t *cluster;
    rd_kafka_t *client;
    char error[512], name[300];

    setting_apply(settings, "log_level=3");
    client = rd_kafka_new(RD_KAFKA_PRODUCER, settings, error, sizeof error);
    if (!client)
        fail("%s", error);
    cluster = rd_kafka_mock_cluster_new(client, 1);
    for (int partitions = 1; partitions <= options->partitions; partitions++) {
        snprintf(name, sizeof name, "%s-%d", options->topic, partitions);
        rd_kafka_mock_topic_create(cluster, name, partitions, 1);
    }
    printf("%s\n", rd_kafka_mock_cluster_bootstraps(cluster));
    fflush(stdout);
    usleep((useconds_t)(options->seconds * 1e6));
    _exit(0);
}

static void topic_results_check(const rd_kafka_topic_result_t **results, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (rd_kafka_topic_result_error(results[i]))
            fail("%s: %s", rd_kafka_topic_result_name(results[i]),
                 rd_kafka_topic_result_error_string(results[i])
                     ? rd_kafka_topic_result_error_string(results[i])
                     : rd_kafka_err2name(rd_kafka_topic_result_error(results[i])));
}

static rd_kafka_NewTopic_t *topic_describe(const struct options *options, const char *name)
{
    rd_kafka_NewTopic_t *topic;
    char error[512];

    topic = rd_kafka_NewTopic_new(name, options->partitions, 1, error, sizeof error);
    if (!topic)
        fail("%s", error);
    for (int i = 0; i < options->topic_setting_count; i++) {
        char *pair = strdup(options->topic_settings[i]);
        char *equals = pair ? strchr(pair, '=') : NULL;

        if (!equals)
            fail("%s is not KEY=VALUE", options->topic_settings[i]);
        *equals = 0;
        rd_kafka_NewTopic_set_config(topic, pair, equals + 1);
        free(pair);
    }
    return topic;
}

/* One request for topics [first, first + count). */
static void topics_request(const struct options *options, rd_kafka_t *client, int first, int count)
{
    rd_kafka_queue_t *queue = rd_kafka_queue_new(client);
    bool create = !strcmp(options->mode, "create");
    rd_kafka_NewTopic_t *created[100];
    rd_kafka_DeleteTopic_t *deleted[100];
    rd_kafka_AdminOptions_t *admin;
    rd_kafka_event_t *event;
    const rd_kafka_topic_result_t **topics;
    char error[512];
    size_t results;

    for (int i = 0; i < count; i++) {
        char name[300];

        if (options->topics)
            snprintf(name, sizeof name, "%s-%d", options->topic, first + i);
        else
            snprintf(name, sizeof name, "%s", options->topic);
        if (create)
            created[i] = topic_describe(options, name);
        else
            deleted[i] = rd_kafka_DeleteTopic_new(name);
    }
    admin = rd_kafka_AdminOptions_new(client, create ? RD_KAFKA_ADMIN_OP_CREATETOPICS
                                                     : RD_KAFKA_ADMIN_OP_DELETETOPICS);
    rd_kafka_AdminOptions_set_request_timeout(admin, 300000, error, sizeof error);
    rd_kafka_AdminOptions_set_operation_timeout(admin, 300000, error, sizeof error);
    if (create)
        rd_kafka_CreateTopics(client, created, (size_t)count, admin, queue);
    else
        rd_kafka_DeleteTopics(client, deleted, (size_t)count, admin, queue);
    event = rd_kafka_queue_poll(queue, 310000);
    if (!event || rd_kafka_event_error(event))
        fail("%s: %s", options->mode, event ? rd_kafka_event_error_string(event) : "no answer");
    topics = create ? rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event),
                                                          &results)
                    : rd_kafka_DeleteTopics_result_topics(rd_kafka_event_DeleteTopics_result(event),
                                                          &results);
    topic_results_check(topics, results);
    rd_kafka_event_destroy(event);
    rd_kafka_AdminOptions_destroy(admin);
    if (create)
        rd_kafka_NewTopic_destroy_array(created, (size_t)count);
    else
        rd_kafka_DeleteTopic_destroy_array(deleted, (size_t)count);
    rd_kafka_queue_destroy(queue);
}

static int topics_main(const struct options *options)
{
    rd_kafka_t *client = client_create(options, RD_KAFKA_PRODUCER, NULL);
    int total = options->topics ? options->topics : 1;
    uint64_t begin_ns = clock_ns();
    double seconds;

    for (int first = 0; first < total; first += 100)
        topics_request(options, client, first, total - first < 100 ? total - first : 100);
    seconds = (double)(clock_ns() - begin_ns) / 1e9;
    printf("{\"tool\":\"kafka\",\"mode\":\"%s\",\"topics\":%d,\"partitions\":%lld,"
           "\"seconds\":%.3f}\n",
           options->mode, total, (long long)total * options->partitions, seconds);
    fflush(stdout);
    _exit(0);
}

static void options_parse(struct options *options, int count, char **arguments)
{
    int option;

    while ((option = getopt(count, arguments, "m:B:T:N:M:c:P:C:s:n:t:r:X:b:")) != -1) {
        switch (option) {
        case 'm':
            options->mode = optarg;
            break;
        case 'B':
            options->broker = optarg;
            break;
        case 'T':
            options->topic = optarg;
            break;
        case 'N':
            options->partitions = (int)option_count("-N", optarg, 1, PARTITIONS_MAX);
            break;
        case 'M':
            options->topics = (int)option_count("-M", optarg, 0, 1000000);
            break;
        case 'c':
            if (options->topic_setting_count == SETTINGS_MAX)
                fail("too many settings");
            options->topic_settings[options->topic_setting_count++] = optarg;
            break;
        case 'P':
            options->producers = (int)option_count("-P", optarg, 1, CLIENTS_MAX);
            break;
        case 'C':
            options->consumers = (int)option_count("-C", optarg, 1, CLIENTS_MAX);
            break;
        case 's':
            options->size = option_count("-s", optarg, sizeof(struct stamp), 1 << 24);
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
        case 'X':
            if (options->client_setting_count == SETTINGS_MAX)
                fail("too many settings");
            options->client_settings[options->client_setting_count++] = optarg;
            break;
        case 'b':
            options->brokers = optarg;
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
        .mode = "produce",
        .broker = "127.0.0.1:9092",
        .topic = "bench",
        .producers = 1,
        .consumers = 1,
        .partitions = 1,
        .size = 100,
        .messages = UINT64_MAX,
        .seconds = 5,
    };

    options_parse(&options, count, arguments);
    if (!strcmp(options.mode, "mock"))
        return mock_main(&options);
    if (!strcmp(options.mode, "create") || !strcmp(options.mode, "delete"))
        return topics_main(&options);
    if (strcmp(options.mode, "produce") != 0 && strcmp(options.mode, "consume") != 0 &&
        strcmp(options.mode, "flow") != 0)
        fail("no mode %s\n%s", options.mode, usage);
    return bench_main(&options);
}
