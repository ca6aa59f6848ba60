"""The nightly report, by the whole app."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import TypeVar

import pytest
import pytest_asyncio
from sqlalchemy import Connection
from starlette.datastructures import State

from app.cron import JobContext
from app.cron.moment import to_microseconds
from app.db import database_at, get_database
from app.jobs.nightly_report import nightly_report
from app.main import create_app
from app.settings import Settings
from support import FakeClock, RunJob, insert_sessions, notes, query, running

T = TypeVar("T")

HEADER = "user,sessions\r\n"

THREE = datetime(2026, 1, 1, 2, tzinfo=UTC)
"""When the first report is made: at 03:00 in Madrid."""


@pytest_asyncio.fixture
async def clock() -> AsyncIterator[FakeClock]:
    """A clock that stands a minute before three: hours of waiting have many looks at the jobs."""
    with FakeClock(THREE - timedelta(minutes=1)) as clock:
        yield clock


async def test_the_report_counts_the_live_sessions_of_each_user(
    clock: FakeClock, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """By name, each with the number of sessions that have not expired when the report is made."""
    app = create_app(settings, jobs=[nightly_report], clock=clock)
    await insert_sessions(
        settings, {"zoe": 2, 'ana "a", b': 1, "Ñandú\n": 3}, THREE + timedelta(microseconds=1)
    )
    await insert_sessions(settings, {"zoe": 5, "gone": 1}, THREE)
    async with running(app, clock):
        await clock.advance(minutes=1)
    assert report().read_bytes().decode() == (
        f'{HEADER}"ana ""a"", b",1\r\nzoe,2\r\n"Ñandú\n",3\r\n'
    )
    assert notes(caplog, "nightly_report") == ["ok, 3 users in sessions-2026-01-01.csv"]


async def test_the_report_is_in_the_working_directory(
    clock: FakeClock, settings: Settings, tmp_path: Path
) -> None:
    """In data/reports there, wherever the database is."""
    async with running(create_app(settings, jobs=[nightly_report], clock=clock), clock):
        await clock.advance(minutes=1)
    assert report().absolute() == tmp_path / "data" / "reports" / "sessions-2026-01-01.csv"
    assert reports() == [report().name]


@pytest.mark.parametrize(
    ("three", "hours"),
    [(datetime(2026, 3, 28, 2, tzinfo=UTC), 23), (datetime(2026, 3, 29, 1, tzinfo=UTC), 24)],
)
async def test_the_report_is_made_at_three_in_madrid(
    clock: FakeClock, settings: Settings, three: datetime, hours: int
) -> None:
    """03:00 there is 02:00 UTC in winter and 01:00 UTC in summer. The report has that day, and the
    next one comes a day later."""
    clock.step(three - timedelta(minutes=1) - clock.now())
    async with running(create_app(settings, jobs=[nightly_report], clock=clock), clock):
        await clock.advance(minutes=1, microseconds=-1)
        assert reports() == []
        await clock.advance(microseconds=1)
        assert reports() == [f"sessions-{three:%Y-%m-%d}.csv"]
        next_run_at = query(settings, "SELECT next_run_at FROM cron_job")
    assert next_run_at == [(to_microseconds(three + timedelta(hours=hours)),)]


async def test_a_report_has_the_day_that_it_is_in_madrid(clock: FakeClock, run_job: RunJob) -> None:
    """Half an hour past midnight there is the day before in UTC."""
    clock.step(datetime(2025, 12, 31, 23, 30, tzinfo=UTC) - clock.now())
    assert (await run_job(nightly_report)).outcome == "ok"
    assert reports() == ["sessions-2026-01-01.csv"]


async def test_a_report_without_sessions_has_a_header(clock: FakeClock, settings: Settings) -> None:
    """A night without live sessions has its file too."""
    async with running(create_app(settings, jobs=[nightly_report], clock=clock), clock):
        await clock.advance(minutes=1)
    assert report().read_bytes().decode() == HEADER


async def test_a_report_is_stopped_when_the_app_is(
    clock: FakeClock,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It notices that the app stops, returns within the grace, and takes back what it has begun."""
    await insert_sessions(settings, {"ana": 1, "ben": 1}, clock.now() + timedelta(days=1))
    gate = clock.gate()

    def read_late(function: Callable[[Connection], T]) -> T:
        gate.wait()
        return read_here(function)

    async def open_gate() -> None:
        await clock.sleep(1)
        gate.open()

    app = create_app(settings, jobs=[nightly_report], clock=clock)
    with closing(database_at(settings.url)) as database:
        read_here = database.read_here
        monkeypatch.setattr(database, "read_here", read_late)
        app.dependency_overrides[get_database] = lambda: database
        async with running(app, clock):
            await clock.advance(minutes=1)
            left = clock.monotonic()
            opening = asyncio.create_task(open_gate())
    assert opening.done()
    assert clock.monotonic() - left == 1
    assert reports() == []
    assert notes(caplog, "nightly_report") == ["interrupted, stopped after 0 users"]


@pytest.mark.parametrize("looks", [1, 2, 3])
async def test_nobody_sees_half_a_report(clock: FakeClock, settings: Settings, looks: int) -> None:
    """At each row the last report is still whole, and one that is stopped there leaves it so."""
    await insert_sessions(settings, {"ana": 1, "ben": 1, "cho": 1}, clock.now() + timedelta(days=1))
    report().parent.mkdir(parents=True)
    report().write_text("the last one")
    seen: list[str] = []

    class Watched(JobContext):
        @property
        def stopping(self) -> bool:
            seen.append(report().read_text())
            return len(seen) == looks

    context = Watched(name="", clock=clock, random=Random(), run_no=1, state=State())
    with closing(database_at(settings.url)) as database:
        assert nightly_report(context, database) == f"stopped after {looks - 1} users"
    assert seen == ["the last one"] * looks
    assert report().read_text() == "the last one"
    assert reports() == [report().name]


async def test_a_report_that_fails_leaves_nothing_behind(
    clock: FakeClock, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder is in the place of the report: the run is an error, its unfinished file is gone."""
    report().mkdir(parents=True)
    async with running(create_app(settings, jobs=[nightly_report], clock=clock), clock):
        await clock.advance(minutes=1)
    assert reports() == [report().name]
    assert notes(caplog, "nightly_report")[0].startswith("error, IsADirectoryError")


def report() -> Path:
    """The report of the first night: in the working directory, wherever the database is."""
    return Path("data/reports/sessions-2026-01-01.csv")


def reports() -> list[str]:
    """The names in the folder of the reports."""
    return sorted(path.name for path in report().parent.glob("*"))
