"""Fixtures of the crossing suite: one broker, pika on one side and confluent-kafka on the other."""

import itertools
import pathlib
import sys
import time
import uuid

import pika
import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "harness"))

from weir_server import WeirServer  # noqa: E402

pytest_plugins = ["pytest_tally"]


class KafkaSide:
    """confluent-kafka in the few words that the tests need."""

    def __init__(self, address):
        self.address = address

    def create(self, topic, partitions=1):
        admin = AdminClient({"bootstrap.servers": self.address})
        admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(20)

    def produce(self, topic, value, key=None, headers=None, timestamp=None, partition=None,
                **config):
        """One record, acknowledged. Returns the message of the delivery report."""
        return self.produce_all(topic, [dict(value=value, key=key, headers=headers,
                                             timestamp=timestamp, partition=partition)], **config)[0]

    def produce_all(self, topic, records, **config):
        producer = Producer({"bootstrap.servers": self.address, "linger.ms": 5,
                             **{name.replace("_", "."): value for name, value in config.items()}})
        reports = []

        def report(error, message):
            if error is not None:
                raise KafkaException(error)
            reports.append(message)

        for record in records:
            record = {name: value for name, value in record.items() if value is not None}
            record.setdefault("value", None)
            producer.produce(topic, on_delivery=report, **record)
        assert producer.flush(20) == 0, "not everything was acknowledged"
        return reports

    def read(self, topic, count, partitions=1, offset=0, timeout_s=20):
        """That many records from the offset of every partition; no more may come at once."""
        consumer = Consumer({"bootstrap.servers": self.address, "group.id": "reader",
                             "enable.auto.commit": False, "auto.offset.reset": "earliest"})
        consumer.assign([TopicPartition(topic, n, offset) for n in range(partitions)])
        found, deadline = [], time.monotonic() + timeout_s
        try:
            while len(found) < count:
                message = consumer.poll(0.5)
                assert time.monotonic() < deadline, f"{len(found)} of {count} after {timeout_s} s"
                if message is not None:
                    assert message.error() is None, message.error()
                    found.append(message)
            extra = consumer.poll(0.1)
            assert extra is None or extra.error(), f"one more: {extra.key()} {extra.value()}"
        finally:
            consumer.close()
        return found


@pytest.fixture(scope="session")
def server():
    with WeirServer() as running:
        yield running


@pytest.fixture
def connect(server):
    opened = []

    def make():
        host, port = server.addr("amqp")
        connection = pika.BlockingConnection(pika.ConnectionParameters(
            host, port, heartbeat=30, socket_timeout=10, blocked_connection_timeout=20))
        opened.append(connection)
        return connection

    yield make
    for connection in opened:
        try:
            if connection.is_open:
                connection.close()
        except pika.exceptions.AMQPError:
            pass  # the test has restarted the server


@pytest.fixture
def ch(connect):
    return connect().channel()


@pytest.fixture
def kafka(server):
    return KafkaSide(server.hostport("kafka"))


@pytest.fixture
def name():
    numbers, run = itertools.count(1), uuid.uuid4().hex[:8]
    return lambda word="x": f"{word}-{run}-{next(numbers)}"


@pytest.fixture
def stream(ch, name):
    """The name of a topic, declared by AMQP."""
    made = name("stream")
    ch.queue_declare(made, durable=True, arguments={"x-queue-type": "stream"})
    return made


@pytest.fixture
def audit(ch, name):
    """The name of an ordinary durable queue."""
    made = name("audit")
    ch.queue_declare(made, durable=True)
    return made


def take(ch, queue, count, timeout_s=20, arguments=None, prefetch=100):
    """That many messages of a queue as (method, properties, body), acknowledged one by one."""
    ch.basic_qos(prefetch_count=prefetch)
    found = []
    for method, properties, body in ch.consume(queue, inactivity_timeout=timeout_s,
                                               arguments=arguments):
        assert method is not None, f"{len(found)} of {count} after {timeout_s} s"
        found.append((method, properties, body))
        ch.basic_ack(method.delivery_tag)
        if len(found) == count:
            break
    ch.cancel()
    return found
