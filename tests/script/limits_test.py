#!/usr/bin/env python3
"""The bounds that docs/limits.md names and no other test holds: what is just inside is taken, what is
just outside is refused with the protocol's word for it, and the connection or the broker goes on."""

import re
import struct
import tempfile
import pathlib
import unittest

import amqp_wire as amqp
import kafka_wire as kafka
from amqp_wire import Amqp
from kafka_wire import Kafka
from kit import MIB, ROOT, SANITIZED, ServerTest, main, rss_mib, run_weir, say

OFFSET_COMMIT, FIND_COORDINATOR, JOIN_GROUP, OFFSET_FETCH = 8, 10, 11, 9
MESSAGE_TOO_LARGE, OFFSET_METADATA_TOO_LARGE, INVALID_TOPIC, INVALID_GROUP = 10, 12, 17, 24


class AmqpLimits(ServerTest):
    def setUp(self):
        self.addr = self.server.addr("amqp")

    def test_frames_up_to_the_size_agreed_on_and_no_longer(self):
        for size, taken in ((4096 - 8, True), (4096 + 1, False)):
            with self.subTest(size=size):
                client = Amqp(self.addr)
                client.send(amqp.HELLO)
                client.expect(amqp.START)
                client.send(amqp.start_ok())
                client.expect(amqp.TUNE)
                client.send(amqp.tune_ok(10, 4096, 0) + amqp.open_())
                client.expect(amqp.OPEN_OK)
                client.channel_open(1)
                client.queue_declare(1, "framed", exclusive=True)
                client.send(amqp.method(1, amqp.PUBLISH, struct.pack(">H", 0) + amqp.short("") +
                                        amqp.short("framed") + b"\0") +
                            amqp.frame(amqp.HEADER, 1, struct.pack(">HHQH", 60, 0, size, 0)) +
                            amqp.frame(amqp.BODY, 1, bytes(size)))
                if taken:
                    self.assertEqual(len(client.get(1, "framed")[1]), size)
                else:
                    client.expect_error(501)
                client.close()

    def test_a_frame_size_below_the_least_is_refused(self):
        client = Amqp(self.addr)
        client.send(amqp.HELLO)
        client.expect(amqp.START)
        client.send(amqp.start_ok())
        client.expect(amqp.TUNE)
        client.send(amqp.tune_ok(10, 100, 0) + amqp.open_())
        client.expect_any()
        client.close()

    def test_names_of_255_bytes_are_names(self):
        with Amqp.login(self.addr, channel=1) as client:
            name = "n" * 255
            client.queue_declare(1, name, exclusive=True)
            client.publish(1, "", name, b"x")
            self.assertEqual(client.get(1, name)[1], b"x")

    def test_headers_as_many_as_fit_a_frame(self):
        with Amqp.login(self.addr, channel=1) as client:
            client.queue_declare(1, "headers", exclusive=True)
            client.queue_bind(1, "headers", "amq.headers", "")
            count = 10000
            table = b"".join(amqp.short(f"h{n:05}") + b"t\1" for n in range(count))
            client.send(amqp.method(1, amqp.PUBLISH, struct.pack(">H", 0) + amqp.short("amq.headers") +
                                    amqp.short("") + b"\0") +
                        amqp.frame(amqp.HEADER, 1, struct.pack(">HHQH", 60, 0, 1, 1 << 13) +
                                   amqp.long(table)) + amqp.frame(amqp.BODY, 1, b"x"))
            self.assertEqual(client.get(1, "headers")[1], b"x")

    def test_routing_keys_in_a_header_up_to_128(self):
        with Amqp.login(self.addr, channel=1) as client:
            client.queue_declare(1, "cc", exclusive=True)
            client.confirm_select(1)

            def send(count):
                item = b"S" + amqp.long("cc")
                table = amqp.short("CC") + b"A" + amqp.long(item * count)
                client.send(amqp.method(1, amqp.PUBLISH, struct.pack(">H", 0) + amqp.short("") +
                                        amqp.short("cc") + b"\0") +
                            amqp.frame(amqp.HEADER, 1, struct.pack(">HHQH", 60, 0, 1, 1 << 13) +
                                       amqp.long(table)) + amqp.frame(amqp.BODY, 1, b"x"))

            send(128)
            client.expect(amqp.ACK)
            self.assertEqual(client.queue_depth(1, "cc"), 1)
            send(100000 // 7)  # those behind the first 128 are not looked at
            client.expect(amqp.ACK)
            self.assertEqual(client.queue_depth(1, "cc"), 2)

    def test_10000_consumers_of_one_channel_cost_what_they_must_and_go_with_it(self):
        count = 10000 // (10 if SANITIZED else 1)
        client = Amqp.login(self.addr, channel=1, timeout_s=60)
        client.queue_declare(1, "crowd")
        before, rounds = rss_mib(self.server), []
        for _ in range(3):
            client.channel_open(2)
            for first in range(0, count, 1000):
                numbers = range(first, min(first + 1000, count))
                client.send(*(amqp.method(2, amqp.CONSUME, struct.pack(">H", 0) + amqp.short("crowd") +
                                          amqp.short(f"c{n}") + b"\0" + amqp.table({})) for n in numbers))
                for _ in numbers:
                    client.expect(amqp.CONSUME_OK)
            rounds.append(rss_mib(self.server))
            client.send(amqp.method(2, amqp.CHANNEL_CLOSE, struct.pack(">H", 200) + amqp.short("") +
                                    bytes(4)))
            client.expect(amqp.CHANNEL_CLOSE_OK)
        each = (rounds[0] - before) * MIB / count
        say(f"{count} consumers: {each:.0f} bytes each; {before:.1f} MiB before, with them " +
            ", ".join(f"{mib:.1f}" for mib in rounds))
        if not SANITIZED:
            self.assertLess(each, 1024)
            self.assertLess(rounds[-1], rounds[0] + 4)
        client.leave()


class KafkaLimits(ServerTest):
    def setUp(self):
        self.client = Kafka(self.server.addr("kafka"), timeout_s=30)
        self.addCleanup(self.client.close)

    def test_batches_up_to_the_largest(self):
        self.assertEqual(self.client.topics_create(["sized"]), [0])
        empty = len(kafka.batch([b""]))
        for size, code in ((1048588, 0), (1048588 + 200, MESSAGE_TOO_LARGE)):
            data = kafka.batch([bytes(size - empty - 10)])
            self.assertTrue(abs(len(data) - size) < 20, len(data))
            self.assertEqual(self.client.produce("sized", 0, data)[0], code, len(data))

    def test_topic_names_up_to_249_bytes(self):
        self.assertEqual(self.client.topics_create(["t" * 249]), [0])
        self.assertEqual(self.client.topics_create(["t" * 250]), [INVALID_TOPIC])

    def commit(self, group, metadata):
        answer = self.client.call(OFFSET_COMMIT, 2, kafka.text(group) + struct.pack(">i", -1) +
                                  kafka.text("") + struct.pack(">q", -1) + kafka.array(
                                      [kafka.text("committed") + kafka.array(
                                          [struct.pack(">iq", 0, 1) + kafka.text(metadata)])]))
        self.assertEqual(answer.take("i"), 1)
        answer.text()
        answer.take("i")
        answer.take("i")
        return answer.take("h")

    def test_metadata_of_commits_up_to_4096_bytes(self):
        self.client.topics_create(["committed"])
        self.assertEqual(self.commit("g", "m" * 4096), 0)
        self.assertEqual(self.commit("g", "m" * 4097), OFFSET_METADATA_TOO_LARGE)

    def test_group_names_up_to_1024_bytes(self):
        self.client.topics_create(["committed"])
        self.assertEqual(self.commit("g" * 1024, "m"), 0)
        self.assertNotEqual(self.commit("g" * 1025, "m"), 0)

    def test_requests_other_than_produce_up_to_16_mib(self):
        with Kafka(self.server.addr("kafka"), timeout_s=30) as client:
            name = kafka.text("x" * 200)
            count = (16 * MIB) // len(name) + 1
            client.send(kafka.request(kafka.METADATA, 4, struct.pack(">i", count) + name * count + b"\0"))
            client.expect_end()

    def test_requests_in_flight_are_answered_in_order_however_many(self):
        """64 are worked on at a time; the others wait in the socket."""
        with Kafka(self.server.addr("kafka"), timeout_s=30) as client:
            count = 1000
            client.send(*(kafka.request(kafka.API_VERSIONS, 0, b"", correlation=n)
                          for n in range(count)))
            self.assertEqual([client.receive()[0] for _ in range(count)], list(range(count)))

    def test_tagged_fields_are_skipped_up_to_the_end_of_the_request(self):
        with Kafka(self.server.addr("kafka"), timeout_s=30) as client:
            # Metadata 9: an empty array of topics, two flags and the create flag, then tags.
            def asked(tags):
                header = struct.pack(">hhi", kafka.METADATA, 9, 7) + kafka.text("tags") + b"\0"
                body = header + b"\1" + b"\0\0\0" + tags
                return struct.pack(">i", len(body)) + body

            thousand = unsigned(1000) + b"".join(unsigned(n) + b"\1x" for n in range(1000))
            client.send(asked(thousand))
            self.assertEqual(client.receive()[0], 7)
            client.send(asked(unsigned(1) + unsigned(5) + unsigned(1 << 31) + b"x"))
            client.expect_end()


def unsigned(number):
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


class ConfigurationLimits(unittest.TestCase):
    def refused(self, text):
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
            file.write(text)
            file.flush()
            done = run_weir("serve", "--config", file.name, "--data", "/nonexistent/weir")
        self.assertNotEqual(done.returncode, 0)
        self.assertNotIn("Sanitizer", done.stderr)
        return done.stderr

    def test_a_file_of_more_than_a_mib_is_refused(self):
        self.assertRegex(self.refused("# " + "x" * (MIB + 10) + "\n"), "large|MiB|bytes|long")

    def test_names_that_are_too_long_are_refused_and_cut_in_the_message(self):
        said = self.refused("n" * 5000 + " = 1\n")
        self.assertLess(len(said), 1000)


class Documented(unittest.TestCase):
    """Every test that docs/limits.md names is there."""

    def test_the_tests_of_the_table_exist(self):
        text = (ROOT / "docs/limits.md").read_text()
        named = set(re.findall(r"`((?:tests|src)/[\w/]+\.(?:py|c)): (\w+)`", text))
        self.assertGreater(len(named), 30)
        for path, name in sorted(named):
            source = pathlib.Path(ROOT / path).read_text()
            self.assertRegex(source, rf"(def test_{name}\(|void {name}\()", f"{path}: {name}")


if __name__ == "__main__":
    main()
