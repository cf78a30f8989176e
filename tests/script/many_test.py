#!/usr/bin/env python3
"""Many of everything: connections, short-lived connections, queues, topics, messages; and what is left
of them.

    python3 tests/script/many_test.py [--long] [CLASS[.TEST]]

--long takes half an hour: a million connections, a million queues, 100 million messages."""

import os
import resource
import select
import socket
import struct
import sys
import time
import unittest

import amqp_wire as amqp
import kafka_wire as kafka
from amqp_wire import Amqp
from kafka_wire import Kafka
from kit import (SANITIZED, WeirServer, sockets, files_allow, in_parallel, main, rss_mib, say,
                 wait_until)
from witness import Witness

LONG = "--long" in sys.argv or os.environ.get("WEIR_LONG") == "1"
if LONG:
    os.environ["WEIR_LONG"] = "1"  # for the processes that run the classes
    sys.argv = [word for word in sys.argv if word != "--long"]
PARTS = 10 if SANITIZED else 1
CONNECTIONS = 5000 // PARTS
CHURN = (1000000 if LONG else 20000) // PARTS
MESSAGES = (100000000 if LONG else 1000000) // PARTS
WAIT_S = 4 * 3600 if LONG else 60
QUEUES = 10000 // PARTS
TOPICS = 1000 // PARTS
SETTLED = 8  # rounds until malloc hardly asks for more
QUEUE_ROUNDS = 50 if LONG else 2 * SETTLED
# Connections that come from several addresses do not run out of ports.
SOURCES = [f"127.0.0.{n}" for n in range(2, 10)]

LOGIN = (amqp.HELLO + amqp.start_ok() + amqp.tune_ok(100, 131072, 0) + amqp.open_() +
         amqp.method(1, amqp.CHANNEL_OPEN, amqp.short("")))
CHANNEL_IS_OPEN = amqp.method(1, amqp.CHANNEL_OPEN_OK, b"\0\0\0\0")
VERSIONS = kafka.request(kafka.API_VERSIONS, 0, b"")


def connect(addr, source):
    connection = socket.socket()
    connection.settimeout(30)
    connection.bind((source, 0))
    connection.connect(addr)
    return connection


def reset(connection):
    """Closes at once and leaves nothing in the kernel's tables."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def read_until(connection, end):
    got = b""
    while not got.endswith(end):
        piece = connection.recv(65536)
        assert piece, "closed"
        got += piece
    return got


def read_response(connection):
    size = struct.unpack(">i", connection.recv(4, socket.MSG_WAITALL))[0]
    return connection.recv(size, socket.MSG_WAITALL)


class Server(unittest.TestCase):
    args = ()

    def setUp(self):
        files_allow(CONNECTIONS * 2 + 1000)
        self.server = WeirServer(args=self.args).start()
        self.addCleanup(self.server.clean)
        self.addCleanup(self.server.stop)
        self.amqp, self.kafka = self.server.addr("amqp"), self.server.addr("kafka")
        with Witness(self.server):  # what is allocated once is allocated
            time.sleep(0.1)
        self.sockets, self.files = sockets(self.server), self.open_files()
        self.before_mib = rss_mib(self.server)

    def open_files(self):
        return len(os.listdir(f"/proc/{self.server.pid}/fd"))

    def wait_for_sockets(self):
        wait_until(lambda: sockets(self.server) <= self.sockets, 10,
                   lambda: f"{sockets(self.server)} sockets, {self.sockets} before")


class Idle(Server):
    def test_5000_connections_of_each_kind(self):
        for name, addr, hello, answer in (
                ("amqp", self.amqp, LOGIN, lambda c: read_until(c, CHANNEL_IS_OPEN)),
                ("kafka", self.kafka, VERSIONS, read_response)):
            before, began = rss_mib(self.server), time.monotonic()
            held = []

            def open_some(number, hello=hello, answer=answer, addr=addr, held=held):
                mine = [connect(addr, SOURCES[number]) for _ in range(CONNECTIONS // 4)]
                held.extend(mine)
                for connection in mine:
                    connection.sendall(hello)
                for connection in mine:
                    answer(connection)

            in_parallel([lambda n=n: open_some(n) for n in range(4)])
            took = time.monotonic() - began
            each = (rss_mib(self.server) - before) * 1024 / len(held)
            say(f"{name}: {len(held)} connections in {took:.1f} s, {each:.2f} KiB each, "
                f"{rss_mib(self.server):.1f} MiB in all")
            self.assertGreaterEqual(sockets(self.server), len(held))
            if not SANITIZED:
                self.assertLess(each, 8)
            with Witness(self.server) as witness:
                time.sleep(0.5)
            witness.check()
            for connection in held:
                reset(connection)
            self.wait_for_sockets()
        left = rss_mib(self.server)
        say(f"{self.before_mib:.1f} MiB before, {left:.1f} after")

    def test_connections_beyond_the_limit_are_refused_and_served_when_there_is_room(self):
        with WeirServer(args=("--max-connections", 40, "--shards", 2)) as server:
            addr = server.addr("kafka")
            held, refused = [], 0
            for i in range(200):
                connection = connect(addr, SOURCES[i % 8])
                try:
                    connection.sendall(VERSIONS)
                    read_response(connection)
                    held.append(connection)
                except (OSError, struct.error):
                    refused += 1
                    connection.close()
            say(f"--max-connections 40: {len(held)} served, {refused} refused")
            self.assertTrue(1 <= len(held) <= 40, len(held))
            for connection in held:
                reset(connection)

            def served():
                connection = connect(addr, SOURCES[0])
                try:
                    connection.sendall(VERSIONS)
                    return read_response(connection)
                except (OSError, struct.error):
                    return None
                finally:
                    reset(connection)

            wait_until(served, 5, "a place is free again")


class Churn(Server):
    def test_20000_connections_come_and_go(self):
        def churn(number):
            for i in range(CHURN // 4):
                connection = connect((self.amqp, self.kafka)[i % 2], SOURCES[number])
                what = i // 2 % 4
                if what == 1:
                    connection.sendall(LOGIN if i % 2 == 0 else VERSIONS)
                    connection.recv(1)
                elif what == 2:
                    connection.sendall(LOGIN if i % 2 == 0 else VERSIONS)
                elif what == 3:
                    connection.sendall(b"AMQP" if i % 2 == 0 else b"\0\0")
                reset(connection)

        began = time.monotonic()
        with Witness(self.server) as witness:
            in_parallel([lambda n=n: churn(n) for n in range(4)], WAIT_S)
        took = time.monotonic() - began
        witness.check(worst_ms=10000 if LONG else 2000)
        self.wait_for_sockets()
        self.assertLess(self.open_files(), self.files + 50)
        left = rss_mib(self.server)
        say(f"{CHURN} connections in {took:.1f} s; {self.before_mib:.1f} MiB before, {left:.1f} "
            "after")
        if not SANITIZED:
            self.assertLess(left, self.before_mib + 16)

    def test_files_run_out_and_come_back(self):
        """A server that may open few files goes on when some are closed."""
        with WeirServer() as server:
            open_now = len(os.listdir(f"/proc/{server.pid}/fd"))
            resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (open_now + 20,) * 2)
            waiting = [connect(server.addr("kafka"), SOURCES[0]) for _ in range(60)]
            for connection in waiting:  # the kernel has taken them all
                connection.sendall(VERSIONS)
            rounds = 0
            while waiting:  # those who are answered go, and the next are served
                answered = select.select(waiting, [], [], 10)[0]
                self.assertTrue(answered, f"{len(waiting)} of 60 are not served")
                rounds += 1
                for connection in answered:
                    read_response(connection)
                    reset(connection)
                    waiting.remove(connection)
            say(f"room for 20: 60 were served in {rounds} rounds")


def delivery_bytes(queue, body):
    """Of frames on channel 1 for the consumer c, once bytes tell how many messages came."""
    return (len(amqp.method(1, amqp.DELIVER, amqp.short("c") + struct.pack(">QB", 1, 0) +
                            amqp.short("") + amqp.short(queue))) +
            len(amqp.frame(amqp.HEADER, 1, struct.pack(">HHQH", 60, 0, 1, 1 << 12) + b"\1")) +
            len(amqp.frame(amqp.BODY, 1, body)))


class Messages(Server):
    args = ("--memory-limit-mib", 64)

    def test_messages_come_and_go(self):
        """One publishes as fast as it goes and one takes: what is left is what was there before."""
        burst_count, taken, began = 1000, 0, time.monotonic()
        consumer = Amqp.login(self.amqp, channel=1, timeout_s=60)
        consumer.queue_declare(1, "flow", exclusive=True)
        body = b"m" * 100
        burst = amqp.publish(1, "", "flow", body, delivery_mode=1) * burst_count
        size = None
        middle = []

        def publish():
            with Amqp.login(self.amqp, channel=1, timeout_s=600) as client:
                for _ in range(MESSAGES // burst_count):
                    client.send(burst)
                client.queue_declare(1, "flow.end", exclusive=True)

        def take():
            nonlocal taken, size
            consumer.consume(1, "flow", no_ack=True, tag="c")
            assert consumer.expect_delivery()[2] == body
            size = delivery_bytes("flow", body)
            left = (MESSAGES - 1) * size
            while left > 0:
                piece = len(consumer.receive_bytes(min(left, 1 << 20)))
                left -= piece
                if len(middle) < 2 and left < (MESSAGES - 1) * size * (2 - len(middle)) // 3:
                    middle.append(rss_mib(self.server))
            taken = MESSAGES

        in_parallel([publish, take], WAIT_S)
        took = time.monotonic() - began
        self.assertEqual(consumer.queue_depth(1, "flow"), 0)
        consumer.leave()
        self.wait_for_sockets()
        left = rss_mib(self.server)
        say(f"{taken} messages in {took:.1f} s; {self.before_mib:.1f} MiB before, "
            f"{middle[0]:.1f} and {middle[1]:.1f} on the way, {left:.1f} after; {self.files} open "
            f"files before, {self.open_files()} after")
        self.assertLess(self.open_files(), self.files + 50)
        if not SANITIZED:
            self.assertLess(left, self.before_mib + 96)
            self.assertLess(left, middle[0] + 32)


class Backlog(Server):
    args = ("--memory-limit-mib", 16, "--shards", 4)

    def test_transient_messages_that_nobody_takes_wait_with_their_publisher(self):
        """Their bytes go to a file, but where they are must be known: that takes memory, too."""
        count, burst_count, sent, heard = 600000, 1000, 0, []
        consumer = Amqp.login(self.amqp, channel=1, timeout_s=60)
        consumer.queue_declare(1, "flow", exclusive=True)
        body = b"m" * 20
        burst = amqp.publish(1, "", "flow", body, delivery_mode=1) * burst_count

        def publish():
            nonlocal sent
            with Amqp.login(self.amqp, channel=1, timeout_s=600) as client:
                for _ in range(count // burst_count):
                    client.send(burst)
                    sent += burst_count
                client.queue_declare(1, "flow.end", exclusive=True)
                heard.extend(client.other)
                if amqp.BLOCKED in heard and amqp.UNBLOCKED not in heard:
                    client.expect(amqp.UNBLOCKED)

        def take():
            known = -1
            while known != sent:
                known = sent
                time.sleep(2)
            full = rss_mib(self.server)
            consumer.consume(1, "flow", no_ack=True, tag="c")
            assert consumer.expect_delivery()[2] == body
            left = (count - 1) * delivery_bytes("flow", body)
            while left > 0:
                left -= len(consumer.receive_bytes(min(left, 1 << 20)))
            say(f"{known} of {count} messages were taken while nobody took any; "
                f"{self.before_mib:.1f} MiB before, {full:.1f} then")
            self.assertLess(known, count)
            if not SANITIZED:
                self.assertLess(full, self.before_mib + 2 * 16 + 16)

        in_parallel([publish, take], WAIT_S)
        self.assertIn(amqp.BLOCKED, heard)
        self.assertIn("memory full, publishers wait", self.server.log())
        self.assertEqual(consumer.queue_depth(1, "flow"), 0)
        consumer.leave()


class Objects(Server):
    # What was deleted is forgotten at the next checkpoint; memory should not differ by machine.
    args = ("--journal-limit-mib", 1, "--shards", 4)

    def declare(self, client, durable, first, count):
        flags = 2 if durable else 0
        for start in range(first, first + count, 500):
            numbers = range(start, min(start + 500, first + count))
            client.send(*(amqp.method(1, amqp.QUEUE_DECLARE, struct.pack(">H", 0) +
                                      amqp.short(f"q.{n}") + bytes([flags]) + amqp.table({}))
                          for n in numbers))
            for _ in numbers:
                client.expect(amqp.QUEUE_DECLARE_OK)

    def delete(self, client, first, count):
        for start in range(first, first + count, 500):
            numbers = range(start, min(start + 500, first + count))
            client.send(*(amqp.method(1, amqp.QUEUE_DELETE, struct.pack(">H", 0) +
                                      amqp.short(f"q.{n}") + b"\0") for n in numbers))
            for _ in numbers:
                client.expect(amqp.QUEUE_DELETE_OK)

    def test_10000_queues_come_and_go(self):
        client = Amqp.login(self.amqp, channel=1, timeout_s=60)
        after = []
        for round_ in range(QUEUE_ROUNDS):
            for durable in (False, True):
                before, began = rss_mib(self.server), time.monotonic()
                self.declare(client, durable, 0, QUEUES)
                declared = time.monotonic() - began
                client.send(*(amqp.publish(1, "", f"q.{n}", b"one") for n in range(0, QUEUES, 10)))
                client.roundtrip(1, "q.0")
                if round_ == 0:
                    say(f"{QUEUES} {'durable' if durable else 'transient'} queues in "
                        f"{declared:.1f} s, {(rss_mib(self.server) - before) * 1024 / QUEUES:.2f} "
                        "KiB each")
                self.delete(client, 0, QUEUES)
            after.append(rss_mib(self.server))
        say(f"{self.before_mib:.1f} MiB before, after each round "
            + ", ".join(f"{mib:.1f}" for mib in after) +
            f"; {self.files} open files before, {self.open_files()} after")
        self.assertLess(self.open_files(), self.files + 50)
        if not SANITIZED:
            # What malloc keeps of the peaks is there after some rounds, give or take two steps of
            # some MiB; what objects left would come in each round, to the last.
            self.assertLess(after[-1], after[SETTLED] + 20)
            self.assertLess(min(b - a for a, b in zip(after[SETTLED:], after[SETTLED + 1:])), 0.25)
            self.assertLess(after[-1], self.before_mib + 72)
        client.leave()

    def test_1000_topics_come_and_go(self):
        client = Kafka(self.kafka, timeout_s=60)
        after = []
        data = kafka.batch([b"one"])
        for round_ in range(3):
            before = rss_mib(self.server)
            names = [f"t.{n}" for n in range(TOPICS)]
            self.assertEqual(set(client.topics_create(names, partitions=4)), {0})
            if round_ == 0:
                say(f"{TOPICS} topics of 4 partitions: "
                    f"{(rss_mib(self.server) - before) * 1024 / TOPICS / 4:.2f} KiB a partition")
            for name in names[::10]:
                self.assertEqual(client.produce(name, 3, data), (0, 0))
            self.assertEqual(set(client.topics_delete(names)), {0})
            after.append(rss_mib(self.server))
        say(f"{self.before_mib:.1f} MiB before, after each round "
            + ", ".join(f"{mib:.1f}" for mib in after))
        if not SANITIZED:
            self.assertLess(after[2], after[0] + 4)
            self.assertLess(after[2], self.before_mib + 32)
        client.close()

    def test_exclusive_queues_go_with_their_connections(self):
        for _ in range(20):
            client = Amqp.login(self.amqp, channel=1)
            for n in range(100):
                client.queue_declare(1, f"exclusive.{n}", exclusive=True)
            client.close()
            with Amqp.login(self.amqp, channel=1) as other:
                # Ours as soon as the broker has noticed: until then it is locked.
                def free():
                    other.send(amqp.method(1, amqp.QUEUE_DECLARE, struct.pack(">H", 0) +
                                           amqp.short("exclusive.99") + b"\x01" + amqp.table({})))
                    arguments = other.expect(amqp.CHANNEL_CLOSE)
                    code = struct.unpack(">H", arguments[:2])[0]
                    other.send(amqp.method(1, amqp.CHANNEL_CLOSE_OK))
                    other.channel_open(1)
                    return code == 404

                wait_until(free, 5, "the exclusive queues are gone")


if __name__ == "__main__":
    main()
