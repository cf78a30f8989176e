/* Fetch: one COMMAND_READ for each partition, answered at once or when records come. The first
 * useful answers end the waiting of the others: when there are min_bytes in all, or an error, or
 * time is over, the reads still under way are stopped and the response goes out. What was stored as
 * Kafka batches leaves by reference; AMQP messages are turned into a batch (fetch_convert.c).
 *
 * Sessions are not offered: every request names all its partitions. */
#include "face/kafka/fetch.h"

#include "codec/entry.h"

#include <assert.h>
#include <stdlib.h>

enum {
    IDS_SINCE = 13,
    SESSION_EPOCH_NONE = -1,
    SESSION_EPOCH_FIRST = 0,
    RESPONSE_BYTES_MAX = 8 << 20,     /* more is asked for by the next request */
    PARTITION_SHARE_BYTES = 64 << 10, /* a partition's part of it is not smaller */
    WAIT_MS_MAX = 5 * 60 * 1000,
    PIECES_FIRST = 8,
};

/* A partition that is read. */
struct fetch_partition {
    struct kafka_fetch_response_partition *row;
    uint64_t id;
    uint64_t next; /* offset to read at */
    uint32_t max_bytes, bytes;
    bool waiting, converts;
    struct entry *entries; /* malloc'd, referenced */
    uint32_t count, room;
    struct fetch_payload payload;
};

struct fetch {
    struct kafka_fetch_response response;
    struct fetch_partition *partitions; /* those of all topics, one after the other */
    uint32_t count, waiting;
    uint32_t max_bytes, min_bytes;
    uint64_t bytes; /* gathered so far */
    int64_t deadline_ms;
    bool enough;
};

/* One of `sharers` partitions that are being read. */
static void read_send(struct request *request, uint32_t index, uint32_t sharers)
{
    struct fetch *fetch = request->state;
    struct fetch_partition *partition = &fetch->partitions[index];
    /* Each partition waits for its share of what is missing, so that all of them together wake up
     * when there is enough. */
    uint64_t missing = fetch->bytes < fetch->min_bytes ? fetch->min_bytes - fetch->bytes : 0;
    struct command command = {.type = COMMAND_READ, .object = partition->id};
    command.read.offset = partition->next;
    command.read.max_bytes = partition->max_bytes - partition->bytes;
    command.read.min_bytes = fetch->enough ? 0 : (uint32_t)((missing + sharers - 1) / sharers);
    command.read.deadline_ms = fetch->enough ? 0 : fetch->deadline_ms;
    partition->waiting = true;
    fetch->waiting++;
    request_command(request, index, &command);
}

/* Whoever still waits is to answer with what it has. */
static void waiting_end(struct request *request)
{
    struct fetch *fetch = request->state;
    if (fetch->enough)
        return;
    fetch->enough = true;
    for (uint32_t i = 0; i < fetch->count; i++) {
        if (!fetch->partitions[i].waiting)
            continue;
        struct command command = {.type = COMMAND_READ_STOP, .object = fetch->partitions[i].id};
        request_tell(request, i, &command);
    }
}

static int16_t partition_find(const struct request *request, const struct topic *topic,
                              const struct kafka_fetch_request_partition *asked, uint64_t *id)
{
    if (topic == NULL && request->version >= IDS_SINCE)
        return KAFKA_ERROR_UNKNOWN_TOPIC_ID;
    if (!topic_partition_id(topic, asked->partition_index, id))
        return KAFKA_ERROR_UNKNOWN_TOPIC_OR_PARTITION;
    int16_t code = epoch_check(asked->current_leader_epoch);
    if (code == KAFKA_ERROR_NONE && asked->fetch_offset < 0)
        code = KAFKA_ERROR_OFFSET_OUT_OF_RANGE;
    return code;
}

static uint32_t bytes_of(int32_t value)
{
    return value < 0 ? 0 : (uint32_t)value;
}

static void partition_lay_out(struct request *request, const struct topic *topic,
                              const struct kafka_fetch_request_partition *asked, int8_t isolation,
                              struct kafka_fetch_response_partition *row,
                              struct fetch_partition *partition)
{
    struct fetch *fetch = request->state;
    *row = kafka_fetch_response_partition_default;
    row->partition_index = asked->partition_index;
    row->high_watermark = -1;
    row->records = slice_of("");
    row->aborted_transactions_count = isolation == 0 ? -1 : 0;
    partition->row = row;
    row->error_code = partition_find(request, topic, asked, &partition->id);
    partition->next = (uint64_t)asked->fetch_offset;
    partition->max_bytes = bytes_of(asked->partition_max_bytes);
    if (partition->max_bytes > fetch->max_bytes)
        partition->max_bytes = fetch->max_bytes;
    uint32_t share = fetch->max_bytes / fetch->count;
    if (share < PARTITION_SHARE_BYTES)
        share = PARTITION_SHARE_BYTES;
    if (partition->max_bytes > share)
        partition->max_bytes = share;
}

static bool response_lay_out(struct request *request, const struct kafka_fetch_request *in)
{
    struct fetch *fetch = request->state;
    for (int32_t i = 0; i < in->topics_count; i++)
        fetch->count += (uint32_t)in->topics[i].partitions_count;
    struct kafka_fetch_response_topic *topics =
        arena_array(&request->arena, (size_t)in->topics_count, sizeof *topics);
    struct kafka_fetch_response_partition *rows =
        arena_array(&request->arena, fetch->count, sizeof *rows);
    fetch->partitions = request_alloc(request, fetch->count, sizeof *fetch->partitions);
    if (topics == NULL || rows == NULL || fetch->partitions == NULL) {
        fetch->count = 0;
        return false;
    }
    fetch->response.topics = topics;
    fetch->response.topics_count = in->topics_count;
    struct fetch_partition *partition = fetch->partitions;
    for (int32_t i = 0; i < in->topics_count; i++) {
        const struct kafka_fetch_request_topic *asked = &in->topics[i];
        const struct topic *topic = request->version >= IDS_SINCE
                                        ? topic_identified(request, &asked->topic_id)
                                        : topic_named(request, asked->name);
        topics[i] = kafka_fetch_response_topic_default;
        topics[i].name = asked->name;
        topics[i].topic_id = asked->topic_id;
        topics[i].partitions = rows;
        topics[i].partitions_count = asked->partitions_count;
        for (int32_t k = 0; k < asked->partitions_count; k++)
            partition_lay_out(request, topic, &asked->partitions[k], in->isolation_level, rows++,
                              partition++);
    }
    return true;
}

/* Sessions are declined by the id 0, which is all that a client may come with then. */
static int16_t session_check(const struct request *request, const struct kafka_fetch_request *in)
{
    if (request->version < 7)
        return KAFKA_ERROR_NONE;
    if (in->session_epoch == SESSION_EPOCH_NONE || in->session_epoch == SESSION_EPOCH_FIRST)
        return KAFKA_ERROR_NONE;
    return in->session_id == 0 ? KAFKA_ERROR_INVALID_FETCH_SESSION_EPOCH
                               : KAFKA_ERROR_FETCH_SESSION_ID_NOT_FOUND;
}

static void start(struct request *request, const void *message)
{
    const struct kafka_fetch_request *in = message;
    struct fetch *fetch = request_alloc(request, 1, sizeof *fetch);
    request->state = fetch;
    if (fetch == NULL) {
        request_fail(request, "no memory");
        return;
    }
    fetch->response = kafka_fetch_response_default;
    fetch->response.error_code = session_check(request, in);
    if (fetch->response.error_code != KAFKA_ERROR_NONE)
        return;
    int32_t wait_ms = in->max_wait_ms < 0 ? 0 : in->max_wait_ms;
    fetch->deadline_ms =
        conn_now_ms(request->kafka->conn) + (wait_ms < WAIT_MS_MAX ? wait_ms : WAIT_MS_MAX);
    fetch->max_bytes = bytes_of(in->max_bytes);
    if (fetch->max_bytes > RESPONSE_BYTES_MAX)
        fetch->max_bytes = RESPONSE_BYTES_MAX;
    fetch->min_bytes = bytes_of(in->min_bytes);
    if (fetch->min_bytes > fetch->max_bytes)
        fetch->min_bytes = fetch->max_bytes;
    if (!response_lay_out(request, in)) {
        request_fail(request, "no memory");
        return;
    }
    fetch->enough = fetch->min_bytes == 0 || wait_ms == 0;
    for (uint32_t i = 0; i < fetch->count; i++)
        fetch->enough |= fetch->partitions[i].row->error_code != KAFKA_ERROR_NONE;
    for (uint32_t i = 0; i < fetch->count && request->stage == REQUEST_RUNNING; i++)
        if (fetch->partitions[i].row->error_code == KAFKA_ERROR_NONE)
            read_send(request, i, fetch->count);
}

static bool entries_add(struct fetch_partition *partition, const struct event *event)
{
    uint32_t count = partition->count + event->read.count;
    if (count > partition->room) {
        uint32_t room = partition->room ? partition->room * 2 : PIECES_FIRST;
        if (room < count)
            room = count;
        struct entry *entries = realloc(partition->entries, room * sizeof *entries);
        if (entries == NULL)
            return false;
        partition->entries = entries;
        partition->room = room;
    }
    if (event->read.count)
        memcpy(partition->entries + partition->count, event->read.entries,
               event->read.count * sizeof *partition->entries);
    partition->count = count;
    return true;
}

static void entries_take(struct request *request, struct fetch_partition *partition,
                         const struct event *event)
{
    struct fetch *fetch = request->state;
    for (uint32_t i = 0; i < event->read.count; i++) {
        const struct entry *entry = &event->read.entries[i];
        partition->bytes += (uint32_t)entry->data.len;
        fetch->bytes += entry->data.len;
        partition->next = entry->base + entry->count;
        partition->converts |= entry_head_get(entry->data).form != ENTRY_KAFKA;
    }
}

static void answer(struct request *request, uint32_t index, const struct event *event)
{
    struct fetch *fetch = request->state;
    struct fetch_partition *partition = &fetch->partitions[index];
    struct kafka_fetch_response_partition *row = partition->row;
    partition->waiting = false;
    fetch->waiting--;
    if (event->err == ERR_NONE || event->err == ERR_OUT_OF_RANGE) {
        row->high_watermark = row->last_stable_offset = (int64_t)event->read.end_offset;
        row->log_start_offset = (int64_t)event->read.first_offset;
    }
    if (event->err != ERR_NONE) {
        if (partition->count == 0)
            row->error_code = err_kafka(event->err);
        waiting_end(request);
        return;
    }
    if (!entries_add(partition, event)) {
        for (uint32_t i = 0; i < event->read.count; i++)
            conn_release(request->kafka->conn, event->read.entries[i].buf);
        row->error_code = KAFKA_ERROR_UNKNOWN_SERVER_ERROR;
        waiting_end(request);
        return;
    }
    entries_take(request, partition, event);
    if (fetch->bytes >= fetch->min_bytes)
        waiting_end(request);
    else if (!fetch->enough && event->read.count > 0 && partition->bytes < partition->max_bytes &&
             conn_now_ms(request->kafka->conn) < fetch->deadline_ms)
        read_send(request, index, fetch->waiting + 1);
}

/* ---- The response ---- */

/* How many of its entries the response has room for; *left is what remains. The first entry of the
 * response is sent whatever its size. */
static uint32_t entries_fit(const struct fetch_partition *partition, bool first, uint64_t *left)
{
    uint32_t count = 0;
    while (count < partition->count) {
        uint64_t bytes = partition->entries[count].data.len - ENTRY_HEAD_BYTES;
        if (bytes > *left && !(first && count == 0))
            break;
        *left -= bytes < *left ? bytes : *left;
        count++;
    }
    return count;
}

/* False: no memory. */
static bool payload_prepare(struct request *request, struct fetch_partition *partition,
                            uint32_t count)
{
    struct fetch_payload *payload = &partition->payload;
    payload->entries = partition->entries;
    payload->count = count;
    if (partition->converts) {
        if (!fetch_convert(request, payload))
            return false;
    } else {
        for (uint32_t i = 0; i < count; i++)
            payload->bytes += partition->entries[i].data.len - ENTRY_HEAD_BYTES;
    }
    if (payload->bytes == 0)
        return true;
    partition->row->records = slice_make(payload, payload->bytes);
    request->payload_bytes += payload->bytes;
    request->payload_count++;
    return true;
}

static void count_delivered(struct request *request, const struct fetch_partition *partition,
                            uint32_t count)
{
    int64_t messages = 0;
    for (uint32_t i = 0; i < count; i++)
        messages += partition->entries[i].count;
    conn_count(request->kafka->conn, METRIC_MESSAGES_DELIVERED_KAFKA_FETCH, messages);
}

static void count_errors(struct request *request)
{
    const struct fetch *fetch = request->state;
    for (uint32_t i = 0; i < fetch->count; i++) {
        if (fetch->partitions[i].row->error_code != KAFKA_ERROR_NONE)
            conn_count(request->kafka->conn, METRIC_KAFKA_ERRORS_FETCH, 1);
    }
}

static void finish(struct request *request)
{
    struct fetch *fetch = request->state;
    uint64_t left = fetch->max_bytes;
    bool first = true;
    for (uint32_t i = 0; i < fetch->count; i++) {
        struct fetch_partition *partition = &fetch->partitions[i];
        if (partition->count == 0 || partition->row->error_code != KAFKA_ERROR_NONE)
            continue;
        uint32_t count = entries_fit(partition, first, &left);
        first = first && count == 0;
        if (!payload_prepare(request, partition, count))
            partition->row->error_code = KAFKA_ERROR_UNKNOWN_SERVER_ERROR;
        else
            count_delivered(request, partition, count);
    }
    count_errors(request);
    request_respond(request, &fetch->response);
}

static void payload(struct request *request, const void *left_out)
{
    struct conn *conn = request->kafka->conn;
    const struct fetch_payload *payload = left_out;
    if (payload->pieces) {
        for (uint32_t i = 0; i < payload->piece_count; i++) {
            const struct fetch_piece *piece = &payload->pieces[i];
            if (piece->buf)
                conn_share(conn, piece->buf, piece->data);
            else
                conn_copy(conn, piece->data.data, piece->data.len);
        }
        return;
    }
    for (uint32_t i = 0; i < payload->count; i++) {
        const struct entry *entry = &payload->entries[i];
        conn_share(
            conn, entry->buf,
            slice_make(entry->data.data + ENTRY_HEAD_BYTES, entry->data.len - ENTRY_HEAD_BYTES));
    }
}

static void done(struct request *request)
{
    struct fetch *fetch = request->state;
    if (fetch == NULL)
        return;
    for (uint32_t i = 0; i < fetch->count; i++) {
        struct fetch_partition *partition = &fetch->partitions[i];
        for (uint32_t k = 0; k < partition->count; k++)
            conn_release(request->kafka->conn, partition->entries[k].buf);
        free(partition->entries);
        partition->entries = NULL;
        partition->count = 0;
    }
}

const struct handler fetch_handler = {
    .key = KAFKA_FETCH,
    .start = start,
    .answer = answer,
    .finish = finish,
    .payload = payload,
    .hurry = waiting_end,
    .done = done,
};
