"""Several processes on one database: each due time goes to one, whatever becomes of the others."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import URL, Connection, text

from app.cron import JobContext, crontab, every, job
from app.cron.schedule import Schedule
from app.cron.store import StoreUnavailable
from support import FakeClock, fixed, replica
from support.databases import query

Log = pytest.LogCaptureFixture
Function = Callable[..., Any]
Starts = list[tuple[str, float]]
MINUTELY = every(minutes=1, jitter=0)


def tick(
    starts: Starts, schedule: Schedule = MINUTELY, seconds: float = 0, **options: Any
) -> Function:
    """A job that takes so long, and notes who has begun it and when."""

    @job(schedule, **{"name": "tick", "timeout": None, **options})
    async def body(ctx: JobContext) -> None:
        starts.append((ctx.state.replica, ctx.clock.monotonic()))
        await ctx.clock.sleep(seconds)

    return body


def writes_after(seconds: float) -> Function:
    """A job that takes so long, and then writes into the database which run it was."""

    @job(every(seconds=10, jitter=0), timeout=None)
    async def writes(ctx: JobContext) -> None:
        def write(connection: Connection) -> None:
            connection.execute(text("CREATE TABLE IF NOT EXISTS effect (run TEXT)"))
            connection.execute(text("INSERT INTO effect VALUES (:run)"), {"run": run})

        run = f"writes run {ctx.run_no}"
        await ctx.clock.sleep(seconds)
        await ctx.write(write)

    return writes


def written(url: URL) -> list[str]:
    """Which runs have written."""
    return [run for (run,) in query(url, "SELECT run FROM effect")]


def times(starts: Starts) -> list[float]:
    """When the runs have begun."""
    return [when for _, when in starts]


# One run for each due time


@pytest.mark.parametrize(("draw", "seconds"), [(0, 0), (0.5, 5), (1, 10)])
async def test_no_body_begins_before_its_jittered_time(
    clock: FakeClock, url: URL, draw: float, seconds: float
) -> None:
    """It is the body that waits, not a number in its record that says so.

    After APScheduler 4, test_schedulers.py, test_jitter.
    """
    starts: Starts = []
    schedule = crontab("1 0 * * *", splay=timedelta(seconds=10))
    async with replica(clock, url, tick(starts, schedule), random=fixed(draw)) as one:
        await clock.advance(minutes=2)
        [run] = await one.store.history("tick")
    assert times(starts) == [60 + seconds]
    assert run.due_at == run.started_at == clock.now() - timedelta(seconds=60 - seconds)


async def test_a_run_longer_than_its_interval_is_not_overlapped(clock: FakeClock, url: URL) -> None:
    """What falls due meanwhile is skipped: a full interval follows its end."""
    starts: Starts = []
    subject = tick(starts, seconds=150)
    async with replica(clock, url, subject), replica(clock, url, subject):
        await clock.advance(seconds=450)
    assert times(starts) == [0, 210, 420]


async def test_a_long_run_is_not_taken_over(clock: FakeClock, url: URL) -> None:
    """Five leases long, it stays with who has it, also when another process joins meanwhile.

    After docket, test_redelivery.py, test_worker_joining_doesnt_steal_renewed_lease.
    """
    starts: Starts = []
    subject = tick(starts, every(seconds=10, jitter=0), seconds=150)
    async with replica(clock, url, subject) as one:
        await clock.advance(seconds=20)
        async with replica(clock, url, subject):
            await clock.advance(seconds=130)
            assert starts == [(one.name, 0)]
            [run] = await one.store.history("tick")
            assert run.outcome == "ok"


@pytest.mark.parametrize("leases", [(60, 12), (12, 60)])
async def test_processes_may_have_different_leases(
    clock: FakeClock, url: URL, leases: tuple[float, float]
) -> None:
    """Each row says how long its lease is: a longer one is not taken for one that makes no sense,
    and a shorter one ends when it ends."""
    starts: Starts = []
    subject = tick(starts, every(seconds=5, jitter=0), seconds=100_000)
    first, second = (timedelta(seconds=lease) for lease in leases)
    async with (
        replica(clock, url, subject, lease=first) as one,
        replica(clock, url, subject, lease=second) as two,
    ):
        await clock.advance(seconds=leases[0])  # its last heartbeat
        assert starts == [(one.name, 0)]
        one.freeze()
        await clock.advance(first - timedelta(milliseconds=1))
        assert starts == [(one.name, 0)]
        await clock.advance(seconds=1)
        assert starts == [(one.name, 0), (two.name, 2 * leases[0])]


async def test_a_failed_run_is_tried_again_where_it_failed(clock: FakeClock, url: URL) -> None:
    """After 5 s, when the others have not looked yet; they do not run it in addition."""
    starts: Starts = []

    @job(MINUTELY, name="tick")
    async def fails_once(ctx: JobContext) -> None:
        starts.append((ctx.state.replica, ctx.clock.monotonic()))
        if ctx.run_no == 1:
            raise ValueError

    async with replica(clock, url, fails_once) as one, replica(clock, url, fails_once):
        await clock.advance(seconds=64)
    assert starts == [(one.name, 0), (one.name, 5)]


@pytest.mark.parametrize("error", [ValueError(), asyncio.CancelledError()], ids=repr)
async def test_no_failure_ends_the_chain(clock: FakeClock, url: URL, error: BaseException) -> None:
    """Nor does a cancel that nobody asked for: 5, 10, 20 s and so on, up to the interval.

    After db-scheduler, SchedulerTest, should_reschedule_failure_on_exponential_backoff, and docket,
    test_perpetual_reliability.py, where such a cancel ends it.
    """
    starts: Starts = []

    @job(MINUTELY, name="tick")
    async def fails(ctx: JobContext) -> None:
        starts.append((ctx.state.replica, ctx.clock.monotonic()))
        raise error

    async with replica(clock, url, fails, random=fixed(0.5)) as one:
        await clock.advance(seconds=255)
        assert {run.outcome for run in await one.store.history("tick")} == {"error"}
    assert times(starts) == [0, 5, 15, 35, 75, 135, 195, 255]


# The rows of Kubernetes, TestControllerV2SyncCronJob, for its policy "Forbid": by how long the run
# of 01:00 takes, what may keep the next one from running, and when a process looks at it, how many
# runs begin.
HOURLY_ROWS: dict[str, tuple[float, dict[str, Any], float, int]] = {
    "prev ran but done, not time": (0, {}, 59, 0),
    "prev ran but done, is time": (0, {}, 60, 1),
    "prev ran but done, is time, suspended": (0, {"paused": True}, 60, 0),
    "prev ran but done, is time, not past deadline": (0, {"max_late": 5}, 65, 1),
    "prev ran but done, is time, past deadline": (0, {"max_late": 5}, 66, 0),
    "prev ran but done, long overdue, not past deadline": (0, {}, 600, 1),
    "prev ran but done, long overdue, past deadline": (0, {"max_late": 5}, 600, 0),
    "still active, not time": (90, {}, 59, 0),
    "still active, is time": (90, {}, 60, 0),
    "still active, is time, suspended": (90, {"paused": True}, 60, 0),
    "still active, is time, not past deadline": (90, {"max_late": 5}, 65, 0),
    "still active, is time, past deadline": (90, {"max_late": 5}, 66, 0),
    "still active, long overdue": (900, {}, 600, 0),
    "still active, long overdue, past deadline": (900, {"max_late": 5}, 600, 0),
}


@pytest.mark.parametrize(
    ("minutes", "limits", "at", "expected"), HOURLY_ROWS.values(), ids=HOURLY_ROWS
)
async def test_an_hourly_job_as_a_process_finds_it(
    clock: FakeClock,
    url: URL,
    minutes: float,
    limits: dict[str, Any],
    at: float,
    expected: int,
) -> None:
    """After Kubernetes, TestControllerV2SyncCronJob."""
    starts: Starts = []
    max_late = timedelta(minutes=limits["max_late"]) if "max_late" in limits else None
    hourly = tick(starts, crontab("0 * * * *"), minutes * 60, max_late=max_late)
    # Hours pass in which nothing else happens.
    rarely: dict[str, Any] = {"look_every": timedelta(days=1), "lease": timedelta(minutes=5)}
    clock.step(minutes=59)
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(replica(clock, url, hourly, **rarely))
        await clock.advance(minutes=1)
        if "paused" in limits:
            await one.store.pause("tick")
        if not minutes:
            await stack.aclose()
        await clock.advance(minutes=at)
        async with replica(clock, url, hourly, **rarely) as two:
            await clock.advance(seconds=5)
            assert [name for name, _ in starts].count(two.name) == expected


# Downtime


@pytest.mark.parametrize(
    ("schedule", "draw", "seconds"),
    [
        (every(minutes=1), 0, 0),
        (every(minutes=1), 0.5, 5),
        (every(minutes=1), 1, 10),
        (every(seconds=10), 1, 3),
        (every(minutes=1, jitter=0), 1, 0),
        (crontab("* * * * *", splay=timedelta(seconds=4)), 0.5, 2),
        (crontab("* * * * *", splay=timedelta(seconds=40)), 1, 10),
        (crontab("* * * * *"), 1, 0),
    ],
    ids=str,
)
async def test_what_was_missed_while_nobody_ran_runs_once(
    clock: FakeClock, url: URL, schedule: Schedule, draw: float, seconds: float
) -> None:
    """However often it was due, after a delay of up to 10 s, jitter or splay: no flood.

    After APScheduler 4, test_schedulers.py, test_coalesce_policy[latest].
    """
    starts: Starts = []
    subject = tick(starts, schedule)
    async with replica(clock, url, subject, random=fixed(0)):
        await clock.advance(minutes=2)
    starts.clear()
    await clock.advance(hours=1)
    begun = clock.monotonic()
    async with (
        replica(clock, url, subject, random=fixed(draw)),
        replica(clock, url, subject, random=fixed(draw)),
    ):
        await clock.advance(seconds=10)
    assert times(starts) == [begun + seconds]


async def test_the_next_run_after_a_downtime_is_a_full_interval_away(
    clock: FakeClock, url: URL
) -> None:
    """It counts from the start of the one that was late, not from when that was due."""
    starts: Starts = []
    async with replica(clock, url, tick(starts)):
        pass
    await clock.advance(seconds=1_010)
    async with replica(clock, url, tick(starts)):
        await clock.advance(seconds=60)
    assert times(starts) == [0, 1_010, 1_070]


async def test_a_restart_makes_no_additional_run(clock: FakeClock, url: URL) -> None:
    """What is not due yet waits, through any number of restarts.

    After db-scheduler, ScheduleRecurringOnStartupTest, "no new execution time if imminent".
    """
    starts: Starts = []
    for _ in range(5):
        async with replica(clock, url, tick(starts)):
            await clock.advance(seconds=11)
    assert times(starts) == [0]
    async with replica(clock, url, tick(starts)):
        await clock.advance(seconds=5)
    assert times(starts) == [0, 60]


@pytest.mark.parametrize(("minutes", "start"), [(5, 15), (49, 59), (50, 60), (600, 60)])
async def test_a_changed_interval_brings_a_run_forward_at_most(
    clock: FakeClock, url: URL, minutes: float, start: float
) -> None:
    """Ten minutes after an hourly run: none is due later than the new interval can mean, and a
    longer one begins with the next run.

    After db-scheduler, ScheduleRecurringOnStartupTest, "schedule change to sooner".
    """
    starts: Starts = []
    async with replica(clock, url, tick(starts, every(hours=1, jitter=0))):
        await clock.advance(minutes=10)
    subject = tick(starts, every(minutes=minutes, jitter=0))
    async with replica(clock, url, subject, look_every=timedelta(hours=1)):
        await clock.advance(minutes=51)
    assert times(starts)[:2] == [0, start * 60]


@pytest.mark.parametrize(
    ("line", "start"), [("*/5 * * * *", 15), ("59 * * * *", 59), ("30 1 * * *", 60)]
)
async def test_a_changed_crontab_brings_a_run_forward_at_most(
    clock: FakeClock, url: URL, line: str, start: float
) -> None:
    """None is due later than the next fire of the new line, and one that fires later begins with
    the next run.

    After db-scheduler, ScheduleRecurringOnStartupTest, "deterministic schedule change".
    """
    starts: Starts = []
    async with replica(clock, url, tick(starts, crontab("0 * * * *"))):
        await clock.advance(minutes=10)
    subject = tick(starts, crontab(line))
    async with replica(clock, url, subject, look_every=timedelta(hours=1)):
        await clock.advance(minutes=51)
    assert times(starts)[:1] == [start * 60]


# Crashes


@pytest.mark.parametrize("death", [1, 29])
@pytest.mark.parametrize("draw", [0, 0.5, 1])
@pytest.mark.parametrize("interval", [20, 100])
async def test_the_run_of_a_killed_process_is_taken_over_after_its_lease(
    clock: FakeClock, url: URL, interval: float, draw: float, death: float
) -> None:
    """At max(due, end of the lease), and after the end of a lease a catch-up delay. One body begins
    for it, though two processes wait.

    After db-scheduler, DeadExecutionsTest and DetectStaleHeartbeatTest, and APScheduler 4,
    test_schedulers.py, test_scheduler_crash_restart_schedule_immediately.
    """
    starts: Starts = []
    subject = tick(starts, every(seconds=interval, jitter=0.1), seconds=10_000)
    due = interval * (1 + (draw - 0.5) / 5)
    delay = draw * interval / 10
    async with replica(clock, url, subject, random=fixed(draw)) as one:
        await clock.advance(seconds=delay)
        assert starts == [(one.name, delay)]
        async with (
            replica(clock, url, subject, random=fixed(draw)) as two,
            replica(clock, url, subject, random=fixed(draw)),
        ):
            await clock.advance(seconds=death)
            one.freeze()
            lease_end = death // 10 * 10 + 30
            expected = delay + (due if due > lease_end else lease_end + delay)
            await clock.advance(seconds=140)
            assert times(starts) == pytest.approx([delay, expected])
            assert starts[1][0] != one.name
            runs = await two.store.history("tick")
            assert [run.outcome for run in runs] == ["abandoned", None]


async def test_a_run_that_nobody_takes_over_reads_as_abandoned(clock: FakeClock, url: URL) -> None:
    """As soon as its lease is over, though nobody has written it down.

    After APScheduler 4, test_schedulers.py, test_scheduler_crash_reap_abandoned_jobs.
    """
    async with replica(clock, url, tick([], seconds=1_000)) as one:
        one.freeze()
        async with replica(clock, url) as watcher:
            for advance, outcome in ((29.999, None), (0.001, "abandoned")):
                await clock.advance(seconds=advance)
                [run] = await watcher.store.history("tick")
                assert run.outcome == outcome


async def test_a_process_that_was_stopped_for_longer_than_its_lease_finds_it_lost(
    clock: FakeClock, url: URL, caplog: Log
) -> None:
    """Its body goes on for a moment: it can write nothing, it is stopped, and neither it nor its
    end has a say in what the other does.

    After fastapi-crons, test_distributed_claiming.py, and the pause for which that has no test.
    """
    subject = writes_after(17)
    async with replica(clock, url, subject) as one, replica(clock, url, subject) as two:
        await clock.advance(seconds=15)
        one.freeze()
        await clock.advance(seconds=45)
        one.thaw()
        await clock.advance(seconds=1)
        assert written(url) == ["writes run 2"]
        reason = "it could not be renewed in time"
        assert f"writes run 1: its lease is lost, it is stopped: {reason}" in caplog.messages
        runs = await two.store.history("writes")
        assert [(run.outcome, run.owner) for run in runs] == [
            ("abandoned", one.name),
            ("ok", two.name),
        ]


async def test_a_process_that_was_stopped_between_runs_repeats_none(
    clock: FakeClock, url: URL
) -> None:
    """It has slept over three due times, which another process has had.

    After fastapi-crons, test_distributed_claiming.py, and the pause for which that has no test.
    """
    starts: Starts = []
    subject = tick(starts)
    async with replica(clock, url, subject) as one, replica(clock, url, subject) as two:
        await clock.advance(seconds=30)
        one.freeze()
        await clock.advance(minutes=3)
        one.thaw()
        await clock.advance(seconds=29)
        assert times(starts) == [0, 60, 120, 180]
        assert {name for name, _ in starts[1:]} == {two.name}


async def test_a_long_run_that_fails_is_tried_again_once(clock: FakeClock, url: URL) -> None:
    """Longer than a lease: nobody takes it over meanwhile, and the retry comes after its wait.

    After docket, test_redelivery.py, test_retry_with_long_running_task.
    """
    starts: Starts = []

    @job(every(hours=1, jitter=0), timeout=None)
    async def fails_late(ctx: JobContext) -> None:
        starts.append((ctx.state.replica, ctx.clock.monotonic()))
        await ctx.clock.sleep(100)
        if ctx.run_no == 1:
            raise ValueError

    async with replica(clock, url, fails_late), replica(clock, url, fails_late):
        await clock.advance(minutes=30)
        assert times(starts) == [0, 105]


# The end of a process


async def test_what_was_claimed_as_the_app_ends_is_interrupted(clock: FakeClock, url: URL) -> None:
    """The claim was under way when the shutdown began: the run is cut short, and due elsewhere."""
    starts: Starts = []
    subject = tick(starts, seconds=1_000)
    async with replica(clock, url, subject, seconds_after={"claim": 0.5}) as one:
        assert starts == []
        await one.stop()
        [run] = await one.store.history("tick")
        assert run.outcome == "interrupted"
        async with replica(clock, url, subject) as two:
            assert starts[-1] == (two.name, clock.monotonic())


async def test_what_is_asked_for_as_the_app_ends_is_not_begun(clock: FakeClock, url: URL) -> None:
    """Its look was under way when the shutdown began, which has nothing else to wait for."""
    starts: Starts = []
    async with replica(clock, url, tick(starts), claims=False) as one:
        one.store.seconds_after = {"look": 0.5}
        asked = asyncio.create_task(one.scheduler.run("tick"))
        await clock.settle()
        await one.stop()
        assert await clock.run(asked) is None
        assert await one.store.history("tick") == []
    assert starts == []


async def test_two_claims_of_one_process_begin_one_run(clock: FakeClock, url: URL) -> None:
    """Somebody asks for a run as the job falls due, and a step of the clock ends the first lease
    before either is answered."""
    starts: Starts = []
    async with replica(clock, url, tick(starts, seconds=10)) as one:
        one.store.seconds_after = {"claim": 0.5}
        await clock.advance(seconds=60)
        clock.step(seconds=-2)
        asked = asyncio.create_task(one.scheduler.run("tick"))
        await clock.advance(seconds=20)
        assert times(starts) == [0, 60.5]
        finish = await asked
        assert finish is not None
        reason = "the run before it goes on in this process"
        assert (finish.outcome, finish.error) == ("missed", reason)


async def test_a_claim_that_is_answered_after_the_end_begins_nothing(
    clock: FakeClock, url: URL
) -> None:
    """Somebody has asked for a run, and is told that it is not known what has become of it."""
    starts: Starts = []
    tasks = asyncio.all_tasks()
    async with replica(clock, url, tick(starts), claims=False) as one:
        one.store.seconds_after = {"claim": 60}
        asked = asyncio.create_task(one.scheduler.run("tick"))
        await clock.settle()
        await one.stop()
        with pytest.raises(StoreUnavailable) as error:
            await asked
        assert str(error.value) == "the app has ended, and its claim was not answered"
        assert asyncio.all_tasks() == tasks
        await clock.advance(minutes=2)
    assert starts == []


# Requests and pauses


@pytest.mark.parametrize("paused", [True, False])
async def test_a_request_is_seen_by_another_process(
    clock: FakeClock, url: URL, paused: bool
) -> None:
    """Within a look of 15 s, without a delay, once, and paused or not."""
    starts: Starts = []
    subject = tick(starts, every(hours=1))
    async with (
        replica(clock, url, claims=False) as shell,
        replica(clock, url, subject, random=fixed(1)),
    ):
        await clock.advance(seconds=31)
        if paused:
            await shell.store.pause("tick")
        for _ in range(3):
            await shell.store.request("tick")
        await clock.advance(minutes=5)
    assert times(starts) == [10, 45]


async def test_a_request_during_a_run_is_honoured_after_it(clock: FakeClock, url: URL) -> None:
    """At once, by who has ended it; several share the one run."""
    starts: Starts = []
    subject = tick(starts, every(hours=1, jitter=0), seconds=20)
    async with replica(clock, url, subject) as one:
        await clock.advance(seconds=10)
        for _ in range(2):
            await one.store.request("tick")
        await clock.advance(minutes=5)
    assert times(starts) == [0, 20]


async def test_a_pause_is_seen_by_all_processes(clock: FakeClock, url: URL) -> None:
    """Though they have planned the next run already, and do not look before it is due: the claim
    decides. It ends with `resume`."""
    starts: Starts = []
    subject = tick(starts, every(seconds=50, jitter=0))
    async with replica(clock, url, subject) as one, replica(clock, url, subject) as two:
        await clock.advance(seconds=49)
        await one.store.pause("tick")
        await clock.advance(minutes=5)
        assert times(starts) == [0]
        await two.store.resume("tick")
        resumed = clock.monotonic()
        await clock.advance(seconds=15)
    assert len(starts) == 2
    assert resumed <= starts[1][1] <= resumed + 15


async def test_the_others_go_on_while_one_is_paused(clock: FakeClock, url: URL) -> None:
    """A pause is of one job. After Hangfire, RecurringJobSchedulerFacts: one that cannot run."""
    starts: Starts = []
    paused: Starts = []
    async with replica(clock, url, tick(starts), tick(paused, name="paused")) as one:
        await one.store.pause("paused")
        await clock.advance(minutes=2)
    assert (times(starts), times(paused)) == ([0, 60, 120], [0])


async def test_a_job_that_is_forgotten_begins_anew(clock: FakeClock, url: URL) -> None:
    """Processes that know it make its row again, with the next look."""
    starts: Starts = []
    subject = tick(starts, every(hours=1, jitter=0))
    async with replica(clock, url, subject) as one, replica(clock, url, subject):
        await clock.advance(seconds=20)
        await one.store.forget("tick")
        await clock.advance(minutes=5)
        assert [run.run_no for run in await one.store.history("tick")] == [1]
    assert times(starts) == [0, 30]


# Two versions of the code


async def test_two_versions_of_the_code_run_beside_each_other(clock: FakeClock, url: URL) -> None:
    """Each runs the jobs that it has, and one run at a time is made of those that both have.

    After db-scheduler, SchedulerTest, should_unpick_unresolved_tasks_during_rolling_update.
    """
    both: Starts = []
    old: Starts = []
    new: Starts = []
    half, full = every(seconds=30, jitter=0), MINUTELY
    async with (
        replica(clock, url, tick(both, full), tick(old, name="old")) as one,
        replica(clock, url, tick(both, half), tick(new, name="new")) as two,
    ):
        await clock.advance(minutes=5)
        assert {name for name, _ in old} == {one.name}
        assert {name for name, _ in new} == {two.name}
        assert times(old) == times(new) == [0, 60, 120, 180, 240, 300]
        gaps = [later - earlier for earlier, later in pairwise(times(both))]
        assert set(gaps) <= {30, 60}
        runs = await one.store.history("tick")
        assert [run.outcome for run in runs] == ["ok"] * len(both)


async def test_the_row_of_a_job_that_the_code_lacks_stays_as_it_is(
    clock: FakeClock, url: URL
) -> None:
    """It is neither run nor changed: the next version may have it again, as it was left."""
    starts: Starts = []
    subject = tick(starts, name="old")
    async with replica(clock, url, subject) as one:
        [before] = await one.store.jobs()
    async with replica(clock, url, tick([])) as two:
        await clock.advance(minutes=5)
        [after, _] = await two.store.jobs()
    assert after == before
    async with replica(clock, url, subject):
        assert times(starts) == [0, 300]


# The wall clock, which a shared database goes by


@pytest.mark.parametrize("hours", [1, 24 * 365 * 400])
async def test_a_wall_clock_set_forwards_makes_one_start_sooner(
    clock: FakeClock, url: URL, hours: float
) -> None:
    """Due times are times on the wall. The next look finds the job overdue, once."""
    starts: Starts = []
    subject = tick(starts)
    async with replica(clock, url, subject), replica(clock, url, subject):
        await clock.advance(seconds=70)
        clock.step(hours=hours)
        await clock.advance(seconds=150)
    first, second, sooner, *others = times(starts)
    assert (first, second) == (0, 60)
    assert 70 <= sooner <= 85
    assert others == [sooner + 60, sooner + 120]


@pytest.mark.parametrize("hours", [1, 24 * 365 * 57])
async def test_a_wall_clock_set_back_leaves_no_job_stuck(
    clock: FakeClock, url: URL, hours: float
) -> None:
    """The due time lies beyond what the schedule can mean: with the next look it is an interval.

    After Kubernetes, TestControllerV2SyncCronJob, "this ran but done, time drifted back, F".
    """
    starts: Starts = []
    subject = tick(starts)
    async with replica(clock, url, subject), replica(clock, url, subject):
        await clock.advance(seconds=70)
        clock.step(hours=-hours)
        await clock.advance(seconds=195)
    first, second, late, *others = times(starts)
    assert (first, second) == (0, 60)
    assert 120 <= late <= 145
    assert others == [late + 60, late + 120]


async def test_a_wall_clock_set_back_during_a_run_leaves_no_job_stuck(
    clock: FakeClock, url: URL
) -> None:
    """A killed process has left a lease that would end in an hour: it makes no sense, so it holds
    no more."""
    starts: Starts = []
    subject = tick(starts, seconds=1_000)
    async with replica(clock, url, subject) as one:
        one.freeze()
        async with replica(clock, url, subject) as two:
            clock.step(hours=-1)
            await clock.advance(minutes=2)
            assert [name for name, _ in starts] == [one.name, two.name]
            assert starts[1][1] <= 75
