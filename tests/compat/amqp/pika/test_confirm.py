"""Publisher confirms: every publish is answered once, after its return if there is one."""

import pytest
from pika import frame, spec
from pika.exceptions import ChannelClosedByBroker, NackError, UnroutableError

import expect


@pytest.fixture
def peer(wire):
    """A wire connection with channel 1 in confirm mode."""
    peer = wire().login()
    peer.open_channel()
    peer.method(1, spec.Confirm.Select())
    peer.expect(spec.Confirm.SelectOk)
    return peer


def confirmed(peer, last):
    """Reads acks and nacks until tag `last` is answered and all before it; {tag: "ack" | "nack"}."""
    answers = {}
    floor = 0
    while len(answers) < last:
        method = peer.expect((spec.Basic.Ack, spec.Basic.Nack))
        word = "ack" if isinstance(method, spec.Basic.Ack) else "nack"
        if method.multiple:
            tags = [tag for tag in range(floor + 1, method.delivery_tag + 1) if tag not in answers]
            floor = method.delivery_tag
        else:
            tags = [method.delivery_tag]
        for tag in tags:
            assert tag not in answers, f"tag {tag} answered twice"
            assert 1 <= tag <= last
            answers[tag] = word
    return answers


def test_tags_start_at_one_and_count_publishes(peer, name):
    queue = peer.declare(1, name(), exclusive=True).queue
    for tag in (1, 2, 3):
        peer.publish(1, "", queue, b"m")
        ack = peer.expect(spec.Basic.Ack)
        assert ack.delivery_tag == tag


def test_publishes_before_select_are_not_counted(wire, name):
    peer = wire().login()
    peer.open_channel()
    queue = peer.declare(1, name(), exclusive=True).queue
    peer.publish(1, "", queue, b"unconfirmed")
    peer.method(1, spec.Confirm.Select())
    peer.expect(spec.Confirm.SelectOk)
    peer.publish(1, "", queue, b"confirmed")
    assert peer.expect(spec.Basic.Ack).delivery_tag == 1


def test_select_twice_is_fine_and_does_not_start_anew(peer, name):
    queue = peer.declare(1, name(), exclusive=True).queue
    peer.publish(1, "", queue, b"m")
    assert peer.expect(spec.Basic.Ack).delivery_tag == 1
    peer.method(1, spec.Confirm.Select())
    peer.expect(spec.Confirm.SelectOk)
    peer.publish(1, "", queue, b"m")
    assert peer.expect(spec.Basic.Ack).delivery_tag == 2


def test_each_channel_counts_for_itself(peer, name):
    queue = peer.declare(1, name(), exclusive=True).queue
    peer.open_channel(2)
    peer.publish(1, "", queue, b"m")
    peer.expect(spec.Basic.Ack)
    peer.publish(2, "", queue, b"unconfirmed")
    peer.method(2, spec.Confirm.Select())
    peer.expect(spec.Confirm.SelectOk)
    peer.publish(2, "", queue, b"m")
    assert peer.expect(spec.Basic.Ack).delivery_tag == 1


@pytest.mark.parametrize("durable", [False, True], ids=["transient", "durable"])
def test_two_thousand_publishes_are_each_confirmed_once(peer, name, durable):
    queue = peer.declare(1, name(), durable=durable).queue
    properties = spec.BasicProperties(delivery_mode=2 if durable else 1)
    parts = []
    for number in range(2000):
        parts += [frame.Method(1, spec.Basic.Publish(exchange="", routing_key=queue)),
                  frame.Header(1, 4, properties), frame.Body(1, b"%04d" % number)]
    peer.send(*parts)
    answers = confirmed(peer, 2000)
    assert set(answers.values()) == {"ack"}
    assert peer.declare(1, queue, passive=True).message_count == 2000


def test_a_confirmed_message_can_be_got_at_once(peer, name):
    queue = peer.declare(1, name(), exclusive=True).queue
    for number in range(20):
        peer.publish(1, "", queue, b"m")
        peer.expect(spec.Basic.Ack)
        peer.method(1, spec.Basic.Get(queue=queue, no_ack=True))
        peer.expect(spec.Basic.GetOk)
        peer.expect_content()


def test_an_unroutable_message_is_confirmed(peer, name):
    peer.publish(1, "amq.direct", name(), b"dropped")
    assert peer.expect(spec.Basic.Ack).delivery_tag == 1


def test_a_returned_message_is_returned_before_it_is_confirmed(peer, name):
    queue = peer.declare(1, name(), exclusive=True).queue
    peer.publish(1, "", queue, b"routed", mandatory=True)
    assert peer.expect(spec.Basic.Ack).delivery_tag == 1
    missing = name()
    peer.publish(1, "", missing, b"returned", mandatory=True)
    returned = peer.expect(spec.Basic.Return)
    assert (returned.reply_code, returned.reply_text, returned.routing_key) == (
        312, "NO_ROUTE", missing)
    assert peer.expect_content()[1] == b"returned"
    assert peer.expect(spec.Basic.Ack).delivery_tag == 2


def test_a_message_to_several_queues_is_confirmed_once(peer, name):
    x = name("x")
    peer.method(1, spec.Exchange.Declare(exchange=x, type="fanout"))
    peer.expect(spec.Exchange.DeclareOk)
    for durable in (False, True, True):
        queue = peer.declare(1, name(), durable=durable).queue
        peer.method(1, spec.Queue.Bind(queue=queue, exchange=x))
        peer.expect(spec.Queue.BindOk)
    persistent = spec.BasicProperties(delivery_mode=2)
    for _ in range(10):
        peer.publish(1, x, "", b"m", persistent)
    assert set(confirmed(peer, 10).values()) == {"ack"}
    peer.expect_silence(0.2)


def test_a_full_queue_that_rejects_answers_nack(peer, name):
    queue = peer.declare(1, name(), exclusive=True,
                         arguments={"x-max-length": 2, "x-overflow": "reject-publish"}).queue
    for _ in range(4):
        peer.publish(1, "", queue, b"m")
    assert confirmed(peer, 4) == {1: "ack", 2: "ack", 3: "nack", 4: "nack"}
    assert peer.declare(1, queue, passive=True).message_count == 2


def test_a_full_queue_that_drops_answers_ack(peer, name):
    queue = peer.declare(1, name(), exclusive=True, arguments={"x-max-length": 2}).queue
    for _ in range(4):
        peer.publish(1, "", queue, b"m")
    assert set(confirmed(peer, 4).values()) == {"ack"}


def test_a_missing_exchange_closes_the_channel_in_confirm_mode_too(peer, name):
    missing = name("x")
    peer.publish(1, missing, "k", b"m")
    close = peer.expect(spec.Channel.Close)
    assert (close.reply_code, close.reply_text) == (
        404, f"NOT_FOUND - no exchange '{missing}' in vhost '/'")


def test_confirms_and_deliveries_share_a_channel(peer, name):
    queue = peer.declare(1, name(), durable=True).queue
    peer.method(1, spec.Basic.Consume(queue=queue, consumer_tag="c"))
    peer.expect(spec.Basic.ConsumeOk)
    for _ in range(5):
        peer.publish(1, "", queue, b"m", spec.BasicProperties(delivery_mode=2))
    acked, delivered = set(), set()
    while len(acked) < 5 or len(delivered) < 5:
        method = peer.expect((spec.Basic.Ack, spec.Basic.Deliver))
        if isinstance(method, spec.Basic.Deliver):
            peer.expect_content()
            delivered.add(method.delivery_tag)
            peer.method(1, spec.Basic.Ack(method.delivery_tag))
        elif method.multiple:
            acked |= set(range(1, method.delivery_tag + 1))
        else:
            acked.add(method.delivery_tag)
    assert acked == delivered == {1, 2, 3, 4, 5}


# As pika's BlockingChannel shows it ------------------------------------------------------------

def test_pika_waits_for_each_confirm(ch, queue):
    ch.confirm_delivery()
    for number in range(50):
        ch.basic_publish("", queue, str(number).encode(), spec.BasicProperties(delivery_mode=2),
                         mandatory=True)
    assert expect.bodies(ch, queue, 50) == [str(number).encode() for number in range(50)]


def test_pika_raises_for_an_unroutable_mandatory_message(ch, name):
    ch.confirm_delivery()
    with pytest.raises(UnroutableError) as info:
        ch.basic_publish("", name(), b"back", mandatory=True)
    assert info.value.messages[0].method.reply_code == 312
    assert info.value.messages[0].body == b"back"


def test_pika_raises_for_a_nack(ch, name):
    queue = name()
    ch.queue_declare(queue, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    ch.confirm_delivery()
    ch.basic_publish("", queue, b"fits")
    with pytest.raises(NackError):
        ch.basic_publish("", queue, b"does not fit")
    assert expect.all_bodies(ch, queue) == [b"fits"]


def test_pika_raises_for_a_missing_exchange(ch, name):
    ch.confirm_delivery()
    with pytest.raises(ChannelClosedByBroker) as info:
        ch.basic_publish(name("x"), "k", b"m")
    assert info.value.reply_code == 404
