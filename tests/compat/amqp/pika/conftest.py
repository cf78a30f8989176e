"""Fixtures of the AMQP reference suite: one broker for all of it, a new connection for each test.

By default the broker is build/weir on free ports. WEIR_COMPAT_AMQP=host:port names another server,
which is how these tests are themselves checked against RabbitMQ; then WEIR_COMPAT_RESTART, when set,
is a shell command that restarts it (the word `term` or `kill` is put after it).
"""

import itertools
import os
import pathlib
import shlex
import signal
import socket
import subprocess
import sys
import threading
import uuid

import pika
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "harness"))

from weir_server import WeirServer  # noqa: E402

import expect  # noqa: E402
from wire import WireConnection  # noqa: E402

pytest_plugins = ["pytest_tally"]


class Broker:
    """Where the server is and how to restart it."""

    def __init__(self, host, port, restart):
        self.host = host
        self.port = port
        self._restart = restart

    def parameters(self, **changes):
        values = dict(host=self.host, port=self.port, heartbeat=60, connection_attempts=1,
                      socket_timeout=10, blocked_connection_timeout=30)
        values.update(changes)
        return pika.ConnectionParameters(**values)

    def restart(self, how="term"):
        """Restarts on the same port and returns when it takes connections. `how`: term or kill."""
        if self._restart is None:
            pytest.skip("this server cannot be restarted: WEIR_COMPAT_RESTART is not set")
        self._restart(how)


def own_broker():
    with WeirServer() as server:
        signals = {"term": signal.SIGTERM, "kill": signal.SIGKILL}
        host, port = server.addr("amqp")
        yield Broker(host, port, lambda how: server.restart(signals[how]))


def other_broker(address):
    host, _, port = address.rpartition(":")
    command = os.environ.get("WEIR_COMPAT_RESTART")
    restart = None
    if command:
        def restart(how):
            subprocess.run([*shlex.split(command), how], check=True, timeout=120)
    yield Broker(host, int(port), restart)


@pytest.fixture(scope="session")
def broker():
    address = os.environ.get("WEIR_COMPAT_AMQP")
    for found in other_broker(address) if address else own_broker():
        connection = pika.BlockingConnection(found.parameters())
        expect.server_is(connection._impl.server_properties)
        connection.close()
        yield found


@pytest.fixture
def given_names(broker):
    """Names to delete when the connections of the test are closed."""
    names = []
    yield names
    if names:
        connection = pika.BlockingConnection(broker.parameters())
        for used in names:
            expect.until(lambda: is_deleted(connection, used), f"deletion of {used}")
        connection.close()


def is_deleted(connection, used):
    """False while an exclusive queue still belongs to a connection whose socket has just closed."""
    ch = connection.channel()
    try:
        ch.queue_delete(used)
        ch.exchange_delete(used)
        ch.close()
    except pika.exceptions.ChannelClosedByBroker as error:
        assert error.reply_code == 405, error
        return False
    return True


@pytest.fixture
def connect(broker, given_names):
    """connect(**parameters): a BlockingConnection that the test need not close."""
    opened = []

    def make(**changes):
        connection = pika.BlockingConnection(broker.parameters(**changes))
        opened.append(connection)
        return connection

    yield make
    for connection in opened:
        if connection.is_open:
            close_or_cut(connection)


def close_or_cut(connection, patience_s=5.0):
    """Closes; when the broker does not answer that, the socket is cut and close() raises."""
    cut = threading.Timer(patience_s, connection._impl._transport._sock.shutdown, [socket.SHUT_RDWR])
    cut.start()
    try:
        connection.close()
    finally:
        cut.cancel()


@pytest.fixture
def connection(connect):
    return connect()


@pytest.fixture
def ch(connection):
    return connection.channel()


@pytest.fixture
def wire(broker, given_names):
    """wire(): a socket that speaks frames, for what no well-behaved client does."""
    opened = []

    def make():
        peer = WireConnection(broker.host, broker.port)
        opened.append(peer)
        return peer

    yield make
    for peer in opened:
        peer.close()


@pytest.fixture
def name(given_names):
    """name("word"): a name nobody else uses; queues and exchanges of these names go at the end."""
    numbers = itertools.count(1)
    run = uuid.uuid4().hex[:8]

    def make(word="q"):
        given_names.append(f"{word}-{run}-{next(numbers)}")
        return given_names[-1]

    return make


@pytest.fixture
def queue(ch, name):
    """The name of an empty exclusive queue of this test's connection."""
    made = name("queue")
    ch.queue_declare(made, exclusive=True)
    return made
