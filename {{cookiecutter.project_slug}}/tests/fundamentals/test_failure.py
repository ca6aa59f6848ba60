"""Failure: what becomes of a run that raises or takes too long, and of the runs after it."""

import asyncio
from datetime import timedelta

from app.cron import JobContext, every, job
from app.cron.memory_store import MemoryStore
from support import FakeClock, cron_app, fixed, running

MINUTELY = every(minutes=1, jitter=0)


async def test_a_run_that_raises_is_tried_again_soon(clock: FakeClock) -> None:
    """After 5 s, and from the start of that run the interval counts."""
    starts = list[float]()

    @job(MINUTELY)
    async def fails_once(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())
        if ctx.run_no == 1:
            raise ValueError("the reason")

    store = MemoryStore(clock)
    async with running(cron_app(fails_once, clock=clock, store=store), clock):
        await clock.advance(minutes=2)
    assert starts == [0, 5, 65]
    first, second, _ = await store.history("fails_once")
    assert (first.outcome, second.outcome) == ("error", "ok")
    assert first.error.endswith("ValueError: the reason")


async def test_failures_in_a_row_are_tried_again_ever_later(clock: FakeClock) -> None:
    """After 5, 10, 20 and 40 s, with a draw of a half, and never later than its interval."""
    starts = list[float]()

    @job(MINUTELY)
    async def fails(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())
        raise ValueError

    async with running(cron_app(fails, clock=clock, random=fixed(0.5)), clock):
        await clock.advance(seconds=195)
    assert starts == [0, 5, 15, 35, 75, 135, 195]


async def test_a_failure_touches_no_other_job(clock: FakeClock) -> None:
    """What is due beside it runs when it is due."""
    starts = list[float]()

    @job(MINUTELY)
    async def fails() -> None:
        raise ValueError

    @job(MINUTELY)
    async def well(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())

    async with running(cron_app(fails, well, clock=clock), clock):
        await clock.advance(minutes=2)
    assert starts == [0, 60, 120]


async def test_a_run_that_takes_too_long_is_cancelled(clock: FakeClock) -> None:
    """When its timeout is over: unless it says otherwise, that is its interval."""

    @job(MINUTELY)
    async def hangs() -> None:
        await asyncio.Event().wait()

    @job(every(hours=1), timeout=timedelta(seconds=2))
    async def hangs_less() -> None:
        await asyncio.Event().wait()

    store = MemoryStore(clock)
    async with running(cron_app(hangs, hangs_less, clock=clock, store=store), clock):
        await clock.advance(minutes=1)
        for name, seconds in (("hangs", 60), ("hangs_less", 2)):
            run, *_ = await store.history(name)
            assert run.outcome == "timeout"
            assert run.finished_at is not None
            assert run.finished_at - run.started_at == timedelta(seconds=seconds)
