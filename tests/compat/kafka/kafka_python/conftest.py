"""Fixtures for kafka-python, in the 2.0 that guesses the broker's version and in today's 3.0."""

import os
import sys
import threading
import time

import pytest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import kafka  # noqa: E402
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition  # noqa: E402
from kafka.admin import NewTopic  # noqa: E402

import support  # noqa: E402

MODERN = int(kafka.__version__.split(".")[0]) >= 3
QUICK = {"bootstrap_servers": support.BOOTSTRAP, "reconnect_backoff_ms": 20,
         "reconnect_backoff_max_ms": 300, "retry_backoff_ms": 50, "metadata_max_age_ms": 1000}


class Kit:
    """Makes clients and closes them when the test is over."""

    def __init__(self):
        self.open = []
        self._admin = None

    @property
    def admin(self):
        if self._admin is None:
            self._admin = KafkaAdminClient(**QUICK)
            self.open.append(self._admin)
        return self._admin

    def producer(self, **config):
        producer = KafkaProducer(**{**QUICK, "retries": 100, **config})
        self.open.append(producer)
        return producer

    def consumer(self, *topics, group=None, **config):
        consumer = KafkaConsumer(*topics, **{
            **QUICK, "group_id": group, "auto_offset_reset": "earliest",
            "enable_auto_commit": False, "fetch_max_wait_ms": 100, "session_timeout_ms": 6000,
            "heartbeat_interval_ms": 300, **config})
        self.open.append(consumer)
        # A leader that learns of its topic's partitions only after it has joined joins once more,
        # and 3.0 forgets that second join for ever when poll's time ends between the answers to
        # its JoinGroup and SyncGroup (its metadata being the same again, it sees no need to go on).
        for topic in topics:
            consumer.partitions_for_topic(topic)
        return consumer

    def topic(self, partitions=1, **config):
        name = support.fresh()
        config = {key.replace("_", "."): str(value) for key, value in config.items()}
        self.admin.create_topics([NewTopic(name, partitions, 1, topic_configs=config)])
        support.eventually(lambda: self.partitions(name) == partitions, what=name)
        return name

    def partitions(self, topic):
        [found] = self.admin.describe_topics([topic])
        return len(found["partitions"]) if found["error_code"] == 0 else 0

    def close(self):
        for client in reversed(self.open):
            if isinstance(client, KafkaConsumer):
                client.close(**({"autocommit": False}))
            elif isinstance(client, KafkaProducer):
                client.close(timeout=3)
            else:
                client.close()


@pytest.fixture
def kit():
    kit = Kit()
    yield kit
    kit.close()


class Member:
    """A subscribed consumer polled by a thread of its own."""

    def __init__(self, kit, topic, group, **config):
        self.consumer = kit.consumer(topic, group=group, **config)
        self.held = set()
        self.got = []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.stopping.is_set():
            for records in self.consumer.poll(timeout_ms=100).values():
                self.got.extend(records)
            self.held = set(self.consumer.assignment())

    def leave(self):
        self.stopping.set()
        self.thread.join(15)
        self.consumer.close(autocommit=False)


@pytest.fixture
def join(kit):
    members = []

    def make(*args, **config):
        member = Member(kit, *args, **config)
        members.append(member)
        return member

    yield make
    for member in members:
        member.stopping.set()
        member.thread.join(15)


def shared(partitions, share, *members):
    """True when the members hold all partitions, each member `share` of them."""
    held = [tp for m in members for tp in m.held]
    return all(len(m.held) == share for m in members) and len(set(held)) == partitions


def send(producer, topic, start, stop, **fields):
    futures = [producer.send(topic, value=f"m{i}".encode(), **fields) for i in range(start, stop)]
    producer.flush(timeout=40)
    return [future.get(timeout=40) for future in futures]


def receive(consumer, count, timeout_s=25):
    got = []
    deadline = time.monotonic() + timeout_s
    while len(got) < count:
        assert time.monotonic() < deadline, f"got {len(got)} of {count}"
        for records in consumer.poll(timeout_ms=100).values():
            got.extend(records)
    return got


def reader(kit, topic, offset=0, partition=0, **config):
    consumer = kit.consumer(**config)
    at = TopicPartition(topic, partition)
    consumer.assign([at])
    consumer.seek(at, offset)
    return consumer


def values(records):
    return [record.value.decode() for record in records]


def names(start, stop):
    return [f"m{i}" for i in range(start, stop)]
