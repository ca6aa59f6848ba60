"""What both databases have: real ones, real threads. What must wait waits for an event, never for
time. What SQLite alone has is in `test_sqlite.py`, what Postgres has in `test_postgres.py`."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import URL, Connection
from sqlalchemy.exc import DBAPIError, OperationalError

from app.cron.database import READERS, Database
from app.db import database_at
from support.counts import Over, create, increment, over_after, read_count, set_count
from support.databases import busy
from support.process import REAL_SECONDS_MAX


@pytest.fixture
def database(url: URL) -> Iterator[Database]:
    """A database that has a table of one count, 0."""
    with closing(database_at(url)) as database:
        database.check()
        database.write_here(create)
        yield database


def thread_name(_: Connection) -> str:
    """The name of the thread that this runs in."""
    return threading.current_thread().name


# Writing


async def test_a_write_is_committed(database: Database) -> None:
    """Whoever reads after it sees it."""
    await database.write(increment)
    assert await database.read(read_count) == 1


async def test_a_write_answers(database: Database) -> None:
    """With what its function returns."""
    assert await database.write(lambda _: "answer") == "answer"


@pytest.mark.parametrize("kind", [ValueError, SystemExit, asyncio.CancelledError])
async def test_a_write_that_raises_is_rolled_back(
    database: Database, kind: type[BaseException]
) -> None:
    """As if nothing had been done, whatever was raised."""

    def fail(connection: Connection) -> None:
        increment(connection)
        raise kind

    with pytest.raises(kind):
        await database.write(fail)
    assert await database.read(read_count) == 0


async def test_a_write_that_raises_says_what(database: Database) -> None:
    """The caller gets the very error."""
    error = ValueError("the reason")

    def fail(_: Connection) -> None:
        raise error

    with pytest.raises(ValueError, match="the reason") as raised:
        await database.write(fail)
    assert raised.value is error


async def test_after_a_write_that_raised_others_succeed(database: Database) -> None:
    """It has let go of the database."""
    with pytest.raises(DBAPIError):
        await database.write(lambda connection: connection.exec_driver_sql("no SQL"))
    await database.write(increment)
    assert await database.read(read_count) == 1


async def test_a_def_job_waits_for_its_write(database: Database) -> None:
    """`write_here` takes its turn in the writer's thread like all writes, and returns after it."""

    def increment_here(connection: Connection) -> str:
        increment(connection)
        return thread_name(connection)

    assert database.write_here(increment_here).startswith("database-writer")
    assert await database.read(read_count) == 1


async def test_a_write_within_a_write_is_refused(database: Database) -> None:
    """It would wait for itself, and all others with it."""
    with pytest.raises(RuntimeError, match=r"^a write within a write would wait for itself$"):
        await database.write(lambda _: database.write_here(increment))
    await database.write(increment)
    assert await database.read(read_count) == 1


async def test_after_a_write_its_thread_is_a_thread_like_others(database: Database) -> None:
    """Another one may later have its number: it is not in a write."""
    await database.write(increment)
    assert database._writing == set()


async def test_a_write_is_a_plain_function(database: Database) -> None:
    """An `async def` would have written nothing, and nobody would know."""

    async def increment_later(connection: Connection) -> None:
        increment(connection)

    with pytest.raises(
        TypeError, match=r"^what writes must be a plain function: nobody awaits it$"
    ):
        await database.write(increment_later)  # type: ignore[unused-coroutine]
    assert await database.read(read_count) == 0


async def test_an_urgent_read_waits_for_no_long_one(database: Database) -> None:
    """The scheduler looks at its jobs however many reports are being read."""
    async with busy(database.read, READERS):
        await database.read(lambda _: None, urgent=True)


# Writing under a check


async def test_a_check_is_called_before_each_statement(database: Database) -> None:
    """Of those of its write, and of no others."""
    calls: list[int] = []
    await database.write(increment, check=lambda: calls.append(1))
    assert len(calls) == 2  # it reads, then writes
    await database.write(increment)
    assert len(calls) == 2


async def test_a_check_ends_a_write_before_a_statement(database: Database) -> None:
    """The statement is not made, those before it are undone, and its error is the write's."""
    made: list[str] = []

    def write(connection: Connection) -> None:
        set_count(connection, 1)
        made.append("first")
        set_count(connection, 2)
        made.append("second")

    with pytest.raises(Over):
        await database.write(write, check=over_after(1))
    assert made == ["first"]
    assert await database.read(read_count) == 0


async def test_a_check_has_its_word_on_a_statement_that_fails(database: Database) -> None:
    """It may have been interrupted for it; the database's own word would not tell why."""

    def fail(_: Connection) -> None:
        raise OperationalError("SELECT 1", None, Exception("interrupted"))

    with pytest.raises(Over):
        await database.write(fail, check=over_after(0))


async def test_an_error_of_a_statement_is_not_the_checks(database: Database) -> None:
    """Where the check has nothing to say, what the database says counts."""
    with pytest.raises(DBAPIError, match="parents"):
        await database.write(
            lambda connection: connection.exec_driver_sql("DELETE FROM parents"),
            check=over_after(10),
        )


# Reading


async def test_a_read_answers(database: Database) -> None:
    """With what its function returns."""
    assert await database.read(lambda _: "answer") == "answer"


async def test_a_read_cannot_write(database: Database) -> None:
    """The database refuses it, whatever the statement."""
    with pytest.raises(DBAPIError, match=r"read-?only"):
        await database.read(increment)
    assert await database.read(read_count) == 0


async def test_a_read_does_not_see_what_is_not_committed(database: Database) -> None:
    """Nor does it wait for that: it answers while the write is under way."""
    written, leave = threading.Event(), threading.Event()

    def write_slowly(connection: Connection) -> None:
        increment(connection)
        written.set()
        leave.wait(REAL_SECONDS_MAX)

    write = asyncio.create_task(database.write(write_slowly))
    await asyncio.to_thread(written.wait, REAL_SECONDS_MAX)
    assert await database.read(read_count) == 0
    leave.set()
    await write
    assert await database.read(read_count) == 1


async def test_a_write_does_not_wait_for_reads(database: Database) -> None:
    """It is committed while they are under way."""
    reading, leave = threading.Event(), threading.Event()

    def read_slowly(connection: Connection) -> Any:
        cursor = connection.exec_driver_sql("SELECT count FROM counts")
        reading.set()
        leave.wait(REAL_SECONDS_MAX)
        return cursor.scalar_one()

    read = asyncio.create_task(database.read(read_slowly))
    await asyncio.to_thread(reading.wait, REAL_SECONDS_MAX)
    await database.write(increment)
    assert await database.read(read_count) == 1
    leave.set()
    assert await read == 0


async def test_reads_are_off_the_event_loop(database: Database) -> None:
    """In threads of their own."""
    assert (await database.read(thread_name)).startswith("database-reader-")


async def test_several_reads_are_made_at_the_same_time(database: Database) -> None:
    """As many as there are readers: each waits until all are there."""
    barrier = threading.Barrier(READERS, timeout=REAL_SECONDS_MAX)
    await asyncio.gather(*(database.read(lambda _: barrier.wait()) for _ in range(READERS)))
    assert not barrier.broken


async def test_more_reads_than_readers_take_turns(database: Database) -> None:
    """None fails."""
    counts = await asyncio.gather(*(database.read(read_count) for _ in range(10 * READERS)))
    assert counts == [0] * 10 * READERS


def test_a_read_can_be_made_in_the_thread_of_a_def_job(database: Database) -> None:
    """`read_here` does not change the thread."""
    assert database.read_here(thread_name) == threading.current_thread().name


def test_def_jobs_do_not_wait_for_readers(database: Database) -> None:
    """More of them than there are readers read at the same time: each waits until all are there."""
    barrier = threading.Barrier(2 * READERS, timeout=REAL_SECONDS_MAX)
    with ThreadPoolExecutor(2 * READERS) as jobs:
        reads = [
            jobs.submit(database.read_here, lambda _: barrier.wait()) for _ in range(2 * READERS)
        ]
    assert sorted(read.result() for read in reads) == list(range(2 * READERS))


def test_a_read_in_this_thread_cannot_write_either(database: Database) -> None:
    """The database refuses it."""
    with pytest.raises(DBAPIError, match=r"read-?only"):
        database.read_here(increment)


async def test_a_check_leaves_the_data_alone(database: Database) -> None:
    """It only looks."""
    await database.write(increment)
    database.check()
    assert await database.read(read_count) == 1


def test_each_def_job_that_reads_has_a_connection(database: Database) -> None:
    """However many there are: none waits until another has read."""
    together = threading.Barrier(20, timeout=REAL_SECONDS_MAX)
    with ThreadPoolExecutor(together.parties) as jobs:
        reads = [
            jobs.submit(database.read_here, lambda _: together.wait())
            for _ in range(together.parties)
        ]
    assert {read.result() for read in reads} == {*range(together.parties)}


# The end


async def test_a_closed_database_cannot_be_written(database: Database) -> None:
    """Who tries gets a RuntimeError."""
    database.close()
    with pytest.raises(RuntimeError, match=r"^database-writer is closed$"):
        await database.write(increment)


async def test_a_closed_database_cannot_be_read(database: Database) -> None:
    """Who tries gets a RuntimeError."""
    database.close()
    with pytest.raises(RuntimeError, match=r"^database-reader is closed$"):
        await database.read(read_count)


def test_a_closed_database_cannot_be_written_by_a_def_job(database: Database) -> None:
    """Nor by one that the shutdown has left behind."""
    database.close()
    with pytest.raises(RuntimeError, match="is closed"):
        database.write_here(increment)


def test_a_closed_database_cannot_be_read_by_a_def_job(database: Database) -> None:
    """Nor by one that the shutdown has left behind."""
    database.close()
    with pytest.raises(RuntimeError, match="is closed"):
        database.read_here(read_count)


def test_a_closed_database_can_be_closed(database: Database) -> None:
    """There is nothing left to close."""
    database.close()
    database.close()
