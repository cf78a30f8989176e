"""A broker that is to die: started under powercut.so, quickly, and looked after to its end.

    place = Place(folder)                   # data folder, switch, trace and log in one folder
    with Mortal(place, shards=2, at=17, kind="all") as broker:
        broker.addrs                        # where it listens; None when it ended before it was ready
    broker.code                             # how it ended: exit code, or minus a signal

Start-up takes a few milliseconds, so there is a new one for every point.
"""

import os
import pathlib
import re
import selectors
import shutil
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/harness"))

from weir_server import weir_binary  # noqa: E402

READY_S, END_S = 40.0, 40.0
CELLS = 2
UNSYNCED = re.compile(r"^powercut: unsynced (writes|names) (.*)$", re.M)
AT = re.compile(r"^powercut: at (\w+ \d+ \S+ \S+)$", re.M)


def shim_path(name):
    build = os.environ.get("WEIR_BUILD") or weir_binary().parent
    path = pathlib.Path(build) / "tests/crash" / name
    if not path.exists():
        sys.exit(f"{path} does not exist; build it or set WEIR_BUILD")
    return path


class Place:
    """A folder for one broker after the other."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.data, self.switch = self.folder / "data", self.folder / "cut"
        self.trace, self.log = self.folder / "trace", self.folder / "log"
        self.clear()

    def clear(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        os.mkfifo(self.switch)

    def copy(self, kind):
        """What a cut of all kinds has left of the data folder."""
        return self.data if kind == "tear" else self.folder / f"cut.{kind}"

    def take(self, data):
        """Begins again from a copy of that data folder, or from none."""
        self.clear()
        if data is not None:
            shutil.copytree(data, self.data, symlinks=True)

    def said(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class Mortal:
    """env: for the shims; without any there is none."""

    def __init__(self, place, shards=2, data=None, shim=None, env=None, journal_mib=1):
        self.place, self.code, self.addrs = place, None, None
        self.data = data or place.data
        self.env = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
        if shim is not None:
            self.env |= {"LD_PRELOAD": str(shim_path(shim)), **(env or {})}
        self.words = [str(weir_binary()), "serve", "--data", str(self.data), "--cells", str(CELLS),
                      "--shards", str(shards), "--journal-limit-mib", str(journal_mib),
                      "--listen", "amqp=127.0.0.1:0", "--listen", "kafka=127.0.0.1:0"]

    @classmethod
    def cut(cls, place, shards=2, data=None, **settings):
        """Under powercut.so: mode, at, kind, dice, fail, trace."""
        names = {"mode": "POWERCUT_MODE", "at": "POWERCUT_AT", "kind": "POWERCUT_CUT", "dice": "POWERCUT_DICE",
                 "fail": "POWERCUT_FAIL", "trace": "POWERCUT_TRACE"}
        env = {"POWERCUT_FIFO": str(place.switch), "POWERCUT_MODE": "quick"}
        env |= {names[name]: str(value) for name, value in settings.items() if value is not None}
        return cls(place, shards, data, "powercut.so", env)

    def __enter__(self):
        self.began = time.monotonic()
        self.log = open(self.place.log, "ab")
        self.process = subprocess.Popen(self.words, env=self.env, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=self.log)
        self.addrs = self.ready_wait()
        return self

    def ready_wait(self):
        """{face: (host, port)}, or None."""
        text, addrs = b"", {}
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while selector.select(max(0.0, self.began + READY_S - time.monotonic())):
                piece = os.read(self.process.stdout.fileno(), 4096)
                if not piece:
                    self.end_wait()
                    return None
                text += piece
                if b"\nready\n" in text:
                    break
            else:
                return None
        for face, host, port in re.findall(r"^listen face=(\w+) addr=(\S+):(\d+)", text.decode(),
                                           re.M):
            addrs[face] = (host, int(port))
        return addrs

    def end_wait(self, seconds=END_S):
        """True when it has ended."""
        try:
            self.code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    @property
    def alive(self):
        return self.process.poll() is None

    def terminate(self):
        """SIGTERM; True when it ended."""
        self.process.send_signal(signal.SIGTERM)
        return self.end_wait()

    def switch_off(self, dice=1):
        """The power goes now."""
        with open(self.place.switch, "w") as switch:
            switch.write(f"{dice}\n")
        return self.end_wait()

    def __exit__(self, *_):
        if self.alive:
            self.process.kill()
        self.code = self.process.wait()
        self.process.stdout.close()
        self.log.close()


def data_check(data):
    """What `weir check` has to say against a data folder; None: nothing."""
    if not (data / "weir").exists():
        return None
    done = subprocess.run([str(weir_binary()), "check", "--data", str(data)], timeout=60,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return None if done.returncode == 0 else \
        f"weir check ended with {done.returncode}: {done.stdout.strip()}"
