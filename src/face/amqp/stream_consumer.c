/* A topic consumed as a stream queue. One reader per partition: it keeps one read under way, or the
 * entries that it brought, and sends messages while the consumer has credit. Acknowledging gives
 * credit back and nothing else: a stream keeps its messages, and a consumer its place only while
 * it lives.
 *
 *   consume -> offset_ask, once per partition -> offset_answered -> read_ask -> stream_event ->
 * pump
 *
 * A record batch is opened when its turn comes and kept open while credit lacks in its middle. */
#include "face/amqp/amqp.h"

#include "codec/amqp_field.h"
#include "codec/amqp_wire.h"
#include "codec/kafka_inflate.h"
#include "codec/message.h"
#include "gen/amqp_send.h"

#include <stdlib.h>

enum {
    READ_BYTES_MAX = 256 << 10,
    READ_WAIT_MS = 60000,
    INFLATED_BYTES_MAX = 64 << 20,
    ARENA_CHUNK_BYTES = 4096,
    OUTPUT_HIGH_BYTES = 1 << 20,
};

struct partition_reader {
    uint64_t id;       /* of the partition */
    uint64_t offset;   /* the next message to send */
    uint64_t read_tag; /* a read is under way; 0 = none */
    struct entry *entries;
    uint32_t count, at;
    bool open; /* entries[at] is a batch, being walked */
    struct kafka_records records;
    struct arena inflated;
};

struct stream_reader {
    uint32_t credit;
    uint32_t started; /* partitions whose first offset is known */
    bool no_wait;
    bool pumping; /* a read may be answered while it is asked for */
    struct slice topic;
    uint8_t topic_name[255];
    struct arena scratch; /* for one message */
    uint32_t count;
    struct partition_reader partitions[];
};

/* ---- Offset specifications ---- */

struct start {
    enum { START_FIRST, START_LAST, START_NEXT, START_OFFSET, START_TIME } kind;
    int64_t number;
};

/* "7D", "1h" and so on: that long ago. */
static bool interval_parse(struct slice text, int64_t now_ms, int64_t *out)
{
    static const struct {
        char unit;
        int64_t seconds;
    } units[] = {{'Y', 31536000}, {'M', 2592000}, {'D', 86400}, {'h', 3600}, {'m', 60}, {'s', 1}};
    int64_t value = 0;
    if (text.len < 2 || text.len > 7)
        return false;
    for (size_t i = 0; i + 1 < text.len; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return false;
        value = value * 10 + (text.data[i] - '0');
    }
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (units[i].unit == (char)text.data[text.len - 1]) {
            *out = now_ms - value * units[i].seconds * 1000;
            return true;
        }
    }
    return false;
}

static bool start_parse(struct slice arguments, int64_t now_ms, struct start *out)
{
    struct amqp_field field;
    *out = (struct start){.kind = START_NEXT};
    if (!amqp_table_find(arguments, "x-stream-offset", &field))
        return true;
    if (amqp_type_is_integer(field.type) && field.number >= 0) {
        *out = (struct start){START_OFFSET, field.number};
    } else if (field.type == 'T' && field.number >= 0 && field.number < INT64_MAX / 1000) {
        *out = (struct start){START_TIME, field.number * 1000};
    } else if (field.type == 'S' && slice_equal(field.bytes, slice_of("first"))) {
        out->kind = START_FIRST;
    } else if (field.type == 'S' && slice_equal(field.bytes, slice_of("last"))) {
        out->kind = START_LAST;
    } else if (field.type == 'S' && interval_parse(field.bytes, now_ms, &out->number)) {
        out->kind = START_TIME;
    } else {
        return field.type == 'S' && slice_equal(field.bytes, slice_of("next"));
    }
    return true;
}

/* ---- Reading ---- */

static void pump(struct consumer *consumer);

static void read_ask(struct consumer *consumer, struct partition_reader *reader)
{
    struct amqp *self = consumer->channel->amqp;
    reader->read_tag = ++self->next_tag;
    struct command command = {
        .type = COMMAND_READ,
        .object = reader->id,
        .read =
            {
                .offset = reader->offset,
                .max_bytes = READ_BYTES_MAX,
                .min_bytes = 1,
                .deadline_ms = conn_now_ms(self->conn) + READ_WAIT_MS,
            },
    };
    command_send(self, &command, consumer->channel->number, reader->read_tag);
}

static void entries_free(struct amqp *self, struct partition_reader *reader)
{
    for (; reader->at < reader->count; reader->at++)
        conn_release(self->conn, reader->entries[reader->at].buf);
    free(reader->entries);
    reader->entries = NULL;
    reader->count = reader->at = 0;
    reader->open = false;
    arena_done(&reader->inflated);
}

static void entry_next(struct amqp *self, struct partition_reader *reader)
{
    reader->open = false;
    arena_done(&reader->inflated);
    conn_release(self->conn, reader->entries[reader->at].buf);
    if (++reader->at == reader->count)
        entries_free(self, reader);
}

static struct consumer *reader_find(struct amqp *self, uint64_t tag, struct partition_reader **out)
{
    for (uint32_t i = 0; i < self->consumer_slots; i++) {
        struct stream_reader *stream = self->consumers[i] ? self->consumers[i]->stream : NULL;
        for (uint32_t p = 0; stream && p < stream->count; p++) {
            if (stream->partitions[p].read_tag == tag) {
                *out = &stream->partitions[p];
                return self->consumers[i];
            }
        }
    }
    return NULL;
}

static void release_all(struct amqp *self, const struct event *event)
{
    for (uint32_t i = 0; i < event->read.count; i++)
        conn_release(self->conn, event->read.entries[i].buf);
}

void stream_event(struct amqp *self, const struct event *event)
{
    struct partition_reader *reader = NULL;
    struct consumer *consumer = NULL;
    if (self->stage == STAGE_RUNNING)
        consumer = reader_find(self, event->asker.tag, &reader);
    if (!consumer) {
        release_all(self, event);
        return;
    }
    reader->read_tag = 0;
    if (event->err == ERR_OUT_OF_RANGE) {
        bool below = reader->offset < event->read.first_offset;
        reader->offset = below ? event->read.first_offset : event->read.end_offset;
    } else if (event->err) {
        release_all(self, event);
        consumer_cancelled(self, consumer->id);
        return;
    } else if (event->read.count > 0) {
        reader->entries = malloc(event->read.count * sizeof *reader->entries);
        if (!reader->entries) {
            release_all(self, event);
            connection_error(self, 506, AMQP_BASIC_CONSUME, "out of memory");
            return;
        }
        memcpy(reader->entries, event->read.entries, event->read.count * sizeof *reader->entries);
        reader->count = event->read.count;
        reader->at = 0;
    }
    pump(consumer);
}

/* ---- Sending ---- */

/* The message's property list with its offset among the headers. Null: no memory. */
static struct slice list_with_offset(const struct message_view *view, uint64_t offset,
                                     const uint32_t *partition, struct arena *arena)
{
    struct amqp_properties properties;
    struct slice list = message_list(view, arena);
    if (slice_is_null(list) || !amqp_properties_read(list, &properties))
        return (struct slice){0};
    if (!(properties.flags & AMQP_HEADERS))
        properties.headers = slice_make("", 0);
    size_t room = properties.headers.len + 64;
    uint8_t *table = arena_alloc(arena, room);
    if (!table)
        return (struct slice){0};
    struct writer writer = writer_over(table, room);
    struct amqp_field field = amqp_long("x-stream-offset", (int64_t)offset);
    amqp_field_write(&writer, &field);
    if (partition) {
        field = amqp_long("x-stream-partition", *partition);
        amqp_field_write(&writer, &field);
    }
    writer_slice(&writer, properties.headers);
    properties.flags |= AMQP_HEADERS;
    properties.headers = slice_make(table, (size_t)(writer.at - table));
    size_t size = amqp_properties_size(&properties);
    uint8_t *out = arena_alloc(arena, size);
    if (!out)
        return (struct slice){0};
    amqp_properties_write(out, &properties);
    return slice_make(out, size);
}

/* false: the connection has ended. */
static bool message_send(struct consumer *consumer, const struct message_view *view,
                         uint64_t offset, uint32_t partition, struct buf *buf)
{
    struct channel *channel = consumer->channel;
    struct stream_reader *stream = consumer->stream;
    struct lease lease = {
        .tag = channel->next_tag | LEASE_STREAM,
        .consumer = consumer->id,
        .offset = offset,
    };
    struct slice list =
        list_with_offset(view, offset, stream->count > 1 ? &partition : NULL, &stream->scratch);
    if (slice_is_null(list) || !leases_add(&channel->leases, &lease)) {
        connection_error(channel->amqp, 506, AMQP_BASIC_DELIVER, "out of memory");
        return false;
    }
    stream->credit--;
    deliver_send(consumer, channel->next_tag++, false, view->exchange, view->routing_key, list,
                 view->body, buf);
    arena_reset(&stream->scratch);
    return true;
}

/* Opens the batch that is next. false: it cannot be read, or has nothing for clients; it is left
 * out. */
static bool batch_open(struct partition_reader *reader, const struct entry *entry)
{
    struct kafka_batch batch;
    struct slice plain;
    struct reader bytes = reader_over(
        slice_make(entry->data.data + ENTRY_HEAD_BYTES, entry->data.len - ENTRY_HEAD_BYTES));
    if (!kafka_batch_next(&bytes, &batch) || batch.attributes & KAFKA_BATCH_CONTROL)
        return false;
    batch.base_offset = (int64_t)entry->base;
    arena_init(&reader->inflated, ARENA_CHUNK_BYTES, INFLATED_BYTES_MAX);
    if (!kafka_inflate(&batch, INFLATED_BYTES_MAX / 2, &reader->inflated, &plain))
        return false;
    kafka_records_init(&reader->records, &batch, plain);
    reader->open = true;
    return true;
}

/* Sends what the entry at hand holds, as credit allows; true when it is done with. */
static bool entry_send(struct consumer *consumer, struct partition_reader *reader,
                       uint32_t partition)
{
    struct stream_reader *stream = consumer->stream;
    const struct entry *entry = &reader->entries[reader->at];
    struct message_view view;
    if (entry->data.len < ENTRY_HEAD_BYTES)
        return true;
    if (entry_head_get(entry->data).form == ENTRY_AMQP) {
        if (entry->base >= reader->offset && message_of_entry(entry->data, &view) &&
            !message_send(consumer, &view, entry->base, partition, entry->buf))
            return false;
        return true;
    }
    if (!reader->open && !batch_open(reader, entry))
        return true;
    struct kafka_record record;
    while (stream->credit > 0) {
        if (!kafka_records_next(&reader->records, &record))
            return true;
        if ((uint64_t)record.offset < reader->offset ||
            !message_of_record(&record, stream->topic, &view))
            continue;
        if (!message_send(consumer, &view, (uint64_t)record.offset, partition, NULL))
            return false;
        reader->offset = (uint64_t)record.offset + 1;
    }
    return false;
}

static void partition_pump(struct consumer *consumer, uint32_t partition)
{
    struct stream_reader *stream = consumer->stream;
    struct amqp *self = consumer->channel->amqp;
    struct partition_reader *reader = &stream->partitions[partition];
    while (reader->count > 0 && stream->credit > 0 && self->stage == STAGE_RUNNING) {
        if (conn_output_pending(self->conn) > OUTPUT_HIGH_BYTES) {
            if (list_empty(&consumer->due)) {
                list_insert(&self->unreported, &consumer->due);
                connection_timer_set(self);
            }
            return;
        }
        uint64_t behind = reader->entries[reader->at].base + reader->entries[reader->at].count;
        if (!entry_send(consumer, reader, partition))
            return;
        if (behind > reader->offset)
            reader->offset = behind;
        entry_next(self, reader);
    }
    if (reader->count == 0 && reader->read_tag == 0 && self->stage == STAGE_RUNNING)
        read_ask(consumer, reader);
}

static void pump(struct consumer *consumer)
{
    struct stream_reader *stream = consumer->stream;
    if (stream->pumping || stream->started < stream->count)
        return;
    stream->pumping = true;
    uint64_t id = consumer->id;
    struct amqp *self = consumer->channel->amqp;
    bool again = true;
    while (again) {
        again = false;
        for (uint32_t i = 0; i < stream->count; i++) {
            partition_pump(consumer, i);
            if (self->stage != STAGE_RUNNING || !consumer_by_id(self, id))
                return;
            /* A read that was answered at once brought more. */
            again |=
                stream->partitions[i].count > 0 && stream->credit > 0 && list_empty(&consumer->due);
        }
    }
    stream->pumping = false;
}

void stream_credit(struct consumer *consumer, uint32_t count)
{
    if (!consumer->stream)
        return;
    consumer->stream->credit += count;
    pump(consumer);
}

void stream_drained(struct consumer *consumer)
{
    pump(consumer);
}

/* ---- Beginning and end ---- */

static void offset_answered(struct channel *channel, struct pending *pending,
                            const struct event *event);

struct offset_wish {
    uint32_t partition;
    struct start start;
};

static void offset_ask(struct consumer *consumer, const struct offset_wish *wish)
{
    struct channel *channel = consumer->channel;
    struct pending *pending =
        pending_add(channel->amqp, channel, AMQP_BASIC_CONSUME, offset_answered);
    if (!pending)
        return;
    pending->consumer = consumer->id;
    memcpy(pending->name, wish, sizeof *wish);
    struct command command = {
        .type = COMMAND_OFFSETS,
        .object = consumer->stream->partitions[wish->partition].id,
        .offsets = {.query = wish->start.kind == START_FIRST  ? OFFSET_EARLIEST
                             : wish->start.kind == START_TIME ? OFFSET_AT_TIME
                                                              : OFFSET_LATEST,
                    .time_ms = wish->start.number},
    };
    command_send(channel->amqp, &command, channel->number, pending->tag);
}

static void begin(struct consumer *consumer)
{
    struct channel *channel = consumer->channel;
    consumer->started = true;
    if (!consumer->stream->no_wait)
        amqp_basic_consume_ok_send(
            channel->amqp->conn, channel->number,
            &(struct amqp_basic_consume_ok){.consumer_tag = consumer_tag(consumer)});
    pump(consumer);
}

static void offset_answered(struct channel *channel, struct pending *pending,
                            const struct event *event)
{
    struct consumer *consumer = consumer_by_id(channel->amqp, pending->consumer);
    struct offset_wish wish;
    memcpy(&wish, pending->name, sizeof wish);
    if (!consumer)
        return;
    if (event->err) {
        consumer_free(consumer);
        channel_event_error(channel, pending->method, event);
        return;
    }
    uint64_t offset = event->value;
    if (wish.start.kind == START_TIME && (int64_t)offset < 0) {
        /* Nothing is as young: begin with what comes next. */
        wish.start.kind = START_NEXT;
        offset_ask(consumer, &wish);
        return;
    }
    if (wish.start.kind == START_LAST && offset > 0)
        offset--;
    if (wish.start.kind == START_OFFSET && (uint64_t)wish.start.number < offset)
        offset = (uint64_t)wish.start.number;
    struct stream_reader *stream = consumer->stream;
    stream->partitions[wish.partition].offset = offset;
    if (++stream->started == stream->count)
        begin(consumer);
}

static bool consume_allowed(struct channel *channel, const struct amqp_basic_consume *m,
                            struct slice name, struct start *start)
{
    struct slice vhost = vhost_name(channel->amqp);
    if (m->no_ack)
        channel_error(channel, 540, AMQP_BASIC_CONSUME,
                      "automatic acknowledgement not supported by stream queue '%.*s' in vhost "
                      "'%.*s'",
                      (int)name.len, (const char *)name.data, (int)vhost.len,
                      (const char *)vhost.data);
    else if (channel->prefetch == 0 && channel->prefetch_global == 0)
        channel_error(channel, 406, AMQP_BASIC_CONSUME,
                      "consumer prefetch count is not set for stream queue '%.*s' in vhost '%.*s'",
                      (int)name.len, (const char *)name.data, (int)vhost.len,
                      (const char *)vhost.data);
    else if (!start_parse(m->arguments, conn_wall_ms(channel->amqp->conn), start))
        channel_error(channel, 406, AMQP_BASIC_CONSUME,
                      "invalid arg 'x-stream-offset' for stream queue '%.*s' in vhost '%.*s'",
                      (int)name.len, (const char *)name.data, (int)vhost.len,
                      (const char *)vhost.data);
    else
        return true;
    return false;
}

bool stream_consume(struct channel *channel, const struct amqp_basic_consume *m,
                    const struct topic *topic, struct consumer *consumer)
{
    struct start start;
    if (!consume_allowed(channel, m, topic->name, &start))
        return false;
    size_t size =
        sizeof(struct stream_reader) + topic->partition_count * sizeof(struct partition_reader);
    struct stream_reader *stream = calloc(1, size);
    if (!stream) {
        connection_error(channel->amqp, 506, AMQP_BASIC_CONSUME, "out of memory");
        return false;
    }
    stream->credit = channel->prefetch ? channel->prefetch : channel->prefetch_global;
    stream->no_wait = m->no_wait;
    stream->count = topic->partition_count;
    size_t name_len = topic->name.len <= 255 ? topic->name.len : 255;
    memcpy(stream->topic_name, topic->name.data, name_len);
    stream->topic = slice_make(stream->topic_name, name_len);
    arena_init(&stream->scratch, ARENA_CHUNK_BYTES, INFLATED_BYTES_MAX);
    for (uint32_t i = 0; i < stream->count; i++) {
        stream->partitions[i].id = topic->partitions[i];
        arena_init(&stream->partitions[i].inflated, ARENA_CHUNK_BYTES, INFLATED_BYTES_MAX);
    }
    consumer->stream = stream;
    uint64_t id = consumer->id;
    struct amqp *self = channel->amqp;
    for (uint32_t i = 0; i < topic->partition_count && consumer_by_id(self, id); i++)
        offset_ask(consumer, &(struct offset_wish){.partition = i, .start = start});
    return true;
}

void stream_free(struct consumer *consumer)
{
    struct amqp *self = consumer->channel->amqp;
    struct stream_reader *stream = consumer->stream;
    consumer->stream = NULL;
    for (uint32_t i = 0; i < stream->count; i++) {
        struct partition_reader *reader = &stream->partitions[i];
        entries_free(self, reader);
        if (reader->read_tag == 0 || self->stage == STAGE_DONE)
            continue;
        struct command command = {.type = COMMAND_READ_STOP, .object = reader->id};
        command_send(self, &command, consumer->channel->number, reader->read_tag);
    }
    arena_done(&stream->scratch);
    free(stream);
}
