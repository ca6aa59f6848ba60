"""The runs under way in this process."""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any
from weakref import WeakSet

from starlette.datastructures import State

from .clock import Clock, RandomSource
from .fence import Fence
from .inject import Injected
from .run import JobRun
from .schedule import in_words
from .store import Claimed, Finish
from .threads import DaemonThreads

log = logging.getLogger(__name__)

# A body begins this soon after its claim or not at all: later, the claim may be worth nothing.
START_SLACK_SECONDS = 1.0


class Running:
    """Starts claimed runs, at most one of a job at a time.

    `ended` is called with how one has ended, `freed` when a thread may be free that was reserved.
    """

    def __init__(
        self,
        jobs: Sequence[Injected],
        *,
        clock: Clock,
        random: RandomSource,
        state: Mapping[str, Any],
        threads: int,
        ended: Callable[[Finish], None],
        freed: Callable[[], None],
    ) -> None:
        self._jobs = {injected.job.name: injected for injected in jobs}
        self._threaded = {injected.job.name for injected in jobs if injected.job.threaded}
        self._clock = clock
        self._random = random
        self._state = state
        self._thread_limit = threads
        self._threads = DaemonThreads(threads, "cron-job")
        self._ended = ended
        self._freed = freed
        self._runs: dict[str, JobRun] = {}
        self._reserved: set[str] = set()
        self._waiting: set[str] = set()
        self._warned: WeakSet[JobRun] = WeakSet()

    @property
    def names(self) -> list[str]:
        """The jobs that are running."""
        return sorted(self._runs)

    def runs_of(self, names: Iterable[str]) -> list[JobRun]:
        """The runs under way of these jobs."""
        return [self._runs[name] for name in names if name in self._runs]

    def reserve(self, name: str) -> bool:
        """Whether the job can begin: it is not running and, if it needs a thread, there is one. It
        is kept for the job until `release`: another driver may look for one meanwhile."""
        if name in self._runs:
            return False
        if name in self._threaded:
            busy = len(self._threaded & self._runs.keys())
            if busy + len(self._reserved) >= self._thread_limit:
                # It is told once for each wait. A thread that is only reserved may be free at once.
                if busy >= self._thread_limit and name not in self._waiting:
                    self._waiting.add(name)
                    log.warning("cron: %s is due but all threads are busy (CRON_THREADS)", name)
                return False
            self._reserved.add(name)
        return True

    def release(self, names: Collection[str]) -> None:
        """What has not begun by now needs no thread."""
        self._reserved.difference_update(names)
        if not self._threaded.isdisjoint(names):
            self._freed()

    def begin(self, claimed: Claimed, fence: Fence | None, trusted_until: float) -> None:
        """Start a run, unless it is too late for it or another one of its job goes on."""
        self._waiting.discard(claimed.name)
        if reason := self._hindrance(claimed, trusted_until):
            self._ended(_missed(claimed, reason))
            return
        run = JobRun(
            self._jobs[claimed.name],
            claimed,
            clock=self._clock,
            random=self._random,
            state=State(dict(self._state)),
            threads=self._threads,
            fence=fence,
            trusted_until=trusted_until,
        )
        self._runs[claimed.name] = run
        run.task.add_done_callback(partial(self._end, run))

    def warn_of_late(self) -> None:
        """Name in the log, once each, the runs that go on though their timeout is over."""
        for name, run in self._runs.items():
            if run.late() and run not in self._warned:
                self._warned.add(run)
                log.warning(
                    "cron: %s run %d is over its timeout and does not end; "
                    "the job is not run again until it does",
                    name,
                    run.claimed.run_no,
                )

    def request_stop(self) -> None:
        """Ask all runs to stop."""
        for run in self._runs.values():
            run.context.request_stop()

    async def wait(self) -> None:
        """Wait until all runs have ended."""
        while self._runs:
            await asyncio.wait([run.task for run in self._runs.values()])

    def cancel(self) -> None:
        """Cut all runs short."""
        for run in self._runs.values():
            run.cancel()

    def leave_behind(self) -> None:
        """Give up the runs that do not end, and take no more."""
        for name, run in self._runs.items():
            log.error("cron: %s run %d does not end; it is left behind", name, run.claimed.run_no)
            # Or asyncio.run would wait for it, without a limit.
            asyncio.tasks._unregister_task(run.task)
        self._threads.shutdown()

    def _hindrance(self, claimed: Claimed, trusted_until: float) -> str | None:
        if claimed.name in self._runs:  # its claim was under way when another one's run began here
            return "the run before it goes on in this process"
        now, late = self._clock.monotonic(), claimed.started_at - claimed.due_at
        max_late = self._jobs[claimed.name].job.max_late
        if now - claimed.claimed_at > START_SLACK_SECONDS or now >= trusted_until:
            return "claim answered late"
        if max_late is not None and not claimed.requested and late > max_late:
            return f"{in_words(late)} late, and max_late is {in_words(max_late)}"
        return None

    def _end(self, run: JobRun, _: asyncio.Task[Any]) -> None:
        del self._runs[run.job.name]
        self._ended(run.finish())


def _missed(claimed: Claimed, reason: str) -> Finish:
    """The end of a run that has not begun. The next one stays due as its claim has set it."""
    return Finish(
        claimed.name,
        claimed.run_no,
        claimed.started_at,
        "missed",
        note="",
        error=reason,
        failures=claimed.failures,
        next_run_at=lambda _, due: due,
    )
