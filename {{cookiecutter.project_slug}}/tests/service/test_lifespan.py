"""The lifespan: jobs start and end with the app, on a database that is ready before them."""

import asyncio
import logging
import re
import shutil
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from fastapi import FastAPI
from sqlalchemy import URL, Column, Connection, Table, text
from sqlalchemy.exc import DBAPIError

from app.cron import JobContext, every, job
from app.cron.clock import SystemClock
from app.cron.database import Database, DatabaseError
from app.db import (
    MIGRATIONS,
    DatabaseDep,
    Moment,
    database_at,
    get_database,
    metadata,
    remark_on_platform,
    upgrade_schema,
)
from app.main import create_app
from app.settings import Settings
from overrides import OVERRIDES
from support import (
    FakeClock,
    fixed,
    notes,
    on_postgres,
    on_sqlite,
    path_of,
    query,
    running,
    serving,
)
from support.databases import locked, name_of, newest_revision, schema
from support.process import free_port, wait_until

HIDDEN = "hidden"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A statement does not wait for long for another program: that time is real."""
    monkeypatch.setattr("app.cron.sqlite.BUSY_SECONDS", 0.02)
    monkeypatch.setattr("app.cron.postgres.LOCK_SECONDS", 0.02)


@pytest.fixture
def alembic(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Alembic as its own command has it, on the database of `settings`."""
    monkeypatch.setenv("DATABASE_URL", settings.database_url)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


async def test_a_job_runs_because_the_app_has_started(clock: FakeClock, settings: Settings) -> None:
    """Nobody asks for it: the lifespan starts the scheduler, and the job is run at once."""
    runs: list[int] = []

    @job(every(minutes=5))
    async def count(ctx: JobContext) -> None:
        runs.append(ctx.run_no)

    app = create_app(settings, jobs=[count], clock=clock, random=fixed(0))
    assert runs == []
    async with running(app, clock):
        assert runs == [1]
        await clock.advance(minutes=3, seconds=30)
        assert runs == [1, 2]


async def test_jobs_end_with_the_app(clock: FakeClock, settings: Settings) -> None:
    """After the lifespan no run goes on, none begins, and no task of the scheduler is left."""
    runs: list[str] = []

    @job(every(minutes=5))
    async def wait(ctx: JobContext) -> None:
        runs.append("begun")
        try:
            await ctx.clock.sleep(60)
        finally:
            runs.append("ended")

    async with running(create_app(settings, jobs=[wait], clock=clock, random=fixed(0)), clock):
        assert runs == ["begun"]
    assert runs == ["begun", "ended"]
    assert tasks_of_cron() == []
    await clock.advance(hours=1)
    assert runs == ["begun", "ended"]


async def test_jobs_end_also_when_the_app_fails(clock: FakeClock, settings: Settings) -> None:
    """An exception inside the lifespan's block stops the scheduler as an orderly end does."""
    runs: list[str] = []

    @job(every(minutes=5))
    async def wait(ctx: JobContext) -> None:
        runs.append("begun")
        try:
            await ctx.clock.sleep(60)
        finally:
            runs.append("ended")

    app = create_app(settings, jobs=[wait], clock=clock, random=fixed(0))

    async def fail() -> None:
        async with app.router.lifespan_context(app):
            await clock.sleep(1)
            raise OSError("the server failed")

    with pytest.raises(OSError, match="the server failed"):
        await clock.run(fail())
    assert runs == ["begun", "ended"]
    assert tasks_of_cron() == []


async def test_a_job_can_write_while_the_app_ends(clock: FakeClock, settings: Settings) -> None:
    """The database is closed after the last job has ended, not before."""

    @job(every(minutes=5))
    async def leave_a_trace(ctx: JobContext, db: DatabaseDep) -> None:
        try:
            await ctx.clock.sleep(3600)
        finally:
            await db.write(insert_session)

    app = create_app(settings, jobs=[leave_a_trace], clock=clock, random=fixed(0))
    async with running(app, clock):
        await clock.advance(minutes=1)
    assert query(settings, "SELECT count(*) FROM sessions") == [(1,)]


async def test_the_database_is_closed_when_the_app_has_ended(
    clock: FakeClock, settings: Settings
) -> None:
    """What then still writes gets a RuntimeError."""
    app = create_app(settings, jobs=[], clock=clock)
    databases: list[Database] = []

    @app.get("/database")
    async def keep(db: DatabaseDep) -> None:
        databases.append(db)

    async with serving(app, clock) as client:
        await client.get("/database")
    with pytest.raises(RuntimeError, match="closed"):
        await databases[0].write(insert_session)


@on_sqlite
async def test_the_log_is_in_the_file_when_the_app_has_ended(
    clock: FakeClock, settings: Settings
) -> None:
    """Who copies the file has all."""
    log = path_of(settings).with_name("app.db-wal")
    async with running(create_app(settings, jobs=[], clock=clock), clock):
        assert log.exists()
    assert not log.exists()


@on_postgres
async def test_no_connection_is_left_when_the_app_has_ended(
    clock: FakeClock, settings: Settings
) -> None:
    """A server has few to give. It takes a moment to see that one was closed."""
    connections = """
        SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name <> 'a test'
    """
    async with running(create_app(settings, jobs=[], clock=clock), clock):
        [(count,)] = query(settings, connections)
        assert 1 <= count <= 8
    wait_until(lambda: query(settings, connections) == [(0,)])


async def test_the_state_is_there_for_jobs(clock: FakeClock, settings: Settings) -> None:
    """`ctx.state` has what `request.state` has: the database, the clock and the scheduler."""
    seen: list[object] = []

    @job(every(minutes=5, jitter=0.1))
    async def look(ctx: JobContext, db: DatabaseDep) -> None:
        seen.extend([ctx.state.clock is clock, ctx.state.database is db, ctx.state.scheduler])

    app = create_app(settings, jobs=[look], clock=clock, random=fixed(0))
    async with running(app, clock):
        assert seen[:2] == [True, True]
        assert seen[2] is not None


async def test_no_job_runs_where_cron_is_off(clock: FakeClock, settings: Settings) -> None:
    """CRON_ENABLED=false: the app serves, and runs nothing, however long it lives."""
    runs: list[int] = []

    @job(every(minutes=5))
    async def count(ctx: JobContext) -> None:
        runs.append(ctx.run_no)

    off = settings.model_copy(update={"cron_enabled": False})
    async with serving(create_app(off, jobs=[count], clock=clock), clock) as client:
        await clock.advance(minutes=11)
        created = await client.post("/sessions", json={"user": "ana", "ttl_seconds": 90})
        live = await client.get("/health/live")
    assert runs == []
    assert (created.status_code, live.status_code) == (201, 200)


async def test_the_app_answers_whatever_its_jobs_do(clock: FakeClock, settings: Settings) -> None:
    """One raises, one exits, one hangs, one blocks its thread: sessions are kept as ever."""
    gate = clock.gate()

    @job(every(minutes=1))
    async def fail() -> None:
        raise KeyError("no")

    @job(every(minutes=1))
    def leave() -> None:
        sys.exit(3)

    @job(every(minutes=1))
    async def hang() -> None:
        await asyncio.Event().wait()

    @job(every(minutes=1))
    def block() -> None:
        gate.wait()

    app = create_app(settings, jobs=[fail, leave, hang, block], clock=clock)
    async with serving(app, clock) as client:
        await clock.advance(minutes=5)
        created = await client.post("/sessions", json={"user": "ana", "ttl_seconds": 90})
        read = await client.get(f"/sessions/{created.json()['id']}")
        gate.open()
    assert (created.status_code, read.status_code) == (201, 200)


async def test_the_schema_is_there_before_the_first_run(
    clock: FakeClock, settings: Settings
) -> None:
    """On a new file, a job that is due at once can read the table already."""
    counts: list[int] = []

    @job(every(minutes=5, jitter=0))
    def count(db: DatabaseDep) -> None:
        rows = db.read_here(lambda connection: connection.execute(text("SELECT id FROM sessions")))
        counts.append(len(rows.all()))

    async with running(create_app(settings, jobs=[count], clock=clock), clock):
        assert counts == [0]
    assert query(settings, "SELECT version_num FROM alembic_version") == [(newest_revision(),)]


async def test_an_old_schema_is_upgraded(clock: FakeClock, settings: Settings) -> None:
    """A database from before the first migration gets it, and keeps what it has."""
    query(settings, "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
    query(settings, "CREATE TABLE guests (name TEXT)")
    async with serving(create_app(settings, jobs=[], clock=clock), clock) as client:
        created = await client.post("/sessions", json={"user": "ana", "ttl_seconds": 90})
    assert created.status_code == 201
    assert query(settings, "SELECT count(*) FROM guests") == [(0,)]


async def test_each_revision_from_the_future_is_told(
    clock: FakeClock, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """There may be two, where newer code has branches."""
    async with running(create_app(settings, jobs=[], clock=clock), clock):
        pass
    query(settings, "UPDATE alembic_version SET version_num = 'f00d'")
    query(settings, "INSERT INTO alembic_version VALUES ('beef')")
    async with running(create_app(settings, jobs=[], clock=clock), clock):
        pass
    line = "the database is at revision beef, f00d, unknown here; it is left alone"
    assert warnings(caplog) == [line]


async def test_migrations_may_lie_in_any_folder(
    clock: FakeClock, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alembic takes a percent sign for its own."""
    folder = tmp_path / "100%" / "migrations"
    shutil.copytree(MIGRATIONS, folder)
    monkeypatch.setattr("app.db.MIGRATIONS", folder)
    async with running(create_app(settings, jobs=[], clock=clock), clock):
        assert query(settings, "SELECT version_num FROM alembic_version") == [(newest_revision(),)]


async def test_the_clock_is_the_machines_unless_one_is_given(settings: Settings) -> None:
    """Tests bring their own, a server does not."""
    app = create_app(settings, jobs=[])
    async with app.router.lifespan_context(app) as state:
        assert state is not None
        assert isinstance(state["clock"], SystemClock)
        assert state["scheduler"].problem() is None


def test_the_docs_are_headed_by_the_title(settings: Settings) -> None:
    """As `/docs` shows it."""
    assert create_app(settings, jobs=[]).openapi()["info"]["title"] == "Service"


async def test_a_revision_from_the_future_is_left_alone(
    clock: FakeClock, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """Newer code has upgraded the database: this code says so, changes nothing, and serves."""
    async with running(create_app(settings, jobs=[], clock=clock), clock):
        pass
    query(settings, "UPDATE alembic_version SET version_num = 'f00d'")
    query(settings, "ALTER TABLE sessions ADD COLUMN device TEXT")
    before = schema(settings)

    async with serving(create_app(settings, jobs=[], clock=clock), clock) as client:
        created = await client.post("/sessions", json={"user": "ana", "ttl_seconds": 90})
    assert created.status_code == 201
    assert query(settings, "SELECT version_num FROM alembic_version") == [("f00d",)]
    assert schema(settings) == before
    assert warnings(caplog) == ["the database is at revision f00d, unknown here; it is left alone"]


async def test_an_upgrade_that_fails_changes_nothing(
    clock: FakeClock, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The app does not start, and its database has no half of a migration."""
    shutil.copytree(MIGRATIONS, tmp_path / "migrations")
    monkeypatch.setattr("app.db.MIGRATIONS", tmp_path / "migrations")
    (tmp_path / "migrations" / "versions" / "devices.py").write_text(
        "from alembic import op\n"
        f"revision, down_revision = 'f00d', '{newest_revision()}'\n"
        "branch_labels = depends_on = None\n"
        "def upgrade() -> None:\n"
        "    op.execute('CREATE TABLE devices (name TEXT)')\n"
        "    op.execute('nonsense')\n"
    )
    with pytest.raises(DBAPIError, match="nonsense"):
        async with running(create_app(settings, jobs=[], clock=clock), clock):
            pytest.fail("it has started")
    assert schema(settings) == {}


async def test_a_known_revision_is_nothing_to_warn_of(
    clock: FakeClock, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """A first start and a second one upgrade without a word."""
    for _ in range(2):
        async with running(create_app(settings, jobs=[], clock=clock), clock):
            pass
    assert warnings(caplog) == []


def test_apps_that_start_together_take_turns(url: URL) -> None:
    """Eight at once on a new database: one upgrades its schema, the others wait, and none fails."""
    together = threading.Barrier(8)

    def start(_: int) -> None:
        together.wait()
        with closing(database_at(url)) as database:
            database.check()
            asyncio.run(upgrade_schema(database, SystemClock()))

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(start, range(8))) == [None] * 8


@on_sqlite
def test_a_start_waits_for_who_has_the_new_file(url: URL) -> None:
    """Another process is in a write on a file that is not in WAL mode yet: no reason to fail."""
    other = sqlite3.connect(path_of(url), isolation_level=None, check_same_thread=False)
    with closing(other), closing(database_at(url)) as database:
        other.execute("BEGIN IMMEDIATE")
        end = threading.Timer(0.1, other.execute, ["COMMIT"])
        end.start()
        try:
            database.check()
        finally:
            end.join()


@pytest.mark.parametrize("to_readers", [False, True], ids=["to writers", "to all"])
@pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
async def test_a_start_waits_for_another_program(
    clock: FakeClock, settings: Settings, impatient: None, to_readers: bool, used: bool
) -> None:
    """It has locked the database and lets go of it after five seconds: then jobs begin."""
    starts: list[float] = []

    @job(every(minutes=5, jitter=0))
    async def tick(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())

    if used:
        async with running(create_app(settings, jobs=[], clock=clock), clock):
            pass
    with locked(settings, to_readers=to_readers) as other:
        start = asyncio.create_task(start_and_end(create_app(settings, jobs=[tick], clock=clock)))
        await clock.advance(seconds=4.5)
        assert not start.done()
        other.rollback()
        await clock.run(start)
    assert starts == [5.0]


LOCKED = {"sqlite": "database is locked", "postgresql": "canceling statement due to lock timeout"}


async def test_a_start_that_waits_says_so_once(
    clock: FakeClock, settings: Settings, impatient: None, caplog: pytest.LogCaptureFixture
) -> None:
    """One line when it begins to wait, with the reason, one when it need not any more."""
    await clock.advance(minutes=3)  # so that its time does not begin at 0
    with locked(settings) as other:
        start = asyncio.create_task(start_and_end(create_app(settings, jobs=[], clock=clock)))
        await clock.advance(seconds=4.5)
        other.rollback()
        await clock.run(start)
    assert warnings(caplog) == [
        f"waiting for the database: {LOCKED[settings.url.get_backend_name()]}",
        "the database is there after 5 s",
    ]


async def test_a_start_does_not_wait_for_ever(
    clock: FakeClock,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """After two minutes it fails, in one line of its own before the server's traceback."""
    monkeypatch.setattr("app.cron.sqlite.BUSY_SECONDS", 0.001)  # each of 121 tries
    monkeypatch.setattr("app.cron.postgres.LOCK_SECONDS", 0.001)
    with locked(settings):
        start = asyncio.create_task(start_and_end(create_app(settings, jobs=[], clock=clock)))
        await clock.advance(minutes=2)
        assert not start.done()
        await clock.advance(seconds=1)
        error = start.exception()
    assert isinstance(error, DatabaseError)
    reason = LOCKED[settings.url.get_backend_name()]
    assert str(error) == f"{name_of(settings)}: cannot be used for 121 s: {reason}"
    assert error.__cause__ is error.__context__ is None  # or its traceback would be a long one
    assert warnings(caplog)[1:] == [str(error)]


@on_postgres
async def test_a_start_waits_for_a_server_that_does_not_answer_yet(
    clock: FakeClock, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """As when all machines start at once. It says so as for one that is locked."""
    starts: list[float] = []

    @job(every(minutes=5, jitter=0))
    async def tick(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())

    port = free_port()
    app = create_app(at(settings, host="127.0.0.1", port=port), jobs=[tick], clock=clock)
    start = asyncio.create_task(start_and_end(app))
    await clock.advance(seconds=59.5)
    async with relay(port, settings.url):
        await clock.run(start)
    assert starts == [60.0]
    [waiting, there] = warnings(caplog)
    assert waiting.startswith("waiting for the database: connection failed: ")
    assert "Connection refused" in waiting
    assert there == "the database is there after 60 s"


@on_postgres
async def test_a_start_does_not_wait_for_ever_for_a_server(
    clock: FakeClock, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """After two minutes it fails, in one line that says which, and why, and no password."""
    elsewhere = at(settings, host="127.0.0.1", port=free_port(), password=HIDDEN)
    start = asyncio.create_task(start_and_end(create_app(elsewhere, jobs=[], clock=clock)))
    await clock.advance(minutes=2)
    assert not start.done()
    await clock.advance(seconds=1)
    error = start.exception()
    assert isinstance(error, DatabaseError)
    assert str(error).startswith(f"{name_of(elsewhere)}: cannot be used for 121 s: connection ")
    assert "Connection refused" in str(error)
    assert "\n" not in str(error)
    assert HIDDEN not in caplog.text
    assert warnings(caplog)[1:] == [str(error)]


@on_postgres
async def test_a_server_that_refuses_when_it_is_there_is_not_waited_for(
    clock: FakeClock, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """It was away when the app was made; then the start fails, in a line of its own too."""
    port = free_port()
    wrong = at(settings, host="127.0.0.1", port=port, database="nowhere")
    start = asyncio.create_task(start_and_end(create_app(wrong, jobs=[], clock=clock)))
    await clock.advance(seconds=59.5)
    assert not start.done()
    async with relay(port, settings.url):
        with pytest.raises(DatabaseError) as error:
            await clock.run(start)
    assert str(error.value).startswith(f"{name_of(wrong)}: cannot be used for 60 s: ")
    assert str(error.value).endswith('FATAL: database "nowhere" does not exist')
    assert warnings(caplog)[1:] == [str(error.value)]


@on_postgres
@pytest.mark.parametrize(
    ("part", "problem"),
    [
        ("database", 'database "nowhere" does not exist'),
        ("username", '(role "nowhere" does not exist|password .* for user "nowhere")'),
    ],
)
def test_a_server_that_refuses_ends_the_process_in_one_line(
    clock: FakeClock, settings: Settings, part: str, problem: str
) -> None:
    """It will not change its mind. The line has its words, and no password."""
    password = settings.url.password or HIDDEN
    wrong = at(settings, password=password, **{part: "nowhere"})
    with pytest.raises(SystemExit) as end:
        create_app(wrong, jobs=[], clock=clock)
    line = rf"DatabaseError: {re.escape(name_of(wrong))}: [^\n]*FATAL: {problem}[^\n]*"
    assert re.fullmatch(line, str(end.value.code))
    assert password not in str(end.value.code)


async def test_a_database_of_a_newer_major_version_is_refused(
    clock: FakeClock, settings: Settings
) -> None:
    """In one line, before anything starts: this code must not touch it, and does not."""
    async with running(create_app(settings, jobs=[], clock=clock), clock):
        pass
    query(settings, "UPDATE cron_schema SET major = 2, minor = 3")
    with pytest.raises(SystemExit) as end:
        create_app(settings, jobs=[], clock=clock)
    name = name_of(settings).removeprefix("SQLite ")
    assert end.value.code == (
        f"DatabaseError: {name}: the cron tables are of version 2.3, this code is made for 1.0: "
        "run the newer code that has upgraded them"
    )
    assert query(settings, "SELECT major, minor FROM cron_schema") == [(2, 3)]


async def test_a_database_of_a_newer_minor_version_is_used_and_left_as_it_is(
    clock: FakeClock, settings: Settings
) -> None:
    """Two versions of the code run side by side during a deployment."""

    @job(every(minutes=5, jitter=0))
    async def tick() -> None: ...

    async with running(create_app(settings, jobs=[], clock=clock), clock):
        pass
    query(settings, "ALTER TABLE cron_job ADD COLUMN colour TEXT DEFAULT 'red'")
    query(settings, "UPDATE cron_schema SET minor = 7")
    before = schema(settings)
    async with running(create_app(settings, jobs=[tick], clock=clock), clock):
        await clock.advance(minutes=6)
    assert query(settings, "SELECT major, minor FROM cron_schema") == [(1, 7)]
    assert schema(settings) == before
    assert query(settings, "SELECT run_no, ok_count, colour FROM cron_job") == [(2, 2, "red")]


# Where a file may not be enough

REMARK = (
    "cron: this is Kubernetes, and a SQLite file coordinates the processes of one machine only: of "
    "several replicas each would run every job; set DATABASE_URL to a Postgres database, or keep "
    "to one replica, with the file on a volume"
)


@on_sqlite
async def test_a_platform_of_several_hosts_is_warned_of(
    clock: FakeClock,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Once, right after the first line of the start."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    async with running(create_app(settings, jobs=[], clock=clock), clock):
        await clock.advance(minutes=5)
    lines = [(line.levelname, line.getMessage()) for line in caplog.records]
    [at] = [at for at, line in enumerate(lines) if line == ("WARNING", REMARK)]
    assert lines[at - 1][1].startswith("cron: 0 jobs, SQLite ")


@on_postgres
async def test_a_server_serves_a_platform_of_several_hosts(
    clock: FakeClock,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """On Postgres there is nothing to warn of."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    async with running(create_app(settings, jobs=[], clock=clock), clock):
        await clock.advance(minutes=5)
    assert warnings(caplog) == []


@on_sqlite
async def test_where_nothing_is_claimed_there_is_no_warning(
    clock: FakeClock,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With CRON_ENABLED=false no replica runs a job by itself."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    off = settings.model_copy(update={"cron_enabled": False})
    async with running(create_app(off, clock=clock), clock):
        pass
    assert warnings(caplog) == []


@pytest.mark.parametrize(
    ("variable", "platform"),
    [
        ("KUBERNETES_SERVICE_HOST", "Kubernetes"),
        ("FLY_APP_NAME", "Fly.io"),
        ("K_SERVICE", "Cloud Run"),
        ("RENDER", "Render"),
        ("RAILWAY_ENVIRONMENT_NAME", "Railway"),
        ("RAILWAY_PROJECT_ID", "Railway"),
        ("DYNO", "Heroku"),
        ("ECS_CONTAINER_METADATA_URI_V4", "Amazon ECS"),
    ],
)
@on_sqlite
def test_a_platform_is_told_by_its_own_variables(url: URL, variable: str, platform: str) -> None:
    """Each is set by the platform itself in whatever runs there."""
    with closing(database_at(url)) as database:
        remark = remark_on_platform(database, {"PATH": "/bin", variable: "something"})
    assert str(remark).startswith(f"this is {platform}, ")


@pytest.mark.parametrize("environment", [{}, {"PATH": "/bin", "PORT": "80"}, {"RENDER": ""}])
def test_one_machine_is_nothing_to_warn_of(url: URL, environment: dict[str, str]) -> None:
    """Nor is a variable that is set to nothing."""
    with closing(database_at(url)) as database:
        assert remark_on_platform(database, environment) is None


async def test_the_migrations_make_what_the_tables_say(
    clock: FakeClock, settings: Settings, alembic: Config
) -> None:
    """On a database that the app has just made, autogenerate finds nothing to add or remove."""
    async with running(create_app(settings, jobs=[], clock=clock), clock):
        pass
    command.check(alembic)


def test_a_new_migration_needs_nothing_of_the_app(
    settings: Settings, alembic: Config, tmp_path: Path
) -> None:
    """It stays as it is when the app changes: a moment is the number that the database has."""
    command.upgrade(alembic, "head")
    alembic.set_main_option("path_separator", "newline")
    alembic.set_main_option("version_locations", f"{MIGRATIONS / 'versions'}\n{tmp_path}")
    readings = Table("readings", metadata, Column("read_at", Moment()))
    try:
        command.revision(alembic, autogenerate=True, version_path=str(tmp_path))
    finally:
        metadata.remove(readings)
    [migration] = tmp_path.glob("*.py")
    assert "sa.Column('read_at', sa.BigInteger(), nullable=True)" in migration.read_text()
    assert "app" not in re.findall(r"^(?:from|import) (\w+)", migration.read_text(), re.M)


async def test_the_migrations_can_be_undone(
    clock: FakeClock, settings: Settings, alembic: Config
) -> None:
    """Down to nothing and up again, the schema is the same."""
    async with running(create_app(settings, jobs=[], clock=clock), clock):
        pass
    before = schema(settings)
    command.downgrade(alembic, "base")
    assert "sessions" not in schema(settings)
    command.upgrade(alembic, "head")
    assert schema(settings) == before


@on_postgres
def test_alembic_waits_for_who_changes_tables(
    settings: Settings, alembic: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that starts, say: not for ever, and then nothing is changed."""
    monkeypatch.setattr("app.cron.postgres.LOCK_SECONDS", 0.05)
    with locked(settings), pytest.raises(DBAPIError, match="lock timeout"):
        command.upgrade(alembic, "head")
    assert schema(settings) == {}


def test_alembic_upgrades_a_new_database(settings: Settings, alembic: Config) -> None:
    """By its own command, where the app has never run, it makes the database and its schema."""
    command.upgrade(alembic, "head")
    assert query(settings, "SELECT version_num FROM alembic_version") == [(newest_revision(),)]


async def test_overrides_reach_jobs(clock: FakeClock, settings: Settings) -> None:
    """`app.dependency_overrides` replace a dependency in a job as in an endpoint."""
    seen: list[Database] = []

    @job(every(minutes=5))
    async def look(db: DatabaseDep) -> None:
        seen.append(db)

    app = create_app(settings, jobs=[look], clock=clock, random=fixed(0))
    with closing(database_at(settings.url)) as other:
        app.dependency_overrides[get_database] = lambda: other
        async with running(app, clock):
            pass
    assert seen == [other]


async def test_the_seed_decides_when_jobs_run(clock: FakeClock, settings: Settings) -> None:
    """Two starts with one CRON_SEED run a job at the same times; another seed, at others."""

    async def times(seed: str) -> list[float]:
        starts: list[float] = []
        begin = clock.monotonic()

        @job(every(minutes=1))
        async def note(ctx: JobContext) -> None:
            starts.append(round(ctx.clock.monotonic() - begin, 6))

        seeded = settings.model_copy(update={"cron_seed": seed})
        async with running(create_app(seeded, jobs=[note], clock=clock), clock):
            await clock.advance(minutes=12)
        query(settings, "DELETE FROM cron_job")  # and the next start is a first one
        query(settings, "DELETE FROM cron_run")
        return starts

    once, again, other = await times("a"), await times("a"), await times("b")
    assert len(once) > 8
    assert once == again
    assert once[0] != other[0]


async def test_the_grace_is_what_the_settings_say(clock: FakeClock, settings: Settings) -> None:
    """With CRON_GRACE_SECONDS=7 a run goes on for seven seconds, then it is cancelled."""

    @job(every(minutes=5))
    async def wait(ctx: JobContext) -> None:
        await ctx.clock.sleep(60)

    patient = settings.model_copy(update={"cron_grace_seconds": 7.0})
    async with running(create_app(patient, jobs=[wait], clock=clock, random=fixed(0)), clock):
        left = clock.monotonic()
    assert clock.monotonic() - left == 7


async def test_the_number_of_threads_is_what_the_settings_say(
    clock: FakeClock, settings: Settings
) -> None:
    """With CRON_THREADS=2, of three `def` jobs that are due two run, and the third one waits."""
    gate = clock.gate()
    begun: list[str] = []

    def waiting(name: str) -> Callable[[], None]:
        @job(every(minutes=5, jitter=0), name=name)
        def wait() -> None:
            begun.append(name)
            gate.wait()

        return wait

    jobs = [waiting("one"), waiting("two"), waiting("three")]
    narrow = settings.model_copy(update={"cron_threads": 2})
    async with running(create_app(narrow, jobs=jobs, clock=clock), clock):
        await clock.advance(seconds=10)
        assert len(begun) == 2
        gate.open()
        await clock.settle()
        assert len(begun) == 3


def at(settings: Settings, **parts: Any) -> Settings:
    """The same, with other parts of the database's URL."""
    url = settings.url.set(**parts).render_as_string(hide_password=False)
    return settings.model_copy(update={"database_url": url})


@asynccontextmanager
async def relay(port: int, url: URL) -> AsyncIterator[None]:
    """In the block, who connects to the port gets to the server at `url`."""

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            while data := await reader.read(100_000):
                writer.write(data)

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(url.host, url.port or 5432)
        await asyncio.gather(pass_on(reader, back), pass_on(there, writer))

    async with await asyncio.start_server(connect, "127.0.0.1", port):
        yield


async def start_and_end(app: FastAPI) -> None:
    """Run the lifespan until all that was due at its start has been done."""
    async with app.router.lifespan_context(app) as state:
        assert state is not None
        await state["clock"].sleep(1)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log warns of, or worse."""
    return [line.getMessage() for line in caplog.records if line.levelno >= logging.WARNING]


def tasks_of_cron() -> list[str]:
    """The tasks of the scheduler and of runs that are still there."""
    return [task.get_name() for task in asyncio.all_tasks() if "cron" in task.get_name()]


def insert_session(connection: Connection) -> None:
    """A write, whatever it is."""
    connection.execute(text("INSERT INTO sessions VALUES ('x', 'ana', 0)"))


async def test_the_service_runs_its_jobs(
    clock: FakeClock, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a word about jobs, an app runs those of JOBS."""
    clock.step(hours=1, minutes=50)  # it is ten to three in Madrid
    app = create_app(settings, clock=clock)
    app.dependency_overrides |= OVERRIDES
    async with running(app, clock):
        await clock.advance(minutes=10)
    assert notes(caplog, "expire_sessions")
    assert notes(caplog, "nightly_report")
