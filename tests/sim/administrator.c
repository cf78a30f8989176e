/* Declares everything at the start of a life; later purges, deletes and declares again, trims
 * topics, commits and fetches offsets for a group without members, and asks for producer ids. One
 * thing at a time. */
#include "clients_inside.h"

#include "alloc.h"

#include <stdio.h>
#include <string.h>

enum {
    DEFINE_TOPICS = MODEL_QUEUES,
    DEFINE_EXCHANGE = DEFINE_TOPICS + MODEL_TOPICS,
    DEFINE_BINDINGS,
    DEFINE_ROUTE = DEFINE_BINDINGS + MODEL_COPIES_MAX,
    DEFINITIONS,
};

enum {
    TAG_DEFINE = 1, /* and those behind it */
    TAG_PURGE = 100,
    TAG_DELETE,
    TAG_AGAIN, /* and those behind it: a queue is declared again */
    TAG_TRIM = 200,
    TAG_COMMIT = 300,
    TAG_FETCH,
    TAG_PRODUCER_ID,
};

static const char *const queue_names[MODEL_QUEUES] = {"dead",   "limited", "fading",  "expiring",
                                                      "purged", "takes",   "deleted", "unused"};
static const char *const topic_names[MODEL_TOPICS] = {"plain", "routed", "retained"};

void administrator_choose(struct administrator *administrator)
{
    struct model *model = administrator->clients->model;
    struct world *world = model->world;
    for (uint32_t i = 0; i < MODEL_QUEUES; i++) {
        model->queues[i] = (struct model_queue){
            .name = queue_names[i], .ttl_ms = -1, .expires_ms = -1, .delivery_limit = -1};
    }
    model->queues[QUEUE_LIMITED].dead_letters = true;
    if (world_random(world, 2) == 0)
        model->queues[QUEUE_LIMITED].delivery_limit = world_random(world, 4);
    model->queues[QUEUE_FADING].dead_letters = true;
    model->queues[QUEUE_FADING].ttl_ms = world_random(world, 200);
    model->queues[QUEUE_EXPIRING].ttl_ms = world_random(world, 200);
    model->queues[QUEUE_UNUSED].expires_ms = 20 + world_random(world, 1000);
    model->retention_bytes = world_random(world, 3) == 0 ? -1 : (int64_t)world_random(world, 4096);
    model->retention_ms = world_random(world, 3) == 0 ? -1 : (int64_t)world_random(world, 40000);
    model->no_acks = world_random(world, 8) == 0;
    administrator->producer_ids = 0;
}

/* ---- Requests ---- */

struct asked {
    struct parts *parts;
    struct catalog_request *request;
    struct arg *args;
};

static struct asked begin(enum catalog_op op, const char *name)
{
    struct asked asked = {.parts = parts_create(1 << 16)};
    asked.request = arena_alloc(&asked.parts->arena, sizeof *asked.request);
    asked.args = arena_alloc(&asked.parts->arena, 8 * sizeof *asked.args);
    *asked.request = (struct catalog_request){.op = op, .name = slice_of(name), .durable = true};
    asked.request->args.items = asked.args;
    asked.parts->root = asked.request;
    return asked;
}

static void add_number(struct asked *asked, const char *name, int64_t number)
{
    if (number >= 0)
        asked->args[asked->request->args.count++] = (struct arg){
            .name = slice_of(name), .kind = ARG_INT, .wire_type = 'l', .number = number};
}

static void add_text(struct asked *asked, const char *name, const char *text)
{
    asked->args[asked->request->args.count++] = (struct arg){
        .name = slice_of(name), .kind = ARG_TEXT, .wire_type = 'S', .text = slice_of(text)};
}

static void add_config(struct asked *asked, const char *name, int64_t number)
{
    char *text = arena_alloc(&asked->parts->arena, 32);
    snprintf(text, 32, "%lld", (long long)number);
    if (number >= 0)
        add_text(asked, name, text);
}

static struct asked ask_queue(const struct model_queue *queue)
{
    struct asked asked = begin(CATALOG_DECLARE_QUEUE, queue->name);
    if (queue->dead_letters) {
        add_text(&asked, "x-dead-letter-exchange", "");
        add_text(&asked, "x-dead-letter-routing-key", queue_names[QUEUE_DEAD]);
    }
    add_number(&asked, "x-message-ttl", queue->ttl_ms);
    add_number(&asked, "x-expires", queue->expires_ms);
    add_number(&asked, "x-delivery-limit", queue->delivery_limit);
    return asked;
}

static struct asked ask_topic(const struct model *model, uint32_t i)
{
    struct asked asked = begin(CATALOG_CREATE_TOPIC, topic_names[i]);
    asked.request->partitions = MODEL_TOPIC_PARTITIONS;
    asked.request->uuid[0] = (uint8_t)(1 + i);
    if (i == TOPIC_RETAINED) {
        add_config(&asked, "retention.bytes", model->retention_bytes);
        add_config(&asked, "retention.ms", model->retention_ms);
    }
    return asked;
}

static struct asked ask_binding(const char *from, uint32_t queue, const char *key)
{
    struct asked asked = begin(CATALOG_BIND, from);
    asked.request->target_kind = TARGET_QUEUE;
    asked.request->target = slice_of(queue_names[queue]);
    asked.request->key = slice_of(key);
    return asked;
}

static struct asked ask_definition(const struct model *model, uint32_t i)
{
    static const uint8_t bound[MODEL_COPIES_MAX] = {QUEUE_LIMITED, QUEUE_PURGED, QUEUE_ROUTED};
    if (i < DEFINE_TOPICS)
        return ask_queue(&model->queues[i]);
    if (i < DEFINE_EXCHANGE)
        return ask_topic(model, i - DEFINE_TOPICS);
    if (i >= DEFINE_BINDINGS)
        return i == DEFINE_ROUTE ? ask_binding(topic_names[TOPIC_ROUTED], QUEUE_ROUTED, "#")
                                 : ask_binding("x", bound[i - DEFINE_BINDINGS], "");
    struct asked asked = begin(CATALOG_DECLARE_EXCHANGE, "x");
    asked.request->type = EXCHANGE_FANOUT;
    return asked;
}

static void define(struct administrator *self, uint64_t tag, uint32_t i)
{
    alloc_hold();
    struct asked asked = ask_definition(self->clients->model, i);
    alloc_release();
    struct command command = {.type = COMMAND_CATALOG, .asker = {.tag = tag}, .parts = asked.parts};
    conn_command(self->probe.conn, &command);
}

static void define_more(struct administrator *self)
{
    bool first_done = (self->done & ((UINT64_C(1) << DEFINE_BINDINGS) - 1)) ==
                      (UINT64_C(1) << DEFINE_BINDINGS) - 1;
    uint32_t end = first_done ? DEFINITIONS : DEFINE_BINDINGS;
    for (uint32_t i = 0; i < end; i++) {
        if (((self->done | self->asked) >> i & 1) == 0) {
            self->asked |= UINT64_C(1) << i;
            define(self, TAG_DEFINE + i, i);
        }
    }
}

bool administrator_is_done(const struct administrator *administrator)
{
    return administrator->done == (UINT64_C(1) << DEFINITIONS) - 1;
}

/* ---- At work ---- */

static void tell(struct administrator *self, enum command_type type, uint64_t tag, uint64_t object)
{
    struct command command = {.type = type, .asker = {.tag = tag}, .object = object};
    command.offsets.offset = self->trim;
    self->busy = tag;
    conn_command(self->probe.conn, &command);
}

static void look_after_queues(struct administrator *self)
{
    struct model *model = self->clients->model;
    struct world *world = model->world;
    for (uint32_t i = QUEUE_DELETED; i <= QUEUE_UNUSED; i++) {
        if (catalog_queue(conn_catalog(self->probe.conn), 0, slice_of(queue_names[i])) != NULL)
            continue;
        world->totals->vanished += i == QUEUE_UNUSED;
        self->busy = TAG_AGAIN + i;
        define(self, self->busy, i);
        return;
    }
}

static void purge_or_delete(struct administrator *self, uint32_t queue, enum command_type type,
                            uint64_t tag)
{
    struct model *model = self->clients->model;
    world_tell(model->world, "%s %s %s", self->probe.name,
               type == COMMAND_PURGE ? "purges" : "deletes", queue_names[queue]);
    model_uncertain(model, queue);
    tell(self, type, tag, model->queues[queue].id);
}

static void trim(struct administrator *self, uint32_t partition)
{
    struct model_partition *it = &self->clients->model->partitions[partition];
    if (it->known_end == 0)
        return;
    self->trim = world_random(self->probe.world, it->known_end);
    if (it->trim_sent < self->trim)
        it->trim_sent = self->trim;
    world_tell(self->probe.world, "%s trims partition %u to %llu", self->probe.name, partition,
               (unsigned long long)self->trim);
    tell(self, COMMAND_TRIM, TAG_TRIM + partition, it->id);
}

static void commit(struct administrator *self)
{
    int64_t value = commits_send(&self->clients->lone_commits);
    if (value < 0)
        return;
    self->committing = value;
    self->busy = TAG_COMMIT;
    offsets_ask(&self->probe, TAG_COMMIT, GROUP_COMMIT, "lone", "", -1, 0, value);
}

void administrator_fetch(struct administrator *self)
{
    self->busy = TAG_FETCH;
    offsets_ask(&self->probe, TAG_FETCH, GROUP_OFFSETS, "lone", "", -1, 0, 0);
}

static void act(struct probe *probe)
{
    struct administrator *self = (struct administrator *)probe;
    struct world *world = probe->world;
    if (self->preparing) {
        define_more(self);
        return;
    }
    if (!self->clients->working || self->busy != 0)
        return;
    uint32_t dice = world_random(world, 16);
    if (dice < 3)
        look_after_queues(self);
    else if (dice == 3)
        purge_or_delete(self, QUEUE_PURGED, COMMAND_PURGE, TAG_PURGE);
    else if (dice == 4 && self->clients->model->queues[QUEUE_DELETED].id != 0)
        purge_or_delete(self, QUEUE_DELETED, COMMAND_DELETE_QUEUE, TAG_DELETE);
    else if (dice == 5)
        trim(self,
             TOPIC_RETAINED * MODEL_TOPIC_PARTITIONS + world_random(world, MODEL_TOPIC_PARTITIONS));
    else if (dice == 6)
        tell(self, COMMAND_PRODUCER_ID, TAG_PRODUCER_ID, 0);
    else if (dice < 12)
        commit(self);
    else
        administrator_fetch(self);
}

/* ---- Answers ---- */

static void queue_defined(struct administrator *self, uint32_t i, uint64_t id)
{
    struct model_queue *queue = &self->clients->model->queues[i];
    bool may_change = i == QUEUE_DELETED || i == QUEUE_UNUSED;
    if (queue->id != 0 && queue->id != id && !may_change)
        world_wrong(self->probe.world, "queue %s was lost", queue->name);
    queue->id = id;
}

static void topic_defined(struct administrator *self, uint32_t i)
{
    struct model *model = self->clients->model;
    const struct topic *topic =
        catalog_topic(conn_catalog(self->probe.conn), 0, slice_of(topic_names[i]));
    for (uint32_t p = 0; p < MODEL_TOPIC_PARTITIONS; p++) {
        uint64_t *id = &model->partitions[i * MODEL_TOPIC_PARTITIONS + p].id;
        if (topic == NULL || (*id != 0 && *id != topic->partitions[p]))
            world_wrong(model->world, "topic %s was lost", topic_names[i]);
        else
            *id = topic->partitions[p];
    }
}

static void defined(struct administrator *self, uint32_t i, const struct event *event)
{
    struct world *world = self->probe.world;
    bool topic = i >= DEFINE_TOPICS && i < DEFINE_EXCHANGE;
    self->asked &= ~(UINT64_C(1) << i);
    if (event->err != ERR_NONE && !(topic && event->err == ERR_EXISTS)) {
        if (!world_excuses(world, event->err))
            world_wrong(world, "definition %u: %s %.*s", i, err_text(event->err),
                        (int)event->detail.len, (const char *)event->detail.data);
        return;
    }
    if (i < DEFINE_TOPICS)
        queue_defined(self, i, event->value);
    else if (topic)
        topic_defined(self, i - DEFINE_TOPICS);
    self->done |= UINT64_C(1) << i;
    define_more(self);
}

static void trimmed(struct administrator *self, uint32_t partition, const struct event *event)
{
    struct model_partition *it = &self->clients->model->partitions[partition];
    if (it->trim_safe < self->trim)
        it->trim_safe = self->trim;
    self->probe.world->totals->trimmed++;
    if (event->value < self->trim)
        world_wrong(self->probe.world, "partition %u was trimmed to %llu and begins at %llu",
                    partition, (unsigned long long)self->trim, (unsigned long long)event->value);
}

static void producer_id(struct administrator *self, uint64_t id)
{
    if (id + 1 <= self->producer_ids)
        world_wrong(self->probe.world, "producer id %llu was given out before",
                    (unsigned long long)id);
    self->producer_ids = id + 1;
}

static void succeeded(struct administrator *self, uint64_t tag, const struct event *event)
{
    struct clients *clients = self->clients;
    struct model *model = clients->model;
    struct totals *totals = model->world->totals;
    if (tag == TAG_PURGE) {
        model->queues[QUEUE_PURGED].uncertain = false;
        totals->purged++;
    } else if (tag == TAG_DELETE) {
        totals->deleted++;
        model->queues[QUEUE_DELETED].id = 0;
        self->busy = TAG_AGAIN + QUEUE_DELETED;
        define(self, self->busy, QUEUE_DELETED);
    } else if (tag >= TAG_AGAIN && tag < TAG_AGAIN + MODEL_QUEUES) {
        queue_defined(self, (uint32_t)(tag - TAG_AGAIN), event->value);
        model->queues[QUEUE_DELETED].uncertain &= tag != TAG_AGAIN + QUEUE_DELETED;
    } else if (tag == TAG_COMMIT) {
        commits_acked(&clients->lone_commits, self->committing);
        totals->committed++;
    } else if (tag == TAG_FETCH && event->parts != NULL) {
        const struct group_answer *answer = event->parts->root;
        int64_t value = answer->offset_count == 1 ? answer->offsets[0].offset : -1;
        commits_check(model->world, &clients->lone_commits, "the lone group", value);
        totals->fetched++;
    } else if (tag == TAG_PRODUCER_ID) {
        producer_id(self, event->value);
    }
}

static void event(struct probe *probe, const struct event *event)
{
    struct administrator *self = (struct administrator *)probe;
    uint64_t tag = event->asker.tag;
    if (event->type != EVENT_ANSWER)
        return;
    if (tag < TAG_PURGE) {
        defined(self, (uint32_t)(tag - TAG_DEFINE), event);
        return;
    }
    self->busy = 0;
    bool gone = event->err == ERR_NOT_FOUND || event->err == ERR_GROUP_NOT_FOUND;
    if (tag >= TAG_TRIM && tag < TAG_TRIM + MODEL_PARTITIONS && event->err == ERR_NONE)
        trimmed(self, (uint32_t)(tag - TAG_TRIM), event);
    else if (event->err == ERR_NONE)
        succeeded(self, tag, event);
    else if (!gone && !world_excuses(probe->world, event->err))
        world_wrong(probe->world, "the administrator's request %llu: %s", (unsigned long long)tag,
                    err_text(event->err));
}

static void opened(struct probe *probe)
{
    struct administrator *self = (struct administrator *)probe;
    self->asked = 0;
    self->busy = 0;
}

void administrator_init(struct administrator *administrator)
{
    administrator->probe.name = "administrator";
    administrator->probe.opened = opened;
    administrator->probe.act = act;
    administrator->probe.event = event;
    administrator->probe.lost = opened;
}
