"""Virtual environments for tests whose Python packages are pinned.

    python3 tests/harness/pinned_venv.py setup FOLDER          makes what FOLDER/requirements.txt says, once
    python3 tests/harness/pinned_venv.py run FOLDER WORD...    that environment's python with these words

An environment is kept in WEIR_TEST_CACHE (default ~/.cache/weir-tests) under a name that holds a hash
of the pins and the Python version, so `setup` reaches the package index only when the pins change.
"""

import fcntl
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys


def cache_folder():
    return pathlib.Path(os.environ.get("WEIR_TEST_CACHE") or
                        pathlib.Path.home() / ".cache" / "weir-tests")


def venv_folder(folder):
    pins = (folder / "requirements.txt").read_bytes()
    digest = hashlib.sha256(pins + sys.version.encode()).hexdigest()[:12]
    return cache_folder() / f"venv-{folder.resolve().name}-{digest}"


def venv_make(folder):
    target = venv_folder(folder)
    if (target / "complete").exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / "complete").exists():
            venv_fill(folder, target)
    return target


def venv_fill(folder, target):
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(target)], check=True)
    subprocess.run([str(target / "bin" / "python"), "-m", "pip", "install", "-q",
                    "--disable-pip-version-check", "--no-deps", "-r",
                    str(folder / "requirements.txt")], check=True)
    (target / "complete").touch()


def main():
    if len(sys.argv) < 3 or sys.argv[1] not in ("setup", "run"):
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[2])
    target = venv_make(folder)
    if sys.argv[1] == "run":
        python = str(target / "bin" / "python")
        os.execv(python, [python, *sys.argv[3:]])


if __name__ == "__main__":
    main()
