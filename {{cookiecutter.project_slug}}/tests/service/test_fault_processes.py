"""Faults that only real processes have: starts at once, a disk that fails, a file that is gone.

What a job does, it notes in a file of its own, with the process and when: that is what is judged.
"""

import resource
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from support import on_postgres, on_sqlite, path_of, query
from support.databases import locked, name_of, newest_revision
from support.process import REAL_SECONDS_MAX, Process, Server, get, post, wait_until

# Before the service's own part: what it notes, and a job that does so each second.
HEAD = """
import os
import time

import app.cron.outage
import app.cron.postgres
import app.cron.sqlite
import app.db
from app.cron import JobContext, every, job
from app.main import create_app

def note(what):
    with open("notes", "a") as file:
        file.write(f"{what} {os.getpid()} {time.monotonic()}\\n")

async def go(ctx):
    while not os.path.exists("go"):
        await ctx.clock.sleep(0.02)

@job(every(seconds=1))
async def tick(ctx: JobContext) -> None:
    note("tick")
"""

TAIL = """
def service():
    return create_app(jobs=JOBS)
"""

TICKING = "JOBS = [tick]"

# Where a test waits for them: how long a lock is waited for, and the first rest in an outage.
IMPATIENT = """
app.cron.sqlite.BUSY_SECONDS = 1
app.cron.outage.REST_SECONDS = 0.1
"""

# A statement that takes minutes.
ENDLESS = {
    "sqlite": """
        WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number LIMIT 3000000000)
        SELECT count(*) FROM number
    """,
    "postgresql": "SELECT pg_sleep(600)",
}


@dataclass(frozen=True)
class Note:
    """What a job has noted."""

    what: str
    process: int
    at: float


class Place:
    """The folder of a service, whose file is `service.py`, and where its database is."""

    def __init__(
        self, folder: Path, url: URL, text: str = TICKING, *, impatient: bool = False
    ) -> None:
        self.folder = folder
        self.url = url
        (folder / "service.py").write_text(HEAD + IMPATIENT * impatient + text + TAIL)

    def serve(self, lease_seconds: int = 30) -> Server:
        """One more process of the service."""
        url = self.url.render_as_string(hide_password=False)
        lease = f"{lease_seconds}"
        return Server(self.folder, "service:service", DATABASE_URL=url, CRON_LEASE_SECONDS=lease)

    def let_go(self) -> None:
        """Let the jobs go on that wait for it with `go()`."""
        (self.folder / "go").touch()

    def notes(self, what: str = "tick", process: int | None = None) -> list[Note]:
        """What has been noted, by all processes or by one."""
        path = self.folder / "notes"
        lines = path.read_text().splitlines() if path.exists() else []
        notes = [Note(word, int(pid), float(at)) for word, pid, at in map(str.split, lines)]
        return [note for note in notes if note.what == what and process in (None, note.process)]

    def wait_for(self, count: int, what: str = "tick", process: int | None = None) -> None:
        """Wait until so much more of it has been noted."""
        wanted = len(self.notes(what, process)) + count
        wait_until(lambda: len(self.notes(what, process)) >= wanted)

    def find(self, what: str, one: Server, two: Server) -> tuple[Server, Server]:
        """The server that notes it, and the other one, when both serve."""
        one.url(), two.url()
        wait_until(lambda: bool(self.notes(what)))
        return (one, two) if self.notes(what, process_of(one)) else (two, one)

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Ask the database."""
        return query(self.url, statement)

    def check_ticks(self, lost: int = 0) -> None:
        """Each tick has its run; no two are nearer than they may be. `lost`: runs without one."""
        ticks = [note.at for note in self.notes()]
        [(runs,)] = self.query("SELECT count(*) FROM cron_run WHERE name = 'tick'")
        assert len(ticks) == runs - lost
        # The claim's instant counts; a body begins up to a second after that.
        assert min(later - sooner for sooner, later in pairwise(ticks)) > 0.35


def end(*servers: Server) -> None:
    """End them in good order, so that each run has its end."""
    for server in servers:
        server.end_by(signal.SIGINT)


def status(server: Server, path: str) -> int:
    """How it answers."""
    return get(f"{server.url()}{path}").status_code


def cron_of(server: Server) -> Any:
    """What `/health/live` says of the jobs."""
    return get(f"{server.url()}/health/live").json()["cron"]


def post_session(server: Server) -> int:
    """Make a session, or try to."""
    return post(f"{server.url()}/sessions", {"user": "ana", "ttl_seconds": 60}).status_code


def process_of(server: Server) -> int:
    """The number of its process."""
    return server.popen.pid


def warnings(server: Server) -> list[str]:
    """The lines of the app's log that warn, or worse, without their time."""
    lines = (line.split(" ", 2)[-1] for line in server.output.splitlines())
    return [line for line in lines if line.startswith(("WARNING ", "ERROR ", "CRITICAL "))]


# Starts


def test_four_that_start_together_share_a_new_database(tmp_path: Path, url: URL) -> None:
    """Both schemas, the app's and the engine's, are made once, and all four serve."""
    place = Place(tmp_path, url)
    with ExitStack() as stack:
        servers = [stack.enter_context(place.serve()) for _ in range(4)]
        assert [post_session(server) for server in servers] == [201] * 4
        place.wait_for(2)
        assert [cron_of(server) for server in servers] == ["ok"] * 4
        end(*servers)
    assert place.query("SELECT count(*) FROM sessions") == [(4,)]
    assert place.query("SELECT version_num FROM alembic_version") == [(newest_revision(),)]
    assert place.query("SELECT major, minor FROM cron_schema") == [(1, 0)]
    assert [warnings(server) for server in servers] == [[]] * 4
    place.check_ticks()


@on_sqlite
def test_a_newer_major_version_ends_it_in_one_line(tmp_path: Path, url: URL) -> None:
    """With code 1, and the database as it was."""
    place = Place(tmp_path, url)
    with place.serve() as server:
        server.url()
    place.query("UPDATE cron_schema SET major = 2")
    with place.serve() as server:
        assert server.wait_for_end() == 1
    assert server.output == (
        f"DatabaseError: {path_of(url)}: the cron tables are of version 2.0, this code is made "
        "for 1.0: run the newer code that has upgraded them\n"
    )
    assert place.query("SELECT major, minor FROM cron_schema") == [(2, 0)]


@on_sqlite
def test_a_newer_minor_version_is_served(tmp_path: Path, url: URL) -> None:
    """Jobs run, and the version stays."""
    place = Place(tmp_path, url)
    with place.serve() as server:
        server.url()
        end(server)
    place.query("UPDATE cron_schema SET minor = 9")
    with place.serve() as server:
        place.wait_for(1)
        assert post_session(server) == 201
    assert place.query("SELECT major, minor FROM cron_schema") == [(1, 9)]


def test_a_start_that_has_waited_too_long_fails(tmp_path: Path, url: URL) -> None:
    """With code 3, uvicorn's for a start that failed, and a line of its own before the traceback.

    The two minutes are shortened to none.
    """
    place = Place(
        tmp_path,
        url,
        "app.db.WAIT_SECONDS_MAX = 0\n"
        "app.cron.sqlite.BUSY_SECONDS = app.cron.postgres.LOCK_SECONDS = 0.1\n" + TICKING,
    )
    with locked(url), place.serve() as server:
        assert server.wait_for_end() == 3
    [line] = warnings(server)
    assert line.startswith(f"CRITICAL {name_of(url)}: cannot be used for ")


# Faults of the disk


@contextmanager
def failing_disk(server: Server, file_bytes_max: int) -> Iterator[None]:
    """In the block, no file of the process can be written beyond that size: a disk I/O error."""
    process, no_limit = process_of(server), (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(process, resource.RLIMIT_FSIZE, (file_bytes_max, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(process, resource.RLIMIT_FSIZE, no_limit)


@on_sqlite
@pytest.mark.skipif(
    not hasattr(resource, "prlimit"), reason="only Linux can limit a process's files"
)
def test_a_disk_that_fails_is_survived(tmp_path: Path, url: URL) -> None:
    """One line tells of it, who writes gets an error, and it goes on by itself: no run is lost."""
    place = Place(tmp_path, url, impatient=True)
    with place.serve() as server:
        place.wait_for(1)
        # Its log is smaller than that, the database's is larger.
        with failing_disk(server, 60_000):
            server.wait_for("cron: the database is away")
            assert post_session(server) == 503
            assert status(server, "/health/live") == 200
            assert "disk I/O error" in cron_of(server)
        place.wait_for(2)
        assert post_session(server) == 201
        end(server)
    [away, put_off, back] = warnings(server)
    assert away.endswith("no job starts until it is back: disk I/O error")
    assert put_off.endswith("POST /sessions: the database cannot be used: disk I/O error")
    assert back.startswith("WARNING cron: the database is back after ")
    place.check_ticks()
    assert place.query("PRAGMA integrity_check") == [("ok",)]


# A file that is gone


@on_sqlite
def test_a_process_whose_database_was_deleted_makes_room(tmp_path: Path, url: URL) -> None:
    """It claims nothing more, and its run is stopped within a lease; the next one has all."""
    place = Place(
        tmp_path,
        url,
        """
@job(every(hours=1, jitter=0))
async def work(ctx: JobContext) -> None:
    note("begins")
    try:
        await ctx.clock.sleep(3600)
    finally:
        note("ends")

JOBS = [tick, work]
""",
    )
    with place.serve(lease_seconds=3) as old:
        place.wait_for(1)
        wait_until(lambda: bool(place.notes("begins")))
        deleted = time.monotonic()
        for path in tmp_path.glob("app.db*"):
            path.unlink()
        old.wait_for("cron: the database is away, no job starts until it is back: .*app.db is gone")
        before = len(place.notes("tick", process_of(old)))
        with place.serve(lease_seconds=3) as new:
            place.wait_for(3, "tick", process_of(new))
            wait_until(lambda: bool(place.notes("ends", process_of(old))))
            assert status(old, "/health/ready") == 503
            assert status(old, "/health/live") == 200
            assert post_session(old) == 503
            assert status(new, "/health/ready") == 200
            assert post_session(new) == 201
        assert len(place.notes("tick", process_of(old))) == before
    [end] = place.notes("ends", process_of(old))
    assert end.at - deleted < 3
    # The outage; the run that is stopped, and how it has ended; the request.
    assert len(warnings(old)) == 4
    assert place.query("PRAGMA integrity_check") == [("ok",)]


# Jobs that keep the database


def test_a_statement_that_takes_too_long_keeps_others_for_a_moment_only(
    tmp_path: Path, url: URL
) -> None:
    """It is interrupted after its budget: the other process has not even noticed."""
    endless = ENDLESS[url.get_backend_name()]
    place = Place(
        tmp_path,
        url,
        f'''
@job(every(hours=1, jitter=0))
async def hog(ctx: JobContext) -> None:
    note("begins")
    await go(ctx)
    await ctx.write(lambda connection: connection.exec_driver_sql("""{endless}"""))

JOBS = [tick, hog]
''',
    )
    with place.serve(lease_seconds=3) as one, place.serve(lease_seconds=3) as two:
        hog, other = place.find("begins", one, two)
        place.let_go()
        hog.wait_for("hog run 1: error, WriteTooLong: hog run 1 wrote for ")
        place.wait_for(2)
        end(one, two)
    assert warnings(other) == []
    place.check_ticks()


@on_sqlite
def test_a_job_that_keeps_a_transaction_open_is_named(tmp_path: Path, url: URL) -> None:
    """Python that sits on it keeps all from writing, in its process and in others; nothing is made
    twice, what it wrote is undone, and after it all go on."""
    place = Place(
        tmp_path,
        url,
        """
def hold(connection):
    connection.exec_driver_sql("INSERT INTO sessions VALUES ('x', 'ana', 0)")
    note("holds")
    while not os.path.exists("release"):
        time.sleep(0.02)
    note("releases")

@job(every(hours=1, jitter=0))
async def hog(ctx: JobContext) -> None:
    if ctx.run_no == 1:
        note("begins")
        await go(ctx)
        await ctx.write(hold)

JOBS = [tick, hog]
""",
        impatient=True,
    )
    with place.serve(lease_seconds=3) as one, place.serve(lease_seconds=3) as two:
        hog, other = place.find("begins", one, two)
        place.let_go()
        hog.wait_for("hog run 1: it has kept a transaction open for 1 s, which is too long: ")
        hog.wait_for("hog run 1: its lease is lost, it is stopped")
        other.wait_for("cron: the database is away, .*: database is locked")
        (tmp_path / "release").touch()
        other.wait_for("cron: the database is back")
        place.wait_for(2)
        end(one, two)
    [hold], [release] = place.notes("holds"), place.notes("releases")
    assert not [tick for tick in place.notes() if hold.at + 1 < tick.at < release.at]
    assert hog.output.count("it has kept a transaction open") == 1
    assert other.output.count("cron: the database is away") == 1
    assert place.query("SELECT count(*) FROM sessions") == [(0,)]
    [(outcome, error)] = place.query(
        "SELECT outcome, error FROM cron_run WHERE name = 'hog' AND run_no = 1"
    )
    assert (outcome, str(error)[:10]) == ("error", "LeaseLost:")
    # The process itself had asked for a run before, and was answered when it was too late for it.
    [(late,)] = place.query("SELECT count(*) FROM cron_run WHERE outcome = 'missed'")
    place.check_ticks(lost=late)


@on_postgres
def test_a_job_that_keeps_a_transaction_open_keeps_nobody(tmp_path: Path, url: URL) -> None:
    """Others write meanwhile. What it wrote is undone all the same, and it is told why."""
    place = Place(
        tmp_path,
        url,
        """
def hold(connection):
    connection.exec_driver_sql("INSERT INTO sessions VALUES ('x', 'ana', 0)")
    note("holds")
    while not os.path.exists("release"):
        time.sleep(0.02)
    note("releases")

@job(every(hours=1, jitter=0))
async def hog(ctx: JobContext) -> None:
    note("begins")
    await go(ctx)
    await ctx.write(hold)

JOBS = [tick, hog]
""",
    )
    with place.serve(lease_seconds=3) as one, place.serve(lease_seconds=3) as two:
        hog, other = place.find("begins", one, two)
        place.let_go()
        wait_until(lambda: bool(place.notes("holds")))
        [hold] = place.notes("holds")
        wait_until(lambda: any(tick.at > hold.at + 1 for tick in place.notes()))
        assert [tick for tick in place.notes() if hold.at + 1 < tick.at < hold.at + 5]
        (tmp_path / "release").touch()
        hog.wait_for("hog run 1: error, WriteTooLong: hog run 1 wrote for ")
        end(one, two)
    assert warnings(other) == []
    assert place.query("SELECT count(*) FROM sessions") == [(0,)]
    place.check_ticks()


# Requests

ASK = """
import asyncio, os, sys, time
from sqlalchemy import make_url
from app.cron.clock import SystemClock
from app.cron.records import Records
from app.db import database_at

async def ask():
    records = [Records(database_at(make_url(sys.argv[1])), SystemClock()) for _ in range(8)]
    asked = [each.request("tick") for each in records]
    print("ready", flush=True)
    while not os.path.exists("go"):
        time.sleep(0.001)
    assert await asyncio.gather(*asked) == [True] * 8

asyncio.run(ask())
"""


def test_thirty_two_requests_at_once_are_one_run(tmp_path: Path, url: URL) -> None:
    """From four processes, before it begins: they share it."""
    place = Place(tmp_path, url, "tick = job(every(hours=1, jitter=0))(tick)\nJOBS = [tick]")
    with place.serve() as server:
        place.wait_for(1)
        end(server)
    (tmp_path / "ask.py").write_text(ASK)
    arguments = ("ask.py", url.render_as_string(hide_password=False))
    with ExitStack() as stack:
        askers = [
            stack.enter_context(Process(tmp_path, *arguments, environment={})) for _ in range(4)
        ]
        wait_until(lambda: all(asker.output for asker in askers))
        place.let_go()
        ends = [(asker.popen.wait(REAL_SECONDS_MAX), asker.output) for asker in askers]
    assert ends == [(0, "ready\n")] * 4
    with place.serve() as server:
        place.wait_for(1)
        server.wait_for("tick run 2: ok")
        end(server)
    assert place.query("SELECT run_no, outcome FROM cron_run ORDER BY 1") == [(1, "ok"), (2, "ok")]
    assert place.query("SELECT requested_at FROM cron_job") == [(None,)]
