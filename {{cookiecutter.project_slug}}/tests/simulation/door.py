"""The way of a process to the database, and all that can go wrong on it."""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Any, TypeVar

from sqlalchemy import Connection, event

from app.cron.database import DatabaseError

from .loop import SECOND, Killed, ProcessLoop, this_thread
from .server import Died, Server, unavailable

T = TypeVar("T")

# SQLite's patience with another one's lock.
BUSY_SECONDS = 5.0

# How often a simulated writer looks whether the lock is gone.
LOOK_SECONDS = 0.5

# So long after an error somebody looks how the process takes it.
WATCH_SECONDS = 0.25

# How long a message takes when nothing is wrong, and the news that the database is away.
TRIP_SECONDS = (0.0, 0.0002, 0.003)
REFUSED_AFTER = (0.000_001, 1.0, 10.0)


@dataclass
class Line:
    """The line from a process to the database: how slow, and how often it fails."""

    slow_until: int = 0
    slow_seconds: float = 0.0
    fails_before: int = 0
    """So many of the next writes fail before their commit."""
    fails_after: int = 0
    """So many are committed, and their answer is lost."""
    cut_until: int = 0


class Door:
    """One process's way to the database: what SqlStore and Fence ask of a `Database`."""

    def __init__(
        self,
        server: Server,
        process: ProcessLoop,
        random: Random,
        instant: bool,
        watch: Callable[[], None],
    ) -> None:
        self.server = server
        self.process = process
        self.line = Line()
        self.waiting: dict[int, int] = {}
        """Since when each request waits for its answer."""
        self._random = random
        self._instant = instant
        self._watch = watch
        self._check: Callable[[], None] | None = None
        self._numbers = count()
        self._last = 0
        """When what was sent before arrives: SQLite has one writer in a process."""

    # What the app calls

    async def write(
        self,
        function: Callable[[Connection], T],
        *,
        check: Callable[[], None] | None = None,
        urgent: bool = False,
    ) -> T:
        """Run it in a transaction."""
        future: asyncio.Future[T] = self.process.create_future()
        if check is None:
            self._send(function, future)
        else:  # a body's function, which may take its time
            self.process.in_thread(lambda: self.write_here(function, check=check), future)
        return await future

    async def read(self, function: Callable[[Connection], T], *, urgent: bool = False) -> T:
        """Run it, and let it change nothing."""
        future: asyncio.Future[T] = self.process.create_future()
        self._send(function, future, reads=True)
        return await future

    def write_here(
        self, function: Callable[[Connection], T], *, check: Callable[[], None] | None = None
    ) -> T:
        """Like `write`, in a simulated thread."""
        thread, server, waited = this_thread(), self.server, 0.0
        if before := self._trip():
            thread.sleep(before)
        if reason := self._away():
            thread.sleep(self._random.choice(REFUSED_AFTER))
            raise unavailable(reason)
        while server.locked():
            thread.sleep(LOOK_SECONDS)
            waited += LOOK_SECONDS
            if waited > BUSY_SECONDS:
                raise DatabaseError("other writes have kept it for 5 s")
        if server.sqlite:
            server.holder = self.process
        self._check = check
        try:
            result = server.transact(
                self.process.name, function, check=check, fails=self._fails_now()
            )
        except Died:
            raise Killed from None
        finally:
            server.holder = None
        if after := self._trip():
            thread.sleep(after)
        self._lose_answer()
        return result

    # What can befall it

    def hold(self, seconds: float) -> None:
        """In a function that is given to `write`: let time pass in its transaction."""
        check = self._check
        if self.server.sqlite:
            self.server.tell_of_hold(self.process.name, seconds)
        self.server.hold(self.process.name, seconds)
        if check is not None:
            check()

    def kill_at_statement(self, number: int, kill: Callable[[], None]) -> None:
        """Kill the process at this of its next statements, in the middle of the transaction."""
        left, connection = count(number, -1), self.server.connection

        def before_statement(*_: object) -> None:
            if self.server.by == self.process.name and next(left) == 0 and self.process.alive:
                kill()
                raise Died

        event.listen(connection, "before_cursor_execute", before_statement)
        self.process.world.after(
            600, lambda: event.remove(connection, "before_cursor_execute", before_statement)
        )

    # How it gets there

    def _send(
        self, function: Callable[[Connection], T], future: asyncio.Future[T], reads: bool = False
    ) -> None:
        process, server, number = self.process, self.server, next(self._numbers)
        now = server.world.now
        self.waiting[number] = now
        before, after = round(self._trip() * SECOND), self._trip()
        if server.sqlite and not reads:
            before = max(self._last - now, before)
            self._last = now + before

        def answer(result: Any, error: BaseException | None) -> None:
            del self.waiting[number]
            process.answer(future, result, error)
            if error is not None:  # the process rests, and should not be taken for late
                server.world.after(WATCH_SECONDS, self._watch)

        def refuse(reason: str) -> None:
            answer(None, unavailable(reason))

        def arrive(waited: float = 0.0) -> None:
            if future.cancelled() and self._random.random() < 0.5:
                return answer(None, None)  # it was still in the queue
            if reason := self._away():
                seconds = self._random.choice(REFUSED_AFTER)
                return process.work_after(seconds, lambda: refuse(reason))
            if not reads and server.locked():
                if waited >= BUSY_SECONDS:
                    return refuse("database is locked")
                return process.work_after(LOOK_SECONDS, lambda: arrive(waited + LOOK_SECONDS))
            result, error = None, None
            try:
                if reads:
                    server.by = process.name
                    result = function(server.connection)
                else:
                    result = server.transact(process.name, function, fails=self._fails_now())
                    self._lose_answer()
            except Died:
                return None
            except Exception as caught:  # noqa: BLE001 -- it belongs to who awaits the future
                error = caught
            return process.work_after(after, lambda: answer(result, error))

        process.work_after(before / SECOND, arrive)

    def _trip(self) -> float:
        """How long a message takes."""
        if self.line.slow_until > self.server.world.now:
            return self.line.slow_seconds * math.exp(-6 * self._random.random())
        return 0.0 if self._instant else self._random.choice(TRIP_SECONDS)

    def _away(self) -> str | None:
        now = self.server.world.now
        return "no connection" if max(self.server.away_until, self.line.cut_until) > now else None

    def _fails_now(self) -> bool:
        fails = self.line.fails_before > 0
        self.line.fails_before -= fails
        return fails

    def _lose_answer(self) -> None:
        if self.line.fails_after:
            self.line.fails_after -= 1
            self.server.tell_of_lost_answer(self.process.name)
            raise unavailable("the answer is lost")
