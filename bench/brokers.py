"""The brokers under measurement: each starts alone on a data folder and a port of its own.

A broker is started with `start()`, which returns when it takes connections, and ended with
`stop()`, by the ids of the processes it made. `processes()` is its whole tree, for CPU and memory.
"""

import os
import re
import select
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent


def port_free():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def process_children():
    """Parent id -> child ids, of every process there is."""
    children = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = Path("/proc", entry, "stat").read_text()
        except OSError:
            continue
        parent = int(stat.rsplit(")", 1)[1].split()[1])
        children.setdefault(parent, []).append(int(entry))
    return children


def process_tree(root):
    children, found, todo = process_children(), [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += children.get(pid, [])
    return found


def process_alive(pid):
    try:
        state = Path("/proc", str(pid), "stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def process_memory_kb(pid, field="VmRSS"):
    """A field of /proc/PID/status, or 0 when the process has gone."""
    try:
        for line in Path("/proc", str(pid), "status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


class BrokerError(Exception):
    pass


class Broker:
    """What all have in common. A subclass gives `launch` and its name."""

    name = "?"
    faces = ()
    ready_s_max = 60

    def __init__(self, folder):
        self.folder = Path(folder) / self.name
        self.process = None
        self.ports = {}
        self.ready_ms = None

    def start(self, fresh=True):
        if fresh:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        try:
            self.launch(began + self.ready_s_max)
        except BaseException:
            self.stop()
            raise
        self.ready_ms = (time.monotonic() - began) * 1000
        return self

    def launch(self, deadline):
        raise NotImplementedError

    def spawn(self, command, stdout, **more):
        log = open(self.folder / "stderr.log", "ab")
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=log, start_new_session=True,
            **more)

    def lines_until(self, wanted, deadline):
        """Reads the broker's stdout, an unbuffered pipe, up to the line that `wanted` accepts."""
        lines, rest, pipe = [], b"", self.process.stdout
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                raise BrokerError(f"{self.name}: not ready in {self.ready_s_max} s")
            data = os.read(pipe.fileno(), 65536)
            if not data:
                tail = (self.folder / "stderr.log").read_text(errors="replace")[-2000:]
                raise BrokerError(f"{self.name} ended before it was ready\n{tail}")
            *whole, rest = (rest + data).split(b"\n")
            for line in whole:
                lines.append(line.decode(errors="replace"))
                if wanted(lines[-1]):
                    return lines

    def processes(self):
        return process_tree(self.process.pid) if self.process else []

    def memory_mb(self):
        return sum(process_memory_kb(pid) for pid in self.processes()) / 1024

    def stop(self):
        """Asks, waits 30 s, then kills: only processes of its own tree."""
        if not self.process:
            return
        tree = self.processes()
        self.terminate()
        deadline = time.monotonic() + 30
        while any(process_alive(pid) for pid in tree) and time.monotonic() < deadline:
            self.process.poll()
            time.sleep(0.02)
        for pid in tree:
            if process_alive(pid):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()
        self.process = None

    def terminate(self):
        self.process.terminate()

    def clean(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    def version(self):
        return "?"


class Weir(Broker):
    faces = ("amqp", "kafka")

    def __init__(self, folder, durability="sync", binary=None, shards=None, wrapper=()):
        self.name = "weir" if durability == "sync" else f"weir-{durability}"
        super().__init__(folder)
        self.durability = durability
        self.binary = Path(binary or ROOT / "build" / "weir")
        self.shards = shards
        self.wrapper = list(wrapper)

    def available(self):
        return None if self.binary.exists() else f"{self.binary} is not built"

    def command(self):
        command = [*self.wrapper, str(self.binary), "serve", "--data", str(self.folder / "data"),
                   "--durability", self.durability]
        for face in self.faces:
            command += ["--listen", f"{face}=127.0.0.1:{self.ports.get(face, 0)}"]
        if self.shards:
            command += ["--shards", str(self.shards)]
        return command

    def launch(self, deadline):
        self.process = self.spawn(self.command(), subprocess.PIPE)
        for line in self.lines_until(lambda line: line == "ready", deadline):
            found = re.match(r"listen face=(\w+) addr=\S+:(\d+)", line)
            if found:
                self.ports[found[1]] = int(found[2])
        missing = [face for face in self.faces if face not in self.ports]
        if missing:
            raise BrokerError(f"weir does not listen for {', '.join(missing)}")

    def version(self):
        return subprocess.run([self.binary, "--version"], capture_output=True,
                              text=True).stdout.strip()


class RabbitMQ(Broker):
    """Debian's rabbitmq-server with its defaults; a node, name server and data of its own."""

    name = "rabbitmq"
    faces = ("amqp",)
    script = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")

    def __init__(self, folder):
        super().__init__(folder)
        self.names = None

    def available(self):
        return None if self.script.exists() else "Debian's rabbitmq-server is not installed"

    def launch(self, deadline):
        port, names_port = port_free(), port_free()
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        environment = {
            "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(home),
            "ERL_EPMD_PORT": str(names_port), "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": "bench@localhost", "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port), "RABBITMQ_DIST_PORT": str(port_free()),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        }
        (self.folder / "plugins").write_text("[].\n")
        (self.folder / "rabbitmq.conf").write_text("log.file.level = error\n")
        # Started here, so that no name server is left behind by the node.
        self.names = self.spawn(["epmd", "-port", str(names_port), "-address", "127.0.0.1"],
                                subprocess.DEVNULL, env=environment)
        self.process = self.spawn([str(self.script)], subprocess.DEVNULL, env=environment)
        self.ports = {"amqp": port}
        probe = [str(BENCH / "load/build/amqp_bench"), "-m", "probe", "-p", str(port), "-t", "60"]
        if subprocess.run(probe, capture_output=True).returncode:
            tail = (self.folder / "stderr.log").read_text(errors="replace")[-2000:]
            raise BrokerError(f"rabbitmq does not answer\n{tail}")

    def terminate(self):
        for pid in self.processes():
            if Path("/proc", str(pid), "comm").read_text().strip() == "beam.smp":
                os.kill(pid, signal.SIGTERM)

    def stop(self):
        super().stop()
        if self.names:
            self.names.terminate()
            self.names.wait()
            self.names = None

    def version(self):
        shown = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", "rabbitmq-server"],
                               capture_output=True, text=True).stdout
        return f"rabbitmq-server {shown}"


class Kafka(Broker):
    """Apache Kafka's own jars, KRaft, one node, defaults: peers/kafka/run.sh."""

    name = "kafka"
    faces = ("kafka",)
    script = BENCH / "peers/kafka/run.sh"

    def available(self):
        if not self.script.exists():
            return f"{self.script} is not there"
        if not shutil.which("java"):
            return "java is not installed"
        return None

    def launch(self, deadline):
        self.ports = {"kafka": self.ports.get("kafka") or port_free()}
        self.process = self.spawn([str(self.script), str(self.folder / "data"),
                                   str(self.ports["kafka"])], subprocess.PIPE)
        self.lines_until(lambda line: line == "ready", deadline)

    def version(self):
        jars = sorted((self.script.parent / "target/lib").glob("kafka-server-[0-9]*.jar"))
        java = subprocess.run(["java", "-version"], capture_output=True, text=True).stderr
        return f"Apache {jars[0].stem if jars else 'kafka'} on {java.splitlines()[0]}"


class Mock(Broker):
    """librdkafka's own mock cluster in a process of its own: the client's ceiling, not a broker."""

    name = "mock"
    faces = ("kafka",)
    client = BENCH / "load/build/kafka_bench"

    def available(self):
        return None if self.client.exists() else f"{self.client} is not built"

    def launch(self, deadline):
        self.process = self.spawn([str(self.client), "-m", "mock", "-t", "4000", "-N", "12"],
                                  subprocess.PIPE)
        address = self.lines_until(lambda line: ":" in line, deadline)[-1]
        self.ports = {"kafka": int(address.rsplit(":", 1)[1])}

    @staticmethod
    def topic(partitions):
        return f"bench-{partitions}"

    def version(self):
        return "librdkafka's mock cluster"


def storage_cold():
    """Empties the page cache, so that the next reads come from the disk. False when not allowed."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("1\n")
        return True
    except OSError:
        return False
