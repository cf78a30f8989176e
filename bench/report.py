"""RESULTS.md from records: medians, spreads, ratios, targets and whether they are met."""

import os
import platform
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from brokers import BENCH, ROOT
from scenarios import HALF

DISTURBED = 0.5  # cores that neither broker nor client used during a run
SATURATED = 0.9  # of a core by the client's busiest thread, or of the machine with the client ahead


@dataclass
class Check:
    """A target and whether it is met; `note` tells why a miss may stand."""
    what: str
    value: str
    target: str
    met: bool
    note: str = ""

    def __str__(self):
        return f"{self.what} {self.value}{' ' + self.note if self.note else ''}"


class Measured:
    """The runs of one scenario on one broker, without those that others disturbed."""

    def __init__(self, runs):
        self.errors = [run["error"] for run in runs if run.get("error")]
        whole = [run for run in runs if not run.get("error")]
        quiet = [run for run in whole if run.get("others_cores", 0) <= DISTURBED]
        # With fewer than three quiet runs, the three least disturbed: chosen by noise, not by result.
        whole.sort(key=lambda run: run.get("others_cores", 0))
        self.runs = quiet if len(quiet) >= 3 else whole[:3]

    def values(self, path):
        found = []
        for run in self.runs:
            value = run
            for part in path.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            if value is not None:
                found.append(value)
        return found

    def middle(self, path):
        values = self.values(path)
        return median(values) if values else None

    def worst(self, path):
        return max(self.values(path), default=None)

    def saturated(self):
        """Whether the client, not the broker, set the pace."""
        busiest = max(self.worst(path) or 0 for path in
                      ("publisher_busy", "consumer_busy", "busiest_thread"))
        client, broker = self.middle("client_cores") or 0, self.middle("broker_cores") or 0
        full = client + broker >= SATURATED * (os.cpu_count() or 1)
        return busiest >= SATURATED or (full and client > broker)


def number(value):
    if value is None:
        return "–"
    if value >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def thousands(found):
    """Median rate in k/s with its spread."""
    values = found.values("rate") if found else []
    if not values:
        return "failed" if found and found.errors else "–"
    low, middle, high = (number(v / 1000) for v in (min(values), median(values), max(values)))
    return f"{middle} [{low}..{high}]"


def latency(found, path):
    if not found or found.middle(f"{path}.p50") is None or not found.middle(f"{path}.n"):
        return "–"
    return "/".join(number(found.middle(f"{path}.{q}") / 1000) for q in ("p50", "p99", "p999"))


def field_of(found, path):
    return number(found.middle(path)) if found else "–"


def both(ours, theirs, path):
    return f"{field_of(ours, path)} / {field_of(theirs, path)}"


def ratio(ours, theirs, path):
    mine = ours.middle(path) if ours else None
    other = theirs.middle(path) if theirs else None
    return mine / other if mine and other else None


def times(value):
    return "–" if value is None else f"{number(value)}×"


def part(value):
    """A share as 1/N."""
    return "–" if not value else f"1/{number(1 / value)}"


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |",
             "|" + "|".join("---" if i == 0 else "---:" for i in range(len(header))) + "|"]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def verdict(checks):
    if not checks:
        return "–"
    return "pass" if all(check.met for check in checks) else "**miss**"


class Report:
    def __init__(self, header, records, notes=None):
        self.header, self.notes = header, notes
        self.found, self.scenarios = {}, {}
        self.physical = [r for r in records if r.get("suite") == "physical"]
        self.paths = [r for r in records if r.get("suite") == "path"]
        self.footprint = [r for r in records if r.get("suite") == "footprint"]
        grouped = {}
        for record in records:
            if record.get("suite") == "flow":
                grouped.setdefault((record["scenario"], record["broker"]), []).append(record)
                self.scenarios[record["scenario"]] = record["settings"]
        for key, runs in grouped.items():
            self.found[key] = Measured(runs)
        self.missed, self.checked = [], 0

    def get(self, scenario, broker):
        return self.found.get((scenario, broker))

    def judge(self, scenario, checks):
        self.checked += len(checks)
        self.missed += [f"{scenario}: {check} (target {check.target})"
                        for check in checks if not check.met]
        return verdict(checks)

    def sync_us(self):
        """Median of one write + fdatasync of 4 KiB into a written file, on this disk."""
        values = [r["us"]["p50"] for r in self.physical
                  if r.get("item") == "fdatasync" and r.get("prepared") and r["bytes"] == 4096]
        return median(values) if values else None

    # --- AMQP --------------------------------------------------------------------------------

    def cpu_check(self, ours, theirs, at_most):
        share = ratio(ours, theirs, "broker_cpu_us")
        if share is None:
            return []
        return [Check("broker CPU", part(share), f"≤ 1/{at_most:g}", share <= 1 / at_most)]

    def amqp_flat(self):
        rows = []
        for name, settings in self.scenarios.items():
            if settings["family"] != "amqp" or settings["rate"]:
                continue
            ours, theirs = self.get(name, "weir"), self.get(name, "rabbitmq")
            wanted = 3 if settings["size"] >= 10240 else 10
            faster = ratio(ours, theirs, "rate")
            checks = self.cpu_check(ours, theirs, 15)
            if faster is not None:
                bound = ours.saturated()
                checks.append(Check("rate", times(faster), f"≥ {wanted}×", faster >= wanted or bound,
                                    "client saturated" if bound else ""))
            share = ratio(ours, theirs, "broker_cpu_us")
            rows.append([
                name[5:-5], thousands(ours), thousands(theirs),
                times(faster) + (" client-bound" if ours and ours.saturated() else ""),
                f"{wanted}×", field_of(ours, "broker_cpu_us"), field_of(theirs, "broker_cpu_us"),
                part(share), "1/15", both(ours, theirs, "client_cpu_us"),
                f"{field_of(ours, 'publisher_busy')} + {field_of(ours, 'consumer_busy')}",
                field_of(ours, "rss_peak_mb"), field_of(theirs, "rss_peak_mb"),
                self.judge(name, checks)])
        return self.section(
            "AMQP 0-9-1, flat out",
            "Publish to delivery through rabbitmq-c on both brokers; durable is persistent messages, "
            "publisher confirms with so many in flight, prefetch as large, acknowledged by half of "
            "it at once. Weir syncs to disk. Rates in thousands of messages a second, median "
            "[lowest..highest]; CPU in µs a message; busy: of a core by the client's busiest "
            "publisher + consumer thread, with Weir.",
            ["scenario", "Weir k/s", "RabbitMQ k/s", "rate", "target", "Weir CPU", "RabbitMQ CPU",
             "CPU", "target", "client CPU", "busy", "Weir MB", "RabbitMQ MB", ""], rows)

    def amqp_paced(self):
        rows = []
        for name, settings in self.scenarios.items():
            if settings["family"] != "amqp" or not settings["rate"]:
                continue
            ours, theirs = self.get(name, "weir"), self.get(name, "rabbitmq")
            checks = self.cpu_check(ours, theirs, 15)
            tail = ratio(ours, theirs, "latency_us.p99")
            if settings["rate"] == HALF and tail is not None:
                checks.append(Check("p99", part(tail), "≤ 1/5", tail <= 1 / 5))
            if settings["rate"] == 1000 and settings["durable"] and ours:
                checks += self.service_checks(ours)
            asked = ours.middle("asked_rate") if ours else theirs and theirs.middle("asked_rate")
            rows.append([
                name[5:], number(asked / 1000) if asked else "–",
                latency(ours, "latency_us"), latency(theirs, "latency_us"), part(tail),
                "1/5" if settings["rate"] == HALF else "", latency(ours, "confirm_us"),
                latency(theirs, "confirm_us"), field_of(ours, "broker_cpu_us"),
                field_of(theirs, "broker_cpu_us"), part(ratio(ours, theirs, "broker_cpu_us")),
                "1/15", self.judge(name, checks)])
        return self.section(
            "AMQP 0-9-1, paced",
            "Open loop: a message's latency counts from the moment it was due. `half` is half of "
            "RabbitMQ's own flat-out rate in that scenario. Latencies in ms, p50/p99/p99.9, medians "
            "of the runs; confirm: publish to publisher confirm.",
            ["scenario", "k/s", "Weir", "RabbitMQ", "p99", "target", "Weir confirm",
             "RabbitMQ confirm", "Weir CPU", "RabbitMQ CPU", "CPU", "target", ""], rows)

    def service_checks(self, ours):
        delivered, confirmed = ours.middle("latency_us.p50"), ours.middle("confirm_us.p50")
        checks = []
        if delivered is not None:
            checks.append(Check("p50 to delivery", f"{number(delivered)} µs", "≤ 200 µs",
                                delivered <= 200))
        sync = self.sync_us()
        if sync and confirmed is not None:
            checks.append(Check("p50 to confirm", f"{number(confirmed)} µs",
                                f"≤ {number(2 * sync)} µs, twice one fdatasync",
                                confirmed <= 2 * sync))
        return checks

    # --- Kafka -------------------------------------------------------------------------------

    def kafka_rows(self, operation):
        for name, settings in self.scenarios.items():
            if settings["family"] == "kafka" and settings["operation"] == operation:
                weir = "weir" if settings["durability"] == "flush" else "weir-os"
                yield name, settings, self.get(name, weir), self.get(name, "kafka")

    def kafka_produce(self):
        rows = []
        for name, settings, ours, theirs in self.kafka_rows("produce"):
            ceiling = self.get(re.sub(r"/flush$", "/os", name), "mock")
            faster, share = ratio(ours, theirs, "rate"), ratio(ours, ceiling, "rate")
            checks = self.cpu_check(ours, theirs, 3)
            if faster is not None:
                bound = ours.saturated()
                met = faster >= 2 or (share or 0) >= 0.9 or bound
                text = times(faster) + (f", {share:.0%} of ceiling" if share else "")
                checks.append(Check("rate", text, "≥ 90 % of the client's ceiling or 2×", met,
                                    "client saturated" if bound else ""))
            rows.append([
                name[6:], thousands(ours), thousands(theirs), thousands(ceiling),
                f"{share:.0%}" if share else "–", "90 %",
                times(faster) + (" client-bound" if ours and ours.saturated() else ""), "2×",
                field_of(ours, "broker_cpu_us"), field_of(theirs, "broker_cpu_us"),
                part(ratio(ours, theirs, "broker_cpu_us")), "1/3",
                both(ours, theirs, "client_cpu_us"), field_of(ours, "rss_peak_mb"),
                field_of(theirs, "rss_peak_mb"), self.judge(name, checks)])
        return self.section(
            "Kafka, produce",
            "CLIENT/produce/SIZE/PARTITIONSxPRODUCERS/DURABILITY, acks=all, otherwise the client's "
            "defaults. os: acknowledged from the page cache (Kafka's default, Weir with "
            "`--durability os`); flush: after a flush of the batch (Kafka with flush.messages=1, "
            "Weir with `--durability sync`). Ceiling: the same client against librdkafka's mock "
            "cluster in a process of its own. One of the two rate targets is enough.",
            ["scenario", "Weir k/s", "Kafka k/s", "ceiling k/s", "of ceiling", "target", "rate",
             "target", "Weir CPU", "Kafka CPU", "CPU", "target", "client CPU", "Weir MB",
             "Kafka MB", ""], rows)

    def kafka_consume(self):
        rows = []
        for name, settings, ours, theirs in self.kafka_rows("consume"):
            faster = ratio(ours, theirs, "rate")
            checks = self.cpu_check(ours, theirs, 3)
            bound = ours.saturated() if ours else False
            if faster is not None:
                checks.append(Check("rate", times(faster), "≥ 1.5×", faster >= 1.5 or bound,
                                    "client saturated" if bound else ""))
            rows.append([
                name[6:], thousands(ours), thousands(theirs),
                times(faster) + (" client-bound" if bound else ""), "1.5×",
                field_of(ours, "broker_cpu_us"), field_of(theirs, "broker_cpu_us"),
                part(ratio(ours, theirs, "broker_cpu_us")), "1/3",
                both(ours, theirs, "client_cpu_us"), field_of(ours, "busiest_thread"),
                self.judge(name, checks)])
        return self.section(
            "Kafka, consume from the start",
            "cache: just written; disk: the broker restarted and the page cache dropped before. "
            "PARTITIONSxCONSUMERS, partitions assigned.",
            ["scenario", "Weir k/s", "Kafka k/s", "rate", "target", "Weir CPU", "Kafka CPU", "CPU",
             "target", "client CPU", "busiest thread", ""], rows)

    def kafka_flow(self):
        rows = []
        for name, settings, ours, theirs in self.kafka_rows("flow"):
            tail = ratio(ours, theirs, "latency_us.p99")
            checks = self.cpu_check(ours, theirs, 3)
            if tail is not None:
                checks.append(Check("p99", part(tail), "≤ 1/5", tail <= 1 / 5))
            asked = ours.middle("asked_rate") if ours else theirs and theirs.middle("asked_rate")
            rows.append([
                name[6:], number(asked / 1000) if asked else "–", latency(ours, "latency_us"),
                latency(theirs, "latency_us"), part(tail), "1/5", latency(ours, "confirm_us"),
                latency(theirs, "confirm_us"), field_of(ours, "broker_cpu_us"),
                field_of(theirs, "broker_cpu_us"), part(ratio(ours, theirs, "broker_cpu_us")),
                "1/3", self.judge(name, checks)])
        return self.section(
            "Kafka, produce to consume at half of Kafka's rate",
            "Open loop, linger.ms=0 and five requests in flight, so that the broker and not the "
            "client's batching sets the latency. ms, p50/p99/p99.9.",
            ["scenario", "k/s", "Weir", "Kafka", "p99", "target", "Weir ack", "Kafka ack",
             "Weir CPU", "Kafka CPU", "CPU", "target", ""], rows)

    # --- the machine -------------------------------------------------------------------------

    def physical_section(self):
        rows = []
        for item in self.physical:
            what = [item[key] for key in ("wait", "congestion") if item.get(key, "default") !=
                    "default"]
            what += ["into a prepared file"] if item.get("prepared") else []
            what += [f"{item['pieces']} pieces"] if "pieces" in item else []
            calls = item.get("writes_per_s") or item.get("syncs_per_s") or item.get("calls_per_s")
            spent = item.get("us")
            rate = item.get("bytes_per_s")
            if item["item"] == "call":
                what.append(f"system call {item['syscall_ns']} ns, clock {item['clock_ns']} ns")
            rows.append([" ".join([item["item"], *what]),
                         number(item.get("write_bytes") or item.get("bytes")),
                         number(rate / 1e6) if rate else "–", number(calls),
                         f"{number(spent['p50'])}/{number(spent['p99'])}" if spent else "–"])
        text = self.section("The machine itself", "", ["item", "bytes", "MB/s", "calls/s",
                                                       "µs p50/p99"], rows)
        return text + self.physical_shares()

    def physical_shares(self):
        """Bytes through the broker against a bare sender, relay and receiver with that batching."""
        def bare(item, write_bytes):
            values = [r["bytes_per_s"] for r in self.physical if r.get("item") == item and
                      r["write_bytes"] == write_bytes and r["congestion"] == "default"]
            return median(values) if values else None

        rows = []
        for name, item, write_bytes, wire in [
                ("amqp/1x1/100B/transient/flat", "relay", 155, 155),
                ("amqp/1x1/1KiB/transient/flat", "relay", 1079, 1079),
                ("amqp/1x1/10KiB/transient/flat", "relay", 10295, 10295),
                ("kafka/librdkafka/produce/100B/1x1/os", "loopback", 1000000, 107),
                ("kafka/librdkafka/produce/1KiB/1x1/os", "loopback", 1000000, 1033)]:
            limit = bare(item, write_bytes)
            for broker in ("weir", "weir-os", "rabbitmq", "kafka"):
                found = self.get(name, broker)
                rate = found.middle("rate") if found else None
                if rate and limit:
                    rows.append([name, broker, number(rate * wire / 1e6), number(limit / 1e6),
                                 f"{rate * wire / limit:.0%}"])
        return self.section(
            "Share of the bare loopback",
            "relay: a sender writing a message at a time, a process that passes on what it reads, "
            "a receiver. loopback: a sender of 1 MB requests and a receiver.",
            ["scenario", "broker", "MB/s", "bare MB/s", "share"], rows)

    def path_section(self):
        rows = [[r["path"], r["broker"], number(r.get("instructions")), number(r.get("syscalls")),
                 r.get("calls", "")] for r in self.paths]
        return self.section(
            "Instructions and system calls a message",
            "Instructions: callgrind, one shard, the difference of two run lengths. System calls: "
            "counted by the kernel's tracepoints at full speed, all shards.",
            ["path", "broker", "instructions", "system calls", "most frequent"], rows)

    def footprint_section(self):
        rows = []
        for record in self.footprint:
            checks = []
            if record.get("target") is not None and record["broker"] == "weir":
                checks = [Check(record["item"], f"{number(record['value'])} {record['unit']}",
                                f"≤ {number(record['target'])} {record['unit']}",
                                record["value"] <= record["target"])]
            rows.append([record["item"], record["broker"],
                         f"{number(record['value'])} {record['unit']}",
                         number(record["target"]) if checks else "",
                         self.judge(record["item"], checks) if checks else "",
                         record.get("note", "")])
        return self.section("Small", "", ["item", "broker", "value", "target", "", "note"], rows)

    def section(self, title, text, header, rows):
        if not rows:
            return ""
        return f"\n## {title}\n\n" + (text + "\n\n" if text else "") + table(header, rows)

    def trouble(self):
        lines = []
        for (scenario, broker), found in self.found.items():
            for error in found.errors:
                lines.append(f"- {scenario} on {broker}: {error.replace(str(ROOT) + '/', '')}")
            if found.worst("order_errors"):
                lines.append(f"- {scenario} on {broker}: messages out of order")
            if any(found.values("lost")):
                lines.append(f"- {scenario} on {broker}: messages missing at the end")
            noise = found.middle("others_cores")
            if noise and noise > DISTURBED:
                lines.append(f"- {scenario} on {broker}: others used {noise:.1f} cores meanwhile")
            asked, got = found.middle("asked_rate"), found.middle("rate")
            if asked and got and got < 0.97 * asked:
                lines.append(f"- {scenario} on {broker}: {number(got)}/s of {number(asked)}/s asked")
        return "\n## Trouble while measuring\n\n" + "\n".join(lines) + "\n" if lines else ""

    def commands(self):
        seen, lines = set(), []
        for (scenario, broker), found in self.found.items():
            settings = self.scenarios[scenario]
            kind = (settings["family"], settings["operation"], settings.get("client"),
                    bool(settings["rate"]))
            if kind not in seen and found.runs and found.runs[0].get("command"):
                seen.add(kind)
                lines.append(f"    # {scenario} on {broker}\n    {found.runs[0]['command']}")
        return "\n## Commands\n\nOne of each kind; all are in the raw records.\n\n" + \
            "\n".join(lines) + "\n" if lines else ""

    def text(self):
        body = "".join([self.amqp_flat(), self.amqp_paced(), self.kafka_produce(),
                        self.kafka_consume(), self.kafka_flow(), self.footprint_section(),
                        self.physical_section(), self.path_section()])
        head = "# Results\n\nWritten by `make bench`; not edited by hand.\n\n" + table(
            ["", ""], [[key, value] for key, value in self.header.items()])
        if self.checked:
            head += f"\n{self.checked - len(self.missed)} of {self.checked} targets met.\n"
        if self.missed:
            head += "\nNot met:\n\n" + "\n".join(f"- {miss}" for miss in self.missed) + "\n"
        notes = f"\n## Notes\n\n{self.notes}\n" if self.notes else ""
        return head + notes + body + self.trouble() + self.commands()


def output_of(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout.strip()
    except OSError:
        return ""


def machine():
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1]) / 1048576
    system = re.search(r'PRETTY_NAME="(.*)"', Path("/etc/os-release").read_text())
    disk = output_of("findmnt", "-no", "FSTYPE,SOURCE", "-T", str(BENCH))
    congestion = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    return {
        "machine": f"{os.cpu_count()} × {cpu[1] if cpu else platform.machine()}, {memory:.0f} GiB",
        "system": f"{system[1] if system else ''}, Linux {platform.release()}, loopback ({congestion}"
                  f"), disk {' '.join(disk.split())}",
    }


def commit():
    revision = output_of("git", "rev-parse", "--short=12", "HEAD")
    changed = output_of("git", "status", "--porcelain", "--untracked-files=no", "src", "spec")
    return revision + (" with changes" if changed else "")
