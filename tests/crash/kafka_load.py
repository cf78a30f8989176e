"""The Kafka half of the crash test, by confluent-kafka, in a process of its own.

Idempotent producers with keys on four partitions; a group of two members that commits synchronously;
a lone reader that commits for a group without members; one that reads all from the start again and
again; one that asks what is committed.
"""

import random
import threading
import time

from history import Findings, LogHistory
from message import body_make, body_read

TOPIC = "crash"
PARTITIONS = 4
PRODUCERS = 3
RECORDS_PER_S = 1500     # of each producer
IN_FLIGHT_MAX = 1000
GROUP, LONE = "crash-group", "crash-lone"
FINISH_WAIT_S = 45.0

COMMON = {
    "reconnect.backoff.ms": 5,
    "reconnect.backoff.max.ms": 40,
    "retry.backoff.ms": 10,
    "retry.backoff.max.ms": 100,
    "socket.timeout.ms": 5000,
    "socket.nagle.disable": True,
    "broker.address.family": "v4",
    "topic.metadata.refresh.fast.interval.ms": 20,
    "log_level": 0,
}
READING = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": False,
    "auto.offset.reset": "earliest",
    "fetch.error.backoff.ms": 10,
    "fetch.wait.max.ms": 50,
    "coordinator.query.interval.ms": 200,
    "heartbeat.interval.ms": 100,
    "session.timeout.ms": 6000,
}


class KafkaLoad:
    def __init__(self, address, incarnation, seed):
        import confluent_kafka  # here, after the fork: its threads do not survive one
        self.kafka = confluent_kafka
        self.address, self.incarnation, self.seed = address, incarnation, seed
        self.findings = Findings()
        self.history = LogHistory(self.findings, PARTITIONS)
        self.stop_producing, self.stop_reading = threading.Event(), threading.Event()
        self.ends = None  # known once producing has stopped
        self.first_acks = {}
        self.commits = 0

    def config(self, *parts, **words):
        merged = {"bootstrap.servers": self.address, "error_cb": lambda error: None}
        for part in (COMMON, *parts, words):
            merged.update({key.replace("_", "."): value for key, value in part.items()})
        merged["log_level"] = merged.pop("log.level")
        merged["error_cb"] = merged.pop("error.cb", None) or (lambda error: None)
        return merged

    # Writing ---------------------------------------------------------------------------------------

    def topic_make(self):
        from confluent_kafka.admin import AdminClient, NewTopic
        admin = AdminClient({"bootstrap.servers": self.address, **COMMON})
        admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1)])[TOPIC].result(20)

    def produce(self, number):
        history, rng = self.history, random.Random(f"{self.seed}/producer/{number}")
        linger = rng.choice([0, 2, 10])
        producer = self.kafka.Producer(self.config(
            enable_idempotence=True, acks="all", linger_ms=linger,
            compression_type=("none", "lz4", "zstd")[number % 3],
            batch_size=rng.choice([2000, 16384, 100000]),
            delivery_timeout_ms=120000, max_in_flight_requests_per_connection=5))
        began, sent = time.monotonic(), 0

        def answered(error, record, sequence):
            if error is None:
                now = self.incarnation()
                history.acknowledged(number, sequence, record.partition(), record.offset(), now)
                self.first_acks.setdefault(now, time.monotonic())
            else:
                # Whoever gives up waiting does not know what became of it.
                if error.fatal() or error.name() not in ("_MSG_TIMED_OUT", "_PURGE_QUEUE"):
                    history.failed(number, sequence)
                    self.findings.add("refused", f"producer {number}: {error}")

        while not self.stop_producing.is_set():
            behind = (time.monotonic() - began) * RECORDS_PER_S - sent
            began += max(0.0, behind - RECORDS_PER_S / 4) / RECORDS_PER_S  # no making up for outages
            room = IN_FLIGHT_MAX - len(producer)
            for _ in range(max(0, min(int(behind), room, 200))):
                sequence = history.send(number)
                producer.produce(
                    TOPIC, body_make(number, sequence, rng.randrange(8, 200)),
                    key=f"{number}/{sequence % 50}",
                    on_delivery=lambda e, r, sequence=sequence: answered(e, r, sequence))
                sent += 1
            producer.poll(0.002)
        left = producer.flush(FINISH_WAIT_S)
        if left:
            self.findings.add("refused", f"producer {number}: {left} records without an answer "
                              f"{FINISH_WAIT_S:.0f} s after the last start")

    # Reading ---------------------------------------------------------------------------------------

    def take(self, record, reader):
        """The record's place, or None when it is an error that passes."""
        error = record.error()
        if error is not None:
            if error.fatal() or error.name() in ("_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE"):
                self.findings.add("log-lost", f"{reader}: {error}")
            return None
        self.history.read(record.partition(), record.offset(), body_read(record.value()), reader)
        self.history.polled(reader, record.partition(), record.offset())
        return record.partition(), record.offset()

    def at_end(self, group):
        """All is consumed, and producing has ended."""
        ends = self.ends
        if ends is None:
            return False
        seen = [self.history.consumed.get((group, p), b"") for p in range(PARTITIONS)]
        return all(len(s) >= end and sum(s) >= end for s, end in zip(seen, ends))

    def commit(self, consumer, group, positions):
        if not positions:
            return
        offsets = [self.kafka.TopicPartition(TOPIC, p, o) for p, o in positions.items()]
        try:
            for done in consumer.commit(offsets=offsets, asynchronous=False):
                if done.error is None:
                    self.history.committed(group, done.partition, done.offset)
                    self.commits += 1
        except self.kafka.KafkaException as error:
            self.commit_refused(group, error.args[0])

    def commit_refused(self, group, error):
        passing = ("_TRANSPORT", "_TIMED_OUT", "_WAIT_COORD", "_NO_OFFSET", "_ALL_BROKERS_DOWN",
                   "_STATE", "_MAX_POLL_EXCEEDED", "_ASSIGNMENT_LOST", "_DESTROY",
                   "UNKNOWN_MEMBER_ID", "ILLEGAL_GENERATION", "REBALANCE_IN_PROGRESS",
                   "NOT_COORDINATOR", "COORDINATOR_NOT_AVAILABLE", "COORDINATOR_LOAD_IN_PROGRESS",
                   "REQUEST_TIMED_OUT")
        if error.name() not in passing:
            self.findings.add("refused", f"commit of {group}: {error}")

    def group_member(self, number):
        """Subscribes, and commits what it consumed before it asks for more."""
        fresh = {}

        def assigned(consumer, partitions):
            floors = {p.partition: self.history.commit_floor(GROUP, p.partition)
                      for p in partitions}
            fresh.update(floors)
            for partition in floors:
                self.history.seek(f"member {number}", partition)

        consumer = self.kafka.Consumer(self.config(READING, group_id=GROUP))
        consumer.subscribe([TOPIC], on_assign=assigned)
        while not self.stop_reading.is_set() and not self.at_end(GROUP):
            positions = {}
            for record in consumer.consume(500, 0.05):
                place = self.take(record, f"member {number}")
                if place is None:
                    continue
                partition, offset = place
                floor = fresh.pop(partition, None)
                if floor is not None:
                    self.history.commit_found(GROUP, partition, offset, floor, "began to read")
                self.history.consume(GROUP, partition, offset)
                positions[partition] = offset + 1
            self.commit(consumer, GROUP, positions)
        consumer.close()

    def lone_reader(self):
        """Assigns itself all partitions; its group has no members, only offsets."""
        consumer = self.kafka.Consumer(self.config(READING, group_id=LONE))
        consumer.assign([self.kafka.TopicPartition(TOPIC, p, 0) for p in range(PARTITIONS)])
        for partition in range(PARTITIONS):
            self.history.seek("lone reader", partition, 0)
        while not self.stop_reading.is_set() and not self.at_end(LONE):
            positions = {}
            for record in consumer.consume(200, 0.05):
                place = self.take(record, "lone reader")
                if place is not None:
                    self.history.consume(LONE, *place)
                    positions[place[0]] = place[1] + 1
            self.commit(consumer, LONE, positions)
        consumer.close()

    def commits_check(self, consumer, group, when):
        floors = {p: self.history.commit_floor(group, p) for p in range(PARTITIONS)}
        try:
            found = consumer.committed([self.kafka.TopicPartition(TOPIC, p) for p in floors], 5)
        except self.kafka.KafkaException:
            return False
        for item in found:
            if item.error is None:
                self.history.commit_found(group, item.partition, max(item.offset, 0),
                                          floors[item.partition], when)
        return all(item.error is None for item in found)

    def commits_watch(self):
        consumers = {group: self.kafka.Consumer(self.config(READING, group_id=group))
                     for group in (GROUP, LONE)}
        while not self.stop_reading.wait(0.05):
            for group, consumer in consumers.items():
                self.commits_check(consumer, group, "while it ran")
        for group, consumer in consumers.items():
            deadline = time.monotonic() + 10
            while not self.commits_check(consumer, group, "at the end"):
                if time.monotonic() > deadline:
                    self.findings.add("group-back", f"{group}: nobody says what is committed")
                    break
            consumer.close()

    def read_again(self):
        """From the start, one partition at a time, to where it ends or the broker is killed often
        enough; the last passes read all of every partition."""
        rng = random.Random(f"{self.seed}/again")
        consumer = self.kafka.Consumer(self.config(READING, group_id="crash-again"))
        while self.ends is None and not self.stop_reading.is_set():
            self.read_pass(consumer, rng.randrange(PARTITIONS), rng.uniform(0.2, 1.5), None)
        for partition in range(PARTITIONS):
            if self.ends is not None:
                self.read_pass(consumer, partition, FINISH_WAIT_S, self.ends[partition])
        consumer.close()

    def read_pass(self, consumer, partition, seconds, end):
        consumer.assign([self.kafka.TopicPartition(TOPIC, partition, 0)])
        self.history.seek("reader from the start", partition, 0)
        deadline, expected = time.monotonic() + seconds, 0
        while time.monotonic() < deadline and (end is None or expected < end):
            for record in consumer.consume(1000, 0.05):
                place = self.take(record, "reader from the start")
                if place is not None:
                    expected = place[1] + 1
        if end is not None and expected != end:
            self.findings.add("log-lost", f"partition {partition}: reading from the start came to "
                              f"{expected} of {end}", max(1, end - expected))

    # Life ------------------------------------------------------------------------------------------

    def watermarks(self):
        consumer = self.kafka.Consumer(self.config(READING, group_id="crash-ends"))
        deadline = time.monotonic() + FINISH_WAIT_S
        ends = []
        while len(ends) < PARTITIONS:
            try:
                low, high = consumer.get_watermark_offsets(
                    self.kafka.TopicPartition(TOPIC, len(ends)), 5, cached=False)
                if low != 0:
                    self.findings.add("log-lost", f"partition {len(ends)} begins at {low}")
                ends.append(high)
            except self.kafka.KafkaException as error:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no end of partition {len(ends)}: {error}") from None
        consumer.close()
        return ends

    def guarded(self, work, *words):
        """A thread; what it raises is a finding, not a silence."""
        def run():
            try:
                work(*words)
            except Exception as error:  # noqa: BLE001
                self.findings.add("refused", f"{work.__name__}: {error!r}")
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def run(self, finish):
        """finish(): blocks until the broker was started for the last time."""
        self.topic_make()
        for _ in range(PRODUCERS):
            self.history.producer_add()
        writers = [self.guarded(self.produce, n) for n in range(PRODUCERS)]
        readers = [self.guarded(self.group_member, 0), self.guarded(self.group_member, 1),
                   self.guarded(self.lone_reader), self.guarded(self.read_again)]
        watch = self.guarded(self.commits_watch)
        finish()
        self.stop_producing.set()
        for writer in writers:
            writer.join(FINISH_WAIT_S + 5)
        self.ends = self.watermarks()
        deadline = time.monotonic() + FINISH_WAIT_S
        for reader in readers:
            reader.join(max(0.1, deadline - time.monotonic()))
        self.stop_reading.set()
        watch.join(20)
        counts = self.history.finish(self.ends, (GROUP, LONE))
        counts["commits"] = self.commits
        return counts
