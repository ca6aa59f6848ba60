"""The interval: when a job runs, and when it does not."""

from datetime import timedelta
from itertools import pairwise

import pytest

from app.cron import JobContext, every, job
from app.cron.clock import seeded
from support import FakeClock, cron_app, running

MINUTE = timedelta(minutes=1)


async def test_the_first_run_comes_at_the_start(clock: FakeClock) -> None:
    """A job that has never run does not wait for its interval."""
    runs = []

    @job(every(minutes=5, jitter=0))
    async def tick(ctx: JobContext) -> None:
        runs.append(ctx.clock.now())

    start = clock.now()
    async with running(cron_app(tick, clock=clock), clock):
        assert runs == [start]


async def test_the_second_run_comes_when_the_interval_is_over(clock: FakeClock) -> None:
    """After 299 seconds there is none, after 300 there is one."""
    runs = []

    @job(every(minutes=5, jitter=0))
    async def tick(ctx: JobContext) -> None:
        runs.append(ctx.run_no)

    async with running(cron_app(tick, clock=clock), clock):
        await clock.advance(seconds=299)
        assert runs == [1]
        await clock.advance(seconds=1)
        assert runs == [1, 2]


async def test_an_hour_has_twelve_intervals_of_five_minutes(clock: FakeClock) -> None:
    """The runs of an hour are exactly five minutes apart, the first and the last included."""
    minutes = []

    @job(every(minutes=5, jitter=0))
    async def tick(ctx: JobContext) -> None:
        minutes.append((ctx.clock.now() - start) / MINUTE)

    start = clock.now()
    async with running(cron_app(tick, clock=clock), clock):
        await clock.advance(hours=1)
    assert minutes == list(range(0, 65, 5))


async def test_in_a_week_no_gap_is_out_of_bounds_and_the_mean_is_the_interval(
    clock: FakeClock,
) -> None:
    """A thousand runs: each gap is within 30 % of ten minutes, and their mean within 1 %."""
    starts = []

    @job(every(minutes=10))
    async def tick(ctx: JobContext) -> None:
        starts.append(ctx.clock.now())

    # Each process looks every 15 s what others have changed. Here there are none.
    app = cron_app(tick, clock=clock, random=seeded("one"), look_every=timedelta(hours=1))
    async with running(app, clock):
        await clock.advance(days=7)
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    assert len(gaps) > 1_000
    assert min(gaps) >= 7 * MINUTE
    assert max(gaps) <= 13 * MINUTE
    assert abs(sum(gaps, timedelta()) / len(gaps) - 10 * MINUTE) < 0.1 * MINUTE


async def test_a_slow_job_keeps_its_rhythm(clock: FakeClock) -> None:
    """The interval counts from start to start: what the body takes is not added, as long as it ends
    before it is due again."""
    minutes = []

    @job(every(minutes=5, jitter=0))
    async def slow(ctx: JobContext) -> None:
        minutes.append((ctx.clock.now() - start) / MINUTE)
        await ctx.clock.sleep(240)

    start = clock.now()
    async with running(cron_app(slow, clock=clock), clock):
        await clock.advance(minutes=15)
    assert minutes == [0, 5, 10, 15]


async def test_a_run_longer_than_its_interval_is_not_overlapped(clock: FakeClock) -> None:
    """With `timeout=None` nothing cancels it. What falls due meanwhile is skipped; a full interval
    follows after the end."""
    minutes = []

    @job(every(minutes=5, jitter=0), timeout=None)
    async def slower(ctx: JobContext) -> None:
        minutes.append((ctx.clock.now() - start) / MINUTE)
        await ctx.clock.sleep(12 * 60)

    start = clock.now()
    async with running(cron_app(slower, clock=clock), clock):
        await clock.advance(minutes=40)
    assert minutes == [0, 17, 34]


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_step_of_the_wall_clock_moves_no_run(clock: FakeClock, hours: int) -> None:
    """An hour forwards brings no run nearer and makes up for none; an hour back delays none. So it
    is while the jobs are kept in memory, as here; in a database due times are times on the
    wall: see `test_one_claim`."""
    runs = []

    @job(every(minutes=5, jitter=0))
    async def tick(ctx: JobContext) -> None:
        runs.append(ctx.run_no)

    async with running(cron_app(tick, clock=clock), clock):
        await clock.advance(seconds=100)
        clock.step(hours=hours)
        await clock.advance(seconds=199)
        assert runs == [1]
        await clock.advance(seconds=1)
        assert runs == [1, 2]
