"""Dead letters: when, where to, and what x-death says."""

import datetime
import time

import pytest
from pika import spec
from pika.exceptions import NackError

import expect


@pytest.fixture
def dlx(ch, name):
    """(exchange, queue): a fanout exchange for the dead and the queue that takes them."""
    x, queue = name("dlx"), name("dead")
    ch.exchange_declare(x, "fanout")
    ch.queue_declare(queue)
    ch.queue_bind(queue, x)
    return x, queue


@pytest.fixture
def source(ch, name, dlx):
    """source(arguments): a queue that sends its dead to dlx."""
    def make(**arguments):
        queue = name("source")
        ch.queue_declare(queue, arguments={
            "x-dead-letter-exchange": dlx[0],
            **{word.replace("_", "-"): value for word, value in arguments.items()}})
        return queue
    return make


def reject(ch, queue, count=1):
    for _ in range(count):
        ch.basic_reject(expect.get(ch, queue, auto_ack=False)[0].delivery_tag, requeue=False)


def check_first_and_last(headers, reason, queue, exchange):
    """x-first-death-*, and x-last-death-*, which came with RabbitMQ 3.13."""
    words = {"reason": reason, "queue": queue, "exchange": exchange}
    for when in ("first",) if expect.before_4() else ("first", "last"):
        for word, value in words.items():
            assert headers[f"x-{when}-death-{word}"] == value


def test_a_rejected_message_is_dead_lettered_with_x_death(ch, dlx, source):
    queue = source()
    ch.queue_bind(queue, "amq.direct", queue + ".key")
    before = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=2)
    ch.basic_publish("amq.direct", queue + ".key", b"body", spec.BasicProperties(
        headers={"mine": [1, 2]}, message_id="m1", delivery_mode=2, content_type="text/plain"))
    reject(ch, queue)
    method, properties, body = expect.get(ch, dlx[1])
    assert body == b"body"
    assert (method.exchange, method.routing_key) == (dlx[0], queue + ".key")
    assert method.redelivered is False
    assert (properties.message_id, properties.delivery_mode, properties.content_type) == (
        "m1", 2, "text/plain")
    headers = properties.headers
    assert headers["mine"] == [1, 2]
    (death,) = headers["x-death"]
    assert death.pop("time") >= before
    assert death == {"count": 1, "reason": "rejected", "queue": queue, "exchange": "amq.direct",
                     "routing-keys": [queue + ".key"]}
    check_first_and_last(headers, "rejected", queue, "amq.direct")


def test_nack_without_requeue_dead_letters_all_it_names(ch, dlx, source):
    queue = source()
    for number in range(5):
        ch.basic_publish("", queue, str(number).encode())
    tags = [expect.get(ch, queue, auto_ack=False)[0].delivery_tag for _ in range(5)]
    ch.basic_nack(tags[2], multiple=True, requeue=False)
    assert expect.bodies(ch, dlx[1], 3) == [b"0", b"1", b"2"]
    ch.basic_nack(0, multiple=True, requeue=True)
    assert expect.bodies(ch, queue, 2) == [b"3", b"4"]
    expect.empty(ch, dlx[1])


def test_an_acked_or_requeued_message_is_not_dead_lettered(ch, dlx, source):
    queue = source()
    for _ in range(2):
        ch.basic_publish("", queue, b"m")
    ch.basic_ack(expect.get(ch, queue, auto_ack=False)[0].delivery_tag)
    ch.basic_nack(expect.get(ch, queue, auto_ack=False)[0].delivery_tag, requeue=True)
    expect.get(ch, queue)
    expect.empty(ch, dlx[1])


def test_an_expired_message_is_dead_lettered_by_queue_ttl(ch, dlx, source):
    queue = source(x_message_ttl=100)
    ch.basic_publish("", queue, b"m")
    _, properties, body = expect.get(ch, dlx[1])
    assert body == b"m"
    (death,) = properties.headers["x-death"]
    assert (death["reason"], death["queue"], death["count"]) == ("expired", queue, 1)
    assert (death["exchange"], death["routing-keys"]) == ("", [queue])
    assert "original-expiration" not in death
    check_first_and_last(properties.headers, "expired", queue, "")


def test_a_dead_letter_loses_its_expiration_and_remembers_it(ch, dlx, source):
    queue = source()
    ch.basic_publish("", queue, b"m", spec.BasicProperties(expiration="80"))
    _, properties, _ = expect.get(ch, dlx[1])
    assert properties.expiration is None
    assert properties.headers["x-death"][0]["original-expiration"] == "80"
    assert properties.headers["x-death"][0]["reason"] == "expired"


def test_a_rejected_message_with_expiration_does_not_expire_in_the_dead_letter_queue(ch, dlx, source):
    queue = source()
    ch.basic_publish("", queue, b"m", spec.BasicProperties(expiration="600"))
    reject(ch, queue)
    time.sleep(0.8)
    assert expect.get(ch, dlx[1])[1].headers["x-death"][0]["original-expiration"] == "600"


def test_messages_dropped_by_a_length_limit_are_dead_lettered(ch, dlx, source):
    queue = source(x_max_length=2)
    for number in range(5):
        ch.basic_publish("", queue, str(number).encode())
    got = [expect.get(ch, dlx[1]) for _ in range(3)]
    assert [body for _, _, body in got] == [b"0", b"1", b"2"]
    for _, properties, _ in got:
        assert properties.headers["x-death"][0]["reason"] == "maxlen"
        check_first_and_last(properties.headers, "maxlen", queue, "")
    assert expect.all_bodies(ch, queue) == [b"3", b"4"]


def test_reject_publish_does_not_dead_letter(ch, dlx, source):
    queue = source(x_max_length=1, x_overflow="reject-publish")
    for number in range(3):
        ch.basic_publish("", queue, str(number).encode())
    assert expect.bodies(ch, queue, 1) == [b"0"]
    expect.empty(ch, dlx[1])


def test_reject_publish_dlx_dead_letters_what_it_refuses(ch, dlx, source):
    queue = source(x_max_length=1, x_overflow="reject-publish-dlx")
    ch.confirm_delivery()
    ch.basic_publish("", queue, b"fits")
    with pytest.raises(NackError):
        ch.basic_publish("", queue, b"refused")
    _, properties, body = expect.get(ch, dlx[1])
    assert body == b"refused"
    assert properties.headers["x-death"][0]["reason"] == "maxlen"
    assert expect.bodies(ch, queue, 1) == [b"fits"]


def test_dead_letter_routing_key_replaces_the_key(ch, dlx, source):
    queue = source(x_dead_letter_routing_key="other.key")
    ch.basic_publish("", queue, b"m")
    reject(ch, queue)
    method, properties, _ = expect.get(ch, dlx[1])
    assert method.routing_key == "other.key"
    assert properties.headers["x-death"][0]["routing-keys"] == [queue]


def test_the_default_exchange_may_take_the_dead(ch, name, queue):
    source = name()
    ch.queue_declare(source, arguments={"x-dead-letter-exchange": "",
                                        "x-dead-letter-routing-key": queue})
    ch.basic_publish("", source, b"m")
    reject(ch, source)
    method, _, body = expect.get(ch, queue)
    assert (method.exchange, method.routing_key, body) == ("", queue, b"m")


def test_without_a_dead_letter_exchange_the_dead_are_gone(ch, name, queue):
    missing = name()
    ch.queue_declare(missing, arguments={"x-dead-letter-exchange": name("no-such-exchange")})
    for source in (queue, missing):
        ch.basic_publish("", source, b"m")
        reject(ch, source)
        expect.empty(ch, source)


def test_purge_and_delete_do_not_dead_letter(ch, dlx, source):
    queue = source()
    for _ in range(2):
        ch.basic_publish("", queue, b"m")
    expect.holds(ch, queue, 2)
    ch.queue_purge(queue)
    ch.basic_publish("", queue, b"m")
    expect.holds(ch, queue, 1)
    ch.queue_delete(queue)
    expect.empty(ch, dlx[1])


def test_a_queue_that_expires_does_not_dead_letter(ch, dlx, source):
    queue = source(x_expires=150)
    ch.basic_publish("", queue, b"m")
    time.sleep(0.5)
    expect.empty(ch, dlx[1])


def test_a_retry_loop_counts_its_deaths(ch, name):
    """work -rejected-> wait -expired-> work: two entries, the latest first, each with its count."""
    work, wait = name("work"), name("wait")
    ch.queue_declare(work, arguments={"x-dead-letter-exchange": "",
                                      "x-dead-letter-routing-key": wait})
    ch.queue_declare(wait, arguments={"x-dead-letter-exchange": "", "x-message-ttl": 30,
                                      "x-dead-letter-routing-key": work})
    ch.basic_publish("", work, b"m", spec.BasicProperties(headers={"mine": 1}))
    for turn in range(4):
        method, properties, body = expect.get(ch, work, auto_ack=False)
        assert body == b"m"
        deaths = [(death["queue"], death["reason"], death["count"])
                  for death in (properties.headers.get("x-death") or [])]
        if turn == 0:
            assert deaths == []
        else:
            assert deaths == [(wait, "expired", turn), (work, "rejected", turn)]
            assert properties.headers["x-first-death-queue"] == work
            assert properties.headers["x-first-death-reason"] == "rejected"
            if not expect.before_4():
                assert properties.headers["x-last-death-queue"] == wait
                assert properties.headers["x-last-death-reason"] == "expired"
        assert properties.headers["mine"] == 1
        ch.basic_reject(method.delivery_tag, requeue=False)


def test_a_loop_without_a_rejection_ends(ch, name, connection):
    """A message that expires from a queue into that same queue is dropped the second time."""
    queue = name()
    ch.queue_declare(queue, arguments={"x-dead-letter-exchange": "", "x-message-ttl": 50,
                                       "x-dead-letter-routing-key": queue})
    ch.basic_publish("", queue, b"m")
    time.sleep(0.6)
    expect.holds(ch, queue, 0)
    expect.empty(ch, queue)


def test_a_message_can_die_in_several_queues_one_after_the_other(ch, name, queue):
    second, first = name("second"), name("first")
    ch.queue_declare(second, arguments={"x-dead-letter-exchange": "", "x-max-length": 0,
                                        "x-dead-letter-routing-key": queue})
    ch.queue_declare(first, arguments={"x-dead-letter-exchange": "", "x-message-ttl": 30,
                                       "x-dead-letter-routing-key": second})
    ch.basic_publish("", first, b"m")
    _, properties, body = expect.get(ch, queue)
    assert body == b"m"
    assert [(death["queue"], death["reason"]) for death in properties.headers["x-death"]] == [
        (second, "maxlen"), (first, "expired")]
    assert properties.headers["x-first-death-queue"] == first


def test_a_dead_letter_reaches_every_queue_of_its_exchange(ch, name, dlx, source):
    other = name("dead")
    ch.queue_declare(other)
    ch.queue_bind(other, dlx[0])
    queue = source()
    for number in range(10):
        ch.basic_publish("", queue, str(number).encode())
    reject(ch, queue, 10)
    wanted = [str(number).encode() for number in range(10)]
    assert expect.bodies(ch, dlx[1], 10) == wanted
    assert expect.bodies(ch, other, 10) == wanted


def test_dead_letters_of_a_consumer_that_rejects_what_it_is_given(ch, dlx, source):
    queue = source()
    expect.Consumer(ch, queue, on_message=lambda method, properties, body: ch.basic_reject(
        method.delivery_tag, requeue=False) if int(body) % 2 else ch.basic_ack(method.delivery_tag))
    for number in range(100):
        ch.basic_publish("", queue, str(number).encode())
    expect.until(lambda: ch.queue_declare(dlx[1], passive=True).method.message_count == 50,
                 "50 dead letters", pump=ch.connection)
    assert expect.all_bodies(ch, dlx[1]) == [str(number).encode() for number in range(1, 100, 2)]


def test_cc_is_in_the_routing_keys_of_x_death_and_bcc_is_not(ch, dlx, source):
    queue = source()
    ch.basic_publish("", queue, b"m", spec.BasicProperties(
        headers={"CC": ["copy"], "BCC": ["blind"]}))
    reject(ch, queue)
    _, properties, _ = expect.get(ch, dlx[1])
    assert properties.headers["x-death"][0]["routing-keys"] == [queue, "copy"]
    assert "BCC" not in properties.headers
