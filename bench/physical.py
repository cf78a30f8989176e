"""What the machine can do at all, and what a message costs Weir in instructions and system calls."""

import json
import re
import shutil
import subprocess
import time
from pathlib import Path

from brokers import BrokerError, Kafka, RabbitMQ, Weir
from measure import LOAD, MeasureError, client_run, kafka_command, topic_create_command

CALLS = ["read", "readv", "recvfrom", "recvmsg", "write", "writev", "sendto", "sendmsg", "sendfile64",
         "pwrite64", "pwritev", "pread64", "fdatasync", "fsync", "epoll_wait", "epoll_pwait",
         "epoll_pwait2", "futex", "io_uring_enter", "sched_yield", "poll", "ppoll"]


def machine(folder, level):
    """Records of the bare machine: loopback, relay, wake-ups, disk, memory."""
    seconds = {"quick": 0.4, "default": 1.5, "full": 3}[level]
    items = [
        # A message at a time as rabbitmq-c writes 100 B, 1 KiB and 10 KiB; a librdkafka request.
        *[[kind, size, seconds] for kind in ("loopback", "relay")
          for size in (155, 1079, 10295, 65536, 1000000)],
        *[[kind, size, seconds, "cubic"] for kind in ("loopback", "relay")
          for size in (65536, 1000000)],
        ["ping", "poll", seconds], ["ping", "spin", seconds], ["wake", seconds], ["call"],
        *[["fdatasync", folder, size, how, seconds] for size in (4096, 65536, 1048576)
          for how in ("grow", "prepared")],
        ["append", folder, 64, 1024, seconds], ["append", folder, 256, 100, seconds],
        ["memcpy", 16384], ["memcpy", 4194304], ["crc32c", 100], ["crc32c", 1024],
    ]
    if level == "quick":
        items = [item for item in items if item[0] in ("loopback", "relay", "fdatasync") and
                 item[-1] != "cubic" and not {65536, 1048576, "grow"} & set(item)]
    print("the machine itself", flush=True)
    for item in items:
        done = subprocess.run([str(part) for part in [LOAD / "phys", *item]], capture_output=True,
                              text=True)
        if done.returncode:
            print(f"  {' '.join(map(str, item))}: {done.stderr.strip()}")
            continue
        record = json.loads(done.stdout)
        print("  " + done.stdout.strip(), flush=True)
        yield record


def amqp(broker, *arguments):
    return [LOAD / "amqp_bench", "-p", broker.ports["amqp"], "-t", 600, *arguments]


DURABLE = ("-d", "-w", 1000, "-a", 1000)


def amqp_path(*arguments):
    def commands(broker, count):
        return [amqp(broker, "-n", count, *arguments)]
    return commands


def produce_path(size):
    def commands(broker, count):
        return [kafka_command(broker, "-m", "produce", "-T", "path", "-s", size, "-t", 600,
                              "-n", count)]
    return commands


def consume_path(size):
    """`count` messages are read of those that are there."""
    def commands(broker, count):
        return [*produce_path(size)(broker, PRODUCED),
                kafka_command(broker, "-m", "consume", "-T", "path", "-s", size, "-t", 600,
                              "-n", count)]
    return commands


PRODUCED = 200000

# Name, face, commands for a number of messages, two such numbers.
PATHS = [
    ("AMQP transient, publish to delivery, 100 B", "amqp", amqp_path("-s", 100), 5000, 25000),
    ("AMQP transient, publish to delivery, 1 KiB", "amqp", amqp_path("-s", 1024), 5000, 25000),
    ("AMQP durable, confirmed and settled, 100 B", "amqp", amqp_path("-s", 100, *DURABLE),
     5000, 25000),
    ("AMQP durable, confirmed and settled, 1 KiB", "amqp", amqp_path("-s", 1024, *DURABLE),
     5000, 25000),
    ("Kafka produce, 100 B", "kafka", produce_path(100), 50000, 450000),
    ("Kafka produce, 1 KiB", "kafka", produce_path(1024), 20000, 120000),
    ("Kafka consume, 100 B", "kafka", consume_path(100), 20000, 180000),
]


def instructions_of(folder, binary, face, commands, count):
    """All instructions of a broker with one shard that lives just for these commands."""
    out = folder / "callgrind.out"
    out.unlink(missing_ok=True)
    broker = Weir(folder, "sync" if face == "amqp" else "os", binary, shards=1, wrapper=[
        "valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"])
    broker.faces = (face,)
    broker.start()
    try:
        if face == "kafka":
            client_run(topic_create_command(broker, "path"))
        for command in commands(broker, count):
            record = client_run(command)
            if record["status"]:
                raise MeasureError(record["problem"])
    finally:
        broker.stop()
        broker.clean()
    totals = re.search(r"^(?:totals|summary): (\d+)", out.read_text(), re.M)
    if not totals:
        raise MeasureError("callgrind wrote no totals")
    return int(totals[1])


def syscalls_of(broker, commands, count):
    """System calls a message at full speed, by the kernel's own counters, and the most frequent."""
    known = Path("/sys/kernel/tracing/events/syscalls")
    events = ["raw_syscalls:sys_enter", *[f"syscalls:sys_enter_{call}" for call in CALLS
                                          if (known / f"sys_enter_{call}").exists()]]
    todo = commands(broker, count)
    for command in todo[:-1]:
        client_run(command)
    # Only the last command is counted: of a consumer's, not what filled the topic.
    counting = ["perf", "stat", "-x", ",", "-e", ",".join(events),
                "-p", ",".join(str(pid) for pid in broker.processes())]
    perf = subprocess.Popen(counting, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    time.sleep(0.5)
    record = client_run(todo[-1])
    perf.send_signal(2)
    lines = perf.communicate()[1].splitlines()
    counts = {}
    for line in lines:
        parts = line.split(",")
        if len(parts) > 2 and parts[0].isdigit():
            counts[parts[2].replace("syscalls:sys_enter_", "")] = int(parts[0])
    total = counts.pop("raw_syscalls:sys_enter", None) or counts.pop("raw_sys_enter", None)
    messages = max(record.get("received", 0), record.get("acked", 0), record.get("sent", 0), 1)
    if total is None:
        raise MeasureError("perf counts no system calls here: " + " ".join(lines[-3:]))
    most = sorted(counts.items(), key=lambda pair: -pair[1])[:5]
    return total / messages, ", ".join(f"{name} {n / messages:.3g}" for name, n in most if n)


def paths(folder, binary, level):
    """A record for each path: instructions of Weir, system calls of every broker."""
    print("instructions and system calls a message", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    chosen = PATHS[::2] if level == "quick" else PATHS
    for name, face, commands, few, many in chosen:
        for broker in (Weir(folder, "sync" if face == "amqp" else "os", binary),
                       RabbitMQ(folder) if face == "amqp" else Kafka(folder)):
            if broker.available():
                continue
            record = {"path": name, "broker": broker.name}
            weir = broker.name.startswith("weir")
            if weir:
                broker.faces = (face,)
            try:
                if weir and shutil.which("valgrind"):
                    spent = [instructions_of(folder, binary, face, commands, n) for n in (few, many)]
                    record["instructions"] = (spent[1] - spent[0]) / (many - few)
                if shutil.which("perf"):
                    broker.start()
                    if face == "kafka":
                        client_run(topic_create_command(broker, "path"))
                    record["syscalls"], record["calls"] = syscalls_of(
                        broker, commands, PRODUCED if face == "kafka" else many * 4)
            except (MeasureError, BrokerError) as problem:
                record["calls"] = f"failed: {problem}"[:300]
            finally:
                broker.stop()
                broker.clean()
            print(f"  {name} on {broker.name}: {record.get('instructions', 0):.0f} instructions, "
                  f"{record.get('syscalls', 0):.3f} calls ({record.get('calls', '')})", flush=True)
            yield record
