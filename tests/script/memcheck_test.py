#!/usr/bin/env python3
"""A short mixed run under valgrind: nothing is read that was not written, nothing is used after it
was freed, nothing is lost sight of. The release binary as it is, which sanitizers cannot look into;
both protocols, transactions, dead letters, large messages, a restart and a crash."""

import os
import shutil
import signal
import struct
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
VALGRIND = ("valgrind --quiet --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite "
            f"--num-callers=20 --suppressions={HERE}/memcheck.supp")
os.environ.setdefault("WEIR_WRAP", VALGRIND)  # before the harness looks

import amqp_wire as amqp  # noqa: E402
import kafka_wire as kafka  # noqa: E402
from amqp_wire import Amqp  # noqa: E402
from kafka_wire import Kafka  # noqa: E402
from kit import WeirServer, main, say  # noqa: E402
from witness import Witness  # noqa: E402

SIZES = (0, 1, 100, 5000, 40000, 300000)
COUNT = 60


class Memcheck(unittest.TestCase):
    def amqp_mix(self, client):
        """Leaves COUNT messages in `keep`."""
        client.send(amqp.method(1, amqp.EXCHANGE_DECLARE, struct.pack(">H", 0) + amqp.short("x") +
                                amqp.short("topic") + b"\2" + amqp.table({})))
        client.expect(amqp.EXCHANGE_DECLARE_OK)
        for name, arguments in (("keep", {}), ("dead", {}),
                                ("work", {"x-dead-letter-exchange": "",
                                          "x-dead-letter-routing-key": "dead"}),
                                ("brief", {"x-message-ttl": 1, "x-max-length": 5})):
            client.send(amqp.method(1, amqp.QUEUE_DECLARE, struct.pack(">H", 0) + amqp.short(name) +
                                    b"\2" + amqp.table(arguments)))
            client.expect(amqp.QUEUE_DECLARE_OK)
        client.queue_bind(1, "work", "x", "a.#")
        client.confirm_select(1)
        for n in range(COUNT):
            body = bytes(SIZES[n % len(SIZES)])
            client.publish(1, "x", f"a.{n}", body, delivery_mode=1 + n % 2)
            client.publish(1, "", "brief", b"brief")
            client.publish(1, "", "keep", body, delivery_mode=2)
        self.assertFalse(client.expect_confirms(3 * COUNT))
        client.qos(1, 10)
        client.consume(1, "work", tag="c")
        for n in range(COUNT):
            tag, _, body = client.expect_delivery()
            self.assertEqual(len(body), SIZES[n % len(SIZES)])
            if n % 3:
                client.ack(1, tag)
            else:
                client.send(amqp.method(1, amqp.NACK, struct.pack(">QB", tag, 0)))
        client.send(amqp.method(1, amqp.CANCEL, amqp.short("c") + b"\0"))
        client.expect(amqp.CANCEL_OK)
        self.assertEqual(client.queue_depth(1, "dead"), COUNT // 3)

    def transactions(self, client):
        client.channel_open(2)
        client.send(amqp.method(2, (90, 10)))
        client.expect((90, 11))
        for answer in ((90, 20), (90, 30)):
            client.send(*(amqp.publish(2, "", "dead", bytes(size)) for size in SIZES),
                        amqp.method(2, answer))
            client.expect((answer[0], answer[1] + 1))

    def kafka_mix(self, server):
        with Kafka(server.addr("kafka"), timeout_s=60) as client:
            self.assertEqual(client.topics_create(["t"], partitions=2), [0])
            for n in range(20):
                data = kafka.batch([bytes(100)] * 50, keys=[b"k"] * 50, headers=[(b"h", b"v")])
                self.assertEqual(client.produce("t", n % 2, data)[0], 0)
            self.assertEqual(len(client.fetch_all("t", 1)), 500)

    def refuse(self, server):
        for said in (b"GET / HTTP/1.1\r\n\r\n", amqp.HELLO + b"\xff" * 100, b"\0\0\0\x7f" + b"\xff" * 127):
            for face in ("amqp", "kafka"):
                client = Amqp(server.addr(face))
                client.send(said)
                client.close()

    @unittest.skipUnless(shutil.which("valgrind"), "valgrind is not installed")
    def test_a_mixed_run_a_restart_and_a_crash(self):
        began = time.monotonic()
        with WeirServer(args=("--shards", 2, "--journal-limit-mib", 1)) as server:
            with Witness(server) as witness:
                with Amqp.login(server.addr("amqp"), channel=1, timeout_s=60) as client:
                    self.amqp_mix(client)
                    self.transactions(client)
                self.kafka_mix(server)
                self.refuse(server)
            witness.check(worst_ms=20000)
            for how in (signal.SIGTERM, signal.SIGKILL):
                server.restart(how)
                with Amqp.login(server.addr("amqp"), channel=1, timeout_s=60) as client:
                    self.assertEqual(client.queue_depth(1, "keep"), COUNT)
                with Kafka(server.addr("kafka"), timeout_s=60) as client:
                    self.assertEqual(len(client.fetch_all("t", 0)), 500)
        rounds = sum(map(len, witness.rounds_ms.values()))
        say(f"under valgrind: {rounds} rounds of witnesses, {5 * COUNT + 1000} messages, "
            f"{time.monotonic() - began:.1f} s, no errors")


if __name__ == "__main__":
    main()
