#include "face/amqp/amqp.h"
void stream_consume(struct channel *channel, const struct amqp_basic_consume *m,
                    const struct topic *topic, struct consumer *consumer)
{
    (void)m;
    (void)topic;
    (void)consumer;
    channel_error(channel, 540, AMQP_BASIC_CONSUME, "streams are not supported yet");
}
void stream_event(struct amqp *self, const struct event *event)
{
    for (uint32_t i = 0; i < event->read.count; i++)
        conn_release(self->conn, event->read.entries[i].buf);
}
void stream_credit(struct consumer *consumer, uint32_t count)
{
    (void)consumer;
    (void)count;
}
void stream_free(struct consumer *consumer)
{
    (void)consumer;
}
