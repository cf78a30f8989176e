"""What the aiokafka tests share. A test is a coroutine that takes a kit of clients."""

import asyncio
import functools
import inspect
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from aiokafka import (AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener,  # noqa: E402
                      TopicPartition)
from aiokafka.admin import AIOKafkaAdminClient, NewTopic  # noqa: E402

import support  # noqa: E402

QUICK = {"bootstrap_servers": support.BOOTSTRAP, "retry_backoff_ms": 50,
         "metadata_max_age_ms": 1000}


class Kit:
    """Makes clients and stops them when the test is over."""

    def __init__(self):
        self.open = []
        self.tasks = []

    async def start(self, client):
        self.open.append(client)
        await client.start()
        return client

    async def admin(self):
        return await self.start(AIOKafkaAdminClient(bootstrap_servers=support.BOOTSTRAP,
                                                    retry_backoff_ms=50))

    async def producer(self, **config):
        return await self.start(AIOKafkaProducer(**{**QUICK, **config}))

    async def consumer(self, *topics, group=None, **config):
        return await self.start(AIOKafkaConsumer(*topics, **{
            **QUICK, "group_id": group, "auto_offset_reset": "earliest",
            "enable_auto_commit": False, "fetch_max_wait_ms": 100, "session_timeout_ms": 6000,
            "heartbeat_interval_ms": 300, **config}))

    async def topic(self, partitions=1, **config):
        name = support.fresh()
        admin = await self.admin()
        config = {key.replace("_", "."): str(value) for key, value in config.items()}
        await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=config)])

        async def known():
            [found] = await admin.describe_topics([name])
            return found["error_code"] == 0 and len(found["partitions"]) == partitions

        await eventually(known)
        return name

    async def join(self, topic, group, **config):
        member = Member()
        member.consumer = await self.consumer(group=group, **config)
        member.consumer.subscribe([topic], listener=member)
        member.task = asyncio.create_task(member.run())
        self.tasks.append(member.task)
        return member

    async def close(self):
        for task in self.tasks:
            task.cancel()
        for client in reversed(self.open):
            if isinstance(client, AIOKafkaAdminClient):
                await client.close()
            else:
                await client.stop()


class Member(ConsumerRebalanceListener):
    """A subscribed consumer that is read by a task of its own."""

    def __init__(self):
        self.held = set()
        self.got = []
        self.assignments = 0

    async def on_partitions_revoked(self, revoked):
        self.held -= set(revoked)

    async def on_partitions_assigned(self, assigned):
        self.held |= set(assigned)
        self.assignments += 1

    async def run(self):
        while True:
            self.got.append(await self.consumer.getone())

    async def leave(self):
        self.task.cancel()
        await self.consumer.stop()


def with_kit(body):
    """Makes a pytest function of a coroutine that takes a kit."""
    @functools.wraps(body)
    def test(**arguments):
        async def run():
            kit = Kit()
            try:
                await asyncio.wait_for(body(kit, **arguments), 60)
            finally:
                await kit.close()
        asyncio.run(run())

    # pytest must not take `kit` for a fixture.
    del test.__wrapped__
    parameters = list(inspect.signature(body).parameters.values())[1:]
    test.__signature__ = inspect.Signature(
        [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters])
    return test


async def eventually(check, timeout_s=20, what="condition"):
    deadline = time.monotonic() + timeout_s
    while True:
        result = check()
        if asyncio.iscoroutine(result):
            result = await result
        if result:
            return result
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        await asyncio.sleep(0.03)


def shared(partitions, share, *members):
    held = [tp for m in members for tp in m.held]
    return all(len(m.held) == share for m in members) and len(set(held)) == partitions


async def send(producer, topic, start, stop, **fields):
    futures = [await producer.send(topic, f"m{i}".encode(), **fields) for i in range(start, stop)]
    return [await future for future in futures]


async def receive(consumer, count, timeout_s=25):
    async def all_of_them():
        return [await consumer.getone() for _ in range(count)]
    return await asyncio.wait_for(all_of_them(), timeout_s)


async def reader(kit, topic, offset=0, partition=0, **config):
    consumer = await kit.consumer(**config)
    at = TopicPartition(topic, partition)
    consumer.assign([at])
    consumer.seek(at, offset)
    return consumer


def values(records):
    return [record.value.decode() for record in records]


def names(start, stop):
    return [f"m{i}" for i in range(start, stop)]
