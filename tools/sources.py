#!/usr/bin/env python3
"""Lists what the build is made of, one item a line, sorted. Meson reads it when it configures;
tools/build compares it with the last list to know when to configure again.

  folder DIR            a folder of src/, in the order of the layers
  source DIR FILE       a C file of the library of that folder
  test DIR FILE         a unit test, X_test.c
  fuzz FILE             a fuzzer, tests/fuzz/*.c
  subdir NAME           a folder of tests/ that brings its own meson.build
  gen NAME / in NAME F  a generator, tools/gen/NAME.py, and its input files (--generators)
"""
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# The layers: a file may include from its own row and the rows before it (tools/tidy.py).
LAYERS = ["base", "io", "codec", "store", "core", "auth", "face", "shard", "cluster", "server",
          "lib", "cli"]


def folders():
    """The folders of src/ that are libraries, in layer order; a face has one of its own."""
    for layer in LAYERS:
        if (ROOT / "src" / layer).is_dir():
            yield layer
            for sub in sorted((ROOT / "src" / layer).iterdir()):
                if sub.is_dir():
                    yield f"{layer}/{sub.name}"


def relative(path):
    return path.relative_to(ROOT).as_posix()


def program_lines():
    for folder in folders():
        yield f"folder {folder}"
        for path in sorted((ROOT / "src" / folder).glob("*.c")):
            if path.name.endswith("_test.c"):
                yield f"test {folder} {relative(path)}"
            elif relative(path) != "src/cli/main.c":
                yield f"source {folder} {relative(path)}"
    for path in sorted((ROOT / "tests/fuzz").glob("*.c")):
        yield f"fuzz {relative(path)}"
    for path in sorted((ROOT / "tests").glob("*/meson.build")):
        yield f"subdir {path.parent.name}"


def generator_lines():
    for path in sorted((ROOT / "tools/gen").glob("*.py")):
        name = path.stem
        yield f"gen {name}"
        inputs = list((ROOT / "spec").glob(f"{name}.*"))
        inputs += [p for p in (ROOT / "spec" / name).rglob("*") if p.is_file()]
        inputs += (ROOT / "tools/gen/lib").glob("*.py")
        for item in sorted(inputs):
            yield f"in {name} {relative(item)}"


def main():
    if "--generators" in sys.argv:
        print("\n".join(generator_lines()))
    elif "--all" in sys.argv:
        extra = ["bench"] if (ROOT / "bench/meson.build").exists() else []
        extra += ["main"] if (ROOT / "src/cli/main.c").exists() else []
        print("\n".join([*program_lines(), *generator_lines(), *extra]))
    else:
        print("\n".join(program_lines()))


if __name__ == "__main__":
    main()
