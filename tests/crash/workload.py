"""A small fixed workload for a broker that is about to die, and what was promised to it.

Ledger holds what the clients know: what they sent, what was answered, what must therefore be there
after any crash and what must not. Work performs the steps, one after the other, each waiting for its
answers, over raw sockets (tests/script/amqp_wire.py, kafka_wire.py). recovery.py compares.

The steps touch what the store does: definitions, confirmed messages, settles, rejections to a queue of
dead letters in the same cell and in the other one, a queue that overflows, transactions, records with
acks=all, an idempotent producer that repeats itself, offsets of a group, records that a queue gets from a topic,
large batches and the deletion of some, purges and deletions, and enough bytes that checkpoints come and extents
are rewritten.
"""

import functools
import pathlib
import random
import struct
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/script"))

import amqp_wire as amqp  # noqa: E402
import kafka_wire as kafka  # noqa: E402

SENT, SURE = "sent", "sure"
TX_SELECT, TX_SELECT_OK, TX_COMMIT, TX_COMMIT_OK = (90, 10), (90, 11), (90, 20), (90, 21)
OFFSET_COMMIT, OFFSET_FETCH, DELETE_RECORDS, INIT_PRODUCER_ID = 8, 9, 21, 22
BULK_COUNT, BULK_BYTES = 44, 26000
LARGE_BYTES = 9000  # so that a batch stays where it was written
ANSWER_S = 30.0  # the disk of a busy machine may stand still for long
NOW_MS = int(time.time() * 1000)

# Computed byte by byte, and the same batches come again with every run.
kafka.crc32c = functools.lru_cache(4096)(kafka.crc32c)


class Refused(Exception):
    """The broker said no, in the words of its protocol."""


# --- what the clients know -----------------------------------------------------------------------


class Message:
    """A body in a queue. came and gone: None, SENT (perhaps) or SURE (answered). dead: the queue of
    dead letters that it may be in instead."""

    def __init__(self, body):
        self.body, self.came, self.gone, self.dead, self.dead_sure = body, SENT, None, None, False


class Queue:
    def __init__(self, name, length=None, dead=None):
        self.name, self.length, self.dead = name, length, dead
        self.made, self.removed = SENT, None
        self.messages = []


class Batch:
    def __init__(self, values):
        self.values, self.came, self.offset = values, SENT, None


class Partition:
    """start: records below it are gone; start_sent: below it they may be."""

    def __init__(self):
        self.made, self.removed, self.batches = SENT, None, []
        self.start = self.start_sent = 0


class Ledger:
    def __init__(self):
        self.queues, self.partitions, self.offsets, self.bindings = {}, {}, {}, []
        self.number = 0

    def body(self, size=64):
        """Never the same twice, and no sector like another."""
        self.number += 1
        return body_of(self.number, size)

    def acknowledged(self):
        """How many messages and records somebody was told are safe."""
        return (sum(m.came == SURE for q in self.queues.values() for m in q.messages) +
                sum(len(b.values) for p in self.partitions.values() for b in p.batches
                    if b.came == SURE))

    def unknown(self):
        return (sum(m.came == SENT for q in self.queues.values() for m in q.messages) +
                sum(len(b.values) for p in self.partitions.values() for b in p.batches
                    if b.came == SENT))


@functools.lru_cache(4096)
def body_of(number, size):
    head = b"%08d." % number
    filler = random.Random(number).randbytes(1024) * (size // 1024 + 1)
    return head + filler[:size - len(head)]


# --- what they do --------------------------------------------------------------------------------


class Work:
    """The steps. A step that is refused raises; what it had sent stays possible."""

    def __init__(self, addrs, ledger, answer_s=ANSWER_S):
        self.addrs, self.ledger, self.answer_s = addrs, ledger, answer_s
        self.amqp = self.kafka = None
        self.published = 0
        self.producer = None

    # Connections

    def connect(self):
        self.close()
        self.amqp = amqp.Amqp.login(self.addrs["amqp"], channel=1, timeout_s=self.answer_s)
        self.amqp.confirm_select(1)
        self.published = 0
        self.kafka = kafka.Kafka(self.addrs["kafka"], timeout_s=self.answer_s)

    def close(self):
        for client in (self.amqp, self.kafka):
            if client is not None:
                client.close()
        self.amqp = self.kafka = None

    # AMQP

    def declare(self, name, length=None, dead=None):
        arguments = {}
        if length is not None:
            arguments["x-max-length"] = length
        if dead is not None:
            arguments |= {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
        queue = self.ledger.queues.setdefault(name, Queue(name, length, dead))
        self.amqp.queue_declare(1, name, durable=True, arguments=arguments)
        queue.made = SURE

    def exchange(self, name):
        self.amqp.send(amqp.method(1, amqp.EXCHANGE_DECLARE, struct.pack(">H", 0) +
                                   amqp.short(name) + amqp.short("fanout") + bytes([2]) +
                                   amqp.table({})))
        self.amqp.expect(amqp.EXCHANGE_DECLARE_OK)

    def bind(self, queue, exchange, key):
        self.amqp.queue_bind(1, queue, exchange, key)
        self.ledger.bindings.append((exchange, queue))

    def queue(self, name):
        queue = self.ledger.queues.get(name)
        if queue is None or queue.made != SURE:
            raise Refused(f"there may be no queue {name}")
        return queue

    def partition(self, topic, number):
        partition = self.ledger.partitions.get((topic, number))
        if partition is None or partition.made != SURE:
            raise Refused(f"there may be no topic {topic}")
        return partition

    def publish_many(self, exchange, key, queues, count, size=64):
        """Confirmed messages; when the confirms are there, so is what was sent before them on the
        channel about the same queues."""
        targets = [self.queue(name) for name in queues]
        for name in queues:
            if exchange and (exchange, name) not in self.ledger.bindings:
                raise Refused(f"{name} may not be bound to {exchange}")
        settled = [m for q in targets for m in q.messages if m.gone == SENT and m.dead is None]
        copies, frames = [], []
        for _ in range(count):
            body = self.ledger.body(size)
            copies.append([self.arrive(queue, body) for queue in targets])
            frames.append(amqp.publish(1, exchange, key, body, delivery_mode=2))
        first = self.published + 1
        self.published += count
        self.amqp.send(*frames)
        refused = self.amqp.expect_confirms(count, first)
        for number, messages in enumerate(copies, first):
            for message in messages:
                message.came = SENT if number in refused else SURE
        if refused:
            raise Refused(f"{len(refused)} of {count} refused")
        for message in settled:
            message.gone = SURE

    def arrive(self, queue, body):
        message = Message(body)
        queue.messages.append(message)
        here = [m for m in queue.messages if m.gone is None and m.dead is None]
        if queue.length is not None and len(here) > queue.length:
            target = self.ledger.queues.get(queue.dead)
            if target is not None and target.made == SURE:
                here[0].dead = queue.dead
            else:
                here[0].gone = SENT
        return message

    def publish(self, name, count=1, size=64):
        self.publish_many("", name, [name], count, size)

    def take(self, name, count, keep=0):
        """Consumes so many, in one subscription; (tag, message) of each. Those that come on top go
        back when the channel is closed."""
        waiting = {m.body: m for m in self.queue(name).messages}
        if sum(m.came == SURE and m.gone is None and m.dead is None
               for m in waiting.values()) < count:
            raise Refused(f"there may be too few in {name}")
        self.amqp.channel_open(2)
        self.amqp.qos(2, count + keep)
        self.amqp.consume(2, name)
        taken = []
        for _ in range(count):
            tag, _, body = self.amqp.expect_delivery()
            taken.append((tag, waiting[body]))
        return taken

    def leave(self):
        self.amqp.send(amqp.method(2, amqp.CHANNEL_CLOSE, struct.pack(">H", 200) + amqp.short("") +
                                   struct.pack(">HH", 0, 0)))
        while True:
            kind, channel, payload = self.amqp.receive()
            if (kind, channel) == (amqp.METHOD, 2) and \
                    struct.unpack(">HH", payload[:4]) == amqp.CHANNEL_CLOSE_OK:
                return

    def settle(self, name, count):
        taken = self.take(name, count)
        for _, message in taken:
            message.gone = SENT
        self.amqp.ack(2, taken[-1][0], multiple=True)
        self.leave()

    def reject(self, name, count):
        """To the queue's dead letters; returns when they were seen there and something confirmed
        behind them, so that they must stay."""
        queue = self.queue(name)
        target = self.queue(queue.dead)
        taken = self.take(name, count)
        for tag, message in taken:
            message.dead = queue.dead
            self.amqp.send(amqp.method(2, amqp.NACK, struct.pack(">QB", tag, 0)))
        self.leave()
        want = sum(m.dead == target.name for q in self.ledger.queues.values()
                   for m in q.messages) + sum(m.gone is None for m in target.messages)
        for _ in range(2000):
            if self.amqp.queue_depth(1, target.name) >= want:
                break
        else:
            raise Refused("rejected messages do not arrive")
        self.publish(target.name)
        for _, message in taken:
            message.dead_sure = True

    def purge(self, name):
        queue = self.queue(name)
        here = [m for m in queue.messages if m.gone is None]
        for message in here:
            message.gone = SENT
        self.amqp.send(amqp.method(1, amqp.QUEUE_PURGE, struct.pack(">H", 0) + amqp.short(name) +
                                   b"\0"))
        self.amqp.expect(amqp.QUEUE_PURGE_OK)
        for message in here:
            message.gone = SURE

    def delete(self, name):
        queue = self.queue(name)
        queue.removed = SENT
        for message in queue.messages:
            message.gone = message.gone or SENT
        self.amqp.queue_delete(1, name)
        queue.removed = SURE

    def transaction(self, name, count):
        """Publishes and settles that happen together."""
        queue = self.queue(name)
        self.amqp.channel_open(3)
        self.amqp.send(amqp.method(3, TX_SELECT))
        self.amqp.expect(TX_SELECT_OK)
        bodies = [self.ledger.body() for _ in range(count)]
        messages = [self.arrive(queue, body) for body in bodies]
        self.amqp.send(*(amqp.publish(3, "", name, body, delivery_mode=2) for body in bodies),
                       amqp.method(3, TX_COMMIT))
        self.amqp.expect(TX_COMMIT_OK)
        for message in messages:
            message.came = SURE

    # Kafka

    def topic(self, name, partitions=1):
        for number in range(partitions):
            self.ledger.partitions.setdefault((name, number), Partition())
        self.check(*self.kafka.topics_create([name], partitions))
        for number in range(partitions):
            self.ledger.partitions[name, number].made = SURE

    def topic_delete(self, name):
        ours = [p for (topic, _), p in self.ledger.partitions.items() if topic == name]
        for partition in ours:
            partition.removed = SENT
        self.check(*self.kafka.topics_delete([name]))
        for partition in ours:
            partition.removed = SURE

    def produce(self, topic, number, count, size=64, queues=()):
        """queues: those that are bound to the topic and get the same bodies."""
        batch = Batch([self.ledger.body(size) for _ in range(count)])
        self.partition(topic, number).batches.append(batch)
        copies = [self.arrive(self.queue(name), value)
                  for name in queues for value in batch.values
                  if (topic, name) in self.ledger.bindings]
        self.produce_bytes(topic, number, batch, kafka.batch(batch.values, NOW_MS))
        for message in copies:
            message.came = SURE

    def produce_bytes(self, topic, number, batch, data):
        error, offset = self.kafka.produce(topic, number, data)
        self.check(error)
        if batch.offset not in (None, offset):
            raise AssertionError(f"a repeated batch is at {offset}, not at {batch.offset}")
        batch.came, batch.offset = SURE, offset

    def trim(self, topic, number, start):
        """Records below that offset go."""
        partition = self.partition(topic, number)
        if not any(b.offset == start for b in partition.batches):
            raise Refused(f"nothing may be at {start} of {topic}")
        partition.start_sent = start
        answer = self.kafka.call(DELETE_RECORDS, 0, kafka.array(
            [kafka.text(topic) + kafka.array([struct.pack(">iq", number, start)])]) +
            struct.pack(">i", 30000))
        answer.take("i"), answer.take("i"), answer.text(), answer.take("i")
        _, _, error = answer.take("iqh")
        self.check(error)
        partition.start = start

    def produce_idempotent(self, topic, number, batches):
        """Each batch twice: the second time it must be known."""
        if self.producer is None:
            answer = self.kafka.call(INIT_PRODUCER_ID, 0, struct.pack(">hi", -1, 60000))
            _, error, identity, epoch = answer.take("ihqh")
            self.check(error)
            self.producer = identity, epoch, {}
        identity, epoch, sequences = self.producer
        for _ in range(batches):
            sequence = sequences.get((topic, number), 0)
            batch = Batch([self.ledger.body() for _ in range(3)])
            sequences[topic, number] = sequence + 3
            self.partition(topic, number).batches.append(batch)
            data = idempotent(kafka.batch(batch.values, NOW_MS), identity, epoch, sequence)
            self.produce_bytes(topic, number, batch, data)
            self.produce_bytes(topic, number, batch, data)

    def commit_offset(self, group, topic, number, offset):
        known = self.ledger.offsets.setdefault((group, topic, number), [[], None])
        known[0].append(offset)
        answer = self.kafka.call(OFFSET_COMMIT, 2, kafka.text(group) + struct.pack(">i", -1) +
                                 kafka.text("") + struct.pack(">q", -1) + kafka.array(
                                     [kafka.text(topic) + kafka.array(
                                         [struct.pack(">iq", number, offset) + kafka.text("")])]))
        answer.take("i"), answer.text(), answer.take("i")
        _, error = answer.take("ih")
        self.check(error)
        known[1] = offset

    @staticmethod
    def check(*errors):
        if any(errors):
            raise Refused(f"Kafka's errors {errors}")

    # The whole

    def bulk(self, name, settled):
        self.publish(name, BULK_COUNT, BULK_BYTES)
        self.settle(name, settled)

    def first_life(self):
        return [
            ("declare", lambda: [self.declare(name) for name in ("dead.0", "dead.1")]),
            ("declare with dead letters", lambda: [
                self.declare("near", dead="dead.0"), self.declare("far", dead="dead.1"),
                self.declare("short", length=3, dead="dead.1"), self.declare("bulk.0"),
                self.declare("bulk.1"), self.declare("goes"), self.declare("audit")]),
            ("topics", lambda: [self.topic("log", 2), self.topic("own"), self.topic("gone"),
                                self.topic("large", 2)]),
            ("bind", lambda: [self.exchange("both"), self.bind("near", "both", ""),
                              self.bind("far", "both", ""), self.bind("audit", "log", "#")]),
            ("publish", lambda: [self.publish("near") for _ in range(3)]),
            ("publish to two", lambda: self.publish_many("both", "", ["near", "far"], 6)),
            ("settle", lambda: [self.settle("near", 2), self.publish("near")]),
            ("reject near", lambda: self.reject("near", 2)),
            ("reject far", lambda: self.reject("far", 2)),
            ("overflow", lambda: self.publish("short", 5)),
            ("produce", lambda: [self.produce("log", 0, 3, queues=["audit"]),
                                 self.produce("log", 1, 5, queues=["audit"]),
                                 self.produce("gone", 0, 2)]),
            ("offsets", lambda: [self.commit_offset("readers", "log", 0, n) for n in (1, 3)]),
            ("produce large", lambda: [self.produce("large", n % 2, 2, LARGE_BYTES)
                                       for n in range(10)]),
            ("bulk", lambda: [self.bulk("bulk.0", 20), self.bulk("bulk.1", 40)]),
            ("idempotent", lambda: self.produce_idempotent("own", 0, 2)),
            ("transaction", lambda: self.transaction("far", 3)),
            ("settle more", lambda: [self.settle("bulk.0", 20), self.settle("bulk.1", 2)]),
            ("trim", lambda: [self.trim("large", 0, 4), self.trim("large", 1, 8)]),
            ("bulk again", lambda: [self.bulk("bulk.0", 45), self.bulk("bulk.1", 40)]),
            ("produce more", lambda: self.produce("log", 0, 20, 20000, queues=["audit"])),
            ("purge and delete", lambda: [self.publish("goes", 3), self.purge("goes"),
                                          self.publish("goes", 2), self.delete("goes"),
                                          self.topic_delete("gone")]),
            ("publish last", lambda: [self.publish(name) for name in ("near", "far", "bulk.0")]),
        ]

    def second_life(self):
        return [
            ("publish", lambda: [self.publish("near", 2), self.publish("far", 2)]),
            ("settle", lambda: [self.settle("far", 2), self.publish("far")]),
            ("reject", lambda: [self.reject("near", 1), self.reject("far", 1)]),
            ("produce", lambda: [self.produce("log", 0, 3, queues=["audit"]),
                                 self.produce("log", 1, 3, queues=["audit"])]),
            ("idempotent", lambda: self.produce_idempotent("own", 0, 2)),
            ("offsets", lambda: self.commit_offset("readers", "log", 0, 5)),
            ("trim", lambda: [self.trim("large", 0, 8), self.produce("large", 0, 2, LARGE_BYTES)]),
            ("bulk", lambda: [self.bulk("bulk.0", 40), self.bulk("bulk.1", 44)]),
            ("declare", lambda: [self.declare("late"), self.publish("late", 2)]),
            ("bulk again", lambda: [self.bulk("bulk.0", 46), self.bulk("bulk.1", 44)]),
            ("publish last", lambda: [self.publish(name) for name in ("near", "far", "bulk.1")]),
        ]

    def third_life(self):
        return [("publish", lambda: [self.publish(name) for name in self.there("near", "far")]),
                ("settle", lambda: [self.settle(name, 1) for name in self.there("near")])]

    def there(self, *names):
        """Those that were declared for certain, before whatever happened."""
        return [name for name in names
                if name in self.ledger.queues and self.ledger.queues[name].made == SURE]


def idempotent(data, identity, epoch, sequence):
    """The same batch with a producer's number in it."""
    checked = bytearray(data[21:])
    struct.pack_into(">qhi", checked, 22, identity, epoch, sequence)
    return data[:17] + struct.pack(">I", kafka.crc32c(bytes(checked))) + bytes(checked)
