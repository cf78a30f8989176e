#!/usr/bin/env python3
"""Stops the broker at every call that changes its disk, and looks whether anything is missing.

    tests/crash/crash_points.py [--every K] [--jobs N] [--seed S] [--only STAGE --at N]

A fixed workload (workload.py) runs against the real binary under powercut.so. In the n-th run the power
goes while the n-th change of the disk is under way: a write, a sync, a file made, moved or removed,
room reserved, a folder made, LMDB's included. Each cut leaves three data folders, in which what was
not synced is there, is gone, or is torn by sectors and names. On each, `weir check` must find nothing,
the broker must start, and everything that was acknowledged must be there, in its order and at its
offsets; nothing that nobody sent, nothing that was settled (recovery.py).

Stages: `first`, from an empty folder to a clean stop; `second`, from there on with another number of
shards; `again`, the power goes once more during the recovery from a cut. Without --every all points
are tried. At the end the program tests itself: with a disk that forgets what was synced, or the names
that were, it must find that something is missing.
"""

import argparse
import collections
import copy
import multiprocessing
import os
import pathlib
import random
import re
import shutil
import sys
import tempfile
import time

from mortal import AT, UNSYNCED, Mortal, Place, data_check
from recovery import Findings, Recovery
from workload import Ledger, Work, amqp, kafka

KINDS = ("keep", "drop", "tear")
SHARDS = {"first": 2, "second": 1, "again": 2}
BROKEN = (amqp.Closed, kafka.Closed, OSError, AssertionError)
SELF_TESTS = {"never": "a disk that forgets what was synced is found out",
              "names": "a disk that forgets synced names is found out"}


class Start:
    """What a stage begins with: a data folder (None: an empty one) and what the clients know."""

    def __init__(self, data=None, ledger=None):
        self.data, self.ledger = data, ledger or Ledger()


def life(place, stage, start, **settings):
    """One life under the shim; returns what the clients know and the broker, which has ended."""
    ledger = copy.deepcopy(start.ledger)
    place.take(start.data)
    with Mortal.cut(place, SHARDS[stage], **settings) as broker:
        if broker.addrs is None:
            return ledger, broker
        work = Work(broker.addrs, ledger)
        try:
            work.connect()
            steps = {"first": work.first_life, "second": work.second_life,
                     "again": work.third_life}[stage]()
            for _, step in steps:
                step()
            work.close()
            broker.terminate()
        except BROKEN:
            work.close()
            broker.end_wait()
    return ledger, broker


def recover(place, data, ledger, findings):
    """A start without the shim on what the cut left. Returns the counts of what was looked at."""
    ledger = copy.deepcopy(ledger)
    problem = data_check(data)
    if problem:
        findings.add("other", problem)
    with Mortal(place, data=data) as broker:
        if broker.addrs is None:
            findings.add("other", f"it does not start again: {place.said()[-600:]}")
            return {}
        look = Recovery(broker.addrs, ledger, findings)
        try:
            counts = look.look()
            look.goes_on()
        except BROKEN as error:
            findings.add("other", f"it fails after the restart: {error!r} {place.said()[-600:]}")
            return {}
    return counts


def point_run(place, stage, start, at, dice, mode=None):
    """Everything about one point, as a dict that can be added up."""
    ledger, broker = life(place, stage, start, at=at, kind="all", dice=dice, mode=mode)
    said = place.said()
    reached = AT.search(said)
    result = {"stage": stage, "at": at, "call": "the end", "code": broker.code, "found": [],
              "acknowledged": ledger.acknowledged(), "unknown": ledger.unknown(),
              "unsynced": collections.Counter(), "counts": collections.Counter(), "images": 0}
    if reached:
        result["call"] = re.sub(r"-[0-9a-f]{16}", "", " ".join(reached[1].split()[2:]))
    elif broker.code != 0:
        result["found"].append(f"it ended with {broker.code} by itself: {said[-600:]}")
    for what, text in UNSYNCED.findall(said):
        for name, number in re.findall(r"(\w+)=(\d+)", text):
            result["unsynced"][f"{what} {name}"] += int(number)
    for kind in KINDS if reached else ("tear",):
        findings = Findings()
        counts = recover(place, place.copy(kind), ledger, findings)
        result["images"] += 1
        result["counts"].update(counts)
        result["counts"].update(findings.counts)
        result["found"] += [f"{kind}: {line}" for line in findings.lines]
    return result


# --- all of them ---------------------------------------------------------------------------------


class Stages:
    """Where each stage starts, and how many points it has; kept below `folder`."""

    def __init__(self, folder):
        self.folder = folder
        self.starts = {"first": Start()}
        self.points = {}
        place = Place(folder / "prepare")
        ledger = self.trace(place, "first")
        self.starts["second"] = Start(self.keep(place, "after-first"), ledger)
        self.trace(place, "second")

    def keep(self, place, name, data=None):
        kept = self.folder / name
        shutil.copytree(data or place.data, kept, symlinks=True)
        return kept

    def trace(self, place, stage):
        ledger, broker = life(place, stage, self.starts[stage], trace=place.trace)
        if broker.code != 0:
            raise SystemExit(f"the workload does not run: {broker.code} {place.said()[-2000:]}")
        self.points[stage] = sum(line.startswith("change ")
                                 for line in place.trace.read_text().splitlines())
        return ledger

    def again(self, seeds, rng):
        """Starts of the third stage: what cuts of the first two have left."""
        found = []
        for number in range(seeds):
            place = Place(self.folder / "prepare")
            stage = rng.choice(("first", "second"))
            at = rng.randrange(self.points[stage] // 4, self.points[stage])
            ledger, _ = life(place, stage, self.starts[stage], at=at, kind="all", dice=number)
            kind = rng.choice(("drop", "tear", "keep"))
            if not place.copy(kind).exists():
                continue
            start = Start(self.keep(place, f"again-{number}", place.copy(kind)), ledger)
            life(place, "again", start, trace=place.trace)
            changes = sum(line.startswith("change ")
                          for line in place.trace.read_text().splitlines())
            found.append((start, changes))
        return found


def worker(job):
    folder, stage, start, at, dice = job
    place = Place(folder / f"worker-{os.getpid()}")
    try:
        result = point_run(place, stage, start, at, dice)
    except Exception as error:  # noqa: BLE001
        result = {"stage": stage, "at": at, "call": "?", "found": [f"the test failed: {error!r}"],
                  "acknowledged": 0, "unknown": 0, "unsynced": {}, "counts": {}, "images": 0}
    if result["found"]:
        kept = folder / f"failed-{stage}-{at}-{dice}"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(place.folder, kept, symlinks=True,
                        ignore=lambda _, names: ["cut"] if "cut" in names else [])
    return result


def jobs_make(stages, args, folder):
    rng = random.Random(args.seed)
    jobs = []
    for stage in ("first", "second"):
        offset = rng.randrange(args.every)
        jobs += [(folder, stage, stages.starts[stage], at, args.seed * 1000003 + at)
                 for at in range(1 + offset, stages.points[stage] + 1, args.every)]
    for start, changes in stages.again(max(1, args.again // args.every), rng):
        jobs += [(folder, "again", start, at, args.seed * 1000003 + at)
                 for at in range(1 + rng.randrange(args.every), changes + 1, args.every)]
    return jobs


def self_test(stages, folder, mode, seed):
    """How many images of some points show that something is missing on a disk that lies."""
    rng = random.Random(seed)
    bad = 0
    for _ in range(8):
        place = Place(folder / "self")
        at = rng.randrange(stages.points["first"] // 3, stages.points["first"])
        bad += bool(point_run(place, "first", stages.starts["first"], at, at, mode)["found"])
    return bad


# --- what came of it -----------------------------------------------------------------------------


def report(results, seconds):
    stages = collections.Counter(r["stage"] for r in results)
    calls = collections.Counter(r["call"] for r in results)
    counts, unsynced = collections.Counter(), collections.Counter()
    for result in results:
        counts.update(result["counts"])
        unsynced.update(result["unsynced"])
    print(f"{len(results)} points (" + ", ".join(f"{n} {name}" for name, n in stages.items()) +
          f"), {sum(r['images'] for r in results)} data folders left by cuts, {seconds:.0f} s")
    print("cut at: " + ", ".join(f"{n} {call}" for call, n in calls.most_common()))
    print("unsynced when torn: " + ", ".join(f"{n} {name}" for name, n in sorted(unsynced.items())))
    print(f"acknowledged before the cuts: {sum(r['acknowledged'] for r in results)}, unanswered: "
          f"{sum(r['unknown'] for r in results)}")
    print("found after the restarts: " + ", ".join(f"{n} {name}" for name, n in counts.items()))


def verdict(results, lies):
    bad = [r for r in results if r["found"]]
    for result in bad[:10]:
        print(f"FAIL {result['stage']} --at {result['at']}: {result['call']}")
        for line in result["found"][:6]:
            print("       " + line.replace("\n", "\n       "))
    for mode, found in lies.items():
        print(f"{'ok  ' if found else 'FAIL'} {SELF_TESTS[mode]} ({found} of 8 points)")
    failed = len(bad) + sum(not found for found in lies.values())
    print(f"{len(results) + len(lies) - failed} passed, {failed} failed")
    return failed > 0


def main():
    parser = argparse.ArgumentParser(description="stop the broker at every change of its disk")
    parser.add_argument("--every", type=int, default=1, help="only each K-th point")
    parser.add_argument("--again", type=int, default=12, help="cuts whose recovery is cut")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=("first", "second"), help="with --at: one point")
    parser.add_argument("--at", type=int)
    args = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="points-", dir=os.environ.get("WEIR_TMP")))
    began = time.monotonic()
    stages = Stages(folder)
    lies = {}
    if args.only:
        jobs = [(folder, args.only, stages.starts[args.only], args.at,
                 args.seed * 1000003 + args.at)]
    else:
        lies = {mode: self_test(stages, folder, mode, args.seed) for mode in SELF_TESTS}
        jobs = jobs_make(stages, args, folder)
    with multiprocessing.Pool(args.jobs) as pool:
        results = list(pool.imap_unordered(worker, jobs, chunksize=1))
    report(results, time.monotonic() - began)
    failed = verdict(results, lies)
    if failed:
        print(f"what the failed ones left is in {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
