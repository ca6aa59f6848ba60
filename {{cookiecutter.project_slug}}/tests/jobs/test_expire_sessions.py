"""The deletion of expired sessions, by the whole app."""

from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from typing import TypeVar

import pytest
from sqlalchemy import Connection

from app.cron.database import Database
from app.db import get_database
from app.jobs.expire_sessions import expire_sessions
from app.main import create_app
from app.settings import Settings
from support import FakeClock, fixed, insert_sessions, notes, query, running, serving

T = TypeVar("T")


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
    await insert_sessions(settings, {"ana": expired}, clock.now() - timedelta(seconds=1))
    await insert_sessions(settings, {"ben": 600}, clock.now() + timedelta(seconds=1))
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
    await insert_sessions(settings, {"ana": 5_000}, clock.now())

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


def users(settings: Settings) -> list[str]:
    """Whose sessions are in the table, expired or not."""
    return [user for (user,) in query(settings, 'SELECT "user" FROM sessions ORDER BY 1')]
