"""What is asked of every job: the clauses, each of which says what it has found wrong.

A job is run many times on a database of its own, cancelled and killed wherever it waits, and
followed by another run. What `arrange` puts there is what it has to do: without, little can go
wrong.
"""

import re
import socket
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import time_machine
from blockbuster import BlockBuster, BlockBusterFunction, BlockingError
from sqlalchemy import NullPool, create_engine, select
from sqlalchemy.exc import DBAPIError

from app.cron.job import Function
from app.cron.scheduler import CANCEL_SECONDS
from app.db import metadata

from .leftovers import is_locked
from .trial import Arrange, Bench, Overrides, Rows, Trial, copy, quiet, rows_of
from .watch import Step

# Between two awaits on the event loop. More keeps requests waiting. CPU time, not real time.
COMPUTING_SECONDS_MAX = 0.1

# What one statement changes at most: on SQLite all other writers wait for it.
ROWS_MAX = 5_000

# How often a run is cancelled, killed or overtaken at most: at one line, and in all. A loop comes
# by the same line again and again.
STEPS_PER_LINE_MAX = 3
STEPS_MAX = 25

# So long after the end of a run its lease is over for sure, and another process may have the job.
LEASE_OVER = timedelta(minutes=1)

# When the machine says that it is, while a run is asked to go by its own clock.
ELSEWHEN = datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC)


class Subject:
    """A job on its bench, and the database that each of its runs begins with."""

    def __init__(self, bench: Bench, start: Path, usual: Trial) -> None:
        self.bench = bench
        self.start = start
        self.usual = usual
        """A run that nothing disturbs."""

    @classmethod
    async def of(
        cls, function: Function, folder: Path, arrange: Arrange, overrides: Overrides
    ) -> "Subject":
        """Put it there, and run it once. The databases are made in the folder."""
        bench = Bench(function, folder, overrides)
        start = await bench.prepare(arrange)
        return cls(bench, start, await bench.run(start))

    @property
    def steps(self) -> list[int]:
        """The numbers of the moments at which it is to be disturbed while it waits."""
        return [index + 1 for index in spread(self.usual.watch.places)]


Clause = Callable[[Subject], AsyncIterator[str]]


async def completes(subject: Subject) -> AsyncIterator[str]:
    """It is ok, within its timeout, writes what can be read, and leaves nothing behind."""
    usual = subject.usual
    if usual.watch.endless:
        yield (
            f"it does not come to an end, and was broken off at {usual.watch.endless}: end its "
            "loop or its wait, or give it less to do in `add_data`"
        )
    elif usual.finish.outcome != "ok":
        yield f"its run ends as {_end(usual)}. {_advice(usual.finish.error)}"
    before = rows_of(subject.start)
    for table, error in unreadable(usual, before):
        places = [usual.failed_at]

        def look(step: Step, table: str = table, places: list[str] = places) -> None:
            if rows_of(step.database)[table] == before[table]:  # so nothing is committed yet
                places.append(step.place)

        await subject.bench.run(subject.start, states=look)
        yield (
            f"it writes into {table} what its columns cannot read, at {places[-1]}: {error}. "
            "`text()` knows no column's type: tell it, as by "
            "`.bindparams(bindparam('at', type_=Moment))`"
        )
    for what in usual.left:
        yield f"when it has ended, it leaves {what}"


async def is_repeatable(subject: Subject) -> AsyncIterator[str]:
    """With the same clock, chance and data it does the same: it asks its run for both."""
    travel = time_machine.travel(ELSEWHEN, tick=False)
    usual, again = subject.usual, await subject.bench.run(subject.start, around=travel, asking=True)
    asked = ", ".join(dict.fromkeys(again.watch.asked))
    for what, (one, two) in {
        "writes": difference(usual.rows, again.rows),
        "returns": (repr(usual.finish.note), repr(again.finish.note)),
    }.items():
        if one != two:
            yield (
                f"with the same clock, chance and data it {what} {one}, and then {two}"
                f"{f'. It asks {asked}' if asked else ''}. Take time from `ctx.clock`, and chance, "
                "that of new ids too, from `ctx.random`"
            )


async def can_be_cancelled(subject: Subject) -> AsyncIterator[str]:
    """Wherever it waits: it ends soon, leaves nothing, and the next run completes."""
    if subject.bench.job.threaded:
        return
    for number in subject.steps:
        cancelled: list[tuple[str, float]] = []

        def cancel(
            step: Step, number: int = number, cancelled: list[tuple[str, float]] = cancelled
        ) -> None:
            if step.number == number:
                cancelled.append((f"cancelled at {step}", step.run.context.clock.monotonic()))
                step.run.cancel()

        trial = await subject.bench.run(subject.start, waits=cancel)
        for where, moment in cancelled:  # not if it has come by on another way this time
            if not trial.cancelled:
                yield f"{where}, it goes on: raise CancelledError again where you catch it"
            if (seconds := trial.ended - moment) > CANCEL_SECONDS:
                yield (
                    f"{where}, it takes {seconds:g} s more, and has {CANCEL_SECONDS:g} s: "
                    "do not wait in `except` and `finally`"
                )
            for what in trial.left:
                yield f"{where}, it leaves {what}"
            after = await subject.bench.run(forgotten(trial.database))
            if after.finish.outcome != "ok":
                yield f"{where}, its next run ends as {_end(after)}"


async def can_be_killed(subject: Subject) -> AsyncIterator[str]:
    """Wherever it waits or begins a statement: run again at the same moment, with the same chance,
    it ends as if nothing had happened."""
    _, found = await killed(subject)
    for where, path in found:
        again = await subject.bench.run(forgotten(path))
        one, two = difference(subject.usual.rows, again.rows)
        if again.finish.outcome != "ok":
            yield (
                f"killed at {where} and run again, its run ends as {_end(again)}. Let it take what "
                "it finds half done"
            )
        elif one != two:
            yield (
                f"killed at {where} and run again, it leaves {two}, and without a kill {one}. "
                "Write it so that twice is as once: by a key and `ON CONFLICT`, say, or what is "
                "done is marked so in the transaction that does it"
            )


async def can_be_taken_over(subject: Subject) -> AsyncIterator[str]:
    """Killed, and run again by another process: later, so with another time and chance. What it
    leaves may have these, but no more rows, and no fewer, than a run leaves at either time."""
    ended, found = await killed(subject)
    later = timedelta(seconds=ended) + LEASE_OVER
    usual = await subject.bench.run(subject.start, later=later)
    if usual.finish.outcome != "ok":
        yield f"begun {later} later, its run ends as {_end(usual)}. {_advice(usual.finish.error)}"
        return
    for where, path in found:
        again = await subject.bench.run(path, later=later)
        if again.finish.outcome != "ok":
            yield (
                f"killed at {where} and taken over later, its run ends as {_end(again)}. Let it "
                "take what it finds half done, also from a run that was not itself"
            )
            continue
        for table, rows in again.rows.items():
            counts = {len(trial.rows[table]) for trial in (subject.usual, usual)}
            if not min(counts) <= len(rows) <= max(counts):
                yield (
                    f"killed at {where} and taken over later, it leaves {len(rows):,} rows in "
                    f"{table}, and without a kill {' or '.join(f'{n:,}' for n in sorted(counts))}. "
                    "The run that takes over has another time, number and chance: make the key of "
                    "a row of what the row is about, such as a user or a day. If each run is to "
                    "leave a row, let it off in EXCEPT"
                )


async def never_blocks_the_loop(subject: Subject) -> AsyncIterator[str]:
    """No step of it keeps requests waiting, neither by a call nor by computing."""
    if subject.bench.job.threaded:
        return
    calls: list[str] = []
    once, again = [
        await subject.bench.run(subject.start, around=blocking_calls(subject, calls), traced=False)
        for _ in range(2)
    ]
    for call in dict.fromkeys(calls):
        yield (
            f"it calls {call} on the event loop, and all requests wait for it. Make it a `def` "
            "job, or await what does the same"
        )
    # Once, the garbage collector may have come in between.
    seconds, where = min(once.watch.longest, again.watch.longest)
    if seconds > COMPUTING_SECONDS_MAX:
        yield (
            f"it computes for {seconds * 1000:.0f} ms {where}, and all requests wait for it: "
            f"{COMPUTING_SECONDS_MAX * 1000:.0f} ms are much. Make it a `def` job, or give that to "
            "`asyncio.to_thread`"
        )


async def notices_a_stop(subject: Subject) -> AsyncIterator[str]:
    """A `def` job looks at `ctx.stopping`, unless it is soon over anyway."""
    if not subject.bench.job.threaded:
        return
    trial = await subject.bench.run(subject.start, stop=True)
    if trial.watch.endless:
        yield (
            f"asked to stop, it goes on and on at {trial.watch.endless}: look at `ctx.stopping` "
            "in each round, and return"
        )


async def is_fenced(subject: Subject) -> AsyncIterator[str]:
    """A run that was overtaken writes nothing more: another one may be under way."""
    if subject.bench.job.each_process:
        return  # it has no rival
    free: dict[int, str] = {}

    def look(step: Step) -> None:  # while somebody writes, no other can claim the job
        if not is_locked(step.database):
            free[step.number] = str(step)

    await subject.bench.run(subject.start, states=look)
    numbers = list(free)
    for index in spread(list(free.values())):
        overtaken: list[tuple[str, Rows]] = []

        def overtake(
            step: Step,
            number: int = numbers[index],
            overtaken: list[tuple[str, Rows]] = overtaken,
        ) -> None:
            if step.number == number and not is_locked(step.database):
                with closing(sqlite3.connect(step.database)) as connection:
                    connection.execute("UPDATE cron_job SET run_no = run_no + 1, owner = 'another'")
                    connection.commit()
                overtaken.append((str(step), rows_of(step.database)))

        trial = await subject.bench.run(subject.start, states=overtake)
        for where, rows in overtaken:
            if trial.rows != rows:
                yield (
                    f"overtaken by another run at {where}, it writes all the same: use "
                    "`ctx.write`, or `ctx.fence(session)` as the last thing before your commit"
                )


async def holds_up_no_writer(subject: Subject) -> AsyncIterator[str]:
    """No statement of it changes so much that others wait for it."""
    rows, statement = subject.usual.watch.changed
    if rows > ROWS_MAX:
        yield (
            f"one statement of it changes {rows:,} rows, and all other writers wait for it: "
            f"{statement}. Take at most {ROWS_MAX:,} at a time, as `delete_in_chunks` does"
        )


CLAUSES: dict[str, Clause] = {
    clause.__name__: clause
    for clause in (
        completes,
        is_repeatable,
        can_be_cancelled,
        can_be_killed,
        can_be_taken_over,
        never_blocks_the_loop,
        notices_a_stop,
        is_fenced,
        holds_up_no_writer,
    )
}


async def complaints(subject: Subject, clauses: Sequence[str]) -> list[str]:
    """What is wrong with the job, by these clauses. If it does not even complete, only that, and
    what may be the reason. One that is not repeatable is not killed, and one that a kill harms is
    not taken over: that would complain of the same again."""
    if subject.usual.watch.endless:
        clauses = [clause for clause in clauses if clause == "completes"]
    elif subject.usual.finish.outcome != "ok":
        clauses = [clause for clause in clauses if clause in ("completes", "never_blocks_the_loop")]
    in_turn = ["is_repeatable", "can_be_killed", "can_be_taken_over"]
    found: dict[str, list[str]] = {}
    with quiet():  # hundreds of runs: the log has the one that nothing disturbed
        for clause in clauses:
            if clause not in in_turn or not any(map(found.get, in_turn)):
                found[clause] = [
                    f"job {subject.bench.job.name!r}, {clause}: {what}"
                    async for what in CLAUSES[clause](subject)
                ]
    # A loop comes by the same line again and again.
    return list(dict.fromkeys(what for each in found.values() for what in each))


def spread(places: Sequence[str]) -> list[int]:
    """Which of the moments to try, by their places: each place once before any comes again."""
    seen = Counter[str]()
    ranked: list[tuple[int, int]] = []
    for index, place in enumerate(places):
        seen[place] += 1
        if seen[place] <= STEPS_PER_LINE_MAX:
            ranked.append((seen[place], index))
    return sorted(index for _, index in sorted(ranked)[:STEPS_MAX])


async def killed(subject: Subject) -> tuple[float, list[tuple[str, Path]]]:
    """When a run of it ends, on the clock; and where its process may be killed until then, each
    with the database that this would leave."""
    found: dict[str, tuple[str, Path]] = {}

    def keep(step: Step) -> None:
        rows = repr(rows_of(step.database))
        if rows not in found:
            path = subject.bench.new_path()
            copy(step.database, path)
            found[rows] = str(step), path

    last = await subject.bench.run(subject.start, waits=keep, states=keep)
    found.setdefault(repr(last.rows), ("its end", last.database))
    each = list(found.values())
    return last.ended, [each[index] for index in spread([where for where, _ in each])]


def forgotten(path: Path) -> Path:
    """Let the engine forget the run: the next one has the same number, and so the same chance."""
    with closing(sqlite3.connect(path)) as connection:
        for table in ("cron_job", "cron_run", "cron_process"):
            connection.execute(f"DELETE FROM {table}")  # noqa: S608 -- a name of ours
        connection.commit()
    return path


def difference(one: Rows, two: Rows) -> tuple[str, str]:
    """What only the first has, and what only the second has, in words. Equal: two empty ones."""
    for table in one:
        old, new = Counter(one[table]), Counter(two.get(table, []))
        if old != new:
            return _some(table, old - new), _some(table, new - old)
    return "", ""


def _some(table: str, rows: Counter[tuple[Any, ...]]) -> str:
    first = next(iter(rows), "none of these")
    return f"{table}: {f'{rows.total():,} rows such as ' if rows.total() > 1 else ''}{first}"


def unreadable(trial: Trial, before: Rows) -> Iterator[tuple[str, Exception]]:
    """Tables that it has changed and of which the app cannot read what they hold, and why not."""
    engine = create_engine(f"sqlite:///{trial.database}", poolclass=NullPool)
    with engine.connect() as connection:
        for table in metadata.sorted_tables:
            if trial.rows.get(table.name) != before.get(table.name):
                try:
                    connection.execute(select(table)).all()
                except DBAPIError:  # a migration is missing
                    continue
                except Exception as error:  # noqa: BLE001 -- each type fails in its own way
                    yield table.name, error


def _end(trial: Trial) -> str:
    return f"{trial.finish.outcome} at {trial.failed_at}: {trial.finish.error}"


def _advice(error: str) -> str:
    if re.search("no such (table|column)|has no column", error):
        return "A migration is missing, in `app/migrations/versions`"
    if "offset-naive" in error:
        return "Take time from `ctx.clock`, and give that of others a zone"
    if re.match(r"\w*(Connect|Network|Timeout|URL|gaierror)", error):
        return "Give it in OVERRIDES what stands for others' services"
    return "If it lacks rows, give it some in `add_data`"


@contextmanager
def blocking_calls(subject: Subject, calls: list[str]) -> Iterator[None]:
    """In the block, a call of the job's that blocks the event loop raises, and is noted."""

    class Noted(BlockingError):  # the job may catch it
        def __init__(self, call: str) -> None:
            calls.append(f"{call} at {subject.usual.watch.here()}")
            super().__init__(call)

    modules, excluded = ["app", subject.bench.module], ["app.cron"]
    detector = BlockBuster(modules, excluded_modules=excluded)
    detector.functions["socket.getaddrinfo"] = BlockBusterFunction(
        socket, "getaddrinfo", scanned_modules=modules, excluded_modules=excluded
    )
    with patch("blockbuster.blockbuster.BlockingError", Noted):
        detector.activate()
        try:
            yield
        finally:
            detector.deactivate()
