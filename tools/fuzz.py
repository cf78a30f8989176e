#!/usr/bin/env python3
"""Runs the fuzzers of tests/fuzz: tools/fuzz.py [--seconds N] [--keep] [--json FILE] [NAME...]

Each fuzzer starts from its kept corpus (tests/fuzz/corpus/NAME) and what earlier runs found
(build-fuzz/corpus/NAME), several at once. What breaks one is left in build-fuzz/found/NAME-* with
the command that shows it again. --keep adds to the kept corpus what reaches code that it did not.
Every fuzzer counts as one test. Of each it says how many inputs it ran and how much they reached:
edges of the control flow, out of those that stand in the program, which are also those of its equipment
and of code that its inputs cannot lead to. --json writes the same for programs."""
import argparse
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build-fuzz"
KEPT = ROOT / "tests/fuzz/corpus"
LENGTH_MAX = 65536  # bytes of one input
MEMORY_MAX_MIB = 1024
INPUT_SECONDS_MAX = 10
KEPT_FILES_MAX = 200
ENVIRONMENT = {"UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
               "ASAN_OPTIONS": "allocator_may_return_null=1",
               "ASAN_SYMBOLIZER_PATH": "/usr/bin/llvm-symbolizer-14"}


def dictionary(name):
    """A list of tokens for this fuzzer: written by hand beside it, or generated."""
    for path in (ROOT / f"tests/fuzz/{name}.dict", BUILD / f"src/gen/{name}.dict"):
        if path.exists():
            return [f"-dict={path}"]
    return []


def run(program, *arguments):
    done = subprocess.run([program, *map(str, arguments)], cwd=ROOT, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env=os.environ | ENVIRONMENT)
    return done.returncode, done.stdout.decode(errors="replace")


def last(pattern, text):
    """The last number that the pattern finds."""
    found = re.findall(pattern, text)
    return int(found[-1]) if found else 0


def fuzz(name, seconds):
    """(held, what to say, figures) of one fuzzer."""
    program = BUILD / f"tests/fuzz_{name}"
    if not program.exists():
        return False, f"{name}: was not built", {}
    found, corpus = BUILD / "found", BUILD / "corpus" / name
    found.mkdir(parents=True, exist_ok=True)
    corpus.mkdir(parents=True, exist_ok=True)
    seeds = [KEPT / name] if (KEPT / name).is_dir() else []
    code, output = run(program, f"-max_total_time={seconds}", f"-max_len={LENGTH_MAX}",
                       f"-rss_limit_mb={MEMORY_MAX_MIB}", f"-timeout={INPUT_SECONDS_MAX}",
                       f"-artifact_prefix={found}/{name}-", "-print_final_stats=1",
                       "-verbosity=1", *dictionary(name), corpus, *seeds)
    if code:
        shown = "\n".join(output.splitlines()[-60:])
        return False, f"{shown}\n{name}: failed; again with {program.relative_to(ROOT)} FILE", {}
    figures = {"executions": last(r"stat::number_of_executed_units: *(\d+)", output),
               "seconds": seconds, "edges": last(r"\bcov: (\d+)", output),
               "edges_of": last(r"\((\d+) inline 8-bit counters\)", output),
               "corpus": last(r"\bcorp: (\d+)", output)}
    if figures["executions"] == 0:
        return False, f"{output}\n{name}: did not run", {}
    return True, ("{name}: {executions} inputs, {edges} edges of {edges_of}, {corpus} inputs kept"
                  .format(name=name, **figures)), figures


def keep(name):
    """Adds to the kept corpus what reaches more, the smallest first, up to its limit."""
    program, target = BUILD / f"tests/fuzz_{name}", KEPT / name
    target.mkdir(parents=True, exist_ok=True)
    run(program, "-merge=1", f"-max_len={LENGTH_MAX}", target, BUILD / "corpus" / name)
    files = sorted(target.iterdir(), key=lambda path: path.stat().st_size)
    for path in files[KEPT_FILES_MAX:]:
        path.unlink()


def main():
    parser = argparse.ArgumentParser(description="Runs Weir's fuzzers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="fuzzers; all when none is named")
    parser.add_argument("--seconds", type=int, default=20, help="for each fuzzer")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many at once")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--keep", action="store_true", help="extend the kept corpus afterwards")
    args = parser.parse_args()

    code = subprocess.run(["tools/build", "fuzz"], cwd=ROOT).returncode
    if code:
        return code
    names = args.names or sorted(path.stem for path in (ROOT / "tests/fuzz").glob("*.c"))
    failed, everything = 0, {}
    with ThreadPoolExecutor(args.jobs) as pool:
        runs = pool.map(lambda name: fuzz(name, args.seconds), names)
        for name, (held, text, figures) in zip(names, runs):
            print(text, flush=True)
            failed += not held
            everything[name] = figures | {"held": held}
        if args.keep:
            list(pool.map(keep, names))
    if args.json:
        args.json.write_text(json.dumps(everything, indent=1))
    print(f"{len(names) - failed} passed, {failed} failed")
    return 1 if failed or not names else 0


if __name__ == "__main__":
    sys.exit(main())
