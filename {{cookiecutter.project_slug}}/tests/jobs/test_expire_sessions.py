"""The deletion of expired sessions, by the whole app."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from itertools import pairwise
from typing import TypeVar

import pytest
from sqlalchemy import Connection

from app.cron.database import Check, Database
from app.db import open_database
from app.jobs.expire_sessions import expire_sessions
from app.main import create_app
from app.settings import Settings
from support import FakeClock, fixed, insert_sessions, notes, query, running, serving

T = TypeVar("T")

# What one transaction deletes at most, and does while the clock stands still.
ROWS_MAX = 4_000


def observe(
    monkeypatch: pytest.MonkeyPatch,
    *,
    before: Callable[[], Awaitable[None]] | None = None,
    after: Callable[[], object] | None = None,
) -> None:
    """Let the app have a database that calls the test before and after each transaction of the
    job."""

    def open_observed(settings: Settings) -> Database:
        database = open_database(settings)
        write = database.write

        async def observed(
            function: Callable[[Connection], T], *, check: Check | None = None, urgent: bool = False
        ) -> T:
            if check and before:
                await before()
            result = await write(function, check=check, urgent=urgent)
            if check and after:
                after()
            return result

        monkeypatch.setattr(database, "write", observed)
        return database

    monkeypatch.setattr("app.main.open_database", open_observed)


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


async def test_a_session_lives_until_its_last_microsecond(
    clock: FakeClock, settings: Settings
) -> None:
    """One that expires a microsecond after the run is left for the next one."""
    await insert_sessions(settings, {"ana": 1}, clock.now())
    await insert_sessions(settings, {"ben": 1}, clock.now() + timedelta(microseconds=1))
    app = create_app(settings, jobs=[expire_sessions], clock=clock, random=fixed(0))
    async with running(app, clock):
        pass
    assert users(settings) == ["ben"]


@pytest.mark.parametrize(
    ("expired", "transactions"),
    [
        (ROWS_MAX - 1, [ROWS_MAX - 1]),
        (ROWS_MAX, [ROWS_MAX]),
        (2 * ROWS_MAX + 1, [ROWS_MAX, ROWS_MAX, 1]),
    ],
)
async def test_many_expired_sessions_are_deleted_in_several_transactions(
    clock: FakeClock,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    expired: int,
    transactions: list[int],
) -> None:
    """As many as it takes; what has not expired stays."""
    await insert_sessions(settings, {"ana": expired}, clock.now() - timedelta(seconds=1))
    await insert_sessions(settings, {"ben": 600}, clock.now() + timedelta(seconds=1))
    left = [expired + 600]

    def count() -> None:
        left.append(len(users(settings)))

    observe(monkeypatch, after=count)
    app = create_app(settings, jobs=[expire_sessions], clock=clock, random=fixed(0))
    async with running(app, clock):
        pass
    assert [before - after for before, after in pairwise(left)] == transactions
    assert users(settings) == ["ben"] * 600
    assert notes(caplog, "expire_sessions") == [f"ok, deleted {expired}"]


async def test_a_long_deletion_stops_when_the_app_does(
    clock: FakeClock,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It ends after the transaction that it is in, with no need to be cancelled."""
    await insert_sessions(settings, {"ana": 3 * ROWS_MAX}, clock.now())

    async def take_long() -> None:
        await clock.sleep(2)

    observe(monkeypatch, before=take_long)
    app = create_app(settings, jobs=[expire_sessions], clock=clock, random=fixed(0))
    async with running(app, clock):
        await clock.advance(seconds=3)
        left = clock.monotonic()
    assert clock.monotonic() - left == 1
    assert len(users(settings)) == ROWS_MAX
    assert notes(caplog, "expire_sessions") == [f"interrupted, deleted {2 * ROWS_MAX}"]


async def test_a_run_that_another_has_followed_deletes_nothing_more(
    clock: FakeClock,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its lease is over and another process has the job: its next transaction is rolled back."""
    await insert_sessions(settings, {"ana": 3 * ROWS_MAX}, clock.now())

    claim_elsewhere = "UPDATE cron_job SET run_no = run_no + 1, owner = 'another'"
    observe(monkeypatch, after=lambda: query(settings, claim_elsewhere))
    app = create_app(settings, jobs=[expire_sessions], clock=clock, random=fixed(0))
    async with running(app, clock):
        pass
    assert len(users(settings)) == 2 * ROWS_MAX  # the first transaction was in time
    assert "LeaseLost" in caplog.text


def users(settings: Settings) -> list[str]:
    """Whose sessions are in the table, expired or not."""
    return [user for (user,) in query(settings, 'SELECT "user" FROM sessions ORDER BY 1')]
