"""Runs one scenario's client against one broker and returns what it measured, as a flat record."""

import json
import os
import subprocess
import threading
import time
from pathlib import Path

from brokers import BENCH, process_memory_kb, storage_cold

LOAD = BENCH / "load/build"
JAVA = BENCH / "java/target"
RUN_S_MAX = 240
JAVA_WARM_MESSAGES = 500000


class MeasureError(Exception):
    pass


def process_cpu_s(pid):
    """The kernel's own CPU clock of another process: what /proc/PID/stat shows in 10 ms steps."""
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


class MemoryPeak(threading.Thread):
    """Samples the resident memory of processes ten times a second."""

    def __init__(self, pids):
        super().__init__(daemon=True)
        self.pids, self.peak_mb, self.ended = pids, 0.0, threading.Event()

    def run(self):
        while True:
            total = sum(process_memory_kb(pid) for pid in self.pids) / 1024
            self.peak_mb = max(self.peak_mb, total)
            if self.ended.wait(0.1):
                return

    def end(self):
        self.ended.set()
        self.join()
        return self.peak_mb


def machine_cpu_s():
    """CPU time of the whole machine: user, nice, system, interrupts."""
    ticks = [int(t) for t in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]]
    return (sum(ticks[:3]) + sum(ticks[5:7])) / os.sysconf("SC_CLK_TCK")


def calm_wait(seconds_max, cores=0.5):
    """Waits until the machine does little else for a moment; false when it stays busy."""
    end = time.monotonic() + seconds_max
    while True:
        before = machine_cpu_s()
        time.sleep(0.25)
        if (machine_cpu_s() - before) / 0.25 <= cores:
            return True
        if time.monotonic() >= end:
            return False


def client_run(command, on_line=None, seconds_max=RUN_S_MAX):
    """Runs a client to its end and returns the JSON object of its last line."""
    # A thread reads stderr: a chatty client must not block on a pipe that nobody empties.
    with subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True) as client:
        errors = []
        reader = threading.Thread(target=lambda: errors.append(client.stderr.read()), daemon=True)
        reader.start()
        timer = threading.Timer(seconds_max, client.kill)
        timer.start()
        last = ""
        try:
            for line in client.stdout:
                last = line.strip() or last
                if on_line:
                    on_line(last)
            client.wait()
        finally:
            timer.cancel()
            if client.poll() is None:
                client.kill()
        reader.join(5)
    words = " ".join(str(part) for part in command)
    problem = (errors[0] if errors else "").strip()[-600:]
    try:
        record = json.loads(last)
    except json.JSONDecodeError:
        raise MeasureError(f"{words}: status {client.returncode}: {problem or last}") from None
    record["status"] = client.returncode
    if client.returncode:
        record["problem"] = problem or "not everything that was sent arrived"
    return record


def pids_argument(broker):
    pids = broker.processes()
    return ["-b", ",".join(str(pid) for pid in pids)] if pids else []


def kafka_command(broker, *arguments):
    return [LOAD / "kafka_bench", "-B", f"127.0.0.1:{broker.ports['kafka']}", *arguments]


def java_command(broker, *arguments):
    return ["java", "-Xmx1g", "-cp", f"{JAVA}/kafka-load.jar:{JAVA}/lib/*", "bench.KafkaLoad",
            arguments[0], f"--broker=127.0.0.1:{broker.ports['kafka']}", *arguments[1:]]


def topic_create_command(broker, topic, partitions=1, flush=False):
    settings = ["-c", "flush.messages=1"] if flush and broker.name == "kafka" else []
    return kafka_command(broker, "-m", "create", "-T", topic, "-N", partitions, *settings)


def topic_delete(broker, topic):
    client_run(kafka_command(broker, "-m", "delete", "-T", topic))


def amqp_command(scenario, broker, seconds, rate=None):
    command = [LOAD / "amqp_bench", "-p", broker.ports["amqp"], "-L", "rabbitmq-c",
               "-P", scenario.pairs, "-C", scenario.pairs, "-K", scenario.queues,
               "-s", scenario.size, "-t", seconds, *pids_argument(broker)]
    if scenario.durable:
        command += ["-d", "-w", scenario.window, "-a", scenario.window]
    if rate:
        command += ["-r", rate]
    return command


def produce_command(scenario, broker, topic, seconds):
    if scenario.client == "java":
        return java_command(broker, "produce", f"--topic={topic}", f"--size={scenario.size}",
                            f"--producers={scenario.clients}", "--warm-up=3",
                            f"--seconds={seconds}")
    return kafka_command(broker, "-m", "produce", "-T", topic, "-N", scenario.partitions,
                         "-P", scenario.clients, "-s", scenario.size, "-t", seconds,
                         *pids_argument(broker))


def flow_command(scenario, broker, topic, seconds, rate):
    """Nothing waits in the client for a fuller batch, and five requests may be on their way."""
    return kafka_command(broker, "-m", "flow", "-T", topic, "-N", scenario.partitions,
                         "-P", scenario.clients, "-C", scenario.clients, "-s", scenario.size,
                         "-t", seconds, "-r", rate, "-X", "linger.ms=0",
                         "-X", "max.in.flight.requests.per.connection=5", *pids_argument(broker))


def fill_command(scenario, broker, topic, messages):
    return kafka_command(broker, "-m", "produce", "-T", topic, "-N", scenario.partitions,
                         "-s", scenario.size, "-n", messages, "-t", 120)


def consume_command(scenario, broker, topic, messages, warm_topic=None):
    if scenario.client == "java":
        return java_command(broker, "consume", f"--topic={topic}", f"--size={scenario.size}",
                            f"--messages={messages}", f"--warm-up-topic={warm_topic or topic}",
                            f"--warm-up-messages={min(messages, JAVA_WARM_MESSAGES)}")
    return kafka_command(broker, "-m", "consume", "-T", topic, "-N", scenario.partitions,
                         "-C", scenario.clients, "-s", scenario.size, "-n", messages, "-t", 120,
                         *pids_argument(broker))


def commands_for(scenario, broker, seconds, rate=None):
    """All that a scenario runs, without restarts; the last command is the one that counts."""
    if scenario.family == "amqp":
        return [amqp_command(scenario, broker, seconds, rate)]
    topic = "bench"
    before = [topic_create_command(broker, topic, scenario.partitions)]
    if scenario.operation == "produce":
        return [*before, produce_command(scenario, broker, topic, seconds)]
    if scenario.operation == "flow":
        return [*before, flow_command(scenario, broker, topic, seconds, rate or 100000)]
    messages = 1_000_000_000 // scenario.size
    return [*before, fill_command(scenario, broker, topic, messages),
            consume_command(scenario, broker, topic, messages)]


def measured(command, broker):
    """A run with the broker's peak memory; of the Java client also the CPU of all others."""
    pids = broker.processes()
    memory = MemoryPeak(pids)
    memory.start()
    marks = {}

    def on_line(line):
        if line in ("begin", "end"):
            marks[line] = (sum(process_cpu_s(pid) for pid in pids), machine_cpu_s())

    try:
        record = client_run(command, on_line if command[0] == "java" else None)
    finally:
        peak_mb = memory.end()
    record["rss_peak_mb"] = round(peak_mb, 1)
    record["rss_mb"] = round(broker.memory_mb(), 1)
    if len(marks) == 2:
        broker_s, machine_s = (after - before for before, after in zip(marks["begin"],
                                                                       marks["end"]))
        record["broker_cpu_us"] = round(broker_s * 1e6 / max(record["messages"], 1), 4)
        record["broker_cores"] = round(broker_s / record["seconds"], 3)
        others = machine_s / record["seconds"] - record["broker_cores"] - record["client_cores"]
        record["others_cores"] = round(max(others, 0), 2)
    record["command"] = " ".join(str(part) for part in command).replace(str(BENCH) + "/", "")
    return record


class Runner:
    """Runs scenarios with the lengths of this session."""

    def __init__(self, seconds, fill_bytes, warm_seconds, calm_seconds):
        self.seconds, self.fill_bytes = seconds, fill_bytes
        self.warm_seconds, self.calm_seconds = warm_seconds, calm_seconds
        self.topics = 0

    def topic_name(self):
        self.topics += 1
        return f"bench-{os.getpid()}-{self.topics}"

    def warm(self, broker):
        """Not measured: the JIT, first files, first connections."""
        if "amqp" in broker.faces:
            for extra in ([], ["-d", "-w", "100", "-a", "100"]):
                client_run([LOAD / "amqp_bench", "-p", broker.ports["amqp"], "-t", 1, *extra])
        if broker.name != "kafka":
            return
        topic = self.topic_name()
        client_run(topic_create_command(broker, topic))
        for extra in ([], ["-X", "linger.ms=0", "-r", 20000]):
            client_run(kafka_command(broker, "-T", topic, "-t", self.warm_seconds, *extra))
        client_run(kafka_command(broker, "-T", topic, "-m", "consume", "-n", 1000000, "-t", 5))
        topic_delete(broker, topic)

    def kafka(self, scenario, broker, rate):
        if broker.name == "mock":
            return measured(produce_command(scenario, broker, broker.topic(scenario.partitions),
                                            self.seconds), broker)
        topic = self.topic_name()
        client_run(topic_create_command(broker, topic, scenario.partitions,
                                        scenario.durability == "flush"))
        try:
            if scenario.operation == "consume":
                return self.consume(scenario, broker, topic)
            if scenario.operation == "flow":
                return measured(flow_command(scenario, broker, topic, self.seconds + 1.5, rate),
                                broker)
            return measured(produce_command(scenario, broker, topic, self.seconds), broker)
        finally:
            topic_delete(broker, topic)

    def consume(self, scenario, broker, topic):
        messages = self.fill_bytes // scenario.size
        filled = client_run(fill_command(scenario, broker, topic, messages))
        if filled["status"]:
            raise MeasureError(f"filling: {filled['problem']}")
        if not scenario.cold:
            return measured(consume_command(scenario, broker, topic, messages), broker)
        # Neither the page cache nor the broker's own memory holds any of it.
        broker.stop()
        broker.start(fresh=False)
        self.warm(broker)
        warm_topic = self.topic_name()
        client_run(topic_create_command(broker, warm_topic))
        client_run(kafka_command(broker, "-m", "produce", "-T", warm_topic, "-s", scenario.size,
                                 "-n", JAVA_WARM_MESSAGES if scenario.client == "java" else 1))
        try:
            cold = storage_cold()
            return {**measured(consume_command(scenario, broker, topic, messages, warm_topic),
                               broker), "cold": cold}
        finally:
            topic_delete(broker, warm_topic)

    def run(self, scenario, broker, rate=None):
        calm_wait(self.calm_seconds)
        if scenario.family == "amqp":
            seconds = self.seconds + (1.5 if rate else 0)
            return measured(amqp_command(scenario, broker, seconds, rate), broker)
        return self.kafka(scenario, broker, rate)
