/* The rules: acknowledged and not settled means there; settled for good means gone; nothing is seen
 * that was not published; per publisher the order holds. */
#include "model.h"

#include <stdlib.h>
#include <string.h>

struct model *model_create(struct world *world)
{
    struct model *model = calloc(1, sizeof *model);
    if (model == NULL)
        abort();
    model->world = world;
    return model;
}

void model_destroy(struct model *model)
{
    free(model);
}

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
    size_t len = 8 + mix(n) % (MODEL_BODY_MAX - 8);
    memcpy(out, &n, 4);
    uint32_t len32 = (uint32_t)len;
    memcpy(out + 4, &len32, 4);
    for (size_t i = 8; i < len; i++)
        out[i] = (uint8_t)mix(((uint64_t)n << 16) + i);
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

void model_drained(struct model *model, uint32_t queue, uint32_t n, uint32_t *last_by_publisher)
{
    struct world *world = model->world;
    if (n >= model->message_count) {
        world_wrong(world,
                    "queue %u delivered a message that nobody published or whose bytes changed",
                    queue);
        return;
    }
    struct message *message = &model->messages[n];
    bool moved = message->queue != queue;
    if (moved && !(queue == 0 && model->dead_letters[message->queue]))
        world_wrong(world, "message %u of queue %u came out of queue %u", n, message->queue, queue);
    if (message->settle_safe && !moved)
        world_wrong(world, "message %u was settled for good and came back", n);
    if (++message->seen > 1 && !model->dead_letters[message->queue])
        world_wrong(world, "message %u came %u times out of one drain", n, message->seen);
    message->seen_in = (uint8_t)queue;
    if (!moved) {
        uint32_t *last = &last_by_publisher[message->publisher];
        if (*last != 0 && n < *last - 1)
            world_wrong(world, "queue %u: message %u of publisher %u came behind %u", queue, n,
                        message->publisher, *last - 1);
        *last = n + 1;
    }
}

void model_forget_drained(struct model *model, uint32_t queue)
{
    for (uint32_t n = 0; n < model->message_count; n++) {
        if (model->messages[n].seen > 0 && model->messages[n].seen_in == queue)
            model->messages[n].seen--;
    }
}

void model_forget_seen(struct model *model)
{
    for (uint32_t n = 0; n < model->batch_count; n++)
        model->batches[n].seen = 0;
}

void model_check_messages(struct model *model)
{
    for (uint32_t n = 0; n < model->message_count; n++) {
        const struct message *message = &model->messages[n];
        if (message->confirmed && message->persistent && !message->settle_sent &&
            !message->may_be_lost && message->seen == 0)
            world_wrong(model->world,
                        "message %u of publisher %u was confirmed and is not in queue %u", n,
                        message->publisher, message->queue);
    }
}

void model_check_batches(struct model *model)
{
    for (uint32_t n = 0; n < model->batch_count; n++) {
        const struct batch *batch = &model->batches[n];
        if (batch->acked && batch->seen == 0)
            world_wrong(model->world,
                        "batch %u at offset %lld of partition %u was acknowledged and is gone", n,
                        (long long)batch->offset, batch->partition);
        if (batch->seen > 1)
            world_wrong(model->world, "batch %u was appended %u times", n, batch->seen);
    }
}
