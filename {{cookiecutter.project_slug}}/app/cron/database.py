"""The database as jobs and endpoints use it: off the event loop, one writer, several readers."""

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from inspect import iscoroutine
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from . import sqlite
from .filesystem import network_file_system
from .threads import DaemonThreads

T = TypeVar("T")
SetUp = Callable[[sqlite3.Connection, Any], None]
Check = Callable[[], None]

READERS = 4

# How long a write waits for its turn among those of its process. Behind a locked database they
# would pile up, and be done when nobody waits for them any more.
TURN_SECONDS = 5.0

# SQLite asks after so many of its instructions whether to go on: that is well under a millisecond.
INSTRUCTIONS = 10_000


class DatabaseError(Exception):
    """The database cannot be used. The message is one line: which file, and why."""


class Database:
    """A SQLite file, used from threads, never on the event loop.

    SQLite has one writer at a time, and its way of waiting starves the unlucky: so all writes of a
    process take turns in one thread. Readers do not wait for it.
    """

    def __init__(self, path: Path) -> None:
        if sqlite3.sqlite_version_info < sqlite.SQLITE_MIN:
            raise DatabaseError(
                f"this Python has SQLite {sqlite3.sqlite_version}, which is too old: "
                f"{'.'.join(map(str, sqlite.SQLITE_MIN))} or newer is needed"
            )
        self.path = path.absolute()
        self._files: dict[Path, tuple[int, int] | None] = {}
        self._write_engine = self._engine(sqlite.set_up_writer)
        # Python's driver would begin at the first write, too late: what was read may have changed.
        event.listen(self._write_engine, "begin", sqlite.begin_immediate)
        event.listen(self._write_engine, "connect", self._remember_files)
        self._read_engine = self._engine(sqlite.set_up_reader)
        self._closed = False
        self._writing: int | None = None
        """The thread that is in a write."""
        self._writer = DaemonThreads(1, "database-writer")
        self._readers = DaemonThreads(READERS, "database-reader")
        self._urgent_reader = DaemonThreads(1, "database-urgent-reader")

    async def write(
        self,
        function: Callable[[Connection], T],
        *,
        check: Check | None = None,
        urgent: bool = False,
    ) -> T:
        """Run `function(connection)` in a transaction of its own, committed unless it raises.

        `check` is called before each statement and while one runs; what it raises ends the
        transaction. An `urgent` one does not wait for others that have not begun. One whose turn
        does not come in time raises DatabaseError, and is not done later.
        """
        turn, loop = threading.Lock(), asyncio.get_running_loop()
        work = loop.run_in_executor(
            self._writer.ahead if urgent else self._writer, self._transact, turn, function, check
        )
        try:
            await asyncio.wait([work], timeout=TURN_SECONDS)
            if not work.done():
                self._give_up(turn)
        except (DatabaseError, asyncio.CancelledError):
            work.cancel()
            raise
        return await work

    async def read(self, function: Callable[[Connection], T], *, urgent: bool = False) -> T:
        """Run `function(connection)`, which can only read. An `urgent` one waits for no other that
        is not."""
        return await asyncio.get_running_loop().run_in_executor(
            self._urgent_reader if urgent else self._readers, self.read_here, function
        )

    async def checkpoint(self) -> None:
        """Write the log back into the file, so that it begins anew. Others write meanwhile."""
        await self.read(sqlite.checkpoint)

    def write_here(self, function: Callable[[Connection], T], *, check: Check | None = None) -> T:
        """Like `write`, for `def` jobs: this thread waits for the writer's."""
        if threading.get_ident() == self._writing:
            raise RuntimeError("a write within a write would wait for itself")
        turn = threading.Lock()
        work = self._writer.submit(self._transact, turn, function, check)
        wait([work], timeout=TURN_SECONDS)
        if not work.done():
            self._give_up(turn)
        return work.result()

    def read_here(self, function: Callable[[Connection], T]) -> T:
        """Like `read`, for `def` jobs: in this thread."""
        if self._closed:
            raise RuntimeError(f"{self.path} is closed")
        with self._begin(self._read_engine) as connection:
            return function(connection)

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
                self.read_here(lambda connection: connection.exec_driver_sql(sqlite.READ_SCHEMA))
                self.read_here(look)
            except OperationalError as error:
                if not sqlite.is_locked(error):
                    raise
        except (OSError, SQLAlchemyError, DatabaseError) as error:
            self.close()
            raise DatabaseError(f"{self.path}: {getattr(error, 'orig', error)}") from error

    def close(self) -> None:
        """Close all connections. What is read or written from now on raises RuntimeError."""
        self._closed = True
        for threads in (self._writer, self._readers, self._urgent_reader):
            threads.shutdown()
        for engine in (self._write_engine, self._read_engine):
            engine.dispose()

    def _give_up(self, turn: threading.Lock) -> None:
        """Wait no longer, unless the write has begun: of the writer and us, one gets its `turn`."""
        if turn.acquire(blocking=False):
            raise DatabaseError(f"{self.path}: other writes have kept it for {TURN_SECONDS:g} s")

    def _transact(
        self, turn: threading.Lock, function: Callable[[Connection], T], check: Check | None
    ) -> T:
        if not turn.acquire(blocking=False):
            raise DatabaseError("nobody waits for this write any more")
        self._writing = threading.get_ident()
        try:
            with self._begin(self._write_engine) as connection, _checked(connection, check):
                result = function(connection)
                if iscoroutine(result):
                    result.close()
                    raise TypeError("what writes must be a plain function: nobody awaits it")
                return result
        finally:
            self._writing = None

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
        connection.execute(sqlite.READ_SCHEMA)  # that opens the log and the shared memory
        paths = [Path(f"{self.path}{suffix}") for suffix in ("", "-wal", "-shm")]
        self._files = {path: _identity(path) for path in paths}

    def _engine(self, set_up: SetUp) -> Engine:
        engine = create_engine(
            URL.create("sqlite", database=str(self.path)),
            pool_size=READERS,
            max_overflow=-1,  # the threads are the limit, and a `def` job has one of its own
            connect_args={"timeout": sqlite.BUSY_SECONDS},
        )
        event.listen(engine, "connect", set_up)
        return engine


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


@contextmanager
def _checked(connection: Connection, check: Check | None) -> Iterator[None]:
    """Call `check` before each statement, and interrupt one during which it raises."""
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
    event.listen(connection, "before_cursor_execute", lambda *_: check())
    driver.set_progress_handler(is_over, INSTRUCTIONS)
    try:
        yield
    except OperationalError:
        check()  # its word on the interruption
        raise
    finally:
        driver.set_progress_handler(None, 0)
