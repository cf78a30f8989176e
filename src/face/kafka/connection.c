/* The Kafka face: cuts the input into frames and gives them to request.c. A frame that is larger
 * than allowed, or a request that is none, ends the connection, as Kafka does. */
#include "face/kafka/kafka.h"

#include "base/endian.h"

#include <stdlib.h>

enum { LENGTH_BYTES = 4 };

/* Kafka ends connections that say nothing for long, and so its clients expect it. Rings again when
 * it may be so far. */
static void idle_watch(struct kafka *kafka, int64_t now_ms)
{
    int64_t idle_ms = (int64_t)conn_config(kafka->conn)->idle_s * 1000;
    if (idle_ms == 0 || kafka->closing)
        return;
    if (kafka->oldest != kafka->next_sequence || conn_unread(kafka->conn))
        kafka->active_ms = now_ms;
    if (now_ms - kafka->active_ms < idle_ms) {
        request_timer_set(kafka, kafka->active_ms + idle_ms);
        return;
    }
    conn_log(kafka->conn, "info", "event=\"idle connection closed\" idle_s=%u",
             conn_config(kafka->conn)->idle_s);
    requests_end(kafka, true);
}

static void *connection_open(struct conn *conn)
{
    struct kafka *kafka = calloc(1, sizeof *kafka);
    if (kafka == NULL)
        return NULL;
    kafka->conn = conn;
    kafka->timer_ms = INT64_MAX;
    kafka->active_ms = conn_now_ms(conn);
    idle_watch(kafka, kafka->active_ms);
    return kafka;
}

static size_t connection_input(void *self, const uint8_t *data, size_t len)
{
    struct kafka *kafka = self;
    size_t used = 0;
    kafka->active_ms = conn_now_ms(kafka->conn);
    while (!kafka->closing && !kafka->held && len - used >= LENGTH_BYTES) {
        uint32_t size = be32_get(data + used);
        if (size > conn_config(kafka->conn)->max_request_bytes) {
            conn_log(kafka->conn, "warn", "event=\"request refused\" reason=\"too large\" bytes=%u",
                     size);
            requests_end(kafka, true);
            break;
        }
        if (len - used - LENGTH_BYTES < size) {
            conn_want(kafka->conn, LENGTH_BYTES + (size_t)size);
            break;
        }
        request_take(kafka, slice_make(data + used + LENGTH_BYTES, size));
        used += LENGTH_BYTES + (size_t)size;
    }
    return kafka->closing ? len : used;
}

static void connection_event(void *self, const struct event *event)
{
    struct kafka *kafka = self;
    if (event->type == EVENT_ANSWER || event->type == EVENT_READ)
        request_event(kafka, event);
}

static void connection_drained(void *self)
{
    requests_throttle(self);
}

static void connection_timer(void *self, int64_t now_ms)
{
    requests_expire(self, now_ms);
    idle_watch(self, now_ms);
}

static void connection_close(void *self, enum err err)
{
    (void)err;
    requests_drop(self);
    free(self);
}

const struct face face_kafka = {
    .name = "kafka",
    .default_port = 9092,
    .protocol = METRIC_PROTOCOL_KAFKA,
    .open = connection_open,
    .input = connection_input,
    .event = connection_event,
    .drained = connection_drained,
    .timer = connection_timer,
    .close = connection_close,
};
