"""A database that is away: told once, asked ever less often, and nothing is lost or done twice."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import URL

from app.cron import JobContext, every, job
from app.cron.schedule import Schedule
from app.cron.store import StoreUnavailable
from support import OPERATIONS, FakeClock, fixed, replica

Log = pytest.LogCaptureFixture
Function = Callable[..., Any]
MINUTELY = every(minutes=1, jitter=0)


def tick(starts: list[float], schedule: Schedule = MINUTELY, seconds: float = 0) -> Function:
    """A job that takes so long, and notes when it begins."""

    @job(schedule, name="tick", timeout=None)
    async def body(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())
        await ctx.clock.sleep(seconds)

    return body


# Asking again


async def test_the_rest_between_two_tries_doubles_up_to_half_a_minute(
    clock: FakeClock, url: URL
) -> None:
    """In the next outage it begins with a second again."""
    async with replica(clock, url) as one:
        for _ in range(2):
            one.store.fails = OPERATIONS
            one.store.asked.clear()
            await clock.advance(seconds=140)
            tries = one.store.times("look") + one.store.times("register")
            rests = [later - earlier for earlier, later in pairwise(tries)]
            assert rests[:7] == [1, 2, 4, 8, 16, 30, 30]
            one.store.fails = ()
            await clock.advance(seconds=40)


async def test_who_waits_long_for_an_answer_and_then_rests_is_not_late(
    clock: FakeClock, url: URL
) -> None:
    """Writes of others may have waited before, 5 s each for a lock; half a minute follows."""
    async with replica(clock, url) as one:
        one.store.fails = OPERATIONS
        one.store.seconds_before["register"] = 20
        for _ in range(60):
            await clock.advance(seconds=5)
            assert one.scheduler.problem() is None


async def test_a_database_that_is_away_at_the_start_is_waited_for(
    clock: FakeClock, url: URL, caplog: Log
) -> None:
    """The app starts without it, and the jobs when it is there."""
    starts = list[float]()
    await clock.advance(seconds=5)  # so that its time does not begin at 0
    async with replica(clock, url, tick(starts), fails=OPERATIONS) as one:
        await clock.advance(seconds=14)
        assert one.store.times("register") == [5, 6, 8, 12]
        one.store.fails = ()
        await clock.advance(seconds=61)
    assert starts == [20, 80]
    assert "cron: the database is back after 15 s" in caplog.messages


async def test_a_process_that_starts_nothing_sees_that_the_database_is_back(
    clock: FakeClock, url: URL
) -> None:
    """Though it was away from the start, and a job is overdue, it need not claim to know."""
    async with replica(clock, url, tick([]), claims=False, fails=OPERATIONS) as one:
        one.store.fails = ()
        await clock.advance(minutes=10)
        assert one.scheduler.outage() is None


async def test_each_change_is_a_line_of_log(clock: FakeClock, url: URL, caplog: Log) -> None:
    """However often it is asked meanwhile, and whatever has failed."""
    async with replica(clock, url, tick([], seconds=100_000)) as one:
        for _ in range(2):
            one.store.fails = OPERATIONS
            await clock.advance(minutes=10)
            one.store.fails = ()
            await clock.advance(minutes=1)
    away = "cron: the database is away, no job starts until it is back: the disk is full"
    told = [line for line in caplog.messages if "the database is" in line]
    assert told[0::2] == [away] * 2
    assert [line[:29] for line in told[1::2]] == ["cron: the database is back af"] * 2


async def test_an_outage_is_shown_for_as_long_as_it_lasts(clock: FakeClock, url: URL) -> None:
    """Since when, and why. The driver itself is well."""
    async with replica(clock, url) as one:
        assert one.scheduler.outage() is None
        one.store.fails = OPERATIONS
        await clock.advance(seconds=115)
        assert one.scheduler.outage() == "the database is away for 100 s: the disk is full"
        assert one.scheduler.problem() is None
        one.store.fails = ()
        await clock.advance(seconds=30)
        assert one.scheduler.outage() is None


@pytest.mark.parametrize("paused", [True, False])
async def test_an_outage_that_only_claims_meet_is_one_too(
    clock: FakeClock, url: URL, caplog: Log, *, paused: bool
) -> None:
    """A full disk lets all looks pass. It is over when a claim is made, or none is wanted."""
    starts = list[float]()
    subject = tick(starts, every(minutes=1))
    async with replica(clock, url, subject, fails={"claim"}) as one:
        await clock.advance(seconds=275)
        assert one.scheduler.outage() == "the database is away for 270 s: the disk is full"
        if paused:
            await one.store.pause("tick")
        else:
            one.store.fails = ()
        await clock.advance(seconds=60)
        assert one.scheduler.outage() is None
        told = [line[:26] for line in caplog.messages if "the database is" in line]
        assert told == ["cron: the database is away", "cron: the database is back"]
        assert bool(starts) != paused


# What goes on, and what is done afterwards


async def test_runs_go_on_and_their_ends_are_recorded_afterwards(
    clock: FakeClock, url: URL
) -> None:
    """A lease outlasts a short outage. Until the end is recorded, the job is not run again."""
    starts = list[float]()
    async with replica(clock, url, tick(starts, seconds=20)) as one:
        await clock.advance(seconds=11)
        one.store.fails = OPERATIONS
        await clock.advance(seconds=12)
        [run] = await one.store.history("tick")
        assert (run.outcome, clock.monotonic()) == (None, 23)
        one.store.fails = ()
        await clock.advance(seconds=40)
        runs = await one.store.history("tick")
        assert [run.outcome for run in runs] == ["ok", None]
        assert starts == [0, 60]


@pytest.mark.parametrize(("draw", "seconds"), [(0, 0), (0.5, 5), (1, 10)])
async def test_what_fell_due_during_an_outage_runs_once_and_spread(
    clock: FakeClock, url: URL, draw: float, seconds: float
) -> None:
    """All processes find the database back at about the same time: they do not work all at once.
    A look every 15 s does not delay it again."""
    starts = list[float]()
    subject = tick(starts, every(minutes=1, jitter=0.5))
    async with replica(clock, url, subject, random=fixed(0)) as one:
        one.store.fails = OPERATIONS
        await clock.advance(seconds=300)
    starts.clear()
    async with replica(clock, url, subject, random=fixed(draw), fails=OPERATIONS) as two:
        await clock.advance(seconds=3)
        two.store.fails = ()
        begun = 300 + 7
        await clock.advance(seconds=24)
    assert starts == [begun + seconds]


async def test_a_run_that_was_requested_is_not_spread_after_an_outage(
    clock: FakeClock, url: URL
) -> None:
    """Somebody waits for it."""
    starts = list[float]()
    subject = tick(starts, every(minutes=1, jitter=0.5))
    async with replica(clock, url, subject, random=fixed(1)) as one:
        await clock.advance(seconds=10)
        one.store.fails = OPERATIONS - {"request"}
        await one.store.request("tick")
        await clock.advance(minutes=2)
        one.store.fails = ()
        await clock.advance(minutes=1)
    back = next(when for when in one.store.times("register") if when >= 130)
    assert starts[:2] == [10, back]


async def test_an_outage_does_not_reach_what_each_process_runs_for_itself(
    clock: FakeClock, url: URL
) -> None:
    """That is kept in memory."""
    starts = list[float]()

    @job(MINUTELY, each_process=True)
    async def own(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())

    async with replica(clock, url, own, tick([]), fails=OPERATIONS):
        await clock.advance(minutes=3)
    assert starts == [0, 60, 120, 180]


# Answers that are errors


@pytest.mark.parametrize(("interval", "again"), [(10, 30), (100, 100)])
async def test_a_claim_whose_answer_is_lost_is_not_run(
    clock: FakeClock, url: URL, interval: float, again: float
) -> None:
    """It may have been made, or not. Here it was: the run reads abandoned, and the job runs again
    when it is due and the lease is over."""
    starts = list[float]()
    subject = tick(starts, every(seconds=interval, jitter=0))
    async with replica(clock, url, subject, loses={"claim"}) as one:
        one.store.loses = ()
        await clock.advance(seconds=again)
        runs = await one.store.history("tick")
        assert starts == [again]
        assert [(run.run_no, run.outcome) for run in runs] == [(1, "abandoned"), (2, "ok")]


async def test_a_claim_that_fails_changes_nothing(clock: FakeClock, url: URL) -> None:
    """The job is as due as before, and its first run is number 1."""
    starts = list[float]()
    async with replica(clock, url, tick(starts), fails={"claim"}) as one:
        await clock.advance(seconds=0.5)
        assert await one.store.history("tick") == []
        one.store.fails = ()
        await clock.advance(seconds=1)
        [run] = await one.store.history("tick")
        assert (run.run_no, run.outcome, run.due_at, starts) == (
            (1, "ok", run.started_at - timedelta(seconds=1), [1])
        )


async def test_an_end_that_comes_too_late_is_not_told_as_recorded(
    clock: FakeClock, url: URL, caplog: Log
) -> None:
    """During the outage of one process, another has run the job. The log says what the history
    does, and so is told who waits for the run."""
    subject = tick([], seconds=10)
    async with replica(clock, url, subject, claims=False) as one:
        one.store.fails = {"finish", "heartbeat"}
        asked = asyncio.create_task(one.scheduler.run("tick"))
        await clock.advance(seconds=35)
        async with replica(clock, url, subject, claims=False) as two:
            await clock.run(two.scheduler.run("tick"))
        one.store.fails = ()
        with pytest.raises(StoreUnavailable, match="how the run ended is not recorded"):
            await clock.run(asked)
        *_, first, second = await one.store.history("tick")
        assert (first.outcome, second.outcome) == ("abandoned", "ok")
    lost = "it was not the last run any more: it counts as abandoned"
    assert f"tick run 1: ok, but {lost}" in caplog.messages


async def test_a_claim_that_failed_is_forgotten_when_nothing_is_due_here(
    clock: FakeClock, url: URL
) -> None:
    """The job is overdue, but another process runs it: the database is back all the same."""
    subject = tick([], seconds=600)
    async with replica(clock, url, subject, fails={"claim"}) as one:
        await clock.advance(seconds=1)
        assert one.scheduler.outage()
        async with replica(clock, url, subject):
            await clock.advance(seconds=100)
            one.store.fails = ()
            await clock.advance(seconds=100)
            assert not one.scheduler.outage()


async def test_an_end_whose_answer_is_lost_counts_once(clock: FakeClock, url: URL) -> None:
    """It is recorded again, which changes nothing, and no run is made twice."""
    starts = list[float]()
    async with replica(clock, url, tick(starts), loses={"finish"}) as one:
        await clock.advance(seconds=5)
        one.store.loses = ()
        await clock.advance(seconds=60)
        [record] = await one.store.jobs()
        assert starts == [0, 60]
        assert (record.run_no, record.counts["ok"]) == (2, 2)


@pytest.mark.parametrize("kind", ["fails", "loses"])
@pytest.mark.parametrize("operation", sorted(OPERATIONS))
async def test_whatever_fails_no_run_is_lost_or_made_twice(
    clock: FakeClock, url: URL, operation: str, kind: str
) -> None:
    """One of the store's operations is broken for a minute, in both processes. Each body has a
    run, no two are nearer than the interval, and then all is as before."""
    starts = list[float]()
    schedule = every(seconds=20, jitter=0)
    subject = tick(starts, schedule, seconds=12)
    async with replica(clock, url, subject) as one, replica(clock, url, subject) as two:
        for each in (one, two):
            setattr(each.store, kind, {operation})
        await clock.advance(seconds=65)
        for each in (one, two):
            setattr(each.store, kind, ())
        await clock.advance(seconds=95)
        runs = await one.store.history("tick")
    began = [run for run in runs if run.outcome != "abandoned" or operation != "claim"]
    assert len(began) == len(starts)
    assert min(later - earlier for earlier, later in pairwise(starts)) >= 20
    assert [later - earlier for earlier, later in pairwise(starts[-3:])] == [20, 20]


async def test_an_outage_is_over_before_what_is_overdue_has_run(clock: FakeClock, url: URL) -> None:
    """That begins spread out; no claim of it has failed."""
    starts = list[float]()
    subject = tick(starts, every(minutes=1, jitter=0.2))
    async with replica(clock, url, subject, random=fixed(1)) as one:
        await clock.advance(seconds=30)
        one.store.fails = OPERATIONS
        await clock.advance(minutes=5)
        one.store.fails = ()
        before = len(starts)
        while one.scheduler.outage() is not None:
            await clock.advance(seconds=0.5)
        assert len(starts) == before
        await clock.advance(seconds=30)
        assert len(starts) == before + 1


# The end


async def test_an_outage_does_not_delay_the_end(clock: FakeClock, url: URL, caplog: Log) -> None:
    """The rest before the next try is cut short. What could not be recorded is in the log."""
    async with replica(clock, url, tick([], seconds=20)) as one:
        await clock.advance(seconds=11)
        one.store.fails = OPERATIONS
        await clock.advance(seconds=10)
        began = clock.monotonic()
        await one.stop()
        assert clock.monotonic() == began
    assert "tick run 1: ok, which is not recorded" in caplog.messages
    assert "cron: the database is not told of the end: the disk is full" in caplog.messages


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
@pytest.mark.parametrize("part", ["seconds_before", "seconds_after"])
async def test_a_store_that_hangs_does_not_hold_the_end(
    clock: FakeClock, url: URL, operation: str, part: str
) -> None:
    """5 s of grace, and one for the store to hear of it, where it must. No task is left."""
    tasks = asyncio.all_tasks()
    async with replica(clock, url, tick([], seconds=50), tick_too([])) as one:
        getattr(one.store, part)[operation] = 10_000
        await clock.advance(seconds=45)
        began = clock.monotonic()
        await one.stop()
        hears_of_it = operation in ("finish", "check_out")
        assert clock.monotonic() == began + (6 if hears_of_it else 5)
    assert asyncio.all_tasks() == tasks


async def test_a_store_that_hangs_keeps_no_job_from_hearing_of_the_end(
    clock: FakeClock, url: URL
) -> None:
    """It is asked to stop at once, not when the store has answered."""
    heard = list[float]()

    @job(every(hours=1, jitter=0))
    async def careful(ctx: JobContext) -> None:
        while not ctx.stopping:
            await ctx.clock.sleep(1)
        heard.append(ctx.clock.monotonic())

    async with replica(clock, url, careful) as one:
        one.store.seconds_before["look"] = 10_000
        await clock.advance(seconds=20.5)
        await one.stop()
    assert heard == [21]


async def test_a_claim_that_hangs_keeps_no_job_from_being_cancelled(
    clock: FakeClock, url: URL
) -> None:
    """Somebody has asked for another one: that is waited for, and in vain."""
    ends = list[float]()

    @job(every(hours=1, jitter=0), timeout=None)
    async def slow(ctx: JobContext) -> None:
        try:
            await ctx.clock.sleep(100_000)
        finally:
            ends.append(ctx.clock.monotonic())

    async with replica(clock, url, slow, tick_too([])) as one:
        await clock.advance(seconds=1)
        one.store.seconds_before["claim"] = 10_000
        asked = asyncio.create_task(one.scheduler.run("quick"))
        await clock.settle()
        await one.stop()
        with pytest.raises(StoreUnavailable):
            await asked
    assert ends == [6]


def tick_too(starts: list[float]) -> Function:
    """A quick job beside it."""

    @job(every(seconds=7, jitter=0))
    async def quick(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())

    return quick
