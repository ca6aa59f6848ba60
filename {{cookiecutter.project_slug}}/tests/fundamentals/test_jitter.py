"""Jitter: how far a gap may be from its interval, and what decides it.

Chance is an argument. `Random(seed)` is real, `Fixed(draw)` always draws the same, from 0 to 1; an
app has a source of them, `seeded` or `fixed`, which it asks anew for each run of each job:
`create_app(settings, clock=..., random=seeded("one"))`.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.cron import JobContext, every, job
from app.cron.clock import seeded
from app.cron.due import Fixed
from support import FakeClock, cron_app, fixed, running

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)


@pytest.mark.parametrize(("draw", "seconds"), [(0, 210), (0.5, 300), (1, 390)])
def test_a_gap_is_seven_to_thirteen_tenths_of_the_interval(draw: float, seconds: int) -> None:
    """With the usual jitter of 0.3, draws of 0, 1/2 and 1 give 0.7, 1.0 and 1.3 intervals."""
    gap = every(minutes=5).next(NOW, Fixed(draw)) - NOW
    assert gap == seconds * SECOND


@settings(deadline=None)  # how long an example takes says nothing, on a busy machine
@given(
    microseconds=st.integers(1, 10**14),
    jitter=st.floats(0, 1, exclude_max=True),
    seed=st.integers(),
)
def test_no_gap_is_outside_its_bounds(microseconds: int, jitter: float, seed: int) -> None:
    """Whatever the interval, the jitter and the seed, to the microsecond."""
    schedule = every(seconds=microseconds / 1_000_000, jitter=jitter)
    gap = (schedule.next(NOW, Random(seed)) - NOW) / MICROSECOND
    assert abs(gap - microseconds) <= microseconds * jitter + 1


def test_gaps_are_spread_evenly_between_the_bounds() -> None:
    """They are uniform: 2,000 pass the test of Kolmogorov and Smirnov, as do 95 % of fair draws."""
    random = Random("a fair source")
    gaps = sorted(every(seconds=100).next(NOW, random) - NOW for _ in range(2_000))
    shares = [(gap - 70 * SECOND) / (60 * SECOND) for gap in gaps]
    strays = [max(share - n / 2_000, (n + 1) / 2_000 - share) for n, share in enumerate(shares)]
    assert max(strays) < 1.358 / 2_000**0.5


@pytest.mark.parametrize(
    ("interval", "jitter", "draw", "seconds"),
    [(300, 0.3, 0, 0), (300, 0.3, 0.5, 5), (300, 0.3, 1, 10), (20, 0.3, 1, 6), (20, 0.1, 1, 2)],
)
async def test_with_jitter_the_first_run_waits_a_little(
    clock: FakeClock, interval: float, jitter: float, draw: float, seconds: float
) -> None:
    """Up to 10 seconds, or its jitter times its interval if that is less: jobs and apps that are
    deployed together do not work all at once."""
    starts = list[float]()

    @job(every(seconds=interval, jitter=jitter))
    async def tick(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())

    async with running(cron_app(tick, clock=clock, random=fixed(draw)), clock):
        await clock.advance(seconds=10)
    assert starts == [seconds]


async def starts_of(clock: FakeClock, *others: Callable[..., Any], seed: str) -> list[timedelta]:
    """When a job declared `every(seconds=10)` starts in the first 20 minutes of an app."""
    begin, starts = clock.now(), list[timedelta]()

    @job(every(seconds=10))
    async def subject(ctx: JobContext) -> None:
        starts.append(ctx.clock.now() - begin)

    async with running(cron_app(subject, *others, clock=clock, random=seeded(seed)), clock):
        await clock.advance(minutes=20)
    return starts


async def test_each_gap_is_drawn_anew(clock: FakeClock) -> None:
    """No two of a hundred gaps are the same."""
    starts = await starts_of(clock, seed="one")
    gaps = {later - earlier for earlier, later in pairwise(starts)}
    assert len(gaps) == len(starts) - 1 > 100


async def test_the_same_seed_gives_the_same_times(clock: FakeClock) -> None:
    """What a seed has decided happens again, in another app as in the first."""
    assert await starts_of(clock, seed="one") == await starts_of(clock, seed="one")


async def test_the_same_seed_gives_a_run_the_same_chance(clock: FakeClock) -> None:
    """What a run draws from `ctx.random` it draws again with the same seed; the next draws anew."""
    draws = list[float]()

    @job(every(minutes=1, jitter=0))
    async def draw(ctx: JobContext) -> None:
        draws.append(ctx.random.random())

    for _ in range(2):
        async with running(cron_app(draw, clock=clock, random=seeded("one")), clock):
            await clock.advance(minutes=1)
    assert draws[:2] == draws[2:]
    assert draws[0] != draws[1]


async def test_another_seed_gives_other_times(clock: FakeClock) -> None:
    """Two processes with seeds of their own do not run in step."""
    assert await starts_of(clock, seed="one") != await starts_of(clock, seed="two")


async def test_another_job_changes_nothing(clock: FakeClock) -> None:
    """A job's times follow from the seed and its name: they stay when a job is added beside it, and
    jobs that differ in nothing else do not run in step."""
    times = list[timedelta]()

    @job(every(seconds=10))
    async def neighbour(ctx: JobContext) -> None:
        ctx.random.random()
        times.append(ctx.clock.now() - begin)

    alone = await starts_of(clock, seed="one")
    begin = clock.now()
    assert await starts_of(clock, neighbour, seed="one") == alone
    assert not {*times} & {*alone}
