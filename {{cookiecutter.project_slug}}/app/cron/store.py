"""Where the due times are kept, and who may run: the one place that decides."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, Protocol

from .clock import Clock

# How many runs of each job are remembered.
HISTORY_RUNS = 50

# A wall clock that has moved this much more, or less, than the monotonic one has been stepped. Less
# is the clock being disciplined.
STEP_MIN = timedelta(seconds=1)

Outcome = Literal["ok", "error", "timeout", "interrupted"]


@dataclass(frozen=True, slots=True)
class Registration:
    """A job as the store needs to know it. The functions answer from the store's now."""

    name: str
    first: Callable[[datetime], datetime]
    """When a job that has never run is due."""
    latest: Callable[[datetime], datetime]
    """The moment beyond which no due time can lie."""
    steady: bool
    """True when a step of the wall clock must not move the next run."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a process needs to know of a job to decide when to claim it next."""

    name: str
    run_no: int
    delay: timedelta
    """From the moment of the answer until the job is due; negative when it is overdue."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The wish to run what comes after run `run_no`, the last one known to the process."""

    name: str
    run_no: int
    next_run_at: Callable[[datetime], datetime]
    """When the run after this one is due, from the instant of this claim."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A run that belongs to the process which claimed it, and to no other."""

    name: str
    run_no: int
    due_at: datetime
    started_at: datetime
    failures: int
    """How many runs before this one failed in a row."""


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of a claimed run."""

    name: str
    run_no: int
    outcome: Outcome
    note: str
    error: str
    failures: int
    """How many runs have now failed in a row."""
    next_run_at: Callable[[datetime, datetime], datetime]
    """When the next run is due, from now and from when it was due so far."""


@dataclass(slots=True)
class Run:
    """A line of the history. Without an outcome, it has not ended."""

    run_no: int
    due_at: datetime
    started_at: datetime
    finished_at: datetime | None = None
    outcome: Outcome | None = None
    note: str = ""
    error: str = ""


class Store(Protocol):
    """Keeps a row for each job. Each method is one transaction that first reads its own clock.

    It hands out delays, never times: the clocks of two processes are never compared.
    """

    async def register(self, jobs: Sequence[Registration]) -> list[Look]:
        """Make a row for each job that has none, and look at them all."""

    async def look(self, names: Iterable[str]) -> list[Look]:
        """When the jobs are due."""

    async def claim(self, claims: Sequence[Claim]) -> list[Claimed]:
        """Give the process each run that is due and that nobody has claimed since it looked."""

    async def finish(self, finishes: Sequence[Finish]) -> list[Look]:
        """Record the ends of runs. The end of a run that is no longer its job's last is ignored."""

    async def history(self, name: str) -> list[Run]:
        """The remembered runs of the job, the oldest first."""


@dataclass(slots=True)
class _Row:
    registration: Registration
    next_run_at: datetime
    run_no: int = 0
    failures: int = 0
    runs: deque[Run] = field(default_factory=lambda: deque(maxlen=HISTORY_RUNS))


class MemoryStore:
    """A store that lives and dies with its process, and is known to no other."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rows: dict[str, _Row] = {}
        self._now = clock.now()
        self._monotonic = clock.monotonic()

    async def register(self, jobs: Sequence[Registration]) -> list[Look]:
        now = self._read_clock()
        for job in jobs:
            if job.name not in self._rows:
                self._rows[job.name] = _Row(job, job.first(now))
        return self._look(now, (job.name for job in jobs))

    async def look(self, names: Iterable[str]) -> list[Look]:
        return self._look(self._read_clock(), names)

    async def claim(self, claims: Sequence[Claim]) -> list[Claimed]:
        now = self._read_clock()
        due_next = [claim.next_run_at(now) for claim in claims]  # before anything is changed
        claimed: list[Claimed] = []
        for claim, next_run_at in zip(claims, due_next, strict=True):
            row = self._rows[claim.name]
            if row.run_no == claim.run_no and row.next_run_at <= now:
                due_at, row.next_run_at = row.next_run_at, next_run_at
                row.run_no += 1
                row.runs.append(Run(row.run_no, due_at, now))
                claimed.append(Claimed(claim.name, row.run_no, due_at, now, row.failures))
        return claimed

    async def finish(self, finishes: Sequence[Finish]) -> list[Look]:
        now = self._read_clock()
        for finish in finishes:
            row = self._rows[finish.name]
            if row.run_no == finish.run_no:
                row.failures = finish.failures
                row.next_run_at = finish.next_run_at(now, row.next_run_at)
                run = row.runs[-1]
                run.finished_at, run.outcome = now, finish.outcome
                run.note, run.error = finish.note, finish.error
        return self._look(now, (finish.name for finish in finishes))

    async def history(self, name: str) -> list[Run]:
        return list(self._rows[name].runs)

    def _look(self, now: datetime, names: Iterable[str]) -> list[Look]:
        rows = ((name, self._rows[name]) for name in names)
        return [Look(name, row.run_no, row.next_run_at - now) for name, row in rows]

    def _read_clock(self) -> datetime:
        """What time it is. If the wall clock has been stepped since it was last read, steady jobs
        move with it, and none is left due later than its schedule can mean."""
        now, monotonic = self._clock.now(), self._clock.monotonic()
        step = (now - self._now) - timedelta(seconds=monotonic - self._monotonic)
        self._now, self._monotonic = now, monotonic
        if abs(step) >= STEP_MIN:
            for row in self._rows.values():
                if row.registration.steady:
                    row.next_run_at += step
                row.next_run_at = min(row.next_run_at, row.registration.latest(now))
        return now
