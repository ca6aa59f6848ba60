"""The scheduler: it runs the jobs of an app for as long as the app runs, and ends them with it."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from .clock import Clock, RandomSource
from .driver import COALESCE, Driver
from .inject import Injected
from .memory_store import MemoryStore
from .plan import LOOK_EVERY
from .running import Running
from .store import Finish, Store

log = logging.getLogger(__name__)

# How long cancelled runs may take to clean up at shutdown, and then the store to hear of it.
CANCEL_SECONDS = 1.0


class Scheduler:
    """Runs the jobs for as long as its `async with` block lasts.

    A driver claims what is due from the store, so that of all processes that look, one runs it.
    Jobs that each process runs for itself have a driver of their own, and a store in memory: no
    outage of the database reaches them. When the block ends, runs are asked to stop, after `grace`
    they are cancelled, and a second later they are left behind: it ends in bounded time.

    With `claims=False` nothing starts by itself, only what `run` is asked for.
    """

    def __init__(
        self,
        jobs: Sequence[Injected],
        *,
        store: Store,
        clock: Clock,
        random: RandomSource,
        state: Mapping[str, Any],
        grace: timedelta = timedelta(seconds=5),
        threads: int = 8,
        claims: bool = True,
        look_every: timedelta = LOOK_EVERY,
        coalesce: timedelta = COALESCE,
    ) -> None:
        self._clock = clock
        self._grace_seconds = grace.total_seconds()
        self._running = Running(
            jobs,
            clock=clock,
            random=random,
            state=state,
            threads=threads,
            ended=self._end,
            freed=self._retry_waiting,
        )
        shared = [injected.job for injected in jobs if not injected.job.each_process]
        own = [injected.job for injected in jobs if injected.job.each_process]
        stores = [(shared, store), (own, MemoryStore(clock))] if own else [(shared, store)]
        self._drivers = [
            Driver(
                part,
                store=its_store,
                clock=clock,
                random=random,
                running=self._running,
                claims=claims,
                look_every=look_every,
                coalesce=coalesce,
            )
            for part, its_store in stores
        ]
        self._driver_of = {name: driver for driver in self._drivers for name in driver.jobs}
        self._stopper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        try:
            for driver in self._drivers:
                await driver.start()
        except BaseException:  # cancelled, perhaps: what has begun must not go on
            await self.stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    def next_due(self) -> tuple[str, timedelta] | None:
        """The job that is due next, and in how long."""
        due = [driver.next_due() for driver in self._drivers]
        return min((each for each in due if each), key=lambda each: each[1], default=None)

    def problem(self) -> str | None:
        """Why nothing would start now: a driver is dead, or late. None while all is well."""
        return next(filter(None, (driver.problem() for driver in self._drivers)), None)

    def outage(self) -> str | None:
        """Since when the database is away, and why. None while it is there."""
        return next(filter(None, (str(driver.outage) for driver in self._drivers)), None)

    async def run(
        self, name: str, *, forced: bool = True, run_no: int | None = None
    ) -> Finish | None:
        """Claim the job and run it here, and wait until its end is recorded.

        None: it is running elsewhere or, unless `forced`, not due; or `run_no`, if given, is not
        its last run any more; or the app ends. Raises StoreUnavailable.
        """
        return await self._driver_of[name].run(name, forced=forced, run_no=run_no)

    async def stop(self) -> None:
        """End all runs, as `Scheduler` says. A cancel meanwhile is raised when that is done."""
        if self._stopper is None:
            self._stopper = asyncio.create_task(self._stop(), name="cron stop")
        cancelled: asyncio.CancelledError | None = None
        while not self._stopper.done():
            try:
                await asyncio.shield(self._stopper)
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled

    async def _stop(self) -> None:
        for driver in self._drivers:
            driver.stop()
        tasks = [task for driver in self._drivers for task in driver.tasks]
        if names := ", ".join(self._running.names):
            log.info("cron: stopping; waiting up to %g s for %s", self._grace_seconds, names)
        self._running.request_stop()
        with suppress(TimeoutError):
            async with self._clock.timeout(self._grace_seconds):
                if tasks:
                    await asyncio.wait(tasks)
                self._running.request_stop()  # also what a driver has begun meanwhile
                await asyncio.gather(*(driver.wind_down() for driver in self._drivers))
        self._running.cancel()
        with suppress(TimeoutError):
            async with self._clock.timeout(CANCEL_SECONDS):
                for driver in self._drivers:
                    for task in driver.tasks[:1]:  # what was asked for is decided soon, and begins
                        task.cancel()
                if tasks:
                    await asyncio.wait(tasks)  # they give back what they could not record
                self._running.cancel()  # also what one has begun meanwhile
                await self._running.wait()
        with suppress(TimeoutError):
            async with self._clock.timeout(CANCEL_SECONDS):
                await asyncio.gather(*(driver.leave() for driver in self._drivers))
        self._running.leave_behind()

    def _end(self, finish: Finish) -> None:
        self._driver_of[finish.name].ended(finish)
        self._retry_waiting()

    def _retry_waiting(self) -> None:
        for driver in self._drivers:
            driver.retry_waiting()
