/* ListOffsets and OffsetForLeaderEpoch. Earliest and latest come from the cell at once. For a time,
 * and for the largest one, the cell names an entry at or before the record; it and those behind it
 * are then read until the very record is found. */
#include "face/kafka/kafka.h"

#include "codec/entry.h"
#include "codec/kafka_inflate.h"

enum {
    TIMESTAMP_LATEST = -1,
    TIMESTAMP_EARLIEST = -2,
    TIMESTAMP_MAX = -3,
    TIMESTAMP_EARLIEST_LOCAL = -4,
    TIMESTAMP_LATEST_TIERED = -5,
    SCAN_BYTES = 256 << 10,
    SCAN_READS_MAX = 4096,
    INFLATED_BYTES_MAX = 64 << 20,
    INFLATE_CHUNK_BYTES = 64 << 10,
};

struct search {
    struct kafka_list_offsets_response_partition *row;
    uint64_t partition;
    int64_t wanted; /* a time, or one of the above */
    uint32_t reads;
};

struct list_offsets {
    struct kafka_list_offsets_response response;
    struct search *searches;
};

static void found(struct search *search, int64_t offset, int64_t timestamp_ms)
{
    search->row->offset = offset;
    search->row->timestamp = timestamp_ms;
    search->row->leader_epoch = LEADER_EPOCH;
}

/* The first record of the entry at or behind `wanted`, or with the largest time. */
struct record_found {
    int64_t offset, timestamp_ms;
};

static bool batch_search(struct slice bytes, int64_t wanted, struct record_found *out)
{
    struct reader reader = reader_over(bytes);
    struct kafka_batch batch;
    if (!kafka_batch_next(&reader, &batch))
        return false;
    struct arena arena;
    arena_init(&arena, INFLATE_CHUNK_BYTES, 2 * INFLATED_BYTES_MAX);
    struct slice plain;
    bool any = false;
    if (kafka_inflate(&batch, INFLATED_BYTES_MAX, &arena, &plain)) {
        struct kafka_records records;
        struct kafka_record record;
        kafka_records_init(&records, &batch, plain);
        while (kafka_records_next(&records, &record)) {
            bool better = wanted == TIMESTAMP_MAX ? !any || record.timestamp_ms > out->timestamp_ms
                                                  : !any && record.timestamp_ms >= wanted;
            if (better)
                *out = (struct record_found){record.offset, record.timestamp_ms};
            any |= better;
        }
    } else if (wanted == TIMESTAMP_MAX || batch.max_timestamp_ms >= wanted) {
        /* Its records are unreadable: the batch is as near as we get. */
        *out = (struct record_found){batch.base_offset, batch.max_timestamp_ms};
        any = true;
    }
    arena_done(&arena);
    return any;
}

static bool entry_search(const struct entry *entry, int64_t wanted, struct record_found *out)
{
    struct entry_head head = entry_head_get(entry->data);
    if (wanted != TIMESTAMP_MAX && head.timestamp_ms < wanted)
        return false;
    if (head.form == ENTRY_KAFKA)
        return batch_search(
            slice_make(entry->data.data + ENTRY_HEAD_BYTES, entry->data.len - ENTRY_HEAD_BYTES),
            wanted, out);
    *out = (struct record_found){(int64_t)entry->base, head.timestamp_ms};
    return true;
}

static void scan_from(struct request *request, uint32_t index, uint64_t offset)
{
    struct list_offsets *state = request->state;
    struct search *search = &state->searches[index];
    search->reads++;
    struct command command = {.type = COMMAND_READ, .object = search->partition};
    command.read.offset = offset;
    command.read.max_bytes = SCAN_BYTES;
    request_command(request, index, &command);
}

static void scan_answer(struct request *request, uint32_t index, const struct event *event)
{
    struct list_offsets *state = request->state;
    struct search *search = &state->searches[index];
    struct record_found record;
    bool is_found = false;
    uint64_t next = event->read.end_offset;
    for (uint32_t i = 0; i < event->read.count; i++) {
        const struct entry *entry = &event->read.entries[i];
        if (!is_found)
            is_found = entry_search(entry, search->wanted, &record);
        next = entry->base + entry->count;
    }
    for (uint32_t i = 0; i < event->read.count; i++)
        conn_release(request->kafka->conn, event->read.entries[i].buf);
    if (event->err != ERR_NONE && event->err != ERR_OUT_OF_RANGE)
        search->row->error_code = err_kafka(event->err);
    else if (is_found)
        found(search, record.offset, record.timestamp_ms);
    else if (event->read.count > 0 && next < event->read.end_offset &&
             search->reads < SCAN_READS_MAX)
        scan_from(request, index, next);
}

static void answer(struct request *request, uint32_t index, const struct event *event)
{
    struct list_offsets *state = request->state;
    struct search *search = &state->searches[index];
    if (event->type == EVENT_READ)
        scan_answer(request, index, event);
    else if (event->err != ERR_NONE)
        search->row->error_code = err_kafka(event->err);
    else if (event->value == UINT64_MAX)
        return; /* there is none */
    else if (search->wanted >= 0 || search->wanted == TIMESTAMP_MAX)
        scan_from(request, index, event->value);
    else
        found(search, (int64_t)event->value, -1);
}

static bool query_of(int64_t timestamp, struct command *command)
{
    command->offsets.time_ms = timestamp;
    switch (timestamp) {
    case TIMESTAMP_LATEST:
        command->offsets.query = OFFSET_LATEST;
        return true;
    case TIMESTAMP_EARLIEST:
    case TIMESTAMP_EARLIEST_LOCAL:
        command->offsets.query = OFFSET_EARLIEST;
        return true;
    case TIMESTAMP_MAX:
        command->offsets.query = OFFSET_MAX_TIME;
        return true;
    default:
        command->offsets.query = OFFSET_AT_TIME;
        return timestamp >= 0;
    }
}

static void partition_start(struct request *request, uint32_t index, const struct topic *topic,
                            const struct kafka_list_offsets_request_partition *asked,
                            struct kafka_list_offsets_response_partition *row)
{
    struct list_offsets *state = request->state;
    struct search *search = &state->searches[index];
    *row = kafka_list_offsets_response_partition_default;
    row->partition_index = asked->partition_index;
    row->offset = row->timestamp = -1;
    row->leader_epoch = -1;
    *search = (struct search){.row = row, .wanted = asked->timestamp};
    struct command command = {.type = COMMAND_OFFSETS};
    if (!topic_partition_id(topic, asked->partition_index, &search->partition))
        row->error_code = KAFKA_ERROR_UNKNOWN_TOPIC_OR_PARTITION;
    else
        row->error_code = epoch_check(asked->current_leader_epoch);
    if (row->error_code != KAFKA_ERROR_NONE || asked->timestamp == TIMESTAMP_LATEST_TIERED)
        return;
    if (!query_of(asked->timestamp, &command)) {
        row->error_code = KAFKA_ERROR_UNSUPPORTED_VERSION;
        return;
    }
    command.object = search->partition;
    request_command(request, index, &command);
}

static void start(struct request *request, const void *message)
{
    const struct kafka_list_offsets_request *in = message;
    struct list_offsets *state = request_alloc(request, 1, sizeof *state);
    request->state = state;
    size_t count = 0;
    for (int32_t i = 0; i < in->topics_count; i++)
        count += (size_t)in->topics[i].partitions_count;
    struct kafka_list_offsets_response_topic *topics =
        arena_array(&request->arena, (size_t)in->topics_count, sizeof *topics);
    struct kafka_list_offsets_response_partition *rows =
        arena_array(&request->arena, count, sizeof *rows);
    struct search *searches = arena_array(&request->arena, count, sizeof *searches);
    if (state == NULL || topics == NULL || rows == NULL || searches == NULL) {
        request_fail(request, "no memory");
        return;
    }
    state->searches = searches;
    state->response = kafka_list_offsets_response_default;
    state->response.topics = topics;
    state->response.topics_count = in->topics_count;
    uint32_t index = 0;
    for (int32_t i = 0; i < in->topics_count; i++) {
        const struct kafka_list_offsets_request_topic *asked = &in->topics[i];
        const struct topic *topic = topic_named(request, asked->name);
        topics[i] = kafka_list_offsets_response_topic_default;
        topics[i].name = asked->name;
        topics[i].partitions = rows;
        topics[i].partitions_count = asked->partitions_count;
        for (int32_t k = 0; k < asked->partitions_count; k++, index++)
            partition_start(request, index, topic, &asked->partitions[k], rows++);
    }
}

static void finish(struct request *request)
{
    struct list_offsets *state = request->state;
    request_respond(request, &state->response);
}

const struct handler list_offsets_handler = {
    .key = KAFKA_LIST_OFFSETS, .start = start, .answer = answer, .finish = finish};

/* ---- OffsetForLeaderEpoch: there is one epoch, which ends where the partition ends ---- */

struct epochs {
    struct kafka_offset_for_leader_epoch_response response;
    struct kafka_offset_for_leader_epoch_response_epoch_end_offset *rows;
};

static void epoch_start(struct request *request, const void *message)
{
    const struct kafka_offset_for_leader_epoch_request *in = message;
    struct epochs *state = request_alloc(request, 1, sizeof *state);
    request->state = state;
    size_t count = 0;
    for (int32_t i = 0; i < in->topics_count; i++)
        count += (size_t)in->topics[i].partitions_count;
    struct kafka_offset_for_leader_epoch_response_topic *topics =
        arena_array(&request->arena, (size_t)in->topics_count, sizeof *topics);
    struct kafka_offset_for_leader_epoch_response_epoch_end_offset *rows =
        arena_array(&request->arena, count, sizeof *rows);
    if (state == NULL || topics == NULL || rows == NULL) {
        request_fail(request, "no memory");
        return;
    }
    state->rows = rows;
    state->response = kafka_offset_for_leader_epoch_response_default;
    state->response.topics = topics;
    state->response.topics_count = in->topics_count;
    uint32_t index = 0;
    for (int32_t i = 0; i < in->topics_count; i++) {
        const struct kafka_offset_for_leader_epoch_request_topic *asked = &in->topics[i];
        const struct topic *topic = topic_named(request, asked->name);
        topics[i] = kafka_offset_for_leader_epoch_response_topic_default;
        topics[i].name = asked->name;
        topics[i].partitions = &rows[index];
        topics[i].partitions_count = asked->partitions_count;
        for (int32_t k = 0; k < asked->partitions_count; k++, index++) {
            struct command command = {.type = COMMAND_OFFSETS};
            command.offsets.query = OFFSET_LATEST;
            rows[index] = kafka_offset_for_leader_epoch_response_epoch_end_offset_default;
            rows[index].partition_index = asked->partitions[k].partition_index;
            rows[index].error_code = epoch_check(asked->partitions[k].current_leader_epoch);
            if (!topic_partition_id(topic, rows[index].partition_index, &command.object))
                rows[index].error_code = KAFKA_ERROR_UNKNOWN_TOPIC_OR_PARTITION;
            else if (rows[index].error_code == KAFKA_ERROR_NONE &&
                     asked->partitions[k].leader_epoch == LEADER_EPOCH)
                request_command(request, index, &command);
        }
    }
}

static void epoch_answer(struct request *request, uint32_t index, const struct event *event)
{
    struct epochs *state = request->state;
    if (event->err != ERR_NONE) {
        state->rows[index].error_code = err_kafka(event->err);
        return;
    }
    state->rows[index].leader_epoch = LEADER_EPOCH;
    state->rows[index].end_offset = (int64_t)event->value;
}

static void epoch_finish(struct request *request)
{
    struct epochs *state = request->state;
    request_respond(request, &state->response);
}

const struct handler offset_for_leader_epoch_handler = {
    .key = KAFKA_OFFSET_FOR_LEADER_EPOCH,
    .start = epoch_start,
    .answer = epoch_answer,
    .finish = epoch_finish,
};
