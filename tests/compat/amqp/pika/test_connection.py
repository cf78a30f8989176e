"""Opening, tuning, heartbeats, closing, and what the broker says to a peer that breaks the protocol."""

import re
import socket
import struct
import time

import pika
import pytest
from pika import frame, spec
from pika.exceptions import ProbableAccessDeniedError, ProbableAuthenticationError

import expect
from wire import Closed

LOGIN_REFUSED = ("ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. "
                 "For details see the broker logfile.")


def test_guest_opens_a_connection_and_a_channel(connect):
    ch = connect().channel()
    assert ch.is_open


def test_start_offers_plain_and_en_us(wire):
    start = wire().say_hello()
    assert (start.version_major, start.version_minor) == (0, 9)
    assert b"PLAIN" in start.mechanisms.split()
    assert b"en_US" in start.locales.split()


def test_server_properties_name_the_product_and_its_capabilities(wire):
    properties = wire().say_hello().server_properties
    for word in ("product", "version", "platform", "information"):
        assert isinstance(properties[word], str) and properties[word]
    for word in ("publisher_confirms", "exchange_exchange_bindings", "basic.nack",
                 "consumer_cancel_notify", "connection.blocked", "authentication_failure_close",
                 "per_consumer_qos"):
        assert properties["capabilities"][word] is True, word


def test_tune_offers_the_usual_limits(wire):
    peer = wire().login()
    assert peer.tune.channel_max == 2047
    assert peer.tune.frame_max == 131072
    assert peer.tune.heartbeat == 60


def test_wrong_password_is_refused_with_403(broker):
    wrong = broker.parameters(credentials=pika.PlainCredentials("guest", "wrong"))
    with pytest.raises(ProbableAuthenticationError) as info:
        pika.BlockingConnection(wrong)
    assert "403" in str(info.value)
    assert LOGIN_REFUSED in str(info.value)


def test_unknown_user_is_refused_with_403(wire):
    peer = wire()
    peer.say_hello()
    peer.say_start_ok(user="nobody-here")
    close = peer.expect(spec.Connection.Close)
    assert (close.reply_code, close.reply_text) == (403, LOGIN_REFUSED)


def test_wrong_password_ends_silently_for_a_client_without_authentication_failure_close(wire):
    peer = wire()
    peer.say_hello()
    peer.say_start_ok(password="wrong", properties={})
    with pytest.raises((Closed, ConnectionResetError)):
        peer.receive()


def test_missing_vhost_is_refused_with_530(connect):
    with pytest.raises(ProbableAccessDeniedError) as info:
        connect(virtual_host="no-such-vhost")
    assert "(530) 'NOT_ALLOWED - vhost no-such-vhost not found'" in str(info.value)


def test_unsupported_mechanism_is_refused(wire):
    peer = wire()
    peer.say_hello()
    peer.say_start_ok(mechanism="NO-SUCH-MECHANISM")
    peer.expect_end()


@pytest.mark.parametrize("header", [b"AMQP\x00\x00\x0a\x00", b"AMQP\x01\x01\x00\x0a",
                                    b"AMQP\x03\x01\x00\x00", b"GET / HT"])
def test_an_unknown_protocol_header_is_answered_with_a_known_one(wire, header):
    peer = wire()
    peer.send(header)
    assert peer.bytes(8) == b"AMQP\x00\x00\x09\x01"
    peer.expect_end()


def test_protocol_header_0_9_is_accepted(wire):
    peer = wire()
    peer.send(b"AMQP\x01\x01\x00\x09")
    peer.expect(spec.Connection.Start)


@pytest.mark.parametrize("channel_max, frame_max, text", [
    (4096, 131072, "negotiated channel_max = 4096 is higher than the maximum allowed value (2047)"),
    (0, 131072, None),
    (2047, 131073, "negotiated frame_max = 131073 is higher than the maximum allowed value (131072)"),
    (2047, 0, None),
], ids=["channel_max too high", "no channel_max", "frame_max too high", "no frame_max"])
def test_limits_beyond_those_offered_are_refused(wire, channel_max, frame_max, text):
    """RabbitMQ ends some of these without a word after a while; when it speaks, it says 530."""
    peer = wire()
    peer.say_hello()
    peer.say_start_ok()
    peer.expect(spec.Connection.Tune)
    peer.method(0, spec.Connection.TuneOk(channel_max, frame_max, 0))
    try:
        close = peer.expect(spec.Connection.Close)
    except (Closed, ConnectionResetError):
        return
    assert close.reply_code == 530
    if text is not None:
        assert close.reply_text == "NOT_ALLOWED - " + text


def test_more_channels_than_negotiated_end_the_connection_with_530(wire):
    peer = wire().login(channel_max=2)
    peer.open_channel(1)
    peer.open_channel(2)
    peer.method(3, spec.Channel.Open())
    close = peer.expect_close(530)
    assert close.reply_text.startswith("NOT_ALLOWED - ")


def test_deliveries_obey_a_small_frame_max(wire, name):
    peer = wire().login(frame_max=4096)
    peer.open_channel()
    queue = peer.declare(1, name(), exclusive=True).queue
    body = bytes(range(256)) * 100
    peer.publish(1, "", queue, body, frame_max=4096)
    peer.method(1, spec.Basic.Get(queue=queue, no_ack=True))
    peer.expect(spec.Basic.GetOk)
    got = b""
    sizes = []
    header = peer.receive()
    assert header.body_size == len(body)
    while len(got) < len(body):
        kind, _, payload = peer.frame_bytes()
        assert kind == spec.FRAME_BODY
        sizes.append(len(payload) + 8)
        got += payload
    assert got == body
    assert max(sizes) <= 4096


def test_ten_channels_of_one_connection_work_side_by_side(connection, name):
    channels = [connection.channel() for _ in range(10)]
    queues = [name() for _ in channels]
    for ch, queue in zip(channels, queues):
        ch.queue_declare(queue, exclusive=True)
    consumers = [expect.Consumer(ch, queue) for ch, queue in zip(channels, queues)]
    for number in range(20):
        for ch, queue in zip(channels, reversed(queues)):
            ch.basic_publish("", queue, str(number).encode())
    for consumer in consumers:
        consumer.wait(20)
        assert consumer.bodies == [str(number).encode() for number in range(20)]
        consumer.ch.basic_ack(consumer.tags[-1], multiple=True)
    for ch, queue in zip(channels, queues):
        expect.holds(ch, queue, 0)


def test_a_channel_error_leaves_the_other_channels_alone(connection, name):
    well, ill = connection.channel(), connection.channel()
    queue = name()
    well.queue_declare(queue, exclusive=True)
    missing = name()
    with expect.channel_error(404, f"NOT_FOUND - no queue '{missing}' in vhost '/'"):
        ill.queue_declare(missing, passive=True)
    well.basic_publish("", queue, b"still here")
    assert expect.get(well, queue)[2] == b"still here"


def test_a_channel_number_can_be_used_again_after_an_error(connection, name):
    ch = connection.channel(7)
    with expect.channel_error(404, re.compile("NOT_FOUND - .*")):
        ch.queue_declare(name(), passive=True)
    ch = connection.channel(7)
    queue = ch.queue_declare("", exclusive=True).method.queue
    ch.basic_publish("", queue, b"again")
    assert expect.get(ch, queue)[2] == b"again"


def test_frames_sent_before_close_ok_are_ignored_after_a_channel_error(wire, name):
    peer = wire().login()
    peer.open_channel()
    queue = peer.declare(1, name(), exclusive=True).queue
    peer.method(1, spec.Queue.Declare(queue=name("missing"), passive=True))
    for _ in range(50):
        peer.publish(1, "", queue, b"too late")
    assert peer.expect(spec.Channel.Close).reply_code == 404
    peer.method(1, spec.Channel.CloseOk())
    peer.open_channel()
    assert peer.declare(1, queue, passive=True).message_count == 0


def test_heartbeats_keep_an_idle_client_connected(connect):
    connection = connect(heartbeat=2)
    ch = connection.channel()
    connection.process_data_events(time_limit=5)
    assert connection.is_open
    assert ch.queue_declare("", exclusive=True).method.queue


def test_the_broker_sends_heartbeats_at_half_the_agreed_time(wire):
    peer = wire().login(heartbeat=1)
    began = time.monotonic()
    for _ in range(3):
        assert isinstance(peer.receive(), frame.Heartbeat)
        peer.send(frame.Heartbeat())
    assert time.monotonic() - began < 6  # 1.5, on a machine with nothing else to do


def test_a_client_that_misses_its_heartbeats_is_disconnected(wire):
    peer = wire().login(heartbeat=1)
    peer.socket.settimeout(1.5)  # heartbeats of the broker arrive meanwhile
    began = time.monotonic()
    peer.expect_end()
    assert 1 <= time.monotonic() - began < 7


def test_heartbeat_zero_means_none(wire):
    wire().login(heartbeat=0).expect_silence(1.5)


def test_close_by_the_client_is_answered(wire):
    peer = wire().login()
    peer.method(0, spec.Connection.Close(200, "bye", 0, 0))
    peer.expect(spec.Connection.CloseOk)


def test_channel_close_by_the_client_is_answered(wire):
    peer = wire().login()
    peer.open_channel()
    peer.method(1, spec.Channel.Close(200, "bye", 0, 0))
    peer.expect(spec.Channel.CloseOk)
    peer.open_channel()


def test_flow_is_answered_and_stopping_is_not_implemented(wire):
    peer = wire().login()
    peer.open_channel()
    peer.method(1, spec.Channel.Flow(True))
    assert peer.expect(spec.Channel.FlowOk).active is True
    peer.method(1, spec.Channel.Flow(False))
    peer.expect_close(540, "NOT_IMPLEMENTED - active=false")


def test_a_second_channel_open_ends_the_connection_with_504(wire):
    peer = wire().login()
    peer.open_channel()
    peer.method(1, spec.Channel.Open())
    peer.expect_close(504, "CHANNEL_ERROR - second 'channel.open' seen")


def test_a_method_on_a_channel_that_is_not_open_ends_the_connection_with_504(wire):
    peer = wire().login()
    peer.method(5, spec.Queue.Declare(queue="", exclusive=True))
    peer.expect_close(504, "CHANNEL_ERROR - expected 'channel.open'")


def test_a_bad_frame_end_octet_ends_the_connection_with_501(wire):
    peer = wire().login()
    peer.open_channel()
    peer.raw_frame(1, 1, b"\x00\x14\x00\x28\x00", end=b"\x00")
    peer.expect_close(501)


def test_a_body_frame_over_the_agreed_size_ends_the_connection_with_501(wire, name):
    peer = wire().login(frame_max=4096)
    peer.open_channel()
    peer.send(frame.Method(1, spec.Basic.Publish(exchange="", routing_key=name())),
              frame.Header(1, 10000, spec.BasicProperties()))
    peer.raw_frame(3, 1, b"x" * 10000)
    peer.expect_close(501)


def test_an_unknown_frame_type_ends_the_connection(wire):
    peer = wire().login()
    peer.open_channel()
    peer.raw_frame(77, 1, b"what")
    peer.expect_close(501)


def test_a_heartbeat_on_a_channel_ends_the_connection_with_505(wire):
    peer = wire().login(heartbeat=60)
    peer.open_channel()
    peer.raw_frame(8, 1, b"")
    peer.expect_close(505)


def test_a_method_where_a_header_is_due_ends_the_connection_with_505(wire, name):
    peer = wire().login()
    peer.open_channel()
    peer.method(1, spec.Basic.Publish(exchange="", routing_key=name()))
    peer.method(1, spec.Basic.Qos())
    peer.expect_close(505)


def test_a_header_where_a_body_is_due_ends_the_connection_with_505(wire, name):
    peer = wire().login()
    peer.open_channel()
    header = frame.Header(1, 10, spec.BasicProperties())
    peer.send(frame.Method(1, spec.Basic.Publish(exchange="", routing_key=name())), header, header)
    peer.expect_close(505)


def test_a_header_of_another_class_ends_the_connection_with_505(wire, name):
    peer = wire().login()
    peer.open_channel()
    peer.method(1, spec.Basic.Publish(exchange="", routing_key=name()))
    peer.raw_frame(2, 1, struct.pack(">HHQH", 50, 0, 0, 0))
    peer.expect_close(505)


def test_a_body_nobody_announced_ends_the_connection_with_505(wire):
    peer = wire().login()
    peer.open_channel()
    peer.raw_frame(3, 1, b"surprise")
    peer.expect_close(505)


def test_a_body_longer_than_announced_ends_the_connection(wire, name):
    if expect.before_4():
        pytest.skip("RabbitMQ 3 waits for ever")
    peer = wire().login()
    peer.open_channel()
    peer.send(frame.Method(1, spec.Basic.Publish(exchange="", routing_key=name())),
              frame.Header(1, 3, spec.BasicProperties()))
    peer.raw_frame(3, 1, b"more than three")
    assert peer.expect(spec.Connection.Close).reply_code in (501, 505)


def test_an_unknown_method_ends_the_connection(wire):
    peer = wire().login()
    peer.open_channel()
    peer.raw_frame(1, 1, struct.pack(">HH", 60, 999))
    peer.expect_end()


def test_a_method_only_servers_send_ends_the_connection_with_503(wire):
    peer = wire().login()
    peer.open_channel()
    peer.method(1, spec.Basic.QosOk())
    peer.expect_close(503)


def test_a_channel_method_on_channel_zero_ends_the_connection_with_504(wire):
    peer = wire().login()
    peer.method(0, spec.Queue.Declare(queue="", exclusive=True))
    peer.expect_close(504)


def test_arguments_that_end_too_early_end_the_connection_with_501(wire):
    peer = wire().login()
    peer.open_channel()
    peer.raw_frame(1, 1, struct.pack(">HHHB", 50, 10, 0, 200) + b"short")
    peer.expect_close(501)


def test_a_length_beyond_all_bounds_does_not_hold_the_broker(wire, connect):
    peer = wire().login()
    peer.open_channel()
    peer.send(struct.pack(">BHI", 1, 1, 0xFFFFFFFF))
    assert peer.expect(spec.Connection.Close).reply_code == 501
    assert connect().channel().is_open


def test_a_peer_that_vanishes_in_the_middle_of_a_frame_harms_nobody(broker, connect):
    for cut in (3, 9, 20):
        with socket.create_connection((broker.host, broker.port)) as peer:
            peer.sendall((b"AMQP\x00\x00\x09\x01" + b"\x01\x00\x00\x00\x00\x01\x00" + b"\x00" * 20)
                         [:cut])
    assert connect().channel().is_open


def test_many_connections_come_and_go(connect):
    for _ in range(60):
        connect().close()
    together = [connect() for _ in range(60)]
    assert all(connection.channel().is_open for connection in together)
