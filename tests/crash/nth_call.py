#!/usr/bin/env python3
"""Lets the n-th call to the disk, or the n-th request for memory, fail, and looks what comes of it.

    tests/crash/nth_call.py [--every K] [--jobs N] [--seed S] [--only KIND] [--stage STAGE --at N [--times N]]

The fixed workload of workload.py runs against the real binary; in the n-th run one call fails:

  change eio     a write (half of it happens), a sync (what was not safe never will be), a rename ...
  change enospc  the same calls find no room, once; what waits is to go on by itself
  change short   a write takes half of what it was given
  change eintr   a write or a sync is interrupted
  read eio, read short   a read from journal, extent or state store, at start-up too
  memory         malloc and its kin and mmap: each place of the program that asks, the first time and
                 in the middle and at the end
  memory outage  a hundred requests in a row, from anywhere

Whatever fails, the broker goes on, or refuses in the words of the protocol, or ends in order: exit code 0
or 1 and a line that says why. It never ends by a signal, never falls silent. Then, with the disk
as a power cut leaves it, it starts again and everything that was acknowledged is there.
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

from crash_points import BROKEN, Stages, recover
from mortal import AT, Mortal, Place
from recovery import Findings
from workload import Refused, Work

DISK = {"change eio": None, "change enospc": None, "change short": ("write", "pwrite", "pwritev",
                                                                    "writev"),
        "change eintr": ("write", "pwrite", "pwritev", "writev", "fdatasync"),
        "read eio": None, "read short": None}
KINDS = [*DISK, "memory", "memory outage"]
SHARDS = {"first": 2, "second": 1}
OUTAGE, OUTAGES = 100, 400  # requests in a row; from so many places of a stage
ANSWER_S = 20.0
END_S = 40.0
# A line that says why: an error in the log, or what is printed before there is one.
REASON = re.compile(r"level=(error|warn)|^weir: ", re.M)


class Job:
    """One failure: kind, stage, which call; of memory also the place."""

    def __init__(self, folder, kind, stage, start, at, site=None):
        self.folder, self.kind, self.stage, self.start = folder, kind, stage, start
        self.at, self.site = at, site

    def __str__(self):
        return f"{self.kind} {self.stage} {self.at}" + (f" of {self.site}" if self.site else "")

    def broker(self, place):
        if self.kind.startswith("memory"):
            env = {"NOMEM_AT": str(self.at)}
            env |= {"NOMEM_SITE": self.site} if self.site else {"NOMEM_COUNT": str(OUTAGE)}
            return Mortal(place, SHARDS[self.stage], shim="nomem.so", env=env)
        which, error = self.kind.split()
        return Mortal.cut(place, SHARDS[self.stage], kind="drop",
                          fail=f"{which}:{self.at}:1:{error}")


def persist(work, steps, broker):
    """Every step, with a new connection after each that failed. (refused, unanswered) by name."""
    refused, silent = [], []
    connected = False
    for name, step in steps:
        try:
            if not connected:
                work.connect()
            connected = True
            step()
            continue
        except Refused:
            refused.append(name)
        except TimeoutError:
            silent.append(name)
            connected = False
        except BROKEN:
            refused.append(name)
            connected = False
        if not broker.alive:
            break
    work.close()
    return refused, silent


def outcome_of(broker, said, refused, silent):
    """(outcome, what is wrong with it or None)."""
    if broker.code is None:
        return "stays", f"it does not end {END_S} s after SIGTERM"
    if broker.code not in (0, 1):
        return "died", f"it ended with {broker.code}"
    if broker.code == 1 and not REASON.search(said):
        return "ended", "it ended with 1 and said nothing"
    if broker.code == 1:
        return "ended, said why", None
    if silent:
        return "silent", f"no answer in {ANSWER_S} s to: {', '.join(silent)}"
    return ("refused, went on", None) if refused else ("went on", None)


def job_run(job, place):
    ledger = copy.deepcopy(job.start.ledger)
    place.take(job.start.data)
    refused, silent = [], []
    with job.broker(place) as broker:
        if broker.addrs is not None:
            work = Work(broker.addrs, ledger, ANSWER_S)
            steps = work.first_life() if job.stage == "first" else work.second_life()
            refused, silent = persist(work, steps, broker)
            if broker.alive:
                broker.terminate()
        code = broker.code
        broker.end_wait(END_S if code is None else 0)
        code = broker.code
        if code is None and not job.kind.startswith("memory"):
            broker.switch_off()
    broker.code = code
    said = place.said()
    hit = AT.search(said) or re.search(r"^nomem: (.*)$", said, re.M)
    outcome, problem = outcome_of(broker, said, refused, silent)
    result = {"kind": job.kind, "name": str(job), "hit": hit and hit[1], "outcome": outcome,
              "found": [f"{problem}\n{said[-1500:]}"] if problem else [],
              "refused": refused, "acknowledged": ledger.acknowledged(),
              "unknown": ledger.unknown(), "counts": collections.Counter()}
    findings = Findings()
    result["counts"].update(recover(place, place.data, ledger, findings))
    result["counts"].update(findings.counts)
    result["found"] += findings.lines
    return result


def worker(job):
    place = Place(job.folder / f"worker-{os.getpid()}")
    try:
        result = job_run(job, place)
    except Exception as error:  # noqa: BLE001
        result = {"kind": job.kind, "name": str(job), "hit": None, "outcome": "the test failed",
                  "found": [f"the test failed: {error!r}"], "refused": [], "acknowledged": 0,
                  "unknown": 0, "counts": {}}
    if result["found"]:
        kept = job.folder / re.sub(r"\W+", "-", f"failed {job}")
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(place.folder, kept, symlinks=True,
                        ignore=lambda _, names: ["cut"] if "cut" in names else [])
    return result


# --- what there is to fail -----------------------------------------------------------------------


def disk_jobs(folder, stages, place, rng, every):
    """Of each kind each k-th of the calls that it applies to."""
    jobs = []
    for stage in SHARDS:
        place.take(stages.starts[stage].data)
        stages.trace(place, stage)
        lines = [line.split() for line in place.trace.read_text().splitlines()]
        for kind, calls in DISK.items():
            which = kind.split()[0]
            numbers = [int(line[1]) for line in lines
                       if line[0] == which and (calls is None or line[2] in calls)]
            offset = rng.randrange(every)
            jobs += [Job(folder, kind, stage, stages.starts[stage], at)
                     for at in numbers[offset::every]]
    return jobs


def memory_jobs(folder, stages, place, rng, every):
    """Of each place in the program the first request, one in the middle and the last."""
    jobs = []
    for stage, start in stages.starts.items():
        place.take(start.data)
        with Mortal(place, SHARDS[stage], shim="nomem.so",
                    env={"NOMEM_TRACE": str(place.trace)}) as broker:
            work = Work(broker.addrs, copy.deepcopy(start.ledger))
            persist(work, work.first_life() if stage == "first" else work.second_life(), broker)
            broker.terminate()
        counts = collections.Counter(line.split()[1] for line in
                                     place.trace.read_text(errors="replace").splitlines())
        some = [(site, at) for site, count in sorted(counts.items())
                for at in sorted({1, (count + 1) // 2, count})]
        offset = rng.randrange(every)
        jobs += [Job(folder, "memory", stage, start, at, site) for site, at in some[offset::every]]
        total = sum(counts.values())
        jobs += [Job(folder, "memory outage", stage, start, rng.randrange(1, total + 1))
                 for _ in range(OUTAGES // every)]
    return jobs


# --- what came of it -----------------------------------------------------------------------------


def report(results, seconds):
    print(f"{len(results)} failures, {seconds:.0f} s")
    outcomes = sorted({r["outcome"] for r in results})
    for kind in KINDS:
        ours = [r for r in results if r["kind"] == kind]
        counts = collections.Counter(r["outcome"] for r in ours)
        missed = sum(r["hit"] is None for r in ours)
        print(f"  {kind + ':':15} {len(ours)} ({missed} not reached): " +
              ", ".join(f"{counts[name]} {name}" for name in outcomes if counts[name]))
    counts = collections.Counter()
    for result in results:
        counts.update(result["counts"])
    print(f"acknowledged: {sum(r['acknowledged'] for r in results)}, unanswered or refused: "
          f"{sum(r['unknown'] for r in results)}")
    print("found after the restarts: " + ", ".join(f"{n} {name}" for name, n in counts.items()))


def verdict(results):
    bad = [r for r in results if r["found"]]
    for result in bad[:25]:
        print(f"FAIL {result['name']}: {result['hit']}: {result['outcome']}")
        for line in result["found"][:4]:
            print("       " + line.replace("\n", "\n       "))
    print(f"{len(results) - len(bad)} passed, {len(bad)} failed")
    return len(bad) > 0


def main():
    parser = argparse.ArgumentParser(description="let the n-th call fail")
    parser.add_argument("--every", type=int, default=1, help="only each K-th")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=KINDS, help="one kind")
    parser.add_argument("--stage", choices=SHARDS, help="with --only and --at: one failure")
    parser.add_argument("--at", type=int)
    parser.add_argument("--site", help="of memory: the place")
    parser.add_argument("--times", type=int, default=1, help="that one failure so often")
    args = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="calls-", dir=os.environ.get("WEIR_TMP")))
    began = time.monotonic()
    stages, rng = Stages(folder), random.Random(args.seed)
    place = Place(folder / "prepare")
    if args.at:
        jobs = [Job(folder, args.only, args.stage, stages.starts[args.stage], args.at, args.site)
                ] * args.times
    else:
        jobs = disk_jobs(folder, stages, place, rng, args.every) + \
            memory_jobs(folder, stages, place, rng, args.every)
        jobs = [job for job in jobs if args.only in (None, job.kind)]
        rng.shuffle(jobs)
    with multiprocessing.Pool(args.jobs) as pool:
        results = list(pool.imap_unordered(worker, jobs, chunksize=1))
    report(results, time.monotonic() - began)
    failed = verdict(results)
    if failed:
        print(f"what the failed ones left is in {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
