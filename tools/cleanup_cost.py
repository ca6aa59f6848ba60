"""Measures what it costs to delete much: the time it takes, and what others wait for meanwhile.

Usage: .venv/bin/python tools/cleanup_cost.py [--rows N] [--rounds N] [--folder FOLDER]

A tenth of N sessions have expired, here and there in the table. They are deleted by the job
`expire_sessions`, by one big DELETE, and row by row with a commit each, while an app makes a
session every 10 ms: in the same process, or in another one. Each measurement has a fresh copy of
the file and stands beside the others of its round, as the machine is never the same for long.

At the end come a table and the promises. Exit code 1: one is broken.
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from uuid import uuid4

from fastapi import FastAPI
from sqlalchemy import Connection, Executable, delete, insert, select
from sqlalchemy.exc import OperationalError

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "{{cookiecutter.project_slug}}"))

from app.cron.clock import SystemClock, seeded
from app.cron.database import Database
from app.cron.inject import prepare
from app.cron.moment import to_microseconds
from app.cron.scheduler import Scheduler
from app.cron.sql_store import SqlStore
from app.cron.sqlite import SqliteDatabase
from app.db import get_database, upgrade_schema
from app.jobs.expire_sessions import expire_sessions
from app.sessions import sessions

WRITE_EVERY_SECONDS = 0.01

# The app writes for so long before the deletion begins.
WARM_UP_SECONDS = 0.3

# Row by row takes the same time for each row, and all rows would take a minute.
ROW_BY_ROW_MAX = 20_000

BIG, ROWS, CHUNKS = "one DELETE", "row by row", "delete_in_chunks"
SAME, OTHER = "same process", "other process"

SECONDS_MAX = 3.0
"""`delete_in_chunks` takes at most so many times as long as one big DELETE."""
WAIT_MAX = 0.2
"""A write waits at most for this part of what it waits for one big DELETE."""
GAIN_MIN = 8.0
"""Row by row takes at least so many times as long as `delete_in_chunks`."""


@dataclass
class Writes:
    """What became of the app's writes: how long each took, from when it was due, and failures."""

    waits: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Measurement:
    """One deletion, and the app's writes around it."""

    seconds: float
    wait_seconds_max: float
    errors: int
    log_bytes: int


Key = tuple[str, str]
"""Where the app writes, and how the rows are deleted."""


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="in the table (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of all ways (%(default)s)")
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    parser.add_argument("--write-to", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.write_to:
        asyncio.run(write_until_told(options.write_to))
        return 0
    expired = options.rows // 10
    with tempfile.TemporaryDirectory(prefix="cleanup-cost-", dir=options.folder) as folder:
        print(f"{expired:,} of {options.rows:,} sessions, {options.rounds} rounds, in {folder}")
        original = Path(folder, "original.db")
        asyncio.run(make(original, options.rows, expired))
        measured = measure_all(original, options.rows, expired, options.rounds)
    promises = judge(measured)
    print("", *table(measured), "", *(line for _, line in promises), sep="\n")
    if expired > ROW_BY_ROW_MAX:
        print(f"'{ROWS}' is what {ROW_BY_ROW_MAX:,} rows took, times {expired / ROW_BY_ROW_MAX:g}")
    return 0 if all(kept for kept, _ in promises) else 1


async def make(path: Path, rows: int, expired: int) -> None:
    """Make a database in which so many sessions, anywhere in the table, have expired."""
    with closing(SqliteDatabase(path)) as database:
        await upgrade_schema(database, SystemClock())
    chance, day = random.Random("sessions"), 24 * 60 * 60 * 1_000_000
    over, now = set(chance.sample(range(rows), expired)), to_microseconds(datetime.now(UTC))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA cache_size = -400000")  # or it takes a minute
        connection.executemany(
            "INSERT INTO sessions VALUES (?, ?, ?)",
            (
                (
                    f"{chance.getrandbits(128):032x}",
                    f"user {row % 1_000}",
                    now - chance.randrange(day)
                    if row in over
                    else now + chance.randrange(1, 30) * day,
                )
                for row in range(rows)
            ),
        )


def measure_all(
    original: Path, rows: int, expired: int, rounds: int
) -> dict[Key, list[Measurement]]:
    """Measure each way, with the app in each place, in each round."""
    some = min(expired, ROW_BY_ROW_MAX)
    ways: dict[str, tuple[Callable[[Database], Awaitable[None]], int]] = {
        BIG: (delete_at_once, expired),
        CHUNKS: (partial(delete_by_job, expired=expired), expired),
        ROWS: (partial(delete_row_by_row, count=some), some),
    }
    measured: dict[Key, list[Measurement]] = {}
    for number in range(1, rounds + 1):
        for place in (SAME, OTHER):
            for name, (way, deleted) in ways.items():
                path = original.with_name("copy.db")
                copy(original, path)
                one = asyncio.run(measure(path, way, elsewhere=place == OTHER))
                check(path, rows, expired, deleted)
                if name == ROWS:
                    one = replace(one, seconds=one.seconds * expired / some)
                measured.setdefault((place, name), []).append(one)
                print(f"round {number}, {place}, {name}: {one.seconds:.2f} s", flush=True)
    return measured


def copy(original: Path, path: Path) -> None:
    """Make a fresh copy, and wait until it is on the disk: what follows is measured."""
    for old in path.parent.glob(f"{path.name}*"):
        old.unlink()
    shutil.copyfile(original, path)
    with path.open("r+b") as file:
        os.fsync(file.fileno())


async def measure(
    path: Path, way: Callable[[Database], Awaitable[None]], *, elsewhere: bool
) -> Measurement:
    """Delete in one way, while an app writes."""
    with closing(SqliteDatabase(path)) as database:
        async with write_elsewhere(path) if elsewhere else write_here(database) as writes:
            started = time.monotonic()
            await way(database)
            seconds = time.monotonic() - started
        log_bytes = path.with_name(f"{path.name}-wal").stat().st_size
    return Measurement(seconds, max(writes.waits), len(writes.errors), log_bytes)


def check(path: Path, rows: int, expired: int, deleted: int) -> None:
    """Make sure that just what should be gone is gone, or nothing has been measured."""
    with closing(sqlite3.connect(path)) as connection:
        now = to_microseconds(datetime.now(UTC))
        query = "SELECT count(*) FROM sessions WHERE expires_at <= ? AND user LIKE 'user %'"
        [left] = connection.execute(query, (now,)).fetchone()
        [all_left] = connection.execute(query, (sys.maxsize,)).fetchone()
    assert (left, all_left) == (expired - deleted, rows - deleted), (left, all_left)


def to_execute(statement: Executable) -> Callable[[Connection], object]:
    """Return what a transaction is to do: this statement."""
    return lambda connection: connection.execute(statement)


# The ways to delete


async def delete_at_once(database: Database) -> None:
    """One statement, in the writer's thread."""
    statement = delete(sessions).where(sessions.c.expires_at <= datetime.now(UTC))
    await database.write(to_execute(statement))


async def delete_row_by_row(database: Database, count: int) -> None:
    """Read what has expired on a read connection, and commit after each row."""
    query = select(sessions.c.id).where(sessions.c.expires_at <= datetime.now(UTC)).limit(count)
    for id_ in await database.read(lambda connection: connection.execute(query).scalars().all()):
        statement = delete(sessions).where(sessions.c.id == id_)
        await database.write(to_execute(statement))


async def delete_by_job(database: Database, expired: int) -> None:
    """Run the service's job as the service does: claimed, fenced, with heartbeats."""
    app, clock = FastAPI(), SystemClock()
    app.dependency_overrides[get_database] = lambda: database
    async with Scheduler(
        prepare([expire_sessions], app),
        store=SqlStore(database, clock, owner="tool", lease=timedelta(seconds=30)),
        clock=clock,
        random=seeded(None),
        state={},
        claims=False,
    ) as scheduler:
        finish = await scheduler.run("expire_sessions")
    assert finish, "it is running elsewhere"
    assert (finish.outcome, finish.note) == ("ok", f"deleted {expired}"), finish


# The app that writes


async def write(database: Database, writes: Writes, stop: asyncio.Event) -> None:
    """Make a session every 10 ms. Where one takes longer, the next is made at once."""
    later = datetime.now(UTC) + timedelta(days=1)
    due = time.monotonic()
    while not stop.is_set():
        statement = insert(sessions).values(id=uuid4().hex, user="app", expires_at=later)
        try:
            await database.write(to_execute(statement))
        except OperationalError as error:
            writes.errors.append(str(error.orig))
        now = time.monotonic()
        writes.waits.append(now - due)
        due = max(now, due + WRITE_EVERY_SECONDS)
        await asyncio.sleep(due - now)


@asynccontextmanager
async def write_here(database: Database) -> AsyncIterator[Writes]:
    """Let an app in this process write while the block lasts."""
    writes, stop = Writes(), asyncio.Event()
    task = asyncio.create_task(write(database, writes, stop))
    await asyncio.sleep(WARM_UP_SECONDS)
    yield writes
    stop.set()
    await task


@asynccontextmanager
async def write_elsewhere(path: Path) -> AsyncIterator[Writes]:
    """Let an app in another process write while the block lasts."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, "--write-to", path),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        limit=2**24,
    )
    assert process.stdout
    writes = Writes()
    try:
        assert await process.stdout.readline() == b"writing\n"
        yield writes
        output, _ = await process.communicate(b"stop\n")
        said = json.loads(output)
        writes.waits, writes.errors = said["waits"], said["errors"]
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def write_until_told(path: Path) -> None:
    """Be that other process."""
    with closing(SqliteDatabase(path)) as database:
        async with write_here(database) as writes:
            print("writing", flush=True)
            await asyncio.to_thread(sys.stdin.readline)
    print(json.dumps({"waits": writes.waits, "errors": writes.errors}))


# What came of it


def seconds(measured: Iterable[Measurement]) -> float:
    """Return how long it took, in the middle of the rounds."""
    return statistics.median(one.seconds for one in measured)


def longest_wait(measured: Iterable[Measurement]) -> float:
    """Return what a write waited for, in the worst of the rounds."""
    return max(one.wait_seconds_max for one in measured)


def judge(measured: Mapping[Key, Sequence[Measurement]]) -> list[tuple[bool, str]]:
    """Return for each promise whether it is kept, and a line about it."""
    promises = []
    for place in (SAME, OTHER):
        big, rows, chunks = (measured[place, way] for way in (BIG, ROWS, CHUNKS))
        slower = seconds(chunks) / seconds(big)
        wait = longest_wait(chunks) / longest_wait(big)
        gain = seconds(rows) / seconds(chunks)
        errors = sum(one.errors for one in chunks)
        for kept, line in (
            (slower <= SECONDS_MAX, f"{slower:.2f} x the time of {BIG} (at most {SECONDS_MAX:g})"),
            (wait <= WAIT_MAX, f"{wait:.2f} x the longest wait (at most {WAIT_MAX:g})"),
            (gain >= GAIN_MIN, f"{gain:.2f} x faster than {ROWS} (at least {GAIN_MIN:g})"),
            (errors == 0, f"failed writes: {errors} (at most 0)"),
        ):
            promises.append((kept, f"{'kept  ' if kept else 'BROKEN'}  {place}: {line}"))
    return promises


def table(measured: Mapping[Key, Sequence[Measurement]]) -> list[str]:
    """Return the table: the time in the middle of the rounds, else the worst of them."""
    lines = [f"{'the app writes in':<18}{'deleted by':<18}{'seconds':>8}{'longest wait':>14}"]
    lines[0] += f"{'failed writes':>15}{'log':>9}"
    for (place, way), each in sorted(measured.items(), reverse=True):
        log = max(one.log_bytes for one in each) / 1_000_000
        failed = sum(one.errors for one in each)
        lines.append(
            f"{place:<18}{way:<18}{seconds(each):8.2f}{longest_wait(each) * 1_000:11.0f} ms"
            f"{failed:15}{log:6.0f} MB"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
