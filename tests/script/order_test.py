#!/usr/bin/env python3
"""The order in which a client hears things, with shards and cells in between."""

import struct

import amqp_wire as amqp
from amqp_wire import Amqp
from kit import SANITIZED, ServerTest, main


class Order(ServerTest):
    args = ("--shards", 4)

    def login(self):
        return Amqp.login(self.server.addr("amqp"), channel=1)

    def test_a_consumer_is_told_its_tag_before_its_first_message(self):
        """On whichever shard queue and connection are, with and without messages coming in."""
        rounds = 40 if SANITIZED else 200
        with self.login() as publisher, self.login() as consumer:
            for i in range(rounds):
                queue = f"order.{i}"
                publisher.queue_declare(1, queue)
                publisher.send(*(amqp.publish(1, "", queue, b"%d" % n) for n in range(20)))
                consumer.consume(1, queue, no_ack=True, tag=queue)  # fails on anything else first
                for n in range(20):
                    self.assertEqual(consumer.expect_delivery()[2], b"%d" % n)
                consumer.send(amqp.method(1, amqp.CANCEL, amqp.short(queue) + b"\0"))
                consumer.expect(amqp.CANCEL_OK)
                publisher.queue_delete(1, queue)

    def test_a_get_sees_what_was_published_before_on_the_channel(self):
        with self.login() as client:
            for i in range(100):
                queue = f"own.{i % 16}"
                client.queue_declare(1, queue)
                client.publish(1, "", queue, b"%d" % i)
                self.assertEqual(client.get(1, queue)[1], b"%d" % i)

    def test_nothing_is_delivered_after_cancel_ok(self):
        with self.login() as publisher, self.login() as consumer:
            publisher.queue_declare(1, "cancelled")
            for i in range(50):
                consumer.consume(1, "cancelled", no_ack=True, tag="t")
                publisher.send(*(amqp.publish(1, "", "cancelled", b"x") for _ in range(50)))
                consumer.send(amqp.method(1, amqp.CANCEL, amqp.short("t") + b"\0"))
                while consumer.expect(amqp.DELIVER, amqp.CANCEL_OK)[0] == amqp.DELIVER:
                    consumer.expect_content()
                consumer.roundtrip(1, "cancelled")  # fails on a delivery

    def test_returns_come_before_their_confirms(self):
        with self.login() as client:
            client.confirm_select(1)
            for i in range(1, 200):
                client.publish(1, "", f"nowhere.{i}", b"x", mandatory=True)
                client.expect(amqp.RETURN)
                client.expect_content()
                self.assertEqual(struct.unpack(">QB", client.expect(amqp.ACK))[0], i)

    def test_many_channels_of_one_connection_keep_their_own_order(self):
        channels = 20
        with self.login() as client, self.login() as publisher:
            for channel in range(2, channels + 1):
                client.channel_open(channel)
            for channel in range(1, channels + 1):
                client.queue_declare(channel, f"channel.{channel}")
                client.consume(channel, f"channel.{channel}", no_ack=True)
            for n in range(50):
                publisher.send(*(amqp.publish(1, "", f"channel.{channel}", b"%d" % n)
                                 for channel in range(1, channels + 1)))
            seen = dict.fromkeys(range(1, channels + 1), 0)
            for _ in range(50 * channels):
                kind, channel, payload = client.receive()
                self.assertEqual(payload[:4], struct.pack(">HH", *amqp.DELIVER))
                self.assertEqual(client.expect_content(), b"%d" % seen[channel])
                seen[channel] += 1


if __name__ == "__main__":
    main()
