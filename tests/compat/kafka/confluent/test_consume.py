"""Reading with librdkafka without a group: positions, seeks, times, waits, resets."""

import os
import threading
import time

import pytest
from confluent_kafka import (OFFSET_BEGINNING, OFFSET_END, OFFSET_INVALID, KafkaError,
                             KafkaException)
from conftest import (at, names, poll_error, receive, receive_none, send, send_one, values)
from support import eventually, fresh


@pytest.fixture
def filled(kit):
    """A topic of one partition with m0..m99, produced in batches of ten."""
    topic = kit.topic()
    producer = kit.producer()
    for start in range(0, 100, 10):
        send(producer, topic, 10, start=start)
    return topic


def test_assign_at_the_beginning(kit, filled):
    consumer = kit.consumer()
    consumer.assign([at(filled, 0, OFFSET_BEGINNING)])
    assert values(receive(consumer, 100)) == names(0, 100)


def test_assign_at_the_end_gets_only_what_comes_later(kit, filled):
    consumer = kit.consumer()
    consumer.assign([at(filled, 0, OFFSET_END)])
    receive_none(consumer)
    send(kit.producer(), filled, 5, start=100)
    assert values(receive(consumer, 5)) == names(100, 105)


@pytest.mark.parametrize("offset", [1, 9, 10, 55, 99])
def test_assign_in_the_middle_of_a_batch(kit, filled, offset):
    consumer = kit.consumer()
    consumer.assign([at(filled, 0, offset)])
    assert values(receive(consumer, 100 - offset)) == names(offset, 100)


def test_seek_back_and_forth(kit, filled):
    consumer = kit.consumer()
    consumer.assign([at(filled, 0, 0)])
    receive(consumer, 20)
    for offset in (80, 3, 42):
        consumer.seek(at(filled, 0, offset))
        assert receive(consumer, 1)[0].offset() == offset
    consumer.seek(at(filled, 0, OFFSET_BEGINNING))
    assert receive(consumer, 1)[0].offset() == 0
    consumer.seek(at(filled, 0, OFFSET_END))
    receive_none(consumer, 0.3)


def test_pause_and_resume(kit):
    topic = kit.topic(partitions=2)
    producer = kit.producer()
    consumer = kit.consumer()
    consumer.assign([at(topic, 0, 0), at(topic, 1, 0)])
    consumer.pause([at(topic, 0)])
    send(producer, topic, 3, partition=0)
    send(producer, topic, 3, partition=1)
    assert {m.partition() for m in receive(consumer, 3)} == {1}
    receive_none(consumer, 0.3)
    consumer.resume([at(topic, 0)])
    assert {m.partition() for m in receive(consumer, 3)} == {0}


def test_reset_to_earliest_when_out_of_range(kit, filled):
    consumer = kit.consumer(auto_offset_reset="earliest")
    consumer.assign([at(filled, 0, 5000)])
    assert receive(consumer, 1)[0].offset() == 0


def test_reset_to_latest_when_out_of_range(kit, filled):
    consumer = kit.consumer(auto_offset_reset="latest")
    consumer.assign([at(filled, 0, 5000)])
    receive_none(consumer)
    send(kit.producer(), filled, 1, start=100)
    assert values(receive(consumer, 1)) == ["m100"]


def test_out_of_range_is_an_error_without_reset(kit, filled):
    consumer = kit.consumer(auto_offset_reset="error")
    consumer.assign([at(filled, 0, 5000)])
    assert poll_error(consumer).code() == KafkaError._AUTO_OFFSET_RESET


def test_watermarks(kit, filled):
    consumer = kit.consumer()
    assert consumer.get_watermark_offsets(at(filled), timeout=10) == (0, 100)
    empty = kit.topic()
    assert consumer.get_watermark_offsets(at(empty), timeout=10) == (0, 0)


def test_cached_watermarks_follow_fetches(kit, filled):
    consumer = kit.consumer()
    consumer.assign([at(filled, 0, 0)])
    receive(consumer, 100)
    assert eventually(lambda: consumer.get_watermark_offsets(at(filled), cached=True)[1] == 100)


def test_position_moves_with_polls(kit, filled):
    consumer = kit.consumer()
    consumer.assign([at(filled, 0, 10)])
    assert consumer.position([at(filled)])[0].offset == OFFSET_INVALID
    receive(consumer, 7)
    assert consumer.position([at(filled)])[0].offset == 17


def test_partition_end_is_reported_once_per_end(kit, filled):
    consumer = kit.consumer(enable_partition_eof=True)
    consumer.assign([at(filled, 0, 95)])
    receive(consumer, 5)
    assert poll_error(consumer).code() == KafkaError._PARTITION_EOF
    send(kit.producer(), filled, 1, start=100)
    assert values(receive(consumer, 1)) == ["m100"]
    assert poll_error(consumer).code() == KafkaError._PARTITION_EOF


def test_offsets_for_times(kit):
    topic = kit.topic()
    producer = kit.producer()
    base = 1_700_000_000_000
    for i in range(10):
        error, _ = send_one(producer, topic, value=f"m{i}".encode(), timestamp=base + 1000 * i)
        assert error is None
    consumer = kit.consumer()

    def find(stamp):
        return consumer.offsets_for_times([at(topic, 0, stamp)], timeout=10)[0].offset

    assert find(base - 5) == 0
    assert find(base) == 0
    assert find(base + 1) == 1
    assert find(base + 3000) == 3
    assert find(base + 8999) == 9
    assert find(base + 9001) == OFFSET_END


def test_offsets_for_times_inside_one_batch(kit):
    topic = kit.topic()
    producer = kit.producer(linger_ms=100, compression_type="gzip")
    base = 1_700_000_000_000
    for i in range(50):
        producer.produce(topic, value=b"v" * 100, timestamp=base + 10 * i)
    assert producer.flush(20) == 0
    consumer = kit.consumer()
    found = consumer.offsets_for_times([at(topic, 0, base + 245)], timeout=10)
    assert found[0].offset == 25


def test_idle_long_poll_is_woken_by_a_message(kit):
    topic = kit.topic()
    consumer = kit.consumer(fetch_wait_max_ms=8000, fetch_min_bytes=1,
                            socket_timeout_ms=60000, session_timeout_ms=45000)
    consumer.assign([at(topic, 0, 0)])
    assert consumer.poll(1.0) is None
    producer = kit.producer(linger_ms=0)
    send_one(producer, topic, value=b"warm")
    receive(consumer, 1)
    time.sleep(0.3)  # the next fetch is waiting at the broker now
    begin = time.monotonic()
    send_one(producer, topic, value=b"now")
    receive(consumer, 1)
    assert time.monotonic() - begin < 2


def test_long_poll_waits_for_min_bytes_up_to_max_wait(kit):
    topic = kit.topic()
    send_one(kit.producer(), topic, value=b"small")
    consumer = kit.consumer(fetch_wait_max_ms=1500, fetch_min_bytes=100_000)
    begin = time.monotonic()
    consumer.assign([at(topic, 0, 0)])
    receive(consumer, 1)
    assert 1.2 < time.monotonic() - begin < 6


def test_long_poll_ends_when_min_bytes_are_there(kit):
    topic = kit.topic()
    consumer = kit.consumer(fetch_wait_max_ms=10_000, fetch_min_bytes=50_000,
                            socket_timeout_ms=60000, session_timeout_ms=45000)
    consumer.assign([at(topic, 0, 0)])
    assert consumer.poll(0.5) is None
    begin = time.monotonic()

    def feed():
        producer = kit.producer(linger_ms=0)
        for _ in range(6):
            send_one(producer, topic, value=os.urandom(10_000))

    feeder = threading.Thread(target=feed)
    feeder.start()
    receive(consumer, 5)
    feeder.join()
    assert time.monotonic() - begin < 5


def test_message_larger_than_fetch_limits_is_still_delivered(kit):
    topic = kit.topic()
    producer = kit.producer()
    bodies = [os.urandom(300_000) for _ in range(4)]
    for body in bodies:
        send_one(producer, topic, value=body)
    consumer = kit.consumer(max_partition_fetch_bytes=1000, fetch_max_bytes=1000,
                            message_max_bytes=1000)
    consumer.assign([at(topic, 0, 0)])
    assert [m.value() for m in receive(consumer, 4)] == bodies


def test_small_partition_limit_reads_everything(kit):
    topic = kit.topic(partitions=3)
    producer = kit.producer(batch_num_messages=5)
    for partition in range(3):
        send(producer, topic, 400, partition=partition)
    consumer = kit.consumer(max_partition_fetch_bytes=2000)
    consumer.assign([at(topic, p, 0) for p in range(3)])
    got = receive(consumer, 1200)
    for partition in range(3):
        assert values(m for m in got if m.partition() == partition) == names(0, 400)


def test_crcs_hold(kit, filled):
    consumer = kit.consumer(check_crcs=True)
    consumer.assign([at(filled, 0, 0)])
    assert values(receive(consumer, 100)) == names(0, 100)


def test_subscribing_to_an_unknown_topic_is_an_error(kit):
    consumer = kit.consumer(allow_auto_create_topics=False)
    consumer.subscribe([fresh("absent")])
    assert poll_error(consumer).code() == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_assigning_may_create_the_topic(kit):
    topic = fresh("auto")
    consumer = kit.consumer(allow_auto_create_topics=True)
    consumer.assign([at(topic, 0, 0)])

    def created():
        consumer.poll(0.1)
        return topic in kit.admin.list_topics(timeout=5).topics

    eventually(created)


def test_watermarks_of_an_unknown_partition_are_an_error(kit):
    topic = kit.topic()
    with pytest.raises(KafkaException) as caught:
        kit.consumer().get_watermark_offsets(at(topic, 7), timeout=10)
    assert caught.value.args[0].code() == KafkaError._UNKNOWN_PARTITION


def test_many_consumers_read_the_same_partition(kit, filled):
    for _ in range(5):
        consumer = kit.consumer()
        consumer.assign([at(filled, 0, 0)])
        assert values(receive(consumer, 100)) == names(0, 100)


def test_incremental_assign(kit):
    topic = kit.topic(partitions=3)
    producer = kit.producer()
    for partition in range(3):
        send(producer, topic, 2, partition=partition)
    consumer = kit.consumer()
    seen = []
    for partition in range(3):
        consumer.incremental_assign([at(topic, partition, 0)])
        seen += [m.partition() for m in receive(consumer, 2)]
    assert sorted(seen) == [0, 0, 1, 1, 2, 2]
    consumer.incremental_unassign([at(topic, 0)])
    send(producer, topic, 1, partition=0)
    receive_none(consumer, 0.3)


def test_reading_follows_a_topic_while_it_is_written(kit):
    topic = kit.topic()
    consumer = kit.consumer()
    consumer.assign([at(topic, 0, 0)])
    producer = kit.producer(linger_ms=0)
    for i in range(50):
        send_one(producer, topic, value=f"m{i}".encode())
        assert values(receive(consumer, 1)) == [f"m{i}"]
