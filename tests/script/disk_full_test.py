#!/usr/bin/env python3
"""A full disk: producers are refused or slowed in words they know, nothing acknowledged is lost,
consumers go on, and when there is room again all goes on by itself. On a tmpfs, and on an ext4 in a
file, which finds out late what it has no room for. Needs root, to mount them."""

import itertools
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import tempfile
import threading
import time
import unittest

import amqp_wire as amqp
import kafka_wire as kafka
from amqp_wire import Amqp
from kafka_wire import Kafka
from kit import MIB, SLOW, WeirServer, main, rss_mib, say, wait_until

SIZE_MIB = 64
# The errors that Kafka's clients take as "try again": KAFKA_STORAGE_ERROR, NOT_LEADER_OR_FOLLOWER,
# NOT_ENOUGH_REPLICAS(_AFTER_APPEND), REQUEST_TIMED_OUT, THROTTLING_QUOTA_EXCEEDED.
RETRIABLE = {56, 6, 19, 20, 7, 89}


class Disk:
    """A file system, a data folder on it and a file that takes the room away."""

    def __init__(self, kind):
        self.mount = pathlib.Path(tempfile.mkdtemp(prefix="disk-", dir=os.environ.get("WEIR_TMP")))
        self._image = self.mount.with_suffix(".image")
        try:
            self._mount(kind)
        except (OSError, subprocess.CalledProcessError) as problem:
            self.mount.rmdir()
            self._image.unlink(missing_ok=True)
            words = getattr(problem, "stderr", None) or problem
            raise unittest.SkipTest(f"no {kind} can be mounted here: {words}")
        self.data, self._filler = self.mount / "data", self.mount / "filler"

    def _mount(self, kind):
        words = ["-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "weir-test"]
        if kind == "ext4":
            with open(self._image, "wb") as image:
                image.truncate(SIZE_MIB * MIB)
            self._run("mkfs.ext4", "-q", "-F", "-m", "0", self._image)
            words = ["-o", "loop", self._image]
        self._run("mount", *words, self.mount)

    @staticmethod
    def _run(*words):
        subprocess.run([str(word) for word in words], capture_output=True, text=True, check=True,
                       env={**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"})

    def free(self):
        got = os.statvfs(self.mount)
        return got.f_bavail * got.f_frsize

    def fill(self, leave=0):
        step = 4 * MIB
        with open(self._filler, "ab") as file:
            while (left := self.free() - leave) > 0:
                try:
                    size = os.fstat(file.fileno()).st_size
                    os.posix_fallocate(file.fileno(), size, min(left, step))
                except OSError:  # the broker was faster
                    step = max(4096, step // 2)

    def make_room(self):
        self._filler.unlink(missing_ok=True)

    def done(self):
        subprocess.run(["umount", "-l", str(self.mount)], check=True)
        shutil.rmtree(self.mount, ignore_errors=True)
        self._image.unlink(missing_ok=True)


class DiskFull(unittest.TestCase):
    kind = "tmpfs"
    args = ("--journal-limit-mib", 4, "--cells", 2, "--shards", 2)

    def setUp(self):
        self.disk = Disk(self.kind)
        self.addCleanup(self.disk.done)
        self.server = WeirServer(data=self.disk.data, args=self.args)
        self.addCleanup(self.server.clean)
        self.server.start()
        self.addCleanup(self.server.stop)
        self.amqp, self.kafka = self.server.addr("amqp"), self.server.addr("kafka")

    def publisher(self, queue, size, confirmed, over, base=0):
        """Publishes until told to stop; adds what is confirmed, by numbers above base. Returns the
        thread and the words (connection.blocked and unblocked) that it heard."""
        client = Amqp.login(self.amqp, channel=1, timeout_s=90 * SLOW)
        client.confirm_select(1)

        def run():
            try:
                publish()
            except (OSError, AssertionError, amqp.Closed):
                pass  # the server ended: what is not confirmed may or may not be there

        def publish():
            first = 1
            while not over.is_set():
                numbers = range(first, first + 10)
                client.send(*(amqp.publish(1, "", queue, struct.pack(">Q", base + n) +
                                           bytes(size - 8), delivery_mode=2) for n in numbers))
                refused = client.expect_confirms(10, first=first)
                confirmed.update(base + n for n in set(numbers) - refused)
                first += 10
            client.leave()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread, client.other

    def drain(self, queue, count):
        """Takes so many messages; returns their numbers."""
        found = []
        with Amqp.login(self.server.addr("amqp"), channel=1) as client:
            client.qos(1, 100)
            client.consume(1, queue, tag="drain")
            while len(found) < count:
                tag, _, body = client.expect_delivery()
                found.append(struct.unpack(">Q", body[:8])[0])
                client.ack(1, tag)
            client.send(amqp.method(1, amqp.CANCEL, amqp.short("drain") + b"\0"))
            while client.expect(amqp.DELIVER, amqp.CANCEL_OK)[0] == amqp.DELIVER:
                client.expect_content()  # goes back with the connection
            client.leave()
        return found

    def depth(self, queue):
        with Amqp.login(self.amqp, channel=1) as client:
            depth = client.queue_depth(1, queue)
            client.leave()
            return depth

    def test_publishers_wait_consumers_drain_and_it_recovers_by_itself(self):
        queue, confirmed, over = "full", set(), threading.Event()
        with Amqp.login(self.amqp, channel=1) as client:
            client.queue_declare(1, queue, durable=True)
            client.leave()
        thread, words = self.publisher(queue, 20000, confirmed, over)
        wait_until(lambda: len(confirmed) > 100, 10, "a hundred confirms")
        self.disk.fill()
        wait_until(lambda: amqp.BLOCKED in words, 30,
                   lambda: f"no connection.blocked; {len(confirmed)} confirms, "
                           f"{self.disk.free()} bytes free\n{self.server.log_tail()}")
        stood = len(confirmed)
        say(f"connection.blocked after {stood} confirms")
        time.sleep(0.5)
        self.assertTrue(self.server.running, self.server.log_tail())
        self.assertEqual(len(confirmed), stood, "confirmed although the disk is full")
        self.assertIn("disk", self.server.log_tail())

        with Kafka(self.kafka) as other:  # others may look, and are told to try again
            self.assertIn(kafka.PRODUCE, other.api_versions())
        found = self.drain(queue, stood)  # consumers go on
        self.assertEqual(found[:stood], sorted(found[:stood]))
        say(f"{len(found)} messages were consumed while the disk was full")

        self.disk.make_room()
        wait_until(lambda: len(confirmed) > stood, 20,
                   lambda: f"no confirms after there was room: {len(confirmed)} as {stood}\n"
                           f"{self.server.log_tail()}")
        while len(confirmed) < stood + 5000 or amqp.UNBLOCKED not in words:
            found += self.drain(queue, self.depth(queue))  # or it would soon be full again
            self.assertTrue(thread.is_alive(), "the publisher ended")
        over.set()
        thread.join(20 * SLOW)
        self.assertFalse(thread.is_alive())
        found += self.drain(queue, self.depth(queue))
        missing = confirmed - set(found)
        self.assertFalse(missing, f"{len(missing)} of {len(confirmed)} confirmed are lost")

    def test_what_was_confirmed_is_there_after_a_crash_on_a_full_disk(self):
        queue, confirmed, over = "crash", set(), threading.Event()
        with Amqp.login(self.amqp, channel=1) as client:
            client.queue_declare(1, queue, durable=True)
            client.leave()
        thread, words = self.publisher(queue, 5000, confirmed, over)
        wait_until(lambda: len(confirmed) > 100, 10, "a hundred confirms")
        self.disk.fill()
        wait_until(lambda: amqp.BLOCKED in words, 30, "no connection.blocked")
        self.server.kill()
        over.set()
        thread.join(20)
        try:
            self.server.start()
        except AssertionError as problem:  # it may not start without room, but says so
            self.assertIn("disk", str(problem))
            say("it does not start on a full disk, and says so")
            self.disk.make_room()
            self.server.start()
        self.disk.make_room()
        found = set(self.drain(queue, self.depth(queue)))
        missing = confirmed - found
        self.assertFalse(missing, f"{len(missing)} of {len(confirmed)} confirmed are lost")
        say(f"{len(confirmed)} confirmed, {len(found)} found")

    def produce_until_refused(self, client, data, kept):
        """Returns the error, and how many records were acknowledged before it."""
        while True:
            error, offset = client.produce("full", 0, data, timeout_ms=2000)
            if error:
                return error, kept
            self.assertEqual(offset, kept)
            kept += 20

    def test_kafka_producers_get_an_error_that_they_retry(self):
        data = kafka.batch([bytes(10000)] * 20)
        with Kafka(self.kafka, timeout_s=10 * SLOW) as client:
            self.assertEqual(client.topics_create(["full"]), [0])
            for kept in range(0, 400, 20):
                self.assertEqual(client.produce("full", 0, data), (0, kept))
            self.disk.fill()
            error, kept = self.produce_until_refused(client, data, 400)
            say(f"error {error} after {kept} records")
            self.assertIn(error, RETRIABLE)
            for _ in range(3):  # it tries again, and is told again
                error, _ = client.produce("full", 0, data, timeout_ms=500)
                self.assertIn(error, RETRIABLE)
        with Kafka(self.kafka, timeout_s=10 * SLOW) as client:  # readers go on
            self.assertGreaterEqual(len(client.fetch_all("full")), kept)
            self.disk.make_room()
            wait_until(lambda: client.produce("full", 0, data)[0] == 0, 20, "produce works again")
            found = client.fetch_all("full")
            self.assertEqual([offset for offset, _, _ in found], list(range(len(found))))
            self.assertGreaterEqual(len(found), kept + 20)

    def test_another_producer_is_refused_and_served_when_there_is_room(self):
        """One that comes when the disk is full already. What was taken and cannot be written is
        answered too, when the producer's time is over."""
        data = kafka.batch([bytes(10000)] * 20)
        with Kafka(self.kafka) as client:
            self.assertEqual(client.topics_create(["full"]), [0])
        over, confirmed = threading.Event(), set()
        with Amqp.login(self.amqp, channel=1) as client:
            client.queue_declare(1, "fills", durable=True)
            client.leave()
        thread, words = self.publisher("fills", 20000, confirmed, over)
        wait_until(lambda: len(confirmed) > 20, 10, "confirms")
        self.disk.fill()
        wait_until(lambda: amqp.BLOCKED in words, 30, "no connection.blocked")
        with Kafka(self.kafka, timeout_s=10 * SLOW) as client:
            for _ in range(3):
                began = time.monotonic()
                error, _ = client.produce("full", 0, data, timeout_ms=1000)
                self.assertIn(error, RETRIABLE | {0})  # its cell may still have room of its own
                self.assertLess(time.monotonic() - began, 3 * SLOW)
            over.set()
            self.disk.make_room()
            wait_until(lambda: client.produce("full", 0, data)[0] == 0, 20, "produce works again")
        thread.join(20 * SLOW)

    def test_it_can_be_stopped_while_the_disk_is_full(self):
        queue, confirmed, over = "stop", set(), threading.Event()
        with Amqp.login(self.amqp, channel=1) as client:
            client.queue_declare(1, queue, durable=True)
            client.leave()
        thread, words = self.publisher(queue, 5000, confirmed, over)
        wait_until(lambda: len(confirmed) > 100, 10, "a hundred confirms")
        self.disk.fill()
        wait_until(lambda: amqp.BLOCKED in words, 30, "no connection.blocked")
        began = time.monotonic()
        self.server.stop()
        say(f"stopped after {time.monotonic() - began:.1f} s")
        self.assertLess(time.monotonic() - began, 10 * SLOW)
        thread.join(20)
        self.disk.make_room()
        self.server.start()
        missing = confirmed - set(self.drain(queue, self.depth(queue)))
        self.assertFalse(missing, f"{len(missing)} of {len(confirmed)} confirmed are lost")

    def test_transient_messages_need_no_disk(self):
        self.disk.fill()
        with Amqp.login(self.amqp, channel=1) as client:
            client.confirm_select(1)
            client.queue_declare(1, "memory", auto_delete=True)
            for i in range(1, 201):
                client.publish(1, "", "memory", b"%d" % i, delivery_mode=1)
                self.assertFalse(client.expect_confirms(1, first=i))
            for i in range(1, 201):
                self.assertEqual(client.get(1, "memory")[1], b"%d" % i)
            client.leave()

    def test_definitions_wait_or_are_refused_but_do_not_end_the_broker(self):
        self.disk.fill()
        client = Amqp.login(self.amqp, channel=1, timeout_s=60 * SLOW)
        done = []

        def declare():
            for n in range(3000):
                client.queue_declare(1, f"defined.{n}.{'x' * 200}", durable=True)
                done.append(n)

        thread = threading.Thread(target=lambda: self.swallow(declare), daemon=True)
        thread.start()
        time.sleep(1.0)
        self.assertTrue(self.server.running, self.server.log_tail())
        self.disk.make_room()
        thread.join(30 * SLOW)
        self.assertFalse(thread.is_alive(), "a declaration is not answered")
        self.assertTrue(self.server.running, self.server.log_tail())
        self.server.restart(signal.SIGKILL)
        with Amqp.login(self.server.addr("amqp"), channel=1) as other:
            for n in done:
                other.queue_declare(1, f"defined.{n}.{'x' * 200}", passive=True)
            other.leave()
        say(f"{len(done)} declarations were answered, all are there after a crash")

    def producer(self, topic, acknowledged, over):
        """Produces until told to stop or until the server ends; adds {offset: value} of what is
        acknowledged. Returns the thread."""
        def run():
            with Kafka(self.kafka, timeout_s=60 * SLOW) as client:
                for n in itertools.count():
                    values = [b"%d.%d." % (os.getpid(), n * 10 + i) + bytes(2000) for i in range(10)]
                    error, offset = client.produce(topic, 0, kafka.batch(values), timeout_ms=1000)
                    if error == 0:
                        acknowledged.update(zip(range(offset, offset + 10), values))
                    if over.wait(0.05 if error else 0):
                        return

        thread = threading.Thread(target=lambda: self.swallow(run), daemon=True)
        thread.start()
        return thread

    def test_it_is_filled_and_freed_again_and_again_and_killed_in_between(self):
        queue, confirmed, found, acknowledged = "rounds", set(), [], {}
        with Amqp.login(self.amqp, channel=1) as client:
            client.queue_declare(1, queue, durable=True)
            client.leave()
        with Kafka(self.kafka) as client:
            self.assertEqual(client.topics_create(["records"]), [0])
        for number in range(4):
            over, before = threading.Event(), len(confirmed)
            producer = self.producer("records", acknowledged, over)
            thread, words = self.publisher(queue, 20000, confirmed, over, number * 1000000)
            wait_until(lambda: len(confirmed) > before + 20, 20, "confirms")
            self.disk.fill()
            wait_until(lambda: amqp.BLOCKED in words, 30, "no connection.blocked")
            if number % 2 == 1:
                over.set()
                self.server.kill()
                self.disk.make_room()
                self.server.start()
                self.amqp, self.kafka = self.server.addr("amqp"), self.server.addr("kafka")
            else:
                self.disk.make_room()
                stood = len(confirmed)
                wait_until(lambda: len(confirmed) > stood, 20, "no confirms after there was room")
                over.set()
            thread.join(30 * SLOW)
            producer.join(30 * SLOW)
            self.assertFalse(thread.is_alive() or producer.is_alive())
            found += self.drain(queue, self.depth(queue))
        missing = confirmed - set(found)
        self.assertFalse(missing, f"{len(missing)} of {len(confirmed)} confirmed are lost")
        with Kafka(self.kafka) as client:
            there = {offset: value for offset, _, value in client.fetch_all("records")}
        lost = [offset for offset, value in acknowledged.items() if there.get(offset) != value]
        self.assertFalse(lost, f"{len(lost)} of {len(acknowledged)} acknowledged records are lost")
        say(f"4 times full, 2 kills: {len(confirmed)} messages and {len(acknowledged)} records, "
            "0 lost")

    @staticmethod
    def swallow(job):
        try:
            job()
        except (OSError, AssertionError, amqp.Closed):
            pass

    def test_the_memory_stays_bounded_while_publishers_are_kept_waiting(self):
        with Amqp.login(self.amqp, channel=1) as client:
            for n in range(8):
                client.queue_declare(1, f"wait.{n}", durable=True)
            client.leave()
        before = rss_mib(self.server)
        self.disk.fill(leave=4 * MIB)
        clients = [Amqp.login(self.amqp, channel=1) for _ in range(8)]
        message = [amqp.publish(1, "", f"wait.{n}", bytes(50000), delivery_mode=2) * 20
                   for n in range(8)]
        for client in clients:
            client.socket.settimeout(0.3)
        sent = [0] * 8
        for _ in range(40):
            for n, client in enumerate(clients):
                try:
                    while sent[n] < 64 * MIB:
                        sent[n] += client.socket.send(message[n])
                except (TimeoutError, ConnectionError):
                    clients[n].socket.settimeout(0.01)
        say(f"{sum(sent) >> 20} MiB were taken; {before:.0f} MiB before, "
            f"{rss_mib(self.server):.0f} after")
        self.assertLess(sum(sent), 8 * 64 * MIB)
        self.assertLess(rss_mib(self.server), 200 * SLOW)
        for client in clients:
            client.close()
        self.disk.make_room()


class DiskFullOnExt4(DiskFull):
    kind = "ext4"


if __name__ == "__main__":
    main()
