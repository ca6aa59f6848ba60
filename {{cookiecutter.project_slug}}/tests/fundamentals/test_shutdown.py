"""Shutdown: jobs are asked to stop, cancelled after a grace of 5 s, left behind a second later.

`running` is an app from its start to its end, `seconds_to_end` how long it takes from the moment
at which a server ends its lifespan, as it does on SIGTERM.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from fastapi import FastAPI

from app.cron import JobContext, every, job
from app.cron.memory_store import MemoryStore
from support import FakeClock, cron_app, running, seconds_to_end

Log = pytest.LogCaptureFixture

# A job that has never run does so at the start.
AT_ONCE = every(minutes=5, jitter=0)


@job(AT_ONCE)
async def careful(ctx: JobContext) -> None:
    """Sleeps for a minute. When it is cancelled, it cleans up for half a second."""
    try:
        await ctx.clock.sleep(60)
    finally:
        await ctx.clock.sleep(0.5)
        ctx.log.info("clean")


async def test_without_jobs_the_app_ends_at_once(clock: FakeClock) -> None:
    """There is nothing to wait for."""
    assert await seconds_to_end(clock) == 0


async def test_a_run_that_ends_when_asked_is_not_cancelled(clock: FakeClock) -> None:
    """`ctx.stopping` turns true as the shutdown begins. Here the job asks each second, and returns;
    the app does not wait for longer."""

    @job(AT_ONCE)
    async def polite(ctx: JobContext) -> None:
        while not ctx.stopping:
            await ctx.clock.sleep(1)

    assert await seconds_to_end(clock, polite) == 1


async def test_a_sleeping_job_is_cancelled_after_the_grace(clock: FakeClock, caplog: Log) -> None:
    """The app does not wait until the job would wake, but does for the end of its `finally`."""
    assert await seconds_to_end(clock, careful) == 5.5
    assert "careful run 1: clean" in caplog.text


async def test_a_job_that_swallows_its_cancel_is_left_behind(clock: FakeClock, caplog: Log) -> None:
    """It has a second after its cancel, then the app ends, and the log names it. When it is run
    again, see `test_one_claim`."""

    @job(AT_ONCE)
    async def deaf(ctx: JobContext) -> None:
        while ctx.clock.monotonic() < 20:
            with suppress(asyncio.CancelledError):
                await ctx.clock.sleep(20)

    assert await seconds_to_end(clock, deaf) == 6
    assert "cron: deaf run 1 does not end; it is left behind" in caplog.messages
    await clock.advance(seconds=20)  # it ends at last: the test leaves no task


async def test_a_thread_that_ignores_stop_is_left_behind(clock: FakeClock, caplog: Log) -> None:
    """Nothing ends a thread from outside, so the app does not wait for it."""
    gate = clock.gate()

    @job(AT_ONCE)
    def stubborn(ctx: JobContext) -> None:
        gate.wait()  # and never looks at `ctx.stopping`

    assert await seconds_to_end(clock, stubborn) == 6
    assert "cron: stubborn run 1 does not end; it is left behind" in caplog.messages
    gate.open()
    await clock.settle()


async def test_a_run_that_a_shutdown_cuts_short_is_interrupted(clock: FakeClock) -> None:
    """Cancelled, or asked by `ctx.stopping` and ended by itself. That is no failure, and the job
    does not wait for its next due time: it runs again as soon as the app does."""

    @job(AT_ONCE)
    async def polite(ctx: JobContext) -> str:
        while not ctx.stopping:
            await ctx.clock.sleep(1)
        return "half done"

    store = MemoryStore(clock)
    for runs in (1, 2):
        async with running(cron_app(careful, polite, clock=clock, store=store), clock):
            pass
        for name, note in (("careful", ""), ("polite", "half done")):
            history = await store.history(name)
            assert [run.outcome for run in history] == ["interrupted"] * runs
            assert history[-1].note == note


@pytest.mark.parametrize(
    ("asks", "outcome"), [("never", "ok"), ("before", "ok"), ("after", "interrupted")]
)
async def test_a_run_that_ends_within_the_grace_is_interrupted_only_if_it_saw_the_stop(
    clock: FakeClock, asks: str, outcome: str
) -> None:
    """Who has read `ctx.stopping` as true may have left something undone."""

    @job(AT_ONCE)
    async def brief(ctx: JobContext) -> None:
        if asks == "before":
            assert not ctx.stopping
        await ctx.clock.sleep(4)
        if asks == "after":
            assert ctx.stopping

    store = MemoryStore(clock)
    async with running(cron_app(brief, clock=clock, store=store), clock):
        pass
    assert [run.outcome for run in await store.history("brief")] == [outcome]


async def test_a_run_that_is_claimed_as_the_shutdown_begins_is_stopped(
    clock: FakeClock, caplog: Log
) -> None:
    """Its body begins all the same, and is cancelled and awaited like any other."""
    async with cron_app(careful, clock=clock).router.lifespan_context(FastAPI()):
        await asyncio.sleep(0)  # the scheduler makes the job's task, which has not begun
        passing = asyncio.create_task(clock.advance(seconds=6))  # while the lifespan ends
    await passing
    assert "careful run 1: clean" in caplog.text


async def test_a_second_cancel_does_not_cut_it_short(clock: FakeClock, caplog: Log) -> None:
    """Whoever ends the app twice, as by a second Ctrl-C, still has all jobs awaited."""

    async def serve(app: FastAPI) -> None:
        async with app.router.lifespan_context(app):
            await clock.sleep(60)

    server = asyncio.create_task(serve(cron_app(careful, clock=clock)))
    for _ in range(2):
        await clock.advance(seconds=1)
        server.cancel()
    with pytest.raises(asyncio.CancelledError):
        await clock.run(server)
    assert "careful run 1: clean" in caplog.text


@pytest.mark.parametrize("started", [True, False])
async def test_jobs_are_stopped_when_the_app_fails(
    clock: FakeClock, caplog: Log, started: bool
) -> None:
    """In its body or half-way through its start: they end as ever, and the error is not hidden."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with cron_app(careful, clock=clock).router.lifespan_context(app):
            await asyncio.sleep(0)  # the job begins
            if started:
                yield
            raise ValueError("of the app")

    with pytest.raises(ValueError, match="of the app"):
        async with running(FastAPI(lifespan=lifespan), clock):
            pass
    assert "careful run 1: clean" in caplog.text
