/* Walks over the cells of all shards. Sums of hashes stand for sets, so that no order matters. */
#include "inspect.h"

#include "core/group_state.h"
#include "core/partition.h"
#include "core/queue.h"
#include "shard/state.h"
#include "store/inside.h"

#include <xxhash.h>

static const struct cell *cell_at(const struct world *world, uint32_t number)
{
    return world->broker.shards[number % world->shards]->cells[number];
}

static const struct queue *queue_at(const struct world *world, uint64_t id)
{
    return map_get(&cell_at(world, cell_of(id, WORLD_CELLS))->queues, id);
}

bool inspect_queue(const struct world *world, uint64_t id, struct inspect_queue *out)
{
    const struct queue *queue = queue_at(world, id);
    if (queue == NULL)
        return false;
    *out = (struct inspect_queue){
        .count = queue->ledger.count,
        .leased = queue->leases.count,
        .moving = queue->moving,
        .bytes = queue->ledger.bytes,
        .durable_bytes = queue->ledger.durable_bytes,
    };
    return true;
}

/* ---- The state's hash ---- */

static uint64_t hash_numbers(const uint64_t *numbers, size_t count)
{
    return XXH3_64bits(numbers, count * sizeof *numbers);
}

static uint64_t hash_queue(const struct world *world, const struct queue *queue, bool steady)
{
    const struct ledger *ledger = &queue->ledger;
    uint64_t sum = 0;
    for (uint64_t at = ledger->stream.first; at < ledger->stream.next; at++) {
        if (ledger_is_settled(ledger, at) || ledger_is_fleeting(ledger, at))
            continue;
        uint64_t numbers[] = {ledger->stream.id, at, steady ? 0 : ledger_returns(ledger, at)};
        sum += hash_numbers(numbers, 3);
    }
    world_tell(world, "queue %llu: %016llx, %llu messages in %llu to %llu",
               (unsigned long long)ledger->stream.id, (unsigned long long)sum,
               (unsigned long long)ledger->count, (unsigned long long)ledger->stream.first,
               (unsigned long long)ledger->stream.next);
    return sum;
}

/* One that nothing was ever appended to is made by its definition, not by recovery. */
static uint64_t hash_partition(const struct partition *partition)
{
    if (partition->stream.next == 0)
        return 0;
    uint64_t numbers[] = {partition->stream.id, partition->stream.first, partition->stream.next,
                          (uint64_t)partition->newest_ms, partition->producers.table.count};
    return hash_numbers(numbers, 5);
}

static uint64_t hash_group(const struct group *group)
{
    uint64_t sum = 0, hash = 0;
    uint32_t at = 0;
    for (const struct offsets_topic *topic;
         (topic = table_walk(&group->offsets.topics, &at)) != NULL;) {
        for (uint32_t j = 0; j < topic->count; j++) {
            const struct committed *item = &topic->items[j];
            uint64_t numbers[] = {XXH3_64bits(topic->name.data, topic->name.len), item->partition,
                                  (uint64_t)item->offset};
            sum += hash_numbers(numbers, 3);
        }
    }
    if (group->offsets.count > 0)
        hash = XXH3_64bits(group->name.data, group->name.len);
    return sum ^ hash;
}

static enum err hash_change(void *ctx, struct slice change)
{
    *(uint64_t *)ctx += XXH3_64bits(change.data, change.len);
    return ERR_NONE;
}

/* What has no definition any more goes once the definitions are known. */
static bool queue_counts(const struct catalog *master, uint64_t id, bool steady)
{
    const struct queue_def *def = catalog_queue_by_id(master, id);
    if (def == NULL || !steady)
        return def != NULL;
    return slice_equal(def->name, slice_of("takes")) || slice_equal(def->name, slice_of("deleted"));
}

static uint64_t hash_cell(const struct world *world, const struct cell *cell, bool steady)
{
    const struct catalog *master = cell_at(world, 0)->master;
    uint64_t queues = 0, partitions = 0, groups = 0, catalog = cell->producer_ids_end;
    uint32_t at = 0;
    for (struct map_slot *slot; (slot = map_next(&cell->queues, &at)) != NULL;)
        queues +=
            queue_counts(master, slot->key, steady) ? hash_queue(world, slot->value, steady) : 0;
    at = 0;
    for (struct map_slot *slot; (slot = map_next(&cell->partitions, &at)) != NULL;)
        partitions += hash_partition(slot->value);
    at = 0;
    for (struct map_slot *slot; (slot = map_next(&cell->groups->by_id, &at)) != NULL;)
        groups += hash_group(slot->value);
    if (cell->master != NULL && catalog_dump(cell->master, true, hash_change, &catalog) != ERR_NONE)
        catalog = 0;
    world_tell(world, "cell %u: queues %016llx, partitions %016llx, groups %016llx, rest %016llx",
               cell->config.number, (unsigned long long)queues, (unsigned long long)partitions,
               (unsigned long long)groups, (unsigned long long)catalog);
    return queues + partitions + groups + catalog;
}

uint64_t inspect_hash(const struct world *world, bool steady)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < WORLD_CELLS; i++)
        sum += hash_cell(world, cell_at(world, i), steady);
    return sum;
}

bool inspect_mail(const struct world *world)
{
    for (uint32_t i = 0; i < world->shards; i++) {
        const struct shard *shard = world->broker.shards[i];
        if (shard != NULL && (shard->foreign.count > 0 || shard->delayed_bytes > 0))
            return true;
        for (uint32_t j = 0; j < world->shards; j++) {
            struct ring *ring = world->broker.rings[i][j];
            size_t len;
            (void)ring_publish(ring);
            if (ring_peek(ring, &len) != NULL)
                return true;
        }
    }
    return false;
}

/* ---- Owners ---- */

static bool connected(const struct world *world, uint64_t conn)
{
    uint32_t shard = (uint32_t)(conn >> CONN_SHARD_SHIFT);
    return shard < world->shards && conn_find(world->broker.shards[shard], conn) != NULL;
}

static void check_queue(struct world *world, const struct queue *queue)
{
    const struct ledger *ledger = &queue->ledger;
    uint64_t unsettled = 0, id = ledger->stream.id;
    for (uint64_t at = ledger->stream.first; at < ledger->stream.next; at++)
        unsettled += !ledger_is_settled(ledger, at);
    if (unsettled != ledger->count)
        world_wrong(world, "queue %llu: %llu messages are unsettled and its ledger says %llu",
                    (unsigned long long)id, (unsigned long long)unsettled,
                    (unsigned long long)ledger->count);
    if (ledger->count == 0 && (ledger->bytes != 0 || ledger->durable_bytes != 0))
        world_wrong(world, "queue %llu is empty and holds %llu bytes, %llu of them durable",
                    (unsigned long long)id, (unsigned long long)ledger->bytes,
                    (unsigned long long)ledger->durable_bytes);
    uint32_t at = 0;
    for (struct map_slot *slot; (slot = map_next(&queue->leases, &at)) != NULL;) {
        const struct lease *lease = slot->value;
        if (ledger_is_settled(ledger, lease->offset))
            world_wrong(world, "queue %llu: offset %llu is settled and leased",
                        (unsigned long long)id, (unsigned long long)lease->offset);
        if (!connected(world, lease->subscription->conn))
            world_wrong(world, "queue %llu: offset %llu is leased to nobody",
                        (unsigned long long)id, (unsigned long long)lease->offset);
    }
}

void inspect_owners(struct world *world)
{
    for (uint32_t i = 0; i < WORLD_CELLS; i++) {
        const struct cell *cell = cell_at(world, i);
        uint32_t at = 0;
        for (struct map_slot *slot; (slot = map_next(&cell->queues, &at)) != NULL;)
            check_queue(world, slot->value);
        at = 0;
        for (struct map_slot *slot; (slot = map_next(&cell->conns, &at)) != NULL;) {
            const struct attached *attached = slot->value;
            if (!connected(world, attached->conn))
                world_wrong(world, "cell %u knows of a connection that is gone", i);
        }
    }
}

static void check_idle_queue(struct world *world, const struct queue *queue)
{
    bool idle = queue->leases.count == 0 && list_empty(&queue->subscriptions) &&
                list_empty(&queue->waiting) && list_empty(&queue->gets) && queue->moving == 0 &&
                queue->unready_bytes == 0 && queue->consumers == 0;
    if (!idle)
        world_wrong(world, "queue %llu has leases, consumers or moves, and nobody is there",
                    (unsigned long long)queue->ledger.stream.id);
}

static void check_idle_cell(struct world *world, const struct cell *cell)
{
    uint32_t at = 0;
    for (struct map_slot *slot; (slot = map_next(&cell->queues, &at)) != NULL;)
        check_idle_queue(world, slot->value);
    at = 0;
    for (struct map_slot *slot; (slot = map_next(&cell->partitions, &at)) != NULL;) {
        const struct partition *partition = slot->value;
        if (!list_empty(&partition->readers))
            world_wrong(world, "partition %llu has readers, and nobody is there",
                        (unsigned long long)partition->stream.id);
        if (partition->uncommitted_count > 0)
            world_wrong(world, "partition %llu waits for %u commits",
                        (unsigned long long)partition->stream.id, partition->uncommitted_count);
    }
    if (cell->conns.count > 0 || cell->pending_count > 0 || cell->moves.count > 0 ||
        cell->deletions.count > 0 || !list_empty(&cell->readings) || !list_empty(&cell->parked))
        world_wrong(world, "cell %u: %u connections, %u answers, %u moves are left",
                    cell->config.number, cell->conns.count, cell->pending_count, cell->moves.count);
}

/* Was the buf of this cached block met before on the list? Neighbours share what one read brought.
 */
static bool is_met(const struct extents *extents, const struct stream_block *block)
{
    const struct list *node = extents->cached.next;
    for (; node != &block->cached; node = node->next) {
        if (list_entry(node, struct stream_block, cached)->buf == block->buf)
            return true;
    }
    return false;
}

/* Blocks that are kept to be used again are memory, too, and what one read brought is so as a whole
 * while any block of it is kept. */
static uint64_t memory_of(const struct store *store)
{
    const struct extents *extents = &store->extents;
    uint64_t sum = store->memory - extents->cached_bytes;
    for (const struct list *node = extents->cached.next; node != &extents->cached;
         node = node->next) {
        const struct stream_block *block = list_entry(node, struct stream_block, cached);
        sum += is_met(extents, block) ? 0 : block->buf->capacity;
    }
    for (uint32_t i = 0; i < store->pooled; i++)
        sum += store->pool[i]->capacity;
    return sum + store->row_bytes;
}

void inspect_idle(struct world *world)
{
    for (uint32_t i = 0; i < WORLD_CELLS; i++)
        check_idle_cell(world, cell_at(world, i));
    for (uint32_t i = 0; i < world->shards; i++) {
        const struct shard *shard = world->broker.shards[i];
        uint64_t stores = 0;
        for (uint32_t number = i; number < WORLD_CELLS; number += world->shards)
            stores +=
                memory_of(shard->cells[number]->store) + shard->cells[number]->leases * LEASE_BYTES;
        if (shard->conn_count > 0 || shard->foreign.count > 0 || shard->delayed_bytes > 0)
            world_wrong(world, "shard %u: %u connections, %u buffers of others are left", i,
                        shard->conn_count, shard->foreign.count);
        if (shard->memory_bytes != stores)
            world_wrong(world, "shard %u accounts for %llu bytes, its stores hold %llu", i,
                        (unsigned long long)shard->memory_bytes, (unsigned long long)stores);
        if (atomic_load(&world->broker.mail_bytes[i]) != 0)
            world_wrong(world, "shard %u: mail of %llu bytes that nobody has taken", i,
                        (unsigned long long)atomic_load(&world->broker.mail_bytes[i]));
    }
}

/* ---- Counting ---- */

void inspect_count(struct world *world)
{
    struct totals *totals = world->totals;
    for (uint32_t i = 0; i < WORLD_CELLS; i++) {
        const struct cell *cell = cell_at(world, i);
        const struct extents *extents = &cell->store->extents;
        uint64_t last = 0;
        for (uint32_t j = 0; j < extents->count; j++) {
            if (extents->files[j]->info.number > last)
                last = extents->files[j]->info.number;
        }
        totals->expired += cell->stats.expired;
        totals->checkpoints += cell->store->stats.checkpoints;
        totals->extents += extents->count;
        totals->rewrites += last > extents->count ? last - extents->count : 0;
    }
}
