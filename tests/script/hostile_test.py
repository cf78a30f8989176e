#!/usr/bin/env python3
"""Bad input never takes the broker down: what is none of its protocols, on every port, and HTTP that is
wrong. Whatever a peer sends, hostile.py sees to it that the broker is well and serves the others. Those
who break the other protocols knowingly stand in hostile_amqp_test.py and hostile_kafka_test.py.
Everything random comes from a seed.
"""

import random
import socket
import struct
import time

import amqp_wire as amqp
import kafka_wire as kafka
from hostile import Hostile, offer, raw, read_to_end
from kit import MIB, SLOW, in_parallel, main, say

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


if __name__ == "__main__":
    main()
