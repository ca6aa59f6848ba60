"""What SQLite alone has: one writer, a file that others keep, lose or replace. Real files, real
threads; what must wait waits until something is so, never for time."""

import asyncio
import gc
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, inspect
from sqlalchemy.exc import IntegrityError, OperationalError

from app.cron.database import TURN_SECONDS, Database, DatabaseError
from app.cron.sqlite import BUSY_SECONDS, SqliteDatabase, _set_up_writer
from support.counts import Over, create, increment, over_after, read_count, set_count
from support.process import REAL_SECONDS_MAX, wait_until


@pytest.fixture
def database(path: Path) -> Iterator[SqliteDatabase]:
    """A database that has a table of one count, 0."""
    with closing(SqliteDatabase(path)) as database:
        database.check()
        database.write_here(create)
        yield database


def thread_name(_: Connection) -> str:
    """The name of the thread that this runs in."""
    return threading.current_thread().name


# Writing


def create_once(connection: Connection) -> None:
    """Make the table, unless another process has."""
    if not inspect(connection).has_table("counts"):
        create(connection)


def pragma(name: str) -> Callable[[Connection], Any]:
    """Read a setting of SQLite's."""
    return lambda connection: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()


async def test_a_write_is_in_the_file(database: Database, path: Path) -> None:
    """Another process sees it too."""
    await database.write(increment)
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT count FROM counts").fetchone() == (1,)


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
        with closing(SqliteDatabase(path)) as other:
            for _ in range(100):
                other.write_here(increment)

    elsewhere = asyncio.create_task(asyncio.to_thread(increment_here))
    await asyncio.gather(*(database.write(increment) for _ in range(100)))
    await elsewhere
    assert await database.read(read_count) == 200


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


COUNT = """
    WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?)
    SELECT count(*) FROM number
"""


def count_to(number: int) -> Callable[[Connection], object]:
    """A statement that takes the longer the larger the number is."""
    return lambda connection: connection.exec_driver_sql(COUNT, (number,))


# It ends only after a long time by itself.
endless = count_to(200_000_000)


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


# The file


def test_the_path_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of the working directory does not move the file."""
    monkeypatch.chdir(tmp_path)
    with closing(SqliteDatabase(Path("app.db"))) as database:
        assert database.path == tmp_path / "app.db"


def test_nothing_is_touched_before_it_is_needed(path: Path) -> None:
    """It makes no file by itself."""
    with closing(SqliteDatabase(path)):
        assert not path.exists()


def test_a_check_makes_the_file_and_its_folder(tmp_path: Path) -> None:
    """Where there are none."""
    path = tmp_path / "one" / "two" / "app.db"
    with closing(SqliteDatabase(path)) as database:
        database.check()
    assert path.is_file()


async def test_processes_that_start_together_share_a_new_file(path: Path) -> None:
    """Each checks it, and then writes; none finds it locked."""
    barrier = threading.Barrier(4, timeout=REAL_SECONDS_MAX)

    def start() -> None:
        with closing(SqliteDatabase(path)) as database:
            barrier.wait()
            database.check()
            database.write_here(create_once)
            database.write_here(increment)

    await asyncio.gather(*(asyncio.to_thread(start) for _ in range(4)))
    with closing(SqliteDatabase(path)) as database:
        assert database.read_here(read_count) == 4


@pytest.mark.parametrize("name", ["a b.db", "ñ.db", "100%41.db", "what?.db", "a#b.db", "a'b.db"])
def test_a_file_may_have_any_name(tmp_path: Path, name: str) -> None:
    """No sign in it means something."""
    with closing(SqliteDatabase(tmp_path / name)) as database:
        database.check()
    assert [file.name for file in tmp_path.iterdir()] == [name]


def no_database(path: Path) -> None:
    """Put something else into the file."""
    path.write_text("This is a letter, and longer than the header of a database.\n" * 20)


def damaged(path: Path) -> None:
    """Make a database that has been used, of which only the header is whole."""
    with closing(SqliteDatabase(path)) as database:
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
    with closing(SqliteDatabase(path)) as database, pytest.raises(DatabaseError) as error:
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
    with closing(SqliteDatabase(path)) as database, pytest.raises(DatabaseError) as error:
        database.check()
    assert str(error.value) == f"{path}: {refused} is not writable"


def test_a_database_that_fails_its_check_is_closed(path: Path) -> None:
    """Who opens one has nothing left to close."""
    no_database(path)
    database = SqliteDatabase(path)
    with pytest.raises(DatabaseError):
        database.check()
    with pytest.raises(RuntimeError, match=r"^SQLite .*app\.db is closed$"):
        database.read_here(read_count)


def test_a_check_looks_further(path: Path) -> None:
    """What its `look` finds wrong is told as what is wrong with the file, and it is closed."""

    def look(connection: Connection) -> None:
        assert connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one() == 0
        raise DatabaseError("the tables are too new")

    database = SqliteDatabase(path)
    with pytest.raises(DatabaseError) as error:
        database.check(look)
    assert str(error.value) == f"{path}: the tables are too new"
    with pytest.raises(RuntimeError, match=r"^SQLite .*app\.db is closed$"):
        database.read_here(read_count)


OLD = "^this Python has SQLite 3.34.1, which is too old: 3.35 or newer is needed$"


def test_a_sqlite_that_is_too_old_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of some Linux distributions that are still in use."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.34.1")
    with pytest.raises(DatabaseError, match=OLD):
        SqliteDatabase(path)


def test_all_connections_wait_for_a_lock_as_long(impatient: None, path: Path) -> None:
    """Those of an engine of one's own, too."""
    with closing(SqliteDatabase(path)) as database:
        assert database.connect_args == {"timeout": 0.05}
        assert database.read_here(pragma("busy_timeout")) == 50
        assert database.write_here(pragma("busy_timeout")) == 50


def test_an_error_that_is_not_sqlites_is_not_waited_for(path: Path) -> None:
    """It has no code, and nothing says that it may be over soon."""
    with closing(SqliteDatabase(path)) as database:
        error = OperationalError(None, None, Exception("no thread"))
        assert not database.may_be_waited_for(error)


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
    with closing(SqliteDatabase(path)) as database:
        with locked(path, how):
            database.check(read_count if how == "EXCLUSIVE" else lambda _: None)
        database.write_here(create)
        assert database.read_here(read_count) == 0


@pytest.mark.parametrize("how", ["IMMEDIATE", "EXCLUSIVE"])
def test_a_first_write_tells_that_it_is_locked(impatient: None, path: Path, how: str) -> None:
    """From any other trouble: who writes may try again, and succeeds when it is free."""
    with closing(SqliteDatabase(path)) as database:
        with locked(path, how), pytest.raises(OperationalError) as error:
            database.write_here(create)
        assert database.may_be_waited_for(error.value)
        database.write_here(create)


def test_a_new_file_that_another_writes_is_waited_for(impatient: None, path: Path) -> None:
    """SQLite itself would not: who starts beside others may find it locked for a moment."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    class Connection(sqlite3.Connection):
        def execute(self, statement: str, parameters: Any = ()) -> sqlite3.Cursor:
            if statement == "BEGIN IMMEDIATE":
                other.close()
            return super().execute(statement, parameters)

    with closing(sqlite3.connect(path, factory=Connection)) as connection:
        _set_up_writer(connection, None)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_write_tells_that_it_is_locked(impatient: None, path: Path) -> None:
    """Just so, in a database that is in use."""
    with closing(SqliteDatabase(path)) as database:
        database.write_here(create)
        with locked(path, "IMMEDIATE"), pytest.raises(OperationalError) as error:
            database.write_here(increment)
        assert database.may_be_waited_for(error.value)
        database.write_here(increment)
        assert database.read_here(read_count) == 1


def test_a_turn_is_waited_for_no_longer_than_a_lock() -> None:
    """Both are the time after which who waits is told that the database is locked."""
    assert TURN_SECONDS <= BUSY_SECONDS


async def begin(
    database: Database, function: Callable[[Connection], object]
) -> asyncio.Task[object]:
    """A write that has had its turn, and waits for a lock or is under way."""
    write = asyncio.create_task(database.write(function))
    await asyncio.to_thread(wait_until, lambda: bool(database._writing) or write.done())
    return write


@contextmanager
def soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In the block, a write waits for its turn for a moment only."""
    with monkeypatch.context() as patch:
        patch.setattr("app.cron.database.TURN_SECONDS", 0.05)
        yield


async def test_writes_do_not_pile_up_behind_a_lock(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One waits for it. The others are answered meanwhile, and none of them is done later."""
    monkeypatch.setattr("app.cron.sqlite.BUSY_SECONDS", REAL_SECONDS_MAX)
    with closing(SqliteDatabase(path)) as database:
        await database.write(create)
        with locked(path, "IMMEDIATE"):
            first = await begin(database, increment)
            with soon(monkeypatch):
                others = (database.write(increment) for _ in range(99))
                async with asyncio.timeout(REAL_SECONDS_MAX):
                    answers = await asyncio.gather(*others, return_exceptions=True)
        await first
        assert {type(answer) for answer in answers} == {DatabaseError}
        assert await database.write(read_count) == 1


async def write_in_thread(database: Database) -> None:
    """As a `def` job does."""
    await asyncio.to_thread(lambda: database.write_here(increment))


@pytest.mark.parametrize("threaded", [False, True])
async def test_a_write_whose_turn_does_not_come_is_not_done(
    database: Database, monkeypatch: pytest.MonkeyPatch, *, threaded: bool
) -> None:
    """The one before it takes too long."""
    gate = threading.Event()
    first = await begin(database, lambda _: gate.wait(REAL_SECONDS_MAX))
    message = r"^SQLite .*: other writes have kept it for 0\.05 s$"
    with soon(monkeypatch), pytest.raises(DatabaseError, match=message):
        await (write_in_thread(database) if threaded else database.write(increment))
    assert not first.done()
    gate.set()
    await first
    assert await database.write(read_count) == 0


@pytest.mark.parametrize("threaded", [False, True])
async def test_a_write_that_has_begun_is_waited_for(
    database: Database, monkeypatch: pytest.MonkeyPatch, *, threaded: bool
) -> None:
    """Its time is over when it has just begun: it cannot be given up, and is done."""
    begun, gate = threading.Event(), threading.Event()
    give_up = database._give_up

    def write(connection: Connection) -> None:
        begun.set()
        assert gate.wait(REAL_SECONDS_MAX)
        increment(connection)

    def too_late(turn: threading.Lock) -> None:
        """It holds up who waits for the write, and so the event loop, until that has begun."""
        try:
            assert begun.wait(REAL_SECONDS_MAX)
            give_up(turn)
        finally:
            gate.set()

    monkeypatch.setattr(database, "_give_up", too_late)
    monkeypatch.setattr("app.cron.database.TURN_SECONDS", 0)
    if threaded:
        await asyncio.to_thread(database.write_here, write)
    else:
        await database.write(write)
    assert database.read_here(read_count) == 1


async def test_a_write_that_was_given_up_is_forgotten(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing complains of it later, and one that was cancelled is not done either."""
    gate, complaints = threading.Event(), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
    first = await begin(database, lambda _: gate.wait(REAL_SECONDS_MAX))
    with soon(monkeypatch):
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


def test_other_trouble_is_not_a_lock(database: SqliteDatabase) -> None:
    """Waiting would not help."""
    with pytest.raises(OperationalError) as error:
        database.write_here(lambda connection: connection.exec_driver_sql("nonsense"))
    assert not database.may_be_waited_for(error.value)


def test_a_database_that_recovers_is_locked(database: SqliteDatabase) -> None:
    """SQLite has several codes for it, which all say BUSY in their last byte."""
    reason = sqlite3.OperationalError("database is locked")
    reason.sqlite_errorcode = sqlite3.SQLITE_BUSY_RECOVERY
    assert database.may_be_waited_for(OperationalError("BEGIN", None, reason))


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
    with closing(SqliteDatabase(path)) as database:
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
    with closing(SqliteDatabase(path)) as successor:
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
    with closing(SqliteDatabase(path)) as again:
        assert again.read_here(read_count) == 1


async def test_a_closed_database_has_no_open_files(database: Database, path: Path) -> None:
    """The log is written back into the file, and its companions are gone."""
    await database.write(increment)
    await database.read(read_count)
    database.close()
    assert [file.name for file in path.parent.iterdir()] == ["app.db"]
