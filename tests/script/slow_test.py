#!/usr/bin/env python3
"""Slow, stuck and vanished peers: memory stays within its limit, and the others are served.

The limit is --memory-limit-mib; what a process has besides (code, tables, connections' buffers,
the allocator's slack) is the margin that the tests state.
"""

import os
import socket
import struct
import threading
import time

import amqp_wire as amqp
import kafka_wire as kafka
from amqp_wire import Amqp
from kafka_wire import Kafka
from kit import (MIB, SANITIZED, SLOW, Peak, ServerTest, sockets, in_parallel, main, rss_mib, say,
                 wait_until)
from witness import Witness

LIMIT_MIB = 64
MARGIN_MIB = 64
# A large message is whole in memory where it is put together, where it is kept and where it is sent.
LARGE_MARGIN_MIB = MARGIN_MIB + 2 * 3 * 16
BIG_MIB = 500 // (10 if SANITIZED else 1)
TCP_REPAIR = 19


class Server(ServerTest):
    args = ("--memory-limit-mib", LIMIT_MIB)

    def setUp(self):
        self.amqp, self.kafka = self.server.addr("amqp"), self.server.addr("kafka")

    def assert_bounded(self, peak, what, margin_mib=MARGIN_MIB):
        say(f"{what}: {peak.before_mib:.0f} MiB before, {peak.mib:.0f} at most "
            f"(limit {LIMIT_MIB} + {margin_mib}), {rss_mib(self.server):.0f} now")
        if not SANITIZED:
            self.assertLess(peak.mib, LIMIT_MIB + margin_mib)


def publish_much(addr, queue, total_mib, size, durable=False):
    """Publishes so many MiB in messages of this size, in step with confirms. Returns (messages,
    seconds)."""
    client = Amqp.login(addr, channel=1, timeout_s=60 * SLOW)
    client.confirm_select(1)
    count = total_mib * MIB // size
    body = bytes(size - 8)
    began, sent, confirmed = time.monotonic(), 0, 0
    window = max(1, 8 * MIB // size)
    mode = 2 if durable else 1

    while confirmed < count:
        burst = min(window - (sent - confirmed), count - sent, max(1, MIB // size))
        if burst > 0:
            client.send(*(amqp.publish(1, "", queue, struct.pack(">Q", sent + i) + body,
                                       delivery_mode=mode) for i in range(burst)))
            sent += burst
        if sent == count or sent - confirmed >= window:
            tag, multiple = struct.unpack(">QB", client.expect(amqp.ACK))
            confirmed = tag if multiple else confirmed + 1
    took = time.monotonic() - began
    client.leave()
    return count, took


class NeverReads(Server):
    """A consumer that never reads from its socket while half a gigabyte is published to it."""

    def never_reads(self, name, no_ack, durable, size):
        queue = f"stuck.{name}"
        # The receive buffer is small, so that the kernel does not take the messages off.
        consumer = Amqp.login(self.amqp, channel=1, receive_buffer=4096, timeout_s=60 * SLOW)
        consumer.queue_declare(1, queue, durable=durable)
        consumer.consume(1, queue, no_ack=no_ack, tag="stuck")
        with Witness(self.server) as witness, Peak(self.server) as peak:
            count, took = publish_much(self.amqp, queue, BIG_MIB, size, durable)
        witness.check(worst_ms=3000)
        say(f"{name}: {count} messages, {BIG_MIB / took:.0f} MiB/s")
        self.assert_bounded(peak, name)
        consumer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MIB)
        began = time.monotonic()
        with Peak(self.server) as peak:  # and now it reads: everything, in order
            for expected in range(count):
                tag, redelivered, body = consumer.expect_delivery()
                self.assertEqual((struct.unpack(">Q", body[:8])[0], redelivered),
                                 (expected, False))
                if not no_ack and (expected % 1000 == 999 or expected == count - 1):
                    consumer.ack(1, tag, multiple=True)
        self.assert_bounded(peak, f"{name}, drained")
        say(f"{name}: drained at {BIG_MIB / (time.monotonic() - began):.0f} MiB/s")
        consumer.send(amqp.method(1, amqp.CANCEL, amqp.short("stuck") + b"\0"))
        consumer.expect(amqp.CANCEL_OK)
        self.assertEqual(consumer.queue_delete(1, queue), 0)
        consumer.leave()

    def test_transient_without_acknowledgements(self):
        self.never_reads("transient, auto-ack", True, False, 10240)

    def test_transient_with_acknowledgements(self):
        self.never_reads("transient, manual", False, False, 10240)

    def test_durable_without_acknowledgements(self):
        self.never_reads("durable, auto-ack", True, True, 100 << 10)

    def test_durable_with_acknowledgements(self):
        self.never_reads("durable, manual", False, True, 10240)


class Small(Server):
    def test_a_million_small_messages_to_one_that_never_reads(self):
        consumer = Amqp.login(self.amqp, channel=1, receive_buffer=4096)
        consumer.queue_declare(1, "small")
        consumer.consume(1, "small")
        publisher = Amqp.login(self.amqp, channel=1, timeout_s=60 * SLOW)
        burst = amqp.publish(1, "", "small", b"x" * 100, delivery_mode=1) * 1000
        with Peak(self.server) as peak:
            for _ in range(1000 if not SANITIZED else 20):
                publisher.send(burst)
            publisher.roundtrip(1, "small")
        self.assert_bounded(peak, "a million of 100 bytes")
        publisher.leave()
        consumer.close()


class Large(Server):
    def test_messages_of_16_mib_at_full_speed(self):
        size, count = 16 * MIB, 20 if not SANITIZED else 4
        consumer = Amqp.login(self.amqp, channel=1, timeout_s=60 * SLOW)
        consumer.queue_declare(1, "large")
        consumer.qos(1, 1)
        consumer.consume(1, "large")
        body = os.urandom(16) * (MIB)

        def send():
            client = Amqp.login(self.amqp, channel=1, timeout_s=60 * SLOW)
            frames = amqp.publish(1, "", "large", body, delivery_mode=1)
            for _ in range(count):
                client.socket.sendall(frames)
            client.roundtrip(1, "large")
            client.leave()

        def take():
            for _ in range(2 * count):
                tag, _, got = consumer.expect_delivery()
                assert len(got) == size and got == body
                consumer.ack(1, tag)

        with Witness(self.server) as witness, Peak(self.server) as peak:
            in_parallel([send, send, take], 60)
        witness.check(worst_ms=3000)
        self.assert_bounded(peak, f"{2 * count} messages of 16 MiB from two", LARGE_MARGIN_MIB)
        consumer.leave()
        wait_until(lambda: SANITIZED or rss_mib(self.server) < LIMIT_MIB, 5,
                   lambda: f"{rss_mib(self.server):.0f} MiB are kept")


class Readers(Server):
    def test_readers_of_a_topic_who_never_read(self):
        """Forty fetchers ask for 50 MiB each, several times, and take nothing."""
        with Kafka(self.kafka) as client:
            self.assertEqual(client.topics_create(["wide"]), [0])
            data = kafka.batch([bytes(1000)] * 1000)
            for _ in range(100 if not SANITIZED else 10):
                self.assertEqual(client.produce("wide", 0, data)[0], 0)
        fetch = kafka.request(kafka.FETCH, 4, struct.pack(
            ">iiiib", -1, 0, 1, 50 << 20, 0) + kafka.array([kafka.text("wide") + kafka.array(
                [struct.pack(">iqi", 0, 0, 50 << 20)])]))
        stuck = []
        with Witness(self.server) as witness, Peak(self.server) as peak:
            for _ in range(40):
                stuck.append(Kafka(self.kafka, receive_buffer=4096))
                stuck[-1].send(fetch * 10)
            time.sleep(0.5)  # there is no event for "nothing more happens"
        witness.check(worst_ms=3000)
        self.assert_bounded(peak, "forty stuck fetchers")
        correlation, answer = stuck[0].receive()
        self.assertEqual(correlation, 1)
        for client in stuck:
            client.close()


class Silent(Server):
    args = (*Server.args, "--kafka-idle-s", 1)

    def test_kafka_clients_who_say_nothing_are_sent_away(self):
        silent, busy = Kafka(self.kafka), Kafka(self.kafka)
        began = time.monotonic()
        with busy:
            self.assertEqual(busy.topics_create(["t"]), [0])
            while time.monotonic() - began < 2.5:
                self.assertEqual(busy.produce("t", 0, kafka.batch([b"here"]))[0], 0)
                time.sleep(0.2)
            self.assertEqual(silent.socket.recv(1), b"")
            self.assertEqual(busy.produce("t", 0, kafka.batch([b"still"]))[0], 0)
        silent.close()


class Vanished(Server):
    def vanish(self, connection):
        """The socket is gone without a word to the other side, as when a machine loses power."""
        try:
            connection.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        except OSError as error:
            self.skipTest(f"TCP_REPAIR is not allowed here: {error}")
        connection.close()

    def test_vanished_consumers_are_noticed_and_their_messages_go_to_others(self):
        before = sockets(self.server)
        with Amqp.login(self.amqp, channel=1) as client:
            client.queue_declare(1, "left")
            client.confirm_select(1)
            client.send(*(amqp.publish(1, "", "left", b"%d" % i) for i in range(50)))
            client.expect_confirms(50)
            gone = []
            for _ in range(50):
                consumer = Amqp.login(self.amqp, channel=1, heartbeat=1)
                consumer.qos(1, 1)
                consumer.consume(1, "left")
                consumer.expect_delivery()
                gone.append(consumer)
            self.assertIsNone(client.get(1, "left"))
            began = time.monotonic()
            for consumer in gone:
                self.vanish(consumer.socket)
            client.consume(1, "left", no_ack=True)
            got = [client.expect_delivery() for _ in range(50)]
            say(f"fifty vanished consumers: all is redelivered after "
                f"{time.monotonic() - began:.1f} s")
            self.assertEqual(sorted(int(body) for _, _, body in got), list(range(50)))
            self.assertTrue(all(redelivered for _, redelivered, _ in got))
        wait_until(lambda: sockets(self.server) <= before, 10,
                   lambda: f"{sockets(self.server)} sockets, {before} before")

    def test_a_peer_that_only_shuts_its_sending_side_is_answered_and_let_go(self):
        before = sockets(self.server)
        client = Kafka(self.kafka)
        client.send(kafka.request(kafka.API_VERSIONS, 0, b""))
        client.socket.shutdown(socket.SHUT_WR)
        self.assertEqual(client.receive()[0], 1)
        client.expect_end()
        client.close()
        wait_until(lambda: sockets(self.server) <= before, 10, "as many sockets as before")

    def test_slow_loris(self):
        """Five hundred peers who send a byte now and then hold no memory to speak of."""
        count = 500
        before = rss_mib(self.server)
        slow, over = [], threading.Event()
        said = {self.amqp: amqp.HELLO + amqp.start_ok(),
                self.kafka: kafka.request(kafka.METADATA, 4, bytes(500))}
        for addr in said:
            for _ in range(count // 2):
                connection = socket.create_connection(addr)
                connection.setblocking(False)
                slow.append((connection, said[addr]))

        def drip():
            for at in range(100):
                for connection, words in slow:
                    try:
                        connection.send(words[at:at + 1])
                    except OSError:
                        pass
                if over.wait(0.01):
                    return

        thread = threading.Thread(target=drip, daemon=True)
        with Witness(self.server) as witness, Peak(self.server) as peak:
            thread.start()
            time.sleep(1.0)
        over.set()
        thread.join()
        witness.check()
        say(f"slow loris: {(peak.mib - before) * 1024 / count:.1f} KiB for each")
        if not SANITIZED:
            self.assertLess(peak.mib - before, 8)
        for connection, _ in slow:
            connection.close()


if __name__ == "__main__":
    main()
