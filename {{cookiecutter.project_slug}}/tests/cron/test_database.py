"""The database: real files, real threads. What must wait waits for an event, never for time."""

import asyncio
import gc
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, inspect
from sqlalchemy.exc import IntegrityError, OperationalError

from app.cron.database import READERS, Database, DatabaseError
from app.cron.sqlite import is_locked

# After so much real time something is stuck, and the test fails.
REAL_SECONDS_MAX = 30.0


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    """A database that has a table of one count, 0."""
    with closing(Database(path)) as database:
        database.check()
        database.write_here(create)
        yield database


def create(connection: Connection) -> None:
    """Make the table."""
    connection.exec_driver_sql("CREATE TABLE counts (count INTEGER NOT NULL)")
    connection.exec_driver_sql("INSERT INTO counts VALUES (0)")


def create_once(connection: Connection) -> None:
    """Make the table, unless another process has."""
    if not inspect(connection).has_table("counts"):
        create(connection)


def read_count(connection: Connection) -> Any:
    """What the count is."""
    return connection.exec_driver_sql("SELECT count FROM counts").scalar_one()


def set_count(connection: Connection, count: int) -> None:
    """Make the count another one."""
    connection.exec_driver_sql("UPDATE counts SET count = ?", (count,))


def increment(connection: Connection) -> None:
    """Read the count and write one more: two who did this at once would lose one."""
    set_count(connection, read_count(connection) + 1)


def pragma(name: str) -> Callable[[Connection], Any]:
    """Read a setting of SQLite's."""
    return lambda connection: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()


def thread_name(_: Connection) -> str:
    """The name of the thread that this runs in."""
    return threading.current_thread().name


# Writing


async def test_a_write_is_committed(database: Database) -> None:
    """Whoever reads after it sees it."""
    await database.write(increment)
    assert await database.read(read_count) == 1


async def test_a_write_is_in_the_file(database: Database, path: Path) -> None:
    """Another process sees it too."""
    await database.write(increment)
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT count FROM counts").fetchone() == (1,)


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
    with pytest.raises(OperationalError):
        await database.write(lambda connection: connection.exec_driver_sql("no SQL"))
    await database.write(increment)
    assert await database.read(read_count) == 1


async def test_writes_are_off_the_event_loop(database: Database) -> None:
    """All in one thread."""
    names = await asyncio.gather(*(database.write(thread_name) for _ in range(10)))
    assert set(names) == {"database-writer-1"}


async def test_writes_take_turns(database: Database) -> None:
    """Two hundred increments at once are two hundred."""
    await asyncio.gather(*(database.write(increment) for _ in range(200)))
    assert await database.read(read_count) == 200


async def test_writes_of_two_processes_take_turns(database: Database, path: Path) -> None:
    """A hundred increments each, from two databases on the same file, are two hundred."""

    def increment_here() -> None:
        with closing(Database(path)) as other:
            for _ in range(100):
                other.write_here(increment)

    elsewhere = asyncio.create_task(asyncio.to_thread(increment_here))
    await asyncio.gather(*(database.write(increment) for _ in range(100)))
    await elsewhere
    assert await database.read(read_count) == 200


async def test_a_def_job_waits_for_its_write(database: Database) -> None:
    """`write_here` takes its turn in the writer's thread like all writes, and returns after it."""

    def increment_here(connection: Connection) -> str:
        increment(connection)
        return thread_name(connection)

    assert database.write_here(increment_here).startswith("database-writer")
    assert await database.read(read_count) == 1


async def test_a_write_within_a_write_is_refused(database: Database) -> None:
    """It would wait for itself, and all others with it."""
    with pytest.raises(RuntimeError, match="a write within a write"):
        await database.write(lambda _: database.write_here(increment))
    await database.write(increment)
    assert await database.read(read_count) == 1


async def test_a_write_is_a_plain_function(database: Database) -> None:
    """An `async def` would have written nothing, and nobody would know."""

    async def increment_later(connection: Connection) -> None:
        increment(connection)

    with pytest.raises(TypeError, match="must be a plain function"):
        await database.write(increment_later)  # type: ignore[unused-coroutine]
    assert await database.read(read_count) == 0


async def test_references_between_tables_are_kept(database: Database) -> None:
    """SQLite does not do so by itself."""
    await database.write(
        lambda connection: connection.exec_driver_sql(
            "CREATE TABLE children (parent INTEGER REFERENCES parents (id))"
        )
    )
    await database.write(
        lambda connection: connection.exec_driver_sql(
            "CREATE TABLE parents (id INTEGER PRIMARY KEY)"
        )
    )
    with pytest.raises(IntegrityError):
        await database.write(
            lambda connection: connection.exec_driver_sql("INSERT INTO children VALUES (1)")
        )


@pytest.mark.parametrize(("setting", "value"), [("journal_mode", "wal"), ("synchronous", 1)])
async def test_a_commit_does_not_wait_for_the_disk(
    database: Database, setting: str, value: str | int
) -> None:
    """A write-ahead log loses the last commits when the power fails, but is never corrupt."""
    assert await database.write(pragma(setting)) == value


async def test_an_urgent_write_does_not_wait_in_line(database: Database) -> None:
    """It goes before all that has not begun."""
    gate, order = threading.Event(), list[str]()

    def note(name: str, *, urgent: bool = False) -> Awaitable[None]:
        return database.write(lambda _: order.append(name), urgent=urgent)

    first = asyncio.create_task(database.write(lambda _: gate.wait(REAL_SECONDS_MAX)))
    await asyncio.sleep(0)
    others = asyncio.gather(note("one"), note("two"), note("urgent", urgent=True))
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(first, others)
    assert order == ["urgent", "one", "two"]


async def test_an_urgent_read_waits_for_no_long_one(database: Database) -> None:
    """The scheduler looks at its jobs however many reports are being read."""
    gate = threading.Event()
    reports = [
        asyncio.create_task(database.read(lambda _: gate.wait(REAL_SECONDS_MAX)))
        for _ in range(READERS)
    ]
    await asyncio.sleep(0)
    await database.read(lambda _: None, urgent=True)
    under_way = [report for report in reports if not report.done()]
    gate.set()
    await asyncio.gather(*reports)
    assert under_way == reports


# Writing under a check


class Over(Exception):
    """What a check raises."""


COUNT = """
    WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?)
    SELECT count(*) FROM number
"""


def count_to(number: int) -> Callable[[Connection], object]:
    """A statement that takes the longer the larger the number is."""
    return lambda connection: connection.exec_driver_sql(COUNT, (number,))


# It ends only after a long time by itself.
endless = count_to(200_000_000)


def over_after(calls: int) -> Callable[[], None]:
    """A check that raises when it has been called so often."""
    left = iter(range(calls))

    def check() -> None:
        if next(left, None) is None:
            raise Over

    return check


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


async def test_a_check_ends_a_write_during_a_statement(database: Database) -> None:
    """However long it would take; what was written before is undone, and its error is the write's.

    The check passes before each of the two statements: then it is called while the second one runs.
    """

    def write(connection: Connection) -> None:
        set_count(connection, 1)
        endless(connection)

    with pytest.raises(Over):
        await database.write(write, check=over_after(2))
    assert await database.read(read_count) == 0


def test_a_check_ends_the_write_of_a_def_job(database: Database) -> None:
    """Just so."""
    with pytest.raises(Over):
        database.write_here(endless, check=over_after(1))


async def test_after_a_write_that_was_ended_others_succeed(database: Database) -> None:
    """No check is left behind that would end them."""
    with pytest.raises(Over):
        await database.write(endless, check=over_after(1))
    await database.write(count_to(200_000))
    await database.write(increment)
    assert await database.read(read_count) == 1


async def test_an_error_of_a_statement_is_not_the_checks(database: Database) -> None:
    """Where the check has nothing to say, what SQLite says counts."""
    with pytest.raises(OperationalError, match="no such table"):
        await database.write(
            lambda connection: connection.exec_driver_sql("DELETE FROM parents"),
            check=over_after(10),
        )


# Reading


async def test_a_read_answers(database: Database) -> None:
    """With what its function returns."""
    assert await database.read(lambda _: "answer") == "answer"


async def test_a_read_cannot_write(database: Database) -> None:
    """SQLite refuses it, whatever the statement."""
    with pytest.raises(OperationalError, match="readonly"):
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
    """SQLite refuses it."""
    with pytest.raises(OperationalError, match="readonly"):
        database.read_here(increment)


# The file


def test_the_path_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of the working directory does not move the file."""
    monkeypatch.chdir(tmp_path)
    with closing(Database(Path("app.db"))) as database:
        assert database.path == tmp_path / "app.db"


def test_nothing_is_touched_before_it_is_needed(path: Path) -> None:
    """A Database makes no file by itself."""
    with closing(Database(path)):
        assert not path.exists()


def test_a_check_makes_the_file_and_its_folder(tmp_path: Path) -> None:
    """Where there are none."""
    path = tmp_path / "one" / "two" / "app.db"
    with closing(Database(path)) as database:
        database.check()
    assert path.is_file()


async def test_processes_that_start_together_share_a_new_file(path: Path) -> None:
    """Each checks it, and then writes; none finds it locked."""
    barrier = threading.Barrier(4, timeout=REAL_SECONDS_MAX)

    def start() -> None:
        with closing(Database(path)) as database:
            barrier.wait()
            database.check()
            database.write_here(create_once)
            database.write_here(increment)

    await asyncio.gather(*(asyncio.to_thread(start) for _ in range(4)))
    with closing(Database(path)) as database:
        assert database.read_here(read_count) == 4


@pytest.mark.parametrize("name", ["a b.db", "ñ.db", "100%41.db", "what?.db", "a#b.db", "a'b.db"])
def test_a_file_may_have_any_name(tmp_path: Path, name: str) -> None:
    """No sign in it means something."""
    with closing(Database(tmp_path / name)) as database:
        database.check()
    assert [file.name for file in tmp_path.iterdir()] == [name]


async def test_a_check_leaves_the_data_alone(database: Database) -> None:
    """It only looks."""
    await database.write(increment)
    database.check()
    assert await database.read(read_count) == 1


def no_database(path: Path) -> None:
    """Put something else into the file."""
    path.write_text("This is a letter, and longer than the header of a database.\n" * 20)


def damaged(path: Path) -> None:
    """Make a database that has been used, of which only the header is whole."""
    with closing(Database(path)) as database:
        database.write_here(create)
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 4_000)


def folder_in_the_way(path: Path) -> None:
    """Make a folder where the file would be."""
    path.mkdir()


def file_in_the_way(path: Path) -> None:
    """Make a file where the folder would be."""
    path.parent.rmdir()
    path.parent.touch()


@pytest.mark.parametrize("spoil", [no_database, damaged, folder_in_the_way, file_in_the_way])
def test_a_database_that_cannot_be_used_is_refused(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    """In one line that begins with the file and goes on with the reason."""
    path = tmp_path / "data" / "app.db"
    path.parent.mkdir()
    spoil(path)
    with closing(Database(path)) as database, pytest.raises(DatabaseError) as error:
        database.check()
    line = str(error.value)
    assert line.startswith(f"{path}: ")
    assert len(line) > len(f"{path}: ")
    assert "\n" not in line


@pytest.mark.parametrize("which", ["folder", "file"])
def test_a_database_that_cannot_be_written_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    """Neither the file nor its folder, where SQLite keeps its log, may be read-only."""
    path.touch()
    refused = path if which == "file" else path.parent
    # The super-user may write everywhere: the system's answer is replaced.
    monkeypatch.setattr(os, "access", lambda path, mode: path != refused or mode != os.W_OK)
    with closing(Database(path)) as database, pytest.raises(DatabaseError) as error:
        database.check()
    assert str(error.value) == f"{path}: {refused} is not writable"


def test_a_database_that_fails_its_check_is_closed(path: Path) -> None:
    """Who opens one has nothing left to close."""
    no_database(path)
    database = Database(path)
    with pytest.raises(DatabaseError):
        database.check()
    with pytest.raises(RuntimeError, match="is closed"):
        database.read_here(read_count)


def test_a_check_looks_further(path: Path) -> None:
    """What its `look` finds wrong is told as what is wrong with the file, and it is closed."""

    def look(connection: Connection) -> None:
        assert connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one() == 0
        raise DatabaseError("the tables are too new")

    database = Database(path)
    with pytest.raises(DatabaseError) as error:
        database.check(look)
    assert str(error.value) == f"{path}: the tables are too new"
    with pytest.raises(RuntimeError, match="is closed"):
        database.read_here(read_count)


def test_a_sqlite_that_is_too_old_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of some Linux distributions that are still in use."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.34.1")
    with pytest.raises(DatabaseError, match=r"3\.34\.1, .* too old: 3\.35 or newer"):
        Database(path)


# A file that another program keeps


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A statement does not wait for long."""
    monkeypatch.setattr("app.cron.sqlite.BUSY_SECONDS", 0.05)


@contextmanager
def locked(path: Path, how: str) -> Iterator[None]:
    """In the block, another program has the database to itself."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute(f"BEGIN {how}")
        yield


@pytest.mark.parametrize("how", ["IMMEDIATE", "EXCLUSIVE"])
def test_a_check_does_not_refuse_what_is_locked(impatient: None, path: Path, how: str) -> None:
    """A new file, which is not in WAL mode yet, so that nobody can even read it."""
    with closing(Database(path)) as database:
        with locked(path, how):
            database.check(read_count if how == "EXCLUSIVE" else lambda _: None)
        database.write_here(create)
        assert database.read_here(read_count) == 0


@pytest.mark.parametrize("how", ["IMMEDIATE", "EXCLUSIVE"])
def test_a_first_write_tells_that_it_is_locked(impatient: None, path: Path, how: str) -> None:
    """From any other trouble: who writes may try again, and succeeds when it is free."""
    with closing(Database(path)) as database:
        with locked(path, how), pytest.raises(OperationalError) as error:
            database.write_here(create)
        assert is_locked(error.value)
        database.write_here(create)


def test_a_write_tells_that_it_is_locked(impatient: None, path: Path) -> None:
    """Just so, in a database that is in use."""
    with closing(Database(path)) as database:
        database.write_here(create)
        with locked(path, "IMMEDIATE"), pytest.raises(OperationalError) as error:
            database.write_here(increment)
        assert is_locked(error.value)
        database.write_here(increment)
        assert database.read_here(read_count) == 1


async def test_writes_do_not_pile_up_behind_a_lock(
    impatient: None, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is answered while who sent it still waits, and none is done after that."""
    monkeypatch.setattr("app.cron.database.TURN_SECONDS", 0.05)
    with closing(Database(path)) as database:
        await database.write(create)
        with locked(path, "IMMEDIATE"):
            writes = (database.write(increment) for _ in range(100))
            answers = await asyncio.gather(*writes, return_exceptions=True)
        assert {type(answer) for answer in answers} == {OperationalError, DatabaseError}
        assert sum(isinstance(answer, OperationalError) for answer in answers) < 10
        assert await database.write(read_count) == 0


async def write_in_thread(database: Database) -> None:
    """As a `def` job does."""
    await asyncio.to_thread(lambda: database.write_here(increment))


@pytest.mark.parametrize("threaded", [False, True])
async def test_a_write_whose_turn_does_not_come_is_not_done(
    database: Database, monkeypatch: pytest.MonkeyPatch, *, threaded: bool
) -> None:
    """The one before it takes too long; that one is waited for, as it has begun."""
    gate, begun = threading.Event(), threading.Event()

    def wait(_: Connection) -> str:
        begun.set()
        gate.wait(REAL_SECONDS_MAX)
        return "done"

    monkeypatch.setattr("app.cron.database.TURN_SECONDS", 0.05)
    first = asyncio.create_task(database.write(wait))
    await asyncio.to_thread(begun.wait, REAL_SECONDS_MAX)
    with pytest.raises(DatabaseError, match="other writes have kept it for"):
        await (write_in_thread(database) if threaded else database.write(increment))
    assert not first.done()
    gate.set()
    assert await first == "done"
    assert await database.write(read_count) == 0


async def test_a_write_that_was_given_up_is_forgotten(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing complains of it later, and one that was cancelled is not done either."""
    gate, complaints = threading.Event(), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
    monkeypatch.setattr("app.cron.database.TURN_SECONDS", 0.05)
    first = asyncio.create_task(database.write(lambda _: gate.wait(REAL_SECONDS_MAX)))
    await asyncio.sleep(0)
    cancelled = asyncio.create_task(database.write(increment))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(DatabaseError):
        await database.write(increment)
    gate.set()
    await first
    assert await database.write(read_count) == 0
    assert cancelled.cancelled()
    await asyncio.sleep(0)
    gc.collect()
    assert complaints == []


def test_other_trouble_is_not_a_lock(database: Database) -> None:
    """Waiting would not help."""
    with pytest.raises(OperationalError) as error:
        database.write_here(lambda connection: connection.exec_driver_sql("nonsense"))
    assert not is_locked(error.value)


def test_a_database_that_recovers_is_locked() -> None:
    """SQLite has several codes for it, which all say BUSY in their last byte."""
    reason = sqlite3.OperationalError("database is locked")
    reason.sqlite_errorcode = sqlite3.SQLITE_BUSY_RECOVERY
    assert is_locked(OperationalError("BEGIN", None, reason))


# A file that is gone

SUFFIXES = ["", "-wal", "-shm"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_gone_cannot_be_written(database: Database, path: Path, suffix: str) -> None:
    """The file, its log or the memory beside it: else it would be written where nobody reads it."""
    gone = Path(f"{path}{suffix}")
    gone.unlink()
    with pytest.raises(DatabaseError) as error:
        database.write_here(increment)
    assert str(error.value) == f"{gone} is gone: deleted or replaced while in use"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_gone_cannot_be_read(database: Database, path: Path, suffix: str) -> None:
    """Though its open connections would go on."""
    Path(f"{path}{suffix}").unlink()
    with pytest.raises(DatabaseError, match="is gone"):
        database.read_here(read_count)


def test_what_is_gone_is_not_made_anew(path: Path) -> None:
    """Neither by a write nor by a read, though this one has no connection yet."""
    with closing(Database(path)) as database:
        database.write_here(create)
        for suffix in SUFFIXES:
            Path(f"{path}{suffix}").unlink()
        for use in (database.write_here, database.read_here):
            with pytest.raises(DatabaseError, match="is gone"):
                use(read_count)
        assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_was_replaced_is_gone(database: Database, path: Path, suffix: str) -> None:
    """What is there now is left as it is."""
    replaced = Path(f"{path}{suffix}")
    replaced.rename(f"{replaced}.old")
    replaced.write_bytes(b"another one")
    for use in (database.write_here, database.read_here):
        with pytest.raises(DatabaseError, match="is gone"):
            use(read_count)
    assert replaced.read_bytes() == b"another one"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_comes_back_is_used_again(database: Database, path: Path, suffix: str) -> None:
    """Moved away and back: nothing is lost, and it is written as before."""
    moved = Path(f"{path}{suffix}")
    database.write_here(increment)
    moved.rename(f"{moved}.away")
    with pytest.raises(DatabaseError, match="is gone"):
        database.write_here(increment)
    Path(f"{moved}.away").rename(moved)
    database.write_here(increment)
    assert database.read_here(read_count) == 2


def test_a_write_that_waited_is_not_made_in_a_file_that_is_gone(
    database: Database, path: Path
) -> None:
    """The file goes between the first look at it and the lock."""

    def lose(_: Connection) -> None:
        path.unlink(missing_ok=True)

    event.listen(database._write_engine, "begin", lose, insert=True)
    with pytest.raises(DatabaseError, match="is gone"):
        database.write_here(lambda _: pytest.fail("it was made"))


# Another process, which is in a write until it is told to end. (In the same process, SQLite would
# notice.)
WRITER = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.readline()
database.execute("COMMIT")
"""


def test_two_never_write_at_once_where_the_log_was_deleted(database: Database, path: Path) -> None:
    """For SQLite both have the lock: one has the old log and memory, the other makes new ones."""
    Path(f"{path}-wal").unlink()
    Path(f"{path}-shm").unlink()
    with subprocess.Popen(  # noqa: S603 -- our own command
        [sys.executable, "-c", WRITER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(DatabaseError, match="is gone"):
            database.write_here(lambda _: pytest.fail("both write"))
        other.stdin.close()
    assert other.returncode == 0


def test_what_is_gone_leaves_its_successor_alone(database: Database, path: Path) -> None:
    """Closed at last, it does not delete the log of the database that has taken its place."""
    for suffix in SUFFIXES:
        Path(f"{path}{suffix}").unlink()
    with closing(Database(path)) as successor:
        successor.write_here(create)
        with pytest.raises(DatabaseError, match="is gone"):
            database.write_here(increment)
        database.close()
        successor.write_here(increment)
        with closing(sqlite3.connect(path)) as other:
            assert other.execute("SELECT count FROM counts").fetchone() == (1,)


def test_what_was_written_is_not_lost_with_the_log(database: Database, path: Path) -> None:
    """The log, though it has no name any more, is put into the file when that is closed."""
    database.write_here(increment)
    Path(f"{path}-wal").unlink()
    database.close()
    with closing(Database(path)) as again:
        assert again.read_here(read_count) == 1


# The end


async def test_a_closed_database_cannot_be_written(database: Database) -> None:
    """Who tries gets a RuntimeError."""
    database.close()
    with pytest.raises(RuntimeError, match="database-writer is closed"):
        await database.write(increment)


async def test_a_closed_database_cannot_be_read(database: Database) -> None:
    """Who tries gets a RuntimeError."""
    database.close()
    with pytest.raises(RuntimeError, match="database-reader is closed"):
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


async def test_a_closed_database_has_no_open_files(database: Database, path: Path) -> None:
    """The log is written back into the file, and its companions are gone."""
    await database.write(increment)
    await database.read(read_count)
    database.close()
    assert [file.name for file in path.parent.iterdir()] == ["app.db"]
