"""Runs a weir server for a test.

    with WeirServer() as server:
        host, port = server.addr("amqp")
        ...
        server.restart()                   # SIGTERM, exit 0 asserted, same ports again
        server.restart(signal.SIGKILL)     # a crash, same ports again

The server gets a temporary data folder of its own and free ports. Leaving the block stops it with
SIGTERM and asserts exit code 0; a server that ended by itself fails the test with the end of its log.

WEIR_BIN   the binary (default: build/weir in this work tree)
WEIR_WRAP  words put before it, e.g. "valgrind --error-exitcode=9"; it gets ten times the time
WEIR_KIND_BUILD  asan, tsan or fuzz: it gets three times the time
WEIR_TMP   where the temporary folders go; the caller removes them (default: the system's place, and
           they are removed here)
"""

import atexit
import concurrent.futures
import os
import pathlib
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import weakref

ROOT = pathlib.Path(__file__).resolve().parents[2]
FACES = ("amqp", "kafka")
SANITIZER_REPORT = re.compile(r"(Thread|Address|Leak)Sanitizer|: runtime error: ")

# Children are started by one thread that lives as long as the process, because the kernel sends the
# parent-death signal when the thread that started the child ends, not the process.
_launcher = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="launcher")
_alive = weakref.WeakSet()


def free_port(host="127.0.0.1"):
    """A free port below those that the kernel gives to outgoing connections: one of theirs could be
    taken, even by a client that tries to reconnect, while a server that restarts is away."""
    lowest = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(lowest // 2, lowest)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port


class ServerError(AssertionError):
    """The server did not start, did not stop with 0, or ended while nobody asked it to."""


def weir_binary():
    return pathlib.Path(os.environ.get("WEIR_BIN") or ROOT / "build" / "weir")


class WeirServer:
    def __init__(self, listen=None, data=None, args=(), env=None, start_timeout_s=20.0,
                 stop_timeout_s=30.0):
        """listen: words for --listen, each "face=host:port" (port 0: a free one, kept over restarts);
        default: every face in FACES on a free loopback port; an empty tuple: no --listen at all, so
        the default ports. data: a folder that outlives this object;
        default: a temporary one. args: further words for the command line."""
        listen = [f"{face}=127.0.0.1:0" for face in FACES] if listen is None else listen
        self._listen = [self._with_port(item) for item in listen]
        self._args = [str(word) for word in args]
        self._env = dict(env or {})
        self._wrap = shlex.split(os.environ.get("WEIR_WRAP", ""))
        sanitized = os.environ.get("WEIR_KIND_BUILD", "release") != "release"
        slow = 10.0 if self._wrap else 3.0 if sanitized else 1.0
        self._start_timeout_s = start_timeout_s * slow
        self._stop_timeout_s = stop_timeout_s * slow
        self._tmp = pathlib.Path(tempfile.mkdtemp(prefix="weir-", dir=os.environ.get("WEIR_TMP")))
        self.data = pathlib.Path(data) if data is not None else self._tmp / "data"
        self.log_path = self._tmp / "weir.log"
        self._process = None
        self._reader = None
        self._ready = threading.Event()
        self._addrs = {}
        self.ready_ms = None

    # Addresses -----------------------------------------------------------------------------------

    def addr(self, face):
        """(host, port) of a face."""
        if face not in self._addrs:
            raise ServerError(f"no 'listen face={face}' line was printed\n{self.log_tail()}")
        return self._addrs[face]

    def port(self, face):
        return self.addr(face)[1]

    def hostport(self, face):
        host, port = self.addr(face)
        return f"{host}:{port}"

    @property
    def pid(self):
        return self._process.pid

    @property
    def running(self):
        return self._process is not None and self._process.poll() is None

    # Life ----------------------------------------------------------------------------------------

    def start(self):
        """Starts the server and returns when it printed `ready`."""
        if self.running:
            raise ServerError("already running")
        binary = weir_binary()
        if not binary.exists():
            raise ServerError(f"{binary} does not exist; build it or set WEIR_BIN")
        words = [*self._wrap, str(binary), "serve", "--data", str(self.data)]
        for item in self._listen:
            words += ["--listen", item]
        words += self._args
        setpriv = shutil.which("setpriv")
        if setpriv:  # same pid: it execs the server
            words = [setpriv, "--pdeathsig", "KILL", *words]
        self._ready.clear()
        self._addrs = {}
        began = time.monotonic()
        log = open(self.log_path, "ab")
        log.write(f"--- start: {shlex.join(words)}\n".encode())
        log.flush()
        self._process = _launcher.submit(
            subprocess.Popen, words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
            env={**os.environ, **self._env}, cwd=self._tmp).result()
        _alive.add(self)
        self._reader = threading.Thread(
            target=self._read_stdout, args=(self._process.stdout, log, began), daemon=True)
        self._reader.start()
        deadline = began + self._start_timeout_s
        while not self._ready.wait(0.02):
            if self._process.poll() is not None:
                self._reader.join(5)
                raise ServerError(f"the server ended with {self._process.returncode} "
                                  f"before it was ready\n{self.log_tail()}")
            if time.monotonic() > deadline:
                self._process.kill()
                self._process.wait()
                raise ServerError(f"not ready after {self._start_timeout_s} s\n{self.log_tail()}")
        return self

    def stop(self):
        """SIGTERM; asserts exit code 0."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(self._stop_timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise ServerError(
                f"no exit {self._stop_timeout_s} s after SIGTERM\n{self.log_tail()}") from None
        finally:
            self._reader.join(5)
            _alive.discard(self)
        self._process = None
        self._sanitizers_check()
        if code != 0:
            raise ServerError(f"exit code {code} instead of 0\n{self.log_tail()}")

    def kill(self):
        """SIGKILL, as a crash. Fails when the server had ended before."""
        code = self._process.poll()
        if code is not None:
            raise ServerError(f"the server had ended with {code} before it was to be killed\n"
                              f"{self.log_tail()}")
        self._process.kill()
        self._process.wait()
        self._reader.join(5)
        _alive.discard(self)
        self._process = None
        self._sanitizers_check()

    def _sanitizers_check(self):
        """A report that did not end the process, or that a kill overtook, counts too."""
        lines = self.log().splitlines()
        for number, line in enumerate(lines):
            if SANITIZER_REPORT.search(line):
                raise ServerError("\n".join(lines[max(number - 1, 0):number + 80]))

    def restart(self, sig=signal.SIGTERM):
        """Ends the server (SIGTERM: exit 0 asserted; SIGKILL: a crash) and starts it again on the
        same data folder and the same ports."""
        if sig == signal.SIGKILL:
            self.kill()
        else:
            self.stop()
        return self.start()

    def __enter__(self):
        try:
            return self.start()
        except ServerError:
            self.clean()
            raise

    def __exit__(self, kind, value, trace):
        try:
            self.stop()
        except ServerError:
            if kind is None:
                raise
            print(f"(the server failed too)\n{self.log_tail()}")
        finally:
            self.clean()

    def clean(self):
        """Removes the temporary folder, unless WEIR_TMP keeps it for whoever looks into a failure."""
        if not os.environ.get("WEIR_TMP"):
            shutil.rmtree(self._tmp, ignore_errors=True)

    # What it says --------------------------------------------------------------------------------

    def log(self):
        """All that the server printed, standard error included, over all its starts."""
        try:
            return self.log_path.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def log_tail(self, lines=40):
        return "\n".join(self.log().splitlines()[-lines:])

    def rss_kib(self):
        for line in pathlib.Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise ServerError("no VmRSS")

    def cpu_s(self):
        """User and system time so far."""
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    # Inside --------------------------------------------------------------------------------------

    def _read_stdout(self, pipe, log, began):
        with pipe, log:
            for line in pipe:
                log.write(line)
                log.flush()
                text = line.decode(errors="replace").rstrip("\n")
                words = text.split()
                if words[:1] == ["listen"]:
                    pairs = dict(word.split("=", 1) for word in words[1:] if "=" in word)
                    host, _, port = pairs["addr"].rpartition(":")
                    self._addrs[pairs["face"]] = (host.strip("[]"), int(port))
                elif text == "ready":
                    self.ready_ms = (time.monotonic() - began) * 1000
                    self._ready.set()

    @staticmethod
    def _with_port(item):
        face, _, where = item.partition("=")
        host, _, port = where.rpartition(":")
        return f"{face}={host}:{free_port(host) if port == '0' else port}"


@atexit.register
def _kill_the_rest():
    for server in list(_alive):
        if server.running:
            server._process.kill()
            server._process.wait()
        server.clean()
