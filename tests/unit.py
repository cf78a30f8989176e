#!/usr/bin/env python3
"""Runs every unit test program of a build folder (WEIR_BUILD), several at once, and adds up what
they report. Shows the output of those that fail, and names those that are slow. The thread sanitizer
has nothing to see in a program that cannot start a thread: with it, only those that can are run."""
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_S = 240
SLOW_S = {"release": 2.0, "asan": 10.0}


def programs(folder):
    """The test programs that the sources call for; one that was not built shows as a failure."""
    listing = subprocess.run([sys.executable, ROOT / "tools/sources.py"], check=True,
                             capture_output=True, text=True).stdout
    for line in listing.splitlines():
        kind, *rest = line.split()
        if kind == "test":
            stem = rest[1].removeprefix("src/").removesuffix(".c")
            yield folder / "tests" / re.sub(r"\W", "_", stem)


def may_start_threads(path):
    symbols = subprocess.run(["nm", "-D", "-u", path], capture_output=True, text=True)
    return symbols.returncode != 0 or re.search(r"\b(pthread|thrd)_create\b", symbols.stdout)


def program_run(path):
    """(path, passed, failed, output, seconds) of one program; a crash is one failure."""
    started = time.monotonic()
    try:
        done = subprocess.run([path], capture_output=True, text=True, errors="replace",
                              timeout=TIMEOUT_S, cwd=os.environ.get("WEIR_TMP", "."))
        output, code = done.stdout + done.stderr, done.returncode
    except subprocess.TimeoutExpired as late:
        output, code = f"{late.stdout}\n[timed out after {TIMEOUT_S} s]", 1
    except OSError as error:
        output, code = str(error), 1
    passed = sum(map(int, re.findall(r"^\[  PASSED  \] (\d+) test", output, re.M)))
    failed = sum(map(int, re.findall(r"^\[  FAILED  \] (\d+) test", output, re.M)))
    if code != 0 and failed == 0 or passed + failed == 0:
        failed += 1
        output += f"\n[ended with code {code}]"
    return path, passed, failed, output, time.monotonic() - started


def main():
    folder = Path(os.environ.get("WEIR_BUILD", ROOT / "build"))
    kind = os.environ.get("WEIR_KIND_BUILD", "release")
    slow_s = SLOW_S.get(kind, 30.0)
    paths = [p for p in programs(folder) if kind != "tsan" or may_start_threads(p)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(program_run, paths))
    for path, _, failed, output, seconds in results:
        if failed:
            print(f"--- {path.name}\n{output}")
        elif seconds > slow_s:
            print(f"slow: {path.name} took {seconds:.1f} s")
    passed, failed = (sum(r[i] for r in results) for i in (1, 2))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
