"""Consumer groups with librdkafka: commits, rebalances, static members, refusals."""

import signal
import subprocess
import sys
import threading
import time

import pytest
from confluent_kafka import (OFFSET_INVALID, ConsumerGroupState, ConsumerGroupTopicPartitions,
                             KafkaError, KafkaException, TopicPartition)
from conftest import BASE, at, names, poll_error, receive, receive_none, send, values
from support import eventually, fresh

STRATEGIES = ["range", "roundrobin", "cooperative-sticky"]


class Member:
    """A subscribed consumer polled by a thread of its own."""

    def __init__(self, kit, topics, group, **config):
        self.consumer = kit.consumer(group, **config)
        self.assigned = set()
        self.assignments = 0
        self.revocations = 0
        self.lost = 0
        self.got = []
        self.errors = []
        self.stopping = threading.Event()
        self.consumer.subscribe(topics, on_assign=self.on_assign, on_revoke=self.on_revoke,
                                on_lost=self.on_lost)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def on_assign(self, _consumer, partitions):
        self.assignments += 1
        self.assigned |= {(p.topic, p.partition) for p in partitions}

    def on_revoke(self, _consumer, partitions):
        self.revocations += 1
        self.assigned -= {(p.topic, p.partition) for p in partitions}

    def on_lost(self, _consumer, partitions):
        self.lost += 1
        self.assigned -= {(p.topic, p.partition) for p in partitions}

    def run(self):
        while not self.stopping.is_set():
            message = self.consumer.poll(0.05)
            if message is None:
                continue
            if message.error() is not None:
                self.errors.append(message.error())
            else:
                self.got.append(message)

    def halt(self):
        """Stops polling; the consumer stays open."""
        self.stopping.set()
        self.thread.join(10)

    def leave(self):
        self.halt()
        self.consumer.close()


@pytest.fixture
def group(kit):
    """Makes members of one group and stops them in the end."""
    members = []
    name = fresh("g")

    def join(topics, **config):
        member = Member(kit, topics, config.pop("group", name), **config)
        members.append(member)
        return member

    join.name = name
    yield join
    for member in members:
        member.halt()


def shares(*members):
    return sorted(len(m.assigned) for m in members)


def disjoint_cover(topic, partitions, *members):
    """True when the members hold every partition exactly once."""
    held = [tp for m in members for tp in m.assigned]
    return sorted(held) == [(topic, p) for p in range(partitions)]


def test_subscribe_reads_all_partitions(kit, group):
    topic = kit.topic(partitions=4)
    producer = kit.producer()
    for partition in range(4):
        send(producer, topic, 25, partition=partition)
    member = group([topic])
    eventually(lambda: len(member.got) == 100)
    assert disjoint_cover(topic, 4, member)


def test_committed_offset_is_where_the_next_member_begins(kit):
    topic, name = kit.topic(), fresh("g")
    send(kit.producer(), topic, 10)
    first = kit.consumer(name)
    first.subscribe([topic])
    messages = receive(first, 4)
    first.commit(message=messages[-1], asynchronous=False)
    first.close()
    second = kit.consumer(name)
    second.subscribe([topic])
    assert values(receive(second, 6)) == names(4, 10)


def test_without_commit_the_next_member_begins_anew(kit):
    topic, name = kit.topic(), fresh("g")
    send(kit.producer(), topic, 5)
    for _ in range(2):
        consumer = kit.consumer(name)
        consumer.subscribe([topic])
        assert values(receive(consumer, 5)) == names(0, 5)
        consumer.close()


def test_auto_commit_on_close(kit):
    topic, name = kit.topic(), fresh("g")
    send(kit.producer(), topic, 10)
    first = kit.consumer(name, enable_auto_commit=True, auto_commit_interval_ms=60000)
    first.subscribe([topic])
    receive(first, 10)
    first.close()
    send(kit.producer(), topic, 2, start=10)
    second = kit.consumer(name)
    second.subscribe([topic])
    assert values(receive(second, 2)) == names(10, 12)


def test_auto_commit_by_interval(kit):
    topic, name = kit.topic(), fresh("g")
    send(kit.producer(), topic, 10)
    consumer = kit.consumer(name, enable_auto_commit=True, auto_commit_interval_ms=200)
    consumer.subscribe([topic])
    receive(consumer, 10)

    def committed():
        consumer.poll(0)
        return consumer.committed([at(topic)], timeout=10)[0].offset == 10

    eventually(committed)


def test_stored_offsets_are_what_is_committed(kit):
    topic, name = kit.topic(), fresh("g")
    send(kit.producer(), topic, 10)
    consumer = kit.consumer(name, enable_auto_commit=True, enable_auto_offset_store=False)
    consumer.subscribe([topic])
    messages = receive(consumer, 10)
    consumer.store_offsets(message=messages[2])
    consumer.close()
    assert kit.consumer(name).committed([at(topic)], timeout=10)[0].offset == 3


def test_commit_keeps_metadata(kit):
    topic, name = kit.topic(), fresh("g")
    consumer = kit.consumer(name)
    offset = TopicPartition(topic, 0, 7, "wo wir sind ✓")
    consumer.commit(offsets=[offset], asynchronous=False)
    [committed] = kit.consumer(name).committed([at(topic)], timeout=10)
    assert (committed.offset, committed.metadata) == (7, "wo wir sind ✓")


def test_metadata_over_4096_bytes_is_too_large(kit):
    topic = kit.topic()
    offset = TopicPartition(topic, 0, 7, "x" * 5000)
    with pytest.raises(KafkaException) as caught:
        kit.consumer().commit(offsets=[offset], asynchronous=False)
    assert caught.value.args[0].code() == KafkaError.OFFSET_METADATA_TOO_LARGE


def test_uncommitted_partition_has_no_offset(kit):
    topic = kit.topic(partitions=2)
    consumer = kit.consumer()
    consumer.commit(offsets=[at(topic, 0, 3)], asynchronous=False)
    committed = consumer.committed([at(topic, 0), at(topic, 1)], timeout=10)
    assert [p.offset for p in committed] == [3, OFFSET_INVALID]


def test_commit_to_an_unknown_topic_is_an_error(kit):
    with pytest.raises(KafkaException) as caught:
        kit.consumer().commit(offsets=[at(fresh("absent"), 0, 3)], asynchronous=False)
    assert caught.value.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_offsets_may_be_committed_backwards(kit):
    topic, name = kit.topic(), fresh("g")
    consumer = kit.consumer(name)
    for offset in (9, 4):
        consumer.commit(offsets=[at(topic, 0, offset)], asynchronous=False)
        assert consumer.committed([at(topic)], timeout=10)[0].offset == offset


def test_groups_do_not_share_offsets(kit):
    topic = kit.topic()
    send(kit.producer(), topic, 10)
    one, two = kit.consumer(), kit.consumer()
    one.commit(offsets=[at(topic, 0, 5)], asynchronous=False)
    two.subscribe([topic])
    assert values(receive(two, 10)) == names(0, 10)
    one.subscribe([topic])
    assert values(receive(one, 5)) == names(5, 10)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_second_member_takes_half(kit, group, strategy):
    topic = kit.topic(partitions=4)
    config = {"partition_assignment_strategy": strategy}
    one = group([topic], **config)
    eventually(lambda: shares(one) == [4])
    two = group([topic], **config)
    eventually(lambda: shares(one, two) == [2, 2] and disjoint_cover(topic, 4, one, two))
    two.leave()
    eventually(lambda: disjoint_cover(topic, 4, one))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_three_members_come_and_go(kit, group, strategy):
    topic = kit.topic(partitions=6)
    config = {"partition_assignment_strategy": strategy}
    members = [group([topic], **config) for _ in range(3)]
    eventually(lambda: shares(*members) == [2, 2, 2] and disjoint_cover(topic, 6, *members), 25)
    producer = kit.producer()
    for partition in range(6):
        send(producer, topic, 20, partition=partition)
    eventually(lambda: sum(len(m.got) for m in members) == 120)
    members[0].leave()
    eventually(lambda: shares(*members[1:]) == [3, 3]
               and disjoint_cover(topic, 6, *members[1:]), 25)


def test_cooperative_member_keeps_what_it_may_keep(kit, group):
    topic = kit.topic(partitions=4)
    config = {"partition_assignment_strategy": "cooperative-sticky"}
    one = group([topic], **config)
    eventually(lambda: shares(one) == [4])
    before = set(one.assigned)
    two = group([topic], **config)
    eventually(lambda: shares(one, two) == [2, 2])
    assert one.assigned < before
    assert one.revocations == 1


def test_more_members_than_partitions_leaves_one_idle(kit, group):
    topic = kit.topic(partitions=2)
    members = [group([topic]) for _ in range(3)]
    eventually(lambda: shares(*members) == [0, 1, 1] and all(m.assignments for m in members), 25)


def test_range_gives_equal_ranges_of_two_topics_to_the_same_member(kit, group):
    topics = [kit.topic(partitions=4), kit.topic(partitions=4)]
    members = [group(topics, partition_assignment_strategy="range") for _ in range(2)]
    eventually(lambda: shares(*members) == [4, 4])
    for member in members:
        held = {t: {p for topic, p in member.assigned if topic == t} for t in topics}
        assert held[topics[0]] == held[topics[1]]
        assert held[topics[0]] in ({0, 1}, {2, 3})


def test_members_with_different_topics_get_their_own(kit, group):
    a, b = kit.topic(partitions=2), kit.topic(partitions=2)
    config = {"partition_assignment_strategy": "roundrobin"}
    one, two = group([a], **config), group([b], **config)
    eventually(lambda: disjoint_cover(a, 2, one) and disjoint_cover(b, 2, two))


def test_no_message_is_lost_or_doubled_when_commits_are_made_on_revoke(kit, group):
    topic = kit.topic(partitions=4)
    producer = kit.producer()
    send(producer, topic, 400)
    config = {"enable_auto_commit": True, "auto_commit_interval_ms": 100}
    one = group([topic], **config)
    eventually(lambda: len(one.got) > 100)
    two = group([topic], **config)
    eventually(lambda: shares(one, two) == [2, 2])
    send(producer, topic, 400, start=400)
    eventually(lambda: len(one.got) + len(two.got) >= 800)
    got = sorted(int(v[1:]) for v in values(one.got + two.got))
    assert got == list(range(800))


def test_members_that_disagree_on_the_strategy_are_refused(kit, group):
    topic = kit.topic(partitions=2)
    one = group([topic], partition_assignment_strategy="range")
    eventually(lambda: shares(one) == [2])
    two = kit.consumer(group.name, partition_assignment_strategy="cooperative-sticky")
    two.subscribe([topic])
    assert poll_error(two).code() == KafkaError.INCONSISTENT_GROUP_PROTOCOL
    assert shares(one) == [2]


def test_too_short_a_session_is_refused(kit):
    topic = kit.topic()
    consumer = kit.consumer(session_timeout_ms=1000, heartbeat_interval_ms=300)
    consumer.subscribe([topic])
    assert poll_error(consumer).code() == KafkaError.INVALID_SESSION_TIMEOUT


def test_static_member_returns_without_a_rebalance(kit, group):
    topic = kit.topic(partitions=4)
    send(kit.producer(), topic, 4)
    config = {"session_timeout_ms": 30000, "partition_assignment_strategy": "range"}
    one = group([topic], group_instance_id="one", **config)
    two = group([topic], group_instance_id="two", **config)
    eventually(lambda: shares(one, two) == [2, 2])
    held, assignments = set(two.assigned), one.assignments
    two.leave()
    again = group([topic], group_instance_id="two", **config)
    eventually(lambda: again.assigned == held)
    time.sleep(0.7)  # two heartbeats: had there been a rebalance, one would have heard of it
    assert one.assignments == assignments and len(one.assigned) == 2


def test_second_holder_of_an_instance_id_fences_the_first(kit, group):
    topic = kit.topic(partitions=2)
    config = {"session_timeout_ms": 30000}
    one = group([topic], group_instance_id="same", **config)
    eventually(lambda: shares(one) == [2])
    two = group([topic], group_instance_id="same", **config)
    eventually(lambda: shares(two) == [2])
    eventually(lambda: any(e.code() in (KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID)
                           for e in one.errors))


def test_regex_subscription(kit, group):
    prefix = fresh("rx")
    a, b = kit.topic(name=f"{prefix}-a"), kit.topic(name=f"{prefix}-b")
    member = group([f"^{prefix}-.*"])
    eventually(lambda: {t for t, _ in member.assigned} == {a, b})
    c = kit.topic(name=f"{prefix}-c")
    eventually(lambda: {t for t, _ in member.assigned} == {a, b, c})


def test_new_partitions_are_assigned_to_members(kit, group):
    from confluent_kafka.admin import NewPartitions
    topic = kit.topic(partitions=1)
    member = group([topic])
    eventually(lambda: shares(member) == [1])
    kit.admin.create_partitions([NewPartitions(topic, 3)])[topic].result(10)
    eventually(lambda: disjoint_cover(topic, 3, member))


def test_changed_subscription_moves_the_member(kit, group):
    a, b = kit.topic(), kit.topic()
    member = group([a])
    eventually(lambda: member.assigned == {(a, 0)})
    member.halt()
    member.consumer.subscribe([b])
    send(kit.producer(), b, 3)
    assert values(receive(member.consumer, 3)) == names(0, 3)


def test_unsubscribe_leaves_the_group(kit, group):
    topic = kit.topic(partitions=2)
    one, two = group([topic]), group([topic])
    eventually(lambda: shares(one, two) == [1, 1])
    two.halt()
    two.consumer.unsubscribe()
    two.consumer.poll(0.5)  # serves the revocation, after which it leaves
    begin = time.monotonic()
    eventually(lambda: shares(one) == [2])
    assert time.monotonic() - begin < 4  # sooner than its session would have ended


def test_stale_member_cannot_commit(kit, group):
    topic = kit.topic(partitions=2)
    slow = kit.consumer(group.name, max_poll_interval_ms=6000, session_timeout_ms=6000)
    slow.subscribe([topic])
    eventually(lambda: (slow.poll(0.1), len(slow.assignment()) == 2)[1])
    time.sleep(6.3)  # longer than its max.poll.interval: it leaves the group
    other = group([topic])
    eventually(lambda: shares(other) == [2])
    with pytest.raises(KafkaException) as caught:
        slow.commit(offsets=[at(topic, 0, 1)], asynchronous=False)
    assert caught.value.args[0].code() in (
        KafkaError.UNKNOWN_MEMBER_ID, KafkaError.ILLEGAL_GENERATION,
        KafkaError._ASSIGNMENT_LOST, KafkaError._STATE)


CRASHING_MEMBER = """
import sys
from confluent_kafka import Consumer
consumer = Consumer({"bootstrap.servers": sys.argv[1], "group.id": sys.argv[2],
                     "session.timeout.ms": 6000, "heartbeat.interval.ms": 300,
                     "broker.address.family": "v4"})
consumer.subscribe([sys.argv[3]])
while True:
    consumer.poll(0.1)
    print(len(consumer.assignment()), flush=True)
"""


def test_killed_member_is_dropped_after_its_session(kit, group):
    topic = kit.topic(partitions=4)
    child = subprocess.Popen([sys.executable, "-c", CRASHING_MEMBER, BASE["bootstrap.servers"],
                              group.name, topic], stdout=subprocess.PIPE, text=True)
    try:
        one = group([topic])
        eventually(lambda: shares(one) == [2], what="both members hold a half")
        child.send_signal(signal.SIGKILL)
        begin = time.monotonic()
        eventually(lambda: shares(one) == [4], what="the dead member's half came over")
        assert time.monotonic() - begin > 3
    finally:
        child.kill()
        child.communicate()


def test_group_with_members_cannot_have_its_offsets_altered_by_admin(kit, group):
    topic = kit.topic()
    member = group([topic])
    eventually(lambda: shares(member) == [1])
    request = ConsumerGroupTopicPartitions(group.name, [at(topic, 0, 3)])
    result = kit.admin.alter_consumer_group_offsets([request])[group.name].result(10)
    assert result.topic_partitions[0].error.code() == KafkaError.UNKNOWN_MEMBER_ID


def test_lag_is_end_minus_committed(kit):
    topic, name = kit.topic(), fresh("g")
    send(kit.producer(), topic, 10)
    consumer = kit.consumer(name)
    consumer.subscribe([topic])
    message = receive(consumer, 4)[-1]
    consumer.commit(message=message, asynchronous=False)
    committed = consumer.committed([at(topic)], timeout=10)[0].offset
    _, end = consumer.get_watermark_offsets(at(topic), timeout=10)
    assert end - committed == 6


def test_group_is_described_while_and_after_it_lives(kit, group):
    topic = kit.topic(partitions=2)
    member = group([topic], client_id="my-client")
    eventually(lambda: shares(member) == [2])

    def describe():
        return kit.admin.describe_consumer_groups([group.name])[group.name].result(10)

    found = eventually(lambda: (d := describe()).state == ConsumerGroupState.STABLE and d)
    assert found.group_id == group.name and not found.is_simple_consumer_group
    assert found.partition_assignor == "range"
    assert found.coordinator is not None
    [only] = found.members
    assert only.client_id == "my-client" and "127.0.0.1" in only.host
    assert {(p.topic, p.partition) for p in only.assignment.topic_partitions} == member.assigned
    member.halt()
    member.consumer.commit(offsets=[at(topic, 0, 1)], asynchronous=False)
    member.consumer.close()
    found = eventually(lambda: (d := describe()).state == ConsumerGroupState.EMPTY and d)
    assert found.members == []
