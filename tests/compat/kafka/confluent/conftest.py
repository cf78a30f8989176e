"""Fixtures and shorthand for confluent-kafka (librdkafka): short timeouts, fresh names."""

import os
import sys
import time

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import support  # noqa: E402

BASE = {
    "bootstrap.servers": support.BOOTSTRAP,
    "broker.address.family": "v4",
    "reconnect.backoff.ms": 20,
    "reconnect.backoff.max.ms": 200,
    "retry.backoff.ms": 20,
    "topic.metadata.refresh.interval.ms": 1000,
    "topic.metadata.propagation.max.ms": 5000,
    "log_level": 3,
}


class Kit:
    """Makes clients and closes them when the test is over."""

    def __init__(self):
        self.consumers = []
        self.producers = []
        self.admin = AdminClient(BASE)

    def producer(self, **config):
        settings = dict(BASE, **{"linger.ms": 2})
        settings.update({key.replace("_", "."): value for key, value in config.items()})
        producer = Producer(settings)
        self.producers.append(producer)
        return producer

    def consumer(self, group=None, **config):
        settings = dict(BASE, **{
            "group.id": group or support.fresh("g"),
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": 6000,
            "heartbeat.interval.ms": 300,
            "fetch.wait.max.ms": 100,
            "fetch.error.backoff.ms": 50,
        })
        settings.update({key.replace("_", "."): value for key, value in config.items()})
        consumer = Consumer(settings)
        self.consumers.append(consumer)
        return consumer

    def topic(self, partitions=1, name=None, **config):
        """Creates a topic, waits until the broker shows it, and returns its name."""
        name = name or support.fresh()
        config = {key.replace("_", "."): str(value) for key, value in config.items()}
        new = NewTopic(name, num_partitions=partitions, replication_factor=1, config=config)
        self.admin.create_topics([new], operation_timeout=10)[name].result(15)
        support.eventually(lambda: len(self.partitions(name)) == partitions, what=name)
        return name

    def partitions(self, topic):
        """The partitions that metadata shows; none while the topic is unknown."""
        known = self.admin.list_topics(timeout=10).topics.get(topic)
        return known.partitions if known is not None and known.error is None else {}

    def close(self):
        for consumer in self.consumers:
            try:
                consumer.close()
            except RuntimeError:
                pass  # the test closed it


@pytest.fixture
def kit():
    kit = Kit()
    yield kit
    kit.close()


def send(producer, topic, count=1, start=0, timeout_s=30, **fields):
    """Produces count messages `m<i>` and returns their delivered messages, in delivery order."""
    delivered = []

    def report(error, message):
        assert error is None, error
        delivered.append(message)

    for i in range(start, start + count):
        while True:
            try:
                producer.produce(topic, value=f"m{i}".encode(), on_delivery=report, **fields)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    assert producer.flush(timeout_s) == 0
    assert len(delivered) == count
    return delivered


def send_one(producer, topic, timeout_s=30, **fields):
    """Produces one message; returns (error, message) of its delivery report."""
    reports = []
    producer.produce(topic, on_delivery=lambda error, message: reports.append((error, message)),
                     **fields)
    assert producer.flush(timeout_s) == 0
    return reports[0]


def receive(consumer, count, timeout_s=20):
    """Polls until count messages came; fails on any error and when time is up."""
    got = []
    deadline = time.monotonic() + timeout_s
    while len(got) < count:
        assert time.monotonic() < deadline, f"got {len(got)} of {count}: {values(got)[-5:]}"
        message = consumer.poll(0.1)
        if message is None:
            continue
        assert message.error() is None, message.error()
        got.append(message)
    return got


def receive_none(consumer, timeout_s=0.5):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        message = consumer.poll(0.1)
        assert message is None, (message.error(), message.value())


def poll_error(consumer, timeout_s=15):
    """Polls until an error comes and returns it; messages on the way are a failure."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        message = consumer.poll(0.1)
        if message is not None:
            assert message.error() is not None, message.value()
            return message.error()
    raise AssertionError("no error came")


def values(messages):
    return [m.value().decode() for m in messages]


def names(start, stop):
    return [f"m{i}" for i in range(start, stop)]


def at(topic, partition=0, offset=0):
    return TopicPartition(topic, partition, offset)
