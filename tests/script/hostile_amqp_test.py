#!/usr/bin/env python3
"""Peers that break AMQP: frames, tables and contents that lie, conversations that are cut off, mutated
or never go on. hostile.py sees to it that the broker is well and serves the others meanwhile.
Everything random comes from a seed.
"""

import random
import socket
import struct
import time

import amqp_wire as amqp
from amqp_wire import Amqp
from hostile import Hostile, offer, raw, read_to_end
from kit import MIB, SANITIZED, SLOW, in_parallel, main, rss_mib, say


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


if __name__ == "__main__":
    main()
