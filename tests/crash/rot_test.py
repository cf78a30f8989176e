#!/usr/bin/env python3
"""Flips single bits in a data folder, one kind of structure after the other, and looks what becomes of it.

    tests/crash/rot_test.py [--flips N] [--seed S] [--all] [--kind WORDS] [--jobs N]

A broker fills a folder: queues, topics, a group, bindings; several checkpoints and a journal behind the
last one; then it is killed. rot_places.py says what stands where. For each kind of structure some bits
(--flips; --all: one random bit of every byte) are flipped in a copy, each alone:

    weir check           names the damage
    weir serve           refuses with a message that names `weir check`, or serves no wrong byte
    weir check --repair  puts the rest right and says what is lost; weir check then has nothing to say
    weir serve           has every message but those named

What nobody reads must stay without effect. The table at the end has a line for each kind.
"""

import argparse
import collections
import concurrent.futures
import pathlib
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/harness"), str(ROOT / "tests/script")]

import amqp_wire  # noqa: E402
import kafka_wire  # noqa: E402
from rot_places import places  # noqa: E402
from weir_server import WeirServer, weir_binary  # noqa: E402

CELLS = 2
ARGS = ("--cells", CELLS, "--shards", 1, "--journal-limit-mib", 1, "--log-level", "warn")
QUEUES = {"orders": 60, "mail": 40, "holes": 240, "large": 5, **{f"small-{i}": 2 for i in range(70)}}
TOPICS = {"events": 2, "audit": 1, "bulk": 1}  # batches of bulk stay in the journal's file
GROUP = "readers"
SILENCE_S = 3.0
PROBLEMS_SHOWN = 40
INTERRUPTED = 0.4  # of the repairs are killed once and begun again
OFFSET_COMMIT, OFFSET_FETCH = 8, 9


def body_of(name, number):
    """A message's bytes say where it belongs."""
    size = {"large": 90000, "bulk-0": 5000, "orders": 1500, "events-0": 1500}.get(name, 60)
    random_bytes = random.Random(f"{name} {number}").randbytes(size)
    return f"{name}#{number}#".encode() + random_bytes


# --- filling ------------------------------------------------------------------------------------


class Content:
    """What is acknowledged: for each queue and partition the numbers of its messages that are owed."""

    def __init__(self):
        self.owed = collections.defaultdict(set)
        self.next = collections.Counter()
        self.settled = collections.defaultdict(set)
        self.committed = {}

    def take_numbers(self, name, count):
        first = self.next[name]
        self.next[name] += count
        return range(first, first + count)


def publish(client, content, name, count):
    numbers = content.take_numbers(name, count)
    for number in numbers:
        client.publish(1, "", name, body_of(name, number), delivery_mode=2)
    return numbers


def queues_fill(server, content, share):
    with amqp_wire.Amqp.login(server.addr("amqp"), channel=1) as client:
        for name in QUEUES:
            client.queue_declare(1, name, durable=True)
        client.queue_bind(1, "orders", "amq.topic", "order.*")
        client.confirm_select(1)
        sent = [(name, publish(client, content, name, max(1, round(count * share))))
                for name, count in QUEUES.items()]
        assert not client.expect_confirms(sum(len(numbers) for _, numbers in sent))
        for name, numbers in sent:
            content.owed[name].update(numbers)


def topics_fill(server, content, rounds, records):
    with kafka_wire.Kafka(server.addr("kafka")) as client:
        for topic, partitions in TOPICS.items():
            client.topics_create([topic], partitions)
        for _ in range(rounds):
            for topic, partitions in TOPICS.items():
                for partition in range(partitions):
                    name = f"{topic}-{partition}"
                    numbers = content.take_numbers(name, records)
                    error, base = client.produce(topic, partition, kafka_wire.batch(
                        [body_of(name, number) for number in numbers]))
                    assert (error, base) == (0, numbers[0]), (error, base, numbers)
                    content.owed[name].update(numbers)


def queue_settle_every_second(server, content, name):
    with amqp_wire.Amqp.login(server.addr("amqp"), channel=1) as client:
        count = client.queue_depth(1, name)
        tags = [client.get(1, name, no_ack=False) for _ in range(count)]
        for tag, body in tags[1::2]:
            client.ack(1, tag)
            number = int(body.split(b"#")[1])
            content.owed[name].discard(number)
            content.settled[name].add(number)
        client.roundtrip(1, name)
        # A settle rides with the next flush: a confirmed message behind it says that it is safe.
        client.confirm_select(1)
        numbers = publish(client, content, name, 1)
        assert not client.expect_confirms(1)
        content.owed[name].update(numbers)


def offsets_commit(server, content, offset):
    topics = kafka_wire.array([kafka_wire.text("events") + kafka_wire.array(
        [struct.pack(">iq", 0, offset) + kafka_wire.text("")])])
    with kafka_wire.Kafka(server.addr("kafka")) as client:
        client.call(OFFSET_COMMIT, 2, kafka_wire.text(GROUP) + struct.pack(">i", -1) +
                    kafka_wire.text("") + struct.pack(">q", -1) + topics)
    content.committed[("events", 0)] = offset


def folder_make(data):
    """Several checkpoints, of stops; a journal behind the last one, of a kill."""
    content = Content()
    server = WeirServer(data=data, args=ARGS)
    server.start()
    queues_fill(server, content, 1)
    topics_fill(server, content, 12, 4)
    offsets_commit(server, content, 3)
    server.restart()
    queue_settle_every_second(server, content, "holes")
    queues_fill(server, content, 0.4)
    topics_fill(server, content, 6, 4)
    server.restart()
    queues_fill(server, content, 0.2)
    topics_fill(server, content, 3, 2)
    offsets_commit(server, content, 5)
    queues_fill(server, content, 0.05)
    queue_settle_every_second(server, content, "mail")
    server.kill()
    server.clean()
    return content


# --- reading ------------------------------------------------------------------------------------


class Reading:
    """What a broker hands out, held against what it was given."""

    def __init__(self, content, lost):
        self.content, self.lost = content, lost
        self.found = collections.defaultdict(set)
        self.wrong = []     # bytes that nobody sent, or elsewhere
        self.again = []     # settled, and back
        self.errors = []    # said by the protocol
        self.silent = []    # no answer at all

    def note(self, name, body):
        parts = body.split(b"#", 2)
        if len(parts) < 3 or parts[0] != name.encode() or not parts[1].isdigit() or \
                body != body_of(name, int(parts[1])) or \
                int(parts[1]) >= self.content.next[name]:
            self.wrong.append((name, body[:40]))
            return
        number = int(parts[1])
        if number in self.content.settled[name]:
            self.again.append((name, number))
        else:
            self.found[name].add(number)

    def expected(self, name):
        return len(self.content.owed[name]) - self.lost[name]

    def missing(self):
        return {name: owed - self.found[name] for name, owed in self.content.owed.items()
                if owed - self.found[name]}


def queue_read(address, name, reading):
    with amqp_wire.Amqp.login(address, channel=1, timeout_s=SILENCE_S) as client:
        try:
            client.consume(1, name)
            for _ in range(reading.expected(name)):
                which, arguments = client.expect(amqp_wire.DELIVER, amqp_wire.CANCEL,
                                                 amqp_wire.CHANNEL_CLOSE, amqp_wire.CLOSE)
                if which != amqp_wire.DELIVER:
                    reading.errors.append((name, arguments))
                    return
                reading.note(name, client.expect_content())
            client.send(amqp_wire.method(
                1, amqp_wire.QUEUE_DECLARE, struct.pack(">H", 0) + amqp_wire.short(name) + b"\1" +
                amqp_wire.table({})))
            while client.expect(amqp_wire.DELIVER, amqp_wire.QUEUE_DECLARE_OK)[0] == \
                    amqp_wire.DELIVER:  # more than it should have
                reading.note(name, client.expect_content())
        except TimeoutError:
            reading.silent.append(name)
        except (amqp_wire.Closed, AssertionError) as error:
            reading.errors.append((name, error))


def partition_read(client, topic, partition, reading):
    name, offset = f"{topic}-{partition}", 0
    while True:
        error, high, data = client.fetch(topic, partition, offset, max_wait_ms=0)
        if error == 1:  # OFFSET_OUT_OF_RANGE: the first ones are gone
            first = client.offset(topic, partition, kafka_wire.EARLIEST)
            if first <= offset:
                reading.errors.append((name, error))
                return
            offset = first
            continue
        if error != 0:
            reading.errors.append((name, error))
            return
        got = [item for item in kafka_wire.records(data) if item[0] >= offset]
        for number, _, value in got:
            if value != body_of(name, number):
                reading.wrong.append((name, number))
            else:
                reading.note(name, value)
        if not got:
            if offset < high and not reading.lost[name]:
                reading.silent.append(name)
            return
        offset = got[-1][0] + 1


def read_all(server, content, lost):
    reading = Reading(content, lost)
    for name in QUEUES:
        queue_read(server.addr("amqp"), name, reading)
    with kafka_wire.Kafka(server.addr("kafka"), timeout_s=SILENCE_S) as client:
        for topic, partitions in TOPICS.items():
            for partition in range(partitions):
                try:
                    partition_read(client, topic, partition, reading)
                except TimeoutError:
                    reading.silent.append(f"{topic}-{partition}")
    return reading


def start_and_read(data, content, lost):
    """(exit status or None, what it said, Reading or None)."""
    server = WeirServer(data=data, args=ARGS)
    server._start_timeout_s = 60
    try:
        server.start()
    except AssertionError as error:
        code = server._process.poll() if server._process else -1
        server.clean()
        return code, str(error), None
    try:
        reading = read_all(server, content, lost)
        alive = server.running
        if alive:
            server.kill()
            return None, "", reading
        return server._process.poll(), server.log_tail(), reading
    finally:
        server.clean()


def check(data, *words):
    run = subprocess.run([str(weir_binary()), "check", "--data", str(data), *words],
                         capture_output=True, text=True, timeout=60)
    return run.returncode, run.stdout + run.stderr


# --- flipping -----------------------------------------------------------------------------------


class Flip:
    """One bit of one place, and what became of it."""

    def __init__(self, place, offset, bit):
        self.place, self.offset, self.bit = place, offset, bit
        self.detected = self.named = self.refused = self.noted = False
        self.wrong = self.lost = self.lost_named = self.again = 0
        self.problems = []
        self.kill_s = 0  # so long after its begin a first repair is killed

    def __str__(self):
        return f"{self.place.kind}: {self.place.path.name} byte {self.offset} bit {self.bit}"


def flips_choose(found, count, every, rng):
    """{kind: flips}: `count` of each, spread over all places of the kind; or one for every byte."""
    kinds = collections.defaultdict(list)
    for place in found:
        kinds[place.kind].append(place)
    chosen = {}
    for kind, of_kind in kinds.items():
        total = sum(place.end - place.start for place in of_kind)
        if every:
            picks = range(total)
        else:
            picks = sorted(rng.sample(range(total), min(count, total)))
        flips, before = [], 0
        places_left = iter(of_kind)
        place = next(places_left)
        for pick in picks:
            while pick >= before + place.end - place.start:
                before += place.end - place.start
                place = next(places_left)
            flips.append(Flip(place, place.start + pick - before, rng.randrange(8)))
            if rng.random() < INTERRUPTED:
                flips[-1].kill_s = rng.uniform(0.002, 0.04)
        chosen[kind] = flips
    return chosen


def bit_flip(path, offset, bit):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


LOST = re.compile(r"^lost: (queue|topic) '([^']*)'(?: partition (\d+))?.*?: (\d+) messages?", re.M)


def lost_named(text):
    """{name: how many messages} of what `weir check` says is lost."""
    named = collections.Counter()
    for what, name, partition, count in LOST.findall(text):
        named[f"{name}-{partition}" if what == "topic" else name] += int(count)
    return named


def serving_judge(flip, code, said, reading):
    """A broker on damaged files: refuses in words, or hands out nothing wrong."""
    if reading is None:
        flip.refused = True
        if code is None or code < 0:
            flip.problems.append(f"the broker ended with {code}: {said[-300:]}")
        elif "weir check" not in said:
            flip.problems.append(f"refused without naming weir check: {said[-300:]}")
        return
    flip.wrong += len(reading.wrong)
    if code is not None:
        flip.problems.append(f"the broker ended with {code} while read: {said[-300:]}")
    if reading.wrong:
        flip.problems.append(f"wrong bytes: {reading.wrong[:3]}")
    if reading.silent:
        flip.problems.append(f"no answer from {reading.silent}")
    refused = {name for name, _ in reading.errors}
    lost = {name: len(numbers) for name, numbers in reading.missing().items()
            if name not in refused}
    if lost or (refused and not flip.detected):
        flip.problems.append(f"missing without a word: {lost}")


def repair_interrupted(data, after_s):
    """A repair that is killed. What it said is lost; nothing is changed before that is said."""
    run = subprocess.Popen([str(weir_binary()), "check", "--data", str(data), "--repair"],
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    time.sleep(after_s)
    run.kill()
    return lost_named(run.communicate()[0].decode(errors="replace"))


def repair_judge(flip, data, content):
    before = repair_interrupted(data, flip.kill_s) if flip.kill_s else collections.Counter()
    code, said = check(data, "--repair")
    if code != 0:
        flip.problems.append(f"repair ended with {code}: {said[-600:]}")
        return
    named = lost_named(said) | before
    code, text = check(data)
    if code != 0:
        flip.problems.append(f"weir check is not content with the repaired folder: {text[-600:]}")
    code, said_start, reading = start_and_read(data, content, named)
    if reading is None:
        flip.problems.append(f"the repaired folder does not start: {said_start[-600:]}")
        return
    missing = reading.missing()
    flip.wrong += len(reading.wrong)
    flip.lost = sum(map(len, missing.values()))
    flip.lost_named = sum(named.values())
    flip.again = len(reading.again)
    if reading.wrong or reading.silent or reading.errors:
        flip.problems.append(f"after repair: wrong {reading.wrong[:3]}, silent {reading.silent}, "
                             f"errors {reading.errors[:3]}")
    for name, numbers in missing.items():
        if named[name] < len(numbers):
            flip.problems.append(f"after repair {len(numbers)} messages of {name} are missing, "
                                 f"{named[name]} were named lost:\n{said}")


def flip_try(flip, base, folder, content, quick):
    data = folder / "data"
    shutil.copytree(base, data)
    path = data / flip.place.path.relative_to(base)
    bit_flip(path, flip.offset, flip.bit)
    code, text = check(data)
    flip.detected = code == 1
    flip.noted = "torn write" in text
    flip.named = re.search(rf"{flip.place.path.name}: .*byte \d+", text) is not None or \
        re.search(rf"{flip.place.path.name} is damaged \(from byte", text) is not None
    meaning = flip.place.meaning
    if code not in (0, 1):
        flip.problems.append(f"weir check ended with {code}: {text[-300:]}")
    if meaning is True and not flip.detected:
        flip.problems.append("weir check does not see it")
    if meaning is True and flip.detected and not flip.named:
        flip.problems.append(f"weir check does not name the place: {text[:300]}")
    if meaning is False and flip.detected:
        flip.problems.append(f"nobody reads it, and weir check complains: {text[:300]}")
    if meaning == "end" and not flip.noted and not flip.detected:
        flip.problems.append("weir check says nothing of an unfinished write")
    if quick:
        return
    if meaning != "end":
        served = folder / "served"
        shutil.copytree(data, served)
        serving_judge(flip, *start_and_read(served, content, collections.Counter()))
    if flip.detected:
        repair_judge(flip, data, content)


# --- the table ----------------------------------------------------------------------------------

COLUMNS = ("kind", "flips", "found", "refused", "wrong bytes", "lost", "named lost", "back again",
           "kept", "problems")


def table_print(rows):
    widths = [max(len(str(row[i])) for row in [COLUMNS, *rows]) for i in range(len(COLUMNS))]
    for row in [COLUMNS, *rows]:
        print("  ".join(str(cell).ljust(width) if i == 0 else str(cell).rjust(width)
                        for i, (cell, width) in enumerate(zip(row, widths))), flush=True)


def row_of(kind, flips, total):
    def add(name):
        return sum(getattr(flip, name) for flip in flips)

    lost = add("lost")
    return (kind, len(flips), add("detected"), add("refused"), add("wrong"), lost,
            add("lost_named"), add("again"), f"{total * len(flips) - lost}/{total * len(flips)}",
            sum(bool(flip.problems) for flip in flips))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flips", type=int, default=2, help="bits of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--all", action="store_true", help="a random bit of every byte")
    parser.add_argument("--quick", action="store_true", help="weir check only")
    parser.add_argument("--kind", default="", help="only kinds that contain this")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="weir-rot-") as tmp:
        tmp = pathlib.Path(tmp)
        base = tmp / "base"
        content = folder_make(base)
        assert check(base)[0] == 0, check(base)
        chosen = flips_choose(places(base), options.flips, options.all, random.Random(options.seed))
        chosen = {kind: flips for kind, flips in chosen.items() if options.kind in kind}
        total = sum(map(len, content.owed.values()))
        print(f"{total} messages owed; made in {time.monotonic() - began:.1f} s", flush=True)

        def one(flip):
            folder = pathlib.Path(tempfile.mkdtemp(dir=tmp))
            try:
                flip_try(flip, base, folder, content, options.quick)
            except Exception as error:  # noqa: BLE001
                flip.problems.append(f"{type(error).__name__}: {error}")
            shutil.rmtree(folder)

        everything = [flip for flips in chosen.values() for flip in flips]
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(one, everything))
    problems = [f"{flip}: {problem}" for flip in everything for problem in flip.problems]
    print("\n".join(problems[:PROBLEMS_SHOWN]) + "\n")
    table_print([row_of(kind, flips, total) for kind, flips in chosen.items()] +
                [row_of("all", everything, total)])
    failed = sum(bool(flip.problems) for flip in everything)
    print(f"\n{len(everything)} flips, seed {options.seed}, {time.monotonic() - began:.0f} s")
    print(f"{len(everything) - failed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
