"""A sick database: nothing starts, nothing is lost, and the service goes on when it is well again.

The whole service on the test's clock. What is wrong with its database is really so: a file moved
away, a server that lets nobody in, another program's lock, and what a database can be told to
refuse.
"""

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest
from httpx2 import AsyncClient
from sqlalchemy import Connection, QueuePool
from sqlalchemy.exc import DBAPIError

from app.cron import JobContext, every, job
from app.cron.database import Database
from app.cron.job import Function
from app.cron.records import Records
from app.cron.sql_store import SqlStore
from app.cron.store import Claim, Claimed, Run, StoreUnavailable
from app.db import DatabaseDep
from app.main import create_app
from app.settings import Settings
from support import (
    FakeClock,
    fixed,
    insert_sessions,
    notes,
    on_postgres,
    on_sqlite,
    path_of,
    query,
    serving,
)
from support.databases import ask_server, disconnect, locked, shut

# A statement that ends only after a long time by itself, and tells when it has begun.
ENDLESS = {
    "sqlite": """
        WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number LIMIT 200000000)
        SELECT count(*) FROM number WHERE begin() IS NOT NULL
    """,
    "postgresql": "DO $$ BEGIN RAISE NOTICE 'it begins'; PERFORM pg_sleep(600); END $$",
}

# The longest rest between two looks at a database that is away.
REST = 30.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A statement does not wait for long for another program: that time is real."""
    monkeypatch.setattr("app.cron.sqlite.BUSY_SECONDS", 0.02)
    monkeypatch.setattr("app.cron.postgres.LOCK_SECONDS", 0.02)


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
    """A service that has `more` jobs beside its own, and that has run for half a minute."""
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
        await clock.advance(seconds=30)
        yield Service(client, databases[0], clock, starts)


# What can be wrong, for as long as a block. Each gives the words by which the database tells.


@asynccontextmanager
async def moved(service: Service, name: str = "app.db") -> AsyncIterator[str]:
    """Somebody has moved a file away, and moves it back."""
    path = path_of(service.database).with_name(name)
    path.rename(path.with_name("away"))
    try:
        yield f"{name} is gone: deleted or replaced while in use"
    finally:
        path.with_name("away").rename(path)


@asynccontextmanager
async def log_moved(service: Service) -> AsyncIterator[str]:
    """It was only the log."""
    async with moved(service, "app.db-wal") as words:
        yield words


@asynccontextmanager
async def server_shut(service: Service) -> AsyncIterator[str]:
    """The server lets nobody in any more."""
    with shut(service.database):
        yield "is not currently accepting connections"


@asynccontextmanager
async def write_locked(service: Service) -> AsyncIterator[str]:
    """Another program is in a transaction, and does not end it."""
    with locked(service.database):
        yield LOCKED[service.database.url.get_backend_name()]


LOCKED = {"sqlite": "database is locked", "postgresql": "canceling statement due to lock timeout"}


@asynccontextmanager
async def all_locked(service: Service) -> AsyncIterator[str]:
    """The other program keeps all from reading too, as one does that alters a table."""
    with locked(service.database, to_readers=True):
        yield LOCKED["postgresql"]


@asynccontextmanager
async def read_only(service: Service) -> AsyncIterator[str]:
    """SQLite is told to write nothing, as it does by itself on a file system that is read-only."""
    tell(service, "PRAGMA query_only = ON")
    try:
        yield "attempt to write a readonly database"
    finally:
        tell(service, "PRAGMA query_only = OFF")


@asynccontextmanager
async def server_read_only(service: Service) -> AsyncIterator[str]:
    """The server has become another one's standby."""
    ask_server(service.database, "ALTER DATABASE {name} SET default_transaction_read_only = on")
    disconnect(service.database)
    try:
        yield "in a read-only transaction"
    finally:
        ask_server(service.database, "ALTER DATABASE {name} RESET default_transaction_read_only")
        disconnect(service.database)


@asynccontextmanager
async def full(service: Service) -> AsyncIterator[str]:
    """The file cannot grow, and each change needs more room than is left in it."""
    tell(service, "CREATE TABLE ballast (load BLOB)")
    for number, change in enumerate(CHANGES):
        load = "BEGIN INSERT INTO ballast VALUES (zeroblob(10000)); END"
        tell(service, f"CREATE TEMP TRIGGER full_{number} AFTER {change} {load}")
    tell(service, "PRAGMA max_page_count = 1")  # which means: no more than there are
    try:
        yield "database or disk is full"
    finally:
        tell(service, "PRAGMA max_page_count = 1000000")


@asynccontextmanager
async def server_full(service: Service) -> AsyncIterator[str]:
    """The server's disk is full. It says so of its own accord only where that is so."""
    words = "could not extend file: No space left on device"
    query(
        service.database,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"RAISE EXCEPTION '{words}' USING ERRCODE = 'disk_full'; END $$",
    )
    for change in CHANGES:
        query(service.database, f"CREATE TRIGGER refuse AFTER {change} EXECUTE FUNCTION refuse()")
    try:
        yield words
    finally:
        query(service.database, "DROP FUNCTION refuse CASCADE")


def tell(service: Service, statement: str) -> None:
    """Say it to SQLite's writer's connection, if that is still open."""
    pool = service.database._write_engine.pool
    assert isinstance(pool, QueuePool)
    if pool.checkedin():
        with closing(pool.connect()) as connection:
            connection.cursor().execute(statement)


CHANGES = ["UPDATE ON cron_job", "UPDATE ON cron_process", "INSERT ON sessions"]

Sickness = Callable[[Service], AbstractAsyncContextManager[str]]

# Each with the answer of `/health/ready`: while reading works, some requests can be served.
SICKNESSES: list[tuple[str, Sickness, int]] = [
    ("sqlite", moved, 503),
    ("sqlite", log_moved, 503),
    ("sqlite", write_locked, 200),
    ("sqlite", read_only, 200),
    ("sqlite", full, 200),
    ("postgres", server_shut, 503),
    ("postgres", write_locked, 200),
    ("postgres", all_locked, 503),
    ("postgres", server_read_only, 200),
    ("postgres", server_full, 200),
]

each_sickness = pytest.mark.parametrize(
    ("url", "sickness"), [(url, sickness) for url, sickness, _ in SICKNESSES], indirect=["url"]
)


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
        async with sickness(service) as words:
            await clock.advance(minutes=3)
        await clock.advance(minutes=1)
    [away, back] = told(caplog)
    assert away.startswith("cron: the database is away, no job starts until it is back: ")
    assert words in away
    assert "\n" not in away
    assert back.startswith("cron: the database is back after ")


@each_sickness
async def test_no_run_is_lost_and_none_is_made_twice(
    clock: FakeClock, settings: Settings, sickness: Sickness
) -> None:
    """Each start has its run, each run its end; then they go on, with the usual gaps."""
    async with ticking(clock, settings) as service:
        async with sickness(service):
            before = len(service.starts)
            await clock.advance(minutes=2, seconds=30)
            assert len(service.starts) == before
            well = clock.monotonic()
        await clock.advance(minutes=2)
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
        async with sickness(service) as words:
            for _ in range(3):
                await clock.advance(minutes=1)
                code, text = await service.live()
                assert code == 200
            assert text.startswith("the database is away for ")
            assert words in text
        await clock.advance(minutes=1)
        assert await service.live() == (200, "ok")


@pytest.mark.parametrize(("url", "sickness", "code"), SICKNESSES, indirect=["url"])
async def test_an_app_that_cannot_read_is_not_ready(
    clock: FakeClock, settings: Settings, sickness: Sickness, code: int
) -> None:
    """503 while reading fails. Where nothing can only be written, some requests can be served."""
    async with ticking(clock, settings) as service:
        async with sickness(service) as words:
            sick = await service.client.get("/health/ready")
        well = await service.client.get("/health/ready")
    assert (sick.status_code, well.status_code) == (code, 200)
    if code == 503:
        assert words in sick.json()["database"]


@each_sickness
async def test_a_request_that_writes_is_put_off(
    clock: FakeClock, settings: Settings, caplog: pytest.LogCaptureFixture, sickness: Sickness
) -> None:
    """It is answered with 503, and told in one line that says why. Later it succeeds."""
    new = {"user": "ana", "ttl_seconds": 60}
    async with ticking(clock, settings) as service:
        async with sickness(service) as words:
            caplog.clear()
            put_off = await service.client.post("/sessions", json=new)
        [told] = [each for each in caplog.records if each.name == "app.ops.errors"]
        created = await service.client.post("/sessions", json=new)
    assert (put_off.status_code, created.status_code) == (503, 201)
    assert put_off.headers["Retry-After"] == "5"
    assert put_off.json() == {"detail": "the database cannot be used now"}
    assert told.getMessage().startswith("POST /sessions: the database cannot be used: ")
    assert words in told.getMessage()
    assert told.exc_info is None


async def test_a_question_that_the_database_does_not_know_is_a_mistake(
    clock: FakeClock, settings: Settings
) -> None:
    """A table that is missing comes back by no waiting: who has to mend it gets the traceback."""
    async with ticking(clock, settings) as service:
        query(settings, "DROP TABLE sessions")
        with pytest.raises(DBAPIError, match=r'no such table: sessions|"sessions" does not exist'):
            await service.client.get(f"/sessions/{uuid4()}")


def work_until(ends: list[float], *, hours: float, seconds: float) -> Function:
    """A job that comes so often and takes so long, and notes when it has ended, or was stopped."""

    @job(every(hours=hours, jitter=0))
    async def work(ctx: JobContext) -> None:
        try:
            await ctx.clock.sleep(seconds)
        finally:
            ends.append(ctx.clock.monotonic())

    return work


@each_sickness
async def test_a_run_that_cannot_renew_its_lease_is_stopped(
    clock: FakeClock, settings: Settings, sickness: Sickness
) -> None:
    """When its lease cannot be trusted any more, at most 25 s after; how it ended is told later."""
    stopped: list[float] = []

    async with ticking(clock, settings, work_until(stopped, hours=1, seconds=1800)) as service:
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
        await ctx.clock.sleep(40)
        return "done"

    async with ticking(clock, settings, work) as service:
        async with sickness(service):
            await clock.advance(minutes=2)
        await clock.advance(minutes=1)
        runs = await service.history("work")
    assert [(run.run_no, run.outcome, run.note) for run in runs] == [(1, "ok", "done")]
    assert [run.finished_at for run in runs] == [runs[0].started_at + timedelta(seconds=40)]


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
        await clock.advance(minutes=3)
    assert starts == [60.0 * minute for minute in range(4)]


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
            await clock.advance(minutes=2)
            begin = clock.monotonic()
        assert clock.monotonic() - begin <= 5 + 2


async def test_two_processes_with_a_sick_database_share_as_before(
    clock: FakeClock, settings: Settings
) -> None:
    """Locked for both: afterwards, as before, each run is made by one of them."""
    async with ticking(clock, settings) as one, ticking(clock, settings) as two:
        async with write_locked(one):
            await clock.advance(minutes=3)
            before = len(one.starts + two.starts)
        await clock.advance(minutes=3)
        runs = await one.history()
    starts = sorted(one.starts + two.starts)
    assert len(starts) == len(set(starts)) == len(runs)
    assert len(starts) - before >= 15
    assert min(later - sooner for sooner, later in pairwise(starts)) >= 10


# A job that keeps the database


async def test_a_statement_that_takes_too_long_is_interrupted(
    clock: FakeClock, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """After its budget, a sixth of the lease, and its error names the job. Nothing is written."""
    gate = clock.gate()

    def write(connection: Connection) -> None:
        driver: Any = connection.connection.driver_connection
        if connection.dialect.name == "sqlite":
            driver.create_function("begin", 0, gate.wait)
        else:
            driver.add_notice_handler(lambda _: gate.wait())
        connection.exec_driver_sql("DELETE FROM sessions")
        connection.exec_driver_sql(ENDLESS[connection.dialect.name])

    @job(every(hours=1, jitter=0))
    async def hog(ctx: JobContext) -> None:
        await ctx.write(write)

    await insert_sessions(settings, {"ana": 3}, clock.now())
    strict = settings.model_copy(update={"cron_lease_seconds": 3})  # Postgres itself counts to 0.5
    app = create_app(strict, jobs=[hog], clock=clock, random=fixed(0.5))
    async with serving(app, clock) as client:
        await clock.advance(seconds=0.6)
        gate.open()
        await clock.advance(seconds=0)
        [note] = notes(caplog, "hog")
        created = await client.post("/sessions", json={"user": "eva", "ttl_seconds": 60})
    assert note == (
        "error, WriteTooLong: hog run 1 wrote for 0.6 s in one transaction: "
        "at most 0.5 s are allowed, for others wait meanwhile; write less at a time"
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


@on_sqlite
async def test_a_process_whose_database_was_deleted_claims_nothing_more(
    clock: FakeClock, settings: Settings
) -> None:
    """A second one makes a new database and has all to itself, as soon as the first one's run has
    been stopped: until then neither could know of the other."""
    ends: list[float] = []

    async with ticking(clock, settings, work_until(ends, hours=1 / 30, seconds=3600)) as old:
        for path in path_of(settings).parent.glob("app.db*"):
            path.unlink()
        deleted, before = clock.monotonic(), len(old.starts)
        async with ticking(clock, settings) as new:
            await clock.advance(minutes=5)
            assert (await old.client.get("/health/ready")).status_code == 503
            assert (await new.client.get("/health/ready")).status_code == 200
        assert len(old.starts) == before
        assert len(new.starts) == 6 * 5 + 3 + 1
    assert len(ends) == 1
    assert ends[0] - deleted <= 25


@on_postgres
async def test_a_process_whose_database_was_made_anew_goes_on_in_it(
    clock: FakeClock, settings: Settings
) -> None:
    """It shares it with the next one, which makes the tables. The run that nobody knows any more
    is stopped."""
    ends: list[float] = []

    async with ticking(clock, settings, work_until(ends, hours=1 / 30, seconds=3600)) as old:
        ask_server(settings, "DROP DATABASE {name} WITH (FORCE)")
        ask_server(settings, "CREATE DATABASE {name} TEMPLATE template0")
        dropped, before = clock.monotonic(), len(old.starts)
        async with ticking(clock, settings) as new:
            await clock.advance(minutes=5)
            runs = await new.history()
    starts = sorted([*old.starts[before:], *new.starts])
    assert len(starts) == len(set(starts)) == len(runs)
    assert min(later - sooner for sooner, later in pairwise(starts)) >= 10
    assert ends[0] - dropped <= 25


@on_postgres
async def test_connections_that_are_cut_are_no_outage(
    clock: FakeClock, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """They are made anew, as after a quick restart of the server: no start is late, nothing is
    told."""
    async with ticking(clock, settings) as service:
        for _ in range(4):
            disconnect(settings)
            await clock.advance(seconds=45)
        created = await service.client.post("/sessions", json={"user": "ana", "ttl_seconds": 60})
    assert created.status_code == 201
    assert {later - sooner for sooner, later in pairwise(service.starts)} == {10.0}
    assert told(caplog) == []


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
            await clock.advance(minutes=3)
        assert len(told(caplog)) == 1
        before = len(service.starts)
        await clock.advance(minutes=2)
    assert len(service.starts) - before >= 8
    [_, back] = told(caplog)
    assert back.startswith("cron: the database is back after ")
