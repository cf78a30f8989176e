"""Order and completeness under churn: producers with confirms, consumers that ack in bunches, give
messages back, close their channels and drop their sockets in the middle of work.

    python3 tests/harness/with_weir.py -- python3 tests/harness/pinned_venv.py run \
        tests/compat/amqp/pika tests/compat/amqp/order_stress.py [--seconds N] [--seed N]

Held for every queue, at the end:
  - every confirmed message was settled, and nothing was delivered that nobody sent;
  - no message was delivered again after its ack was answered for (a channel.close-ok after it);
  - within one consumer, messages of one producer that come for the first time come in order;
  - a message that comes again says so, and one that comes for the first time does not.
"""

import argparse
import collections
import os
import random
import sys
import threading
import time

import pika
from pika import spec
from pika.exceptions import AMQPError

PRODUCERS, CONSUMERS_PER_QUEUE = 3, 3


def connect():
    host, _, port = os.environ["WEIR_COMPAT_AMQP"].rpartition(":")
    return pika.BlockingConnection(pika.ConnectionParameters(host, int(port), heartbeat=0))


class Stress:
    def __init__(self, seconds, seed):
        self.seed = seed
        self.end = time.monotonic() + seconds
        self.queues = {f"stress-{os.getpid()}-{number}": durable
                       for number, durable in enumerate((False, True))}
        self.lock = threading.Lock()
        self.sent = {queue: set() for queue in self.queues}
        self.settled = {queue: set() for queue in self.queues}
        self.deliveries = {queue: collections.Counter() for queue in self.queues}
        self.faults = []
        self.producing = True

    def fault(self, text):
        with self.lock:
            self.faults.append(text)

    def guarded(self, act, *words):
        """A thread that ends by an exception is a fault too."""
        try:
            act(*words)
        except Exception as error:
            self.fault(f"{act.__name__}{words}: {error!r}")

    # A producer sends to all queues in turn and notes what was confirmed.
    def produce(self, producer):
        rng = random.Random(self.seed * 1000 + producer)
        ch = connect().channel()
        ch.confirm_delivery()
        number = 0
        while time.monotonic() < self.end:
            for queue, durable in self.queues.items():
                body = b"%d:%d" % (producer, number)
                properties = spec.BasicProperties(delivery_mode=2 if durable else 1)
                ch.basic_publish("", queue, body + b" " * rng.choice((0, 20, 3000)), properties)
                self.sent[queue].add(body)  # confirmed; only this thread adds its own
            number += 1
        ch.connection.close()

    # One life of a channel: takes messages, settles some ways, and ends in one of three ways.
    def consume_once(self, connection, queue, rng):
        ch = connection.channel()
        ch.basic_qos(prefetch_count=rng.choice((1, 5, 50)))
        held, acked, newest = {}, set(), {}
        left = rng.randrange(20, 400)
        for method, _, body in ch.consume(queue, inactivity_timeout=0.3):
            if method is None:
                break
            body = body.strip()
            producer, number = map(int, body.split(b":"))
            with self.lock:
                again = self.deliveries[queue][body] > 0
                self.deliveries[queue][body] += 1
                if body in self.settled[queue]:
                    self.faults.append(f"{queue}: {body} came after its ack")
            if again and not method.redelivered:
                self.fault(f"{queue}: {body} came again and did not say so")
            if not method.redelivered:
                if number <= newest.get(producer, -1):
                    self.fault(f"{queue}: {body} came after {newest[producer]}")
                newest[producer] = number
            held[method.delivery_tag] = body
            roll = rng.random()
            if roll < 0.1:
                ch.basic_nack(method.delivery_tag, requeue=True)
                del held[method.delivery_tag]
            elif roll < 0.5:
                ch.basic_ack(method.delivery_tag)
                acked.add(held.pop(method.delivery_tag))
            elif roll < 0.6 or len(held) >= 4:
                ch.basic_ack(method.delivery_tag, multiple=True)
                acked.update(held.values())
                held.clear()
            left -= 1
            if left == 0:
                break
        if rng.random() < 0.1:
            connection._impl._transport._sock.close()  # a lost connection: acks may not have arrived
            return False
        ch.close()  # its answer says that the acks were read
        with self.lock:
            self.settled[queue] |= acked
        return True

    def consume(self, queue, index):
        rng = random.Random(self.seed * 7919 + index)
        connection = connect()
        while self.producing or not self.is_done(queue):
            try:
                if not self.consume_once(connection, queue, rng):
                    connection = connect()
            except (AMQPError, OSError, ValueError) as error:
                self.fault(f"{queue}: {error!r}")
                connection = connect()
            if time.monotonic() > self.end + 60:
                break
        connection.close()

    def is_done(self, queue):
        """Nothing ready and nothing in hands: asked with no consumer needed."""
        connection = connect()
        count = connection.channel().queue_declare(queue, passive=True).method.message_count
        connection.close()
        return count == 0

    def run(self):
        connection = connect()
        ch = connection.channel()
        for queue, durable in self.queues.items():
            ch.queue_declare(queue, durable=durable)
        producers = [threading.Thread(target=self.guarded, args=(self.produce, number))
                     for number in range(PRODUCERS)]
        consumers = [
            threading.Thread(target=self.guarded, args=(self.consume, queue, 100 * at + number))
            for at, queue in enumerate(self.queues) for number in range(CONSUMERS_PER_QUEUE)]
        for thread in producers + consumers:
            thread.start()
        for thread in producers:
            thread.join()
        self.producing = False
        for thread in consumers:
            thread.join()
        for queue in self.queues:  # what a lost connection left
            while (message := ch.basic_get(queue, auto_ack=True))[0] is not None:
                self.deliveries[queue][message[2].strip()] += 1
            missing = self.sent[queue] - self.deliveries[queue].keys()
            unknown = self.deliveries[queue].keys() - self.sent[queue]
            if missing:
                self.faults.append(f"{queue}: {len(missing)} never came, as {sorted(missing)[0]}")
            if unknown:
                self.faults.append(f"{queue}: {len(unknown)} were never sent")
            print(f"{queue}: {len(self.sent[queue])} sent, "
                  f"{sum(self.deliveries[queue].values())} deliveries")
            ch.queue_delete(queue)
        connection.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    stress = Stress(options.seconds, options.seed)
    stress.run()
    for fault in stress.faults[:20]:
        print(fault)
    print(f"{0 if stress.faults else 1} passed, {1 if stress.faults else 0} failed")
    sys.exit(1 if stress.faults else 0)


if __name__ == "__main__":
    main()
