"""Messages arrive as they were sent: properties, headers, bodies of any size, in order."""

import datetime
import decimal
import os
import re
import struct

import pytest
from pika import frame, spec

import expect

SIZE_LIMIT = 16 * 1024 * 1024
MIDDAY = datetime.datetime(2024, 2, 29, 12, 0, 0, tzinfo=datetime.timezone.utc)

ALL_PROPERTIES = dict(
    content_type="application/json", content_encoding="gzip",
    headers={"who": "test"}, delivery_mode=2, priority=7, correlation_id="corr-1", reply_to="answers",
    expiration="600000", message_id="id-1", timestamp=1709208000, type="order.created",
    user_id="guest", app_id="tests", cluster_id="c1")


def properties_as_dict(properties):
    return {word: getattr(properties, word) for word in ALL_PROPERTIES}


def round_trip(ch, queue, body=b"m", **properties):
    ch.basic_publish("", queue, body, spec.BasicProperties(**properties))
    return expect.get(ch, queue)


def test_all_fourteen_properties_arrive(ch, queue):
    _, properties, body = round_trip(ch, queue, **ALL_PROPERTIES)
    assert body == b"m"
    assert properties_as_dict(properties) == ALL_PROPERTIES


@pytest.mark.parametrize("word", sorted(ALL_PROPERTIES))
def test_one_property_alone_arrives_alone(ch, queue, word):
    _, properties, _ = round_trip(ch, queue, **{word: ALL_PROPERTIES[word]})
    assert properties_as_dict(properties) == {**dict.fromkeys(ALL_PROPERTIES),
                                              word: ALL_PROPERTIES[word]}


def test_no_property_arrives_when_none_was_sent(ch, queue):
    _, properties, _ = round_trip(ch, queue)
    assert set(properties_as_dict(properties).values()) == {None}


HEADERS = {
    "text": "words", "korean": "가입을 환영합니다!", "no text": "", "long text": "x" * 5000,
    "bytes": b"\x00\xff\xfe", "yes": True, "no": False, "nothing": None,
    "small": 1, "negative": -5, "32 bits": 2**31 - 1, "64 bits": 2**62, "negative 64": -(2**62),
    "decimal": decimal.Decimal("123.45"), "negative decimal": decimal.Decimal("-0.07"),
    "moment": MIDDAY, "list": [1, "two", b"\x03", [4, [5]], {"six": 6}, None, True],
    "no list": [], "table": {"a": {"b": {"c": [1, 2, {"d": MIDDAY}]}}}, "no table": {},
    "": "an empty name",
}


@pytest.mark.parametrize("word", sorted(HEADERS))
def test_a_header_value_arrives(ch, queue, word):
    _, properties, _ = round_trip(ch, queue, headers={word: HEADERS[word]})
    assert properties.headers == {word: HEADERS[word]}


def test_all_header_values_arrive_together(ch, queue):
    _, properties, _ = round_trip(ch, queue, headers=HEADERS)
    assert properties.headers == HEADERS


def test_no_headers_and_empty_headers_differ(ch, queue):
    assert round_trip(ch, queue, headers={})[1].headers == {}
    assert round_trip(ch, queue)[1].headers is None


def test_many_headers_arrive(ch, queue):
    headers = {f"header-{number}": "v" * 50 for number in range(800)}  # about 60 KB
    assert round_trip(ch, queue, headers=headers)[1].headers == headers


def test_field_types_that_python_does_not_send_arrive_byte_for_byte(wire, name):
    """Every type of the table: what goes in as a content header comes out as one."""
    peer = wire().login()
    peer.open_channel()
    queue = peer.declare(1, name(), exclusive=True).queue
    values = {
        b"t": b"\x01", b"b": b"\xfb", b"B": b"\xfb", b"s": b"\xff\xfe", b"u": b"\xff\xfe",
        b"I": b"\xff\xff\xff\xfd", b"i": b"\xff\xff\xff\xfd", b"l": b"\x80" + b"\x00" * 7,
        b"f": struct.pack(">f", 1.5), b"d": struct.pack(">d", -2.25), b"D": b"\x02\xff\xff\xff\x85",
        b"S": b"\x00\x00\x00\x03abc", b"x": b"\x00\x00\x00\x02\x00\xff", b"V": b"",
        b"T": struct.pack(">Q", 1709208000), b"A": b"\x00\x00\x00\x04t\x00t\x01",
        b"F": struct.pack(">I", 7) + b"\x01kI" + b"\x00\x00\x00\x07",
    }
    table = b"".join(bytes([4]) + b"key" + kind + kind + value for kind, value in values.items())
    payload = struct.pack(">HHQH", 60, 0, 1, 0x2000) + struct.pack(">I", len(table)) + table
    peer.method(1, spec.Basic.Publish(exchange="", routing_key=queue))
    peer.raw_frame(2, 1, payload)
    peer.raw_frame(3, 1, b"m")
    peer.method(1, spec.Basic.Get(queue=queue, no_ack=True))
    peer.expect(spec.Basic.GetOk)
    kind, _, got = peer.frame_bytes()
    assert kind == spec.FRAME_HEADER
    assert got == payload


@pytest.mark.parametrize("size", [0, 1, 127, 4096, 131063, 131064, 131065, 262128, 1024 * 1024,
                                  15 * 1024 * 1024, SIZE_LIMIT])
def test_a_body_of_this_size_arrives(ch, queue, size):
    body = (os.urandom(4096) * (size // 4096 + 1))[:size]
    ch.basic_publish("", queue, body, spec.BasicProperties(content_type="x"))
    _, properties, got = expect.get(ch, queue, timeout_s=20)
    assert len(got) == size
    assert got == body
    assert properties.content_type == "x"


def test_a_body_over_the_limit_is_refused_with_406(ch, queue, connection):
    with expect.channel_error(406, f"PRECONDITION_FAILED - message size {SIZE_LIMIT + 1} is larger "
                                   f"than configured max size {SIZE_LIMIT}"):
        ch.basic_publish("", queue, bytes(SIZE_LIMIT + 1))
        ch.basic_qos(prefetch_count=1)
    expect.empty(connection.channel(), queue)


def test_large_bodies_of_several_connections_do_not_mix(connect, ch, queue):
    size = 700 * 1000
    senders = [connect().channel() for _ in range(4)]
    for turn in range(3):
        for number, sender in enumerate(senders):
            sender.basic_publish("", queue, bytes([number * 16 + turn]) * size)
    got = expect.bodies(ch, queue, 12, timeout_s=20)
    assert all(len(body) == size and len(set(body)) == 1 for body in got)
    assert len({body[0] for body in got}) == 12


def test_contents_of_two_channels_may_be_interleaved_frame_by_frame(wire, name):
    peer = wire().login()
    peer.open_channel(1)
    peer.open_channel(2)
    queue = peer.declare(1, name(), exclusive=True).queue
    publish = spec.Basic.Publish(exchange="", routing_key=queue)
    header = spec.BasicProperties()
    peer.send(frame.Method(1, publish), frame.Method(2, publish),
              frame.Header(2, 6, header), frame.Header(1, 6, header),
              frame.Body(1, b"one"), frame.Body(2, b"two"), frame.Body(1, b"ONE"),
              frame.Body(2, b"TWO"))
    got = set()
    for channel in (1, 2):
        peer.method(channel, spec.Basic.Get(queue=queue, no_ack=True))
        peer.expect(spec.Basic.GetOk)
        got.add(peer.expect_content()[1])
    assert got == {b"oneONE", b"twoTWO"}


def test_a_thousand_messages_arrive_in_order(ch, queue):
    for number in range(1000):
        ch.basic_publish("", queue, str(number).encode())
    consumer = expect.Consumer(ch, queue, auto_ack=True).wait(1000, timeout_s=15)
    assert consumer.bodies == [str(number).encode() for number in range(1000)]


def test_a_get_sees_all_that_its_channel_published_before(wire, name):
    peer = wire().login()
    peer.open_channel()
    for number in range(50):
        queue = peer.declare(1, name(), exclusive=True).queue
        for word in range(10):
            peer.publish(1, "", queue, b"%d" % word)
        peer.method(1, spec.Basic.Get(queue=queue, no_ack=True))
        assert peer.expect(spec.Basic.GetOk).message_count == 9
        assert peer.expect_content()[1] == b"0"


@pytest.mark.parametrize("method, answer", [
    (spec.Queue.Purge, spec.Queue.PurgeOk), (spec.Queue.Delete, spec.Queue.DeleteOk)],
    ids=["purge", "delete"])
def test_purge_and_delete_count_all_that_their_channel_published_before(wire, name, method, answer):
    peer = wire().login()
    peer.open_channel()
    for number in range(30):
        queue = peer.declare(1, name(), exclusive=True).queue
        for word in range(10):
            peer.publish(1, "", queue, b"%d" % word)
        peer.method(1, method(queue=queue))
        assert peer.expect(answer).message_count == 10


def test_a_routing_key_of_255_bytes_arrives(ch, queue):
    key = "k" * 255
    ch.queue_bind(queue, "amq.direct", key)
    ch.basic_publish("amq.direct", key, b"m")
    assert expect.get(ch, queue)[0].routing_key == key


def test_get_ok_names_exchange_and_key(ch, queue):
    ch.queue_bind(queue, "amq.topic", "a.*." + queue)
    ch.basic_publish("amq.topic", "a.b." + queue, b"m")
    method = expect.get(ch, queue)[0]
    assert (method.exchange, method.routing_key) == ("amq.topic", "a.b." + queue)


# Mandatory, immediate ----------------------------------------------------------------------------

def test_a_mandatory_message_without_a_queue_comes_back_whole(ch, connection, name):
    returned = []
    ch.add_on_return_callback(lambda *parts: returned.append(parts[1:]))
    key = name()
    ch.basic_publish("amq.direct", key, b"nobody wants me" * 20000,
                     spec.BasicProperties(headers={"a": 1}, message_id="m1"), mandatory=True)
    expect.until(lambda: returned, "the return", pump=connection)
    method, properties, body = returned[0]
    assert (method.reply_code, method.reply_text) == (312, "NO_ROUTE")
    assert (method.exchange, method.routing_key) == ("amq.direct", key)
    assert (properties.headers, properties.message_id) == ({"a": 1}, "m1")
    assert body == b"nobody wants me" * 20000


def test_a_mandatory_message_with_a_queue_does_not_come_back(ch, connection, queue):
    returned = []
    ch.add_on_return_callback(lambda *parts: returned.append(parts))
    ch.basic_publish("", queue, b"m", mandatory=True)
    assert expect.get(ch, queue)[2] == b"m"
    connection.process_data_events(time_limit=0.1)
    assert returned == []


def test_a_message_without_a_queue_is_dropped_when_not_mandatory(ch, connection, name):
    returned = []
    ch.add_on_return_callback(lambda *parts: returned.append(parts))
    ch.basic_publish("", name(), b"m")
    ch.basic_qos(prefetch_count=1)
    connection.process_data_events(time_limit=0.1)
    assert returned == []


def test_immediate_is_not_implemented(wire, name):
    peer = wire().login()
    peer.open_channel()
    peer.publish(1, "", name(), b"m", immediate=True)
    peer.expect_close(540, "NOT_IMPLEMENTED - immediate=true")


# Refused properties ------------------------------------------------------------------------------

def test_the_user_id_of_somebody_else_is_refused_with_406(ch, queue):
    with expect.channel_error(406, "PRECONDITION_FAILED - user_id property set to 'somebody' but "
                                   "authenticated user was 'guest'"):
        ch.basic_publish("", queue, b"m", spec.BasicProperties(user_id="somebody"))
        ch.basic_qos(prefetch_count=1)


@pytest.mark.parametrize("expiration", ["abc", "-1", "1.5", "", " 5", "5 "])
def test_a_bad_expiration_is_refused_with_406(ch, queue, expiration):
    with expect.channel_error(406, re.compile(
            f"PRECONDITION_FAILED - invalid expiration '{re.escape(expiration)}'.*")):
        ch.basic_publish("", queue, b"m", spec.BasicProperties(expiration=expiration))
        ch.basic_qos(prefetch_count=1)


# Load --------------------------------------------------------------------------------------------

def test_several_producers_and_consumers_lose_nothing_and_double_nothing(connect, ch, name):
    shared = name("shared")
    ch.queue_declare(shared)
    producers = [connect().channel() for _ in range(4)]
    consumers = []
    for _ in range(3):
        channel = connect().channel()
        channel.basic_qos(prefetch_count=20)
        consumers.append(expect.Consumer(
            channel, shared,
            on_message=lambda method, properties, body, channel=channel:
                channel.basic_ack(method.delivery_tag)))
    for number in range(400):
        for index, producer in enumerate(producers):
            producer.basic_publish("", shared, f"{index}:{number}".encode())

    def all_there():
        for consumer in consumers:
            consumer.ch.connection.process_data_events(time_limit=0.005)
        return sum(len(consumer.messages) for consumer in consumers) >= 1600

    expect.until(all_there, "all deliveries", 20)
    got = [body.decode() for consumer in consumers for body in consumer.bodies]
    assert sorted(got) == sorted(f"{index}:{number}" for index in range(4) for number in range(400))
    for consumer in consumers:  # what one consumer sees of one producer is in order
        for index in range(4):
            numbers = [int(body.split(b":")[1]) for body in consumer.bodies
                       if body.startswith(f"{index}:".encode())]
            assert numbers == sorted(numbers)
    expect.holds(ch, shared, 0)
