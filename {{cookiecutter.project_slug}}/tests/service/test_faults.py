"""A sick database: nothing starts, nothing is lost, and the service goes on when it is well again.

The whole service on the test's clock. What is wrong with its database is really so: a file moved
away, another program's lock, and what SQLite itself can be told to refuse.
"""

import logging
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from httpx2 import AsyncClient
from sqlalchemy import Connection, QueuePool
from sqlalchemy.exc import OperationalError

from app.cron import JobContext, every, job
from app.cron.database import Database
from app.cron.job import Function
from app.cron.records import Records
from app.cron.sql_store import SqlStore
from app.cron.store import Claim, Claimed, Run, StoreUnavailable
from app.db import DatabaseDep
from app.main import create_app
from app.settings import Settings
from support import FakeClock, fixed, insert_sessions, notes, query
from support.server import serving

# A statement that ends only after a long time by itself.
ENDLESS = """
    WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number LIMIT 200000000)
    SELECT count(*) FROM number WHERE wait() IS NOT NULL
"""

# The longest rest between two looks at a database that is away.
REST = 30.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A statement does not wait for long for another program: that time is real."""
    monkeypatch.setattr("app.cron.sqlite.BUSY_SECONDS", 0.02)


@dataclass
class Service:
    """A service whose job ticks each ten seconds."""

    client: AsyncClient
    database: Database
    clock: FakeClock
    starts: list[float] = field(default_factory=list)

    async def history(self, name: str = "tick") -> list[Run]:
        """The runs of a job, as the database has them."""
        return await Records(self.database, self.clock).history(name)

    async def live(self) -> tuple[int, str]:
        """What `/health/live` says."""
        answer = await self.client.get("/health/live")
        return answer.status_code, answer.json()["cron"]


@asynccontextmanager
async def ticking(clock: FakeClock, settings: Settings, *more: Function) -> AsyncIterator[Service]:
    """A service that has `more` jobs beside its own, and that has run for a minute."""
    starts: list[float] = []

    @job(every(seconds=10, jitter=0))
    async def tick(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())

    app = create_app(settings, jobs=[tick, *more], clock=clock, random=fixed(0.5))
    databases: list[Database] = []

    @app.get("/database")
    async def keep(database: DatabaseDep) -> None:
        databases.append(database)

    async with serving(app, clock) as client:
        await client.get("/database")
        await clock.advance(minutes=1)
        yield Service(client, databases[0], clock, starts)


# What can be wrong


@asynccontextmanager
async def moved(service: Service, suffix: str = "") -> AsyncIterator[None]:
    """Somebody has moved a file away, and moves it back."""
    path = service.database.path.with_name(f"app.db{suffix}")
    path.rename(path.with_name("away"))
    try:
        yield
    finally:
        path.with_name("away").rename(path)


@asynccontextmanager
async def log_moved(service: Service) -> AsyncIterator[None]:
    """It was only the log."""
    async with moved(service, "-wal"):
        yield


@asynccontextmanager
async def locked(service: Service) -> AsyncIterator[None]:
    """Another program is in a transaction, and does not end it."""
    with closing(sqlite3.connect(service.database.path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield


@asynccontextmanager
async def read_only(service: Service) -> AsyncIterator[None]:
    """SQLite is told to write nothing, as it does by itself on a file system that is read-only."""
    tell(service, "PRAGMA query_only = ON")
    try:
        yield
    finally:
        tell(service, "PRAGMA query_only = OFF")


@asynccontextmanager
async def full(service: Service) -> AsyncIterator[None]:
    """The file cannot grow, and each change needs more room than is left in it."""
    tell(service, "CREATE TABLE ballast (load BLOB)")
    for number, change in enumerate(CHANGES):
        load = "BEGIN INSERT INTO ballast VALUES (zeroblob(10000)); END"
        tell(service, f"CREATE TEMP TRIGGER full_{number} AFTER {change} {load}")
    tell(service, "PRAGMA max_page_count = 1")  # which means: no more than there are
    try:
        yield
    finally:
        tell(service, "PRAGMA max_page_count = 1000000")


def tell(service: Service, statement: str) -> None:
    """Say it to the writer's connection, if that is still open."""
    pool = service.database._write_engine.pool
    assert isinstance(pool, QueuePool)
    if pool.checkedin():
        with closing(pool.connect()) as connection:
            connection.cursor().execute(statement)


CHANGES = ["UPDATE ON cron_job", "UPDATE ON cron_process", "INSERT ON sessions"]

Sickness = Callable[[Service], AbstractAsyncContextManager[None]]

SICKNESSES: dict[Sickness, str] = {
    moved: "app.db is gone: deleted or replaced while in use",
    log_moved: "app.db-wal is gone: deleted or replaced while in use",
    locked: "database is locked",
    read_only: "attempt to write a readonly database",
    full: "database or disk is full",
}

each_sickness = pytest.mark.parametrize("sickness", SICKNESSES)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log warns of, or worse."""
    return [line.getMessage() for line in caplog.records if line.levelno >= logging.WARNING]


# What comes of it


@each_sickness
async def test_it_is_told_when_it_begins_and_when_it_is_over(
    clock: FakeClock,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    sickness: Sickness,
) -> None:
    """Each in one line, however long it lasts; the first says why."""
    async with ticking(clock, settings) as service:
        async with sickness(service):
            await clock.advance(minutes=15)
        await clock.advance(minutes=1)
    [away, back] = told(caplog)
    assert away.startswith("cron: the database is away, no job starts until it is back: ")
    assert away.endswith(SICKNESSES[sickness])
    assert back.startswith("cron: the database is back after ")


@each_sickness
async def test_no_run_is_lost_and_none_is_made_twice(
    clock: FakeClock, settings: Settings, sickness: Sickness
) -> None:
    """Each start has its run, each run its end; then they go on, with the usual gaps."""
    async with ticking(clock, settings) as service:
        async with sickness(service):
            before = len(service.starts)
            await clock.advance(minutes=15)
            assert len(service.starts) == before
            well = clock.monotonic()
        await clock.advance(minutes=5)
        runs = await service.history()
    again = service.starts[before:]
    assert again[0] - well <= REST
    assert {later - sooner for sooner, later in pairwise(again)} == {10.0}
    assert [run.run_no for run in runs] == list(range(1, len(service.starts) + 1))
    assert {run.outcome for run in runs} == {"ok"}


@each_sickness
async def test_an_app_with_a_sick_database_is_alive(
    clock: FakeClock, settings: Settings, sickness: Sickness
) -> None:
    """200 with since when and why, as a restart would help nobody; then 200 and ok."""
    async with ticking(clock, settings) as service:
        async with sickness(service):
            for _ in range(10):
                await clock.advance(minutes=1)
                code, text = await service.live()
                assert code == 200
            assert text.startswith("the database is away for ")
            assert text.endswith(SICKNESSES[sickness])
        await clock.advance(minutes=1)
        assert await service.live() == (200, "ok")


@pytest.mark.parametrize(
    ("sickness", "code"),
    [(moved, 503), (log_moved, 503), (locked, 200), (read_only, 200), (full, 200)],
)
async def test_an_app_that_cannot_read_is_not_ready(
    clock: FakeClock, settings: Settings, sickness: Sickness, code: int
) -> None:
    """503 where the file is gone. Where it can only not be written, some requests can be served."""
    async with ticking(clock, settings) as service:
        async with sickness(service):
            sick = await service.client.get("/health/ready")
        well = await service.client.get("/health/ready")
    assert (sick.status_code, well.status_code) == (code, 200)
    if code == 503:
        assert sick.json()["database"].endswith(SICKNESSES[sickness])


@each_sickness
async def test_a_request_that_writes_is_put_off(
    clock: FakeClock, settings: Settings, caplog: pytest.LogCaptureFixture, sickness: Sickness
) -> None:
    """It is answered with 503, and told in one line that says why. Later it succeeds."""
    new = {"user": "ana", "ttl_seconds": 60}
    async with ticking(clock, settings) as service:
        async with sickness(service):
            caplog.clear()
            put_off = await service.client.post("/sessions", json=new)
        [told] = [each for each in caplog.records if each.name == "app.ops.errors"]
        created = await service.client.post("/sessions", json=new)
    assert (put_off.status_code, created.status_code) == (503, 201)
    assert put_off.headers["Retry-After"] == "5"
    assert put_off.json() == {"detail": "the database cannot be used now"}
    assert told.getMessage().startswith("POST /sessions: the database cannot be used: ")
    assert told.getMessage().endswith(SICKNESSES[sickness])
    assert told.exc_info is None


async def test_a_question_that_the_database_does_not_know_is_a_mistake(
    clock: FakeClock, settings: Settings
) -> None:
    """A table that is missing comes back by no waiting: who has to mend it gets the traceback."""
    async with ticking(clock, settings) as service:
        with closing(sqlite3.connect(service.database.path)) as connection, connection:
            connection.execute("DROP TABLE sessions")
        with pytest.raises(OperationalError, match="no such table: sessions"):
            await service.client.get("/sessions/1")


@each_sickness
async def test_a_run_that_cannot_renew_its_lease_is_stopped(
    clock: FakeClock, settings: Settings, sickness: Sickness
) -> None:
    """When its lease cannot be trusted any more, at most 25 s after; how it ended is told later."""
    stopped: list[float] = []

    @job(every(hours=1, jitter=0))
    async def work(ctx: JobContext) -> None:
        try:
            await ctx.clock.sleep(1800)
        finally:
            stopped.append(ctx.clock.monotonic())

    async with ticking(clock, settings, work) as service:
        begin = clock.monotonic()
        async with sickness(service):
            await clock.advance(minutes=2)
        await clock.advance(minutes=1)
        [run, *_] = await service.history("work")
    assert 15 <= stopped[0] - begin <= 25
    assert (run.outcome, run.error) == ("error", "LeaseLost: it could not be renewed in time")


@each_sickness
async def test_a_run_that_ends_meanwhile_is_recorded_later(
    clock: FakeClock, settings: Settings, sickness: Sickness
) -> None:
    """With when it ended. Its lease is over by then, but nobody else has taken the job."""

    @job(every(hours=1, jitter=0))
    async def work(ctx: JobContext) -> str:
        await ctx.clock.sleep(70)
        return "done"

    async with ticking(clock, settings, work) as service:
        async with sickness(service):
            await clock.advance(minutes=2)
        await clock.advance(minutes=1)
        runs = await service.history("work")
    assert [(run.run_no, run.outcome, run.note) for run in runs] == [(1, "ok", "done")]
    assert [run.finished_at for run in runs] == [runs[0].started_at + timedelta(seconds=70)]


@each_sickness
async def test_jobs_of_each_process_go_on(
    clock: FakeClock, settings: Settings, sickness: Sickness
) -> None:
    """They need no database."""
    starts: list[float] = []

    @job(every(minutes=1, jitter=0), each_process=True)
    async def own(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())

    async with ticking(clock, settings, own) as service, sickness(service):
        await clock.advance(minutes=10)
    assert starts == [60.0 * minute for minute in range(12)]


@each_sickness
async def test_the_app_ends_in_time(
    clock: FakeClock, settings: Settings, sickness: Sickness
) -> None:
    """Within the grace and 2 s: it waits for no database."""

    @job(every(hours=1, jitter=0))
    async def work(ctx: JobContext) -> None:
        await ctx.clock.sleep(3600)

    async with AsyncExitStack() as sick:
        async with ticking(clock, settings, work) as service:
            await sick.enter_async_context(sickness(service))
            await clock.advance(minutes=9)
            begin = clock.monotonic()
        assert clock.monotonic() - begin <= 5 + 2


async def test_two_processes_with_a_sick_database_share_as_before(
    clock: FakeClock, settings: Settings
) -> None:
    """Locked for both: afterwards, as before, each run is made by one of them."""
    async with ticking(clock, settings) as one, ticking(clock, settings) as two:
        async with locked(one):
            await clock.advance(minutes=10)
            before = len(one.starts + two.starts)
        await clock.advance(minutes=5)
        runs = await one.history()
    starts = sorted(one.starts + two.starts)
    assert len(starts) == len(set(starts)) == len(runs)
    assert len(starts) - before >= 27
    assert min(later - sooner for sooner, later in pairwise(starts)) >= 10


# A job that keeps the database


async def test_a_statement_that_takes_too_long_is_interrupted(
    clock: FakeClock, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """After its budget, a sixth of the lease, and its error names the job. Nothing is written."""
    gate = clock.gate()

    def write(connection: Connection) -> None:
        driver: Any = connection.connection.driver_connection
        driver.create_function("wait", 0, gate.wait)
        connection.exec_driver_sql("DELETE FROM sessions")
        connection.exec_driver_sql(ENDLESS)

    @job(every(hours=1, jitter=0))
    async def hog(ctx: JobContext) -> None:
        await ctx.write(write)

    await insert_sessions(settings, {"ana": 3}, clock.now())
    app = create_app(settings, jobs=[hog], clock=clock, random=fixed(0.5))
    async with serving(app, clock) as client:
        await clock.advance(seconds=6)
        gate.open()
        await clock.advance(seconds=0)
        [note] = notes(caplog, "hog")
        created = await client.post("/sessions", json={"user": "eva", "ttl_seconds": 60})
    assert note == (
        "error, WriteTooLong: hog run 1 wrote for 6.0 s in one transaction, and all others waited: "
        "at most 5 s are allowed; write less at a time"
    )
    assert created.status_code == 201
    assert query(settings, "SELECT count(*) FROM sessions") == [(4,)]


async def test_a_job_that_keeps_a_transaction_open_cannot_commit_it(
    clock: FakeClock, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """Python that holds it without a statement cannot be interrupted: what it wrote is undone."""
    gate = clock.gate()

    def write(connection: Connection) -> None:
        connection.exec_driver_sql("DELETE FROM sessions")
        gate.wait()

    @job(every(hours=1, jitter=0))
    async def hog(ctx: JobContext) -> None:
        await ctx.write(write)

    await insert_sessions(settings, {"ana": 3}, clock.now())
    app = create_app(settings, jobs=[hog], clock=clock, random=fixed(0.5))
    async with serving(app, clock):
        await clock.advance(seconds=6)
        gate.open()
        await clock.advance(seconds=0)
    [note] = notes(caplog, "hog")
    assert note.startswith("error, WriteTooLong: hog run 1 wrote for 6.0 s in one transaction")
    assert query(settings, "SELECT count(*) FROM sessions") == [(3,)]


# A database that another one has replaced


async def test_a_process_whose_database_was_deleted_claims_nothing_more(
    clock: FakeClock, settings: Settings
) -> None:
    """A second one makes a new database and has all to itself, as soon as the first one's run has
    been stopped: until then neither could know of the other."""
    ends: list[float] = []

    @job(every(minutes=20, jitter=0))
    async def work(ctx: JobContext) -> None:
        try:
            await ctx.clock.sleep(3600)
        finally:
            ends.append(ctx.clock.monotonic())

    async with ticking(clock, settings, work) as old:
        for path in settings.database_path.parent.glob("app.db*"):
            path.unlink()
        deleted, before = clock.monotonic(), len(old.starts)
        async with ticking(clock, settings) as new:
            await clock.advance(hours=1)
            assert (await old.client.get("/health/ready")).status_code == 503
            assert (await new.client.get("/health/ready")).status_code == 200
        assert len(old.starts) == before
        assert len(new.starts) == 6 * 61 + 1
    assert len(ends) == 1
    assert ends[0] - deleted <= 25


# Where it is sick for some statements only


async def test_a_claim_that_fails_while_all_else_works_is_told_once(
    clock: FakeClock,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A full disk can be so: a run needs room, a look at the jobs does not. That is one outage."""

    async def claim(_: SqlStore, __: Sequence[Claim]) -> list[Claimed]:
        raise StoreUnavailable("database or disk is full")

    async with ticking(clock, settings) as service:
        with monkeypatch.context() as patch:
            patch.setattr(SqlStore, "claim", claim)
            await clock.advance(minutes=20)
        assert len(told(caplog)) == 1
        before = len(service.starts)
        await clock.advance(minutes=5)
    assert len(service.starts) - before >= 26
    [_, back] = told(caplog)
    assert back.startswith("cron: the database is back after ")
