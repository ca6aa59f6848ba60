"""One run of a job: what it is given, how it can fail, and when the next one is due."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from functools import partial
from itertools import pairwise
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import URL, Connection, text
from starlette.datastructures import State

from app.cron import JobContext, crontab, every, job
from app.cron.clock import RandomSource, seeded
from app.cron.inject import prepare
from app.cron.memory_store import MemoryStore
from app.cron.run import JobRun
from app.cron.store import Claimed, Run
from app.cron.threads import DaemonThreads
from support import FakeClock, cron_app, fixed, noted, replica, running
from support.databases import query, schema

Log = pytest.LogCaptureFixture
Function = Callable[..., Any]
AT_ONCE = every(minutes=5, jitter=0)
TIMEOUT = timedelta(seconds=60)
RANDOM = seeded("a test")


class Stray(BaseException):
    """Not an Exception."""


async def runs_of(function: Callable[..., Any], clock: FakeClock, **amounts: float) -> list[Run]:
    """The history of the job named `subject` after so much time, and its shutdown."""
    store = MemoryStore(clock)
    async with running(cron_app(function, clock=clock, store=store), clock):
        await clock.advance(**amounts)
    return await store.history("subject")


# What can go wrong


@pytest.mark.parametrize(
    "error", [ValueError(), KeyError(), OSError(), TimeoutError(), SystemExit(), Stray()], ids=repr
)
async def test_whatever_an_async_body_raises_the_job_goes_on(
    clock: FakeClock, error: BaseException
) -> None:
    """The run is an error, and the next one comes."""

    @job(AT_ONCE)
    async def subject() -> None:
        raise error

    assert [run.outcome for run in await runs_of(subject, clock, seconds=5)] == ["error"] * 2


@pytest.mark.parametrize(
    "error", [ValueError(), StopIteration(), TimeoutError(), SystemExit(), Stray()], ids=repr
)
async def test_whatever_a_body_in_a_thread_raises_the_job_goes_on(
    clock: FakeClock, error: BaseException
) -> None:
    """The run is an error, and the next one comes."""

    @job(AT_ONCE)
    def subject() -> None:
        raise error

    assert [run.outcome for run in await runs_of(subject, clock, seconds=5)] == ["error"] * 2


async def test_a_stray_cancel_does_not_end_the_job(clock: FakeClock) -> None:
    """A CancelledError that nobody asked for, as from a task that the body awaits, is an error."""

    @job(AT_ONCE)
    async def subject() -> None:
        raise asyncio.CancelledError

    runs = await runs_of(subject, clock, seconds=5)
    assert [run.outcome for run in runs] == ["error"] * 2
    assert runs[0].error == "CancelledError: nobody asked for this cancel"


async def test_a_body_that_cancels_itself_does_not_end_the_job(clock: FakeClock) -> None:
    """Nor is it taken for one that the shutdown has cut short."""

    @job(AT_ONCE)
    async def subject(ctx: JobContext) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await ctx.clock.sleep(1)

    assert [run.outcome for run in await runs_of(subject, clock, seconds=5)] == ["error"] * 2


async def test_a_failure_is_logged_with_its_traceback(clock: FakeClock, caplog: Log) -> None:
    """The line names the job, the run and the error; the traceback shows the body."""

    @job(AT_ONCE)
    async def subject() -> None:
        raise ValueError("the reason")

    await runs_of(subject, clock, seconds=0)
    assert "subject run 1: error: the reason" in caplog.messages
    assert "in subject\n" in caplog.text


async def test_the_error_of_a_run_is_remembered(clock: FakeClock) -> None:
    """Its kind and its text, in one line."""

    @job(AT_ONCE)
    async def subject() -> None:
        raise ValueError("one\n  two")

    [run] = await runs_of(subject, clock, seconds=0)
    assert run.error == "ValueError: one two"


# Retries


async def minutes_of_failures(
    clock: FakeClock, draw: float, schedule: Any, **amounts: float
) -> list[float]:
    """When a job with this schedule starts that always fails, in minutes from its first start."""
    starts = list[float]()

    @job(schedule)
    async def subject(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic() / 60)
        raise ValueError

    async with running(cron_app(subject, clock=clock, random=fixed(draw)), clock):
        await clock.advance(**amounts)
    return [start - starts[0] for start in starts]


async def test_retries_wait_twice_as_long_each_time(clock: FakeClock) -> None:
    """5, 10, 20 seconds and so on, up to the interval."""
    minutes = await minutes_of_failures(clock, 0.5, AT_ONCE, minutes=20)
    gaps = [round((later - earlier) * 60) for earlier, later in pairwise(minutes)]
    assert gaps == [5, 10, 20, 40, 80, 160, 300, 300]


@pytest.mark.parametrize(("draw", "seconds"), [(0, 3.5), (1, 6.5)])
async def test_the_wait_before_a_retry_has_the_jitter_of_the_job(
    clock: FakeClock, draw: float, seconds: float
) -> None:
    """So that what broke all replicas is not asked by all of them at once."""
    minutes = await minutes_of_failures(clock, draw, every(minutes=5), seconds=20)
    assert minutes[1] * 60 == pytest.approx(seconds)


async def test_a_success_ends_the_retries(clock: FakeClock) -> None:
    """The next failure waits 5 seconds again."""
    starts = list[float]()

    @job(AT_ONCE)
    async def subject(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())
        if ctx.run_no != 3:
            raise ValueError

    async with running(cron_app(subject, clock=clock), clock):
        await clock.advance(seconds=350)
    assert starts == [0, 5, 15, 315, 320, 330, 350]


async def test_a_retry_is_never_later_than_the_next_run_would_be(clock: FakeClock) -> None:
    """A crontab that fails shortly before its next fire waits for no more than that."""
    minutes = await minutes_of_failures(clock, 0.5, crontab("* * * * *"), minutes=5)
    gaps = [round((later - earlier) * 60) for earlier, later in pairwise(minutes)]
    assert gaps == [5, 10, 20, 25, 60, 60, 60]


# Timeouts


async def test_a_run_over_its_timeout_is_cancelled(clock: FakeClock) -> None:
    """It ends then, in the clock's time, and counts as a failure."""

    @job(AT_ONCE, timeout=TIMEOUT)
    async def subject(ctx: JobContext) -> None:
        await ctx.clock.sleep(3600)

    [run] = await runs_of(subject, clock, seconds=60)
    assert run.outcome == "timeout"
    assert run.finished_at == run.started_at + TIMEOUT


@pytest.mark.parametrize(("interval", "seconds"), [(1, 30), (29, 30), (600, 600), (7200, 3600)])
async def test_the_usual_timeout_is_the_interval_within_limits(
    clock: FakeClock, interval: float, seconds: float
) -> None:
    """At least 30 seconds, at most an hour."""

    @job(every(seconds=interval, jitter=0))
    async def subject(ctx: JobContext) -> None:
        await ctx.clock.sleep(100_000)

    run, *_ = await runs_of(subject, clock, seconds=seconds)
    assert run.finished_at == run.started_at + timedelta(seconds=seconds)


async def test_without_a_timeout_a_run_may_take_for_ever(clock: FakeClock) -> None:
    """`timeout=None` says so."""

    @job(AT_ONCE, timeout=None)
    async def subject(ctx: JobContext) -> str:
        await ctx.clock.sleep(10_000)
        return "at last"

    [run] = await runs_of(subject, clock, seconds=10_000)
    assert (run.outcome, run.note) == ("ok", "at last")


async def test_a_run_that_swallows_its_timeout_is_not_ok(clock: FakeClock) -> None:
    """Whatever it returns, and that is kept: its time was over."""

    @job(AT_ONCE, timeout=TIMEOUT)
    async def subject(ctx: JobContext) -> str:
        try:
            await ctx.clock.sleep(3600)
        except asyncio.CancelledError:
            return "fine"
        return "never"

    [run] = await runs_of(subject, clock, seconds=60)
    assert (run.outcome, run.note) == ("timeout", "fine")


async def test_a_timeout_error_of_the_body_is_no_timeout(clock: FakeClock) -> None:
    """Such as one of a request that the body has made."""

    @job(AT_ONCE, timeout=TIMEOUT)
    async def subject(ctx: JobContext) -> None:
        async with ctx.clock.timeout(5):
            await ctx.clock.sleep(10)

    [run] = await runs_of(subject, clock, seconds=5)
    assert run.outcome == "error"


async def test_a_timeout_says_how_long_was_allowed(clock: FakeClock) -> None:
    """So that its author knows what to change."""

    @job(AT_ONCE, timeout=TIMEOUT)
    async def subject(ctx: JobContext) -> None:
        await ctx.clock.sleep(3600)

    [run] = await runs_of(subject, clock, seconds=60)
    assert run.error == "TimeoutError: longer than 0:01:00"


@pytest.mark.parametrize("threaded", [False, True])
async def test_what_a_late_body_raises_is_in_the_log(
    clock: FakeClock, caplog: Log, threaded: bool
) -> None:
    """It is the cause of the timeout that is logged."""
    gate = clock.gate()

    @job(AT_ONCE, name="subject", timeout=TIMEOUT)
    async def on_loop(ctx: JobContext) -> None:
        try:
            await ctx.clock.sleep(3600)
        finally:
            raise ValueError("while it cleaned up")

    @job(AT_ONCE, name="subject", timeout=TIMEOUT)
    def in_thread() -> None:
        gate.wait()
        raise ValueError("while it cleaned up")

    async with running(cron_app(in_thread if threaded else on_loop, clock=clock), clock):
        await clock.advance(TIMEOUT)
        gate.open()
        await clock.settle()
        assert "subject run 1: timeout: longer than 0:01:00" in caplog.messages
        assert "ValueError: while it cleaned up" in caplog.text


async def test_a_thread_over_its_timeout_is_asked_to_stop(clock: FakeClock) -> None:
    """`ctx.stopping` turns true; a thread cannot be cancelled."""
    gate = clock.gate()

    @job(AT_ONCE, timeout=TIMEOUT)
    def subject(ctx: JobContext) -> None:
        gate.wait()
        seen.append(ctx.stopping)

    seen = list[bool]()
    async with running(cron_app(subject, clock=clock), clock):
        await clock.advance(TIMEOUT)
        gate.open()
        await clock.settle()
        assert seen == [True]


async def test_a_thread_over_its_timeout_is_not_overlapped(clock: FakeClock) -> None:
    """The run lasts until the thread has ended, however late that is."""
    gate, begun = clock.gate(), list[int]()

    @job(AT_ONCE, timeout=TIMEOUT)
    def subject(ctx: JobContext) -> None:
        begun.append(ctx.run_no)
        gate.wait()

    async with running(cron_app(subject, clock=clock), clock):
        await clock.advance(hours=1)
        assert begun == [1]
        gate.open()
        await clock.advance(seconds=5)
        assert begun == [1, 2]


# Shutdown


async def test_a_run_cut_short_is_due_at_once(clock: FakeClock) -> None:
    """It is `interrupted`, which is no failure, and nothing is waited for before it is repeated."""
    store = MemoryStore(clock)

    @job(AT_ONCE)
    async def subject(ctx: JobContext) -> None:
        await ctx.clock.sleep(60)

    async with running(cron_app(subject, clock=clock, store=store), clock):
        pass
    [run] = await store.history("subject")
    [look] = await store.look(["subject"])
    assert (run.outcome, run.error, look.delay) == ("interrupted", "", timedelta(0))


async def test_a_run_that_ends_because_it_should_stop_is_cut_short(clock: FakeClock) -> None:
    """It has seen `ctx.stopping` and returned, so it may not have done all it had to do."""

    @job(AT_ONCE)
    async def subject(ctx: JobContext) -> str:
        while not ctx.stopping:
            await ctx.clock.sleep(1)
        return "half of it"

    [run] = await runs_of(subject, clock, seconds=0)
    assert (run.outcome, run.note) == ("interrupted", "half of it")


async def test_a_run_that_ends_by_itself_during_the_shutdown_is_ok(clock: FakeClock) -> None:
    """It was not cut short."""

    @job(AT_ONCE)
    async def subject(ctx: JobContext) -> str:
        await ctx.clock.sleep(3)
        return "all of it"

    [run] = await runs_of(subject, clock, seconds=0)
    assert (run.outcome, run.note) == ("ok", "all of it")


def run_of(function: Function, clock: FakeClock, random: RandomSource = RANDOM) -> JobRun:
    """A run of the job, claimed now, which has failed three times before."""
    now, claimed_at = clock.now(), clock.monotonic()
    return JobRun(
        prepare([function], FastAPI())[0],
        Claimed("subject", 1, now, now, 3, requested=False, claimed_at=claimed_at),
        clock=clock,
        random=random,
        state=State(),
        threads=DaemonThreads(1, "test"),
    )


async def test_a_run_cancelled_before_its_first_step_is_interrupted(clock: FakeClock) -> None:
    """Its body has not begun, and still its end is known."""
    begun = list[int]()

    @job(AT_ONCE)
    async def subject(ctx: JobContext) -> None:
        begun.append(ctx.run_no)

    run = run_of(subject, clock)
    run.cancel()
    await asyncio.wait([run.task])
    finish = run.finish()
    assert (finish.outcome, finish.failures, begun) == ("interrupted", 3, [])


@pytest.mark.parametrize("ending", ["looks", "does not look", "fails"])
async def test_a_thread_that_ends_after_its_cancel_says_itself_how(
    clock: FakeClock, ending: str
) -> None:
    """One that did not look at `ctx.stopping` has done it all; what it raises is remembered."""
    gate = clock.gate()

    @job(AT_ONCE)
    def subject(ctx: JobContext) -> str:
        gate.wait()
        if ending == "fails":
            raise ValueError("the reason")
        return "half of it" if ending == "looks" and ctx.stopping else "all of it"

    run = run_of(subject, clock)
    await clock.settle()
    run.cancel()
    await clock.settle()
    gate.open()
    await asyncio.wait([run.task])
    finish = run.finish()
    assert (finish.outcome, finish.note, finish.error) == {
        "looks": ("interrupted", "half of it", ""),
        "does not look": ("ok", "all of it", ""),
        "fails": ("interrupted", "", "ValueError: the reason"),
    }[ending]


async def test_a_run_that_has_ended_loses_no_lease(clock: FakeClock) -> None:
    """What it did, it did in time, though nobody has asked yet how it ended."""

    @job(AT_ONCE)
    async def subject() -> str:
        return "done"

    run = run_of(subject, clock)
    await asyncio.wait([run.task])
    run.lose_lease("too late")
    assert (run.finish().outcome, run.finish().note) == ("ok", "done")


@pytest.mark.parametrize("threaded", [False, True])
async def test_no_body_begins_on_a_lease_that_is_not_trusted(
    clock: FakeClock, *, threaded: bool
) -> None:
    """As when the process was frozen after its claim: another one may have the job."""
    begun = list[int]()

    async def subject(ctx: JobContext) -> None:
        begun.append(ctx.run_no)

    def threaded_subject(ctx: JobContext) -> None:
        begun.append(ctx.run_no)

    run = run_of(job(AT_ONCE)(threaded_subject if threaded else subject), clock)
    run.trusted_until = clock.monotonic()
    await asyncio.wait([run.task])
    finish = run.finish()
    assert (finish.outcome, begun) == ("error", [])
    assert finish.error == "LeaseLost: it ended before the body could begin"


async def test_the_chance_of_what_comes_next_is_its_own(clock: FakeClock) -> None:
    """It follows from the job, the run and what it is for, whatever else is drawn."""
    keys = list[str]()

    @job(AT_ONCE)
    async def subject() -> None:
        raise ValueError

    run = run_of(subject, clock, random=noted(keys))
    await asyncio.wait([run.task])
    run.finish().next_run_at(clock.now(), clock.now())
    assert keys == ["subject:1:body", "subject:1:gap", "subject:1:retry"]


async def test_a_run_ends_as_long_after_its_start_as_it_took(clock: FakeClock) -> None:
    """By the clock that is never set, whatever it shows at the start."""
    await clock.advance(seconds=5)

    @job(AT_ONCE)
    async def subject(ctx: JobContext) -> None:
        await ctx.clock.sleep(2)

    run = run_of(subject, clock)
    started = run.claimed.started_at
    clock.step(hours=1)
    await clock.run(asyncio.wait([run.task]))
    assert run.finish().finished_at == started + timedelta(seconds=2)


async def test_a_task_is_named_after_its_run(clock: FakeClock) -> None:
    """As tools show it that list the tasks of a process."""

    @job(AT_ONCE)
    async def subject() -> None: ...

    run = run_of(subject, clock)
    assert run.task.get_name() == "cron subject:1"
    await asyncio.wait([run.task])


# What a run is given, and what it gives


@pytest.mark.parametrize(
    ("given", "note"),
    [
        (None, ""),
        ("two\nlines", "two lines"),
        (7, "7"),
        ("x" * 1_000, "x" * 500),
        ([*range(1_000)], "[0, 1, 2, 3, 4, 5, ...]"),
    ],
    ids=["nothing", "lines", "a number", "too long", "many"],
)
async def test_a_note_is_one_short_line(clock: FakeClock, given: object, note: str) -> None:
    """Whatever the body returns."""

    @job(AT_ONCE)
    async def subject() -> object:
        return given

    [run] = await runs_of(subject, clock, seconds=0)
    assert (run.outcome, run.note) == ("ok", note)


async def test_a_note_that_cannot_be_told_does_not_fail_the_run(clock: FakeClock) -> None:
    """Then it says of what kind it is."""

    class Broken:
        def __str__(self) -> str:
            raise ValueError

    @job(AT_ONCE)
    async def subject() -> object:
        return Broken()

    [run] = await runs_of(subject, clock, seconds=0)
    assert (run.outcome, run.note) == ("ok", "<Broken>")


async def test_a_def_that_raises_stop_iteration_is_an_error(clock: FakeClock) -> None:
    """Python would let nobody wait for it."""

    @job(AT_ONCE)
    def subject() -> None:
        raise StopIteration

    [run] = await runs_of(subject, clock, seconds=0)
    assert run.error == "RuntimeError: the body raised StopIteration"


async def test_a_def_that_returns_a_coroutine_is_an_error(clock: FakeClock) -> None:
    """Nobody would await it: its author forgot `async`."""

    async def forgotten() -> None:
        """Never awaited."""

    @job(AT_ONCE)
    def subject() -> object:
        return forgotten()

    [run] = await runs_of(subject, clock, seconds=0)
    problem = "it returned a coroutine, which nobody awaits: declare it `async def`"
    assert run.error == f"TypeError: {problem}"


async def test_a_dependency_is_torn_down_when_the_run_is_cancelled(clock: FakeClock) -> None:
    """Before the app ends."""
    ends = list[str]()

    async def resource() -> AsyncIterator[str]:
        try:
            yield "resource"
        finally:
            await asyncio.sleep(0)
            ends.append("torn down")

    @job(AT_ONCE)
    async def subject(ctx: JobContext, value: Annotated[str, Depends(resource)]) -> None:
        await ctx.clock.sleep(60)

    await runs_of(subject, clock, seconds=0)
    assert ends == ["torn down"]


# Writing, where other processes may run the job


def jobs_that_write(note: Any) -> dict[str, Function]:
    """An `async def` and a `def` job that write their number, after `note()`."""

    def write(connection: Connection, run_no: int) -> int:
        connection.execute(text("CREATE TABLE written (run_no INTEGER)"))
        connection.execute(text("INSERT INTO written VALUES (:run_no)"), {"run_no": run_no})
        return run_no

    @job(AT_ONCE, name="subject")
    async def on_loop(ctx: JobContext) -> str:
        note()
        return f"wrote {await ctx.write(partial(write, run_no=ctx.run_no))}"

    @job(AT_ONCE, name="subject")
    def in_thread(ctx: JobContext) -> str:
        note()
        return f"wrote {ctx.write(partial(write, run_no=ctx.run_no))}"

    return {"async def": on_loop, "def": in_thread}


@pytest.mark.parametrize("kind", ["async def", "def"])
async def test_a_run_writes_and_has_what_the_function_returns(
    clock: FakeClock, url: URL, kind: str
) -> None:
    """`ctx.write` is awaited in `async def`, and called in `def`."""
    subject = jobs_that_write(lambda: None)[kind]
    async with replica(clock, url, subject) as one:
        [run] = await one.store.history("subject")
        assert (run.outcome, run.note) == ("ok", "wrote 1")
        assert query(url, "SELECT * FROM written") == [(1,)]


@pytest.mark.parametrize("kind", ["async def", "def"])
@pytest.mark.parametrize("taken", ["owner = 'another'", "run_no = 7", "owner = NULL"])
async def test_a_run_that_is_not_the_last_any_more_writes_nothing(
    clock: FakeClock, url: URL, caplog: Log, kind: str, taken: str
) -> None:
    """It is an error, which it is told as LeaseLost."""
    subject = jobs_that_write(lambda: query(url, f"UPDATE cron_job SET {taken}"))[kind]  # noqa: S608
    async with replica(clock, url, subject):
        assert "written" not in schema(url)
        error = "error: subject run 1 is not the last any more; nothing is written"
        assert f"subject run 1: {error}" in caplog.messages
