"""Ack, nack, reject, recover: what is gone, what comes back, where to and how marked."""

import pytest
from pika import spec

import expect


def publish(ch, queue, *words):
    for word in words:
        ch.basic_publish("", queue, str(word).encode())


def words(*values):
    return [str(value).encode() for value in values]


@pytest.fixture
def taken(connection, name):
    """taken(5): (channel, queue, tags) of so many unacked messages "0", "1", ..."""
    def make(count):
        ch, queue = connection.channel(), name()
        ch.queue_declare(queue)
        publish(ch, queue, *range(count))
        tags = [expect.get(ch, queue, auto_ack=False)[0].delivery_tag for _ in range(count)]
        return ch, queue, tags
    return make


def left_over(connection, ch, queue):
    """What comes back when the channel closes."""
    ch.close()
    return expect.all_bodies(connection.channel(), queue)


def test_ack_of_one_settles_that_one(taken, connection):
    ch, queue, tags = taken(3)
    ch.basic_ack(tags[1])
    assert left_over(connection, ch, queue) == words(0, 2)


def test_ack_of_many_settles_all_up_to_the_tag(taken, connection):
    ch, queue, tags = taken(5)
    ch.basic_ack(tags[2], multiple=True)
    assert left_over(connection, ch, queue) == words(3, 4)


def test_ack_of_tag_zero_with_multiple_settles_all(taken, connection):
    ch, queue, _ = taken(4)
    ch.basic_ack(0, multiple=True)
    assert left_over(connection, ch, queue) == []


def test_acks_may_come_in_any_order(taken, connection):
    ch, queue, tags = taken(6)
    for index in (4, 0, 2):
        ch.basic_ack(tags[index])
    ch.basic_ack(tags[3], multiple=True)
    assert left_over(connection, ch, queue) == words(5)


@pytest.mark.parametrize("settle", [
    lambda ch, tag: ch.basic_ack(tag),
    lambda ch, tag: ch.basic_nack(tag),
    lambda ch, tag: ch.basic_reject(tag),
    lambda ch, tag: ch.basic_ack(tag, multiple=True),
    lambda ch, tag: ch.basic_nack(tag, multiple=True),
], ids=["ack", "nack", "reject", "ack multiple", "nack multiple"])
def test_an_unknown_delivery_tag_is_406(ch, settle):
    with expect.channel_error(406, "PRECONDITION_FAILED - unknown delivery tag 7"):
        settle(ch, 7)
        ch.basic_qos(prefetch_count=1)


def test_settling_twice_is_an_unknown_delivery_tag(taken):
    ch, _, tags = taken(2)
    ch.basic_ack(tags[0])
    with expect.channel_error(406, f"PRECONDITION_FAILED - unknown delivery tag {tags[0]}"):
        ch.basic_ack(tags[0])
        ch.basic_qos(prefetch_count=1)


def test_tag_zero_without_multiple_is_unknown(taken):
    ch, _, _ = taken(1)
    with expect.channel_error(406, "PRECONDITION_FAILED - unknown delivery tag 0"):
        ch.basic_ack(0)
        ch.basic_qos(prefetch_count=1)


def test_tags_of_another_channel_are_unknown(taken, connection):
    _, _, tags = taken(1)
    other = connection.channel()
    with expect.channel_error(406, f"PRECONDITION_FAILED - unknown delivery tag {tags[0]}"):
        other.basic_ack(tags[0])
        other.basic_qos(prefetch_count=1)


def test_an_auto_acked_delivery_cannot_be_acked(ch, queue):
    publish(ch, queue, 1)
    tag = expect.get(ch, queue)[0].delivery_tag
    with expect.channel_error(406, f"PRECONDITION_FAILED - unknown delivery tag {tag}"):
        ch.basic_ack(tag)
        ch.basic_qos(prefetch_count=1)


def test_an_unknown_tag_gives_back_what_the_channel_held(taken, connection):
    ch, queue, _ = taken(3)
    with expect.channel_error(406, "PRECONDITION_FAILED - unknown delivery tag 99"):
        ch.basic_ack(99)
        ch.basic_qos(prefetch_count=1)
    assert expect.bodies(connection.channel(), queue, 3) == words(0, 1, 2)


@pytest.mark.parametrize("settle", [
    lambda ch, tag: ch.basic_nack(tag, requeue=True),
    lambda ch, tag: ch.basic_reject(tag, requeue=True),
], ids=["nack", "reject"])
def test_a_requeued_message_comes_back_marked(taken, settle):
    ch, queue, tags = taken(1)
    settle(ch, tags[0])
    method, _, body = expect.get(ch, queue)
    assert (body, method.redelivered) == (b"0", True)
    expect.empty(ch, queue)


@pytest.mark.parametrize("settle", [
    lambda ch, tag: ch.basic_nack(tag, requeue=False),
    lambda ch, tag: ch.basic_reject(tag, requeue=False),
], ids=["nack", "reject"])
def test_a_message_refused_without_requeue_is_gone(taken, connection, settle):
    ch, queue, tags = taken(2)
    settle(ch, tags[0])
    assert left_over(connection, ch, queue) == words(1)


def test_nack_of_many_with_requeue_keeps_the_order(taken):
    ch, queue, tags = taken(5)
    ch.basic_nack(tags[2], multiple=True, requeue=True)
    assert expect.bodies(ch, queue, 3) == words(0, 1, 2)
    expect.empty(ch, queue)


def test_nack_of_many_without_requeue(taken, connection):
    ch, queue, tags = taken(5)
    ch.basic_nack(tags[2], multiple=True, requeue=False)
    assert left_over(connection, ch, queue) == words(3, 4)


def test_nack_of_tag_zero_with_multiple_is_all(taken):
    ch, queue, _ = taken(3)
    ch.basic_nack(0, multiple=True, requeue=True)
    assert expect.bodies(ch, queue, 3) == words(0, 1, 2)


def test_a_requeued_message_goes_back_to_its_place(ch, queue):
    publish(ch, queue, *range(6))
    tags = [expect.get(ch, queue, auto_ack=False)[0].delivery_tag for _ in range(4)]
    ch.basic_nack(tags[2], requeue=True)
    ch.basic_nack(tags[0], requeue=True)
    got = [expect.get(ch, queue) for _ in range(4)]
    assert [body for _, _, body in got] == words(0, 2, 4, 5)
    assert [method.redelivered for method, _, _ in got] == [True, True, False, False]


def test_a_requeued_message_is_given_to_the_same_consumer_when_there_is_no_other(ch, queue):
    consumer = expect.Consumer(ch, queue)
    publish(ch, queue, "again")
    consumer.wait(1)
    ch.basic_nack(consumer.tags[0], requeue=True)
    consumer.wait(2)
    assert [method.redelivered for method, _, _ in consumer.messages] == [False, True]
    assert consumer.tags == [1, 2]


def test_a_requeued_message_is_given_to_another_consumer(connection, queue):
    first = expect.Consumer(connection.channel(), queue)
    publish(first.ch, queue, 1)
    first.wait(1)
    second = expect.Consumer(connection.channel(), queue)
    first.ch.basic_cancel(first.tag)
    first.ch.basic_reject(first.tags[0], requeue=True)
    assert second.wait(1).messages[0][0].redelivered is True


def test_recover_gives_all_unacked_again(ch, queue):
    publish(ch, queue, *range(3))
    consumer = expect.Consumer(ch, queue).wait(3)
    ch.basic_ack(consumer.tags[1])
    ch.basic_recover(requeue=True)
    consumer.wait(5)
    assert consumer.bodies[3:] == words(0, 2)
    assert all(method.redelivered for method, _, _ in consumer.messages[3:])
    ch.basic_ack(consumer.tags[-1], multiple=True)
    ch.basic_qos(prefetch_count=1)


def test_recover_async_does_the_same_without_an_answer(wire, name):
    peer = wire().login()
    peer.open_channel()
    queue = peer.declare(1, name(), exclusive=True).queue
    peer.publish(1, "", queue, b"m")
    peer.method(1, spec.Basic.Get(queue=queue))
    peer.expect(spec.Basic.GetOk)
    peer.expect_content()
    peer.method(1, spec.Basic.RecoverAsync(requeue=True))
    peer.method(1, spec.Basic.Get(queue=queue))
    assert peer.expect(spec.Basic.GetOk).redelivered is True


def test_recover_without_requeue_is_not_implemented(wire):
    peer = wire().login()
    peer.open_channel()
    peer.method(1, spec.Basic.Recover(requeue=False))
    peer.expect_close(540, "NOT_IMPLEMENTED - requeue=false")


def test_acks_of_many_messages_in_random_order(ch, connection, name):
    import random
    queue = name()
    ch.queue_declare(queue)
    publish(ch, queue, *range(2000))
    tags = expect.Consumer(ch, queue).wait(2000, timeout_s=15).tags
    order = random.Random(5)
    keep = set(order.sample(tags, 100))
    settle = [tag for tag in tags if tag not in keep]
    order.shuffle(settle)
    for tag in settle:
        ch.basic_ack(tag)
    assert left_over(connection, ch, queue) == words(*sorted(tag - 1 for tag in keep))
