"""Stores in a test: jobs to put into them, what a process says to them, and what is in the file."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import event

from app.cron.clock import Clock
from app.cron.database import Database
from app.cron.sql_store import SqlStore
from app.cron.store import Claim, Claimed, Finish, Look, Outcome, Registration, Store

from .clock import FakeClock
from .databases import Subject, url_of
from .process import Process

INTERVAL = timedelta(minutes=5)
LEASE = timedelta(seconds=30)
NOW = timedelta(0)

RIVAL = Path(__file__).with_name("rival.py")


# What a process says to a store


def first_in(delay: timedelta, name: str = "tick", *, steady: bool = True) -> Registration:
    """A job that is due for the first time in so long, and at the latest in a day."""
    return Registration(
        name, lambda now: now + delay, lambda now: now + timedelta(days=1), steady=steady
    )


def after(run_no: int, name: str = "tick", delay: timedelta = INTERVAL) -> Claim:
    """The wish to run what comes after a run, and then again in so long."""
    return Claim(name, run_no, lambda now: now + delay)


async def claim(store: Store, run_no: int = 0, delay: timedelta = INTERVAL) -> Claimed:
    """The run after `run_no`, which can be had."""
    [claimed] = await store.claim([after(run_no, delay=delay)])
    return claimed


async def look_at(store: Store, name: str = "tick") -> Look:
    """What the store says of the job."""
    [look] = await store.look([name])
    return look


async def delay_of(store: Store, name: str = "tick") -> timedelta:
    """In how long the job is due."""
    return (await look_at(store, name)).delay


def ended(claimed: Claimed, outcome: Outcome, seconds: float = 0) -> Finish:
    """The end of a run that took so long, whose next one stays due when it was."""
    return Finish(
        claimed.name,
        claimed.run_no,
        claimed.started_at + timedelta(seconds=seconds),
        outcome,
        note="",
        error="",
        failures=0,
        next_run_at=lambda _, due: due,
    )


def ok(claimed: Claimed, note: str = "", seconds: float = 0) -> Finish:
    """The good end of a run that took so long, whose next one stays due when it was."""
    return replace(ended(claimed, "ok", seconds), note=note)


def failed(claimed: Claimed, failures: int = 1, retry: timedelta = timedelta(seconds=5)) -> Finish:
    """The bad end of a run, after which the next one is due in so long."""
    return Finish(
        claimed.name,
        claimed.run_no,
        claimed.started_at,
        "error",
        note="",
        error="ValueError: the reason",
        failures=failures,
        next_run_at=lambda now, _: now + retry,
    )


# How a run stops being its job's last


async def end_it(one: SqlStore, two: SqlStore, clock: FakeClock, run: Claimed) -> None:
    """By its own end."""
    await one.finish([ok(run, "the first word")])


async def take_it(one: SqlStore, two: SqlStore, clock: FakeClock, run: Claimed) -> None:
    """By another process, when the lease was over."""
    await clock.advance(LEASE)
    await claim(two, run.run_no)


async def claim_it_anew(one: SqlStore, two: SqlStore, clock: FakeClock, run: Claimed) -> None:
    """By a later run of the same process: as a leader who is elected twice, it has a new term."""
    await clock.advance(LEASE)
    await claim(one, run.run_no)


async def forget_and_take_it(one: SqlStore, two: SqlStore, clock: FakeClock, run: Claimed) -> None:
    """By another process, when the job was forgotten: its first run has the same number."""
    await clock.advance(LEASE)
    await two.forget(run.name)
    await look_at(two)  # that makes its row anew
    await claim(two)


LOSSES = [end_it, take_it, claim_it_anew, forget_and_take_it]
"""`one` has the first run of a job that is due again; `two` is another process."""


# Stores in a database


def sql_store(
    database: Database, clock: Clock, owner: str = "one", lease: timedelta = LEASE
) -> SqlStore:
    """A process's store. Another owner on the same database is another process."""
    return SqlStore(database, clock, owner=owner, lease=lease)


@contextmanager
def on_each_statement(database: Database, call: Callable[[str], object]) -> Iterator[None]:
    """In the block, call it after each statement of a write, in the writer's thread."""

    def after_statement(_: Any, __: Any, statement: str, *___: Any) -> None:
        call(statement)

    engine = database._write_engine
    event.listen(engine, "after_cursor_execute", after_statement)
    try:
        yield
    finally:
        event.remove(engine, "after_cursor_execute", after_statement)


def compete(subject: Subject, counter: Path, *, processes: int, runs: int) -> None:
    """Let so many processes, which begin at the same moment, compete for the runs of one job.

    What each does, and what the counter counts, says `rival.py`. It fails if one of them does.
    """
    url = url_of(subject).render_as_string(hide_password=False)
    arguments = (str(RIVAL), url, str(counter), f"{runs}")
    with ExitStack() as stack:
        rivals = [
            stack.enter_context(Process(counter.parent, *arguments, environment={}))
            for _ in range(processes)
        ]
        for rival in rivals:
            rival.wait_for("ready")
        (counter.parent / "go").touch()
        assert [rival.wait_for_end() for rival in rivals] == [0] * processes
        assert [rival.output for rival in rivals] == ["ready\n"] * processes
