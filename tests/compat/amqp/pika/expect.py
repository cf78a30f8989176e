"""What a test waits for and what it demands of an error.

The texts are those of RabbitMQ 4. Where RabbitMQ 3 said something else, `before_4` holds it, and it is
accepted from a server that calls itself RabbitMQ 3 and from no other.
"""

import contextlib
import time

import pika
import pytest

_server = {"product": "", "version": "", "capabilities": {}}


def server_is(properties):
    _server.update(properties)


def capability(word):
    return bool(_server["capabilities"].get(word))


def before_4():
    return _server["product"] == "RabbitMQ" and _server["version"].startswith("3.")


def _check(error, code, text, old):
    wanted = old if old is not None and before_4() else (code, text)
    code, text = wanted
    assert error.reply_code == code, error
    if isinstance(text, str):
        assert error.reply_text == text
    elif text is not None:  # a compiled pattern
        assert text.fullmatch(error.reply_text), error.reply_text


@contextlib.contextmanager
def channel_error(code, text, before_4=None):
    """The block must end in a channel closed by the broker; before_4: (code, text)."""
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as info:
        yield
    _check(info.value, code, text, before_4)


@contextlib.contextmanager
def connection_error(code, text, before_4=None):
    with pytest.raises(pika.exceptions.ConnectionClosedByBroker) as info:
        yield
    _check(info.value, code, text, before_4)


def until(condition, what="the condition", timeout_s=5.0, pump=None):
    """Waits until condition() is true; pump: a connection whose events are handled meanwhile."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {timeout_s} s")
        if pump is not None:
            pump.process_data_events(time_limit=0.01)
        else:
            time.sleep(0.01)


def get(ch, queue, timeout_s=5.0, auto_ack=True):
    """The next message, (method, properties, body), waited for."""
    deadline = time.monotonic() + timeout_s
    while True:
        message = ch.basic_get(queue, auto_ack=auto_ack)
        if message[0] is not None:
            return message
        assert time.monotonic() < deadline, f"no message in {queue} within {timeout_s} s"
        time.sleep(0.005)


def bodies(ch, queue, count, auto_ack=True, timeout_s=5.0):
    """The bodies of the next `count` messages."""
    return [get(ch, queue, timeout_s, auto_ack)[2] for _ in range(count)]


def all_bodies(ch, queue):
    """The bodies of all that is ready, in order."""
    found = []
    while True:
        method, _, body = ch.basic_get(queue, auto_ack=True)
        if method is None:
            return found
        found.append(body)


def empty(ch, queue):
    """Nothing is ready. Publishes of this same channel have been routed when the answer comes."""
    method, _, body = ch.basic_get(queue, auto_ack=True)
    assert method is None, f"{queue} holds {body!r}"


def holds(ch, queue, count):
    """The queue comes to hold `count` ready messages. (RabbitMQ may answer a passive declare before
    it looks at publishes that came earlier.)"""
    until(lambda: ch.queue_declare(queue, passive=True).method.message_count == count,
          f"{queue} holding {count} messages")


def consumers(ch, queue):
    return ch.queue_declare(queue, passive=True).method.consumer_count


class Consumer:
    """A consumer that keeps what it is given."""

    def __init__(self, ch, queue, auto_ack=False, on_message=None, **options):
        self.ch = ch
        self.messages = []
        self._on_message = on_message
        self.tag = ch.basic_consume(queue, self._take, auto_ack=auto_ack, **options)

    def _take(self, ch, method, properties, body):
        self.messages.append((method, properties, body))
        if self._on_message:
            self._on_message(method, properties, body)

    @property
    def bodies(self):
        return [body for _, _, body in self.messages]

    @property
    def tags(self):
        return [method.delivery_tag for method, _, _ in self.messages]

    def wait(self, count, timeout_s=5.0):
        until(lambda: len(self.messages) >= count, f"delivery of {count} messages", timeout_s,
              self.ch.connection)
        assert len(self.messages) == count, f"{len(self.messages)} messages instead of {count}"
        return self

    def settled(self, count, quiet_s=0.15):
        """Exactly `count` messages come, and no more within quiet_s."""
        self.wait(count)
        self.ch.connection.process_data_events(time_limit=quiet_s)
        assert len(self.messages) == count, f"{len(self.messages)} messages instead of {count}"
        return self
