"""Several processes in one test: each a scheduler with a store of its own, on a shared database."""

from collections.abc import AsyncIterator, Awaitable, Callable, Container, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI
from sqlalchemy import URL

from app.cron.clock import Clock, RandomSource
from app.cron.database import Database
from app.cron.inject import prepare
from app.cron.scheduler import Scheduler
from app.cron.sql_store import SqlStore
from app.cron.store import StoreUnavailable
from app.cron.tables import upgrade_tables
from app.db import database_at

from .chance import fixed
from .clock import FakeClock, _Timer

LEASE = timedelta(seconds=30)

OPERATIONS = {"register", "look", "claim", "heartbeat", "finish", "check_in", "check_out"}
"""All that a scheduler asks of a store."""

numbers = count(1)


class ReplicaClock(FakeClock):
    """The time of a FakeClock, as one process sees it: `freeze` holds its timers, as SIGSTOP does.

    What waits for no timer is not held.
    """

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock
        self._frozen = False
        self._held: list[_Timer] = []

    def now(self) -> datetime:
        return self._clock.now()

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def freeze(self) -> None:
        """Nothing wakes any more."""
        self._frozen = True

    def thaw(self) -> None:
        """What should have woken meanwhile wakes now, the earliest first."""
        self._frozen = False
        held, self._held = self._held, []
        for timer in held:
            if timer.alive():
                timer.fire()

    def fire(self, timer: _Timer) -> None:
        """Let a timer have its effect, unless this process is frozen."""
        if self._frozen:
            self._held.append(timer)
        else:
            timer.fire()

    def _add(self, seconds: float, timer: _Timer) -> None:
        self._clock._add(seconds, _Holdable(self, timer))


class _Holdable:
    def __init__(self, clock: ReplicaClock, timer: _Timer) -> None:
        self._clock = clock
        self._timer = timer

    def alive(self) -> bool:
        return self._timer.alive()

    def fire(self) -> None:
        self._clock.fire(self._timer)


class FaultyStore(SqlStore):
    """A store that a test can slow down, or cut off from its database."""

    def __init__(self, database: Database, clock: Clock, *, owner: str, lease: timedelta) -> None:
        super().__init__(database, clock, owner=owner, lease=lease)
        self.fails: Container[str] = ()
        """These operations do nothing, and raise `error`."""
        self.error: Exception = StoreUnavailable("the disk is full")
        self.loses: Container[str] = ()
        """These are done, but the answer is an error."""
        self.seconds_before: dict[str, float] = {}
        """How long an operation waits before it is done."""
        self.seconds_after: dict[str, float] = {}
        """How long the answer takes."""
        self.asked: list[tuple[str, float]] = []
        """Each operation that was asked for, and when on the monotonic clock."""
        for operation in OPERATIONS:
            setattr(self, operation, partial(self._ask, operation, getattr(self, operation)))

    def times(self, operation: str) -> list[float]:
        """When it was asked for."""
        return [when for name, when in self.asked if name == operation]

    async def _ask(
        self, operation: str, call: Callable[..., Awaitable[Any]], *arguments: Any, **options: Any
    ) -> Any:
        self.asked.append((operation, self._clock.monotonic()))
        if seconds := self.seconds_before.get(operation):
            await self._clock.sleep(seconds)
        if operation in self.fails:
            raise self.error
        answer = await call(*arguments, **options)
        if seconds := self.seconds_after.get(operation):
            await self._clock.sleep(seconds)
        if operation in self.loses:
            raise StoreUnavailable("the answer is lost")
        return answer


@dataclass(frozen=True)
class Replica:
    """A process that runs jobs, as others do that share its database."""

    name: str
    scheduler: Scheduler
    database: Database
    store: FaultyStore
    own_clock: ReplicaClock
    clock: FakeClock

    def freeze(self) -> None:
        """Hold it, as SIGSTOP does. If it is never thawed, it might as well have been killed."""
        self.own_clock.freeze()

    def thaw(self) -> None:
        """Let it go on, as SIGCONT does."""
        self.own_clock.thaw()

    async def stop(self) -> None:
        """End it, as SIGTERM does."""
        await self.clock.run(self.scheduler.stop())


@asynccontextmanager
async def replica(
    clock: FakeClock,
    url: URL,
    *jobs: Callable[..., Any],
    lease: timedelta = LEASE,
    random: RandomSource | None = None,
    fails: Container[str] = (),
    loses: Container[str] = (),
    seconds_before: Mapping[str, float] = MappingProxyType({}),
    seconds_after: Mapping[str, float] = MappingProxyType({}),
    **options: Any,
) -> AsyncIterator[Replica]:
    """A process with these jobs, for as long as the block; then it ends as by SIGTERM.

    All replicas with one URL share a database. Bodies find `name` in `ctx.state.replica`. `fails`,
    `loses` and the seconds are the store's from the start, `options` are the Scheduler's.
    """
    own_clock, name = ReplicaClock(clock), f"replica {next(numbers)}"
    with closing(database_at(url)) as database:
        await database.write(upgrade_tables)
        store = FaultyStore(database, own_clock, owner=name, lease=lease)
        store.fails, store.loses = fails, loses
        store.seconds_before |= seconds_before
        store.seconds_after |= seconds_after
        scheduler = Scheduler(
            prepare(jobs, FastAPI()),
            store=store,
            clock=own_clock,
            random=random or fixed(0.5),
            state={"replica": name},
            **{"coalesce": timedelta(0), **options},
        )
        subject = Replica(name, scheduler, database, store, own_clock, clock)
        await clock.run(scheduler.__aenter__())
        try:
            await clock.settle()
            yield subject
        finally:
            subject.thaw()
            await subject.stop()
