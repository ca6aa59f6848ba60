"""What a store is: it keeps when each job is due and who runs it, and it alone decides."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol

from .fence import Fence

# How many runs of each job are remembered at least; and up to how many, for how long.
HISTORY_RUNS = 50
HISTORY_RUNS_MAX = 2_000
HISTORY_AGE = timedelta(days=7)

Outcome = Literal["ok", "error", "timeout", "interrupted", "abandoned", "missed"]


class StoreUnavailable(Exception):
    """The store cannot be asked now; later it may. The message is one line: why."""


@dataclass(frozen=True, slots=True)
class Registration:
    """A job as the store needs to know it. The functions answer from the store's now."""

    name: str
    first: Callable[[datetime], datetime]
    """When a job that has never run is due."""
    latest: Callable[[datetime], datetime]
    """The moment beyond which no due time can lie."""
    steady: bool
    """True when a step of the wall clock must not move the next run, if that can be helped."""

    def latest_due(self, now: datetime, started_at: datetime | None) -> datetime:
        """The moment beyond which the job cannot be due, if its last run began at `started_at`.

        Where the clock has been set back to before that, by less than two times of day, it counts
        from there: what was due then has run, and is not due again.
        """
        latest = self.latest(now)
        if self.steady or not started_at or not now < started_at < self.latest(latest):
            return latest
        return self.latest(started_at)


@dataclass(frozen=True, slots=True)
class Look:
    """What a process needs to know of a job to decide when to claim it next."""

    name: str
    run_no: int
    delay: timedelta
    """From the moment of the answer until the job is due; negative when it is overdue."""
    held_for: timedelta = timedelta(0)
    """For how long the last run's lease still holds. Zero or less: nobody runs the job."""
    paused: bool = False
    """True: only a request lets it run, and there is none."""
    prompt: bool = False
    """True: an overdue run need not be spread; it was asked for, or the last one was cut short."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The wish to run what comes after run `run_no`, the last one known to the process."""

    name: str
    run_no: int
    next_run_at: Callable[[datetime], datetime]
    """When the run after this one is due, from the instant of this claim."""
    forced: bool = False
    """True: whether it is due or not, as long as nobody runs it."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A run that belongs to the process which claimed it, and to no other."""

    name: str
    run_no: int
    due_at: datetime
    started_at: datetime
    failures: int
    """How many runs before this one failed in a row."""
    requested: bool
    """True: somebody has asked for it, so it is never too late."""
    claimed_at: float
    """The process's monotonic clock, in seconds, when the claim was decided."""


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of a claimed run."""

    name: str
    run_no: int
    finished_at: datetime
    """By the clock that has told when it started. An outage may keep it from being recorded."""
    outcome: Outcome
    note: str
    error: str
    failures: int
    """How many runs have now failed in a row."""
    next_run_at: Callable[[datetime, datetime], datetime]
    """When the next run is due, from now and from when it was due so far."""


@dataclass(slots=True)
class Run:
    """A line of the history. Without an outcome, it is under way."""

    run_no: int
    due_at: datetime
    started_at: datetime
    finished_at: datetime | None = None
    outcome: Outcome | None = None
    owner: str = ""
    note: str = ""
    error: str = ""


class Store(Protocol):
    """Keeps a row for each job. Each method is one transaction that first reads its own clock.

    It hands out delays, never times: the clocks of two processes are never compared. What it cannot
    do now raises StoreUnavailable; then nothing is decided, whatever the database has done.
    """

    @property
    def lease(self) -> timedelta | None:
        """How long a claim holds unless it is renewed. None: as long as the process lives."""

    async def register(self, jobs: Sequence[Registration]) -> list[Look]:
        """Make a row for each job that has none, and look at them all."""

    async def look(self, names: Iterable[str]) -> list[Look]:
        """When the jobs are due. They must be registered; a row that was forgotten is made anew."""

    async def claim(self, claims: Sequence[Claim], *, wait: bool = False) -> list[Claimed]:
        """Give the process each run that is due and that nobody has claimed since it looked.

        Not one whose job another process has in its hands at this moment, unless it should `wait`.
        """

    async def heartbeat(self, runs: Sequence[Claimed]) -> dict[str, bool]:
        """Renew the leases of the runs. Returns by name whether it holds one.

        Nothing is said of those that another transaction has in its hands at this moment.
        """

    async def finish(self, finishes: Sequence[Finish]) -> tuple[list[Look], set[str]]:
        """Record the ends of runs, and look at their jobs. Then the names of those whose end could
        not be recorded: another run had begun, and theirs counts as abandoned.

        Nothing is done for those that another transaction has in its hands at this moment.
        """

    async def check_in(self, absence: tuple[datetime, datetime] | None = None) -> None:
        """Say that the process is alive, and from when to when it did not run, if it did not."""

    async def check_out(self) -> None:
        """Say that the process has stopped."""

    def fence(self, claimed: Claimed) -> Fence | None:
        """What lets the run write only while it is its job's last. None: it has no rival."""

    async def history(self, name: str) -> list[Run]:
        """The remembered runs of the job, the oldest first."""

    async def request(self, name: str) -> bool:
        """Make the job due now, even if it is paused. While it runs: once more, after its end.

        Like `pause` and `resume`, False: there is no such job.
        """

    async def pause(self, name: str) -> bool:
        """Let no run begin until `resume`, but for a request."""

    async def resume(self, name: str) -> bool:
        """Let runs begin again. One that is overdue begins soon."""
