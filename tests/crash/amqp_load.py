"""The AMQP half of the crash test: publishers with confirms and consumers of every manner, all turned
by one loop in one thread, each on its own connection.

    q.0 .. q.3   by the default exchange, from several producers each; two consumers; some transient
    q.a, q.b     behind the fanout x.both: a confirm speaks for both
    q.work       behind the topic x.work; its consumers refuse a fifth of it, which goes by x.dead to
    q.dead       in another cell: a crash in between may put a dead letter there twice
    q.near       the same, with dead letters in
    q.near.dead  which is in its own cell: that move is one record, so it happens once or not at all
    q.still      bound to x.work too; nobody consumes it before the end
    q.brief      its messages expire before anybody takes one, and go by x.dead to
    q.brief.dead in another cell

Queues are numbered one after the other, so they lie in different cells, and every eighth in one.
"""

import random
import time

from amqp_link import Link, publish_prefix
from history import Queue
from message import body_make, body_read, padding_choose

WINDOW = 100
PER_TURN = 40            # messages that a publisher adds at once
PREFETCH = 300
BACKLOG_MAX = 20000
CELLS = 8                # as many as the broker makes by default
BACKLOG_POLL_S = 0.1
MARK_EVERY_S = 0.04
BRIEF_MS = 100
DRAIN_POLL_S = 0.1
ANSWER_WAIT_S = 20.0
DRAIN_WAIT_S = 60.0
STUCK_S = 10.0


class Confirms:
    """What a channel published and has no answer for yet, oldest first."""

    def __init__(self):
        self.waiting = {}

    def take(self, tag, multiple):
        if not multiple:
            return [self.waiting.pop(tag)] if tag in self.waiting else []
        taken = []
        while self.waiting:
            first = next(iter(self.waiting))
            if first > tag:
                break
            taken.append(self.waiting.pop(first))
        return taken


class Publisher:
    """routes: a list of (exchange, key, queues that get it), taken at random."""

    def __init__(self, load, name, routes, share=1.0, persistent=True):
        self.load, self.share, self.persistent = load, share, persistent
        self.producer = load.history.producer_add(name, persistent)
        self.routes = [(publish_prefix(exchange, key), queues) for exchange, key, queues in routes]
        self.confirms = Confirms()
        self.link = Link(load.loop, self, name)
        load.loop.owners.append(self)

    def link_opened(self, link):
        link.confirm_select()

    def link_lost(self, link):
        self.confirms.waiting.clear()

    def link_confirmed(self, link, tag, multiple, ok):
        for sequence in self.confirms.take(tag, multiple):
            self.producer.answered(sequence, ok, link.incarnation)
        self.load.confirm_seen(link.incarnation)

    def turn_ended(self, now):
        link, load = self.link, self.load
        if not link.open or not load.publishing or link.congested or load.rng.random() > self.share:
            return
        number, rng = self.producer.number, load.rng
        for _ in range(min(PER_TURN, WINDOW - len(self.confirms.waiting))):
            prefix, queues = rng.choice(self.routes)
            sequence = self.producer.send(queues)
            body = body_make(number, sequence, padding_choose(rng))
            tag = link.publish(prefix, body, f"{number}-{sequence}", self.persistent)
            self.confirms.waiting[tag] = sequence


class Consumer:
    """style: `single` acks one by one, `multiple` all of a turn at once, `mixed` does both, returns
    some to the queue, and drops its connection now and then. After acks it publishes a message of
    its own to the queue: that one's confirm says that the acks before it are durable."""

    def __init__(self, load, queue, style, refuse=0.0):
        self.load, self.queue, self.style, self.refuse = load, queue, style, refuse
        self.producer = load.history.producer_add(f"consumer of {queue.name}")
        self.prefix = publish_prefix("", queue.name)
        self.reset()
        self.marked_at = 0.0
        self.link = Link(load.loop, self, f"consumer of {queue.name}")
        load.loop.owners.append(self)

    def reset(self):
        self.last = {}          # newest delivery of each producer, for the order
        self.unsettled = []     # (tag, who), in the order of their tags
        self.settled = []       # acked, and no mark published since
        self.marks = Confirms()

    def link_opened(self, link):
        self.reset()
        link.confirm_select()
        link.qos(PREFETCH)
        link.consume(self.queue.name)

    def link_lost(self, link):
        self.reset()

    def link_delivered(self, link, tag, redelivered, body, message_id):
        who = body_read(body)
        if self.load.history.delivered(self.queue, self.last, link.incarnation, redelivered, who,
                                       message_id):
            self.unsettled.append((tag, who))
        self.load.delivered_at = self.load.now

    def link_confirmed(self, link, tag, multiple, ok):
        for sequence, settled in self.marks.take(tag, multiple):
            self.producer.answered(sequence, ok, link.incarnation)
            if ok:
                self.load.history.proven(self.queue, settled)
        self.load.confirm_seen(link.incarnation)

    # Settling --------------------------------------------------------------------------------------

    def turn_ended(self, now):
        if not self.link.open:
            return
        if self.unsettled:
            if self.load.draining or self.style == "multiple":
                self.ack_until(len(self.unsettled))
            elif self.style == "single":
                for tag, who in self.unsettled:
                    self.link.ack(tag, False)
                    self.mark_settled(who)
                self.unsettled = []
            else:
                self.settle_mixed()
        if (self.settled and self.link.open and self.load.running
                and now - self.marked_at > MARK_EVERY_S):
            self.mark_publish(now)

    def mark_settled(self, who):
        self.load.history.settled(self.queue, who)
        self.settled.append(who)

    def ack_until(self, count):
        if count == 0:
            return
        taken, self.unsettled = self.unsettled[:count], self.unsettled[count:]
        self.link.ack(taken[-1][0], True)
        for _tag, who in taken:
            self.mark_settled(who)

    def settle_mixed(self):
        rng = self.load.rng
        dice = rng.random()
        if dice < 0.002 and not self.queue.alone and self.load.publishing:
            self.link.lose()
            return
        if dice < 0.3:  # leave some for the next turn
            self.ack_until(rng.randrange(len(self.unsettled) + 1))
        elif dice < 0.32:  # give all back
            self.link.nack(self.unsettled[-1][0], True, True)
            self.unsettled = []
        else:
            for tag, who in self.unsettled:
                dice = rng.random()
                if dice < 0.02:
                    self.link.nack(tag, False, True)
                elif dice < 0.03:
                    self.link.reject(tag, True)
                elif dice < 0.03 + self.refuse:
                    self.refuse_one(tag, who)
                else:
                    self.link.ack(tag, False)
                    self.mark_settled(who)
            self.unsettled = []

    def refuse_one(self, tag, who):
        self.load.history.rejected(self.queue, who)
        if self.load.rng.random() < 0.5:
            self.link.reject(tag, False)
        else:
            self.link.nack(tag, False, False)

    def mark_publish(self, now):
        sequence = self.producer.send((self.queue.name,))
        body = body_make(self.producer.number, sequence, 16)
        tag = self.link.publish(self.prefix, body, f"{self.producer.number}-{sequence}")
        self.marks.waiting[tag] = (sequence, self.settled)
        self.settled = []
        self.marked_at = now


class Caller:
    """A connection for declarations and questions. Unasked it asks for the backlog now and then."""

    def __init__(self, load):
        self.load = load
        self.asked_at = 0.0
        self.link = Link(load.loop, self, "caller")
        load.loop.owners.append(self)

    def link_opened(self, link):
        pass

    def link_lost(self, link):
        pass

    def turn_ended(self, now):
        if self.link.open and self.load.running and now - self.asked_at > BACKLOG_POLL_S:
            self.asked_at = now
            self.lengths_ask([name for name in self.load.history.queues if name != "q.still"],
                             self.load.backlog_set)

    def topology_declare(self):
        link, done = self.link, []
        self.load.turn_until(lambda: link.open, "a connection")
        for name, kind in (("x.both", "fanout"), ("x.work", "topic"), ("x.dead", "direct")):
            link.exchange_declare(name, kind)
        for name in self.load.history.queues:
            queue = self.load.history.queues[name]
            arguments = {"x-dead-letter-exchange": "x.dead"} if queue.dead else {}
            if queue.expires:
                arguments["x-message-ttl"] = BRIEF_MS
            link.queue_declare(name, arguments)
        link.queue_bind("q.a", "x.both", "")
        link.queue_bind("q.b", "x.both", "")
        link.queue_bind("q.work", "x.work", "work.#")
        link.queue_bind("q.still", "x.work", "#.keep")
        link.queue_bind("q.dead", "x.dead", "work.do")
        link.queue_bind("q.dead", "x.dead", "work.keep")
        # What came by the default exchange has the queue's name for its key.
        link.queue_bind("q.dead", "x.dead", "q.work")
        link.queue_bind("q.near.dead", "x.dead", "q.near")
        link.queue_bind("q.brief.dead", "x.dead", "q.brief")
        link.queue_declare("q.0", passive=True, then=done.append)
        self.load.turn_until(lambda: done, "the answers to the declarations")

    def lengths_ask(self, names, then):
        """then({name: messages ready}) for those queues that hold any."""
        lengths = {}

        def answer_take(answer):
            size = answer[0]
            lengths[answer[1:1 + size].decode()] = int.from_bytes(answer[1 + size:][:4], "big")
            if len(lengths) == len(names):
                then({name: length for name, length in lengths.items() if length > 0})

        for name in names:
            self.link.queue_declare(name, passive=True, then=answer_take)

    def messages_ready(self):
        answers = []
        self.lengths_ask(self.load.history.queues, answers.append)
        self.load.turn_until(lambda: answers, "the lengths of the queues")
        return answers[0]


class AmqpLoad:
    def __init__(self, loop, history, seed, on_confirm):
        self.loop, self.history, self.confirm_seen = loop, history, on_confirm
        self.rng = random.Random(seed)
        self.running = False     # publishers are wanted
        self.publishing = False  # and the backlog leaves room
        self.draining = False
        self.backlog = 0
        self.now = self.delivered_at = time.monotonic()
        self.publishers = []
        dead = Queue("q.dead", fed=False, exact=False)
        near_dead = Queue("q.near.dead", fed=False)
        history.queue_add(Queue("q.near", dead=near_dead))
        for i in range(4):
            history.queue_add(Queue(f"q.{i}"))
        history.queue_add(Queue("q.a", alone=True))
        history.queue_add(Queue("q.b"))
        history.queue_add(Queue("q.work", dead=dead))
        assert len(history.queues) == CELLS
        history.queue_add(near_dead)
        history.queue_add(dead)
        history.queue_add(Queue("q.still", alone=True))
        brief_dead = Queue("q.brief.dead", fed=False, exact=False)
        history.queue_add(Queue("q.brief", dead=brief_dead, expires=True))
        history.queue_add(brief_dead)
        self.caller = Caller(self)
        self.caller.topology_declare()

    def start(self):
        queues = self.history.queues
        plain = [("", f"q.{i}", (f"q.{i}",)) for i in range(4)]
        for i in range(4):
            self.publishers.append(Publisher(self, f"plain-{i}", plain))
        self.publishers.append(Publisher(self, "single", plain[:1]))
        self.publishers.append(Publisher(self, "both", [("x.both", "", ("q.a", "q.b"))], share=0.5))
        self.publishers.append(Publisher(self, "work", [
            *[("x.work", "work.do", ("q.work",))] * 9,
            ("x.work", "work.keep", ("q.work", "q.still"))], share=0.5))
        self.publishers.append(Publisher(self, "near", [("", "q.near", ("q.near",))], share=0.3))
        self.publishers.append(Publisher(self, "brief", [("", "q.brief", ("q.brief",))], share=0.2))
        self.publishers.append(Publisher(self, "transient", plain[2:], share=0.3, persistent=False))
        for i in range(4):
            Consumer(self, queues[f"q.{i}"], "mixed")
            Consumer(self, queues[f"q.{i}"], "multiple" if i % 2 else "single")
        Consumer(self, queues["q.a"], "multiple")
        Consumer(self, queues["q.b"], "mixed")
        Consumer(self, queues["q.b"], "mixed")
        Consumer(self, queues["q.work"], "mixed", refuse=0.2)
        Consumer(self, queues["q.work"], "mixed", refuse=0.2)
        Consumer(self, queues["q.near"], "mixed", refuse=0.3)
        Consumer(self, queues["q.dead"], "mixed")
        Consumer(self, queues["q.near.dead"], "mixed")
        Consumer(self, queues["q.brief.dead"], "multiple")
        self.running = True

    def backlog_set(self, lengths):
        self.backlog = sum(lengths.values())

    def turn(self):
        self.now = time.monotonic()
        self.publishing = self.running and self.backlog < BACKLOG_MAX
        self.loop.turn(0.002 if self.publishing else 0.01)

    def turn_for(self, seconds):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.turn()

    def turn_until(self, condition, what, wait_s=ANSWER_WAIT_S):
        deadline = time.monotonic() + wait_s
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {what} within {wait_s:.0f} s")
            self.turn()

    def quiet(self):
        """Stops publishing and waits for the answers to what was published."""
        self.running = False
        self.turn_until(lambda: not any(p.link.open and p.confirms.waiting for p in self.publishers),
                        "confirms for what was published last")

    def drain(self):
        """Consumes whatever is left and returns when the queues say that they are empty."""
        self.draining = True
        Consumer(self, self.history.queues["q.still"], "multiple")
        deadline = time.monotonic() + DRAIN_WAIT_S
        empty = 0
        while empty < 3:
            self.turn_for(DRAIN_POLL_S)
            self.turn_until(lambda: self.caller.link.open, "a connection")
            idle = self.now - self.delivered_at > 2 * DRAIN_POLL_S
            left = self.caller.messages_ready() if idle else None
            empty = empty + 1 if left == {} else 0
            if time.monotonic() > deadline or (left and self.now - self.delivered_at > STUCK_S):
                raise TimeoutError(f"messages are left and do not come: {left}, the last one came "
                                   f"{self.now - self.delivered_at:.1f} s ago")
