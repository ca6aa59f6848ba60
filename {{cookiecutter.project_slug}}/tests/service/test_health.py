"""Health: what the container and the load balancer are told."""

import asyncio
from collections.abc import Sequence

import pytest

from app.cron import every, job
from app.cron.sql_store import SqlStore
from app.cron.store import Claim, Claimed, Look, StoreUnavailable
from app.main import create_app
from app.settings import Settings
from support import FakeClock, fixed, on_postgres, on_sqlite, path_of, query, serving
from support.databases import shut


@job(every(seconds=5, jitter=0))
async def well() -> None:
    """Is due all the time."""


async def test_a_running_app_is_alive(clock: FakeClock, settings: Settings) -> None:
    """200, at once and after a while, with jobs at work."""
    async with serving(create_app(settings, jobs=[well], clock=clock), clock) as client:
        at_once = await client.get("/health/live")
        await clock.advance(minutes=10)
        later = await client.get("/health/live")
    assert (at_once.status_code, later.status_code) == (200, 200)
    assert at_once.json() == {"status": "ok", "cron": "ok"}


async def test_an_app_without_jobs_is_alive(clock: FakeClock, settings: Settings) -> None:
    """200, however long nothing is due."""
    async with serving(create_app(settings, jobs=[], clock=clock), clock) as client:
        await clock.advance(minutes=10)
        answer = await client.get("/health/live")
    assert answer.status_code == 200


async def test_a_job_that_fails_leaves_the_app_alive(clock: FakeClock, settings: Settings) -> None:
    """200: a restart would not mend it."""

    @job(every(minutes=5))
    async def fail() -> None:
        raise ValueError("no")

    app = create_app(settings, jobs=[fail], clock=clock)
    async with serving(app, clock) as client:
        await clock.advance(minutes=10)
        answer = await client.get("/health/live")
    assert answer.status_code == 200


async def test_a_job_that_hangs_leaves_the_app_alive(clock: FakeClock, settings: Settings) -> None:
    """200, also when its timeout is never."""

    @job(every(minutes=5), timeout=None)
    async def hang() -> None:
        await asyncio.Event().wait()

    app = create_app(settings, jobs=[hang], clock=clock)
    async with serving(app, clock) as client:
        await clock.advance(minutes=10)
        answer = await client.get("/health/live")
    assert answer.status_code == 200


async def test_an_app_whose_driver_is_dead_is_not_alive(
    clock: FakeClock, settings: Settings
) -> None:
    """503 with the reason, at once: no job would ever run again."""
    async with serving(create_app(settings, jobs=[], clock=clock), clock) as client:
        for task in asyncio.all_tasks():
            if task.get_name() == "cron driver":
                task.cancel()
        await clock.settle()
        answer = await client.get("/health/live")
    assert answer.status_code == 503
    assert answer.json() == {"status": "failed", "cron": "the driver is dead"}


async def test_an_app_whose_driver_is_late_is_not_alive(
    clock: FakeClock, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 once the driver, which looks each 15 s, has not looked for more than 30 s beyond."""

    @job(every(minutes=5))
    async def never_begins() -> None:
        raise AssertionError

    async def claim(store: SqlStore, claims: Sequence[Claim]) -> list[Claimed]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(SqlStore, "claim", claim)
    app = create_app(settings, jobs=[never_begins], clock=clock, random=fixed(0))
    async with serving(app, clock) as client:
        await clock.advance(seconds=45)
        in_time = await client.get("/health/live")
        await clock.advance(microseconds=1)
        late = await client.get("/health/live")
    assert in_time.status_code == 200
    assert late.status_code == 503
    assert late.json() == {
        "status": "failed",
        "cron": "the driver is late: it last looked 45 s ago",
    }


async def test_a_store_that_fails_is_tried_again(
    clock: FakeClock, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200: the driver lives through it, and runs what is due when the store is back."""
    runs: list[float] = []

    @job(every(minutes=5))
    async def note() -> None:
        runs.append(clock.monotonic())

    async def claim(store: SqlStore, claims: Sequence[Claim]) -> list[Claimed]:
        raise StoreUnavailable("the disk is full")

    app = create_app(settings, jobs=[note], clock=clock, random=fixed(0))
    with monkeypatch.context() as patch:
        patch.setattr(SqlStore, "claim", claim)
        async with serving(app, clock) as client:
            await clock.advance(minutes=3)
            answer = await client.get("/health/live")
            assert runs == []
            patch.undo()
            await clock.advance(minutes=3)
    assert answer.status_code == 200
    assert len(runs) == 1


async def test_an_app_whose_store_takes_its_time_to_fail_is_alive(
    clock: FakeClock, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200: a driver that is told "locked" after 15 s, and then rests for 30 s, is not late."""

    asked = list[float]()

    async def fail(*_: object, **__: object) -> list[Look]:
        asked.append(clock.monotonic())
        await clock.sleep(15)
        raise StoreUnavailable("database is locked")

    async with serving(create_app(settings, jobs=[well], clock=clock), clock) as client:
        monkeypatch.setattr(SqlStore, "register", fail)
        monkeypatch.setattr(SqlStore, "claim", fail)
        codes = set[int]()
        for _ in range(240):
            await clock.advance(seconds=1)
            codes.add((await client.get("/health/live")).status_code)
    assert codes == {200}
    assert len(asked) >= 5


async def test_a_running_app_is_ready(clock: FakeClock, settings: Settings) -> None:
    """200: requests are welcome."""
    async with serving(create_app(settings, jobs=[], clock=clock), clock) as client:
        answer = await client.get("/health/ready")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ok", "database": "ok"}


@on_sqlite
async def test_an_app_whose_file_is_gone_is_not_ready(clock: FakeClock, settings: Settings) -> None:
    """503 with its path when the file is deleted, though its connections are still open."""
    async with serving(create_app(settings, jobs=[], clock=clock), clock) as client:
        path_of(settings).unlink()
        answer = await client.get("/health/ready")
    assert answer.status_code == 503
    assert answer.json() == {
        "status": "failed",
        "database": f"{path_of(settings)} is gone: deleted or replaced while in use",
    }


@on_postgres
async def test_an_app_whose_server_refuses_it_is_not_ready(
    clock: FakeClock, settings: Settings
) -> None:
    """503 with the server's own words, on one line."""
    async with serving(create_app(settings, jobs=[], clock=clock), clock) as client:
        with shut(settings):
            answer = await client.get("/health/ready")
    assert answer.status_code == 503
    assert answer.json()["status"] == "failed"
    reason = f'database "{settings.url.database}" is not currently accepting connections'
    assert answer.json()["database"].endswith(reason)


MISSING = {
    "sqlite": "no such table: sessions",
    "postgresql": 'relation "sessions" does not exist LINE 2: FROM sessions ^',
}


async def test_an_app_whose_table_is_missing_is_not_ready(
    clock: FakeClock, settings: Settings
) -> None:
    """503 with the reason when the schema is not what the code needs."""
    async with serving(create_app(settings, jobs=[], clock=clock), clock) as client:
        query(settings, "DROP TABLE sessions")
        answer = await client.get("/health/ready")
    assert answer.status_code == 503
    missing = MISSING[settings.url.get_backend_name()]
    assert answer.json() == {"status": "failed", "database": missing}


async def test_an_app_whose_column_is_missing_is_not_ready(
    clock: FakeClock, settings: Settings
) -> None:
    """503: a table of that name is not enough."""
    async with serving(create_app(settings, jobs=[], clock=clock), clock) as client:
        query(settings, 'ALTER TABLE sessions RENAME "user" TO guest')
        answer = await client.get("/health/ready")
    assert answer.status_code == 503


async def test_an_app_that_is_not_ready_is_alive(clock: FakeClock, settings: Settings) -> None:
    """200 from `live`: without its database, a restart of the process helps nobody."""
    async with serving(create_app(settings, jobs=[], clock=clock), clock) as client:
        query(settings, "DROP TABLE sessions")
        ready = await client.get("/health/ready")
        live = await client.get("/health/live")
    assert (ready.status_code, live.status_code) == (503, 200)
