"""Runs a command beside a fresh server, for tests that are not written in Python.

    python3 tests/harness/with_weir.py [--listen FACE=HOST:PORT]... [--arg WORD]... -- COMMAND...

The command finds in its environment:
    WEIR_COMPAT_AMQP, WEIR_COMPAT_KAFKA   host:port of each face
    WEIR_COMPAT_RESTART                   a shell command; with the word `term` or `kill` after it, it
                                          restarts the server on the same ports and returns when
                                          the server is ready again

The server must end with 0 after the command; the exit code is the command's, or 70 when the server
failed. When WEIR_COMPAT_AMQP or WEIR_COMPAT_KAFKA is set already, no server is started: the command
meets whatever listens there, which is how the tests themselves are checked against the originals.
"""

import argparse
import os
import pathlib
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile

from weir_server import ServerError, WeirServer

SIGNALS = {b"term": signal.SIGTERM, b"kill": signal.SIGKILL}


def ask_restart(path, how):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.settimeout(120)
        peer.connect(path)
        peer.sendall(how.encode())
        peer.shutdown(socket.SHUT_WR)
        answer = peer.makefile("rb").read().decode(errors="replace")
    if answer != "ok":
        sys.exit(f"restart failed: {answer}")


def answer_restart(listener, server):
    peer, _ = listener.accept()
    with peer:
        peer.settimeout(10)
        word = peer.makefile("rb").read().strip()
        try:
            server.restart(SIGNALS[word or b"term"])
            peer.sendall(b"ok")
        except (KeyError, ServerError) as error:
            peer.sendall(repr(error).encode())


def run_beside(server, command, folder):
    path = str(pathlib.Path(folder) / "restart.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        env = dict(os.environ)
        for face in ("amqp", "kafka"):
            try:
                env[f"WEIR_COMPAT_{face.upper()}"] = server.hostport(face)
            except ServerError:
                pass
        env["WEIR_COMPAT_RESTART"] = shlex.join([sys.executable, __file__, "--restart", path])
        child = subprocess.Popen(command, env=env)
        pidfd = os.pidfd_open(child.pid)
        try:
            while True:
                readable, _, _ = select.select([listener, pidfd], [], [])
                if pidfd in readable:
                    return child.wait()
                answer_restart(listener, server)
        finally:
            os.close(pidfd)
            if child.poll() is None:
                child.kill()
                child.wait()


def main():
    if sys.argv[1:2] == ["--restart"]:
        ask_restart(sys.argv[2], (sys.argv[3:] or ["term"])[0])
        return 0
    parser = argparse.ArgumentParser(description="run a command beside a fresh weir server")
    parser.add_argument("--listen", action="append")
    parser.add_argument("--arg", action="append", default=[])
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    if os.environ.get("WEIR_COMPAT_AMQP") or os.environ.get("WEIR_COMPAT_KAFKA"):
        return subprocess.call(options.command)
    try:
        with tempfile.TemporaryDirectory(prefix="weir-with-") as folder:
            with WeirServer(listen=options.listen, args=options.arg) as server:
                code = run_beside(server, options.command, folder)
                if code != 0:
                    print(f"--- the server's log\n{server.log_tail()}", file=sys.stderr)
        return code
    except ServerError as error:
        print(error, file=sys.stderr)
        return 70


if __name__ == "__main__":
    sys.exit(main())
