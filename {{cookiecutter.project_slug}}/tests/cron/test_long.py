"""Long times in memory: a year of one job, a month of a hundred. `make test-long` runs them."""

import time
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from app.cron import JobContext, every, job
from support import FakeClock, cron_app, running

pytestmark = pytest.mark.long


def told(starts: int, began: float, capsys: pytest.CaptureFixture[str]) -> None:
    """Say how fast that was."""
    seconds = time.perf_counter() - began
    with capsys.disabled():
        print(f"\n{starts:,} runs in {seconds:.0f} s: {starts / seconds:,.0f} a second")


def noting(starts: list[float], minutes: float, name: str) -> Any:
    """A job that notes when it starts."""

    @job(every(minutes=minutes), name=name)
    async def body(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())

    return body


async def test_a_year_of_one_job(clock: FakeClock, capsys: pytest.CaptureFixture[str]) -> None:
    """Each gap is within its bounds, and their mean is the interval to a tenth of a percent."""
    starts, began = list[float](), time.perf_counter()
    async with running(cron_app(noting(starts, 5, "one"), clock=clock), clock):
        await clock.advance(days=365)
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    assert 210 <= min(gaps) < 211
    assert 389 < max(gaps) <= 390
    assert sum(gaps) / len(gaps) == pytest.approx(300, rel=0.001)
    told(len(starts), began, capsys)


async def test_a_month_of_a_hundred_jobs(
    clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """None is forgotten, none comes early, and none is held up by the others."""
    starts: dict[int, list[float]] = {number: [] for number in range(100)}
    jobs = [noting(starts[number], 30 + number, f"job-{number}") for number in starts]
    began = time.perf_counter()
    async with running(cron_app(*jobs, clock=clock), clock):
        await clock.advance(days=30)
    for number, mine in starts.items():
        interval = timedelta(minutes=30 + number).total_seconds()
        gaps = [later - earlier for earlier, later in pairwise(mine)]
        assert 0.7 * interval - 1e-3 <= min(gaps)
        assert max(gaps) <= 1.3 * interval + 1e-3
        assert timedelta(days=30).total_seconds() - mine[-1] <= 1.3 * interval
    told(sum(map(len, starts.values())), began, capsys)
