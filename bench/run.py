#!/usr/bin/env python3
"""Measures Weir beside RabbitMQ and Kafka: `make bench ARGS="--quick"`.

Brokers run alone, in turn: a round starts each once and runs every scenario on it; the next round
does so again in the opposite order, so that a disturbance of the machine touches all alike. What
is printed while it runs is also kept, one JSON record a line, in bench/results/; RESULTS.md is
made from those records, after every round.
"""

import argparse
import json
import os
import shlex
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import physical
import report
from brokers import BENCH, BrokerError, Kafka, Mock, RabbitMQ, Weir, process_alive
from measure import MeasureError, Runner, commands_for
from scenarios import HALF, select

ROUNDS = {"quick": 3, "default": 3, "full": 5}
SECONDS = {"quick": 1.0, "default": 2.0, "full": 3.0}
FILL_BYTES = {"quick": 200_000_000, "default": 1_000_000_000, "full": 2_000_000_000}


def arguments_parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    level = parser.add_mutually_exclusive_group()
    level.add_argument("--quick", action="store_const", const="quick", dest="level",
                       help="a few scenarios, about 3 minutes")
    level.add_argument("--full", action="store_const", const="full", dest="level",
                       help="all of them, hours")
    parser.set_defaults(level="default")
    parser.add_argument("--only", metavar="PATTERN", help="scenarios whose name matches")
    parser.add_argument("--brokers", default="weir,rabbitmq,kafka,mock", metavar="NAME,...")
    parser.add_argument("--rounds", type=int, help="repetitions of every scenario")
    parser.add_argument("--seconds", type=float, help="of every flat-out run")
    parser.add_argument("--weir", type=Path, help="the binary (default build/weir)")
    parser.add_argument("--shards", type=int, help="of Weir (default: one for each core)")
    parser.add_argument("--data", type=Path, default=BENCH / "data", help="folder for brokers' data")
    parser.add_argument("--output", type=Path, default=BENCH / "RESULTS.md")
    parser.add_argument("--calm", type=float, default=4, metavar="SECONDS",
                        help="wait at most so long before a run while others use the machine")
    parser.add_argument("--no-physical", action="store_true",
                        help="leave out machine limits, instructions and system calls")
    parser.add_argument("--list", action="store_true", help="print the scenarios and end")
    parser.add_argument("--command", metavar="SCENARIO",
                        help="print its client's commands, the one that counts last, for a broker "
                             "on the ports of WEIR_PORTS (amqp=N,kafka=N), and end")
    parser.add_argument("--report", nargs="+", metavar="FILE", type=Path,
                        help="only make RESULTS.md again from records")
    return parser.parse_args()


class Session:
    def __init__(self, options):
        self.options = options
        self.scenarios = self.with_flat(select(options.level, options.only))
        self.rounds = options.rounds or ROUNDS[options.level]
        self.runner = Runner(options.seconds or SECONDS[options.level], FILL_BYTES[options.level],
                             1.0 if options.level == "quick" else 2.5, options.calm)
        self.records, self.half_rates, self.versions = [], {}, {}
        self.began = datetime.now(timezone.utc)
        self.commit = report.commit()  # now: work may go on while it runs
        results = BENCH / "results"
        results.mkdir(exist_ok=True)
        self.file = open(results / f"{self.began:%Y%m%d-%H%M%S}.jsonl", "w")

    def with_flat(self, scenarios):
        """A scenario at half of the peer's rate needs the one that finds that rate."""
        names = {s.name for s in scenarios}
        needed = {s.flat for s in scenarios if s.settings["rate"] == HALF} - names
        return [s for s in select("full") if s.name in needed] + scenarios if needed else scenarios

    def brokers(self):
        """(broker, its scenarios), peers first: their rate sets the pace of others."""
        options = self.options
        wanted = set(options.brokers.split(","))
        amqp = [s for s in self.scenarios if s.family == "amqp"]
        kafka = [s for s in self.scenarios if s.family == "kafka"]
        weir = {"binary": options.weir, "shards": options.shards}
        plan = [
            (RabbitMQ(options.data), amqp),
            (Kafka(options.data), kafka),
            (Mock(options.data), [s for s in kafka if s.operation == "produce" and
                                  s.client == "librdkafka" and s.durability == "os"]),
            (Weir(options.data, "sync", **weir),
             amqp + [s for s in kafka if s.durability == "flush"]),
            (Weir(options.data, "os", **weir), [s for s in kafka if s.durability == "os"]),
        ]
        chosen = []
        for broker, scenarios in plan:
            if not scenarios or broker.name.split("-")[0] not in wanted:
                continue
            trouble = broker.available()
            if trouble:
                print(f"without {broker.name}: {trouble}", flush=True)
                continue
            self.versions[broker.name.split("-")[0]] = broker.version()
            if broker.name.startswith("weir"):
                # Only the faces in use: a binary that lacks one can still be measured.
                broker.faces = tuple(sorted({s.family for s in scenarios}))
            chosen.append((broker, scenarios))
        return chosen

    def keep(self, record):
        self.records.append(record)
        self.file.write(json.dumps(record) + "\n")
        self.file.flush()

    def rate_for(self, scenario, broker, half_of):
        """Messages a second, None for flat out, 0 when the peer's rate is not known."""
        if scenario.settings["rate"] != HALF:
            return scenario.settings["rate"]
        if scenario.flat in self.half_rates:
            return self.half_rates[scenario.flat]
        peer = [r["rate"] for r in self.records if r.get("scenario") == scenario.flat and
                r["broker"] in half_of and "rate" in r]
        if not peer:
            return 0
        # Two digits, and the same in every round.
        half = sum(peer) / len(peer) / 2
        self.half_rates[scenario.flat] = float(f"{half:.2g}")
        return self.half_rates[scenario.flat]

    def measure(self, scenario, broker, turn):
        peers = ("rabbitmq", "kafka") if set(self.versions) & {"rabbitmq", "kafka"} else ("weir",)
        rate = self.rate_for(scenario, broker, peers)
        if rate == 0:
            return
        record = {"suite": "flow", "scenario": scenario.name, "broker": broker.name, "round": turn,
                  "settings": {"family": scenario.family, "operation": scenario.operation,
                               "size": scenario.size, **scenario.settings}}
        if rate:
            record["asked_rate"] = rate
        try:
            record.update(self.runner.run(scenario, broker, rate))
            if record.get("status"):
                record["error"] = record.get("problem", "failed")
        except (MeasureError, BrokerError) as problem:
            record["error"] = str(problem)
        self.keep(record)
        self.show(record)
        if record.get("error") and not (broker.process and process_alive(broker.process.pid)):
            print(f"  {broker.name} has ended; it starts again", flush=True)
            broker.stop()
            broker.start()

    @staticmethod
    def show(record):
        if record.get("error"):
            print(f"  {record['scenario']:48} FAILED {record['error'][:200]}", flush=True)
            return
        tail = record.get("latency_us", {}).get("p99", 0) / 1000
        confirm = record.get("confirm_us", {}).get("p50", 0) / 1000
        print(f"  {record['scenario']:48} {record['rate'] / 1000:9.1f} k/s"
              f"  broker {record.get('broker_cpu_us', 0):8.3f} us"
              f"  client {record['client_cpu_us']:7.3f} us  p99 {tail:8.2f} ms"
              f"  confirm p50 {confirm:7.2f} ms  {record['rss_peak_mb']:6.0f} MB", flush=True)

    def round(self, turn, plan):
        for broker, scenarios in plan if turn % 2 else reversed(plan):
            print(f"round {turn}: {broker.name}", flush=True)
            try:
                broker.start()
            except BrokerError as problem:
                self.keep({"suite": "start", "broker": broker.name, "error": str(problem)})
                print(f"  does not start: {problem}", flush=True)
                continue
            try:
                self.runner.warm(broker)
                for scenario in scenarios:
                    self.measure(scenario, broker, turn)
            except MeasureError as problem:
                print(f"  does not warm up: {problem}", flush=True)
            finally:
                broker.stop()
                broker.clean()
            if self.options.level != "quick":
                os.sync()

    def write(self, turn):
        took = (datetime.now(timezone.utc) - self.began).total_seconds() / 60
        notes = BENCH / "notes.md"
        header = {
            **report.machine(), "commit": self.commit,
            "brokers": "; ".join(self.versions.values()),
            "command": "bench/run " + " ".join(shlex.quote(a) for a in sys.argv[1:]),
            "measured": f"{self.began:%Y-%m-%d %H:%M} UTC, {took:.0f} minutes, {turn} rounds of "
                        f"{self.runner.seconds:g} s runs, brokers alone in turn",
        }
        self.file.write(json.dumps({"suite": "header", **header}) + "\n")
        self.file.flush()
        footprint = BENCH / "results/footprint.jsonl"
        sizes = [json.loads(line) for line in footprint.read_text().splitlines()] \
            if footprint.exists() else []
        text = report.Report(header, self.records + sizes,
                             notes.read_text() if notes.exists() else None)
        self.options.output.write_text(text.text())

    def run(self):
        plan = self.brokers()
        if not self.options.no_physical:
            self.options.data.mkdir(parents=True, exist_ok=True)
            for record in physical.machine(self.options.data, self.options.level):
                self.keep({"suite": "physical", **record})
        for turn in range(1, self.rounds + 1):
            self.round(turn, plan)
            self.write(turn)
        weir = [broker for broker, _ in plan if broker.name.startswith("weir")]
        if weir and not self.options.no_physical and not self.options.only:
            for record in physical.paths(self.options.data, self.options.weir, self.options.level):
                self.keep({"suite": "path", **record})
            self.write(self.rounds)
        print(f"wrote {self.options.output}")


def report_again(options):
    records, header = [], {}
    for path in options.report:
        for line in path.read_text().splitlines():
            record = json.loads(line)
            if record["suite"] == "header":
                header = {k: v for k, v in record.items() if k != "suite"} | {
                    k: v for k, v in header.items() if k in ("command", "commit")}
            records.append(record)
    notes = BENCH / "notes.md"
    text = report.Report(header, records, notes.read_text() if notes.exists() else None).text()
    options.output.write_text(text)


class Listening:
    """A broker that somebody else started."""

    name, faces = "weir", ("amqp", "kafka")

    def __init__(self, ports):
        self.ports = dict(pair.split("=") for pair in ports.split(","))

    def processes(self):
        return []


def commands_print(options):
    scenario = next((s for s in select("full") if s.name == options.command), None)
    if not scenario:
        sys.exit(f"no scenario {options.command}; --full --list shows them")
    rate = scenario.settings["rate"] if scenario.settings["rate"] != HALF else 10000
    broker = Listening(os.environ.get("WEIR_PORTS", "amqp=5672,kafka=9092"))
    for command in commands_for(scenario, broker, options.seconds or 5, rate):
        print(shlex.join(str(part) for part in command))


def main():
    options = arguments_parse()
    if options.list:
        for scenario in select(options.level, options.only):
            print(scenario.name)
        return
    if options.command:
        commands_print(options)
        return
    if options.report:
        report_again(options)
        return
    began = time.monotonic()
    Session(options).run()
    print(f"{(time.monotonic() - began) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
