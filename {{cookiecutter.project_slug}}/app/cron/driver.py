"""The driver: waits until a job of its store is due, claims it, and records how it ended."""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

from .absence import Absence
from .agenda import MICROSECOND
from .clock import Clock, RandomSource
from .ends import Ends, each
from .job import Job
from .leases import Leases
from .outage import Outage
from .plan import NOW, Plan
from .running import Running
from .schedule import in_words
from .store import Claim, Claimed, Finish, Look, Store, StoreUnavailable

log = logging.getLogger(__name__)

# What falls due this soon after another is claimed together with it, in one transaction.
COALESCE = timedelta(milliseconds=50)

# The driver counts as late when this much more than LOOK_EVERY has passed since it last looked.
LATE = timedelta(seconds=30)

# A job is not claimed again sooner after it has been claimed in vain, nor its end recorded: another
# transaction may keep its row locked for seconds, say that of a process which is frozen.
TRY_AGAIN = timedelta(milliseconds=100)

# How long the driver rests when something has failed that should not.
FAULT_SECONDS = 1.0


class Driver:
    """Drives the jobs of one store: a task that keeps a heap of due times. With `claims=False` it
    starts nothing by itself, but sees to what `run` starts."""

    def __init__(
        self,
        jobs: Sequence[Job],
        *,
        store: Store,
        clock: Clock,
        random: RandomSource,
        running: Running,
        claims: bool,
        look_every: timedelta,
        coalesce: timedelta,
    ) -> None:
        self.jobs = {job.name: job for job in jobs}
        self.outage = Outage(clock)
        self.tasks: list[asyncio.Task[Any]] = []  # that claim: the loop, then those of `run`
        self._store = store
        self._clock = clock
        self._running = running
        self._claims = claims
        self._plan = Plan(self.jobs, clock=clock, random=random, coalesce=coalesce)
        self._agenda = self._plan.agenda
        self._ends = Ends(store, self._add)
        self._leases = Leases(store, clock, partial(running.runs_of, self.jobs))
        self._look_every = look_every // MICROSECOND
        self._looked_at = self._agenda.time()
        self._stale = True
        self._claim_failed = False
        self._absence = Absence(store, clock)
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()

    async def start(self) -> None:
        """Begin to drive. A store that is away is waited for, later."""
        rest = 0.0
        try:
            await self._look_again()
        except StoreUnavailable as error:
            rest = self.outage.failed(error)
        self.tasks.append(asyncio.create_task(self._drive(rest), name="cron driver"))
        self._leases.start()

    def next_due(self) -> tuple[str, timedelta] | None:
        """The job that is due next, and in how long."""
        return self._agenda.next()

    def problem(self) -> str | None:
        """Why nothing would start now: the driver is dead, or late. None while all is well."""
        if not self.tasks or self.tasks[0].done():
            return "the driver is dead"
        if self._leases.dead():
            return "nobody renews the leases"
        idle = self._agenda.time() - self._looked_at
        if idle > self._look_every + LATE // MICROSECOND:
            return f"the driver is late: it last looked {in_words(idle * MICROSECOND)} ago"
        return None

    def ended(self, finish: Finish) -> None:
        """A run has ended: record it, with the next `retry_waiting`."""
        self._ends.add(finish)

    def retry_waiting(self) -> None:
        """A thread may be free: start what waits for one."""
        self._agenda.retry_waiting()
        self._wake.set()

    def stop(self) -> None:
        """Claim nothing more; the task ends when it has recorded what has ended so far."""
        self._stopping.set()
        self._wake.set()

    async def wind_down(self) -> None:
        """Record the ends of runs as they come, until all have ended. Others wait for some."""
        while self._running.runs_of(self.jobs):
            await self._wake.wait()
            self._wake.clear()
            with suppress(StoreUnavailable):  # `leave` tries again, and tells
                await self._ends.record()

    async def leave(self) -> None:
        """Record what is left to record, and that the process stops."""
        try:
            await self._ends.record()
            if self._claims:
                await self._store.check_out()
            while self._ends.names:
                await self._clock.sleep(TRY_AGAIN.total_seconds())
                await self._ends.record()
        except Exception as error:  # noqa: BLE001 -- nothing may keep the app from ending
            log.error("cron: the database is not told of the end: %s", error)
        finally:
            self._ends.give_up()
            for task in self.tasks:  # a claim whose answer has not come: it begins nothing any more
                task.cancel()
            await self._leases.stop()

    async def run(self, name: str, *, forced: bool, run_no: int | None) -> Finish | None:
        """Claim the job and run it here, and wait until its end is recorded.

        None: it is running already or, unless `forced`, not due; or `run_no`, if given, is not its
        last run any more; or the driver stops.
        """
        if run_no is None:
            [look] = await self._store.look([name])
            run_no = look.run_no
        # What is running may also have lost its lease, and not end.
        if name in self._running.names or self._stopping.is_set():
            return None
        self._plan.know(name, run_no)
        asked = self._clock.monotonic()

        async def claim() -> asyncio.Future[Finish] | None:
            claimed = await self._store.claim([self._plan.wish(name, forced=forced)], wait=True)
            if not claimed:
                return None
            self._agenda.drop({name})
            end = self._ends.of(name)
            self._begin(claimed[0], asked)
            return end

        # What is claimed begins, and ends with the others, even if nobody waits for it any more.
        task = asyncio.create_task(claim())
        self.tasks.append(task)
        task.add_done_callback(self.tasks.remove)
        try:
            end = await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():
                raise
            raise StoreUnavailable("the app has ended, and its claim was not answered") from None
        return None if end is None else await end

    async def _drive(self, rest: float) -> None:
        look_at = self._looked_at + self._look_every
        if rest:
            await self._absence.wait(self._stopping, rest)
        while not self._stopping.is_set():
            if not self._stale:
                await self._wait(look_at)
            self._looked_at = self._agenda.time()
            try:
                await self._ends.record()
                if self._stale or self._looked_at >= look_at:
                    look_at = self._looked_at + self._look_every
                    await self._look_again()
                await self._claim_due()
                if not self._claim_failed:
                    self.outage.over()
            except StoreUnavailable as error:
                self._stale = True
                self._looked_at = self._agenda.time()  # it may have waited long for the answer
                await self._absence.wait(self._stopping, self.outage.failed(error))
            except Exception:
                log.exception("cron: the driver has failed; it goes on in %g s", FAULT_SECONDS)
                self._stale = True
                await self._absence.wait(self._stopping, FAULT_SECONDS)

    async def _wait(self, look_at: int) -> None:
        """Until something is due, a run has ended, the driver stops, or it is `look_at`."""
        if self._ends.names:
            look_at = min(look_at, self._agenda.time() + TRY_AGAIN // MICROSECOND)
        while not self._wake.is_set() and not self._stale:
            seconds = (self._agenda.wake_at(look_at) - self._agenda.time()) / 1_000_000
            if seconds <= 0:
                break
            self._stale = await self._absence.wait(self._wake, seconds)
        self._wake.clear()

    async def _look_again(self) -> None:
        """Look at all jobs that do not run here. After an absence or outage, plan all anew."""
        busy = {*self._running.names, *self._ends.names}
        names = [name for name in self.jobs if name not in busy]
        if self._stale:
            looks = await self._store.register([self._plan.registration(name) for name in names])
        else:
            looks = await self._store.look(names)
        if self._claims:
            await self._absence.check_in(at_once=self._stale)
        self._absence.tell()
        # A full disk can let a look pass, and no claim. With none to make, the look decides.
        self._claim_failed &= any(
            look.delay <= NOW and look.held_for <= NOW and not look.paused for look in looks
        )
        if self._claims:
            self._plan.renew(looks, stale=self._stale)
        self._stale = False
        self._running.warn_of_late()

    async def _claim_due(self) -> None:
        due = [name for _, name in self._agenda.take_due(self._running.reserve)]
        try:
            if held := [name for name in due if self._plan.is_held(name)]:
                self._add(await self._store.look(held))
            wishes = [self._plan.wish(name) for name in due if name not in held]
            if wishes and not self._stopping.is_set():
                await self._claim(wishes)
        finally:
            self._running.release(due)

    async def _claim(self, wishes: Sequence[Claim]) -> None:
        asked, lost = self._clock.monotonic(), set[str]()

        def begin(wishes: Sequence[Claim], claimed: list[Claimed]) -> None:
            for claim in claimed:
                self._begin(claim, asked)
            lost.update({wish.name for wish in wishes} - {claim.name for claim in claimed})

        self._claim_failed = True
        await each(self._store.claim, wishes, begin)
        self._claim_failed = False
        if lost:  # what has failed is tried again after the next look at all jobs
            self._add(await self._store.look(sorted(lost)), soonest=TRY_AGAIN)

    def _begin(self, claimed: Claimed, asked: float) -> None:
        self._running.begin(claimed, self._store.fence(claimed), self._leases.trusted_until(asked))
        self._leases.wake()

    def _add(self, looks: Iterable[Look], soonest: timedelta = NOW) -> None:
        if self._claims:
            self._plan.add(looks, soonest=soonest)
