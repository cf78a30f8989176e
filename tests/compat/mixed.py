"""Runs test sets of several clients at once against one broker, without the tests that restart it.

    python3 tests/harness/with_weir.py -- python3 tests/compat/mixed.py COMMAND...

What the sanitizers look at: requests of all kinds, of both protocols, between all shards. Tests that
are skipped because nobody may restart the broker are not counted; the sets' own suites run them.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import run  # noqa: E402


def main():
    env = {name: value for name, value in os.environ.items() if name != "WEIR_COMPAT_RESTART"}
    started = []
    for command in sys.argv[1:]:
        output = tempfile.TemporaryFile("w+", errors="replace")
        started.append((command, output, subprocess.Popen(
            ["sh", "-c", command], stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, env=env)))
    total = [0, 0]
    for command, output, child in started:
        code = child.wait()
        output.seek(0)
        text = output.read()
        passed, failed, _ = run.verdict(text, code, False)
        total = [total[0] + passed, total[1] + failed]
        print(f"--- {command}\n{text}", flush=True)
    print(f"{total[0]} passed, {total[1]} failed")
    return 1 if total[1] or not total[0] else 0


if __name__ == "__main__":
    sys.exit(main())
