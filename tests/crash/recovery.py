"""What a restarted broker has, against what the clients know (workload.Ledger).

    found = Recovery(addrs, ledger, findings).look()

Nothing is consumed: messages are taken without an answer and go back when the connection ends. Every
deviation is a line in `findings`; `counts` adds up what may differ without being wrong.
"""

import struct

from workload import ANSWER_S, OFFSET_FETCH, SENT, SURE, amqp, kafka

OUT_OF_RANGE, UNKNOWN_TOPIC = 1, 3
NOBODY = -1


class Findings:
    def __init__(self):
        self.lines = []
        self.counts = dict.fromkeys(("lost", "invented", "reordered", "duplicated", "came back",
                                     "offset moved", "definition", "other"), 0)

    def add(self, kind, text):
        self.counts[kind] += 1
        self.lines.append(f"{kind}: {text}")


class Recovery:
    def __init__(self, addrs, ledger, findings, answer_s=ANSWER_S):
        self.addrs, self.ledger, self.findings, self.answer_s = addrs, ledger, findings, answer_s
        self.counts = {"there": 0, "unknown there": 0, "moved twice": 0}
        self.channel = 0

    def look(self):
        with amqp.Amqp.login(self.addrs["amqp"], timeout_s=self.answer_s) as client:
            self.amqp = client
            bodies = {name: self.queue_look(queue) for name, queue in self.ledger.queues.items()}
            client.leave()
        for name, queue in self.ledger.queues.items():
            if bodies[name] is not None and queue.removed is None:
                self.queue_compare(queue, bodies)
        with kafka.Kafka(self.addrs["kafka"], timeout_s=self.answer_s) as client:
            self.kafka = client
            for (topic, number), partition in self.ledger.partitions.items():
                self.partition_look(topic, number, partition)
            for (group, topic, number), known in self.ledger.offsets.items():
                self.offset_look(group, topic, number, known)
        return self.counts

    # Queues

    def queue_look(self, queue):
        """The bodies in the queue; None when there is no such queue."""
        self.channel += 1
        self.amqp.channel_open(self.channel)
        self.amqp.send(amqp.method(self.channel, amqp.QUEUE_DECLARE, struct.pack(">H", 0) +
                                   amqp.short(queue.name) + bytes([1]) + amqp.table({})))
        name, arguments = self.amqp.expect(amqp.QUEUE_DECLARE_OK, amqp.CHANNEL_CLOSE)
        if name == amqp.CHANNEL_CLOSE:
            self.amqp.send(amqp.method(self.channel, amqp.CHANNEL_CLOSE_OK))
            if queue.made == SURE and queue.removed is None:
                self.findings.add("lost", f"queue {queue.name}")
            return None
        if queue.removed == SURE:
            self.findings.add("came back", f"queue {queue.name}, which was deleted")
        ready = struct.unpack_from(">I", arguments, 1 + arguments[0])[0]
        if ready == 0:
            return []
        self.amqp.consume(self.channel, queue.name)
        return [self.amqp.expect_delivery()[2] for _ in range(ready)]

    def queue_compare(self, queue, bodies):
        here = bodies[queue.name]
        known = {m.body: n for n, m in enumerate(queue.messages)}
        sources = [m for q in self.ledger.queues.values() for m in q.messages
                   if m.dead == queue.name]
        dead = {m.body for m in sources}
        again = [body for n, body in enumerate(here) if body in here[:n]]
        self.counts["moved twice"] += sum(body in dead for body in again)
        if any(body not in dead for body in again):
            self.findings.add("duplicated", f"{len(again)} in {queue.name}")
        for body in here:
            if body not in known and body not in dead:
                self.findings.add("invented", f"{body[:12]!r} ({len(body)} bytes) in {queue.name}")
        order = [known[body] for body in here if body in known]
        if order != sorted(order):
            self.findings.add("reordered", f"{order} in {queue.name}")
        present = set(here)
        for message in queue.messages:
            self.message_compare(queue, message, message.body in present, bodies)

    def message_compare(self, queue, message, here, bodies):
        words = f"{message.body[:8].decode()} of {queue.name}"
        if message.dead is not None:
            there = message.body in (bodies.get(message.dead) or ())
            self.counts["moved twice"] += here and there
            if message.dead_sure and not there:
                self.findings.add("lost", f"{words}, which was seen in {message.dead}")
            here = here or there
        if here:
            self.counts["there" if message.came == SURE else "unknown there"] += 1
        if message.gone == SURE and here:
            self.findings.add("came back", f"{words}, which was settled")
        if message.came == SURE and message.gone is None and not here:
            self.findings.add("lost", words)

    # Topics

    def partition_look(self, topic, number, partition):
        error = self.kafka.fetch(topic, number, 0, max_wait_ms=0)[0]
        if error == UNKNOWN_TOPIC:
            if partition.made == SURE and partition.removed is None:
                self.findings.add("lost", f"topic {topic}, partition {number}")
            return
        if error not in (0, OUT_OF_RANGE):
            self.findings.add("other", f"error {error} from topic {topic}, partition {number}")
            return
        if partition.removed == SURE:
            self.findings.add("came back", f"topic {topic}, which was deleted")
        if partition.removed is None:
            start = self.kafka.offset(topic, number, kafka.EARLIEST)
            if start not in (partition.start, partition.start_sent):
                self.findings.add("came back" if start < partition.start else "lost",
                                  f"{topic}/{number} begins at {start}, not at {partition.start}")
            self.records_compare(f"{topic}/{number}", partition, start,
                                 self.fetch_from(topic, number, start))

    def fetch_from(self, topic, number, offset):
        """(offset, key, value) of all from there."""
        found = []
        while True:
            error, high, data = self.kafka.fetch(topic, number, offset, max_wait_ms=0)
            got = [item for item in kafka.records(data) if item[0] >= offset]
            if error != 0 or not got:
                if error != 0 or offset < high:
                    self.findings.add("lost", f"error {error} at {offset} of {topic}/{number}, "
                                              f"which ends at {high}")
                return found
            found += got
            offset = got[-1][0] + 1

    def records_compare(self, where, partition, start, found):
        if [offset for offset, _, _ in found] != list(range(start, start + len(found))):
            self.findings.add("offset moved", f"{where} has {[offset for offset, _, _ in found]}")
        values = [value for _, _, value in found]
        if len(set(values)) < len(values):
            self.findings.add("duplicated", f"{len(values) - len(set(values))} in {where}")
        sent = {value: n for n, value in
                enumerate(value for batch in partition.batches for value in batch.values)}
        order = [sent.get(value, NOBODY) for value in values]
        if NOBODY in order:
            self.findings.add("invented", f"{order.count(NOBODY)} in {where}")
        if order != sorted(order):
            self.findings.add("reordered", f"{order} in {where}")
        at = {value: offset for offset, _, value in found}
        for batch in partition.batches:
            if batch.offset is None or batch.offset >= start:
                self.batch_compare(where, batch, at)

    def batch_compare(self, where, batch, at):
        got = [at.get(value) for value in batch.values]
        whole = None not in got
        self.counts["there" if batch.came == SURE else "unknown there"] += \
            sum(offset is not None for offset in got)
        if batch.came == SURE and not whole:
            self.findings.add("lost", f"{got.count(None)} of {len(got)} records at {batch.offset} "
                                      f"of {where}")
        elif batch.came == SURE and got[0] != batch.offset:
            self.findings.add("offset moved", f"{batch.offset} of {where} is now {got[0]}")
        elif batch.came == SENT and not whole and set(got) != {None}:
            self.findings.add("lost", f"a part of a batch of {where}: {got}")

    def offset_look(self, group, topic, number, known):
        sent, sure = known
        answer = self.kafka.call(OFFSET_FETCH, 1, kafka.text(group) + kafka.array(
            [kafka.text(topic) + kafka.array([struct.pack(">i", number)])]))
        answer.take("i"), answer.text(), answer.take("i")
        _, offset = answer.take("iq")
        possible = sent[sent.index(sure):] if sure is not None else [NOBODY, *sent]
        if offset not in possible:
            self.findings.add("lost", f"{group} is at {offset} of {topic}/{number}, "
                                      f"not at one of {possible}")

    # It goes on

    def goes_on(self):
        """What is bound still is; it takes more, behind what was there."""
        with amqp.Amqp.login(self.addrs["amqp"], channel=1, timeout_s=self.answer_s) as client:
            client.confirm_select(1)
            bound = [queue for exchange, queue in self.ledger.bindings if exchange == "both"]
            before = {name: client.queue_depth(1, name) for name in bound}
            if bound:
                client.publish(1, "both", "", self.ledger.body(), delivery_mode=2)
                if client.expect_confirms(1):
                    self.findings.add("other", "a message is refused after the restart")
            for name, depth in before.items():
                now = client.queue_depth(1, name)
                if now != depth + 1:
                    self.findings.add("definition", f"{name} went from {depth} to {now}: its "
                                                    "binding is gone")
            client.leave()
