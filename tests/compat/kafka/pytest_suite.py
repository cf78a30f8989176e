"""Runs a folder's pytest suite: first, in parallel, what can share the broker; then, one by one, what
restarts it (marked `restart`). Ends with the counts of both together.

    python pytest_suite.py FOLDER [--jobs N] [PYTEST-WORD...]
"""

import os
import pathlib
import sys

import pytest


class Tally:
    """Counts outcomes over several runs of pytest in this process."""

    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def pytest_terminal_summary(self, terminalreporter):
        count = {name: len(terminalreporter.stats.get(name, []))
                 for name in ("passed", "failed", "error", "skipped")}
        self.passed += count["passed"]
        self.failed += count["failed"] + count["error"]
        self.skipped += count["skipped"]


def main():
    os.chdir(pathlib.Path(sys.argv[1]).resolve())
    words = sys.argv[2:]
    jobs = "8"
    if words[:1] == ["--jobs"]:
        jobs, words = words[1], words[2:]
    tally = Tally()
    for run in (["-n", jobs, "-m", "not restart"], ["-m", "restart"]):
        code = pytest.main(["-q", *run, *words], plugins=[tally])
        if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED,
                        pytest.ExitCode.NO_TESTS_COLLECTED):
            tally.failed += 1
    print(f"{tally.passed} passed, {tally.failed} failed, {tally.skipped} skipped")
    return 1 if tally.failed or not tally.passed else 0


if __name__ == "__main__":
    sys.exit(main())
