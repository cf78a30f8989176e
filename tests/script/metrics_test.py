#!/usr/bin/env python3
"""What the broker tells about itself: work is done by raw AMQP and Kafka, then /metrics shows it."""

import http.client
import os
import pathlib
import re
import socket
import struct
import time
import unittest

import amqp_wire as amqp
from amqp_wire import Amqp
from kafka_wire import Kafka, batch, records
from kit import ServerTest, main, wait_until

FACES = [f"{face}=127.0.0.1:0" for face in ("amqp", "kafka", "http")]
LINE = re.compile(r'([a-zA-Z_:][\w:]*)((?:\{(?:\w+="(?:[^"\\\n]|\\[\\"n])*"(?:,(?!\})|(?=\})))*\})?) (\d+(?:\.\d+)?)')
PLACE = pathlib.Path(__file__).resolve().parents[2]


def exposition_parse(text):
    """{name{labels}: value}; fails on anything that Prometheus' text format does not have."""
    assert text.endswith("\n"), "the last line does not end"
    values, types, helps, family = {}, {}, {}, None
    for line in text.splitlines():
        if line.startswith("# HELP "):
            _, _, name, help_text = line.split(" ", 3)
            assert name not in helps, f"second HELP of {name}"
            helps[name] = help_text
        elif line.startswith("# TYPE "):
            _, _, family, kind = line.split(" ")
            assert family not in types and kind in ("counter", "gauge"), line
            types[family] = kind
        else:
            found = LINE.fullmatch(line)
            assert found, f"no line of the format: {line!r}"
            name, labels, value = found.groups()
            assert name == family, f"{name} under the TYPE of {family}"
            assert name + labels not in values, f"{name}{labels} twice"
            values[name + labels] = float(value)
    assert types.keys() == helps.keys() == {key.split("{")[0] for key in values}
    return values


class Metrics(ServerTest):
    listen, args = FACES, ("--shards", 4)

    # Helpers -----------------------------------------------------------------------------------------

    def get(self, path, method="GET"):
        """(status, header, body)."""
        client = http.client.HTTPConnection(*self.server.addr("http"), timeout=20)
        try:
            client.request(method, path)
            answer = client.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            client.close()

    def metrics(self):
        status, headers, body = self.get("/metrics")
        self.assertEqual(status, 200)
        self.assertEqual(headers["Content-Type"], "text/plain; version=0.0.4; charset=utf-8")
        return exposition_parse(body.decode())

    def baseline(self):
        """The figures once no other test's work is on its way into them: nobody is connected, and
        nothing has changed for longer than a shard takes to make its figures known."""
        def of_clients(metrics):
            return {name: value for name, value in metrics.items()
                    if re.match(r"weir_(messages|cell|queue|amqp|kafka|partitions|commands|logins)", name)
                    or 'protocol="amqp"' in name or 'protocol="kafka"' in name}

        def at_rest():
            first = self.metrics()
            time.sleep(0.15)
            second = self.metrics()
            nobody = first['weir_connections{protocol="amqp"}'] == 0 and \
                first['weir_connections{protocol="kafka"}'] == 0
            return second if nobody and of_clients(first) == of_clients(second) else None

        return wait_until(at_rest, 10, "no rest")

    def grown(self, before, **wanted):
        """Waits until each of these, by name or name and labels, has grown by exactly so much."""
        seen = {}

        def as_wanted():
            now = self.metrics()
            seen.update({name: now[name] - before[name] for name in wanted})
            return all(seen[name] == by for name, by in wanted.items())

        wait_until(as_wanted, 5, lambda: f"{ {n: v for n, v in seen.items() if v != wanted[n]} }, "
                                         f"wanted {wanted}")

    def raw(self, data):
        """All that the server says to these bytes until it closes, or rests."""
        with socket.create_connection(self.server.addr("http"), timeout=20) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            said = b""
            while piece := connection.recv(1 << 16):
                said += piece
            return said

    def login(self):
        return Amqp.login(self.server.addr("amqp"), channel=1)

    # Messages ----------------------------------------------------------------------------------------

    def test_messages_of_amqp_are_counted_by_what_happened_to_them(self):
        before = self.baseline()
        with self.login() as client:
            client.queue_declare(1, "counted", durable=True)
            client.confirm_select(1)
            for _ in range(20):
                client.publish(1, "", "counted", b"body", delivery_mode=2)
            self.assertEqual(client.expect_confirms(20), set())
            client.qos(1, 10)
            client.consume(1, "counted", tag="t")
            tags = [client.expect_delivery()[0] for _ in range(10)]
            client.ack(1, tags[7], multiple=True)
            client.send(amqp.method(1, amqp.NACK, struct.pack(">QB", tags[8], 2)))  # requeue
            self.assertEqual({client.expect_delivery()[2] for _ in range(9)}, {b"body"})
            self.grown(before, weir_queue_messages_ready=2, weir_queue_messages_leased=10,
                       rabbitmq_queue_messages_ready=2, rabbitmq_queue_messages_unacked=10,
                       rabbitmq_queue_messages=12)
            client.send(amqp.method(1, amqp.CANCEL, amqp.short("t") + b"\0"))
            while client.expect(amqp.DELIVER, amqp.CANCEL_OK)[0] == amqp.DELIVER:
                client.expect_content()
            self.grown(before, **{
                'weir_messages_received_total{protocol="amqp"}': 20,
                'weir_messages_confirmed_total{protocol="amqp"}': 20,
                'weir_messages_unconfirmed{protocol="amqp"}': 0,
                'weir_messages_routed_total': 20,
                'weir_messages_delivered_total{protocol="amqp",mode="consume_manual_ack"}': 19,
                'weir_messages_redelivered_total{protocol="amqp"}': 1,
                'weir_messages_acknowledged_total{protocol="amqp"}': 8,
                'weir_cell_messages_published_total': 20,
                'weir_cell_messages_settled_total': 8,
                'weir_cell_messages_returned_total': 1,
                'weir_queue_messages_ready': 2,
                'weir_queue_messages_leased': 10,
                'weir_queues': 1,
                'weir_queues_created_total': 1,
                'rabbitmq_queues': 1,
                'rabbitmq_channel_messages_published_total': 20,
                'rabbitmq_global_messages_received_total{protocol="amqp091"}': 20,
                'rabbitmq_channel_messages_confirmed_total': 20,
                'rabbitmq_channel_messages_delivered_ack_total': 19,
                'rabbitmq_channel_messages_acked_total': 8,
            })
            client.queue_delete(1, "counted")
            self.grown(before, weir_queues=0, weir_queues_deleted_total=1,
                       weir_queue_messages_ready=0, weir_queue_messages_leased=0)

    def test_gets_are_counted_apart(self):
        before = self.baseline()
        with self.login() as client:
            client.queue_declare(1, "got")
            for _ in range(3):
                client.publish(1, "", "got", b"body")
            client.roundtrip(1, "got")
            self.assertIsNotNone(client.get(1, "got", no_ack=True))
            self.assertIsNotNone(client.get(1, "got", no_ack=False))
            self.assertIsNotNone(client.get(1, "got", no_ack=False))
            self.assertIsNone(client.get(1, "got"))
            self.grown(before, **{
                'weir_messages_delivered_total{protocol="amqp",mode="get_auto_ack"}': 1,
                'weir_messages_delivered_total{protocol="amqp",mode="get_manual_ack"}': 2,
                'weir_amqp_gets_empty_total': 1,
                'rabbitmq_channel_get_total': 1,
                'rabbitmq_channel_get_ack_total': 2,
                'rabbitmq_channel_get_empty_total': 1,
                'rabbitmq_global_messages_delivered_total{protocol="amqp091"}': 3,
                'weir_queue_messages_ready': 0,
                'weir_queue_messages_leased': 2,
            })
            client.queue_delete(1, "got")

    def test_what_nobody_wants_is_returned_or_dropped(self):
        before = self.baseline()
        with self.login() as client:
            client.confirm_select(1)
            client.publish(1, "", "nobody", b"x", mandatory=True)
            client.expect(amqp.RETURN)
            client.expect_content()
            for _ in range(2):
                client.publish(1, "", "nobody", b"x")
            client.expect_confirms(3)
            self.grown(before, **{
                'weir_messages_unroutable_total{outcome="returned"}': 1,
                'weir_messages_unroutable_total{outcome="dropped"}': 2,
                'rabbitmq_channel_messages_unroutable_returned_total': 1,
                'rabbitmq_global_messages_unroutable_dropped_total{protocol="amqp091"}': 2,
                'weir_messages_routed_total': 0,
            })

    def test_messages_and_requests_of_kafka_are_counted(self):
        before = self.baseline()
        with Kafka(self.server.addr("kafka")) as client:
            client.topics_create(["counted"], partitions=1)
            client.produce("counted", 0, batch([b"%d" % i for i in range(7)]))
            client.produce("counted", 0, batch([b"x"]))
            self.assertEqual(len(client.fetch_all("counted")), 8)
            client.produce("nowhere", 0, batch([b"x"]))
            self.grown(before, **{
                'weir_messages_received_total{protocol="kafka"}': 8,
                'weir_messages_delivered_total{protocol="kafka",mode="fetch"}': 8,
                'weir_kafka_requests_total{api="produce"}': 3,
                'weir_kafka_requests_total{api="admin"}': 1,
                'weir_kafka_errors_total{kind="produce"}': 1,
                'weir_partitions': 1,
                'weir_connections{protocol="kafka"}': 1,
            })
            client.topics_delete(["counted"])
        self.grown(before, **{'weir_connections{protocol="kafka"}': 0,
                              'weir_connections_closed_total{protocol="kafka"}': 1})

    # Connections -------------------------------------------------------------------------------------

    def test_gauges_fall_with_what_they_count(self):
        before = self.baseline()
        with self.login() as client:
            client.channel_open(2)
            client.queue_declare(1, "gauged", exclusive=True)
            client.consume(1, "gauged", tag="a")
            client.consume(2, "gauged", tag="b")
            self.grown(before, **{
                'weir_connections{protocol="amqp"}': 1,
                'weir_connections_opened_total{protocol="amqp"}': 1,
                'weir_logins_total{protocol="amqp"}': 1,
                'weir_amqp_channels': 2,
                'weir_amqp_consumers': 2,
                'rabbitmq_connections': 1,
                'rabbitmq_channels': 2,
                'rabbitmq_consumers': 2,
            })
            client.confirm_select(2)
        self.grown(before, **{
            'weir_connections{protocol="amqp"}': 0,
            'weir_connections_closed_total{protocol="amqp"}': 1,
            'weir_amqp_channels': 0,
            'weir_amqp_channels_closed_total': 2,
            'weir_amqp_consumers': 0,
            'weir_queues': 0,
        })

    def test_bytes_in_and_out_are_those_of_the_socket(self):
        before = self.baseline()
        with self.login() as client:
            client.queue_declare(1, "bytes", exclusive=True)
            middle = self.metrics()
            body = bytes(100000)
            client.publish(1, "", "bytes", body)
            client.roundtrip(1, "bytes")
            self.assertEqual(client.get(1, "bytes")[1], body)
            wait_until(lambda: self.metrics()['weir_sent_bytes_total{protocol="amqp"}'] -
                       middle['weir_sent_bytes_total{protocol="amqp"}'] > 100000, 5, "no bytes out")
            after = self.metrics()
            for name in ("received", "sent"):
                name = f'weir_{name}_bytes_total{{protocol="amqp"}}'
                self.assertLess(after[name] - before[name], 103000)
                self.assertGreater(after[name] - before[name], 100000)

    def test_errors_and_refused_logins_are_counted(self):
        before = self.baseline()
        with Amqp(self.server.addr("amqp")) as client:
            client.send(amqp.HELLO)
            client.expect(amqp.START)
            client.send(amqp.start_ok(password="wrong"))
            client.expect_error(403)
        with self.login() as client:
            client.send(amqp.method(1, amqp.QUEUE_DECLARE, struct.pack(">H", 0) +
                                    amqp.short("none") + b"\1" + amqp.table({})))
            client.expect(amqp.CHANNEL_CLOSE)
        self.grown(before, **{
            'weir_logins_refused_total{protocol="amqp"}': 1,
            'rabbitmq_auth_attempts_failed_total{protocol="amqp091"}': 1,
            'weir_amqp_errors_total{scope="connection"}': 1,
            'weir_amqp_errors_total{scope="channel"}': 1,
        })

    # The whole ---------------------------------------------------------------------------------------

    def test_every_metric_of_the_table_is_there_and_documented(self):
        import tomllib
        table = tomllib.loads((PLACE / "spec/metrics.toml").read_text())
        names = {key.split("{")[0] for key in self.metrics()}
        docs = (PLACE / "docs/metrics.md").read_text()
        for metric in table["metric"]:
            self.assertIn(metric["name"], names)
            self.assertIn(f"`{metric['name']}", docs)

    def test_rabbitmqs_dashboards_find_whom_they_look_at(self):
        infos = {key: value for key, value in self.metrics().items() if "_info{" in key}
        self.assertEqual(set(infos.values()), {1.0})
        identity = next(key for key in infos if key.startswith("rabbitmq_identity_info{"))
        self.assertRegex(identity, r'rabbitmq_node="weir@[^"]+",rabbitmq_cluster="[^"]+"')
        build = next(key for key in infos if key.startswith("rabbitmq_build_info{"))
        self.assertRegex(build, r'rabbitmq_version="\d+\.\d+\.\d+"')

    def test_the_process_is_seen(self):
        metrics = self.metrics()
        self.assertAlmostEqual(metrics["weir_process_resident_memory_bytes"],
                               self.server.rss_kib() * 1024, delta=8 << 20)
        self.assertEqual(metrics["weir_shards"], 4)
        self.assertGreater(metrics["weir_disk_free_bytes"], 0)
        self.assertGreater(metrics["weir_process_max_fds"], metrics["weir_process_open_fds"])

    @unittest.skipIf(os.environ.get("WEIR_KIND_BUILD") == "tsan", "its runtime has a thread that wakes")
    def test_a_broker_that_rests_is_not_woken_for_its_figures(self):
        def switches():
            tasks = pathlib.Path(f"/proc/{self.server.pid}/task")
            return {task.name: sum(map(int, re.findall(r"ctxt_switches:\s+(\d+)",
                                                       (task / "status").read_text())))
                    for task in tasks.iterdir() if task.name != str(self.server.pid)}

        with self.login() as client:
            client.queue_declare(1, "rest", exclusive=True)
            client.publish(1, "", "rest", b"x", delivery_mode=2)
            client.roundtrip(1, "rest")
        self.metrics()

        def rests():
            before = switches()
            time.sleep(0.5)
            return sum(switches().values()) == sum(before.values())

        wait_until(rests, 20, "its threads run on")

    # HTTP --------------------------------------------------------------------------------------------

    def test_health_and_the_page(self):
        self.assertEqual(self.get("/healthz")[0::2], (200, b"ok\n"))
        status, headers, body = self.get("/")
        self.assertEqual(status, 200)
        self.assertEqual(headers["Content-Type"], "text/html; charset=utf-8")
        self.assertIn(b"/metrics", body)
        self.assertNotIn(b"<script", body)
        self.assertIn(b"weir_connections{protocol=&quot;http&quot;}", body)

    def test_head_has_the_length_and_no_body(self):
        status, headers, body = self.get("/healthz", "HEAD")
        self.assertEqual((status, headers["Content-Length"], body), (200, "3", b""))

    def test_what_is_refused_and_how(self):
        self.assertEqual(self.get("/metrics/")[0], 404)
        status, headers, _ = self.get("/metrics", "DELETE")
        self.assertEqual((status, headers["Allow"]), (405, "GET, HEAD"))
        host = b"Host: x\r\n"
        for code, data in (
                (400, b"GET / HTTP/1.1\r\n\r\n"),
                (400, b"GET / HTTP/1.1\n" + host + b"\r\n"),
                (411, b"POST / HTTP/1.1\r\n" + host + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
                (413, b"POST / HTTP/1.1\r\n" + host + b"Content-Length: 99999999\r\n\r\n"),
                (431, b"GET / HTTP/1.1\r\n" + host + b"A: " + b"a" * 9000 + b"\r\n\r\n"),
                (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
                (400, amqp.HELLO)):
            said = self.raw(data)
            self.assertTrue(said.startswith(b"HTTP/1.1 %d " % code), (data[:40], said[:40]))
            self.assertEqual(said.count(b"HTTP/1.1 "), 1)
            self.assertIn(b"\r\nConnection: close\r\n", said)

    def test_pipelined_requests_are_answered_in_order(self):
        one = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        two = b"GET /none HTTP/1.1\r\nHost: x\r\n\r\n"
        last = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        said = self.raw((one + two) * 100 + last)
        codes = re.findall(rb"HTTP/1\.1 (\d+) ", said)
        self.assertEqual(codes, [b"200", b"404"] * 100 + [b"200"])
        exposition_parse(said.rsplit(b"\r\n\r\n", 1)[1].decode())

    def test_a_client_that_does_not_read_costs_little(self):
        before = self.server.rss_kib()
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(0.5)
            connection.connect(self.server.addr("http"))
            try:
                for _ in range(200):
                    connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
            except TimeoutError:
                pass
            self.assertEqual(self.get("/healthz")[0], 200)
            self.assertLess(self.server.rss_kib() - before, 16 << 10)


if __name__ == "__main__":
    main()
