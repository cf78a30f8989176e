"""Runs a command beside Apache Kafka itself, to check the tests of this folder against the original.

    python3 tests/compat/kafka/with_kafka.py [--set KEY=VALUE]... -- COMMAND...

The command finds the same environment as under tests/harness/with_weir.py (WEIR_COMPAT_KAFKA,
WEIR_COMPAT_RESTART). Kafka comes from bench/peers/kafka. --set gives it broker settings on top.
"""

import argparse
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import os

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests" / "harness"))
from weir_server import ServerError  # noqa: E402
from with_weir import run_beside  # noqa: E402

START_S_MAX = 90
STOP_S_MAX = 60


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class KafkaServer:
    """One Kafka process on a fixed port; what run_beside() asks of a server."""

    def __init__(self, folder, settings):
        self.folder = pathlib.Path(folder)
        self.settings = settings
        self.port = free_port()
        self.process = None

    def hostport(self, face):
        if face != "kafka":
            raise ServerError(f"no face {face}")
        return f"127.0.0.1:{self.port}"

    def start(self):
        env = {"KAFKA_HEAP_OPTS": "-Xmx512M", **os.environ}
        words = [str(ROOT / "bench/peers/kafka/run.sh"), str(self.folder / "data"), str(self.port),
                 *self.settings]
        log = open(self.folder / "kafka.log", "ab")
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, text=True, env=env)
        log.close()
        ready = threading.Event()
        threading.Thread(target=self.read_output, args=(self.process, ready), daemon=True).start()
        if not ready.wait(START_S_MAX) or self.process.poll() is not None:
            raise ServerError(f"kafka did not start: {self.process.poll()}")

    @staticmethod
    def read_output(process, ready):
        for line in process.stdout:
            if line.strip() == "ready":
                ready.set()
        ready.set()

    def stop(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(STOP_S_MAX)

    def restart(self, how):
        self.stop(how)
        self.start()


def main():
    parser = argparse.ArgumentParser(description="run a command beside a fresh Apache Kafka")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    # The initial delay of a rebalance, 3 s, only costs time in tests.
    settings = ["group.initial.rebalance.delay.ms=0", *options.set]
    with tempfile.TemporaryDirectory(prefix="weir-kafka-", ignore_cleanup_errors=True) as folder:
        server = KafkaServer(folder, settings)
        try:
            server.start()
            return run_beside(server, options.command, folder)
        finally:
            if server.process:
                server.stop(signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
