"""A message that comes in by one protocol goes out by the other, with its key, headers and properties.

The table of what becomes of what is the head of src/codec/message.h.
"""

import datetime
import pathlib
import re
import signal
import threading
import time

import pika
import pytest
from confluent_kafka import KafkaException, Producer
from conftest import take
from pika import BasicProperties

ROOT = pathlib.Path(__file__).resolve().parents[3]


def headers_of(message):
    return dict(message.headers() or [])


# As the README says ------------------------------------------------------------------------------


def test_the_readme(connect, kafka, name):
    """Its lines, as they stand there, with names of our own."""
    text = (ROOT / "README.md").read_text()
    lines = text.split("... and from one to the other")[1].split("```python\n")[1].split("```")[0]
    orders, audit = name("orders"), name("audit")
    channel = connect().channel()
    exec(lines.replace('"orders"', repr(orders)).replace('"audit"', repr(audit)),
         {"channel": channel})
    channel.confirm_delivery()
    channel.basic_publish("amq.topic", "order.created", b"by AMQP", BasicProperties(
        content_type="text/plain", correlation_id="c-1", headers={"tenant": "blue"}))
    kafka.produce(orders, b"by Kafka", key=b"order-7", headers=[("tenant", b"red")])

    first, second = kafka.read(orders, 2)
    assert (first.key(), first.value()) == (b"order.created", b"by AMQP")
    assert headers_of(first) == {"tenant": b"blue", "content-type": b"text/plain",
                                 "correlation-id": b"c-1"}
    assert (second.key(), second.value()) == (b"order-7", b"by Kafka")

    (method, properties, body), (method2, properties2, body2) = take(channel, audit, 2)
    assert (method.exchange, method.routing_key, body) == (orders, "order.created", b"by AMQP")
    assert (properties.content_type, properties.correlation_id) == ("text/plain", "c-1")
    assert properties.headers["tenant"] == "blue"
    assert (method2.exchange, method2.routing_key, body2) == (orders, "order-7", b"by Kafka")
    assert properties2.headers["tenant"] == "red"


# AMQP -> Kafka -------------------------------------------------------------------------------------


def test_every_property_becomes_a_header(ch, kafka, stream):
    ch.queue_bind(stream, "amq.topic", f"{stream}.#")
    when = int(time.time()) - 3600
    ch.confirm_delivery()
    ch.basic_publish("amq.topic", f"{stream}.key", b"body", BasicProperties(
        content_type="application/json", content_encoding="gzip", delivery_mode=2, priority=7,
        correlation_id="corr", reply_to="answers", expiration="600000", message_id="m-1",
        timestamp=when, type="kind", user_id="guest", app_id="app", headers={
            "text": "héllo", "bytes": b"\xff\x00", "int": 42, "negative": -(1 << 40), "yes": True,
            "table": {"a": 1, "b": ["x", 2]}, "empty": ""}))
    (message,) = kafka.read(stream, 1)
    assert (message.key(), message.value()) == (f"{stream}.key".encode(), b"body")
    assert message.timestamp()[1] == when * 1000
    got = headers_of(message)
    for header, expected in {
            "content-type": b"application/json", "content-encoding": b"gzip", "priority": b"7",
            "correlation-id": b"corr", "reply-to": b"answers", "expiration": b"600000",
            "message-id": b"m-1", "type": b"kind", "user-id": b"guest", "app-id": b"app",
            "text": "héllo".encode(), "bytes": b"\xff\x00", "int": b"42",
            "negative": b"-1099511627776", "yes": b"true",
            "table": b'{"a":1,"b":["x",2]}', "empty": b""}.items():
        assert got.pop(header, None) == expected, header
    assert not got, f"more headers: {got}"


def test_without_properties_there_are_no_headers(ch, kafka, stream):
    before = int(time.time() * 1000) - 1
    ch.basic_publish("", stream, b"")
    (message,) = kafka.read(stream, 1)
    assert message.value() == b"" and not message.headers()
    assert message.key() is None  # it was addressed to the topic by name
    assert before <= message.timestamp()[1] <= time.time() * 1000 + 1


def test_a_header_chooses_the_key(ch, kafka, stream):
    ch.queue_bind(stream, "amq.direct", stream)
    ch.basic_publish("amq.direct", stream, b"1", BasicProperties(headers={"x-kafka-key": "mine"}))
    ch.basic_publish("", stream, b"2", BasicProperties(headers={"x-kafka-key": b"\x00\xff"}))
    ch.basic_publish("amq.direct", stream, b"3")
    found = {message.value(): message.key() for message in kafka.read(stream, 3)}
    assert found == {b"1": b"mine", b"2": b"\x00\xff", b"3": stream.encode()}


@pytest.mark.parametrize("exchange", ["direct", "fanout", "topic", "headers"])
def test_every_kind_of_exchange_leads_to_a_topic(ch, kafka, stream, name, exchange):
    made = name(exchange)
    ch.exchange_declare(made, exchange, durable=True)
    ch.queue_bind(stream, made, "a.b", arguments={"x-match": "all", "to": "kafka"})
    ch.confirm_delivery()
    ch.basic_publish(made, "a.b", b"yes", BasicProperties(headers={"to": "kafka"}), mandatory=True)
    if exchange != "fanout":
        with pytest.raises(pika.exceptions.UnroutableError):
            ch.basic_publish(made, "c.d", b"no", BasicProperties(headers={"to": "nobody"}),
                             mandatory=True)
    (message,) = kafka.read(stream, 1)
    assert (message.key(), message.value()) == (b"a.b", b"yes")


def test_a_key_has_the_partition_that_kafka_producers_choose(ch, kafka, name):
    topic = name("keys")
    kafka.create(topic, partitions=7)
    ch.queue_bind(topic, "amq.topic", f"{topic}.*")
    keys = [f"{topic}.{n}" for n in range(60)]
    reports = kafka.produce_all(topic, [dict(value=b"kafka", key=key) for key in keys],
                                partitioner="murmur2_random")
    chosen = {report.key().decode(): report.partition() for report in reports}
    assert len(set(chosen.values())) == 7
    ch.confirm_delivery()
    for key in keys:
        ch.basic_publish("amq.topic", key, b"amqp")
    found = kafka.read(topic, 120, partitions=7)
    for message in found:
        assert message.partition() == chosen[message.key().decode()], message.key()


def test_large_and_many(ch, kafka, stream):
    ch.queue_bind(stream, "amq.fanout", "")
    ch.confirm_delivery()
    bodies = [bytes([n % 256]) * (n * 37 % 3000) for n in range(500)] + [b"x" * 500_000]
    for body in bodies:
        ch.basic_publish("amq.fanout", "many", body)
    ch.queue_unbind(stream, "amq.fanout", "")
    assert [message.value() for message in kafka.read(stream, len(bodies))] == bodies
    assert [message.offset() for message in kafka.read(stream, 5, offset=len(bodies) - 5)] == \
        list(range(len(bodies) - 5, len(bodies)))


# Kafka -> AMQP, by a binding -----------------------------------------------------------------------


def test_a_record_becomes_a_message(ch, kafka, stream, audit):
    ch.queue_bind(audit, stream, "#")
    when = (int(time.time()) - 100) * 1000
    kafka.produce(stream, b"body", key="k.1", timestamp=when, headers=[
        ("content-type", b"text/csv"), ("content-encoding", b"zip"), ("correlation-id", b"c"),
        ("reply-to", b"r"), ("message-id", b"m"), ("type", b"t"), ("app-id", b"a"),
        ("priority", b"3"), ("mine", "wörd".encode()), ("raw", b"\xff\xfe"), ("none", None),
        ("x-empty", b"")])
    ((method, properties, body),) = take(ch, audit, 1)
    assert (method.exchange, method.routing_key, body) == (stream, "k.1", b"body")
    assert properties.timestamp == when // 1000
    assert (properties.content_type, properties.content_encoding, properties.correlation_id,
            properties.reply_to, properties.message_id, properties.type, properties.app_id,
            properties.priority) == ("text/csv", "zip", "c", "r", "m", "t", "a", 3)
    headers = properties.headers
    assert headers["mine"] == "wörd" and headers["raw"] == b"\xff\xfe"
    assert headers["none"] is None and headers["x-empty"] == ""
    assert not {"content-type", "priority"} & headers.keys()


def test_keys_that_are_no_routing_keys(ch, kafka, stream, audit):
    ch.queue_bind(audit, stream, "#")
    long = "k" * 300
    kafka.produce_all(stream, [dict(value=b"1"), dict(value=b"2", key=b"\xff\x00"),
                               dict(value=b"3", key=long), dict(value=b"4", key=b""),
                               dict(value=None, key=b"gone")])
    found = {body: (method.routing_key, (properties.headers or {}).get("x-kafka-key"))
             for method, properties, body in take(ch, audit, 5)}
    assert found[b"1"] == ("", None)
    assert found[b"2"] == ("", b"\xff\x00")
    assert found[b"3"] == ("", long.encode()) or found[b"3"] == ("", long)
    assert found[b"4"][0] == ""
    assert found[b""][0] == "gone"  # without a value: an empty body


def test_bindings_choose_by_key(ch, kafka, stream, name):
    created, europe = name("created"), name("europe")
    for queue, pattern in ((created, "*.created"), (europe, "eu.#")):
        ch.queue_declare(queue, durable=True)
        ch.queue_bind(queue, stream, pattern)
    kafka.produce_all(stream, [dict(value=key.encode(), key=key) for key in
                               ("eu.created", "us.created", "eu.deleted", "us.deleted")])
    assert [body for _, _, body in take(ch, created, 2)] == [b"eu.created", b"us.created"]
    assert [body for _, _, body in take(ch, europe, 2)] == [b"eu.created", b"eu.deleted"]
    ch.queue_unbind(created, stream, "*.created")
    kafka.produce(stream, b"later", key="eu.created")
    assert [body for _, _, body in take(ch, europe, 1)] == [b"later"]
    assert ch.queue_declare(created, passive=True).method.message_count == 0


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_compressed_batches(ch, kafka, stream, audit, codec):
    ch.queue_bind(audit, stream, "#")
    values = [b"%d " % n * 50 for n in range(200)]
    kafka.produce_all(stream, [dict(value=value, key=f"k{n}") for n, value in enumerate(values)],
                      compression_type=codec, linger_ms=50)
    got = take(ch, audit, 200)
    assert [(method.routing_key, body) for method, _, body in got] == \
        [(f"k{n}", value) for n, value in enumerate(values)]
    streamed = take(ch, stream, 200, arguments={"x-stream-offset": "first"})
    assert [body for _, _, body in streamed] == values


def test_a_topic_leads_to_another_topic_and_on_to_a_queue(ch, kafka, stream, audit, name):
    second = name("second")
    ch.queue_declare(second, durable=True, arguments={"x-queue-type": "stream"})
    ch.queue_bind(second, stream, "#")
    ch.queue_bind(audit, second, "#")
    kafka.produce(stream, b"on", key="k", headers=[("h", b"v")])
    ((_, properties, body),) = take(ch, audit, 1)
    assert body == b"on" and properties.headers["h"] == "v"
    (message,) = kafka.read(second, 1)
    assert (message.key(), message.value()) == (b"k", b"on") and headers_of(message)["h"] == b"v"


def test_there_and_back_again(ch, kafka, stream, audit):
    """AMQP -> topic -> AMQP: nothing that AMQP said is lost on the way."""
    ch.queue_bind(stream, "amq.direct", stream)
    ch.queue_bind(audit, stream, "#")
    said = BasicProperties(content_type="a/b", correlation_id="c", reply_to="r", message_id="m",
                           type="t", app_id="a", priority=4, timestamp=int(time.time()),
                           headers={"n": 5, "s": "x", "l": [1, "two"], "d": {"k": True}})
    ch.basic_publish("amq.direct", stream, b"body", said)
    ((method, properties, body),) = take(ch, audit, 1)
    assert (method.routing_key, body) == (stream, b"body")
    for field in ("content_type", "correlation_id", "reply_to", "message_id", "type", "app_id",
                  "priority", "timestamp"):
        assert getattr(properties, field) == getattr(said, field), field
    assert {key: properties.headers[key] for key in said.headers} == said.headers


def test_nothing_acknowledged_is_missing_in_a_bound_queue_after_a_crash(server, connect, kafka,
                                                                         name):
    topic, audit = name("crash"), name("audit")
    ch = connect().channel()
    ch.queue_declare(topic, durable=True, arguments={"x-queue-type": "stream"})
    ch.queue_declare(audit, durable=True)
    ch.queue_bind(audit, topic, "#")
    acknowledged, over = set(), threading.Event()

    def produce():
        producer = Producer({"bootstrap.servers": kafka.address, "linger.ms": 0,
                             "message.timeout.ms": 15000, "enable.idempotence": True})
        number = 0

        def report(error, message):
            if error is None:
                acknowledged.add(message.value())

        while not over.is_set():
            number += 1
            try:
                producer.produce(topic, b"%d" % number, on_delivery=report)
            except BufferError:
                pass
            producer.poll(0.002)
        producer.flush(20)

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    for _ in range(4):
        stood, deadline = len(acknowledged), time.monotonic() + 20
        while len(acknowledged) < stood + 200:
            assert time.monotonic() < deadline, "nothing is acknowledged"
            time.sleep(0.005)
        server.restart(signal.SIGKILL)
    over.set()
    thread.join(30)
    assert not thread.is_alive()
    ch = connect().channel()
    ch.basic_qos(prefetch_count=1000)
    missing = set(acknowledged)
    for method, _, body in ch.consume(audit, inactivity_timeout=3):
        if method is None:  # no more came
            break
        missing.discard(body)
        ch.basic_ack(method.delivery_tag)
        if not missing:
            break
    assert not missing, f"{len(missing)} of {len(acknowledged)}, such as {sorted(missing)[:5]}"


# Kafka -> AMQP, as a stream ------------------------------------------------------------------------


def offsets(got):
    return [properties.headers["x-stream-offset"] for _, properties, _ in got]


@pytest.fixture
def ten(kafka, stream):
    """A topic with ten records, a second apart; the last one is ten seconds old."""
    now = int(time.time()) * 1000
    kafka.produce_all(stream, [dict(value=b"%d" % n, key=f"k{n}", timestamp=now - (20 - n) * 1000)
                               for n in range(10)], batch_num_messages=1)
    return stream, now


@pytest.mark.parametrize("where, first", [
    ("first", 0), (0, 0), (4, 4), (9, 9), ("last", 9)])
def test_stream_offsets(ch, ten, where, first):
    stream, _ = ten
    got = take(ch, stream, 10 - first, arguments={"x-stream-offset": where})
    assert [body for _, _, body in got] == [b"%d" % n for n in range(first, 10)]
    assert offsets(got) == list(range(first, 10))
    assert [method.routing_key for method, _, _ in got] == [f"k{n}" for n in range(first, 10)]


def test_stream_offset_by_time(ch, ten):
    stream, now = ten
    when = datetime.datetime.fromtimestamp(now // 1000 - 16, datetime.timezone.utc)
    got = take(ch, stream, 6, arguments={"x-stream-offset": when})
    assert [body for _, _, body in got] == [b"%d" % n for n in range(4, 10)]
    got = take(ch, stream, 10, arguments={"x-stream-offset": "1h"})
    assert [body for _, _, body in got] == [b"%d" % n for n in range(10)]


def test_stream_offset_next_and_beyond(ch, kafka, ten):
    stream, _ = ten
    seen = []
    ch.basic_qos(prefetch_count=10)
    for where in ("next", None, 10):
        arguments = {} if where is None else {"x-stream-offset": where}
        ch.basic_consume(stream, lambda c, m, p, b: (seen.append(b), c.basic_ack(m.delivery_tag)),
                         arguments=arguments)
    ch.connection.process_data_events(0.2)
    assert seen == []
    kafka.produce(stream, b"new", key="k")
    deadline = time.monotonic() + 10
    while len(seen) < 3 and time.monotonic() < deadline:
        ch.connection.process_data_events(0.1)
    assert seen == [b"new"] * 3


def test_a_stream_can_be_read_again_and_by_many(connect, ten):
    stream, _ = ten
    for _ in range(3):
        ch = connect().channel()
        got = take(ch, stream, 10, arguments={"x-stream-offset": "first"}, prefetch=3)
        assert offsets(got) == list(range(10))


def test_amqp_and_kafka_write_one_stream(ch, kafka, stream):
    ch.confirm_delivery()
    for n in range(20):
        if n % 2:
            kafka.produce(stream, b"%d" % n)
        else:
            ch.basic_publish("", stream, b"%d" % n)
    got = take(ch, stream, 20, arguments={"x-stream-offset": "first"})
    assert [body for _, _, body in got] == [b"%d" % n for n in range(20)]
    assert offsets(got) == list(range(20))
    assert [message.value() for message in kafka.read(stream, 20)] == [b"%d" % n for n in range(20)]


def test_a_topic_of_several_partitions_as_a_stream(ch, kafka, name):
    topic = name("wide")
    kafka.create(topic, partitions=3)
    kafka.produce_all(topic, [dict(value=b"%d" % n, partition=n % 3) for n in range(30)])
    got = take(ch, topic, 30, arguments={"x-stream-offset": "first"})
    bodies = [int(body) for _, _, body in got]
    assert sorted(bodies) == list(range(30))
    for partition in range(3):  # in order, each of them
        mine = [n for n in bodies if n % 3 == partition]
        assert mine == sorted(mine)


def test_credit_holds_a_stream_back(ch, ten):
    stream, _ = ten
    seen = []
    ch.basic_qos(prefetch_count=3)
    ch.basic_consume(stream, lambda c, m, p, b: seen.append((m.delivery_tag, b)),
                     arguments={"x-stream-offset": "first"})
    deadline = time.monotonic() + 10
    while len(seen) < 3 and time.monotonic() < deadline:
        ch.connection.process_data_events(0.1)
    ch.connection.process_data_events(0.2)
    assert [body for _, body in seen] == [b"0", b"1", b"2"]
    ch.basic_ack(seen[-1][0], multiple=True)
    while len(seen) < 6 and time.monotonic() < deadline:
        ch.connection.process_data_events(0.1)
    assert [body for _, body in seen[3:]] == [b"3", b"4", b"5"]


def test_what_a_stream_does_not_do_is_refused(connect, stream):
    ch = connect().channel()
    ch.basic_qos(prefetch_count=10)
    with pytest.raises(pika.exceptions.AMQPError) as problem:
        ch.basic_consume(stream, lambda *_: None, auto_ack=True)
    assert re.search("540|NOT_IMPLEMENTED", str(problem.value))
    for arguments in ({"x-stream-offset": "yesterday"}, {"x-stream-offset": -5},
                      {"x-stream-offset": True}):
        ch = connect().channel()
        ch.basic_qos(prefetch_count=10)
        with pytest.raises(pika.exceptions.AMQPError):
            ch.basic_consume(stream, lambda *_: None, arguments=arguments)


def test_a_restart_keeps_both_sides(server, connect, kafka, name):
    stream, audit = name("kept"), name("audit")
    ch = connect().channel()
    ch.queue_declare(stream, durable=True, arguments={"x-queue-type": "stream"})
    ch.queue_declare(audit, durable=True)
    ch.queue_bind(stream, "amq.topic", f"{stream}.*")
    ch.queue_bind(audit, stream, "#")
    ch.confirm_delivery()
    for n in range(50):
        ch.basic_publish("amq.topic", f"{stream}.{n}", b"%d" % n, BasicProperties(
            delivery_mode=2, headers={"n": n}))
    kafka.produce_all(stream, [dict(value=b"%d" % n, key=f"k{n}") for n in range(50, 100)])
    for sig in (signal.SIGTERM, signal.SIGKILL):
        server.restart(sig)
        found = kafka.read(stream, 100)
        assert [message.value() for message in found] == [b"%d" % n for n in range(100)]
        assert headers_of(found[7]) == {"n": b"7"}
    ch = connect().channel()
    assert [body for _, _, body in take(ch, audit, 100)] == [b"%d" % n for n in range(100)]
    ch.confirm_delivery()
    ch.basic_publish("amq.topic", f"{stream}.x", b"after")
    assert take(ch, audit, 1)[0][2] == b"after"


def test_a_topic_counts_the_messages_of_all_its_partitions(ch, kafka, name):
    topic = name("many")
    kafka.create(topic, partitions=5)
    assert ch.queue_declare(topic, passive=True).method.message_count == 0
    kafka.produce_all(topic, [dict(value=b"%d" % n, partition=n % 4) for n in range(41)])
    assert ch.queue_declare(topic, passive=True).method.message_count == 41


def test_topics_made_by_kafka_are_queues_of_amqp_and_the_other_way_round(ch, kafka, name):
    topic = name("made")
    kafka.create(topic)
    ch.queue_declare(topic, passive=True)
    ch.queue_delete(topic)
    with pytest.raises(KafkaException):
        kafka.produce_all(topic, [dict(value=b"x")], message_timeout_ms=3000,
                          allow_auto_create_topics=False)
