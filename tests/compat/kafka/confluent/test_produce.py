"""Producing with librdkafka: what goes in comes out, and refusals carry Kafka's errors."""

import os
import time

import pytest
from confluent_kafka import (KafkaError, KafkaException, TIMESTAMP_CREATE_TIME,
                             TIMESTAMP_LOG_APPEND_TIME)
from conftest import at, names, receive, send, send_one, values
from support import fresh


def read_back(kit, topic, count=1, partition=0):
    consumer = kit.consumer()
    consumer.assign([at(topic, partition, 0)])
    return receive(consumer, count)


def test_key_and_value_come_back(kit):
    topic = kit.topic()
    error, message = send_one(kit.producer(), topic, key=b"k\x00\xff", value=b"v\x00\xff")
    assert error is None
    assert (message.partition(), message.offset()) == (0, 0)
    [got] = read_back(kit, topic)
    assert (got.key(), got.value()) == (b"k\x00\xff", b"v\x00\xff")
    assert (got.topic(), got.partition(), got.offset()) == (topic, 0, 0)


def test_null_key_and_null_value_differ_from_empty_ones(kit):
    topic = kit.topic()
    producer = kit.producer()
    for key, value in [(None, b"v"), (b"k", None), (b"", b""), (None, None)]:
        error, _ = send_one(producer, topic, key=key, value=value)
        assert error is None
    got = read_back(kit, topic, 4)
    assert [(m.key(), m.value()) for m in got] == [
        (None, b"v"), (b"k", None), (b"", b""), (None, None)]


def test_headers_keep_order_duplicates_and_nulls(kit):
    topic = kit.topic()
    headers = [("a", b"1"), ("b", None), ("a", b"2"), ("empty", b""), ("ünï", b"\x00\xff")]
    error, _ = send_one(kit.producer(), topic, value=b"v", headers=headers)
    assert error is None
    [got] = read_back(kit, topic)
    assert got.headers() == headers


def test_message_without_headers_has_none(kit):
    topic = kit.topic()
    send(kit.producer(), topic)
    [got] = read_back(kit, topic)
    assert not got.headers()


def test_create_time_given_by_the_producer_is_kept(kit):
    topic = kit.topic()
    error, _ = send_one(kit.producer(), topic, value=b"v", timestamp=1_600_000_000_123)
    assert error is None
    [got] = read_back(kit, topic)
    assert got.timestamp() == (TIMESTAMP_CREATE_TIME, 1_600_000_000_123)


def test_create_time_defaults_to_now(kit):
    topic = kit.topic()
    before = int(time.time() * 1000)
    send(kit.producer(), topic)
    [got] = read_back(kit, topic)
    kind, when = got.timestamp()
    assert kind == TIMESTAMP_CREATE_TIME
    assert before - 1000 <= when <= int(time.time() * 1000) + 1000


@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_log_append_time_is_the_brokers(kit, codec):
    topic = kit.topic(message_timestamp_type="LogAppendTime")
    before = int(time.time() * 1000)
    producer = kit.producer(compression_type=codec)
    for _ in range(3):
        producer.produce(topic, value=b"v" * 300, timestamp=1_600_000_000_123)
    assert producer.flush(20) == 0
    for got in read_back(kit, topic, 3):
        kind, when = got.timestamp()
        assert kind == TIMESTAMP_LOG_APPEND_TIME
        assert before - 1000 <= when <= int(time.time() * 1000) + 1000


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_codec_round_trip(kit, codec):
    topic = kit.topic()
    producer = kit.producer(compression_type=codec, linger_ms=50)
    sent = [f"{i}-".encode() * 50 for i in range(500)]
    for i, value in enumerate(sent):
        producer.produce(topic, key=str(i), value=value, headers=[("n", str(i))])
    assert producer.flush(20) == 0
    got = read_back(kit, topic, 500)
    assert [m.value() for m in got] == sent
    assert [m.offset() for m in got] == list(range(500))
    assert got[77].headers() == [("n", b"77")]


def test_codecs_mix_in_one_partition(kit):
    topic = kit.topic()
    codecs = ["gzip", "none", "zstd", "lz4", "snappy"]
    for i, codec in enumerate(codecs):
        send(kit.producer(compression_type=codec), topic, 20, start=20 * i)
    assert values(read_back(kit, topic, 100)) == names(0, 100)


@pytest.mark.parametrize("acks", ["0", "1", "all"])
def test_acks(kit, acks):
    topic = kit.topic()
    delivered = send(kit.producer(acks=acks), topic, 200)
    if acks != "0":
        assert [m.offset() for m in delivered] == list(range(200))
    assert values(read_back(kit, topic, 200)) == names(0, 200)


def test_acks_0_with_many_requests_keeps_order(kit):
    topic = kit.topic()
    send(kit.producer(acks="0", batch_num_messages=1, linger_ms=0), topic, 300)
    assert values(read_back(kit, topic, 300)) == names(0, 300)


def test_idempotent_producer_keeps_order_with_five_in_flight(kit):
    topic = kit.topic()
    producer = kit.producer(enable_idempotence=True, batch_num_messages=10, linger_ms=0)
    delivered = send(producer, topic, 3000)
    assert [m.offset() for m in delivered] == list(range(3000))
    assert values(read_back(kit, topic, 3000)) == names(0, 3000)


def test_idempotent_producers_do_not_disturb_each_other(kit):
    topic = kit.topic()
    one = kit.producer(enable_idempotence=True)
    two = kit.producer(enable_idempotence=True)
    for i in range(0, 100, 10):
        send(one, topic, 5, start=i)
        send(two, topic, 5, start=i + 5)
    assert values(read_back(kit, topic, 100)) == names(0, 100)


def test_large_message_below_the_limit(kit):
    topic = kit.topic()
    body = os.urandom(1_000_000)
    producer = kit.producer(message_max_bytes=4_000_000)
    error, _ = send_one(producer, topic, value=body)
    assert error is None
    assert read_back(kit, topic)[0].value() == body


def test_message_above_the_limit_is_too_large(kit):
    topic = kit.topic()
    producer = kit.producer(message_max_bytes=4_000_000)
    error, _ = send_one(producer, topic, value=os.urandom(1_100_000))
    assert error.code() == KafkaError.MSG_SIZE_TOO_LARGE
    error, message = send_one(producer, topic, value=b"after")
    assert error is None and message.offset() == 0


def test_topic_may_raise_its_message_limit(kit):
    topic = kit.topic(max_message_bytes=3_000_000)
    producer = kit.producer(message_max_bytes=4_000_000)
    body = os.urandom(2_500_000)
    error, _ = send_one(producer, topic, value=body)
    assert error is None
    error, _ = send_one(producer, topic, value=os.urandom(3_100_000))
    assert error.code() == KafkaError.MSG_SIZE_TOO_LARGE
    assert read_back(kit, topic)[0].value() == body


def test_topic_may_lower_its_message_limit(kit):
    topic = kit.topic(max_message_bytes=1000)
    error, _ = send_one(kit.producer(), topic, value=os.urandom(2000))
    assert error.code() == KafkaError.MSG_SIZE_TOO_LARGE
    error, _ = send_one(kit.producer(), topic, value=os.urandom(500))
    assert error is None


def test_same_key_goes_to_the_same_partition(kit):
    topic = kit.topic(partitions=6)
    producer = kit.producer()
    where = {}
    for _ in range(3):
        for key in range(40):
            [message] = send(producer, topic, key=str(key))
            assert where.setdefault(key, message.partition()) == message.partition()
    assert len(set(where.values())) > 1


def test_explicit_partitions_have_their_own_offsets(kit):
    topic = kit.topic(partitions=4)
    producer = kit.producer()
    for partition in range(4):
        delivered = send(producer, topic, partition + 1, partition=partition)
        assert [m.offset() for m in delivered] == list(range(partition + 1))
    for partition in range(4):
        got = read_back(kit, topic, partition + 1, partition)
        assert {m.partition() for m in got} == {partition}


def test_unknown_partition_is_refused(kit):
    topic = kit.topic(partitions=2)
    producer = kit.producer(message_timeout_ms=3000)
    with pytest.raises(KafkaException) as caught:
        error, _ = send_one(producer, topic, value=b"v", partition=2)
        raise KafkaException(error)
    assert caught.value.args[0].code() == KafkaError._UNKNOWN_PARTITION


def test_order_holds_in_every_partition(kit):
    topic = kit.topic(partitions=8)
    producer = kit.producer(compression_type="lz4")
    for partition in range(8):
        send(producer, topic, partition=partition)
    count = 40_000
    for i in range(count):
        while True:
            try:
                producer.produce(topic, value=str(i), partition=i % 8)
                break
            except BufferError:
                producer.poll(0.05)
    assert producer.flush(30) == 0
    consumer = kit.consumer()
    consumer.assign([at(topic, p, 1) for p in range(8)])
    seen = {p: [] for p in range(8)}
    for message in receive(consumer, count, timeout_s=40):
        seen[message.partition()].append(int(message.value()))
    for partition in range(8):
        assert seen[partition] == list(range(partition, count, 8))


def test_topic_is_created_by_producing_to_it(kit):
    topic = fresh("auto")
    send(kit.producer(), topic, 5)
    metadata = kit.admin.list_topics(topic, timeout=10).topics[topic]
    assert metadata.error is None and len(metadata.partitions) == 1
    assert values(read_back(kit, topic, 5)) == names(0, 5)


@pytest.mark.parametrize("name", ["bad/name", "bad name", "x" * 250])
def test_producing_to_an_invalid_topic_name_fails(kit, name):
    producer = kit.producer(message_timeout_ms=5000)
    try:
        error, _ = send_one(producer, name, value=b"v")
    except KafkaException as caught:
        error = caught.args[0]
    assert error.code() == KafkaError.TOPIC_EXCEPTION


def test_batches_of_many_partitions_share_requests(kit):
    topic = kit.topic(partitions=50)
    producer = kit.producer(linger_ms=50)
    for partition in range(50):
        producer.produce(topic, value=str(partition), partition=partition)
    assert producer.flush(20) == 0
    consumer = kit.consumer()
    consumer.assign([at(topic, p, 0) for p in range(50)])
    got = receive(consumer, 50)
    assert {m.partition(): int(m.value()) for m in got} == {p: p for p in range(50)}


def test_old_timestamps_and_new_ones_may_mix(kit):
    topic = kit.topic()
    producer = kit.producer(linger_ms=50)
    stamps = [1_500_000_000_000, 1_700_000_000_000, 1_400_000_000_000, 1]
    for stamp in stamps:
        producer.produce(topic, value=b"v", timestamp=stamp)
    assert producer.flush(20) == 0
    assert [m.timestamp()[1] for m in read_back(kit, topic, 4)] == stamps


def test_keyless_message_to_a_compacted_topic_is_an_invalid_record(kit):
    topic = kit.topic(cleanup_policy="compact")
    producer = kit.producer()
    error, _ = send_one(producer, topic, value=b"v")
    assert error.code() == KafkaError.INVALID_RECORD
    error, _ = send_one(producer, topic, key=b"k", value=b"v")
    assert error is None
