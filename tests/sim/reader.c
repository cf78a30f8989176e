/* Reads all partitions by offset, from a random place on, and in the end from the first offset to
 * the last: what was seen at an offset stays there, nothing between two entries is left out, and
 * each producer's batches come in their order. */
#include "clients_inside.h"

#include <string.h>

enum { READ_MS = 5000 };

static uint64_t tag_of(const struct reader_place *place, uint32_t partition)
{
    return (UINT64_C(1) << 48) | ((uint64_t)place->turn << 8) | partition;
}

static void read_on(struct reader_probe *self, uint32_t partition)
{
    struct reader_place *place = &self->places[partition];
    struct command command = {
        .type = COMMAND_READ,
        .asker = {.tag = tag_of(place, partition)},
        .object = self->clients->model->partitions[partition].id,
    };
    command.read.offset = place->at;
    command.read.max_bytes = 1u << (8 + world_random(self->probe.world, 8));
    command.read.min_bytes = self->checking ? 0 : 1;
    command.read.deadline_ms = conn_now_ms(self->probe.conn) + (self->checking ? 0 : READ_MS);
    place->reading = true;
    place->trimmed = self->clients->model->partitions[partition].trim_safe;
    conn_command(self->probe.conn, &command);
}

static void seek(struct reader_probe *self, uint32_t partition, uint64_t offset)
{
    struct reader_place *place = &self->places[partition];
    if (place->reading) {
        struct command stop = {
            .type = COMMAND_READ_STOP,
            .asker = {.tag = tag_of(place, partition)},
            .object = self->clients->model->partitions[partition].id,
        };
        conn_command(self->probe.conn, &stop);
    }
    place->turn = (place->turn + 1) & 0xffff;
    place->at = offset;
    place->at_end = false;
    memset(place->last_n, 0, sizeof place->last_n);
    read_on(self, partition);
}

static void opened(struct probe *probe)
{
    struct reader_probe *self = (struct reader_probe *)probe;
    struct model *model = self->clients->model;
    for (uint32_t n = 0; n < model->batch_count && self->checking; n++)
        model->batches[n].seen = 0;
    for (uint32_t i = 0; i < MODEL_PARTITIONS; i++) {
        self->places[i].reading = false;
        seek(self, i, model->partitions[i].first_seen);
    }
}

static void act(struct probe *probe)
{
    struct reader_probe *self = (struct reader_probe *)probe;
    struct world *world = probe->world;
    const struct model *model = self->clients->model;
    uint32_t partition = world_random(world, MODEL_PARTITIONS);
    const struct model_partition *of = &model->partitions[partition];
    if (!self->places[partition].reading)
        read_on(self, partition);
    else if (!self->checking && of->known_end > 0 && world_random(world, 3) == 0)
        seek(self, partition, world_random(world, of->known_end));
}

/* `first` is the partition's first offset: what lies before it may be left out. */
static void saw_entry(struct reader_probe *self, uint32_t partition, const struct entry *entry,
                      uint64_t first)
{
    struct model *model = self->clients->model;
    struct world *world = model->world;
    struct reader_place *place = &self->places[partition];
    uint32_t n = producer_identify(model, entry->data);
    world->totals->read++;
    bool skips = entry->base > place->at && entry->base > first;
    if (skips || entry->base + entry->count <= place->at)
        world_wrong(world, "partition %u: reading at %llu gave what stands at %llu", partition,
                    (unsigned long long)place->at, (unsigned long long)entry->base);
    place->at = entry->base + entry->count;
    model_saw_batch(model, partition, entry->base, n);
    if (n >= model->batch_count)
        return;
    struct batch *batch = &model->batches[n];
    uint32_t *last = &place->last_n[batch->producer];
    if (*last > n + 1)
        world_wrong(world, "partition %u: batch %u of producer %u stands behind %u", partition, n,
                    batch->producer, *last - 1);
    *last = n + 1;
    batch->seen += self->checking;
}

static void refused(struct reader_probe *self, uint32_t partition, const struct event *event)
{
    struct world *world = self->probe.world;
    struct reader_place *place = &self->places[partition];
    if (event->err == ERR_OUT_OF_RANGE && place->at < event->read.first_offset)
        seek(self, partition, event->read.first_offset);
    else if (!world_excuses(world, event->err) &&
             !(event->err == ERR_CORRUPT && world->faults.disk_errors))
        world_wrong(world, "reading partition %u at %llu (it has %llu to %llu): %s", partition,
                    (unsigned long long)place->at, (unsigned long long)event->read.first_offset,
                    (unsigned long long)event->read.end_offset, err_text(event->err));
}

static void event(struct probe *probe, const struct event *event)
{
    struct reader_probe *self = (struct reader_probe *)probe;
    uint32_t partition = event->asker.tag & 0xff;
    struct reader_place *place = &self->places[partition];
    if (event->type != EVENT_READ || event->asker.tag != tag_of(place, partition))
        return;
    place->reading = false;
    if (event->err == ERR_NONE || event->err == ERR_OUT_OF_RANGE)
        model_saw_first(self->clients->model, partition, event->read.first_offset,
                        self->places[partition].trimmed);
    if (event->err != ERR_NONE) {
        refused(self, partition, event);
        return;
    }
    for (uint32_t i = 0; i < event->read.count; i++)
        saw_entry(self, partition, &event->read.entries[i], event->read.first_offset);
    if (self->checking && event->read.count == 0)
        place->at_end = true;
    else
        read_on(self, partition);
}

static void lost(struct probe *probe)
{
    (void)probe;
}

void reader_check(struct reader_probe *reader)
{
    reader->checking = true;
    for (uint32_t i = 0; i < MODEL_PARTITIONS; i++)
        reader->places[i].at_end = false;
    world_hang_up(&reader->probe, true);
    world_poke(&reader->probe);
}

bool reader_is_done(const struct reader_probe *reader)
{
    for (uint32_t i = 0; i < MODEL_PARTITIONS; i++) {
        if (!reader->places[i].at_end)
            return false;
    }
    return true;
}

void reader_init(struct reader_probe *reader)
{
    reader->probe.name = "reader";
    reader->probe.opened = opened;
    reader->probe.act = act;
    reader->probe.event = event;
    reader->probe.lost = lost;
}
