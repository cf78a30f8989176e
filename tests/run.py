#!/usr/bin/env python3
"""Runs the test suites that tests/suites.d/*.toml describe and counts what they report.

A suite is a shell command run from the project's root:

  [[suite]]
  name = "amqp-pika"            # unique; also the name of its log in build/test-logs/
  kind = "compat"               # unit, sim, script, compat, crash, fuzz or tidy
  command = "tests/compat/pika/run"
  setup = "tools/setup python"  # optional: runs once, before it, for all suites with the same words
  timeout_s = 120               # default 300; everything the suite started is killed after it
  builds = ["release", "asan"]  # default ["release"]: runs once with each; [] needs no build
  parallel = true               # default false: runs alone, after the parallel ones, of which
                                # those with the longest time limits start first
  cpus = 2                      # default 1: how many of the machine's CPUs a parallel one takes

It finds in its environment WEIR_BUILD (the absolute build folder), WEIR_BIN (its weir binary),
WEIR_KIND_BUILD (release, asan, tsan or fuzz) and WEIR_TMP (an empty folder of its own, kept when
it fails). Counts are read from the end of its output: "N passed, N failed[, N skipped]", or the
summary of pytest, unittest, go test, node --test or Maven; without any, its exit code is one test.
The last line printed is "N passed, N failed".
"""
import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / "build/test-logs"
KINDS = ["tidy", "unit", "sim", "script", "compat", "crash", "fuzz"]
BUILDS = {"release": "build", "asan": "build-asan", "tsan": "build-tsan", "fuzz": "build-fuzz"}
DEFAULTS = {"setup": "", "timeout_s": 300, "builds": ["release"], "parallel": False, "cpus": 1}
SETUP_TIMEOUT_S = 1200
SETUPS_AT_ONCE = 2  # they mostly wait for the network, beside the builds
SANITIZERS = {
    "ASAN_OPTIONS": "detect_leaks=1:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    "TSAN_OPTIONS": "second_deadlock_stack=1",
}


# --- what there is -------------------------------------------------------------------------------


def suites_load():
    """Every suite once per build that it wants, as a dict with `build` and `label` added."""
    loaded, names = [], set()
    for path in sorted((ROOT / "tests/suites.d").glob("*.toml")):
        for entry in tomllib.loads(path.read_text()).get("suite", []):
            where = f"{path.name}: suite {entry.get('name', '?')}"
            missing = {"name", "kind", "command"} - entry.keys()
            unknown = entry.keys() - DEFAULTS.keys() - {"name", "kind", "command"}
            if missing or unknown:
                sys.exit(f"{where}: missing {sorted(missing)}, unknown {sorted(unknown)}")
            suite = DEFAULTS | entry
            if suite["kind"] not in KINDS or not set(suite["builds"]) <= BUILDS.keys():
                sys.exit(f"{where}: unknown kind or build")
            if suite["name"] in names:
                sys.exit(f"{where}: there is another of this name")
            names.add(suite["name"])
            for build in suite["builds"] or [None]:
                several = len(suite["builds"]) > 1 and build != "release"
                label = suite["name"] + (f".{build}" if several else "")
                loaded.append(suite | {"build": build, "label": label})
    return sorted(loaded, key=lambda s: KINDS.index(s["kind"]))


# --- what a suite reports ------------------------------------------------------------------------


def counts_parse(text):
    """(passed, failed, skipped) as the output's end says, or None when it says nothing."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    tail = "\n".join(text.splitlines()[-60:])

    own = re.findall(r"^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?\s*$", tail, re.M)
    if own:
        return tuple(int(n or 0) for n in own[-1])
    for line in reversed(tail.splitlines()):  # pytest: "== 1 failed, 2 passed in 0.1s =="
        found = dict((k, int(n)) for n, k in re.findall(
            r"(\d+) (passed|failed|skipped|error|xfailed|xpassed)", line))
        if found and re.search(r" in [\d.]+m?s", line):
            failed = found.get("failed", 0) + found.get("error", 0) + found.get("xpassed", 0)
            return found.get("passed", 0) + found.get("xfailed", 0), failed, found.get("skipped", 0)
    node = {k: int(n) for k, n in re.findall(
        r"^(?:#|ℹ) (pass|fail|cancelled|skipped) (\d+)$", tail, re.M)}
    if "pass" in node:
        return node["pass"], node.get("fail", 0) + node.get("cancelled", 0), node.get("skipped", 0)
    maven = re.findall(r"Tests run: (\d+), Failures: (\d+), Errors: (\d+), Skipped: (\d+)", tail)
    if maven:
        run, failures, errors, skipped = map(int, maven[-1])
        return run - failures - errors - skipped, failures + errors, skipped
    ran = re.search(r"^Ran (\d+) tests? in", tail, re.M)  # unittest
    if ran:
        bad = sum(map(int, re.findall(r"(?:failures|errors)=(\d+)", tail)))
        skipped = sum(map(int, re.findall(r"skipped=(\d+)", tail)))
        return int(ran[1]) - bad - skipped, bad, skipped
    if re.search(r"^(ok|FAIL|---)\s", tail, re.M):  # go test, with or without -v
        count = {k: len(re.findall(rf"^--- {k}:", text, re.M)) for k in ("PASS", "FAIL", "SKIP")}
        if sum(count.values()):
            return count["PASS"], count["FAIL"], count["SKIP"]
        good, bad = (len(re.findall(rf"^{k}\s+\S+\s", text, re.M)) for k in ("ok", "FAIL"))
        return (good, bad, 0) if good + bad else None
    return None


def verdict(text, code, timed_out):
    """The counts of a suite that ended with `code`; an exit code never says less than the text."""
    counts = counts_parse(text)
    passed, failed, skipped = counts or (int(code == 0), int(code != 0), 0)
    if (code != 0 or timed_out) and failed == 0:
        failed = 1
    if passed + failed + skipped == 0:
        failed = 1  # a suite in which nothing ran has not passed
    return passed, failed, skipped


# --- running -------------------------------------------------------------------------------------


LIVE = set()  # the process groups that run now


def command_run(command, log, timeout_s, env):
    """Runs a shell command in a process group of its own; (exit code, timed out)."""
    child = subprocess.Popen(["sh", "-c", command], cwd=ROOT, env=env, stdin=subprocess.DEVNULL,
                             stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    LIVE.add(child.pid)
    timed_out = False
    try:
        child.wait(timeout_s)
    except subprocess.TimeoutExpired:
        timed_out = True
        log.write(f"\n[killed after {timeout_s} s]\n".encode())
    group_kill(child.pid)
    LIVE.discard(child.pid)
    child.wait()
    return child.returncode, timed_out


def interrupted(_signal, _frame):
    for pid in list(LIVE):
        group_kill(pid)
    os._exit(130)


def group_kill(pid):
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def aslr_prefix():
    """The thread sanitizer of GCC 12 cannot map its memory under very random addresses."""
    try:
        wide = int(Path("/proc/sys/vm/mmap_rnd_bits").read_text()) > 28
    except (OSError, ValueError):
        wide = False
    return "setarch -R " if wide else ""


class Runner:
    def __init__(self, jobs):
        self.jobs = jobs
        self.free = jobs
        self.turn = threading.Condition()
        self.print_lock = threading.Lock()
        self.total = [0, 0, 0]
        self.failed_labels = []
        self.setups = {}  # a command -> the future of its log when it failed, None otherwise

    def report(self, label, counts, seconds, log_path, show_tail):
        passed, failed, skipped = counts
        with self.print_lock:
            mark = "FAIL" if failed else "ok"
            skips = f", {skipped} skipped" if skipped else ""
            print(f"{mark:4} {label:32} {seconds:7.1f} s   {passed} passed, {failed} failed{skips}")
            if show_tail:
                for line in log_path.read_text(errors="replace").splitlines()[-40:]:
                    print(f"     | {line[:300]}")
                print(f"     log: {log_path.relative_to(ROOT)}")
            sys.stdout.flush()
            self.total = [a + b for a, b in zip(self.total, counts)]
            if failed:
                self.failed_labels.append(label)

    def setup_run(self, number, command):
        """Runs a setup that several suites may share; its log when it failed."""
        log_path = LOGS / f"setup.{number}.log"
        with log_path.open("wb") as log:
            log.write(f"[{command}]\n".encode())
            log.flush()
            code, timed_out = command_run(command, log, SETUP_TIMEOUT_S, os.environ)
        return log_path.read_bytes() if code or timed_out else None

    def setups_start(self, suites):
        pool = ThreadPoolExecutor(SETUPS_AT_ONCE)
        for suite in suites:
            command = suite["setup"]
            if command and command not in self.setups:
                self.setups[command] = pool.submit(self.setup_run, len(self.setups), command)

    def suite_run(self, suite):
        label, build = suite["label"], suite["build"]
        tmp = ROOT / "build/test-tmp" / label
        shutil.rmtree(tmp, ignore_errors=True)
        tmp.mkdir(parents=True)
        env = os.environ | {"WEIR_TMP": str(tmp)}
        env |= {name: env.get(name, value) for name, value in SANITIZERS.items()}
        command = suite["command"]
        if build:
            folder = ROOT / BUILDS[build]
            env |= {"WEIR_BUILD": str(folder), "WEIR_BIN": str(folder / "weir"),
                    "WEIR_KIND_BUILD": build}
        if build == "tsan":
            command = aslr_prefix() + command
        log_path = LOGS / f"{label}.log"
        started = time.monotonic()
        with log_path.open("wb") as log:
            wrong = self.setups[suite["setup"]].result() if suite["setup"] else None
            if wrong is not None:
                log.write(wrong + b"\n[the suite's setup failed]\n")
                code, timed_out = 1, False
            else:
                started = time.monotonic()
                code, timed_out = command_run(command, log, suite["timeout_s"], env)
        counts = verdict(log_path.read_text(errors="replace"), code, timed_out)
        if not counts[1]:
            shutil.rmtree(tmp, ignore_errors=True)
        self.report(label, counts, time.monotonic() - started, log_path, counts[1] > 0)

    def suite_run_within_cpus(self, suite, cpus):
        try:
            self.suite_run(suite)
        finally:
            with self.turn:
                self.free += cpus
                self.turn.notify_all()

    def suites_run(self, suites):
        threads = []
        parallel = [s for s in suites if s["parallel"]]
        for suite in sorted(parallel, key=lambda s: -s["timeout_s"]):
            cpus = min(suite["cpus"], self.jobs)
            with self.turn:
                self.turn.wait_for(lambda: self.free >= cpus)
                self.free -= cpus
            thread = threading.Thread(target=self.suite_run_within_cpus, args=(suite, cpus))
            thread.start()
            threads.append(thread)
        for thread in threads:
            thread.join()
        for suite in [s for s in suites if not s["parallel"]]:
            self.suite_run(suite)

    def build_run(self, build):
        """Builds one kind; a build that fails is one failed test, and its suites do not run."""
        log_path = LOGS / f"build.{build}.log"
        started = time.monotonic()
        with log_path.open("wb") as log:
            code, _ = command_run(f"tools/build {build}", log, 3600, os.environ)
        seconds = time.monotonic() - started
        if code:
            self.report(f"build {build}", (0, 1, 0), seconds, log_path, True)
        else:
            print(f"     built {build:26} {seconds:7.1f} s", flush=True)
        return code == 0


def main():
    parser = argparse.ArgumentParser(description="Runs Weir's test suites.")
    parser.add_argument("--kind", action="append", choices=KINDS, help="only suites of this kind")
    parser.add_argument("--only", action="append", metavar="NAME", help="only this suite, or this "
                        "suite with one build (unit.asan); may be repeated")
    parser.add_argument("--build", action="append", choices=list(BUILDS), help="only with this build")
    parser.add_argument("--list", action="store_true", help="show the suites and stop")
    parser.add_argument("--no-build", action="store_true", help="take the builds as they are")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="CPUs for parallel suites")
    args = parser.parse_args()

    suites = [s for s in suites_load()
              if (not args.kind or s["kind"] in args.kind)
              and (not args.only or {s["name"], s["label"]} & set(args.only))
              and (not args.build or s["build"] in args.build)]
    if args.list:
        for suite in suites:
            print(f"{suite['kind']:7} {suite['label']:32} {suite['command']}")
        return 0

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupted)
    LOGS.mkdir(parents=True, exist_ok=True)
    runner = Runner(args.jobs)
    runner.setups_start(suites)
    wanted = [b for b in BUILDS if any(s["build"] == b for s in suites)]
    broken = {b for b in wanted if not args.no_build and not runner.build_run(b)}
    runner.suites_run([s for s in suites if s["build"] not in broken])

    if runner.failed_labels:
        print("\nFailed: " + " ".join(runner.failed_labels))
    if runner.total[2]:
        print(f"{runner.total[2]} skipped")
    print(f"{runner.total[0]} passed, {runner.total[1]} failed")
    return 1 if runner.total[1] or not runner.total[0] else 0


if __name__ == "__main__":
    sys.exit(main())
