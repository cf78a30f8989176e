"""What the scripted tests share: the server's process seen from outside, waiting, and the last line.

A test waits for events, not for time: `wait_until` polls a condition and fails with what it saw.
"""

import os
import pathlib
import re
import resource
import subprocess
import sys
import threading
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "harness"))

from weir_server import WeirServer, weir_binary  # noqa: E402,F401

MIB = 1 << 20
# What memory and times are held against is the release binary: sanitizers multiply both.
SANITIZED = os.environ.get("WEIR_KIND_BUILD", "release") in ("asan", "tsan", "fuzz")
SLOW = 5 if SANITIZED else 1


def wait_until(condition, seconds, what):
    """The first true value of condition(); fails with `what` when there is none for so long."""
    deadline = time.monotonic() + seconds * SLOW
    pause = 0.002
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds * SLOW} s: {what() if callable(what) else what}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def files_allow(count):
    """Raises the limit on open files, for this process and the servers it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= count:
        return
    if hard < count:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))
        except (ValueError, OSError):
            raise unittest.SkipTest(f"only {hard} open files are allowed, {count} are needed")
    else:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def rss_mib(server):
    return server.rss_kib() / 1024


def sockets(server):
    """How many sockets the process has open. (How many files is the store's business.)"""
    count = 0
    for name in os.listdir(f"/proc/{server.pid}/fd"):
        try:
            count += os.readlink(f"/proc/{server.pid}/fd/{name}").startswith("socket:")
        except FileNotFoundError:
            pass
    return count


def say(text):
    """A measurement: printed, and kept apart from the dots of the runner."""
    print(f"    {text}", flush=True)


class Peak(threading.Thread):
    """The largest VmRSS of a server while the block runs."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self._server = server
        self._over = threading.Event()
        self.before_mib = rss_mib(server)
        self.mib = self.before_mib

    def run(self):
        while not self._over.wait(0.01) and self._server.running:
            try:
                self.mib = max(self.mib, rss_mib(self._server))
            except (AssertionError, OSError):  # it ended just now, which others notice
                return

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self.join()


def in_parallel(jobs, seconds=60):
    """Runs each callable in a thread of its own; the first failure is raised. Returns the results
    in order."""
    results, failures = [None] * len(jobs), []

    def one(index):
        try:
            results[index] = jobs[index]()
        except BaseException as failure:  # noqa: BLE001
            failures.append(failure)

    threads = [threading.Thread(target=one, args=(i,), daemon=True) for i in range(len(jobs))]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds * SLOW
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if failures:
        raise failures[0]
    if any(thread.is_alive() for thread in threads):
        raise AssertionError(f"not finished after {seconds * SLOW} s")
    return results


def run_weir(*words, env=None, timeout_s=10):
    """Runs the binary to its end. Returns the completed process, with text."""
    return subprocess.run([str(weir_binary()), *map(str, words)], capture_output=True, text=True,
                          env={**os.environ, **(env or {})}, timeout=timeout_s * SLOW)


class ServerTest(unittest.TestCase):
    """Tests of one server, started for all of them and ended in order after the last."""

    listen, args = None, ()

    @classmethod
    def setUpClass(cls):
        cls.server = WeirServer(listen=cls.listen, args=cls.args).start()

    @classmethod
    def tearDownClass(cls):
        try:
            cls.server.stop()  # asserts that it was up and ends with 0
        finally:
            cls.server.clean()


def run_classes(names):
    """Runs each class of tests in a process of its own, all at the same time. Returns the counts."""
    runs = [subprocess.Popen([sys.executable, sys.argv[0], name], stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True) for name in names]
    counts = [0, 0, 0]
    for name, run in zip(names, runs):
        output = run.communicate()[0]
        lines = output.rstrip().splitlines()
        found = re.fullmatch(r"(\d+) passed, (\d+) failed, (\d+) skipped", lines[-1] if lines else "")
        print(f"=== {name}\n{output if not found else chr(10).join(lines[:-1])}", flush=True)
        for i, count in enumerate(found.groups() if found else (0, 1, 0)):
            counts[i] += int(count)
    return counts


def main():
    """Runs the tests named on the command line, by default the classes of the file side by side."""
    loader, module = unittest.TestLoader(), sys.modules["__main__"]
    classes = [name for name, item in vars(module).items() if isinstance(item, type) and
               issubclass(item, unittest.TestCase) and loader.getTestCaseNames(item)]
    names = sys.argv[1:]
    if not names and len(classes) > 1:
        passed, failed, skipped = run_classes(classes)
    else:
        suite = loader.loadTestsFromNames(names or classes, module)
        result = unittest.TextTestRunner(verbosity=2, stream=sys.stdout).run(suite)
        failed = len(result.failures) + len(result.errors)
        skipped = len(result.skipped)
        passed = max(0, result.testsRun - failed - skipped)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed else 0)
