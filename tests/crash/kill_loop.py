#!/usr/bin/env python3
"""Kills the broker again and again under mixed load and looks whether anything was lost.

    python3 tests/harness/pinned_venv.py run tests/crash tests/crash/kill_loop.py [--kills N] [--seed S]
    ... tests/crash/kill_loop.py --healthy SECONDS

AMQP publishers and consumers (amqp_load.py), Kafka producers, groups and readers (kafka_load.py) and
pika (pika_load.py) work at full speed while the broker ends at random moments: mostly by SIGKILL 0.05
to 0.6 s after it was ready, at times while it starts, at times by SIGTERM; and starts again with
another number of shards or another journal limit now and then. At times it is paused by SIGSTOP for a
moment, and goes on or is killed as it stands. When all kills are done the queues are drained, the log
is read from its start, and the histories (history.py) are checked. --healthy is the same load and the
same checks on a broker that nobody disturbs.

The same seed makes the same schedule and the same choices of the clients; what the machine makes of
them differs. With --power the broker runs under powercut.so and its end is a power cut: what was not
synced is gone, or partly there (see powercut.c; tests/crash/sabotage uses it).
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/harness"))

from amqp_link import Loop  # noqa: E402
from amqp_load import AmqpLoad  # noqa: E402
from history import AmqpHistory, Findings  # noqa: E402
from weir_server import ServerError, WeirServer, weir_binary  # noqa: E402

CHILD_WAIT_S = 180
STRIKE_WAIT_S = 10


# --- what happens when --------------------------------------------------------------------------


class Step:
    """One life of the broker: how it is started, how long it lives, how it ends."""

    def __init__(self, rng, shards, power):
        self.shards = shards
        if rng.random() < 0.15:
            self.shards = rng.randrange(1, 5)
        self.journal_mib = rng.choice((1, 1, 4, 32))
        self.memory_mib = rng.choice((256, 256, 256, 64, 32))
        dice = rng.random()
        self.how = "starting" if dice < 0.08 else "term" if dice < 0.16 else "kill"
        if power in ("late", "never"):
            # The state store is honest even on a disk that lies: a checkpoint would tell of what
            # the rest of the disk forgot, and the broker would refuse to start instead of losing.
            self.journal_mib, self.how = 64, "kill"
        self.long = rng.random() < 0.08
        self.seconds = (rng.uniform(0, 0.04) if self.how == "starting" else
                        rng.uniform(1.0, 2.0) if self.long else rng.uniform(0.05, 0.6))
        self.cut_seed = rng.randrange(1 << 32)
        self.pause_choose(random.Random(self.cut_seed), power)

    def pause_choose(self, rng, power):
        """pause_s: how long it stands still, late in its life; 0 is not at all. woken: it goes on
        afterwards (a power cut is done by the process itself, which has to run for that)."""
        self.pause_s, self.woken = 0.0, True
        if self.how in ("kill", "term") and rng.random() < 0.15:
            self.pause_s = rng.uniform(1.5, 3.0) if rng.random() < 0.1 else rng.uniform(0.02, 0.5)
            self.woken = self.how == "term" or power is not None or rng.random() < 0.7


def schedule_make(seed, kills, power):
    """Steps with that many kills; the SIGTERMs come on top."""
    rng = random.Random(f"schedule {seed}")
    steps, left = [], kills
    while left > 0:
        step = Step(rng, steps[-1].shards if steps else 2, power)
        left -= step.how != "term"
        steps.append(step)
    return steps


# --- the broker ---------------------------------------------------------------------------------


class Broker:
    """One data folder, one pair of ports, one life after the other."""

    def __init__(self, folder, power, incarnation):
        self.folder, self.power, self.incarnation = folder, power, incarnation
        self.listen = None
        self.server = None
        self.ready_ms = []
        self.ended_at = {}  # incarnation -> when it was told to end
        self.counts = {"kill": 0, "starting": 0, "term": 0, "starts": 0, "pauses": 0}
        self.woken_at = None
        self.unsynced = dict.fromkeys(("lost", "kept", "torn"), 0)  # writes, in power cuts
        self.fifo = folder / "cut"
        if power:
            os.mkfifo(self.fifo)

    def server_make(self, step):
        with self.incarnation.get_lock():
            self.incarnation.value += 1
        args = []
        if step is not None:
            args = ["--shards", step.shards, "--journal-limit-mib", step.journal_mib,
                    "--memory-limit-mib", step.memory_mib]
        env = {}
        if self.power:
            if not shim_path().exists():
                raise ServerError(f"{shim_path()} does not exist; build it or set WEIR_BUILD")
            env = {"LD_PRELOAD": str(shim_path()), "POWERCUT_FIFO": str(self.fifo),
                   "POWERCUT_MODE": self.power}
        self.server = WeirServer(listen=self.listen, data=self.folder / "data", args=args, env=env)
        self.counts["starts"] += 1

    def start(self, step=None):
        self.server_make(step)
        self.server.start()
        self.ready_ms.append(self.server.ready_ms)
        self.listen = self.listen or [f"{face}={self.server.hostport(face)}"
                                      for face in ("amqp", "kafka")]

    def start_and_kill(self, step):
        """Kills it while it starts, or just after."""
        self.server_make(step)
        server, failure = self.server, []

        def start():
            try:
                server.start()
            except ServerError as error:
                failure.append(error)

        thread = threading.Thread(target=start)
        thread.start()
        while thread.is_alive():
            try:
                pid = server.pid
                break
            except AttributeError:
                time.sleep(0.0005)
        time.sleep(step.seconds)
        self.strike(step.cut_seed)
        thread.join()
        if failure and "ended with -9" not in str(failure[0]):
            raise failure[0]
        self.end_note()

    def pause(self, seconds, woken):
        os.kill(self.server.pid, signal.SIGSTOP)
        self.counts["pauses"] += 1
        time.sleep(seconds)
        if woken:
            os.kill(self.server.pid, signal.SIGCONT)
            self.woken_at = time.monotonic()

    def end(self, how, cut_seed):
        self.ended_at[self.incarnation.value] = time.monotonic()
        self.woken_at = None
        if how == "term":
            self.server.stop()
        else:
            if not self.server.running:
                self.server.kill()  # says how it ended by itself
            self.strike(cut_seed)
        self.end_note()

    def strike(self, cut_seed):
        """SIGKILL, or what comes before it in a power cut; returns when the process is gone."""
        deadline = time.monotonic() + STRIKE_WAIT_S
        struck = False
        while self.server.running:
            if time.monotonic() > deadline:
                raise ServerError("the broker survives its end")
            if self.power and not struck:
                struck = self.switch_off(cut_seed)
            elif not struck:
                os.kill(self.server.pid, signal.SIGKILL)
                struck = True
            time.sleep(0.0005)

    def switch_off(self, cut_seed):
        """False while nobody listens to the switch."""
        try:
            fd = os.open(self.fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return False
        os.write(fd, f"{cut_seed}\n".encode())
        os.close(fd)
        return True

    def end_note(self):
        self.ended_at.setdefault(self.incarnation.value, time.monotonic())
        for line in re.findall(r"^powercut: unsynced writes (.*)", self.server.log(), re.M):
            for name, count in re.findall(r"(\w+)=(\d+)", line):
                self.unsynced[name] += int(count)
        shutil.copy(self.server.log_path, self.folder / f"weir-{self.incarnation.value:04}.log")
        shutil.rmtree(self.server.log_path.parent, ignore_errors=True)


def shim_path():
    return pathlib.Path(os.environ.get("WEIR_BUILD") or weir_binary().parent) / \
        "tests/crash/powercut.so"


class Driver(threading.Thread):
    """Runs the schedule; afterwards the broker runs and stays."""

    def __init__(self, broker, steps, findings, args):
        super().__init__(daemon=True)
        self.broker, self.steps, self.findings = broker, steps, findings
        self.quiet, self.healthy_s = args.quiet, args.healthy
        self.failed = False
        self.kept_up = 0.0

    def run(self):
        if self.healthy_s:
            time.sleep(self.healthy_s)
            self.kept_up = self.healthy_s
            return
        try:
            for number, step in enumerate(self.steps):
                self.step_run(number, step)
            self.broker.start()
        except ServerError as error:
            self.failed = True
            self.findings.add("refused", f"incarnation {self.broker.incarnation.value}: {error}")

    def step_run(self, number, step):
        if step.how == "starting" and number > 0:
            self.broker.start_and_kill(step)
        else:
            if number > 0:  # the first one runs already
                self.broker.start(step)
            time.sleep(step.seconds)
            self.kept_up += step.seconds
            if step.pause_s:
                self.broker.pause(step.pause_s, step.woken)
            if step.pause_s and step.woken:
                time.sleep(step.seconds / 2)
                self.kept_up += step.seconds / 2
            self.broker.end(step.how, step.cut_seed)
        self.broker.counts[step.how] += 1
        if not self.quiet and (number + 1) % 25 == 0:
            print(f"  {number + 1} of {len(self.steps)} lives", flush=True)


# --- the other clients --------------------------------------------------------------------------


def child_main(kind, listen, seed, incarnation, finish, answers):
    """In a process of its own. Sends (kind, counts, findings, first confirms)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    addresses = dict(item.split("=") for item in listen)

    def now():
        return incarnation.value

    if kind == "kafka":
        from kafka_load import KafkaLoad
        load = KafkaLoad(addresses["kafka"], now, seed)
    else:
        from pika_load import PikaLoad
        host, _, port = addresses["amqp"].rpartition(":")
        load = PikaLoad((host, int(port)), now)
    counts = {}
    try:
        counts = load.run(finish.wait)
    except Exception as error:  # noqa: BLE001
        load.findings.add("refused", f"{kind}: {error!r}")
    answers.put((kind, counts, load.findings.state(), load.first_acks))


class Children:
    def __init__(self, listen, seed, incarnation):
        context = multiprocessing.get_context("spawn")
        self.finish, self.answers = context.Event(), context.Queue()
        self.processes = [
            context.Process(target=child_main, daemon=True,
                            args=(kind, listen, seed, incarnation, self.finish, self.answers))
            for kind in ("kafka", "pika")]
        for process in self.processes:
            process.start()

    def collect(self, findings, confirms):
        counts = {}
        for _ in self.processes:
            kind, counts[kind], state, first_acks = self.answers.get(timeout=CHILD_WAIT_S)
            findings.merge(Findings.of(state))
            for incarnation, when in first_acks.items():
                confirms[incarnation] = min(when, confirms.get(incarnation, when))
        for process in self.processes:
            process.join(10)
        return counts

    def end(self):
        for process in self.processes:
            if process.is_alive():
                process.terminate()


# --- the whole of it ----------------------------------------------------------------------------


def outages(ended_at, confirms):
    """(seconds, incarnation) from each end to the next confirm that anybody got."""
    spans, since = [], None
    for incarnation in sorted(set(ended_at) | set(confirms)):
        if since is not None and incarnation in confirms:
            spans.append((confirms[incarnation] - since, incarnation))
            since = None
        if since is None and incarnation in ended_at:
            since = ended_at[incarnation]
    return spans


class Watch:
    """When the first confirm came: of each incarnation, and after each pause."""

    def __init__(self, broker):
        self.broker, self.confirms, self.resumed = broker, {}, []

    def __call__(self, number):
        woken_at = self.broker.woken_at
        if woken_at is None and number in self.confirms:
            return
        now = time.monotonic()
        self.confirms.setdefault(number, now)
        if woken_at is not None:
            self.resumed.append(now - woken_at)
            self.broker.woken_at = None


def data_check(data):
    """`weir check` on the folder that the broker left; None when it found nothing."""
    done = subprocess.run([str(weir_binary()), "check", "--data", str(data)], timeout=60,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return None if done.returncode == 0 else f"weir check ended with {done.returncode}: {done.stdout}"


def run(args, folder):
    findings = Findings()
    incarnation = multiprocessing.get_context("spawn").Value("i", 0)
    broker = Broker(folder, args.power, incarnation)
    steps = [] if args.healthy else schedule_make(args.seed, args.kills, args.power)
    broker.start(steps[0] if steps else None)
    host, port = broker.server.addr("amqp")
    loop = Loop((host, port), lambda: incarnation.value,
                lambda text: findings.add("refused", text))
    history = AmqpHistory(findings, lambda number: number in broker.ended_at)
    watch = Watch(broker)
    load = AmqpLoad(loop, history, args.seed, watch)
    children = Children(broker.listen, args.seed, incarnation)
    driver = Driver(broker, steps, findings, args)
    load.start()
    began = time.monotonic()
    load.turn_for(1.0)  # the other processes need that long to come up
    driver.start()
    while driver.is_alive():
        load.turn()
    load.turn_for(0.5)
    seconds = time.monotonic() - began
    counts = {}
    ended_at = dict(broker.ended_at)  # from here on nobody publishes all the time
    try:
        if not driver.failed:
            load.quiet()
            if not args.power and not args.healthy:
                broker.end("term", 0)
                broker.start()
            children.finish.set()
            try:
                load.drain()
            finally:
                counts["amqp"] = history.finish()
            counts |= children.collect(findings, watch.confirms)
            broker.end("term", 0)
            problem = data_check(broker.folder / "data")
            if problem:
                findings.add("refused", problem)
    except (ServerError, TimeoutError, multiprocessing.queues.Empty) as error:
        findings.add("refused", f"at the end: {error!r}")
    finally:
        children.end()
        loop.close()
        if broker.server.running:
            os.kill(broker.server.pid, signal.SIGKILL)
            broker.end_note()
    outage = Outage(outages(ended_at, watch.confirms), watch.resumed)
    return findings, counts, broker, outage, seconds, driver.kept_up


class Outage:
    """spans: (seconds, incarnation) from each end to the next confirm; resumed: from each waking."""

    def __init__(self, spans, resumed):
        self.spans, self.resumed = spans, resumed

    @staticmethod
    def figures(values):
        if not values:
            return {"count": 0}
        return {"count": len(values), "p50_ms": round(statistics.median(values) * 1000, 1),
                "max_ms": round(max(values) * 1000, 1)}

    def state(self):
        return {"outage": self.figures([seconds for seconds, _ in self.spans]),
                "resumed": self.figures(self.resumed)}

    def report(self):
        state = self.state()
        if self.spans:
            print("outage: {count}, from the end to the next confirm p50 {p50_ms:.0f} ms, max "
                  "{max_ms:.0f} ms".format(**state["outage"]) + f" (incarnation {max(self.spans)[1]})")
        if self.resumed:
            print("pauses: {count} ended, from the waking to the next confirm p50 {p50_ms:.0f} ms, "
                  "max {max_ms:.0f} ms".format(**state["resumed"]))


def report(args, findings, counts, broker, outage, seconds, kept_up):
    ends = broker.counts
    cause = f"power cuts ({args.power})" if args.power else "SIGKILLs"
    print(f"{ends['kill'] + ends['starting']} {cause} (of them {ends['starting']} in start-up), "
          f"{ends['term']} SIGTERMs, {ends['pauses']} pauses, {ends['starts']} starts, seed {args.seed}, {seconds:.1f} s of "
          f"which {kept_up:.1f} up")
    if args.power:
        print("unsynced writes: " + ", ".join(f"{n} {name}" for name, n in broker.unsynced.items()))
    for kind in ("amqp", "pika", "kafka"):
        words = ", ".join(f"{value} {name}" for name, value in counts.get(kind, {}).items())
        print(f"{kind + ':':6} {words or 'no result'}")
    confirmed = (counts.get("amqp", {}).get("confirmed", 0) + counts.get("pika", {}).get("confirmed", 0)
                 + counts.get("kafka", {}).get("acknowledged", 0))
    print(f"rate:  {confirmed / max(kept_up, 0.1):.0f} acknowledged a second that it was up")
    if broker.ready_ms:
        print(f"start: ready after p50 {statistics.median(broker.ready_ms):.0f} ms, "
              f"max {max(broker.ready_ms):.0f} ms")
    outage.report()


def verdict(args, findings, counts):
    """Prints a line per check; (passed, failed)."""
    results = [(findings.count[kind] == 0, text, findings.count[kind], findings.examples[kind])
               for kind, text in Findings.KINDS.items()]
    rounds = int(args.healthy) or args.kills
    least = rounds * 100
    done = {"amqp": "confirmed", "pika": "confirmed", "kafka": "acknowledged"}
    idle = [f"{kind}: {counts.get(kind, {}).get(name, 0)}" for kind, name in done.items()
            if counts.get(kind, {}).get(name, 0) < (least if kind == "amqp" else rounds)]
    results.append((not idle, "the clients had something to do", len(idle), idle))
    for good, text, count, examples in results:
        print(f"{'ok  ' if good else 'FAIL'} {text}" + ("" if good else f" ({count})"))
        for example in examples if not good else ():
            print("       " + str(example).replace("\n", "\n       "))
    failed = sum(not good for good, *_ in results)
    return len(results) - failed, failed


def main():
    parser = argparse.ArgumentParser(description="kill the broker under load, check the histories")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--power", choices=("honest", "late", "never"),
                        help="power cuts instead of kills, and what fdatasync is worth")
    parser.add_argument("--healthy", type=float, default=0, metavar="SECONDS",
                        help="no kills: a broker that nobody disturbs for so long")
    parser.add_argument("--json", type=pathlib.Path, help="write counts and findings there too")
    parser.add_argument("--quiet", action="store_true")
    args = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="crash-", dir=os.environ.get("WEIR_TMP")))
    findings, counts, broker, outage, seconds, kept_up = run(args, folder)
    report(args, findings, counts, broker, outage, seconds, kept_up)
    if args.json:
        args.json.write_text(json.dumps({
            "counts": counts, "findings": findings.state(), "ends": broker.counts,
            "unsynced": broker.unsynced, "seed": args.seed, "power": args.power,
            "seconds": round(seconds, 1), "up_seconds": round(kept_up, 1), **outage.state()}))
    passed, failed = verdict(args, findings, counts)
    if failed:
        print(f"data and logs are kept in {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
