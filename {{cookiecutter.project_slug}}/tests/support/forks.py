"""Processes without the time that a start takes: forks of one that has imported the service.

As a program, it imports the service and waits for requests: a fork is as `python` with the same
arguments would be, from its first line to its exit code. Only its imports are done already, and
what Python reads before its first line, such as PYTHONUTF8.
"""

import atexit
import gc
import io
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

NUMBER_BYTES = 8

# What a process of the service has imported when it serves, or when its shell answers.
IMPORTED = (
    "app.cron.shell",
    "app.main",
    "sqlalchemy.dialects.sqlite",
    "uvicorn",
    "uvicorn.lifespan.on",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.auto",
)


class Fork:
    """A process, as a `Popen`."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        folder: Path,
        environment: dict[str, str],
        stdout: int,
        stderr: int,
    ) -> None:
        self.returncode: int | None = None
        self._control, theirs = socket.socketpair()
        request = json.dumps([list(arguments), str(folder), environment])
        try:
            with theirs:
                socket.send_fds(_origin(), [b"fork"], [theirs.fileno(), stdout, stderr])
            self._control.sendall(f"{request}\n".encode())
            self.pid = self._receive()
        except ConnectionError:
            self._control.close()
            raise RuntimeError("there is nothing to fork: see its own error") from None

    def poll(self) -> int | None:
        """How it has ended, or None if it has not."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it ends: 0 or more is its exit code, less tells of a signal."""
        if self.returncode is None:
            self._control.settimeout(timeout)
            try:
                self.returncode = self._receive()
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired("a fork", timeout or 0) from None
            self._control.close()  # only now may another process get its number
        return self.returncode

    def send_signal(self, signal_: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, signal_)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)

    def _receive(self) -> int:
        number = self._control.recv(NUMBER_BYTES)
        if not number:
            raise ConnectionResetError("who waits for the fork has ended")
        return int.from_bytes(number, signed=True)


@cache
def _origin() -> socket.socket:
    """Where a fork is asked for: it begins with the first one, and ends with this process."""
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with theirs:
        origin = subprocess.Popen(  # noqa: S603 -- our own command
            [sys.executable, "-u", "-P", __file__, str(theirs.fileno())],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            pass_fds=[theirs.fileno()],
        )

    def end() -> None:
        ours.close()
        origin.wait()

    atexit.register(end)
    return ours


# The other side


def main(requests: socket.socket) -> None:
    """Fork, until nobody asks any more. In a fork it returns when that has nothing more to do."""
    for module in IMPORTED:
        import_module(module)
    gc.freeze()  # a fork need not look through, and so copy, what is not its own
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # by Ctrl-C it ends with who asks
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who waits for a fork is waited for by nobody
    while True:
        _, files, _, _ = socket.recv_fds(requests, NUMBER_BYTES, 3)
        if not files:
            break
        if not os.fork():
            requests.close()
            control, *outputs = files
            wait_for_fork(socket.socket(fileno=control), outputs)
            break
        for each in files:
            os.close(each)


def wait_for_fork(control: socket.socket, outputs: Sequence[int]) -> None:
    """Fork once more, and tell of the end. Returns in the fork."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with control.makefile() as lines:
        arguments, folder, environment = json.loads(lines.readline())
    process = os.fork()
    if not process:
        control.close()
        become(arguments, folder, environment, outputs)
        return
    for each in outputs:
        os.close(each)
    tell(control, process)
    end = os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
    assert end is not None
    tell(control, end.si_status if end.si_code == os.CLD_EXITED else -end.si_status)
    with suppress(ConnectionError):
        control.recv(1)  # it is nothing: nobody asks for the process any more
    os.waitpid(process, 0)
    os._exit(0)


def tell(control: socket.socket, number: int) -> None:
    """Answer, if somebody still listens."""
    with suppress(ConnectionError):
        control.sendall(number.to_bytes(NUMBER_BYTES, signed=True))


def become(
    arguments: list[str], folder: str, environment: dict[str, str], outputs: Sequence[int]
) -> None:
    """Be what Python would be with these arguments."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    unbuffered = arguments[0] == "-u" or bool(environment.get("PYTHONUNBUFFERED"))
    if arguments[0] == "-u":
        del arguments[0]
    for output, name in zip(outputs, ("stdout", "stderr"), strict=True):
        redirect(name, output, unbuffered=unbuffered)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    if arguments[0] == "-m":
        sys.path.insert(0, folder)
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, str(Path(arguments[0]).absolute().parent))
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")


def redirect(name: str, output: int, *, unbuffered: bool) -> None:
    """Let `sys.stdout` or `sys.stderr` be as at a start: the old one has asked if it can seek."""
    old = getattr(sys, name)
    os.dup2(output, old.fileno())
    os.close(output)
    raw = io.FileIO(old.fileno(), "w", closefd=False)
    buffer: Any = raw if unbuffered else io.BufferedWriter(raw)
    new = io.TextIOWrapper(
        buffer,
        encoding=old.encoding,
        errors=old.errors,
        line_buffering=name == "stderr" and not unbuffered,
        write_through=unbuffered,
    )
    setattr(sys, name, new)
    setattr(sys, f"__{name}__", new)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
