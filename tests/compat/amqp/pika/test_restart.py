"""What survives a restart and a crash, and how clients see it. Each of these tests restarts the broker
that the whole run shares."""

import pika
import pytest
from pika import spec
from pika.exceptions import AMQPConnectionError, ChannelClosedByBroker, ConnectionClosedByBroker

import expect

PERSISTENT = spec.BasicProperties(delivery_mode=2)


@pytest.fixture
def open_again(broker):
    """open_again(): a new connection, for after a restart."""
    opened = []

    def make():
        opened.append(pika.BlockingConnection(broker.parameters()))
        return opened[-1]

    yield make
    for connection in opened:
        try:
            connection.close()
        except AMQPConnectionError:  # it was cut by a restart, or closed before
            pass


def is_missing(connection, act):
    ch = connection.channel()
    try:
        act(ch)
    except ChannelClosedByBroker as error:
        assert error.reply_code == 404
        return True
    ch.close()
    return False


@pytest.mark.parametrize("how", ["term", "kill"])
def test_durable_objects_and_persistent_messages_survive(broker, open_again, name, how):
    """One restart, many questions; everything that must survive was confirmed before."""
    durable, transient, exclusive = name("durable"), name("transient"), name("exclusive")
    x, y, gone_x, dlx, dead = name("x"), name("y"), name("gone-x"), name("dlx"), name("dead")
    emptied, ttl = name("emptied"), name("ttl")
    before = open_again()
    ch = before.channel()
    ch.exchange_declare(x, "topic", durable=True)
    ch.exchange_declare(y, "headers", durable=True, arguments={"alternate-exchange": dlx})
    ch.exchange_declare(gone_x, "fanout")
    ch.exchange_declare(dlx, "fanout", durable=True)
    ch.queue_declare(durable, durable=True, arguments={
        "x-dead-letter-exchange": dlx, "x-max-length": 100000, "x-overflow": "reject-publish"})
    ch.queue_declare(dead, durable=True)
    ch.queue_declare(emptied, durable=True)
    ch.queue_declare(ttl, durable=True, arguments={"x-message-ttl": 400})
    ch.queue_declare(transient)
    ch.queue_declare(exclusive, exclusive=True)
    ch.queue_bind(durable, x, "a.#")
    ch.exchange_bind(x, y, "", {"x-match": "all", "go": 1})
    ch.queue_bind(dead, dlx)
    ch.confirm_delivery()
    full = spec.BasicProperties(
        delivery_mode=2, content_type="text/plain", correlation_id="c", message_id="m", priority=3,
        headers={"list": [1, b"\x00", {"deep": True}]}, timestamp=1709208000, type="t", app_id="a")
    ch.basic_publish(x, "a.b", b"first", full)
    ch.basic_publish("", durable, b"L" * 1024 * 1024, PERSISTENT)
    for number in range(300):
        ch.basic_publish("", durable, str(number).encode(), PERSISTENT)
        if number % 3 == 0:
            ch.basic_publish("", durable, b"transient message")
    ch.basic_publish("", transient, b"m", PERSISTENT)
    ch.basic_publish("", emptied, b"m", PERSISTENT)
    assert expect.get(ch, emptied)[2] == b"m"
    ch.basic_publish("", emptied, b"after the ack", PERSISTENT)
    ch.basic_publish("", ttl, b"expires", PERSISTENT)
    before.close()

    broker.restart(how)

    after = open_again()
    ch = after.channel()
    for queue in (transient, exclusive):
        assert is_missing(after, lambda ch: ch.queue_declare(queue, passive=True))
    assert is_missing(after, lambda ch: ch.exchange_declare(gone_x, passive=True))
    with pytest.raises(ChannelClosedByBroker) as info:
        after.channel().queue_declare(durable, durable=True)
    assert info.value.reply_code == 406  # its arguments are still there
    assert ch.queue_declare(durable, passive=True).method.message_count == 302
    assert expect.all_bodies(ch, emptied) == [b"after the ack"]

    method, properties, body = expect.get(ch, durable)
    assert (method.exchange, method.routing_key, body) == (x, "a.b", b"first")
    for word in ("content_type", "correlation_id", "message_id", "priority", "headers", "timestamp",
                 "type", "app_id", "delivery_mode"):
        assert getattr(properties, word) == getattr(full, word), word
    assert expect.get(ch, durable)[2] == b"L" * 1024 * 1024
    assert expect.bodies(ch, durable, 300) == [str(number).encode() for number in range(300)]

    ch.basic_publish(y, "a.z", b"through both", spec.BasicProperties(headers={"go": 1}))
    method, _, body = expect.get(ch, durable, auto_ack=False)
    assert body == b"through both"
    ch.basic_reject(method.delivery_tag, requeue=False)
    _, properties, body = expect.get(ch, dead)
    assert body == b"through both"
    assert properties.headers["x-death"][0]["queue"] == durable
    ch.basic_publish(y, "a.z", b"by the alternate exchange")
    assert expect.get(ch, dead)[2] == b"by the alternate exchange"
    expect.holds(ch, ttl, 0)


@pytest.mark.parametrize("how", ["term", "kill"])
def test_unacked_messages_are_there_again_and_acked_ones_are_not(broker, open_again, name, how):
    queue = name()
    ch = open_again().channel()
    ch.queue_declare(queue, durable=True)
    ch.confirm_delivery()
    for number in range(20):
        ch.basic_publish("", queue, str(number).encode(), PERSISTENT)
    tags = [expect.get(ch, queue, auto_ack=False)[0].delivery_tag for _ in range(10)]
    for tag in tags[::2]:
        ch.basic_ack(tag)
    # What follows on the same queue is written after the acks, and its confirm says it is safe.
    ch.basic_publish("", queue, b"20", PERSISTENT)
    broker.restart(how)
    ch = open_again().channel()
    got = [int(body) for body in expect.all_bodies(ch, queue)]
    assert got == [1, 3, 5, 7, 9, *range(10, 21)]


def test_a_clean_stop_tells_clients_320(broker, open_again, name):
    connection = open_again()
    ch = connection.channel()
    consumer = expect.Consumer(ch, ch.queue_declare("", exclusive=True).method.queue)
    assert consumer.tag
    broker.restart("term")
    with pytest.raises(ConnectionClosedByBroker) as info:
        connection.process_data_events(time_limit=5)
    assert info.value.reply_code == 320
    assert info.value.reply_text.startswith("CONNECTION_FORCED")


@pytest.mark.parametrize("how", ["term", "kill"])
def test_a_client_that_reconnects_goes_on_where_it_was(broker, open_again, name, how):
    queue = name()
    ch = open_again().channel()
    ch.queue_declare(queue, durable=True)
    ch.confirm_delivery()
    for number in range(10):
        ch.basic_publish("", queue, str(number).encode(), PERSISTENT)
    consumer = expect.Consumer(ch, queue)
    consumer.wait(10)
    broker.restart(how)
    with pytest.raises(AMQPConnectionError):
        ch.connection.process_data_events(time_limit=5)
        ch.connection.channel()
    ch = open_again().channel()
    ch.queue_declare(queue, durable=True)
    consumer = expect.Consumer(ch, queue).wait(10)
    assert consumer.bodies == [str(number).encode() for number in range(10)]
    ch.basic_ack(consumer.tags[-1], multiple=True)
    ch.confirm_delivery()
    ch.basic_publish("", queue, b"10", PERSISTENT)
    consumer.wait(11)


def test_several_restarts_in_a_row_keep_what_is_there(broker, open_again, name):
    queue = name()
    everything = [f"{turn}:{number}".encode() for turn in range(3) for number in range(50)]
    taken = 0
    for turn in range(3):
        ch = open_again().channel()
        ch.queue_declare(queue, durable=True)
        ch.confirm_delivery()
        if turn > 0:
            assert expect.bodies(ch, queue, 10) == everything[taken:taken + 10]
            taken += 10
        for body in everything[50 * turn:50 * turn + 50]:
            ch.basic_publish("", queue, body, PERSISTENT)
        broker.restart("kill" if turn == 1 else "term")
    assert expect.all_bodies(open_again().channel(), queue) == everything[taken:]
