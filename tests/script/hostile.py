"""What the tests of bad input share: raw connections, and a class of tests after each of which the
process must be up, its memory within a bound, and a well-behaved client of each protocol (witness.py)
must have been served meanwhile."""

import socket
import time

from kit import SANITIZED, Peak, ServerTest, rss_mib, say
from witness import Witness

# What a test may add to the memory at its worst, and what may be left of that when it is over.
PEAK_MIB, LEFT_MIB = 128, 96  # the cache of messages may take up to memory-limit-mib, 256


def raw(addr, timeout_s=20.0):
    connection = socket.socket()
    connection.settimeout(timeout_s)
    connection.connect(addr)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def offer(connection, data):
    """Sends what the peer is willing to take."""
    try:
        connection.sendall(data)
    except OSError:
        pass


def read_to_end(connection):
    """All that the other side says until it closes."""
    said = b""
    try:
        while piece := connection.recv(65536):
            said += piece
    except ConnectionError:
        pass
    return said


class Hostile(ServerTest):
    """Each test has its witness and its memory watched."""

    listen = [f"{face}=127.0.0.1:0" for face in ("amqp", "kafka", "http")]

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        with Witness(cls.server):  # what is allocated once is allocated
            time.sleep(0.1)

    def setUp(self):
        self.amqp, self.kafka, self.http = map(self.server.addr, ("amqp", "kafka", "http"))
        self.witness = Witness(self.server).__enter__()
        self.peak = Peak(self.server).__enter__()

    def tearDown(self):
        self.peak.__exit__()
        self.witness.__exit__(None, None, None)
        self.assertTrue(self.server.running, "the server is gone\n" + self.server.log_tail())
        self.witness.check()
        before, left = self.peak.before_mib, rss_mib(self.server)
        say(f"memory: {before:.1f} MiB before, {self.peak.mib:.1f} at most, {left:.1f} after")
        if not SANITIZED:
            self.assertLess(self.peak.mib, before + PEAK_MIB)
            self.assertLess(left, before + LEFT_MIB)
