"""What survives a restart of the broker, and how running clients of librdkafka get over it.

Each test restarts the broker: they run alone, one after the other.
"""

import threading
import time

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import ConfigResource, ResourceType
from conftest import at, names, receive, send, values
from support import RESTART_CMD, eventually, fresh, restart_broker

pytestmark = [pytest.mark.restart,
              pytest.mark.skipif(not RESTART_CMD, reason="the broker is not ours to restart")]


def committed_or_none(consumer, partitions):
    """The committed offsets, or None while the coordinator is still finding itself."""
    try:
        return consumer.committed(partitions, timeout=15)
    except KafkaException as error:
        assert error.args[0].retriable() or error.args[0].code() == KafkaError.NOT_COORDINATOR
        return None


def test_everything_durable_survives_a_clean_restart(kit):
    topic = kit.topic(partitions=3, retention_ms=7200000)
    name = fresh("g")
    producer = kit.producer(compression_type="zstd")
    for partition in range(3):
        send(producer, topic, 100, partition=partition, key=b"k", headers=[("h", b"1")])
    consumer = kit.consumer(name)
    consumer.commit(offsets=[at(topic, 1, 42)], asynchronous=False)
    consumer.close()
    before = kit.admin.describe_topics(TopicCollection([topic]))[topic].result(15).topic_id
    cluster = kit.admin.describe_cluster().result(15).cluster_id

    restart_broker()

    fresh_kit = type(kit)()
    assert len(eventually(lambda: fresh_kit.partitions(topic))) == 3
    after = fresh_kit.admin.describe_topics(TopicCollection([topic]))[topic].result(15).topic_id
    assert str(after) == str(before)
    assert fresh_kit.admin.describe_cluster().result(15).cluster_id == cluster
    resource = ConfigResource(ResourceType.TOPIC, topic)
    found = fresh_kit.admin.describe_configs([resource])[resource].result(15)
    assert found["retention.ms"].value == "7200000"
    again = kit.consumer(name)
    committed = eventually(lambda: committed_or_none(again, [at(topic, p) for p in range(3)]))
    assert [p.offset for p in committed] == [-1001, 42, -1001]
    again.assign([at(topic, p, 0) for p in range(3)])
    got = receive(again, 300)
    for partition in range(3):
        assert values(m for m in got if m.partition() == partition) == names(0, 100)
    assert got[0].key() == b"k" and got[0].headers() == [("h", b"1")]
    [message] = send(kit.producer(), topic, 1, partition=1)
    assert message.offset() == 100


def test_acknowledged_messages_survive_sigkill(kit):
    topic = kit.topic()
    send(kit.producer(acks="all"), topic, 500)
    restart_broker(kill=True)
    consumer = kit.consumer()
    consumer.assign([at(topic, 0, 0)])
    assert values(receive(consumer, 500, timeout_s=40)) == names(0, 500)


def test_idempotent_producer_goes_on_without_loss_or_doubles(kit):
    topic = kit.topic()
    producer = kit.producer(enable_idempotence=True, linger_ms=0, message_timeout_ms=60000)
    restarted = threading.Event()

    def restart():
        restart_broker()
        restarted.set()

    thread = threading.Thread(target=restart)
    delivered = []

    def report(error, message):
        assert error is None, error
        delivered.append(message)

    count = 0
    while not restarted.is_set() or count < 2000:
        producer.produce(topic, value=f"m{count}", on_delivery=report)
        producer.poll(0)
        count += 1
        if count == 500:
            thread.start()
        time.sleep(0.001)
    thread.join()
    assert producer.flush(40) == 0
    assert len(delivered) == count
    consumer = kit.consumer()
    consumer.assign([at(topic, 0, 0)])
    assert values(receive(consumer, count, timeout_s=30)) == names(0, count)
    assert consumer.get_watermark_offsets(at(topic), timeout=10) == (0, count)


def test_group_member_reads_on_after_a_restart(kit):
    topic, name = kit.topic(partitions=2), fresh("g")
    producer = kit.producer()
    consumer = kit.consumer(name)
    consumer.subscribe([topic])
    send(producer, topic, 10)
    receive(consumer, 10)
    consumer.commit(asynchronous=False)
    restart_broker()
    send(producer, topic, 10, start=10)
    got, deadline = [], time.monotonic() + 40
    while len(got) < 10 and time.monotonic() < deadline:
        message = consumer.poll(0.1)
        if message is not None and message.error() is None:
            got.append(message)
    assert sorted(values(got)) == names(10, 20)


def test_long_polling_consumer_reads_on_after_a_restart(kit):
    topic = kit.topic()
    consumer = kit.consumer(fetch_wait_max_ms=5000, session_timeout_ms=45000)
    consumer.assign([at(topic, 0, 0)])
    assert consumer.poll(0.5) is None
    restart_broker()
    send(kit.producer(), topic, 5)
    got, deadline = [], time.monotonic() + 30
    while len(got) < 5 and time.monotonic() < deadline:
        message = consumer.poll(0.1)
        if message is not None and message.error() is None:
            got.append(message)
    assert values(got) == names(0, 5)


def test_deleted_topic_stays_deleted(kit):
    kept, gone = kit.topic(), kit.topic()
    kit.admin.delete_topics([gone], operation_timeout=10)[gone].result(15)
    eventually(lambda: gone not in kit.admin.list_topics(timeout=10).topics)
    restart_broker()
    topics = type(kit)().admin.list_topics(timeout=20).topics
    assert kept in topics and gone not in topics
