"""What the clients did and saw, and whether a broker that loses nothing could have answered so.

Histories are kept per producer (what became of each message sent) and per queue (what was delivered
of each producer and how it ended). Outcomes are unknown until the broker answers; an unknown message
may be there or not, but only once and only unaltered. Nothing here talks to a broker.
"""

import array
import threading

UNKNOWN, OK, FAILED = 0, 1, 2
SEEN, SETTLED, PROVEN = 1, 2, 4  # delivered; an ack was sent; that ack is known to be durable
REJECTED = 8                     # a reject was sent: its place is the queue of the dead
EXAMPLES = 12
NOWHERE = (1 << 64) - 1  # a place is partition << 48 | offset
UNTOLD = (1 << 48) - 1   # the offset of a place that is not known


def place_text(place):
    return f"{place >> 48}:{place & UNTOLD}"


class Findings:
    """What must not have happened, by kind, with the first examples of each."""

    KINDS = {
        "lost": "every confirmed message was delivered or is still there",
        "altered": "no message is invented or altered",
        "order": "the order of each producer holds",
        "twice": "no message is delivered twice at a time",
        "returned": "no message returns after its settle was confirmed durable",
        "dead": "every dead letter is in its queue or in the one of the dead",
        "dead-unasked": "only what was rejected or expired is a dead letter",
        "dead-both": "what was settled durably does not become a dead letter",
        "unwanted": "what the broker refused is delivered to nobody",
        "log-lost": "every acknowledged record is in the log",
        "log-twice": "each record of an idempotent producer is in the log once",
        "log-offset": "each acknowledged record is at the offset that was acknowledged",
        "log-conflict": "no offset belongs to two records",
        "log-unwanted": "no record is in the log that was refused",
        "poll-back": "what one reader is given never goes back",
        "poll-skip": "what one reader is given has no gaps",
        "log-changed": "what was read from the log once stays as it was",
        "log-order": "the log keeps the order of each producer",
        "group-back": "no committed offset falls below an acknowledged commit",
        "group-skip": "a group sees every record",
        "refused": "clients are refused nothing and the broker ends only when told to",
    }

    def __init__(self):
        self.count = {kind: 0 for kind in self.KINDS}
        self.examples = {kind: [] for kind in self.KINDS}
        self.lock = threading.Lock()

    def add(self, kind, text, count=1):
        with self.lock:
            self.count[kind] += count
            if len(self.examples[kind]) < EXAMPLES:
                self.examples[kind].append(text)

    def merge(self, other):
        for kind in self.KINDS:
            self.count[kind] += other.count[kind]
            self.examples[kind] += other.examples[kind]

    def state(self):
        return {"count": self.count, "examples": self.examples}

    @classmethod
    def of(cls, state):
        findings = cls()
        findings.count, findings.examples = state["count"], state["examples"]
        return findings

    @property
    def total(self):
        return sum(self.count.values())


class Producer:
    """The messages of one producer: sequence numbers 0, 1, 2, ... in the order in which it sent."""

    def __init__(self, number, name, persistent=True):
        self.number, self.name, self.persistent = number, name, persistent
        self.outcome = bytearray()
        self.confirmed_in = array.array("H")  # the incarnation that confirmed it
        self.queues = {}                      # sequence % len(routes) would do; see send()
        self.routes = []                      # index into a list of tuples of queue names
        self.route_of = bytearray()

    def send(self, route):
        """The next sequence number; route: the queues that must get it, as a tuple of names."""
        if route not in self.queues:
            self.queues[route] = len(self.routes)
            self.routes.append(route)
        self.route_of.append(self.queues[route])
        self.outcome.append(UNKNOWN)
        self.confirmed_in.append(0)
        return len(self.outcome) - 1

    def answered(self, sequence, ok, incarnation):
        self.outcome[sequence] = OK if ok else FAILED
        self.confirmed_in[sequence] = incarnation

    def route(self, sequence):
        return self.routes[self.route_of[sequence]]

    def fate(self, sequence):
        if self.outcome[sequence] == UNKNOWN:
            return "not confirmed"
        word = "confirmed" if self.outcome[sequence] == OK else "refused"
        return f"{word} in incarnation {self.confirmed_in[sequence]}"


class Trail:
    """One producer's messages in one queue."""

    def __init__(self):
        self.flags = bytearray()
        self.seen_in = array.array("H")
        self.newest = -1  # first seen

    def reach(self, sequence):
        missing = sequence + 1 - len(self.flags)
        if missing > 0:
            missing += 4096
            self.flags.extend(bytes(missing))
            self.seen_in.extend([0] * missing)


class Queue:
    """dead: the queue that takes what is rejected here. alone: one consumer at a time, so that first
    deliveries come in order whoever gets them. fed: every message in it was routed to it directly.
    exact: no message may be in it twice, nor in the one that it takes its dead from; otherwise a
    crash may leave a copy in both, which is counted and no more. expires: its messages die by
    themselves, nobody has to reject them."""

    def __init__(self, name, dead=None, alone=False, fed=True, exact=True, expires=False):
        self.name, self.dead, self.alone, self.fed, self.exact = name, dead, alone, fed, exact
        self.expires, self.living = expires, []
        if dead is not None:
            dead.living.append(self)
        self.trails = {}
        self.deliveries = self.first_deliveries = self.again = self.doubled = 0

    def trail(self, producer):
        return self.trails.get(producer) or self.trails.setdefault(producer, Trail())


class AmqpHistory:
    """ending(incarnation): was it told to end? A broker that ends in order closes one connection after
    the other: what one consumer had not read yet may reach another before that reads it."""

    def __init__(self, findings, ending=lambda incarnation: False):
        self.findings, self.ending = findings, ending
        self.producers, self.queues = [], {}

    def producer_add(self, name, persistent=True):
        self.producers.append(Producer(len(self.producers), name, persistent))
        return self.producers[-1]

    def queue_add(self, queue):
        self.queues[queue.name] = queue
        return queue

    def delivered(self, queue, last, incarnation, redelivered, who, message_id):
        """One delivery; `who` is what message.body_read said, `last` a dict of this consumer's."""
        findings = self.findings
        if who is None:
            findings.add("altered", f"{queue.name}: a body with a wrong checksum, id {message_id!r}")
            return False
        number, sequence = who
        if number >= len(self.producers) or sequence >= len(self.producers[number].outcome):
            findings.add("altered", f"{queue.name}: {number}/{sequence} was never sent")
            return False
        producer = self.producers[number]
        where = f"{queue.name}: {producer.name}/{sequence}"
        if message_id != f"{number}-{sequence}":
            findings.add("altered", f"{where} came with the id {message_id!r}")
        if queue.fed and queue.name not in producer.route(sequence):
            findings.add("altered", f"{where} was never routed there")
        if queue.living and queue.name not in producer.route(sequence):
            self.death_check(queue, producer, sequence, where)
        trail = queue.trail(number)
        trail.reach(sequence)
        flags = trail.flags[sequence]
        queue.deliveries += 1
        if flags & PROVEN:
            self.come_back(queue, "returned", incarnation,
                           f"{where} came back in incarnation {incarnation}")
        if queue.dead and queue.dead.exact and self.flags(queue.dead, who) & PROVEN:
            findings.add("returned", f"{where} came in incarnation {incarnation}, after its dead "
                         f"letter was settled in {queue.dead.name}")
        if not redelivered:
            if flags & SEEN and trail.seen_in[sequence] == incarnation:
                self.come_back(queue, "twice", incarnation,
                               f"{where} twice in incarnation {incarnation}, not marked; "
                               f"{producer.fate(sequence)}")
            if last.get(number, -1) >= sequence and queue.fed:
                findings.add("order", f"{where} behind {last[number]} in incarnation {incarnation}")
            last[number] = sequence
        if flags & SEEN:
            queue.again += 1
        else:
            queue.first_deliveries += 1
            if queue.alone and sequence < trail.newest:
                findings.add("order", f"{where} first seen behind {trail.newest}, "
                             f"incarnation {incarnation}")
            trail.newest = max(trail.newest, sequence)
        trail.flags[sequence] = flags | SEEN
        trail.seen_in[sequence] = incarnation
        return True

    def death_check(self, dead, producer, sequence, where):
        """A dead letter: had it reason to die where it came from?"""
        who = producer.number, sequence
        homes = [home for home in dead.living if home.name in producer.route(sequence)]
        if not homes:
            self.findings.add("dead-unasked", f"{where} was never where its dead come from")
            return
        flags = self.flags(homes[0], who)
        if not homes[0].expires and not flags & REJECTED:
            self.findings.add("dead-unasked", f"{where} was never rejected in {homes[0].name}")
        if flags & PROVEN:
            # It may be the copy of a move that a crash cut in two, and its twin was settled.
            self.come_back(dead, "dead-both", 0, f"{where} was settled before in {homes[0].name}")

    def come_back(self, queue, kind, incarnation, text):
        if not queue.exact:
            queue.doubled += 1
        elif not self.ending(incarnation):
            self.findings.add(kind, text)

    def flags(self, queue, who):
        trail = queue.trails.get(who[0])
        return trail.flags[who[1]] if trail and who[1] < len(trail.flags) else 0

    def settled(self, queue, who):
        queue.trails[who[0]].flags[who[1]] |= SETTLED

    def rejected(self, queue, who):
        queue.trails[who[0]].flags[who[1]] |= REJECTED

    def proven(self, queue, settled):
        trails = queue.trails
        for number, sequence in settled:
            trails[number].flags[sequence] |= PROVEN

    def ended(self, name, producer, sequence):
        """An ack was sent for the message in this queue, or in the one where its dead go."""
        queue = self.queues[name]
        for place in (queue, queue.dead):
            if place is None:
                continue
            if self.flags(place, (producer.number, sequence)) & SETTLED:
                return True
        return False

    def finish(self):
        """After everything was drained: who is missing? Returns the counts for the report."""
        counts = dict.fromkeys(("sent", "confirmed", "failed", "unknown", "recovered", "lost"), 0)
        for producer in self.producers:
            outcome = producer.outcome
            counts["sent"] += len(outcome)
            counts["confirmed"] += outcome.count(OK)
            counts["failed"] += outcome.count(FAILED)
            counts["unknown"] += outcome.count(UNKNOWN)
            for sequence, result in enumerate(outcome):
                if result == OK and producer.persistent:
                    counts["lost"] += self.find_missing(producer, sequence)
                elif result == UNKNOWN and any(self.ended(name, producer, sequence)
                                               for name in producer.route(sequence)):
                    counts["recovered"] += 1
                elif result == FAILED:
                    self.unwanted_find(producer, sequence)
        counts["delivered"] = sum(q.deliveries for q in self.queues.values())
        counts["again"] = sum(q.again for q in self.queues.values())
        counts["dead"] = sum(q.dead.first_deliveries for q in self.queues.values() if q.dead)
        counts["dead twice"] = sum(q.doubled for q in self.queues.values())
        return counts

    def unwanted_find(self, producer, sequence):
        """Of a message for several queues a refusal says only that one of them did not take it."""
        names = producer.route(sequence)
        if len(names) == 1 and self.flags(self.queues[names[0]], (producer.number, sequence)) & SEEN:
            self.findings.add("unwanted", f"{names[0]}: {producer.name}/{sequence}, "
                              f"{producer.fate(sequence)}, was delivered")

    def find_missing(self, producer, sequence):
        missing = 0
        for name in producer.route(sequence):
            if self.ended(name, producer, sequence):
                continue
            queue = self.queues[name]
            seen = self.flags(queue, (producer.number, sequence)) & SEEN
            self.findings.add(
                "dead" if queue.dead else "lost",
                f"{name}: {producer.name}/{sequence}, {producer.fate(sequence)}, "
                f"{'seen before' if seen else 'never seen'}")
            missing += 1
        return missing


class LogHistory:
    """A topic: what producers were told, and what readers found at each offset."""

    def __init__(self, findings, partitions):
        self.findings = findings
        self.logs = [array.array("Q") for _ in range(partitions)]  # producer << 32 | sequence
        self.ahead = [{} for _ in range(partitions)]  # offset -> the same, behind a gap
        self.polls = {}                               # (reader, partition) -> offset due next
        self.outcome, self.place = [], []  # per producer: OK/..., partition << 48 | offset
        self.acknowledged_in = []
        self.commits = {}                  # (group, partition) -> highest acknowledged
        self.consumed = {}                 # (group, partition) -> bytearray by offset
        self.lock = threading.Lock()

    def producer_add(self):
        self.outcome.append(bytearray())
        self.place.append(array.array("Q"))
        self.acknowledged_in.append(array.array("H"))
        return len(self.outcome) - 1

    def send(self, producer):
        self.outcome[producer].append(UNKNOWN)
        self.place[producer].append(0)
        self.acknowledged_in[producer].append(0)
        return len(self.outcome[producer]) - 1

    def acknowledged(self, producer, sequence, partition, offset, incarnation):
        if offset is None or offset < 0:
            offset = UNTOLD  # the client was told "it is there", not where
        self.place[producer][sequence] = partition << 48 | offset
        self.acknowledged_in[producer][sequence] = incarnation
        self.outcome[producer][sequence] = OK

    def failed(self, producer, sequence):
        self.outcome[producer][sequence] = FAILED

    def read(self, partition, offset, who, reader):
        """A record as a reader got it: checked against what stood there before."""
        findings = self.findings
        where = f"{reader}: partition {partition} offset {offset}"
        if who is None:
            findings.add("altered", f"{where}: wrong checksum")
            return
        producer, sequence = who
        if producer >= len(self.outcome) or sequence >= len(self.outcome[producer]):
            findings.add("altered", f"{where}: {producer}/{sequence} was never sent")
            return
        entry = producer << 32 | sequence
        with self.lock:
            log, ahead = self.logs[partition], self.ahead[partition]
            before = log[offset] if offset < len(log) else ahead.get(offset, entry)
            if before != entry:
                findings.add("log-changed", f"{where}: {producer}/{sequence} where "
                             f"{before >> 32}/{before & 0xFFFFFFFF} was")
            elif offset == len(log):
                log.append(entry)
                while ahead and len(log) in ahead:
                    log.append(ahead.pop(len(log)))
            elif offset > len(log):
                ahead[offset] = entry

    def seek(self, reader, partition, offset=None):
        """The reader begins at this offset, or wherever the broker says that its group was."""
        self.polls[reader, partition] = offset

    def polled(self, reader, partition, offset):
        """What one reader is given of one partition, between two seeks, are the offsets in a row."""
        due = self.polls.get((reader, partition))
        self.polls[reader, partition] = offset + 1
        if due is None or offset == due:
            return
        kind, word = ("poll-back", "again") if offset < due else ("poll-skip", "already")
        self.findings.add(kind, f"{reader}: partition {partition}: {offset} came {word} where {due} "
                          "was due", abs(offset - due))

    def committed(self, group, partition, offset):
        with self.lock:
            key = group, partition
            self.commits[key] = max(self.commits.get(key, 0), offset)

    def commit_floor(self, group, partition):
        with self.lock:
            return self.commits.get((group, partition), 0)

    def commit_found(self, group, partition, offset, floor, when):
        """`floor`: what was acknowledged before the question was asked."""
        if offset < floor:
            self.findings.add("group-back", f"{group}: partition {partition} is at {offset}, "
                              f"acknowledged was {floor} ({when})")

    def consume(self, group, partition, offset):
        with self.lock:
            seen = self.consumed.setdefault((group, partition), bytearray())
            if offset >= len(seen):
                seen.extend(bytes(offset + 1 - len(seen)))
            seen[offset] = 1

    def log_walk(self, partition, log, found):
        """Each record once, those of one producer in order; writes down where each was found."""
        newest = {}
        for offset, entry in enumerate(log):
            producer, sequence = entry >> 32, entry & 0xFFFFFFFF
            if found[producer][sequence] != NOWHERE:
                self.findings.add("log-twice", f"{producer}/{sequence} at partition {partition} offset "
                                  f"{offset} and at {place_text(found[producer][sequence])}")
            found[producer][sequence] = partition << 48 | offset
            if sequence < newest.get(producer, -1):
                self.findings.add("log-order", f"partition {partition} offset {offset}: "
                                  f"{producer}/{sequence} behind {newest[producer]}")
            newest[producer] = sequence

    def conflicts_find(self, found):
        """Two records that were both acknowledged at one place, whatever is there now: one of them
        at least is not where it was acknowledged."""
        owner = {}
        for producer, places in enumerate(self.place):
            for sequence, place in enumerate(places):
                if (self.outcome[producer][sequence] != OK or place & UNTOLD == UNTOLD
                        or found[producer][sequence] == place):
                    continue
                entry = producer << 32 | sequence
                other = owner.setdefault(place, self.rightful(place, entry))
                if other != entry:
                    self.findings.add("log-conflict", f"{place_text(place)} was acknowledged to "
                                      f"{other >> 32}/{other & 0xFFFFFFFF} and to "
                                      f"{producer}/{sequence}")

    def rightful(self, place, otherwise):
        """The record that is there and was acknowledged there."""
        log, offset = self.logs[place >> 48], place & UNTOLD
        if offset < len(log):
            producer, sequence = log[offset] >> 32, log[offset] & 0xFFFFFFFF
            if self.outcome[producer][sequence] == OK and self.place[producer][sequence] == place:
                return log[offset]
        return otherwise

    def place_check(self, producer, sequence, place):
        told = self.place[producer][sequence]
        if place == NOWHERE:
            self.findings.add("log-lost", f"{producer}/{sequence}, acknowledged in incarnation "
                              f"{self.acknowledged_in[producer][sequence]} at {place_text(told)}")
        elif told != place and told & UNTOLD != UNTOLD:
            self.findings.add("log-offset", f"{producer}/{sequence} is at {place_text(place)}, "
                              f"acknowledged at {place_text(told)}")

    def finish(self, ends, groups):
        """ends: the end of each partition as the broker says; all logs were read up to there."""
        findings = self.findings
        found = [array.array("Q", [NOWHERE]) * len(outcome) for outcome in self.outcome]
        for partition, log in enumerate(self.logs):
            if len(log) != ends[partition]:
                findings.add("log-lost", f"partition {partition} ends at {ends[partition]}, "
                             f"readable are {len(log)}", abs(ends[partition] - len(log)))
            self.log_walk(partition, log, found)
        self.conflicts_find(found)
        counts = dict.fromkeys(("sent", "acknowledged", "failed", "unknown", "recovered", "lost"), 0)
        for producer, outcome in enumerate(self.outcome):
            counts["sent"] += len(outcome)
            for sequence, result in enumerate(outcome):
                place = found[producer][sequence]
                if result == OK:
                    counts["acknowledged"] += 1
                    counts["lost"] += place == NOWHERE
                    self.place_check(producer, sequence, place)
                    continue
                counts["failed" if result == FAILED else "unknown"] += 1
                if result == FAILED and place != NOWHERE:
                    findings.add("log-unwanted", f"{producer}/{sequence} is at {place_text(place)}")
                elif place != NOWHERE:
                    counts["recovered"] += 1
        for group in groups:
            for partition, end in enumerate(ends):
                seen = self.consumed.get((group, partition), b"")
                missing = end - sum(seen[:end])
                if missing:
                    findings.add("group-skip", f"{group}: partition {partition}: {missing} of {end} "
                                 "records never came", missing)
        return counts
