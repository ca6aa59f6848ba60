"""The service in place, served by a process of its own, and waiting for what comes of it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from tools.bake import TEMPLATE

# After so much real time something is stuck, and the test fails.
REAL_SECONDS_MAX = 120.0

POLL_SECONDS = 0.05

# An app whose job adds a line to a file in its folder for each run: the number, and the process.
TICKING = """
import os

from app.cron import JobContext, every, job
from app.main import create_app

@job(every(seconds=1))
async def tick(ctx: JobContext) -> None:
    with open("ticks", "a") as ticks:
        ticks.write(f"{ctx.run_no} {os.getpid()}\\n")

def service():
    return create_app(jobs=[tick])
"""


def wait_until(condition: Callable[[], bool], what: str = "") -> float:
    """Wait until it is so, and return for how many seconds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < REAL_SECONDS_MAX, f"it does not come to that: {what}"
        time.sleep(POLL_SECONDS)
    return time.monotonic() - began


def ticks(folder: Path) -> list[tuple[int, int]]:
    """Return the runs of TICKING's job that have begun: their numbers, and by which process."""
    path = folder / "ticks"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(number), int(pid)) for number, pid in (line.split() for line in lines)]


class Server:
    """`python -m COMMAND` in a process group of its own, with the service to import."""

    def __init__(
        self, command: Sequence[str], *, folder: Path, log: Path, **environment: str
    ) -> None:
        """Start it in the folder; what it writes goes to the file `log`."""
        self._log = log
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": str(TEMPLATE / "{{cookiecutter.project_slug}}"),
            "PYTHONDONTWRITEBYTECODE": "1",
            **environment,
        }
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=folder,
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        """Hold it."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it and what it has started, however."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    @property
    def log(self) -> str:
        """All that has been written so far."""
        return self._log.read_text()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until it is so; if it does not come to that, tell what was written."""
        try:
            wait_until(condition)
        except AssertionError as error:
            error.add_note(self.log)
            raise

    def wait_for_end(self) -> int:
        """Return the exit code."""
        return self.process.wait(REAL_SECONDS_MAX)

    def end_by(self, signal_: signal.Signals) -> tuple[int, float]:
        """Send it, and return the exit code, and after how many seconds it came."""
        sent = time.monotonic()
        self.process.send_signal(signal_)
        return self.wait_for_end(), time.monotonic() - sent
