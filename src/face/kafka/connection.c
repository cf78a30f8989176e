/* The Kafka face: cuts the input into frames and gives them to request.c. A frame that is larger
 * than allowed, or a request that is none, ends the connection, as Kafka does. */
#include "face/kafka/kafka.h"

#include "base/endian.h"

#include <stdlib.h>

enum { LENGTH_BYTES = 4 };

static void *connection_open(struct conn *conn)
{
    struct kafka *kafka = calloc(1, sizeof *kafka);
    if (kafka == NULL)
        return NULL;
    kafka->conn = conn;
    kafka->timer_ms = INT64_MAX;
    return kafka;
}

static size_t connection_input(void *self, const uint8_t *data, size_t len)
{
    struct kafka *kafka = self;
    size_t used = 0;
    while (!kafka->closing && !kafka->held && len - used >= LENGTH_BYTES) {
        uint32_t size = be32_get(data + used);
        if (size > conn_config(kafka->conn)->max_request_bytes) {
            conn_log(kafka->conn, "warn", "event=\"request refused\" reason=\"too large\" bytes=%u",
                     size);
            kafka->closing = true;
            conn_close(kafka->conn, true);
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
