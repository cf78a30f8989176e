"""The programs of the user's documents, unchanged, against `weir serve` with its default ports.

They are pulled out of docs/seeds; all that is added is what the documents leave to the application
(prelude.mjs). WEIR_COMPAT_PROGRAMS=1 runs them against whatever listens on the default ports.
"""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pika
import pytest

from document import program
from weir_server import WeirServer

HERE = pathlib.Path(__file__).resolve().parent
SHOCK_ABSORBERS = "message-queues-as-shock-absorbers.md"
TOOLS = "message-queue-tools.md"


class Program:
    """A running program whose lines of output can be waited for."""

    def __init__(self, words, folder):
        self.lines = []
        self._more = threading.Condition()
        self._process = subprocess.Popen(
            words, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, encoding="utf-8",
            env={**os.environ, "PYTHONUNBUFFERED": "1", "KAFKAJS_NO_PARTITIONER_WARNING": "1"})
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self._process.stdout:
            with self._more:
                self.lines.append(line.rstrip("\n"))
                self._more.notify_all()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join(5)

    def wait_for(self, line, count=1, timeout_s=40):
        """Waits until the line was printed so often."""
        with self._more:
            assert self._more.wait_for(lambda: self.lines.count(line) >= count, timeout_s), (
                f"{line!r} was not printed {count} times within {timeout_s} s:\n"
                + "\n".join(self.lines))

    def ends_with_0(self, timeout_s=20):
        assert self._process.wait(timeout_s) == 0, "\n".join(self.lines)
        self._reader.join(5)

    def interrupt(self):
        """CTRL+C."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(10)


@pytest.fixture(scope="module")
def server():
    if os.environ.get("WEIR_COMPAT_PROGRAMS"):
        yield None
        return
    with WeirServer(listen=()) as server:
        assert server.port("amqp") == 5672
        assert server.port("kafka") == 9092
        yield server


def python_program(folder, name, heading):
    path = folder / name
    path.write_text(program(SHOCK_ABSORBERS, heading, "python"), encoding="utf-8")
    return Program([sys.executable, str(path)], folder)


def node_program(name, heading):
    """In this folder, where node finds its packages."""
    path = HERE / "node_modules" / name
    path.write_text(program(TOOLS, heading, "typescript"), encoding="utf-8")
    return Program(["node", "--import", str(HERE / "prelude.mjs"), str(path)], HERE)


def ready_messages(queue):
    connection = pika.BlockingConnection(pika.ConnectionParameters("localhost"))
    try:
        return connection.channel().queue_declare(queue, passive=True).method.message_count
    finally:
        connection.close()


def becomes_empty(queue, timeout_s=5):
    deadline = time.monotonic() + timeout_s
    while ready_messages(queue) != 0:
        assert time.monotonic() < deadline, f"{queue} still holds {ready_messages(queue)} messages"
        time.sleep(0.05)


PRODUCER = "5.1 Producer (회원가입 서버)"
CONSUMER = "5.2 Consumer (이메일 발송 서버)"


def produce(folder):
    with python_program(folder, "producer.py", PRODUCER) as producer:
        producer.ends_with_0()
        assert producer.lines == ["DB Saved: 1", " [x] Sent Email Task"]


def test_the_email_consumer_gets_what_the_sign_up_producer_sent(server, tmp_path):
    produce(tmp_path)
    with python_program(tmp_path, "consumer.py", CONSUMER) as consumer:
        consumer.wait_for(" [v] Email Sent")
        assert consumer.lines == [" [*] Waiting for messages. To exit press CTRL+C",
                                  " [>] Received task for: user@example.com", " [v] Email Sent"]
        produce(tmp_path)
        consumer.wait_for(" [v] Email Sent", 2)
        time.sleep(1)  # the ack follows the line
        consumer.interrupt()
    becomes_empty("email_task_queue")


def test_the_email_task_survives_a_restart_of_the_broker(server, tmp_path):
    if server is None:
        pytest.skip("the server is not ours to restart")
    produce(tmp_path)
    server.restart(signal.SIGKILL)
    assert ready_messages("email_task_queue") == 1
    with python_program(tmp_path, "consumer.py", CONSUMER) as consumer:
        consumer.wait_for(" [v] Email Sent")
        time.sleep(1)  # killed before its ack, it would leave the task to the next test


def test_an_email_task_whose_worker_dies_goes_to_another_worker(server, tmp_path):
    with python_program(tmp_path, "consumer.py", CONSUMER) as second:
        with python_program(tmp_path, "consumer.py", CONSUMER) as first:
            for worker in (first, second):
                worker.wait_for(" [*] Waiting for messages. To exit press CTRL+C")
            produce(tmp_path)
            produce(tmp_path)
            for worker in (first, second):  # one task each, as the prefetch of 1 demands
                worker.wait_for(" [>] Received task for: user@example.com")
        second.wait_for(" [v] Email Sent", 2)  # the first worker was killed at its task
        time.sleep(1)
        second.interrupt()
    becomes_empty("email_task_queue")


def test_the_amqplib_program_sends_and_gets_its_email(server):
    with node_program("seed-amqplib.mjs", "Node.js 예제 (amqplib)") as running:
        running.wait_for('sendEmail {"to":"user@example.com","subject":"Welcome",'
                         '"body":"가입을 환영합니다!"}')
        time.sleep(0.3)
        assert len(running.lines) == 1, running.lines
    becomes_empty("email-queue")


def test_the_kafkajs_program_sends_and_gets_its_order(server):
    with node_program("seed-kafkajs.mjs", "Node.js 예제 (kafkajs)") as running:
        running.wait_for('processOrder {"orderId":123,"amount":50000}')
        time.sleep(0.3)
        assert sum(line.startswith("processOrder") for line in running.lines) == 1, running.lines
