"""The database as jobs and endpoints use it: off the event loop, with writes that take turns."""

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, wait
from contextlib import contextmanager
from inspect import iscoroutine
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, event
from sqlalchemy.exc import OperationalError

from .threads import DaemonThreads

T = TypeVar("T")
Check = Callable[[], None]

READERS = 4

# How long a write waits for its turn among those of its process. Behind a locked database they
# would pile up, and be done when nobody waits for them any more.
TURN_SECONDS = 5.0


class DatabaseError(Exception):
    """The database cannot be used. The message is one line: which one, and why."""


class Database(ABC):
    """A database, used from threads, never on the event loop.

    It is a `SqliteDatabase` or a `PostgresDatabase`: they say how it is opened and locked.
    """

    def __init__(
        self,
        name: str,
        url: URL,
        *,
        connect_args: dict[str, Any],
        read_engine: Engine,
        write_engine: Engine,
        writer: Executor,
        urgent_writer: Executor,
        threads: list[DaemonThreads],
    ) -> None:
        self.name = name
        """Which database it is, as people are told. There is no password in it."""
        self.url = url
        """Where it is, in the form that SQLAlchemy's engines take, sync and async on Postgres."""
        self.connect_args = connect_args
        """What an engine of one's own is given with it: how long it waits, on Postgres also how it
        notices that the server is gone, and that there may be a pooler."""
        self._read_engine = read_engine
        self._write_engine = write_engine
        self._writer = writer
        self._urgent_writer = urgent_writer
        self._readers = DaemonThreads(READERS, "database-reader")
        self._urgent_reader = DaemonThreads(1, "database-urgent-reader")
        self._threads = [*threads, self._readers, self._urgent_reader]
        self._closed = False
        self._writing = set[int]()
        """The threads that are in a write."""

    async def write(
        self,
        function: Callable[[Connection], T],
        *,
        check: Check | None = None,
        urgent: bool = False,
    ) -> T:
        """Run `function(connection)` in a transaction of its own, committed unless it raises.

        `check` is called before each statement, on SQLite also while one runs, and when one fails;
        what it raises ends the transaction. An `urgent` one waits for no others that have not
        begun. One whose turn does not come in time raises DatabaseError, and is not done later.
        """
        turn, loop = threading.Lock(), asyncio.get_running_loop()
        writer = self._urgent_writer if urgent else self._writer
        work = loop.run_in_executor(writer, self._transact, turn, function, check)
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

    def write_here(self, function: Callable[[Connection], T], *, check: Check | None = None) -> T:
        """Like `write`, for `def` jobs: this thread waits for a writer's."""
        if threading.get_ident() in self._writing:
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
            raise RuntimeError(f"{self.name} is closed")
        with self._begin(self._read_engine) as connection:
            return function(connection)

    async def checkpoint(self) -> None:  # noqa: B027 -- one that needs nothing does nothing
        """After many writes: let the database put its files in order, where it needs that."""

    @abstractmethod
    def check(self, look: Callable[[Connection], object] = lambda _: None) -> None:
        """Look whether the database can be used. Raises DatabaseError if not, or if `look` does.

        One that is locked, or does not answer yet, passes: who uses it may wait for it.
        """

    @abstractmethod
    def may_be_waited_for(self, error: OperationalError) -> bool:
        """True if what has failed may work soon: the database is locked, or it is starting."""

    def close(self) -> None:
        """Close all connections. What is read or written from now on raises RuntimeError."""
        self._closed = True
        for threads in self._threads:
            threads.shutdown()
        for engine in (self._write_engine, self._read_engine):
            engine.dispose()

    def _give_up(self, turn: threading.Lock) -> None:
        """Wait no longer, unless the write has begun: of the writer and us, one gets its `turn`."""
        if turn.acquire(blocking=False):
            raise DatabaseError(f"{self.name}: other writes have kept it for {TURN_SECONDS:g} s")

    def _transact(
        self, turn: threading.Lock, function: Callable[[Connection], T], check: Check | None
    ) -> T:
        if not turn.acquire(blocking=False):
            raise DatabaseError("nobody waits for this write any more")
        thread = threading.get_ident()
        self._writing.add(thread)
        try:
            with self._begin(self._write_engine) as connection, self._checked(connection, check):
                result = function(connection)
                if iscoroutine(result):
                    result.close()
                    raise TypeError("what writes must be a plain function: nobody awaits it")
                return result
        finally:
            self._writing.discard(thread)

    @contextmanager
    def _begin(self, engine: Engine) -> Iterator[Connection]:
        """A transaction."""
        with engine.begin() as connection:
            yield connection

    @contextmanager
    def _checked(self, connection: Connection, check: Check | None) -> Iterator[None]:
        """Call `check` before each statement, and when one fails."""
        if check is None:
            yield
            return
        event.listen(connection, "before_cursor_execute", lambda *_: check())
        try:
            yield
        except OperationalError:
            check()  # its word on a statement that was interrupted for it
            raise


def reason_of(error: Exception) -> str:
    """Why it has failed, in the database's words, on one line."""
    return " ".join(str(getattr(error, "orig", None) or error).split())
