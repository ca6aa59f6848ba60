"""The scheduler: one driver that waits, claims what is due, starts it and records how it ended."""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Any, Self

from .agenda import MICROSECOND, Agenda, Entry
from .clock import Clock, RandomSource
from .inject import Injected
from .job import Job, JobLog
from .running import Running
from .schedule import in_words
from .store import Claim, Finish, Look, Registration, Store

log = logging.getLogger(__name__)

# The driver looks at the store this often, whatever is due: a stepped wall clock or a suspended
# machine makes its plans stale.
LOOK_EVERY = timedelta(seconds=15)

# What falls due this soon after another is claimed together with it, in one transaction.
COALESCE = timedelta(milliseconds=50)

# The driver counts as late when this much more than LOOK_EVERY has passed since it last looked.
LATE = timedelta(seconds=30)

# How long cancelled runs may take to clean up at shutdown, and then the store to hear of it.
CANCEL_SECONDS = 1.0

# A job is not claimed again sooner after it has been claimed in vain, or the driver might spin.
LOST = timedelta(milliseconds=10)

# How long the driver rests when the store has failed.
STORE_RETRY_SECONDS = 1.0


class Scheduler:
    """Runs the jobs for as long as its `async with` block lasts.

    A driver task keeps a heap of due times and claims what is due from the store, so that of all
    processes that look, one runs it. When the block ends, runs are asked to stop, after `grace`
    they are cancelled, and a second later they are left behind: it ends in bounded time.
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
        look_every: timedelta = LOOK_EVERY,
        coalesce: timedelta = COALESCE,
    ) -> None:
        self._jobs = {injected.job.name: injected.job for injected in jobs}
        self._store = store
        self._clock = clock
        self._random = random
        self._grace_seconds = grace.total_seconds()
        self._running = Running(
            jobs, clock=clock, random=random, state=state, threads=threads, ended=self._end
        )
        self._agenda = Agenda(clock, coalesce)
        self._look_every = look_every // MICROSECOND
        self._looked_at = 0
        self._run_nos: dict[str, int] = {}
        self._ended: list[Finish] = []
        self._wake = asyncio.Event()
        self._driver: asyncio.Task[None] | None = None
        self._stopper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._looked_at = self._agenda.time()
        looks = await self._store.register([self._register(job) for job in self._jobs.values()])
        self._schedule(looks)
        self._driver = asyncio.create_task(self._drive(), name="cron driver")
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
        return self._agenda.next()

    def problem(self) -> str | None:
        """Why nothing would start now: the driver is dead, or late. None while all is well."""
        if self._driver is None or self._driver.done():
            return "the driver is dead"
        idle = self._agenda.time() - self._looked_at
        if idle > self._look_every + LATE // MICROSECOND:
            return f"the driver is late: it last looked {in_words(idle * MICROSECOND)} ago"
        return None

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
        self._stopper.result()

    async def _drive(self) -> None:
        look_at = self._looked_at + self._look_every
        while self._stopper is None:
            await self._wait(look_at)
            self._looked_at = self._agenda.time()
            try:
                await self._record_ended()
                if self._looked_at >= look_at:
                    look_at = self._looked_at + self._look_every
                    await self._look_again()
                await self._claim_due()
            except Exception:
                log.exception("cron: the store failed; next try in %g s", STORE_RETRY_SECONDS)
                await self._clock.sleep(STORE_RETRY_SECONDS)

    async def _wait(self, look_at: int) -> None:
        """Until something is due, a run has ended, the scheduler stops, or it is `look_at`."""
        while not self._wake.is_set():
            seconds = (self._agenda.wake_at(look_at) - self._agenda.time()) / 1_000_000
            if seconds <= 0:
                break
            with suppress(TimeoutError):
                async with self._clock.timeout(seconds):
                    await self._wake.wait()
        self._wake.clear()

    async def _claim_due(self) -> None:
        due = self._take_due()
        if not due or self._stopper is not None:
            return
        names = [name for _, name in due]
        try:
            claimed = await self._store.claim([self._claim(name) for name in names])
        except BaseException:
            self._agenda.put_back(due)
            raise
        for claim in claimed:
            self._run_nos[claim.name] = claim.run_no
            self._running.begin(claim)
        if lost := sorted(set(names) - {claim.name for claim in claimed}):
            self._schedule(await self._store.look(lost), soonest=LOST)

    def _take_due(self) -> list[Entry]:
        """What is due, but for jobs that need a thread when none is free."""
        free = self._running.free_threads()

        def may_start(name: str) -> bool:
            nonlocal free
            free -= (threaded := self._jobs[name].threaded)
            if waits := threaded and free < 0:
                self._running.warn_of_wait(name)
            return not waits

        return self._agenda.take_due(may_start)

    def _end(self, finish: Finish) -> None:
        self._ended.append(finish)
        self._wake.set()

    async def _record_ended(self) -> None:
        ended, self._ended = self._ended, []
        if not ended:
            return
        try:
            looks = await self._store.finish(ended)
        except BaseException:
            self._ended = ended + self._ended
            raise
        for finish, look in zip(ended, looks, strict=True):
            _report(finish, look)
        self._schedule(looks)
        self._agenda.retry_waiting()

    async def _look_again(self) -> None:
        busy = {*self._running.names, *(finish.name for finish in self._ended)}
        looks = await self._store.look([name for name in self._jobs if name not in busy])
        self._agenda.clear()
        self._schedule(looks)
        self._running.warn_of_late()

    def _schedule(self, looks: Iterable[Look], soonest: timedelta = timedelta(0)) -> None:
        for look in looks:
            self._run_nos[look.name] = look.run_no
            self._agenda.add(look.name, max(look.delay, soonest))

    def _register(self, job: Job) -> Registration:
        first = partial(job.schedule.first, random=self._random(f"{job.name}:0:gap"))
        return Registration(job.name, first, job.schedule.latest, job.schedule.steady)

    def _claim(self, name: str) -> Claim:
        run_no = self._run_nos[name]
        random = self._random(f"{name}:{run_no + 1}:gap")
        return Claim(name, run_no, partial(self._jobs[name].schedule.next, random=random))

    async def _stop(self) -> None:
        self._wake.set()
        if names := ", ".join(self._running.names):
            log.info("cron: stopping; waiting up to %g s for %s", self._grace_seconds, names)
        self._running.request_stop()
        with suppress(TimeoutError):
            async with self._clock.timeout(self._grace_seconds):
                if self._driver is not None:
                    await asyncio.wait([self._driver])
                self._running.request_stop()  # also what the driver has begun meanwhile
                await self._running.wait()
        self._running.cancel()
        with suppress(TimeoutError):
            async with self._clock.timeout(CANCEL_SECONDS):
                if self._driver is not None:
                    self._driver.cancel()
                    await asyncio.wait([self._driver])  # it gives back what it could not record
                await self._running.wait()
        try:
            async with self._clock.timeout(CANCEL_SECONDS):
                await self._record_ended()
        except Exception:
            log.exception("cron: it is not recorded how these runs ended: %s", self._ended)
        self._running.leave_behind()


def _report(finish: Finish, look: Look) -> None:
    remark = finish.note or finish.error
    JobLog(finish.name, finish.run_no).info(
        "%s%s%s",
        finish.outcome,
        f", {remark}" if remark else "",
        "" if finish.outcome == "interrupted" else f"; next in {in_words(look.delay)}",
        extra={"outcome": finish.outcome},
    )
