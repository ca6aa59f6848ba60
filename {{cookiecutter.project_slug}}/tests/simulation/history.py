"""What has happened, in true time: all that the oracle knows. Nothing in it comes from the app."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Terms:
    """What a process's code says of a job. Durations are microseconds."""

    kind: str
    period: int
    jitter: float
    splay: int | None = None
    """Of a job with times of day, which are the multiples of its period; else None."""
    timeout: int | None = None
    deaf: bool = False
    """True: its body may go on for long after it is told to end."""
    threaded: bool = False
    nightly: bool = False
    """True: its times are those of a zone whose clocks change, within one hour of the day."""
    alone: bool = False
    """True: each process runs it for itself, and the database knows nothing of it."""


@dataclass(frozen=True, slots=True)
class Row:
    """What the database keeps of a job. Moments are microseconds of the database's clock."""

    name: str
    next_run_at: int
    requested_at: int | None
    paused: bool
    run_no: int
    owner: str | None
    lease_until: int | None
    lease_seconds: int | None
    failures: int


@dataclass(frozen=True, slots=True)
class Started:
    """A process has started: with these jobs, and leases of so many microseconds."""

    at: int
    process: str
    jobs: Mapping[str, Terms]
    lease: int
    look_every: int
    grace: int
    drift: float = 0.0
    """By which part its monotonic clock is too fast."""


@dataclass(frozen=True, slots=True)
class Killed:
    """A process is no more."""

    at: int
    process: str


@dataclass(frozen=True, slots=True)
class Stopping:
    """A process has been told to stop."""

    at: int
    process: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """It has stopped; this is left of it: tasks, timers, threads."""

    at: int
    process: str
    left: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class JobChanged:
    """A committed transaction of a process, or of the "operator", has changed a job's row."""

    at: int
    by: str
    store_now: int
    old: Row | None
    new: Row | None


@dataclass(frozen=True, slots=True)
class RunChanged:
    """The same of a line of history: its outcome."""

    at: int
    by: str
    name: str
    run_no: int
    due_at: int
    old: str | None
    new: str | None


@dataclass(frozen=True, slots=True)
class Effect:
    """A committed transaction of a run has written something, behind the fence."""

    at: int
    by: str
    name: str
    run_no: int


@dataclass(frozen=True, slots=True)
class Body:
    """A body has "begun", is "told" to end (by a cancel, or `stopping`), or has "ended". Then its
    dependency is "torn down"."""

    at: int
    process: str
    name: str
    run_no: int
    what: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something goes wrong up to a moment: for one process or, without one, for all."""

    at: int
    kind: str
    process: str | None
    until: int
    target: str = ""
    """The job at which it was aimed. Of a "hold", the process that has the database to itself."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A process is asked to run a job now, by somebody who waits for its end."""

    at: int
    process: str
    name: str


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer: how the run has ended, as the database has it. None: it is not known."""

    at: int
    process: str
    name: str
    run_no: int | None
    outcome: str | None


@dataclass(frozen=True, slots=True)
class Noted:
    """A write of the process was "in vain": it has changed nothing. It was "contested" if another
    one's claim was less than a millisecond ago. Or the fence has "refused" it."""

    at: int
    process: str
    what: str


@dataclass(frozen=True, slots=True)
class Problem:
    """A process has complained of what should never happen."""

    at: int
    process: str
    text: str


@dataclass(frozen=True, slots=True)
class Healed:
    """From now on nothing goes wrong any more."""

    at: int


Record = (
    Started
    | Killed
    | Stopping
    | Stopped
    | JobChanged
    | RunChanged
    | Effect
    | Body
    | Fault
    | Asked
    | Answered
    | Noted
    | Problem
    | Healed
)
