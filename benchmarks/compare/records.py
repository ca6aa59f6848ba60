"""What is recorded while a peer runs: lines that bodies, processes and we append to one file."""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

JOBS = {"tick": 2, "slow": 12, "thread": 2}
"""Each job, of which an app has one, and every how many seconds it is due."""


@dataclass(frozen=True, slots=True)
class Event:
    """A line of the file.

    Of a body, `what` is "start", "beat" (a thread is alive), "written" (its row is committed), and
    "end" or "cut"; of a process "up" and "down", around its lifespan, and "exit"; or what we do:
    "stop", "continue", "kill", "terminate" to a process, and "phase", which begins what it names.
    All processes share the machine's monotonic clock, so its seconds can be compared.
    """

    what: str
    pid: int = 0
    name: str = ""
    """Of the body, made up by itself; or of the phase."""
    detail: str = ""
    """Of a start, the due time that the scheduler names, if it has one; of a cut, the exception."""
    monotonic: float = field(default_factory=time.monotonic)
    wall: float = field(default_factory=time.time)


class Recorder:
    """Appends to the file. Each line is one write at its end, so processes do not mix lines."""

    def __init__(self, path: Path) -> None:
        """Make the file, unless it is there."""
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def __call__(self, event: Event) -> None:
        """Append the event."""
        os.write(self._file, f"{json.dumps(asdict(event))}\n".encode())


class Follower:
    """Reads the file while it grows."""

    def __init__(self, path: Path) -> None:
        """Begin before the first event."""
        self._path = path
        self._read = 0

    def new(self) -> Iterator[Event]:
        """Give the events that have come since it was last asked."""
        with self._path.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._read += len(line)
                yield Event(**json.loads(line))
