#!/usr/bin/env python3
"""The rules of the house that a program can check, as a test. Every violation is printed as
FILE:LINE: what is wrong; the last line counts the rules that hold and those that do not.

The layer rule: a file of src/ includes from its own folder and from the layers before it (the
order is LAYERS in tools/sources.py); src/core knows neither io nor, beyond the headers allowed
below, the store; a face knows neither another face nor store, io or shard. The tests of the core may:
they run it on the real store over the simulated disk."""
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from sources import LAYERS, ROOT  # noqa: E402

# Headers of the store that the core may include: those of formats that both must agree on, never
# of anything that opens a file. Each addition needs a reason beside it.
STORE_HEADERS_FOR_CORE = [
    "store/store.h",  # positions, and the contract by which a cell calls its storage
]

FORBIDDEN_LAYERS = {"core": {"io", "store"}, "face": {"io", "store", "shard"}}
BANNED_CALLS = {
    "strcpy": "snprintf or memcpy with a known length",
    "strcat": "snprintf",
    "sprintf": "snprintf",
    "vsprintf": "vsnprintf",
    "gets": "fgets",
    "strtok": "strtok_r, or a slice",
    "time": "the clock that is passed in",
    "rand": "the random source that is passed in",
    "srand": "the random source that is passed in",
    "atoi": "a parser that reports errors",
}
LEFTOVERS = ["TO" + "DO", "FIX" + "ME", "X" + "XX"]
MACHINE_PATHS = ["/wo" + "rk/", "/ho" + "me/[a-z]", "/ro" + "ot/", "/Us" + "ers/", "/tm" + "p/weir"]
LINES_MAX = 700
TEXT_SUFFIXES = {".c", ".h", ".py", ".sh", ".toml", ".md", ".build", ".api", ".yml", ".js", ".go",
                 ".java", ".txt", ""}

BUILD = Path(os.environ.get("WEIR_BUILD", ROOT / "build"))


# --- reading -------------------------------------------------------------------------------------


def files_all():
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True,
                            capture_output=True, text=True).stdout.splitlines()
    return sorted(Path(name) for name in set(listed) if (ROOT / name).is_file())


def text_of(path, cache={}):
    if path not in cache:
        cache[path] = (ROOT / path).read_text(errors="replace")
    return cache[path]


def code_of(path):
    """The text with comments and string contents blanked, line numbers kept."""
    def blank(match):
        found = match[0]
        if found[0] in "\"'":
            return found[0] * 2
        return re.sub(r"[^\n]", " ", found)
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', blank,
                  text_of(path), flags=re.S)


def matches(text, pattern):
    """(line number, match) of every match of the pattern."""
    for match in re.finditer(pattern, text, re.M):
        yield text.count("\n", 0, match.start()) + 1, match


def is_test(path):
    """A test program, or a header of one: what test programs share ends in _rig.h."""
    return path.name.endswith(("_test.c", "_rig.h"))


def in_src(path):
    return path.parts[0] == "src" and path.suffix in (".c", ".h")


# --- rules: each yields (path, line, what is wrong) ----------------------------------------------


def rule_layers(files):
    """every include respects the layers and is written from src/"""
    for path in filter(in_src, files):
        own = path.parts[1]
        face = path.parts[2] if own == "face" and len(path.parts) == 4 else None
        for line, match in matches(text_of(path), r'^\s*#\s*include\s+"([^"]+)"'):
            header = match[1]
            layer = header.split("/")[0]
            other = header.split("/")[1] if header.count("/") == 2 else None
            if layer == "gen" and header.count("/") == 1:
                continue
            if layer not in LAYERS or not (ROOT / "src" / header).is_file():
                yield path, line, f'"{header}" is not a header of src/, written from src/'
            elif LAYERS.index(layer) > LAYERS.index(own):
                yield path, line, f"{own} may not include {layer}, a later layer"
            elif layer in FORBIDDEN_LAYERS.get(own, ()) and not (
                    own == "core" and (header in STORE_HEADERS_FOR_CORE or is_test(path))):
                yield path, line, f"{own} may not include {layer}"
            elif own == "face" and layer == "face" and other is not None and other != face:
                yield path, line, f"face/{face or ''} may not include face/{other}"


def rule_headers_alone(files):
    """every header compiles alone"""
    headers = [p for p in files if in_src(p) and p.suffix == ".h"]
    flags = ["-std=gnu17", "-D_GNU_SOURCE", "-Isrc", f"-I{BUILD / 'src'}", "-Wall", "-Wextra",
             "-Werror", "-fsyntax-only", "-x", "c"]

    def compile_one(path):
        done = subprocess.run(["gcc", *flags, "-include", str(path), "/dev/null"], cwd=ROOT,
                              capture_output=True, text=True)
        return path, done

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, done in pool.map(compile_one, headers):
            if done.returncode:
                error = next((s for s in done.stderr.splitlines() if "error:" in s), done.stderr)
                yield path, 1, f"does not compile alone: {error.strip()}"


def rule_tests_beside_sources(files):
    """every X_test.c stands beside X.c or X.h"""
    known = set(files)
    for path in files:
        if in_src(path) and path.name.endswith("_test.c"):
            stem = path.name.removesuffix("_test.c")
            if not {path.with_name(stem + ".c"), path.with_name(stem + ".h")} & known:
                yield path, 1, f"there is no {stem}.c or {stem}.h beside it"


def rule_banned_calls(files):
    """no call that has a safer or a testable twin"""
    pattern = r"(?<![\w.>])(" + "|".join(BANNED_CALLS) + r")\s*\("
    for path in filter(in_src, files):
        for line, match in matches(code_of(path), pattern):
            yield path, line, f"{match[1]}(): use {BANNED_CALLS[match[1]]}"


def rule_leftovers(files):
    """nothing is left over"""
    pattern = r"\b(" + "|".join(LEFTOVERS) + r")\b"
    for path in files:
        if path.suffix in TEXT_SUFFIXES:
            for line, match in matches(text_of(path), pattern):
                yield path, line, f"{match[1]}: finish it, or say in words what is so"


def rule_no_machine_paths(files):
    """no path of somebody's machine"""
    pattern = "(?<![\\w.$}/])(" + "|".join(MACHINE_PATHS) + ")"
    for path in files:
        if path.suffix in TEXT_SUFFIXES:
            for line, match in matches(text_of(path), pattern):
                yield path, line, f"{match[1]} is a path of one machine"


def rule_opening_paragraph(files):
    """every C file opens with a paragraph that says what it is"""
    for path in files:
        if path.suffix == ".c" and not text_of(path).startswith(("/*", "//")):
            yield path, 1, "opens without a paragraph that says what it is"


def rule_no_mutable_globals(files):
    """no library of src/ has data that can change"""
    for library in sorted(BUILD.glob("libweir_*.a")):
        listing = subprocess.run(["nm", "-A", "-f", "sysv", library], capture_output=True,
                                 text=True).stdout
        for line in listing.splitlines():
            field = [f.strip() for f in line.split("|")]
            if len(field) == 7 and re.match(r"\.(t?data|t?bss)(?!\.rel\.ro)", field[6]) \
                    and field[3] == "OBJECT":
                place, _, name = field[0].rpartition(":")
                source = place.split(":")[-1].removesuffix(".c.o")
                yield Path(source), 1, f"{name} is a mutable global"


def rule_docs_current(files):
    """docs/configuration.md and docs/metrics.md are what their generators write"""
    for path, tool in ((Path("docs/configuration.md"), "tools/gen/options.py"),
                       (Path("docs/metrics.md"), "tools/gen/metrics.py")):
        done = subprocess.run([sys.executable, tool, "--docs"], cwd=ROOT, check=True,
                              capture_output=True, text=True)
        if path not in files or text_of(path) != done.stdout:
            yield path, 1, f"write it anew: {tool} --docs >{path}"


def rule_format(files):
    """clang-format has nothing to change"""
    sources = [str(p) for p in files if p.suffix in (".c", ".h")]
    if not sources:
        return
    done = subprocess.run(["clang-format-14", "--dry-run", *sources], cwd=ROOT,
                          capture_output=True, text=True)
    for match in re.finditer(r"^([^:\n]+):(\d+):\d+: (?:warning|error): (.*?)$", done.stderr, re.M):
        yield Path(match[1]), int(match[2]), "differs from clang-format (make format)"


def warnings(files):
    for path in filter(in_src, files):
        count = text_of(path).count("\n")
        if count > LINES_MAX:
            print(f"{path}:{LINES_MAX}: warning: {count} lines; it is probably two nouns")


def main():
    files = files_all()
    rules = [rule for name, rule in globals().items() if name.startswith("rule_")]
    failed = 0
    for rule in rules:
        seen = {}
        for path, line, wrong in rule(files):
            seen.setdefault((str(path), line, wrong))
        for path, line, wrong in list(seen)[:200]:
            print(f"{path}:{line}: {wrong}")
        print(f"{'FAIL' if seen else 'ok':4} {rule.__doc__}" + (f" ({len(seen)})" if seen else ""))
        failed += bool(seen)
    warnings(files)
    print(f"{len(rules) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
