"""What the Python test programs share: where the broker is, fresh names, waiting, restarting."""

import os
import shlex
import subprocess
import time
import uuid

BOOTSTRAP = os.environ.get("WEIR_COMPAT_KAFKA", "127.0.0.1:9092")
RESTART_CMD = os.environ.get("WEIR_COMPAT_RESTART")


def fresh(prefix="t"):
    """A topic or group name that no other test uses."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def eventually(check, timeout_s=15, what="condition", pause_s=0.05):
    """Polls check() until it returns something true, and returns that."""
    deadline = time.monotonic() + timeout_s
    while True:
        result = check()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what} (last: {result!r})")
        time.sleep(pause_s)


def restart_broker(kill=False):
    """Restarts the broker on the same port and data; returns when it is ready."""
    command = shlex.split(RESTART_CMD) + (["kill"] if kill else [])
    subprocess.run(command, check=True, timeout=120)
