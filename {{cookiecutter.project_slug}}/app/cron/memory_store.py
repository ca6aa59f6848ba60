"""The store of jobs that each process runs for itself: it lives and dies with the process."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from .clock import Clock
from .store import HISTORY_RUNS, Claim, Claimed, Finish, Look, Registration, Run

# A wall clock that has moved this much more, or less, than the monotonic one has been stepped. Less
# is the clock being disciplined.
STEP_MIN = timedelta(seconds=1)


@dataclass(slots=True)
class _Row:
    registration: Registration
    next_run_at: datetime
    requested_at: datetime | None = None
    paused: bool = False
    run_no: int = 0
    running: bool = False
    failures: int = 0
    runs: deque[Run] = field(default_factory=lambda: deque(maxlen=HISTORY_RUNS))


class MemoryStore:
    """A `Store` that no other process knows of: its claims need no lease, its writes no fence."""

    lease = None

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

    async def claim(self, claims: Sequence[Claim], *, wait: bool = False) -> list[Claimed]:
        now = self._read_clock()
        due_next = [claim.next_run_at(now) for claim in claims]  # before anything is changed
        claimed: list[Claimed] = []
        for claim, next_run_at in zip(claims, due_next, strict=True):
            row = self._rows[claim.name]
            requested = claim.forced or row.requested_at is not None
            due = row.next_run_at <= now and not row.paused
            if row.run_no != claim.run_no or row.running or not (due or requested):
                continue
            due_at = min(now, row.next_run_at, row.requested_at or now)
            row.run_no += 1
            row.running, row.requested_at, row.next_run_at = True, None, next_run_at
            row.runs.append(Run(row.run_no, due_at, now))
            claimed.append(
                Claimed(
                    claim.name,
                    row.run_no,
                    due_at,
                    now,
                    row.failures,
                    requested=requested,
                    claimed_at=self._monotonic,
                )
            )
        return claimed

    async def heartbeat(self, runs: Sequence[Claimed]) -> dict[str, bool]:
        return {run.name: self._is_under_way(run.name, run.run_no) for run in runs}

    async def finish(self, finishes: Sequence[Finish]) -> tuple[list[Look], set[str]]:
        now = self._read_clock()
        for finish in finishes:
            row = self._rows[finish.name]
            if self._is_under_way(finish.name, finish.run_no):
                row.failures, row.running = finish.failures, False
                row.next_run_at = finish.next_run_at(now, row.next_run_at)
                run = row.runs[-1]
                run.finished_at, run.outcome = finish.finished_at, finish.outcome
                run.note, run.error = finish.note, finish.error
        return self._look(now, (finish.name for finish in finishes)), set()

    async def check_in(self, absence: tuple[datetime, datetime] | None = None) -> None:
        """Nobody asks who is alive."""

    async def check_out(self) -> None:
        """Nobody asks who is alive."""

    def fence(self, claimed: Claimed) -> None:
        return None

    async def history(self, name: str) -> list[Run]:
        return list(self._rows[name].runs) if name in self._rows else []

    async def request(self, name: str) -> bool:
        if row := self._rows.get(name):
            row.requested_at = row.requested_at or self._read_clock()
        return row is not None

    async def pause(self, name: str) -> bool:
        return self._set_paused(name, paused=True)

    async def resume(self, name: str) -> bool:
        return self._set_paused(name, paused=False)

    def _set_paused(self, name: str, *, paused: bool) -> bool:
        if row := self._rows.get(name):
            row.paused = paused
        return row is not None

    def _is_under_way(self, name: str, run_no: int) -> bool:
        row = self._rows[name]
        return row.running and row.run_no == run_no

    def _look(self, now: datetime, names: Iterable[str]) -> list[Look]:
        return [self._look_at(now, name) for name in names]

    def _look_at(self, now: datetime, name: str) -> Look:
        row = self._rows[name]
        requested = row.requested_at is not None
        cut_short = bool(row.runs) and row.runs[-1].outcome == "interrupted"
        return Look(
            name,
            row.run_no,
            min(row.next_run_at, now if requested else row.next_run_at) - now,
            paused=row.paused and not requested,
            prompt=requested or cut_short,
        )

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
                started_at = row.runs[-1].started_at if row.runs else None
                latest = row.registration.latest_due(now, started_at)
                row.next_run_at = min(row.next_run_at, latest)
        return now
