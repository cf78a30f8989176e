"""Length limits: what a full queue drops or refuses."""

import pytest
from pika import spec
from pika.exceptions import NackError

import expect


def fill(ch, queue, count, size=None):
    for number in range(count):
        body = str(number).encode()
        ch.basic_publish("", queue, body if size is None else body.ljust(size))


def words(*values):
    return [str(value).encode() for value in values]


@pytest.mark.parametrize("overflow", [{}, {"x-overflow": "drop-head"}], ids=["default", "drop-head"])
def test_a_full_queue_drops_its_oldest(ch, name, overflow):
    queue = name()
    ch.queue_declare(queue, arguments={"x-max-length": 3, **overflow})
    fill(ch, queue, 10)
    assert expect.all_bodies(ch, queue) == words(7, 8, 9)


def test_a_limit_in_bytes_counts_bodies(ch, name):
    queue = name()
    ch.queue_declare(queue, arguments={"x-max-length-bytes": 1000})
    fill(ch, queue, 10, size=300)
    assert [body.strip() for body in expect.all_bodies(ch, queue)] == words(7, 8, 9)


def test_the_stricter_limit_counts(ch, name):
    queue = name()
    ch.queue_declare(queue, arguments={"x-max-length": 2, "x-max-length-bytes": 1000})
    fill(ch, queue, 5, size=10)
    assert [body.strip() for body in expect.all_bodies(ch, queue)] == words(3, 4)
    fill(ch, queue, 5, size=900)
    assert [body.strip() for body in expect.all_bodies(ch, queue)] == words(4)


def test_messages_in_consumers_hands_do_not_count(ch, name):
    queue = name()
    ch.queue_declare(queue, arguments={"x-max-length": 2})
    fill(ch, queue, 2)
    held = [expect.get(ch, queue, auto_ack=False) for _ in range(2)]
    fill(ch, queue, 2)
    expect.holds(ch, queue, 2)
    assert [body for _, _, body in held] == words(0, 1)
    assert expect.all_bodies(ch, queue) == words(0, 1)


def test_a_queue_of_length_zero_hands_over_or_drops(ch, name):
    queue = name()
    ch.queue_declare(queue, arguments={"x-max-length": 0})
    fill(ch, queue, 2)
    expect.empty(ch, queue)
    consumer = expect.Consumer(ch, queue)
    fill(ch, queue, 3)
    assert consumer.wait(3).bodies == words(0, 1, 2)


@pytest.mark.parametrize("limit", [{"x-max-length": 3}, {"x-max-length-bytes": 3}], ids=str)
def test_reject_publish_keeps_the_oldest(ch, name, limit):
    queue = name()
    ch.queue_declare(queue, arguments={"x-overflow": "reject-publish", **limit})
    fill(ch, queue, 10)
    kept = expect.all_bodies(ch, queue)
    assert kept[:3] == words(0, 1, 2)
    assert len(kept) <= 4


def test_reject_publish_takes_messages_again_when_there_is_room(ch, name):
    queue = name()
    ch.queue_declare(queue, arguments={"x-overflow": "reject-publish", "x-max-length": 1})
    ch.confirm_delivery()
    ch.basic_publish("", queue, b"first")
    with pytest.raises(NackError):
        ch.basic_publish("", queue, b"refused")
    assert expect.get(ch, queue)[2] == b"first"
    ch.basic_publish("", queue, b"second")
    assert expect.all_bodies(ch, queue) == [b"second"]


def test_one_refusing_queue_of_several_makes_a_nack_and_the_others_keep_the_message(ch, name):
    x, full, free = name("x"), name(), name()
    ch.exchange_declare(x, "fanout")
    ch.queue_declare(full, arguments={"x-overflow": "reject-publish", "x-max-length": 1})
    ch.queue_declare(free)
    ch.queue_bind(full, x)
    ch.queue_bind(free, x)
    ch.confirm_delivery()
    ch.basic_publish(x, "", b"1")
    with pytest.raises(NackError):
        ch.basic_publish(x, "", b"2")
    assert expect.all_bodies(ch, full) == [b"1"]
    assert expect.all_bodies(ch, free) == [b"1", b"2"]


def test_persistent_messages_of_a_durable_queue_are_dropped_alike(ch, name):
    queue = name()
    ch.queue_declare(queue, durable=True, arguments={"x-max-length": 5})
    ch.confirm_delivery()
    for number in range(20):
        ch.basic_publish("", queue, str(number).encode(), spec.BasicProperties(delivery_mode=2))
    assert expect.all_bodies(ch, queue) == words(15, 16, 17, 18, 19)
