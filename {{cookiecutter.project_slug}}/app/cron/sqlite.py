"""A SQLite file as the database: for the processes of one machine."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from .database import READERS, Check, Database, DatabaseError, reason_of
from .filesystem import network_file_system
from .threads import DaemonThreads

# How long a statement waits for another process to end its write.
BUSY_SECONDS = 5

# SQLite keeps so much of the file in memory for the writer: the pages that many writes touch.
CACHE_KIB = 16_000

# A commit writes the log back into the file once so many pages are in it, 40 MB. A page is written
# once, however often it is in the log, and a disk takes many at a time in far less time each.
CHECKPOINT_PAGES = 10_000

# Older ones do not know RETURNING.
SQLITE_MIN = (3, 35)

# The smallest query that needs the file to be a database.
READ_SCHEMA = "SELECT count(*) FROM sqlite_master"

# SQLite asks after so many of its instructions whether to go on: that is well under a millisecond.
INSTRUCTIONS = 10_000


class SqliteDatabase(Database):
    """A SQLite file.

    SQLite has one writer at a time, and its way of waiting starves the unlucky: so all writes of a
    process take turns in one thread. Readers do not wait for it.
    """

    def __init__(self, path: Path) -> None:
        if sqlite3.sqlite_version_info < SQLITE_MIN:
            raise DatabaseError(
                f"this Python has SQLite {sqlite3.sqlite_version}, which is too old: "
                f"{'.'.join(map(str, SQLITE_MIN))} or newer is needed"
            )
        self.path = path.absolute()
        self._files: dict[Path, tuple[int, int] | None] = {}
        url = URL.create("sqlite", database=str(self.path))
        connect_args = {"timeout": BUSY_SECONDS}
        write_engine = _engine(url, connect_args, _set_up_writer)
        # Python's driver would begin at the first write, too late: what was read may have changed.
        event.listen(write_engine, "begin", _begin_immediate)
        event.listen(write_engine, "connect", self._remember_files)
        writer = DaemonThreads(1, "database-writer")
        super().__init__(
            f"SQLite {self.path}",
            url,
            connect_args=connect_args,
            read_engine=_engine(url, connect_args, _set_up_reader),
            write_engine=write_engine,
            writer=writer,
            urgent_writer=writer.ahead,
            threads=[writer],
        )

    async def checkpoint(self) -> None:
        """Write the log back into the file, so that it begins anew. Others write meanwhile."""
        await self.read(_checkpoint)

    def check(self, look: Callable[[Connection], object] = lambda _: None) -> None:
        """Make the file and its folder where there are none. Raises DatabaseError if that fails, if
        the file is not a database, cannot be written or lies on a network file system, or if `look`
        raises it. One that another program has locked passes: who uses it may wait for it."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if kind := network_file_system(self.path.parent):
                raise OSError(
                    f"it lies on {kind}, a network file system, where SQLite's locks do not hold "
                    "between machines; DATABASE_URL must name a file on a local disk"
                )
            for path in (self.path.parent, self.path):
                if path.exists() and not os.access(path, os.W_OK):
                    raise PermissionError(f"{path} is not writable")
            try:
                self.read_here(lambda connection: connection.exec_driver_sql(READ_SCHEMA))
                self.read_here(look)
            except OperationalError as error:
                if not self.may_be_waited_for(error):
                    raise
        except (OSError, SQLAlchemyError, DatabaseError) as error:
            self.close()
            raise DatabaseError(f"{self.path}: {reason_of(error)}") from error

    def may_be_waited_for(self, error: OperationalError) -> bool:
        """True if another program has kept the file locked for longer than a statement waits."""
        code: int = getattr(error.orig, "sqlite_errorcode", 0)
        return code & 0xFF == sqlite3.SQLITE_BUSY  # the rest of it says more, such as why

    @contextmanager
    def _begin(self, engine: Engine) -> Iterator[Connection]:
        """A transaction on the very files that were opened, and on no others."""
        self._check_files()  # before SQLite touches what may belong to others by now
        with engine.begin() as connection:
            self._check_files()  # again: a writer may have waited for the lock
            yield connection

    def _check_files(self) -> None:
        for path, identity in self._files.items():
            if _identity(path) != identity:
                raise DatabaseError(f"{path} is gone: deleted or replaced while in use")

    def _remember_files(self, connection: sqlite3.Connection, _: Any) -> None:
        """Remember what SQLite has open. Were one of these files another one, what is written would
        be where nobody else reads it, and two processes would have the lock at the same time."""
        connection.execute(READ_SCHEMA)  # that opens the log and the shared memory
        paths = [Path(f"{self.path}{suffix}") for suffix in ("", "-wal", "-shm")]
        self._files = {path: _identity(path) for path in paths}

    @contextmanager
    def _checked(self, connection: Connection, check: Check | None) -> Iterator[None]:
        """Call `check` as others do, and interrupt a statement during which it raises."""
        if check is None:
            yield
            return

        def is_over() -> bool:
            try:
                check()
            except Exception:  # noqa: BLE001 -- it is raised again where it can be seen
                return True
            return False

        driver: Any = connection.connection.driver_connection
        driver.set_progress_handler(is_over, INSTRUCTIONS)
        try:
            with super()._checked(connection, check):
                yield
        finally:
            driver.set_progress_handler(None, 0)


def _engine(
    url: URL, connect_args: dict[str, Any], set_up: Callable[[sqlite3.Connection, Any], None]
) -> Engine:
    engine = create_engine(
        url,
        pool_size=READERS,
        max_overflow=-1,  # the threads are the limit, and a `def` job has one of its own
        connect_args=connect_args,
    )
    event.listen(engine, "connect", set_up)
    return engine


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _set_up_writer(connection: sqlite3.Connection, _: Any) -> None:
    connection.isolation_level = None  # transactions begin when we say so
    try:
        connection.execute("PRAGMA journal_mode = WAL")  # readers need not wait for the writer
    except sqlite3.OperationalError:
        # On a new file this does not wait for another process that writes. Beginning does.
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")
    # A power cut may undo the last commits. Were the disk waited for each time, a claim would take
    # two to four times as long, and so would all that waits for the writer.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")


def _set_up_reader(connection: sqlite3.Connection, _: Any) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA query_only = ON")


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _checkpoint(connection: Connection) -> None:
    """Empty the log. What is left for when nobody may write is very little."""
    connection.exec_driver_sql(READ_SCHEMA).all()  # a connection that has never read knows no log
    # The second takes what has been written during the first, and waits until the disk has both.
    for _ in range(2):
        connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)").all()
    # The log begins anew only when all of it is in the file at some moment. This one holds off
    # other writers, so it must not wait for readers.
    connection.exec_driver_sql("PRAGMA busy_timeout = 0")
    try:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(FULL)").all()
    finally:
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1_000}")
