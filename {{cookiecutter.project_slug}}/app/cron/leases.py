"""The leases of the runs under way: each is renewed in time, or its run is stopped."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from math import inf
from weakref import WeakSet

from .clock import Clock
from .run import JobRun
from .store import Store, StoreUnavailable

log = logging.getLogger(__name__)

# A lease is renewed when this part of it is over: one heartbeat may fail, the next is in time.
RENEW_AFTER = 1 / 3

# A lease is trusted for this part of it, counted from when the request for it was sent. The rest is
# for clocks that run differently, and for a body to end in.
TRUSTED = 5 / 6


class Leases:
    """Renews the leases of `runs()`. Its own task, so that a store that hangs hides nothing.

    Where the store gives no leases, all is trusted for ever.
    """

    def __init__(self, store: Store, clock: Clock, runs: Callable[[], Iterable[JobRun]]) -> None:
        self._store = store
        self._clock = clock
        self._runs = runs
        self._seconds = inf if store.lease is None else store.lease.total_seconds()
        self._begun = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._warned: WeakSet[JobRun] = WeakSet()

    def start(self) -> None:
        """Begin to look after the runs."""
        if self._seconds < inf:
            self._keeper = asyncio.create_task(self._keep(), name="cron leases")

    async def stop(self) -> None:
        """Renew nothing more."""
        tasks = [task for task in (self._keeper, self._renewal) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def dead(self) -> bool:
        """True when nobody looks after the runs any more."""
        return self._keeper is not None and self._keeper.done()

    def trusted_until(self, asked: float) -> float:
        """Up to when a lease is trusted that was asked for at `asked`, on the monotonic clock."""
        return asked + self._seconds * TRUSTED

    def wake(self) -> None:
        """There is a run to look after."""
        self._begun.set()

    async def _keep(self) -> None:
        while True:
            await self._begun.wait()
            self._begun.clear()
            renew_at = self._clock.monotonic() + self._seconds * RENEW_AFTER
            while runs := self._kept():
                until = min(renew_at, *(run.trusted_until for run in runs))
                await self._clock.sleep(self._left(until))
                self._stop_untrusted()
                if not self._left(renew_at):
                    renew_at = self._clock.monotonic() + self._seconds * RENEW_AFTER
                    self._warn_of_writes()
                    if self._kept() and (self._renewal is None or self._renewal.done()):
                        self._renewal = asyncio.create_task(self._renew())

    def _left(self, until: float) -> float:
        """How many seconds are left, whole microseconds: what is less could be slept in no time."""
        return max(0, round((until - self._clock.monotonic()) * 1_000_000)) / 1_000_000

    def _kept(self) -> list[JobRun]:
        return [run for run in self._runs() if run.lost is None]

    def _stop_untrusted(self) -> None:
        for run in self._kept():
            if not self._left(run.trusted_until):
                run.lose_lease("it could not be renewed in time")

    def _warn_of_writes(self) -> None:
        for run in self._kept():
            if run not in self._warned and run.fence and (seconds := run.fence.seconds_over()):
                self._warned.add(run)
                run.context.log.warning(
                    "it has kept a transaction open for %.0f s, which is too long: it will not be "
                    "committed",
                    seconds,
                )

    async def _renew(self) -> None:
        runs, asked = self._kept(), self._clock.monotonic()
        try:
            held = await self._store.heartbeat([run.claimed for run in runs])
        except StoreUnavailable as error:
            log.debug("cron: no heartbeat: %s", error)  # the driver tells of the outage, once
            return
        except Exception:
            log.exception("cron: the leases cannot be renewed")
            return
        for run in runs:
            if held.get(run.job.name) is False:
                run.lose_lease("it had run out, or another process has the job")
            elif run.job.name in held:
                run.trusted_until = self.trusted_until(asked)
