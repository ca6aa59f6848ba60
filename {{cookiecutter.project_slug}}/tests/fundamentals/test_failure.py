"""Failure: what becomes of a run that raises or takes too long, and of the runs after it."""

import asyncio
from datetime import timedelta

import pytest

from app.cron import JobContext, every, job
from app.cron.memory_store import MemoryStore
from support import FakeClock, cron_app, fixed, running

MINUTELY = every(minutes=1, jitter=0)


async def test_a_run_that_raises_is_tried_again_soon(clock: FakeClock) -> None:
    """5 s after it has failed, here at 2 s. The interval counts from the start of the retry."""
    starts = list[float]()

    @job(MINUTELY)
    async def fails_once(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())
        await ctx.clock.sleep(2)
        if ctx.run_no == 1:
            raise ValueError

    async with running(cron_app(fails_once, clock=clock), clock):
        await clock.advance(minutes=2)
    assert starts == [0, 7, 67]


async def test_the_history_tells_why_a_run_failed(clock: FakeClock) -> None:
    """`python -m app.cron history` shows it."""

    @job(MINUTELY)
    async def fails() -> None:
        raise ValueError("the reason")

    store = MemoryStore(clock)
    async with running(cron_app(fails, clock=clock, store=store), clock):
        [run] = await store.history("fails")
    assert run.outcome == "error"
    assert run.error.endswith("ValueError: the reason")


async def test_failures_in_a_row_are_tried_again_ever_later(clock: FakeClock) -> None:
    """After 5, 10, 20 and 40 s and so on, for ever, but never later than it is due anyway."""
    starts = list[float]()

    @job(MINUTELY)
    async def fails(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())
        raise ValueError

    async with running(cron_app(fails, clock=clock), clock):
        await clock.advance(seconds=195)
    assert starts == [0, 5, 15, 35, 75, 135, 195]


@pytest.mark.parametrize(("draw", "seconds"), [(0, 3.5), (0.5, 5), (1, 6.5)])
async def test_jitter_varies_these_waits_too(clock: FakeClock, draw: float, seconds: float) -> None:
    """With the usual 0.3 each is 0.7 to 1.3 times as long: the first of them 3.5 to 6.5 s."""
    starts = list[float]()

    @job(every(minutes=5))
    async def fails(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())
        raise ValueError

    async with running(cron_app(fails, clock=clock, random=fixed(draw)), clock):
        await clock.advance(seconds=17)
    first, second, *_ = starts
    assert second - first == seconds


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
    """When its timeout is over. That is a failure too: it is tried again 5 s later."""
    starts = list[float]()

    @job(MINUTELY, timeout=timedelta(seconds=20))
    async def hangs(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())
        await asyncio.Event().wait()

    store = MemoryStore(clock)
    async with running(cron_app(hangs, clock=clock, store=store), clock):
        await clock.advance(seconds=25)
        first, _ = await store.history("hangs")
    assert first.outcome == "timeout"
    assert starts == [0, 20 + 5]


@pytest.mark.parametrize(
    ("interval", "seconds"),
    [({"seconds": 5}, 30), ({"minutes": 1}, 60), ({"minutes": 59}, 3540), ({"hours": 2}, 3600)],
)
async def test_the_usual_timeout_is_the_interval(
    clock: FakeClock, interval: dict[str, float], seconds: float
) -> None:
    """But at least 30 s and at most an hour."""

    @job(every(**interval, jitter=0))
    async def hangs() -> None:
        await asyncio.Event().wait()

    store = MemoryStore(clock)
    async with running(cron_app(hangs, clock=clock, store=store), clock):
        await clock.advance(seconds=seconds)
        run, *_ = await store.history("hangs")
    assert run.outcome == "timeout"
    assert run.finished_at == run.started_at + timedelta(seconds=seconds)


async def test_a_thread_that_takes_too_long_is_asked_to_stop(clock: FakeClock) -> None:
    """A `def` job runs in a thread, and nothing ends a thread from outside: `ctx.stopping` turns
    true. Until it returns, no other run of the job begins; 5 s after that it is tried again."""
    gate, stopping = clock.gate(), list[tuple[int, bool]]()

    @job(MINUTELY)
    def hangs(ctx: JobContext) -> None:
        gate.wait()  # and looks only then
        stopping.append((ctx.run_no, ctx.stopping))

    store = MemoryStore(clock)
    async with running(cron_app(hangs, clock=clock, store=store), clock):
        await clock.advance(minutes=10)
        [run] = await store.history("hangs")
        assert run.finished_at is None
        gate.open()
        await clock.advance(seconds=5)
        first, second = await store.history("hangs")
        assert (first.outcome, second.outcome) == ("timeout", "ok")
    assert stopping == [(1, True), (2, False)]
    assert first.finished_at is not None
    assert second.started_at == first.finished_at + timedelta(seconds=5)
