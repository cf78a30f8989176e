#!/usr/bin/env python3
"""What the process promises to whoever runs it: options, start, stop, restart, logs, size."""

import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import tempfile
import threading
import time
import unittest

import amqp_wire as amqp
import kafka_wire as kafka
from amqp_wire import Amqp
from kafka_wire import EARLIEST, Kafka
from kit import (SANITIZED, SLOW, WeirServer, in_parallel, main, rss_mib, run_weir, say,
                 weir_binary)


def folder():
    return tempfile.TemporaryDirectory(dir=os.environ.get("WEIR_TMP"))


class Options(unittest.TestCase):
    def refuses(self, *words, says, env=None):
        with folder() as place:  # in case it starts all the same
            got = run_weir(*words, env={"WEIR_DATA": place, "WEIR_LISTEN": "amqp=127.0.0.1:0",
                                        **(env or {})})
        self.assertEqual(got.returncode, 2, got.stderr)
        self.assertEqual(got.stdout, "")
        self.assertEqual(len(got.stderr.splitlines()), 1, got.stderr)
        self.assertRegex(got.stderr, r"^weir: ")
        for piece in says:
            self.assertIn(piece, got.stderr)

    def test_an_unknown_option_suggests_the_nearest(self):
        self.refuses("serve", "--dta", "x", says=["--dta", "did you mean --data?"])
        self.refuses("serve", "--sherds=3", says=["did you mean --shards?"])
        self.refuses("serve", "--heartbeats", "3", says=["did you mean --heartbeat-s?"])

    def test_values_that_cannot_be_are_refused_with_what_can(self):
        self.refuses("serve", "--shards", "many", says=["'many'", "0", "256"])
        self.refuses("serve", "--shards", "-1", says=["'-1'"])
        self.refuses("serve", "--cells", "65", says=["'65'", "1", "64"])
        self.refuses("serve", "--durability", "fast", says=["'fast'", "sync, os"])
        self.refuses("serve", "--listen", "smtp=127.0.0.1:25", says=["'smtp'", "amqp, kafka"])
        self.refuses("serve", "--listen", "amqp", says=["FACE=HOST:PORT"])
        self.refuses("serve", "--listen", "amqp=127.0.0.1:70000", says=["70000"])
        self.refuses("serve", "--data", says=["--data", "value"])
        self.refuses("serve", "now", says=["'now'"])

    def test_environment_and_file_are_held_to_the_same(self):
        self.refuses("serve", env={"WEIR_SHARDS": "x"}, says=["WEIR_SHARDS", "'x'"])
        with folder() as place:
            path = pathlib.Path(place, "weir.conf")
            path.write_text("shards = 2\nsync = yes\n")
            self.refuses("serve", "--config", path, says=[f"{path}:2", "sync"])
            self.refuses("serve", "--config", path.with_name("none"), says=["none"])

    def test_version_and_help(self):
        got = run_weir("--version")
        self.assertEqual((got.returncode, got.stderr), (0, ""))
        self.assertRegex(got.stdout, r"^weir \d+\.\d+\.\d+\n$")
        got = run_weir("serve", "--help")
        self.assertEqual((got.returncode, got.stderr), (0, ""))
        for option in ("--data", "--listen", "--shards", "--durability", "--memory-limit-mib"):
            self.assertIn(option, got.stdout)
        self.assertEqual(run_weir("--help").returncode, 0)
        got = run_weir("serf")
        self.assertEqual((got.returncode, got.stdout), (2, ""))
        self.assertIn("serve", got.stderr)


class Start(unittest.TestCase):
    def fails(self, *words, says):
        """Exit status 1, and a reason on standard error."""
        got = run_weir("serve", *words)
        self.assertEqual(got.returncode, 1, got.stderr)
        self.assertNotIn("ready", got.stdout)
        for piece in says:
            self.assertIn(piece, got.stderr)

    def test_a_port_in_use(self):
        with socket.create_server(("127.0.0.1", 0)) as taken, folder() as data:
            port = taken.getsockname()[1]
            self.fails("--data", data, "--listen", "kafka=127.0.0.1:0",
                       "--listen", f"amqp=127.0.0.1:{port}",
                       says=["cannot listen", "face=amqp", f"port={port}", "in use"])

    def test_a_port_of_another_broker(self):
        with WeirServer() as server, folder() as data:
            port = server.port("kafka")
            self.fails("--data", data, "--listen", f"kafka=127.0.0.1:{port}",
                       says=["cannot listen", "face=kafka", f"port={port}", "in use"])

    def test_an_address_that_is_not_ours(self):
        with folder() as data:
            self.fails("--data", data, "--listen", "amqp=192.0.2.1:0",
                       says=["cannot listen", "192.0.2.1"])
            self.fails("--data", data, "--listen", "amqp=no.such.host.invalid:0",
                       says=["cannot listen", "no.such.host.invalid"])

    def test_a_second_broker_on_the_same_folder(self):
        with WeirServer() as server:
            self.fails("--data", server.data, "--listen", "amqp=127.0.0.1:0",
                       says=["another broker", str(server.data)])
            with Amqp.login(server.addr("amqp")) as client:
                client.leave()

    def test_a_folder_that_cannot_be_written(self):
        with folder() as place:
            file = pathlib.Path(place, "file")
            file.write_text("not a folder")
            self.fails("--data", file, "--listen", "amqp=127.0.0.1:0", says=[str(file)])
            self.fails("--data", file / "under", "--listen", "amqp=127.0.0.1:0", says=[str(file)])
            self.fails("--data", "/proc/weir", "--listen", "amqp=127.0.0.1:0", says=["/proc/weir"])

    def test_a_folder_of_another_user(self):
        if os.geteuid() != 0 or not shutil.which("setpriv"):
            self.skipTest("needs root and setpriv")
        with folder() as place:
            os.chmod(place, 0o755)
            data = pathlib.Path(place, "data")
            data.mkdir(mode=0o555)
            got = subprocess.run(["setpriv", "--reuid", "65534", "--clear-groups",
                                  str(weir_binary()), "serve", "--data", str(data), "--listen",
                                  "amqp=127.0.0.1:0"], capture_output=True, text=True, timeout=20)
            if "failed to execute" in got.stderr:
                self.skipTest("the binary is out of reach of other users")
            self.assertEqual(got.returncode, 1, got.stderr)
            self.assertIn(str(data), got.stderr)
            self.assertIn("Permission denied", got.stderr)

    def test_a_folder_that_is_no_data_folder(self):
        with folder() as data:
            pathlib.Path(data, "weir").write_text("version = 99\n")
            self.fails("--data", data, "--listen", "amqp=127.0.0.1:0", says=[data])
            self.assertEqual(pathlib.Path(data, "weir").read_text(), "version = 99\n")

    def test_what_it_prints(self):
        with WeirServer(args=("--shards", 3)) as server:
            lines = server.log().splitlines()[1:]  # without the harness's own
            self.assertEqual(lines[-1], "ready")
            for line in lines[:-1]:
                self.assertRegex(line, r"^\w+ \S")
            text = "\n".join(lines)
            self.assertRegex(text, r"(?m)^weir version=\d+\.\d+\.\d+ .*shards=3 .*durability=sync")
            self.assertIn(str(server.data), text)
            self.assertRegex(text, r"(?m)^listen face=amqp addr=127\.0\.0\.1:\d+$")
            self.assertRegex(text, r"(?m)^listen face=kafka addr=127\.0\.0\.1:\d+$")
            self.assertRegex(text, r"(?m)^access .*guest")

    def test_only_the_faces_asked_for_listen(self):
        with WeirServer(listen=["kafka=127.0.0.1:0"]) as server:
            self.assertNotIn("face=amqp", server.log())
            with Kafka(server.addr("kafka")) as client:
                self.assertIn(kafka.PRODUCE, client.api_versions())

    def test_ipv6(self):
        try:
            with socket.create_server(("::1", 0), family=socket.AF_INET6) as probe:
                port = probe.getsockname()[1]
        except OSError:
            self.skipTest("no IPv6 here")
        with WeirServer(listen=[f"amqp=[::1]:{port}"]) as server:
            self.assertEqual(server.addr("amqp")[0], "::1")
            with socket.create_connection(server.addr("amqp"), 10) as connection:
                connection.sendall(b"HTTP/1.1" + b"\0" * 8)
                self.assertEqual(connection.recv(8), amqp.HELLO)

    def test_ready_at_once_and_small(self):
        times, sizes = [], []
        for _ in range(10):
            with WeirServer() as server:
                times.append(server.ready_ms)
                sizes.append(rss_mib(server))
        say(f"ready after {statistics.median(times):.1f} ms (median of 10, worst "
            f"{max(times):.1f}); idle: {max(sizes):.1f} MiB")
        self.assertLess(statistics.median(times), 500 * SLOW)
        if not SANITIZED:
            self.assertLessEqual(max(sizes), 12)

    def test_idle_it_does_nothing(self):
        with WeirServer() as server:
            with Amqp.login(server.addr("amqp"), channel=1) as client, \
                    Kafka(server.addr("kafka")) as other:
                client.queue_declare(1, "idle", durable=True)
                client.publish(1, "", "idle", b"x", delivery_mode=2)
                client.roundtrip(1, "idle")
                other.topics_create(["idle"])
                time.sleep(0.5)
                before = server.cpu_s()
                time.sleep(1.0)
                used = server.cpu_s() - before
                say(f"idle with two connections: {used * 1000:.0f} ms of CPU a second")
                self.assertLessEqual(used, 0.05 * SLOW)


LOG_LINE = re.compile(r'time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z level=(error|warn|info|debug) '
                      r'event=("(\\.|[^"\\])*"|[^\s"]+)'
                      r'( [a-z_0-9]+=("(\\.|[^"\\])*"|[^\s"=]*))*')


class Logs(unittest.TestCase):
    def test_one_line_an_event_whatever_a_peer_says(self):
        with WeirServer(args=("--log-level", "debug")) as server:
            evil = 'x" level=error\nready\r\n\0\x1b[31m\u2028='
            for _ in range(2):
                client = Amqp.login(server.addr("amqp"), channel=1)
                client.send(amqp.method(1, amqp.GET, struct.pack(">H", 0) + amqp.short(evil) +
                                        b"\1"))
                client.expect(amqp.CHANNEL_CLOSE)
                client.close()
                client = Amqp(server.addr("amqp"))
                client.send(amqp.HELLO)
                client.expect(amqp.START)
                client.send(amqp.start_ok(user=evil, password=evil))
                client.expect_error(403)
                client = Kafka(server.addr("kafka"))
                client.topics_create([evil])
                client.send(kafka.request(kafka.METADATA, 4, b"\xff", client=evil))
                client.expect_end()
                client.close()
            text = server.log().split("\nready\n", 1)[1]
            lines = text.splitlines()
            say(f"{len(lines)} lines, such as {lines[0] if lines else 'none'}")
            self.assertTrue(lines)
            for line in lines:
                self.assertRegex(line, r"^" + LOG_LINE.pattern + r"$")

    def test_levels(self):
        with WeirServer(args=("--log-level", "error")) as server:
            with Amqp.login(server.addr("amqp"), channel=1) as client:
                client.send(amqp.frame(77, 1, b""))
                client.expect_error(501)
            self.assertNotIn("level=", server.log())


class Work:
    """Confirmed messages and acknowledged records, to be found again."""

    def __init__(self, server):
        self.server = server
        self.confirmed, self.records = set(), set()
        self._over = threading.Event()
        self._threads = []

    def begin(self):
        with Amqp.login(self.server.addr("amqp"), channel=1) as client:
            client.queue_declare(1, "kept.queue", durable=True)
            client.leave()
        with Kafka(self.server.addr("kafka")) as client:
            assert client.topics_create(["kept"], partitions=3) == [0]
        self._threads = [threading.Thread(target=self._until_closed, args=(job, n), daemon=True)
                         for n, job in enumerate((self._publish, self._publish, self._produce,
                                                  self._consume))]
        for thread in self._threads:
            thread.start()

    def end(self):
        self._over.set()
        for thread in self._threads:
            thread.join(20 * SLOW)
            assert not thread.is_alive(), "a client hangs"

    def _until_closed(self, job, number):
        try:
            job(number)
        except (OSError, amqp.Closed, kafka.Closed, AssertionError):
            pass  # the server stops: what it has not confirmed may or may not be there

    def _publish(self, number):
        client = Amqp.login(self.server.addr("amqp"), channel=1)
        client.confirm_select(1)
        first = 1
        while not self._over.is_set():
            bodies = [b"%d.%d" % (number, first + i) for i in range(50)]
            client.send(*(amqp.publish(1, "", "kept.queue", body, delivery_mode=2) for body in bodies))
            assert not client.expect_confirms(50, first=first)
            self.confirmed.update(bodies)
            first += 50

    def _produce(self, number):
        client = Kafka(self.server.addr("kafka"))
        values = [b"%d" % i for i in range(20)]
        data = kafka.batch(values)
        while not self._over.is_set():
            for partition in range(3):
                error, offset = client.produce("kept", partition, data)
                assert error == 0, error
                self.records.update((partition, offset + i, value)
                                    for i, value in enumerate(values))

    def _consume(self, number):
        """Takes messages and gives none of them back with an answer: they must all return."""
        client = Amqp.login(self.server.addr("amqp"), channel=1)
        client.qos(1, 100)
        client.consume(1, "kept.queue")
        while not self._over.is_set():
            client.expect_delivery()

    def check(self):
        assert self.confirmed and self.records
        found = set()
        with Amqp.login(self.server.addr("amqp"), channel=1) as client:
            depth = client.queue_depth(1, "kept.queue")
            client.consume(1, "kept.queue", no_ack=True)
            for _ in range(depth):
                found.add(client.expect_delivery()[2])
            client.leave()
        missing = self.confirmed - found
        assert not missing, f"{len(missing)} of {len(self.confirmed)} confirmed messages are lost"
        with Kafka(self.server.addr("kafka")) as client:
            read = {(partition, offset, value) for partition in range(3)
                    for offset, _, value in client.fetch_all("kept", partition)}
        missing = self.records - read
        assert not missing, f"{len(missing)} of {len(self.records)} records are lost"
        return len(self.confirmed), len(self.records)


class Stop(unittest.TestCase):
    def stop(self, server, sig, limit_s=3.0):
        """Sends the signal; returns how long the process took to end, with 0."""
        began = time.monotonic()
        os.kill(server.pid, sig)
        code = server._process.wait(limit_s * 4 * SLOW)
        took = time.monotonic() - began
        server.stop()  # the harness takes notice, and asserts 0
        self.assertEqual(code, 0)
        self.assertLess(took, limit_s * SLOW)
        self.assertRegex(server.log(), r"event=stopping\n(.*\n)*.* level=info event=stopped\n$")
        return took

    def stopped_under_load(self, sig):
        with WeirServer() as server:
            idle = [Amqp.login(server.addr("amqp"), channel=1) for _ in range(20)]
            idle += [Kafka(server.addr("kafka")) for _ in range(20)]
            half = [socket.create_connection(server.addr("amqp")) for _ in range(5)]
            stuck = Amqp.login(server.addr("amqp"), channel=1, receive_buffer=4096)
            stuck.queue_declare(1, "stuck", durable=True)
            stuck.consume(1, "stuck")
            stuck.send(*(amqp.publish(1, "", "stuck", bytes(100000), delivery_mode=2)
                         for _ in range(50)))
            waiting = Kafka(server.addr("kafka"))
            waiting.topics_create(["waits"])
            waiting.send(kafka.request(kafka.FETCH, 4, struct.pack(
                ">iiiib", -1, 60000, 1, 1 << 20, 0) + kafka.array([kafka.text("waits") + kafka.array(
                    [struct.pack(">iqi", 0, 0, 1 << 20)])])))
            work = Work(server)
            work.begin()
            time.sleep(0.5)
            took = self.stop(server, sig)
            work.end()
            server.start()
            began = time.monotonic()
            messages, records = work.check()
            say(f"{sig.name} under load: ended after {took * 1000:.0f} ms; {messages} messages and "
                f"{records} records are there again (ready after {server.ready_ms:.0f} ms, read "
                f"in {time.monotonic() - began:.1f} s)")
            for connection in idle + half + [stuck, waiting]:
                connection.close()

    def test_sigterm_under_load(self):
        self.stopped_under_load(signal.SIGTERM)

    def test_sigint_under_load(self):
        self.stopped_under_load(signal.SIGINT)

    def test_clients_are_told(self):
        with WeirServer() as server:
            client = Amqp.login(server.addr("amqp"), channel=1)
            server._process.send_signal(signal.SIGTERM)
            self.assertEqual(client.expect_error_of((320,)), 320)
            server.stop()

    def test_signals_one_after_the_other(self):
        with WeirServer() as server:
            clients = [Amqp.login(server.addr("amqp"), channel=1) for _ in range(5)]
            for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
                server._process.send_signal(sig)
            server.stop()
            for client in clients:
                client.close()

    def test_sigpipe_does_no_harm(self):
        with WeirServer() as server:
            os.kill(server.pid, signal.SIGPIPE)
            with Amqp.login(server.addr("amqp")) as client:
                client.leave()

    def test_stopping_at_any_moment_of_the_start(self):
        """A signal right after the start: 0, and the folder is good for another start."""
        with folder() as data:
            for wait_ms in (0, 1, 2, 3, 5, 8, 13, 20):
                process = subprocess.Popen([str(weir_binary()), "serve", "--data", data,
                                            "--listen", "amqp=127.0.0.1:0"],
                                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                time.sleep(wait_ms / 1000)
                process.send_signal(signal.SIGTERM)
                said = process.communicate(timeout=10 * SLOW)[0]
                self.assertIn(process.returncode, (0, -signal.SIGTERM), said)
            with WeirServer(data=data) as server, Amqp.login(server.addr("amqp")) as client:
                client.leave()


class Shards(unittest.TestCase):
    def test_their_number_may_change_at_every_start(self):
        with folder() as data:
            queues, topics = [f"q.{n}" for n in range(40)], [f"t.{n}" for n in range(10)]
            round_ = 0
            for shards in (1, 4, 2, 8, 3, 1):
                with WeirServer(data=data, args=("--shards", shards)) as server:
                    client = Amqp.login(server.addr("amqp"), channel=1)
                    other = Kafka(server.addr("kafka"))
                    client.confirm_select(1)
                    if round_ == 0:
                        for queue in queues:
                            client.queue_declare(1, queue, durable=True)
                            client.queue_bind(1, queue, "amq.fanout", "")
                        self.assertEqual(set(other.topics_create(topics, partitions=3)), {0})
                    for queue in queues:
                        self.assertEqual(client.queue_depth(1, queue), round_, (shards, queue))
                    client.publish(1, "amq.fanout", "", b"%d" % round_, delivery_mode=2)
                    self.assertFalse(client.expect_confirms(1))
                    round_ += 1
                    for topic in topics:
                        for partition in range(3):
                            self.assertEqual(other.produce(topic, partition, kafka.batch(
                                [b"%d" % round_])), (0, round_ - 1))
                    client.leave()
                    other.close()
            with WeirServer(data=data, args=("--shards", 5)) as server:
                client, other = Amqp.login(server.addr("amqp"), channel=1), Kafka(
                    server.addr("kafka"))
                for queue in queues:
                    got = [client.get(1, queue)[1] for _ in range(round_)]
                    self.assertEqual(got, [b"%d" % n for n in range(round_)])
                    self.assertIsNone(client.get(1, queue))
                for topic in topics:
                    for partition in range(3):
                        self.assertEqual(other.offset(topic, partition, EARLIEST), 0)
                        self.assertEqual([value for _, _, value in other.fetch_all(
                            topic, partition)], [b"%d" % (n + 1) for n in range(round_)])
                client.leave()
                other.close()


if __name__ == "__main__":
    main()
