#!/usr/bin/env python3
"""Bad input never takes the broker down.

Whatever a peer sends, the process stays up, its memory stays within a bound, and a well-behaved client
of each protocol (witness.py) is served meanwhile. Everything random comes from a seed.
"""

import os
import random
import socket
import struct
import time
import unittest

import amqp_wire as amqp
import kafka_wire as kafka
from amqp_wire import Amqp
from kafka_wire import Kafka
from kit import MIB, SANITIZED, SLOW, Peak, WeirServer, in_parallel, main, rss_mib, say
from witness import Witness

# What a test may add to the memory at its worst, and what may be left of that when it is over.
PEAK_MIB, LEFT_MIB = 128, 96  # the cache of messages may take up to memory-limit-mib, 256

GREETINGS = {
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: curl/8\r\n\r\n",
    "http2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "tls": bytes.fromhex("16030100c8010000c40303") + bytes(range(196)),
    "redis": b"*1\r\n$4\r\nPING\r\n",
    "redis inline": b"PING\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.2p1\r\n",
    "mqtt": bytes.fromhex("101300044d5154540402003c0007") + b"client1",
    "stomp": b"CONNECT\naccept-version:1.2\nhost:/\n\n\0",
    "postgres": struct.pack(">ii", 8, 80877103),
    "smtp": b"EHLO example.org\r\n",
    "proxy": b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n",
    "amqp 1.0": b"AMQP\x00\x01\x00\x00",
    "amqp 1.0 sasl": b"AMQP\x03\x01\x00\x00",
    "amqp tls": b"AMQP\x02\x01\x00\x00",
    "amqp 0-8": b"AMQP\x01\x01\x08\x00",
    "amqp 0-9-2": b"AMQP\x00\x00\x09\x02",
    "kafka": kafka.request(kafka.API_VERSIONS, 0, b""),
    "zeros": bytes(4096),
    "ones": b"\xff" * 4096,
}


def raw(addr, timeout_s=20.0):
    connection = socket.socket()
    connection.settimeout(timeout_s)
    connection.connect(addr)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def offer(connection, data):
    """Sends what the peer is willing to take."""
    try:
        connection.sendall(data)
    except OSError:
        pass


def read_to_end(connection):
    """All that the other side says until it closes."""
    said = b""
    try:
        while piece := connection.recv(65536):
            said += piece
    except ConnectionError:
        pass
    return said


class Hostile(unittest.TestCase):
    """One server for the class; each test has its witness and its memory watched."""

    args = ()

    @classmethod
    def setUpClass(cls):
        cls.server = WeirServer(listen=[f"{face}=127.0.0.1:0" for face in
                                        ("amqp", "kafka", "http")], args=cls.args).start()
        with Witness(cls.server):  # what is allocated once is allocated
            time.sleep(0.1)

    @classmethod
    def tearDownClass(cls):
        try:
            cls.server.stop()  # asserts that it was up and ends with 0
        finally:
            cls.server.clean()

    def setUp(self):
        self.amqp, self.kafka, self.http = map(self.server.addr, ("amqp", "kafka", "http"))
        self.witness = Witness(self.server).__enter__()
        self.peak = Peak(self.server).__enter__()

    def tearDown(self):
        self.peak.__exit__()
        self.witness.__exit__(None, None, None)
        self.assertTrue(self.server.running, "the server is gone\n" + self.server.log_tail())
        self.witness.check()
        before, left = self.peak.before_mib, rss_mib(self.server)
        say(f"memory: {before:.1f} MiB before, {self.peak.mib:.1f} at most, {left:.1f} after")
        if not SANITIZED:
            self.assertLess(self.peak.mib, before + PEAK_MIB)
            self.assertLess(left, before + LEFT_MIB)


class Garbage(Hostile):
    def test_random_bytes_on_every_port(self):
        def throw(addr, seed):
            chance = random.Random(seed)
            for _ in range(100):
                connection = raw(addr)
                offer(connection, chance.randbytes(chance.choice((1, 7, 8, 100, 5000, 70000))))
                if chance.random() < 0.5:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                          struct.pack("ii", 1, 0))  # a reset
                connection.close()

        in_parallel([lambda addr=addr, seed=seed: throw(addr, seed)
                     for seed in range(3) for addr in (self.amqp, self.kafka, self.http)])

    def test_other_greetings_to_amqp_are_answered_with_our_header(self):
        for name, greeting in GREETINGS.items():
            with self.subTest(name), raw(self.amqp) as connection:
                offer(connection, greeting)
                self.assertEqual(read_to_end(connection), amqp.HELLO)

    def test_other_greetings_to_kafka_end_the_connection(self):
        for name, greeting in GREETINGS.items() | {"amqp": amqp.HELLO}.items():
            if name == "kafka":
                continue
            with self.subTest(name), raw(self.kafka) as connection:
                offer(connection, greeting)
                connection.shutdown(socket.SHUT_WR)
                self.assertEqual(read_to_end(connection), b"")


class HttpRequests(Hostile):
    def answer(self, data):
        with raw(self.http) as connection:
            offer(connection, data)
            connection.shutdown(socket.SHUT_WR)
            return read_to_end(connection)

    def test_other_greetings_are_no_requests(self):
        for name, greeting in GREETINGS.items():
            with self.subTest(name):
                said = self.answer(greeting)
                if name != "http":
                    self.assertRegex(said, rb"^(HTTP/1\.1 [45]\d\d |$)")

    def test_requests_that_are_too_much(self):
        for name, (data, code) in {
            "a line without end": (b"GET /" + b"a" * MIB, b"4"),
            "headers without end": (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200000, b"4"),
            "an enormous body": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 18 +
                                 b"\r\n\r\n", b"4"),
            "a longer number": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 99 +
                                b"\r\n\r\n", b"4"),
            "a negative body": (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", b"4"),
            "enormous chunks": (b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" +
                                b"f" * 16 + b"\r\n", b"4"),
            "a zero byte": (b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n", b"4"),
        }.items():
            with self.subTest(name):
                self.assertRegex(self.answer(data), b"^HTTP/1\\.1 " + code)

    def test_byte_by_byte_and_one_after_the_other(self):
        request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
        with raw(self.http) as connection:
            for at in range(len(request)):
                connection.send(request[at:at + 1])
            self.assertRegex(connection.recv(65536), rb"^HTTP/1\.1 200 ")
        last = request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        said = self.answer(request * 50 + last)
        self.assertEqual(said.count(b"HTTP/1.1 200 "), 51)

    def test_requests_without_end_and_without_reading(self):
        with raw(self.http) as connection:
            connection.settimeout(1.0)
            data, sent = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 1000, 0
            try:
                while sent < 512 * MIB:
                    sent += connection.send(data)
            except (TimeoutError, ConnectionError):
                pass
            say(f"{sent >> 10} KiB of requests were taken without reading an answer")
            self.assertLess(sent, 512 * MIB)


class AmqpFrames(Hostile):
    def login(self, **options):
        return Amqp.login(self.amqp, **options)

    def test_a_frame_of_four_gigabytes(self):
        for stage in ("before login", "after login"):
            for kind in (1, 2, 3, 8):
                with self.subTest(stage=stage, kind=kind):
                    if stage == "after login":
                        client = self.login(channel=1)
                    else:
                        client = Amqp(self.amqp)
                        client.send(amqp.HELLO)
                        client.expect(amqp.START)
                    client.send(struct.pack(">BHI", kind, 1, 0xFFFFFFFF))
                    client.expect_error(501)

    def test_an_unknown_frame_type(self):
        client = self.login(channel=1)
        client.send(amqp.frame(77, 1, b"whatever"))
        client.expect_error(501)

    def test_a_wrong_frame_end(self):
        client = self.login(channel=1)
        client.send(amqp.frame(amqp.METHOD, 1, b"\0\x32\0\x0a", end=b"\0"))
        client.expect_error(501)

    def test_lengths_inside_a_frame_that_reach_beyond_it(self):
        four_gigabytes = b"\xff\xff\xff\xff"
        declare = struct.pack(">H", 0) + amqp.short("q") + b"\0"
        for name, arguments in {
            "table": declare + four_gigabytes,
            "table, a byte too long": declare + struct.pack(">I", 1),
            "string in a table": declare + amqp.long(amqp.short("k") + b"S" + four_gigabytes),
            "array in a table": declare + amqp.long(amqp.short("k") + b"A" + four_gigabytes),
            "table in a table": declare + amqp.long(amqp.short("k") + b"F" + four_gigabytes),
            "bytes in a table": declare + amqp.long(amqp.short("k") + b"x" + four_gigabytes),
            "name in a table": declare + amqp.long(b"\xff"),
            "no value": declare + amqp.long(amqp.short("k")),
            "unknown type": declare + amqp.long(amqp.short("k") + b"?"),
            "short string": struct.pack(">H", 0) + b"\xffq",
            "nothing": b"",
        }.items():
            with self.subTest(name):
                client = self.login(channel=1)
                client.send(amqp.method(1, amqp.QUEUE_DECLARE, arguments))
                self.assertIn(client.expect_error_of((501, 502)), (501, 502))

    def test_a_body_announced_larger_than_allowed(self):
        for size in (16 * MIB + 1, 1 << 40, 1 << 63, (1 << 64) - 1):
            client = self.login(channel=1)
            client.send(amqp.method(1, amqp.PUBLISH, struct.pack(">H", 0) + amqp.short("") +
                                    amqp.short("q") + b"\0") +
                        amqp.frame(amqp.HEADER, 1, struct.pack(">HHQH", 60, 0, size, 0)))
            code = struct.unpack(">H", client.expect(amqp.CHANNEL_CLOSE)[:2])[0]
            self.assertEqual(code, 406, size)
            client.send(amqp.method(1, amqp.CHANNEL_CLOSE_OK))
            client.channel_open(2)
            client.leave()

    def test_a_body_longer_than_announced(self):
        client = self.login(channel=1)
        client.queue_declare(1, "longer", exclusive=True)
        client.send(amqp.method(1, amqp.PUBLISH, struct.pack(">H", 0) + amqp.short("") +
                                amqp.short("longer") + b"\0") +
                    amqp.frame(amqp.HEADER, 1, struct.pack(">HHQH", 60, 0, 3, 0)) +
                    amqp.frame(amqp.BODY, 1, b"four"))
        self.assertIn(client.expect_error_of((501, 505)), (501, 505))

    def test_deeply_nested_tables(self):
        """As deep as a frame allows: in arguments, in properties, and before login."""
        nested = b""
        while len(nested) < 130000:
            nested = b"\1k" + b"F" + struct.pack(">I", len(nested)) + nested
            if len(nested) > 60000:
                break
        lists = b""
        while len(lists) < 60000:
            lists = b"A" + struct.pack(">I", len(lists)) + lists
        tables = {"tables": nested, "arrays": b"\1k" + lists}
        for name, inside in tables.items():
            with self.subTest(name, where="arguments"):
                client = self.login(channel=1)
                client.send(amqp.method(1, amqp.QUEUE_DECLARE, struct.pack(">H", 0) +
                                        amqp.short("") + b"\x04" + amqp.long(inside)))
                client.expect_any()
                client.close()
            with self.subTest(name, where="properties"):
                client = self.login(channel=1)
                client.queue_declare(1, "nested", exclusive=True)
                header = struct.pack(">HHQH", 60, 0, 1, 1 << 13) + amqp.long(inside)
                client.send(amqp.method(1, amqp.PUBLISH, struct.pack(">H", 0) + amqp.short("") +
                                        amqp.short("nested") + b"\0") +
                            amqp.frame(amqp.HEADER, 1, header) + amqp.frame(amqp.BODY, 1, b"x") +
                            amqp.method(1, amqp.GET, struct.pack(">H", 0) + amqp.short("nested") +
                                        b"\1"))
                client.expect_any()
                client.close()
            with self.subTest(name, where="client properties"):
                client = Amqp(self.amqp)
                client.send(amqp.HELLO)
                client.expect(amqp.START)
                client.send(amqp.method(0, amqp.START_OK, amqp.long(inside) + amqp.short("PLAIN") +
                                        amqp.long("\0guest\0guest") + amqp.short("en_US")))
                client.expect_any()
                client.close()

    def test_frames_out_of_order(self):
        to_publish = amqp.method(1, amqp.PUBLISH, struct.pack(">H", 0) + amqp.short("") +
                                 amqp.short("q") + b"\0")
        header = amqp.frame(amqp.HEADER, 1, struct.pack(">HHQH", 60, 0, 3, 0))
        body = amqp.frame(amqp.BODY, 1, b"abc")
        qos = amqp.method(1, amqp.QOS, struct.pack(">IHB", 0, 1, 0))
        for name, (frames, code) in {
            "header first": (header, 505),
            "body first": (body, 505),
            "body instead of header": (to_publish + body, 505),
            "two headers": (to_publish + header + header, 505),
            "method before header": (to_publish + qos, 505),
            "method before body": (to_publish + header + qos, 505),
            "publish in publish": (to_publish + to_publish, 505),
            "header of another class": (to_publish + amqp.frame(
                amqp.HEADER, 1, struct.pack(">HHQH", 50, 0, 3, 0)), 505),
            "content on channel 0": (amqp.frame(amqp.HEADER, 0, struct.pack(">HHQH", 60, 0, 3, 0)),
                                     505),
            "heartbeat on a channel": (amqp.frame(amqp.HEARTBEAT, 1, b""), 505),
            "method on channel 0": (amqp.method(0, amqp.QOS, struct.pack(">IHB", 0, 1, 0)), 504),
            "channel not open": (amqp.method(9, amqp.QOS, struct.pack(">IHB", 0, 1, 0)), 504),
            "content on a channel not open": (amqp.frame(amqp.HEADER, 9, struct.pack(
                ">HHQH", 60, 0, 3, 0)), 504),
            "channel opened twice": (amqp.method(1, amqp.CHANNEL_OPEN, amqp.short("")), 504),
            "unknown class": (amqp.method(1, (99, 1)), 503),
            "unknown method": (amqp.method(1, (60, 99)), 503),
            "a method that only servers send": (amqp.method(1, amqp.DELIVER), 503),
            "method frame without a method": (amqp.frame(amqp.METHOD, 1, b"\0"), 501),
            "opened a second time": (amqp.open_(), 503),
            "tuned a second time": (amqp.tune_ok(10, 131072, 0), 503),
        }.items():
            with self.subTest(name):
                client = self.login(channel=1)
                client.send(frames)
                client.expect_error(code)

    def test_methods_before_their_time(self):
        publish = amqp.publish(1, "", "q", b"x")
        for name, (frames, ends_with) in {
            "publish before login": (publish, (503, 504, 505)),
            "open before login": (amqp.open_(), (503,)),
            "tune before login": (amqp.tune_ok(1, 131072, 0), (503,)),
            "channel before login": (amqp.method(1, amqp.CHANNEL_OPEN, amqp.short("")), (503, 504)),
        }.items():
            with self.subTest(name):
                client = Amqp(self.amqp)
                client.send(amqp.HELLO)
                client.expect(amqp.START)
                client.send(frames)
                client.expect_error_of(ends_with)

    def test_a_channel_in_error_takes_nothing_and_can_be_opened_again(self):
        client = self.login(channel=1)
        client.queue_declare(1, "after-error", exclusive=True)
        client.send(amqp.method(1, amqp.GET, struct.pack(">H", 0) + amqp.short("not-there") +
                                b"\1"))
        client.expect(amqp.CHANNEL_CLOSE)
        client.publish(1, "", "after-error", b"lost, as the channel is closed")
        client.send(amqp.method(1, amqp.QOS, struct.pack(">IHB", 0, 1, 0)))
        client.send(amqp.method(1, amqp.CHANNEL_CLOSE_OK))
        client.channel_open(1)
        self.assertEqual(client.queue_depth(1, "after-error"), 0)
        client.leave()

    def test_one_byte_at_a_time(self):
        client = Amqp(self.amqp)

        def drip(data):
            for at in range(len(data)):
                client.socket.send(data[at:at + 1])

        drip(amqp.HELLO)
        client.expect(amqp.START)
        drip(amqp.start_ok())
        client.expect(amqp.TUNE)
        drip(amqp.tune_ok(0xFF, 4096, 0) + amqp.open_())
        client.expect(amqp.OPEN_OK)
        drip(amqp.method(1, amqp.CHANNEL_OPEN, amqp.short("")))
        client.expect(amqp.CHANNEL_OPEN_OK)
        client.queue_declare(1, "dripped", exclusive=True)
        body = bytes(i & 0xFF for i in range(9000))
        drip(amqp.publish(1, "", "dripped", body, frame_max=4096))
        drip(amqp.method(1, amqp.GET, struct.pack(">H", 0) + amqp.short("dripped") + b"\1"))
        client.expect(amqp.GET_OK)
        self.assertEqual(client.expect_content(), body)
        client.leave()

    def test_cut_off_after_every_byte(self):
        """A whole conversation, ended after each of its bytes; halves are never taken for wholes."""
        with self.login(channel=1) as client:
            client.queue_declare(1, "cut", durable=True)
        said = (amqp.HELLO + amqp.start_ok() + amqp.tune_ok(0xFF, 4096, 0) + amqp.open_() +
                amqp.method(1, amqp.CHANNEL_OPEN, amqp.short("")) +
                amqp.publish(1, "", "cut", b"complete", delivery_mode=2))

        def cut(first):
            for end in range(first, len(said) + 1, 4):
                connection = raw(self.amqp)
                connection.sendall(said[:end])
                if end % 2:
                    connection.shutdown(socket.SHUT_WR)
                    read_to_end(connection)
                connection.close()

        in_parallel([lambda first=first: cut(first) for first in range(4)])
        with self.login(channel=1) as client:
            self.assertLessEqual(client.queue_depth(1, "cut"), 1)

    def test_mutated_conversations(self):
        """What a client says, with a few bytes changed: anything may come back but a crash."""
        frames = [amqp.start_ok(), amqp.tune_ok(0xFF, 8192, 0), amqp.open_(),
                  amqp.method(1, amqp.CHANNEL_OPEN, amqp.short("")),
                  amqp.method(1, amqp.CONFIRM_SELECT, b"\0"),
                  amqp.method(1, amqp.QUEUE_DECLARE, struct.pack(">H", 0) + amqp.short("mutant") +
                              b"\x04" + amqp.table({"x-max-length": 5, "x-note": ["a", {"b": 1}]})),
                  amqp.method(1, amqp.QUEUE_BIND, struct.pack(">H", 0) + amqp.short("mutant") +
                              amqp.short("amq.headers") + amqp.short("k") + b"\0" +
                              amqp.table({"x-match": "any", "a": 1})),
                  amqp.method(1, amqp.CONSUME, struct.pack(">H", 0) + amqp.short("mutant") +
                              amqp.short("") + b"\0" + amqp.table({"x-priority": 3})),
                  amqp.publish(1, "", "mutant", b"m" * 300, delivery_mode=2),
                  amqp.publish(1, "amq.headers", "k", b"n" * 30),
                  amqp.method(1, amqp.ACK, struct.pack(">QB", 1, 0)),
                  amqp.method(1, amqp.NACK, struct.pack(">QB", 2, 2))]

        def mutate(seed):
            chance = random.Random(seed)
            for _ in range(600):
                mine = list(frames)
                victim = chance.randrange(len(mine))
                changed = bytearray(mine[victim])
                for _ in range(chance.randint(1, 3)):
                    at = chance.randrange(len(changed))
                    what = chance.random()
                    if what < 0.5:
                        changed[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
                    elif what < 0.7:
                        del changed[at]
                    else:
                        changed[at:at] = chance.randbytes(chance.randint(1, 8))
                mine[victim] = bytes(changed)
                connection = raw(self.amqp)
                offer(connection, amqp.HELLO + b"".join(mine))
                connection.shutdown(socket.SHUT_WR)
                read_to_end(connection)
                connection.close()

        in_parallel([lambda seed=seed: mutate(seed) for seed in range(4)])

    def test_the_negotiated_number_of_channels_is_the_limit(self):
        client = self.login()
        client.send(*(amqp.method(n, amqp.CHANNEL_OPEN, amqp.short("")) for n in range(1, 2048)))
        for _ in range(1, 2048):
            client.expect(amqp.CHANNEL_OPEN_OK)
        client.send(amqp.method(2048, amqp.CHANNEL_OPEN, amqp.short("")))
        client.expect_error_of((504, 530))

class Patience(Hostile):
    """What the server waits for, and for how long."""

    def test_missing_heartbeats_end_the_connection(self):
        began = time.monotonic()
        client = Amqp.login(self.amqp, heartbeat=1, channel=1)
        client.expect_end()
        took = time.monotonic() - began
        say(f"heartbeat 1 s: ended after {took:.1f} s of silence")
        self.assertTrue(1.5 < took < 5 * SLOW, took)

    def test_whoever_does_not_log_in_is_sent_away(self):
        began = time.monotonic()

        def linger(said):
            connection = raw(self.amqp, timeout_s=30)
            connection.sendall(said)
            read_to_end(connection)
            return time.monotonic() - began

        def start_ok(arguments):
            return amqp.HELLO + amqp.method(0, amqp.START_OK, arguments)

        stops = (b"", b"AMQ", amqp.HELLO, amqp.HELLO + amqp.start_ok(),
                 amqp.HELLO + amqp.start_ok() + amqp.tune_ok(100, 131072, 60))
        lies = (start_ok(b"\xff\xff\xff\xff"), start_ok(amqp.table({}) + b"\xff"),
                start_ok(amqp.table({}) + amqp.short("PLAIN") + b"\xff\xff\xff\xff"),
                start_ok(amqp.table({}) + amqp.short("PLAIN") + amqp.long(b"\0" * 100000) +
                         amqp.short("")),
                amqp.HELLO + amqp.start_ok(password="wrong", properties={}))
        took = in_parallel([lambda said=said: linger(said) for said in stops + lies])
        say("handshakes that stop end after " +
            ", ".join(f"{t:.1f}" for t in took[:len(stops)]) + " s, those that lie after " +
            ", ".join(f"{t:.1f}" for t in took[len(stops):]) + " s")
        self.assertLess(max(took), 15 * SLOW)

    def test_a_flood_of_garbage_is_not_read_for_ever(self):
        """Garbage as fast as it goes: the connection ends, whatever the peer goes on to say."""

        def flood(addr):
            block, sent, began = b"\xff" * MIB, 0, time.monotonic()
            with raw(addr) as connection:
                try:
                    while time.monotonic() < began + 10 * SLOW:
                        sent += connection.send(block)
                except ConnectionError:
                    return sent, time.monotonic() - began
            raise AssertionError(f"{sent} bytes were taken, and no end")

        for sent, took in in_parallel([lambda addr=addr: flood(addr)
                                       for addr in (self.amqp, self.kafka)]):
            say(f"{sent >> 20} MiB were taken in {took:.1f} s")


class ManyChannels(Hostile):
    args = ("--channel-max", "65535")

    def test_65535_channels_of_one_connection(self):
        client = Amqp.login(self.amqp)
        before = rss_mib(self.server)
        for first in range(1, 65536, 5000):
            numbers = range(first, min(first + 5000, 65536))
            client.send(*(amqp.method(n, amqp.CHANNEL_OPEN, amqp.short("")) for n in numbers))
            for _ in numbers:
                client.expect(amqp.CHANNEL_OPEN_OK)
        each = (rss_mib(self.server) - before) * 1024 * 1024 / 65535
        say(f"a channel costs {each:.0f} bytes")
        client.queue_declare(65535, "last", exclusive=True)
        client.publish(65535, "", "last", b"x")
        self.assertEqual(client.get(65535, "last")[1], b"x")
        client.leave()
        if not SANITIZED:
            self.assertLess(each, 1024)


class KafkaRequests(Hostile):
    def ends(self, data):
        with raw(self.kafka) as connection:
            offer(connection, data)
            return read_to_end(connection)

    def test_sizes_that_cannot_be(self):
        for size in (-1, -(1 << 31), (1 << 31) - 1, (100 << 20) + 1, 0, 1, 2, 7):
            with self.subTest(size=size):
                self.assertEqual(self.ends(struct.pack(">i", size) + b"\0" * max(0, min(size, 7))),
                                 b"")

    def test_unknown_apis_and_versions(self):
        for api, version in ((-1, 0), (999, 0), (32767, 32767), (kafka.PRODUCE, 99),
                             (kafka.FETCH, 0), (kafka.FETCH, -1), (kafka.METADATA, -32768)):
            with self.subTest(api=api, version=version):
                self.assertEqual(self.ends(kafka.request(api, version, b"\0" * 20)), b"")

    def test_arrays_and_strings_of_billions(self):
        billions = struct.pack(">i", 0x7FFFFFFF)
        for name, data in {
            "metadata topics": kafka.request(kafka.METADATA, 4, billions),
            "metadata, minus two": kafka.request(kafka.METADATA, 4, struct.pack(">i", -2)),
            "topic name": kafka.request(kafka.METADATA, 4, struct.pack(">ih", 1, 0x7FFF)),
            "negative name": kafka.request(kafka.METADATA, 4, struct.pack(">ih", 1, -2)),
            "client id": struct.pack(">ihhih", 10, 3, 4, 1, 0x7FFF),
            "produce topics": kafka.request(kafka.PRODUCE, 3, struct.pack(">hhi", -1, -1, 1000) +
                                            billions),
            "produce partitions": kafka.request(
                kafka.PRODUCE, 3, struct.pack(">hhii", -1, -1, 1000, 1) + kafka.text("t") +
                billions),
            "records": kafka.request(
                kafka.PRODUCE, 3, struct.pack(">hhii", -1, -1, 1000, 1) + kafka.text("t") +
                struct.pack(">ii", 1, 0) + billions),
            "fetch topics": kafka.request(kafka.FETCH, 4, struct.pack(
                ">iiiib", -1, 0, 0, 1 << 20, 0) + billions),
            "create topics": kafka.request(kafka.CREATE_TOPICS, 2, billions),
            "create assignments": kafka.request(
                kafka.CREATE_TOPICS, 2, struct.pack(">i", 1) + kafka.text("t") +
                struct.pack(">ih", -1, -1) + billions),
            "flexible array": kafka.request(kafka.METADATA, 9, b"\0" + b"\xff\xff\xff\xff\x0f"),
            "flexible string": kafka.request(kafka.METADATA, 9, b"\0\2" + b"\xff\xff\xff\xff\x0f"),
            "flexible tags": kafka.request(kafka.METADATA, 9, b"\xff\xff\xff\xff\x0f"),
            "endless varint": kafka.request(kafka.METADATA, 9, b"\0" + b"\xff" * 40),
        }.items():
            with self.subTest(name):
                self.assertEqual(self.ends(data), b"")

    def test_many_small_elements_stay_within_the_memory_of_one_request(self):
        """Megabytes of two-byte array elements that decode into far more."""
        count = 5_000_000
        for name, data in {
            "metadata, empty names": kafka.request(
                kafka.METADATA, 4, struct.pack(">i", count) + b"\0\0" * count + b"\0"),
            "delete topics": kafka.request(
                kafka.DELETE_TOPICS, 1, struct.pack(">i", count) + b"\0\0" * count +
                struct.pack(">i", 1000)),
        }.items():
            with self.subTest(name), raw(self.kafka) as connection:
                offer(connection, data)
                connection.shutdown(socket.SHUT_WR)
                read_to_end(connection)

    def test_more_partitions_than_allowed_are_refused(self):
        with Kafka(self.kafka) as client:
            for count in (0x7FFFFFFF, 100_000_000, 0, -5):
                with self.subTest(partitions=count):
                    self.assertNotEqual(client.topics_create([f"wide{count}"], count), [0])

    def test_batches_that_lie(self):
        good = kafka.batch([b"one", b"two"])
        lies = {"crc": good[:17] + bytes(4) + good[21:],
                "length, longer": good[:8] + struct.pack(">i", len(good)) + good[12:],
                "length, negative": good[:8] + struct.pack(">i", -1) + good[12:],
                "magic": good[:16] + b"\x09" + good[17:],
                "cut": good[:-5], "shorter than a head": good[:30], "empty": b""}
        checked = bytearray(good[21:])
        for name, at, form, what in (("count", 36, ">i", 0x7FFFFFFF), ("count", 36, ">i", -1),
                                     ("last offset", 2, ">i", 0x7FFFFFFF),
                                     ("codec", 0, ">h", 7), ("compressed", 0, ">h", 4)):
            changed = bytearray(checked)
            struct.pack_into(form, changed, at, what)
            lies[f"{name} {what}"] = good[:17] + struct.pack(">I", kafka.crc32c(changed)) + changed
        with Kafka(self.kafka) as client:
            self.assertEqual(client.topics_create(["lies"]), [0])
            for name, data in lies.items():
                with self.subTest(name):
                    error, _ = client.produce("lies", 0, bytes(data))
                    if not name.startswith("compressed"):  # that one is found out when it is read
                        self.assertNotEqual(error, 0)
            error, _ = client.produce("lies", 0, good)
            self.assertEqual(error, 0)

    def test_one_byte_at_a_time(self):
        with Kafka(self.kafka) as client:
            self.assertEqual(client.topics_create(["dripped"]), [0])
            data = kafka.batch([b"drop"])
            for byte in kafka.request(kafka.PRODUCE, 3, kafka.produce_body("dripped", 0, data)):
                client.socket.send(bytes([byte]))
            _, answer = client.receive()
            self.assertEqual(client.produce_answer(answer), (0, 0))

    def test_cut_off_after_every_byte(self):
        with Kafka(self.kafka) as client:
            self.assertEqual(client.topics_create(["cut"]), [0])
            data = kafka.request(kafka.PRODUCE, 3, kafka.produce_body(
                "cut", 0, kafka.batch([b"complete"])))
            for end in range(len(data)):
                connection = raw(self.kafka)
                connection.sendall(data[:end])
                connection.close()
            self.assertEqual(client.fetch_all("cut"), [])

    def test_mutated_requests(self):
        with Kafka(self.kafka) as client:
            self.assertEqual(client.topics_create(["mutant"]), [0])
        requests = [kafka.request(kafka.API_VERSIONS, 0, b""),
                    kafka.request(kafka.METADATA, 4, kafka.array([kafka.text("mutant")]) + b"\0"),
                    kafka.request(kafka.PRODUCE, 3, kafka.produce_body(
                        "mutant", 0, kafka.batch([b"a" * 50, b"b"], keys=[b"k", None]))),
                    kafka.request(kafka.FETCH, 4, struct.pack(">iiiib", -1, 0, 0, 1 << 20, 0) +
                                  kafka.array([kafka.text("mutant") + kafka.array(
                                      [struct.pack(">iqi", 0, 0, 1 << 20)])])),
                    kafka.request(kafka.LIST_OFFSETS, 1, struct.pack(">i", -1) + kafka.array(
                        [kafka.text("mutant") + kafka.array([struct.pack(">iq", 0, -1)])]))]

        def mutate(seed):
            chance = random.Random(seed)
            for _ in range(1500):
                changed = bytearray(chance.choice(requests))
                for _ in range(chance.randint(1, 4)):
                    at = chance.randrange(4, len(changed))
                    changed[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
                connection = raw(self.kafka)
                offer(connection, bytes(changed))
                connection.shutdown(socket.SHUT_WR)
                read_to_end(connection)
                connection.close()

        in_parallel([lambda seed=seed: mutate(seed) for seed in range(4)])

    def test_large_requests_that_never_end(self):
        """Whoever announces much and sends some of it holds memory, but not as much as he likes and
        not for ever: large requests of others are served all the same."""
        held = []
        with Kafka(self.kafka) as client:
            self.assertEqual(client.topics_create(["large"]), [0])
        data = kafka.batch([os.urandom(1000)] * 900)

        def produce():
            with Kafka(self.kafka, timeout_s=40 * SLOW) as client:
                return client.produce("large", 0, data)[0]

        try:
            for _ in range(64):
                connection = raw(self.kafka)
                held.append(connection)
                connection.settimeout(0.02)
                try:
                    connection.sendall(struct.pack(">i", 100 << 20) + bytes(8 * MIB))
                except OSError:
                    pass  # not taken, which is right
            say(f"64 halves of requests: {rss_mib(self.server):.0f} MiB")
            began = time.monotonic()
            for connection in held[4:]:  # each of the others costs some patience
                connection.close()
            self.assertEqual(in_parallel([produce] * 8, 60), [0] * 8)
            say(f"eight requests of 900 KiB beside it: {time.monotonic() - began:.1f} s")
        finally:
            for connection in held:
                connection.close()

    def test_requests_without_end_and_without_reading(self):
        """A pipeline of requests whose answers nobody takes is not read on without bound."""
        with Kafka(self.kafka) as client:
            client.socket.settimeout(1.0)
            data = kafka.request(kafka.API_VERSIONS, 0, b"") * 1000
            sent = 0
            try:
                while sent < 512 * MIB:
                    sent += client.socket.send(data)
            except TimeoutError:
                pass
            say(f"{sent >> 10} KiB of requests were taken without reading an answer")
            self.assertLess(sent, 512 * MIB)


if __name__ == "__main__":
    main()
