"""The driver: what it claims when, what it does not begin, and what it survives."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any

import pytest
from sqlalchemy import URL

from app.cron import JobContext, crontab, every, job
from app.cron.memory_store import MemoryStore
from app.cron.schedule import Schedule
from app.cron.store import Claim, Claimed, Finish, Look
from support import OPERATIONS, FakeClock, cron_app, fixed, replica, running, scheduler_of

Log = pytest.LogCaptureFixture
Function = Callable[..., Any]
MINUTELY = every(minutes=1, jitter=0)


def tick(
    starts: list[float], schedule: Schedule = MINUTELY, seconds: float = 0, **options: Any
) -> Function:
    """A job that takes so long, and notes when it begins."""

    @job(schedule, **{"name": "tick", "timeout": None, **options})
    async def body(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())
        await ctx.clock.sleep(seconds)

    return body


# When jobs start


async def test_a_crontab_waits_for_its_first_fire(clock: FakeClock) -> None:
    """It does not run at the start, and then at its times."""
    starts = list[str]()

    @job(crontab("*/20 8 * * *", tz="Europe/Madrid"))
    async def morning(ctx: JobContext) -> None:
        starts.append(f"{ctx.clock.now():%H:%M}")

    clock.step(hours=6, minutes=55)
    async with running(cron_app(morning, clock=clock), clock):
        await clock.advance(hours=2)
    assert starts == ["07:00", "07:20", "07:40"]


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_crontab_follows_a_stepped_wall_clock(clock: FakeClock, hours: int) -> None:
    """It is about times of day: it starts when the wall says 01:15, at most a look of 15 s late."""
    starts = list[float]()
    async with running(cron_app(tick(starts, crontab("15 1 * * *")), clock=clock), clock):
        await clock.advance(seconds=1)
        clock.step(hours=hours)
        await clock.advance(hours=2, minutes=30)
    assert len(starts) == 1
    assert 4_500 - hours * 3_600 <= starts[0] <= 4_500 - hours * 3_600 + 15


@pytest.mark.parametrize("seconds", [0.5, 300, 900])
@pytest.mark.parametrize("splay", [timedelta(0), timedelta(minutes=10)])
@pytest.mark.parametrize("shared", [False, True])
async def test_a_time_of_day_that_comes_again_has_run_already(
    clock: FakeClock, url: URL, seconds: float, splay: timedelta, *, shared: bool
) -> None:
    """The wall clock is set back while its run is under way: that is the only one for it."""
    starts = list[float]()
    subject = tick(starts, crontab("*/20 * * * *", splay=splay), seconds=0.2)
    app = cron_app(subject, clock=clock, random=fixed(0.5))
    clock.step(minutes=19)
    async with replica(clock, url, subject) if shared else running(app, clock):
        await clock.advance(splay / 2 + timedelta(minutes=1, seconds=0.1))
        assert len(starts) == 1
        clock.step(seconds=-seconds)
        await clock.advance(seconds=seconds + 600)
        assert len(starts) == 1
        await clock.advance(seconds=900)
    assert len(starts) == 2


async def test_a_crontab_whose_time_was_skipped_runs_once(clock: FakeClock) -> None:
    """A wall clock set forwards over several fires makes one run, within a look of 15 s."""
    starts = list[float]()
    async with running(cron_app(tick(starts, crontab("0 * * * *")), clock=clock), clock):
        await clock.advance(seconds=60)
        clock.step(hours=5)
        await clock.advance(minutes=30)
    assert len(starts) == 1
    assert 60 <= starts[0] <= 75


async def test_a_lone_job_is_not_delayed(clock: FakeClock) -> None:
    """There is nothing to wait for."""
    starts = list[float]()
    app = cron_app(tick(starts), clock=clock, coalesce=timedelta(milliseconds=50))
    async with running(app, clock):
        await clock.advance(seconds=180)
    assert starts == [0, 60, 120, 180]


async def test_jobs_that_fall_due_soon_after_another_are_claimed_together(clock: FakeClock) -> None:
    """Within 50 ms they share a transaction. None runs early."""
    store = Watched(clock)
    one, two = tick([], name="one"), tick([], crontab("* * * * *"), name="two")
    clock.step(milliseconds=-40)
    app = cron_app(one, two, clock=clock, store=store, coalesce=timedelta(milliseconds=50))
    async with running(app, clock):
        await clock.advance(milliseconds=49)
        assert store.claims == []
        await clock.advance(milliseconds=1)
    assert store.claims == [["one", "two"]]


async def test_a_slow_job_does_not_delay_another(clock: FakeClock) -> None:
    """Each keeps its own time."""
    starts = list[float]()
    slow = tick([], seconds=1_000, name="slow")
    async with running(cron_app(slow, tick(starts), clock=clock), clock):
        await clock.advance(seconds=180)
    assert starts == [0, 60, 120, 180]


# What it asks the store


async def test_it_looks_every_fifteen_seconds(clock: FakeClock, url: URL) -> None:
    """Whatever is due. Each minute it says that the process is alive; more it does not ask."""
    async with replica(clock, url, tick([], every(hours=1, jitter=0))) as one:
        await clock.advance(minutes=2)
        assert one.store.times("look") == [15, 30, 45, 60, 75, 90, 105, 120]
        assert one.store.times("check_in") == [0, 60, 120]
        assert one.store.times("register") == one.store.times("claim") == [0]
        assert len(one.store.asked) == 8 + 3 + 1 + 1 + 1  # and the end of a run


async def test_what_is_running_here_is_not_looked_at(clock: FakeClock) -> None:
    """Nobody else can change when it is due."""
    store = Watched(clock)
    app = cron_app(tick([], seconds=20), tick([], name="tock"), clock=clock, store=store)
    async with running(app, clock):
        await clock.advance(seconds=30)
    assert store.looks == [["tock"], ["tick", "tock"]]


async def test_what_has_just_ended_here_is_not_looked_at(clock: FakeClock) -> None:
    """Before the store knows that: it would show the run as under way. Recording takes 2 s here."""
    store = Watched(clock, finish_seconds=2)
    jobs = [tick([], seconds=seconds, name=f"{seconds}") for seconds in (14, 15, 17)]
    async with running(cron_app(*jobs, clock=clock, store=store), clock):
        await clock.advance(seconds=18)
    assert store.looks == [["14", "15"]]


async def test_what_is_claimed_in_vain_is_not_claimed_in_a_circle(clock: FakeClock) -> None:
    """Whatever keeps it from being had though it looks due: there is a pause in between."""
    store = Watched(clock)
    async with running(cron_app(tick([]), clock=clock, store=store), clock):
        store.refuses = True
        await clock.advance(seconds=60.5)
        assert 2 < len(store.claims) < 60


async def test_a_claim_that_is_lost_is_looked_at(clock: FakeClock) -> None:
    """It comes again when the other one has left it due."""
    store, starts = Watched(clock), list[float]()
    app = cron_app(tick(starts), clock=clock, store=store, look_every=timedelta(hours=1))
    async with running(app, clock):
        await clock.advance(seconds=59)
        store.claim_elsewhere("tick", timedelta(seconds=61))
        await clock.advance(seconds=61)
    assert starts == [0, 120]
    assert store.looks == [["tick"]]


@pytest.mark.parametrize(("interval", "looks"), [(4, range(4, 24, 4)), (100, [100, 115])])
async def test_what_is_due_and_held_is_looked_at_and_not_claimed(
    clock: FakeClock, url: URL, interval: float, looks: Iterable[float]
) -> None:
    """Each interval, at most 15 s apart: a claim in vain would be a write."""
    subject = tick([], every(seconds=interval, jitter=0), seconds=1_000)
    once_an_hour = timedelta(hours=1)
    async with (
        replica(clock, url, subject),
        replica(clock, url, subject, look_every=once_an_hour) as two,
    ):
        await clock.advance(seconds=max(looks))
        assert two.store.times("look") == list(looks)
        assert two.store.times("claim") == [interval]


async def test_only_who_asks_for_a_run_waits_for_a_lock(clock: FakeClock) -> None:
    """Somebody waits for that one; what is due has other processes."""
    store = Watched(clock)
    async with scheduler_of(tick([]), store=store, clock=clock) as scheduler:
        await clock.settle()
        await clock.run(scheduler.run("tick"))
        assert store.waits == [False, True]


async def test_an_end_that_is_not_recorded_is_tried_again_soon(clock: FakeClock) -> None:
    """Another transaction may have kept the job's row locked for a moment."""
    store = Watched(clock)
    async with running(cron_app(tick([], seconds=5), clock=clock, store=store), clock):
        store.passes = 2
        await clock.advance(seconds=6)
    assert store.finishes == [5, 5.1, 5.2]


# What it does not begin


@pytest.mark.parametrize(
    ("part", "seconds", "begins"),
    [
        ("seconds_after", 1, True),
        ("seconds_after", 1.001, False),
        ("seconds_before", 24.999, True),
        ("seconds_before", 25, False),
    ],
)
async def test_a_body_begins_soon_after_its_claim_or_not_at_all(
    clock: FakeClock, url: URL, part: str, seconds: float, *, begins: bool
) -> None:
    """A second after the database has decided, and while the lease is trusted: later, another one
    might have it. The next run is due as the claim has set it."""
    starts = list[float]()
    subject = tick(starts, every(minutes=2))
    async with replica(clock, url, subject) as one:
        getattr(one.store, part)["claim"] = seconds
        await clock.advance(seconds=60)
        getattr(one.store, part).clear()
        [run] = await one.store.history("tick")
        decided = 5 + (seconds if part == "seconds_before" else 0)
        if begins:
            assert (starts, run.outcome) == ([5 + seconds], "ok")
        else:
            assert (starts, run.outcome, run.error) == ([], "missed", "claim answered late")
        [look] = await one.store.look(["tick"])
        assert look.delay == timedelta(seconds=decided + 120 - 60)


@pytest.mark.parametrize(("late", "begins"), [(30, True), (30.001, False)])
async def test_a_run_that_is_later_than_allowed_is_missed(
    clock: FakeClock, url: URL, late: float, *, begins: bool
) -> None:
    """After a downtime, say: it is told how late it is. The next one comes in its time."""
    starts = list[float]()
    subject = tick(starts, max_late=timedelta(seconds=30))
    async with replica(clock, url, subject):
        pass
    await clock.advance(seconds=60 + late)
    async with replica(clock, url, subject) as one:
        _, run = await one.store.history("tick")
        assert run.outcome == ("ok" if begins else "missed")
        assert run.error == ("" if begins else "30 s late, and max_late is 30 s")
        await clock.advance(seconds=60)
    assert starts == ([0, 60 + late, 120 + late] if begins else [0, 120 + late])


async def test_a_run_that_was_requested_is_never_too_late(clock: FakeClock, url: URL) -> None:
    """Somebody wants it, and has waited for long enough."""
    starts = list[float]()
    subject = tick(starts, max_late=timedelta(seconds=30))
    async with replica(clock, url, subject) as one:
        await one.store.request("tick")
        one.store.fails = {"claim"}
    await clock.advance(hours=1)
    async with replica(clock, url, subject) as one:
        assert starts == [0, 3_600]


async def test_a_missed_run_is_no_failure(clock: FakeClock, url: URL) -> None:
    """Nor does it end a row of them: nothing was tried. It is counted for itself."""

    @job(MINUTELY, name="tick")
    async def fails() -> None:
        raise ValueError

    async with replica(clock, url, fails, seconds_after={"claim": 2}) as one:
        await clock.advance(seconds=59)
        one.store.seconds_after.clear()
        await clock.advance(seconds=5)
        one.store.seconds_after["claim"] = 2
        await clock.advance(seconds=5)
        [record] = await one.store.jobs()
        counts = {outcome: count for outcome, count in record.counts.items() if count}
        assert (record.failures, counts) == (1, {"missed": 2, "error": 1})


# What it survives


@pytest.mark.parametrize("operations", ["claim", "finish", "look", "look register", "heartbeat"])
async def test_a_mistake_anywhere_does_not_end_it(
    clock: FakeClock, url: URL, operations: str
) -> None:
    """It is logged, not more than once a second, and what is due runs as soon as it is mended."""
    starts = list[float]()
    subject = tick(starts, every(seconds=20, jitter=0), seconds=12)
    async with replica(clock, url, subject) as one:
        one.store.error, one.store.fails = ValueError("a mistake"), operations.split()
        await clock.advance(seconds=45)
        assert len(one.store.asked) < 2 * 45
        one.store.fails = ()
        mended = clock.monotonic()
        await clock.advance(seconds=61)
        assert one.scheduler.problem() is None
        assert len([start for start in starts if start > mended]) >= 3


async def test_after_a_mistake_all_is_planned_anew(clock: FakeClock, url: URL, caplog: Log) -> None:
    """It is in the log with its traceback. A second later all jobs are registered, as at the start:
    nobody knows what the mistake has left behind."""
    async with replica(clock, url, tick([])) as one:
        one.store.error, one.store.fails = ValueError("a mistake"), {"look"}
        await clock.advance(seconds=17)
        assert one.store.times("register") == [0, 16]
    failed = "cron: the driver has failed; it goes on in 1 s"
    assert failed in caplog.messages
    assert f"{failed}\nTraceback" in caplog.text
    assert "ValueError: a mistake" in caplog.text


@dataclass(frozen=True)
class Broken:
    """A schedule that cannot say when the next run is due, from `since` on."""

    since: datetime
    jitter = 0.0
    steady = True

    def check(self) -> None: ...

    def remark(self) -> None: ...

    def first(self, now: datetime, random: Random) -> datetime:
        return now

    def next(self, after: datetime, random: Random) -> datetime:
        if after >= self.since:
            raise ValueError("no idea")
        return after + timedelta(seconds=10)

    def catch_up(self, random: Random) -> timedelta:
        return timedelta(0)

    def period(self, at: datetime) -> timedelta:
        return timedelta(seconds=10)

    def latest(self, now: datetime) -> datetime:
        return now + timedelta(hours=1)


@pytest.mark.parametrize("since", [0, 15])
async def test_a_schedule_that_fails_leaves_the_others_alone(
    clock: FakeClock, url: URL, caplog: Log, since: float
) -> None:
    """Their claims and ends shared a transaction with its own: they are asked for one by one. It is
    tried again with each look, not in a circle.

    After Hangfire, RecurringJobSchedulerFacts: a job that cannot be scheduled hinders no other.
    """
    starts, broken = list[float](), list[float]()
    schedule = Broken(clock.now() + timedelta(seconds=since))
    subjects = tick(starts, seconds=20), tick(broken, schedule, seconds=20, name="broken")
    async with replica(clock, url, *subjects) as one:
        await clock.advance(minutes=2)
        assert starts == [0, 60, 120]
        assert {run.outcome for run in await one.store.history("tick")} == {"ok", None}
        assert len(broken) == (1 if since else 0)
        told = caplog.messages.count("cron: broken cannot be claimed, or its end recorded")
        assert 1 <= told <= 120 / 15 + 1
        assert one.scheduler.problem() is None


@pytest.mark.parametrize("operation", ["claim", "finish"])
async def test_what_was_answered_counts_though_the_next_answer_is_an_error(
    clock: FakeClock, url: URL, caplog: Log, operation: str
) -> None:
    """One by one, the first is answered, and then the database is away. What was claimed is begun,
    and what was recorded is not recorded again."""
    since = clock.now() + timedelta(seconds=20 if operation == "finish" else 0)
    jobs = (
        tick([], seconds=19.9, name="first"),  # while this end is recorded come the other two
        tick([], seconds=20, name="a"),
        tick([], Broken(since), seconds=20, name="broken"),
    )
    async with replica(clock, url, *jobs, fails={"register"}) as one:
        answer = getattr(one.store, operation)

        async def answer_one(items: Any) -> Any:
            answered = await answer(items)
            if [item.name for item in items] == ["a"]:
                one.store.fails = OPERATIONS
            return answered

        setattr(one.store, operation, answer_one)
        one.store.fails, one.store.seconds_before = (), {"finish": 0.5}
        await clock.advance(seconds=23)
        assert one.scheduler.outage() is not None
        one.store.fails = ()
        await clock.advance(seconds=20)
        assert caplog.text.count("a run 1: ok") == 1


class Watched(MemoryStore):
    """A store that remembers what it was asked for, and can be slow to record an end, pass by some
    as if their rows were locked, or refuse all claims."""

    def __init__(self, clock: FakeClock, finish_seconds: float = 0) -> None:
        super().__init__(clock)
        self.claims: list[list[str]] = []
        self.looks: list[list[str]] = []
        self.waits: list[bool] = []
        self.finishes: list[float] = []
        self.refuses = False
        self.passes = 0
        self.finish_seconds = finish_seconds

    async def look(self, names: Iterable[str]) -> list[Look]:
        self.looks.append(list(names))
        return await super().look(self.looks[-1])

    async def claim(self, claims: Sequence[Claim], *, wait: bool = False) -> list[Claimed]:
        self.claims.append([claim.name for claim in claims])
        self.waits.append(wait)
        return [] if self.refuses else await super().claim(claims)

    async def finish(self, finishes: Sequence[Finish]) -> tuple[list[Look], set[str]]:
        self.finishes.append(self._clock.monotonic())
        await self._clock.sleep(self.finish_seconds)
        if self.passes:
            self.passes -= 1
            return [], set()
        return await super().finish(finishes)

    def claim_elsewhere(self, name: str, gap: timedelta) -> None:
        """Claim and finish a run as another process would, whether it is due or not."""
        row = self._rows[name]
        row.run_no += 1
        row.next_run_at = self._clock.now() + gap
