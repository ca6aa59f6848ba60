"""The service in a process of its own, as uvicorn serves it."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from random import SystemRandom
from socket import create_server
from ssl import PROTOCOL_TLS_CLIENT, SSLContext
from types import TracebackType
from typing import Self, TypedDict

import httpx2

from app.settings import Settings

from .forks import Fork

# After so much real time something is stuck, and the test fails. It decides nothing else.
REAL_SECONDS_MAX = 30.0

POLL_SECONDS = 0.02

SERVICE = Path(__file__).parents[2]

# Libraries of macOS may crash in a fork, and Windows has none.
CAN_FORK = sys.platform == "linux"

# What the environment of who runs the tests says of these is not for the service.
VARIABLES = {name.upper() for name in Settings.model_fields} | {
    "PORT",
    "UVICORN_HOST",
    "UVICORN_PORT",
}


# Below those that systems give to who connects, which may be taken before a server has them.
PORTS = range(10_000, 32_000)


def free_port() -> int:
    """A port of the loopback that nobody has."""
    while True:
        port = SystemRandom().choice(PORTS)
        with suppress(OSError), create_server(("127.0.0.1", port)):
            return port


# That no certificates are read, which takes longer than all else about a request.
PLAIN = SSLContext(PROTOCOL_TLS_CLIENT)


def http_client(base_url: str = "") -> httpx2.Client:
    """Asks servers on the loopback, past any proxy."""
    return httpx2.Client(base_url=base_url, trust_env=False, verify=PLAIN, timeout=REAL_SECONDS_MAX)


def get(url: str) -> httpx2.Response:
    """Ask for it, on a connection of its own."""
    with http_client() as client:
        return client.get(url)


def post(url: str, json: object) -> httpx2.Response:
    """Send it, on a connection of its own."""
    with http_client() as client:
        return client.post(url, json=json)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait, in real time, until it is so."""
    deadline = time.monotonic() + REAL_SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, "it does not come to that"
        time.sleep(POLL_SECONDS)


class _Outputs(TypedDict):
    stdout: int
    stderr: int


class Process:
    """Python with these arguments, in `folder`, with the settings of `environment`.

    `output` is what it writes, but to a `stdout` of its own. However its `with` block ends, the
    process ends with it. `before` is a command that becomes the one after it, as `nice` does.

    Where it can be it is a fork, which takes a tenth of the time of a start. Not so where it is
    told something that Python reads at its start.
    """

    forked = CAN_FORK

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        environment: dict[str, str],
        stdout: int | None = None,
        before: Sequence[str] = (),
    ) -> None:
        kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        its_own = {**kept, "PYTHONPATH": str(SERVICE), **environment}
        at_start = before or any(name.startswith("PYTHON") for name in environment)
        file, path = tempfile.mkstemp(".log", dir=folder)
        self._output = Path(path)
        self.popen: subprocess.Popen[bytes] | Fork
        try:
            outputs = _Outputs(stdout=file if stdout is None else stdout, stderr=file)
            if self.forked and not at_start:
                self.popen = Fork(arguments, folder=folder, environment=its_own, **outputs)
            else:
                command = [*before, sys.executable, *arguments]
                self.popen = subprocess.Popen(command, cwd=folder, env=its_own, **outputs)  # noqa: S603 -- our own
        finally:
            os.close(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.popen.kill()
        self.popen.wait()

    @property
    def output(self) -> str:
        """All that it has written so far."""
        return self._output.read_text("utf-8")

    def wait_for(self, pattern: str) -> str:
        """Wait until the output has what the pattern describes, and give its first group."""
        deadline = time.monotonic() + REAL_SECONDS_MAX
        while not (found := re.search(pattern, self.output)):
            assert self.popen.poll() is None, f"it has ended:\n{self.output}"
            assert time.monotonic() < deadline, f"there is no {pattern!r}:\n{self.output}"
            time.sleep(POLL_SECONDS)
        return found[found.re.groups and 1]

    def wait_for_end(self) -> int:
        """Wait until it ends by itself: 0 or more is its exit code, -15 means: by SIGTERM."""
        try:
            return self.popen.wait(REAL_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end:\n{self.output}") from None

    def end_by(self, signal_: signal.Signals) -> tuple[int, float]:
        """Send the signal; give how it ended, as `wait_for_end`, and after how many seconds."""
        sent = time.monotonic()
        self.popen.send_signal(signal_)
        return self.wait_for_end(), time.monotonic() - sent


class Server(Process):
    """`uvicorn APP --factory` on the loopback or, where no APP is given, `python -m app`.

    Without a port it takes a free one, or that of its environment if it is None.
    """

    def __init__(
        self,
        folder: Path,
        app: str | None = None,
        *,
        port: int | None = 0,
        before: Sequence[str] = (),
        **environment: str,
    ) -> None:
        command = ["app"] if app is None else ["uvicorn", app, "--factory"]
        if port is not None:
            command += ["--port", str(port)]
        command += ["--host", "127.0.0.1"]
        arguments = ("-u", "-m", *command)
        super().__init__(folder, *arguments, environment=environment, before=before)

    def url(self) -> str:
        """Where it answers, once it does."""
        return self.wait_for(r"running on (http://[0-9.:]+)")


class FreshServer(Server):
    """A server that has no part of its start done for it."""

    forked = False


class Command(Process):
    """A command of the shell, under way in `folder`: of `service.py` there, if it has one.

    Its standard output is for `end` to give; `output` is the other one.
    """

    def __init__(self, folder: Path, *words: str, **environment: str) -> None:
        program = ["service.py"] if (folder / "service.py").exists() else ["-m", "app.cron"]
        stdout = self.open_stdout(folder)
        try:
            super().__init__(folder, *program, *words, environment=environment, stdout=stdout)
        finally:
            os.close(stdout)

    def open_stdout(self, folder: Path) -> int:
        """Where its standard output goes."""
        file, path = tempfile.mkstemp(".out", dir=folder)
        self._answer = Path(path)
        return file

    def end(self) -> tuple[int, str]:
        """Wait until it ends: its exit code, and its standard output."""
        code = self.popen.wait(REAL_SECONDS_MAX)
        return code, self._answer.read_text("utf-8")
