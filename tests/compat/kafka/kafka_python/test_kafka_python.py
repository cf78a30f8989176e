"""kafka-python against the broker: the same tests for 2.0 and 3.0."""

import os
import time

import pytest
from kafka import TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewPartitions, NewTopic
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from kafka.errors import (BrokerResponseError, InvalidPartitionsError,
                          InvalidReplicationFactorError, InvalidTopicError,
                          MessageSizeTooLargeError, TopicAlreadyExistsError,
                          UnknownTopicOrPartitionError)
from kafka.structs import OffsetAndMetadata

from conftest import MODERN, names, reader, receive, send, shared, values
from support import BOOTSTRAP, RESTART_CMD, eventually, fresh, restart_broker

needs_restart = pytest.mark.skipif(not RESTART_CMD, reason="the broker is not ours to restart")


def offset_and_metadata(offset, note=""):
    return OffsetAndMetadata(offset, note, -1) if MODERN else OffsetAndMetadata(offset, note)


def test_record_comes_back_whole(kit):
    topic = kit.topic()
    producer = kit.producer()
    headers = [("a", b"1"), ("b", b""), ("a", b"\x00\xff")]
    sent = producer.send(topic, key=b"k", value=b"v", headers=headers,
                         timestamp_ms=1_600_000_000_123).get(timeout=10)
    assert (sent.partition, sent.offset) == (0, 0)
    producer.send(topic, value=b"no key")
    producer.send(topic, key=b"tombstone", value=None)
    producer.send(topic, key=b"", value=b"")
    producer.flush()
    got = receive(reader(kit, topic), 4)
    assert (got[0].key, got[0].value, got[0].timestamp) == (b"k", b"v", 1_600_000_000_123)
    assert [tuple(h) for h in got[0].headers] == headers
    assert got[0].timestamp_type == 0
    assert got[1].key is None and got[2].value is None
    assert (got[3].key, got[3].value) == (b"", b"")


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
def test_codec(kit, codec):
    topic = kit.topic()
    producer = kit.producer(compression_type=codec, linger_ms=50)
    sent = [f"{i}-".encode() * 40 for i in range(300)]
    for value in sent:
        producer.send(topic, value)
    producer.flush(timeout=20)
    assert [r.value for r in receive(reader(kit, topic), 300)] == sent


@pytest.mark.parametrize("acks", [0, 1, "all"])
def test_acks(kit, acks):
    topic = kit.topic()
    extra = {"enable_idempotence": False} if MODERN else {}
    producer = kit.producer(acks=acks, max_in_flight_requests_per_connection=1, **extra)
    send(producer, topic, 0, 100)
    assert values(receive(reader(kit, topic), 100)) == names(0, 100)


@pytest.mark.skipif(not MODERN, reason="2.0 has no idempotent producer")
def test_idempotent_producer(kit):
    topic = kit.topic()
    producer = kit.producer(enable_idempotence=True, batch_size=200)
    sent = send(producer, topic, 0, 2000)
    assert [m.offset for m in sent] == list(range(2000))
    assert values(receive(reader(kit, topic), 2000)) == names(0, 2000)


def test_message_too_large(kit):
    topic = kit.topic()
    producer = kit.producer(max_request_size=4_000_000)
    producer.send(topic, os.urandom(1_000_000)).get(timeout=10)
    with pytest.raises(MessageSizeTooLargeError):
        producer.send(topic, os.urandom(1_100_000)).get(timeout=10)
    assert kit.producer().send(topic, b"after").get(timeout=10).offset == 1


def test_same_key_same_partition(kit):
    topic = kit.topic(4)
    producer = kit.producer()
    where = {}
    for i in range(120):
        partition = producer.send(topic, key=b"k%d" % (i % 20), value=b"v").get(10).partition
        assert where.setdefault(i % 20, partition) == partition
    assert len(set(where.values())) > 1


def test_producing_creates_the_topic(kit):
    topic = fresh("auto")
    send(kit.producer(), topic, 0, 3)
    assert values(receive(reader(kit, topic), 3)) == names(0, 3)


def test_seek_and_position(kit):
    topic = kit.topic()
    send(kit.producer(), topic, 0, 30)
    at = TopicPartition(topic, 0)
    consumer = reader(kit, topic, 12)
    assert values(receive(consumer, 18)) == names(12, 30)
    assert consumer.position(at) == 30
    consumer.seek_to_beginning(at)
    assert receive(consumer, 1)[0].offset == 0
    consumer.seek_to_end(at)
    assert consumer.position(at) == 30


def test_offsets_by_end_and_time(kit):
    topic = kit.topic(2)
    producer = kit.producer()
    base = 1_700_000_000_000
    for i in range(10):
        producer.send(topic, b"v", partition=0, timestamp_ms=base + 1000 * i).get(10)
    one, two = TopicPartition(topic, 0), TopicPartition(topic, 1)
    consumer = kit.consumer()
    assert consumer.beginning_offsets([one, two]) == {one: 0, two: 0}
    assert consumer.end_offsets([one, two]) == {one: 10, two: 0}
    found = consumer.offsets_for_times({one: base + 3500})[one]
    assert (found.offset, found.timestamp) == (4, base + 4000)
    assert consumer.offsets_for_times({one: base + 99_000})[one] is None


def test_out_of_range_is_reset(kit):
    topic = kit.topic()
    send(kit.producer(), topic, 0, 5)
    assert values(receive(reader(kit, topic, 900), 5)) == names(0, 5)


def test_waiting_fetch_is_woken(kit):
    topic = kit.topic()
    consumer = reader(kit, topic, fetch_max_wait_ms=8000)
    producer = kit.producer()
    send(producer, topic, 0, 1)
    receive(consumer, 1)
    consumer.poll(timeout_ms=300)
    begin = time.monotonic()
    send(producer, topic, 1, 2)
    receive(consumer, 1)
    assert time.monotonic() - begin < 2


def test_small_fetch_limits(kit):
    topic = kit.topic()
    bodies = [os.urandom(50_000) for _ in range(10)]
    producer = kit.producer()
    for body in bodies:
        producer.send(topic, body).get(10)
    consumer = reader(kit, topic, max_partition_fetch_bytes=10_000 if MODERN else 60_000)
    assert [r.value for r in receive(consumer, 10)] == bodies


def test_topics_and_partitions_are_listed(kit):
    topic = kit.topic(3)
    consumer = kit.consumer()
    assert topic in consumer.topics()
    assert consumer.partitions_for_topic(topic) == {0, 1, 2}


def test_group_resumes_at_its_commit(kit):
    topic, group = kit.topic(), fresh("g")
    at = TopicPartition(topic, 0)
    send(kit.producer(), topic, 0, 10)
    first = kit.consumer(topic, group=group)
    receive(first, 10)
    first.commit({at: offset_and_metadata(4, "note")})
    first.close(autocommit=False)
    second = kit.consumer(topic, group=group)
    assert values(receive(second, 6)) == names(4, 10)
    assert second.committed(at, metadata=True).metadata == "note"


def test_auto_commit(kit):
    topic, group = kit.topic(), fresh("g")
    send(kit.producer(), topic, 0, 10)
    first = kit.consumer(topic, group=group, enable_auto_commit=True, auto_commit_interval_ms=100)
    receive(first, 10)
    first.close()
    assert kit.consumer(group=group).committed(TopicPartition(topic, 0)) == 10


# The sticky assignor of 2.0 does not run on today's Python.
ASSIGNORS = [RangePartitionAssignor, RoundRobinPartitionAssignor]


@pytest.mark.parametrize("assignor", ASSIGNORS + [StickyPartitionAssignor] * MODERN)
def test_members_come_and_go(kit, join, assignor):
    topic, group = kit.topic(6), fresh("g")
    config = {"partition_assignment_strategy": [assignor]}
    one = join(topic, group, **config)
    eventually(lambda: shared(6, 6, one), 30)
    two, three = join(topic, group, **config), join(topic, group, **config)
    eventually(lambda: shared(6, 2, one, two, three), 30)
    send(kit.producer(), topic, 0, 200)
    eventually(lambda: len(one.got) + len(two.got) + len(three.got) >= 200)
    one.leave()
    eventually(lambda: shared(6, 3, two, three), 30)


@pytest.mark.skipif(not MODERN, reason="2.0 has no static members")
def test_static_member_returns(kit, join):
    topic, group = kit.topic(4), fresh("g")
    one = join(topic, group, group_instance_id="one", session_timeout_ms=30000)
    two = join(topic, group, group_instance_id="two", session_timeout_ms=30000)
    eventually(lambda: shared(4, 2, one, two), 30)
    held = set(two.held)
    two.leave()
    again = join(topic, group, group_instance_id="two", session_timeout_ms=30000)
    eventually(lambda: again.held == held)


def refused(error, call, *args, **kwargs):
    """The call raises the error, or (3.0, wrapped) names it."""
    with pytest.raises(BrokerResponseError) as caught:
        call(*args, **kwargs)
    assert isinstance(caught.value, error) or error.__name__ in repr(caught.value), caught.value


def test_admin_topics(kit):
    topic = kit.topic(2)
    assert topic in kit.admin.list_topics()
    create = kit.admin.create_topics
    refused(TopicAlreadyExistsError, create, [NewTopic(topic, 1, 1)])
    refused(InvalidTopicError, create, [NewTopic("bad/name", 1, 1)])
    refused(InvalidReplicationFactorError, create, [NewTopic(fresh(), 1, 3)])
    refused(InvalidPartitionsError, create, [NewTopic(fresh(), 0, 1)])
    kit.admin.create_partitions({topic: 5 if MODERN else NewPartitions(5)})
    eventually(lambda: kit.partitions(topic) == 5)
    refused(InvalidPartitionsError, kit.admin.create_partitions,
            {topic: 3 if MODERN else NewPartitions(3)})
    kit.admin.delete_topics([topic])
    eventually(lambda: topic not in kit.admin.list_topics())
    refused(UnknownTopicOrPartitionError, kit.admin.delete_topics, [topic])


def test_admin_configs(kit):
    topic = kit.topic(retention_ms=7200000)
    resource = ConfigResource(ConfigResourceType.TOPIC, topic)
    if MODERN:
        found = kit.admin.describe_configs([resource], config_filter="all")
        entries = {key: data["value"] for key, data in found["topic"][topic].items()}
    else:
        [response] = kit.admin.describe_configs([resource])
        entries = {entry[0]: entry[1] for entry in response.resources[0][4]}
    assert entries["retention.ms"] == "7200000"
    assert entries["cleanup.policy"] == "delete"


def test_admin_groups(kit, join):
    topic, group = kit.topic(2), fresh("g")
    member = join(topic, group)
    eventually(lambda: shared(2, 2, member), 30)
    member.consumer.commit({TopicPartition(topic, 0): offset_and_metadata(4)})
    if MODERN:
        listed = {g["group_id"] for g in kit.admin.list_groups()}
        state = kit.admin.describe_groups([group])[group]["group_state"]
        offsets = kit.admin.list_group_offsets(group)[group]
        delete = kit.admin.delete_groups
    else:
        listed = {g[0] for g in kit.admin.list_consumer_groups()}
        state = kit.admin.describe_consumer_groups([group])[0].state
        offsets = kit.admin.list_consumer_group_offsets(group)
        delete = kit.admin.delete_consumer_groups
    assert group in listed
    assert state == "Stable"
    assert offsets[TopicPartition(topic, 0)].offset == 4

    def deletion():
        [(name, error)] = dict(delete([group])).items()
        assert name == group
        return repr(error)

    assert "NonEmptyGroup" in deletion()
    member.leave()
    eventually(lambda: "NonEmptyGroup" not in deletion())
    assert "GroupIdNotFound" in deletion()


def test_cluster_is_described(kit):
    found = kit.admin.describe_cluster()
    [broker] = found["brokers"]
    assert f"{broker['host']}:{broker['port']}" == BOOTSTRAP
    assert found["controller_id"] == broker.get("node_id", broker.get("broker_id"))


@pytest.mark.restart
@needs_restart
@pytest.mark.parametrize("kill", [False, True])
def test_data_and_offsets_survive_a_restart(kit, kill):
    topic, group = kit.topic(), fresh("g")
    send(kit.producer(), topic, 0, 100)
    first = kit.consumer(topic, group=group)
    receive(first, 100)
    first.commit({TopicPartition(topic, 0): offset_and_metadata(70)})
    first.close(autocommit=False)
    restart_broker(kill)
    second = kit.consumer(topic, group=group)
    assert values(receive(second, 30, 40)) == names(70, 100)
    [message] = send(kit.producer(), topic, 100, 101)
    assert message.offset == 100


@pytest.mark.restart
@needs_restart
def test_running_clients_go_on_after_a_restart(kit, join):
    topic = kit.topic()
    producer = kit.producer()
    member = join(topic, fresh("g"))
    send(producer, topic, 0, 50)
    eventually(lambda: len(member.got) == 50)
    restart_broker()
    send(producer, topic, 50, 100)
    eventually(lambda: len(set(values(member.got))) == 100, 40)
