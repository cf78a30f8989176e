"""aiokafka against the broker."""

import asyncio
import os
import time

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import (IllegalStateError, MessageSizeTooLargeError, OffsetOutOfRangeError,
                             UnknownTopicOrPartitionError)

from conftest import (eventually, names, reader, receive, send, shared, values, with_kit)
from support import BOOTSTRAP, RESTART_CMD, fresh, restart_broker

needs_restart = pytest.mark.skipif(not RESTART_CMD, reason="the broker is not ours to restart")


@with_kit
async def test_record_comes_back_whole(kit):
    topic = await kit.topic()
    producer = await kit.producer()
    headers = [("a", b"1"), ("b", None), ("a", b"\x00\xff")]
    sent = await producer.send_and_wait(topic, b"v", key=b"k", headers=headers,
                                        timestamp_ms=1_600_000_000_123)
    assert (sent.partition, sent.offset) == (0, 0)
    await producer.send_and_wait(topic, b"no key")
    await producer.send_and_wait(topic, None, key=b"tombstone")
    await producer.send_and_wait(topic, b"", key=b"")
    got = await receive(await reader(kit, topic), 4)
    assert (got[0].key, got[0].value, got[0].timestamp) == (b"k", b"v", 1_600_000_000_123)
    assert list(got[0].headers) == headers
    assert got[1].key is None and got[2].value is None
    assert (got[3].key, got[3].value) == (b"", b"")


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
@with_kit
async def test_codec(kit, codec):
    topic = await kit.topic()
    producer = await kit.producer(compression_type=codec, linger_ms=50)
    sent = [f"{i}-".encode() * 40 for i in range(300)]
    for future in [await producer.send(topic, value) for value in sent]:
        await future
    assert [r.value for r in await receive(await reader(kit, topic), 300)] == sent


@pytest.mark.parametrize("acks", [0, 1, "all"])
@with_kit
async def test_acks(kit, acks):
    topic = await kit.topic()
    await send(await kit.producer(acks=acks), topic, 0, 100)
    assert values(await receive(await reader(kit, topic), 100)) == names(0, 100)


@with_kit
async def test_idempotent_producer(kit):
    topic = await kit.topic()
    producer = await kit.producer(enable_idempotence=True, max_batch_size=500)
    sent = await send(producer, topic, 0, 2000)
    assert [m.offset for m in sent] == list(range(2000))
    assert values(await receive(await reader(kit, topic), 2000)) == names(0, 2000)


@with_kit
async def test_message_too_large(kit):
    topic = await kit.topic()
    producer = await kit.producer(max_request_size=4_000_000)
    await producer.send_and_wait(topic, os.urandom(1_000_000))
    with pytest.raises(MessageSizeTooLargeError):
        await producer.send_and_wait(topic, os.urandom(1_100_000))
    assert (await producer.send_and_wait(topic, b"after")).offset == 1


@with_kit
async def test_same_key_same_partition(kit):
    topic = await kit.topic(4)
    producer = await kit.producer()
    where = {}
    for i in range(120):
        sent = await producer.send_and_wait(topic, b"v", key=b"k%d" % (i % 20))
        assert where.setdefault(i % 20, sent.partition) == sent.partition
    assert len(set(where.values())) > 1


@with_kit
async def test_producing_creates_the_topic(kit):
    topic = fresh("auto")
    await send(await kit.producer(), topic, 0, 3)
    assert values(await receive(await reader(kit, topic), 3)) == names(0, 3)


@with_kit
async def test_seek_and_position(kit):
    topic = await kit.topic()
    await send(await kit.producer(), topic, 0, 30)
    at = TopicPartition(topic, 0)
    consumer = await reader(kit, topic, 12)
    assert values(await receive(consumer, 18)) == names(12, 30)
    assert await consumer.position(at) == 30
    await consumer.seek_to_beginning(at)
    assert (await receive(consumer, 1))[0].offset == 0
    await consumer.seek_to_end(at)
    assert await consumer.position(at) == 30
    assert consumer.highwater(at) == 30


@with_kit
async def test_offsets_by_end_and_time(kit):
    topic = await kit.topic(2)
    producer = await kit.producer()
    base = 1_700_000_000_000
    for i in range(10):
        await producer.send_and_wait(topic, b"v", partition=0, timestamp_ms=base + 1000 * i)
    one, two = TopicPartition(topic, 0), TopicPartition(topic, 1)
    consumer = await kit.consumer()
    assert await consumer.beginning_offsets([one, two]) == {one: 0, two: 0}
    assert await consumer.end_offsets([one, two]) == {one: 10, two: 0}
    found = (await consumer.offsets_for_times({one: base + 3500}))[one]
    assert (found.offset, found.timestamp) == (4, base + 4000)
    assert (await consumer.offsets_for_times({one: base + 99_000}))[one] is None


@with_kit
async def test_out_of_range(kit):
    topic = await kit.topic()
    await send(await kit.producer(), topic, 0, 5)
    assert values(await receive(await reader(kit, topic, 900), 5)) == names(0, 5)
    strict = await reader(kit, topic, 900, auto_offset_reset="none")
    with pytest.raises(OffsetOutOfRangeError):
        await receive(strict, 1)


@with_kit
async def test_waiting_fetch_is_woken(kit):
    topic = await kit.topic()
    consumer = await reader(kit, topic, fetch_max_wait_ms=8000)
    producer = await kit.producer()
    await send(producer, topic, 0, 1)
    await receive(consumer, 1)
    pending = asyncio.create_task(consumer.getone())
    await asyncio.sleep(0.3)
    begin = time.monotonic()
    await send(producer, topic, 1, 2)
    await asyncio.wait_for(pending, 10)
    assert time.monotonic() - begin < 2


@with_kit
async def test_group_resumes_at_its_commit(kit):
    topic, group = await kit.topic(), fresh("g")
    at = TopicPartition(topic, 0)
    await send(await kit.producer(), topic, 0, 10)
    first = await kit.consumer(topic, group=group)
    await receive(first, 10)
    await first.commit({at: (4, "note")})
    await first.stop()
    second = await kit.consumer(topic, group=group)
    assert values(await receive(second, 6)) == names(4, 10)
    assert await second.committed(at) == 4
    admin = await kit.admin()
    offsets = await admin.list_consumer_group_offsets(group)
    assert (offsets[at].offset, offsets[at].metadata) == (4, "note")


@with_kit
async def test_auto_commit(kit):
    topic, group = await kit.topic(), fresh("g")
    await send(await kit.producer(), topic, 0, 10)
    first = await kit.consumer(topic, group=group, enable_auto_commit=True)
    await receive(first, 10)
    await first.stop()
    second = await kit.consumer(topic, group=group)
    assert await second.committed(TopicPartition(topic, 0)) == 10


@with_kit
async def test_commit_of_a_partition_that_is_not_ours(kit):
    topic = await kit.topic()
    consumer = await kit.consumer(topic, group=fresh("g"))
    await eventually(lambda: consumer.assignment())
    with pytest.raises(IllegalStateError):
        await consumer.commit({TopicPartition(topic, 7): 1})


@pytest.mark.parametrize("assignor", [RangePartitionAssignor, RoundRobinPartitionAssignor,
                                      StickyPartitionAssignor])
@with_kit
async def test_members_come_and_go(kit, assignor):
    topic, group = await kit.topic(6), fresh("g")
    config = {"partition_assignment_strategy": (assignor,)}
    one = await kit.join(topic, group, **config)
    await eventually(lambda: shared(6, 6, one))
    two = await kit.join(topic, group, **config)
    three = await kit.join(topic, group, **config)
    await eventually(lambda: shared(6, 2, one, two, three))
    await send(await kit.producer(), topic, 0, 200)
    await eventually(lambda: len(one.got) + len(two.got) + len(three.got) >= 200)
    await one.leave()
    await eventually(lambda: shared(6, 3, two, three))


@with_kit
async def test_static_member_returns(kit):
    topic, group = await kit.topic(4), fresh("g")
    one = await kit.join(topic, group, group_instance_id="one", session_timeout_ms=30000)
    two = await kit.join(topic, group, group_instance_id="two", session_timeout_ms=30000)
    await eventually(lambda: shared(4, 2, one, two))
    held, assignments = set(two.held), one.assignments
    await two.leave()
    again = await kit.join(topic, group, group_instance_id="two", session_timeout_ms=30000)
    await eventually(lambda: again.held == held)
    assert one.assignments == assignments


def error_codes(response):
    """The error codes of an answer to CreateTopics or DeleteTopics, whose layout varies by version."""
    entries = getattr(response, "topic_errors", None) or response.topic_error_codes
    return [entry[1] for entry in entries]


@with_kit
async def test_admin_topics(kit):
    topic = await kit.topic(2)
    admin = await kit.admin()
    assert topic in await admin.list_topics()

    async def created(*request):
        return error_codes(await admin.create_topics([NewTopic(*request)]))

    assert await created(topic, 1, 1) == [36]  # TOPIC_ALREADY_EXISTS
    assert await created("bad/name", 1, 1) == [17]  # INVALID_TOPIC_EXCEPTION
    assert await created(fresh(), 1, 3) == [38]  # INVALID_REPLICATION_FACTOR
    assert await created(fresh(), 0, 1) == [37]  # INVALID_PARTITIONS
    await admin.create_partitions({topic: NewPartitions(5)})


    async def five():
        [found] = await admin.describe_topics([topic])
        return len(found["partitions"]) == 5

    await eventually(five)
    await admin.delete_topics([topic])
    assert error_codes(await admin.delete_topics([fresh("absent")])) == [3]

    async def gone():
        return topic not in await admin.list_topics()

    await eventually(gone)


@with_kit
async def test_admin_configs(kit):
    topic = await kit.topic(retention_ms=7200000)
    admin = await kit.admin()
    [response] = await admin.describe_configs(
        [ConfigResource(ConfigResourceType.TOPIC, topic)])
    entries = {entry[0]: entry[1] for entry in response.resources[0][4]}
    assert entries["retention.ms"] == "7200000"
    assert entries["cleanup.policy"] == "delete"


@with_kit
async def test_admin_groups(kit):
    topic, group = await kit.topic(2), fresh("g")
    member = await kit.join(topic, group)
    await eventually(lambda: shared(2, 2, member))
    admin = await kit.admin()
    assert (group, "consumer") in await admin.list_consumer_groups()
    [response] = await admin.describe_consumer_groups([group])
    [(error, name, state, *_)] = response.groups
    assert (error, name, state) == (0, group, "Stable")
    await member.leave()


@with_kit
async def test_admin_cluster(kit):
    admin = await kit.admin()
    found = await admin.describe_cluster()
    [broker] = found["brokers"]
    assert f"{broker['host']}:{broker['port']}" == BOOTSTRAP


@with_kit
async def test_invalid_topic_name(kit):
    producer = await kit.producer(request_timeout_ms=1500)
    with pytest.raises(UnknownTopicOrPartitionError):  # what it makes of every refusal
        await producer.send_and_wait("bad/name", b"v")


@pytest.mark.restart
@needs_restart
@pytest.mark.parametrize("kill", [False, True])
@with_kit
async def test_data_and_offsets_survive_a_restart(kit, kill):
    topic, group = await kit.topic(), fresh("g")
    await send(await kit.producer(), topic, 0, 100)
    first = await kit.consumer(topic, group=group)
    await receive(first, 100)
    await first.commit({TopicPartition(topic, 0): 70})
    await first.stop()
    await asyncio.to_thread(restart_broker, kill)
    second = await kit.consumer(topic, group=group)
    assert values(await receive(second, 30, 40)) == names(70, 100)


@pytest.mark.restart
@needs_restart
@with_kit
async def test_running_clients_go_on_after_a_restart(kit):
    topic = await kit.topic()
    producer = await kit.producer(enable_idempotence=True)
    member = await kit.join(topic, fresh("g"))
    await send(producer, topic, 0, 50)
    await eventually(lambda: len(member.got) == 50)
    await asyncio.to_thread(restart_broker)
    await send(producer, topic, 50, 100)
    await eventually(lambda: len(set(values(member.got))) == 100, 40)
