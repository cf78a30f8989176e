"""A publisher and a consumer by pika, as its documentation shows them, beside the faster ones."""

import threading
import time

from history import AmqpHistory, Findings, Queue
from message import body_make, body_read

QUEUE = "q.pika"
IDLE_S = 1.0
FINISH_WAIT_S = 30.0


class PikaLoad:
    def __init__(self, address, incarnation):
        import pika
        self.pika = pika
        self.parameters = pika.ConnectionParameters(
            *address, blocked_connection_timeout=10, socket_timeout=2, stack_timeout=3,
            connection_attempts=1)
        self.incarnation = incarnation
        self.findings = Findings()
        self.history = AmqpHistory(self.findings)
        self.queue = self.history.queue_add(Queue(QUEUE, alone=True))
        self.producer = self.history.producer_add("pika")
        self.stop_publishing, self.stop_consuming = threading.Event(), threading.Event()
        self.first_acks = {}

    def connected(self, work, stop):
        """Does work(channel, incarnation) on one connection after the other."""
        gone = (self.pika.exceptions.AMQPConnectionError, self.pika.exceptions.AMQPHeartbeatTimeout,
                self.pika.exceptions.ConnectionWrongStateError, OSError)
        while not stop.is_set():
            connection = None
            try:
                began_in = self.incarnation()
                connection = self.pika.BlockingConnection(self.parameters)
                channel = connection.channel()
                if self.incarnation() == began_in:
                    work(channel, began_in)
            except gone as error:
                # Anything but the end of the broker is the broker's fault.
                if isinstance(error, self.pika.exceptions.ConnectionClosedByBroker) and \
                        error.reply_code != 320:
                    self.findings.add("refused", f"pika: {error}")
                time.sleep(0.02)
            except self.pika.exceptions.ChannelClosedByBroker as error:
                self.findings.add("refused", f"pika: {error}")
                time.sleep(0.1)
            except self.pika.exceptions.AMQPError:
                time.sleep(0.02)
            finally:
                if connection is not None and connection.is_open:
                    try:
                        connection.close()
                    except (self.pika.exceptions.AMQPError, OSError):
                        pass

    def publish(self, channel, incarnation):
        channel.queue_declare(QUEUE, durable=True)
        channel.confirm_delivery()
        while not self.stop_publishing.is_set():
            sequence = self.producer.send((QUEUE,))
            number = self.producer.number
            properties = self.pika.BasicProperties(delivery_mode=2,
                                                   message_id=f"{number}-{sequence}")
            try:
                channel.basic_publish("", QUEUE, body_make(number, sequence, sequence % 500 + 8),
                                      properties, mandatory=True)
                self.producer.answered(sequence, True, incarnation)
                self.first_acks.setdefault(incarnation, time.monotonic())
            except self.pika.exceptions.NackError:
                self.producer.answered(sequence, False, incarnation)

    def consume(self, channel, incarnation):
        channel.queue_declare(QUEUE, durable=True)
        channel.basic_qos(prefetch_count=50)
        last = {}
        for method, properties, body in channel.consume(QUEUE, inactivity_timeout=0.2):
            if method is None:
                if self.stop_consuming.is_set():
                    return
                continue
            who = body_read(body)
            if self.history.delivered(self.queue, last, incarnation, method.redelivered, who,
                                      properties.message_id):
                self.consumed_at = time.monotonic()
                channel.basic_ack(method.delivery_tag, multiple=method.delivery_tag % 3 == 0)
                self.settle(who)

    def settle(self, who):
        self.history.settled(self.queue, who)

    def run(self, finish):
        self.consumed_at = time.monotonic()
        publisher = threading.Thread(target=self.connected, daemon=True,
                                     args=(self.publish, self.stop_publishing))
        consumer = threading.Thread(target=self.connected, daemon=True,
                                    args=(self.consume, self.stop_consuming))
        publisher.start()
        consumer.start()
        finish()
        self.stop_publishing.set()
        publisher.join(FINISH_WAIT_S)
        deadline = time.monotonic() + FINISH_WAIT_S
        self.consumed_at = time.monotonic()
        while time.monotonic() - self.consumed_at < IDLE_S and time.monotonic() < deadline:
            time.sleep(0.05)
        self.stop_consuming.set()
        consumer.join(FINISH_WAIT_S)
        return self.history.finish()
