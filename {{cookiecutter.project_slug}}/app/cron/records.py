"""What is kept of the jobs, as people see and steer it: due times, history, requests, pauses."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar, get_args

from sqlalchemy import Connection, Row
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError

from .clock import Clock, SystemClock
from .database import Database, DatabaseError, reason_of
from .lock import lock_rows
from .moment import moment_or_none, to_microseconds, to_moment
from .statement import Statement, is_postgres
from .store import Outcome, Run, StoreUnavailable

T = TypeVar("T")

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

# One statement each: between two, a run could begin or end, and they would not go together.
JOBS = Statement("""
    SELECT job.*, run.due_at, run.started_at, run.finished_at, run.outcome,
        run.owner AS run_owner, run.note, run.error
    FROM cron_job AS job
    LEFT JOIN cron_run AS run ON run.name = job.name AND run.run_no = job.run_no
    ORDER BY job.name
""")

HISTORY = Statement("""
    SELECT run.*, job.lease_until, job.lease_seconds
    FROM cron_run AS run
    LEFT JOIN cron_job AS job ON job.name = run.name AND job.run_no = run.run_no
    WHERE run.name = :name ORDER BY run.run_no
""")

LEASE = Statement("SELECT lease_until, lease_seconds FROM cron_job WHERE name = :name")

PROCESSES = Statement("SELECT * FROM cron_process ORDER BY started_at, owner")

REQUEST = Statement(
    "UPDATE cron_job SET requested_at = coalesce(requested_at, :now) WHERE name = :name"
)

PAUSE = Statement("UPDATE cron_job SET paused = :paused WHERE name = :name")

# Not now(), which is when the transaction began: it may have waited for a lock since.
POSTGRES_NOW = Statement("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)")

# A table that somebody has dropped is an outage, as it is on SQLite.
POSTGRES_UNDEFINED_TABLE = "42P01"

FORGET = Statement("DELETE FROM cron_job WHERE name = :name")

FORGET_RUNS = Statement("DELETE FROM cron_run WHERE name = :name")


@dataclass(frozen=True, slots=True)
class JobRecord:
    """What is known of a job, whether this code has it or not."""

    name: str
    next_run_at: datetime
    requested_at: datetime | None
    paused: bool
    run_no: int
    failures: int
    """How many of the last runs failed in a row."""
    held_by: str | None
    """The process that runs it now."""
    last_run: Run | None
    counts: dict[Outcome, int]
    """How many runs have ended in which way since the job is known."""


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """A process that runs jobs, or has done so in the last seven days."""

    owner: str
    started_at: datetime
    seen_at: datetime
    stopped_at: datetime | None
    absent_from: datetime | None
    """Since when it did not run, the last time that it noticed such a gap."""
    absent_until: datetime | None


def is_held(row: Row[Any], now: datetime) -> bool:
    """Whether the lease in a job's row holds: the opposite of the condition in `claim.PICK`."""
    if row.lease_until is None:
        return False
    left = row.lease_until - to_microseconds(now)
    return bool(0 < left <= row.lease_seconds * 1_000_000)


class Records:
    """Reads and changes what is kept, for the shell and for whoever watches the jobs.

    What the database cannot do now raises StoreUnavailable.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    @property
    def database_name(self) -> str:
        """Which database it is."""
        return self._database.name

    async def jobs(self) -> list[JobRecord]:
        """All jobs that have a row, by name."""
        return await self._read(JOBS, lambda rows, now: [_job(row, now) for row in rows])

    async def history(self, name: str) -> list[Run]:
        """The remembered runs of the job, the oldest first."""

        def read(rows: Sequence[Row[Any]], now: datetime) -> list[Run]:
            return [_run(row, row.owner, now) for row in rows]

        return await self._read(HISTORY, read, name=name)

    async def processes(self) -> list[ProcessRecord]:
        """The processes of the last seven days, in the order in which they started."""
        return await self._read(PROCESSES, lambda rows, _: [_process(row) for row in rows])

    async def request(self, name: str) -> bool:
        """Make the job due now, even if it is paused. While it runs: once more, after its end."""
        return await self._change(REQUEST, name=name)

    async def pause(self, name: str) -> bool:
        """Let no run begin until `resume`, but for a request."""
        return await self._change(PAUSE, name=name, paused=True)

    async def resume(self, name: str) -> bool:
        """Let runs begin again. One that is overdue begins soon."""
        return await self._change(PAUSE, name=name, paused=False)

    async def forget(self, name: str) -> bool:
        """Delete the job's row and history: where code has it, it is new. False while it runs."""

        def forget(connection: Connection) -> bool:
            lock_rows(connection, [name])
            now = self._now(connection)
            lease = connection.execute(LEASE.on(connection), {"name": name}).one_or_none()
            if lease is None or is_held(lease, now):
                return False
            for statement in (FORGET, FORGET_RUNS):
                connection.execute(statement.on(connection), {"name": name})
            return True

        return await self._write(forget)

    async def now(self) -> datetime:
        """The moment with which the store compares what it keeps."""
        with unavailable():
            return await self._database.read(self._now, urgent=True)

    async def _change(self, statement: Statement, **values: object) -> bool:
        def change(connection: Connection) -> bool:
            values["now"] = to_microseconds(self._now(connection))
            return connection.execute(statement.on(connection), values).rowcount > 0

        return await self._write(change)

    async def _read(
        self,
        statement: Statement,
        function: Callable[[Sequence[Row[Any]], datetime], T],
        **values: object,
    ) -> T:
        def read(connection: Connection) -> T:
            rows = connection.execute(statement.on(connection), values).all()
            # Now, not before: what was renewed meanwhile would hold for longer than can be true.
            return function(rows, self._now(connection))

        with unavailable():
            return await self._database.read(read, urgent=True)

    async def _write(self, function: Callable[[Connection], T]) -> T:
        with unavailable():
            return await self._database.write(function, urgent=True)

    def _now(self, connection: Connection) -> datetime:
        """The injected clock's, but the server's where it would be a machine's own: the clocks of
        two machines are never compared."""
        if type(self._clock) is SystemClock and is_postgres(connection):
            row = connection.execute(POSTGRES_NOW.on(connection))
            return to_moment(row.scalar_one())
        return self._clock.now()


@contextmanager
def unavailable() -> Iterator[None]:
    """Tell a database that is away, full, locked or broken from a mistake in what it was asked."""
    try:
        yield
    except (IntegrityError, ProgrammingError, DataError) as error:
        if getattr(error.orig, "sqlstate", None) != POSTGRES_UNDEFINED_TABLE:
            raise
        raise StoreUnavailable(reason_of(error)) from error
    except (DBAPIError, DatabaseError) as error:
        raise StoreUnavailable(reason_of(error)) from error


def _job(row: Row[Any], now: datetime) -> JobRecord:
    last_run = None if row.started_at is None else _run(row, row.run_owner, now)
    counts = {outcome: getattr(row, f"{outcome}_count") for outcome in OUTCOMES}
    return JobRecord(
        row.name,
        to_moment(row.next_run_at),
        moment_or_none(row.requested_at),
        bool(row.paused),
        row.run_no,
        row.failures,
        row.owner if is_held(row, now) else None,
        last_run,
        counts,
    )


def _run(row: Row[Any], owner: str, now: datetime) -> Run:
    return Run(
        row.run_no,
        to_moment(row.due_at),
        to_moment(row.started_at),
        moment_or_none(row.finished_at),
        # Nobody is left to say how such a run ended, until the next one begins.
        "abandoned" if row.outcome is None and not is_held(row, now) else row.outcome,
        owner,
        row.note,
        row.error,
    )


def _process(row: Row[Any]) -> ProcessRecord:
    return ProcessRecord(
        row.owner,
        to_moment(row.started_at),
        to_moment(row.seen_at),
        moment_or_none(row.stopped_at),
        moment_or_none(row.absent_from),
        moment_or_none(row.absent_until),
    )
