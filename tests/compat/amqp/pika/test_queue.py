"""Queues: declaring, equality, owning, deleting, purging, expiring."""

import re
import time

import pytest
from pika import spec
from pika.compat import long

import expect

LOCKED = ("RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{}' in vhost '/'. It could "
          "be originally declared on another connection or the exclusive property value does not "
          "match that of the original declaration.")


def missing(queue):
    return f"NOT_FOUND - no queue '{queue}' in vhost '/'"


def test_declare_answers_name_and_counts(ch, name):
    queue = name()
    answer = ch.queue_declare(queue, exclusive=True).method
    assert (answer.queue, answer.message_count, answer.consumer_count) == (queue, 0, 0)


def test_declare_counts_ready_messages_and_consumers(ch, queue, connection):
    for _ in range(3):
        ch.basic_publish("", queue, b"m")
    expect.holds(ch, queue, 3)
    expect.Consumer(ch, queue).wait(3)
    answer = ch.queue_declare(queue, passive=True).method
    assert (answer.message_count, answer.consumer_count) == (0, 1)


def test_an_empty_name_is_answered_with_one_of_the_brokers_own(ch):
    first, second = (ch.queue_declare("", exclusive=True).method.queue for _ in range(2))
    assert first.startswith("amq.gen-") and second.startswith("amq.gen-")
    assert first != second
    ch.basic_publish("", first, b"m")
    assert expect.get(ch, first)[2] == b"m"


def test_an_empty_name_later_means_the_queue_declared_last(wire, name):
    peer = wire().login()
    peer.open_channel()
    peer.declare(1, name(), exclusive=True)
    last = peer.declare(1, "", exclusive=True).queue
    peer.method(1, spec.Queue.Bind(queue="", exchange="amq.direct", routing_key=last))
    peer.expect(spec.Queue.BindOk)
    peer.publish(1, "amq.direct", last, b"by binding")
    peer.method(1, spec.Basic.Get(queue="", no_ack=True))
    assert peer.expect(spec.Basic.GetOk).routing_key == last
    assert peer.expect_content()[1] == b"by binding"
    peer.method(1, spec.Queue.Purge(queue=""))
    peer.expect(spec.Queue.PurgeOk)
    peer.method(1, spec.Queue.Delete(queue=""))
    peer.expect(spec.Queue.DeleteOk)


def test_an_empty_key_and_queue_name_bind_by_the_name_of_the_queue_declared_last(wire):
    peer = wire().login()
    peer.open_channel()
    queue = peer.declare(1, "", exclusive=True).queue
    peer.method(1, spec.Queue.Bind(queue="", exchange="amq.direct", routing_key=""))
    peer.expect(spec.Queue.BindOk)
    peer.publish(1, "amq.direct", queue, b"m")
    peer.method(1, spec.Basic.Get(queue="", no_ack=True))
    peer.expect(spec.Basic.GetOk)


@pytest.mark.parametrize("method", [
    spec.Queue.Bind(queue="", exchange="amq.direct", routing_key="k"),
    spec.Queue.Purge(queue=""),
    spec.Queue.Delete(queue=""),
    spec.Basic.Get(queue=""),
    spec.Basic.Consume(queue=""),
], ids=lambda method: method.NAME)
def test_an_empty_name_with_nothing_declared_is_404(wire, method):
    peer = wire().login()
    peer.open_channel()
    peer.method(1, method)
    close = peer.expect(spec.Channel.Close)
    assert (close.reply_code, close.reply_text) == (404, "NOT_FOUND - no previously declared queue")


@pytest.mark.parametrize("act", [
    lambda ch, queue: ch.queue_declare(queue, passive=True),
    lambda ch, queue: ch.queue_purge(queue),
    lambda ch, queue: ch.basic_get(queue),
    lambda ch, queue: ch.basic_consume(queue, print),
    lambda ch, queue: ch.queue_bind(queue, "amq.direct", "k"),
], ids=["passive declare", "purge", "get", "consume", "bind"])
def test_a_missing_queue_is_404(ch, name, act):
    queue = name()
    with expect.channel_error(404, missing(queue)):
        act(ch, queue)


def test_deleting_a_missing_queue_is_fine(ch, name):
    assert ch.queue_delete(name()).method.message_count == 0


def test_declaring_again_is_fine_when_it_is_equal(ch, name):
    queue = name()
    arguments = {"x-message-ttl": 60000, "x-max-length": 10, "x-overflow": "drop-head",
                 "x-dead-letter-exchange": "amq.fanout", "x-dead-letter-routing-key": "dead"}
    for _ in range(2):
        ch.queue_declare(queue, durable=True, arguments=arguments)
    ch.queue_declare(queue, passive=True)
    ch.queue_declare(queue, passive=True, durable=False, arguments={"x-max-length": 1})


INEQUIVALENT = [
    # first declare, second declare, what the text says after the name of the argument
    (dict(durable=False), dict(durable=True), "durable", "received 'true' but current is 'false'"),
    (dict(durable=True), dict(durable=False), "durable", "received 'false' but current is 'true'"),
    (dict(auto_delete=True), {}, "auto_delete", "received 'false' but current is 'true'"),
    ({}, dict(auto_delete=True), "auto_delete", "received 'true' but current is 'false'"),
    ({}, {"x-message-ttl": 10}, "x-message-ttl",
     "received the value '10' of type 'signedint' but current is none"),
    ({"x-message-ttl": 10}, {}, "x-message-ttl",
     "received none but current is the value '10' of type 'signedint'"),
    ({"x-message-ttl": 10}, {"x-message-ttl": 20}, "x-message-ttl",
     "received '20' but current is '10'"),
    ({"x-message-ttl": 10}, {"x-message-ttl": long(20)}, "x-message-ttl",
     "received '20' but current is '10'"),
    ({"x-expires": 90000}, {"x-expires": 80000}, "x-expires",
     "received '80000' but current is '90000'"),
    ({"x-max-length": 5}, {}, "x-max-length",
     "received none but current is the value '5' of type 'signedint'"),
    ({}, {"x-max-length-bytes": 5}, "x-max-length-bytes",
     "received the value '5' of type 'signedint' but current is none"),
    ({"x-dead-letter-exchange": "a"}, {"x-dead-letter-exchange": "b"}, "x-dead-letter-exchange",
     "received 'b' but current is 'a'"),
    ({"x-dead-letter-exchange": "a", "x-dead-letter-routing-key": "k"},
     {"x-dead-letter-exchange": "a"}, "x-dead-letter-routing-key",
     "received none but current is the value 'k' of type 'longstr'"),
    ({"x-overflow": "reject-publish"}, {"x-overflow": "drop-head"}, "x-overflow",
     "received 'drop-head' but current is 'reject-publish'"),
]


def declare_words(words):
    arguments = {key: value for key, value in words.items() if key.startswith("x-")}
    return {"arguments": arguments or None,
            **{key: value for key, value in words.items() if not key.startswith("x-")}}


@pytest.mark.parametrize("first, second, word, text", INEQUIVALENT, ids=str)
def test_an_unequal_declare_is_refused_with_406(ch, name, first, second, word, text):
    queue = name()
    ch.queue_declare(queue, **declare_words(first))
    with expect.channel_error(406, f"PRECONDITION_FAILED - inequivalent arg '{word}' for queue "
                                   f"'{queue}' in vhost '/': {text}"):
        ch.queue_declare(queue, **declare_words(second))


def test_integers_of_different_width_are_equal(ch, name):
    queue = name()
    ch.queue_declare(queue, arguments={"x-message-ttl": 60000})
    ch.queue_declare(queue, arguments={"x-message-ttl": long(60000)})


def test_queue_arguments_that_nobody_knows_are_kept_and_not_compared(ch, name):
    queue = name()
    ch.queue_declare(queue, arguments={"note": "a", "x-note": [1, {"b": 2}]})
    ch.queue_declare(queue, arguments={"note": "b"})


@pytest.mark.parametrize("arguments", [
    {"x-message-ttl": -1}, {"x-message-ttl": "10"}, {"x-expires": 0}, {"x-expires": -1},
    {"x-expires": "10"}, {"x-max-length": -1}, {"x-max-length": "10"}, {"x-max-length-bytes": -1},
    {"x-overflow": "bogus"}, {"x-overflow": 1}, {"x-dead-letter-routing-key": "k"},
    {"x-dead-letter-exchange": 5}, {"x-queue-type": "no-such-type"},
], ids=str)
def test_bad_queue_arguments_are_refused_with_406(ch, name, arguments):
    queue, word = name(), next(iter(arguments))
    with expect.channel_error(406, re.compile(
            rf"PRECONDITION_FAILED - invalid (arg|type '\w+' for arg) '{word}' (for|in) queue "
            rf"'{queue}' in vhost '/'.*")):
        ch.queue_declare(queue, arguments=arguments)


def test_the_reserved_prefix_is_refused_with_403(ch):
    with expect.channel_error(403, "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix "
                                   "'amq.*'"):
        ch.queue_declare("amq.mine")


def test_a_passive_declare_of_a_queue_the_broker_named_is_fine(ch):
    queue = ch.queue_declare("", exclusive=True).method.queue
    assert ch.queue_declare(queue, passive=True).method.queue == queue


def test_names_of_255_bytes_and_of_any_script(ch, name):
    for word in (name("q") + "-" * 200, name("주문 대기열"), name("a/b?c#d*e.f'g\"h")):
        word = (word.encode()[:255]).decode(errors="ignore")
        assert ch.queue_declare(word, exclusive=True).method.queue == word
        ch.basic_publish("", word, b"m")
        assert expect.get(ch, word)[2] == b"m"


def test_line_ends_are_taken_out_of_names(wire, name):
    peer, queue = wire().login(), name()
    peer.open_channel()
    assert peer.declare(1, queue + "\r\n", exclusive=True).queue == queue


# Exclusive ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("act", [
    lambda ch, queue: ch.queue_declare(queue, exclusive=True),
    lambda ch, queue: ch.queue_declare(queue),
    lambda ch, queue: ch.queue_declare(queue, passive=True),
    lambda ch, queue: ch.queue_delete(queue),
    lambda ch, queue: ch.queue_purge(queue),
    lambda ch, queue: ch.queue_bind(queue, "amq.direct", "k"),
    lambda ch, queue: ch.basic_get(queue),
    lambda ch, queue: ch.basic_consume(queue, print),
], ids=["declare exclusive", "declare", "passive declare", "delete", "purge", "bind", "get", "consume"])
def test_an_exclusive_queue_is_locked_for_other_connections(queue, connect, act):
    with expect.channel_error(405, LOCKED.format(queue)):
        act(connect().channel(), queue)


def test_an_exclusive_queue_takes_publishes_of_other_connections(ch, queue, connect):
    connect().channel().basic_publish("", queue, b"from outside")
    assert expect.get(ch, queue)[2] == b"from outside"


def test_an_exclusive_queue_serves_other_channels_of_its_connection(ch, queue, connection):
    other = connection.channel()
    other.queue_declare(queue, exclusive=True)
    other.basic_publish("", queue, b"m")
    assert expect.get(other, queue)[2] == b"m"


def test_an_exclusive_queue_is_gone_when_close_ok_comes(connect, name):
    owner, queue = connect(), name()
    owner.channel().queue_declare(queue, exclusive=True)
    owner.close()
    with expect.channel_error(404, missing(queue)):
        connect().channel().queue_declare(queue, passive=True)


def test_an_exclusive_queue_goes_when_the_connection_is_lost(wire, name, connect):
    peer, queue = wire().login(), name()
    peer.open_channel()
    peer.declare(1, queue, exclusive=True)
    peer.close()
    connection = connect()

    def gone():
        ch = connection.channel()
        try:
            ch.queue_declare(queue, passive=True)
        except Exception as error:
            return error.reply_code == 404
        return False

    expect.until(gone, "deletion of the queue")


def test_a_plain_queue_is_not_equal_to_an_exclusive_one(ch, name):
    queue = name()
    ch.queue_declare(queue)
    with expect.channel_error(405, LOCKED.format(queue)):
        ch.queue_declare(queue, exclusive=True)


# Auto-delete -------------------------------------------------------------------------------------

def test_an_auto_delete_queue_goes_with_its_last_consumer(ch, name):
    queue = name()
    ch.queue_declare(queue, auto_delete=True)
    first, second = expect.Consumer(ch, queue), expect.Consumer(ch, queue)
    ch.basic_cancel(first.tag)
    ch.queue_declare(queue, passive=True)
    ch.basic_cancel(second.tag)
    with expect.channel_error(404, missing(queue)):
        ch.queue_declare(queue, passive=True)


def test_an_auto_delete_queue_goes_with_the_channel_of_its_last_consumer(connection, name):
    queue = name()
    ch, other = connection.channel(), connection.channel()
    ch.queue_declare(queue, auto_delete=True)
    expect.Consumer(ch, queue)
    ch.close()
    with expect.channel_error(404, missing(queue)):
        other.queue_declare(queue, passive=True)


def test_an_auto_delete_queue_stays_until_it_had_a_consumer(connect, name):
    queue = name()
    connection = connect()
    ch = connection.channel()
    ch.queue_declare(queue, auto_delete=True)
    ch.basic_publish("", queue, b"m")
    expect.get(ch, queue)  # a get is no consumer
    connection.close()
    connect().channel().queue_declare(queue, passive=True)


# Delete and purge --------------------------------------------------------------------------------

def test_delete_answers_how_many_messages_went(ch, queue):
    for _ in range(3):
        ch.basic_publish("", queue, b"m")
    expect.holds(ch, queue, 3)
    assert ch.queue_delete(queue).method.message_count == 3


def test_delete_if_empty_refuses_a_queue_with_messages(ch, queue, connection):
    ch.basic_publish("", queue, b"m")
    expect.holds(ch, queue, 1)
    with expect.channel_error(406, f"PRECONDITION_FAILED - queue '{queue}' in vhost '/' not empty"):
        ch.queue_delete(queue, if_empty=True)
    ch = connection.channel()
    ch.queue_purge(queue)
    ch.queue_delete(queue, if_empty=True)


def test_delete_if_unused_refuses_a_queue_with_consumers(ch, queue, connection):
    consumer = expect.Consumer(connection.channel(), queue)
    with expect.channel_error(406, f"PRECONDITION_FAILED - queue '{queue}' in vhost '/' in use"):
        ch.queue_delete(queue, if_unused=True)
    consumer.ch.basic_cancel(consumer.tag)
    connection.channel().queue_delete(queue, if_unused=True)


def test_a_deleted_queue_leaves_nothing_behind(ch, name):
    queue = name()
    ch.queue_declare(queue, durable=True)
    ch.queue_bind(queue, "amq.direct", queue)
    ch.basic_publish("", queue, b"old")
    ch.queue_delete(queue)
    ch.queue_declare(queue)
    ch.basic_publish("amq.direct", queue, b"by the old binding")
    expect.empty(ch, queue)


def test_purge_takes_what_is_ready_and_leaves_what_is_unacked(ch, queue):
    for number in range(5):
        ch.basic_publish("", queue, str(number).encode())
    expect.holds(ch, queue, 5)
    first = expect.get(ch, queue, auto_ack=False)
    assert ch.queue_purge(queue).method.message_count == 4
    expect.empty(ch, queue)
    ch.basic_nack(first[0].delivery_tag)
    assert expect.bodies(ch, queue, 1) == [b"0"]
    assert ch.queue_purge(queue).method.message_count == 0


def test_unbind_stops_the_flow(ch, queue):
    ch.queue_bind(queue, "amq.direct", queue)
    ch.basic_publish("amq.direct", queue, b"bound")
    ch.queue_unbind(queue, "amq.direct", queue)
    ch.basic_publish("amq.direct", queue, b"unbound")
    assert expect.bodies(ch, queue, 1) == [b"bound"]
    expect.empty(ch, queue)


# x-expires ---------------------------------------------------------------------------------------

def is_there(connection, queue):
    ch = connection.channel()
    try:
        ch.queue_declare(queue, passive=True)
    except Exception as error:
        assert error.reply_code == 404
        return False
    ch.close()
    return True


def test_a_queue_with_x_expires_goes_when_nobody_uses_it(connection, name):
    queue = name()
    ch = connection.channel()
    ch.queue_declare(queue, arguments={"x-expires": 500})
    ch.basic_publish("", queue, b"m")
    time.sleep(0.1)
    assert ch.basic_get(queue)[0] is not None
    time.sleep(0.9)
    assert not is_there(connection, queue)


def test_use_keeps_a_queue_with_x_expires(connection, name):
    got_from, declared = name(), name()
    ch = connection.channel()
    for queue in (got_from, declared):
        ch.queue_declare(queue, arguments={"x-expires": 900})
    began = time.monotonic()
    while time.monotonic() - began < 1.6:
        ch.basic_get(got_from)
        ch.queue_declare(declared, arguments={"x-expires": 900})
        time.sleep(0.1)
    assert is_there(connection, got_from) and is_there(connection, declared)


def test_a_consumer_keeps_a_queue_with_x_expires_and_its_end_starts_the_clock(connection, name):
    queue = name()
    ch = connection.channel()
    ch.queue_declare(queue, arguments={"x-expires": 500})
    consumer = expect.Consumer(ch, queue)
    connection.process_data_events(time_limit=0.8)
    assert is_there(connection, queue)
    ch.basic_cancel(consumer.tag)
    assert is_there(connection, queue)
    time.sleep(0.9)
    assert not is_there(connection, queue)


# Nowait ------------------------------------------------------------------------------------------

def test_nowait_methods_do_what_they_say_without_an_answer(wire, name):
    peer = wire().login()
    peer.open_channel()
    queue, x, y = name(), name("x"), name("y")
    for method in (
            spec.Exchange.Declare(exchange=x, type="direct", nowait=True),
            spec.Exchange.Declare(exchange=y, type="fanout", nowait=True),
            spec.Exchange.Bind(destination=y, source=x, routing_key="k", nowait=True),
            spec.Queue.Declare(queue=queue, exclusive=True, nowait=True),
            spec.Queue.Bind(queue=queue, exchange=y, routing_key="", nowait=True),
            spec.Confirm.Select(nowait=True)):
        peer.method(1, method)
    peer.publish(1, x, "k", b"m")
    assert peer.expect(spec.Basic.Ack).delivery_tag == 1
    peer.method(1, spec.Queue.Purge(queue=queue, nowait=True))
    assert peer.declare(1, queue, passive=True).message_count == 0
    peer.publish(1, x, "k", b"n")
    assert peer.expect(spec.Basic.Ack).delivery_tag == 2
    peer.method(1, spec.Basic.Consume(queue=queue, consumer_tag="c", no_ack=True, nowait=True))
    assert peer.expect(spec.Basic.Deliver).consumer_tag == "c"
    assert peer.expect_content()[1] == b"n"
    peer.method(1, spec.Basic.Cancel(consumer_tag="c", nowait=True))
    assert peer.declare(1, queue, passive=True).consumer_count == 0
    peer.method(1, spec.Exchange.Unbind(destination=y, source=x, routing_key="k", nowait=True))
    peer.method(1, spec.Queue.Delete(queue=queue, nowait=True))
    peer.method(1, spec.Exchange.Delete(exchange=x, nowait=True))
    peer.method(1, spec.Queue.Declare(queue=queue, passive=True))
    assert peer.expect(spec.Channel.Close).reply_code == 404


def test_an_error_of_a_nowait_method_closes_the_channel_all_the_same(wire, name):
    peer = wire().login()
    peer.open_channel()
    peer.method(1, spec.Queue.Bind(queue=name(), exchange="amq.direct", routing_key="", nowait=True))
    assert peer.expect(spec.Channel.Close).reply_code == 404
