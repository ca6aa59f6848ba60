"""The scheduler: what it claims when, what it tells, and what it survives."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI

from app.cron import JobContext, crontab, every, job
from app.cron.inject import prepare
from app.cron.memory_store import MemoryStore
from app.cron.scheduler import Scheduler
from app.cron.store import Claim, Claimed, Finish, Look, StoreUnavailable
from support import FakeClock, cron_app, fixed, running

Log = pytest.LogCaptureFixture
AT_ONCE = every(minutes=5, jitter=0)


# When jobs start


@pytest.mark.parametrize(("draw", "seconds"), [(0, 0), (0.5, 5), (1, 10)])
async def test_with_jitter_the_first_run_waits_a_little(
    clock: FakeClock, draw: float, seconds: float
) -> None:
    """Up to 10 seconds, so that replicas that start together do not work all at once."""
    starts = list[float]()

    @job(every(minutes=5))
    async def tick(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())

    async with running(cron_app(tick, clock=clock, random=fixed(draw)), clock):
        await clock.advance(seconds=10)
    assert starts == [seconds]


async def test_a_crontab_waits_for_its_first_fire(clock: FakeClock) -> None:
    """It does not run at the start, and then at its times."""
    starts = list[str]()

    @job(crontab("0 3 * * *", tz="Europe/Madrid"))
    async def nightly(ctx: JobContext) -> None:
        starts.append(f"{ctx.clock.now():%d %H:%M}")

    async with running(cron_app(nightly, clock=clock), clock):
        await clock.advance(days=3)
    assert starts == ["01 02:00", "02 02:00", "03 02:00"]


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_crontab_follows_a_stepped_wall_clock(clock: FakeClock, hours: int) -> None:
    """It is about times of day: it starts when the wall says 02:00, at most a look of 15 s late."""
    starts = list[float]()

    @job(crontab("0 2 * * *"))
    async def nightly(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())

    async with running(cron_app(nightly, clock=clock), clock):
        await clock.advance(seconds=1)
        clock.step(hours=hours)
        await clock.advance(hours=5)
    assert len(starts) == 1
    assert 7_200 - hours * 3_600 <= starts[0] <= 7_200 - hours * 3_600 + 15


async def test_a_crontab_whose_time_was_skipped_runs_once(clock: FakeClock) -> None:
    """A wall clock set forwards over several fires makes one run, within a look of 15 s."""
    starts = list[float]()

    @job(crontab("0 * * * *"))
    async def hourly(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())

    async with running(cron_app(hourly, clock=clock), clock):
        await clock.advance(seconds=60)
        clock.step(hours=5)
        await clock.advance(minutes=30)
    assert len(starts) == 1
    assert 60 <= starts[0] <= 75


async def test_jobs_that_fall_due_soon_after_another_are_claimed_together(clock: FakeClock) -> None:
    """Within 50 ms they share a transaction. None runs early."""
    store = Watched(clock)

    @job(every(seconds=60, jitter=0))
    async def one(ctx: JobContext) -> None:
        """Due each minute."""

    @job(crontab("* * * * *"), name="two")
    async def two(ctx: JobContext) -> None:
        """Due each minute, 40 ms later."""

    clock.step(milliseconds=-40)
    app = cron_app(one, two, clock=clock, store=store, coalesce=timedelta(milliseconds=50))
    async with running(app, clock):
        await clock.advance(milliseconds=49)
        assert store.claims == []
        await clock.advance(milliseconds=1)
    assert store.claims == [["one", "two"]]


async def test_a_lone_job_is_not_delayed(clock: FakeClock) -> None:
    """There is nothing to wait for."""
    starts = list[float]()

    @job(every(seconds=60, jitter=0))
    async def lone(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())

    app = cron_app(lone, clock=clock, coalesce=timedelta(milliseconds=50))
    async with running(app, clock):
        await clock.advance(seconds=180)
    assert starts == [0, 60, 120, 180]


# Threads


async def test_no_more_threads_run_than_allowed(clock: FakeClock, caplog: Log) -> None:
    """A `def` job that finds none free starts when one is, and the log says that it waits."""
    gate, starts = clock.gate(), list[str]()

    @job(AT_ONCE)
    def first() -> None:
        starts.append("first")
        gate.wait()

    @job(AT_ONCE)
    def second() -> None:
        starts.append("second")

    async with running(cron_app(first, second, clock=clock, threads=1), clock):
        await clock.advance(seconds=10)
        assert starts == ["first"]
        assert "second is due but all threads are busy" in caplog.text
        gate.open()
        await clock.settle()
        assert starts == ["first", "second"]


async def test_async_jobs_need_no_thread(clock: FakeClock) -> None:
    """They start while all threads are busy."""
    gate, starts = clock.gate(), list[str]()

    @job(AT_ONCE)
    def busy() -> None:
        gate.wait()

    @job(AT_ONCE)
    async def free() -> None:
        starts.append("free")

    async with running(cron_app(busy, free, clock=clock, threads=1), clock):
        assert starts == ["free"]
        gate.open()


# What it survives


async def test_a_slow_job_does_not_delay_another(clock: FakeClock) -> None:
    """Each keeps its own time."""
    starts = list[float]()

    @job(every(seconds=60, jitter=0), timeout=None)
    async def slow(ctx: JobContext) -> None:
        await ctx.clock.sleep(1_000)

    @job(every(seconds=60, jitter=0))
    async def quick(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())

    async with running(cron_app(slow, quick, clock=clock), clock):
        await clock.advance(seconds=180)
    assert starts == [0, 60, 120, 180]


@pytest.mark.parametrize(
    ("broken", "expected"),
    [("claim", [0, 91, 151]), ("finish", [0, 60, 120, 180]), ("look", [0, 60, 120, 180])],
)
async def test_a_store_that_fails_stops_no_job(
    clock: FakeClock, caplog: Log, broken: str, expected: list[float]
) -> None:
    """It is tried again, after a second at first, and nothing is lost."""
    store, starts = Watched(clock), list[float]()

    @job(every(seconds=60, jitter=0))
    async def tick(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())

    async with running(cron_app(tick, clock=clock, store=store), clock):
        store.broken = broken
        await clock.advance(seconds=90)
        store.broken = ""
        await clock.advance(seconds=120)
    assert starts == expected
    assert "the database is away" in caplog.text
    assert {run.outcome for run in await store.history("tick")} == {"ok"}


async def test_a_claim_that_another_has_made_is_not_run(clock: FakeClock) -> None:
    """The scheduler looks again and comes next time."""
    store, starts = Watched(clock), list[int]()

    @job(every(seconds=60, jitter=0))
    async def tick(ctx: JobContext) -> None:
        starts.append(ctx.run_no)

    app = cron_app(tick, clock=clock, store=store, look_every=timedelta(hours=1))
    async with running(app, clock):
        await clock.advance(seconds=59)
        store.claim_elsewhere("tick", timedelta(seconds=61))
        await clock.advance(seconds=60)
        assert starts == [1]
        await clock.advance(seconds=1)
        assert starts == [1, 3]


async def test_a_driver_that_hangs_at_the_end_loses_no_outcome(clock: FakeClock) -> None:
    """What it could not record in the grace is recorded when it has been cancelled."""
    store = Watched(clock)

    @job(AT_ONCE)
    async def quick(ctx: JobContext) -> None:
        await ctx.clock.sleep(1)

    async with running(cron_app(quick, clock=clock, store=store), clock):
        store.broken = "hang once"
        await clock.advance(seconds=1)
    assert [run.outcome for run in await store.history("quick")] == ["ok"]


# What it tells


async def test_a_job_that_waits_for_a_thread_is_logged_once(clock: FakeClock, caplog: Log) -> None:
    """Not again with every run of others that ends meanwhile."""
    gate = clock.gate()

    @job(AT_ONCE, timeout=None)
    def busy() -> None:
        gate.wait()

    @job(AT_ONCE)
    def waits() -> None:
        """Finds no thread."""

    @job(every(seconds=1, jitter=0))
    async def often() -> None:
        """Ends all the time."""

    async with running(cron_app(busy, often, waits, clock=clock, threads=1), clock):
        await clock.advance(minutes=2)
        gate.open()
    assert caplog.text.count("waits is due but all threads are busy") == 1


async def test_a_run_that_outlives_its_timeout_is_logged_once(
    clock: FakeClock, caplog: Log
) -> None:
    """Its job does not run again until it ends: somebody should know."""
    gate = clock.gate()

    @job(AT_ONCE, timeout=timedelta(minutes=1))
    def stuck() -> None:
        gate.wait()

    async with running(cron_app(stuck, clock=clock), clock):
        await clock.advance(seconds=59)
        assert "over its timeout" not in caplog.text
        await clock.advance(hours=1)
        assert caplog.text.count("stuck run 1 is over its timeout and does not end") == 1
        gate.open()


async def test_the_end_of_a_run_is_logged_with_its_note(clock: FakeClock, caplog: Log) -> None:
    """And with when the next is due."""

    @job(AT_ONCE)
    async def tick() -> str:
        return "deleted 3"

    async with running(cron_app(tick, clock=clock), clock):
        assert "tick run 1: ok, deleted 3; next in 5 min" in caplog.text


async def test_next_due_names_the_job_and_the_time_until_then(clock: FakeClock) -> None:
    """The first to come of all."""

    @job(crontab("0 5 * * *"))
    async def at_five() -> None:
        """Due in five hours."""

    @job(crontab("0 3 * * *"))
    async def at_three() -> None:
        """Due in three hours."""

    async with scheduler_of(at_five, at_three, store=MemoryStore(clock), clock=clock) as scheduler:
        assert scheduler.next_due() == ("at_three", timedelta(hours=3))


async def test_without_jobs_nothing_is_due(clock: FakeClock) -> None:
    """There is no next one."""
    async with scheduler_of(store=MemoryStore(clock), clock=clock) as scheduler:
        assert scheduler.next_due() is None


async def test_a_scheduler_at_work_has_no_problem(clock: FakeClock) -> None:
    """An hour without anything to do is none."""
    async with scheduler_of(store=MemoryStore(clock), clock=clock) as scheduler:
        await clock.advance(hours=1)
        assert scheduler.problem() is None


async def test_a_driver_that_has_died_is_a_problem(clock: FakeClock) -> None:
    """Nothing would ever start again."""
    async with scheduler_of(store=MemoryStore(clock), clock=clock) as scheduler:
        [driver] = [task for task in asyncio.all_tasks() if task.get_name() == "cron driver"]
        driver.cancel()
        await clock.settle()
        assert scheduler.problem() == "the driver is dead"


async def test_a_driver_that_hangs_is_a_problem(clock: FakeClock) -> None:
    """It looks every 15 s; when the last look is over 45 s ago, it is late."""
    store = Watched(clock)
    async with scheduler_of(store=store, clock=clock) as scheduler:
        store.broken = "hang"
        await clock.advance(seconds=15 + 45)
        assert scheduler.problem() is None
        await clock.advance(seconds=1)
        assert scheduler.problem() == "the driver is late: it last looked 46 s ago"
        store.hanging.set()


def scheduler_of(*jobs: Callable[..., Any], **options: Any) -> Scheduler:
    """A scheduler of these jobs."""
    return Scheduler(prepare(jobs, FastAPI()), random=fixed(0), state={}, **options)


class Watched(MemoryStore):
    """A store that remembers which jobs were claimed together, and can be made to fail."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.claims: list[list[str]] = []
        self.broken = ""
        self.hanging = asyncio.Event()

    async def look(self, names: Iterable[str]) -> list[Look]:
        if self.broken == "hang":
            await self.hanging.wait()
        self._fail("look")
        return await super().look(names)

    async def claim(self, claims: Sequence[Claim]) -> list[Claimed]:
        self._fail("claim")
        self.claims.append([claim.name for claim in claims])
        return await super().claim(claims)

    async def finish(self, finishes: Sequence[Finish]) -> list[Look]:
        if self.broken == "hang once":
            self.broken = ""
            await self.hanging.wait()
        self._fail("finish")
        return await super().finish(finishes)

    def claim_elsewhere(self, name: str, gap: timedelta) -> None:
        """Claim and finish a run as another process would, whether it is due or not."""
        row = self._rows[name]
        row.run_no += 1
        row.next_run_at = self._clock.now() + gap

    def _fail(self, operation: str) -> None:
        if self.broken == operation:
            raise StoreUnavailable("the disk is full")
