"""A well-behaved client of each protocol that goes on working while a test does its worst.

    with Witness(server) as witness:
        ...
    witness.check()       # it was served all the time

Every round is a durable publish that is confirmed and consumed, and a record that is produced and
fetched. Latencies are kept; a round that fails ends the test.
"""

import os
import statistics
import threading
import time

from amqp_wire import Amqp
from kafka_wire import Kafka, batch, records
from kit import SLOW, say

ONCE_MS = 10000


class Witness:
    def __init__(self, server, amqp=True, kafka=True, pause_s=0.005):
        self._server, self._pause_s = server, pause_s
        self._over = threading.Event()
        self._failure = None
        self.rounds_ms = {}
        self._threads = [threading.Thread(target=self._run, args=(kind,), daemon=True)
                         for kind, wanted in ((self._amqp, amqp), (self._kafka, kafka)) if wanted]
        self._begun = threading.Barrier(len(self._threads) + 1)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        self._begun.wait(30 * SLOW)
        return self

    def __exit__(self, kind, value, trace):
        self._over.set()
        for thread in self._threads:
            thread.join(30 * SLOW)

    def check(self, worst_ms=2000):
        """Fails when a round failed or more than one took too long."""
        if self._failure:
            raise AssertionError(f"a well-behaved client was not served: {self._failure!r}"
                                 ) from self._failure
        assert not any(thread.is_alive() for thread in self._threads), \
            "a well-behaved client hangs\n" + self._server.log_tail()
        for name, rounds in self.rounds_ms.items():
            assert rounds, f"{name}: not one round"
            say(f"meanwhile by {name}: {len(rounds)} rounds, median "
                f"{statistics.median(rounds):.1f} ms, worst {max(rounds):.1f} ms")
            # A slow disk, or a machine that does something else, may hold up one of them.
            *others, worst = sorted(rounds)
            assert worst < ONCE_MS * SLOW, f"{name}: {worst:.0f} ms"
            assert not others or others[-1] < worst_ms * SLOW, f"{name}: {others[-1]:.0f} ms"

    def _run(self, kind):
        try:
            step = kind()
            self._begun.wait(30 * SLOW)
            rounds = self.rounds_ms.setdefault(kind.__name__.strip("_"), [])
            while True:  # at least once, however short the test is
                began = time.monotonic()
                step()
                rounds.append((time.monotonic() - began) * 1000)
                if self._over.wait(self._pause_s):
                    break
        except BaseException as failure:  # noqa: BLE001
            self._failure = failure
            self._begun.abort()

    def _amqp(self):
        client = Amqp.login(self._server.addr("amqp"), channel=1)
        queue = f"witness.{os.urandom(4).hex()}"
        client.queue_declare(1, queue, durable=True)
        client.confirm_select(1)
        count = 0

        def step():
            nonlocal count
            count += 1
            body = b"%d" % count
            client.publish(1, "", queue, body, delivery_mode=2)
            assert not client.expect_confirms(1, first=count)
            got = client.get(1, queue)
            assert got and got[1] == body, f"{got} instead of {body}"

        return step

    def _kafka(self):
        client = Kafka(self._server.addr("kafka"))
        topic = f"witness.{os.urandom(4).hex()}"
        assert client.topics_create([topic]) == [0]
        data = batch([b"witness"])
        expected = 0

        def step():
            nonlocal expected
            error, offset = client.produce(topic, 0, data)
            assert (error, offset) == (0, expected), (error, offset, expected)
            error, _, got = client.fetch(topic, 0, offset)
            found = [item for item in records(got) if item[0] == offset]
            assert error == 0 and found == [(offset, None, b"witness")], (error, found)
            expected += 1

        return step
