"""One run of a job in the whole app, on a SQLite database of its own, watched step by step."""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from pathlib import Path
from traceback import walk_tb
from typing import Any
from unittest.mock import patch

from sqlalchemy import Connection

from app.cron.clock import seeded
from app.cron.job import TIMEOUT_MAX, Function, collect
from app.cron.scheduler import Scheduler
from app.cron.store import Finish, StoreUnavailable
from app.main import create_app
from app.settings import Settings

from .app import running
from .clock import FakeClock
from .leftovers import leftovers
from .watch import Watch, place

Arrange = Callable[[Connection], object]
"""Puts into a new database what a job finds there."""

Overrides = Mapping[Callable[..., Any], Callable[..., Any]]
"""Dependencies, and what takes their place: the app's `dependency_overrides`."""

Rows = dict[str, list[tuple[Any, ...]]]
"""What is in a database, but for what the engine and Alembic keep there."""

# What has not ended by its timeout ends soon after it, and is recorded soon, on the clock.
PATIENCE = timedelta(minutes=1)

# What a write waits, in real time, when the job has left a transaction open.
BUSY_SECONDS = 1


@dataclass(frozen=True)
class Trial:
    """What has become of a run."""

    database: Path
    finish: Finish
    watch: Watch
    cancelled: bool
    """True if its task ended by a cancel."""
    ended: float
    """When it ended, on the clock."""
    rows: Rows
    failed_at: str
    """Where the error came from that it ended with."""
    left: list[str]
    """What it has left behind, and how that is mended."""


class Bench:
    """Runs one job again and again, in apps that differ in nothing unless they are told to."""

    def __init__(self, function: Function, folder: Path, overrides: Overrides) -> None:
        [self.job] = collect([function])
        self.module = function.__module__
        self._function = function
        self._folder = folder
        self._overrides = overrides
        self._numbers = count(1)

    async def prepare(self, arrange: Arrange) -> Path:
        """A database with the app's tables, and what `arrange` puts into them."""
        path = self.new_path()
        with FakeClock() as clock:
            app = create_app(_settings(path), jobs=[], clock=clock)
            async with running(app, clock) as state:
                await clock.run(state["database"].write(arrange))
        return path

    async def run(
        self,
        start: Path,
        *,
        later: timedelta = timedelta(0),
        around: AbstractContextManager[object] | None = None,
        **options: Any,
    ) -> Trial:
        """Run it once, on a copy of the database, with the wall clock set forwards by `later` and
        `around` entered. `options` are Watch's."""
        path = self.new_path()
        copy(start, path)
        with (
            FakeClock() as clock,
            Watch(self._function, path, **options) as watch,
            patch("app.cron.sqlite.BUSY_SECONDS", BUSY_SECONDS),
        ):
            clock.step(later)
            app = create_app(
                _settings(path), jobs=[self._function], clock=clock, random=seeded("trial")
            )
            app.dependency_overrides.update(self._overrides)
            async with running(app, clock) as state:
                with leftovers(watch, path) as left, around or nullcontext():
                    await clock.run(self._run(state["scheduler"], clock, watch))
                    ended = clock.monotonic()
                    await clock.settle()  # a thread may be at work for nobody
            run = watch.run
        assert run is not None
        cancelled = run.task.cancelled()
        error = None if cancelled else run.task.exception()
        places = [
            place(frame.f_code.co_filename, line)
            for frame, line in walk_tb(error.__traceback__ if error else None)
            if watch.is_own(frame.f_code.co_filename)
        ]
        with quiet():  # the scheduler has logged it
            finish = run.finish()
        return Trial(
            path,
            finish,
            watch,
            cancelled,
            ended,
            rows_of(path),
            (places or watch.places[-1:] or ["its begin"])[-1],
            left,
        )

    async def _run(self, scheduler: Scheduler, clock: FakeClock, watch: Watch) -> None:
        timeout = self.job.timeout if isinstance(self.job.timeout, timedelta) else TIMEOUT_MAX
        end = asyncio.ensure_future(scheduler.run(self.job.name))
        await _wait(clock, timeout + PATIENCE, [watch.ended, end])
        if not watch.ended.done():
            watch.give_up()
        await _wait(clock, PATIENCE, [end])
        if end.done():
            with suppress(StoreUnavailable):  # of an overtaken run no end is recorded
                end.result()

    def new_path(self) -> Path:
        """Where no database is yet."""
        return self._folder / f"{next(self._numbers)}.db"


@contextmanager
def quiet() -> Iterator[None]:
    """In the block nothing is logged."""
    disabled = logging.root.manager.disable
    logging.disable()
    try:
        yield
    finally:
        logging.disable(disabled)


async def _wait(clock: FakeClock, time: timedelta, futures: list[asyncio.Future[Any]]) -> None:
    """Until the first of them is done, or the time is over."""
    with suppress(TimeoutError):
        async with clock.timeout(time.total_seconds()):
            await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


def _settings(path: Path) -> Settings:
    return Settings(database_url=f"sqlite:///{path}", cron_enabled=False, cron_grace_seconds=0)


def copy(source: Path, target: Path) -> None:
    """Copy what is committed in a database, as a process that is killed now would leave it."""
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)


def rows_of(path: Path) -> Rows:
    """All rows of the app's own tables."""
    with closing(sqlite3.connect(path)) as connection:
        tables = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'alembic_version' "
            "AND name NOT LIKE 'cron\\_%' ESCAPE '\\' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        ).fetchall()
        return {
            name: sorted(connection.execute(f'SELECT * FROM "{name}"').fetchall(), key=repr)  # noqa: S608 -- a name of ours
            for (name,) in tables
        }
