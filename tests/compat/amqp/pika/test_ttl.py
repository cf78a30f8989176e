"""Message expiry: by queue, by message, at the head."""

import time

import pytest
from pika import spec

import expect


@pytest.fixture
def ttl_queue(ch, name):
    """ttl_queue(100): a new queue whose messages live so many ms."""
    def make(ttl_ms, **arguments):
        queue = name("ttl")
        ch.queue_declare(queue, arguments={"x-message-ttl": ttl_ms, **arguments})
        return queue
    return make


def publish(ch, queue, body, expiration=None):
    ch.basic_publish("", queue, body, spec.BasicProperties(expiration=expiration))


def test_messages_of_a_queue_with_ttl_expire(ch, ttl_queue):
    queue = ttl_queue(500)
    publish(ch, queue, b"1")
    publish(ch, queue, b"2")
    expect.holds(ch, queue, 2)
    time.sleep(0.7)
    expect.holds(ch, queue, 0)
    expect.empty(ch, queue)


def test_a_message_with_expiration_expires(ch, queue):
    publish(ch, queue, b"short", "100")
    publish(ch, queue, b"long", "60000")
    publish(ch, queue, b"for ever")
    time.sleep(0.3)
    assert expect.all_bodies(ch, queue) == [b"long", b"for ever"]


@pytest.mark.parametrize("queue_ms, message_ms", [(100, "60000"), (60000, "100")])
def test_the_shorter_of_both_times_counts(ch, ttl_queue, queue_ms, message_ms):
    queue = ttl_queue(queue_ms)
    publish(ch, queue, b"m", message_ms)
    time.sleep(0.3)
    expect.empty(ch, queue)


def test_a_message_that_has_not_expired_is_delivered_with_its_expiration(ch, queue):
    publish(ch, queue, b"m", "60000")
    assert expect.get(ch, queue)[1].expiration == "60000"


def test_ttl_zero_without_a_consumer_is_gone_at_once(ch, ttl_queue, queue):
    publish(ch, queue, b"by message", "0")
    expect.empty(ch, queue)
    zero = ttl_queue(0)
    publish(ch, zero, b"by queue")
    expect.empty(ch, zero)


def test_ttl_zero_with_a_consumer_is_delivered(ch, ttl_queue):
    queue = ttl_queue(0)
    consumer = expect.Consumer(ch, queue)
    publish(ch, queue, b"now or never")
    assert consumer.wait(1).bodies == [b"now or never"]


def test_an_expired_message_behind_one_that_has_not_is_not_delivered(ch, queue):
    publish(ch, queue, b"stays")
    publish(ch, queue, b"goes", "100")
    publish(ch, queue, b"stays too")
    time.sleep(0.3)
    assert expect.all_bodies(ch, queue) == [b"stays", b"stays too"]


def test_a_message_in_a_consumers_hands_does_not_expire(ch, ttl_queue):
    queue = ttl_queue(400)
    consumer = expect.Consumer(ch, queue)
    publish(ch, queue, b"m")
    consumer.wait(1)
    time.sleep(0.6)
    ch.basic_ack(consumer.tags[0])
    ch.basic_qos(prefetch_count=1)


def test_requeue_does_not_lengthen_a_life(ch, ttl_queue):
    queue = ttl_queue(500)
    publish(ch, queue, b"m")
    method, _, _ = expect.get(ch, queue, auto_ack=False)
    time.sleep(0.7)
    ch.basic_nack(method.delivery_tag, requeue=True)
    expect.empty(ch, queue)


def test_a_requeued_message_that_still_lives_comes_back_and_then_expires(ch, ttl_queue):
    queue = ttl_queue(800)
    publish(ch, queue, b"m")
    method, _, _ = expect.get(ch, queue, auto_ack=False)
    ch.basic_nack(method.delivery_tag, requeue=True)
    method, _, _ = expect.get(ch, queue, auto_ack=False)
    assert method.redelivered
    ch.basic_nack(method.delivery_tag, requeue=True)
    time.sleep(1)
    expect.empty(ch, queue)


def test_a_consumer_that_comes_late_gets_only_what_lives(connect, ttl_queue, ch):
    queue = ttl_queue(800)
    for number in range(100):
        publish(ch, queue, b"old")
    time.sleep(1)
    publish(ch, queue, b"fresh")
    consumer = expect.Consumer(connect().channel(), queue)
    assert consumer.settled(1).bodies == [b"fresh"]


def test_many_messages_with_lives_of_their_own(ch, queue):
    """In the order of their expiry, so each comes to the head in time."""
    for number in range(200):
        publish(ch, queue, str(number).encode(), "50" if number < 100 else "60000")
    time.sleep(0.3)
    expect.holds(ch, queue, 100)
    assert expect.all_bodies(ch, queue) == [str(number).encode() for number in range(100, 200)]
