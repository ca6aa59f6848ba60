"""The scheduler: what its drivers share, what it runs on demand, what it tells, and how it ends."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from functools import partial
from random import Random
from typing import Any

import pytest
from sqlalchemy import URL

from app.cron import JobContext, crontab, every, job
from app.cron.memory_store import MemoryStore
from app.cron.schedule import Every, Schedule
from app.cron.store import Look, StoreUnavailable
from support import (
    OPERATIONS,
    FakeClock,
    Replica,
    cron_app,
    replica,
    running,
    scheduler_of,
)
from support.process import wait_until

Log = pytest.LogCaptureFixture
Function = Callable[..., Any]
AT_ONCE = every(minutes=5, jitter=0)


def tick(
    starts: list[float], schedule: Schedule = AT_ONCE, seconds: float = 0, **options: Any
) -> Function:
    """A job that takes so long, and notes when it begins."""

    @job(schedule, **{"name": "tick", "timeout": None, **options})
    async def body(ctx: JobContext) -> str:
        starts.append(ctx.clock.monotonic())
        await ctx.clock.sleep(seconds)
        return "done"

    return body


async def outcomes(subject: Replica, name: str = "tick") -> list[str | None]:
    """How the runs of the job have ended."""
    return [run.outcome for run in await subject.store.history(name)]


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
        assert "cron: second is due but all threads are busy (CRON_THREADS)" in caplog.messages
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


@pytest.mark.parametrize("first", ["shared", "own"])
async def test_the_threads_are_those_of_all_jobs(
    clock: FakeClock, url: URL, caplog: Log, first: str
) -> None:
    """Of those that each process runs for itself too: one kind waits for a thread of the other, and
    has it as soon as it is free. Only then is it claimed."""
    gate, starts = clock.gate(), list[tuple[str, float]]()

    def body(name: str) -> Function:
        schedule = crontab("* * * * *") if name == first else crontab("1-59 * * * *")

        @job(schedule, name=name, each_process=name == "own", timeout=None)
        def subject(ctx: JobContext) -> None:
            starts.append((name, ctx.clock.monotonic()))
            gate.wait()

        return subject

    clock.step(seconds=-15)  # the first fires at 15 s, the other one 60 s later
    async with replica(clock, url, body("shared"), body("own"), threads=1) as one:
        await clock.advance(seconds=80)
        [second] = {"shared", "own"} - {first}
        assert starts == [(first, 15)]
        assert f"cron: {second} is due but all threads are busy (CRON_THREADS)" in caplog.messages
        gate.open()
        await clock.settle()
        assert starts == [(first, 15), (second, 80)]
        assert len(await outcomes(one, "shared")) == 1


async def test_a_claim_under_way_has_its_thread(clock: FakeClock, url: URL, caplog: Log) -> None:
    """Nothing else is given it meanwhile: a run that was claimed can begin."""
    gate = clock.gate()
    shared = job(AT_ONCE, name="shared")(lambda: gate.wait())
    own = job(AT_ONCE, name="own", each_process=True)(lambda: gate.wait())
    async with replica(clock, url, shared, own, threads=1, seconds_after={"claim": 0.5}):
        assert not caplog.text
        await clock.advance(seconds=0.5)
        assert "cron: own is due but all threads are busy (CRON_THREADS)" in caplog.messages
        gate.open()


async def test_a_thread_that_was_kept_in_vain_goes_to_who_waits_for_it(
    clock: FakeClock, url: URL, caplog: Log
) -> None:
    """The claim was lost to another process. No thread was busy, so nobody says that."""
    begun = list[tuple[str, float]]()

    def subject(name: str, **options: Any) -> Function:
        @job(AT_ONCE, name=name, **options)
        def body(ctx: JobContext) -> None:
            begun.append((name, ctx.clock.monotonic()))

        return body

    async with replica(clock, url, subject("shared"), claims=False) as one:
        await one.store.request("shared")
        jobs = subject("shared"), subject("own", each_process=True)
        async with replica(clock, url, *jobs, threads=1, seconds_before={"claim": 0.5}):
            await clock.run(one.scheduler.run("shared"))
            await clock.advance(seconds=0.5)
            assert begun == [("shared", 0), ("own", 0.5)]
    assert "busy" not in caplog.text


# Jobs of each process


async def test_what_is_declared_so_runs_in_each_process(clock: FakeClock, url: URL) -> None:
    """For itself, and the database knows nothing of it."""
    starts, errors = list[float](), list[Exception]()

    @job(AT_ONCE, each_process=True)
    async def own(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())
        try:
            ctx.write(lambda _: None)
        except RuntimeError as error:
            errors.append(error)

    async with replica(clock, url, own) as one, replica(clock, url, own):
        await clock.advance(minutes=5)
        assert await one.store.jobs() == []
    assert starts == [0, 0, 300, 300]
    assert "kept in memory" in str(errors[0])


# On demand


async def test_without_claims_nothing_starts_by_itself(clock: FakeClock, url: URL) -> None:
    """Nor does the process say that it runs jobs; what it is asked to run, it runs."""
    starts = list[float]()
    own = tick(starts, name="own", each_process=True)
    async with replica(clock, url, tick(starts), own, claims=False) as one:
        await clock.advance(minutes=20)
        assert starts == []
        assert await one.store.processes() == []
        finish = await clock.run(one.scheduler.run("tick"))
        await clock.advance(minutes=20)
        assert finish is not None
        assert (finish.run_no, finish.outcome, finish.note) == (1, "ok", "done")
        assert (starts, await outcomes(one)) == ([1_200], ["ok"])
    assert one.store.times("check_in") == one.store.times("check_out") == []


async def test_what_runs_on_demand_keeps_its_lease(clock: FakeClock, url: URL) -> None:
    """In a process that claims nothing too."""
    async with replica(clock, url, tick([], seconds=95), claims=False) as one:
        finish = await clock.run(one.scheduler.run("tick"))
        assert finish is not None
        assert finish.outcome == "ok"
        assert len(one.store.times("heartbeat")) == 9


async def test_what_runs_elsewhere_is_not_run_on_demand(clock: FakeClock, url: URL) -> None:
    """Nor what runs here. The one who asks is told so at once."""
    starts = list[float]()
    subject = tick(starts, seconds=100)
    async with (
        replica(clock, url, subject) as one,
        replica(clock, url, subject, claims=False) as two,
    ):
        for each in (one, two):
            assert await each.scheduler.run("tick") is None
        await clock.advance(seconds=100)
        assert await clock.run(two.scheduler.run("tick")) is not None
    assert starts == [0, 100]


async def test_what_does_not_end_is_not_run_a_second_time_beside_itself(
    clock: FakeClock, url: URL
) -> None:
    """A thread that goes on though its lease is lost, and over: the store would allow it."""
    gate, begun = clock.gate(), list[int]()

    @job(AT_ONCE, timeout=None)
    def deaf(ctx: JobContext) -> None:
        begun.append(ctx.run_no)
        gate.wait()

    async with replica(clock, url, deaf) as one:
        one.store.fails = {"heartbeat"}
        await clock.advance(minutes=10)
        assert await outcomes(one, "deaf") == ["abandoned"]
        asked = asyncio.create_task(one.scheduler.run("deaf"))
        await clock.settle()
        assert (asked.done(), begun) == (True, [1])
        assert asked.result() is None
        gate.open()


async def test_what_does_not_end_is_not_claimed_a_second_time(clock: FakeClock, url: URL) -> None:
    """A look that was under way when it began has found it due soon, and then its lease is over."""
    gate, begun = clock.gate(), list[int]()

    @job(every(seconds=5), timeout=None)
    def deaf(ctx: JobContext) -> None:
        begun.append(ctx.run_no)
        gate.wait()

    async with replica(clock, url, deaf, lease=timedelta(seconds=6)) as one:
        await one.store.pause("deaf")
        one.store.fails, one.store.seconds_before = {"heartbeat"}, {"look": 1}
        await clock.advance(seconds=15.5)
        asked = asyncio.create_task(one.scheduler.run("deaf", run_no=0))
        await clock.settle()
        await one.store.resume("deaf")
        await clock.advance(seconds=60)
        assert begun == [1]
        assert await outcomes(one, "deaf") == ["abandoned"]
        asked.cancel()
        gate.open()


@pytest.mark.parametrize(("minutes", "runs"), [(4, False), (5, True)])
async def test_what_is_not_forced_runs_if_it_is_due(
    clock: FakeClock, url: URL, minutes: float, *, runs: bool
) -> None:
    """Otherwise nothing happens."""
    subject = tick([])
    async with replica(clock, url, subject):
        pass
    await clock.advance(minutes=minutes)
    async with replica(clock, url, subject, claims=False) as one:
        finish = await one.scheduler.run("tick", forced=False)
        assert (finish is not None) == runs


@pytest.mark.parametrize(("run_no", "runs"), [(1, True), (0, False)])
async def test_what_was_decided_by_an_older_run_is_not_run(
    clock: FakeClock, url: URL, run_no: int, *, runs: bool
) -> None:
    """Another process has run it since it was looked at."""
    subject = tick([])
    async with replica(clock, url, subject):
        pass
    async with replica(clock, url, subject, claims=False) as one:
        finish = await one.scheduler.run("tick", run_no=run_no)
        assert (finish is not None) == runs


async def test_a_run_on_demand_counts_as_the_jobs_last(clock: FakeClock, url: URL) -> None:
    """The next one is a full interval away, here and elsewhere; paused or not, it runs."""
    starts = list[float]()
    subject = tick(starts, every(minutes=1, jitter=0))
    async with replica(clock, url, subject) as one, replica(clock, url, subject) as two:
        await clock.advance(seconds=50)
        await two.scheduler.run("tick")
        await clock.advance(seconds=125)
        await two.store.pause("tick")
        await one.scheduler.run("tick")
    assert starts == [0, 50, 110, 170, 175]


async def test_what_was_run_on_demand_is_not_claimed_when_it_was_due(
    clock: FakeClock, url: URL
) -> None:
    """That would be in vain."""
    async with replica(clock, url, tick([], every(seconds=55, jitter=0))) as one:
        await clock.advance(seconds=50)
        await one.scheduler.run("tick")
        await clock.advance(seconds=60)
        assert one.store.times("claim") == [0, 50, 105]


async def test_a_database_that_is_away_runs_nothing_on_demand(clock: FakeClock, url: URL) -> None:
    """That is an error, and not the answer that it runs elsewhere."""
    async with replica(clock, url, tick([]), claims=False, fails=OPERATIONS) as one:
        with pytest.raises(StoreUnavailable, match="the disk is full"):
            await one.scheduler.run("tick")


async def test_a_run_goes_on_when_nobody_waits_for_it_any_more(clock: FakeClock, url: URL) -> None:
    """Who asked for it has gone while the claim was under way, or later."""
    for seconds in (0.2, 1):
        subject = tick([], seconds=10)
        async with replica(clock, url, subject, claims=False, seconds_after={"claim": 0.5}) as one:
            asked = asyncio.create_task(one.scheduler.run("tick"))
            await clock.advance(seconds=seconds)
            asked.cancel()
            await clock.advance(seconds=15)
            assert asked.cancelled()
            assert set(await outcomes(one)) == {"ok"}


async def test_who_gives_up_waiting_twice_leaves_no_claim_without_a_run(
    clock: FakeClock, url: URL
) -> None:
    """As with Ctrl-C, and again, while the claim is under way."""
    async with replica(clock, url, tick([]), claims=False, seconds_after={"claim": 0.5}) as one:
        asked = asyncio.create_task(one.scheduler.run("tick"))
        await clock.advance(seconds=0.2)
        for _ in range(2):
            asked.cancel()
            await clock.settle()
        assert asked.cancelled()
        await clock.advance(seconds=1)
        assert await outcomes(one) == ["ok"]


async def test_a_run_whose_claim_is_answered_after_the_grace_is_given_back(
    clock: FakeClock, url: URL
) -> None:
    """It begins no more. Who has asked for it is told, and others may have the job at once."""
    async with replica(clock, url, tick([]), claims=False, seconds_after={"claim": 5.5}) as one:
        asked = asyncio.create_task(one.scheduler.run("tick"))
        await clock.settle()
        await one.stop()
        finish = await asked
        assert finish is not None
        assert finish.outcome == "missed"
        assert await outcomes(one) == ["missed"]
        [look] = await one.store.look(["tick"])
        assert look.held_for <= timedelta(0)


async def test_runs_that_were_asked_for_are_not_kept(clock: FakeClock, url: URL) -> None:
    """Or a process would have a task more for each, for as long as it lives."""
    async with replica(clock, url, tick([]), claims=False) as one:
        [driver] = one.scheduler._drivers
        before = len(driver.tasks)
        for _ in range(3):
            assert await clock.run(one.scheduler.run("tick")) is not None
        assert len(driver.tasks) == before


async def test_who_waits_for_a_run_is_told_that_its_end_is_not_recorded(
    clock: FakeClock, url: URL
) -> None:
    """When the app ends without the database, nobody is left waiting."""
    async with replica(clock, url, tick([], seconds=20), claims=False) as one:
        waits = asyncio.create_task(one.scheduler.run("tick"))
        await clock.advance(seconds=1)
        one.store.fails = OPERATIONS
        await one.stop()
        assert waits.done()
        with pytest.raises(StoreUnavailable, match=r"^how the run ended is not recorded$"):
            waits.result()


# What it tells


async def test_eight_threads_run_unless_another_number_is_given(clock: FakeClock) -> None:
    """For all `def` jobs together."""
    gate, begun = clock.gate(), list[int]()

    def body(ctx: JobContext) -> None:
        begun.append(ctx.run_no)
        gate.wait()

    jobs = [job(AT_ONCE, name=f"job-{number}")(partial(body)) for number in range(9)]
    async with running(cron_app(*jobs, clock=clock), clock):
        assert len(begun) == 8
        gate.open()


async def test_no_thread_for_jobs_is_left(clock: FakeClock) -> None:
    """Each has ended soon after the app: a process may have one app after another."""

    @job(AT_ONCE)
    def short() -> None: ...

    before = {*threading.enumerate()}
    async with running(cron_app(short, clock=clock), clock):
        own = [each for each in {*threading.enumerate()} - before if "cron-job" in each.name]
        assert own
    await asyncio.to_thread(wait_until, lambda: not any(thread.is_alive() for thread in own))


async def test_the_end_tells_whom_it_waits_for(clock: FakeClock, caplog: Log) -> None:
    """Once, and by name."""

    async def body(ctx: JobContext) -> None:
        await ctx.clock.sleep(60)

    jobs = [job(AT_ONCE, name=name)(partial(body)) for name in ("two", "one")]
    async with running(cron_app(*jobs, clock=clock), clock):
        pass
    told = [line for line in caplog.messages if "stopping" in line]
    assert told == ["cron: stopping; waiting up to 5 s for one, two"]


async def test_the_end_is_a_task_with_a_name(clock: FakeClock) -> None:
    """As who looks at a process that does not end will see it."""

    @job(AT_ONCE)
    async def slow(ctx: JobContext) -> None:
        await ctx.clock.sleep(4)

    async with scheduler_of(slow, store=MemoryStore(clock), clock=clock) as scheduler:
        await clock.settle()
        stop = asyncio.create_task(scheduler.stop())
        await clock.settle()
        assert "cron stop" in {task.get_name() for task in asyncio.all_tasks()}
        await clock.run(stop)


async def test_a_cancel_during_the_end_is_raised_after_it(clock: FakeClock) -> None:
    """What has cancelled it waits for that, and no run is cut shorter by it."""
    ends = list[float]()

    @job(AT_ONCE)
    async def slow(ctx: JobContext) -> None:
        await ctx.clock.sleep(4)
        ends.append(ctx.clock.monotonic())

    async with scheduler_of(slow, store=MemoryStore(clock), clock=clock) as scheduler:
        await clock.settle()
        stop = asyncio.create_task(scheduler.stop())
        await clock.settle()
        stop.cancel()
        await clock.run(asyncio.wait([stop]))
        assert stop.cancelled()
    assert ends == [4]


async def test_each_wait_for_a_thread_is_logged_once(clock: FakeClock, caplog: Log) -> None:
    """Not again with every run of others that ends meanwhile."""
    gates = [clock.gate(), clock.gate()]

    @job(AT_ONCE, timeout=None)
    def busy(ctx: JobContext) -> None:
        gates[ctx.run_no - 1].wait()

    @job(AT_ONCE)
    def waits() -> None:
        """Finds no thread."""

    @job(every(seconds=1, jitter=0))
    async def often() -> None:
        """Ends all the time."""

    async with running(cron_app(busy, often, waits, clock=clock, threads=1), clock):
        for count, gate in enumerate(gates, 1):
            await clock.advance(minutes=4)
            line = "cron: waits is due but all threads are busy (CRON_THREADS)"
            assert caplog.messages.count(line) == count
            gate.open()
            await clock.advance(minutes=2)


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
        told = [line for line in caplog.messages if "over its timeout" in line]
        late = "is over its timeout and does not end; the job is not run again until it does"
        assert told == [f"cron: stuck run 1 {late}"]
        gate.open()


async def test_the_end_of_a_run_is_logged_with_its_note(clock: FakeClock, caplog: Log) -> None:
    """And with when the next is due."""
    async with running(cron_app(tick([]), clock=clock), clock):
        assert "tick run 1: ok, done; next in 5 min" in caplog.messages


@pytest.mark.parametrize("ending", ["interrupted", "ok, done"])
async def test_an_end_without_a_next_run_says_nothing_of_one(
    clock: FakeClock, url: URL, caplog: Log, ending: str
) -> None:
    """A run that was cut short is due elsewhere, and a job that is paused is not due at all."""
    async with replica(clock, url, tick([], seconds=10)) as one:
        if ending != "interrupted":
            await one.store.pause("tick")
            await clock.advance(seconds=10)
    assert f"tick run 1: {ending}" in caplog.messages


async def test_next_due_names_the_job_and_the_time_until_then(clock: FakeClock) -> None:
    """The first to come of all, whoever keeps it."""
    jobs = (
        tick([], crontab("0 5 * * *"), name="at_five"),
        tick([], crontab("0 3 * * *"), name="at_three", each_process=True),
    )
    async with scheduler_of(*jobs, store=MemoryStore(clock), clock=clock) as scheduler:
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


@pytest.mark.parametrize(
    ("name", "problem"),
    [("cron driver", "the driver is dead"), ("cron leases", "nobody renews the leases")],
)
async def test_a_task_of_its_own_that_has_died_is_a_problem(
    clock: FakeClock, url: URL, name: str, problem: str
) -> None:
    """Nothing would ever start again, or what starts would soon be stopped."""
    async with replica(clock, url) as one:
        [task] = [task for task in asyncio.all_tasks() if task.get_name() == name]
        task.cancel()
        await clock.settle()
        assert one.scheduler.problem() == problem


async def test_a_driver_that_hangs_is_a_problem(clock: FakeClock) -> None:
    """It looks every 15 s; when the last look is over 45 s ago, it is late."""
    store = Hanging(clock)
    async with scheduler_of(store=store, clock=clock) as scheduler:
        store.hangs = True
        await clock.advance(seconds=15 + 45)
        assert scheduler.problem() is None
        await clock.advance(seconds=1)
        assert scheduler.problem() == "the driver is late: it last looked 46 s ago"
        store.goes_on.set()


# The start and the end


async def test_a_start_that_fails_leaves_nothing_running(clock: FakeClock, url: URL) -> None:
    """One driver was at work already when the other one could not begin."""

    class Never(Every):
        def first(self, now: datetime, random: Random) -> datetime:
            raise ValueError("never")

    tasks = asyncio.all_tasks()
    broken = tick([], Never({"minutes": 5}, 0), name="broken", each_process=True)
    with pytest.raises(ValueError, match="never"):
        async with replica(clock, url, tick([]), broken):
            pass
    assert asyncio.all_tasks() == tasks


@pytest.mark.parametrize("turns", range(40))
async def test_stopped_at_any_moment_it_leaves_nothing(clock: FakeClock, turns: int) -> None:
    """At each turn of the loop, from before the start until its first runs are under way.

    After River, elector_test.go and periodic_job_enqueuer_test.go, StartStopStress.
    """
    jobs = tick([]), tick([], seconds=100, name="slow")
    app = cron_app(*jobs, clock=clock, store=Gradual(clock))

    async def serve() -> None:
        async with app.router.lifespan_context(app):
            await asyncio.Event().wait()

    tasks = asyncio.all_tasks()
    server = asyncio.create_task(serve())
    await turns_of_the_loop(turns)
    server.cancel()
    await clock.run(asyncio.wait([server]))
    assert server.cancelled()
    assert clock.monotonic() <= 5
    assert asyncio.all_tasks() == tasks


@pytest.mark.parametrize(("seconds", "expected"), [(0, 0), (3, 3), (100, 5)])
async def test_it_waits_for_what_is_running_and_no_longer(
    clock: FakeClock, url: URL, seconds: float, expected: float
) -> None:
    """However often it is told to stop, at once, meanwhile and afterwards.

    After robfig/cron, TestStopAndWait.
    """
    tasks = asyncio.all_tasks()
    jobs = tick([]), tick([], name="quick"), tick([], seconds=seconds, name="slow")
    async with replica(clock, url, *jobs) as one:
        stops = [asyncio.create_task(one.scheduler.stop()) for _ in range(3)]
        await clock.run(asyncio.wait(stops))
        assert clock.monotonic() == expected
        await one.stop()
        assert clock.monotonic() == expected
    assert asyncio.all_tasks() == tasks


@pytest.mark.parametrize("look_seconds", [0, 1])
async def test_nothing_is_claimed_once_the_app_ends(
    clock: FakeClock, url: URL, look_seconds: float
) -> None:
    """Though it falls due while others still run, or a look that has begun finds it."""
    starts = list[float]()
    due = tick(starts, every(seconds=15.2, jitter=0))
    async with replica(clock, url, due, tick([], seconds=100, name="slow")) as one:
        one.store.seconds_before["look"] = look_seconds
        await clock.advance(seconds=15.1)
        await one.stop()
        assert (clock.monotonic(), starts) == (15.1 + 5, [0])


async def test_what_a_claim_under_way_begins_is_asked_to_stop(clock: FakeClock, url: URL) -> None:
    """Like all that runs, and as early: it is not left to be cancelled after the grace."""

    @job(AT_ONCE)
    async def polite(ctx: JobContext) -> None:
        while not ctx.stopping:
            await ctx.clock.sleep(0.1)

    async with replica(clock, url, polite, seconds_after={"claim": 0.5}) as one:
        await one.stop()
        assert clock.monotonic() < 1
        assert await outcomes(one, "polite") == ["interrupted"]


async def test_what_ends_in_the_grace_is_recorded_at_once(clock: FakeClock, url: URL) -> None:
    """Others may take their time, and then the container might be killed."""

    async def slow(ctx: JobContext) -> None:
        await ctx.clock.sleep(60)

    async with replica(clock, url, tick([], seconds=1), job(AT_ONCE)(slow)) as one:
        stop = asyncio.create_task(one.scheduler.stop())
        await clock.advance(seconds=1)
        assert (await outcomes(one), await outcomes(one, "slow")) == (["ok"], [None])
        await clock.advance(seconds=4)
        assert stop.done()
        assert await outcomes(one, "slow") == ["interrupted"]


async def test_what_cannot_be_recorded_in_the_grace_is_tried_again_after_it(
    clock: FakeClock, url: URL
) -> None:
    """The database was away for a moment."""

    async def slow(ctx: JobContext) -> None:
        await ctx.clock.sleep(60)

    async with replica(clock, url, tick([], seconds=1), job(AT_ONCE)(slow)) as one:
        one.store.fails = {"finish"}
        stop = asyncio.create_task(one.scheduler.stop())
        await clock.advance(seconds=1)
        one.store.fails = ()
        await clock.run(stop)
        assert (await outcomes(one), await outcomes(one, "slow")) == (["ok"], ["interrupted"])


async def test_a_driver_that_hangs_at_the_end_loses_no_outcome(clock: FakeClock, url: URL) -> None:
    """What it could not record in the grace is recorded when it has been cancelled."""
    async with replica(clock, url, tick([])) as one:
        one.store.seconds_before["finish"] = 10_000
        await clock.advance(minutes=5)
        one.store.seconds_before.clear()
        await one.stop()
        assert await outcomes(one) == ["ok", "ok"]


async def test_an_end_is_told_to_the_others(clock: FakeClock, url: URL) -> None:
    """They see that the process has stopped, and when; one that was killed has only been seen."""
    async with replica(clock, url) as one, replica(clock, url) as two:
        await clock.advance(seconds=5)
        await one.stop()
        records = {process.owner: process for process in await two.store.processes()}
        assert records[one.name].stopped_at == clock.now()
        assert records[two.name].stopped_at is None


class Hanging(MemoryStore):
    """A store that can be made not to answer."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.hangs = False
        self.goes_on = asyncio.Event()

    async def look(self, names: Iterable[str]) -> list[Look]:
        if self.hangs:
            await self.goes_on.wait()
        return await super().look(names)


class Gradual(MemoryStore):
    """A store that takes some turns of the loop before it does something, and then to tell."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        for operation in OPERATIONS:
            setattr(self, operation, partial(self._ask, getattr(self, operation)))

    async def _ask(self, call: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        await turns_of_the_loop(3)
        answer = await call(*arguments)
        await turns_of_the_loop(3)
        return answer


async def turns_of_the_loop(count: int) -> None:
    """Let the others go first so many times."""
    for _ in range(count):
        await asyncio.sleep(0)
