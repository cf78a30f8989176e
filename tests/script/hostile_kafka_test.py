#!/usr/bin/env python3
"""Peers that break the Kafka protocol: sizes, arrays and batches that lie, requests that are cut off,
mutated, never end or whose answers nobody reads. hostile.py sees to it that the broker is well and
serves the others meanwhile. Everything random comes from a seed.
"""

import os
import random
import socket
import struct
import time

import kafka_wire as kafka
from hostile import Hostile, offer, raw, read_to_end
from kafka_wire import Kafka
from kit import MIB, SLOW, in_parallel, main, rss_mib, say


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
