"""Leases: a run holds its job while it is renewed in time, and is stopped when it is not."""

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import URL, Connection, text

from app.cron import JobContext, every, job
from app.cron.database import Database
from app.cron.fence import WriteTooLong
from app.cron.leases import Leases
from app.cron.memory_store import MemoryStore
from app.cron.schedule import Schedule
from app.cron.store import StoreUnavailable
from support import FakeClock, replica
from support.databases import query
from support.stores import sql_store

Log = pytest.LogCaptureFixture
Function = Callable[..., Any]
HOURLY = every(hours=1, jitter=0)


def endless(ends: list[float], name: str = "endless", schedule: Schedule = HOURLY) -> Function:
    """A job that does not end by itself, and notes when it is stopped."""

    @job(schedule, name=name, timeout=None)
    async def body(ctx: JobContext) -> None:
        try:
            await ctx.clock.sleep(100_000)
        finally:
            ends.append(ctx.clock.monotonic())

    return body


def change(url: URL, assignment: str) -> None:
    """Change the jobs' rows behind the back of all processes."""
    query(url, f"UPDATE cron_job SET {assignment}")  # noqa: S608 -- our own words


# Renewing


@pytest.mark.parametrize(
    ("lease", "seconds"), [(30, [10, 20, 30, 40]), (60, [20, 40]), (40, [40 / 3, 80 / 3, 40])]
)
async def test_a_lease_is_renewed_every_third_of_it(
    clock: FakeClock, url: URL, lease: float, seconds: list[float]
) -> None:
    """So that one heartbeat may fail."""
    async with replica(clock, url, endless([]), lease=timedelta(seconds=lease)) as one:
        await clock.advance(seconds=45)
        assert one.store.times("heartbeat") == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (StoreUnavailable("the disk is full"), "cron: no heartbeat: the disk is full"),
        (ValueError("a mistake"), "cron: the leases cannot be renewed"),
    ],
    ids=["outage", "mistake"],
)
async def test_each_heartbeat_that_fails_is_told_and_no_more(
    clock: FakeClock, url: URL, caplog: Log, error: Exception, line: str
) -> None:
    """Of an outage, which the driver tells, only who wants to know all hears."""
    caplog.set_level(logging.DEBUG, "app.cron.leases")
    async with replica(clock, url, endless([])) as one:
        one.store.fails, one.store.error = {"heartbeat"}, error
        await clock.advance(seconds=21)
    assert caplog.messages.count(line) == 2
    assert "never retrieved" not in caplog.text


async def test_after_the_stop_nobody_looks_after_leases(
    clock: FakeClock, database: Database
) -> None:
    """The task has ended, and is not only told to."""
    leases = Leases(sql_store(database, clock), clock, list)
    leases.start()
    await clock.settle()
    assert not leases.dead()
    await leases.stop()
    assert leases.dead()


async def test_where_there_are_no_leases_nobody_looks_after_them(clock: FakeClock) -> None:
    """Jobs that each process runs for itself have none."""
    tasks = asyncio.all_tasks()
    Leases(MemoryStore(clock), clock, list).start()
    assert asyncio.all_tasks() == tasks


async def test_what_has_ended_is_not_renewed(clock: FakeClock, url: URL) -> None:
    """Nor is there a heartbeat while nothing runs; with the next run it begins again."""

    @job(every(seconds=100, jitter=0))
    async def short(ctx: JobContext) -> None:
        await ctx.clock.sleep(15)

    async with replica(clock, url, short) as one:
        await clock.advance(seconds=199)
        assert one.store.times("heartbeat") == [10, 110]


async def test_all_runs_are_renewed_together(clock: FakeClock, url: URL) -> None:
    """In one transaction, however many there are; one that begins later waits for the next."""

    @job(every(seconds=5, jitter=0), timeout=None)
    async def later(ctx: JobContext) -> None:
        if ctx.run_no == 2:
            await ctx.clock.sleep(100_000)

    ends = list[float]()
    async with replica(clock, url, endless(ends, "a"), endless(ends, "b"), later) as one:
        await clock.advance(seconds=100)
        assert one.store.times("heartbeat") == [10 * number for number in range(1, 11)]
        assert ends == []


async def test_renewal_recovers_from_an_error(clock: FakeClock, url: URL) -> None:
    """Every other heartbeat fails, the next comes in time: the run goes on.

    After docket, test_redelivery.py, test_lease_renewal_recovers_from_redis_error.
    """
    ends = list[float]()
    async with replica(clock, url, endless(ends)) as one:
        for _ in range(3):
            one.store.fails = {"heartbeat"}
            await clock.advance(seconds=10)
            one.store.fails = ()
            await clock.advance(seconds=10)
        assert len(one.store.times("heartbeat")) == 6
        assert ends == []


# Trust


@pytest.mark.parametrize(("lease", "good", "end"), [(30, 0, 25), (30, 20, 45), (60, 0, 50)])
async def test_a_run_is_stopped_when_failed_heartbeats_have_exhausted_the_trust(
    clock: FakeClock, url: URL, caplog: Log, lease: float, good: float, end: float
) -> None:
    """Five sixths of a lease after the last good request, and not before.

    After River, elector_test.go, ResignsCurrentTermAfterReelectErrorsExhaustTrust.
    """
    ends = list[float]()
    async with replica(clock, url, endless(ends), lease=timedelta(seconds=lease)) as one:
        await clock.advance(seconds=good)
        one.store.fails = {"heartbeat"}
        await clock.advance(seconds=end - good - 0.001)
        assert ends == []
        await clock.advance(seconds=0.001)
        assert ends == [end]
        [run] = await one.store.history("endless")
        assert run.outcome == "error"
        assert run.error == "LeaseLost: it could not be renewed in time"
        lost = "its lease is lost, it is stopped: it could not be renewed in time"
        assert f"endless run 1: {lost}" in caplog.messages
        assert "CancelledError" not in caplog.text  # that is no news


@pytest.mark.parametrize("part", ["seconds_before", "seconds_after"])
async def test_a_slow_heartbeat_does_not_extend_the_trust(
    clock: FakeClock, url: URL, part: str
) -> None:
    """Sent at 10 and answered at 24, it is trusted until 35. The next one, sent at 30, is too slow.

    After River, elector_test.go, SlowSuccessfulReelectDoesNotExtendTrustWindow.
    """
    ends = list[float]()
    async with replica(clock, url, endless(ends)) as one:
        getattr(one.store, part)["heartbeat"] = 14
        await clock.advance(seconds=34.999)
        assert ends == []
        await clock.advance(seconds=0.001)
        assert ends == [35]


async def test_a_slow_claim_does_not_extend_the_trust(clock: FakeClock, url: URL) -> None:
    """Sent at 5, it waits until 10 for the database: the trust ends at 30, not at 35."""
    ends = list[float]()
    subject = endless(ends, schedule=every(hours=1))
    async with replica(clock, url, subject) as one:
        one.store.fails = {"heartbeat"}
        one.store.seconds_before["claim"] = 5
        await clock.advance(seconds=29.999)
        assert ends == []
        await clock.advance(seconds=0.001)
        assert ends == [30]


async def test_a_heartbeat_that_hangs_hides_nothing(clock: FakeClock, url: URL) -> None:
    """The run is stopped in time though no answer ever comes, and no other one is asked for."""
    ends = list[float]()
    async with replica(clock, url, endless(ends)) as one:
        one.store.seconds_before["heartbeat"] = 10_000
        await clock.advance(seconds=29)
        assert ends == [25]
        assert one.store.times("heartbeat") == [10]


async def test_a_mistake_in_a_heartbeat_is_told(clock: FakeClock, url: URL, caplog: Log) -> None:
    """It does not end the keeping of leases: the next one is in time."""
    ends = list[float]()
    async with replica(clock, url, endless(ends)) as one:
        one.store.error, one.store.fails = TypeError("a mistake"), {"heartbeat"}
        await clock.advance(seconds=10)
        one.store.fails = ()
        await clock.advance(seconds=50)
        assert ends == []
        assert caplog.messages.count("cron: the leases cannot be renewed") == 1
        assert one.scheduler.problem() is None


# Losing


TAKEN = {
    "by another process": "owner = 'another'",
    "by the same one, for a later run": "run_no = run_no + 1",
    "by nobody, it has run out": "lease_until = 0",
}


@pytest.mark.parametrize("assignment", TAKEN.values(), ids=TAKEN)
async def test_a_run_whose_lease_is_gone_is_stopped(
    clock: FakeClock, url: URL, caplog: Log, assignment: str
) -> None:
    """With the next heartbeat. The owner alone does not make it hold.

    After River, elector_test.go, LosesLeadershipWhenSameLeaderIDTermIsReplaced.
    """
    ends = list[float]()
    async with replica(clock, url, endless(ends)):
        await clock.advance(seconds=5)
        change(url, assignment)
        await clock.advance(seconds=5)
        assert ends == [10]
        lost = "its lease is lost, it is stopped: it had run out, or another process has the job"
        assert f"endless run 1: {lost}" in caplog.messages


async def test_a_lost_lease_touches_no_other_run(clock: FakeClock, url: URL) -> None:
    """Each run has its own."""
    lost, kept = list[float](), list[float]()
    async with replica(clock, url, endless(lost, "lost"), endless(kept, "kept")):
        change(url, "owner = 'another' WHERE name = 'lost'")
        await clock.advance(minutes=1)
        assert (lost, kept) == ([10], [])


async def test_a_run_that_ends_as_its_lease_is_lost_is_not_ok(clock: FakeClock, url: URL) -> None:
    """Whatever it returns: another one may have begun."""

    @job(HOURLY, timeout=None)
    async def returns(ctx: JobContext) -> str:
        with suppress(asyncio.CancelledError):
            await ctx.clock.sleep(100)
        return "all is well"

    async with replica(clock, url, returns) as one:
        one.store.fails = {"heartbeat"}
        await clock.advance(seconds=25)
        [run] = await one.store.history("returns")
        assert (run.outcome, run.note) == ("error", "all is well")


async def test_what_a_body_raises_as_its_lease_is_lost_is_in_the_log(
    clock: FakeClock, url: URL, caplog: Log
) -> None:
    """As the cause, with its traceback."""

    @job(HOURLY, timeout=None)
    async def raises(ctx: JobContext) -> None:
        try:
            await ctx.clock.sleep(100)
        finally:
            raise ValueError("while it cleaned up")

    async with replica(clock, url, raises) as one:
        one.store.fails = {"heartbeat"}
        await clock.advance(seconds=25)
        assert "ValueError: while it cleaned up" in caplog.text


async def test_a_thread_whose_lease_is_lost_is_asked_to_stop(clock: FakeClock, url: URL) -> None:
    """It cannot be cancelled; `ctx.stopping` turns true. Its outcome is an error all the same."""
    gate, stopping = clock.gate(), list[bool]()

    @job(HOURLY, timeout=None)
    def threaded(ctx: JobContext) -> None:
        gate.wait()
        stopping.append(ctx.stopping)

    async with replica(clock, url, threaded) as one:
        one.store.fails = {"heartbeat"}
        await clock.advance(seconds=25)
        gate.open()
        await clock.settle()
        assert stopping == [True]
        [run] = await one.store.history("threaded")
        assert run.outcome == "error"


# Runs that do not end


@pytest.mark.parametrize("threaded", [True, False])
async def test_a_run_that_ignores_its_timeout_keeps_its_lease(
    clock: FakeClock, url: URL, threaded: bool
) -> None:
    """A thread, or a task that swallows its cancel: until it has really ended it is renewed, and
    nobody runs the job."""
    gate, begun = clock.gate(), list[int]()

    @job(every(minutes=1, jitter=0), name="deaf")
    def in_thread(ctx: JobContext) -> None:
        begun.append(ctx.run_no)
        gate.wait()

    @job(every(minutes=1, jitter=0), name="deaf")
    async def on_loop(ctx: JobContext) -> None:
        begun.append(ctx.run_no)
        while ctx.clock.monotonic() < 300:
            with suppress(asyncio.CancelledError):
                await ctx.clock.sleep(300 - ctx.clock.monotonic())

    deaf = in_thread if threaded else on_loop
    async with replica(clock, url, deaf) as one, replica(clock, url, deaf) as two:
        await clock.advance(seconds=299)
        assert begun == [1]
        assert len(one.store.times("heartbeat") + two.store.times("heartbeat")) == 29
        gate.open()
        await clock.advance(seconds=1)
        [run] = await one.store.history("deaf")
        assert run.outcome == "timeout"


# Writes that keep a heartbeat from its turn


async def test_a_write_that_takes_too_long_is_named(
    clock: FakeClock, url: URL, caplog: Log
) -> None:
    """While it lasts, no process can write: somebody should know which job it is. It is refused."""
    gate, errors = clock.gate(), list[str]()

    def write(connection: Connection) -> None:
        connection.execute(text("CREATE TABLE mine (x INTEGER)"))
        gate.wait()

    @job(HOURLY, timeout=None)
    async def slow(ctx: JobContext) -> None:
        try:
            await ctx.write(write)
        except WriteTooLong as error:
            errors.append(str(error))

    async with replica(clock, url, slow) as one:
        one.store.seconds_before["heartbeat"] = 1_000  # as if it waited for its turn
        await clock.advance(seconds=24)
        told = [line for line in caplog.messages if "it has kept a transaction open" in line]
        too_long = "for 10 s, which is too long: it will not be committed"
        assert told == [f"slow run 1: it has kept a transaction open {too_long}"]
        gate.open()
        await clock.settle()
    [error] = errors
    assert error.startswith("slow run 1 wrote for 24.0 s in one transaction: ")


# The end


@pytest.mark.parametrize("part", ["seconds_before", "seconds_after"])
@pytest.mark.parametrize("seconds", [0, 10, 12])
async def test_nothing_is_left_of_the_keeping(
    clock: FakeClock, url: URL, part: str, seconds: float
) -> None:
    """No task and no thread, also when the app ends in the middle of a renewal."""
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())

    async with replica(clock, url, endless([])) as one:
        getattr(one.store, part)["heartbeat"] = 100
        await clock.advance(seconds=seconds)
    assert asyncio.all_tasks() == tasks
    for thread in set(threading.enumerate()) - threads:
        thread.join(timeout=30)
        assert not thread.is_alive()


async def test_the_end_of_the_keeping_is_waited_for(clock: FakeClock, url: URL) -> None:
    """What was cancelled has ended when the app has, not a turn of the loop later."""
    tasks = asyncio.all_tasks()

    @job(HOURLY)
    async def short(ctx: JobContext) -> None:
        await ctx.clock.sleep(11)

    async with replica(clock, url, short) as one:
        one.store.seconds_before["heartbeat"] = 100
        await clock.advance(seconds=12)
        await one.scheduler.stop()
        assert asyncio.all_tasks() == tasks
