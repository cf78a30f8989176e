/* A partition of a topic: a stream that many read by offset, its idempotent producers, and the
 * readers that wait for more. For src/core only. */
#ifndef WEIR_CORE_PARTITION_H
#define WEIR_CORE_PARTITION_H

#include "core/cell_state.h"
#include "core/producer.h"

struct partition {
    struct stream stream;
    struct cell *cell;
    struct tracked tracked;
    struct list wake_link; /* on cell->waking */
    struct list readers;   /* struct reading, oldest first */
    struct timer timer;    /* the next reader's deadline */
    struct producers producers;
    uint64_t topic;
    uint64_t committed; /* readers see offsets below it */
    /* Ring: appended and not yet committed: when the journal is safe to `end`, offsets below `next`
     * are. */
    struct uncommitted {
        uint64_t end, next;
    } * uncommitted;
    uint32_t uncommitted_head, uncommitted_count, uncommitted_capacity;
    struct list uncommitted_link; /* on cell->uncommitted while there are any */
    uint64_t reflects;
    int64_t newest_ms;  /* the largest timestamp of an entry, INT64_MIN = no entry yet */
    uint64_t newest_at; /* base of the first entry that has it */
    bool defined, log_append_time;
    int64_t retention_ms, retention_bytes;
    int64_t retained_ms; /* monotonic time of the last look at retention */
};

struct partition *partition_create(struct cell *cell, uint64_t id);
void partition_destroy(struct partition *partition, bool drop);
void partition_define(struct partition *partition, const struct topic *topic);

/* apply */
enum err partition_append(struct partition *partition, const struct record *record, uint64_t base,
                          uint32_t count, uint64_t entry_pos, uint64_t record_pos);
enum err partition_trim(struct partition *partition, uint64_t first);

/* commands */
void partition_produce(struct partition *partition, const struct command *command);
void partition_read(struct partition *partition, const struct command *command);
void partition_read_stop(struct partition *partition, const struct command *command);
void partition_offsets(struct partition *partition, const struct command *command);
void partition_delete_records(struct partition *partition, const struct command *command);
void partitions_conn_gone(struct cell *cell, uint64_t conn);
/* The journal is safe up to `end`. */
void partition_committed(struct partition *partition, uint64_t end);
/* Serves readers that can be served. */
void partition_work(struct partition *partition);
/* Sends the messages of an appended entry on to where bindings of its topic lead. */
void partition_route(struct partition *partition, uint64_t base, struct slice entry);
/* The same of a record batch alone. */
void partition_route_batch(struct partition *partition, uint64_t base, struct slice batch);

/* Between the two, what is routed on counts: then the answer waits until every copy is safe.
 * Returns false when nothing was routed and the caller answers by itself. */
void routing_begin(struct cell *cell);
bool routing_end(struct cell *cell, const struct event *event);
/* A copy is safe, or was refused; false: seq is not of a routing. */
bool routing_confirmed(struct cell *cell, uint64_t seq, enum err err);
/* Lets go what retention allows. */
void partition_retain(struct partition *partition);

/* Stored form. */
enum err partition_restore(struct partition *partition, struct slice stored);
/* Without a partition: the first offset that a stored form says is there; 0 when malformed. */
uint64_t partition_stored_first(struct slice stored);
size_t partition_size(const struct partition *partition);
void partition_encode(const struct partition *partition, struct writer *writer, uint64_t reflects);

#endif
