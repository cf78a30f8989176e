"""Transactions: publishes and acks that wait for the commit."""

import pytest
from pika import spec

import expect


def words(*values):
    return [str(value).encode() for value in values]


@pytest.fixture
def other(connection):
    """A second channel, which is not transactional."""
    return connection.channel()


def test_publishes_are_seen_after_the_commit_only(ch, other, queue):
    ch.tx_select()
    for number in range(3):
        ch.basic_publish("", queue, str(number).encode())
    ch.basic_qos(prefetch_count=0)
    expect.empty(other, queue)
    ch.tx_commit()
    assert expect.bodies(other, queue, 3) == words(0, 1, 2)


def test_a_rollback_drops_publishes(ch, other, queue):
    ch.tx_select()
    ch.basic_publish("", queue, b"dropped")
    ch.tx_rollback()
    ch.basic_publish("", queue, b"kept")
    ch.tx_commit()
    assert expect.bodies(other, queue, 1) == [b"kept"]
    expect.empty(other, queue)


def test_closing_the_channel_is_a_rollback(ch, other, queue):
    ch.tx_select()
    ch.basic_publish("", queue, b"dropped")
    ch.close()
    expect.empty(other, queue)


def test_acks_count_after_the_commit_only(connection, other, queue):
    for number in range(4):
        other.basic_publish("", queue, str(number).encode())
    ch = connection.channel()
    ch.tx_select()
    tags = [expect.get(ch, queue, auto_ack=False)[0].delivery_tag for _ in range(4)]
    ch.basic_ack(tags[0])
    ch.tx_commit()
    ch.basic_ack(tags[1])
    ch.close()
    assert expect.bodies(other, queue, 3) == words(1, 2, 3)


def test_after_a_rollback_messages_can_be_acked_again(connection, other, queue):
    other.basic_publish("", queue, b"m")
    ch = connection.channel()
    ch.tx_select()
    tag = expect.get(ch, queue, auto_ack=False)[0].delivery_tag
    ch.basic_ack(tag)
    ch.tx_rollback()
    ch.basic_ack(tag)
    ch.tx_commit()
    ch.close()
    expect.empty(other, queue)


def test_a_nack_with_requeue_takes_effect_at_the_commit(connection, other, queue):
    other.basic_publish("", queue, b"m")
    ch = connection.channel()
    ch.tx_select()
    tag = expect.get(ch, queue, auto_ack=False)[0].delivery_tag
    ch.basic_nack(tag, requeue=True)
    expect.empty(other, queue)
    ch.tx_commit()
    assert expect.get(other, queue)[0].redelivered


def test_returns_come_at_the_commit(wire, name):
    peer = wire().login()
    peer.open_channel()
    peer.method(1, spec.Tx.Select())
    peer.expect(spec.Tx.SelectOk)
    peer.publish(1, "", name(), b"back", mandatory=True)
    peer.method(1, spec.Tx.Commit())
    assert peer.expect(spec.Basic.Return).reply_code == 312
    peer.expect_content()
    peer.expect(spec.Tx.CommitOk)


def test_commit_outside_a_transaction_is_406(ch):
    with expect.channel_error(406, "PRECONDITION_FAILED - channel is not transactional"):
        ch.tx_commit()


def test_rollback_outside_a_transaction_is_406(ch):
    with expect.channel_error(406, "PRECONDITION_FAILED - channel is not transactional"):
        ch.tx_rollback()


def test_transactions_and_confirms_exclude_each_other(connection):
    ch = connection.channel()
    ch.tx_select()
    with expect.channel_error(406, "PRECONDITION_FAILED - cannot switch from tx to confirm mode"):
        ch.confirm_delivery()
    ch = connection.channel()
    ch.confirm_delivery()
    with expect.channel_error(406, "PRECONDITION_FAILED - cannot switch from confirm to tx mode"):
        ch.tx_select()
