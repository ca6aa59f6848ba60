"""How a job is declared, what is refused at start, and the context that each run gets."""

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from functools import partial
from random import Random
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.datastructures import State

from app.cron import JobContext, crontab, every, job
from app.cron.job import Job, JobError, JobLog, collect
from support import FakeClock

Log = pytest.LogCaptureFixture
FIVE_MINUTES = every(minutes=5)


def tick() -> None:
    """What most tests declare, each anew."""


def yields() -> Iterator[int]:
    """A generator."""
    yield 1


async def yields_async() -> AsyncIterator[int]:
    """An asynchronous generator."""
    yield 1


def declared(function: Callable[..., Any]) -> Job:
    """The job that a function declares."""
    [subject] = collect([function])
    return subject


def refusal(*functions: Callable[..., Any]) -> str:
    """What is said of functions that cannot be the jobs of an app. It is always one line."""
    with pytest.raises(JobError) as error:
        collect(functions)
    assert "\n" not in str(error.value)
    return str(error.value)


# The declaration


def test_a_job_is_still_the_function() -> None:
    """`@job` returns what it was given, so that a test can call it."""
    assert job(FIVE_MINUTES)(tick) is tick


def test_a_job_has_the_name_of_its_function() -> None:
    """Unless it is given another."""
    assert declared(job(FIVE_MINUTES)(tick)).name == "tick"


def test_a_job_can_be_given_a_name() -> None:
    """By which it is known for as long as it lives, though the function is renamed."""
    assert declared(job(FIVE_MINUTES, name="old")(tick)).name == "old"


def test_a_job_keeps_its_schedule() -> None:
    """The very one that it was declared with."""
    assert declared(job(FIVE_MINUTES)(tick)).schedule is FIVE_MINUTES


def test_a_job_keeps_its_function() -> None:
    """The very one that was declared."""
    assert declared(job(FIVE_MINUTES)(tick)).function is tick


def test_the_timeout_follows_the_interval() -> None:
    """Of a job that says nothing about it."""
    assert declared(job(FIVE_MINUTES)(tick)).timeout == "interval"


@pytest.mark.parametrize("timeout", [timedelta(seconds=1), timedelta(microseconds=1), None])
def test_a_job_can_be_given_a_timeout(timeout: timedelta | None) -> None:
    """None is never."""
    assert declared(job(FIVE_MINUTES, timeout=timeout)(tick)).timeout == timeout


def test_def_is_for_a_thread() -> None:
    """It would block the event loop."""
    assert declared(job(FIVE_MINUTES)(tick)).threaded is True


def test_async_def_is_for_the_event_loop() -> None:
    """A thread is not needed."""

    @job(FIVE_MINUTES)
    async def tock() -> None: ...

    assert declared(tock).threaded is False


def test_a_partial_of_async_def_is_for_the_event_loop() -> None:
    """It is as asynchronous as what it calls. It has no name of its own."""

    async def tock(size: int) -> None: ...

    assert declared(job(FIVE_MINUTES, name="tock")(partial(tock, 5))).threaded is False


def test_what_has_no_name_is_named_as_it_is_written() -> None:
    """Its repr is no name for a job, and the error shows it."""
    with pytest.raises(JobError, match=r"^job 'functools\.partial\(<function tick at \w+>\)': "):
        collect([job(FIVE_MINUTES)(partial(tick))])


@pytest.mark.parametrize("function", [tick, yields, yields_async])
def test_declaring_never_fails(function: Callable[..., Any]) -> None:
    """Whatever is wrong, an import does not end in a traceback: it is told at start."""
    wrong: Any = "no schedule"
    assert job(wrong, name="no name", timeout=timedelta(-1))(function) is function


@pytest.mark.parametrize("max_late", [timedelta(seconds=1), timedelta(days=9), None])
def test_a_job_can_say_how_late_is_too_late(max_late: timedelta | None) -> None:
    """None, as for one that says nothing, is never: better late than never."""
    assert declared(job(FIVE_MINUTES, max_late=max_late)(tick)).max_late == max_late
    assert declared(job(FIVE_MINUTES)(tick)).max_late is None


def test_a_job_can_be_for_each_process() -> None:
    """Without a word, it is for one of them all."""
    assert declared(job(FIVE_MINUTES, each_process=True)(tick)).each_process is True
    assert declared(job(FIVE_MINUTES)(tick)).each_process is False


# What an app's jobs must be


def test_jobs_are_collected_in_the_order_of_the_list() -> None:
    """As JOBS has them."""
    one = job(FIVE_MINUTES, name="b")(lambda: None)
    two = job(FIVE_MINUTES, name="a")(lambda: None)
    assert [subject.name for subject in collect([one, two])] == ["b", "a"]


def test_an_app_may_have_no_jobs() -> None:
    """There is nothing to refuse."""
    assert collect([]) == []


def test_a_function_without_the_decorator_is_refused() -> None:
    """The message says what to put above it."""

    def plain() -> None: ...

    assert refusal(plain) == f"{plain!r} is not a job: put @job(every(minutes=5)) above it"


def test_two_jobs_of_one_name_are_refused() -> None:
    """One of them would never run."""
    one = job(FIVE_MINUTES)(tick)
    two = job(FIVE_MINUTES, name="tick")(lambda: None)
    message = "job 'tick': 2 jobs have this name; give one @job(..., name=)"
    assert refusal(one, two) == message


def test_a_job_that_is_listed_twice_is_refused() -> None:
    """It would have to be one job or two."""
    subject = job(FIVE_MINUTES)(tick)
    message = "job 'tick': 3 jobs have this name; give one @job(..., name=)"
    assert refusal(subject, subject, subject) == message


@pytest.mark.parametrize("name", ["x", "x" * 100, "Expire_sessions-2.0", "_", "7"])
def test_a_name_is_letters_digits_and_three_signs(name: str) -> None:
    """One to a hundred of them: it stands in addresses, in labels of metrics and in the log."""
    assert declared(job(FIVE_MINUTES, name=name)(tick)).name == name


@pytest.mark.parametrize("name", ["x" * 101, "a b", "a/b", "ñ", "a%s", "a\n", "<b>", 5, b"tick"])
def test_another_name_is_refused(name: Any) -> None:
    """The message shows it, whatever is in it, and one that is right."""
    assert refusal(job(FIVE_MINUTES, name=name)(tick)) == (
        f"job {name!r}: a name is 1 to 100 letters, digits, '_', '-' and '.', as 'expire_sessions'"
    )


def test_a_lambda_needs_a_name() -> None:
    """Its own would be no name."""
    assert refusal(job(FIVE_MINUTES)(lambda: None)).startswith("job '<lambda>': a name is ")


@pytest.mark.parametrize("function", [yields, yields_async, partial(yields)])
def test_a_generator_is_refused(function: Callable[..., Any]) -> None:
    """Nobody would take what it yields, and its body would never run."""
    message = "job 'tick': a job cannot yield; return a note instead"
    assert refusal(job(FIVE_MINUTES, name="tick")(function)) == message


@pytest.mark.parametrize("schedule", [None, 300, "0 3 * * *", timedelta(minutes=5), every])
def test_what_is_no_schedule_is_refused(schedule: Any) -> None:
    """The message shows it, and one that is right."""
    message = f"job 'tick': {schedule!r} is not a schedule, as every(minutes=5) is"
    assert refusal(job(schedule)(tick)) == message


def test_a_wrong_jitter_is_refused_with_the_name_of_the_job() -> None:
    """What the schedule says of itself follows the name."""
    message = "job 'tick': jitter=1.5: jitter is a fraction; 0.1 means plus or minus 10 %"
    assert refusal(job(every(minutes=5, jitter=1.5))(tick)) == message


def test_a_wrong_crontab_is_refused_with_the_name_of_the_job() -> None:
    """What the schedule says of itself follows the name."""
    message = "job 'tick': crontab('no'): it needs five fields; '0 3 * * *' is every day at three"
    assert refusal(job(crontab("no"))(tick)) == message


@pytest.mark.parametrize(
    "timeout", [timedelta(0), timedelta(microseconds=-1), timedelta(days=-1), 0, 30, "30", True]
)
def test_a_timeout_that_is_none_is_refused(timeout: Any) -> None:
    """The message shows it, and what is right."""
    message = f"job 'tick': timeout={timeout!r} must be a positive timedelta, or None for never"
    assert refusal(job(FIVE_MINUTES, timeout=timeout)(tick)) == message


@pytest.mark.parametrize("max_late", [timedelta(0), timedelta(seconds=-1), 0, 30, "30", True])
def test_a_lateness_that_is_none_is_refused(max_late: Any) -> None:
    """The message shows it, and what is right."""
    assert refusal(job(FIVE_MINUTES, max_late=max_late)(tick)) == (
        f"job 'tick': max_late={max_late!r} must be a positive timedelta, "
        "or None: better late than never"
    )


def test_one_wrong_job_is_enough() -> None:
    """An app that cannot run all its jobs does not start."""
    right = job(FIVE_MINUTES, name="right")(lambda: None)
    wrong = job(every(), name="wrong")(lambda: None)
    assert refusal(right, wrong).startswith("job 'wrong': every(seconds=0): ")


# The log of a run


def test_a_line_of_a_run_names_the_job_and_the_run(caplog: Log) -> None:
    """Whoever reads the log sees who speaks."""
    JobLog("tick", 7).info("deleted %d in %s", 5, "all")
    assert caplog.messages == ["tick run 7: deleted 5 in all"]


def test_a_line_of_a_run_carries_the_job_and_the_run(caplog: Log) -> None:
    """As fields, for machines."""
    JobLog("tick", 7).info("done")
    [record] = caplog.records
    assert (vars(record)["job"], vars(record)["run_no"]) == ("tick", 7)


def test_a_line_of_a_run_keeps_the_fields_that_it_is_given(caplog: Log) -> None:
    """They stand beside those of the run."""
    JobLog("tick", 7).info("done", extra={"deleted": 5})
    [record] = caplog.records
    assert (vars(record)["deleted"], vars(record)["job"]) == (5, "tick")


def test_a_line_of_a_run_keeps_its_traceback(caplog: Log) -> None:
    """`exc_info` is passed on."""
    JobLog("tick", 7).error("failed", exc_info=ValueError("the reason"))
    assert "ValueError: the reason" in caplog.text


def test_the_log_of_a_run_is_a_child_of_the_apps() -> None:
    """What sets up the logger `app` sets up this one too."""
    assert JobLog("tick", 7).logger.name.startswith("app.")


def test_a_level_that_is_off_is_off_for_jobs(caplog: Log) -> None:
    """The adapter writes nothing that its logger would not."""
    caplog.set_level(logging.WARNING)
    JobLog("tick", 7).info("done")
    assert not caplog.messages


# The context of a run


CLOCK = FakeClock()


@pytest.fixture
def context() -> JobContext:
    """That of the seventh run of a job."""
    return JobContext(
        name="tick", clock=CLOCK, random=Random(5), run_no=7, state=State({"greeting": "hello"})
    )


def test_a_fence_is_given_the_session_of_the_job() -> None:
    """It is that one whose commit it guards."""
    sessions = list[object]()
    fence: Any = SimpleNamespace(check=sessions.append)
    context = JobContext(
        name="tick", clock=CLOCK, random=Random(5), run_no=7, state=State(), fence=fence
    )
    context.fence("a session")
    assert sessions == ["a session"]


def test_a_run_knows_its_number(context: JobContext) -> None:
    """The seventh run is 7."""
    assert context.run_no == 7


def test_a_run_has_the_clock_of_the_app(context: JobContext) -> None:
    """In a test, the test's."""
    assert context.clock is CLOCK


def test_a_run_has_a_chance_of_its_own(context: JobContext) -> None:
    """The very source that it was given."""
    assert context.random.random() == Random(5).random()


def test_a_run_has_what_the_lifespan_shares(context: JobContext) -> None:
    """By name, as `request.state` in an endpoint."""
    assert context.state.greeting == "hello"


def test_a_run_logs_under_its_name(context: JobContext, caplog: Log) -> None:
    """And its number."""
    context.log.info("done")
    assert caplog.messages == ["tick run 7: done"]


def test_a_run_is_not_stopping_at_first(context: JobContext) -> None:
    """It may take its time."""
    assert context.stopping is False


def test_a_run_that_is_asked_to_stop_is_stopping(context: JobContext) -> None:
    """From then on."""
    context.request_stop()
    assert context.stopping is True
    assert context.stopping is True


def test_a_run_can_be_asked_to_stop_from_another_thread(context: JobContext) -> None:
    """`def` jobs run in one."""
    thread = Thread(target=context.request_stop)
    thread.start()
    thread.join()
    assert context.stopping is True


def test_a_run_that_does_not_look_has_not_seen_the_stop(context: JobContext) -> None:
    """It has ended as if nothing had been asked."""
    context.request_stop()
    assert context.stop_seen is False


def test_a_run_that_looked_too_early_has_not_seen_the_stop(context: JobContext) -> None:
    """What it was told then was to go on."""
    assert not context.stopping
    context.request_stop()
    assert context.stop_seen is False


def test_a_run_that_is_told_to_stop_has_seen_it(context: JobContext) -> None:
    """`stopping` has answered True."""
    context.request_stop()
    assert context.stopping
    assert context.stop_seen is True


@pytest.mark.parametrize(
    ("call", "instead"), [("write", "db.write(function)"), ("fence", "commit without it")]
)
def test_a_run_that_is_kept_in_memory_has_no_fence(
    context: JobContext, call: str, instead: str
) -> None:
    """It has no rival either: it is told what to do instead."""
    with pytest.raises(RuntimeError) as error:
        getattr(context, call)(None)
    problem = "this run is kept in memory, where it has no rival"
    assert str(error.value) == f"{problem}: {instead}"
