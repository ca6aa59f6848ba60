"""An absence: what a process notices, whom it tells, and when it checks in with others."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import URL

from app.cron import JobContext, every, job
from app.cron.absence import Absence
from app.cron.memory_store import MemoryStore
from support import OPERATIONS, FakeClock, fixed, replica

Log = pytest.LogCaptureFixture


@job(every(minutes=1, jitter=0), timeout=None)
async def minutely(ctx: JobContext) -> None:
    """A job that all processes share."""


@job(every(minutes=1, jitter=0), timeout=None, each_process=True)
async def own(ctx: JobContext) -> None:
    """A job that each process runs for itself."""


class Told(MemoryStore):
    """A store that remembers what it was told, and when."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.absences: list[tuple[float, tuple[datetime, datetime] | None]] = []

    async def check_in(self, absence: tuple[datetime, datetime] | None = None) -> None:
        self.absences.append((self._clock.monotonic(), absence))


async def test_others_are_told_each_minute_that_a_process_is_alive(clock: FakeClock) -> None:
    """The first time is at once, and who has just told them has told them."""
    await clock.advance(seconds=5)
    store = Told(clock)
    absence = Absence(store, clock)
    for _ in range(130):
        await absence.check_in(at_once=clock.monotonic() == 75)
        await clock.advance(seconds=1)
    assert store.absences == [(5, None), (65, None), (75, None)]


@pytest.mark.parametrize(("seconds", "noticed"), [(45, False), (45.001, True)])
async def test_a_process_that_did_not_run_says_so(
    clock: FakeClock, url: URL, caplog: Log, seconds: float, *, noticed: bool
) -> None:
    """It wakes more than 30 s late: that is logged once, stored for others to see, and all is
    looked at anew. What each process runs for itself says nothing in addition."""
    async with replica(clock, url, minutely, own) as one:
        await clock.advance(seconds=15)
        one.freeze()
        await clock.advance(seconds=seconds)
        one.thaw()
        await clock.settle()
        back = clock.now()
        await clock.advance(minutes=1)
        [process] = await one.store.processes()
        told = [message for message in caplog.messages if "did not run" in message]
        span = "from 2026-01-01 00:00:30 to 2026-01-01 00:01:00 UTC"
        line = f"cron: this process did not run {span}, or its clock was set"
        assert told == [line] * noticed
        assert (process.absent_until == back) == noticed
        assert one.store.times("register") == ([0, 15 + seconds] if noticed else [0])


@pytest.mark.parametrize(("hours", "noticed"), [(1, True), (-1, False)])
async def test_a_wall_clock_that_was_set_forwards_looks_like_an_absence(
    clock: FakeClock, url: URL, caplog: Log, hours: float, *, noticed: bool
) -> None:
    """A machine that was suspended shows nothing else: the line says that it may be either."""
    async with replica(clock, url) as one:
        await clock.advance(seconds=5)
        clock.step(hours=hours)
        await clock.advance(seconds=15)
        assert caplog.text.count("or its clock was set") == noticed
        [process] = await one.store.processes()
        assert (process.absent_from is not None) == noticed


async def test_after_an_absence_what_is_overdue_is_spread(clock: FakeClock, url: URL) -> None:
    """All machines of a rack may have been away together."""
    starts = list[float]()

    @job(every(seconds=20, jitter=0.2), timeout=None)
    async def tick(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())

    async with replica(clock, url, tick, random=fixed(1)) as one:
        await clock.advance(seconds=5)
        one.freeze()
        await clock.advance(seconds=95)
        one.thaw()
        await clock.advance(seconds=10)
    assert starts == [4, 104]


@pytest.mark.parametrize("away_first", [True, False])
async def test_an_absence_is_stored_when_the_database_is_back(
    clock: FakeClock, url: URL, *, away_first: bool
) -> None:
    """It was noticed while that was away, or began in the rest between two tries."""
    async with replica(clock, url) as one:
        if away_first:
            one.store.fails = OPERATIONS
            await clock.advance(seconds=31)
        planned = clock.now() + timedelta(seconds=15)
        one.freeze()
        await clock.advance(seconds=60)
        one.store.fails = OPERATIONS
        one.thaw()
        await clock.advance(seconds=5)
        one.store.fails = ()
        await clock.advance(seconds=30)
        [process] = await one.store.processes()
        assert process.absent_from == planned
