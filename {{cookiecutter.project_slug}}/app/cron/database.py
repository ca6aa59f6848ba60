"""The database as jobs and endpoints use it: off the event loop, one writer, several readers."""

import asyncio
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import SQLAlchemyError

from .threads import DaemonThreads

T = TypeVar("T")
SetUp = Callable[[sqlite3.Connection, Any], None]

READERS = 4

# How long a statement waits for another process to end its write.
BUSY_SECONDS = 5


class DatabaseError(Exception):
    """The database cannot be used. The message is one line: which file, and why."""


class Database:
    """A SQLite file, used from threads, never on the event loop.

    SQLite has one writer at a time, and its way of waiting starves the unlucky: so all writes of a
    process take turns in one thread. Readers do not wait for it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._write_engine = self._engine(_set_up_writer)
        # Python's driver would begin at the first write, too late: what was read may have changed.
        event.listen(self._write_engine, "begin", _begin_immediate)
        self._read_engine = self._engine(_set_up_reader)
        self._closed = False
        self._writer = DaemonThreads(1, "database-writer")
        self._readers = DaemonThreads(READERS, "database-reader")

    async def write(self, function: Callable[[Connection], T]) -> T:
        """Run `function(connection)` in a transaction of its own, committed unless it raises."""
        return await asyncio.get_running_loop().run_in_executor(
            self._writer, self._transact, function
        )

    async def read(self, function: Callable[[Connection], T]) -> T:
        """Run `function(connection)`, which can only read."""
        return await asyncio.get_running_loop().run_in_executor(
            self._readers, self.read_here, function
        )

    def write_here(self, function: Callable[[Connection], T]) -> T:
        """Like `write`, for `def` jobs: this thread waits for the writer's."""
        return self._writer.submit(self._transact, function).result()

    def read_here(self, function: Callable[[Connection], T]) -> T:
        """Like `read`, for `def` jobs: in this thread."""
        if self._closed:
            raise RuntimeError(f"{self.path} is closed")
        with self._read_engine.connect() as connection:
            return function(connection)

    def check(self) -> None:
        """Make the file and its folder where there are none. Raises DatabaseError if that fails, or
        if the file is not a database or cannot be written."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._read_engine.connect() as connection:
                connection.exec_driver_sql("SELECT count(*) FROM sqlite_master")
            for path in (self.path.parent, self.path):
                if not os.access(path, os.W_OK):
                    raise PermissionError(f"{path} is not writable")
        except (OSError, SQLAlchemyError, sqlite3.Error) as error:
            self.close()
            raise DatabaseError(f"{self.path}: {getattr(error, 'orig', error)}") from error

    def exists(self) -> bool:
        """False once the file is gone. Open connections would go on writing to it."""
        return self.path.exists()

    def close(self) -> None:
        """Close all connections. What is read or written from now on raises RuntimeError."""
        self._closed = True
        for threads in (self._writer, self._readers):
            threads.shutdown()
        for engine in (self._write_engine, self._read_engine):
            engine.dispose()

    def _transact(self, function: Callable[[Connection], T]) -> T:
        with self._write_engine.begin() as connection:
            return function(connection)

    def _engine(self, set_up: SetUp) -> Engine:
        engine = create_engine(
            URL.create("sqlite", database=str(self.path)),
            pool_size=READERS,
            max_overflow=-1,  # the threads are the limit, and a `def` job has one of its own
            connect_args={"timeout": BUSY_SECONDS},
        )
        event.listen(engine, "connect", set_up)
        return engine


def _set_up_writer(connection: sqlite3.Connection, _: Any) -> None:
    connection.isolation_level = None  # transactions begin when we say so
    try:
        connection.execute("PRAGMA journal_mode = WAL")  # readers need not wait for the writer
    except sqlite3.OperationalError:
        # On a new file this does not wait for another process that writes. Beginning does.
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")


def _set_up_reader(connection: sqlite3.Connection, _: Any) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA query_only = ON")


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
