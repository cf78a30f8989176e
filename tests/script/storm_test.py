#!/usr/bin/env python3
"""Whoever does his worst costs the others little: while an attack goes on, a well-behaved client of
each protocol (witness.py) keeps four fifths of its rate, memory stays within its limit, and nothing
that was acknowledged is lost.

    python3 tests/script/storm_test.py [CLASS[.TEST]]

Attackers are processes of their own that run when the machine has nothing else to do: what they take
from the others by being on the same machine is not what is asked here. The witness does some twenty
rounds a second of each protocol, each of which waits for the disk twice. Its rate is measured right
before each attack and during it, several times; the median of the quotients counts, as a loaded
machine may spoil one of them.
"""

import multiprocessing
import os
import select
import socket
import statistics
import struct
import threading
import time
import traceback
import unittest

import amqp_wire as amqp
import kafka_wire as kafka
from amqp_wire import Amqp
from kit import MIB, SANITIZED, SLOW, Peak, WeirServer, files_allow, main, say, wait_until
from witness import Witness

SHARE_LEAST = 0.8
# Of those who write beside somebody who fills the disk as fast as it goes, and other suites beside: they
# share the disk. Alone they keep more than 80 %.
DISK_SHARE_LEAST = 0.6
ROUNDS, ROUNDS_MAX = 3, 9
QUIET_S, ATTACK_S = 1.0, 1.5
PAUSE_S = 0.045
LIMIT_MIB = 64
# Messages up to the limit, half of it for what arrives, and what a process has besides.
BOUND_MIB = LIMIT_MIB + LIMIT_MIB // 2 + 64
SMALLER = 10 if SANITIZED else 1
SOURCES = [f"127.0.0.{n}" for n in range(2, 10)]
LOGIN = (amqp.HELLO + amqp.start_ok() + amqp.tune_ok(100, 131072, 0) + amqp.open_() +
         amqp.method(1, amqp.CHANNEL_OPEN, amqp.short("")))
WORDS = {"amqp": amqp.HELLO + amqp.start_ok(),
         "kafka": kafka.request(kafka.METADATA, 4, bytes(500)),
         "http": b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"a" * 400}
TCP_REPAIR = 19


def connect(addr, number=0, receive_buffer=None):
    connection = socket.socket()
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(30)
    connection.bind((SOURCES[number % len(SOURCES)], 0))
    connection.connect(addr)
    return connection


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def publish_begin(channel, queue, size):
    return (amqp.method(channel, amqp.PUBLISH, struct.pack(">H", 0) + amqp.short("") +
                        amqp.short(queue) + b"\0") +
            amqp.frame(amqp.HEADER, channel, struct.pack(">HHQH", 60, 0, size, 0)))


# --- Attacks: generators that begin, do some of it at each step, and clean up when they are closed.
# Each yields what it has done so far; what breaks in them is a failure of the test. ---------------


def slow_loris(addrs):
    """750 peers who say a byte a second of a greeting or a request."""
    slow = []
    for name, words in WORDS.items():
        slow += [(connect(addrs[name], n), words) for n in range(250 // SMALLER)]
    for connection, _ in slow:
        connection.setblocking(False)
    try:
        for at in range(1, 1000):
            for connection, words in slow:
                try:
                    connection.send(words[at:at + 1])
                except OSError:
                    pass
            until = time.monotonic() + 1
            while time.monotonic() < until:
                yield at
                time.sleep(0.02)
    finally:
        for connection, _ in slow:
            connection.close()


def half_open(addrs):
    """Peers who said something and are gone without a word, a hundred at a time."""
    gone = 0
    while True:
        for name in WORDS:
            for n in range(100 // 3 // SMALLER):
                connection = connect(addrs[name], n)
                connection.sendall(LOGIN if name == "amqp" and n % 2 else WORDS[name][:100])
                connection.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
                connection.close()
                gone += 1
        yield gone
        time.sleep(0.2)


def connection_storm(addrs):
    """5,000 connections as fast as one process opens them, all there at a time; again and again."""
    files_allow(7000)
    opened = 0
    while True:
        held = []
        try:
            for n in range(5000 // SMALLER):
                name = ("amqp", "kafka")[n % 2]
                held.append(connect(addrs[name], n))
                held[-1].sendall(LOGIN if name == "amqp" else kafka.request(kafka.API_VERSIONS, 0, b""))
                opened += 1
                if n % 100 == 99:
                    yield opened
            yield opened
        finally:
            for connection in held:
                reset(connection)


def many_channels(addrs):
    """10,000 channels on five connections, each of which has declared and published something."""
    connections = []
    count = 2000 // SMALLER
    for number in range(5):
        client = Amqp.login(addrs["amqp"], timeout_s=60 * SLOW)
        for first in range(1, count + 1, 250):
            numbers = range(first, min(first + 250, count + 1))
            client.send(*(amqp.method(n, amqp.CHANNEL_OPEN, amqp.short("")) for n in numbers))
            for _ in numbers:
                client.expect(amqp.CHANNEL_OPEN_OK)
            yield number * count + first
        client.queue_declare(1, f"channels.{number}", exclusive=True)
        connections.append(client)
    while True:
        for number, client in enumerate(connections):
            client.send(*(amqp.publish(n, "", f"channels.{number}", b"x")
                          for n in range(1, count + 1, 20)))
            client.roundtrip(1, f"channels.{number}")
            client.send(amqp.method(1, amqp.QUEUE_PURGE, struct.pack(">H", 0) +
                                    amqp.short(f"channels.{number}") + b"\0"))
            client.expect(amqp.QUEUE_PURGE_OK)
            yield 5 * count


def never_reads(addrs):
    """A consumer that reads nothing of what another publishes, up to 100 MiB a second."""
    consumer = Amqp.login(addrs["amqp"], channel=1, receive_buffer=4096)
    consumer.queue_declare(1, "unread", exclusive=True)
    consumer.consume(1, "unread", no_ack=True)
    with Amqp.login(addrs["amqp"], channel=1, timeout_s=60 * SLOW) as client:
        client.queue_declare(1, "unread.of.others")
        burst = amqp.publish(1, "", "unread", bytes(10240), delivery_mode=1) * 100
        mib = 0
        while True:
            client.send(burst)
            client.roundtrip(1, "unread.of.others")
            mib += 1
            yield mib
            time.sleep(0.01)


def large_messages(addrs):
    """Durable messages of 16 MiB, one after the other, while somebody takes them away. Whatever was
    confirmed comes, in order and unaltered."""
    size = 16 * MIB // (4 if SANITIZED else 1)
    taker = Amqp.login(addrs["amqp"], channel=1, timeout_s=60 * SLOW)
    taker.queue_declare(1, "large", durable=True)
    taker.qos(1, 2)
    taker.consume(1, "large")
    sender = Amqp.login(addrs["amqp"], channel=1, timeout_s=60 * SLOW)
    sender.confirm_select(1)
    filling = os.urandom(1 << 16) * (size >> 16)
    confirmed = taken = 0
    try:
        while True:
            sender.send(amqp.publish(1, "", "large", struct.pack(">Q", confirmed) + filling[8:],
                                     delivery_mode=2))
            assert not sender.expect_confirms(1, first=confirmed + 1)
            confirmed += 1
            tag, _, body = taker.expect_delivery()
            assert body == struct.pack(">Q", taken) + filling[8:], "altered or out of order"
            taken += 1
            taker.ack(1, tag)
            yield confirmed
    finally:
        assert taken == confirmed, f"{confirmed} confirmed, {taken} came"
        taker.roundtrip(1, "large")
        depth = sender.queue_delete(1, "large")
        assert depth == 0, f"{depth} are left"


def unfinished_messages(addrs):
    """1,000 bodies of 16 MiB that begin and do not end, on all channels of ten connections, by peers
    who come again when they are sent away."""
    held, begun = [], 0
    begin = b"".join(publish_begin(n, "unfinished", 16 * MIB) +
                     amqp.frame(amqp.BODY, n, bytes(100000)) for n in range(1, 101))
    opens = b"".join(amqp.method(n, amqp.CHANNEL_OPEN, amqp.short("")) for n in range(2, 101))
    try:
        while True:
            held = [[c, rest] for c, rest in held if c.fileno() >= 0]
            while len(held) < 10:
                connection = connect(addrs["amqp"], begun)
                connection.sendall(LOGIN + opens)
                connection.setblocking(False)
                held.append([connection, memoryview(begin)])
                begun += 1
            for item in held:
                connection, rest = item
                try:
                    while select.select([connection], [], [], 0)[0]:
                        if not connection.recv(65536):
                            raise ConnectionError
                    item[1] = rest[connection.send(rest[:MIB]):] if rest else rest
                except BlockingIOError:
                    pass
                except OSError:
                    connection.close()
            yield begun
            time.sleep(0.005)
    finally:
        for connection, _ in held:
            connection.close()


# --- The measuring --------------------------------------------------------------------------------


def attacker_main(attack, addrs, go, over, ready, answers):
    """In a process of its own: attacks while `go` is set, until `over`."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    done, failure, steps = 0, None, attack(addrs)
    try:
        while not over.is_set():
            if not go.wait(0.01):
                continue
            done = next(steps)
            ready.set()
        steps.close()
    except BaseException:  # noqa: BLE001
        failure = traceback.format_exc()
        ready.set()
    answers.put((done, failure))


class Attacker:
    def __init__(self, attack, addrs):
        context = multiprocessing.get_context("spawn")
        self.go, self.over, self.ready = (context.Event() for _ in range(3))
        self.answers = context.Queue()
        self.process = context.Process(target=attacker_main, daemon=True, args=(
            attack, addrs, self.go, self.over, self.ready, self.answers))
        self.process.start()

    def begin(self):
        self.go.set()
        assert self.ready.wait(60 * SLOW), "the attack does not begin"

    def pause(self):
        self.go.clear()

    def end(self):
        """How much it did."""
        self.over.set()
        self.go.set()
        done, failure = self.answers.get(timeout=60 * SLOW)
        self.process.join(30)
        if failure:
            raise AssertionError(f"the attacker failed:\n{failure}")
        return done


class Storm(unittest.TestCase):
    def setUp(self):
        files_allow(13000)
        faces = ("amqp", "kafka", "http")
        self.server = WeirServer(listen=[f"{face}=127.0.0.1:0" for face in faces],
                                 args=("--memory-limit-mib", LIMIT_MIB)).start()
        self.addCleanup(self.server.clean)
        self.addCleanup(self.server.stop)
        self.addrs = {face: self.server.addr(face) for face in faces}

    def rate(self, witness, seconds):
        """Rounds a second of each witness."""
        before = {name: len(rounds) for name, rounds in witness.rounds_ms.items()}
        began = time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - began
        return {name: (len(witness.rounds_ms[name]) - count) / took
                for name, count in before.items()}

    def suffers(self, attack, least=SHARE_LEAST):
        quotients, medians = {}, {}
        attacker = Attacker(attack, self.addrs)
        with Witness(self.server, pause_s=PAUSE_S) as witness, Peak(self.server) as peak:
            for number in range(ROUNDS_MAX):
                time.sleep(0.3)
                quiet = self.rate(witness, QUIET_S)
                attacker.begin()
                during = self.rate(witness, ATTACK_S)
                attacker.pause()
                for name, rate in during.items():
                    quotients.setdefault(name, []).append(rate / max(quiet[name], 0.1))
                medians = {name: statistics.median(values) for name, values in quotients.items()}
                if number + 1 >= ROUNDS and (SANITIZED or min(medians.values()) >= least):
                    break
            done = attacker.end()
        witness.check(worst_ms=5000)
        say(f"{attack.__name__}: {done} done; rates kept: " + ", ".join(
            f"{name} {medians[name]:.0%} ({' '.join(f'{v:.0%}' for v in values)})"
            for name, values in quotients.items()) +
            f"; memory {peak.before_mib:.0f} MiB before, {peak.mib:.0f} at most")
        self.assertTrue(self.server.running)
        if not SANITIZED:
            self.assertLess(peak.mib, BOUND_MIB)
            for name, share in medians.items():
                self.assertGreaterEqual(share, least, name)

    def test_slow_loris(self):
        self.suffers(slow_loris)

    def test_half_open_connections(self):
        try:
            with socket.socket() as probe:
                probe.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        except OSError as error:
            self.skipTest(f"TCP_REPAIR is not allowed here: {error}")
        self.suffers(half_open)

    def test_5000_connections_at_once(self):
        self.suffers(connection_storm)

    def test_10000_channels(self):
        self.suffers(many_channels)

    def test_a_consumer_that_never_reads(self):
        self.suffers(never_reads)

    def test_messages_of_16_mib_at_full_speed(self):
        self.suffers(large_messages, DISK_SHARE_LEAST)

    def test_messages_that_do_not_end(self):
        self.suffers(unfinished_messages)


class Room(unittest.TestCase):
    """Large messages of an honest client while others hold what they do not finish."""

    def test_a_large_message_gets_its_room_from_those_who_stopped_sending(self):
        with WeirServer(args=("--memory-limit-mib", LIMIT_MIB)) as server:
            stuck = [Amqp.login(server.addr("amqp"), channel=1) for _ in range(8)]
            for client in stuck:
                client.send(publish_begin(1, "stuck", 16 * MIB), amqp.frame(amqp.BODY, 1, bytes(1000)))
            client = Amqp.login(server.addr("amqp"), channel=1, timeout_s=30 * SLOW)
            client.queue_declare(1, "honest", exclusive=True)
            client.confirm_select(1)
            began = time.monotonic()
            client.publish(1, "", "honest", bytes(16 * MIB))
            self.assertFalse(client.expect_confirms(1))
            say(f"16 MiB beside eight who stopped in the middle: {time.monotonic() - began:.1f} s")
            ended = 0
            for other in stuck:
                other.socket.settimeout(0.2)
                try:
                    other.expect_error(506)
                    ended += 1
                except (OSError, AssertionError, amqp.Closed):
                    pass
                other.close()
            self.assertGreaterEqual(ended, 1)
            client.leave()


class Queued(unittest.TestCase):
    def test_connections_beyond_one_queue_of_the_kernel_are_all_served(self):
        """A thousand who connect at the same moment and all speak at once."""
        files_allow(3000)
        with WeirServer() as server:
            held = [connect(server.addr("kafka"), n) for n in range(1000 // SMALLER)]
            for connection in held:
                connection.sendall(kafka.request(kafka.API_VERSIONS, 0, b""))
            waiting = set(held)
            deadline = time.monotonic() + 10 * SLOW

            def take():
                poll = select.poll()
                by_number = {connection.fileno(): connection for connection in waiting}
                for number in by_number:
                    poll.register(number, select.POLLIN)
                for number, _ in poll.poll(100):
                    self.assertTrue(by_number[number].recv(65536))
                    waiting.discard(by_number[number])
                return not waiting or time.monotonic() > deadline

            wait_until(take, 12, lambda: f"{len(waiting)} are not served")
            self.assertFalse(waiting)
            for connection in held:
                reset(connection)


if __name__ == "__main__":
    main()
