/* A connection and a broker for tests and fuzzers of the Kafka face: the conn_ functions on plain
 * memory, the real catalog, partitions that are arrays, groups that answer what the test says. With
 * `at_once` answers come from inside of conn_command, as they do when connection and cell share a
 * shard; otherwise events wait until fake_run. To be included by one source file of a program. */
#ifndef WEIR_FACE_KAFKA_FAKE_CONN_H
#define WEIR_FACE_KAFKA_FAKE_CONN_H

#include "base/endian.h"
#include "codec/entry.h"
#include "codec/kafka_batch.h"
#include "face/kafka/kafka.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { FAKE_PARTITIONS = 64, FAKE_READS = 1024, FAKE_CELLS = 2 };

#define FAKE_ALL UINT64_MAX

struct fake_partition {
    uint64_t id, first, next;
    struct entry *entries;
    uint32_t count, capacity;
};

struct fake_read {
    struct command command;
    bool stopped;
};

struct conn {
    const struct face *face;
    void *self;
    struct face_config config;
    struct catalog *catalog;
    struct fake_partition partitions[FAKE_PARTITIONS];
    uint32_t partition_count;
    struct fake_read reads[FAKE_READS]; /* that wait */
    uint32_t read_count;
    struct event *events;
    uint32_t event_count, event_capacity;
    uint8_t *output;
    size_t output_len, output_capacity;
    uint8_t *input; /* not yet used by the face */
    size_t input_len;
    bool held, closed, at_once;
    uint64_t stuck; /* commands to that object (FAKE_ALL: to any) are answered by fake_unstick */
    bool sticks;    /* the command under way is one of them */
    bool waits;     /* the last append is to be answered when it is safe */
    struct event *late;
    uint32_t late_count, late_capacity;
    int64_t timer_at;
    size_t pending; /* what conn_output_pending says */
    int64_t now_ms;
    bool unread; /* input that waits is not shown to the face */
    uint64_t random, producer_ids;
    enum err append_err; /* what appends are answered with */
    /* Answers COMMAND_GROUP; takes over nothing. NULL: with an empty answer. */
    void (*group)(struct conn *conn, const struct group_request *request, struct event *event);
    uint32_t stops; /* reads that were stopped */
    char user[64];
};

/* ---- Output and control ---- */

uint8_t *conn_reserve(struct conn *conn, size_t len)
{
    assert(len <= 64 << 10 || conn->output_len + len <= conn->output_capacity);
    if (conn->output_capacity - conn->output_len < len) {
        conn->output_capacity = (conn->output_len + len) * 2;
        conn->output = realloc(conn->output, conn->output_capacity);
        assert(conn->output);
    }
    return conn->output + conn->output_len;
}

void conn_commit(struct conn *conn, size_t len)
{
    conn->output_len += len;
}

void conn_copy(struct conn *conn, const void *data, size_t len)
{
    if (conn->output_capacity - conn->output_len < len) {
        conn->output_capacity = (conn->output_len + len) * 2;
        conn->output = realloc(conn->output, conn->output_capacity);
        assert(conn->output);
    }
    if (len)
        memcpy(conn->output + conn->output_len, data, len);
    conn->output_len += len;
}

void conn_share(struct conn *conn, struct buf *buf, struct slice data)
{
    assert(data.data >= buf->data && data.data + data.len <= buf->data + buf->capacity);
    conn_copy(conn, data.data, data.len);
}

size_t conn_output_pending(const struct conn *conn)
{
    return conn->pending;
}

void conn_release(struct conn *conn, struct buf *buf)
{
    (void)conn;
    buf_unref(buf);
}

void conn_close(struct conn *conn, bool flush)
{
    (void)flush;
    conn->closed = true;
}

void conn_want(struct conn *conn, size_t bytes)
{
    (void)conn;
    assert(bytes > 0);
}

bool conn_unread(const struct conn *conn)
{
    return conn->unread;
}

void conn_hold(struct conn *conn)
{
    conn->held = true;
}

void conn_resume(struct conn *conn)
{
    conn->held = false;
}

void conn_timer(struct conn *conn, int64_t at_ms)
{
    conn->timer_at = at_ms;
}

int64_t conn_now_ms(const struct conn *conn)
{
    return conn->now_ms;
}

int64_t conn_wall_ms(const struct conn *conn)
{
    return conn->now_ms + INT64_C(1700000000000);
}

uint64_t conn_random(struct conn *conn)
{
    return conn->random = conn->random * UINT64_C(6364136223846793005) + 1442695040888963407;
}

const char *conn_peer(const struct conn *conn, uint16_t *port)
{
    (void)conn;
    *port = 50000;
    return "127.0.0.1";
}

const char *conn_local(const struct conn *conn, uint16_t *port)
{
    (void)conn;
    *port = 9092;
    return "127.0.0.1";
}

const struct face_config *conn_config(const struct conn *conn)
{
    return &conn->config;
}

const struct catalog *conn_catalog(const struct conn *conn)
{
    return conn->catalog;
}

void conn_log(struct conn *conn, const char *level, const char *format, ...)
{
    (void)conn;
    (void)level;
    (void)format;
}

void conn_count(struct conn *conn, enum metric metric, int64_t n)
{
    (void)conn;
    (void)metric;
    (void)n;
}

enum err conn_login(struct conn *conn, struct slice user, struct slice password)
{
    if (!slice_equal(user, slice_of("guest")) || !slice_equal(password, slice_of("guest")))
        return ERR_REFUSED;
    memcpy(conn->user, "guest", 6);
    return ERR_NONE;
}

uint32_t conn_cells(const struct conn *conn)
{
    (void)conn;
    return FAKE_CELLS;
}

/* ---- The broker ---- */

static void fake_push(struct event **events, uint32_t *count, uint32_t *capacity,
                      const struct event *event)
{
    if (*count == *capacity) {
        *capacity = *capacity ? *capacity * 2 : 64;
        *events = realloc(*events, *capacity * sizeof **events);
        assert(*events);
    }
    (*events)[(*count)++] = *event;
}

static void fake_event(struct conn *conn, const struct event *event)
{
    if (conn->sticks && event->type == EVENT_ANSWER) {
        fake_push(&conn->late, &conn->late_count, &conn->late_capacity, event);
    } else if (conn->at_once) {
        conn->face->event(conn->self, event);
        parts_destroy(event->parts);
    } else {
        fake_push(&conn->events, &conn->event_count, &conn->event_capacity, event);
    }
}

static struct fake_partition *fake_partition(struct conn *conn, uint64_t id)
{
    for (uint32_t i = 0; i < conn->partition_count; i++)
        if (conn->partitions[i].id == id)
            return &conn->partitions[i];
    uint32_t index;
    if (!catalog_partition(conn->catalog, id, &index) || conn->partition_count == FAKE_PARTITIONS)
        return NULL;
    struct fake_partition *partition = &conn->partitions[conn->partition_count++];
    *partition = (struct fake_partition){.id = id};
    return partition;
}

/* The entry's bytes are copied. */
static void fake_append(struct fake_partition *partition, struct slice data, uint32_t count)
{
    if (partition->count == partition->capacity) {
        partition->capacity = partition->capacity ? partition->capacity * 2 : 8;
        partition->entries =
            realloc(partition->entries, partition->capacity * sizeof *partition->entries);
        assert(partition->entries);
    }
    struct buf *buf = buf_create(data.len, 0, NULL);
    assert(buf);
    memcpy(buf->data, data.data, data.len);
    partition->entries[partition->count++] = (struct entry){
        .base = partition->next, .count = count, .data = {buf->data, data.len}, .buf = buf};
    partition->next += count;
}

static void fake_append_batch(struct conn *conn, const struct command *command,
                              struct fake_partition *partition)
{
    struct event event = {.type = EVENT_ANSWER, .err = conn->append_err, .asker = command->asker};
    event.value = partition->next;
    event.value2 = UINT64_MAX;
    if (conn->append_err == ERR_NONE) {
        uint8_t *entry = malloc(ENTRY_HEAD_BYTES + command->data.len);
        assert(entry);
        entry_head_put(entry, &(struct entry_head){.timestamp_ms = command->append.max_time_ms,
                                                   .form = ENTRY_KAFKA});
        memcpy(entry + ENTRY_HEAD_BYTES, command->data.data, command->data.len);
        kafka_batch_place(entry + ENTRY_HEAD_BYTES, (int64_t)partition->next, 0);
        fake_append(partition, slice_make(entry, ENTRY_HEAD_BYTES + command->data.len),
                    command->append.count);
        free(entry);
    }
    if (!command->append.silent)
        fake_event(conn, &event);
}

/* Answers the read when there is enough. */
static bool fake_serve(struct conn *conn, const struct fake_read *read)
{
    const struct command *command = &read->command;
    struct fake_partition *partition = fake_partition(conn, command->object);
    struct event event = {.type = EVENT_READ, .asker = command->asker};
    struct entry *entries = calloc(partition->count + 1, sizeof *entries);
    assert(entries);
    event.read.entries = entries;
    event.read.first_offset = partition->first;
    event.read.end_offset = partition->next;
    size_t bytes = 0;
    if (command->read.offset < partition->first || command->read.offset > partition->next)
        event.err = ERR_OUT_OF_RANGE;
    for (uint32_t i = 0; event.err == ERR_NONE && i < partition->count; i++) {
        const struct entry *entry = &partition->entries[i];
        if (entry->base + entry->count <= command->read.offset)
            continue;
        if (event.read.count > 0 && bytes + entry->data.len > command->read.max_bytes)
            break;
        bytes += entry->data.len;
        entries[event.read.count++] = *entry;
    }
    bool ready = event.err != ERR_NONE || read->stopped || bytes >= command->read.min_bytes ||
                 conn->now_ms >= command->read.deadline_ms;
    for (uint32_t i = 0; ready && i < event.read.count; i++)
        buf_ref(entries[i].buf);
    if (ready) {
        fake_event(conn, &event);
        if (!conn->at_once)
            return true; /* entries go with the event */
    }
    free(entries);
    return ready;
}

static void fake_reads_serve(struct conn *conn)
{
    for (uint32_t i = 0; i < conn->read_count;) {
        struct fake_read read = conn->reads[i];
        conn->reads[i] = conn->reads[conn->read_count - 1];
        conn->read_count--;
        if (!fake_serve(conn, &read)) {
            conn->reads[conn->read_count++] = conn->reads[i];
            conn->reads[i++] = read;
        }
    }
}

static void fake_read(struct conn *conn, const struct command *command)
{
    struct fake_read read = {.command = *command, .stopped = conn->read_count == FAKE_READS};
    if (!fake_serve(conn, &read))
        conn->reads[conn->read_count++] = read;
}

static void fake_read_stop(struct conn *conn, const struct command *command)
{
    for (uint32_t i = 0; i < conn->read_count; i++)
        if (conn->reads[i].command.asker.tag == command->asker.tag) {
            assert(conn->reads[i].command.object == command->object);
            conn->reads[i].stopped = true;
            conn->stops++;
        }
}

static void fake_offsets(struct conn *conn, const struct command *command,
                         const struct fake_partition *partition)
{
    struct event event = {.type = EVENT_ANSWER, .asker = command->asker};
    event.value = event.value2 = UINT64_MAX;
    if (command->offsets.query == OFFSET_EARLIEST)
        event.value = partition->first;
    else if (command->offsets.query == OFFSET_LATEST)
        event.value = partition->next;
    int64_t best = INT64_MIN;
    for (uint32_t i = 0; i < partition->count; i++) {
        int64_t time_ms = entry_head_get(partition->entries[i].data).timestamp_ms;
        bool at_time = command->offsets.query == OFFSET_AT_TIME && event.value == UINT64_MAX &&
                       time_ms >= command->offsets.time_ms;
        bool largest = command->offsets.query == OFFSET_MAX_TIME && time_ms > best;
        if (at_time || largest)
            event.value = partition->entries[i].base;
        if (time_ms > best)
            best = time_ms;
    }
    fake_event(conn, &event);
}

static void fake_partition_command(struct conn *conn, const struct command *command)
{
    struct fake_partition *partition = fake_partition(conn, command->object);
    struct event event = {.type = command->type == COMMAND_READ ? EVENT_READ : EVENT_ANSWER,
                          .err = ERR_NOT_FOUND,
                          .asker = command->asker};
    if (partition == NULL) {
        if (command->type != COMMAND_READ_STOP &&
            !(command->type == COMMAND_APPEND && command->append.silent))
            fake_event(conn, &event);
        return;
    }
    switch (command->type) {
    case COMMAND_APPEND:
        conn->waits = command->append.wait_commit;
        fake_append_batch(conn, command, partition);
        break;
    case COMMAND_READ:
        fake_read(conn, command);
        break;
    case COMMAND_READ_STOP:
        fake_read_stop(conn, command);
        break;
    case COMMAND_OFFSETS:
        fake_offsets(conn, command, partition);
        break;
    default:
        assert(command->type == COMMAND_TRIM);
        event.err = ERR_NONE;
        partition->first =
            command->offsets.offset < partition->next ? command->offsets.offset : partition->next;
        event.value = partition->first;
        fake_event(conn, &event);
    }
}

static void fake_catalog(struct conn *conn, const struct command *command)
{
    static const struct catalog_listener nobody = {0};
    const struct catalog_request *request = command->parts->root;
    struct catalog_changes changes = {0};
    struct catalog_problem problem = {{0}};
    struct event event = {.type = EVENT_ANSWER, .asker = command->asker};
    event.err = catalog_decide(conn->catalog, request, &changes, &problem);
    for (size_t at = 0, used; !event.err && !request->validate_only && at < changes.len;
         at += used) {
        enum err err = catalog_apply(conn->catalog, slice_make(changes.data + at, changes.len - at),
                                     &used, &nobody, NULL);
        assert(!err);
    }
    free(changes.data);
    parts_destroy(command->parts);
    fake_event(conn, &event);
}

static void fake_group(struct conn *conn, const struct command *command)
{
    struct event event = {.type = EVENT_ANSWER, .asker = command->asker};
    event.parts = parts_create(1 << 20);
    assert(event.parts);
    struct group_answer *answer = arena_alloc(&event.parts->arena, sizeof *answer);
    assert(answer);
    const struct group_request *request = command->parts->root;
    *answer = (struct group_answer){.op = request->op};
    event.parts->root = answer;
    if (conn->group)
        conn->group(conn, request, &event);
    parts_destroy(command->parts);
    fake_event(conn, &event);
}

void conn_command(struct conn *conn, const struct command *command)
{
    struct event event = {.type = EVENT_ANSWER, .asker = command->asker};
    conn->sticks = conn->stuck == FAKE_ALL || (conn->stuck != 0 && conn->stuck == command->object);
    switch (command->type) {
    case COMMAND_CATALOG:
        fake_catalog(conn, command);
        break;
    case COMMAND_GROUP:
        fake_group(conn, command);
        break;
    case COMMAND_PRODUCER_ID:
        event.value = ++conn->producer_ids;
        fake_event(conn, &event);
        break;
    default:
        fake_partition_command(conn, command);
    }
}

/* ---- For the tests ---- */

static inline struct conn *fake_open(const struct face *face)
{
    struct conn *conn = calloc(1, sizeof *conn);
    assert(conn);
    conn->face = face;
    conn->config = (struct face_config){.max_batch_bytes = 1 << 20,
                                        .max_request_bytes = 100 << 20,
                                        .default_partitions = 1,
                                        .auto_create_topics = true,
                                        .cluster_name = "weir@test",
                                        .version = "0"};
    conn->timer_at = INT64_MAX;
    conn->catalog = catalog_create();
    assert(conn->catalog);
    conn->self = face->open(conn);
    assert(conn->self);
    return conn;
}

static inline void fake_events(struct conn *conn)
{
    struct event *events = conn->events;
    uint32_t count = conn->event_count;
    conn->events = NULL;
    conn->event_count = conn->event_capacity = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct event *event = &events[i];
        if (conn->self)
            conn->face->event(conn->self, event);
        else
            for (uint32_t k = 0; event->type == EVENT_READ && k < event->read.count; k++)
                buf_unref(event->read.entries[k].buf);
        if (event->type == EVENT_READ)
            free(event->read.entries);
        parts_destroy(event->parts);
    }
    free(events);
}

/* Shows the face what it has not used, and what came of it, until nothing moves. */
static inline void fake_run(struct conn *conn)
{
    for (bool moved = true; moved;) {
        moved = false;
        if (!conn->held && !conn->closed && conn->input_len > 0) {
            size_t used = conn->face->input(conn->self, conn->input, conn->input_len);
            assert(used <= conn->input_len);
            memmove(conn->input, conn->input + used, conn->input_len - used);
            conn->input_len -= used;
            moved = used > 0;
        }
        fake_reads_serve(conn);
        if (conn->event_count > 0) {
            fake_events(conn);
            moved = true;
        }
    }
}

static inline void fake_input(struct conn *conn, const void *data, size_t len)
{
    conn->input = realloc(conn->input, conn->input_len + len + 1);
    assert(conn->input);
    if (len)
        memcpy(conn->input + conn->input_len, data, len);
    conn->input_len += len;
    fake_run(conn);
}

static inline void fake_time(struct conn *conn, int64_t ms)
{
    conn->now_ms += ms;
    if (conn->timer_at <= conn->now_ms) {
        conn->timer_at = INT64_MAX;
        conn->face->timer(conn->self, conn->now_ms);
    }
    fake_run(conn);
}

static inline void fake_late(struct conn *conn)
{
    conn->stuck = 0;
    conn->sticks = false;
    for (uint32_t i = 0; i < conn->late_count; i++)
        fake_push(&conn->events, &conn->event_count, &conn->event_capacity, &conn->late[i]);
    conn->late_count = 0;
}

/* What was stuck is answered after all. */
static inline void fake_unstick(struct conn *conn)
{
    fake_late(conn);
    fake_run(conn);
}

static inline void fake_close(struct conn *conn)
{
    conn->closed = true;
    conn->face->close(conn->self, ERR_NONE);
    conn->self = NULL;
    fake_late(conn);
    fake_events(conn);
    free(conn->late);
    for (uint32_t i = 0; i < conn->partition_count; i++) {
        for (uint32_t k = 0; k < conn->partitions[i].count; k++)
            buf_unref(conn->partitions[i].entries[k].buf);
        free(conn->partitions[i].entries);
    }
    catalog_destroy(conn->catalog);
    free(conn->output);
    free(conn->input);
    free(conn);
}

#endif
