#!/usr/bin/env python3
"""The checkers of the crash test against histories made by hand: each thing that must not happen is
found, under its name, and a history in which only what may happen happens is left in peace."""

import unittest

from history import AmqpHistory, Findings, LogHistory, Queue
from message import body_make, body_read


class AmqpWorld:
    def __init__(self):
        self.findings = Findings()
        self.history = AmqpHistory(self.findings)
        self.dead = self.history.queue_add(Queue("dead", fed=False))
        self.copies = self.history.queue_add(Queue("copies", fed=False, exact=False))
        self.queue = self.history.queue_add(Queue("q"))
        self.work = self.history.queue_add(Queue("work", dead=self.dead))
        self.far = self.history.queue_add(Queue("far", dead=self.copies))
        self.brief = self.history.queue_add(Queue("brief", dead=self.copies, expires=True))
        self.alone = self.history.queue_add(Queue("alone", alone=True))
        self.producer = self.history.producer_add("p")

    def send(self, *queues, confirm=True, incarnation=1):
        sequence = self.producer.send(queues or ("q",))
        if confirm:
            self.producer.answered(sequence, True, incarnation)
        return sequence

    def deliver(self, sequence, queue=None, incarnation=1, redelivered=False, last=None,
                settle=False):
        queue = queue or self.queue
        who = (self.producer.number, sequence)
        took = self.history.delivered(queue, {} if last is None else last, incarnation,
                                      redelivered, who, f"{who[0]}-{who[1]}")
        if settle and took:
            self.history.settled(queue, who)

    def reject(self, sequence, queue, incarnation=1):
        self.deliver(sequence, queue, incarnation)
        self.history.rejected(queue, (self.producer.number, sequence))

    def found(self):
        self.counts = self.history.finish()
        return {kind for kind, count in self.findings.count.items() if count}


class AmqpHistoryTest(unittest.TestCase):
    def setUp(self):
        self.world = AmqpWorld()

    def test_what_may_happen_is_not_found(self):
        world, last = self.world, {}
        for _ in range(3):
            world.deliver(world.send(), last=last, settle=True)
        world.send(confirm=False)  # never came
        unknown = world.send(confirm=False)
        world.deliver(unknown, last=last)
        world.deliver(unknown, redelivered=True)
        world.deliver(unknown, incarnation=2, settle=True)
        rejected = world.send("work")
        world.reject(rejected, world.work)
        world.deliver(rejected, world.dead, settle=True)
        world.deliver(world.send("brief"), world.copies, settle=True)
        world.deliver(world.send("dead"), world.dead, settle=True)
        self.refuse(world.send("q"))
        self.assertEqual(world.found(), set())

    def refuse(self, sequence):
        self.world.producer.answered(sequence, False, 1)

    def test_a_confirmed_message_that_never_came_is_lost(self):
        self.world.send()
        self.assertEqual(self.world.found(), {"lost"})

    def test_a_message_seen_but_gone_before_it_was_settled_is_lost(self):
        self.world.deliver(self.world.send())
        self.assertEqual(self.world.found(), {"lost"})

    def test_a_message_missing_from_one_of_two_queues_is_lost(self):
        self.world.deliver(self.world.send("q", "alone"), settle=True)
        self.assertEqual(self.world.found(), {"lost"})

    def test_a_refused_message_that_reached_no_dead_letter_queue_is_missed(self):
        self.world.reject(self.world.send("work"), self.world.work)
        self.assertEqual(self.world.found(), {"dead"})

    def test_an_expired_message_that_reached_no_dead_letter_queue_is_missed(self):
        self.world.send("brief")
        self.assertEqual(self.world.found(), {"dead"})

    def test_a_dead_letter_that_nobody_rejected_is_found(self):
        sequence = self.world.send("work")
        self.world.deliver(sequence, self.world.work)
        self.world.deliver(sequence, self.world.dead, settle=True)
        self.assertEqual(self.world.found(), {"dead-unasked"})

    def test_a_dead_letter_of_another_queue_is_found(self):
        sequence = self.world.send()
        self.world.deliver(sequence, settle=True)
        self.world.deliver(sequence, self.world.dead, settle=True)
        self.assertEqual(self.world.found(), {"dead-unasked"})

    def test_a_message_both_settled_and_dead_is_found(self):
        sequence = self.world.send("work")
        self.world.reject(sequence, self.world.work)
        self.world.deliver(sequence, self.world.work, incarnation=2, settle=True)
        self.world.history.proven(self.world.work, [(0, sequence)])
        self.world.deliver(sequence, self.world.dead, incarnation=3, settle=True)
        self.assertEqual(self.world.found(), {"dead-both"})

    def test_a_dead_letter_twice_is_found(self):
        sequence = self.world.send("work")
        self.world.reject(sequence, self.world.work)
        self.world.deliver(sequence, self.world.dead)
        self.world.deliver(sequence, self.world.dead, settle=True)
        self.assertEqual(self.world.found(), {"twice"})

    def test_copies_that_a_crash_may_make_are_counted_and_not_found(self):
        world = self.world
        sequence = world.send("far")
        world.reject(sequence, world.far)
        world.deliver(sequence, world.copies, settle=True)
        world.history.proven(world.copies, [(0, sequence)])
        world.reject(sequence, world.far, incarnation=2)
        world.deliver(sequence, world.copies, incarnation=2, settle=True)
        self.assertEqual(world.found(), set())
        self.assertEqual(world.counts["dead twice"], 1)

    def test_a_refused_message_that_was_delivered_is_found(self):
        sequence = self.world.send()
        self.world.deliver(sequence, settle=True)
        self.refuse(sequence)
        self.assertEqual(self.world.found(), {"unwanted"})

    def test_a_message_that_one_of_two_queues_refused_may_come_by_the_other(self):
        sequence = self.world.send("q", "alone")
        self.world.deliver(sequence, settle=True)
        self.refuse(sequence)
        self.assertEqual(self.world.found(), set())

    def test_a_message_nobody_sent_is_found(self):
        self.world.deliver(7)
        self.assertEqual(self.world.found(), {"altered"})

    def test_a_message_in_the_wrong_queue_is_found(self):
        sequence = self.world.send()
        self.world.deliver(sequence, settle=True)
        self.world.deliver(sequence, self.world.alone, settle=True)
        self.assertEqual(self.world.found(), {"altered"})

    def test_a_changed_body_is_no_message(self):
        body = bytearray(body_make(1, 2, 50))
        self.assertEqual(body_read(bytes(body)), (1, 2))
        body[20] ^= 1
        self.assertIsNone(body_read(bytes(body)))
        self.world.history.delivered(self.world.queue, {}, 1, False, None, "0-0")
        self.assertEqual(self.world.found(), {"altered"})

    def test_messages_of_one_producer_out_of_order_are_found(self):
        first, second, last = self.world.send(), self.world.send(), {}
        self.world.deliver(second, last=last, settle=True)
        self.world.deliver(first, last=last, settle=True)
        self.assertEqual(self.world.found(), {"order"})

    def test_a_lone_consumer_that_first_sees_an_older_message_later_is_found(self):
        first, second = self.world.send("alone"), self.world.send("alone")
        self.world.deliver(second, self.world.alone, settle=True)
        self.world.deliver(first, self.world.alone, incarnation=2, settle=True)
        self.assertEqual(self.world.found(), {"order"})

    def test_two_copies_at_a_time_are_found(self):
        sequence = self.world.send()
        self.world.deliver(sequence)
        self.world.deliver(sequence, settle=True)
        self.assertEqual(self.world.found(), {"twice"})

    def test_a_message_back_after_its_settle_was_proven_is_found(self):
        sequence = self.world.send()
        self.world.deliver(sequence, settle=True)
        self.world.history.proven(self.world.queue, [(0, sequence)])
        self.world.deliver(sequence, incarnation=2, redelivered=True)
        self.assertEqual(self.world.found(), {"returned"})

    def test_a_message_back_in_its_queue_after_its_dead_letter_was_settled_is_found(self):
        sequence = self.world.send("work")
        self.world.reject(sequence, self.world.work)
        self.world.deliver(sequence, self.world.dead, settle=True)
        self.world.history.proven(self.world.dead, [(0, sequence)])
        self.world.deliver(sequence, self.world.work, incarnation=2, settle=True)
        self.assertEqual(self.world.found(), {"returned"})


class LogWorld:
    def __init__(self):
        self.findings = Findings()
        self.history = LogHistory(self.findings, 1)
        self.history.producer_add()

    def produce(self, offset):
        sequence = self.history.send(0)
        if offset is not None:
            self.history.acknowledged(0, sequence, 0, offset, 1)
        return sequence

    def poll(self, *offsets):
        for offset in offsets:
            self.history.polled("reader", 0, offset)

    def read(self, *sequences, start=0):
        for offset, sequence in enumerate(sequences, start):
            self.history.read(0, offset, (0, sequence), "reader")
            self.history.consume("g", 0, offset)

    def found(self, end=None):
        self.history.finish([len(self.history.logs[0]) if end is None else end], ("g",))
        return {kind for kind, count in self.findings.count.items() if count}


class LogHistoryTest(unittest.TestCase):
    def setUp(self):
        self.world = LogWorld()

    def test_what_may_happen_is_not_found(self):
        world = self.world
        for offset in (0, 1, None, -1):
            world.produce(offset)
        world.read(0, 1, 3)
        world.read(0, 1, 3)
        world.history.committed("g", 0, 2)
        world.history.commit_found("g", 0, 3, world.history.commit_floor("g", 0), "later")
        self.assertEqual(world.found(), set())

    def test_an_acknowledged_record_that_is_not_there_is_lost(self):
        self.world.produce(0)
        self.world.produce(1)
        self.world.read(0)
        self.assertEqual(self.world.found(), {"log-lost"})

    def test_a_log_that_ends_before_its_end_is_found(self):
        self.world.produce(0)
        self.world.read(0)
        self.assertEqual(self.world.found(end=2), {"log-lost", "group-skip"})

    def test_a_record_twice_is_found(self):
        self.world.produce(0)
        self.world.read(0, 0)
        self.assertIn("log-twice", self.world.found())

    def test_a_record_at_another_offset_than_acknowledged_is_found(self):
        self.world.produce(1)
        self.world.read(0)
        self.assertEqual(self.world.found(), {"log-offset"})

    def test_a_record_that_changes_is_found(self):
        self.world.produce(0)
        self.world.produce(None)
        self.world.read(0)
        self.world.read(1)
        self.assertEqual(self.world.found(), {"log-changed"})

    def test_records_of_one_producer_out_of_order_are_found(self):
        self.world.produce(1)
        self.world.produce(0)
        self.world.read(1, 0)
        self.assertEqual(self.world.found(), {"log-order"})

    def test_a_record_that_changes_behind_a_gap_is_found(self):
        for _ in range(4):
            self.world.produce(None)
        self.world.read(2, start=5)
        self.world.read(3, start=5)
        self.assertIn("log-changed", self.world.found())

    def test_records_read_ahead_of_the_others_are_the_log_s(self):
        for offset in range(3):
            self.world.produce(offset)
        self.world.read(1, 2, start=1)
        self.world.read(0)
        self.assertEqual(self.world.found(), set())

    def test_an_offset_acknowledged_to_two_records_is_found(self):
        self.world.produce(0)
        self.world.produce(0)
        self.world.read(0)
        self.assertEqual(self.world.found(), {"log-conflict", "log-lost"})

    def test_an_offset_acknowledged_to_two_records_that_are_elsewhere_is_found(self):
        self.world.produce(1)
        self.world.produce(1)
        self.world.produce(None)
        self.world.read(0, 2, 1)
        self.assertEqual(self.world.found(), {"log-conflict", "log-offset", "log-order"})

    def test_a_refused_record_in_the_log_is_found(self):
        sequence = self.world.produce(None)
        self.world.history.failed(0, sequence)
        self.world.read(sequence)
        self.assertEqual(self.world.found(), {"log-unwanted"})

    def test_a_reader_that_is_given_the_same_again_is_found(self):
        self.world.history.seek("reader", 0, 5)
        self.world.poll(5, 6, 6)
        self.assertEqual(self.world.found(), {"poll-back"})

    def test_a_reader_that_is_given_less_is_found(self):
        self.world.history.seek("reader", 0, 5)
        self.world.poll(5, 8)
        self.assertEqual(self.world.found(), {"poll-skip"})

    def test_a_reader_that_begins_elsewhere_than_asked_is_found(self):
        self.world.history.seek("reader", 0, 5)
        self.world.poll(7)
        self.assertEqual(self.world.found(), {"poll-skip"})

    def test_a_reader_may_seek(self):
        self.world.poll(3, 4)
        self.world.history.seek("reader", 0, 1)
        self.world.poll(1, 2)
        self.world.history.seek("reader", 0)
        self.world.poll(9, 10)
        self.assertEqual(self.world.found(), set())

    def test_a_record_nobody_sent_is_found(self):
        self.world.read(4)
        self.assertEqual(self.world.found(), {"altered"})

    def test_a_commit_that_falls_back_is_found(self):
        history = self.world.history
        history.committed("g", 0, 9)
        history.commit_found("g", 0, 8, history.commit_floor("g", 0), "later")
        self.assertEqual(self.world.found(), {"group-back"})

    def test_a_record_that_the_group_never_saw_is_found(self):
        self.world.produce(0)
        self.world.history.read(0, 0, (0, 0), "reader")
        self.assertEqual(self.world.found(), {"group-skip"})


if __name__ == "__main__":
    unittest.main()
