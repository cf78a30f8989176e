#!/usr/bin/env python3
"""A broker that had nothing to do for a while: its first client finds it as any other does."""

import time
import unittest

from amqp_wire import Amqp
from kit import WeirServer, main

HANDSHAKE_S = 10  # what a client may take until its connection is open
TTL_S = 3


class Idle(unittest.TestCase):
    """One shard each, so that the first client comes to one that slept."""

    def setUp(self):
        self.server = WeirServer(args=("--shards", 1)).start()
        self.addCleanup(self.server.clean)
        self.addCleanup(self.server.stop)

    def login(self):
        return Amqp.login(self.server.addr("amqp"), channel=1)


class FirstConnection(Idle):
    def test_after_a_long_silence_the_first_connection_is_taken(self):
        time.sleep(HANDSHAKE_S + 1)
        with self.login() as client:
            client.queue_declare(1, "q")


class FirstMessage(Idle):
    def test_a_message_lives_as_long_as_it_may_from_its_arrival(self):
        with self.login() as client:
            client.queue_declare(1, "q", arguments={"x-message-ttl": TTL_S * 1000})
            time.sleep(TTL_S + 1)
            client.publish(1, "", "q", b"m")
            time.sleep(0.1)  # what has expired is gone by then
            self.assertEqual(client.get(1, "q"), (1, b"m"))


if __name__ == "__main__":
    main()
