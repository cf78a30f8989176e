/* Sequences count messages per producer and partition, from 0, and wrap behind 2^31 - 1. The stored
 * form is u32 n, n x {i64 id, i16 epoch, u8 batches, i64 time ms, batches x {i32 sequence, u32
 * count, u64 base}}. */
#include "core/producer.h"

#include <stdlib.h>

struct seen {
    int32_t sequence;
    uint32_t count;
    uint64_t base;
};

struct producer {
    int16_t epoch;
    uint8_t batches; /* in use of last, the newest at the end */
    int64_t time_ms;
    struct seen last[PRODUCER_BATCHES];
};

static uint64_t key_of(int64_t producer_id)
{
    return (uint64_t)producer_id + 1;
}

/* The sequence that follows count messages from `sequence`. */
static int32_t advance(int32_t sequence, uint32_t count)
{
    return (int32_t)(((uint64_t)sequence + count) & INT32_MAX);
}

enum err producers_check(const struct producers *producers, const struct producer_batch *batch,
                         uint64_t *base)
{
    const struct producer *producer = map_get(&producers->table, key_of(batch->producer_id));
    if (producer == NULL)
        return ERR_NONE; /* never seen or forgotten: any sequence may begin */
    if (batch->epoch < producer->epoch)
        return ERR_FENCED;
    if (batch->epoch > producer->epoch)
        return batch->sequence == 0 ? ERR_NONE : ERR_OUT_OF_ORDER;
    for (int i = 0; i < producer->batches; i++) {
        if (producer->last[i].sequence == batch->sequence &&
            producer->last[i].count == batch->count) {
            *base = producer->last[i].base;
            return ERR_DUPLICATE;
        }
    }
    if (producer->batches == 0)
        return ERR_NONE;
    const struct seen *newest = &producer->last[producer->batches - 1];
    /* An older one than those remembered may have been refused as well as appended: clients take
     * "duplicate" for success. */
    return batch->sequence == advance(newest->sequence, newest->count) ? ERR_NONE
                                                                       : ERR_OUT_OF_ORDER;
}

static struct producer *find_or_add(struct producers *producers, int64_t id)
{
    struct producer *producer = map_get(&producers->table, key_of(id));
    if (producer != NULL)
        return producer;
    producer = calloc(1, sizeof *producer);
    if (producer != NULL && !map_put(&producers->table, key_of(id), producer)) {
        free(producer);
        return NULL;
    }
    return producer;
}

enum err producers_note(struct producers *producers, const struct producer_batch *batch,
                        int64_t time_ms)
{
    struct producer *producer = find_or_add(producers, batch->producer_id);
    if (producer == NULL)
        return ERR_NO_MEMORY;
    if (producer->epoch != batch->epoch) {
        producer->epoch = batch->epoch;
        producer->batches = 0;
    }
    producer->time_ms = time_ms;
    if (producer->batches == PRODUCER_BATCHES) {
        for (int i = 1; i < PRODUCER_BATCHES; i++)
            producer->last[i - 1] = producer->last[i];
        producer->batches--;
    }
    producer->last[producer->batches++] = (struct seen){batch->sequence, batch->count, batch->base};
    return ERR_NONE;
}

void producers_expire(struct producers *producers, int64_t before_ms)
{
    uint32_t at = 0;
    for (struct map_slot *slot; (slot = map_next(&producers->table, &at)) != NULL;) {
        struct producer *producer = slot->value;
        if (producer->time_ms < before_ms) {
            map_walk_take(&producers->table, &at);
            free(producer);
        }
    }
}

void producers_done(struct producers *producers)
{
    uint32_t at = 0;
    for (struct map_slot *slot; (slot = map_next(&producers->table, &at)) != NULL;)
        free(slot->value);
    map_done(&producers->table);
}

size_t producers_size(const struct producers *producers)
{
    return 4 + (size_t)producers->table.count * (8 + 2 + 1 + 8 + PRODUCER_BATCHES * 16);
}

void producers_encode(const struct producers *producers, struct writer *writer)
{
    writer_u32(writer, producers->table.count);
    uint32_t at = 0;
    for (struct map_slot *slot; (slot = map_next(&producers->table, &at)) != NULL;) {
        const struct producer *producer = slot->value;
        writer_u64(writer, slot->key - 1);
        writer_u16(writer, (uint16_t)producer->epoch);
        writer_u8(writer, producer->batches);
        writer_u64(writer, (uint64_t)producer->time_ms);
        for (int i = 0; i < producer->batches; i++) {
            writer_u32(writer, (uint32_t)producer->last[i].sequence);
            writer_u32(writer, producer->last[i].count);
            writer_u64(writer, producer->last[i].base);
        }
    }
}

enum err producers_restore(struct producers *producers, struct reader *reader)
{
    for (uint32_t n = reader_u32(reader); n > 0 && !reader->failed; n--) {
        int64_t id = reader_i64(reader);
        int16_t epoch = (int16_t)reader_u16(reader);
        uint8_t batches = reader_u8(reader);
        int64_t time_ms = reader_i64(reader);
        if (reader->failed || batches > PRODUCER_BATCHES)
            return ERR_CORRUPT;
        struct producer *producer = find_or_add(producers, id);
        if (producer == NULL)
            return ERR_NO_MEMORY;
        producer->epoch = epoch;
        producer->time_ms = time_ms;
        producer->batches = batches;
        for (int i = 0; i < batches; i++) {
            producer->last[i].sequence = reader_i32(reader);
            producer->last[i].count = reader_u32(reader);
            producer->last[i].base = reader_u64(reader);
        }
    }
    return reader->failed ? ERR_CORRUPT : ERR_NONE;
}
