"""Consuming, getting, prefetch, cancelling, and who is given what."""

import re

import pytest
from pika import spec

import expect


def publish(ch, queue, *words):
    for word in words:
        ch.basic_publish("", queue, str(word).encode())


def words(*values):
    return [str(value).encode() for value in values]


def test_deliveries_carry_tag_exchange_and_key(ch, queue):
    ch.queue_bind(queue, "amq.direct", queue + ".key")
    consumer = expect.Consumer(ch, queue, consumer_tag="me")
    ch.basic_publish("amq.direct", queue + ".key", b"m")
    method = consumer.wait(1).messages[0][0]
    assert method.consumer_tag == "me"
    assert method.delivery_tag == 1
    assert method.exchange == "amq.direct"
    assert method.routing_key == queue + ".key"
    assert method.redelivered is False


def test_delivery_tags_count_per_channel_over_consumers_and_gets(connection, name):
    ch, other = connection.channel(), connection.channel()
    one, two = (ch.queue_declare(name(), exclusive=True).method.queue for _ in range(2))
    first = expect.Consumer(ch, one)
    publish(ch, one, 1)
    first.wait(1)
    second = expect.Consumer(ch, two, auto_ack=True)
    publish(ch, two, 2)
    second.wait(1)
    publish(ch, two, 3)
    second.wait(2)
    assert (first.tags, second.tags) == ([1], [2, 3])
    ch.basic_cancel(second.tag)
    publish(ch, two, 4, 5)
    assert expect.get(ch, two)[0].delivery_tag == 4
    assert expect.get(other, two)[0].delivery_tag == 1


def test_a_backlog_is_delivered_to_a_new_consumer_in_order(ch, queue):
    publish(ch, queue, *range(50))
    consumer = expect.Consumer(ch, queue).wait(50)
    assert consumer.bodies == words(*range(50))
    assert consumer.tags == list(range(1, 51))


def test_consume_ok_comes_before_the_first_delivery(wire, name):
    peer = wire().login()
    peer.open_channel()
    for number in range(100):
        queue = peer.declare(1, name(), exclusive=True).queue
        for _ in range(3):
            peer.publish(1, "", queue, b"m")
        peer.method(1, spec.Basic.Consume(queue=queue, consumer_tag=queue, no_ack=True))
        peer.expect(spec.Basic.ConsumeOk)
        for _ in range(3):
            assert peer.expect(spec.Basic.Deliver).consumer_tag == queue
            peer.expect_content()


def test_the_broker_names_a_consumer_that_has_no_tag(wire, name):
    peer = wire().login()
    peer.open_channel()
    queue = peer.declare(1, name(), exclusive=True).queue
    tags = set()
    for _ in range(2):
        peer.method(1, spec.Basic.Consume(queue=queue, consumer_tag=""))
        tags.add(peer.expect(spec.Basic.ConsumeOk).consumer_tag)
    assert len(tags) == 2
    assert all(tag.startswith("amq.ctag-") for tag in tags)


def test_using_a_consumer_tag_twice_on_a_channel_ends_the_connection_with_530(wire, name):
    peer = wire().login()
    peer.open_channel()
    queue = peer.declare(1, name(), exclusive=True).queue
    peer.method(1, spec.Basic.Consume(queue=queue, consumer_tag="c"))
    peer.expect(spec.Basic.ConsumeOk)
    peer.method(1, spec.Basic.Consume(queue=queue, consumer_tag="c"))
    peer.expect_close(530, "NOT_ALLOWED - attempt to reuse consumer tag 'c'")


def test_the_same_consumer_tag_on_two_channels_is_two_consumers(connection, name):
    one, two = connection.channel(), connection.channel()
    queue = one.queue_declare(name(), exclusive=True).method.queue
    consumers = [expect.Consumer(ch, queue, consumer_tag="same") for ch in (one, two)]
    publish(one, queue, 1, 2)
    for consumer in consumers:
        consumer.wait(1)


def test_a_consumer_tag_is_free_again_after_cancel(ch, queue):
    for number in range(3):
        consumer = expect.Consumer(ch, queue, consumer_tag="again", auto_ack=True)
        publish(ch, queue, number)
        assert consumer.wait(1).bodies == words(number)
        ch.basic_cancel("again")


def test_auto_ack_settles_at_delivery(connect, name):
    connection, queue = connect(), name()
    ch = connection.channel()
    ch.queue_declare(queue)
    publish(ch, queue, 1, 2)
    expect.Consumer(ch, queue, auto_ack=True).wait(2)
    connection.close()
    expect.empty(connect().channel(), queue)


def test_unacked_messages_come_back_in_order_when_the_channel_closes(connection, name):
    ch, queue = connection.channel(), name()
    ch.queue_declare(queue)
    publish(ch, queue, *range(5))
    consumer = expect.Consumer(ch, queue).wait(5)
    ch.basic_ack(consumer.tags[1])
    ch.close()
    ch = connection.channel()
    got = [expect.get(ch, queue) for _ in range(4)]
    assert [body for _, _, body in got] == words(0, 2, 3, 4)
    assert all(method.redelivered for method, _, _ in got)


def test_unacked_messages_come_back_when_the_connection_is_lost(wire, ch, name):
    queue = name()
    ch.queue_declare(queue)
    publish(ch, queue, 1, 2, 3)
    peer = wire().login()
    peer.open_channel()
    peer.method(1, spec.Basic.Consume(queue=queue, consumer_tag="c"))
    peer.expect(spec.Basic.ConsumeOk)
    for _ in range(3):
        peer.expect(spec.Basic.Deliver)
        peer.expect_content()
    peer.close()
    got = [expect.get(ch, queue) for _ in range(3)]
    assert [body for _, _, body in got] == words(1, 2, 3)
    assert all(method.redelivered for method, _, _ in got)


# Get ---------------------------------------------------------------------------------------------

def test_get_answers_the_oldest_message_and_how_many_are_left(ch, queue):
    publish(ch, queue, 1, 2, 3)
    expect.holds(ch, queue, 3)
    for left, word in ((2, b"1"), (1, b"2"), (0, b"3")):
        method, _, body = ch.basic_get(queue, auto_ack=True)
        assert (method.message_count, body) == (left, word)
    assert ch.basic_get(queue)[0] is None


def test_an_unacked_get_comes_back_marked(connection, name):
    queue = name()
    ch = connection.channel()
    ch.queue_declare(queue)
    publish(ch, queue, 1)
    assert expect.get(ch, queue, auto_ack=False)[0].redelivered is False
    expect.empty(ch, queue)
    ch.close()
    assert expect.get(connection.channel(), queue)[0].redelivered is True


# Exclusive consumers -----------------------------------------------------------------------------

def in_use(queue):
    return f"ACCESS_REFUSED - queue '{queue}' in vhost '/' in exclusive use"


def test_an_exclusive_consumer_keeps_others_out(connection, queue):
    first = connection.channel()
    consumer = expect.Consumer(first, queue, exclusive=True)
    with expect.channel_error(403, in_use(queue)):
        expect.Consumer(connection.channel(), queue)
    first.basic_cancel(consumer.tag)
    expect.Consumer(connection.channel(), queue)


def test_an_exclusive_consumer_is_kept_out_by_others(connection, queue):
    expect.Consumer(connection.channel(), queue)
    with expect.channel_error(403, in_use(queue)):
        expect.Consumer(connection.channel(), queue, exclusive=True)


# Cancel ------------------------------------------------------------------------------------------

def test_nothing_is_delivered_after_cancel_ok(wire, name):
    peer = wire().login()
    peer.open_channel()
    queue = peer.declare(1, name(), exclusive=True).queue
    peer.method(1, spec.Basic.Consume(queue=queue, consumer_tag="c", no_ack=True))
    peer.expect(spec.Basic.ConsumeOk)
    for number in range(200):
        peer.publish(1, "", queue, str(number).encode())
    peer.method(1, spec.Basic.Cancel("c"))
    delivered = 0
    while True:
        method = peer.receive().method
        if isinstance(method, spec.Basic.CancelOk):
            break
        assert isinstance(method, spec.Basic.Deliver)
        assert peer.expect_content()[1] == str(delivered).encode()
        delivered += 1
    peer.method(1, spec.Basic.Get(queue=queue, no_ack=True))
    if delivered < 200:
        peer.expect(spec.Basic.GetOk)
        assert peer.expect_content()[1] == str(delivered).encode()
    else:
        peer.expect(spec.Basic.GetEmpty)


def test_messages_of_a_cancelled_consumer_stay_unacked_and_can_be_acked(ch, queue):
    publish(ch, queue, 1, 2, 3)
    consumer = expect.Consumer(ch, queue).wait(3)
    ch.basic_cancel(consumer.tag)
    expect.empty(ch, queue)
    ch.basic_ack(consumer.tags[0])
    ch.basic_nack(consumer.tags[1], requeue=True)
    assert expect.bodies(ch, queue, 1) == [b"2"]
    expect.empty(ch, queue)


def test_cancelling_an_unknown_consumer_is_fine(wire):
    peer = wire().login()
    peer.open_channel()
    peer.method(1, spec.Basic.Cancel("never-seen"))
    assert peer.expect(spec.Basic.CancelOk).consumer_tag == "never-seen"


def test_deleting_a_queue_cancels_its_consumers(connection, name):
    ch, other, queue = connection.channel(), connection.channel(), name()
    ch.queue_declare(queue)
    cancelled = []
    ch.add_on_cancel_callback(lambda frame: cancelled.append(frame.method.consumer_tag))
    consumer = expect.Consumer(ch, queue)
    other.queue_delete(queue)
    expect.until(lambda: cancelled, "the cancel", pump=connection)
    assert cancelled == [consumer.tag]
    ch.queue_declare(queue)  # the channel goes on


def test_a_client_that_did_not_ask_for_cancels_gets_none(wire, name, ch):
    queue = name()
    ch.queue_declare(queue)
    peer = wire().login(properties={})
    peer.open_channel()
    peer.method(1, spec.Basic.Consume(queue=queue, consumer_tag="c"))
    peer.expect(spec.Basic.ConsumeOk)
    ch.queue_delete(queue)
    peer.expect_silence(0.3)
    peer.declare(1, "", exclusive=True)


# Prefetch ----------------------------------------------------------------------------------------

def test_prefetch_holds_back_until_an_ack(ch, queue):
    ch.basic_qos(prefetch_count=2)
    publish(ch, queue, *range(5))
    consumer = expect.Consumer(ch, queue).settled(2)
    ch.basic_ack(consumer.tags[0])
    consumer.settled(3)
    ch.basic_ack(consumer.tags[-1], multiple=True)
    consumer.settled(5)
    assert consumer.bodies == words(*range(5))


def test_prefetch_is_freed_by_nack_and_reject_too(ch, queue):
    ch.basic_qos(prefetch_count=1)
    publish(ch, queue, 1, 2, 3)
    consumer = expect.Consumer(ch, queue).settled(1)
    ch.basic_nack(consumer.tags[0], requeue=False)
    consumer.settled(2)
    ch.basic_reject(consumer.tags[1], requeue=False)
    consumer.settled(3)


def test_prefetch_counts_for_each_consumer(ch, queue):
    publish(ch, queue, *range(10))
    ch.basic_qos(prefetch_count=2)
    first = expect.Consumer(ch, queue)
    ch.basic_qos(prefetch_count=3)
    second = expect.Consumer(ch, queue)
    second.settled(3)
    first.settled(2)


def test_a_new_prefetch_does_not_touch_consumers_that_are_there(ch, queue):
    ch.basic_qos(prefetch_count=1)
    consumer = expect.Consumer(ch, queue)
    ch.basic_qos(prefetch_count=5)
    publish(ch, queue, *range(4))
    consumer.settled(1)


def test_global_prefetch_is_shared_by_the_channel(ch, queue):
    publish(ch, queue, *range(10))
    ch.basic_qos(prefetch_count=3, global_qos=True)
    first, second = expect.Consumer(ch, queue), expect.Consumer(ch, queue)
    connection = ch.connection
    expect.until(lambda: len(first.messages) + len(second.messages) == 3, "3 deliveries", 5, connection)
    connection.process_data_events(time_limit=0.15)
    assert len(first.messages) + len(second.messages) == 3
    ch.basic_ack(max(first.tags + second.tags), multiple=True)
    expect.until(lambda: len(first.messages) + len(second.messages) == 6, "6 deliveries", 5, connection)


def test_both_prefetches_hold_at_once(ch, queue):
    publish(ch, queue, *range(10))
    ch.basic_qos(prefetch_count=2)
    ch.basic_qos(prefetch_count=3, global_qos=True)
    first = expect.Consumer(ch, queue).settled(2)
    second = expect.Consumer(ch, queue).settled(1)
    first.settled(2)


def test_prefetch_does_not_count_auto_acked_deliveries_and_gets(ch, queue):
    ch.basic_qos(prefetch_count=1)
    publish(ch, queue, *range(6))
    assert expect.get(ch, queue, auto_ack=False)[2] == b"0"
    assert expect.get(ch, queue, auto_ack=False)[2] == b"1"
    assert expect.Consumer(ch, queue, auto_ack=True).settled(4).bodies == words(2, 3, 4, 5)


def test_prefetch_zero_is_no_limit(ch, queue):
    ch.basic_qos(prefetch_count=1)
    ch.basic_qos(prefetch_count=0)
    publish(ch, queue, *range(300))
    expect.Consumer(ch, queue).wait(300)


def test_a_prefetch_in_bytes_is_not_implemented(wire):
    peer = wire().login()
    peer.open_channel()
    peer.method(1, spec.Basic.Qos(prefetch_size=10, prefetch_count=1))
    peer.expect_close(540, "NOT_IMPLEMENTED - prefetch_size!=0 (10)")


# Who gets what -----------------------------------------------------------------------------------

def test_messages_go_round_among_consumers(connection, queue):
    consumers = [expect.Consumer(connection.channel(), queue, auto_ack=True) for _ in range(4)]
    ch = connection.channel()
    publish(ch, queue, *range(40))
    expect.until(lambda: sum(len(consumer.messages) for consumer in consumers) == 40,
                 "all deliveries", 5, connection)
    assert [len(consumer.messages) for consumer in consumers] == [10, 10, 10, 10]
    for consumer in consumers:
        numbers = [int(body) for body in consumer.bodies]
        assert numbers == list(range(numbers[0], 40, 4))


def test_a_busy_consumer_is_passed_over(connection, queue):
    busy_ch, free_ch = connection.channel(), connection.channel()
    for ch in (busy_ch, free_ch):
        ch.basic_qos(prefetch_count=1)
    busy = expect.Consumer(busy_ch, queue)
    free = expect.Consumer(free_ch, queue,
                           on_message=lambda method, *_: free_ch.basic_ack(method.delivery_tag))
    publish(free_ch, queue, *range(10))
    free.settled(9)
    assert len(busy.messages) == 1


def test_consumers_with_a_higher_x_priority_are_served_first(connection, queue):
    if not expect.capability("consumer_priorities"):
        pytest.skip("the broker does not offer consumer_priorities")
    low_ch, high_ch = connection.channel(), connection.channel()
    for ch in (low_ch, high_ch):
        ch.basic_qos(prefetch_count=3)
    low = expect.Consumer(low_ch, queue)
    high = expect.Consumer(high_ch, queue, arguments={"x-priority": 5})
    publish(low_ch, queue, *range(5))
    high.settled(3)
    low.settled(2)
    assert high.bodies == words(0, 1, 2)


def test_fifty_consumers_of_one_queue(ch, queue):
    consumers = [expect.Consumer(ch, queue) for _ in range(50)]
    assert expect.consumers(ch, queue) == 50
    publish(ch, queue, *range(100))
    for consumer in consumers:
        consumer.wait(2)


def test_no_local_is_ignored(wire, name):
    peer = wire().login()
    peer.open_channel()
    queue = peer.declare(1, name(), exclusive=True).queue
    peer.method(1, spec.Basic.Consume(queue=queue, consumer_tag="c", no_local=True, no_ack=True))
    peer.expect(spec.Basic.ConsumeOk)
    peer.publish(1, "", queue, b"my own")
    peer.expect(spec.Basic.Deliver)
    assert peer.expect_content()[1] == b"my own"


def test_requests_and_replies_over_queues(connection, name):
    """The usual RPC: a server answers to reply_to with the correlation_id."""
    server, client = connection.channel(), connection.channel()
    requests = server.queue_declare(name(), exclusive=True).method.queue
    replies = client.queue_declare("", exclusive=True).method.queue

    def answer(method, properties, body):
        server.basic_publish("", properties.reply_to, body.upper(), spec.BasicProperties(
            correlation_id=properties.correlation_id))
        server.basic_ack(method.delivery_tag)

    expect.Consumer(server, requests, on_message=answer)
    consumer = expect.Consumer(client, replies, auto_ack=True)
    for number in range(5):
        client.basic_publish("", requests, f"call {number}".encode(), spec.BasicProperties(
            reply_to=replies, correlation_id=str(number)))
    consumer.wait(5)
    assert [(properties.correlation_id, body) for _, properties, body in consumer.messages] == [
        (str(number), f"CALL {number}".encode()) for number in range(5)]


def test_direct_reply_to(wire, name):
    if not expect.capability("direct_reply_to"):
        pytest.skip("the broker does not offer direct_reply_to")
    client, server = wire().login(), wire().login()
    for peer in (client, server):
        peer.open_channel()
    requests = server.declare(1, name(), exclusive=True).queue
    client.method(1, spec.Basic.Consume(queue="amq.rabbitmq.reply-to", no_ack=True))
    client.expect(spec.Basic.ConsumeOk)
    client.publish(1, "", requests, b"ask", spec.BasicProperties(reply_to="amq.rabbitmq.reply-to"))
    server.method(1, spec.Basic.Consume(queue=requests, no_ack=True))
    server.expect(spec.Basic.ConsumeOk)
    server.expect(spec.Basic.Deliver)
    reply_to = server.expect_content()[0].reply_to
    assert re.match(r"amq\.rabbitmq\.reply-to\..+", reply_to)
    server.publish(1, "", reply_to, b"answer")
    client.expect(spec.Basic.Deliver)
    assert client.expect_content()[1] == b"answer"
