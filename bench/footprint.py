#!/usr/bin/env python3
"""How small Weir is: `bench/run footprint`. Idle memory, binary, start, many idle objects, a backlog.

Peers are measured for comparison, with fewer objects where the full number would take hours; the
note of each figure says how many. Records go to bench/results/footprint.jsonl, from which the next
RESULTS.md takes its section; the last one is made again at once.
"""

import argparse
import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median

from brokers import BENCH, BrokerError, Kafka, RabbitMQ, Weir
from measure import LOAD, MeasureError, MemoryPeak, client_run, kafka_command


def folder_mb(folder):
    """Blocks in use, not apparent sizes: preallocated files count as what they take."""
    return sum(os.lstat(os.path.join(path, name)).st_blocks
               for path, _, names in os.walk(folder) for name in names) * 512 / 1e6


class Footprint:
    def __init__(self, options):
        self.options, self.records = options, []
        self.file = BENCH / "results/footprint.jsonl"
        self.file.parent.mkdir(exist_ok=True)

    def keep(self, item, broker, value, unit, target=None, note="", **more):
        record = {"suite": "footprint", "item": item, "broker": broker.name,
                  "value": round(value, 2), "unit": unit, "target": target, "note": note, **more}
        self.records.append(record)
        limit = f" (target ≤ {target} {unit})" if target is not None else ""
        print(f"  {broker.name:9} {item:44} {value:12.2f} {unit}{limit} {note}", flush=True)

    def wanted(self, part):
        return not self.options.only or part in self.options.only.split(",")

    def peers(self):
        wanted = self.options.brokers.split(",")
        found = [Weir(self.options.data, "sync", self.options.weir, self.options.shards),
                 RabbitMQ(self.options.data), Kafka(self.options.data)]
        for broker in found:
            if broker.name in wanted:
                trouble = broker.available()
                if trouble:
                    print(f"without {broker.name}: {trouble}")
                else:
                    yield broker

    # --- what it is --------------------------------------------------------------------------

    def binary(self, broker):
        with tempfile.NamedTemporaryFile() as stripped:
            subprocess.run(["strip", "-o", stripped.name, broker.binary], check=True)
            self.keep("binary, stripped", broker, os.path.getsize(stripped.name) / 1e6, "MB", 5)

    def start(self, broker):
        weir = broker.name == "weir"
        times = []
        for _ in range(7 if weir else 2):
            broker.start()
            times.append(broker.ready_ms)
            if len(times) == 1:
                time.sleep(3)
                self.keep("memory, idle", broker, broker.memory_mb(), "MB", 12 if weir else None)
            broker.stop()
        broker.clean()
        self.keep("start on an empty folder to ready", broker, median(times), "ms",
                  50 if weir else None, f"{min(times):.0f}..{max(times):.0f} of {len(times)} starts")

    # --- many idle objects -------------------------------------------------------------------

    def idle(self, broker):
        options, weir = self.options, broker.name == "weir"
        queues = options.queues if weir else 5000
        partitions = options.partitions if weir else 2000
        per_topic = 100
        broker.start()
        before = broker.memory_mb()
        notes = []
        if "amqp" in broker.faces:
            done = client_run([LOAD / "amqp_bench", "-m", "declare", "-p", broker.ports["amqp"],
                               "-q", "idle", "-n", queues, "-t", 1000], seconds_max=1000)
            self.keep("queues declared a second", broker, done["rate"], "/s",
                      note=f"{done['count']} durable queues")
            notes.append(f"{done['count']} queues")
        if "kafka" in broker.faces:
            done = client_run(kafka_command(broker, "-m", "create", "-T", "idle", "-N", per_topic,
                                            "-M", partitions // per_topic))
            self.keep("partitions created a second", broker, done["partitions"] / done["seconds"],
                      "/s", note=f"{done['partitions']} in topics of {per_topic}")
            notes.append(f"{done['partitions']} partitions")
        time.sleep(2)
        note = " + ".join(notes)
        self.keep("memory, idle objects", broker, broker.memory_mb(), "MB", 250 if weir else None,
                  f"{note}; {before:.0f} MB before")
        self.keep("disk, idle objects", broker, folder_mb(broker.folder), "MB", note=note)
        broker.stop()
        broker.start(fresh=False)
        self.keep("restart, idle objects", broker, broker.ready_ms / 1000, "s", 2 if weir else None,
                  note)
        time.sleep(1)
        self.keep("memory after restart, idle objects", broker, broker.memory_mb(), "MB",
                  250 if weir else None, note)
        self.idle_check(broker, queues, partitions // per_topic, per_topic)
        broker.stop()
        broker.clean()

    @staticmethod
    def idle_check(broker, queues, topics, per_topic):
        """All queues answer a passive declare, and the last topic takes messages."""
        if "amqp" in broker.faces:
            client_run([LOAD / "amqp_bench", "-m", "depth", "-p", broker.ports["amqp"], "-q", "idle",
                        "-K", queues])
        if "kafka" in broker.faces:
            done = client_run(kafka_command(broker, "-m", "produce", "-T", f"idle-{topics - 1}",
                                            "-N", per_topic, "-n", 10000, "-t", 60))
            if done["status"]:
                raise MeasureError(f"the last topic takes no messages: {done['problem']}")

    # --- a backlog ---------------------------------------------------------------------------

    def backlog_run(self, broker, mode, *arguments):
        memory = MemoryPeak(broker.processes())
        memory.start()
        try:
            done = client_run([LOAD / "amqp_bench", "-m", mode, "-L", "raw", "-p",
                               broker.ports["amqp"], "-q", "backlog", "-s", 100, "-t", 3000,
                               *arguments], seconds_max=3000)
        finally:
            peak = memory.end()
        if done["status"]:
            raise MeasureError(f"{mode}: {done['problem']}")
        return done, peak

    def restart(self, broker, how, target, note):
        if how == "killed":
            for pid in broker.processes():
                os.kill(pid, signal.SIGKILL)
        broker.stop()
        broker.start(fresh=False)
        self.keep(f"restart with a backlog, {how} before", broker, broker.ready_ms / 1000, "s",
                  target, note)

    def backlog(self, broker):
        weir = broker.name == "weir"
        count = self.options.backlog if weir else min(1000000, self.options.backlog)
        note = f"{count / 1e6:g} million messages of 100 B"
        limit = 300 if weir else None
        broker.start()
        done, peak = self.backlog_run(broker, "fill", "-d", "-w", 10000, "-n", count)
        self.keep("backlog fill rate", broker, done["rate"] / 1000, "k/s", note=note)
        self.keep("memory, peak while a backlog fills", broker, peak, "MB", limit, note)
        time.sleep(2)
        self.keep("memory with a backlog", broker, broker.memory_mb(), "MB", limit, note)
        self.keep("disk with a backlog", broker, folder_mb(broker.folder), "MB", note=note)
        self.restart(broker, "stopped", 1 if weir else None, note)
        if weir:
            self.restart(broker, "killed", 1, note)
        self.keep("memory after restart with a backlog", broker, broker.memory_mb(), "MB", limit,
                  note)
        done, peak = self.backlog_run(broker, "drain", "-a", 10000, "-n", count)
        self.keep("backlog drain rate", broker, done["rate"] / 1000, "k/s", note=note)
        self.keep("memory, peak while it drains", broker, peak, "MB", limit, note)
        wrong = done["order_errors"] + done["gaps"] + abs(count - done["received"])
        self.keep("backlog messages missing, doubled or out of order", broker, wrong, "", 0, note)
        broker.stop()
        broker.clean()

    def run(self):
        for broker in self.peers():
            print(broker.name, flush=True)
            parts = {"binary": broker.name == "weir", "start": True, "idle": True,
                     "backlog": "amqp" in broker.faces}
            for part, applies in parts.items():
                if not applies or not self.wanted(part):
                    continue
                try:
                    getattr(self, part)(broker)
                except (BrokerError, MeasureError, OSError) as problem:
                    print(f"  {part} failed: {problem}", flush=True)
                finally:
                    broker.stop()
                    broker.clean()
        self.write()

    def write(self):
        """Replaces what the file holds about the same items."""
        fresh = {(r["item"], r["broker"]) for r in self.records}
        old = []
        if self.file.exists():
            old = [r for r in map(json.loads, self.file.read_text().splitlines())
                   if (r["item"], r["broker"]) not in fresh]
        self.file.write_text("".join(json.dumps(r) + "\n" for r in old + self.records))
        runs = sorted(self.file.parent.glob("2*.jsonl"))
        if runs and not self.options.no_report:
            subprocess.run(["python3", BENCH / "run.py", "--report", runs[-1], self.file],
                           check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", help="parts: binary,start,idle,backlog")
    parser.add_argument("--brokers", default="weir,rabbitmq,kafka")
    parser.add_argument("--queues", type=int, default=100000)
    parser.add_argument("--partitions", type=int, default=100000)
    parser.add_argument("--backlog", type=int, default=20000000, metavar="MESSAGES")
    parser.add_argument("--weir", type=Path)
    parser.add_argument("--shards", type=int)
    parser.add_argument("--data", type=Path, default=BENCH / "data")
    parser.add_argument("--no-report", action="store_true", help="leave RESULTS.md as it is")
    Footprint(parser.parse_args()).run()


if __name__ == "__main__":
    main()
