/* The rules: acknowledged and not settled means there; settled for good means gone; nothing is seen
 * that was not published; per publisher the order holds; counts of deliveries only grow. */
#include "model.h"

#include <stdlib.h>
#include <string.h>

struct model *model_create(void)
{
    struct model *model = calloc(1, sizeof *model);
    if (model == NULL)
        abort();
    return model;
}

void model_destroy(struct model *model)
{
    free(model);
}

void model_begin(struct model *model, struct world *world)
{
    model->world = world;
    model->message_count = model->batch_count = 0;
    memset(model->queues, 0, sizeof model->queues);
    for (uint32_t i = 0; i < MODEL_PARTITIONS; i++) {
        struct model_partition *partition = &model->partitions[i];
        memset(partition->known, 0, partition->known_end * sizeof *partition->known);
        partition->id = partition->trim_safe = partition->trim_sent = partition->first_seen = 0;
        partition->first_life = partition->known_end = 0;
    }
}

/* ---- Numbers and bytes ---- */

static uint64_t mix(uint64_t x)
{
    x ^= x >> 33;
    x *= UINT64_C(0xff51afd7ed558ccd);
    x ^= x >> 33;
    x *= UINT64_C(0xc4ceb9fe1a85ec53);
    return x ^ (x >> 33);
}

size_t model_body(uint32_t n, uint8_t out[MODEL_BODY_MAX])
{
    uint64_t word = mix(n + UINT64_C(0x9e3779b97f4a7c15));
    size_t len = 8 + word % 64;
    if (word >> 60 == 0)
        len += (word >> 8) % (MODEL_BODY_MAX - 80);
    memcpy(out, &n, 4);
    for (size_t i = 4; i < len; i += 8) {
        word = word * UINT64_C(6364136223846793005) + n;
        memcpy(out + i, &word, len - i < 8 ? len - i : 8);
    }
    return len;
}

uint32_t model_identify(struct slice body)
{
    uint8_t expected[MODEL_BODY_MAX];
    uint32_t n;
    if (body.len < 8)
        return UINT32_MAX;
    memcpy(&n, body.data, 4);
    size_t len = model_body(n, expected);
    return body.len == len && memcmp(body.data, expected, len) == 0 ? n : UINT32_MAX;
}

/* ---- Messages ---- */

struct message *model_publish(struct model *model, uint16_t publisher, const uint8_t *queues,
                              uint32_t count, uint32_t *number)
{
    if (model->message_count == MODEL_MESSAGES_MAX)
        return NULL;
    *number = model->message_count++;
    struct message *message = &model->messages[*number];
    *message = (struct message){.publisher = publisher, .copy_count = (uint8_t)count};
    int64_t wall_ms = sim_wall_ms(model->world->sim);
    for (uint32_t i = 0; i < count; i++) {
        const struct model_queue *queue = &model->queues[queues[i]];
        message->copies[i] = (struct copy){
            .object = queue->id,
            .queue = queues[i],
            .born = model->world->life,
            .may_be_lost = queue->uncertain || queue->lossy || queues[i] == QUEUE_UNUSED,
            .expiry_ms = queue->ttl_ms >= 0 ? wall_ms + queue->ttl_ms : INT64_MAX,
        };
    }
    return message;
}

/* The copy that the queue has delivered: its own, or a dead letter. */
static struct copy *find_copy(struct model *model, struct message *message, uint32_t queue,
                              uint64_t object)
{
    for (uint32_t i = 0; i < message->copy_count; i++) {
        struct copy *copy = &message->copies[i];
        if (copy->queue == queue && copy->object == object)
            return copy;
        if (queue == QUEUE_DEAD && model->queues[copy->queue].dead_letters)
            return copy;
    }
    return NULL;
}

struct copy *model_delivered(struct model *model, uint32_t queue, const struct delivery *delivery,
                             uint32_t n)
{
    struct world *world = model->world;
    const char *name = model->queues[queue].name;
    if (n >= model->message_count) {
        world_wrong(world, "queue %s delivered bytes that nobody published", name);
        return NULL;
    }
    struct copy *copy = find_copy(model, &model->messages[n], queue, delivery->queue);
    if (copy == NULL) {
        world_wrong(world, "message %u came out of queue %s, where it was not put", n, name);
        return NULL;
    }
    if (copy->settle_safe && copy->queue == queue)
        world_wrong(world, "message %u was settled for good and queue %s delivers it again", n,
                    name);
    bool same = copy->life > 0 && copy->queue == queue && copy->offset == delivery->offset;
    if (same && delivery->count < copy->count_safe)
        world_wrong(world, "message %u was returned %u times for good and queue %s says %u", n,
                    copy->count_safe, name, delivery->count);
    /* After a restart every message may have been delivered once: 1 stands for 0 or 1. */
    bool vague = copy->born < world->life && delivery->count == 1 && copy->count == 1;
    if (same && copy->life == world->life && delivery->count <= copy->count && !vague &&
        !world->faults.memory)
        world_wrong(world, "message %u was delivered before with count %u, now with %u", n,
                    copy->count, delivery->count);
    if (copy->queue == queue) {
        copy->life = world->life;
        copy->offset = delivery->offset;
        copy->count = delivery->count;
    }
    return copy;
}

void model_drained(struct model *model, uint32_t queue, const struct delivery *delivery, uint32_t n,
                   uint32_t *last_by_publisher)
{
    struct world *world = model->world;
    struct copy *copy = model_delivered(model, queue, delivery, n);
    if (copy == NULL)
        return;
    const struct message *message = &model->messages[n];
    bool moved = copy->queue != queue;
    if (++copy->seen > 1 && !model->queues[copy->queue].dead_letters && !message->routed)
        world_wrong(world, "message %u came %u times out of one drain", n, copy->seen);
    copy->seen_in = (uint8_t)queue;
    if (moved || message->routed)
        return;
    uint32_t *last = &last_by_publisher[message->publisher];
    /* What a broken connection had sent may be overtaken by the next one, on another shard. */
    if (*last != 0 && n < *last - 1 && model->messages[*last - 1].session == message->session)
        world_wrong(world, "queue %s: message %u of publisher %u came behind %u",
                    model->queues[queue].name, n, message->publisher, *last - 1);
    *last = n + 1;
}

static void each_copy(struct model *model, uint32_t queue, void (*each)(struct copy *copy))
{
    for (uint32_t n = 0; n < model->message_count; n++) {
        struct message *message = &model->messages[n];
        for (uint32_t i = 0; i < message->copy_count; i++) {
            if (message->copies[i].queue == queue)
                each(&message->copies[i]);
        }
    }
}

void model_forget_drained(struct model *model, uint32_t queue)
{
    for (uint32_t n = 0; n < model->message_count; n++) {
        struct message *message = &model->messages[n];
        for (uint32_t i = 0; i < message->copy_count; i++) {
            if (message->copies[i].seen > 0 && message->copies[i].seen_in == queue)
                message->copies[i].seen--;
        }
    }
}

static void may_be_lost(struct copy *copy)
{
    copy->may_be_lost = true;
}

void model_uncertain(struct model *model, uint32_t queue)
{
    model->queues[queue].uncertain = true;
    each_copy(model, queue, may_be_lost);
}

void model_lossy(struct model *model, uint32_t queue)
{
    for (uint32_t i = 0; i < MODEL_QUEUES; i++) {
        if (i == queue || (queue == QUEUE_DEAD && model->queues[i].dead_letters)) {
            model->queues[i].lossy = true;
            each_copy(model, i, may_be_lost);
        }
    }
}

static bool must_be_there(const struct model *model, const struct message *message,
                          const struct copy *copy)
{
    bool dead_letters = model->queues[copy->queue].dead_letters;
    bool expired = !dead_letters && copy->expiry_ms <= model->world->wall_max_ms;
    return message->confirmed && message->persistent && !copy->settle_sent && !copy->may_be_lost &&
           !expired;
}

uint64_t model_most(const struct model *model, uint32_t queue)
{
    uint64_t most = 0;
    for (uint32_t n = 0; n < model->message_count; n++) {
        const struct message *message = &model->messages[n];
        for (uint32_t i = 0; i < message->copy_count; i++) {
            const struct copy *copy = &message->copies[i];
            bool moves = queue == QUEUE_DEAD && model->queues[copy->queue].dead_letters;
            if (copy->queue != queue && !moves)
                continue;
            if (message->routed || copy->queue != queue)
                return UINT64_MAX; /* those may come twice */
            most += !copy->settle_safe;
        }
    }
    return most;
}

void model_check_messages(struct model *model)
{
    for (uint32_t n = 0; n < model->message_count; n++) {
        const struct message *message = &model->messages[n];
        for (uint32_t i = 0; i < message->copy_count; i++) {
            const struct copy *copy = &message->copies[i];
            if (must_be_there(model, message, copy) && copy->seen == 0)
                world_wrong(model->world,
                            "message %u of publisher %u was confirmed and is not in queue %s", n,
                            message->publisher, model->queues[copy->queue].name);
        }
    }
}

/* ---- Batches ---- */

struct batch *model_append(struct model *model, uint16_t producer, uint32_t partition,
                           uint32_t *number)
{
    if (model->batch_count == MODEL_BATCHES_MAX)
        return NULL;
    *number = model->batch_count++;
    struct batch *batch = &model->batches[*number];
    *batch = (struct batch){.producer = producer,
                            .partition = (uint8_t)partition,
                            .offset = -1,
                            .time_ms = sim_wall_ms(model->world->sim)};
    return batch;
}

void model_saw_batch(struct model *model, uint32_t number, uint64_t offset, uint32_t n)
{
    struct world *world = model->world;
    struct model_partition *partition = &model->partitions[number];
    if (n >= model->batch_count || model->batches[n].partition != number ||
        offset >= MODEL_OFFSETS_MAX) {
        world_wrong(world, "partition %u has something at %llu that nobody appended", number,
                    (unsigned long long)offset);
        return;
    }
    uint32_t *known = &partition->known[offset];
    if (*known != 0 && *known != n + 1)
        world_wrong(world, "offset %llu of partition %u was batch %u and is now %u",
                    (unsigned long long)offset, number, *known - 1, n);
    *known = n + 1;
    if (partition->known_end <= offset)
        partition->known_end = (uint32_t)offset + 1;
    const struct batch *batch = &model->batches[n];
    if (batch->acked && batch->offset >= 0 && batch->offset != (int64_t)offset)
        world_wrong(world, "batch %u was acknowledged at %lld and stands at %llu", n,
                    (long long)batch->offset, (unsigned long long)offset);
}

void model_saw_first(struct model *model, uint32_t number, uint64_t first, uint64_t trimmed)
{
    struct model_partition *partition = &model->partitions[number];
    struct world *world = model->world;
    if (first < trimmed)
        world_wrong(world, "partition %u: records below %llu were deleted, its first is %llu",
                    number, (unsigned long long)trimmed, (unsigned long long)first);
    if (partition->first_life == world->life && first < partition->first_seen)
        world_wrong(world, "partition %u: its first offset was %llu and is %llu", number,
                    (unsigned long long)partition->first_seen, (unsigned long long)first);
    partition->first_life = world->life;
    partition->first_seen = first;
}

/* May retention have dropped it? The partition must hold more than is kept (it then goes by blocks
 * of extents, so perhaps with more than need be), or it must be old enough. */
static bool beyond_retention(const struct model *model, const struct batch *batch)
{
    if (batch->partition / MODEL_TOPIC_PARTITIONS != TOPIC_RETAINED)
        return false;
    if (model->retention_ms >= 0 &&
        batch->time_ms + model->retention_ms <= model->world->wall_max_ms)
        return true;
    int64_t bytes = 0;
    for (uint32_t n = 0; n < model->batch_count; n++) {
        const struct batch *other = &model->batches[n];
        if (other->partition == batch->partition)
            bytes += other->bytes;
    }
    return model->retention_bytes >= 0 && bytes > model->retention_bytes;
}

void model_check_batches(struct model *model)
{
    for (uint32_t n = 0; n < model->batch_count; n++) {
        const struct batch *batch = &model->batches[n];
        const struct model_partition *partition = &model->partitions[batch->partition];
        if (batch->seen > 1)
            world_wrong(model->world, "batch %u was appended %u times", n, batch->seen);
        if (!batch->acked || batch->seen > 0)
            continue;
        if (batch->offset < (int64_t)partition->trim_sent)
            continue;
        if (!beyond_retention(model, batch))
            world_wrong(model->world,
                        "batch %u at offset %lld of partition %u was acknowledged and is gone", n,
                        (long long)batch->offset, batch->partition);
        else
            model->world->totals->retained++;
    }
}
