/* All clients together: what they do at the start of a life, and the drain in which everything is
 * judged. */
#include "clients_inside.h"

#include "inspect.h"

#include <stdlib.h>
#include <string.h>

enum { PREPARE_MS = 2000, DRAIN_MS = 60000, QUIET_MS = 120, IDLE_MS = 2000 };

struct clients *clients_create(void)
{
    struct clients *clients = calloc(1, sizeof *clients);
    if (clients == NULL)
        abort();
    return clients;
}

void clients_destroy(struct clients *clients)
{
    free(clients);
}

void clients_begin(struct clients *clients, struct world *world, struct model *model)
{
    memset(clients, 0, sizeof *clients);
    clients->world = world;
    clients->model = model;
    for (uint16_t i = 0; i < PUBLISHERS; i++) {
        clients->publishers[i].clients = clients;
        publisher_init(&clients->publishers[i], i);
        world_add(world, &clients->publishers[i].probe);
    }
    for (uint16_t i = 0; i < CONSUMERS; i++) {
        clients->consumers[i].publisher.clients = clients;
        consumer_init(&clients->consumers[i], i);
        world_add(world, &clients->consumers[i].publisher.probe);
    }
    for (uint16_t i = 0; i < PRODUCERS; i++) {
        clients->producers[i].clients = clients;
        producer_init(&clients->producers[i], i);
        world_add(world, &clients->producers[i].probe);
    }
    for (uint32_t i = 0; i < MEMBERS; i++) {
        clients->members[i].clients = clients;
        member_init(&clients->members[i], i);
        world_add(world, &clients->members[i].probe);
    }
    clients->reader.clients = clients;
    reader_init(&clients->reader);
    world_add(world, &clients->reader.probe);
    clients->administrator.clients = clients;
    administrator_init(&clients->administrator);
    administrator_choose(&clients->administrator);
    world_add(world, &clients->administrator.probe);
    for (uint32_t i = 0; i < MODEL_TOPIC_PARTITIONS; i++)
        commits_begin(&clients->group_commits[i]);
    commits_begin(&clients->lone_commits);
}

/* What is true of one life only. */
static void begin_life(struct clients *clients)
{
    clients->generation = 0;
    for (uint32_t i = 0; i < MEMBERS; i++) {
        clients->members[i].stable = false;
        clients->members[i].generation = -1;
    }
    for (uint32_t i = 0; i < MODEL_QUEUES; i++)
        clients->model->queues[i].uncertain = clients->model->queues[i].lossy = false;
}

bool clients_prepare(struct clients *clients)
{
    struct administrator *self = &clients->administrator;
    struct world *world = clients->world;
    begin_life(clients);
    self->done = self->asked = 0;
    self->preparing = true;
    for (int i = 0; i < PREPARE_MS && !administrator_is_done(self) && !world_ended(world); i++) {
        if (i % 16 == 0)
            world_poke(&self->probe);
        world_run(world, 1);
    }
    self->preparing = false;
    if (administrator_is_done(self))
        return true;
    if (!world_ended(world) && !world->faults.memory && !world->faults.disk_full)
        world_wrong(world, "declarations are not answered");
    return false;
}

void clients_work(struct clients *clients, uint32_t acts)
{
    struct world *world = clients->world;
    for (uint32_t i = 0; i < world->probe_count; i++)
        world->probes[i]->wanted = true;
    clients->working = true;
    world_act(world, acts);
    clients->working = false;
}

/* ---- The drain ---- */

static void hang_up_all(struct clients *clients)
{
    struct world *world = clients->world;
    for (uint32_t i = 0; i < world->probe_count; i++)
        world_hang_up(world->probes[i], true);
    world_run(world, QUIET_MS);
}

static void retry_batches(struct clients *clients)
{
    struct world *world = clients->world;
    for (int i = 0; i < DRAIN_MS && world->wrong == NULL; i++) {
        bool done = true;
        for (int j = 0; j < PRODUCERS; j++) {
            bool this_done = producer_is_done(&clients->producers[j]);
            if (!this_done && i % 100 == 0)
                world_poke(&clients->producers[j].probe);
            done = done && this_done;
        }
        if (done)
            return;
        world_run(world, 1);
    }
    world_wrong(world, "batches are not acknowledged");
}

/* Times to live go by; what has one has gone then. */
static void outlive(struct clients *clients)
{
    struct world *world = clients->world;
    const struct model *model = clients->model;
    world_run(world, world->wall_max_ms - sim_wall_ms(world->sim) + 250);
    for (uint32_t i = QUEUE_FADING; i <= QUEUE_EXPIRING; i++) {
        struct inspect_queue queue = {0};
        for (int ms = 0; ms < DRAIN_MS && world->wrong == NULL; ms += 50) {
            if (!inspect_queue(world, model->queues[i].id, &queue) || queue.count == 0)
                break;
            world_run(world, 50);
        }
        if (queue.count > 0)
            world_wrong(world, "queue %s: %llu messages outlive their time", model->queues[i].name,
                        (unsigned long long)queue.count);
    }
}

static void check_size(struct clients *clients, uint32_t i, const struct inspect_queue *queue)
{
    uint64_t most = model_most(clients->model, i);
    if (queue->leased > 0)
        world_wrong(clients->world, "queue %s: %llu messages are leased, and nobody is there",
                    clients->model->queues[i].name, (unsigned long long)queue->leased);
    if (queue->count > most)
        world_wrong(clients->world, "queue %s holds %llu messages; it may hold %llu",
                    clients->model->queues[i].name, (unsigned long long)queue->count,
                    (unsigned long long)most);
}

static void drain_queue(struct clients *clients, uint32_t i)
{
    struct world *world = clients->world;
    struct consumer *consumer = &clients->consumers[0];
    uint64_t id = clients->model->queues[i].id;
    const char *name = clients->model->queues[i].name;
    struct inspect_queue queue;
    if (!inspect_queue(world, id, &queue))
        return;
    check_size(clients, i, &queue);
    if (queue.count == 0)
        return;
    consumer->queue = i;
    consumer->draining = true;
    consumer->drained = 0;
    world_poke(&consumer->publisher.probe);
    int ms = 0;
    do {
        world_run(world, 1);
    } while (inspect_queue(world, id, &queue) && world->wrong == NULL && ++ms < DRAIN_MS &&
             (consumer->drained < queue.count || queue.leased < queue.count));
    if (consumer->drained != queue.count && i != QUEUE_UNUSED)
        world_wrong(world, "queue %s holds %llu messages and gives %llu", name,
                    (unsigned long long)queue.count, (unsigned long long)consumer->drained);
    consumer_settle_all(consumer);
    while (inspect_queue(world, id, &queue) && world->wrong == NULL && ++ms < DRAIN_MS &&
           queue.count > 0)
        world_run(world, 1);
    if (inspect_queue(world, id, &queue) && queue.count > 0)
        world_wrong(world, "queue %s: %llu messages cannot be settled", name,
                    (unsigned long long)queue.count);
    world_hang_up(&consumer->publisher.probe, true);
    world_run(world, 2);
}

/* What was cut off is sent again, then everything is read from the start. */
static void read_topics(struct clients *clients)
{
    struct world *world = clients->world;
    reader_check(&clients->reader);
    for (int i = 0; i < DRAIN_MS && !reader_is_done(&clients->reader) && world->wrong == NULL; i++)
        world_run(world, 1);
    if (!reader_is_done(&clients->reader))
        world_wrong(world, "the topics cannot be read to their ends");
    model_check_batches(clients->model);
}

static void fetch_offsets(struct clients *clients)
{
    struct member_probe *member = &clients->members[0];
    struct world *world = clients->world;
    world_poke(&member->probe);
    world_run(world, 2);
    for (uint32_t p = 0; p < MODEL_TOPIC_PARTITIONS && member->probe.conn != NULL; p++)
        member_fetch(member, p);
    struct administrator *administrator = &clients->administrator;
    world_poke(&administrator->probe);
    world_run(world, 2);
    if (administrator->probe.conn != NULL)
        administrator_fetch(administrator);
    world_run(world, QUIET_MS);
}

/* Something may still be under way, but not for long. */
static void check_idle(struct world *world)
{
    world->doubtful = true;
    for (int ms = 0; ms < IDLE_MS; ms += 20) {
        world->doubts = 0;
        inspect_owners(world);
        inspect_idle(world);
        if (world->doubts == 0)
            break;
        world_run(world, 20);
    }
    world->doubtful = false;
    inspect_owners(world);
    inspect_idle(world);
}

void clients_drain(struct clients *clients)
{
    struct world *world = clients->world;
    /* Connections of before may be on their way: none of them takes messages. */
    hang_up_all(clients);
    inspect_owners(world);
    retry_batches(clients);
    outlive(clients);
    for (uint32_t i = MODEL_QUEUES; i-- > 0 && world->wrong == NULL;)
        drain_queue(clients, i); /* last the one of the dead letters */
    if (world->wrong == NULL)
        model_check_messages(clients->model);
    if (world->wrong == NULL)
        read_topics(clients);
    if (world->wrong == NULL)
        fetch_offsets(clients);
    hang_up_all(clients);
    if (world->wrong == NULL)
        check_idle(world);
}
