"""What is recorded while a peer runs: lines that bodies, processes and we append to one file."""

import time
from dataclasses import dataclass, field

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
