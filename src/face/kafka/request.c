/* The life of a request, whatever its API: taken from the input, decoded in its arena, started; its
 * answers counted; its response encoded when its turn has come. A connection's requests stand in a
 * ring by sequence number, which commands carry as the upper half of their tag. */
#include "face/kafka/kafka.h"

#include "codec/kafka_header.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    SPARE_MAX = 4,
    SPARE_BYTES_MAX = 16 << 10, /* a spare request's memory */
    RESERVE_MAX = 64 << 10,     /* what conn_reserve gives at most */
    FRAME_LENGTH_BYTES = 4,
};

void *request_alloc(struct request *request, size_t count, size_t size)
{
    void *memory = arena_array(&request->arena, count, size);
    if (memory)
        memset(memory, 0, count * size);
    return memory;
}

bool request_copy(struct request *request, struct slice *slice)
{
    if (slice->data == NULL)
        return true;
    uint8_t *copy = arena_alloc(&request->arena, slice->len);
    if (copy == NULL)
        return false;
    if (slice->len)
        memcpy(copy, slice->data, slice->len);
    slice->data = copy;
    return true;
}

struct slice request_text(struct request *request, const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    int len = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (len < 0)
        len = 0;
    if ((size_t)len >= sizeof text)
        len = (int)sizeof text - 1;
    struct slice slice = slice_make(text, (size_t)len);
    return request_copy(request, &slice) ? slice : (struct slice){0};
}

static struct request *request_create(struct kafka *kafka)
{
    assert(kafka->next_sequence - kafka->oldest < REQUESTS_MAX);
    struct request *request = kafka->spare;
    if (request) {
        kafka->spare = request->next_spare;
        kafka->spare_count--;
    } else {
        request = malloc(sizeof *request);
        if (request == NULL)
            return NULL;
        arena_init(&request->arena, REQUEST_ARENA_BYTES, REQUEST_ARENA_BYTES_MAX);
    }
    struct arena arena = request->arena;
    *request = (struct request){
        .kafka = kafka, .arena = arena, .sequence = kafka->next_sequence, .deadline_ms = INT64_MAX};
    kafka->requests[kafka->next_sequence++ % REQUESTS_MAX] = request;
    return request;
}

/* The oldest one. */
static void request_retire(struct kafka *kafka)
{
    struct request *request = kafka->requests[kafka->oldest % REQUESTS_MAX];
    assert(request->sequence == kafka->oldest);
    kafka->requests[kafka->oldest++ % REQUESTS_MAX] = NULL;
    if (request->handler && request->handler->done)
        request->handler->done(request);
    if (request->handler && request->handler->hurry)
        kafka->hurriable--;
    arena_reset(&request->arena);
    if (kafka->spare_count < SPARE_MAX && request->arena.held_bytes <= SPARE_BYTES_MAX) {
        request->next_spare = kafka->spare;
        kafka->spare = request;
        kafka->spare_count++;
    } else {
        arena_done(&request->arena);
        free(request);
    }
}

static uint64_t tag_of(const struct request *request, uint32_t index)
{
    return (uint64_t)request->sequence << 32 | index;
}

void request_command(struct request *request, uint32_t index, struct command *command)
{
    command->asker.tag = tag_of(request, index);
    request->waiting++;
    conn_command(request->kafka->conn, command);
}

void request_tell(struct request *request, uint32_t index, struct command *command)
{
    command->asker.tag = tag_of(request, index);
    conn_command(request->kafka->conn, command);
}

/* One of the things that the request waited for is there. */
static void request_progress(struct request *request)
{
    assert(request->waiting > 0);
    if (--request->waiting > 0 || request->stage != REQUEST_RUNNING)
        return;
    request->handler->finish(request);
    requests_send(request->kafka);
}

/* ---- Time limits ---- */

void request_timer_set(struct kafka *kafka, int64_t at_ms)
{
    if (at_ms >= kafka->timer_ms)
        return;
    kafka->timer_ms = at_ms;
    conn_timer(kafka->conn, at_ms);
}

void request_limit(struct request *request, int32_t timeout_ms)
{
    if (timeout_ms < TIMEOUT_MS_MIN)
        timeout_ms = TIMEOUT_MS_MIN;
    request->deadline_ms = conn_now_ms(request->kafka->conn) + timeout_ms;
    request_timer_set(request->kafka, request->deadline_ms);
}

/* The timer is not moved when requests are done, so it mostly finds nothing to do: that is cheaper
 * than to move it for each of them. */
void requests_expire(struct kafka *kafka, int64_t now_ms)
{
    int64_t next_ms = INT64_MAX;
    kafka->timer_ms = INT64_MAX;
    for (uint32_t sequence = kafka->oldest; sequence != kafka->next_sequence; sequence++) {
        struct request *request = kafka->requests[sequence % REQUESTS_MAX];
        if (request->stage != REQUEST_RUNNING || request->waiting == 0)
            continue;
        if (request->deadline_ms > now_ms) {
            next_ms = request->deadline_ms < next_ms ? request->deadline_ms : next_ms;
            continue;
        }
        conn_log(kafka->conn, "debug", "event=\"request timed out\" api=%s", request->api->name);
        kafka->late += request->waiting;
        request->waiting = 0;
        request->handler->finish(request);
    }
    request_timer_set(kafka, next_ms);
    requests_send(kafka);
}

/* ---- Outcomes ---- */

void request_respond(struct request *request, const void *response)
{
    assert(request->stage == REQUEST_RUNNING);
    request->response = response;
    request->stage = REQUEST_READY;
}

void request_silent(struct request *request)
{
    assert(request->stage == REQUEST_RUNNING);
    request->stage = REQUEST_SILENT;
}

void requests_end(struct kafka *kafka, bool flush)
{
    if (kafka->closing)
        return;
    kafka->closing = true;
    conn_close(kafka->conn, flush);
}

void request_fail(struct request *request, const char *why)
{
    conn_log(request->kafka->conn, "warn",
             "event=\"request refused\" api=%s version=%d reason=\"%s\"",
             request->api ? request->api->name : "none", request->version, why);
    conn_count(request->kafka->conn, METRIC_KAFKA_ERRORS_REQUEST, 1);
    request->stage = REQUEST_SILENT;
    requests_end(request->kafka, true);
}

/* ---- Responses ---- */

struct left_out {
    const uint8_t *at;
    const void *payload;
};

struct left_outs {
    struct left_out *items;
    uint32_t count, room;
};

static void leave_out(void *context, const uint8_t *at, struct slice payload)
{
    struct left_outs *outs = context;
    assert(outs->count < outs->room);
    outs->items[outs->count++] = (struct left_out){at, payload.data};
}

static void response_encode(struct request *request, struct writer *writer, size_t size)
{
    writer_u32(writer, (uint32_t)(size - FRAME_LENGTH_BYTES));
    kafka_response_header_encode(writer, request->api->key, request->version,
                                 request->correlation_id);
    kafka_message_encode(writer, &request->api->response, request->version, request->response);
    assert(!writer->failed);
}

/* The response's own bytes are copied, its payloads are not. False: no memory. */
static bool response_send_around(struct request *request, size_t size)
{
    struct conn *conn = request->kafka->conn;
    size_t own = size - request->payload_bytes;
    struct left_outs outs = {.room = request->payload_count};
    uint8_t *memory = arena_alloc(&request->arena, own);
    if (request->payload_count)
        outs.items = arena_array(&request->arena, request->payload_count, sizeof *outs.items);
    if (memory == NULL || (request->payload_count && outs.items == NULL))
        return false;
    struct writer writer = writer_over(memory, own);
    if (request->payload_count) {
        writer.leave_out = leave_out;
        writer.context = &outs;
    }
    response_encode(request, &writer, size);
    const uint8_t *sent = memory;
    for (uint32_t i = 0; i < outs.count; i++) {
        conn_copy(conn, sent, (size_t)(outs.items[i].at - sent));
        sent = outs.items[i].at;
        request->handler->payload(request, outs.items[i].payload);
    }
    conn_copy(conn, sent, (size_t)(writer.at - sent));
    return true;
}

static bool response_send(struct request *request)
{
    struct conn *conn = request->kafka->conn;
    if (request->handler == NULL) { /* a bare token's answer: an empty one */
        conn_copy(conn, "\0\0\0\0", FRAME_LENGTH_BYTES);
        return true;
    }
    size_t size = FRAME_LENGTH_BYTES +
                  kafka_response_header_size(request->api->key, request->version) +
                  kafka_message_size(&request->api->response, request->version, request->response);
    if (size > INT32_MAX)
        return false;
    if (size > RESERVE_MAX || request->payload_count)
        return response_send_around(request, size);
    uint8_t *memory = conn_reserve(conn, size);
    if (memory == NULL)
        return true; /* it is closing */
    struct writer writer = writer_over(memory, size);
    response_encode(request, &writer, size);
    conn_commit(conn, size);
    return true;
}

void requests_send(struct kafka *kafka)
{
    if (kafka->sending) /* a response's bytes may lead to events */
        return;
    kafka->sending = true;
    while (!kafka->closing && kafka->oldest != kafka->next_sequence) {
        struct request *request = kafka->requests[kafka->oldest % REQUESTS_MAX];
        if (request->stage == REQUEST_RUNNING || request->waiting > 0)
            break;
        bool closes = request->closes;
        if (request->stage == REQUEST_READY && !response_send(request)) {
            conn_log(kafka->conn, "warn", "event=\"response too large\" api=%s",
                     request->api->name);
            closes = true;
        }
        request_retire(kafka);
        kafka->active_ms = conn_now_ms(kafka->conn);
        if (closes)
            requests_end(kafka, true);
    }
    kafka->sending = false;
    requests_throttle(kafka);
}

void requests_drop(struct kafka *kafka)
{
    kafka->closing = true;
    while (kafka->oldest != kafka->next_sequence)
        request_retire(kafka);
    while (kafka->spare) {
        struct request *request = kafka->spare;
        kafka->spare = request->next_spare;
        arena_done(&request->arena);
        free(request);
    }
}

void requests_throttle(struct kafka *kafka)
{
    bool hold = kafka->next_sequence - kafka->oldest >= REQUESTS_MAX ||
                conn_output_pending(kafka->conn) > OUTPUT_BYTES_MAX;
    if (hold == kafka->held || kafka->closing)
        return;
    kafka->held = hold;
    if (hold)
        conn_hold(kafka->conn);
    else
        conn_resume(kafka->conn);
}

/* ---- Taking ---- */

static void request_start(struct request *request, struct slice body)
{
    const struct handler *handler = request->handler;
    const struct kafka_message *message = &request->api->request;
    if (!handler->borrows && !request_copy(request, &body)) {
        request_fail(request, "no memory");
        return;
    }
    void *decoded = arena_alloc(&request->arena, message->schema->size);
    struct reader reader = reader_over(body);
    if (decoded == NULL ||
        !kafka_message_decode(&reader, message, request->version, &request->arena, decoded)) {
        request_fail(request, "malformed");
        return;
    }
    request->waiting = 1; /* until everything is asked for */
    handler->start(request, decoded);
    request->waiting--;
    if (request->waiting == 0 && request->stage == REQUEST_RUNNING)
        handler->finish(request);
}

/* False: nothing of that kind or version is served, as Kafka does it: the connection ends. */
static bool request_match(struct request *request, const struct kafka_request_header *header)
{
    const struct kafka_api *api = kafka_api_find(header->api_key);
    if (api == NULL || kafka_handlers[api - kafka_apis] == NULL)
        return false;
    request->api = api;
    request->handler = kafka_handlers[api - kafka_apis];
    request->kafka->hurriable += request->handler->hurry != NULL;
    request->version = header->api_version;
    request->correlation_id = header->correlation_id;
    return header->api_version >= api->version_min && header->api_version <= api->version_max;
}

/* A client of the future is told in words of the past what it may speak. */
static void versions_refuse(struct request *request)
{
    static const struct kafka_api_versions_response_api_version range_template = {
        .api_key = KAFKA_API_VERSIONS};
    struct kafka_api_versions_response *response = request_alloc(request, 1, sizeof *response);
    struct kafka_api_versions_response_api_version *range =
        request_alloc(request, 1, sizeof *range);
    if (response == NULL || range == NULL) {
        request_fail(request, "no memory");
        return;
    }
    *range = range_template;
    range->min_version = request->api->offered_min;
    range->max_version = request->api->version_max;
    *response = kafka_api_versions_response_default;
    response->error_code = KAFKA_ERROR_UNSUPPORTED_VERSION;
    response->api_versions = range;
    response->api_versions_count = 1;
    request->version = 0;
    request_respond(request, response);
}

static void request_read(struct request *request, struct slice frame)
{
    struct kafka *kafka = request->kafka;
    if (kafka->sasl == SASL_RAW) {
        sasl_token(request, frame);
        return;
    }
    struct kafka_request_header header;
    struct reader reader = reader_over(frame);
    if (!kafka_request_header_decode(&reader, &header)) {
        request_fail(request, "malformed header");
        return;
    }
    if (!request_match(request, &header)) {
        if (request->api && request->api->key == KAFKA_API_VERSIONS) {
            versions_refuse(request);
            return;
        }
        conn_log(kafka->conn, "warn", "event=\"request unknown\" key=%d version=%d", header.api_key,
                 header.api_version);
        conn_count(kafka->conn, METRIC_KAFKA_ERRORS_REQUEST, 1);
        request->stage = REQUEST_SILENT;
        requests_end(kafka, true);
        return;
    }
    if (request->api->key != KAFKA_PRODUCE && frame.len > SMALL_REQUEST_BYTES_MAX) {
        request_fail(request, "too large");
        return;
    }
    conn_count(kafka->conn, request_metric(header.api_key), 1);
    request->client_id = header.client_id;
    if (!request_copy(request, &request->client_id)) {
        request_fail(request, "no memory");
        return;
    }
    request_start(request, slice_make(reader.at, reader_left(&reader)));
}

/* Clients that use one connection for everything would feel each waiting Fetch in their Produce and
 * in their group's requests: those cut it short. */
static void requests_hurry(struct kafka *kafka, const struct request *newest)
{
    if (kafka->hurriable == 0 || newest->handler == NULL || !newest->handler->urgent)
        return;
    for (uint32_t sequence = kafka->oldest; sequence != newest->sequence; sequence++) {
        struct request *request = kafka->requests[sequence % REQUESTS_MAX];
        if (request->stage == REQUEST_RUNNING && request->handler->hurry)
            request->handler->hurry(request);
    }
}

void request_take(struct kafka *kafka, struct slice frame)
{
    struct request *request = request_create(kafka);
    if (request == NULL) {
        requests_end(kafka, false);
        return;
    }
    request_read(request, frame);
    requests_hurry(kafka, request);
    requests_send(kafka);
}

static void read_release(struct kafka *kafka, const struct event *event)
{
    for (uint32_t i = 0; i < event->read.count; i++)
        conn_release(kafka->conn, event->read.entries[i].buf);
}

void request_event(struct kafka *kafka, const struct event *event)
{
    uint32_t sequence = (uint32_t)(event->asker.tag >> 32);
    struct request *request = kafka->requests[sequence % REQUESTS_MAX];
    /* Each answer comes once, and a request stays until it has them all, or its time is over. */
    if (request == NULL || request->sequence != sequence || request->waiting == 0) {
        assert(kafka->late > 0);
        kafka->late--;
        if (event->type == EVENT_READ)
            read_release(kafka, event);
        return;
    }
    if (request->stage == REQUEST_RUNNING)
        request->handler->answer(request, (uint32_t)event->asker.tag, event);
    else if (event->type == EVENT_READ)
        read_release(kafka, event);
    request_progress(request);
}
