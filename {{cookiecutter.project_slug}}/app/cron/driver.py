"""The driver: waits until a job of its store is due, claims it, and records how it ended."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from math import inf
from typing import TypeVar

from .agenda import MICROSECOND, Entry
from .clock import Clock, RandomSource
from .job import Job, JobLog
from .leases import Leases
from .outage import Outage
from .plan import Plan
from .running import Running
from .schedule import in_words
from .store import Claim, Claimed, Finish, Look, Store, StoreUnavailable

Item = TypeVar("Item", Claim, Finish)
Answer = TypeVar("Answer")

log = logging.getLogger(__name__)

# What falls due this soon after another is claimed together with it, in one transaction.
COALESCE = timedelta(milliseconds=50)

# The driver counts as late when this much more than LOOK_EVERY has passed since it last looked, and
# as absent when it wakes so much later than it meant to.
LATE = timedelta(seconds=30)

# Others are told this often that the process is alive.
CHECK_IN_EVERY = timedelta(minutes=1)

# A body begins this soon after its claim or not at all: later, the claim may be worth nothing.
START_SLACK_SECONDS = 1.0

# A job is not claimed again sooner after it has been claimed in vain, or the driver might spin.
LOST = timedelta(milliseconds=10)

# How long the driver rests when something has failed that should not.
FAULT_SECONDS = 1.0


class Driver:
    """Drives the jobs of one store: a task that keeps a heap of due times.

    With `claims=False` it starts nothing by itself, but sees to what `run` starts.
    """

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
        self.task: asyncio.Task[None] | None = None
        self._store = store
        self._clock = clock
        self._running = running
        self._claims = claims
        self._plan = Plan(self.jobs, clock=clock, random=random, coalesce=coalesce)
        self._agenda = self._plan.agenda
        self._look_every = look_every // MICROSECOND
        self._looked_at = self._agenda.time()
        self._stale = True
        self._check_in_at = self._looked_at
        self._absence: tuple[datetime, datetime] | None = None
        self._ended: list[Finish] = []
        self._awaited: dict[str, asyncio.Future[Finish]] = {}
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        runs = partial(running.runs_of, self.jobs)
        self._leases = None if store.lease is None else Leases(store, clock, runs)
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to drive. A store that is away is waited for, later."""
        try:
            await self._look_again()
        except StoreUnavailable as error:
            self.outage.failed(error)
        self.task = asyncio.create_task(self._drive(), name="cron driver")
        if self._leases is not None:
            self._keeper = asyncio.create_task(self._leases.keep(), name="cron leases")

    def next_due(self) -> tuple[str, timedelta] | None:
        """The job that is due next, and in how long."""
        return self._agenda.next()

    def problem(self) -> str | None:
        """Why nothing would start now: the driver is dead, or late. None while all is well."""
        if self.task is None or self.task.done():
            return "the driver is dead"
        if self._keeper is not None and self._keeper.done():
            return "nobody renews the leases"
        idle = self._agenda.time() - self._looked_at
        if idle > self._look_every + LATE // MICROSECOND:
            return f"the driver is late: it last looked {in_words(idle * MICROSECOND)} ago"
        return None

    def ended(self, finish: Finish) -> None:
        """A run has ended: record it."""
        self._ended.append(finish)
        self._wake.set()

    def retry_waiting(self) -> None:
        """A thread may be free: start what waits for one."""
        self._agenda.retry_waiting()
        self._wake.set()

    def stop(self) -> None:
        """Claim nothing more; the task ends when it has recorded what has ended so far."""
        self._stopping.set()
        self._wake.set()

    async def leave(self) -> None:
        """Record what is left to record, and that the process stops."""
        try:
            await self.record_ended()
            if self._claims:
                await self._store.check_out()
        except Exception as error:  # noqa: BLE001 -- nothing may keep the app from ending
            names = ", ".join(finish.name for finish in self._ended) or "none"
            log.error("cron: not recorded at the end: %s; runs without an end: %s", error, names)
        finally:
            if self._keeper is not None:
                self._keeper.cancel()

    async def run(self, name: str, *, forced: bool) -> Finish | None:
        """Claim the job and run it here, and wait until its end is recorded.

        None: it is running elsewhere or, unless `forced`, not due.
        """
        [look] = await self._store.look([name])
        self._plan.know(name, look.run_no)
        self._agenda.drop({name})
        asked = self._clock.monotonic()
        claimed = await self._store.claim([self._plan.wish(name, forced=forced)])
        if not claimed:
            return None
        self._awaited[name] = asyncio.get_running_loop().create_future()
        self._begin(claimed[0], asked)
        return await self._awaited[name]

    async def record_ended(self) -> None:
        """Record the ends of runs. What cannot be recorded now is kept for later."""
        ended, self._ended = self._ended, []
        if not ended:
            return
        try:
            looks, _ = await self._each(self._store.finish, ended)
        except BaseException:
            self._ended = ended + self._ended
            raise
        for finish in ended:
            _report(finish, next((look for look in looks if look.name == finish.name), None))
            if (awaited := self._awaited.pop(finish.name, None)) and not awaited.done():
                awaited.set_result(finish)
        self._add(looks)

    async def _drive(self) -> None:
        look_at = self._looked_at + self._look_every
        while not self._stopping.is_set():
            if not self._stale:
                await self._wait(look_at)
            self._looked_at = self._agenda.time()
            try:
                await self.record_ended()
                if self._stale or self._looked_at >= look_at:
                    look_at = self._looked_at + self._look_every
                    await self._look_again()
                await self._claim_due()
            except StoreUnavailable as error:
                self._stale = True
                await self._rest(self.outage.failed(error))
            except Exception:
                log.exception("cron: the driver has failed; it goes on in %g s", FAULT_SECONDS)
                self._stale = True
                await self._rest(FAULT_SECONDS)

    async def _wait(self, look_at: int) -> None:
        """Until something is due, a run has ended, the driver stops, or it is `look_at`."""
        while not self._wake.is_set() and not self._stale:
            seconds = (self._agenda.wake_at(look_at) - self._agenda.time()) / 1_000_000
            if seconds <= 0:
                break
            planned = self._clock.now() + timedelta(seconds=seconds)
            with suppress(TimeoutError):
                async with self._clock.timeout(seconds):
                    await self._wake.wait()
            if self._clock.now() - planned > LATE:
                self._absence = planned, self._clock.now()
                self._stale = True
        self._wake.clear()

    async def _rest(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with self._clock.timeout(seconds):
                await self._stopping.wait()

    async def _look_again(self) -> None:
        """Look at all jobs that do not run here. After an absence or outage, plan all anew."""
        busy = {*self._running.names, *(finish.name for finish in self._ended)}
        names = [name for name in self.jobs if name not in busy]
        if self._stale:
            looks = await self._store.register([self._plan.registration(name) for name in names])
        else:
            looks = await self._store.look(names)
        if self._claims and (self._stale or self._agenda.time() >= self._check_in_at):
            await self._store.check_in(self._absence)
            self._check_in_at = self._agenda.time() + CHECK_IN_EVERY // MICROSECOND
        self._tell_of_absence()
        self.outage.over()
        if self._claims:
            self._plan.renew(looks, stale=self._stale)
        self._stale = False
        self._running.warn_of_late()

    def _tell_of_absence(self) -> None:
        if self._absence is not None:
            since, until = (f"{moment:%Y-%m-%d %H:%M:%S}" for moment in self._absence)
            log.warning(
                "cron: this process did not run from %s to %s UTC, or its clock was set",
                since,
                until,
            )
            self._absence = None

    async def _claim_due(self) -> None:
        due = self._take_due()
        names = [name for _, name in due]
        if held := [name for name in names if self._plan.is_held(name)]:
            self._add(await self._store.look(held))
        wishes = [self._plan.wish(name) for name in names if name not in held]
        if not wishes or self._stopping.is_set():
            self._agenda.put_back(entry for entry in due if entry[1] not in held)
            return
        asked = self._clock.monotonic()
        claimed, failed = await self._each(self._store.claim, wishes)
        for claim in claimed:
            self._begin(claim, asked)
        # What failed is tried again after the next look at all jobs.
        if lost := {wish.name for wish in wishes} - {claim.name for claim in claimed} - failed:
            self._add(await self._store.look(sorted(lost)), soonest=LOST)

    def _begin(self, claimed: Claimed, asked: float) -> None:
        self._plan.know(claimed.name, claimed.run_no)
        now, late = self._clock.monotonic(), claimed.started_at - claimed.due_at
        max_late = self.jobs[claimed.name].max_late
        trusted_until = inf if self._leases is None else self._leases.trusted_until(asked)
        if now - claimed.claimed_at > START_SLACK_SECONDS or now >= trusted_until:
            self._miss(claimed, "claim answered late")
        elif max_late is not None and not claimed.requested and late > max_late:
            self._miss(claimed, f"{in_words(late)} late, and max_late is {in_words(max_late)}")
        else:
            self._running.begin(claimed, self._store.fence(claimed), trusted_until)
            if self._leases is not None:
                self._leases.wake()

    def _miss(self, claimed: Claimed, reason: str) -> None:
        """Do not begin a run that was claimed. The next one stays due as its claim has set it."""
        name, run_no, failures = claimed.name, claimed.run_no, claimed.failures
        self.ended(Finish(name, run_no, "missed", "", reason, failures, lambda _, due: due))

    def _add(self, looks: Iterable[Look], soonest: timedelta = timedelta(0)) -> None:
        if self._claims:
            self._plan.add(looks, soonest=soonest)

    async def _each(
        self, operation: Callable[[Sequence[Item]], Awaitable[list[Answer]]], items: Sequence[Item]
    ) -> tuple[list[Answer], set[str]]:
        """Ask the store with all items at once or, where that fails, with each alone, so that one
        job's fault touches no other. Also gives the names of those that fail alone."""
        try:
            return await operation(items), set()
        except StoreUnavailable:
            raise
        except Exception:
            if len(items) == 1:
                log.exception("cron: %s cannot be claimed, or its end recorded", items[0].name)
                return [], {items[0].name}
        answers, failed = list[Answer](), set[str]()
        for item in items:
            answer, failure = await self._each(operation, [item])
            answers += answer
            failed |= failure
        return answers, failed

    def _take_due(self) -> list[Entry]:
        """What is due, but for jobs that need a thread when none is free."""
        free = self._running.free_threads()

        def may_start(name: str) -> bool:
            nonlocal free
            free -= (threaded := self.jobs[name].threaded)
            if waits := threaded and free < 0:
                self._running.warn_of_wait(name)
            return not waits

        return self._agenda.take_due(may_start)


def _report(finish: Finish, look: Look | None) -> None:
    remark = finish.note or finish.error
    due = look is not None and finish.outcome != "interrupted" and not look.paused
    JobLog(finish.name, finish.run_no).info(
        "%s%s%s",
        finish.outcome,
        f", {remark}" if remark else "",
        f"; next in {in_words(look.delay)}" if look is not None and due else "",
        extra={"outcome": finish.outcome},
    )
