"""The jobs that the service comes with, run by the whole app."""

import asyncio
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import TypeVar
from uuid import uuid4

import pytest
from sqlalchemy import Connection
from starlette.datastructures import State

from app.cron import JobContext
from app.cron.database import Database
from app.db import get_database, upgrade_schema
from app.jobs.expire_sessions import expire_sessions
from app.jobs.nightly_report import nightly_report
from app.main import create_app
from app.sessions import sessions, to_microseconds
from app.settings import Settings
from support import FakeClock, fixed, running
from support.server import query, serving

T = TypeVar("T")

HEADER = "user,sessions\r\n"


async def test_expired_sessions_are_deleted_and_no_others(
    clock: FakeClock, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """When the job runs, what has expired by then leaves the table, to the microsecond."""
    app = create_app(settings, jobs=[expire_sessions], clock=clock, random=fixed(0))
    async with serving(app, clock) as client:
        for user, ttl_seconds in [("ana", 1), ("ben", 210), ("cho", 211), ("dan", 86_400)]:
            await client.post("/sessions", json={"user": user, "ttl_seconds": ttl_seconds})
        await clock.advance(seconds=209)
        assert users(settings) == ["ana", "ben", "cho", "dan"]
        await clock.advance(seconds=1)
        assert users(settings) == ["cho", "dan"]
    assert notes(caplog, "expire_sessions") == ["ok, deleted 0", "ok, deleted 2"]


@pytest.mark.parametrize(
    ("expired", "batches"), [(499, [499]), (500, [500, 0]), (1_201, [500, 500, 201])]
)
async def test_many_expired_sessions_are_deleted_in_steps(
    clock: FakeClock,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    expired: int,
    batches: list[int],
) -> None:
    """A transaction deletes at most 500, and there are as many as it takes."""
    await insert(settings, {"ana": expired}, clock.now() - timedelta(seconds=1))
    await insert(settings, {"ben": 600}, clock.now() + timedelta(seconds=1))
    deleted: list[object] = []

    class Watched(Database):
        async def write(self, function: Callable[[Connection], T]) -> T:
            result = await super().write(function)
            deleted.append(result)
            return result

    app = create_app(settings, jobs=[expire_sessions], clock=clock, random=fixed(0))
    with closing(Watched(settings.database_path)) as database:
        app.dependency_overrides[get_database] = lambda: database
        async with running(app, clock):
            pass
    assert deleted == batches
    assert users(settings) == ["ben"] * 600
    assert notes(caplog, "expire_sessions") == [f"ok, deleted {expired}"]


async def test_a_long_deletion_stops_when_the_app_does(
    clock: FakeClock, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """It ends after the step that it is in, with no need to be cancelled."""
    await insert(settings, {"ana": 5_000}, clock.now())

    class Slow(Database):
        async def write(self, function: Callable[[Connection], T]) -> T:
            await clock.sleep(2)
            return await super().write(function)

    app = create_app(settings, jobs=[expire_sessions], clock=clock, random=fixed(0))
    with closing(Slow(settings.database_path)) as database:
        app.dependency_overrides[get_database] = lambda: database
        async with running(app, clock):
            await clock.advance(seconds=3)
            left = clock.monotonic()
    assert clock.monotonic() - left == 1
    assert len(users(settings)) == 4_000
    assert notes(caplog, "expire_sessions") == ["interrupted, deleted 1000"]


async def test_the_report_counts_the_live_sessions_of_each_user(
    clock: FakeClock, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """By name, each with the number of sessions that have not expired when the report is made."""
    app = create_app(settings, jobs=[nightly_report], clock=clock)
    three = datetime(2026, 1, 1, 2, tzinfo=UTC)
    await insert(
        settings, {"zoe": 2, 'ana "a", b': 1, "Ñandú\n": 3}, three + timedelta(microseconds=1)
    )
    await insert(settings, {"zoe": 5, "gone": 1}, three)
    async with running(app, clock):
        await clock.advance(hours=2)
    assert report(settings).read_bytes().decode() == (
        f'{HEADER}"ana ""a"", b",1\r\nzoe,2\r\n"Ñandú\n",3\r\n'
    )
    assert notes(caplog, "nightly_report") == ["ok, 3 users in sessions-2026-01-01.csv"]


async def test_the_report_is_made_at_three_in_madrid(clock: FakeClock, settings: Settings) -> None:
    """03:00 there is 02:00 UTC in winter and 01:00 UTC in summer, and never in between."""
    clock.step(datetime(2026, 3, 28, tzinfo=UTC) - clock.now())
    async with running(create_app(settings, jobs=[nightly_report], clock=clock), clock):
        await clock.advance(hours=2, microseconds=-1)
        assert reports(settings) == []
        await clock.advance(microseconds=1)
        assert reports(settings) == ["sessions-2026-03-28.csv"]
        await clock.advance(hours=23, microseconds=-1)
        assert reports(settings) == ["sessions-2026-03-28.csv"]
        await clock.advance(microseconds=1)
        assert reports(settings) == ["sessions-2026-03-28.csv", "sessions-2026-03-29.csv"]


async def test_a_report_without_sessions_has_a_header(clock: FakeClock, settings: Settings) -> None:
    """A night without live sessions has its file too."""
    async with running(create_app(settings, jobs=[nightly_report], clock=clock), clock):
        await clock.advance(hours=2)
    assert report(settings).read_bytes().decode() == HEADER


async def test_a_report_is_stopped_when_the_app_is(
    clock: FakeClock, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """It notices that the app stops, returns within the grace, and takes back what it has begun."""
    await insert(settings, {"ana": 1, "ben": 1}, clock.now() + timedelta(days=1))
    gate = clock.gate()

    class Held(Database):
        def read_here(self, function: Callable[[Connection], T]) -> T:
            gate.wait()
            return super().read_here(function)

    async def open_gate() -> None:
        await clock.sleep(1)
        gate.open()

    app = create_app(settings, jobs=[nightly_report], clock=clock)
    with closing(Held(settings.database_path)) as database:
        app.dependency_overrides[get_database] = lambda: database
        async with running(app, clock):
            await clock.advance(hours=2)
            left = clock.monotonic()
            opening = asyncio.create_task(open_gate())
    assert opening.done()
    assert clock.monotonic() - left == 1
    assert reports(settings) == []
    assert notes(caplog, "nightly_report") == ["interrupted, stopped after 0 users"]


@pytest.mark.parametrize("looks", [1, 2, 3])
async def test_nobody_sees_half_a_report(clock: FakeClock, settings: Settings, looks: int) -> None:
    """At each row the last report is still whole, and one that is stopped there leaves it so."""
    await insert(settings, {"ana": 1, "ben": 1, "cho": 1}, clock.now() + timedelta(days=1))
    report(settings).parent.mkdir()
    report(settings).write_text("the last one")
    seen: list[str] = []

    class Watched(JobContext):
        @property
        def stopping(self) -> bool:
            seen.append(report(settings).read_text())
            return len(seen) == looks

    context = Watched(name="", clock=clock, random=Random(), run_no=1, state=State())
    with closing(Database(settings.database_path)) as database:
        assert nightly_report(context, database) == f"stopped after {looks - 1} users"
    assert seen == ["the last one"] * looks
    assert report(settings).read_text() == "the last one"
    assert reports(settings) == [report(settings).name]


async def test_a_report_that_fails_leaves_nothing_behind(
    clock: FakeClock, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder is in the place of the report: the run is an error, its unfinished file is gone."""
    report(settings).mkdir(parents=True)
    async with running(create_app(settings, jobs=[nightly_report], clock=clock), clock):
        await clock.advance(hours=2)
    assert reports(settings) == [report(settings).name]
    assert notes(caplog, "nightly_report")[0].startswith("error, IsADirectoryError")


async def test_the_service_runs_both_jobs(
    clock: FakeClock, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a word about jobs, an app runs those of JOBS."""
    async with running(create_app(settings, clock=clock), clock):
        await clock.advance(days=1)
    assert notes(caplog, "expire_sessions")
    assert notes(caplog, "nightly_report")


async def insert(settings: Settings, counts: dict[str, int], expires_at: datetime) -> None:
    """Give each user so many sessions, in a database that is made where there is none."""
    rows = [
        {"id": uuid4().hex, "user": user, "expires_at": to_microseconds(expires_at)}
        for user, count in counts.items()
        for _ in range(count)
    ]
    with closing(Database(settings.database_path)) as database:
        await upgrade_schema(database)
        await database.write(lambda connection: connection.execute(sessions.insert(), rows))


def users(settings: Settings) -> list[str]:
    """Whose sessions are in the table, expired or not."""
    return [user for (user,) in query(settings, 'SELECT "user" FROM sessions ORDER BY 1')]


def report(settings: Settings) -> Path:
    """The report of the first night."""
    return settings.database_path.parent / "reports" / "sessions-2026-01-01.csv"


def reports(settings: Settings) -> list[str]:
    """The names in the folder of the reports."""
    return sorted(path.name for path in report(settings).parent.glob("*"))


def notes(caplog: pytest.LogCaptureFixture, job: str) -> list[str]:
    """How the runs of the job have ended, each without the word about the next one."""
    return [
        line.getMessage().split(": ", 1)[1].rpartition("; next")[0]
        for line in caplog.records
        if getattr(line, "outcome", None) and getattr(line, "job", None) == job
    ]
